//! Borrowed views of the samples of one call, with their shapes.

use crate::{Element, Error, Result};
use std::ops::Range;

/// Points in groups: a borrowed, contiguous array of shape [B, n, D].
#[derive(Clone, Copy, Debug)]
pub struct Points<'a, T> {
    data: &'a [T],
    shape: [usize; 3],
}

impl<'a, T> Points<'a, T> {
    /// A view of `data` as an array of `shape` = [B, n, D] in C order.
    ///
    /// # Errors
    /// [`Error::Shape`] where `data` does not have B · n · D elements.
    pub fn new(data: &'a [T], shape: [usize; 3]) -> Result<Self> {
        let expected = shape.iter().try_fold(1usize, |n, &k| n.checked_mul(k));
        if expected != Some(data.len()) {
            return Err(Error::shape("points", "data", shape, [data.len()]));
        }
        Ok(Self { data, shape })
    }

    /// [B, n, D].
    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// All elements, in C order.
    pub fn as_slice(&self) -> &'a [T] {
        self.data
    }

    /// The points of group `b`, [n, D].
    pub(crate) fn group(&self, b: usize) -> &'a [T] {
        let size = self.shape[1] * self.shape[2];
        &self.data[b * size..][..size]
    }

    fn groups(&self, range: Range<usize>) -> Self {
        let [_, n, d] = self.shape;
        Self { data: &self.data[range.start * n * d..range.end * n * d], shape: [range.len(), n, d] }
    }
}

/// The targets of one group in order: generated, negatives, positives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Targets<'a, T> {
    /// Each [n, D].
    pub(crate) blocks: [&'a [T]; 3],
    pub(crate) dim: usize,
}

impl<'a, T> Targets<'a, T> {
    /// The coordinates of target `j`, `[D]`.
    #[inline(always)]
    pub(crate) fn row(&self, j: usize) -> &'a [T] {
        let [first, second, third] = self.blocks;
        let (mut block, mut at) = (first, j * self.dim);
        if at >= block.len() {
            (block, at) = (second, at - block.len());
            if at >= block.len() {
                (block, at) = (third, at - block.len());
            }
        }
        &block[at..][..self.dim]
    }
}

/// The extents of one call (spec, notation).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DriftShape {
    /// B, groups; softmaxes never cross groups.
    pub groups: usize,
    /// G, generated samples per group; the queries.
    pub generated: usize,
    /// N, further negatives per group; may be 0.
    pub negatives: usize,
    /// P, positives per group; with 0 the force is 0.
    pub positives: usize,
    /// D, coordinates per sample.
    pub dim: usize,
}

impl DriftShape {
    /// T = G + N + P, targets per group.
    pub fn targets(&self) -> usize {
        self.generated.saturating_add(self.negatives).saturating_add(self.positives)
    }

    /// Checks the extents.
    ///
    /// # Errors
    /// [`Error::Value`] where G or D is 0; [`Error::TooLarge`] where an array would have more than `isize::MAX` bytes.
    pub fn validate(&self) -> Result<()> {
        if self.generated == 0 {
            return Err(Error::value("drift", "G, the number of generated samples per group,", "at least 1", 0));
        }
        if self.dim == 0 {
            return Err(Error::value("drift", "D, the number of coordinates,", "at least 1", 0));
        }
        let targets = self.generated.checked_add(self.negatives).and_then(|n| n.checked_add(self.positives));
        let widest = targets.and_then(|t| {
            let pairs = self.generated.checked_mul(t)?;
            let points = t.checked_mul(self.dim)?;
            pairs.max(points).checked_mul(self.groups.max(1))?.checked_mul(8)
        });
        match widest {
            Some(bytes) if isize::try_from(bytes).is_ok() => Ok(()),
            _ => Err(Error::TooLarge { op: "drift", what: "the problem", got: format!("{self:?}") }),
        }
    }
}

/// The samples and weights of one call.
///
/// Target order along T is [generated, negatives, positives]; the first two form the negative block.
#[derive(Clone, Copy, Debug)]
pub struct DriftInputs<'a, T> {
    generated: Points<'a, T>,
    positives: Points<'a, T>,
    negatives: Option<Points<'a, T>>,
    weight_generated: Option<&'a [f32]>,
    weight_negatives: Option<&'a [f32]>,
    weight_positives: Option<&'a [f32]>,
}

impl<'a, T: Copy> DriftInputs<'a, T> {
    /// Generated samples [B, G, D] and positives [B, P, D], without further negatives and with all weights 1.
    ///
    /// # Errors
    /// [`Error::Shape`] where B or D differ; the errors of [`DriftShape::validate`].
    pub fn new(generated: Points<'a, T>, positives: Points<'a, T>) -> Result<Self> {
        same_groups("positives", &generated, &positives)?;
        let this = Self {
            generated,
            positives,
            negatives: None,
            weight_generated: None,
            weight_negatives: None,
            weight_positives: None,
        };
        this.shape().validate()?;
        Ok(this)
    }

    /// Adds negatives [B, N, D].
    ///
    /// # Errors
    /// As [`DriftInputs::new`].
    pub fn negatives(mut self, negatives: Points<'a, T>) -> Result<Self> {
        same_groups("negatives", &self.generated, &negatives)?;
        self.negatives = Some(negatives);
        self.weight_negatives = None;
        self.shape().validate()?;
        Ok(self)
    }

    /// Sets the weights of the generated samples, [B, G].
    ///
    /// # Errors
    /// [`Error::Shape`] on a wrong length, [`Error::Value`] where a weight is negative or not finite.
    pub fn weight_generated(mut self, weights: &'a [f32]) -> Result<Self> {
        self.weight_generated = Some(self.weights("weight_generated", weights, self.shape().generated)?);
        Ok(self)
    }

