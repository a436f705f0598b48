//! f64: the instructions of 9.7.3 that round as IEEE 754 says.
//!
//! The ISA leaves NaN payloads open. Here a NaN result is the first NaN operand, made quiet, else [`NAN`], on every
//! host.

use super::soft::{Exact, F64};
use super::{Compare, Modifiers, Rounding, TestOp};

/// The NaN of an operation without a NaN operand.
pub const NAN: u64 = 0xfff8_0000_0000_0000;

const SIGN: u64 = 1 << 63;
const QUIET: u64 = 1 << 51;
const ONE: u64 = 0x3ff0_0000_0000_0000;

#[inline]
fn result(value: f64, operands: &[u64]) -> u64 {
    if value.is_nan() { nan(operands) } else { value.to_bits() }
}

#[cold]
fn nan(operands: &[u64]) -> u64 {
    operands.iter().find(|&&bits| f64::from_bits(bits).is_nan()).map_or(NAN, |bits| bits | QUIET)
}

/// The result from the host where it is right (to nearest, or an operand or the result not finite), else from `exact`.
#[inline]
fn rounded(host: f64, operands: &[u64], rounding: Rounding, exact: impl FnOnce() -> Exact) -> u64 {
    let finite = operands.iter().all(|&bits| f64::from_bits(bits).is_finite());
    if rounding == Rounding::Nearest || !finite {
        return result(host, operands);
    }
    F64.round(exact(), rounding)
}

/// `add.f64`.
#[inline]
pub fn add(a: u64, b: u64, rounding: Rounding) -> u64 {
    let host = f64::from_bits(a) + f64::from_bits(b);
    rounded(host, &[a, b], rounding, || F64.unpack(a).sum(F64.unpack(b), rounding))
}

/// `sub.f64`.
#[inline]
pub fn sub(a: u64, b: u64, rounding: Rounding) -> u64 {
    // A NaN keeps its sign: it is not an operand of the negation.
    let negated = if f64::from_bits(b).is_nan() { b } else { b ^ SIGN };
    add(a, negated, rounding)
}

/// `mul.f64`.
#[inline]
pub fn mul(a: u64, b: u64, rounding: Rounding) -> u64 {
    let host = f64::from_bits(a) * f64::from_bits(b);
    rounded(host, &[a, b], rounding, || F64.unpack(a).product(F64.unpack(b)))
}

/// `fma.f64`. In rounding to nearest, [`super::lanes::fma64`] is faster.
#[inline]
pub fn fma(a: u64, b: u64, c: u64, rounding: Rounding) -> u64 {
    let host = f64::from_bits(a).mul_add(f64::from_bits(b), f64::from_bits(c));
    rounded(host, &[a, b, c], rounding, || F64.unpack(a).product(F64.unpack(b)).sum(F64.unpack(c), rounding))
}

/// `div.f64`.
#[inline]
pub fn div(a: u64, b: u64, rounding: Rounding) -> u64 {
    let host = f64::from_bits(a) / f64::from_bits(b);
    if f64::from_bits(b) == 0.0 {
        return result(host, &[a, b]);
    }
    rounded(host, &[a, b], rounding, || F64.unpack(a).quotient(F64.unpack(b)))
}

/// `rcp.f64`.
#[inline]
pub fn rcp(a: u64, rounding: Rounding) -> u64 {
    div(ONE, a, rounding)
}

/// `sqrt.f64`.
#[inline]
pub fn sqrt(a: u64, rounding: Rounding) -> u64 {
    let host = f64::from_bits(a).sqrt();
    if host.is_nan() {
        return result(host, &[a]);
    }
    rounded(host, &[a], rounding, || F64.unpack(a).root())
}

/// `min.f64`: the other operand where one is NaN.
#[inline]
pub fn min(a: u64, b: u64) -> u64 {
    choose(a, b, |a, b| a < b)
}

/// `max.f64`: the other operand where one is NaN.
#[inline]
pub fn max(a: u64, b: u64) -> u64 {
    choose(a, b, |a, b| a > b)
}

#[inline]
fn choose(a: u64, b: u64, first: impl Fn(i64, i64) -> bool) -> u64 {
    let (nan_a, nan_b) = (f64::from_bits(a).is_nan(), f64::from_bits(b).is_nan());
    // Ordered as the numbers are, with -0 below +0.
    let key = |bits: u64| bits as i64 ^ ((bits as i64 >> 63) & i64::MAX);
    match (nan_a, nan_b) {
        (true, true) => nan(&[a, b]),
        (true, false) => b,
        (false, true) => a,
        (false, false) if first(key(a), key(b)) => a,
        (false, false) => b,
    }
}

/// `abs.f64`.
#[inline]
pub fn abs(a: u64) -> u64 {
    a & !SIGN
}

/// `neg.f64`.
#[inline]
pub fn neg(a: u64) -> u64 {
    a ^ SIGN
}

/// `copysign.f64`: the magnitude of `b` with the sign of `a`, in PTX's order of operands.
#[inline]
pub fn copysign(a: u64, b: u64) -> u64 {
    a & SIGN | b & !SIGN
}

/// `testp.f64`.
#[inline]
pub fn testp(a: u64, op: TestOp) -> bool {
    op.of(f64::from_bits(a).classify())
}

/// The comparison of `set` and `setp` with f64 operands.
#[inline]
pub fn compare(a: u64, b: u64, op: Compare) -> bool {
    op.of(f64::from_bits(a), f64::from_bits(b))
}

/// The number clamped to [0, 1] where the modifiers say `.sat`; NaN and -0 become +0.
#[inline]
pub(super) fn saturated(bits: u64, m: Modifiers) -> u64 {
    match m.sat {
        false => bits,
        true if f64::from_bits(bits) > 0.0 => bits.min(ONE),
        true => 0,
    }
}
