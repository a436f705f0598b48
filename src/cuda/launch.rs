//! The launches of a plan: kernels/distances.cu, statistics.cu, contraction.cu, reduce.cu.

use std::sync::Arc;

use bytemuck::{Pod, Zeroable};
use cudarc::driver::{
    CudaContext, CudaFunction, CudaModule, CudaSlice, CudaStream, CudaView, CudaViewMut, DevicePtrMut, DeviceRepr,
    LaunchConfig, PushKernelArg, SyncOnDrop, sys,
};

use super::call::{Call, Pointers};
use super::context::failed;
use super::params::{self, DriftCall, DriftScalars};
use super::plan::{Plan, STATIC_SHARED};
use crate::{Convergence, Coupling, DriftShape, Dtype, Element, Error, Result, RowMeans};

const OP: &str = "cuda drift";
const THREADS: u32 = params::kThreads as u32;

// SAFETY: `repr(C)`, made from the header that the kernels are compiled with; the struct is passed by value.
unsafe impl DeviceRepr for DriftCall {}

// SAFETY: `repr(C)`, doubles only.
unsafe impl Zeroable for DriftScalars {}
// SAFETY: as above.
unsafe impl Pod for DriftScalars {}

/// The kernels, loaded into a context.
#[derive(Clone, Debug)]
pub struct Kernels {
    join: CudaFunction,
    reduce_scale: CudaFunction,
    derive_scale: CudaFunction,
    reduce_norms: CudaFunction,
    derive_norms: CudaFunction,
    losses: CudaFunction,
    pub(super) start: CudaFunction,
    settle: CudaFunction,
    statistics: [Statistical; 3],
    plain: [Products; 3],
    tensor: [Products; 3],
    shared_bytes: usize,
    module: Arc<CudaModule>,
}

/// The statistics of rows and columns for one type of samples.
#[derive(Clone, Debug)]
pub(super) struct Statistical {
    rows: CudaFunction,
    columns: CudaFunction,
    masses: CudaFunction,
    pub(super) project_rows: CudaFunction,
    project_columns: CudaFunction,
    pub(super) field_rows: CudaFunction,
}

/// The kernels with products, for one type of samples in one rung.
#[derive(Clone, Debug)]
struct Products {
    distances: CudaFunction,
    group: CudaFunction,
    norm: CudaFunction,
    force: CudaFunction,
}

/// Samples of one kind on the device: B groups of n samples of D coordinates.
#[derive(Debug)]
pub struct Samples<'a, T> {
    view: CudaView<'a, T>,
    strides: Option<[usize; 2]>,
}

impl<'a, T> From<CudaView<'a, T>> for Samples<'a, T> {
    /// Without gaps.
    fn from(view: CudaView<'a, T>) -> Self {
        Self { view, strides: None }
    }
}

impl<'a, T> From<&'a CudaSlice<T>> for Samples<'a, T> {
    /// Without gaps.
    fn from(slice: &'a CudaSlice<T>) -> Self {
        slice.as_view().into()
    }
}

impl<'a, T> Samples<'a, T> {
    /// Within a larger array: a group is `group` elements from the next, a sample `sample`, and coordinates lie side by
    /// side. A `group` of 0 gives all groups the same samples.
    pub fn strided(view: CudaView<'a, T>, group: usize, sample: usize) -> Self {
        Self { view, strides: Some([group, sample]) }
    }

    /// Whether `groups` groups of `count` samples of `dim` coordinates lie in the view, filling it where there are no gaps.
    fn holds(&self, groups: usize, count: usize, dim: usize) -> bool {
        let Some([group, sample]) = self.strides else { return self.view.len() == groups * count * dim };
        if groups * count == 0 {
            return true;
        }
        let last = (groups - 1).checked_mul(group).zip((count - 1).checked_mul(sample));
        let end = last.and_then(|(group, sample)| group.checked_add(sample)?.checked_add(dim));
        end.is_some_and(|end| end <= self.view.len())
    }
}

