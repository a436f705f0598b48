//! The drift of spec section 2, dialect by dialect, and its gradient (section 5).

use super::{log_kernel, log_sum_exp, squared_distance};
use crate::spec::{clip_min, theta};
use crate::{
    AffinityFloor, Coupling, DriftInputs, DriftSpec, Error, FeatureScale, Result, RowMeans, Scale, SelfMask, WeightRule,
};

/// Everything that one drift call computes, in f64.
#[derive(Clone, Debug)]
pub struct Drift {
    /// The global length scale, spec 2.2 (2)–(4).
    pub scale: Scale,
    /// f2, the mean square of the force of each temperature, `[R]`; spec 2.2 (6), `loss_R`.
    pub loss_r: Vec<f64>,
    /// The loss of each group, `[B]`; spec 2.2 (8).
    pub loss: Vec<f64>,
    /// F_tot, the drift in units of the scaled coordinates, [B, G, D]; spec 2.2 (6).
    pub force: Vec<f64>,
    /// x / sigma + F_tot, the regression target, [B, G, D]; spec 2.2 (7).
    pub goal: Vec<f64>,
    /// Gradient of the sum of the losses with respect to the generated samples, [B, G, D]; spec 5.
    pub grad: Vec<f64>,
    /// C, the coefficients of each temperature, `[R]` of [B, G, T].
    pub coefficients: Vec<Vec<f64>>,
    /// How each temperature's affinities are spread, `[R]`; spec 2.2 (6), 6.6.
    pub rows: Vec<RowMeans>,
    /// F, the force of each temperature before it is divided by theta, `[R]` of [B, G, D].
    pub force_r: Vec<Vec<f64>>,
}

