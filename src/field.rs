//! Mean-shift and kernel-score fields of two reference sets: what to compute, and the validation that backends share.

use crate::{Error, Kernel, Points, Result};

/// Which kernel and bandwidth make the fields of spec section 1.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FieldSpec {
    /// The kernel.
    pub kernel: Kernel,
    /// Its length scale tau (h), in units of the raw distance.
    pub bandwidth: f64,
    /// Leave out term j = i of q; then q has as many points as x (spec 1.4 (b)).
    pub self_mask: bool,
}

impl FieldSpec {
    /// A field without self mask.
    pub fn new(kernel: Kernel, bandwidth: f64) -> Self {
        Self { kernel, bandwidth, self_mask: false }
    }

    /// Checks the bandwidth.
    ///
    /// # Errors
    /// [`Error::Value`] outside 1e-12 to 1e12.
    pub fn validate(&self) -> Result<()> {
        check_bandwidth(self.bandwidth)
    }

    /// A bandwidth that grows with the number of dimensions, `base D^exponent` (spec 1.6): with the exponent 1/2 the
    /// kernel's exponents keep their size where distances grow like the root of D.
    pub fn for_dimension(kernel: Kernel, base: f64, exponent: f64, dim: usize) -> Self {
        Self::new(kernel, base * (dim as f64).powf(exponent))
    }
}

/// The points of a field: queries x [n, D], references p [m, D] and q [l, D], the references' weights, and the queries'
/// bandwidths where each has its own.
#[derive(Clone, Copy, Debug)]
pub struct FieldInputs<'a, T> {
    pub(crate) x: &'a [T],
    pub(crate) p: &'a [T],
    pub(crate) q: &'a [T],
    pub(crate) weight_p: Option<&'a [f32]>,
    pub(crate) weight_q: Option<&'a [f32]>,
    pub(crate) bandwidths: Option<&'a [f32]>,
    pub(crate) dim: usize,
}

