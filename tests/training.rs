//! Training: it learns, goes on from checkpoints bit for bit, and refuses what cannot be.
#![allow(clippy::unwrap_used)]

mod common;

use cudrift::backend::{Backend, Head, Progress};
use cudrift::cpu::Host;
use cudrift::data::{Data, Toy};
use cudrift::generator::Mlp;
use cudrift::rng::{Purpose, Stream};
use cudrift::train::{Along, Annealing, Classes, Config, External, Lookahead, Optimizer, Step, Trainer, Transport};
use cudrift::{
    Coupling, DriftInputs, DriftShape, DriftSpec, Error, FieldInputs, FieldSpec, Form, Kernel, Points, Projection,
    Sinkhorn, Velocity, WeightRule, cpu, reference,
};
use std::path::Path;
use std::sync::Arc;

fn small(toy: Toy) -> Config {
    let mut config = Config::notebook(toy);
    (config.batch, config.hidden, config.noise_dim) = (96, vec![24, 16], 6);
    config
}

fn stepped(trainer: &mut Trainer) -> Step {
    trainer.step().unwrap();
    trainer.report().unwrap()
}

fn bits(model: &Mlp) -> Vec<u32> {
    model.parameters().iter().map(|v| v.to_bits()).collect()
}

/// The notebook's first 200 steps: the averaged loss and the distance of the independent re-run in spec 10.2.
#[test]
fn the_first_steps_follow_the_published_curve() {
    let mut trainer = Trainer::new(Config::notebook(Toy::SwissRoll)).unwrap();
    let [before, _] = trainer.evaluate(2048, 200).unwrap();
    for _ in 0..200 {
        trainer.step().unwrap();
    }
    let [after, _] = trainer.evaluate(2048, 200).unwrap();
    let loss = trainer.report().unwrap().loss_ema;
    println!("loss {loss:e}, SWD {before} -> {after}");
    assert!((3.0e-4..=4.4e-4).contains(&loss), "step 200: {loss:e}, published 3.67e-4");
    assert!(before >= 0.2 && after <= 0.06, "SWD {before} -> {after}");
}

fn full_run(toy: Toy, low: f64, high: f64) {
    let mut trainer = Trainer::new(Config::notebook(toy)).unwrap();
    for _ in 0..2000 {
        trainer.step().unwrap();
    }
    let loss = trainer.report().unwrap().loss_ema;
    let [swd, _] = trainer.evaluate(2048, 200).unwrap();
    println!("{}: loss {loss:e}, SWD {swd}", toy.name());
    assert!((low..=high).contains(&loss), "{}: loss {loss:e} outside {low:e} to {high:e}", toy.name());
    assert!(swd <= 0.04, "{}: SWD {swd}", toy.name());
}

#[test]
#[ignore = "two minutes; cargo xtask test --full runs it"]
fn the_swiss_roll_is_learned() {
    full_run(Toy::SwissRoll, 1.2e-5, 2.2e-5);
}

#[test]
#[ignore = "two minutes; cargo xtask test --full runs it"]
fn the_checkerboard_is_learned() {
    full_run(Toy::Checkerboard, 2.5e-5, 4.5e-5);
}

#[test]
fn every_distribution_and_kernel_trains() {
    for (toy, kernel, temperature) in [
        (Toy::TwoMoons, Kernel::Laplace, 0.05),
        (Toy::Ring, Kernel::Laplace, 0.05),
        (Toy::SwissRoll, Kernel::Gaussian, 0.07),
        (Toy::Checkerboard, Kernel::Gaussian, 0.07),
        (Toy::TwoMoons, Kernel::Matern32, 0.07),
        (Toy::Ring, Kernel::Matern52, 0.07),
    ] {
        let mut config = Config::notebook(toy);
        config.spec.kernel = kernel;
        config.spec.temperatures = vec![temperature];
        config.batch = 512;
        let mut trainer = Trainer::new(config).unwrap();
        let [before, _] = trainer.evaluate(2048, 100).unwrap();
        for _ in 0..300 {
            trainer.step().unwrap();
        }
        let [after, _] = trainer.evaluate(2048, 100).unwrap();
        println!("{} with {kernel}: SWD {before:.3} -> {after:.3}", toy.name());
        assert!(after <= 0.1 && after <= 0.35 * before, "{} with {kernel}: {before} -> {after}", toy.name());
    }
}

