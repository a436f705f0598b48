//! `libcudrift`: the crate for C. `include/cudrift.h` is made from this by `cargo xtask bindings`.
//!
//! Structs are plain data, so that a caller's can lie on its stack; a plan is opaque. Numbers that name a choice are
//! `uint32_t`, never an enum of Rust's, because a caller may pass any. Nothing here computes: every function checks its
//! pointers, translates, calls the crate within [`status::guarded`], which lets no panic through, and translates back.
#![allow(non_camel_case_types)]

mod cuda;
mod kept;
mod plan;
mod points;
mod spec;
mod status;
mod threads;
mod xla;

pub use cuda::*;
pub use kept::*;
pub use plan::*;
pub use points::*;
pub use spec::*;
pub use status::*;
pub use threads::{cudrift_borrow_threads, cudrift_parallel};
pub use xla::{cudrift_xla, cudrift_xla_cuda};

use std::ffi::{CStr, c_char};

/// The version of this library, `MAJOR.MINOR.PATCH`.
#[unsafe(no_mangle)]
pub extern "C" fn cudrift_version() -> *const c_char {
    const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(version) => version,
        Err(_) => c"",
    };
    VERSION.as_ptr()
}

/// The instruction set that the inner loops run on: `baseline`, `avx2` or `avx512`.
#[unsafe(no_mangle)]
pub extern "C" fn cudrift_instruction_set() -> *const c_char {
    match drift::cpu::instruction_set() {
        "avx2" => c"avx2".as_ptr(),
        "avx512" => c"avx512".as_ptr(),
        _ => c"baseline".as_ptr(),
    }
}
