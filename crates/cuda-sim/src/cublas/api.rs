//! The handle and the products of `cublas_v2.h` and `cublas_api.h`.

use std::ffi::{c_int, c_longlong, c_void};
use std::sync::Arc;

use super::access::{Access, Done, Layout, Scalar};
use super::element::{Element, Rounding};
use super::gemm::{Activation, Addresses, Compute, Gemm, Matrix, transposes};
use super::handle::{Handle, Table};
use super::status::{Result, Status, answer, put};
use crate::device::Device;
use crate::driver::{CUstream, enqueue_library};

/// The version that `cublasGetVersion_v2` answers, as 13.4.0.
const VERSION: c_int = 130_400;

/// What a handle carries.
#[derive(Clone, Copy, Default)]
pub(super) struct Settings {
    pub(super) stream: CUstream,
    /// Do alpha, beta and results lie on the device?
    pub(super) on_device: bool,
    math_mode: c_int,
}

/// The live handles.
pub(super) static HANDLES: Table<Settings> = Table::new();

impl Settings {
    /// What an f32 product at default precision does with its operands in this math mode.
    fn compute(&self) -> c_int {
        // Above the mode itself lies the flag that forbids sums in reduced precision, which there are none of here.
        match self.math_mode & 15 {
            1 => Compute::FAST_F16,
            3 => Compute::TF32,
            _ => Compute::F32,
        }
    }
}

/// Creates a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasCreate_v2(handle: *mut Handle) -> c_int {
    // SAFETY: the caller's pointer, which `put` checks.
    answer(|| unsafe { put(handle, HANDLES.insert(Settings::default())) })
}

/// Ends a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasDestroy_v2(handle: Handle) -> c_int {
    answer(|| HANDLES.remove(handle))
}

/// Chooses the stream that the work goes to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasSetStream_v2(handle: Handle, stream: CUstream) -> c_int {
    answer(|| HANDLES.update(handle, |settings| settings.stream = stream))
}

/// The stream that the work goes to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasGetStream_v2(handle: Handle, stream: *mut CUstream) -> c_int {
    // SAFETY: the caller's pointer, which `put` checks.
    answer(|| unsafe { put(stream, HANDLES.get(handle)?.stream) })
}

/// Chooses where alpha, beta and results lie: 0 on the host, 1 on the device.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasSetPointerMode_v2(handle: Handle, mode: c_int) -> c_int {
    answer(|| match mode {
        0 | 1 => HANDLES.update(handle, |settings| settings.on_device = mode == 1),
        _ => HANDLES.get(handle).and(Err(Status::INVALID_VALUE)),
    })
}

/// Where alpha, beta and results lie: 0 on the host, 1 on the device.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasGetPointerMode_v2(handle: Handle, mode: *mut c_int) -> c_int {
    // SAFETY: the caller's pointer, which `put` checks.
    answer(|| unsafe { put(mode, HANDLES.get(handle)?.on_device.into()) })
}

/// Chooses the precision of f32 products: 0 default, 1 f16 operands, 2 pedantic, 3 tf32 operands.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasSetMathMode(handle: Handle, mode: c_int) -> c_int {
    answer(|| match mode & !16 {
        0..=3 => HANDLES.update(handle, |settings| settings.math_mode = mode),
        _ => HANDLES.get(handle).and(Err(Status::INVALID_VALUE)),
    })
}

/// The precision of f32 products.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasGetMathMode(handle: Handle, mode: *mut c_int) -> c_int {
    // SAFETY: the caller's pointer, which `put` checks.
    answer(|| unsafe { put(mode, HANDLES.get(handle)?.math_mode) })
}

/// Lends a workspace, aligned to 256 bytes; nothing here needs one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasSetWorkspace_v2(handle: Handle, workspace: *mut c_void, bytes: usize) -> c_int {
    answer(|| {
        HANDLES.get(handle)?;
        if bytes > 0 && !workspace.addr().is_multiple_of(256) { Err(Status::INVALID_VALUE) } else { Ok(()) }
    })
}

/// The version of the library that this one stands in for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasGetVersion_v2(_handle: Handle, version: *mut c_int) -> c_int {
    // SAFETY: the caller's pointer, which `put` checks.
    answer(|| unsafe { put(version, VERSION) })
}

