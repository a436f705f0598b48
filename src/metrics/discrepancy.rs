//! The maximum mean discrepancy with a Gaussian kernel.

use super::pairs::{Panels, ROWS};
use super::points;
use crate::{Error, Result};
use rayon::prelude::*;

/// The squared maximum mean discrepancy between two sets, [n, D] and [m, D], n and m at least 2, without bias.
///
/// `MMD² = mean_{i≠j} k(a_i, a_j) + mean_{i≠j} k(b_i, b_j) - 2 mean_{ij} k(a_i, b_j)` with `k = exp(-r² / (2 h²))`
/// (spec 9; Gretton et al. 2012, equation 3), averaged over the bandwidths h, which are in the units of the
/// coordinates. The kernel and [`median_distance`] as its bandwidth are this project's choice. The expectation between
/// two draws of one distribution is 0, so that a value may be negative.
///
/// # Errors
/// [`Error::Value`] where the sets are not of D coordinates, have fewer than two points or a coordinate that is not
/// finite, where there is no bandwidth, or one outside 1e-12 to 1e12; [`Error::TooLarge`] where memory does not
/// suffice.
///
/// ```
/// use cudrift::metrics::{maximum_mean_discrepancy, median_distance};
/// let (a, b) = ([0.0f32, 1.0, 2.0], [10.0f32, 11.0, 12.0]);
/// let h = median_distance(&a, &b, 1)?;
/// assert_eq!(h, 9.0);
/// assert!(maximum_mean_discrepancy(&a, &b, 1, &[h])? > 0.5);
/// # Ok::<(), cudrift::Error>(())
/// ```
pub fn maximum_mean_discrepancy(a: &[f32], b: &[f32], dim: usize, bandwidths: &[f64]) -> Result<f64> {
    const OP: &str = "maximum mean discrepancy";
    let n = points(OP, "the first set", a, dim, 2)? as f64;
    let m = points(OP, "the second set", b, dim, 2)? as f64;
    if bandwidths.is_empty() {
        return Err(Error::value(OP, "the number of bandwidths", "at least 1", 0));
    }
    if let Some(h) = bandwidths.iter().find(|h| !(1e-12..=1e12).contains(*h)) {
        return Err(Error::value(OP, "a bandwidth", "a number from 1e-12 to 1e12", h));
    }
    let rates: Vec<f64> = bandwidths.iter().map(|h| -0.5 / (h * h)).collect();
    let kernels = |rows: &[f32], panels: &Panels| -> f64 {
        let block = |rows| {
            let mut sum = 0.0;
            panels.each(rows, |_, _, distances| {
                for d in distances {
                    sum += rates.iter().map(|rate| (rate * d).exp()).sum::<f64>();
                }
            });
            sum
        };
        let parts: Vec<f64> = rows.par_chunks(ROWS * dim).map(block).collect();
        parts.into_iter().sum::<f64>() / rates.len() as f64
    };
    let (panels_a, panels_b) = (Panels::new(OP, a, dim)?, Panels::new(OP, b, dim)?);
    // A point's kernel with itself is 1.
    let within = |rows, panels, n: f64| (kernels(rows, panels) - n) / (n * (n - 1.0));
    Ok(within(a, &panels_a, n) + within(b, &panels_b, m) - 2.0 * kernels(a, &panels_b) / (n * m))
}

/// The median distance between any two points of two sets taken together, [n, D] and [m, D], in the units of the
/// coordinates: the usual bandwidth of [`maximum_mean_discrepancy`] (spec 9).
///
/// Over all (n + m)(n + m - 1) / 2 pairs, the lower one of two medians, in f32 precision.
///
/// # Errors
/// [`Error::Value`] where the sets are not of D coordinates, are empty or have a coordinate that is not finite;
/// [`Error::TooLarge`] where memory does not suffice.
pub fn median_distance(a: &[f32], b: &[f32], dim: usize) -> Result<f64> {
    const OP: &str = "median distance";
    let n = points(OP, "the first set", a, dim, 1)? + points(OP, "the second set", b, dim, 1)?;
    let pooled = [a, b].concat();
    let panels = Panels::new(OP, &pooled, dim)?;
    // Every pair is met twice, and before all of them in order comes each point with itself.
    let mut rank = (n + 2 * ((n * (n - 1) / 2 - 1) / 2)) as u64;
    // Numbers >= 0 have the order of their bits, which are found 16 at a time, by counting.
    let mut median = 0u32;
    for shift in [16, 0] {
        let none = || vec![0u64; 1 << 16];
        let count = |mut counts: Vec<u64>, rows: &[f32]| {
            panels.each(rows, |_, _, distances| {
                for d in distances {
                    let bits = (d.sqrt() as f32).to_bits();
                    if bits.checked_shr(shift + 16) == median.checked_shr(shift + 16) {
                        counts[usize::from((bits >> shift) as u16)] += 1;
                    }
                }
            });
            counts
        };
        let add = |mut sum: Vec<u64>, counts: Vec<u64>| {
            sum.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
            sum
        };
        let counts = pooled.par_chunks(ROWS * dim).fold(none, count).reduce(none, add);
        let mut digit = 0;
        while rank >= counts[digit] {
            rank -= counts[digit];
            digit += 1;
        }
        median |= (digit as u32) << shift;
    }
    Ok(f64::from(f32::from_bits(median)))
}

