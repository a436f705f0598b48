//! What the assembler made of the kernels, for every architecture of a release: registers, shared memory, instructions.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the library is built with: the architectures and flags of a release, and how PTX is lowered.
#[allow(dead_code)]
#[path = "../../build.rs"]
mod build;

use build::RELEASE as ARCHITECTURES;

/// Why there are no numbers, or bad ones.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("{tool} failed: {problem}")]
    Tool { tool: &'static str, problem: String },
    #[error("the assembler said nothing of {0}")]
    Silent(String),
    #[error("{0}")]
    Bad(String),
}

/// One kernel on one architecture.
#[derive(Clone, Debug, Default)]
pub struct Kernel {
    /// Of a thread.
    pub registers: u32,
    /// Bytes of a block, beside what a plan gives it.
    pub shared: u32,
    stack: u32,
    spills: u32,
    instructions: u32,
    /// Products on tensor cores.
    products: u32,
    /// Loads from global memory of 16 bytes a lane, or copies of them to shared memory.
    wide: u32,
    /// Loads and stores of local memory.
    local: u32,
}

/// Assembles the kernels for some architectures, and gives what came of each, in their order.
pub fn assemble(
    root: &Path,
    target: &Path,
    nvcc: &Path,
    architectures: &[u32],
) -> Result<BTreeMap<String, Vec<Kernel>>, Error> {
    let folder = target.join("kernels");
    std::fs::create_dir_all(&folder).map_err(|source| Error::File { path: folder.clone(), source })?;
    let tool = |name: &'static str| (name, nvcc.with_file_name(name));
    let ptx = folder.join("all.ptx");
    let source = root.join("kernels/all.cu");
    let flags = build::FLAGS.iter().map(|flag| flag as &dyn AsRef<OsStr>);
    run(("nvcc", nvcc.to_owned()), &flags.chain([&"-o" as _, &ptx as _, &source as _]).collect::<Vec<_>>())?;
    // As build.rs has it: a version that drivers know, which must do without what newer ones brought.
    let file = |source| Error::File { path: ptx.clone(), source };
    let text = std::fs::read_to_string(&ptx).map_err(file)?;
    let text = build::lower::lowered(&text).ok_or_else(|| Error::Bad("nvcc's PTX has no .version".into()))?;
    std::fs::write(&ptx, text).map_err(file)?;
    let mut table: BTreeMap<String, Vec<Kernel>> = BTreeMap::new();
    let assemble = &|arch: u32| -> Result<_, Error> {
        let cubin = folder.join(format!("sm_{arch}.cubin"));
        let said = run(tool("ptxas"), &[&"-v", &format!("-arch=sm_{arch}"), &"-o", &cubin, &ptx])?;
        let mut kernels = assembled(&said);
        count(&run(tool("cuobjdump"), &[&"-sass", &cubin])?, &mut kernels);
        Ok(kernels)
    };
    let all = std::thread::scope(|scope| {
        let threads: Vec<_> = architectures.iter().map(|&arch| scope.spawn(move || assemble(arch))).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|_| Err(Error::Bad("a thread panicked".into())))
        };
        threads.into_iter().map(join).collect::<Result<Vec<_>, Error>>()
    });
    for kernels in all? {
        for (name, kernel) in kernels {
            table.entry(name).or_default().push(kernel);
        }
    }
    if table.is_empty() {
        return Err(Error::Silent("any kernel".into()));
    }
    match table.iter().find(|(_, kernels)| kernels.len() != architectures.len()) {
        Some((name, _)) => Err(Error::Silent(name.clone())),
        None => Ok(table),
    }
}

