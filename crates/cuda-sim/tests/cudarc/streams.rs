//! Streams, events and host functions.

use std::ffi::c_void;
use std::sync::Mutex;
use std::thread;

use cudarc::driver::result;
use cudarc::driver::sys::{self, CUevent_flags, CUresult};
use cudarc::driver::{LaunchConfig, PushKernelArg};

use crate::harness::{assert_code, device, kernel, simulate};

#[test]
fn two_streams_meet_at_events() {
    simulate(|| {
        let (context, first) = device();
        let second = context.new_stream().unwrap();
        let scale = kernel(&context, "scale");
        let mut x = first.clone_htod(&vec![1.5f32; 1000]).unwrap();
        let event = first.record_event(None).unwrap();
        second.wait(&event).unwrap();
        // SAFETY: the arguments are those of the kernel, which stays inside `n` values.
        unsafe {
            let mut launch = second.launch_builder(&scale);
            launch.arg(&mut x).arg(&2.0f32).arg(&1000i32).launch(LaunchConfig::for_num_elems(1000)).unwrap();
        }
        first.join(&second).unwrap();
        assert_eq!(first.clone_dtoh(&x).unwrap(), vec![3.0f32; 1000]);
        context.check_err().unwrap();
    });
}

#[test]
fn events_measure_time() {
    simulate(|| {
        let (context, stream) = device();
        let timed = || context.new_event(Some(CUevent_flags::CU_EVENT_DEFAULT)).unwrap();
        let (start, end, never) = (timed(), timed(), timed());
        assert!(start.is_complete());
        start.record(&stream).unwrap();
        thread::sleep(std::time::Duration::from_millis(20));
        end.record(&stream).unwrap();
        let ms = start.elapsed_ms(&end).unwrap();
        assert!((20.0..2000.0).contains(&ms), "{ms}");
        assert_eq!(end.elapsed_ms(&start).unwrap(), -ms);
        assert_code(start.elapsed_ms(&never), CUresult::CUDA_ERROR_INVALID_HANDLE);
        let untimed = stream.record_event(None).unwrap();
        assert_code(start.elapsed_ms(&untimed), CUresult::CUDA_ERROR_INVALID_HANDLE);
        stream.synchronize().unwrap();
    });
}

#[test]
fn stale_handles_are_refused() {
    simulate(|| {
        let (_context, stream) = device();
        let event = result::event::create(CUevent_flags::CU_EVENT_DEFAULT).unwrap();
        // SAFETY: a destroyed handle is what is tested; the simulator looks it up and does not follow it.
        unsafe {
            result::event::destroy(event).unwrap();
            assert_code(result::event::destroy(event), CUresult::CUDA_ERROR_INVALID_HANDLE);
            assert_code(result::event::record(event, stream.cu_stream()), CUresult::CUDA_ERROR_INVALID_HANDLE);
            let own = result::stream::create(result::stream::StreamKind::NonBlocking).unwrap();
            result::stream::destroy(own).unwrap();
            assert_code(result::stream::synchronize(own), CUresult::CUDA_ERROR_INVALID_HANDLE);
            assert_code(result::stream::synchronize(event.cast()), CUresult::CUDA_ERROR_INVALID_HANDLE);
        }
        stream.synchronize().unwrap();
    });
}

#[test]
fn the_default_streams_are_streams() {
    simulate(|| {
        let (context, _) = device();
        let (legacy, own) = (context.default_stream(), context.per_thread_stream());
        let slice = legacy.clone_htod(&[7u8; 7]).unwrap();
        own.join(&legacy).unwrap();
        assert_eq!(own.clone_dtoh(&slice).unwrap(), [7; 7]);
        let urgent = context.new_stream_with_priority(-1).unwrap();
        let mut priority = 0;
        // SAFETY: the stream is alive and the pointer is to an i32.
        unsafe { sys::cuStreamGetPriority(urgent.cu_stream(), &mut priority) }.result().unwrap();
        assert_eq!(priority, -1);
    });
}

/// What the host function saw: whether memory was there, and how a CUDA call answered.
static SEEN: Mutex<Vec<(u32, CUresult)>> = Mutex::new(Vec::new());

unsafe extern "C" fn look(data: *mut c_void) {
    // SAFETY: `data` is the pinned word that the test passed.
    let word = unsafe { data.cast::<u32>().read() };
    // SAFETY: always allowed to be called; the answer is what is tested.
    let answer = unsafe { sys::cuCtxSynchronize() };
    SEEN.lock().unwrap().push((word, answer));
}

#[test]
fn host_functions_are_called_in_order() {
    simulate(|| {
        let (context, stream) = device();
        // SAFETY: written before it is read.
        let mut pinned = unsafe { context.alloc_pinned::<u32>(1) }.unwrap();
        let word = pinned.as_mut_ptr().unwrap();
        for value in [5u32, 6] {
            let slice = stream.clone_htod(&[value]).unwrap();
            stream.memcpy_dtoh(&slice, &mut pinned).unwrap();
            // SAFETY: the word lives until the stream is done.
            unsafe { result::stream::launch_host_function(stream.cu_stream(), look, word.cast()) }.unwrap();
            stream.synchronize().unwrap();
        }
        let refused = CUresult::CUDA_ERROR_NOT_PERMITTED;
        assert_eq!(*SEEN.lock().unwrap(), [(5, refused), (6, refused)]);
        context.check_err().unwrap();
    });
}
