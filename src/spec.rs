//! What to compute: [`DriftSpec`] names every numeric choice, and presets fix the combinations that are in use.
//!
//! Nothing here depends on a backend; every backend validates through this module, so that all refuse the same things.

use crate::{Error, Result};

/// The largest number of temperatures in one call.
pub const MAX_TEMPERATURES: usize = 8;

/// Iterations of one Sinkhorn plan at most.
const MAX_ITERATIONS: u32 = 100_000;

/// A radial kernel k(r), with k(0) = 1 and a length scale tau.
///
/// Source: spec 1.2. `c` stands for sqrt(2 nu) / tau. Matérn kernels have nu = k + 1/2, and tend to the Gaussian as k
/// grows; beyond 9/2 the polynomial leaves the range of f32 where its exponential still has digits.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kernel {
    /// exp(-r / tau), Euclidean norm; Matérn 1/2. The kernel of the official code and of the notebook.
    Laplace,
    /// exp(-r² / (2 tau²)).
    Gaussian,
    /// (1 + c r) exp(-c r), c = sqrt(3) / tau.
    Matern32,
    /// (1 + c r + (c r)²/3) exp(-c r), c = sqrt(5) / tau.
    Matern52,
    /// (1 + c r + 2 (c r)²/5 + (c r)³/15) exp(-c r), c = sqrt(7) / tau.
    Matern72,
    /// (1 + c r + 3 (c r)²/7 + 2 (c r)³/21 + (c r)⁴/105) exp(-c r), c = sqrt(9) / tau.
    Matern92,
    /// (1 + (r / tau)²)^(-1/2): Plummer's, whose mass falls so slowly that its companion kernel (1.5, T4) is infinite.
    /// Source: spec 8.6 with m = 3, tau in the place of e, and 1 at r = 0.
    Plummer,
}

impl Kernel {
    /// Every kernel.
    pub const ALL: [Self; 7] =
        [Self::Laplace, Self::Gaussian, Self::Matern32, Self::Matern52, Self::Matern72, Self::Matern92, Self::Plummer];

    /// The name used on the command line: `laplace`, `gaussian`, `matern32` and so on.
    pub fn name(self) -> &'static str {
        match self {
            Self::Laplace => "laplace",
            Self::Gaussian => "gaussian",
            Self::Matern32 => "matern32",
            Self::Matern52 => "matern52",
            Self::Matern72 => "matern72",
            Self::Matern92 => "matern92",
            Self::Plummer => "plummer",
        }
    }

    /// k of nu = k + 1/2, where the kernel is a Matérn one.
    pub(crate) fn order(self) -> Option<u32> {
        match self {
            Self::Gaussian | Self::Plummer => None,
            Self::Laplace => Some(0),
            Self::Matern32 => Some(1),
            Self::Matern52 => Some(2),
            Self::Matern72 => Some(3),
            Self::Matern92 => Some(4),
        }
    }

    /// The coefficients of what multiplies a Matérn kernel's exponential, from the constant on.
    pub(crate) const fn polynomial(self) -> [f32; 5] {
        match self {
            Self::Laplace | Self::Gaussian | Self::Plummer => [1.0, 0.0, 0.0, 0.0, 0.0],
            Self::Matern32 => [1.0, 1.0, 0.0, 0.0, 0.0],
            Self::Matern52 => [1.0, 1.0, 1.0 / 3.0, 0.0, 0.0],
            Self::Matern72 => [1.0, 1.0, 2.0 / 5.0, 1.0 / 15.0, 0.0],
            Self::Matern92 => [1.0, 1.0, 3.0 / 7.0, 2.0 / 21.0, 1.0 / 105.0],
        }
    }

    /// What multiplies the distance, c or 1 / tau, or for the Gaussian its square, 1 / (2 tau²).
    pub(crate) fn rate(self, tau: f64) -> f64 {
        match self.order() {
            Some(k) => f64::from(2 * k + 1).sqrt() / tau,
            None if self == Self::Gaussian => 0.5 / (tau * tau),
            None => 1.0 / tau,
        }
    }
}

