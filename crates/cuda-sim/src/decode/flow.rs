//! Where the paths of a branch meet again: immediate postdominators.
//!
//! Lanes that a branch parts run on by themselves until all of them have come to the first instruction that lies on
//! every path from the branch to the end, and go on together from there.

use super::{NOWHERE, Op, Step};

/// Fills in `rejoin` of every branch of a function whose code begins at the number `start`.
pub(super) fn rejoin(code: &mut [Step], start: u32) {
    let end = code.len();
    // The end of all paths is one node more.
    let successors: Vec<Vec<usize>> = code.iter().enumerate().map(|(at, step)| next(step, at, start, end)).collect();
    let mut predecessors = vec![Vec::new(); end + 1];
    for (at, nexts) in successors.iter().enumerate() {
        nexts.iter().for_each(|&next| predecessors[next].push(at));
    }
    // Postorder of the reversed graph, from the end.
    let (mut order, mut number) = (Vec::new(), vec![usize::MAX; end + 1]);
    let mut seen = vec![false; end + 1];
    let mut stack = vec![(end, 0)];
    seen[end] = true;
    while let Some((node, child)) = stack.pop() {
        if let Some(&next) = predecessors[node].get(child) {
            stack.push((node, child + 1));
            if !seen[next] {
                seen[next] = true;
                stack.push((next, 0));
            }
        } else {
            number[node] = order.len();
            order.push(node);
        }
    }
    // Cooper, Harvey and Kennedy: a simple, fast dominance algorithm.
    let mut parent = vec![usize::MAX; end + 1];
    parent[end] = end;
    let mut changed = true;
    while changed {
        changed = false;
        for &node in order.iter().rev().skip(1) {
            let mut found = usize::MAX;
            for &next in &successors[node] {
                if parent[next] == usize::MAX {
                    continue;
                }
                found = if found == usize::MAX { next } else { meet(found, next, &parent, &number) };
            }
            changed |= parent[node] != found;
            parent[node] = found;
        }
    }
    // Lanes that meet only to end together need not wait: a warp-level instruction of others excuses the exited.
    let ends: Vec<bool> =
        code.iter().map(|step| step.guard.is_none() && matches!(step.op, Op::Return | Op::Exit)).collect();
    for (at, step) in code.iter_mut().enumerate() {
        if matches!(step.op, Op::Branch { .. } | Op::Switch { .. }) && parent[at] < end && !ends[parent[at]] {
            step.rejoin = start + parent[at] as u32;
        }
    }
}

fn meet(mut a: usize, mut b: usize, parent: &[usize], number: &[usize]) -> usize {
    while a != b {
        while number[a] < number[b] {
            a = parent[a];
        }
        while number[b] < number[a] {
            b = parent[b];
        }
    }
    a
}

/// The instructions that may follow, of a function whose code begins at the number `start`; its end for the end.
pub(super) fn next(step: &Step, at: usize, start: u32, end: usize) -> Vec<usize> {
    let local = |target: u32| if target == NOWHERE { end } else { (target - start) as usize };
    let mut next = match &step.op {
        Op::Branch { target } => vec![local(*target)],
        Op::Switch { targets, .. } => targets.iter().map(|&target| local(target)).collect(),
        Op::Return | Op::Exit | Op::Trap | Op::Assert(_) => vec![end],
        _ => vec![at + 1],
    };
    if step.guard.is_some() && !next.contains(&(at + 1)) {
        next.push(at + 1);
    }
    next.retain(|&node| node <= end);
    next
}
