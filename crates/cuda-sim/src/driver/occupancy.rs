//! How many blocks fit a multiprocessor, by the allocation granularities of compute capability 8.0 to 12.0.

use super::c::{In, Out, SharedOfBlock, api};
use super::launch::Config;
use super::module::Function;
use super::{Code, Driver, driver};
use crate::device::Profile;

/// What a block takes of a multiprocessor, beside its threads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usage {
    /// 32-bit registers of a thread.
    pub(super) registers: u32,
    /// Static shared memory, bytes.
    pub(super) shared: u32,
}

/// Registers are allocated to warps in so many.
const REGISTER_UNIT: u32 = 256;
/// A multiprocessor has so many parts, each with its share of the registers; warps are spread over them.
const PARTS: u32 = 4;
/// Shared memory is allocated in so many bytes.
const SHARED_UNIT: u32 = 128;

/// Warps whose registers fit a multiprocessor.
fn warps_by_registers(registers: u32) -> u32 {
    let warp = (registers.max(1) * 32).next_multiple_of(REGISTER_UNIT);
    Profile::REGISTERS / PARTS / warp * PARTS
}

/// Greatest number of threads of a block that the registers allow.
pub(super) fn threads_by_registers(registers: u32) -> u32 {
    (warps_by_registers(registers) * 32).min(Profile::THREADS_PER_BLOCK)
}

/// Blocks of `threads` threads that are resident on a multiprocessor at once.
pub(super) fn blocks(profile: &Profile, usage: Usage, threads: u32, dynamic_shared: usize) -> u32 {
    if threads == 0 || threads > threads_by_registers(usage.registers) {
        return 0;
    }
    let warps = threads.div_ceil(32);
    let shared = (dynamic_shared as u64 + u64::from(usage.shared)).next_multiple_of(SHARED_UNIT.into());
    if shared > profile.shared_per_block_optin.into() {
        return 0;
    }
    let by_shared = u64::from(profile.shared_per_multiprocessor) / (shared + u64::from(profile.shared_reserved));
    profile
        .blocks_per_multiprocessor
        .min(profile.threads_per_multiprocessor / 32 / warps)
        .min(warps_by_registers(usage.registers) / warps)
        .min(by_shared as u32)
}

/// The block size with the most resident threads, and the least grid that fills the device with it.
fn best_block(
    driver: &Driver,
    function: &Function,
    shared: impl Fn(u32) -> usize,
    limit: i32,
) -> Result<(i32, i32), Code> {
    let profile = driver.profile();
    let most = function.max_threads();
    let most = if limit > 0 { most.min(limit as u32) } else { most };
    let sizes = std::iter::once(most).chain((1..=most / 32).rev().map(|warps| warps * 32));
    let mut best = (0, 0);
    for threads in sizes {
        let resident = blocks(profile, function.usage(), threads, shared(threads));
        // The greatest block of those that come out even.
        if resident * threads > best.0 * best.1 {
            best = (resident, threads);
        }
    }
    if best.0 == 0 {
        return Err(Code::INVALID_VALUE);
    }
    Ok(((best.0 * profile.multiprocessors) as i32, best.1 as i32))
}

fn put_blocks(out: Out<i32>, function: usize, threads: i32, dynamic_shared: usize) -> Result<(), Code> {
    let driver = driver()?;
    let function = driver.functions.get(function)?;
    let threads = u32::try_from(threads).ok().filter(|threads| *threads > 0).ok_or(Code::INVALID_VALUE)?;
    let resident = match threads {
        fits if fits <= function.max_threads() => blocks(driver.profile(), function.usage(), threads, dynamic_shared),
        _ => 0,
    };
    out.put(resident as i32)
}

fn put_best_block(
    grid: Out<i32>,
    block: Out<i32>,
    function: usize,
    shared: SharedOfBlock,
    fixed: usize,
    limit: i32,
) -> Result<(), Code> {
    let driver = driver()?;
    let (least, threads) =
        best_block(driver, &*driver.functions.get(function)?, |threads| shared.of(threads, fixed), limit)?;
    grid.put(least)?;
    block.put(threads)
}

