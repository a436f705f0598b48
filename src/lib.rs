//! Drift fields of *drifting models*, one-step generative models trained by regression onto a drift.
//!
//! In one step of training a generator maps noise to samples x; the drift V(x) pulls each x toward nearby data and
//! pushes it away from nearby other x, weighted by a kernel of distance; the generator then regresses onto the frozen
//! x + V. This crate computes the drift, its loss and its gradient exactly and without [B, G, T] intermediates, runs
//! the generator and the update, and measures the result.
//!
//! # Where things are
//! - [`DriftSpec`]: what to compute. Presets for the official code, the paper and the notebook.
//! - [`DriftInputs`], [`Points`]: the samples, borrowed, in f32, [`struct@f16`] or [`struct@bf16`].
//! - [`cpu::drift()`]: one call. [`cpu::Plan`]: its phases, for several workers or chunks over B.
//! - `cuda` (feature `cuda`): the same on NVIDIA GPUs, on the caller's streams and arrays.
//! - [`mod@reference`]: the same in f64, to be read beside the formulas; the oracle of every test.
//! - [`FieldSpec`], [`cpu::field()`], [`Velocity`]: fields of two point sets that come of a kernel. [`SlicedInputs`],
//!   [`cpu::sliced()`]: that of their projections. [`Projection`], [`cpu::projected()`]: all data by way of landmarks.
//! - [`generator`], [`train`], [`data`], [`rng`]: a training run, all of it, on any [`backend`].
//! - [`features`]: frozen maps, in which a drift is computed in the place of the samples.
//! - [`metrics`], [`classifier`]: what came of it.
//!
//! # Notation
//! B groups, G generated samples per group (the queries), N further negatives, P positives, T = G + N + P targets,
//! D coordinates. "Spec" in these pages is this project's specification of the formulas, collected from the official
//! JAX release (lambertae/drifting), the toy notebook, "Generative Modeling via Drifting" (arXiv 2602.04770, *the
//! paper*) and "A Unified View of Score-Based and Drifting Models" (arXiv 2603.07514).
//!
//! # Failure
//! Everything that can be known beforehand is checked beforehand and is a typed [`Error`]: shapes, parameters, weights.
//! Data that is not finite is no error: it gives NaN in the outputs that it reaches, and a count.
//!
//! # Determinism
//! The same inputs give the same bits on the same machine, for any number of threads and any chunking over B. Threads
//! are those of rayon's current pool.

pub mod backend;
pub mod classifier;
pub mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod data;
pub mod diagnostics;
mod drift;
mod dtype;
mod error;
pub mod features;
mod field;
pub mod files;
pub mod generator;
mod inputs;
pub mod metrics;
mod projection;
pub mod reference;
pub mod rng;
mod sliced;
mod spec;
mod supervised;
pub mod train;

pub use drift::{Convergence, Drift, RowMeans};
pub use dtype::{Dtype, Element};
pub use error::{Error, Result};
pub use field::{Field, FieldInputs, FieldSpec, Real, Velocity};
pub use half::{bf16, f16};
pub use inputs::{DriftInputs, DriftShape, Points};
pub use projection::Projection;
pub use sliced::{SlicedInputs, directions};
pub use spec::{
    AffinityFloor, Coupling, DriftSpec, FeatureScale, ForceNorm, Form, Kernel, MAX_TEMPERATURES, Numerics, Scale,
    SelfMask, Sinkhorn, WeightRule, guidance_weight,
};

/// The README's examples are run as tests, where the feature that one of them wants is on.
#[cfg(all(doctest, feature = "cuda"))]
#[doc = include_str!("../README.md")]
struct Readme;
