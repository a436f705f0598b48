//! `cudrift bench`: the drift on the official shapes, beside what this machine can do at best.

use crate::MEMORY;
use crate::error::{Error, Result, say};
use cudrift::cpu::Plan;
use cudrift::rng::{Purpose, Stream};
use cudrift::{DriftInputs, DriftSpec, Element, Points, bf16, cpu, f16};
use std::time::Instant;

#[derive(clap::Args)]
#[command(
    after_help = "Time is the median of the runs, forward plus gradient, three temperatures (0.02, 0.05, 0.2), all threads.\n\
                  GFLOP are counted as 8 B G T D: distances, and one barycenter product per temperature.\n\
                  Share is of the sgemm ceiling measured in the same run; A, B and C are the phases' parts of the time: distances,\n\
                  coefficients, contraction. Buffers are reused from run to run. Memory is the peak beyond inputs and outputs."
)]
pub(crate) struct Args {
    /// Shapes to time: letters, or B x G x P x N x D such as 8x64x64x32x640
    #[arg(long, value_delimiter = ',', default_value = "a,b,c,d,e,f")]
    shapes: Vec<String>,
    /// Type of the inputs
    #[arg(long, default_value = "f32", value_parser = ["f32", "f16", "bf16"])]
    dtype: String,
    /// Timed runs of each shape
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Keep nothing between phases: least memory, more time
    #[arg(long)]
    lean: bool,
    /// Do not measure the ceilings, which takes a second or two
    #[arg(long)]
    no_ceilings: bool,
    /// One JSON object on standard output instead of a table
    #[arg(long)]
    json: bool,
}

/// Letter, [B, G, P, N, D].
const SHAPES: [(&str, [usize; 5]); 6] = [
    ("a", [8, 64, 64, 32, 640]),
    ("b", [64, 64, 64, 32, 640]),
    ("c", [32, 64, 64, 16, 1280]),
    ("d", [1, 2048, 2048, 0, 2]),
    ("e", [1, 4096, 4096, 0, 512]),
    ("f", [256, 64, 64, 32, 256]),
];

struct Row {
    name: String,
    shape: [usize; 5],
    seconds: f64,
    /// Of the three phases.
    phases: [f64; 3],
    gflop: f64,
    memory: usize,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if args.runs == 0 {
        return Err(Error::message("--runs is 0, expected at least 1"));
    }
    let mut shapes = Vec::new();
    for name in &args.shapes {
        let letter = SHAPES.iter().find(|(letter, _)| letter == name).map(|(_, shape)| *shape);
        let numbers = || name.split('x').map(|n| n.parse().ok()).collect::<Option<Vec<usize>>>()?.try_into().ok();
        let shape = letter.or_else(numbers).ok_or_else(|| {
            Error::message(format!(
                "no shape {name:?}; expected some of a,b,c,d,e,f or five numbers such as 8x64x64x32x640"
            ))
        })?;
        shapes.push((name.clone(), shape));
    }
    let ceilings = (!args.no_ceilings).then(cpu::ceilings);
    if !args.json {
        let measured = ceilings.map_or("not measured".to_owned(), |c| {
            format!("sgemm {:.0} GFLOP/s, copy {:.1} GB/s, exp {:.2} G/s", c.sgemm_gflops, c.copy_gbs, c.exp_gs)
        });
        let threads = rayon::current_num_threads();
        say(&format!("{threads} threads, {}; ceilings: {measured}", cpu::instruction_set()))?;
        say("shape  B x G x P x N x D                    ms   GFLOP/s   share   A / B / C %   memory MiB")?;
    }
    let mut rows = Vec::new();
    for (name, shape) in shapes {
        let row = match args.dtype.as_str() {
            "f16" => time(name, shape, args, f16::from_f32)?,
            "bf16" => time(name, shape, args, bf16::from_f32)?,
            _ => time(name, shape, args, |v| v)?,
        };
        if !args.json {
            let [b, g, p, n, d] = row.shape;
            let rate = row.gflop / row.seconds;
            say(&format!(
                "{:<6} {:<24} {:>9.2} {rate:>9.1} {:>7}  {:>3.0} {:>3.0} {:>3.0}   {:>12.1}",
                if SHAPES.iter().any(|(letter, _)| *letter == row.name) { &row.name } else { "" },
                format!("{b} x {g} x {p} x {n} x {d}"),
                row.seconds * 1e3,
                ceilings.map_or("-".to_owned(), |c| format!("{:.0}%", 100.0 * rate / c.sgemm_gflops)),
                100.0 * row.phases[0] / row.seconds,
                100.0 * row.phases[1] / row.seconds,
                100.0 * row.phases[2] / row.seconds,
                row.memory as f64 / (1 << 20) as f64
            ))?;
        }
        rows.push(row);
    }
    if args.json {
        let rows: Vec<_> = rows
            .iter()
            .map(|row| {
                serde_json::json!({
                    "shape": row.name,
                    "b_g_p_n_d": row.shape,
                    "dtype": args.dtype,
                    "median_ms": row.seconds * 1e3,
                    "phases_ms": row.phases.map(|s| s * 1e3),
                    "gflops": row.gflop / row.seconds,
                    "share_of_sgemm": ceilings.map(|c| row.gflop / row.seconds / c.sgemm_gflops),
                    "peak_bytes_beyond_inputs_and_outputs": row.memory,
                })
            })
            .collect();
        let report = serde_json::json!({
            "threads": rayon::current_num_threads(),
            "instruction_set": cpu::instruction_set(),
            "ceilings": ceilings.map(|c| serde_json::json!({
                "sgemm_gflops": c.sgemm_gflops,
                "copy_gbs": c.copy_gbs,
                "exp_gs": c.exp_gs,
            })),
            "rows": rows,
        });
        say(&format!("{report:#}"))?;
    }
    Ok(())
}