/// Major (0), minor (1) or patch (2) number of the version.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasGetProperty(property: c_int, value: *mut c_int) -> c_int {
    let part = match property {
        0 => VERSION / 10_000,
        1 => VERSION / 100 % 100,
        2 => VERSION % 100,
        _ => return Status::INVALID_VALUE.0,
    };
    // SAFETY: the caller's pointer, which `put` checks.
    answer(|| unsafe { put(value, part) })
}

/// A count or an extent, which C passes as a signed number.
///
/// # Errors
/// Where it is negative.
pub(super) fn extent(count: c_int) -> Result<usize> {
    usize::try_from(count).map_err(|_| Status::INVALID_VALUE)
}

/// One matrix argument of a product: its address (or that of an array of addresses), `cudaDataType` and leading
/// dimension.
#[derive(Clone, Copy)]
struct Operand {
    at: u64,
    data_type: c_int,
    ld: c_int,
}

impl Operand {
    fn new<T>(pointer: *const T, data_type: c_int, ld: c_int) -> Self {
        Self { at: pointer.expose_provenance() as u64, data_type, ld }
    }

    /// The stored matrix of that shape.
    ///
    /// # Errors
    /// Where the leading dimension is less than its rows, or 0.
    fn layout(&self, element: Element, rows: usize, cols: usize) -> Result<Layout> {
        if extent(self.ld)? < rows.max(1) {
            return Err(Status::INVALID_VALUE);
        }
        Ok(Layout::matrix(element, rows, cols, self.ld.into()))
    }
}

/// The arguments that all forms of gemm share.
#[derive(Clone, Copy)]
struct Arguments {
    call: &'static str,
    operations: [c_int; 2],
    /// m, n, k.
    shape: [c_int; 3],
    alpha: *const c_void,
    beta: *const c_void,
    a: Operand,
    b: Operand,
    c: Operand,
    compute: c_int,
}

impl Arguments {
    /// Checks the arguments, and reads alpha and beta where they lie on the host.
    ///
    /// # Errors
    /// As cuBLAS documents.
    ///
    /// # Safety
    /// Unless they lie on the device, alpha and beta are null or valid for a read of the compute type's scale.
    unsafe fn check(&self, settings: &Settings) -> Result<Gemm> {
        let [transposed_a, transposed_b] = [transposes(self.operations[0])?, transposes(self.operations[1])?];
        let [m, n, k] = [extent(self.shape[0])?, extent(self.shape[1])?, extent(self.shape[2])?];
        let element = |operand: Operand| Element::of(operand.data_type);
        let (a, b, c) = (element(self.a)?, element(self.b)?, element(self.c)?);
        let default = self.compute == Compute::F32 && a == Element::F32 && c == Element::F32;
        let compute = Compute::of(if default { settings.compute() } else { self.compute }, a, b, c)?;
        let (a_rows, a_cols) = if transposed_a { (k, m) } else { (m, k) };
        let (b_rows, b_cols) = if transposed_b { (n, k) } else { (k, n) };
        let c = Matrix { stored: self.c.layout(c, m, n)?, transposed: false };
        Ok(Gemm {
            call: self.call,
            names: ["A", "B", "C", "C"],
            a: Matrix { stored: self.a.layout(a, a_rows, a_cols)?, transposed: transposed_a },
            b: Matrix { stored: self.b.layout(b, b_rows, b_cols)?, transposed: transposed_b },
            c,
            d: c,
            // SAFETY: as the caller promises.
            alpha: unsafe { Scalar::new(self.alpha, compute.scale, settings.on_device)? },
            // SAFETY: as the caller promises.
            beta: unsafe { Scalar::new(self.beta, compute.scale, settings.on_device)? },
            rounding: compute.rounding,
            bias: None,
            activation: Activation::Identity,
        })
    }

