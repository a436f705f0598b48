//! Plans: one call, or its phases with their sums.

use crate::points::{
    CUDRIFT_BF16, CUDRIFT_F16, CUDRIFT_F32, CUDRIFT_F64, Place, cudrift_inputs, cudrift_shape, misaligned,
};
use crate::spec::{CUDRIFT_MAX_TEMPERATURES, cudrift_spec};
use crate::status::{Refusal, borrowed, borrowed_mut, cudrift_status, guarded};
use crate::threads::on_threads;
use drift::cpu::{ForceNorms, ForceSums, Plan, ScaleSums, Workspace};
use drift::{Convergence, DriftShape, DriftSpec, Element, Scale, bf16, f16};
use std::ffi::c_void;
use std::sync::Mutex;

/// A drift of one spec, shape and type, with its workspace.
#[derive(Debug)]
pub struct cudrift_plan {
    spec: DriftSpec,
    shape: DriftShape,
    dtype: u32,
    plan: Plan,
    state: Mutex<State>,
}

/// What a call leaves for the next.
#[derive(Debug)]
struct State {
    workspace: Workspace,
    /// Where the inputs of the last first phase were: the others are of the same.
    inputs: Option<Place>,
    /// How near the plans of its second phase came to their marginals.
    convergence: Vec<Convergence>,
    /// Of the workspace.
    bytes: usize,
}

/// What the first phase sums up over its groups: doubles only. Sums of several workers, whose groups together are the call,
/// are added field by field.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct cudrift_scale_sums {
    /// sum_ij d_ij w_j
    pub weighted_distance: f64,
    /// sum_ij w_j over the same pairs
    pub weight: f64,
    /// sum_j w_j
    pub any_weight: f64,
    /// How many coordinates are NaN or infinite.
    pub nonfinite: f64,
    /// How many groups.
    pub groups: f64,
}

/// What the second phase sums up: the squared force of each temperature. Sums of several workers are added field by field.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct cudrift_force_sums {
    /// Of each temperature, in raw coordinates.
    pub squares: [f64; CUDRIFT_MAX_TEMPERATURES],
    /// How many groups.
    pub groups: f64,
}

/// Where results go. Arrays are the caller's, without gaps, each null where it is not wanted; numbers are written. The first
/// four are of float, and of double where samples are CUDRIFT_F64.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct cudrift_outputs {
    /// The drift in units of the scaled coordinates, [B, G, D].
    pub force: *mut c_void,
    /// The gradient of the sum of the losses by the generated samples, [B, G, D].
    pub gradient: *mut c_void,
    /// The frozen target x / sigma + force, [B, G, D].
    pub goal: *mut c_void,
    /// Of each group, [B].
    pub loss: *mut c_void,
    /// The mean square of each temperature's force, [R].
    pub loss_r: *mut f64,
    /// Of CUDRIFT_SINKHORN, how near the plans of these groups came to their marginals, the worst of each temperature, [R].
    pub marginal_error: *mut f64,
    /// And the most iterations that one took, [R].
    pub iterations: *mut u32,
    /// The mean distance.
    pub scale: f64,
    /// What coordinates are divided by.
    pub sigma: f64,
    /// How many input coordinates are NaN or infinite; where it is not 0, results that they reach are NaN.
    pub nonfinite: i64,
}

impl cudrift_plan {
    pub(crate) fn new(spec: DriftSpec, shape: DriftShape, dtype: u32) -> Result<Self, Refusal> {
        if dtype > CUDRIFT_F64 {
            return Err(Refusal::invalid(format!("libcudrift: dtype is {dtype}, expected 0 to {CUDRIFT_F64}")));
        }
        let plan = Plan::new(&spec, shape)?;
        let state = Mutex::new(State { workspace: plan.workspace(), inputs: None, convergence: Vec::new(), bytes: 0 });
        Ok(Self { spec, shape, dtype, plan, state })
    }

    /// Whether it is the plan that [`Self::new`] would make.
    pub(crate) fn is_of(&self, spec: &DriftSpec, shape: &DriftShape, dtype: u32) -> bool {
        self.dtype == dtype && self.shape == *shape && self.spec == *spec
    }

