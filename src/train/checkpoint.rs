//! Checkpoints: a safetensors file with parameters, moments, averages and the step, from which a run goes on bit for
//! bit. The random numbers need no more than the seed and the step.

use super::{Config, Trainer};
use crate::backend::{Backend, Progress, Weights};
use crate::cpu::Host;
use crate::generator::{open, read, serialize};
use crate::{Error, Result};
use std::path::Path;

const FORMAT: &str = "cudrift checkpoint 1";
const RNG: &str = "philox4x32-10, counter (block, step, purpose)";

impl<B: Backend> Trainer<B> {
    /// Writes a checkpoint, atomically; the same file on every backend.
    ///
    /// # Errors
    /// [`Error::Io`] with the system's answer; those of [`Backend`].
    pub fn save(&self, path: &Path) -> Result<()> {
        let Progress { step, loss_ema, .. } = self.backend.read(&self.work.progress)?;
        let Weights { parameters, first, second, ema, .. } = &self.work.weights;
        let model = self.model_of(parameters)?;
        let array = |array: &B::Array| self.backend.download(array, B::len(array));
        let (first, second, ema) = (array(first)?, array(second)?, array(ema)?);
        let mut tensors = Vec::new();
        for (prefix, values) in
            [("model.", model.parameters()), ("ema.", &ema), ("adam.first.", &first), ("adam.second.", &second)]
        {
            tensors.extend(model.tensors(prefix, values)?);
        }
        // The average loss is f64; its bits travel as text so that none is lost.
        let state = serde_json::json!({
            "format": FORMAT,
            "step": step,
            "seed": self.config.seed,
            "rng": RNG,
            "loss_ema_bits": format!("{:016x}", loss_ema.to_bits()),
        });
        crate::files::write_atomically(path, &serialize(tensors, Some(("cudrift", state.to_string())))?)
    }

    /// A trainer that goes on from a checkpoint, of whatever backend. The data and the spec are `config`'s; only
    /// architecture and seed are compared.
    ///
    /// # Errors
    /// [`Error::Io`] where the file cannot be read; [`Error::Format`] where it is not a checkpoint, or one of another
    /// architecture or seed than `config`'s; those of [`Backend`].
    pub fn load_on(backend: B, config: Config, path: &Path) -> Result<Self> {
        config.check_memory()?;
        let bytes = std::fs::read(path).map_err(|source| Error::io("read", path, source))?;
        let file = open(&bytes, path)?;
        let bad = |problem: String| Error::format(path, problem);
        let state: serde_json::Value = safetensors::SafeTensors::read_metadata(&bytes)
            .ok()
            .and_then(|(_, metadata)| metadata.metadata().as_ref()?.get("cudrift").cloned())
            .and_then(|text| serde_json::from_str(&text).ok())
            .ok_or_else(|| bad("not a checkpoint of this program (its metadata are missing)".to_owned()))?;
        if state["format"] != FORMAT {
            return Err(bad(format!("checkpoint format {}, expected {FORMAT:?}", state["format"])));
        }
        let step = state["step"].as_u64();
        let loss_ema = state["loss_ema_bits"].as_str().and_then(|bits| u64::from_str_radix(bits, 16).ok());
        let (Some(step), Some(loss_ema)) = (step, loss_ema) else {
            return Err(bad("the checkpoint's step or average loss cannot be read".to_owned()));
        };
        if state["rng"] != RNG {
            return Err(bad(format!("the checkpoint's random numbers are {}, expected {RNG:?}", state["rng"])));
        }
        if state["seed"].as_u64() != Some(config.seed) {
            return Err(bad(format!("the checkpoint has seed {}, the run has {}", state["seed"], config.seed)));
        }
        let model = read(&file, "model.", path)?;
        if *model.architecture() != config.architecture() {
            let (have, want) = (model.architecture(), config.architecture());
            return Err(bad(format!("the checkpoint's generator has {have}, the run has {want}")));
        }
        let part = |prefix: &str| -> Result<Vec<f32>> {
            let part = read(&file, prefix, path)?;
            if part.architecture() != model.architecture() {
                return Err(bad(format!("the tensors {prefix}* have other shapes than model.*")));
            }
            Ok(part.parameters().to_vec())
        };
        let mut weights = Weights::new(&backend, model.parameters())?;
        weights.first = backend.upload("the first moment", &part("adam.first.")?)?;
        weights.second = backend.upload("the second moment", &part("adam.second.")?)?;
        weights.ema = backend.upload("the averaged parameters", &part("ema.")?)?;
        Self::assemble(backend, config, &model, weights, &Progress::new(step, f64::from_bits(loss_ema)))
    }
}

impl Trainer {
    /// A trainer on the CPU that goes on from a checkpoint.
    ///
    /// # Errors
    /// As [`Trainer::load_on`].
    pub fn load(config: Config, path: &Path) -> Result<Self> {
        Self::load_on(Host::new(), config, path)
    }
}
