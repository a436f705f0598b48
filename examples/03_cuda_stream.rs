//! A drift call on your own stream and arrays, captured once as a graph and replayed:
//! `cargo run --release --features cuda --example 03_cuda_stream`.

use cudrift::cuda::cudarc::driver::{CudaContext, sys};
use cudrift::cuda::{self, Inputs, Kernels, Options, Outputs, Plan};
use cudrift::rng::{Purpose, Stream};
use cudrift::{DriftShape, DriftSpec, Dtype, bf16};

/// Runs the example.
pub fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Says what is missing where something is; everything below may then use cudarc freely.
    println!("{}", cuda::probe()?.name);
    let context = CudaContext::new(0)?;
    let stream = context.new_stream()?;
    let kernels = Kernels::load(&context)?;

    // 8 groups of the official latent configuration, in bf16.
    let shape = DriftShape { groups: 8, generated: 64, negatives: 32, positives: 64, dim: 640 };
    let spec = DriftSpec::official();
    let options = Options { shared_bytes: kernels.shared_bytes(), ..Options::default() };
    let plan = Plan::grouped(&spec, &[shape], Dtype::Bf16, options)?;
    println!("{} launches, {} bytes of workspace", plan.launches(), plan.workspace_bytes());

    let features = |step, count: usize| -> Vec<bf16> {
        let normals = Stream::new(7, Purpose::Data, step).normals(shape.groups * count * shape.dim);
        normals.into_iter().map(bf16::from_f32).collect()
    };
    let generated = stream.clone_htod(&features(0, shape.generated))?;
    let negatives = stream.clone_htod(&features(1, shape.negatives))?;
    let positives = stream.clone_htod(&features(2, shape.positives))?;
    let mut gradient = stream.alloc_zeros::<f32>(generated.len())?;
    let mut loss = stream.alloc_zeros::<f32>(shape.groups)?;
    let mut workspace = stream.alloc_zeros::<u8>(plan.workspace_bytes())?;
    stream.synchronize()?;

    // A run allocates nothing and waits for nothing. One stream needs none of cudarc's events, which a graph would hold.
    // SAFETY: no other stream uses these arrays, and they outlive the graph.
    unsafe { context.disable_event_tracking() };
    let inputs = Inputs::new(&generated, &positives).with_negatives(&negatives);
    let outputs = Outputs { gradient: Some(gradient.as_view_mut()), loss: Some(loss.as_view_mut()), force: None };
    stream.begin_capture(sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)?;
    plan.run(&kernels, &stream, inputs, &mut workspace, outputs)?;
    let flags = sys::CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
    let graph = stream.end_capture(flags)?.ok_or("nothing was captured")?;
    for _ in 0..3 {
        graph.launch()?;
    }

    let statistics = plan.statistics(&stream, &workspace)?;
    println!("scale {:.3}, f2 {:?}", statistics[0].scale.scale, statistics[0].loss_r);
    println!("loss per group {:?}", stream.clone_dtoh(&loss)?);
    println!("gradient begins {:?}", &stream.clone_dtoh(&gradient)?[..3]);
    Ok(())
}
