//! What a call needs beyond its inputs and outputs, counted by the allocator; and that a lean plan needs next to
//! nothing and gives the same bits.
#![allow(clippy::unwrap_used)]

mod common;

use common::Case;
use cudrift::{DriftSpec, cpu::Plan};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn count(more: usize, less: usize) {
    let now = NOW.fetch_add(more, Relaxed) + more;
    PEAK.fetch_max(now, Relaxed);
    NOW.fetch_sub(less, Relaxed);
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(ptr, layout) }
    }
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Old and new block may exist together.
        count(size, layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.realloc(ptr, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One test at a time: what another allocates would be counted too.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The gradient of the official spec, and the peak beyond inputs and outputs, on two threads.
fn run(shape @ [groups, generated, _, _, dim]: [usize; 5], lean: bool) -> (Vec<f32>, usize) {
    let case = Case::random(1, shape);
    let inputs = case.inputs();
    let spec = DriftSpec::official();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    let (mut gradient, mut loss) = (vec![0.0f32; groups * generated * dim], vec![0.0f32; groups]);
    let before = NOW.load(Relaxed);
    PEAK.store(before, Relaxed);
    let promised = pool.install(|| {
        let mut plan = Plan::new(&spec, inputs.shape()).unwrap();
        if lean {
            plan = plan.keep(0);
        }
        let mut workspace = plan.workspace();
        let scale = plan.distances(&inputs, &mut workspace).unwrap().finish(&spec).unwrap();
        let norms = plan.coefficients(&inputs, &scale, &mut workspace).unwrap().finish(&spec, &scale);
        plan.gradient(&inputs, &scale, &norms, &mut workspace, &mut gradient, &mut loss).unwrap();
        plan.workspace_bytes()
    });
    let peak = PEAK.load(Relaxed) - before;
    println!("{shape:?}{}: {:.1} MiB", if lean { " lean" } else { "" }, peak as f64 / (1 << 20) as f64);
    // The plan's own estimate leaves out small change only.
    assert!(peak <= promised + promised / 8 + (2 << 20), "{shape:?}: {peak} bytes, {promised} promised");
    (gradient, peak)
}

#[test]
fn small_groups_and_points_in_the_plane_take_64_mib() {
    let _alone = alone();
    for shape in [
        [8, 64, 32, 64, 640],
        [64, 64, 32, 64, 640],
        [32, 64, 16, 64, 1280],
        [1, 2048, 0, 2048, 2],
        [256, 64, 32, 64, 256],
    ] {
        let (_, peak) = run(shape, false);
        assert!(peak <= 64 << 20, "{shape:?}: {peak} bytes");
    }
}

#[test]
fn a_big_group_takes_little_more_than_its_distances() {
    let _alone = alone();
    let shape = [1, 4096, 0, 4096, 512];
    let (gradient, peak) = run(shape, false);
    let matrix = 4096 * 8192 * size_of::<f32>();
    assert!(peak as f64 <= 1.3 * matrix as f64, "{peak} bytes, {:.3} matrices", peak as f64 / matrix as f64);
    let (lean, peak) = run(shape, true);
    assert!(peak <= 64 << 20, "{peak} bytes");
    assert!(gradient.iter().zip(&lean).all(|(a, b)| a.to_bits() == b.to_bits()));
}

#[test]
fn a_lean_plan_takes_64_mib_whatever_the_shape() {
    let _alone = alone();
    for shape in [[3000, 64, 32, 64, 32], [300, 64, 32, 64, 256], [1, 40, 0, 100_000, 3], [2, 300, 5, 700, 4000]] {
        let (lean, peak) = run(shape, true);
        assert!(peak <= 64 << 20, "{shape:?}: {peak} bytes");
        let (gradient, _) = run(shape, false);
        assert!(gradient.iter().zip(&lean).all(|(a, b)| a.to_bits() == b.to_bits()), "{shape:?}");
    }
}
