//! f16 and bf16: the instructions of 9.7.4, one half at a time.
//!
//! All round to nearest, once. A NaN result is the canonical NaN, `0x7fff` in both formats.

use super::{Compare, Modifiers, Rounding, odd_single, odd_sum, soft};

/// The NaN that every operation on halves returns.
pub const NAN: u16 = 0x7fff;

const SIGN: u16 = 0x8000;

/// One of the two 16-bit formats.
pub trait Half: Copy {
    /// Bits of infinity.
    const INFINITY: u16;
    /// Bits of one.
    const ONE: u16;
    /// Bits of the least positive normal number.
    const MIN_NORMAL: u16;
    /// The value, as every f32 can hold it.
    fn widen(bits: u16) -> f32;
    /// A number rounded; NaN gives [`NAN`].
    fn narrow(x: f32, rounding: Rounding) -> u16;
    /// An integer rounded.
    fn from_integer(value: i128, rounding: Rounding) -> u16;
}

/// `.f16`.
#[derive(Clone, Copy, Debug)]
pub struct F16;

/// `.bf16`.
#[derive(Clone, Copy, Debug)]
pub struct Bf16;

impl Half for F16 {
    const INFINITY: u16 = 0x7c00;
    const ONE: u16 = 0x3c00;
    const MIN_NORMAL: u16 = 0x0400;

    #[inline]
    fn widen(bits: u16) -> f32 {
        let magnitude = u32::from(bits & !SIGN) << 13;
        let sign = u32::from(bits & SIGN) << 16;
        // The product moves the exponent from the bias of f16 to that of f32, and normalises what is subnormal.
        let finite = (f32::from_bits(magnitude) * f32::from_bits(0x7780_0000)).to_bits();
        f32::from_bits(match bits & !SIGN {
            0..0x7c00 => sign | finite,
            0x7c00 => sign | 0x7f80_0000,
            _ => super::single::NAN,
        })
    }

    #[inline]
    fn narrow(x: f32, rounding: Rounding) -> u16 {
        if rounding != Rounding::Nearest && x.is_finite() {
            return soft::F16.round(soft::F32.unpack(u64::from(x.to_bits())), rounding) as u16;
        }
        let sign = (x.to_bits() >> 16) as u16 & SIGN;
        let magnitude = x.to_bits() & 0x7fff_ffff;
        // The last place of 0.5 is that of the subnormal f16, so the addition rounds there.
        let subnormal = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0x3f00_0000);
        let tie = (magnitude >> 13) & 1;
        let normal = magnitude.wrapping_sub(0x3800_0000).wrapping_add(0xfff + tie) >> 13;
        match magnitude {
            0..0x3880_0000 => sign | subnormal as u16,
            0x3880_0000..0x477f_f000 => sign | normal as u16,
            0x477f_f000..=0x7f80_0000 => sign | Self::INFINITY,
            _ => NAN,
        }
    }

    fn from_integer(value: i128, rounding: Rounding) -> u16 {
        soft::F16.round(soft::Exact::integer(value), rounding) as u16
    }
}

impl Half for Bf16 {
    const INFINITY: u16 = 0x7f80;
    const ONE: u16 = 0x3f80;
    const MIN_NORMAL: u16 = 0x0080;

    #[inline]
    fn widen(bits: u16) -> f32 {
        f32::from_bits(u32::from(bits) << 16)
    }

    #[inline]
    fn narrow(x: f32, rounding: Rounding) -> u16 {
        if x.is_nan() { NAN } else { (shorten::<16>(x.to_bits(), rounding) >> 16) as u16 }
    }

    fn from_integer(value: i128, rounding: Rounding) -> u16 {
        soft::BF16.round(soft::Exact::integer(value), rounding) as u16
    }
}

/// An f32 that is not NaN, rounded to the format that lacks its last `DROPPED` bits (bf16, tf32).
#[inline]
pub(super) fn shorten<const DROPPED: u32>(bits: u32, rounding: Rounding) -> u32 {
    let rest = (1 << DROPPED) - 1;
    let negative = bits >> 31 == 1;
    let increment = match rounding {
        Rounding::Nearest => rest / 2 + (bits >> DROPPED & 1),
        Rounding::Down if negative => rest,
        Rounding::Up if !negative => rest,
        Rounding::Zero | Rounding::Down | Rounding::Up => 0,
    };
    // A carry runs into the exponent, as it should, up to infinity; the sign is never reached.
    (bits + increment) & !rest
}

/// An f64 rounded once.
#[inline]
pub(super) fn narrow_f64<H: Half>(x: f64, rounding: Rounding) -> u16 {
    H::narrow(odd_single(x), rounding)
}

/// Zero of the same sign where the number is subnormal.
#[inline]
pub fn flush<H: Half>(bits: u16) -> u16 {
    if bits & !SIGN < H::MIN_NORMAL { bits & SIGN } else { bits }
}

