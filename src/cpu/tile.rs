//! Inner loops over a row of a tile, or a few: distances, kernel sums, affinities, coefficients, low-dimensional steps.
//!
//! A row holds the distances d_ij of query i to all targets or some, padded to a multiple of [`LANES`]. Kernels are
//! evaluated relative to the nearest target of the row (m = min_j d_ij) or of the column: k(d) / e^{-psi(m)} = poly(d)
//! e^{psi_0(m) - psi_0(d)}, where the exponent is formed from the difference of the distances, so that its rounding error
//! stays small where the value is large.

use super::isa::{LANES, Simd, exp, exp2, per_isa, prefetch};
use crate::{Element, Kernel};
use std::ops::Range;

/// The root of `f32::MAX`: no distance whose square is finite is larger. Minima over nothing, and padding before the
/// mask.
pub(crate) const FAR: f32 = 1.844_674_3e19;

/// The distance of what is not there, once masked: removed pairs and padding. Every kernel of it, relative to any
/// minimum up to [`FAR`], is 0.
pub(crate) const REMOVED: f32 = f32::INFINITY;

/// `k(d) = poly(d) exp(-psi_0(d))` in units of the raw distance.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) kernel: Kernel,
    /// Of [`Kernel::rate`]; tau in raw units.
    pub(crate) rate: f32,
    /// Which power of the kernel at the highest temperature this one is, where it is 1 to 4.
    pub(crate) power: Option<u32>,
}

impl Shape {
    /// The kernel with length scale `tau`, in the units of the distances.
    pub(crate) fn new(kernel: Kernel, tau: f64) -> Self {
        // A rate of 0 would make 0 * infinity of what is removed, and so would one that is infinite of what is nearest;
        // a NaN stays. Between the limits half of it is no subnormal, and log2(e) times it is finite.
        let rate = kernel.rate(tau) as f32;
        let least = 4.0 * f32::MIN_POSITIVE;
        let rate = if rate < least { least } else { rate };
        let most = f32::MAX / 4.0;
        Self { kernel, rate: if rate > most { most } else { rate }, power: None }
    }

    /// The kernel at several temperatures. Where one is an integer power of that at the highest, it is computed from
    /// it: a few products instead of an exponential, whose relative error grows with the power.
    pub(crate) fn all(kernel: Kernel, temperatures: &[f64], unit: f64) -> Vec<Self> {
        const MOST: f64 = 4.0;
        let highest = temperatures.iter().copied().fold(0.0, f64::max);
        let mut shapes: Vec<Self> = temperatures.iter().map(|r| Self::new(kernel, r * unit)).collect();
        let powers: Vec<Option<u32>> = temperatures
            .iter()
            .map(|r| {
                let power = match kernel {
                    Kernel::Laplace => highest / r,
                    Kernel::Gaussian => (highest / r) * (highest / r),
                    _ => return None,
                };
                let close = (power - power.round()).abs() <= 1e-9 * power;
                (close && power <= MOST).then_some(power.round() as u32)
            })
            .collect();
        if powers.iter().flatten().any(|n| *n > 1) {
            for (shape, power) in shapes.iter_mut().zip(powers) {
                shape.power = power;
            }
        }
        shapes
    }

    /// psi_0(d), in f64.
    pub(crate) fn exponent(self, d: f32) -> f64 {
        let (d, rate) = (f64::from(d), f64::from(self.rate));
        match self.kernel {
            Kernel::Gaussian => d * d * rate,
            Kernel::Plummer => 0.0,
            _ => d * rate,
        }
    }
}

// Their places in `Kernel::ALL`.
pub(super) const LAPLACE: u8 = 0;
pub(super) const GAUSSIAN: u8 = 1;
pub(super) const MATERN32: u8 = 2;
pub(super) const MATERN52: u8 = 3;
pub(super) const MATERN72: u8 = 4;
pub(super) const MATERN92: u8 = 5;
pub(super) const PLUMMER: u8 = 6;

/// The most that a polynomial counts, so that sums of it are finite, and 0 times it is 0. Only from 1e8 length scales on
/// are there larger ones, where a unit in the last place of the exponent is more than their logarithm's rest.
const MOST: f32 = 1e30;

/// Calls a function generic over the kernel's number.
macro_rules! for_kernel {
    ($kernel:expr, $f:ident ( $($arg:expr),* )) => {
        match $kernel {
            Kernel::Laplace => $f::<V, { $crate::cpu::tile::LAPLACE }>($($arg),*),
            Kernel::Gaussian => $f::<V, { $crate::cpu::tile::GAUSSIAN }>($($arg),*),
            Kernel::Matern32 => $f::<V, { $crate::cpu::tile::MATERN32 }>($($arg),*),
            Kernel::Matern52 => $f::<V, { $crate::cpu::tile::MATERN52 }>($($arg),*),
            Kernel::Matern72 => $f::<V, { $crate::cpu::tile::MATERN72 }>($($arg),*),
            Kernel::Matern92 => $f::<V, { $crate::cpu::tile::MATERN92 }>($($arg),*),
            Kernel::Plummer => $f::<V, { $crate::cpu::tile::PLUMMER }>($($arg),*),
        }
    };
}
pub(super) use for_kernel;

/// (psi_0(m) - psi_0(d)) / rate.
#[inline(always)]
fn relative<V: Simd, const KERNEL: u8>(m: V, d: V) -> V {
    match KERNEL {
        GAUSSIAN => m.sub(d).mul(m.add(d)),
        PLUMMER => V::zero(),
        _ => m.sub(d),
    }
}

/// What the kernel has beside its exponential, a polynomial or Plummer's root, times `e`.
#[inline(always)]
fn times_poly<V: Simd, const KERNEL: u8>(d: V, rate: V, e: V) -> V {
    if KERNEL == LAPLACE || KERNEL == GAUSSIAN {
        return e;
    }
    let (cd, most) = (d.mul(rate), V::splat(MOST));
    if KERNEL == PLUMMER {
        return e.div(cd.mul_add(cd, V::splat(1.0)).sqrt());
    }
    let coefficients = const { Kernel::ALL[KERNEL as usize].polynomial() };
    let order = usize::from(KERNEL - MATERN32 + 1);
    let mut p = V::splat(coefficients[order]);
    for c in coefficients[..order].iter().rev() {
        p = p.mul_add(cd, V::splat(*c));
    }
    e.mul(p.if_less(most, p, most))
}

/// How far ahead distances are asked for that may come from memory: the processor itself does not look beyond a page.
const AHEAD: usize = 1024;

