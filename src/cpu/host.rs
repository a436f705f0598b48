//! The CPU as a backend of generators and their training.

use super::gemm::{ByColumns, pack, pack_transposed, packed_len, product, rows_product};
use super::isa::{Isa, LANES, Simd, exp, per_isa};
use super::tile::column_sums;
use super::{Plan, Workspace};
use crate::backend::{Backend, Batch, Head, Progress, Sampling, Weights, check_precision};
use crate::data::Data;
use crate::features::Patches;
use crate::generator::{Condition, Conditioning, Layer, Vector};
use crate::rng::{Purpose, Stream, sin_cos_turns};
use crate::train::classes::{Buffers, Choices, labels_of};
use crate::train::{Along, Lookahead, Optimizer, Transport};
use crate::{
    DriftInputs, DriftShape, DriftSpec, Dtype, Error, FeatureScale, FieldInputs, FieldSpec, Points, Result,
    SlicedInputs,
};
use half::bf16;
use rayon::prelude::*;
use std::borrow::Cow;

/// Samples of a batch that one task multiplies at a time; fixed, so that results do not depend on threads.
const ROWS: usize = 128;

/// Added to the mean square of what is normalised.
const NORM_FLOOR: f32 = 1e-6;

/// Added to the variance of a patch (spec 4.1).
const VARIANCE_FLOOR: f32 = 1e-6;

/// The CPU, with the threads of rayon's current pool.
#[derive(Clone, Debug)]
pub struct Host {
    isa: Isa,
    /// What operands of products are rounded to.
    precision: Dtype,
    /// A packed factor of a product; reused from call to call.
    packed: Vec<f32>,
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

impl Host {
    /// The CPU.
    pub fn new() -> Self {
        Self { isa: Isa::detect(), precision: Dtype::F32, packed: Vec::new() }
    }

    /// The transposed weight of a layer, packed as the right factor of a product.
    fn pack_weight(&mut self, layer: &Layer, weight: &[f32]) -> (Isa, &[f32]) {
        self.packed.resize(packed_len(layer.input, layer.output), 0.0);
        let weight = operand(self.precision, weight);
        pack_transposed(self.isa, &weight, layer.output, layer.input, &mut self.packed);
        (self.isa, &self.packed)
    }
}

/// The operand of a product, as the precision has it.
fn operand(precision: Dtype, values: &[f32]) -> Cow<'_, [f32]> {
    match precision {
        Dtype::Bf16 => Cow::Owned(values.par_iter().map(|v| bf16::from_f32(*v).to_f32()).collect()),
        _ => Cow::Borrowed(values),
    }
}

/// The data of a run, in the host's memory.
#[derive(Debug)]
pub struct HostData {
    data: Data,
    sampling: Sampling,
    buffers: Option<Buffers>,
}

/// A drift on the CPU, or a field in its place, head after head.
#[derive(Debug)]
pub struct HostDrift {
    heads: Vec<HostHead>,
    ahead: Option<Lookahead>,
}

#[expect(clippy::large_enum_variant, reason = "there are a few at most")]
#[derive(Debug)]
enum HostHead {
    Drift { spec: DriftSpec, plan: Plan, shape: DriftShape, workspace: Workspace },
    Field { field: Transport, shape: DriftShape, seed: u64 },
}

impl HostHead {
    /// The gradient of a head in the step `step`; the mean loss over its groups, and its scale.
    fn gradient(&mut self, step: u64, head: &mut Head<'_, Vec<f32>>) -> Result<[f64; 2]> {
        match self {
            Self::Drift { spec, plan, shape, workspace } => drifted(spec, plan, shape, workspace, head),
            Self::Field { field, shape, seed } => transported(field, shape, *seed, step, head),
        }
    }

    /// What coordinates are divided by where the scale is this; both clips of spec 2.2 (3) and 2.6 are the same here.
    fn unit(&self, scale: f64) -> f64 {
        match self {
            Self::Drift { spec, shape, .. } if spec.feature_scale != FeatureScale::Raw => {
                crate::spec::clip_min(scale / (shape.dim as f64).sqrt(), 1e-3)
            }
            _ => 1.0,
        }
    }

