//! The execution of a kernel over a grid.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::counters::Counters;
use crate::device::Device;
use crate::exec::{Block, Grid, Progress, Stop};
use crate::finding::Finding;
use crate::program::Kernel;

/// A grid of a kernel with its arguments.
#[derive(Clone, Copy)]
pub struct Launch<'a> {
    /// The kernel.
    pub kernel: &'a Kernel,
    /// Blocks along each axis.
    pub grid: [u32; 3],
    /// Threads along each axis of a block.
    pub block: [u32; 3],
    /// Dynamic shared memory, bytes.
    pub shared: u32,
    /// The parameter block, [`Kernel::param_bytes`] long.
    pub params: &'a [u8],
    /// Are all blocks resident at once (`cuLaunchCooperativeKernel`)?
    pub cooperative: bool,
}

/// Lays out the arguments of a launch one after another, each aligned to its size, as the parameters of a kernel are.
#[derive(Clone, Debug, Default)]
pub struct Args(Vec<u8>);

impl Args {
    /// No arguments.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends an argument, aligned to its length: 1, 2, 4 or 8 bytes.
    pub fn bytes<const N: usize>(mut self, bytes: [u8; N]) -> Self {
        self.0.resize(self.0.len().next_multiple_of(N), 0);
        self.0.extend_from_slice(&bytes);
        self
    }

    /// Appends a device address or another 64-bit integer.
    pub fn u64(self, value: u64) -> Self {
        self.bytes(value.to_le_bytes())
    }

    /// Appends a 32-bit integer.
    pub fn u32(self, value: u32) -> Self {
        self.bytes(value.to_le_bytes())
    }

    /// Appends an f32.
    pub fn f32(self, value: f32) -> Self {
        self.bytes(value.to_le_bytes())
    }

    /// The parameter block.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Executes every block of the grid with every check on, and returns when all are done.
///
/// The caller has checked the limits of [`Profile`](crate::device::Profile).
///
/// # Errors
/// The first defect found. The launch ended there; memory holds what was written until then.
#[allow(clippy::result_large_err, reason = "one finding ends a launch; it is seldom and never copied")]
pub fn run(device: &Device, launch: &Launch<'_>) -> Result<Counters, Finding> {
    // Cooperative groups read the barrier's address from the environment registers, and count in its second word.
    let barrier = if launch.cooperative { device.memory.alloc(GRID_BARRIER).unwrap_or(0) } else { 0 };
    if barrier != 0 {
        drop(device.memory.fill(barrier, &[0], GRID_BARRIER));
    }
    let result = execute(device, launch, barrier);
    if barrier != 0 {
        drop(device.memory.free(barrier));
    }
    result
}

/// Bytes of the first-level cache that a block has: what shared memory leaves of its multiprocessor, as if it were there
/// alone. The two share so much memory, and a little more, by the programming guide's tables.
fn l1(device: &Device, launch: &Launch<'_>) -> u64 {
    let profile = &device.profile;
    let both = profile.shared_per_multiprocessor + (28 << 10);
    both.saturating_sub(launch.kernel.shared + launch.shared + profile.shared_reserved).into()
}

/// Launches so far, and one.
static LAUNCHES: AtomicU32 = AtomicU32::new(1);

/// Bytes of the barrier of a cooperative grid.
const GRID_BARRIER: u64 = 64;

#[allow(clippy::result_large_err, reason = "as of `run`")]
fn execute(device: &Device, launch: &Launch<'_>, barrier: u64) -> Result<Counters, Finding> {
    let map = device.memory.map();
    let kernel = launch.kernel;
    let grid = Grid {
        image: &kernel.image,
        map: &map,
        params: launch.params,
        grid: launch.grid,
        block: launch.block,
        dynamic_shared: launch.shared,
        barrier,
        multiprocessors: device.profile.multiprocessors,
        watchdog: device.watchdog,
        checks: device.checks,
        order: device.order,
        launch: LAUNCHES.fetch_add(1, Relaxed),
        l2: device.l2(),
        l1: l1(device, launch),
    };
    let blocks: u64 = launch.grid.iter().map(|&extent| u64::from(extent)).product();
    let workers = (device.workers as u64).clamp(1, blocks.max(1));
    let common = Common::default();
    let work = |worker: u64| {
        let found = if launch.cooperative {
            resident(&grid, &common, (worker..blocks).step_by(workers as usize).map(|n| grid.order.block(n, blocks)))
        } else {
            in_turn(&grid, &common, blocks)
        };
        let mut outcome = common.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        match found {
            Ok(counters) => outcome.counters += counters,
            Err((block, stop)) => {
                common.stop.store(true, Relaxed);
                if outcome.finding.as_ref().is_none_or(|(other, _)| block < *other) {
                    outcome.finding = Some((block, describe(kernel, &grid, block, &stop)));
                }
            }
        }
    };
    if workers == 1 {
        work(0);
    } else {
        thread::scope(|scope| {
            for worker in 1..workers {
                let work = &work;
                scope.spawn(move || work(worker));
            }
            work(0);
        });
    }
    let Outcome { mut counters, finding } = common.outcome.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(details) = &mut counters.details {
        details.classify(kernel.image.code.iter().map(|step| (step.class, step.flop)));
    }
    finding.map_or(Ok(counters), |(_, finding)| Err(finding))
}

/// What the workers share.
#[derive(Default)]
struct Common {
    next: AtomicU64,
    stop: AtomicBool,
    outcome: Mutex<Outcome>,
}

#[derive(Default)]
struct Outcome {
    counters: Counters,
    /// The finding of the lowest block, and the block.
    finding: Option<(u64, Finding)>,
}

/// One block after another, each to its end.
fn in_turn(grid: &Grid<'_>, common: &Common, blocks: u64) -> Result<Counters, (u64, Stop)> {
    let (mut block, mut counters) = (Block::default(), Counters::default());
    loop {
        let number = common.next.fetch_add(1, Relaxed);
        if number >= blocks {
            return Ok(counters);
        }
        let number = grid.order.block(number, blocks);
        block.start(grid, number);
        while block.run(grid).map_err(|stop| (number, stop))? == Progress::More {
            if common.stop.load(Relaxed) {
                return Ok(counters);
            }
        }
        counters += block.counters(grid);
    }
}

/// All blocks at once, each a little at a time, so that they can wait for each other.
fn resident(grid: &Grid<'_>, common: &Common, numbers: impl Iterator<Item = u64>) -> Result<Counters, (u64, Stop)> {
    let mut counters = Counters::default();
    let mut blocks: Vec<Block> = numbers
        .map(|number| {
            let mut block = Block::default();
            block.start(grid, number);
            block
        })
        .collect();
    while !blocks.is_empty() && !common.stop.load(Relaxed) {
        let mut left = Vec::with_capacity(blocks.len());
        for mut block in blocks {
            if block.run(grid).map_err(|stop| (block.number, stop))? == Progress::More {
                left.push(block);
            } else {
                counters += block.counters(grid);
            }
        }
        blocks = left;
    }
    Ok(counters)
}

fn describe(kernel: &Kernel, grid: &Grid<'_>, block: u64, stop: &Stop) -> Finding {
    let step = &kernel.image.code[stop.pc as usize];
    Finding {
        kind: stop.fault.kind,
        kernel: kernel.name.clone(),
        block: Grid::index(block, grid.grid),
        thread: grid.thread(stop.warp * 32 + stop.fault.lane.min(31)),
        line: step.line,
        instruction: kernel.text.line(step.line).to_owned(),
        source: kernel.text.source(step.source),
        detail: stop.fault.detail.clone(),
    }
}
