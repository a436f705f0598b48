//! The official drift without fusion: what an implementation of products and elementwise kernels launches and moves, to
//! compare with. Its kernels are compiled by NVRTC where they are used.

use std::ffi::c_void;
use std::sync::Arc;

use cudrift::DriftShape;
use cudrift::cuda::cudarc;

use cudarc::cublas::sys::cublasOperation_t::{self as Operation, CUBLAS_OP_N, CUBLAS_OP_T};
use cudarc::cublas::{CudaBlas, result as blas, sys};
use cudarc::driver::sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES as SHARED_BYTES;
use cudarc::driver::{CudaModule, CudaSlice, CudaStream, DevicePtr, DeviceRepr, LaunchConfig, PushKernelArg};
use cudarc::nvrtc::{CompileOptions, compile_ptx_with_opts};

/// `Extents` of the kernels.
#[derive(Clone, Copy)]
#[repr(C)]
struct Extents([i32; 5]);

// SAFETY: five integers, as the kernels have them.
unsafe impl DeviceRepr for Extents {}

/// Warps of a block, a row each.
const WARPS: usize = 8;

/// The sequence for a shape, with everything it writes but the results.
pub struct Unfused<T> {
    stream: Arc<CudaStream>,
    module: Arc<CudaModule>,
    blas: CudaBlas,
    sample: sys::cudaDataType,
    compute: sys::cublasComputeType_t,
    shape: DriftShape,
    /// Targets one after another [B, T, D].
    y: CudaSlice<T>,
    /// Coefficients [B, G, T].
    c: CudaSlice<T>,
    squares: CudaSlice<f32>,
    /// Distances, the row softmax and then affinities, the column softmax [B, G, T].
    pairs: [CudaSlice<f32>; 3],
    /// Of queries: affinities of both kinds [B, G, 2], and coefficients [B, G].
    masses: CudaSlice<f32>,
    sums: CudaSlice<f32>,
    /// Of one temperature [B, G, D].
    forces: CudaSlice<f32>,
    parts: CudaSlice<f64>,
    scalars: CudaSlice<f32>,
}

impl<T: DeviceRepr> Unfused<T> {
    /// For samples of the type `name`: f32, tf32 (f32 whose products are of TF32) or f16.
    pub fn new(stream: &Arc<CudaStream>, shape: DriftShape, name: &str) -> Self {
        use sys::{cublasComputeType_t as Compute, cudaDataType as Type};
        let (element, sample, compute) = match name {
            "f32" => ("float", Type::CUDA_R_32F, Compute::CUBLAS_COMPUTE_32F),
            "tf32" => ("float", Type::CUDA_R_32F, Compute::CUBLAS_COMPUTE_32F_FAST_TF32),
            "f16" => ("Half", Type::CUDA_R_16F, Compute::CUBLAS_COMPUTE_32F),
            _ => panic!("no sequence for {name}"),
        };
        let options = CompileOptions {
            arch: Some("compute_80"),
            include_paths: vec![concat!(env!("CARGO_MANIFEST_DIR"), "/kernels").into()],
            options: vec![format!("-DSAMPLE={element}")],
            ..CompileOptions::default()
        };
        let ptx = compile_ptx_with_opts(include_str!("unfused.cu"), options).unwrap();
        let (queries, targets) = (shape.groups * shape.generated, shape.groups * shape.targets());
        let pairs = queries * shape.targets();
        let floats = |count: usize| room::<f32>(stream, count);
        Self {
            module: stream.context().load_module(ptx).unwrap(),
            blas: CudaBlas::new(stream.clone()).unwrap(),
            sample,
            compute,
            y: room(stream, targets * shape.dim),
            c: room(stream, pairs),
            squares: floats(targets),
            pairs: [floats(pairs), floats(pairs), floats(pairs)],
            masses: floats(2 * queries),
            sums: floats(queries),
            forces: floats(queries * shape.dim),
            parts: room(stream, queries.div_ceil(WARPS)),
            scalars: floats(3),
            shape,
            stream: stream.clone(),
        }
    }

    /// Bytes beside samples and results.
    pub fn workspace_bytes(&self) -> usize {
        let [d, rows, columns] = &self.pairs;
        let floats = [&self.squares, d, rows, columns, &self.masses, &self.sums, &self.forces, &self.scalars];
        let floats: usize = floats.into_iter().map(CudaSlice::num_bytes).sum();
        floats + self.y.num_bytes() + self.c.num_bytes() + self.parts.num_bytes()
    }

