//! Forward and backward of a generator, written once for every backend.

use super::{Layer, Mlp};
use crate::backend::Backend;
use crate::{Error, Result};

/// The activations of a generator for n samples, and the way through it and back.
///
/// ```
/// use cudrift::cpu::Host;
/// use cudrift::generator::{Mlp, Pass};
/// let (model, mut host) = (Mlp::new(&[2, 8, 1], 0)?, Host::new());
/// let mut pass = Pass::new(&host, &model, 3)?;
/// pass.noise_mut().fill(0.5);
/// let parameters = model.parameters().to_vec();
/// pass.forward(&mut host, &parameters)?;
/// let mut grad = vec![0.0; parameters.len()];
/// pass.backward(&mut host, &parameters, &vec![1.0; 3], &mut grad)?;
/// assert_eq!(pass.output().len(), 3);
/// # Ok::<(), cudrift::Error>(())
/// ```
#[derive(Debug)]
pub struct Pass<B: Backend> {
    n: usize,
    layers: Vec<Layer>,
    /// Inputs of each layer, [n, in]; the first is the noise.
    inputs: Vec<B::Array>,
    /// Before SiLU, [n, out] of each layer but the last.
    before: Vec<B::Array>,
    output: B::Array,
    /// Gradients with respect to the outputs of two neighbouring layers, before SiLU.
    grad: [B::Array; 2],
    sums: B::Array,
}

impl<B: Backend> Pass<B> {
    /// Room for n samples of `model`.
    ///
    /// # Errors
    /// Those of [`Backend`].
    pub fn new(backend: &B, model: &Mlp, n: usize) -> Result<Self> {
        let layers = model.layers();
        let (last, hidden) = (layers[layers.len() - 1], &layers[..layers.len() - 1]);
        let array = |width: usize| backend.array("a batch's activations", n.saturating_mul(width));
        let widest = hidden.iter().map(|layer| layer.output).max().unwrap_or(0);
        Ok(Self {
            n,
            inputs: layers.iter().map(|layer| array(layer.input)).collect::<Result<_>>()?,
            before: hidden.iter().map(|layer| array(layer.output)).collect::<Result<_>>()?,
            output: array(last.output)?,
            grad: [array(widest)?, array(widest)?],
            sums: backend.array("sums of gradients", backend.sums(n, last.columns().end))?,
            layers,
        })
    }

    /// The noise [n, in], which [`Pass::forward`] starts from.
    pub fn noise_mut(&mut self) -> &mut B::Array {
        &mut self.inputs[0]
    }

    /// The output [n, out] of the last [`Pass::forward`].
    pub fn output(&self) -> &B::Array {
        &self.output
    }

    /// As [`Pass::output`].
    pub fn into_output(self) -> B::Array {
        self.output
    }

    /// Noise to output.
    ///
    /// # Errors
    /// [`Error::Shape`] where the noise or the parameters are not this generator's; those of [`Backend`].
    pub fn forward(&mut self, backend: &mut B, parameters: &B::Array) -> Result<()> {
        self.check("parameters", self.parameters(), parameters)?;
        self.check("noise", self.n * self.layers[0].input, &self.inputs[0])?;
        let hidden = self.before.len();
        for (l, z) in self.before.iter_mut().enumerate() {
            let (x, y) = self.inputs.split_at_mut(l + 1);
            backend.hidden(&self.layers[l], parameters, self.n, &x[l], z, &mut y[0])?;
        }
        backend.linear(&self.layers[hidden], parameters, self.n, &self.inputs[hidden], &mut self.output)
    }

    /// Writes the gradient with respect to all parameters, given the gradient [n, out] with respect to the outputs of the
    /// last [`Pass::forward`].
    ///
    /// # Errors
    /// As [`Pass::forward`].
    pub fn backward(
        &mut self,
        backend: &mut B,
        parameters: &B::Array,
        grad_output: &B::Array,
        grad: &mut B::Array,
    ) -> Result<()> {
        self.check("parameters", self.parameters(), parameters)?;
        self.check("grad", self.parameters(), grad)?;
        self.check("grad_output", self.n * self.layers[self.layers.len() - 1].output, grad_output)?;
        let Self { n, layers, inputs, before, grad: [above, below], sums, .. } = self;
        let (mut above, mut below) = (above, below);
        let last = layers.len() - 1;
        backend.output_grad(&layers[last], *n, grad_output, sums)?;
        for (l, layer) in layers.iter().enumerate().rev() {
            let dy: &B::Array = if l == last { grad_output } else { above };
            backend.weight_grad(layer, *n, &inputs[l], dy, grad)?;
            if l > 0 {
                let pair = [layer, &layers[l - 1]];
                backend.input_grad(pair, parameters, *n, dy, &before[l - 1], below, sums)?;
                std::mem::swap(&mut above, &mut below);
            }
        }
        backend.bias_grad(layers, *n, sums, grad)
    }

    fn parameters(&self) -> usize {
        self.layers[self.layers.len() - 1].bias().end
    }

    fn check(&self, argument: &'static str, expected: usize, array: &B::Array) -> Result<()> {
        let got = B::len(array);
        if got == expected { Ok(()) } else { Err(Error::shape("generator", argument, [expected], [got])) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Host;
    use crate::rng::{Purpose, Stream};

    /// The output for `noise`, and the gradient by the parameters given that by the output.
    fn there_and_back(model: &Mlp, noise: &[f32], grad_output: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let mut host = Host::new();
        let mut pass = Pass::new(&host, model, noise.len() / model.input_dim()).unwrap();
        pass.noise_mut().copy_from_slice(noise);
        let parameters = model.parameters().to_vec();
        pass.forward(&mut host, &parameters).unwrap();
        let mut grad = vec![f32::NAN; parameters.len()];
        pass.backward(&mut host, &parameters, &grad_output.to_vec(), &mut grad).unwrap();
        (pass.into_output(), grad)
    }

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
            let (output, grad) = there_and_back(&model, &noise, &v);

            let parameters: Vec<f64> = model.parameters().iter().map(|v| f64::from(*v)).collect();
            let forward: f64 = output.iter().zip(&v).map(|(a, b)| f64::from(a * b)).sum();
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
        let (output, grad) = there_and_back(&model, &[], &[]);
        assert!(output.is_empty() && grad.iter().all(|g| *g == 0.0));
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
        // parameters or gradients of another network, gradients of another batch
        let mut host = Host::new();
        let mut pass = Pass::new(&host, &model, 2).unwrap();
        let (parameters, mut grad) = (model.parameters().to_vec(), vec![0.0; 8]);
        pass.noise_mut().fill(0.0);
        assert!(matches!(pass.forward(&mut host, &vec![0.0; 7]), Err(Error::Shape { .. })));
        pass.forward(&mut host, &parameters).unwrap();
        let mut backward = |dy: usize, grad: &mut Vec<f32>| pass.backward(&mut host, &parameters, &vec![0.0; dy], grad);
        assert!(matches!(backward(2, &mut grad), Err(Error::Shape { .. })));
        assert!(matches!(backward(4, &mut vec![0.0; 7]), Err(Error::Shape { .. })));
        backward(4, &mut grad).unwrap();
        pass.noise_mut().pop();
        assert!(matches!(pass.forward(&mut host, &parameters), Err(Error::Shape { .. })));
    }
}