/// Samples and weights of a head, on the device.
#[derive(Debug)]
pub struct Inputs<'a, T> {
    /// [B, G, D].
    pub generated: Samples<'a, T>,
    /// [B, P, D]; nothing where P is 0.
    pub positives: Option<Samples<'a, T>>,
    /// [B, N, D]; nothing where N is 0.
    pub negatives: Option<Samples<'a, T>>,
    /// [B, G]; nothing for weights of 1, as for the other two.
    pub weight_generated: Option<CudaView<'a, f32>>,
    /// [B, N].
    pub weight_negatives: Option<CudaView<'a, f32>>,
    /// [B, P].
    pub weight_positives: Option<CudaView<'a, f32>>,
}

impl<'a, T> Inputs<'a, T> {
    /// Generated samples and positives; no further negatives, every weight 1. The fields take the rest.
    pub fn new(generated: impl Into<Samples<'a, T>>, positives: impl Into<Samples<'a, T>>) -> Self {
        Self {
            generated: generated.into(),
            positives: Some(positives.into()),
            negatives: None,
            weight_generated: None,
            weight_negatives: None,
            weight_positives: None,
        }
    }

    /// Adds negatives.
    pub fn with_negatives(mut self, negatives: impl Into<Samples<'a, T>>) -> Self {
        self.negatives = Some(negatives.into());
        self
    }
}

/// Where a head's results go; each may be left out.
#[derive(Debug, Default)]
pub struct Outputs<'a> {
    /// F_tot, [B, G, D] (spec 2.2 (6)).
    pub force: Option<CudaViewMut<'a, f32>>,
    /// Gradient of the sum of the losses with respect to the generated samples, [B, G, D] (spec 5).
    pub gradient: Option<CudaViewMut<'a, f32>>,
    /// The loss of each group, `[B]` (spec 2.2 (8)).
    pub loss: Option<CudaViewMut<'a, f32>>,
}

/// The scalars of a head.
#[derive(Clone, Debug, PartialEq)]
pub struct Statistics {
    /// The global length scale.
    pub scale: crate::Scale,
    /// f2, the mean square of each temperature's force, `[R]`.
    pub loss_r: Vec<f64>,
    /// How each temperature's affinities are spread, `[R]`.
    pub rows: Vec<RowMeans>,
    /// How near each temperature's plans came to their marginals, `[R]`; of this device's groups alone.
    pub convergence: Vec<Convergence>,
    /// How many input coordinates and weights are NaN or infinite, or weights negative.
    pub nonfinite: u64,
}

/// A part of a run that ends in sums over all groups. Where a head is spread over devices or over chunks of B, the sums
/// are added between the phases: [`Plan::sums`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Distances, and the sums from which the scale follows.
    Distances,
    /// The scale from its sums alone, after they were changed.
    Scale,
    /// Statistics, masses and force norms, and the sums from which each theta follows.
    Norms,
    /// Theta from its sums alone, after they were changed.
    Theta,
    /// Force, gradient and loss.
    Force,
}

impl Phase {
    /// The phases of a call whose sums nobody changes.
    pub const RUN: [Self; 3] = [Self::Distances, Self::Norms, Self::Force];
}

