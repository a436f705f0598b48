//! A plan and pointers to what the kernels are launched with: kernels/params.h.

use super::params::{self, DriftCall, DriftHead, DriftScalars};
use super::plan::{Head, LAUNCHES, Plan};
use crate::{AffinityFloor, Coupling, FeatureScale, ForceNorm, Form, Kernel, SelfMask, WeightRule};

/// Where an uncentred pair in half precision is formed anew, as a part of its squares: five bits have then cancelled.
const NEAR: f64 = 1.0 / 32.0;

/// The least temperature at which coefficients in half precision have their exponents as one product of f32: its last
/// digit, at normalised distances near 1, is then 2e-5 of an affinity (kernels/coefficients.cuh).
const LEAST_SHORT: f64 = 0.005;

/// Addresses of a head's arrays on the device; 0 for what is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pointers {
    /// Generated samples [B, G, D], negatives [B, N, D], positives [B, P, D].
    pub samples: [u64; 3],
    /// How many elements a group, and a sample, of each is from the next; nothing where there are no gaps.
    pub strides: [Option<[usize; 2]>; 3],
    /// Their weights [B, G], [B, N], [B, P], in f32; 0 where all are 1.
    pub weights: [u64; 3],
    /// Where the force [B, G, D] goes, in f32.
    pub force: u64,
    /// Where the gradient [B, G, D] goes, in f32.
    pub gradient: u64,
    /// Where the loss `[B]` goes, in f32.
    pub loss: u64,
}

/// What the kernels of a plan are launched with.
#[derive(Clone, Debug)]
pub struct Call {
    pub(super) params: DriftCall,
    /// With several heads: what must lie at `table` in the workspace before a launch.
    pub(super) table: Vec<DriftHead>,
}

impl Call {
    /// Several heads: what must lie in the workspace at [`Plan::table_offset`] before the first launch. Empty for one.
    pub fn table(&self) -> &[u8] {
        // SAFETY: `DriftHead` is `repr(C)`, of four-byte numbers and then of eight-byte ones and addresses, without
        // padding (asserted below): every byte of it is a value.
        unsafe { std::slice::from_raw_parts(self.table.as_ptr().cast(), size_of_val(self.table.as_slice())) }
    }
}

// The four-byte fields end where the others begin, and nothing follows these.
const _: () = assert!(
    std::mem::offset_of!(DriftHead, first) + size_of::<[u32; LAUNCHES]>() == std::mem::offset_of!(DriftHead, samples)
        && std::mem::offset_of!(DriftHead, loss) + size_of::<*mut f32>() == size_of::<DriftHead>()
);

/// A kernel as kernels/params.h has it.
pub(super) fn kernel_kind(kernel: Kernel) -> params::KernelKind {
    match kernel {
        Kernel::Laplace => params::KernelKind_kLaplace,
        Kernel::Gaussian => params::KernelKind_kGaussian,
        Kernel::Matern32 => params::KernelKind_kMatern32,
        Kernel::Matern52 => params::KernelKind_kMatern52,
        Kernel::Matern72 => params::KernelKind_kMatern72,
        Kernel::Matern92 => params::KernelKind_kMatern92,
        Kernel::Plummer => params::KernelKind_kPlummer,
    }
}

impl Plan {
    /// Where the table of several heads goes in the workspace, bytes.
    pub fn table_offset(&self) -> usize {
        self.table
    }

    /// What the kernels are launched with, for arrays at these addresses, one entry a head, and a workspace that begins
    /// at `workspace`.
    pub fn call(&self, heads: &[Pointers], workspace: u64) -> Call {
        let table: Vec<DriftHead> =
            self.heads.iter().zip(heads).enumerate().map(|(at, (head, p))| filled(at, head, p, workspace)).collect();
        let mut params = self.params();
        params.heads = table.len() as i32;
        if let [head] = table[..] {
            params.head = head;
            return Call { params, table: Vec::new() };
        }
        params.table = (workspace + self.table as u64) as *const _;
        Call { params, table }
    }

