//! With the feature `cuda`: compiles the kernels into the one image that the library embeds.
//!
//! kernels/all.cu and what it includes are joined into one text, which the library embeds as well, for NVRTC. nvcc turns
//! it into PTX for compute_80, ptxas that PTX into a cubin for each architecture, fatbinary binds both: what the
//! simulator executes is the text that every cubin was made from. The bytes depend on the sources, the compiler's
//! version and the architectures alone. Where there is no nvcc, the image is empty and the library says why.

#[path = "src/cuda/fnv.rs"]
pub mod fnv;
#[path = "src/cuda/lower.rs"]
pub mod lower;

use std::collections::BTreeSet;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Mutex;

type Result<T, E = String> = std::result::Result<T, E>;

/// The architectures of a release: A100, RTX 30, RTX 40 and L40, H100, B200, RTX 50.
pub const RELEASE: [u32; 6] = [80, 86, 89, 90, 100, 120];
/// How nvcc is called.
pub const FLAGS: [&str; 4] = ["-ptx", "-arch=compute_80", "-std=c++17", "-allow-unsupported-compiler"];
/// Variables that nvcc itself reads.
const NVCC_VARIABLES: [&str; 3] = ["NVCC_CCBIN", "NVCC_PREPEND_FLAGS", "NVCC_APPEND_FLAGS"];

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return ExitCode::SUCCESS;
    }
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error.lines().for_each(|line| println!("cargo::error={line}"));
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<()> {
    println!("cargo::rerun-if-changed=src/cuda/fnv.rs");
    println!("cargo::rerun-if-changed=src/cuda/lower.rs");
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or("cargo sets no CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets no OUT_DIR")?);
    let (source, files) = join(&root.join("kernels/all.cu"))?;
    files.iter().for_each(|file| println!("cargo::rerun-if-changed={}", file.display()));
    write(&out.join("kernels.cu"), source.as_bytes())?;
    let (image, architectures, compiler, absent) = match image(&root, &out, &source)? {
        Ok(image) => (image.bytes, image.architectures, image.compiler, String::new()),
        Err(absent) => (Vec::new(), Vec::new(), String::new(), absent),
    };
    let hash = fnv::fnv(&[&image]);
    write(&out.join("kernels.fatbin"), &image)?;
    let record = format!(
        "const EMBEDDED: Embedded = Embedded {{ architectures: &{architectures:?}, compiler: {compiler:?}, \
         hash: \"{hash:032x}\", absent: {absent:?} }};\n"
    );
    write(&out.join("image.rs"), record.as_bytes())
}

/// A fatbin and what is in it.
pub struct Image {
    /// The fatbin.
    pub bytes: Vec<u8>,
    /// What it has cubins for.
    pub architectures: Vec<u32>,
    /// nvcc's version.
    pub compiler: String,
}

/// The image, or why there is none: an inner error is no failure of the build.
fn image(root: &Path, out: &Path, source: &str) -> Result<Result<Image>> {
    if variable("DOCS_RS").is_some() {
        return Ok(Err("this is a documentation build".into()));
    }
    let Some(architectures) = architectures()? else {
        return Ok(Err("CUDRIFT_CUDA_ARCHS was none when cudrift was built".into()));
    };
    let Some(compiler) = compiler(root)? else {
        return Ok(Err("there was no nvcc when cudrift was built".into()));
    };
    let lineinfo = variable("CUDRIFT_CUDA_LINEINFO").is_some_and(|value| value == "1");
    match compile(&compiler, out, source, &architectures, lineinfo) {
        // A compiler that was merely there may be too old, or lack its host compiler; one that was chosen should work.
        Err(error) if !compiler.chosen => {
            println!(
                "cargo::warning=the CUDA kernels will be compiled at first use: {} fails",
                compiler.nvcc.display()
            );
            error.lines().for_each(|line| println!("cargo::warning={line}"));
            Ok(Err(format!("{} failed when cudrift was built", compiler.nvcc.display())))
        }
        image => image.map(Ok),
    }
}