fn along(velocity: Velocity, kernel: Kernel, bandwidth: f64) -> Transport {
    let spec = masked(kernel, bandwidth);
    Transport::new(Along::Kernel { spec, velocity, noised: false })
}

/// A step along a field has the loss `mean |step V|²` and the gradient `-2 step V / (n D)`, each group by itself.
#[test]
fn gradients_along_fields() {
    let shape = DriftShape { groups: 2, generated: 7, negatives: 0, positives: 9, dim: 3 };
    let draw = |seed: u64, n: usize| Stream::new(seed, Purpose::Data, 0).normals(n);
    let (x, p) = (draw(1, 2 * 7 * 3), draw(2, 2 * 9 * 3));
    for velocity in [Velocity::MeanShift, Velocity::Mmd, Velocity::ForwardKl { most: 0.5 }] {
        let mut field = along(velocity, Kernel::Laplace, 0.8);
        let mut whole = Vec::new();
        for (x, p) in x.chunks(21).zip(p.chunks(27)) {
            let wide = |set: &[f32]| set.iter().map(|v| f64::from(*v)).collect::<Vec<_>>();
            let (x, p) = (wide(x), wide(p));
            let inputs = FieldInputs::new((&x, [7, 3]), (&p, [9, 3]), (&x, [7, 3])).unwrap();
            let mut spec = FieldSpec::new(Kernel::Laplace, 0.8);
            spec.self_mask = true;
            whole.extend(reference::field(&spec, &inputs).unwrap().velocity(velocity).unwrap());
        }
        let mean = whole.iter().map(|v| v * v).sum::<f64>() / 42.0;
        for (step, normalize) in [(1.0, false), (-0.5, false), (3.0, true)] {
            (field.step, field.normalize) = (step, normalize);
            let unit = if normalize { step / mean.sqrt() } else { step };
            let mut host = Host::new();
            let mut drift = host.field(&field, &[shape], 0).unwrap();
            let (mut gradient, mut progress) = (vec![0.0f32; 42], Progress::new(0, f64::NAN));
            let negatives = [&vec![], &vec![]];
            let head = Head { generated: &x, positives: &p, negatives, own: None, gradient: &mut gradient };
            host.gradient(&mut drift, &mut [head], &mut progress).unwrap();
            let want: Vec<f64> = whole.iter().map(|v| -2.0 * unit * v / 42.0).collect();
            common::check(&format!("{velocity:?}"), common::relative_error(&gradient, &want), 5e-6);
            common::check("loss", (progress.loss / (unit * unit * mean) - 1.0).abs(), 5e-6);
            assert_eq!(progress.scale, 1.0);
        }
    }
}

/// What of the fields trains in the plane, with bandwidths that fall.
fn trains_along(field: Transport) {
    let mut config = Config::notebook(Toy::TwoMoons);
    if matches!(field.along, Along::Kernel { .. }) {
        config.annealing = Some(Annealing { rate: 1e-3, least: 0.9 });
    }
    config.field = Some(field);
    trains(config);
}

/// Whether 200 steps of 256 bring a generator to the two moons.
fn trains(mut config: Config) {
    config.batch = 256;
    let what = format!("{:?} {:?} {}", config.field, config.lookahead, config.independent);
    let what: String = what.chars().take(150).collect();
    let mut trainer = Trainer::new(config).unwrap();
    let [before, _] = trainer.evaluate(2048, 100).unwrap();
    for _ in 0..200 {
        trainer.step().unwrap();
    }
    let [after, _] = trainer.evaluate(2048, 100).unwrap();
    println!("{what}: SWD {before:.3} -> {after:.3}");
    assert!(after <= 0.12, "{what}: {before} -> {after}");
}

#[test]
fn two_fields_train() {
    trains_along(along(Velocity::Mmd, Kernel::Plummer, 0.2));
    trains_along(Transport::new(Along::Sliced { directions: 50 }));
}

