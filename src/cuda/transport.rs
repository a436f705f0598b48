//! Training along a field in the place of a drift: kernels/transport.cu, after the field's own launches.

use std::sync::Arc;

use cudarc::driver::{CudaFunction, CudaSlice, CudaStream, DevicePtr, DeviceRepr, LaunchConfig, PushKernelArg};

use super::context::{failed, room};
use super::device::{DeviceArray, OP};
use super::launch::Kernels;
use super::params::{self, TrainProgress, TransportCall};
use super::{FieldArrays, FieldOutputs, FieldPlan, Options};
use crate::backend::Head;
use crate::train::Transport;
use crate::{DriftShape, Dtype, Error, Result, Velocity};

const THREADS: usize = params::kThreads as usize;
const BLOCKS: usize = params::kSquareBlocks as usize;

// SAFETY: `repr(C)`, made from the header that the kernels are compiled with; passed by value.
unsafe impl DeviceRepr for TransportCall {}

/// Fields on a device, of one head or several.
#[derive(Debug)]
pub(super) struct Fields {
    field: Transport,
    heads: Vec<FieldHead>,
    functions: [CudaFunction; 2],
    squares: CudaSlice<f64>,
}

#[derive(Debug)]
struct FieldHead {
    /// Of one group.
    plan: FieldPlan,
    shape: DriftShape,
    workspace: CudaSlice<u8>,
    /// Of all groups: numbers [B, 2, 4, G], and products [B, G, D].
    numbers: CudaSlice<f32>,
    towards_p: CudaSlice<f32>,
    towards_q: CudaSlice<f32>,
}

fn plan(field: &Transport, shape: &DriftShape, kernels: &Kernels) -> Result<FieldPlan> {
    let options = Options { shared_bytes: kernels.shared_bytes(), ..Options::default() };
    FieldPlan::new(&field.spec, [shape.generated, shape.positives, 0, shape.dim], Dtype::F32, options)
}

/// Whether a velocity is one product, the difference of both sets'.
fn is_difference(velocity: Velocity) -> bool {
    matches!(velocity, Velocity::MeanShift | Velocity::Score)
}

impl Fields {
    pub(super) fn new(
        stream: &Arc<CudaStream>,
        kernels: &Kernels,
        field: &Transport,
        shapes: &[DriftShape],
    ) -> Result<Self> {
        field.validate()?;
        let head = |shape: &DriftShape| -> Result<FieldHead> {
            let plan = plan(field, shape, kernels)?;
            let samples = shape.groups * shape.generated;
            let second = if is_difference(field.velocity) { 0 } else { samples * shape.dim };
            Ok(FieldHead {
                shape: *shape,
                workspace: room(stream, OP, "the workspace of a field", plan.workspace_bytes())?,
                numbers: room(stream, OP, "the numbers of a field", 8 * samples)?,
                towards_p: room(stream, OP, "a field", samples * shape.dim)?,
                towards_q: room(stream, OP, "a field", second)?,
                plan,
            })
        };
        Ok(Self {
            field: *field,
            heads: shapes.iter().map(head).collect::<Result<_>>()?,
            functions: [kernels.function("velocity")?, kernels.function("regress")?],
            squares: room(stream, OP, "sums of squares", BLOCKS)?,
        })
    }

    pub(super) fn set_bandwidth(&mut self, kernels: &Kernels, temperatures: &[f64]) -> Result<()> {
        self.field.set_bandwidth(temperatures)?;
        for head in &mut self.heads {
            head.plan = plan(&self.field, &head.shape, kernels)?;
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
        let Self { field, heads, functions, squares } = self;
        for (at, (head, arrays)) in heads.iter_mut().zip(arrays).enumerate() {
            let call = head.products(field, stream, kernels, arrays)?;
            let call = TransportCall {
                first: i32::from(at == 0),
                squares: squares.device_ptr(stream).0 as *mut _,
                progress: progress.device_ptr(stream).0 as *mut _,
                ..call
            };
            let blocks = (call.count as usize).div_ceil(THREADS).min(BLOCKS) as u32;
            let config =
                LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (THREADS as u32, 1, 1), shared_mem_bytes: 0 };
            for (name, function) in ["velocity", "regress"].into_iter().zip(&*functions) {
                // SAFETY: the call's arrays are as long as its extents say, and belong to this stream's context.
                unsafe { stream.launch_builder(function).arg(&call).launch(config) }
                    .map_err(|error| failed(name, error))?;
            }
        }
        Ok(())
    }
}

impl FieldHead {
    /// Appends the field of every group; what follows from it.
    fn products(
        &mut self,
        field: &Transport,
        stream: &Arc<CudaStream>,
        kernels: &Kernels,
        arrays: &mut Head<'_, DeviceArray>,
    ) -> Result<TransportCall> {
        let DriftShape { groups, generated, positives, dim, .. } = self.shape;
        let (each, data) = (generated * dim, positives * dim);
        let (x, p) = (arrays.generated.view(groups * each)?, arrays.positives.view(groups * data)?);
        let one = is_difference(field.velocity);
        for group in 0..groups {
            let own = group * each..(group + 1) * each;
            let mut outputs = FieldOutputs {
                numbers: self.numbers.slice_mut(8 * group * generated..8 * (group + 1) * generated),
                ms_p: None,
                ms_q: None,
                drift: None,
                score_p: None,
                score_q: None,
                score_diff: None,
            };
            let towards_p = Some(self.towards_p.slice_mut(own.clone()));
            let towards_q = if one { None } else { Some(self.towards_q.slice_mut(own.clone())) };
            match field.velocity {
                Velocity::MeanShift => outputs.drift = towards_p,
                Velocity::Score => outputs.score_diff = towards_p,
                Velocity::Sharp => (outputs.ms_p, outputs.ms_q) = (towards_p, towards_q),
                _ => (outputs.score_p, outputs.score_q) = (towards_p, towards_q),
            }
            let arrays = FieldArrays {
                x: x.slice(own).into(),
                p: p.slice(group * data..(group + 1) * data).into(),
                q: None,
                weight_p: None,
                weight_q: None,
                bandwidths: None,
            };
            self.plan.run(kernels, stream, arrays, &mut self.workspace, outputs)?;
        }
        let (velocity, most) = match field.velocity {
            Velocity::MeanShift | Velocity::Score => (params::VelocityKind_kOneProduct, 0.0),
            Velocity::Sharp => (params::VelocityKind_kSharp, 0.0),
            Velocity::Mmd => (params::VelocityKind_kMmd, 0.0),
            Velocity::ForwardKl { most } => (params::VelocityKind_kForwardKl, most),
            Velocity::ChiSquared { most } => (params::VelocityKind_kChiSquared, most),
        };
        let seen = generated - usize::from(field.spec.self_mask);
        let address = |slice: &CudaSlice<f32>| slice.device_ptr(stream).0 as *const f32;
        Ok(TransportCall {
            count: (groups * each) as i64,
            generated: generated as i32, // the plan has compared them
            dim: dim as i32,
            velocity,
            most: most as f32,
            log_total_p: (positives as f64).ln() as f32,
            log_total_q: (seen as f64).ln() as f32,
            normalize: field.normalize.into(),
            step: field.step,
            norm_floor: Transport::NORM_FLOOR,
            towards_p: address(&self.towards_p),
            towards_q: if one { std::ptr::null() } else { address(&self.towards_q) },
            numbers: address(&self.numbers),
            gradient: arrays.gradient.first(groups * each)? as *mut _,
            ..TransportCall::default()
        })
    }
}
