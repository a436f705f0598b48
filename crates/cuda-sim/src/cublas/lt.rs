//! The descriptors and the product of `cublasLt.h`.

use std::ffi::{c_char, c_int, c_void};
use std::sync::Arc;

use super::access::{Layout, Scalar};
use super::element::Element;
use super::gemm::{Activation, Addresses, Compute, Gemm, Matrix, transposes};
use super::handle::{Handle, Table};
use super::status::{Result, Status, answer, put};
use crate::device::Device;
use crate::driver::{CUstream, enqueue_library};

/// The version that `cublasLtGetVersion` answers, as 13.4.0.
const VERSION: usize = 130_400;

static HANDLES: Table<()> = Table::new();
static LAYOUTS: Table<MatrixLayout> = Table::new();
static DESCRIPTORS: Table<Descriptor> = Table::new();
/// Preferences with the workspace that they allow; nothing here needs one.
static PREFERENCES: Table<u64> = Table::new();

/// A foreign descriptor is an invalid argument, not an uninitialised library.
fn known<T: Clone>(table: &Table<T>, handle: Handle) -> Result<T> {
    table.get(handle).map_err(|_| Status::INVALID_VALUE)
}

/// How a matrix, or a batch of them, is stored.
#[derive(Clone, Copy)]
struct MatrixLayout {
    data_type: c_int,
    /// 0 column-major, 1 row-major.
    order: c_int,
    rows: u64,
    cols: u64,
    ld: i64,
    batch: c_int,
    /// Between the matrices of a batch, in elements.
    stride: i64,
}

impl MatrixLayout {
    /// The matrix that an operation sees, transposed if asked.
    ///
    /// # Errors
    /// Where the leading dimension is too small, or type or order is not supported.
    fn matrix(&self, transposed: bool) -> Result<Matrix> {
        // A row-major matrix is the transpose of a column-major one.
        let (rows, cols) = match self.order {
            0 => (self.rows, self.cols),
            1 => (self.cols, self.rows),
            _ => return Err(Status::NOT_SUPPORTED),
        };
        let [rows, cols] = [index(rows)?, index(cols)?];
        if index(self.ld)? < rows.max(1) || self.batch < 0 {
            return Err(Status::INVALID_VALUE);
        }
        let stored = Layout::matrix(Element::of(self.data_type)?, rows, cols, self.ld);
        Ok(Matrix { stored, transposed: transposed != (self.order == 1) })
    }
}

/// # Errors
/// Where the number is negative or beyond any memory.
fn index(number: impl TryInto<u32>) -> Result<usize> {
    number.try_into().map(|number| number as usize).map_err(|_| Status::INVALID_VALUE)
}

/// What a product does.
#[derive(Clone, Copy)]
struct Descriptor {
    compute: c_int,
    scale_type: c_int,
    /// 0 alpha and beta on the host, 1 on the device.
    pointer_mode: c_int,
    operations: [c_int; 3],
    epilogue: c_int,
    bias: u64,
    bias_stride: i64,
    /// `cudaDataType`, or -1 for that of D.
    bias_type: c_int,
}

/// A value of an attribute, from the caller's buffer.
///
/// # Errors
/// Where the buffer is null or has another size.
///
/// # Safety
/// Otherwise it is valid for as many bytes as it says.
unsafe fn attribute<T: Copy>(buffer: *const c_void, bytes: usize) -> Result<T> {
    if buffer.is_null() || bytes != size_of::<T>() {
        return Err(Status::INVALID_VALUE);
    }
    // SAFETY: valid for the size of `T`, as the caller promises; only plain numbers are read so.
    Ok(unsafe { buffer.cast::<T>().read_unaligned() })
}

/// Creates a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtCreate(handle: *mut Handle) -> c_int {
    // SAFETY: the caller's pointer, which `put` checks.
    answer(|| unsafe { put(handle, HANDLES.insert(())) })
}

/// Ends a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtDestroy(handle: Handle) -> c_int {
    answer(|| HANDLES.remove(handle))
}

