//! The generator: a multi-layer perceptron with SiLU between its layers (spec 10.1), forward and backward.

mod file;

pub(crate) use file::{open, read, serialize};

use crate::cpu::isa::{Isa, LANES, Simd, exp, per_isa};
use crate::cpu::{pack, pack_transposed, packed_len, product, sum, transpose};
use crate::rng::{Purpose, Stream};
use crate::{Error, Result};
use rayon::prelude::*;

/// Samples of a batch that one task multiplies at a time; fixed, so that results do not depend on threads.
const ROWS: usize = 128;

/// A multi-layer perceptron `Linear SiLU Linear SiLU … Linear` in f32.
///
/// All parameters lie in one vector, layer by layer: weight [out, in] by rows, then bias `[out]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Mlp {
    sizes: Vec<usize>,
    parameters: Vec<f32>,
}

/// What a forward pass leaves for the backward pass. Reused from step to step.
#[derive(Clone, Debug, Default)]
pub struct Activations {
    /// Inputs of each layer, [n, in]; the first is the noise.
    inputs: Vec<Vec<f32>>,
    /// Before SiLU, [n, out] of each layer but the last.
    before: Vec<Vec<f32>>,
    /// The output [n, out].
    output: Vec<f32>,
    /// Gradients with respect to two neighbouring layers' outputs.
    grad: [Vec<f32>; 2],
    /// A packed factor of a product, and the transpose of another.
    packed: Vec<f32>,
    transposed: Vec<f32>,
}

impl Activations {
    /// The output of the last forward pass, [n, out].
    pub fn output(&self) -> &[f32] {
        &self.output
    }
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

    /// Where each layer's weight and bias lie among the parameters.
    pub(crate) fn layers(&self) -> impl DoubleEndedIterator<Item = Layer> + ExactSizeIterator {
        let mut start = 0;
        let layers: Vec<Layer> = self
            .sizes
            .windows(2)
            .map(|io| {
                let layer = Layer { input: io[0], output: io[1], start };
                start = layer.end();
                layer
            })
            .collect();
        layers.into_iter()
    }

    /// The outputs [n, out] for noise [n, in].
    ///
    /// # Errors
    /// [`Error::Shape`] where the noise is not a whole number of samples.
    pub fn forward(&self, noise: &[f32]) -> Result<Vec<f32>> {
        let mut activations = Activations::default();
        self.forward_into(noise, &mut activations)?;
        Ok(activations.output)
    }

    /// As [`Mlp::forward`], and keeps what [`Mlp::backward`] needs.
    ///
    /// # Errors
    /// As [`Mlp::forward`].
    pub fn forward_into(&self, noise: &[f32], activations: &mut Activations) -> Result<()> {
        if !noise.len().is_multiple_of(self.input_dim()) {
            let expected = format!("[n, {}]", self.input_dim());
            return Err(Error::shape("generator", "noise", expected, [noise.len()]));
        }
        let n = noise.len() / self.input_dim();
        let isa = Isa::detect();
        let hidden = self.sizes.len() - 2;
        let Activations { inputs, before, output, packed, .. } = activations;
        inputs.resize_with(hidden + 1, Vec::new);
        before.resize_with(hidden, Vec::new);
        inputs[0].clear();
        inputs[0].extend_from_slice(noise);
        for (l, layer) in self.layers().enumerate() {
            let (weight, bias) = layer.split(&self.parameters);
            packed.resize(packed_len(layer.input, layer.output), 0.0);
            pack_transposed(isa, weight, layer.output, layer.input, packed);
            let packed = &*packed;
            let multiply = |x: &[f32], y: &mut [f32]| {
                product(isa, [x.len() / layer.input, layer.input, layer.output], x, packed, y);
            };
            if l < hidden {
                let (left, right) = inputs.split_at_mut(l + 1);
                let (x, z, y) = (&left[l], &mut before[l], &mut right[0]);
                z.resize(n * layer.output, 0.0);
                y.resize(n * layer.output, 0.0);
                let rows = ROWS * layer.output;
                x.par_chunks(ROWS * layer.input).zip(z.par_chunks_mut(rows)).zip(y.par_chunks_mut(rows)).for_each(
                    |((x, z), y)| {
                        multiply(x, z);
                        bias_silu(isa, bias, z, y);
                    },
                );
            } else {
                output.resize(n * layer.output, 0.0);
                inputs[l].par_chunks(ROWS * layer.input).zip(output.par_chunks_mut(ROWS * layer.output)).for_each(
                    |(x, y)| {
                        multiply(x, y);
                        for y in y.chunks_exact_mut(layer.output) {
                            y.iter_mut().zip(bias).for_each(|(y, bias)| *y += bias);
                        }
                    },
                );
            }
        }
        Ok(())
    }

