//! The drift in one call: plans that are kept for the next, and threads that outlive a fork.

use crate::plan::{cudrift_outputs, cudrift_plan, run};
use crate::points::{cudrift_inputs, cudrift_shape};
use crate::spec::cudrift_spec;
use crate::status::{Refusal, borrowed, cudrift_status, guarded};
use drift::{DriftShape, DriftSpec};
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

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

/// A pool of threads of a process that was forked off.
struct Own {
    process: u32,
    pool: rayon::ThreadPool,
}

/// Lets one thread's pointers be used by another, while the first waits.
struct Lent<T>(T);
// SAFETY: `on_threads` alone makes one, whose closure runs on one thread at a time, while its caller waits.
unsafe impl<T> Send for Lent<T> {}

impl<T> Lent<T> {
    fn take(self) -> T {
        self.0
    }
}

/// Runs `work` where there are threads: a child that was forked off after the first call has none of its parent's, and makes
/// its own.
pub(crate) fn on_threads<T>(work: impl FnOnce() -> Result<T, Refusal>) -> Result<T, Refusal> {
    static FIRST: AtomicU32 = AtomicU32::new(0);
    static OWN: AtomicPtr<Own> = AtomicPtr::new(ptr::null_mut());
    let process = std::process::id();
    let first = FIRST.compare_exchange(0, process, Ordering::Relaxed, Ordering::Relaxed).unwrap_or_else(|first| first);
    if first == 0 {
        // Until every thread has started: a child forked off while one does would wait for it, in what they all share.
        rayon::broadcast(|_| ());
    }
    if first == 0 || first == process {
        return work();
    }
    // SAFETY: null, or leaked below and never changed.
    let own = match unsafe { OWN.load(Ordering::Acquire).as_ref() } {
        Some(own) if own.process == process => own,
        _ => {
            let pool = rayon::ThreadPoolBuilder::new().build();
            let pool = pool.map_err(|error| Refusal::internal(format!("libcudrift: no threads: {error}")))?;
            let own: &Own = Box::leak(Box::new(Own { process, pool }));
            OWN.store(ptr::from_ref(own).cast_mut(), Ordering::Release);
            own
        }
    };
    let lent = Lent(work);
    own.pool.install(move || Lent(lent.take()())).take()
}
