//! The plain formulas of spec section 2 in f32, as an unhurried port would write them: Gram distances, separate
//! softmaxes, one contraction per temperature. What a backend may be at most twice as wrong as (docs of the tests).

use super::Case;
use cudrift::{AffinityFloor, Coupling, DriftSpec, FeatureScale, ForceNorm, Form, Kernel, SelfMask, WeightRule};

fn clip(x: f32, floor: f32) -> f32 {
    if x < floor { floor } else { x }
}

fn softmax(logits: &mut [f32]) {
    let max = logits.iter().fold(f32::NEG_INFINITY, |m, l| if *l > m || l.is_nan() { *l } else { m });
    if max == f32::NEG_INFINITY {
        logits.fill(0.0);
        return;
    }
    let sum: f32 = logits.iter().map(|l| (l - max).exp()).sum();
    for l in logits {
        *l = (*l - max).exp() / sum;
    }
}

fn log_kernel(kernel: Kernel, n: f32, tau: f32) -> f32 {
    match kernel {
        Kernel::Laplace => -n / tau,
        Kernel::Gaussian => -n * n / (2.0 * tau * tau),
        Kernel::Matern32 => {
            let c = 3f32.sqrt() / tau * n;
            c.ln_1p() - c
        }
        Kernel::Matern52 => {
            let c = 5f32.sqrt() / tau * n;
            (c + c * c / 3.0).ln_1p() - c
        }
        Kernel::Matern72 => {
            let c = 7f32.sqrt() / tau * n;
            (c + 2.0 * c * c / 5.0 + c * c * c / 15.0).ln_1p() - c
        }
        Kernel::Matern92 => {
            let c = 3.0 / tau * n;
            (c + 3.0 * c * c / 7.0 + 2.0 * c * c * c / 21.0 + c * c * c * c / 105.0).ln_1p() - c
        }
        Kernel::Plummer => -0.5 * (n / tau * (n / tau)).ln_1p(),
        other => panic!("unknown kernel {other}"),
    }
}

fn log_sum_exp(l: &[f32]) -> f32 {
    let max = l.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if max == f32::NEG_INFINITY { max } else { max + l.iter().map(|l| (l - max).exp()).sum::<f32>().ln() }
}

/// Affinities of rows with mass 1 (spec 7.3) from logits without weights [G, T]: the rows' softmax with a potential of
/// each column, in each block.
fn affinities(spec: &DriftSpec, logit: &[f32], w: &[f32], negative: usize) -> Vec<f32> {
    let t = w.len();
    let g = logit.len() / t;
    let blocks = if spec.form == Form::Split { vec![(0, negative), (negative, t)] } else { vec![(0, t)] };
    let mut a = logit.to_vec();
    for (start, end) in blocks {
        let column =
            |j: usize, rows: &[f32]| log_sum_exp(&(0..g).map(|i| logit[i * t + j] - rows[i]).collect::<Vec<_>>());
        let there = |v: f32| if v.is_nan() || v == f32::INFINITY { 0.0 } else { v };
        let all: f32 = w[start..end].iter().sum();
        let mut c: Vec<f32> = (start..end)
            .map(|j| match spec.coupling {
                Coupling::Sinkhorn(_) => {
                    if w[j] == 0.0 {
                        f32::NEG_INFINITY
                    } else {
                        0.0
                    }
                }
                Coupling::Row => w[j].ln(),
                _ => {
                    let share = if spec.weights == WeightRule::Logit { 0.5 } else { 1.0 };
                    share * w[j].ln() - there(0.5 * column(j, &vec![0.0; g]))
                }
            })
            .collect();
        if let Coupling::Sinkhorn(plan) = spec.coupling {
            for _ in 0..plan.iterations {
                let row = |i: usize| {
                    let sum = log_sum_exp(&(start..end).map(|j| logit[i * t + j] + c[j - start]).collect::<Vec<_>>());
                    if sum == f32::NEG_INFINITY { 0.0 } else { sum }
                };
                let rows: Vec<f32> = (0..g).map(row).collect();
                for j in (start..end).filter(|j| w[*j] > 0.0) {
                    c[j - start] = there((g as f32 * w[j] / all).ln() - column(j, &rows));
                }
            }
        }
        for i in 0..g {
            let row = &mut a[i * t + start..i * t + end];
            row.iter_mut().zip(&c).for_each(|(l, c)| *l += c);
            softmax(row);
        }
    }
    a
}

