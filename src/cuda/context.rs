//! Which device there is, and calls from and to the host's memory.

use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaSlice, CudaStream, DeviceRepr, DriverError, result, sys};

use super::{
    DeviceProjection, FieldArrays, FieldOutputs, FieldPlan, Inputs, Kernels, Options, Outputs, Plan, Samples,
    SlicedArrays, SlicedPlan, Statistics,
};
use crate::{
    Drift, DriftInputs, DriftSpec, Element, Error, Field, FieldInputs, FieldSpec, Projection, Result, SlicedInputs,
    WeightRule,
};

const OP: &str = "cuda drift";

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
/// [`Error::LibraryMissing`] without the driver's library, [`Error::NoDevice`] where it refuses or has no device.
pub fn probe() -> Result<Gpu> {
    // cudarc panics where the library is missing, so ask first.
    // SAFETY: loads a library, whose initialisation the driver defines to be harmless.
    if !unsafe { sys::is_culib_present() } {
        return Err(Error::LibraryMissing { library: "libcuda.so", advice: "it comes with the NVIDIA driver" });
    }
    result::init().map_err(|error| refused("cuInit", error))?;
    if result::device::get_count().map_err(|error| refused("cuDeviceGetCount", error))? == 0 {
        return Err(no_device("the driver knows no device (does CUDA_VISIBLE_DEVICES hide it?)"));
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

/// The first device, with a stream and the kernels: for callers whose samples lie in the host's memory. Those who have
/// streams and arrays of their own use [`Plan`].
#[derive(Clone, Debug)]
pub struct Context {
    gpu: Gpu,
    stream: Arc<CudaStream>,
    kernels: Kernels,
}

impl Context {
    /// Opens the first device and loads the kernels into it.
    ///
    /// # Errors
    /// As [`probe()`] and [`Kernels::load`]; [`Error::Device`] where the driver gives no context or stream.
    pub fn new() -> Result<Self> {
        let gpu = probe()?;
        let context = CudaContext::new(0).map_err(|error| failed("opening the device", error))?;
        let stream = context.new_stream().map_err(|error| failed("making a stream", error))?;
        Ok(Self { gpu, stream, kernels: Kernels::load(&context)? })
    }

    /// The device.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// The kernels, loaded into [`Context::stream`]'s context.
    pub fn kernels(&self) -> &Kernels {
        &self.kernels
    }

    /// The stream that [`Context::drift`] runs on.
    pub fn stream(&self) -> &Arc<CudaStream> {
        &self.stream
    }

    /// The drift of `inputs` under `spec`, copied to the device and back: what [`cpu::drift()`](crate::cpu::drift()) gives.
    ///
    /// # Errors
    /// As [`Plan::grouped`]; [`Error::Value`] where weights are all zero; [`Error::DeviceMemory`] where the device has no
    /// room, [`Error::Device`] where the driver fails.
    pub fn drift<T: Element + DeviceRepr>(&self, spec: &DriftSpec, inputs: &DriftInputs<'_, T>) -> Result<Drift> {
        let shape = inputs.shape();
        let options = Options { shared_bytes: self.kernels.shared_bytes(), ..Options::default() };
        let plan = Plan::grouped(spec, &[shape], T::DTYPE, options)?;
        let blocks = inputs.blocks();
        let weighs = |(samples, weights): &(&[T], Option<&[f32]>)| {
            !samples.is_empty() && weights.is_none_or(|weights| weights.iter().any(|w| *w != 0.0))
        };
        if shape.groups > 0 && spec.weights != WeightRule::Ignored && !blocks.iter().any(weighs) {
            return Err(crate::reference::all_weights_zero());
        }

        let samples = [
            self.upload("the generated samples", blocks[0].0)?,
            self.upload("the negatives", blocks[1].0)?,
            self.upload("the positives", blocks[2].0)?,
        ];
        let weights = |k: usize| blocks[k].1.map(|weights| self.upload("weights", weights)).transpose();
        let weights = [weights(0)?, weights(1)?, weights(2)?];
        let elements = shape.groups * shape.generated * shape.dim;
        let mut workspace = self.room::<u8>("the workspace", plan.workspace_bytes())?;
        let mut force = self.room::<f32>("the force", elements)?;
        let mut loss = self.room::<f32>("the loss", shape.groups)?;

        let view = |k: usize| samples[k].slice(..blocks[k].0.len());
        let some = |k: usize| Some(view(k)).filter(|view| !view.is_empty());
        let weight = |k: usize| Some(weights[k].as_ref()?.slice(..blocks[k].1?.len())).filter(|view| !view.is_empty());
        let inputs = Inputs {
            generated: view(0).into(),
            negatives: some(1).map(Samples::from),
            positives: some(2).map(Samples::from),
            weight_generated: weight(0),
            weight_negatives: weight(1),
            weight_positives: weight(2),
        };
        let outputs = Outputs {
            force: Some(force.slice_mut(..elements)),
            loss: Some(loss.slice_mut(..shape.groups)),
            ..Outputs::default()
        };
        plan.run(&self.kernels, &self.stream, inputs, &mut workspace, outputs)?;
        let Statistics { scale, loss_r, convergence, nonfinite, .. } = plan
            .statistics(&self.stream, &workspace)?
            .into_iter()
            .next()
            .ok_or_else(|| no_device("it reports nothing"))?;
        let elements_per_group = shape.generated * shape.dim;
        let (force, loss) = (self.download(&force, elements)?, self.download(&loss, shape.groups)?);
        Ok(Drift { force, loss, scale, loss_r, convergence, nonfinite, elements_per_group })
    }

    /// The fields of `inputs` under `spec`, copied to the device and back: what [`cpu::field()`](crate::cpu::field())
    /// gives. Where x and q are the same slice it is copied, and its distances are formed, once. See [`FieldPlan`].
    ///
    /// # Errors
    /// A bandwidth outside its range; a self mask with sets of different sizes; as [`FieldPlan::new`];
    /// [`Error::DeviceMemory`] where the device has no room, [`Error::Device`] where the driver fails.
    pub fn field<T: Element + DeviceRepr>(&self, spec: &FieldSpec, inputs: &FieldInputs<'_, T>) -> Result<Field<f32>> {
        inputs.validate(spec)?;
        let [n, m, l, dim] = inputs.shape();
        if n == 0 {
            return Ok(Field::default());
        }
        let same = std::ptr::eq(inputs.x, inputs.q);
        let options = Options { shared_bytes: self.kernels.shared_bytes(), ..Options::default() };
        // Of no use where each query has its own.
        let spec = if inputs.bandwidths.is_some() { FieldSpec { bandwidth: 1.0, ..*spec } } else { *spec };
        let plan = FieldPlan::new(&spec, [n, m, if same { 0 } else { l }, dim], T::DTYPE, options)?;
        let (x, p) = (self.upload("x", inputs.x)?, self.upload("p", inputs.p)?);
        let q = if same { None } else { Some(self.upload("q", inputs.q)?) };
        let number = |from: Option<&[f32]>| from.map(|from| self.upload("numbers", from)).transpose();
        let (weight_p, weight_q) = (number(inputs.weight_p)?, number(inputs.weight_q)?);
        let bandwidths = number(inputs.bandwidths)?;
        let mut workspace = self.room::<u8>("the workspace", plan.workspace_bytes())?;
        let mut numbers = self.room::<f32>("the numbers", 8 * n)?;
        let field = || self.room::<f32>("a field", n * dim);
        let (mut ms_p, mut ms_q, mut score_p, mut score_q) = (field()?, field()?, field()?, field()?);
        let arrays = FieldArrays {
            x: (&x).into(),
            p: (&p).into(),
            q: q.as_ref().map(Samples::from),
            weight_p: weight_p.as_ref().map(CudaSlice::as_view),
            weight_q: weight_q.as_ref().map(CudaSlice::as_view),
            bandwidths: bandwidths.as_ref().map(CudaSlice::as_view),
        };
        let outputs = FieldOutputs {
            numbers: numbers.slice_mut(..8 * n),
            ms_p: Some(ms_p.slice_mut(..n * dim)),
            ms_q: Some(ms_q.slice_mut(..n * dim)),
            score_p: Some(score_p.slice_mut(..n * dim)),
            score_q: Some(score_q.slice_mut(..n * dim)),
            drift: None,
            score_diff: None,
        };
        plan.run(&self.kernels, &self.stream, arrays, &mut workspace, outputs)?;
        let down = |field: &CudaSlice<f32>| self.download(field, n * dim);
        let (ms_p, ms_q, score_p, score_q) = (down(&ms_p)?, down(&ms_q)?, down(&score_p)?, down(&score_q)?);
        let numbers = self.download(&numbers, 8 * n)?;
        let of = |side: usize, which: usize| numbers[(4 * side + which) * n..][..n].to_vec();
        let minus = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a - b).collect();
        let [log_total_p, log_total_q] = inputs.log_totals(spec.self_mask);
        Ok(Field {
            drift: minus(&ms_p, &ms_q),
            score_diff: minus(&score_p, &score_q),
            ms_p,
            ms_q,
            score_p,
            score_q,
            logz_p: of(1, 0),
            logz_q: of(0, 0),
            alpha_p: of(1, 1),
            alpha_q: of(0, 1),
            sharp_ratio_p: of(1, 2),
            sharp_ratio_q: of(0, 2),
            log_total_p,
            log_total_q,
            ess_p: of(1, 3),
            ess_q: of(0, 3),
            nonfinite: plan.nonfinite(&self.stream, &workspace)?,
        })
    }

    /// The sliced Wasserstein field, [n, D], copied to the device and back: what [`cpu::sliced()`](crate::cpu::sliced())
    /// gives. See [`SlicedPlan`].
    ///
    /// # Errors
    /// As [`SlicedPlan::new`]; [`Error::DeviceMemory`] where the device has no room, [`Error::Device`] where the driver
    /// fails.
    pub fn sliced<T: Element + DeviceRepr>(&self, inputs: &SlicedInputs<'_, T>) -> Result<Vec<f32>> {
        let shape = inputs.shape();
        let [n, _, _, dim] = shape;
        if n == 0 {
            return Ok(Vec::new());
        }
        let plan = SlicedPlan::new(&self.kernels, shape, T::DTYPE)?;
        let (x, p) = (self.upload("x", inputs.x)?, self.upload("p", inputs.p)?);
        let directions = self.upload("the directions", inputs.directions)?;
        let mut workspace = self.room::<u8>("the workspace", plan.workspace_bytes())?;
        let mut velocity = self.room::<f32>("the velocity", n * dim)?;
        let arrays = SlicedArrays { x: x.as_view(), p: p.as_view(), directions: directions.as_view() };
        plan.run(&self.stream, &arrays, &mut workspace, &mut velocity.slice_mut(..n * dim))?;
        self.download(&velocity, n * dim)
    }

    /// The barycentres of all data by way of landmarks relative to queries [n, D], copied to the device and back: what
    /// [`cpu::projected()`](crate::cpu::projected()) gives, less the queries. See [`DeviceProjection`].
    ///
    /// # Errors
    /// As [`DeviceProjection::new`] and [`DeviceProjection::run`]; [`Error::DeviceMemory`] where the device has no room.
    pub fn projected(&self, projection: &Projection, x: &[f32]) -> Result<Vec<f32>> {
        let own = DeviceProjection::new(&self.kernels, &self.stream, projection)?;
        let queries = self.upload("x", x)?;
        let mut result = self.room::<f32>("the barycentres", x.len())?;
        own.run(&self.stream, &queries.slice(..x.len()), &mut result.slice_mut(..x.len()))?;
        self.download(&result, x.len())
    }

    fn upload<T: DeviceRepr>(&self, what: &'static str, from: &[T]) -> Result<CudaSlice<T>> {
        upload(&self.stream, OP, what, from)
    }

    fn room<T: DeviceRepr>(&self, what: &'static str, count: usize) -> Result<CudaSlice<T>> {
        room(&self.stream, OP, what, count)
    }

    fn download(&self, from: &CudaSlice<f32>, count: usize) -> Result<Vec<f32>> {
        download(&self.stream, from, count)
    }
}

/// A copy on the device. There is no empty allocation: what is empty has room for one element.
pub(super) fn upload<T: DeviceRepr>(
    stream: &Arc<CudaStream>,
    op: &'static str,
    what: &'static str,
    from: &[T],
) -> Result<CudaSlice<T>> {
    let mut to = room(stream, op, what, from.len())?;
    if !from.is_empty() {
        stream.memcpy_htod(from, &mut to).map_err(|error| failed("copying to the device", error))?;
    }
    Ok(to)
}

/// A copy of the first `count` elements, when the stream has come so far.
pub(super) fn download<T: DeviceRepr + Clone + Default>(
    stream: &Arc<CudaStream>,
    from: &CudaSlice<T>,
    count: usize,
) -> Result<Vec<T>> {
    let mut to = vec![T::default(); count];
    if count > 0 {
        let copied = stream.memcpy_dtoh(&from.slice(..count), &mut to);
        copied.and_then(|()| stream.synchronize()).map_err(|error| failed("copying from the device", error))?;
    }
    Ok(to)
}

/// An array of what comes, with room for one at least.
pub(super) fn room<T: DeviceRepr>(
    stream: &Arc<CudaStream>,
    op: &'static str,
    what: &'static str,
    count: usize,
) -> Result<CudaSlice<T>> {
    let count = count.max(1);
    // SAFETY: whatever is read is copied or written by a kernel before.
    unsafe { stream.alloc(count) }.map_err(|error| match error.0 {
        sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
            Error::DeviceMemory { op, what, bytes: count.saturating_mul(size_of::<T>()) }
        }
        _ => failed("making room on the device", error),
    })
}

fn no_device(problem: impl Into<String>) -> Error {
    Error::NoDevice { problem: problem.into() }
}

fn refused(call: &str, error: DriverError) -> Error {
    no_device(format!("{call} answers {}; see what nvidia-smi says", name(error)))
}

/// The driver's name for an error, as CUDA_ERROR_OUT_OF_MEMORY.
pub(super) fn name(error: DriverError) -> String {
    error.error_name().map_or_else(|_| format!("{:?}", error.0), |name| name.to_string_lossy().into_owned())
}

/// What the driver answers to an operation in a context.
pub fn failed(op: &'static str, error: DriverError) -> Error {
    let text = error.error_string().map_or_else(|_| String::new(), |text| format!(" ({})", text.to_string_lossy()));
    Error::Device { op, problem: name(error) + &text }
}
