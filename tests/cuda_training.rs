//! Generators and their training on CUDA devices, beside the CPU. `cargo xtask test` runs these on the simulator.
#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/features.rs"]
mod features;
#[path = "common/network.rs"]
mod network;

use common::{device, elsewhere, written_elsewhere};
use cudrift::backend::{Backend, Batch, Head, Progress, Sampling, Targets, Weights};
use cudrift::cpu::Host;
use cudrift::cuda::{Device, DeviceArray};
use cudrift::data::{Data, Toy};
use cudrift::features::Feature;
use cudrift::generator::{Architecture, Condition, Mlp, Pass, Vector};
use cudrift::rng::{Purpose, Stream};
use cudrift::train::{Along, Annealing, Classes, Config, External, Lookahead, Optimizer, Step, Trainer, Transport};
use cudrift::{
    Coupling, DriftShape, DriftSpec, Dtype, FieldSpec, Form, Kernel, Projection, Sinkhorn, Velocity, WeightRule,
};
use std::sync::Arc;

/// The device, or nothing where a test may be skipped.
fn open() -> Option<Device> {
    device().map(|_| Device::new().unwrap())
}

fn small(data: impl Into<Data>) -> Config {
    let mut config = Config::notebook(data);
    (config.batch, config.hidden, config.noise_dim) = (96, vec![24, 17], 6);
    config
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// What a step draws: noise, positives, negatives and weights, labels and guidance scales.
fn drawn<B: Backend>(
    backend: &mut B,
    data: &Data,
    sampling: &Sampling,
    steps: [u64; 2],
    width: usize,
) -> Vec<Vec<f32>> {
    const SEED: u64 = 0x1234_5678_9abc;
    let shape = sampling.shape(data.dim());
    let mut from = backend.data(data, sampling, SEED, steps[0]).unwrap();
    let array = |len: usize| backend.array("an array", len).unwrap();
    let count = |of: usize, dim: usize| shape.groups * of * dim;
    let mut noise = array(count(shape.generated, width));
    let mut targets = Targets {
        positives: array(count(shape.positives, shape.dim)),
        negatives: array(count(shape.negatives, shape.dim)),
        weights: array(count(shape.negatives, 1)),
        own: None,
    };
    let slots = shape.groups;
    let mut condition = Condition { slots, labels: array(slots), guidance: array(slots) };
    for step in steps[0]..=steps[1] {
        let progress = backend.progress(&Progress::new(step, 0.0)).unwrap();
        let condition = (data.classes() > 0).then_some(&mut condition);
        let batch = Batch { noise: (&mut noise, width), condition, targets: &mut targets };
        backend.draw(&mut from, SEED, &progress, batch).unwrap();
    }
    let Targets { positives, negatives, weights, .. } = &targets;
    let arrays = [&noise, positives, negatives, weights, &condition.labels, &condition.guidance];
    arrays.map(|array| backend.download(array, B::len(array)).unwrap()).to_vec()
}

#[test]
fn noise_and_data_have_the_bits_of_the_cpu() {
    let Some(mut device) = open() else { return };
    let mut host = Host::new();
    let values = |count: usize, dim: usize| Stream::new(1, Purpose::Data, 0).normals(count * dim);
    let points = |count: usize, dim: usize| Data::points(values(count, dim), [count, dim]).unwrap();
    let toys = Toy::ALL.map(Data::from);
    let mut check = |data: &Data, sampling: Sampling, steps: [u64; 2], width: usize| {
        let want = drawn(&mut host, data, &sampling, steps, width);
        let got = drawn(&mut device, data, &sampling, steps, width);
        for (k, (got, want)) in got.iter().zip(&want).enumerate() {
            assert_eq!(bits(got), bits(want), "array {k} of {sampling:?} after {steps:?}");
        }
    };
    for data in toys.iter().chain(&[points(7, 1), points(100, 3), points(1000, 70)]) {
        for (n, width, step) in [(1, 1, 0), (2, 3, 1), (300, 5, 7), (601, 1, u64::from(u32::MAX))] {
            check(data, Sampling::Batch(n), [step, step], width);
            check(data, Sampling::Halves(n / 2 * 2), [step, step], width);
        }
    }
    for (count, kinds, change) in [
        (100, 3, (|_| ()) as fn(&mut Classes)),
        (17, 2, |c| (c.labels, c.loaded, c.positives, c.buffer) = (5, 5, 40, 10)),
        (1000, 300, |c| (c.labels, c.loaded, c.negatives, c.power) = (300, 600, 0, 1.0)),
        (64, 64, |c| (c.class_buffer, c.buffer, c.loaded, c.unguided, c.power) = (3, 4096, 64, 0.5, 0.0)),
        (2, 2, |c| (c.labels, c.loaded, c.positives, c.negatives, c.power) = (3, 300, 1, 1, 5.0)),
    ] {
        let mut classes = Classes::default();
        (classes.labels, classes.generated, classes.positives, classes.negatives) = (7, 3, 20, 11);
        change(&mut classes);
        let labels: Vec<usize> = (0..count).map(|k| (k * k + k / 3) % kinds).collect();
        let labels: Vec<usize> = labels.iter().enumerate().map(|(k, l)| if k < kinds { k } else { *l }).collect();
        let data = Data::labelled(values(count, 3), [count, 3], &labels).unwrap();
        for steps in [[0, 0], [0, 4], [1000, 1002]] {
            check(&data, Sampling::Classes(classes), steps, 4);
        }
    }
}

#[test]
fn gradients_agree_with_finite_differences() {
    let Some(mut device) = open() else { return };
    for (architecture, n, slots) in network::generators() {
        network::check_gradients(&mut device, &architecture, n, slots);
    }
}

#[test]
fn features_are_those_of_their_definitions() {
    let Some(mut device) = open() else { return };
    features::check(&mut device);
}

#[test]
fn mixed_precision_rounds_operands_alone() {
    let Some(mut device) = open() else { return };
    network::check_mixed_precision(&mut device);
}

/// In bf16 a difference in the last digit of an operand may become one in its eighth: the runs part sooner than in f32.
#[test]
fn twenty_steps_in_mixed_precision() {
    if device().is_none() {
        return;
    }
    let mixed = Config { precision: Dtype::Bf16, ..with_classes() };
    let (reports, [host, device]) = together(&mixed, 20);
    let full = together(&with_classes(), 20).0;
    for ([want, got], [other, _]) in reports.iter().zip(&full) {
        assert!((want.loss - got.loss).abs() <= 2e-3 * want.loss, "{want:?} {got:?}");
        assert!((want.loss - other.loss).abs() <= 2e-2 * want.loss, "{want:?} {other:?}");
    }
    assert_ne!(reports[19][0].loss, full[19][0].loss);
    let apart = apart(&host, &device);
    println!("loss {:?}, parameters apart by {apart:e}", reports[19]);
    assert!(apart <= 1e-2);
}

#[test]
fn an_empty_batch_has_no_gradient() {
    let Some(mut device) = open() else { return };
    let [output, grad] = network::there_and_back(&mut device, &Mlp::new(&[3, 5, 2], 0).unwrap(), &[], &[]);
    assert!(output.is_empty() && grad.iter().all(|g| *g == 0.0), "{grad:?}");
}

/// Weights after three updates by given gradients.
fn updated<B: Backend>(backend: &mut B, optimizer: &Optimizer, count: usize) -> (Vec<Vec<f32>>, Progress) {
    let normals = |seed| Stream::new(seed, Purpose::Init, 0).normals(count);
    let mut weights = Weights::new(backend, &normals(1)).unwrap();
    let mut progress = backend.progress(&Progress::new(4, 0.5)).unwrap();
    let shape = DriftShape { groups: 1, generated: 2, negatives: 0, positives: 2, dim: 1 };
    let mut drift = backend.drift(&DriftSpec::notebook(), &[shape]).unwrap();
    let samples = backend.upload("samples", &[0.25, 0.5]).unwrap();
    let (positives, none) = (backend.upload("samples", &[0.25, 0.5]).unwrap(), backend.array("none", 0).unwrap());
    let mut gradient = backend.array("gradient", 2).unwrap();
    for seed in 2..5 {
        weights.grad = backend.upload("gradient", &normals(seed)).unwrap();
        let negatives = [&none; 2];
        let head = Head { generated: &samples, positives: &positives, negatives, own: None, gradient: &mut gradient };
        backend.gradient(&mut drift, &mut [head], &mut progress).unwrap();
        backend.update(optimizer, &mut weights, &mut progress).unwrap();
    }
    let Weights { parameters, first, second, ema, .. } = &weights;
    let arrays = [parameters, first, second, ema].map(|array| backend.download(array, count).unwrap());
    (arrays.to_vec(), backend.read(&progress).unwrap())
}

/// What would reach beyond an array is refused; what is no class gives NaN, on either backend.
#[test]
fn short_arrays_and_foreign_labels() {
    fn outputs<B: Backend>(backend: &mut B, label: f32) -> Vec<f32> {
        let mut architecture = Architecture::plain(1, &[3], 2);
        architecture.classes = 2;
        let model = Mlp::new(&architecture, 0).unwrap();
        let mut pass = Pass::new(backend, &architecture, 2).unwrap();
        pass.condition_mut().unwrap().labels = backend.upload("labels", &[1.0, label]).unwrap();
        let parameters = backend.upload("parameters", model.parameters()).unwrap();
        pass.forward(backend, &parameters).unwrap();
        backend.download(pass.output(), 4).unwrap()
    }
    let Some(mut device) = open() else { return };
    for label in [2.0, -1.0, 1e9, f32::NAN] {
        for outputs in [outputs(&mut Host::new(), label), outputs(&mut device, label)] {
            let nan: Vec<bool> = outputs.iter().map(|v| v.is_nan()).collect();
            assert_eq!(nan, [false, false, true, true], "{label}: {outputs:?}");
        }
    }
    let architecture = Architecture::plain(1, &[3], 2);
    let model = Mlp::new(&architecture, 0).unwrap();
    let parameters = device.upload("parameters", model.parameters()).unwrap();
    let mut pass = Pass::new(&device, &architecture, 2).unwrap();
    *pass.noise_mut() = device.array("noise", 1).unwrap();
    assert!(matches!(pass.forward(&mut device, &parameters), Err(cudrift::Error::Shape { .. })));
    let bias = Vector { start: 0, len: 3, column: 0 };
    let array = |len: usize| device.array("an array", len).unwrap();
    let (short, dy, mut sums, mut few) = (array(5), array(6), array(3), array(2));
    assert!(matches!(device.note_bias(&bias, 2, &short, &mut sums), Err(cudrift::Error::Shape { .. })));
    assert!(matches!(device.note_bias(&bias, 2, &dy, &mut few), Err(cudrift::Error::Shape { .. })));
    device.note_bias(&bias, 2, &dy, &mut sums).unwrap();
    assert!(matches!(device.download(&short, 6), Err(cudrift::Error::Shape { .. })));
}

/// Without a clip the update has the bits of the CPU; with one, those that the last digits of the norm leave.
#[test]
fn updates_have_the_bits_of_the_cpu() {
    let Some(mut device) = open() else { return };
    let mut plain = Optimizer::official();
    (plain.warmup, plain.clip_norm) = (6, f64::INFINITY);
    for count in [1, 255, 1000, 300_000] {
        let (want, got) = (updated(&mut Host::new(), &plain, count), updated(&mut device, &plain, count));
        for (want, got) in want.0.iter().zip(&got.0) {
            assert_eq!(bits(got), bits(want), "{count}");
        }
        assert_eq!((got.1.step, got.1.diverged), (7, 0));
        assert!((got.1.grad_norm - want.1.grad_norm).abs() <= 1e-13 * want.1.grad_norm);
        assert!((got.1.loss - want.1.loss).abs() <= 1e-6 * want.1.loss, "{:?} {:?}", got.1, want.1);
        assert!((got.1.loss_ema - want.1.loss_ema).abs() <= 1e-6 * want.1.loss_ema);
        let clipped = Optimizer::official();
        let (want, got) = (updated(&mut Host::new(), &clipped, count), updated(&mut device, &clipped, count));
        for (want, got) in want.0.concat().iter().zip(&got.0.concat()) {
            assert!((want - got).abs() <= 2.0 * f32::EPSILON * want.abs(), "{count}: {want} {got}");
        }
    }
}

/// Points of three classes.
fn labelled(dim: usize) -> Data {
    let labels: Vec<usize> = (0..90).map(|k| k % 3).collect();
    let mut values = Stream::new(3, Purpose::Data, 0).normals(90 * dim);
    values.iter_mut().enumerate().for_each(|(k, v)| *v = 0.3 * *v + (k / dim % 3) as f32);
    Data::labelled(values, [90, dim], &labels).unwrap()
}

/// Labels, guidance, residual blocks: everything at once.
fn with_classes() -> Config {
    let mut config = small(labelled(5));
    let mut classes = Classes::default();
    (classes.labels, classes.generated, classes.positives, classes.negatives) = (4, 12, 10, 6);
    (config.classes, config.blocks, config.spec) = (Some(classes), 2, DriftSpec::official());
    config.optimizer.clip_norm = 2.0;
    config
}

/// Images with classes, and every kind of feature.
fn with_features() -> Config {
    Config { data: labelled(48), features: features::features(), ..with_classes() }
}

/// The norm of what parameters differ by, as a share of their norm.
fn apart(a: &Mlp, b: &Mlp) -> f64 {
    let pairs = || a.parameters().iter().zip(b.parameters());
    let error: f64 = pairs().map(|(a, b)| f64::from(a - b).powi(2)).sum();
    (error / pairs().map(|(a, _)| f64::from(*a).powi(2)).sum::<f64>()).sqrt()
}

/// Steps of both backends.
fn together(config: &Config, steps: usize) -> (Vec<[Step; 2]>, [Mlp; 2]) {
    let mut host = Trainer::new(config.clone()).unwrap();
    let mut device = Trainer::on(Device::new().unwrap(), config.clone()).unwrap();
    let step = |_| {
        host.step().unwrap();
        device.step().unwrap();
        [host.report().unwrap(), device.report().unwrap()]
    };
    let reports = (0..steps).map(step).collect();
    (reports, [host.model().unwrap(), device.model().unwrap()])
}

#[test]
fn twenty_steps_are_those_of_the_cpu() {
    if device().is_none() {
        return;
    }
    let points = Data::points(Stream::new(3, Purpose::Data, 0).normals(200 * 5), [200, 5]).unwrap();
    let mut official = small(points);
    (official.spec, official.optimizer) = (DriftSpec::official(), Optimizer::official());
    (official.optimizer.warmup, official.optimizer.learning_rate) = (5, 1e-3);
    let mut annealed = small(Toy::TwoMoons);
    annealed.annealing = Some(Annealing { rate: 0.1, least: 0.3 });
    let mut plans = with_classes();
    plans.spec = plans.spec.coupled(Coupling::Sinkhorn(Sinkhorn::new(4)), Form::Split);
    let along = |data: Data, velocity: Velocity, kernel: Kernel, bandwidth: f64| {
        let mut spec = FieldSpec::new(kernel, bandwidth);
        spec.self_mask = true;
        let mut config = small(data);
        config.field = Some(Transport::new(Along::Kernel { spec, velocity, noised: false }));
        config
    };
    let mut coulomb = along(Toy::Ring.into(), Velocity::Mmd, Kernel::Plummer, 0.3);
    coulomb.annealing = Some(Annealing { rate: 0.1, least: 0.3 });
    let mut sharp = along(Toy::Ring.into(), Velocity::Sharp, Kernel::Laplace, 0.3);
    sharp.field.as_mut().unwrap().normalize = true;
    let mut classes = with_classes();
    classes.classes.as_mut().unwrap().negatives = 0;
    classes.field = along(Toy::Ring.into(), Velocity::Score, Kernel::Gaussian, 0.5).field;
    let mut features = with_features();
    features.classes.as_mut().unwrap().negatives = 0;
    features.field = along(Toy::Ring.into(), Velocity::MeanShift, Kernel::Matern32, 1.0).field;
    let divergence = along(Toy::TwoMoons.into(), Velocity::ForwardKl { most: 2.0 }, Kernel::Gaussian, 0.4);
    let toys = [Toy::SwissRoll, Toy::Checkerboard].map(small);
    let mut w_flow = small(Toy::Ring);
    w_flow.spec = w_flow.spec.coupled(Coupling::Sinkhorn(Sinkhorn::new(4)), Form::Split);
    (w_flow.spec.weights, w_flow.independent) = (WeightRule::Logit, true);
    let mut features_of_halves = w_flow.clone();
    features_of_halves.features = vec![Feature::Identity, Feature::Fourier { count: 12, bandwidth: 0.5 }];
    let mut ahead = official.clone();
    ahead.lookahead = Some(Lookahead { weights: vec![0.7, 0.3], step: 0.5 });
    let drifts = [official, with_classes(), annealed, with_features(), plans, w_flow, features_of_halves, ahead];
    let mut sliced = small(Toy::Checkerboard);
    sliced.field = Some(Transport::new(Along::Sliced { directions: 9 }));
    let mut sliced_features = with_features();
    sliced_features.classes.as_mut().unwrap().negatives = 0;
    sliced_features.field = Some(Transport::new(Along::Sliced { directions: 3 }));
    let mut sd_flow = along(Toy::Ring.into(), Velocity::Score, Kernel::Gaussian, 0.3);
    if let Some(Along::Kernel { noised, .. }) = sd_flow.field.as_mut().map(|field| &mut field.along) {
        *noised = true;
    }
    let mut sd_flow_halves = sd_flow.clone();
    (sd_flow.annealing, sd_flow_halves.independent) = (coulomb.annealing, true);
    let mut forward = divergence.clone();
    forward.independent = true;
    let mut projected = sd_flow_halves.clone();
    let points = Stream::new(8, Purpose::Data, 0).normals(2 * 90);
    let mut spec = FieldSpec::new(Kernel::Laplace, 0.4);
    spec.self_mask = true;
    let projection = Projection::among(&spec, (&points, [90, 2]), 40, 1).unwrap();
    projected.field = Some(Transport::new(Along::Projected(Arc::new(projection))));
    let projected_whole = Config { independent: false, ..projected.clone() };
    let mut ahead = coulomb.clone();
    ahead.lookahead = Some(Lookahead { weights: vec![1.0, 0.5, -0.25], step: 0.7 });
    let fields = [coulomb, sharp, classes, features, divergence, sliced, sliced_features];
    let more = [sd_flow, sd_flow_halves, forward, projected, projected_whole, ahead];
    let runs = toys.into_iter().chain(drifts).map(|config| (config, 20));
    for (config, steps) in runs.chain(fields.into_iter().chain(more).map(|config| (config, 6))) {
        let (reports, [host, device]) = together(&config, steps);
        for [want, got] in &reports {
            assert_eq!(want.step, got.step);
            for (want, got) in [(want.loss, got.loss), (want.loss_ema, got.loss_ema), (want.scale, got.scale)] {
                assert!((want - got).abs() <= 1e-4 * want.abs(), "{want} {got} in {reports:?}");
            }
        }
        let apart = apart(&host, &device);
        println!("loss {:?}, parameters apart by {apart:e}", reports[steps - 1]);
        assert!(apart <= 1e-3);
    }
}

/// A field from outside: the same function on either backend, and on the device one that works on its arrays in place.
#[test]
fn steps_along_fields_from_outside() {
    if device().is_none() {
        return;
    }
    let mut config = small(Toy::TwoMoons);
    config.field = Some(Transport { step: 0.3, normalize: true, ..Transport::new(Along::External) });
    let mut host = Trainer::new(config.clone()).unwrap();
    let mut on_device = Trainer::on(Device::new().unwrap(), config.clone()).unwrap();
    let mut in_place = Trainer::on(Device::new().unwrap(), config).unwrap();
    let towards =
        |samples: &[f32], data: &[f32]| -> Vec<f32> { samples.iter().zip(data).map(|(x, y)| y - x).collect() };
    for _ in 0..5 {
        host.step_along(|_, along| {
            along.velocity.copy_from_slice(&towards(along.samples, along.data));
            Ok(())
        })
        .unwrap();
        on_device
            .step_along(|device, along| {
                let [x, y] = [along.samples, along.data].map(|array| device.download(array, Device::len(array)));
                *along.velocity = device.upload("V", &towards(&x?, &y?))?;
                Ok(())
            })
            .unwrap();
        // y - x: V is all 0 before.
        in_place
            .step_along(|device, along| {
                let n = Device::len(along.samples);
                let x = along.samples.view(n)?;
                device.stream().memcpy_dtod(&x, &mut along.velocity.view_mut(n)?).unwrap();
                let less: Vec<f32> = device.download(along.velocity, n)?.iter().map(|v| -v).collect();
                *along.velocity = device.upload("V", &less)?;
                device.add(n, along.data, along.velocity)
            })
            .unwrap();
        let [want, got, other] = [host.report(), on_device.report(), in_place.report()].map(Result::unwrap);
        assert!((want.loss / got.loss - 1.0).abs() <= 1e-5 && want.scale == 1.0, "{want:?} {got:?}");
        assert_eq!((want.step, got), (got.step, other));
    }
    let models = [host.model(), on_device.model()].map(Result::unwrap);
    assert!(apart(&models[0], &models[1]) <= 1e-4);
    assert!(matches!(on_device.step(), Err(cudrift::Error::Value { .. })));

    // Between steps that are recorded, with another array in the place of the recorded one.
    let mut host = Trainer::new(small(Toy::Ring)).unwrap();
    let mut device = Trainer::on(Device::new().unwrap(), small(Toy::Ring)).unwrap();
    for step in 0..9 {
        if step % 4 == 3 {
            host.step_along(|_, along| {
                along.velocity.copy_from_slice(&towards(along.samples, along.data));
                Ok(())
            })
            .unwrap();
            let other = |device: &mut Device, along: External<'_, DeviceArray>| {
                let [x, y] = [along.samples, along.data].map(|array| device.download(array, Device::len(array)));
                *along.velocity = device.upload("V", &towards(&x?, &y?))?;
                Ok(())
            };
            device.step_along(other).unwrap();
        } else {
            host.step().unwrap();
            device.step().unwrap();
        }
        let [want, got] = [host.report(), device.report()].map(Result::unwrap);
        assert!((want.loss / got.loss - 1.0).abs() <= 1e-4, "{want:?} {got:?}");
    }
    assert!(apart(&host.model().unwrap(), &device.model().unwrap()) <= 1e-4);
}

