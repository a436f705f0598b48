//! `cudrift train`: a run in a folder, from configuration to pictures.

use super::config::{Options, Run, data};
use super::{Backend, CouplingArgs, FieldName, KernelName, Precision, Preset};
use crate::arrays::{Output, write_npy};
use crate::error::{Error, Result, note, say};
use crate::plot;
use crate::progress::Progress;
use cudrift::backend;
use cudrift::classifier::{self, Classifier};
use cudrift::cpu::Host;
use cudrift::cuda::Device;
use cudrift::data::Data;
use cudrift::features::{Encoder, Feature};
use cudrift::generator::Mlp;
use cudrift::metrics::{Prdc, maximum_mean_discrepancy, median_distance, prdc, sliced_wasserstein};
use cudrift::rng::{Purpose, Stream};
use cudrift::train::{Profile, Step, Trainer};
use cudrift::{DriftSpec, FeatureScale};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Samples in evaluations, in `samples.npy` and in the picture.
const SAMPLES: usize = 2048;
/// Neighbours in precision, recall and coverage.
const NEIGHBOURS: usize = 5;
/// Directions of the sliced Wasserstein distance.
pub(super) const PROJECTIONS: usize = 200;

#[derive(clap::Args)]
#[command(
    after_help = "Writes to DIR: config.json, metrics.jsonl (a line per logged step), checkpoint.safetensors (to resume),\n\
                  generator.safetensors (to sample), samples.npy [2048, D], samples.png, loss.png.\n\
                  Ctrl-C writes a checkpoint and leaves; --resume goes on from it, bit for bit.\n\n\
                  The TOML file takes the same names as config.json, among them what has no flag: noise_dim, hidden,\n\
                  blocks (residual), field_step (1: samples are regressed onto x + V), field_normalize (V over its root mean\n\
                  square), most_log_ratio, directions (of the sliced field), landmarks (of nystrom) and pool (how many\n\
                  data of a distribution they stand for), lookahead_step, annealing_rate (by which the\n\
                  temperatures' logarithms fall each step) and\n\
                  annealing_least (the least factor), weights (affinity, logit or ignored), beta1, beta2,\n\
                  weight_decay (AdamW), warmup, clip_norm, ema_decay, log_every, checkpoint_every.\n\n\
                  Features: patches:SIZE are means and deviations of an image's SIZE x SIZE patches (of 1, the pixels),\n\
                  fourier:COUNT:BANDWIDTH random cosines, and encoder:FILE the layers of a network from cudrift encoder,\n\
                  of which the run keeps a copy, encoder.safetensors. identity is the samples themselves.\n\n\
                  A .npz with labels [n] trains a generator with classes, told the guidance scale. Its batches are made\n\
                  by labels (per step), generated, positives, negatives (per label), guidance (least and greatest\n\
                  scale), guidance_power, unguided (share), loaded (data per step), class_buffer and buffer. At the end a\n\
                  table says, for several guidance scales, how many of the samples a classifier trained on the data takes\n\
                  for their class, how sure it is, and by 5 nearest neighbours which share of them lies among the data\n\
                  (precision) and which share of the data has one of them near (coverage); these also in the last\n\
                  layer of that classifier.\n\n\
                  Example: cudrift train --data two-moons --kernel gaussian --temperatures 0.07 --out runs/moons"
)]
pub(crate) struct Args {
    /// swiss-roll, checkerboard, two-moons, ring, points [n, D] in a .npy, or a .npz with points under the key x or
    /// images [n, height, width] under images, and perhaps labels [n]
    #[arg(long)]
    data: Option<String>,
    /// Folder of the run
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Numeric choices of the drift [default: notebook]
    #[arg(long, value_enum)]
    preset: Option<Preset>,
    /// Kernel of the distance [default: laplace]
    #[arg(long, value_enum)]
    kernel: Option<KernelName>,
    /// Temperatures [default: 0.05, or the preset's]
    #[arg(long, value_delimiter = ',', value_name = "R,R,…", allow_negative_numbers = true)]
    temperatures: Option<Vec<f64>>,
    #[command(flatten)]
    coupling: CouplingArgs,
    /// Train along a field in the place of the drift; the temperature is its bandwidth
    #[arg(long, value_enum)]
    field: Option<FieldName>,
    /// Push each half of a batch from the other half, which is independent of it, in the place of itself
    #[arg(long)]
    independent: bool,
    /// Weights of so many drifts, each taken where the one before leads, with the length of the first: 1,1 looks one step
    /// ahead [default: 1]
    #[arg(long, value_delimiter = ',', value_name = "C,C,…", allow_negative_numbers = true)]
    lookahead: Option<Vec<f64>>,
    /// What the drift is computed of, each with its own scale; the losses are added: identity, patches:SIZE,
    /// fourier:COUNT:BANDWIDTH, encoder:FILE [default: identity]
    #[arg(long, value_delimiter = ',', value_name = "F,F,…")]
    features: Option<Vec<String>>,
    /// Training steps [default: 2000]
    #[arg(long, allow_negative_numbers = true)]
    steps: Option<u64>,
    /// Generated samples, and fresh data points, per step [default: 2048]
    #[arg(long, allow_negative_numbers = true)]
    batch: Option<usize>,
    /// Learning rate of Adam [default: 1e-3]
    #[arg(long, allow_negative_numbers = true)]
    lr: Option<f64>,
    /// Seed of everything random [default: 42]
    #[arg(long, allow_negative_numbers = true)]
    seed: Option<u64>,
    /// Where to compute [default: auto]
    #[arg(long, value_enum)]
    backend: Option<Backend>,
    /// Operands of the generator's products [default: f32]
    #[arg(long, value_enum)]
    precision: Option<Precision>,
    /// Go on with the run in DIR
    #[arg(long)]
    resume: bool,
    /// Options from a file; flags win over it
    #[arg(long, value_name = "FILE.toml")]
    config: Option<PathBuf>,
    /// Say at the end where the time of a step went
    #[arg(long)]
    profile: bool,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let flags = Options {
        data: args.data,
        preset: args.preset,
        kernel: args.kernel,
        temperatures: args.temperatures,
        coupling: args.coupling.coupling,
        form: args.coupling.form,
        sinkhorn_iterations: args.coupling.sinkhorn_iterations,
        sinkhorn_tolerance: args.coupling.sinkhorn_tolerance,
        field: args.field.map(Some),
        independent: args.independent.then_some(true),
        lookahead: args.lookahead,
        features: args.features,
        steps: args.steps,
        batch: args.batch,
        lr: args.lr,
        seed: args.seed,
        backend: args.backend,
        precision: args.precision,
        ..Options::default()
    };
    let options = match &args.config {
        Some(path) => flags.or(Options::from_toml(path)?),
        None => flags,
    };
    let folder = Folder(args.out);
    let (run, device) = folder.run(options, args.resume)?;
    match device {
        None => train(Host::new(), &folder, &run, args.resume, args.profile),
        Some(device) => train(device, &folder, &run, args.resume, args.profile),
    }
}

