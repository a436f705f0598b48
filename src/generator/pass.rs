//! Forward and backward of a generator, written once for every backend.

use super::architecture::{Architecture, Layers};
use crate::backend::Backend;
use crate::{Error, Result};

/// Class and guidance scale of groups of samples: of each of `slots` groups, which have the same number of samples.
#[derive(Clone, Debug)]
pub struct Condition<A> {
    /// Groups.
    pub slots: usize,
    /// The label of each, `[slots]`: a whole number.
    pub labels: A,
    /// The natural logarithm of each guidance scale, `[slots]`.
    pub guidance: A,
}

/// The activations of a generator for n samples, and the way through it and back.
///
/// ```
/// use cudrift::cpu::Host;
/// use cudrift::generator::{Mlp, Pass};
/// let (model, mut host) = (Mlp::new(&[2, 8, 1], 0)?, Host::new());
/// let mut pass = Pass::new(&host, model.architecture(), 3)?;
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
    layers: Layers,
    condition: Option<Condition<B::Array>>,
    /// Inputs of each hidden layer and what follows them, [n, in]; the first is the noise.
    inputs: Vec<B::Array>,
    /// Before SiLU, [n, out] of each hidden layer.
    before: Vec<B::Array>,
    blocks: Vec<BlockPass<B::Array>>,
    /// Of the last normalisation.
    normal: Option<Normal<B::Array>>,
    output: B::Array,
    /// Gradients with respect to what neighbouring layers give, and to what lies within a block.
    grad: [B::Array; 3],
    sums: B::Array,
}

/// What a normalisation leaves: its output [n, width] and 1 / rms `[n]`.
#[derive(Debug)]
struct Normal<A> {
    output: A,
    inverse: A,
}

#[derive(Debug)]
struct BlockPass<A> {
    normal: Normal<A>,
    /// Before SiLU and after it.
    before: A,
    after: A,
    /// The sum with the block's input.
    output: A,
}

impl<B: Backend> Pass<B> {
    /// Room for n samples of a generator, each with a label where it has classes.
    ///
    /// # Errors
    /// Those of [`Architecture::parameters`] and of [`Backend`].
    pub fn new(backend: &B, architecture: &Architecture, n: usize) -> Result<Self> {
        Self::grouped(backend, architecture, n, n)
    }

    /// As [`Pass::new`], with a label for each of `slots` groups.
    ///
    /// # Errors
    /// As [`Pass::new`]; [`Error::Value`] where groups have not the same number of samples.
    pub fn grouped(backend: &B, architecture: &Architecture, n: usize, slots: usize) -> Result<Self> {
        architecture.parameters()?;
        if slots > n || (n > 0 && (slots == 0 || !n.is_multiple_of(slots))) {
            return Err(Error::value("generator", "groups of samples", format!("a divisor of {n}"), slots));
        }
        let layers = architecture.layers();
        let array = |width: usize| backend.array("a batch's activations", n.saturating_mul(width));
        let normal = |width: usize| -> Result<_> { Ok(Normal { output: array(width)?, inverse: array(1)? }) };
        let block = |width: usize| -> Result<_> {
            let normal = normal(width)?;
            Ok(BlockPass { normal, before: array(width)?, after: array(width)?, output: array(width)? })
        };
        let widths = || layers.hidden.iter().map(|layer| layer.output);
        let label = || backend.array("the labels of a batch", slots);
        let condition = match layers.condition {
            Some(_) => Some(Condition { slots, labels: label()?, guidance: label()? }),
            None => None,
        };
        let widest = widths().max().unwrap_or(0);
        Ok(Self {
            n,
            condition,
            inputs: [architecture.noise].into_iter().chain(widths()).map(array).collect::<Result<_>>()?,
            before: widths().map(array).collect::<Result<_>>()?,
            blocks: layers.blocks.iter().map(|places| block(places.gain.len)).collect::<Result<_>>()?,
            normal: layers.gain.map(|gain| normal(gain.len)).transpose()?,
            output: array(layers.last.output)?,
            grad: [array(widest)?, array(widest)?, array(if layers.blocks.is_empty() { 0 } else { widest })?],
            sums: backend.array("sums of gradients", backend.sums(n, layers.columns))?,
            layers,
        })
    }

    /// The noise [n, in], which [`Pass::forward`] starts from.
    pub fn noise_mut(&mut self) -> &mut B::Array {
        &mut self.inputs[0]
    }

    /// Labels and guidance scales, where the generator has classes.
    pub fn condition_mut(&mut self) -> Option<&mut Condition<B::Array>> {
        self.condition.as_mut()
    }

    /// The noise, with labels and guidance scales.
    pub(crate) fn inputs_mut(&mut self) -> (&mut B::Array, Option<&mut Condition<B::Array>>) {
        (&mut self.inputs[0], self.condition.as_mut())
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
        let Self { n, layers, condition, inputs, before, blocks, normal, output, .. } = self;
        let n = *n;
        check::<B>("parameters", layers.parameters, parameters)?;
        check::<B>("noise", n * layers.hidden.first().unwrap_or(&layers.last).input, &inputs[0])?;
        for (l, (layer, z)) in layers.hidden.iter().zip(before).enumerate() {
            let (x, y) = inputs.split_at_mut(l + 1);
            let condition = layers.condition.as_ref().zip(condition.as_ref()).filter(|_| l == 0);
            backend.hidden(layer, parameters, n, &x[l], condition, z, &mut y[0])?;
        }
        let mut h = &inputs[layers.hidden.len()];
        for (places, block) in layers.blocks.iter().zip(blocks) {
            let BlockPass { normal, before, after, output } = block;
            backend.normalize(&places.gain, parameters, n, h, &mut normal.inverse, &mut normal.output)?;
            backend.hidden(&places.up, parameters, n, &normal.output, None, before, after)?;
            backend.linear(&places.down, parameters, n, after, Some(h), output)?;
            h = output;
        }
        if let Some((gain, normal)) = layers.gain.as_ref().zip(normal.as_mut()) {
            backend.normalize(gain, parameters, n, h, &mut normal.inverse, &mut normal.output)?;
            h = &normal.output;
        }
        backend.linear(&layers.last, parameters, n, h, None, output)
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
        self.back(backend, parameters, grad_output, grad, None)
    }

