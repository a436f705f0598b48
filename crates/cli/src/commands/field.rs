//! `cudrift field`: what a set of points is moved by, between two others.

use super::{Backend, Coupled, CouplingArgs, CouplingName, FieldName, FormName, KernelName, warn_nonfinite};
use crate::arrays::{Output, is_reference, read_npz, write_npz};
use crate::error::{Error, Result, say};
use cudrift::cuda::Context;
use cudrift::metrics::median_distance;
use cudrift::rng::{Purpose, Stream};
use cudrift::{
    DriftInputs, DriftSpec, Field, FieldInputs, FieldSpec, Points, Projection, SelfMask, SlicedInputs, Velocity,
    WeightRule, cpu,
};
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
#[command(
    after_help = "In:   x [n,D], p [m,D], q [l,D]; optional weight_p [m], weight_q [l], and bandwidth [n], one for each\n      \
                        query, where --bandwidth gives none. Keys that begin with ref_, official_\n      \
                        or gauss_h, laplace_h, matern32_h, matern52_h are results and skipped.\n\
                  Out:  velocity [n,D], the field that is asked for; and what it is made of: ms_p, ms_q, drift,\n      \
                        score_p, score_q, score_diff [n,D], logz_p, logz_q, log_total_p, log_total_q [n], nonfinite [];\n      \
                        residual_p, residual_q [n,D] and alpha_p, alpha_q [n] with ms = alpha score + residual;\n      \
                        sharp [n,D], the drift over companion masses, and its sharp_ratio_p, sharp_ratio_q [n];\n      \
                        ess_p, ess_q [n], effective sample sizes.\n      \
                        Of sliced only velocity; q and bandwidth are not used. Of nystrom only velocity, with landmarks\n      \
                        among p. Of sd-flow all is at x with noise, queries [n,D]. w-flow is --coupling sinkhorn.\n      \
                        With another coupling than row: drift [n,D] = V of p against q, where the queries are the\n      \
                        rows and the bandwidth is the temperature; nonfinite []; for sinkhorn iterations [],\n      \
                        marginal_error [].\n\n\
                  Example: cudrift field --in points.npz --out field.npz --kernel laplace --bandwidth 0.5"
)]
pub(crate) struct Args {
    /// Queries and the two point sets
    #[arg(long = "in", value_name = "CASE.npz")]
    input: PathBuf,
    /// Where the result goes
    #[arg(long, value_name = "RESULT.npz")]
    out: PathBuf,
    /// Which field the result has as `velocity`
    #[arg(long, value_enum, default_value = "mean-shift")]
    field: FieldName,
    /// The kernel; laplace unless given, of the Coulomb field plummer
    #[arg(long, value_enum)]
    kernel: Option<KernelName>,
    /// Where |log p/q| ends in the weights of forward-kl and chi-squared
    #[arg(long, value_name = "L", default_value_t = super::MOST_LOG_RATIO, allow_negative_numbers = true)]
    most_log_ratio: f64,
    #[command(flatten)]
    bandwidth: Bandwidth,
    /// Directions of the sliced field
    #[arg(long, value_name = "L", default_value_t = super::DIRECTIONS)]
    directions: usize,
    /// Landmarks of the Nyström field, among p [default: 500, or all of fewer]
    #[arg(long, value_name = "M")]
    landmarks: Option<usize>,
    /// Seed of directions, landmarks and noise
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    coupling: CouplingArgs,
    /// Where to compute
    #[arg(long, value_enum, default_value = "auto")]
    backend: Backend,
    /// Compute so many times more, and print the median time
    #[arg(long, value_name = "N", default_value_t = 0)]
    runs: u32,
    /// Leave out term j = i of q, which then has as many points as x
    #[arg(long)]
    self_mask: bool,
}

/// The kernel's length scale.
#[derive(clap::Args)]
pub(super) struct Bandwidth {
    /// Length scale of the kernel, in units of the distance; `median` takes that of all distances among p and q
    #[arg(long, value_name = "H", allow_negative_numbers = true)]
    bandwidth: Option<Length>,
    /// Multiply it by D to this power: 0.5 where distances grow like the root of D
    #[arg(long, value_name = "A", default_value_t = 0.0, requires = "bandwidth", allow_negative_numbers = true)]
    dimension_exponent: f64,
}

impl Bandwidth {
    pub(super) fn is_given(&self) -> bool {
        self.bandwidth.is_some()
    }
}

#[derive(Clone, Copy)]
enum Length {
    Number(f64),
    Median,
}

