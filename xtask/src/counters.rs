//! What the CUDA kernels execute and move, counted by the simulator, beside the least there could be.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::kernels::{self, Kernel};

/// Why there are no numbers.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("{0} failed")]
    Failed(String),
    #[error("{} has no {name} in: {line}", path.display())]
    Counter { path: PathBuf, name: String, line: String },
    #[error("{} has no {marker}", path.display())]
    Marker { path: PathBuf, marker: &'static str },
    #[error(transparent)]
    Kernels(#[from] kernels::Error),
}

/// What is counted: [B, G, N, P, D] and the samples' type.
struct Shape([usize; 5], &'static str);

/// A layer's features (spec 11), within the second-level cache and beyond it, and one group in the plane.
const SHAPES: [Shape; 5] = [
    Shape([16, 64, 32, 64, 640], "f16"),
    Shape([256, 64, 32, 64, 640], "f16"),
    Shape([16, 64, 32, 64, 640], "tf32"),
    Shape([16, 64, 32, 64, 640], "f32"),
    Shape([1, 512, 0, 512, 2], "f32"),
];

/// Those that take minutes each: all groups of a batch, the longest samples, big groups.
const LARGE: [Shape; 4] = [
    Shape([2048, 64, 32, 64, 640], "f16"),
    Shape([128, 64, 32, 64, 5120], "f16"),
    Shape([1, 2048, 0, 2048, 2], "f32"),
    Shape([1, 4096, 0, 4096, 512], "f16"),
];

/// Peaks of a device, a second: as in docs/kernels/README.md.
struct Peaks {
    dram: f64,
    half: f64,
    tf32: f64,
    special: f64,
    shared: f64,
    issue: f64,
}

const A100: Peaks =
    Peaks { dram: 1.555e12, half: 312e12, tf32: 156e12, special: 2.44e12, shared: 19.5e12, issue: 609e9 };
const H100: Peaks =
    Peaks { dram: 3.35e12, half: 989e12, tf32: 495e12, special: 3.87e12, shared: 30.9e12, issue: 966e9 };

/// What a multiprocessor of these devices has: its architecture, and bytes of shared memory.
const MULTIPROCESSORS: [(u32, u32); 2] = [(80, 164 << 10), (90, 228 << 10)];

/// Warps of a multiprocessor that blocks of 256 threads can be, by registers, shared memory and threads.
fn resident(kernel: &Kernel, dynamic: u32, shared_bytes: u32) -> u32 {
    const WARPS: u32 = 8;
    // A warp gets registers in units of 256; the driver takes a KiB of every block.
    let by_registers = 65536 / ((kernel.registers * 32).next_multiple_of(256) * WARPS);
    let by_shared = shared_bytes / (kernel.shared + dynamic + 1024);
    by_registers.min(by_shared).min(64 / WARPS) * WARPS
}

/// A shape's launches, and what the plan decided.
struct Call {
    launches: Vec<(String, Counts)>,
    identity: bool,
    workspace: f64,
}

impl Call {
    fn total(&self) -> Counts {
        let mut total = Counts::default();
        self.launches.iter().for_each(|(_, counts)| total.add(counts));
        total
    }

    /// Launches of kernels, and calls of cuBLAS.
    fn launched(&self) -> [usize; 2] {
        let products = self.launches.iter().filter(|(name, _)| name == "cuBLAS").count();
        [self.launches.len() - products, products]
    }
}

/// What was counted: the tables of docs/kernels/counters.md, and the README's.
pub struct Report {
    pub tables: String,
    pub summary: String,
}

/// One launch, or the sum of several.
#[derive(Clone, Copy, Default)]
struct Counts {
    /// Bytes that the plan gives a block.
    shared: u32,
    instructions: f64,
    products: f64,
    tensor_flop: f64,
    special: f64,
    l2: [f64; 2],
    dram: [f64; 2],
    wavefronts: [f64; 2],
    accesses: [f64; 2],
}

impl Counts {
    fn parse(path: &Path, line: &str) -> Result<Self, Error> {
        let number = |text: &str, name: &str| -> Option<f64> {
            let rest = text.split_once(&format!("\"{name}\": "))?.1;
            rest.split([',', '}']).next()?.trim().parse().ok()
        };
        let get = |name: &str| {
            let missing = || Error::Counter { path: path.into(), name: name.into(), line: line.into() };
            number(line, name).ok_or_else(missing)
        };
        // A class that did not occur is left out.
        let (warps, threads) = line.split_once("thread_instructions_by_class").unwrap_or((line, ""));
        let warps = warps.split_once("warp_instructions_by_class").map_or("", |(_, warps)| warps);
        let sectors = |op: &str| get(&format!("lts__t_sectors_srcunit_tex_op_{op}.sum")).map(|count| 32.0 * count);
        Ok(Self {
            shared: get("shared")? as u32,
            instructions: get("warp_instructions")?,
            products: number(warps, "tensor").unwrap_or(0.0),
            tensor_flop: get("tensor_flop")?,
            special: number(threads, "special_function").unwrap_or(0.0),
            l2: [sectors("read")?, sectors("write")?],
            dram: [get("dram__bytes_read.sum")?, get("dram__bytes_write.sum")?],
            wavefronts: [
                get("l1tex__data_pipe_lsu_wavefronts_mem_shared.sum")?,
                get("shared_wavefronts_without_conflicts")?,
            ],
            accesses: [
                get("global_load_accesses")? + get("global_store_accesses")?,
                get("global_load_accesses_of_16_bytes")? + get("global_store_accesses_of_16_bytes")?,
            ],
        })
    }

    fn add(&mut self, other: &Self) {
        let pairs = |a: &mut [f64; 2], b: [f64; 2]| a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
        self.instructions += other.instructions;
        self.products += other.products;
        self.tensor_flop += other.tensor_flop;
        self.special += other.special;
        pairs(&mut self.l2, other.l2);
        pairs(&mut self.dram, other.dram);
        pairs(&mut self.wavefronts, other.wavefronts);
        pairs(&mut self.accesses, other.accesses);
    }

    /// The share of shared memory's wavefronts that conflicts of banks add.
    fn conflicts(&self) -> f64 {
        let [wavefronts, ideal] = self.wavefronts;
        if wavefronts > 0.0 { (wavefronts - ideal) / wavefronts } else { 0.0 }
    }

    /// Nanoseconds that a device cannot be below, and what says so.
    fn bound(&self, peaks: &Peaks, dtype: &str) -> (f64, &'static str) {
        let tensor = if dtype == "tf32" { peaks.tf32 } else { peaks.half };
        let bounds = [
            (self.dram.iter().sum::<f64>() / peaks.dram, "memory"),
            (self.tensor_flop / tensor, "tensor cores"),
            (self.special / peaks.special, "special functions"),
            (self.wavefronts[0] * 128.0 / peaks.shared, "shared memory"),
            (self.instructions / peaks.issue, "instructions"),
        ];
        let most = bounds.into_iter().fold((0.0, ""), |most, bound| if bound.0 > most.0 { bound } else { most });
        (most.0 * 1e9, most.1)
    }
}

/// Counts every shape and gives the tables. `command` runs cargo where the simulator stands in for the driver.
pub fn report(
    root: &Path,
    target: &Path,
    nvcc: &Path,
    large: bool,
    command: impl Fn(&[&str]) -> Command,
) -> Result<Report, Error> {
    let limits = kernels::assemble(root, target, nvcc, &MULTIPROCESSORS.map(|(arch, _)| arch))?;
    let mut report = Report { tables: String::new(), summary: SUMMARY.into() };
    for shape in SHAPES.iter().chain(LARGE.iter().filter(|_| large)) {
        let [fused, unfused] = [count(target, shape, &[], &command)?, count(target, shape, &["unfused"], &command)?];
        table(&mut report.tables, shape, &fused, &limits);
        beside(&mut report.tables, shape, &fused, &unfused);
        summarise(&mut report.summary, shape, &fused, &unfused);
    }
    Ok(report)
}

/// Runs one call and reads what each launch counted.
fn count(
    target: &Path,
    Shape(extents, dtype): &Shape,
    how: &[&str],
    command: &impl Fn(&[&str]) -> Command,
) -> Result<Call, Error> {
    let path = target.join("counters.json");
    let file = |source| Error::File { path: path.clone(), source };
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(file(error)),
        _ => {}
    }
    let words = extents.map(|extent| extent.to_string());
    // In the profile of the tests: no count hangs on the host's code.
    let mut args = vec!["bench", "--quiet", "--profile", "dev", "--package", "cudrift", "--features", "cuda"];
    args.extend(["--bench", "cuda", "--", "count"]);
    args.extend(words.iter().map(String::as_str));
    args.push(dtype);
    args.extend(how);
    eprintln!("xtask: counting {} in {dtype} {}", words.join(" x "), how.join(" "));
    // Checks change no count, and one thread keeps the order of the blocks, which the cache's model depends on.
    let settings = [("CUDRIFT_SIM_WITHOUT", "race,shared-init,global-init"), ("CUDRIFT_SIM_THREADS", "1")];
    let mut command = command(&args);
    let output = command.env("CUDRIFT_SIM_COUNTERS", &path).envs(settings).stderr(Stdio::inherit()).output();
    let output = output.map_err(file)?;
    if !output.status.success() {
        return Err(Error::Failed(format!("cargo {}", args.join(" "))));
    }
    let said = String::from_utf8_lossy(&output.stdout);
    let identity = said.contains("norms by the identity");
    let bytes = said.split_once("workspace of ").and_then(|(_, rest)| rest.split_once(" bytes")?.0.parse().ok());
    let workspace = bytes.ok_or_else(|| Error::Failed(format!("cargo {}: no workspace", args.join(" "))))?;
    let lines = std::fs::read_to_string(&path).map_err(file)?;
    let launches = lines.lines().map(|line| {
        let name = line.split('"').nth(3).unwrap_or_default().to_owned();
        Ok((name, Counts::parse(&path, line)?))
    });
    Ok(Call { launches: launches.collect::<Result<_, Error>>()?, identity, workspace })
}

/// Bytes of a group that a call in two phases cannot do without, inputs twice, distances three times, the force; by the
/// identity half of the distances of the other targets among themselves too, written and read. And FLOP, the identity's
/// quadratic form apart.
fn least(Shape([_, g, n, p, d], dtype): &Shape, identity: bool) -> [f64; 2] {
    let [g, t, d] = [*g, g + n + p, *d].map(|extent| extent as f64);
    let sample = if dtype.ends_with("16") { 2.0 } else { 4.0 };
    let others = if identity { (t - g) * (t - g) } else { 0.0 };
    [2.0 * sample * t * d + 4.0 * (3.0 * g * t + others) + 4.0 * g * d, 4.0 * g * t * d + others * d]
}

/// The launches of a shape, a group at a time, and their sum beside the least there could be.
fn table(text: &mut String, shape: &Shape, call: &Call, limits: &BTreeMap<String, Vec<Kernel>>) {
    let (Shape([b, g, n, p, d], dtype), Call { launches, identity, .. }) = (shape, call);
    let groups = *b as f64;
    let _ = writeln!(text, "**[{b}, {g}, {n}, {p}, {d}] in {dtype}**, a group:\n");
    text.push_str(
        "| kernel | instructions | mma | others per mma | tensor MFLOP | L2 kB | DRAM kB | conflicts | 16-byte |",
    );
    text.push_str(" registers | shared kB | warps | A100 ns | H100 ns |\n|");
    text.push_str(&"---|".repeat(14));
    text.push('\n');
    let mut row = |name: &str, counts: &Counts| {
        let bytes = |of: [f64; 2]| of.iter().sum::<f64>() / groups / 1e3;
        let excess = 100.0 * counts.conflicts();
        let wide = 100.0 * counts.accesses[1] / counts.accesses[0].max(1.0);
        let others = if counts.products > 0.0 {
            format!("{:.1}", (counts.instructions - counts.products) / counts.products)
        } else {
            String::new()
        };
        let [a100, h100] = [A100, H100].map(|peaks| {
            let (ns, what) = counts.bound(&peaks, dtype);
            format!("{:.0}, {what}", ns / groups)
        });
        let kernels = limits.get(name).map_or(&[][..], Vec::as_slice);
        let words = |of: &dyn Fn(&Kernel, u32) -> u32| -> String {
            let words = kernels.iter().zip(MULTIPROCESSORS).map(|(kernel, (_, shared))| of(kernel, shared).to_string());
            words.collect::<Vec<_>>().join(", ")
        };
        let registers = words(&|kernel, _| kernel.registers);
        let warps = words(&|kernel, shared| resident(kernel, counts.shared, shared));
        let shared = kernels
            .first()
            .map_or_else(String::new, |kernel| format!("{:.1}", f64::from(kernel.shared + counts.shared) / 1e3));
        let (instructions, products) = (counts.instructions / groups, counts.products / groups);
        let flop = counts.tensor_flop / groups / 1e6;
        let _ = writeln!(
            text,
            "| {name} | {instructions:.0} | {products:.0} | {others} | {flop:.1} | {:.1} | {:.1} | {excess:.1} % | \
             {wide:.0} % | {registers} | {shared} | {warps} | {a100} | {h100} |",
            bytes(counts.l2),
            bytes(counts.dram)
        );
    };
    for (name, counts) in launches {
        row(name, counts);
    }
    let total = call.total();
    row("all", &total);
    let [least, flop] = least(shape, *identity);
    let is_form = |name: &str| *identity && name.starts_with("group");
    let form: f64 = launches.iter().filter(|(name, _)| is_form(name)).map(|(_, counts)| counts.tensor_flop).sum();
    let ratio = |bytes: [f64; 2]| bytes.iter().sum::<f64>() / groups / least;
    let with = if *identity { ", half of those among other targets twice" } else { "" };
    let _ = write!(
        text,
        "\nAt least {:.1} kB (samples twice, distances three times{with}, the force) and {:.1} MFLOP (distances and force). \
         Counted: L2 {:.2} times, DRAM {:.2} times, tensor cores {:.2} times as much",
        least / 1e3,
        flop / 1e6,
        ratio(total.l2),
        ratio(total.dram),
        (total.tensor_flop - form) / groups / flop
    );
    if form > 0.0 {
        let _ = write!(
            text,
            " without the quadratic form of the norms, {:.1} MFLOP, {:.2} times with it",
            form / groups / 1e6,
            total.tensor_flop / groups / flop
        );
    }
    text.push_str(".\n\n");
}

/// Both ways beside each other, a group.
fn beside(text: &mut String, Shape([groups, ..], _): &Shape, fused: &Call, unfused: &Call) {
    let figures = |call: &Call| {
        let (total, sum) = (call.total(), |of: [f64; 2]| of.iter().sum::<f64>());
        let bytes = [sum(total.l2), sum(total.dram), call.workspace].map(|bytes| bytes / 1e3);
        let [l2, dram, workspace] = bytes;
        [total.instructions, total.special, l2, dram, workspace].map(|figure| figure / *groups as f64)
    };
    let launched = |call: &Call| match call.launched() {
        [kernels, 0] => format!("{kernels}"),
        [kernels, products] => format!("{kernels} and {products} of cuBLAS"),
    };
    text.push_str("| | launches | instructions | special functions | L2 kB | DRAM kB | workspace kB |\n");
    text.push_str("|---|---|---|---|---|---|---|\n");
    for (name, call) in [("fused", fused), ("without fusion", unfused)] {
        let [instructions, special, l2, dram, workspace] = figures(call);
        let _ = writeln!(
            text,
            "| {name} | {} | {instructions:.0} | {special:.0} | {l2:.1} | {dram:.1} | {workspace:.1} |",
            launched(call)
        );
    }
    let times = unfused.launches.len() as f64 / fused.launches.len() as f64;
    let _ = write!(text, "| times as much | {times:.1} |");
    for (fused, unfused) in figures(fused).into_iter().zip(figures(unfused)) {
        let _ = write!(text, " {:.2} |", unfused / fused);
    }
    text.push_str("\n\n");
}

const SUMMARY: &str = "\
| B, G, N, P, D | samples | launches | instructions | mma | L2 kB | DRAM kB | conflicts | \
 without fusion: launches | L2 | DRAM | workspace |
|---|---|---|---|---|---|---|---|---|---|---|---|
";

/// A shape's row in the README, a group.
fn summarise(text: &mut String, shape: &Shape, fused: &Call, unfused: &Call) {
    let Shape([b, g, n, p, d], dtype) = shape;
    let (groups, [least, _]) = (*b as f64, least(shape, fused.identity));
    let (total, other) = (fused.total(), unfused.total());
    let [l2, dram, other_l2, other_dram] = [total.l2, total.dram, other.l2, other.dram].map(|of| of[0] + of[1]);
    let bytes = |of: f64| format!("{:.0} ({:.2})", of / groups / 1e3, of / groups / least);
    let (instructions, products) = (total.instructions / groups, total.products / groups);
    let _ = writeln!(
        text,
        "| {b}, {g}, {n}, {p}, {d} | {dtype} | {} | {instructions:.0} | {products:.0} | {} | {} | {:.1} % | {} | \
         {:.1} x | {:.1} x | {:.1} x |",
        fused.launches.len(),
        bytes(l2),
        bytes(dram),
        100.0 * total.conflicts(),
        unfused.launches.len(),
        other_l2 / l2,
        other_dram / dram,
        unfused.workspace / fused.workspace
    );
}

/// Puts the tables between the markers of the page and of the README.
pub fn write(root: &Path, report: &Report) -> Result<(), Error> {
    let [begin, end] = ["<!-- counters:begin -->\n", "<!-- counters:end -->"];
    for (name, new) in [("docs/kernels/counters.md", &report.tables), ("README.md", &report.summary)] {
        let path = root.join(name);
        let file = |source| Error::File { path: path.clone(), source };
        let missing = |marker| Error::Marker { path: path.clone(), marker };
        let text = std::fs::read_to_string(&path).map_err(file)?;
        let (head, rest) = text.split_once(begin).ok_or_else(|| missing(begin))?;
        let (_, tail) = rest.split_once(end).ok_or_else(|| missing(end))?;
        std::fs::write(&path, format!("{head}{begin}{new}{end}{tail}")).map_err(file)?;
    }
    Ok(())
}
