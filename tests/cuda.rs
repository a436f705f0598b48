//! The drift on CUDA devices. `cargo xtask test` runs these on the simulator, or on a GPU with CUDRIFT_REQUIRE_GPU=1.
#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;

use common::{Case, Convert, check, golden_files, read_npz, relative_error};
use cudarc::driver::{CudaContext, CudaSlice, CudaStream, DeviceRepr, sys};
use cudrift::cuda::{self, Inputs, Kernels, Outputs, Plan, Statistics, cudarc};
use cudrift::{DriftSpec, Error, Kernel, bf16, f16};

/// The device, or nothing where there is none and none is required.
fn device() -> Option<cuda::Gpu> {
    let required = |name| std::env::var_os(name).is_some_and(|value| value == "1");
    match cuda::probe() {
        Ok(gpu) => {
            assert!(!(gpu.simulated && required("CUDRIFT_REQUIRE_GPU")), "{} is no GPU", gpu.name);
            Some(gpu)
        }
        Err(error) if required("CUDRIFT_REQUIRE_CUDA") || required("CUDRIFT_REQUIRE_GPU") => panic!("{error}"),
        Err(error) => {
            eprintln!("SKIPPED: {error}; `cargo xtask test` runs this on the simulator");
            None
        }
    }
}

/// A stream with the kernels.
struct Bench {
    stream: Arc<CudaStream>,
    kernels: Kernels,
}

/// A case on the device, with everything that a run takes.
struct Loaded<T> {
    plan: Plan,
    samples: [Option<CudaSlice<T>>; 3],
    weights: [Option<CudaSlice<f32>>; 3],
    workspace: CudaSlice<u8>,
    force: CudaSlice<f32>,
    gradient: CudaSlice<f32>,
    loss: CudaSlice<f32>,
}

/// What a run gives.
#[derive(Clone, Debug, PartialEq)]
struct Outcome {
    force: Vec<f32>,
    gradient: Vec<f32>,
    loss: Vec<f32>,
    statistics: Statistics,
}

impl Bench {
    fn new() -> Option<Self> {
        device()?;
        let context = CudaContext::new(0).unwrap();
        Some(Self { stream: context.new_stream().unwrap(), kernels: Kernels::load(&context).unwrap() })
    }

    fn load<T: Convert + DeviceRepr>(&self, spec: &DriftSpec, case: &Case) -> Loaded<T> {
        let (typed, _) = case.rounded::<T>();
        let upload = |samples: &[T]| (!samples.is_empty()).then(|| self.stream.clone_htod(samples).unwrap());
        let weights = |weights: &Option<Vec<f32>>| {
            weights.as_ref().filter(|w| !w.is_empty()).map(|w| self.stream.clone_htod(w).unwrap())
        };
        let plan = Plan::new(spec, case.shape, T::DTYPE).unwrap();
        // Outputs begin as NaN, so that what is not written shows.
        let nan = |count: usize| self.stream.clone_htod(&vec![f32::NAN; count]).unwrap();
        Loaded {
            samples: [upload(&typed.generated), upload(&typed.positives), upload(&typed.negatives)],
            weights: [
                weights(&case.weight_generated),
                weights(&case.weight_positives),
                weights(&case.weight_negatives),
            ],
            // SAFETY: a run writes the workspace before it reads it.
            workspace: unsafe { self.stream.alloc(plan.workspace_bytes()) }.unwrap(),
            force: nan(case.generated.len()),
            gradient: nan(case.generated.len()),
            loss: nan(case.shape.groups),
            plan,
        }
    }

    fn enqueue<T: Convert + DeviceRepr>(&self, loaded: &mut Loaded<T>) -> cudrift::Result<()> {
        let [generated, positives, negatives] = &loaded.samples;
        let [weight_generated, weight_positives, weight_negatives] =
            loaded.weights.each_ref().map(|weights| weights.as_ref().map(CudaSlice::as_view));
        let inputs = Inputs {
            generated: generated.as_ref().unwrap().as_view(),
            positives: positives.as_ref().map(CudaSlice::as_view),
            negatives: negatives.as_ref().map(CudaSlice::as_view),
            weight_generated,
            weight_negatives,
            weight_positives,
        };
        let mut outputs = Outputs {
            force: Some(loaded.force.as_view_mut()),
            gradient: Some(loaded.gradient.as_view_mut()),
            loss: Some(loaded.loss.as_view_mut()),
        };
        loaded.plan.run(&self.kernels, &self.stream, &inputs, &mut loaded.workspace, &mut outputs)
    }

