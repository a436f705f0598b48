//! The drift on CUDA devices: the caller's arrays, workspace and stream.

use crate::plan::{freed, planned};
use crate::points::{
    CUDRIFT_BF16, CUDRIFT_F16, CUDRIFT_F32, cudrift_inputs, cudrift_points, cudrift_shape, misaligned,
};
use crate::spec::{CUDRIFT_MAX_TEMPERATURES, cudrift_spec};
use crate::status::{Refusal, borrowed, borrowed_mut, cudrift_status, guarded, null};
use drift::cuda::cudarc::driver::{CudaContext, CudaStream, result, sys};
use drift::cuda::{DriftScalars, Gpu, Kernels, Options, Phase, Plan, Pointers, failed};
use drift::{DriftShape, DriftSpec, Dtype};
use std::ffi::{c_char, c_void};
use std::mem::offset_of;
use std::sync::{Arc, Mutex};

/// Products run on tensor cores where samples are in half precision.
pub const CUDRIFT_TENSOR_CORES_AUTO: u32 = 0;
/// Products run on tensor cores: those of samples in f32 in TF32.
pub const CUDRIFT_TENSOR_CORES_ALWAYS: u32 = 1;
/// Products do not run on tensor cores.
pub const CUDRIFT_TENSOR_CORES_NEVER: u32 = 2;

/// Phase: distances, and the sums from which the scale follows.
pub const CUDRIFT_PHASE_DISTANCES: u32 = 0;
/// Phase: the scale from its sums alone, after they were changed.
pub const CUDRIFT_PHASE_SCALE: u32 = 1;
/// Phase: coefficients, and the sums from which force norms follow.
pub const CUDRIFT_PHASE_NORMS: u32 = 2;
/// Phase: force norms from their sums alone, after they were changed.
pub const CUDRIFT_PHASE_THETA: u32 = 3;
/// Phase: force, gradient and loss.
pub const CUDRIFT_PHASE_FORCE: u32 = 4;

/// A CUDA device.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct cudrift_cuda_gpu {
    /// Its name, which ends with a 0.
    pub name: [c_char; 256],
    /// Bytes of memory.
    pub memory: u64,
    /// Compute capability, first number.
    pub major: u32,
    /// Second number.
    pub minor: u32,
    /// The CUDA version that the driver supports, first number.
    pub driver_major: u32,
    /// Second number.
    pub driver_minor: u32,
    /// 1 where it is this project's simulator.
    pub simulated: u32,
    /// 0.
    pub reserved: u32,
}

/// A drift of one spec, shape and type on a device; it owns nothing there. It may be used from several threads and on several
/// streams at a time, with a workspace for each.
#[derive(Debug)]
pub struct cudrift_cuda_plan {
    plan: Plan,
    shape: DriftShape,
    dtype: Dtype,
    device: Arc<Device>,
}

/// What lies at the start of a workspace, in device memory, and may be read when the stream has come so far. The sums are
/// those of cudrift_scale_sums and cudrift_force_sums: where a call is spread over devices they are added between phases.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct cudrift_cuda_scalars {
    /// After CUDRIFT_PHASE_DISTANCES: sum_ij d_ij w_j
    pub weighted_distance: f64,
    /// sum_ij w_j over the same pairs
    pub weight: f64,
    /// sum_j w_j
    pub any_weight: f64,
    /// How many coordinates and weights are NaN or infinite, or weights negative.
    pub nonfinite: f64,
    /// How many groups.
    pub groups: f64,
    /// After CUDRIFT_PHASE_NORMS: the squared force of each temperature.
    pub squares: [f64; CUDRIFT_MAX_TEMPERATURES],
    /// Of each temperature, over its queries: sums of the masses and effective sizes of negatives and positives.
    pub rows: [[f64; 4]; CUDRIFT_MAX_TEMPERATURES],
    /// After CUDRIFT_PHASE_SCALE or the first phase of a run: the mean distance.
    pub mean: f64,
    /// What a call reports as its scale.
    pub scale: f64,
    /// What coordinates are divided by.
    pub sigma: f64,
    /// What distances are divided by.
    pub distance: f64,
    /// One over that.
    pub inverse: f64,
    /// After CUDRIFT_PHASE_THETA or the second phase of a run: the mean square of each temperature's force.
    pub loss_r: [f64; CUDRIFT_MAX_TEMPERATURES],
    /// What each temperature's force is divided by.
    pub theta: [f64; CUDRIFT_MAX_TEMPERATURES],
    /// Of CUDRIFT_SINKHORN: the most iterations that a plan took.
    pub iterations: [f64; CUDRIFT_MAX_TEMPERATURES],
    /// And how near the plans came to their marginals, the worst.
    pub marginal_error: [f64; CUDRIFT_MAX_TEMPERATURES],
}