    /// Threads that are worth waiting for.
    fn most_threads(&self) -> u32 {
        /// Pairs by coordinates, and 32 more for their exponentials: some 50 microseconds on one thread.
        const SHORT: usize = 1 << 19;
        let DriftShape { groups, generated, dim, .. } = self.shape;
        let pairs = groups.saturating_mul(generated).saturating_mul(self.shape.targets());
        if pairs.saturating_mul(dim.saturating_add(32)) <= SHORT { 1 } else { u32::MAX }
    }

    /// Whether its last first phase was of these inputs.
    ///
    /// # Safety
    /// Strides of the inputs are null or point to three numbers.
    pub(crate) unsafe fn began_with(&self, inputs: &cudrift_inputs) -> bool {
        // SAFETY: strides are null or point to three numbers (# Safety).
        let place = unsafe { inputs.place() };
        self.state.lock().is_ok_and(|state| state.inputs == Some(place))
    }

    /// Of its workspace, on the threads of the pool that asks.
    fn bytes(&self) -> usize {
        if self.dtype == CUDRIFT_F64 { 0 } else { self.plan.workspace_bytes() }
    }

    /// Of its workspace as its last call was done, without a pool.
    pub(crate) fn held(&self) -> usize {
        self.state.lock().map_or(0, |state| state.bytes)
    }
}

/// Makes a plan for samples of a type, CUDRIFT_F32 and so on, on the CPU. Free it by cudrift_plan_free.
///
/// # Safety
/// Each pointer is null or points to what its type says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudrift_plan_new(
    spec: *const cudrift_spec,
    shape: *const cudrift_shape,
    dtype: u32,
    plan: *mut *mut cudrift_plan,
) -> cudrift_status {
    // SAFETY: by # Safety.
    unsafe { planned(spec, shape, plan, |spec, shape| cudrift_plan::new(spec, shape, dtype)) }
}

/// Makes a plan of whatever kind, and puts it where `plan` points to.
///
/// # Safety
/// Each pointer is null or points to what its type says.
pub(crate) unsafe fn planned<T>(
    spec: *const cudrift_spec,
    shape: *const cudrift_shape,
    plan: *mut *mut T,
    make: impl FnOnce(DriftSpec, DriftShape) -> Result<T, Refusal>,
) -> cudrift_status {
    guarded(|| {
        // SAFETY: it is null or points to a pointer that nothing else reads or writes meanwhile (# Safety).
        let to = unsafe { borrowed_mut("plan", plan) }?;
        *to = std::ptr::null_mut();
        // SAFETY: each is null or points to a live value of its type (# Safety).
        let (spec, shape) = unsafe { (borrowed("spec", spec)?.spec()?, borrowed("shape", shape)?.shape()?) };
        *to = Box::into_raw(Box::new(make(spec, shape)?));
        Ok(())
    })
}

/// Frees a plan of whatever kind; null is nothing.
///
/// # Safety
/// It is null or comes from [`planned`], and is not used hereafter.
pub(crate) unsafe fn freed<T>(plan: *mut T) {
    if !plan.is_null() {
        guarded(|| {
            // SAFETY: not null, made by Box::into_raw in `planned`, and not used hereafter (# Safety).
            drop(unsafe { Box::from_raw(plan) });
            Ok(())
        });
    }
}

/// Frees a plan; null is nothing.
///
/// # Safety
/// `plan` is null or comes from cudrift_plan_new, and is not used hereafter.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudrift_plan_free(plan: *mut cudrift_plan) {
    // SAFETY: it is null or comes from `planned`, and is not used hereafter (# Safety).
    unsafe { freed(plan) }
}

/// How many bytes the plan's workspace takes from its first call on; 0 for CUDRIFT_F64, which makes room as it goes.
///
/// # Safety
/// Each pointer is null or points to what its type says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudrift_plan_workspace_bytes(plan: *const cudrift_plan, bytes: *mut usize) -> cudrift_status {
    guarded(|| {
        // SAFETY: by # Safety, each pointer is null or points to a live value of its type, and outputs are nobody else's.
        let (to, plan) = unsafe { (borrowed_mut("bytes", bytes)?, borrowed("plan", plan)?) };
        *to = on_threads(plan.most_threads(), || Ok(plan.bytes()))?;
        Ok(())
    })
}

