//! The devices that can be pretended, with the limits of the CUDA programming guide's table of compute capabilities.

use std::sync::{Mutex, OnceLock, PoisonError};

use crate::cache::Cache;
use crate::chance;
use crate::counters::{Access, Counters, Space, Tally};
use crate::memory::Memory;

/// Limits and properties of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// What `cuDeviceGetName` answers; it says that this is a simulation.
    pub name: &'static str,
    /// Compute capability, as 80 or 120.
    pub arch: u32,
    /// Multiprocessors.
    pub multiprocessors: u32,
    /// Resident threads of a multiprocessor.
    pub threads_per_multiprocessor: u32,
    /// Resident blocks of a multiprocessor.
    pub blocks_per_multiprocessor: u32,
    /// Shared memory of a multiprocessor, bytes.
    pub shared_per_multiprocessor: u32,
    /// Shared memory that a block may have after `cuFuncSetAttribute`, bytes.
    pub shared_per_block_optin: u32,
    /// Shared memory that the driver reserves in every block, bytes.
    pub shared_reserved: u32,
    /// Device memory, bytes. Allocations beyond it fail; host memory is taken only as it is allocated.
    pub memory: u64,
    /// Second-level cache, bytes.
    pub l2: u32,
}

impl Profile {
    /// Threads of a block.
    pub const THREADS_PER_BLOCK: u32 = 1024;
    /// Extents of a block.
    pub const BLOCK: [u32; 3] = [1024, 1024, 64];
    /// Extents of a grid.
    pub const GRID: [u32; 3] = [0x7fff_ffff, 65_535, 65_535];
    /// Shared memory of a block without opting in, bytes.
    pub const SHARED_PER_BLOCK: u32 = 48 << 10;
    /// 32-bit registers of a block, and of a multiprocessor.
    pub const REGISTERS: u32 = 65_536;
    /// 32-bit registers of a thread.
    pub const REGISTERS_PER_THREAD: u32 = 255;
    /// Constant memory, bytes.
    pub const CONSTANT: u32 = 64 << 10;

    /// The devices that there are.
    pub const ALL: [Profile; 3] = [
        Profile {
            name: "cudrift simulator (sm_80, no GPU)",
            arch: 80,
            multiprocessors: 108,
            threads_per_multiprocessor: 2048,
            blocks_per_multiprocessor: 32,
            shared_per_multiprocessor: 164 << 10,
            shared_per_block_optin: 163 << 10,
            shared_reserved: 1 << 10,
            memory: 40 << 30,
            l2: 40 << 20,
        },
        Profile {
            name: "cudrift simulator (sm_90, no GPU)",
            arch: 90,
            multiprocessors: 132,
            threads_per_multiprocessor: 2048,
            blocks_per_multiprocessor: 32,
            shared_per_multiprocessor: 228 << 10,
            shared_per_block_optin: 227 << 10,
            shared_reserved: 1 << 10,
            memory: 80 << 30,
            l2: 50 << 20,
        },
        Profile {
            name: "cudrift simulator (sm_120, no GPU)",
            arch: 120,
            multiprocessors: 170,
            threads_per_multiprocessor: 1536,
            blocks_per_multiprocessor: 24,
            shared_per_multiprocessor: 100 << 10,
            shared_per_block_optin: 99 << 10,
            shared_reserved: 1 << 10,
            memory: 32 << 30,
            l2: 96 << 20,
        },
    ];

    /// The device of compute capability `arch`.
    pub fn of(arch: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|profile| profile.arch == arch)
    }
}

/// Checks that can be left out or added; all others are always on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checks {
    /// Races in shared memory.
    pub race: bool,
    /// Reads of shared memory that nothing has written. Code that reads such a value and makes no use of it, as some
    /// of CUB does, needs this off.
    pub shared_init: bool,
    /// Reads of global memory that nothing has written.
    pub global_init: bool,
    /// Races in global memory: between threads of a block, as in shared memory, and between blocks of a launch. A block
    /// that has executed a fence, an acquire or a release for the whole device is trusted from then on as to other
    /// blocks.
    pub global_race: bool,
    /// Reads of registers that nothing has written. What `mov` and `selp` hand on counts where it is used.
    pub registers: bool,
}

impl Checks {
    /// Those that are on where nobody asks for others.
    pub const USUAL: Self =
        Self { race: true, shared_init: true, global_init: true, global_race: false, registers: false };
}

/// In which order blocks run, and the warps of a block take turns. No kernel may care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// By their numbers, turns as long as warps can.
    Ascending,
    /// From the last to the first.
    Descending,
    /// By chance, from a seed, with turns of a few instructions.
    Random(u64),
}

