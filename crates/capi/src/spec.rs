//! What to compute, as plain data.

use crate::status::{Refusal, borrowed_mut, cudrift_status, guarded};
use drift::{
    AffinityFloor, Coupling, DriftSpec, FeatureScale, ForceNorm, Form, Kernel, Numerics, SelfMask, Sinkhorn, WeightRule,
};

/// Temperatures of one call at most.
pub const CUDRIFT_MAX_TEMPERATURES: usize = 8;
const _: () = assert!(CUDRIFT_MAX_TEMPERATURES == drift::MAX_TEMPERATURES);

/// Preset: the official JAX release.
pub const CUDRIFT_OFFICIAL: u32 = 0;
/// Preset: the paper's Algorithm 2 with its normalisation.
pub const CUDRIFT_PAPER: u32 = 1;
/// Preset: the official toy notebook.
pub const CUDRIFT_NOTEBOOK: u32 = 2;

/// Kernel: exp(-r / tau).
pub const CUDRIFT_LAPLACE: u32 = 0;
/// Kernel: exp(-r^2 / (2 tau^2)).
pub const CUDRIFT_GAUSSIAN: u32 = 1;
/// Kernel: Matern 3/2.
pub const CUDRIFT_MATERN32: u32 = 2;
/// Kernel: Matern 5/2.
pub const CUDRIFT_MATERN52: u32 = 3;
/// Kernel: Matern 7/2.
pub const CUDRIFT_MATERN72: u32 = 4;
/// Kernel: Matern 9/2.
pub const CUDRIFT_MATERN92: u32 = 5;
/// Kernel: 1 / sqrt(1 + (r / tau)^2).
pub const CUDRIFT_PLUMMER: u32 = 6;

/// Length scale of features: the mean distance, self pairs included.
pub const CUDRIFT_SCALE_OFFICIAL: u32 = 0;
/// Length scale of features: the mean distance without self pairs.
pub const CUDRIFT_SCALE_PAPER: u32 = 1;
/// Length scale of features: 1.
pub const CUDRIFT_SCALE_RAW: u32 = 2;

/// The distance of a sample to itself: self_mask_value is added.
pub const CUDRIFT_MASK_ADD: u32 = 0;
/// The distance of a sample to itself: self_mask_value takes its place.
pub const CUDRIFT_MASK_SET: u32 = 1;
/// The pair of a sample with itself is not there.
pub const CUDRIFT_MASK_REMOVE: u32 = 2;
/// The distance of a sample to itself is as it is.
pub const CUDRIFT_MASK_KEEP: u32 = 3;

/// Coupling: the geometric mean of the softmaxes over targets and over queries.
pub const CUDRIFT_ROW_COLUMN: u32 = 0;
/// Coupling: the softmax over targets.
pub const CUDRIFT_ROW: u32 = 1;
/// Coupling: rows of an entropic plan.
pub const CUDRIFT_SINKHORN: u32 = 2;

/// Form: one coupling with all targets.
pub const CUDRIFT_JOINT: u32 = 0;
/// Form: a coupling with negatives and one with positives.
pub const CUDRIFT_SPLIT: u32 = 1;

/// Affinity floor: of the product of both softmaxes.
pub const CUDRIFT_FLOOR_PRODUCT: u32 = 0;
/// Affinity floor: of the product of both sums.
pub const CUDRIFT_FLOOR_NORMALIZER: u32 = 1;
/// Affinity floor: none.
pub const CUDRIFT_FLOOR_NONE: u32 = 2;

/// Weights multiply affinities.
pub const CUDRIFT_WEIGHTS_AFFINITY: u32 = 0;
/// Logarithms of weights are added to logits.
pub const CUDRIFT_WEIGHTS_LOGIT: u32 = 1;
/// Weights are not looked at.
pub const CUDRIFT_WEIGHTS_IGNORED: u32 = 2;

