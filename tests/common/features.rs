//! Features in f64, straight from their definitions, gradients by differences of them, and the drift of each head alone.

use cudrift::backend::{Backend, Progress, Targets, Weights};
use cudrift::features::{Encoder, Feature, FeaturePass, Patches};
use cudrift::generator::Mlp;
use cudrift::rng::{Purpose, Stream};
use cudrift::train::Optimizer;
use cudrift::{DriftInputs, DriftShape, DriftSpec, Points, cpu};

const SEED: u64 = 9;

/// Images of 4 x 6 pixels, of two numbers each.
const IMAGE: [usize; 3] = [4, 6, 2];

fn network() -> Mlp {
    Mlp::new(&[48, 7, 33, 5], 3).unwrap()
}

/// Every kind, for these images.
pub fn features() -> Vec<Feature> {
    let [height, width, channels] = IMAGE;
    let patches = |size| Feature::Patches(Patches { size, height, width, channels });
    vec![
        patches(2),
        Feature::Fourier { count: 35, bandwidth: 3.0 },
        Feature::Identity,
        Feature::Encoder(Encoder::try_from(network()).unwrap()),
        patches(1),
    ]
}

/// What each head of a feature has of one sample, [F, d].
fn definition(feature: &Feature, which: u64, x: &[f64]) -> Vec<Vec<f64>> {
    match feature {
        Feature::Patches(Patches { size, height, width, channels }) => {
            let (mut means, mut deviations) = (Vec::new(), Vec::new());
            for (top, left) in (0..*height).step_by(*size).flat_map(|t| (0..*width).step_by(*size).map(move |l| (t, l)))
            {
                for channel in 0..*channels {
                    let pixels =
                        (0..size * size).map(|k| x[((top + k / size) * width + left + k % size) * channels + channel]);
                    let pixels: Vec<f64> = pixels.collect();
                    let mean = pixels.iter().sum::<f64>() / pixels.len() as f64;
                    let variance = pixels.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / pixels.len() as f64;
                    means.push(mean);
                    deviations.push((variance + 1e-6).sqrt());
                }
            }
            if *size > 1 { vec![means, deviations] } else { vec![means] }
        }
        Feature::Fourier { count, bandwidth } => {
            let mut stream = Stream::new(SEED, Purpose::Features, which);
            let w = stream.normals(count * x.len());
            let row = |w: &[f32]| w.iter().zip(x).map(|(w, x)| f64::from(*w) * x).sum::<f64>() / bandwidth;
            let phases: Vec<f64> = w.chunks(x.len()).map(row).collect();
            let factor = (2.0 / *count as f64).sqrt();
            let cosine = |phase: f64| factor * (phase + std::f64::consts::TAU * f64::from(stream.uniform())).cos();
            vec![phases.into_iter().map(cosine).collect()]
        }
        Feature::Encoder(_) => {
            let model = network();
            let mut parameters = model.parameters();
            let (mut heads, mut x) = (Vec::new(), x.to_vec());
            for width in [7, 33, 5] {
                let (weight, rest) = parameters.split_at(width * x.len());
                let (bias, rest) = rest.split_at(width);
                parameters = rest;
                let row = |(w, b): (&[f32], &f32)| {
                    let z = f64::from(*b) + w.iter().zip(&x).map(|(w, x)| f64::from(*w) * x).sum::<f64>();
                    z / (1.0 + (-z).exp())
                };
                x = weight.chunks(x.len()).zip(bias).map(row).collect();
                heads.push(x.clone());
            }
            heads
        }
        _ => vec![x.to_vec()],
    }
}

/// The heads [F, n, d] of samples [n, D], one after another.
fn heads_of(features: &[Feature], x: &[f64], shapes: &[(usize, usize)]) -> Vec<Vec<f64>> {
    let dim = IMAGE.iter().product();
    let n = x.len() / dim;
    let mut heads: Vec<Vec<f64>> = shapes.iter().map(|(locations, d)| vec![0.0; locations * n * d]).collect();
    for (sample, x) in x.chunks(dim).enumerate() {
        let own = features.iter().enumerate().flat_map(|(which, feature)| definition(feature, which as u64, x));
        for ((head, values), (_, d)) in heads.iter_mut().zip(own).zip(shapes) {
            for (location, values) in values.chunks(*d).enumerate() {
                head[(location * n + sample) * d..][..*d].copy_from_slice(values);
            }
        }
    }
    heads
}

