//! Failures on order: the n-th allocation, copy, launch, and so on, fails as on a device that has had enough.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::Code;

/// What can be made to fail.
#[derive(Clone, Copy)]
pub(super) enum Call {
    /// An allocation of device or page-locked memory: there is no room.
    Alloc,
    /// A copy or a memset: the memory is broken, and the context lost.
    Copy,
    /// A launch: it is refused.
    Launch,
    /// A kernel: it is launched and dies, and the context is lost.
    Kernel,
    /// The load of a module: there is no room.
    Module,
    /// The creation of a stream, an event or an executable graph: there is no room.
    Object,
}

/// Names of [`Call`], in its order, and how it fails.
const CALLS: [(&str, Code); 6] = [
    ("alloc", Code::OUT_OF_MEMORY),
    ("copy", Code::ECC_UNCORRECTABLE),
    ("launch", Code::LAUNCH_OUT_OF_RESOURCES),
    ("kernel", Code::LAUNCH_FAILED),
    ("module", Code::OUT_OF_MEMORY),
    ("object", Code::OUT_OF_MEMORY),
];

/// Which calls fail, by their numbers from 1; 0 for none.
#[derive(Default)]
pub(super) struct Injection {
    failing: [u64; CALLS.len()],
    counts: [AtomicU64; CALLS.len()],
}

impl Injection {
    /// `alloc:3,launch:1`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut injection = Self::default();
        for order in text.split(',').filter(|order| !order.is_empty()) {
            let (name, number) = order.split_once(':')?;
            let call = CALLS.iter().position(|(call, _)| *call == name)?;
            injection.failing[call] = number.parse().ok().filter(|number| *number > 0)?;
        }
        Some(injection)
    }

    /// Counts a call.
    ///
    /// # Errors
    /// Where it is the one that fails.
    pub(super) fn count(&self, call: Call) -> Result<(), Code> {
        let call = call as usize;
        let number = self.counts[call].fetch_add(1, Relaxed) + 1;
        if number != self.failing[call] {
            return Ok(());
        }
        let (name, code) = CALLS[call];
        eprintln!("cudrift-sim: {name} {number} fails, as CUDRIFT_SIM_FAIL asks");
        Err(code)
    }
}
