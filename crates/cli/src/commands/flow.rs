//! `cudrift flow`: points that move along a field, and a picture of them.

use super::config::data;
use super::train::PROJECTIONS;
use super::{
    Backend, CouplingArgs, CouplingName, DIRECTIONS, FieldChoices, FieldName, KernelName, LANDMARKS, MOST_LOG_RATIO,
    NO_COUPLING, POOL,
};
use crate::arrays::{Output, write_npy};
use crate::error::{Error, Result, say};
use crate::plot;
use crate::progress::Progress;
use cudrift::backend::{self, Head, Sampling};
use cudrift::cpu::Host;
use cudrift::cuda::Device;
use cudrift::data::Data;
use cudrift::metrics::sliced_wasserstein;
use cudrift::rng::{Purpose, Stream};
use cudrift::train::{Lookahead, Transport};
use cudrift::{DriftSpec, WeightRule};
use std::path::PathBuf;

#[derive(clap::Args)]
#[command(after_help = "Writes to DIR: flow.png (animated), frames.png (six moments), particles.npy [frames, N, D],\n\
                  flow.jsonl (a line per frame: step, mean square of a step, SWD to the data).\n\n\
                  Example: cudrift flow --data two-moons --field coulomb --bandwidth 0.3 --steps 300 --out runs/coulomb")]
pub(crate) struct Args {
    /// What the points go to: swiss-roll, checkerboard, two-moons, ring, or a file as train takes it
    #[arg(long)]
    data: String,
    /// Folder for what comes of it
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The field; without it the drift itself
    #[arg(long, value_enum)]
    field: Option<FieldName>,
    /// The kernel; laplace unless given, of the Coulomb field plummer
    #[arg(long, value_enum)]
    kernel: Option<KernelName>,
    /// Length scale of the kernel, the drift's temperature
    #[arg(long, value_name = "H", default_value_t = 0.3, allow_negative_numbers = true)]
    bandwidth: f64,
    /// Where |log p/q| ends in the weights of forward-kl and chi-squared
    #[arg(long, value_name = "L", default_value_t = MOST_LOG_RATIO, allow_negative_numbers = true)]
    most_log_ratio: f64,
    /// Directions of the sliced field, new ones in every step
    #[arg(long, value_name = "L", default_value_t = DIRECTIONS)]
    directions: usize,
    /// Landmarks of the Nyström field, among a file's points or 10,000 data of a distribution
    #[arg(long, value_name = "M", default_value_t = LANDMARKS)]
    landmarks: usize,
    /// Push each half of the points from the other half, in the place of itself
    #[arg(long)]
    independent: bool,
    /// Weights of so many drifts, each taken where the one before leads
    #[arg(long, value_delimiter = ',', value_name = "C,C,…", default_value = "1", allow_negative_numbers = true)]
    lookahead: Vec<f64>,
    #[command(flatten)]
    coupling: CouplingArgs,
    /// Points, and data that they go to
    #[arg(long, default_value_t = 1024, allow_negative_numbers = true)]
    points: usize,
    /// Steps
    #[arg(long, default_value_t = 200, allow_negative_numbers = true)]
    steps: u64,
    /// How far along the field a step goes
    #[arg(long, value_name = "ETA", default_value_t = 0.2, allow_negative_numbers = true)]
    step: f64,
    /// Divide the field by its root mean square over the points
    #[arg(long)]
    normalize: bool,
    /// Frames that are kept, the first and the last among them
    #[arg(long, default_value_t = 41, allow_negative_numbers = true)]
    frames: u64,
    /// Deviation of the normal points that it begins with
    #[arg(long, value_name = "S", default_value_t = 0.5, allow_negative_numbers = true)]
    spread: f32,
    /// Seed of points, data and directions
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Where to compute
    #[arg(long, value_enum, default_value = "auto")]
    backend: Backend,
}

