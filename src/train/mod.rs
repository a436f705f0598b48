//! Training a generator: noise to samples, the drift of the samples, regression onto the frozen target.

mod checkpoint;
pub(crate) mod classes;
mod optimizer;
mod transport;

pub use classes::Classes;
pub use optimizer::Optimizer;
pub use transport::{Along, Lookahead, Transport};

use crate::backend::{Backend, Batch, Progress, Sampling, Targets, Weights};
use crate::cpu::Host;
use crate::data::Data;
use crate::features::{Feature, FeaturePass};
use crate::generator::{Architecture, Mlp, Pass};
use crate::metrics::sliced_wasserstein;
use crate::rng::{Purpose, Stream};
use crate::{DriftShape, DriftSpec, Dtype, Error, Result, WeightRule};
use std::ops::Range;
use std::time::Instant;

/// Everything that decides a training run.
#[derive(Clone, Debug)]
pub struct Config {
    /// The distribution to learn.
    pub data: Data,
    /// The drift.
    pub spec: DriftSpec,
    /// A field in its place, if one is; then there are no negatives but the generated samples.
    pub field: Option<Transport>,
    /// Several drifts or fields in the place of one, each where the one before leads; of one feature alone.
    pub lookahead: Option<Lookahead>,
    /// Each half of a batch has the other half, which is independent of it, in the place of its own samples for what it is
    /// pushed from (W-Flow, spec 7.6), and half of the data. Without classes, and for a drift with
    /// [`WeightRule::Logit`], for its own samples get the weight 0.
    pub independent: bool,
    /// What it is computed of, each with a drift of its own; a run has the samples themselves alone unless it says more.
    pub features: Vec<Feature>,
    /// How the drift's temperatures fall, if they do.
    pub annealing: Option<Annealing>,
    /// The update.
    pub optimizer: Optimizer,
    /// G = P: generated samples, and fresh data, per step; without classes.
    pub batch: usize,
    /// The operands of products, in generator and features: [`Dtype::F32`], or [`Dtype::Bf16`] for mixed precision, where
    /// parameters, moments and all but products stay in f32.
    pub precision: Dtype,
    /// How batches are made where the data have classes.
    pub classes: Option<Classes>,
    /// Coordinates of the generator's noise.
    pub noise_dim: usize,
    /// Sizes of the generator's hidden layers.
    pub hidden: Vec<usize>,
    /// Residual blocks after them.
    pub blocks: usize,
    /// The seed of everything random.
    pub seed: u64,
}

impl Config {
    /// The official notebook's set-up (spec 10.1): Laplace at temperature 0.05, batches of 2,048, noise of 32
    /// coordinates, three hidden layers of 256, Adam 1e-3, seed 42.
    pub fn notebook(data: impl Into<Data>) -> Self {
        Self {
            data: data.into(),
            spec: DriftSpec::notebook(),
            field: None,
            lookahead: None,
            independent: false,
            features: vec![Feature::Identity],
            annealing: None,
            optimizer: Optimizer::notebook(),
            batch: 2048,
            precision: Dtype::F32,
            classes: None,
            noise_dim: 32,
            hidden: vec![256; 3],
            blocks: 0,
            seed: 42,
        }
    }

    /// Refuses what would not fit: parameters with gradient, moments and averages, and a batch's activations and
    /// features with their gradients, noise, data and force.
    fn check_memory(&self) -> Result<()> {
        let architecture = self.architecture();
        let parameters = architecture.parameters()?;
        let activations = architecture.activations().checked_mul(self.samples());
        let shape = self.sampling().shape(self.data.dim());
        let numbers = self.features.iter().fold(0usize, |sum, f| sum.saturating_add(f.numbers(shape.dim)));
        let features = shape.groups.checked_mul(shape.targets()).and_then(|n| n.checked_mul(numbers));
        let elements = || parameters.checked_mul(5)?.checked_add(activations?)?.checked_add(features?);
        let bytes = || elements()?.checked_mul(size_of::<f32>());
        Error::check_memory("training", "the model with its batch", bytes())
    }

