//! The generator: a multi-layer perceptron with SiLU between its layers (spec 10.1), forward and backward.

mod file;
mod pass;

pub(crate) use file::{f32_view, floats, open, read, serialize};
pub use pass::Pass;

use crate::cpu::Host;
use crate::rng::{Purpose, Stream};
use crate::{Error, Result};
use std::ops::Range;

/// A multi-layer perceptron `Linear SiLU Linear SiLU … Linear` in f32.
///
/// All parameters lie in one vector, layer by layer: weight [out, in] by rows, then bias `[out]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Mlp {
    sizes: Vec<usize>,
    parameters: Vec<f32>,
}

impl Mlp {
    /// A network with layers from `sizes[0]` inputs to `sizes.last()` outputs, initialised as PyTorch's `Linear`:
    /// weights and biases uniform in ±1/sqrt(in).
    ///
    /// # Errors
    /// [`Error::Value`] where there are fewer than two sizes, one is 0, or there would be more than 2^34 parameters;
    /// [`Error::TooLarge`] where they do not fit into memory.
    pub fn new(sizes: &[usize], seed: u64) -> Result<Self> {
        let count = Self::count(sizes)?;
        Error::check_memory("generator", "the set of parameters", count.checked_mul(size_of::<f32>()))?;
        let mut parameters = Vec::with_capacity(count);
        for (layer, io) in sizes.windows(2).enumerate() {
            let mut stream = Stream::new(seed, Purpose::Init, layer as u64);
            let bound = 1.0 / (io[0] as f32).sqrt();
            parameters.extend((0..(io[0] + 1) * io[1]).map(|_| (2.0 * stream.uniform() - 1.0) * bound));
        }
        Ok(Self { sizes: sizes.to_vec(), parameters })
    }

    /// A network with given parameters, in the order of [`Mlp::parameters`].
    ///
    /// # Errors
    /// As [`Mlp::new`]; [`Error::Shape`] where the number of parameters does not fit the sizes.
    pub fn from_parameters(sizes: &[usize], parameters: Vec<f32>) -> Result<Self> {
        let count = Self::count(sizes)?;
        if parameters.len() != count {
            return Err(Error::shape("generator", "parameters", [count], [parameters.len()]));
        }
        Ok(Self { sizes: sizes.to_vec(), parameters })
    }

    fn count(sizes: &[usize]) -> Result<usize> {
        match parameter_count(sizes) {
            // 2^34 parameters are 64 GiB; beyond that it is a slip of the pen, not a model for this trainer.
            Some(count) if sizes.len() >= 2 && !sizes.contains(&0) && count <= 1 << 34 => Ok(count),
            _ => {
                let expected = "two or more sizes of at least 1, with at most 2^34 parameters in all";
                Err(Error::value("generator", "layer sizes", expected, format!("{sizes:?}")))
            }
        }
    }

    /// Layer sizes, from input to output.
    pub fn sizes(&self) -> &[usize] {
        &self.sizes
    }

    /// The number of inputs.
    pub fn input_dim(&self) -> usize {
        self.sizes[0]
    }

    /// The number of outputs.
    pub fn output_dim(&self) -> usize {
        self.sizes[self.sizes.len() - 1]
    }

    /// All parameters.
    pub fn parameters(&self) -> &[f32] {
        &self.parameters
    }

    /// All parameters, to be changed in place.
    pub fn parameters_mut(&mut self) -> &mut [f32] {
        &mut self.parameters
    }

    /// Its layers, from input to output.
    pub fn layers(&self) -> Vec<Layer> {
        let (mut start, mut column) = (0, 0);
        let place = |io: &[usize]| {
            let layer = Layer { input: io[0], output: io[1], start, column };
            (start, column) = (layer.bias().end, column + io[1]);
            layer
        };
        self.sizes.windows(2).map(place).collect()
    }

    /// The outputs [n, out] for noise [n, in], on the CPU.
    ///
    /// # Errors
    /// [`Error::Shape`] where the noise is not a whole number of samples; [`Error::TooLarge`] where the activations do
    /// not fit into memory.
    pub fn forward(&self, noise: &[f32]) -> Result<Vec<f32>> {
        if !noise.len().is_multiple_of(self.input_dim()) {
            let expected = format!("[n, {}]", self.input_dim());
            return Err(Error::shape("generator", "noise", expected, [noise.len()]));
        }
        let mut host = Host::new();
        let mut pass = Pass::new(&host, self, noise.len() / self.input_dim())?;
        pass.noise_mut().copy_from_slice(noise);
        pass.forward(&mut host, &self.parameters)?;
        Ok(pass.into_output())
    }
}

/// Weights and biases of all layers; `None` where there are more than a `usize` counts.
pub(crate) fn parameter_count(sizes: &[usize]) -> Option<usize> {
    sizes.windows(2).try_fold(0usize, |sum, io| sum.checked_add(io[0].checked_add(1)?.checked_mul(io[1])?))
}

/// One linear layer, and its place among the parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Inputs.
    pub input: usize,
    /// Outputs.
    pub output: usize,
    /// Where its weight begins.
    start: usize,
    /// Biases of the layers before it.
    column: usize,
}

impl Layer {
    /// Where the weight [out, in] lies.
    pub fn weight(&self) -> Range<usize> {
        self.start..self.start + self.input * self.output
    }

    /// Where the bias `[out]` lies, after the weight.
    pub fn bias(&self) -> Range<usize> {
        let start = self.weight().end;
        start..start + self.output
    }

    /// Where the bias lies among the biases of all layers.
    pub fn columns(&self) -> Range<usize> {
        self.column..self.column + self.output
    }

    /// Weight [out, in] and bias `[out]`.
    pub(crate) fn split<'a>(&self, parameters: &'a [f32]) -> (&'a [f32], &'a [f32]) {
        parameters[self.start..self.bias().end].split_at(self.input * self.output)
    }

    pub(crate) fn split_mut<'a>(&self, parameters: &'a mut [f32]) -> (&'a mut [f32], &'a mut [f32]) {
        parameters[self.start..self.bias().end].split_at_mut(self.input * self.output)
    }
}
