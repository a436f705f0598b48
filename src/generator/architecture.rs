//! The layers of a generator, and where their parameters lie.

use crate::rng::{Purpose, Stream};
use crate::{Error, Result};
use std::ops::Range;

/// The layers of a generator (the sources leave theirs for small data open; but for the plain one of spec 10.1 this is
/// a project choice).
///
/// ```text
/// h = noise
/// h = silu(W h + b)                       for each of `hidden`; the first adds E[class] + ln(alpha) g before SiLU
/// h = h + W' silu(W (gain * h / rms(h)) + b) + b'       `blocks` times, as wide as the last of `hidden`
/// h = gain * h / rms(h)                   where there are blocks
/// output = W h + b
/// ```
///
/// alpha is the guidance scale (spec 3), rms(h)² the mean square of h plus 1e-6.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Architecture {
    /// Coordinates of the noise.
    pub noise: usize,
    /// Widths of the layers with SiLU.
    pub hidden: Vec<usize>,
    /// Residual blocks.
    pub blocks: usize,
    /// Classes; 0 for a generator without.
    pub classes: usize,
    /// Is it told the guidance scale?
    pub guided: bool,
    /// Coordinates of a sample.
    pub output: usize,
}

impl Architecture {
    /// `Linear SiLU Linear SiLU … Linear`, from `noise` to `output` coordinates.
    pub fn plain(noise: usize, hidden: &[usize], output: usize) -> Self {
        Self { noise, hidden: hidden.to_vec(), blocks: 0, classes: 0, guided: false, output }
    }

    /// How many parameters there are.
    ///
    /// # Errors
    /// [`Error::Value`] where an extent is 0, blocks or classes have no hidden layer to go with, a guidance scale comes
    /// without classes, or there would be more than 2^34 parameters.
    pub fn parameters(&self) -> Result<usize> {
        let refuse = |argument, expected: &str, got: String| Err(Error::value("generator", argument, expected, got));
        if self.hidden.is_empty() && (self.blocks > 0 || self.classes > 0) {
            return refuse("hidden", "a layer, for blocks and classes to go with", "none".to_owned());
        }
        if self.guided && self.classes == 0 {
            return refuse("classes", "1 or more where the generator is told a guidance scale", "0".to_owned());
        }
        let sizes: Vec<usize> =
            [self.noise].into_iter().chain(self.hidden.iter().copied()).chain([self.output]).collect();
        // 2^34 parameters are 64 GiB; beyond that it is a slip of the pen, not a model for this trainer.
        match self.count(&sizes) {
            Some(count) if !sizes.contains(&0) && count <= 1 << 34 => Ok(count),
            _ => refuse("the generator", "sizes of at least 1, with at most 2^34 parameters in all", self.to_string()),
        }
    }

    fn count(&self, sizes: &[usize]) -> Option<usize> {
        let linear = |io: &[usize]| io[0].checked_add(1)?.checked_mul(io[1]);
        let plain = sizes.windows(2).try_fold(0usize, |sum, io| sum.checked_add(linear(io)?))?;
        let width = self.width();
        let block = linear(&[width, width])?.checked_mul(2)?.checked_add(width)?.checked_mul(self.blocks)?;
        let gain = if self.blocks > 0 { width } else { 0 };
        let classes = self.classes.checked_add(usize::from(self.guided))?.checked_mul(self.conditioned())?;
        plain.checked_add(block)?.checked_add(gain)?.checked_add(classes)
    }

    /// The width of the residual blocks.
    fn width(&self) -> usize {
        self.hidden.last().copied().unwrap_or(0)
    }

    /// The width of the layer that classes and the guidance scale enter.
    fn conditioned(&self) -> usize {
        self.hidden.first().copied().unwrap_or(0)
    }

    /// Numbers that a sample's activations take with their gradients, about.
    pub(crate) fn activations(&self) -> usize {
        let layers = self.hidden.iter().fold(self.noise, |sum, width| sum.saturating_add(*width));
        layers
            .saturating_add(self.output)
            .saturating_add(self.blocks.saturating_mul(2 * self.width()))
            .saturating_mul(3)
    }