impl<'a, T: Copy> FieldInputs<'a, T> {
    /// Queries and references as arrays of shape [n, D], [m, D] and [l, D].
    ///
    /// # Errors
    /// [`Error::Shape`] where the arrays do not have these shapes; [`Error::Value`] where D, m or l is 0.
    pub fn new(x: (&'a [T], [usize; 2]), p: (&'a [T], [usize; 2]), q: (&'a [T], [usize; 2])) -> Result<Self> {
        let dim = x.1[1];
        for (argument, (data, shape)) in [("x", x), ("p", p), ("q", q)] {
            Points::new(data, [1, shape[0], shape[1]])
                .map_err(|_| Error::shape("field", argument, shape, [data.len()]))?;
            if shape[1] != dim {
                return Err(Error::shape("field", argument, [shape[0], dim], shape));
            }
            if dim == 0 || (shape[0] == 0 && argument != "x") {
                return Err(Error::value(
                    "field",
                    argument,
                    "at least one point and one coordinate",
                    format!("{shape:?}"),
                ));
            }
        }
        Ok(Self { x: x.0, p: p.0, q: q.0, weight_p: None, weight_q: None, bandwidths: None, dim })
    }

    /// Sets the weights of p, `[m]`, and of q, `[l]`; absent means 1.
    ///
    /// # Errors
    /// [`Error::Shape`] on a wrong length; [`Error::Value`] where a weight is negative or not finite, or all are 0.
    pub fn weights(mut self, weight_p: Option<&'a [f32]>, weight_q: Option<&'a [f32]>) -> Result<Self> {
        for (argument, weights, points) in [("weight_p", weight_p, self.p), ("weight_q", weight_q, self.q)] {
            let Some(weights) = weights else { continue };
            let count = points.len() / self.dim;
            if weights.len() != count {
                return Err(Error::shape("field", argument, [count], [weights.len()]));
            }
            if let Some(w) = weights.iter().find(|w| !(**w >= 0.0 && w.is_finite())) {
                return Err(Error::value("field", argument, "finite and >= 0 everywhere", w));
            }
            if weights.iter().all(|w| *w == 0.0) {
                return Err(Error::value("field", argument, "at least one weight above 0", "all 0"));
            }
        }
        (self.weight_p, self.weight_q) = (weight_p, weight_q);
        Ok(self)
    }

    /// Gives every query a bandwidth of its own, `[n]`, in the place of the spec's.
    ///
    /// # Errors
    /// [`Error::Shape`] on a wrong length; [`Error::Value`] where one is outside 1e-12 to 1e12.
    pub fn bandwidths(mut self, bandwidths: &'a [f32]) -> Result<Self> {
        let [n, ..] = self.shape();
        if bandwidths.len() != n {
            return Err(Error::shape("field", "bandwidths", [n], [bandwidths.len()]));
        }
        bandwidths.iter().try_for_each(|h| check_bandwidth(f64::from(*h)))?;
        self.bandwidths = Some(bandwidths);
        Ok(self)
    }

    /// That of query `i`.
    pub(crate) fn bandwidth(&self, spec: &FieldSpec, i: usize) -> f64 {
        self.bandwidths.map_or(spec.bandwidth, |own| f64::from(own[i]))
    }

    /// [n, m, l, D].
    pub fn shape(&self) -> [usize; 4] {
        [self.x.len() / self.dim, self.p.len() / self.dim, self.q.len() / self.dim, self.dim]
    }

    /// The logarithms of the sums of the weights that each query sees in p and in q.
    pub(crate) fn log_totals<R: Real>(&self, self_mask: bool) -> [Vec<R>; 2] {
        let [n, m, l, _] = self.shape();
        let sum = |weights: Option<&[f32]>, count: usize| {
            weights.map_or(count as f64, |weights| weights.iter().map(|w| f64::from(*w)).sum())
        };
        let (p, q) = (sum(self.weight_p, m), sum(self.weight_q, l));
        let own = |i: usize| if self_mask { self.weight_q.map_or(1.0, |w| f64::from(w[i])) } else { 0.0 };
        [vec![R::from_f64(p.ln()); n], (0..n).map(|i| R::from_f64((q - own(i)).ln())).collect()]
    }

    pub(crate) fn validate(&self, spec: &FieldSpec) -> Result<()> {
        if self.bandwidths.is_none() {
            check_bandwidth(spec.bandwidth)?;
        }
        let [n, _, l, dim] = self.shape();
        if spec.self_mask && n != l {
            return Err(Error::shape("field", "q (with the self mask: as many points as x)", [n, dim], [l, dim]));
        }
        if spec.self_mask && l < 2 {
            return Err(Error::value("field", "q", "at least two points with the self mask", l));
        }
        Ok(())
    }
}

fn check_bandwidth(bandwidth: f64) -> Result<()> {
    if !(1e-12..=1e12).contains(&bandwidth) {
        return Err(Error::value("field", "bandwidth", "a number between 1e-12 and 1e12", bandwidth));
    }
    Ok(())
}

/// The fields of one call, each array [n, D], and numbers of each query, `[n]`.
///
/// The weights of a query are `w_j = k(r_j) / sum_l k(r_l)`, with those of the references inside.
///
/// `T` is f64 from the reference and f32 from the CPU backend.
#[derive(Clone, Debug, Default)]
pub struct Field<T> {
    /// Mean shift towards p: `sum_j w_j k (y_j - x) / sum_j w_j k`.
    pub ms_p: Vec<T>,
    /// Mean shift towards q.
    pub ms_q: Vec<T>,
    /// `ms_p - ms_q`.
    pub drift: Vec<T>,
    /// Kernel score of p: the gradient of `log sum_j w_j k`, with the Laplace term at r = 0 taken as 0.
    pub score_p: Vec<T>,
    /// Kernel score of q.
    pub score_q: Vec<T>,
    /// `score_p - score_q`.
    pub score_diff: Vec<T>,
    /// `log sum_j w_j k` over p, not divided by the sum of the weights.
    pub logz_p: Vec<T>,
    /// `log sum_j w_j k` over q.
    pub logz_q: Vec<T>,
    /// The preconditioner of p, `sum_j w_j / b(r_j)` (spec 1.5, T2): tau² for the Gaussian, tau times the weighted mean
    /// distance for Laplace.
    pub alpha_p: Vec<T>,
    /// The preconditioner of q.
    pub alpha_q: Vec<T>,
    /// `sum_j w_j k#(r_j) / k(r_j)` over p, the mass of the companion kernel over that of the kernel (spec 1.5, T4).
    pub sharp_ratio_p: Vec<T>,
    /// The same over q.
    pub sharp_ratio_q: Vec<T>,
    /// The logarithm of the sum of the references' weights in p; without weights there are m of 1.
    pub log_total_p: Vec<T>,
    /// The same in q; with the self mask without the query's own.
    pub log_total_q: Vec<T>,
    /// The effective sample size of p, `1 / sum_j w_j²` (spec 6.6).
    pub ess_p: Vec<T>,
    /// The effective sample size of q.
    pub ess_q: Vec<T>,
    /// How many input coordinates are NaN or infinite.
    pub nonfinite: u64,
}

/// What a [`Field`] moves its queries by: V of spec 1.4 and 8, each from the same two sums over either reference set.
///
/// p and q stand for the kernel density estimates as well, `sum_j w_j k / sum_j w_j`.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Velocity {
    /// Mean shifts, `ms_p - ms_q` (spec 1.4).
    MeanShift,
    /// Kernel scores, `grad log p - grad log q` (spec 8.3): the steepest descent of KL(q || p). With the Gaussian at queries
    /// with noise of its bandwidth that is SD-Flow (8.7).
    Score,
    /// Mean shifts over the companion kernel's mass (spec 8.4), which makes them a gradient for every kernel.
    Sharp,
    /// `grad p - grad q`, minus half the gradient of MMD² (spec 8.5). With [`Kernel::Plummer`] it is the bandwidth e times
    /// the Coulomb field (8.6), whose kernel is 1 / e at r = 0.
    Mmd,
    /// `p / q` times the score difference: the steepest descent of KL(p || q) (spec 8.8).
    ForwardKl {
        /// Where `|log p / q|` ends, above 0. The paper has no number (spec 8.8, open).
        most: f64,
    },
    /// `2 q / p` times the score difference: that of the integral of `(q - p)² / p` (spec 8.8).
    ChiSquared {
        /// As for [`Velocity::ForwardKl`].
        most: f64,
    },
}