    fn read<T>(&self, loaded: &Loaded<T>) -> Outcome {
        let statistics = loaded.plan.statistics(&self.stream, &loaded.workspace).unwrap();
        let download = |array| self.stream.clone_dtoh(array).unwrap();
        Outcome {
            force: download(&loaded.force),
            gradient: download(&loaded.gradient),
            loss: download(&loaded.loss),
            statistics,
        }
    }

    fn run<T: Convert + DeviceRepr>(&self, spec: &DriftSpec, case: &Case) -> Outcome {
        let mut loaded = self.load::<T>(spec, case);
        self.enqueue(&mut loaded).unwrap();
        self.read(&loaded)
    }

    /// Runs a case and compares with the f64 reference on the rounded samples.
    fn compare<T: Convert + DeviceRepr>(&self, what: &str, spec: &DriftSpec, case: &Case, bound: f64) {
        let (_, rounded) = case.rounded::<T>();
        let (got, want) = (self.run::<T>(spec, case), rounded.reference(spec));
        let what = format!("{what} {:?} {}", case.shape, T::DTYPE);
        check(&format!("{what} force"), relative_error(&got.force, &want.force), bound);
        check(&format!("{what} gradient"), relative_error(&got.gradient, &want.grad), bound);
        check(&format!("{what} loss"), relative_error(&got.loss, &want.loss), bound);
        check(&format!("{what} loss_R"), relative_error(&got.statistics.loss_r, &want.loss_r), bound);
        let (got, want) = (got.statistics.scale, want.scale);
        check(&format!("{what} scale"), relative_error(&[got.scale, got.sigma], &[want.scale, want.sigma]), 2e-6);
    }
}