/// The drift of a call: all phases.
///
/// # Safety
/// Each pointer is null or points to what its type says; arrays are as long as the plan's shape says, and outputs are
/// nobody else's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudrift_plan_run(
    plan: *const cudrift_plan,
    inputs: *const cudrift_inputs,
    outputs: *mut cudrift_outputs,
) -> cudrift_status {
    // SAFETY: by # Safety, each pointer is null or points to a live value of its type, and outputs are nobody else's.
    unsafe { with(plan, inputs, Work::Whole { outputs }) }
}

/// The first phase: what the scale of the call follows from.
///
/// # Safety
/// As cudrift_plan_run.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudrift_plan_distances(
    plan: *const cudrift_plan,
    inputs: *const cudrift_inputs,
    sums: *mut cudrift_scale_sums,
) -> cudrift_status {
    // SAFETY: by # Safety, each pointer is null or points to a live value of its type, and outputs are nobody else's.
    unsafe { with(plan, inputs, Work::Distances { sums }) }
}

/// The second phase, after the first of the same inputs: given the sums of all workers, the same bits for every one of them,
/// what force norms follow from.
///
/// # Safety
/// As cudrift_plan_run.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudrift_plan_coefficients(
    plan: *const cudrift_plan,
    inputs: *const cudrift_inputs,
    scale: *const cudrift_scale_sums,
    sums: *mut cudrift_force_sums,
) -> cudrift_status {
    // SAFETY: by # Safety, each pointer is null or points to a live value of its type, and outputs are nobody else's.
    unsafe { with(plan, inputs, Work::Coefficients { scale, sums }) }
}

/// The last phase, after the second: given the sums of all workers, the results of these groups; outputs->nonfinite is that of
/// all.
///
/// # Safety
/// As cudrift_plan_run.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudrift_plan_contraction(
    plan: *const cudrift_plan,
    inputs: *const cudrift_inputs,
    scale: *const cudrift_scale_sums,
    force: *const cudrift_force_sums,
    outputs: *mut cudrift_outputs,
) -> cudrift_status {
    // SAFETY: by # Safety, each pointer is null or points to a live value of its type, and outputs are nobody else's.
    unsafe { with(plan, inputs, Work::Contraction { scale, force, outputs }) }
}

/// What is done with inputs of whatever type.
#[derive(Clone, Copy)]
pub(crate) enum Work {
    Whole { outputs: *mut cudrift_outputs },
    Distances { sums: *mut cudrift_scale_sums },
    Coefficients { scale: *const cudrift_scale_sums, sums: *mut cudrift_force_sums },
    Contraction { scale: *const cudrift_scale_sums, force: *const cudrift_force_sums, outputs: *mut cudrift_outputs },
}

/// # Safety
/// As cudrift_plan_run.
unsafe fn with(plan: *const cudrift_plan, inputs: *const cudrift_inputs, work: Work) -> cudrift_status {
    // SAFETY: by # Safety, each pointer is null or points to a live value of its type, and outputs are nobody else's.
    guarded(|| unsafe { work.on(borrowed("plan", plan)?, inputs) })
}

/// The drift of a call, all phases.
///
/// # Safety
/// As cudrift_plan_run.
pub(crate) unsafe fn run(
    plan: &cudrift_plan,
    inputs: *const cudrift_inputs,
    outputs: *mut cudrift_outputs,
) -> Result<(), Refusal> {
    // SAFETY: by # Safety.
    unsafe { Work::Whole { outputs }.on(plan, inputs) }
}

