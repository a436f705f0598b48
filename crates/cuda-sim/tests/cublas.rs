//! cuBLAS and cuBLASLt, called as C calls them, against plain sums in f64.

#![allow(clippy::unwrap_used)]

use std::ffi::{CStr, c_char, c_int, c_longlong, c_void};
use std::process::Command;
use std::ptr::{null, null_mut, without_provenance, without_provenance_mut};
use std::sync::OnceLock;

// Linked for its C functions, which are declared here as a header would.
use cudrift_sim as _;

type Handle = *mut c_void;

#[rustfmt::skip]
unsafe extern "C" {
    fn cuInit(flags: u32) -> c_int;
    fn cuDevicePrimaryCtxRetain(context: *mut usize, device: c_int) -> c_int;
    fn cuCtxSetCurrent(context: usize) -> c_int;
    fn cuCtxSynchronize() -> c_int;
    fn cuMemAlloc_v2(address: *mut u64, bytes: usize) -> c_int;
    fn cuMemFree_v2(address: u64) -> c_int;
    fn cuMemcpyHtoD_v2(to: u64, from: *const c_void, bytes: usize) -> c_int;
    fn cuMemcpyDtoH_v2(to: *mut c_void, from: u64, bytes: usize) -> c_int;
    fn cuStreamCreate(stream: *mut usize, flags: u32) -> c_int;
    fn cuStreamDestroy_v2(stream: usize) -> c_int;
    fn cuStreamSynchronize(stream: usize) -> c_int;
    fn cuStreamBeginCapture_v2(stream: usize, mode: c_int) -> c_int;
    fn cuStreamEndCapture(stream: usize, graph: *mut usize) -> c_int;
    fn cuGraphInstantiateWithFlags(exec: *mut usize, graph: usize, flags: u64) -> c_int;
    fn cuGraphLaunch(exec: usize, stream: usize) -> c_int;
    fn cuGraphExecDestroy(exec: usize) -> c_int;
    fn cuGraphDestroy(graph: usize) -> c_int;

    fn cublasCreate_v2(handle: *mut Handle) -> c_int;
    fn cublasDestroy_v2(handle: Handle) -> c_int;
    fn cublasSetStream_v2(handle: Handle, stream: usize) -> c_int;
    fn cublasGetStream_v2(handle: Handle, stream: *mut usize) -> c_int;
    fn cublasSetPointerMode_v2(handle: Handle, mode: c_int) -> c_int;
    fn cublasGetPointerMode_v2(handle: Handle, mode: *mut c_int) -> c_int;
    fn cublasSetMathMode(handle: Handle, mode: c_int) -> c_int;
    fn cublasGetMathMode(handle: Handle, mode: *mut c_int) -> c_int;
    fn cublasSetWorkspace_v2(handle: Handle, workspace: *mut c_void, bytes: usize) -> c_int;
    fn cublasGetVersion_v2(handle: Handle, version: *mut c_int) -> c_int;
    fn cublasGetProperty(property: c_int, value: *mut c_int) -> c_int;
    fn cublasGetStatusName(status: c_int) -> *const c_char;
    fn cublasGetStatusString(status: c_int) -> *const c_char;
    fn cublasSgemm_v2(
        handle: Handle, transa: c_int, transb: c_int, m: c_int, n: c_int, k: c_int, alpha: *const f32, a: *const f32,
        lda: c_int, b: *const f32, ldb: c_int, beta: *const f32, c: *mut f32, ldc: c_int,
    ) -> c_int;
    fn cublasDgemm_v2(
        handle: Handle, transa: c_int, transb: c_int, m: c_int, n: c_int, k: c_int, alpha: *const f64, a: *const f64,
        lda: c_int, b: *const f64, ldb: c_int, beta: *const f64, c: *mut f64, ldc: c_int,
    ) -> c_int;
    fn cublasHgemm(
        handle: Handle, transa: c_int, transb: c_int, m: c_int, n: c_int, k: c_int, alpha: *const u16, a: *const u16,
        lda: c_int, b: *const u16, ldb: c_int, beta: *const u16, c: *mut u16, ldc: c_int,
    ) -> c_int;
    fn cublasSgemmStridedBatched(
        handle: Handle, transa: c_int, transb: c_int, m: c_int, n: c_int, k: c_int, alpha: *const f32, a: *const f32,
        lda: c_int, stride_a: c_longlong, b: *const f32, ldb: c_int, stride_b: c_longlong, beta: *const f32,
        c: *mut f32, ldc: c_int, stride_c: c_longlong, count: c_int,
    ) -> c_int;
    fn cublasDgemmBatched(
        handle: Handle, transa: c_int, transb: c_int, m: c_int, n: c_int, k: c_int, alpha: *const f64,
        a: *const *const f64, lda: c_int, b: *const *const f64, ldb: c_int, beta: *const f64, c: *const *mut f64,
        ldc: c_int, count: c_int,
    ) -> c_int;
    fn cublasGemmEx(
        handle: Handle, transa: c_int, transb: c_int, m: c_int, n: c_int, k: c_int, alpha: *const c_void,
        a: *const c_void, a_type: c_int, lda: c_int, b: *const c_void, b_type: c_int, ldb: c_int,
        beta: *const c_void, c: *mut c_void, c_type: c_int, ldc: c_int, compute: c_int, algorithm: c_int,
    ) -> c_int;
    fn cublasGemmStridedBatchedEx(
        handle: Handle, transa: c_int, transb: c_int, m: c_int, n: c_int, k: c_int, alpha: *const c_void,
        a: *const c_void, a_type: c_int, lda: c_int, stride_a: c_longlong, b: *const c_void, b_type: c_int,
        ldb: c_int, stride_b: c_longlong, beta: *const c_void, c: *mut c_void, c_type: c_int, ldc: c_int,
        stride_c: c_longlong, count: c_int, compute: c_int, algorithm: c_int,
    ) -> c_int;
    fn cublasGemmBatchedEx(
        handle: Handle, transa: c_int, transb: c_int, m: c_int, n: c_int, k: c_int, alpha: *const c_void,
        a: *const *const c_void, a_type: c_int, lda: c_int, b: *const *const c_void, b_type: c_int, ldb: c_int,
        beta: *const c_void, c: *const *mut c_void, c_type: c_int, ldc: c_int, count: c_int, compute: c_int,
        algorithm: c_int,
    ) -> c_int;
    fn cublasGemmGroupedBatchedEx(
        handle: Handle, transa: *const c_int, transb: *const c_int, m: *const c_int, n: *const c_int,
        k: *const c_int, alpha: *const c_void, a: *const *const c_void, a_type: c_int, lda: *const c_int,
        b: *const *const c_void, b_type: c_int, ldb: *const c_int, beta: *const c_void, c: *const *mut c_void,
        c_type: c_int, ldc: *const c_int, count: c_int, sizes: *const c_int, compute: c_int,
    ) -> c_int;
    fn cublasSgemmGroupedBatched(
        handle: Handle, transa: *const c_int, transb: *const c_int, m: *const c_int, n: *const c_int,
        k: *const c_int, alpha: *const f32, a: *const *const f32, lda: *const c_int, b: *const *const f32,
        ldb: *const c_int, beta: *const f32, c: *const *mut f32, ldc: *const c_int, count: c_int,
        sizes: *const c_int,
    ) -> c_int;
    fn cublasSgemv_v2(
        handle: Handle, trans: c_int, m: c_int, n: c_int, alpha: *const f32, a: *const f32, lda: c_int,
        x: *const f32, incx: c_int, beta: *const f32, y: *mut f32, incy: c_int,
    ) -> c_int;
    fn cublasDgemv_v2(
        handle: Handle, trans: c_int, m: c_int, n: c_int, alpha: *const f64, a: *const f64, lda: c_int,
        x: *const f64, incx: c_int, beta: *const f64, y: *mut f64, incy: c_int,
    ) -> c_int;
    fn cublasDgemvStridedBatched(
        handle: Handle, trans: c_int, m: c_int, n: c_int, alpha: *const f64, a: *const f64, lda: c_int,
        stride_a: c_longlong, x: *const f64, incx: c_int, stride_x: c_longlong, beta: *const f64, y: *mut f64,
        incy: c_int, stride_y: c_longlong, count: c_int,
    ) -> c_int;
    fn cublasSasum_v2(handle: Handle, n: c_int, x: *const f32, incx: c_int, result: *mut f32) -> c_int;
    fn cublasDasum_v2(handle: Handle, n: c_int, x: *const f64, incx: c_int, result: *mut f64) -> c_int;
    fn cublasSnrm2_v2(handle: Handle, n: c_int, x: *const f32, incx: c_int, result: *mut f32) -> c_int;
    fn cublasDnrm2_v2(handle: Handle, n: c_int, x: *const f64, incx: c_int, result: *mut f64) -> c_int;
    fn cublasSdot_v2(
        handle: Handle, n: c_int, x: *const f32, incx: c_int, y: *const f32, incy: c_int, result: *mut f32,
    ) -> c_int;
    fn cublasDdot_v2(
        handle: Handle, n: c_int, x: *const f64, incx: c_int, y: *const f64, incy: c_int, result: *mut f64,
    ) -> c_int;
    fn cublasSaxpy_v2(
        handle: Handle, n: c_int, alpha: *const f32, x: *const f32, incx: c_int, y: *mut f32, incy: c_int,
    ) -> c_int;
    fn cublasDscal_v2(handle: Handle, n: c_int, alpha: *const f64, x: *mut f64, incx: c_int) -> c_int;

    fn cublasLtCreate(handle: *mut Handle) -> c_int;
    fn cublasLtDestroy(handle: Handle) -> c_int;
    fn cublasLtGetVersion() -> usize;
    fn cublasLtLoggerSetLevel(level: c_int) -> c_int;
    fn cublasLtMatrixLayoutCreate(layout: *mut Handle, data_type: c_int, rows: u64, cols: u64, ld: i64) -> c_int;
    fn cublasLtMatrixLayoutSetAttribute(layout: Handle, number: c_int, from: *const c_void, bytes: usize) -> c_int;
    fn cublasLtMatrixLayoutDestroy(layout: Handle) -> c_int;
    fn cublasLtMatmulDescCreate(descriptor: *mut Handle, compute: c_int, scale_type: c_int) -> c_int;
    fn cublasLtMatmulDescSetAttribute(descriptor: Handle, number: c_int, from: *const c_void, bytes: usize) -> c_int;
    fn cublasLtMatmulDescDestroy(descriptor: Handle) -> c_int;
    fn cublasLtMatmulPreferenceCreate(preference: *mut Handle) -> c_int;
    fn cublasLtMatmulPreferenceSetAttribute(
        preference: Handle, number: c_int, from: *const c_void, bytes: usize,
    ) -> c_int;
    fn cublasLtMatmulPreferenceDestroy(preference: Handle) -> c_int;
    fn cublasLtMatmulAlgoGetHeuristic(
        handle: Handle, descriptor: Handle, a: Handle, b: Handle, c: Handle, d: Handle, preference: Handle,
        requested: c_int, results: *mut [u64; 12], found: *mut c_int,
    ) -> c_int;
    fn cublasLtMatmul(
        handle: Handle, descriptor: Handle, alpha: *const c_void, a: *const c_void, a_layout: Handle,
        b: *const c_void, b_layout: Handle, beta: *const c_void, c: *const c_void, c_layout: Handle, d: *mut c_void,
        d_layout: Handle, algorithm: *const c_void, workspace: *mut c_void, workspace_bytes: usize, stream: usize,
    ) -> c_int;
}

