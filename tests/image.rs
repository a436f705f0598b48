//! The ways by which kernels come to a device, each with a kernel that runs. `cargo xtask test` runs these on the
//! simulator and with NVRTC from PyPI, or on a GPU with CUDRIFT_REQUIRE_GPU=1.
#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used)]

#[allow(dead_code)]
#[path = "../build.rs"]
mod build;
mod common;

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::Path;

use cudarc::driver::{CudaContext, LaunchConfig, PushKernelArg};
use cudrift::Error;
use cudrift::cuda::{self, Loaded, Origin, cudarc};

const ROUTE: &str = "CUDRIFT_CUDA_IMAGE";

/// Is there what `what` names? Says so where it is neither there nor required.
fn needs(what: &str, there: bool) -> bool {
    assert!(there || !common::required(), "{what} is required");
    if !there {
        eprintln!("SKIPPED: there is no {what}; `cargo xtask test` has it");
    }
    there
}

/// Runs the test `name` again with no way to the kernels forced but by `variables`; there, this is false.
fn elsewhere(name: &str, variables: &[(&str, OsString)]) -> bool {
    common::elsewhere(name, |child| {
        child.env_remove(ROUTE).envs(variables.iter().map(|(name, value)| (name, value)));
    })
}

fn load() -> cudrift::Result<Loaded> {
    cuda::load_image(&CudaContext::new(0).unwrap())
}

/// Launches the kernel `probe`, which leaves `i + offset` in element `i`.
#[track_caller]
fn assert_runs(loaded: &Loaded) {
    let (n, offset) = (1000i32, 42i32);
    let probe = loaded.module.load_function("probe").unwrap();
    let stream = CudaContext::new(0).unwrap().default_stream();
    let mut out = stream.alloc_zeros::<i32>(n as usize).unwrap();
    let mut launch = stream.launch_builder(&probe);
    launch.arg(&mut out).arg(&offset).arg(&n);
    let shape = LaunchConfig { grid_dim: (4, 1, 1), block_dim: (256, 1, 1), shared_mem_bytes: 0 };
    // SAFETY: the arguments are those of the kernel, whose threads stop at `n`.
    unsafe { launch.launch(shape) }.unwrap();
    assert_eq!(stream.clone_dtoh(&out).unwrap(), Vec::from_iter(offset..offset + n));
}

#[test]
fn the_embedded_image_runs() {
    let image = cuda::image();
    if !needs("embedded image", image.absent.is_none()) || common::device().is_none() {
        return;
    }
    assert!(image.bytes > 1000 && image.hash.len() == 32 && image.compiler.contains('.'), "{image:?}");
    if elsewhere("the_embedded_image_runs", &[(ROUTE, "embedded".into())]) {
        return;
    }
    let loaded = load().unwrap();
    assert_eq!(loaded.origin, Origin::Embedded);
    assert_runs(&loaded);
}

#[test]
fn nvrtc_compiles_once_and_its_image_runs() {
    // SAFETY: a library that does nothing when loaded.
    let nvrtc = unsafe { cudarc::nvrtc::sys::is_culib_present() };
    if !needs("libnvrtc.so", nvrtc) || common::device().is_none() {
        return;
    }
    let cache = tempfile::tempdir().unwrap();
    let variables = [(ROUTE, "nvrtc".into()), ("XDG_CACHE_HOME", cache.path().into())];
    if elsewhere("nvrtc_compiles_once_and_its_image_runs", &variables) {
        let files: Vec<_> = fs::read_dir(cache.path().join("cudrift")).unwrap().map(|file| file.unwrap()).collect();
        assert_eq!(files.len(), 1, "{files:?}");
        return;
    }
    for again in [false, true] {
        let loaded = load().unwrap();
        assert!(matches!(loaded.origin, Origin::Compiled { cached, .. } if cached == again), "{:?}", loaded.origin);
        assert_runs(&loaded);
    }
}

/// On a driver of CUDA 11.4, which knows neither the embedded PTX nor NVRTC's.
#[test]
fn where_nothing_loads_the_error_names_both_versions() {
    if common::device().is_none() {
        return;
    }
    // SAFETY: a library that does nothing when loaded.
    let nvrtc = unsafe { cudarc::nvrtc::sys::is_culib_present() };
    if !needs("libnvrtc.so", nvrtc) || !cuda::probe().unwrap().simulated {
        return;
    }
    let cache = tempfile::tempdir().unwrap();
    let variables = [("CUDRIFT_SIM_DRIVER", "11.4".into()), ("XDG_CACHE_HOME", cache.path().into())];
    if elsewhere("where_nothing_loads_the_error_names_both_versions", &variables) {
        return;
    }
    let error = load().unwrap_err();
    let text = error.to_string();
    let Error::NoKernels { driver, nvrtc, .. } = error else { panic!("{text}") };
    assert_eq!(driver, "11.4");
    assert!(nvrtc.split_once('.').is_some_and(|(major, _)| major.parse::<u32>().is_ok()), "{nvrtc}");
    assert!(text.contains("CUDA_ERROR_UNSUPPORTED_PTX_VERSION") && text.contains("update the NVIDIA driver"), "{text}");
    assert!(!text.contains('\n'), "{text}");
}

