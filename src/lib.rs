//! placeholder
pub mod cpu;
mod dtype;
mod error;
mod field;
mod inputs;
pub mod reference;
mod spec;

pub use dtype::{Dtype, Element};
pub use error::{Error, Result};
pub use field::{Field, FieldInputs, FieldSpec};
pub use half::{bf16, f16};
pub use inputs::{DriftInputs, DriftShape, Points};
pub use spec::*;
