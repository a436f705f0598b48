//! The drift in one call, by plans that are kept for the next.

use crate::plan::{cudrift_outputs, cudrift_plan, run};
use crate::points::{cudrift_inputs, cudrift_shape};
use crate::spec::cudrift_spec;
use crate::status::{Refusal, borrowed, cudrift_status, guarded};
use drift::{DriftShape, DriftSpec};
use std::sync::Mutex;

/// Plans that wait for their next call, the latest last.
static IDLE: Mutex<Vec<cudrift_plan>> = Mutex::new(Vec::new());
/// How many wait at most, and with how many bytes of workspace beside the latest's.
const MOST: usize = 32;
const MOST_BYTES: usize = 256 << 20;

/// The drift of a call, as cudrift_plan_run, by a plan that is kept for the next call of the same spec, shape and type.
///
/// # Safety
/// As cudrift_plan_run.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudrift_drift(
    spec: *const cudrift_spec,
    shape: *const cudrift_shape,
    dtype: u32,
    inputs: *const cudrift_inputs,
    outputs: *mut cudrift_outputs,
) -> cudrift_status {
    guarded(|| {
        // SAFETY: by # Safety, each pointer is null or points to a live value of its type.
        let (spec, shape) = unsafe { (borrowed("spec", spec)?.spec()?, borrowed("shape", shape)?.shape()?) };
        // SAFETY: as cudrift_plan_run (# Safety).
        with_plan(spec, shape, dtype, |plan| unsafe { run(plan, inputs, outputs) })
    })
}

/// Frees the plans that cudrift_drift keeps.
#[unsafe(no_mangle)]
pub extern "C" fn cudrift_forget() {
    guarded(|| {
        let kept = IDLE.try_lock().map(|mut idle| std::mem::take(&mut *idle));
        drop(kept);
        Ok(())
    });
}

/// Does `work` with a plan that nobody else has meanwhile.
pub(crate) fn with_plan<T>(
    spec: DriftSpec,
    shape: DriftShape,
    dtype: u32,
    work: impl FnOnce(&cudrift_plan) -> Result<T, Refusal>,
) -> Result<T, Refusal> {
    // Never waits: in a child that was forked off meanwhile, nobody would let go of the lock.
    let kept = IDLE.try_lock().ok().and_then(|mut idle| {
        let at = idle.iter().rposition(|plan| plan.is_of(&spec, &shape, dtype))?;
        Some(idle.remove(at))
    });
    let plan = match kept {
        Some(plan) => plan,
        None => cudrift_plan::new(spec, shape, dtype)?,
    };
    let result = work(&plan);
    // What a panic left half done does not come back.
    if let Ok(mut idle) = IDLE.try_lock() {
        let mut bytes: usize = idle.iter().map(cudrift_plan::bytes).sum();
        let mut oldest = 0;
        while oldest < idle.len() && (idle.len() - oldest >= MOST || bytes > MOST_BYTES) {
            bytes -= idle[oldest].bytes();
            oldest += 1;
        }
        idle.drain(..oldest);
        idle.push(plan);
    }
    result
}
