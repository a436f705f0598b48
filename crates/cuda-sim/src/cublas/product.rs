//! The product of two matrices on the host, in f64.
//!
//! Every type of cuBLAS widens to f64 without loss, and the product of two f32 is exact there; so one product serves
//! all, and its only roundings are those of f64 sums. Each element is summed in the order of k: neither the number of
//! threads nor the other rows and columns change its bits. Products and sums are kept apart (no fused multiply-add), so
//! that the processor does not change them either.
//!
//! A block of the left factor is packed so that it stays in the cache while all columns of the right factor pass by. The
//! innermost loop runs down a packed column, which the compiler vectorises at any level of optimisation: 15 to 25
//! GFLOP/s on one core, where tiles of the result kept in registers give 50 optimised to the full and 7 in the profile
//! that tests use.

use std::borrow::Cow;
use std::num::NonZero;
use std::thread;

/// Rows of a block of the left factor.
const ROWS: usize = 64;
/// Columns of a block, which takes 64 KiB of the second-level cache.
const DEPTH: usize = 128;
/// Columns that are added to the sums in one pass over them.
const STEP: usize = 8;
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

    /// The elements, column after column.
    fn dense(&self) -> Cow<'a, [f64]> {
        if self.row_stride == 1 && self.col_stride == self.rows {
            return Cow::Borrowed(self.data);
        }
        (0..self.cols).flat_map(|j| (0..self.rows).map(move |i| self.at(i, j))).collect()
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
    let b = b.dense();
    let threads = if c.len() * a.cols < THREADED { 1 } else { thread::available_parallelism().map_or(1, NonZero::get) };
    if threads == 1 {
        columns(a, &b, &mut c);
        return c;
    }
    let width = (c.len() / a.rows).div_ceil(threads);
    thread::scope(|scope| {
        for (b, c) in b.chunks(width * a.cols).zip(c.chunks_mut(width * a.rows)) {
            scope.spawn(move || columns(a, b, c));
        }
    });
    c
}

/// Adds to the columns of `c` the products of `a` and the columns of `b`.
fn columns(a: View<'_>, b: &[f64], c: &mut [f64]) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { columns_avx2(a, b, c) };
    }
    blocks(a, b, c);
}

/// [`blocks`], compiled for registers of four lanes.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn columns_avx2(a: View<'_>, b: &[f64], c: &mut [f64]) {
    blocks(a, b, c);
}

#[inline(always)]
fn blocks(a: View<'_>, b: &[f64], c: &mut [f64]) {
    let mut block = Vec::new();
    for i in (0..a.rows).step_by(ROWS) {
        let rows = ROWS.min(a.rows - i);
        for k in (0..a.cols).step_by(DEPTH) {
            let depth = DEPTH.min(a.cols - k);
            block.clear();
            block.resize(depth.div_ceil(STEP), [[0.0; ROWS]; STEP]);
            pack(a, i, rows, k, &mut block.as_flattened_mut()[..depth]);
            for (b, c) in b.chunks_exact(a.cols).zip(c.chunks_exact_mut(a.rows)) {
                let mut sums = [0.0; ROWS];
                sums[..rows].copy_from_slice(&c[i..][..rows]);
                for (a, b) in block.iter().zip(b[k..][..depth].chunks(STEP)) {
                    let mut factors = [0.0; STEP];
                    factors[..b.len()].copy_from_slice(b);
                    add(&mut sums, a, &factors);
                }
                c[i..][..rows].copy_from_slice(&sums[..rows]);
            }
        }
    }
}

/// Copies columns from column `k` on, `rows` rows of each from row `i` on.
#[inline(always)]
fn pack(from: View<'_>, i: usize, rows: usize, k: usize, to: &mut [[f64; ROWS]]) {
    for (k, to) in (k..).zip(to) {
        if from.row_stride == 1 {
            to[..rows].copy_from_slice(&from.data[i + k * from.col_stride..][..rows]);
        } else {
            (i..).zip(&mut to[..rows]).for_each(|(i, to)| *to = from.at(i, k));
        }
    }
}

/// Adds to the sums, one after another, the products of columns and their factors.
#[inline(always)]
fn add(sums: &mut [f64; ROWS], columns: &[[f64; ROWS]; STEP], factors: &[f64; STEP]) {
    for i in 0..ROWS {
        for j in 0..STEP {
            sums[i] += columns[j][i] * factors[j];
        }
    }
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
                    let want = (0..k).fold(0.0, |sum, l| sum + left.at(i, l) * right.at(l, j));
                    assert_eq!(c[i + j * m], want, "({i}, {j}) of {m}x{n}x{k}");
                }
            }
        }
    }

    #[test]
    fn is_the_sum_in_the_order_of_k_at_every_edge_of_the_blocks() {
        for m in [1, ROWS - 1, ROWS, ROWS + 1] {
            for n in [1, 5] {
                for k in [1, STEP - 1, STEP, STEP + 1, DEPTH - 1, DEPTH, DEPTH + 1] {
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
