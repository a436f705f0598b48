// kernels/params.h, by `cargo xtask bindings`. Not written by hand.
#![allow(dead_code, non_camel_case_types, non_snake_case, non_upper_case_globals)]
pub const kMaxTemperatures: ::core::ffi::c_int = 8;
pub const KernelKind_kLaplace: KernelKind = 0;
pub const KernelKind_kGaussian: KernelKind = 1;
pub const KernelKind_kMatern32: KernelKind = 2;
pub const KernelKind_kMatern52: KernelKind = 3;
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
pub const WeightKind_kWeightAffinity: WeightKind = 0;
pub const WeightKind_kWeightLogit: WeightKind = 1;
pub const WeightKind_kWeightIgnored: WeightKind = 2;
pub type WeightKind = ::core::ffi::c_uint;
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct DriftScalars {
    pub scale: f64,
    pub sigma: f64,
    pub distance: f64,
    pub f2: [f64; 8usize],
    pub theta: [f64; 8usize],
    pub nonfinite: f64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of DriftScalars"][::core::mem::size_of::<DriftScalars>() - 160usize];
    ["Alignment of DriftScalars"][::core::mem::align_of::<DriftScalars>() - 8usize];
    ["Offset of field: DriftScalars::scale"][::core::mem::offset_of!(DriftScalars, scale) - 0usize];
    ["Offset of field: DriftScalars::sigma"][::core::mem::offset_of!(DriftScalars, sigma) - 8usize];
    ["Offset of field: DriftScalars::distance"][::core::mem::offset_of!(DriftScalars, distance) - 16usize];
    ["Offset of field: DriftScalars::f2"][::core::mem::offset_of!(DriftScalars, f2) - 24usize];
    ["Offset of field: DriftScalars::theta"][::core::mem::offset_of!(DriftScalars, theta) - 88usize];
    ["Offset of field: DriftScalars::nonfinite"][::core::mem::offset_of!(DriftScalars, nonfinite) - 152usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct DriftParams {
    pub groups: ::core::ffi::c_int,
    pub generated: ::core::ffi::c_int,
    pub negatives: ::core::ffi::c_int,
    pub positives: ::core::ffi::c_int,
    pub targets: ::core::ffi::c_int,
    pub dim: ::core::ffi::c_int,
    pub temperatures: ::core::ffi::c_int,
    pub kernel: KernelKind,
    pub scale_kind: ScaleKind,
    pub mask: MaskKind,
    pub floor_kind: FloorKind,
    pub weights: WeightKind,
    pub normalize: ::core::ffi::c_int,
    pub constant_self: ::core::ffi::c_int,
    pub mask_value: f32,
    pub min_squared: f32,
    pub affinity_floor: f32,
    pub norm_floor: f64,
    pub rate: [f32; 8usize],
    pub generated_data: *const ::core::ffi::c_void,
    pub negative_data: *const ::core::ffi::c_void,
    pub positive_data: *const ::core::ffi::c_void,
    pub generated_weight: *const f32,
    pub negative_weight: *const f32,
    pub positive_weight: *const f32,
    pub distances: *mut f32,
    pub row_least: *mut f32,
    pub column_least: *mut f32,
    pub row_log: *mut f32,
    pub column_log: *mut f32,
    pub mass: *mut f32,
    pub distance_sums: *mut f64,
    pub norm_sums: *mut f64,
    pub loss_sums: *mut f64,
    pub scalars: *mut DriftScalars,
    pub force: *mut f32,
    pub gradient: *mut f32,
    pub loss: *mut f32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of DriftParams"][::core::mem::size_of::<DriftParams>() - 264usize];
    ["Alignment of DriftParams"][::core::mem::align_of::<DriftParams>() - 8usize];
    ["Offset of field: DriftParams::groups"][::core::mem::offset_of!(DriftParams, groups) - 0usize];
    ["Offset of field: DriftParams::generated"][::core::mem::offset_of!(DriftParams, generated) - 4usize];
    ["Offset of field: DriftParams::negatives"][::core::mem::offset_of!(DriftParams, negatives) - 8usize];
    ["Offset of field: DriftParams::positives"][::core::mem::offset_of!(DriftParams, positives) - 12usize];
    ["Offset of field: DriftParams::targets"][::core::mem::offset_of!(DriftParams, targets) - 16usize];
    ["Offset of field: DriftParams::dim"][::core::mem::offset_of!(DriftParams, dim) - 20usize];
    ["Offset of field: DriftParams::temperatures"][::core::mem::offset_of!(DriftParams, temperatures) - 24usize];
    ["Offset of field: DriftParams::kernel"][::core::mem::offset_of!(DriftParams, kernel) - 28usize];
    ["Offset of field: DriftParams::scale_kind"][::core::mem::offset_of!(DriftParams, scale_kind) - 32usize];
    ["Offset of field: DriftParams::mask"][::core::mem::offset_of!(DriftParams, mask) - 36usize];
    ["Offset of field: DriftParams::floor_kind"][::core::mem::offset_of!(DriftParams, floor_kind) - 40usize];
    ["Offset of field: DriftParams::weights"][::core::mem::offset_of!(DriftParams, weights) - 44usize];
    ["Offset of field: DriftParams::normalize"][::core::mem::offset_of!(DriftParams, normalize) - 48usize];
    ["Offset of field: DriftParams::constant_self"][::core::mem::offset_of!(DriftParams, constant_self) - 52usize];
    ["Offset of field: DriftParams::mask_value"][::core::mem::offset_of!(DriftParams, mask_value) - 56usize];
    ["Offset of field: DriftParams::min_squared"][::core::mem::offset_of!(DriftParams, min_squared) - 60usize];
    ["Offset of field: DriftParams::affinity_floor"][::core::mem::offset_of!(DriftParams, affinity_floor) - 64usize];
    ["Offset of field: DriftParams::norm_floor"][::core::mem::offset_of!(DriftParams, norm_floor) - 72usize];
    ["Offset of field: DriftParams::rate"][::core::mem::offset_of!(DriftParams, rate) - 80usize];
    ["Offset of field: DriftParams::generated_data"][::core::mem::offset_of!(DriftParams, generated_data) - 112usize];
    ["Offset of field: DriftParams::negative_data"][::core::mem::offset_of!(DriftParams, negative_data) - 120usize];
    ["Offset of field: DriftParams::positive_data"][::core::mem::offset_of!(DriftParams, positive_data) - 128usize];
    ["Offset of field: DriftParams::generated_weight"]
        [::core::mem::offset_of!(DriftParams, generated_weight) - 136usize];
    ["Offset of field: DriftParams::negative_weight"][::core::mem::offset_of!(DriftParams, negative_weight) - 144usize];
    ["Offset of field: DriftParams::positive_weight"][::core::mem::offset_of!(DriftParams, positive_weight) - 152usize];
    ["Offset of field: DriftParams::distances"][::core::mem::offset_of!(DriftParams, distances) - 160usize];
    ["Offset of field: DriftParams::row_least"][::core::mem::offset_of!(DriftParams, row_least) - 168usize];
    ["Offset of field: DriftParams::column_least"][::core::mem::offset_of!(DriftParams, column_least) - 176usize];
    ["Offset of field: DriftParams::row_log"][::core::mem::offset_of!(DriftParams, row_log) - 184usize];
    ["Offset of field: DriftParams::column_log"][::core::mem::offset_of!(DriftParams, column_log) - 192usize];
    ["Offset of field: DriftParams::mass"][::core::mem::offset_of!(DriftParams, mass) - 200usize];
    ["Offset of field: DriftParams::distance_sums"][::core::mem::offset_of!(DriftParams, distance_sums) - 208usize];
    ["Offset of field: DriftParams::norm_sums"][::core::mem::offset_of!(DriftParams, norm_sums) - 216usize];
    ["Offset of field: DriftParams::loss_sums"][::core::mem::offset_of!(DriftParams, loss_sums) - 224usize];
    ["Offset of field: DriftParams::scalars"][::core::mem::offset_of!(DriftParams, scalars) - 232usize];
    ["Offset of field: DriftParams::force"][::core::mem::offset_of!(DriftParams, force) - 240usize];
    ["Offset of field: DriftParams::gradient"][::core::mem::offset_of!(DriftParams, gradient) - 248usize];
    ["Offset of field: DriftParams::loss"][::core::mem::offset_of!(DriftParams, loss) - 256usize];
};
impl Default for DriftParams {
    fn default() -> Self {
        let mut s = ::core::mem::MaybeUninit::<Self>::uninit();
        // SAFETY: all bytes zero are a value: numbers, enumerators and null pointers.
        unsafe {
            ::core::ptr::write_bytes(s.as_mut_ptr(), 0, 1);
            s.assume_init()
        }
    }
}