/// From the second step on steps are recorded and replayed; those of a profile are not.
#[test]
fn replayed_steps_have_the_bits_of_eager_ones() {
    let Some(first) = open() else { return };
    let mut replayed = Trainer::on(first, small(Toy::SwissRoll)).unwrap();
    let mut eager = Trainer::on(Device::new().unwrap(), small(Toy::SwissRoll)).unwrap();
    eager.start_profile();
    for _ in 0..6 {
        replayed.step().unwrap();
        eager.step().unwrap();
        assert_eq!(replayed.report().unwrap(), eager.report().unwrap());
    }
    assert_eq!(bits(replayed.model().unwrap().parameters()), bits(eager.model().unwrap().parameters()));
    let profile = eager.profile().unwrap();
    assert!(profile.forward > 0.0 && profile.drift > 0.0 && replayed.profile().is_none());
}

#[test]
fn a_checkpoint_goes_on_on_either_backend() {
    let Some(first) = open() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let mut whole = Trainer::on(first, small(Toy::Ring)).unwrap();
    (0..5).for_each(|_| whole.step().unwrap());
    whole.save(&path("half")).unwrap();
    (0..4).for_each(|_| whole.step().unwrap());
    whole.save(&path("whole")).unwrap();

    let mut resumed = Trainer::load_on(Device::new().unwrap(), small(Toy::Ring), &path("half")).unwrap();
    assert_eq!(resumed.steps_done(), 5);
    (0..4).for_each(|_| resumed.step().unwrap());
    resumed.save(&path("resumed")).unwrap();
    assert!(std::fs::read(path("whole")).unwrap() == std::fs::read(path("resumed")).unwrap());

    let mut host = Trainer::load(small(Toy::Ring), &path("half")).unwrap();
    (0..4).for_each(|_| host.step().unwrap());
    let (want, got) = (host.report().unwrap(), whole.report().unwrap());
    assert!((want.loss - got.loss).abs() <= 1e-4 * want.loss, "{want:?} {got:?}");
}

