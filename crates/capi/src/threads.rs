//! The threads that calls run on: rayon's, a forked child's own, or those that the program lends.

use crate::status::{Refusal, cudrift_status, guarded};
use std::any::Any;
use std::cell::Cell;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

/// Runs `job(data)` on as many threads at once as it has, up to `threads`, the caller's among them, and returns when all are
/// through. `flags` is 0: GOMP_parallel of any OpenMP runtime is such a function.
pub type cudrift_parallel =
    Option<unsafe extern "C" fn(job: unsafe extern "C" fn(*mut c_void), data: *mut c_void, threads: u32, flags: u32)>;

/// Threads that the program lends.
#[derive(Clone, Copy)]
struct Lender {
    parallel: unsafe extern "C" fn(unsafe extern "C" fn(*mut c_void), *mut c_void, u32, u32),
    threads: u32,
    /// A child that was forked off has no such threads.
    process: u32,
}

thread_local! {
    static LENDER: Cell<Option<Lender>> = const { Cell::new(None) };
}

/// From now on calls of this thread run on `threads` threads that `parallel` lends, instead of libcudrift's own; null ends
/// that. Threads of two runtimes get into one another's way: one's wait for work by spinning for milliseconds, which the
/// other's would need. Short calls take one thread alone, because `parallel` waits for all of them. Results are the same bits
/// for any number of threads. A child that is forked off has no such threads,
/// and its calls run on threads of its own; of an OpenMP runtime that its parent has used it must borrow none.
///
/// # Safety
/// `parallel` is null or such a function, as long as it is lent.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudrift_borrow_threads(parallel: cudrift_parallel, threads: u32) -> cudrift_status {
    guarded(|| {
        if parallel.is_some() && threads == 0 {
            return Err(Refusal::invalid(
                "libcudrift: threads is 0, expected 1 or more; null in place of parallel ends it",
            ));
        }
        LENDER.set(parallel.map(|parallel| Lender { parallel, threads, process: std::process::id() }));
        Ok(())
    })
}

/// A pool of threads of a process that was forked off.
struct Own {
    process: u32,
    pool: rayon::ThreadPool,
}

/// Lets one thread's pointers be used by another, while the first waits.
struct Lent<T>(T);
// SAFETY: this module alone makes them, of closures that run on one thread at a time, while their caller waits.
unsafe impl<T> Send for Lent<T> {}

impl<T> Lent<T> {
    fn take(self) -> T {
        self.0
    }
}

/// Runs `work` where there are threads, of lent ones on `most` at most: a child that was forked off after the first call has
/// none of its parent's, and makes its own.
pub(crate) fn on_threads<T>(most: u32, work: impl FnOnce() -> Result<T, Refusal>) -> Result<T, Refusal> {
    static FIRST: AtomicU32 = AtomicU32::new(0);
    static OWN: AtomicPtr<Own> = AtomicPtr::new(ptr::null_mut());
    let process = std::process::id();
    if let Some(lender) = LENDER.get().filter(|lender| lender.process == process) {
        return Lender { threads: lender.threads.min(most), ..lender }.run(work);
    }
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
            let pool = rayon::ThreadPoolBuilder::new().build().map_err(no_threads)?;
            let own: &Own = Box::leak(Box::new(Own { process, pool }));
            OWN.store(ptr::from_ref(own).cast_mut(), Ordering::Release);
            own
        }
    };
    let lent = Lent(work);
    own.pool.install(move || Lent(lent.take()())).take()
}

fn no_threads(error: rayon::ThreadPoolBuildError) -> Refusal {
    Refusal::internal(format!("libcudrift: no threads: {error}"))
}

/// Where each thread that is lent finds its part in a pool.
type Seats = Mutex<Vec<rayon::ThreadBuilder>>;

/// What a thread that is lent does.
///
/// # Safety
/// `seats` points to [`Seats`].
unsafe extern "C" fn sit(seats: *mut c_void) {
    // SAFETY: seats of the caller of `parallel` (# Safety), who waits for this; nothing of them is changed but by their lock.
    let seats = unsafe { &*seats.cast::<Seats>() };
    let seat = seats.lock().unwrap_or_else(PoisonError::into_inner).pop();
    if let Some(seat) = seat {
        seat.run();
    }
}

impl Lender {
    /// Runs `work` in a pool of the lent threads, which lasts as long.
    fn run<T>(self, work: impl FnOnce() -> Result<T, Refusal>) -> Result<T, Refusal> {
        let mut seats = Vec::new();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(self.threads as usize).spawn_handler(|seat| {
            seats.push(seat);
            Ok(())
        });
        let pool = pool.build().map_err(no_threads)?;
        let mut result: Option<Result<_, Box<dyn Any + Send>>> = None;
        {
            let to = &mut result;
            let job: Box<dyn FnOnce() + '_> = Box::new(|| *to = Some(catch_unwind(AssertUnwindSafe(work))));
            // SAFETY: only its lifetime changes. The pool's threads run it, who are through when `parallel` returns below;
            // where none ever sits down, nobody runs it, and pool and job are never freed.
            let job = Lent(unsafe { std::mem::transmute::<Box<dyn FnOnce() + '_>, Box<dyn FnOnce()>>(job) });
            pool.spawn(move || job.take()());
            // Threads leave when the job is done.
            drop(pool);
            let seats = Seats::new(seats);
            // SAFETY: whoever called cudrift_borrow_threads lends such a function (# Safety there), and `sit` gets its seats.
            unsafe { (self.parallel)(sit, ptr::from_ref(&seats).cast_mut().cast(), self.threads, 0) };
        }
        match result {
            Some(Ok(result)) => result,
            Some(Err(panic)) => resume_unwind(panic),
            None => Err(Refusal::internal("libcudrift: the function that lends threads ran nothing")),
        }
    }
}
