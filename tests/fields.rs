//! The fields of two sets of points: vectors and identities of the specification, the reference against independent
//! sums, the CPU against the reference.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Convert, Normal, check, relative_error};
use cudrift::diagnostics::{Alignment, SetUp, Synthetic, log_log_slope};
use cudrift::{Field, FieldInputs, FieldSpec, Kernel, Real, Velocity, bf16, cpu, f16, reference};

const GENERATED: [f64; 6] = [0.0, 0.0, 1.0, 0.0, 0.5, -1.0];
const POSITIVE: [f64; 4] = [1.0, 1.0, 2.0, 0.0];

fn narrow(values: &[f64]) -> Vec<f32> {
    values.iter().map(|v| *v as f32).collect()
}

/// Spec 2.8 (c).
#[test]
fn field_vectors() {
    let q = [0.0, 2.0, -1.0, 0.5];
    let laplace = [2.09027223, 0.0439813546, 2.08638242, -0.620426375, 2.48953883, -0.332131039];
    let laplace_score = [3.07994108, 0.0234810254, 2.50769982, -0.0243388784, 2.48929399, -0.0710859575];
    let gaussian = [2.01391607, 0.475908583, 2.31757448, -0.273638286, 2.88072223, -0.380909347];
    let gaussian_score = gaussian.map(|v| 4.0 * v);
    let matern32 = [2.07893721, 0.243079184, 2.13016186, -0.554757207, 2.63166054, -0.266588828];
    let matern32_score = [4.47055675, 0.369712761, 3.70914103, -0.135236837, 4.0029031, -0.145804918];
    let matern52 = [2.06717608, 0.314992624, 2.15492286, -0.517615717, 2.68732137, -0.261939619];
    let matern52_score = [5.1667107, 0.593287437, 4.38820848, -0.217638759, 4.89682948, -0.217524505];
    let (x32, p32, q32) = (narrow(&GENERATED), narrow(&POSITIVE), narrow(&q));
    for (kernel, drift, score) in [
        (Kernel::Laplace, laplace, laplace_score),
        (Kernel::Gaussian, gaussian, gaussian_score),
        (Kernel::Matern32, matern32, matern32_score),
        (Kernel::Matern52, matern52, matern52_score),
    ] {
        let spec = FieldSpec::new(kernel, 0.5);
        let inputs = FieldInputs::new((&GENERATED, [3, 2]), (&POSITIVE, [2, 2]), (&q, [2, 2])).unwrap();
        let out = reference::field(&spec, &inputs).unwrap();
        check(&format!("{kernel} drift"), relative_error(&out.drift, &drift), 1e-8);
        check(&format!("{kernel} score"), relative_error(&out.score_diff, &score), 1e-8);
        let inputs = FieldInputs::new((&x32, [3, 2]), (&p32, [2, 2]), (&q32, [2, 2])).unwrap();
        let out = cpu::field(&spec, &inputs).unwrap();
        check(&format!("{kernel} drift, cpu"), relative_error(&out.drift, &drift), 2e-6);
        check(&format!("{kernel} score, cpu"), relative_error(&out.score_diff, &score), 2e-6);
    }
}

/// T1 of spec 1.5: the Gaussian mean shift is tau² times the score; and the score is the gradient of the log mass.
#[test]
fn scores_are_gradients_of_the_log_mass() {
    let mut normal = common::Normal::new(5);
    let mut points = |n: usize| (0..n * 3).map(|_| f64::from(normal.next())).collect::<Vec<_>>();
    let (x, p, q) = (points(4), points(9), points(7));
    for kernel in Kernel::ALL {
        let spec = FieldSpec::new(kernel, 0.7);
        let at = |x: &[f64]| {
            let inputs = FieldInputs::new((x, [4, 3]), (&p, [9, 3]), (&q, [7, 3])).unwrap();
            reference::field(&spec, &inputs).unwrap()
        };
        let out = at(&x);
        if kernel == Kernel::Gaussian {
            let scaled: Vec<f64> = out.score_p.iter().map(|s| 0.49 * s).collect();
            check("V = tau² s", relative_error(&out.ms_p, &scaled), 1e-14);
        }
        let mut slopes = Vec::new();
        for at_k in 0..x.len() {
            let moved = |step: f64| {
                let mut x = x.clone();
                x[at_k] += step;
                at(&x).logz_p[at_k / 3]
            };
            slopes.push((moved(1e-5) - moved(-1e-5)) / 2e-5);
        }
        check(&format!("{kernel} score"), relative_error(&slopes, &out.score_p), 1e-8);
    }
}

/// nu of spec 1.2.
fn smoothness(kernel: Kernel) -> f64 {
    match kernel {
        Kernel::Laplace => 0.5,
        Kernel::Matern32 => 1.5,
        Kernel::Matern52 => 2.5,
        Kernel::Matern72 => 3.5,
        Kernel::Matern92 => 4.5,
        other => panic!("{other} is no Matérn kernel"),
    }
}

/// The modified Bessel function of the second kind, `int_0^inf exp(-z cosh t) cosh(nu t) dt`, for z > 0.
fn bessel(nu: f64, z: f64) -> f64 {
    const STEP: f64 = 1.0 / 32.0;
    let at = |t: f64| (-z * t.cosh()).exp() * (nu * t).cosh();
    let last = (750.0 / z + 1.0).acosh() / STEP;
    STEP * (0.5 * at(0.0) + (1..=last as u32).map(|i| at(f64::from(i) * STEP)).sum::<f64>())
}

/// b(r), from `(z^nu K_nu)' = -z^nu K_(nu-1)`.
fn slope_over_distance(kernel: Kernel, r: f64, tau: f64) -> f64 {
    match kernel {
        Kernel::Gaussian => return 1.0 / (tau * tau),
        Kernel::Plummer => return 1.0 / (tau * tau + r * r),
        _ => {}
    }
    let nu = smoothness(kernel);
    let c = (2.0 * nu).sqrt() / tau;
    c / r * bessel(nu - 1.0, c * r) / bessel(nu, c * r)
}