    /// As [`Pass::backward`], and the gradient with respect to the noise [n, in], for what gave it to the generator.
    ///
    /// # Errors
    /// As [`Pass::forward`].
    pub fn backward_through(
        &mut self,
        backend: &mut B,
        parameters: &B::Array,
        grad_output: &B::Array,
        grad: &mut B::Array,
        grad_noise: &mut B::Array,
    ) -> Result<()> {
        self.back(backend, parameters, grad_output, grad, Some(grad_noise))
    }

    fn back(
        &mut self,
        backend: &mut B,
        parameters: &B::Array,
        grad_output: &B::Array,
        grad: &mut B::Array,
        grad_noise: Option<&mut B::Array>,
    ) -> Result<()> {
        let Self { n, layers, condition, inputs, before, blocks, normal, grad: [above, below, inner], sums, .. } = self;
        let n = *n;
        check::<B>("parameters", layers.parameters, parameters)?;
        check::<B>("grad", layers.parameters, grad)?;
        check::<B>("grad_output", n * layers.last.output, grad_output)?;
        let (mut above, mut below) = (above, below);
        let (hidden, last) = (layers.hidden.len(), &layers.last);
        backend.note_bias(&last.bias, n, grad_output, sums)?;
        if let Some((gain, normal)) = layers.gain.as_ref().zip(normal.as_ref()) {
            let stream = blocks.last().map_or(&inputs[hidden], |block| &block.output);
            backend.weight_grad(last, n, &normal.output, grad_output, grad)?;
            backend.input_grad(last, parameters, n, grad_output, None, below, sums)?;
            backend.normalize_grad(gain, parameters, n, [stream, &normal.inverse, below], above, false, grad, sums)?;
            // `above` is the gradient by the stream, to which every block adds.
            for (k, places) in layers.blocks.iter().enumerate().rev() {
                let BlockPass { normal, before, after, .. } = &blocks[k];
                let stream = if k == 0 { &inputs[hidden] } else { &blocks[k - 1].output };
                backend.note_bias(&places.down.bias, n, above, sums)?;
                backend.weight_grad(&places.down, n, after, above, grad)?;
                backend.input_grad(&places.down, parameters, n, above, Some((before, &places.up.bias)), below, sums)?;
                backend.weight_grad(&places.up, n, &normal.output, below, grad)?;
                backend.input_grad(&places.up, parameters, n, below, None, inner, sums)?;
                let operands = [stream, &normal.inverse, inner];
                backend.normalize_grad(&places.gain, parameters, n, operands, above, true, grad, sums)?;
            }
            if let Some((z, layer)) = before.last().zip(layers.hidden.last()) {
                backend.silu_grad(&layer.bias, n, z, above, sums)?;
            }
        } else {
            backend.weight_grad(last, n, &inputs[hidden], grad_output, grad)?;
            if let Some((z, layer)) = before.last().zip(layers.hidden.last()) {
                backend.input_grad(last, parameters, n, grad_output, Some((z, &layer.bias)), above, sums)?;
            }
        }
        for (l, layer) in layers.hidden.iter().enumerate().rev() {
            backend.weight_grad(layer, n, &inputs[l], above, grad)?;
            if l > 0 {
                let silu = Some((&before[l - 1], &layers.hidden[l - 1].bias));
                backend.input_grad(layer, parameters, n, above, silu, below, sums)?;
                std::mem::swap(&mut above, &mut below);
            }
        }
        if let Some(grad_noise) = grad_noise {
            let (layer, dy) = layers.hidden.first().map_or((last, grad_output), |layer| (layer, &*above));
            check::<B>("grad_noise", n * layer.input, grad_noise)?;
            backend.input_grad(layer, parameters, n, dy, None, grad_noise, sums)?;
        }
        if let Some(condition) = layers.condition.as_ref().zip(condition.as_ref()) {
            backend.condition_grad(condition, n, above, grad)?;
        }
        backend.join_sums(&layers.vectors(), n, sums, grad)
    }
}

fn check<B: Backend>(argument: &'static str, expected: usize, array: &B::Array) -> Result<()> {
    let got = B::len(array);
    if got == expected { Ok(()) } else { Err(Error::shape("generator", argument, [expected], [got])) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Host;
    use crate::generator::Mlp;

    /// The output for `noise`, and the gradient by the parameters given that by the output.
    fn there_and_back(model: &Mlp, noise: &[f32], grad_output: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let mut host = Host::new();
        let mut pass = Pass::new(&host, model.architecture(), noise.len() / model.input_dim()).unwrap();
        pass.noise_mut().copy_from_slice(noise);
        let parameters = model.parameters().to_vec();
        pass.forward(&mut host, &parameters).unwrap();
        let mut grad = vec![f32::NAN; parameters.len()];
        pass.backward(&mut host, &parameters, &grad_output.to_vec(), &mut grad).unwrap();
        (pass.into_output(), grad)
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
        let mut pass = Pass::new(&host, model.architecture(), 2).unwrap();
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
