//! One file per subcommand.

mod bench;
mod config;
mod diagnose;
mod doctor;
mod drift;
mod encoder;
mod field;
mod flow;
mod sample;
mod train;

use crate::error::{Error, Result, note};
use clap::{Subcommand, ValueEnum};
use cudrift::data::Data;
use cudrift::rng::{Purpose, Stream};
use cudrift::train::Along;
use cudrift::{FieldSpec, Projection, Velocity, cuda};
use std::sync::Arc;

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Train a one-step generator on a toy distribution or on your points
    Train(train::Args),
    /// Train an encoder on your points, for a drift of its features
    Encoder(encoder::Args),
    /// Compute the drift of a case: loss, target, gradient, statistics
    Drift(drift::Args),
    /// Compute the fields of two point sets: mean shift, score, MMD and others
    Field(field::Args),
    /// Move points along a field or drift, and draw them
    Flow(flow::Args),
    /// Measure how near the drift is to a multiple of the score discrepancy
    Diagnose(diagnose::Args),
    /// Draw samples from a trained generator
    Sample(sample::Args),
    /// Say what this machine offers, and what to do about what is missing
    Doctor(doctor::Args),
    /// Time the drift on the official shapes, beside the machine's ceilings
    Bench(bench::Args),
}

impl Command {
    pub(crate) fn run(self) -> Result<()> {
        match self {
            Self::Train(args) => train::run(args),
            Self::Encoder(args) => encoder::run(&args),
            Self::Drift(args) => drift::run(&args),
            Self::Field(args) => field::run(&args),
            Self::Flow(args) => flow::run(&args),
            Self::Diagnose(args) => diagnose::run(&args),
            Self::Sample(args) => sample::run(&args),
            Self::Doctor(args) => doctor::run(&args),
            Self::Bench(args) => bench::run(&args),
        }
    }
}

/// Where the work is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Backend {
    /// An NVIDIA GPU where there is one, else the CPU
    #[default]
    Auto,
    /// The CPU
    Cpu,
    /// An NVIDIA GPU
    Cuda,
}

impl Backend {
    /// What `open` makes of the device to compute on, or nothing for the CPU.
    ///
    /// `auto` takes a GPU where there is one and says so where it cannot be used. The simulator, which is for tests, it
    /// leaves alone.
    pub(crate) fn device<T>(self, open: impl FnOnce() -> cudrift::Result<T>) -> Result<Option<T>> {
        match self {
            Self::Cpu => Ok(None),
            Self::Cuda => open().map(Some).map_err(|problem| {
                Error::message(format!("--backend cuda: {problem}; --backend cpu computes the same"))
            }),
            Self::Auto if !cuda::probe().is_ok_and(|gpu| !gpu.simulated) => Ok(None),
            Self::Auto => {
                Ok(open().inspect_err(|problem| note(&format!("warning: {problem}; computing on the CPU"))).ok())
            }
        }
    }
}

/// A combination of numeric choices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Preset {
    /// The official JAX release
    Official,
    /// Algorithm 2 of the paper with its normalisation
    Paper,
    /// The official toy notebook
    Notebook,
}

impl Preset {
    pub(crate) fn spec(self) -> cudrift::DriftSpec {
        match self {
            Self::Official => cudrift::DriftSpec::official(),
            Self::Paper => cudrift::DriftSpec::paper(),
            Self::Notebook => cudrift::DriftSpec::notebook(),
        }
    }
}

/// A radial kernel; the temperature, or bandwidth, is its length scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum KernelName {
    /// exp(-r/h)
    Laplace,
    /// exp(-r²/(2h²))
    Gaussian,
    /// Matérn 3/2
    Matern32,
    /// Matérn 5/2
    Matern52,
    /// Matérn 7/2
    Matern72,
    /// Matérn 9/2
    Matern92,
    /// 1/sqrt(1+(r/h)²)
    Plummer,
}

impl From<KernelName> for cudrift::Kernel {
    fn from(name: KernelName) -> Self {
        match name {
            KernelName::Laplace => Self::Laplace,
            KernelName::Gaussian => Self::Gaussian,
            KernelName::Matern32 => Self::Matern32,
            KernelName::Matern52 => Self::Matern52,
            KernelName::Matern72 => Self::Matern72,
            KernelName::Matern92 => Self::Matern92,
            KernelName::Plummer => Self::Plummer,
        }
    }
}

/// What points are moved by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum FieldName {
    /// Mean shift, the barycenter minus the query
    MeanShift,
    /// Kernel score, the gradient of the log mass
    Score,
    /// Mean shift over the companion kernel's mass, which makes it a gradient
    Sharp,
    /// Gradient of p - q, estimates with the kernel
    Mmd,
    /// That with Plummer's kernel, whose e is the bandwidth; 1 at r = 0, not 1/e
    Coulomb,
    /// p/q times the score: descent of KL(p||q)
    ForwardKl,
    /// 2q/p times the score: descent of the chi-squared divergence of q from p
    ChiSquared,
    /// Towards p by projections: the sliced Wasserstein field, which has no kernel
    Sliced,
    /// Kernel score with the Gaussian at samples with noise of its bandwidth
    SdFlow,
    /// Mean shift, p by way of landmarks: DriftXpress
    Nystrom,
    /// A drift: Sinkhorn plans with the Gaussian, apart for p and q, which is independent of the samples
    WFlow,
}