/// The kernel by the formula for every nu.
fn kernel_at(kernel: Kernel, r: f64, tau: f64) -> f64 {
    match kernel {
        Kernel::Gaussian => return (-r * r / (2.0 * tau * tau)).exp(),
        Kernel::Plummer => return tau / tau.hypot(r),
        _ => {}
    }
    let nu = smoothness(kernel);
    let z = (2.0 * nu).sqrt() * r / tau;
    let mut gamma = std::f64::consts::PI.sqrt();
    for k in 0..(nu - 0.5) as u32 {
        gamma *= f64::from(k) + 0.5;
    }
    2f64.powf(1.0 - nu) / gamma * z.powf(nu) * bessel(nu, z)
}

/// Steps y - x and normalised weights of all references at one query.
fn at_query(kernel: Kernel, tau: f64, x: &[f64], y: &[f64]) -> Vec<(Vec<f64>, f64, f64)> {
    let steps: Vec<Vec<f64>> = y.chunks(x.len()).map(|y| y.iter().zip(x).map(|(y, x)| y - x).collect()).collect();
    let norms: Vec<f64> = steps.iter().map(|s| s.iter().map(|v| v * v).sum::<f64>().sqrt()).collect();
    let mass: f64 = norms.iter().map(|r| kernel_at(kernel, *r, tau)).sum();
    steps.into_iter().zip(norms).map(|(step, r)| (step, r, kernel_at(kernel, r, tau) / mass)).collect()
}

/// T2 of spec 1.5: `V = alpha s + delta` with delta a covariance; T3, its part across the score; the two-kernel form of
/// the drift (spec 1.1); the effective sample size.
#[test]
fn the_mean_shift_is_a_preconditioned_score_and_a_covariance() {
    let mut normal = Normal::new(8);
    let mut points = |n: usize| (0..n * 3).map(|_| f64::from(normal.next())).collect::<Vec<_>>();
    let (x, p, q) = (points(5), points(11), points(8));
    for kernel in Kernel::ALL {
        let tau = 0.6;
        let inputs = FieldInputs::new((&x, [5, 3]), (&p, [11, 3]), (&q, [8, 3])).unwrap();
        let out = reference::field(&FieldSpec::new(kernel, tau), &inputs).unwrap();
        let [residual_p, _] = out.residuals();
        let [mut alpha, mut ess, mut covariance, mut both] = [const { Vec::new() }; 4];
        for (i, x) in x.chunks(3).enumerate() {
            let near = at_query(kernel, tau, x, &p);
            let b = |r: f64| slope_over_distance(kernel, r, tau);
            let mean: f64 = near.iter().map(|(_, r, w)| w / b(*r)).sum();
            let score = |k: usize| near.iter().map(|(step, r, w)| w * b(*r) * step[k]).sum::<f64>();
            let deviation = |k: usize| {
                near.iter().map(|(step, r, w)| w * (1.0 / b(*r) - mean) * (b(*r) * step[k] - score(k))).sum::<f64>()
            };
            alpha.push(mean);
            ess.push(1.0 / near.iter().map(|(.., w)| w * w).sum::<f64>());
            covariance.extend((0..3).map(deviation));
            if kernel == Kernel::Laplace {
                let s: Vec<f64> = (0..3).map(|k| out.score_p[i * 3 + k]).collect();
                let length = s.iter().map(|v| v * v).sum::<f64>().sqrt();
                let across = |v: &[f64]| -> Vec<f64> {
                    let along = v.iter().zip(&s).map(|(v, s)| v * s / length).sum::<f64>();
                    v.iter().zip(&s).map(|(v, s)| v - along * s / length).collect()
                };
                let mut sum = [0.0; 3];
                for (step, _, w) in &near {
                    sum.iter_mut().zip(across(step)).for_each(|(sum, v)| *sum += w * v);
                }
                check("T3", relative_error(&across(&residual_p[i * 3..][..3]), &sum), 1e-12);
            }
            let away = at_query(kernel, tau, x, &q);
            for k in 0..3 {
                let pairs = near.iter().flat_map(|a| away.iter().map(move |b| a.2 * b.2 * (a.0[k] - b.0[k])));
                both.push(pairs.sum::<f64>());
            }
        }
        let masses = x.chunks(3).map(|x| {
            let r = p.chunks(3).map(|y| y.iter().zip(x).map(|(y, x)| (y - x).powi(2)).sum::<f64>().sqrt());
            r.map(|r| kernel_at(kernel, r, tau)).sum::<f64>().ln()
        });
        check(&format!("{kernel} mass"), relative_error(&out.logz_p, &masses.collect::<Vec<_>>()), 1e-13);
        check(&format!("{kernel} alpha"), relative_error(&out.alpha_p, &alpha), 1e-13);
        check(&format!("{kernel} ESS"), relative_error(&out.ess_p, &ess), 1e-13);
        check(&format!("{kernel} two kernels"), relative_error(&out.drift, &both), 1e-12);
        let largest = out.ms_p.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        let error = residual_p.iter().zip(&covariance).fold(0.0f64, |m, (a, b)| m.max((a - b).abs()));
        check(&format!("{kernel} residual"), error / largest, 1e-13);
        if kernel == Kernel::Gaussian {
            assert!(covariance.iter().all(|v| v.abs() <= 1e-15));
        }
    }
}

/// T4 of spec 1.5: the sharp field is the gradient of the companion masses' log ratio, `log Z + log of the ratio`; where
/// these are infinite it is 0.
#[test]
fn the_sharp_field_is_a_gradient() {
    let mut normal = Normal::new(9);
    let mut points = |n: usize| (0..n * 2).map(|_| f64::from(normal.next())).collect::<Vec<_>>();
    let (x, p, q) = (points(4), points(9), points(7));
    for kernel in Kernel::ALL {
        let at = |x: &[f64]| {
            let inputs = FieldInputs::new((x, [4, 2]), (&p, [9, 2]), (&q, [7, 2])).unwrap();
            reference::field(&FieldSpec::new(kernel, 0.8), &inputs).unwrap()
        };
        let masses = |out: &Field<f64>, i: usize| {
            out.logz_p[i] + out.sharp_ratio_p[i].ln() - out.logz_q[i] - out.sharp_ratio_q[i].ln()
        };
        let slopes: Vec<f64> = (0..x.len())
            .map(|k| {
                let moved = |step: f64| {
                    let mut x = x.clone();
                    x[k] += step;
                    masses(&at(&x), k / 2)
                };
                (moved(1e-5) - moved(-1e-5)) / 2e-5
            })
            .collect();
        let sharp = at(&x).velocity(Velocity::Sharp).unwrap();
        if kernel == Kernel::Plummer {
            assert!(sharp.iter().all(|v| *v == 0.0));
            continue;
        }
        check(&format!("{kernel} sharp"), relative_error(&sharp, &slopes), 1e-8);
    }
}