impl Kernels {
    /// Loads the kernels into a context: the image built into the crate, or what NVRTC makes of the sources.
    ///
    /// # Errors
    /// [`Error::NoKernels`] where neither can be loaded, with what was missing.
    pub fn load(context: &Arc<CudaContext>) -> Result<Self> {
        use sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES as MAX_SHARED;
        let module = super::image::load(context)?;
        let function = |name: &str| module.load_function(name).map_err(|error| failed("loading a kernel", error));
        let shared = context
            .attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)
            .map_err(|error| failed("asking for the shared memory of a block", error))?;
        let tiled = |name: String| {
            let function = function(&name)?;
            let set = function.set_attribute(MAX_SHARED, shared - STATIC_SHARED as i32);
            set.map_err(|error| failed("asking for more shared memory", error)).map(|()| function)
        };
        let products = |name: &str| -> Result<Products> {
            Ok(Products {
                distances: tiled(format!("distances_{name}"))?,
                group: tiled(format!("group_{name}"))?,
                norm: tiled(format!("norm_{name}"))?,
                force: tiled(format!("force_{name}"))?,
            })
        };
        let statistical = |name: &str| -> Result<Statistical> {
            Ok(Statistical {
                rows: function(&format!("rows_{name}"))?,
                columns: function(&format!("columns_{name}"))?,
                masses: function(&format!("masses_{name}"))?,
                project_rows: function(&format!("project_rows_{name}"))?,
                project_columns: function(&format!("project_columns_{name}"))?,
                field_rows: function(&format!("field_rows_{name}"))?,
            })
        };
        Ok(Self {
            join: function("join")?,
            reduce_scale: function("reduce_scale")?,
            derive_scale: function("derive_scale")?,
            reduce_norms: function("reduce_norms")?,
            derive_norms: function("derive_norms")?,
            losses: function("losses")?,
            start: function("start")?,
            settle: function("settle")?,
            statistics: [statistical("f32")?, statistical("f16")?, statistical("bf16")?],
            plain: [products("f32")?, products("f16")?, products("bf16")?],
            tensor: [products("f32_tensor")?, products("f16_tensor")?, products("bf16_tensor")?],
            shared_bytes: shared.unsigned_abs() as usize,
            module,
        })
    }

    pub(super) fn statistics(&self, dtype: Dtype) -> &Statistical {
        &self.statistics[place(dtype)]
    }

    fn products(&self, plan: &Plan) -> &Products {
        let rung = if plan.tensor_cores() { &self.tensor } else { &self.plain };
        &rung[place(plan.dtype)]
    }

    /// The product of a plan's coefficients with its samples.
    pub(super) fn force(&self, plan: &Plan) -> &CudaFunction {
        &self.products(plan).force
    }

    /// A kernel by its name.
    pub(super) fn function(&self, name: &str) -> Result<CudaFunction> {
        self.module.load_function(name).map_err(|error| failed("loading a kernel", error))
    }

    /// Bytes of shared memory that a block may have on this device, for [`Options`](super::Options).
    pub fn shared_bytes(&self) -> usize {
        self.shared_bytes
    }
}

/// A plan with its arrays: it holds their borrows, so that it can be run again and again, and captured.
#[derive(Debug)]
pub struct Bound<'a> {
    plan: &'a Plan,
    stream: &'a CudaStream,
    call: Call,
    /// They record, when they are dropped, that the stream has used the arrays.
    _guards: Vec<SyncOnDrop<'a>>,
}

impl Bound<'_> {
    /// Appends the whole call to the stream: it allocates nothing and does not wait, and can be captured in a graph.
    ///
    /// The outputs are there when the stream has come so far; [`Plan::statistics`] reads the scalars. Data that is not
    /// finite, and weights that are negative or all zero, give NaN where they reach.
    ///
    /// # Errors
    /// [`Error::Device`] where the driver refuses a launch, [`Error::Value`] where the plan asks for more shared memory
    /// than the device has.
    pub fn run(&mut self, kernels: &Kernels) -> Result<()> {
        Phase::RUN.into_iter().try_for_each(|phase| self.phase(kernels, phase))
    }

    /// Appends one phase.
    ///
    /// # Errors
    /// As [`Bound::run`].
    pub fn phase(&mut self, kernels: &Kernels, phase: Phase) -> Result<()> {
        // SAFETY: `Plan::bind` compared every array's length with the extents of the plan and filled the table; the
        // borrows in here say that outputs and workspace alias nothing and live as long.
        unsafe { self.plan.launch(kernels, self.stream, &self.call, phase) }
    }
}

