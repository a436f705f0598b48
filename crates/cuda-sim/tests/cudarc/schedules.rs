//! Work that streams put off: what waits is right under every schedule, and a wait that is missing shows.

use std::ffi::c_void;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use cudarc::driver::sys::{self, CUresult, CUstreamCaptureMode};
use cudarc::driver::{CudaContext, CudaFunction, CudaSlice, CudaStream, LaunchConfig, PushKernelArg, result};

use crate::harness::{assert_code, device, kernel, last_finding, simulate_with};

const LATE: [(&str, &str); 1] = [("CUDRIFT_SIM_STREAMS", "late")];
const N: usize = 1000;

/// Two streams that nothing orders but the program: cudarc's own events are off.
struct Streams {
    context: Arc<CudaContext>,
    first: Arc<CudaStream>,
    second: Arc<CudaStream>,
    scale: CudaFunction,
}

impl Streams {
    fn new() -> Self {
        let (context, first) = device();
        // SAFETY: what is ordered here is ordered by hand, or is the test's fault to be found.
        unsafe { context.disable_event_tracking() };
        let (second, scale) = (context.new_stream().unwrap(), kernel(&context, "scale"));
        context.synchronize().unwrap();
        Self { context, first, second, scale }
    }

    fn room(&self) -> CudaSlice<f32> {
        // SAFETY: written before it is read, or the test's fault to be found.
        unsafe { self.first.alloc(N) }.unwrap()
    }

    fn scale(&self, stream: &Arc<CudaStream>, x: &mut CudaSlice<f32>, factor: f32) {
        // SAFETY: the arguments are those of the kernel, which stays inside `n` values.
        unsafe {
            let mut launch = stream.launch_builder(&self.scale);
            launch.arg(x).arg(&factor).arg(&(N as i32)).launch(LaunchConfig::for_num_elems(N as u32)).unwrap();
        }
    }
}

#[test]
fn a_missing_wait_between_streams_shows() {
    simulate_with(&LATE, || {
        let streams = Streams::new();
        let Streams { context, first, second, .. } = &streams;
        let mut x = streams.room();
        first.memset_zeros(&mut x).unwrap();
        streams.scale(second, &mut x, 2.0);
        // Nothing was done yet; the second stream's work comes first.
        assert_code(second.synchronize(), CUresult::CUDA_ERROR_LAUNCH_FAILED);
        assert!(last_finding().contains("uninitialised read"), "{}", last_finding());
        assert_code(context.synchronize(), CUresult::CUDA_ERROR_LAUNCH_FAILED);
        std::mem::forget(x);
    });
}

#[test]
fn a_missing_wait_after_an_upload_shows() {
    simulate_with(&LATE, || {
        let streams = Streams::new();
        let mut x = streams.room();
        // From memory that is not page-locked: the call lets go of it, and the bytes are still on their way.
        let mut host = vec![1.0f32; N];
        streams.first.memcpy_htod(&host, &mut x).unwrap();
        host.fill(f32::NAN);
        streams.scale(&streams.second, &mut x, 2.0);
        assert_code(streams.second.synchronize(), CUresult::CUDA_ERROR_LAUNCH_FAILED);
        assert!(last_finding().contains("uninitialised read"), "{}", last_finding());
        std::mem::forget(x);
    });
}

#[test]
fn waits_order_streams_under_every_schedule() {
    for schedule in ["eager", "late", "1", "2", "3", "4", "5"] {
        simulate_with(&[("CUDRIFT_SIM_STREAMS", schedule)], || {
            let streams = Streams::new();
            let Streams { first, second, .. } = &streams;
            let mut x = streams.room();
            let mut host = vec![1.0f32; N];
            first.memcpy_htod(&host, &mut x).unwrap();
            host.fill(f32::NAN);
            // To and fro, so that each stream waits for the other.
            for _ in 0..5 {
                second.join(first).unwrap();
                streams.scale(second, &mut x, 2.0);
                first.join(second).unwrap();
                streams.scale(first, &mut x, 3.0);
            }
            // SAFETY: filled by the copy before it is read.
            let mut pinned = unsafe { streams.context.alloc_pinned::<f32>(N) }.unwrap();
            first.memcpy_dtoh(&x, &mut pinned).unwrap();
            let event = first.record_event(None).unwrap();
            second.wait(&event).unwrap();
            streams.scale(second, &mut x, f32::NAN);
            event.synchronize().unwrap();
            assert_eq!(pinned.as_slice().unwrap(), [6f32.powi(5); N]);
        });
    }
}

#[test]
fn page_locked_memory_is_read_before_the_copy_is_done() {
    simulate_with(&LATE, || {
        let streams = Streams::new();
        let x = streams.first.clone_htod(&vec![5u8; N]).unwrap();
        let (mut host, len) = (std::ptr::null_mut(), N);
        // SAFETY: the pointers are to live values, and the memory is as long as what is copied to it.
        let bytes = unsafe {
            sys::cuMemHostAlloc(&mut host, len, 0).result().unwrap();
            std::slice::from_raw_parts_mut(host.cast::<u8>(), len).fill(0);
            let (addr, _guard) = cudarc::driver::DevicePtr::device_ptr(&x, &streams.first);
            sys::cuMemcpyDtoHAsync_v2(host, addr, len, streams.first.cu_stream()).result().unwrap();
            std::slice::from_raw_parts(host.cast::<u8>(), len)
        };
        assert_eq!(bytes, [0; N]);
        streams.first.synchronize().unwrap();
        // SAFETY: as above; what was borrowed before has changed, so it is borrowed anew.
        assert_eq!(unsafe { std::slice::from_raw_parts(host.cast::<u8>(), len) }, [5; N]);
        // SAFETY: allocated above, and used no more.
        unsafe { sys::cuMemFreeHost(host) }.result().unwrap();
    });
}

