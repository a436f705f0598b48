//! Mean-shift and kernel-score fields of spec section 1.4.

use super::{beyond_one, decay, distance, log_kernel, log_sum_exp};
use crate::Kernel;
use crate::{Field, FieldInputs, FieldSpec, Result};

/// The fields at every query, in f64 (spec 1.3, 1.4).
///
/// # Errors
/// A bandwidth outside its range; a self mask with sets of different sizes.
pub fn field(spec: &FieldSpec, inputs: &FieldInputs<'_, f64>) -> Result<Field<f64>> {
    inputs.validate(spec)?;
    let p = one_set(spec, inputs, inputs.p, inputs.weight_p, false);
    let q = one_set(spec, inputs, inputs.q, inputs.weight_q, spec.self_mask);
    let minus = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a - b).collect();
    let all = [inputs.x, inputs.p, inputs.q];
    let [log_total_p, log_total_q] = inputs.log_totals(spec.self_mask);
    Ok(Field {
        drift: minus(&p.shift, &q.shift),
        score_diff: minus(&p.score, &q.score),
        ms_p: p.shift,
        ms_q: q.shift,
        score_p: p.score,
        score_q: q.score,
        logz_p: p.logz,
        logz_q: q.logz,
        alpha_p: p.alpha,
        alpha_q: q.alpha,
        sharp_ratio_p: p.sharp_ratio,
        sharp_ratio_q: q.sharp_ratio,
        log_total_p,
        log_total_q,
        ess_p: p.ess,
        ess_q: q.ess,
        nonfinite: all.iter().flat_map(|s| s.iter()).filter(|v| !v.is_finite()).count() as u64,
    })
}

/// What one reference set gives: mean shift and score [n, D], the rest `[n]`.
#[derive(Default)]
struct Set {
    shift: Vec<f64>,
    score: Vec<f64>,
    logz: Vec<f64>,
    alpha: Vec<f64>,
    sharp_ratio: Vec<f64>,
    ess: Vec<f64>,
}

fn one_set(
    spec: &FieldSpec,
    inputs: &FieldInputs<'_, f64>,
    y: &[f64],
    weights: Option<&[f32]>,
    self_mask: bool,
) -> Set {
    let (kernel, x, dim) = (spec.kernel, inputs.x, inputs.dim);
    let mut set = Set { shift: vec![0.0; x.len()], score: vec![0.0; x.len()], ..Set::default() };
    for (i, x_i) in x.chunks(dim).enumerate() {
        let tau = inputs.bandwidth(spec, i);
        let logits = y.chunks(dim).enumerate().map(|(j, y_j)| {
            if self_mask && i == j {
                return f64::NEG_INFINITY;
            }
            let w = weights.map_or(1.0, |w| f64::from(w[j]));
            log_kernel(kernel, distance(x_i, y_j), tau) + w.ln()
        });
        let lse = log_sum_exp(logits.clone());
        let [mut alpha, mut sharp, mut squares] = [0.0; 3];
        for (j, (logit, y_j)) in logits.zip(y.chunks(dim)).enumerate() {
            if self_mask && i == j {
                continue;
            }
            let weight = (logit - lse).exp(); // w_j of spec 1.4
            let r = distance(x_i, y_j);
            let slope = score_slope(kernel, r, tau);
            for k in 0..dim {
                let step = y_j[k] - x_i[k];
                set.shift[i * dim + k] += weight * step;
                // b(r) (y - x), a unit vector times psi'(r), and 0 at r = 0
                if r != 0.0 {
                    set.score[i * dim + k] += weight * slope * step / r;
                }
            }
            alpha += weight * inverse_weight(kernel, r, tau);
            // Infinite or not, it counts nothing where the weight is nothing.
            if weight != 0.0 {
                sharp += weight * sharp_ratio(kernel, r, tau);
            }
            squares += weight * weight;
        }
        set.logz.push(lse);
        set.alpha.push(alpha);
        set.sharp_ratio.push(sharp);
        set.ess.push(1.0 / squares);
    }
    set
}

/// b(r) r = psi'(r): the score weight times the distance (spec 1.3), finite for every kernel at every r.
fn score_slope(kernel: Kernel, r: f64, tau: f64) -> f64 {
    match kernel.order() {
        Some(0) => 1.0 / tau,
        _ => r / inverse_weight(kernel, r, tau),
    }
}

/// k#(r) / k(r) for the companion kernel `k#(r) = int_r^inf t k(t) dt` (spec 1.5, T4): `(2 nu / c²) k` of nu + 1 with
/// the same c.
fn sharp_ratio(kernel: Kernel, r: f64, tau: f64) -> f64 {
    match kernel.order() {
        None if kernel == Kernel::Plummer => f64::INFINITY,
        None => tau * tau,
        Some(k) => {
            let c = decay(k, tau);
            f64::from(2 * k + 1) / (c * c) * (1.0 + beyond_one(k + 1, c * r)) / (1.0 + beyond_one(k, c * r))
        }
    }
}

/// 1 / b(r) (spec 1.3), finite at r = 0. Of Matérn it is that ratio for nu - 1 with the same c, since
/// `-k' / r = c² / (2 nu - 2) k` of nu - 1.
fn inverse_weight(kernel: Kernel, r: f64, tau: f64) -> f64 {
    match kernel.order() {
        None if kernel == Kernel::Plummer => tau * tau + r * r,
        None => tau * tau,
        Some(0) => tau * r,
        Some(k) => {
            let c = decay(k, tau);
            f64::from(2 * k - 1) / (c * c) * (1.0 + beyond_one(k, c * r)) / (1.0 + beyond_one(k - 1, c * r))
        }
    }
}
