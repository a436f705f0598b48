//! Inner loops over one row of a tile: distances, kernel sums, affinities, coefficients, low-dimensional force.
//!
//! A row holds the distances d_ij of query i to all targets, padded to a multiple of [`LANES`]. Kernels are evaluated relative to the nearest target of the row (m = min_j d_ij)
//! or of the column: k(d) / e^{-psi(m)} = poly(d) e^{psi_0(m) - psi_0(d)}, where the exponent is formed from the
//! difference of the distances, so that its rounding error stays small where the value is large.

use super::isa::{LANES, exp, mul_add, per_isa, sum_lanes, sum_lanes_f64};
use crate::{Element, Kernel};

/// Beyond every distance whose square is finite: padding before the mask, and minima over nothing. Finite, so that its
/// product with a weight of 0 is 0.
pub(crate) const FAR: f32 = 1.9e19;

/// The distance of what is not there, once masked: removed pairs and padding. Every kernel of it, relative to any
/// minimum up to [`FAR`], is 0.
pub(crate) const REMOVED: f32 = f32::INFINITY;

/// `k(d) = poly(d) exp(-psi_0(d))` in units of the raw distance.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) kernel: Kernel,
    /// Laplace 1/tau, Gaussian 1/(2 tau²), Matérn c; tau in raw units.
    pub(crate) rate: f32,
}

impl Shape {
    /// The kernel with length scale `tau`, in the units of the distances.
    pub(crate) fn new(kernel: Kernel, tau: f64) -> Self {
        let rate = match kernel {
            Kernel::Laplace => 1.0 / tau,
            Kernel::Gaussian => 0.5 / (tau * tau),
            Kernel::Matern32 => 3f64.sqrt() / tau,
            Kernel::Matern52 => 5f64.sqrt() / tau,
        };
        // A rate of 0 would make 0 * infinity of what is removed; a NaN stays.
        let rate = rate as f32;
        Self { kernel, rate: if rate < f32::MIN_POSITIVE { f32::MIN_POSITIVE } else { rate } }
    }

    /// psi_0(d), in f64.
    pub(crate) fn exponent(self, d: f32) -> f64 {
        let (d, rate) = (f64::from(d), f64::from(self.rate));
        if self.kernel == Kernel::Gaussian { d * d * rate } else { d * rate }
    }
}

const LAPLACE: u8 = 0;
const GAUSSIAN: u8 = 1;
const MATERN32: u8 = 2;
const MATERN52: u8 = 3;

/// Calls a function generic over the kernel's number.
macro_rules! for_kernel {
    ($kernel:expr, $f:ident ( $($arg:expr),* )) => {
        match $kernel {
            Kernel::Laplace => $f::<FMA, LAPLACE>($($arg),*),
            Kernel::Gaussian => $f::<FMA, GAUSSIAN>($($arg),*),
            Kernel::Matern32 => $f::<FMA, MATERN32>($($arg),*),
            Kernel::Matern52 => $f::<FMA, MATERN52>($($arg),*),
        }
    };
}

/// psi_0(m) - psi_0(d).
#[inline(always)]
fn relative_exponent<const KERNEL: u8>(m: f32, d: f32, rate: f32) -> f32 {
    if KERNEL == GAUSSIAN { (m - d) * rate * (m + d) } else { (m - d) * rate }
}

/// The polynomial factor of the kernel, kept finite so that its product with an underflowed exponential is 0.
#[inline(always)]
fn poly<const FMA: bool, const KERNEL: u8>(d: f32, rate: f32) -> f32 {
    let cd = d * rate;
    let p = match KERNEL {
        MATERN32 => 1.0 + cd,
        MATERN52 => mul_add::<FMA>(cd * (1.0 / 3.0), cd, cd) + 1.0,
        _ => return 1.0,
    };
    if p < f32::MAX { p } else { f32::MAX }
}

/// One lane block of a row.
#[inline(always)]
fn lanes(row: &[f32], at: usize) -> &[f32; LANES] {
    row[at..].first_chunk().expect("rows are padded to whole lane blocks")
}