const _: () = assert!(
    size_of::<cudrift_cuda_scalars>() == size_of::<DriftScalars>()
        && offset_of!(cudrift_cuda_scalars, squares) == offset_of!(DriftScalars, squares)
        && offset_of!(cudrift_cuda_scalars, mean) == offset_of!(DriftScalars, mean)
        && offset_of!(cudrift_cuda_scalars, loss_r) == offset_of!(DriftScalars, f2)
        && offset_of!(cudrift_cuda_scalars, marginal_error) == offset_of!(DriftScalars, error)
);

/// Where results go: device memory without gaps, each null where it is not wanted.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct cudrift_cuda_outputs {
    /// The drift in units of the scaled coordinates, [B, G, D].
    pub force: *mut f32,
    /// The gradient of the sum of the losses by the generated samples, [B, G, D].
    pub gradient: *mut f32,
    /// Of each group, [B].
    pub loss: *mut f32,
}

/// A device's primary context, with the kernels.
#[derive(Debug)]
struct Device {
    context: Arc<CudaContext>,
    kernels: Kernels,
}

/// Those that were used, by their numbers.
static DEVICES: Mutex<Vec<(i32, Arc<Device>)>> = Mutex::new(Vec::new());

/// The calling thread's context, which is its own again at the end.
struct Current(Option<sys::CUcontext>);

impl Current {
    fn keep() -> Result<Self, Refusal> {
        let current = result::ctx::get_current().map(Self);
        current.map_err(|error| failed("asking for the current context", error).into())
    }
}

impl Drop for Current {
    fn drop(&mut self) {
        // SAFETY: it was current a moment ago; null is none. A context that fails here fails where its owner uses it.
        let _ = unsafe { sys::cuCtxSetCurrent(self.0.unwrap_or(std::ptr::null_mut())) };
    }
}

impl Device {
    fn of(ordinal: i32) -> Result<Arc<Self>, Refusal> {
        let mut devices = DEVICES.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((_, device)) = devices.iter().find(|(number, _)| *number == ordinal) {
            return Ok(device.clone());
        }
        let count = CudaContext::device_count().map_err(|error| failed("counting the devices", error))?;
        let number = usize::try_from(ordinal)
            .map_err(|_| Refusal::invalid(format!("libcudrift: device is {ordinal}, expected 0 or more")))?;
        if ordinal >= count {
            return Err(Refusal::device(format!("libcudrift: there is no device {ordinal}, of {count}")));
        }
        let context = CudaContext::new(number).map_err(|error| failed("opening the device", error))?;
        let device = Arc::new(Self { kernels: Kernels::load(&context)?, context });
        devices.push((ordinal, device.clone()));
        Ok(device)
    }
}

/// Says which CUDA device is the first, or why there is none.
///
/// # Safety
/// `gpu` is null or points to what its type says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudrift_cuda_probe(gpu: *mut cudrift_cuda_gpu) -> cudrift_status {
    guarded(|| {
        // SAFETY: it is null or points to a struct that nothing else reads or writes meanwhile (# Safety).
        let to = unsafe { borrowed_mut("gpu", gpu) }?;
        let Gpu { name, capability: (major, minor), memory, driver: (driver_major, driver_minor), simulated, .. } =
            drift::cuda::probe()?;
        let (simulated, reserved) = (simulated.into(), 0);
        *to =
            cudrift_cuda_gpu { name: [0; 256], memory, major, minor, driver_major, driver_minor, simulated, reserved };
        to.name.iter_mut().zip(name.bytes().take(255)).for_each(|(to, from)| *to = from as c_char);
        Ok(())
    })
}