    /// The generator's layers.
    pub fn architecture(&self) -> Architecture {
        Architecture {
            blocks: self.blocks,
            classes: self.classes.map_or(0, |_| self.data.classes()),
            guided: self.classes.is_some_and(|classes| classes.negatives > 0),
            ..Architecture::plain(self.noise_dim, &self.hidden, self.data.dim())
        }
    }

    /// What annealing multiplies.
    fn temperatures(&self) -> &[f64] {
        self.field.as_ref().map_or(&self.spec.temperatures, Transport::temperatures)
    }

    fn sampling(&self) -> Sampling {
        match self.classes {
            Some(classes) => Sampling::Classes(classes),
            None if self.independent => Sampling::Halves(self.batch),
            None => Sampling::Batch(self.batch),
        }
    }

    /// Refuses what cannot be had together.
    fn check_field(&self, shape: &DriftShape) -> Result<()> {
        let refused = |argument, expected: &str, got: &dyn std::fmt::Display| {
            Err(Error::value("training", argument, expected, got.to_string()))
        };
        if self.independent {
            if self.classes.is_some() || self.batch < 4 || !self.batch.is_multiple_of(2) {
                let got = if self.classes.is_some() { "data with classes".to_owned() } else { self.batch.to_string() };
                return refused("the batch", "even, 4 or more and without classes, where halves are independent", &got);
            }
            if self.field.is_none() && self.spec.weights != WeightRule::Logit {
                let got = format!("{:?}", self.spec.weights);
                return refused("the weights' rule", "logit, where halves are independent", &got);
            }
            if self.lookahead.is_some() {
                return refused("lookahead", "none, where halves are independent", &"some");
            }
        }
        let Some(field) = &self.field else { return Ok(()) };
        field.validate()?;
        if shape.generated < 2 {
            return refused(
                "generated samples",
                "at least 2 a label with a field in the drift's place",
                &shape.generated,
            );
        }
        if shape.negatives > 0 && !self.independent {
            return refused("negatives", "0 with a field in the drift's place", &shape.negatives);
        }
        let whole = self.features == [Feature::Identity] && self.classes.is_none();
        if matches!(field.along, Along::Projected(_)) && !whole {
            return refused("a field by landmarks", "one of the samples themselves, without classes", &"another");
        }
        if field.along == Along::External && (self.features != [Feature::Identity] || self.lookahead.is_some()) {
            return refused("a field from outside", "one of the samples themselves, without lookahead", &"another");
        }
        Ok(())
    }

    /// Generated samples per step.
    fn samples(&self) -> usize {
        let shape = self.sampling().shape(self.data.dim());
        shape.groups.saturating_mul(shape.generated)
    }
}

/// Bandwidth annealing (spec 8.1): in step k, counted from 1, every temperature is multiplied by
/// `max(exp(-rate (k - 1)), least)`. The experiments' own numbers are not published; there are no defaults.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Annealing {
    /// By how much the logarithm falls each step, at least 0.
    pub rate: f64,
    /// The least factor, above 0 and at most 1.
    pub least: f64,
}

impl Annealing {
    /// The factor of step `step`, counted from 1.
    pub fn factor(&self, step: u64) -> f64 {
        (-self.rate * step.saturating_sub(1) as f64).exp().max(self.least)
    }

    fn validate(&self) -> Result<()> {
        let Self { rate, least } = *self;
        if !(rate >= 0.0 && rate.is_finite()) {
            return Err(Error::value("annealing", "rate", "a finite number >= 0", rate));
        }
        if !(least > 0.0 && least <= 1.0) {
            return Err(Error::value("annealing", "least factor", "a number above 0 and at most 1", least));
        }
        Ok(())
    }
}

/// What one step reports.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// The step, counted from 1.
    pub step: u64,
    /// The drift loss of the step's batch (spec 2.2 (8)).
    pub loss: f64,
    /// Its exponential moving average with decay 0.96 per step, begun at the first loss.
    pub loss_ema: f64,
    /// The global length scale of the batch.
    pub scale: f64,
    /// Global norm of the parameters' gradient, before any clip.
    pub grad_norm: f64,
}

