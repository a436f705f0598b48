//! Generators on the CPU.
#![allow(clippy::unwrap_used)]

#[path = "common/network.rs"]
mod network;

use cudrift::Error;
use cudrift::cpu::Host;
use cudrift::generator::{Architecture, Mlp};
use cudrift::rng::{Purpose, Stream};

#[test]
fn gradients_agree_with_finite_differences() {
    for (architecture, n, slots) in network::generators() {
        network::check_gradients(&mut Host::new(), &architecture, n, slots);
    }
}

#[test]
fn mixed_precision_rounds_operands_alone() {
    network::check_mixed_precision(&mut Host::new());
}

#[test]
fn classes_and_guidance_change_samples() {
    let mut architecture = Architecture::plain(2, &[8], 3);
    (architecture.classes, architecture.guided, architecture.blocks) = (3, true, 1);
    let mut model = Mlp::new(&architecture, 0).unwrap();
    let moved = Stream::new(4, Purpose::Init, 0).normals(model.parameters().len());
    model.parameters_mut().iter_mut().zip(moved).for_each(|(p, by)| *p += by);
    let sample = |label: usize, guidance: f64| model.forward_classes(&[0.5, -0.5], &[label], guidance).unwrap();
    assert_ne!(sample(0, 1.0), sample(1, 1.0));
    assert_ne!(sample(0, 1.0), sample(0, 2.0));
    let both = model.forward_classes(&[0.5, -0.5, 0.5, -0.5], &[2, 1], 1.5).unwrap();
    assert_eq!(both, [sample(2, 1.5), sample(1, 1.5)].concat());

    let value = |result: Result<Vec<f32>, Error>| assert!(matches!(result, Err(Error::Value { .. })), "{result:?}");
    value(model.forward(&[0.5, -0.5]));
    value(model.forward_classes(&[0.5, -0.5], &[3], 1.0));
    value(model.forward_classes(&[0.5, -0.5], &[0], 0.5));
    value(model.forward_classes(&[0.5, -0.5], &[0], f64::NAN));
    assert!(matches!(model.forward_classes(&[0.5], &[0], 1.0), Err(Error::Shape { .. })));
}

#[test]
fn impossible_architectures_are_refused() {
    let refused = |change: fn(&mut Architecture)| {
        let mut architecture = Architecture::plain(2, &[4], 1);
        architecture.parameters().unwrap();
        change(&mut architecture);
        assert!(matches!(Mlp::new(&architecture, 0), Err(Error::Value { .. })), "{architecture:?}");
    };
    refused(|a| a.noise = 0);
    refused(|a| a.output = 0);
    refused(|a| a.hidden = vec![4, 0]);
    refused(|a| (a.hidden, a.blocks) = (vec![], 1));
    refused(|a| (a.hidden, a.classes) = (vec![], 1));
    refused(|a| a.guided = true);
    refused(|a| a.blocks = usize::MAX);
    refused(|a| a.classes = usize::MAX);
    refused(|a| a.hidden = vec![usize::MAX]);
}

#[test]
fn every_kind_is_read_back_as_it_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("generator.safetensors");
    for (architecture, ..) in network::generators() {
        let model = Mlp::new(&architecture, 5).unwrap();
        model.save(&path).unwrap();
        assert_eq!(Mlp::load(&path).unwrap(), model);
    }
}
