//! A caller's arrays.

use crate::status::{Refusal, null};
use drift::{DriftInputs, DriftShape, Points};
use std::borrow::Cow;

/// Type of samples: IEEE binary32.
pub const CUDRIFT_F32: u32 = 0;
/// Type of samples: IEEE binary16.
pub const CUDRIFT_F16: u32 = 1;
/// Type of samples: the upper half of a binary32.
pub const CUDRIFT_BF16: u32 = 2;
/// Type of samples: IEEE binary64. For judging results: slow, on the CPU alone, in one call without phases.
pub const CUDRIFT_F64: u32 = 3;

/// B groups of G generated samples, N further negatives (may be 0) and P positives (may be 0), of D coordinates.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct cudrift_shape {
    /// B
    pub groups: i64,
    /// G
    pub generated: i64,
    /// N
    pub negatives: i64,
    /// P
    pub positives: i64,
    /// D
    pub dim: i64,
}

/// Samples [B, n, D] of the plan's type.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct cudrift_points {
    /// The first coordinate of the first sample; null where there are none.
    pub data: *const std::ffi::c_void,
    /// How many elements further the next group, sample and coordinate are: three numbers, which may be negative or 0. Null
    /// where there are no gaps: then nothing is copied.
    pub strides: *const i64,
}

/// The samples of a call, and their weights [B, n] without gaps, each null where all are 1.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct cudrift_inputs {
    /// [B, G, D]
    pub generated: cudrift_points,
    /// [B, N, D]
    pub negatives: cudrift_points,
    /// [B, P, D]
    pub positives: cudrift_points,
    /// [B, G]
    pub weight_generated: *const f32,
    /// [B, N]
    pub weight_negatives: *const f32,
    /// [B, P]
    pub weight_positives: *const f32,
}

impl cudrift_shape {
    pub(crate) fn shape(&self) -> Result<DriftShape, Refusal> {
        let extent = |name: &str, value: i64| {
            usize::try_from(value)
                .map_err(|_| Refusal::invalid(format!("libcudrift: shape.{name} is {value}, expected 0 or more")))
        };
        Ok(DriftShape {
            groups: extent("groups", self.groups)?,
            generated: extent("generated", self.generated)?,
            negatives: extent("negatives", self.negatives)?,
            positives: extent("positives", self.positives)?,
            dim: extent("dim", self.dim)?,
        })
    }
}

/// Where the inputs of a call are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    data: [usize; 3],
    strides: [Option<[i64; 3]>; 3],
    weights: [usize; 3],
}

