//! NumPy files: `.npy` and `.npz` in, the same out.
//!
//! The header parser is this crate's own, small and linear: it takes what NumPy writes for plain arrays, and compares
//! every promise of a header with the bytes that are there before anything is allocated for it.

use crate::error::{Error, Result};
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
            let shape = &self.shape;
            Error::format(path, format!("{name} has shape {shape:?}, expected {layout}"))
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
        let array = parse(&bytes).map_err(|problem| Error::format(path, format!("array {name:?} {problem}")))?;
        if arrays.insert(name.clone(), array).is_some() {
            return Err(Error::format(path, format!("key {name:?} appears twice")));
        }
    }
    Ok(arrays)
}

/// Keys of results that a case file may carry beside its inputs.
pub(crate) fn is_reference(key: &str) -> bool {
    key.starts_with("ref_") || key.starts_with("official_")
}

/// The array of an `.npy` file.
pub(crate) fn read_npy(path: &Path) -> Result<Array> {
    let bytes = std::fs::read(path).map_err(|source| Error::io("read", path, source))?;
    parse(&bytes).map_err(|problem| Error::format(path, format!("the file {problem}")))
}

/// An `.npy` file's bytes as an array, or what is wrong with them.
fn parse(bytes: &[u8]) -> std::result::Result<Array, String> {
    let cut = || "is not a whole .npy array".to_owned();
    let (magic, rest) = bytes.split_at_checked(8).ok_or_else(cut)?;
    if &magic[..6] != b"\x93NUMPY" {
        return Err("is not a .npy array".to_owned());
    }
    let (len, rest) = match magic[6] {
        1 => {
            let (len, rest) = rest.split_first_chunk::<2>().ok_or_else(cut)?;
            (usize::from(u16::from_le_bytes(*len)), rest)
        }
        2 | 3 => {
            let (len, rest) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
            (u32::from_le_bytes(*len) as usize, rest)
        }
        version => return Err(format!("has .npy version {version}, expected 1, 2 or 3")),
    };
    let (header, data) = rest.split_at_checked(len).ok_or_else(cut)?;
    let header = std::str::from_utf8(header).map_err(|_| "has a header that is not text".to_owned())?;
    let Header { descr, fortran, shape } = Header::parse(header)?;
    let kind = descr.trim_start_matches(['<', '>', '|', '=']);
    let big_endian = descr.starts_with('>');
    let size: usize = match kind {
        "i1" | "u1" => 1,
        "f2" | "i2" | "u2" => 2,
        "f4" | "i4" | "u4" => 4,
        "f8" | "i8" | "u8" => 8,
        _ => {
            let hint = "expected floats of 2, 4 or 8 bytes, or integers; convert it with .astype('float32')";
            return Err(format!("has element type '{descr}', {hint}"));
        }
    };
    let promised = shape.iter().try_fold(size, |n, k| n.checked_mul(*k));
    if promised != Some(data.len()) {
        let have = data.len();
        return Err(format!("promises shape {shape:?} of '{descr}', but {have} bytes of data follow"));
    }
    let values = match kind {
        "f4" => Values::F32(decode(data, big_endian, f32::from_le_bytes)),
        "f2" => Values::F32(decode(data, big_endian, |b| half::f16::from_le_bytes(b).to_f32())),
        "f8" => Values::F64(decode(data, big_endian, f64::from_le_bytes)),
        "i1" => Values::F64(decode(data, big_endian, |b| f64::from(i8::from_le_bytes(b)))),
        "i2" => Values::F64(decode(data, big_endian, |b| f64::from(i16::from_le_bytes(b)))),
        "i4" => Values::F64(decode(data, big_endian, |b| f64::from(i32::from_le_bytes(b)))),
        "i8" => Values::F64(decode(data, big_endian, |b| i64::from_le_bytes(b) as f64)),
        "u1" => Values::F64(decode(data, big_endian, |b| f64::from(u8::from_le_bytes(b)))),
        "u2" => Values::F64(decode(data, big_endian, |b| f64::from(u16::from_le_bytes(b)))),
        "u4" => Values::F64(decode(data, big_endian, |b| f64::from(u32::from_le_bytes(b)))),
        _ => Values::F64(decode(data, big_endian, |b| u64::from_le_bytes(b) as f64)),
    };
    let values = match values {
        values if !fortran || shape.len() < 2 => values,
        Values::F32(v) => Values::F32(from_fortran(&v, &shape)),
        Values::F64(v) => Values::F64(from_fortran(&v, &shape)),
    };
    Ok(Array { shape, values })
}

/// The three entries of a plain array's header.
#[derive(Debug, PartialEq)]
struct Header {
    descr: String,
    fortran: bool,
    shape: Vec<usize>,
}

