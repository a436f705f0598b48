//! NumPy files: `.npy` and `.npz` in, the same out, with every header checked before anything is allocated for it.

use crate::error::{Error, Result};
use npyz::{DType, NpyFile, Order, TypeChar, WriterBuilder};
use std::collections::BTreeMap;
use std::io::{Cursor, Read, Write};
use std::path::Path;

/// An array in C order.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Array {
    pub(crate) shape: Vec<usize>,
    values: Values,
}

/// f32 stays; f16 is widened to it; f64 and integers are kept as f64 until they are asked for.
#[derive(Clone, Debug, PartialEq)]
enum Values {
    F32(Vec<f32>),
    F64(Vec<f64>),
}

impl Array {
    pub(crate) fn into_f32(self) -> Vec<f32> {
        match self.values {
            Values::F32(v) => v,
            Values::F64(v) => v.into_iter().map(|v| v as f32).collect(),
        }
    }

    pub(crate) fn into_f64(self) -> Vec<f64> {
        match self.values {
            Values::F32(v) => v.into_iter().map(f64::from).collect(),
            Values::F64(v) => v,
        }
    }

    /// The extents, where there are `N` of them; `layout` names them in the message.
    pub(crate) fn extents<const N: usize>(&self, path: &Path, name: &str, layout: &str) -> Result<[usize; N]> {
        self.shape.as_slice().try_into().map_err(|_| {
            let (rank, shape) = (self.shape.len(), &self.shape);
            Error::format(path, format!("{name} has shape {shape:?}, that is {rank} axes; expected {layout}"))
        })
    }
}

/// The arrays of an `.npz` file with the given `names`.
///
/// A key that is neither among `names` nor accepted by `ignored` is an error.
pub(crate) fn read_npz(path: &Path, names: &[&str], ignored: impl Fn(&str) -> bool) -> Result<BTreeMap<String, Array>> {
    let bytes = std::fs::read(path).map_err(|source| Error::io("read", path, source))?;
    let bad = |error: zip::result::ZipError| Error::format(path, format!("not a whole .npz file ({error})"));
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).map_err(bad)?;
    let mut arrays = BTreeMap::new();
    for at in 0..archive.len() {
        let mut entry = archive.by_index(at).map_err(bad)?;
        let file_name = entry.name().map_err(bad)?.into_owned();
        let name = file_name.strip_suffix(".npy").unwrap_or(&file_name).to_owned();
        if !names.contains(&name.as_str()) {
            if ignored(&name) {
                continue;
            }
            let problem = format!("unknown key {name:?}; expected some of {}", names.join(", "));
            return Err(Error::format(path, problem));
        }
        let mut bytes = Vec::new();
        entry
            .read_to_end(&mut bytes)
            .map_err(|error| Error::format(path, format!("array {name:?} cannot be read ({error})")))?;
        let array = parse(&bytes, path, &format!("array {name:?}"))?;
        arrays.insert(name, array);
    }
    Ok(arrays)
}

/// The array of an `.npy` file.
pub(crate) fn read_npy(path: &Path) -> Result<Array> {
    let bytes = std::fs::read(path).map_err(|source| Error::io("read", path, source))?;
    parse(&bytes, path, "the file")
}

fn parse(bytes: &[u8], path: &Path, what: &str) -> Result<Array> {
    let bad = |problem: String| Error::format(path, format!("{what} {problem}"));
    let mut rest = bytes;
    let header =
        npyz::NpyHeader::from_reader(&mut rest).map_err(|error| bad(format!("is not a whole .npy array ({error})")))?;
    let refuse = |kind: String| {
        let hint = "expected floats or integers; convert it with .astype('float32')";
        bad(format!("has element type {kind}, {hint}"))
    };
    let DType::Plain(kind) = header.dtype() else {
        return Err(refuse("struct or nested array".to_owned()));
    };
    let size = match (kind.type_char(), kind.size_field()) {
        (TypeChar::Float, size @ (2 | 4 | 8)) | (TypeChar::Int | TypeChar::Uint, size @ (1 | 2 | 4 | 8)) => size,
        _ => return Err(refuse(kind.to_string())),
    };
    // The header may promise anything; what counts is what is there.
    let shape: Vec<u64> = header.shape().to_vec();
    let promised = shape.iter().try_fold(size, |n, k| n.checked_mul(*k));
    if promised != Some(rest.len() as u64) {
        let (have, size) = (rest.len(), kind.to_string());
        return Err(bad(format!("promises shape {shape:?} of {size}, but {have} bytes of data follow")));
    }
    let shape: Vec<usize> = shape.into_iter().map(|k| k as usize).collect();
    let fortran = header.order() == Order::Fortran;
    let file = NpyFile::new(bytes).map_err(|error| bad(format!("cannot be read ({error})")))?;
    let values = match (kind.type_char(), size) {
        (TypeChar::Float, 4) => file.into_vec::<f32>().map(Values::F32),
        (TypeChar::Float, 2) => {
            file.into_vec::<half::f16>().map(|v| Values::F32(v.into_iter().map(half::f16::to_f32).collect()))
        }
        (TypeChar::Float, _) => file.into_vec::<f64>().map(Values::F64),
        (TypeChar::Int, 1) => file.into_vec::<i8>().map(wide),
        (TypeChar::Int, 2) => file.into_vec::<i16>().map(wide),
        (TypeChar::Int, 4) => file.into_vec::<i32>().map(wide),
        (TypeChar::Int, _) => file.into_vec::<i64>().map(|v| Values::F64(v.into_iter().map(|v| v as f64).collect())),
        (_, 1) => file.into_vec::<u8>().map(wide),
        (_, 2) => file.into_vec::<u16>().map(wide),
        (_, 4) => file.into_vec::<u32>().map(wide),
        _ => file.into_vec::<u64>().map(|v| Values::F64(v.into_iter().map(|v| v as f64).collect())),
    };
    let values = values.map_err(|error| bad(format!("cannot be read ({error})")))?;
    let values = match values {
        values if !fortran || shape.len() < 2 => values,
        Values::F32(v) => Values::F32(from_fortran(&v, &shape)),
        Values::F64(v) => Values::F64(from_fortran(&v, &shape)),
    };
    Ok(Array { shape, values })
}

