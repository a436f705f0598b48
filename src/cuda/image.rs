//! The compiled kernels, loaded into a device: the image that build.rs made, or else the embedded source, which NVRTC
//! compiles at first use.

use std::ffi::{CStr, CString, c_char, c_int};
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::ptr;
use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaModule, DriverError, sys};
use cudarc::nvrtc::Ptx;
use cudarc::nvrtc::result::NvrtcError;
use cudarc::nvrtc::sys as nvrtc;

use super::context::{SIMULATOR, failed, name};
use super::fnv::fnv;
use super::lower::lowered;
use crate::{Error, Result};

include!(concat!(env!("OUT_DIR"), "/image.rs"));

/// A fatbin, empty where there was no compiler.
const FATBIN: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/kernels.fatbin"));
/// Every kernel file in one text, which includes nothing.
const SOURCE: &str = include_str!(concat!(env!("OUT_DIR"), "/kernels.cu"));
/// Forces a route: `embedded` or `nvrtc`.
const VARIABLE: &str = "CUDRIFT_CUDA_IMAGE";
/// The first NVRTC that gives cubins.
const OLDEST: (i32, i32) = (11, 1);
/// What PTX is compiled for, as in the embedded image.
const PTX_TARGET: &str = "compute_80";
const INSTALL: &str = "install libnvrtc.so (it comes with CUDA, or with `pip install nvidia-cuda-nvrtc`) and have it in \
                       LD_LIBRARY_PATH";

/// What build.rs says about [`FATBIN`].
struct Embedded {
    architectures: &'static [u32],
    compiler: &'static str,
    hash: &'static str,
    absent: &'static str,
}

/// The image of the kernels that this build embeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImageInfo {
    /// Architectures with machine code of their own, as 80 or 120. All others use the PTX, which every image holds.
    pub architectures: &'static [u32],
    /// Bytes; 0 where nothing is embedded.
    pub bytes: usize,
    /// Hash of the bytes: equal sources, compilers and architectures give equal images.
    pub hash: &'static str,
    /// Version of nvcc; empty where nothing is embedded.
    pub compiler: &'static str,
    /// Why nothing is embedded; NVRTC then compiles the kernels at first use.
    pub absent: Option<&'static str>,
}

/// The image of the kernels that this build embeds.
pub fn image() -> ImageInfo {
    let Embedded { architectures, compiler, hash, absent } = EMBEDDED;
    let absent = FATBIN.is_empty().then_some(absent);
    ImageInfo { architectures, bytes: FATBIN.len(), hash, compiler, absent }
}

/// Where loaded kernels came from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// The image that this build embeds.
    Embedded,
    /// The embedded source, compiled by NVRTC.
    Compiled {
        /// NVRTC's version.
        nvrtc: (u32, u32),
        /// What it compiled for, as `sm_90`, or `compute_80` for PTX.
        target: String,
        /// Was the result in the cache on disk?
        cached: bool,
    },
}

/// The kernels, loaded.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Loaded {
    /// The module that holds every kernel.
    pub module: Arc<CudaModule>,
    /// Where it came from.
    pub origin: Origin,
}

/// Loads the kernels into a device, and says which way.
///
/// The embedded image where there is one and the driver takes it; else what NVRTC makes of the embedded source, which
/// may take a minute once and then lies in `$XDG_CACHE_HOME/cudrift` or `~/.cache/cudrift`. The variable
/// `CUDRIFT_CUDA_IMAGE` forces a way: `embedded` or `nvrtc`.
///
/// # Errors
/// [`Error::NoKernels`] where neither way works, [`Error::Device`] where the device itself fails, [`Error::Value`] for an
/// unknown value of the variable.
pub fn load_image(context: &Arc<CudaContext>) -> Result<Loaded> {
    load_from(context, FATBIN, std::env::var_os(VARIABLE).map(|value| value.to_string_lossy().into_owned()).as_deref())
}

/// Loads the kernels into a device, as [`load_image`] does.
pub(crate) fn load(context: &Arc<CudaContext>) -> Result<Arc<CudaModule>> {
    load_image(context).map(|loaded| loaded.module)
}

