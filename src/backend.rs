//! What a generator and its training ask of a processor.
//!
//! [`Host`](crate::cpu::Host) is the CPU, `cuda::Device` a GPU. [`Pass`](crate::generator::Pass) and
//! [`Trainer`](crate::train::Trainer) are written once, over [`Backend`]: whatever they do, they do in the same order on
//! either. Random numbers have the same bits on both.
//!
//! A backend's work may be behind: only what hands numbers to the caller waits for it.

use crate::data::Data;
use crate::features::Patches;
use crate::generator::{Condition, Conditioning, Layer, Vector};
use crate::train::{Classes, Lookahead, Optimizer, Transport};
use crate::{DriftShape, DriftSpec, Dtype, Error, Result};
use std::fmt::Debug;

/// Decay per step of [`Progress::loss_ema`], as in the notebook (spec 10.1).
pub(crate) const LOSS_DECAY: f64 = 0.96;

/// The scalars of a run, which a backend keeps where its own work reaches them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// Steps done.
    pub step: u64,
    /// The first step whose loss was not finite, or 0. Parameters have not changed since.
    pub diverged: u64,
    /// The loss of the last step, NaN before the first.
    pub loss: f64,
    /// Its moving average.
    pub loss_ema: f64,
    /// The length scale of the last batch.
    pub scale: f64,
    /// The global norm of the last gradient of the parameters, before any clip.
    pub grad_norm: f64,
}

impl Progress {
    /// That of a run after `step` steps.
    pub fn new(step: u64, loss_ema: f64) -> Self {
        Self { step, diverged: 0, loss: f64::NAN, loss_ema, scale: f64::NAN, grad_norm: f64::NAN }
    }

    /// Counts the step whose loss has come, and takes it into the average.
    pub(crate) fn complete(&mut self) {
        self.loss_ema = match self.step {
            0 => self.loss,
            _ => LOSS_DECAY * self.loss_ema + (1.0 - LOSS_DECAY) * self.loss,
        };
        self.step += 1;
    }
}

/// Parameters of a generator with what their update remembers, each array as long as the first.
#[derive(Clone, Debug, PartialEq)]
pub struct Weights<A> {
    /// The parameters.
    pub parameters: A,
    /// Their gradient.
    pub grad: A,
    /// First moment of the gradient.
    pub first: A,
    /// Second moment.
    pub second: A,
    /// Moving average of the parameters.
    pub ema: A,
}

impl<A> Weights<A> {
    /// Those of a generator that starts from `parameters`.
    pub fn new<B: Backend<Array = A>>(backend: &B, parameters: &[f32]) -> Result<Self> {
        let zeros = |what| backend.array(what, parameters.len());
        Ok(Self {
            parameters: backend.upload("the parameters", parameters)?,
            grad: zeros("the gradient")?,
            first: zeros("the first moment")?,
            second: zeros("the second moment")?,
            ema: backend.upload("the averaged parameters", parameters)?,
        })
    }
}

/// Where a step draws from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sampling {
    /// So many data, in one group.
    Batch(usize),
    /// So many in all, an even number, in two groups, each of which has the other's samples for negatives.
    Halves(usize),
    /// Of each label's class, and of all.
    Classes(Classes),
}

impl Sampling {
    /// The extents of a step's drift, in `dim` coordinates.
    pub fn shape(&self, dim: usize) -> DriftShape {
        match *self {
            Self::Batch(n) => DriftShape { groups: 1, generated: n, negatives: 0, positives: n, dim },
            Self::Halves(n) => DriftShape { groups: 2, generated: n / 2, negatives: n / 2, positives: n / 2, dim },
            Self::Classes(Classes { labels, generated, negatives, positives, .. }) => {
                DriftShape { groups: labels, generated, negatives, positives, dim }
            }
        }
    }
}

/// What generated samples are drawn to, and pushed from beside one another.
#[derive(Debug)]
pub struct Targets<A> {
    /// [B, P, D].
    pub positives: A,
    /// [B, N, D]; empty where N is 0.
    pub negatives: A,
    /// Their weights, [B, N].
    pub weights: A,
    /// The weights of generated samples among their own targets, [B, G] or more of one value; nothing for 1.
    pub own: Option<A>,
}

/// One head of a drift (spec 4.1): what is drawn and pushed, where to, and where the gradient goes.
#[derive(Debug)]
pub struct Head<'a, A> {
    /// Generated samples [B, G, D].
    pub generated: &'a A,
    /// Positives [B, P, D].
    pub positives: &'a A,
    /// Negatives [B, N, D], and their weights [B, N]; not read where N is 0.
    pub negatives: [&'a A; 2],
    /// The weights of generated samples among their own targets, [B, G] or more; nothing for 1. Fields that have negatives
    /// for their q do not read them.
    pub own: Option<&'a A>,
    /// The gradient by the generated samples, [B, G, D].
    pub gradient: &'a mut A,
}

/// What a step draws.
#[derive(Debug)]
pub struct Batch<'a, A> {
    /// The noise [n, width], and its width.
    pub noise: (&'a mut A, usize),
    /// Labels and guidance scales, where data have classes.
    pub condition: Option<&'a mut Condition<A>>,
    /// Data.
    pub targets: &'a mut Targets<A>,
}