impl FieldName {
    /// The kernel that somebody gave, or its own.
    pub(crate) fn kernel(self, given: Option<KernelName>) -> Result<KernelName> {
        let own = match self {
            Self::Coulomb => KernelName::Plummer,
            Self::SdFlow | Self::WFlow => KernelName::Gaussian,
            _ => return Ok(given.unwrap_or(KernelName::Laplace)),
        };
        if given.is_some_and(|kernel| kernel != own) {
            let only = if own == KernelName::Plummer { "plummer" } else { "gaussian" };
            return Err(Error::usage(format!("this field's kernel is {only}")));
        }
        Ok(own)
    }

    /// What training and flows go along: a sample is left out of its own set, as by a drift. Nothing where the name stands
    /// for a drift.
    pub(crate) fn along(self, choices: &FieldChoices, data: &Data) -> Result<Option<Along>> {
        let FieldChoices { kernel, bandwidth, most, directions, landmarks, pool, seed } = *choices;
        let mut spec = FieldSpec::new(kernel.into(), bandwidth);
        spec.self_mask = true;
        Ok(Some(match (self, self.velocity(most)) {
            (_, Some(velocity)) => Along::Kernel { spec, velocity, noised: self == Self::SdFlow },
            (Self::Nystrom, None) => {
                // A slip here would ask for more than there is memory.
                if pool > MOST_POOL {
                    return Err(Error::message(format!("pool is {pool}, expected at most {MOST_POOL}")));
                }
                let drawn;
                let all = match data.all() {
                    Some((values, _)) => values,
                    None => {
                        drawn = data.sample(&mut Stream::new(seed, Purpose::Landmarks, 1), pool);
                        &drawn[..]
                    }
                };
                let shape = [all.len() / data.dim(), data.dim()];
                Along::Projected(Arc::new(Projection::among(&spec, (all, shape), landmarks, seed)?))
            }
            (Self::WFlow, None) => return Ok(None),
            (_, None) => Along::Sliced { directions },
        }))
    }

    /// What is made of a kernel's sums, with log ratios that end at `most`; nothing where there is no kernel.
    pub(crate) fn velocity(self, most: f64) -> Option<Velocity> {
        Some(match self {
            Self::MeanShift => Velocity::MeanShift,
            Self::Score | Self::SdFlow => Velocity::Score,
            Self::Sharp => Velocity::Sharp,
            Self::Mmd | Self::Coulomb => Velocity::Mmd,
            Self::ForwardKl => Velocity::ForwardKl { most },
            Self::ChiSquared => Velocity::ChiSquared { most },
            Self::Sliced | Self::Nystrom | Self::WFlow => return None,
        })
    }
}

/// The numbers of a field.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FieldChoices {
    pub(crate) kernel: KernelName,
    pub(crate) bandwidth: f64,
    pub(crate) most: f64,
    pub(crate) directions: usize,
    pub(crate) landmarks: usize,
    /// How many data are drawn from a distribution, of which some become landmarks; data of a file are taken all.
    pub(crate) pool: usize,
    pub(crate) seed: u64,
}

/// What `--coupling` and `--form` get beside `--field`.
pub(crate) const NO_COUPLING: &str = "a field takes the place of a drift, and has no --coupling or --form";

/// Where log ratios of estimates end unless somebody says more. The source has no number (spec 8.8, open).
pub(crate) const MOST_LOG_RATIO: f64 = 5.0;

/// Landmarks of the data unless somebody says more, as in the source (spec 8.11), and data drawn from a distribution.
pub(crate) const LANDMARKS: usize = 500;
pub(crate) const POOL: usize = 10_000;
const MOST_POOL: usize = 10_000_000;

/// Directions of a sliced field unless somebody says more.
pub(crate) const DIRECTIONS: usize = 200;

/// The operands of a generator's products; all else is in f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Precision {
    /// As they are
    F32,
    /// Rounded to bfloat16: mixed precision
    Bf16,
}

impl From<Precision> for cudrift::Dtype {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32,
            Precision::Bf16 => Self::Bf16,
        }
    }
}

/// Where target weights enter (spec 2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum WeightName {
    /// After both softmaxes
    Affinity,
    /// In the logits
    Logit,
    /// Nowhere
    Ignored,
}

impl From<WeightName> for cudrift::WeightRule {
    fn from(name: WeightName) -> Self {
        match name {
            WeightName::Affinity => Self::Affinity,
            WeightName::Logit => Self::Logit,
            WeightName::Ignored => Self::Ignored,
        }
    }
}