impl Header {
    /// Reads `{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }`, the entries in any order.
    fn parse(text: &str) -> std::result::Result<Self, String> {
        let bad = || "has a header that is not that of a plain array of numbers".to_owned();
        let mut rest = text.trim().strip_prefix('{').and_then(|t| t.strip_suffix('}')).ok_or_else(bad)?.trim();
        let (mut descr, mut fortran, mut shape) = (None, None, None);
        while !rest.is_empty() {
            let quote = rest.chars().next().filter(|c| "'\"".contains(*c)).ok_or_else(bad)?;
            let (key, after) = rest[1..].split_once(quote).ok_or_else(bad)?;
            let value = after.trim_start().strip_prefix(':').ok_or_else(bad)?.trim_start();
            // A value ends with its own bracket or quote, else at the comma.
            let end = match value.chars().next().ok_or_else(bad)? {
                '(' => value.find(')').ok_or_else(bad)? + 1,
                c @ ('\'' | '"') => value[1..].find(c).ok_or_else(bad)? + 2,
                _ => value.find(',').unwrap_or(value.len()),
            };
            let (value, after) = value.split_at(end);
            let value = value.trim();
            match key {
                "descr" => {
                    if !value.starts_with(['\'', '"']) {
                        return Err("has a structured element type, expected floats or integers".to_owned());
                    }
                    descr = Some(value[1..value.len() - 1].to_owned());
                }
                "fortran_order" => {
                    fortran = Some(match value {
                        "True" => true,
                        "False" => false,
                        _ => return Err(bad()),
                    });
                }
                "shape" => {
                    let inner = value.strip_prefix('(').and_then(|v| v.strip_suffix(')')).ok_or_else(bad)?;
                    let parts: Vec<&str> = inner.split(',').map(str::trim).collect();
                    let parts = parts.strip_suffix(&[""]).unwrap_or(&parts);
                    let extents: Option<Vec<usize>> = parts.iter().map(|k| k.parse().ok()).collect();
                    shape = Some(extents.ok_or_else(|| format!("has the impossible shape {value}"))?);
                }
                _ => return Err(bad()),
            }
            let after = after.trim_start();
            rest = match after.strip_prefix(',') {
                Some(after) => after.trim_start(),
                None if after.is_empty() => after,
                None => return Err(bad()),
            };
        }
        match (descr, fortran, shape) {
            (Some(descr), Some(fortran), Some(shape)) => Ok(Self { descr, fortran, shape }),
            _ => Err(bad()),
        }
    }
}

fn decode<const N: usize, T>(data: &[u8], big_endian: bool, read: impl Fn([u8; N]) -> T) -> Vec<T> {
    let (elements, _) = data.as_chunks::<N>();
    let mut values = Vec::with_capacity(elements.len());
    for bytes in elements {
        let mut bytes = *bytes;
        if big_endian {
            bytes.reverse();
        }
        values.push(read(bytes));
    }
    values
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

/// The bytes of an `.npy` file, version 1, its data aligned to 64 bytes as NumPy does.
fn encode(shape: &[usize], values: &Output<'_>) -> Vec<u8> {
    let (descr, data): (_, Vec<u8>) = match values {
        Output::F32(v) => ("<f4", v.iter().flat_map(|v| v.to_le_bytes()).collect()),
        Output::F64(v) => ("<f8", v.iter().flat_map(|v| v.to_le_bytes()).collect()),
        Output::I64(v) => ("<i8", v.iter().flat_map(|v| v.to_le_bytes()).collect()),
    };
    let extents = match shape {
        [one] => format!("{one},"),
        many => many.iter().map(usize::to_string).collect::<Vec<_>>().join(", "),
    };
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({extents}), }}");
    let padded = (10 + header.len() + 1).next_multiple_of(64) - 10;
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    // A shape of a few axes is far below the 65,535 bytes of a version 1 header.
    bytes.extend((padded as u16).to_le_bytes());
    bytes.extend(format!("{header:<width$}\n", width = padded - 1).as_bytes());
    bytes.extend(data);
    bytes
}

/// Writes an `.npz` file as `numpy.savez` does, atomically and reproducibly.
pub(crate) fn write_npz(path: &Path, arrays: &[(&str, Vec<usize>, Output<'_>)]) -> Result<()> {
    let build = || -> std::io::Result<Vec<u8>> {
        let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for (name, shape, values) in arrays {
            let bytes = encode(shape, values);
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
    Ok(cudrift::files::write_atomically(path, &encode(shape, values))?)
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
    fn headers_as_numpy_writes_them_and_as_others_do() {
        let header = |descr: &str, fortran, shape: &[usize]| {
            Ok(Header { descr: descr.to_owned(), fortran, shape: shape.to_vec() })
        };
        let parse = Header::parse;
        assert_eq!(
            parse("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }  \n"),
            header("<f4", false, &[2, 3])
        );
        assert_eq!(parse("{\"shape\":(),\"fortran_order\":True,\"descr\":\"|i1\"}"), header("|i1", true, &[]));
        assert_eq!(parse("{'descr': '>f8', 'fortran_order': False, 'shape': (7,)}"), header(">f8", false, &[7]));
        for bad in [
            "",
            "{",
            "{}",
            "{'descr'}",
            "{'descr': }",
            "{'descr': '<f4'}",
            "{'descr': '<f4', 'fortran_order': Maybe, 'shape': (2,), }",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (2,, }",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (2, x), }",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (-2,), }",
            "{'descr': '<f4', 'fortran_order': False, 'shape': 2, }",
            "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,), }",
            "{'descr': '<f4' 'fortran_order': False, 'shape': (2,), }",
            "{'other': 1, 'descr': '<f4', 'fortran_order': False, 'shape': (2,), }",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        // Nesting costs nothing: it is refused at its first bracket.
        for open in ["{", "[", "(", "{\"a\":"] {
            assert!(parse(&format!("{{'descr': {}", open.repeat(1_000_000))).is_err());
        }
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
