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
//! Work is cut into tiles of [rows, T] distances that stay in cache, by the shape alone; threads (rayon's current pool)
//! only decide who computes a tile. Every sum has a fixed order, so results have the same bits for any number of
//! threads and for any chunking over B. Distances are kept between the phases where they fit a fixed budget and
//! recomputed elsewhere, with the same bits; there is never a [B, G, T] array for a whole large batch.

mod ceilings;
mod coefficients;
mod cut;
mod distances;
mod drift;
mod field;
mod gemm;
mod group;
pub(crate) mod isa;
mod plan;
pub(crate) mod simd;
mod sums;
mod tile;

pub use ceilings::{Ceilings, ceilings};
pub use drift::{Drift, drift};
pub use field::field;
pub(crate) use gemm::{pack, pack_transposed, packed_len, product, transpose};
pub use plan::{Plan, Workspace};
pub use sums::{ForceNorms, ForceSums, ScaleSums};
pub(crate) use tile::sum;

/// The instruction set that the inner loops run on: `baseline`, `avx2` or `avx512`.
pub fn instruction_set() -> &'static str {
    isa::Isa::detect().name()
}
