//! Training along a field in the place of a drift: kernels/transport.cu, after the field's own launches.

use std::sync::Arc;

use cudarc::driver::{
    CudaFunction, CudaSlice, CudaStream, CudaViewMut, DevicePtr, DeviceRepr, LaunchConfig, PushKernelArg,
};

use super::context::{failed, room};
use super::device::{DeviceArray, OP};
use super::launch::Kernels;
use super::params::{self, RandomStream, TrainProgress, TransportCall};
use super::{DeviceProjection, FieldArrays, FieldOutputs, FieldPlan, Options, SlicedArrays, SlicedPlan};
use crate::backend::Head;
use crate::rng::Purpose;
use crate::train::{Along, Transport};
use crate::{DriftShape, Dtype, Error, FieldSpec, Result, Velocity};

const THREADS: usize = params::kThreads as usize;
const BLOCKS: usize = params::kSquareBlocks as usize;

// SAFETY: `repr(C)`, made from the header that the kernels are compiled with; passed by value.
unsafe impl DeviceRepr for TransportCall {}

/// Fields on a device, of one head or several.
#[derive(Debug)]
pub(super) struct Fields {
    field: Transport,
    seed: u64,
    heads: Vec<FieldHead>,
    functions: Functions,
}

#[derive(Debug)]
struct Functions {
    normals: CudaFunction,
    unit_directions: CudaFunction,
    add_noise: CudaFunction,
}

/// The end of every step along a field, whoever made it: V, then the gradient in its place and the loss.
#[derive(Debug)]
pub(super) struct Regression {
    velocity: CudaFunction,
    regress: CudaFunction,
    squares: CudaSlice<f64>,
}

impl Regression {
    pub(super) fn new(stream: &Arc<CudaStream>, kernels: &Kernels) -> Result<Self> {
        Ok(Self {
            velocity: kernels.function("velocity")?,
            regress: kernels.function("regress")?,
            squares: room(stream, OP, "sums of squares", BLOCKS)?,
        })
    }

    /// Appends it.
    pub(super) fn launch(&self, stream: &Arc<CudaStream>, call: TransportCall) -> Result<()> {
        let call = TransportCall {
            norm_floor: Transport::NORM_FLOOR,
            squares: self.squares.device_ptr(stream).0 as *mut _,
            ..call
        };
        let blocks = (call.count as usize).div_ceil(THREADS).min(BLOCKS);
        for (name, function) in [("velocity", &self.velocity), ("regress", &self.regress)] {
            // SAFETY: the call's arrays are as long as its extents say, and belong to this stream's context.
            unsafe { stream.launch_builder(function).arg(&call).launch(threads(blocks * THREADS)?) }
                .map_err(|error| failed(name, error))?;
        }
        Ok(())
    }
}

#[derive(Debug)]
struct FieldHead {
    /// Of one group.
    plan: GroupPlan,
    shape: DriftShape,
    workspace: CudaSlice<u8>,
    /// Of all groups: numbers [B, 2, 4, G] or directions [L, D], and fields [B, G, D].
    numbers: CudaSlice<f32>,
    towards_p: CudaSlice<f32>,
    towards_q: CudaSlice<f32>,
    /// Samples with noise [B, G, D], and its deviation, where V is taken there.
    noised: Option<(CudaSlice<f32>, f32)>,
}

#[derive(Debug)]
enum GroupPlan {
    Kernel(FieldPlan, Velocity),
    Sliced(SlicedPlan, usize),
    /// The repulsion, and the attraction.
    Projected(FieldPlan, Box<DeviceProjection>),
}

