//! The published cudarc on the simulator: what a program sees that opens libcuda and libcublas as it always does.

#![allow(clippy::unwrap_used, reason = "what is unwrapped here is what the tests expect")]

mod blas;
mod context;
mod errors;
mod failures;
mod graphs;
mod harness;
mod launches;
mod memory;
mod modules;
mod schedules;
mod streams;
