//! Precision, recall, density and coverage by nearest neighbours.

use super::pairs::{Panels, ROWS};
use super::points;
use crate::{Error, Result};
use rayon::prelude::*;

/// How two sets overlap, by the balls about their points; see [`prdc`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prdc {
    /// Share of the generated points that lie in the ball of at least one real point, in [0, 1].
    pub precision: f64,
    /// Share of the real points that lie in the ball of at least one generated point, in [0, 1].
    pub recall: f64,
    /// In how many real points' balls a generated point lies on average, over k; may exceed 1.
    pub density: f64,
    /// Share of the real points whose ball holds at least one generated point, in [0, 1].
    pub coverage: f64,
}

/// Nearest-neighbour precision, recall, density and coverage of generated points [m, D] against real ones [n, D].
///
/// The ball of a point is closed; its radius is the distance to the k-th nearest *other* point of the same set, one
/// that coincides with it counting as another. With B(x) that ball,
///
/// ```text
/// precision = (1/m) sum_j 1[some i: y_j in B(x_i)]    recall   = (1/n) sum_i 1[some j: x_i in B(y_j)]
/// density   = (1/km) sum_j sum_i 1[y_j in B(x_i)]     coverage = (1/n) sum_i 1[some j: y_j in B(x_i)]
/// ```
///
/// for real x and generated y. Precision and recall: Kynkäänniemi et al., "Improved precision and recall metric for
/// assessing generative models", 2019, equation 2. Density and coverage: Naeem et al., "Reliable fidelity and diversity
/// metrics for generative models", 2020, section 3. k = 5 is usual; compare only numbers of the same k, n and m.
/// Between two draws of one distribution the expected coverage is 1 - C(n-1, k) / C(2n-1, k) where n = m, near 0.97 for
/// k = 5, and the expected density is 1.
///
/// # Errors
/// [`Error::Value`] where the sets are not of D coordinates or have one that is not finite, or where k is 0 or not
/// below both n and m; [`Error::TooLarge`] where memory does not suffice.
///
/// ```
/// let (real, generated) = ([0.0f32, 1.0, 2.0, 9.0], [0.5f32, 1.5, 30.0]);
/// let prdc = cudrift::metrics::prdc(&real, &generated, 1, 1)?;
/// assert_eq!((prdc.precision, prdc.coverage), (2.0 / 3.0, 3.0 / 4.0));
/// # Ok::<(), cudrift::Error>(())
/// ```
pub fn prdc(real: &[f32], generated: &[f32], dim: usize, k: usize) -> Result<Prdc> {
    const OP: &str = "precision and coverage";
    let n = points(OP, "the real set", real, dim, 1)?;
    let m = points(OP, "the generated set", generated, dim, 1)?;
    if k == 0 || k >= n.min(m) {
        return Err(Error::value(OP, "k", format!("at least 1 and below {n} and {m}, the numbers of points"), k));
    }
    let real = Balls::new(OP, real, dim, k)?;
    let generated = Balls::new(OP, generated, dim, k)?;
    let (of_real, of_generated) = (real.meet(&generated), generated.meet(&real));
    let share = |count: u64, of: usize| count as f64 / of as f64;
    Ok(Prdc {
        precision: share(of_generated.inside, m),
        recall: share(of_real.inside, n),
        density: share(of_generated.balls, k * m),
        coverage: share(of_real.covered, n),
    })
}

/// Points with their balls.
struct Balls<'a> {
    points: &'a [f32],
    dim: usize,
    panels: Panels,
    /// Squared.
    radii: Vec<f64>,
}

/// What the points of one set have to do with another set's.
#[derive(Clone, Copy, Default)]
struct Meeting {
    /// Points in at least one ball of the other set.
    inside: u64,
    /// In how many balls of the other set they are, all together.
    balls: u64,
    /// Points whose own ball holds one of the other set.
    covered: u64,
}

impl<'a> Balls<'a> {
    fn new(op: &'static str, points: &'a [f32], dim: usize, k: usize) -> Result<Self> {
        let panels = Panels::new(op, points, dim)?;
        let block = |(block, rows): (usize, &[f32])| -> Vec<f64> {
            // The k nearest of each point so far, in ascending order.
            let mut nearest = vec![f64::INFINITY; rows.len() / dim * k];
            panels.each(rows, |i, j, distances| {
                let nearest = &mut nearest[i * k..(i + 1) * k];
                for (j, d) in (j..).zip(distances) {
                    if *d < nearest[k - 1] && j != block * ROWS + i {
                        let at = nearest.partition_point(|near| near <= d);
                        nearest.copy_within(at..k - 1, at + 1);
                        nearest[at] = *d;
                    }
                }
            });
            nearest.chunks_exact(k).map(|nearest| nearest[k - 1]).collect()
        };
        let radii: Vec<Vec<f64>> = points.par_chunks(ROWS * dim).enumerate().map(block).collect();
        Ok(Self { points, dim, panels, radii: radii.concat() })
    }

    fn meet(&self, other: &Balls<'_>) -> Meeting {
        let block = |(rows, radii): (&[f32], &[f64])| {
            let mut met = vec![(0u64, false); radii.len()];
            other.panels.each(rows, |i, j, distances| {
                let (balls, covered) = &mut met[i];
                for (d, radius) in distances.iter().zip(&other.radii[j..]) {
                    *balls += u64::from(d <= radius);
                    *covered |= *d <= radii[i];
                }
            });
            met.into_iter().fold(Meeting::default(), |sum, (balls, covered)| Meeting {
                inside: sum.inside + u64::from(balls > 0),
                balls: sum.balls + balls,
                covered: sum.covered + u64::from(covered),
            })
        };
        let add = |a: Meeting, b: Meeting| Meeting {
            inside: a.inside + b.inside,
            balls: a.balls + b.balls,
            covered: a.covered + b.covered,
        };
        let blocks = self.points.par_chunks(ROWS * self.dim).zip(self.radii.par_chunks(ROWS));
        blocks.map(block).reduce(Meeting::default, add)
    }
}