/// A generator in training, on the CPU or on another backend.
///
/// Every random number is a function of the seed and the step, so a trainer restored from a checkpoint goes on bit
/// for bit.
///
/// ```
/// use cudrift::train::{Config, Trainer};
/// let mut config = Config::notebook(cudrift::data::Toy::Ring);
/// (config.batch, config.hidden) = (64, vec![16]);
/// let mut trainer = Trainer::new(config)?;
/// trainer.step()?;
/// assert!(trainer.report()?.loss > 0.0);
/// # Ok::<(), cudrift::Error>(())
/// ```
#[derive(Debug)]
pub struct Trainer<B: Backend = Host> {
    config: Config,
    backend: B,
    work: Work<B>,
    step: u64,
    profile: Option<Profile>,
}

/// What a step works on.
#[derive(Debug)]
struct Work<B: Backend> {
    data: B::Data,
    weights: Weights<B::Array>,
    pass: Pass<B>,
    features: FeaturePass<B>,
    /// Nothing where every step is given a field.
    drift: Option<B::Drift>,
    targets: Targets<B::Array>,
    /// Of the loss with respect to the samples.
    gradient: B::Array,
    progress: B::Progress,
}

/// A step of a field from outside: [`Trainer::step_along`].
#[derive(Debug)]
pub struct External<'a, A> {
    /// x [n, D].
    pub samples: &'a A,
    /// The batch of data, [n, D], or what classes have of it.
    pub data: &'a A,
    /// Where V [n, D] goes; all 0 before.
    pub velocity: &'a mut A,
}

/// A field from outside.
type Field<'a, B> = &'a mut dyn FnMut(&mut B, External<'_, <B as Backend>::Array>) -> Result<()>;

/// Seconds spent in each part of the steps made so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Profile {
    /// Noise and data.
    pub sampling: f64,
    /// Generator, forward.
    pub forward: f64,
    /// Features, forward and backward.
    pub features: f64,
    /// Drift, all three phases.
    pub drift: f64,
    /// Generator, backward.
    pub backward: f64,
    /// Clip, Adam, moving averages.
    pub update: f64,
}

impl Trainer {
    /// A fresh generator, on the CPU.
    ///
    /// # Errors
    /// As [`Trainer::on`].
    pub fn new(config: Config) -> Result<Self> {
        Self::on(Host::new(), config)
    }
}

impl<B: Backend> Trainer<B> {
    /// A fresh generator.
    ///
    /// # Errors
    /// [`Error::Value`] for any impossible number in `config`; [`Error::TooLarge`] where the model with its batch does
    /// not fit into memory; those of [`Backend`].
    pub fn on(backend: B, config: Config) -> Result<Self> {
        config.check_memory()?;
        let model = Mlp::new(config.architecture(), config.seed)?;
        let weights = Weights::new(&backend, model.parameters())?;
        Self::assemble(backend, config, &model, weights, &Progress::new(0, f64::NAN))
    }

