//! `cvt` (9.7.9.21): between the floating-point formats and the integers. Named destination first, as in PTX.

use super::half::{Half, limited, narrow_f64, shorten};
use super::single::{self, narrow, operand};
use super::soft::{Exact, F64};
use super::{Modifiers, Rounding, double};

/// An integer type, `.s8` to `.u64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Int {
    /// Its width: 8, 16, 32 or 64.
    pub bits: u32,
    /// Whether it is `.sN` rather than `.uN`.
    pub signed: bool,
}

impl Int {
    /// The low bits of a register, sign- or zero-extended to 64.
    #[inline]
    fn extend(self, register: u64) -> u64 {
        let shift = 64 - self.bits;
        if self.signed { ((register << shift) as i64 >> shift) as u64 } else { register << shift >> shift }
    }

    #[inline]
    fn value(self, register: u64) -> i128 {
        let extended = self.extend(register);
        if self.signed { i128::from(extended as i64) } else { i128::from(extended) }
    }

    /// The largest number of the type.
    #[inline]
    fn max(self) -> u64 {
        u64::MAX >> (64 - self.bits + u32::from(self.signed))
    }
}

/// `x` rounded to an integral number, which keeps its sign even where it is zero.
#[inline]
fn integral(x: f64, rounding: Rounding) -> f64 {
    match rounding {
        Rounding::Nearest => x.round_ties_even(),
        Rounding::Zero => x.trunc(),
        Rounding::Down => x.floor(),
        Rounding::Up => x.ceil(),
    }
}

/// Clamps to the type, as conversions to integers do without `.sat`. A NaN becomes 0, or where the source is f64 or the
/// type has 64 bits, only the topmost bit of the type.
#[inline]
fn int_from(x: f64, wide_source: bool, rounding: Rounding, to: Int) -> u64 {
    if x.is_nan() {
        return if wide_source || to.bits == 64 { to.extend(1 << (to.bits - 1)) } else { 0 };
    }
    let rounded = integral(x, rounding);
    if to.signed {
        let max = to.max() as i64;
        (rounded as i64).clamp(-max - 1, max) as u64
    } else {
        (rounded as u64).min(to.max())
    }
}

/// `cvt.INT.f32`, sign- or zero-extended to 64 bits.
#[inline]
pub fn int_from_f32(a: u32, rounding: Rounding, ftz: bool, to: Int) -> u64 {
    int_from(f64::from(operand(a, ftz)), false, rounding, to)
}

/// `cvt.INT.f64`, sign- or zero-extended to 64 bits.
#[inline]
pub fn int_from_f64(a: u64, rounding: Rounding, to: Int) -> u64 {
    int_from(f64::from_bits(a), true, rounding, to)
}

/// `cvt.INT.f16`, `cvt.INT.bf16`, sign- or zero-extended to 64 bits.
#[inline]
pub fn int_from_half<H: Half>(a: u16, rounding: Rounding, to: Int) -> u64 {
    int_from(f64::from(H::widen(a)), false, rounding, to)
}

/// `cvt.INT.INT`, sign- or zero-extended to 64 bits; `sat` clamps, else bits are dropped.
#[inline]
pub fn int_from_int(a: u64, from: Int, to: Int, sat: bool) -> u64 {
    if !sat {
        return to.extend(from.extend(a));
    }
    let max = i128::from(to.max());
    let min = if to.signed { -max - 1 } else { 0 };
    from.value(a).clamp(min, max) as u64
}

/// `cvt.f32.INT`.
#[inline]
pub fn f32_from_int(a: u64, from: Int, m: Modifiers) -> u32 {
    let extended = from.extend(a);
    let value = match m.rounding {
        Rounding::Nearest if from.signed => extended as i64 as f32,
        Rounding::Nearest => extended as f32,
        rounding => single::pack(Exact::integer(from.value(a)), rounding),
    };
    single::result(value, m)
}

/// `cvt.f64.INT`.
#[inline]
pub fn f64_from_int(a: u64, from: Int, m: Modifiers) -> u64 {
    let extended = from.extend(a);
    let bits = match m.rounding {
        Rounding::Nearest if from.signed => (extended as i64 as f64).to_bits(),
        Rounding::Nearest => (extended as f64).to_bits(),
        rounding => F64.round(Exact::integer(from.value(a)), rounding),
    };
    double::saturated(bits, m)
}

/// `cvt.f16.INT`, `cvt.bf16.INT`.
#[inline]
pub fn half_from_int<H: Half>(a: u64, from: Int, m: Modifiers) -> u16 {
    limited::<H>(H::from_integer(from.value(a), m.rounding), m)
}

/// `cvt.f32.f32` without rounding to an integral number: only `.ftz` and `.sat` act.
#[inline]
pub fn f32_from_f32(a: u32, m: Modifiers) -> u32 {
    single::result(operand(a, m.ftz), m)
}

/// `cvt.f32.f64`.
#[inline]
pub fn f32_from_f64(a: u64, m: Modifiers) -> u32 {
    single::result(narrow(f64::from_bits(a), m.rounding), m)
}