#[test]
#[ignore = "a minute; cargo xtask test --full runs it"]
fn the_other_fields_train() {
    trains_along(along(Velocity::MeanShift, Kernel::Gaussian, 0.2));
    trains_along(along(Velocity::Score, Kernel::Gaussian, 0.2));
    trains_along(along(Velocity::Sharp, Kernel::Laplace, 0.1));
    trains_along(along(Velocity::ForwardKl { most: 5.0 }, Kernel::Gaussian, 0.3));
    trains_along(along(Velocity::ChiSquared { most: 5.0 }, Kernel::Gaussian, 0.3));
    let sd_flow = masked(Kernel::Gaussian, 0.2);
    trains_along(Transport::new(Along::Kernel { spec: sd_flow, velocity: Velocity::Score, noised: true }));
    let mut w_flow = Config::notebook(Toy::TwoMoons);
    w_flow.spec = w_flow.spec.coupled(Coupling::Sinkhorn(Sinkhorn::new(20)), Form::Split);
    (w_flow.spec.kernel, w_flow.spec.temperatures) = (Kernel::Gaussian, vec![0.1]);
    (w_flow.spec.weights, w_flow.independent) = (WeightRule::Logit, true);
    trains(w_flow);
    let mut ahead = Config::notebook(Toy::TwoMoons);
    ahead.lookahead = Some(Lookahead { weights: vec![1.0, 1.0], step: 1.0 });
    trains(ahead);
}

/// A kernel where a sample is left out of its own set.
fn masked(kernel: Kernel, bandwidth: f64) -> FieldSpec {
    let mut spec = FieldSpec::new(kernel, bandwidth);
    spec.self_mask = true;
    spec
}

#[test]
fn the_projected_field_trains() {
    let data = Toy::TwoMoons.sample(&mut Stream::new(5, Purpose::Data, 0), 2000);
    let spec = masked(Kernel::Laplace, 0.1);
    let projection = Projection::among(&spec, (&data, [2000, 2]), 200, 1).unwrap();
    trains_along(Transport::new(Along::Projected(Arc::new(projection))));
}

/// The samples of the first step and the data beside them.
fn first_step(config: &Config) -> [Vec<f64>; 2] {
    let mut seen = [Vec::new(), Vec::new()];
    let config = Config { field: Some(Transport::new(Along::External)), independent: false, ..config.clone() };
    let step = |_: &mut Host, along: External<'_, Vec<f32>>| {
        let wide = |values: &[f32]| values.iter().map(|v| f64::from(*v)).collect();
        seen = [wide(along.samples), wide(along.data)];
        Ok(())
    };
    Trainer::new(config).unwrap().step_along(step).unwrap();
    seen
}

fn mean_square(values: &[f64]) -> f64 {
    values.iter().map(|v| v * v).sum::<f64>() / values.len() as f64
}

/// With independent halves each has the other's samples for q; with noise, V is taken there.
#[test]
fn losses_of_halves_and_of_noise() {
    let mut config = small(Toy::Ring);
    let tau = 0.4;
    let [x, p] = first_step(&config);
    let half = x.len() / 2;
    let spec = masked(Kernel::Gaussian, tau);
    let noise = Stream::new(config.seed, Purpose::Queries, 1).normals(x.len());
    let moved: Vec<f64> = x.iter().zip(&noise).map(|(x, e)| x + tau * f64::from(*e)).collect();
    for (noised, independent) in [(true, false), (false, true), (true, true)] {
        let velocity = Velocity::Score;
        let shape = |set: &[f64]| [set.len() / 2, 2];
        let queries = if noised { &moved } else { &x };
        let of = |x: &[f64], p: &[f64], q: &[f64]| {
            let mut spec = spec;
            spec.self_mask = !independent;
            let inputs = FieldInputs::new((x, shape(x)), (p, shape(p)), (q, shape(q))).unwrap();
            reference::field(&spec, &inputs).unwrap().velocity(velocity).unwrap()
        };
        let want = if independent {
            [of(&queries[..half], &p[..half], &x[half..]), of(&queries[half..], &p[half..], &x[..half])].concat()
        } else {
            of(queries, &p, &x)
        };
        config.field = Some(Transport::new(Along::Kernel { spec, velocity, noised }));
        config.independent = independent;
        let loss = stepped(&mut Trainer::new(config.clone()).unwrap()).loss;
        common::check(&format!("{noised} {independent}"), (loss / mean_square(&want) - 1.0).abs(), 1e-5);
    }
    // The softmax over targets in the split form is the mean shift: a drift and a field with the same halves.
    let spec = masked(Kernel::Laplace, tau);
    let shift = Along::Kernel { spec, velocity: Velocity::MeanShift, noised: false };
    let field = Config { field: Some(Transport::new(shift)), independent: true, ..small(Toy::Ring) };
    let mut drift = Config { independent: true, ..small(Toy::Ring) };
    drift.spec = drift.spec.coupled(Coupling::Row, Form::Split);
    (drift.spec.temperatures, drift.spec.weights) = (vec![tau], WeightRule::Logit);
    let [mut field, mut drift] = [field, drift].map(|config| Trainer::new(config).unwrap());
    for _ in 0..5 {
        let [field, drift] = [&mut field, &mut drift].map(|trainer| stepped(trainer).loss);
        common::check("the drift is the field", (field / drift - 1.0).abs(), 1e-5);
    }
}

