//! A CUDA device as a backend of generators and their training: kernels/random.cu, network.cu, features.cu, update.cu, and
//! cuBLAS.

use std::ops::Range;
use std::sync::Arc;

use cudarc::cublas::{result as blas, result::CublasError, sys as blas_sys};
use cudarc::driver::{
    CudaContext, CudaFunction, CudaGraph, CudaSlice, CudaStream, CudaView, CudaViewMut, DevicePtr, DeviceRepr,
    LaunchConfig, PushKernelArg, sys,
};

use super::call::Pointers;
use super::context::{download, failed, room, upload};
use super::launch::{Kernels, Phase};
use super::params::{
    self, AheadCall, ClassCall, Conditions, JoinColumns, PatchExtents, RandomStream, TrainProgress, TransportCall,
    UpdateCall,
};
use super::transport::{Fields, Regression};
use super::{Gpu, Options, Plan, probe};
use crate::backend::{Backend, Batch, Head, LOSS_DECAY, Progress, Sampling, Weights, check_precision};
use crate::data::{Data, Source, Toy};
use crate::features::Patches;
use crate::generator::{Condition, Conditioning, Layer, Vector};
use crate::rng::Purpose;
use crate::train::classes::Buffers;
use crate::train::{Classes, Lookahead, Optimizer, Transport};
use crate::{DriftShape, DriftSpec, Dtype, Error, FeatureScale, Result};

pub(super) const OP: &str = "cuda training";
const OPERANDS: &str = "the operands of a product";
/// How cuBLAS multiplies f32; and bf16, with sums in f32 to the end.
const PEDANTIC: blas_sys::cublasMath_t = blas_sys::cublasMath_t::CUBLAS_PEDANTIC_MATH;
const FULL_SUMS: blas_sys::cublasMath_t = blas_sys::cublasMath_t::CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION;
const THREADS: usize = params::kThreads as usize;
const WARP: usize = 32;
const SUM_ROWS: usize = params::kSumRows as usize;
const SQUARE_BLOCKS: usize = params::kSquareBlocks as usize;

// SAFETY: `repr(C)`, made from the header that the kernels are compiled with; passed by value.
unsafe impl DeviceRepr for RandomStream {}
// SAFETY: as above.
unsafe impl DeviceRepr for JoinColumns {}
// SAFETY: as above.
unsafe impl DeviceRepr for Conditions {}
// SAFETY: as above.
unsafe impl DeviceRepr for ClassCall {}
// SAFETY: as above.
unsafe impl DeviceRepr for PatchExtents {}
// SAFETY: as above.
unsafe impl DeviceRepr for UpdateCall {}
// SAFETY: as above.
unsafe impl DeviceRepr for AheadCall {}
// SAFETY: as above.
unsafe impl DeviceRepr for TrainProgress {}

/// The first CUDA device, with a stream, the kernels and cuBLAS.
///
/// Products are cuBLAS's, in f32 throughout: TF32 is switched off, whatever the environment says. With
/// [`Dtype::Bf16`] their operands are rounded to that just before, and added up in f32. Everything is appended to one
/// stream; only what hands numbers to the caller waits.
pub struct Device {
    gpu: Gpu,
    stream: Arc<CudaStream>,
    kernels: Kernels,
    functions: Functions,
    blas: Blas,
    /// What cuBLAS works in: of its own it might allocate while a step is recorded.
    _room: CudaSlice<u8>,
    squares: CudaSlice<f64>,
    regression: Regression,
    precision: Dtype,
    /// The operands of a product, where they are rounded.
    operands: [CudaSlice<u16>; 2],
    record: Record,
}

/// cuBLAS's handle. cudarc's own panics where its end fails, as after a fault it does.
struct Blas(blas_sys::cublasHandle_t);

// SAFETY: a handle may go from thread to thread; it is used through `&mut Device` alone.
unsafe impl Send for Blas {}

impl Drop for Blas {
    fn drop(&mut self) {
        // SAFETY: made by cuBLAS, and not used hereafter. What it answers has nobody to go to.
        let _ = unsafe { blas::destroy_handle(self.0) };
    }
}

/// What there is of a repeated step.
enum Record {
    /// It has not run. The first time cuBLAS may load kernels, which cannot be recorded.
    None,
    /// It has run once.
    Warm,
    /// It is recorded.
    Graph(CudaGraph),
}

struct Functions {
    normals: CudaFunction,
    points: CudaFunction,
    toy_points: CudaFunction,
    swiss_roll: CudaFunction,
    narrow: CudaFunction,
    bias_silu: CudaFunction,
    add_bias: CudaFunction,
    silu_grad: CudaFunction,
    column_sums: CudaFunction,
    join_columns: CudaFunction,
    gather: CudaFunction,
    choose_data: CudaFunction,
    choose_labels: CudaFunction,
    load_classes: CudaFunction,
    condition_grad: CudaFunction,
    gain_sums: CudaFunction,
    normalize_grad: CudaFunction,
    normalize: CudaFunction,
    patches: CudaFunction,
    patches_grad: CudaFunction,
    cosine: CudaFunction,
    cosine_grad: CudaFunction,
    repeat: CudaFunction,
    accumulate: CudaFunction,
    take_loss: CudaFunction,
    exchange: CudaFunction,
    look_ahead: CudaFunction,
    ahead_loss: CudaFunction,
    scale_gradient: CudaFunction,
    grad_squares: CudaFunction,
    adamw: CudaFunction,
    end_step: CudaFunction,
}

/// Numbers on a device.
#[derive(Debug)]
pub struct DeviceArray {
    /// There is no empty allocation: an empty array has room for one number.
    slice: CudaSlice<f32>,
    len: usize,
    address: u64,
}

/// The data of a run, on a device.
#[derive(Debug)]
pub struct DeviceData {
    shape: DriftShape,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// With the greatest coordinate of each block.
    Toy(Toy, DeviceArray),
    Points(DeviceArray, usize),
    Classes(Box<DeviceClasses>),
}

/// Data with labels, their buffers, and what a step chooses.
#[derive(Debug)]
struct DeviceClasses {
    points: DeviceArray,
    call: ClassCall,
    /// They hold what the call points to.
    _numbers: [CudaSlice<u32>; 4],
    _counts: CudaSlice<u64>,
}