#[cfg(test)]
mod tests {
    use super::super::pairs::tests::{random, squared};
    use super::*;

    #[test]
    fn a_line_by_hand() {
        // k = 1. Radii of the real points 0, 1, 3, 10: 1, 1, 2, 7; balls [-1, 1], [0, 2], [1, 5], [3, 17].
        // Radii of the generated points 2, 4, 18, 20.5: 2, 2, 2.5, 2.5; balls [0, 4], [2, 6], [15.5, 20.5], [18, 23].
        let (real, generated) = ([0.0, 1.0, 3.0, 10.0], [2.0, 4.0, 18.0, 20.5]);
        // 2 lies in two real balls, one on its border, 4 in two; 18 and 20.5 in none.
        // Of the real points 0, 1 and 3 lie in generated balls; the balls of 1, 3 and 10 hold 2, both, and 4.
        let want = Prdc { precision: 0.5, recall: 0.75, density: 1.0, coverage: 0.75 };
        assert_eq!(prdc(&real, &generated, 1, 1).unwrap(), want);
        // k = 3, the whole set: radii 10, 9, 7, 10 reach 10, 10, 10 and 20.
        let three = prdc(&real, &generated, 1, 3).unwrap();
        assert_eq!((three.precision, three.density), (0.75, 9.0 / 12.0));
        assert_eq!(three.coverage, 1.0);
    }

    #[test]
    fn a_point_that_occurs_twice_is_its_own_neighbour() {
        let real = [0.0, 0.0, 5.0];
        let near = prdc(&real, &[0.1, 7.0], 1, 1).unwrap();
        assert_eq!((near.precision, near.coverage), (1.0, 1.0 / 3.0));
        // A ball of radius 0 is its point.
        assert_eq!(prdc(&real, &[0.0, 20.0], 1, 1).unwrap().coverage, 1.0);
    }

    #[test]
    fn the_blocks_find_what_the_definition_finds() {
        for (n, m, dim, k) in [(2, 2, 1, 1), (9, 7, 2, 5), (130, 71, 3, 5), (65, 200, 40, 3)] {
            let (x, y) = (random(n, dim, 1), random(m, dim, 2));
            let radius = |set: &[f32], i| {
                let others = (0..set.len() / dim).filter(|j| *j != i);
                let mut distances: Vec<f64> = others.map(|j| squared(set, i, set, j, dim)).collect();
                distances.sort_unstable_by(f64::total_cmp);
                distances[k - 1]
            };
            let real: Vec<f64> = (0..n).map(|i| radius(&x, i)).collect();
            let generated: Vec<f64> = (0..m).map(|j| radius(&y, j)).collect();
            let d = |i, j| squared(&x, i, &y, j, dim);
            let balls: Vec<usize> = (0..m).map(|j| (0..n).filter(|i| d(*i, j) <= real[*i]).count()).collect();
            let share = |count: usize, of: usize| count as f64 / of as f64;
            let want = Prdc {
                precision: share(balls.iter().filter(|count| **count > 0).count(), m),
                recall: share((0..n).filter(|i| (0..m).any(|j| d(*i, j) <= generated[j])).count(), n),
                density: share(balls.iter().sum(), k * m),
                coverage: share((0..n).filter(|i| (0..m).any(|j| d(*i, j) <= real[*i])).count(), n),
            };
            assert_eq!(prdc(&x, &y, dim, k).unwrap(), want, "{n} {m} {dim} {k}");
        }
    }

    #[test]
    fn two_draws_overlap_and_a_shift_does_not() {
        let (n, dim) = (1000, 3);
        let (a, b) = (random(n, dim, 1), random(n, dim, 2));
        let same = prdc(&a, &b, dim, 5).unwrap();
        assert!((same.coverage - 31.0 / 32.0).abs() <= 0.02, "{same:?}");
        assert!((same.density - 1.0).abs() <= 0.1 && same.precision.min(same.recall) >= 0.9, "{same:?}");
        // Half of it far away: half as precise, and nothing lost of the rest but by chance.
        let half: Vec<f32> = b.iter().enumerate().map(|(k, v)| if k < b.len() / 2 { v + 50.0 } else { *v }).collect();
        let half = prdc(&a, &half, dim, 5).unwrap();
        assert!((half.precision - same.precision / 2.0).abs() <= 0.02 && half.recall > 0.9, "{half:?}");
        let far: Vec<f32> = b.iter().map(|v| v + 50.0).collect();
        assert_eq!(prdc(&a, &far, dim, 5).unwrap(), Prdc { precision: 0.0, recall: 0.0, density: 0.0, coverage: 0.0 });
    }

    #[test]
    fn impossible_arguments_are_refused() {
        for (real, generated, dim, k) in [
            (&[0.0; 4][..], &[0.0; 4][..], 0, 1),
            (&[0.0; 4], &[0.0; 3], 2, 1),
            (&[0.0; 4], &[0.0; 4], 1, 0),
            (&[0.0; 4], &[0.0; 6], 1, 4),
            (&[0.0; 6], &[0.0; 4], 1, 4),
            (&[], &[], 1, 1),
            (&[0.0; 4], &[0.0, f32::NAN, 0.0], 1, 1),
            (&[0.0, f32::INFINITY, 0.0], &[0.0; 4], 1, 1),
        ] {
            assert!(matches!(prdc(real, generated, dim, k), Err(Error::Value { .. })), "{real:?} {generated:?}");
        }
    }
}
