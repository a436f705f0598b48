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
    // The file by its name, from which cbindgen comes to the others: of the crate it would ask cargo for dependencies too.
    let builder = cbindgen::Builder::new().with_config(config).with_src(folder.join("src/lib.rs"));
    let mut fresh = Vec::new();
    builder.generate()?.write(&mut fresh);
    let path = root.join(HEADER);
    if fs::read(&path).is_ok_and(|present| present == fresh) {
        return Ok(());
    }
    if check { Err(Error::Stale) } else { fs::write(&path, fresh).map_err(|error| Error::File { path, error }) }
}
