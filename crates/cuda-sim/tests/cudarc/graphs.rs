//! Captured graphs.

use std::sync::Arc;

use cudarc::driver::sys::{
    self, CUgraphInstantiate_flags, CUgraphNodeType as NodeType, CUresult, CUstreamCaptureMode as Mode,
    CUstreamCaptureStatus as Status,
};
use cudarc::driver::{CudaContext, CudaGraph, CudaStream, DriverError, LaunchConfig, PushKernelArg, result};

use crate::harness::{assert_code, device, kernel, simulate};

const FLAGS: CUgraphInstantiate_flags = CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;

fn begin(stream: &CudaStream) {
    stream.begin_capture(Mode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).unwrap();
}

fn end(stream: &Arc<CudaStream>) -> Result<CudaGraph, DriverError> {
    stream.end_capture(FLAGS).map(|graph| graph.expect("a graph"))
}

/// The kinds of the nodes in order.
fn kinds(graph: &CudaGraph) -> Vec<NodeType> {
    let mut nodes = [std::ptr::null_mut(); 16];
    let mut count = nodes.len();
    // SAFETY: the graph is alive, and `count` is the room in `nodes`.
    unsafe { sys::cuGraphGetNodes(graph.cu_graph(), nodes.as_mut_ptr(), &mut count) }.result().unwrap();
    let kind = |node: &sys::CUgraphNode| {
        let mut kind = NodeType::CU_GRAPH_NODE_TYPE_EMPTY;
        // SAFETY: the node is one of a graph that is alive.
        unsafe { sys::cuGraphNodeGetType(*node, &mut kind) }.result().unwrap();
        kind
    };
    nodes[..count].iter().map(kind).collect()
}

#[test]
fn a_graph_replays_what_was_captured() {
    simulate(|| {
        let (context, stream) = device();
        // SAFETY: one stream does all, so that events are not needed.
        unsafe { context.disable_event_tracking() };
        let scale = kernel(&context, "scale");
        let mut x = stream.clone_htod(&[1.0f32; 64]).unwrap();
        let mut y = stream.clone_htod(&[9.0f32; 64]).unwrap();
        begin(&stream);
        assert_eq!(stream.capture_status(), Ok(Status::CU_STREAM_CAPTURE_STATUS_ACTIVE));
        {
            // The factor goes out of scope before the launch: its value was captured.
            let factor = 3.0f32;
            // SAFETY: the arguments are those of the kernel, which stays inside `n` values.
            unsafe {
                let mut launch = stream.launch_builder(&scale);
                launch.arg(&mut x).arg(&factor).arg(&64i32).launch(LaunchConfig::for_num_elems(64)).unwrap();
            }
        }
        stream.memcpy_dtod(&x, &mut y).unwrap();
        stream.memset_zeros(&mut x.slice_mut(..1)).unwrap();
        let graph = end(&stream).unwrap();
        assert_eq!(stream.capture_status(), Ok(Status::CU_STREAM_CAPTURE_STATUS_NONE));
        assert_eq!(
            kinds(&graph),
            [
                NodeType::CU_GRAPH_NODE_TYPE_KERNEL,
                NodeType::CU_GRAPH_NODE_TYPE_MEMCPY,
                NodeType::CU_GRAPH_NODE_TYPE_MEMSET
            ]
        );
        assert_eq!(stream.clone_dtoh(&x).unwrap(), [1.0; 64], "nothing runs while it is captured");
        graph.upload().unwrap();
        graph.launch().unwrap();
        graph.launch().unwrap();
        assert_eq!(stream.clone_dtoh(&y).unwrap()[..2], [0.0, 9.0]);
        assert_eq!(stream.clone_dtoh(&x).unwrap()[..2], [0.0, 9.0]);
    });
}

