//! A warp, or a fragment, at a time: what the host's vector units do far faster than lane by lane.
//!
//! Each function agrees bit for bit with its scalar twin; the CPU's features are asked at run time. What is missing
//! here (add, mul, max, bf16) the compiler already turns into vector code where the scalar function stands in a loop.

use super::half::{F16, Half};
use super::{Modifiers, Rounding, double, single};

#[cfg(target_arch = "x86_64")]
macro_rules! has {
    ($($feature:tt),+) => { $(std::arch::is_x86_feature_detected!($feature))&&+ };
}

/// `fma.rn.f32` of a warp.
#[inline]
pub fn fma32(d: &mut [u32; 32], a: &[u32; 32], b: &[u32; 32], c: &[u32; 32]) {
    fma32_with::<false>(d, a, b, c);
}

/// `fma.rn.ftz.f32` of a warp.
#[inline]
pub fn fma32_ftz(d: &mut [u32; 32], a: &[u32; 32], b: &[u32; 32], c: &[u32; 32]) {
    fma32_with::<true>(d, a, b, c);
}

#[inline]
fn fma32_with<const FTZ: bool>(d: &mut [u32; 32], a: &[u32; 32], b: &[u32; 32], c: &[u32; 32]) {
    #[cfg(target_arch = "x86_64")]
    if has!("avx2", "fma") {
        // SAFETY: this CPU has the features that the function is compiled for.
        return unsafe { x86::fma32::<FTZ>(d, a, b, c) };
    }
    let m = Modifiers { ftz: FTZ, ..Modifiers::RN };
    for lane in 0..32 {
        d[lane] = single::fma(a[lane], b[lane], c[lane], m);
    }
}

/// `fma.rn.f64` of a warp.
#[inline]
pub fn fma64(d: &mut [u64; 32], a: &[u64; 32], b: &[u64; 32], c: &[u64; 32]) {
    #[cfg(target_arch = "x86_64")]
    if has!("avx2", "fma") {
        // SAFETY: this CPU has the features that the function is compiled for.
        let nan = unsafe { x86::fma64(d, a, b, c) };
        if !nan {
            return;
        }
    }
    for lane in 0..32 {
        d[lane] = double::fma(a[lane], b[lane], c[lane], Rounding::Nearest);
    }
}

/// `cvt.f32.f16` of each element.
///
/// # Panics
/// Where the lengths differ.
#[inline]
pub fn widen_f16(d: &mut [u32], a: &[u16]) {
    assert_eq!(d.len(), a.len());
    #[cfg(target_arch = "x86_64")]
    if has!("avx", "f16c") {
        // SAFETY: this CPU has the features that the function is compiled for.
        return unsafe { x86::widen_f16(d, a) };
    }
    widen_f16_scalar(d, a);
}

/// `cvt.rn.f16.f32` of each element.
///
/// # Panics
/// Where the lengths differ.
#[inline]
pub fn narrow_f16(d: &mut [u16], a: &[u32]) {
    assert_eq!(d.len(), a.len());
    #[cfg(target_arch = "x86_64")]
    if has!("avx", "f16c") {
        // SAFETY: this CPU has the features that the function is compiled for.
        return unsafe { x86::narrow_f16(d, a) };
    }
    narrow_f16_scalar(d, a);
}

#[inline]
fn widen_f16_scalar(d: &mut [u32], a: &[u16]) {
    for (d, &a) in d.iter_mut().zip(a) {
        *d = F16::widen(a).to_bits();
    }
}

#[inline]
fn narrow_f16_scalar(d: &mut [u16], a: &[u32]) {
    for (d, &a) in d.iter_mut().zip(a) {
        *d = F16::narrow(f32::from_bits(a), Rounding::Nearest);
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m128i, _CMP_UNORD_Q, _MM_FROUND_TO_NEAREST_INT, _mm_loadu_si128, _mm_storeu_si128, _mm256_blendv_ps,
        _mm256_castsi256_ps, _mm256_cmp_ps, _mm256_cvtph_ps, _mm256_cvtps_ph, _mm256_loadu_ps, _mm256_set1_epi32,
        _mm256_storeu_ps,
    };

    use super::super::single::{NAN, flush};

    /// Plain loops: the compiler turns them into vector code.
    #[target_feature(enable = "avx2,fma")]
    pub(super) fn fma32<const FTZ: bool>(d: &mut [u32; 32], a: &[u32; 32], b: &[u32; 32], c: &[u32; 32]) {
        let operand = |bits: u32| f32::from_bits(if FTZ { flush(bits) } else { bits });
        for lane in 0..32 {
            let sum = operand(a[lane]).mul_add(operand(b[lane]), operand(c[lane]));
            let bits = if sum.is_nan() { NAN } else { sum.to_bits() };
            d[lane] = if FTZ { flush(bits) } else { bits };
        }
    }

    /// Returns whether a result is NaN, whose payload is then not settled.
    #[target_feature(enable = "avx2,fma")]
    pub(super) fn fma64(d: &mut [u64; 32], a: &[u64; 32], b: &[u64; 32], c: &[u64; 32]) -> bool {
        let mut nan = false;
        for lane in 0..32 {
            let sum = f64::from_bits(a[lane]).mul_add(f64::from_bits(b[lane]), f64::from_bits(c[lane]));
            nan |= sum.is_nan();
            d[lane] = sum.to_bits();
        }
        nan
    }

    #[target_feature(enable = "avx,f16c")]
    pub(super) fn widen_f16(d: &mut [u32], a: &[u16]) {
        let nan = _mm256_castsi256_ps(_mm256_set1_epi32(NAN as i32));
        let (d8, d_rest) = d.as_chunks_mut::<8>();
        let (a8, a_rest) = a.as_chunks::<8>();
        for (d, a) in d8.iter_mut().zip(a8) {
            // SAFETY: the array holds the 16 bytes read; the load needs no alignment.
            let halves = unsafe { _mm_loadu_si128(a.as_ptr().cast::<__m128i>()) };
            let wide = _mm256_cvtph_ps(halves);
            let wide = _mm256_blendv_ps(wide, nan, _mm256_cmp_ps::<_CMP_UNORD_Q>(wide, wide));
            // SAFETY: the array holds the 32 bytes written; the store needs no alignment.
            unsafe { _mm256_storeu_ps(d.as_mut_ptr().cast::<f32>(), wide) };
        }
        super::widen_f16_scalar(d_rest, a_rest);
    }

    #[target_feature(enable = "avx,f16c")]
    pub(super) fn narrow_f16(d: &mut [u16], a: &[u32]) {
        let nan = _mm256_castsi256_ps(_mm256_set1_epi32(NAN as i32));
        let (d8, d_rest) = d.as_chunks_mut::<8>();
        let (a8, a_rest) = a.as_chunks::<8>();
        for (d, a) in d8.iter_mut().zip(a8) {
            // SAFETY: the array holds the 32 bytes read; the load needs no alignment.
            let wide = unsafe { _mm256_loadu_ps(a.as_ptr().cast::<f32>()) };
            // The conversion shortens a NaN's payload: that of f32's canonical NaN to that of f16's.
            let wide = _mm256_blendv_ps(wide, nan, _mm256_cmp_ps::<_CMP_UNORD_Q>(wide, wide));
            let halves = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(wide);
            // SAFETY: the array holds the 16 bytes written; the store needs no alignment.
            unsafe { _mm_storeu_si128(d.as_mut_ptr().cast::<__m128i>(), halves) };
        }
        super::narrow_f16_scalar(d_rest, a_rest);
    }
}