    /// One product, or several whose operands lie at multiples of `strides` elements.
    ///
    /// # Safety
    /// As [`check`](Self::check).
    unsafe fn strided(self, handle: Handle, strides: [c_longlong; 3], count: c_int) -> c_int {
        answer(|| {
            let settings = HANDLES.get(handle)?;
            // SAFETY: as the caller promises.
            let gemm = unsafe { self.check(&settings)? };
            let count = extent(count)?;
            let at = move |operand: Operand, layout: Layout, stride: i64, index: usize| {
                operand.at.wrapping_add_signed(stride.wrapping_mul(index as i64 * layout.element.size() as i64))
            };
            let Self { a, b, c, .. } = self;
            let ([a_at, b_at, c_at], [a_stride, b_stride, c_stride]) = ([a, b, c], strides);
            let run = move |device: &Device| {
                (0..count).try_for_each(|index| {
                    let c = at(c_at, gemm.c.stored, c_stride, index);
                    let a = at(a_at, gemm.a.stored, a_stride, index);
                    let b = at(b_at, gemm.b.stored, b_stride, index);
                    gemm.run(device, Addresses { a, b, c, d: c, bias: 0 })
                })
            };
            Ok(enqueue_library(settings.stream, Arc::new(run))?)
        })
    }

    /// Several products whose operands' addresses lie in arrays.
    ///
    /// # Safety
    /// As [`check`](Self::check); an array on the host is valid for `count` reads.
    unsafe fn batched(self, handle: Handle, count: c_int) -> c_int {
        answer(|| {
            let settings = HANDLES.get(handle)?;
            // SAFETY: as the caller promises.
            let gemm = unsafe { self.check(&settings)? };
            let count = extent(count)?;
            // SAFETY: as the caller promises.
            let arrays = unsafe { Arrays::new(self.a.at, self.b.at, self.c.at, count) };
            let run = move |device: &Device| {
                arrays
                    .addresses(Access { device, call: gemm.call })?
                    .into_iter()
                    .try_for_each(|at| gemm.run(device, at))
            };
            Ok(enqueue_library(settings.stream, Arc::new(run))?)
        })
    }
}

/// An array of device addresses.
enum Array {
    /// Copied from the host by the call.
    Host(Vec<u64>),
    /// On the device, to be read when the work runs.
    Device(u64),
}

/// The arrays of a batched product's operands.
struct Arrays {
    a: Array,
    b: Array,
    c: Array,
    count: usize,
}

impl Arrays {
    /// No device address here is as high, and no heap or stack of a 64-bit process lies lower.
    const HOST: u64 = 1 << 45;

    /// The three arrays of `count` addresses. cuBLAS asks for arrays on the device, but with a driver that maps the
    /// host's memory others work too, and cudarc's grouped product passes such.
    ///
    /// # Safety
    /// An array on the host is valid for `count` reads.
    unsafe fn new(a: u64, b: u64, c: u64, count: usize) -> Self {
        let array = |at: u64| {
            if at < Self::HOST {
                return Array::Device(at);
            }
            let array = std::ptr::with_exposed_provenance::<u64>(at as usize);
            // SAFETY: an array on the host, as its address tells; valid for the reads, as the caller promises.
            Array::Host((0..count).map(|index| unsafe { array.add(index).read_unaligned() }).collect())
        };
        Self { a: array(a), b: array(b), c: array(c), count }
    }

    /// The addresses of each product's operands.
    fn addresses(&self, access: Access<'_>) -> Done<Vec<Addresses>> {
        let read = |name: &str, array: &Array| match array {
            Array::Host(addresses) => Ok(addresses.clone()),
            Array::Device(at) => access.addresses(name, *at, self.count),
        };
        let (a, b, c) = (read("array A", &self.a)?, read("array B", &self.b)?, read("array C", &self.c)?);
        let at = |index: usize| Addresses { a: a[index], b: b[index], c: c[index], d: c[index], bias: 0 };
        Ok((0..self.count).map(at).collect())
    }
}

