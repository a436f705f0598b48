//! Fields in the place of a drift.

use crate::{Error, FieldSpec, Result, Velocity};

/// What generated samples are regressed along in the place of a drift: each x onto x + `step` V(x) (spec 5), for a field V
/// between the batch of data, p, and the batch of generated samples, q.
#[derive(Clone, Copy, Debug, PartialEq)]
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
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Along {
    /// One that comes of a kernel, in units of the raw distance.
    Kernel {
        /// The kernel, and whether a sample is left out of its own q.
        spec: FieldSpec,
        /// What is made of its sums.
        velocity: Velocity,
    },
    /// The sliced Wasserstein field (spec 8.9), along so many directions, others in every step.
    Sliced {
        /// L, at least 1.
        directions: usize,
    },
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
            Along::Kernel { spec, velocity } => {
                spec.validate()?;
                velocity.validate()?;
            }
            Along::Sliced { directions: 0 } => return Err(Error::value("training", "directions", "at least 1", 0)),
            Along::Sliced { .. } => {}
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

    /// What annealing multiplies: the bandwidth, where there is one.
    pub(crate) fn temperatures(&self) -> &[f64] {
        match &self.along {
            Along::Kernel { spec, .. } => std::slice::from_ref(&spec.bandwidth),
            Along::Sliced { .. } => &[],
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

    /// What n numbers of V whose squares add up to `squares` come to: the loss, `mean |step V|²`, and the factor that makes
    /// the gradient of V.
    pub(crate) fn regression(&self, squares: f64, n: usize) -> [f64; 2] {
        let mean = squares / n as f64;
        let step = if self.normalize { self.step / mean.max(Self::NORM_FLOOR).sqrt() } else { self.step };
        [step * step * mean, -2.0 * step / n as f64]
    }
}
