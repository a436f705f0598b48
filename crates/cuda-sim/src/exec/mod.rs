//! The interpreter: warps of 32 lanes in lockstep, blocks of warps, grids of blocks.

mod access;
mod block;
mod collective;
pub(crate) mod mma;
pub(crate) mod regs;
mod shared;
mod warp;

pub(crate) use access::PARTS;
pub(crate) use block::{Block, Grid, Progress, Stop};

use crate::finding::Kind;

/// A defect, before kernel, block and line are added to it.
pub(crate) struct Fault {
    pub kind: Kind,
    /// The lane that met it.
    pub lane: usize,
    pub detail: String,
}

impl Fault {
    fn new(kind: Kind, lane: usize, detail: impl Into<String>) -> Self {
        Self { kind, lane, detail: detail.into() }
    }
}
