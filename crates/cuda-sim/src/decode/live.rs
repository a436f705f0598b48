//! How many registers are alive at once: the least that a compiler can do with.

use std::collections::HashSet;

use super::{NOWHERE, Op, Step, flow};

/// An instruction reads or writes a register.
#[derive(Clone, Copy, Debug)]
pub struct Touch {
    pub step: u32,
    pub row: u32,
    pub rows: u32,
    pub write: bool,
    pub usage: Usage,
}

/// What an instruction makes of the values that it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// Something of its own.
    Computes,
    /// It hands all of them on.
    Moves,
    /// It hands one of them on.
    Selects,
}

/// Strikes out the elements of loads that nothing reads. nvcc rounds a load up to a vector where the bytes behind it are
/// padding: they need not have been written.
pub(super) fn drop_unread(code: &mut [Step], touched: &[Touch]) {
    let reads = touched.iter().filter(|touch| !touch.write);
    let read: HashSet<u32> = reads.flat_map(|touch| touch.row..touch.row + touch.rows).collect();
    for step in code {
        if let Op::Load { rows, .. } = &mut step.op
            && rows.len() > 1
        {
            rows.iter_mut().filter(|row| !read.contains(*row)).for_each(|row| *row = NOWHERE);
        }
    }
}

/// The most 32-bit registers of a function whose values are still needed at some instruction.
pub(super) fn most(code: &[Step], start: u32, touched: &[Touch], rows: u32) -> u32 {
    let words = rows.div_ceil(64) as usize;
    let mut reads = vec![Vec::new(); code.len()];
    let mut writes = vec![Vec::new(); code.len()];
    for touch in touched {
        let step = (touch.step - start) as usize;
        // Where some lanes do not write, their old values live on.
        let list = match touch.write {
            true if code[step].guard.is_none() => &mut writes[step],
            true => continue,
            false => &mut reads[step],
        };
        list.extend(touch.row..touch.row + touch.rows);
    }
    let successors: Vec<Vec<usize>> =
        code.iter().enumerate().map(|(at, step)| flow::next(step, at, start, code.len())).collect();
    let mut before = vec![0u64; code.len() * words];
    let mut most = 0;
    let mut changed = true;
    while changed {
        changed = false;
        for at in (0..code.len()).rev() {
            let mut live = vec![0u64; words];
            for &next in successors[at].iter().filter(|&&next| next < code.len()) {
                live.iter_mut().zip(&before[next * words..]).for_each(|(live, next)| *live |= next);
            }
            let count = |live: &[u64]| live.iter().map(|word| word.count_ones()).sum::<u32>();
            most = most.max(count(&live));
            writes[at].iter().for_each(|&row| live[row as usize / 64] &= !(1 << (row % 64)));
            reads[at].iter().for_each(|&row| live[row as usize / 64] |= 1 << (row % 64));
            most = most.max(count(&live));
            let old = &mut before[at * words..][..words];
            if *old != live[..] {
                old.copy_from_slice(&live);
                changed = true;
            }
        }
    }
    most
}