    fn assemble(
        mut backend: B,
        config: Config,
        model: &Mlp,
        weights: Weights<B::Array>,
        progress: &Progress,
    ) -> Result<Self> {
        let sampling = config.sampling();
        let (samples, dim) = (config.samples(), config.data.dim());
        let shape = sampling.shape(dim);
        config.optimizer.validate()?;
        backend.set_precision(config.precision)?;
        if let Some(annealing) = &config.annealing {
            annealing.validate()?;
            if config.temperatures().is_empty() {
                return Err(Error::value(
                    "annealing",
                    "temperatures",
                    "a drift, or a field with a bandwidth",
                    "neither",
                ));
            }
        }
        config.check_field(&shape)?;
        if config.classes.is_none() && config.batch < 2 {
            return Err(Error::value("training", "batch", "at least 2", config.batch));
        }
        let targets = |count: usize, width: usize| {
            backend.array("a batch of data", shape.groups.saturating_mul(count).saturating_mul(width))
        };
        let features = FeaturePass::new(&backend, &config.features, shape, config.seed)?;
        let mut drift = match &config.field {
            None => Some(backend.drift(&config.spec, &features.shapes())?),
            Some(field) if field.along == Along::External => None,
            Some(field) => Some(backend.field(field, &features.shapes(), config.seed)?),
        };
        if let Some((drift, lookahead)) = drift.as_mut().zip(config.lookahead.as_ref()) {
            backend.look_ahead(drift, lookahead)?;
        }
        // Of halves that are independent: none of its own samples, all of the other's.
        let most = features.shapes().iter().map(|shape| shape.groups.saturating_mul(shape.generated)).max();
        let own = || backend.array("weights of samples", most.unwrap_or(0));
        let weights_of_negatives = match config.independent {
            true => backend.upload("weights of samples", &vec![1.0; samples])?,
            false => targets(shape.negatives, 1)?,
        };
        let work = Work {
            data: backend.data(&config.data, &sampling, config.seed, progress.step)?,
            weights,
            pass: Pass::grouped(&backend, model.architecture(), samples, shape.groups)?,
            drift,
            features,
            targets: Targets {
                positives: targets(shape.positives, dim)?,
                negatives: targets(shape.negatives, dim)?,
                weights: weights_of_negatives,
                own: config.independent.then(own).transpose()?,
            },
            gradient: backend.array("a batch of samples", samples.saturating_mul(dim))?,
            progress: backend.progress(progress)?,
        };
        Ok(Self { config, backend, work, step: progress.step, profile: None })
    }

    /// One training step. [`Trainer::report`] says what came of it.
    ///
    /// # Errors
    /// [`Error::Diverged`] where the loss is not finite and the backend knows it already; the parameters are those of the
    /// step before. Those of [`Backend`].
    pub fn step(&mut self) -> Result<()> {
        let Self { config, backend, work, profile, .. } = self;
        if let Some(annealing) = config.annealing {
            let factor = annealing.factor(self.step + 1);
            let temperatures: Vec<f64> = config.temperatures().iter().map(|r| factor * r).collect();
            if let Some(drift) = &mut work.drift {
                backend.set_temperatures(drift, &temperatures)?;
            }
        }
        match profile {
            // Temperatures are part of a record, so steps with other ones cannot be its replay.
            None if config.annealing.is_some() => work.step(backend, config, None, |_, _| Ok(()))?,
            None => backend.repeat(|backend| work.step(backend, config, None, |_, _| Ok(())))?,
            Some(profile) => work.profiled(backend, config, None, profile)?,
        }
        self.step += 1;
        Ok(())
    }

