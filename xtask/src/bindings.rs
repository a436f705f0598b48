//! kernels/params.h as Rust: src/cuda/params.rs, by bindgen with the libclang of PyPI.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::python::{self, Packages};

const CLANG: Packages = Packages {
    name: "clang",
    what: "libclang",
    file: "clang-requirements.txt",
    requirements: include_str!("../clang-requirements.txt"),
    link: ("clang/native", "native"),
    product: "native/libclang.so",
};
const HEADER: &str = "kernels/params.h";
const RUST: &str = "src/cuda/params.rs";
const FIRST_LINES: &str = "\
// kernels/params.h, by `cargo xtask bindings`. Not written by hand.
#![allow(dead_code, non_camel_case_types, non_snake_case, non_upper_case_globals)]
";

/// Why there are no bindings.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Clang(#[from] python::Error),
    #[error("{HEADER}: {0}")]
    Bindgen(#[from] bindgen::BindgenError),
    #[error("{RUST} would lack {0} of {HEADER}")]
    Lost(String),
    #[error("{HEADER} declares nothing")]
    Empty,
    #[error("rustfmt: {0}")]
    Rustfmt(String),
    #[error("{RUST} is not what {HEADER} says: run `cargo xtask bindings`")]
    Stale,
    #[error("{}: {error}", path.display())]
    File { path: PathBuf, error: std::io::Error },
}

/// Writes the bindings, or checks that they are as they would be written.
pub fn update(root: &Path, target: &Path, check: bool) -> Result<(), Error> {
    let fresh = generate(root, target)?;
    let path = root.join(RUST);
    if fs::read_to_string(&path).is_ok_and(|present| present == fresh) {
        return Ok(());
    }
    if check { Err(Error::Stale) } else { fs::write(&path, fresh).map_err(|error| Error::File { path, error }) }
}

fn generate(root: &Path, target: &Path) -> Result<String, Error> {
    let library = CLANG.install(target)?.environment.join(CLANG.product);
    // SAFETY: no other thread of this program reads the environment meanwhile, for there is none.
    unsafe { std::env::set_var("LIBCLANG_PATH", library) };
    let header = root.join(HEADER);
    let text = fs::read_to_string(&header).map_err(|error| Error::File { path: header.clone(), error })?;
    let mut builder = bindgen::builder()
        .header(header.display().to_string())
        .clang_args(["-x", "c++", "-std=c++17", "-nostdinc", "-Wno-pragma-once-outside-header"])
        .allowlist_file(r".*/params\.h")
        .use_core()
        .derive_default(true)
        .formatter(bindgen::Formatter::None)
        .disable_header_comment();
    if let Ok(target) = bindgen::RustTarget::stable(85, 0) {
        builder = builder.rust_target(target);
    }
    let code = builder.generate()?.to_string();
    // bindgen answers an allowlist that fits nothing with an empty file.
    let declared: Vec<String> = declared(&text).collect();
    if declared.is_empty() {
        return Err(Error::Empty);
    }
    if let Some(lost) = declared.into_iter().find(|item| !contains(&code, item)) {
        return Err(Error::Lost(lost));
    }
    format(root, &(FIRST_LINES.to_owned() + &code))
}

/// What the header declares: `struct NAME`, `type NAME` for an enumeration, `const NAME`.
fn declared(header: &str) -> impl Iterator<Item = String> {
    header.lines().filter_map(|line| {
        let words: Vec<&str> = line.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
        match words[..] {
            ["struct", name, ..] if line.contains('{') => Some(format!("struct {name}")),
            ["enum", "class" | "struct", name, ..] | ["enum", name, ..] => Some(format!("type {name}")),
            ["constexpr", _, name, ..] => Some(format!("const {name}")),
            _ => None,
        }
    })
}

/// Does the code have this item, and not merely one whose name begins like it?
fn contains(code: &str, item: &str) -> bool {
    let item = format!("pub {item}");
    // bindgen's unformatted code has single spaces between words.
    code.match_indices(&item)
        .any(|(at, _)| code[at + item.len()..].chars().next().is_none_or(|next| !next.is_alphanumeric() && next != '_'))
}

/// As `cargo fmt` has it, with the reason that every `unsafe` block here has.
fn format(root: &Path, code: &str) -> Result<String, Error> {
    let failed = |error: std::io::Error| Error::Rustfmt(error.to_string());
    let mut rustfmt = Command::new("rustfmt")
        .args(["--edition", "2024", "--config-path"])
        .arg(root)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    // Dropped at the end of the statement, so that rustfmt sees the end; it reads everything before it writes.
    rustfmt.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(code.as_bytes())).map_err(failed)?;
    let output = rustfmt.wait_with_output().map_err(failed)?;
    if !output.status.success() {
        return Err(Error::Rustfmt(output.status.to_string()));
    }
    let text = String::from_utf8(output.stdout).map_err(|error| Error::Rustfmt(error.to_string()))?;
    Ok(text.lines().flat_map(with_reason).collect())
}

fn with_reason(line: &str) -> Vec<String> {
    let code = line.trim_start();
    let reason = code.starts_with("unsafe {").then(|| {
        let indent = &line[..line.len() - code.len()];
        format!("{indent}// SAFETY: all bytes zero are a value: numbers, enumerators and null pointers.\n")
    });
    reason.into_iter().chain([format!("{line}\n")]).collect()
}
