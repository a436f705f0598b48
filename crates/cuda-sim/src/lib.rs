//! Executes compiled CUDA images without a GPU, and checks every access.

mod cublas;
mod decode;
pub mod device;
mod driver;
mod exec;
mod fatbin;
pub mod finding;
pub mod float;
pub mod launch;
pub mod memory;
pub mod program;
pub mod ptx;
