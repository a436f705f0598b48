//! The CUDA compiler, from PyPI into target/cuda; it needs neither a CUDA toolkit nor a GPU.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::python::{Error, Packages};

const CUDA: Packages = Packages {
    name: "cuda",
    what: "the CUDA compiler",
    file: "cuda-requirements.txt",
    requirements: include_str!("../cuda-requirements.txt"),
    link: ("nvidia/cu13", "toolkit"),
    product: "toolkit/bin/nvcc",
};

/// The path of nvcc in `target`/cuda, installed first where it is not there at the versions required.
pub fn nvcc(target: &Path) -> Result<PathBuf, Error> {
    let installed = CUDA.install(target)?;
    if installed.fresh {
        // cargo cannot watch for a compiler that is not there yet: this has it ask build.rs again.
        let build = target.with_file_name("build.rs");
        let touched = File::options().append(true).open(&build).and_then(|file| file.set_modified(SystemTime::now()));
        touched.map_err(|error| Error::File { path: build, error })?;
    }
    Ok(installed.environment.join(CUDA.product))
}

/// The folder of libnvrtc in `target`/cuda.
pub fn libraries(target: &Path) -> PathBuf {
    target.join(CUDA.name).join(CUDA.link.1).join("lib")
}
