//! The element types of sample arrays.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// Name of an element type.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// IEEE binary32.
    F32,
    /// IEEE binary16.
    F16,
    /// The upper half of a binary32.
    Bf16,
}

impl Dtype {
    /// Every element type, in the order of the documentation.
    pub const ALL: [Self; 3] = [Self::F32, Self::F16, Self::Bf16];

    /// The name used on the command line and in files: `f32`, `f16`, `bf16`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }
}

impl std::fmt::Display for Dtype {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

mod sealed {
    use crate::cpu::simd::{LANES, Simd};

    pub trait Sealed: Sized {
        /// A lane block as f32, exactly.
        fn load<V: Simd>(values: &[Self; LANES]) -> V;
    }
    impl Sealed for f32 {
        #[inline(always)]
        fn load<V: Simd>(values: &[Self; LANES]) -> V {
            V::load(values)
        }
    }
    impl Sealed for half::f16 {
        #[inline(always)]
        fn load<V: Simd>(values: &[Self; LANES]) -> V {
            V::load_f16(bytemuck::cast_ref(values))
        }
    }
    impl Sealed for half::bf16 {
        #[inline(always)]
        fn load<V: Simd>(values: &[Self; LANES]) -> V {
            V::load_bf16(bytemuck::cast_ref(values))
        }
    }
}

/// An element type that every backend takes: `f32`, [`half::f16`] or [`half::bf16`].
///
/// Whatever the input type, distances, log-sum-exps and accumulations are f32 and outputs are f32.
pub trait Element: sealed::Sealed + Copy + Send + Sync + 'static {
    /// This type's name.
    const DTYPE: Dtype;

    /// Writes `src` as f32, exactly. The slices have equal lengths.
    #[doc(hidden)]
    fn widen(src: &[Self], dst: &mut [f32]);

    /// One element as f32, exactly.
    #[doc(hidden)]
    fn to_f32(self) -> f32;
}

impl Element for f32 {
    const DTYPE: Dtype = Dtype::F32;
    #[inline]
    fn widen(src: &[Self], dst: &mut [f32]) {
        dst.copy_from_slice(src);
    }
    #[inline]
    fn to_f32(self) -> f32 {
        self
    }
}

impl Element for f16 {
    const DTYPE: Dtype = Dtype::F16;
    #[inline]
    fn widen(src: &[Self], dst: &mut [f32]) {
        src.convert_to_f32_slice(dst);
    }
    #[inline]
    fn to_f32(self) -> f32 {
        f16::to_f32(self)
    }
}

impl Element for bf16 {
    const DTYPE: Dtype = Dtype::Bf16;
    #[inline]
    fn widen(src: &[Self], dst: &mut [f32]) {
        for (d, s) in dst.iter_mut().zip(src) {
            *d = f32::from_bits(u32::from(s.to_bits()) << 16);
        }
    }
    #[inline]
    fn to_f32(self) -> f32 {
        bf16::to_f32(self)
    }
}
