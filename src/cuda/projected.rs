//! Attraction by landmarks on a device: kernels/projected.cu.

use std::sync::Arc;

use cudarc::driver::{
    CudaFunction, CudaSlice, CudaStream, CudaView, CudaViewMut, DevicePtr, DevicePtrMut, DeviceRepr, LaunchConfig,
    PushKernelArg,
};

use super::call::kernel_kind;
use super::context::{failed, upload};
use super::launch::{Kernels, exact};
use super::params::{self, ProjectedCall};
use crate::{Error, Projection, Result};

const OP: &str = "cuda projection";
const THREADS: usize = params::kThreads as usize;
const SIDE: usize = params::kProjectedSide as usize;

// SAFETY: `repr(C)`, made from the header that the kernels are compiled with; passed by value.
unsafe impl DeviceRepr for ProjectedCall {}

/// A [`Projection`] on a device, which its kernel reads from there.
#[derive(Debug)]
pub struct DeviceProjection {
    function: CudaFunction,
    call: ProjectedCall,
    /// Landmarks [M, D], C [M, D + 1], the data's mean `[D]`.
    arrays: [CudaSlice<f32>; 3],
}

impl DeviceProjection {
    /// Copies a projection to the device of `stream`.
    ///
    /// # Errors
    /// [`Error::DeviceMemory`] where there is no room, [`Error::TooLarge`] where an extent goes beyond 2^31,
    /// [`Error::Device`] where the driver fails or has not the kernel.
    pub fn new(kernels: &Kernels, stream: &Arc<CudaStream>, projection: &Projection) -> Result<Self> {
        const WHAT: &str = "the landmarks";
        let (spec, dim) = (projection.spec(), projection.dim());
        let count = projection.landmarks().len() / dim;
        let integer = |extent: usize| {
            let got = || format!("[M, D] = [{count}, {dim}]");
            i32::try_from(extent).map_err(|_| Error::TooLarge { op: OP, what: WHAT, got: got() })
        };
        let narrow = |values: &[f64]| values.iter().map(|v| *v as f32).collect::<Vec<f32>>();
        let arrays = [projection.landmarks(), &narrow(projection.folded()), &narrow(projection.mean())];
        let [landmarks, folded, mean] = arrays.map(|values| upload(stream, OP, WHAT, values));
        let call = ProjectedCall {
            landmarks: integer(count)?,
            dim: integer(dim)?,
            kernel: kernel_kind(spec.kernel),
            rate: spec.kernel.rate(spec.bandwidth) as f32,
            least: Projection::FLOOR as f32,
            polynomial: spec.kernel.polynomial(),
            ..ProjectedCall::default()
        };
        Ok(Self { function: kernels.function("projected")?, call, arrays: [landmarks?, folded?, mean?] })
    }

    /// The landmarks [M, D].
    pub fn landmarks(&self) -> CudaView<'_, f32> {
        self.arrays[0].as_view()
    }

    /// Appends what lies between queries [n, D] and their barycentres, [n, D], to `stream`: it allocates nothing and does
    /// not wait.
    ///
    /// # Errors
    /// [`Error::Shape`] where the arrays are not as long as one another, or not whole points; [`Error::TooLarge`] beyond
    /// 2^31 blocks; [`Error::Device`] where the driver refuses the launch.
    pub fn run(
        &self,
        stream: &Arc<CudaStream>,
        x: &CudaView<'_, f32>,
        result: &mut CudaViewMut<'_, f32>,
    ) -> Result<()> {
        let dim = self.call.dim as usize;
        let n = x.len() / dim;
        exact(OP, "x", x.len(), &[n, dim])?;
        exact(OP, "the result", result.len(), &[n, dim])?;
        let blocks = n.div_ceil(SIDE).saturating_mul(dim.div_ceil(THREADS));
        let Some((queries, blocks)) = i32::try_from(n).ok().zip(i32::try_from(blocks).ok()) else {
            return Err(Error::TooLarge { op: OP, what: "a launch", got: format!("{n} queries of {dim} coordinates") });
        };
        if n == 0 {
            return Ok(());
        }
        let [(points, _points), (folded, _folded), (mean, _mean)] =
            self.arrays.each_ref().map(|a| a.device_ptr(stream));
        let (x, _x) = x.device_ptr(stream);
        let (result, _result) = result.device_ptr_mut(stream);
        let call = ProjectedCall {
            queries,
            x: x as *const _,
            points: points as *const _,
            folded: folded as *const _,
            mean: mean as *const _,
            result: result as *mut _,
            ..self.call
        };
        let config =
            LaunchConfig { grid_dim: (blocks as u32, 1, 1), block_dim: (THREADS as u32, 1, 1), shared_mem_bytes: 0 };
        // SAFETY: the lengths were compared; the borrows say that the arrays alias nothing and live as long.
        unsafe { stream.launch_builder(&self.function).arg(&call).launch(config) }
            .map_err(|error| failed("projected", error))?;
        Ok(())
    }
}