    /// Writes the gradient with respect to all parameters, given the gradient [n, out] with respect to the outputs of
    /// the last [`Mlp::forward_into`].
    ///
    /// # Errors
    /// [`Error::Shape`] where a length does not fit.
    pub fn backward(&self, activations: &mut Activations, grad_output: &[f32], grad: &mut [f32]) -> Result<()> {
        if grad_output.len() != activations.output.len() {
            return Err(Error::shape("generator", "grad_output", [activations.output.len()], [grad_output.len()]));
        }
        let samples = grad_output.len() / self.output_dim();
        let expected: Vec<usize> = self.sizes[..self.sizes.len() - 1].iter().map(|width| samples * width).collect();
        let have: Vec<usize> = activations.inputs.iter().map(Vec::len).collect();
        if have != expected || !grad_output.len().is_multiple_of(self.output_dim()) {
            return Err(Error::shape("generator", "activations (of this network's last forward pass)", expected, have));
        }
        if grad.len() != self.parameters.len() {
            return Err(Error::shape("generator", "grad", [self.parameters.len()], [grad.len()]));
        }
        let isa = Isa::detect();
        let n = samples;
        let Activations { inputs, before, grad: [above, below], packed, transposed, .. } = activations;
        above.clear();
        above.extend_from_slice(grad_output);
        for (l, layer) in self.layers().enumerate().rev() {
            let (weight, _) = layer.split(&self.parameters);
            let (grad_weight, grad_bias) = layer.split_mut(grad);
            let (x, dy) = (&inputs[l], &*above);
            if n == 0 {
                grad_weight.fill(0.0);
                grad_bias.fill(0.0);
                continue;
            }
            // dW = dY^T X, in blocks of rows of W
            transposed.resize(n * layer.output, 0.0);
            transpose(isa, dy, n, layer.output, transposed);
            packed.resize(packed_len(n, layer.input), 0.0);
            pack(isa, x, n, layer.input, packed);
            let x = &*packed;
            let rows = (ROWS / 4).min(layer.output.div_ceil(4));
            grad_weight
                .par_chunks_mut(rows * layer.input)
                .zip(grad_bias.par_chunks_mut(rows))
                .zip(transposed.par_chunks(rows * n))
                .for_each(|((weight, bias), dy)| {
                    product(isa, [bias.len(), n, layer.input], dy, x, weight);
                    for (bias, dy) in bias.iter_mut().zip(dy.chunks_exact(n)) {
                        *bias = sum(isa, dy);
                    }
                });
            if l > 0 {
                below.resize(n * layer.input, 0.0);
                packed.resize(packed_len(layer.output, layer.input), 0.0);
                pack(isa, weight, layer.output, layer.input, packed);
                let packed = &*packed;
                below
                    .par_chunks_mut(ROWS * layer.input)
                    .zip(before[l - 1].par_chunks_mut(ROWS * layer.input))
                    .zip(dy.par_chunks(ROWS * layer.output))
                    .for_each(|((dx, z), dy)| {
                        product(isa, [dy.len() / layer.output, layer.output, layer.input], dy, packed, dx);
                        silu_backward(isa, z, dx);
                    });
                std::mem::swap(above, below);
            }
        }
        Ok(())
    }
}