impl GroupPlan {
    fn new(field: &Transport, shape: &DriftShape, kernels: &Kernels, stream: &Arc<CudaStream>) -> Result<Self> {
        let DriftShape { generated, positives, negatives, dim, .. } = *shape;
        // What q has, where it is not the queries.
        let others = match field.along {
            Along::Kernel { noised: true, .. } if negatives == 0 => generated,
            _ => negatives,
        };
        let plan = |spec: &FieldSpec, positives: usize| {
            let options = Options { shared_bytes: kernels.shared_bytes(), ..Options::default() };
            FieldPlan::new(spec, [generated, positives, others, dim], Dtype::F32, options)
        };
        Ok(match (&field.along, field.own(shape)) {
            (Along::Kernel { velocity, .. }, Some(spec)) => Self::Kernel(plan(&spec, positives)?, *velocity),
            // A field has a p; the one landmark of this one is not asked for.
            (Along::Projected(projection), Some(spec)) => {
                Self::Projected(plan(&spec, 1)?, Box::new(DeviceProjection::new(kernels, stream, projection)?))
            }
            (Along::Sliced { directions }, _) => {
                let shape = [generated, positives, *directions, dim];
                Self::Sliced(SlicedPlan::new(kernels, shape, Dtype::F32)?, *directions)
            }
            _ => return Err(Transport::missing()),
        })
    }

    fn workspace_bytes(&self) -> usize {
        match self {
            Self::Kernel(plan, _) | Self::Projected(plan, _) => plan.workspace_bytes(),
            Self::Sliced(plan, _) => plan.workspace_bytes(),
        }
    }

    /// Whether V comes of two arrays, with factors of their own.
    fn has_two(&self) -> bool {
        !matches!(self, Self::Sliced(..) | Self::Kernel(_, Velocity::MeanShift | Velocity::Score))
    }
}

impl Fields {
    pub(super) fn new(
        stream: &Arc<CudaStream>,
        kernels: &Kernels,
        field: &Transport,
        shapes: &[DriftShape],
        seed: u64,
    ) -> Result<Self> {
        let head = |shape: &DriftShape| -> Result<FieldHead> {
            field.check(shape)?;
            let plan = GroupPlan::new(field, shape, kernels, stream)?;
            let samples = shape.groups * shape.generated;
            let second = if plan.has_two() { samples * shape.dim } else { 0 };
            let numbers = match plan {
                GroupPlan::Kernel(..) | GroupPlan::Projected(..) => 8 * samples,
                GroupPlan::Sliced(_, directions) => directions * shape.dim,
            };
            let noised = match (&field.along, field.own(shape)) {
                (Along::Kernel { noised: true, .. }, Some(FieldSpec { bandwidth, .. })) => {
                    Some((room(stream, OP, "samples with noise", samples * shape.dim)?, bandwidth as f32))
                }
                _ => None,
            };
            Ok(FieldHead {
                noised,
                shape: *shape,
                workspace: room(stream, OP, "the workspace of a field", plan.workspace_bytes())?,
                numbers: room(stream, OP, "the numbers of a field", numbers)?,
                towards_p: room(stream, OP, "a field", samples * shape.dim)?,
                towards_q: room(stream, OP, "a field", second)?,
                plan,
            })
        };
        let functions = Functions {
            normals: kernels.function("normals")?,
            unit_directions: kernels.function("unit_directions")?,
            add_noise: kernels.function("add_noise")?,
        };
        let heads = shapes.iter().map(head).collect::<Result<_>>()?;
        Ok(Self { field: field.clone(), seed, heads, functions })
    }