/// One lane block of a row.
#[inline(always)]
fn lanes(row: &[f32], at: usize) -> &[f32; LANES] {
    row[at..].first_chunk().expect("rows are padded to whole lane blocks")
}

#[inline(always)]
fn lanes_mut(row: &mut [f32], at: usize) -> &mut [f32; LANES] {
    row[at..].first_chunk_mut().expect("rows are padded to whole lane blocks")
}

/// The first `count` lane blocks of a row: with slices of one length, loops over them need no checks.
#[inline(always)]
pub(super) fn blocks(row: &[f32], count: usize) -> &[[f32; LANES]] {
    &row.as_chunks().0[..count]
}

/// Those of `N` rows, `stride` elements from one to the next.
#[inline(always)]
pub(super) fn blocks_of<const N: usize>((rows, stride): (&[f32], usize), count: usize) -> [&[[f32; LANES]]; N] {
    let mut all: [&[[f32; LANES]]; N] = [&[]; N];
    for n in 0..N {
        all[n] = blocks(&rows[n * stride..], count);
    }
    all
}

/// Those of `N` rows that lie one after the other.
#[inline(always)]
pub(super) fn blocks_of_mut<const N: usize>(rows: &mut [f32], count: usize) -> [&mut [[f32; LANES]]; N] {
    let mut rest = rows.as_chunks_mut().0;
    let mut all: [&mut [[f32; LANES]]; N] = std::array::from_fn(|_| Default::default());
    for row in &mut all {
        let (head, tail) = rest.split_at_mut(count);
        (*row, rest) = (head, tail);
    }
    all
}

#[inline(always)]
fn load<V: Simd>(row: &[f32], at: usize) -> V {
    V::load(lanes(row, at))
}

#[inline(always)]
fn store<V: Simd>(v: V, row: &mut [f32], at: usize) {
    v.store(lanes_mut(row, at));
}

per_isa! {
    /// `q_j = |x|² + |y_j|² - 2 g_j` in place of the product `g_j`; returns whether some
    /// `q_j < near (|x|² + |y_j|²)`.
    fn gram_row(row: &mut [f32], norm_x: f32, norms: &[f32], near: f32) -> bool {
        let mut any = false;
        for at in (0..row.len()).step_by(LANES) {
            let sum = V::splat(norm_x).add(load::<V>(norms, at));
            let q = V::splat(-2.0).mul_add(load(row, at), sum);
            any |= q.any_less(V::splat(near).mul(sum));
            store(q, row, at);
        }
        any
    }
}

#[inline(always)]
fn differences_of<V: Simd, const DIM: usize>(row: &mut [f32], x: &[f32], soa: &[f32]) {
    let (len, count) = (row.len(), row.len() / LANES);
    let targets = blocks_of::<DIM>((soa, len), count);
    let mut first = [V::zero(); DIM];
    for k in 0..DIM {
        first[k] = V::splat(x[k]);
    }
    for at in 0..count {
        prefetch(row, at * LANES + AHEAD);
        let mut q = V::zero();
        for k in 0..DIM {
            let step = V::load(&targets[k][at]).sub(first[k]);
            q = step.mul_add(step, q);
        }
        store(q, row, at * LANES);
    }
}

per_isa! {
    /// `q_j = sum_k (y_kj - x_k)²` for targets stored coordinate by coordinate, [D, row length].
    fn difference_row(row: &mut [f32], x: &[f32], soa: &[f32]) {
        match x.len() {
            1 => return differences_of::<V, 1>(row, x, soa),
            2 => return differences_of::<V, 2>(row, x, soa),
            3 => return differences_of::<V, 3>(row, x, soa),
            _ => {}
        }
        let stride = row.len();
        for at in (0..stride).step_by(LANES) {
            prefetch(row, at + AHEAD);
            let mut q = V::zero();
            for (k, &x) in x.iter().enumerate() {
                let step = load::<V>(soa, k * stride + at).sub(V::splat(x));
                q = step.mul_add(step, q);
            }
            store(q, row, at);
        }
    }
}

/// The minima of a lane block of distances.
#[inline(always)]
fn minima_of<V: Simd>(d: V, present: V, col_min: &mut [f32; LANES], min: V) -> V {
    d.smaller(V::load(col_min)).store(col_min);
    V::zero().if_less(present, d, V::splat(FAR)).smaller(min)
}

per_isa! {
    /// Distances from squared distances, clipped from below (a NaN stays), in place; returns sum_j d_j w_j in f64 and
    /// the smallest distance among targets with `present_j > 0`, and brings the columns' minima up to date.
    ///
    /// Where a squared distance is exactly `f32::MAX` there is no pair: its distance becomes [`FAR`] and is left out
    /// of the sum. A NaN is passed over by the minima: it reaches the result through the sums.
    fn distance_row(row: &mut [f32], floor: f32, weights: &[f32], present: &[f32], col_min: &mut [f32]) -> (f64, f32) {
        let mut sum = V::wide_zero();
        let mut min = V::splat(FAR);
        let nothing = V::splat(f32::MAX);
        let count = row.len() / LANES;
        let (weights, present) = (blocks(weights, count), blocks(present, count));
        let columns = &mut col_min.as_chunks_mut::<LANES>().0[..count];
        for (at, row) in row.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
            let q = V::load(row).at_least(V::splat(floor));
            let weight = V::load(&weights[at]);
            // 0 where q = MAX; infinities and NaN go on.
            let weight = q.if_less(nothing, weight, nothing.if_less(q, weight, q.sub(q).mul(weight)));
            let d = q.sqrt();
            sum = d.wide_mul_add(weight, sum);
            min = minima_of(d, V::load(&present[at]), &mut columns[at], min);
            d.store(row);
        }
        (V::wide_sum(sum), min.least())
    }
}

per_isa! {
    /// The minima of [`distance_row`], from distances.
    fn minima(row: &[f32], present: &[f32], col_min: &mut [f32]) -> f32 {
        let mut min = V::splat(FAR);
        let count = row.len() / LANES;
        let (row, present) = (blocks(row, count), blocks(present, count));
        for (at, col_min) in col_min.as_chunks_mut::<LANES>().0[..count].iter_mut().enumerate() {
            min = minima_of(V::load(&row[at]), V::load(&present[at]), col_min, min);
        }
        min.least()
    }
}

/// The rate of the same kernel as a power of 2.
#[inline(always)]
fn binary(rate: f32) -> f32 {
    (f64::from(rate) * std::f64::consts::LOG2_E) as f32
}