const NOT_INITIALIZED: c_int = 1;
const INVALID_VALUE: c_int = 7;
const EXECUTION_FAILED: c_int = 13;
const NOT_SUPPORTED: c_int = 15;

/// Calls a C function; the tests pass what its documentation asks for, or what it promises to refuse.
macro_rules! call {
    ($function:ident($($argument:expr),* $(,)?)) => {
        // SAFETY: host pointers are null or come from live references of the declared type, device addresses are
        // numbers that the library does not follow, and arrays are as long as the counts beside them.
        unsafe { $function($($argument),*) }
    };
}

/// Asserts that C functions succeed.
macro_rules! ok {
    ($($function:ident($($argument:expr),* $(,)?));* $(;)?) => {
        $(assert_eq!(call!($function($($argument),*)), 0, stringify!($function));)*
    };
}

/// Makes the primary context current on this thread.
fn context() {
    static CONTEXT: OnceLock<usize> = OnceLock::new();
    let context = *CONTEXT.get_or_init(|| {
        let mut context = 0;
        ok!(cuInit(0); cuDevicePrimaryCtxRetain(&mut context, 0));
        context
    });
    ok!(cuCtxSetCurrent(context));
}

/// A handle of cuBLAS.
struct Blas(Handle);

impl Blas {
    fn new() -> Self {
        context();
        let mut handle = null_mut();
        ok!(cublasCreate_v2(&mut handle));
        Self(handle)
    }
}

impl Drop for Blas {
    fn drop(&mut self) {
        ok!(cublasDestroy_v2(self.0));
    }
}

/// An allocation on the device.
struct Buffer(u64);

impl Buffer {
    fn new(bytes: usize) -> Self {
        context();
        let mut address = 0;
        ok!(cuMemAlloc_v2(&mut address, bytes));
        Self(address)
    }

    fn from(bytes: &[u8]) -> Self {
        let buffer = Self::new(bytes.len());
        ok!(cuMemcpyHtoD_v2(buffer.0, bytes.as_ptr().cast(), bytes.len()));
        buffer
    }

    fn addresses(buffers: &[&Buffer]) -> Self {
        Self::from(&buffers.iter().flat_map(|buffer| buffer.0.to_le_bytes()).collect::<Vec<_>>())
    }

    /// The address as C passes it, `elements` of type `T` from the start.
    fn at<T>(&self, elements: usize) -> *const T {
        without_provenance(self.0 as usize + elements * size_of::<T>())
    }

    fn to<T>(&self, elements: usize) -> *mut T {
        self.at::<T>(elements).cast_mut()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // Refused where the context has failed, as some tests want it to.
        call!(cuMemFree_v2(self.0));
    }
}

/// Numbers in [-1, 1) without a pattern.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Type {
    F64,
    F32,
    F16,
    Bf16,
}

use Type::{Bf16, F16, F32, F64};

impl Type {
    fn number(self) -> c_int {
        [1, 0, 2, 14][self as usize]
    }

    fn size(self) -> usize {
        [8, 4, 2, 2][self as usize]
    }

    /// The relative distance of a value from the nearest number of the type.
    fn epsilon(self) -> f64 {
        f64::exp2([-53.0, -24.0, -11.0, -8.0][self as usize])
    }

    /// The value of the encoded number, from the definition of the format.
    fn decode(self, bytes: &[u8]) -> f64 {
        let half = |digits: i32, bias: i32| {
            let bits = i32::from(u16::from_le_bytes([bytes[0], bytes[1]]));
            let (sign, fraction) = (1.0 - f64::from(bits >> 15) * 2.0, bits & ((1 << digits) - 1));
            let (exponent, top) = ((bits & 0x7fff) >> digits, (0x7fff >> digits));
            let scale =
                |significand: i32, exponent: i32| f64::from(significand) * f64::from(exponent - bias - digits).exp2();
            sign * match exponent {
                0 => scale(fraction, 1),
                _ if exponent == top && fraction == 0 => f64::INFINITY,
                _ if exponent == top => f64::NAN,
                _ => scale(fraction | 1 << digits, exponent),
            }
        };
        match self {
            F64 => f64::from_le_bytes(bytes.try_into().unwrap()),
            F32 => f32::from_le_bytes(bytes.try_into().unwrap()).into(),
            F16 => half(10, 15),
            Bf16 => half(7, 127),
        }
    }

    /// The nearest number of the type; for halves by bisection among all of them.
    fn encode(self, x: f64) -> Vec<u8> {
        match self {
            F64 => x.to_le_bytes().to_vec(),
            F32 => (x as f32).to_le_bytes().to_vec(),
            F16 | Bf16 => {
                let value = |bits: u16| self.decode(&bits.to_le_bytes());
                let (mut low, mut high) = (0, 0x7fff);
                while high - low > 1 {
                    let middle = (low + high) / 2;
                    if value(middle) <= x.abs() { low = middle } else { high = middle }
                }
                let up = value(low) != x.abs() && {
                    let (below, above) = (x.abs() - value(low), value(high) - x.abs());
                    above < below || above == below && low % 2 == 1
                };
                let bits = if x.is_nan() { 0x7fff } else { low + u16::from(up) };
                (bits | u16::from(x.is_sign_negative()) << 15).to_le_bytes().to_vec()
            }
        }
    }

    fn round(self, x: f64) -> f64 {
        self.decode(&self.encode(x))
    }
}

/// A column-major matrix with its copy on the device. Bytes between the columns stay unwritten there, so that reading
/// one is reported.
struct Matrix {
    kind: Type,
    rows: usize,
    cols: usize,
    ld: usize,
    values: Vec<f64>,
    buffer: Buffer,
}