impl Work {
    /// # Safety
    /// As cudrift_plan_run.
    pub(crate) unsafe fn on(self, plan: &cudrift_plan, inputs: *const cudrift_inputs) -> Result<(), Refusal> {
        // SAFETY: by # Safety, it is null or points to inputs.
        let inputs = unsafe { borrowed("inputs", inputs) }?;
        // Here and not on a thread of the pool: while it waits for others, that one may take up another call of this plan.
        let mut state = plan.state.lock().unwrap_or_else(|poisoned| {
            // What a panic left half done is forgotten.
            plan.state.clear_poison();
            let mut state = poisoned.into_inner();
            (state.workspace, state.inputs) = (plan.plan.workspace(), None);
            state
        });
        let state = &mut *state;
        on_threads(plan.most_threads(), || {
            state.bytes = plan.bytes();
            // SAFETY: samples are of the plan's type and as many as its shape says, outputs are nobody else's (# Safety).
            unsafe {
                match plan.dtype {
                    CUDRIFT_F32 => self.typed::<f32>(plan, state, inputs),
                    CUDRIFT_F16 => self.typed::<f16>(plan, state, inputs),
                    CUDRIFT_BF16 => self.typed::<bf16>(plan, state, inputs),
                    _ => self.judge(plan, inputs),
                }
            }
        })
    }

    /// # Safety
    /// As cudrift_plan_run.
    unsafe fn typed<T: Element>(
        self,
        plan: &cudrift_plan,
        state: &mut State,
        inputs: &cudrift_inputs,
    ) -> Result<(), Refusal> {
        let first = matches!(self, Self::Whole { .. } | Self::Distances { .. });
        // SAFETY: by # Safety, strides are null or point to three numbers.
        let place = unsafe { inputs.place() };
        if first {
            // Until it is done.
            state.inputs = None;
        } else if state.inputs != Some(place) {
            return Err(Refusal::order("libcudrift: the first phase was of other inputs; begin with it"));
        }
        // SAFETY: by # Safety, each pointer is null or points to a live value of its type, and outputs are nobody else's.
        unsafe { self.run(plan, state, &inputs.gather::<T>(&plan.shape)?.inputs()?) }?;
        state.inputs = Some(place);
        Ok(())
    }

    /// The reference's results for samples in f64.
    ///
    /// # Safety
    /// As cudrift_plan_run.
    unsafe fn judge(self, plan: &cudrift_plan, inputs: &cudrift_inputs) -> Result<(), Refusal> {
        let Self::Whole { outputs } = self else {
            return Err(Refusal::invalid("libcudrift: CUDRIFT_F64 has no phases; take cudrift_plan_run"));
        };
        // SAFETY: each is null or points to a live value of its type, and outputs are nobody else's (# Safety).
        let outputs = unsafe { borrowed_mut("outputs", outputs) }?;
        outputs.aligned::<f64>()?;
        // SAFETY: samples are of the plan's type and as many as its shape says (# Safety).
        let gathered = unsafe { inputs.gather::<f64>(&plan.shape) }?;
        let drift = drift::reference::drift(&plan.spec, &gathered.inputs()?)?;
        let nonfinite = gathered.points.iter().flat_map(|points| points.iter()).filter(|v| !v.is_finite()).count();
        for (to, from) in [
            (outputs.force, &drift.force),
            (outputs.gradient, &drift.grad),
            (outputs.goal, &drift.goal),
            (outputs.loss, &drift.loss),
        ] {
            if !to.is_null() {
                // SAFETY: an array of the caller's with the extents of this one (# Safety), aligned as compared above.
                unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to.cast(), from.len()) };
            }
        }
        // SAFETY: the arrays have a number for each temperature (# Safety).
        unsafe { outputs.numbers(&drift.scale, &drift.loss_r, &drift.convergence, nonfinite as i64) };
        Ok(())
    }

    /// # Safety
    /// As cudrift_plan_run.
    unsafe fn run<T: Element>(
        self,
        plan: &cudrift_plan,
        state: &mut State,
        inputs: &drift::DriftInputs<'_, T>,
    ) -> Result<(), Refusal> {
        match self {
            Self::Whole { outputs } => {
                // SAFETY: each is null or points to a live value of its type, and outputs are nobody else's (# Safety).
                let outputs = unsafe { borrowed_mut("outputs", outputs) }?;
                let sums = plan.plan.distances(inputs, &mut state.workspace)?;
                let scale = sums.finish(&plan.spec)?;
                let norms = plan.plan.coefficients(inputs, &scale, &mut state.workspace)?.finish(&plan.spec, &scale);
                state.convergence.clone_from(&norms.convergence);
                // SAFETY: each is null or points to a live value of its type, and outputs are nobody else's (# Safety).
                unsafe { results(plan, state, inputs, &scale, &norms, sums.nonfinite() as i64, outputs) }
            }
            Self::Distances { sums } => {
                // SAFETY: each is null or points to a live value of its type, and outputs are nobody else's (# Safety).
                let to = unsafe { borrowed_mut("sums", sums) }?;
                let sums = plan.plan.distances(inputs, &mut state.workspace)?;
                let [weighted_distance, weight, any_weight] = sums.totals(&plan.spec);
                let (groups, nonfinite) = (plan.shape.groups as f64, sums.nonfinite() as f64);
                *to = cudrift_scale_sums { weighted_distance, weight, any_weight, groups, nonfinite };
                Ok(())
            }
            Self::Coefficients { scale, sums } => {
                // SAFETY: each is null or points to a live value of its type, and outputs are nobody else's (# Safety).
                let (to, (scale, _)) = unsafe { (borrowed_mut("sums", sums)?, scale_of(plan, scale)?) };
                let sums = plan.plan.coefficients(inputs, &scale, &mut state.workspace)?;
                state.convergence = sums.finish(&plan.spec, &scale).convergence;
                *to = cudrift_force_sums { groups: plan.shape.groups as f64, ..Default::default() };
                to.squares.iter_mut().zip(sums.totals(&plan.spec)).for_each(|(to, total)| *to = total);
                Ok(())
            }
            Self::Contraction { scale, force, outputs } => {
                // SAFETY: each is null or points to a live value of its type, and outputs are nobody else's (# Safety).
                let outputs = unsafe { borrowed_mut("outputs", outputs) }?;
                // SAFETY: each is null or points to a live value of its type, and outputs are nobody else's (# Safety).
                let ((unit, nonfinite), force) = unsafe { (scale_of(plan, scale)?, borrowed("force", force)?) };
                // SAFETY: `scale_of` has read it: it points to sums that live through the call.
                let groups = unsafe { borrowed("scale", scale) }?.groups;
                if force.groups != groups {
                    let (got, problem) = (force.groups, "add it up over all workers");
                    return Err(Refusal::invalid(format!(
                        "libcudrift: force.groups is {got}, expected those of scale, {groups}; {problem}"
                    )));
                }
                let squares = &force.squares[..plan.spec.temperatures.len()];
                let elements = plan.shape.generated * plan.shape.dim;
                let norms = ForceSums::of_totals(squares, groups as usize, elements).finish(&plan.spec, &unit);
                // SAFETY: each is null or points to a live value of its type, and outputs are nobody else's (# Safety).
                unsafe { results(plan, state, inputs, &unit, &norms, nonfinite, outputs) }
            }
        }
    }
}