/// With one term lookahead is the drift; with several, the sum of drifts of spec 8.2 by hand, in units of the scale too.
#[test]
fn lookahead_by_hand() {
    let mut plain = Trainer::new(small(Toy::SwissRoll)).unwrap();
    let ahead = Lookahead { weights: vec![1.0], step: 0.3 };
    let mut one = Trainer::new(Config { lookahead: Some(ahead), ..small(Toy::SwissRoll) }).unwrap();
    for _ in 0..5 {
        let [plain, one] = [stepped(&mut plain), stepped(&mut one)];
        common::check("the loss of one term", (plain.loss / one.loss - 1.0).abs(), 1e-6);
    }
    assert_eq!(bits(&plain.model().unwrap()), bits(&one.model().unwrap()));

    let shape = DriftShape { groups: 2, generated: 7, negatives: 3, positives: 9, dim: 4 };
    let draw = |seed: u64, n: usize| Stream::new(seed, Purpose::Data, 0).normals(2 * n * 4);
    let (x, n, p) = (draw(1, 7), draw(2, 3), draw(3, 9));
    let lookahead = Lookahead { weights: vec![0.8, 0.5, -0.3], step: 0.6 };
    for spec in [DriftSpec::official(), DriftSpec::paper(), DriftSpec::notebook()] {
        let mut spec = spec;
        spec.temperatures = vec![0.5, 0.3];
        let wide = |set: &[f32]| set.iter().map(|v| f64::from(*v)).collect::<Vec<_>>();
        let (mut moved, n64, p64) = (wide(&x), wide(&n), wide(&p));
        let (mut sum, mut first, mut unit) = (vec![0.0; moved.len()], 0.0, 0.0);
        for (m, weight) in lookahead.weights.iter().enumerate() {
            let points = |set, count| Points::new(set, [2, count, 4]).unwrap();
            let inputs = DriftInputs::new(points(&moved, 7), points(&p64, 9)).unwrap();
            let drift = reference::drift(&spec, &inputs.negatives(points(&n64, 3)).unwrap()).unwrap();
            let v: Vec<f64> = drift.force.iter().map(|f| f * drift.scale.sigma).collect();
            let length = mean_square(&v).sqrt();
            if m == 0 {
                (first, unit) = (length, drift.scale.sigma);
            }
            for ((sum, moved), v) in sum.iter_mut().zip(&mut moved).zip(&v) {
                *sum += weight * v * first / length;
                *moved += lookahead.step * v * first / length;
            }
        }
        let want: Vec<f64> = sum.iter().map(|v| -2.0 * v / (sum.len() as f64 * unit * unit)).collect();
        let mut host = Host::new();
        let mut drift = host.drift(&spec, &[shape]).unwrap();
        host.look_ahead(&mut drift, &lookahead).unwrap();
        let (mut gradient, mut progress) = (vec![0.0f32; x.len()], Progress::new(0, f64::NAN));
        let ones = vec![1.0; 6];
        let head = Head { generated: &x, positives: &p, negatives: [&n, &ones], own: None, gradient: &mut gradient };
        host.gradient(&mut drift, &mut [head], &mut progress).unwrap();
        common::check("the gradient ahead", common::relative_error(&gradient, &want), 2e-5);
        common::check("its loss", (progress.loss * unit * unit / mean_square(&sum) - 1.0).abs(), 2e-5);
    }
}

