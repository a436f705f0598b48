//! Generators in safetensors files: `layers.{l}.weight` [out, in] and `layers.{l}.bias` `[out]`, as PyTorch names them;
//! of block k `blocks.{k}.gain`, `blocks.{k}.up.*` and `blocks.{k}.down.*`, then `gain`; `classes` and `guidance`.

use super::architecture::Part;
use super::{Architecture, Mlp};
use crate::{Error, Result};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use std::path::Path;

impl Mlp {
    /// The tensors of this network, each name with `prefix` before it.
    pub(crate) fn tensors<'a>(&'a self, prefix: &str, parameters: &'a [f32]) -> Result<Vec<(String, TensorView<'a>)>> {
        let parts = self.architecture.layers().parts();
        let tensor = |part: Part| Ok((prefix.to_owned() + &part.name, f32_view(part.shape, &parameters[part.range])?));
        parts.into_iter().map(tensor).collect()
    }

    /// This network as the bytes of a safetensors file.
    ///
    /// # Errors
    /// [`Error::TooLarge`] where the file's header would be.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        serialize(self.tensors("", &self.parameters)?, None)
    }

    /// Writes this network to a safetensors file, atomically.
    ///
    /// # Errors
    /// [`Error::Io`] with the system's answer.
    pub fn save(&self, path: &Path) -> Result<()> {
        crate::files::write_atomically(path, &self.to_bytes()?)
    }

    /// Reads a network from a safetensors file.
    ///
    /// # Errors
    /// [`Error::Io`] where the file cannot be read; [`Error::Format`] where it is not a generator.
    pub fn load(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|source| Error::io("read", path, source))?;
        let file = open(&bytes, path)?;
        read(&file, "", path)
    }
}

/// The network whose tensors have `prefix`.
pub(crate) fn read(file: &SafeTensors<'_>, prefix: &str, path: &Path) -> Result<Mlp> {
    let bad = |problem: String| Error::format(path, problem);
    let shape = |name: &str| file.tensor(&format!("{prefix}{name}")).ok().map(|tensor| tensor.shape().to_vec());
    let mut sizes = Vec::new();
    while let Some(shape) = shape(&format!("layers.{}.weight", sizes.len().saturating_sub(1))) {
        let [output, input] = *shape else {
            let name = format!("{prefix}layers.{}.weight", sizes.len().saturating_sub(1));
            return Err(bad(format!("{name} has shape {shape:?}, expected [out, in]")));
        };
        if sizes.is_empty() {
            sizes.push(input);
        }
        sizes.push(output);
    }
    if sizes.is_empty() {
        let names = file.names();
        let hint = if names.iter().any(|n| n.starts_with("model.")) {
            "; this looks like a checkpoint, the generator alone is in generator.safetensors"
        } else {
            ""
        };
        return Err(bad(format!("no tensor {prefix}layers.0.weight, so this is not a generator{hint}")));
    }
    let mut architecture = Architecture::from(sizes.as_slice());
    architecture.blocks = (0..).take_while(|k| shape(&format!("blocks.{k}.gain")).is_some()).count();
    architecture.classes = shape("classes").map_or(0, |shape| shape.first().copied().unwrap_or(0));
    architecture.guided = shape("guidance").is_some();
    let count = architecture.parameters().map_err(|error| bad(error.to_string()))?;
    // Whoever wrote the extents need not have written as many numbers.
    if file.tensors().iter().map(|(_, tensor)| tensor.data().len() / size_of::<f32>()).sum::<usize>() < count {
        return Err(bad(format!("fewer numbers than the {count} parameters of {architecture}")));
    }
    let mut parameters = Vec::with_capacity(count);
    for part in architecture.layers().parts() {
        let name = format!("{prefix}{}", part.name);
        match shape(&part.name) {
            Some(got) if got != part.shape => {
                return Err(bad(format!("{name} has shape {got:?}, expected {:?} beside the others", part.shape)));
            }
            _ => parameters.extend(floats(file, &name, path)?),
        }
    }
    Mlp::from_parameters(architecture, parameters).map_err(|error| bad(error.to_string()))
}

/// An F32 tensor of `data`.
pub(crate) fn f32_view(shape: Vec<usize>, data: &[f32]) -> Result<TensorView<'_>> {
    TensorView::new(Dtype::F32, shape, bytemuck::cast_slice(data)).map_err(|error| too_large(&error))
}

pub(crate) fn serialize(tensors: Vec<(String, TensorView<'_>)>, metadata: Option<(&str, String)>) -> Result<Vec<u8>> {
    // One key at most: the library writes the map in its random order, and files should be reproducible.
    let metadata = metadata.map(|(key, value)| [(key.to_owned(), value)].into());
    safetensors::serialize(tensors, metadata).map_err(|error| too_large(&error))
}

fn too_large(error: &safetensors::SafeTensorError) -> Error {
    Error::TooLarge { op: "safetensors", what: "the file", got: error.to_string() }
}

/// A safetensors file's bytes, checked.
pub(crate) fn open<'a>(bytes: &'a [u8], path: &Path) -> Result<SafeTensors<'a>> {
    SafeTensors::deserialize(bytes)
        .map_err(|error| Error::format(path, format!("not a whole safetensors file ({error})")))
}

/// The elements of an F32 tensor.
pub(crate) fn floats(file: &SafeTensors<'_>, name: &str, path: &Path) -> Result<Vec<f32>> {
    let tensor = file.tensor(name).map_err(|_| Error::format(path, format!("tensor {name} is missing")))?;
    if tensor.dtype() != Dtype::F32 {
        return Err(Error::format(path, format!("tensor {name} has type {:?}, expected F32", tensor.dtype())));
    }
    Ok(bytemuck::pod_collect_to_vec(tensor.data()))
}
