//! The generator: a multi-layer perceptron with SiLU between its layers (spec 10.1), residual blocks and classes where
//! they are asked for, forward and backward.

mod architecture;
mod file;
mod pass;

pub(crate) use architecture::Layers;
pub use architecture::{Architecture, Conditioning, Layer, Vector};
pub(crate) use file::{f32_view, floats, open, read, serialize};
pub use pass::{Condition, Pass};

use crate::cpu::Host;
use crate::{Error, Result};

/// A generator: its layers, and its parameters in f32.
///
/// All parameters lie in one vector, layer by layer: weight [out, in] by rows, then bias `[out]`; a block's gains before
/// its two layers, the gains of the last normalisation before the last layer, classes and guidance at the end.
#[derive(Clone, Debug, PartialEq)]
pub struct Mlp {
    architecture: Architecture,
    parameters: Vec<f32>,
}

impl Mlp {
    /// A fresh generator. A list of sizes, as `&[2, 8, 1]`, is one without blocks and classes.
    ///
    /// # Errors
    /// Those of [`Architecture::parameters`]; [`Error::TooLarge`] where the parameters do not fit into memory.
    pub fn new(architecture: impl Into<Architecture>, seed: u64) -> Result<Self> {
        let architecture = architecture.into();
        let count = architecture.parameters()?;
        Error::check_memory("generator", "the set of parameters", count.checked_mul(size_of::<f32>()))?;
        let parameters = architecture.layers().initial(seed);
        Ok(Self { architecture, parameters })
    }

    /// A generator with given parameters, in the order of [`Mlp::parameters`].
    ///
    /// # Errors
    /// As [`Mlp::new`]; [`Error::Shape`] where the number of parameters does not fit the layers.
    pub fn from_parameters(architecture: impl Into<Architecture>, parameters: Vec<f32>) -> Result<Self> {
        let architecture = architecture.into();
        let count = architecture.parameters()?;
        if parameters.len() != count {
            return Err(Error::shape("generator", "parameters", [count], [parameters.len()]));
        }
        Ok(Self { architecture, parameters })
    }

    /// Its layers.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// The number of inputs.
    pub fn input_dim(&self) -> usize {
        self.architecture.noise
    }

    /// The number of outputs.
    pub fn output_dim(&self) -> usize {
        self.architecture.output
    }

    /// All parameters.
    pub fn parameters(&self) -> &[f32] {
        &self.parameters
    }

    /// All parameters, to be changed in place.
    pub fn parameters_mut(&mut self) -> &mut [f32] {
        &mut self.parameters
    }

    /// The outputs [n, out] for noise [n, in], on the CPU, of a generator without classes.
    ///
    /// # Errors
    /// [`Error::Shape`] where the noise is not a whole number of samples; [`Error::Value`] where the generator has
    /// classes; [`Error::TooLarge`] where the activations do not fit into memory.
    pub fn forward(&self, noise: &[f32]) -> Result<Vec<f32>> {
        if self.architecture.classes > 0 {
            let expected = "one a sample (forward_classes), for this generator has classes";
            return Err(Error::value("generator", "labels", expected, "none"));
        }
        self.generate(noise, &[], 1.0)
    }

    /// The outputs [n, out] for noise [n, in] and labels `[n]` at a guidance scale of 1 or more, on the CPU.
    ///
    /// A generator that is not told the guidance scale has the one that it was trained with.
    ///
    /// # Errors
    /// As [`Mlp::forward`]; [`Error::Value`] for labels that are not classes, and a guidance scale below 1.
    pub fn forward_classes(&self, noise: &[f32], labels: &[usize], guidance: f64) -> Result<Vec<f32>> {
        let classes = self.architecture.classes;
        if let Some(label) = labels.iter().find(|label| **label >= classes) {
            return Err(Error::value("generator", "a label", format!("less than {classes}"), label));
        }
        if !(guidance >= 1.0 && guidance.is_finite()) {
            return Err(Error::value("generator", "guidance", "a number of at least 1", guidance));
        }
        if labels.len().checked_mul(self.input_dim()) != Some(noise.len()) {
            return Err(Error::shape("generator", "noise", [labels.len(), self.input_dim()], [noise.len()]));
        }
        self.generate(noise, labels, guidance)
    }

    fn generate(&self, noise: &[f32], labels: &[usize], guidance: f64) -> Result<Vec<f32>> {
        if !noise.len().is_multiple_of(self.input_dim()) {
            let expected = format!("[n, {}]", self.input_dim());
            return Err(Error::shape("generator", "noise", expected, [noise.len()]));
        }
        let mut host = Host::new();
        let n = noise.len() / self.input_dim();
        let mut pass = Pass::new(&host, &self.architecture, n)?;
        pass.noise_mut().copy_from_slice(noise);
        if let Some(condition) = pass.condition_mut() {
            condition.labels.iter_mut().zip(labels).for_each(|(to, label)| *to = *label as f32);
            condition.guidance.fill(guidance.ln() as f32);
        }
        pass.forward(&mut host, &self.parameters)?;
        Ok(pass.into_output())
    }
}