impl Plan {
    /// Appends a call with one head to `stream`, as [`Bound::run`] does.
    ///
    /// # Errors
    /// As [`Plan::bind`] and [`Bound::run`].
    pub fn run<T: Element + DeviceRepr>(
        &self,
        kernels: &Kernels,
        stream: &Arc<CudaStream>,
        inputs: Inputs<'_, T>,
        workspace: &mut CudaSlice<u8>,
        outputs: Outputs<'_>,
    ) -> Result<()> {
        self.bind(stream, [(inputs, outputs)], workspace)?.run(kernels)
    }

    /// As [`Plan::run`], where the groups of the call are spread over devices: of this one's groups, with scale and force
    /// norms of all. `add_up` adds the numbers that it is given, twice a head, over all devices and in place, on the
    /// stream; [`nccl::add_up`](super::nccl::add_up) does, where the feature `nccl` is on.
    ///
    /// # Errors
    /// As [`Plan::bind`] and [`Bound::run`], and what `add_up` answers.
    pub fn run_spread<'a, T: Element + DeviceRepr>(
        &self,
        kernels: &Kernels,
        stream: &'a Arc<CudaStream>,
        heads: impl IntoIterator<Item = (Inputs<'a, T>, Outputs<'a>)>,
        workspace: &mut CudaSlice<u8>,
        mut add_up: impl FnMut(&mut CudaViewMut<'_, f64>) -> Result<()>,
    ) -> Result<()> {
        // The guards say that the arrays are in use until all of it is appended.
        let (pointers, _guards) = self.gathered(stream, heads)?;
        let call = self.ready(stream, &pointers, workspace)?;
        let launch = |phase| {
            // SAFETY: every array was compared and the table filled; the borrows of this call last as long.
            unsafe { self.launch(kernels, stream, &call, phase) }
        };
        let mut appended = launch(Phase::Distances);
        for (sums, phases) in [(0, [Phase::Scale, Phase::Norms]), (1, [Phase::Theta, Phase::Force])] {
            for head in 0..self.heads.len() {
                let range = self.sums(head)[sums].clone();
                let count = range.len() / size_of::<f64>();
                let mut bytes = workspace.slice_mut(range);
                // SAFETY: they are doubles, written by the phase, at a multiple of their size (`DriftScalars`).
                let numbers = unsafe { bytes.transmute_mut::<f64>(count) };
                let numbers = numbers.ok_or_else(|| Error::shape(OP, "workspace", [count], [0]));
                appended = appended.and_then(|()| add_up(&mut numbers?));
            }
            appended = appended.and_then(|()| phases.into_iter().try_for_each(launch));
        }
        // Records the stream's last use of the workspace.
        drop(workspace.device_ptr_mut(stream));
        appended
    }

