//! Whole files, written so that a reader never sees half of one.

use crate::{Error, Result};
use std::io::Write;
use std::path::Path;

/// Writes `bytes` to `path`: to a temporary file beside it, synchronised and renamed, so that an earlier file stays
/// whole until the new one is. What exists and is not a regular file (a pipe, a device) is written directly.
///
/// # Errors
/// [`Error::Io`] with the system's answer.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || -> std::io::Result<()> {
        let special = std::fs::metadata(path).is_ok_and(|meta| !meta.is_file());
        if special {
            let mut file = std::fs::OpenOptions::new().write(true).open(path)?;
            return file.write_all(bytes);
        }
        let folder = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let mut builder = tempfile::Builder::new();
        builder.prefix(".cudrift-");
        #[cfg(unix)]
        {
            // As an ordinary new file: the process's mask still applies.
            use std::os::unix::fs::PermissionsExt;
            builder.permissions(std::fs::Permissions::from_mode(0o666));
        }
        let mut file = builder.tempfile_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    };
    write().map_err(|source| Error::io("write", path, source))
}
