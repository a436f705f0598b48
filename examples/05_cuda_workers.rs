//! One head spread over two workers, each with half of the groups: they add their sums between the phases, as an
//! all-reduce over devices does. `cargo run --release --features cuda --example 05_cuda_workers`.

use std::sync::Arc;

use cudrift::cuda::cudarc::driver::{CudaContext, CudaSlice, CudaStream};
use cudrift::cuda::{self, Inputs, Kernels, Outputs, Phase, Plan};
use cudrift::rng::{Purpose, Stream};
use cudrift::{DriftShape, DriftSpec, Dtype};

/// What a worker has on its device.
struct Worker {
    stream: Arc<CudaStream>,
    generated: CudaSlice<f32>,
    positives: CudaSlice<f32>,
    gradient: CudaSlice<f32>,
    workspace: CudaSlice<u8>,
}

impl Worker {
    fn phase(&mut self, plan: &Plan, kernels: &Kernels, phase: Phase) -> Result<(), cudrift::Error> {
        let inputs = Inputs::new(&self.generated, &self.positives);
        let outputs = Outputs { gradient: Some(self.gradient.as_view_mut()), ..Outputs::default() };
        plan.bind(&self.stream, [(inputs, outputs)], &mut self.workspace)?.phase(kernels, phase)
    }
}

/// Runs the example.
pub fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("{}", cuda::probe()?.name);
    // Both on one device here; with several, each has a context and kernels of its own.
    let context = CudaContext::new(0)?;
    let kernels = Kernels::load(&context)?;
    let shape = DriftShape { groups: 3, generated: 24, negatives: 0, positives: 32, dim: 48 };
    let plan = Plan::new(&DriftSpec::official(), shape, Dtype::F32)?;
    let mut workers = Vec::new();
    for rank in 0..2 {
        let stream = context.new_stream()?;
        let features =
            |step, count: usize| Stream::new(rank, Purpose::Data, step).normals(shape.groups * count * shape.dim);
        workers.push(Worker {
            generated: stream.clone_htod(&features(0, shape.generated))?,
            positives: stream.clone_htod(&features(1, shape.positives))?,
            gradient: stream.alloc_zeros(shape.groups * shape.generated * shape.dim)?,
            workspace: stream.alloc_zeros(plan.workspace_bytes())?,
            stream,
        });
    }

    // Sums of distances, then of forces: eight-byte floats at a known place in each workspace.
    let [distances, norms] = plan.sums(0);
    for (before, sums, after) in [(Phase::Distances, distances, Phase::Scale), (Phase::Norms, norms, Phase::Theta)] {
        let mut total = vec![0.0; sums.len() / 8];
        for worker in &mut workers {
            worker.phase(&plan, &kernels, before)?;
            let bytes = worker.stream.clone_dtoh(&worker.workspace.slice(sums.clone()))?;
            let numbers = bytes.chunks_exact(8).map(|bytes| f64::from_ne_bytes(bytes.try_into().unwrap_or_default()));
            total.iter_mut().zip(numbers).for_each(|(total, number)| *total += number);
        }
        let total: Vec<u8> = total.iter().flat_map(|number| number.to_ne_bytes()).collect();
        for worker in &mut workers {
            worker.stream.clone().memcpy_htod(&total, &mut worker.workspace.slice_mut(sums.clone()))?;
            worker.phase(&plan, &kernels, after)?;
        }
    }
    for (rank, worker) in workers.iter_mut().enumerate() {
        worker.phase(&plan, &kernels, Phase::Force)?;
        let statistics = plan.statistics(&worker.stream, &worker.workspace)?;
        let gradient = worker.stream.clone_dtoh(&worker.gradient)?;
        println!(
            "worker {rank}: the scale of all groups {:.4}, gradient begins {:?}",
            statistics[0].scale.scale,
            &gradient[..2]
        );
    }
    Ok(())
}
