//! The sliced Wasserstein distance.

use crate::rng::{Purpose, Stream};
use crate::{Error, Result};
use rayon::prelude::*;

/// The sliced Wasserstein distance of order 1 and 2 between two sets of n points, [n, D] each.
///
/// `SWD_p = (mean over directions l and ranks i of |a_(i) - b_(i)|^p)^{1/p}` over `projections` directions uniform on
/// the sphere, fixed by `seed` (spec 9). Two independent draws of one distribution do not give 0: for 2,048 points in
/// the plane SWD_1 between them is 0.010 to 0.025.
///
/// # Errors
/// [`Error::Shape`] where the sets differ in size; [`Error::Value`] where n, D or `projections` is 0 or above 1,000,000.
///
/// ```
/// let a = [0.0f32, 0.0, 1.0, 0.0];
/// let b = [1.0f32, 0.0, 0.0, 0.0];
/// assert_eq!(cudrift::metrics::sliced_wasserstein(&a, &b, 2, 200, 0)?, [0.0, 0.0]);
/// # Ok::<(), cudrift::Error>(())
/// ```
pub fn sliced_wasserstein(a: &[f32], b: &[f32], dim: usize, projections: usize, seed: u64) -> Result<[f64; 2]> {
    const OP: &str = "sliced Wasserstein distance";
    if a.len() != b.len() {
        return Err(Error::shape(OP, "the second set", [a.len()], [b.len()]));
    }
    if dim == 0 || a.is_empty() || !a.len().is_multiple_of(dim) {
        return Err(Error::value(OP, "the number of coordinates", "a divisor of the set's length", dim));
    }
    if !(1..=1_000_000).contains(&projections) {
        return Err(Error::value(OP, "projections", "1 to 1,000,000", projections));
    }
    let parts: Vec<[f64; 2]> = (0..projections)
        .into_par_iter()
        .map(|l| {
            let direction = Stream::new(seed, Purpose::Projections, l as u64).normals(dim);
            let norm = direction.iter().map(|v| v * v).sum::<f32>().sqrt();
            let sorted = |set: &[f32]| {
                let project = |x: &[f32]| x.iter().zip(&direction).map(|(x, g)| x * g).sum::<f32>() / norm;
                let mut values: Vec<f32> = set.chunks_exact(dim).map(project).collect();
                values.sort_unstable_by(f32::total_cmp);
                values
            };
            let gaps = sorted(a).into_iter().zip(sorted(b)).map(|(a, b)| f64::from((a - b).abs()));
            gaps.fold([0.0, 0.0], |[one, two], gap| [one + gap, two + gap * gap])
        })
        .collect();
    let count = (projections * a.len() / dim) as f64;
    let [one, two] = parts.into_iter().fold([0.0, 0.0], |sum, part| [sum[0] + part[0], sum[1] + part[1]]);
    Ok([one / count, (two / count).sqrt()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shift_of_the_line_is_its_length() {
        let a: Vec<f32> = (0..100).map(|k| k as f32).collect();
        let b: Vec<f32> = a.iter().rev().map(|v| v + 3.0).collect();
        for swd in sliced_wasserstein(&a, &b, 1, 10, 1).unwrap() {
            assert!((swd - 3.0).abs() <= 1e-6, "{swd}");
        }
    }

    #[test]
    fn a_shift_in_the_plane_is_its_mean_projection() {
        // E|cos| = 2/pi and E cos² = 1/2 over directions.
        let a = vec![0.0; 2 * 64];
        let b: Vec<f32> = (0..64).flat_map(|_| [1.0, 0.0]).collect();
        let [one, two] = sliced_wasserstein(&a, &b, 2, 20_000, 5).unwrap();
        assert!((one - std::f64::consts::FRAC_2_PI).abs() <= 0.01, "{one}");
        assert!((two - 0.5f64.sqrt()).abs() <= 0.01, "{two}");
    }
}
