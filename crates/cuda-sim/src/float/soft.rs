//! Exact arithmetic on integers, rounded once: the reference for what the host cannot round.

use super::Rounding;

/// A binary interchange format.
#[derive(Clone, Copy)]
pub(super) struct Format {
    /// Bits of the stored significand.
    mantissa: u32,
    /// The largest exponent, which is also the bias.
    bias: i32,
}

pub(super) const F16: Format = Format { mantissa: 10, bias: 15 };
pub(super) const BF16: Format = Format { mantissa: 7, bias: 127 };
pub(super) const F32: Format = Format { mantissa: 23, bias: 127 };
pub(super) const F64: Format = Format { mantissa: 52, bias: 1023 };

/// The number `±significand * 2^exponent`, its significand below 2^126.
///
/// A number that has more bits than that is held with its last bit set (jammed): all bits above the last are true, and
/// the last one tells that the value lies strictly between its neighbours. No format here has more than 53 bits, and
/// every jammed significand has at least 60, so rounding sees no difference.
#[derive(Clone, Copy)]
pub(super) struct Exact {
    negative: bool,
    significand: u128,
    exponent: i32,
}

impl Format {
    const fn infinity(self) -> u64 {
        (2 * self.bias as u64 + 1) << self.mantissa
    }

    const fn sign(self) -> u64 {
        (2 * self.bias as u64 + 2) << self.mantissa
    }

    /// The value of finite bits.
    pub(super) fn unpack(self, bits: u64) -> Exact {
        let stored = bits & ((1 << self.mantissa) - 1);
        let biased = ((bits & self.infinity()) >> self.mantissa) as i32;
        let hidden = u64::from(biased != 0) << self.mantissa;
        Exact {
            negative: bits & self.sign() != 0,
            significand: u128::from(hidden | stored),
            exponent: biased.max(1) - self.bias - self.mantissa as i32,
        }
    }

    /// The bits of a value, rounded.
    pub(super) fn round(self, value: Exact, rounding: Rounding) -> u64 {
        let Exact { negative, significand, exponent } = value;
        let sign = if negative { self.sign() } else { 0 };
        if significand == 0 {
            return sign;
        }
        let away = match rounding {
            Rounding::Nearest | Rounding::Zero => false,
            Rounding::Down => negative,
            Rounding::Up => !negative,
        };
        let least = 1 - self.bias;
        let leading = (exponent + significand.ilog2() as i32).max(least);
        if leading > self.bias {
            return sign | self.overflow(away || rounding == Rounding::Nearest);
        }
        let dropped = leading - self.mantissa as i32 - exponent;
        let (kept, increment) = match dropped {
            ..=0 => ((significand << -dropped) as u64, false),
            // All of it is below half a unit in the last place.
            127.. => (0, away),
            _ => {
                let kept = (significand >> dropped) as u64;
                let rest = significand & ((1 << dropped) - 1);
                let half = 1 << (dropped - 1);
                let nearest = rest > half || (rest == half && kept & 1 == 1);
                (kept, (away && rest != 0) || (rounding == Rounding::Nearest && nearest))
            }
        };
        // The hidden bit of `kept` adds one to the exponent field, and so does a carry out of the significand.
        let bits = (((leading - least) as u64) << self.mantissa) + kept + u64::from(increment);
        // Only an increment reaches infinity, and then infinity is the rounded result.
        sign | bits
    }

    const fn overflow(self, outwards: bool) -> u64 {
        if outwards { self.infinity() } else { self.infinity() - 1 }
    }
}

impl Exact {
    /// An integer.
    pub(super) fn integer(value: i128) -> Self {
        Self { negative: value < 0, significand: value.unsigned_abs(), exponent: 0 }
    }

    /// The product of two unpacked numbers.
    pub(super) fn product(self, other: Self) -> Self {
        Self {
            negative: self.negative != other.negative,
            significand: self.significand * other.significand,
            exponent: self.exponent + other.exponent,
        }
    }

    /// The sum of two numbers of at most 106 bits.
    pub(super) fn sum(self, other: Self, rounding: Rounding) -> Self {
        if self.significand == 0 && other.significand == 0 {
            let negative = if self.negative == other.negative { self.negative } else { rounding == Rounding::Down };
            return Self { negative, ..self };
        }
        if self.significand == 0 || other.significand == 0 {
            return if self.significand == 0 { other } else { self };
        }
        // With both leading bits at bit 124, the larger exponent belongs to the larger number.
        let (a, b) = (self.leading_at(124), other.leading_at(124));
        let (a, b) = if a.exponent >= b.exponent { (a, b) } else { (b, a) };
        let aligned = jam(b.significand, (a.exponent - b.exponent) as u32);
        if a.negative == b.negative {
            return Self { significand: a.significand + aligned, ..a };
        }
        let significand = a.significand.abs_diff(aligned);
        let negative = match a.significand.cmp(&aligned) {
            std::cmp::Ordering::Greater => a.negative,
            std::cmp::Ordering::Equal => rounding == Rounding::Down,
            std::cmp::Ordering::Less => b.negative,
        };
        Self { negative, significand, exponent: a.exponent }
    }

    /// The quotient of two unpacked numbers, the divisor not zero.
    pub(super) fn quotient(self, divisor: Self) -> Self {
        let negative = self.negative != divisor.negative;
        if self.significand == 0 {
            return Self { negative, ..self };
        }
        let (a, b) = (self.leading_at(125), divisor.leading_at(63));
        let (quotient, rest) = (a.significand / b.significand, a.significand % b.significand);
        Self { negative, significand: quotient | u128::from(rest != 0), exponent: a.exponent - b.exponent }
    }

    /// The square root of an unpacked number that is not negative.
    pub(super) fn root(self) -> Self {
        if self.significand == 0 {
            return self;
        }
        let mut square = self.leading_at(124);
        if square.exponent % 2 != 0 {
            square = self.leading_at(125);
        }
        let root = square.significand.isqrt();
        let inexact = root * root != square.significand;
        Self { negative: false, significand: root | u128::from(inexact), exponent: square.exponent / 2 }
    }

    /// The same number with its leading bit moved up to that position.
    fn leading_at(self, position: u32) -> Self {
        let shift = position - self.significand.ilog2();
        Self { significand: self.significand << shift, exponent: self.exponent - shift as i32, ..self }
    }
}

/// Shifts right; the last bit is set where a bit was lost.
fn jam(significand: u128, shift: u32) -> u128 {
    match shift {
        0 => significand,
        1..=127 => significand >> shift | u128::from(significand << (128 - shift) != 0),
        _ => 1,
    }
}
