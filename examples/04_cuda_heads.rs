//! Several heads in one call, each with its own extents, scale and force norms, in as many launches as one head takes:
//! `cargo run --release --features cuda --example 04_cuda_heads`.

use cudrift::cuda::cudarc::driver::{CudaContext, CudaSlice};
use cudrift::cuda::{self, Inputs, Kernels, Options, Outputs, Plan};
use cudrift::rng::{Purpose, Stream};
use cudrift::{DriftShape, DriftSpec, Dtype, f16};

/// Samples of one head, and where its gradient goes.
struct Head {
    generated: CudaSlice<f16>,
    positives: CudaSlice<f16>,
    gradient: CudaSlice<f32>,
}

/// Runs the example.
pub fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("{}", cuda::probe()?.name);
    let context = CudaContext::new(0)?;
    let stream = context.new_stream()?;
    let kernels = Kernels::load(&context)?;

    // Feature maps of a few levels: many locations of short features, few of long ones (B = labels x locations).
    let levels = [(16, 64), (4, 128), (1, 256), (1, 4)];
    let shapes = levels.map(|(groups, dim)| DriftShape { groups, generated: 16, negatives: 0, positives: 16, dim });
    let spec = DriftSpec::official();
    let options = Options { shared_bytes: kernels.shared_bytes(), ..Options::default() };
    let plan = Plan::grouped(&spec, &shapes, Dtype::F16, options)?;
    println!("{} heads, {} launches, {} bytes of workspace", shapes.len(), plan.launches(), plan.workspace_bytes());

    let mut heads = Vec::new();
    for (at, shape) in (0..).zip(shapes) {
        let features = |step, count: usize| -> Vec<f16> {
            let normals = Stream::new(at, Purpose::Data, step).normals(shape.groups * count * shape.dim);
            normals.into_iter().map(f16::from_f32).collect()
        };
        heads.push(Head {
            generated: stream.clone_htod(&features(0, shape.generated))?,
            positives: stream.clone_htod(&features(1, shape.positives))?,
            gradient: stream.alloc_zeros(shape.groups * shape.generated * shape.dim)?,
        });
    }
    let mut workspace = stream.alloc_zeros::<u8>(plan.workspace_bytes())?;

    let views = heads.iter_mut().map(|head| {
        let inputs = Inputs::new(&head.generated, &head.positives);
        (inputs, Outputs { gradient: Some(head.gradient.as_view_mut()), ..Outputs::default() })
    });
    // Binding copies the table of heads to the workspace; what is bound can run again and again.
    let mut bound = plan.bind(&stream, views, &mut workspace)?;
    bound.run(&kernels)?;
    drop(bound);

    for (shape, statistics) in plan.shapes().zip(plan.statistics(&stream, &workspace)?) {
        let (effective, scale) = (statistics.rows[0].effective, statistics.scale.scale);
        println!(
            "B {:>2}, D {:>3}: scale {scale:.3}, effective negatives and positives {effective:.1?}",
            shape.groups, shape.dim
        );
    }
    Ok(())
}