#[test]
fn streams_fork_and_join_inside_a_capture() {
    simulate(|| {
        let (context, stream) = device();
        // SAFETY: the events below order what has to be.
        unsafe { context.disable_event_tracking() };
        let (mut x, mut y) = (stream.clone_htod(&[1u32; 8]).unwrap(), stream.clone_htod(&[1u32; 8]).unwrap());
        let side = context.new_stream().unwrap();
        begin(&stream);
        side.join(&stream).unwrap();
        side.memset_zeros(&mut y).unwrap();
        stream.memset_zeros(&mut x).unwrap();
        assert_eq!(side.capture_status(), Ok(Status::CU_STREAM_CAPTURE_STATUS_ACTIVE));
        stream.join(&side).unwrap();
        let copy = stream.clone_dtod(&y).unwrap();
        let graph = end(&stream).unwrap();
        assert_eq!(side.capture_status(), Ok(Status::CU_STREAM_CAPTURE_STATUS_NONE));
        let mut count = 0;
        // SAFETY: the graph is alive; only the number is asked.
        unsafe {
            let nowhere = std::ptr::null_mut();
            sys::cuGraphGetEdges_v2(graph.cu_graph(), nowhere, nowhere, std::ptr::null_mut(), &mut count)
        }
        .result()
        .unwrap();
        assert_eq!(count, 3, "both memsets before the allocation, that before the copy");
        graph.launch().unwrap();
        assert_eq!(stream.clone_dtoh(&copy).unwrap(), [0; 8]);
        assert_eq!(stream.clone_dtoh(&x).unwrap(), [0; 8]);
    });
}

