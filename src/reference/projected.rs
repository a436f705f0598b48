//! The barycentre of all data by way of landmarks, spec 8.11.

use super::{distance, log_kernel};
use crate::Projection;

/// The barycentre that every query [n, D] sees, in f64.
pub fn projected(projection: &Projection, x: &[f64]) -> Vec<f64> {
    let (spec, dim) = (projection.spec(), projection.dim());
    let mut all = Vec::with_capacity(x.len());
    for x in x.chunks_exact(dim) {
        let mut sums = vec![0.0; dim + 1];
        for (u, c) in projection.landmarks().chunks_exact(dim).zip(projection.folded().chunks_exact(dim + 1)) {
            let u: Vec<f64> = u.iter().map(|v| f64::from(*v)).collect();
            let k = log_kernel(spec.kernel, distance(x, &u), spec.bandwidth).exp();
            sums.iter_mut().zip(c).for_each(|(sum, c)| *sum += k * c);
        }
        all.extend(projection.barycentre(&sums));
    }
    all
}