/// The three forms of a product of one type throughout.
macro_rules! gemm {
    ($scalar:ty, $ty:literal, $compute:expr, $one:ident, $strided:ident, $batched:ident) => {
        /// C = alpha op(A) op(B) + beta C.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $one(
            handle: Handle,
            transa: c_int,
            transb: c_int,
            m: c_int,
            n: c_int,
            k: c_int,
            alpha: *const $scalar,
            a: *const $scalar,
            lda: c_int,
            b: *const $scalar,
            ldb: c_int,
            beta: *const $scalar,
            c: *mut $scalar,
            ldc: c_int,
        ) -> c_int {
            let (a, b, c) = (Operand::new(a, $ty, lda), Operand::new(b, $ty, ldb), Operand::new(c, $ty, ldc));
            let (call, operations, shape) = (stringify!($one), [transa, transb], [m, n, k]);
            let (alpha, beta, compute) = (alpha.cast(), beta.cast(), $compute);
            let arguments = Arguments { call, operations, shape, alpha, beta, a, b, c, compute };
            // SAFETY: alpha and beta point to what the type says.
            unsafe { arguments.strided(handle, [0; 3], 1) }
        }

        /// C = alpha op(A) op(B) + beta C for matrices at equal distances, counted in elements.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $strided(
            handle: Handle,
            transa: c_int,
            transb: c_int,
            m: c_int,
            n: c_int,
            k: c_int,
            alpha: *const $scalar,
            a: *const $scalar,
            lda: c_int,
            stride_a: c_longlong,
            b: *const $scalar,
            ldb: c_int,
            stride_b: c_longlong,
            beta: *const $scalar,
            c: *mut $scalar,
            ldc: c_int,
            stride_c: c_longlong,
            count: c_int,
        ) -> c_int {
            let (a, b, c) = (Operand::new(a, $ty, lda), Operand::new(b, $ty, ldb), Operand::new(c, $ty, ldc));
            let (call, operations, shape) = (stringify!($strided), [transa, transb], [m, n, k]);
            let (alpha, beta, compute) = (alpha.cast(), beta.cast(), $compute);
            let arguments = Arguments { call, operations, shape, alpha, beta, a, b, c, compute };
            // SAFETY: alpha and beta point to what the type says.
            unsafe { arguments.strided(handle, [stride_a, stride_b, stride_c], count) }
        }

        /// C = alpha op(A) op(B) + beta C for matrices whose addresses lie in arrays.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $batched(
            handle: Handle,
            transa: c_int,
            transb: c_int,
            m: c_int,
            n: c_int,
            k: c_int,
            alpha: *const $scalar,
            a: *const *const $scalar,
            lda: c_int,
            b: *const *const $scalar,
            ldb: c_int,
            beta: *const $scalar,
            c: *const *mut $scalar,
            ldc: c_int,
            count: c_int,
        ) -> c_int {
            let (a, b, c) = (Operand::new(a, $ty, lda), Operand::new(b, $ty, ldb), Operand::new(c, $ty, ldc));
            let (call, operations, shape) = (stringify!($batched), [transa, transb], [m, n, k]);
            let (alpha, beta, compute) = (alpha.cast(), beta.cast(), $compute);
            let arguments = Arguments { call, operations, shape, alpha, beta, a, b, c, compute };
            // SAFETY: alpha and beta point to what the type says, the arrays hold `count` addresses.
            unsafe { arguments.batched(handle, count) }
        }
    };
}

gemm!(f32, 0, Compute::F32, cublasSgemm_v2, cublasSgemmStridedBatched, cublasSgemmBatched);
gemm!(f64, 1, Compute::F64, cublasDgemm_v2, cublasDgemmStridedBatched, cublasDgemmBatched);
gemm!(u16, 2, Compute::F16, cublasHgemm, cublasHgemmStridedBatched, cublasHgemmBatched);

/// C = alpha op(A) op(B) + beta C, with types of the operands' own.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasGemmEx(
    handle: Handle,
    transa: c_int,
    transb: c_int,
    m: c_int,
    n: c_int,
    k: c_int,
    alpha: *const c_void,
    a: *const c_void,
    a_type: c_int,
    lda: c_int,
    b: *const c_void,
    b_type: c_int,
    ldb: c_int,
    beta: *const c_void,
    c: *mut c_void,
    c_type: c_int,
    ldc: c_int,
    compute: c_int,
    _algorithm: c_int,
) -> c_int {
    let (a, b, c) = (Operand::new(a, a_type, lda), Operand::new(b, b_type, ldb), Operand::new(c, c_type, ldc));
    let (operations, shape) = ([transa, transb], [m, n, k]);
    let arguments = Arguments { call: "cublasGemmEx", operations, shape, alpha, beta, a, b, c, compute };
    // SAFETY: alpha and beta point to what the compute type says.
    unsafe { arguments.strided(handle, [0; 3], 1) }
}

