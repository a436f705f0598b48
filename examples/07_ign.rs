//! Forward and backward passes by hand: an idempotent generative network (IGN, spec 8.10) in the plane.
//!
//! One network f from the plane to the plane learns `f(y) = y` on data and `f(f(z)) = f(z)` on noise:
//!
//! ```text
//! reconstruction  |f(y) - y|²                  by f
//! idempotence     |F(f(z)) - f(z)|²            by f, through F: the same network, frozen
//! tightness       -|f(x) - x|², x = f(z)       by f, x frozen; ends at 1.5 times the reconstruction
//! ```
//!
//! `cargo run --release --example 07_ign`.

use cudrift::Error;
use cudrift::backend::{Backend, Progress, Weights};
use cudrift::cpu::Host;
use cudrift::data::{Data, Toy};
use cudrift::generator::{Mlp, Pass};
use cudrift::metrics::sliced_wasserstein;
use cudrift::rng::{Purpose, Stream};
use cudrift::train::Optimizer;

const SEED: u64 = 42;
const BATCH: usize = 512;
/// What the losses are multiplied by, as in the source: reconstruction, idempotence, tightness.
const SHARES: [f64; 3] = [20.0, 20.0, 2.5];
/// Where tightness ends, in reconstruction losses.
const MOST: f64 = 1.5;

/// What a square loss |a - b|² / n gives: itself, and 2 (a - b) / n.
fn square(a: &[f32], b: &[f32]) -> (f64, Vec<f32>) {
    let n = a.len() as f64;
    let loss = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>() / n;
    (loss, a.iter().zip(b).map(|(a, b)| (2.0 * f64::from(a - b) / n) as f32).collect())
}

/// Trains for so many steps; the sliced Wasserstein distances of f(z) to the data before and after.
pub fn train(steps: u64) -> Result<[f64; 2], Error> {
    let data = Data::from(Toy::Ring);
    let mut host = Host::new();
    let model = Mlp::new(&[2, 128, 128, 128, 2], SEED)?;
    let mut weights = Weights::new(&host, model.parameters())?;
    let mut progress = Progress::new(0, f64::NAN);
    let mut optimizer = Optimizer::notebook();
    optimizer.clip_norm = 1.0;
    let pass = || Pass::new(&Host::new(), model.architecture(), BATCH);
    let (mut of_data, mut inner, mut outer) = (pass()?, pass()?, pass()?);
    let count = model.parameters().len();
    let distance = |parameters: &[f32]| -> Result<f64, Error> {
        let model = Mlp::from_parameters(model.architecture().clone(), parameters.to_vec())?;
        let noise = Stream::new(SEED, Purpose::EvaluationNoise, 0).normals(2 * 2048);
        let real = data.sample(&mut Stream::new(SEED, Purpose::EvaluationData, 0), 2048);
        Ok(sliced_wasserstein(&model.forward(&noise)?, &real, 2, 200, SEED)?[0])
    };
    let before = distance(&weights.parameters)?;
    for step in 1..=steps {
        let y = data.sample(&mut Stream::new(SEED, Purpose::Data, step), BATCH);
        let z = Stream::new(SEED, Purpose::Noise, step).normals(2 * BATCH);
        of_data.noise_mut().copy_from_slice(&y);
        of_data.forward(&mut host, &weights.parameters)?;
        inner.noise_mut().copy_from_slice(&z);
        inner.forward(&mut host, &weights.parameters)?;
        let x = inner.output().clone();
        outer.noise_mut().copy_from_slice(&x);
        outer.forward(&mut host, &weights.parameters)?;

        let (reconstruction, by_f) = square(of_data.output(), &y);
        let mut by_reconstruction = vec![0.0; count];
        of_data.backward(&mut host, &weights.parameters, &by_f, &mut by_reconstruction)?;

        // Of |f(x) - x|²: by the outer network's parameters, and by x through it, less what x is itself.
        let (gap, by_f) = square(outer.output(), &x);
        let (mut by_outer, mut by_x) = (vec![0.0; count], vec![0.0; 2 * BATCH]);
        outer.backward_through(&mut host, &weights.parameters, &by_f, &mut by_outer, &mut by_x)?;
        by_x.iter_mut().zip(&by_f).for_each(|(by_x, by_f)| *by_x -= by_f);
        let mut by_inner = vec![0.0; count];
        inner.backward(&mut host, &weights.parameters, &by_x, &mut by_inner)?;

        // -most tanh(gap / most).
        let most = MOST * reconstruction;
        let bend = (gap / most).tanh();
        let [of_data, of_inner, of_outer] = SHARES;
        let of_outer = -of_outer * (1.0 - bend * bend);
        for (k, grad) in weights.grad.iter_mut().enumerate() {
            let sum = of_data * f64::from(by_reconstruction[k]) + of_inner * f64::from(by_inner[k]);
            *grad = (sum + of_outer * f64::from(by_outer[k])) as f32;
        }
        progress.loss = of_data * reconstruction + of_inner * gap - SHARES[2] * most * bend;
        host.update(&optimizer, &mut weights, &mut progress)?;
        if step % 200 == 0 {
            let swd = distance(&weights.parameters)?;
            println!("step {step}: |f(y) - y|² {reconstruction:.1e}, |f(x) - x|² {gap:.1e}, SWD {swd:.3}");
        }
    }
    Ok([before, distance(&weights.parameters)?])
}

/// 2,000 steps.
pub fn main() -> Result<(), Error> {
    let [before, after] = train(2000)?;
    println!("SWD {before:.3} before, {after:.3} after");
    Ok(())
}