/// The version of the library that this one stands in for.
#[unsafe(no_mangle)]
pub extern "C" fn cublasLtGetVersion() -> usize {
    VERSION
}

/// Sets how much is logged; nothing is here.
#[unsafe(no_mangle)]
pub extern "C" fn cublasLtLoggerSetLevel(_level: c_int) -> c_int {
    0
}

/// Sets what is logged; nothing is here.
#[unsafe(no_mangle)]
pub extern "C" fn cublasLtLoggerSetMask(_mask: c_int) -> c_int {
    0
}

/// Sets where the log goes; there is none here.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtLoggerOpenFile(_path: *const c_char) -> c_int {
    0
}

/// Turns the log off, as it is.
#[unsafe(no_mangle)]
pub extern "C" fn cublasLtLoggerForceDisable() -> c_int {
    0
}

/// Describes a column-major matrix.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtMatrixLayoutCreate(
    layout: *mut Handle,
    data_type: c_int,
    rows: u64,
    cols: u64,
    ld: i64,
) -> c_int {
    let new = MatrixLayout { data_type, order: 0, rows, cols, ld, batch: 1, stride: 0 };
    // SAFETY: the caller's pointer, which `put` checks.
    answer(|| unsafe { put(layout, LAYOUTS.insert(new)) })
}

/// Sets type (0), order (1), rows (2), columns (3), leading dimension (4), batch count (5) or batch stride (6).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtMatrixLayoutSetAttribute(
    layout: Handle,
    number: c_int,
    buffer: *const c_void,
    bytes: usize,
) -> c_int {
    answer(|| {
        let mut new = known(&LAYOUTS, layout)?;
        // SAFETY: the caller's buffer, of that many bytes.
        unsafe {
            match number {
                0 => new.data_type = attribute(buffer, bytes)?,
                1 => new.order = attribute(buffer, bytes)?,
                2 => new.rows = attribute(buffer, bytes)?,
                3 => new.cols = attribute(buffer, bytes)?,
                4 => new.ld = attribute(buffer, bytes)?,
                5 => new.batch = attribute(buffer, bytes)?,
                6 => new.stride = attribute(buffer, bytes)?,
                _ => return Err(Status::NOT_SUPPORTED),
            }
        }
        LAYOUTS.update(layout, |layout| *layout = new)
    })
}

/// Ends a description.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtMatrixLayoutDestroy(layout: Handle) -> c_int {
    answer(|| LAYOUTS.remove(layout))
}

/// Describes a product.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtMatmulDescCreate(descriptor: *mut Handle, compute: c_int, scale_type: c_int) -> c_int {
    let new = Descriptor {
        compute,
        scale_type,
        pointer_mode: 0,
        operations: [0; 3],
        epilogue: 1,
        bias: 0,
        bias_stride: 0,
        bias_type: -1,
    };
    // SAFETY: the caller's pointer, which `put` checks.
    answer(|| unsafe { put(descriptor, DESCRIPTORS.insert(new)) })
}

/// Sets compute type (0), scale type (1), pointer mode (2), the operation of A, B or C (3 to 5), the epilogue (7), or
/// the address (8), batch stride (10) or type (26) of the bias.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtMatmulDescSetAttribute(
    descriptor: Handle,
    number: c_int,
    buffer: *const c_void,
    bytes: usize,
) -> c_int {
    answer(|| {
        let mut new = known(&DESCRIPTORS, descriptor)?;
        // SAFETY: the caller's buffer, of that many bytes.
        unsafe {
            match number {
                0 => new.compute = attribute(buffer, bytes)?,
                1 => new.scale_type = attribute(buffer, bytes)?,
                2 => new.pointer_mode = attribute(buffer, bytes)?,
                3..=5 => new.operations[number as usize - 3] = attribute(buffer, bytes)?,
                7 => new.epilogue = attribute(buffer, bytes)?,
                8 => new.bias = attribute(buffer, bytes)?,
                10 => new.bias_stride = attribute(buffer, bytes)?,
                26 => new.bias_type = attribute(buffer, bytes)?,
                _ => return Err(Status::NOT_SUPPORTED),
            }
        }
        DESCRIPTORS.update(descriptor, |descriptor| *descriptor = new)
    })
}