/// C = alpha op(A) op(B) + beta C for matrices at equal distances, with types of the operands' own.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasGemmStridedBatchedEx(
    handle: Handle,
    transa: c_int,
    transb: c_int,
    m: c_int,
    n: c_int,
    k: c_int,
    alpha: *const c_void,
    a: *const c_void,
    a_type: c_int,
    lda: c_int,
    stride_a: c_longlong,
    b: *const c_void,
    b_type: c_int,
    ldb: c_int,
    stride_b: c_longlong,
    beta: *const c_void,
    c: *mut c_void,
    c_type: c_int,
    ldc: c_int,
    stride_c: c_longlong,
    count: c_int,
    compute: c_int,
    _algorithm: c_int,
) -> c_int {
    let (a, b, c) = (Operand::new(a, a_type, lda), Operand::new(b, b_type, ldb), Operand::new(c, c_type, ldc));
    let (operations, shape) = ([transa, transb], [m, n, k]);
    let arguments = Arguments { call: "cublasGemmStridedBatchedEx", operations, shape, alpha, beta, a, b, c, compute };
    // SAFETY: alpha and beta point to what the compute type says.
    unsafe { arguments.strided(handle, [stride_a, stride_b, stride_c], count) }
}

/// C = alpha op(A) op(B) + beta C for matrices whose addresses lie in arrays, with types of the operands' own.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasGemmBatchedEx(
    handle: Handle,
    transa: c_int,
    transb: c_int,
    m: c_int,
    n: c_int,
    k: c_int,
    alpha: *const c_void,
    a: *const *const c_void,
    a_type: c_int,
    lda: c_int,
    b: *const *const c_void,
    b_type: c_int,
    ldb: c_int,
    beta: *const c_void,
    c: *const *mut c_void,
    c_type: c_int,
    ldc: c_int,
    count: c_int,
    compute: c_int,
    _algorithm: c_int,
) -> c_int {
    let (a, b, c) = (Operand::new(a, a_type, lda), Operand::new(b, b_type, ldb), Operand::new(c, c_type, ldc));
    let (operations, shape) = ([transa, transb], [m, n, k]);
    let arguments = Arguments { call: "cublasGemmBatchedEx", operations, shape, alpha, beta, a, b, c, compute };
    // SAFETY: alpha and beta point to what the compute type says, the arrays hold `count` addresses.
    unsafe { arguments.batched(handle, count) }
}

/// The arguments of a grouped product: host arrays with an entry for each group, and arrays of addresses with one for
/// each product, group after group.
struct Groups {
    call: &'static str,
    operations: [*const c_int; 2],
    /// m, n, k.
    shape: [*const c_int; 3],
    alpha: *const c_void,
    beta: *const c_void,
    arrays: [u64; 3],
    data_types: [c_int; 3],
    ld: [*const c_int; 3],
    count: c_int,
    sizes: *const c_int,
    compute: c_int,
}

impl Groups {
    /// # Safety
    /// The host arrays are null or hold `count` entries; arrays of addresses hold one for each product.
    unsafe fn enqueue(self, handle: Handle) -> c_int {
        answer(|| {
            let settings = HANDLES.get(handle)?;
            if settings.on_device {
                return Err(Status::NOT_SUPPORTED);
            }
            let count = extent(self.count)?;
            let hosts = self.operations.into_iter().chain(self.shape).chain(self.ld).chain([self.sizes]);
            if count > 0 && hosts.into_iter().any(<*const c_int>::is_null) {
                return Err(Status::INVALID_VALUE);
            }
            // SAFETY: not null, so it holds `count` entries.
            let of = |array: *const c_int, group: usize| unsafe { array.add(group).read_unaligned() };
            let [a_type, b_type, c_type] = self.data_types;
            let scale =
                Compute::of(self.compute, Element::of(a_type)?, Element::of(b_type)?, Element::of(c_type)?)?.scale;
            let mut groups = Vec::with_capacity(count);
            let mut products = 0;
            for group in 0..count {
                let operand =
                    |index: usize| Operand { at: 0, data_type: self.data_types[index], ld: of(self.ld[index], group) };
                let arguments = Arguments {
                    call: self.call,
                    operations: self.operations.map(|array| of(array, group)),
                    shape: self.shape.map(|array| of(array, group)),
                    alpha: self.alpha.wrapping_byte_add(group * scale.size()),
                    beta: self.beta.wrapping_byte_add(group * scale.size()),
                    a: operand(0),
                    b: operand(1),
                    c: operand(2),
                    compute: self.compute,
                };
                if self.alpha.is_null() || self.beta.is_null() {
                    return Err(Status::INVALID_VALUE);
                }
                let size = extent(of(self.sizes, group))?;
                // SAFETY: entries of arrays that hold as many.
                groups.push((unsafe { arguments.check(&settings)? }, size));
                products += size;
            }
            let [a, b, c] = self.arrays;
            // SAFETY: as the caller promises.
            let (call, arrays) = (self.call, unsafe { Arrays::new(a, b, c, products) });
            let run = move |device: &Device| {
                let mut addresses = arrays.addresses(Access { device, call })?.into_iter();
                groups
                    .iter()
                    .try_for_each(|(gemm, size)| addresses.by_ref().take(*size).try_for_each(|at| gemm.run(device, at)))
            };
            Ok(enqueue_library(settings.stream, Arc::new(run))?)
        })
    }
}