/// A field from outside that is one of ours is a run along it, bit for bit.
#[test]
fn steps_along_fields_from_outside() {
    let mut config = small(Toy::TwoMoons);
    let spec = masked(Kernel::Gaussian, 0.3);
    let own = Along::Kernel { spec, velocity: Velocity::Mmd, noised: false };
    config.field = Some(Transport { step: 0.5, normalize: true, ..Transport::new(own) });
    let mut inside = Trainer::new(config.clone()).unwrap();
    config.field.as_mut().unwrap().along = Along::External;
    let mut outside = Trainer::new(config.clone()).unwrap();
    outside.start_profile();
    for _ in 0..4 {
        inside.step().unwrap();
        outside
            .step_along(|_, along| {
                assert!(along.velocity.iter().all(|v| *v == 0.0));
                let shape = [along.samples.len() / 2, 2];
                let (x, p) = ((&along.samples[..], shape), (&along.data[..], shape));
                let field = cpu::field(&spec, &FieldInputs::new(x, p, x)?)?;
                along.velocity.copy_from_slice(&field.velocity(Velocity::Mmd)?);
                Ok(())
            })
            .unwrap();
        assert_eq!(inside.report().unwrap(), outside.report().unwrap());
    }
    assert_eq!(bits(&inside.model().unwrap()), bits(&outside.model().unwrap()));
    assert!(outside.profile().unwrap().drift > 0.0);
    let refusal = || Error::Value {
        op: "the teacher",
        argument: "x",
        expected: "where there is a score".to_owned(),
        got: "elsewhere".to_owned(),
    };
    // What the field refuses comes through, and nothing has changed; steps without one are refused.
    let refused = outside.step_along(|_, _| Err(refusal()));
    assert!(matches!(refused, Err(Error::Value { .. })) && outside.steps_done() == 4);
    assert!(matches!(outside.step(), Err(Error::Value { .. })));
    assert!(matches!(
        outside.step_along(|_, along| {
            along.velocity[0] = f32::NAN;
            Ok(())
        }),
        Err(Error::Diverged { .. })
    ));
    for len in [0, 7] {
        let refused = outside.step_along(|_, along| {
            *along.velocity = vec![0.0; len];
            Ok(())
        });
        assert!(matches!(refused, Err(Error::Shape { .. })));
    }
    outside.step_along(|_, _| Ok(())).unwrap();
    config.features.push(cudrift::features::Feature::Fourier { count: 4, bandwidth: 1.0 });
    assert!(matches!(Trainer::new(config.clone()), Err(Error::Value { .. })));
    config.field = None;
    let mut drift = Trainer::new(config).unwrap();
    assert!(matches!(drift.step_along(|_, _| Ok(())), Err(Error::Value { .. })));
}

#[test]
fn combinations_that_cannot_be() {
    let refused = |change: &dyn Fn(&mut Config)| {
        let mut config = small(Toy::Ring);
        config.spec.weights = WeightRule::Logit;
        change(&mut config);
        assert!(matches!(Trainer::new(config), Err(Error::Value { .. } | Error::Shape { .. })));
    };
    let lookahead = |weights: &[f64], step: f64| Some(Lookahead { weights: weights.to_vec(), step });
    refused(&|config| (config.independent, config.spec.weights) = (true, WeightRule::Affinity));
    refused(&|config| (config.independent, config.batch) = (true, 95));
    refused(&|config| (config.independent, config.batch) = (true, 2));
    refused(&|config| (config.independent, config.lookahead) = (true, lookahead(&[1.0, 1.0], 1.0)));
    let sliced = || Some(Transport::new(Along::Sliced { directions: 3 }));
    refused(&|config| (config.independent, config.field) = (true, sliced()));
    refused(&|config| config.lookahead = lookahead(&[], 1.0));
    refused(&|config| config.lookahead = lookahead(&[1.0, f64::NAN], 1.0));
    refused(&|config| config.lookahead = lookahead(&[1.0, 1.0], f64::INFINITY));
    let outside = || Some(Transport::new(Along::External));
    refused(&|config| (config.field, config.lookahead) = (outside(), lookahead(&[1.0, 1.0], 1.0)));
    let fourier = || cudrift::features::Feature::Fourier { count: 4, bandwidth: 1.0 };
    refused(&|config| (config.features, config.lookahead) = (vec![fourier(), fourier()], lookahead(&[1.0, 1.0], 1.0)));
    // Landmarks of other coordinates.
    let of_three =
        Projection::new(&masked(Kernel::Gaussian, 1.0), (&[0.0; 3], [1, 3]), (&[0.0; 3], [1, 3]), 1e-4).unwrap();
    refused(&|config| config.field = Some(Transport::new(Along::Projected(Arc::new(of_three.clone())))));
    let of_two =
        Projection::new(&masked(Kernel::Gaussian, 1.0), (&[0.0; 2], [1, 2]), (&[0.0; 2], [1, 2]), 1e-4).unwrap();
    refused(&|config| {
        config.field = Some(Transport::new(Along::Projected(Arc::new(of_two.clone()))));
        config.features = vec![cudrift::features::Feature::Fourier { count: 2, bandwidth: 1.0 }];
    });
    refused(&|config| {
        config.field = outside();
        config.annealing = Some(Annealing { rate: 0.1, least: 0.5 });
    });
}

