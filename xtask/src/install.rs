//! libcudrift where programs in C look for it: libraries, header, and what pkg-config and CMake ask for.

use std::fs;
use std::path::{Path, PathBuf};

const CRATE: &str = "crates/capi";

/// Why it is not there.
#[derive(Debug, thiserror::Error)]
#[error("{}: {error}", path.display())]
pub struct Error {
    path: PathBuf,
    error: std::io::Error,
}

/// Copies the libraries of the folder `built`, and what goes with them, into `prefix`.
pub fn install(root: &Path, built: &Path, prefix: &Path) -> Result<(), Error> {
    let package = Path::new(CRATE).join("package");
    for (from, to) in [
        (built.join("libcudrift.so"), "lib/libcudrift.so"),
        (built.join("libcudrift.a"), "lib/libcudrift.a"),
        (root.join(CRATE).join("include/cudrift.h"), "include/cudrift.h"),
    ] {
        let to = place(prefix, to)?;
        fs::copy(&from, to).map_err(|error| Error { path: from, error })?;
    }
    for (name, folder) in [
        ("cudrift.pc", "lib/pkgconfig"),
        ("cudriftConfig.cmake", "lib/cmake/cudrift"),
        ("cudriftConfigVersion.cmake", "lib/cmake/cudrift"),
    ] {
        let from = root.join(&package).join(name);
        let text = fs::read_to_string(&from).map_err(|error| Error { path: from, error })?;
        let to = place(prefix, &format!("{folder}/{name}"))?;
        fs::write(&to, text.replace("@VERSION@", env!("CARGO_PKG_VERSION")))
            .map_err(|error| Error { path: to, error })?;
    }
    Ok(())
}

/// A file's place, in a folder that is there.
fn place(prefix: &Path, name: &str) -> Result<PathBuf, Error> {
    let path = prefix.join(name);
    let folder = path.parent().unwrap_or(prefix).to_owned();
    fs::create_dir_all(&folder).map_err(|error| Error { path: folder, error })?;
    Ok(path)
}
