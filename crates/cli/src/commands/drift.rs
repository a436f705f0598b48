//! `cudrift drift`: one call on the arrays of a file.

use super::{Backend, CouplingArgs, CouplingName, KernelName, Preset, warn_nonfinite};
use crate::arrays::{Array, Output, is_reference, read_npz, write_npz};
use crate::error::{Error, Result, note};
use clap::ValueEnum;
use cudrift::cuda::cudarc::driver::DeviceRepr;
use cudrift::{Coupling, DriftInputs, DriftSpec, Element, Points, bf16, cpu, f16};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
#[command(
    after_help = "In:   gen [B,G,D], pos [B,P,D]; optional neg [B,N,D], weight_gen [B,G], weight_neg [B,N],\n      \
                        weight_pos [B,P], R_list [R]. Keys that begin with ref_ or official_ are skipped.\n\
                  Out:  loss [B], scale [], scale_inputs [], loss_R [R], goal_scaled [B,G,D], grad_gen [B,G,D]\n      \
                        (gradient of the sum of loss over B), nonfinite [] (count of inputs); for sinkhorn\n      \
                        iterations [R] and marginal_error [R], of the plan that came least near.\n\n\
                  Example: cudrift drift --in case.npz --out result.npz --temperatures 0.02,0.05,0.2"
)]
pub(crate) struct Args {
    /// The samples
    #[arg(long = "in", value_name = "CASE.npz")]
    input: PathBuf,
    /// Where the result goes
    #[arg(long, value_name = "RESULT.npz")]
    out: PathBuf,
    /// The numeric choices
    #[arg(long, value_enum, default_value = "official")]
    preset: Preset,
    /// Kernel of the normalised distance [default: laplace]
    #[arg(long, value_enum)]
    kernel: Option<KernelName>,
    /// Temperatures [default: R_list of the file, else the preset's]
    #[arg(long, value_delimiter = ',', value_name = "R,R,…", allow_negative_numbers = true)]
    temperatures: Option<Vec<f64>>,
    #[command(flatten)]
    coupling: CouplingArgs,
    /// Type that the samples are rounded to before anything else
    #[arg(long, value_enum, default_value = "f32")]
    dtype: DtypeName,
    #[arg(long, value_enum, default_value = "auto")]
    /// Where to compute
    backend: Backend,
}

#[derive(Clone, Copy, ValueEnum)]
enum DtypeName {
    F32,
    F16,
    Bf16,
}

const KEYS: [&str; 7] = ["gen", "pos", "neg", "weight_gen", "weight_neg", "weight_pos", "R_list"];

pub(crate) fn run(args: &Args) -> Result<()> {
    let mut arrays = read_npz(&args.input, &KEYS, is_reference)?;
    let mut spec = args.coupling.or_default(CouplingName::RowColumn)?.spec(args.preset.spec());
    if let Some(kernel) = args.kernel {
        spec.kernel = kernel.into();
    }
    let r_list = arrays.remove("R_list");
    if let Some(temperatures) = &args.temperatures {
        spec.temperatures.clone_from(temperatures);
    } else if let Some(r_list) = r_list {
        let [_] = r_list.extents::<1>(&args.input, "R_list", "[R]")?;
        spec.temperatures = r_list.into_f64();
    }
    spec.validate()?;
    let case = Case::new(&args.input, arrays)?;
    if spec.weights == cudrift::WeightRule::Ignored && case.weights.iter().any(Option::is_some) {
        note("warning: the notebook preset applies no weights; those of the file are ignored");
    }
    match args.dtype {
        DtypeName::F32 => case.drift(&spec, |v| v, args),
        DtypeName::F16 => case.drift(&spec, f16::from_f32, args),
        DtypeName::Bf16 => case.drift(&spec, bf16::from_f32, args),
    }
}

struct Samples {
    values: Vec<f32>,
    shape: [usize; 3],
}

struct Case {
    generated: Samples,
    positives: Samples,
    negatives: Option<Samples>,
    /// Of generated samples, negatives and positives.
    weights: [Option<Vec<f32>>; 3],
}

