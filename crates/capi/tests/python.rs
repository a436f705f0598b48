//! The Python package over the library that cargo built: its own tests, each a module of python/tests, and the README's quick
//! starts as they are printed. `cargo xtask test` installs what they import.
#![cfg(all(unix, not(target_os = "macos")))]
#![allow(clippy::unwrap_used)]

mod common;

use common::{libraries, output, outputs, root};
use std::path::PathBuf;
use std::process::Command;

/// Python from an environment in target, with the package and its library.
fn python(environment: &str) -> Command {
    let program = root().join("target").join(environment).join("bin/python");
    assert!(program.is_file(), "{} is not there; `cargo xtask test` installs it", program.display());
    let mut command = Command::new(program);
    command.env("PYTHONPATH", root().join("python")).env("PYTHONDONTWRITEBYTECODE", "1");
    command.env("CUDRIFT_LIBRARY", libraries().join("libcudrift.so"));
    command
}

/// Runs a module of python/tests, in which no test is skipped.
fn module(environment: &str, name: &str) {
    let mut command = python(environment);
    // unittest reports to its standard error.
    let printed =
        outputs(command.args(["-m", "unittest", "-v", name]).current_dir(root().join("python/tests"))).concat();
    print!("{printed}");
    assert!(printed.contains("\nOK\n") && !printed.contains("skipped"), "{printed}");
}

/// A program of the README's that says this.
fn quick_start(environment: &str, says: &str) -> String {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let programs: Vec<&str> = readme.split("```python\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    let program = programs.iter().find(|program| program.contains(says)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("program.py");
    std::fs::write(&file, program).unwrap();
    output(python(environment).arg(file))
}

/// An example that trains with several workers and with one, whose parameters are then so far apart at most.
fn example(environment: &str, name: &str, arguments: [&str; 2]) {
    let printed = output(python(environment).arg(root().join("examples").join(name)).args(arguments));
    let (_, apart) = printed.split_once("parameters are ").unwrap();
    let apart: f64 = apart.split(' ').next().unwrap().parse().unwrap();
    assert!(apart <= 1e-6, "{printed}");
}

#[test]
fn the_header_s_declarations() {
    module("python", "test_abi");
}

#[test]
fn numpy() {
    module("python", "test_numpy");
    let printed = quick_start("python", "import numpy as np");
    assert!(printed.contains("loss ["), "{printed}");
}

#[test]
fn jax() {
    module("python", "test_jax");
    let printed = quick_start("python", "from cudrift.jax import");
    assert!(printed.contains("loss"), "{printed}");
    example("python", "data_parallel_jax.py", ["--devices", "3"]);
}

#[test]
fn device_memory() {
    if common::device() {
        module("python", "test_cuda");
    }
}

#[test]
#[ignore = "PyTorch is six gigabytes: cargo xtask test --full"]
fn torch() {
    module("torch", "test_torch");
    let printed = quick_start("torch", "from cudrift.torch import");
    assert!(printed.contains("loss"), "{printed}");
    example("torch", "data_parallel_torch.py", ["--processes", "3"]);
}

/// The wheel in an environment that has nothing else of ours.
#[test]
#[ignore = "builds for release: cargo xtask test --full"]
fn the_wheel() {
    let mut cargo = Command::new(env!("CARGO"));
    let printed = output(cargo.args(["xtask", "wheel"]).current_dir(root()));
    let wheel = PathBuf::from(printed.trim());
    let folder = tempfile::tempdir().unwrap();
    let environment = folder.path().join("environment");
    output(Command::new("python3").args(["-m", "venv"]).arg(&environment));
    let python = environment.join("bin/python");
    output(Command::new(&python).args(["-m", "pip", "install", "--quiet"]).arg(&wheel));
    let printed = output(Command::new(&python).args(["-m", "cudrift.doctor"]).current_dir(&folder));
    assert!(printed.contains(env!("CARGO_PKG_VERSION")) && printed.contains("of the reference"), "{printed}");
    assert!(printed.contains("site-packages/cudrift/libcudrift.so"), "{printed}");
}