impl Matrix {
    fn new(kind: Type, rows: usize, cols: usize, ld: usize, mut value: impl FnMut(usize, usize) -> f64) -> Self {
        let values: Vec<_> = (0..rows * cols).map(|at| kind.round(value(at % rows, at / rows))).collect();
        let buffer = Buffer::new(((cols.max(1) - 1) * ld + rows).max(1) * kind.size());
        for (j, column) in values.chunks(rows.max(1)).enumerate() {
            let bytes: Vec<_> = column.iter().flat_map(|x| kind.encode(*x)).collect();
            ok!(cuMemcpyHtoD_v2(buffer.0 + (j * ld * kind.size()) as u64, bytes.as_ptr().cast(), bytes.len()));
        }
        Self { kind, rows, cols, ld, values, buffer }
    }

    fn random(kind: Type, rows: usize, cols: usize, ld: usize, numbers: &mut Numbers) -> Self {
        Self::new(kind, rows, cols, ld, |_, _| numbers.next())
    }

    /// The values of op(A).
    fn op(&self, transposed: bool) -> impl Fn(usize, usize) -> f64 {
        move |i, j| {
            let (i, j) = if transposed { (j, i) } else { (i, j) };
            self.values[i + j * self.rows]
        }
    }

    /// The values that lie on the device now.
    fn download(&self) -> Vec<f64> {
        let mut column = vec![0; self.rows * self.kind.size()];
        let mut values = Vec::new();
        for j in 0..self.cols {
            let from = self.buffer.0 + (j * self.ld * self.kind.size()) as u64;
            ok!(cuMemcpyDtoH_v2(column.as_mut_ptr().cast(), from, column.len()));
            values.extend(column.chunks(self.kind.size()).map(|bytes| self.kind.decode(bytes)));
        }
        values
    }

    /// Asserts that each value on the device is `want`, rounded once to the type.
    fn check(&self, what: &str, want: impl Fn(usize, usize) -> f64) {
        for (at, got) in self.download().into_iter().enumerate() {
            let want = want(at % self.rows, at / self.rows);
            // Sums of products of numbers below 1 in size have an error of this size in f64.
            let bound =
                self.kind.epsilon() * want.abs() + 1e-14 + if self.kind == F16 { f64::exp2(-25.0) } else { 0.0 };
            assert!((got - want).abs() <= bound, "{what}: element {at} is {got}, not {want}");
        }
    }
}

fn sum(k: usize, a: impl Fn(usize, usize) -> f64, b: impl Fn(usize, usize) -> f64) -> impl Fn(usize, usize) -> f64 {
    move |i, j| (0..k).map(|l| a(i, l) * b(l, j)).sum()
}

/// A scalar on the host and on the device, in the type that the compute type asks for.
struct Scalar {
    bytes: Vec<u8>,
    buffer: Buffer,
}

impl Scalar {
    fn new(kind: Type, value: f64) -> Self {
        let bytes = kind.encode(value);
        Self { buffer: Buffer::from(&bytes), bytes }
    }

    fn pointer<T>(&self, on_device: bool) -> *const T {
        if on_device { self.buffer.at(0) } else { self.bytes.as_ptr().cast() }
    }
}

#[test]
fn gemm_ex_in_every_type_operation_and_pointer_mode() {
    let blas = Blas::new();
    let mut numbers = Numbers(1);
    let combinations = [(F64, F64, 70, F64), (F32, F32, 68, F32), (F32, F32, 69, F32), (F16, F16, 68, F32)]
        .into_iter()
        .chain([(F16, F32, 68, F32), (Bf16, Bf16, 68, F32), (Bf16, F32, 68, F32), (F16, F16, 64, F16)]);
    for (kind, result, compute, scale) in combinations {
        for (operations, shape) in [
            ([0, 0], [5, 7, 9]),
            ([1, 0], [8, 4, 16]),
            ([0, 1], [33, 17, 1]),
            ([2, 2], [1, 19, 300]),
            ([1, 1], [130, 3, 2]),
        ] {
            let [transposed_a, transposed_b] = operations.map(|operation| operation != 0);
            let [m, n, k] = shape;
            for (alpha, beta, on_device) in
                [(1.0, 0.0, false), (-0.75, 0.0, true), (0.5, 2.0, false), (1.25, -1.0, true)]
            {
                let (rows, cols) = if transposed_a { (k, m) } else { (m, k) };
                let a = Matrix::random(kind, rows, cols, rows + 3, &mut numbers);
                let (rows, cols) = if transposed_b { (n, k) } else { (k, n) };
                let b = Matrix::random(kind, rows, cols, rows + 1, &mut numbers);
                let c = Matrix::random(result, m, n, m + 2, &mut numbers);
                let (alpha_at, beta_at) = (Scalar::new(scale, alpha), Scalar::new(scale, beta));
                ok! {
                    cublasSetPointerMode_v2(blas.0, on_device.into());
                    cublasGemmEx(
                        blas.0, operations[0], operations[1], m as c_int, n as c_int, k as c_int,
                        alpha_at.pointer(on_device), a.buffer.at(0), kind.number(), a.ld as c_int, b.buffer.at(0),
                        kind.number(), b.ld as c_int, beta_at.pointer(on_device), c.buffer.to(0), result.number(),
                        c.ld as c_int, compute, -1,
                    );
                    cuCtxSynchronize();
                }
                let ab = sum(k, a.op(transposed_a), b.op(transposed_b));
                let old = c.op(false);
                let what = format!("{kind:?} to {result:?} by {compute}, {operations:?} of {shape:?}, {alpha} {beta}");
                c.check(&what, |i, j| alpha * ab(i, j) + beta * old(i, j));
            }
        }
    }
}

#[test]
fn typed_products_and_special_scalars() {
    let blas = Blas::new();
    let mut numbers = Numbers(2);
    let (m, n, k) = (6, 5, 4);
    let [m_, n_, k_] = [m, n, k].map(|extent| extent as c_int);
    let a = Matrix::random(F64, m, k, m, &mut numbers);
    let b = Matrix::random(F64, k, n, k, &mut numbers);
    let c = Matrix::random(F64, m, n, m, &mut numbers);
    ok! {
        cublasDgemm_v2(
            blas.0, 0, 0, m_, n_, k_, &2.0, a.buffer.at(0), m_, b.buffer.at(0), k_, &1.0, c.buffer.to(0), m_,
        );
    }
    let (ab, old) = (sum(k, a.op(false), b.op(false)), c.op(false));
    c.check("Dgemm", |i, j| 2.0 * ab(i, j) + old(i, j));

    let a = Matrix::random(F16, m, k, m, &mut numbers);
    let b = Matrix::random(F16, k, n, k, &mut numbers);
    let c = Matrix::random(F16, m, n, m, &mut numbers);
    // 0.5 and -2 in f16.
    let (alpha, beta) = (0x3800, 0xc000);
    ok! {
        cublasHgemm(
            blas.0, 0, 0, m_, n_, k_, &alpha, a.buffer.at(0), m_, b.buffer.at(0), k_, &beta, c.buffer.to(0), m_,
        );
    }
    let (ab, old) = (sum(k, a.op(false), b.op(false)), c.op(false));
    c.check("Hgemm", |i, j| 0.5 * ab(i, j) - 2.0 * old(i, j));

    // beta = 0 does not read C: not its NaN, nor what was never written.
    let a = Matrix::random(F32, m, k, m, &mut numbers);
    let b = Matrix::random(F32, k, n, k, &mut numbers);
    let c = Matrix::new(F32, m, n, m, |_, _| f64::NAN);
    let (a_, b_) = (a.buffer.at(0), b.buffer.at(0));
    let ab = sum(k, a.op(false), b.op(false));
    ok!(cublasSgemm_v2(blas.0, 0, 0, m_, n_, k_, &1.0, a_, m_, b_, k_, &0.0, c.buffer.to(0), m_));
    c.check("NaN in C", &ab);
    let c = Matrix { buffer: Buffer::new(m * n * 4), ..c };
    ok!(cublasSgemm_v2(blas.0, 0, 0, m_, n_, k_, &1.0, a_, m_, b_, k_, &0.0, c.buffer.to(0), m_));
    c.check("unwritten C", &ab);
    // But another beta takes it over, and so do A and B.
    let nan = Matrix::new(F32, m, n, m, |i, j| if (i, j) == (2, 3) { f64::NAN } else { 1.0 });
    ok!(cublasSgemm_v2(blas.0, 0, 0, m_, n_, k_, &1.0, a_, m_, b_, k_, &1.0, nan.buffer.to(0), m_));
    assert!(nan.download().iter().enumerate().all(|(at, x)| x.is_nan() == (at == 2 + 3 * m)));
    let poisoned = Matrix::new(F32, m, k, m, |i, l| if (i, l) == (1, 2) { f64::NAN } else { 0.0 });
    ok!(cublasSgemm_v2(blas.0, 0, 0, m_, n_, k_, &1.0, poisoned.buffer.at(0), m_, b_, k_, &0.0, c.buffer.to(0), m_));
    assert!(c.download().iter().enumerate().all(|(at, x)| x.is_nan() == (at % m == 1)));

    // alpha = 0 and k = 0 only scale C, whatever A and B are.
    for (alpha, k, pointer) in [(0.0, k_, poisoned.buffer.at(0)), (f32::NAN, 0, null())] {
        let c = Matrix::random(F32, m, n, m, &mut numbers);
        let old = c.op(false);
        ok!(cublasSgemm_v2(blas.0, 0, 0, m_, n_, k, &alpha, pointer, m_, pointer, k_, &-3.0, c.buffer.to(0), m_));
        c.check("only beta", |i, j| -3.0 * old(i, j));
        ok!(cublasSgemm_v2(blas.0, 0, 0, m_, n_, k, &alpha, pointer, m_, pointer, k_, &0.0, c.buffer.to(0), m_));
        c.check("nothing", |_, _| 0.0);
    }
    // No rows or columns: nothing is touched.
    ok! {
        cublasSgemm_v2(blas.0, 0, 0, 0, n_, k_, &1.0, null(), 1, null(), k_, &1.0, null_mut(), 1);
        cublasSgemm_v2(blas.0, 0, 0, m_, 0, k_, &1.0, null(), m_, null(), k_, &1.0, null_mut(), m_);
    }
}