fn train<B: backend::Backend>(backend: B, folder: &Folder, run: &Run, resume: bool, profile: bool) -> Result<()> {
    let Opened { mut trainer, mut log, images } = folder.open(backend, run, resume)?;
    if profile {
        trainer.start_profile();
    }
    let stop = Arc::new(AtomicBool::new(false));
    let handler = Arc::clone(&stop);
    ctrlc::set_handler(move || handler.store(true, Ordering::SeqCst))
        .map_err(|error| Error::message(format!("cannot listen for Ctrl-C: {error}")))?;

    let first = trainer.steps_done();
    let progress = Progress::new(run.steps, first, "{bar:32} {pos}/{len}  {msg}  {per_sec:.0}, {eta} left");
    let begin = Instant::now();
    let mut told = false;
    while trainer.steps_done() < run.steps {
        trainer.step()?;
        let step = trainer.steps_done();
        if step == 1 || step.is_multiple_of(run.log_every) || step == run.steps {
            let report = trainer.report()?;
            let swd = trainer.evaluate(SAMPLES, PROJECTIONS)?;
            let seconds = log.seconds_before + begin.elapsed().as_secs_f64();
            log.write(&report, swd, trainer.config().optimizer.learning_rate_at(step), seconds)?;
            if !told && trainer.config().field.is_none() && moves_nothing(&trainer.config().spec, report.loss, swd[0]) {
                told = true;
                progress.note(&format!(
                    "note: at step {step} the drift moves no sample (loss {:.0e}): at these temperatures samples see one \
                     another and no data; give --temperatures nearer to their distance from the data, about {:.2}, or \
                     anneal from there (annealing_rate in --config)",
                    report.loss, swd[0]
                ));
            }
            progress.show(format!("loss {:.2e}  SWD {:.3}", report.loss_ema, swd[0]), |message| {
                let seconds = begin.elapsed().as_secs_f64();
                let left = seconds / (step - first) as f64 * (run.steps - step) as f64;
                Some(format!("step {step}/{}  {message}  {seconds:.0} s, {left:.0} s left", run.steps))
            });
        }
        if step.is_multiple_of(run.checkpoint_every) {
            folder.save(&trainer)?;
        }
        progress.step(step);
        if stop.load(Ordering::SeqCst) && step < run.steps {
            folder.save(&trainer)?;
            progress.finish();
            let folder = folder.0.display();
            return Err(Error::message(format!(
                "interrupted after step {step} of {}; its checkpoint is written, go on with --resume --out {folder}",
                run.steps
            )));
        }
    }
    progress.finish();
    folder.save(&trainer)?;
    finish(folder, &trainer, &log, images)?;
    if let Some(profile) = trainer.profile() {
        print_profile(&profile);
    }
    Ok(())
}