/// The samples of a call, those with gaps gathered.
pub(crate) struct Gathered<'a, T: Clone> {
    shape: DriftShape,
    pub(crate) points: [Cow<'a, [T]>; 3],
    weights: [Option<&'a [f32]>; 3],
}

impl cudrift_inputs {
    /// # Safety
    /// Strides are null or point to three numbers.
    pub(crate) unsafe fn place(&self) -> Place {
        let points = [&self.generated, &self.negatives, &self.positives];
        let weights = [self.weight_generated, self.weight_negatives, self.weight_positives];
        Place {
            data: points.map(|points| points.data as usize),
            // SAFETY: by # Safety.
            strides: points.map(|points| unsafe { points.strides.cast::<[i64; 3]>().as_ref() }.copied()),
            weights: weights.map(|pointer| pointer as usize),
        }
    }

    /// # Safety
    /// Every array has the extents of `shape` and lives as long as what is returned.
    pub(crate) unsafe fn gather<'a, T: Copy>(&self, shape: &DriftShape) -> Result<Gathered<'a, T>, Refusal> {
        let counts = [shape.generated, shape.negatives, shape.positives];
        let points = [&self.generated, &self.negatives, &self.positives];
        let names = ["generated", "negatives", "positives"];
        let of = |k: usize| {
            // SAFETY: by # Safety, every array has the extents of the shape and lives as long as what is returned.
            unsafe { gathered::<T>(names[k], points[k], [shape.groups, counts[k], shape.dim]) }
        };
        let weights = [self.weight_generated, self.weight_negatives, self.weight_positives];
        if let Some(k) = weights.iter().position(|weights| !weights.is_aligned()) {
            return Err(misaligned(&format!("inputs.weight_{}", names[k]), align_of::<f32>()));
        }
        let weights = [0, 1, 2].map(|k| {
            // SAFETY: by # Safety, a weight array that is not null has a number for each sample of the shape; it is aligned.
            (!weights[k].is_null()).then(|| unsafe { std::slice::from_raw_parts(weights[k], shape.groups * counts[k]) })
        });
        Ok(Gathered { shape: *shape, points: [of(0)?, of(1)?, of(2)?], weights })
    }
}

pub(crate) fn misaligned(name: &str, bytes: usize) -> Refusal {
    Refusal::invalid(format!("libcudrift: {name} is no multiple of {bytes} bytes"))
}

/// # Safety
/// The array has these extents, strides and alignment, and lives as long.
unsafe fn gathered<'a, T: Copy>(
    name: &str,
    points: &cudrift_points,
    [groups, count, dim]: [usize; 3],
) -> Result<Cow<'a, [T]>, Refusal> {
    let len = groups * count * dim; // the plan has compared them
    if len == 0 {
        return Ok(Cow::Borrowed(&[]));
    }
    if points.data.is_null() {
        return Err(null(&format!("inputs.{name}.data")));
    }
    let data = points.data.cast::<T>();
    if !data.is_aligned() {
        return Err(misaligned(&format!("inputs.{name}.data"), align_of::<T>()));
    }
    let whole = [(count * dim) as i64, dim as i64, 1];
    // SAFETY: by the header, strides are null or point to three numbers.
    let strides = unsafe { points.strides.cast::<[i64; 3]>().as_ref() }.copied().unwrap_or(whole);
    let same = |k: usize, extent: usize| extent == 1 || strides[k] == whole[k];
    if same(0, groups) && same(1, count) && same(2, dim) {
        // SAFETY: without gaps the array has `len` elements (# Safety); it is aligned and not null, as compared above.
        return Ok(Cow::Borrowed(unsafe { std::slice::from_raw_parts(data, len) }));
    }
    let [by_group, by_sample, by_coordinate] = strides.map(|stride| stride as isize);
    let mut values = Vec::new();
    if values.try_reserve_exact(len).is_err() {
        return Err(
            drift::Error::TooLarge { op: "libcudrift", what: "a copy without gaps", got: name.to_owned() }.into()
        );
    }
    for group in 0..groups as isize {
        for sample in 0..count as isize {
            // SAFETY: by # Safety, the array has an element at every place that its extents and strides lead to.
            let first = unsafe { data.offset(group * by_group + sample * by_sample) };
            // SAFETY: as above, for every coordinate.
            values.extend((0..dim as isize).map(|k| unsafe { *first.offset(k * by_coordinate) }));
        }
    }
    Ok(Cow::Owned(values))
}

impl<T: Copy> Gathered<'_, T> {
    pub(crate) fn inputs(&self) -> drift::Result<DriftInputs<'_, T>> {
        let DriftShape { groups, generated, negatives, positives, dim } = self.shape;
        let [x, n, p] = &self.points;
        let [weight_x, weight_n, weight_p] = self.weights;
        let of = |values, count: usize| Points::new(values, [groups, count, dim]);
        let mut inputs = DriftInputs::new(of(x, generated)?, of(p, positives)?)?;
        if negatives > 0 {
            inputs = inputs.negatives(of(n, negatives)?)?;
            if let Some(weights) = weight_n {
                inputs = inputs.weight_negatives(weights)?;
            }
        }
        if let Some(weights) = weight_x {
            inputs = inputs.weight_generated(weights)?;
        }
        match weight_p {
            Some(weights) => inputs.weight_positives(weights),
            None => Ok(inputs),
        }
    }
}
