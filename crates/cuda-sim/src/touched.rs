//! Which blocks of a launch touched which bytes of an allocation: for races between blocks.
//!
//! Nothing orders the blocks of a launch, so two of them may not touch the same bytes where one writes, unless all do so
//! by atomic operations. Each byte remembers who wrote and who read it last in a launch, or that several did.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// Bytes of an allocation whose marks are made together, at the first access to one of them.
const PAGE: u64 = 1 << 12;

/// How bytes are touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Touch {
    Read,
    Write,
}

/// Who touches bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Toucher {
    /// Number of the launch.
    pub launch: u32,
    /// Number of the block in its grid.
    pub block: u64,
    /// Is it an atomic operation, or a load or store that is as good as one?
    pub atomic: bool,
}

/// The marks of an allocation.
pub(crate) struct Touched {
    pages: Box<[OnceLock<Page>]>,
}

struct Page {
    writes: Box<[AtomicU64]>,
    reads: Box<[AtomicU64]>,
}

/// A block that stands for several.
const SEVERAL: u64 = (1 << 32) - 1;
const ATOMIC: u64 = 1 << 32;

/// A mark: the launch, whether all was atomic, the block.
fn mark(by: &Toucher, block: u64) -> u64 {
    u64::from(by.launch) << 33 | if by.atomic { ATOMIC } else { 0 } | block
}

impl Touched {
    pub fn new(len: u64) -> Self {
        let pages = len.div_ceil(PAGE) as usize;
        Self { pages: std::iter::repeat_with(OnceLock::new).take(pages).collect() }
    }

    /// Marks bytes; where they were touched before in a way that nothing orders, by which block and how. No block stands
    /// for several.
    pub fn touch(&self, offset: u64, size: u64, how: Touch, by: &Toucher) -> Result<(), (Option<u64>, Touch)> {
        (offset..offset + size).try_for_each(|at| {
            let page = self.pages[(at / PAGE) as usize].get_or_init(Page::new);
            let at = (at % PAGE) as usize;
            // Each marks its own side before it looks at the other, so that of two at the same time one sees the other.
            match how {
                Touch::Read => {
                    add(&page.reads[at], by);
                    conflict(page.writes[at].load(SeqCst), by).map_or(Ok(()), |block| Err((block, Touch::Write)))
                }
                Touch::Write => {
                    let before = add(&page.writes[at], by);
                    let reads = page.reads[at].load(SeqCst);
                    let other = conflict(before, by).map(|block| (block, Touch::Write));
                    other.or_else(|| conflict(reads, by).map(|block| (block, Touch::Read))).map_or(Ok(()), Err)
                }
            }
        })
    }
}

impl Page {
    fn new() -> Self {
        let marks = || std::iter::repeat_with(AtomicU64::default).take(PAGE as usize).collect();
        Self { writes: marks(), reads: marks() }
    }
}

/// Adds a mark to what there is of the same launch; returns that.
fn add(cell: &AtomicU64, by: &Toucher) -> u64 {
    let add = |old: u64| {
        let same = old >> 33 == u64::from(by.launch);
        let block = if same && old & SEVERAL != by.block { SEVERAL } else { by.block };
        let new = mark(by, block);
        Some(if same && old & ATOMIC == 0 { new & !ATOMIC } else { new })
    };
    cell.fetch_update(SeqCst, SeqCst, add).unwrap_or_else(|old| old)
}

/// The other block, where a mark is another block's of the same launch and not both are atomic.
fn conflict(mark: u64, by: &Toucher) -> Option<Option<u64>> {
    let (launch, block) = (mark >> 33, mark & SEVERAL);
    let ordered = launch != u64::from(by.launch) || block == by.block || (by.atomic && mark & ATOMIC != 0);
    (!ordered).then_some((block != SEVERAL).then_some(block))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by(launch: u32, block: u64, atomic: bool) -> Toucher {
        Toucher { launch, block, atomic }
    }

    #[test]
    fn blocks_of_a_launch_are_kept_apart() {
        let touched = Touched::new(10_000);
        let touch = |at, how, by: Toucher| touched.touch(at, 4, how, &by);
        assert_eq!(touch(0, Touch::Write, by(1, 3, false)), Ok(()));
        assert_eq!(touch(0, Touch::Write, by(1, 3, false)), Ok(()));
        assert_eq!(touch(4, Touch::Write, by(1, 4, false)), Ok(()));
        assert_eq!(touch(2, Touch::Read, by(1, 3, false)), Err((Some(4), Touch::Write)));
        // Another launch comes after this one.
        assert_eq!(touch(0, Touch::Read, by(2, 5, false)), Ok(()));
        assert_eq!(touch(0, Touch::Read, by(2, 6, false)), Ok(()));
        assert_eq!(touch(0, Touch::Write, by(2, 5, false)), Err((None, Touch::Read)));
        // Across the marks' pages.
        assert_eq!(touch(4094, Touch::Write, by(2, 1, false)), Ok(()));
        assert_eq!(touch(4096, Touch::Write, by(2, 2, false)), Err((Some(1), Touch::Write)));
    }

    #[test]
    fn atomic_operations_go_together() {
        let touched = Touched::new(100);
        let touch = |at, how, by: Toucher| touched.touch(at, 4, how, &by);
        for block in 0..3 {
            assert_eq!(touch(0, Touch::Write, by(1, block, true)), Ok(()));
            assert_eq!(touch(0, Touch::Read, by(1, block, true)), Ok(()));
        }
        assert_eq!(touch(0, Touch::Read, by(1, 2, false)), Err((None, Touch::Write)));
        assert_eq!(touch(8, Touch::Write, by(1, 0, false)), Ok(()));
        assert_eq!(touch(8, Touch::Write, by(1, 1, true)), Err((Some(0), Touch::Write)));
        // A block may read what it alone has counted.
        assert_eq!(touch(16, Touch::Write, by(1, 0, true)), Ok(()));
        assert_eq!(touch(16, Touch::Read, by(1, 0, false)), Ok(()));
    }
}