/// A temperature's force is divided by its root mean square, at least sqrt(force_norm_floor).
pub const CUDRIFT_NORM_RMS: u32 = 0;
/// A temperature's force is not divided.
pub const CUDRIFT_NORM_NONE: u32 = 1;

/// Every numeric choice of a drift. Fill it by cudrift_spec_preset and change fields, the coupling and the form by
/// cudrift_spec_couple.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct cudrift_spec {
    /// CUDRIFT_LAPLACE and so on.
    pub kernel: u32,
    /// How many temperatures there are, 1 to 8.
    pub temperature_count: u32,
    /// In units of the normalised distance.
    pub temperatures: [f64; CUDRIFT_MAX_TEMPERATURES],
    /// CUDRIFT_SCALE_OFFICIAL and so on.
    pub feature_scale: u32,
    /// CUDRIFT_MASK_ADD and so on.
    pub self_mask: u32,
    /// What CUDRIFT_MASK_ADD adds and CUDRIFT_MASK_SET sets.
    pub self_mask_value: f64,
    /// Lower clip of squared distances.
    pub min_squared_distance: f64,
    /// CUDRIFT_ROW_COLUMN and so on.
    pub coupling: u32,
    /// CUDRIFT_JOINT or CUDRIFT_SPLIT.
    pub form: u32,
    /// Of CUDRIFT_SINKHORN, at most.
    pub sinkhorn_iterations: u32,
    /// CUDRIFT_FLOOR_PRODUCT and so on; CUDRIFT_FLOOR_NONE in the split form and for CUDRIFT_SINKHORN.
    pub affinity_floor: u32,
    /// Of CUDRIFT_SINKHORN: how near to its marginals a plan ends earlier; 0 for never.
    pub sinkhorn_tolerance: f64,
    /// The floor.
    pub affinity_floor_value: f64,
    /// CUDRIFT_WEIGHTS_AFFINITY and so on.
    pub weights: u32,
    /// CUDRIFT_NORM_RMS or CUDRIFT_NORM_NONE.
    pub force_norm: u32,
    /// Of CUDRIFT_NORM_RMS.
    pub force_norm_floor: f64,
    /// Pairs nearer than this share of their squared norms have distances from differences; 0 for none.
    pub near_pairs: f64,
    /// Points are centred before products: 0 or 1.
    pub center: u32,
    /// The distance of a sample to itself is a constant: 0 or 1.
    pub constant_self_distance: u32,
    /// Global sums are f64: 0 or 1.
    pub f64_sums: u32,
    /// 0.
    pub reserved: u32,
}

/// Fills `spec` with a preset: CUDRIFT_OFFICIAL, CUDRIFT_PAPER or CUDRIFT_NOTEBOOK.
///
/// # Safety
/// `spec` is null or points to a cudrift_spec.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudrift_spec_preset(preset: u32, spec: *mut cudrift_spec) -> cudrift_status {
    guarded(|| {
        let from = match preset {
            CUDRIFT_OFFICIAL => DriftSpec::official(),
            CUDRIFT_PAPER => DriftSpec::paper(),
            CUDRIFT_NOTEBOOK => DriftSpec::notebook(),
            _ => return Err(unknown("preset", preset, 2)),
        };
        // SAFETY: by # Safety, it is null or points to a cudrift_spec, which nothing else reads or writes meanwhile.
        *unsafe { borrowed_mut("spec", spec) }? = plain(&from);
        Ok(())
    })
}