/// C = alpha op(A) op(B) + beta C for groups of matrices, with types of the operands' own.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasGemmGroupedBatchedEx(
    handle: Handle,
    transa: *const c_int,
    transb: *const c_int,
    m: *const c_int,
    n: *const c_int,
    k: *const c_int,
    alpha: *const c_void,
    a: *const *const c_void,
    a_type: c_int,
    lda: *const c_int,
    b: *const *const c_void,
    b_type: c_int,
    ldb: *const c_int,
    beta: *const c_void,
    c: *const *mut c_void,
    c_type: c_int,
    ldc: *const c_int,
    count: c_int,
    sizes: *const c_int,
    compute: c_int,
) -> c_int {
    let groups = Groups {
        call: "cublasGemmGroupedBatchedEx",
        operations: [transa, transb],
        shape: [m, n, k],
        alpha,
        beta,
        arrays: [a.expose_provenance() as u64, b.expose_provenance() as u64, c.expose_provenance() as u64],
        data_types: [a_type, b_type, c_type],
        ld: [lda, ldb, ldc],
        count,
        sizes,
        compute,
    };
    // SAFETY: the caller's arrays.
    unsafe { groups.enqueue(handle) }
}

/// The grouped product of one type throughout.
macro_rules! grouped {
    ($name:ident, $scalar:ty, $data_type:literal, $compute:expr) => {
        /// C = alpha op(A) op(B) + beta C for groups of matrices.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(
            handle: Handle,
            transa: *const c_int,
            transb: *const c_int,
            m: *const c_int,
            n: *const c_int,
            k: *const c_int,
            alpha: *const $scalar,
            a: *const *const $scalar,
            lda: *const c_int,
            b: *const *const $scalar,
            ldb: *const c_int,
            beta: *const $scalar,
            c: *const *mut $scalar,
            ldc: *const c_int,
            count: c_int,
            sizes: *const c_int,
        ) -> c_int {
            let groups = Groups {
                call: stringify!($name),
                operations: [transa, transb],
                shape: [m, n, k],
                alpha: alpha.cast(),
                beta: beta.cast(),
                arrays: [a.expose_provenance() as u64, b.expose_provenance() as u64, c.expose_provenance() as u64],
                data_types: [$data_type; 3],
                ld: [lda, ldb, ldc],
                count,
                sizes,
                compute: $compute,
            };
            // SAFETY: the caller's arrays.
            unsafe { groups.enqueue(handle) }
        }
    };
}

grouped!(cublasSgemmGroupedBatched, f32, 0, Compute::F32);
grouped!(cublasDgemmGroupedBatched, f64, 1, Compute::F64);