/// Rows that are taken together, so that what is read of their columns serves them all.
pub(crate) const ROWS: usize = 4;

#[inline(always)]
fn kernel_sums_of<V: Simd, const KERNEL: u8, const N: usize>(
    rate: f32,
    (rows, stride): (&[f32], usize),
    row_min: &[f32],
    row_weight: &[f32],
    col_min: &[f32],
    col_sum: &mut [f32],
) -> [f32; N] {
    let mut sums = [V::zero(); N];
    let (binary, rate) = (V::splat(binary(rate)), V::splat(rate));
    let count = col_sum.len() / LANES;
    let (weight, least) = (blocks(row_weight, count), blocks(col_min, count));
    let distances = blocks_of::<N>((rows, stride), count);
    for (at, col_sum) in col_sum.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
        let (weight, least, mut column) = (V::load(&weight[at]), V::load(&least[at]), V::load(col_sum));
        for n in 0..N {
            prefetch(distances[n].as_flattened(), at * LANES + AHEAD);
            let d = V::load(&distances[n][at]);
            let in_row = exp2(relative::<V, KERNEL>(V::splat(row_min[n]), d).mul(binary));
            sums[n] = weight.mul_add(times_poly::<V, KERNEL>(d, rate, in_row), sums[n]);
            let in_col = exp2(relative::<V, KERNEL>(least, d).mul(binary));
            column = column.add(times_poly::<V, KERNEL>(d, rate, in_col));
        }
        column.store(col_sum);
    }
    let mut out = [0.0; N];
    for n in 0..N {
        out[n] = sums[n].sum();
    }
    out
}

#[inline(always)]
fn some_kernel_sums_of<V: Simd, const KERNEL: u8>(
    rate: f32,
    (rows, stride): (&[f32], usize),
    row_min: &[f32],
    row_weight: &[f32],
    col_min: &[f32],
    col_sum: &mut [f32],
) -> [f32; ROWS] {
    if row_min.len() == ROWS {
        return kernel_sums_of::<V, KERNEL, ROWS>(rate, (rows, stride), row_min, row_weight, col_min, col_sum);
    }
    let mut sums = [0.0; ROWS];
    for n in 0..row_min.len() {
        let (row, least) = ((&rows[n * stride..], stride), &row_min[n..]);
        [sums[n]] = kernel_sums_of::<V, KERNEL, 1>(rate, row, least, row_weight, col_min, col_sum);
    }
    sums
}

per_isa! {
    /// Of up to [`ROWS`] rows of distances, as many as there are minima and as long as the columns' sums, with a stride:
    /// each row's `sum_j w_j k_ij` relative to its minimum, and the columns' `sum_i k_ij` relative to theirs so far.
    fn kernel_sums(shape: Shape, rows: (&[f32], usize), row_min: &[f32], row_weight: &[f32], col_min: &[f32], col_sum: &mut [f32]) -> [f32; ROWS] {
        for_kernel!(shape.kernel, some_kernel_sums_of(shape.rate, rows, row_min, row_weight, col_min, col_sum))
    }
}

/// Where the distances of a few rows come from.
pub(super) trait Distances<V> {
    /// A lane block of row `n`.
    fn of(&mut self, n: usize, at: usize) -> V;
}

/// They lie in memory.
struct Kept<'a, const N: usize>([&'a [[f32; LANES]]; N]);

impl<V: Simd, const N: usize> Distances<V> for Kept<'_, N> {
    #[inline(always)]
    fn of(&mut self, n: usize, at: usize) -> V {
        prefetch(self.0[n].as_flattened(), at * LANES + AHEAD);
        V::load(&self.0[n][at])
    }
}

#[inline(always)]
pub(super) fn exponentials_of<V: Simd, const KERNEL: u8, const N: usize>(
    rate: f32,
    mut distances: impl Distances<V>,
    row_min: &[f32],
    col_min: &[f32],
    out: &mut [f32],
) {
    let (half, rate) = (V::splat(0.5 * binary(rate)), V::splat(rate));
    let count = col_min.len() / LANES;
    let (least, row_min) = (blocks(col_min, count), &row_min[..N]);
    let out = blocks_of_mut::<N>(out, count);
    if count == 0 {
        return;
    }
    // A lane block ahead: roots, if there are any, take their time while exponentials are computed.
    let mut d = [V::zero(); N];
    for n in 0..N {
        d[n] = distances.of(n, 0);
    }
    for at in 0..count {
        let (least, next) = (V::load(&least[at]), if at + 1 < count { at + 1 } else { at });
        for n in 0..N {
            let now = std::mem::replace(&mut d[n], distances.of(n, next));
            let both = relative::<V, KERNEL>(V::splat(row_min[n]), now).add(relative::<V, KERNEL>(least, now));
            times_poly::<V, KERNEL>(now, rate, exp2(both.mul(half))).store(&mut out[n][at]);
        }
    }
}

#[inline(always)]
fn some_exponentials_of<V: Simd, const KERNEL: u8>(
    rate: f32,
    (rows, stride): (&[f32], usize),
    row_min: &[f32],
    col_min: &[f32],
    out: &mut [f32],
) {
    let count = col_min.len() / LANES;
    if row_min.len() == ROWS {
        let rows = Kept::<ROWS>(blocks_of((rows, stride), count));
        return exponentials_of::<V, KERNEL, ROWS>(rate, rows, row_min, col_min, out);
    }
    for n in 0..row_min.len() {
        let row = Kept([blocks(&rows[n * stride..], count)]);
        exponentials_of::<V, KERNEL, 1>(rate, row, &row_min[n..], col_min, &mut out[n * col_min.len()..]);
    }
}

per_isa! {
    /// `e_ij = k_ij e^{(psi_0(m_i) + psi_0(m_j)) / 2}` with the minima of rows and columns, for up to [`ROWS`] rows of
    /// distances, as many as there are minima and with a stride; those of one row lie behind those of the last.
    fn exponentials(shape: Shape, rows: (&[f32], usize), row_min: &[f32], col_min: &[f32], out: &mut [f32]) {
        for_kernel!(shape.kernel, some_exponentials_of(shape.rate, rows, row_min, col_min, out))
    }
}