/// Gives `spec` another coupling and form, and what goes with them: no affinity floor in the split form and for
/// CUDRIFT_SINKHORN, and for that no self mask.
///
/// # Safety
/// `spec` is null or points to a cudrift_spec.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudrift_spec_couple(spec: *mut cudrift_spec, coupling: u32, form: u32) -> cudrift_status {
    guarded(|| {
        // SAFETY: by # Safety, it is null or points to a cudrift_spec, which nothing else reads or writes meanwhile.
        let spec = unsafe { borrowed_mut("spec", spec) }?;
        let changed = cudrift_spec { coupling, form, ..*spec };
        let own = changed.spec()?;
        let (coupling, form) = (own.coupling, own.form);
        let coupled = plain(&own.coupled(coupling, form));
        // What is not in the crate's spec stays.
        *spec = cudrift_spec {
            sinkhorn_iterations: spec.sinkhorn_iterations,
            sinkhorn_tolerance: spec.sinkhorn_tolerance,
            ..coupled
        };
        Ok(())
    })
}

fn unknown(name: &str, got: u32, most: u32) -> Refusal {
    Refusal::invalid(format!("libcudrift: spec.{name} is {got}, expected 0 to {most}"))
}

fn plain(spec: &DriftSpec) -> cudrift_spec {
    let mut temperatures = [0.0; CUDRIFT_MAX_TEMPERATURES];
    temperatures[..spec.temperatures.len()].copy_from_slice(&spec.temperatures);
    let (self_mask, self_mask_value) = match spec.self_mask {
        SelfMask::Add(value) => (CUDRIFT_MASK_ADD, value),
        SelfMask::Set(value) => (CUDRIFT_MASK_SET, value),
        SelfMask::Remove => (CUDRIFT_MASK_REMOVE, 0.0),
        _ => (CUDRIFT_MASK_KEEP, 0.0),
    };
    let (affinity_floor, affinity_floor_value) = match spec.affinity_floor {
        AffinityFloor::Product(value) => (CUDRIFT_FLOOR_PRODUCT, value),
        AffinityFloor::Normalizer(value) => (CUDRIFT_FLOOR_NORMALIZER, value),
        _ => (CUDRIFT_FLOOR_NONE, 0.0),
    };
    let (force_norm, force_norm_floor) = match spec.force_norm {
        ForceNorm::Rms(value) => (CUDRIFT_NORM_RMS, value),
        _ => (CUDRIFT_NORM_NONE, 0.0),
    };
    cudrift_spec {
        kernel: KERNELS.iter().position(|kernel| *kernel == spec.kernel).unwrap_or_default() as u32,
        temperature_count: spec.temperatures.len() as u32,
        temperatures,
        feature_scale: match spec.feature_scale {
            FeatureScale::Official => CUDRIFT_SCALE_OFFICIAL,
            FeatureScale::Paper => CUDRIFT_SCALE_PAPER,
            _ => CUDRIFT_SCALE_RAW,
        },
        self_mask,
        self_mask_value,
        min_squared_distance: spec.min_squared_distance,
        coupling: match spec.coupling {
            Coupling::Sinkhorn(_) => CUDRIFT_SINKHORN,
            Coupling::Row => CUDRIFT_ROW,
            _ => CUDRIFT_ROW_COLUMN,
        },
        form: if spec.form == Form::Split { CUDRIFT_SPLIT } else { CUDRIFT_JOINT },
        sinkhorn_iterations: 20,
        affinity_floor,
        sinkhorn_tolerance: 0.0,
        affinity_floor_value,
        weights: match spec.weights {
            WeightRule::Affinity => CUDRIFT_WEIGHTS_AFFINITY,
            WeightRule::Logit => CUDRIFT_WEIGHTS_LOGIT,
            _ => CUDRIFT_WEIGHTS_IGNORED,
        },
        force_norm,
        force_norm_floor,
        near_pairs: spec.numerics.near_pairs,
        center: spec.numerics.center.into(),
        constant_self_distance: spec.numerics.constant_self_distance.into(),
        f64_sums: spec.numerics.f64_sums.into(),
        reserved: 0,
    }
}

/// By their numbers.
const KERNELS: [Kernel; 7] = [
    Kernel::Laplace,
    Kernel::Gaussian,
    Kernel::Matern32,
    Kernel::Matern52,
    Kernel::Matern72,
    Kernel::Matern92,
    Kernel::Plummer,
];