/// Weights and biases of all layers; `None` where there are more than a `usize` counts.
pub(crate) fn parameter_count(sizes: &[usize]) -> Option<usize> {
    sizes.windows(2).try_fold(0usize, |sum, io| sum.checked_add(io[0].checked_add(1)?.checked_mul(io[1])?))
}

/// One linear layer's place among the parameters.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layer {
    pub(crate) input: usize,
    pub(crate) output: usize,
    start: usize,
}

impl Layer {
    fn end(self) -> usize {
        self.start + (self.input + 1) * self.output
    }

    /// Weight [out, in] and bias `[out]`.
    pub(crate) fn split(self, parameters: &[f32]) -> (&[f32], &[f32]) {
        parameters[self.start..self.end()].split_at(self.input * self.output)
    }

    fn split_mut(self, parameters: &mut [f32]) -> (&mut [f32], &mut [f32]) {
        parameters[self.start..self.end()].split_at_mut(self.input * self.output)
    }
}

/// 1 / (1 + e^-z), from the exponential of a number <= 0.
#[inline(always)]
fn sigmoid<V: Simd>(z: V) -> V {
    let (zero, one) = (V::zero(), V::splat(1.0));
    let e = exp(zero.sub(z.abs()));
    z.if_less(zero, e, one).div(one.add(e))
}

/// Runs `body` for each lane block of two slices of one length, the last filled up with zeros. A macro, because a
/// closure would not be compiled for the instruction set.
macro_rules! each_block {
    ($a:expr, $b:expr, |$x:ident, $y:ident| $body:block) => {{
        let ((a, a_rest), (b, b_rest)) = ($a.as_chunks_mut::<LANES>(), $b.as_chunks_mut::<LANES>());
        for ($x, $y) in a.iter_mut().zip(b) {
            $body
        }
        if !a_rest.is_empty() {
            let (mut a, mut b) = ([0.0; LANES], [0.0; LANES]);
            a[..a_rest.len()].copy_from_slice(a_rest);
            b[..b_rest.len()].copy_from_slice(b_rest);
            {
                let ($x, $y) = (&mut a, &mut b);
                $body
            }
            a_rest.copy_from_slice(&a[..a_rest.len()]);
            b_rest.copy_from_slice(&b[..b_rest.len()]);
        }
    }};
}

per_isa! {
    /// `z += bias` for each sample, then `y = z sigmoid(z)`.
    fn bias_silu(bias: &[f32], z: &mut [f32], y: &mut [f32]) {
        for (z, y) in z.chunks_exact_mut(bias.len()).zip(y.chunks_exact_mut(bias.len())) {
            y.copy_from_slice(bias);
            each_block!(z, y, |z, y| {
                let sum = V::load(z).add(V::load(y));
                sum.store(z);
                sum.mul(sigmoid(sum)).store(y);
            });
        }
    }
}

