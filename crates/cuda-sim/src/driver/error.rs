//! Result codes, their names and what they mean.

use std::ffi::c_char;

use super::CUresult;
use super::c::{Out, api};
use crate::finding::{Finding, Kind};
use crate::memory::AccessError;

/// A `CUresult` other than success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Code(pub(crate) i32);

/// Number, name and explanation of a code.
type Text = (CUresult, &'static str, &'static str);

/// Names, numbers and explanations; from them come the constants of [`Code`] and [`TEXTS`].
macro_rules! codes {
    ($($constant:ident = $number:literal, $text:literal;)*) => {
        impl Code {
            $(#[doc = $text] pub(crate) const $constant: Self = Self($number);)*
        }

        /// Number, name and explanation of every code, NUL-terminated.
        static TEXTS: &[Text] = &[
            (0, "CUDA_SUCCESS\0", "no error\0"),
            (4, "CUDA_ERROR_DEINITIALIZED\0", "driver shutting down\0"),
            (100, "CUDA_ERROR_NO_DEVICE\0", "no CUDA-capable device is detected\0"),
            $(($number, concat!("CUDA_ERROR_", stringify!($constant), "\0"), concat!($text, "\0")),)*
        ];
    };
}

codes! {
    INVALID_VALUE = 1, "invalid argument";
    OUT_OF_MEMORY = 2, "out of memory";
    NOT_INITIALIZED = 3, "initialization error";
    INVALID_DEVICE = 101, "invalid device ordinal";
    INVALID_IMAGE = 200, "device kernel image is invalid";
    INVALID_CONTEXT = 201, "invalid device context";
    NO_BINARY_FOR_GPU = 209, "no kernel image is available for execution on the device";
    ECC_UNCORRECTABLE = 214, "uncorrectable ECC error encountered";
    PEER_ACCESS_UNSUPPORTED = 217, "peer access is not supported between these two devices";
    INVALID_PTX = 218, "a PTX JIT compilation failed";
    UNSUPPORTED_PTX_VERSION = 222, "the provided PTX was compiled with an unsupported toolchain.";
    FILE_NOT_FOUND = 301, "file not found";
    INVALID_HANDLE = 400, "invalid resource handle";
    ILLEGAL_STATE = 401, "the operation cannot be performed in the present state";
    NOT_FOUND = 500, "named symbol not found";
    NOT_READY = 600, "device not ready";
    ILLEGAL_ADDRESS = 700, "an illegal memory access was encountered";
    LAUNCH_OUT_OF_RESOURCES = 701, "too many resources requested for launch";
    LAUNCH_TIMEOUT = 702, "the launch timed out and was terminated";
    CONTEXT_IS_DESTROYED = 709, "context is destroyed";
    ASSERT = 710, "device-side assert triggered";
    HOST_MEMORY_ALREADY_REGISTERED = 712, "part or all of the requested memory range is already mapped";
    HOST_MEMORY_NOT_REGISTERED = 713, "pointer does not correspond to a registered memory region";
    ILLEGAL_INSTRUCTION = 715, "an illegal instruction was encountered";
    MISALIGNED_ADDRESS = 716, "misaligned address";
    LAUNCH_FAILED = 719, "unspecified launch failure";
    COOPERATIVE_LAUNCH_TOO_LARGE = 720, "too many blocks in cooperative launch";
    NOT_PERMITTED = 800, "operation not permitted";
    NOT_SUPPORTED = 801, "operation not supported";
    STREAM_CAPTURE_UNSUPPORTED = 900, "operation not permitted when stream is capturing";
    STREAM_CAPTURE_INVALIDATED = 901, "operation failed due to a previous error during capture";
    STREAM_CAPTURE_MERGE = 902, "operation would result in a merge of separate capture sequences";
    STREAM_CAPTURE_UNMATCHED = 903, "capture was not ended in the same stream as it began";
    STREAM_CAPTURE_UNJOINED = 904, "capturing stream has unjoined work";
    STREAM_CAPTURE_ISOLATION = 905, "dependency created on uncaptured work in another stream";
    STREAM_CAPTURE_IMPLICIT = 906, "operation would make the legacy stream depend on a capturing blocking stream";
    CAPTURED_EVENT = 907, "operation not permitted on an event last recorded in a capturing stream";
    STREAM_CAPTURE_WRONG_THREAD = 908, "attempt to terminate a thread-local capture sequence from another thread";
    UNKNOWN = 999, "unknown error";
}

impl Code {
    /// Does it stand for a fault of the device, after which the context is of no use?
    pub(crate) fn is_fault(self) -> bool {
        matches!(
            self,
            Self::ECC_UNCORRECTABLE
                | Self::ILLEGAL_ADDRESS
                | Self::LAUNCH_TIMEOUT
                | Self::ASSERT
                | Self::ILLEGAL_INSTRUCTION
                | Self::MISALIGNED_ADDRESS
                | Self::LAUNCH_FAILED
        )
    }

    /// The code that the driver would answer for what a finding stands for.
    pub(crate) fn of(finding: &Finding) -> Self {
        match finding.kind {
            Kind::OutOfBounds | Kind::UseAfterFree | Kind::ReadOnly => Self::ILLEGAL_ADDRESS,
            Kind::Misaligned => Self::MISALIGNED_ADDRESS,
            Kind::Illegal => Self::ILLEGAL_INSTRUCTION,
            Kind::Trap if finding.detail.contains("assert") => Self::ASSERT,
            Kind::Hang => Self::LAUNCH_TIMEOUT,
            _ => Self::LAUNCH_FAILED,
        }
    }
}

/// The driver refuses a host-side access to memory that is not there before anything runs.
impl From<AccessError> for Code {
    fn from(error: AccessError) -> Self {
        match error {
            AccessError::Unmapped { addr, size } => {
                eprintln!("cudrift-sim: {size} bytes at {addr:#x} are not inside one allocation");
            }
            AccessError::Freed { addr } => eprintln!("cudrift-sim: the allocation at {addr:#x} was freed"),
        }
        Self::INVALID_VALUE
    }
}

/// Looks a code up; `pick` chooses the name or the explanation.
fn text(code: CUresult, out: Out<*const c_char>, pick: fn(&Text) -> &'static str) -> Result<(), Code> {
    let found = TEXTS.iter().find(|(number, ..)| *number == code).map(pick);
    out.put(found.map_or(std::ptr::null(), |text| text.as_ptr().cast()))?;
    found.map(drop).ok_or(Code::INVALID_VALUE)
}

api! {
    /// The name of a code, as `CUDA_ERROR_INVALID_VALUE`.
    fn cuGetErrorName(code: CUresult, out: Out<*const c_char>) {
        text(code, out, |(_, name, _)| name)
    }

    /// What a code means.
    fn cuGetErrorString(code: CUresult, out: Out<*const c_char>) {
        text(code, out, |(_, _, text)| text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_have_the_codes_of_the_driver() {
        let code = |kind, detail: &str| {
            Code::of(&Finding {
                kind,
                kernel: String::new(),
                block: [0; 3],
                thread: [0; 3],
                line: 1,
                instruction: String::new(),
                source: None,
                detail: detail.into(),
            })
        };
        for (kind, number) in [
            (Kind::OutOfBounds, 700),
            (Kind::UseAfterFree, 700),
            (Kind::ReadOnly, 700),
            (Kind::Misaligned, 716),
            (Kind::Illegal, 715),
            (Kind::Trap, 719),
            (Kind::Hang, 702),
            (Kind::Race, 719),
            (Kind::Barrier, 719),
        ] {
            assert_eq!(code(kind, ""), Code(number));
            assert!(Code(number).is_fault());
        }
        assert_eq!(code(Kind::Trap, "an assertion failed"), Code::ASSERT);
        assert!(TEXTS.iter().all(|(_, name, text)| name.ends_with('\0') && text.ends_with('\0')));
    }
}