fn wide<T: Into<f64>>(values: Vec<T>) -> Values {
    Values::F64(values.into_iter().map(Into::into).collect())
}

/// Elements in C order from elements in Fortran order.
fn from_fortran<T: Copy>(values: &[T], shape: &[usize]) -> Vec<T> {
    let mut index = vec![0; shape.len()];
    let mut strides = vec![1; shape.len()];
    for axis in 1..shape.len() {
        strides[axis] = strides[axis - 1] * shape[axis - 1];
    }
    let mut out = Vec::with_capacity(values.len());
    for _ in 0..values.len() {
        out.push(values[index.iter().zip(&strides).map(|(i, s)| i * s).sum::<usize>()]);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            if index[axis] < shape[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
    out
}

/// An array to be written.
pub(crate) enum Output<'a> {
    F32(&'a [f32]),
    F64(&'a [f64]),
    I64(&'a [i64]),
}

fn encode(shape: &[usize], values: &Output<'_>) -> std::io::Result<Vec<u8>> {
    fn write<T: npyz::AutoSerialize + Copy>(shape: &[u64], values: &[T]) -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut writer = npyz::WriteOptions::new().default_dtype().shape(shape).writer(&mut bytes).begin_nd()?;
        writer.extend(values.iter().copied())?;
        writer.finish()?;
        Ok(bytes)
    }
    let shape: Vec<u64> = shape.iter().map(|k| *k as u64).collect();
    match values {
        Output::F32(v) => write(&shape, v),
        Output::F64(v) => write(&shape, v),
        Output::I64(v) => write(&shape, v),
    }
}

/// Writes an `.npz` file as `numpy.savez` does, atomically and reproducibly.
pub(crate) fn write_npz(path: &Path, arrays: &[(&str, Vec<usize>, Output<'_>)]) -> Result<()> {
    let build = || -> std::io::Result<Vec<u8>> {
        let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for (name, shape, values) in arrays {
            let bytes = encode(shape, values)?;
            let options = zip::write::SimpleFileOptions::default()
                .compression_method(zip::CompressionMethod::Stored)
                .last_modified_time(zip::DateTime::default())
                .large_file(u32::try_from(bytes.len()).is_err());
            archive.start_file(format!("{name}.npy"), options)?;
            archive.write_all(&bytes)?;
        }
        Ok(archive.finish()?.into_inner())
    };
    let bytes = build().map_err(|source| Error::io("encode", path, source))?;
    Ok(cudrift::files::write_atomically(path, &bytes)?)
}

/// Writes an `.npy` file, atomically.
pub(crate) fn write_npy(path: &Path, shape: &[usize], values: &Output<'_>) -> Result<()> {
    let bytes = encode(shape, values).map_err(|source| Error::io("encode", path, source))?;
    Ok(cudrift::files::write_atomically(path, &bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fortran_order_becomes_c_order() {
        // [[0, 1, 2], [3, 4, 5]] column by column
        assert_eq!(from_fortran(&[0, 3, 1, 4, 2, 5], &[2, 3]), [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npz");
        let values = [1.0, f64::NAN, -3.5, 4.0, 5.0, 6.0];
        write_npz(&path, &[("x", vec![2, 3], Output::F64(&values)), ("n", vec![], Output::I64(&[7]))]).unwrap();
        let arrays = read_npz(&path, &["x", "n"], |_| false).unwrap();
        assert_eq!(arrays["x"].shape, [2, 3]);
        assert_eq!(format!("{:?}", arrays["x"].clone().into_f64()), format!("{values:?}"));
        assert_eq!((arrays["n"].shape.len(), arrays["n"].clone().into_f32()), (0, vec![7.0]));
    }
}