#[cfg(test)]
mod tests {
    use super::super::pairs::tests::{random, squared};
    use super::*;

    #[test]
    fn two_points_each_by_hand() {
        // a = {0, 2}, b = {1, 4}: distances 2 and 3 within, 1, 4, 1, 2 between.
        let k = |r: f64, h: f64| (-r * r / (2.0 * h * h)).exp();
        let by_hand = |h| k(2.0, h) + k(3.0, h) - (k(1.0, h) + k(4.0, h) + k(1.0, h) + k(2.0, h)) / 2.0;
        let mmd = |bandwidths: &[f64]| maximum_mean_discrepancy(&[0.0, 2.0], &[1.0, 4.0], 1, bandwidths).unwrap();
        assert!((mmd(&[1.5]) - by_hand(1.5)).abs() <= 1e-15);
        assert!((mmd(&[1.5, 0.3]) - (by_hand(1.5) + by_hand(0.3)) / 2.0).abs() <= 1e-15);
    }

    #[test]
    fn the_blocks_add_up_to_the_plain_sums() {
        for (n, m, dim) in [(2, 3, 1), (70, 33, 3), (130, 200, 40)] {
            let (a, b) = (random(n, dim, 1), random(m, dim, 2));
            let h = (dim as f64).sqrt();
            let sum = |a: &[f32], n, b: &[f32], m, same: bool| {
                let pairs = (0..n).flat_map(|i| (0..m).map(move |j| (i, j))).filter(|(i, j)| !same || i != j);
                pairs.map(|(i, j)| (-squared(a, i, b, j, dim) / (2.0 * h * h)).exp()).sum::<f64>()
            };
            let mean = |a: &[f32], n| sum(a, n, a, n, true) / (n * (n - 1)) as f64;
            let want = mean(&a, n) + mean(&b, m) - 2.0 * sum(&a, n, &b, m, false) / (n * m) as f64;
            let got = maximum_mean_discrepancy(&a, &b, dim, &[h]).unwrap();
            assert!((got - want).abs() <= 1e-13, "{n} {m} {dim}: {got} {want}");

            let pooled = [&a[..], &b].concat();
            let mut distances: Vec<f32> = (1..n + m)
                .flat_map(|i| (0..i).map(move |j| (i, j)))
                .map(|(i, j)| squared(&pooled, i, &pooled, j, dim).sqrt() as f32)
                .collect();
            distances.sort_unstable_by(f32::total_cmp);
            let median = distances[(distances.len() - 1) / 2];
            assert_eq!(median_distance(&a, &b, dim).unwrap(), f64::from(median), "{n} {m} {dim}");
        }
    }

    #[test]
    fn two_draws_are_nearer_than_a_shift() {
        let (n, dim) = (500, 4);
        let (a, b) = (random(n, dim, 1), random(n, dim, 2));
        let shifted: Vec<f32> = b.iter().map(|v| v + 0.5).collect();
        let mmd = |b: &[f32]| maximum_mean_discrepancy(&a, b, dim, &[median_distance(&a, b, dim).unwrap()]).unwrap();
        assert!(mmd(&b).abs() <= 5e-3, "{}", mmd(&b));
        assert!(mmd(&shifted) >= 0.05, "{}", mmd(&shifted));
    }

    #[test]
    fn the_threads_leave_no_trace() {
        let (a, b) = (random(700, 3, 1), random(500, 3, 2));
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                (maximum_mean_discrepancy(&a, &b, 3, &[0.5, 2.0]).unwrap(), median_distance(&a, &b, 3).unwrap())
            })
        };
        assert_eq!(on(1), on(5));
    }

    #[test]
    fn coinciding_points_have_no_distance() {
        assert_eq!(median_distance(&[1.0; 6], &[1.0; 2], 2).unwrap(), 0.0);
        assert_eq!(median_distance(&[3.0], &[-1.0], 1).unwrap(), 4.0);
    }

    #[test]
    fn impossible_arguments_are_refused() {
        let refused = |a: &[f32], b: &[f32], dim, bandwidths: &[f64]| {
            assert!(matches!(maximum_mean_discrepancy(a, b, dim, bandwidths), Err(Error::Value { .. })));
        };
        let a = [0.0; 4];
        refused(&a, &a, 0, &[1.0]);
        refused(&a, &a, 3, &[1.0]);
        refused(&a, &a[..1], 1, &[1.0]);
        refused(&a, &a, 4, &[1.0]);
        refused(&a, &[0.0, f32::NAN], 1, &[1.0]);
        refused(&[f32::INFINITY, 0.0], &a, 1, &[1.0]);
        for bandwidths in [&[][..], &[0.0], &[1.0, -1.0], &[f64::NAN], &[f64::INFINITY]] {
            refused(&a, &a, 1, bandwidths);
        }
        assert!(matches!(median_distance(&[], &a, 1), Err(Error::Value { .. })));
    }
}
