//! Repository chores; `cargo xtask` names them.

#[cfg(feature = "bindings")]
mod bindings;
mod counters;
mod cuda;
mod frameworks;
#[cfg(feature = "bindings")]
mod header;
mod install;
mod kernels;
mod python;
mod simulator;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const HELP: &str = "\
cargo xtask test          every quick test: documentation examples, then unit, integration and property tests, those that
                          want a GPU on the simulator of crates/cuda-sim (on the machine's GPU with CUDRIFT_REQUIRE_GPU=1)
cargo xtask test --full   the same with minutes-long training runs and many more random cases, the library's tests once
                          more with each lesser instruction set forced, every benchmark run once, the package built
cargo xtask cuda          installs the CUDA compiler from PyPI into target/cuda, where it is not there, and says where it is
cargo xtask install DIR   builds libcudrift and puts libraries, header, and what pkg-config and CMake ask for, into DIR; with
                          --debug those that tests use
cargo xtask wheel         builds the Python package into target/wheels, with libcudrift, for any Python on machines of this kind
cargo xtask kernels       assembles the CUDA kernels for every architecture of a release and prints their registers, shared
                          memory and instructions; fails where one spills
cargo xtask counters      counts on the simulator what the CUDA kernels execute and move, beside a sequence without fusion, and
                          writes docs/kernels/counters.md and the README's table; with --large also what takes minutes
cargo xtask bindings      writes src/cuda/params.rs from kernels/params.h, and crates/capi/include/cudrift.h from crates/capi;
                          with --check says whether they are as they should be
cargo xtask ci            formatting, lints, documentation, bindings, kernels; prints only what is wrong";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let ok = match args[..] {
        ["test"] => test(false),
        ["test", "--full"] => test(true),
        ["cuda"] => cuda(),
        ["wheel"] => wheel(),
        ["install", prefix] => install(prefix, true),
        ["install", "--debug", prefix] => install(prefix, false),
        ["kernels"] => kernels().inspect(|table| print!("{table}")).is_some(),
        ["counters"] => counters(false),
        ["counters", "--large"] => counters(true),
        ["bindings"] => bindings(&[]),
        ["bindings", "--check"] => bindings(&["--check"]),
        ["ci"] => ci(),
        _ => {
            eprintln!("{HELP}");
            return ExitCode::from(2);
        }
    };
    if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn test(full: bool) -> bool {
    cuda() && python(full) && simulator() && suite(full)
}

/// Installs what the tests of python/ run with.
fn python(full: bool) -> bool {
    let report = |result: Result<PathBuf, python::Error>| {
        result.inspect_err(|error| eprintln!("xtask: the tests of python/ lack their packages: {error}")).is_ok()
    };
    report(frameworks::numpy_and_jax(&target())) && (!full || report(frameworks::torch(&target())))
}

/// Builds libcudrift, with the kernels, and gives the folder of both libraries.
fn libcudrift(release: bool) -> Option<PathBuf> {
    let mut build = match release {
        true => cargo(&["build", "--release", "--lib", "--package", "cudrift-capi"]),
        // As the tests have it built.
        false => cargo(&["build", "--workspace", "--lib", "--tests"]),
    };
    if !(cuda() && run(&mut build)) {
        return None;
    }
    let built = std::env::var_os("CARGO_TARGET_DIR").map_or_else(target, PathBuf::from);
    Some(built.join(if release { "release" } else { "debug" }))
}

/// Builds the Python package, and says where it is.
fn wheel() -> bool {
    let Some(built) = libcudrift(true) else { return false };
    let wheel = frameworks::wheel(&root(), &target(), &built.join("libcudrift.so"));
    wheel.inspect(|wheel| println!("{}", wheel.display())).inspect_err(|error| eprintln!("xtask: {error}")).is_ok()
}

/// Builds libcudrift and puts it where C programs look for it.
fn install(prefix: &str, release: bool) -> bool {
    let Some(built) = libcudrift(release) else { return false };
    let installed = install::install(&root(), &built, Path::new(prefix));
    installed.inspect_err(|error| eprintln!("xtask: {error}")).is_ok()
}

/// Installs the CUDA compiler, which tests call, and says where it is.
fn cuda() -> bool {
    nvcc().inspect(|nvcc| eprintln!("xtask: the CUDA compiler is {}", nvcc.display())).is_some()
}

/// The CUDA compiler, installed first where it is not there.
fn nvcc() -> Option<PathBuf> {
    cuda::nvcc(&target()).inspect_err(|error| eprintln!("xtask: no CUDA compiler: {error}")).ok()
}

/// A table of what the assembler makes of the kernels, unless it is bad.
fn kernels() -> Option<String> {
    kernels::report(&root(), &target(), &nvcc()?).inspect_err(|error| eprintln!("xtask: {error}")).ok()
}

/// Counts what the kernels do, and writes it down.
fn counters(large: bool) -> bool {
    if !(cuda() && simulator()) {
        return false;
    }
    let Some(nvcc) = nvcc() else { return false };
    let report = counters::report(&root(), &target(), &nvcc, large, tests);
    let written = report.and_then(|report| {
        print!("{}", report.tables);
        counters::write(&root(), &report)
    });
    written.inspect_err(|error| eprintln!("xtask: {error}")).is_ok()
}

/// Writes the parameters of the kernels as Rust, and the C interface as C.
#[cfg(feature = "bindings")]
fn bindings(options: &[&str]) -> bool {
    let check = !options.is_empty();
    let rust = bindings::update(&root(), &target(), check).inspect_err(|error| eprintln!("xtask: {error}"));
    let c = header::update(&root(), check).inspect_err(|error| eprintln!("xtask: {error}"));
    rust.is_ok() && c.is_ok()
}