per_isa! {
    /// `out = e^n`, n from 2 to 4, where it is not too small for its digits, else 0.
    fn power(n: u32, e: &[f32], out: &mut [f32]) {
        let least = V::splat(f32::MIN_POSITIVE);
        let out = out.as_chunks_mut::<LANES>().0.iter_mut();
        for (e, out) in e.as_chunks::<LANES>().0.iter().zip(out) {
            let e = V::load(e);
            let square = e.mul(e);
            let power = match n {
                2 => square,
                3 => square.mul(e),
                _ => square.mul(square),
            };
            power.if_less(least, V::zero(), power).store(out);
        }
    }
}

#[inline(always)]
fn joint_sums_of<V: Simd, const N: usize>(
    (e, stride): (&[f32], usize),
    row_scale: &[f32],
    col_scale: &[f32],
    col_sum: &mut [f32],
) -> [f32; N] {
    let mut sums = [V::zero(); N];
    let count = col_sum.len() / LANES;
    let (scale, e) = (blocks(col_scale, count), blocks_of::<N>((e, stride), count));
    for (at, col_sum) in col_sum.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
        let (scale, mut column) = (V::load(&scale[at]), V::load(col_sum));
        for n in 0..N {
            let e = V::load(&e[n][at]);
            sums[n] = e.mul_add(scale, sums[n]);
            column = e.mul_add(V::splat(row_scale[n]), column);
        }
        column.store(col_sum);
    }
    let mut out = [0.0; N];
    for n in 0..N {
        out[n] = sums[n].sum();
    }
    out
}

per_isa! {
    /// Both sums of [`kernel_sums`] from [`exponentials`] of up to [`ROWS`] rows, as many as there are scales: returns
    /// `sum_j v_j e_ij` of each and adds `u_i e_ij` to the columns' sums, for the scales v and u of [`balance`].
    fn joint_sums(e: (&[f32], usize), row_scale: &[f32], col_scale: &[f32], col_sum: &mut [f32]) -> [f32; ROWS] {
        if row_scale.len() == ROWS {
            return joint_sums_of::<V, ROWS>(e, row_scale, col_scale, col_sum);
        }
        let mut sums = [0.0; ROWS];
        for n in 0..row_scale.len() {
            [sums[n]] = joint_sums_of::<V, 1>((&e.0[n * e.1..], e.1), &row_scale[n..], col_scale, col_sum);
        }
        sums
    }
}

#[inline(always)]
fn balance_of<V: Simd, const KERNEL: u8>(rate: f32, reference: f32, minima: &[f32], scale: &mut [f32]) {
    for (min, scale) in minima.chunks(LANES).zip(scale.chunks_mut(LANES)) {
        let mut block = [FAR; LANES];
        block[..min.len()].copy_from_slice(min);
        let m = V::load(&block);
        let e = exp(relative::<V, KERNEL>(V::splat(reference), m).mul(V::splat(0.5 * rate)));
        m.if_less(V::splat(FAR), e, V::zero()).store(&mut block);
        scale.copy_from_slice(&block[..scale.len()]);
    }
}

per_isa! {
    /// `e^{(psi_0(reference) - psi_0(m)) / 2}` for the minima of rows or columns; 0 where nothing is there.
    fn balance(shape: Shape, reference: f32, minima: &[f32], scale: &mut [f32]) {
        for_kernel!(shape.kernel, balance_of(shape.rate, reference, minima, scale))
    }
}

/// The normaliser of one row or column at one temperature: the partition function is `e^{log}`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Partition {
    /// 1 / sqrt of the sum relative to the minimum; 0 where nothing is there.
    pub(crate) inv_root: f32,
    /// log of the partition function.
    pub(crate) log: f32,
}

impl Partition {
    /// From the sum relative to the minimum `min` of the distances; the logarithm where it will be `asked` for.
    pub(crate) fn new(shape: Shape, sum: f64, min: f32, asked: bool) -> Self {
        if sum == 0.0 {
            return Self { inv_root: 0.0, log: f32::NEG_INFINITY };
        }
        let log = if asked { (sum.ln() - shape.exponent(min)) as f32 } else { 0.0 };
        Self { inv_root: (1.0 / sum.sqrt()) as f32, log }
    }
}

/// What affinities need beside distances, of the columns in hand.
#[derive(Clone, Copy)]
pub(crate) struct Columns<'a> {
    /// `Partition::inv_root` of each column, times sqrt(w_j) where weights enter the logits.
    pub(crate) inv_root: &'a [f32],
    /// `Partition::log` of each column, plus log w_j where weights enter the logits.
    pub(crate) log: &'a [f32],
    /// What multiplies K itself where the normaliser's floor acts: w_j where weights enter the logits, else 1.
    pub(crate) weight: &'a [f32],
    /// What multiplies the clipped affinity: w_j where weights enter there, else 1, and 0 for padding and removed columns.
    pub(crate) factor: &'a [f32],
    /// 1 for the negative block, else 0.
    pub(crate) negative: &'a [f32],
    /// 1 for the positive block, else 0.
    pub(crate) positive: &'a [f32],
}

impl<'a> Columns<'a> {
    /// The first `count` lane blocks of each.
    #[inline(always)]
    fn blocks(self, count: usize) -> [&'a [[f32; LANES]]; 6] {
        [
            blocks(self.inv_root, count),
            blocks(self.log, count),
            blocks(self.weight, count),
            blocks(self.factor, count),
            blocks(self.negative, count),
            blocks(self.positive, count),
        ]
    }
}

/// The lower clips of the affinity; minus infinity and 0 where there are none.
#[derive(Clone, Copy)]
pub(crate) struct Floors {
    /// Of the affinity.
    pub(crate) affinity: f32,
    /// Of (log rowsum + log colsum) / 2.
    pub(crate) log_normalizer: f32,
}

impl Floors {
    /// Whether the floor of the normaliser can act, so that partitions need their logarithms.
    pub(crate) fn of_normalizer(self) -> bool {
        self.log_normalizer > f32::NEG_INFINITY
    }
}