fn load_from(context: &Arc<CudaContext>, image: &[u8], route: Option<&str>) -> Result<Loaded> {
    let (embedded, compiled) = match route {
        None | Some("") => (true, true),
        Some("embedded") => (true, false),
        Some("nvrtc") => (false, true),
        Some(other) => return Err(Error::value("loading the kernels", VARIABLE, "embedded or nvrtc", other)),
    };
    let mut problem = format!("{VARIABLE} forbids the embedded image");
    if embedded {
        problem = match image {
            [] => format!("none is embedded ({})", EMBEDDED.absent),
            image => match offer(context, image)? {
                Ok(module) => return Ok(Loaded { module, origin: Origin::Embedded }),
                Err(answer) => format!("the driver answers {answer} to the embedded image"),
            },
        };
    }
    if !compiled {
        problem = format!("{problem}, and {VARIABLE} forbids NVRTC: unset it");
        return Err(no_kernels(problem, None));
    }
    compile_and_load(context, problem)
}

/// Offers an image to the driver. The inner error is the name of a refusal, after which another image may do.
fn offer(context: &Arc<CudaContext>, image: &[u8]) -> Result<Result<Arc<CudaModule>, String>> {
    use sys::CUresult::*;
    match context.load_module(Ptx::from_binary(image.to_vec())) {
        Ok(module) => Ok(Ok(module)),
        Err(error) => match error.0 {
            CUDA_ERROR_INVALID_IMAGE
            | CUDA_ERROR_NO_BINARY_FOR_GPU
            | CUDA_ERROR_INVALID_PTX
            | CUDA_ERROR_JIT_COMPILER_NOT_FOUND
            | CUDA_ERROR_UNSUPPORTED_PTX_VERSION
            | CUDA_ERROR_JIT_COMPILATION_DISABLED
            | CUDA_ERROR_INVALID_SOURCE
            | CUDA_ERROR_NOT_SUPPORTED => Ok(Err(name(error))),
            _ => Err(failed("loading the kernels", error)),
        },
    }
}

/// `problem` says why the embedded image did not serve.
fn compile_and_load(context: &Arc<CudaContext>, problem: String) -> Result<Loaded> {
    // cudarc panics where the library is missing, so ask first.
    // SAFETY: loads a library that does nothing when loaded.
    if !unsafe { nvrtc::is_culib_present() } {
        return Err(no_kernels(format!("{problem}, and libnvrtc.so was not found: {INSTALL}"), None));
    }
    let (mut major, mut minor) = (0, 0);
    // SAFETY: the pointers are to live integers.
    let asked = unsafe { nvrtc::nvrtcVersion(&mut major, &mut minor) }.result();
    let version = (major, minor);
    if asked.is_err() || version < OLDEST {
        let problem = format!("{problem}, and this NVRTC gives no cubins: {INSTALL}");
        return Err(no_kernels(problem, Some(version)));
    }
    let targets = targets(context).map_err(|error| failed("asking for the device's architecture", error))?;
    let mut problem = problem;
    for target in targets {
        let (compiled, cached) = match compiled(&target, version) {
            Ok(compiled) => compiled,
            Err(reason) => {
                problem = format!("{problem}; NVRTC for {target}: {reason}");
                continue;
            }
        };
        match offer(context, &compiled)? {
            Ok(module) => {
                let nvrtc = (major.unsigned_abs(), minor.unsigned_abs());
                return Ok(Loaded { module, origin: Origin::Compiled { nvrtc, target, cached } });
            }
            Err(answer) => problem = format!("{problem}; to NVRTC's image for {target} it answers {answer}"),
        }
    }
    Err(no_kernels(format!("{problem}; update the NVIDIA driver, or {INSTALL}"), Some(version)))
}

fn no_kernels(problem: String, nvrtc: Option<(i32, i32)>) -> Error {
    let mut version = 0;
    // SAFETY: the pointer is to a live integer; the library is loaded, for there is a context.
    let asked = unsafe { sys::cuDriverGetVersion(&mut version) }.result();
    let driver = asked.map_or("unknown".into(), |()| format!("{}.{}", version / 1000, version % 1000 / 10));
    let nvrtc = nvrtc.map_or("not in use".into(), |(major, minor)| format!("{major}.{minor}"));
    Error::NoKernels { problem, driver, nvrtc }
}

