//! A generator in f64, straight from the definition in `Architecture`, and gradients by differences of it.

use cudrift::backend::Backend;
use cudrift::generator::{Architecture, Mlp, Pass};
use cudrift::rng::{Purpose, Stream};
use cudrift::{Dtype, bf16};

/// Labels of `slots` groups, and logarithms of their guidance scales.
fn conditions(architecture: &Architecture, slots: usize) -> (Vec<f32>, Vec<f32>) {
    let label = |slot: usize| ((slot * 7 + 2) % architecture.classes.max(1)) as f32;
    ((0..slots).map(label).collect(), (0..slots).map(|slot| 0.3 * slot as f32 - 0.2).collect())
}

/// Takes parameters in their order.
struct Parameters<'a>(&'a [f64]);

impl<'a> Parameters<'a> {
    fn take(&mut self, count: usize) -> &'a [f64] {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }

    fn linear(&mut self, input: usize, output: usize) -> impl Fn(&[f64]) -> Vec<f64> + use<'a> {
        let (weight, bias) = (self.take(input * output), self.take(output));
        move |x| {
            let row = |o: usize| weight[o * input..][..input].iter().zip(x).map(|(w, x)| w * x).sum::<f64>();
            (0..output).map(|o| bias[o] + row(o)).collect()
        }
    }

    fn normalize(&mut self, width: usize) -> impl Fn(&[f64]) -> Vec<f64> + use<'a> {
        let gain = self.take(width);
        move |x| {
            let rms = (x.iter().map(|x| x * x).sum::<f64>() / width as f64 + 1e-6).sqrt();
            x.iter().zip(gain).map(|(x, gain)| gain * x / rms).collect()
        }
    }
}

fn silu(z: Vec<f64>) -> Vec<f64> {
    z.into_iter().map(|z| z / (1.0 + (-z).exp())).collect()
}

/// The outputs for n samples in `slots` groups.
fn outputs(architecture: &Architecture, parameters: &[f64], noise: &[f32], slots: usize) -> Vec<f64> {
    let Architecture { noise: input, hidden, blocks, classes, guided, output, .. } = architecture;
    let n = noise.len() / input;
    let (labels, guidance) = conditions(architecture, slots);
    let width = hidden.last().copied().unwrap_or(*input);
    let conditioned = if *classes > 0 { hidden[0] } else { 0 };
    let behind = parameters.len() - conditioned * (classes + usize::from(*guided));
    let (parameters, condition) = parameters.split_at(behind);
    let mut parameters = Parameters(parameters);
    let mut x: Vec<Vec<f64>> = noise.chunks(*input).map(|x| x.iter().map(|v| f64::from(*v)).collect()).collect();
    for (l, io) in [&[*input], hidden.as_slice()].concat().windows(2).enumerate() {
        let linear = parameters.linear(io[0], io[1]);
        for (row, x) in x.iter_mut().enumerate() {
            let mut z = linear(x);
            if l == 0 && *classes > 0 {
                let slot = row / (n / slots);
                for (d, z) in z.iter_mut().enumerate() {
                    *z += condition[labels[slot] as usize * conditioned + d];
                    if *guided {
                        *z += f64::from(guidance[slot]) * condition[classes * conditioned + d];
                    }
                }
            }
            *x = silu(z);
        }
    }
    for _ in 0..*blocks {
        let normalize = parameters.normalize(width);
        let (up, down) = (parameters.linear(width, width), parameters.linear(width, width));
        for x in &mut x {
            let added = down(&silu(up(&normalize(x))));
            x.iter_mut().zip(added).for_each(|(x, added)| *x += added);
        }
    }
    if *blocks > 0 {
        let normalize = parameters.normalize(width);
        x.iter_mut().for_each(|x| *x = normalize(x));
    }
    let last = parameters.linear(width, *output);
    let outputs = x.iter().flat_map(|x| last(x)).collect();
    assert!(parameters.0.is_empty());
    outputs
}

