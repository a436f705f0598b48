//! Mean-shift and kernel-score fields on the CPU.

use super::isa::Isa;
use super::tile::squared_distance;
use crate::{Element, Error, Field, FieldInputs, FieldSpec, Result};
use rayon::prelude::*;

/// The fields at every query (spec 1.4), from f32, f16 or bf16 points; one row of distances at a time.
///
/// Where a query has no mass at all (only possible with the self mask and zero weights) its fields are NaN.
///
/// # Errors
/// A bandwidth outside its range; a self mask with sets of different sizes; a result that does not fit into memory.
pub fn field<T: Element>(spec: &FieldSpec, inputs: &FieldInputs<'_, T>) -> Result<Field<f32>> {
    inputs.validate(spec)?;
    // Six arrays [n, D], and the rows that two of them are joined from.
    Error::check_memory("field", "the result", inputs.x.len().checked_mul(8 * size_of::<f32>()))?;
    let isa = Isa::detect();
    let dim = inputs.dim;
    let one_set = |y: &[T], weights: Option<&[f32]>, self_mask: bool| -> [Vec<f32>; 3] {
        let rows: Vec<[Vec<f32>; 3]> = inputs
            .x
            .par_chunks(dim)
            .enumerate()
            .map(|(i, x)| row(isa, spec, x, y, weights, self_mask.then_some(i)))
            .collect();
        let join = |at: usize| rows.iter().flat_map(|row| &row[at]).copied().collect();
        [join(0), join(1), join(2)]
    };
    let [ms_p, score_p, logz_p] = one_set(inputs.p, inputs.weight_p, false);
    let [ms_q, score_q, logz_q] = one_set(inputs.q, inputs.weight_q, spec.self_mask);
    let minus = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a - b).collect();
    let nonfinite = [inputs.x, inputs.p, inputs.q]
        .iter()
        .map(|set| set.iter().filter(|v| !v.to_f32().is_finite()).count() as u64)
        .sum();
    let (drift, score_diff) = (minus(&ms_p, &ms_q), minus(&score_p, &score_q));
    Ok(Field { ms_p, ms_q, drift, score_p, score_q, score_diff, logz_p, logz_q, nonfinite })
}

/// Mean shift `[D]`, score `[D]` and log mass [1] at one query.
///
/// Distances are sums of squared differences in f32; what is done once per pair or coordinate sum is done in f64.
fn row<T: Element>(
    isa: Isa,
    spec: &FieldSpec,
    x: &[T],
    y: &[T],
    weights: Option<&[f32]>,
    skip: Option<usize>,
) -> [Vec<f32>; 3] {
    let dim = x.len();
    let mut pairs = Vec::with_capacity(y.len() / dim);
    for (j, y) in y.chunks(dim).enumerate() {
        let weight = weights.map_or(1.0, |w| f64::from(w[j]));
        let r = f64::from(squared_distance(isa, x, y)).sqrt();
        let logit = if skip == Some(j) || weight == 0.0 {
            f64::NEG_INFINITY
        } else {
            crate::reference::log_kernel(spec.kernel, r, spec.bandwidth) + weight.ln()
        };
        pairs.push((logit, r));
    }
    let max = pairs.iter().fold(f64::NEG_INFINITY, |m, (l, _)| if *l > m || l.is_nan() { *l } else { m });
    let mass: f64 = pairs.iter().map(|(l, _)| (l - max).exp()).sum();
    let mut shift = vec![0.0f64; dim];
    let mut score = vec![0.0f64; dim];
    for ((logit, r), y) in pairs.iter().zip(y.chunks(dim)) {
        if *logit == f64::NEG_INFINITY {
            continue;
        }
        let weight = (logit - max).exp() / mass;
        let slope =
            if *r == 0.0 { 0.0 } else { weight * crate::reference::score_slope(spec.kernel, *r, spec.bandwidth) / r };
        for ((shift, score), (x, y)) in shift.iter_mut().zip(&mut score).zip(x.iter().zip(y)) {
            let step = f64::from(y.to_f32() - x.to_f32());
            *shift += weight * step;
            *score += slope * step;
        }
    }
    if max == f64::NEG_INFINITY {
        shift.fill(f64::NAN);
        score.fill(f64::NAN);
    }
    let narrow = |v: Vec<f64>| v.into_iter().map(|v| v as f32).collect();
    [narrow(shift), narrow(score), vec![(max + mass.ln()) as f32]]
}