/// Has this program built with bindgen, and run.
///
/// bindgen takes longer to compile than all else here; with a feature of its own, unoptimised, in a folder of its own,
/// no other command waits for it. Its version is in Cargo.lock, as those of all tools that cargo can pin.
#[cfg(not(feature = "bindings"))]
fn bindings(options: &[&str]) -> bool {
    let program = ["run", "--quiet", "--profile", "chores", "--package", "xtask", "--features", "bindings", "--"];
    run(cargo(&program).arg("bindings").args(options))
}

/// Builds the simulator's library and links it into target/sim.
fn simulator() -> bool {
    let link = || {
        // cargo built this program in the same profile, so the library lies beside it.
        let xtask = std::env::current_exe()?;
        simulator::link(xtask.parent().unwrap_or(&xtask), &sim())
    };
    run(&mut cargo(&["build", "--package", "cuda-sim", "--lib", "--quiet"]))
        && link().inspect_err(|error| eprintln!("xtask: cannot link the simulator: {error}")).is_ok()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("")
}

/// The workspace's own target folder, wherever cargo builds.
fn target() -> PathBuf {
    root().join("target")
}

fn sim() -> PathBuf {
    target().join("sim")
}

/// cargo-nextest where present, cargo test otherwise; either way the runner's own summary comes last.
fn suite(full: bool) -> bool {
    let mut doc = tests(&["test", "--workspace", "--doc", "--quiet"]);
    let nextest = cargo(&["nextest", "--version"]).output().is_ok_and(|output| output.status.success());
    let mut all = match (nextest, full) {
        (true, false) => tests(&["nextest", "run", "--workspace", "--status-level", "fail", "--no-fail-fast"]),
        (true, true) => tests(&["nextest", "run", "--workspace", "--no-fail-fast", "--run-ignored", "all"]),
        (false, false) => tests(&["test", "--workspace", "--lib", "--bins", "--tests", "--no-fail-fast"]),
        (false, true) => {
            tests(&["test", "--workspace", "--lib", "--bins", "--tests", "--no-fail-fast", "--", "--include-ignored"])
        }
    };
    if full {
        // With machine code for every architecture, which a build without optimisation leaves out.
        all.env("PROPTEST_CASES", "4000").env("CUDRIFT_CUDA_ARCHS", "release");
    }
    let lesser = || {
        lesser_instruction_sets().into_iter().all(|name| {
            eprintln!("xtask: the library's tests with CUDRIFT_ISA={name}");
            let mut test = tests(&["test", "--package", "cudrift", "--lib", "--tests", "--quiet"]);
            run(test.env("CUDRIFT_ISA", name))
        })
    };
    let benches = || run(&mut tests(&["test", "--package", "cudrift", "--features", "cuda", "--benches", "--release"]));
    // As a user of the registry builds it: with everything on, without nvcc and without target/.
    let package =
        || run(&mut cargo(&["package", "--package", "cudrift", "--all-features", "--allow-dirty", "--quiet"]));
    // The runner's own summary of the whole suite comes last.
    run(&mut doc) && (!full || lesser() && benches() && package()) && run(&mut all)
}

/// Instruction sets that this machine has and would not choose by itself (`cpu::instruction_set`).
fn lesser_instruction_sets() -> Vec<&'static str> {
    #[allow(unused_mut)]
    let mut lesser = Vec::new();
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c") {
        lesser.push("baseline");
        if is_x86_feature_detected!("avx512f") {
            lesser.push("avx2");
        }
    }
    lesser
}

fn ci() -> bool {
    let mut doc = cargo(&["doc", "--workspace", "--no-deps", "--quiet"]);
    doc.env("RUSTDOCFLAGS", "-D warnings");
    run(&mut cargo(&["fmt", "--all", "--check"]))
        && run(&mut cargo(&["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]))
        && run(&mut doc)
        && bindings(&["--check"])
        && kernels().is_some()
}

fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()));
    command.args(args);
    command
}

/// cargo for tests and benches, which find the simulator where programs look for libcuda unless they require a GPU, and
/// libnvrtc either way.
fn tests(args: &[&str]) -> Command {
    let mut command = cargo(args);
    let mut folders = Vec::new();
    if std::env::var_os("CUDRIFT_REQUIRE_GPU").is_none_or(|require| require != "1") {
        folders.push(sim());
        // Tests that would skip for want of a device fail instead.
        command.env("CUDRIFT_REQUIRE_CUDA", "1");
    }
    // NVIDIA's own folders, where the user named any, come before what was installed from PyPI.
    folders.extend(std::env::var_os("LD_LIBRARY_PATH").iter().flat_map(std::env::split_paths));
    folders.push(cuda::libraries(&target()));
    // Fails for a folder with a colon in its name alone.
    if let Ok(folders) = std::env::join_paths(folders) {
        command.env("LD_LIBRARY_PATH", folders);
    }
    command
}

fn run(command: &mut Command) -> bool {
    let result = command.status();
    // Without the environment, which Debug would print.
    let words = command.get_args().fold(command.get_program().to_owned(), |mut words, word| {
        words.push(" ");
        words.push(word);
        words
    });
    match result {
        Ok(status) if status.success() => return true,
        Ok(status) => eprintln!("xtask: {} failed ({status})", words.display()),
        Err(error) => eprintln!("xtask: cannot run {}: {error}", words.display()),
    }
    false
}