#[inline(always)]
fn affinity_of<V: Simd, const KERNEL: u8, const N: usize, const FLOOR: bool>(
    rate: f32,
    floors: Floors,
    rows: (&[f32], usize),
    partitions: &[Partition],
    columns: Columns<'_>,
    e: &mut [f32],
) -> [[f32; 2]; N] {
    let count = columns.factor.len() / LANES;
    let [inv_root, logs, weight, factor, negative, positive] = columns.blocks(count);
    // Only beside the normaliser's floor.
    let distances = blocks_of::<N>(if FLOOR { rows } else { (&[], 0) }, if FLOOR { count } else { 0 });
    let e = blocks_of_mut::<N>(e, count);
    let (mut minus, mut plus) = ([V::zero(); N], [V::zero(); N]);
    let (half, floor, log_floor) = (V::splat(0.5), V::splat(floors.affinity), V::splat(floors.log_normalizer));
    for at in 0..count {
        let (inv_root, factor) = (V::load(&inv_root[at]), V::load(&factor[at]));
        let (negative, positive) = (V::load(&negative[at]), V::load(&positive[at]));
        for n in 0..N {
            let mut a = V::load(&e[n][at]).mul(V::splat(partitions[n].inv_root).mul(inv_root));
            if FLOOR {
                let log = V::splat(partitions[n].log).add(V::load(&logs[at])).mul(half);
                if log.any_less(log_floor) {
                    let (d, rate) = (V::load(&distances[n][at]), V::splat(rate));
                    let alone = exp(relative::<V, KERNEL>(V::zero(), d).mul(rate).sub(log_floor));
                    let alone = times_poly::<V, KERNEL>(d, rate, alone).mul(V::load(&weight[at]));
                    a = log.if_less(log_floor, alone, a);
                }
            }
            let a = a.at_least(floor).mul(factor);
            minus[n] = a.mul_add(negative, minus[n]);
            plus[n] = a.mul_add(positive, plus[n]);
            a.store(&mut e[n][at]);
        }
    }
    let mut sums = [[0.0; 2]; N];
    for n in 0..N {
        sums[n] = [minus[n].sum(), plus[n].sum()];
    }
    sums
}

#[inline(always)]
fn affinities_of<V: Simd, const KERNEL: u8>(
    rate: f32,
    floors: Floors,
    (rows, stride): (&[f32], usize),
    partitions: &[Partition],
    columns: Columns<'_>,
    e: &mut [f32],
) -> [[f32; 2]; ROWS] {
    macro_rules! of {
        ($n:expr, $rows:expr, $partitions:expr, $e:expr) => {
            if floors.of_normalizer() {
                affinity_of::<V, KERNEL, { $n }, true>(rate, floors, $rows, $partitions, columns, $e)
            } else {
                affinity_of::<V, KERNEL, { $n }, false>(rate, floors, $rows, $partitions, columns, $e)
            }
        };
    }
    if partitions.len() == ROWS {
        return of!(ROWS, (rows, stride), partitions, e);
    }
    let mut sums = [[0.0; 2]; ROWS];
    for n in 0..partitions.len() {
        let (rows, e) = ((&rows[n * stride..], stride), &mut e[n * columns.factor.len()..]);
        [sums[n]] = of!(1, rows, &partitions[n..], e);
    }
    sums
}

per_isa! {
    /// The affinities A_ij of up to [`ROWS`] rows, as many as there are partitions, in place of their [`exponentials`];
    /// returns S- and S+ of each. The distances have a stride.
    fn affinities(shape: Shape, floors: Floors, rows: (&[f32], usize), partitions: &[Partition], columns: Columns<'_>, e: &mut [f32]) -> [[f32; 2]; ROWS] {
        for_kernel!(shape.kernel, affinities_of(shape.rate, floors, rows, partitions, columns, e))
    }
}

#[inline(always)]
fn coefficients_of<V: Simd, const N: usize, const ADD: bool>(
    a: &mut [f32],
    sums: &[[f32; 2]],
    (negative, positive): (&[f32], &[f32]),
    (factor, first, out): (f32, bool, &mut [f32]),
    totals: &mut [f64],
) {
    let count = negative.len() / LANES;
    let (negative, positive) = (blocks(negative, count), blocks(positive, count));
    let a = blocks_of_mut::<N>(a, count);
    let out = blocks_of_mut::<N>(out, if ADD { count } else { 0 });
    let mut wide = [V::wide_zero(); N];
    for at in 0..count {
        let (negative, positive) = (V::load(&negative[at]), V::load(&positive[at]));
        for n in 0..N {
            let [minus, plus] = sums[n];
            let signed = positive.mul(V::splat(minus)).sub(negative.mul(V::splat(plus)));
            let mut c = V::load(&a[n][at]).mul(signed);
            if ADD {
                c = c.mul(V::splat(factor));
                c = if first { c } else { V::load(&out[n][at]).add(c) };
                c.store(&mut out[n][at]);
            } else {
                c.store(&mut a[n][at]);
            }
            wide[n] = c.wide_mul_add(V::splat(1.0), wide[n]);
        }
    }
    for n in 0..N {
        totals[n] = V::wide_sum(wide[n]);
    }
}

per_isa! {
    /// Coefficients in place of affinities of up to [`ROWS`] rows, as many as there are sums S- and S+:
    /// `C_j = A_j (S- [positive] - S+ [negative])`; `totals` become their sums.
    fn coefficients(a: &mut [f32], sums: &[[f32; 2]], negative: &[f32], positive: &[f32], totals: &mut [f64]) {
        let (len, blocks) = (negative.len(), (negative, positive));
        if sums.len() == ROWS {
            return coefficients_of::<V, ROWS, false>(a, sums, blocks, (1.0, true, &mut []), totals);
        }
        for n in 0..sums.len() {
            let to = (1.0, true, &mut [][..]);
            coefficients_of::<V, 1, false>(&mut a[n * len..], &sums[n..], blocks, to, &mut totals[n..]);
        }
    }
}

per_isa! {
    /// `factor C_j`, with the coefficients of [`coefficients`], begins `out` or is added to it; `totals` become the sums
    /// of `out`.
    fn add_coefficients(a: &mut [f32], sums: &[[f32; 2]], factor: f32, negative: &[f32], positive: &[f32], first: bool, out: &mut [f32], totals: &mut [f64]) {
        let (len, blocks) = (negative.len(), (negative, positive));
        if sums.len() == ROWS {
            return coefficients_of::<V, ROWS, true>(a, sums, blocks, (factor, first, out), totals);
        }
        for n in 0..sums.len() {
            let to = (factor, first, &mut out[n * len..]);
            coefficients_of::<V, 1, true>(&mut a[n * len..], &sums[n..], blocks, to, &mut totals[n..]);
        }
    }
}

per_isa! {
    /// Adds `sum_j a_j (y_jk - x_k)` to the sums `[D]` of a query x `[D]`, of targets coordinate by coordinate, [D, targets].
    fn add_steps(a: &[f32], x: &[f32], soa: &[f32], sums: &mut [f64]) {
        let count = a.len() / LANES;
        let a = blocks(a, count);
        for ((x, points), sum) in x.iter().zip(soa.chunks_exact(count * LANES)).zip(sums) {
            let mut steps = V::zero();
            for (a, y) in a.iter().zip(blocks(points, count)) {
                steps = V::load(a).mul_add(V::load(y).sub(V::splat(*x)), steps);
            }
            *sum += f64::from(steps.sum());
        }
    }
}

