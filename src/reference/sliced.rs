//! The sliced Wasserstein field of spec 8.9.

use crate::SlicedInputs;
use crate::sliced::quantile;

/// The velocity of every query, [n, D], in f64.
pub fn sliced(inputs: &SlicedInputs<'_, f64>) -> Vec<f64> {
    let SlicedInputs { x, p, directions, dim } = *inputs;
    let [n, m, count, _] = inputs.shape();
    let mut velocity = vec![0.0; x.len()];
    for theta in directions.chunks(dim) {
        let along = |set: &[f64]| -> Vec<f64> {
            set.chunks(dim).map(|point| point.iter().zip(theta).map(|(v, t)| v * f64::from(*t)).sum()).collect()
        };
        let (from, mut to) = (along(x), along(p));
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by(|a, b| from[*a].total_cmp(&from[*b]));
        to.sort_by(f64::total_cmp);
        for (rank, i) in order.into_iter().enumerate() {
            let (below, above, share) = quantile(rank, n, m);
            let gap = (1.0 - share) * to[below] + share * to[above] - from[i];
            for (v, t) in velocity[i * dim..][..dim].iter_mut().zip(theta) {
                *v += dim as f64 / count as f64 * gap * f64::from(*t);
            }
        }
    }
    velocity
}
