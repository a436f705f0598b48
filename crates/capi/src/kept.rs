//! The drift in one call, by plans that are kept for the next.

use crate::plan::{cudrift_outputs, cudrift_plan, run};
use crate::points::{cudrift_inputs, cudrift_shape};
use crate::spec::cudrift_spec;
use crate::status::{Refusal, borrowed, cudrift_status, guarded};
use drift::{DriftShape, DriftSpec};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, TryLockError};

/// Plans that wait for their next call, the latest last.
static IDLE: Mutex<Vec<Kept>> = Mutex::new(Vec::new());
/// How many wait at most, and with how many bytes of workspace beside the latest's.
const MOST: usize = 32;
const MOST_BYTES: usize = 256 << 20;

/// The plans that wait, or nothing where they cannot be had soon: in a child that was forked off while another thread had
/// them, nobody ever lets go of the lock.
fn idle() -> Option<MutexGuard<'static, Vec<Kept>>> {
    for _ in 0..100 {
        match IDLE.try_lock() {
            Ok(idle) => return Some(idle),
            Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => std::thread::yield_now(),
        }
    }
    None
}

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
        let kept = Kept::take(spec, shape, dtype, None)?;
        // SAFETY: as cudrift_plan_run (# Safety).
        let result = unsafe { run(&kept.plan, inputs, outputs) };
        // What a panic left half done does not come back.
        kept.keep();
        result
    })
}

/// Frees the plans that cudrift_drift keeps.
#[unsafe(no_mangle)]
pub extern "C" fn cudrift_forget() {
    guarded(|| {
        let kept = idle().map(|mut idle| std::mem::take(&mut *idle));
        drop(kept);
        Ok(())
    });
}

/// A call in phases that stands between two of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Open {
    /// Its number, of this process.
    pub(crate) call: u64,
    /// The phase that is done.
    pub(crate) done: i64,
}

impl Open {
    /// A number that no call had.
    pub(crate) fn number() -> u64 {
        static LAST: AtomicU64 = AtomicU64::new(0);
        LAST.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// A plan that nobody else has meanwhile.
pub(crate) struct Kept {
    pub(crate) plan: cudrift_plan,
    /// The call that it was in the middle of when it was kept.
    pub(crate) open: Option<Open>,
}

impl Kept {
    /// A plan that waits, or a new one: the one that is in the middle of a call, where that is asked for and it is still there,
    /// else one that is not.
    pub(crate) fn take(spec: DriftSpec, shape: DriftShape, dtype: u32, open: Option<Open>) -> Result<Self, Refusal> {
        let kept = idle().and_then(|mut idle| {
            let find = |open| idle.iter().rposition(|kept| kept.open == open && kept.plan.is_of(&spec, &shape, dtype));
            let at = find(open).or_else(|| find(None))?;
            Some(idle.remove(at))
        });
        match kept {
            Some(kept) => Ok(kept),
            None => Ok(Self { plan: cudrift_plan::new(spec, shape, dtype)?, open: None }),
        }
    }

    /// Lets it wait for the next call.
    pub(crate) fn keep(self) {
        let Some(mut idle) = idle() else { return };
        let mut bytes: usize = idle.iter().map(|kept| kept.plan.held()).sum();
        let mut oldest = 0;
        while oldest < idle.len() && (idle.len() - oldest >= MOST || bytes > MOST_BYTES) {
            bytes -= idle[oldest].plan.held();
            oldest += 1;
        }
        let old: Vec<Self> = idle.drain(..oldest).collect();
        idle.push(self);
        // Others need not wait for memory that is given back.
        drop(idle);
        drop(old);
    }
}
