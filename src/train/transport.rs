//! Fields in the place of a drift.

use crate::{Error, FieldSpec, Result, Velocity};

/// A field that generated samples are regressed along: each x onto x + `step` V(x) (spec 5). V is a [`Velocity`] between
/// the batch of data, p, and the batch of generated samples, q.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Transport {
    /// The kernel, in units of the raw distance; and whether a sample is left out of its own q.
    pub spec: FieldSpec,
    /// Which field.
    pub velocity: Velocity,
    /// By how much of it samples are to move; not 0.
    pub step: f64,
    /// Whether V is divided by the root of its mean square over the batch, as a drift's forces are (spec 2.2 (6)).
    pub normalize: bool,
}

impl Transport {
    /// The least mean square of a field that is normalised: below it samples see nothing.
    pub(crate) const NORM_FLOOR: f64 = 1e-30;

    /// A field whose whole step is taken as it is.
    pub fn new(spec: FieldSpec, velocity: Velocity) -> Self {
        Self { spec, velocity, step: 1.0, normalize: false }
    }

    /// Checks the numbers.
    ///
    /// # Errors
    /// [`Error::Value`] for a bandwidth outside its range, a step that is 0 or not finite, and as
    /// [`Field::velocity`](crate::Field::velocity).
    pub fn validate(&self) -> Result<()> {
        self.spec.validate()?;
        self.velocity.validate()?;
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

    /// The same with another bandwidth, the one of `temperatures`.
    pub(crate) fn set_bandwidth(&mut self, temperatures: &[f64]) -> Result<()> {
        let [bandwidth] = *temperatures else {
            return Err(Error::value("training", "temperatures", "one, the field's bandwidth", temperatures.len()));
        };
        self.spec.bandwidth = bandwidth;
        self.spec.validate()
    }

    /// What n numbers of V whose squares add up to `squares` come to: the loss, `mean |step V|²`, and the factor that makes
    /// the gradient of V.
    pub(crate) fn regression(&self, squares: f64, n: usize) -> [f64; 2] {
        let mean = squares / n as f64;
        let step = if self.normalize { self.step / mean.max(Self::NORM_FLOOR).sqrt() } else { self.step };
        [step * step * mean, -2.0 * step / n as f64]
    }
}
