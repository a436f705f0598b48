//! What decides a training run, from defaults, a TOML file, and flags, in that order.

use super::{
    Backend, Coupled, CouplingArgs, CouplingName, DIRECTIONS, FieldChoices, FieldName, FormName, KernelName, LANDMARKS,
    MOST_LOG_RATIO, NO_COUPLING, POOL, Precision, Preset, WeightName,
};
use crate::arrays::{is_reference, read_npy, read_npz};
use crate::error::{Error, Result, one_line};
use cudrift::data::{Data, Toy};
use cudrift::features::{Encoder, Feature, Patches};
use cudrift::train::{Annealing, Classes, Config, Lookahead, Optimizer, Transport};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Declares the options of a run once: as optional values (flags, TOML) and as the complete record (`config.json`).
macro_rules! options {
    ($($(#[$meta:meta])* $name:ident: $ty:ty,)*) => {
        /// Options that somebody gave; the keys of the TOML file.
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(crate) struct Options {
            $($(#[$meta])* #[serde(skip_serializing_if = "Option::is_none")] pub(crate) $name: Option<$ty>,)*
        }

        /// Every option of a run, as `config.json` records it.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(crate) struct Run {
            $($(#[$meta])* pub(crate) $name: $ty,)*
        }

        impl Options {
            /// These options where they are given, else those of `other`.
            pub(crate) fn or(self, other: Self) -> Self {
                Self { $($name: self.$name.or(other.$name),)* }
            }
        }

        impl Run {
            fn with(self, options: Options) -> Self {
                Self { $($name: options.$name.unwrap_or(self.$name),)* }
            }
        }
    };
}

options! {
    /// A toy distribution's name, or a path to points.
    data: String,
    preset: Preset,
    kernel: KernelName,
    temperatures: Vec<f64>,
    coupling: CouplingName,
    form: FormName,
    sinkhorn_iterations: u32,
    sinkhorn_tolerance: f64,
    /// A field in the drift's place, whose bandwidth the temperature is: how far along it a step goes, whether it is
    /// divided by its root mean square, and where log ratios end in the weights of divergences.
    field: Option<FieldName>,
    field_step: f64,
    field_normalize: bool,
    most_log_ratio: f64,
    /// Of the sliced field, new ones in every step.
    directions: usize,
    /// Of the Nyström field; and the data drawn from a distribution that they stand for.
    landmarks: usize,
    pool: usize,
    /// Whether each half of a batch is pushed from the other, which is independent of it, not from itself.
    independent: bool,
    /// The weights of so many drifts, each taken where the one before leads, and how far along it that is.
    lookahead: Vec<f64>,
    lookahead_step: f64,
    /// By how much the temperatures' logarithms fall each step, and the least factor that they come to.
    annealing_rate: f64,
    annealing_least: f64,
    /// What the drift is computed of: identity, patches:SIZE, fourier:COUNT:BANDWIDTH, encoder:FILE.
    features: Vec<String>,
    /// Where the weights of negatives enter, which the notebook's preset leaves out.
    weights: WeightName,
    steps: u64,
    batch: usize,
    lr: f64,
    seed: u64,
    backend: Backend,
    /// What operands of products are rounded to.
    precision: Precision,
    /// Coordinates of the noise.
    noise_dim: usize,
    /// Hidden layers of the generator.
    hidden: Vec<usize>,
    /// Residual blocks after them.
    blocks: usize,
    /// How batches are made where data have labels: labels per step, and per label samples, positives of its class,
    /// negatives of all classes.
    labels: usize,
    generated: usize,
    positives: usize,
    negatives: usize,
    /// Least and greatest guidance scale, the power with which its density falls, and the share of labels without.
    guidance: [f64; 2],
    guidance_power: f64,
    unguided: f64,
    /// Data loaded per step, and the sizes of the buffers of a class and of all.
    loaded: usize,
    class_buffer: usize,
    buffer: usize,
    beta1: f64,
    beta2: f64,
    weight_decay: f64,
    /// Steps of linear warm-up.
    warmup: u64,
    /// Global-norm clip; 0 for none.
    clip_norm: f64,
    ema_decay: f64,
    /// Steps between lines of metrics.jsonl.
    log_every: u64,
    /// Steps between checkpoints.
    checkpoint_every: u64,
}

impl Options {
    pub(crate) fn from_toml(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::io("read", path, source))?;
        toml::from_str(&text).map_err(|error| Error::format(path, one_line(&error.to_string())))
    }
}

impl Run {
    /// The notebook's set-up (spec 10.1) with what `options` change.
    pub(crate) fn new(options: Options) -> Result<Self> {
        let Some(data) = options.data.clone() else {
            return Err(Error::usage(
                "--data is missing; give swiss-roll, checkerboard, two-moons, ring or a file of points",
            ));
        };
        let preset = options.preset.unwrap_or(Preset::Notebook);
        let (optimizer, classes) = (Optimizer::notebook(), Classes::default());
        let coupled = CouplingArgs {
            coupling: options.coupling,
            form: options.form,
            sinkhorn_iterations: options.sinkhorn_iterations,
            sinkhorn_tolerance: options.sinkhorn_tolerance,
        };
        let field = options.field.flatten();
        let w_flow = field == Some(FieldName::WFlow);
        let coupled = coupled.for_field(field, CouplingName::RowColumn)?;
        let independent = options.independent.unwrap_or(w_flow);
        let run = Self {
            data,
            preset,
            kernel: match field {
                Some(field) => field.kernel(options.kernel)?,
                None => KernelName::Laplace,
            },
            temperatures: preset.spec().temperatures,
            coupling: coupled.coupling,
            form: coupled.form,
            sinkhorn_iterations: coupled.sinkhorn_iterations,
            sinkhorn_tolerance: coupled.sinkhorn_tolerance,
            field: None,
            field_step: 1.0,
            field_normalize: false,
            most_log_ratio: MOST_LOG_RATIO,
            directions: DIRECTIONS,
            landmarks: LANDMARKS,
            pool: POOL,
            independent,
            lookahead: vec![1.0],
            lookahead_step: 1.0,
            annealing_rate: 0.0,
            annealing_least: 1e-3,
            features: vec!["identity".to_owned()],
            // Else the weight 0 would not take a sample from its own set.
            weights: if independent { WeightName::Logit } else { preset.spec().weights.into() },
            steps: 2000,
            batch: 2048,
            lr: optimizer.learning_rate,
            seed: 42,
            backend: Backend::Auto,
            precision: Precision::F32,
            noise_dim: 32,
            hidden: vec![256; 3],
            blocks: 0,
            labels: classes.labels,
            generated: classes.generated,
            positives: classes.positives,
            negatives: classes.negatives,
            guidance: classes.guidance,
            guidance_power: classes.power,
            unguided: classes.unguided,
            loaded: classes.loaded,
            class_buffer: classes.class_buffer,
            buffer: classes.buffer,
            beta1: optimizer.beta1,
            beta2: optimizer.beta2,
            weight_decay: optimizer.weight_decay,
            warmup: optimizer.warmup,
            clip_norm: 0.0,
            ema_decay: optimizer.ema_decay,
            log_every: 50,
            checkpoint_every: 200,
        };
        run.with(options).checked()
    }

    /// The run recorded in `config.json`, to be gone on with.
    ///
    /// `options` may say again what was said before; only what does not change the numbers may differ.
    pub(crate) fn resumed(path: &Path, options: Options) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::io("read", path, source))?;
        let recorded: Self =
            serde_json::from_str(&text).map_err(|error| Error::format(path, one_line(&error.to_string())))?;
        let run = recorded.clone().with(options);
        let free =
            |run: &Self| Self { steps: 0, log_every: 1, checkpoint_every: 1, backend: Backend::Auto, ..run.clone() };
        let (before, now) = (free(&recorded), free(&run));
        if before != now {
            let fields = |run: &Self| serde_json::to_value(run).unwrap_or_default();
            let (before, now) = (fields(&before), fields(&now));
            let changed: Vec<String> = before
                .as_object()
                .into_iter()
                .flatten()
                .filter(|(key, value)| now.get(key) != Some(value))
                .map(|(key, value)| format!("{key} was {value}, now {}", now[key]))
                .collect();
            let problem = format!("{}; a resumed run keeps its options, except steps", changed.join(", "));
            return Err(Error::format(path, problem));
        }
        run.checked()
    }

    fn checked(self) -> Result<Self> {
        let positive =
            [("steps", self.steps), ("log_every", self.log_every), ("checkpoint_every", self.checkpoint_every)];
        if let Some((name, _)) = positive.into_iter().find(|(_, value)| *value == 0) {
            return Err(Error::message(format!("{name} is 0, expected at least 1")));
        }
        let given = (self.coupling, self.form) != (CouplingName::RowColumn, FormName::Joint);
        match self.field {
            Some(FieldName::WFlow) => {
                self.coupled().check_w_flow()?;
                if !self.independent || self.field_normalize || self.field_step != 1.0 {
                    return Err(Error::usage(
                        "w-flow is a drift of independent halves, without field_step and the like",
                    ));
                }
            }
            Some(_) if given => return Err(Error::usage(NO_COUPLING)),
            _ => {}
        }
        if self.features.iter().filter(|name| name.starts_with(ENCODER)).count() > 1 {
            return Err(Error::message("features name two encoders; a run has one at most"));
        }
        Ok(self)
    }

    fn coupled(&self) -> Coupled {
        Coupled {
            coupling: self.coupling,
            form: self.form,
            sinkhorn_iterations: self.sinkhorn_iterations,
            sinkhorn_tolerance: self.sinkhorn_tolerance,
        }
    }

    /// What the library trains with, on these data; `encoder` is the run's own copy, where there is one.
    pub(crate) fn config(&self, Source { data, images }: Source, encoder: Option<&Path>) -> Result<Config> {
        let mut config = Config::notebook(data);
        config.features = self.features.iter().map(|name| feature(name, images, encoder)).collect::<Result<_>>()?;
        config.spec = self.coupled().spec(self.preset.spec());
        config.spec.kernel = self.kernel.into();
        config.spec.temperatures.clone_from(&self.temperatures);
        if let Some(field) = self.field {
            let bandwidth = match self.temperatures[..] {
                [bandwidth] => bandwidth,
                // Where there is no kernel they mean nothing.
                _ if matches!(field, FieldName::Sliced | FieldName::WFlow) => f64::NAN,
                _ => {
                    let given = self.temperatures.len();
                    let problem = format!("a field has one temperature, its bandwidth; {given} are given");
                    return Err(Error::message(problem));
                }
            };
            let choices = FieldChoices {
                kernel: self.kernel,
                bandwidth,
                most: self.most_log_ratio,
                directions: self.directions,
                landmarks: self.landmarks,
                pool: self.pool,
                seed: self.seed,
            };
            let along = field.along(&choices, &config.data)?;
            let (step, normalize) = (self.field_step, self.field_normalize);
            config.field = along.map(|along| Transport { along, step, normalize });
        }
        config.independent = self.independent;
        if self.lookahead != [1.0] {
            config.lookahead = Some(Lookahead { weights: self.lookahead.clone(), step: self.lookahead_step });
        }
        if self.annealing_rate != 0.0 {
            config.annealing = Some(Annealing { rate: self.annealing_rate, least: self.annealing_least });
        }
        config.spec.weights = self.weights.into();
        let optimizer = &mut config.optimizer;
        optimizer.learning_rate = self.lr;
        optimizer.beta1 = self.beta1;
        optimizer.beta2 = self.beta2;
        optimizer.weight_decay = self.weight_decay;
        optimizer.warmup = self.warmup;
        optimizer.clip_norm = if self.clip_norm == 0.0 { f64::INFINITY } else { self.clip_norm };
        optimizer.ema_decay = self.ema_decay;
        config.batch = self.batch;
        config.precision = self.precision.into();
        config.noise_dim = self.noise_dim;
        config.hidden.clone_from(&self.hidden);
        config.blocks = self.blocks;
        if config.data.classes() > 0 {
            let mut classes = Classes::default();
            classes.labels = self.labels;
            classes.generated = self.generated;
            classes.positives = self.positives;
            classes.negatives = self.negatives;
            classes.guidance = self.guidance;
            classes.power = self.guidance_power;
            classes.unguided = self.unguided;
            classes.loaded = self.loaded;
            classes.class_buffer = self.class_buffer;
            classes.buffer = self.buffer;
            config.classes = Some(classes);
        }
        config.seed = self.seed;
        Ok(config)
    }
}

/// How the name of a feature begins that is a trained encoder's.
const ENCODER: &str = "encoder:";

/// The map of this name. `own` is the run's copy of its encoder, which wins over the file that it came from.
fn feature(name: &str, images: Option<[usize; 2]>, own: Option<&Path>) -> Result<Feature> {
    if let Some(path) = name.strip_prefix(ENCODER) {
        return Ok(Feature::Encoder(Encoder::load(own.unwrap_or(Path::new(path)))?));
    }
    let unknown = || {
        let expected = "identity, patches:SIZE, fourier:COUNT:BANDWIDTH or encoder:FILE.safetensors";
        Error::message(format!("feature {name:?} is unknown, expected {expected}"))
    };
    match name.split(':').collect::<Vec<_>>()[..] {
        ["identity"] => Ok(Feature::Identity),
        ["patches", size] => {
            let size = size.parse().map_err(|_| unknown())?;
            let Some([height, width]) = images else {
                return Err(Error::message(format!("feature {name} is of images; the data are points")));
            };
            Ok(Feature::Patches(Patches { size, height, width, channels: 1 }))
        }
        ["fourier", count, bandwidth] => {
            let count = count.parse().map_err(|_| unknown())?;
            Ok(Feature::Fourier { count, bandwidth: bandwidth.parse().map_err(|_| unknown())? })
        }
        _ => Err(unknown()),
    }
}

/// What a run is trained on.
pub(crate) struct Source {
    pub(crate) data: Data,
    /// Height and width of the images that the points are.
    pub(crate) images: Option<[usize; 2]>,
}

/// A toy distribution by name, or the points of a file.
pub(crate) fn data(name: &str) -> Result<Source> {
    if let Some(toy) = Toy::ALL.into_iter().find(|toy| toy.name() == name) {
        return Ok(Source { data: toy.into(), images: None });
    }
    let path = Path::new(name);
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    let (mut images, mut labels) = (None, None);
    let array = match extension.as_str() {
        "npy" => read_npy(path)?,
        "npz" => {
            let mut arrays = read_npz(path, &["x", "images", "labels"], is_reference)?;
            labels = arrays.remove("labels");
            match (arrays.remove("x"), arrays.remove("images")) {
                (Some(_), Some(_)) => {
                    return Err(Error::format(path, "there are both keys \"x\" and \"images\"; give one of them"));
                }
                (Some(points), None) => points,
                (None, Some(mut array)) => {
                    let [n, height, width] = array.extents(path, "the array of images", "[n, height, width]")?;
                    let pixels = height.checked_mul(width).filter(|pixels| *pixels > 0);
                    let pixels = pixels.ok_or_else(|| Error::format(path, "the images have no pixels"))?;
                    (images, array.shape) = (Some([height, width]), vec![n, pixels]);
                    array
                }
                (None, None) => {
                    let problem = "key \"x\" [n, D] or \"images\" [n, height, width] is missing";
                    return Err(Error::format(path, problem));
                }
            }
        }
        _ => {
            return Err(Error::message(format!(
                "--data {name:?} is neither swiss-roll, checkerboard, two-moons, ring, nor a .npy or .npz file"
            )));
        }
    };
    let shape = array.extents(path, "the array of points", "[n, D]")?;
    let data = match labels {
        None => Data::points(array.into_f32(), shape),
        Some(labels) => {
            let [_]: [usize; 1] = labels.extents(path, "the array of labels", "[n]")?;
            let whole = |label: f64| ((0.0..1e9).contains(&label) && label.fract() == 0.0).then_some(label as usize);
            let labels: Option<Vec<usize>> = labels.into_f64().into_iter().map(whole).collect();
            let labels = labels.ok_or_else(|| Error::format(path, "labels must be whole numbers from 0"))?;
            Data::labelled(array.into_f32(), shape, &labels)
        }
    };
    let data = data.map_err(|error| Error::format(path, error.to_string()))?;
    Ok(Source { data, images })
}
