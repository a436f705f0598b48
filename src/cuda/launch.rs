//! The launches of a plan: kernels/distances.cu, statistics.cu, contraction.cu, reduce.cu.

use std::sync::Arc;

use cudarc::driver::{
    CudaContext, CudaFunction, CudaSlice, CudaStream, CudaView, CudaViewMut, DevicePtr, DevicePtrMut, DeviceRepr,
    LaunchConfig, PushKernelArg,
};

use super::context::failed;
use super::params::{self, DriftParams, DriftScalars};
use super::plan::{Plan, THREADS};
use crate::{AffinityFloor, Dtype, Element, Error, FeatureScale, ForceNorm, Kernel, Result, SelfMask, WeightRule};

const OP: &str = "cuda drift";

// SAFETY: `repr(C)`, made from the header that the kernels are compiled with; the struct is passed by value.
unsafe impl DeviceRepr for DriftParams {}

/// The kernels, loaded into a context.
#[derive(Clone, Debug)]
pub struct Kernels {
    reduce_scale: CudaFunction,
    row_statistics: CudaFunction,
    column_statistics: CudaFunction,
    masses: CudaFunction,
    reduce_norms: CudaFunction,
    losses: CudaFunction,
    /// Distances, norms and force of each type, in the order of [`Dtype::ALL`].
    typed: [[CudaFunction; 3]; 3],
}

/// Samples and weights of a call, on the device, in the order of [`crate::DriftInputs`].
#[derive(Debug)]
pub struct Inputs<'a, T> {
    /// [B, G, D].
    pub generated: CudaView<'a, T>,
    /// [B, P, D]; nothing where P is 0.
    pub positives: Option<CudaView<'a, T>>,
    /// [B, N, D]; nothing where N is 0.
    pub negatives: Option<CudaView<'a, T>>,
    /// [B, G]; nothing for weights of 1, as for the other two.
    pub weight_generated: Option<CudaView<'a, f32>>,
    /// [B, N].
    pub weight_negatives: Option<CudaView<'a, f32>>,
    /// [B, P].
    pub weight_positives: Option<CudaView<'a, f32>>,
}

/// Where results go; each may be left out.
#[derive(Debug, Default)]
pub struct Outputs<'a> {
    /// F_tot, [B, G, D] (spec 2.2 (6)).
    pub force: Option<CudaViewMut<'a, f32>>,
    /// Gradient of the sum of the losses with respect to the generated samples, [B, G, D] (spec 5).
    pub gradient: Option<CudaViewMut<'a, f32>>,
    /// The loss of each group, `[B]` (spec 2.2 (8)).
    pub loss: Option<CudaViewMut<'a, f32>>,
}

/// The statistics of a call.
#[derive(Clone, Debug, PartialEq)]
pub struct Statistics {
    /// The global length scale.
    pub scale: crate::Scale,
    /// f2, the mean square of each temperature's force, `[R]`.
    pub loss_r: Vec<f64>,
    /// How many input coordinates are NaN or infinite.
    pub nonfinite: u64,
}

impl Kernels {
    /// Loads the kernels into a context: the image built into the crate, or what NVRTC makes of the sources.
    ///
    /// # Errors
    /// [`Error::NoCuda`] where neither can be loaded, with what was missing.
    pub fn load(context: &Arc<CudaContext>) -> Result<Self> {
        let module = super::image::load(context)?;
        let function = |name: &str| module.load_function(name).map_err(|error| failed("loading a kernel", error));
        let typed = |dtype: Dtype| -> Result<[CudaFunction; 3]> {
            Ok([
                function(&format!("distances_{dtype}"))?,
                function(&format!("norm_{dtype}"))?,
                function(&format!("force_{dtype}"))?,
            ])
        };
        Ok(Self {
            reduce_scale: function("reduce_scale")?,
            row_statistics: function("row_statistics")?,
            column_statistics: function("column_statistics")?,
            masses: function("masses")?,
            reduce_norms: function("reduce_norms")?,
            losses: function("losses")?,
            typed: [typed(Dtype::F32)?, typed(Dtype::F16)?, typed(Dtype::Bf16)?],
        })
    }
}