/// A number that was added up over workers: at least this one's.
fn count(name: &str, value: f64, least: usize) -> Result<usize, Refusal> {
    let whole = value as usize;
    if whole as f64 == value && whole >= least {
        return Ok(whole);
    }
    Err(Refusal::invalid(format!(
        "libcudrift: {name} is {value}, expected {least} or more; add it up over all workers"
    )))
}

/// The scale that follows from sums.
///
/// # Safety
/// `sums` is null or points to them.
unsafe fn scale_of(plan: &cudrift_plan, sums: *const cudrift_scale_sums) -> Result<(Scale, i64), Refusal> {
    // SAFETY: by # Safety, each pointer is null or points to a live value of its type, and outputs are nobody else's.
    let sums = unsafe { borrowed("scale", sums) }?;
    let totals = [sums.weighted_distance, sums.weight, sums.any_weight];
    let groups = count("scale.groups", sums.groups, plan.shape.groups)?;
    let nonfinite = count("scale.nonfinite", sums.nonfinite, 0)?;
    Ok((ScaleSums::of_totals(totals, groups, plan.shape.dim, nonfinite as u64).finish(&plan.spec)?, nonfinite as i64))
}

/// An array that the caller does not want.
fn zeros(len: usize) -> Result<Vec<f32>, Refusal> {
    let mut values = Vec::new();
    if values.try_reserve_exact(len).is_err() {
        let got = format!("{len} numbers");
        return Err(drift::Error::TooLarge { op: "libcudrift", what: "a result", got }.into());
    }
    values.resize(len, 0.0);
    Ok(values)
}

