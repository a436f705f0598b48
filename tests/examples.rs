//! The examples that want a device run here, on the simulator or on a GPU.
#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used)]

mod common;
#[path = "../examples/04_cuda_heads.rs"]
mod heads;
#[path = "../examples/08_interop.rs"]
mod interop;
#[path = "../examples/03_cuda_stream.rs"]
mod stream;
#[path = "../examples/05_cuda_workers.rs"]
mod workers;

#[test]
fn a_graph_on_a_stream_of_ones_own() {
    if common::device().is_some() {
        stream::main().unwrap();
    }
}

#[test]
fn several_heads() {
    if common::device().is_some() {
        heads::main().unwrap();
    }
}

#[test]
fn two_workers() {
    if common::device().is_some() {
        workers::main().unwrap();
    }
}

#[test]
fn another_crate_s_stream_and_arrays() {
    if common::device().is_some() {
        interop::main().unwrap();
    }
}
