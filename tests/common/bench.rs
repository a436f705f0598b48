//! What the tests of the CUDA drift share: cases on the device, and what is asked of their results.

use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaSlice, CudaStream, DeviceRepr};
use cudrift::cuda::{Inputs, Kernels, Options, Outputs, Plan, Statistics, cudarc};
use cudrift::{AffinityFloor, Coupling, DriftSpec, Dtype, Form, Kernel, Sinkhorn, bf16, f16};

use super::{Case, Convert, check, device, naive, relative_error};

/// A stream with the kernels.
pub struct Bench {
    pub stream: Arc<CudaStream>,
    pub kernels: Kernels,
    pub options: Options,
}

/// A case on the device, with everything that a run takes.
pub struct Loaded<T> {
    pub plan: Plan,
    pub arrays: Arrays<T>,
    pub workspace: CudaSlice<u8>,
}

/// The samples and results of a head. Every allocation ends with a NaN of its own: there is no empty one.
pub struct Arrays<T> {
    pub samples: [CudaSlice<T>; 3],
    pub weights: [Option<CudaSlice<f32>>; 3],
    pub force: CudaSlice<f32>,
    pub gradient: CudaSlice<f32>,
    pub loss: CudaSlice<f32>,
    /// NaN before the samples: with an odd number, no sample begins where a word does.
    pub skip: usize,
}

impl<T: Convert + DeviceRepr> Arrays<T> {
    pub fn new(stream: &Arc<CudaStream>, case: &Case, skip: usize) -> Self {
        let (typed, _) = case.rounded::<T>();
        let nan = T::from_f32(f32::NAN);
        let upload = |samples: &[T]| stream.clone_htod(&[&vec![nan; skip], samples, &[nan]].concat()).unwrap();
        let weights = |weights: &Option<Vec<f32>>| {
            weights.as_ref().filter(|w| !w.is_empty()).map(|w| stream.clone_htod(w).unwrap())
        };
        // What is not written shows.
        let poison = |count: usize| stream.clone_htod(&vec![f32::NAN; count + 1]).unwrap();
        Self {
            samples: [&typed.generated, &typed.positives, &typed.negatives].map(|samples| upload(samples)),
            weights: [&case.weight_generated, &case.weight_positives, &case.weight_negatives].map(weights),
            force: poison(case.generated.len()),
            gradient: poison(case.generated.len()),
            loss: poison(case.shape.groups),
            skip,
        }
    }

    pub fn views(&mut self) -> (Inputs<'_, T>, Outputs<'_>) {
        let skip = self.skip;
        let [generated, positives, negatives] = self.samples.each_ref().map(|all| all.slice(skip..all.len() - 1));
        let [weight_generated, weight_positives, weight_negatives] =
            self.weights.each_ref().map(|weights| weights.as_ref().map(CudaSlice::as_view));
        let inputs = Inputs {
            generated: generated.into(),
            positives: (!positives.is_empty()).then(|| positives.into()),
            negatives: (!negatives.is_empty()).then(|| negatives.into()),
            weight_generated,
            weight_negatives,
            weight_positives,
        };
        let [force, gradient, loss] = [&mut self.force, &mut self.gradient, &mut self.loss].map(|all| {
            let end = all.len() - 1;
            Some(all.slice_mut(..end))
        });
        (inputs, Outputs { force, gradient, loss })
    }

    pub fn read(&self, stream: &Arc<CudaStream>, statistics: Statistics) -> Outcome {
        let download = |array: &CudaSlice<f32>| {
            let mut all = stream.clone_dtoh(array).unwrap();
            assert!(all.pop().unwrap().is_nan(), "written beyond the end");
            all
        };
        Outcome {
            force: download(&self.force),
            gradient: download(&self.gradient),
            loss: download(&self.loss),
            statistics,
        }
    }
}

/// What a run gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    pub force: Vec<f32>,
    pub gradient: Vec<f32>,
    pub loss: Vec<f32>,
    pub statistics: Statistics,
}

