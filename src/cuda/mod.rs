//! The drift on CUDA devices.
//!
//! [`Context`] computes from and to the host's memory, one line for one call. Under it, for programs whose samples are on
//! the device already: [`probe()`] says which device there is, or why there is none; [`Kernels::load`] brings the kernels
//! into a context; [`Plan`] lays calls out, and [`Plan::run`] or [`Bound::run`] appends them to the caller's stream, on
//! the caller's arrays and workspace. [`Plan::launch`] does the same on raw addresses. The driver's library is opened at
//! run time: no toolkit is needed to build or to run. [`cudarc`] 0.19 is re-exported, so that a caller's contexts, streams
//! and slices have the same types; who has another version, or none, hands over addresses (examples/08_interop.rs).
//!
//! Samples in f32 run on plain kernels, in f32 arithmetic throughout; those in half precision on tensor cores, with
//! coefficients rounded to their type before the last product. [`Options::tensor_cores`] has either run like the other,
//! those in f32 then in TF32.

mod call;
mod context;
mod device;
mod field;
mod fnv;
mod image;
mod launch;
mod lower;
#[cfg(feature = "nccl")]
pub mod nccl;
// kernels/params.h explains what is in there.
#[allow(missing_docs)]
mod params;
mod plan;
mod projected;
mod sliced;
mod transport;

pub use call::{Call, Pointers};
#[doc(hidden)]
pub use context::failed;
pub use context::{Context, Gpu, probe};
pub use cudarc;
pub use device::{Device, DeviceArray, DeviceData, DeviceDrift};
pub use field::{FieldArrays, FieldOutputs, FieldPlan};
pub use image::{ImageInfo, Loaded, Origin, image, load_image};
pub use launch::{Bound, Inputs, Kernels, Outputs, Phase, Samples, Statistics};
#[doc(hidden)]
pub use params::DriftScalars;
pub use plan::{Options, Plan};
pub use projected::DeviceProjection;
pub use sliced::{SlicedArrays, SlicedPlan};
