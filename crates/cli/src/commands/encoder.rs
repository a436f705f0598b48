//! `cudrift encoder`: a small network, trained on the data, whose layers are features for a drift.

use super::config::{Source, data};
use crate::error::{Error, Result, say};
use crate::progress::Progress;
use clap::ValueEnum;
use cudrift::classifier::{Classifier, Options};
use cudrift::features::Encoder;
use std::path::PathBuf;
use std::time::Instant;

#[derive(clap::Args)]
#[command(after_help = "The file has the network's hidden layers, each of which is a head of the drift of\n  \
                  cudrift train --features identity,encoder:encoder.safetensors …\n\n\
                  Example: cudrift encoder --data digits.npz --out encoder.safetensors")]
pub(crate) struct Args {
    /// Points [n, D] in a .npy, or a .npz with points under the key x or images [n, height, width] under images, and
    /// perhaps labels [n]
    #[arg(long)]
    data: String,
    /// Where the encoder goes
    #[arg(long, value_name = "FILE.safetensors")]
    out: PathBuf,
    /// What it learns [default: classifier where the data have labels, else autoencoder]
    #[arg(long, value_enum)]
    task: Option<Task>,
    /// Widths of the layers; the last is an autoencoder's code
    #[arg(long, value_delimiter = ',', value_name = "W,W,…", default_value = "256,64")]
    hidden: Vec<usize>,
    /// How often each point is used
    #[arg(long, default_value_t = 60)]
    epochs: usize,
    /// Standard deviation of the noise on standardised inputs
    #[arg(long, default_value_t = 0.5, allow_negative_numbers = true)]
    noise: f32,
    /// Seed of everything random
    #[arg(long, default_value_t = 42)]
    seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Task {
    /// To tell the classes apart
    Classifier,
    /// To give back points without the noise that they come with
    Autoencoder,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let Source { data, .. } = data(&args.data)?;
    let Some((x, labels)) = data.all() else {
        return Err(Error::message(format!("{} has no end; an encoder is trained on points of a file", args.data)));
    };
    let options = Options { hidden: args.hidden.clone(), epochs: args.epochs, noise: args.noise, ..Options::default() };
    let task = args.task.unwrap_or(if labels.is_some() { Task::Classifier } else { Task::Autoencoder });
    let progress = Progress::new(args.epochs as u64, 0, "{bar:32} epoch {pos}/{len}  {msg}  {eta} left");
    let begin = Instant::now();
    let each_epoch = |done: usize, loss: f64| {
        progress.step(done as u64);
        progress.show(format!("loss {loss:.2e}"), |message| {
            let due = done.is_multiple_of(args.epochs.div_ceil(6)) || done == args.epochs;
            due.then(|| format!("epoch {done}/{}  {message}  {:.0} s", args.epochs, begin.elapsed().as_secs_f64()))
        });
    };
    let encoder = match task {
        Task::Classifier => {
            let Some(labels) = labels else {
                return Err(Error::message(
                    "the data have no labels; a classifier needs them, --task autoencoder does not",
                ));
            };
            let labels: Vec<usize> = labels.iter().map(|label| *label as usize).collect();
            let classifier = Classifier::train_with(x, &labels, data.classes(), &options, args.seed, each_epoch)?;
            progress.finish();
            say(&format!(
                "right in {:.1}% of the data that it was trained on",
                100.0 * classifier.accuracy(x, &labels)?
            ))?;
            classifier.encoder()?
        }
        Task::Autoencoder => {
            let encoder = Encoder::autoencoder(x, data.dim(), &options, args.seed, each_epoch)?;
            progress.finish();
            encoder
        }
    };
    encoder.save(&args.out)?;
    let (shown, widths) = (args.out.display(), &args.hidden);
    say(&format!("{shown}: {} coordinates to {widths:?}; train on its features with", data.dim()))?;
    say(&format!("  cudrift train --data {} --features identity,encoder:{shown} --out DIR", args.data))
}
