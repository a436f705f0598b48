//! The drift on a CUDA device: whole calls, and each phase of one, timed by the device's events.
//!
//! `cargo bench --features cuda --bench cuda`; `-- bf16` for one type. Without a GPU, every kernel runs once on small
//! shapes, on the simulator where that stands in for the driver's library, and nothing is timed.
#![allow(missing_docs, clippy::unwrap_used)]

mod unfused;

use criterion::{BenchmarkId, Criterion, Throughput};
use cudrift::cuda::cudarc::driver::{CudaContext, CudaSlice, CudaStream, DeviceRepr, sys};
use cudrift::cuda::{self, Inputs, Kernels, Options, Outputs, Phase, Plan};
use cudrift::rng::{Purpose, Stream};
use cudrift::{DriftShape, DriftSpec, Element, bf16, f16};
use std::sync::Arc;
use std::time::Duration;
use unfused::Unfused;

/// [B, G, N, P, D]: heads of the published model (spec 11), its toy, and one big group; and what stands for each without
/// a GPU.
const SHAPES: [([usize; 5], [usize; 5]); 6] = [
    ([2048, 64, 32, 64, 640], [2, 64, 32, 64, 72]),
    ([1024, 64, 32, 64, 1280], [3, 17, 5, 9, 128]),
    ([128, 64, 32, 64, 5120], [2, 9, 2, 8, 1100]),
    ([1024, 64, 32, 128, 640], [2, 64, 32, 128, 40]),
    ([1, 2048, 0, 2048, 2], [1, 96, 0, 200, 2]),
    ([1, 4096, 0, 4096, 512], [1, 70, 0, 200, 136]),
];

struct Arrays<T> {
    samples: [CudaSlice<T>; 3],
    gradient: CudaSlice<f32>,
    loss: CudaSlice<f32>,
    workspace: CudaSlice<u8>,
}

impl<T: Element + DeviceRepr> Arrays<T> {
    fn new(stream: &Arc<CudaStream>, plan: &Plan, shape: DriftShape, round: fn(f32) -> T) -> Self {
        let samples = [(1, shape.generated), (2, shape.negatives), (3, shape.positives)].map(|(seed, count)| {
            // A few groups again and again: no kernel's time depends on what is in them, but for samples that coincide.
            let count = (count * shape.dim).max(1);
            let few = Stream::new(seed, Purpose::Data, count as u64).normals(count * shape.groups.min(4));
            let all: Vec<T> = few.into_iter().cycle().take(count * shape.groups).map(round).collect();
            stream.clone_htod(&all).unwrap()
        });
        let gradient = stream.alloc_zeros(shape.groups * shape.generated * shape.dim).unwrap();
        let loss = stream.alloc_zeros(shape.groups).unwrap();
        Self { samples, gradient, loss, workspace: stream.alloc_zeros(plan.workspace_bytes()).unwrap() }
    }

    fn bound<'a>(&'a mut self, stream: &'a Arc<CudaStream>, plan: &'a Plan, shape: DriftShape) -> cuda::Bound<'a> {
        let [generated, negatives, positives] = &self.samples;
        let mut inputs = Inputs::new(generated, positives);
        inputs.negatives = (shape.negatives > 0).then(|| negatives.into());
        let (gradient, loss) = (self.gradient.as_view_mut(), self.loss.as_view_mut());
        let outputs = Outputs { gradient: Some(gradient), loss: Some(loss), force: None };
        plan.bind(stream, [(inputs, outputs)], &mut self.workspace).unwrap()
    }
}

struct Device {
    stream: Arc<CudaStream>,
    kernels: Kernels,
    simulated: bool,
    /// Whether norms come by the zero-sum identity, where that is not the plan's to say.
    identity: Option<bool>,
}

impl Device {
    /// What the device's own clock says of `runs`.
    fn time(&self, mut run: impl FnMut(), runs: u64) -> Duration {
        let timed = Some(sys::CUevent_flags::CU_EVENT_DEFAULT);
        let start = self.stream.record_event(timed).unwrap();
        (0..runs).for_each(|_| run());
        let end = self.stream.record_event(timed).unwrap();
        Duration::from_secs_f64(f64::from(start.elapsed_ms(&end).unwrap()) * 1e-3)
    }

    fn plan<T: Element>(&self, spec: &DriftSpec, shape: DriftShape, name: &str) -> Plan {
        let tensor_cores = (name == "tf32").then_some(true);
        let (identity, shared_bytes) = (self.identity, self.kernels.shared_bytes());
        let options = Options { tensor_cores, shared_bytes, identity, ..Options::default() };
        Plan::grouped(spec, &[shape], T::DTYPE, options).unwrap()
    }