#[test]
fn overflow_and_ties_of_half_results() {
    let blas = Blas::new();
    // The sums are exact: 65504 + 16 lies midway to the next number, which is infinity; 2048 + 1 and 2050 + 1 midway
    // between two even ones.
    let a = Matrix::new(F16, 3, 2, 3, |i, l| [[65504.0, 16.0], [2048.0, 1.0], [2050.0, 1.0]][i][l]);
    let b = Matrix::new(F16, 2, 1, 2, |_, _| 1.0);
    let c = Matrix::new(F16, 3, 1, 3, |_, _| 0.0);
    let one = Scalar::new(F32, 1.0);
    let zero = Scalar::new(F32, 0.0);
    ok! {
        cublasGemmEx(
            blas.0, 0, 0, 3, 1, 2, one.pointer(false), a.buffer.at(0), 2, 3, b.buffer.at(0), 2, 2, zero.pointer(false),
            c.buffer.to(0), 2, 3, 68, -1,
        );
    }
    assert_eq!(c.download(), [f64::INFINITY, 2048.0, 2052.0]);
}

#[test]
fn batches_at_strides_and_from_arrays() {
    let blas = Blas::new();
    let mut numbers = Numbers(3);
    let (m, n, k, count) = (4, 3, 5, 6);
    let [m_, n_, k_, count_] = [m, n, k, count].map(|extent| extent as c_int);
    // The batch lies side by side, as one wide matrix; one B serves every product.
    let a = Matrix::random(F32, m, k * count, m, &mut numbers);
    let b = Matrix::random(F32, k, n, k, &mut numbers);
    let c = Matrix::random(F32, m, n * count, m + 1, &mut numbers);
    let stride = [(m * k) as c_longlong, 0, ((m + 1) * n) as c_longlong];
    let want = |i: usize, j: usize| {
        let (product, j) = (j / n, j % n);
        (0..k).map(|l| a.op(false)(i, l + product * k) * b.op(false)(l, j)).sum::<f64>()
    };
    let old = c.op(false);
    ok! {
        cublasSgemmStridedBatched(
            blas.0, 0, 0, m_, n_, k_, &1.0, a.buffer.at(0), m_, stride[0], b.buffer.at(0), k_, stride[1], &2.0,
            c.buffer.to(0), m_ + 1, stride[2], count_,
        );
    }
    c.check("SgemmStridedBatched", |i, j| want(i, j) + 2.0 * old(i, j));
    let (one, zero) = (Scalar::new(F32, 1.0), Scalar::new(F32, 0.0));
    ok! {
        cublasGemmStridedBatchedEx(
            blas.0, 0, 0, m_, n_, k_, one.pointer(false), a.buffer.at(0), 0, m_, stride[0], b.buffer.at(0), 0, k_,
            stride[1], zero.pointer(false), c.buffer.to(0), 0, m_ + 1, stride[2], count_, 68, -1,
        );
    }
    c.check("GemmStridedBatchedEx", want);
    // A batch of none touches nothing.
    ok! {
        cublasSgemmStridedBatched(
            blas.0, 0, 0, m_, n_, k_, &1.0, null(), m_, 0, null(), k_, 0, &0.0, null_mut(), m_, 0, 0,
        );
    }

    let batch = |rows: usize, cols: usize, kind: Type, numbers: &mut Numbers| -> Vec<Matrix> {
        (0..count).map(|_| Matrix::random(kind, rows, cols, rows, numbers)).collect()
    };
    let array = |batch: &[Matrix]| Buffer::addresses(&batch.iter().map(|matrix| &matrix.buffer).collect::<Vec<_>>());
    for kind in [F64, F16] {
        let (a, b, c) =
            (batch(k, m, kind, &mut numbers), batch(k, n, kind, &mut numbers), batch(m, n, kind, &mut numbers));
        let (a_array, b_array, c_array) = (array(&a), array(&b), array(&c));
        if kind == F64 {
            ok! {
                cublasDgemmBatched(
                    blas.0, 1, 0, m_, n_, k_, &1.5, a_array.at(0), k_, b_array.at(0), k_, &0.0, c_array.at(0), m_,
                    count_,
                );
            }
        } else {
            let alpha = Scalar::new(F32, 1.5);
            ok! {
                cublasGemmBatchedEx(
                    blas.0, 1, 0, m_, n_, k_, alpha.pointer(false), a_array.at(0), 2, k_, b_array.at(0), 2, k_,
                    zero.pointer(false), c_array.at(0), 2, m_, count_, 68, -1,
                );
            }
        }
        for ((a, b), c) in a.iter().zip(&b).zip(&c) {
            let ab = sum(k, a.op(true), b.op(false));
            c.check("batched", |i, j| 1.5 * ab(i, j));
        }
    }
}

#[test]
fn groups_of_products() {
    let blas = Blas::new();
    let mut numbers = Numbers(4);
    let (transa, transb) = ([0, 1], [1, 0]);
    let shapes = [[3, 4, 5], [7, 2, 6]];
    let sizes = [2, 3];
    let (alpha, beta) = ([1.0_f32, -2.0], [0.0_f32, 1.0]);
    for kind in [F32, Bf16] {
        // Host arrays as cudarc passes them, and arrays on the device as cuBLAS documents.
        for on_host in [false, true] {
            let mut problems = Vec::new();
            for group in [0, 0, 1, 1, 1] {
                let [m, n, k] = shapes[group];
                let (rows, cols) = if transa[group] == 1 { (k, m) } else { (m, k) };
                let a = Matrix::random(kind, rows, cols, rows, &mut numbers);
                let (rows, cols) = if transb[group] == 1 { (n, k) } else { (k, n) };
                let b = Matrix::random(kind, rows, cols, rows, &mut numbers);
                problems.push((group, a, b, Matrix::random(kind, m, n, m, &mut numbers)));
            }
            let of = |pick: fn(&(usize, Matrix, Matrix, Matrix)) -> &Buffer| {
                let buffers: Vec<_> = problems.iter().map(pick).collect();
                (buffers.iter().map(|buffer| buffer.0).collect::<Vec<_>>(), Buffer::addresses(&buffers))
            };
            let arrays = [of(|p| &p.1.buffer), of(|p| &p.2.buffer), of(|p| &p.3.buffer)];
            let at =
                |index: usize| if on_host { arrays[index].0.as_ptr().cast::<c_void>() } else { arrays[index].1.at(0) };
            let extents = |index: usize| shapes.map(|shape| shape[index] as c_int);
            let (m, n, k) = (extents(0), extents(1), extents(2));
            let (lda, ldb) = ([m[0], k[1]], [n[0], k[1]]);
            if kind == F32 && on_host {
                ok! {
                    cublasSgemmGroupedBatched(
                        blas.0, transa.as_ptr(), transb.as_ptr(), m.as_ptr(), n.as_ptr(), k.as_ptr(), alpha.as_ptr(),
                        at(0).cast(), lda.as_ptr(), at(1).cast(), ldb.as_ptr(), beta.as_ptr(), at(2).cast(),
                        m.as_ptr(), 2, sizes.as_ptr(),
                    );
                }
            } else {
                ok! {
                    cublasGemmGroupedBatchedEx(
                        blas.0, transa.as_ptr(), transb.as_ptr(), m.as_ptr(), n.as_ptr(), k.as_ptr(),
                        alpha.as_ptr().cast(), at(0).cast(), kind.number(), lda.as_ptr(), at(1).cast(), kind.number(),
                        ldb.as_ptr(), beta.as_ptr().cast(), at(2).cast(), kind.number(), m.as_ptr(), 2, sizes.as_ptr(),
                        68,
                    );
                }
            }
            for (group, a, b, c) in &problems {
                let ab = sum(shapes[*group][2], a.op(transa[*group] == 1), b.op(transb[*group] == 1));
                let old = c.op(false);
                let [alpha, beta] = [alpha, beta].map(|scalar| f64::from(scalar[*group]));
                c.check("grouped", |i, j| alpha * ab(i, j) + beta * old(i, j));
            }
        }
    }
    ok!(cublasSetPointerMode_v2(blas.0, 1));
    assert_eq!(
        call! {
            cublasSgemmGroupedBatched(
                blas.0, null(), null(), null(), null(), null(), null(), null(), null(), null(), null(), null(), null(),
                null(), 0, null(),
            )
        },
        NOT_SUPPORTED
    );
}

