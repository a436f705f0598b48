//! What the integration tests share: the golden vectors, error measures, random cases.
#![allow(dead_code, clippy::unwrap_used)]

use cudrift::{DriftInputs, DriftShape, DriftSpec, Element, Points, bf16, f16, reference};
#[cfg(feature = "cuda")]
pub mod bench;
pub mod naive;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Are the tests told that what they want of CUDA is there (`cargo xtask test`), or a GPU?
pub fn required() -> bool {
    is_set("CUDRIFT_REQUIRE_CUDA") || is_set("CUDRIFT_REQUIRE_GPU")
}

fn is_set(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| value == "1")
}

/// The CUDA device, or nothing where there is none and none is required.
#[cfg(feature = "cuda")]
pub fn device() -> Option<cudrift::cuda::Gpu> {
    match cudrift::cuda::probe() {
        Ok(gpu) => {
            assert!(!(gpu.simulated && is_set("CUDRIFT_REQUIRE_GPU")), "{} is no GPU", gpu.name);
            Some(gpu)
        }
        Err(error) if required() => panic!("{error}"),
        Err(error) => {
            eprintln!("SKIPPED: {error}; `cargo xtask test` runs this on the simulator");
            None
        }
    }
}

/// Runs the test `name` again in a process with another environment; there, this is false.
pub fn elsewhere(name: &str, change: impl FnOnce(&mut std::process::Command)) -> bool {
    let written = written_elsewhere(name, change);
    written.iter().for_each(|written| eprint!("{written}"));
    written.is_some()
}

/// As [`elsewhere`], with what the process wrote to its standard error.
pub fn written_elsewhere(name: &str, change: impl FnOnce(&mut std::process::Command)) -> Option<String> {
    const CHILD: &str = "CUDRIFT_TEST_CHILD";
    if std::env::var_os(CHILD).is_some() {
        return None;
    }
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    child.args([name, "--exact", "--nocapture", "--include-ignored"]).env(CHILD, "1");
    change(&mut child);
    let output = child.output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{child:?}\n{out}\n{err}");
    Some(err.into_owned())
}

/// An array of a golden file.
#[derive(Clone, Debug)]
pub struct Array {
    pub shape: Vec<usize>,
    pub data: Vec<f64>,
}

/// Every array of an `.npz` file, as f64.
pub fn read_npz(path: &Path) -> BTreeMap<String, Array> {
    let mut archive = zip::ZipArchive::new(std::fs::File::open(path).unwrap()).unwrap();
    let mut arrays = BTreeMap::new();
    for at in 0..archive.len() {
        let mut entry = archive.by_index(at).unwrap();
        let name = entry.name().unwrap().trim_end_matches(".npy").to_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        let npy = npyz::NpyFile::new(&bytes[..]).unwrap();
        let shape = npy.shape().iter().map(|n| *n as usize).collect();
        let data = match npy.dtype().descr().as_str() {
            "'<f4'" => npy.into_vec::<f32>().unwrap().into_iter().map(f64::from).collect(),
            "'<f8'" => npy.into_vec::<f64>().unwrap(),
            other => panic!("{name}: unexpected element type {other}"),
        };
        arrays.insert(name, Array { shape, data });
    }
    arrays
}

pub fn golden_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// The golden files whose names do, or do not, begin with `ms_`.
pub fn golden_files(mean_shift: bool) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(golden_dir())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "npz"))
        .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("ms_") == mean_shift)
        .collect();
    files.sort();
    assert_eq!(files.len(), if mean_shift { 2 } else { 10 }, "golden files are missing");
    files
}

/// Largest absolute error over the largest absolute expected value; NaN where either side has one.
pub fn relative_error<A: Copy + Into<f64>>(got: &[A], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len(), "lengths differ");
    let max = want.iter().fold(0.0f64, |m, v| if v.abs() > m || v.is_nan() { v.abs() } else { m });
    let mut worst = 0.0f64;
    for (got, want) in got.iter().zip(want) {
        let got = (*got).into();
        // Infinities too.
        let error = if got == *want { 0.0 } else { (got - want).abs() };
        if error > worst || error.is_nan() {
            worst = error;
        }
    }
    if worst == 0.0 { 0.0 } else { worst / max }
}