impl Case {
    fn new(path: &Path, mut arrays: BTreeMap<String, Array>) -> Result<Self> {
        let mut samples = |name: &str, layout: &str| -> Result<Option<Samples>> {
            let Some(array) = arrays.remove(name) else { return Ok(None) };
            let shape = array.extents(path, name, layout)?;
            Ok(Some(Samples { values: array.into_f32(), shape }))
        };
        let missing = |name: &str| Error::format(path, format!("key {name:?} is missing; gen and pos are needed"));
        let generated = samples("gen", "[B, G, D]")?.ok_or_else(|| missing("gen"))?;
        let positives = samples("pos", "[B, P, D]")?.ok_or_else(|| missing("pos"))?;
        let negatives = samples("neg", "[B, N, D]")?;
        let mut weights = |name: &str, points: Option<&Samples>| -> Result<Option<Vec<f32>>> {
            let Some(array) = arrays.remove(name) else { return Ok(None) };
            let shape: [usize; 2] = array.extents(path, name, "[B, count]")?;
            let expected = points.map_or([generated.shape[0], 0], |p| [p.shape[0], p.shape[1]]);
            if shape != expected {
                return Err(Error::format(path, format!("{name} has shape {shape:?}, expected {expected:?}")));
            }
            Ok(Some(array.into_f32()))
        };
        let weights = [
            weights("weight_gen", Some(&generated))?,
            weights("weight_neg", negatives.as_ref())?,
            weights("weight_pos", Some(&positives))?,
        ];
        Ok(Self { generated, positives, negatives, weights })
    }

    fn drift<T: Element + DeviceRepr>(&self, spec: &DriftSpec, round: fn(f32) -> T, args: &Args) -> Result<()> {
        let round = |s: &Samples| s.values.iter().map(|v| round(*v)).collect::<Vec<T>>();
        let (generated, positives) = (round(&self.generated), round(&self.positives));
        let negatives = self.negatives.as_ref().map(round);
        let device = args.backend.device(cudrift::cuda::Context::new)?;
        let build = || {
            let mut inputs = DriftInputs::new(
                Points::new(&generated, self.generated.shape)?,
                Points::new(&positives, self.positives.shape)?,
            )?;
            if let (Some(values), Some(samples)) = (&negatives, &self.negatives) {
                inputs = inputs.negatives(Points::new(values, samples.shape)?)?;
            }
            let [weight_generated, weight_negatives, weight_positives] = &self.weights;
            if let Some(w) = weight_generated {
                inputs = inputs.weight_generated(w)?;
            }
            if let Some(w) = weight_negatives {
                inputs = inputs.weight_negatives(w)?;
            }
            if let Some(w) = weight_positives {
                inputs = inputs.weight_positives(w)?;
            }
            let drift = match &device {
                Some(device) => device.drift(spec, &inputs)?,
                None => cpu::drift(spec, &inputs)?,
            };
            Ok((inputs, drift))
        };
        let (inputs, result) =
            build().map_err(|error: cudrift::Error| Error::format(&args.input, error.to_string()))?;
        let shape = self.generated.shape.to_vec();
        let nonfinite = i64::try_from(result.nonfinite).unwrap_or(i64::MAX);
        let (goal, gradient) = (result.goal(&inputs), result.gradient());
        let iterations: Vec<i64> = result.convergence.iter().map(|c| c.iterations.into()).collect();
        let errors: Vec<f64> = result.convergence.iter().map(|c| c.error).collect();
        let mut arrays = vec![
            ("loss", vec![result.loss.len()], Output::F32(&result.loss)),
            ("scale", vec![], Output::F64(std::slice::from_ref(&result.scale.scale))),
            ("scale_inputs", vec![], Output::F64(std::slice::from_ref(&result.scale.sigma))),
            ("loss_R", vec![result.loss_r.len()], Output::F64(&result.loss_r)),
            ("goal_scaled", shape.clone(), Output::F32(&goal)),
            ("grad_gen", shape, Output::F32(&gradient)),
            ("nonfinite", vec![], Output::I64(std::slice::from_ref(&nonfinite))),
        ];
        if matches!(spec.coupling, Coupling::Sinkhorn(_)) {
            arrays.push(("iterations", vec![iterations.len()], Output::I64(&iterations)));
            arrays.push(("marginal_error", vec![errors.len()], Output::F64(&errors)));
        }
        write_npz(&args.out, &arrays)?;
        warn_nonfinite(result.nonfinite, [&result.loss[..], &goal, &gradient]);
        Ok(())
    }
}
