//! `cudrift sample`: points from a trained generator.

use super::warn_nonfinite;
use crate::arrays::{Output, write_npy};
use crate::error::{Error, Result};
use cudrift::generator::Mlp;
use std::path::PathBuf;

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  cudrift sample --model runs/swiss-roll/generator.safetensors --count 4096 --out samples.npy\n  \
                  cudrift sample --model runs/digits/generator.safetensors --class 3 --guidance 2 --count 100 --out threes.npy"
)]
pub(crate) struct Args {
    /// The generator that `cudrift train` wrote
    #[arg(long, value_name = "FILE.safetensors")]
    model: PathBuf,
    /// How many samples
    #[arg(long, default_value_t = 2048, allow_negative_numbers = true)]
    count: usize,
    /// Seed of the noise
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// The class of every sample, for a generator with classes [default: each in turn]
    #[arg(long, value_name = "N")]
    class: Option<usize>,
    /// The guidance scale, for a generator that is told one [default: 1]
    #[arg(long, allow_negative_numbers = true)]
    guidance: Option<f64>,
    /// Where they go, as an array [count, D] of f32
    #[arg(long, value_name = "FILE.npy")]
    out: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if args.count == 0 {
        return Err(Error::message("--count is 0; ask for at least one sample"));
    }
    let model = Mlp::load(&args.model)?;
    let architecture = model.architecture();
    let samples = match architecture.classes {
        0 => {
            if let Some(flag) = args.class.map(|_| "--class").or(args.guidance.map(|_| "--guidance")) {
                return Err(Error::message(format!("{flag} is for generators with classes, and this one has none")));
            }
            cudrift::train::sample(&model, args.count, args.seed)?
        }
        classes => {
            if args.guidance.is_some() && !architecture.guided {
                return Err(Error::message("this generator was trained without guidance; leave out --guidance"));
            }
            let labels: Vec<usize> = (0..args.count).map(|k| args.class.unwrap_or(k % classes)).collect();
            cudrift::train::sample_classes(&model, &labels, args.guidance.unwrap_or(1.0), args.seed)?
        }
    };
    warn_nonfinite(0, [&samples[..]]);
    write_npy(&args.out, &[args.count, model.output_dim()], &Output::F32(&samples))
}
