//! The oracle: f64, one loop per formula, to be read beside the specification.
//!
//! No SIMD, no threads, no cleverness: distances are sums of squared differences, softmaxes subtract their maximum,
//! whole [G, T] matrices of one group are kept. Every backend is judged against these functions.
#![forbid(unsafe_code)]

mod drift;
mod field;
mod projected;
mod sliced;

pub(crate) use drift::all_weights_zero;
pub use drift::{Drift, drift};
pub use field::field;
pub use projected::projected;
pub use sliced::sliced;

use crate::Kernel;

/// log k(r) for a length scale `tau` (spec 1.2, 1.3).
pub(crate) fn log_kernel(kernel: Kernel, r: f64, tau: f64) -> f64 {
    match kernel.order() {
        // the polynomial's logarithm would make it inf - inf
        _ if r == f64::INFINITY => f64::NEG_INFINITY,
        None if kernel == Kernel::Plummer => -0.5 * (r / tau * (r / tau)).ln_1p(),
        None => -r * r / (2.0 * tau * tau),
        Some(k) => {
            let cr = decay(k, tau) * r;
            beyond_one(k, cr).ln_1p() - cr
        }
    }
}

/// c = sqrt(2 nu) / tau, nu = k + 1/2.
fn decay(k: u32, tau: f64) -> f64 {
    f64::from(2 * k + 1).sqrt() / tau
}

/// P(z) - 1 of the Matérn kernel P(c r) exp(-c r), nu = k + 1/2: `sum_j 2^j k! (2k-j)! / ((2k)! j! (k-j)!) z^j` over
/// j = 1 to k, which is the Bessel function of spec 1.2.
fn beyond_one(k: u32, z: f64) -> f64 {
    let (mut sum, mut term) = (0.0, 1.0);
    for j in 1..=k {
        term *= z * f64::from(2 * (k - j + 1)) / f64::from(j * (2 * k - j + 1));
        sum += term;
    }
    sum
}

/// log sum exp; minus infinity where every term is.
fn log_sum_exp(terms: impl Iterator<Item = f64> + Clone) -> f64 {
    let max = terms.clone().fold(f64::NEG_INFINITY, |m, l| if l > m || l.is_nan() { l } else { m });
    if max == f64::NEG_INFINITY {
        return max;
    }
    max + terms.map(|l| (l - max).exp()).sum::<f64>().ln()
}

/// ||y - x||.
fn distance(x: &[f64], y: &[f64]) -> f64 {
    squared_distance(x, y).sqrt()
}

fn squared_distance(x: &[f64], y: &[f64]) -> f64 {
    x.iter().zip(y).map(|(x, y)| (y - x) * (y - x)).sum()
}