#[test]
fn fields_that_cannot_be() {
    for field in [
        along(Velocity::Score, Kernel::Gaussian, f64::NAN),
        along(Velocity::ForwardKl { most: -1.0 }, Kernel::Gaussian, 1.0),
        Transport::new(Along::Sliced { directions: 0 }),
        Transport { step: 0.0, ..along(Velocity::Score, Kernel::Gaussian, 1.0) },
        Transport { step: f64::INFINITY, ..along(Velocity::Score, Kernel::Gaussian, 1.0) },
    ] {
        let mut config = small(Toy::Ring);
        config.field = Some(field.clone());
        assert!(matches!(Trainer::new(config), Err(Error::Value { .. })), "{field:?}");
    }
    for (generated, negatives) in [(1, 0), (4, 2)] {
        let points = Stream::new(3, Purpose::Data, 0).normals(40);
        let labels: Vec<usize> = (0..20).map(|k| k % 2).collect();
        let mut config = Config { data: Data::labelled(points, [20, 2], &labels).unwrap(), ..small(Toy::Ring) };
        let mut classes = Classes::default();
        (classes.labels, classes.generated, classes.negatives) = (1, generated, negatives);
        (config.classes, config.field) = (Some(classes), Some(along(Velocity::Score, Kernel::Gaussian, 1.0)));
        let refused = Trainer::new(config).map(|_| ()).unwrap_err().to_string();
        assert!(refused.contains(if negatives > 0 { "negatives" } else { "at least 2" }), "{refused}");
    }
    let mut config = small(Toy::Ring);
    config.field = Some(Transport::new(Along::Sliced { directions: 5 }));
    config.annealing = Some(Annealing { rate: 0.1, least: 0.5 });
    assert!(matches!(Trainer::new(config), Err(Error::Value { .. })));
}

/// Temperatures that do not fall are those of a run without annealing; those that fall are a number's of each step.
#[test]
fn annealed_temperatures() {
    let run = |annealing: Option<Annealing>, temperature: f64, steps: usize| {
        let mut config = small(Toy::Ring);
        (config.annealing, config.spec.temperatures) = (annealing, vec![temperature]);
        let mut trainer = Trainer::new(config).unwrap();
        (0..steps).map(|_| stepped(&mut trainer)).collect::<Vec<_>>()
    };
    assert_eq!(run(Some(Annealing { rate: 0.0, least: 0.5 }), 0.2, 5), run(None, 0.2, 5));
    assert_eq!(run(Some(Annealing { rate: 3.0, least: 1.0 }), 0.2, 5), run(None, 0.2, 5));
    let fallen = run(Some(Annealing { rate: 0.7, least: 0.1 }), 0.2, 5);
    let whole = run(None, 0.2, 5);
    assert_eq!(fallen[0], whole[0]);
    assert_ne!(fallen[1].loss, whole[1].loss);
    let annealing = Annealing { rate: 0.7, least: 0.1 };
    assert_eq!(annealing.factor(1), 1.0);
    assert!((annealing.factor(3) - (-1.4f64).exp()).abs() <= 1e-15 && annealing.factor(1000) == 0.1);
    for (rate, least) in [(-1.0, 0.5), (f64::NAN, 0.5), (1.0, 0.0), (1.0, 1.5)] {
        let mut config = small(Toy::Ring);
        config.annealing = Some(Annealing { rate, least });
        assert!(matches!(Trainer::new(config), Err(Error::Value { .. })));
    }
}