/// F_tot [B, G, D].
pub fn force(spec: &DriftSpec, case: &Case) -> Vec<f32> {
    force_rounded(spec, case, None)
}

/// F_tot [B, G, D], its coefficients, summed over the temperatures, rounded before the last product.
pub fn force_rounded(spec: &DriftSpec, case: &Case, round: Option<fn(f32) -> f32>) -> Vec<f32> {
    let s = case.shape;
    let (t, d, g) = (s.targets(), s.dim, s.generated);
    let negative = s.generated + s.negatives;
    let targets = |b: usize| -> Vec<f32> {
        let part = |v: &[f32], n: usize| v[b * n * d..(b + 1) * n * d].to_vec();
        [part(&case.generated, g), part(&case.negatives, s.negatives), part(&case.positives, s.positives)].concat()
    };
    let weights = |b: usize| -> Vec<f32> {
        let part = |w: &Option<Vec<f32>>, n: usize| match w {
            Some(w) => w[b * n..(b + 1) * n].to_vec(),
            None => vec![1.0; n],
        };
        [
            part(&case.weight_generated, g),
            part(&case.weight_negatives, s.negatives),
            part(&case.weight_positives, s.positives),
        ]
        .concat()
    };
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();

    let mut dist = vec![0.0f32; s.groups * g * t];
    let (mut sum, mut mass) = (0.0f64, 0.0f64);
    for b in 0..s.groups {
        let (y, w) = (targets(b), weights(b));
        for i in 0..g {
            for j in 0..t {
                let (x, y) = (&y[i * d..(i + 1) * d], &y[j * d..(j + 1) * d]);
                let q = dot(x, x) + dot(y, y) - 2.0 * dot(x, y);
                let r = clip(q, spec.min_squared_distance as f32).sqrt();
                dist[(b * g + i) * t + j] = r;
                if spec.feature_scale != FeatureScale::Paper || i != j {
                    let w = if spec.weights == WeightRule::Ignored { 1.0 } else { w[j] };
                    sum += f64::from(r * w);
                    mass += f64::from(w);
                }
            }
        }
    }
    let mean = if mass == 0.0 { 0.0 } else { (sum / mass) as f32 };
    let root = (d as f32).sqrt();
    let (sigma, unit) = match spec.feature_scale {
        FeatureScale::Official => (clip(mean / root, 1e-3), clip(mean, 1e-3)),
        FeatureScale::Paper => (clip(mean / root, 1e-3), clip(mean / root, 1e-3) * root),
        _ => (1.0, 1.0),
    };

    let coupled = spec.form == Form::Split || matches!(spec.coupling, Coupling::Sinkhorn(_));
    let mut total = vec![0.0f32; s.groups * g * d];
    let mut coefficients = vec![0.0f32; s.groups * g * t];
    for &r in &spec.temperatures {
        let mut f = vec![0.0f32; total.len()];
        let mut of_r = vec![0.0f32; coefficients.len()];
        for b in 0..s.groups {
            let (y, w) = (targets(b), weights(b));
            let removed = |i: usize, j: usize| {
                (spec.self_mask == SelfMask::Remove && i == j) || (spec.weights == WeightRule::Logit && w[j] == 0.0)
            };
            let mut logit = vec![0.0f32; g * t];
            for i in 0..g {
                for j in 0..t {
                    let mut n = dist[(b * g + i) * t + j] / unit;
                    if i == j {
                        match spec.self_mask {
                            SelfMask::Add(v) => n += v as f32,
                            SelfMask::Set(v) => n = v as f32,
                            _ => {}
                        }
                    }
                    let log_w = if spec.weights == WeightRule::Logit && !coupled { w[j].ln() } else { 0.0 };
                    logit[i * t + j] =
                        if removed(i, j) { f32::NEG_INFINITY } else { log_kernel(spec.kernel, n, r as f32) + log_w };
                }
            }
            let own = if spec.weights == WeightRule::Ignored { vec![1.0; t] } else { w.clone() };
            let mass_one = if coupled { affinities(spec, &logit, &own, negative) } else { Vec::new() };
            let column = |j: usize| (0..g).map(|i| logit[i * t + j]).collect::<Vec<_>>();
            let mut cols: Vec<Vec<f32>> = (0..t).map(column).collect();
            let col_lse: Vec<f32> = cols.iter().map(|c| log_sum_exp(c)).collect();
            for c in &mut cols {
                softmax(c);
            }
            for i in 0..g {
                let mut row = logit[i * t..(i + 1) * t].to_vec();
                let row_lse = log_sum_exp(&row);
                softmax(&mut row);
                let a: Vec<f32> = (0..t)
                    .map(|j| {
                        if coupled {
                            return mass_one[i * t + j];
                        }
                        if removed(i, j) {
                            return 0.0;
                        }
                        let alone = spec.coupling == Coupling::Row;
                        let (other, other_lse) = if alone { (row[j], row_lse) } else { (cols[j][i], col_lse[j]) };
                        let a = match spec.affinity_floor {
                            AffinityFloor::Product(floor) => clip(row[j] * other, floor as f32).sqrt(),
                            AffinityFloor::Normalizer(floor) => {
                                (logit[i * t + j] - clip((row_lse + other_lse) / 2.0, (floor.ln() / 2.0) as f32)).exp()
                            }
                            _ => (row[j] * other).sqrt(),
                        };
                        if spec.weights == WeightRule::Affinity { a * w[j] } else { a }
                    })
                    .collect();
                let minus: f32 = a[..negative].iter().sum();
                let plus: f32 = a[negative..].iter().sum();
                let c: Vec<f32> = (0..t).map(|j| if j < negative { -a[j] * plus } else { a[j] * minus }).collect();
                of_r[(b * g + i) * t..(b * g + i + 1) * t].copy_from_slice(&c);
                let mass: f32 = c.iter().sum();
                for k in 0..d {
                    let pulled: f32 = (0..t).map(|j| c[j] * (y[j * d + k] / sigma)).sum();
                    f[(b * g + i) * d + k] = pulled - mass * (y[i * d + k] / sigma);
                }
            }
        }
        let f2 = f.iter().map(|f| f64::from(f * f)).sum::<f64>() / f.len().max(1) as f64;
        let theta = match spec.force_norm {
            ForceNorm::Rms(floor) => clip(f2 as f32, floor as f32).sqrt(),
            _ => 1.0,
        };
        for (total, f) in total.iter_mut().zip(&f) {
            *total += f / theta;
        }
        for (sum, c) in coefficients.iter_mut().zip(&of_r) {
            *sum += c / theta;
        }
    }
    let Some(round) = round else { return total };
    for b in 0..s.groups {
        let y = targets(b);
        for i in 0..g {
            let c: Vec<f32> = coefficients[(b * g + i) * t..(b * g + i + 1) * t].iter().map(|c| round(*c)).collect();
            let mass: f32 = c.iter().sum();
            for k in 0..d {
                let pulled: f32 = (0..t).map(|j| c[j] * (y[j * d + k] / sigma)).sum();
                total[(b * g + i) * d + k] = pulled - mass * (y[i * d + k] / sigma);
            }
        }
    }
    total
}
