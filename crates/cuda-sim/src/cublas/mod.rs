//! cuBLAS and cuBLASLt: what a program finds in libcublas and libcublasLt, on top of a pretended device.
//!
//! The functions answer as cuBLAS documents them: arguments are checked in the call, the work goes to the handle's
//! stream, and every byte that an operand covers must lie in one allocation and, where it is read, have been written. A
//! defect found there is printed and fails the call with `CUBLAS_STATUS_EXECUTION_FAILED`, and the context as a
//! kernel's would.
//!
//! Values are those of an exact machine rather than of any GPU's kernels: operands as the compute type rounds them,
//! sums in f64 ([`product`]), one rounding to the type of the result.

#![allow(non_snake_case, reason = "the exported names are the C header's")]
#![allow(clippy::too_many_arguments, reason = "the exported signatures are the C header's")]
#![allow(clippy::missing_safety_doc, reason = "each function asks of its pointers what the cuBLAS documentation does")]

mod access;
mod api;
mod element;
mod gemm;
mod handle;
mod lt;
mod product;
mod status;
mod vector;
