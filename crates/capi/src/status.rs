//! How calls end.

use drift::Error;
use std::cell::RefCell;
use std::ffi::{CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// How a call ended.
pub type cudrift_status = u32;

/// It is done.
pub const CUDRIFT_OK: cudrift_status = 0;
/// An argument is not what it should be: a null pointer, a shape, a number, an unknown choice.
pub const CUDRIFT_INVALID: cudrift_status = 1;
/// Memory does not suffice.
pub const CUDRIFT_TOO_LARGE: cudrift_status = 2;
/// Phases of a plan were called out of order.
pub const CUDRIFT_ORDER: cudrift_status = 3;
/// Anything else. Please report it.
pub const CUDRIFT_INTERNAL: cudrift_status = 4;
/// There is no CUDA device, or a library or the kernels are not found.
pub const CUDRIFT_NO_DEVICE: cudrift_status = 5;
/// The CUDA driver refused an operation, or reports that one before it failed.
pub const CUDRIFT_DEVICE: cudrift_status = 6;

thread_local! {
    static MESSAGE: RefCell<CString> = RefCell::default();
}

/// What was wrong with the last call of this thread that failed: one line, empty before. It lives until the next.
#[unsafe(no_mangle)]
pub extern "C" fn cudrift_message() -> *const c_char {
    MESSAGE.with_borrow(|message| message.as_ptr())
}

/// Why a call is refused.
pub(crate) struct Refusal {
    status: cudrift_status,
    message: String,
}

impl Refusal {
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self { status: CUDRIFT_INVALID, message: message.into() }
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self { status: CUDRIFT_INTERNAL, message: message.into() }
    }

    pub(crate) fn device(message: impl Into<String>) -> Self {
        Self { status: CUDRIFT_DEVICE, message: message.into() }
    }

    pub(crate) fn memory(message: impl Into<String>) -> Self {
        Self { status: CUDRIFT_TOO_LARGE, message: message.into() }
    }

    pub(crate) fn order(message: impl Into<String>) -> Self {
        Self { status: CUDRIFT_ORDER, message: message.into() }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let status = match &error {
            Error::Shape { .. } | Error::Value { .. } => CUDRIFT_INVALID,
            Error::TooLarge { .. } | Error::DeviceMemory { .. } => CUDRIFT_TOO_LARGE,
            Error::Order { .. } => CUDRIFT_ORDER,
            Error::LibraryMissing { .. } | Error::NoDevice { .. } | Error::NoKernels { .. } => CUDRIFT_NO_DEVICE,
            Error::Device { .. } => CUDRIFT_DEVICE,
            _ => CUDRIFT_INTERNAL,
        };
        Self { status, message: error.to_string() }
    }
}

/// Runs a call: what it refuses becomes a status and a message, and so does a panic.
pub(crate) fn guarded(call: impl FnOnce() -> Result<(), Refusal>) -> cudrift_status {
    let refusal = match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(())) => return CUDRIFT_OK,
        Ok(Err(refusal)) => refusal,
        Err(panic) => {
            let what = panic.downcast_ref::<String>().map(String::as_str);
            let what = what.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            let message = format!("libcudrift: a fault of its own ({what}); please report it");
            Refusal { status: CUDRIFT_INTERNAL, message }
        }
    };
    let text = refusal.message.replace(['\0', '\n'], " ");
    MESSAGE.set(CString::new(text).unwrap_or_default());
    refusal.status
}

/// What `pointer` points to.
///
/// # Safety
/// It is null, or points to a value that lives as long.
pub(crate) unsafe fn borrowed<'a, T>(name: &str, pointer: *const T) -> Result<&'a T, Refusal> {
    // SAFETY: by # Safety, it is null or points to a value that lives as long as what is returned.
    unsafe { pointer.as_ref() }.ok_or_else(|| null(name))
}

/// As [`borrowed`], to write to.
///
/// # Safety
/// As [`borrowed`], and nothing else is there to read or write it.
pub(crate) unsafe fn borrowed_mut<'a, T>(name: &str, pointer: *mut T) -> Result<&'a mut T, Refusal> {
    // SAFETY: by # Safety, it is null or points to a value that lives as long as what is returned.
    unsafe { pointer.as_mut() }.ok_or_else(|| null(name))
}

pub(crate) fn null(name: &str) -> Refusal {
    Refusal::invalid(format!("libcudrift: {name} is a null pointer"))
}