/// The drift of `inputs` under `spec`, in f64 and with exact differences.
///
/// # Errors
/// What [`DriftSpec::validate`] refuses, weights that are all zero, and samples whose pairs do not fit into memory.
///
/// Source: spec 2.2 for the order of the steps, 2.5 to 2.7 for the dialects.
pub fn drift(spec: &DriftSpec, inputs: &DriftInputs<'_, f64>) -> Result<Drift> {
    spec.validate()?;
    let shape = inputs.shape();
    let (groups, queries, targets, dim) = (shape.groups, shape.generated, shape.targets(), shape.dim);
    let negative = shape.generated + shape.negatives; // the first `negative` columns repel
    let x = |b: usize, i: usize| inputs.target(b, i);
    let y = |b: usize, j: usize| inputs.target(b, j);
    let w = |b: usize, j: usize| match spec.weights {
        WeightRule::Ignored => 1.0,
        WeightRule::Affinity | WeightRule::Logit => f64::from(inputs.weight(b, j)),
    };
    let pair = |b: usize, i: usize, j: usize| (b * queries + i) * targets + j;

    let elements = (queries * targets + 2 * queries * dim) * groups * (1 + spec.temperatures.len());
    Error::check_memory("reference drift", "what it keeps", elements.checked_mul(size_of::<f64>()))?;

    // (1) distances
    let mut d = vec![0.0; groups * queries * targets];
    for b in 0..groups {
        for i in 0..queries {
            for j in 0..targets {
                let q = squared_distance(x(b, i), y(b, j));
                d[pair(b, i, j)] = clip_min(q, spec.min_squared_distance).sqrt();
            }
        }
    }

    // (2) one scale for the call, (3) coordinates, (4) distances
    let mut weighted_distance = 0.0;
    let mut weight = 0.0;
    let mut any_weight = false;
    for b in 0..groups {
        for j in 0..targets {
            any_weight |= inputs.weight(b, j) != 0.0;
            for i in 0..queries {
                if spec.feature_scale == FeatureScale::Paper && i == j {
                    continue;
                }
                weighted_distance += d[pair(b, i, j)] * w(b, j);
                weight += w(b, j);
            }
        }
    }
    if groups > 0 && !any_weight {
        return Err(all_weights_zero());
    }
    let mean = if weight == 0.0 { 0.0 } else { weighted_distance / weight };
    let scale = Scale::from_mean_distance(spec, mean, dim);

    let mut force = vec![0.0; groups * queries * dim];
    let mut loss_r = Vec::new();
    let mut coefficients = Vec::new();
    let mut force_r = Vec::new();
    let mut rows = Vec::new();
    for &temperature in &spec.temperatures {
        let mut c = vec![0.0; d.len()];
        let mut f = vec![0.0; force.len()];
        let mut means = RowMeans::default();
        for b in 0..groups {
            // (5) self mask; (6) logits
            let removed = |i: usize, j: usize| {
                (spec.self_mask == SelfMask::Remove && i == j) || (spec.weights == WeightRule::Logit && w(b, j) == 0.0)
            };
            let logit = |i: usize, j: usize| {
                if removed(i, j) {
                    return f64::NEG_INFINITY;
                }
                let mut n = d[pair(b, i, j)] / scale.distance;
                if i == j {
                    match spec.self_mask {
                        SelfMask::Add(v) => n += v,
                        SelfMask::Set(v) => n = v,
                        SelfMask::Remove | SelfMask::Keep => {}
                    }
                }
                let log_w = if spec.weights == WeightRule::Logit { w(b, j).ln() } else { 0.0 };
                log_kernel(spec.kernel, n, temperature) + log_w
            };
            let row: Vec<f64> = (0..queries).map(|i| log_sum_exp((0..targets).map(|j| logit(i, j)))).collect();
            let col: Vec<f64> = (0..targets).map(|j| log_sum_exp((0..queries).map(|i| logit(i, j)))).collect();

            for i in 0..queries {
                let mut a = vec![0.0; targets];
                for j in 0..targets {
                    if removed(i, j) {
                        continue;
                    }
                    let l = logit(i, j);
                    let col = match spec.coupling {
                        Coupling::RowColumn => col[j],
                        Coupling::Row => row[i],
                    };
                    a[j] = match spec.affinity_floor {
                        AffinityFloor::Product(floor) => {
                            let (a_row, a_col) = ((l - row[i]).exp(), (l - col).exp());
                            clip_min(a_row * a_col, floor).sqrt()
                        }
                        // K / sqrt(max(rowsum colsum, floor)) in logarithms
                        AffinityFloor::Normalizer(floor) => {
                            (l - clip_min((row[i] + col) / 2.0, floor.ln() / 2.0)).exp()
                        }
                        AffinityFloor::None => (l - (row[i] + col) / 2.0).exp(),
                    };
                    if spec.weights == WeightRule::Affinity {
                        a[j] *= w(b, j);
                    }
                }
                let s_minus: f64 = a[..negative].iter().sum();
                let s_plus: f64 = a[negative..].iter().sum();
                for (k, (block, mass)) in [(&a[..negative], s_minus), (&a[negative..], s_plus)].into_iter().enumerate()
                {
                    let squares: f64 = block.iter().map(|a| a * a).sum();
                    means.mass[k] += mass / (groups * queries) as f64;
                    means.effective[k] +=
                        if mass == 0.0 { 0.0 } else { mass * mass / squares / (groups * queries) as f64 };
                }
                for j in 0..targets {
                    let c_ij = if j < negative { -a[j] * s_plus } else { a[j] * s_minus };
                    c[pair(b, i, j)] = c_ij;
                    // F = sum_j C_ij Y~_j - (sum_j C_ij) x~_i
                    let (x_i, y_j) = (x(b, i), y(b, j));
                    let f_i = &mut f[(b * queries + i) * dim..][..dim];
                    for k in 0..dim {
                        f_i[k] += c_ij * (y_j[k] - x_i[k]) / scale.sigma;
                    }
                }
            }
        }
        let f2 = if f.is_empty() { 0.0 } else { f.iter().map(|f| f * f).sum::<f64>() / f.len() as f64 };
        let theta = theta(spec, f2);
        for (total, f) in force.iter_mut().zip(&f) {
            *total += f / theta;
        }
        loss_r.push(f2);
        coefficients.push(c);
        force_r.push(f);
        rows.push(means);
    }

    // (7) goal, (8) loss, and the closed form of its gradient
    let gen_scaled = inputs.generated().as_slice().iter().map(|x| x / scale.sigma);
    let goal: Vec<f64> = gen_scaled.clone().zip(&force).map(|(x, f)| x + f).collect();
    let residual: Vec<f64> = gen_scaled.zip(&goal).map(|(x, goal)| x - goal).collect();
    let per_group = queries * dim;
    let loss = residual.chunks(per_group).map(|r| r.iter().map(|r| r * r).sum::<f64>() / per_group as f64).collect();
    let grad = force.iter().map(|f| -2.0 * f / (per_group as f64 * scale.sigma)).collect();
    let scale = if groups == 0 { scale.of_nothing() } else { scale };
    Ok(Drift { scale, loss_r, loss, force, goal, grad, coefficients, rows, force_r })
}

pub(crate) fn all_weights_zero() -> Error {
    Error::value("drift", "every weight", "at least one weight above 0 in the call", "0")
}