impl std::fmt::Display for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Kernel {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|k| k.name() == s).ok_or_else(|| {
            let names = "laplace, gaussian, matern32, matern52, matern72, matern92 or plummer";
            Error::value("kernel", "name", names, format!("{s:?}"))
        })
    }
}

/// How the length scale of the features enters (spec 2.2 (2)–(4), 2.5).
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeatureScale {
    /// The official code: `scale` is the weighted mean distance over every pair of the call, self pairs included;
    /// `sigma = max(scale / sqrt(D), 1e-3)` for coordinates and `max(scale, 1e-3)` for distances — two different clips.
    Official,
    /// The paper's A.6 as this project fixes it: the weighted mean distance without self pairs gives
    /// `S = max(mean / sqrt(D), 1e-3)`; coordinates are divided by S and distances by `S sqrt(D)`.
    Paper,
    /// Raw coordinates and distances: `scale = sigma = 1`. The notebook.
    Raw,
}

/// What happens to the distance between a generated sample and itself (spec 2.2 (5), 2.5).
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SelfMask {
    /// Add this to the normalised distance. The official code adds 100, which leaks where the temperature is above
    /// about 1 (spec 2.4); the entry then still gets the affinity floor.
    Add(f64),
    /// Replace the normalised distance by this. The notebook sets 1e6.
    Set(f64),
    /// The pair does not exist: logit minus infinity, affinity 0. The paper's +1e6.
    Remove,
    /// Leave it as it is.
    Keep,
}

/// What couples queries and targets: which affinity A follows from the logits (spec 2.2 (6), 2.5, 7.3).
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Coupling {
    /// `A = sqrt(a_row a_col)`, the geometric mean of the softmax over targets and that over queries. Every preset.
    #[default]
    RowColumn,
    /// `A = a_row`, the softmax over targets alone: the paper's ablation "over y only". Floors and weights act as if the
    /// column's factor were the row's, so that the official floor is 1e-3 here too.
    Row,
    /// The rows of an entropic transport plan: A = Pi / row sum, where Pi has equal row sums, and column sums in the
    /// proportions of the weights w. The cost is -R log k(n).
    Sinkhorn(Sinkhorn),
}

/// How an entropic plan is found (spec 7.1), in logarithms: `iterations` times a projection on the rows' marginals,
/// then on the columns'; then A is the plan with its rows made 1, which is a row projection more.
///
/// Choices of this project: a target of weight 0 is not there, and [`WeightRule::Ignored`] makes all equal; a query or a
/// target without any pair has no mass. Plans of different groups, temperatures and blocks ([`Form::Split`]) stop apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sinkhorn {
    /// Iterations at most, 1 to 100,000; 20 or 30 in published code.
    pub iterations: u32,
    /// Where not 0: a plan for which the mean of |row sum / marginal - 1| over its rows is at most this after an iteration
    /// takes no more.
    pub tolerance: f64,
}

impl Sinkhorn {
    /// So many iterations, without a look at the marginals.
    pub fn new(iterations: u32) -> Self {
        Self { iterations, tolerance: 0.0 }
    }
}

/// How the force is made of affinities (spec 7.3).
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// One coupling with all targets; attraction is multiplied by the negatives' mass and repulsion by the positives'
    /// (`alg2_joint`). Every preset.
    #[default]
    Joint,
    /// A coupling with the negatives and one with the positives, each with rows of mass 1: the force is the difference
    /// of two barycentres, and 0 for a query that has no pair in one of them (a choice of this project).
    Split,
}

/// The lower clip in the affinity matrix (spec 2.2 (6), 2.7).
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum AffinityFloor {
    /// `A = sqrt(max(a_row a_col, floor))`; the official code's floor is 1e-6, so that A is at least 1e-3 everywhere,
    /// masked pairs included.
    Product(f64),
    /// `A = K / sqrt(max(rowsum colsum, floor))`; the notebook's floor is 1e-12.
    Normalizer(f64),
    /// No clip. The paper.
    None,
}

