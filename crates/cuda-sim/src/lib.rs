#![doc = include_str!("../README.md")]

#[forbid(unsafe_code)]
mod cache;
#[forbid(unsafe_code)]
mod chance;
#[forbid(unsafe_code)]
pub mod counters;
mod cublas;
#[forbid(unsafe_code)]
mod decode;
#[forbid(unsafe_code)]
pub mod device;
mod driver;
#[forbid(unsafe_code)]
mod exec;
#[forbid(unsafe_code)]
mod fatbin;
#[forbid(unsafe_code)]
pub mod finding;
pub mod float;
#[forbid(unsafe_code)]
pub mod launch;
pub mod memory;
#[forbid(unsafe_code)]
pub mod program;
#[forbid(unsafe_code)]
pub mod ptx;
#[forbid(unsafe_code)]
mod touched;
