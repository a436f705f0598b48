//! Running the built command, and NumPy files written and read by hand.
#![allow(dead_code, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::{Cursor, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

pub fn cudrift() -> Command {
    Command::new(env!("CARGO_BIN_EXE_cudrift"))
}

pub fn run(args: &[&str]) -> Output {
    cudrift().args(args).output().unwrap()
}

#[track_caller]
pub fn succeeds(args: &[&str]) -> Output {
    let output = run(args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {:?}\n{stderr}", output.status);
    output
}

/// Is there a CUDA device, or the simulator that `cargo xtask test` puts in its place? Where one is required there is.
pub fn cuda() -> bool {
    let required = |name| std::env::var_os(name).is_some_and(|value| value == "1");
    let there = cudrift::cuda::probe().is_ok();
    assert!(there || !required("CUDRIFT_REQUIRE_CUDA") && !required("CUDRIFT_REQUIRE_GPU"), "there is no CUDA device");
    if !there {
        eprintln!("SKIPPED: no CUDA device; `cargo xtask test` has the simulator");
    }
    there
}

/// Asserts the status, that standard error is one line, and that it contains `hint`.
#[track_caller]
pub fn fails(args: &[&str], status: i32, hint: &str) {
    assert_failed(&format!("{args:?}"), &run(args), status, hint);
}

#[track_caller]
pub fn assert_failed(what: &str, output: &Output, status: i32, hint: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{what}\n{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{what}: not one line\n{stderr}");
    assert!(stderr.contains(hint), "{what}: expected {hint:?} in\n{stderr}");
    assert!(!stderr.contains("panicked"), "{what}\n{stderr}");
}

/// The bytes of an `.npy` file with this header text and data.
pub fn npy(descr: &str, fortran: bool, shape: &str, data: &[u8]) -> Vec<u8> {
    let order = if fortran { "True" } else { "False" };
    let mut header = format!("{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}");
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend(u16::try_from(header.len()).unwrap().to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

pub fn shape_text(shape: &[usize]) -> String {
    let inner: String = shape.iter().map(|k| format!("{k},")).collect();
    format!("({inner})")
}

pub fn npy_f32(shape: &[usize], values: &[f32]) -> Vec<u8> {
    let data: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    npy("'<f4'", false, &shape_text(shape), &data)
}

pub fn npy_f64(shape: &[usize], values: &[f64]) -> Vec<u8> {
    let data: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    npy("'<f8'", false, &shape_text(shape), &data)
}

/// Smooth values that differ from one another.
pub fn wave(n: usize, phase: f32) -> Vec<f32> {
    (0..n).map(|k| (k as f32 * 0.7 + phase).sin() + 0.01 * k as f32).collect()
}

pub fn write_npz(path: &Path, entries: &[(&str, Vec<u8>)]) {
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (at, (name, bytes)) in entries.iter().enumerate() {
        // numpy.savez and numpy.savez_compressed
        let method = [zip::CompressionMethod::Stored, zip::CompressionMethod::Deflated][at % 2];
        let options = zip::write::SimpleFileOptions::default().compression_method(method);
        archive.start_file(format!("{name}.npy"), options).unwrap();
        archive.write_all(bytes).unwrap();
    }
    std::fs::write(path, archive.finish().unwrap().into_inner()).unwrap();
}

/// Shape, element type and values of every array of an `.npz` file.
pub fn read_npz(path: &Path) -> BTreeMap<String, (Vec<usize>, String, Vec<f64>)> {
    let mut archive = zip::ZipArchive::new(std::fs::File::open(path).unwrap()).unwrap();
    let mut arrays = BTreeMap::new();
    for at in 0..archive.len() {
        let mut entry = archive.by_index(at).unwrap();
        let name = entry.name().unwrap().trim_end_matches(".npy").to_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        arrays.insert(name, read_npy(&bytes));
    }
    arrays
}

pub fn read_npy(bytes: &[u8]) -> (Vec<usize>, String, Vec<f64>) {
    let npy = npyz::NpyFile::new(bytes).unwrap();
    let shape = npy.shape().iter().map(|k| *k as usize).collect();
    let kind = npy.dtype().descr();
    let values = match kind.as_str() {
        "'<f4'" => npy.into_vec::<f32>().unwrap().into_iter().map(f64::from).collect(),
        "'<f8'" => npy.into_vec::<f64>().unwrap(),
        "'<i8'" => npy.into_vec::<i64>().unwrap().into_iter().map(|v| v as f64).collect(),
        other => panic!("unexpected element type {other}"),
    };
    (shape, kind, values)
}

/// A folder that goes away, and paths in it as text.
pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// Writes a drift case, with `changes` in place of, or beside, its own arrays.
    pub fn case(&self, changes: &[(&str, Vec<u8>)]) -> String {
        let mut entries =
            vec![("gen", npy_f32(&[2, 3, 4], &wave(24, 0.0))), ("pos", npy_f32(&[2, 5, 4], &wave(40, 1.0)))];
        for (name, bytes) in changes {
            entries.retain(|(have, _)| have != name);
            entries.push((name, bytes.clone()));
        }
        let path = self.path("case.npz");
        write_npz(&path, &entries);
        path.to_str().unwrap().to_owned()
    }
}

pub fn golden(name: &str) -> String {
    format!("{}/../../tests/golden/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Largest absolute error over the largest absolute expected value.
pub fn relative_error(got: &[f64], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    let max = want.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    let worst = got.iter().zip(want).map(|(a, b)| (a - b).abs());
    let worst = worst.fold(0.0, |m: f64, e| if e > m || e.is_nan() { e } else { m });
    if worst == 0.0 { 0.0 } else { worst / max }
}
