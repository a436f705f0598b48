//! The oracle: f64, one loop per formula, to be read beside the specification.
//!
//! No SIMD, no threads, no cleverness: distances are sums of squared differences, softmaxes subtract their maximum,
//! whole [G, T] matrices of one group are kept. Every backend is judged against these functions.
#![forbid(unsafe_code)]

mod drift;
mod field;

pub(crate) use drift::all_weights_zero;
pub use drift::{Drift, drift};
pub use field::field;

use crate::Kernel;

/// log k(r) for a length scale `tau` (spec 1.2, 1.3).
pub(crate) fn log_kernel(kernel: Kernel, r: f64, tau: f64) -> f64 {
    match kernel {
        // the polynomial's logarithm would make it inf - inf
        _ if r == f64::INFINITY => f64::NEG_INFINITY,
        Kernel::Laplace => -r / tau,
        Kernel::Gaussian => -r * r / (2.0 * tau * tau),
        Kernel::Matern32 => {
            let cr = 3f64.sqrt() / tau * r;
            cr.ln_1p() - cr
        }
        Kernel::Matern52 => {
            let cr = 5f64.sqrt() / tau * r;
            (cr + cr * cr / 3.0).ln_1p() - cr
        }
    }
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
