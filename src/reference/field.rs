//! Mean-shift and kernel-score fields of spec section 1.4.

use super::{distance, log_kernel, log_sum_exp, score_slope};
use crate::{Field, FieldInputs, FieldSpec, Result};

/// The fields at every query, in f64 (spec 1.3, 1.4).
///
/// # Errors
/// A bandwidth outside its range; a self mask with sets of different sizes.
pub fn field(spec: &FieldSpec, inputs: &FieldInputs<'_, f64>) -> Result<Field<f64>> {
    inputs.validate(spec)?;
    let dim = inputs.dim;
    let [ms_p, score_p, logz_p] = one_set(spec, inputs.x, inputs.p, inputs.weight_p, dim, false);
    let [ms_q, score_q, logz_q] = one_set(spec, inputs.x, inputs.q, inputs.weight_q, dim, spec.self_mask);
    let minus = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a - b).collect();
    let all = [inputs.x, inputs.p, inputs.q];
    let nonfinite = all.iter().flat_map(|s| s.iter()).filter(|v| !v.is_finite()).count() as u64;
    let (drift, score_diff) = (minus(&ms_p, &ms_q), minus(&score_p, &score_q));
    Ok(Field { ms_p, ms_q, drift, score_p, score_q, score_diff, logz_p, logz_q, nonfinite })
}

/// Mean shift [n, D], score [n, D] and log mass `[n]` of one reference set.
fn one_set(
    spec: &FieldSpec,
    x: &[f64],
    y: &[f64],
    weights: Option<&[f32]>,
    dim: usize,
    self_mask: bool,
) -> [Vec<f64>; 3] {
    let mut ms = vec![0.0; x.len()];
    let mut score = vec![0.0; x.len()];
    let mut logz = Vec::new();
    for (i, x_i) in x.chunks(dim).enumerate() {
        let logits = y.chunks(dim).enumerate().map(|(j, y_j)| {
            if self_mask && i == j {
                return f64::NEG_INFINITY;
            }
            let w = weights.map_or(1.0, |w| f64::from(w[j]));
            log_kernel(spec.kernel, distance(x_i, y_j), spec.bandwidth) + w.ln()
        });
        let lse = log_sum_exp(logits.clone());
        for (j, (logit, y_j)) in logits.zip(y.chunks(dim)).enumerate() {
            if self_mask && i == j {
                continue;
            }
            let weight = (logit - lse).exp(); // w_j of spec 1.4
            let r = distance(x_i, y_j);
            let slope = score_slope(spec.kernel, r, spec.bandwidth);
            for k in 0..dim {
                let step = y_j[k] - x_i[k];
                ms[i * dim + k] += weight * step;
                // b(r) (y - x), a unit vector times psi'(r), and 0 at r = 0
                if r != 0.0 {
                    score[i * dim + k] += weight * slope * step / r;
                }
            }
        }
        logz.push(lse);
    }
    [ms, score, logz]
}
