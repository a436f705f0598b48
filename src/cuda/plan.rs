//! Shapes to bytes and blocks; pure, so that it is tested without anything of CUDA.

use crate::{DriftShape, DriftSpec, Dtype, Error, Result};

const OP: &str = "cuda plan";
/// Rows and columns of a block's tile, `kTile` of kernels/common.cuh.
const TILE: usize = 64;
/// Threads of a block, `kThreads`.
pub(super) const THREADS: usize = 256;
const WARP: usize = 32;
/// Where arrays begin in the workspace, bytes; what `cuMemAlloc` guarantees of its start.
const ALIGN: usize = 256;

/// A drift call on a device: what it computes, how much workspace it needs, in which launches it runs.
///
/// It owns nothing on the device and can be used from several threads and on several streams, each with a workspace of
/// its own.
///
/// Every shape takes the same plan so far, the plain one: distances [B, G, T] are stored in f32, coefficients are formed
/// from them wherever they are needed, and the force of each temperature is formed twice, once for its norm and once in
/// the sum over temperatures.
#[derive(Clone, Debug)]
pub struct Plan {
    spec: DriftSpec,
    shape: DriftShape,
    dtype: Dtype,
    pub(super) layout: Layout,
    pub(super) blocks: Blocks,
}

/// Offsets of the arrays in the workspace, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Layout {
    pub scalars: usize,
    pub distances: usize,
    pub row_least: usize,
    pub column_least: usize,
    pub row_log: usize,
    pub column_log: usize,
    pub mass: usize,
    pub distance_sums: usize,
    pub norm_sums: usize,
    pub loss_sums: usize,
    pub bytes: usize,
}

/// Blocks of each launch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Blocks {
    pub distances: u32,
    pub rows: u32,
    pub columns: u32,
    pub norms: u32,
    pub force: u32,
    pub losses: u32,
}

impl Plan {
    /// Plans a call of `spec` on samples of `shape` in `dtype`.
    ///
    /// # Errors
    /// What [`DriftSpec::validate`] and [`DriftShape::validate`] refuse; [`Error::TooLarge`] where an extent does not fit
    /// into 31 bits, or a launch would have more than 2^31 - 1 blocks.
    pub fn new(spec: &DriftSpec, shape: DriftShape, dtype: Dtype) -> Result<Self> {
        spec.validate()?;
        shape.validate()?;
        let DriftShape { groups, generated, dim, .. } = shape;
        let (targets, temperatures) = (shape.targets(), spec.temperatures.len());
        let too_large = |what| Error::TooLarge { op: OP, what, got: format!("{shape:?}") };
        if [groups, targets, dim].iter().any(|&extent| i32::try_from(extent).is_err()) {
            return Err(too_large("an extent"));
        }
        let product = |factors: &[usize]| factors.iter().try_fold(1usize, |n, &factor| n.checked_mul(factor));
        let blocks = |factors: &[usize]| {
            let count = product(factors).filter(|&count| i32::try_from(count).is_ok());
            count.map(|count| count as u32).ok_or_else(|| too_large("the grid of a launch"))
        };
        let tiles = |extent: usize| extent.div_ceil(TILE);
        let blocks = Blocks {
            distances: blocks(&[groups, tiles(generated), tiles(targets)])?,
            rows: blocks(&[groups.saturating_mul(generated).div_ceil(THREADS / WARP)])?,
            columns: blocks(&[groups, targets.div_ceil(WARP)])?,
            norms: blocks(&[temperatures, groups, tiles(generated), tiles(dim)])?,
            force: blocks(&[groups, tiles(generated), tiles(dim)])?,
            losses: blocks(&[groups.div_ceil(THREADS)])?,
        };
        let mut layout = Layout::default();
        let mut place = |elements: &[usize], size: usize| {
            let offset = layout.bytes;
            let bytes = product(elements).and_then(|count| count.checked_mul(size));
            let end = bytes.and_then(|bytes| offset.checked_add(bytes)?.checked_next_multiple_of(ALIGN));
            layout.bytes = end.filter(|&end| isize::try_from(end).is_ok()).ok_or_else(|| too_large("the workspace"))?;
            Ok::<_, Error>(offset)
        };
        let (float, double) = (size_of::<f32>(), size_of::<f64>());
        let placed = Layout {
            scalars: place(&[1], size_of::<super::params::DriftScalars>())?,
            distances: place(&[groups, generated, targets], float)?,
            row_least: place(&[groups, generated], float)?,
            column_least: place(&[groups, targets], float)?,
            row_log: place(&[groups, generated, temperatures], float)?,
            column_log: place(&[groups, targets, temperatures], float)?,
            mass: place(&[groups, generated, temperatures, 2], float)?,
            distance_sums: place(&[blocks.distances as usize, 3], double)?,
            norm_sums: place(&[blocks.norms as usize], double)?,
            loss_sums: place(&[blocks.force as usize], double)?,
            bytes: 0,
        };
        let layout = Layout { bytes: layout.bytes, ..placed };
        Ok(Self { spec: spec.clone(), shape, dtype, layout, blocks })
    }

