//! crates/capi as C: crates/capi/include/cudrift.h, by cbindgen.

use std::fs;
use std::path::{Path, PathBuf};

const CRATE: &str = "crates/capi";
const HEADER: &str = "crates/capi/include/cudrift.h";

/// Why there is no header.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{CRATE}: {0}")]
    Cbindgen(#[from] cbindgen::Error),
    #[error("{CRATE}/cbindgen.toml: {0}")]
    Config(String),
    #[error("{HEADER} is not what {CRATE} says: run `cargo xtask bindings`")]
    Stale,
    #[error("{}: {error}", path.display())]
    File { path: PathBuf, error: std::io::Error },
}

/// Writes the header, or checks that it is as it would be written.
pub fn update(root: &Path, check: bool) -> Result<(), Error> {
    let folder = root.join(CRATE);
    let config = cbindgen::Config::from_file(folder.join("cbindgen.toml")).map_err(Error::Config)?;
    let mut builder = cbindgen::Builder::new().with_config(config);
    // The files by their names: cbindgen would ask cargo for the crate's dependencies, which it does not need.
    for file in ["lib", "status", "spec", "points", "plan"] {
        builder = builder.with_src(folder.join("src").join(file).with_extension("rs"));
    }
    let mut fresh = Vec::new();
    builder.generate()?.write(&mut fresh);
    let path = root.join(HEADER);
    if fs::read(&path).is_ok_and(|present| present == fresh) {
        return Ok(());
    }
    if check { Err(Error::Stale) } else { fs::write(&path, fresh).map_err(|error| Error::File { path, error }) }
}