/// Where target weights enter (spec 2.5, consequence (i)).
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightRule {
    /// `A *= w` after both softmaxes: the effective weight of a sample is w. The official code.
    Affinity,
    /// `log w` is added to the logits: the effective weight is sqrt(w), and w = 0 removes the column. The paper.
    Logit,
    /// Weights are not applied. The notebook.
    Ignored,
}

/// What the force of one temperature is divided by before temperatures are summed (spec 2.2 (6), 2.6).
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ForceNorm {
    /// `theta = sqrt(max(mean F², floor))`, one scalar per temperature for the whole call; floor 1e-8 in the
    /// official code.
    Rms(f64),
    /// Nothing. The notebook.
    None,
}

/// Rules that change nothing in exact arithmetic and decide the digits in f32 (spec 2.2a). All on in every preset.
///
/// The f64 reference computes differences directly and has no need of them; neither has the CPU backend up to D = 8,
/// where `center` and `near_pairs` change nothing.
///
/// On CUDA `center` and `f64_sums` change nothing: samples in f32 meet in differences and those in half precision cannot be
/// centred, and global sums are f64 always. `near_pairs` acts from 1/32 on, on tensor cores.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Numerics {
    /// (i) Subtract the group's mean from all its points before products are formed.
    pub center: bool,
    /// (ii) The distance of a sample to itself is the constant `sqrt(min_squared_distance)`, not computed.
    pub constant_self_distance: bool,
    /// (iii) Where q < `near_pairs` (|x|² + |y|²) after centring, q is recomputed as a sum of squared differences;
    /// 0 switches the rule off.
    pub near_pairs: f64,
    /// (iv) Global sums (scale and force norm) are accumulated in f64; else in f32.
    pub f64_sums: bool,
}

impl Default for Numerics {
    fn default() -> Self {
        Self { center: true, constant_self_distance: true, near_pairs: 1e-3, f64_sums: true }
    }
}

/// Every numeric choice of one drift computation (spec 2.5).
///
/// Start from a preset and change fields:
///
/// ```
/// use cudrift::{DriftSpec, Kernel};
/// let mut spec = DriftSpec::official();
/// spec.kernel = Kernel::Gaussian;
/// spec.temperatures = vec![0.1, 0.4];
/// ```
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub struct DriftSpec {
    /// The kernel of the normalised distance.
    pub kernel: Kernel,
    /// The temperatures R: 1 to [`MAX_TEMPERATURES`] positive numbers, in units of the normalised distance.
    /// Their order does not matter to the force; per-temperature results come in this order.
    pub temperatures: Vec<f64>,
    /// The length scale of the features.
    pub feature_scale: FeatureScale,
    /// Lower clip of the squared distance, before the square root; 1e-8 in the official code, 0 elsewhere.
    pub min_squared_distance: f64,
    /// What happens to the generated diagonal.
    pub self_mask: SelfMask,
    /// What couples queries and targets.
    pub coupling: Coupling,
    /// How the force is made of affinities.
    pub form: Form,
    /// The clip in the affinity; [`AffinityFloor::None`] in the split form and for Sinkhorn, whose rows have mass 1.
    pub affinity_floor: AffinityFloor,
    /// Where weights enter.
    pub weights: WeightRule,
    /// What each temperature's force is divided by.
    pub force_norm: ForceNorm,
    /// Floating-point rules.
    pub numerics: Numerics,
}

impl DriftSpec {
    /// The official JAX release, `drift_loss.py` (spec 2.2): Laplace, R = 0.02, 0.05, 0.2.
    ///
    /// Its affinity floor is a uniform background of 1e-3 per pair. Made for groups of some 64 x 160 pairs in feature
    /// spaces, it drowns the kernel where G · T is near 1e6 or the generated samples lie on one spot; for points in the
    /// plane use [`DriftSpec::notebook`] or [`DriftSpec::paper`].
    pub fn official() -> Self {
        Self {
            kernel: Kernel::Laplace,
            temperatures: vec![0.02, 0.05, 0.2],
            feature_scale: FeatureScale::Official,
            min_squared_distance: 1e-8,
            self_mask: SelfMask::Add(100.0),
            coupling: Coupling::RowColumn,
            form: Form::Joint,
            affinity_floor: AffinityFloor::Product(1e-6),
            weights: WeightRule::Affinity,
            force_norm: ForceNorm::Rms(1e-8),
            numerics: Numerics::default(),
        }
    }

