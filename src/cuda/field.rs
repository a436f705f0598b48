//! Fields on a device: kernels/field.cu, with the distances, row projections and products of a drift.

use std::sync::Arc;

use cudarc::driver::{CudaSlice, CudaStream, CudaView, CudaViewMut, DevicePtr, DevicePtrMut, DeviceRepr};

use super::context::failed;
use super::launch::{Inputs, Kernels, Outputs, Phase, Samples, enqueue, exact, pointers_of};
use super::params::{self, DriftScalars};
use super::plan::{Options, Plan};
use crate::{Coupling, DriftShape, DriftSpec, Dtype, Element, Error, FieldSpec, Form, Result, SelfMask, WeightRule};

const OP: &str = "cuda field";

/// The fields of spec 1.4 on a device, for extents n queries, m references p, l references q, D coordinates. Owns
/// nothing there, as a [`Plan`].
///
/// A field is a row softmax over either reference set ([`Form::Split`](crate::Form::Split) of
/// [`Coupling::Row`](crate::Coupling::Row)), so it takes a drift's launches: distances (kept, [n, n + l + m], from D = 9
/// on; where q is x, [n, n + m]), a projection of the rows, the numbers of each query, and a product for each array
/// that is asked for. A reference that is not finite makes the fields of both sets NaN; on the CPU it stays in its own.
#[derive(Clone, Debug)]
pub struct FieldPlan {
    plan: Plan,
    self_mask: bool,
}

/// The points of a field on the device.
#[derive(Debug)]
pub struct FieldArrays<'a, T> {
    /// Queries [n, D].
    pub x: Samples<'a, T>,
    /// References [m, D].
    pub p: Samples<'a, T>,
    /// References [l, D]; nothing where they are the queries.
    pub q: Option<Samples<'a, T>>,
    /// `[m]`; nothing for weights of 1.
    pub weight_p: Option<CudaView<'a, f32>>,
    /// `[l]`.
    pub weight_q: Option<CudaView<'a, f32>>,
    /// `[n]`; nothing for the spec's.
    pub bandwidths: Option<CudaView<'a, f32>>,
}

/// Where results go: arrays [n, D], each of which may be left out, and the numbers of each query. The names are those of
/// [`Field`](crate::Field).
#[derive(Debug)]
pub struct FieldOutputs<'a> {
    /// [2, 4, n]: of q, then of p, `logz`, `alpha`, `sharp_ratio` and `ess`.
    pub numbers: CudaViewMut<'a, f32>,
    /// Mean shift towards p.
    pub ms_p: Option<CudaViewMut<'a, f32>>,
    /// Mean shift towards q.
    pub ms_q: Option<CudaViewMut<'a, f32>>,
    /// `ms_p - ms_q`, from one product.
    pub drift: Option<CudaViewMut<'a, f32>>,
    /// Kernel score of p.
    pub score_p: Option<CudaViewMut<'a, f32>>,
    /// Kernel score of q.
    pub score_q: Option<CudaViewMut<'a, f32>>,
    /// `score_p - score_q`, from one product.
    pub score_diff: Option<CudaViewMut<'a, f32>>,
}

impl<'a> FieldOutputs<'a> {
    /// The numbers of each query alone.
    pub fn of(numbers: CudaViewMut<'a, f32>) -> Self {
        Self { numbers, ms_p: None, ms_q: None, drift: None, score_p: None, score_q: None, score_diff: None }
    }
}

impl FieldPlan {
    /// Plans the fields of `spec` for extents [n, m, l, D], with l = 0 where q are the queries themselves.
    ///
    /// # Errors
    /// [`Error::Value`] for a bandwidth outside 1e-12 to 1e12 or an extent of 0, [`Error::Shape`] for a self mask with
    /// l other than n and 0, and as [`Plan::grouped`].
    pub fn new(spec: &FieldSpec, [n, m, l, dim]: [usize; 4], dtype: Dtype, options: Options) -> Result<Self> {
        spec.validate()?;
        if m == 0 {
            return Err(Error::value(OP, "p", "at least one point", 0));
        }
        if spec.self_mask && l != 0 && l != n {
            return Err(Error::shape(OP, "q (with the self mask: as many points as x)", [n, dim], [l, dim]));
        }
        let mut drift = DriftSpec::notebook().coupled(Coupling::Row, Form::Split);
        (drift.kernel, drift.temperatures) = (spec.kernel, vec![spec.bandwidth]);
        (drift.self_mask, drift.weights) = (SelfMask::Keep, WeightRule::Logit);
        let shape = DriftShape { groups: 1, generated: n, negatives: l, positives: m, dim };
        Ok(Self { plan: Plan::grouped(&drift, &[shape], dtype, options)?, self_mask: spec.self_mask })
    }

    /// Bytes of device memory that a run needs beside inputs and outputs; their content does not matter.
    pub fn workspace_bytes(&self) -> usize {
        self.plan.workspace_bytes()
    }

