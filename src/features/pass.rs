//! Samples to features and gradients back, written once for every backend.

use super::{Feature, HeadShape, OP, Patches, fourier};
use crate::backend::{Backend, Head, Targets};
use crate::generator::Layer;
use crate::{DriftShape, Error, Result};

/// The heads that a step's drift is computed for, with room for the features of its samples.
///
/// ```
/// use cudrift::DriftShape;
/// use cudrift::backend::{Backend, Targets};
/// use cudrift::cpu::Host;
/// use cudrift::features::{Feature, FeaturePass};
/// let shape = DriftShape { groups: 1, generated: 3, negatives: 0, positives: 4, dim: 2 };
/// let features = [Feature::Identity, Feature::Fourier { count: 16, bandwidth: 0.5 }];
/// let mut host = Host::new();
/// let mut pass = FeaturePass::new(&host, &features, shape, 0)?;
/// assert_eq!(pass.shapes()[1], DriftShape { dim: 16, ..shape });
/// let x = vec![0.5; 6];
/// let targets = Targets { positives: vec![0.25; 8], negatives: vec![], weights: vec![], own: None };
/// pass.forward(&mut host, &x, &targets)?;
/// let mut by_x = vec![0.0; 6];
/// for head in pass.heads(&x, &targets, &mut by_x) {
///     head.gradient.fill(1.0); // what `Backend::gradient` does, with the drift's
/// }
/// pass.backward(&mut host, &x, &mut by_x)?;
/// # Ok::<(), cudrift::Error>(())
/// ```
#[derive(Debug)]
pub struct FeaturePass<B: Backend> {
    shape: DriftShape,
    maps: Vec<Map<B>>,
    /// Of all layers: frozen.
    parameters: B::Array,
    /// Where a layer's part of the gradient by its inputs is before it is added, and sums that nobody asks for.
    part: B::Array,
    sums: B::Array,
}

/// A feature with its arrays.
#[derive(Debug)]
struct Map<B: Backend> {
    kind: Kind,
    heads: Vec<HeadShape>,
    /// Of the generated samples, the negatives and the positives; none of the identity.
    values: [Values<B>; 3],
    /// By each head's features of the generated samples; none of the identity.
    grad: Vec<B::Array>,
    /// The negatives' weights for every location, where there is more than one.
    weights: B::Array,
}

#[derive(Debug)]
enum Kind {
    Identity,
    Patches(Patches),
    Fourier(Layer),
    Encoder(Vec<Layer>),
}

/// What is known of some samples.
#[derive(Debug)]
struct Values<B: Backend> {
    /// How many.
    n: usize,
    /// Of each head, [F, n, d].
    heads: Vec<B::Array>,
    /// What enters the nonlinearity of each layer, [n, out].
    before: Vec<B::Array>,
}

impl Kind {
    fn layers(&self) -> &[Layer] {
        match self {
            Self::Identity | Self::Patches(_) => &[],
            Self::Fourier(layer) => std::slice::from_ref(layer),
            Self::Encoder(layers) => layers,
        }
    }

    /// The features of samples.
    fn forward<B: Backend>(
        &self,
        backend: &mut B,
        parameters: &B::Array,
        x: &B::Array,
        to: &mut Values<B>,
    ) -> Result<()> {
        let Values { n, heads, before } = to;
        match self {
            Self::Identity => Ok(()),
            Self::Patches(patches) => {
                let (mean, deviation) = heads.split_at_mut(1);
                backend.patches(patches, *n, x, &mut mean[0], deviation.first_mut())
            }
            Self::Fourier(layer) => {
                backend.linear(layer, parameters, *n, x, None, &mut before[0])?;
                backend.cosine(*n * layer.output, amplitude(layer), &before[0], &mut heads[0])
            }
            Self::Encoder(layers) => {
                for (l, (layer, z)) in layers.iter().zip(before).enumerate() {
                    let (below, y) = heads.split_at_mut(l);
                    backend.hidden(layer, parameters, *n, below.last().unwrap_or(x), None, z, &mut y[0])?;
                }
                Ok(())
            }
        }
    }
}

