//! placeholder
pub mod cpu;
pub mod data;
mod dtype;
mod error;
mod field;
pub mod files;
pub mod generator;
mod inputs;
pub mod metrics;
pub mod reference;
pub mod rng;
mod spec;
pub mod train;

pub use dtype::{Dtype, Element};
pub use error::{Error, Result};
pub use field::{Field, FieldInputs, FieldSpec};
pub use half::{bf16, f16};
pub use inputs::{DriftInputs, DriftShape, Points};
pub use spec::*;