/// What the exponentials of one row, or its part in one block, add up to: `sum e^{-least}`, the least exponent or near it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowSum {
    pub(crate) least: f32,
    pub(crate) sum: f32,
}

impl RowSum {
    /// 1 / sum; 0 where nothing is there.
    pub(crate) fn inverse(self) -> f32 {
        if self.sum == 0.0 { 0.0 } else { 1.0 / self.sum }
    }

    /// The logarithm; minus infinity where nothing is there.
    pub(crate) fn log(self) -> f64 {
        if self.sum == 0.0 { f64::NEG_INFINITY } else { f64::from(self.sum).ln() - f64::from(self.least) }
    }
}

/// `psi_0(d) - psi_0(m) - c`: how far a pair is, the column's potential off.
#[inline(always)]
fn remoteness<V: Simd, const KERNEL: u8>(rate: V, min: V, row: &[f32], potential: &[f32], at: usize) -> (V, V) {
    let d = load::<V>(row, at);
    (d, relative::<V, KERNEL>(d, min).mul(rate).sub(load(potential, at)))
}

/// One of two numbers in each lane of the block at `at`: the second from column `split` on.
#[inline(always)]
fn either<V: Simd>([first, second]: [f32; 2], at: usize, split: usize) -> V {
    if at + LANES <= split || at >= split {
        return V::splat(if at >= split { second } else { first });
    }
    let mut lanes = [second; LANES];
    lanes[..split - at].fill(first);
    V::load(&lanes)
}

/// The lane blocks of a row that are of block `k` alone, and that which column `split` is amid.
#[inline(always)]
fn lane_blocks(k: usize, len: usize, split: usize) -> (Range<usize>, Option<usize>) {
    let first = split.min(len) / LANES * LANES;
    let amid = (first < split && first < len).then_some(first);
    (if k == 0 { 0..first } else { first + amid.map_or(0, |_| LANES)..len }, amid)
}

/// What a row's exponentials must add up to, lest an affinity of 1e-25 is lost: those below 1e-38 are, and a Matérn
/// kernel's polynomial is some thousands there.
const LEAST_SUM: f32 = 1e-8;

#[inline(always)]
fn coupled_of<V: Simd, const KERNEL: u8>(
    rate: f32,
    min: f32,
    row: &[f32],
    potential: &[f32],
    split: usize,
    guess: Option<[f32; 2]>,
    e: &mut [f32],
) -> [RowSum; 2] {
    let (rate, min, nothing) = (V::splat(rate), V::splat(min), V::splat(f32::INFINITY));
    let (mut from, mut sure) = (guess, false);
    loop {
        let (mut least, mut sums) = ([f32::INFINITY; 2], [0.0; 2]);
        for k in 0..2 {
            let (blocks, amid) = lane_blocks(k, row.len(), split);
            let (mut nearest, mut sum) = (nothing, V::zero());
            let near = V::splat(from.map_or(0.0, |from| from[k]));
            // Elsewhere in that block everything is infinitely far.
            if let Some(at) = amid {
                let far = if k == 0 { [0.0, f32::INFINITY] } else { [f32::INFINITY, 0.0] };
                let (d, z) = remoteness::<V, KERNEL>(rate, min, row, potential, at);
                let z = z.add(either(far, at, split));
                nearest = z.smaller(nearest);
                sum = times_poly::<V, KERNEL>(d, rate, exp(near.sub(z)));
                store(if k == 0 { sum } else { sum.add(load(e, at)) }, e, at);
            }
            if from.is_none() {
                for at in blocks.step_by(LANES) {
                    nearest = remoteness::<V, KERNEL>(rate, min, row, potential, at).1.smaller(nearest);
                }
            } else {
                for at in blocks.step_by(LANES) {
                    prefetch(row, at + AHEAD);
                    let (d, z) = remoteness::<V, KERNEL>(rate, min, row, potential, at);
                    nearest = z.smaller(nearest);
                    let a = times_poly::<V, KERNEL>(d, rate, exp(near.sub(z)));
                    sum = a.add(sum);
                    store(a, e, at);
                }
            }
            (least[k], sums[k]) = (nearest.least(), sum.sum());
        }
        if let Some(from) = from {
            // Exponentials below 1e-38 are lost. A row's own sum would not miss them long before a column does, of whose
            // affinities all may be small. A NaN is not fine.
            let fine = |k: usize| least[k] == f32::INFINITY || (from[k] - least[k] <= 60.0 && sums[k] >= LEAST_SUM);
            if sure || (fine(0) && fine(1)) {
                return [0, 1].map(|k| RowSum { least: from[k], sum: sums[k] });
            }
        }
        // Of an empty block any number is the least.
        from = Some(least.map(|least| if least == f32::INFINITY { 0.0 } else { least }));
        sure = true;
    }
}

per_isa! {
    /// `e_j = k(d_j) e^{c_j}` of one row for potentials c (minus infinity: not there), relative to the largest exponent
    /// of its block, or to a `guess` of it, which saves a sweep; and what they add up to in the first block and in that
    /// from column `split` on.
    fn coupled(shape: Shape, min: f32, row: &[f32], potential: &[f32], split: usize, guess: Option<[f32; 2]>, e: &mut [f32]) -> [RowSum; 2] {
        for_kernel!(shape.kernel, coupled_of(shape.rate, min, row, potential, split, guess, e))
    }
}

per_isa! {
    /// The affinities of some rows `e` of [`coupled`], with the inverse sums of both blocks of each, added to the columns'
    /// sums in order.
    fn add_affinities(e: &[f32], inverse: &[[f32; 2]], split: usize, col_sum: &mut [f32]) {
        let width = col_sum.len();
        for at in (0..width).step_by(LANES) {
            let mut sum = load::<V>(col_sum, at);
            for (e, inverse) in e.chunks_exact(width).zip(inverse) {
                sum = load::<V>(e, at).mul_add(either(*inverse, at, split), sum);
            }
            store(sum, col_sum, at);
        }
    }
}