impl std::str::FromStr for Length {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "median" => Ok(Self::Median),
            _ => text.parse().map(Self::Number).map_err(|_| "expected a number or `median`".to_owned()),
        }
    }
}

/// What `work` gives, and its median time over `runs` more.
fn timed<T>(runs: u32, work: impl Fn() -> cudrift::Result<T>) -> Result<T> {
    let result = work()?;
    let mut seconds = Vec::new();
    for _ in 0..runs {
        let start = std::time::Instant::now();
        work()?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    if let Some(median) = seconds.get(seconds.len() / 2) {
        say(&format!("{:.3} ms, the median of {runs} runs", median * 1e3))?;
    }
    Ok(result)
}

/// Points as those of the one group of a call.
fn group((values, [count, dim]): &(Vec<f32>, [usize; 2])) -> cudrift::Result<Points<'_, f32>> {
    Points::new(values, [1, *count, *dim])
}

fn no_bandwidth() -> Error {
    Error::Usage("give --bandwidth H, or bandwidth [n] in the file".to_owned())
}

/// How the golden files' own results begin.
const RESULTS: [&str; 4] = ["gauss_h", "laplace_h", "matern32_h", "matern52_h"];

/// Queries and two sets of points, as a file has them.
pub(super) struct Case {
    x: (Vec<f32>, [usize; 2]),
    p: (Vec<f32>, [usize; 2]),
    q: (Vec<f32>, [usize; 2]),
    weight_p: Option<Vec<f32>>,
    weight_q: Option<Vec<f32>>,
    bandwidths: Option<Vec<f32>>,
}