impl Bench {
    pub fn new() -> Option<Self> {
        device().map(|_| Self::on(0))
    }

    /// On a device by its number.
    pub fn on(ordinal: usize) -> Self {
        let context = CudaContext::new(ordinal).unwrap();
        let (stream, kernels) = (context.new_stream().unwrap(), Kernels::load(&context).unwrap());
        Self { stream, kernels, options: Options::default() }
    }

    pub fn load<T: Convert + DeviceRepr>(&self, spec: &DriftSpec, case: &Case) -> Loaded<T> {
        self.load_with(spec, case, self.options)
    }

    pub fn load_with<T: Convert + DeviceRepr>(&self, spec: &DriftSpec, case: &Case, options: Options) -> Loaded<T> {
        let plan = Plan::grouped(spec, &[case.shape], T::DTYPE, options).unwrap();
        Loaded { arrays: Arrays::new(&self.stream, case, 0), workspace: self.workspace(&plan), plan }
    }

    /// A workspace full of NaN, which no result may show.
    pub fn workspace(&self, plan: &Plan) -> CudaSlice<u8> {
        self.stream.clone_htod(&vec![0xff; plan.workspace_bytes()]).unwrap()
    }

    pub fn enqueue<T: Convert + DeviceRepr>(&self, loaded: &mut Loaded<T>) -> cudrift::Result<()> {
        let Loaded { plan, arrays, workspace } = loaded;
        let (inputs, outputs) = arrays.views();
        plan.run(&self.kernels, &self.stream, inputs, workspace, outputs)
    }

    pub fn read<T: Convert + DeviceRepr>(&self, loaded: &Loaded<T>) -> Outcome {
        let statistics = loaded.plan.statistics(&self.stream, &loaded.workspace).unwrap().remove(0);
        loaded.arrays.read(&self.stream, statistics)
    }

    pub fn run<T: Convert + DeviceRepr>(&self, spec: &DriftSpec, case: &Case) -> Outcome {
        self.run_with::<T>(spec, case, self.options)
    }

    pub fn run_with<T: Convert + DeviceRepr>(&self, spec: &DriftSpec, case: &Case, options: Options) -> Outcome {
        let mut loaded = self.load_with::<T>(spec, case, options);
        self.enqueue(&mut loaded).unwrap();
        self.read(&loaded)
    }

    /// Runs a case in both rungs and compares with the f64 reference on the rounded samples. On tensor cores the force
    /// may be twice as wrong as the plain formulas with rounded coefficients.
    pub fn compare<T: Convert + DeviceRepr>(&self, what: &str, spec: &DriftSpec, case: &Case, bound: f64) {
        for tensor in [false, true] {
            let options = Options { tensor_cores: Some(tensor), ..self.options };
            let case = operands::<T>(case, tensor);
            judge::<T>(what, spec, &case, &self.run_with::<T>(spec, &case, options), tensor, bound);
        }
    }
}

/// f32 to TF32, ties away from 0.
pub fn tf32(x: f32) -> f32 {
    f32::from_bits(if x.is_finite() { (x.to_bits() + 0x1000) & !0x1fff } else { x.to_bits() })
}

/// The case with samples that tensor cores take as they are, where products run on these.
pub fn operands<T: Convert>(case: &Case, tensor: bool) -> Case {
    let mut case = case.clone();
    if tensor && T::DTYPE == Dtype::F32 {
        for samples in [&mut case.generated, &mut case.positives, &mut case.negatives] {
            samples.iter_mut().for_each(|x| *x = tf32(*x));
        }
    }
    case
}

/// By what part of itself a coefficient may be off once it is rounded for tensor cores.
pub fn unit<T: Convert>() -> f64 {
    if T::DTYPE == Dtype::Bf16 { 2f64.powi(-8) } else { 2f64.powi(-11) }
}