impl Plan {
    /// Appends the whole call to `stream`: it allocates nothing and does not wait, and can be captured in a graph.
    ///
    /// The outputs are there when the stream has come so far; [`Plan::statistics`] reads the scalars. Data that is not
    /// finite, and weights that are negative or all zero, give NaN where they reach.
    ///
    /// # Errors
    /// [`Error::Shape`] where an array has not the plan's extents, [`Error::Value`] where the samples have another type
    /// than the plan, [`Error::Device`] where the driver refuses a launch.
    pub fn run<T: Element + DeviceRepr>(
        &self,
        kernels: &Kernels,
        stream: &CudaStream,
        inputs: &Inputs<'_, T>,
        workspace: &mut CudaSlice<u8>,
        outputs: &mut Outputs<'_>,
    ) -> Result<()> {
        self.check(inputs, workspace, outputs)?;
        // The guards record, when they are dropped, that the stream has used the arrays.
        let mut guards = Vec::new();
        macro_rules! pointer {
            ($view:expr, $method:ident) => {{
                let (pointer, guard) = $view.$method(stream);
                guards.push(guard);
                pointer
            }};
        }
        macro_rules! optional {
            ($view:expr, $method:ident) => {
                match $view {
                    Some(view) => pointer!(view, $method),
                    None => 0,
                }
            };
        }
        let mut params = self.params(pointer!(workspace, device_ptr_mut));
        params.generated_data = pointer!(inputs.generated, device_ptr) as *const _;
        params.positive_data = optional!(&inputs.positives, device_ptr) as *const _;
        params.negative_data = optional!(&inputs.negatives, device_ptr) as *const _;
        params.generated_weight = optional!(&inputs.weight_generated, device_ptr) as *const _;
        params.negative_weight = optional!(&inputs.weight_negatives, device_ptr) as *const _;
        params.positive_weight = optional!(&inputs.weight_positives, device_ptr) as *const _;
        params.force = optional!(&mut outputs.force, device_ptr_mut) as *mut _;
        params.gradient = optional!(&mut outputs.gradient, device_ptr_mut) as *mut _;
        params.loss = optional!(&mut outputs.loss, device_ptr_mut) as *mut _;
        // SAFETY: `check` compared every array's length with the extents in `params`; the borrows say that outputs and
        // workspace alias nothing; the guards order later uses of the arrays after this stream's.
        unsafe { self.launch(kernels, stream, &params) }
    }