/// Refuses what products cannot have.
pub(crate) fn check_precision(precision: Dtype) -> Result<()> {
    match precision {
        Dtype::F16 => Err(Error::value("training", "precision", "f32, or bf16, which has the range of f32", precision)),
        _ => Ok(()),
    }
}

/// A processor with its memory. Arrays are [n, width] in C order.
///
/// # Errors
/// Every method answers [`Error::TooLarge`] or [`Error::DeviceMemory`] where memory does not suffice, and
/// [`Error::Device`] where a device fails, by itself or in work that came before.
pub trait Backend: Debug + Sized {
    /// Numbers in f32.
    type Array: Debug;
    /// What a run is trained on.
    type Data: Debug;
    /// A drift, or a field in its place, with its workspace.
    type Drift: Debug;
    /// A [`Progress`].
    type Progress: Debug;

    /// From now on products have operands in f32, or with [`Dtype::Bf16`] rounded to that; their sums, their results, and
    /// all that is not a product, stay in f32.
    ///
    /// Refuses [`Dtype::F16`], whose range the gradients of a mean over many samples leave.
    fn set_precision(&mut self, precision: Dtype) -> Result<()>;

    /// An array of zeros; `what` names it where there is no room.
    fn array(&self, what: &'static str, len: usize) -> Result<Self::Array>;

    /// A copy of `values`.
    fn upload(&self, what: &'static str, values: &[f32]) -> Result<Self::Array>;

    /// The first `len` numbers of an array.
    fn download(&self, array: &Self::Array, len: usize) -> Result<Vec<f32>>;

    /// How long an array is.
    fn len(array: &Self::Array) -> usize;

    /// How many numbers [`Backend::note_bias`] and the others leave in `sums` for [`Backend::join_sums`], of n samples and
    /// vectors of `columns` numbers in all.
    fn sums(&self, n: usize, columns: usize) -> usize;

    /// A run's scalars.
    fn progress(&self, progress: &Progress) -> Result<Self::Progress>;

    /// Their present values.
    fn read(&self, progress: &Self::Progress) -> Result<Progress>;

    /// The data of a run after `step` steps.
    fn data(&self, data: &Data, sampling: &Sampling, seed: u64, step: u64) -> Result<Self::Data>;

    /// A drift of one head or several.
    fn drift(&self, spec: &DriftSpec, shapes: &[DriftShape]) -> Result<Self::Drift>;

    /// A field in the place of a drift, on the samples and positives of one head or several. What of it is random are
    /// numbers of the seed and the step.
    fn field(&self, field: &Transport, shapes: &[DriftShape], seed: u64) -> Result<Self::Drift>;

    /// From now on [`Backend::gradient`] looks ahead (spec 8.2), which a drift of one head alone can.
    fn look_ahead(&self, drift: &mut Self::Drift, lookahead: &Lookahead) -> Result<()>;

    /// Gives a drift other temperatures, as many as it has, or a field another bandwidth.
    fn set_temperatures(&self, drift: &mut Self::Drift, temperatures: &[f64]) -> Result<()>;

    /// Noise and data of the step that comes.
    fn draw(
        &mut self,
        from: &mut Self::Data,
        seed: u64,
        progress: &Self::Progress,
        batch: Batch<'_, Self::Array>,
    ) -> Result<()>;

    /// `z = x W^T + b`, with what class and guidance scale add; and `y = silu(z)`, for n samples.
    #[expect(clippy::too_many_arguments, reason = "each is an operand of one fused operation")]
    fn hidden(
        &mut self,
        layer: &Layer,
        parameters: &Self::Array,
        n: usize,
        x: &Self::Array,
        condition: Option<(&Conditioning, &Condition<Self::Array>)>,
        z: &mut Self::Array,
        y: &mut Self::Array,
    ) -> Result<()>;

    /// `y = x W^T + b`, and to it `h` where there is one, for n samples.
    fn linear(
        &mut self,
        layer: &Layer,
        parameters: &Self::Array,
        n: usize,
        x: &Self::Array,
        h: Option<&Self::Array>,
        y: &mut Self::Array,
    ) -> Result<()>;

    /// The first `count` numbers, an even number, second half first.
    fn exchange(&mut self, count: usize, from: &Self::Array, to: &mut Self::Array) -> Result<()>;

    /// The gradient of the regression onto x + step V in the place of the first `count` numbers, V; the loss and the scale
    /// 1 in `progress`. Of the field only its step and whether it is normalised are looked at.
    fn regress(
        &mut self,
        field: &Transport,
        count: usize,
        velocity: &mut Self::Array,
        progress: &mut Self::Progress,
    ) -> Result<()>;

    /// The drift of heads, as many as it is for: of each the gradient of its mean loss over the groups; the sum of those
    /// losses, and the first head's scale (of a field 1), in `progress`.
    fn gradient(
        &mut self,
        drift: &mut Self::Drift,
        heads: &mut [Head<'_, Self::Array>],
        progress: &mut Self::Progress,
    ) -> Result<()>;

    /// Means of patches of n images, [F, n, C], and standard deviations where they are asked for.
    fn patches(
        &mut self,
        patches: &Patches,
        n: usize,
        x: &Self::Array,
        mean: &mut Self::Array,
        deviation: Option<&mut Self::Array>,
    ) -> Result<()>;

    /// Adds to `dx` the gradient by the images, given that by the means, and the deviations and that by them.
    fn patches_grad(
        &mut self,
        patches: &Patches,
        n: usize,
        x: &Self::Array,
        mean: [&Self::Array; 2],
        deviation: Option<[&Self::Array; 2]>,
        dx: &mut Self::Array,
    ) -> Result<()>;

    /// `y = factor cos(2 pi z)`, the first `count` numbers.
    fn cosine(&mut self, count: usize, factor: f32, z: &Self::Array, y: &mut Self::Array) -> Result<()>;

    /// `dy = -2 pi factor sin(2 pi z) dy`: the gradient by z in the place of that by y.
    fn cosine_grad(&mut self, count: usize, factor: f32, z: &Self::Array, dy: &mut Self::Array) -> Result<()>;

    /// The first `count` numbers `times` times, one after another.
    fn tile(&mut self, count: usize, times: usize, from: &Self::Array, to: &mut Self::Array) -> Result<()>;

    /// `y = y + x`, the first `count` numbers.
    fn add(&mut self, count: usize, x: &Self::Array, y: &mut Self::Array) -> Result<()>;

    /// Makes all numbers 0.
    fn clear(&mut self, array: &mut Self::Array) -> Result<()>;

    /// `y = gain * x * inverse`, where `inverse = 1 / sqrt(mean x² + 1e-6)` of each of n samples.
    fn normalize(
        &mut self,
        gain: &Vector,
        parameters: &Self::Array,
        n: usize,
        x: &Self::Array,
        inverse: &mut Self::Array,
        y: &mut Self::Array,
    ) -> Result<()>;

    /// Writes to `dx`, or adds to it, the gradient by `x`, given `x`, `inverse` and the gradient by `y`; and notes or
    /// writes that by the gains.
    #[expect(clippy::too_many_arguments, reason = "each is an operand of one fused operation")]
    fn normalize_grad(
        &mut self,
        gain: &Vector,
        parameters: &Self::Array,
        n: usize,
        operands: [&Self::Array; 3],
        dx: &mut Self::Array,
        add: bool,
        grad: &mut Self::Array,
        sums: &mut Self::Array,
    ) -> Result<()>;

    /// Notes `dy`, the gradient by the outputs of a layer, for its bias.
    fn note_bias(&mut self, bias: &Vector, n: usize, dy: &Self::Array, sums: &mut Self::Array) -> Result<()>;

    /// `dW = dy^T x`, and where [`Backend::join_sums`] does nothing, the gradient by the bias.
    fn weight_grad(
        &mut self,
        layer: &Layer,
        n: usize,
        x: &Self::Array,
        dy: &Self::Array,
        grad: &mut Self::Array,
    ) -> Result<()>;

    /// `dx = dy W`; where the inputs are `silu(z)`, it is multiplied by `silu'(z)`, and noted for the bias in `z`.
    #[expect(clippy::too_many_arguments, reason = "each is an operand of one fused operation")]
    fn input_grad(
        &mut self,
        layer: &Layer,
        parameters: &Self::Array,
        n: usize,
        dy: &Self::Array,
        silu: Option<(&Self::Array, &Vector)>,
        dx: &mut Self::Array,
        sums: &mut Self::Array,
    ) -> Result<()>;

    /// `dz = dz silu'(z)`, noted for the bias in `z`.
    fn silu_grad(
        &mut self,
        bias: &Vector,
        n: usize,
        z: &Self::Array,
        dz: &mut Self::Array,
        sums: &mut Self::Array,
    ) -> Result<()>;

    /// The gradients by the vectors of classes and guidance scale, given that by the layer that they enter.
    fn condition_grad(
        &mut self,
        condition: (&Conditioning, &Condition<Self::Array>),
        n: usize,
        dz: &Self::Array,
        grad: &mut Self::Array,
    ) -> Result<()>;

    /// The gradients by all vectors from what was noted.
    fn join_sums(&mut self, vectors: &[Vector], n: usize, sums: &Self::Array, grad: &mut Self::Array) -> Result<()>;

    /// One update by the gradient, which completes the step. Where the loss was not finite nothing changes.
    fn update(
        &mut self,
        optimizer: &Optimizer,
        weights: &mut Weights<Self::Array>,
        progress: &mut Self::Progress,
    ) -> Result<()>;

    /// Runs `step`, or what an earlier call of it appended to the backend's queue once more.
    ///
    /// From the second call on `step` may be recorded, and later calls may replay the record: `step` must then do the
    /// same work on the same arrays every time.
    fn repeat(&mut self, step: impl FnOnce(&mut Self) -> Result<()>) -> Result<()>;

    /// Forgets what it repeats: other arrays may have taken the place of those of the record.
    fn forget(&mut self) {}

    /// Waits until everything is done.
    fn finish(&self) -> Result<()>;
}