/// Would a million such steps not lead the samples to the data, which lie `swd` away? The loss is the mean square of the
/// drift, in units of the samples' own scale unless that is raw.
fn moves_nothing(spec: &DriftSpec, loss: f64, swd: f64) -> bool {
    let unit = if spec.feature_scale == FeatureScale::Raw { swd } else { 1.0 };
    loss.sqrt() < 1e-6 * unit
}

/// Everything that a run writes.
const FILES: [&str; 7] = [
    "config.json",
    "checkpoint.safetensors",
    "metrics.jsonl",
    "generator.safetensors",
    "samples.npy",
    "samples.png",
    "loss.png",
];

/// A run that can go on.
struct Opened<B: backend::Backend> {
    trainer: Trainer<B>,
    log: Log,
    images: Option<[usize; 2]>,
}

/// The folder of a run, and the names in it.
struct Folder(PathBuf);

impl Folder {
    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// What the run is, and the device that it goes on, if not on the CPU. Refuses a folder that does not fit.
    fn run(&self, options: Options, resume: bool) -> Result<(Run, Option<Device>)> {
        let (config_path, checkpoint) = (self.path("config.json"), self.path("checkpoint.safetensors"));
        let folder = self.0.display();
        if let Some(name) = FILES.iter().find(|name| !resume && self.path(name).exists()) {
            let problem = format!("{folder} holds {name} of an earlier run; add --resume, or choose another --out");
            return Err(Error::message(problem));
        }
        // A run writes its checkpoint first, so anything else without one is not a run to go on with.
        let lost = |name: &&&str| !["config.json", "checkpoint.safetensors"].contains(name) && self.path(name).exists();
        if let Some(name) = FILES.iter().find(lost).filter(|_| resume && !checkpoint.exists()) {
            let problem = format!("{folder} holds {name} but no checkpoint.safetensors, so it cannot be resumed");
            return Err(Error::message(problem));
        }
        if resume && !self.0.is_dir() {
            return Err(Error::message(format!("there is no folder {folder} to resume; leave out --resume to begin")));
        }
        let run =
            if resume && config_path.exists() { Run::resumed(&config_path, options)? } else { Run::new(options)? };
        let device = run.backend.device(Device::new)?;
        Ok((run, device))
    }