/// Where the points are after `step` steps.
struct Frame {
    step: u64,
    points: Vec<f32>,
    /// Mean square of the step that led here.
    square: f64,
    swd: f64,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if args.frames < 2 || args.steps < args.frames - 1 {
        let (frames, steps) = (args.frames, args.steps);
        return Err(Error::message(format!("{frames} frames of {steps} steps; ask for 2 frames, and a step for each")));
    }
    if args.points < 2 {
        return Err(Error::message(format!("--points is {}, expected at least 2", args.points)));
    }
    if args.halves() && (args.points < 4 || !args.points.is_multiple_of(2)) {
        let asked = "an even number of 4 or more where halves are independent";
        return Err(Error::message(format!("--points is {}, expected {asked}", args.points)));
    }
    if args.halves() && args.lookahead != [1.0] {
        return Err(Error::message("halves that are independent go without --lookahead"));
    }
    if !(args.spread > 0.0 && args.spread.is_finite()) {
        return Err(Error::message(format!("--spread is {}, expected a finite number above 0", args.spread)));
    }
    let data = data(&args.data)?.data;
    let target = data.sample(&mut Stream::new(args.seed, Purpose::Data, 0), args.points);
    let frames = match args.backend.device(Device::new)? {
        None => flow(Host::new(), args, &data, &target)?,
        Some(device) => flow(device, args, &data, &target)?,
    };
    std::fs::create_dir_all(&args.out).map_err(|source| Error::io("create", &args.out, source))?;
    let points: Vec<f32> = frames.iter().flat_map(|frame| &frame.points).copied().collect();
    let shape = [frames.len(), args.points, data.dim()];
    write_npy(&args.out.join("particles.npy"), &shape, &Output::F32(&points))?;
    let line = |frame: &Frame| {
        let Frame { step, square, swd, .. } = frame;
        serde_json::json!({ "step": step, "mean_square": square, "swd1": swd }).to_string() + "\n"
    };
    let lines: String = frames.iter().map(line).collect();
    cudrift::files::write_atomically(&args.out.join("flow.jsonl"), lines.as_bytes())?;
    let titled: Vec<(String, &[f32])> =
        frames.iter().map(|f| (format!("step {}, SWD {:.3}", f.step, f.swd), &f.points[..])).collect();
    plot::flow(&args.out.join("flow.png"), &args.out.join("frames.png"), &target, &titled, data.dim())?;
    let (first, last) = (&frames[0], &frames[frames.len() - 1]);
    say(&format!(
        "SWD {:.4} after {} steps, {:.4} before; pictures in {}",
        last.swd,
        last.step,
        first.swd,
        args.out.display()
    ))
}

impl Args {
    /// The field and how far a step goes along it, or nothing for a drift.
    fn transport(&self, data: &Data) -> Result<Option<Transport>> {
        let Some(field) = self.field else { return Ok(None) };
        let choices = FieldChoices {
            kernel: field.kernel(self.kernel)?,
            bandwidth: self.bandwidth,
            most: self.most_log_ratio,
            directions: self.directions,
            landmarks: self.landmarks,
            pool: POOL,
            seed: self.seed,
        };
        let Some(along) = field.along(&choices, data)? else { return Ok(None) };
        if self.coupling.coupling.is_some() || self.coupling.form.is_some() {
            return Err(Error::usage(NO_COUPLING));
        }
        Ok(Some(Transport { along, step: self.step, normalize: self.normalize }))
    }

    /// Whether a half of the points is the other's own set.
    fn halves(&self) -> bool {
        self.independent || self.field == Some(FieldName::WFlow)
    }

    /// The drift's choices.
    fn drift(&self) -> Result<DriftSpec> {
        let coupled = self.coupling.for_field(self.field, CouplingName::RowColumn)?;
        let mut spec = coupled.spec(DriftSpec::notebook());
        let kernel = match self.field {
            Some(field) => field.kernel(self.kernel)?,
            None => self.kernel.unwrap_or(KernelName::Laplace),
        };
        (spec.kernel, spec.temperatures) = (kernel.into(), vec![self.bandwidth]);
        if self.halves() {
            spec.weights = WeightRule::Logit;
        }
        if self.normalize {
            return Err(Error::usage(format!("--normalize is for fields; the {} drift has none", spec.kernel)));
        }
        Ok(spec)
    }
}

