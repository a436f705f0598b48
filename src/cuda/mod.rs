//! CUDA devices, by the driver alone: no toolkit is needed to build or to run.
//!
//! [`probe()`] says which device there is, or why there is none. The kernels, and the plans that launch them, are in the
//! making. `cudarc` is re-exported, so that a caller's contexts and streams have the same types.

mod context;

pub use context::{Gpu, probe};
pub use cudarc;
