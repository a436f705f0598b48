//! f32: the instructions of 9.7.3 that round as IEEE 754 says.
//!
//! A NaN result is the canonical NaN, `0x7fffffff`.

use super::{Compare, Modifiers, Rounding, TestOp, odd_sum, soft};

/// The NaN that every f32 operation returns.
pub const NAN: u32 = 0x7fff_ffff;

const SIGN: u32 = 0x8000_0000;
const MIN_NORMAL: u32 = 0x0080_0000;
const ONE: u32 = 0x3f80_0000;

/// Zero of the same sign where the number is subnormal.
#[inline]
pub fn flush(bits: u32) -> u32 {
    if bits & !SIGN < MIN_NORMAL { bits & SIGN } else { bits }
}

/// An operand, flushed where the instruction says so.
#[inline]
pub(super) fn operand(bits: u32, ftz: bool) -> f32 {
    f32::from_bits(if ftz { flush(bits) } else { bits })
}

/// The bits of a result: NaN made canonical, then `.ftz`, then `.sat`.
#[inline]
pub(super) fn result(value: f32, m: Modifiers) -> u32 {
    let bits = if value.is_nan() { NAN } else { value.to_bits() };
    let bits = if m.ftz { flush(bits) } else { bits };
    if m.sat { saturate(bits) } else { bits }
}

/// The number clamped to [0, 1]; NaN and -0 become +0.
#[inline]
fn saturate(bits: u32) -> u32 {
    let value = f32::from_bits(bits);
    // As integers, what is positive and not NaN is ordered as its value is.
    if value > 0.0 { bits.min(ONE) } else { 0 }
}

/// An f64 rounded to f32.
#[inline]
pub(super) fn narrow(x: f64, rounding: Rounding) -> f32 {
    let near = x as f32;
    let back = f64::from(near);
    let down = if back > x { near.next_down() } else { near };
    let up = if back < x { near.next_up() } else { near };
    match rounding {
        Rounding::Nearest => near,
        Rounding::Down => down,
        Rounding::Up => up,
        Rounding::Zero if x > 0.0 => down,
        Rounding::Zero => up,
    }
}

/// `add.f32`.
#[inline]
pub fn add(a: u32, b: u32, m: Modifiers) -> u32 {
    let (a, b) = (operand(a, m.ftz), operand(b, m.ftz));
    let sum = match m.rounding {
        Rounding::Nearest => a + b,
        rounding => narrow(odd_sum(f64::from(a), f64::from(b), rounding), rounding),
    };
    result(sum, m)
}

/// `sub.f32`.
#[inline]
pub fn sub(a: u32, b: u32, m: Modifiers) -> u32 {
    add(a, b ^ SIGN, m)
}

/// `mul.f32`.
#[inline]
pub fn mul(a: u32, b: u32, m: Modifiers) -> u32 {
    let (a, b) = (operand(a, m.ftz), operand(b, m.ftz));
    let product = match m.rounding {
        Rounding::Nearest => a * b,
        // f64 holds the product exactly: 48 bits, and no exponent out of range.
        rounding => narrow(f64::from(a) * f64::from(b), rounding),
    };
    result(product, m)
}

/// `fma.f32`. In rounding to nearest, [`super::lanes::fma32`] is many times faster.
#[inline]
pub fn fma(a: u32, b: u32, c: u32, m: Modifiers) -> u32 {
    let [a, b, c] = [a, b, c].map(|bits| f64::from(operand(bits, m.ftz)));
    result(narrow(odd_sum(a * b, c, m.rounding), m.rounding), m)
}

/// `div.f32`.
#[inline]
pub fn div(a: u32, b: u32, m: Modifiers) -> u32 {
    let (a, b) = (operand(a, m.ftz), operand(b, m.ftz));
    let quotient = a / b;
    if m.rounding == Rounding::Nearest || !a.is_finite() || !b.is_finite() || b == 0.0 {
        return result(quotient, m);
    }
    let exact = unpack(a).quotient(unpack(b));
    result(pack(exact, m.rounding), m)
}

/// `rcp.f32`.
#[inline]
pub fn rcp(a: u32, m: Modifiers) -> u32 {
    div(ONE, a, m)
}

/// `sqrt.f32`.
#[inline]
pub fn sqrt(a: u32, m: Modifiers) -> u32 {
    let a = operand(a, m.ftz);
    let root = a.sqrt();
    if m.rounding == Rounding::Nearest || !root.is_finite() {
        return result(root, m);
    }
    result(pack(unpack(a).root(), m.rounding), m)
}

fn unpack(x: f32) -> soft::Exact {
    soft::F32.unpack(u64::from(x.to_bits()))
}

pub(super) fn pack(x: soft::Exact, rounding: Rounding) -> f32 {
    f32::from_bits(soft::F32.round(x, rounding) as u32)
}

/// `min.f32`: the other operand where one is NaN, unless `nan` (`.NaN`) is set.
#[inline]
pub fn min(a: u32, b: u32, ftz: bool, nan: bool) -> u32 {
    choose(a, b, ftz, nan, |a, b| a < b)
}

/// `max.f32`: the other operand where one is NaN, unless `nan` (`.NaN`) is set.
#[inline]
pub fn max(a: u32, b: u32, ftz: bool, nan: bool) -> u32 {
    choose(a, b, ftz, nan, |a, b| a > b)
}

#[inline]
fn choose(a: u32, b: u32, ftz: bool, nan: bool, first: impl Fn(i32, i32) -> bool) -> u32 {
    let (a, b) = if ftz { (flush(a), flush(b)) } else { (a, b) };
    let (nan_a, nan_b) = (f32::from_bits(a).is_nan(), f32::from_bits(b).is_nan());
    // Ordered as the numbers are, with -0 below +0.
    let key = |bits: u32| bits as i32 ^ ((bits as i32 >> 31) & i32::MAX);
    let chosen = if nan_b || (!nan_a && first(key(a), key(b))) { a } else { b };
    if (nan_a && nan_b) || (nan && (nan_a || nan_b)) { NAN } else { chosen }
}

/// `abs.f32`.
#[inline]
pub fn abs(a: u32, ftz: bool) -> u32 {
    (if ftz { flush(a) } else { a }) & !SIGN
}

/// `neg.f32`.
#[inline]
pub fn neg(a: u32, ftz: bool) -> u32 {
    (if ftz { flush(a) } else { a }) ^ SIGN
}

/// `copysign.f32`: the magnitude of `b` with the sign of `a`, in PTX's order of operands.
#[inline]
pub fn copysign(a: u32, b: u32) -> u32 {
    a & SIGN | b & !SIGN
}

/// `testp.f32`.
#[inline]
pub fn testp(a: u32, op: TestOp) -> bool {
    op.of(f32::from_bits(a).classify())
}

/// The comparison of `set` and `setp` with f32 operands.
#[inline]
pub fn compare(a: u32, b: u32, op: Compare, ftz: bool) -> bool {
    op.of(operand(a, ftz), operand(b, ftz))
}
