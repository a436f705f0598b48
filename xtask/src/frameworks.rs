//! NumPy, JAX and PyTorch from PyPI, for the tests of python/; and its wheel.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::python::{self, Error, Packages};

const NUMPY_AND_JAX: Packages = Packages {
    name: "python",
    what: "NumPy and JAX",
    file: "python-requirements.txt",
    requirements: include_str!("../python-requirements.txt"),
    // XLA's headers, which a test in C includes.
    link: ("jaxlib/include", "headers"),
    product: "headers/xla/ffi/api/c_api.h",
};

const TORCH: Packages = Packages {
    name: "torch",
    what: "PyTorch",
    file: "torch-requirements.txt",
    requirements: include_str!("../torch-requirements.txt"),
    link: ("torch", "package"),
    product: "package/version.py",
};

/// Python with NumPy and JAX in `target`/python, installed first where it is not there at the versions required.
pub fn numpy_and_jax(target: &Path) -> Result<PathBuf, Error> {
    NUMPY_AND_JAX.install(target).map(|installed| installed.environment.join("bin/python"))
}

/// Python with PyTorch in `target`/torch, likewise; some six gigabytes.
pub fn torch(target: &Path) -> Result<PathBuf, Error> {
    TORCH.install(target).map(|installed| installed.environment.join("bin/python"))
}

/// Builds the wheel of python/ around a libcudrift.so, into `target`/wheels, and says where it is.
pub fn wheel(root: &Path, target: &Path, library: &Path) -> Result<PathBuf, Error> {
    // A copy beside the workspace's version, so that nothing is left in python/.
    let copy = target.join("wheel");
    let file_error = |path: &Path| {
        let path = path.to_owned();
        |error| Error::File { path, error }
    };
    python::remove(&copy).map_err(file_error(&copy))?;
    let package = copy.join("python/cudrift");
    fs::create_dir_all(&package).map_err(file_error(&package))?;
    let mut files = vec![root.join("Cargo.toml"), library.to_owned()];
    for folder in ["python", "python/cudrift"] {
        let folder = root.join(folder);
        let entries = fs::read_dir(&folder).map_err(file_error(&folder))?;
        files.extend(entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()));
    }
    for file in files {
        let to = match file.strip_prefix(root) {
            Ok(inside) if file != library => copy.join(inside),
            _ => package.join("libcudrift.so"),
        };
        fs::copy(&file, &to).map_err(file_error(&file))?;
    }
    let library = package.join("libcudrift.so");
    python::run(Command::new("strip").arg("--strip-debug").arg(&library))?.map_err(Error::Wheel)?;
    let wheels = target.join("wheels");
    python::remove(&wheels).map_err(file_error(&wheels))?;
    let mut pip = Command::new("python3");
    pip.args([
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--disable-pip-version-check",
        "--no-input",
        "--no-deps",
        "--wheel-dir",
    ]);
    python::run(pip.arg(&wheels).arg(copy.join("python")))?.map_err(Error::Wheel)?;
    let wheel = fs::read_dir(&wheels).map_err(file_error(&wheels))?.flatten().next();
    wheel.map(|entry| entry.path()).ok_or_else(|| Error::Wheel("pip has written none".to_owned()))
}