    /// The paper's Algorithm 2 with the normalisation of A.6 (spec 2.5, 2.6): Laplace, tau = 0.02, 0.05, 0.2.
    ///
    /// Where the paper leaves room, the choices are this project's (spec 2.5): self pairs are outside the mean distance
    /// and the affinity, log w enters the logits, there is no affinity floor, and lambda has the floor 1e-4.
    pub fn paper() -> Self {
        Self {
            feature_scale: FeatureScale::Paper,
            min_squared_distance: 0.0,
            self_mask: SelfMask::Remove,
            affinity_floor: AffinityFloor::None,
            weights: WeightRule::Logit,
            ..Self::official()
        }
    }

    /// The official toy notebook (spec 2.7): Laplace, temperature 0.05 on raw distances, no normalisation.
    pub fn notebook() -> Self {
        Self {
            temperatures: vec![0.05],
            feature_scale: FeatureScale::Raw,
            min_squared_distance: 0.0,
            self_mask: SelfMask::Set(1e6),
            affinity_floor: AffinityFloor::Normalizer(1e-12),
            weights: WeightRule::Ignored,
            force_norm: ForceNorm::None,
            ..Self::official()
        }
    }

    /// This dialect with another coupling and form (spec 7.3), and what goes with them: without an affinity floor in the
    /// split form and for Sinkhorn, and for Sinkhorn without a self mask.
    ///
    /// ```
    /// use cudrift::{Coupling, DriftSpec, Form, Sinkhorn};
    /// let spec = DriftSpec::notebook().coupled(Coupling::Sinkhorn(Sinkhorn::new(20)), Form::Split);
    /// spec.validate()?;
    /// # Ok::<(), cudrift::Error>(())
    /// ```
    #[must_use]
    pub fn coupled(mut self, coupling: Coupling, form: Form) -> Self {
        (self.coupling, self.form) = (coupling, form);
        if self.rows_of_mass_one() {
            self.affinity_floor = AffinityFloor::None;
        }
        if self.sinkhorn().is_some() {
            self.self_mask = SelfMask::Keep;
        }
        self
    }

    /// Whether each row's affinities are brought to the sum 1, for all targets or in each block apart.
    pub(crate) fn rows_of_mass_one(&self) -> bool {
        self.form == Form::Split || self.sinkhorn().is_some()
    }

    pub(crate) fn sinkhorn(&self) -> Option<Sinkhorn> {
        match self.coupling {
            Coupling::Sinkhorn(sinkhorn) => Some(sinkhorn),
            Coupling::RowColumn | Coupling::Row => None,
        }
    }

