//! `cudrift diagnose`: how near the drift is to a multiple of the score discrepancy.

use super::KernelName;
use super::config::{Options, Run, data};
use super::field::{Bandwidth, Case};
use crate::error::{Error, Result, say};
use crate::plot;
use crate::progress::Progress;
use clap::ValueEnum;
use cudrift::diagnostics::{Alignment, Block, ForceParts, SetUp, Synthetic, log_log_slope};
use cudrift::rng::{Purpose, Stream};
use cudrift::train::Trainer;
use cudrift::{DriftInputs, FieldInputs, FieldSpec, Form, Points};
use std::fmt::Display;
use std::path::{Path, PathBuf};

/// What a run without classes has.
const BLOCKS: [Block; 2] = [Block::Generated, Block::Positives];

#[derive(clap::Args)]
#[command(
    after_help = "A mean shift is V = alpha s + delta, exactly: a preconditioner times the kernel score, and a residual. Where\n\
                  distances agree, as in many dimensions, the drift V_p - V_q is C times the score discrepancy.\n\
                  Columns, means over queries: absolute |drift - C scores|², relative (over |drift|²), cosine, alpha p/q,\n\
                  C*/C (least squares over theory), residual |delta_p - delta_q|², effective sample sizes.\n\n\
                  --run takes the samples of a run's newest checkpoint for queries and for q, its data for p (classes in\n\
                  turn, whatever the features), its kernel, and for each of its temperatures, as annealed by then, the\n\
                  length scale that it comes to. A second table has what the force of as many samples and data is made of:\n\
                  the affinities' masses and effective sample sizes among generated g and data p; the mean step to the\n\
                  data's barycentre and, in the same unit, how far the columns' softmax moves barycentres (distortion) and\n\
                  how far that of the data is from what --references of them have (pool error).\n\n\
                  Examples: cudrift diagnose --synthetic ring,raw --out runs/view\n          \
                            cudrift diagnose --in points.npz --kernel laplace --bandwidth 0.5\n          \
                            cudrift diagnose --run runs/swiss-roll"
)]
pub(crate) struct Args {
    /// Two Gaussian mixtures, whose samples are drawn here; both with a comma
    #[arg(long, value_enum, value_delimiter = ',', required_unless_present_any = ["input", "run"], conflicts_with = "input")]
    synthetic: Vec<SyntheticName>,
    /// Or your points: queries x [n,D], and the two sets p [m,D] and q [l,D]
    #[arg(long = "in", value_name = "CASE.npz")]
    input: Option<PathBuf>,
    /// Or a run of `cudrift train`, which may be going on meanwhile
    #[arg(long, value_name = "DIR", conflicts_with_all = ["input", "synthetic", "dims", "seeds", "kernel", "norms", "out"])]
    run: Option<PathBuf>,
    /// Numbers of dimensions
    #[arg(long, value_delimiter = ',', default_values_t = [2, 8, 32, 128, 512, 2048], conflicts_with = "input")]
    dims: Vec<usize>,
    /// Draws of mixtures and samples, whose mean is shown
    #[arg(long, default_value_t = 3, conflicts_with = "input", value_parser = clap::value_parser!(u64).range(1..=1000))]
    seeds: u64,
    /// Samples of p, and of q
    #[arg(long, default_value_t = SetUp::default().references, conflicts_with = "input")]
    references: usize,
    /// Samples of q where the fields are taken
    #[arg(long, default_value_t = SetUp::default().queries, conflicts_with = "input")]
    queries: usize,
    /// The kernel
    #[arg(long, value_enum, default_value = "laplace")]
    kernel: KernelName,
    #[command(flatten)]
    bandwidth: Bandwidth,
    /// Length scale of the kernel in units of the queries' mean norm, where samples are drawn
    #[arg(long, value_name = "H", default_value_t = SetUp::default().bandwidth, conflicts_with = "input")]
    norms: f64,
    /// Leave out term j = i of q, which then has as many points as x
    #[arg(long, requires = "input")]
    self_mask: bool,
    /// A folder for ring.csv and ring.png, or raw
    #[arg(long, value_name = "DIR", conflicts_with = "input")]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum SyntheticName {
    /// Six modes on a ring in a random plane; q is p rotated by 15 degrees
    Ring,
    /// Six modes of p and four of q at several radii in random directions
    Raw,
}