/// Compares with the f64 reference on the rounded samples.
pub fn judge<T: Convert>(what: &str, spec: &DriftSpec, case: &Case, got: &Outcome, tensor: bool, bound: f64) {
    let (_, rounded) = case.rounded::<T>();
    let want = rounded.reference(spec);
    let what = format!("{what} {:?} {}{}", case.shape, T::DTYPE, if tensor { " tensor" } else { "" });
    let bound = if tensor {
        let naive = rounded_naive::<T>(spec, &rounded, &want.force);
        // Norms come from rounded coefficients too: of few rows, they move every force by part of a unit.
        2.0 * naive + unit::<T>() / 4.0 + bound
    } else {
        bound
    };
    check(&format!("{what} force"), relative_error(&got.force, &want.force), bound);
    check(&format!("{what} gradient"), relative_error(&got.gradient, &want.grad), bound);
    check(&format!("{what} loss"), relative_error(&got.loss, &want.loss), 2.0 * bound);
    check(&format!("{what} loss_R"), relative_error(&got.statistics.loss_r, &want.loss_r), 2.0 * bound);
    for (k, (got, want)) in got.statistics.rows.iter().zip(&want.rows).enumerate() {
        // Affinities are f32 in every rung, of exponents in the hundreds.
        let bound = 2e-4;
        check(&format!("{what} masses {k}"), relative_error(&got.mass, &want.mass), bound);
        // Without a floor, what far rows have of mass is below anything that f32 holds.
        let floored = matches!(spec.affinity_floor, AffinityFloor::Product(_));
        if floored || (spec.kernel == Kernel::Laplace && want.mass.iter().all(|mass| *mass > 1e-3)) {
            check(&format!("{what} effective samples {k}"), relative_error(&got.effective, &want.effective), bound);
        }
    }
    assert_eq!(got.statistics.rows.len(), want.rows.len());
    for (got, want) in got.statistics.convergence.iter().zip(&want.convergence) {
        assert_eq!(got.iterations, want.iterations, "{what}");
        check(&format!("{what} marginals"), (got.error - want.error).abs(), 1e-2 * want.error + 1e-5);
    }
    let (got, want) = (&got.statistics.scale, want.scale);
    check(&format!("{what} scale"), relative_error(&[got.scale, got.sigma], &[want.scale, want.sigma]), 2e-6);
}

/// How wrong the plain formulas are with coefficients rounded to a type. Where few coefficients matter it hangs on how
/// each happens to be rounded, so it is the worst of five: as they are, and up to a thousandth more or less.
pub fn rounded_naive<T: Convert>(spec: &DriftSpec, case: &Case, want: &[f64]) -> f64 {
    fn rounded<T: Convert>(c: f32) -> f32 {
        if T::DTYPE == Dtype::F32 { tf32(c) } else { T::from_f32(c).back() }
    }
    let rounds: [fn(f32) -> f32; 5] = [
        rounded::<T>,
        |c| rounded::<T>(c * 1.001) / 1.001,
        |c| rounded::<T>(c * 1.0003) / 1.0003,
        |c| rounded::<T>(c * 0.9997) / 0.9997,
        |c| rounded::<T>(c * 0.999) / 0.999,
    ];
    let errors = rounds.map(|round| relative_error(&naive::force_rounded(spec, case, Some(round)), want));
    // Where the plain formulas cancel to nonsense a coefficient's own rounding is left.
    errors.into_iter().filter(|error| error.is_finite()).reduce(f64::max).unwrap_or(unit::<T>() / 2.0)
}

