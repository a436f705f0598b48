//! The drift on CUDA devices. `cargo xtask test` runs these on the simulator, or on a GPU with CUDRIFT_REQUIRE_GPU=1.
#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::{Barrier, Mutex};

use common::bench::{Arrays, Bench, Call, Loaded, Outcome, dialects, judge, operands};
use common::{Case, Convert, check, device, elsewhere, golden_files, read_npz, relative_error};
use cudarc::driver::{CudaSlice, CudaViewMut, DeviceRepr, sys};
use cudrift::cuda::{self, Inputs, Options, Phase, Plan, Samples, cudarc};
use cudrift::{Coupling, DriftSpec, Dtype, Error, Kernel, SelfMask, bf16, f16};

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

/// Tiles of 64 queries by 224 targets or of 160, in steps of 32; stages of 32 or 64 coordinates, ranges of 128: one less,
/// as many, one more, primes, one.
#[test]
fn extents_around_the_tiles() {
    let Some(bench) = Bench::new() else { return };
    let spec = DriftSpec::official();
    for (seed, shape) in (1..).zip([
        [1, 1, 0, 1, 1],
        [2, 2, 1, 1, 2],
        [1, 3, 0, 2, 4],
        [2, 63, 0, 1, 7],
        [1, 64, 0, 64, 16],
        [1, 64, 95, 64, 31],
        [1, 64, 96, 64, 32],
        [1, 64, 96, 65, 33],
        [1, 31, 0, 1, 63],
        [1, 31, 0, 33, 64],
        [1, 13, 7, 29, 65],
        [1, 65, 2, 61, 127],
        [1, 65, 10, 85, 128],
        [1, 67, 0, 94, 129],
        [3, 17, 5, 11, 37],
        [1, 5, 0, 230, 3],
        [1, 130, 0, 5, 2],
        [40, 3, 2, 4, 2],
    ]) {
        let case = Case::random(seed, shape);
        bench.compare::<f32>("official", &spec, &case, 5e-6);
        if shape[4] > 4 {
            bench.compare::<f16>("official", &spec, &case, 1e-5);
        }
    }
}