/// A drift on a device, or fields in its place.
#[derive(Debug)]
pub struct DeviceDrift {
    heads: Heads,
    ahead: Option<Box<Ahead>>,
}

/// What drifts ahead are taken at, and what they leave.
#[derive(Debug)]
struct Ahead {
    lookahead: Lookahead,
    /// The root of D where coordinates are in units of the scale, else 0.
    root: f64,
    term: DeviceArray,
    moved: DeviceArray,
    state: CudaSlice<f64>,
}

#[derive(Debug)]
enum Heads {
    Drift(Box<Drift>),
    Fields(Box<Fields>),
}

/// A drift of one head or several.
#[derive(Debug)]
struct Drift {
    plan: Plan,
    workspace: CudaSlice<u8>,
    /// What lies in the workspace of several heads' addresses and extents.
    table: Vec<u8>,
    /// Of every group, head after head; and how many groups each has.
    losses: DeviceArray,
    groups: CudaSlice<i32>,
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Device").field("gpu", &self.gpu).finish_non_exhaustive()
    }
}

/// Appends a launch of one-dimensional blocks of kThreads; nothing where there are no blocks.
macro_rules! launch {
    ($device:expr, $function:ident, $blocks:expr, $($argument:expr),+ $(,)?) => {{
        let blocks = u32::try_from($blocks).ok().filter(|blocks| *blocks <= i32::MAX as u32).ok_or_else(|| {
            Error::TooLarge { op: OP, what: "the grid of a launch", got: format!("{} blocks", $blocks) }
        })?;
        if blocks > 0 {
            let config =
                LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (THREADS as u32, 1, 1), shared_mem_bytes: 0 };
            let mut builder = $device.stream.launch_builder(&$device.functions.$function);
            $(let argument = $argument; builder.arg(&argument);)+
            // SAFETY: the arguments are those of the kernel of this name, in its order; the arrays are as long as the
            // extents beside them say, which `DeviceArray::part` has compared.
            unsafe { builder.launch(config) }.map_err(|error| failed(stringify!($function), error))?;
        }
        Ok::<(), Error>(())
    }};
}

impl Device {
    /// Opens the first device, and loads the kernels and cuBLAS.
    ///
    /// # Errors
    /// As [`probe()`] and [`Kernels::load`]; [`Error::LibraryMissing`] without cuBLAS; [`Error::Device`] and
    /// [`Error::Cublas`] where they fail.
    pub fn new() -> Result<Self> {
        let gpu = probe()?;
        // cudarc panics where the library is missing, so ask first.
        // SAFETY: loads a library, whose initialisation is harmless.
        if !unsafe { blas_sys::is_culib_present() } {
            let advice = "it comes with CUDA, or with `pip install nvidia-cublas`; have it in LD_LIBRARY_PATH";
            return Err(Error::LibraryMissing { library: "libcublas.so", advice });
        }
        let context = CudaContext::new(0).map_err(|error| failed("opening the device", error))?;
        // SAFETY: all arrays of this context are made and used on the one stream below.
        unsafe { context.disable_event_tracking() };
        let stream = context.new_stream().map_err(|error| failed("making a stream", error))?;
        let kernels = Kernels::load(&context)?;
        let function = |name| kernels.function(name);
        let functions = Functions {
            normals: function("normals")?,
            points: function("points")?,
            toy_points: function("toy_points")?,
            swiss_roll: function("swiss_roll")?,
            narrow: function("narrow")?,
            bias_silu: function("bias_silu")?,
            add_bias: function("add_bias")?,
            silu_grad: function("silu_grad")?,
            column_sums: function("column_sums")?,
            join_columns: function("join_columns")?,
            gather: function("gather")?,
            choose_data: function("choose_data")?,
            choose_labels: function("choose_labels")?,
            load_classes: function("load_classes")?,
            condition_grad: function("condition_grad")?,
            gain_sums: function("gain_sums")?,
            normalize_grad: function("normalize_grad")?,
            normalize: function("normalize")?,
            patches: function("patches")?,
            patches_grad: function("patches_grad")?,
            cosine: function("cosine")?,
            cosine_grad: function("cosine_grad")?,
            repeat: function("repeat")?,
            accumulate: function("accumulate")?,
            take_loss: function("take_loss")?,
            exchange: function("exchange")?,
            look_ahead: function("look_ahead")?,
            ahead_loss: function("ahead_loss")?,
            scale_gradient: function("scale_gradient")?,
            grad_squares: function("grad_squares")?,
            adamw: function("adamw")?,
            end_step: function("end_step")?,
        };
        let cublas = |error| failed_product("opening cuBLAS", error);
        let blas = Blas(blas::create_handle().map_err(cublas)?);
        // What NVIDIA recommends for a handle: 32 MiB from compute capability 9.0 on, 4 MiB before.
        let bytes = if gpu.capability >= (9, 0) { 32 << 20 } else { 4 << 20 };
        let workspace = room::<u8>(&stream, OP, "the workspace of cuBLAS", bytes)?;
        let handle = blas.0;
        // SAFETY: the handle is cuBLAS's, stream and workspace live as long.
        unsafe {
            blas::set_stream(handle, stream.cu_stream().cast()).map_err(cublas)?;
            blas_sys::cublasSetMathMode(handle, PEDANTIC).result().map_err(cublas)?;
            let address = workspace.device_ptr(&stream).0;
            blas_sys::cublasSetWorkspace_v2(handle, address as *mut _, bytes).result().map_err(cublas)?;
        }
        let regression = Regression::new(&stream, &kernels)?;
        let squares = room(&stream, OP, "sums of squares", SQUARE_BLOCKS)?;
        let operands = [room(&stream, OP, OPERANDS, 0)?, room(&stream, OP, OPERANDS, 0)?];
        let (precision, record) = (Dtype::F32, Record::None);
        Ok(Self {
            gpu,
            stream,
            kernels,
            functions,
            blas,
            _room: workspace,
            squares,
            regression,
            precision,
            operands,
            record,
        })
    }

    /// The device.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// The stream that everything is appended to.
    pub fn stream(&self) -> &Arc<CudaStream> {
        &self.stream
    }

