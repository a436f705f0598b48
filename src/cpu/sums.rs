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

    /// The sums over all groups here: sum_ij d_ij w_j, sum_ij w_j over the same pairs, and sum_j w_j. What workers that
    /// cannot merge add up among one another, at the cost of the last digits' order.
    pub fn totals(&self, spec: &DriftSpec) -> [f64; 3] {
        let mut total = [0.0; 3];
        for group in &self.groups {
            for (total, part) in total.iter_mut().zip(group) {
                *total = add(spec, *total, *part);
            }
        }
        total
    }

    /// Those of `groups` groups in all whose totals were added up.
    pub fn of_totals(totals: [f64; 3], groups: usize, dim: usize, nonfinite: u64) -> Self {
        // One entry is all that a scale asks for; none where there is no group.
        Self { groups: vec![totals; groups.min(1)], dim, nonfinite }
    }

    /// The global scale.
    ///
    /// # Errors
    /// [`Error::Value`](crate::Error::Value) where every weight of the call is 0.
    pub fn finish(&self, spec: &DriftSpec) -> Result<Scale> {
        let total = self.totals(spec);
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

    /// The sums over all groups here, `[R]`. See [`ScaleSums::totals`].
    pub fn totals(&self, spec: &DriftSpec) -> Vec<f64> {
        let mut f2 = vec![0.0; spec.temperatures.len()];
        for group in &self.groups {
            for (total, part) in f2.iter_mut().zip(group) {
                *total = add(spec, *total, *part);
            }
        }
        f2
    }

    /// Those of `groups` groups in all of G · D elements each whose totals, `[R]`, were added up. How near plans came is not
    /// known of them.
    pub fn of_totals(totals: &[f64], groups: usize, elements_per_group: usize) -> Self {
        let convergence = vec![Convergence::default(); totals.len()];
        // As one group, of which nothing is left but its size.
        Self {
            groups: vec![totals.to_vec(); groups.min(1)],
            convergence,
            elements_per_group: groups.saturating_mul(elements_per_group),
        }
    }

    /// The global mean square and divisor of each temperature.
    pub fn finish(&self, spec: &DriftSpec, scale: &Scale) -> ForceNorms {
        let mut f2 = self.totals(spec);
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