/// The dialects under a name.
fn dialects() -> [(&'static str, DriftSpec); 3] {
    [("official", DriftSpec::official()), ("paper", DriftSpec::paper()), ("notebook", DriftSpec::notebook())]
}

#[test]
fn the_device_has_a_name_and_limits() {
    let Some(gpu) = device() else { return };
    assert!(!gpu.name.is_empty());
    assert!(gpu.capability >= (8, 0), "compute capability {:?}", gpu.capability);
    assert!(gpu.memory > 1 << 30, "{} bytes", gpu.memory);
    assert!(gpu.driver >= (11, 0), "driver for CUDA {:?}", gpu.driver);
    assert_eq!(gpu, cuda::probe().unwrap(), "the same device when asked again");
}

#[test]
fn the_golden_vectors_in_every_type() {
    let Some(bench) = Bench::new() else { return };
    for path in golden_files(false) {
        let arrays = read_npz(&path);
        let case = Case::from_npz(&arrays);
        let mut spec = DriftSpec::official();
        spec.temperatures.clone_from(&arrays["R_list"].data);
        let name = path.file_name().unwrap().to_str().unwrap();
        bench.compare::<f32>(name, &spec, &case, 5e-6);
        bench.compare::<f16>(name, &spec, &case, 5e-6);
        bench.compare::<bf16>(name, &spec, &case, 5e-6);
    }
}

/// Tiles of 64 by 64 pairs and of 64 coordinates, in steps of 16: one less, one more, primes, one.
#[test]
fn extents_around_the_tiles() {
    let Some(bench) = Bench::new() else { return };
    let spec = DriftSpec::official();
    for (seed, shape) in (1..).zip([
        [1, 1, 0, 1, 1],
        [2, 2, 1, 1, 1],
        [1, 3, 0, 2, 4],
        [2, 63, 0, 1, 15],
        [1, 64, 0, 64, 16],
        [1, 65, 2, 61, 17],
        [3, 17, 5, 11, 63],
        [1, 31, 0, 33, 64],
        [1, 13, 7, 29, 65],
        [2, 67, 3, 71, 3],
        [1, 5, 0, 130, 7],
        [1, 130, 0, 5, 2],
        [40, 3, 2, 4, 2],
    ]) {
        bench.compare::<f32>("official", &spec, &Case::random(seed, shape), 5e-6);
    }
}

#[test]
fn dialects_kernels_and_weights() {
    let Some(bench) = Bench::new() else { return };
    let mut seed = 100;
    for (name, preset) in dialects() {
        for kernel in Kernel::ALL {
            for weighted in [false, true] {
                seed += 1;
                let mut spec = preset.clone();
                spec.kernel = kernel;
                if name != "notebook" {
                    spec.temperatures = vec![0.05, 0.3, 1.0];
                } else {
                    spec.temperatures = vec![0.7];
                }
                let mut case = Case::random(seed, [2, 9, 4, 7, 5]);
                if weighted {
                    case = case.weighted(seed);
                    // A removed column of the paper; elsewhere a target without effect.
                    case.weight_negatives.as_mut().unwrap()[1] = 0.0;
                }
                let what = format!("{name} {kernel} {}", if weighted { "weighted" } else { "" });
                bench.compare::<f32>(&what, &spec, &case, 1e-5);
                bench.compare::<bf16>(&what, &spec, &case, 1e-5);
            }
        }
    }
}

#[test]
fn one_to_eight_temperatures() {
    let Some(bench) = Bench::new() else { return };
    let mut spec = DriftSpec::official();
    for count in [1, 2, 8] {
        spec.temperatures = [0.02, 0.05, 0.2, 0.1, 0.7, 1.5, 0.35, 3.0][..count].to_vec();
        bench.compare::<f32>(&format!("{count} temperatures"), &spec, &Case::random(7, [2, 12, 3, 9, 6]), 5e-6);
    }
}

#[test]
fn edge_cases() {
    let Some(bench) = Bench::new() else { return };
    for (name, spec) in dialects() {
        for shape in [[1, 1, 0, 1, 1], [1, 1, 0, 0, 3], [2, 4, 0, 0, 3], [1, 2, 3, 1, 2]] {
            let case = Case::random(3, shape);
            let (got, want) = (bench.run::<f32>(&spec, &case), case.reference(&spec));
            for (got, want) in got.force.iter().zip(&want.force) {
                let want = *want as f32;
                assert!((got - want).abs() <= 1e-5 * want.abs().max(1.0), "{name} {shape:?}: {got} and {want}");
            }
        }
        // Far from the origin, and equal points. At the notebook's own temperature such forces underflow in f32.
        let mut spec = spec;
        spec.temperatures = vec![0.3, 0.9];
        let case = Case::random(5, [1, 16, 4, 16, 8]).translated(1000.0);
        bench.compare::<f32>(&format!("{name} far away"), &spec, &case, 2e-5);
        let mut case = Case::random(6, [1, 8, 2, 8, 4]);
        let first = case.generated[..4].to_vec();
        case.generated[4..8].copy_from_slice(&first);
        case.positives[..4].copy_from_slice(&first);
        bench.compare::<f32>(&format!("{name} equal points"), &spec, &case, 2e-5);
    }
}

#[test]
fn what_is_not_finite_is_counted_and_shows() {
    let Some(bench) = Bench::new() else { return };
    let mut case = Case::random(9, [2, 5, 2, 6, 3]);
    case.generated[4] = f32::NAN;
    case.positives[1] = f32::INFINITY;
    case.negatives[0] = f32::NEG_INFINITY;
    let got = bench.run::<f32>(&DriftSpec::official(), &case);
    assert_eq!(got.statistics.nonfinite, 3);
    assert!(got.statistics.scale.scale.is_nan() && got.force.iter().all(|f| f.is_nan()));
    // Raw coordinates keep to their group.
    let got = bench.run::<f32>(&DriftSpec::notebook(), &case);
    assert!(got.force[..15].iter().any(|f| f.is_nan()) && got.force[15..].iter().all(|f| f.is_finite()));
    // A negative weight, which the host cannot see.
    let mut case = Case::random(9, [1, 5, 2, 6, 3]).weighted(1);
    case.weight_positives.as_mut().unwrap()[2] = -1.0;
    assert!(bench.run::<f32>(&DriftSpec::official(), &case).loss[0].is_nan());
}

#[test]
fn the_same_bits_again_and_from_a_graph() {
    let Some(bench) = Bench::new() else { return };
    let (spec, case) = (DriftSpec::official(), Case::random(11, [3, 20, 6, 30, 40]).weighted(2));
    let first = bench.run::<f32>(&spec, &case);
    assert_eq!(first, bench.run::<f32>(&spec, &case));

    let mut loaded = bench.load::<f32>(&spec, &case);
    let stream = &bench.stream;
    stream.synchronize().unwrap();
    // SAFETY: one stream; no array is dropped before the graph has run.
    unsafe { stream.context().disable_event_tracking() };
    stream.begin_capture(sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED).unwrap();
    bench.enqueue(&mut loaded).unwrap();
    let flags = sys::CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
    let graph = stream.end_capture(flags).unwrap().unwrap();
    for _ in 0..2 {
        graph.launch().unwrap();
        assert_eq!(first, bench.read(&loaded));
    }
}

#[test]
fn wrong_arrays_are_refused() {
    let Some(bench) = Bench::new() else { return };
    let (spec, case) = (DriftSpec::official(), Case::random(12, [2, 4, 2, 3, 5]));
    let mut loaded = bench.load::<f32>(&spec, &case);
    loaded.samples[1] = Some(bench.stream.alloc_zeros(29).unwrap());
    let error = bench.enqueue(&mut loaded).unwrap_err();
    assert!(matches!(error, Error::Shape { argument: "positives", .. }), "{error}");

    let mut loaded = bench.load::<f32>(&spec, &case);
    loaded.samples[2] = None;
    assert!(matches!(bench.enqueue(&mut loaded).unwrap_err(), Error::Shape { argument: "negatives", .. }));

    let mut loaded = bench.load::<f32>(&spec, &case);
    loaded.workspace = bench.stream.alloc_zeros(loaded.plan.workspace_bytes() - 1).unwrap();
    assert!(matches!(bench.enqueue(&mut loaded).unwrap_err(), Error::Shape { argument: "workspace", .. }));

    let mut loaded = bench.load::<f32>(&spec, &case);
    loaded.plan = Plan::new(&spec, case.shape, cudrift::Dtype::F16).unwrap();
    assert!(matches!(bench.enqueue(&mut loaded).unwrap_err(), Error::Value { argument: "the samples' type", .. }));
    // The context is as usable as before.
    bench.compare::<f32>("afterwards", &spec, &case, 5e-6);
}

/// Random shapes, types, kernels, dialects, temperatures and weights; a fixed sample of them.
fn random_cases(bench: &Bench, seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let mut random = common::Normal::new(seed);
        let mut below = |n: u64| (random.bits() % n) as usize;
        let shape = [1 + below(3), 1 + below(70), below(20), 1 + below(70), 1 + below(90)];
        let (name, mut spec) = dialects()[below(3)].clone();
        spec.kernel = Kernel::ALL[below(4)];
        let raw = name == "notebook";
        spec.temperatures = (0..1 + below(4)).map(|r| (if raw { 2.0 } else { 0.08 }) * (1.0 + r as f64)).collect();
        let weighted = below(2) == 0;
        let dtype = below(3);
        let case = Case::random(seed, shape);
        let case = if weighted { case.weighted(seed) } else { case };
        let what = format!("case {seed}: {name} {} {:?}", spec.kernel, spec.temperatures);
        match dtype {
            0 => bench.compare::<f32>(&what, &spec, &case, 2e-5),
            1 => bench.compare::<f16>(&what, &spec, &case, 2e-5),
            _ => bench.compare::<bf16>(&what, &spec, &case, 2e-5),
        }
    }
}

#[test]
fn random_calls() {
    let Some(bench) = Bench::new() else { return };
    random_cases(&bench, 0..24);
}

#[test]
#[ignore = "minutes: `cargo xtask test --full` runs it"]
fn many_random_calls() {
    let Some(bench) = Bench::new() else { return };
    random_cases(&bench, 24..524);
}