/// Features and their gradients are those of the definitions; the drift of all heads is that of each alone.
pub fn check<B: Backend>(backend: &mut B) {
    let features = features();
    let shape = DriftShape { groups: 2, generated: 5, negatives: 3, positives: 4, dim: IMAGE.iter().product() };
    let DriftShape { groups, generated, negatives, positives, dim } = shape;
    let samples = |count: usize, step| Stream::new(1, Purpose::Data, step).normals(groups * count * dim);
    let (x, y, others) = (samples(generated, 0), samples(positives, 1), samples(negatives, 2));
    let weights: Vec<f32> = (0..groups * negatives).map(|k| 0.5 + k as f32).collect();
    let array = |backend: &B, values: &[f32]| backend.upload("an array", values).unwrap();
    let targets = Targets {
        positives: array(backend, &y),
        negatives: array(backend, &others),
        weights: array(backend, &weights),
        own: None,
    };
    let by_x = vec![f32::NAN; x.len()];
    let (on_device, mut by_x) = (array(backend, &x), array(backend, &by_x));

    let mut pass = FeaturePass::new(backend, &features, shape, SEED).unwrap();
    pass.forward(backend, &on_device, &targets).unwrap();
    let shapes = pass.shapes();
    let of_heads: Vec<(usize, usize)> = shapes.iter().map(|shape| (shape.groups / groups, shape.dim)).collect();
    assert_eq!(of_heads, [(6, 2), (6, 2), (1, 35), (1, 48), (1, 7), (1, 33), (1, 5), (24, 2)]);

    // The features.
    let wide = |x: &[f32]| x.iter().map(|v| f64::from(*v)).collect::<Vec<_>>();
    let want: Vec<_> = [&x, &others, &y].map(|x| heads_of(&features, &wide(x), &of_heads)).into();
    let mut given = Vec::new();
    for (k, head) in pass.heads(&on_device, &targets, &mut by_x).into_iter().enumerate() {
        let arrays = [head.generated, head.negatives[0], head.positives];
        let got = arrays.map(|array| backend.download(array, B::len(array)).unwrap());
        for (got, want) in got.iter().zip(&want) {
            assert_eq!(got.len(), want[k].len());
            for (got, want) in got.iter().zip(&want[k]) {
                assert!((f64::from(*got) - want).abs() <= 2e-6 * (1.0 + want.abs()), "head {k}: {got} {want}");
            }
        }
        let repeated = backend.download(head.negatives[1], B::len(head.negatives[1])).unwrap();
        assert_eq!(repeated, weights.repeat(of_heads[k].0));
        given.push(got);
    }

    // The drift of each, and the sum of the losses.
    let spec = DriftSpec::official();
    let mut drift = backend.drift(&spec, &shapes).unwrap();
    let mut progress = backend.progress(&Progress::new(0, 0.0)).unwrap();
    for _ in 0..2 {
        let mut heads = pass.heads(&on_device, &targets, &mut by_x);
        backend.gradient(&mut drift, &mut heads, &mut progress).unwrap();
    }
    let (mut loss, mut scales) = (0.0, Vec::new());
    for (k, head) in pass.heads(&on_device, &targets, &mut by_x).into_iter().enumerate() {
        let DriftShape { groups, dim, .. } = shapes[k];
        let points = |values, count| Points::new(values, [groups, count, dim]).unwrap();
        let weights = weights.repeat(of_heads[k].0);
        let [x, others, y] = &given[k];
        let inputs = DriftInputs::new(points(x, generated), points(y, positives)).unwrap();
        let inputs = inputs.negatives(points(others, negatives)).unwrap().weight_negatives(&weights).unwrap();
        let alone = cpu::drift(&spec, &inputs).unwrap();
        loss += alone.loss.iter().map(|loss| f64::from(*loss)).sum::<f64>() / groups as f64;
        scales.push(alone.scale.scale);
        let got = backend.download(head.gradient, B::len(head.gradient)).unwrap();
        let want: Vec<f32> = alone.gradient().iter().map(|g| g / groups as f32).collect();
        let largest = want.iter().fold(0.0f32, |most, v| most.max(v.abs()));
        for (got, want) in got.iter().zip(&want) {
            assert!((got - want).abs() <= 2e-5 * largest, "head {k}: {got} {want}");
        }
    }
    // The update completes the step.
    let mut weights = Weights::new(backend, &[1.0]).unwrap();
    backend.update(&Optimizer::notebook(), &mut weights, &mut progress).unwrap();
    let after = backend.read(&progress).unwrap();
    assert!((after.loss - loss).abs() <= 1e-5 * loss && loss > 1.0, "{after:?} {loss}");
    assert!((after.scale - scales[0]).abs() <= 1e-5 * scales[0], "{after:?} {scales:?}");

    // The way back.
    let v: Vec<Vec<f32>> = want[0]
        .iter()
        .enumerate()
        .map(|(k, head)| Stream::new(2, Purpose::Noise, k as u64).normals(head.len()))
        .collect();
    for (head, v) in pass.heads(&on_device, &targets, &mut by_x).into_iter().zip(&v) {
        *head.gradient = array(backend, v);
    }
    pass.backward(backend, &on_device, &mut by_x).unwrap();
    let got = backend.download(&by_x, x.len()).unwrap();
    let largest = got.iter().fold(0.0f32, |most, v| most.max(v.abs()));
    let mut x = wide(&x);
    for (k, got) in got.iter().enumerate() {
        let at = x[k];
        let mut moved = |by: f64| {
            x[k] = at + by;
            let heads = heads_of(&features, &x, &of_heads);
            heads.iter().flatten().zip(v.iter().flatten()).map(|(y, v)| y * f64::from(*v)).sum::<f64>()
        };
        let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
        x[k] = at;
        let error = (slope - f64::from(*got)).abs();
        assert!(error <= 1e-5 * f64::from(largest), "coordinate {} of sample {}: {slope} {got}", k % dim, k / dim);
    }
}
