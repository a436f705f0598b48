//! How the work of one call is cut into tiles, stripes and panels: by the shape alone.

use super::isa::LANES;
use crate::DriftShape;

/// Up to this many coordinates squared distances are sums of squared differences; above, they come from products.
pub(super) const LOW_DIM: usize = 8;
/// Distances per tile: 2 MiB of f32.
pub(super) const TILE: usize = 1 << 19;
/// Rows per tile at most.
pub(super) const MAX_ROWS: usize = 128;
/// Stripes of rows per group at most: the partial column sums of a group are [stripes, R, T].
pub(super) const MAX_STRIPES: usize = 16;
/// Coordinates of all targets of a group that are widened and centred at a time: 1 MiB of f32.
pub(super) const PANEL: usize = 1 << 18;
/// A group of several tiles keeps its centred targets, or its force at a single temperature, up to this many bytes.
pub(super) const GROUP_BYTES: usize = 32 << 20;
/// How one group is cut. It depends on G, T and D alone, so that the bits of a group do not depend on B.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    /// T, padded to whole lane blocks: the row length of a tile.
    pub(super) row: usize,
    /// Rows of a tile.
    pub(super) rows: usize,
    /// Rows of a stripe, the unit of parallel work inside a group; a multiple of `rows`.
    pub(super) stripe_rows: usize,
    /// Whether squared distances are sums of squared differences.
    pub(super) low_dim: bool,
    /// Coordinates per panel.
    pub(super) panel: usize,
    /// Whether the group keeps its centred targets, so that a panel is all coordinates and nothing is widened twice.
    pub(super) whole: bool,
}

impl Cut {
    pub(super) fn new(shape: &DriftShape) -> Self {
        let (g, t) = (shape.generated, shape.targets());
        let row = t.next_multiple_of(LANES);
        let rows = (TILE / row).clamp(1, MAX_ROWS).min(g);
        let tiles_per_stripe = g.div_ceil(rows).div_ceil(MAX_STRIPES);
        let low_dim = shape.dim <= LOW_DIM;
        let whole = !low_dim && rows < g && fits(t, shape.dim);
        let panel = if whole { shape.dim } else { (PANEL / t).clamp(16, 4096).min(shape.dim) };
        Self { row, rows, stripe_rows: rows * tiles_per_stripe, low_dim, panel, whole }
    }
}

/// Whether an array [rows, columns] of f32 is one that a group may keep.
pub(super) fn fits(rows: usize, columns: usize) -> bool {
    rows.checked_mul(columns).is_some_and(|len| len <= GROUP_BYTES / size_of::<f32>())
}