    /// One training step along a field of the caller's, in the place of the configured drift or field: `field` gets the
    /// step's samples and data and writes V at every sample, and they are regressed onto x + step V, with the step and the
    /// normalisation of [`Config::field`], or a step of 1. With [`Along::External`] there, nothing is kept for another.
    ///
    /// `field` has the backend's operations to itself: on a device it can launch kernels on its stream too, and read and write
    /// the arrays where they are, or put another in the place of `velocity`.
    ///
    /// ```
    /// use cudrift::train::{Along, Config, Trainer, Transport};
    /// let mut config = Config::notebook(cudrift::data::Toy::Ring);
    /// (config.batch, config.hidden) = (64, vec![16]);
    /// config.field = Some(Transport { step: 0.1, ..Transport::new(Along::External) });
    /// let mut trainer = Trainer::new(config)?;
    /// trainer.step_along(|_, along| {
    ///     // To the origin: minus the gradient of |x|² / 2.
    ///     along.velocity.iter_mut().zip(along.samples).for_each(|(v, x)| *v = -x);
    ///     Ok(())
    /// })?;
    /// assert!(trainer.report()?.loss > 0.0);
    /// # Ok::<(), cudrift::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of `field`, and of [`Trainer::step`]; [`Error::Value`] where the run's features are not the samples alone.
    pub fn step_along(&mut self, mut field: impl FnMut(&mut B, External<'_, B::Array>) -> Result<()>) -> Result<()> {
        let Self { config, backend, work, profile, .. } = self;
        if config.features != [Feature::Identity] {
            let expected = "the samples themselves, with a field from outside";
            return Err(Error::value("training", "features", expected, format!("{} others", config.features.len())));
        }
        let done = match profile {
            None => work.step(backend, config, Some(&mut field), |_, _| Ok(())),
            Some(profile) => work.profiled(backend, config, Some(&mut field), profile),
        };
        // `velocity` may be another array now.
        backend.forget();
        done?;
        self.step += 1;
        Ok(())
    }

    /// What the last step came to; waits for it.
    ///
    /// # Errors
    /// [`Error::Diverged`] where its loss, or that of a step before it, was not finite; those of [`Backend`].
    pub fn report(&self) -> Result<Step> {
        let Progress { step, diverged, loss, loss_ema, scale, grad_norm } = self.backend.read(&self.work.progress)?;
        if diverged > 0 {
            return Err(Error::Diverged { step: diverged, loss });
        }
        Ok(Step { step, loss, loss_ema, scale, grad_norm })
    }

    /// How many steps have been made.
    pub fn steps_done(&self) -> u64 {
        self.step
    }

    /// What decides this run.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// From now on [`Trainer::profile`] says where the time of the steps goes. Every part of a step is then waited for.
    pub fn start_profile(&mut self) {
        self.profile = Some(Profile::default());
    }

    /// Where the time of the steps went since [`Trainer::start_profile`].
    pub fn profile(&self) -> Option<Profile> {
        self.profile
    }

    /// The generator as it is now.
    ///
    /// # Errors
    /// Those of [`Backend`].
    pub fn model(&self) -> Result<Mlp> {
        self.model_of(&self.work.weights.parameters)
    }

    /// The generator with averaged parameters.
    ///
    /// # Errors
    /// Those of [`Backend`].
    pub fn averaged_model(&self) -> Result<Mlp> {
        self.model_of(&self.work.weights.ema)
    }

    fn model_of(&self, parameters: &B::Array) -> Result<Mlp> {
        Mlp::from_parameters(self.config.architecture(), self.backend.download(parameters, B::len(parameters))?)
    }

    /// Sliced Wasserstein distances of order 1 and 2 between `n` fresh samples of the generator and of the data.
    ///
    /// # Errors
    /// [`Error::Value`] where `n` or `projections` is 0; [`Error::TooLarge`] where the samples do not fit into memory;
    /// those of [`Backend`].
    pub fn evaluate(&self, n: usize, projections: usize) -> Result<[f64; 2]> {
        let Config { noise_dim, seed, .. } = self.config;
        let width = self.config.architecture().activations().saturating_mul(size_of::<f32>());
        Error::check_memory("evaluation", "the set of samples", n.checked_mul(width))?;
        let noise = Stream::new(seed, Purpose::EvaluationNoise, self.step).normals(n * noise_dim);
        let data = self.config.data.draw(&mut Stream::new(seed, Purpose::EvaluationData, self.step), n);
        let model = self.model()?;
        let generated = match model.architecture().classes {
            0 => model.forward(&noise)?,
            // The classes of the data that it is compared with, as they are.
            _ => model.forward_classes(&noise, &data.labels, 1.0)?,
        };
        sliced_wasserstein(&generated, &data.values, self.config.data.dim(), projections, seed)
    }
}

impl<B: Backend> Work<B> {
    /// A step, with the seconds of its parts.
    fn profiled(
        &mut self,
        backend: &mut B,
        config: &Config,
        field: Option<Field<'_, B>>,
        profile: &mut Profile,
    ) -> Result<()> {
        backend.finish()?;
        let mut clock = Instant::now();
        self.step(backend, config, field, |backend, part| {
            backend.finish()?;
            let now = Instant::now();
            *part(profile) += (now - std::mem::replace(&mut clock, now)).as_secs_f64();
            Ok(())
        })
    }