    /// As `gradient`, by way of drifts ahead. A gradient is `-2 / (n unit²)` times V, for n numbers.
    fn ahead(&mut self, lookahead: &Lookahead, step: u64, head: &mut Head<'_, Vec<f32>>) -> Result<[f64; 2]> {
        let length = |term: &[f32]| term.iter().map(|g| f64::from(*g) * f64::from(*g)).sum::<f64>().sqrt();
        let [_, scale] = self.gradient(step, head)?;
        let n = head.gradient.len() as f64;
        let unit = self.unit(scale);
        let first = length(head.gradient);
        let (mut moved, mut term) = (head.generated.clone(), head.gradient.clone());
        let mut ratio = 1.0;
        head.gradient.iter_mut().for_each(|total| *total = (lookahead.weights[0] * f64::from(*total)) as f32);
        for weight in &lookahead.weights[1..] {
            let by = -0.5 * n * unit * unit * lookahead.step * ratio;
            moved.iter_mut().zip(&term).for_each(|(x, g)| *x = (f64::from(*x) + by * f64::from(*g)) as f32);
            self.gradient(step, &mut Head { generated: &moved, gradient: &mut term, ..*head })?;
            let length = length(&term);
            // Where there is no drift there is nothing to bring to its length.
            ratio = if length == 0.0 { 0.0 } else { first / length };
            let terms = head.gradient.iter_mut().zip(&term);
            terms.for_each(|(total, g)| *total = (f64::from(*total) + weight * ratio * f64::from(*g)) as f32);
        }
        Ok([0.25 * n * (unit * length(head.gradient)).powi(2), scale])
    }
}

fn drifted(
    spec: &DriftSpec,
    plan: &Plan,
    shape: &DriftShape,
    workspace: &mut Workspace,
    head: &mut Head<'_, Vec<f32>>,
) -> Result<[f64; 2]> {
    let DriftShape { groups, generated, negatives, positives, dim } = *shape;
    let points = |values, count: usize| Points::new(values, [groups, count, dim]);
    let mut inputs = DriftInputs::new(points(head.generated, generated)?, points(head.positives, positives)?)?;
    if negatives > 0 {
        let [samples, weights] = head.negatives;
        inputs = inputs.negatives(points(samples, negatives)?)?.weight_negatives(weights)?;
    }
    if let Some(own) = head.own {
        inputs = inputs.weight_generated(&own[..groups * generated])?;
    }
    let mut losses = vec![0.0; groups];
    let scale = plan.distances(&inputs, workspace)?.finish(spec)?;
    let norms = plan.coefficients(&inputs, &scale, workspace)?.finish(spec, &scale);
    plan.gradient(&inputs, &scale, &norms, workspace, head.gradient, &mut losses)?;
    if groups > 1 {
        let share = 1.0 / groups as f32;
        head.gradient.iter_mut().for_each(|g| *g *= share);
    }
    Ok([losses.iter().map(|loss| f64::from(*loss)).sum::<f64>() / groups as f64, scale.scale])
}

/// The gradient along a field, whose scale is 1.
fn transported(
    field: &Transport,
    shape: &DriftShape,
    seed: u64,
    step: u64,
    head: &mut Head<'_, Vec<f32>>,
) -> Result<[f64; 2]> {
    let DriftShape { groups, generated, negatives, positives, dim } = *shape;
    let thetas = match field.along {
        Along::Sliced { directions } => crate::directions(directions, dim, seed, step)?,
        _ => Vec::new(),
    };
    let own = field.own(shape);
    let noised = match (&field.along, own) {
        (Along::Kernel { noised: true, .. }, Some(FieldSpec { bandwidth, .. })) => {
            let mut noise = Stream::new(seed, Purpose::Queries, step).normals(groups * generated * dim);
            noise.iter_mut().zip(head.generated).for_each(|(e, x)| *e = x + bandwidth as f32 * *e);
            Some(noise)
        }
        _ => None,
    };
    let queries = noised.as_ref().unwrap_or(head.generated);
    let mut squares = 0.0;
    for group in 0..groups {
        let of = |count: usize| group * count * dim..(group + 1) * count * dim;
        let range = of(generated);
        let x = (&queries[range.clone()], [generated, dim]);
        let p = (&head.positives[of(positives)], [positives, dim]);
        let q = match negatives {
            0 => (&head.generated[range.clone()], [generated, dim]),
            _ => (&head.negatives[0][of(negatives)], [negatives, dim]),
        };
        let velocity = match (&field.along, &own) {
            (Along::Kernel { velocity, .. }, Some(spec)) => {
                super::field(spec, &FieldInputs::new(x, p, q)?)?.velocity(*velocity)?
            }
            (Along::Projected(projection), Some(spec)) => {
                let shift = super::field::mean_shift(spec, &FieldInputs::new(x, q, q)?)?;
                let mut velocity = super::projected(projection, x.0)?;
                velocity.iter_mut().zip(x.0).zip(shift).for_each(|((v, x), shift)| *v = *v - x - shift);
                velocity
            }
            (Along::Sliced { directions }, _) => {
                super::sliced(&SlicedInputs::new(x, p, (&thetas, [*directions, dim]))?)?
            }
            _ => return Err(Transport::missing()),
        };
        squares += velocity.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>();
        head.gradient[range].copy_from_slice(&velocity);
    }
    regressed(field, squares, &mut head.gradient[..groups * generated * dim])
}