#[test]
fn the_default_stream_and_blocking_ones_wait_for_each_other() {
    simulate_with(&LATE, || {
        let streams = Streams::new();
        let blocking = result::stream::create(result::stream::StreamKind::Default).unwrap();
        let free = result::stream::create(result::stream::StreamKind::NonBlocking).unwrap();
        let x = streams.room();
        let (addr, guard) = cudarc::driver::DevicePtr::device_ptr(&x, &streams.first);
        let read = |stream| {
            let mut words = [0u32; 4];
            // SAFETY: both ranges hold 16 bytes; to memory that is not page-locked, so the call waits.
            unsafe { sys::cuMemcpyDtoHAsync_v2(words.as_mut_ptr().cast(), addr, 16, stream) }.result().unwrap();
            words
        };
        // SAFETY: the ranges lie inside the allocation.
        unsafe {
            sys::cuMemsetD32Async(addr, 1, 4, blocking).result().unwrap();
            // The default stream after a blocking one, a blocking one after the default stream.
            sys::cuMemsetD32_v2(addr, 2, 2).result().unwrap();
            sys::cuMemsetD32Async(addr, 3, 1, blocking).result().unwrap();
            assert_eq!(read(blocking), [3, 2, 1, 1]);
            // Others go their own ways.
            sys::cuMemsetD32_v2(addr, 4, 4).result().unwrap();
            assert_eq!(read(free), [3, 2, 1, 1]);
            assert_eq!(read(blocking), [4; 4]);
        }
        drop(guard);
        for stream in [blocking, free] {
            // SAFETY: made above, and used no more.
            unsafe { result::stream::destroy(stream) }.unwrap();
        }
    });
}

#[test]
fn a_graph_without_an_edge_has_no_order() {
    for schedule in ["eager", "late"] {
        simulate_with(&[("CUDRIFT_SIM_STREAMS", schedule)], || {
            // In the order of the calls, or the last that is ready first.
            let want = if std::env::var("CUDRIFT_SIM_STREAMS").unwrap() == "late" { 4.0 } else { 8.0 };
            let streams = Streams::new();
            let Streams { first, second, .. } = &streams;
            let (mut x, mut y) = (first.clone_htod(&vec![4.0f32; N]).unwrap(), streams.room());
            first.synchronize().unwrap();
            first.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_GLOBAL).unwrap();
            second.join(first).unwrap();
            streams.scale(first, &mut x, 2.0);
            second.memcpy_dtod(&x, &mut y).unwrap();
            first.join(second).unwrap();
            let flags = sys::CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
            first.end_capture(flags).unwrap().unwrap().launch().unwrap();
            assert_eq!(first.clone_dtoh(&y).unwrap(), [want; N]);
        });
    }
}

#[test]
fn whoever_asks_again_and_again_gets_there() {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    unsafe extern "C" fn call(_: *mut c_void) {
        CALLS.fetch_add(1, SeqCst);
    }
    simulate_with(&LATE, || {
        let streams = Streams::new();
        for _ in 0..3 {
            // SAFETY: the function needs no data.
            unsafe { result::stream::launch_host_function(streams.first.cu_stream(), call, std::ptr::null_mut()) }
                .unwrap();
        }
        let event = streams.first.record_event(None).unwrap();
        assert_eq!(CALLS.load(SeqCst), 0);
        let mut asked = 0;
        while !event.is_complete() {
            asked += 1;
        }
        assert_eq!((CALLS.load(SeqCst), asked), (3, 4));
        // What is freed or destroyed waits, and so does the end of the context.
        // SAFETY: the function needs no data.
        unsafe { result::stream::launch_host_function(streams.second.cu_stream(), call, std::ptr::null_mut()) }
            .unwrap();
        drop(streams);
        assert_eq!(CALLS.load(SeqCst), 4);
    });
}

#[test]
fn errors_come_when_something_waits() {
    simulate_with(&LATE, || {
        let streams = Streams::new();
        let mut x = streams.room();
        let beyond = kernel(&streams.context, "beyond");
        // SAFETY: the arguments have the kernel's types; that the index lies outside is what is tested.
        unsafe {
            let mut launch = streams.first.launch_builder(&beyond);
            launch.arg(&mut x).arg(&(1 << 20)).launch(LaunchConfig::for_num_elems(1)).unwrap();
        }
        streams.first.memset_zeros(&mut x).unwrap();
        assert_code(streams.first.synchronize(), CUresult::CUDA_ERROR_ILLEGAL_ADDRESS);
        assert_code(streams.second.synchronize(), CUresult::CUDA_ERROR_ILLEGAL_ADDRESS);
        std::mem::forget(x);
    });
}