/// Ends a description.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtMatmulDescDestroy(descriptor: Handle) -> c_int {
    answer(|| DESCRIPTORS.remove(descriptor))
}

/// Creates preferences for the choice of an algorithm.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtMatmulPreferenceCreate(preference: *mut Handle) -> c_int {
    // SAFETY: the caller's pointer, which `put` checks.
    answer(|| unsafe { put(preference, PREFERENCES.insert(0)) })
}

/// Sets the greatest workspace (1), or a preference that is no matter where there is one algorithm.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtMatmulPreferenceSetAttribute(
    preference: Handle,
    number: c_int,
    buffer: *const c_void,
    bytes: usize,
) -> c_int {
    answer(|| {
        known(&PREFERENCES, preference)?;
        if number != 1 {
            return Ok(());
        }
        // SAFETY: the caller's buffer, of that many bytes.
        let workspace = unsafe { attribute(buffer, bytes)? };
        PREFERENCES.update(preference, |preference| *preference = workspace)
    })
}

/// Ends preferences.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtMatmulPreferenceDestroy(preference: Handle) -> c_int {
    answer(|| PREFERENCES.remove(preference))
}

/// `cublasLtMatmulHeuristicResult_t`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct HeuristicResult {
    /// The algorithm: there is one.
    algorithm: [u64; 8],
    workspace: usize,
    status: c_int,
    waves: f32,
    reserved: [c_int; 4],
}

/// Finds the algorithm for a product.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtMatmulAlgoGetHeuristic(
    handle: Handle,
    descriptor: Handle,
    a: Handle,
    b: Handle,
    c: Handle,
    d: Handle,
    preference: Handle,
    requested: c_int,
    results: *mut HeuristicResult,
    found: *mut c_int,
) -> c_int {
    answer(|| {
        HANDLES.get(handle)?;
        known(&PREFERENCES, preference)?;
        if requested < 1 {
            return Err(Status::INVALID_VALUE);
        }
        // SAFETY: the caller's pointer, which `put` checks.
        unsafe { put(found, 0)? };
        Product::new(descriptor, [a, b, c, d])?.gemm(Scalar::Value(1.0), Scalar::Value(0.0))?;
        let result = HeuristicResult { waves: 1.0, ..HeuristicResult::default() };
        // SAFETY: as above; the array holds at least one.
        unsafe { put(results, result).and_then(|()| put(found, 1)) }
    })
}

/// D = epilogue(alpha op(A) op(B) + beta C).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtMatmul(
    handle: Handle,
    descriptor: Handle,
    alpha: *const c_void,
    a: *const c_void,
    a_layout: Handle,
    b: *const c_void,
    b_layout: Handle,
    beta: *const c_void,
    c: *const c_void,
    c_layout: Handle,
    d: *mut c_void,
    d_layout: Handle,
    _algorithm: *const c_void,
    _workspace: *mut c_void,
    _workspace_bytes: usize,
    stream: CUstream,
) -> c_int {
    answer(|| {
        HANDLES.get(handle)?;
        let product = Product::new(descriptor, [a_layout, b_layout, c_layout, d_layout])?;
        let (scale, on_device) = (Element::of(product.descriptor.scale_type)?, product.descriptor.pointer_mode == 1);
        // SAFETY: alpha and beta point to what the scale type says, or to the device as the pointer mode says.
        let (alpha, beta) = unsafe { (Scalar::new(alpha, scale, on_device)?, Scalar::new(beta, scale, on_device)?) };
        let gemm = product.gemm(alpha, beta)?;
        let (first, strides) = ([a.addr(), b.addr(), c.addr(), d.addr()].map(|at| at as u64), product.strides(&gemm));
        let (bias, batch) = (product.descriptor.bias, i64::from(product.layouts[3].batch));
        let run = move |device: &Device| {
            (0..batch).try_for_each(|index| {
                let at = |operand: usize| first[operand].wrapping_add_signed(strides[operand].wrapping_mul(index));
                let bias = bias.wrapping_add_signed(strides[4].wrapping_mul(index));
                gemm.run(device, Addresses { a: at(0), b: at(1), c: at(2), d: at(3), bias })
            })
        };
        Ok(enqueue_library(stream, Arc::new(run))?)
    })
}