#[inline(always)]
fn lanes_mut(row: &mut [f32], at: usize) -> &mut [f32; LANES] {
    row[at..].first_chunk_mut().expect("rows are padded to whole lane blocks")
}

per_isa! {
    /// `q_j = |x|² + |y_j|² - 2 g_j` in place of the product `g_j`; returns whether some
    /// `q_j < near (|x|² + |y_j|²)`.
    fn gram_row(row: &mut [f32], norm_x: f32, norms: &[f32], near: f32) -> bool {
        let mut any = [false; LANES];
        for at in (0..row.len()).step_by(LANES) {
            let (q, norms) = (lanes_mut(row, at), lanes(norms, at));
            for l in 0..LANES {
                let sum = norm_x + norms[l];
                q[l] = mul_add::<FMA>(-2.0, q[l], sum);
                any[l] |= q[l] < near * sum;
            }
        }
        any.contains(&true)
    }
}

per_isa! {
    /// `q_j = sum_k (y_kj - x_k)²` for targets stored coordinate by coordinate, [D, row length].
    fn difference_row(row: &mut [f32], x: &[f32], soa: &[f32]) {
        let stride = row.len();
        for at in (0..stride).step_by(LANES) {
            let mut q = [0.0f32; LANES];
            for (k, &x) in x.iter().enumerate() {
                let y = lanes(soa, k * stride + at);
                for l in 0..LANES {
                    let step = y[l] - x;
                    q[l] = mul_add::<FMA>(step, step, q[l]);
                }
            }
            *lanes_mut(row, at) = q;
        }
    }
}

per_isa! {
    /// Distances from squared distances, clipped from below; a NaN stays.
    fn sqrt_row(row: &mut [f32], floor: f32) {
        for q in row {
            *q = (if *q < floor { floor } else { *q }).sqrt();
        }
    }
}

per_isa! {
    /// sum_j d_j w_j in f64; the padding has weight 0.
    fn weighted_sum(row: &[f32], weights: &[f32]) -> f64 {
        let mut sum = [0.0f64; LANES];
        for at in (0..row.len()).step_by(LANES) {
            let (d, w) = (lanes(row, at), lanes(weights, at));
            for l in 0..LANES {
                sum[l] += f64::from(d[l]) * f64::from(w[l]);
            }
        }
        sum_lanes_f64(sum)
    }
}

per_isa! {
    /// The smallest distance of the row among targets with `present_j > 0`, and the columns' minima over the rows so
    /// far. A NaN is passed over: it reaches the result through the sums.
    fn minima(row: &[f32], present: &[f32], col_min: &mut [f32]) -> f32 {
        let mut min = [FAR; LANES];
        for at in (0..row.len()).step_by(LANES) {
            let (d, p, c) = (lanes(row, at), lanes(present, at), lanes_mut(col_min, at));
            for l in 0..LANES {
                c[l] = if d[l] < c[l] { d[l] } else { c[l] };
                let candidate = if p[l] > 0.0 { d[l] } else { FAR };
                min[l] = if candidate < min[l] { candidate } else { min[l] };
            }
        }
        min.into_iter().fold(FAR, f32::min)
    }
}

#[inline(always)]
fn kernel_sums_of<const FMA: bool, const KERNEL: u8>(
    rate: f32,
    row: &[f32],
    row_min: f32,
    row_weight: &[f32],
    col_min: &[f32],
    col_sum: &mut [f32],
) -> f32 {
    let mut sum = [0.0f32; LANES];
    for at in (0..row.len()).step_by(LANES) {
        let (d, w, m, c) = (lanes(row, at), lanes(row_weight, at), lanes(col_min, at), lanes_mut(col_sum, at));
        for l in 0..LANES {
            let p = poly::<FMA, KERNEL>(d[l], rate);
            let in_row = p * exp::<FMA>(relative_exponent::<KERNEL>(row_min, d[l], rate));
            sum[l] = mul_add::<FMA>(w[l], in_row, sum[l]);
            c[l] += p * exp::<FMA>(relative_exponent::<KERNEL>(m[l], d[l], rate));
        }
    }
    sum_lanes(sum)
}