api! {
    /// Blocks of a function that are resident on a multiprocessor at once.
    fn cuOccupancyMaxActiveBlocksPerMultiprocessor(out: Out<i32>, function: usize, threads: i32, shared: usize) {
        put_blocks(out, function, threads, shared)
    }

    /// Blocks of a function that are resident on a multiprocessor at once.
    fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
        out: Out<i32>,
        function: usize,
        threads: i32,
        shared: usize,
        _flags: u32,
    ) {
        put_blocks(out, function, threads, shared)
    }

    /// The block size with the most resident threads.
    fn cuOccupancyMaxPotentialBlockSize(
        grid: Out<i32>,
        block: Out<i32>,
        function: usize,
        shared: SharedOfBlock,
        fixed: usize,
        limit: i32,
    ) {
        put_best_block(grid, block, function, shared, fixed, limit)
    }

    /// The block size with the most resident threads.
    fn cuOccupancyMaxPotentialBlockSizeWithFlags(
        grid: Out<i32>,
        block: Out<i32>,
        function: usize,
        shared: SharedOfBlock,
        fixed: usize,
        limit: i32,
        _flags: u32,
    ) {
        put_best_block(grid, block, function, shared, fixed, limit)
    }

    /// Dynamic shared memory that a block may have for so many blocks to be resident.
    fn cuOccupancyAvailableDynamicSMemPerBlock(out: Out<usize>, function: usize, count: i32, threads: i32) {
        let driver = driver()?;
        let function = driver.functions.get(function)?;
        let profile = driver.profile();
        let (count, threads) = (u32::try_from(count).unwrap_or(0), u32::try_from(threads).unwrap_or(0));
        if count == 0 || count > blocks(profile, function.usage(), threads, 0) {
            return Err(Code::INVALID_VALUE);
        }
        let share = profile.shared_per_multiprocessor / count / SHARED_UNIT * SHARED_UNIT;
        let block = share.saturating_sub(profile.shared_reserved).min(profile.shared_per_block_optin);
        out.put(block.saturating_sub(function.usage().shared) as usize)
    }

    /// Clusters are not simulated.
    fn cuOccupancyMaxActiveClusters(_out: Out<i32>, _function: usize, _config: In<Config>) {
        driver()?;
        Err(Code::NOT_SUPPORTED)
    }

    /// Clusters are not simulated.
    fn cuOccupancyMaxPotentialClusterSize(_out: Out<i32>, _function: usize, _config: In<Config>) {
        driver()?;
        Err(Code::NOT_SUPPORTED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Worked out by hand from the limits in the programming guide's table of compute capabilities.
    #[test]
    fn blocks_fit_as_on_the_devices() {
        let [sm_80, sm_90, sm_120] = &Profile::ALL;
        let usage = |registers, shared| Usage { registers, shared };
        assert_eq!(blocks(sm_80, usage(32, 0), 256, 0), 8);
        assert_eq!(blocks(sm_80, usage(32, 0), 32, 0), 32);
        assert_eq!(blocks(sm_80, usage(64, 0), 256, 0), 4);
        assert_eq!(blocks(sm_80, usage(255, 0), 256, 0), 1);
        assert_eq!(blocks(sm_80, usage(65, 0), 1024, 0), 0);
        assert_eq!(blocks(sm_80, usage(40, 0), 128, 163 << 10), 1);
        assert_eq!(blocks(sm_80, usage(40, 0), 128, (163 << 10) + 1), 0);
        assert_eq!(blocks(sm_80, usage(40, 1 << 10), 128, 80 << 10), 2);
        assert_eq!(blocks(sm_90, usage(128, 0), 256, 0), 2);
        assert_eq!(blocks(sm_120, usage(32, 0), 512, 0), 3);
        assert_eq!(blocks(sm_120, usage(32, 0), 32, 0), 24);
        assert_eq!(blocks(sm_120, usage(32, 0), 1024, 0), 1);
    }
}