/// What CUDRIFT_CUDA_ARCHS asks for: architectures beside the PTX, which may be none; no image for `none`.
///
/// By default those of a release where the build is optimised, and PTX alone where it is not, so that tests build fast.
fn architectures() -> Result<Option<Vec<u32>>> {
    let Some(value) = variable("CUDRIFT_CUDA_ARCHS") else {
        let release = env::var_os("PROFILE").is_some_and(|profile| profile == "release");
        return Ok(Some(if release { RELEASE.to_vec() } else { Vec::new() }));
    };
    let value = value.to_string_lossy();
    match value.trim() {
        "none" => return Ok(None),
        "release" => return Ok(Some(RELEASE.to_vec())),
        _ => {}
    }
    let words = value.split(',').map(str::trim).filter(|word| !word.is_empty() && *word != "ptx");
    let parsed = words.map(|word| word.trim_start_matches("sm_").parse().ok().filter(|arch| *arch >= 80));
    let set: Option<BTreeSet<u32>> = parsed.collect();
    let set = set.ok_or_else(|| {
        format!("CUDRIFT_CUDA_ARCHS is {value:?}, expected architectures of 80 or more as in 80,86,90; or ptx, release, none")
    })?;
    Ok(Some(set.into_iter().collect()))
}

/// A value of the environment, and word to cargo that it was looked at.
fn variable(name: &str) -> Option<OsString> {
    println!("cargo::rerun-if-env-changed={name}");
    env::var_os(name)
}

/// nvcc, and whether somebody chose it.
pub struct Compiler {
    /// Its path.
    pub nvcc: PathBuf,
    /// By NVCC or by `cargo xtask cuda`: then its failure is the build's.
    pub chosen: bool,
}

/// The first nvcc there is. Variables behind it are not looked at, so cargo need not watch them.
pub fn compiler(root: &Path) -> Result<Option<Compiler>> {
    if let Some(nvcc) = variable("NVCC").filter(|nvcc| !nvcc.is_empty()) {
        let nvcc = PathBuf::from(nvcc);
        let nvcc = if nvcc.components().count() == 1 { on_path(nvcc.as_os_str()).unwrap_or(nvcc) } else { nvcc };
        if !nvcc.is_file() {
            return Err(format!("NVCC is {}, which is no file", nvcc.display()));
        }
        return Ok(Some(Compiler { nvcc, chosen: true }));
    }
    let mut found = on_path(OsStr::new("nvcc"));
    for name in ["CUDA_HOME", "CUDA_PATH"] {
        found = found.or_else(|| Some(PathBuf::from(variable(name)?).join("bin/nvcc")).filter(|nvcc| nvcc.is_file()));
    }
    found = found.or_else(|| Some(PathBuf::from("/usr/local/cuda/bin/nvcc")).filter(|nvcc| nvcc.is_file()));
    if let Some(nvcc) = found {
        return Ok(Some(Compiler { nvcc, chosen: false }));
    }
    // `cargo xtask cuda`
    let nvcc = root.join("target/cuda/toolkit/bin/nvcc");
    if nvcc.is_file() {
        return Ok(Some(Compiler { nvcc, chosen: true }));
    }
    // pip install nvidia-cuda-nvcc
    let pythons = variable("VIRTUAL_ENV").and_then(|venv| fs::read_dir(Path::new(&venv).join("lib")).ok());
    let nvcc = pythons.into_iter().flatten().flatten().map(|p| p.path().join("site-packages/nvidia/cu13/bin/nvcc"));
    Ok(nvcc.filter(|nvcc| nvcc.is_file()).min().map(|nvcc| Compiler { nvcc, chosen: false }))
}

fn on_path(name: &OsStr) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|folder| folder.join(name)).find(|file| file.is_file())
}

impl Compiler {
    /// A tool that lies beside nvcc, or beside what nvcc links to.
    fn tool(&self, name: &str) -> PathBuf {
        let real = self.nvcc.canonicalize().ok();
        let beside = [Some(&self.nvcc), real.as_ref()].into_iter().flatten().map(|nvcc| nvcc.with_file_name(name));
        beside.into_iter().find(|tool| tool.is_file()).unwrap_or_else(|| name.into())
    }