/// Asserts `error <= bound` so that NaN fails, and prints the share of the bound that was used.
#[track_caller]
pub fn check(what: &str, error: f64, bound: f64) {
    println!("{what}: {error:.2e}, {:.0} % of {bound:.1e}", 100.0 * error / bound);
    assert!(error <= bound, "{what}: error {error:e} exceeds {bound:e}");
}

/// Owned samples and weights of one call.
#[derive(Clone, Debug)]
pub struct Case {
    pub shape: DriftShape,
    pub generated: Vec<f32>,
    pub negatives: Vec<f32>,
    pub positives: Vec<f32>,
    pub weight_generated: Option<Vec<f32>>,
    pub weight_negatives: Option<Vec<f32>>,
    pub weight_positives: Option<Vec<f32>>,
}

impl Case {
    /// Standard normal samples, the positives shifted by a half; every weight 1.
    pub fn random(seed: u64, [groups, generated, negatives, positives, dim]: [usize; 5]) -> Self {
        let mut normal = Normal::new(seed);
        let mut draw = |n: usize, shift: f32| (0..groups * n * dim).map(|_| normal.next() + shift).collect();
        Self {
            shape: DriftShape { groups, generated, negatives, positives, dim },
            generated: draw(generated, 0.0),
            negatives: draw(negatives, 0.0),
            positives: draw(positives, 0.5),
            weight_generated: None,
            weight_negatives: None,
            weight_positives: None,
        }
    }

    /// These samples; every weight 1.
    pub fn of([groups, generated, negatives, positives, dim]: [usize; 5], samples: [&[f32]; 3]) -> Self {
        let [x, n, p] = samples.map(<[f32]>::to_vec);
        Self {
            shape: DriftShape { groups, generated, negatives, positives, dim },
            generated: x,
            negatives: n,
            positives: p,
            weight_generated: None,
            weight_negatives: None,
            weight_positives: None,
        }
    }

    /// The same with random weights in [0.2, 2).
    pub fn weighted(mut self, seed: u64) -> Self {
        let mut rng = Normal::new(seed ^ 0xabcd);
        let mut draw = |n: usize| Some((0..self.shape.groups * n).map(|_| 0.2 + 1.8 * rng.uniform()).collect());
        self.weight_generated = draw(self.shape.generated);
        self.weight_negatives = draw(self.shape.negatives);
        self.weight_positives = draw(self.shape.positives);
        self
    }

    /// The drift case of a golden file.
    pub fn from_npz(arrays: &BTreeMap<String, Array>) -> Self {
        let f32s = |name: &str| arrays.get(name).map(|a| a.data.iter().map(|v| *v as f32).collect::<Vec<_>>());
        let extents = |name: &str| arrays.get(name).map_or(vec![0; 3], |a| a.shape.clone());
        Self {
            shape: DriftShape {
                groups: extents("gen")[0],
                generated: extents("gen")[1],
                negatives: extents("neg")[1],
                positives: extents("pos")[1],
                dim: extents("gen")[2],
            },
            generated: f32s("gen").unwrap(),
            negatives: f32s("neg").unwrap_or_default(),
            positives: f32s("pos").unwrap(),
            weight_generated: f32s("weight_gen"),
            weight_negatives: f32s("weight_neg"),
            weight_positives: f32s("weight_pos"),
        }
    }

    /// Some of the groups.
    pub fn groups(&self, range: std::ops::Range<usize>) -> Self {
        let part = |all: &[f32]| {
            let each = all.len() / self.shape.groups;
            all[range.start * each..range.end * each].to_vec()
        };
        let weights = |weights: &Option<Vec<f32>>| weights.as_deref().map(part);
        Self {
            shape: DriftShape { groups: range.len(), ..self.shape },
            generated: part(&self.generated),
            negatives: part(&self.negatives),
            positives: part(&self.positives),
            weight_generated: weights(&self.weight_generated),
            weight_negatives: weights(&self.weight_negatives),
            weight_positives: weights(&self.weight_positives),
        }
    }

    /// Moves every sample.
    pub fn translated(mut self, by: f32) -> Self {
        for v in self.samples() {
            *v += by;
        }
        self
    }