/// Makes a plan for samples of CUDRIFT_F32, CUDRIFT_F16 or CUDRIFT_BF16 in the memory of a device, by its number, in its
/// primary context (that of the runtime, of PyTorch and of JAX). The first plan of a device loads the kernels. Free it by
/// cudrift_cuda_plan_free.
///
/// # Safety
/// Each pointer is null or points to what its type says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudrift_cuda_plan_new(
    spec: *const cudrift_spec,
    shape: *const cudrift_shape,
    dtype: u32,
    device: i32,
    tensor_cores: u32,
    plan: *mut *mut cudrift_cuda_plan,
) -> cudrift_status {
    // SAFETY: by # Safety.
    unsafe {
        planned(spec, shape, plan, |spec, shape| cudrift_cuda_plan::new(&spec, shape, dtype, device, tensor_cores))
    }
}

/// Frees a plan; null is nothing. Work that it has appended to a stream goes on.
///
/// # Safety
/// `plan` is null or comes from cudrift_cuda_plan_new, and is not used hereafter.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudrift_cuda_plan_free(plan: *mut cudrift_cuda_plan) {
    // SAFETY: it is null or comes from `planned`, and is not used hereafter (# Safety).
    unsafe { freed(plan) }
}

/// How many bytes of device memory a call of the plan needs as its workspace; it begins at a multiple of 16.
///
/// # Safety
/// Each pointer is null or points to what its type says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudrift_cuda_plan_workspace_bytes(
    plan: *const cudrift_cuda_plan,
    bytes: *mut usize,
) -> cudrift_status {
    guarded(|| {
        // SAFETY: by # Safety, each pointer is null or points to a live value of its type, and outputs are nobody else's.
        *unsafe { borrowed_mut("bytes", bytes) }? = unsafe { borrowed("plan", plan) }?.plan.workspace_bytes();
        Ok(())
    })
}

/// Appends the drift of a call to a stream (a CUstream of the plan's device; null is the default stream). It allocates nothing
/// and does not wait, and may be captured in a graph. Samples, weights, outputs and workspace are device memory; the
/// coordinates of a sample lie side by side. The workspace begins with a cudrift_cuda_scalars.
///
/// # Safety
/// Each pointer is null or points to what its type says; arrays are as long as the plan's shape says and stay so until the
/// stream has come so far; outputs and workspace are nobody else's meanwhile; the stream is of the plan's device.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudrift_cuda_plan_run(
    plan: *const cudrift_cuda_plan,
    inputs: *const cudrift_inputs,
    outputs: *const cudrift_cuda_outputs,
    workspace: *mut c_void,
    stream: *mut c_void,
) -> cudrift_status {
    // SAFETY: by # Safety.
    guarded(|| unsafe { appended(plan, inputs, outputs, workspace, stream, &Phase::RUN) })
}

/// Appends one phase to a stream, CUDRIFT_PHASE_DISTANCES and so on. In between, sums of several devices are added in the
/// scalars of each workspace; without that, the second and the fourth phase are not needed.
///
/// # Safety
/// As cudrift_cuda_plan_run, and the phases before have run on the same workspace.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudrift_cuda_plan_phase(
    plan: *const cudrift_cuda_plan,
    inputs: *const cudrift_inputs,
    outputs: *const cudrift_cuda_outputs,
    workspace: *mut c_void,
    stream: *mut c_void,
    phase: u32,
) -> cudrift_status {
    guarded(|| {
        const PHASES: [Phase; 5] = [Phase::Distances, Phase::Scale, Phase::Norms, Phase::Theta, Phase::Force];
        let own = PHASES.get(phase as usize);
        let own = own.ok_or_else(|| Refusal::invalid(format!("libcudrift: phase is {phase}, expected 0 to 4")))?;
        // SAFETY: by # Safety.
        unsafe { appended(plan, inputs, outputs, workspace, stream, &[*own]) }
    })
}