#[test]
#[ignore = "minutes: `cargo xtask test --full` runs it"]
fn every_length_of_the_published_heads() {
    let Some(bench) = Bench::new() else { return };
    let spec = DriftSpec::official();
    for (seed, dim) in (90..).zip([640, 1280, 5120]) {
        let case = Case::random(seed, [3, 64, 32, 64, dim]).weighted(seed);
        bench.compare::<f32>("latent", &spec, &case, 1e-5);
        bench.compare::<bf16>("latent", &spec, &case, 1e-5);
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
                spec.coupling = Coupling::Row;
                bench.compare::<f32>(&format!("{what} row"), &spec, &case, 1e-5);
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
        let case = Case::random(7, [2, 12, 3, 9, 6]);
        bench.compare::<f32>(&format!("{count} temperatures"), &spec, &case, 5e-6);
        bench.compare::<f16>(&format!("{count} temperatures"), &spec, &case, 5e-6);
    }
    // A row that is far from all, beside columns that are no targets.
    spec.temperatures = vec![0.02, 0.01];
    for shape in [[1, 5, 0, 4, 3], [1, 70, 3, 200, 5]] {
        let mut case = Case::random(9, shape);
        case.generated[..shape[4]].fill(60.0);
        // Exponents in the thousands have their last digit there.
        bench.compare::<f32>("one far away", &spec, &case, 2e-4);
        bench.compare::<f16>("one far away", &spec, &case, 2e-4);
    }
    // As low as exponents are short, and lower.
    for low in [0.005, 0.001] {
        spec.temperatures = vec![low, 0.05];
        bench.compare::<f16>(&format!("down to {low}"), &spec, &Case::random(7, [2, 12, 3, 9, 6]), 5e-6);
        bench.compare::<bf16>(&format!("down to {low}"), &spec, &Case::random(8, [1, 70, 0, 200, 9]), 5e-6);
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
        // Every kernel where its argument overflows.
        if let SelfMask::Set(_) | SelfMask::Add(_) = spec.self_mask {
            for kernel in Kernel::ALL {
                let mut spec = spec.clone();
                (spec.kernel, spec.self_mask, spec.temperatures) = (kernel, SelfMask::Set(1e38), vec![0.5]);
                let what = format!("{name} {kernel} masked far");
                bench.compare::<f32>(&what, &spec, &Case::random(4, [1, 6, 2, 5, 3]), 1e-5);
            }
        }
        // Halves far from the origin, of which most pairs or a few are near.
        for (by, shape) in [(30.0, [1, 20, 3, 30, 24]), (6.0, [1, 70, 0, 170, 40])] {
            let mut spec = spec.clone();
            spec.temperatures = vec![if name == "notebook" { 4.0 } else { 0.3 }];
            let case = Case::random(6, shape).translated(by);
            bench.compare::<f16>(&format!("{name} halves far away"), &spec, &case, 2e-5);
            bench.compare::<bf16>(&format!("{name} halves far away"), &spec, &case, 2e-5);
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
    let got = bench.run::<f32>(&DriftSpec::official(), &case);
    assert!(got.loss[0].is_nan() && got.statistics.nonfinite == 1);
    // Only a sample itself has weight, and the paper leaves it out: the mean distance is 0, as in the reference.
    let mut case = Case::random(9, [1, 1, 0, 1, 3]);
    case.weight_positives = Some(vec![0.0]);
    let got = bench.run::<f32>(&DriftSpec::paper(), &case);
    assert!(got.force.iter().all(|f| *f == 0.0) && case.reference(&DriftSpec::paper()).force.iter().all(|f| *f == 0.0));
    // Forces whose squares are beyond f32.
    let mut case = Case::random(9, [1, 5, 2, 6, 3]);
    case.weight_positives = Some(vec![3e13; 6]);
    case.weight_negatives = Some(vec![3e13; 2]);
    assert!(bench.run::<f32>(&DriftSpec::official(), &case).force.iter().all(|f| f.is_nan()));
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
    // Nothing but the launches that the plan says.
    let mut nodes = 0;
    // SAFETY: the graph is alive, and without an array only the number of its nodes is asked for.
    unsafe { sys::cuGraphGetNodes(graph.cu_graph(), std::ptr::null_mut(), &mut nodes) }.result().unwrap();
    assert_eq!(nodes, loaded.plan.launches());
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
    loaded.arrays.samples[1] = bench.stream.alloc_zeros(30).unwrap();
    let error = bench.enqueue(&mut loaded).unwrap_err();
    assert!(matches!(error, Error::Shape { argument: "positives", .. }), "{error}");

    let mut loaded = bench.load::<f32>(&spec, &case);
    loaded.arrays.samples[2] = bench.stream.alloc_zeros(1).unwrap();
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

/// Groups that are more than one block: more than 64 queries, more than 224 targets, more than 128 coordinates.
#[test]
fn groups_of_many_tiles() {
    let Some(bench) = Bench::new() else { return };
    let spec = DriftSpec::official();
    for (seed, shape) in (20..).zip([
        [2, 65, 0, 100, 64],
        [1, 70, 30, 300, 136],
        [1, 130, 3, 130, 300],
        [1, 40, 0, 400, 264],
        [1, 128, 0, 97, 37],
    ]) {
        let case = Case::random(seed, shape);
        let case = if seed % 2 == 0 { case } else { case.weighted(seed) };
        bench.compare::<f32>("tiles", &spec, &case, 5e-6);
        bench.compare::<f16>("tiles", &spec, &case, 5e-6);
        bench.compare::<bf16>("tiles", &spec, &case, 5e-6);
    }
}

/// TF32 only where it is asked for: then results are those of rounded samples, to a few of their units.
#[test]
fn tf32_is_asked_for() {
    let Some(bench) = Bench::new() else { return };
    let spec = DriftSpec::official();
    for shape in [[2, 20, 5, 30, 64], [1, 70, 0, 250, 33]] {
        let case = Case::random(71, shape);
        let run = |tensor_cores| bench.run_with::<f32>(&spec, &case, Options { tensor_cores, ..bench.options });
        let (plain, tensor) = (run(None), run(Some(true)));
        assert_eq!(plain, run(Some(false)));
        let want = case.reference(&spec);
        check("plain", relative_error(&plain.force, &want.force), 5e-6);
        let rounded = relative_error(&operands::<f32>(&case, true).reference(&spec).force, &want.force);
        let error = relative_error(&tensor.force, &want.force);
        check("TF32", error, 2.0 * rounded + 1e-3);
        assert!(error > 2e-5, "nothing was rounded: {error:.1e}");
    }
}

/// Distances that are not kept are those that are: the plain rung gives the same bits.
#[test]
fn distances_formed_anew() {
    let Some(bench) = Bench::new() else { return };
    for (seed, shape) in [(30, [1, 90, 0, 200, 2]), (31, [2, 70, 10, 80, 7])] {
        let case = Case::random(seed, shape).weighted(seed);
        for (name, spec) in dialects() {
            let mut spec = spec;
            spec.temperatures = vec![0.2, 0.7];
            bench.compare::<f32>(name, &spec, &case, 1e-5);
            bench.compare::<f16>(name, &spec, &case, 1e-5);
            let keep = |keep| Options { keep_distances: Some(keep), ..bench.options };
            let [kept, anew] = [true, false].map(|is| bench.run_with::<f32>(&spec, &case, keep(is)));
            assert_eq!(kept, anew, "{name} {shape:?}");
        }
    }
}

/// Norms by the zero-sum identity, of one tile of targets and of several.
#[test]
fn norms_by_the_zero_sum_identity() {
    let Some(mut bench) = Bench::new() else { return };
    bench.options.identity = Some(true);
    for (seed, shape) in (45..).zip([
        [2, 64, 32, 64, 40],
        [3, 9, 2, 7, 5],
        [1, 40, 30, 100, 33],
        [2, 64, 0, 65, 17],
        [1, 1, 0, 1, 2],
        [1, 33, 31, 1, 12],
        [2, 50, 20, 150, 96],
    ]) {
        let case = Case::random(seed, shape);
        let case = if seed % 2 == 0 { case } else { case.weighted(seed) };
        for (name, mut spec) in dialects() {
            let unit = if name == "notebook" { (2.0 * shape[4] as f64).sqrt() } else { 1.0 };
            spec.temperatures = [0.05, 0.2, 0.4, 0.7, 1.5].map(|r| r * unit).to_vec();
            bench.compare::<f32>(name, &spec, &case, 1e-5);
            bench.compare::<f16>(name, &spec, &case, 1e-5);
            bench.compare::<bf16>(name, &spec, &case, 1e-5);
        }
    }
    // Heads of either kind in one call.
    bench.options.identity = None;
    let shapes = [[2, 16, 4, 40, 700], [3, 16, 4, 40, 24], [1, 64, 32, 64, 320]];
    heads::<f32>(&bench, &DriftSpec::official(), &shapes, 1e-5);
}

/// Where forces cancel, where groups differ in size and where one sample is far from all, norms by the identity are as
/// good as from forces of rounded coefficients.
#[test]
fn norms_of_forces_that_cancel() {
    let Some(bench) = Bench::new() else { return };
    let spec = DriftSpec::official();
    for (seed, near, dim) in [(1, 0.3, 2), (2, 0.1, 3), (3, 0.03, 24), (4, 0.1, 200), (5, 0.01, 40), (6, 0.003, 8)] {
        let mut case = Case::random(seed, [2, 24, 40, 64, dim]);
        // Positives beside the negatives.
        let (d, mut noise) = (dim, Case::random(seed + 100, [2, 64, 0, 1, dim]).generated);
        for b in 0..2 {
            for j in 0..64 {
                let from =
                    if j < 24 { &case.generated[(b * 24 + j) * d..] } else { &case.negatives[(b * 40 + j - 24) * d..] };
                for k in 0..d {
                    let at = (b * 64 + j) * d + k;
                    noise[at] = from[k] + near * noise[at];
                }
            }
        }
        case.positives = noise;
        for what in ["near", "sizes", "far"] {
            let mut case = case.clone();
            if what == "sizes" {
                for samples in [&mut case.generated, &mut case.negatives, &mut case.positives] {
                    let first = samples.len() / 2;
                    samples[..first].iter_mut().for_each(|x| *x *= 1000.0);
                }
            } else if what == "far" {
                case.generated[..d].fill(100.0);
            }
            let (_, rounded) = case.rounded::<f16>();
            let want = rounded.reference(&spec).loss_r;
            let error = |identity| {
                let options = Options { identity: Some(identity), ..bench.options };
                relative_error(&bench.run_with::<f16>(&spec, &case, options).statistics.loss_r, &want)
            };
            let [by_identity, from_forces] = [true, false].map(error);
            check(&format!("{what}, {near} apart, {dim}"), by_identity, 1.25 * from_forces + 1e-5);
        }
    }
}

/// Slices of at least 512 coordinates, added up by a launch of their own.
#[test]
fn few_groups_of_long_samples() {
    let Some(bench) = Bench::new() else { return };
    let spec = DriftSpec::official();
    let case = Case::random(40, [2, 9, 3, 8, 1280]);
    bench.compare::<f32>("long", &spec, &case, 1e-5);
    bench.compare::<f16>("long", &spec, &case, 1e-5);
    bench.compare::<bf16>("long", &spec, &Case::random(41, [1, 66, 2, 8, 1100]), 1e-5);
    // Not finite in the last slice.
    let mut case = Case::random(42, [1, 4, 0, 4, 2049]);
    case.positives[2048] = f32::NAN;
    let got = bench.run::<f32>(&spec, &case);
    assert!(got.statistics.nonfinite == 1 && got.force.iter().all(|f| f.is_nan()));
}

#[test]
#[ignore = "minutes: `cargo xtask test --full` runs it"]
fn the_longest_samples() {
    let Some(bench) = Bench::new() else { return };
    let spec = DriftSpec::official();
    bench.compare::<f16>("pixels", &spec, &Case::random(43, [2, 5, 2, 4, 196_608]), 1e-5);
    bench.compare::<f32>("pixels", &spec, &Case::random(43, [2, 5, 2, 4, 196_608]), 1e-5);
    bench.compare::<bf16>("5120", &spec, &Case::random(44, [3, 64, 32, 64, 5120]), 5e-6);
}

/// The extents of the published model, and a sixteenth of the coordinates.
#[test]
fn heads_of_different_extents_in_one_call() {
    let Some(bench) = Bench::new() else { return };
    let spec = DriftSpec::official();
    let shapes = [
        [4, 12, 3, 9, 40],
        [1, 20, 0, 5, 320],
        [16, 6, 2, 6, 8],
        [2, 64, 32, 64, 37],
        [0, 4, 0, 4, 3],
        [1, 1, 0, 1, 1],
    ];
    heads::<f32>(&bench, &spec, &shapes, 5e-6);
    heads::<f16>(&bench, &spec, &shapes, 5e-6);
    // Some that are cut, and some that are more than a tile.
    let shapes = [[1, 70, 0, 160, 24], [1, 6, 2, 8, 1300], [2, 5, 0, 5, 3]];
    heads::<f32>(&bench, &spec, &shapes, 5e-6);
    heads::<bf16>(&bench, &spec, &shapes, 5e-6);
}

#[test]
fn the_86_heads_of_a_label() {
    let Some(bench) = Bench::new() else { return };
    let kinds = [
        (64, 40, 3),
        (16, 80, 9),
        (4, 160, 16),
        (1, 320, 16),
        (1, 160, 20),
        (1, 256, 1),
        (1, 80, 14),
        (1, 40, 6),
        (1, 4, 1),
    ];
    let shapes: Vec<_> = kinds.iter().flat_map(|&(f, d, n)| vec![[f, 8, 4, 8, d]; n]).collect();
    assert_eq!(shapes.len(), 86);
    heads::<bf16>(&bench, &DriftSpec::official(), &shapes, 5e-6);
}

/// The same with the published counts of samples and locations.
#[test]
#[ignore = "minutes: `cargo xtask test --full` runs it"]
fn the_86_heads_of_a_label_in_full() {
    let Some(bench) = Bench::new() else { return };
    // Spec 11.2: locations, a sixteenth of the coordinates, heads.
    let kinds = [
        (1024, 40, 3),
        (256, 80, 3),
        (256, 40, 6),
        (64, 160, 4),
        (64, 80, 6),
        (64, 40, 6),
        (16, 320, 2),
        (16, 160, 8),
        (16, 80, 6),
        (4, 320, 4),
        (4, 160, 8),
        (1, 320, 8),
        (1, 256, 1),
        (1, 160, 8),
        (1, 80, 6),
        (1, 40, 6),
        (1, 4, 1),
    ];
    let shapes: Vec<_> = kinds.iter().flat_map(|&(f, d, n)| vec![[f, 64, 32, 64, d]; n]).collect();
    assert_eq!(shapes.len(), 86);
    heads::<bf16>(&bench, &DriftSpec::official(), &shapes, 1e-5);
}

/// Runs heads in one call, which must give what each gives alone.
fn heads<T: Convert + DeviceRepr>(bench: &Bench, spec: &DriftSpec, shapes: &[[usize; 5]], bound: f64) {
    let cases: Vec<_> = (50..).zip(shapes).map(|(seed, &shape)| Case::random(seed, shape).weighted(seed)).collect();
    let plan = Plan::grouped(spec, &cases.iter().map(|case| case.shape).collect::<Vec<_>>(), T::DTYPE, bench.options);
    let plan = plan.unwrap();
    let mut workspace = bench.workspace(&plan);
    let mut arrays: Vec<_> = cases.iter().map(|case| Arrays::<T>::new(&bench.stream, case, 0)).collect();
    plan.bind(&bench.stream, arrays.iter_mut().map(Arrays::views), &mut workspace)
        .unwrap()
        .run(&bench.kernels)
        .unwrap();
    let statistics = plan.statistics(&bench.stream, &workspace).unwrap();
    for ((case, arrays), statistics) in cases.iter().zip(&arrays).zip(statistics) {
        let got = arrays.read(&bench.stream, statistics);
        judge::<T>("head", spec, case, &got, plan.tensor_cores(), bound);
    }
}

#[test]
fn samples_that_begin_anywhere() {
    let Some(bench) = Bench::new() else { return };
    let spec = DriftSpec::official();
    for (skip, shape) in [(1, [2, 10, 3, 9, 64]), (3, [1, 70, 0, 70, 33])] {
        let case = Case::random(60, shape);
        let odd = |plan: Plan, arrays: &mut Arrays<f16>| {
            let mut workspace = bench.workspace(&plan);
            let (inputs, outputs) = arrays.views();
            plan.run(&bench.kernels, &bench.stream, inputs, &mut workspace, outputs).unwrap();
            arrays.read(&bench.stream, plan.statistics(&bench.stream, &workspace).unwrap().remove(0))
        };
        let plan = Plan::new(&spec, case.shape, Dtype::F16).unwrap();
        let [whole, parts] =
            [0, skip].map(|skip| odd(plan.clone(), &mut Arrays::<f16>::new(&bench.stream, &case, skip)));
        assert_eq!(whole, parts, "{shape:?}");
    }
}

/// Samples within larger arrays, and positives that all groups share.
#[test]
fn samples_within_larger_arrays() {
    let Some(bench) = Bench::new() else { return };
    let spec = DriftSpec::official();
    for (dim, gap) in [(24, 8), (13, 3)] {
        let case = Case::random(65, [3, 10, 4, 7, dim]);
        // Every group has the first one's positives.
        let mut same = case.clone();
        same.positives = case.positives[..7 * dim].repeat(3);
        let plan = Plan::new(&spec, case.shape, Dtype::F16).unwrap();
        let (typed, _) = same.rounded::<f16>();
        // Each sample is followed by a gap, each group by another sample, all of NaN.
        let spread = |samples: &[f16], count: usize| -> CudaSlice<f16> {
            let mut all = Vec::new();
            for group in samples.chunks(count * dim) {
                for sample in group.chunks(dim) {
                    all.extend_from_slice(sample);
                    all.extend(vec![f16::NAN; gap]);
                }
                all.extend(vec![f16::NAN; dim + gap]);
            }
            bench.stream.clone_htod(&all).unwrap()
        };
        let (row, all) =
            (dim + gap, [spread(&typed.generated, 10), spread(&typed.negatives, 4), spread(&typed.positives, 7)]);
        let mut results = Arrays::<f16>::new(&bench.stream, &same, 0);
        let mut workspace = bench.workspace(&plan);
        let [generated, negatives, positives] = &all;
        let inputs = Inputs::new(
            Samples::strided(generated.as_view(), 11 * row, row),
            Samples::strided(positives.as_view(), 0, row),
        );
        let inputs = inputs.with_negatives(Samples::strided(negatives.as_view(), 5 * row, row));
        let (_, outputs) = results.views();
        plan.run(&bench.kernels, &bench.stream, inputs, &mut workspace, outputs).unwrap();
        let got = results.read(&bench.stream, plan.statistics(&bench.stream, &workspace).unwrap().remove(0));
        let mut unweighted = same.clone();
        unweighted.weight_generated = None;
        assert_eq!(got, bench.run_with::<f16>(&spec, &unweighted, Options::default()), "{dim} {gap}");
        // One sample too few.
        let inputs = Inputs::new(
            Samples::strided(generated.slice(..2 * 11 * row + 9 * row + dim - 1), 11 * row, row),
            positives,
        );
        let (_, outputs) = results.views();
        let error = plan.run(&bench.kernels, &bench.stream, inputs, &mut workspace, outputs).unwrap_err();
        assert!(matches!(error, Error::Shape { argument: "generated", .. }), "{error}");
    }
}

/// The results of workers one after the other; every one has the statistics of all.
fn joined(results: impl IntoIterator<Item = Outcome>) -> Outcome {
    let mut results = results.into_iter();
    let mut all = results.next().unwrap();
    for rest in results {
        assert_eq!(all.statistics, rest.statistics);
        all.force.extend(rest.force);
        all.gradient.extend(rest.gradient);
        all.loss.extend(rest.loss);
    }
    all
}

/// Two workers have half of the groups each, and add their sums between the phases.
#[test]
fn a_head_on_two_workers() {
    let Some(bench) = Bench::new() else { return };
    let spec = DriftSpec::official();
    let case = Case::random(70, [4, 12, 4, 10, 24]).weighted(70);
    let parts = [case.groups(0..1), case.groups(1..4)];
    let mut loaded = parts.each_ref().map(|part| bench.load::<f32>(&spec, part));
    let phase = |loaded: &mut Loaded<f32>, phase| {
        let Loaded { plan, arrays, workspace } = loaded;
        plan.bind(&bench.stream, [arrays.views()], workspace).unwrap().phase(&bench.kernels, phase).unwrap();
    };
    for (which, (before, after)) in
        [(Phase::Distances, Phase::Scale), (Phase::Norms, Phase::Theta)].into_iter().enumerate()
    {
        loaded.iter_mut().for_each(|worker| phase(worker, before));
        let range = loaded[0].plan.sums(0)[which].clone();
        let read = |worker: &Loaded<f32>| {
            let bytes = bench.stream.clone_dtoh(&worker.workspace.slice(range.clone())).unwrap();
            bytes.chunks_exact(8).map(|bytes| f64::from_le_bytes(bytes.try_into().unwrap())).collect::<Vec<f64>>()
        };
        let [one, other] = loaded.each_ref().map(read);
        let bytes: Vec<u8> = one.iter().zip(&other).flat_map(|(a, b)| (a + b).to_le_bytes()).collect();
        for worker in &mut loaded {
            bench.stream.memcpy_htod(&bytes, &mut worker.workspace.slice_mut(range.clone())).unwrap();
            phase(worker, after);
        }
    }
    loaded.iter_mut().for_each(|worker| phase(worker, Phase::Force));
    let got = joined(loaded.iter().map(|worker| bench.read(worker)));
    judge::<f32>("two workers", &spec, &case, &got, false, 5e-6);
}

/// The same by one call for each, which meet to add up.
#[test]
fn a_call_spread_over_threads() {
    let Some(bench) = Bench::new() else { return };
    let spec = DriftSpec::official();
    let case = Case::random(71, [5, 12, 4, 10, 24]).weighted(71);
    let parts = [case.groups(0..2), case.groups(2..5)];
    let mut loaded = parts.each_ref().map(|part| bench.load::<f32>(&spec, part));
    let (total, barrier) = (Mutex::new(Vec::<f64>::new()), Barrier::new(loaded.len()));
    bench.stream.synchronize().unwrap();
    std::thread::scope(|scope| {
        for Loaded { plan, arrays, workspace } in &mut loaded {
            let (total, barrier, bench) = (&total, &barrier, &bench);
            scope.spawn(move || {
                let add_up = |numbers: &mut CudaViewMut<'_, f64>| {
                    let own = bench.stream.clone_dtoh(&numbers.as_view()).unwrap();
                    {
                        let mut total = total.lock().unwrap();
                        total.resize(own.len(), 0.0);
                        total.iter_mut().zip(&own).for_each(|(total, own)| *total += own);
                    }
                    barrier.wait();
                    let all = total.lock().unwrap().clone();
                    if barrier.wait().is_leader() {
                        total.lock().unwrap().clear();
                    }
                    barrier.wait();
                    bench.stream.memcpy_htod(&all, numbers).unwrap();
                    Ok(())
                };
                plan.run_spread(&bench.kernels, &bench.stream, [arrays.views()], workspace, add_up).unwrap();
            });
        }
    });
    let got = joined(loaded.iter().map(|worker| bench.read(worker)));
    judge::<f32>("two threads", &spec, &case, &got, false, 5e-6);
}

/// By NCCL, over every device of the machine; where its library is not there, or one device, what that says.
#[cfg(feature = "nccl")]
#[test]
fn a_call_spread_by_nccl() {
    use cuda::nccl;

    let Some(bench) = Bench::new() else { return };
    let id = match nccl::id() {
        Err(error) => {
            assert!(matches!(error, Error::LibraryMissing { library: "libnccl.so", .. }), "{error}");
            return;
        }
        Ok(id) => id,
    };
    assert!(matches!(nccl::communicator(&bench.stream, 2, 2, id), Err(Error::Value { argument: "rank", .. })));
    let world = cudarc::driver::CudaContext::device_count().unwrap() as usize;
    let (spec, case) = (DriftSpec::official(), Case::random(72, [world.max(2), 12, 4, 10, 24]));
    let results: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..world)
            .map(|rank| {
                let (spec, case) = (&spec, &case);
                scope.spawn(move || {
                    let own = Bench::on(rank);
                    let first = rank * case.shape.groups / world;
                    let part = case.groups(first..(rank + 1) * case.shape.groups / world);
                    let mut loaded = own.load::<f32>(spec, &part);
                    let member = nccl::communicator(&own.stream, rank, world, id).unwrap();
                    let Loaded { plan, arrays, workspace } = &mut loaded;
                    let heads = [arrays.views()];
                    plan.run_spread(&own.kernels, &own.stream, heads, workspace, nccl::add_up(&member)).unwrap();
                    own.read(&loaded)
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    let got = joined(results);
    judge::<f32>("all devices", &spec, &case, &got, false, 5e-6);
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_is_lost() {
    let Some(gpu) = device() else { return };
    let context = cuda::Context::new().unwrap();
    let spec = DriftSpec::official();
    // A matrix of distances half as large again as the device.
    let side = ((gpu.memory as f64 * 1.5 / 8.0).sqrt() as usize).next_multiple_of(64);
    let samples = vec![0.5f32; side * 9];
    let points = cudrift::Points::new(&samples, [1, side, 9]).unwrap();
    let inputs = cudrift::DriftInputs::new(points, points).unwrap();
    let small = Case::random(80, [2, 8, 3, 9, 5]);
    let before = context.drift(&spec, &small.inputs()).unwrap();
    context.stream().synchronize().unwrap();
    let free = || cudarc::driver::result::mem_get_info().unwrap().0;
    let unused = free();
    let error = context.drift(&spec, &inputs).unwrap_err();
    assert!(
        matches!(error, Error::DeviceMemory { what: "the workspace", bytes, .. } if bytes > side * side * 8),
        "{error}"
    );
    context.stream().synchronize().unwrap();
    assert_eq!(free(), unused, "the refused call kept something");
    assert_eq!(context.drift(&spec, &small.inputs()).unwrap(), before);
    // More shared memory than there is.
    let Some(bench) = Bench::new() else { return };
    let options = Options { shared_bytes: 1 << 20, ..Options::default() };
    let mut loaded = bench.load_with::<f32>(&spec, &small, options);
    let error = bench.enqueue(&mut loaded).unwrap_err();
    assert!(matches!(error, Error::Value { argument: "shared_bytes", .. }), "{error}");
    bench.compare::<f32>("afterwards", &spec, &small, 5e-6);
}

/// In a process of its own, for the context is lost.
#[test]
fn a_failed_kernel_is_named() {
    if device().is_none_or(|gpu| !gpu.simulated) || elsewhere("a_failed_kernel_is_named", |_| ()) {
        return;
    }
    let bench = Bench::new().unwrap();
    let plan = Plan::new(&DriftSpec::official(), Case::random(81, [1, 4, 0, 4, 3]).shape, Dtype::F32).unwrap();
    let mut workspace = bench.workspace(&plan);
    let address = cudarc::driver::DevicePtrMut::device_ptr_mut(&mut workspace, &bench.stream).0;
    // Nothing lies at these addresses.
    let call = plan.call(&[cuda::Pointers { samples: [8, 0, 64], ..cuda::Pointers::default() }], address);
    // SAFETY: none: the simulator catches it.
    let launched = unsafe { plan.launch(&bench.kernels, &bench.stream, &call, Phase::Distances) };
    let error = launched.and_then(|()| plan.statistics(&bench.stream, &workspace).map(drop)).unwrap_err();
    assert!(
        matches!(&error, Error::Device { problem, .. } if problem.contains("CUDA_ERROR_ILLEGAL_ADDRESS")),
        "{error}"
    );
    // The context says so from now on, as the driver's do.
    let error = plan.statistics(&bench.stream, &workspace).unwrap_err();
    assert!(error.to_string().contains("CUDA_ERROR_ILLEGAL_ADDRESS"), "{error}");
}

#[test]
fn random_calls() {
    let Some(bench) = Bench::new() else { return };
    (0..24).for_each(|seed| Call::random(seed).judge(&bench));
}

#[test]
#[ignore = "minutes: `cargo xtask test --full` runs it"]
fn many_random_calls() {
    let Some(bench) = Bench::new() else { return };
    (24..524).for_each(|seed| Call::random(seed).judge(&bench));
}

#[test]
#[ignore = "minutes: `cargo xtask test --full` runs it"]
fn many_random_calls_on_another_device() {
    let another = |child: &mut std::process::Command| {
        child.env("CUDRIFT_SIM_DEVICE", "sm_90");
    };
    if device().is_none_or(|gpu| !gpu.simulated) || elsewhere("many_random_calls_on_another_device", another) {
        return;
    }
    assert_eq!(device().unwrap().capability, (9, 0));
    let mut bench = Bench::new().unwrap();
    // As much shared memory as the device has, so that more temperatures go by in a pass.
    bench.options.shared_bytes = bench.kernels.shared_bytes();
    (24..524).for_each(|seed| Call::random(seed).judge(&bench));
}
