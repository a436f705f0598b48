//! libcudrift through a C program: the golden set, whole and by phases, with strides and from threads, and what is refused.
//! Linked to the shared library and to the static one.
#![cfg(all(unix, not(target_os = "macos")))]
#![allow(clippy::unwrap_used)]

mod common;

use common::{libraries, output, root};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A C compiler.
fn plain_compiler(folder: &Path) -> Command {
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut build = cc::Build::new();
    build.target(&target).host(&target).opt_level(1).out_dir(folder).cargo_metadata(false);
    build.get_compiler().to_command()
}

/// A C compiler with this header and every warning an error.
fn compiler(folder: &Path) -> Command {
    let mut command = plain_compiler(folder);
    command.args(["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Wredundant-decls", "-Werror"]);
    command.arg("-I").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("include"));
    // XLA's header, which is jaxlib's.
    command.arg("-isystem").arg(root().join("target/python/headers"));
    command
}

type Arrays = BTreeMap<String, (Vec<u64>, Vec<f64>)>;

fn read_npz(path: &Path) -> Arrays {
    let mut archive = zip::ZipArchive::new(std::fs::File::open(path).unwrap()).unwrap();
    let mut arrays = Arrays::new();
    for at in 0..archive.len() {
        let mut entry = archive.by_index(at).unwrap();
        let name = entry.name().unwrap().trim_end_matches(".npy").to_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        let npy = npyz::NpyFile::new(&bytes[..]).unwrap();
        let shape = npy.shape().to_vec();
        let data = match npy.dtype().descr().as_str() {
            "'<f4'" => npy.into_vec::<f32>().unwrap().into_iter().map(f64::from).collect(),
            _ => npy.into_vec::<f64>().unwrap(),
        };
        arrays.insert(name, (shape, data));
    }
    arrays
}

/// A case as golden.c reads it.
fn write_case(arrays: &Arrays, to: &Path) {
    let shape = |name: &str| arrays.get(name).map_or(vec![0; 3], |(shape, _)| shape.clone());
    let (gen_shape, weights) = (shape("gen"), ["weight_gen", "weight_neg", "weight_pos"]);
    let bits = weights.iter().enumerate().map(|(k, name)| u64::from(arrays.contains_key(*name)) << k).sum();
    let temperatures = arrays["R_list"].1.len() as u64;
    let extents = [gen_shape[0], gen_shape[1], shape("neg")[1], shape("pos")[1], gen_shape[2], temperatures, bits, 0];
    let mut bytes: Vec<u8> = extents.iter().flat_map(|n| n.to_le_bytes()).collect();
    let values = |name: &str| arrays.get(name).map_or(&[][..], |(_, values)| values);
    bytes.extend(values("R_list").iter().flat_map(|v| v.to_le_bytes()));
    for name in ["gen", "neg", "pos"].into_iter().chain(weights) {
        bytes.extend(values(name).iter().flat_map(|v| (*v as f32).to_le_bytes()));
    }
    for key in ["loss", "scale", "scale_inputs", "loss_R", "goal_scaled", "grad_gen"] {
        bytes.extend(values(&format!("ref_f64_{key}")).iter().flat_map(|v| v.to_le_bytes()));
    }
    std::fs::write(to, bytes).unwrap();
}

/// The README's C program, as it is printed there.
#[test]
fn the_readme_s_program() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let (_, rest) = readme.split_once("```c\n").unwrap();
    let (source, _) = rest.split_once("```").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (file, program) = (folder.path().join("drift.c"), folder.path().join("drift"));
    std::fs::write(&file, source).unwrap();
    let built = libraries();
    let mut compiler = compiler(folder.path());
    compiler.arg(&file).arg("-o").arg(&program).arg("-L").arg(&built).arg("-lcudrift");
    output(compiler.arg(format!("-Wl,-rpath,{}", built.display())));
    let printed = output(&mut Command::new(&program));
    let number = |name: &str| -> f64 {
        let (_, rest) = printed.split_once(name).unwrap();
        rest.split([',', '\n']).next().unwrap().trim().parse().unwrap()
    };
    assert!(number("loss") > 0.0 && number("scale") > 0.0, "{printed}");
}

/// The golden cases as golden.h reads them.
fn cases(folder: &Path) -> Vec<PathBuf> {
    let golden = root().join("tests/golden");
    let mut cases = Vec::new();
    for entry in std::fs::read_dir(golden).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if path.extension().is_some_and(|extension| extension == "npz") && !name.starts_with("ms_") {
            cases.push(folder.join(name));
            write_case(&read_npz(&path), &cases[cases.len() - 1]);
        }
    }
    assert_eq!(cases.len(), 10);
    cases
}

