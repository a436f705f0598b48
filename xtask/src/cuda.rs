//! The CUDA compiler, from PyPI into target/cuda; it needs neither a CUDA toolkit nor a GPU.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What is installed. A copy of this text in the environment says which versions it holds.
const REQUIREMENTS: &str = include_str!("../cuda-requirements.txt");
const STAMP: &str = "cuda-requirements.txt";
/// Of an installed environment, whatever the version of its python.
const NVCC: &str = "toolkit/bin/nvcc";
const PIP: [&str; 9] = [
    "-m",
    "pip",
    "install",
    "--quiet",
    "--disable-pip-version-check",
    "--no-input",
    "--no-deps",
    "--only-binary=:all:",
    "--requirement",
];

/// Why there is no CUDA compiler.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot run python3: {0}")]
    Python(std::io::Error),
    #[error("python3 -m venv failed: {0}")]
    Venv(String),
    #[error("pip cannot install xtask/cuda-requirements.txt (is PyPI within reach?): {0}")]
    Pip(String),
    #[error("the packages of xtask/cuda-requirements.txt hold no nvcc")]
    NoCompiler,
    #[error("{}: {error}", path.display())]
    File { path: PathBuf, error: std::io::Error },
}

/// The path of nvcc in `target`/cuda, installed first where it is not there at the versions required.
///
/// The environment is built beside its place and moved there when complete, so target/cuda is never half of one.
pub fn nvcc(target: &Path) -> Result<PathBuf, Error> {
    let environment = target.join("cuda");
    let file_error = |error| Error::File { path: environment.clone(), error };
    fs::create_dir_all(target).map_err(file_error)?;
    // Held until this function returns; the system lets go of it where the process is killed.
    let lock = File::create(target.join("cuda.lock")).map_err(file_error)?;
    lock.lock().map_err(file_error)?;
    if !fs::read_to_string(environment.join(STAMP)).is_ok_and(|stamp| stamp == REQUIREMENTS) {
        eprintln!("xtask: installing the CUDA compiler into {} (once)", environment.display());
        let partial = target.join("cuda.partial");
        remove(&partial).map_err(file_error)?;
        install(&partial)?;
        remove(&environment).map_err(file_error)?;
        fs::rename(&partial, &environment).map_err(file_error)?;
    }
    Ok(environment.join(NVCC))
}

fn install(environment: &Path) -> Result<(), Error> {
    let file_error = |error| Error::File { path: environment.to_owned(), error };
    run(Command::new("python3").args(["-m", "venv"]).arg(environment))?.map_err(Error::Venv)?;
    let requirements = environment.join(STAMP);
    fs::write(&requirements, REQUIREMENTS).map_err(file_error)?;
    run(Command::new(environment.join("bin/python")).args(PIP).arg(&requirements))?.map_err(Error::Pip)?;
    let python =
        fs::read_dir(environment.join("lib")).map_err(file_error)?.flatten().next().ok_or(Error::NoCompiler)?;
    let toolkit = Path::new("lib").join(python.file_name()).join("site-packages/nvidia/cu13");
    symlink(toolkit, environment.join("toolkit")).map_err(file_error)?;
    if environment.join(NVCC).is_file() { Ok(()) } else { Err(Error::NoCompiler) }
}

/// Runs a command of python; where it fails, the inner error is the line of its output that says why.
fn run(command: &mut Command) -> Result<Result<(), String>, Error> {
    let output = command.output().map_err(Error::Python)?;
    if output.status.success() {
        return Ok(Ok(()));
    }
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let reason = lines.clone().find(|line| line.starts_with("ERROR")).or(lines.next_back());
    Ok(Err(reason.map_or_else(|| output.status.to_string(), str::to_owned)))
}

fn remove(folder: &Path) -> std::io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
