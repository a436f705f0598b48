//! Status codes, and the border to C.

use std::ffi::{c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use crate::driver::Code;

/// A `cublasStatus_t` other than success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Status(pub(super) c_int);

impl Status {
    /// No handle, or a destroyed one.
    pub(super) const NOT_INITIALIZED: Self = Self(1);
    /// An argument out of its range.
    pub(super) const INVALID_VALUE: Self = Self(7);
    /// The device refused or failed the work.
    pub(super) const EXECUTION_FAILED: Self = Self(13);
    /// A defect of this library.
    pub(super) const INTERNAL_ERROR: Self = Self(14);
    /// A combination that cuBLAS, or this stand-in, does not have.
    pub(super) const NOT_SUPPORTED: Self = Self(15);
}

/// What the device answers is not told apart; the driver's own calls do.
impl From<Code> for Status {
    fn from(_: Code) -> Self {
        Self::EXECUTION_FAILED
    }
}

/// The outcome of a call.
pub(super) type Result<T = ()> = std::result::Result<T, Status>;

/// Answers for a call from C; a panic ends here.
pub(super) fn answer(call: impl FnOnce() -> Result) -> c_int {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(())) => 0,
        Ok(Err(status)) => status.0,
        Err(_) => Status::INTERNAL_ERROR.0,
    }
}

/// Writes through a pointer of the caller.
///
/// # Errors
/// Where it is null.
///
/// # Safety
/// Otherwise it is valid for a write of `T`.
pub(super) unsafe fn put<T>(to: *mut T, value: T) -> Result {
    if to.is_null() {
        return Err(Status::INVALID_VALUE);
    }
    // SAFETY: not null, so valid for the write, as the caller promises; C may have aligned it less.
    unsafe { to.write_unaligned(value) };
    Ok(())
}

/// Number, name and explanation of every status, NUL-terminated.
const TEXTS: [(c_int, &str, &str); 10] = [
    (0, "CUBLAS_STATUS_SUCCESS\0", "success\0"),
    (1, "CUBLAS_STATUS_NOT_INITIALIZED\0", "the library was not initialized\0"),
    (3, "CUBLAS_STATUS_ALLOC_FAILED\0", "the resource allocation failed\0"),
    (7, "CUBLAS_STATUS_INVALID_VALUE\0", "an unsupported value or parameter was passed to the function\0"),
    (8, "CUBLAS_STATUS_ARCH_MISMATCH\0", "a feature is absent from the device architecture\0"),
    (11, "CUBLAS_STATUS_MAPPING_ERROR\0", "an access to GPU memory space failed\0"),
    (13, "CUBLAS_STATUS_EXECUTION_FAILED\0", "the GPU program failed to execute\0"),
    (14, "CUBLAS_STATUS_INTERNAL_ERROR\0", "an internal operation failed\0"),
    (15, "CUBLAS_STATUS_NOT_SUPPORTED\0", "the functionality is not supported\0"),
    (16, "CUBLAS_STATUS_LICENSE_ERROR\0", "an error was detected when checking the license\0"),
];

fn text(status: c_int, pick: fn(&(c_int, &'static str, &'static str)) -> &'static str) -> *const c_char {
    TEXTS.iter().find(|(number, ..)| *number == status).map_or(ptr::null(), |text| pick(text).as_ptr().cast())
}

/// The name of a status, or null.
#[unsafe(no_mangle)]
pub extern "C" fn cublasGetStatusName(status: c_int) -> *const c_char {
    text(status, |(_, name, _)| name)
}

/// What a status means, or null.
#[unsafe(no_mangle)]
pub extern "C" fn cublasGetStatusString(status: c_int) -> *const c_char {
    text(status, |(_, _, text)| text)
}

/// The name of a status, or null.
#[unsafe(no_mangle)]
pub extern "C" fn cublasLtGetStatusName(status: c_int) -> *const c_char {
    cublasGetStatusName(status)
}

/// What a status means, or null.
#[unsafe(no_mangle)]
pub extern "C" fn cublasLtGetStatusString(status: c_int) -> *const c_char {
    cublasGetStatusString(status)
}