/// What to compile for, the best first: machine code for the device, then PTX.
fn targets(context: &Arc<CudaContext>) -> Result<Vec<String>, DriverError> {
    let mut targets = vec![PTX_TARGET.to_owned()];
    // The simulator executes PTX alone.
    if !context.name()?.contains(SIMULATOR) {
        let (major, minor) = context.compute_capability()?;
        targets.extend(nearest(10 * major + minor, &supported()).map(|arch| format!("sm_{arch}")));
        targets.reverse();
    }
    Ok(targets)
}

/// The architecture whose machine code runs on `device`: the greatest of the same major version up to it.
fn nearest(device: i32, known: &[c_int]) -> Option<i32> {
    known.iter().copied().filter(|arch| *arch <= device && arch / 10 == device / 10).max()
}

/// The architectures that NVRTC compiles for.
fn supported() -> Vec<c_int> {
    let mut count = 0;
    // SAFETY: the pointer is to a live integer.
    if unsafe { nvrtc::nvrtcGetNumSupportedArchs(&mut count) }.result().is_err() {
        return Vec::new();
    }
    let mut architectures = vec![0; usize::try_from(count).unwrap_or(0)];
    // SAFETY: there is room for the number of architectures that the library has just named.
    let listed = unsafe { nvrtc::nvrtcGetSupportedArchs(architectures.as_mut_ptr()) };
    listed.result().map(|()| architectures).unwrap_or_default()
}

/// The kernels compiled for a target, and whether they came from the cache. The error is one line.
fn compiled(target: &str, (major, minor): (i32, i32)) -> Result<(Vec<u8>, bool), String> {
    let version = format!("nvrtc{major}.{minor}");
    let key = fnv(&[SOURCE.as_bytes(), target.as_bytes(), version.as_bytes()]);
    let cache = cache().map(|folder| Cached(folder.join(format!("kernels-{key:032x}-{target}-{version}"))));
    if let Some(image) = cache.as_ref().and_then(Cached::read) {
        return Ok((image, true));
    }
    let image = compile(SOURCE, target)?;
    if let Some(cache) = cache {
        // A cache that cannot be written costs time, no more.
        let _ = cache.write(&image);
    }
    Ok((image, false))
}

fn cache() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(cache.join("cudrift"))
}

/// A file with the hash of its content before the content, so that damage is seen.
struct Cached(PathBuf);

impl Cached {
    fn read(&self) -> Option<Vec<u8>> {
        let content = fs::read(&self.0).ok()?;
        let (hash, image) = content.split_first_chunk()?;
        (u128::from_le_bytes(*hash) == fnv(&[image])).then(|| image.to_vec())
    }

    fn write(&self, image: &[u8]) -> std::io::Result<()> {
        let folder = self.0.parent().unwrap_or(&self.0);
        fs::create_dir_all(folder)?;
        // Other processes see all of it or nothing.
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(&fnv(&[image]).to_le_bytes())?;
        file.write_all(image)?;
        file.persist(&self.0)?;
        Ok(())
    }
}

/// An NVRTC program, destroyed with this.
struct Program(nvrtc::nvrtcProgram);

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: nvrtcCreateProgram gave it, and nothing uses it after this.
        let _ = unsafe { nvrtc::nvrtcDestroyProgram(&mut self.0) };
    }
}

impl Program {
    fn new(source: &CStr) -> Result<Self, NvrtcError> {
        let mut program = ptr::null_mut();
        let name = c"kernels.cu".as_ptr();
        // SAFETY: the texts end with NUL and are copied; there are no headers.
        unsafe { nvrtc::nvrtcCreateProgram(&mut program, source.as_ptr(), name, 0, ptr::null(), ptr::null()) }
            .result()?;
        Ok(Self(program))
    }

    fn compile(&self, options: &[&CStr]) -> Result<(), NvrtcError> {
        let options: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
        // SAFETY: as many texts that end with NUL as are said, which outlive the call.
        unsafe { nvrtc::nvrtcCompileProgram(self.0, options.len() as c_int, options.as_ptr()) }.result()
    }