    fn once<T: Element + DeviceRepr>(&self, shape: DriftShape, name: &str, round: fn(f32) -> T, unfused: bool) {
        let spec = DriftSpec::official();
        let plan = self.plan::<T>(&spec, shape, name);
        let mut arrays = Arrays::new(&self.stream, &plan, shape, round);
        if unfused {
            let mut unfused = Unfused::new(&self.stream, shape, name);
            println!("workspace of {} bytes", unfused.workspace_bytes());
            let Arrays { samples, gradient, loss, .. } = &mut arrays;
            unfused.run(&spec.temperatures, samples, gradient, loss);
        } else {
            println!("norms by the {}", if plan.identity().all(|is| is) { "identity" } else { "forces" });
            println!("workspace of {} bytes", plan.workspace_bytes());
            arrays.bound(&self.stream, &plan, shape).run(&self.kernels).unwrap();
        }
        self.stream.synchronize().unwrap();
    }

    fn bench<T: Element + DeviceRepr>(&self, criterion: &mut Criterion, name: &str, round: fn(f32) -> T) {
        let spec = DriftSpec::official();
        for (large, small) in SHAPES {
            let [groups, generated, negatives, positives, dim] = if self.simulated { small } else { large };
            let shape = DriftShape { groups, generated, negatives, positives, dim };
            let plan = self.plan::<T>(&spec, shape, name);
            let mut arrays = Arrays::new(&self.stream, &plan, shape, round);
            arrays.bound(&self.stream, &plan, shape).run(&self.kernels).unwrap();
            let gradient = self.stream.clone_dtoh(&arrays.gradient).unwrap();
            assert!(gradient.iter().all(|v| v.is_finite()) && gradient.iter().any(|v| *v != 0.0), "{shape:?}");
            if self.simulated {
                println!("{name} {shape:?}: ran, not timed");
                continue;
            }
            let mut bound = arrays.bound(&self.stream, &plan, shape);
            let mut bench =
                criterion.benchmark_group(format!("{name}, {groups} {generated} {negatives} {positives} {dim}"));
            // The least that can be moved: samples twice, the gradient once.
            let bytes = groups * dim * (2 * shape.targets() * size_of::<T>() + generated * size_of::<f32>());
            bench.throughput(Throughput::Bytes(bytes as u64)).sample_size(20);
            bench.bench_function("whole", |bench| {
                bench.iter_custom(|runs| self.time(|| bound.run(&self.kernels).unwrap(), runs));
            });
            for phase in Phase::RUN {
                bench.bench_function(BenchmarkId::from_parameter(format!("{phase:?}")), |bench| {
                    bench.iter_custom(|runs| self.time(|| bound.phase(&self.kernels, phase).unwrap(), runs));
                });
            }
        }
    }
}

/// Runs one call, for who counts what it does (`cargo xtask counters`): `count B G N P D TYPE`, and `identity` or `forces`
/// to say where norms come from, or `unfused` for the sequence of products and elementwise kernels in its place.
fn count(device: &mut Device, args: &[String]) {
    let numbers: Vec<usize> = args.iter().filter_map(|word| word.parse().ok()).collect();
    let (&[groups, generated, negatives, positives, dim], Some(name)) = (&numbers[..], args.get(5)) else {
        return println!("count B G N P D TYPE [identity|forces|unfused]");
    };
    let how = args.get(6).map(String::as_str);
    let unfused = how == Some("unfused");
    device.identity = how.filter(|_| !unfused).map(|how| how == "identity");
    let shape = DriftShape { groups, generated, negatives, positives, dim };
    match name.as_str() {
        "f16" => device.once(shape, name, f16::from_f32, unfused),
        "bf16" => device.once(shape, name, bf16::from_f32, unfused),
        _ => device.once(shape, name, |v| v, unfused),
    }
}

fn main() {
    let gpu = match cuda::probe() {
        Ok(gpu) => gpu,
        Err(problem) => return println!("nothing to run on: {problem}"),
    };
    let context = CudaContext::new(0).unwrap();
    let (stream, kernels) = (context.new_stream().unwrap(), Kernels::load(&context).unwrap());
    let mut device = Device { stream, kernels, simulated: gpu.simulated, identity: None };
    let args: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    if args.first().is_some_and(|word| word == "count") {
        return count(&mut device, &args[1..]);
    }
    let mut criterion = Criterion::default().configure_from_args();
    device.bench::<f32>(&mut criterion, "f32", |v| v);
    device.bench::<f32>(&mut criterion, "tf32", |v| v);
    device.bench::<f16>(&mut criterion, "f16", f16::from_f32);
    device.bench::<bf16>(&mut criterion, "bf16", bf16::from_f32);
    criterion.final_summary();
}