/// # Safety
/// As cudrift_cuda_plan_phase.
unsafe fn appended(
    plan: *const cudrift_cuda_plan,
    inputs: *const cudrift_inputs,
    outputs: *const cudrift_cuda_outputs,
    workspace: *mut c_void,
    stream: *mut c_void,
    phases: &[Phase],
) -> Result<(), Refusal> {
    // SAFETY: each pointer is null or points to a live value of its type (# Safety).
    let (plan, inputs) = unsafe { (borrowed("plan", plan)?, borrowed("inputs", inputs)?) };
    // SAFETY: as above, of the outputs' struct, which is read alone.
    let outputs = unsafe { borrowed("outputs", outputs) }?;
    // SAFETY: arrays, workspace and stream are as the header says (# Safety).
    unsafe { plan.append(inputs, outputs, workspace, stream, phases) }
}

/// Waits for a stream and copies the scalars of a workspace to the host.
///
/// # Safety
/// As cudrift_cuda_plan_run; a run has been appended to this stream.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudrift_cuda_plan_scalars(
    plan: *const cudrift_cuda_plan,
    workspace: *const c_void,
    stream: *mut c_void,
    scalars: *mut cudrift_cuda_scalars,
) -> cudrift_status {
    guarded(|| {
        // SAFETY: by # Safety, each pointer is null or points to a live value of its type, and outputs are nobody else's.
        let (plan, to) = unsafe { (borrowed("plan", plan)?, borrowed_mut("scalars", scalars)?) };
        if workspace.is_null() {
            return Err(null("workspace"));
        }
        let _current = plan.enter()?;
        let bytes = std::slice::from_mut(to);
        // SAFETY: the workspace begins with them (# Safety); the stream is waited for below, before the borrow ends.
        unsafe { result::memcpy_dtoh_async(bytes, workspace as u64, stream.cast()) }
            .map_err(|error| failed("reading the scalars", error))?;
        // SAFETY: a stream of this device (# Safety).
        let waited = unsafe { result::stream::synchronize(stream.cast()) };
        waited.map_err(|error| failed("waiting for the stream", error).into())
    })
}

impl cudrift_cuda_plan {
    pub(crate) fn new(
        spec: &DriftSpec,
        shape: DriftShape,
        dtype: u32,
        device: i32,
        tensor_cores: u32,
    ) -> Result<Self, Refusal> {
        let dtype = match dtype {
            CUDRIFT_F32 => Dtype::F32,
            CUDRIFT_F16 => Dtype::F16,
            CUDRIFT_BF16 => Dtype::Bf16,
            other => {
                return Err(Refusal::invalid(format!(
                    "libcudrift: dtype is {other}, expected 0 to {CUDRIFT_BF16} on a device"
                )));
            }
        };
        let tensor_cores = match tensor_cores {
            CUDRIFT_TENSOR_CORES_AUTO => None,
            CUDRIFT_TENSOR_CORES_ALWAYS => Some(true),
            CUDRIFT_TENSOR_CORES_NEVER => Some(false),
            other => return Err(Refusal::invalid(format!("libcudrift: tensor_cores is {other}, expected 0 to 2"))),
        };
        // What is wrong with the arguments is said on a machine without a device too.
        Plan::grouped(spec, &[shape], dtype, Options { tensor_cores, ..Options::default() })?;
        drift::cuda::probe()?;
        let _current = Current::keep()?;
        let device = Device::of(device)?;
        let options = Options { tensor_cores, shared_bytes: device.kernels.shared_bytes(), ..Options::default() };
        Ok(Self { plan: Plan::grouped(spec, &[shape], dtype, options)?, shape, dtype, device })
    }

    pub(crate) fn workspace_bytes(&self) -> usize {
        self.plan.workspace_bytes()
    }