    /// The parts of a step, each followed by `lap`; along `field` where there is one.
    fn step(
        &mut self,
        backend: &mut B,
        config: &Config,
        field: Option<Field<'_, B>>,
        mut lap: impl FnMut(&mut B, fn(&mut Profile) -> &mut f64) -> Result<()>,
    ) -> Result<()> {
        let Self { data, weights, pass, features, drift, targets, gradient, progress } = self;
        let (noise, condition) = pass.inputs_mut();
        let batch = Batch { noise: (noise, config.noise_dim), condition, targets };
        backend.draw(data, config.seed, progress, batch)?;
        lap(backend, |profile| &mut profile.sampling)?;
        pass.forward(backend, &weights.parameters)?;
        lap(backend, |profile| &mut profile.forward)?;
        if let Some(field) = field {
            backend.clear(gradient)?;
            let (samples, data) = (pass.output(), &targets.positives);
            field(backend, External { samples, data, velocity: &mut *gradient })?;
            let (count, got) = (B::len(pass.output()), B::len(gradient));
            if got != count {
                *gradient = backend.array("a batch of samples", count)?;
                return Err(Error::shape("training", "the velocity of a field from outside", [count], [got]));
            }
            let own = Transport::new(Along::External);
            backend.regress(config.field.as_ref().unwrap_or(&own), count, gradient, progress)?;
            lap(backend, |profile| &mut profile.drift)?;
        } else {
            let drift = drift.as_mut().ok_or_else(Transport::missing)?;
            if config.independent {
                backend.exchange(B::len(gradient), pass.output(), &mut targets.negatives)?;
            }
            features.forward(backend, pass.output(), targets)?;
            lap(backend, |profile| &mut profile.features)?;
            backend.gradient(drift, &mut features.heads(pass.output(), targets, gradient), progress)?;
            lap(backend, |profile| &mut profile.drift)?;
            features.backward(backend, pass.output(), gradient)?;
            lap(backend, |profile| &mut profile.features)?;
        }
        pass.backward(backend, &weights.parameters, gradient, &mut weights.grad)?;
        lap(backend, |profile| &mut profile.backward)?;
        backend.update(&config.optimizer, weights, progress)?;
        lap(backend, |profile| &mut profile.update)
    }
}

/// `n` samples [n, D] of a generator without classes from the noise of `seed`.
///
/// # Errors
/// [`Error::TooLarge`] where the samples do not fit into memory; [`Error::Value`] where the generator has classes.
pub fn sample(model: &Mlp, n: usize, seed: u64) -> Result<Vec<f32>> {
    in_blocks(model, n, seed, |noise, _| model.forward(noise))
}

/// Samples [n, D] of a generator with classes, one of each of `labels`, from the noise of `seed`, at a guidance scale.
///
/// # Errors
/// As [`sample`] and [`Mlp::forward_classes`].
pub fn sample_classes(model: &Mlp, labels: &[usize], guidance: f64, seed: u64) -> Result<Vec<f32>> {
    in_blocks(model, labels.len(), seed, |noise, range| model.forward_classes(noise, &labels[range], guidance))
}

fn in_blocks(
    model: &Mlp,
    n: usize,
    seed: u64,
    forward: impl Fn(&[f32], Range<usize>) -> Result<Vec<f32>>,
) -> Result<Vec<f32>> {
    /// Samples whose activations are held at a time.
    const BLOCK: usize = 1 << 14;
    let mut samples = Vec::new();
    let fits = n.checked_mul(model.output_dim()).is_some_and(|len| samples.try_reserve_exact(len).is_ok());
    if !fits {
        let got = format!("{n} of {} coordinates", model.output_dim());
        return Err(Error::TooLarge { op: "sample", what: "the set of samples", got });
    }
    let mut stream = Stream::new(seed, Purpose::Samples, 0);
    for start in (0..n).step_by(BLOCK) {
        let count = BLOCK.min(n - start);
        samples.extend(forward(&stream.normals(count * model.input_dim()), start..start + count)?);
    }
    Ok(samples)
}