    /// Binds the plan to a stream and to arrays, one pair of inputs and outputs a head, in the order of the plan's shapes.
    ///
    /// With several heads it copies their table to the workspace, for which the driver may wait for the stream; it comes
    /// before a capture, not within.
    ///
    /// # Errors
    /// [`Error::Shape`] where an array has not the plan's extents, [`Error::Value`] where the samples have another type
    /// than the plan, [`Error::Device`] where the driver refuses the copy.
    pub fn bind<'a, T: Element + DeviceRepr>(
        &'a self,
        stream: &'a Arc<CudaStream>,
        heads: impl IntoIterator<Item = (Inputs<'a, T>, Outputs<'a>)>,
        workspace: &'a mut CudaSlice<u8>,
    ) -> Result<Bound<'a>> {
        let (pointers, mut guards) = self.gathered(stream, heads)?;
        let call = self.ready(stream, &pointers, workspace)?;
        guards.push(workspace.device_ptr_mut(stream).1);
        Ok(Bound { plan: self, stream, call, _guards: guards })
    }

    /// The addresses of every head's arrays, compared with the plan, and the guards of their use.
    fn gathered<'a, T: Element + DeviceRepr>(
        &self,
        stream: &'a CudaStream,
        heads: impl IntoIterator<Item = (Inputs<'a, T>, Outputs<'a>)>,
    ) -> Result<(Vec<Pointers>, Vec<SyncOnDrop<'a>>)> {
        if T::DTYPE != self.dtype {
            return Err(Error::value(OP, "the samples' type", self.dtype.name(), T::DTYPE));
        }
        let mut guards = Vec::new();
        let mut pointers = Vec::with_capacity(self.heads.len());
        for (at, (inputs, outputs)) in heads.into_iter().enumerate() {
            let head = self.heads.get(at).ok_or_else(|| Error::shape(OP, "heads", [self.heads.len()], [at + 1]))?;
            pointers.push(pointers_of(&head.shape, stream, inputs, outputs, &mut guards)?);
        }
        if pointers.len() != self.heads.len() {
            return Err(Error::shape(OP, "heads", [self.heads.len()], [pointers.len()]));
        }
        Ok((pointers, guards))
    }

    /// What the kernels are launched with, whose table lies in the workspace.
    fn ready(&self, stream: &Arc<CudaStream>, pointers: &[Pointers], workspace: &mut CudaSlice<u8>) -> Result<Call> {
        self.check_workspace(workspace)?;
        let call = self.call(pointers, workspace.device_ptr_mut(stream).0);
        if !call.table().is_empty() {
            let mut table = workspace.slice_mut(self.table..self.table + call.table().len());
            stream
                .memcpy_htod(call.table(), &mut table)
                .map_err(|error| failed("copying the table of heads", error))?;
        }
        Ok(call)
    }

    /// Appends the launches of a phase on raw addresses.
    ///
    /// # Errors
    /// As [`Bound::run`].
    ///
    /// # Safety
    /// `call` is this plan's, of addresses of arrays with its extents, in the memory of the stream's context, that stay
    /// alive until the stream has passed; outputs and workspace alias nothing; with several heads, [`Call::table`] lies
    /// at [`Plan::table_offset`] in the workspace, which begins at a multiple of 16; the phases before have run on the same workspace.
    pub unsafe fn launch(&self, kernels: &Kernels, stream: &CudaStream, call: &Call, phase: Phase) -> Result<()> {
        if self.options.shared_bytes > kernels.shared_bytes {
            return Err(Error::value(
                OP,
                "shared_bytes",
                format!("at most {}", kernels.shared_bytes),
                self.options.shared_bytes,
            ));
        }
        let (products, statistics) = (kernels.products(self), kernels.statistics(self.dtype));
        let blocks = |launch: params::Launch| self.blocks[launch as usize];
        let heads = self.heads.len() as u32;
        let temperatures = self.spec.temperatures.len() as u32;
        let norms = if self.fused { &products.group } else { &products.norm };
        let enqueue = |name, function: &CudaFunction, blocks: u32, shared: usize, iteration: u32| -> Result<()> {
            let params = DriftCall { iteration: iteration as i32, ..call.params };
            // SAFETY: the caller's promise.
            unsafe { enqueue(stream, name, function, blocks, shared, &params) }
        };
        let [rows, columns, plans] = [params::Launch_kRows, params::Launch_kColumns, params::Launch_kPlans].map(blocks);
        match phase {
            Phase::Distances => {
                enqueue("distances", &products.distances, blocks(params::Launch_kDistances), self.shared[0], 0)?;
                enqueue("join", &kernels.join, blocks(params::Launch_kJoin), 0, 0)?;
                enqueue("reduce_scale", &kernels.reduce_scale, heads, 0, 0)
            }
            Phase::Scale => enqueue("derive_scale", &kernels.derive_scale, heads, 0, 0),
            Phase::Norms => {
                if self.spec.rows_of_mass_one() {
                    if self.spec.coupling == Coupling::RowColumn {
                        enqueue("columns", &statistics.columns, columns, 0, 0)?;
                    }
                    enqueue("start", &kernels.start, plans, 0, 0)?;
                    enqueue("project_rows", &statistics.project_rows, rows, 0, 0)?;
                    if let Some(plan) = self.spec.sinkhorn() {
                        for k in 1..=plan.iterations {
                            enqueue("project_columns", &statistics.project_columns, columns, 0, k)?;
                            enqueue("project_rows", &statistics.project_rows, rows, 0, k)?;
                            if self.settles(plan, k) {
                                enqueue("settle", &kernels.settle, plans, 0, k)?;
                            }
                        }
                    }
                } else {
                    enqueue("rows", &statistics.rows, rows, 0, 0)?;
                    enqueue("columns", &statistics.columns, columns, 0, 0)?;
                }
                enqueue("masses", &statistics.masses, rows, 0, 0)?;
                enqueue("norms", norms, blocks(params::Launch_kNorms), self.shared[1], 0)?;
                enqueue("reduce_norms", &kernels.reduce_norms, heads * temperatures, 0, 0)
            }
            Phase::Theta => enqueue("derive_norms", &kernels.derive_norms, heads * temperatures, 0, 0),
            Phase::Force => {
                enqueue("force", &products.force, blocks(params::Launch_kForce), self.shared[2], 0)?;
                enqueue("losses", &kernels.losses, blocks(params::Launch_kLosses), 0, 0)
            }
        }
    }

    pub(super) fn check_workspace(&self, workspace: &CudaSlice<u8>) -> Result<()> {
        let (expected, got) = (self.workspace_bytes(), workspace.len());
        if got < expected { Err(Error::shape(OP, "workspace", [expected], [got])) } else { Ok(()) }
    }

    /// Where a head's sums lie in the workspace, bytes: eight-byte floats that are added where a head is spread over
    /// devices. First, after [`Phase::Distances`]: sum d w and sum w over the pairs that count, sum w over all,
    /// coordinates and weights that are not finite, groups. Second, after
    /// [`Phase::Norms`]: the squared force of each of eight temperatures, and of each the sums
    /// over the rows from which [`RowMeans`] follow.
    pub fn sums(&self, head: usize) -> [std::ops::Range<usize>; 2] {
        let start = head * size_of::<DriftScalars>();
        let middle = start + std::mem::offset_of!(DriftScalars, squares);
        [start..middle, middle..start + std::mem::offset_of!(DriftScalars, mean)]
    }

    /// Waits for the stream and reads the scalars of the last run in the workspace, one entry a head.
    ///
    /// # Errors
    /// [`Error::Shape`] where the workspace is too small, [`Error::Device`] where the driver reports that the run failed.
    pub fn statistics(&self, stream: &Arc<CudaStream>, workspace: &CudaSlice<u8>) -> Result<Vec<Statistics>> {
        let mut scalars = vec![DriftScalars::zeroed(); self.heads.len()];
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut scalars);
        self.check_workspace(workspace)?;
        let view = workspace.slice(..bytes.len());
        stream.memcpy_dtoh(&view, bytes).map_err(|error| failed("reading the statistics", error))?;
        stream.synchronize().map_err(|error| failed("waiting for the run", error))?;
        let temperatures = self.spec.temperatures.len();
        let of = |(scalars, head): (&DriftScalars, &super::plan::Head)| {
            let rows = (scalars.groups * head.shape.generated as f64).max(1.0);
            let reached =
                |(iterations, error): (&f64, &f64)| Convergence { iterations: *iterations as u32, error: *error };
            let means = |[minus, plus, few, many]: [f64; 4]| RowMeans {
                mass: [minus / rows, plus / rows],
                effective: [few / rows, many / rows],
            };
            Statistics {
                scale: crate::Scale { scale: scalars.scale, sigma: scalars.sigma, distance: scalars.distance },
                loss_r: scalars.f2[..temperatures].to_vec(),
                convergence: scalars.iterations.iter().zip(&scalars.error).take(temperatures).map(reached).collect(),
                rows: scalars.rows[..temperatures].iter().copied().map(means).collect(),
                nonfinite: scalars.nonfinite as u64,
            }
        };
        Ok(scalars.iter().zip(&self.heads).map(of).collect())
    }
}