/// Rates of spec 8.1 at which a Fourier mode of q's density decays, on a fine grid in one dimension.
#[test]
fn modes_decay_at_the_rates_of_the_specification() {
    const SPACING: f64 = 0.01;
    let tau = 0.5;
    let grid: Vec<f64> = (-4000..=4000).map(|k| f64::from(k) * SPACING).collect();
    for (kernel, rate) in [
        (Kernel::Gaussian, (|z: f64| z * (-z / 2.0).exp()) as fn(f64) -> f64),
        (Kernel::Laplace, |z| 2.0 * z / ((1.0 + z) * (1.0 + z))),
    ] {
        for wave in [0.5, 1.0, 2.0, 4.0, 6.0] {
            let height = 1e-3;
            let weights: Vec<f32> = grid.iter().map(|y| (1.0 + height * (wave * y).cos()) as f32).collect();
            let x = [-1e-3, 1e-3];
            let inputs = FieldInputs::new((&x, [2, 1]), (&grid, [grid.len(), 1]), (&grid, [grid.len(), 1]))
                .unwrap()
                .weights(None, Some(&weights))
                .unwrap();
            let out = reference::field(&FieldSpec::new(kernel, tau), &inputs).unwrap();
            // dh/dt cos(Kx) = -dV/dx (linearised), at x = 0, where the drift is -V_q.
            let decay = (out.drift[1] - out.drift[0]) / 2e-3 / height;
            check(&format!("{kernel}, K {wave}"), relative_error(&[decay], &[rate(tau * tau * wave * wave)]), 0.02);
        }
    }
}

/// Queries, references and weights of a call.
struct Sets {
    dim: usize,
    x: Vec<f32>,
    p: Vec<f32>,
    q: Vec<f32>,
    weights: Option<[Vec<f32>; 2]>,
}

impl Sets {
    /// p stands half a deviation off; references of q come again among the queries where `shared`.
    fn random(seed: u64, [n, m, l, dim]: [usize; 4], shared: bool) -> Self {
        let mut normal = Normal::new(seed);
        let mut draw = |n: usize, shift: f32| (0..n * dim).map(|_| normal.next() + shift).collect::<Vec<f32>>();
        let (mut x, p, q) = (draw(n, 0.0), draw(m, 0.5), draw(l, 0.0));
        if shared {
            let count = x.len().min(q.len());
            x[..count].copy_from_slice(&q[..count]);
        }
        Self { dim, x, p, q, weights: None }
    }

    fn weighted(mut self) -> Self {
        let mut normal = Normal::new(77);
        let mut draw =
            |n: usize| (0..n).map(|_| if normal.uniform() < 0.2 { 0.0 } else { 2.0 * normal.uniform() }).collect();
        self.weights = Some([draw(self.p.len() / self.dim), draw(self.q.len() / self.dim)]);
        self
    }

