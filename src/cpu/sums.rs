//! Partial statistics of the phases, one entry per group, and the global scalars that follow from them.

use crate::spec::theta;
use crate::{Convergence, DriftSpec, Result, Scale};

/// Partial sums of phase A, one entry per group, from which the global scale follows.
///
/// Keeping the groups apart is what makes any chunking over B give the same bits.
#[derive(Clone, Debug, PartialEq)]
pub struct ScaleSums {
    /// sum_ij d_ij w_j, sum_ij w_j over the same pairs, and sum_j w_j, of each group.
    pub(super) groups: Vec<[f64; 3]>,
    pub(super) dim: usize,
    pub(super) nonfinite: u64,
}

impl ScaleSums {
    /// The sums of this worker's groups followed by those of `next`. Merge in the order of the groups.
    #[must_use]
    pub fn merge(mut self, next: Self) -> Self {
        self.groups.extend(next.groups);
        self.nonfinite += next.nonfinite;
        self
    }

    /// The global scale.
    ///
    /// # Errors
    /// [`Error::Value`](crate::Error::Value) where every weight of the call is 0.
    pub fn finish(&self, spec: &DriftSpec) -> Result<Scale> {
        let mut total = [0.0; 3];
        for group in &self.groups {
            for (total, part) in total.iter_mut().zip(group) {
                *total = add(spec, *total, *part);
            }
        }
        let [weighted_distance, weight, any_weight] = total;
        if !self.groups.is_empty() && any_weight == 0.0 {
            return Err(crate::reference::all_weights_zero());
        }
        let mean = if weight == 0.0 { 0.0 } else { weighted_distance / weight };
        let scale = Scale::from_mean_distance(spec, mean, self.dim);
        Ok(if self.groups.is_empty() { scale.of_nothing() } else { scale })
    }

    /// How many input coordinates of these groups are NaN or infinite.
    pub fn nonfinite(&self) -> u64 {
        self.nonfinite
    }
}

/// Partial sums of phase B, one entry per group: the squared force of each temperature.
#[derive(Clone, Debug, PartialEq)]
pub struct ForceSums {
    /// sum_id F_id² in raw coordinates, [B][R].
    pub(super) groups: Vec<Vec<f64>>,
    /// The worst of these groups' plans, `[R]`.
    pub(super) convergence: Vec<Convergence>,
    pub(super) elements_per_group: usize,
}

impl ForceSums {
    /// The sums of this worker's groups followed by those of `next`. Merge in the order of the groups.
    #[must_use]
    pub fn merge(mut self, next: Self) -> Self {
        self.groups.extend(next.groups);
        for (own, next) in self.convergence.iter_mut().zip(next.convergence) {
            *own = own.worst(next);
        }
        self
    }

    /// The global mean square and divisor of each temperature.
    pub fn finish(&self, spec: &DriftSpec, scale: &Scale) -> ForceNorms {
        let mut f2 = vec![0.0; spec.temperatures.len()];
        for group in &self.groups {
            for (total, part) in f2.iter_mut().zip(group) {
                *total = add(spec, *total, *part);
            }
        }
        let elements = (self.groups.len() * self.elements_per_group).max(1) as f64;
        for f2 in &mut f2 {
            *f2 /= elements * scale.sigma * scale.sigma;
        }
        let theta = f2.iter().map(|f2| theta(spec, *f2)).collect();
        ForceNorms { theta, f2, convergence: self.convergence.clone() }
    }
}

/// The force's global mean square of each temperature, and what each force is divided by.
#[derive(Clone, Debug, PartialEq)]
pub struct ForceNorms {
    /// f2, `[R]`: `loss_R` of spec 2.2 (8).
    pub f2: Vec<f64>,
    /// theta, `[R]`.
    pub theta: Vec<f64>,
    /// How near the plans came to their marginals, `[R]`.
    pub convergence: Vec<Convergence>,
}

/// `a + b` in the precision that the spec asks of global sums.
pub(super) fn add(spec: &DriftSpec, a: f64, b: f64) -> f64 {
    if spec.numerics.f64_sums { a + b } else { f64::from(a as f32 + b as f32) }
}