    /// Starts the run, or goes on with it; in either case there is a checkpoint to resume from when this returns.
    fn open<B: backend::Backend>(&self, backend: B, run: &Run, resume: bool) -> Result<Opened<B>> {
        let (config_path, checkpoint) = (self.path("config.json"), self.path("checkpoint.safetensors"));
        let folder = self.0.display();
        let source = data(&run.data)?;
        let images = source.images;
        let fresh = !(resume && checkpoint.exists());
        // The file that it came from may since have changed.
        let own_encoder = self.path("encoder.safetensors");
        let config = run.config(source, Some(&*own_encoder).filter(|_| !fresh))?;
        let trainer =
            if fresh { Trainer::on(backend, config)? } else { Trainer::load_on(backend, config, &checkpoint)? };
        if trainer.steps_done() > run.steps {
            let done = trainer.steps_done();
            return Err(Error::message(format!("{folder} has {done} steps already; give --steps {done} or more")));
        }
        if resume && fresh {
            note(&format!("note: {folder} has no checkpoint yet; beginning at step 0"));
        }
        std::fs::create_dir_all(&self.0).map_err(|source| Error::io("create", &self.0, source))?;
        let mut text = serde_json::to_string_pretty(run).map_err(|e| Error::message(e.to_string()))?;
        text.push('\n');
        cudrift::files::write_atomically(&config_path, text.as_bytes())?;
        if fresh {
            for feature in &trainer.config().features {
                if let Feature::Encoder(encoder) = feature {
                    encoder.save(&own_encoder)?;
                }
            }
            self.save(&trainer)?;
        }
        let log = Log::open(self, trainer.steps_done())?;
        Ok(Opened { trainer, log, images })
    }

    fn save<B: backend::Backend>(&self, trainer: &Trainer<B>) -> Result<()> {
        Ok(trainer.save(&self.path("checkpoint.safetensors"))?)
    }
}

/// `metrics.jsonl`, and what the curves need of it.
struct Log {
    path: PathBuf,
    file: std::fs::File,
    points: Vec<plot::Point>,
    seconds_before: f64,
}

impl Log {
    /// Keeps the lines up to `step`: a killed run may have logged beyond its checkpoint.
    fn open(folder: &Folder, step: u64) -> Result<Self> {
        let path = folder.path("metrics.jsonl");
        let bytes = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            bytes => bytes.map_err(|source| Error::io("read", &path, source))?,
        };
        let text = String::from_utf8_lossy(&bytes);
        let mut kept = String::new();
        let mut points = Vec::new();
        let mut seconds_before = 0.0;
        for line in text.lines() {
            // The last line of a killed run may be torn; it is beyond the checkpoint in any case.
            let Ok(record) = serde_json::from_str::<serde_json::Value>(line) else { continue };
            let number = |key: &str| record[key].as_f64().unwrap_or(f64::NAN);
            let Some(at) = record["step"].as_u64().filter(|at| *at <= step) else { continue };
            points.push(plot::Point {
                step: at,
                loss: number("loss"),
                loss_ema: number("loss_ema"),
                swd1: number("swd1"),
            });
            seconds_before = number("seconds");
            kept.push_str(line);
            kept.push('\n');
        }
        cudrift::files::write_atomically(&path, kept.as_bytes())?;
        let file =
            std::fs::OpenOptions::new().append(true).open(&path).map_err(|source| Error::io("open", &path, source))?;
        Ok(Self { path, file, points, seconds_before })
    }

    fn write(&mut self, report: &Step, swd: [f64; 2], learning_rate: f64, seconds: f64) -> Result<()> {
        let line = serde_json::json!({
            "step": report.step,
            "loss": report.loss,
            "loss_ema": report.loss_ema,
            "swd1": swd[0],
            "swd2": swd[1],
            "scale": report.scale,
            "grad_norm": report.grad_norm,
            "learning_rate": learning_rate,
            "seconds": (seconds * 1e3).round() / 1e3,
        });
        self.file.write_all(format!("{line}\n").as_bytes()).map_err(|source| Error::io("write", &self.path, source))?;
        self.points.push(plot::Point { step: report.step, loss: report.loss, loss_ema: report.loss_ema, swd1: swd[0] });
        Ok(())
    }
}