    /// Appends a call to the stream; the samples are generated [B, G, D], negatives [B, N, D] and positives [B, P, D].
    pub fn run(
        &mut self,
        temperatures: &[f64],
        samples: &[CudaSlice<T>; 3],
        gradient: &mut CudaSlice<f32>,
        losses: &mut CudaSlice<f32>,
    ) {
        let DriftShape { groups, generated: g, negatives, positives, dim } = self.shape;
        let (t, queries) = (self.shape.targets(), groups * g);
        let e = Extents([groups, g, negatives, positives, dim].map(|extent| extent as i32));
        let [generated, negatives, positives] = samples;
        let Self { stream, module, y, c, squares, pairs: [d, rows, columns], masses, sums, .. } = self;
        let Self { forces, parts, scalars, .. } = self;
        let Self { blas, sample, compute, .. } = self;
        let product = |operations: [Operation; 2], [m, n, k]: [usize; 3], operands: [Operand; 3]| {
            let [a, b, c] = operands;
            let (one, zero) = (1.0f32, 0.0f32);
            let scalar = |value: &f32| std::ptr::from_ref(value).cast::<c_void>();
            // SAFETY: operands are as long as `new` says; rows are columns to cuBLAS.
            let done = unsafe {
                blas::gemm_strided_batched_ex(
                    *blas.handle(),
                    operations[0],
                    operations[1],
                    m as i32,
                    n as i32,
                    k as i32,
                    scalar(&one),
                    a.at as *const c_void,
                    *sample,
                    a.row as i32,
                    (a.rows * a.row) as i64,
                    b.at as *const c_void,
                    *sample,
                    b.row as i32,
                    (b.rows * b.row) as i64,
                    scalar(&zero),
                    c.at as *mut c_void,
                    sys::cudaDataType::CUDA_R_32F,
                    c.row as i32,
                    (c.rows * c.row) as i64,
                    groups as i32,
                    *compute,
                    sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
                )
            };
            done.unwrap();
        };
        macro_rules! launch {
            ($name:literal, $shape:expr, $($arg:expr),+) => {{
                let function = module.load_function($name).unwrap();
                function.set_attribute(SHARED_BYTES, $shape.shared_mem_bytes as i32).unwrap();
                // SAFETY: the arguments are those of the kernel, the arrays as long as `new` says.
                unsafe { stream.launch_builder(&function).arg(&e)$(.arg($arg))+.launch($shape) }.unwrap();
            }};
        }
        let rows_of =
            |count: usize, warps: usize, shared: usize| config(count.div_ceil(warps), [32, warps as u32], shared);
        let (each, whole) = (rows_of(queries, WARPS, 0), config(1, [1024, 1], 0));
        let blocks = queries.div_ceil(WARPS) as i32;

        launch!("targets", rows_of(groups * t, WARPS, 0), generated, negatives, positives, &mut *y, &mut *squares);
        let operands = [operand(stream, y, t, dim), operand(stream, generated, g, dim), operand(stream, d, g, t)];
        product([CUBLAS_OP_T, CUBLAS_OP_N], [t, g, dim], operands);
        launch!("distances", each, &mut *d, &*squares, &mut *parts);
        launch!("scale", whole, &*parts, &blocks, &mut *scalars);
        // Rows or columns wait in shared memory.
        let warps = ((48 << 10) / (4 * t)).clamp(1, WARPS);
        let by_rows = rows_of(queries, warps, 4 * t * warps);
        let width = if g <= 1024 { 32 } else { 8 };
        let by_columns = config(groups * t.div_ceil(width), [width as u32, 256 / width as u32], 4 * g * width);
        for (r, &temperature) in temperatures.iter().enumerate() {
            let (temperature, first) = (temperature as f32, i32::from(r == 0));
            launch!("row_softmax", by_rows, &*d, &*scalars, &temperature, &mut *rows);
            launch!("column_softmax", by_columns, &*d, &*scalars, &temperature, &mut *columns);
            launch!("affinities", each, &mut *rows, &*columns, &mut *masses);
            launch!("coefficients", each, &*rows, &*masses, &mut *c, &mut *sums);
            let operands = [operand(stream, y, t, dim), operand(stream, c, g, t), operand(stream, forces, g, dim)];
            product([CUBLAS_OP_N, CUBLAS_OP_N], [dim, g, t], operands);
            launch!("forces", each, &mut *forces, generated, &*sums, &*scalars, &mut *parts);
            launch!("theta", whole, &*parts, &blocks, &mut *scalars);
            launch!("accumulate", each, &*forces, &*scalars, &first, &mut *gradient);
        }
        launch!("loss", config(groups, [256, 1], 0), &mut *gradient, &*scalars, &mut *losses);
    }
}

/// A matrix of each group, by rows.
struct Operand {
    at: u64,
    rows: usize,
    row: usize,
}

fn operand<T>(stream: &CudaStream, array: &CudaSlice<T>, rows: usize, row: usize) -> Operand {
    Operand { at: array.device_ptr(stream).0, rows, row }
}

fn config(blocks: usize, [x, y]: [u32; 2], shared: usize) -> LaunchConfig {
    LaunchConfig { grid_dim: (blocks as u32, 1, 1), block_dim: (x, y, 1), shared_mem_bytes: shared as u32 }
}

/// An array of the device in which nothing is written yet.
fn room<T: DeviceRepr>(stream: &Arc<CudaStream>, count: usize) -> CudaSlice<T> {
    // SAFETY: every kernel here writes its results before another reads them.
    unsafe { stream.alloc(count) }.unwrap()
}