/// `cvt.f32.f16`, `cvt.f32.bf16`.
#[inline]
pub fn f32_from_half<H: Half>(a: u16, m: Modifiers) -> u32 {
    single::result(H::widen(a), m)
}

/// `cvt.f64.f64` without rounding to an integral number: only `.sat` acts.
#[inline]
pub fn f64_from_f64(a: u64, m: Modifiers) -> u64 {
    double::saturated(a, m)
}

/// `cvt.f64.f32`. A NaN keeps its sign and payload and becomes quiet.
#[inline]
pub fn f64_from_f32(a: u32, m: Modifiers) -> u64 {
    let value = operand(a, m.ftz);
    let bits = if value.is_nan() {
        u64::from(a & 0x8000_0000) << 32 | 0x7ff8_0000_0000_0000 | u64::from(a & 0x007f_ffff) << 29
    } else {
        f64::from(value).to_bits()
    };
    double::saturated(bits, m)
}

/// `cvt.f64.f16`, `cvt.f64.bf16`.
#[inline]
pub fn f64_from_half<H: Half>(a: u16, m: Modifiers) -> u64 {
    f64_from_f32(H::widen(a).to_bits(), Modifiers { ftz: false, ..m })
}

/// `cvt.f16.f32`, `cvt.bf16.f32`. `.ftz` acts on the operand alone.
#[inline]
pub fn half_from_f32<H: Half>(a: u32, m: Modifiers) -> u16 {
    limited::<H>(H::narrow(operand(a, m.ftz), m.rounding), m)
}

/// `cvt.f16.f64`, `cvt.bf16.f64`.
#[inline]
pub fn half_from_f64<H: Half>(a: u64, m: Modifiers) -> u16 {
    limited::<H>(narrow_f64::<H>(f64::from_bits(a), m.rounding), m)
}

/// `cvt.bf16.f16`, `cvt.f16.bf16`, and `cvt.sat.f16.f16`: from half format `A` to `B`.
#[inline]
pub fn half_from_half<A: Half, B: Half>(a: u16, m: Modifiers) -> u16 {
    limited::<B>(B::narrow(A::widen(a), m.rounding), m)
}

/// `cvt.rni.f32.f32` and its like: rounded to an integral number.
#[inline]
pub fn integral_f32(a: u32, m: Modifiers) -> u32 {
    single::result(integral(f64::from(operand(a, m.ftz)), m.rounding) as f32, m)
}

/// `cvt.rni.f64.f64` and its like: rounded to an integral number.
#[inline]
pub fn integral_f64(a: u64, m: Modifiers) -> u64 {
    let value = f64::from_bits(a);
    let bits = if value.is_nan() { a } else { integral(value, m.rounding).to_bits() };
    double::saturated(bits, m)
}

/// `cvt.rni.f16.f16`, `cvt.rni.bf16.bf16` and their like: rounded to an integral number.
#[inline]
pub fn integral_half<H: Half>(a: u16, m: Modifiers) -> u16 {
    let rounded = integral(f64::from(H::widen(a)), m.rounding) as f32;
    limited::<H>(H::narrow(rounded, Rounding::Nearest), m)
}

/// The bits of an f32 that tf32 lacks.
const DROPPED: u32 = 13;

/// `cvt.rn.tf32.f32`, `cvt.rz.tf32.f32`: an f32 whose last 13 bits are zero.
#[inline]
pub fn tf32_from_f32(a: u32, m: Modifiers) -> u32 {
    tf32(a, shorten::<DROPPED>(a & 0x7fff_ffff, m.rounding), m)
}

/// `cvt.rna.tf32.f32`: to nearest, ties away from zero; the rounding mode of the modifiers is ignored.
#[inline]
pub fn tf32_away_from_f32(a: u32, m: Modifiers) -> u32 {
    tf32(a, tf32_operand((a & 0x7fff_ffff) + (1 << (DROPPED - 1))), m)
}

#[inline]
fn tf32(a: u32, magnitude: u32, m: Modifiers) -> u32 {
    if f32::from_bits(a).is_nan() {
        return single::NAN;
    }
    let magnitude = if m.satfinite { magnitude.min(tf32_operand(f32::MAX.to_bits())) } else { magnitude };
    let negative = a >> 31 == 1;
    if m.relu && negative { 0 } else { a & 0x8000_0000 | magnitude }
}

/// What `mma` sees of a tf32 operand: the last 13 bits do not count.
#[inline]
pub fn tf32_operand(a: u32) -> u32 {
    a & !((1 << DROPPED) - 1)
}

/// `cvt.f16x2.f32`, `cvt.bf16x2.f32`: `a` in the upper half and `b` in the lower.
#[inline]
pub fn half2_from_f32<H: Half>(a: u32, b: u32, m: Modifiers) -> u32 {
    u32::from(half_from_f32::<H>(a, m)) << 16 | u32::from(half_from_f32::<H>(b, m))
}