    /// As 13.5.37.
    fn version(&self) -> Result<String> {
        let text = run(Command::new(&self.nvcc).arg("--version"))?;
        let version = text.split_whitespace().find_map(|word| word.strip_prefix('V'));
        version.map(str::to_owned).ok_or_else(|| format!("{} --version names no version", self.nvcc.display()))
    }
}

/// Compiles the joined source; intermediate results stay in `out` under names that hold the hash of what they came from.
pub fn compile(compiler: &Compiler, out: &Path, source: &str, architectures: &[u32], lineinfo: bool) -> Result<Image> {
    println!("cargo::rerun-if-changed={}", compiler.nvcc.display());
    let version = compiler.version()?;
    let mut flags = FLAGS.to_vec();
    if lineinfo {
        flags.push("-lineinfo");
    }
    let variables = NVCC_VARIABLES.map(|name| variable(name).unwrap_or_default());
    let options = flags.join(" ");
    // What this program does to the compiler's output counts as well.
    let texts = [&version, source, &options, include_str!("build.rs"), include_str!("src/cuda/lower.rs")];
    let texts = texts.map(str::as_bytes);
    let inputs: Vec<&[u8]> = texts.into_iter().chain(variables.iter().map(|value| value.as_encoded_bytes())).collect();
    let key = format!("{:016x}", fnv::fnv(&inputs) as u64);
    forget_all_but(out, &key)?;

    let ptx = format!("cudrift-{key}.ptx");
    cached(out, &ptx, |partial| {
        write(&out.join("kernels.cu"), source.as_bytes())?;
        run(Command::new(&compiler.nvcc).args(&flags).arg("-o").arg(partial).arg("kernels.cu").current_dir(out))?;
        let text = fs::read_to_string(out.join(partial)).map_err(|error| format!("{partial}: {error}"))?;
        write(&out.join(partial), normalised(&text)?.as_bytes())
    })?;

    let known = run(Command::new(&compiler.nvcc).arg("--list-gpu-code"))?;
    let (architectures, unknown): (Vec<u32>, Vec<u32>) =
        architectures.iter().partition(|arch| known.split_whitespace().any(|name| name == format!("sm_{arch}")));
    if !unknown.is_empty() {
        println!("cargo::warning=nvcc {version} knows no sm_{unknown:?}: the image's PTX serves them");
    }
    let cubin = |arch: &u32| format!("cudrift-{key}-sm_{arch}.cubin");
    let ptxas = compiler.tool("ptxas");
    in_parallel(&architectures, |arch| {
        cached(out, &cubin(arch), |partial| {
            let arch = format!("-arch=sm_{arch}");
            run(Command::new(&ptxas).args([&arch, "-o", partial, &ptx]).current_dir(out)).map(drop)
        })
    })?;

    let fatbin = "cudrift.fatbin";
    let mut fatbinary = Command::new(compiler.tool("fatbinary"));
    fatbinary.args([
        "-64",
        "--compress=false",
        &format!("--create={fatbin}"),
        &format!("--image3=kind=ptx,sm=80,file={ptx}"),
    ]);
    for arch in &architectures {
        fatbinary.arg(format!("--image3=kind=elf,sm={arch},file={}", cubin(arch)));
    }
    run(fatbinary.current_dir(out))?;
    let bytes = fs::read(out.join(fatbin)).map_err(|error| format!("{fatbin}: {error}"))?;
    Ok(Image { bytes, architectures, compiler: version })
}

/// PTX that says a version every driver of today knows, and nothing of the folder it was compiled in.
fn normalised(ptx: &str) -> Result<String> {
    let mut text = lower::lowered(ptx).ok_or("nvcc's PTX has no .version")?;
    // Symbols of one translation unit carry a hash of its path.
    const INTERNAL: &str = "_INTERNAL_";
    let hash = text.find(INTERNAL).and_then(|at| text.get(at + INTERNAL.len()..at + INTERNAL.len() + 8));
    if let Some(hash) = hash.filter(|hash| hash.bytes().all(|byte| byte.is_ascii_hexdigit())).map(str::to_owned) {
        text = text.replace(&hash, "00000000");
    }
    Ok(text)
}

