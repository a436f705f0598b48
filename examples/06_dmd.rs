//! A field from outside: distribution matching distillation (DMD, spec 8.10) in the plane, where all scores are known.
//!
//! The teacher is the score of a ring of six Gaussians with noise, in closed form; the fake score is that of the
//! generator's own samples with noise, whose density is their Gaussian kernel estimate. Each sample x is regressed onto
//! `x + t² (s_p - s_q)`, both taken at `x + t eps`. `cargo run --release --example 06_dmd`.

use cudrift::cpu;
use cudrift::data::Toy;
use cudrift::rng::{Purpose, Stream};
use cudrift::train::{Along, Config, Trainer, Transport};
use cudrift::{Error, FieldInputs, FieldSpec, Kernel};

const SEED: u64 = 42;

/// The score at `x` of `Toy::Ring` with noise of deviation `t`: Gaussians of deviation 0.08 on a circle of radius 0.8.
fn teacher(x: [f64; 2], t: f64) -> [f64; 2] {
    let variance = 0.08 * 0.08 + t * t;
    let (mut mass, mut sums) = (0.0, [0.0; 2]);
    let towards = (0..6).map(|k| {
        let (sin, cos) = (f64::from(k) / 6.0 * std::f64::consts::TAU).sin_cos();
        [0.8 * cos - x[0], 0.8 * sin - x[1]]
    });
    let nearest = towards.clone().map(|[u, v]| u * u + v * v).fold(f64::INFINITY, f64::min);
    for [u, v] in towards {
        let weight = ((nearest - u * u - v * v) / (2.0 * variance)).exp();
        (mass, sums) = (mass + weight, [sums[0] + weight * u, sums[1] + weight * v]);
    }
    sums.map(|sum| sum / mass / variance)
}

/// Trains for so many steps; the sliced Wasserstein distances to the data before and after.
pub fn train(steps: u64) -> Result<[f64; 2], Error> {
    let mut config = Config::notebook(Toy::Ring);
    (config.batch, config.seed) = (512, SEED);
    config.field = Some(Transport::new(Along::External));
    let mut trainer = Trainer::new(config)?;
    let [before, _] = trainer.evaluate(2048, 200)?;
    for step in 1..=steps {
        trainer.step_along(|_, along| {
            let n = along.samples.len() / 2;
            // From 0.5 to 0.05, one of each sample.
            let mut stream = Stream::new(SEED, Purpose::Guidance, step);
            let levels: Vec<f32> = (0..n).map(|_| 0.5 * 0.1f32.powf(stream.uniform())).collect();
            let noise = Stream::new(SEED, Purpose::Queries, step).normals(2 * n);
            let each = along.samples.iter().zip(&noise).enumerate();
            let noised: Vec<f32> = each.map(|(k, (x, e))| x + levels[k / 2] * e).collect();
            let (x, own) = ((&noised[..], [n, 2]), (&along.samples[..], [n, 2]));
            let mut spec = FieldSpec::new(Kernel::Gaussian, 1.0);
            spec.self_mask = true;
            let fake = cpu::field(&spec, &FieldInputs::new(x, own, own)?.bandwidths(&levels)?)?.score_q;
            for (i, v) in along.velocity.chunks_exact_mut(2).enumerate() {
                let t = f64::from(levels[i]);
                let real = teacher([noised[2 * i].into(), noised[2 * i + 1].into()], t);
                for k in 0..2 {
                    v[k] = (t * t * (real[k] - f64::from(fake[2 * i + k]))) as f32;
                }
            }
            Ok(())
        })?;
        if step % 100 == 0 {
            let ([swd, _], loss) = (trainer.evaluate(2048, 200)?, trainer.report()?.loss_ema);
            println!("step {step}: loss {loss:.2e}, SWD {swd:.3}");
        }
    }
    let [after, _] = trainer.evaluate(2048, 200)?;
    Ok([before, after])
}

/// 1,000 steps.
pub fn main() -> Result<(), Error> {
    let [before, after] = train(1000)?;
    println!("SWD {before:.3} before, {after:.3} after");
    Ok(())
}
