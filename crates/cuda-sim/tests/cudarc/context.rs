//! Devices and contexts.

use cudarc::driver::sys::{self, CUdevice_attribute as Attribute, CUlimit, CUresult};
use cudarc::driver::{CudaContext, result};

use crate::harness::{assert_code, device, simulate, simulate_with};

#[test]
fn the_device_says_what_it_is() {
    simulate(|| {
        let (context, _) = device();
        assert_eq!(CudaContext::device_count(), Ok(1));
        assert_eq!(context.compute_capability(), Ok((8, 0)));
        assert_eq!(context.total_mem(), Ok(40 << 30));
        assert_eq!(context.mem_get_info(), Ok((40 << 30, 40 << 30)));
        assert!(context.uuid().unwrap().bytes.iter().any(|byte| *byte != 0));
        for (attribute, value) in [
            (Attribute::CU_DEVICE_ATTRIBUTE_WARP_SIZE, 32),
            (Attribute::CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK, 1024),
            (Attribute::CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y, 65_535),
            (Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 108),
            (Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, 163 << 10),
            (Attribute::CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED, 1),
            (Attribute::CU_DEVICE_ATTRIBUTE_MANAGED_MEMORY, 0),
        ] {
            assert_eq!(context.attribute(attribute), Ok(value), "{attribute:?}");
        }
        // SAFETY: 9999 is no attribute, but an integer for this function, which is called as C declares it.
        let unknown = unsafe {
            type Get = unsafe extern "C" fn(*mut i32, i32, i32) -> i32;
            let library = libloading::Library::new("libcuda.so").unwrap();
            let get = library.get::<Get>(b"cuDeviceGetAttribute").unwrap();
            get(&mut 0, 9999, 0)
        };
        assert_eq!(unknown, CUresult::CUDA_ERROR_INVALID_VALUE as i32);
        assert_code(CudaContext::new(1), CUresult::CUDA_ERROR_INVALID_DEVICE);
    });
}

#[test]
fn other_devices_can_be_chosen() {
    simulate_with(&[("CUDRIFT_SIM_DEVICE", "sm_120")], || {
        let (context, _) = device();
        assert_eq!(context.compute_capability(), Ok((12, 0)));
        assert!(context.name().unwrap().contains("sm_120"));
    });
}

#[test]
fn an_unknown_device_fails_with_the_choices() {
    let output = simulate_with(&[("CUDRIFT_SIM_DEVICE", "sm_42")], || {
        assert_code(result::init(), CUresult::CUDA_ERROR_INVALID_VALUE);
        assert_code(CudaContext::new(0), CUresult::CUDA_ERROR_INVALID_VALUE);
    });
    if let Some(output) = output {
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains("sm_80") && text.contains("sm_90") && text.contains("sm_120"), "{text}");
    }
}

fn driver_version() -> i32 {
    let mut version = 0;
    // SAFETY: the pointer is to an i32.
    unsafe { sys::cuDriverGetVersion(&mut version) }.result().unwrap();
    version
}

#[test]
fn the_driver_is_a_new_one() {
    simulate(|| assert_eq!(driver_version(), 13_050));
}

#[test]
fn the_driver_can_be_an_older_one() {
    simulate_with(&[("CUDRIFT_SIM_DRIVER", "12.4")], || assert_eq!(driver_version(), 12_040));
}

#[test]
fn nothing_works_before_init() {
    simulate(|| {
        assert_code(result::device::get_count(), CUresult::CUDA_ERROR_NOT_INITIALIZED);
        result::init().unwrap();
        assert_code(result::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT), CUresult::CUDA_ERROR_INVALID_CONTEXT);
    });
}

