//! Which device there is.

use cudarc::driver::{DriverError, result, sys};

use crate::{Error, Result};

/// What every simulated device's name contains (crates/cuda-sim); it is no evidence about a GPU.
pub(super) const SIMULATOR: &str = "simulator";

/// A CUDA device.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gpu {
    /// The name that the driver gives.
    pub name: String,
    /// Compute capability, major and minor.
    pub capability: (u32, u32),
    /// Device memory, bytes.
    pub memory: u64,
    /// The CUDA version that the driver supports, major and minor.
    pub driver: (u32, u32),
    /// Is it the simulator of this project, which executes kernels on the CPU for tests?
    pub simulated: bool,
}

/// Finds the first CUDA device.
///
/// It loads the driver's library and asks it; no context is made and no memory taken.
///
/// # Errors
/// [`Error::NoCuda`] where the library is missing, the driver refuses, or it has no device.
pub fn probe() -> Result<Gpu> {
    // cudarc panics where the library is missing, so ask first.
    // SAFETY: loads a library, whose initialisation the driver defines to be harmless.
    if !unsafe { sys::is_culib_present() } {
        return Err(no_cuda("libcuda.so was not found: is an NVIDIA driver installed?"));
    }
    result::init().map_err(|error| refused("cuInit", error))?;
    if result::device::get_count().map_err(|error| refused("cuDeviceGetCount", error))? == 0 {
        return Err(no_cuda("the driver knows no device (does CUDA_VISIBLE_DEVICES hide it?)"));
    }
    let device = result::device::get(0).map_err(|error| refused("cuDeviceGet", error))?;
    let name = result::device::get_name(device).map_err(|error| refused("cuDeviceGetName", error))?;
    let attribute = |attribute| {
        // SAFETY: `device` comes from the driver, just now.
        let value = unsafe { result::device::get_attribute(device, attribute) };
        value.map(i32::unsigned_abs).map_err(|error| refused("cuDeviceGetAttribute", error))
    };
    let major = attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
    let minor = attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
    // SAFETY: as above.
    let memory = unsafe { result::device::total_mem(device) }.map_err(|error| refused("cuDeviceTotalMem", error))?;
    let mut version = 0;
    // SAFETY: the pointer is to a live integer.
    unsafe { sys::cuDriverGetVersion(&mut version) }.result().map_err(|error| refused("cuDriverGetVersion", error))?;
    let version = version.unsigned_abs();
    Ok(Gpu {
        simulated: name.contains(SIMULATOR),
        name,
        capability: (major, minor),
        memory: memory as u64,
        driver: (version / 1000, version % 1000 / 10),
    })
}

fn no_cuda(problem: impl Into<String>) -> Error {
    Error::NoCuda { problem: problem.into() }
}

fn refused(call: &str, error: DriverError) -> Error {
    no_cuda(format!("{call} answers {}; see what nvidia-smi says", name(error)))
}

/// The driver's name for an error, as CUDA_ERROR_OUT_OF_MEMORY.
pub(super) fn name(error: DriverError) -> String {
    error.error_name().map_or_else(|_| format!("{:?}", error.0), |name| name.to_string_lossy().into_owned())
}

/// What the driver answers to an operation in a context.
pub(super) fn failed(op: &'static str, error: DriverError) -> Error {
    let text = error.error_string().map_or_else(|_| String::new(), |text| format!(" ({})", text.to_string_lossy()));
    Error::Device { op, problem: name(error) + &text }
}