/// The generator, samples and pictures, and a summary on standard output.
fn finish<B: backend::Backend>(
    folder: &Folder,
    trainer: &Trainer<B>,
    log: &Log,
    images: Option<[usize; 2]>,
) -> Result<()> {
    let config = trainer.config();
    let dim = config.data.dim();
    let model = trainer.model()?;
    model.save(&folder.path("generator.safetensors"))?;
    let classes = model.architecture().classes;
    let labels = in_turn(SAMPLES, classes);
    let generated = samples(&model, SAMPLES, config.seed)?;
    write_npy(&folder.path("samples.npy"), &[SAMPLES, dim], &Output::F32(&generated))?;
    let draw = |at| config.data.draw(&mut Stream::new(config.seed, Purpose::EvaluationData, at), SAMPLES);
    let data = draw(trainer.steps_done());
    match images {
        Some(shape) => {
            let sets = [("data", &data.values[..], &data.labels[..]), ("generated", &generated, &labels)];
            plot::images(&folder.path("samples.png"), shape, classes, sets)?;
        }
        None => plot::samples(&folder.path("samples.png"), &data.values, &generated, dim)?,
    }
    plot::loss(&folder.path("loss.png"), &log.points)?;

    let [swd1, _] = sliced_wasserstein(&generated, &data.values, dim, PROJECTIONS, config.seed)?;
    let other = draw(u64::MAX).values;
    let [floor, _] = sliced_wasserstein(&other, &data.values, dim, PROJECTIONS, config.seed)?;
    // Data that are all one point, or samples that are not finite, have none, which is no reason to lose the run.
    let mmd = |samples: &[f32]| {
        let bandwidth = median_distance(&other, &data.values, dim)?;
        maximum_mean_discrepancy(samples, &data.values, dim, &[bandwidth])
    };
    let [mmd, mmd_floor] = [&generated, &other].map(|samples| mmd(samples).unwrap_or(f64::NAN));
    let loss = log.points.last().map_or(f64::NAN, |p| p.loss_ema);
    let shown = folder.0.display();
    say(&format!(
        "loss {loss:.2e} (average), SWD {swd1:.4} (two draws of the data: {floor:.4}), MMD² {mmd:.1e} ({mmd_floor:.1e})"
    ))?;
    if classes > 0 {
        judge(&model, &config.data, config.seed)?;
    }
    say(&format!("look at {shown}/samples.png and {shown}/loss.png; sample with"))?;
    let class = if classes > 0 { " --class 0 --guidance 1" } else { "" };
    say(&format!("  cudrift sample --model {shown}/generator.safetensors --count 4096{class} --out samples.npy"))
}

/// Samples of a generator, each class in turn, as `cudrift sample` gives them.
pub(super) fn samples(model: &Mlp, count: usize, seed: u64) -> Result<Vec<f32>> {
    Ok(match model.architecture().classes {
        0 => cudrift::train::sample(model, count, seed)?,
        classes => cudrift::train::sample_classes(model, &in_turn(count, classes), 1.0, seed)?,
    })
}

fn in_turn(count: usize, classes: usize) -> Vec<usize> {
    (0..count).map(|k| k % classes.max(1)).collect()
}

