//! Fields in the place of a drift.

use crate::{DriftShape, Error, FieldSpec, Projection, Result, Velocity};
use std::sync::Arc;

/// What generated samples are regressed along in the place of a drift: each x onto x + `step` V(x) (spec 5), for a field V
/// between the batch of data, p, and the batch of generated samples, q, or the other half of it
/// ([`Config::independent`](super::Config::independent)).
#[derive(Clone, Debug, PartialEq)]
pub struct Transport {
    /// Which field.
    pub along: Along,
    /// By how much of it samples are to move; not 0.
    pub step: f64,
    /// Whether V is divided by the root of its mean square over the batch, as a drift's forces are (spec 2.2 (6)).
    pub normalize: bool,
}

/// A field.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub enum Along {
    /// One that comes of a kernel, in units of the raw distance.
    Kernel {
        /// The kernel, and whether a sample is left out of its own q.
        spec: FieldSpec,
        /// What is made of its sums.
        velocity: Velocity,
        /// Whether V is taken at `x + tau eps` with normal numbers eps, in the place of x: with the Gaussian and
        /// [`Velocity::Score`] that is SD-Flow (spec 8.7). All of a step, features too, have the same numbers.
        noised: bool,
    },
    /// The sliced Wasserstein field (spec 8.9), along so many directions, others in every step.
    Sliced {
        /// L, at least 1.
        directions: usize,
    },
    /// The mean shift whose attraction is that of all data by way of landmarks (DriftXpress, spec 8.11), and whose
    /// repulsion is exact; of the samples themselves, without classes. The data of the batch are not looked at.
    Projected(Arc<Projection>),
    /// One of the caller's, which every step is given: [`Trainer::step_along`](super::Trainer::step_along).
    External,
}

/// Several drifts, or fields, in the place of one, each taken where the one before leads (spec 8.2).
///
/// The paper's recursion is not known; this is the project's: `x_0 = x`, `V_m` the drift of the samples x_m among one
/// another and the data, `U_m = V_m rms(V_0) / rms(V_m)`, `x_(m+1) = x_m + step U_m`, and the generator regresses onto
/// `x + sum_m weights_m U_m`. With the one weight 1 that is the drift itself. Along a field V_m is what samples are to move
/// by, [`Transport::step`] and all.
#[derive(Clone, Debug, PartialEq)]
pub struct Lookahead {
    /// c_m, one for each drift.
    pub weights: Vec<f64>,
    /// How far along each drift the next is taken.
    pub step: f64,
}

impl Lookahead {
    /// Checks the numbers.
    ///
    /// # Errors
    /// [`Error::Value`] where there is no weight, one is not finite, or the step is not.
    pub fn validate(&self) -> Result<()> {
        if self.weights.is_empty() {
            return Err(Error::value("lookahead", "weights", "at least one", "none"));
        }
        if let Some(weight) = self.weights.iter().find(|weight| !weight.is_finite()) {
            return Err(Error::value("lookahead", "weights", "finite numbers", weight));
        }
        if !self.step.is_finite() {
            return Err(Error::value("lookahead", "step", "a finite number", self.step));
        }
        Ok(())
    }

    /// Refuses several heads too: which of them a sample would follow is not said.
    pub(crate) fn check(&self, heads: usize) -> Result<()> {
        self.validate()?;
        if heads != 1 {
            return Err(Error::value("lookahead", "heads of the drift", "one", heads));
        }
        Ok(())
    }
}

impl Transport {
    /// The least mean square of a field that is normalised: below it samples see nothing.
    pub(crate) const NORM_FLOOR: f64 = 1e-30;

    /// A field whose whole step is taken as it is.
    pub fn new(along: Along) -> Self {
        Self { along, step: 1.0, normalize: false }
    }

    /// Checks the numbers.
    ///
    /// # Errors
    /// [`Error::Value`] for a bandwidth outside its range, as [`Velocity::validate`], for no directions, and for a step
    /// that is 0 or not finite.
    pub fn validate(&self) -> Result<()> {
        match &self.along {
            Along::Kernel { spec, velocity, .. } => {
                spec.validate()?;
                velocity.validate()?;
            }
            Along::Sliced { directions: 0 } => return Err(Error::value("training", "directions", "at least 1", 0)),
            Along::Sliced { .. } | Along::Projected(_) | Along::External => {}
        }
        if self.step == 0.0 || !self.step.is_finite() {
            return Err(Error::value(
                "training",
                "the step along the field",
                "a finite number other than 0",
                self.step,
            ));
        }
        Ok(())
    }

    /// Whether a field of these extents can be had.
    ///
    /// # Errors
    /// As [`Transport::validate`]; [`Error::Shape`] where landmarks have other coordinates, [`Error::Value`] where there
    /// are negatives and the field has no q, and for [`Along::External`].
    pub(crate) fn check(&self, shape: &DriftShape) -> Result<()> {
        self.validate()?;
        match &self.along {
            Along::Projected(projection) if projection.dim() != shape.dim => {
                Err(Error::shape("training", "the landmarks", ["M", &shape.dim.to_string()], projection.dim()))
            }
            Along::External => Err(Self::missing()),
            Along::Sliced { .. } if shape.negatives > 0 => {
                Err(Error::value("training", "the field", "one with a set of its own, that can be independent", "none"))
            }
            _ => Ok(()),
        }
    }

    /// The kernel of the field between samples, if it has one, and whether a sample is left out of its q: not where that
    /// is another set.
    pub(crate) fn own(&self, shape: &DriftShape) -> Option<FieldSpec> {
        let spec = match &self.along {
            Along::Kernel { spec, .. } => *spec,
            Along::Projected(projection) => *projection.spec(),
            Along::Sliced { .. } | Along::External => return None,
        };
        Some(FieldSpec { self_mask: spec.self_mask && shape.negatives == 0, ..spec })
    }

    /// What annealing multiplies: the bandwidth, where there is one that can change.
    pub(crate) fn temperatures(&self) -> &[f64] {
        match &self.along {
            Along::Kernel { spec, .. } => std::slice::from_ref(&spec.bandwidth),
            Along::Sliced { .. } | Along::Projected(_) | Along::External => &[],
        }
    }

    /// The same with another bandwidth, the one of `temperatures`.
    pub(crate) fn set_bandwidth(&mut self, temperatures: &[f64]) -> Result<()> {
        match (&mut self.along, temperatures) {
            (Along::Kernel { spec, .. }, [bandwidth]) => {
                spec.bandwidth = *bandwidth;
                spec.validate()
            }
            _ => Err(Error::value("training", "temperatures", "one, the bandwidth of a kernel", temperatures.len())),
        }
    }

    /// The error of a step that [`Along::External`] was not given.
    pub(crate) fn missing() -> Error {
        Error::value("training", "the field", "one that the step is given (`Trainer::step_along`)", "none")
    }

    /// What n numbers of V whose squares add up to `squares` come to: the loss, `mean |step V|²`, and the factor that makes
    /// the gradient of V.
    pub(crate) fn regression(&self, squares: f64, n: usize) -> [f64; 2] {
        let mean = squares / n as f64;
        let step = if self.normalize { self.step / mean.max(Self::NORM_FLOOR).sqrt() } else { self.step };
        [step * step * mean, -2.0 * step / n as f64]
    }
}