/// sqrt(2 / count).
fn amplitude(layer: &Layer) -> f32 {
    (2.0 / layer.output as f32).sqrt()
}

impl<B: Backend> FeaturePass<B> {
    /// Room for the features of a step whose samples have the extents `shape`. What is random in them depends on `seed`.
    ///
    /// # Errors
    /// [`Error::Value`] and [`Error::Shape`] where there is no feature, one is not of such samples, or the identity comes
    /// twice; those of [`Backend`].
    pub fn new(backend: &B, features: &[Feature], shape: DriftShape, seed: u64) -> Result<Self> {
        if features.is_empty() {
            return Err(Error::value(OP, "features", "at least one", "none"));
        }
        if features.iter().filter(|feature| **feature == Feature::Identity).count() > 1 {
            return Err(Error::value(OP, "features", "the identity once at most", "it twice"));
        }
        let mut parameters = Vec::new();
        let mut maps = Vec::new();
        for (which, feature) in features.iter().enumerate() {
            feature.validate(shape.dim)?;
            let kind = kind(feature, shape.dim, seed, which as u64, &mut parameters)?;
            maps.push(Map::new(backend, kind, feature.heads(shape.dim), shape)?);
        }
        let n = shape.groups.saturating_mul(shape.generated);
        let layers = || maps.iter().flat_map(|map| map.kind.layers());
        let widest = layers().map(|layer| layer.input).max().unwrap_or(0);
        let columns = layers().map(|layer| layer.bias.column + layer.output).max().unwrap_or(0);
        Ok(Self {
            shape,
            parameters: backend.upload("the layers of features", &parameters)?,
            part: backend.array("the gradients of features", n.saturating_mul(widest))?,
            sums: backend.array("the gradients of features", backend.sums(n, columns))?,
            maps,
        })
    }

    /// The extents of every head's drift: F B groups of d coordinates.
    pub fn shapes(&self) -> Vec<DriftShape> {
        let heads = self.maps.iter().flat_map(|map| &map.heads);
        let shape = |head: &HeadShape| DriftShape {
            groups: head.locations.saturating_mul(self.shape.groups),
            dim: head.dim,
            ..self.shape
        };
        heads.map(shape).collect()
    }

    /// The features of generated samples [B, G, D] and of their targets.
    ///
    /// # Errors
    /// Those of [`Backend`].
    pub fn forward(&mut self, backend: &mut B, x: &B::Array, targets: &Targets<B::Array>) -> Result<()> {
        let DriftShape { groups, negatives, .. } = self.shape;
        for Map { kind, heads, values, weights, .. } in &mut self.maps {
            for (values, x) in values.iter_mut().zip([x, &targets.negatives, &targets.positives]) {
                kind.forward(backend, &self.parameters, x, values)?;
            }
            let locations = heads[0].locations;
            if locations > 1 && negatives > 0 {
                backend.tile(groups * negatives, locations, &targets.weights, weights)?;
            }
        }
        Ok(())
    }

