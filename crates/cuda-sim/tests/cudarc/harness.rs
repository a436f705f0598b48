//! Runs a test in a process of its own that finds the simulator under the names of NVIDIA's libraries.

use std::env;
use std::ffi::{OsString, c_char};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaFunction, CudaModule, CudaStream, DriverError};
use cudarc::nvrtc::Ptx;

/// Set in the processes that have the simulator.
const CHILD: &str = "CUDRIFT_SIM_CHILD";

/// Runs `body`, which is the whole of a test, on the simulator; the process ends with it.
pub fn simulate<F: FnOnce()>(body: F) {
    simulate_with(&[], body);
}

/// As [`simulate`], with more variables in the environment; returns what the process wrote.
///
/// In that process, `body` runs and nothing is returned.
pub fn simulate_with<F: FnOnce()>(variables: &[(&str, &str)], body: F) -> Option<Output> {
    if env::var_os(CHILD).is_some() {
        body();
        return None;
    }
    let test = test_of::<F>();
    let mut command = Command::new(env::current_exe().expect("the test program"));
    // Each test says itself what is pretended.
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CUDRIFT_SIM_")) {
        command.env_remove(name);
    }
    let output = command
        .args([&test, "--exact", "--nocapture"])
        .env(CHILD, "1")
        .env("LD_LIBRARY_PATH", library_path())
        .envs(variables.iter().copied())
        .output()
        .expect("to start the test program again");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{test}: {}\n{out}\n{err}", output.status);
    Some(output)
}

/// The name of the test whose closure `F` is.
fn test_of<F>() -> String {
    let path = std::any::type_name::<F>();
    let path = path.split_once("::").expect("a path inside this crate").1;
    path.split("::{{closure}}").next().expect("a test").to_owned()
}

/// The folder with the links, before what there was.
fn library_path() -> OsString {
    let mut path = OsString::from(links());
    if let Some(rest) = env::var_os("LD_LIBRARY_PATH") {
        path.push(":");
        path.push(rest);
    }
    path
}

/// A folder with links to the library of this build. Cargo does not add it to the library path by itself: there, they
/// would hide the driver of a machine that has a GPU.
fn links() -> PathBuf {
    let program = env::current_exe().expect("the test program");
    let deps = program.parent().expect("its folder");
    let profile = deps.parent().expect("the profile's folder");
    let folder = profile.with_file_name("sim").join(profile.file_name().expect("the profile"));
    fs::create_dir_all(&folder).expect("a folder for the links");
    for name in ["libcuda.so", "libcublas.so", "libcublasLt.so"] {
        let fresh = folder.join(format!("{name}.{}", std::process::id()));
        // Tests run side by side: each puts its link in place at once.
        symlink(deps.join("libcudrift_sim.so"), &fresh).or_else(|_| fs::metadata(&fresh).map(drop)).expect("a link");
        let _ = fs::rename(&fresh, folder.join(name));
    }
    folder
}

/// The device and a stream, after a look at the device's name.
pub fn device() -> (Arc<CudaContext>, Arc<CudaStream>) {
    let context = CudaContext::new(0).expect("the simulated device");
    let name = context.name().expect("its name");
    assert!(name.contains("simulator"), "{name} is no simulator: is there a real driver before it?");
    let stream = context.new_stream().expect("a stream");
    (context, stream)
}

/// Does the result hold this code?
#[track_caller]
pub fn assert_code<T>(result: Result<T, DriverError>, code: cudarc::driver::sys::CUresult) {
    assert_eq!(result.err().map(|error| error.0), Some(code));
}

/// A function of the simulator's that is not CUDA's.
pub fn last_finding() -> String {
    type LastFinding = unsafe extern "C" fn(*mut c_char, usize) -> usize;
    let mut text = vec![0u8; 4096];
    // SAFETY: the library is loaded already, the function has this type, and the buffer is as long as it is told.
    let len = unsafe {
        let library = libloading::Library::new("libcuda.so").expect("the simulator");
        let function = library.get::<LastFinding>(b"cudrift_sim_last_finding").expect("its function");
        function(text.as_mut_ptr().cast(), text.len())
    };
    text.truncate(len);
    String::from_utf8(text).expect("a text")
}

/// How nvcc is to write kernels.cu.
#[derive(Clone, Copy, Debug)]
pub enum Format {
    Ptx,
    Fatbin,
    UncompressedFatbin,
    /// Cubins only.
    Cubins,
}

/// Path of kernels.cu, compiled.
pub fn compiled(format: Format) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let installed = folder.join("../../target/cuda/toolkit/bin/nvcc");
    let nvcc = env::var_os("NVCC").unwrap_or_else(|| installed.into());
    let flags: &[&str] = match format {
        Format::Ptx => &["-ptx", "-arch=compute_80"],
        Format::Fatbin => {
            &["-fatbin", "-gencode=arch=compute_80,code=[sm_80,compute_80]", "-gencode=arch=compute_90,code=sm_90"]
        }
        Format::UncompressedFatbin => &["-fatbin", "--no-compress", "-gencode=arch=compute_80,code=[sm_80,compute_80]"],
        Format::Cubins => &["-fatbin", "-gencode=arch=compute_80,code=sm_80", "-gencode=arch=compute_90,code=sm_90"],
    };
    let mut hasher = DefaultHasher::new();
    (include_str!("kernels.cu"), flags, &nvcc).hash(&mut hasher);
    let output = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cudarc-{:016x}", hasher.finish()));
    if !output.exists() {
        // Tests run side by side: each puts a whole file in place at once.
        let partial = output.with_extension(std::process::id().to_string());
        let source = folder.join("tests/cudarc/kernels.cu");
        let done = Command::new(&nvcc).args(flags).arg("-o").arg(&partial).arg(source).output();
        let done = done.unwrap_or_else(|error| panic!("{}: {error}: run `cargo xtask cuda`", nvcc.display()));
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        fs::rename(&partial, &output).expect("to move the compiled kernels into place");
    }
    output
}

/// kernels.cu, as PTX.
pub fn kernels(context: &Arc<CudaContext>) -> Arc<CudaModule> {
    context.load_module(Ptx::from_file(compiled(Format::Ptx))).expect("the kernels")
}

/// A kernel of kernels.cu.
pub fn kernel(context: &Arc<CudaContext>, name: &str) -> CudaFunction {
    kernels(context).load_function(name).expect("the kernel")
}
