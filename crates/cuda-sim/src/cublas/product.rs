//! The product of two matrices on the host, in f64.
//!
//! Every type of cuBLAS widens to f64 without loss, and the product of two f32 is exact there; so one product serves
//! all, and its only roundings are those of f64 sums. Each element is summed over k in one fixed order, in blocks of
//! [`DEPTH`]: neither the number of threads nor the other rows and columns change its bits.
//!
//! The shape of the loops is the usual one (Goto and van de Geijn, Anatomy of High-Performance Matrix Multiplication):
//! panels of both factors are packed so that the innermost loop reads them in order, and a tile of the result stays in
//! registers. Products and sums are kept apart (no fused multiply-add), so that the bits do not depend on the
//! processor either.

use std::num::NonZero;
use std::thread;

/// Rows of the tile that stays in registers.
const ROWS: usize = 8;
/// Columns of that tile: with 4 lanes a register, 8 sums in flight, two factors and a spare fit the 16 registers.
const COLS: usize = 4;
/// Block of k: two packed panels of this depth stay in the first-level cache.
const DEPTH: usize = 256;
/// Rows of the left factor that are packed at once; they stay in the second-level cache.
const HEIGHT: usize = 96;
/// Multiplications below which threads cost more than they bring.
const THREADED: usize = 1 << 22;

/// A matrix on the host; element (i, j) lies at `i * row_stride + j * col_stride`.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    data: &'a [f64],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> View<'a> {
    /// A dense column-major matrix.
    ///
    /// # Panics
    /// Where `data` does not hold `rows * cols` elements.
    pub(super) fn new(data: &'a [f64], rows: usize, cols: usize) -> Self {
        assert_eq!(data.len(), rows * cols);
        Self { data, rows, cols, row_stride: 1, col_stride: rows }
    }

    /// The transpose, of the same elements.
    pub(super) fn transposed(self) -> Self {
        Self { rows: self.cols, cols: self.rows, row_stride: self.col_stride, col_stride: self.row_stride, ..self }
    }

    /// Element (i, j).
    pub(super) fn at(&self, i: usize, j: usize) -> f64 {
        self.data[i * self.row_stride + j * self.col_stride]
    }
}

/// The product of `a` and `b`, dense and column-major.
///
/// # Panics
/// Where `b` does not have as many rows as `a` has columns.
pub(super) fn product(a: View<'_>, b: View<'_>) -> Vec<f64> {
    assert_eq!(a.cols, b.rows);
    let mut c = vec![0.0; a.rows * b.cols];
    if c.is_empty() || a.cols == 0 {
        return c;
    }
    let threads =
        if a.rows * b.cols * a.cols < THREADED { 1 } else { thread::available_parallelism().map_or(1, NonZero::get) };
    let width = b.cols.div_ceil(threads).next_multiple_of(COLS);
    if width >= b.cols {
        columns(a, b, 0, &mut c);
        return c;
    }
    thread::scope(|scope| {
        for (index, c) in c.chunks_mut(width * a.rows).enumerate() {
            scope.spawn(move || columns(a, b, index * width, c));
        }
    });
    c
}

/// Adds to `c` the columns of the product from `first` on.
fn columns(a: View<'_>, b: View<'_>, first: usize, c: &mut [f64]) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { columns_avx2(a, b, first, c) };
    }
    blocks(a, b, first, c);
}

/// [`blocks`], compiled for registers of four lanes.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn columns_avx2(a: View<'_>, b: View<'_>, first: usize, c: &mut [f64]) {
    blocks(a, b, first, c);
}

#[inline(always)]
fn blocks(a: View<'_>, b: View<'_>, first: usize, c: &mut [f64]) {
    let cols = c.len() / a.rows;
    let (mut left, mut right) = (Vec::new(), Vec::new());
    for k in (0..a.cols).step_by(DEPTH) {
        let depth = DEPTH.min(a.cols - k);
        // The right factor is packed like the left one of the transposed product.
        pack::<COLS>(b.transposed(), first, cols, k, depth, &mut right);
        for i in (0..a.rows).step_by(HEIGHT) {
            let height = HEIGHT.min(a.rows - i);
            pack::<ROWS>(a, i, height, k, depth, &mut left);
            for (q, right) in right.chunks_exact(depth).enumerate() {
                for (p, left) in left.chunks_exact(depth).enumerate() {
                    let sums = tile(left, right);
                    let rows = ROWS.min(height - p * ROWS);
                    for (j, sums) in sums.iter().enumerate().take(COLS.min(cols - q * COLS)) {
                        let at = (q * COLS + j) * a.rows + i + p * ROWS;
                        for (c, sum) in c[at..at + rows].iter_mut().zip(sums) {
                            *c += sum;
                        }
                    }
                }
            }
        }
    }
}