    pub(super) fn shapes(&self) -> impl Iterator<Item = DriftShape> + '_ {
        self.heads.iter().map(|head| head.shape)
    }

    pub(super) fn set_bandwidth(
        &mut self,
        stream: &Arc<CudaStream>,
        kernels: &Kernels,
        temperatures: &[f64],
    ) -> Result<()> {
        self.field.set_bandwidth(temperatures)?;
        for head in &mut self.heads {
            head.plan = GroupPlan::new(&self.field, &head.shape, kernels, stream)?;
            if let Some((_, deviation)) = &mut head.noised {
                *deviation = temperatures[0] as f32;
            }
        }
        Ok(())
    }

    /// Appends the gradients of all heads, and the sum of their losses.
    pub(super) fn gradient(
        &mut self,
        stream: &Arc<CudaStream>,
        kernels: &Kernels,
        regression: &Regression,
        arrays: &mut [Head<'_, DeviceArray>],
        progress: &CudaSlice<TrainProgress>,
    ) -> Result<()> {
        if arrays.len() != self.heads.len() {
            return Err(Error::shape(OP, "heads", [self.heads.len()], [arrays.len()]));
        }
        let Self { field, seed, heads, functions } = self;
        let progress = progress.device_ptr(stream).0;
        let key = [*seed as u32, (*seed >> 32) as u32];
        let normals = |purpose: Purpose, to: &CudaSlice<f32>, count: usize| -> Result<u64> {
            let random = RandomStream { key, purpose: purpose as u32, progress: progress as *const _ };
            let place = to.device_ptr(stream).0;
            let numbers = count as i64;
            let mut builder = stream.launch_builder(&functions.normals);
            builder.arg(&random).arg(&numbers).arg(&place);
            // SAFETY: as many normals as the array has; it belongs to this stream's context.
            unsafe { builder.launch(threads(count.div_ceil(4))?) }.map_err(|error| failed("normals", error))?;
            Ok(place)
        };
        for (at, (head, arrays)) in heads.iter_mut().zip(arrays).enumerate() {
            let DriftShape { groups, generated, dim, .. } = head.shape;
            if let GroupPlan::Sliced(_, directions) = head.plan {
                let thetas = normals(Purpose::Directions, &head.numbers, directions * dim)?;
                let (count, dim) = (directions as i32, dim as i32); // the plan has compared them
                let mut builder = stream.launch_builder(&functions.unit_directions);
                builder.arg(&count).arg(&dim).arg(&thetas);
                // SAFETY: as above; the array is [directions, dim].
                unsafe { builder.launch(threads(directions)?) }.map_err(|error| failed("unit_directions", error))?;
            }
            if let Some((samples, deviation)) = &head.noised {
                let count = groups * generated * dim;
                let place = normals(Purpose::Queries, samples, count)?;
                let (x, numbers) = (arrays.generated.first(count)?, count as i64);
                let mut builder = stream.launch_builder(&functions.add_noise);
                builder.arg(&numbers).arg(deviation).arg(&x).arg(&place);
                // SAFETY: as above; both arrays have `count` numbers.
                unsafe { builder.launch(threads(count)?) }.map_err(|error| failed("add_noise", error))?;
            }
            let call = TransportCall {
                first: i32::from(at == 0),
                progress: progress as *mut _,
                ..head.fields(field, stream, kernels, arrays)?
            };
            regression.launch(stream, call)?;
        }
        Ok(())
    }
}

/// A launch of so many threads or more.
fn threads(count: usize) -> Result<LaunchConfig> {
    let blocks = u32::try_from(count.div_ceil(THREADS)).ok().filter(|blocks| *blocks <= i32::MAX as u32);
    let blocks = blocks.ok_or_else(|| Error::TooLarge { op: OP, what: "a launch", got: format!("{count} threads") })?;
    Ok(LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (THREADS as u32, 1, 1), shared_mem_bytes: 0 })
}