/// Where the kernels of a type lie.
fn place(dtype: Dtype) -> usize {
    match dtype {
        Dtype::F32 => 0,
        Dtype::F16 => 1,
        Dtype::Bf16 => 2,
    }
}

/// Appends a launch; one without blocks is an error to the driver, and nothing to us.
///
/// # Safety
/// What [`Plan::launch`] asks for.
pub(super) unsafe fn enqueue(
    stream: &CudaStream,
    name: &'static str,
    function: &CudaFunction,
    blocks: u32,
    shared: usize,
    params: &DriftCall,
) -> Result<()> {
    if blocks == 0 {
        return Ok(());
    }
    let config = LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (THREADS, 1, 1), shared_mem_bytes: shared as u32 };
    // SAFETY: every kernel takes one `DriftCall` by value; the addresses are the caller's promise.
    unsafe { stream.launch_builder(function).arg(params).launch(config) }.map_err(|error| failed(name, error))?;
    Ok(())
}

/// Refuses an array that has not exactly these extents.
pub(super) fn exact(op: &'static str, argument: &'static str, got: usize, extents: &[usize]) -> Result<()> {
    let fits = got == extents.iter().product::<usize>();
    if fits { Ok(()) } else { Err(Error::shape(op, argument, extents, [got])) }
}