    /// `C = op(A) op(B)` in cuBLAS's order, by columns; C is [m, n] and k the inner extent. There are no gaps.
    fn product(&mut self, operations: [bool; 2], [m, n, k]: [usize; 3], [a, b, c]: [(u64, usize); 3]) -> Result<()> {
        use blas_sys::cublasComputeType_t::CUBLAS_COMPUTE_32F;
        use blas_sys::cublasGemmAlgo_t::CUBLAS_GEMM_DFALT;
        use blas_sys::cublasOperation_t::{CUBLAS_OP_N, CUBLAS_OP_T};
        use blas_sys::cudaDataType_t::{CUDA_R_16BF, CUDA_R_32F};
        if m * n == 0 {
            return Ok(());
        }
        let [transpose_a, transpose_b] =
            operations.map(|transposed| if transposed { CUBLAS_OP_T } else { CUBLAS_OP_N });
        let (a_at, b_at, kind) = match self.precision {
            Dtype::Bf16 => (self.narrowed(0, a.0, m * k)?, self.narrowed(1, b.0, k * n)?, CUDA_R_16BF),
            _ => (a.0, b.0, CUDA_R_32F),
        };
        let (one, zero) = (1.0f32, 0.0f32);
        let [m, n, k, lda, ldb, ldc] = integers([m, n, k, a.1, b.1, c.1])?;
        // SAFETY: the arrays are as long as the extents say, which `DeviceArray::part` has compared.
        let answer = unsafe {
            blas::gemm_ex(
                self.blas.0,
                transpose_a,
                transpose_b,
                m,
                n,
                k,
                (&raw const one).cast(),
                a_at as *const _,
                kind,
                lda,
                b_at as *const _,
                kind,
                ldb,
                (&raw const zero).cast(),
                c.0 as *mut _,
                CUDA_R_32F,
                ldc,
                CUBLAS_COMPUTE_32F,
                CUBLAS_GEMM_DFALT,
            )
        };
        answer.map_err(|error| failed_product("a product", error))
    }

    /// An operand in bf16. Room is made in the first step: the same products are recorded.
    fn narrowed(&mut self, which: usize, from: u64, count: usize) -> Result<u64> {
        if self.operands[which].len() < count {
            self.operands[which] = room(&self.stream, OP, OPERANDS, count)?;
        }
        let to = self.operands[which].device_ptr(&self.stream).0;
        launch!(self, narrow, count.div_ceil(THREADS), count as i64, from, to)?;
        Ok(to)
    }

    fn classes(&self, data: &Data, classes: &Classes, seed: u64, step: u64) -> Result<DeviceClasses> {
        const MOST: usize = params::kMaxChoice as usize;
        let (buffers, labels, values) = Buffers::of(classes, data, seed, step)?;
        let Classes { loaded, class_buffer, buffer, .. } = *classes;
        for (argument, count) in
            [("loaded per step", loaded), ("a class's buffer", class_buffer), ("the buffer of all classes", buffer)]
        {
            if count > MOST {
                return Err(Error::value(OP, argument, format!("at most {MOST} on a device"), count));
            }
        }
        const BUFFERS: &str = "the buffers of classes";
        let copy = |values: &[u32]| upload(&self.stream, OP, BUFFERS, values);
        let chosen = |count: usize| room(&self.stream, OP, "the choices of a step", classes.labels * count);
        let numbers =
            [copy(&labels.of)?, copy(&buffers.of_class)?, chosen(classes.positives)?, chosen(classes.negatives)?];
        let counts = upload(&self.stream, OP, BUFFERS, &buffers.counts)?;
        let address = |slice: &CudaSlice<u32>| slice.device_ptr(&self.stream).0;
        let extents = [data.dim(), labels.classes, classes.labels, classes.generated, classes.positives];
        let [dim, kinds, slots, generated, positives] = integers(extents)?;
        let [negatives, loaded, class_buffer, buffer] = integers([classes.negatives, loaded, class_buffer, buffer])?;
        let law = classes.law();
        let call = ClassCall {
            key: [seed as u32, (seed >> 32) as u32],
            count: labels.of.len() as i64,
            dim,
            classes: kinds,
            labels: slots,
            generated,
            positives,
            negatives,
            loaded,
            class_buffer,
            buffer,
            from: law.from,
            by: law.by,
            over: law.over,
            unguided: classes.unguided as f32,
            data_labels: address(&numbers[0]) as *const _,
            of_class: address(&numbers[1]) as *mut _,
            counts: counts.device_ptr(&self.stream).0 as *mut _,
            chosen_positives: address(&numbers[2]) as *mut _,
            chosen_negatives: address(&numbers[3]) as *mut _,
            ..ClassCall::default()
        };
        let points = self.upload("the data", values)?;
        Ok(DeviceClasses { points, call, _numbers: numbers, _counts: counts })
    }

    fn plan(&self, spec: &DriftSpec, shapes: &[DriftShape]) -> Result<Plan> {
        let options = Options { shared_bytes: self.kernels.shared_bytes(), ..Options::default() };
        Plan::grouped(spec, shapes, Dtype::F32, options)
    }

