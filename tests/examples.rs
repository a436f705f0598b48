//! The examples that want a device run here, on the simulator or on a GPU.
#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used)]

#[path = "../examples/04_cuda_heads.rs"]
mod heads;
#[path = "../examples/03_cuda_stream.rs"]
mod stream;
#[path = "../examples/05_cuda_workers.rs"]
mod workers;

/// Is there a device? Where one is required there is.
fn device() -> bool {
    let required = |name| std::env::var_os(name).is_some_and(|value| value == "1");
    let there = cudrift::cuda::probe();
    assert!(there.is_ok() || !required("CUDRIFT_REQUIRE_CUDA") && !required("CUDRIFT_REQUIRE_GPU"), "{there:?}");
    there.is_ok()
}

#[test]
fn a_graph_on_a_stream_of_ones_own() {
    if device() {
        stream::main().unwrap();
    }
}

#[test]
fn several_heads() {
    if device() {
        heads::main().unwrap();
    }
}

#[test]
fn two_workers() {
    if device() {
        workers::main().unwrap();
    }
}
