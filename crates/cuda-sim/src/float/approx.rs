//! The `.approx` and `.full` functions: computed in f64 and rounded once, so closer than the ISA asks.
//!
//! The hardware's own last bits are not documented, and not imitated. Special values are those of the ISA's tables.

use super::half::{self, Half, narrow_f64};
use super::single::{self, operand};
use super::{Modifiers, Rounding};

/// The upper word of a NaN that the `.ftz.f64` functions return (9.7.3.14).
const NAN_UPPER: u64 = 0x7fff_ffff_0000_0000;

#[inline]
fn result(value: f64, ftz: bool) -> u32 {
    single::result(value as f32, Modifiers { ftz, ..Modifiers::RN })
}

/// `rcp.approx.f32` (9.7.3.13; 1 ulp).
#[inline]
pub fn rcp(a: u32, ftz: bool) -> u32 {
    result(1.0 / f64::from(operand(a, ftz)), ftz)
}

/// `sqrt.approx.f32` (9.7.3.15; relative error 2^-23).
#[inline]
pub fn sqrt(a: u32, ftz: bool) -> u32 {
    single::sqrt(a, Modifiers { ftz, ..Modifiers::RN })
}

/// `rsqrt.approx.f32` (9.7.3.16; relative error 2^-22.9).
#[inline]
pub fn rsqrt(a: u32, ftz: bool) -> u32 {
    result(1.0 / f64::from(operand(a, ftz)).sqrt(), ftz)
}

/// `sin.approx.f32` (9.7.3.18; absolute error 2^-20.5 within [-2 pi, 2 pi]).
#[inline]
pub fn sin(a: u32, ftz: bool) -> u32 {
    result(f64::from(operand(a, ftz)).sin(), ftz)
}

/// `cos.approx.f32` (9.7.3.19; absolute error 2^-20.5 within [-2 pi, 2 pi]).
#[inline]
pub fn cos(a: u32, ftz: bool) -> u32 {
    result(f64::from(operand(a, ftz)).cos(), ftz)
}

/// `lg2.approx.f32` (9.7.3.20; absolute error 2^-22 within (0.5, 2), relative elsewhere).
#[inline]
pub fn lg2(a: u32, ftz: bool) -> u32 {
    result(f64::from(operand(a, ftz)).log2(), ftz)
}

/// `ex2.approx.f32` (9.7.3.21; 2 ulp).
#[inline]
pub fn ex2(a: u32, ftz: bool) -> u32 {
    result(exp2(f64::from(operand(a, ftz))), ftz)
}

/// `tanh.approx.f32` (9.7.3.22; relative error 2^-11).
#[inline]
pub fn tanh(a: u32) -> u32 {
    result(f64::from(f32::from_bits(a)).tanh(), false)
}

/// `ex2.approx.f16` (relative error 2^-9.9), `ex2.approx.ftz.bf16` (2^-7), 9.7.4.10.
#[inline]
pub fn ex2_half<H: Half>(a: u16, ftz: bool) -> u16 {
    half_result::<H>(exp2(f64::from(half::operand::<H>(a, ftz))), ftz)
}

/// `tanh.approx.f16` (absolute error 2^-10.987), `tanh.approx.bf16` (2^-8), 9.7.4.9.
#[inline]
pub fn tanh_half<H: Half>(a: u16) -> u16 {
    half_result::<H>(f64::from(H::widen(a)).tanh(), false)
}

#[inline]
fn half_result<H: Half>(value: f64, ftz: bool) -> u16 {
    let bits = narrow_f64::<H>(value, Rounding::Nearest);
    if ftz { half::flush::<H>(bits) } else { bits }
}

/// `div.approx.f32` (9.7.3.8; 2 ulp for a divisor in [2^-126, 2^126]).
///
/// A larger finite divisor has a reciprocal of zero.
#[inline]
pub fn div(a: u32, b: u32, ftz: bool) -> u32 {
    let (dividend, divisor) = (f64::from(operand(a, ftz)), f64::from(operand(b, ftz)));
    let beyond = divisor.is_finite() && divisor.abs() > 2f64.powi(126);
    let reciprocal_of = if beyond { f64::INFINITY.copysign(divisor) } else { divisor };
    // An infinite dividend times that zero is NaN, and so is infinity over infinity.
    result(dividend / reciprocal_of, ftz)
}

/// `div.full.f32` (9.7.3.8; 2 ulp).
#[inline]
pub fn div_full(a: u32, b: u32, ftz: bool) -> u32 {
    single::div(a, b, Modifiers { ftz, ..Modifiers::RN })
}

/// `rcp.approx.ftz.f64` (9.7.3.14): of the upper word, in the upper word.
pub fn rcp_upper(a: u64) -> u64 {
    upper(1.0 / flushed_upper(a))
}

/// `rsqrt.approx.ftz.f64` (9.7.3.17): of the upper word, in the upper word.
pub fn rsqrt_upper(a: u64) -> u64 {
    upper(1.0 / flushed_upper(a).sqrt())
}

/// `rsqrt.approx.f64` (9.7.3.16).
pub fn rsqrt_f64(a: u64) -> u64 {
    let root = 1.0 / f64::from_bits(a).sqrt();
    if root.is_nan() { super::double::NAN } else { root.to_bits() }
}

/// A number's 1.11.20 format, a subnormal one flushed.
fn flushed_upper(a: u64) -> f64 {
    let word = f64::from_bits(a & 0xffff_ffff_0000_0000);
    if word.is_subnormal() { 0f64.copysign(word) } else { word }
}

/// A number rounded to 1.11.20 format, a subnormal one flushed.
fn upper(x: f64) -> u64 {
    if x.is_nan() {
        return NAN_UPPER;
    }
    let bits = x.to_bits();
    let rounded = (bits + 0x7fff_ffff + (bits >> 32 & 1)) & 0xffff_ffff_0000_0000;
    if f64::from_bits(rounded).is_subnormal() { rounded & 1 << 63 } else { rounded }
}

/// Terms of the series of 2^f: below 2^-42 of error for |f| <= 1/2, far below a last place of f32.
const TERMS: usize = 11;

/// ln(2)^k / k!.
const EXP2: [f64; TERMS] = {
    let mut terms = [1.0; TERMS];
    let mut k = 1;
    while k < TERMS {
        terms[k] = terms[k - 1] * std::f64::consts::LN_2 / k as f64;
        k += 1;
    }
    terms
};

/// 2^x for the range of f32, without branches and alike on every host.
#[inline]
fn exp2(x: f64) -> f64 {
    // Beyond 200 both ways an f32 overflows or is zero. NaN passes through.
    let x = x.clamp(-200.0, 200.0);
    // Adding 1.5 * 2^52 rounds to an integer, which then lies in the last bits.
    let shifted = x + 6_755_399_441_055_744.0;
    let fraction = x - (shifted - 6_755_399_441_055_744.0);
    let scale = f64::from_bits((shifted.to_bits() << 52).wrapping_add(1023 << 52));
    EXP2.iter().rev().fold(0.0, |sum, term| sum * fraction + term) * scale
}
