//! `cudrift doctor`: what was found, and what to do about what is missing.

use crate::error::{Error, Result, say};
use cudrift::{Drift, DriftInputs, DriftSpec, Points, cpu, cuda, reference};
use std::path::PathBuf;

#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_: &Args) -> Result<()> {
    let line = |name: &str, value: &str| say(&format!("{name:<18} {value}"));
    line("cudrift", env!("CARGO_PKG_VERSION"))?;
    line("target", &format!("{} {}", std::env::consts::ARCH, std::env::consts::OS))?;
    let threads = rayon::current_num_threads();
    line("threads", &format!("{threads} (RAYON_NUM_THREADS chooses)"))?;
    let isa = cpu::instruction_set();
    line("instruction set", &format!("{isa} (CUDRIFT_ISA=baseline|avx2|avx512 chooses)"))?;
    if cfg!(debug_assertions) {
        line("build", "with debug assertions: add --release to cargo for full speed")?;
    }
    match driver_library() {
        Some(path) => line("NVIDIA driver", &path.display().to_string())?,
        None => line("NVIDIA driver", "libcuda.so not found in the usual folders (needed for a GPU only)")?,
    }
    match cuda::probe() {
        Ok(gpu) => {
            let ((major, minor), (cuda_major, cuda_minor)) = (gpu.capability, gpu.driver);
            let memory = gpu.memory as f64 / f64::from(1 << 30);
            let found = format!(
                "{}, compute capability {major}.{minor}, {memory:.0} GiB, driver for CUDA {cuda_major}.{cuda_minor}",
                gpu.name
            );
            line("GPU", &found)?;
            if gpu.simulated {
                line("", "this is cudrift's simulator, not a GPU: kernels run on the CPU, with every access checked")?;
            }
        }
        Err(error) => line("GPU", &error.to_string())?,
    }
    let image = cuda::image();
    match image.absent {
        None => {
            let cubins: Vec<String> = image.architectures.iter().map(|arch| format!("sm_{arch}")).collect();
            let cubins = if cubins.is_empty() { "no machine code".to_owned() } else { cubins.join(" ") };
            line("CUDA kernels", &format!("in this build: {cubins}, PTX for the rest (nvcc {})", image.compiler))?;
        }
        Some(why) => line("CUDA kernels", &format!("not in this build ({why}); NVRTC compiles them at first use"))?,
    }
    let checked = |what: &str, error: f64, advice: &str| {
        line("self check", &format!("largest error of the {what} backend against the f64 reference: {error:.1e}"))?;
        // Written so that NaN fails.
        let right = error <= 1e-5;
        let wrong = format!("the {what} backend is wrong on this machine (error {error:e}); {advice}");
        if right { Ok(()) } else { Err(Error::message(wrong)) }
    };
    checked("CPU", self_check(cpu::drift)?, "try CUDRIFT_ISA=baseline and report it")?;
    if cuda::probe().is_ok() {
        match cuda::Context::new() {
            Ok(device) => {
                let error = self_check(|spec, inputs| device.drift(spec, inputs))?;
                checked("CUDA", error, "try CUDRIFT_CUDA_IMAGE=nvrtc, update the driver and report it")?;
            }
            Err(error) => line("self check", &format!("the CUDA backend: {error}"))?,
        }
    }
    Ok(())
}

/// The driver's library, where the dynamic linker usually looks.
fn driver_library() -> Option<PathBuf> {
    let listed = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let usual =
        ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/lib/wsl/lib"];
    std::env::split_paths(&listed)
        .chain(usual.into_iter().map(PathBuf::from))
        .flat_map(|folder| ["libcuda.so.1", "libcuda.so"].map(|name| folder.join(name)))
        .find(|path| path.exists())
}

/// The largest error of the force, over its largest value, on a case of 24 x 56 pairs in 20 coordinates.
fn self_check(drift: impl Fn(&DriftSpec, &DriftInputs<'_, f32>) -> cudrift::Result<Drift>) -> Result<f64> {
    let value = |k: usize| ((k * k % 7919) as f32 * 0.37).sin();
    let samples = |from: usize, n: usize| (from..from + n * 20).map(value).collect::<Vec<f32>>();
    let (generated, positives) = (samples(0, 24), samples(1000, 32));
    let wide = |v: &[f32]| v.iter().map(|v| f64::from(*v)).collect::<Vec<f64>>();
    let (generated64, positives64) = (wide(&generated), wide(&positives));
    let spec = DriftSpec::official();
    let inputs = DriftInputs::new(Points::new(&generated, [1, 24, 20])?, Points::new(&positives, [1, 32, 20])?)?;
    let inputs64 = DriftInputs::new(Points::new(&generated64, [1, 24, 20])?, Points::new(&positives64, [1, 32, 20])?)?;
    let (got, want) = (drift(&spec, &inputs)?, reference::drift(&spec, &inputs64)?);
    let largest = want.force.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    let pairs = got.force.iter().zip(&want.force);
    let errors = pairs.map(|(got, want)| (f64::from(*got) - want).abs() / largest);
    Ok(errors.fold(0.0, |m, e| if e > m || e.is_nan() { e } else { m }))
}