    /// Makes the device's context current, until what it gives is dropped.
    fn enter(&self) -> Result<Current, Refusal> {
        let current = Current::keep()?;
        self.device.context.bind_to_thread().map_err(|error| failed("entering the device's context", error))?;
        Ok(current)
    }

    /// Appends phases to a stream.
    ///
    /// # Safety
    /// As cudrift_cuda_plan_phase.
    pub(crate) unsafe fn append(
        &self,
        inputs: &cudrift_inputs,
        outputs: &cudrift_cuda_outputs,
        workspace: *mut c_void,
        stream: *mut c_void,
        phases: &[Phase],
    ) -> Result<(), Refusal> {
        let pointers = self.pointers(inputs, outputs)?;
        if workspace.is_null() {
            return Err(null("workspace"));
        }
        // What the kernels read and write at once.
        if !(workspace as usize).is_multiple_of(16) {
            return Err(misaligned("workspace", 16));
        }
        let _current = self.enter()?;
        // SAFETY: a stream of this device (# Safety), not used after this call by us.
        let stream: Arc<CudaStream> = unsafe { self.device.context.wrap_borrowed_stream(stream.cast()) };
        let call = self.plan.call(&[pointers], workspace as u64);
        for phase in phases {
            // SAFETY: by # Safety; one head has no table.
            unsafe { self.plan.launch(&self.device.kernels, &stream, &call, *phase) }?;
        }
        Ok(())
    }

    fn pointers(&self, inputs: &cudrift_inputs, outputs: &cudrift_cuda_outputs) -> Result<Pointers, Refusal> {
        let DriftShape { groups, generated, negatives, positives, dim } = self.shape;
        let bytes = match self.dtype {
            Dtype::F32 => 4,
            _ => 2,
        };
        let samples = [
            ("generated", &inputs.generated, generated, inputs.weight_generated),
            ("negatives", &inputs.negatives, negatives, inputs.weight_negatives),
            ("positives", &inputs.positives, positives, inputs.weight_positives),
        ];
        let mut pointers = Pointers::default();
        for (kind, (name, points, count, weights)) in samples.into_iter().enumerate() {
            if groups * count == 0 {
                continue;
            }
            if points.data.is_null() {
                return Err(null(&format!("inputs.{name}.data")));
            }
            if !(points.data as usize).is_multiple_of(bytes) {
                return Err(misaligned(&format!("inputs.{name}.data"), bytes));
            }
            if !weights.is_aligned() {
                return Err(misaligned(&format!("inputs.weight_{name}"), align_of::<f32>()));
            }
            pointers.samples[kind] = points.data as u64;
            pointers.strides[kind] = strides(name, points, [groups, count, dim])?;
            pointers.weights[kind] = weights as u64;
        }
        let results = [("force", outputs.force), ("gradient", outputs.gradient), ("loss", outputs.loss)];
        if let Some((name, _)) = results.iter().find(|(_, pointer)| !pointer.is_aligned()) {
            return Err(misaligned(&format!("outputs.{name}"), align_of::<f32>()));
        }
        let [force, gradient, loss] = results.map(|(_, pointer)| pointer as u64);
        Ok(Pointers { force, gradient, loss, ..pointers })
    }
}

/// How far the next group and the next sample are.
fn strides(name: &str, points: &cudrift_points, extents: [usize; 3]) -> Result<Option<[usize; 2]>, Refusal> {
    // SAFETY: by the header, strides are null or point to three numbers on the host.
    let Some(strides) = (unsafe { points.strides.cast::<[i64; 3]>().as_ref() }) else { return Ok(None) };
    // Where there is but one, the next is nowhere.
    let of = |k: usize| if extents[k] == 1 { Ok(0) } else { usize::try_from(strides[k]) };
    match (of(0), of(1), of(2)) {
        (Ok(group), Ok(sample), Ok(0 | 1)) if extents[2] == 1 || strides[2] == 1 => Ok(Some([group, sample])),
        _ => Err(Refusal::invalid(format!(
            "libcudrift: inputs.{name}.strides are {strides:?}; on a device coordinates lie side by side and strides are 0 or \
             more"
        ))),
    }
}
