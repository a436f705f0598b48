//! How near the drift is to a multiple of the score discrepancy (spec 6), and mixtures on which that is measured.
//!
//! A mean shift is `V = alpha s + delta` exactly (spec 1.5, T2); in many dimensions distances agree, alpha is nearly one
//! number C for both sets, and the drift `V_p - V_q` nearly C times the score discrepancy `s_p - s_q`.

mod force;

pub use force::{Block, ForceParts};

use crate::rng::{Purpose, Stream};
use crate::{Error, Field, FieldInputs, FieldSpec, Kernel, Result, cpu};

const OP: &str = "diagnostics";

/// Means over queries of a [`Field`] (spec 6.1 to 6.3); queries from q make them averages over q. Where there is no drift,
/// or no score discrepancy, what is divided by it is NaN.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Alignment {
    /// Preconditioners of p and of q: mean alpha, in squared units of the coordinates.
    pub alpha: [f64; 2],
    /// What the theory puts in their place: the mean of both. (Reconstructed; the published estimator is lost.)
    pub c_theory: f64,
    /// The least-squares factor of the score discrepancy.
    pub c_star: f64,
    /// `|drift - c_theory score_diff|²`.
    pub absolute: f64,
    /// That over `|drift|²`.
    pub relative: f64,
    /// The cosine between drift and score discrepancy, over queries where neither is 0.
    pub cosine: f64,
    /// `|delta_p - delta_q|²`, of the covariance residuals.
    pub residual: f64,
    /// `|drift|²`, what a training loss would be.
    pub drift: f64,
    /// `|score_diff|²`.
    pub score: f64,
    /// Effective sample sizes of p and of q (spec 6.6).
    pub ess: [f64; 2],
}

impl Alignment {
    /// Of a field with D coordinates. What is not finite in it is so here.
    ///
    /// # Errors
    /// [`Error::Value`] where the field has no query.
    pub fn new<T: Copy + Into<f64>>(field: &Field<T>) -> Result<Self> {
        let n = field.alpha_p.len();
        if n == 0 {
            return Err(Error::value(OP, "the number of queries", "at least 1", 0));
        }
        let dim = field.drift.len() / n;
        let mean = |values: &[T]| values.iter().map(|v| (*v).into()).sum::<f64>() / n as f64;
        let alpha = [mean(&field.alpha_p), mean(&field.alpha_q)];
        let c_theory = (alpha[0] + alpha[1]) / 2.0;
        let mut out = Self { alpha, c_theory, ess: [mean(&field.ess_p), mean(&field.ess_q)], ..Self::default() };
        let [mut dots, mut directed] = [0.0; 2];
        for i in 0..n {
            let own = i * dim..(i + 1) * dim;
            let [alpha_p, alpha_q] = [field.alpha_p[i], field.alpha_q[i]].map(T::into);
            let [mut dot, mut drift, mut score] = [0.0; 3];
            for k in own {
                let [v, s] = [field.drift[k], field.score_diff[k]].map(T::into);
                dot += v * s;
                drift += v * v;
                score += s * s;
                out.absolute += (v - c_theory * s) * (v - c_theory * s);
                let residual = v - (alpha_p * field.score_p[k].into() - alpha_q * field.score_q[k].into());
                out.residual += residual * residual;
            }
            dots += dot;
            out.drift += drift;
            out.score += score;
            if drift != 0.0 && score != 0.0 {
                out.cosine += dot / (drift.sqrt() * score.sqrt());
                directed += 1.0;
            }
        }
        out.c_star = dots / out.score;
        out.cosine /= directed;
        for sum in [&mut out.absolute, &mut out.residual, &mut out.drift, &mut out.score] {
            *sum /= n as f64;
        }
        out.relative = out.absolute / out.drift;
        Ok(out)
    }
}

/// A pair of Gaussian mixtures p and q in any number of dimensions (spec 6.4). Their published parameters are lost; these
/// are this project's: modes of equal mass, deviation 0.5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Synthetic {
    /// Six modes on a ring of radius 3 in a random plane; q is p rotated by 15 degrees in that plane.
    Ring,
    /// p has six modes at radii 2 to 4, q four at 1.5 to 4.5, in random directions.
    Raw,
}

/// A mixture of Gaussians with one deviation and modes of equal mass.
#[derive(Clone, Debug, PartialEq)]
pub struct Mixture {
    dim: usize,
    /// Of each mode, [modes, D].
    centers: Vec<f64>,
}

/// Of every mode.
const DEVIATION: f64 = 0.5;