/// The gradient in the place of a velocity, whose squares add up to `squares`; the loss, and the scale 1.
fn regressed(field: &Transport, squares: f64, velocity: &mut [f32]) -> Result<[f64; 2]> {
    let [loss, factor] = field.regression(squares, velocity.len());
    velocity.iter_mut().for_each(|g| *g = (factor * f64::from(*g)) as f32);
    Ok([loss, 1.0])
}

/// The loss and the scale of a step.
fn take(progress: &mut Progress, [loss, scale]: [f64; 2]) -> Result<()> {
    if !loss.is_finite() {
        return Err(Error::Diverged { step: progress.step + 1, loss });
    }
    (progress.loss, progress.scale) = (loss, scale);
    Ok(())
}

impl Backend for Host {
    type Array = Vec<f32>;
    type Data = HostData;
    type Drift = HostDrift;
    type Progress = Progress;

    fn set_precision(&mut self, precision: Dtype) -> Result<()> {
        check_precision(precision)?;
        self.precision = precision;
        Ok(())
    }

    fn array(&self, what: &'static str, len: usize) -> Result<Vec<f32>> {
        Error::check_memory("training", what, len.checked_mul(size_of::<f32>()))?;
        Ok(vec![0.0; len])
    }

    fn upload(&self, what: &'static str, values: &[f32]) -> Result<Vec<f32>> {
        Error::check_memory("training", what, Some(size_of_val(values)))?;
        Ok(values.to_vec())
    }

    fn download(&self, array: &Vec<f32>, len: usize) -> Result<Vec<f32>> {
        Ok(array[..len].to_vec())
    }

    fn len(array: &Vec<f32>) -> usize {
        array.len()
    }

    /// None: biases are summed beside the weights.
    fn sums(&self, _n: usize, _biases: usize) -> usize {
        0
    }

    fn progress(&self, progress: &Progress) -> Result<Progress> {
        Ok(*progress)
    }

    fn read(&self, progress: &Progress) -> Result<Progress> {
        Ok(*progress)
    }

    fn data(&self, data: &Data, sampling: &Sampling, seed: u64, step: u64) -> Result<HostData> {
        let buffers = match sampling {
            Sampling::Batch(_) | Sampling::Halves(_) => None,
            Sampling::Classes(classes) => Some(Buffers::of(classes, data, seed, step)?.0),
        };
        Ok(HostData { data: data.clone(), sampling: *sampling, buffers })
    }

    fn drift(&self, spec: &DriftSpec, shapes: &[DriftShape]) -> Result<HostDrift> {
        let head = |shape: &DriftShape| -> Result<_> {
            let plan = Plan::new(spec, *shape)?;
            Ok(HostHead::Drift { spec: spec.clone(), shape: *shape, workspace: plan.workspace(), plan })
        };
        Ok(HostDrift { heads: shapes.iter().map(head).collect::<Result<_>>()?, ahead: None })
    }

    fn field(&self, field: &Transport, shapes: &[DriftShape], seed: u64) -> Result<HostDrift> {
        let head = |shape: &DriftShape| -> Result<_> {
            field.check(shape)?;
            Ok(HostHead::Field { field: field.clone(), shape: *shape, seed })
        };
        Ok(HostDrift { heads: shapes.iter().map(head).collect::<Result<_>>()?, ahead: None })
    }