fn too_far(step: u64) -> Error {
    Error::message(format!("the points leave what f32 holds in step {step}; give a smaller --step"))
}

/// The frames: a step is what regression onto x + step V would take off the samples in one go.
fn flow<B: backend::Backend>(mut backend: B, args: &Args, data: &Data, target: &[f32]) -> Result<Vec<Frame>> {
    let (n, dim) = (args.points, data.dim());
    let halves = args.halves();
    let sampling = if halves { Sampling::Halves(n) } else { Sampling::Batch(n) };
    // The gradient of the loss is -2 / (n D) of the step, with a drift of V alone.
    let shape = sampling.shape(dim);
    let (mut field, factor) = match args.transport(data)? {
        Some(field) => (backend.field(&field, &[shape], args.seed)?, 1.0),
        None => (backend.drift(&args.drift()?, &[shape])?, args.step),
    };
    if args.lookahead != [1.0] {
        backend.look_ahead(&mut field, &Lookahead { weights: args.lookahead.clone(), step: factor })?;
    }
    let factor = -0.5 * (n * dim) as f64 * factor;
    let mut x = Stream::new(args.seed, Purpose::Noise, 0).normals(n * dim);
    x.iter_mut().for_each(|v| *v *= args.spread);
    let positives = backend.upload("the data", target)?;
    // Where halves are independent: the other half, all of it, and none of its own.
    let others = if halves { n } else { 0 };
    let mut negatives = backend.array("the other half", others * dim)?;
    let weights = backend.upload("weights", &vec![1.0; others])?;
    let own = if halves { Some(backend.array("weights", n)?) } else { None };
    let mut gradient = backend.array("a step", n * dim)?;
    let swd = |x: &[f32]| -> Result<f64> { Ok(sliced_wasserstein(x, target, dim, PROJECTIONS, args.seed)?[0]) };
    let mut frames = vec![Frame { step: 0, swd: swd(&x)?, points: x.clone(), square: 0.0 }];
    let bar = Progress::new(args.steps, 0, "{bar:32} {pos}/{len}  {msg}  {per_sec:.0}, {eta} left");
    let mut order: Vec<usize> = (0..n).collect();
    for step in 1..=args.steps {
        if halves {
            // Other halves in every step: of the same ones, each would push what sets it apart from the other ever farther.
            let mut stream = Stream::new(args.seed, Purpose::Loader, step);
            (1..n).rev().for_each(|at| order.swap(at, stream.index(at + 1)));
        }
        let ordered: Vec<f32> = order.iter().flat_map(|at| &x[at * dim..][..dim]).copied().collect();
        let generated = backend.upload("the points", &ordered)?;
        if halves {
            backend.exchange(n * dim, &generated, &mut negatives)?;
        }
        let mut progress = backend.progress(&backend::Progress::new(step - 1, f64::NAN))?;
        let head = Head {
            generated: &generated,
            positives: &positives,
            negatives: [&negatives, &weights],
            own: own.as_ref(),
            gradient: &mut gradient,
        };
        match backend.gradient(&mut field, &mut [head], &mut progress) {
            Err(cudrift::Error::Diverged { .. }) => return Err(too_far(step)),
            done => done?,
        }
        let mut square = 0.0;
        for (at, g) in order.iter().zip(backend.download(&gradient, n * dim)?.chunks_exact(dim)) {
            for (x, g) in x[at * dim..][..dim].iter_mut().zip(g) {
                let by = factor * f64::from(*g);
                square += by * by;
                *x = (f64::from(*x) + by) as f32;
            }
        }
        if x.iter().any(|v| !v.is_finite()) {
            return Err(too_far(step));
        }
        // Frames at equal distances, the last step among them.
        if step * (args.frames - 1) / args.steps > (step - 1) * (args.frames - 1) / args.steps {
            let swd = swd(&x)?;
            frames.push(Frame { step, points: x.clone(), square: square / (n * dim) as f64, swd });
            bar.show(format!("SWD {swd:.3}"), |_| None);
        }
        bar.step(step);
    }
    bar.finish();
    Ok(frames)
}
