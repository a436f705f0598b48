//! Attraction by landmarks in the place of all data (spec 8.11).

use crate::reference::log_kernel;
use crate::rng::{Purpose, Stream};
use crate::{Error, FieldSpec, Result};
use rayon::prelude::*;

const OP: &str = "projection";

/// What is cached of all data for DriftXpress's attraction: with landmarks U [M, D], their kernel matrix W and data Y
/// [N, D], the Nyström estimate of the barycentre of the data as x sees it is
///
/// ```text
/// b(x) = k(x, U) C_y / max(k(x, U) C_1, 1e-8),   [C_y | C_1] = (W + ridge)^-1 K(U, Y) [Y | 1]
/// ```
///
/// which is the source's `phi(x) Q / max(phi(x) z, 1e-8)` with `phi(x) = k(x, U) (W + ridge)^(-1/2)`, folded. A query costs
/// M kernels in the place of N. Where every datum is a landmark and the ridge tends to 0 it is the exact barycentre.
///
/// Everything here is found once, in f64.
#[derive(Clone, Debug, PartialEq)]
pub struct Projection {
    spec: FieldSpec,
    dim: usize,
    landmarks: Vec<f32>,
    /// C [M, D + 1] of data relative to their mean, whose products lose fewer digits.
    folded: Vec<f64>,
    mean: Vec<f64>,
}

impl Projection {
    /// What the source adds to the diagonal of W.
    pub const RIDGE: f64 = 1e-4;
    /// What the denominator is at least.
    pub(crate) const FLOOR: f64 = 1e-8;

    /// Folds data [N, D] onto landmarks [M, D]. `spec` is the kernel of attraction and repulsion both, and its self mask
    /// that of the repulsion.
    ///
    /// # Errors
    /// [`Error::Shape`] where an array has not its shape or the coordinates are not as many; [`Error::Value`] where there
    /// is no datum, landmark or coordinate, one is not finite, the bandwidth is outside its range, the ridge is negative
    /// or not finite, or so small that the landmarks' matrix cannot be inverted; [`Error::TooLarge`] where that does not
    /// fit into memory.
    pub fn new(
        spec: &FieldSpec,
        landmarks: (&[f32], [usize; 2]),
        data: (&[f32], [usize; 2]),
        ridge: f64,
    ) -> Result<Self> {
        spec.validate()?;
        if !(ridge >= 0.0 && ridge.is_finite()) {
            return Err(Error::value(OP, "ridge", "a finite number >= 0", ridge));
        }
        let [count, dim] = landmarks.1;
        for (argument, (values, shape)) in [("landmarks", landmarks), ("data", data)] {
            if shape[0].checked_mul(shape[1]) != Some(values.len()) {
                return Err(Error::shape(OP, argument, shape, [values.len()]));
            }
            if shape[1] != dim {
                return Err(Error::shape(OP, argument, [shape[0], dim], shape));
            }
            if values.is_empty() {
                return Err(Error::value(OP, argument, "at least one point and one coordinate", format!("{shape:?}")));
            }
            Error::check_finite(OP, argument, values)?;
        }
        let numbers = || count.checked_mul(count)?.checked_add(count.checked_mul(dim + 1)?)?.checked_mul(2);
        let bytes = || numbers()?.checked_add(data.0.len())?.checked_mul(size_of::<f64>());
        Error::check_memory(OP, "the landmarks' matrix", bytes())?;

        let n = data.1[0] as f64;
        let mean: Vec<f64> =
            (0..dim).map(|k| data.0.iter().skip(k).step_by(dim).map(|v| f64::from(*v)).sum::<f64>() / n).collect();
        // Relative to it, which no distance notices.
        let centred = |values: &[f32]| -> Vec<f64> {
            values.chunks(dim).flat_map(|point| point.iter().zip(&mean).map(|(v, m)| f64::from(*v) - m)).collect()
        };
        let (u, y) = (centred(landmarks.0), centred(data.0));
        let kernel =
            |a: &[f64], b: &[f64]| log_kernel(spec.kernel, squared_distance(a, b).sqrt(), spec.bandwidth).exp();
        let mut matrix = vec![0.0; count * count];
        matrix.par_chunks_mut(count).zip(u.par_chunks(dim)).enumerate().for_each(|(i, (row, a))| {
            // The lower half is all that the factor reads.
            row[..=i].iter_mut().zip(u.chunks(dim)).for_each(|(w, b)| *w = kernel(a, b));
            row[i] += ridge;
        });
        let mut folded = vec![0.0; count * (dim + 1)];
        folded.par_chunks_mut(dim + 1).zip(u.par_chunks(dim)).for_each(|(row, u)| {
            for y in y.chunks(dim) {
                let k = kernel(u, y);
                row[..dim].iter_mut().zip(y).for_each(|(sum, y)| *sum += k * y);
                row[dim] += k;
            }
        });
        factor(&mut matrix, count)?;
        solve(&matrix, count, &mut folded, dim + 1);
        Ok(Self { spec: *spec, dim, landmarks: landmarks.0.to_vec(), folded, mean })
    }

