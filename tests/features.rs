//! Features on the CPU, against their definitions; training on them; encoders.
#![allow(clippy::unwrap_used)]

#[path = "common/features.rs"]
mod common;

use cudrift::classifier::{Classifier, Options};
use cudrift::cpu::Host;
use cudrift::data::{Data, Toy};
use cudrift::features::{Encoder, Feature, FeaturePass, Patches};
use cudrift::generator::{Architecture, Mlp};
use cudrift::rng::{Purpose, Stream};
use cudrift::train::{Config, Trainer};
use cudrift::{DriftShape, Error};

#[test]
fn features_are_those_of_their_definitions() {
    common::check(&mut Host::new());
}

/// Without the identity nothing but the other heads says where samples go, and they do.
#[test]
fn a_run_learns_from_features_alone() {
    let mut config = Config::notebook(Toy::Ring);
    (config.batch, config.hidden) = (256, vec![64; 2]);
    config.features = vec![Feature::Fourier { count: 256, bandwidth: 0.4 }];
    config.spec.temperatures = vec![0.1];
    let mut trainer = Trainer::new(config).unwrap();
    let before = trainer.evaluate(1024, 64).unwrap()[0];
    (0..400).for_each(|_| trainer.step().unwrap());
    let after = trainer.evaluate(1024, 64).unwrap()[0];
    println!("SWD {before} to {after}");
    assert!(after <= 0.4 * before, "{before} {after}");
}

#[test]
fn impossible_features_are_refused() {
    let shape = DriftShape { groups: 1, generated: 2, negatives: 0, positives: 2, dim: 12 };
    let refused = |features: &[Feature]| FeaturePass::new(&Host::new(), features, shape, 0).unwrap_err();
    let patches = |size, height, width| Feature::Patches(Patches { size, height, width, channels: 1 });
    for features in [
        vec![],
        vec![Feature::Identity, Feature::Identity],
        vec![patches(0, 3, 4)],
        vec![patches(2, 3, 4)],
        vec![patches(4, 3, 4)],
        vec![Feature::Fourier { count: 0, bandwidth: 1.0 }],
        vec![Feature::Fourier { count: 3, bandwidth: 0.0 }],
        vec![Feature::Fourier { count: 3, bandwidth: f64::NAN }],
    ] {
        assert!(matches!(refused(&features), Error::Value { .. }), "{features:?}");
    }
    assert!(matches!(refused(&[patches(1, 3, 5)]), Error::Shape { .. }));
    assert!(matches!(refused(&[patches(1, usize::MAX, 2)]), Error::Shape { .. }));
    let encoder = Encoder::try_from(Mlp::new(&[11, 3], 0).unwrap()).unwrap();
    assert!(matches!(refused(&[Feature::Encoder(encoder)]), Error::Shape { .. }));
}

/// Points about four centres in six coordinates, of unlike units, and the centres' numbers.
fn blobs() -> (Vec<f32>, Vec<usize>) {
    let mut stream = Stream::new(1, Purpose::Data, 0);
    let point = |k: usize, stream: &mut Stream| {
        let value = |d: usize| (if d == k % 4 { 3.0 } else { 0.0 }) + 0.5 * stream.normal() + 10.0 * d as f32;
        (0..6).map(value).collect::<Vec<f32>>()
    };
    let x = (0..400).flat_map(|k| point(k, &mut stream)).collect();
    (x, (0..400).map(|k| k % 4).collect())
}

/// How far apart points of a class are, as a share of how far apart all are.
fn within(x: &[f32], labels: &[usize]) -> f64 {
    let dim = x.len() / labels.len();
    let (mut own, mut all) = ([0.0, 0.0], [0.0, 0.0]);
    for (a, i) in x.chunks(dim).zip(labels) {
        for (b, j) in x.chunks(dim).zip(labels) {
            let distance = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt();
            for sums in [&mut all].into_iter().chain((i == j).then_some(&mut own)) {
                sums[0] += distance;
                sums[1] += 1.0;
            }
        }
    }
    own[0] / own[1] / (all[0] / all[1])
}