#[test]
fn divergence_is_reported_and_loses_nothing() {
    let Some(first) = open() else { return };
    let mut config = small(Toy::Ring);
    config.optimizer.learning_rate = 1e30;
    let mut trainer = Trainer::on(first, config).unwrap();
    (0..20).for_each(|_| trainer.step().unwrap());
    let before = bits(trainer.model().unwrap().parameters());
    let error = trainer.report().unwrap_err();
    assert!(matches!(error, cudrift::Error::Diverged { step: 1..20, .. }), "{error}");
    trainer.step().unwrap();
    assert_eq!(before, bits(trainer.model().unwrap().parameters()));
    assert!(trainer.model().unwrap().parameters().iter().all(|v| v.is_finite()));
}

/// The calls of a run's steps, from the simulator's list.
#[test]
fn between_reports_a_step_is_one_launch_of_a_graph() {
    const NAME: &str = "between_reports_a_step_is_one_launch_of_a_graph";
    if !device().is_some_and(|gpu| gpu.simulated) {
        return;
    }
    let path = std::env::temp_dir().join(format!("cudrift-calls-{}", std::process::id()));
    let Some(written) = written_elsewhere(NAME, |child| {
        child.env("CUDRIFT_SIM_CALLS", &path);
    }) else {
        // This is the other process.
        let list = std::env::var_os("CUDRIFT_SIM_CALLS").unwrap();
        let mut trainer = Trainer::on(Device::new().unwrap(), Config { batch: 256, ..small(Toy::SwissRoll) }).unwrap();
        let mut seen = std::fs::read_to_string(&list).unwrap().lines().count();
        for step in 1..=4 {
            trainer.step().unwrap();
            let text = std::fs::read_to_string(&list).unwrap();
            let calls: Vec<&str> = text.lines().skip(seen).filter(|name| !name.starts_with("cuCtx")).collect();
            seen = text.lines().count();
            let count = |what: &str| calls.iter().filter(|name| **name == what).count();
            let (kernels, products) = (count("cuLaunchKernel"), count("library"));
            eprintln!("step {step}: {} calls, {kernels} kernels, {products} products", calls.len());
            let waits =
                |name: &&&str| name.contains("Synchronize") || name.contains("Query") || name.contains("Memcpy");
            assert_eq!(calls.iter().filter(waits).count(), 0, "{calls:?}");
            if step > 2 {
                assert_eq!(calls, ["cuGraphLaunch"], "step {step}");
            } else {
                // 3 draw; 3 follow products; 9 are the drift, 1 takes its loss; 2 + 2 go back; 3 update.
                assert_eq!((kernels, products), (23, 8), "{calls:?}");
            }
        }
        return;
    };
    print!("{written}");
    let _ = std::fs::remove_file(path);
}