    fn inputs_of<'a, T: Copy>(&'a self, [x, p, q]: [&'a [T]; 3]) -> FieldInputs<'a, T> {
        let shaped = |set: &'a [T]| (set, [set.len() / self.dim, self.dim]);
        let inputs = FieldInputs::new(shaped(x), shaped(p), shaped(q)).unwrap();
        match &self.weights {
            Some([p, q]) => inputs.weights(Some(p), Some(q)).unwrap(),
            None => inputs,
        }
    }

    /// The CPU's fields from `T`, and the reference's from the same numbers.
    fn both<T: Convert>(&self, spec: &FieldSpec) -> (Field<f32>, Field<f64>) {
        let narrow = |set: &[f32]| set.iter().map(|v| T::from_f32(*v)).collect::<Vec<_>>();
        let typed = [narrow(&self.x), narrow(&self.p), narrow(&self.q)];
        let wide = typed.each_ref().map(|set| set.iter().map(|v| f64::from(v.back())).collect::<Vec<_>>());
        let got = cpu::field(spec, &self.inputs_of(typed.each_ref().map(|set| &set[..]))).unwrap();
        (got, reference::field(spec, &self.inputs_of(wide.each_ref().map(|set| &set[..]))).unwrap())
    }
}

/// Every array, relative to its largest; differences of the sets' fields relative to these.
fn agree<T: Copy + Into<f64>>(what: &str, got: &Field<T>, want: &Field<f64>, bound: f64) {
    let largest = |sets: [&[f64]; 2]| sets.iter().flat_map(|s| s.iter()).fold(0.0f64, |m, v| m.max(v.abs()));
    let (shift, score) = (largest([&want.ms_p, &want.ms_q]), largest([&want.score_p, &want.score_q]));
    // Of a logarithm near 0 the error is the mass's own.
    let mass = 2.0 * largest([&want.logz_p, &want.logz_q]).max(1.0);
    let arrays = [
        ("ms_p", &got.ms_p, &want.ms_p, shift),
        ("ms_q", &got.ms_q, &want.ms_q, shift),
        ("drift", &got.drift, &want.drift, shift),
        ("score_p", &got.score_p, &want.score_p, score),
        ("score_q", &got.score_q, &want.score_q, score),
        ("score_diff", &got.score_diff, &want.score_diff, score),
        ("logz_p", &got.logz_p, &want.logz_p, mass),
        ("logz_q", &got.logz_q, &want.logz_q, mass),
    ];
    for (name, got, want, unit) in arrays {
        assert_eq!(got.len(), want.len());
        let worst = got.iter().zip(want).fold(0.0f64, |m, (a, b)| {
            let error = ((*a).into() - b).abs();
            if error > m || error.is_nan() { error } else { m }
        });
        check(&format!("{what} {name}"), worst / unit, bound);
    }
    let numbers = [
        ("alpha_p", &got.alpha_p, &want.alpha_p),
        ("alpha_q", &got.alpha_q, &want.alpha_q),
        ("sharp_p", &got.sharp_ratio_p, &want.sharp_ratio_p),
        ("sharp_q", &got.sharp_ratio_q, &want.sharp_ratio_q),
        ("ess_p", &got.ess_p, &want.ess_p),
        ("ess_q", &got.ess_q, &want.ess_q),
        ("log_total_p", &got.log_total_p, &want.log_total_p),
        ("log_total_q", &got.log_total_q, &want.log_total_q),
    ];
    for (name, got, want) in numbers {
        check(&format!("{what} {name}"), relative_error(got, want), 2.0 * bound);
    }
}

/// Every velocity, relative to the larger of its two parts.
fn velocities_agree<T: Real>(what: &str, got: &Field<T>, want: &Field<f64>, bound: f64) {
    let parts = |velocity| {
        let mut none = [want.clone(), want.clone()];
        none[0].score_p.fill(0.0);
        none[0].ms_p.fill(0.0);
        none[1].score_q.fill(0.0);
        none[1].ms_q.fill(0.0);
        let largest = |f: &Field<f64>| f.velocity(velocity).unwrap().iter().fold(0.0f64, |m, v| m.max(v.abs()));
        largest(&none[0]).max(largest(&none[1]))
    };
    for velocity in VELOCITIES {
        let (got, want) = (got.velocity(velocity).unwrap(), want.velocity(velocity).unwrap());
        let worst = got.iter().zip(&want).fold(0.0f64, |m, (a, b)| m.max(((*a).into() - b).abs()));
        assert_eq!(got.len(), want.len());
        let unit = parts(velocity);
        // Where both are infinite the sharp velocity is 0.
        check(&format!("{what} {velocity:?}"), if worst == 0.0 { 0.0 } else { worst / unit }, bound);
    }
}

const VELOCITIES: [Velocity; 6] = [
    Velocity::MeanShift,
    Velocity::Score,
    Velocity::Sharp,
    Velocity::Mmd,
    Velocity::ForwardKl { most: 5.0 },
    Velocity::ChiSquared { most: 0.5 },
];

/// Spec 8.5: the MMD velocity is the gradient of `p - q`, estimates with the kernel; with Plummer's and over the bandwidth
/// it is the Coulomb field of 8.6.
#[test]
fn the_mmd_velocity_is_the_gradient_of_a_potential() {
    let sets = Sets::random(21, [10, 9, 10, 3], true).weighted();
    let wide = [&sets.x, &sets.p, &sets.q].map(|set| set.iter().map(|v| f64::from(*v)).collect::<Vec<_>>());
    let [x, p, q] = wide.each_ref().map(|set| &set[..]);
    let [of_p, of_q] = sets.weights.clone().unwrap();
    for (kernel, self_mask) in Kernel::ALL.into_iter().flat_map(|kernel| [(kernel, false), (kernel, true)]) {
        let tau = 0.8;
        let mut spec = FieldSpec::new(kernel, tau);
        spec.self_mask = self_mask;
        let out = reference::field(&spec, &sets.inputs_of([x, p, q])).unwrap();
        let got = out.velocity(Velocity::Mmd).unwrap();
        let mean = |x: &[f64], set: &[f64], weights: &[f32], without: Option<usize>| {
            let mut sums = [0.0; 2];
            for (j, (y, w)) in set.chunks(3).zip(weights).enumerate() {
                if without == Some(j) {
                    continue;
                }
                let r = y.iter().zip(x).map(|(y, x)| (y - x).powi(2)).sum::<f64>().sqrt();
                let k = if r == 0.0 { 1.0 } else { kernel_at(kernel, r, tau) };
                sums = [sums[0] + f64::from(*w) * k, sums[1] + f64::from(*w)];
            }
            sums[0] / sums[1]
        };
        let mut slopes = Vec::new();
        for i in 0..10 {
            let without = self_mask.then_some(i);
            let potential = |x: &[f64]| mean(x, p, &of_p, None) - mean(x, q, &of_q, without);
            for k in 0..3 {
                let moved = |step: f64| {
                    let mut x = x[3 * i..][..3].to_vec();
                    x[k] += step;
                    potential(&x)
                };
                slopes.push((moved(1e-5) - moved(-1e-5)) / 2e-5);
            }
        }
        check(&format!("{kernel} {self_mask} MMD"), relative_error(&got, &slopes), 1e-9);
        if kernel == Kernel::Plummer {
            let mut coulomb = Vec::new();
            for (i, x) in x.chunks(3).enumerate() {
                let towards = |set: &[f64], weights: &[f32], k: usize, without: Option<usize>| {
                    let mut sums = [0.0; 2];
                    for (j, (y, w)) in set.chunks(3).zip(weights).enumerate() {
                        if without != Some(j) {
                            let square: f64 = y.iter().zip(x).map(|(y, x)| (y - x).powi(2)).sum();
                            let w = f64::from(*w);
                            sums = [sums[0] + w * (y[k] - x[k]) * (square + tau * tau).powf(-1.5), sums[1] + w];
                        }
                    }
                    sums[0] / sums[1]
                };
                let own = self_mask.then_some(i);
                coulomb.extend((0..3).map(|k| towards(p, &of_p, k, None) - towards(q, &of_q, k, own)));
            }
            let got: Vec<f64> = got.iter().map(|v| v / tau).collect();
            check("Coulomb", relative_error(&got, &coulomb), 1e-13);
        }
    }
}

/// Spec 8.8 where all is known: p and q Gaussians on a fine grid, so that estimates with a Gaussian kernel are Gaussians;
/// and 8.7, the score difference at noised queries.
#[test]
fn divergence_weights_on_gaussians() {
    let (tau, [at_p, wide_p], [at_q, wide_q]) = (0.4f64, [0.5, 0.8], [-0.3, 1.1]);
    let grid: Vec<f64> = (-8000..=8000).map(|i| f64::from(i) * 1e-3).collect();
    let density = |x: f64, at: f64, wide: f64| (-(x - at).powi(2) / (2.0 * wide * wide)).exp() / wide;
    let on_grid = |at, wide| grid.iter().map(|y| density(*y, at, wide) as f32).collect::<Vec<_>>();
    let (of_p, of_q) = (on_grid(at_p, wide_p), on_grid(at_q, wide_q));
    let x: Vec<f64> = (-4..=4).map(|i| f64::from(i) * 0.5 + 0.01).collect();
    let all = [grid.len(), 1];
    let inputs = FieldInputs::new((&x, [9, 1]), (&grid, all), (&grid, all)).unwrap();
    let inputs = inputs.weights(Some(&of_p), Some(&of_q)).unwrap();
    let out = reference::field(&FieldSpec::new(Kernel::Gaussian, tau), &inputs).unwrap();
    let smooth = |wide: f64| wide.hypot(tau);
    let score = |x: f64, at: f64, wide: f64| (at - x) / smooth(wide).powi(2);
    let difference = |x: f64| score(x, at_p, wide_p) - score(x, at_q, wide_q);
    let ratio = |x: f64| density(x, at_p, smooth(wide_p)) / density(x, at_q, smooth(wide_q));
    let of = |weight: &dyn Fn(f64) -> f64| x.iter().map(|x| weight(*x) * difference(*x)).collect::<Vec<_>>();
    let clipped = |x: f64, most: f64| ratio(x).ln().clamp(-most, most).exp();
    for (velocity, want) in [
        (Velocity::Score, of(&|_| 1.0)),
        (Velocity::ForwardKl { most: 50.0 }, of(&ratio)),
        (Velocity::ForwardKl { most: 0.3 }, of(&|x| clipped(x, 0.3))),
        (Velocity::ChiSquared { most: 50.0 }, of(&|x| 2.0 / ratio(x))),
        (Velocity::ChiSquared { most: 0.3 }, of(&|x| 2.0 / clipped(x, 0.3))),
    ] {
        // The grid's weights are f32.
        check(&format!("{velocity:?}"), relative_error(&out.velocity(velocity).unwrap(), &want), 1e-8);
    }
    for most in [0.0, -1.0, f64::NAN] {
        assert!(matches!(out.velocity(Velocity::ForwardKl { most }), Err(cudrift::Error::Value { .. })));
        assert!(matches!(out.velocity(Velocity::ChiSquared { most }), Err(cudrift::Error::Value { .. })));
    }
    // SD-Flow is the Gaussian's mean shift over its variance.
    let shifts: Vec<f64> = out.velocity(Velocity::MeanShift).unwrap().iter().map(|v| v / (tau * tau)).collect();
    check("SD-Flow", relative_error(&out.velocity(Velocity::Score).unwrap(), &shifts), 1e-13);
}

#[test]
fn velocities_from_either_backend() {
    for shape in [[7, 30, 20, 2], [5, 60, 40, 20]] {
        for kernel in Kernel::ALL {
            let sets = Sets::random(31, shape, false).weighted();
            let (got, want) = sets.both::<f32>(&FieldSpec::new(kernel, (shape[3] as f64).sqrt()));
            velocities_agree(&format!("{kernel} {shape:?}"), &got, &want, 1e-5);
        }
    }
}

#[test]
fn the_cpu_agrees_with_the_reference_at_every_shape() {
    for (at, shape) in [
        [1, 1, 2, 1],
        [3, 15, 17, 2],
        [33, 16, 33, 3],
        [5, 4097, 31, 1],
        [31, 100, 64, 8],
        [1, 1, 2, 9],
        [40, 37, 40, 16],
        [2, 4097, 15, 17],
        [65, 4100, 70, 37],
        [7, 33, 129, 640],
    ]
    .into_iter()
    .enumerate()
    {
        let dim = shape[3] as f64;
        for kernel in Kernel::ALL {
            for (factor, weighted) in [(0.1, false), (0.5, true), (4.0, false)] {
                let spec = FieldSpec::new(kernel, factor * dim.sqrt());
                let sets = Sets::random(at as u64, shape, false);
                let sets = if weighted { sets.weighted() } else { sets };
                let (got, want) = sets.both::<f32>(&spec);
                agree(&format!("{kernel} {shape:?} {factor}"), &got, &want, 5e-6);
            }
        }
    }
}

#[test]
fn halves_are_widened_exactly() {
    for shape in [[9, 40, 30, 3], [9, 40, 30, 40]] {
        for kernel in Kernel::ALL {
            let spec = FieldSpec::new(kernel, 0.5 * (shape[3] as f64).sqrt());
            let (got, want) = Sets::random(4, shape, false).both::<f16>(&spec);
            agree(&format!("f16 {kernel}"), &got, &want, 5e-6);
            let (got, want) = Sets::random(4, shape, false).both::<bf16>(&spec);
            agree(&format!("bf16 {kernel}"), &got, &want, 5e-6);
        }
    }
}

/// Queries that are references: with the mask they leave themselves out, without it the Laplace score of the pair is 0.
/// And points nearly equal to queries, which products could not tell apart.
#[test]
fn coinciding_and_nearly_coinciding_points() {
    for dim in [2, 40] {
        for kernel in Kernel::ALL {
            for self_mask in [false, true] {
                let mut sets = Sets::random(6, [50, 30, 50, dim], true);
                // References of p beside the queries, at a thousandth of their distance from the centre and less.
                for (k, v) in sets.p.iter_mut().enumerate() {
                    *v = sets.x[k] * (1.0 + 1e-4 * (k % 7) as f32);
                }
                let mut spec = FieldSpec::new(kernel, 0.3 * (dim as f64).sqrt());
                spec.self_mask = self_mask;
                let (got, want) = sets.both::<f32>(&spec);
                agree(&format!("{kernel} {dim} {self_mask}"), &got, &want, 1e-5);
            }
        }
    }
}

/// References that come nearer from chunk to chunk, so that what earlier ones gave fades; and more of q than a chunk has,
/// with the self mask.
#[test]
fn nearer_references_come_later() {
    for dim in [2, 20] {
        for kernel in Kernel::ALL {
            let mut sets = Sets::random(11, [4, 7000, 4, dim], true);
            let norm = |p: &[f32]| p.iter().map(|v| v * v).sum::<f32>();
            let mut points: Vec<Vec<f32>> = sets.p.chunks(dim).map(<[f32]>::to_vec).collect();
            points.sort_by(|a, b| norm(b).total_cmp(&norm(a)));
            sets.p = points.concat();
            sets.x.fill(0.01);
            let (got, want) = sets.both::<f32>(&FieldSpec::new(kernel, 0.1 * (dim as f64).sqrt()));
            agree(&format!("{kernel} {dim} sorted"), &got, &want, 5e-6);
        }
        let sets = Sets::random(12, [2500, 20, 2500, dim], true);
        let mut spec = FieldSpec::new(Kernel::Laplace, 0.3 * (dim as f64).sqrt());
        spec.self_mask = true;
        let (got, want) = sets.both::<f32>(&spec);
        agree(&format!("{dim} self mask"), &got, &want, 1e-5);
    }
}

/// Clusters far apart, each narrow: most distances are small beside those from any centre.
#[test]
fn narrow_clusters() {
    for dim in [12, 100] {
        for kernel in Kernel::ALL {
            let mut sets = Sets::random(13, [30, 60, 50, dim], false);
            for set in [&mut sets.x, &mut sets.p, &mut sets.q] {
                for (at, v) in set.iter_mut().enumerate() {
                    *v = 0.05 * *v + (at / dim % 3) as f32 * (at % 5) as f32;
                }
            }
            let (got, want) = sets.both::<f32>(&FieldSpec::new(kernel, 0.02 * (dim as f64).sqrt()));
            agree(&format!("{kernel} {dim} clusters"), &got, &want, 2e-5);
        }
    }
}

/// Far from the origin distances come from centred points.
#[test]
fn translation_changes_little() {
    for dim in [2, 40] {
        for kernel in Kernel::ALL {
            let mut sets = Sets::random(3, [20, 30, 25, dim], false);
            [&mut sets.x, &mut sets.p, &mut sets.q].into_iter().flatten().for_each(|v| *v += 1000.0);
            let (got, want) = sets.both::<f32>(&FieldSpec::new(kernel, 0.5 * (dim as f64).sqrt()));
            agree(&format!("{kernel} {dim}"), &got, &want, 1e-5);
        }
    }
}

/// A pair next to nothing apart has a Laplace score of its own, which the others must survive; weights of any size; and
/// bandwidths at the ends of their range.
#[test]
fn extreme_distances_weights_and_bandwidths() {
    for dim in [3, 16] {
        for kernel in Kernel::ALL {
            let mut sets = Sets::random(14, [3, 51, 10, dim], false);
            (sets.x[0], sets.p[0]) = (0.0, 1e-18);
            let (x, p) = (sets.x[1..dim].to_vec(), &mut sets.p[1..dim]);
            p.copy_from_slice(&x);
            for weight in [1e-38, 3e38] {
                sets.weights = Some([vec![weight; 51], vec![weight; 10]]);
                let (got, want) = sets.both::<f32>(&FieldSpec::new(kernel, 1.0));
                agree(&format!("{kernel} {dim} {weight:e}"), &got, &want, 5e-6);
            }
            for bandwidth in [1e-12, 1e12] {
                let one = Sets { p: sets.p[dim..2 * dim].to_vec(), q: sets.q[..dim].to_vec(), weights: None, ..sets };
                let (got, want) = one.both::<f32>(&FieldSpec::new(kernel, bandwidth));
                agree(&format!("{kernel} {dim} bandwidth {bandwidth:e}"), &got, &want, 5e-6);
                sets = Sets { p: sets.p, q: sets.q, weights: sets.weights, ..one };
            }
        }
    }
}

/// A bandwidth for each query gives each the field of its own.
#[test]
fn bandwidths_of_queries() {
    for dim in [2, 20] {
        for kernel in Kernel::ALL {
            let sets = Sets::random(15, [5, 40, 30, dim], false);
            let bandwidths = [0.3, 0.5, 1.0, 2.0, 7.0];
            let inputs = sets.inputs_of([&sets.x, &sets.p, &sets.q]).bandwidths(&bandwidths).unwrap();
            let all = cpu::field(&FieldSpec::new(kernel, f64::NAN), &inputs).unwrap();
            let wide = [&sets.x, &sets.p, &sets.q].map(|set| set.iter().map(|v| f64::from(*v)).collect::<Vec<_>>());
            let inputs = sets.inputs_of(wide.each_ref().map(|set| &set[..])).bandwidths(&bandwidths).unwrap();
            agree(
                &format!("{kernel} {dim}"),
                &all,
                &reference::field(&FieldSpec::new(kernel, 1.0), &inputs).unwrap(),
                5e-6,
            );
            for (i, h) in bandwidths.iter().enumerate() {
                let inputs = sets.inputs_of([&sets.x[i * dim..][..dim], &sets.p, &sets.q]);
                let one = cpu::field(&FieldSpec::new(kernel, f64::from(*h)), &inputs).unwrap();
                assert_eq!(one.score_diff, all.score_diff[i * dim..][..dim]);
                assert_eq!((one.logz_p[0], one.ess_q[0]), (all.logz_p[i], all.ess_q[i]));
            }
        }
    }
    let sets = Sets::random(15, [2, 4, 3, 2], false);
    let inputs = || sets.inputs_of([&sets.x, &sets.p, &sets.q]);
    assert!(inputs().bandwidths(&[1.0]).is_err() && inputs().bandwidths(&[1.0, -1.0]).is_err());
    assert_eq!(FieldSpec::for_dimension(Kernel::Laplace, 0.3, 0.5, 16).bandwidth, 1.2);
}

#[test]
fn no_queries_have_no_fields() {
    for dim in [2, 20] {
        let (got, _) = Sets::random(1, [0, 5, 5, dim], false).both::<f32>(&FieldSpec::new(Kernel::Laplace, 1.0));
        assert!(got.drift.is_empty() && got.ess_q.is_empty());
        assert!(got.velocity(Velocity::Sharp).unwrap().is_empty() && got.residuals().concat().is_empty());
    }
}

/// References beyond every square, and a single NaN.
#[test]
fn the_edges_of_numbers() {
    for dim in [1, 12] {
        for kernel in Kernel::ALL {
            let mut sets = Sets::random(5, [6, 40, 10, dim], false);
            sets.p[7 * dim] = 1e25;
            let spec = FieldSpec::new(kernel, 1e-3);
            let (got, want) = sets.both::<f32>(&spec);
            // Plummer's weight falls no faster than the way grows, and that point's would count.
            if kernel != Kernel::Plummer {
                agree(&format!("{kernel} {dim} far"), &got, &want, 2e-5);
            }

            sets.p[7 * dim] = f32::NAN;
            let inputs = sets.inputs_of([&sets.x, &sets.p, &sets.q]);
            let out = cpu::field(&spec, &inputs).unwrap();
            assert_eq!(out.nonfinite, 1);
            assert!(out.ms_p.iter().step_by(dim).all(|v| v.is_nan()) && out.logz_p.iter().all(|v| v.is_nan()));
            assert!(out.ms_q.iter().all(|v| v.is_finite()));
        }
    }
}

#[test]
fn threads_leave_no_trace() {
    let sets = Sets::random(2, [100, 5000, 90, 12], false);
    let spec = FieldSpec::new(Kernel::Laplace, 1.0);
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| cpu::field(&spec, &sets.inputs_of([&sets.x, &sets.p, &sets.q])).unwrap())
    };
    let (one, five) = (on(1), on(5));
    assert!(one.drift == five.drift && one.score_diff == five.score_diff && one.alpha_p == five.alpha_p);
}