per_isa! {
    /// `dx *= d silu / dz`; leaves `z` as it is.
    fn silu_backward(z: &mut [f32], dx: &mut [f32]) {
        each_block!(z, dx, |z, dx| {
            let z = V::load(z);
            let (s, one) = (sigmoid(z), V::splat(1.0));
            V::load(dx).mul(s).mul(one.sub(s).mul_add(z, one)).store(dx);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The network in f64, straight from its definition: sum of output times `v`.
    fn objective(sizes: &[usize], parameters: &[f64], noise: &[f32], v: &[f32]) -> f64 {
        let mut x: Vec<Vec<f64>> = noise.chunks(sizes[0]).map(|x| x.iter().map(|v| f64::from(*v)).collect()).collect();
        let mut at = 0;
        for (l, io) in sizes.windows(2).enumerate() {
            let (weight, bias) = parameters[at..at + (io[0] + 1) * io[1]].split_at(io[0] * io[1]);
            at += (io[0] + 1) * io[1];
            for x in &mut x {
                let y = (0..io[1]).map(|o| {
                    let z: f64 = bias[o] + (0..io[0]).map(|k| weight[o * io[0] + k] * x[k]).sum::<f64>();
                    if l + 2 < sizes.len() { z / (1.0 + (-z).exp()) } else { z }
                });
                *x = y.collect();
            }
        }
        x.concat().iter().zip(v).map(|(x, v)| x * f64::from(*v)).sum()
    }

    #[test]
    fn backward_agrees_with_finite_differences() {
        for sizes in [&[3, 7, 5, 2][..], &[4, 1], &[1, 130, 1]] {
            let model = Mlp::new(sizes, 11).unwrap();
            let n = 131;
            let noise = Stream::new(1, Purpose::Noise, 0).normals(n * sizes[0]);
            let v = Stream::new(2, Purpose::Noise, 0).normals(n * model.output_dim());
            let mut activations = Activations::default();
            model.forward_into(&noise, &mut activations).unwrap();
            let mut grad = vec![f32::NAN; model.parameters().len()];
            model.backward(&mut activations, &v, &mut grad).unwrap();

            let parameters: Vec<f64> = model.parameters().iter().map(|v| f64::from(*v)).collect();
            let forward: f64 = activations.output().iter().zip(&v).map(|(a, b)| f64::from(a * b)).sum();
            assert!((forward - objective(sizes, &parameters, &noise, &v)).abs() <= 1e-4);
            let largest = grad.iter().fold(0.0f32, |m, g| m.max(g.abs()));
            for k in 0..parameters.len() {
                let mut moved = parameters.clone();
                moved[k] += 1e-5;
                let up = objective(sizes, &moved, &noise, &v);
                moved[k] -= 2e-5;
                let slope = (up - objective(sizes, &moved, &noise, &v)) / 2e-5;
                let error = (slope - f64::from(grad[k])).abs();
                assert!(error <= 1e-5 * f64::from(largest), "{sizes:?} parameter {k}: {slope} {}", grad[k]);
            }
        }
    }

    #[test]
    fn an_empty_batch_has_no_gradient() {
        let model = Mlp::new(&[3, 5, 2], 0).unwrap();
        let mut activations = Activations::default();
        model.forward_into(&[], &mut activations).unwrap();
        let mut grad = vec![f32::NAN; model.parameters().len()];
        model.backward(&mut activations, &[], &mut grad).unwrap();
        assert!(activations.output().is_empty() && grad.iter().all(|g| *g == 0.0));
    }

    #[test]
    fn initial_parameters_fill_their_range() {
        let model = Mlp::new(&[16, 1000], 3).unwrap();
        let max = model.parameters().iter().fold(0.0f32, |m, v| m.max(v.abs()));
        assert!((0.2499..=0.25).contains(&max));
        let mean: f32 = model.parameters().iter().sum::<f32>() / model.parameters().len() as f32;
        assert!(mean.abs() <= 0.01);
    }

    #[test]
    fn impossible_sizes_are_refused() {
        for sizes in [&[][..], &[3], &[3, 0], &[usize::MAX, usize::MAX]] {
            assert!(matches!(Mlp::new(sizes, 0), Err(Error::Value { .. })), "{sizes:?}");
        }
        let model = Mlp::new(&[3, 2], 0).unwrap();
        assert!(matches!(model.forward(&[0.0; 4]), Err(Error::Shape { .. })));
        // activations of another network, of another batch, or of none
        let mut activations = Activations::default();
        let mut grad = vec![0.0; 8];
        assert!(matches!(model.backward(&mut activations, &[0.0; 2], &mut grad), Err(Error::Shape { .. })));
        Mlp::new(&[3, 4, 2], 0).unwrap().forward_into(&[0.0; 6], &mut activations).unwrap();
        assert!(matches!(model.backward(&mut activations, &[0.0; 4], &mut grad), Err(Error::Shape { .. })));
        model.forward_into(&[0.0; 6], &mut activations).unwrap();
        assert!(matches!(model.backward(&mut activations, &[0.0; 2], &mut grad), Err(Error::Shape { .. })));
        assert!(matches!(model.backward(&mut activations, &[0.0; 4], &mut grad[1..]), Err(Error::Shape { .. })));
        model.backward(&mut activations, &[0.0; 4], &mut grad).unwrap();
    }
}