#[inline]
pub(super) fn operand<H: Half>(bits: u16, ftz: bool) -> f32 {
    H::widen(if ftz { flush::<H>(bits) } else { bits })
}

/// A rounded result under `.ftz`, `.satfinite`, `.sat` and `.relu`.
#[inline]
fn result<H: Half>(bits: u16, m: Modifiers) -> u16 {
    let bits = if m.ftz { flush::<H>(bits) } else { bits };
    limited::<H>(bits, m)
}

/// A rounded result, its NaN canonical, under `.satfinite`, `.sat` and `.relu`.
#[inline]
pub(super) fn limited<H: Half>(bits: u16, m: Modifiers) -> u16 {
    let bits = if m.satfinite && bits & !SIGN == H::INFINITY { bits - 1 } else { bits };
    // NaN is canonical by now, hence positive.
    let negative = bits & SIGN != 0;
    if m.sat {
        return if negative || bits > H::INFINITY { 0 } else { bits.min(H::ONE) };
    }
    if m.relu && negative { 0 } else { bits }
}

/// `add.f16`, `add.bf16`.
#[inline]
pub fn add<H: Half>(a: u16, b: u16, m: Modifiers) -> u16 {
    // Rounding to f32 first does no harm: 24 bits are at least 2 * 11 + 2 (Figueroa, 1995), and sums of subnormal size
    // are exact.
    let sum = operand::<H>(a, m.ftz) + operand::<H>(b, m.ftz);
    result::<H>(H::narrow(sum, Rounding::Nearest), m)
}

/// `sub.f16`, `sub.bf16`.
#[inline]
pub fn sub<H: Half>(a: u16, b: u16, m: Modifiers) -> u16 {
    add::<H>(a, b ^ SIGN, m)
}

/// `mul.f16`, `mul.bf16`.
#[inline]
pub fn mul<H: Half>(a: u16, b: u16, m: Modifiers) -> u16 {
    // Exact in f32, unless it is a product of bf16 below 2^-134, half of the least bf16: then both ways end at zero.
    let product = operand::<H>(a, m.ftz) * operand::<H>(b, m.ftz);
    result::<H>(H::narrow(product, Rounding::Nearest), m)
}

/// `fma.f16`, `fma.bf16`.
#[inline]
pub fn fma<H: Half>(a: u16, b: u16, c: u16, m: Modifiers) -> u16 {
    let [a, b, c] = [a, b, c].map(|bits| f64::from(operand::<H>(bits, m.ftz)));
    // The product is exact. The sum need not be, and of bf16 the product can be a tie that a far smaller `c` decides.
    let sum = odd_sum(a * b, c, Rounding::Nearest);
    result::<H>(narrow_f64::<H>(sum, Rounding::Nearest), m)
}

/// `min.f16`, `min.bf16`: the other operand where one is NaN, unless `nan` (`.NaN`) is set.
#[inline]
pub fn min<H: Half>(a: u16, b: u16, ftz: bool, nan: bool) -> u16 {
    choose::<H>(a, b, ftz, nan, |a, b| a < b)
}

/// `max.f16`, `max.bf16`: the other operand where one is NaN, unless `nan` (`.NaN`) is set.
#[inline]
pub fn max<H: Half>(a: u16, b: u16, ftz: bool, nan: bool) -> u16 {
    choose::<H>(a, b, ftz, nan, |a, b| a > b)
}

#[inline]
fn choose<H: Half>(a: u16, b: u16, ftz: bool, nan: bool, first: impl Fn(i16, i16) -> bool) -> u16 {
    let (a, b) = if ftz { (flush::<H>(a), flush::<H>(b)) } else { (a, b) };
    let (nan_a, nan_b) = (a & !SIGN > H::INFINITY, b & !SIGN > H::INFINITY);
    // Ordered as the numbers are, with -0 below +0.
    let key = |bits: u16| bits as i16 ^ ((bits as i16 >> 15) & i16::MAX);
    let chosen = if nan_b || (!nan_a && first(key(a), key(b))) { a } else { b };
    if (nan_a && nan_b) || (nan && (nan_a || nan_b)) { NAN } else { chosen }
}

/// `abs.f16`, `abs.bf16`.
#[inline]
pub fn abs<H: Half>(a: u16, ftz: bool) -> u16 {
    (if ftz { flush::<H>(a) } else { a }) & !SIGN
}

/// `neg.f16`, `neg.bf16`.
#[inline]
pub fn neg<H: Half>(a: u16, ftz: bool) -> u16 {
    (if ftz { flush::<H>(a) } else { a }) ^ SIGN
}

/// The comparison of `set` and `setp` with half operands.
#[inline]
pub fn compare<H: Half>(a: u16, b: u16, op: Compare, ftz: bool) -> bool {
    op.of(operand::<H>(a, ftz), operand::<H>(b, ftz))
}