#[test]
fn the_paper_preset_trains_with_adamw() {
    let mut config = Config::notebook(Toy::Ring);
    config.batch = 256;
    config.spec = DriftSpec::paper();
    config.optimizer = Optimizer::official();
    (config.optimizer.learning_rate, config.optimizer.warmup) = (1e-3, 20);
    let mut trainer = Trainer::new(config).unwrap();
    let [before, _] = trainer.evaluate(1024, 100).unwrap();
    for _ in 0..250 {
        trainer.step().unwrap();
    }
    let [after, _] = trainer.evaluate(1024, 100).unwrap();
    println!("SWD {before:.3} -> {after:.3}");
    assert!(after <= 0.35 * before, "{before} -> {after}");
    assert!(trainer.averaged_model().unwrap().parameters() != trainer.model().unwrap().parameters());
}

#[test]
fn the_official_preset_has_fields_of_unit_mean_square() {
    let mut config = small(Toy::Ring);
    config.spec = DriftSpec::official();
    let mut trainer = Trainer::new(config).unwrap();
    for _ in 0..20 {
        let report = stepped(&mut trainer);
        // Three fields of mean square 1 each: between 3 where they are unrelated and 9 where they agree (spec 2.3).
        assert!((1.0..=9.0).contains(&report.loss), "{report:?}");
        assert!(report.grad_norm.is_finite() && report.scale > 0.0);
    }
}

#[test]
fn a_resumed_run_is_the_uninterrupted_one_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    let mut whole = Trainer::new(small(Toy::SwissRoll)).unwrap();
    let reports: Vec<_> = (0..12).map(|_| stepped(&mut whole)).collect();
    let mut first = Trainer::new(small(Toy::SwissRoll)).unwrap();
    for _ in 0..5 {
        first.step().unwrap();
    }
    first.save(&path).unwrap();
    let mut second = Trainer::load(small(Toy::SwissRoll), &path).unwrap();
    assert_eq!(second.steps_done(), 5);
    for want in &reports[5..] {
        assert_eq!(stepped(&mut second), *want);
    }
    assert_eq!(bits(&second.model().unwrap()), bits(&whole.model().unwrap()));
    assert_eq!(bits(&second.averaged_model().unwrap()), bits(&whole.averaged_model().unwrap()));
    // and the files are the same, byte for byte
    let (a, b) = (folder.path().join("a"), folder.path().join("b"));
    whole.save(&a).unwrap();
    second.save(&b).unwrap();
    assert!(std::fs::read(a).unwrap() == std::fs::read(b).unwrap());
}

#[test]
fn threads_do_not_change_a_training_step() {
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut config = Config::notebook(Toy::Checkerboard);
            config.batch = 700;
            let mut trainer = Trainer::new(config).unwrap();
            let reports: Vec<_> = (0..3).map(|_| stepped(&mut trainer)).collect();
            (bits(&trainer.model().unwrap()), reports)
        })
    };
    let one = run(1);
    for threads in [2, 5] {
        assert!(run(threads) == one, "{threads} threads");
    }
}

#[test]
fn a_generator_is_read_back_as_it_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("generator.safetensors");
    let model = Mlp::new(&[5, 8, 3], 1).unwrap();
    model.save(&path).unwrap();
    assert_eq!(Mlp::load(&path).unwrap(), model);
    let noise = vec![0.5; 10];
    assert_eq!(Mlp::load(&path).unwrap().forward(&noise).unwrap(), model.forward(&noise).unwrap());
    // nothing but the file itself is left behind
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

fn format_error(result: Result<Trainer, Error>) -> String {
    match result {
        Err(error @ Error::Format { .. }) => error.to_string(),
        other => panic!("expected a format error, got {other:?}"),
    }
}