#[test]
fn alignment_by_hand() {
    // Two queries in one dimension: drifts 2 and 1, score discrepancies 1 and -1.
    let field = Field {
        drift: vec![2.0, 1.0],
        score_diff: vec![1.0, -1.0],
        score_p: vec![1.0, 0.0],
        score_q: vec![0.0, 1.0],
        alpha_p: vec![1.0, 3.0],
        alpha_q: vec![2.0, 4.0],
        ess_p: vec![5.0, 7.0],
        ess_q: vec![1.0, 2.0],
        ..Field::<f64>::default()
    };
    let got = Alignment::new(&field).unwrap();
    assert_eq!((got.alpha, got.c_theory, got.c_star), ([2.0, 3.0], 2.5, 0.5));
    assert_eq!((got.drift, got.score, got.cosine), (2.5, 1.0, 0.0));
    assert_eq!((got.absolute, got.relative), ((0.25 + 12.25) / 2.0, 2.5));
    assert_eq!((got.residual, got.ess), ((1.0 + 25.0) / 2.0, [6.0, 1.5]));
    assert!(matches!(Alignment::new(&Field::<f32>::default()), Err(cudrift::Error::Value { .. })));
    assert_eq!(log_log_slope([(1.0, 8.0), (2.0, 2.0), (4.0, 0.5)]), -2.0);
}

