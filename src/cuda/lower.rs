//! PTX for older drivers than the compiler that wrote it. build.rs and xtask share this file.

/// The PTX version that images claim, of CUDA 11.8. The instructions that the kernels use are older.
pub const VERSION: (u32, u32) = (7, 8);

/// PTX that claims no newer version than [`VERSION`]; nothing where it claims none.
///
/// Newer compilers note which bytes of a load are used, in a pragma that belongs to newer versions and changes nothing.
pub fn lowered(ptx: &str) -> Option<String> {
    let line = ptx.lines().find(|line| line.starts_with(".version "))?;
    let (major, minor) = line.strip_prefix(".version ")?.trim().split_once('.')?;
    let (major, minor) = VERSION.min((major.parse().ok()?, minor.parse().ok()?));
    let text = ptx.replacen(line, &format!(".version {major}.{minor}"), 1);
    let kept = text.split_inclusive('\n').filter(|line| !line.trim_start().starts_with(".pragma \"used_bytes_mask"));
    Some(kept.collect())
}