fn time<T: Element>(
    name: String,
    shape @ [b, g, p, n, d]: [usize; 5],
    args: &Args,
    round: fn(f32) -> T,
) -> Result<Row> {
    let samples = |step, count: usize, shift: f32| -> Vec<T> {
        let mut stream = Stream::new(1, Purpose::Data, step);
        (0..b * count * d).map(|_| round(stream.normal() + shift)).collect()
    };
    let (generated, positives, negatives) = (samples(0, g, 0.0), samples(1, p, 0.5), samples(2, n, 0.0));
    let inputs = DriftInputs::new(Points::new(&generated, [b, g, d])?, Points::new(&positives, [b, p, d])?)?
        .negatives(Points::new(&negatives, [b, n, d])?)?;
    let spec = DriftSpec::official();
    let mut gradient = vec![0.0; b * g * d];
    let mut loss = vec![0.0; b];
    let mut seconds = Vec::new();
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let mut plan = Plan::new(&spec, inputs.shape())?;
    if args.lean {
        plan = plan.keep(0);
    }
    let mut workspace = plan.workspace();
    let mut phases = [const { Vec::new() }; 3];
    for _ in 0..=args.runs {
        let start = Instant::now();
        let scale = plan.distances(&inputs, &mut workspace)?.finish(&spec)?;
        let distances = start.elapsed().as_secs_f64();
        let norms = plan.coefficients(&inputs, &scale, &mut workspace)?.finish(&spec, &scale);
        let coefficients = start.elapsed().as_secs_f64();
        plan.gradient(&inputs, &scale, &norms, &mut workspace, &mut gradient, &mut loss)?;
        let all = start.elapsed().as_secs_f64();
        seconds.push(all);
        for (phase, time) in phases.iter_mut().zip([distances, coefficients - distances, all - coefficients]) {
            phase.push(time);
        }
        if !gradient.iter().all(|v| v.is_finite()) || gradient.iter().all(|v| *v == 0.0) {
            return Err(Error::message(format!("shape {name}: the gradient is not what it should be")));
        }
    }
    let memory = MEMORY.peak_usage().saturating_sub(before);
    let gflop = 8.0 * (b * g * (g + n + p) * d) as f64 / 1e9;
    Ok(Row { name, shape, seconds: median(seconds), phases: phases.map(median), gflop, memory })
}

/// The median of all runs but the first, which warms the caches and the threads up.
fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.remove(0);
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}