    /// The gradients of all heads, and the sum of their losses.
    fn one_gradient(
        &mut self,
        own: &mut Heads,
        heads: &mut [Head<'_, DeviceArray>],
        progress: &CudaSlice<TrainProgress>,
    ) -> Result<()> {
        let Drift { plan, workspace, table, losses, groups } = match own {
            Heads::Drift(drift) => &mut **drift,
            Heads::Fields(fields) => {
                return fields.gradient(&self.stream, &self.kernels, &self.regression, heads, progress);
            }
        };
        if heads.len() != plan.shapes().len() {
            return Err(Error::shape(OP, "heads", [plan.shapes().len()], [heads.len()]));
        }
        let mut first = 0;
        let mut pointers = Vec::with_capacity(heads.len());
        for (head, shape) in heads.iter().zip(plan.shapes()) {
            let elements = |count: usize| shape.groups * count * shape.dim;
            let [negatives, weights] = head.negatives;
            let weights = match shape.negatives {
                0 => 0,
                count => weights.first(shape.groups * count)?,
            };
            let own = match head.own {
                None => 0,
                Some(own) => own.first(shape.groups * shape.generated)?,
            };
            pointers.push(Pointers {
                samples: [
                    head.generated.first(elements(shape.generated))?,
                    negatives.first(elements(shape.negatives))?,
                    head.positives.first(elements(shape.positives))?,
                ],
                weights: [own, weights, 0],
                gradient: head.gradient.first(elements(shape.generated))?,
                loss: losses.part(first..first + shape.groups)?,
                ..Pointers::default()
            });
            first += shape.groups;
        }
        let call = plan.call(&pointers, workspace.device_ptr(&self.stream).0);
        if call.table() != table {
            let offset = plan.table_offset();
            *table = call.table().to_vec();
            let mut place = workspace.slice_mut(offset..offset + table.len());
            let copied = self.stream.memcpy_htod(table.as_slice(), &mut place);
            copied.map_err(|error| failed("copying to the device", error))?;
        }
        for phase in Phase::RUN {
            // SAFETY: the arrays have the plan's extents, compared above, and alias nothing; they belong to this stream's
            // context and are freed on this stream.
            unsafe { plan.launch(&self.kernels, &self.stream, &call, phase) }?;
        }
        // The first head's scalars lie at the start of the workspace.
        let scalars = workspace.device_ptr(&self.stream).0;
        let progress = progress.device_ptr(&self.stream).0;
        let [count] = integers([heads.len()])?;
        let of_each = groups.device_ptr(&self.stream).0;
        launch!(self, take_loss, 1usize, scalars, losses.address, of_each, count, progress)?;
        for (head, shape) in heads.iter().zip(plan.shapes()).filter(|(_, shape)| shape.groups > 1) {
            let count = shape.groups * shape.generated * shape.dim;
            let (share, gradient) = (1.0 / shape.groups as f32, head.gradient.address);
            launch!(self, scale_gradient, count.div_ceil(THREADS), count as i64, share, gradient)?;
        }
        Ok(())
    }

    /// The gradient of one head by way of drifts ahead.
    fn ahead(
        &mut self,
        own: &mut Heads,
        ahead: &mut Ahead,
        heads: &mut [Head<'_, DeviceArray>],
        progress: &CudaSlice<TrainProgress>,
    ) -> Result<()> {
        let Ahead { lookahead, root, term, moved, state } = ahead;
        let [head] = heads else { return Err(Error::shape(OP, "heads", [1], [heads.len()])) };
        let count = term.len;
        let blocks = count.div_ceil(THREADS).min(SQUARE_BLOCKS);
        let squares = self.squares.device_ptr(&self.stream).0 as *mut _;
        let summed = |grad| UpdateCall { count: count as i64, grad, squares, ..UpdateCall::default() };
        let call = AheadCall {
            count: count as i64,
            blocks: blocks as i32, // SQUARE_BLOCKS at most
            step: lookahead.step,
            root: *root,
            x: head.generated.first(count)? as *const _,
            term: term.address as *const _,
            moved: moved.address as *mut _,
            total: head.gradient.first(count)? as *mut _,
            squares,
            state: state.device_ptr(&self.stream).0 as *mut _,
            progress: progress.device_ptr(&self.stream).0 as *mut _,
            ..AheadCall::default()
        };
        for (m, weight) in lookahead.weights.iter().enumerate() {
            let generated = if m == 0 { head.generated } else { &*moved };
            let at = Head { generated, gradient: &mut *term, ..*head };
            self.one_gradient(own, &mut [at], progress)?;
            launch!(self, grad_squares, blocks, summed(term.address as *mut _))?;
            let more = (m + 1 < lookahead.weights.len()).into();
            launch!(self, look_ahead, blocks, AheadCall { first: (m == 0).into(), more, weight: *weight, ..call })?;
        }
        launch!(self, grad_squares, blocks, summed(call.total))?;
        launch!(self, ahead_loss, 1usize, call)
    }

    /// `y = x W^T`.
    fn forward(
        &mut self,
        layer: &Layer,
        parameters: &DeviceArray,
        n: usize,
        x: &DeviceArray,
        y: &DeviceArray,
    ) -> Result<()> {
        let Layer { input, output, .. } = *layer;
        let weight = parameters.part(layer.weight())?;
        let operands = [(weight, input), (x.first(n * input)?, input), (y.first(n * output)?, output)];
        self.product([true, false], [output, n, input], operands)
    }
}

impl DeviceArray {
    /// The address of a part: kernels cannot see where an array ends.
    fn part(&self, range: Range<usize>) -> Result<u64> {
        if range.end > self.len {
            return Err(Error::shape(OP, "an array", format!("{} numbers or more", range.end), [self.len]));
        }
        Ok(self.address + (range.start * size_of::<f32>()) as u64)
    }

    /// The address of the first `count` numbers.
    pub(super) fn first(&self, count: usize) -> Result<u64> {
        self.part(0..count)
    }

    /// The first `count` numbers, for kernels and copies of the caller's on [`Device::stream`].
    ///
    /// # Errors
    /// [`Error::Shape`] where there are fewer.
    pub fn view(&self, count: usize) -> Result<CudaView<'_, f32>> {
        self.first(count)?;
        Ok(self.slice.slice(..count))
    }

    /// As [`DeviceArray::view`], to write to.
    ///
    /// # Errors
    /// As [`DeviceArray::view`].
    pub fn view_mut(&mut self, count: usize) -> Result<CudaViewMut<'_, f32>> {
        self.first(count)?;
        Ok(self.slice.slice_mut(..count))
    }
}

/// Where a block's sums of the columns of [n, width] go.
struct Stripes {
    blocks: usize,
    n: i32,
    width: i32,
    columns: i32,
    first: i32,
    sums: u64,
}

impl Stripes {
    fn new(vector: &Vector, n: usize, sums: &DeviceArray) -> Result<Self> {
        let columns = columns(sums, n);
        let end = vector.column + vector.len;
        if n > 0 && end > columns {
            return Err(Error::shape(OP, "sums", format!("{end} columns or more"), [columns]));
        }
        let blocks = n.div_ceil(SUM_ROWS) * vector.len.div_ceil(WARP);
        let [n, width, columns, first] = integers([n, vector.len, columns, vector.column])?;
        Ok(Self { blocks, n, width, columns, first, sums: sums.address })
    }
}