/// Writes the results that are asked for.
///
/// # Safety
/// The arrays of `outputs` are null or as long as the plan's shape says.
unsafe fn results<T: Element>(
    plan: &cudrift_plan,
    state: &mut State,
    inputs: &drift::DriftInputs<'_, T>,
    scale: &Scale,
    norms: &ForceNorms,
    nonfinite: i64,
    outputs: &mut cudrift_outputs,
) -> Result<(), Refusal> {
    let DriftShape { groups, generated, dim, .. } = plan.shape;
    let len = groups * generated * dim;
    let State { workspace, convergence, .. } = state;
    outputs.aligned::<f32>()?;
    let array = |pointer: *mut c_void, len: usize| {
        // SAFETY: not null and aligned, as compared; an array of the caller's of this length, which nothing else has.
        (!pointer.is_null()).then(|| unsafe { std::slice::from_raw_parts_mut(pointer.cast::<f32>(), len) })
    };
    let (force, gradient, goal) = (array(outputs.force, len), array(outputs.gradient, len), array(outputs.goal, len));
    let loss = array(outputs.loss, groups);
    let mut own_loss = if loss.is_none() { zeros(groups)? } else { Vec::new() };
    let loss = loss.unwrap_or(&mut own_loss);
    let mut own = if force.is_none() && (goal.is_some() || gradient.is_none()) { zeros(len)? } else { Vec::new() };
    if force.is_none() && goal.is_none() && gradient.is_some() {
        // What training asks for, without an array more.
        let gradient = gradient.unwrap_or_default();
        plan.plan.gradient(inputs, scale, norms, workspace, gradient, loss)?;
    } else {
        let force = force.unwrap_or(&mut own);
        plan.plan.contraction(inputs, scale, norms, workspace, force, loss)?;
        let factor = (-2.0 / ((generated * dim) as f64 * scale.sigma)) as f32;
        if let Some(gradient) = gradient {
            gradient.iter_mut().zip(&*force).for_each(|(g, f)| *g = factor * f);
        }
        if let Some(goal) = goal {
            let samples = inputs.generated().as_slice();
            let scaled = |x: &T| (f64::from(x.to_f32()) / scale.sigma) as f32;
            goal.iter_mut().zip(samples).zip(&*force).for_each(|((goal, x), f)| *goal = scaled(x) + f);
        }
    }
    // SAFETY: the arrays have a number for each temperature (# Safety).
    unsafe { outputs.numbers(scale, &norms.f2, convergence, nonfinite) };
    Ok(())
}

impl cudrift_outputs {
    /// Refuses arrays that are no multiple of their type's size.
    fn aligned<T>(&self) -> Result<(), Refusal> {
        let arrays = [self.force, self.gradient, self.goal, self.loss].map(|pointer| pointer.cast::<T>());
        if let Some(k) = arrays.iter().position(|pointer| !pointer.is_aligned()) {
            let name = ["force", "gradient", "goal", "loss"][k];
            return Err(misaligned(&format!("outputs.{name}"), align_of::<T>()));
        }
        if !(self.loss_r.is_aligned() && self.marginal_error.is_aligned()) {
            return Err(misaligned("outputs.loss_r or outputs.marginal_error", align_of::<f64>()));
        }
        if self.iterations.is_aligned() { Ok(()) } else { Err(misaligned("outputs.iterations", align_of::<u32>())) }
    }

    /// Writes what is not an array of samples.
    ///
    /// # Safety
    /// Each array is null, or the caller's with a number for each temperature that nothing else reads.
    unsafe fn numbers(&mut self, scale: &Scale, loss_r: &[f64], convergence: &[Convergence], nonfinite: i64) {
        for (r, (f2, reached)) in loss_r.iter().zip(convergence).enumerate() {
            // SAFETY: by # Safety.
            unsafe {
                if !self.loss_r.is_null() {
                    *self.loss_r.add(r) = *f2;
                }
                if !self.marginal_error.is_null() {
                    *self.marginal_error.add(r) = reached.error;
                }
                if !self.iterations.is_null() {
                    *self.iterations.add(r) = reached.iterations;
                }
            }
        }
        (self.scale, self.sigma, self.nonfinite) = (scale.scale, scale.sigma, nonfinite);
    }
}