/// Spec 6.4: in many dimensions the drift is the score discrepancy, up to a factor.
#[test]
fn drift_and_score_align_in_many_dimensions() {
    for (set, bounds) in [(Synthetic::Ring, [0.99, 0.02]), (Synthetic::Raw, [0.99, 0.03])] {
        let at = |dim| set.measure(dim, &SetUp { references: 2048, queries: 256, ..SetUp::default() }).unwrap();
        let (low, high) = (at(32), at(512));
        println!("{set:?}\n{low:?}\n{high:?}");
        assert!(high.cosine >= bounds[0] && (high.c_star / high.c_theory - 1.0).abs() <= bounds[1]);
        assert!((high.alpha[0] / high.alpha[1] - 1.0).abs() < (low.alpha[0] / low.alpha[1] - 1.0).abs().max(0.01));
        let slope = log_log_slope([(32.0, low.relative), (512.0, high.relative)]);
        assert!((-1.5..=-0.9).contains(&slope), "{slope}");
    }
    assert!(Synthetic::Ring.measure(1, &SetUp::default()).is_err());
}

/// The fields of the device beside the reference. `cargo xtask test` runs these on the simulator.
#[cfg(feature = "cuda")]
mod device {
    use super::*;
    use common::device;
    use cudrift::Error;
    use cudrift::cuda::{Context, FieldPlan, Options, cudarc::driver::DeviceRepr};

