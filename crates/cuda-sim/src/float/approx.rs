//! The `.approx` and `.full` functions: computed in f64 and rounded once, so closer than the ISA asks.
//!
//! The hardware's own last bits are not documented, and not imitated. Special values are those of the ISA's tables.

use crate::chance;

use super::half::{self, Half, narrow_f64};
use super::single::{self, operand};
use super::{Modifiers, Rounding};

/// The upper word of a NaN that the `.ftz.f64` functions return (9.7.3.14).
const NAN_UPPER: u64 = 0x7fff_ffff_0000_0000;

/// By how much a result may err.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// Units in the last place; the result is moved by so many after it was rounded, which is up to half of one more.
    Places(u32),
    /// Part of the result, as a power of two.
    Relative(f64),
    /// As it is, as a power of two.
    Absolute(f64),
    /// That of `lg2.approx`: 2^-22, as it is for operands within (0.5, 2), of the result elsewhere.
    Logarithm,
}

impl Bound {
    /// Moves a result by some of the error, the same for the same operands. Special values stay what they are.
    pub fn add(self, seed: u64, operands: u64, result: u32) -> u32 {
        let value = f32::from_bits(result);
        if !value.is_normal() {
            return result;
        }
        // In (-1, 1).
        let part = (chance::mix(seed ^ chance::mix(operands)) >> 12) as f64 * 2f64.powi(-51) - 1.0;
        // Rounding the result, and then the sum, takes half a place each of what is allowed.
        let place = f64::from(f32::from_bits(result & 0x7f80_0000)) * 2f64.powi(-23);
        let most = match self {
            Self::Places(count) => {
                let moved = result.wrapping_add_signed((part * f64::from(count + 1)) as i32);
                return if f32::from_bits(moved).is_normal() { moved } else { result };
            }
            Self::Relative(power) => f64::from(value.abs()) * power.exp2(),
            Self::Absolute(power) => power.exp2(),
            Self::Logarithm => 2f64.powi(-22) * if value.abs() < 1.0 { 1.0 } else { value.abs().into() },
        };
        ((f64::from(value) + part * (most - place).max(0.0)) as f32).to_bits()
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_stay_inside_their_bounds_and_use_them() {
        type Case = (Bound, fn(u32) -> u32, fn(f64) -> f64, [f32; 2]);
        let functions: [Case; 5] = [
            (Bound::Places(2), |a| ex2(a, true), f64::exp2, [-100.0, 100.0]),
            (Bound::Places(1), |a| rcp(a, true), |x| 1.0 / x, [0.1, 1e3]),
            (Bound::Absolute(-20.5), |a| sin(a, true), f64::sin, [-6.0, 6.0]),
            (Bound::Logarithm, |a| lg2(a, true), f64::log2, [0.01, 100.0]),
            (Bound::Relative(-11.0), tanh, f64::tanh, [-3.0, 3.0]),
        ];
        for (bound, f, exact, [low, high]) in functions {
            let (mut worst, mut moved) = (0f64, 0);
            for k in 0..20_000 {
                let x = low + (high - low) * k as f32 / 20_000.0;
                let (as_is, erring) = (f(x.to_bits()), bound.add(5, x.to_bits().into(), f(x.to_bits())));
                moved += u32::from(as_is != erring);
                let (got, want) = (f64::from(f32::from_bits(erring)), exact(x.into()));
                let place = f64::from(f32::from_bits(as_is & 0x7f80_0000)) * 2f64.powi(-23);
                let most = match bound {
                    // The result was rounded before it was moved.
                    Bound::Places(count) => (f64::from(count) + 0.5) * place,
                    Bound::Relative(power) => want.abs() * power.exp2(),
                    Bound::Absolute(power) => power.exp2(),
                    Bound::Logarithm if x > 0.5 && x < 2.0 => 2f64.powi(-22),
                    Bound::Logarithm => want.abs() * 2f64.powi(-22),
                };
                worst = worst.max((got - want).abs() / most.max(place));
            }
            assert!(worst <= 1.0 && worst > 0.7 && moved > 5_000, "{bound:?}: {worst}, {moved}");
        }
    }
}
