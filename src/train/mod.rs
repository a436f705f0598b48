//! Training a generator: noise to samples, the drift of the samples, regression onto the frozen target.

mod checkpoint;
mod optimizer;

pub use optimizer::Optimizer;

use crate::cpu::{Plan, Workspace};
use crate::data::Data;
use crate::generator::{Activations, Mlp, parameter_count};
use crate::metrics::sliced_wasserstein;
use crate::rng::{Purpose, Stream};
use crate::{DriftInputs, DriftShape, DriftSpec, Error, Points, Result};
use optimizer::Moments;
use std::time::Instant;

/// Everything that decides a training run.
#[derive(Clone, Debug)]
pub struct Config {
    /// The distribution to learn.
    pub data: Data,
    /// The drift.
    pub spec: DriftSpec,
    /// The update.
    pub optimizer: Optimizer,
    /// G = P: generated samples, and fresh data, per step.
    pub batch: usize,
    /// Coordinates of the generator's noise.
    pub noise_dim: usize,
    /// Sizes of the generator's hidden layers.
    pub hidden: Vec<usize>,
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
            optimizer: Optimizer::notebook(),
            batch: 2048,
            noise_dim: 32,
            hidden: vec![256; 3],
            seed: 42,
        }
    }

    /// Refuses what would not fit: parameters with gradient, moments and averages, and a batch's activations with
    /// their gradients, noise, data and force.
    fn check_memory(&self) -> Result<()> {
        let sizes = self.sizes();
        let parameters = parameter_count(&sizes);
        let widths = sizes.iter().try_fold(0usize, |sum, n| sum.checked_add(*n));
        let elements = || parameters?.checked_mul(5)?.checked_add(widths?.checked_mul(3)?.checked_mul(self.batch)?);
        let bytes = || elements()?.checked_mul(size_of::<f32>());
        Error::check_memory("training", "the model with its batch", bytes())
    }

    fn sizes(&self) -> Vec<usize> {
        let mut sizes = vec![self.noise_dim];
        sizes.extend(&self.hidden);
        sizes.push(self.data.dim());
        sizes
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

/// Decay per step of [`Step::loss_ema`], as in the notebook (spec 10.1).
const LOSS_DECAY: f64 = 0.96;

/// A generator in training, on the CPU.
///
/// Every random number is a function of the seed and the step, so a trainer restored from a checkpoint goes on bit
/// for bit.
///
/// ```
/// use cudrift::train::{Config, Trainer};
/// let mut config = Config::notebook(cudrift::data::Toy::Ring);
/// (config.batch, config.hidden) = (64, vec![16]);
/// let mut trainer = Trainer::new(config)?;
/// let first = trainer.step()?;
/// assert!(first.loss > 0.0);
/// # Ok::<(), cudrift::Error>(())
/// ```
#[derive(Debug)]
pub struct Trainer {
    config: Config,
    model: Mlp,
    moments: Moments,
    step: u64,
    loss_ema: f64,
    plan: Plan,
    workspace: Workspace,
    activations: Activations,
    /// Gradient of the loss with respect to the samples, and to the parameters.
    drift_grad: Vec<f32>,
    grad: Vec<f32>,
    profile: Profile,
}

/// Seconds spent in each part of the steps made so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Profile {
    /// Noise and data.
    pub sampling: f64,
    /// Generator, forward.
    pub forward: f64,
    /// Drift, all three phases.
    pub drift: f64,
    /// Generator, backward.
    pub backward: f64,
    /// Clip, Adam, moving averages.
    pub update: f64,
}

impl Trainer {
    /// A fresh generator.
    ///
    /// # Errors
    /// [`Error::Value`] for any impossible number in `config`; [`Error::TooLarge`] where the model with its batch does
    /// not fit into memory.
    pub fn new(config: Config) -> Result<Self> {
        config.check_memory()?;
        let model = Mlp::new(&config.sizes(), config.seed)?;
        let moments = Moments::new(model.parameters());
        Self::assemble(config, model, moments, 0, f64::NAN)
    }

    fn assemble(config: Config, model: Mlp, moments: Moments, step: u64, loss_ema: f64) -> Result<Self> {
        config.optimizer.validate()?;
        if config.batch < 2 {
            return Err(Error::value("training", "batch", "at least 2", config.batch));
        }
        let (batch, dim) = (config.batch, config.data.dim());
        let shape = DriftShape { groups: 1, generated: batch, negatives: 0, positives: batch, dim };
        let plan = Plan::new(&config.spec, shape)?;
        let workspace = plan.workspace();
        let (drift_grad, grad) = (vec![0.0; batch * dim], vec![0.0; model.parameters().len()]);
        let activations = Activations::default();
        let profile = Profile::default();
        Ok(Self { config, model, moments, step, loss_ema, plan, workspace, activations, drift_grad, grad, profile })
    }