impl Backend for Device {
    type Array = DeviceArray;
    type Data = DeviceData;
    type Drift = DeviceDrift;
    type Progress = CudaSlice<TrainProgress>;

    fn set_precision(&mut self, precision: Dtype) -> Result<()> {
        check_precision(precision)?;
        let mode = if precision == Dtype::Bf16 { FULL_SUMS } else { PEDANTIC };
        // SAFETY: the handle is cuBLAS's, and destroyed with this device alone.
        unsafe { blas_sys::cublasSetMathMode(self.blas.0, mode) }
            .result()
            .map_err(|error| failed_product("choosing the precision", error))?;
        (self.precision, self.record) = (precision, Record::None);
        Ok(())
    }

    fn array(&self, what: &'static str, len: usize) -> Result<DeviceArray> {
        let mut slice = room(&self.stream, OP, what, len)?;
        self.stream.memset_zeros(&mut slice).map_err(|error| failed("clearing an array", error))?;
        let address = slice.device_ptr(&self.stream).0;
        Ok(DeviceArray { slice, len, address })
    }

    fn upload(&self, what: &'static str, values: &[f32]) -> Result<DeviceArray> {
        let slice = upload(&self.stream, OP, what, values)?;
        let address = slice.device_ptr(&self.stream).0;
        Ok(DeviceArray { slice, len: values.len(), address })
    }

    fn download(&self, array: &DeviceArray, len: usize) -> Result<Vec<f32>> {
        array.first(len)?;
        download(&self.stream, &array.slice, len)
    }

    fn len(array: &DeviceArray) -> usize {
        array.len
    }

    fn sums(&self, n: usize, biases: usize) -> usize {
        n.div_ceil(SUM_ROWS).saturating_mul(biases)
    }

    fn progress(&self, progress: &Progress) -> Result<CudaSlice<TrainProgress>> {
        let Progress { step, diverged, loss, loss_ema, scale, grad_norm } = *progress;
        let progress = TrainProgress { step, diverged, coming_loss: f64::NAN, loss, loss_ema, scale, grad_norm };
        upload(&self.stream, OP, "the run's scalars", &[progress])
    }

    fn read(&self, progress: &CudaSlice<TrainProgress>) -> Result<Progress> {
        let values = download(&self.stream, progress, 1)?;
        let TrainProgress { step, diverged, loss, loss_ema, scale, grad_norm, .. } = values[0];
        Ok(Progress { step, diverged, loss, loss_ema, scale, grad_norm })
    }

    fn data(&self, data: &Data, sampling: &Sampling, seed: u64, step: u64) -> Result<DeviceData> {
        let shape = sampling.shape(data.dim());
        let kind = match (data.source(), sampling) {
            (_, Sampling::Classes(classes)) => Kind::Classes(Box::new(self.classes(data, classes, seed, step)?)),
            (Source::Toy(toy), Sampling::Batch(n) | Sampling::Halves(n)) => {
                Kind::Toy(*toy, self.array("the data", n.div_ceil(THREADS))?)
            }
            (Source::Points { values, dim, .. }, _) => Kind::Points(self.upload("the data", values)?, *dim),
        };
        Ok(DeviceData { shape, kind })
    }

    fn drift(&self, spec: &DriftSpec, shapes: &[DriftShape]) -> Result<DeviceDrift> {
        let plan = self.plan(spec, shapes)?;
        let workspace = room(&self.stream, OP, "the workspace of the drift", plan.workspace_bytes())?;
        let groups: Vec<i32> = shapes.iter().map(|shape| shape.groups as i32).collect(); // the plan has compared them
        let losses = self.array("the losses", shapes.iter().map(|shape| shape.groups).sum())?;
        let groups = upload(&self.stream, OP, "the losses", &groups)?;
        let drift = Drift { plan, workspace, table: Vec::new(), losses, groups };
        Ok(DeviceDrift { heads: Heads::Drift(Box::new(drift)), ahead: None })
    }

    fn field(&self, field: &Transport, shapes: &[DriftShape], seed: u64) -> Result<DeviceDrift> {
        let fields = Fields::new(&self.stream, &self.kernels, field, shapes, seed)?;
        Ok(DeviceDrift { heads: Heads::Fields(Box::new(fields)), ahead: None })
    }

    fn look_ahead(&self, drift: &mut DeviceDrift, lookahead: &Lookahead) -> Result<()> {
        let (shapes, raw) = match &drift.heads {
            Heads::Drift(drift) => {
                (drift.plan.shapes().collect(), drift.plan.spec().feature_scale == FeatureScale::Raw)
            }
            Heads::Fields(fields) => (fields.shapes().collect::<Vec<_>>(), true),
        };
        lookahead.check(shapes.len())?;
        let DriftShape { groups, generated, dim, .. } = shapes[0];
        let array = || self.array("the drifts ahead", groups * generated * dim);
        let root = if raw { 0.0 } else { (dim as f64).sqrt() };
        let state = room(&self.stream, OP, "the drifts ahead", 3)?;
        let (term, moved) = (array()?, array()?);
        drift.ahead = Some(Box::new(Ahead { lookahead: lookahead.clone(), root, term, moved, state }));
        Ok(())
    }

    fn set_temperatures(&self, drift: &mut DeviceDrift, temperatures: &[f64]) -> Result<()> {
        let drift = match &mut drift.heads {
            Heads::Drift(drift) => drift,
            Heads::Fields(fields) => return fields.set_bandwidth(&self.stream, &self.kernels, temperatures),
        };
        let spec = DriftSpec { temperatures: temperatures.to_vec(), ..drift.plan.spec().clone() };
        let plan = self.plan(&spec, &drift.plan.shapes().collect::<Vec<_>>())?;
        // Extents and the number of temperatures decide the workspace.
        if plan.workspace_bytes() > drift.workspace.len() {
            let (expected, got) = ([drift.workspace.len()], [plan.workspace_bytes()]);
            return Err(Error::shape(OP, "the workspace for other temperatures", expected, got));
        }
        drift.plan = plan;
        Ok(())
    }