/// Packs `rows` rows from row `i` and `depth` columns from column `k` into panels of `R` rows, column after column;
/// what the last panel lacks is zero.
#[inline(always)]
fn pack<const R: usize>(from: View<'_>, i: usize, rows: usize, k: usize, depth: usize, to: &mut Vec<[f64; R]>) {
    to.clear();
    to.resize(rows.div_ceil(R) * depth, [0.0; R]);
    for (p, panel) in to.chunks_exact_mut(depth).enumerate() {
        let (i, rows) = (i + p * R, R.min(rows - p * R));
        if from.row_stride == 1 && rows == R {
            for (k, to) in (k..).zip(panel) {
                to.copy_from_slice(&from.data[i + k * from.col_stride..][..R]);
            }
            continue;
        }
        for r in 0..rows {
            for (k, to) in (k..).zip(&mut *panel) {
                to[r] = from.at(i + r, k);
            }
        }
    }
}

/// The product of two packed panels.
#[inline(always)]
fn tile(left: &[[f64; ROWS]], right: &[[f64; COLS]]) -> [[f64; ROWS]; COLS] {
    let mut sums = [[0.0; ROWS]; COLS];
    for (left, right) in left.iter().zip(right) {
        for j in 0..COLS {
            for i in 0..ROWS {
                sums[j][i] += left[i] * right[j];
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers in [-1, 1) without a pattern that a misplaced index would keep.
    fn numbers(count: usize, seed: u64) -> Vec<f64> {
        let mut state = seed;
        let step = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
        };
        (0..count).map(step).collect()
    }

    fn check(m: usize, n: usize, k: usize) {
        let (a, b) = (numbers(m * k, 1), numbers(k * n, 2));
        for (transposed_a, transposed_b) in [(false, false), (true, false), (false, true), (true, true)] {
            let left = if transposed_a { View::new(&a, k, m).transposed() } else { View::new(&a, m, k) };
            let right = if transposed_b { View::new(&b, n, k).transposed() } else { View::new(&b, k, n) };
            let c = product(left, right);
            assert_eq!(c.len(), m * n);
            for j in 0..n {
                for i in 0..m {
                    let want: f64 = (0..k).map(|l| left.at(i, l) * right.at(l, j)).sum();
                    let got = c[i + j * m];
                    assert!((got - want).abs() <= 1e-15 * (k as f64 + 1.0), "({i}, {j}) of {m}x{n}x{k}: {got} {want}");
                }
            }
        }
    }

    #[test]
    fn agrees_with_the_sum_at_every_edge_of_the_blocks() {
        for m in [1, ROWS - 1, ROWS, ROWS + 1, HEIGHT + 1] {
            for n in [1, COLS - 1, COLS, COLS + 1] {
                for k in [1, 5, DEPTH - 1, DEPTH, DEPTH + 1] {
                    check(m, n, k);
                }
            }
        }
        check(199, 211, 223);
    }

    #[test]
    fn an_empty_sum_is_zero() {
        assert_eq!(product(View::new(&[], 2, 0), View::new(&[], 0, 3)), [0.0; 6]);
        assert!(product(View::new(&[], 0, 4), View::new(&[0.0; 8], 4, 2)).is_empty());
    }

    #[test]
    fn the_bits_do_not_depend_on_threads_or_neighbours() {
        let (m, n, k) = (173, 307, 300);
        assert!(m * n * k >= THREADED);
        let (a, b) = (numbers(m * k, 3), numbers(k * n, 4));
        let whole = product(View::new(&a, m, k), View::new(&b, k, n));
        for j in [0, 1, 153, 154, 306] {
            let column = product(View::new(&a, m, k), View::new(&b[j * k..][..k], k, 1));
            assert_eq!(column, whole[j * m..][..m], "column {j}");
        }
    }

    #[test]
    fn special_values_stay_in_their_row_and_column() {
        let (m, n, k) = (9, 5, 3);
        let (mut a, b) = (numbers(m * k, 5), numbers(k * n, 6));
        a[4] = f64::NAN;
        let c = product(View::new(&a, m, k), View::new(&b, k, n));
        for (at, c) in c.iter().enumerate() {
            assert_eq!(c.is_nan(), at % m == 4);
        }
    }
}
