//! The one error type of the crate.

use std::path::{Path, PathBuf};

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong, each variant naming the operation, the argument, what was expected and what came.
///
/// The `Display` form is one line that says what to do.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An array has the wrong number of elements or the wrong extents.
    #[error("{op}: {argument} has shape {got}, expected {expected}")]
    Shape {
        /// The operation that refused.
        op: &'static str,
        /// The argument's name.
        argument: &'static str,
        /// The shape that the operation needs.
        expected: String,
        /// The shape that came.
        got: String,
    },
    /// A parameter or an option has a value outside its range.
    #[error("{op}: {argument} is {got}, expected {expected}")]
    Value {
        /// The operation that refused.
        op: &'static str,
        /// The parameter's name.
        argument: &'static str,
        /// The range that the operation accepts.
        expected: String,
        /// The value that came.
        got: String,
    },
    /// A size does not fit into memory or into an index.
    #[error("{op}: {what} is too large ({got}); make the problem smaller")]
    TooLarge {
        /// The operation that refused.
        op: &'static str,
        /// The thing that would be too large.
        what: &'static str,
        /// The extents that were asked for.
        got: String,
    },
    /// A library of NVIDIA's is not there.
    #[error("{library} was not found: {advice}")]
    LibraryMissing {
        /// Its file.
        library: &'static str,
        /// Where it comes from.
        advice: &'static str,
    },
    /// No CUDA device can be used.
    #[error("no CUDA device: {problem}")]
    NoDevice {
        /// What the driver refused, and what to do.
        problem: String,
    },
    /// The device has no room for an array.
    #[error("{op}: the device has no room for {what} of {bytes} bytes; take less at a time")]
    DeviceMemory {
        /// The operation.
        op: &'static str,
        /// The array.
        what: &'static str,
        /// Its size.
        bytes: usize,
    },
    /// The device takes no image of the kernels that can be had here.
    #[error("no CUDA kernels: {problem} (the driver is for CUDA {driver}, NVRTC is {nvrtc})")]
    NoKernels {
        /// What was tried, what came of it, and what to do.
        problem: String,
        /// The CUDA version that the driver supports.
        driver: String,
        /// NVRTC's version.
        nvrtc: String,
    },
    /// The CUDA driver refused an operation, or reports that one before it failed.
    #[error("{op}: the CUDA driver answers {problem}")]
    Device {
        /// The operation.
        op: &'static str,
        /// The driver's name for the error, and its text.
        problem: String,
    },
    /// cuBLAS refused an operation.
    #[error("{op}: cuBLAS answers {problem}")]
    Cublas {
        /// The operation.
        op: &'static str,
        /// cuBLAS's name for the error.
        problem: String,
    },
    /// NCCL refused an operation.
    #[error("{op}: NCCL answers {problem}")]
    Nccl {
        /// The operation.
        op: &'static str,
        /// NCCL's name for the error.
        problem: String,
    },
    /// The phases of a plan were called out of order, or with another plan's workspace.
    #[error("{op}: {problem}")]
    Order {
        /// The operation that refused.
        op: &'static str,
        /// What came before it, and what should have.
        problem: String,
    },
    /// The operating system refused to read or write a file.
    #[error("cannot {op} {}: {source}", path.display())]
    Io {
        /// What was being done: "read", "write", …
        op: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's own answer.
        source: std::io::Error,
    },
    /// A file's content is not what it should be.
    #[error("{}: {problem}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what was expected.
        problem: String,
    },
    /// Training produced a loss that is not finite.
    #[error(
        "training diverged: the loss at step {step} is {loss}; lower the learning rate, raise the temperature or rescale the data"
    )]
    Diverged {
        /// The step, counted from 1.
        step: u64,
        /// The loss.
        loss: f64,
    },
}

impl Error {
    pub(crate) fn shape(
        op: &'static str,
        argument: &'static str,
        expected: impl std::fmt::Debug,
        got: impl std::fmt::Debug,
    ) -> Self {
        Self::Shape { op, argument, expected: format!("{expected:?}"), got: format!("{got:?}") }
    }

    pub(crate) fn value(
        op: &'static str,
        argument: &'static str,
        expected: impl Into<String>,
        got: impl std::fmt::Display,
    ) -> Self {
        Self::Value { op, argument, expected: expected.into(), got: got.to_string() }
    }

    /// Refuses what cannot be had: an allocation of `bytes` is tried and given back, so that a size slip or a memory
    /// limit is an error here and not an abort later.
    pub(crate) fn check_memory(op: &'static str, what: &'static str, bytes: Option<usize>) -> Result<()> {
        let possible = bytes.is_some_and(|bytes| Vec::<u8>::new().try_reserve_exact(bytes).is_ok());
        if possible {
            return Ok(());
        }
        let got = bytes
            .map_or("beyond any memory".to_owned(), |bytes| format!("{:.1} GiB", bytes as f64 / (1u64 << 30) as f64));
        Err(Self::TooLarge { op, what, got })
    }

    /// Refuses numbers that are not finite, where no result could be trusted that came from them.
    pub(crate) fn check_finite(op: &'static str, argument: &'static str, values: &[f32]) -> Result<()> {
        match values.iter().find(|v| !v.is_finite()) {
            Some(v) => Err(Self::value(op, argument, "finite numbers only", v)),
            None => Ok(()),
        }
    }

    /// An [`Error::Io`] for `path`.
    pub fn io(op: &'static str, path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Self::Io { op, path: path.as_ref().to_owned(), source }
    }

    /// An [`Error::Format`] for `path`.
    pub fn format(path: impl AsRef<Path>, problem: impl Into<String>) -> Self {
        Self::Format { path: path.as_ref().to_owned(), problem: problem.into() }
    }
}