/// Rounds to 11 significant bits, ties away from zero, on the bits of an f32.
fn tf32(x: f64) -> f64 {
    f32::from_bits(((x as f32).to_bits() + 0x1000) & !0x1fff).into()
}

#[test]
fn math_modes_and_compute_types_round_the_operands() {
    let blas = Blas::new();
    let mut numbers = Numbers(5);
    let (m, n, k) = (9, 8, 64);
    let [m_, n_, k_] = [m, n, k].map(|extent| extent as c_int);
    // The first row lies midway between two tf32, of which the first is even.
    let a = Matrix::new(F32, m, k, m, |i, _| if i == 0 { 1.0 + f64::exp2(-11.0) } else { numbers.next() });
    let b = Matrix::random(F32, k, n, k, &mut numbers);
    let c = Matrix::random(F32, m, n, m, &mut numbers);
    let check = |what: &str, round: &dyn Fn(f64) -> f64| {
        let (a, b) = (a.op(false), b.op(false));
        c.check(what, sum(k, |i, l| round(a(i, l)), |l, j| round(b(l, j))));
    };
    let one = Scalar::new(F32, 1.0);
    let zero = Scalar::new(F32, 0.0);
    let exact = |x: f64| x;
    let gemm = |compute: c_int| {
        call! {
            cublasGemmEx(
                blas.0, 0, 0, m_, n_, k_, one.pointer(false), a.buffer.at(0), 0, m_, b.buffer.at(0), 0, k_,
                zero.pointer(false), c.buffer.to(0), 0, m_, compute, -1,
            )
        }
    };
    let round: [(c_int, &dyn Fn(f64) -> f64); 5] =
        [(69, &exact), (77, &tf32), (74, &|x| F16.round(x)), (75, &|x| Bf16.round(x)), (68, &exact)];
    for (compute, round) in round {
        assert_eq!(gemm(compute), 0);
        check(&format!("compute type {compute}"), round);
    }
    let modes: [(c_int, &dyn Fn(f64) -> f64); 6] =
        [(3, &tf32), (3 | 16, &tf32), (1, &|x| F16.round(x)), (2, &exact), (16, &exact), (0, &exact)];
    for (mode, round) in modes {
        let mut got = -1;
        ok! {
            cublasSetMathMode(blas.0, mode);
            cublasGetMathMode(blas.0, &mut got);
            cublasSgemm_v2(
                blas.0, 0, 0, m_, n_, k_, &1.0, a.buffer.at(0), m_, b.buffer.at(0), k_, &0.0, c.buffer.to(0), m_,
            );
        }
        assert_eq!(got, mode);
        check(&format!("math mode {mode}"), round);
        // Pedantic compute types stay exact in every mode.
        assert_eq!(gemm(69), 0);
        check(&format!("pedantic in math mode {mode}"), &exact);
    }
    assert_eq!(call!(cublasSetMathMode(blas.0, 99)), INVALID_VALUE);
}

#[test]
fn matrix_times_vector() {
    let blas = Blas::new();
    let mut numbers = Numbers(6);
    for (trans, m, n) in [(0, 5, 7), (1, 5, 7), (2, 1, 3), (0, 70, 1), (1, 300, 2)] {
        let (rows, cols) = if trans == 0 { (m, n) } else { (n, m) };
        for (incx, incy) in [(1, 1), (2, -3), (-1, 2)] {
            for (alpha, beta) in [(1.0, 0.0), (-0.5, 1.5)] {
                for kind in [F32, F64] {
                    let a = Matrix::random(kind, m, n, m + 2, &mut numbers);
                    // A vector with an increment is a matrix of one row: its gaps stay unwritten.
                    let vector = |len: usize, increment: c_int, numbers: &mut Numbers| {
                        Matrix::random(kind, 1, len, increment.unsigned_abs() as usize, numbers)
                    };
                    let x = vector(cols, incx, &mut numbers);
                    let y = vector(rows, incy, &mut numbers);
                    let (m, n) = (m as c_int, n as c_int);
                    if kind == F32 {
                        ok! {
                            cublasSgemv_v2(
                                blas.0, trans, m, n, &(alpha as f32), a.buffer.at(0), m + 2, x.buffer.at(0), incx,
                                &(beta as f32), y.buffer.to(0), incy,
                            );
                        }
                    } else {
                        ok! {
                            cublasDgemv_v2(
                                blas.0, trans, m, n, &alpha, a.buffer.at(0), m + 2, x.buffer.at(0), incx, &beta,
                                y.buffer.to(0), incy,
                            );
                        }
                    }
                    let order = |len: usize, increment: c_int, at: usize| if increment < 0 { len - 1 - at } else { at };
                    let (a, x, old) = (a.op(trans != 0), x.op(false), y.op(false));
                    y.check("gemv", |_, at| {
                        let i = order(rows, incy, at);
                        let ax: f64 = (0..cols).map(|l| a(i, l) * x(0, order(cols, incx, l))).sum();
                        alpha * ax + beta * old(0, at)
                    });
                }
            }
        }
    }
    // Two products, the vectors between one another.
    let a = Matrix::random(F64, 3, 4, 3, &mut numbers);
    let x = Matrix::random(F64, 2, 2, 2, &mut numbers);
    let y = Matrix::random(F64, 2, 3, 2, &mut numbers);
    ok! {
        cublasDgemvStridedBatched(
            blas.0, 0, 3, 2, &1.0, a.buffer.at(0), 3, 6, x.buffer.at(0), 2, 1, &0.0, y.buffer.to(0), 2, 1, 2,
        );
    }
    let (a, x) = (a.op(false), x.op(false));
    y.check("gemv batched", |product, i| (0..2).map(|l| a(i, l + 2 * product) * x(product, l)).sum());
    // As in BLAS, an empty A leaves y alone.
    let old = y.download();
    ok!(cublasDgemv_v2(blas.0, 0, 3, 0, &1.0, null(), 3, null(), 1, &0.0, y.buffer.to(0), 1));
    assert_eq!(y.download(), old);
    let refused = |trans, m, lda, incx, incy| {
        call!(cublasSgemv_v2(blas.0, trans, m, 2, &1.0, null(), lda, null(), incx, &0.0, null_mut(), incy))
    };
    for arguments in [(4, 2, 2, 1, 1), (0, -1, 2, 1, 1), (0, 2, 1, 1, 1), (0, 2, 2, 0, 1), (0, 2, 2, 1, 0)] {
        let (trans, m, lda, incx, incy) = arguments;
        assert_eq!(refused(trans, m, lda, incx, incy), INVALID_VALUE, "{arguments:?}");
    }
}