    /// What one of the pairs of functions gives that ask for a size and then fill a buffer.
    fn output(
        &self,
        size: unsafe fn(nvrtc::nvrtcProgram, *mut usize) -> nvrtc::nvrtcResult,
        fill: unsafe fn(nvrtc::nvrtcProgram, *mut c_char) -> nvrtc::nvrtcResult,
    ) -> Result<Vec<u8>, NvrtcError> {
        let mut bytes = 0;
        // SAFETY: the pointer is to a live integer.
        unsafe { size(self.0, &mut bytes) }.result()?;
        let mut output = vec![0u8; bytes];
        // SAFETY: there is room for as many bytes as the library has just said.
        unsafe { fill(self.0, output.as_mut_ptr().cast()) }.result()?;
        Ok(output)
    }
}

/// Compiles for `sm_XX` to machine code, for `compute_XX` to PTX. The error is one line.
fn compile(source: &str, target: &str) -> Result<Vec<u8>, String> {
    let failed = |call: &'static str| move |NvrtcError(code)| format!("{call} answers {code:?}");
    let source = CString::new(source).map_err(|error| error.to_string())?;
    let architecture = CString::new(format!("--gpu-architecture={target}")).map_err(|error| error.to_string())?;
    let program = Program::new(&source).map_err(failed("nvrtcCreateProgram"))?;
    if let Err(error) = program.compile(&[&architecture, c"--std=c++17"]) {
        let log = program.output(nvrtc::nvrtcGetProgramLogSize, nvrtc::nvrtcGetProgramLog).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let line = log.lines().find(|line| line.contains("error")).map(|line| format!(": {}", line.trim()));
        return Err(failed("nvrtcCompileProgram")(error) + &line.unwrap_or_default());
    }
    if target.starts_with("sm_") {
        return program.output(nvrtc::nvrtcGetCUBINSize, nvrtc::nvrtcGetCUBIN).map_err(failed("nvrtcGetCUBIN"));
    }
    let ptx = program.output(nvrtc::nvrtcGetPTXSize, nvrtc::nvrtcGetPTX).map_err(failed("nvrtcGetPTX"))?;
    let text = String::from_utf8_lossy(&ptx);
    lowered(&text).map(String::into_bytes).ok_or_else(|| "NVRTC's PTX has no .version".into())
}

#[cfg(test)]
mod tests {
    use std::env;
    use std::process::Command;

    use super::*;

    fn required() -> bool {
        ["CUDRIFT_REQUIRE_CUDA", "CUDRIFT_REQUIRE_GPU"].iter().any(|name| env::var_os(name).is_some_and(|v| v == "1"))
    }

    /// Are driver and NVRTC there? Says so where they are neither there nor required.
    fn libraries() -> bool {
        // SAFETY: libraries that do nothing when loaded.
        let there = unsafe { sys::is_culib_present() && nvrtc::is_culib_present() };
        assert!(there || !required(), "libcuda.so and libnvrtc.so are required: `cargo xtask test` has them");
        if !there {
            eprintln!("SKIPPED: no libcuda.so or no libnvrtc.so; `cargo xtask test` has both");
        }
        there
    }

