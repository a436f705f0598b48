//! The stand-ins for libcuda and libcublas, in target/sim.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

/// What cudarc opens. All are one file, so that its parts share one device.
const NAMES: [&str; 3] = ["libcuda.so", "libcublas.so", "libcublasLt.so"];
const LIBRARY: &str = "libcudrift_sim.so";

/// Fills the folder `sim` with links to the library that cargo built in the folder `profile`.
///
/// Only that folder may hold those names: cargo adds `profile` to the library path of whatever it runs, where they
/// would hide the driver of a machine that has a GPU.
pub fn link(profile: &Path, sim: &Path) -> io::Result<()> {
    for name in NAMES {
        for folder in [profile.to_owned(), profile.join("deps")] {
            let stray = folder.join(name);
            if stray.symlink_metadata().is_ok() {
                return Err(io::Error::other(format!("{} would hide a GPU's driver: remove it", stray.display())));
            }
        }
    }
    fs::create_dir_all(sim)?;
    place(&profile.join(LIBRARY), &sim.join(LIBRARY))?;
    NAMES.iter().try_for_each(|name| place(Path::new(LIBRARY), &sim.join(name)))
}

/// Makes `link` point to `to`. Renamed into place, since a test of another run may be opening it.
fn place(to: &Path, link: &Path) -> io::Result<()> {
    let fresh = link.with_extension(format!("so.{}", std::process::id()));
    symlink(to, &fresh)?;
    fs::rename(fresh, link)
}
