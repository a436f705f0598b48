//! `cudrift sample`: points from a trained generator.

use super::warn_nonfinite;
use crate::arrays::{Output, write_npy};
use crate::error::{Error, Result};
use cudrift::generator::Mlp;
use std::path::PathBuf;

#[derive(clap::Args)]
#[command(
    after_help = "Example: cudrift sample --model runs/swiss-roll/generator.safetensors --count 4096 --out samples.npy"
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
    /// Where they go, as an array [count, D] of f32
    #[arg(long, value_name = "FILE.npy")]
    out: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if args.count == 0 {
        return Err(Error::message("--count is 0; ask for at least one sample"));
    }
    let model = Mlp::load(&args.model)?;
    let samples = cudrift::train::sample(&model, args.count, args.seed)?;
    warn_nonfinite(0, [&samples[..]]);
    write_npy(&args.out, &[args.count, model.output_dim()], &Output::F32(&samples))
}