    /// Appends the launches of a call on raw device pointers.
    ///
    /// # Safety
    /// `params` is [`Plan`]'s own with pointers to arrays of its extents, in the memory of the stream's context, that stay
    /// alive until the stream has passed; outputs and workspace alias nothing.
    unsafe fn launch(&self, kernels: &Kernels, stream: &CudaStream, params: &DriftParams) -> Result<()> {
        let blocks = self.blocks;
        let temperatures = self.spec().temperatures.len() as u32;
        let [distances, norm, force] = &kernels.typed[match self.dtype() {
            Dtype::F32 => 0,
            Dtype::F16 => 1,
            Dtype::Bf16 => 2,
        }];
        let launches = [
            ("distances", distances, blocks.distances),
            ("reduce_scale", &kernels.reduce_scale, 1),
            ("row_statistics", &kernels.row_statistics, blocks.rows),
            ("column_statistics", &kernels.column_statistics, blocks.columns),
            ("masses", &kernels.masses, blocks.rows),
            ("norm", norm, blocks.norms),
            ("reduce_norms", &kernels.reduce_norms, temperatures),
            ("force", force, blocks.force),
            ("losses", &kernels.losses, blocks.losses),
        ];
        // Without groups there is nothing but the scalars.
        for (name, function, blocks) in launches.into_iter().filter(|launch| launch.2 > 0) {
            let config =
                LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (THREADS as u32, 1, 1), shared_mem_bytes: 0 };
            // SAFETY: every kernel takes one `DriftParams` by value; the pointers are the caller's promise.
            unsafe { stream.launch_builder(function).arg(params).launch(config) }
                .map_err(|error| failed(name, error))?;
        }
        Ok(())
    }

    /// Waits for the stream and reads the statistics of the last run in the workspace.
    ///
    /// # Errors
    /// [`Error::Shape`] where the workspace is too small, [`Error::Device`] where the driver reports that the run failed.
    pub fn statistics(&self, stream: &Arc<CudaStream>, workspace: &CudaSlice<u8>) -> Result<Statistics> {
        self.check_length("workspace", workspace.len(), self.layout.bytes)?;
        let view = workspace.slice(self.layout.scalars..self.layout.scalars + size_of::<DriftScalars>());
        let mut bytes = [0u8; size_of::<DriftScalars>()];
        stream.memcpy_dtoh(&view, &mut bytes).map_err(|error| failed("reading the statistics", error))?;
        stream.synchronize().map_err(|error| failed("waiting for the run", error))?;
        let number = |at: usize| {
            let mut number = [0; 8];
            number.copy_from_slice(&bytes[8 * at..8 * at + 8]);
            f64::from_le_bytes(number)
        };
        let doubles = |offset: usize| offset / size_of::<f64>();
        let at = |offset| number(doubles(offset));
        Ok(Statistics {
            scale: crate::Scale {
                scale: at(std::mem::offset_of!(DriftScalars, scale)),
                sigma: at(std::mem::offset_of!(DriftScalars, sigma)),
                distance: at(std::mem::offset_of!(DriftScalars, distance)),
            },
            loss_r: (0..self.spec().temperatures.len())
                .map(|r| number(doubles(std::mem::offset_of!(DriftScalars, f2)) + r))
                .collect(),
            nonfinite: at(std::mem::offset_of!(DriftScalars, nonfinite)) as u64,
        })
    }

    fn check_length(&self, argument: &'static str, got: usize, expected: usize) -> Result<()> {
        if got >= expected { Ok(()) } else { Err(Error::shape(OP, argument, [expected], [got])) }
    }

    fn check<T: Element>(
        &self,
        inputs: &Inputs<'_, T>,
        workspace: &CudaSlice<u8>,
        outputs: &Outputs<'_>,
    ) -> Result<()> {
        use cudarc::driver::DeviceSlice;
        if T::DTYPE != self.dtype() {
            return Err(Error::value(OP, "the samples' type", self.dtype().name(), T::DTYPE));
        }
        let shape = self.shape();
        let exact = |argument: &'static str, got: Option<usize>, extents: &[usize]| {
            let expected: usize = extents.iter().product();
            match got {
                Some(got) if got != expected => Err(Error::shape(OP, argument, extents, [got])),
                _ => Ok(()),
            }
        };
        let (b, g, n, p, d) = (shape.groups, shape.generated, shape.negatives, shape.positives, shape.dim);
        exact("generated", Some(inputs.generated.len()), &[b, g, d])?;
        exact("positives", Some(inputs.positives.as_ref().map_or(0, DeviceSlice::len)), &[b, p, d])?;
        exact("negatives", Some(inputs.negatives.as_ref().map_or(0, DeviceSlice::len)), &[b, n, d])?;
        exact("weight_generated", inputs.weight_generated.as_ref().map(DeviceSlice::len), &[b, g])?;
        exact("weight_negatives", inputs.weight_negatives.as_ref().map(DeviceSlice::len), &[b, n])?;
        exact("weight_positives", inputs.weight_positives.as_ref().map(DeviceSlice::len), &[b, p])?;
        exact("force", outputs.force.as_ref().map(DeviceSlice::len), &[b, g, d])?;
        exact("gradient", outputs.gradient.as_ref().map(DeviceSlice::len), &[b, g, d])?;
        exact("loss", outputs.loss.as_ref().map(DeviceSlice::len), &[b])?;
        self.check_length("workspace", workspace.len(), self.layout.bytes)
    }

    /// The parameters of the kernels, with the arrays of the workspace that begins at that address.
    fn params(&self, workspace: u64) -> DriftParams {
        let (spec, shape, layout) = (self.spec(), self.shape(), &self.layout);
        let int = |extent: usize| extent as i32; // `Plan::new` has compared them
        let mut rate = [0.0; crate::MAX_TEMPERATURES];
        for (rate, &r) in rate.iter_mut().zip(&spec.temperatures) {
            *rate = match spec.kernel {
                Kernel::Laplace => 1.0 / r,
                Kernel::Gaussian => 0.5 / (r * r),
                Kernel::Matern32 => 3f64.sqrt() / r,
                Kernel::Matern52 => 5f64.sqrt() / r,
            } as f32;
        }
        let (mask, mask_value) = match spec.self_mask {
            SelfMask::Add(value) => (params::MaskKind_kMaskAdd, value),
            SelfMask::Set(value) => (params::MaskKind_kMaskSet, value),
            SelfMask::Remove => (params::MaskKind_kMaskRemove, 0.0),
            SelfMask::Keep => (params::MaskKind_kMaskKeep, 0.0),
        };
        let (floor_kind, affinity_floor) = match spec.affinity_floor {
            AffinityFloor::Product(floor) => (params::FloorKind_kFloorProduct, floor),
            AffinityFloor::Normalizer(floor) => (params::FloorKind_kFloorNormalizer, floor),
            AffinityFloor::None => (params::FloorKind_kFloorNone, 0.0),
        };
        let (normalize, norm_floor) = match spec.force_norm {
            ForceNorm::Rms(floor) => (1, floor),
            ForceNorm::None => (0, 0.0),
        };
        let array = |offset: usize| workspace + offset as u64;
        DriftParams {
            groups: int(shape.groups),
            generated: int(shape.generated),
            negatives: int(shape.negatives),
            positives: int(shape.positives),
            targets: int(shape.targets()),
            dim: int(shape.dim),
            temperatures: int(spec.temperatures.len()),
            kernel: match spec.kernel {
                Kernel::Laplace => params::KernelKind_kLaplace,
                Kernel::Gaussian => params::KernelKind_kGaussian,
                Kernel::Matern32 => params::KernelKind_kMatern32,
                Kernel::Matern52 => params::KernelKind_kMatern52,
            },
            scale_kind: match spec.feature_scale {
                FeatureScale::Official => params::ScaleKind_kScaleOfficial,
                FeatureScale::Paper => params::ScaleKind_kScalePaper,
                FeatureScale::Raw => params::ScaleKind_kScaleRaw,
            },
            mask,
            floor_kind,
            weights: match spec.weights {
                WeightRule::Affinity => params::WeightKind_kWeightAffinity,
                WeightRule::Logit => params::WeightKind_kWeightLogit,
                WeightRule::Ignored => params::WeightKind_kWeightIgnored,
            },
            normalize,
            constant_self: spec.numerics.constant_self_distance.into(),
            mask_value: mask_value as f32,
            min_squared: spec.min_squared_distance as f32,
            affinity_floor: affinity_floor as f32,
            norm_floor,
            rate,
            generated_data: std::ptr::null(),
            negative_data: std::ptr::null(),
            positive_data: std::ptr::null(),
            generated_weight: std::ptr::null(),
            negative_weight: std::ptr::null(),
            positive_weight: std::ptr::null(),
            distances: array(layout.distances) as *mut _,
            row_least: array(layout.row_least) as *mut _,
            column_least: array(layout.column_least) as *mut _,
            row_log: array(layout.row_log) as *mut _,
            column_log: array(layout.column_log) as *mut _,
            mass: array(layout.mass) as *mut _,
            distance_sums: array(layout.distance_sums) as *mut _,
            norm_sums: array(layout.norm_sums) as *mut _,
            loss_sums: array(layout.loss_sums) as *mut _,
            scalars: array(layout.scalars) as *mut _,
            force: std::ptr::null_mut(),
            gradient: std::ptr::null_mut(),
            loss: std::ptr::null_mut(),
        }
    }
}
