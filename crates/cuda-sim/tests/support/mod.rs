//! Compiles the kernels of tests/kernels with nvcc, and launches them on a pretended device.

// Each test program uses its share of this.
#![allow(dead_code)]

use std::ffi::OsString;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use cudrift_sim::counters::Counters;
use cudrift_sim::device::{Device, Profile};
use cudrift_sim::finding::Finding;
use cudrift_sim::launch::{self, Launch};
use cudrift_sim::program::Program;

const FLAGS: [&str; 4] = ["-ptx", "-arch=compute_80", "-lineinfo", "-std=c++17"];

/// The text of tests/kernels/`file`.
pub fn source(file: &str) -> String {
    let path = folder().join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The text with that of the headers beside it that it includes.
fn whole(file: &str) -> String {
    let text = source(file);
    let headers = text.lines().filter_map(|line| line.strip_prefix("#include \"")?.strip_suffix('"')).map(source);
    headers.collect::<String>() + &text
}

/// The PTX of tests/kernels/`file`, compiled once for the same text and macros.
pub fn ptx(file: &str, macros: &[&str]) -> String {
    let nvcc = nvcc();
    let mut hasher = DefaultHasher::new();
    (whole(file), macros, FLAGS, &nvcc, include_str!("../../../../xtask/cuda-requirements.txt")).hash(&mut hasher);
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kernels");
    fs::create_dir_all(&cache).expect("a folder for compiled kernels");
    let ptx = cache.join(format!("{file}-{:016x}.ptx", hasher.finish()));
    // Tests are processes of their own; the first one compiles, the others wait for it.
    let lock = File::create(ptx.with_extension("lock")).expect("a lock file");
    lock.lock().expect("the lock");
    if !ptx.exists() {
        let partial = ptx.with_extension("partial");
        compile(&nvcc, file, macros, &partial);
        fs::rename(&partial, &ptx).expect("to move the compiled kernel into place");
    }
    fs::read_to_string(&ptx).expect("the compiled kernel")
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kernels")
}

fn nvcc() -> OsString {
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/cuda/toolkit/bin/nvcc");
    match std::env::var_os("NVCC") {
        Some(nvcc) => nvcc,
        None if installed.is_file() => installed.into(),
        None => panic!("there is no CUDA compiler: run `cargo xtask cuda`"),
    }
}

fn compile(nvcc: &OsString, file: &str, macros: &[&str], to: &Path) {
    let output = Command::new(nvcc).args(FLAGS).args(macros).arg("-o").arg(to).arg(folder().join(file)).output();
    let output = output.unwrap_or_else(|error| panic!("{}: {error}: run `cargo xtask cuda`", nvcc.display()));
    assert!(output.status.success(), "{file}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A device with one module loaded.
pub struct Sim {
    pub device: Device,
    pub program: Program,
}

impl Sim {
    /// Loads tests/kernels/`file`.
    pub fn new(file: &str) -> Self {
        Self::with(file, &[])
    }

    /// Loads tests/kernels/`file`, compiled with macros.
    pub fn with(file: &str, macros: &[&str]) -> Self {
        Self::of(80, file, macros)
    }

    /// Loads tests/kernels/`file` on a device of compute capability `arch`, compiled for it with macros.
    pub fn of(arch: u32, file: &str, macros: &[&str]) -> Self {
        let mut device = Device::new(Profile::of(arch).expect("a device"));
        // No kernel here takes long, so that a warp of so many instructions hangs.
        device.watchdog = 1 << 20;
        // Of several such flags the compiler takes the last.
        let target = format!("-arch=compute_{arch}");
        let flags = if arch == 80 { macros.to_vec() } else { [macros, &[&*target]].concat() };
        let program = Program::load(&device, &ptx(file, &flags));
        Self { program: program.unwrap_or_else(|error| panic!("{file}: {error:?}")), device }
    }

    /// Allocates without writing.
    pub fn alloc<T: Element>(&self, count: usize) -> u64 {
        self.device.memory.alloc((count * T::SIZE) as u64).expect("device memory")
    }

    /// Allocates and fills.
    pub fn upload<T: Element>(&self, values: &[T]) -> u64 {
        let addr = self.alloc::<T>(values.len());
        self.write(addr, values);
        addr
    }

    pub fn write<T: Element>(&self, addr: u64, values: &[T]) {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.le_bytes()).collect();
        self.device.memory.write(addr, &bytes).expect("an allocation");
    }

    pub fn download<T: Element>(&self, addr: u64, count: usize) -> Vec<T> {
        let mut bytes = vec![0; count * T::SIZE];
        self.device.memory.read(addr, &mut bytes).expect("an allocation");
        bytes.chunks_exact(T::SIZE).map(T::from_le).collect()
    }

    /// Launches a kernel whose arguments are given as bytes, by [`args!`].
    pub fn try_launch(&self, kernel: &str, shape: Shape, args: &[Vec<u8>]) -> Result<(), Box<Finding>> {
        self.run(kernel, shape, args).map(drop)
    }

    /// As [`Sim::launch`], with what was executed.
    pub fn count(&self, kernel: &str, shape: Shape, args: &[Vec<u8>]) -> Counters {
        self.run(kernel, shape, args).unwrap_or_else(|finding| panic!("{finding}"))
    }

    fn run(&self, kernel: &str, shape: Shape, args: &[Vec<u8>]) -> Result<Counters, Box<Finding>> {
        let kernel = self.program.kernel(kernel).unwrap_or_else(|| panic!("no kernel {kernel}"));
        let mut params = vec![0; kernel.param_bytes as usize];
        assert_eq!(kernel.params.len(), args.len(), "arguments of {}", kernel.name);
        for (param, arg) in kernel.params.iter().zip(args) {
            assert_eq!(param.size as usize, arg.len(), "size of an argument of {}", kernel.name);
            params[param.offset as usize..][..arg.len()].copy_from_slice(arg);
        }
        let Shape { grid, block, shared, cooperative } = shape;
        launch::run(&self.device, &Launch { kernel, grid, block, shared, params: &params, cooperative })
            .map_err(Into::into)
    }

    /// As [`Sim::try_launch`]; no finding is expected.
    pub fn launch(&self, kernel: &str, shape: Shape, args: &[Vec<u8>]) {
        self.try_launch(kernel, shape, args).unwrap_or_else(|finding| panic!("{finding}"));
    }
}

/// Grid and block of a launch.
#[derive(Clone, Copy)]
pub struct Shape {
    grid: [u32; 3],
    block: [u32; 3],
    shared: u32,
    cooperative: bool,
}

impl Shape {
    pub fn new(grid: impl Extent, block: impl Extent) -> Self {
        Self { grid: grid.xyz(), block: block.xyz(), shared: 0, cooperative: false }
    }

    /// Blocks of `block` threads, one thread for each of `n`.
    pub fn cover(n: usize, block: u32) -> Self {
        Self::new((n as u32).div_ceil(block), block)
    }

    /// With dynamic shared memory.
    pub fn shared(self, bytes: usize) -> Self {
        Self { shared: bytes as u32, ..self }
    }

    /// With all blocks resident.
    pub fn cooperative(self) -> Self {
        Self { cooperative: true, ..self }
    }
}

/// Up to three extents.
pub trait Extent {
    fn xyz(self) -> [u32; 3];
}

impl Extent for u32 {
    fn xyz(self) -> [u32; 3] {
        [self, 1, 1]
    }
}

impl Extent for [u32; 2] {
    fn xyz(self) -> [u32; 3] {
        [self[0], self[1], 1]
    }
}

/// A number that lies in device memory or is an argument.
pub trait Element: Copy {
    const SIZE: usize;
    fn le_bytes(self) -> Vec<u8>;
    fn from_le(bytes: &[u8]) -> Self;
}

macro_rules! element {
    ($($type:ty)*) => {$(
        impl Element for $type {
            const SIZE: usize = size_of::<$type>();
            fn le_bytes(self) -> Vec<u8> {
                self.to_le_bytes().into()
            }
            fn from_le(bytes: &[u8]) -> Self {
                Self::from_le_bytes(bytes.try_into().expect("its size"))
            }
        }
    )*};
}

element!(i8 u8 i16 u16 i32 u32 i64 u64 f32 f64);

/// The arguments of a launch.
#[allow(unused_macros)]
macro_rules! args {
    ($($arg:expr),* $(,)?) => { &[$($crate::support::Element::le_bytes($arg)),*] };
}
#[allow(unused_imports)]
pub(crate) use args;

/// Repeatable random numbers (SplitMix64).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Between `low` and `high`, the latter excluded.
    pub fn int(&mut self, low: i32, high: i32) -> i32 {
        low + (self.bits() >> 33) as i32 % (high - low)
    }

    /// Between -1 and 1, a multiple of 2^-24.
    pub fn f32(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    pub fn ints(&mut self, count: usize, low: i32, high: i32) -> Vec<i32> {
        (0..count).map(|_| self.int(low, high)).collect()
    }

    pub fn floats(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.f32()).collect()
    }
}

/// Rounds to f16, ties to even.
pub fn f16(x: f64) -> u16 {
    let sign = if x.is_sign_negative() { 0x8000 } else { 0 };
    sign | round(x.abs(), 10, -14, 15)
}

/// Rounds to bf16, ties to even.
pub fn bf16(x: f64) -> u16 {
    let sign = if x.is_sign_negative() { 0x8000 } else { 0 };
    sign | round(x.abs(), 7, -126, 127)
}

/// The bits of a format of `digits` binary places and exponents from `least` to `most`.
fn round(x: f64, digits: i32, least: i32, most: i32) -> u16 {
    let infinity = (((most - least + 2) as u16) << digits, 2f64.powi(most + 1));
    if x.is_nan() {
        return 0x7fff;
    }
    let exponent = if x < 2f64.powi(least) { least } else { ((x.to_bits() >> 52) as i32 - 1023).max(least) };
    // In units of the last place; a carry runs into the exponent, as it should.
    let units = (x * 2f64.powi(digits) / 2f64.powi(exponent)).round_ties_even();
    if x >= infinity.1 || units * 2f64.powi(exponent - digits) >= infinity.1 {
        return infinity.0;
    }
    (((exponent - least) as u16) << digits) + units as u16
}

pub fn from_f16(bits: u16) -> f64 {
    widen(bits, 10, -14, 15)
}

pub fn from_bf16(bits: u16) -> f64 {
    widen(bits, 7, -126, 127)
}

fn widen(bits: u16, digits: i32, least: i32, most: i32) -> f64 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let (exponent, places) = (i32::from((bits & 0x7fff) >> digits), bits & ((1 << digits) - 1));
    let places = f64::from(places) * 2f64.powi(-digits);
    let value = match exponent {
        0 => places * 2f64.powi(least),
        _ if exponent > most - least + 1 => return if places == 0.0 { sign * f64::INFINITY } else { f64::NAN },
        _ => (1.0 + places) * 2f64.powi(exponent - 1 + least),
    };
    sign * value
}

/// Panics where `got` is further from `want` than `bound` times the largest magnitude of `want`; NaN is too far.
pub fn assert_close(got: &[f32], want: &[f64], bound: f64) {
    assert_eq!(got.len(), want.len());
    let top = want.iter().fold(0.0f64, |top, x| top.max(x.abs()));
    for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
        assert!((f64::from(got) - want).abs() <= bound * top, "element {i}: got {got}, want {want}");
    }
}