/// A program of this folder, linked to one of the libraries.
fn program(folder: &Path, source: &str, library: &str) -> Command {
    let (built, to) = (libraries(), folder.join(source.replace('.', "-") + library));
    let mut compiler = compiler(folder);
    compiler.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(source)).arg("-o").arg(&to);
    compiler.arg(built.join(library)).args(["-lm", "-lpthread", "-ldl"]);
    if library.ends_with(".so") {
        compiler.arg(format!("-Wl,-rpath,{}", built.display()));
    }
    output(&mut compiler);
    Command::new(to)
}

#[test]
fn the_golden_set_through_c() {
    let folder = tempfile::tempdir().unwrap();
    let cases = cases(folder.path());
    for library in ["libcudrift.so", "libcudrift.a"] {
        let printed = output(program(folder.path(), "golden.c", library).args(&cases));
        print!("{printed}");
        assert!(printed.contains("10 cases") && printed.contains(env!("CARGO_PKG_VERSION")), "{printed}");
    }
}

#[test]
fn the_golden_set_on_cuda_through_c() {
    if !common::device() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let cases = cases(folder.path());
    let printed = output(program(folder.path(), "cuda.c", "libcudrift.so").args(&cases));
    print!("{printed}");
    assert!(printed.contains("10 cases"), "{printed}");
}

#[test]
fn the_golden_set_through_xla_s_interface() {
    let folder = tempfile::tempdir().unwrap();
    let cases = cases(folder.path());
    let header = root().join("target/python/headers/xla/ffi/api/c_api.h");
    assert!(header.is_file(), "{} is not there; `cargo xtask test` installs it", header.display());
    for device in if common::device() { &["cpu", "cuda"][..] } else { &["cpu"] } {
        let printed = output(program(folder.path(), "xla.c", "libcudrift.so").arg(device).args(&cases));
        print!("{printed}");
        assert!(printed.contains("10 cases"), "{printed}");
    }
}

/// The installed libraries, by pkg-config and by CMake, from a folder that knows nothing of this one.
#[test]
fn installed_and_found() {
    let folder = tempfile::tempdir().unwrap();
    let [prefix, build] = ["prefix", "build"].map(|name| folder.path().join(name));
    output(Command::new(env!("CARGO")).args(["xtask", "install", "--debug"]).arg(&prefix).current_dir(root()));
    let tools = root().join("target/python/bin");
    // By Python: scripts in there name the folder that the environment was made in.
    let tool = |name: &str| {
        assert!(tools.join(name).is_file(), "{name} is not in {}; `cargo xtask test` installs it", tools.display());
        let mut command = Command::new(tools.join("python"));
        command.args(["-m", name]);
        command
    };

    let flags = |arguments: &[&str]| {
        let mut pkgconf = tool("pkgconf");
        output(pkgconf.env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig")).args(arguments).arg("cudrift"))
    };
    assert_eq!(flags(&["--modversion"]).trim(), env!("CARGO_PKG_VERSION"));
    let program = folder.path().join("program");
    let mut compiler = plain_compiler(folder.path());
    compiler.arg(root().join("examples/cmake/host.c")).arg("-o").arg(&program);
    compiler.args(flags(&["--cflags", "--libs"]).split_whitespace());
    output(compiler.arg(format!("-Wl,-rpath,{}", prefix.join("lib").display())));
    let printed = output(&mut Command::new(&program));
    assert!(printed.contains("step 2: the mean distance"), "{printed}");

    let device = common::device();
    let mut cmake = tool("cmake");
    cmake.arg("-S").arg(root().join("examples/cmake")).arg("-B").arg(&build).args(["-G", "Ninja"]);
    cmake.arg(format!("-DCMAKE_PREFIX_PATH={}", prefix.display()));
    cmake.arg(format!("-DCMAKE_MAKE_PROGRAM={}", tools.join("ninja").display()));
    let simulator = root().join("target/sim/libcuda.so");
    if device && simulator.exists() {
        cmake.arg(format!("-DCUDA_DRIVER={}", simulator.display()));
    }
    output(&mut cmake);
    output(tool("cmake").arg("--build").arg(&build));
    for name in ["host", "host_static"] {
        assert_eq!(output(&mut Command::new(build.join(name))), printed);
    }
    if device {
        let printed = output(&mut Command::new(build.join("device")));
        assert!(printed.contains("the mean distance is"), "{printed}");
    }
}