    /// As [`Projection::new`] with `count` of the data for landmarks, chosen by the seed, each once, and the source's ridge.
    ///
    /// # Errors
    /// As [`Projection::new`]; [`Error::Value`] where there are fewer data.
    pub fn among(spec: &FieldSpec, data: (&[f32], [usize; 2]), count: usize, seed: u64) -> Result<Self> {
        let [n, dim] = data.1;
        // What cannot be is refused there.
        if n.checked_mul(dim) != Some(data.0.len()) || data.0.is_empty() {
            return Self::new(spec, data, data, Self::RIDGE);
        }
        if count > n {
            return Err(Error::value(OP, "landmarks", format!("at most the {n} data"), count));
        }
        // The first places of a shuffle.
        let mut stream = Stream::new(seed, Purpose::Landmarks, 0);
        let mut order: Vec<usize> = (0..n).collect();
        for at in 0..count {
            order.swap(at, at + stream.index(n - at));
        }
        let landmarks: Vec<f32> = order[..count].iter().flat_map(|at| &data.0[at * dim..][..dim]).copied().collect();
        Self::new(spec, (&landmarks, [count, dim]), data, Self::RIDGE)
    }

    /// The kernel, its bandwidth, and the self mask of the repulsion.
    pub fn spec(&self) -> &FieldSpec {
        &self.spec
    }

    /// D.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// The landmarks [M, D].
    pub fn landmarks(&self) -> &[f32] {
        &self.landmarks
    }

    /// C [M, D + 1], of data relative to [`Projection::mean`].
    pub fn folded(&self) -> &[f64] {
        &self.folded
    }

    /// The mean of the data, `[D]`.
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// The barycentre from sums over the landmarks, `k(x, U) C`, [D + 1].
    pub(crate) fn barycentre<'a>(&'a self, sums: &'a [f64]) -> impl Iterator<Item = f64> + 'a {
        let mass = sums[self.dim];
        // A NaN stays.
        let least = if mass < Self::FLOOR { Self::FLOOR } else { mass };
        sums.iter().zip(&self.mean).map(move |(sum, mean)| (sum + mean * mass) / least)
    }
}

/// The squared distance, in eight sums that can be formed together.
fn squared_distance(a: &[f64], b: &[f64]) -> f64 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut sums = [0.0; 8];
    for (a, b) in a.iter().zip(b) {
        for k in 0..8 {
            sums[k] += (a[k] - b[k]) * (a[k] - b[k]);
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| (a - b) * (a - b)).sum();
    sums.iter().sum::<f64>() + rest
}

/// The lower Cholesky factor of a positive definite matrix [n, n], in its lower half.
fn factor(matrix: &mut [f64], n: usize) -> Result<()> {
    let dot = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
    for i in 0..n {
        let (above, rest) = matrix.split_at_mut(i * n);
        let row = &mut rest[..n];
        for (j, other) in above.chunks(n).enumerate() {
            row[j] = (row[j] - dot(&row[..j], &other[..j])) / other[j];
        }
        let left = row[i] - dot(&row[..i], &row[..i]);
        if !(left > 0.0) {
            let expected = "so large that the landmarks' kernel matrix can be inverted";
            return Err(Error::value(OP, "ridge", expected, format!("too small at landmark {i}")));
        }
        row[i] = left.sqrt();
    }
    Ok(())
}

/// Solves for `columns` right sides at once, [n, columns], given the factor.
fn solve(factor: &[f64], n: usize, sides: &mut [f64], columns: usize) {
    let subtract = |to: &mut [f64], from: &[f64], by: f64| to.iter_mut().zip(from).for_each(|(to, v)| *to -= by * v);
    for i in 0..n {
        let (above, rest) = sides.split_at_mut(i * columns);
        let row = &mut rest[..columns];
        for (j, other) in above.chunks(columns).enumerate() {
            subtract(row, other, factor[i * n + j]);
        }
        row.iter_mut().for_each(|v| *v /= factor[i * n + i]);
    }
    for i in (0..n).rev() {
        let (above, below) = sides.split_at_mut((i + 1) * columns);
        let row = &mut above[i * columns..];
        for (j, other) in below.chunks(columns).enumerate() {
            subtract(row, other, factor[(i + 1 + j) * n + i]);
        }
        row.iter_mut().for_each(|v| *v /= factor[i * n + i]);
    }
}
