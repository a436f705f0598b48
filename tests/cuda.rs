//! CUDA devices. `cargo xtask test` runs these on the simulator, or on a GPU with CUDRIFT_REQUIRE_GPU=1.
#![cfg(feature = "cuda")]

use cudrift::cuda;

/// The device, or nothing where there is none and none is required.
fn device() -> Option<cuda::Gpu> {
    let required = |name| std::env::var_os(name).is_some_and(|value| value == "1");
    match cuda::probe() {
        Ok(gpu) => {
            assert!(!(gpu.simulated && required("CUDRIFT_REQUIRE_GPU")), "{} is no GPU", gpu.name);
            Some(gpu)
        }
        Err(error) if required("CUDRIFT_REQUIRE_CUDA") || required("CUDRIFT_REQUIRE_GPU") => panic!("{error}"),
        Err(error) => {
            eprintln!("SKIPPED: {error}; `cargo xtask test` runs this on the simulator");
            None
        }
    }
}

#[test]
fn the_device_has_a_name_and_limits() {
    let Some(gpu) = device() else { return };
    assert!(!gpu.name.is_empty());
    assert!(gpu.capability >= (8, 0), "compute capability {:?}", gpu.capability);
    assert!(gpu.memory > 1 << 30, "{} bytes", gpu.memory);
    assert!(gpu.driver >= (11, 0), "driver for CUDA {:?}", gpu.driver);
    assert_eq!(gpu, cuda::probe().unwrap(), "the same device when asked again");
}
