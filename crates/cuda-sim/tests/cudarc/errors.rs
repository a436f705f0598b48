//! Faults of kernels: their codes, their texts, and that they stay.

use cudarc::driver::sys::CUresult;
use cudarc::driver::{DriverError, LaunchConfig, PushKernelArg};

use crate::harness::{assert_code, device, kernel, last_finding, simulate, simulate_with};

const ONE: LaunchConfig = LaunchConfig { grid_dim: (1, 1, 1), block_dim: (1, 1, 1), shared_mem_bytes: 0 };

#[test]
fn an_access_beyond_the_end_is_illegal_and_stays() {
    let output = simulate_with(&[], || {
        let (context, stream) = device();
        let beyond = kernel(&context, "beyond");
        let mut x = stream.alloc_zeros::<f32>(100).unwrap();
        let other = stream.clone_htod(&[1u8; 4]).unwrap();
        let fault = CUresult::CUDA_ERROR_ILLEGAL_ADDRESS;
        assert_eq!(last_finding(), "");
        // SAFETY: the access beyond the end is what is tested; the simulator makes it a finding.
        assert_code(unsafe { stream.launch_builder(&beyond).arg(&mut x).arg(&100i32).launch(ONE) }, fault);
        let finding = last_finding();
        assert!(finding.starts_with("out of bounds") && finding.contains(" in beyond, "), "{finding}");
        assert_code(stream.synchronize(), fault);
        assert_code(context.synchronize(), fault);
        assert_code(stream.alloc_zeros::<u8>(1), fault);
        assert_code(stream.clone_dtoh(&other), fault);
        assert_code(context.new_stream(), fault);
        let text = DriverError(fault);
        assert_eq!(text.error_name().unwrap().to_str(), Ok("CUDA_ERROR_ILLEGAL_ADDRESS"));
        assert_eq!(text.error_string().unwrap().to_str(), Ok("an illegal memory access was encountered"));
        drop((x, other, beyond, stream));
        assert_code(context.check_err(), fault);
        drop(context);
        // The primary context went down with its last user; the next one is well.
        let (context, stream) = device();
        assert_eq!(stream.clone_dtoh(&stream.clone_htod(&[3u8]).unwrap()).unwrap(), [3]);
        context.check_err().unwrap();
    });
    if let Some(output) = output {
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(text.matches("cudrift-sim: out of bounds").count(), 1, "{text}");
    }
}

#[test]
fn an_access_to_freed_memory_is_illegal() {
    simulate(|| {
        let (context, stream) = device();
        let beyond = kernel(&context, "beyond");
        let x = stream.alloc_zeros::<f32>(100).unwrap();
        let addr = x.leak();
        // SAFETY: it is freed here and used below: that is what is tested.
        drop(unsafe { stream.upgrade_device_ptr::<f32>(addr, 100) });
        // SAFETY: as above.
        let result = unsafe { stream.launch_builder(&beyond).arg(&addr).arg(&0i32).launch(ONE) };
        assert_code(result, CUresult::CUDA_ERROR_ILLEGAL_ADDRESS);
        assert!(last_finding().starts_with("use after free"), "{}", last_finding());
    });
}

#[test]
fn a_misaligned_access_has_its_code() {
    simulate(|| {
        let (context, stream) = device();
        let askew = kernel(&context, "askew");
        let mut x = stream.alloc_zeros::<u8>(100).unwrap();
        // SAFETY: the misaligned access is what is tested.
        let result = unsafe { stream.launch_builder(&askew).arg(&mut x).launch(ONE) };
        assert_code(result, CUresult::CUDA_ERROR_MISALIGNED_ADDRESS);
        assert_code(stream.synchronize(), CUresult::CUDA_ERROR_MISALIGNED_ADDRESS);
    });
}

#[test]
fn a_trap_is_a_failed_launch() {
    simulate(|| {
        let (context, stream) = device();
        let stop = kernel(&context, "stop");
        // SAFETY: the kernel has no arguments.
        assert_code(unsafe { stream.launch_builder(&stop).launch(ONE) }, CUresult::CUDA_ERROR_LAUNCH_FAILED);
    });
}

#[test]
fn a_failed_assertion_has_its_code() {
    simulate(|| {
        let (context, stream) = device();
        let claim = kernel(&context, "claim");
        // SAFETY: the argument is that of the kernel.
        unsafe { stream.launch_builder(&claim).arg(&1i32).launch(ONE) }.unwrap();
        // SAFETY: the argument is that of the kernel.
        let result = unsafe { stream.launch_builder(&claim).arg(&0i32).launch(ONE) };
        assert_code(result, CUresult::CUDA_ERROR_ASSERT);
    });
}

#[test]
fn a_fault_inside_a_graph_stays_too() {
    simulate(|| {
        use cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
        let (context, stream) = device();
        // SAFETY: one stream does all.
        unsafe { context.disable_event_tracking() };
        let mut x = stream.clone_htod(&[1u8; 8]).unwrap();
        stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).unwrap();
        stream.memset_zeros(&mut x).unwrap();
        let flags = CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
        let graph = stream.end_capture(flags).unwrap().unwrap();
        drop(x);
        assert_code(graph.launch(), CUresult::CUDA_ERROR_ILLEGAL_ADDRESS);
        assert_code(stream.synchronize(), CUresult::CUDA_ERROR_ILLEGAL_ADDRESS);
    });
}
