//! `cudrift field`: mean shift and kernel score.

use super::{KernelName, warn_nonfinite};
use crate::arrays::{Output, is_reference, read_npz, write_npz};
use crate::error::{Error, Result};
use clap::ValueEnum;
use cudrift::{FieldInputs, FieldSpec, cpu};
use std::path::PathBuf;

#[derive(clap::Args)]
#[command(
    after_help = "In:   x [n,D], p [m,D], q [l,D]; optional weight_p [m], weight_q [l]. Keys that begin with ref_, official_\n      \
                        or gauss_h, laplace_h, matern32_h, matern52_h are results and skipped.\n\
                  Out:  ms_p, ms_q, drift, score_p, score_q, score_diff [n,D], logz_p, logz_q [n], nonfinite [].\n\n\
                  Example: cudrift field --in points.npz --out field.npz --kernel laplace --bandwidth 0.5"
)]
pub(crate) struct Args {
    /// Queries and the two point sets
    #[arg(long = "in", value_name = "CASE.npz")]
    input: PathBuf,
    /// Where the result goes
    #[arg(long, value_name = "RESULT.npz")]
    out: PathBuf,
    /// Which field is meant; both write the same arrays
    #[arg(long, value_enum, default_value = "mean-shift")]
    field: FieldName,
    /// The kernel
    #[arg(long, value_enum, default_value = "laplace")]
    kernel: KernelName,
    /// Length scale of the kernel, in units of the distance
    #[arg(long, value_name = "H", allow_negative_numbers = true)]
    bandwidth: f64,
    /// Leave out term j = i of q, which then has as many points as x
    #[arg(long)]
    self_mask: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum FieldName {
    /// Mean shift, the barycenter minus the query
    MeanShift,
    /// Kernel score, the gradient of the log mass
    Score,
}

/// How the golden files' own results begin.
const RESULTS: [&str; 4] = ["gauss_h", "laplace_h", "matern32_h", "matern52_h"];

pub(crate) fn run(args: &Args) -> Result<()> {
    let keys = ["x", "p", "q", "weight_p", "weight_q"];
    let mut arrays =
        read_npz(&args.input, &keys, |key| is_reference(key) || RESULTS.iter().any(|prefix| key.starts_with(prefix)))?;
    let mut points = |name: &str| -> Result<(Vec<f32>, [usize; 2])> {
        let array = arrays
            .remove(name)
            .ok_or_else(|| Error::format(&args.input, format!("key {name:?} is missing; x, p and q are needed")))?;
        let shape = array.extents(&args.input, name, "[count, D]")?;
        Ok((array.into_f32(), shape))
    };
    let (x, p, q) = (points("x")?, points("p")?, points("q")?);
    let mut weights = |name: &str| -> Result<Option<Vec<f32>>> {
        let Some(array) = arrays.remove(name) else { return Ok(None) };
        let [_] = array.extents::<1>(&args.input, name, "[count]")?;
        Ok(Some(array.into_f32()))
    };
    let (weight_p, weight_q) = (weights("weight_p")?, weights("weight_q")?);
    let mut spec = FieldSpec::new(args.kernel.into(), args.bandwidth);
    spec.self_mask = args.self_mask;
    let inputs =
        FieldInputs::new((&x.0, x.1), (&p.0, p.1), (&q.0, q.1))?.weights(weight_p.as_deref(), weight_q.as_deref())?;
    // Both fields come from one pass over the pairs; --field says which one the caller is after.
    let (FieldName::MeanShift | FieldName::Score) = args.field;
    let field = cpu::field(&spec, &inputs)?;
    let (n, nonfinite) = (x.1[0], i64::try_from(field.nonfinite).unwrap_or(i64::MAX));
    let vector = |values| (x.1.to_vec(), Output::F32(values));
    let arrays = [
        ("ms_p", vector(&field.ms_p)),
        ("ms_q", vector(&field.ms_q)),
        ("drift", vector(&field.drift)),
        ("score_p", vector(&field.score_p)),
        ("score_q", vector(&field.score_q)),
        ("score_diff", vector(&field.score_diff)),
        ("logz_p", (vec![n], Output::F32(&field.logz_p))),
        ("logz_q", (vec![n], Output::F32(&field.logz_q))),
        ("nonfinite", (vec![], Output::I64(&[nonfinite]))),
    ];
    write_npz(&args.out, &arrays.map(|(name, (shape, values))| (name, shape, values)))?;
    warn_nonfinite(field.nonfinite, [&field.drift[..], &field.score_diff]);
    Ok(())
}
