//! Failures on order, and what is left behind.

use cudarc::driver::sys::{self, CUresult, CUstreamCaptureMode};
use cudarc::driver::{LaunchConfig, PushKernelArg, result};
use cudarc::nvrtc::Ptx;

use crate::harness::{Format, assert_code, compiled, device, kernel, last_finding, simulate_with};

const NO_ROOM: CUresult = CUresult::CUDA_ERROR_OUT_OF_MEMORY;

#[test]
fn the_allocation_that_is_asked_to_fails() {
    simulate_with(&[("CUDRIFT_SIM_FAIL", "alloc:2")], || {
        let (context, stream) = device();
        let first = stream.clone_htod(&[1u8; 10]).unwrap();
        assert_code(stream.clone_htod(&[1u8; 10]), NO_ROOM);
        assert_eq!(stream.clone_htod(&[2u8; 10]).and_then(|third| stream.clone_dtoh(&third)), Ok(vec![2; 10]));
        assert_eq!(stream.clone_dtoh(&first), Ok(vec![1; 10]));
        context.check_err().unwrap();
    });
}

#[test]
fn a_copy_that_fails_takes_the_context_with_it() {
    simulate_with(&[("CUDRIFT_SIM_FAIL", "copy:2")], || {
        let (_context, stream) = device();
        let x = stream.clone_htod(&[1u8; 10]).unwrap();
        assert_code(stream.clone_dtoh(&x), CUresult::CUDA_ERROR_ECC_UNCORRECTABLE);
        assert_code(stream.synchronize(), CUresult::CUDA_ERROR_ECC_UNCORRECTABLE);
    });
}

/// Launches three times and reads; the second launch fails.
fn second_of_three(code: CUresult, lost: bool) {
    let (context, stream) = device();
    let scale = kernel(&context, "scale");
    let mut x = stream.clone_htod(&[1f32; 10]).unwrap();
    let mut launch = || {
        // SAFETY: the arguments are those of the kernel, which stays inside `n` values.
        let launched = unsafe {
            let mut launch = stream.launch_builder(&scale);
            launch.arg(&mut x).arg(&2f32).arg(&10i32).launch(LaunchConfig::for_num_elems(10))
        };
        launched.map(drop)
    };
    launch().unwrap();
    assert_code(launch(), code);
    assert_eq!(launch().is_err(), lost);
    assert_eq!(stream.clone_dtoh(&x).ok(), (!lost).then(|| vec![4f32; 10]));
}

#[test]
fn a_launch_is_refused() {
    simulate_with(&[("CUDRIFT_SIM_FAIL", "launch:2")], || {
        second_of_three(CUresult::CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, false);
    });
}

#[test]
fn a_kernel_that_dies_takes_the_context_with_it() {
    simulate_with(&[("CUDRIFT_SIM_FAIL", "kernel:2")], || second_of_three(CUresult::CUDA_ERROR_LAUNCH_FAILED, true));
}

#[test]
fn modules_and_objects_find_no_room() {
    simulate_with(&[("CUDRIFT_SIM_FAIL", "module:1,object:2")], || {
        let (context, stream) = device();
        let load = || context.load_module(Ptx::from_file(compiled(Format::Ptx)));
        assert_code(load(), NO_ROOM);
        load().unwrap();
        assert_code(context.new_event(None), NO_ROOM);
        let event = stream.record_event(None).unwrap();
        event.synchronize().unwrap();
    });
}

#[test]
fn memory_is_as_small_as_asked() {
    simulate_with(&[("CUDRIFT_SIM_MEMORY", "1000000")], || {
        let (context, stream) = device();
        assert_eq!(context.mem_get_info().unwrap().1, 1_000_000);
        let x = stream.alloc_zeros::<u8>(900_000).unwrap();
        assert_code(stream.alloc_zeros::<u8>(200_000), NO_ROOM);
        drop(x);
        stream.alloc_zeros::<u8>(200_000).unwrap();
    });
}

#[test]
fn what_is_left_is_reported() {
    simulate_with(&[("CUDRIFT_SIM_LEAKS", "1")], || {
        let (context, stream) = device();
        let _ = stream.alloc_zeros::<u8>(100).unwrap().leak();
        stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_GLOBAL).unwrap();
        stream.end_capture(sys::CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH).unwrap();
        std::mem::forget(context.new_event(None).unwrap());
        // The forgotten event holds the context, so end it by hand.
        // SAFETY: the device exists; what is dropped later finds a context that is gone, and says nothing.
        unsafe { sys::cuDevicePrimaryCtxReset_v2(0) }.result().unwrap();
        let finding = last_finding();
        assert!(finding.contains("leak: the context ends with 1 allocations, "), "{finding}");
        std::mem::forget((context, stream));
    });
}

#[test]
fn nothing_is_reported_where_all_is_freed() {
    simulate_with(&[("CUDRIFT_SIM_LEAKS", "1")], || {
        let (context, stream) = device();
        let scale = kernel(&context, "scale");
        drop(stream.clone_htod(&[1f32; 10]).unwrap());
        drop((scale, stream, context));
        assert_eq!(last_finding(), "");
    });
}

#[test]
fn orders_that_make_no_sense_are_refused() {
    for (name, value) in [
        ("CUDRIFT_SIM_FAIL", "alloc"),
        ("CUDRIFT_SIM_FAIL", "alloc:0"),
        ("CUDRIFT_SIM_FAIL", "nothing:1"),
        ("CUDRIFT_SIM_MEMORY", "much"),
        ("CUDRIFT_SIM_STREAMS", "tomorrow"),
    ] {
        simulate_with(&[(name, value)], || {
            assert_code(result::init(), CUresult::CUDA_ERROR_INVALID_VALUE);
        });
    }
}