#[test]
fn encoders_bring_classes_together() {
    let (x, labels) = blobs();
    let options = Options { hidden: vec![32, 8], epochs: 40, min_deviation: 0.0, ..Options::default() };
    let classifier = Classifier::train(&x, &labels, 4, &options, 0).unwrap();
    let mut errors = Vec::new();
    let autoencoder = Encoder::autoencoder(&x, 6, &options, 0, |_, error| errors.push(error)).unwrap();
    assert_eq!(errors.len(), 40);
    assert!(errors[39] <= 0.5 * errors[0], "{errors:?}");
    let encoded = |encoder: &Encoder| {
        assert_eq!((encoder.input_dim(), encoder.output_dim()), (6, 8));
        encoder.features(&x).unwrap()
    };
    let (raw, by_class) = (within(&x, &labels), within(&encoded(&classifier.encoder().unwrap()), &labels));
    println!("within classes {raw} of the distance, encoded {by_class}");
    assert!(by_class <= 0.9 * raw, "{raw} {by_class}");
    // A code from which points can be given back still tells their classes.
    let code = encoded(&autoencoder);
    let told = Classifier::train(&code, &labels, 4, &options, 0).unwrap().accuracy(&code, &labels).unwrap();
    println!("classes told from the code {told}");
    assert!(told >= 0.95, "{told}");
    let encoder = classifier.encoder().unwrap();
    let refused =
        Classifier::train(&x, &labels, 4, &Options { hidden: vec![], ..options.clone() }, 0).unwrap().encoder();
    assert!(matches!(refused, Err(Error::Value { .. })));
    assert!(matches!(encoder.features(&x[..5]), Err(Error::Shape { .. })));
    assert!(matches!(Encoder::autoencoder(&x[..5], 6, &options, 0, |_, _| ()), Err(Error::Shape { .. })));
    assert!(matches!(Encoder::autoencoder(&[f32::NAN; 6], 6, &options, 0, |_, _| ()), Err(Error::Value { .. })));
    let none = Options { hidden: vec![], ..options };
    assert!(matches!(Encoder::autoencoder(&x, 6, &none, 0, |_, _| ()), Err(Error::Value { .. })));
}

#[test]
fn encoders_come_back_from_files_and_foreign_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("encoder.safetensors");
    let encoder = Encoder::try_from(Mlp::new(&[5, 4, 3], 1).unwrap()).unwrap();
    encoder.save(&path).unwrap();
    assert_eq!(Encoder::load(&path).unwrap(), encoder);
    let refused = |problem: &str| {
        let error = Encoder::load(&path).unwrap_err();
        assert!(matches!(error, Error::Format { .. }) && error.to_string().contains(problem), "{error}");
    };
    let whole = std::fs::read(&path).unwrap();
    for length in [0, 9, whole.len() - 1] {
        std::fs::write(&path, &whole[..length]).unwrap();
        refused("not a whole safetensors file");
    }
    Mlp::new(&[5, 4], 1).unwrap().save(&path).unwrap();
    refused("not an encoder");
    assert!(matches!(Encoder::load(folder.path()), Err(Error::Io { .. })));
    let mut architecture = Architecture::plain(5, &[4], 3);
    architecture.blocks = 1;
    assert!(matches!(Encoder::try_from(Mlp::new(&architecture, 0).unwrap()), Err(Error::Value { .. })));
}

/// A checkpoint of a run with features goes on bit for bit.
#[test]
fn a_run_on_features_is_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint");
    let points = Stream::new(3, Purpose::Data, 0).normals(100 * 16);
    let mut config = Config::notebook(Data::points(points, [100, 16]).unwrap());
    (config.batch, config.hidden) = (32, vec![16]);
    let patches = Patches { size: 2, height: 4, width: 4, channels: 1 };
    config.features = vec![Feature::Identity, Feature::Patches(patches), Feature::Fourier { count: 8, bandwidth: 2.0 }];
    let mut whole = Trainer::new(config.clone()).unwrap();
    (0..3).for_each(|_| whole.step().unwrap());
    whole.save(&path).unwrap();
    (0..3).for_each(|_| whole.step().unwrap());
    let mut resumed = Trainer::load(config, &path).unwrap();
    (0..3).for_each(|_| resumed.step().unwrap());
    assert_eq!(whole.model().unwrap(), resumed.model().unwrap());
    assert_eq!(whole.report().unwrap().loss, resumed.report().unwrap().loss);
}