per_isa! {
    /// The row's `sum_j w_j k_ij` relative to its minimum, and the columns' `sum_i k_ij` relative to theirs so far.
    fn kernel_sums(shape: Shape, row: &[f32], row_min: f32, row_weight: &[f32], col_min: &[f32], col_sum: &mut [f32]) -> f32 {
        for_kernel!(shape.kernel, kernel_sums_of(shape.rate, row, row_min, row_weight, col_min, col_sum))
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
    /// From the sum relative to the minimum `min` of the distances.
    pub(crate) fn new(shape: Shape, sum: f64, min: f32) -> Self {
        if sum == 0.0 {
            return Self { inv_root: 0.0, log: f32::NEG_INFINITY };
        }
        Self { inv_root: (1.0 / sum.sqrt()) as f32, log: (sum.ln() - shape.exponent(min)) as f32 }
    }
}

/// What the affinities of one row need beside its distances; every slice has the row's length.
#[derive(Clone, Copy)]
pub(crate) struct Columns<'a> {
    /// min_i d_ij.
    pub(crate) min: &'a [f32],
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

/// The lower clips of the affinity; minus infinity and 0 where there are none.
#[derive(Clone, Copy)]
pub(crate) struct Floors {
    /// Of the affinity.
    pub(crate) affinity: f32,
    /// Of (log rowsum + log colsum) / 2.
    pub(crate) log_normalizer: f32,
}

#[inline(always)]
fn affinity_of<const FMA: bool, const KERNEL: u8>(
    rate: f32,
    floors: Floors,
    row: &[f32],
    row_min: f32,
    partition: Partition,
    columns: Columns<'_>,
    out: &mut [f32],
) -> (f32, f32) {
    let mut minus = [0.0f32; LANES];
    let mut plus = [0.0f32; LANES];
    for at in (0..row.len()).step_by(LANES) {
        let (d, out) = (lanes(row, at), lanes_mut(out, at));
        let (min, inv_root, factor) = (lanes(columns.min, at), lanes(columns.inv_root, at), lanes(columns.factor, at));
        let (negative, positive) = (lanes(columns.negative, at), lanes(columns.positive, at));
        let mut exponent = [0.0f32; LANES];
        let mut scale = [0.0f32; LANES];
        for l in 0..LANES {
            let in_row = relative_exponent::<KERNEL>(row_min, d[l], rate);
            let in_col = relative_exponent::<KERNEL>(min[l], d[l], rate);
            exponent[l] = 0.5 * (in_row + in_col);
            scale[l] = partition.inv_root * inv_root[l];
        }
        if floors.log_normalizer > f32::NEG_INFINITY {
            let (log, weight) = (lanes(columns.log, at), lanes(columns.weight, at));
            for l in 0..LANES {
                let floored = 0.5 * (partition.log + log[l]) < floors.log_normalizer;
                let alone = relative_exponent::<KERNEL>(0.0, d[l], rate) - floors.log_normalizer;
                exponent[l] = if floored { alone } else { exponent[l] };
                scale[l] = if floored { weight[l] } else { scale[l] };
            }
        }
        for l in 0..LANES {
            let a = poly::<FMA, KERNEL>(d[l], rate) * exp::<FMA>(exponent[l]) * scale[l];
            let a = (if a < floors.affinity { floors.affinity } else { a }) * factor[l];
            out[l] = a;
            minus[l] = mul_add::<FMA>(a, negative[l], minus[l]);
            plus[l] = mul_add::<FMA>(a, positive[l], plus[l]);
        }
    }
    (sum_lanes(minus), sum_lanes(plus))
}

per_isa! {
    /// The affinities A_ij of one row; returns S- and S+.
    fn affinity(shape: Shape, floors: Floors, row: &[f32], row_min: f32, partition: Partition, columns: Columns<'_>, out: &mut [f32]) -> (f32, f32) {
        for_kernel!(shape.kernel, affinity_of(shape.rate, floors, row, row_min, partition, columns, out))
    }
}

per_isa! {
    /// `out_j = A_j (S- [positive] - S+ [negative]) / theta`, added to what is there where `add`.
    fn coefficients(a: &[f32], s_minus: f32, s_plus: f32, inv_theta: f32, negative: &[f32], positive: &[f32], add: bool, out: &mut [f32]) {
        for at in (0..a.len()).step_by(LANES) {
            let (a, n, p, out) = (lanes(a, at), lanes(negative, at), lanes(positive, at), lanes_mut(out, at));
            for l in 0..LANES {
                let c = a[l] * (p[l] * s_minus - n[l] * s_plus) * inv_theta;
                out[l] = if add { out[l] + c } else { c };
            }
        }
    }
}

per_isa! {
    /// sum_j c_j.
    fn sum(c: &[f32]) -> f32 {
        let mut sum = [0.0f32; LANES];
        for at in (0..c.len()).step_by(LANES) {
            let c = lanes(c, at);
            for l in 0..LANES {
                sum[l] += c[l];
            }
        }
        sum_lanes(sum)
    }
}

per_isa! {
    /// `force_k = sum_j c_j (y_kj - x_k)` for targets stored coordinate by coordinate.
    fn low_dim_force(c: &[f32], x: &[f32], soa: &[f32], force: &mut [f32]) {
        let stride = c.len();
        for (k, (&x, force)) in x.iter().zip(force).enumerate() {
            let mut sum = [0.0f32; LANES];
            for at in (0..stride).step_by(LANES) {
                let (c, y) = (lanes(c, at), lanes(soa, k * stride + at));
                for l in 0..LANES {
                    sum[l] = mul_add::<FMA>(c[l], y[l] - x, sum[l]);
                }
            }
            *force = sum_lanes(sum);
        }
    }
}

per_isa! {
    /// sum_k v_k² in f64.
    fn sum_of_squares(v: &[f32]) -> f64 {
        let mut sum = [0.0f64; LANES];
        let (blocks, tail) = v.as_chunks::<LANES>();
        for block in blocks {
            for l in 0..LANES {
                sum[l] += f64::from(block[l]) * f64::from(block[l]);
            }
        }
        for (l, v) in tail.iter().enumerate() {
            sum[l] += f64::from(*v) * f64::from(*v);
        }
        sum_lanes_f64(sum)
    }
}

per_isa! {
    /// sum_k v_k² in f32.
    fn squared_norm(v: &[f32]) -> f32 {
        let mut sum = [0.0f32; LANES];
        let (blocks, tail) = v.as_chunks::<LANES>();
        for block in blocks {
            for l in 0..LANES {
                sum[l] = mul_add::<FMA>(block[l], block[l], sum[l]);
            }
        }
        for (l, v) in tail.iter().enumerate() {
            sum[l] = mul_add::<FMA>(*v, *v, sum[l]);
        }
        sum_lanes(sum)
    }
}

per_isa! {
    /// sum_k (y_k - x_k)².
    fn squared_distance<T: Element>(x: &[T], y: &[T]) -> f32 {
        let mut sum = [0.0f32; LANES];
        let ((x, x_tail), (y, y_tail)) = (x.as_chunks::<LANES>(), y.as_chunks::<LANES>());
        for (x, y) in x.iter().zip(y) {
            let (mut xs, mut ys) = ([0.0f32; LANES], [0.0f32; LANES]);
            T::widen(x, &mut xs);
            T::widen(y, &mut ys);
            for l in 0..LANES {
                let step = ys[l] - xs[l];
                sum[l] = mul_add::<FMA>(step, step, sum[l]);
            }
        }
        for (l, (x, y)) in x_tail.iter().zip(y_tail).enumerate() {
            let step = y.to_f32() - x.to_f32();
            sum[l] = mul_add::<FMA>(step, step, sum[l]);
        }
        sum_lanes(sum)
    }
}
