//! The drift on the CPU: whole calls, and each phase of one.
//!
//! `cargo bench --bench drift`; `-- b` for one shape. Every result is checked once before it is timed.
#![allow(missing_docs, clippy::unwrap_used)]

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use cudrift::cpu::{Plan, Workspace};
use cudrift::rng::{Purpose, Stream};
use cudrift::{DriftInputs, DriftSpec, Element, Points, Scale, bf16, f16};
use std::hint::black_box;

/// Letter, [B, G, P, N, D]: the shapes of `cudrift bench`.
const SHAPES: [(&str, [usize; 5]); 6] = [
    ("a", [8, 64, 64, 32, 640]),
    ("b", [64, 64, 64, 32, 640]),
    ("c", [32, 64, 64, 16, 1280]),
    ("d", [1, 2048, 2048, 0, 2]),
    ("e", [1, 4096, 4096, 0, 512]),
    ("f", [256, 64, 64, 32, 256]),
];

struct Samples<T> {
    generated: Vec<T>,
    positives: Vec<T>,
    negatives: Vec<T>,
    shape: [usize; 5],
}

impl<T: Element> Samples<T> {
    fn new(shape @ [b, g, p, n, d]: [usize; 5], round: fn(f32) -> T) -> Self {
        let draw = |step, count: usize, shift: f32| -> Vec<T> {
            let mut stream = Stream::new(1, Purpose::Data, step);
            (0..b * count * d).map(|_| round(stream.normal() + shift)).collect()
        };
        Self { generated: draw(0, g, 0.0), positives: draw(1, p, 0.5), negatives: draw(2, n, 0.0), shape }
    }

    fn inputs(&self) -> DriftInputs<'_, T> {
        let [b, g, p, n, d] = self.shape;
        let generated = Points::new(&self.generated, [b, g, d]).unwrap();
        let inputs = DriftInputs::new(generated, Points::new(&self.positives, [b, p, d]).unwrap()).unwrap();
        inputs.negatives(Points::new(&self.negatives, [b, n, d]).unwrap()).unwrap()
    }
}

struct Buffers {
    plan: Plan,
    workspace: Workspace,
    gradient: Vec<f32>,
    loss: Vec<f32>,
}

impl Buffers {
    fn new<T: Element>(spec: &DriftSpec, inputs: &DriftInputs<'_, T>) -> Self {
        let shape = inputs.shape();
        let plan = Plan::new(spec, shape).unwrap();
        let workspace = plan.workspace();
        let gradient = vec![0.0; shape.groups * shape.generated * shape.dim];
        Self { plan, workspace, gradient, loss: vec![0.0; shape.groups] }
    }

    fn call<T: Element>(&mut self, spec: &DriftSpec, inputs: &DriftInputs<'_, T>) -> Scale {
        let Self { plan, workspace, gradient, loss } = self;
        let scale = plan.distances(inputs, workspace).unwrap().finish(spec).unwrap();
        let norms = plan.coefficients(inputs, &scale, workspace).unwrap().finish(spec, &scale);
        plan.gradient(inputs, &scale, &norms, workspace, gradient, loss).unwrap();
        scale
    }

    fn checked<T: Element>(mut self, spec: &DriftSpec, inputs: &DriftInputs<'_, T>) -> Self {
        self.call(spec, inputs);
        assert!(self.gradient.iter().all(|v| v.is_finite()) && self.gradient.iter().any(|v| *v != 0.0));
        self
    }
}

fn whole<T: Element>(c: &mut Criterion, round: fn(f32) -> T) {
    let spec = DriftSpec::official();
    let mut bench = c.benchmark_group(format!("drift and gradient, {}", T::DTYPE));
    bench.sample_size(10);
    for (name, shape @ [b, g, p, n, _]) in SHAPES {
        let samples = Samples::new(shape, round);
        let inputs = samples.inputs();
        let mut buffers = Buffers::new(&spec, &inputs).checked(&spec, &inputs);
        bench.throughput(Throughput::Elements((b * g * (g + n + p)) as u64)); // pairs
        bench.bench_function(name, |bench| bench.iter(|| black_box(buffers.call(&spec, &inputs))));
    }
}

fn phases(c: &mut Criterion) {
    let spec = DriftSpec::official();
    for (name, shape) in SHAPES {
        let samples = Samples::new(shape, |v| v);
        let inputs = samples.inputs();
        let mut buffers = Buffers::new(&spec, &inputs).checked(&spec, &inputs);
        let scale = buffers.call(&spec, &inputs);
        let Buffers { plan, workspace, gradient, loss } = &mut buffers;
        let norms = {
            plan.distances(&inputs, workspace).unwrap();
            plan.coefficients(&inputs, &scale, workspace).unwrap().finish(&spec, &scale)
        };
        let mut bench = c.benchmark_group("phases, f32");
        bench.sample_size(10);
        bench.bench_function(BenchmarkId::new("C contraction", name), |bench| {
            bench.iter(|| plan.gradient(&inputs, &scale, &norms, workspace, gradient, loss).unwrap());
        });
        bench.bench_function(BenchmarkId::new("A distances", name), |bench| {
            bench.iter(|| black_box(plan.distances(&inputs, workspace).unwrap()));
        });
        // Phase B follows a phase A of its own, which is not timed.
        let workspace = std::cell::RefCell::new(plan.workspace());
        bench.bench_function(BenchmarkId::new("B coefficients", name), |bench| {
            bench.iter_batched(
                || {
                    plan.distances(&inputs, &mut workspace.borrow_mut()).unwrap();
                },
                |()| black_box(plan.coefficients(&inputs, &scale, &mut workspace.borrow_mut()).unwrap()),
                BatchSize::PerIteration,
            );
        });
    }
}

fn benches(c: &mut Criterion) {
    whole(c, |v| v);
    whole(c, f16::from_f32);
    whole(c, bf16::from_f32);
    phases(c);
}

criterion_group!(drift, benches);
criterion_main!(drift);