impl Order {
    /// The block that runs as number `n` of so many.
    pub(crate) fn block(self, n: u64, blocks: u64) -> u64 {
        match self {
            Self::Ascending => n,
            Self::Descending => blocks - 1 - n,
            Self::Random(seed) => shuffled(seed, n, blocks),
        }
    }

    /// The warp whose turn is number `n` of so many, in a round.
    pub(crate) fn warp(self, round: u64, n: usize, warps: usize) -> usize {
        match self {
            Self::Ascending => n,
            Self::Descending => warps - 1 - n,
            Self::Random(seed) => shuffled(chance::mix(seed ^ round), n as u64, warps as u64) as usize,
        }
    }

    /// Instructions of a warp's turn, of at most so many.
    pub(crate) fn turn(self, round: u64, warp: usize, most: u64) -> u64 {
        match self {
            Self::Random(seed) => 1 + chance::mix(seed ^ round << 8 ^ warp as u64) % 96,
            _ => most,
        }
    }
}

/// Where number `n` of `count` goes: a step that meets every place once, from a place by chance.
fn shuffled(seed: u64, n: u64, count: u64) -> u64 {
    let gcd = |mut a: u64, mut b: u64| {
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    let (start, mut step) = (chance::mix(seed) % count, chance::mix(!seed) % count);
    while gcd(step, count) != 1 {
        step += 1;
    }
    ((u128::from(n) * u128::from(step) + u128::from(start)) % u128::from(count)) as u64
}

/// A pretended device: its limits and its memory.
pub struct Device {
    /// Limits.
    pub profile: Profile,
    /// Allocations.
    pub memory: Memory,
    /// Host threads that execute blocks.
    pub workers: usize,
    /// Instructions of a warp after which a launch is taken to hang.
    pub watchdog: u64,
    /// Which of the checks that can be left out are on.
    pub checks: Checks,
    /// In which order blocks and warps run.
    pub order: Order,
    /// Are sectors, wavefronts and classes of instructions counted?
    pub counting: bool,
    /// The second-level cache, made by the first launch that is counted.
    l2: OnceLock<Mutex<Cache>>,
    /// What a library's call moves and computes, where that is counted.
    library: Mutex<Tally>,
    /// From where chance begins to move the results of approximate functions, inside their documented errors; 0 for as
    /// exact as f64 gives them. It counts when a module is loaded.
    pub errors: u64,
}

impl Device {
    /// The second-level cache, where sectors are counted.
    pub(crate) fn l2(&self) -> Option<&Mutex<Cache>> {
        self.counting.then(|| self.l2.get_or_init(|| Mutex::new(Cache::new(self.profile.l2.into()))))
    }

    /// Counts bytes that a library reads or writes, behind no first level.
    pub(crate) fn moved(&self, address: u64, bytes: u64, write: bool) {
        if let Some(l2) = self.l2() {
            let mut tally = self.library.lock().unwrap_or_else(PoisonError::into_inner);
            tally.access(Access { space: Space::Global, bytes, write, uncached: true }, &[address]);
            tally.pass(&mut l2.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Counts floating-point operations of a library: on tensor cores, in f32, in f64.
    pub(crate) fn computed(&self, flop: [u64; 3]) {
        let mut tally = self.library.lock().unwrap_or_else(PoisonError::into_inner);
        tally.details.flop.iter_mut().zip(flop).for_each(|(count, more)| *count += more);
    }

    /// What a library has moved and computed since this was last asked.
    pub(crate) fn of_library(&self) -> Counters {
        let mut tally = self.library.lock().unwrap_or_else(PoisonError::into_inner);
        Counters { details: Some(Box::new(std::mem::take(&mut tally.details))), ..Counters::default() }
    }

    /// A device with empty memory.
    pub fn new(profile: Profile) -> Self {
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            memory: Memory::new(profile.memory),
            workers,
            watchdog: 1 << 30,
            checks: Checks::USUAL,
            order: Order::Ascending,
            counting: false,
            l2: OnceLock::new(),
            library: Mutex::new(Tally::new(0)),
            errors: 0,
            profile,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Order;

    #[test]
    fn every_order_meets_each_once() {
        for order in [Order::Ascending, Order::Descending, Order::Random(0), Order::Random(7)] {
            for count in [1, 2, 6, 97, 256] {
                let mut blocks: Vec<u64> = (0..count).map(|n| order.block(n, count)).collect();
                let mut warps: Vec<usize> = (0..count as usize).map(|n| order.warp(3, n, count as usize)).collect();
                blocks.sort_unstable();
                warps.sort_unstable();
                assert!(blocks.into_iter().eq(0..count) && warps.into_iter().eq(0..count as usize));
            }
        }
        assert_ne!(Order::Random(1).block(5, 1000), Order::Random(2).block(5, 1000));
    }
}