    fn params(&self) -> DriftCall {
        let spec = &self.spec;
        let mut rate = [0.0; crate::MAX_TEMPERATURES];
        for (to, &r) in rate.iter_mut().zip(&spec.temperatures) {
            *to = spec.kernel.rate(r) as f32;
        }
        let (mask, mask_value) = match spec.self_mask {
            SelfMask::Add(value) => (params::MaskKind_kMaskAdd, value),
            SelfMask::Set(value) => (params::MaskKind_kMaskSet, value),
            SelfMask::Remove => (params::MaskKind_kMaskRemove, 0.0),
            SelfMask::Keep => (params::MaskKind_kMaskKeep, 0.0),
        };
        let (floor_kind, affinity_floor) = match spec.affinity_floor {
            AffinityFloor::Product(floor) => (params::FloorKind_kFloorProduct, floor.sqrt()),
            AffinityFloor::Normalizer(floor) => (params::FloorKind_kFloorNormalizer, floor.ln() / 2.0),
            AffinityFloor::None => (params::FloorKind_kFloorNone, 0.0),
        };
        let (normalize, norm_floor) = match spec.force_norm {
            ForceNorm::Rms(floor) => (1, floor),
            ForceNorm::None => (0, 0.0),
        };
        // By the identity they are halves in TF32 too.
        let halves = self.tensor_cores();
        DriftCall {
            temperatures: spec.temperatures.len() as i32,
            kernel: kernel_kind(spec.kernel),
            polynomial: spec.kernel.polynomial(),
            scale_kind: match spec.feature_scale {
                FeatureScale::Official => params::ScaleKind_kScaleOfficial,
                FeatureScale::Paper => params::ScaleKind_kScalePaper,
                FeatureScale::Raw => params::ScaleKind_kScaleRaw,
            },
            mask,
            coupling: match spec.coupling {
                Coupling::RowColumn => params::CouplingKind_kRowColumn,
                Coupling::Row => params::CouplingKind_kRowOnly,
                Coupling::Sinkhorn(_) => params::CouplingKind_kSinkhorn,
            },
            floor_kind,
            weights: match spec.weights {
                WeightRule::Affinity => params::WeightKind_kWeightAffinity,
                WeightRule::Logit => params::WeightKind_kWeightLogit,
                WeightRule::Ignored => params::WeightKind_kWeightIgnored,
            },
            coupled: spec.rows_of_mass_one().into(),
            split: (spec.form == Form::Split).into(),
            iterations: spec.sinkhorn().map_or(0, |plan| plan.iterations as i32),
            iteration: 0,
            tolerance: spec.sinkhorn().map_or(0.0, |plan| plan.tolerance as f32),
            field: params::FieldKind_kNoField,
            side: params::FieldSide_kDifference,
            leave_out: 0,
            normalize,
            constant_self: spec.numerics.constant_self_distance.into(),
            fused: self.fused.into(),
            slots: self.slots as i32,
            identity_slots: self.identity_slots as i32,
            mask_value: mask_value.min(f32::MAX.into()) as f32,
            min_squared: spec.min_squared_distance as f32,
            affinity_floor: affinity_floor as f32,
            near: if spec.numerics.near_pairs > 0.0 { spec.numerics.near_pairs.max(NEAR) as f32 } else { 0.0 },
            norm_floor,
            rate,
            official: (spec.kernel == Kernel::Laplace
                && !spec.rows_of_mass_one()
                && spec.coupling == Coupling::RowColumn
                && matches!(spec.affinity_floor, AffinityFloor::Product(_))
                && spec.weights != WeightRule::Logit
                && spec.self_mask != SelfMask::Remove
                && (!halves || spec.temperatures.iter().all(|r| *r >= LEAST_SHORT)))
            .into(),
            rate2: std::array::from_fn(|k| {
                spec.temperatures.get(k).map_or(0.0, |r| (std::f64::consts::LOG2_E / r) as f32)
            }),
            ..DriftCall::default()
        }
    }
}

fn filled(at: usize, head: &Head, pointers: &Pointers, workspace: u64) -> DriftHead {
    let (shape, layout) = (head.shape, &head.layout);
    let int = |extent: usize| extent as i32; // the plan has compared them
    let array = |offset: usize| if offset == usize::MAX { 0 } else { workspace + offset as u64 };
    let counts = [shape.generated, shape.negatives, shape.positives];
    let samples = std::array::from_fn(|kind| {
        let [group, sample] = pointers.strides[kind].unwrap_or([counts[kind] * shape.dim, shape.dim]);
        params::Samples { data: pointers.samples[kind] as *const _, group: group as i64, sample: sample as i64 }
    });
    DriftHead {
        groups: int(shape.groups),
        generated: int(shape.generated),
        negatives: int(shape.negatives),
        positives: int(shape.positives),
        targets: int(shape.targets()),
        dim: int(shape.dim),
        repelling: int(shape.generated + shape.negatives),
        columns: int(head.columns),
        slices: int(head.slices),
        slice: int(head.slice),
        width: int(head.width),
        ranges: int(head.ranges),
        range: int(head.range),
        records: int(head.records),
        first: head.first,
        samples,
        sample_weights: pointers.weights.map(|at| at as *const _),
        among: array(layout.among) as *mut _,
        distances: array(layout.distances) as *mut _,
        partial: array(layout.partial) as *mut _,
        row_least: array(layout.row_least) as *mut _,
        column_least: array(layout.column_least) as *mut _,
        row_log: array(layout.row_log) as *mut _,
        column_log: array(layout.column_log) as *mut _,
        mass: array(layout.mass) as *mut _,
        row_change: array(layout.row_change) as *mut _,
        plans: array(layout.plans) as *mut _,
        plan_weights: array(layout.plan_weights) as *mut _,
        distance_sums: array(layout.distance_sums) as *mut _,
        norm_sums: array(layout.norm_sums) as *mut _,
        row_sums: array(layout.row_sums) as *mut _,
        loss_sums: array(layout.loss_sums) as *mut _,
        scalars: (workspace + (at * size_of::<DriftScalars>()) as u64) as *mut _,
        bandwidths: std::ptr::null(),
        numbers: std::ptr::null_mut(),
        force: pointers.force as *mut _,
        gradient: pointers.gradient as *mut _,
        loss: pointers.loss as *mut _,
    }
}