    /// The heads after [`FeaturePass::forward`] of the same arrays, for [`Backend::gradient`]; that by the identity's
    /// goes to `by_x` itself.
    pub fn heads<'a>(
        &'a mut self,
        x: &'a B::Array,
        targets: &'a Targets<B::Array>,
        by_x: &'a mut B::Array,
    ) -> Vec<Head<'a, B::Array>> {
        let mut by_x = Some(by_x);
        let mut all = Vec::new();
        for Map { kind, heads, values, grad, weights } in &mut self.maps {
            if let Kind::Identity = kind {
                all.extend(by_x.take().map(|gradient| Head {
                    generated: x,
                    positives: &targets.positives,
                    negatives: [&targets.negatives, &targets.weights],
                    own: targets.own.as_ref(),
                    gradient,
                }));
                continue;
            }
            let [generated, negatives, positives] = &*values;
            for ((k, head), gradient) in heads.iter().enumerate().zip(grad) {
                let weights = if head.locations > 1 { &*weights } else { &targets.weights };
                all.push(Head {
                    generated: &generated.heads[k],
                    positives: &positives.heads[k],
                    negatives: [&negatives.heads[k], weights],
                    own: targets.own.as_ref(),
                    gradient,
                });
            }
        }
        all
    }

    /// Adds to `by_x` the gradient by the generated samples that comes from all heads but the identity's, which is there
    /// already; the gradients of the heads are used up.
    ///
    /// # Errors
    /// Those of [`Backend`].
    pub fn backward(&mut self, backend: &mut B, x: &B::Array, by_x: &mut B::Array) -> Result<()> {
        let Self { shape, maps, parameters, part, sums } = self;
        let n = shape.groups * shape.generated;
        if maps.iter().all(|map| !matches!(map.kind, Kind::Identity)) {
            backend.clear(by_x)?;
        }
        for Map { kind, values: [Values { heads, before, .. }, ..], grad, .. } in maps {
            match kind {
                Kind::Identity => {}
                Kind::Patches(patches) => {
                    let deviation = heads.get(1).zip(grad.get(1)).map(|(value, by)| [value, by]);
                    backend.patches_grad(patches, n, x, [&heads[0], &grad[0]], deviation, by_x)?;
                }
                Kind::Fourier(layer) => {
                    backend.cosine_grad(n * layer.output, amplitude(layer), &before[0], &mut grad[0])?;
                    backend.input_grad(layer, parameters, n, &grad[0], None, part, sums)?;
                    backend.add(n * layer.input, part, by_x)?;
                }
                Kind::Encoder(layers) => {
                    for (l, layer) in layers.iter().enumerate().rev() {
                        let (below, own) = grad.split_at_mut(l);
                        backend.silu_grad(&layer.bias, n, &before[l], &mut own[0], sums)?;
                        backend.input_grad(layer, parameters, n, &own[0], None, part, sums)?;
                        backend.add(n * layer.input, part, below.last_mut().unwrap_or(by_x))?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// A feature with its layers, whose parameters go to the end of `parameters`.
fn kind(feature: &Feature, dim: usize, seed: u64, which: u64, parameters: &mut Vec<f32>) -> Result<Kind> {
    let start = parameters.len();
    Ok(match feature {
        Feature::Identity => Kind::Identity,
        Feature::Patches(patches) => Kind::Patches(*patches),
        Feature::Fourier { count, bandwidth } => {
            let (layer, values) = fourier(dim, *count, *bandwidth, seed, which)?;
            parameters.extend(values);
            Kind::Fourier(layer.moved(start))
        }
        Feature::Encoder(encoder) => {
            parameters.extend(encoder.parameters());
            Kind::Encoder(encoder.layers().map(|layer| layer.moved(start)).collect())
        }
    })
}

impl<B: Backend> Map<B> {
    fn new(backend: &B, kind: Kind, heads: Vec<HeadShape>, shape: DriftShape) -> Result<Self> {
        let DriftShape { groups, generated, negatives, positives, .. } = shape;
        let own: &[HeadShape] = if let Kind::Identity = kind { &[] } else { &heads };
        let arrays = |n: usize| -> Result<Vec<B::Array>> {
            let array = |head: &HeadShape| {
                let numbers = head.locations.saturating_mul(head.dim).saturating_mul(n);
                backend.array("the features of a batch", numbers)
            };
            own.iter().map(array).collect()
        };
        let values = |count: usize| -> Result<_> {
            let n = groups.saturating_mul(count);
            let before = |layer: &Layer| backend.array("the features of a batch", n.saturating_mul(layer.output));
            Ok(Values { n, heads: arrays(n)?, before: kind.layers().iter().map(before).collect::<Result<_>>()? })
        };
        let locations = heads[0].locations;
        let repeated = if locations > 1 { groups.saturating_mul(negatives).saturating_mul(locations) } else { 0 };
        Ok(Self {
            values: [values(generated)?, values(negatives)?, values(positives)?],
            grad: arrays(groups.saturating_mul(generated))?,
            weights: backend.array("weights of negatives", repeated)?,
            kind,
            heads,
        })
    }
}
