//! Training along a field in the place of a drift: kernels/transport.cu, after the field's own launches.

use std::sync::Arc;

use cudarc::driver::{
    CudaFunction, CudaSlice, CudaStream, CudaViewMut, DevicePtr, DeviceRepr, LaunchConfig, PushKernelArg,
};

use super::context::{failed, room};
use super::device::{DeviceArray, OP};
use super::launch::Kernels;
use super::params::{self, RandomStream, TrainProgress, TransportCall};
use super::{FieldArrays, FieldOutputs, FieldPlan, Options, SlicedArrays, SlicedPlan};
use crate::backend::Head;
use crate::rng::Purpose;
use crate::train::{Along, Transport};
use crate::{DriftShape, Dtype, Error, Result, Velocity};

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
    squares: CudaSlice<f64>,
}

#[derive(Debug)]
struct Functions {
    normals: CudaFunction,
    unit_directions: CudaFunction,
    velocity: CudaFunction,
    regress: CudaFunction,
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
}

#[derive(Debug)]
enum GroupPlan {
    Kernel(FieldPlan, Velocity),
    Sliced(SlicedPlan, usize),
}

impl GroupPlan {
    fn new(field: &Transport, shape: &DriftShape, kernels: &Kernels) -> Result<Self> {
        let DriftShape { generated, positives, dim, .. } = *shape;
        Ok(match &field.along {
            Along::Kernel { spec, velocity } => {
                let options = Options { shared_bytes: kernels.shared_bytes(), ..Options::default() };
                Self::Kernel(FieldPlan::new(spec, [generated, positives, 0, dim], Dtype::F32, options)?, *velocity)
            }
            Along::Sliced { directions } => {
                let shape = [generated, positives, *directions, dim];
                Self::Sliced(SlicedPlan::new(kernels, shape, Dtype::F32)?, *directions)
            }
        })
    }

    fn workspace_bytes(&self) -> usize {
        match self {
            Self::Kernel(plan, _) => plan.workspace_bytes(),
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
        field.validate()?;
        let head = |shape: &DriftShape| -> Result<FieldHead> {
            let plan = GroupPlan::new(field, shape, kernels)?;
            let samples = shape.groups * shape.generated;
            let second = if plan.has_two() { samples * shape.dim } else { 0 };
            let numbers = match plan {
                GroupPlan::Kernel(..) => 8 * samples,
                GroupPlan::Sliced(_, directions) => directions * shape.dim,
            };
            Ok(FieldHead {
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
            velocity: kernels.function("velocity")?,
            regress: kernels.function("regress")?,
        };
        let heads = shapes.iter().map(head).collect::<Result<_>>()?;
        Ok(Self { field: *field, seed, heads, functions, squares: room(stream, OP, "sums of squares", BLOCKS)? })
    }

    pub(super) fn set_bandwidth(&mut self, kernels: &Kernels, temperatures: &[f64]) -> Result<()> {
        self.field.set_bandwidth(temperatures)?;
        for head in &mut self.heads {
            head.plan = GroupPlan::new(&self.field, &head.shape, kernels)?;
        }
        Ok(())
    }

    /// Appends the gradients of all heads, and the sum of their losses.
    pub(super) fn gradient(
        &mut self,
        stream: &Arc<CudaStream>,
        kernels: &Kernels,
        arrays: &mut [Head<'_, DeviceArray>],
        progress: &CudaSlice<TrainProgress>,
    ) -> Result<()> {
        if arrays.len() != self.heads.len() {
            return Err(Error::shape(OP, "heads", [self.heads.len()], [arrays.len()]));
        }
        let Self { field, seed, heads, functions, squares } = self;
        let progress = progress.device_ptr(stream).0;
        for (at, (head, arrays)) in heads.iter_mut().zip(arrays).enumerate() {
            if let GroupPlan::Sliced(_, directions) = head.plan {
                let purpose = Purpose::Directions as u32;
                let key = [*seed as u32, (*seed >> 32) as u32];
                let random = RandomStream { key, purpose, progress: progress as *const _ };
                let thetas = head.numbers.device_ptr(stream).0;
                let (count, dim) = (directions as i32, head.shape.dim as i32); // the plan has compared them
                let numbers = head.numbers.len() as i64;
                let mut builder = stream.launch_builder(&functions.normals);
                builder.arg(&random).arg(&numbers).arg(&thetas);
                // SAFETY: as many normals as the array has; it belongs to this stream's context.
                unsafe { builder.launch(threads(head.numbers.len().div_ceil(4))?) }
                    .map_err(|error| failed("normals", error))?;
                let mut builder = stream.launch_builder(&functions.unit_directions);
                builder.arg(&count).arg(&dim).arg(&thetas);
                // SAFETY: as above; the array is [directions, dim].
                unsafe { builder.launch(threads(directions)?) }.map_err(|error| failed("unit_directions", error))?;
            }
            let call = TransportCall {
                first: i32::from(at == 0),
                squares: squares.device_ptr(stream).0 as *mut _,
                progress: progress as *mut _,
                ..head.fields(field, stream, kernels, arrays)?
            };
            let blocks = (call.count as usize).div_ceil(THREADS).min(BLOCKS);
            for (name, function) in [("velocity", &functions.velocity), ("regress", &functions.regress)] {
                // SAFETY: the call's arrays are as long as its extents say, and belong to this stream's context.
                unsafe { stream.launch_builder(function).arg(&call).launch(threads(blocks * THREADS)?) }
                    .map_err(|error| failed(name, error))?;
            }
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
        let DriftShape { groups, generated, positives, dim, .. } = self.shape;
        let (each, data) = (generated * dim, positives * dim);
        let (x, p) = (arrays.generated.view(groups * each)?, arrays.positives.view(groups * data)?);
        let two = self.plan.has_two();
        for group in 0..groups {
            let own = group * each..(group + 1) * each;
            let (x, p) = (x.slice(own.clone()), p.slice(group * data..(group + 1) * data));
            let mut towards_p = self.towards_p.slice_mut(own.clone());
            match &self.plan {
                GroupPlan::Kernel(plan, velocity) => {
                    let numbers = self.numbers.slice_mut(8 * group * generated..8 * (group + 1) * generated);
                    let towards_q = if two { Some(self.towards_q.slice_mut(own)) } else { None };
                    let outputs = outputs(*velocity, numbers, towards_p, towards_q);
                    let (x, p, q) = (x.into(), p.into(), None);
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
            norm_floor: Transport::NORM_FLOOR,
            towards_p: address(&self.towards_p),
            numbers: address(&self.numbers),
            gradient: arrays.gradient.first(groups * each)? as *mut _,
            ..TransportCall::default()
        };
        if let Along::Kernel { spec, velocity } = &field.along
            && two
        {
            let seen = generated - usize::from(spec.self_mask);
            call.towards_q = address(&self.towards_q);
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
    let mut outputs =
        FieldOutputs { numbers, ms_p: None, ms_q: None, drift: None, score_p: None, score_q: None, score_diff: None };
    let towards_p = Some(towards_p);
    match velocity {
        Velocity::MeanShift => outputs.drift = towards_p,
        Velocity::Score => outputs.score_diff = towards_p,
        Velocity::Sharp => (outputs.ms_p, outputs.ms_q) = (towards_p, towards_q),
        _ => (outputs.score_p, outputs.score_q) = (towards_p, towards_q),
    }
    outputs
}