/// Late streams, blocks and warps in other orders, watched memory and registers: the same bits, and no finding.
#[test]
fn steps_have_the_same_bits_under_every_schedule() {
    const NAME: &str = "steps_have_the_same_bits_under_every_schedule";
    if !device().is_some_and(|gpu| gpu.simulated) {
        return;
    }
    let settings: [&[(&str, &str)]; 5] = [
        &[],
        &[("CUDRIFT_SIM_STREAMS", "late"), ("CUDRIFT_SIM_ORDER", "descending")],
        &[("CUDRIFT_SIM_STREAMS", "5"), ("CUDRIFT_SIM_ORDER", "7")],
        &[("CUDRIFT_SIM_WITH", "global-race,registers"), ("CUDRIFT_SIM_LEAKS", "1")],
        &[("CUDRIFT_SIM_DEVICE", "sm_90"), ("CUDRIFT_SIM_ORDER", "11")],
    ];
    let mut seen = Vec::new();
    for setting in settings {
        let Some(written) = written_elsewhere(NAME, |child| {
            child.envs(setting.iter().copied());
        }) else {
            for config in [small(Toy::SwissRoll), with_classes()] {
                let mut trainer = Trainer::on(Device::new().unwrap(), config).unwrap();
                (0..4).for_each(|_| trainer.step().unwrap());
                eprintln!("parameters {:?}", bits(trainer.model().unwrap().parameters()));
            }
            return;
        };
        assert!(!written.contains("cudrift-sim"), "{setting:?}: {written}");
        let parameters: Vec<String> =
            written.lines().filter(|line| line.starts_with("parameters")).map(str::to_owned).collect();
        assert_eq!(parameters.len(), 2);
        seen.push(parameters);
    }
    assert!(seen.iter().all(|parameters| *parameters == seen[0]));
}