    fn look_ahead(&self, drift: &mut HostDrift, lookahead: &Lookahead) -> Result<()> {
        lookahead.check(drift.heads.len())?;
        drift.ahead = Some(lookahead.clone());
        Ok(())
    }

    fn set_temperatures(&self, drift: &mut HostDrift, temperatures: &[f64]) -> Result<()> {
        for head in &mut drift.heads {
            match head {
                HostHead::Drift { spec, plan, shape, workspace } => {
                    spec.temperatures = temperatures.to_vec();
                    *plan = Plan::new(spec, *shape)?;
                    plan.adopt(workspace);
                }
                HostHead::Field { field, .. } => field.set_bandwidth(temperatures)?,
            }
        }
        Ok(())
    }

    fn draw(
        &mut self,
        from: &mut HostData,
        seed: u64,
        progress: &Progress,
        Batch { noise: (noise, width), condition, targets }: Batch<'_, Vec<f32>>,
    ) -> Result<()> {
        let step = progress.step + 1;
        let HostData { data, sampling, buffers } = from;
        let shape = sampling.shape(data.dim());
        let samples = || Stream::new(seed, Purpose::Noise, step).normals(shape.groups * shape.generated * width);
        let (Sampling::Classes(classes), Some(buffers), Some(labels)) = (&*sampling, buffers, labels_of(data)) else {
            let batch = || data.sample(&mut Stream::new(seed, Purpose::Data, step), shape.groups * shape.positives);
            (*noise, targets.positives) = rayon::join(samples, batch);
            return Ok(());
        };
        let choices = Choices::of_step(classes, labels, buffers, step);
        let gather = |numbers: &[u32]| numbers.iter().flat_map(|at| data.point(*at as usize)).copied().collect();
        (*noise, targets.positives) = rayon::join(samples, || gather(&choices.positives));
        targets.negatives = gather(&choices.negatives);
        let repeated = |(_, weight): &(f32, f32)| std::iter::repeat_n(*weight, shape.negatives);
        targets.weights = choices.guidance.iter().flat_map(repeated).collect();
        if let Some(condition) = condition {
            condition.labels = choices.labels.iter().map(|label| *label as f32).collect();
            condition.guidance = choices.guidance.iter().map(|(log, _)| *log).collect();
        }
        Ok(())
    }

    fn hidden(
        &mut self,
        layer: &Layer,
        parameters: &Vec<f32>,
        n: usize,
        x: &Vec<f32>,
        condition: Option<(&Conditioning, &Condition<Vec<f32>>)>,
        z: &mut Vec<f32>,
        y: &mut Vec<f32>,
    ) -> Result<()> {
        let (weight, bias) = layer.split(parameters);
        let Layer { input, output, .. } = *layer;
        let x = operand(self.precision, &x[..n * input]);
        let (isa, weight) = self.pack_weight(layer, weight);
        let (z, y) = (z[..n * output].par_chunks_mut(ROWS * output), y[..n * output].par_chunks_mut(ROWS * output));
        x.par_chunks(ROWS * input).zip(z).zip(y).enumerate().for_each(|(chunk, ((x, z), y))| {
            product(isa, [x.len() / input, input, output], x, weight, z);
            if let Some((places, condition)) = condition {
                for (row, z) in (chunk * ROWS..).zip(z.chunks_exact_mut(output)) {
                    let (label, guidance) = slot_of(places, condition, row, n);
                    match label {
                        Some(label) => {
                            let class = &parameters[places.table.start + label * output..][..output];
                            z.iter_mut().zip(class).for_each(|(z, e)| *z += e);
                        }
                        // As on a device, which cannot refuse it.
                        None => z.fill(f32::NAN),
                    }
                    if let Some(range) = &places.guidance {
                        z.iter_mut().zip(&parameters[range.clone()]).for_each(|(z, g)| *z += guidance * g);
                    }
                }
            }
            bias_silu(isa, bias, z, y);
        });
        Ok(())
    }