impl Synthetic {
    /// p and q in `dim` dimensions.
    ///
    /// # Errors
    /// [`Error::Value`] below two dimensions.
    pub fn mixtures(self, dim: usize, seed: u64) -> Result<[Mixture; 2]> {
        if dim < 2 {
            return Err(Error::value(OP, "the number of dimensions", "at least 2", dim));
        }
        let mut stream = Stream::new(seed, Purpose::Synthetic, 0);
        let mut direction = || -> Vec<f64> {
            let v: Vec<f64> = stream.normals(dim).into_iter().map(f64::from).collect();
            let norm = v.iter().map(|v| v * v).sum::<f64>().sqrt();
            v.into_iter().map(|v| v / norm).collect()
        };
        let mixture = |centers: Vec<f64>| Mixture { dim, centers };
        Ok(match self {
            Self::Ring => {
                let first = direction();
                let other = direction();
                let along: f64 = first.iter().zip(&other).map(|(a, b)| a * b).sum();
                let second: Vec<f64> = first.iter().zip(&other).map(|(a, b)| b - along * a).collect();
                let norm = second.iter().map(|v| v * v).sum::<f64>().sqrt();
                [0.0f64, 15.0].map(|turn| {
                    let modes = (0..6).map(|mode| (60.0 * f64::from(mode) + turn).to_radians().sin_cos());
                    let plane = |(sin, cos): (f64, f64)| {
                        let pairs = first.iter().zip(&second);
                        pairs.map(|(a, b)| 3.0 * (cos * a + sin * b / norm)).collect::<Vec<f64>>()
                    };
                    mixture(modes.flat_map(plane).collect())
                })
            }
            Self::Raw => [&[2.0, 2.4, 2.8, 3.2, 3.6, 4.0][..], &[1.5, 2.5, 3.5, 4.5]].map(|radii| {
                mixture(radii.iter().flat_map(|radius| direction().into_iter().map(move |v| radius * v)).collect())
            }),
        })
    }

    /// The drift of Laplace or another kernel between samples of p and of q, at queries from q.
    ///
    /// # Errors
    /// Those of [`Synthetic::mixtures`] and of [`cpu::field`]; no queries; samples that do not fit into memory.
    pub fn measure(self, dim: usize, set_up: &SetUp) -> Result<Alignment> {
        let SetUp { kernel, references, queries, bandwidth, seed } = *set_up;
        if queries == 0 {
            return Err(Error::value(OP, "the number of queries", "at least 1", 0));
        }
        // Samples, and the ten centres of the mixtures in f64.
        let points = references.checked_mul(2).and_then(|n| n.checked_add(queries)?.checked_add(20));
        let bytes = points.and_then(|n| n.checked_mul(dim)?.checked_mul(size_of::<f32>()));
        Error::check_memory(OP, "the samples", bytes)?;
        let [p, q] = self.mixtures(dim, seed)?;
        let draw =
            |mixture: &Mixture, step: u64, n: usize| mixture.draw(&mut Stream::new(seed, Purpose::Synthetic, step), n);
        let of_q = || (draw(&q, 1, queries), draw(&q, 3, references));
        let (p, (x, q)) = rayon::join(|| draw(&p, 2, references), of_q);
        let norm = |x: &[f32]| x.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        let mean_norm = x.chunks_exact(dim).map(norm).sum::<f64>() / queries as f64;
        let inputs = FieldInputs::new((&x, [queries, dim]), (&p, [references, dim]), (&q, [references, dim]))?;
        Alignment::new(&cpu::field(&FieldSpec::new(kernel, bandwidth * mean_norm), &inputs)?)
    }
}

/// How [`Synthetic::measure`] goes about it; the defaults are this project's, for the published ones are lost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SetUp {
    /// The kernel.
    pub kernel: Kernel,
    /// Samples of p, and of q.
    pub references: usize,
    /// Other samples of q, where the fields are taken.
    pub queries: usize,
    /// The kernel's length scale in units of the queries' mean norm.
    pub bandwidth: f64,
    /// Of everything random.
    pub seed: u64,
}

impl Default for SetUp {
    fn default() -> Self {
        Self { kernel: Kernel::Laplace, references: 4096, queries: 1024, bandwidth: 0.5, seed: 0 }
    }
}

impl Mixture {
    /// The modes' centres [modes, D].
    pub fn centers(&self) -> &[f64] {
        &self.centers
    }

    /// `n` samples [n, D].
    pub fn draw(&self, stream: &mut Stream, n: usize) -> Vec<f32> {
        let modes = self.centers.len() / self.dim;
        let mut samples = Vec::with_capacity(n * self.dim);
        for _ in 0..n {
            let center = &self.centers[stream.index(modes) * self.dim..][..self.dim];
            samples.extend(center.iter().map(|c| (c + DEVIATION * f64::from(stream.normal())) as f32));
        }
        samples
    }
}

/// The slope of the least-squares line through the logarithms of points (x, y), both above 0; NaN for fewer than two.
pub fn log_log_slope(points: impl IntoIterator<Item = (f64, f64)>) -> f64 {
    let logs: Vec<(f64, f64)> = points.into_iter().map(|(x, y)| (x.ln(), y.ln())).collect();
    let n = logs.len() as f64;
    let mean = |pick: fn(&(f64, f64)) -> f64| logs.iter().map(pick).sum::<f64>() / n;
    let (x, y) = (mean(|p| p.0), mean(|p| p.1));
    let covariance: f64 = logs.iter().map(|p| (p.0 - x) * (p.1 - y)).sum();
    covariance / logs.iter().map(|p| (p.0 - x).powi(2)).sum::<f64>()
}