/// The n-th allocation, copy, launch, kernel, module or object fails: a typed error or none, no panic, no leak report of a
/// context that goes on.
#[test]
fn failing_calls_are_typed_errors() {
    const NAME: &str = "failing_calls_are_typed_errors";
    if !device().is_some_and(|gpu| gpu.simulated) {
        return;
    }
    let mut failed = 0;
    for (kind, counts) in [
        ("alloc", &[1, 2, 5, 20, 39][..]),
        ("copy", &[1, 4, 9, 20]),
        ("launch", &[1, 2, 10, 24, 40]),
        ("kernel", &[1, 3, 20, 33, 70]),
        ("module", &[1]),
        ("object", &[1, 2, 3]),
    ] {
        for count in counts {
            let Some(written) = written_elsewhere(NAME, |child| {
                child.env("CUDRIFT_SIM_FAIL", format!("{kind}:{count}"));
            }) else {
                let run = || {
                    let mut trainer = Trainer::on(Device::new()?, with_classes())?;
                    (0..4).try_for_each(|_| trainer.step())?;
                    trainer.report()?;
                    trainer.model().map(drop)
                };
                match run() {
                    Ok(()) => eprintln!("fine"),
                    Err(
                        error @ (cudrift::Error::Device { .. }
                        | cudrift::Error::DeviceMemory { .. }
                        | cudrift::Error::Cublas { .. }
                        | cudrift::Error::NoKernels { .. }
                        | cudrift::Error::NoDevice { .. }),
                    ) => eprintln!("failed: {error}"),
                    Err(error) => panic!("{error}"),
                }
                return;
            };
            failed += usize::from(written.contains("failed: "));
            println!("{kind}:{count} {written}");
        }
    }
    assert!(failed >= 15, "{failed} calls failed");
}

#[test]
fn a_missing_cublas_is_a_typed_error() {
    if !device().is_some_and(|gpu| gpu.simulated) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let other = elsewhere("a_missing_cublas_is_a_typed_error", |child| {
        // The driver alone, in another folder.
        let path = std::env::var("LD_LIBRARY_PATH").unwrap_or_default();
        let driver = path.split(':').map(|f| std::path::Path::new(f).join("libcuda.so")).find(|p| p.exists()).unwrap();
        std::os::unix::fs::symlink(driver.canonicalize().unwrap(), folder.path().join("libcuda.so")).unwrap();
        child.env("LD_LIBRARY_PATH", folder.path()).env("CUDRIFT_TEST_CUBLAS", "none");
    });
    if !other && std::env::var_os("CUDRIFT_TEST_CUBLAS").is_some() {
        let error = Device::new().unwrap_err();
        assert!(matches!(error, cudrift::Error::LibraryMissing { library: "libcublas.so", .. }), "{error}");
        println!("{error}");
    }
}