#[test]
fn foreign_checkpoints_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    let mut trainer = Trainer::new(small(Toy::Ring)).unwrap();
    trainer.step().unwrap();
    trainer.save(&path).unwrap();

    let mut other = small(Toy::Ring);
    other.hidden = vec![24, 17];
    assert!(format_error(Trainer::load(other, &path)).contains("layer sizes"));
    let mut other = small(Toy::Ring);
    other.seed = 43;
    assert!(format_error(Trainer::load(other, &path)).contains("seed"));

    trainer.model().unwrap().save(&path).unwrap();
    assert!(format_error(Trainer::load(small(Toy::Ring), &path)).contains("not a checkpoint"));
    assert!(matches!(
        Trainer::load(small(Toy::Ring), Path::new("/nonexistent/checkpoint")),
        Err(Error::Io { op: "read", .. })
    ));

    // Every truncation of a good file is refused, and so is a file with its header's length turned absurd.
    trainer.save(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    for keep in [0, 1, 7, 8, 9, 100, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..keep]).unwrap();
        assert!(format_error(Trainer::load(small(Toy::Ring), &path)).contains("not a whole"), "{keep} bytes");
        assert!(matches!(Mlp::load(&path), Err(Error::Format { .. })));
    }
    let mut absurd = bytes.clone();
    absurd[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    std::fs::write(&path, &absurd).unwrap();
    format_error(Trainer::load(small(Toy::Ring), &path));

    std::fs::write(&path, &bytes).unwrap();
    match Mlp::load(&path) {
        Err(error) => assert!(error.to_string().contains("looks like a checkpoint"), "{error}"),
        Ok(_) => panic!("a checkpoint was taken for a generator"),
    }
}

#[test]
fn impossible_configurations_are_typed_errors() {
    let refused = |change: fn(&mut Config)| {
        let mut config = small(Toy::Ring);
        change(&mut config);
        assert!(matches!(Trainer::new(config), Err(Error::Value { .. } | Error::TooLarge { .. })));
    };
    refused(|c| c.batch = 0);
    refused(|c| c.batch = 1);
    refused(|c| c.batch = usize::MAX / 2);
    refused(|c| c.noise_dim = 0);
    refused(|c| c.hidden = vec![0]);
    refused(|c| c.hidden = vec![usize::MAX, usize::MAX]);
    refused(|c| c.optimizer.learning_rate = f64::NAN);
    refused(|c| c.spec.temperatures = vec![-0.05]);

    assert!(matches!(Data::points(vec![1.0; 6], [4, 2]), Err(Error::Shape { .. })));
    assert!(matches!(Data::points(vec![], [0, 2]), Err(Error::Value { .. })));
    assert!(matches!(Data::points(vec![1.0, f32::NAN], [1, 2]), Err(Error::Value { .. })));
}

#[test]
fn divergence_is_reported_and_loses_nothing() {
    let mut config = small(Toy::Ring);
    config.optimizer.learning_rate = 1e30;
    let mut trainer = Trainer::new(config).unwrap();
    let error = loop {
        let before = bits(&trainer.model().unwrap());
        match trainer.step() {
            Ok(()) => assert!(trainer.steps_done() < 50, "1e30 ought to diverge"),
            Err(error) => {
                assert_eq!(before, bits(&trainer.model().unwrap()));
                break error;
            }
        }
    };
    assert!(matches!(error, Error::Diverged { .. }), "{error}");
}

/// Any dimension of user's points, through the same trainer.
#[test]
fn points_of_any_dimension() {
    for dim in [1, 3, 20] {
        let values: Vec<f32> = (0..300 * dim).map(|k| ((k * 7919) % 1000) as f32 / 500.0 - 1.0).collect();
        let mut config = small(Toy::Ring);
        config.data = Data::points(values, [300, dim]).unwrap();
        config.spec.temperatures = vec![0.05 * (dim as f64).sqrt()];
        let mut trainer = Trainer::new(config).unwrap();
        let [before, _] = trainer.evaluate(512, 50).unwrap();
        for _ in 0..100 {
            trainer.step().unwrap();
        }
        let [after, _] = trainer.evaluate(512, 50).unwrap();
        assert!(after < before, "D = {dim}: {before} -> {after}");
    }
}