    /// Sets the weights of the negatives, [B, N]; call it after [`DriftInputs::negatives`].
    ///
    /// # Errors
    /// As [`DriftInputs::weight_generated`].
    pub fn weight_negatives(mut self, weights: &'a [f32]) -> Result<Self> {
        self.weight_negatives = Some(self.weights("weight_negatives", weights, self.shape().negatives)?);
        Ok(self)
    }

    /// Sets the weights of the positives, [B, P].
    ///
    /// # Errors
    /// As [`DriftInputs::weight_generated`].
    pub fn weight_positives(mut self, weights: &'a [f32]) -> Result<Self> {
        self.weight_positives = Some(self.weights("weight_positives", weights, self.shape().positives)?);
        Ok(self)
    }

    fn weights(&self, argument: &'static str, weights: &'a [f32], count: usize) -> Result<&'a [f32]> {
        let groups = self.shape().groups;
        if weights.len() != groups * count {
            return Err(Error::shape("drift", argument, [groups, count], [weights.len()]));
        }
        match weights.iter().position(|w| !(*w >= 0.0 && w.is_finite())) {
            Some(at) => Err(Error::Value {
                op: "drift",
                argument,
                expected: "finite and >= 0 everywhere".to_owned(),
                got: format!("{} at group {}, sample {}", weights[at], at / count, at % count),
            }),
            None => Ok(weights),
        }
    }

    /// The extents.
    pub fn shape(&self) -> DriftShape {
        let [groups, generated, dim] = self.generated.shape();
        DriftShape {
            groups,
            generated,
            negatives: self.negatives.map_or(0, |n| n.shape()[1]),
            positives: self.positives.shape()[1],
            dim,
        }
    }

    /// The groups in `range` alone: a call on each part of B, with the partial statistics merged in order, gives the
    /// bits of the one call.
    ///
    /// # Errors
    /// [`Error::Value`] where `range` is not within 0..B.
    pub fn groups(&self, range: Range<usize>) -> Result<Self> {
        let shape = self.shape();
        if range.start > range.end || range.end > shape.groups {
            let expected = format!("a range within 0..{}", shape.groups);
            return Err(Error::value("drift", "the range of groups", expected, format!("{range:?}")));
        }
        let weights = |w: Option<&'a [f32]>, n: usize| w.map(|w| &w[range.start * n..range.end * n]);
        Ok(Self {
            generated: self.generated.groups(range.clone()),
            positives: self.positives.groups(range.clone()),
            negatives: self.negatives.map(|n| n.groups(range.clone())),
            weight_generated: weights(self.weight_generated, shape.generated),
            weight_negatives: weights(self.weight_negatives, shape.negatives),
            weight_positives: weights(self.weight_positives, shape.positives),
        })
    }

    /// The generated samples [B, G, D].
    pub fn generated(&self) -> Points<'a, T> {
        self.generated
    }

    /// The samples of all groups, generated, negatives, positives, each with its weights.
    #[cfg(feature = "cuda")]
    pub(crate) fn blocks(&self) -> [(&'a [T], Option<&'a [f32]>); 3] {
        [
            (self.generated.as_slice(), self.weight_generated),
            (self.negatives.map_or(&[][..], |n| n.as_slice()), self.weight_negatives),
            (self.positives.as_slice(), self.weight_positives),
        ]
    }

    /// The targets of group `b`; none where there is no such group.
    pub(crate) fn targets(&self, b: usize) -> Targets<'a, T> {
        let [groups, _, dim] = self.generated.shape;
        let all = [Some(self.generated), self.negatives, Some(self.positives)];
        let blocks = all.map(|points| points.filter(|_| b < groups).map_or(&[][..], |points| points.group(b)));
        Targets { blocks, dim }
    }

    /// The coordinates of target `j` of group `b`, `[D]`.
    pub(crate) fn target(&self, b: usize, j: usize) -> &'a [T] {
        self.targets(b).row(j)
    }

    /// Whether no weights were given, so that all are 1.
    pub(crate) fn unweighted(&self) -> bool {
        self.weight_generated.is_none() && self.weight_negatives.is_none() && self.weight_positives.is_none()
    }

    /// The weight of target `j` of group `b`.
    pub(crate) fn weight(&self, b: usize, j: usize) -> f32 {
        let shape = self.shape();
        let pick = |w: Option<&[f32]>, n: usize, j: usize| w.map_or(1.0, |w| w[b * n + j]);
        if j < shape.generated {
            pick(self.weight_generated, shape.generated, j)
        } else if j < shape.generated + shape.negatives {
            pick(self.weight_negatives, shape.negatives, j - shape.generated)
        } else {
            pick(self.weight_positives, shape.positives, j - shape.generated - shape.negatives)
        }
    }
}

impl<T: Element> DriftInputs<'_, T> {
    /// How many of the input elements are NaN or infinite.
    pub(crate) fn nonfinite_in_group(&self, b: usize) -> u64 {
        let count = |block: &[T]| block.iter().filter(|v| !v.to_f32().is_finite()).count() as u64;
        self.targets(b).blocks.into_iter().map(count).sum()
    }
}

fn same_groups<T>(argument: &'static str, generated: &Points<'_, T>, other: &Points<'_, T>) -> Result<()> {
    let [b, _, d] = generated.shape();
    let [b2, n, d2] = other.shape();
    if (b, d) == (b2, d2) { Ok(()) } else { Err(Error::shape("drift", argument, [b, n, d], [b2, n, d2])) }
}
