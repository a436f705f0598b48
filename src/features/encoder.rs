//! Trained networks as features, and their files.

use super::OP;
use crate::backend::Backend;
use crate::cpu::Host;
use crate::generator::{Architecture, Layer, Layers, Mlp, open, read, serialize};
use crate::supervised::{Options, Standard, fit};
use crate::{Error, Result};
use std::path::Path;

/// How the names of an encoder's tensors begin.
const PREFIX: &str = "encoder.";

/// The first layers of a network that was trained for something else, each a linear map with SiLU: one head each.
///
/// [`Classifier::encoder`](crate::classifier::Classifier::encoder) and [`Encoder::autoencoder`] make them. Published models use
/// a masked autoencoder (spec 4.1 (b)); this one is for small data.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoder {
    /// Its last layer has SiLU here, too.
    model: Mlp,
}

impl Encoder {
    /// The half of an autoencoder that leads from points [n, D] to the last of `options.hidden`: a network through these
    /// layers and back, trained to give the standardised points of noisy ones (project choice).
    ///
    /// `each_epoch` hears how many epochs are done, and the mean squared error of the last batch.
    ///
    /// # Errors
    /// [`Error::Shape`] where `x` is not one point or more; [`Error::Value`] where a coordinate is not finite, there are no
    /// hidden layers, or for an impossible number in `options`; [`Error::TooLarge`] where memory does not suffice;
    /// [`Error::Diverged`] where the error is not finite at some step.
    pub fn autoencoder(
        x: &[f32],
        dim: usize,
        options: &Options,
        seed: u64,
        each_epoch: impl FnMut(usize, f64),
    ) -> Result<Self> {
        options.validate()?;
        if x.is_empty() || dim == 0 || !x.len().is_multiple_of(dim) {
            return Err(Error::shape(OP, "x", format_args!("[n, {dim}], at least one point"), [x.len()]));
        }
        Error::check_finite(OP, "x", x)?;
        let standard = Standard::of(x, dim, options.min_deviation);
        let inputs = standard.applied(x)?;
        let (there, back) = (options.hidden.iter(), options.hidden.iter().rev().skip(1));
        let hidden: Vec<usize> = there.chain(back).copied().collect();
        let model = Mlp::new(Architecture::plain(dim, &hidden, dim), seed)?;
        let loss = |outputs: &mut [f32], rows: &[usize]| squared_error(outputs, &inputs, dim, rows);
        let model = fit(model, &inputs, options, seed, loss, each_epoch)?;
        Self::of_first(&model, options.hidden.len(), &standard)
    }

    /// The first `count` layers of a network whose inputs are standardised, which the first layer then does itself.
    pub(crate) fn of_first(model: &Mlp, count: usize, standard: &Standard) -> Result<Self> {
        let Architecture { noise, hidden, .. } = model.architecture();
        let Some(([inner @ .., last], _)) = hidden.split_at_checked(count) else {
            return Err(Error::value(OP, "an encoder's layers", "at least one", "none"));
        };
        let architecture = Architecture::plain(*noise, inner, *last);
        let mut parameters = model.parameters()[..architecture.parameters()?].to_vec();
        let (weights, rest) = parameters.split_at_mut(noise * hidden[0]);
        for (row, bias) in weights.chunks_exact_mut(*noise).zip(rest) {
            let mut by_mean = 0.0;
            for ((weight, mean), deviation) in row.iter_mut().zip(&standard.mean).zip(&standard.deviation) {
                *weight /= deviation;
                by_mean += f64::from(*weight) * f64::from(*mean);
            }
            *bias = (f64::from(*bias) - by_mean) as f32;
        }
        Ok(Self { model: Mlp::from_parameters(architecture, parameters)? })
    }

    /// Coordinates of a sample.
    pub fn input_dim(&self) -> usize {
        self.model.input_dim()
    }

    /// Coordinates of the last layer.
    pub fn output_dim(&self) -> usize {
        self.model.output_dim()
    }

    /// The last layer's features [n, d] of samples [n, D], on the CPU.
    ///
    /// # Errors
    /// [`Error::Shape`] where `x` is not a whole number of samples; [`Error::TooLarge`] where memory does not suffice.
    pub fn features(&self, x: &[f32]) -> Result<Vec<f32>> {
        let dim = self.input_dim();
        if !x.len().is_multiple_of(dim) {
            return Err(Error::shape(OP, "x", format_args!("[n, {dim}]"), [x.len()]));
        }
        let (n, mut host) = (x.len() / dim, Host::new());
        let parameters = host.upload("an encoder", self.parameters())?;
        let mut values = host.upload("the samples", x)?;
        for layer in self.layers() {
            let array = || host.array("the features of samples", n.saturating_mul(layer.output));
            let (mut before, mut after) = (array()?, array()?);
            host.hidden(&layer, &parameters, n, &values, None, &mut before, &mut after)?;
            values = after;
        }
        Ok(values)
    }

    pub(crate) fn layers(&self) -> impl Iterator<Item = Layer> + use<> {
        let Layers { hidden, last, .. } = self.model.architecture().layers();
        hidden.into_iter().chain([last])
    }

    pub(crate) fn parameters(&self) -> &[f32] {
        self.model.parameters()
    }

    /// Writes this encoder to a safetensors file, atomically: `encoder.layers.{l}.weight` [out, in] and
    /// `encoder.layers.{l}.bias` `[out]`.
    ///
    /// # Errors
    /// [`Error::Io`] with the system's answer.
    pub fn save(&self, path: &Path) -> Result<()> {
        let tensors = self.model.tensors(PREFIX, self.model.parameters())?;
        crate::files::write_atomically(path, &serialize(tensors, None)?)
    }

    /// Reads an encoder from a safetensors file.
    ///
    /// # Errors
    /// [`Error::Io`] where the file cannot be read; [`Error::Format`] where it is not an encoder.
    pub fn load(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|source| Error::io("read", path, source))?;
        let file = open(&bytes, path)?;
        if !file.names().iter().any(|name| name.starts_with(PREFIX)) {
            return Err(Error::format(path, format!("no tensor {PREFIX}*, so this is not an encoder")));
        }
        read(&file, PREFIX, path)?.try_into().map_err(|error: Error| Error::format(path, error.to_string()))
    }
}

impl TryFrom<Mlp> for Encoder {
    type Error = Error;

    /// The encoder whose layers are those of a network, each with SiLU.
    ///
    /// # Errors
    /// [`Error::Value`] where the network has residual blocks or classes.
    fn try_from(model: Mlp) -> Result<Self> {
        let Architecture { noise, hidden, output, .. } = model.architecture();
        if *model.architecture() != Architecture::plain(*noise, hidden, *output) {
            return Err(Error::value(
                OP,
                "an encoder",
                "layers without residual blocks and classes",
                model.architecture(),
            ));
        }
        Ok(Self { model })
    }
}

/// The mean over points and coordinates of the squared error of outputs [n, D], which its gradient takes the place of.
fn squared_error(outputs: &mut [f32], inputs: &[f32], dim: usize, rows: &[usize]) -> f64 {
    let share = 1.0 / outputs.len() as f64;
    let mut sum = 0.0;
    for (outputs, row) in outputs.chunks_exact_mut(dim).zip(rows) {
        for (output, input) in outputs.iter_mut().zip(&inputs[row * dim..]) {
            let error = f64::from(*output) - f64::from(*input);
            sum += error * error;
            *output = (2.0 * share * error) as f32;
        }
    }
    sum * share
}