    fn draw(
        &mut self,
        from: &mut DeviceData,
        seed: u64,
        progress: &CudaSlice<TrainProgress>,
        Batch { noise: (noise, width), condition, targets }: Batch<'_, DeviceArray>,
    ) -> Result<()> {
        let progress = progress.device_ptr(&self.stream).0;
        let stream = |purpose: Purpose| RandomStream {
            key: [seed as u32, (seed >> 32) as u32],
            purpose: purpose as u32,
            progress: progress as *const _,
        };
        let count = from.shape.groups * from.shape.generated * width;
        let quads = count.div_ceil(4).div_ceil(THREADS);
        launch!(self, normals, quads, stream(Purpose::Noise), count as i64, noise.first(count)?)?;
        let DriftShape { groups, negatives, positives, dim, .. } = from.shape;
        let data = targets.positives.first(groups * positives * dim)?;
        // In order, whatever the groups.
        let (stream, n) = (stream(Purpose::Data), groups * positives);
        match &from.kind {
            Kind::Classes(classes) => {
                let Some(condition) = condition else {
                    return Err(Error::value(OP, "condition", "room for the labels of a step", "none"));
                };
                let call = ClassCall {
                    progress: progress as *const _,
                    weights: targets.weights.first(groups * negatives)? as *mut _,
                    step_labels: condition.labels.first(groups)? as *mut _,
                    guidance: condition.guidance.first(groups)? as *mut _,
                    ..classes.call
                };
                let others = targets.negatives.first(groups * negatives * dim)?;
                launch!(self, load_classes, 1usize, call)?;
                launch!(self, choose_labels, 1usize, call)?;
                launch!(self, choose_data, 2 * groups, call)?;
                for (count, numbers, to) in [
                    (groups * positives, call.chosen_positives, data),
                    (groups * negatives, call.chosen_negatives, others),
                ] {
                    let (rows, from) = (count.div_ceil(THREADS / WARP), classes.points.address);
                    launch!(self, gather, rows, count as i64, dim as i64, from, numbers as u64, to)?;
                }
                Ok(())
            }
            Kind::Points(points, dim) => {
                let rows = n.div_ceil(THREADS / WARP);
                let (n, count) = (n as i64, (points.len / dim) as i64);
                launch!(self, points, rows, stream, n, *dim as i64, points.address, count, data)
            }
            Kind::Toy(toy, greatest) => {
                let kind = match toy {
                    Toy::SwissRoll => params::ToyKind_kSwissRoll,
                    Toy::Checkerboard => params::ToyKind_kCheckerboard,
                    Toy::TwoMoons => params::ToyKind_kTwoMoons,
                    Toy::Ring => params::ToyKind_kRing,
                };
                let blocks = n.div_ceil(THREADS);
                let [n, count] = integers([n, blocks])?;
                launch!(self, toy_points, blocks, stream, kind, n, data, greatest.address)?;
                let blocks = if *toy == Toy::SwissRoll { blocks } else { 0 };
                launch!(self, swiss_roll, blocks, stream, n, data, greatest.address, count)
            }
        }
    }

    fn hidden(
        &mut self,
        layer: &Layer,
        parameters: &DeviceArray,
        n: usize,
        x: &DeviceArray,
        condition: Option<(&Conditioning, &Condition<DeviceArray>)>,
        z: &mut DeviceArray,
        y: &mut DeviceArray,
    ) -> Result<()> {
        self.forward(layer, parameters, n, x, z)?;
        let (count, bias) = (n * layer.output, parameters.part(layer.bias.range())?);
        let [width] = integers([layer.output])?;
        let conditions = condition.map_or(Ok(Conditions::default()), |c| conditions(c, layer.output, parameters, n))?;
        let (z, y) = (z.address, y.first(count)?);
        launch!(self, bias_silu, count.div_ceil(THREADS), count as i64, width, bias, conditions, z, y)
    }

    fn linear(
        &mut self,
        layer: &Layer,
        parameters: &DeviceArray,
        n: usize,
        x: &DeviceArray,
        h: Option<&DeviceArray>,
        y: &mut DeviceArray,
    ) -> Result<()> {
        self.forward(layer, parameters, n, x, y)?;
        let (count, bias) = (n * layer.output, parameters.part(layer.bias.range())?);
        let [width] = integers([layer.output])?;
        let past = h.map_or(Ok(0), |h| h.first(count))?;
        launch!(self, add_bias, count.div_ceil(THREADS), count as i64, width, bias, past, y.address)
    }

    fn normalize(
        &mut self,
        gain: &Vector,
        parameters: &DeviceArray,
        n: usize,
        x: &DeviceArray,
        inverse: &mut DeviceArray,
        y: &mut DeviceArray,
    ) -> Result<()> {
        let [width] = integers([gain.len])?;
        let (rows, count) = (n.div_ceil(THREADS / WARP), n * gain.len);
        let (gain, x, inverse, y) =
            (parameters.part(gain.range())?, x.first(count)?, inverse.first(n)?, y.first(count)?);
        launch!(self, normalize, rows, n as i64, width, gain, x, inverse, y)
    }

    fn normalize_grad(
        &mut self,
        gain: &Vector,
        parameters: &DeviceArray,
        n: usize,
        [x, inverse, dy]: [&DeviceArray; 3],
        dx: &mut DeviceArray,
        add: bool,
        _grad: &mut DeviceArray,
        sums: &mut DeviceArray,
    ) -> Result<()> {
        let (rows, count) = (n.div_ceil(THREADS / WARP), n * gain.len);
        let (x, inverse, dy, dx) = (x.first(count)?, inverse.first(n)?, dy.first(count)?, dx.first(count)?);
        let values = parameters.part(gain.range())?;
        let Stripes { blocks, n: lines, width, columns, first, sums } = Stripes::new(gain, n, sums)?;
        launch!(self, normalize_grad, rows, n as i64, width, values, x, inverse, dy, dx, i32::from(add))?;
        launch!(self, gain_sums, blocks, lines, width, x, inverse, dy, sums, columns, first)
    }

    fn exchange(&mut self, count: usize, from: &DeviceArray, to: &mut DeviceArray) -> Result<()> {
        let (from, to) = (from.first(count)?, to.first(count)?);
        launch!(self, exchange, count.div_ceil(THREADS), (count / 2) as i64, from, to)
    }