    fn open() -> Option<Context> {
        device().map(|_| Context::new().unwrap())
    }

    impl Sets {
        /// The device's fields from `T`, q in the queries' memory where `same`; and the reference's.
        fn on<T: Convert + DeviceRepr>(&self, context: &Context, spec: &FieldSpec, same: bool) -> [Field<f64>; 2] {
            let narrow = |set: &[f32]| set.iter().map(|v| T::from_f32(*v)).collect::<Vec<_>>();
            let typed = [narrow(&self.x), narrow(&self.p), narrow(&self.q)];
            let wide = typed.each_ref().map(|set| set.iter().map(|v| f64::from(v.back())).collect::<Vec<_>>());
            let [x, p, q] = typed.each_ref().map(|set| &set[..]);
            let got = context.field(spec, &self.inputs_of([x, p, if same { x } else { q }])).unwrap();
            let want = reference::field(spec, &self.inputs_of(wide.each_ref().map(|set| &set[..]))).unwrap();
            [widened(got), want]
        }
    }

    fn widened(field: Field<f32>) -> Field<f64> {
        let wide = |v: &[f32]| v.iter().map(|v| f64::from(*v)).collect();
        Field {
            ms_p: wide(&field.ms_p),
            ms_q: wide(&field.ms_q),
            drift: wide(&field.drift),
            score_p: wide(&field.score_p),
            score_q: wide(&field.score_q),
            score_diff: wide(&field.score_diff),
            logz_p: wide(&field.logz_p),
            logz_q: wide(&field.logz_q),
            alpha_p: wide(&field.alpha_p),
            alpha_q: wide(&field.alpha_q),
            sharp_ratio_p: wide(&field.sharp_ratio_p),
            sharp_ratio_q: wide(&field.sharp_ratio_q),
            ess_p: wide(&field.ess_p),
            ess_q: wide(&field.ess_q),
            log_total_p: wide(&field.log_total_p),
            log_total_q: wide(&field.log_total_q),
            nonfinite: field.nonfinite,
        }
    }

