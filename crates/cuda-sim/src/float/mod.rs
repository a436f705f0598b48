//! The scalar arithmetic of PTX, on register contents.
//!
//! Every function takes and returns bits (`u16`, `u32`, `u64`), so that NaN payloads and the sign of zero are never
//! left to the host. IEEE operations are exact in every rounding mode; approximations are computed in f64 and rounded
//! once. Section numbers are those of the PTX ISA 9.x.
//!
//! - [`single`], [`double`], [`half`]: add to sqrt, min, max, comparisons, of f32, f64, and f16 and bf16.
//! - [`convert`]: `cvt` between all of them and the integers, and tf32.
//! - [`approx`]: the `.approx` and `.full` functions.
//! - [`lanes`]: whole warps at a time, for the operations that matter.

pub mod approx;
pub mod convert;
pub mod double;
pub mod half;
pub mod lanes;
pub mod single;
mod soft;

/// The direction in which an inexact result is rounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Rounding {
    /// `.rn`, `.rni`: to nearest, ties to even.
    #[default]
    Nearest,
    /// `.rz`, `.rzi`: towards zero.
    Zero,
    /// `.rm`, `.rmi`: towards negative infinity.
    Down,
    /// `.rp`, `.rpi`: towards positive infinity.
    Up,
}

/// The modifiers of a floating-point instruction; what a type or an operation does not have is ignored there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Modifiers {
    /// `.rn`, `.rz`, `.rm`, `.rp`.
    pub rounding: Rounding,
    /// `.ftz`: subnormal inputs and results become zero of the same sign. Never of f64.
    pub ftz: bool,
    /// `.sat`: the result is clamped to [0, 1]; NaN and -0 become +0.
    pub sat: bool,
    /// `.relu`: a negative result becomes +0. Of half precision and tf32.
    pub relu: bool,
    /// `.satfinite`: beyond the largest finite number comes that number. Of conversions to half precision and tf32.
    pub satfinite: bool,
}

impl Modifiers {
    /// Round to nearest, and nothing else.
    pub const RN: Self = Self { rounding: Rounding::Nearest, ftz: false, sat: false, relu: false, satfinite: false };

    /// A rounding mode, and nothing else.
    pub const fn rounding(rounding: Rounding) -> Self {
        Self { rounding, ..Self::RN }
    }
}

/// A comparison of `set` and `setp` (9.7.5, 9.7.6). Those without `u` are false where an operand is NaN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compare {
    /// Equal.
    Eq,
    /// Ordered and not equal.
    Ne,
    /// Less.
    Lt,
    /// Less or equal.
    Le,
    /// Greater.
    Gt,
    /// Greater or equal.
    Ge,
    /// Equal or unordered.
    Equ,
    /// Not equal, or unordered.
    Neu,
    /// Less or unordered.
    Ltu,
    /// Less, equal or unordered.
    Leu,
    /// Greater or unordered.
    Gtu,
    /// Greater, equal or unordered.
    Geu,
    /// Both operands are numbers.
    Num,
    /// An operand is NaN.
    Nan,
}

impl Compare {
    /// The comparison of two values.
    #[inline]
    pub fn of<T: PartialOrd>(self, a: T, b: T) -> bool {
        let ordered = a <= b || a > b;
        match self {
            Self::Eq => a == b,
            Self::Ne => ordered && a != b,
            Self::Lt => a < b,
            Self::Le => a <= b,
            Self::Gt => a > b,
            Self::Ge => a >= b,
            Self::Equ => !ordered || a == b,
            Self::Neu => a != b,
            Self::Ltu => !(a >= b),
            Self::Leu => !(a > b),
            Self::Gtu => !(a <= b),
            Self::Geu => !(a < b),
            Self::Num => ordered,
            Self::Nan => !ordered,
        }
    }
}

/// A property that `testp` asks for (9.7.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TestOp {
    /// Neither infinite nor NaN.
    Finite,
    /// Infinite.
    Infinite,
    /// Not NaN.
    Number,
    /// NaN.
    NotANumber,
    /// Finite and not subnormal; zero counts as normal.
    Normal,
    /// Subnormal.
    Subnormal,
}

impl TestOp {
    fn of(self, class: std::num::FpCategory) -> bool {
        use std::num::FpCategory::{Infinite, Nan, Normal, Subnormal, Zero};
        match self {
            Self::Finite => !matches!(class, Infinite | Nan),
            Self::Infinite => class == Infinite,
            Self::Number => class != Nan,
            Self::NotANumber => class == Nan,
            Self::Normal => matches!(class, Normal | Zero),
            Self::Subnormal => class == Subnormal,
        }
    }
}

/// The sum of two f64 rounded to odd: where it is inexact, the neighbour whose last bit is set.
///
/// A second rounding, to any format with at least two bits fewer, then gives what one rounding of the exact sum gives
/// (Boldo and Melquiond, 2008). The rounding mode decides the sign of a sum of exactly zero.
#[inline]
fn odd_sum(a: f64, b: f64, rounding: Rounding) -> f64 {
    let sum = a + b;
    // Knuth's two-sum: the error of the rounded sum, exactly.
    let from_b = sum - a;
    let error = (a - (sum - from_b)) + (b - from_b);
    if sum == 0.0 {
        let cancelled = a.is_sign_negative() != b.is_sign_negative();
        return if cancelled && rounding == Rounding::Down { -0.0 } else { sum };
    }
    let bits = sum.to_bits();
    // The comparison fails for the NaN that an infinite sum leaves in the error.
    let inexact = error.abs() > 0.0 && bits & 1 == 0;
    let outwards = (error > 0.0) == (sum > 0.0);
    let step = if outwards { bits.wrapping_add(1) } else { bits.wrapping_sub(1) };
    f64::from_bits(if inexact { step } else { bits })
}

/// An f64 rounded to f32, to odd (see [`odd_sum`]). NaN stays NaN.
#[inline]
fn odd_single(x: f64) -> f32 {
    let near = x as f32;
    let back = f64::from(near);
    let bits = near.to_bits();
    // An infinite `near` of a finite `x` is even, and steps back to the largest finite number.
    let inexact = back != x && !x.is_nan() && bits & 1 == 0;
    let inwards = back.abs() > x.abs();
    let step = if inwards { bits.wrapping_sub(1) } else { bits.wrapping_add(1) };
    f32::from_bits(if inexact { step } else { bits })
}