    fn linear(
        &mut self,
        layer: &Layer,
        parameters: &Vec<f32>,
        n: usize,
        x: &Vec<f32>,
        h: Option<&Vec<f32>>,
        y: &mut Vec<f32>,
    ) -> Result<()> {
        let (weight, bias) = layer.split(parameters);
        let Layer { input, output, .. } = *layer;
        let x = operand(self.precision, &x[..n * input]);
        let (isa, weight) = self.pack_weight(layer, weight);
        let y = y[..n * output].par_chunks_mut(ROWS * output);
        x.par_chunks(ROWS * input).zip(y).enumerate().for_each(|(chunk, (x, y))| {
            product(isa, [x.len() / input, input, output], x, weight, y);
            for y in y.chunks_exact_mut(output) {
                y.iter_mut().zip(bias).for_each(|(y, bias)| *y += bias);
            }
            if let Some(h) = h {
                y.iter_mut().zip(&h[chunk * ROWS * output..]).for_each(|(y, h)| *y += h);
            }
        });
        Ok(())
    }

    fn gradient(
        &mut self,
        drift: &mut HostDrift,
        heads: &mut [Head<'_, Vec<f32>>],
        progress: &mut Progress,
    ) -> Result<()> {
        let HostDrift { heads: own, ahead } = drift;
        if heads.len() != own.len() {
            return Err(Error::shape("training", "heads", [own.len()], [heads.len()]));
        }
        let step = progress.step + 1;
        let heads = own.iter_mut().zip(heads).map(|(head, arrays)| match ahead {
            None => head.gradient(step, arrays),
            Some(lookahead) => head.ahead(lookahead, step, arrays),
        });
        let heads = heads.collect::<Result<Vec<[f64; 2]>>>()?;
        let loss: f64 = heads.iter().map(|[loss, _]| loss).sum();
        take(progress, [loss, heads.first().map_or(f64::NAN, |[_, scale]| *scale)])
    }

    fn exchange(&mut self, count: usize, from: &Vec<f32>, to: &mut Vec<f32>) -> Result<()> {
        if from.len() < count || to.len() < count {
            return Err(Error::shape("training", "halves", [count], [from.len().min(to.len())]));
        }
        let (half, count) = (count / 2, count / 2 * 2);
        to[..half].copy_from_slice(&from[half..count]);
        to[half..count].copy_from_slice(&from[..half]);
        Ok(())
    }

    fn regress(
        &mut self,
        field: &Transport,
        count: usize,
        velocity: &mut Vec<f32>,
        progress: &mut Progress,
    ) -> Result<()> {
        let velocity = &mut velocity[..count];
        let squares = velocity.iter().map(|v| f64::from(*v) * f64::from(*v)).sum();
        take(progress, regressed(field, squares, velocity)?)
    }

    fn patches(
        &mut self,
        patches: &Patches,
        n: usize,
        x: &Vec<f32>,
        mean: &mut Vec<f32>,
        mut deviation: Option<&mut Vec<f32>>,
    ) -> Result<()> {
        let inverse = 1.0 / (patches.size * patches.size) as f32;
        let image = patches.pixels() * patches.channels;
        for (sample, x) in x[..n * image].chunks_exact(image).enumerate() {
            for patch in 0..patches.count() {
                for channel in 0..patches.channels {
                    let to = (patch * n + sample) * patches.channels + channel;
                    let pixels = || patches.pixels_of(patch).map(|pixel| x[pixel * patches.channels + channel]);
                    let middle = pixels().sum::<f32>() * inverse;
                    mean[to] = middle;
                    if let Some(deviation) = &mut deviation {
                        let sum: f32 = pixels().map(|x| (x - middle) * (x - middle)).sum();
                        deviation[to] = (sum * inverse + VARIANCE_FLOOR).sqrt();
                    }
                }
            }
        }
        Ok(())
    }

    fn patches_grad(
        &mut self,
        patches: &Patches,
        n: usize,
        x: &Vec<f32>,
        [mean, by_mean]: [&Vec<f32>; 2],
        deviation: Option<[&Vec<f32>; 2]>,
        dx: &mut Vec<f32>,
    ) -> Result<()> {
        let inverse = 1.0 / (patches.size * patches.size) as f32;
        let image = patches.pixels() * patches.channels;
        let images = x[..n * image].chunks_exact(image).zip(dx.chunks_exact_mut(image)).enumerate();
        for (sample, (x, dx)) in images {
            for patch in 0..patches.count() {
                for channel in 0..patches.channels {
                    let from = (patch * n + sample) * patches.channels + channel;
                    for pixel in patches.pixels_of(patch) {
                        let at = pixel * patches.channels + channel;
                        let spread =
                            |[deviation, by]: [&Vec<f32>; 2]| by[from] * ((x[at] - mean[from]) / deviation[from]);
                        dx[at] += (by_mean[from] + deviation.map_or(0.0, spread)) * inverse;
                    }
                }
            }
        }
        Ok(())
    }

    fn cosine(&mut self, count: usize, factor: f32, z: &Vec<f32>, y: &mut Vec<f32>) -> Result<()> {
        y[..count].iter_mut().zip(&z[..count]).for_each(|(y, z)| *y = factor * sin_cos_turns(*z).1);
        Ok(())
    }

    fn cosine_grad(&mut self, count: usize, factor: f32, z: &Vec<f32>, dy: &mut Vec<f32>) -> Result<()> {
        let factor = -std::f32::consts::TAU * factor;
        dy[..count].iter_mut().zip(&z[..count]).for_each(|(dy, z)| *dy *= factor * sin_cos_turns(*z).0);
        Ok(())
    }

    fn tile(&mut self, count: usize, times: usize, from: &Vec<f32>, to: &mut Vec<f32>) -> Result<()> {
        if count > 0 {
            to[..count * times].chunks_exact_mut(count).for_each(|to| to.copy_from_slice(&from[..count]));
        }
        Ok(())
    }

    fn add(&mut self, count: usize, x: &Vec<f32>, y: &mut Vec<f32>) -> Result<()> {
        y[..count].iter_mut().zip(&x[..count]).for_each(|(y, x)| *y += x);
        Ok(())
    }

    fn clear(&mut self, array: &mut Vec<f32>) -> Result<()> {
        array.fill(0.0);
        Ok(())
    }

    fn normalize(
        &mut self,
        gain: &Vector,
        parameters: &Vec<f32>,
        n: usize,
        x: &Vec<f32>,
        inverse: &mut Vec<f32>,
        y: &mut Vec<f32>,
    ) -> Result<()> {
        let (width, gain) = (gain.len, &parameters[gain.range()]);
        let y = y[..n * width].par_chunks_mut(ROWS * width);
        let inverse = inverse[..n].par_chunks_mut(ROWS);
        x[..n * width].par_chunks(ROWS * width).zip(inverse).zip(y).for_each(|((x, inverse), y)| {
            for ((x, inverse), y) in x.chunks_exact(width).zip(inverse).zip(y.chunks_exact_mut(width)) {
                let mean = x.iter().map(|x| x * x).sum::<f32>() / width as f32;
                *inverse = 1.0 / (mean + NORM_FLOOR).sqrt();
                for ((y, x), gain) in y.iter_mut().zip(x).zip(gain) {
                    *y = gain * x * *inverse;
                }
            }
        });
        Ok(())
    }

    fn normalize_grad(
        &mut self,
        gain: &Vector,
        parameters: &Vec<f32>,
        n: usize,
        [x, inverse, dy]: [&Vec<f32>; 3],
        dx: &mut Vec<f32>,
        add: bool,
        grad: &mut Vec<f32>,
        _sums: &mut Vec<f32>,
    ) -> Result<()> {
        let (width, range) = (gain.len, gain.range());
        let gain = &parameters[range.clone()];
        let sums: Vec<Vec<f32>> = x[..n * width]
            .par_chunks(ROWS * width)
            .zip(inverse[..n].par_chunks(ROWS))
            .zip(dy[..n * width].par_chunks(ROWS * width))
            .zip(dx[..n * width].par_chunks_mut(ROWS * width))
            .map(|(((x, inverse), dy), dx)| {
                let mut by_gain = vec![0.0; width];
                let rows = x.chunks_exact(width).zip(inverse).zip(dy.chunks_exact(width));
                for (((x, inverse), dy), dx) in rows.zip(dx.chunks_exact_mut(width)) {
                    let mut along = 0.0f32;
                    for (((x, dy), gain), by_gain) in x.iter().zip(dy).zip(gain).zip(&mut by_gain) {
                        along += dy * gain * x;
                        *by_gain += dy * x * inverse;
                    }
                    let along = along * inverse * inverse / width as f32;
                    for (((x, dy), gain), dx) in x.iter().zip(dy).zip(gain).zip(dx) {
                        let slope = inverse * (dy * gain - along * x);
                        *dx = if add { *dx + slope } else { slope };
                    }
                }
                by_gain
            })
            .collect();
        let grad = &mut grad[range];
        grad.fill(0.0);
        for sum in sums {
            grad.iter_mut().zip(sum).for_each(|(grad, sum)| *grad += sum);
        }
        Ok(())
    }

    fn note_bias(&mut self, _bias: &Vector, _n: usize, _dy: &Vec<f32>, _sums: &mut Vec<f32>) -> Result<()> {
        Ok(())
    }

    fn weight_grad(&mut self, layer: &Layer, n: usize, x: &Vec<f32>, dy: &Vec<f32>, grad: &mut Vec<f32>) -> Result<()> {
        let Layer { input, output, .. } = *layer;
        let (grad_weight, grad_bias) = layer.split_mut(grad);
        if n == 0 {
            grad_weight.fill(0.0);
            grad_bias.fill(0.0);
            return Ok(());
        }
        let (isa, dy) = (self.isa, &dy[..n * output]);
        let (x, factor) = (operand(self.precision, &x[..n * input]), operand(self.precision, dy));
        // In blocks of rows of W.
        let rows = (ROWS / 4).min(output.div_ceil(4));
        let blocks = grad_weight.par_chunks_mut(rows * input).zip(grad_bias.par_chunks_mut(rows));
        blocks.enumerate().for_each_init(Vec::new, |panels, (at, (weight, bias))| {
            let left = ByColumns { a: &factor, stride: output, row: at * rows };
            rows_product(isa, bias.len(), left, (&x, input), panels, weight);
            // The bias is a sum, not a product.
            column_sums(isa, dy, output, at * rows, bias);
        });
        Ok(())
    }

    fn input_grad(
        &mut self,
        layer: &Layer,
        parameters: &Vec<f32>,
        n: usize,
        dy: &Vec<f32>,
        silu: Option<(&Vec<f32>, &Vector)>,
        dx: &mut Vec<f32>,
        _sums: &mut Vec<f32>,
    ) -> Result<()> {
        let Layer { input, output, .. } = *layer;
        let (weight, _) = layer.split(parameters);
        self.packed.resize(packed_len(output, input), 0.0);
        pack(self.isa, &operand(self.precision, weight), output, input, &mut self.packed);
        let (isa, weight, dy) = (self.isa, &*self.packed, operand(self.precision, &dy[..n * output]));
        let chunks = dx[..n * input].par_chunks_mut(ROWS * input).zip(dy.par_chunks(ROWS * output));
        chunks.enumerate().for_each(|(chunk, (dx, dy))| {
            product(isa, [dy.len() / output, output, input], dy, weight, dx);
            if let Some((z, _)) = silu {
                silu_backward(isa, &z[chunk * ROWS * input..][..dx.len()], dx);
            }
        });
        Ok(())
    }

    fn silu_grad(
        &mut self,
        bias: &Vector,
        n: usize,
        z: &Vec<f32>,
        dz: &mut Vec<f32>,
        _sums: &mut Vec<f32>,
    ) -> Result<()> {
        let (isa, count) = (self.isa, n * bias.len);
        let z = z[..count].par_chunks(ROWS * bias.len);
        dz[..count].par_chunks_mut(ROWS * bias.len).zip(z).for_each(|(dz, z)| silu_backward(isa, z, dz));
        Ok(())
    }

    fn condition_grad(
        &mut self,
        (places, condition): (&Conditioning, &Condition<Vec<f32>>),
        n: usize,
        dz: &Vec<f32>,
        grad: &mut Vec<f32>,
    ) -> Result<()> {
        let width = places.width;
        grad[places.table.clone()].fill(0.0);
        places.guidance.iter().for_each(|range| grad[range.clone()].fill(0.0));
        for (row, dz) in dz[..n * width].chunks_exact(width).enumerate() {
            let (label, guidance) = slot_of(places, condition, row, n);
            if let Some(label) = label {
                let class = &mut grad[places.table.start + label * width..][..width];
                class.iter_mut().zip(dz).for_each(|(grad, dz)| *grad += dz);
            }
            if let Some(range) = &places.guidance {
                grad[range.clone()].iter_mut().zip(dz).for_each(|(grad, dz)| *grad += guidance * dz);
            }
        }
        Ok(())
    }

    fn join_sums(&mut self, _vectors: &[Vector], _n: usize, _sums: &Vec<f32>, _grad: &mut Vec<f32>) -> Result<()> {
        Ok(())
    }

    fn update(
        &mut self,
        optimizer: &Optimizer,
        weights: &mut Weights<Vec<f32>>,
        progress: &mut Progress,
    ) -> Result<()> {
        progress.grad_norm = optimizer.update(progress.step + 1, weights);
        progress.complete();
        Ok(())
    }

    fn repeat(&mut self, step: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        step(self)
    }

    fn finish(&self) -> Result<()> {
        Ok(())
    }
}

/// Label and logarithm of the guidance scale of a sample; no label where it is no class.
fn slot_of(places: &Conditioning, condition: &Condition<Vec<f32>>, row: usize, n: usize) -> (Option<usize>, f32) {
    let slot = row / (n / condition.slots);
    let label = condition.labels[slot];
    let known = (0.0..places.classes as f32).contains(&label);
    (known.then_some(label as usize), condition.guidance[slot])
}

/// 1 / (1 + e^-z), from the exponential of a number <= 0.
#[inline(always)]
fn sigmoid<V: Simd>(z: V) -> V {
    let (zero, one) = (V::zero(), V::splat(1.0));
    let e = exp(zero.sub(z.abs()));
    z.if_less(zero, e, one).div(one.add(e))
}

/// `z += bias`, which lies in `y`; then `y = z sigmoid(z)`.
#[inline(always)]
fn activate<V: Simd>(z: &mut [f32; LANES], y: &mut [f32; LANES]) {
    let sum = V::load(z).add(V::load(y));
    sum.store(z);
    sum.mul(sigmoid(sum)).store(y);
}

/// `dz *= d silu / dz`.
#[inline(always)]
fn slope<V: Simd>(z: &[f32; LANES], dz: &mut [f32; LANES]) {
    let z = V::load(z);
    let (s, one) = (sigmoid(z), V::splat(1.0));
    V::load(dz).mul(s).mul(one.sub(s).mul_add(z, one)).store(dz);
}

/// What is left over of a slice, filled up with zeros.
#[inline(always)]
fn filled(rest: &[f32]) -> [f32; LANES] {
    let mut block = [0.0; LANES];
    block[..rest.len()].copy_from_slice(rest);
    block
}

per_isa! {
    /// `z += bias` for each sample, then `y = z sigmoid(z)`.
    fn bias_silu(bias: &[f32], z: &mut [f32], y: &mut [f32]) {
        for (z, y) in z.chunks_exact_mut(bias.len()).zip(y.chunks_exact_mut(bias.len())) {
            y.copy_from_slice(bias);
            let ((z, z_rest), (y, y_rest)) = (z.as_chunks_mut::<LANES>(), y.as_chunks_mut::<LANES>());
            for (z, y) in z.iter_mut().zip(y) {
                activate::<V>(z, y);
            }
            if !z_rest.is_empty() {
                let (mut z, mut y) = (filled(z_rest), filled(y_rest));
                activate::<V>(&mut z, &mut y);
                z_rest.copy_from_slice(&z[..z_rest.len()]);
                y_rest.copy_from_slice(&y[..y_rest.len()]);
            }
        }
    }
}

per_isa! {
    /// `dz *= d silu / dz`.
    fn silu_backward(z: &[f32], dz: &mut [f32]) {
        let ((z, z_rest), (dz, dz_rest)) = (z.as_chunks::<LANES>(), dz.as_chunks_mut::<LANES>());
        for (z, dz) in z.iter().zip(dz) {
            slope::<V>(z, dz);
        }
        if !z_rest.is_empty() {
            let mut block = filled(dz_rest);
            slope::<V>(&filled(z_rest), &mut block);
            dz_rest.copy_from_slice(&block[..dz_rest.len()]);
        }
    }
}
