//! Distances between samples of distributions (spec 9), and what nearest neighbours say of them.
//!
//! A set of n points is [n, D] in f32, by rows. Sums are f64 and in a fixed order; results do not depend on threads.
//! Memory grows with n + m, never with n m. None of these numbers is 0 or 1 for two draws of one distribution: compute
//! them between two halves of the data as well, and compare.

mod discrepancy;
mod neighbours;
mod pairs;
mod sliced;

pub use discrepancy::{maximum_mean_discrepancy, median_distance};
pub use neighbours::{Prdc, prdc};
pub use sliced::sliced_wasserstein;

use crate::{Error, Result};

/// How many points a set has.
///
/// # Errors
/// [`Error::Value`] where it is not a whole number of points, fewer than `least`, or a coordinate is not finite.
fn points(op: &'static str, argument: &'static str, set: &[f32], dim: usize, least: usize) -> Result<usize> {
    if dim == 0 || !set.len().is_multiple_of(dim) {
        return Err(Error::value(op, "the number of coordinates", "a divisor of the set's length", dim));
    }
    let n = set.len() / dim;
    if n < least {
        return Err(Error::value(op, argument, format!("a set of at least {least} points"), format!("one of {n}")));
    }
    Error::check_finite(op, argument, set)?;
    Ok(n)
}
