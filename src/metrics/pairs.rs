//! Squared distances between all points of two sets, block by block.

use crate::cpu::isa::{Isa, per_isa};
use crate::{Error, Result};

/// Points whose distances to one other are computed side by side; their sums stay in registers.
const COLUMNS: usize = 32;

/// Points that one task takes, and that a panel is read for.
pub(super) const ROWS: usize = 64;

/// A set of points, in panels of [`COLUMNS`], each [D, COLUMNS] in f64.
pub(super) struct Panels {
    isa: Isa,
    n: usize,
    dim: usize,
    values: Vec<[f64; COLUMNS]>,
}

impl Panels {
    /// The points of `set` [n, D].
    pub(super) fn new(op: &'static str, set: &[f32], dim: usize) -> Result<Self> {
        let n = set.len() / dim;
        let rows = n.div_ceil(COLUMNS) * dim;
        Error::check_memory(op, "a set of points in f64", rows.checked_mul(size_of::<[f64; COLUMNS]>()))?;
        let mut values = vec![[0.0; COLUMNS]; rows];
        for (panel, points) in values.chunks_exact_mut(dim).zip(set.chunks(COLUMNS * dim)) {
            for (column, point) in points.chunks_exact(dim).enumerate() {
                for (row, v) in panel.iter_mut().zip(point) {
                    row[column] = f64::from(*v);
                }
            }
        }
        Ok(Self { isa: Isa::detect(), n, dim, values })
    }

    /// Calls `visit(i, j, d)` with the squared distances `d` of point i of `rows` to the points j, j + 1, … of this
    /// set: all of them for every i, those of one i in the order of j.
    pub(super) fn each(&self, rows: &[f32], mut visit: impl FnMut(usize, usize, &[f64])) {
        let mut distances = [0.0; COLUMNS];
        for (j, panel) in (0..self.n).step_by(COLUMNS).zip(self.values.chunks_exact(self.dim)) {
            let count = COLUMNS.min(self.n - j);
            for (i, x) in rows.chunks_exact(self.dim).enumerate() {
                squared_distances(self.isa, x, panel, &mut distances);
                visit(i, j, &distances[..count]);
            }
        }
    }
}

per_isa! {
    /// `sum_k (x_k - y_k)^2` for each y of a panel, in the order of k. No multiplication is fused with an addition, so
    /// that the bits are those of the plain sum on every instruction set.
    fn squared_distances(x: &[f32], panel: &[[f64; COLUMNS]], out: &mut [f64; COLUMNS]) {
        let mut sums = [0.0; COLUMNS];
        for (x, row) in x.iter().zip(panel) {
            let x = f64::from(*x);
            for (sum, y) in sums.iter_mut().zip(row) {
                let gap = x - y;
                *sum += gap * gap;
            }
        }
        *out = sums;
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::rng::{Purpose, Stream};

    /// A random set [n, D].
    pub(in super::super) fn random(n: usize, dim: usize, seed: u64) -> Vec<f32> {
        Stream::new(seed, Purpose::Data, 0).normals(n * dim)
    }

    /// The squared distance of point i of one set to point j of another.
    pub(in super::super) fn squared(a: &[f32], i: usize, b: &[f32], j: usize, dim: usize) -> f64 {
        let gaps = a[i * dim..][..dim].iter().zip(&b[j * dim..][..dim]).map(|(x, y)| f64::from(*x) - f64::from(*y));
        gaps.fold(0.0, |sum, gap| sum + gap * gap)
    }

    #[test]
    fn panels_have_the_bits_of_the_plain_sum_on_every_instruction_set() {
        for (n, m, dim) in [(1, 1, 1), (3, 31, 2), (2, 32, 7), (65, 33, 5), (4, 100, 131)] {
            let (a, b) = (random(n, dim, 1), random(m, dim, 2));
            for isa in Isa::available() {
                let panels = Panels { isa, ..Panels::new("test", &b, dim).unwrap() };
                let mut seen = vec![0; n];
                panels.each(&a, |i, j, distances| {
                    assert_eq!(seen[i], j);
                    seen[i] += distances.len();
                    for (j, d) in (j..).zip(distances) {
                        assert_eq!(*d, squared(&a, i, &b, j, dim), "{n} {m} {dim}: {i} {j}");
                    }
                });
                assert_eq!(seen, vec![m; n]);
            }
        }
    }
}
