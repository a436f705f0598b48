//! One drift call, all phases.

use super::Plan;
use crate::{DriftInputs, DriftSpec, Element, Error, Result, Scale};

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
    /// How many input coordinates are NaN or infinite; where it is not 0, outputs may be NaN. They may also be where
    /// points lie more than 1e19 apart, since squared distances are f32.
    pub nonfinite: u64,
    elements_per_group: usize,
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

/// The drift of `inputs` under `spec`: force, loss and statistics, on all threads of rayon's current pool.
///
/// ```
/// use cudrift::{DriftInputs, DriftSpec, Points, cpu};
/// let generated = [0.0f32, 0.0, 1.0, 0.0, 0.5, -1.0];
/// let positives = [1.0f32, 1.0, 2.0, 0.0];
/// let inputs = DriftInputs::new(Points::new(&generated, [1, 3, 2])?, Points::new(&positives, [1, 2, 2])?)?;
/// let drift = cpu::drift(&DriftSpec::official(), &inputs)?;
/// assert_eq!(drift.force.len(), 6);
/// assert!(drift.loss[0] > 0.0);
/// # Ok::<(), cudrift::Error>(())
/// ```
///
/// # Errors
/// What [`DriftSpec::validate`] refuses, weights that are all zero, and a workspace that does not fit into memory. Data that is not finite is not an error; see
/// [`Drift::nonfinite`].
pub fn drift<T: Element>(spec: &DriftSpec, inputs: &DriftInputs<'_, T>) -> Result<Drift> {
    let shape = inputs.shape();
    let plan = Plan::new(spec, shape)?;
    let elements = shape.groups * shape.generated * shape.dim;
    let bytes = elements.checked_mul(size_of::<f32>()).and_then(|bytes| bytes.checked_add(plan.workspace_bytes()));
    Error::check_memory("drift", "the workspace with the force", bytes)?;
    let mut workspace = plan.workspace();
    let sums = plan.distances(inputs, &mut workspace)?;
    let scale = sums.finish(spec)?;
    let norms = plan.coefficients(inputs, &scale, &mut workspace)?.finish(spec, &scale);
    let elements_per_group = shape.generated * shape.dim;
    let mut force = vec![0.0; elements];
    let mut loss = vec![0.0; shape.groups];
    plan.contraction(inputs, &scale, &norms, &mut workspace, &mut force, &mut loss)?;
    Ok(Drift { force, loss, scale, loss_r: norms.f2, nonfinite: sums.nonfinite(), elements_per_group })
}