/// The addresses of a head's arrays, which must have the extents of `shape`; and the guards of their use.
pub(super) fn pointers_of<'a, T: Element + DeviceRepr>(
    shape: &DriftShape,
    stream: &'a CudaStream,
    inputs: Inputs<'a, T>,
    outputs: Outputs<'a>,
    guards: &mut Vec<SyncOnDrop<'a>>,
) -> Result<Pointers> {
    macro_rules! address {
        ($view:expr, $method:ident) => {{
            let (address, guard) = $view.$method(stream);
            guards.push(guard);
            address
        }};
        ($view:expr, $method:ident, $argument:literal, $extents:expr) => {
            match $view {
                Some(view) => {
                    exact(OP, $argument, view.len(), $extents)?;
                    address!(view, $method)
                }
                None => 0,
            }
        };
    }
    let (b, g, n, p, d) = (shape.groups, shape.generated, shape.negatives, shape.positives, shape.dim);
    let mut pointers = Pointers::default();
    let kinds = [
        ("generated", Some(inputs.generated), g),
        ("negatives", inputs.negatives, n),
        ("positives", inputs.positives, p),
    ];
    for (kind, (argument, samples, count)) in kinds.into_iter().enumerate() {
        let Some(samples) = samples else {
            exact(OP, argument, 0, &[b, count, d])?;
            continue;
        };
        if !samples.holds(b, count, d) {
            return Err(Error::shape(OP, argument, [b, count, d], [samples.view.len()]));
        }
        pointers.strides[kind] = samples.strides;
        pointers.samples[kind] = address!(samples.view, view_ptr);
    }
    Ok(Pointers {
        weights: [
            address!(inputs.weight_generated, view_ptr, "weight_generated", &[b, g]),
            address!(inputs.weight_negatives, view_ptr, "weight_negatives", &[b, n]),
            address!(inputs.weight_positives, view_ptr, "weight_positives", &[b, p]),
        ],
        force: address!(outputs.force, view_ptr_mut, "force", &[b, g, d]),
        gradient: address!(outputs.gradient, view_ptr_mut, "gradient", &[b, g, d]),
        loss: address!(outputs.loss, view_ptr_mut, "loss", &[b]),
        ..pointers
    })
}