per_isa! {
    /// The affinities of [`coupled`], in place; returns S- and S+, the sums where `positive` is 0 and 1.
    fn normalize(e: &mut [f32], inverse: [f32; 2], split: usize, positive: &[f32]) -> (f32, f32) {
        let (zero, mut minus, mut plus) = (V::zero(), V::zero(), V::zero());
        for at in (0..e.len()).step_by(LANES) {
            let a = load::<V>(e, at).mul(either(inverse, at, split));
            let attracts = load::<V>(positive, at);
            minus = zero.if_less(attracts, zero, a).add(minus);
            plus = zero.if_less(attracts, a, zero).add(plus);
            store(a, e, at);
        }
        (minus.sum(), plus.sum())
    }
}

#[inline(always)]
fn relative_column_sums_of<V: Simd, const KERNEL: u8>(
    rate: f32,
    min: f32,
    row: &[f32],
    potential: &[f32],
    split: usize,
    logs: [f32; 2],
    (least, sums): (&mut [f32], &mut [f32]),
) {
    let (rate, min) = (V::splat(rate), V::splat(min));
    for at in (0..row.len()).step_by(LANES) {
        let (d, z) = remoteness::<V, KERNEL>(rate, min, row, potential, at);
        let z = z.add(either(logs, at, split));
        let before = load::<V>(least, at);
        let new = z.smaller(before);
        let a = times_poly::<V, KERNEL>(d, rate, exp(new.sub(z)));
        store(load::<V>(sums, at).mul_add(exp(new.sub(before)), a), sums, at);
        store(new, least, at);
    }
}

per_isa! {
    /// The columns' sums of affinities whose rows' logarithms are `logs`, one row more: [`coupled`] without underflow.
    /// `columns` are the least exponent of each so far, and the sum relative to it.
    fn relative_column_sums(shape: Shape, min: f32, row: &[f32], potential: &[f32], split: usize, logs: [f32; 2], columns: (&mut [f32], &mut [f32])) {
        for_kernel!(shape.kernel, relative_column_sums_of(shape.rate, min, row, potential, split, logs, columns))
    }
}

/// Sums over the weights w of [`field_row`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FieldSums {
    pub(crate) mass: f64,
    /// sum w / b(r)
    pub(crate) alpha: f64,
    /// sum w k#(r) / k(r)
    pub(crate) sharp: f64,
    /// sum w²
    pub(crate) square: f64,
}

per_isa! {
    /// Distances from squared ones, in place; the smallest of those with a weight above 0, [`FAR`] where there is none.
    fn roots(row: &mut [f32], weight: &[f32]) -> f32 {
        let (mut min, far) = (V::splat(FAR), V::splat(FAR));
        for at in (0..row.len()).step_by(LANES) {
            let d = load::<V>(row, at).sqrt();
            // A NaN stays.
            let d = far.if_less(d, far, d);
            min = V::zero().if_less(load(weight, at), d, far).smaller(min);
            store(d, row, at);
        }
        min.least()
    }
}

#[inline(always)]
fn field_row_of<V: Simd, const KERNEL: u8>(
    rate: f32,
    min: f32,
    weight: &[f32],
    row: &mut [f32],
    slopes: &mut [f32],
) -> FieldSums {
    let [mut mass, mut alpha, mut sharp, mut square] = [V::wide_zero(); 4];
    let (zero, one, far) = (V::zero(), V::splat(1.0), V::splat(FAR));
    let (unit, min, rate) = (V::splat(1.0 / rate), V::splat(min), V::splat(rate));
    // The polynomial at the minimum goes out of every weight.
    let least = one.div(times_poly::<V, KERNEL>(min, rate, one));
    for at in (0..row.len()).step_by(LANES) {
        let d = load::<V>(row, at);
        let near = relative::<V, KERNEL>(min, d).mul(rate);
        // What has no weight may be nearer than the minimum; a NaN stays.
        let e = exp(zero.if_less(near, zero, near));
        let w = times_poly::<V, KERNEL>(d, rate, e.mul(least)).mul(load(weight, at));
        // Nothing is there at a distance without a finite square.
        let w = d.if_less(far, w, w.sub(w));
        mass = w.wide_mul_add(one, mass);
        square = w.wide_mul_add(w, square);
        store(w, row, at);
        if KERNEL == GAUSSIAN {
            continue;
        }
        // b(r), 1 / b(r) and k#(r) / k(r) of spec 1.3 and 1.5 (T4); the quotients of polynomials so that none overflows.
        let z = d.mul(rate);
        let (b, inverse) = match KERNEL {
            LAPLACE => (zero.if_less(d, rate.div(d), zero), d.mul(unit)),
            PLUMMER => {
                let inverse = z.mul_add(z, one);
                (rate.div(inverse).mul(rate), inverse.mul(unit).mul(unit))
            }
            _ => {
                // P_k / P_(k-1) of the polynomials of nu = k + 1/2, by P_k = P_(k-1) + z² P_(k-2) / ((2k-1) (2k-3)).
                let (mut quotient, mut after, mut odd) = (one, one.add(z), 1.0);
                for _ in MATERN32..=KERNEL {
                    odd += 2.0;
                    quotient = after;
                    after = z.mul(z.div(quotient)).mul_add(V::splat(1.0 / (odd * (odd - 2.0))), one);
                }
                sharp = w.wide_mul_add(after.mul(V::splat(odd)).mul(unit).mul(unit), sharp);
                let quotient = quotient.mul(V::splat(odd - 2.0));
                (rate.div(quotient).mul(rate), quotient.mul(unit).mul(unit))
            }
        };
        alpha = w.wide_mul_add(inverse, alpha);
        store(w.mul(b), slopes, at);
    }
    let [mass, mut alpha, mut sharp, square] = [mass, alpha, sharp, square].map(V::wide_sum);
    let tau = 1.0 / f64::from(rate.least());
    if KERNEL == GAUSSIAN {
        alpha = 0.5 * tau * mass;
        sharp = alpha;
    } else if KERNEL == LAPLACE {
        sharp = tau.mul_add(tau * mass, alpha);
    } else if KERNEL == PLUMMER {
        sharp = if mass > 0.0 { f64::INFINITY } else { mass };
    }
    FieldSums { mass, alpha, sharp, square }
}

per_isa! {
    /// Weights `w_j k_j / k(min)` in the place of distances, and but for the Gaussian `slopes`, those times b(r) (0 at
    /// r = 0).
    fn field_row(shape: Shape, min: f32, weight: &[f32], row: &mut [f32], slopes: &mut [f32]) -> FieldSums {
        for_kernel!(shape.kernel, field_row_of(shape.rate, min, weight, row, slopes))
    }
}