#[test]
fn a_stream_that_did_not_join_spoils_the_capture() {
    simulate(|| {
        let (context, stream) = device();
        // SAFETY: as above.
        unsafe { context.disable_event_tracking() };
        let mut x = stream.clone_htod(&[1u32; 8]).unwrap();
        let side = context.new_stream().unwrap();
        begin(&stream);
        side.join(&stream).unwrap();
        side.memset_zeros(&mut x).unwrap();
        assert_code(end(&side), CUresult::CUDA_ERROR_STREAM_CAPTURE_UNMATCHED);
        assert_code(end(&stream), CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
        begin(&stream);
        side.join(&stream).unwrap();
        side.memset_zeros(&mut x).unwrap();
        assert_code(end(&stream), CUresult::CUDA_ERROR_STREAM_CAPTURE_UNJOINED);
        assert_eq!(stream.clone_dtoh(&x).unwrap(), [1; 8]);
    });
}

#[test]
fn what_cannot_be_captured_is_refused() {
    simulate(|| {
        let (context, stream) = device();
        let refused = CUresult::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
        let spoiled = CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
        begin(&stream);
        assert_code(stream.synchronize(), refused);
        assert_eq!(stream.capture_status(), Ok(Status::CU_STREAM_CAPTURE_STATUS_INVALIDATED));
        assert_code(end(&stream), spoiled);

        begin(&stream);
        // SAFETY: nothing was allocated.
        assert_code(unsafe { result::malloc_sync(16) }, refused);
        assert_code(end(&stream), spoiled);

        let before = stream.record_event(None).unwrap();
        begin(&stream);
        assert_code(stream.wait(&before), CUresult::CUDA_ERROR_STREAM_CAPTURE_ISOLATION);
        assert_code(end(&stream), spoiled);

        begin(&stream);
        before.record(&stream).unwrap();
        assert_code(before.synchronize(), CUresult::CUDA_ERROR_CAPTURED_EVENT);
        assert_code(end(&stream), spoiled);

        assert_code(
            context.default_stream().begin_capture(Mode::CU_STREAM_CAPTURE_MODE_GLOBAL),
            CUresult::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED,
        );
        assert_code(stream.end_capture(FLAGS), CUresult::CUDA_ERROR_ILLEGAL_STATE);
        begin(&stream);
        end(&stream).unwrap().launch().unwrap();
    });
}

#[test]
fn a_graph_calls_a_graph_and_keeps_its_memory() {
    simulate(|| {
        let (context, stream) = device();
        // SAFETY: one stream does all.
        unsafe { context.disable_event_tracking() };
        let mut out = stream.clone_htod(&[0u8; 4]).unwrap();
        let free = context.mem_get_info().unwrap().0;
        begin(&stream);
        {
            let inner = stream.alloc_zeros::<u8>(4).unwrap();
            stream.memcpy_dtod(&inner, &mut out).unwrap();
        }
        let inner = end(&stream).unwrap();
        assert_eq!(
            [kinds(&inner)[0], *kinds(&inner).last().unwrap()],
            [NodeType::CU_GRAPH_NODE_TYPE_MEM_ALLOC, NodeType::CU_GRAPH_NODE_TYPE_MEM_FREE]
        );
        begin(&stream);
        inner.launch().unwrap();
        let outer = end(&stream).unwrap();
        assert_eq!(kinds(&outer), [NodeType::CU_GRAPH_NODE_TYPE_GRAPH]);
        for value in 1..3u8 {
            stream.memcpy_htod(&[value; 4], &mut out).unwrap();
            outer.launch().unwrap();
            assert_eq!(stream.clone_dtoh(&out).unwrap(), [0; 4]);
        }
        drop((inner, outer));
        assert_eq!(context.mem_get_info().unwrap().0, free);
        context.check_err().unwrap();
    });
}

unsafe extern "C" fn count(data: *mut std::ffi::c_void) {
    // SAFETY: `data` is the counter that the test passed.
    unsafe { *data.cast::<u32>() += 1 };
}

#[test]
fn a_host_function_is_called_at_each_launch() {
    simulate(|| {
        let (_context, stream) = device();
        let mut calls = 0u32;
        begin(&stream);
        // SAFETY: the counter outlives the graph.
        unsafe { result::stream::launch_host_function(stream.cu_stream(), count, (&raw mut calls).cast()) }.unwrap();
        let graph = end(&stream).unwrap();
        assert_eq!(kinds(&graph), [NodeType::CU_GRAPH_NODE_TYPE_HOST]);
        for _ in 0..3 {
            graph.launch().unwrap();
        }
        stream.synchronize().unwrap();
        drop(graph);
        assert_eq!(calls, 3);
    });
}

#[test]
fn the_legacy_stream_does_not_wait_for_a_capture() {
    simulate(|| {
        let (context, _) = device();
        let legacy = context.default_stream();
        let mut x = legacy.clone_htod(&[1u8; 4]).unwrap();
        // A blocking stream, which the legacy one would wait for; cudarc's own are not.
        let blocking = result::stream::create(result::stream::StreamKind::Default).unwrap();
        let mut graph = std::ptr::null_mut();
        // SAFETY: the stream is alive until it is destroyed.
        unsafe {
            result::stream::begin_capture(blocking, Mode::CU_STREAM_CAPTURE_MODE_RELAXED).unwrap();
            assert_code(legacy.memset_zeros(&mut x), CUresult::CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
            let ended = sys::cuStreamEndCapture(blocking, &mut graph).result();
            assert_code(ended, CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
            result::stream::destroy(blocking).unwrap();
        }
        assert!(graph.is_null());
        assert_eq!(legacy.clone_dtoh(&x).unwrap(), [1; 4]);
    });
}

#[test]
fn a_capture_forbids_unsafe_calls_to_whom_its_mode_says() {
    /// Allocates in another thread, in a mode of that thread's.
    fn allocate_elsewhere(context: &Arc<CudaContext>, mut mode: Mode) -> Result<(), DriverError> {
        let allocate = || {
            context.bind_to_thread()?;
            // SAFETY: the pointer is to a mode; what is allocated is freed.
            unsafe {
                sys::cuThreadExchangeStreamCaptureMode(&mut mode).result()?;
                result::free_sync(result::malloc_sync(16)?)
            }
        };
        std::thread::scope(|scope| scope.spawn(allocate).join().unwrap())
    }
    simulate(|| {
        let (context, stream) = device();
        let (global, local) = (Mode::CU_STREAM_CAPTURE_MODE_GLOBAL, Mode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
        stream.begin_capture(local).unwrap();
        allocate_elsewhere(&context, global).unwrap();
        end(&stream).unwrap();
        stream.begin_capture(global).unwrap();
        allocate_elsewhere(&context, local).unwrap();
        allocate_elsewhere(&context, Mode::CU_STREAM_CAPTURE_MODE_RELAXED).unwrap();
        assert_code(allocate_elsewhere(&context, global), CUresult::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
        assert_code(end(&stream), CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    });
}
