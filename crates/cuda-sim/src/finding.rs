//! What the sanitizer reports.

use std::fmt;

/// The kind of a defect; each ends the launch.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An access outside every allocation, or beyond the end of shared, local, constant or parameter memory.
    OutOfBounds,
    /// An access to an allocation that was freed.
    UseAfterFree,
    /// An address that is not a multiple of the access size.
    Misaligned,
    /// A write to constant or parameter memory.
    ReadOnly,
    /// Two accesses of different threads to the same bytes, one of them a write, with nothing that orders them.
    Race,
    /// Bytes that nothing has written were read.
    Uninitialised,
    /// A barrier that part of the block did not reach, or reached in disagreement.
    Barrier,
    /// A warp-level instruction with lanes of its mask missing, or executed by a lane outside its mask.
    WarpSync,
    /// Bytes of an asynchronous copy touched before the wait that completes it.
    AsyncCopy,
    /// `trap`, or a failed device-side assertion.
    Trap,
    /// An instruction, or an operand of it, that has no meaning.
    Illegal,
    /// Nothing in the grid can go on, or the launch ran for longer than its limit.
    Hang,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OutOfBounds => "out of bounds",
            Self::UseAfterFree => "use after free",
            Self::Misaligned => "misaligned access",
            Self::ReadOnly => "write to read-only memory",
            Self::Race => "race",
            Self::Uninitialised => "uninitialised read",
            Self::Barrier => "barrier",
            Self::WarpSync => "warp synchronisation",
            Self::AsyncCopy => "asynchronous copy",
            Self::Trap => "trap",
            Self::Illegal => "illegal instruction",
            Self::Hang => "hang",
        })
    }
}

/// One defect of a kernel, with the place where it showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What sort of defect.
    pub kind: Kind,
    /// The kernel's name.
    pub kernel: String,
    /// Index of the block.
    pub block: [u32; 3],
    /// Index of the thread in its block.
    pub thread: [u32; 3],
    /// Line of the PTX text.
    pub line: u32,
    /// The instruction as the PTX spells it.
    pub instruction: String,
    /// File and line of the source, where the PTX carries `.loc`.
    pub source: Option<(String, u32)>,
    /// The particulars: addresses, sizes, the other thread.
    pub detail: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ([bx, by, bz], [tx, ty, tz]) = (self.block, self.thread);
        write!(
            f,
            "{}: {} in {}, block ({bx},{by},{bz}), thread ({tx},{ty},{tz}), ",
            self.kind, self.detail, self.kernel
        )?;
        if let Some((file, line)) = &self.source {
            write!(f, "{file}:{line}, ")?;
        }
        write!(f, "PTX line {}: {}", self.line, self.instruction)
    }
}

impl std::error::Error for Finding {}