/// Output and gradient by the parameters of every number agree with differences of the definition.
pub fn check_gradients<B: Backend>(backend: &mut B, architecture: &Architecture, n: usize, slots: usize) {
    let mut model = Mlp::new(architecture, 11).unwrap();
    // What is 0 or 1 at first shows nothing.
    let moved = Stream::new(4, Purpose::Init, 0).normals(model.parameters().len());
    model.parameters_mut().iter_mut().zip(moved).for_each(|(p, by)| *p += 0.1 * by);
    let noise = Stream::new(1, Purpose::Noise, 0).normals(n * architecture.noise);
    let v = Stream::new(2, Purpose::Noise, 0).normals(n * architecture.output);

    let mut pass = Pass::grouped(backend, architecture, n, slots).unwrap();
    *pass.noise_mut() = backend.upload("noise", &noise).unwrap();
    if let Some(condition) = pass.condition_mut() {
        let (labels, guidance) = conditions(architecture, slots);
        condition.labels = backend.upload("labels", &labels).unwrap();
        condition.guidance = backend.upload("guidance", &guidance).unwrap();
    }
    let parameters = backend.upload("parameters", model.parameters()).unwrap();
    let by_output = backend.upload("gradient", &v).unwrap();
    let mut grad = backend.upload("gradient", &vec![f32::NAN; model.parameters().len()]).unwrap();
    pass.forward(backend, &parameters).unwrap();
    let mut by_noise = backend.upload("gradient", &vec![f32::NAN; noise.len()]).unwrap();
    pass.backward_through(backend, &parameters, &by_output, &mut grad, &mut by_noise).unwrap();
    let (alone, by_noise) = (grad, backend.download(&by_noise, noise.len()).unwrap());
    let mut grad = backend.upload("gradient", &vec![f32::NAN; model.parameters().len()]).unwrap();
    pass.backward(backend, &parameters, &by_output, &mut grad).unwrap();
    let count = model.parameters().len();
    assert_eq!(backend.download(&grad, count).unwrap(), backend.download(&alone, count).unwrap());
    let output = backend.download(pass.output(), n * architecture.output).unwrap();
    let grad = backend.download(&grad, model.parameters().len()).unwrap();

    let mut parameters: Vec<f64> = model.parameters().iter().map(|v| f64::from(*v)).collect();
    let want = outputs(architecture, &parameters, &noise, slots);
    for (got, want) in output.iter().zip(&want) {
        assert!((f64::from(*got) - want).abs() <= 2e-6 * (1.0 + want.abs()), "{architecture:?}: {got} {want}");
    }
    let largest = f64::from(grad.iter().fold(0.0f32, |m, g| m.max(g.abs())));
    for k in 0..parameters.len() {
        let at = parameters[k];
        let mut moved = |by: f64| {
            parameters[k] = at + by;
            let outputs = outputs(architecture, &parameters, &noise, slots);
            outputs.iter().zip(&v).map(|(x, v)| x * f64::from(*v)).sum::<f64>()
        };
        let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
        parameters[k] = at;
        let error = (slope - f64::from(grad[k])).abs();
        assert!(error <= 1e-5 * largest, "{architecture:?} parameter {k}: {slope} {}", grad[k]);
    }
    // By the noise, whose numbers in f32 are moved by what they can be.
    // What a deep network leaves of it differences cannot see.
    let largest = f64::from(by_noise.iter().fold(1e-6f32, |m, g| m.max(g.abs())));
    for k in 0..noise.len().min(40) {
        let moved = |by: f32| {
            let mut noise = noise.clone();
            noise[k] += by;
            let outputs = outputs(architecture, &parameters, &noise, slots);
            (f64::from(noise[k]), outputs.iter().zip(&v).map(|(x, v)| x * f64::from(*v)).sum::<f64>())
        };
        let ((low, below), (high, above)) = (moved(-1e-4), moved(1e-4));
        let error = ((above - below) / (high - low) - f64::from(by_noise[k])).abs();
        assert!(error <= 2e-5 * largest, "{architecture:?} noise {k}: {error} of {largest}");
    }
}