    /// Multiplies every sample.
    pub fn scaled(mut self, by: f32) -> Self {
        for v in self.samples() {
            *v *= by;
        }
        self
    }

    pub fn samples(&mut self) -> impl Iterator<Item = &mut f32> {
        self.generated.iter_mut().chain(&mut self.negatives).chain(&mut self.positives)
    }

    /// The samples rounded to `T`, and those values again as f32.
    pub fn rounded<T: Convert>(&self) -> (Typed<T>, Self) {
        let typed = Typed {
            shape: self.shape,
            generated: self.generated.iter().map(|v| T::from_f32(*v)).collect(),
            negatives: self.negatives.iter().map(|v| T::from_f32(*v)).collect(),
            positives: self.positives.iter().map(|v| T::from_f32(*v)).collect(),
        };
        let mut back = self.clone();
        for v in back.samples() {
            *v = T::from_f32(*v).back();
        }
        (typed, back)
    }

    fn inputs_of<'a, T: Copy>(
        &'a self,
        generated: &'a [T],
        negatives: &'a [T],
        positives: &'a [T],
    ) -> DriftInputs<'a, T> {
        let DriftShape { groups: b, generated: g, negatives: n, positives: p, dim: d } = self.shape;
        let mut inputs =
            DriftInputs::new(Points::new(generated, [b, g, d]).unwrap(), Points::new(positives, [b, p, d]).unwrap())
                .unwrap();
        if n > 0 {
            inputs = inputs.negatives(Points::new(negatives, [b, n, d]).unwrap()).unwrap();
        }
        if let Some(w) = &self.weight_generated {
            inputs = inputs.weight_generated(w).unwrap();
        }
        if let Some(w) = &self.weight_negatives {
            inputs = inputs.weight_negatives(w).unwrap();
        }
        if let Some(w) = &self.weight_positives {
            inputs = inputs.weight_positives(w).unwrap();
        }
        inputs
    }

    pub fn inputs(&self) -> DriftInputs<'_, f32> {
        self.inputs_of(&self.generated, &self.negatives, &self.positives)
    }

    pub fn typed_inputs<'a, T: Element>(&'a self, typed: &'a Typed<T>) -> DriftInputs<'a, T> {
        self.inputs_of(&typed.generated, &typed.negatives, &typed.positives)
    }

    /// The f64 reference on other samples with these shapes and weights.
    pub fn reference_on(
        &self,
        spec: &DriftSpec,
        generated: &[f64],
        negatives: &[f64],
        positives: &[f64],
    ) -> reference::Drift {
        reference::drift(spec, &self.inputs_of(generated, negatives, positives)).unwrap()
    }

    /// The f64 reference on these samples.
    pub fn reference(&self, spec: &DriftSpec) -> reference::Drift {
        let wide = |v: &[f32]| v.iter().map(|v| f64::from(*v)).collect::<Vec<_>>();
        let (generated, negatives, positives) = (wide(&self.generated), wide(&self.negatives), wide(&self.positives));
        reference::drift(spec, &self.inputs_of(&generated, &negatives, &positives)).unwrap()
    }
}

/// Samples in another element type.
pub struct Typed<T> {
    pub shape: DriftShape,
    pub generated: Vec<T>,
    pub negatives: Vec<T>,
    pub positives: Vec<T>,
}

/// Rounding to an element type and back.
pub trait Convert: Element {
    fn from_f32(v: f32) -> Self;
    fn back(self) -> f32;
}

impl Convert for f32 {
    fn from_f32(v: f32) -> Self {
        v
    }
    fn back(self) -> f32 {
        self
    }
}

impl Convert for f16 {
    fn from_f32(v: f32) -> Self {
        f16::from_f32(v)
    }
    fn back(self) -> f32 {
        self.to_f32()
    }
}

impl Convert for bf16 {
    fn from_f32(v: f32) -> Self {
        bf16::from_f32(v)
    }
    fn back(self) -> f32 {
        self.to_f32()
    }
}

/// A small random number generator for test data (splitmix64 and sums of uniforms); not the crate's own.
pub struct Normal(u64);

impl Normal {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678_9abc_def0)
    }

    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn uniform(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u64 << 24) as f32
    }

    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> f32 {
        (0..12).map(|_| self.uniform()).sum::<f32>() - 6.0
    }
}
