//! What a drift call gives, whichever backend computed it.

use crate::{DriftInputs, Element, Scale};

/// The result of one drift call.
#[derive(Clone, Debug, PartialEq)]
pub struct Drift {
    /// F_tot, the drift in units of the scaled coordinates, [B, G, D] (spec 2.2 (6)).
    pub force: Vec<f32>,
    /// The loss of each group, `[B]` (spec 2.2 (8)).
    pub loss: Vec<f32>,
    /// The global length scale.
    pub scale: Scale,
    /// f2, the mean square of each temperature's force, `[R]`: what to watch during training (spec 2.3).
    pub loss_r: Vec<f64>,
    /// How near each temperature's plans came to their marginals, `[R]`.
    pub convergence: Vec<Convergence>,
    /// How many input coordinates are NaN or infinite; where it is not 0, outputs may be NaN. They may also be where
    /// points lie more than 1e19 apart, since squared distances are f32.
    pub nonfinite: u64,
    pub(crate) elements_per_group: usize,
}

impl Drift {
    /// Gradient of the sum of the losses with respect to the generated samples, [B, G, D]:
    /// `-2 F_tot / (G D sigma)` (spec 5).
    pub fn gradient(&self) -> Vec<f32> {
        let factor = (-2.0 / (self.elements_per_group as f64 * self.scale.sigma)) as f32;
        self.force.iter().map(|f| factor * f).collect()
    }

    /// As [`Drift::gradient`], in the memory of the force.
    pub fn into_gradient(mut self) -> Vec<f32> {
        let factor = (-2.0 / (self.elements_per_group as f64 * self.scale.sigma)) as f32;
        self.force.iter_mut().for_each(|f| *f *= factor);
        self.force
    }

    /// The frozen regression target `x / sigma + F_tot`, [B, G, D] (spec 2.2 (7)), for the inputs of the call.
    pub fn goal<T: Element>(&self, inputs: &DriftInputs<'_, T>) -> Vec<f32> {
        let generated = inputs.generated().as_slice();
        let scaled = |x: &T| (f64::from(x.to_f32()) / self.scale.sigma) as f32;
        generated.iter().zip(&self.force).map(|(x, f)| scaled(x) + f).collect()
    }
}

/// How the affinities of one temperature are spread, as means over the queries of a call; each of the negatives, then of
/// the positives.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RowMeans {
    /// The mass sum_j A_ij of a row: S-, S+ of spec 2.2 (6).
    pub mass: [f64; 2],
    /// The effective sample size (sum_j A_ij)^2 / sum_j A_ij^2 of a row (spec 6.6), from 1 to the block's size; 0 where
    /// the block has no mass, or none that f32 holds.
    pub effective: [f64; 2],
}

/// How near the plans of one temperature came to their marginals (spec 7.1): the worst of all groups and blocks. Zeros but
/// for [`Coupling::Sinkhorn`](crate::Coupling::Sinkhorn).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Convergence {
    /// The most iterations that a plan took.
    pub iterations: u32,
    /// The greatest mean of |row sum / marginal - 1| over a plan's rows after its last iteration; its column sums are then
    /// exact.
    pub error: f64,
}

impl Convergence {
    /// The worse of both.
    pub(crate) fn worst(self, other: Self) -> Self {
        // A NaN stays.
        let error = if self.error > other.error || self.error.is_nan() { self.error } else { other.error };
        Self { iterations: self.iterations.max(other.iterations), error }
    }
}
