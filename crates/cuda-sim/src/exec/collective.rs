//! `shfl`, `vote`, `match`, `redux`: pure functions of the values of all lanes.

use super::regs::{LANES, Row, lanes};
use crate::decode::{Atomic, Shuffle, Vote};

/// `shfl` (9.7.9.6): the value for each lane, and the mask of lanes whose source was in range.
///
/// `source` is called with each lane of `mask` and the lane that it reads.
pub(super) fn shuffle(
    mode: Shuffle,
    value: &Row,
    distance: &Row,
    clamp: &Row,
    mask: u32,
    mut source: impl FnMut(usize, usize),
) -> (Row, u32) {
    let (mut out, mut valid) = (*value, 0);
    for lane in lanes(mask) {
        let b = (distance[lane] & 0x1f) as usize;
        let (bound, segment) = ((clamp[lane] & 0x1f) as usize, (clamp[lane] >> 8 & 0x1f) as usize);
        let max = (lane & segment) | (bound & !segment);
        let min = lane & segment;
        let from = match mode {
            Shuffle::Up => lane.checked_sub(b).filter(|from| *from >= max),
            Shuffle::Down => Some(lane + b).filter(|from| *from <= max),
            Shuffle::Bfly => Some(lane ^ b).filter(|from| *from <= max),
            Shuffle::Idx => Some(min | (b & !segment)).filter(|from| *from <= max),
        };
        if let Some(from) = from {
            source(lane, from);
            out[lane] = value[from];
            valid |= 1 << lane;
        }
    }
    (out, valid)
}

/// `vote` of the lanes of `mask`; the ballot, or all ones for true.
pub(super) fn vote(vote: Vote, pred: u32, mask: u32) -> u32 {
    let yes = pred & mask;
    let holds = match vote {
        Vote::Ballot => return yes,
        Vote::All => yes == mask,
        Vote::Any => yes != 0,
        Vote::Uni => yes == mask || yes == 0,
    };
    if holds { u32::MAX } else { 0 }
}

/// `match.any`: for each lane, those of `mask` with the same value.
pub(super) fn match_any(value: &[u64; LANES], mask: u32) -> Row {
    std::array::from_fn(|lane| lanes(mask).filter(|&other| value[other] == value[lane]).fold(0, |m, at| m | 1 << at))
}

/// `redux` of the lanes of `mask`.
pub(super) fn reduce(op: Atomic, signed: bool, value: &Row, mask: u32) -> u32 {
    let values = lanes(mask).map(|lane| value[lane]);
    let result = match (op, signed) {
        (Atomic::Add, _) => values.reduce(u32::wrapping_add),
        (Atomic::Min, false) => values.min(),
        (Atomic::Max, false) => values.max(),
        (Atomic::Min, true) => values.min_by_key(|value| *value as i32),
        (Atomic::Max, true) => values.max_by_key(|value| *value as i32),
        (Atomic::And, _) => values.reduce(|a, b| a & b),
        (Atomic::Or, _) => values.reduce(|a, b| a | b),
        _ => values.reduce(|a, b| a ^ b),
    };
    result.unwrap_or(0)
}
