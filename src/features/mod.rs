//! Features: frozen maps of the samples, in which a drift is computed in the place of the samples themselves (spec 4).
//!
//! A map gives one head or several; each has a drift with a length scale and root mean squares of its own, and their
//! losses are added (spec 2.2 (9)). The gradient goes back through the map to the samples. No map learns.
//!
//! A head of F locations and d coordinates is [F, n, d]: with n = B G samples these are F B groups, since the softmaxes of
//! a drift mix neither groups nor locations.

mod encoder;
mod pass;

pub use encoder::Encoder;
pub use pass::FeaturePass;

use crate::generator::{Architecture, Layer};
use crate::rng::{Purpose, Stream};
use crate::{Error, Result};

const OP: &str = "features";

/// A frozen map of samples.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub enum Feature {
    /// The samples themselves, in one location (spec 4.1 (a), "global").
    Identity,
    /// Means of square patches of images, and their standard deviations; a location is a patch, its coordinates are the
    /// channels (spec 4.1 (b), `_mean_s` and `_std_s`).
    Patches(Patches),
    /// Random Fourier features: `sqrt(2 / count) cos(w · x / bandwidth + b)` with standard normal w and uniform b, whose
    /// products approximate the Gaussian kernel of that bandwidth. Source: Rahimi and Recht, "Random features for
    /// large-scale kernel machines", 2007.
    Fourier {
        /// How many.
        count: usize,
        /// In units of the samples.
        bandwidth: f64,
    },
    /// Every layer of a trained network.
    Encoder(Encoder),
}

/// Square patches of images [height, width, channels] in C order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patches {
    /// Pixels along an edge of a patch; 1 for the pixels themselves, which have no deviations.
    pub size: usize,
    /// Pixels from top to bottom.
    pub height: usize,
    /// Pixels from left to right.
    pub width: usize,
    /// Numbers of a pixel.
    pub channels: usize,
}

impl Patches {
    /// Patches of an image.
    pub(crate) fn count(&self) -> usize {
        (self.height / self.size) * (self.width / self.size)
    }

    pub(crate) fn pixels(&self) -> usize {
        self.height * self.width
    }

    /// The pixels of a patch, in rows.
    pub(crate) fn pixels_of(&self, patch: usize) -> impl Iterator<Item = usize> + use<> {
        let Self { size, width, .. } = *self;
        let wide = width / size;
        let first = patch / wide * size * width + patch % wide * size;
        (0..size * size).map(move |k| first + k / size * width + k % size)
    }

    fn validate(&self, dim: usize) -> Result<()> {
        let Self { size, height, width, channels } = *self;
        if height.checked_mul(width).and_then(|pixels| pixels.checked_mul(channels)) != Some(dim) {
            return Err(Error::shape(OP, "images", [height, width, channels], [dim]));
        }
        if size == 0 || !height.is_multiple_of(size) || !width.is_multiple_of(size) {
            let expected = format!("a divisor of the images' height {height} and width {width}");
            return Err(Error::value(OP, "the size of patches", expected, size));
        }
        Ok(())
    }
}

/// Locations and coordinates of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HeadShape {
    pub(crate) locations: usize,
    pub(crate) dim: usize,
}

impl Feature {
    /// Refuses what cannot be a map of samples of `dim` coordinates.
    pub(crate) fn validate(&self, dim: usize) -> Result<()> {
        match self {
            Self::Identity => Ok(()),
            Self::Patches(patches) => patches.validate(dim),
            Self::Fourier { count: 0, .. } => Err(Error::value(OP, "the number of Fourier features", "at least 1", 0)),
            Self::Fourier { bandwidth, .. } if !(*bandwidth > 0.0 && bandwidth.is_finite()) => {
                Err(Error::value(OP, "the bandwidth of Fourier features", "a finite number > 0", bandwidth))
            }
            Self::Fourier { .. } => Ok(()),
            Self::Encoder(encoder) if encoder.input_dim() != dim => {
                Err(Error::shape(OP, "the encoder's inputs", [dim], [encoder.input_dim()]))
            }
            Self::Encoder(_) => Ok(()),
        }
    }

    /// Its heads, for samples of `dim` coordinates.
    pub(crate) fn heads(&self, dim: usize) -> Vec<HeadShape> {
        let global = |dim: usize| HeadShape { locations: 1, dim };
        match self {
            Self::Identity => vec![global(dim)],
            Self::Patches(patches) => {
                let head = HeadShape { locations: patches.count(), dim: patches.channels };
                vec![head; if patches.size > 1 { 2 } else { 1 }]
            }
            Self::Fourier { count, .. } => vec![global(*count)],
            Self::Encoder(encoder) => encoder.layers().map(|layer| global(layer.output)).collect(),
        }
    }

    /// Numbers that a sample's features take, with what is kept for the way back.
    pub(crate) fn numbers(&self, dim: usize) -> usize {
        let kept = usize::from(!matches!(self, Self::Identity)) * 3;
        self.heads(dim).iter().fold(0, |sum: usize, head| {
            sum.saturating_add(head.locations.saturating_mul(head.dim).saturating_mul(kept))
        })
    }
}

/// The layer of Fourier features, in full turns, and its parameters.
fn fourier(dim: usize, count: usize, bandwidth: f64, seed: u64, which: u64) -> Result<(Layer, Vec<f32>)> {
    let architecture = Architecture::plain(dim, &[], count);
    let len = architecture.parameters()?;
    Error::check_memory(OP, "the set of Fourier features", len.checked_mul(size_of::<f32>()))?;
    let mut stream = Stream::new(seed, Purpose::Features, which);
    let rate = (1.0 / (std::f64::consts::TAU * bandwidth)) as f32;
    let mut parameters: Vec<f32> = (0..dim * count).map(|_| rate * stream.normal()).collect();
    parameters.extend((0..count).map(|_| stream.uniform()));
    Ok((architecture.layers().last, parameters))
}