#[test]
fn a_missing_nvrtc_is_a_typed_error() {
    if common::device().is_none() {
        return;
    }
    let path = env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let has = |folder: &Path| {
        let files = fs::read_dir(folder).into_iter().flatten().flatten();
        files.into_iter().any(|file| file.file_name().to_string_lossy().starts_with("libnvrtc"))
    };
    let without = env::join_paths(env::split_paths(&path).filter(|folder| !has(folder))).unwrap();
    if elsewhere("a_missing_nvrtc_is_a_typed_error", &[(ROUTE, "nvrtc".into()), ("LD_LIBRARY_PATH", without)]) {
        return;
    }
    // SAFETY: a library that does nothing when loaded.
    if unsafe { cudarc::nvrtc::sys::is_culib_present() } {
        eprintln!("SKIPPED: this system has a libnvrtc.so outside LD_LIBRARY_PATH");
        return;
    }
    let error = load().unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::NoKernels { .. }), "{error:?}");
    assert!(text.contains("libnvrtc.so was not found: install") && !text.contains('\n'), "{text}");
}

#[test]
fn an_unknown_way_is_refused() {
    if common::device().is_none() {
        return;
    }
    if elsewhere("an_unknown_way_is_refused", &[(ROUTE, "embeded".into())]) {
        return;
    }
    let error = load().unwrap_err().to_string();
    assert_eq!(error, "loading the kernels: CUDRIFT_CUDA_IMAGE is embeded, expected embedded or nvrtc");
}

/// A source with symbols that nvcc names after its path.
const LOCAL_NAMES: &str = "
namespace { __constant__ float table[4] = {1, 2, 3, 4}; __device__ int count; }
static __device__ void helper() { count = 1; }
extern \"C\" __global__ void k(float* x, int i) { helper(); x[threadIdx.x] = table[i & 3]; }
";

fn compiler() -> Option<build::Compiler> {
    let compiler = build::compiler(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap();
    needs("nvcc", compiler.is_some()).then_some(compiler).flatten()
}

#[test]
fn the_image_depends_on_nothing_but_the_sources() {
    let Some(compiler) = compiler() else { return };
    let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let images = folders.each_ref().map(|folder| {
        let image = build::compile(&compiler, folder.path(), LOCAL_NAMES, &[80, 90], false).unwrap();
        assert_eq!(image.architectures, [80, 90]);
        image.bytes
    });
    let contains = |text: &[u8]| images[0].windows(text.len()).any(|window| window == text);
    assert!(images[0] == images[1], "two images of the same source differ");
    assert!(
        contains(b".version 7.8\n.target sm_80") && contains(b"_INTERNAL_00000000_"),
        "the PTX is not as it should be"
    );
    for folder in &folders {
        assert!(!contains(folder.path().as_os_str().as_encoded_bytes()), "the image names the folder it was made in");
    }
    // What was compiled stays: made again from it, the image is the same.
    assert!(build::compile(&compiler, folders[0].path(), LOCAL_NAMES, &[80, 90], false).unwrap().bytes == images[0]);
}

/// What this build embeds, built once more elsewhere.
#[test]
#[ignore = "compiles every kernel"]
fn the_embedded_image_is_reproducible() {
    let (Some(compiler), image) = (compiler(), cuda::image()) else { return };
    if !needs("embedded image", image.absent.is_none()) {
        return;
    }
    let kernels = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels/all.cu");
    let (source, _) = build::join(&kernels).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let lineinfo = env::var_os("CUDRIFT_CUDA_LINEINFO").is_some_and(|value| value == "1");
    let again = build::compile(&compiler, folder.path(), &source, image.architectures, lineinfo).unwrap();
    assert_eq!(format!("{:032x}", build::fnv::fnv(&[&again.bytes])), image.hash);
}

#[test]
fn sources_are_joined_once_each() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    fs::create_dir(folder.path().join("ptx")).unwrap();
    write("all.cu", "#include \"a.cu\"\n#include \"params.h\"\nlast\n");
    write("a.cu", "first\n#include \"ptx/b.cuh\"\n  # include \"params.h\" // twice\n");
    write("ptx/b.cuh", "#pragma once\n#include \"../params.h\"\nb\n");
    write("params.h", "#pragma once\nparams\n");
    let (text, files) = build::join(&folder.path().join("all.cu")).unwrap();
    let plain: Vec<&str> = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    assert_eq!(plain, ["first", "params", "b", "last"]);
    assert!(text.contains("#line 3 \"ptx/b.cuh\"\nb\n") && text.contains("#line 3 \"all.cu\"\nlast\n"), "{text}");
    assert_eq!(files.len(), 4);
    write("a.cu", "#include <cuda_fp16.h>\n");
    let error = build::join(&folder.path().join("all.cu")).unwrap_err();
    assert_eq!(error, "a.cu:1: kernels include each other alone: #include <cuda_fp16.h>");
}