per_isa! {
    /// sum_j a_j in f64, for whole lane blocks.
    fn total(a: &[f32]) -> f64 {
        let mut sum = V::wide_zero();
        for a in a.as_chunks::<LANES>().0 {
            sum = V::load(a).wide_mul_add(V::splat(1.0), sum);
        }
        V::wide_sum(sum)
    }
}

per_isa! {
    /// Adds to each number of `squares` those of the first `width` elements of a row, rows `stride` elements apart.
    fn add_squares(rows: &[f32], stride: usize, width: usize, squares: &mut [f64]) {
        for (i, squares) in squares.iter_mut().enumerate() {
            *squares += squares_of::<V>(&rows[i * stride..][..width]);
        }
    }
}

per_isa! {
    /// `sum_il c_il v_il` of rows of a lane block, each with a stride, and `sum_il c_il² g_l`.
    fn quadratic_form(rows: usize, c: (&[f32], usize), product: (&[f32], usize), diagonal: &[f32]) -> [f64; 2] {
        let g = load::<V>(diagonal, 0);
        let (mut sum, mut squares) = (V::wide_zero(), V::wide_zero());
        for i in 0..rows {
            let c = load::<V>(c.0, i * c.1);
            sum = c.wide_mul_add(load(product.0, i * product.1), sum);
            squares = c.wide_mul_add(c.mul(g), squares);
        }
        [V::wide_sum(sum), V::wide_sum(squares)]
    }
}

per_isa! {
    /// A small group's products, panels of [rows, LANES] on and above the diagonal, each from its start in `panels` on,
    /// as the rows of `tile`, those below it from above; what lies above counts twice afterwards: the products are
    /// halved from the panel's own diagonal block on.
    fn spread_gram(gram: &mut [f32], panels: &[std::ops::Range<usize>], tile: &mut [f32], stride: usize) {
        let height = tile.len() / stride;
        for (p, range) in panels.iter().enumerate() {
            let (panel, _) = gram[range.clone()].as_chunks_mut::<LANES>();
            let at = p * LANES;
            for (i, products) in panel.iter().enumerate().take(height) {
                store(V::load(products), tile, i * stride + at);
            }
            for block in 0..if at < height { p } else { 0 } {
                let mut square = [V::zero(); LANES];
                for l in 0..LANES {
                    square[l] = V::load(&panel[block * LANES + l]);
                }
                let turned = V::transpose(square);
                for l in 0..LANES.min(height - at) {
                    store(turned[l], tile, (at + l) * stride + block * LANES);
                }
            }
            for products in panel.iter_mut().skip(at) {
                V::load(products).mul(V::splat(0.5)).store(products);
            }
        }
    }
}

/// A lane block of samples.
#[inline(always)]
pub(super) fn elements<V: Simd, T: Element>(row: &[T], at: usize) -> V {
    T::load(row[at..].first_chunk().expect("a whole lane block is left"))
}

per_isa! {
    /// The mean of `rows`, columns `at..at + mean.len()`: the first and the mean of the steps from it, so that of rows that
    /// are equal it is theirs to the last bit.
    fn mean_of<T: Element>(rows: &[&[T]], at: usize, mean: &mut [f32]) {
        let share = 1.0 / rows.len() as f32;
        let (blocks, tail) = mean.as_chunks_mut::<LANES>();
        for (block, out) in blocks.iter_mut().enumerate() {
            let at = at + block * LANES;
            let first = elements::<V, T>(rows[0], at);
            let mut sum = V::zero();
            for row in &rows[1..] {
                sum = sum.add(elements::<V, T>(row, at).sub(first));
            }
            sum.mul_add(V::splat(share), first).store(out);
        }
        let at = at + blocks.len() * LANES;
        for (k, out) in (at..).zip(tail) {
            let first = rows[0][k].to_f32();
            *out = rows[1..].iter().map(|row| row[k].to_f32() - first).sum::<f32>() * share + first;
        }
    }
}

/// Up to a lane block, filled up with zeros.
#[inline(always)]
fn tail<V: Simd>(values: &[f32]) -> V {
    let mut lanes = [0.0; LANES];
    lanes[..values.len()].copy_from_slice(values);
    V::load(&lanes)
}

#[inline(always)]
fn squares_of<V: Simd>(v: &[f32]) -> f64 {
    let (blocks, rest) = v.as_chunks::<LANES>();
    let mut sum = V::wide_zero();
    if !rest.is_empty() {
        let rest = tail::<V>(rest);
        sum = rest.wide_mul_add(rest, sum);
    }
    for v in blocks {
        let v = V::load(v);
        sum = v.wide_mul_add(v, sum);
    }
    V::wide_sum(sum)
}

per_isa! {
    /// sum_k v_k² in f64.
    fn sum_of_squares(v: &[f32]) -> f64 {
        squares_of::<V>(v)
    }
}

per_isa! {
    /// The sums of columns from `at` on, as many as there is room for, of rows `stride` elements long.
    fn column_sums(rows: &[f32], stride: usize, at: usize, sums: &mut [f32]) {
        /// Rows that are summed apart, so that rounding errors do not add up over all.
        const BLOCK: usize = 64;
        sums.fill(0.0);
        let (blocks, tail) = sums.as_chunks_mut::<LANES>();
        let at_tail = at + blocks.len() * LANES;
        for some in rows.chunks(BLOCK * stride) {
            for (p, sum) in blocks.iter_mut().enumerate() {
                let mut part = V::zero();
                for row in some.chunks_exact(stride) {
                    part = part.add(load(row, at + p * LANES));
                }
                V::load(sum).add(part).store(sum);
            }
            for (k, sum) in tail.iter_mut().enumerate() {
                *sum += some.chunks_exact(stride).map(|row| row[at_tail + k]).sum::<f32>();
            }
        }
    }
}

per_isa! {
    /// sum_k (y_k - x_k)².
    fn squared_distance<T: Element>(x: &[T], y: &[T]) -> f32 {
        let mut sum = V::zero();
        let ((x, x_tail), (y, y_tail)) = (x.as_chunks::<LANES>(), y.as_chunks::<LANES>());
        for (x, y) in x.iter().zip(y) {
            let step = T::load::<V>(y).sub(T::load::<V>(x));
            sum = step.mul_add(step, sum);
        }
        let mut last = [0.0; LANES];
        for ((step, x), y) in last.iter_mut().zip(x_tail).zip(y_tail) {
            *step = y.to_f32() - x.to_f32();
        }
        let last = V::load(&last);
        last.mul_add(last, sum).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_farther_than_far() {
        assert_eq!(FAR, f32::MAX.sqrt());
    }
}