impl From<cudrift::WeightRule> for WeightName {
    fn from(rule: cudrift::WeightRule) -> Self {
        match rule {
            cudrift::WeightRule::Logit => Self::Logit,
            cudrift::WeightRule::Ignored => Self::Ignored,
            _ => Self::Affinity,
        }
    }
}

/// What couples queries and targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum CouplingName {
    /// Geometric mean of the softmaxes over targets and over queries
    RowColumn,
    /// Softmax over targets
    Row,
    /// Rows of an entropic transport plan
    Sinkhorn,
}

/// How the force is made of affinities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum FormName {
    /// One coupling with all targets, attraction and repulsion weighted by one another's mass
    Joint,
    /// A coupling with negatives and one with positives, and the difference of their barycentres
    Split,
}

/// The options of a coupling.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct CouplingArgs {
    /// What couples queries and targets [default: row-column]
    #[arg(long, value_enum)]
    pub(crate) coupling: Option<CouplingName>,
    /// How the force is made of affinities [default: split for sinkhorn, else joint]
    #[arg(long, value_enum)]
    pub(crate) form: Option<FormName>,
    /// Iterations of a Sinkhorn plan at most [default: 20]
    #[arg(long, value_name = "I", allow_negative_numbers = true)]
    pub(crate) sinkhorn_iterations: Option<u32>,
    /// End a plan earlier, where its rows are this near to their marginals; 0 for never [default: 0]
    #[arg(long, value_name = "E", allow_negative_numbers = true)]
    pub(crate) sinkhorn_tolerance: Option<f64>,
}

/// A coupling and a form, with every default filled in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Coupled {
    pub(crate) coupling: CouplingName,
    pub(crate) form: FormName,
    pub(crate) sinkhorn_iterations: u32,
    pub(crate) sinkhorn_tolerance: f64,
}

impl CouplingArgs {
    /// As [`CouplingArgs::or_default`], or W-Flow's coupling where that is the field.
    pub(crate) fn for_field(&self, field: Option<FieldName>, default: CouplingName) -> Result<Coupled> {
        if field != Some(FieldName::WFlow) {
            return self.or_default(default);
        }
        let coupled = self.or_default(CouplingName::Sinkhorn)?;
        coupled.check_w_flow()?;
        Ok(coupled)
    }

    pub(crate) fn or_default(&self, default: CouplingName) -> Result<Coupled> {
        let coupling = self.coupling.unwrap_or(default);
        if coupling != CouplingName::Sinkhorn
            && (self.sinkhorn_iterations.is_some() || self.sinkhorn_tolerance.is_some())
        {
            return Err(Error::usage("--sinkhorn-iterations and --sinkhorn-tolerance go with --coupling sinkhorn"));
        }
        Ok(Coupled {
            coupling,
            form: self.form.unwrap_or(if coupling == CouplingName::Sinkhorn {
                FormName::Split
            } else {
                FormName::Joint
            }),
            sinkhorn_iterations: self.sinkhorn_iterations.unwrap_or(20),
            sinkhorn_tolerance: self.sinkhorn_tolerance.unwrap_or(0.0),
        })
    }
}

impl Coupled {
    /// Refuses what is not W-Flow's coupling.
    pub(crate) fn check_w_flow(self) -> Result<()> {
        match (self.coupling, self.form) {
            (CouplingName::Sinkhorn, FormName::Split) => Ok(()),
            _ => Err(Error::usage("w-flow is the drift of --coupling sinkhorn --form split")),
        }
    }

    /// The dialect with this coupling and form.
    pub(crate) fn spec(self, dialect: cudrift::DriftSpec) -> cudrift::DriftSpec {
        let Self { sinkhorn_iterations: iterations, sinkhorn_tolerance: tolerance, .. } = self;
        let coupling = match self.coupling {
            CouplingName::RowColumn => cudrift::Coupling::RowColumn,
            CouplingName::Row => cudrift::Coupling::Row,
            CouplingName::Sinkhorn => cudrift::Coupling::Sinkhorn(cudrift::Sinkhorn { iterations, tolerance }),
        };
        let form = match self.form {
            FormName::Joint => cudrift::Form::Joint,
            FormName::Split => cudrift::Form::Split,
        };
        dialect.coupled(coupling, form)
    }
}

/// The warning that goes with data, or a result, that is not finite.
pub(crate) fn warn_nonfinite<'a>(inputs: u64, outputs: impl IntoIterator<Item = &'a [f32]>) {
    if inputs > 0 {
        note(&format!("warning: {inputs} input values are NaN or infinite; the outputs that they reach are NaN"));
    } else if outputs.into_iter().flatten().any(|v| !v.is_finite()) {
        note("warning: the inputs are finite but the result is not: something is too large for f32; rescale the data");
    }
}