    #[test]
    fn damaged_files_of_the_cache_are_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let cached = Cached(folder.path().join("deep/image"));
        assert_eq!(cached.read(), None);
        cached.write(b"kernels").unwrap();
        assert_eq!(cached.read().as_deref(), Some(&b"kernels"[..]));
        let whole = fs::read(&cached.0).unwrap();
        for len in 0..whole.len() {
            fs::write(&cached.0, &whole[..len]).unwrap();
            assert_eq!(cached.read(), None, "{len} bytes");
        }
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 16;
            fs::write(&cached.0, damaged).unwrap();
            assert_eq!(cached.read(), None, "byte {at}");
        }
        assert!(Cached(cached.0.join("below a file")).write(b"kernels").is_err());
    }

    #[test]
    fn machine_code_runs_within_its_major_version() {
        let known = [75, 80, 86, 90, 100, 120, 121];
        let of = |device| nearest(device, &known);
        assert_eq!([80, 89, 90, 103, 121].map(of), [80, 86, 90, 100, 121].map(Some));
        assert_eq!([70, 110, 130].map(of), [None; 3]);
    }

    #[test]
    fn versions_are_lowered_and_never_raised() {
        let ptx = |version, pragma| format!("//\n.version {version}\n.target sm_80\n{pragma}ret;\n\0");
        let pragma = "    .pragma \"used_bytes_mask 0xff\";\n";
        assert_eq!(lowered(&ptx("9.5", pragma)), Some(ptx("7.8", "")));
        assert_eq!(lowered(&ptx("7.4", "")), Some(ptx("7.4", "")));
        assert_eq!(lowered(&ptx("7.4", "\t.pragma \"nounroll\";\n")), Some(ptx("7.4", "\t.pragma \"nounroll\";\n")));
        assert_eq!(lowered("no ptx\0"), None);
    }

    #[test]
    fn nvrtc_gives_machine_code_and_ptx_and_reasons() {
        if !libraries() {
            return;
        }
        const KERNEL: &str = "extern \"C\" __global__ void k(float* x) { x[threadIdx.x] = 1.0f; }";
        assert!(compile(KERNEL, "sm_90").unwrap().starts_with(b"\x7fELF"));
        let ptx = String::from_utf8(compile(KERNEL, PTX_TARGET).unwrap()).unwrap();
        assert!(ptx.contains("\n.version 7.8\n.target sm_80\n") && ptx.ends_with('\0'), "{ptx}");
        assert!(supported().contains(&80), "{:?}", supported());
        let reason = compile("__global__ void k() { nonsense; }", "sm_90").unwrap_err();
        assert!(reason.contains("kernels.cu(1)") && reason.contains("nonsense") && !reason.contains('\n'), "{reason}");
        let reason = compile(KERNEL, "sm_1").unwrap_err();
        assert!(reason.contains("nvrtcCompileProgram") && !reason.contains('\n'), "{reason}");
    }

    /// NVRTC's machine code for the shipped kernels, which the simulator cannot run.
    #[test]
    #[ignore = "takes a minute"]
    fn nvrtc_compiles_every_kernel_to_machine_code() {
        if libraries() {
            for target in ["sm_80", "sm_90", "sm_120"] {
                assert!(compile(SOURCE, target).unwrap().starts_with(b"\x7fELF"), "{target}");
            }
        }
    }

    /// In a process of its own, with a cache of its own.
    #[test]
    fn a_refused_image_and_a_missing_one_fall_back_to_nvrtc() {
        const CHILD: &str = "CUDRIFT_IMAGE_CHILD";
        if !libraries() {
            return;
        }
        if env::var_os(CHILD).is_none() {
            let cache = tempfile::tempdir().unwrap();
            let name = "cuda::image::tests::a_refused_image_and_a_missing_one_fall_back_to_nvrtc";
            let mut child = Command::new(env::current_exe().unwrap());
            child.args([name, "--exact", "--nocapture"]).env(CHILD, "1").env("XDG_CACHE_HOME", cache.path());
            let output = child.output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(
                output.status.success() && text.contains("1 passed"),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
            return;
        }
        let context = CudaContext::new(0).unwrap();
        // A fatbin with no entries, and something that is none.
        let mut nothing = [0u8; 16];
        nothing[..8].copy_from_slice(&[0x50, 0xed, 0x55, 0xba, 1, 0, 16, 0]);
        for (i, image) in [&nothing[..], b"\x7fELF, but then something else", b""].into_iter().enumerate() {
            let loaded = load_from(&context, image, None).unwrap();
            loaded.module.load_function("probe").unwrap();
            assert!(
                matches!(loaded.origin, Origin::Compiled { cached, .. } if cached == (i > 0)),
                "{:?}",
                loaded.origin
            );
        }
        let error = load_from(&context, &nothing, Some("embedded")).unwrap_err();
        assert!(error.to_string().contains("CUDA_ERROR_NO_BINARY_FOR_GPU"), "{error}");
    }
}