impl SyntheticName {
    fn named(self) -> (Synthetic, &'static str) {
        match self {
            Self::Ring => (Synthetic::Ring, "ring"),
            Self::Raw => (Synthetic::Raw, "raw"),
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if let Some(path) = &args.input {
        let case = Case::read(path)?;
        let field = case.field(args.kernel, &args.bandwidth, args.self_mask, super::Backend::Cpu, 0)?;
        return say(&table("D", &[(case.dim(), Alignment::new(&field)?)]));
    }
    if let Some(folder) = &args.run {
        return of_run(args, folder);
    }
    if args.bandwidth.is_given() {
        return Err(Error::Usage("--bandwidth goes with --in; --synthetic takes --norms".to_owned()));
    }
    if let Some(folder) = &args.out {
        std::fs::create_dir_all(folder).map_err(|source| Error::io("create", folder, source))?;
    }
    for name in &args.synthetic {
        let (set, name) = name.named();
        let (csv, means) = measure(args, set, name)?;
        say(&format!("{name}\n{}", table("D", &means)))?;
        let high: Vec<_> = means.iter().filter(|(dim, _)| *dim >= 32).collect();
        if high.len() >= 2 {
            let slope = log_log_slope(high.iter().map(|(dim, row)| (*dim as f64, row.relative)));
            say(&format!("slope of log relative over log D from 32 on: {slope:.2} (the theory's bound falls as 1/D)"))?;
        }
        if let Some(folder) = &args.out {
            cudrift::files::write_atomically(&folder.join(format!("{name}.csv")), csv.as_bytes())?;
            let picture = folder.join(format!("{name}.png"));
            plot::alignment(&picture, &means)?;
            say(&format!("{} and {name}.csv are written", picture.display()))?;
        }
    }
    Ok(())
}

/// A line of text for each draw, and the mean over draws for each number of dimensions.
fn measure(args: &Args, set: Synthetic, name: &str) -> Result<(String, Vec<(usize, Alignment)>)> {
    let set_up = SetUp {
        kernel: args.kernel.into(),
        references: args.references,
        queries: args.queries,
        bandwidth: args.norms,
        seed: 0,
    };
    let mut dims = args.dims.clone();
    dims.sort_unstable();
    dims.dedup();
    let progress = Progress::new(dims.len() as u64 * args.seeds, 0, "{bar:32} {pos}/{len}  {msg}  {eta} left");
    let mut csv =
        "D,seed,absolute,relative,cosine,alpha_p,alpha_q,c_theory,c_star,residual,drift,score,ess_p,ess_q\n".to_owned();
    let mut means: Vec<(usize, Alignment)> = Vec::new();
    for dim in dims {
        let mut draws = Vec::new();
        for seed in 0..args.seeds {
            let draw = set.measure(dim, &SetUp { seed, ..set_up })?;
            let Alignment { absolute, relative, cosine, alpha: [p, q], c_theory, c_star, .. } = draw;
            let Alignment { residual, drift, score, ess: [ess_p, ess_q], .. } = draw;
            let row = [absolute, relative, cosine, p, q, c_theory, c_star, residual, drift, score, ess_p, ess_q];
            csv += &row.iter().fold(format!("{dim},{seed}"), |line, value| line + &format!(",{value:e}"));
            csv.push('\n');
            draws.push(draw);
            progress.step(means.len() as u64 * args.seeds + seed + 1);
            let last = seed + 1 == args.seeds;
            progress.show(format!("{name} in {dim} dimensions"), |text| last.then(|| format!("{text}: done")));
        }
        means.push((dim, mean(&draws)));
    }
    progress.finish();
    Ok((csv, means))
}

fn mean(draws: &[Alignment]) -> Alignment {
    let of = |pick: fn(&Alignment) -> f64| draws.iter().map(pick).sum::<f64>() / draws.len() as f64;
    Alignment {
        alpha: [of(|d| d.alpha[0]), of(|d| d.alpha[1])],
        c_theory: of(|d| d.c_theory),
        c_star: of(|d| d.c_star),
        absolute: of(|d| d.absolute),
        relative: of(|d| d.relative),
        cosine: of(|d| d.cosine),
        residual: of(|d| d.residual),
        drift: of(|d| d.drift),
        score: of(|d| d.score),
        ess: [of(|d| d.ess[0]), of(|d| d.ess[1])],
    }
}

/// The newest checkpoint of a run, at each of its temperatures.
fn of_run(args: &Args, folder: &Path) -> Result<()> {
    if args.bandwidth.is_given() {
        return Err(Error::usage("--bandwidth goes with --in; a run has its temperatures"));
    }
    let run = Run::resumed(&folder.join("config.json"), Options::default())?;
    let encoder = folder.join("encoder.safetensors");
    // Never the file that it came from, which may since have changed.
    let config = run.config(data(&run.data)?, Some(&*encoder))?;
    let trainer = Trainer::load(config, &folder.join("checkpoint.safetensors"))?;
    let (config, step) = (trainer.config(), trainer.steps_done());
    let (queries, references, dim) = (args.queries, args.references, config.data.dim());
    let model = trainer.model()?;
    let x = super::train::samples(&model, queries, config.seed)?;
    let q = super::train::samples(&model, references, !config.seed)?;
    let p = config.data.draw(&mut Stream::new(config.seed, Purpose::EvaluationData, step), references).values;

    let mut spec = config.spec.clone();
    let factor = config.annealing.map_or(1.0, |annealing| annealing.factor(step));
    spec.temperatures.iter_mut().for_each(|temperature| *temperature *= factor);
    let data = &p[..references.min(queries) * dim];
    let inputs = DriftInputs::new(Points::new(&x, [1, queries, dim])?, Points::new(data, [1, data.len() / dim, dim])?)?;
    let scale = cudrift::cpu::drift(&spec, &inputs)?.scale.distance;
    let inputs = FieldInputs::new((&x, [queries, dim]), (&p, [references, dim]), (&q, [references, dim]))?;
    let of_temperature = |temperature: &f64| -> Result<_> {
        let field = cudrift::cpu::field(&FieldSpec::new(spec.kernel, temperature * scale), &inputs)?;
        Ok((format!("{temperature:.3}"), Alignment::new(&field)?))
    };
    let rows = spec.temperatures.iter().map(of_temperature).collect::<Result<Vec<_>>>()?;
    say(&format!("step {step}; length scales are temperatures times {scale:.4}\n{}", table("R", &rows)))?;
    if spec.form == Form::Split {
        return say("the split form's force is a difference of two barycentres; there is no more to take apart");
    }
    let wide = |values: &[f32]| -> Vec<f64> { values.iter().copied().map(f64::from).collect() };
    let (x, data, p) = (wide(&x), wide(data), wide(&p));
    let inputs =
        DriftInputs::new(Points::new(&x, [1, queries, dim])?, Points::new(&data, [1, data.len() / dim, dim])?)?;
    let mut text = "\n|     R | mass g | mass p |  ESS g |  ESS p | step to p | distortion g | distortion p | pool error |\n\
                    |------:|-------:|-------:|-------:|-------:|----------:|-------------:|-------------:|-----------:|"
        .to_owned();
    for (parts, temperature) in ForceParts::new(&spec, &inputs)?.iter().zip(&spec.temperatures) {
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let [mass_g, mass_p] = BLOCKS.map(|block| mean(&parts.mass[block as usize]));
        let [ess_g, ess_p] = BLOCKS.map(|block| mean(&parts.effective[block as usize]));
        let [moved_g, moved_p] = BLOCKS.map(|block| mean(&parts.distortion(block)));
        let steps = parts.step[Block::Positives as usize].chunks_exact(dim);
        let steps: Vec<f64> = steps.map(|step| step.iter().map(|v| v * v).sum::<f64>().sqrt()).collect();
        let pool = mean(&parts.pool_error(&spec, &inputs, Block::Positives, (&p, [references, dim]))?);
        text += &format!(
            "\n| {temperature:>5.3} | {mass_g:>6.3} | {mass_p:>6.3} | {ess_g:>6.1} | {ess_p:>6.1} | {:>9.2e} | {moved_g:>12.2e} | {moved_p:>12.2e} | {pool:>10.2e} |",
            mean(&steps)
        );
    }
    say(&text)
}

fn table(first: &str, rows: &[(impl Display, Alignment)]) -> String {
    let head = format!(
        "| {first:>5} | absolute | relative | cosine | alpha p/q |  C*/C | residual |  ESS p |  ESS q |\n\
         |------:|---------:|---------:|-------:|----------:|------:|---------:|-------:|-------:|"
    );
    rows.iter().fold(head, |text, (first, row)| {
        let Alignment { absolute, relative, cosine, alpha: [p, q], c_theory, c_star, residual, ess, .. } = row;
        text + &format!(
            "\n| {first:>5} | {absolute:>8.2e} | {relative:>8.2e} | {cosine:>6.4} | {:>9.3} | {:>5.3} | {residual:>8.1e} | {:>6.0} | {:>6.0} |",
            p / q,
            c_star / c_theory,
            ess[0],
            ess[1]
        )
    })
}