/// The product of a matrix and a vector, alone and at equal distances.
macro_rules! gemv {
    ($scalar:ty, $element:ident, $one:ident, $strided:ident) => {
        /// y = alpha op(A) x + beta y.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $one(
            handle: Handle,
            trans: c_int,
            m: c_int,
            n: c_int,
            alpha: *const $scalar,
            a: *const $scalar,
            lda: c_int,
            x: *const $scalar,
            incx: c_int,
            beta: *const $scalar,
            y: *mut $scalar,
            incy: c_int,
        ) -> c_int {
            let (call, element, operation) = (stringify!($one), Element::$element, trans);
            let (alpha, beta, at) = (alpha.cast(), beta.cast(), [a.addr(), x.addr(), y.addr()]);
            let (shape, ld, increments) = ([m, n], lda, [incx, incy]);
            let gemv = Gemv { call, element, operation, shape, alpha, beta, at, ld, increments };
            // SAFETY: alpha and beta point to what the type says.
            unsafe { gemv.enqueue(handle, [0; 3], 1) }
        }

        /// y = alpha op(A) x + beta y for operands at equal distances, counted in elements.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $strided(
            handle: Handle,
            trans: c_int,
            m: c_int,
            n: c_int,
            alpha: *const $scalar,
            a: *const $scalar,
            lda: c_int,
            stride_a: c_longlong,
            x: *const $scalar,
            incx: c_int,
            stride_x: c_longlong,
            beta: *const $scalar,
            y: *mut $scalar,
            incy: c_int,
            stride_y: c_longlong,
            count: c_int,
        ) -> c_int {
            let (call, element, operation) = (stringify!($strided), Element::$element, trans);
            let (alpha, beta, at) = (alpha.cast(), beta.cast(), [a.addr(), x.addr(), y.addr()]);
            let (shape, ld, increments) = ([m, n], lda, [incx, incy]);
            let gemv = Gemv { call, element, operation, shape, alpha, beta, at, ld, increments };
            // SAFETY: alpha and beta point to what the type says.
            unsafe { gemv.enqueue(handle, [stride_a, stride_x, stride_y], count) }
        }
    };
}

gemv!(f32, F32, cublasSgemv_v2, cublasSgemvStridedBatched);
gemv!(f64, F64, cublasDgemv_v2, cublasDgemvStridedBatched);

/// The arguments of a gemv.
struct Gemv {
    call: &'static str,
    element: Element,
    operation: c_int,
    /// m, n.
    shape: [c_int; 2],
    alpha: *const c_void,
    beta: *const c_void,
    /// A, x, y.
    at: [usize; 3],
    ld: c_int,
    /// Of x, y.
    increments: [c_int; 2],
}

impl Gemv {
    /// # Safety
    /// Unless they lie on the device, alpha and beta are null or valid for a read of the element.
    unsafe fn enqueue(self, handle: Handle, strides: [c_longlong; 3], count: c_int) -> c_int {
        answer(|| {
            let settings = HANDLES.get(handle)?;
            let transposed = transposes(self.operation)?;
            let [m, n] = [extent(self.shape[0])?, extent(self.shape[1])?];
            if extent(self.ld)? < m.max(1) || self.increments.contains(&0) {
                return Err(Status::INVALID_VALUE);
            }
            let (element, [incx, incy]) = (self.element, self.increments.map(i64::from));
            let (rows, cols) = if transposed { (n, m) } else { (m, n) };
            let y = Matrix { stored: Layout::vector(element, rows, incy), transposed: false };
            let gemm = Gemm {
                call: self.call,
                names: ["A", "x", "y", "y"],
                a: Matrix { stored: Layout::matrix(element, m, n, self.ld.into()), transposed },
                b: Matrix { stored: Layout::vector(element, cols, incx), transposed: false },
                c: y,
                d: y,
                // SAFETY: as the caller promises.
                alpha: unsafe { Scalar::new(self.alpha, element, settings.on_device)? },
                // SAFETY: as the caller promises.
                beta: unsafe { Scalar::new(self.beta, element, settings.on_device)? },
                rounding: Rounding::Exact,
                bias: None,
                activation: Activation::Identity,
            };
            let count = extent(count)?;
            // As in BLAS, y is not even scaled where A has no elements.
            if m == 0 || n == 0 || count == 0 {
                return Ok(());
            }
            let (at, size) = (self.at, element.size() as i64);
            let run = move |device: &Device| {
                (0..count as i64).try_for_each(|index| {
                    let place =
                        |operand: usize| (at[operand] as u64).wrapping_add_signed(strides[operand] * index * size);
                    gemm.run(device, Addresses { a: place(0), b: place(1), c: place(2), d: place(2), bias: 0 })
                })
            };
            Ok(enqueue_library(settings.stream, Arc::new(run))?)
        })
    }
}