#[test]
fn contexts_stack_and_stand_apart() {
    simulate(|| {
        let primary = CudaContext::new(0).unwrap();
        let other = CudaContext::new_non_primary(0, 0).unwrap();
        assert!(primary.is_primary() && !other.is_primary());
        assert_ne!(primary.cu_ctx(), other.cu_ctx());
        let (a, b) = (primary.default_stream().clone_htod(&[1u32; 8]), other.default_stream().clone_htod(&[2u32; 8]));
        let (a, b) = (a.unwrap(), b.unwrap());
        let event = primary.new_event(None).unwrap();
        assert_code(event.record(&other.default_stream()), CUresult::CUDA_ERROR_INVALID_CONTEXT);
        assert_eq!(other.default_stream().clone_dtoh(&b).unwrap(), [2; 8]);
        let (free, total) = primary.mem_get_info().unwrap();
        drop((b, other));
        assert_eq!(primary.mem_get_info().unwrap(), (free + 512, total));
        assert_eq!(primary.default_stream().clone_dtoh(&a).unwrap(), [1; 8]);
        let mut current = std::ptr::null_mut();
        // SAFETY: the context is alive, and the pointer is to a handle.
        unsafe {
            sys::cuCtxPushCurrent_v2(primary.cu_ctx()).result().unwrap();
            sys::cuCtxPushCurrent_v2(primary.cu_ctx()).result().unwrap();
            sys::cuCtxPopCurrent_v2(&mut current).result().unwrap();
        }
        assert_eq!(current, primary.cu_ctx());
        primary.set_limit(CUlimit::CU_LIMIT_STACK_SIZE, 4096).unwrap();
        assert_eq!(primary.get_limit(CUlimit::CU_LIMIT_STACK_SIZE), Ok(4096));
    });
}

#[test]
fn everything_can_be_dropped_in_any_order() {
    simulate(|| {
        let (context, stream) = device();
        let slice = stream.clone_htod(&[1.0f32; 100]).unwrap();
        let event = stream.record_event(None).unwrap();
        let fork = stream.fork().unwrap();
        let copy = fork.clone_dtod(&slice).unwrap();
        context.check_err().unwrap();
        drop(stream);
        drop(context);
        drop(event);
        drop(slice);
        let context = fork.context().clone();
        drop(fork);
        drop(copy);
        context.check_err().unwrap();
        assert_eq!(context.mem_get_info(), Ok((40 << 30, 40 << 30)));
    });
}

#[test]
fn a_new_primary_context_is_fresh() {
    simulate(|| {
        let (context, stream) = device();
        let leaked = stream.clone_htod(&[1u8; 1000]).unwrap().leak();
        assert!(context.mem_get_info().unwrap().0 < 40 << 30);
        drop((context, stream));
        let (context, stream) = device();
        assert_eq!(context.mem_get_info(), Ok((40 << 30, 40 << 30)));
        // SAFETY: the address is not good any more, which is what the driver is asked to notice.
        let stale = unsafe { stream.upgrade_device_ptr::<u8>(leaked, 1000) };
        assert_code(stream.clone_dtoh(&stale), CUresult::CUDA_ERROR_INVALID_VALUE);
        std::mem::forget(stale);
    });
}

#[test]
fn many_threads_share_a_context() {
    simulate(|| {
        let (context, stream) = device();
        std::thread::scope(|scope| {
            for thread in 0..8u32 {
                let (context, shared) = (&context, &stream);
                scope.spawn(move || {
                    let own = context.new_stream().unwrap();
                    for round in 0..50 {
                        let values: Vec<u32> = (0..257).map(|i| i * 31 + thread * 7 + round).collect();
                        let slice = own.clone_htod(&values).unwrap();
                        let copy = shared.clone_dtod(&slice).unwrap();
                        own.join(shared).unwrap();
                        assert_eq!(own.clone_dtoh(&copy).unwrap(), values);
                    }
                });
            }
        });
        context.synchronize().unwrap();
        context.check_err().unwrap();
        assert_eq!(context.mem_get_info(), Ok((40 << 30, 40 << 30)));
    });
}