/// The dialects under a name.
pub fn dialects() -> [(&'static str, DriftSpec); 3] {
    [("official", DriftSpec::official()), ("paper", DriftSpec::paper()), ("notebook", DriftSpec::notebook())]
}

/// A random call.
pub struct Call {
    pub what: String,
    pub spec: DriftSpec,
    pub case: Case,
    pub dtype: Dtype,
    pub keep_distances: Option<bool>,
    pub identity: Option<bool>,
}

impl Call {
    /// Random shape, type, kernel, dialect, temperatures, weights and ways to go about it.
    pub fn random(seed: u64) -> Self {
        // Most groups are one block, some are tiles; some samples are long, some are a few coordinates.
        let most = |tiles: bool| if tiles { [130, 260] } else { [35, 70] };
        Self::drawn(seed, |tiles, long| (most(tiles), [8, 90, 90, 700][long]))
    }

    /// The same, of what attacks can run again and again: a few tiles of a few coordinates, or one.
    pub fn small(seed: u64) -> Self {
        Self::drawn(seed, |tiles, long| if tiles { ([70, 260], 8) } else { ([24, 48], [8, 40, 40, 130][long]) })
    }

    /// `extents` says how many generated samples and positives there are at most, and coordinates, given whether groups
    /// are tiles, and which of four lengths samples have.
    fn drawn(seed: u64, extents: impl Fn(bool, usize) -> ([u64; 2], u64)) -> Self {
        let mut random = super::Normal::new(seed);
        let mut below = |n: u64| (random.bits() % n) as usize;
        let ([generated, positives], long) = extents(below(4) == 0, below(4));
        let shape = [1 + below(3), 1 + below(generated), below(20), 1 + below(positives), 1 + below(long)];
        let (name, mut spec) = dialects()[below(3)].clone();
        spec.kernel = Kernel::ALL[below(Kernel::ALL.len() as u64)];
        spec = match below(8) {
            0 => spec.coupled(Coupling::Sinkhorn(Sinkhorn::new(3)), Form::Joint),
            1 => spec.coupled(Coupling::Sinkhorn(Sinkhorn::new(3)), Form::Split),
            2 => spec.coupled([Coupling::RowColumn, Coupling::Row][below(2)], Form::Split),
            3 => spec.coupled(Coupling::Row, Form::Joint),
            _ => spec,
        };
        // Raw distances are near sqrt(2 D).
        let unit = if name == "notebook" { 0.3 * (2.0 * shape[4] as f64).sqrt() } else { 0.08 };
        spec.temperatures = (0..1 + below(8)).map(|r| unit * (1.0 + r as f64)).collect();
        let weighted = below(2) == 0;
        let dtype = [Dtype::F32, Dtype::F16, Dtype::Bf16][below(3)];
        let keep_distances = [None, Some(false), Some(true)][below(3)];
        let identity = [None, Some(true), Some(false)][below(3)];
        let case = Case::random(seed, shape);
        let case = if weighted { case.weighted(seed) } else { case };
        let what = format!(
            "case {seed}: {name} {} {:?} {:?} {:?} {keep_distances:?}",
            spec.kernel, spec.coupling, spec.form, spec.temperatures
        );
        Self { what, spec, case, dtype, keep_distances, identity }
    }

    /// Runs in both rungs, and shows each result to `see`.
    pub fn run(&self, bench: &Bench, mut see: impl FnMut(&Case, &Outcome, bool)) {
        for tensor in [false, true] {
            let Self { spec, keep_distances, identity, .. } = self;
            let (keep_distances, identity) = (*keep_distances, *identity);
            let options = Options { tensor_cores: Some(tensor), keep_distances, identity, ..bench.options };
            macro_rules! run {
                ($element:ty) => {{
                    let case = operands::<$element>(&self.case, tensor);
                    see(&case, &bench.run_with::<$element>(spec, &case, options), tensor);
                }};
            }
            match self.dtype {
                Dtype::F32 => run!(f32),
                Dtype::F16 => run!(f16),
                _ => run!(bf16),
            }
        }
    }

    /// Runs and compares with the reference.
    pub fn judge(&self, bench: &Bench) {
        let bound = 2e-5;
        self.run(bench, |case, got, tensor| match self.dtype {
            Dtype::F32 => judge::<f32>(&self.what, &self.spec, case, got, tensor, bound),
            Dtype::F16 => judge::<f16>(&self.what, &self.spec, case, got, tensor, bound),
            _ => judge::<bf16>(&self.what, &self.spec, case, got, tensor, bound),
        });
    }
}