#[test]
fn sums_and_updates_of_vectors() {
    let blas = Blas::new();
    let mut numbers = Numbers(7);
    let n = 1000;
    let n_ = n as c_int;
    let x = Matrix::random(F32, 1, n, 2, &mut numbers);
    let y = Matrix::random(F32, 1, n, 1, &mut numbers);
    let result = Matrix::new(F32, 1, 3, 1, |_, _| 0.0);
    let mut host = [0.0_f32; 3];
    for on_device in [0, 1] {
        let at = |index: usize, host: &mut [f32; 3]| {
            if on_device == 1 { result.buffer.to(index) } else { &raw mut host[index] }
        };
        ok! {
            cublasSetPointerMode_v2(blas.0, on_device);
            cublasSasum_v2(blas.0, n_, x.buffer.at(0), 2, at(0, &mut host));
            cublasSnrm2_v2(blas.0, n_, x.buffer.at(0), 2, at(1, &mut host));
            cublasSdot_v2(blas.0, n_, x.buffer.at(0), 2, y.buffer.at(0), -1, at(2, &mut host));
        }
    }
    let want = [
        x.values.iter().map(|x| x.abs()).sum::<f64>(),
        x.values.iter().map(|x| x * x).sum::<f64>().sqrt(),
        x.values.iter().zip(y.values.iter().rev()).map(|(x, y)| x * y).sum(),
    ];
    result.check("on the device", |_, j| want[j]);
    for (got, want) in host.into_iter().zip(want) {
        assert!((f64::from(got) - want).abs() <= F32.epsilon() * want.abs() + 1e-12);
    }
    // Nothing to add: 0, without reading anything.
    ok!(cublasSetPointerMode_v2(blas.0, 0));
    for (n, increment) in [(0, 1), (-5, 1), (5, 0), (5, -1)] {
        let (mut asum, mut nrm2) = (f64::NAN, f64::NAN);
        ok! {
            cublasDasum_v2(blas.0, n, null(), increment, &mut asum);
            cublasDnrm2_v2(blas.0, n, null(), increment, &mut nrm2);
        }
        assert_eq!((asum, nrm2), (0.0, 0.0));
    }
    let mut dot = f64::NAN;
    ok!(cublasDdot_v2(blas.0, 0, null(), 1, null(), 1, &mut dot));
    assert_eq!(dot, 0.0);
    assert_eq!(call!(cublasDasum_v2(blas.0, 0, null(), 1, null_mut())), INVALID_VALUE);

    ok!(cublasSaxpy_v2(blas.0, n_, &-2.0, x.buffer.at(0), 2, y.buffer.to(0), -1));
    let old = y.op(false);
    y.check("axpy", |_, at| old(0, at) - 2.0 * x.values[n - 1 - at]);
    let z = Matrix::random(F64, 1, 50, 3, &mut numbers);
    ok!(cublasDscal_v2(blas.0, 50, &0.1, z.buffer.to(0), 3));
    let old = z.op(false);
    z.check("scal", |_, at| 0.1 * old(0, at));
    ok! {
        cublasSaxpy_v2(blas.0, 0, &1.0, null(), 1, null_mut(), 1);
        cublasDscal_v2(blas.0, 5, &1.0, null_mut(), -1);
    }
}

#[test]
fn handles_and_refusals() {
    context();
    let mut handle = null_mut();
    ok!(cublasCreate_v2(&mut handle));
    let (mut stream, mut mode, mut version) = (9, 9, 0);
    ok! {
        cublasGetStream_v2(handle, &mut stream);
        cublasGetPointerMode_v2(handle, &mut mode);
        cublasGetVersion_v2(handle, &mut version);
        cublasSetWorkspace_v2(handle, without_provenance_mut(0x10_0000_0100), 1024);
    }
    assert_eq!((stream, mode), (0, 0));
    let mut parts = [0; 3];
    for (property, part) in parts.iter_mut().enumerate() {
        ok!(cublasGetProperty(property as c_int, part));
    }
    assert_eq!(parts[0] * 10_000 + parts[1] * 100 + parts[2], version);
    ok!(cublasSetStream_v2(handle, 2); cublasGetStream_v2(handle, &mut stream));
    assert_eq!(stream, 2);
    assert_eq!(call!(cublasSetWorkspace_v2(handle, without_provenance_mut(0x10_0000_0101), 1024)), INVALID_VALUE);
    assert_eq!(call!(cublasSetPointerMode_v2(handle, 2)), INVALID_VALUE);
    assert_eq!(call!(cublasCreate_v2(null_mut())), INVALID_VALUE);
    assert_eq!(call!(cublasGetPointerMode_v2(handle, null_mut())), INVALID_VALUE);

    let gemm = |handle: Handle, operations: (c_int, c_int), shape: [c_int; 3], ld: [c_int; 3], alpha: *const f32| {
        let (a, c) = (without_provenance(64), without_provenance_mut(64));
        let ((transa, transb), [m, n, k], [lda, ldb, ldc]) = (operations, shape, ld);
        call!(cublasSgemm_v2(handle, transa, transb, m, n, k, alpha, a, lda, a, ldb, &0.0, c, ldc))
    };
    assert_eq!(gemm(null_mut(), (0, 0), [2, 2, 2], [2, 2, 2], &1.0), NOT_INITIALIZED);
    assert_eq!(gemm(handle, (0, 0), [2, 2, 2], [2, 2, 2], null()), INVALID_VALUE);
    for (operations, shape, ld) in [
        ((5, 0), [2, 2, 2], [2, 2, 2]),
        ((0, -1), [2, 2, 2], [2, 2, 2]),
        ((0, 0), [-1, 2, 2], [2, 2, 2]),
        ((0, 0), [2, -1, 2], [2, 2, 2]),
        ((0, 0), [2, 2, -1], [2, 2, 2]),
        ((0, 0), [4, 2, 3], [3, 3, 4]),
        ((1, 0), [4, 2, 3], [2, 3, 4]),
        ((0, 0), [4, 2, 3], [4, 2, 4]),
        ((0, 1), [4, 2, 3], [4, 1, 4]),
        ((0, 0), [4, 2, 3], [4, 3, 3]),
        ((0, 0), [0, 2, 3], [0, 3, 1]),
    ] {
        assert_eq!(gemm(handle, operations, shape, ld, &1.0), INVALID_VALUE, "{operations:?} {shape:?} {ld:?}");
    }
    let one = Scalar::new(F64, 1.0);
    for (a_type, b_type, c_type, compute) in [
        (0, 2, 0, 68),
        (2, 2, 2, 70),
        (2, 2, 14, 68),
        (3, 3, 10, 72),
        (0, 0, 0, 64),
        (0, 0, 2, 68),
        (4, 4, 4, 68),
        (2, 2, 2, 77),
    ] {
        assert_eq!(
            call! {
                cublasGemmEx(
                    handle, 0, 0, 2, 2, 2, one.pointer(false), null(), a_type, 2, null(), b_type, 2,
                    one.pointer(false), null_mut(), c_type, 2, compute, -1,
                )
            },
            NOT_SUPPORTED,
            "{a_type} {b_type} {c_type} {compute}"
        );
    }
    assert_eq!(
        call! {
            cublasSgemmStridedBatched(
                handle, 0, 0, 2, 2, 2, &1.0, null(), 2, 4, null(), 2, 4, &0.0, null_mut(), 2, 4, -1,
            )
        },
        INVALID_VALUE
    );
    ok!(cublasDestroy_v2(handle));
    // A destroyed handle is refused, not followed.
    assert_eq!(call!(cublasDestroy_v2(handle)), NOT_INITIALIZED);
    assert_eq!(gemm(handle, (0, 0), [2, 2, 2], [2, 2, 2], &1.0), NOT_INITIALIZED);

    let text = |pointer: *const c_char| {
        // SAFETY: the library answers a string that lives as long as it does.
        unsafe { CStr::from_ptr(pointer) }.to_str().unwrap()
    };
    assert_eq!(text(call!(cublasGetStatusName(7))), "CUBLAS_STATUS_INVALID_VALUE");
    assert!(!text(call!(cublasGetStatusString(13))).is_empty());
    assert!(call!(cublasGetStatusName(2)).is_null());
}

/// Descriptors of one cuBLASLt product.
struct Lt {
    handle: Handle,
    descriptor: Handle,
    layouts: [Handle; 4],
    preference: Handle,
}

