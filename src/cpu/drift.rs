//! One drift call.

use super::{ForceNorms, Plan};
use crate::{Drift, DriftInputs, DriftSpec, Element, Error, Result};

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
    let ForceNorms { f2: loss_r, convergence, .. } = norms;
    Ok(Drift { force, loss, scale, loss_r, convergence, nonfinite: sums.nonfinite(), elements_per_group })
}
