//! The sliced Wasserstein field: its points and directions, and the validation that backends share.

use crate::rng::{Purpose, Stream};
use crate::{Error, Result};

const OP: &str = "sliced field";

/// What a sliced Wasserstein field is computed of: queries x [n, D], references p [m, D], and directions [L, D] of unit
/// length.
///
/// Along each direction x is moved to where its rank is among p; the mean over the directions, times D, is the velocity
///
/// ```text
/// V(x_i) = (D / L) sum_l (F_l^-1((rank_l(x_i) - 1/2) / n) - theta_l . x_i) theta_l
/// ```
///
/// with F_l^-1 the quantiles of `theta_l . p`, linear between its points at (j - 1/2) / m and constant beyond the first and
/// the last (spec 8.9). Equal numbers pair off in order. The factor D is this project's choice: in the mean over all
/// directions a set that is another's shifted copy then has the shift for its velocity.
#[derive(Clone, Copy, Debug)]
pub struct SlicedInputs<'a, T> {
    pub(crate) x: &'a [T],
    pub(crate) p: &'a [T],
    pub(crate) directions: &'a [f32],
    pub(crate) dim: usize,
}

impl<'a, T: Copy> SlicedInputs<'a, T> {
    /// Queries, references and directions as arrays of shape [n, D], [m, D] and [L, D].
    ///
    /// # Errors
    /// [`Error::Shape`] where the arrays do not have these shapes; [`Error::Value`] where D, m or L is 0.
    pub fn new(
        x: (&'a [T], [usize; 2]),
        p: (&'a [T], [usize; 2]),
        directions: (&'a [f32], [usize; 2]),
    ) -> Result<Self> {
        let dim = x.1[1];
        let sets = [("x", x.0.len(), x.1), ("p", p.0.len(), p.1), ("directions", directions.0.len(), directions.1)];
        for (argument, len, shape) in sets {
            if shape[0].checked_mul(shape[1]) != Some(len) {
                return Err(Error::shape(OP, argument, shape, [len]));
            }
            if shape[1] != dim {
                return Err(Error::shape(OP, argument, [shape[0], dim], shape));
            }
            if dim == 0 || (shape[0] == 0 && argument != "x") {
                let expected = "at least one of them, and one coordinate";
                return Err(Error::value(OP, argument, expected, format!("{shape:?}")));
            }
        }
        Ok(Self { x: x.0, p: p.0, directions: directions.0, dim })
    }

    /// [n, m, L, D].
    pub fn shape(&self) -> [usize; 4] {
        [self.x.len() / self.dim, self.p.len() / self.dim, self.directions.len() / self.dim, self.dim]
    }
}

/// `count` directions uniform on the sphere, [count, dim], those of the step `step` of a seed.
///
/// # Errors
/// [`Error::Value`] where `count` or `dim` is 0; [`Error::TooLarge`] where they do not fit into memory.
pub fn directions(count: usize, dim: usize, seed: u64, step: u64) -> Result<Vec<f32>> {
    if count == 0 || dim == 0 {
        return Err(Error::value(OP, "directions", "at least one, of one coordinate", format!("[{count}, {dim}]")));
    }
    let len = count.checked_mul(dim);
    Error::check_memory(OP, "the directions", len.and_then(|len| len.checked_mul(size_of::<f32>())))?;
    let mut directions = Stream::new(seed, Purpose::Directions, step).normals(count * dim);
    for direction in directions.chunks_exact_mut(dim) {
        let norm = direction.iter().map(|v| v * v).sum::<f32>().sqrt();
        direction.iter_mut().for_each(|v| *v /= norm);
    }
    Ok(directions)
}

/// Between which of m sorted references, counted from 0, rank `rank` of n lies, and by which share it is nearer to the
/// second.
pub(crate) fn quantile(rank: usize, n: usize, m: usize) -> (usize, usize, f64) {
    // (rank + 1/2) m / n - 1/2 in halves of 1 / n.
    let (place, unit) = (((2 * rank + 1) * m) as i128 - n as i128, 2 * n as i128);
    let last = m as i128 - 1;
    let below = place.div_euclid(unit);
    if below < 0 || below >= last {
        let end = if below < 0 { 0 } else { m - 1 };
        return (end, end, 0.0);
    }
    let share = place.rem_euclid(unit);
    // Without a share in it, the second must not matter, a NaN or not.
    let above = if share == 0 { below } else { below + 1 };
    (below as usize, above as usize, share as f64 / unit as f64)
}
