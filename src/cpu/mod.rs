//! The CPU backend: the results of [`reference`](crate::reference) from f32, f16 or bf16 inputs, multi-threaded.
//!
//! [`drift()`] is one call. A [`Plan`] exposes its three phases, so that several workers, or one worker in chunks over
//! B, share one global scale and one force norm per temperature:
//!
//! ```text
//! A  distances      -> ScaleSums   -> merge in group order -> finish -> Scale
//! B  coefficients   -> ForceSums   -> merge in group order -> finish -> ForceNorms
//! C  contraction    -> force and loss
//! ```
//!
//! # Routes
//! `cut.rs` chooses by the shape and the number of temperatures alone; nothing else may decide, because the bits follow.
//! - *Small groups* (up to 256 x 512 distances): one task a group, out of its core's cache. Distances come from one
//!   symmetric product of the centred targets. Where D is large enough the force norms follow from the same Gram matrix
//!   by the zero-sum identity (spec 2.3), and one contraction serves all temperatures; where so much cancels that the
//!   identity would lose digits, and where D is small, each temperature's force is formed.
//! - *Big groups*: tiles of [rows, T] distances, stripes of tiles in parallel; each temperature's force is formed once,
//!   and takes the place of the distances that it came from until the norms are known.
//! - *Low dimension* (D <= 8): distances are sums of squared differences, made in every pass again and never kept;
//!   forces are accumulated beside the affinities.
//!
//! # Exponentials
//! Kernels are taken relative to the nearest target of the row and of the column, `e_ij = k_ij e^{(psi(m_i) +
//! psi(m_j)) / 2}`. The affinity is e_ij times a factor of the row and one of the column; where the minima of a group
//! are near enough to one another the same e_ij serves both sums, and where a temperature is a half, a third or a
//! quarter of the highest one its e_ij is a power of that one's.
//!
//! # Determinism
//! Threads (rayon's current pool) only decide who computes a tile. Every sum has a fixed order, so results have the same
//! bits for any number of threads, any chunking over B, and whatever is kept between the phases ([`Plan::keep`]). They
//! depend on the instruction set ([`instruction_set`]).

mod ceilings;
mod coefficients;
mod coupled;
mod cut;
mod distances;
mod drift;
mod field;
mod gemm;
mod group;
mod host;
pub(crate) mod isa;
mod low_dim;
mod plan;
mod projected;
pub(crate) mod simd;
mod sliced;
mod sums;
mod tile;

pub use crate::Drift;
pub use ceilings::{Ceilings, ceilings};
pub use drift::drift;
pub use field::field;
pub use host::{Host, HostData, HostDrift};
pub use plan::{Plan, Workspace};
pub use projected::projected;
pub use sliced::sliced;
pub use sums::{ForceNorms, ForceSums, ScaleSums};

/// The instruction set that the inner loops run on: `baseline` (what the target guarantees; on AArch64 with its fused
/// multiply-add), `avx2` or `avx512`. The environment variable `CUDRIFT_ISA` forces one that the machine has.
pub fn instruction_set() -> &'static str {
    isa::Isa::detect().name()
}
