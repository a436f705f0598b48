//! How the work of one call is cut into tiles, stripes and panels, and which route a group takes: by the shape and the
//! number of temperatures alone, so that the bits of a group depend neither on B nor on threads nor on memory.

use super::gemm::DEPTH;
use super::isa::LANES;
use crate::DriftShape;

/// Up to this many coordinates squared distances are sums of squared differences; above, they come from products.
pub(super) const LOW_DIM: usize = 8;
/// A group of up to this many queries and distances is small: one task computes it, out of its core's cache.
const SMALL_ROWS: usize = 256;
const SMALL_TILE: usize = 1 << 17;
/// Distances per tile of a big group: 2 MiB of f32.
const TILE: usize = 1 << 19;
/// Rows per tile at most.
const MAX_ROWS: usize = 128;
/// Stripes of rows per group at most, and the most partial column sums [stripes, R, T] that they may make: 16 MiB.
pub(super) const MAX_STRIPES: usize = 16;
const STRIPE_SUMS: usize = 1 << 22;
/// A big group keeps its centred targets up to this many bytes.
const POINTS_BYTES: usize = 32 << 20;
/// Long products of a small group are cut along D into at most this many partial sums, which threads can share.
const MAX_CHUNKS: usize = 16;
const MIN_CHUNK: usize = 16 * DEPTH;

/// How one group is cut.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    /// T, padded to whole lane blocks: the length of a row of distances.
    pub(super) row: usize,
    /// Whether one task computes a group.
    pub(super) small: bool,
    /// Whether squared distances are sums of squared differences.
    pub(super) low_dim: bool,
    /// Whether force norms come from the Gram matrix of the targets, and not from the force of each temperature.
    pub(super) identity: bool,
    /// Rows of a tile.
    pub(super) rows: usize,
    /// Rows of a stripe, the unit of parallel work inside a group; a multiple of `rows`.
    pub(super) stripe_rows: usize,
    /// Coordinates that are summed apart.
    pub(super) chunk: usize,
    /// Whether a big group keeps its centred targets, packed, during a phase.
    pub(super) whole: bool,
}

impl Cut {
    pub(super) fn new(shape: &DriftShape, temperatures: usize) -> Self {
        let (g, t, d) = (shape.generated, shape.targets(), shape.dim);
        let row = t.next_multiple_of(LANES);
        let small = g <= SMALL_ROWS && g.saturating_mul(row) <= SMALL_TILE;
        let low_dim = d <= LOW_DIM;
        let rows = if small { g } else { (TILE / row).clamp(1, MAX_ROWS).min(g) };
        let stripes = (STRIPE_SUMS / temperatures.max(1).saturating_mul(row)).clamp(1, MAX_STRIPES);
        let stripe_rows = rows * g.div_ceil(rows).div_ceil(stripes);
        let chunk = d.div_ceil(MAX_CHUNKS).next_multiple_of(DEPTH).max(MIN_CHUNK);
        let whole = !small && !low_dim && t.checked_mul(d).is_some_and(|n| n <= POINTS_BYTES / size_of::<f32>());
        let identity = small && !low_dim && identity_pays(shape, temperatures);
        Self { row, small, low_dim, identity, rows, stripe_rows, chunk, whole }
    }
}

/// Whether |F_R|² = C_R (Y Y^T) C_R^T is cheaper than forming F_R = C_R Y for each temperature (spec 2.3).
///
/// Multiply-adds beyond the distances: the identity needs the products of targets with one another (half of them,
/// they are symmetric), one triangular product per temperature, and at the end one contraction of all temperatures
/// together; without it there is one contraction per temperature, and the forces are kept.
fn identity_pays(shape: &DriftShape, temperatures: usize) -> bool {
    let wide = |n: usize| n as u128;
    let [g, t, d, r] = [shape.generated, shape.targets(), shape.dim, temperatures].map(wide);
    let others = t - g;
    d * others * others / 2 + r * g * t * t / 2 + g * t * d < r * g * t * d
}