/// Generators of every kind, with samples and groups: one row, a tile of sums and one more, more vectors than one launch
/// joins.
pub fn generators() -> Vec<(Architecture, usize, usize)> {
    let plain = |sizes: &[usize]| Architecture::from(sizes);
    let mut blocks = plain(&[3, 5, 7, 2]);
    blocks.blocks = 2;
    let mut classes = plain(&[2, 33, 3]);
    classes.classes = 3;
    let mut guided = plain(&[2, 6, 4, 1]);
    (guided.classes, guided.guided, guided.blocks) = (4, true, 1);
    let mut wide = plain(&[4, 40, 2]);
    (wide.classes, wide.guided, wide.blocks) = (2, true, 1);
    let deep = plain(&[vec![2], vec![3; 34], vec![1]].concat());
    vec![
        (plain(&[3, 7, 5, 2]), 131, 1),
        (plain(&[4, 1]), 1, 1),
        (plain(&[1, 33, 1]), 65, 1),
        (plain(&[2, 32, 3]), 64, 1),
        (deep, 5, 1),
        (blocks, 70, 1),
        (classes, 12, 4),
        (guided, 66, 6),
        (wide, 10, 10),
    ]
}

/// Output and gradient by the parameters, given the gradient by the output.
pub fn there_and_back<B: Backend>(backend: &mut B, model: &Mlp, noise: &[f32], by_output: &[f32]) -> [Vec<f32>; 2] {
    let n = noise.len() / model.input_dim();
    let mut pass = Pass::new(backend, model.architecture(), n).unwrap();
    *pass.noise_mut() = backend.upload("noise", noise).unwrap();
    let parameters = backend.upload("parameters", model.parameters()).unwrap();
    let by_output = backend.upload("gradient", by_output).unwrap();
    let mut grad = backend.upload("gradient", &vec![f32::NAN; model.parameters().len()]).unwrap();
    pass.forward(backend, &parameters).unwrap();
    pass.backward(backend, &parameters, &by_output, &mut grad).unwrap();
    let output = backend.download(pass.output(), n * model.output_dim()).unwrap();
    [output, backend.download(&grad, model.parameters().len()).unwrap()]
}

/// In bf16 a layer's output and gradients are products of rounded operands, added up in more digits; its bias is not
/// rounded. And f16 is refused.
pub fn check_mixed_precision<B: Backend>(backend: &mut B) {
    let (n, input, output) = (70, 33, 5);
    let model = Mlp::new(&[input, output], 5).unwrap();
    let noise = Stream::new(1, Purpose::Noise, 0).normals(n * input);
    let v = Stream::new(2, Purpose::Noise, 0).normals(n * output);
    assert!(matches!(backend.set_precision(Dtype::F16), Err(cudrift::Error::Value { .. })));
    backend.set_precision(Dtype::Bf16).unwrap();
    let [got, grad] = there_and_back(backend, &model, &noise, &v);
    backend.set_precision(Dtype::F32).unwrap();

    let rounded = |x: &[f32]| x.iter().map(|v| bf16::from_f32(*v).to_f64()).collect::<Vec<_>>();
    let (weight, bias) = model.parameters().split_at(input * output);
    let (x, w, dy) = (rounded(&noise), rounded(weight), rounded(&v));
    let near = |got: f32, want: f64| assert!((f64::from(got) - want).abs() <= 2e-5, "{got} {want}");
    for (k, got) in got.iter().enumerate() {
        let (row, o) = (k / output, k % output);
        let product: f64 = (0..input).map(|i| x[row * input + i] * w[o * input + i]).sum();
        near(*got, product + f64::from(bias[o]));
    }
    for (k, got) in grad[..input * output].iter().enumerate() {
        let (o, i) = (k / input, k % input);
        near(*got, (0..n).map(|row| dy[row * output + o] * x[row * input + i]).sum());
    }
    for (o, got) in grad[input * output..].iter().enumerate() {
        near(*got, (0..n).map(|row| f64::from(v[row * output + o])).sum());
    }
}