    /// Where everything lies.
    pub(crate) fn layers(&self) -> Layers {
        let mut place = Place::default();
        let inputs = [self.noise].into_iter().chain(self.hidden.iter().copied());
        let hidden = inputs.zip(&self.hidden).map(|(input, output)| place.linear(input, *output)).collect();
        let width = self.width();
        let mut block =
            |_| Block { gain: place.vector(width), up: place.linear(width, width), down: place.linear(width, width) };
        let blocks: Vec<Block> = (0..self.blocks).map(&mut block).collect();
        let gain = (self.blocks > 0).then(|| place.vector(width));
        let last = place.linear(if self.hidden.is_empty() { self.noise } else { width }, self.output);
        let conditioned = self.conditioned();
        let condition = (self.classes > 0).then(|| Conditioning {
            classes: self.classes,
            width: conditioned,
            table: place.take(self.classes * conditioned),
            guidance: self.guided.then(|| place.take(conditioned)),
        });
        Layers { hidden, blocks, gain, last, condition, columns: place.column, parameters: place.start }
    }
}

impl std::fmt::Display for Architecture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sizes: Vec<usize> =
            [self.noise].into_iter().chain(self.hidden.iter().copied()).chain([self.output]).collect();
        write!(f, "layer sizes {sizes:?}")?;
        for (count, what) in [(self.blocks, "blocks"), (self.classes, "classes")] {
            if count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        if self.guided { f.write_str(", guided") } else { Ok(()) }
    }
}

impl<const N: usize> From<&[usize; N]> for Architecture {
    /// As [`Architecture::plain`], from the noise to the samples.
    fn from(sizes: &[usize; N]) -> Self {
        sizes.as_slice().into()
    }
}

impl From<&[usize]> for Architecture {
    /// As [`Architecture::plain`], from the noise to the samples.
    fn from(sizes: &[usize]) -> Self {
        match sizes {
            [noise, hidden @ .., output] => Self::plain(*noise, hidden, *output),
            // Refused wherever it is used.
            _ => Self::plain(0, &[], 0),
        }
    }
}

impl From<&Architecture> for Architecture {
    fn from(architecture: &Self) -> Self {
        architecture.clone()
    }
}

/// Gives layers their places, one after the other.
#[derive(Default)]
struct Place {
    start: usize,
    column: usize,
}

impl Place {
    fn take(&mut self, count: usize) -> Range<usize> {
        let start = self.start;
        self.start += count;
        start..self.start
    }

    fn vector(&mut self, len: usize) -> Vector {
        let vector = Vector { start: self.take(len).start, len, column: self.column };
        self.column += len;
        vector
    }

    fn linear(&mut self, input: usize, output: usize) -> Layer {
        Layer { input, output, start: self.take(input * output).start, bias: self.vector(output) }
    }
}

/// A vector among the parameters: a bias, or the gains of a normalisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vector {
    /// Where it begins.
    pub start: usize,
    /// How long it is.
    pub len: usize,
    /// How many numbers the vectors before it have: where its gradient's partial sums lie.
    pub column: usize,
}

impl Vector {
    /// Where it lies among the parameters.
    pub fn range(&self) -> Range<usize> {
        self.start..self.start + self.len
    }
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
    /// Its bias `[out]`, after the weight.
    pub bias: Vector,
}

impl Layer {
    /// Where the weight [out, in] lies.
    pub fn weight(&self) -> Range<usize> {
        self.start..self.start + self.input * self.output
    }

    /// The same layer, its place `by` numbers further on.
    pub(crate) fn moved(self, by: usize) -> Self {
        let bias = Vector { start: self.bias.start + by, ..self.bias };
        Self { start: self.start + by, bias, ..self }
    }

    /// Weight [out, in] and bias `[out]`.
    pub(crate) fn split<'a>(&self, parameters: &'a [f32]) -> (&'a [f32], &'a [f32]) {
        parameters[self.start..self.bias.range().end].split_at(self.input * self.output)
    }

    pub(crate) fn split_mut<'a>(&self, parameters: &'a mut [f32]) -> (&'a mut [f32], &'a mut [f32]) {
        parameters[self.start..self.bias.range().end].split_at_mut(self.input * self.output)
    }
}

/// A residual block: `h + down(silu(up(gain * h / rms(h))))`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) gain: Vector,
    pub(crate) up: Layer,
    pub(crate) down: Layer,
}

/// What class and guidance scale add to the first layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conditioning {
    /// Classes.
    pub classes: usize,
    /// The width of the layer.
    pub width: usize,
    /// Where the vectors of the classes lie, [classes, width].
    pub table: Range<usize>,
    /// Where the vector lies that the logarithm of the guidance scale multiplies.
    pub guidance: Option<Range<usize>>,
}