    /// Checks every parameter.
    ///
    /// # Errors
    /// [`Error::Value`] where a temperature is not finite and positive, there are none or more than
    /// [`MAX_TEMPERATURES`], a clip is negative or not finite, an affinity floor stands where rows have mass 1, or
    /// Sinkhorn has no iteration.
    pub fn validate(&self) -> Result<()> {
        const OP: &str = "drift spec";
        let count = self.temperatures.len();
        if count == 0 || count > MAX_TEMPERATURES {
            return Err(Error::value(OP, "the number of temperatures", format!("1 to {MAX_TEMPERATURES}"), count));
        }
        for &r in &self.temperatures {
            // The range keeps 1/R and R² inside f32, so that no backend overflows where another does not.
            if !(1e-12..=1e12).contains(&r) {
                return Err(Error::value(OP, "temperature", "a number between 1e-12 and 1e12", r));
            }
        }
        let non_negative = |argument, value: f64| {
            if value >= 0.0 && value.is_finite() {
                Ok(())
            } else {
                Err(Error::value(OP, argument, "a finite number >= 0", value))
            }
        };
        non_negative("min_squared_distance", self.min_squared_distance)?;
        non_negative("near_pairs", self.numerics.near_pairs)?;
        match self.self_mask {
            SelfMask::Add(v) | SelfMask::Set(v) => non_negative("self_mask", v)?,
            SelfMask::Remove | SelfMask::Keep => {}
        }
        match self.affinity_floor {
            AffinityFloor::Product(v) | AffinityFloor::Normalizer(v) => {
                non_negative("affinity_floor", v)?;
            }
            AffinityFloor::None => {}
        }
        match self.force_norm {
            ForceNorm::Rms(v) => non_negative("force_norm", v)?,
            ForceNorm::None => {}
        }
        if let Some(Sinkhorn { iterations, tolerance }) = self.sinkhorn() {
            non_negative("tolerance", tolerance)?;
            if !(1..=MAX_ITERATIONS).contains(&iterations) {
                return Err(Error::value(OP, "iterations", format!("1 to {MAX_ITERATIONS}"), iterations));
            }
        }
        if self.rows_of_mass_one() && self.affinity_floor != AffinityFloor::None {
            let expected = "none, in the split form and for Sinkhorn (`DriftSpec::coupled` takes it away)";
            return Err(Error::value(OP, "affinity_floor", expected, format!("{:?}", self.affinity_floor)));
        }
        Ok(())
    }
}

/// The global length scale of one call, from the mean distance (spec 2.2 (2)–(4)).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    /// What is reported as `scale`: the mean distance.
    pub scale: f64,
    /// What coordinates are divided by, `scale_inputs` in the official code.
    pub sigma: f64,
    /// What distances are divided by.
    pub distance: f64,
}

/// `max(x, floor)` that keeps a NaN, as every clip of the specification does.
pub(crate) fn clip_min(x: f64, floor: f64) -> f64 {
    if x < floor { floor } else { x }
}

impl Scale {
    /// The scale that follows from the mean distance of a call with `dim` coordinates; `mean` is not looked at where
    /// the spec uses raw coordinates.
    pub fn from_mean_distance(spec: &DriftSpec, mean: f64, dim: usize) -> Self {
        let root = (dim as f64).sqrt();
        match spec.feature_scale {
            FeatureScale::Official => {
                Self { scale: mean, sigma: clip_min(mean / root, 1e-3), distance: clip_min(mean, 1e-3) }
            }
            FeatureScale::Paper => {
                let sigma = clip_min(mean / root, 1e-3);
                Self { scale: sigma * root, sigma, distance: sigma * root }
            }
            FeatureScale::Raw => Self { scale: 1.0, sigma: 1.0, distance: 1.0 },
        }
    }

    /// A call without groups reports the scale 0 (spec 2.2a).
    pub(crate) fn of_nothing(self) -> Self {
        Self { scale: 0.0, ..self }
    }
}

/// What the force of a temperature with mean square `f2` is divided by (spec 2.2 (6)).
pub(crate) fn theta(spec: &DriftSpec, f2: f64) -> f64 {
    match spec.force_norm {
        ForceNorm::Rms(floor) => clip_min(f2, floor).sqrt(),
        ForceNorm::None => 1.0,
    }
}

/// Which samples a classifier-free guidance scale makes of the unconditional negatives: their weight (spec 3.1),
/// `(alpha - 1) (G - 1) / max(1, N)`.
///
/// # Errors
/// [`Error::Value`] where alpha is below 1 or not finite, or G is 0.
///
/// ```
/// assert_eq!(cudrift::guidance_weight(4.0, 64, 32)?, 5.90625);
/// # Ok::<(), cudrift::Error>(())
/// ```
pub fn guidance_weight(alpha: f64, generated: usize, negatives: usize) -> Result<f64> {
    if !(alpha >= 1.0 && alpha.is_finite()) {
        return Err(Error::value("guidance weight", "alpha", "a finite number >= 1", alpha));
    }
    if generated == 0 {
        return Err(Error::value("guidance weight", "G", "at least 1", generated));
    }
    Ok((alpha - 1.0) * (generated - 1) as f64 / negatives.max(1) as f64)
}
