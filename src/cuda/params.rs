// kernels/params.h, by `cargo xtask bindings`. Not written by hand.
#![allow(dead_code, non_camel_case_types, non_snake_case, non_upper_case_globals)]
pub const kMaxTemperatures: ::core::ffi::c_int = 8;
pub const kRowSums: ::core::ffi::c_int = 4;
pub const kDistanceSums: ::core::ffi::c_int = 4;
pub const kThreads: ::core::ffi::c_int = 256;
pub const kTile: ::core::ffi::c_int = 64;
pub const kMaxColumns: ::core::ffi::c_int = 224;
pub const kMaxAllPairs: ::core::ffi::c_int = 160;
pub const kStageRow: ::core::ffi::c_int = 128;
pub const kStages: ::core::ffi::c_int = 2;
pub const kMaxSlots: ::core::ffi::c_int = 3;
pub const kFewSlots: ::core::ffi::c_int = 2;
pub const kRange: ::core::ffi::c_int = 128;
pub const kCoefficientPad: ::core::ffi::c_int = 16;
pub const kTilePad: ::core::ffi::c_int = 8;
pub const kPowers: ::core::ffi::c_int = 5;
pub const KernelKind_kLaplace: KernelKind = 0;
pub const KernelKind_kGaussian: KernelKind = 1;
pub const KernelKind_kMatern32: KernelKind = 2;
pub const KernelKind_kMatern52: KernelKind = 3;
pub const KernelKind_kMatern72: KernelKind = 4;
pub const KernelKind_kMatern92: KernelKind = 5;
pub const KernelKind_kPlummer: KernelKind = 6;
pub type KernelKind = ::core::ffi::c_uint;
pub const ScaleKind_kScaleOfficial: ScaleKind = 0;
pub const ScaleKind_kScalePaper: ScaleKind = 1;
pub const ScaleKind_kScaleRaw: ScaleKind = 2;
pub type ScaleKind = ::core::ffi::c_uint;
pub const MaskKind_kMaskAdd: MaskKind = 0;
pub const MaskKind_kMaskSet: MaskKind = 1;
pub const MaskKind_kMaskRemove: MaskKind = 2;
pub const MaskKind_kMaskKeep: MaskKind = 3;
pub type MaskKind = ::core::ffi::c_uint;
pub const FloorKind_kFloorProduct: FloorKind = 0;
pub const FloorKind_kFloorNormalizer: FloorKind = 1;
pub const FloorKind_kFloorNone: FloorKind = 2;
pub type FloorKind = ::core::ffi::c_uint;
pub const CouplingKind_kRowColumn: CouplingKind = 0;
pub const CouplingKind_kRowOnly: CouplingKind = 1;
pub const CouplingKind_kSinkhorn: CouplingKind = 2;
pub type CouplingKind = ::core::ffi::c_uint;
pub const WeightKind_kWeightAffinity: WeightKind = 0;
pub const WeightKind_kWeightLogit: WeightKind = 1;
pub const WeightKind_kWeightIgnored: WeightKind = 2;
pub type WeightKind = ::core::ffi::c_uint;
pub const FieldKind_kNoField: FieldKind = 0;
pub const FieldKind_kShift: FieldKind = 1;
pub const FieldKind_kScore: FieldKind = 2;
pub type FieldKind = ::core::ffi::c_uint;
pub const FieldSide_kDifference: FieldSide = 0;
pub const FieldSide_kTowardsP: FieldSide = 1;
pub const FieldSide_kTowardsQ: FieldSide = 2;
pub type FieldSide = ::core::ffi::c_uint;
pub const Launch_kDistances: Launch = 0;
pub const Launch_kJoin: Launch = 1;
pub const Launch_kRows: Launch = 2;
pub const Launch_kColumns: Launch = 3;
pub const Launch_kNorms: Launch = 4;
pub const Launch_kForce: Launch = 5;
pub const Launch_kLosses: Launch = 6;
pub const Launch_kPlans: Launch = 7;
pub const Launch_kLaunches: Launch = 8;
pub type Launch = ::core::ffi::c_uint;
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct DriftScalars {
    pub weighted: f64,
    pub weights: f64,
    pub all_weights: f64,
    pub nonfinite: f64,
    pub groups: f64,
    pub squares: [f64; 8usize],
    pub rows: [[f64; 4usize]; 8usize],
    pub mean: f64,
    pub scale: f64,
    pub sigma: f64,
    pub distance: f64,
    pub inverse: f64,
    pub f2: [f64; 8usize],
    pub theta: [f64; 8usize],
    pub iterations: [f64; 8usize],
    pub error: [f64; 8usize],
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of DriftScalars"][::core::mem::size_of::<DriftScalars>() - 656usize];
    ["Alignment of DriftScalars"][::core::mem::align_of::<DriftScalars>() - 8usize];
    ["Offset of field: DriftScalars::weighted"][::core::mem::offset_of!(DriftScalars, weighted) - 0usize];
    ["Offset of field: DriftScalars::weights"][::core::mem::offset_of!(DriftScalars, weights) - 8usize];
    ["Offset of field: DriftScalars::all_weights"][::core::mem::offset_of!(DriftScalars, all_weights) - 16usize];
    ["Offset of field: DriftScalars::nonfinite"][::core::mem::offset_of!(DriftScalars, nonfinite) - 24usize];
    ["Offset of field: DriftScalars::groups"][::core::mem::offset_of!(DriftScalars, groups) - 32usize];
    ["Offset of field: DriftScalars::squares"][::core::mem::offset_of!(DriftScalars, squares) - 40usize];
    ["Offset of field: DriftScalars::rows"][::core::mem::offset_of!(DriftScalars, rows) - 104usize];
    ["Offset of field: DriftScalars::mean"][::core::mem::offset_of!(DriftScalars, mean) - 360usize];
    ["Offset of field: DriftScalars::scale"][::core::mem::offset_of!(DriftScalars, scale) - 368usize];
    ["Offset of field: DriftScalars::sigma"][::core::mem::offset_of!(DriftScalars, sigma) - 376usize];
    ["Offset of field: DriftScalars::distance"][::core::mem::offset_of!(DriftScalars, distance) - 384usize];
    ["Offset of field: DriftScalars::inverse"][::core::mem::offset_of!(DriftScalars, inverse) - 392usize];
    ["Offset of field: DriftScalars::f2"][::core::mem::offset_of!(DriftScalars, f2) - 400usize];
    ["Offset of field: DriftScalars::theta"][::core::mem::offset_of!(DriftScalars, theta) - 464usize];
    ["Offset of field: DriftScalars::iterations"][::core::mem::offset_of!(DriftScalars, iterations) - 528usize];
    ["Offset of field: DriftScalars::error"][::core::mem::offset_of!(DriftScalars, error) - 592usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct PlanState {
    pub iterations: ::core::ffi::c_int,
    pub error: f32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of PlanState"][::core::mem::size_of::<PlanState>() - 8usize];
    ["Alignment of PlanState"][::core::mem::align_of::<PlanState>() - 4usize];
    ["Offset of field: PlanState::iterations"][::core::mem::offset_of!(PlanState, iterations) - 0usize];
    ["Offset of field: PlanState::error"][::core::mem::offset_of!(PlanState, error) - 4usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct Samples {
    pub data: *const ::core::ffi::c_void,
    pub group: ::core::ffi::c_longlong,
    pub sample: ::core::ffi::c_longlong,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of Samples"][::core::mem::size_of::<Samples>() - 24usize];
    ["Alignment of Samples"][::core::mem::align_of::<Samples>() - 8usize];
    ["Offset of field: Samples::data"][::core::mem::offset_of!(Samples, data) - 0usize];
    ["Offset of field: Samples::group"][::core::mem::offset_of!(Samples, group) - 8usize];
    ["Offset of field: Samples::sample"][::core::mem::offset_of!(Samples, sample) - 16usize];
};
impl Default for Samples {
    fn default() -> Self {
        let mut s = ::core::mem::MaybeUninit::<Self>::uninit();
        // SAFETY: all bytes zero are a value: numbers, enumerators and null pointers.
        unsafe {
            ::core::ptr::write_bytes(s.as_mut_ptr(), 0, 1);
            s.assume_init()
        }
    }
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct DriftHead {
    pub groups: ::core::ffi::c_int,
    pub generated: ::core::ffi::c_int,
    pub negatives: ::core::ffi::c_int,
    pub positives: ::core::ffi::c_int,
    pub targets: ::core::ffi::c_int,
    pub dim: ::core::ffi::c_int,
    pub repelling: ::core::ffi::c_int,
    pub columns: ::core::ffi::c_int,
    pub slices: ::core::ffi::c_int,
    pub slice: ::core::ffi::c_int,
    pub width: ::core::ffi::c_int,
    pub ranges: ::core::ffi::c_int,
    pub range: ::core::ffi::c_int,
    pub records: ::core::ffi::c_int,
    pub first: [::core::ffi::c_uint; 8usize],
    pub samples: [Samples; 3usize],
    pub sample_weights: [*const f32; 3usize],
    pub among: *mut f32,
    pub distances: *mut f32,
    pub partial: *mut f32,
    pub row_least: *mut f32,
    pub column_least: *mut f32,
    pub row_log: *mut f32,
    pub column_log: *mut f32,
    pub mass: *mut f32,
    pub row_change: *mut f32,
    pub plans: *mut PlanState,
    pub plan_weights: *mut f64,
    pub bandwidths: *const f32,
    pub numbers: *mut f32,
    pub distance_sums: *mut f64,
    pub norm_sums: *mut f64,
    pub row_sums: *mut f64,
    pub loss_sums: *mut f64,
    pub scalars: *mut DriftScalars,
    pub force: *mut f32,
    pub gradient: *mut f32,
    pub loss: *mut f32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of DriftHead"][::core::mem::size_of::<DriftHead>() - 352usize];
    ["Alignment of DriftHead"][::core::mem::align_of::<DriftHead>() - 8usize];
    ["Offset of field: DriftHead::groups"][::core::mem::offset_of!(DriftHead, groups) - 0usize];
    ["Offset of field: DriftHead::generated"][::core::mem::offset_of!(DriftHead, generated) - 4usize];
    ["Offset of field: DriftHead::negatives"][::core::mem::offset_of!(DriftHead, negatives) - 8usize];
    ["Offset of field: DriftHead::positives"][::core::mem::offset_of!(DriftHead, positives) - 12usize];
    ["Offset of field: DriftHead::targets"][::core::mem::offset_of!(DriftHead, targets) - 16usize];
    ["Offset of field: DriftHead::dim"][::core::mem::offset_of!(DriftHead, dim) - 20usize];
    ["Offset of field: DriftHead::repelling"][::core::mem::offset_of!(DriftHead, repelling) - 24usize];
    ["Offset of field: DriftHead::columns"][::core::mem::offset_of!(DriftHead, columns) - 28usize];
    ["Offset of field: DriftHead::slices"][::core::mem::offset_of!(DriftHead, slices) - 32usize];
    ["Offset of field: DriftHead::slice"][::core::mem::offset_of!(DriftHead, slice) - 36usize];
    ["Offset of field: DriftHead::width"][::core::mem::offset_of!(DriftHead, width) - 40usize];
    ["Offset of field: DriftHead::ranges"][::core::mem::offset_of!(DriftHead, ranges) - 44usize];
    ["Offset of field: DriftHead::range"][::core::mem::offset_of!(DriftHead, range) - 48usize];
    ["Offset of field: DriftHead::records"][::core::mem::offset_of!(DriftHead, records) - 52usize];
    ["Offset of field: DriftHead::first"][::core::mem::offset_of!(DriftHead, first) - 56usize];
    ["Offset of field: DriftHead::samples"][::core::mem::offset_of!(DriftHead, samples) - 88usize];
    ["Offset of field: DriftHead::sample_weights"][::core::mem::offset_of!(DriftHead, sample_weights) - 160usize];
    ["Offset of field: DriftHead::among"][::core::mem::offset_of!(DriftHead, among) - 184usize];
    ["Offset of field: DriftHead::distances"][::core::mem::offset_of!(DriftHead, distances) - 192usize];
    ["Offset of field: DriftHead::partial"][::core::mem::offset_of!(DriftHead, partial) - 200usize];
    ["Offset of field: DriftHead::row_least"][::core::mem::offset_of!(DriftHead, row_least) - 208usize];
    ["Offset of field: DriftHead::column_least"][::core::mem::offset_of!(DriftHead, column_least) - 216usize];
    ["Offset of field: DriftHead::row_log"][::core::mem::offset_of!(DriftHead, row_log) - 224usize];
    ["Offset of field: DriftHead::column_log"][::core::mem::offset_of!(DriftHead, column_log) - 232usize];
    ["Offset of field: DriftHead::mass"][::core::mem::offset_of!(DriftHead, mass) - 240usize];
    ["Offset of field: DriftHead::row_change"][::core::mem::offset_of!(DriftHead, row_change) - 248usize];
    ["Offset of field: DriftHead::plans"][::core::mem::offset_of!(DriftHead, plans) - 256usize];
    ["Offset of field: DriftHead::plan_weights"][::core::mem::offset_of!(DriftHead, plan_weights) - 264usize];
    ["Offset of field: DriftHead::bandwidths"][::core::mem::offset_of!(DriftHead, bandwidths) - 272usize];
    ["Offset of field: DriftHead::numbers"][::core::mem::offset_of!(DriftHead, numbers) - 280usize];
    ["Offset of field: DriftHead::distance_sums"][::core::mem::offset_of!(DriftHead, distance_sums) - 288usize];
    ["Offset of field: DriftHead::norm_sums"][::core::mem::offset_of!(DriftHead, norm_sums) - 296usize];
    ["Offset of field: DriftHead::row_sums"][::core::mem::offset_of!(DriftHead, row_sums) - 304usize];
    ["Offset of field: DriftHead::loss_sums"][::core::mem::offset_of!(DriftHead, loss_sums) - 312usize];
    ["Offset of field: DriftHead::scalars"][::core::mem::offset_of!(DriftHead, scalars) - 320usize];
    ["Offset of field: DriftHead::force"][::core::mem::offset_of!(DriftHead, force) - 328usize];
    ["Offset of field: DriftHead::gradient"][::core::mem::offset_of!(DriftHead, gradient) - 336usize];
    ["Offset of field: DriftHead::loss"][::core::mem::offset_of!(DriftHead, loss) - 344usize];
};
impl Default for DriftHead {
    fn default() -> Self {
        let mut s = ::core::mem::MaybeUninit::<Self>::uninit();
        // SAFETY: all bytes zero are a value: numbers, enumerators and null pointers.
        unsafe {
            ::core::ptr::write_bytes(s.as_mut_ptr(), 0, 1);
            s.assume_init()
        }
    }
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct DriftCall {
    pub temperatures: ::core::ffi::c_int,
    pub kernel: KernelKind,
    pub scale_kind: ScaleKind,
    pub mask: MaskKind,
    pub coupling: CouplingKind,
    pub floor_kind: FloorKind,
    pub weights: WeightKind,
    pub coupled: ::core::ffi::c_int,
    pub split: ::core::ffi::c_int,
    pub iterations: ::core::ffi::c_int,
    pub iteration: ::core::ffi::c_int,
    pub tolerance: f32,
    pub field: FieldKind,
    pub side: FieldSide,
    pub leave_out: ::core::ffi::c_int,
    pub normalize: ::core::ffi::c_int,
    pub constant_self: ::core::ffi::c_int,
    pub fused: ::core::ffi::c_int,
    pub slots: ::core::ffi::c_int,
    pub identity_slots: ::core::ffi::c_int,
    pub mask_value: f32,
    pub min_squared: f32,
    pub affinity_floor: f32,
    pub near: f32,
    pub norm_floor: f64,
    pub rate: [f32; 8usize],
    pub polynomial: [f32; 5usize],
    pub official: ::core::ffi::c_int,
    pub rate2: [f32; 8usize],
    pub heads: ::core::ffi::c_int,
    pub table: *const DriftHead,
    pub head: DriftHead,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of DriftCall"][::core::mem::size_of::<DriftCall>() - 560usize];
    ["Alignment of DriftCall"][::core::mem::align_of::<DriftCall>() - 8usize];
    ["Offset of field: DriftCall::temperatures"][::core::mem::offset_of!(DriftCall, temperatures) - 0usize];
    ["Offset of field: DriftCall::kernel"][::core::mem::offset_of!(DriftCall, kernel) - 4usize];
    ["Offset of field: DriftCall::scale_kind"][::core::mem::offset_of!(DriftCall, scale_kind) - 8usize];
    ["Offset of field: DriftCall::mask"][::core::mem::offset_of!(DriftCall, mask) - 12usize];
    ["Offset of field: DriftCall::coupling"][::core::mem::offset_of!(DriftCall, coupling) - 16usize];
    ["Offset of field: DriftCall::floor_kind"][::core::mem::offset_of!(DriftCall, floor_kind) - 20usize];
    ["Offset of field: DriftCall::weights"][::core::mem::offset_of!(DriftCall, weights) - 24usize];
    ["Offset of field: DriftCall::coupled"][::core::mem::offset_of!(DriftCall, coupled) - 28usize];
    ["Offset of field: DriftCall::split"][::core::mem::offset_of!(DriftCall, split) - 32usize];
    ["Offset of field: DriftCall::iterations"][::core::mem::offset_of!(DriftCall, iterations) - 36usize];
    ["Offset of field: DriftCall::iteration"][::core::mem::offset_of!(DriftCall, iteration) - 40usize];
    ["Offset of field: DriftCall::tolerance"][::core::mem::offset_of!(DriftCall, tolerance) - 44usize];
    ["Offset of field: DriftCall::field"][::core::mem::offset_of!(DriftCall, field) - 48usize];
    ["Offset of field: DriftCall::side"][::core::mem::offset_of!(DriftCall, side) - 52usize];
    ["Offset of field: DriftCall::leave_out"][::core::mem::offset_of!(DriftCall, leave_out) - 56usize];
    ["Offset of field: DriftCall::normalize"][::core::mem::offset_of!(DriftCall, normalize) - 60usize];
    ["Offset of field: DriftCall::constant_self"][::core::mem::offset_of!(DriftCall, constant_self) - 64usize];
    ["Offset of field: DriftCall::fused"][::core::mem::offset_of!(DriftCall, fused) - 68usize];
    ["Offset of field: DriftCall::slots"][::core::mem::offset_of!(DriftCall, slots) - 72usize];
    ["Offset of field: DriftCall::identity_slots"][::core::mem::offset_of!(DriftCall, identity_slots) - 76usize];
    ["Offset of field: DriftCall::mask_value"][::core::mem::offset_of!(DriftCall, mask_value) - 80usize];
    ["Offset of field: DriftCall::min_squared"][::core::mem::offset_of!(DriftCall, min_squared) - 84usize];
    ["Offset of field: DriftCall::affinity_floor"][::core::mem::offset_of!(DriftCall, affinity_floor) - 88usize];
    ["Offset of field: DriftCall::near"][::core::mem::offset_of!(DriftCall, near) - 92usize];
    ["Offset of field: DriftCall::norm_floor"][::core::mem::offset_of!(DriftCall, norm_floor) - 96usize];
    ["Offset of field: DriftCall::rate"][::core::mem::offset_of!(DriftCall, rate) - 104usize];
    ["Offset of field: DriftCall::polynomial"][::core::mem::offset_of!(DriftCall, polynomial) - 136usize];
    ["Offset of field: DriftCall::official"][::core::mem::offset_of!(DriftCall, official) - 156usize];
    ["Offset of field: DriftCall::rate2"][::core::mem::offset_of!(DriftCall, rate2) - 160usize];
    ["Offset of field: DriftCall::heads"][::core::mem::offset_of!(DriftCall, heads) - 192usize];
    ["Offset of field: DriftCall::table"][::core::mem::offset_of!(DriftCall, table) - 200usize];
    ["Offset of field: DriftCall::head"][::core::mem::offset_of!(DriftCall, head) - 208usize];
};
impl Default for DriftCall {
    fn default() -> Self {
        let mut s = ::core::mem::MaybeUninit::<Self>::uninit();
        // SAFETY: all bytes zero are a value: numbers, enumerators and null pointers.
        unsafe {
            ::core::ptr::write_bytes(s.as_mut_ptr(), 0, 1);
            s.assume_init()
        }
    }
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct SlicedCall {
    pub queries: ::core::ffi::c_int,
    pub references: ::core::ffi::c_int,
    pub directions: ::core::ffi::c_int,
    pub dim: ::core::ffi::c_int,
    pub x: *const ::core::ffi::c_void,
    pub p: *const ::core::ffi::c_void,
    pub thetas: *const f32,
    pub center: *mut f32,
    pub gaps: *mut f32,
    pub keys: *mut ::core::ffi::c_ulonglong,
    pub spare: *mut ::core::ffi::c_ulonglong,
    pub velocity: *mut f32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of SlicedCall"][::core::mem::size_of::<SlicedCall>() - 80usize];
    ["Alignment of SlicedCall"][::core::mem::align_of::<SlicedCall>() - 8usize];
    ["Offset of field: SlicedCall::queries"][::core::mem::offset_of!(SlicedCall, queries) - 0usize];
    ["Offset of field: SlicedCall::references"][::core::mem::offset_of!(SlicedCall, references) - 4usize];
    ["Offset of field: SlicedCall::directions"][::core::mem::offset_of!(SlicedCall, directions) - 8usize];
    ["Offset of field: SlicedCall::dim"][::core::mem::offset_of!(SlicedCall, dim) - 12usize];
    ["Offset of field: SlicedCall::x"][::core::mem::offset_of!(SlicedCall, x) - 16usize];
    ["Offset of field: SlicedCall::p"][::core::mem::offset_of!(SlicedCall, p) - 24usize];
    ["Offset of field: SlicedCall::thetas"][::core::mem::offset_of!(SlicedCall, thetas) - 32usize];
    ["Offset of field: SlicedCall::center"][::core::mem::offset_of!(SlicedCall, center) - 40usize];
    ["Offset of field: SlicedCall::gaps"][::core::mem::offset_of!(SlicedCall, gaps) - 48usize];
    ["Offset of field: SlicedCall::keys"][::core::mem::offset_of!(SlicedCall, keys) - 56usize];
    ["Offset of field: SlicedCall::spare"][::core::mem::offset_of!(SlicedCall, spare) - 64usize];
    ["Offset of field: SlicedCall::velocity"][::core::mem::offset_of!(SlicedCall, velocity) - 72usize];
};
impl Default for SlicedCall {
    fn default() -> Self {
        let mut s = ::core::mem::MaybeUninit::<Self>::uninit();
        // SAFETY: all bytes zero are a value: numbers, enumerators and null pointers.
        unsafe {
            ::core::ptr::write_bytes(s.as_mut_ptr(), 0, 1);
            s.assume_init()
        }
    }
}
pub const kProjectedSide: ::core::ffi::c_int = 32;
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct ProjectedCall {
    pub queries: ::core::ffi::c_int,
    pub landmarks: ::core::ffi::c_int,
    pub dim: ::core::ffi::c_int,
    pub kernel: KernelKind,
    pub rate: f32,
    pub least: f32,
    pub polynomial: [f32; 5usize],
    pub x: *const f32,
    pub points: *const f32,
    pub folded: *const f32,
    pub mean: *const f32,
    pub result: *mut f32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of ProjectedCall"][::core::mem::size_of::<ProjectedCall>() - 88usize];
    ["Alignment of ProjectedCall"][::core::mem::align_of::<ProjectedCall>() - 8usize];
    ["Offset of field: ProjectedCall::queries"][::core::mem::offset_of!(ProjectedCall, queries) - 0usize];
    ["Offset of field: ProjectedCall::landmarks"][::core::mem::offset_of!(ProjectedCall, landmarks) - 4usize];
    ["Offset of field: ProjectedCall::dim"][::core::mem::offset_of!(ProjectedCall, dim) - 8usize];
    ["Offset of field: ProjectedCall::kernel"][::core::mem::offset_of!(ProjectedCall, kernel) - 12usize];
    ["Offset of field: ProjectedCall::rate"][::core::mem::offset_of!(ProjectedCall, rate) - 16usize];
    ["Offset of field: ProjectedCall::least"][::core::mem::offset_of!(ProjectedCall, least) - 20usize];
    ["Offset of field: ProjectedCall::polynomial"][::core::mem::offset_of!(ProjectedCall, polynomial) - 24usize];
    ["Offset of field: ProjectedCall::x"][::core::mem::offset_of!(ProjectedCall, x) - 48usize];
    ["Offset of field: ProjectedCall::points"][::core::mem::offset_of!(ProjectedCall, points) - 56usize];
    ["Offset of field: ProjectedCall::folded"][::core::mem::offset_of!(ProjectedCall, folded) - 64usize];
    ["Offset of field: ProjectedCall::mean"][::core::mem::offset_of!(ProjectedCall, mean) - 72usize];
    ["Offset of field: ProjectedCall::result"][::core::mem::offset_of!(ProjectedCall, result) - 80usize];
};
impl Default for ProjectedCall {
    fn default() -> Self {
        let mut s = ::core::mem::MaybeUninit::<Self>::uninit();
        // SAFETY: all bytes zero are a value: numbers, enumerators and null pointers.
        unsafe {
            ::core::ptr::write_bytes(s.as_mut_ptr(), 0, 1);
            s.assume_init()
        }
    }
}
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct TrainProgress {
    pub step: ::core::ffi::c_ulonglong,
    pub diverged: ::core::ffi::c_ulonglong,
    pub coming_loss: f64,
    pub loss: f64,
    pub loss_ema: f64,
    pub scale: f64,
    pub grad_norm: f64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of TrainProgress"][::core::mem::size_of::<TrainProgress>() - 56usize];
    ["Alignment of TrainProgress"][::core::mem::align_of::<TrainProgress>() - 8usize];
    ["Offset of field: TrainProgress::step"][::core::mem::offset_of!(TrainProgress, step) - 0usize];
    ["Offset of field: TrainProgress::diverged"][::core::mem::offset_of!(TrainProgress, diverged) - 8usize];
    ["Offset of field: TrainProgress::coming_loss"][::core::mem::offset_of!(TrainProgress, coming_loss) - 16usize];
    ["Offset of field: TrainProgress::loss"][::core::mem::offset_of!(TrainProgress, loss) - 24usize];
    ["Offset of field: TrainProgress::loss_ema"][::core::mem::offset_of!(TrainProgress, loss_ema) - 32usize];
    ["Offset of field: TrainProgress::scale"][::core::mem::offset_of!(TrainProgress, scale) - 40usize];
    ["Offset of field: TrainProgress::grad_norm"][::core::mem::offset_of!(TrainProgress, grad_norm) - 48usize];
};
pub const VelocityKind_kOneProduct: VelocityKind = 0;
pub const VelocityKind_kSharp: VelocityKind = 1;
pub const VelocityKind_kMmd: VelocityKind = 2;
pub const VelocityKind_kForwardKl: VelocityKind = 3;
pub const VelocityKind_kChiSquared: VelocityKind = 4;
pub type VelocityKind = ::core::ffi::c_uint;
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct TransportCall {
    pub count: ::core::ffi::c_longlong,
    pub generated: ::core::ffi::c_int,
    pub dim: ::core::ffi::c_int,
    pub velocity: VelocityKind,
    pub most: f32,
    pub log_total_p: f32,
    pub log_total_q: f32,
    pub normalize: ::core::ffi::c_int,
    pub first: ::core::ffi::c_int,
    pub step: f64,
    pub norm_floor: f64,
    pub towards_p: *const f32,
    pub towards_q: *const f32,
    pub numbers: *const f32,
    pub gradient: *mut f32,
    pub squares: *mut f64,
    pub progress: *mut TrainProgress,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of TransportCall"][::core::mem::size_of::<TransportCall>() - 104usize];
    ["Alignment of TransportCall"][::core::mem::align_of::<TransportCall>() - 8usize];
    ["Offset of field: TransportCall::count"][::core::mem::offset_of!(TransportCall, count) - 0usize];
    ["Offset of field: TransportCall::generated"][::core::mem::offset_of!(TransportCall, generated) - 8usize];
    ["Offset of field: TransportCall::dim"][::core::mem::offset_of!(TransportCall, dim) - 12usize];
    ["Offset of field: TransportCall::velocity"][::core::mem::offset_of!(TransportCall, velocity) - 16usize];
    ["Offset of field: TransportCall::most"][::core::mem::offset_of!(TransportCall, most) - 20usize];
    ["Offset of field: TransportCall::log_total_p"][::core::mem::offset_of!(TransportCall, log_total_p) - 24usize];
    ["Offset of field: TransportCall::log_total_q"][::core::mem::offset_of!(TransportCall, log_total_q) - 28usize];
    ["Offset of field: TransportCall::normalize"][::core::mem::offset_of!(TransportCall, normalize) - 32usize];
    ["Offset of field: TransportCall::first"][::core::mem::offset_of!(TransportCall, first) - 36usize];
    ["Offset of field: TransportCall::step"][::core::mem::offset_of!(TransportCall, step) - 40usize];
    ["Offset of field: TransportCall::norm_floor"][::core::mem::offset_of!(TransportCall, norm_floor) - 48usize];
    ["Offset of field: TransportCall::towards_p"][::core::mem::offset_of!(TransportCall, towards_p) - 56usize];
    ["Offset of field: TransportCall::towards_q"][::core::mem::offset_of!(TransportCall, towards_q) - 64usize];
    ["Offset of field: TransportCall::numbers"][::core::mem::offset_of!(TransportCall, numbers) - 72usize];
    ["Offset of field: TransportCall::gradient"][::core::mem::offset_of!(TransportCall, gradient) - 80usize];
    ["Offset of field: TransportCall::squares"][::core::mem::offset_of!(TransportCall, squares) - 88usize];
    ["Offset of field: TransportCall::progress"][::core::mem::offset_of!(TransportCall, progress) - 96usize];
};
impl Default for TransportCall {
    fn default() -> Self {
        let mut s = ::core::mem::MaybeUninit::<Self>::uninit();
        // SAFETY: all bytes zero are a value: numbers, enumerators and null pointers.
        unsafe {
            ::core::ptr::write_bytes(s.as_mut_ptr(), 0, 1);
            s.assume_init()
        }
    }
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct AheadCall {
    pub count: ::core::ffi::c_longlong,
    pub blocks: ::core::ffi::c_int,
    pub first: ::core::ffi::c_int,
    pub more: ::core::ffi::c_int,
    pub weight: f64,
    pub step: f64,
    pub root: f64,
    pub x: *const f32,
    pub term: *const f32,
    pub moved: *mut f32,
    pub total: *mut f32,
    pub squares: *mut f64,
    pub state: *mut f64,
    pub progress: *mut TrainProgress,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of AheadCall"][::core::mem::size_of::<AheadCall>() - 104usize];
    ["Alignment of AheadCall"][::core::mem::align_of::<AheadCall>() - 8usize];
    ["Offset of field: AheadCall::count"][::core::mem::offset_of!(AheadCall, count) - 0usize];
    ["Offset of field: AheadCall::blocks"][::core::mem::offset_of!(AheadCall, blocks) - 8usize];
    ["Offset of field: AheadCall::first"][::core::mem::offset_of!(AheadCall, first) - 12usize];
    ["Offset of field: AheadCall::more"][::core::mem::offset_of!(AheadCall, more) - 16usize];
    ["Offset of field: AheadCall::weight"][::core::mem::offset_of!(AheadCall, weight) - 24usize];
    ["Offset of field: AheadCall::step"][::core::mem::offset_of!(AheadCall, step) - 32usize];
    ["Offset of field: AheadCall::root"][::core::mem::offset_of!(AheadCall, root) - 40usize];
    ["Offset of field: AheadCall::x"][::core::mem::offset_of!(AheadCall, x) - 48usize];
    ["Offset of field: AheadCall::term"][::core::mem::offset_of!(AheadCall, term) - 56usize];
    ["Offset of field: AheadCall::moved"][::core::mem::offset_of!(AheadCall, moved) - 64usize];
    ["Offset of field: AheadCall::total"][::core::mem::offset_of!(AheadCall, total) - 72usize];
    ["Offset of field: AheadCall::squares"][::core::mem::offset_of!(AheadCall, squares) - 80usize];
    ["Offset of field: AheadCall::state"][::core::mem::offset_of!(AheadCall, state) - 88usize];
    ["Offset of field: AheadCall::progress"][::core::mem::offset_of!(AheadCall, progress) - 96usize];
};
impl Default for AheadCall {
    fn default() -> Self {
        let mut s = ::core::mem::MaybeUninit::<Self>::uninit();
        // SAFETY: all bytes zero are a value: numbers, enumerators and null pointers.
        unsafe {
            ::core::ptr::write_bytes(s.as_mut_ptr(), 0, 1);
            s.assume_init()
        }
    }
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct RandomStream {
    pub key: [::core::ffi::c_uint; 2usize],
    pub purpose: ::core::ffi::c_uint,
    pub progress: *const TrainProgress,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of RandomStream"][::core::mem::size_of::<RandomStream>() - 24usize];
    ["Alignment of RandomStream"][::core::mem::align_of::<RandomStream>() - 8usize];
    ["Offset of field: RandomStream::key"][::core::mem::offset_of!(RandomStream, key) - 0usize];
    ["Offset of field: RandomStream::purpose"][::core::mem::offset_of!(RandomStream, purpose) - 8usize];
    ["Offset of field: RandomStream::progress"][::core::mem::offset_of!(RandomStream, progress) - 16usize];
};
impl Default for RandomStream {
    fn default() -> Self {
        let mut s = ::core::mem::MaybeUninit::<Self>::uninit();
        // SAFETY: all bytes zero are a value: numbers, enumerators and null pointers.
        unsafe {
            ::core::ptr::write_bytes(s.as_mut_ptr(), 0, 1);
            s.assume_init()
        }
    }
}
pub const kMaxChoice: ::core::ffi::c_int = 4096;
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct ClassCall {
    pub key: [::core::ffi::c_uint; 2usize],
    pub progress: *const TrainProgress,
    pub count: ::core::ffi::c_longlong,
    pub dim: ::core::ffi::c_int,
    pub classes: ::core::ffi::c_int,
    pub labels: ::core::ffi::c_int,
    pub generated: ::core::ffi::c_int,
    pub positives: ::core::ffi::c_int,
    pub negatives: ::core::ffi::c_int,
    pub loaded: ::core::ffi::c_int,
    pub class_buffer: ::core::ffi::c_int,
    pub buffer: ::core::ffi::c_int,
    pub from: f32,
    pub by: f32,
    pub over: f32,
    pub unguided: f32,
    pub data_labels: *const ::core::ffi::c_uint,
    pub of_class: *mut ::core::ffi::c_uint,
    pub counts: *mut ::core::ffi::c_ulonglong,
    pub step_labels: *mut f32,
    pub guidance: *mut f32,
    pub weights: *mut f32,
    pub chosen_positives: *mut ::core::ffi::c_uint,
    pub chosen_negatives: *mut ::core::ffi::c_uint,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of ClassCall"][::core::mem::size_of::<ClassCall>() - 144usize];
    ["Alignment of ClassCall"][::core::mem::align_of::<ClassCall>() - 8usize];
    ["Offset of field: ClassCall::key"][::core::mem::offset_of!(ClassCall, key) - 0usize];
    ["Offset of field: ClassCall::progress"][::core::mem::offset_of!(ClassCall, progress) - 8usize];
    ["Offset of field: ClassCall::count"][::core::mem::offset_of!(ClassCall, count) - 16usize];
    ["Offset of field: ClassCall::dim"][::core::mem::offset_of!(ClassCall, dim) - 24usize];
    ["Offset of field: ClassCall::classes"][::core::mem::offset_of!(ClassCall, classes) - 28usize];
    ["Offset of field: ClassCall::labels"][::core::mem::offset_of!(ClassCall, labels) - 32usize];
    ["Offset of field: ClassCall::generated"][::core::mem::offset_of!(ClassCall, generated) - 36usize];
    ["Offset of field: ClassCall::positives"][::core::mem::offset_of!(ClassCall, positives) - 40usize];
    ["Offset of field: ClassCall::negatives"][::core::mem::offset_of!(ClassCall, negatives) - 44usize];
    ["Offset of field: ClassCall::loaded"][::core::mem::offset_of!(ClassCall, loaded) - 48usize];
    ["Offset of field: ClassCall::class_buffer"][::core::mem::offset_of!(ClassCall, class_buffer) - 52usize];
    ["Offset of field: ClassCall::buffer"][::core::mem::offset_of!(ClassCall, buffer) - 56usize];
    ["Offset of field: ClassCall::from"][::core::mem::offset_of!(ClassCall, from) - 60usize];
    ["Offset of field: ClassCall::by"][::core::mem::offset_of!(ClassCall, by) - 64usize];
    ["Offset of field: ClassCall::over"][::core::mem::offset_of!(ClassCall, over) - 68usize];
    ["Offset of field: ClassCall::unguided"][::core::mem::offset_of!(ClassCall, unguided) - 72usize];
    ["Offset of field: ClassCall::data_labels"][::core::mem::offset_of!(ClassCall, data_labels) - 80usize];
    ["Offset of field: ClassCall::of_class"][::core::mem::offset_of!(ClassCall, of_class) - 88usize];
    ["Offset of field: ClassCall::counts"][::core::mem::offset_of!(ClassCall, counts) - 96usize];
    ["Offset of field: ClassCall::step_labels"][::core::mem::offset_of!(ClassCall, step_labels) - 104usize];
    ["Offset of field: ClassCall::guidance"][::core::mem::offset_of!(ClassCall, guidance) - 112usize];
    ["Offset of field: ClassCall::weights"][::core::mem::offset_of!(ClassCall, weights) - 120usize];
    ["Offset of field: ClassCall::chosen_positives"][::core::mem::offset_of!(ClassCall, chosen_positives) - 128usize];
    ["Offset of field: ClassCall::chosen_negatives"][::core::mem::offset_of!(ClassCall, chosen_negatives) - 136usize];
};
impl Default for ClassCall {
    fn default() -> Self {
        let mut s = ::core::mem::MaybeUninit::<Self>::uninit();
        // SAFETY: all bytes zero are a value: numbers, enumerators and null pointers.
        unsafe {
            ::core::ptr::write_bytes(s.as_mut_ptr(), 0, 1);
            s.assume_init()
        }
    }
}
pub const ToyKind_kSwissRoll: ToyKind = 0;
pub const ToyKind_kCheckerboard: ToyKind = 1;
pub const ToyKind_kTwoMoons: ToyKind = 2;
pub const ToyKind_kRing: ToyKind = 3;
pub type ToyKind = ::core::ffi::c_uint;
pub const kSumRows: ::core::ffi::c_int = 64;
pub const kJoinVectors: ::core::ffi::c_int = 32;
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct JoinColumns {
    pub vectors: ::core::ffi::c_int,
    pub tiles: ::core::ffi::c_int,
    pub columns: ::core::ffi::c_int,
    pub first: [::core::ffi::c_int; 32usize],
    pub count: [::core::ffi::c_int; 32usize],
    pub to: [::core::ffi::c_longlong; 32usize],
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of JoinColumns"][::core::mem::size_of::<JoinColumns>() - 528usize];
    ["Alignment of JoinColumns"][::core::mem::align_of::<JoinColumns>() - 8usize];
    ["Offset of field: JoinColumns::vectors"][::core::mem::offset_of!(JoinColumns, vectors) - 0usize];
    ["Offset of field: JoinColumns::tiles"][::core::mem::offset_of!(JoinColumns, tiles) - 4usize];
    ["Offset of field: JoinColumns::columns"][::core::mem::offset_of!(JoinColumns, columns) - 8usize];
    ["Offset of field: JoinColumns::first"][::core::mem::offset_of!(JoinColumns, first) - 12usize];
    ["Offset of field: JoinColumns::count"][::core::mem::offset_of!(JoinColumns, count) - 140usize];
    ["Offset of field: JoinColumns::to"][::core::mem::offset_of!(JoinColumns, to) - 272usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct Conditions {
    pub rows: ::core::ffi::c_int,
    pub classes: ::core::ffi::c_int,
    pub labels: *const f32,
    pub guidance: *const f32,
    pub table: *const f32,
    pub vector: *const f32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of Conditions"][::core::mem::size_of::<Conditions>() - 40usize];
    ["Alignment of Conditions"][::core::mem::align_of::<Conditions>() - 8usize];
    ["Offset of field: Conditions::rows"][::core::mem::offset_of!(Conditions, rows) - 0usize];
    ["Offset of field: Conditions::classes"][::core::mem::offset_of!(Conditions, classes) - 4usize];
    ["Offset of field: Conditions::labels"][::core::mem::offset_of!(Conditions, labels) - 8usize];
    ["Offset of field: Conditions::guidance"][::core::mem::offset_of!(Conditions, guidance) - 16usize];
    ["Offset of field: Conditions::table"][::core::mem::offset_of!(Conditions, table) - 24usize];
    ["Offset of field: Conditions::vector"][::core::mem::offset_of!(Conditions, vector) - 32usize];
};
impl Default for Conditions {
    fn default() -> Self {
        let mut s = ::core::mem::MaybeUninit::<Self>::uninit();
        // SAFETY: all bytes zero are a value: numbers, enumerators and null pointers.
        unsafe {
            ::core::ptr::write_bytes(s.as_mut_ptr(), 0, 1);
            s.assume_init()
        }
    }
}
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct PatchExtents {
    pub size: ::core::ffi::c_int,
    pub height: ::core::ffi::c_int,
    pub width: ::core::ffi::c_int,
    pub channels: ::core::ffi::c_int,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of PatchExtents"][::core::mem::size_of::<PatchExtents>() - 16usize];
    ["Alignment of PatchExtents"][::core::mem::align_of::<PatchExtents>() - 4usize];
    ["Offset of field: PatchExtents::size"][::core::mem::offset_of!(PatchExtents, size) - 0usize];
    ["Offset of field: PatchExtents::height"][::core::mem::offset_of!(PatchExtents, height) - 4usize];
    ["Offset of field: PatchExtents::width"][::core::mem::offset_of!(PatchExtents, width) - 8usize];
    ["Offset of field: PatchExtents::channels"][::core::mem::offset_of!(PatchExtents, channels) - 12usize];
};
pub const kSquareBlocks: ::core::ffi::c_int = 512;
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct UpdateCall {
    pub count: ::core::ffi::c_longlong,
    pub blocks: ::core::ffi::c_int,
    pub warmup: ::core::ffi::c_ulonglong,
    pub learning_rate: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub weight_decay: f64,
    pub clip_norm: f64,
    pub first: f32,
    pub second: f32,
    pub rest1: f32,
    pub rest2: f32,
    pub epsilon: f32,
    pub ema_rest: f32,
    pub parameters: *mut f32,
    pub grad: *mut f32,
    pub moment1: *mut f32,
    pub moment2: *mut f32,
    pub ema: *mut f32,
    pub squares: *mut f64,
    pub progress: *mut TrainProgress,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of UpdateCall"][::core::mem::size_of::<UpdateCall>() - 144usize];
    ["Alignment of UpdateCall"][::core::mem::align_of::<UpdateCall>() - 8usize];
    ["Offset of field: UpdateCall::count"][::core::mem::offset_of!(UpdateCall, count) - 0usize];
    ["Offset of field: UpdateCall::blocks"][::core::mem::offset_of!(UpdateCall, blocks) - 8usize];
    ["Offset of field: UpdateCall::warmup"][::core::mem::offset_of!(UpdateCall, warmup) - 16usize];
    ["Offset of field: UpdateCall::learning_rate"][::core::mem::offset_of!(UpdateCall, learning_rate) - 24usize];
    ["Offset of field: UpdateCall::beta1"][::core::mem::offset_of!(UpdateCall, beta1) - 32usize];
    ["Offset of field: UpdateCall::beta2"][::core::mem::offset_of!(UpdateCall, beta2) - 40usize];
    ["Offset of field: UpdateCall::weight_decay"][::core::mem::offset_of!(UpdateCall, weight_decay) - 48usize];
    ["Offset of field: UpdateCall::clip_norm"][::core::mem::offset_of!(UpdateCall, clip_norm) - 56usize];
    ["Offset of field: UpdateCall::first"][::core::mem::offset_of!(UpdateCall, first) - 64usize];
    ["Offset of field: UpdateCall::second"][::core::mem::offset_of!(UpdateCall, second) - 68usize];
    ["Offset of field: UpdateCall::rest1"][::core::mem::offset_of!(UpdateCall, rest1) - 72usize];
    ["Offset of field: UpdateCall::rest2"][::core::mem::offset_of!(UpdateCall, rest2) - 76usize];
    ["Offset of field: UpdateCall::epsilon"][::core::mem::offset_of!(UpdateCall, epsilon) - 80usize];
    ["Offset of field: UpdateCall::ema_rest"][::core::mem::offset_of!(UpdateCall, ema_rest) - 84usize];
    ["Offset of field: UpdateCall::parameters"][::core::mem::offset_of!(UpdateCall, parameters) - 88usize];
    ["Offset of field: UpdateCall::grad"][::core::mem::offset_of!(UpdateCall, grad) - 96usize];
    ["Offset of field: UpdateCall::moment1"][::core::mem::offset_of!(UpdateCall, moment1) - 104usize];
    ["Offset of field: UpdateCall::moment2"][::core::mem::offset_of!(UpdateCall, moment2) - 112usize];
    ["Offset of field: UpdateCall::ema"][::core::mem::offset_of!(UpdateCall, ema) - 120usize];
    ["Offset of field: UpdateCall::squares"][::core::mem::offset_of!(UpdateCall, squares) - 128usize];
    ["Offset of field: UpdateCall::progress"][::core::mem::offset_of!(UpdateCall, progress) - 136usize];
};
impl Default for UpdateCall {
    fn default() -> Self {
        let mut s = ::core::mem::MaybeUninit::<Self>::uninit();
        // SAFETY: all bytes zero are a value: numbers, enumerators and null pointers.
        unsafe {
            ::core::ptr::write_bytes(s.as_mut_ptr(), 0, 1);
            s.assume_init()
        }
    }
}
