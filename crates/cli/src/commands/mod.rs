//! One file per subcommand.

mod bench;
mod config;
mod diagnose;
mod doctor;
mod drift;
mod encoder;
mod field;
mod sample;
mod train;

use crate::error::{Error, Result, note};
use clap::{Subcommand, ValueEnum};
use cudrift::cuda;

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Train a one-step generator on a toy distribution or on your points
    Train(train::Args),
    /// Train an encoder on your points, for a drift of its features
    Encoder(encoder::Args),
    /// Compute the drift of a case: loss, target, gradient, statistics
    Drift(drift::Args),
    /// Compute mean-shift and kernel-score fields of two point sets
    Field(field::Args),
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
}

impl From<KernelName> for cudrift::Kernel {
    fn from(name: KernelName) -> Self {
        match name {
            KernelName::Laplace => Self::Laplace,
            KernelName::Gaussian => Self::Gaussian,
            KernelName::Matern32 => Self::Matern32,
            KernelName::Matern52 => Self::Matern52,
        }
    }
}

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

/// The warning that goes with data, or a result, that is not finite.
pub(crate) fn warn_nonfinite<'a>(inputs: u64, outputs: impl IntoIterator<Item = &'a [f32]>) {
    if inputs > 0 {
        note(&format!("warning: {inputs} input values are NaN or infinite; the outputs that they reach are NaN"));
    } else if outputs.into_iter().flatten().any(|v| !v.is_finite()) {
        note("warning: the inputs are finite but the result is not: something is too large for f32; rescale the data");
    }
}