impl cudrift_spec {
    /// The crate's own, whose plan checks the numbers.
    pub(crate) fn spec(&self) -> Result<DriftSpec, Refusal> {
        let flag = |name, value: u32| match value {
            0 | 1 => Ok(value == 1),
            _ => Err(unknown(name, value, 1)),
        };
        if self.reserved != 0 {
            return Err(unknown("reserved", self.reserved, 0));
        }
        let count = self.temperature_count as usize;
        let Some(temperatures) = self.temperatures.get(..count) else {
            return Err(unknown("temperature_count", self.temperature_count, 8));
        };
        let mut spec = DriftSpec::official();
        spec.kernel = *KERNELS.get(self.kernel as usize).ok_or_else(|| unknown("kernel", self.kernel, 6))?;
        spec.temperatures = temperatures.to_vec();
        spec.feature_scale = match self.feature_scale {
            CUDRIFT_SCALE_OFFICIAL => FeatureScale::Official,
            CUDRIFT_SCALE_PAPER => FeatureScale::Paper,
            CUDRIFT_SCALE_RAW => FeatureScale::Raw,
            other => return Err(unknown("feature_scale", other, 2)),
        };
        spec.min_squared_distance = self.min_squared_distance;
        spec.self_mask = match self.self_mask {
            CUDRIFT_MASK_ADD => SelfMask::Add(self.self_mask_value),
            CUDRIFT_MASK_SET => SelfMask::Set(self.self_mask_value),
            CUDRIFT_MASK_REMOVE => SelfMask::Remove,
            CUDRIFT_MASK_KEEP => SelfMask::Keep,
            other => return Err(unknown("self_mask", other, 3)),
        };
        spec.coupling = match self.coupling {
            CUDRIFT_ROW_COLUMN => Coupling::RowColumn,
            CUDRIFT_ROW => Coupling::Row,
            CUDRIFT_SINKHORN => Coupling::Sinkhorn(Sinkhorn {
                iterations: self.sinkhorn_iterations,
                tolerance: self.sinkhorn_tolerance,
            }),
            other => return Err(unknown("coupling", other, 2)),
        };
        spec.form = match self.form {
            CUDRIFT_JOINT => Form::Joint,
            CUDRIFT_SPLIT => Form::Split,
            other => return Err(unknown("form", other, 1)),
        };
        spec.affinity_floor = match self.affinity_floor {
            CUDRIFT_FLOOR_PRODUCT => AffinityFloor::Product(self.affinity_floor_value),
            CUDRIFT_FLOOR_NORMALIZER => AffinityFloor::Normalizer(self.affinity_floor_value),
            CUDRIFT_FLOOR_NONE => AffinityFloor::None,
            other => return Err(unknown("affinity_floor", other, 2)),
        };
        spec.weights = match self.weights {
            CUDRIFT_WEIGHTS_AFFINITY => WeightRule::Affinity,
            CUDRIFT_WEIGHTS_LOGIT => WeightRule::Logit,
            CUDRIFT_WEIGHTS_IGNORED => WeightRule::Ignored,
            other => return Err(unknown("weights", other, 2)),
        };
        spec.force_norm = match self.force_norm {
            CUDRIFT_NORM_RMS => ForceNorm::Rms(self.force_norm_floor),
            CUDRIFT_NORM_NONE => ForceNorm::None,
            other => return Err(unknown("force_norm", other, 1)),
        };
        let mut numerics = Numerics::default();
        numerics.near_pairs = self.near_pairs;
        numerics.center = flag("center", self.center)?;
        numerics.constant_self_distance = flag("constant_self_distance", self.constant_self_distance)?;
        numerics.f64_sums = flag("f64_sums", self.f64_sums)?;
        spec.numerics = numerics;
        Ok(spec)
    }
}