/// The places of all parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layers {
    pub(crate) hidden: Vec<Layer>,
    pub(crate) blocks: Vec<Block>,
    pub(crate) gain: Option<Vector>,
    pub(crate) last: Layer,
    pub(crate) condition: Option<Conditioning>,
    /// Numbers in all vectors, and in all.
    pub(crate) columns: usize,
    pub(crate) parameters: usize,
}

/// A parameter tensor as files have it.
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) range: Range<usize>,
    initial: Initial,
}

enum Initial {
    /// Uniform in ±bound, from the stream of this layer.
    Uniform(u64),
    Normal(u64),
    Constant(f32),
}

impl Layers {
    /// Every bias and gain.
    pub(crate) fn vectors(&self) -> Vec<Vector> {
        let blocks = self.blocks.iter().flat_map(|block| [block.gain, block.up.bias, block.down.bias]);
        let hidden = self.hidden.iter().map(|layer| layer.bias);
        hidden.chain(blocks).chain(self.gain).chain([self.last.bias]).collect()
    }

    /// Every tensor, in the order of the parameters.
    pub(crate) fn parts(&self) -> Vec<Part> {
        let mut parts = Vec::new();
        let linear = |name: String, layer: &Layer, stream: Option<u64>| {
            let initial = || stream.map_or(Initial::Constant(0.0), Initial::Uniform);
            let (shape, bias) = (vec![layer.output, layer.input], vec![layer.output]);
            [
                Part { name: format!("{name}.weight"), shape, range: layer.weight(), initial: initial() },
                Part { name: format!("{name}.bias"), shape: bias, range: layer.bias.range(), initial: initial() },
            ]
        };
        let gain = |name: String, gain: &Vector| Part {
            name,
            shape: vec![gain.len],
            range: gain.range(),
            initial: Initial::Constant(1.0),
        };
        let count = self.hidden.len();
        for (l, layer) in self.hidden.iter().enumerate() {
            parts.extend(linear(format!("layers.{l}"), layer, Some(l as u64)));
        }
        for (k, block) in self.blocks.iter().enumerate() {
            parts.push(gain(format!("blocks.{k}.gain"), &block.gain));
            parts.extend(linear(format!("blocks.{k}.up"), &block.up, Some((count + 1 + k) as u64)));
            // A block does nothing at first.
            parts.extend(linear(format!("blocks.{k}.down"), &block.down, None));
        }
        parts.extend(self.gain.iter().map(|vector| gain("gain".to_owned(), vector)));
        parts.extend(linear(format!("layers.{count}"), &self.last, Some(count as u64)));
        if let Some(Conditioning { classes, width, table, guidance }) = &self.condition {
            let initial = Initial::Normal((count + 1 + self.blocks.len()) as u64);
            let shape = vec![*classes, *width];
            parts.push(Part { name: "classes".to_owned(), shape, range: table.clone(), initial });
            parts.extend(guidance.iter().map(|range| Part {
                name: "guidance".to_owned(),
                shape: vec![*width],
                range: range.clone(),
                initial: Initial::Constant(0.0),
            }));
        }
        parts
    }

    /// Initial parameters: linear layers as PyTorch's `Linear`, uniform in ±1/sqrt(in), the second of a block 0; gains 1;
    /// classes standard normal, guidance 0.
    pub(crate) fn initial(&self, seed: u64) -> Vec<f32> {
        let mut parameters = Vec::with_capacity(self.parameters);
        let (mut last, mut bound) = (None, 0.0f32);
        let mut stream = Stream::new(seed, Purpose::Init, 0);
        for part in self.parts() {
            let count = part.range.len();
            match part.initial {
                Initial::Constant(value) => parameters.resize(parameters.len() + count, value),
                Initial::Normal(layer) => parameters.extend(Stream::new(seed, Purpose::Init, layer).normals(count)),
                Initial::Uniform(layer) => {
                    // A bias goes on where its weight's stream ends, in the same bounds.
                    if last != Some(layer) {
                        (last, stream) = (Some(layer), Stream::new(seed, Purpose::Init, layer));
                        bound = 1.0 / (part.shape[1] as f32).sqrt();
                    }
                    parameters.extend((0..count).map(|_| (2.0 * stream.uniform() - 1.0) * bound));
                }
            }
        }
        parameters
    }
}
