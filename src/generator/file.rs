//! Generators in safetensors files: `layers.{l}.weight` [out, in] and `layers.{l}.bias` `[out]`, as PyTorch names them.

use super::Mlp;
use crate::{Error, Result};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use std::path::Path;

impl Mlp {
    /// The tensors of this network, each name with `prefix` before it.
    pub(crate) fn tensors<'a>(&'a self, prefix: &str, parameters: &'a [f32]) -> Result<Vec<(String, TensorView<'a>)>> {
        let mut tensors = Vec::new();
        for (l, layer) in self.layers().into_iter().enumerate() {
            let (weight, bias) = layer.split(parameters);
            let mut push = |name: &str, shape: Vec<usize>, data: &'a [f32]| {
                let view = f32_view(shape, data)?;
                tensors.push((format!("{prefix}layers.{l}.{name}"), view));
                Ok::<_, Error>(())
            };
            push("weight", vec![layer.output, layer.input], weight)?;
            push("bias", vec![layer.output], bias)?;
        }
        Ok(tensors)
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
    let mut sizes = Vec::new();
    let mut parameters = Vec::new();
    for l in 0.. {
        let name = format!("{prefix}layers.{l}.weight");
        let Ok(weight) = file.tensor(&name) else { break };
        let [output, input] = *weight.shape() else {
            return Err(bad(format!("{name} has shape {:?}, expected [out, in]", weight.shape())));
        };
        match sizes.last() {
            None => sizes.push(input),
            Some(&previous) if previous != input => {
                return Err(bad(format!("{name} has {input} inputs, but the layer before has {previous} outputs")));
            }
            Some(_) => {}
        }
        sizes.push(output);
        parameters.extend(floats(file, &name, path)?);
        let bias = floats(file, &format!("{prefix}layers.{l}.bias"), path)?;
        if bias.len() != output {
            return Err(bad(format!("{prefix}layers.{l}.bias has {} elements, expected {output}", bias.len())));
        }
        parameters.extend(bias);
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
    Mlp::from_parameters(&sizes, parameters).map_err(|error| bad(error.to_string()))
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