impl Lt {
    /// Layouts are type, rows, columns, leading dimension, order.
    fn new(compute: c_int, scale: Type, layouts: [(Type, usize, usize, usize, c_int); 4]) -> Self {
        context();
        ok!(cublasLtLoggerSetLevel(0));
        let (mut handle, mut descriptor, mut preference) = (null_mut(), null_mut(), null_mut());
        let workspace = 1_u64 << 22;
        ok! {
            cublasLtCreate(&mut handle);
            cublasLtMatmulDescCreate(&mut descriptor, compute, scale.number());
            cublasLtMatmulPreferenceCreate(&mut preference);
            cublasLtMatmulPreferenceSetAttribute(preference, 1, (&raw const workspace).cast(), 8);
        }
        let layouts = layouts.map(|(kind, rows, cols, ld, order)| {
            let mut layout = null_mut();
            ok!(cublasLtMatrixLayoutCreate(&mut layout, kind.number(), rows as u64, cols as u64, ld as i64));
            ok!(cublasLtMatrixLayoutSetAttribute(layout, 1, (&raw const order).cast(), 4));
            layout
        });
        Self { handle, descriptor, layouts, preference }
    }

    fn set<T>(&self, number: c_int, value: T) {
        ok!(cublasLtMatmulDescSetAttribute(self.descriptor, number, (&raw const value).cast(), size_of::<T>()));
    }

    fn batch(&self, operand: usize, count: c_int, stride: i64) {
        ok! {
            cublasLtMatrixLayoutSetAttribute(self.layouts[operand], 5, (&raw const count).cast(), 4);
            cublasLtMatrixLayoutSetAttribute(self.layouts[operand], 6, (&raw const stride).cast(), 8);
        }
    }

    /// The status of the search for an algorithm, and how many were found.
    fn heuristic(&self) -> (c_int, c_int) {
        let (mut results, mut found) = ([u64::MAX; 12], -1);
        let [a, b, c, d] = self.layouts;
        let status = call! {
            cublasLtMatmulAlgoGetHeuristic(
                self.handle, self.descriptor, a, b, c, d, self.preference, 1, &mut results, &mut found,
            )
        };
        if status == 0 {
            // Bytes 72 to 76 are the algorithm's own status.
            assert_eq!(results[9] as u32, 0);
        }
        (status, found)
    }

    fn matmul(&self, alpha: *const c_void, beta: *const c_void, operands: [&Buffer; 4]) -> c_int {
        let ([a, b, c, d], algorithm) = (self.layouts, [0_u64; 8]);
        call! {
            cublasLtMatmul(
                self.handle, self.descriptor, alpha, operands[0].at(0), a, operands[1].at(0), b, beta,
                operands[2].at(0), c, operands[3].to(0), d, algorithm.as_ptr().cast(), null_mut(), 0, 0,
            )
        }
    }
}

impl Drop for Lt {
    fn drop(&mut self) {
        for layout in self.layouts {
            ok!(cublasLtMatrixLayoutDestroy(layout));
        }
        ok! {
            cublasLtMatmulPreferenceDestroy(self.preference);
            cublasLtMatmulDescDestroy(self.descriptor);
            cublasLtDestroy(self.handle);
        }
    }
}

#[test]
fn lt_orders_operations_and_epilogues() {
    const EPILOGUES: [(bool, bool, c_int); 6] =
        [(false, false, 1), (true, false, 6), (false, true, 4), (true, true, 36), (false, false, 2), (true, false, 32)];
    let mut numbers = Numbers(8);
    let (m, n, k) = (7, 6, 5);
    assert!(call!(cublasLtGetVersion()) >= 130_000);
    // Each operand is stored by columns or by rows; one by rows is the transposed matrix by columns.
    for orders in 0..16 {
        let by_rows = |operand: usize| orders >> operand & 1 == 1;
        for (transposed_a, transposed_b, epilogue) in EPILOGUES {
            let mut stored = |rows: usize, cols: usize, operand: usize| {
                let (rows, cols) = if by_rows(operand) { (cols, rows) } else { (rows, cols) };
                Matrix::random(F32, rows, cols, rows + 2, &mut numbers)
            };
            let (rows_a, cols_a) = if transposed_a { (k, m) } else { (m, k) };
            let (rows_b, cols_b) = if transposed_b { (n, k) } else { (k, n) };
            let a = stored(rows_a, cols_a, 0);
            let b = stored(rows_b, cols_b, 1);
            let c = stored(m, n, 2);
            let d = stored(m, n, 3);
            let layout = |matrix: &Matrix, rows: usize, cols: usize, operand: usize| {
                (F32, rows, cols, matrix.ld, c_int::from(by_rows(operand)))
            };
            let layouts = [
                layout(&a, rows_a, cols_a, 0),
                layout(&b, rows_b, cols_b, 1),
                layout(&c, m, n, 2),
                layout(&d, m, n, 3),
            ];
            let lt = Lt::new(68, F32, layouts);
            let bias = Matrix::random(F32, m, 1, m, &mut numbers);
            lt.set(3, c_int::from(transposed_a));
            lt.set(4, c_int::from(transposed_b));
            lt.set(5, 0_i32);
            lt.set(7, epilogue);
            lt.set(8, bias.buffer.0);
            assert_eq!(lt.heuristic(), (0, 1));
            let (alpha, beta) = (Scalar::new(F32, 0.5), Scalar::new(F32, -1.0));
            let operands = [&a.buffer, &b.buffer, &c.buffer, &d.buffer];
            assert_eq!(lt.matmul(alpha.pointer(false), beta.pointer(false), operands), 0);
            let ab = sum(k, a.op(transposed_a != by_rows(0)), b.op(transposed_b != by_rows(1)));
            let old = c.op(by_rows(2));
            d.check(&format!("orders {orders:b}, epilogue {epilogue}"), |i, j| {
                let (i, j) = if by_rows(3) { (j, i) } else { (i, j) };
                let x = 0.5 * ab(i, j) - old(i, j) + if epilogue & 4 != 0 { bias.values[i] } else { 0.0 };
                match epilogue & !5 {
                    2 => x.max(0.0),
                    32 => 0.5 * x * (1.0 + (0.797_884_560_802_865_4 * (x + 0.044_715 * x * x * x)).tanh()),
                    _ => x,
                }
            });
        }
    }
}

#[test]
fn lt_batches_types_and_refusals() {
    let mut numbers = Numbers(9);
    let (m, n, k, count) = (3, 4, 8, 3);
    // cudarc multiplies f32 with FAST_TF32, and halves with f32 sums.
    for (kind, compute) in [(F32, 77), (F16, 68), (Bf16, 68)] {
        let a = Matrix::random(kind, m, k * count, m, &mut numbers);
        let b = Matrix::random(kind, k, n * count, k, &mut numbers);
        let c = Matrix::new(kind, m, n * count, m, |_, _| f64::NAN);
        let bias = Matrix::random(kind, m, count, m, &mut numbers);
        let layouts = [(kind, m, k, m, 0), (kind, k, n, k, 0), (kind, m, n, m, 0), (kind, m, n, m, 0)];
        let lt = Lt::new(compute, F32, layouts);
        for (operand, stride) in [m * k, k * n, m * n, m * n].into_iter().enumerate() {
            lt.batch(operand, count as c_int, stride as i64);
        }
        lt.set(7, 6_i32);
        lt.set(8, bias.buffer.0);
        lt.set(10, m as i64);
        // alpha and beta on the device.
        lt.set(2, 1_i32);
        let (alpha, beta) = (Scalar::new(F32, 2.0), Scalar::new(F32, 0.0));
        let operands = [&a.buffer, &b.buffer, &c.buffer, &c.buffer];
        assert_eq!(lt.heuristic(), (0, 1));
        assert_eq!(lt.matmul(alpha.pointer(true), beta.pointer(true), operands), 0);
        let round = |x: f64| if kind == F32 { tf32(x) } else { x };
        let (a, b, bias) = (a.op(false), b.op(false), bias.op(false));
        c.check(&format!("{kind:?}"), |i, j| {
            let product = j / n;
            let ab: f64 = (0..k).map(|l| round(a(i, l + product * k)) * round(b(l, j))).sum();
            (2.0 * ab + bias(i, product)).max(0.0)
        });
    }

    let layouts =
        |ld: usize, inner: usize| [(F32, m, k, ld, 0), (F32, inner, n, inner, 0), (F32, m, n, m, 0), (F32, m, n, m, 0)];
    assert_eq!(Lt::new(68, F32, layouts(m, k)).heuristic(), (0, 1));
    assert_eq!(Lt::new(68, F32, layouts(m - 1, k)).heuristic(), (INVALID_VALUE, 0));
    assert_eq!(Lt::new(68, F32, layouts(m, k + 1)).heuristic(), (INVALID_VALUE, 0));
    assert_eq!(Lt::new(64, F16, layouts(m, k)).heuristic(), (NOT_SUPPORTED, 0));
    assert_eq!(Lt::new(68, F64, layouts(m, k)).heuristic(), (NOT_SUPPORTED, 0));
    let lt = Lt::new(68, F32, layouts(m, k));
    lt.set(5, 1_i32);
    assert_eq!(lt.heuristic(), (NOT_SUPPORTED, 0));
    let lt = Lt::new(68, F32, layouts(m, k));
    lt.set(7, 130_i32);
    assert_eq!(lt.heuristic(), (NOT_SUPPORTED, 0));
    for operand in 0..4 {
        let lt = Lt::new(68, F32, layouts(m, k));
        lt.batch(operand, 2, 0);
        assert_eq!(lt.heuristic(), (INVALID_VALUE, 0));
    }
    let lt = Lt::new(68, F32, layouts(m, k));
    // A value of the wrong size, no buffer, and a handle of another kind.
    let value = 0_u64;
    let set = |descriptor: Handle, from: *const u64, bytes: usize| {
        call!(cublasLtMatmulDescSetAttribute(descriptor, 3, from.cast(), bytes))
    };
    assert_eq!(set(lt.descriptor, &value, 8), INVALID_VALUE);
    assert_eq!(set(lt.descriptor, null(), 4), INVALID_VALUE);
    assert_eq!(set(lt.layouts[0], &value, 4), INVALID_VALUE);
    assert_eq!(call!(cublasLtDestroy(lt.preference)), NOT_INITIALIZED);
}