/// The text of a kernel file with the files that it includes in the place of each one's first inclusion.
///
/// Kernel sources include only each other, by `#include "path"` on a line of its own outside of any condition.
pub fn join(file: &Path) -> Result<(String, Vec<PathBuf>)> {
    let (mut text, mut files) = (String::new(), Vec::new());
    append(file, file.parent().unwrap_or(file), &mut text, &mut files)?;
    Ok((text, files))
}

fn append(file: &Path, root: &Path, text: &mut String, files: &mut Vec<PathBuf>) -> Result<()> {
    let content = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    files.push(file.to_owned());
    let name = file.strip_prefix(root).unwrap_or(file).display();
    let marker = |line: usize| format!("#line {line} \"{name}\"\n");
    text.push_str(&marker(1));
    for (i, line) in content.lines().enumerate() {
        let directive = line.trim_start().strip_prefix('#').map(str::trim_start);
        if let Some(included) = directive.and_then(|directive| directive.strip_prefix("include")) {
            let path = included.trim().strip_prefix('"').and_then(|rest| rest.split_once('"')).map(|(path, _)| path);
            let path = path.ok_or_else(|| format!("{name}:{}: kernels include each other alone: {line}", i + 1))?;
            let path = inside(&file.with_file_name(path));
            if !files.contains(&path) {
                append(&path, root, text, files)?;
            }
            text.push_str(&marker(i + 2));
        } else if directive.is_some_and(|directive| directive.starts_with("pragma once")) {
            text.push('\n');
        } else {
            text.push_str(line);
            text.push('\n');
        }
    }
    Ok(())
}

/// The path without `..`, so that each file has one name.
fn inside(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => drop(plain.pop()),
            part => plain.push(part),
        }
    }
    plain
}

/// Makes a file of `out` unless it is there. It appears whole or not at all.
fn cached(out: &Path, name: &str, make: impl FnOnce(&str) -> Result<()>) -> Result<()> {
    if out.join(name).is_file() {
        return Ok(());
    }
    let partial = format!("partial-{name}");
    make(&partial)?;
    fs::rename(out.join(partial), out.join(name)).map_err(|error| format!("{name}: {error}"))
}

/// Removes what earlier sources left behind.
fn forget_all_but(out: &Path, key: &str) -> Result<()> {
    for entry in fs::read_dir(out).map_err(|error| format!("{}: {error}", out.display()))?.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("partial-") || name.starts_with("cudrift-") && !name.contains(key) {
            fs::remove_file(entry.path()).map_err(|error| format!("{name}: {error}"))?;
        }
    }
    Ok(())
}

/// Does each, as many at a time as cargo allows; the last of them is begun first.
fn in_parallel<T: Copy + Send>(items: &[T], work: impl Fn(&T) -> Result<()> + Sync) -> Result<()> {
    let jobs = env::var("NUM_JOBS").ok().and_then(|jobs| jobs.parse().ok()).unwrap_or(1);
    let rest = Mutex::new(items.to_vec());
    let next = || rest.lock().ok().and_then(|mut rest| rest.pop());
    std::thread::scope(|scope| {
        let worker = || std::iter::from_fn(next).try_for_each(|item| work(&item));
        let workers: Vec<_> = (0..items.len().min(jobs)).map(|_| scope.spawn(worker)).collect();
        let results =
            workers.into_iter().map(|worker| worker.join().unwrap_or_else(|_| Err("a worker panicked".into())));
        // All are waited for, whatever the first says.
        results.collect::<Vec<_>>().into_iter().collect()
    })
}

/// The output of a tool that must succeed; what it has to say is shown.
fn run(command: &mut Command) -> Result<String> {
    let name = command.get_program().display().to_string();
    let output = command.output().map_err(|error| format!("{name}: {error}"))?;
    let complaints = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("{name}: {}\n{}{complaints}", output.status, String::from_utf8_lossy(&output.stdout)));
    }
    complaints.lines().for_each(|line| println!("cargo::warning={line}"));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn write(path: &Path, content: &[u8]) -> Result<()> {
    fs::write(path, content).map_err(|error| format!("{}: {error}", path.display()))
}