/// Assembles the kernels for every architecture and gives a table; refuses kernels that spill, or do without what they
/// are there for.
pub fn report(root: &Path, target: &Path, nvcc: &Path) -> Result<String, Error> {
    let table = assemble(root, target, nvcc, &ARCHITECTURES)?;
    let mut text = String::new();
    let architectures = ARCHITECTURES.map(|arch| format!("sm_{arch}")).join(" ");
    let _ = writeln!(
        text,
        "Registers a thread on {architectures}; shared memory of a block, beside what a plan gives it, bytes;"
    );
    let _ =
        writeln!(text, "instructions, products on tensor cores and 16-byte global accesses in the code for sm_80.\n");
    let _ =
        writeln!(text, "| kernel | registers | shared | instructions | tensor | 16-byte |\n|---|---|---|---|---|---|");
    let mut bad = Vec::new();
    for (name, kernels) in &table {
        let Some(first) = kernels.first() else { continue };
        let registers = kernels.iter().map(|kernel| kernel.registers.to_string()).collect::<Vec<_>>().join(" ");
        let Kernel { shared, instructions, products, wide, .. } = first;
        let _ = writeln!(text, "| {name} | {registers} | {shared} | {instructions} | {products} | {wide} |");
        for (arch, kernel) in ARCHITECTURES.iter().zip(kernels) {
            if kernel.stack + kernel.spills + kernel.local > 0 {
                let Kernel { stack, spills, local, .. } = kernel;
                bad.push(format!(
                    "{name} on sm_{arch}: {stack} bytes of stack, {spills} of spills, {local} local accesses"
                ));
            }
            if name.ends_with("_tensor") && (kernel.products == 0 || kernel.wide == 0) {
                bad.push(format!("{name} on sm_{arch}: no tensor cores or no 16-byte accesses"));
            }
        }
    }
    if bad.is_empty() { Ok(text) } else { Err(Error::Bad(bad.join("; "))) }
}

/// What `ptxas -v` says of each kernel.
fn assembled(text: &str) -> BTreeMap<String, Kernel> {
    let mut kernels = BTreeMap::new();
    let mut name = String::new();
    for line in text.lines() {
        let before = |unit: &str| -> u32 {
            let words = line.split(unit).next().filter(|head| head.len() < line.len());
            words.and_then(|head| head.split_whitespace().next_back()?.parse().ok()).unwrap_or(0)
        };
        if let Some((_, rest)) = line.split_once("entry function '") {
            name = rest.split('\'').next().unwrap_or_default().to_owned();
        } else if line.contains("bytes stack frame") {
            let kernel: &mut Kernel = kernels.entry(name.clone()).or_default();
            kernel.stack = before(" bytes stack frame");
            kernel.spills = before(" bytes spill stores") + before(" bytes spill loads");
        } else if line.contains("Used ") {
            let kernel = kernels.entry(name.clone()).or_default();
            kernel.registers = before(" registers");
            kernel.shared = before(" bytes smem");
        }
    }
    // Functions that are not inlined have frames of their own, under their own names.
    kernels.retain(|_, kernel| kernel.registers > 0);
    kernels
}

/// Counts instructions in a disassembly.
fn count(text: &str, kernels: &mut BTreeMap<String, Kernel>) {
    let mut current = None;
    for line in text.lines() {
        if let Some((_, name)) = line.split_once("Function : ") {
            current = Some(name.trim().to_owned());
            continue;
        }
        let kernel = current.as_ref().and_then(|name| kernels.get_mut(name));
        let code = line.trim_start().strip_prefix("/*").and_then(|rest| rest.split_once("*/"));
        let (Some(kernel), Some((_, code))) = (kernel, code) else { continue };
        let mut words = code.split_whitespace();
        let opcode = words.find(|word| !word.starts_with('@')).unwrap_or_default();
        // The second line of an instruction holds its encoding alone.
        if !opcode.starts_with(|first: char| first.is_ascii_uppercase()) {
            continue;
        }
        let is = |prefix: &str| u32::from(opcode.starts_with(prefix));
        kernel.instructions += 1;
        kernel.products += is("HMMA");
        kernel.wide += u32::from(opcode.contains(".128")) * is("LDG");
        kernel.local += is("LDL") + is("STL");
    }
}

/// Runs a tool and returns all that it says.
fn run((name, path): (&'static str, PathBuf), args: &[&dyn AsRef<OsStr>]) -> Result<String, Error> {
    let output = Command::new(&path).args(args.iter().map(|arg| arg.as_ref())).output();
    let output = output.map_err(|source| Error::File { path, source })?;
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if output.status.success() { Ok(text) } else { Err(Error::Tool { tool: name, problem: text }) }
}
