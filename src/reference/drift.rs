//! The drift of spec section 2, dialect by dialect, and its gradient (section 5).

use super::{log_kernel, log_sum_exp, squared_distance};
use crate::spec::{clip_min, theta};
use crate::{
    AffinityFloor, Convergence, Coupling, DriftInputs, DriftSpec, Error, FeatureScale, Form, Result, RowMeans, Scale,
    SelfMask, Sinkhorn, WeightRule,
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
    /// A, the affinities of each temperature, `[R]` of [B, G, T]; spec 2.2 (6), 7.3.
    pub affinities: Vec<Vec<f64>>,
    /// C, the coefficients of each temperature, `[R]` of [B, G, T].
    pub coefficients: Vec<Vec<f64>>,
    /// How each temperature's affinities are spread, `[R]`; spec 2.2 (6), 6.6.
    pub rows: Vec<RowMeans>,
    /// How near each temperature's plans came to their marginals, `[R]`; spec 7.1.
    pub convergence: Vec<Convergence>,
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

    let elements = (2 * queries * targets + 2 * queries * dim) * groups * (1 + spec.temperatures.len());
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
    let mut affinities = Vec::new();
    let mut coefficients = Vec::new();
    let mut force_r = Vec::new();
    let mut rows = Vec::new();
    let mut convergence = Vec::new();
    // Targets that are coupled together: all of them, or each block (7.3).
    let (whole, split) = (0..targets, [0..negative, negative..targets]);
    let blocks = match spec.form {
        Form::Joint => std::slice::from_ref(&whole),
        Form::Split => &split,
    };
    for &temperature in &spec.temperatures {
        let mut c = vec![0.0; d.len()];
        let mut f = vec![0.0; force.len()];
        let mut all = Vec::with_capacity(d.len());
        let mut means = RowMeans::default();
        let mut worst = Convergence::default();
        for b in 0..groups {
            // (5) self mask; (6) logits
            let removed = |i: usize, j: usize| {
                let by_weight = spec.weights == WeightRule::Logit || spec.sinkhorn().is_some();
                (spec.self_mask == SelfMask::Remove && i == j) || (by_weight && w(b, j) == 0.0)
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
                // A plan's weights are its columns' marginals.
                let in_logits = spec.weights == WeightRule::Logit && spec.sinkhorn().is_none();
                log_kernel(spec.kernel, n, temperature) + if in_logits { w(b, j).ln() } else { 0.0 }
            };

            let mut affinity = vec![0.0; queries * targets];
            for block in blocks {
                let row: Vec<f64> = (0..queries).map(|i| log_sum_exp(block.clone().map(|j| logit(i, j)))).collect();
                let col: Vec<f64> = block.clone().map(|j| log_sum_exp((0..queries).map(|i| logit(i, j)))).collect();
                if let Some(sinkhorn) = spec.sinkhorn() {
                    let weights: Vec<f64> = block.clone().map(|j| w(b, j)).collect();
                    let (plan, reached) = plan(&|i, j| logit(i, block.start + j), queries, &weights, sinkhorn);
                    for (i, plan) in plan.chunks(block.len().max(1)).enumerate() {
                        affinity[i * targets..][block.clone()].copy_from_slice(plan);
                    }
                    worst = worst.worst(reached);
                    continue;
                }
                for i in 0..queries {
                    for j in block.clone().filter(|&j| !removed(i, j)) {
                        let l = logit(i, j);
                        let col = if spec.coupling == Coupling::Row { row[i] } else { col[j - block.start] };
                        let a = match spec.affinity_floor {
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
                        let weight = if spec.weights == WeightRule::Affinity { w(b, j) } else { 1.0 };
                        affinity[i * targets + j] = a * weight;
                    }
                }
            }

            for i in 0..queries {
                let a = &mut affinity[i * targets..][..targets];
                if spec.rows_of_mass_one() {
                    for block in blocks {
                        let mass: f64 = a[block.clone()].iter().sum();
                        let inverse = if mass == 0.0 { 0.0 } else { 1.0 / mass };
                        a[block.clone()].iter_mut().for_each(|a| *a *= inverse);
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
            all.extend(affinity);
        }
        let f2 = if f.is_empty() { 0.0 } else { f.iter().map(|f| f * f).sum::<f64>() / f.len() as f64 };
        let theta = theta(spec, f2);
        for (total, f) in force.iter_mut().zip(&f) {
            *total += f / theta;
        }
        loss_r.push(f2);
        affinities.push(all);
        coefficients.push(c);
        force_r.push(f);
        rows.push(means);
        convergence.push(worst);
    }

    // (7) goal, (8) loss, and the closed form of its gradient
    let gen_scaled = inputs.generated().as_slice().iter().map(|x| x / scale.sigma);
    let goal: Vec<f64> = gen_scaled.clone().zip(&force).map(|(x, f)| x + f).collect();
    let residual: Vec<f64> = gen_scaled.zip(&goal).map(|(x, goal)| x - goal).collect();
    let per_group = queries * dim;
    let loss = residual.chunks(per_group).map(|r| r.iter().map(|r| r * r).sum::<f64>() / per_group as f64).collect();
    let grad = force.iter().map(|f| -2.0 * f / (per_group as f64 * scale.sigma)).collect();
    let scale = if groups == 0 { scale.of_nothing() } else { scale };
    Ok(Drift { scale, loss_r, loss, force, goal, grad, affinities, coefficients, rows, convergence, force_r })
}

pub(crate) fn all_weights_zero() -> Error {
    Error::value("drift", "every weight", "at least one weight above 0 in the call", "0")
}

/// The entropic plan of spec 7.1 for logits M_ij of `queries` rows and a column for each of `weights`, [rows, columns];
/// marginals are 1 of each row, and of the columns shares of the number of rows in proportion to the weights.
fn plan(
    logit: &dyn Fn(usize, usize) -> f64,
    queries: usize,
    weights: &[f64],
    Sinkhorn { iterations, tolerance }: Sinkhorn,
) -> (Vec<f64>, Convergence) {
    let columns = weights.len();
    let total: f64 = weights.iter().sum();
    let marginal = |j: usize| (queries as f64 * weights[j] / total).ln();
    let (mut lu, mut lv) = (vec![0.0; queries], vec![0.0; columns]);
    // Where there is no pair, nothing brings a row or column to its marginal.
    let potential = |marginal: f64, sum: f64| if sum == f64::NEG_INFINITY { 0.0 } else { marginal - sum };
    let mut pi = vec![0.0; queries * columns];
    let mut reached = Convergence::default();
    for iteration in 1..=iterations {
        for i in 0..queries {
            lu[i] = potential(0.0, log_sum_exp((0..columns).map(|j| logit(i, j) + lv[j])));
        }
        for j in 0..columns {
            lv[j] = potential(marginal(j), log_sum_exp((0..queries).map(|i| logit(i, j) + lu[i])));
        }
        let mut error = 0.0;
        for i in 0..queries {
            let mut sum = 0.0;
            for j in 0..columns {
                pi[i * columns + j] = (logit(i, j) + lu[i] + lv[j]).exp();
                sum += pi[i * columns + j];
            }
            if sum != 0.0 {
                error += (sum - 1.0).abs() / queries as f64;
            }
        }
        reached = Convergence { iterations: iteration, error };
        if tolerance > 0.0 && error <= tolerance {
            break;
        }
    }
    (pi, reached)
}