/// The descriptions that make a product.
struct Product {
    descriptor: Descriptor,
    /// Of A, B, C, D.
    layouts: [MatrixLayout; 4],
}

impl Product {
    /// # Errors
    /// Where one is foreign or destroyed.
    fn new(descriptor: Handle, layouts: [Handle; 4]) -> Result<Self> {
        let mut found = [known(&LAYOUTS, layouts[0])?; 4];
        for (found, layout) in found.iter_mut().zip(layouts) {
            *found = known(&LAYOUTS, layout)?;
        }
        Ok(Self { descriptor: known(&DESCRIPTORS, descriptor)?, layouts: found })
    }

    /// The product of one batch entry.
    ///
    /// # Errors
    /// Where the shapes do not fit, or cuBLAS or this stand-in lack the combination.
    fn gemm(&self, alpha: Scalar, beta: Scalar) -> Result<Gemm> {
        let Self { descriptor, layouts: [a, b, c, d] } = self;
        let [transposed_a, transposed_b, transposed_c] = [
            transposes(descriptor.operations[0])?,
            transposes(descriptor.operations[1])?,
            transposes(descriptor.operations[2])?,
        ];
        let batches = [a.batch, b.batch, c.batch];
        let (a, b, c, d) = (a.matrix(transposed_a)?, b.matrix(transposed_b)?, c.matrix(false)?, d.matrix(false)?);
        let ((m, k), (rows, n)) = (a.shape(), b.shape());
        if rows != k || c.shape() != (m, n) || d.shape() != (m, n) || batches != [self.layouts[3].batch; 3] {
            return Err(Status::INVALID_VALUE);
        }
        let element = d.stored.element;
        let compute = Compute::of(descriptor.compute, a.stored.element, b.stored.element, element)?;
        let scaled = Element::of(descriptor.scale_type)? == compute.scale && c.stored.element == element;
        if !scaled || transposed_c || !matches!(descriptor.pointer_mode, 0 | 1) {
            return Err(Status::NOT_SUPPORTED);
        }
        let (biased, activation) = match descriptor.epilogue {
            1 => (false, Activation::Identity),
            2 => (false, Activation::Relu),
            4 => (true, Activation::Identity),
            6 => (true, Activation::Relu),
            32 => (false, Activation::Gelu),
            36 => (true, Activation::Gelu),
            _ => return Err(Status::NOT_SUPPORTED),
        };
        let bias = if descriptor.bias_type == -1 { element } else { Element::of(descriptor.bias_type)? };
        Ok(Gemm {
            call: "cublasLtMatmul",
            names: ["A", "B", "C", "D"],
            a,
            b,
            c,
            d,
            alpha,
            beta,
            rounding: compute.rounding,
            bias: biased.then_some(bias),
            activation,
        })
    }

    /// Bytes from one batch entry to the next, of A, B, C, D and the bias.
    fn strides(&self, gemm: &Gemm) -> [i64; 5] {
        let [a, b, c, d] = self.layouts;
        let bytes = |stride: i64, element: Element| stride.wrapping_mul(element.size() as i64);
        [
            bytes(a.stride, gemm.a.stored.element),
            bytes(b.stride, gemm.b.stored.element),
            bytes(c.stride, gemm.c.stored.element),
            bytes(d.stride, gemm.d.stored.element),
            gemm.bias.map_or(0, |element| bytes(self.descriptor.bias_stride, element)),
        ]
    }
}