/// Prints, for several guidance scales, how many generated samples a classifier of the data takes for their class, how sure
/// it is of that class, and how they lie among the data.
fn judge(model: &Mlp, data: &Data, seed: u64) -> Result<()> {
    /// Data that are compared with as many samples.
    const MOST: usize = 5000;
    let Some((values, Some(labels))) = data.all() else { return Ok(()) };
    let dim = data.dim();
    let count = labels.len().min(MOST);
    let all: Vec<usize> = labels.iter().map(|label| *label as usize).collect();
    let (values_of, labels) = (&values[..count * dim], &all[..count]);
    // Another seed than the generator's, whose initial weights would otherwise come from the same numbers.
    let classifier = Classifier::train(values, &all, data.classes(), &classifier::Options::default(), !seed)?;
    let scales: &[f64] = if model.architecture().guided { &[1.0, 1.5, 2.0, 3.0, 4.0] } else { &[1.0] };
    let samples = scales.iter().map(|guidance| cudrift::train::sample_classes(model, labels, *guidance, seed));
    let samples = samples.collect::<cudrift::Result<Vec<_>>>()?;
    let among = Among::of(values_of, dim, None, seed)?;
    say(&format!("guidance  accuracy  confidence  {}", Among::HEADER))?;
    for (guidance, samples) in scales.iter().zip(&samples) {
        let accuracy = classifier.accuracy(samples, labels)?;
        let probabilities = classifier.probabilities(samples)?;
        let rows = probabilities.chunks_exact(classifier.classes()).zip(labels);
        let confidence = rows.map(|(row, label)| f64::from(row[*label])).sum::<f64>() / count as f64;
        say(&format!("{guidance:<8}  {accuracy:<8.3}  {confidence:<10.4}  {}", among.row(samples)?))?;
    }
    let encoder = classifier.encoder()?;
    let among = Among::of(values_of, dim, Some(&encoder), seed)?;
    say("in the last hidden layer of that classifier")?;
    say(&format!("guidance                        {}", Among::HEADER))?;
    for (guidance, samples) in scales.iter().zip(&samples) {
        say(&format!("{guidance:<8}                        {}", among.row(samples)?))?;
    }
    Ok(())
}

/// Data that samples are compared with, in their own coordinates or in an encoder's.
struct Among<'a> {
    encoder: Option<&'a Encoder>,
    data: Vec<f32>,
    dim: usize,
    bandwidth: f64,
    seed: u64,
}

impl<'a> Among<'a> {
    const HEADER: &'static str = "precision  recall  coverage  MMD2     SWD";

    fn of(data: &[f32], dim: usize, encoder: Option<&'a Encoder>, seed: u64) -> Result<Self> {
        let (data, dim) = match encoder {
            None => (data.to_vec(), dim),
            Some(encoder) => (encoder.features(data)?, encoder.output_dim()),
        };
        Ok(Self { bandwidth: median_distance(&data, &data, dim)?, encoder, data, dim, seed })
    }

    fn row(&self, samples: &[f32]) -> Result<String> {
        let features = self.encoder.map(|encoder| encoder.features(samples)).transpose()?;
        let samples = features.as_deref().unwrap_or(samples);
        let Prdc { precision, recall, coverage, .. } = prdc(&self.data, samples, self.dim, NEIGHBOURS)?;
        let mmd = maximum_mean_discrepancy(&self.data, samples, self.dim, &[self.bandwidth])?;
        let [swd, _] = sliced_wasserstein(samples, &self.data, self.dim, PROJECTIONS, self.seed)?;
        Ok(format!("{precision:<9.3}  {recall:<6.3}  {coverage:<8.3}  {mmd:<7.1e}  {swd:.4}"))
    }
}

fn print_profile(profile: &Profile) {
    let parts = [
        ("noise and data", profile.sampling),
        ("generator, forward", profile.forward),
        ("features", profile.features),
        ("drift", profile.drift),
        ("generator, backward", profile.backward),
        ("update", profile.update),
    ];
    let total: f64 = parts.iter().map(|(_, seconds)| seconds).sum();
    note(&format!("{:<20} {:>9} {:>6}", "part of a step", "seconds", "share"));
    for (name, seconds) in parts {
        note(&format!("{name:<20} {seconds:>9.2} {:>5.1}%", 100.0 * seconds / total.max(f64::MIN_POSITIVE)));
    }
}