impl FieldHead {
    /// Appends the field of every group; what V is made from.
    fn fields(
        &mut self,
        field: &Transport,
        stream: &Arc<CudaStream>,
        kernels: &Kernels,
        arrays: &mut Head<'_, DeviceArray>,
    ) -> Result<TransportCall> {
        let DriftShape { groups, generated, positives, negatives, dim } = self.shape;
        let (each, data, other) = (generated * dim, positives * dim, negatives * dim);
        let own = arrays.generated.view(groups * each)?;
        let (p, others) = (arrays.positives.view(groups * data)?, arrays.negatives[0].view(groups * other)?);
        let queries = match &self.noised {
            Some((samples, _)) => samples.slice(..groups * each),
            None => arrays.generated.view(groups * each)?,
        };
        let two = self.plan.has_two();
        for group in 0..groups {
            let range = group * each..(group + 1) * each;
            let (x, p) = (queries.slice(range.clone()), p.slice(group * data..(group + 1) * data));
            let q = match (negatives, &self.noised) {
                (0, None) => None,
                (0, Some(_)) => Some(own.slice(range.clone()).into()),
                _ => Some(others.slice(group * other..(group + 1) * other).into()),
            };
            let mut towards_p = self.towards_p.slice_mut(range.clone());
            let numbers = match &self.plan {
                GroupPlan::Sliced(..) => 0..0,
                _ => 8 * group * generated..8 * (group + 1) * generated,
            };
            match &self.plan {
                GroupPlan::Kernel(plan, velocity) => {
                    let towards_q = if two { Some(self.towards_q.slice_mut(range)) } else { None };
                    let outputs = outputs(*velocity, self.numbers.slice_mut(numbers), towards_p, towards_q);
                    let (x, p) = (x.into(), p.into());
                    let arrays = FieldArrays { x, p, q, weight_p: None, weight_q: None, bandwidths: None };
                    plan.run(kernels, stream, arrays, &mut self.workspace, outputs)?;
                }
                GroupPlan::Projected(plan, projection) => {
                    projection.run(stream, &x, &mut towards_p)?;
                    let outputs = FieldOutputs {
                        ms_q: Some(self.towards_q.slice_mut(range)),
                        ..FieldOutputs::of(self.numbers.slice_mut(numbers))
                    };
                    let (x, p) = (x.into(), projection.landmarks().slice(..dim).into());
                    let arrays = FieldArrays { x, p, q, weight_p: None, weight_q: None, bandwidths: None };
                    plan.run(kernels, stream, arrays, &mut self.workspace, outputs)?;
                }
                GroupPlan::Sliced(plan, directions) => {
                    let directions = self.numbers.slice(..directions * dim);
                    plan.run(stream, &SlicedArrays { x, p, directions }, &mut self.workspace, &mut towards_p)?;
                }
            }
        }
        let address = |slice: &CudaSlice<f32>| slice.device_ptr(stream).0 as *const f32;
        let mut call = TransportCall {
            count: (groups * each) as i64,
            generated: generated as i32, // the plan has compared them
            dim: dim as i32,
            velocity: params::VelocityKind_kOneProduct,
            normalize: field.normalize.into(),
            step: field.step,
            towards_p: address(&self.towards_p),
            numbers: address(&self.numbers),
            gradient: arrays.gradient.first(groups * each)? as *mut _,
            ..TransportCall::default()
        };
        if two {
            call.towards_q = address(&self.towards_q);
        }
        if let (Along::Kernel { velocity, .. }, Some(spec)) = (&field.along, field.own(&self.shape)) {
            let seen = if negatives > 0 { negatives } else { generated - usize::from(spec.self_mask) };
            (call.log_total_p, call.log_total_q) = ((positives as f64).ln() as f32, (seen as f64).ln() as f32);
            call.velocity = match velocity {
                Velocity::MeanShift | Velocity::Score => params::VelocityKind_kOneProduct,
                Velocity::Sharp => params::VelocityKind_kSharp,
                Velocity::Mmd => params::VelocityKind_kMmd,
                Velocity::ForwardKl { .. } => params::VelocityKind_kForwardKl,
                Velocity::ChiSquared { .. } => params::VelocityKind_kChiSquared,
            };
            if let Velocity::ForwardKl { most } | Velocity::ChiSquared { most } = velocity {
                call.most = *most as f32;
            }
        }
        Ok(call)
    }
}

/// The products that a velocity is made from.
fn outputs<'a>(
    velocity: Velocity,
    numbers: CudaViewMut<'a, f32>,
    towards_p: CudaViewMut<'a, f32>,
    towards_q: Option<CudaViewMut<'a, f32>>,
) -> FieldOutputs<'a> {
    let mut outputs = FieldOutputs::of(numbers);
    let towards_p = Some(towards_p);
    match velocity {
        Velocity::MeanShift => outputs.drift = towards_p,
        Velocity::Score => outputs.score_diff = towards_p,
        Velocity::Sharp => (outputs.ms_p, outputs.ms_q) = (towards_p, towards_q),
        _ => (outputs.score_p, outputs.score_q) = (towards_p, towards_q),
    }
    outputs
}