#[test]
fn a_captured_product_is_a_node_with_the_scalars_of_its_call() {
    let blas = Blas::new();
    let mut numbers = Numbers(10);
    let a = Matrix::random(F32, 4, 4, 4, &mut numbers);
    let b = Matrix::random(F32, 4, 4, 4, &mut numbers);
    let c = Matrix::new(F32, 4, 4, 4, |_, _| 1.0);
    let (mut stream, mut graph, mut exec) = (0, 0, 0);
    ok! {
        cuStreamCreate(&mut stream, 1);
        cublasSetStream_v2(blas.0, stream);
        cuStreamBeginCapture_v2(stream, 0);
    }
    let mut alpha = 2.0;
    ok!(cublasSgemm_v2(blas.0, 0, 0, 4, 4, 4, &alpha, a.buffer.at(0), 4, b.buffer.at(0), 4, &1.0, c.buffer.to(0), 4));
    alpha = 7.0;
    ok! {
        cuStreamEndCapture(stream, &mut graph);
        cuGraphInstantiateWithFlags(&mut exec, graph, 0);
    }
    c.check("only captured", |_, _| 1.0);
    let ab = sum(4, a.op(false), b.op(false));
    for launches in 1..=2 {
        ok!(cuGraphLaunch(exec, stream); cuStreamSynchronize(stream));
        // Each launch rounds its sum.
        let sums = c.download();
        for (at, got) in sums.into_iter().enumerate() {
            let want = 1.0 + 2.0 * f64::from(launches) * ab(at % 4, at / 4);
            assert!((got - want).abs() <= 1e-6, "launch {launches}: {got} {want}");
        }
    }
    // A result on the host cannot wait for a graph.
    ok!(cuStreamBeginCapture_v2(stream, 0));
    let mut result = -1.0;
    let status = call!(cublasSasum_v2(blas.0, 16, a.buffer.at(0), 1, &mut result));
    assert_eq!((status, result, alpha), (EXECUTION_FAILED, -1.0, 7.0));
    call!(cuStreamEndCapture(stream, &mut graph));
    ok!(cuGraphExecDestroy(exec); cuStreamDestroy_v2(stream));
    call!(cuGraphDestroy(graph));
}

/// A name, a call with a defect, and what is printed about it.
type Fault = (&'static str, fn(&Blas) -> c_int, &'static str);

/// Defects that end the context; each runs in a process of its own.
const FAULTS: [Fault; 8] = [
    (
        "beyond",
        |blas| {
            let (a, b, c) = (Buffer::from(&[0; 60]), Buffer::from(&[0; 64]), Buffer::new(64));
            call!(cublasSgemm_v2(blas.0, 0, 0, 4, 4, 4, &1.0, a.at(0), 4, b.at(0), 4, &0.0, c.to(0), 4))
        },
        "cublasSgemm_v2: A reads 4 bytes beyond the 60 bytes at 0x",
    ),
    (
        "write",
        |blas| {
            let (a, b, c) = (Buffer::from(&[0; 64]), Buffer::from(&[0; 64]), Buffer::new(64));
            call!(cublasSgemm_v2(blas.0, 0, 0, 4, 4, 4, &1.0, a.at(0), 4, b.at(0), 4, &0.0, c.to(0), 5))
        },
        "cublasSgemm_v2: C writes 12 bytes beyond the 64 bytes at 0x",
    ),
    (
        "freed",
        |blas| {
            let (a, c) = (Buffer::from(&[0; 64]), Buffer::new(64));
            let b = Buffer::from(&[0; 64]).0 as usize;
            call!(cublasSgemm_v2(blas.0, 0, 0, 4, 4, 4, &1.0, a.at(0), 4, without_provenance(b), 4, &0.0, c.to(0), 4))
        },
        "cublasSgemm_v2: B reads 64 bytes at 0x",
    ),
    (
        "unwritten",
        |blas| {
            let (a, b, c) = (Buffer::from(&[0; 64]), Buffer::new(64), Buffer::new(64));
            ok!(cuMemcpyHtoD_v2(b.0, [0_u8; 60].as_ptr().cast(), 60));
            call!(cublasSgemm_v2(blas.0, 0, 0, 4, 4, 4, &1.0, a.at(0), 4, b.at(0), 4, &0.0, c.to(0), 4))
        },
        "3c, which nothing has written",
    ),
    (
        "accumulate",
        |blas| {
            let (a, b, c) = (Buffer::from(&[0; 64]), Buffer::from(&[0; 64]), Buffer::new(64));
            call!(cublasSgemm_v2(blas.0, 0, 0, 4, 4, 4, &1.0, a.at(0), 4, b.at(0), 4, &1.0, c.to(0), 4))
        },
        "cublasSgemm_v2: C reads 4 bytes at 0x",
    ),
    (
        "misaligned",
        |blas| {
            let (a, x, y) = (Buffer::from(&[0; 64]), Buffer::from(&[0; 64]), Buffer::new(64));
            let x = x.at::<u8>(4).cast();
            call!(cublasDgemv_v2(blas.0, 0, 2, 2, &1.0, a.at(0), 2, x, 1, &0.0, y.to(0), 1))
        },
        "cublasDgemv_v2: x reads 8-byte elements at 0x",
    ),
    (
        "foreign",
        |blas| {
            let mut result = 0.0;
            call!(cublasSasum_v2(blas.0, 3, without_provenance(4096), 1, &mut result))
        },
        "cublasSasum_v2: x reads 12 bytes at 0x1000, outside every allocation",
    ),
    (
        "array",
        |blas| {
            let (a, b) = (Buffer::from(&[0; 64]), Buffer::from(&[0; 64]));
            let array = Buffer::addresses(&[&a, &b]);
            let (data, pointers) = (array.at::<*const f64>(0), array.at(0));
            call!(cublasDgemmBatched(blas.0, 0, 0, 2, 2, 2, &1.0, data, 2, data, 2, &0.0, pointers, 2, 3))
        },
        "cublasDgemmBatched: array A reads 8 bytes beyond the 16 bytes at 0x",
    ),
];

#[test]
fn defects_are_printed_and_end_the_context() {
    const VARIABLE: &str = "CUBLAS_TEST_FAULT";
    if let Ok(chosen) = std::env::var(VARIABLE) {
        let (_, fault, _) = FAULTS.iter().find(|(name, ..)| *name == chosen).unwrap();
        let blas = Blas::new();
        assert_eq!(fault(&blas), EXECUTION_FAILED);
        println!("sticky {}", call!(cuCtxSynchronize()));
        return;
    }
    for (name, _, message) in FAULTS {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "defects_are_printed_and_end_the_context", "--nocapture"]).env(VARIABLE, name);
        let output = command.output().unwrap();
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(
            stderr.lines().any(|line| line.starts_with("cudrift-sim: ") && line.contains(message)),
            "{name}: {stderr}"
        );
        let code = match name {
            "misaligned" => 716,
            "unwritten" | "accumulate" => 719,
            _ => 700,
        };
        assert!(stdout.contains(&format!("sticky {code}")), "{name}: {stdout}{stderr}");
        assert!(output.status.success(), "{name}: {stdout}{stderr}");
    }
}