    /// Appends the fields to `stream`: it allocates nothing and does not wait.
    ///
    /// # Errors
    /// [`Error::Shape`] where an array has not the plan's extents, [`Error::Value`] where the points have another type
    /// than the plan, [`Error::Device`] where the driver refuses a launch.
    pub fn run<T: Element + DeviceRepr>(
        &self,
        kernels: &Kernels,
        stream: &Arc<CudaStream>,
        arrays: FieldArrays<'_, T>,
        workspace: &mut CudaSlice<u8>,
        outputs: FieldOutputs<'_>,
    ) -> Result<()> {
        if T::DTYPE != self.plan.dtype {
            return Err(Error::value(OP, "the points' type", self.plan.dtype.name(), T::DTYPE));
        }
        self.plan.check_workspace(workspace)?;
        let shape = self.plan.heads[0].shape;
        let (n, dim) = (shape.generated, shape.dim);
        let FieldArrays { x, p, q, weight_p, weight_q, bandwidths } = arrays;
        let [weight_generated, weight_negatives] = if q.is_none() { [weight_q, None] } else { [None, weight_q] };
        let inputs = Inputs {
            generated: x,
            positives: Some(p),
            negatives: q,
            weight_generated,
            weight_negatives,
            weight_positives: weight_p,
        };
        let mut numbers = outputs.numbers;
        let mut guards = Vec::new();
        let pointers = pointers_of(&shape, stream, inputs, Outputs::default(), &mut guards)?;

        let (address, guard) = workspace.device_ptr_mut(stream);
        guards.push(guard);
        let mut call = self.plan.call(&[pointers], address);
        if let Some(own) = &bandwidths {
            exact(OP, "bandwidths", own.len(), &[n])?;
            let (address, guard) = own.device_ptr(stream);
            guards.push(guard);
            call.params.head.bandwidths = address as *const _;
            call.params.rate[0] = self.plan.spec.kernel.rate(1.0) as f32;
        }
        exact(OP, "numbers", numbers.len(), &[2, 4, n])?;
        let (address, guard) = numbers.device_ptr_mut(stream);
        guards.push(guard);
        call.params.head.numbers = address as *mut _;
        call.params.field = params::FieldKind_kShift;
        call.params.leave_out = self.self_mask.into();

        // SAFETY: the lengths were compared; the borrows say that the arrays alias nothing and live as long.
        unsafe { self.plan.launch(kernels, stream, &call, Phase::Distances)? };
        let statistics = kernels.statistics(self.plan.dtype);
        let blocks = |launch: params::Launch| self.plan.blocks[launch as usize];
        let [rows, plans] = [params::Launch_kRows, params::Launch_kPlans].map(blocks);
        for (name, function, blocks) in [
            ("start", &kernels.start, plans),
            ("project_rows", &statistics.project_rows, rows),
            ("field_rows", &statistics.field_rows, rows),
        ] {
            // SAFETY: as above; the distances are there.
            unsafe { enqueue(stream, name, function, blocks, 0, &call.params)? };
        }
        use params::{
            FieldKind_kScore as SCORE, FieldKind_kShift as SHIFT, FieldSide_kDifference as BOTH,
            FieldSide_kTowardsP as P, FieldSide_kTowardsQ as Q,
        };
        for (argument, output, kind, side) in [
            ("ms_p", outputs.ms_p, SHIFT, P),
            ("ms_q", outputs.ms_q, SHIFT, Q),
            ("drift", outputs.drift, SHIFT, BOTH),
            ("score_p", outputs.score_p, SCORE, P),
            ("score_q", outputs.score_q, SCORE, Q),
            ("score_diff", outputs.score_diff, SCORE, BOTH),
        ] {
            let Some(mut output) = output else { continue };
            exact(OP, argument, output.len(), &[n, dim])?;
            let (address, _guard) = output.device_ptr_mut(stream);
            let mut params = call.params;
            (params.field, params.side, params.head.force) = (kind, side, address as *mut _);
            let (blocks, shared) = (blocks(params::Launch_kForce), self.plan.shared[2]);
            // SAFETY: as above; the weights' statistics are there.
            unsafe { enqueue(stream, argument, kernels.force(&self.plan), blocks, shared, &params)? };
        }
        Ok(())
    }

    /// Waits for the stream and reads how many coordinates and weights of the last run in the workspace are not finite.
    ///
    /// # Errors
    /// [`Error::Shape`] where the workspace is too small, [`Error::Device`] where the driver reports that the run failed.
    pub fn nonfinite(&self, stream: &Arc<CudaStream>, workspace: &CudaSlice<u8>) -> Result<u64> {
        self.plan.check_workspace(workspace)?;
        let at = std::mem::offset_of!(DriftScalars, nonfinite);
        let mut bytes = [0u8; size_of::<f64>()];
        stream
            .memcpy_dtoh(&workspace.slice(at..at + bytes.len()), &mut bytes)
            .and_then(|()| stream.synchronize())
            .map_err(|error| failed("reading the statistics", error))?;
        Ok(f64::from_ne_bytes(bytes) as u64)
    }
}
