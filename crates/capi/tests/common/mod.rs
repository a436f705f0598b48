//! What the programs of this folder share.
#![allow(clippy::unwrap_used, dead_code)]

use std::path::{Path, PathBuf};
use std::process::Command;

/// The repository's folder.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// The folder that cargo built this program's profile in.
fn profile() -> PathBuf {
    std::env::current_exe().unwrap().parent().and_then(Path::parent).unwrap().to_owned()
}

/// Has cargo build the libraries, which no test program links.
pub fn libraries() -> PathBuf {
    let folder = profile();
    let release = folder.file_name().is_some_and(|name| name == "release");
    let mut cargo = Command::new(env!("CARGO"));
    // With the features of a run of all tests: alone, without their dependencies, it would compile the crate once more.
    cargo.args(["build", "--quiet", "--workspace", "--lib", "--tests"]).current_dir(root());
    cargo.arg("--target-dir").arg(folder.parent().unwrap()).args(release.then_some("--release"));
    assert!(cargo.status().unwrap().success());
    folder
}

/// Runs `command`, and gives what it printed.
pub fn output(command: &mut Command) -> String {
    let [out, _] = outputs(command);
    out
}

/// As [`output`], with what it wrote to its standard error.
pub fn outputs(command: &mut Command) -> [String; 2] {
    let output = command.output().unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(output.status.success(), "{command:?}\n{out}\n{err}");
    [out, err]
}

/// Is there a CUDA device, or the simulator that `cargo xtask test` puts in its place? Where one is required there is.
pub fn device() -> bool {
    let required = |name: &str| std::env::var_os(name).is_some_and(|value| value == "1");
    let there = drift::cuda::probe().is_ok();
    assert!(there || !required("CUDRIFT_REQUIRE_CUDA") && !required("CUDRIFT_REQUIRE_GPU"), "there is no CUDA device");
    if !there {
        eprintln!("SKIPPED: no CUDA device; `cargo xtask test` has the simulator");
    }
    there
}