impl Case {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let keys = ["x", "p", "q", "weight_p", "weight_q", "bandwidth"];
        let skipped = |key: &str| is_reference(key) || RESULTS.iter().any(|prefix| key.starts_with(prefix));
        let mut arrays = read_npz(path, &keys, skipped)?;
        let mut points = |name: &str| -> Result<(Vec<f32>, [usize; 2])> {
            let array = arrays
                .remove(name)
                .ok_or_else(|| Error::format(path, format!("key {name:?} is missing; x, p and q are needed")))?;
            let shape = array.extents(path, name, "[count, D]")?;
            Ok((array.into_f32(), shape))
        };
        let (x, p, q) = (points("x")?, points("p")?, points("q")?);
        let mut numbers = |name: &str| -> Result<Option<Vec<f32>>> {
            let Some(array) = arrays.remove(name) else { return Ok(None) };
            let [_] = array.extents::<1>(path, name, "[count]")?;
            Ok(Some(array.into_f32()))
        };
        let (weight_p, weight_q, bandwidths) = (numbers("weight_p")?, numbers("weight_q")?, numbers("bandwidth")?);
        Ok(Self { x, p, q, weight_p, weight_q, bandwidths })
    }

    /// The fields of these points.
    pub(super) fn field(
        &self,
        kernel: KernelName,
        asked: &Bandwidth,
        self_mask: bool,
        backend: Backend,
        runs: u32,
    ) -> Result<Field<f32>> {
        let Self { x, p, q, weight_p, weight_q, bandwidths } = self;
        let mut inputs = FieldInputs::new((&x.0, x.1), (&p.0, p.1), (&q.0, q.1))?
            .weights(weight_p.as_deref(), weight_q.as_deref())?;
        let base = match (self.length(asked)?, bandwidths) {
            (Some(base), _) => base,
            (None, Some(own)) => {
                inputs = inputs.bandwidths(own)?;
                1.0
            }
            (None, None) => return Err(no_bandwidth()),
        };
        let mut spec = FieldSpec::for_dimension(kernel.into(), base, asked.dimension_exponent, x.1[1]);
        spec.self_mask = self_mask;
        let device = backend.device(Context::new)?;
        let field = timed(runs, || match &device {
            Some(device) => device.field(&spec, &inputs),
            None => cpu::field(&spec, &inputs),
        })?;
        warn_nonfinite(field.nonfinite, [&field.drift[..], &field.score_diff]);
        Ok(field)
    }

    /// What `--bandwidth` says.
    fn length(&self, asked: &Bandwidth) -> Result<Option<f64>> {
        Ok(match asked.bandwidth {
            Some(Length::Number(base)) => Some(base),
            Some(Length::Median) => Some(median_distance(&self.p.0, &self.q.0, self.dim())?),
            None => None,
        })
    }

    /// The drift of these points in another coupling.
    fn coupled(&self, args: &Args, coupled: Coupled) -> Result<cudrift::Drift> {
        let Self { x, p, q, weight_p, weight_q, .. } = self;
        let base = self.length(&args.bandwidth)?.ok_or_else(no_bandwidth)?;
        let own = FieldSpec::for_dimension(
            args.field.kernel(args.kernel)?.into(),
            base,
            args.bandwidth.dimension_exponent,
            self.dim(),
        );
        let mut spec = coupled.spec(DriftSpec::notebook());
        spec.affinity_floor = cudrift::AffinityFloor::None;
        (spec.kernel, spec.temperatures) = (own.kernel, vec![own.bandwidth]);
        // There a weight of 0 takes a target away in every coupling.
        spec.weights = WeightRule::Logit;
        let inputs = DriftInputs::new(group(x)?, group(p)?)?;
        let inputs = match weight_p {
            Some(w) => inputs.weight_positives(w)?,
            None => inputs,
        };
        let nothing = vec![0.0; x.1[0]];
        let inputs = if args.self_mask {
            if x != q || weight_q.is_some() {
                return Err(Error::usage("with this coupling --self-mask asks for q that is x, without weights"));
            }
            spec.self_mask = SelfMask::Remove;
            inputs
        } else {
            spec.self_mask = SelfMask::Keep;
            // The queries are no targets.
            let inputs = inputs.weight_generated(&nothing)?.negatives(group(q)?)?;
            match weight_q {
                Some(w) => inputs.weight_negatives(w)?,
                None => inputs,
            }
        };
        let device = args.backend.device(Context::new)?;
        let drift = timed(args.runs, || match &device {
            Some(device) => device.drift(&spec, &inputs),
            None => cpu::drift(&spec, &inputs),
        })?;
        warn_nonfinite(drift.nonfinite, [&drift.force[..]]);
        Ok(drift)
    }

    /// The sliced field towards p.
    fn sliced(&self, args: &Args) -> Result<Vec<f32>> {
        let kernel = args.kernel.is_some() || args.bandwidth.is_given();
        if kernel || args.self_mask || self.weight_p.is_some() || self.weight_q.is_some() {
            return Err(Error::usage("the sliced field has no kernel, bandwidth, self mask or weights"));
        }
        let Self { x, p, .. } = self;
        let directions = cudrift::directions(args.directions, self.dim(), args.seed, 0)?;
        let inputs = SlicedInputs::new((&x.0, x.1), (&p.0, p.1), (&directions, [args.directions, self.dim()]))?;
        let device = args.backend.device(Context::new)?;
        timed(args.runs, || match &device {
            Some(device) => device.sliced(&inputs),
            None => cpu::sliced(&inputs),
        })
    }

    /// The mean shift towards p by way of landmarks, less that towards q (spec 8.11).
    fn projected(&self, args: &Args) -> Result<Vec<f32>> {
        if self.weight_p.is_some() || self.weight_q.is_some() || self.bandwidths.is_some() {
            return Err(Error::usage("the Nyström field has no weights or bandwidths of queries"));
        }
        let Self { x, p, q, .. } = self;
        let base = self.length(&args.bandwidth)?.ok_or_else(no_bandwidth)?;
        let kernel = args.field.kernel(args.kernel)?.into();
        let mut spec = FieldSpec::for_dimension(kernel, base, args.bandwidth.dimension_exponent, self.dim());
        spec.self_mask = args.self_mask;
        FieldInputs::new((&x.0, x.1), (&p.0, p.1), (&q.0, q.1))?;
        let landmarks = args.landmarks.unwrap_or(super::LANDMARKS.min(p.1[0]));
        let projection = Projection::among(&spec, (&p.0, p.1), landmarks, args.seed)?;
        let device = args.backend.device(Context::new)?;
        // A field has a p; what is towards this one is not asked for.
        let first = (&projection.landmarks()[..self.dim()], [1, self.dim()]);
        let inputs = FieldInputs::new((&x.0, x.1), first, (&q.0, q.1))?;
        timed(args.runs, || {
            let (mut velocity, field) = match &device {
                Some(device) => (device.projected(&projection, &x.0)?, device.field(&spec, &inputs)?),
                None => {
                    let mut barycentres = cpu::projected(&projection, &x.0)?;
                    barycentres.iter_mut().zip(&x.0).for_each(|(v, x)| *v -= x);
                    (barycentres, cpu::field(&spec, &inputs)?)
                }
            };
            velocity.iter_mut().zip(&field.ms_q).for_each(|(v, shift)| *v -= shift);
            Ok(velocity)
        })
    }

    /// The queries with noise of the bandwidth.
    fn noised(&mut self, args: &Args) -> Result<()> {
        let Some(base) = self.length(&args.bandwidth)? else {
            return Err(Error::usage("the noise of sd-flow has the deviation --bandwidth H; give one"));
        };
        let kernel = args.field.kernel(args.kernel)?.into();
        let spec = FieldSpec::for_dimension(kernel, base, args.bandwidth.dimension_exponent, self.dim());
        let noise = Stream::new(args.seed, Purpose::Queries, 0).normals(self.x.0.len());
        self.x.0.iter_mut().zip(noise).for_each(|(x, e)| *x += spec.bandwidth as f32 * e);
        Ok(())
    }

    /// D.
    pub(super) fn dim(&self) -> usize {
        self.x.1[1]
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let mut case = Case::read(&args.input)?;
    let w_flow = args.field == FieldName::WFlow;
    let coupled = args.coupling.for_field(Some(args.field), CouplingName::Row)?;
    if args.coupling.form == Some(FormName::Joint) || coupled.coupling != CouplingName::Row {
        if args.field != FieldName::MeanShift && !w_flow {
            return Err(Error::usage("with this coupling there is no other field than mean-shift"));
        }
        let drift = case.coupled(args, coupled)?;
        let nonfinite = i64::try_from(drift.nonfinite).unwrap_or(i64::MAX);
        let reached = drift.convergence[0];
        let iterations = i64::from(reached.iterations);
        let mut arrays = vec![
            ("drift", case.x.1.to_vec(), Output::F32(&drift.force)),
            ("nonfinite", vec![], Output::I64(std::slice::from_ref(&nonfinite))),
        ];
        if coupled.coupling == CouplingName::Sinkhorn {
            arrays.push(("iterations", vec![], Output::I64(std::slice::from_ref(&iterations))));
            arrays.push(("marginal_error", vec![], Output::F64(std::slice::from_ref(&reached.error))));
        }
        return write_npz(&args.out, &arrays);
    }
    let Some(velocity) = args.field.velocity(args.most_log_ratio) else {
        let velocity = match args.field {
            FieldName::Nystrom => case.projected(args)?,
            _ => case.sliced(args)?,
        };
        return write_npz(&args.out, &[("velocity", case.x.1.to_vec(), Output::F32(&velocity))]);
    };
    if args.field == FieldName::SdFlow {
        case.noised(args)?;
    }
    let field =
        case.field(args.field.kernel(args.kernel)?, &args.bandwidth, args.self_mask, args.backend, args.runs)?;
    let nonfinite = i64::try_from(field.nonfinite).unwrap_or(i64::MAX);
    let ([residual_p, residual_q], sharp) = (field.residuals(), field.velocity(Velocity::Sharp)?);
    let velocity = field.velocity(velocity)?;
    let shape = case.x.1;
    let vectors = [
        ("velocity", &velocity),
        ("ms_p", &field.ms_p),
        ("ms_q", &field.ms_q),
        ("drift", &field.drift),
        ("score_p", &field.score_p),
        ("score_q", &field.score_q),
        ("score_diff", &field.score_diff),
        ("residual_p", &residual_p),
        ("residual_q", &residual_q),
        ("sharp", &sharp),
    ];
    let numbers = [
        ("logz_p", &field.logz_p),
        ("logz_q", &field.logz_q),
        ("alpha_p", &field.alpha_p),
        ("alpha_q", &field.alpha_q),
        ("sharp_ratio_p", &field.sharp_ratio_p),
        ("sharp_ratio_q", &field.sharp_ratio_q),
        ("log_total_p", &field.log_total_p),
        ("log_total_q", &field.log_total_q),
        ("ess_p", &field.ess_p),
        ("ess_q", &field.ess_q),
    ];
    let vectors = vectors.map(|(name, values)| (name, shape.to_vec(), Output::F32(values)));
    let numbers = numbers.map(|(name, values)| (name, vec![shape[0]], Output::F32(values)));
    let mut arrays: Vec<_> = vectors.into_iter().chain(numbers).collect();
    if args.field == FieldName::SdFlow {
        arrays.push(("queries", shape.to_vec(), Output::F32(&case.x.0)));
    }
    arrays.push(("nonfinite", vec![], Output::I64(std::slice::from_ref(&nonfinite))));
    write_npz(&args.out, &arrays)
}