impl Velocity {
    /// Checks the clips.
    ///
    /// # Errors
    /// [`Error::Value`] where `most` is not a number above 0.
    pub fn validate(self) -> Result<()> {
        match self {
            Self::ForwardKl { most } | Self::ChiSquared { most } if most.is_nan() || most <= 0.0 => {
                Err(Error::value("field", "most", "a number above 0", most))
            }
            _ => Ok(()),
        }
    }
}

/// f32 or f64.
pub trait Real: Copy + Into<f64> + Send + Sync {
    /// The nearest number.
    fn from_f64(value: f64) -> Self;
}

impl Real for f32 {
    fn from_f64(value: f64) -> Self {
        value as f32
    }
}

impl Real for f64 {
    fn from_f64(value: f64) -> Self {
        value
    }
}

impl<T: Real> Field<T> {
    /// The covariance residuals of p and of q, [n, D] each: what the mean shift is beside `alpha` times the score
    /// (spec 1.5, T2; 0 for the Gaussian).
    pub fn residuals(&self) -> [Vec<T>; 2] {
        let residual = |shift: &[T], score: &[T], alpha: &[T]| self.joined(shift, score, |i| [1.0, -alpha[i].into()]);
        [residual(&self.ms_p, &self.score_p, &self.alpha_p), residual(&self.ms_q, &self.score_q, &self.alpha_q)]
    }

    /// How a velocity moves every query, [n, D].
    ///
    /// # Errors
    /// [`Error::Value`] where `most` is not a number above 0.
    pub fn velocity(&self, velocity: Velocity) -> Result<Vec<T>> {
        velocity.validate()?;
        let (a, b) = match velocity {
            Velocity::MeanShift | Velocity::Sharp => (&self.ms_p, &self.ms_q),
            _ => (&self.score_p, &self.score_q),
        };
        Ok(self.joined(a, b, |i| {
            // Of the estimates.
            let p = self.logz_p[i].into() - self.log_total_p[i].into();
            let q = self.logz_q[i].into() - self.log_total_q[i].into();
            // A NaN stays.
            let ratio = |most: f64| (p - q).clamp(-most, most).exp();
            match velocity {
                Velocity::MeanShift | Velocity::Score => [1.0, -1.0],
                Velocity::Sharp => [1.0 / self.sharp_ratio_p[i].into(), -1.0 / self.sharp_ratio_q[i].into()],
                Velocity::Mmd => [p.exp(), -q.exp()],
                Velocity::ForwardKl { most } => [ratio(most), -ratio(most)],
                Velocity::ChiSquared { most } => [2.0 / ratio(most), -2.0 / ratio(most)],
            }
        }))
    }

    /// Two arrays [n, D] with factors of each query.
    fn joined(&self, a: &[T], b: &[T], factors: impl Fn(usize) -> [f64; 2]) -> Vec<T> {
        let dim = a.len().checked_div(self.logz_p.len()).unwrap_or(1).max(1);
        let rows = a.chunks(dim).zip(b.chunks(dim)).enumerate();
        rows.flat_map(|(i, (a, b))| {
            let [of_a, of_b] = factors(i);
            a.iter().zip(b).map(move |(a, b)| T::from_f64(of_a * (*a).into() + of_b * (*b).into()))
        })
        .collect()
    }
}
