//! One drift call with negatives under guidance: `cargo run --release --example 01_drift`.

use cudrift::rng::{Purpose, Stream};
use cudrift::{DriftInputs, DriftSpec, Points, cpu, guidance_weight};

fn main() -> Result<(), cudrift::Error> {
    // 4 groups (labels x locations) of 64 generated samples, 32 unconditional negatives and 64 positives in 640
    // dimensions: a head of the official latent configuration.
    let [b, g, n, p, d] = [4, 64, 32, 64, 640];
    let features = |step, count: usize| Stream::new(7, Purpose::Data, step).normals(b * count * d);
    let (generated, negatives, positives) = (features(0, g), features(1, n), features(2, p));

    // Guidance scale 4 makes each unconditional negative count as 5.9 generated ones.
    let weight = guidance_weight(4.0, g, n)? as f32;
    let weights = vec![weight; b * n];

    let inputs = DriftInputs::new(Points::new(&generated, [b, g, d])?, Points::new(&positives, [b, p, d])?)?
        .negatives(Points::new(&negatives, [b, n, d])?)?
        .weight_negatives(&weights)?;
    let spec = DriftSpec::official();
    let drift = cpu::drift(&spec, &inputs)?;

    println!("scale {:.3}, coordinates divided by {:.4}", drift.scale.scale, drift.scale.sigma);
    for (temperature, f2) in spec.temperatures.iter().zip(&drift.loss_r) {
        println!("temperature {temperature}: mean square force {f2:.2e}");
    }
    println!("loss per group {:?}", drift.loss);
    let gradient = drift.gradient();
    println!("gradient of the first sample begins {:?}", &gradient[..3]);
    Ok(())
}