    /// One training step.
    ///
    /// # Errors
    /// [`Error::Diverged`] where the loss is not finite; the parameters are then those of the step before.
    pub fn step(&mut self) -> Result<Step> {
        let step = self.step + 1;
        let Config { batch, noise_dim, seed, .. } = self.config;
        let dim = self.config.data.dim();
        let mut clock = Instant::now();
        let mut lap = |part: &mut f64| {
            let now = Instant::now();
            *part += (now - std::mem::replace(&mut clock, now)).as_secs_f64();
        };
        let (noise, data) = rayon::join(
            || Stream::new(seed, Purpose::Noise, step).normals(batch * noise_dim),
            || self.config.data.sample(&mut Stream::new(seed, Purpose::Data, step), batch),
        );
        lap(&mut self.profile.sampling);
        self.model.forward_into(&noise, &mut self.activations)?;
        lap(&mut self.profile.forward);

        let inputs = DriftInputs::new(
            Points::new(self.activations.output(), [1, batch, dim])?,
            Points::new(&data, [1, batch, dim])?,
        )?;
        let mut loss = [0.0];
        let scale = self.plan.distances(&inputs, &mut self.workspace)?.finish(&self.config.spec)?;
        let norms = self.plan.coefficients(&inputs, &scale, &mut self.workspace)?.finish(&self.config.spec, &scale);
        self.plan.gradient(&inputs, &scale, &norms, &mut self.workspace, &mut self.drift_grad, &mut loss)?;
        let loss = f64::from(loss[0]);
        if !loss.is_finite() {
            return Err(Error::Diverged { step, loss });
        }
        lap(&mut self.profile.drift);

        self.model.backward(&mut self.activations, &self.drift_grad, &mut self.grad)?;
        lap(&mut self.profile.backward);
        let grad_norm =
            self.config.optimizer.update(step, self.model.parameters_mut(), &mut self.grad, &mut self.moments);
        lap(&mut self.profile.update);
        self.step = step;
        self.loss_ema = if step == 1 { loss } else { LOSS_DECAY * self.loss_ema + (1.0 - LOSS_DECAY) * loss };
        Ok(Step { step, loss, loss_ema: self.loss_ema, scale: scale.scale, grad_norm })
    }

    /// How many steps have been made.
    pub fn steps_done(&self) -> u64 {
        self.step
    }

    /// What decides this run.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Where the time of the steps went.
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// The generator as it is now.
    pub fn model(&self) -> &Mlp {
        &self.model
    }

    /// The generator with averaged parameters.
    ///
    /// # Errors
    /// None in practice; the sizes were checked when the model was made.
    pub fn averaged_model(&self) -> Result<Mlp> {
        Mlp::from_parameters(self.model.sizes(), self.moments.ema.clone())
    }

    /// Sliced Wasserstein distances of order 1 and 2 between `n` fresh samples of the generator and of the data.
    ///
    /// # Errors
    /// [`Error::Value`] where `n` or `projections` is 0; [`Error::TooLarge`] where the samples do not fit into memory.
    pub fn evaluate(&self, n: usize, projections: usize) -> Result<[f64; 2]> {
        let Config { noise_dim, seed, .. } = self.config;
        let width = self.config.sizes().iter().sum::<usize>().saturating_mul(3 * size_of::<f32>());
        Error::check_memory("evaluation", "the set of samples", n.checked_mul(width))?;
        let noise = Stream::new(seed, Purpose::EvaluationNoise, self.step).normals(n * noise_dim);
        let data = self.config.data.sample(&mut Stream::new(seed, Purpose::EvaluationData, self.step), n);
        sliced_wasserstein(&self.model.forward(&noise)?, &data, self.config.data.dim(), projections, seed)
    }
}

/// `n` samples [n, D] of a generator from the noise of `seed`.
///
/// # Errors
/// [`Error::TooLarge`] where the samples do not fit into memory.
pub fn sample(model: &Mlp, n: usize, seed: u64) -> Result<Vec<f32>> {
    /// Samples whose activations are held at a time.
    const BLOCK: usize = 1 << 14;
    let mut samples = Vec::new();
    let fits = n.checked_mul(model.output_dim()).is_some_and(|len| samples.try_reserve_exact(len).is_ok());
    if !fits {
        let got = format!("{n} of {} coordinates", model.output_dim());
        return Err(Error::TooLarge { op: "sample", what: "the set of samples", got });
    }
    let mut stream = Stream::new(seed, Purpose::Samples, 0);
    let mut activations = Activations::default();
    for start in (0..n).step_by(BLOCK) {
        let noise = stream.normals(BLOCK.min(n - start) * model.input_dim());
        model.forward_into(&noise, &mut activations)?;
        samples.extend_from_slice(activations.output());
    }
    Ok(samples)
}