    fn regress(
        &mut self,
        field: &Transport,
        count: usize,
        velocity: &mut DeviceArray,
        progress: &mut CudaSlice<TrainProgress>,
    ) -> Result<()> {
        let place = velocity.first(count)?;
        let call = TransportCall {
            count: count as i64,
            generated: 1,
            dim: 1,
            velocity: params::VelocityKind_kOneProduct,
            normalize: field.normalize.into(),
            first: 1,
            step: field.step,
            towards_p: place as *const _,
            gradient: place as *mut _,
            progress: progress.device_ptr(&self.stream).0 as *mut _,
            ..TransportCall::default()
        };
        self.regression.launch(&self.stream, call)
    }

    fn gradient(
        &mut self,
        drift: &mut DeviceDrift,
        heads: &mut [Head<'_, DeviceArray>],
        progress: &mut CudaSlice<TrainProgress>,
    ) -> Result<()> {
        match &mut drift.ahead {
            None => self.one_gradient(&mut drift.heads, heads, progress),
            Some(ahead) => self.ahead(&mut drift.heads, ahead, heads, progress),
        }
    }

    fn patches(
        &mut self,
        patches: &Patches,
        n: usize,
        x: &DeviceArray,
        mean: &mut DeviceArray,
        deviation: Option<&mut DeviceArray>,
    ) -> Result<()> {
        let count = patches.count() * patches.channels * n;
        let (x, extents) = (x.first(n * patches.pixels() * patches.channels)?, extents(patches)?);
        let (mean, deviation) = (mean.first(count)?, deviation.map_or(Ok(0), |deviation| deviation.first(count))?);
        launch!(self, patches, count.div_ceil(THREADS), n as i64, extents, x, mean, deviation)
    }

    fn patches_grad(
        &mut self,
        patches: &Patches,
        n: usize,
        x: &DeviceArray,
        mean: [&DeviceArray; 2],
        deviation: Option<[&DeviceArray; 2]>,
        dx: &mut DeviceArray,
    ) -> Result<()> {
        let (count, of_patches) = (n * patches.pixels() * patches.channels, patches.count() * patches.channels * n);
        let (x, dx, extents) = (x.first(count)?, dx.first(count)?, extents(patches)?);
        let pair = |[value, by]: [&DeviceArray; 2]| Ok((value.first(of_patches)?, by.first(of_patches)?));
        let ((mean, by_mean), (deviation, by_deviation)) = (pair(mean)?, deviation.map_or(Ok((0, 0)), pair)?);
        let blocks = count.div_ceil(THREADS);
        let (count, n) = (count as i64, n as i64);
        launch!(self, patches_grad, blocks, count, n, extents, x, mean, by_mean, deviation, by_deviation, dx)
    }

    fn cosine(&mut self, count: usize, factor: f32, z: &DeviceArray, y: &mut DeviceArray) -> Result<()> {
        launch!(self, cosine, count.div_ceil(THREADS), count as i64, factor, z.first(count)?, y.first(count)?)
    }

    fn cosine_grad(&mut self, count: usize, factor: f32, z: &DeviceArray, dy: &mut DeviceArray) -> Result<()> {
        launch!(self, cosine_grad, count.div_ceil(THREADS), count as i64, factor, z.first(count)?, dy.first(count)?)
    }

    fn tile(&mut self, count: usize, times: usize, from: &DeviceArray, to: &mut DeviceArray) -> Result<()> {
        let (from, to) = (from.first(count)?, to.first(count * times)?);
        launch!(self, repeat, (count * times).div_ceil(THREADS), count as i64, times as i64, from, to)
    }

    fn add(&mut self, count: usize, x: &DeviceArray, y: &mut DeviceArray) -> Result<()> {
        launch!(self, accumulate, count.div_ceil(THREADS), count as i64, x.first(count)?, y.first(count)?)
    }

    fn clear(&mut self, array: &mut DeviceArray) -> Result<()> {
        self.stream.memset_zeros(&mut array.slice).map_err(|error| failed("clearing an array", error))
    }

    fn note_bias(&mut self, bias: &Vector, n: usize, dy: &DeviceArray, sums: &mut DeviceArray) -> Result<()> {
        let dy = dy.first(n * bias.len)?;
        let Stripes { blocks, n, width, columns, first, sums } = Stripes::new(bias, n, sums)?;
        launch!(self, column_sums, blocks, n, width, dy, sums, columns, first)
    }

    fn weight_grad(
        &mut self,
        layer: &Layer,
        n: usize,
        x: &DeviceArray,
        dy: &DeviceArray,
        grad: &mut DeviceArray,
    ) -> Result<()> {
        let Layer { input, output, .. } = *layer;
        let to = grad.part(layer.weight())?;
        let operands = [(x.first(n * input)?, input), (dy.first(n * output)?, output), (to, input)];
        self.product([false, true], [input, output, n], operands)
    }

    fn input_grad(
        &mut self,
        layer: &Layer,
        parameters: &DeviceArray,
        n: usize,
        dy: &DeviceArray,
        silu: Option<(&DeviceArray, &Vector)>,
        dx: &mut DeviceArray,
        sums: &mut DeviceArray,
    ) -> Result<()> {
        let Layer { input, output, .. } = *layer;
        let weight = parameters.part(layer.weight())?;
        let operands = [(weight, input), (dy.first(n * output)?, output), (dx.first(n * input)?, input)];
        self.product([false, false], [input, n, output], operands)?;
        silu.map_or(Ok(()), |(z, bias)| self.silu_grad(bias, n, z, dx, sums))
    }

    fn silu_grad(
        &mut self,
        bias: &Vector,
        n: usize,
        z: &DeviceArray,
        dz: &mut DeviceArray,
        sums: &mut DeviceArray,
    ) -> Result<()> {
        let (z, dz) = (z.first(n * bias.len)?, dz.first(n * bias.len)?);
        let Stripes { blocks, n, width, columns, first, sums } = Stripes::new(bias, n, sums)?;
        launch!(self, silu_grad, blocks, n, width, z, dz, sums, columns, first)
    }

    fn condition_grad(
        &mut self,
        (places, condition): (&Conditioning, &Condition<DeviceArray>),
        n: usize,
        dz: &DeviceArray,
        grad: &mut DeviceArray,
    ) -> Result<()> {
        let conditions = conditions((places, condition), places.width, grad, n)?;
        let (dz, by_class) = (dz.first(n * places.width)?, grad.part(places.table.clone())?);
        let by_vector = places.guidance.clone().map_or(Ok(0), |range| grad.part(range))?;
        let kinds = places.classes + usize::from(by_vector != 0);
        let blocks = kinds * places.width.div_ceil(WARP);
        let [n, classes, width] = integers([n, places.classes, places.width])?;
        launch!(self, condition_grad, blocks, n, classes, width, conditions, dz, by_class, by_vector)
    }

    fn join_sums(&mut self, vectors: &[Vector], n: usize, sums: &DeviceArray, grad: &mut DeviceArray) -> Result<()> {
        let columns = columns(sums, n);
        for vectors in vectors.chunks(params::kJoinVectors as usize) {
            let [count, tiles, columns] = integers([vectors.len(), n.div_ceil(SUM_ROWS), columns])?;
            let mut call = JoinColumns { vectors: count, tiles, columns, ..JoinColumns::default() };
            for (k, vector) in vectors.iter().enumerate() {
                Stripes::new(vector, n, sums)?;
                grad.part(vector.range())?;
                [call.first[k], call.count[k]] = integers([vector.column, vector.len])?;
                call.to[k] = vector.start as i64;
            }
            let numbers: usize = vectors.iter().map(|vector| vector.len).sum();
            launch!(self, join_columns, numbers.div_ceil(THREADS), call, sums.address, grad.address)?;
        }
        Ok(())
    }

    fn update(
        &mut self,
        optimizer: &Optimizer,
        weights: &mut Weights<DeviceArray>,
        progress: &mut CudaSlice<TrainProgress>,
    ) -> Result<()> {
        let count = weights.parameters.len;
        let blocks = count.div_ceil(THREADS).min(SQUARE_BLOCKS);
        let [in_order] = integers([blocks])?;
        let call = UpdateCall {
            count: count as i64,
            blocks: in_order,
            warmup: optimizer.warmup,
            learning_rate: optimizer.learning_rate,
            beta1: optimizer.beta1,
            beta2: optimizer.beta2,
            weight_decay: optimizer.weight_decay,
            clip_norm: optimizer.clip_norm,
            first: optimizer.beta1 as f32,
            second: optimizer.beta2 as f32,
            rest1: (1.0 - optimizer.beta1) as f32,
            rest2: (1.0 - optimizer.beta2) as f32,
            epsilon: optimizer.epsilon as f32,
            ema_rest: (1.0 - optimizer.ema_decay) as f32,
            parameters: weights.parameters.address as *mut _,
            grad: weights.grad.first(count)? as *mut _,
            moment1: weights.first.first(count)? as *mut _,
            moment2: weights.second.first(count)? as *mut _,
            ema: weights.ema.first(count)? as *mut _,
            squares: self.squares.device_ptr(&self.stream).0 as *mut _,
            progress: progress.device_ptr(&self.stream).0 as *mut _,
        };
        launch!(self, grad_squares, blocks, call)?;
        launch!(self, adamw, blocks, call)?;
        launch!(self, end_step, 1usize, call.progress as u64, LOSS_DECAY)
    }

    fn forget(&mut self) {
        self.record = Record::None;
    }

    fn repeat(&mut self, step: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        match &self.record {
            Record::None => {
                step(self)?;
                self.record = Record::Warm;
                return Ok(());
            }
            Record::Warm => {
                let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
                self.stream.begin_capture(mode).map_err(|error| failed("recording a step", error))?;
                let appended = step(self);
                // Also after an error, or the stream would go on recording.
                let graph = self.stream.end_capture(sys::CUgraphInstantiate_flags(0));
                appended?;
                let graph = graph.map_err(|error| failed("recording a step", error))?;
                self.record = graph.map_or(Record::Warm, Record::Graph);
            }
            Record::Graph(_) => {}
        }
        match &self.record {
            Record::Graph(graph) => graph.launch().map_err(|error| failed("repeating a step", error)),
            _ => Ok(()),
        }
    }

    fn finish(&self) -> Result<()> {
        self.stream.synchronize().map_err(|error| failed("waiting for the device", error))
    }
}

/// Numbers in all vectors whose sums are noted.
fn columns(sums: &DeviceArray, n: usize) -> usize {
    sums.len.checked_div(n.div_ceil(SUM_ROWS)).unwrap_or(0)
}

/// What class and guidance scale add, from the parameters.
fn conditions(
    (places, condition): (&Conditioning, &Condition<DeviceArray>),
    width: usize,
    parameters: &DeviceArray,
    n: usize,
) -> Result<Conditions> {
    if places.width != width {
        return Err(Error::shape(OP, "vectors of classes", [places.classes, width], [places.classes, places.width]));
    }
    let slots = condition.slots;
    if slots.checked_mul(n.checked_div(slots).unwrap_or(0)) != Some(n) {
        return Err(Error::value(OP, "groups of samples", format!("a divisor of {n}"), slots));
    }
    let [rows, classes] = integers([n.checked_div(slots).unwrap_or(0), places.classes])?;
    let vector = places.guidance.clone().map_or(Ok(0), |range| parameters.part(range))?;
    Ok(Conditions {
        rows,
        classes,
        labels: condition.labels.first(slots)? as *const _,
        guidance: condition.guidance.first(slots)? as *const _,
        table: parameters.part(places.table.clone())? as *const _,
        vector: vector as *const _,
    })
}

fn extents(patches: &Patches) -> Result<PatchExtents> {
    let [size, height, width, channels] = integers([patches.size, patches.height, patches.width, patches.channels])?;
    Ok(PatchExtents { size, height, width, channels })
}

/// Extents as the kernels and cuBLAS count.
fn integers<const N: usize>(extents: [usize; N]) -> Result<[i32; N]> {
    match extents.iter().max() {
        Some(&most) if i32::try_from(most).is_err() => {
            Err(Error::TooLarge { op: OP, what: "an extent of a product", got: most.to_string() })
        }
        _ => Ok(extents.map(|extent| extent as i32)),
    }
}

fn failed_product(op: &'static str, error: CublasError) -> Error {
    Error::Cublas { op, problem: format!("{:?}", error.0) }
}