    #[test]
    fn the_device_agrees_with_the_reference() {
        let Some(context) = open() else { return };
        // One tile of references, several; few coordinates, whose distances are not kept, and ranges of many.
        for (at, shape) in
            [[1, 1, 2, 1], [3, 15, 17, 2], [33, 16, 33, 3], [66, 130, 70, 8], [40, 37, 40, 16], [70, 200, 129, 140]]
                .into_iter()
                .enumerate()
        {
            for (k, kernel) in Kernel::ALL.into_iter().enumerate() {
                // Each kernel meets each of these at two shapes.
                let (factor, weighted) = [(0.1, false), (0.5, true), (4.0, false)][(at + k) % 3];
                let spec = FieldSpec::new(kernel, factor * (shape[3] as f64).sqrt());
                let sets = Sets::random(at as u64, shape, false);
                let sets = if weighted { sets.weighted() } else { sets };
                let [got, want] = sets.on::<f32>(&context, &spec, false);
                // A distance's last digit is 1e-5 of the kernel where exponents are near a hundred.
                let bound = if factor < 0.2 { 2e-5 } else { 5e-6 };
                agree(&format!("{kernel} {shape:?} {factor}"), &got, &want, bound);
                velocities_agree(&format!("{kernel} {shape:?} {factor}"), &got, &want, 4.0 * bound);
            }
        }
    }

    /// Coefficients are rounded to the points' type before the product; the numbers are f32 all along.
    #[test]
    fn halves_on_tensor_cores() {
        let Some(context) = open() else { return };
        for shape in [[9, 40, 30, 3], [65, 200, 90, 72]] {
            for kernel in Kernel::ALL {
                let spec = FieldSpec::new(kernel, 0.5 * (shape[3] as f64).sqrt());
                let sets = Sets::random(4, shape, false);
                for ([got, want], unit) in [
                    (sets.on::<f16>(&context, &spec, false), 2f64.powi(-11)),
                    (sets.on::<bf16>(&context, &spec, false), 2f64.powi(-8)),
                ] {
                    agree(&format!("{kernel} {shape:?}"), &got, &want, 2.0 * unit);
                    check("numbers", relative_error(&got.alpha_p, &want.alpha_p), 1e-5);
                    check("numbers", relative_error(&got.logz_q, &want.logz_q), 1e-5);
                }
            }
        }
    }

    /// Queries that are references, in memory of their own and in the queries'.
    #[test]
    fn queries_leave_themselves_out() {
        let Some(context) = open() else { return };
        for shape in [[12, 9, 12, 2], [70, 30, 70, 20]] {
            for kernel in Kernel::ALL {
                for self_mask in [true, false] {
                    let mut spec = FieldSpec::new(kernel, 0.4 * (shape[3] as f64).sqrt());
                    spec.self_mask = self_mask;
                    let sets = Sets::random(9, shape, true);
                    for same in [true, false] {
                        let [got, want] = sets.on::<f32>(&context, &spec, same);
                        agree(&format!("{kernel} {self_mask} {same}"), &got, &want, 1e-5);
                    }
                }
            }
        }
    }

    #[test]
    fn bandwidths_of_queries() {
        let Some(context) = open() else { return };
        for dim in [2, 20] {
            for kernel in Kernel::ALL {
                let sets = Sets::random(15, [5, 40, 30, dim], false);
                let bandwidths = [0.3, 0.5, 1.0, 2.0, 7.0];
                let inputs = sets.inputs_of([&sets.x, &sets.p, &sets.q]).bandwidths(&bandwidths).unwrap();
                let got = context.field(&FieldSpec::new(kernel, f64::NAN), &inputs).unwrap();
                let wide = [&sets.x, &sets.p, &sets.q].map(|set| set.iter().map(|v| f64::from(*v)).collect::<Vec<_>>());
                let inputs = sets.inputs_of(wide.each_ref().map(|set| &set[..])).bandwidths(&bandwidths).unwrap();
                let want = reference::field(&FieldSpec::new(kernel, 1.0), &inputs).unwrap();
                agree(&format!("{kernel} {dim}"), &widened(got), &want, 1e-5);
            }
        }
    }

    #[test]
    fn edges() {
        let Some(context) = open() else { return };
        let spec = FieldSpec::new(Kernel::Laplace, 0.5);
        let none = Sets::random(1, [0, 3, 4, 2], false);
        assert!(context.field(&spec, &none.inputs_of([&none.x, &none.p, &none.q])).unwrap().ms_p.is_empty());
        let mut sets = Sets::random(1, [3, 5, 4, 2], false);
        sets.p[1] = f32::NAN;
        let field = context.field(&spec, &sets.inputs_of([&sets.x, &sets.p, &sets.q])).unwrap();
        assert!(field.nonfinite == 1 && field.ms_p.iter().chain(&field.logz_p).all(|v| v.is_nan()));
        let plan = |spec, shape| FieldPlan::new(&spec, shape, cudrift::Dtype::F32, Options::default());
        assert!(matches!(plan(FieldSpec::new(Kernel::Laplace, -1.0), [3, 5, 4, 2]), Err(Error::Value { .. })));
        assert!(matches!(plan(spec, [3, 0, 4, 2]), Err(Error::Value { argument: "p", .. })));
        let mut masked = spec;
        masked.self_mask = true;
        assert!(matches!(plan(masked, [3, 5, 4, 2]), Err(Error::Shape { .. })));
        // Distances of few coordinates are not kept.
        assert!(plan(spec, [4096, 4096, 0, 2]).unwrap().workspace_bytes() < 2 << 20);
    }
}
