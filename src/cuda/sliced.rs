//! The sliced Wasserstein field on a device: kernels/sliced.cu.

use std::sync::Arc;

use cudarc::driver::{
    CudaFunction, CudaSlice, CudaStream, CudaView, CudaViewMut, DevicePtr, DevicePtrMut, DeviceRepr, LaunchConfig,
    PushKernelArg,
};

use super::context::failed;
use super::launch::{Kernels, exact};
use super::params::{self, SlicedCall};
use crate::{Dtype, Element, Error, Result};

const OP: &str = "cuda sliced field";
const THREADS: usize = params::kThreads as usize;
/// Rows and columns of a tile of products.
const SIDE: usize = 32;

// SAFETY: `repr(C)`, made from the header that the kernels are compiled with; passed by value.
unsafe impl DeviceRepr for SlicedCall {}

/// The sliced Wasserstein field of spec 8.9 on a device ([`SlicedInputs`](crate::SlicedInputs)), for extents n queries, m
/// references, L directions, D coordinates. Five launches: centre, projections, sorts, gaps, velocities.
#[derive(Clone, Debug)]
pub struct SlicedPlan {
    shape: [usize; 4],
    dtype: Dtype,
    center: CudaFunction,
    project: CudaFunction,
    sort: CudaFunction,
    gaps: CudaFunction,
    velocity: CudaFunction,
    blocks: [u32; 5],
    /// Bytes to the parts of the workspace, and of all.
    offsets: [usize; 4],
}

/// The points of a sliced field on the device, without gaps.
#[derive(Debug)]
pub struct SlicedArrays<'a, T> {
    /// Queries [n, D].
    pub x: CudaView<'a, T>,
    /// References [m, D].
    pub p: CudaView<'a, T>,
    /// Directions [L, D] of unit length.
    pub directions: CudaView<'a, f32>,
}

impl SlicedPlan {
    /// Plans a field for extents [n, m, L, D].
    ///
    /// # Errors
    /// [`Error::Value`] for an extent of 0, [`Error::TooLarge`] where one, or a launch, goes beyond 2^31; [`Error::Device`]
    /// where the driver has not the kernels.
    pub fn new(kernels: &Kernels, shape: [usize; 4], dtype: Dtype) -> Result<Self> {
        let [n, m, count, dim] = shape;
        if shape.contains(&0) {
            return Err(Error::value(OP, "the extents [n, m, L, D]", "at least 1 each", format!("{shape:?}")));
        }
        let too_large = || Error::TooLarge { op: OP, what: "a launch", got: format!("[n, m, L, D] = {shape:?}") };
        let product = |factors: [usize; 2]| factors[0].checked_mul(factors[1]).ok_or_else(too_large);
        let points = n.checked_add(m).filter(|points| *points <= i32::MAX as usize).ok_or_else(too_large)?;
        let tiles = |rows: usize, columns: usize| product([rows.div_ceil(SIDE), columns.div_ceil(SIDE)]);
        let blocks =
            [dim, tiles(count, points)?, product([2, count])?, product([count, n])?.div_ceil(THREADS), tiles(n, dim)?];
        if [count, dim].into_iter().chain(blocks).any(|extent| extent > i32::MAX as usize) {
            return Err(too_large());
        }
        let keys = product([product([count, points])?, size_of::<u64>()])?;
        let gaps = product([product([count, n])?, size_of::<f32>()])?;
        let mut offsets = [0; 4];
        let mut end = 0usize;
        for (offset, bytes) in offsets.iter_mut().zip([keys, keys, gaps, dim * size_of::<f32>()]) {
            *offset = end;
            end = bytes.checked_next_multiple_of(256).and_then(|b| end.checked_add(b)).ok_or_else(too_large)?;
        }
        let [_, spare, gaps, center] = offsets;
        let name = dtype.name();
        Ok(Self {
            shape,
            dtype,
            center: kernels.function(&format!("sliced_center_{name}"))?,
            project: kernels.function(&format!("sliced_project_{name}"))?,
            sort: kernels.function("sliced_sort")?,
            gaps: kernels.function("sliced_gaps")?,
            velocity: kernels.function("sliced_velocity")?,
            blocks: blocks.map(|blocks| blocks as u32),
            offsets: [spare, gaps, center, end],
        })
    }

    /// Bytes of device memory that a run needs beside inputs and outputs; their content does not matter.
    pub fn workspace_bytes(&self) -> usize {
        self.offsets[3]
    }

    /// Appends the field to `stream`, `velocity` [n, D]: it allocates nothing and does not wait.
    ///
    /// # Errors
    /// [`Error::Shape`] where an array has not the plan's extents, [`Error::Value`] where the points have another type than
    /// the plan, [`Error::Device`] where the driver refuses a launch.
    pub fn run<T: Element + DeviceRepr>(
        &self,
        stream: &Arc<CudaStream>,
        arrays: &SlicedArrays<'_, T>,
        workspace: &mut CudaSlice<u8>,
        velocity: &mut CudaViewMut<'_, f32>,
    ) -> Result<()> {
        if T::DTYPE != self.dtype {
            return Err(Error::value(OP, "the points' type", self.dtype.name(), T::DTYPE));
        }
        let [n, m, count, dim] = self.shape;
        exact(OP, "x", arrays.x.len(), &[n, dim])?;
        exact(OP, "p", arrays.p.len(), &[m, dim])?;
        exact(OP, "directions", arrays.directions.len(), &[count, dim])?;
        exact(OP, "velocity", velocity.len(), &[n, dim])?;
        if workspace.len() < self.workspace_bytes() {
            return Err(Error::shape(OP, "the workspace", [self.workspace_bytes()], [workspace.len()]));
        }
        let [spare, gaps, center, _] = self.offsets;
        let (x, _x) = arrays.x.device_ptr(stream);
        let (p, _p) = arrays.p.device_ptr(stream);
        let (thetas, _thetas) = arrays.directions.device_ptr(stream);
        let (place, _workspace) = workspace.device_ptr_mut(stream);
        let (result, _velocity) = velocity.device_ptr_mut(stream);
        let call = SlicedCall {
            queries: n as i32, // compared in `new`, as the others
            references: m as i32,
            directions: count as i32,
            dim: dim as i32,
            x: x as *const _,
            p: p as *const _,
            thetas: thetas as *const _,
            center: (place + center as u64) as *mut _,
            gaps: (place + gaps as u64) as *mut _,
            keys: place as *mut _,
            spare: (place + spare as u64) as *mut _,
            velocity: result as *mut _,
        };
        for ((name, function), blocks) in [
            ("sliced_center", &self.center),
            ("sliced_project", &self.project),
            ("sliced_sort", &self.sort),
            ("sliced_gaps", &self.gaps),
            ("sliced_velocity", &self.velocity),
        ]
        .into_iter()
        .zip(self.blocks)
        {
            let config =
                LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (THREADS as u32, 1, 1), shared_mem_bytes: 0 };
            // SAFETY: the lengths were compared; the borrows say that the arrays alias nothing and live as long.
            unsafe { stream.launch_builder(function).arg(&call).launch(config) }
                .map_err(|error| failed(name, error))?;
        }
        Ok(())
    }
}