    /// What is computed.
    pub fn spec(&self) -> &DriftSpec {
        &self.spec
    }

    /// The extents of the samples.
    pub fn shape(&self) -> DriftShape {
        self.shape
    }

    /// The type of the samples.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Bytes of device memory that a run needs beside its inputs and outputs; their content does not matter.
    pub fn workspace_bytes(&self) -> usize {
        self.layout.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(groups: usize, generated: usize, negatives: usize, positives: usize, dim: usize) -> DriftShape {
        DriftShape { groups, generated, negatives, positives, dim }
    }

    #[test]
    fn arrays_lie_apart_and_are_large_enough() {
        let plan = Plan::new(&DriftSpec::official(), shape(3, 65, 7, 60, 130), Dtype::F32).unwrap();
        let layout = plan.layout;
        let ends = [
            (layout.scalars, 160),
            (layout.distances, 3 * 65 * 132 * 4),
            (layout.row_least, 3 * 65 * 4),
            (layout.column_least, 3 * 132 * 4),
            (layout.row_log, 3 * 65 * 3 * 4),
            (layout.column_log, 3 * 132 * 3 * 4),
            (layout.mass, 3 * 65 * 3 * 2 * 4),
            (layout.distance_sums, 3 * 2 * 3 * 3 * 8),
            (layout.norm_sums, 3 * 3 * 2 * 3 * 8),
            (layout.loss_sums, 3 * 2 * 3 * 8),
        ];
        for (k, (offset, bytes)) in ends.into_iter().enumerate() {
            let next = ends.get(k + 1).map_or(layout.bytes, |next| next.0);
            assert!(offset % ALIGN == 0 && offset + bytes <= next && next < offset + bytes + ALIGN, "array {k}");
        }
    }

    #[test]
    fn sizes_beyond_an_index_are_refused() {
        let plan = |shape| Plan::new(&DriftSpec::official(), shape, Dtype::F16);
        // More than 2^31 pairs, fewer than 2^31 blocks.
        assert!(plan(shape(1, 60_000, 0, 60_000, 8)).unwrap().workspace_bytes() > 1 << 34);
        assert!(plan(shape(131_072, 64, 32, 64, 6)).is_ok());
        assert!(matches!(plan(shape(1 << 31, 1, 0, 1, 1)), Err(Error::TooLarge { .. })));
        assert!(matches!(plan(shape(1, 1, 0, 1 << 31, 1)), Err(Error::TooLarge { .. })));
        assert!(matches!(plan(shape(1 << 30, 64, 0, 64, 128)), Err(Error::TooLarge { .. })));
        assert!(plan(shape(0, 4, 0, 4, 2)).unwrap().blocks.force == 0);
    }
}
