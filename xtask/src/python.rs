//! Packages from PyPI, each set in an environment of its own under target.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

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

/// What an environment holds.
pub struct Packages {
    /// Its folder's name in target.
    pub name: &'static str,
    /// What it is, for a message.
    pub what: &'static str,
    /// The name of the requirements file in xtask. A copy of the text in the environment says which versions it holds.
    pub file: &'static str,
    pub requirements: &'static str,
    /// A folder of site-packages, and the name of a link to it in the environment, which no version of python changes.
    pub link: (&'static str, &'static str),
    /// What the environment must then have.
    pub product: &'static str,
}

/// Why packages are not there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot run {program}: {error}")]
    Program { program: String, error: std::io::Error },
    #[error("python3 -m venv failed: {0}")]
    Venv(String),
    #[error("pip cannot install xtask/{file} (is PyPI within reach?): {problem}")]
    Pip { file: &'static str, problem: String },
    #[error("the packages of xtask/{file} hold no {product}")]
    Product { file: &'static str, product: &'static str },
    #[error("no wheel: {0}")]
    Wheel(String),
    #[error("{}: {error}", path.display())]
    File { path: PathBuf, error: std::io::Error },
}

/// An environment, and whether it was made just now.
pub struct Installed {
    pub environment: PathBuf,
    pub fresh: bool,
}

impl Packages {
    /// The environment, installed first where it is not there at the versions required.
    ///
    /// It is built beside its place and moved there when complete, so its folder is never half of one.
    pub fn install(&self, target: &Path) -> Result<Installed, Error> {
        let environment = target.join(self.name);
        let file_error = |error| Error::File { path: environment.clone(), error };
        fs::create_dir_all(target).map_err(file_error)?;
        // Held until this function returns; the system lets go of it where the process is killed.
        let lock = File::create(target.join(format!("{}.lock", self.name))).map_err(file_error)?;
        lock.lock().map_err(file_error)?;
        let fresh = !fs::read_to_string(environment.join(self.file)).is_ok_and(|stamp| stamp == self.requirements);
        if fresh {
            eprintln!("xtask: installing {} into {} (once)", self.what, environment.display());
            let partial = target.join(format!("{}.partial", self.name));
            remove(&partial).map_err(file_error)?;
            self.fill(&partial)?;
            remove(&environment).map_err(file_error)?;
            fs::rename(&partial, &environment).map_err(file_error)?;
        }
        Ok(Installed { environment, fresh })
    }

    fn fill(&self, environment: &Path) -> Result<(), Error> {
        let Self { file, product, .. } = *self;
        let file_error = |error| Error::File { path: environment.to_owned(), error };
        run(Command::new("python3").args(["-m", "venv"]).arg(environment))?.map_err(Error::Venv)?;
        let requirements = environment.join(file);
        fs::write(&requirements, self.requirements).map_err(file_error)?;
        run(Command::new(environment.join("bin/python")).args(PIP).arg(&requirements))?
            .map_err(|problem| Error::Pip { file, problem })?;
        let python = fs::read_dir(environment.join("lib")).map_err(file_error)?.flatten().next();
        let python = python.ok_or(Error::Product { file, product })?;
        let (folder, link) = self.link;
        let folder = Path::new("lib").join(python.file_name()).join("site-packages").join(folder);
        symlink(folder, environment.join(link)).map_err(file_error)?;
        if environment.join(product).is_file() { Ok(()) } else { Err(Error::Product { file, product }) }
    }
}

/// Runs a command; where it fails, the inner error is the line of its output that says why.
pub fn run(command: &mut Command) -> Result<Result<(), String>, Error> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| Error::Program { program, error })?;
    if output.status.success() {
        return Ok(Ok(()));
    }
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let reason = lines.clone().find(|line| line.starts_with("ERROR")).or(lines.next_back());
    Ok(Err(reason.map_or_else(|| output.status.to_string(), str::to_owned)))
}

/// Removes a folder, if it is there.
pub fn remove(folder: &Path) -> std::io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
