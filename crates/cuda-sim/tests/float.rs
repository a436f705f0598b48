//! The scalar arithmetic against exact integers, the host, and the `half` crate.
//!
//! The oracle does not compute a rounded result. It asks whether a given one is what the rounding mode demands: whether
//! the exact result lies on the right side of it, of its neighbour and of the midpoint between them. For that it needs
//! only the sign of a sum of integers times powers of two, taken in fixed point without any rounding.

use std::cmp::Ordering;

use cudrift_sim::float::convert::{self, Int};
use cudrift_sim::float::half::{self as halves, Bf16, F16, Half};
use cudrift_sim::float::{Compare, Modifiers, Rounding, TestOp, approx, double, lanes, single};

const MODES: [Rounding; 4] = [Rounding::Nearest, Rounding::Zero, Rounding::Down, Rounding::Up];

// ---------------------------------------------------------------------------------------------------------------------
// The oracle

/// `±m * 2^e`.
#[derive(Clone, Copy, Debug)]
struct Dyadic {
    negative: bool,
    m: u128,
    e: i32,
}

impl Dyadic {
    fn times(self, other: Self) -> Self {
        Self { negative: self.negative != other.negative, m: self.m * other.m, e: self.e + other.e }
    }

    fn minus(self) -> Self {
        Self { negative: !self.negative, ..self }
    }

    fn zero(self) -> bool {
        self.m == 0
    }
}

/// The sign of a sum.
fn sign(terms: &[Dyadic]) -> Ordering {
    let Some(base) = terms.iter().filter(|t| !t.zero()).map(|t| t.e).min() else { return Ordering::Equal };
    let mut sums = [[0u64; 80]; 2];
    for term in terms.iter().filter(|t| !t.zero()) {
        let shift = (term.e - base) as usize;
        let (limb, bit) = (shift / 64, shift % 64);
        let wide = [term.m << bit, if bit == 0 { 0 } else { term.m >> (128 - bit) }];
        let parts = [wide[0] as u64, (wide[0] >> 64) as u64, wide[1] as u64];
        let sum = &mut sums[usize::from(term.negative)];
        let mut carry = false;
        for (i, slot) in sum[limb..].iter_mut().enumerate() {
            let part = parts.get(i).copied().unwrap_or(0);
            let (first, over) = slot.overflowing_add(part);
            let (second, again) = first.overflowing_add(u64::from(carry));
            (*slot, carry) = (second, over || again);
            if i >= 2 && !carry {
                break;
            }
        }
    }
    sums[0].iter().rev().cmp(sums[1].iter().rev())
}

/// A format: stored bits of the significand, and exponent bias.
#[derive(Clone, Copy, Debug)]
struct Fmt {
    mantissa: u32,
    bias: i32,
}

const HALF: Fmt = Fmt { mantissa: 10, bias: 15 };
const BFLOAT: Fmt = Fmt { mantissa: 7, bias: 127 };
const TF32: Fmt = Fmt { mantissa: 10, bias: 127 };
const SINGLE: Fmt = Fmt { mantissa: 23, bias: 127 };
const DOUBLE: Fmt = Fmt { mantissa: 52, bias: 1023 };

impl Fmt {
    fn inf(self) -> u64 {
        (2 * self.bias as u64 + 1) << self.mantissa
    }

    fn top(self) -> u64 {
        (2 * self.bias as u64 + 2) << self.mantissa
    }

    fn finite(self, bits: u64) -> bool {
        bits & !self.top() < self.inf()
    }

    /// The value; of infinity, the power of two that would come next.
    fn value(self, bits: u64) -> Dyadic {
        let exponent = (bits & (self.top() - 1)) >> self.mantissa;
        let stored = bits & ((1 << self.mantissa) - 1);
        let (m, e) = if exponent == 0 { (stored, 1) } else { (stored | 1 << self.mantissa, exponent as i32) };
        Dyadic { negative: bits & self.top() != 0, m: u128::from(m), e: e - self.bias - self.mantissa as i32 }
    }

    /// The next number away from zero, or towards it; across zero where it must.
    fn neighbour(self, bits: u64, up: bool) -> u64 {
        let negative = bits & self.top() != 0;
        match (bits & !self.top(), up) {
            (0, true) => 1,
            (0, false) => self.top() | 1,
            _ if negative == up => bits - 1,
            _ => bits + 1,
        }
    }

    /// Whether `bits` is the exact result rounded. `order` compares the exact result to a number; `zero` is the sign of
    /// an exact zero.
    fn accepts(self, bits: u64, rounding: Rounding, zero: bool, order: impl Fn(Dyadic) -> Ordering) -> bool {
        let result = self.value(bits);
        let against_zero = order(Dyadic { negative: false, m: 0, e: 0 });
        let side = order(result);
        let infinite = !self.finite(bits);
        if against_zero == Ordering::Equal {
            return result.zero() && result.negative == zero;
        }
        if result.negative != (against_zero == Ordering::Less) {
            return false;
        }
        let down = || {
            if infinite && !result.negative {
                return false;
            }
            let above = self.neighbour(bits, true);
            let below_next = above == self.inf() || order(self.value(above)) == Ordering::Less;
            (side != Ordering::Less || infinite) && below_next
        };
        let up = || {
            if infinite && result.negative {
                return false;
            }
            let below = self.neighbour(bits, false);
            let above_next = below == self.inf() | self.top() || order(self.value(below)) == Ordering::Greater;
            (side != Ordering::Greater || infinite) && above_next
        };
        match rounding {
            Rounding::Down => down(),
            Rounding::Up => up(),
            Rounding::Zero if against_zero == Ordering::Greater => down(),
            Rounding::Zero => up(),
            Rounding::Nearest => {
                let outwards = side == if result.negative { Ordering::Less } else { Ordering::Greater };
                if side == Ordering::Equal || (infinite && outwards) {
                    return true;
                }
                let (a, b) = (result, self.value(self.neighbour(bits, side == Ordering::Greater)));
                let e = a.e.min(b.e);
                let m = |d: Dyadic| (d.m << (d.e - e)) as i128 * if d.negative { -1 } else { 1 };
                let sum = m(a) + m(b);
                let midpoint = Dyadic { negative: sum < 0, m: sum.unsigned_abs(), e: e - 1 };
                match order(midpoint) {
                    Ordering::Equal => bits & 1 == 0,
                    other => other != side,
                }
            }
        }
    }

    fn accepts_sum(self, bits: u64, rounding: Rounding, a: Dyadic, b: Dyadic) -> bool {
        let zero = if a.negative == b.negative { a.negative } else { rounding == Rounding::Down };
        self.accepts(bits, rounding, zero, |v| sign(&[a, b, v.minus()]))
    }

    fn accepts_value(self, bits: u64, rounding: Rounding, a: Dyadic) -> bool {
        self.accepts(bits, rounding, a.negative, |v| sign(&[a, v.minus()]))
    }

    fn accepts_quotient(self, bits: u64, rounding: Rounding, a: Dyadic, b: Dyadic) -> bool {
        let magnitude = Dyadic { negative: false, ..b };
        let signed = Dyadic { negative: a.negative != b.negative, ..a };
        self.accepts(bits, rounding, signed.negative, |v| sign(&[signed, v.times(magnitude).minus()]))
    }

    fn accepts_root(self, bits: u64, rounding: Rounding, a: Dyadic) -> bool {
        self.accepts(bits, rounding, a.negative, |v| {
            if v.negative && !v.zero() { Ordering::Greater } else { sign(&[a, v.times(v).minus()]) }
        })
    }
}

/// SplitMix64, and operands that meet each other's edges.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn operand(&mut self, f: Fmt, near: u64) -> u64 {
        let (r, choice) = (self.next(), self.next());
        let mask = f.top() | (f.top() - 1);
        let special =
            [0, 1, (1 << f.mantissa) - 1, 1 << f.mantissa, (f.bias as u64) << f.mantissa, f.inf() - 1, f.inf()];
        let stored = (1 << f.mantissa) - 1;
        let exponent = |offset: u64| ((f.bias as u64 + (offset % 9)).wrapping_sub(4)) << f.mantissa;
        match choice % 16 {
            0 => special[(r % 7) as usize] | (r & f.top()),
            1 => r & (f.top() | stored),
            2 => special[(r % 7) as usize].wrapping_add(r >> 40 & 3) & mask | (r & f.top()),
            3 => f.inf() | (r & (f.top() | stored)),
            4 | 5 => r & mask,
            6 | 7 => (near ^ (r & 7) ^ (r & f.top())) & mask,
            8 | 9 => (near & f.inf()).wrapping_add(((r >> 8) % 5) << f.mantissa) & f.inf() | (r & (f.top() | stored)),
            10 | 11 => exponent(r >> 32) | (r & f.top()) | (r & self.next() & self.next() & stored),
            12 => exponent(r >> 32) | (r & f.top()) | (stored ^ (r & self.next() & self.next() & stored)),
            _ => exponent(r >> 32) | (r & (f.top() | stored)),
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// f32 and f64

/// The host's f32 with NaN made canonical.
fn canonical(x: f32) -> u32 {
    if x.is_nan() { single::NAN } else { x.to_bits() }
}

#[test]
fn f32_in_every_mode() {
    let mut random = Random(1);
    for round in 0..400_000 {
        let a = random.operand(SINGLE, 0) as u32;
        let b = random.operand(SINGLE, u64::from(a)) as u32;
        let c = random.operand(
            SINGLE,
            u64::from(if round % 2 == 0 { a } else { (f32::from_bits(a) * f32::from_bits(b)).to_bits() }),
        ) as u32;
        let [x, y, z] = [a, b, c].map(f32::from_bits);
        let [p, q, r] = [a, b, c].map(|bits| SINGLE.value(u64::from(bits)));
        let finite = x.is_finite() && y.is_finite();
        for rounding in MODES {
            let m = Modifiers::rounding(rounding);
            let check = |name: &str, got: u32, host: f32, exact: bool, accepts: &dyn Fn(u64) -> bool| {
                let right = match exact {
                    true => accepts(u64::from(got)) && (rounding != Rounding::Nearest || got == host.to_bits()),
                    false => got == canonical(host),
                };
                assert!(right, "{name} {rounding:?} {a:#x} {b:#x} {c:#x}: {got:#x}, on the host {:#x}", host.to_bits());
            };
            check("add", single::add(a, b, m), x + y, finite, &|v| SINGLE.accepts_sum(v, rounding, p, q));
            check("sub", single::sub(a, b, m), x - y, finite, &|v| SINGLE.accepts_sum(v, rounding, p, q.minus()));
            check("mul", single::mul(a, b, m), x * y, finite, &|v| SINGLE.accepts_value(v, rounding, p.times(q)));
            check("fma", single::fma(a, b, c, m), x.mul_add(y, z), finite && z.is_finite(), &|v| {
                SINGLE.accepts_sum(v, rounding, p.times(q), r)
            });
            check("div", single::div(a, b, m), x / y, finite && y != 0.0, &|v| {
                SINGLE.accepts_quotient(v, rounding, p, q)
            });
            check("rcp", single::rcp(a, m), 1.0 / x, x.is_finite() && x != 0.0, &|v| {
                SINGLE.accepts_quotient(v, rounding, Dyadic { negative: false, m: 1, e: 0 }, p)
            });
            check("sqrt", single::sqrt(a, m), x.sqrt(), x.is_finite() && x >= 0.0, &|v| {
                SINGLE.accepts_root(v, rounding, p)
            });
        }
    }
}

#[test]
fn f64_in_every_mode() {
    let mut random = Random(2);
    for round in 0..200_000 {
        let a = random.operand(DOUBLE, 0);
        let b = random.operand(DOUBLE, a);
        let product = f64::from_bits(a) * f64::from_bits(b);
        let c = random.operand(DOUBLE, if round % 2 == 0 { a } else { product.to_bits() });
        let [x, y, z] = [a, b, c].map(f64::from_bits);
        let [p, q, r] = [a, b, c].map(|bits| DOUBLE.value(bits));
        let finite = x.is_finite() && y.is_finite();
        for rounding in MODES {
            let check = |name: &str, got: u64, host: f64, exact: bool, accepts: &dyn Fn(u64) -> bool| {
                let right = match exact {
                    true => accepts(got) && (rounding != Rounding::Nearest || got == host.to_bits()),
                    false if host.is_nan() => f64::from_bits(got).is_nan() && got & 1 << 51 != 0,
                    false => got == host.to_bits(),
                };
                assert!(right, "{name} {rounding:?} {a:#x} {b:#x} {c:#x}: {got:#x}, on the host {:#x}", host.to_bits());
            };
            let one = Dyadic { negative: false, m: 1, e: 0 };
            check("add", double::add(a, b, rounding), x + y, finite, &|v| DOUBLE.accepts_sum(v, rounding, p, q));
            check("sub", double::sub(a, b, rounding), x - y, finite, &|v| {
                DOUBLE.accepts_sum(v, rounding, p, q.minus())
            });
            check("mul", double::mul(a, b, rounding), x * y, finite, &|v| {
                DOUBLE.accepts_value(v, rounding, p.times(q))
            });
            check("fma", double::fma(a, b, c, rounding), x.mul_add(y, z), finite && z.is_finite(), &|v| {
                DOUBLE.accepts_sum(v, rounding, p.times(q), r)
            });
            check("div", double::div(a, b, rounding), x / y, finite && y != 0.0, &|v| {
                DOUBLE.accepts_quotient(v, rounding, p, q)
            });
            check("rcp", double::rcp(a, rounding), 1.0 / x, x.is_finite() && x != 0.0, &|v| {
                DOUBLE.accepts_quotient(v, rounding, one, p)
            });
            check("sqrt", double::sqrt(a, rounding), x.sqrt(), x.is_finite() && x >= 0.0, &|v| {
                DOUBLE.accepts_root(v, rounding, p)
            });
        }
    }
}

/// An error of the last place, a wrong tie and a wrong sign of zero must all be seen.
#[test]
fn the_oracle_refuses() {
    let one = Dyadic { negative: false, m: 1, e: 0 };
    let third = |bits: u32, mode| SINGLE.accepts_quotient(u64::from(bits), mode, one, Dyadic { m: 3, ..one });
    let near = (1.0f32 / 3.0).to_bits();
    assert!(third(near, Rounding::Nearest) && third(near, Rounding::Up) && third(near - 1, Rounding::Down));
    assert!(!third(near - 1, Rounding::Nearest) && !third(near + 1, Rounding::Up) && !third(near, Rounding::Zero));
    assert!(!third(near | 1 << 31, Rounding::Nearest));
    let tie = Dyadic { negative: false, m: (1 << 24) + 1, e: -24 };
    assert!(SINGLE.accepts_value(0x3f80_0000, Rounding::Nearest, tie));
    assert!(!SINGLE.accepts_value(0x3f80_0001, Rounding::Nearest, tie));
    assert!(SINGLE.accepts_sum(1 << 31, Rounding::Down, one, one.minus()));
    assert!(!SINGLE.accepts_sum(1 << 31, Rounding::Nearest, one, one.minus()));
    let huge = Dyadic { negative: true, m: 1, e: 500 };
    assert!(SINGLE.accepts_value(0xff80_0000, Rounding::Nearest, huge));
    assert!(SINGLE.accepts_value(0xff7f_ffff, Rounding::Zero, huge));
    assert!(!SINGLE.accepts_value(0xff7f_ffff, Rounding::Down, huge));
}

#[test]
fn flush_and_saturate() {
    let m = |ftz, sat| Modifiers { ftz, sat, ..Modifiers::RN };
    let (one, tiny) = (1f32.to_bits(), 0x0040_0000);
    // Inputs and results, sign-preserving.
    assert_eq!(single::add(tiny, tiny, m(true, false)), 0);
    assert_eq!(single::add(tiny, tiny, m(false, false)), 0x0080_0000);
    assert_eq!(single::mul(tiny | 1 << 31, one, m(true, false)), 1 << 31);
    assert_eq!(single::mul(0x8080_0000, 0.5f32.to_bits(), m(true, false)), 1 << 31);
    assert_eq!(single::fma(0x0080_0000, 0.5f32.to_bits(), 0, m(true, false)), 0);
    assert_eq!(single::div(one, tiny, m(true, false)), f32::INFINITY.to_bits());
    assert_eq!(single::sqrt(tiny, m(true, false)), 0);
    assert_eq!(single::sqrt(1 << 31, m(false, false)), 1 << 31);
    for (x, expected) in [(2.0, 1.0), (0.25, 0.25), (-3.0, 0.0), (-0.0, 0.0), (f32::NAN, 0.0), (f32::INFINITY, 1.0)] {
        let got = single::mul(f32::to_bits(x), one, m(false, true));
        assert_eq!(got, f32::to_bits(expected), "{x}");
        assert_eq!(convert::f32_from_f32(f32::to_bits(x), m(false, true)), got);
        assert_eq!(convert::f64_from_f64(f64::from(x).to_bits(), m(false, true)), f64::from(expected).to_bits());
        let half = convert::half_from_f32::<F16>(f32::to_bits(x), m(false, true));
        assert_eq!(half, half::f16::from_f32(expected).to_bits());
        assert_eq!(halves::mul::<F16>(half::f16::from_f32(x).to_bits(), 0x3c00, m(false, true)), half);
    }
    // NaN in, canonical NaN out.
    assert_eq!(single::add(0xffc1_2345, one, Modifiers::RN), single::NAN);
    assert_eq!(double::add(0x7ff0_0000_0000_0001, 0, Rounding::Nearest), 0x7ff8_0000_0000_0001);
    assert_eq!(double::sub(f64::INFINITY.to_bits(), f64::INFINITY.to_bits(), Rounding::Up), double::NAN);
    // Halves: flushed inputs, flushed results, .relu.
    assert_eq!(halves::add::<F16>(0x0200, 0x0200, m(true, false)), 0);
    assert_eq!(halves::mul::<F16>(0x8400, 0x3800, m(true, false)), 0x8000);
    let relu = Modifiers { relu: true, ..Modifiers::RN };
    assert_eq!(halves::fma::<Bf16>(0xbf80, 0x3f80, 0, relu), 0);
    assert_eq!(halves::fma::<Bf16>(0xffff, 0x3f80, 0, relu), halves::NAN);
}

#[test]
fn min_max_compare_testp() {
    let (zero, minus, one, nan) = (0u32, 1 << 31, 1f32.to_bits(), 0x7fc0_0000);
    assert_eq!([single::min(zero, minus, false, false), single::min(minus, zero, false, false)], [minus; 2]);
    assert_eq!([single::max(zero, minus, false, false), single::max(minus, zero, false, false)], [zero; 2]);
    assert_eq!([single::min(nan, one, false, false), single::max(one, nan, false, false)], [one; 2]);
    let propagated = [single::min(nan, one, false, true), single::min(one, nan, false, true)];
    assert_eq!(propagated, [single::NAN; 2]);
    assert_eq!([single::max(one, nan, false, true), single::max(nan, nan, false, false)], [single::NAN; 2]);
    assert_eq!(single::max(0x8000_0001, minus, true, false), minus);
    assert_eq!(double::min(0, 1 << 63), 1 << 63);
    assert_eq!(double::max(double::NAN, 7), 7);
    assert_eq!(halves::min::<F16>(0x7e00, 0x3c00, false, false), 0x3c00);
    assert_eq!(halves::max::<Bf16>(0x7fc0, 0x3f80, false, true), halves::NAN);
    assert_eq!(halves::min::<F16>(0, 0x8000, false, false), 0x8000);
    assert_eq!(single::copysign(minus, one), (-1f32).to_bits());
    assert_eq!(double::copysign(1 << 63, 1f64.to_bits()), (-1f64).to_bits());
    assert_eq!([single::abs(0x8000_0001, true), single::neg(1, true)], [0, minus]);
    assert_eq!([double::abs(1 << 63), double::neg(0)], [0, 1 << 63]);
    assert_eq!([halves::abs::<F16>(0x8001, true), halves::neg::<Bf16>(0x3f80, false)], [0, 0xbf80]);

    let mut random = Random(3);
    for _ in 0..200_000 {
        let a = random.operand(SINGLE, 0) as u32;
        let b = random.operand(SINGLE, u64::from(a)) as u32;
        let (x, y) = (f32::from_bits(a), f32::from_bits(b));
        if x != y {
            let (low, high) = (canonical(x.min(y)), canonical(x.max(y)));
            assert_eq!(
                [single::min(a, b, false, false), single::max(a, b, false, false)],
                [low, high],
                "{a:#x} {b:#x}"
            );
        }
        let (wide_a, wide_b) = (f64::from(x).to_bits(), f64::from(y).to_bits());
        let nan = x.is_nan() || y.is_nan();
        use Compare::*;
        let table = [
            (Eq, Equ, x == y),
            (Ne, Neu, x != y),
            (Lt, Ltu, x < y),
            (Le, Leu, x <= y),
            (Gt, Gtu, x > y),
            (Ge, Geu, x >= y),
            (Num, Nan, !nan),
        ];
        for (ordered, unordered, holds) in table {
            let expected = (holds && !nan, if ordered == Num { nan } else { holds || nan });
            assert_eq!((single::compare(a, b, ordered, false), single::compare(a, b, unordered, false)), expected);
            assert_eq!(
                (double::compare(wide_a, wide_b, ordered), double::compare(wide_a, wide_b, unordered)),
                expected
            );
        }
    }
    assert!(single::compare(1, minus, Compare::Eq, true) && !single::compare(1, minus, Compare::Eq, false));
    assert!(halves::compare::<F16>(0x3c00, 0x4000, Compare::Lt, false));
    assert!(halves::compare::<Bf16>(0x7fc0, 0, Compare::Geu, false));

    use TestOp::*;
    let all = [Finite, Infinite, Number, NotANumber, Normal, Subnormal];
    for (x, holds) in [
        (0.0, [true, false, true, false, true, false]),
        (1.5, [true, false, true, false, true, false]),
        (1e-40, [true, false, true, false, false, true]),
        (f32::INFINITY, [false, true, true, false, false, false]),
        (f32::NAN, [false, false, false, true, false, false]),
    ] {
        assert_eq!(all.map(|op| single::testp(f32::to_bits(x), op)), holds);
    }
    assert!(double::testp(1, Subnormal) && double::testp(0, Normal));
}

// ---------------------------------------------------------------------------------------------------------------------
// Halves

/// Every value of a half format, and what lies between and beyond, from f32 and f64 in every mode.
fn narrowing<H: Half>(f: Fmt) {
    for bits in 0..=u16::MAX {
        let (u, wide) = (u64::from(bits), H::widen(bits));
        if !f.finite(u) {
            if u & !f.top() == f.inf() {
                assert!(wide.is_infinite() && wide.is_sign_negative() == (u & f.top() != 0));
            } else {
                assert!(wide.is_nan());
                assert_eq!(H::narrow(wide, Rounding::Up), halves::NAN);
            }
            continue;
        }
        assert_eq!(sign(&[f.value(u), SINGLE.value(u64::from(wide.to_bits())).minus()]), Ordering::Equal);
        assert_eq!(wide.is_sign_negative(), u & f.top() != 0);
        // The halfway point to the next number outwards, exactly in f64, and its neighbours in f32 and f64.
        let next = f.value(u + 1);
        let next = next.m as f64 * 2f64.powi(next.e) * if next.negative { -1.0 } else { 1.0 };
        let middle = (f64::from(wide) + next) / 2.0;
        for rounding in MODES {
            let m = Modifiers::rounding(rounding);
            assert_eq!(H::narrow(wide, rounding), bits);
            for step in [-1i64, 0, 1] {
                let near = (wide.to_bits() as i32).wrapping_add(step as i32) as u32;
                let single = ((middle as f32).to_bits() as i32).wrapping_add(step as i32) as u32;
                let double = (middle.to_bits() as i64).wrapping_add(step) as u64;
                for x in [near, single].into_iter().filter(|&x| f32::from_bits(x).is_finite()) {
                    let got = convert::half_from_f32::<H>(x, m);
                    let right = f.accepts_value(u64::from(got), rounding, SINGLE.value(u64::from(x)));
                    assert!(right, "{rounding:?} {x:#x}: {got:#x}");
                }
                let got = convert::half_from_f64::<H>(double, m);
                let right = f.accepts_value(u64::from(got), rounding, DOUBLE.value(double));
                assert!(right, "{rounding:?} {double:#x}: {got:#x}");
            }
        }
    }
    let mut random = Random(4);
    for _ in 0..100_000 {
        let (a, b) = (random.operand(SINGLE, 0), random.operand(DOUBLE, 0));
        for rounding in MODES {
            let m = Modifiers::rounding(rounding);
            let (x, y) = (convert::half_from_f32::<H>(a as u32, m), convert::half_from_f64::<H>(b, m));
            if SINGLE.finite(a) {
                assert!(f.accepts_value(u64::from(x), rounding, SINGLE.value(a)), "{rounding:?} {a:#x}: {x:#x}");
            }
            if DOUBLE.finite(b) {
                assert!(f.accepts_value(u64::from(y), rounding, DOUBLE.value(b)), "{rounding:?} {b:#x}: {y:#x}");
            }
        }
    }
}

#[test]
fn f16_conversions_exhaustively() {
    narrowing::<F16>(HALF);
}

#[test]
fn bf16_conversions_exhaustively() {
    narrowing::<Bf16>(BFLOAT);
}

/// The `half` crate as a second witness.
#[test]
fn half_crate_agrees() {
    let mut random = Random(5);
    for _ in 0..1_000_000 {
        let x = f32::from_bits(random.operand(SINGLE, 0) as u32);
        if !x.is_nan() {
            assert_eq!(F16::narrow(x, Rounding::Nearest), half::f16::from_f32(x).to_bits());
            assert_eq!(Bf16::narrow(x, Rounding::Nearest), half::bf16::from_f32(x).to_bits());
        }
    }
    for bits in (0..=u16::MAX).filter(|&bits| !half::f16::from_bits(bits).is_nan()) {
        assert_eq!(F16::widen(bits).to_bits(), half::f16::from_bits(bits).to_f32().to_bits());
    }
}

/// Add, mul and fma: each value against a sample of all others, and random triples.
fn half_arithmetic<H: Half>(f: Fmt) {
    let mut random = Random(6);
    let m = Modifiers::RN;
    let pair = |a: u16, b: u16| {
        let (ua, ub) = (u64::from(a), u64::from(b));
        let host = (H::widen(a) + H::widen(b), H::widen(a) * H::widen(b));
        let (sum, product) = (halves::add::<H>(a, b, m), halves::mul::<H>(a, b, m));
        assert_eq!(halves::sub::<H>(a, b ^ 0x8000, m), sum);
        if !f.finite(ua) || !f.finite(ub) {
            assert_eq!(sum, H::narrow(host.0, Rounding::Nearest));
            assert_eq!(product, H::narrow(host.1, Rounding::Nearest));
            return;
        }
        let (x, y) = (f.value(ua), f.value(ub));
        assert!(f.accepts_sum(u64::from(sum), Rounding::Nearest, x, y), "{a:#x} + {b:#x}: {sum:#x}");
        let right = f.accepts_value(u64::from(product), Rounding::Nearest, x.times(y));
        assert!(right, "{a:#x} * {b:#x}: {product:#x}");
    };
    for a in 0..=u16::MAX {
        for _ in 0..32 {
            pair(a, random.next() as u16);
            pair(a, random.operand(f, u64::from(a)) as u16);
        }
    }
    let triple = |a: u16, b: u16, c: u16| {
        let got = halves::fma::<H>(a, b, c, m);
        if [a, b, c].iter().all(|&bits| f.finite(u64::from(bits))) {
            let [x, y, z] = [a, b, c].map(|bits| f.value(u64::from(bits)));
            let right = f.accepts_sum(u64::from(got), Rounding::Nearest, x.times(y), z);
            assert!(right, "{a:#x} * {b:#x} + {c:#x}: {got:#x}");
        } else {
            // In f64, where finite factors have a finite product.
            let [x, y, z] = [a, b, c].map(|bits| f64::from(H::widen(bits)));
            assert_eq!(got, H::narrow((x * y + z) as f32, Rounding::Nearest));
        }
    };
    for round in 0..3_000_000 {
        let a = random.operand(f, 0) as u16;
        let b = random.operand(f, u64::from(a)) as u16;
        let near = if round % 2 == 0 { halves::mul::<H>(a, b, m) } else { random.next() as u16 };
        triple(a, b, random.operand(f, u64::from(near)) as u16);
    }
    // Products about the least numbers.
    for _ in 0..500_000 {
        let (r, stored) = (random.next(), (1u64 << f.mantissa) - 1);
        let a = (f.bias as u64 / 2 + r % 16).saturating_sub(8) << f.mantissa | (r >> 16 & stored);
        let b =
            (f.bias as u64 / 2 + (r >> 8) % 8).saturating_sub(f.mantissa as u64 + 4) << f.mantissa | (r >> 32 & stored);
        pair(a as u16, b as u16 | (r >> 48) as u16 & 0x8000);
    }
    // Products that are ties: the least of addends decides.
    for a in 0..1 << f.mantissa {
        let (x, y) = (H::ONE | a, H::ONE | 1 << (f.mantissa - 1));
        for c in [0, 1, 0x8001, H::MIN_NORMAL, 0x8000 | H::MIN_NORMAL] {
            triple(x, y, c);
            triple(x, x, c);
            triple(x | 0x8000, y, c);
        }
    }
}

#[test]
fn f16_arithmetic() {
    half_arithmetic::<F16>(HALF);
}

#[test]
fn bf16_arithmetic() {
    half_arithmetic::<Bf16>(BFLOAT);
}

// ---------------------------------------------------------------------------------------------------------------------
// cvt

const INTS: [Int; 8] = [
    Int { bits: 8, signed: true },
    Int { bits: 16, signed: true },
    Int { bits: 32, signed: true },
    Int { bits: 64, signed: true },
    Int { bits: 8, signed: false },
    Int { bits: 16, signed: false },
    Int { bits: 32, signed: false },
    Int { bits: 64, signed: false },
];

fn range(int: Int) -> (i128, i128) {
    let width = int.bits - u32::from(int.signed);
    (if int.signed { -(1 << width) } else { 0 }, (1 << width) - 1)
}

/// The integer that a dyadic number rounds to, on i128, clamped.
fn integer(x: Dyadic, rounding: Rounding, (low, high): (i128, i128)) -> i128 {
    let (whole, rest, half) = match x.e {
        0.. if x.e > 70 && x.m != 0 => return if x.negative { low } else { high },
        0.. => (x.m << x.e.min(70), 0, 1),
        -120..0 => (x.m >> -x.e, x.m & ((1 << -x.e) - 1), 1 << (-x.e - 1)),
        _ => (0, u128::from(x.m != 0), 2),
    };
    let up = match rounding {
        Rounding::Nearest => rest > half || (rest == half && whole % 2 == 1),
        Rounding::Zero => false,
        Rounding::Down => x.negative && rest != 0,
        Rounding::Up => !x.negative && rest != 0,
    };
    let magnitude = (whole + u128::from(up)) as i128;
    (if x.negative { -magnitude } else { magnitude }).clamp(low, high)
}

#[test]
fn floats_to_integers() {
    let mut random = Random(7);
    for _ in 0..100_000 {
        let wide = match random.next() % 4 {
            0 => random.operand(DOUBLE, 0),
            // About the ends of the ranges, and about halves.
            1 => ((random.next() as i64 >> (random.next() % 64)) as f64)
                .to_bits()
                .wrapping_add(random.next() % 3)
                .wrapping_sub(1),
            2 => ((random.next() as i64 >> (40 + random.next() % 24)) as f64 / 2.0).to_bits(),
            _ => ((random.next() as i64 >> (random.next() % 64)) as f64 / 4.0).to_bits(),
        };
        let narrow = (f64::from_bits(wide) as f32).to_bits();
        let half = F16::narrow(f32::from_bits(narrow), Rounding::Nearest);
        let bfloat = Bf16::narrow(f32::from_bits(narrow), Rounding::Nearest);
        for int in INTS {
            for rounding in MODES {
                let expected = |f: Fmt, bits: u64| {
                    if f.finite(bits) {
                        return integer(f.value(bits), rounding, range(int)) as u64;
                    }
                    if bits & !f.top() == f.inf() {
                        let (low, high) = range(int);
                        return (if bits & f.top() != 0 { low } else { high }) as u64;
                    }
                    match f.mantissa == 52 || int.bits == 64 {
                        true if int.signed => range(int).0 as u64,
                        true => 1 << (int.bits - 1),
                        false => 0,
                    }
                };
                let what = || format!("{rounding:?} {int:?} {wide:#x}");
                assert_eq!(convert::int_from_f64(wide, rounding, int), expected(DOUBLE, wide), "{}", what());
                let got = convert::int_from_f32(narrow, rounding, false, int);
                assert_eq!(got, expected(SINGLE, u64::from(narrow)), "{}", what());
                let got = convert::int_from_half::<F16>(half, rounding, int);
                assert_eq!(got, expected(HALF, u64::from(half)), "{}", what());
                let got = convert::int_from_half::<Bf16>(bfloat, rounding, int);
                assert_eq!(got, expected(BFLOAT, u64::from(bfloat)), "{}", what());
            }
        }
    }
    let s32 = Int { bits: 32, signed: true };
    assert_eq!(convert::int_from_f32(1, Rounding::Up, false, s32), 1);
    assert_eq!(convert::int_from_f32(1, Rounding::Up, true, s32), 0);
}

#[test]
fn integers_to_anything() {
    let mut random = Random(8);
    for round in 0..100_000 {
        let raw = if round < 200 { [0, 1, u64::MAX, 1 << 63, (1 << 63) - 1][round % 5] } else { random.next() };
        let a = match round % 4 {
            // Beside the midpoints of f32 and f64.
            0 => ((raw >> 39 | 1 << 24 | 1) << 38).wrapping_add(raw % 3).wrapping_sub(1),
            1 => ((raw >> 10 | 1 << 53 | 1) << 9).wrapping_add(raw % 3).wrapping_sub(1),
            _ => ((raw as i64) >> (random.next() % 64)) as u64,
        };
        for from in INTS {
            let value = match (from.bits, from.signed) {
                (8, true) => i128::from(a as i8),
                (16, true) => i128::from(a as i16),
                (32, true) => i128::from(a as i32),
                (_, true) => i128::from(a as i64),
                (8, false) => i128::from(a as u8),
                (16, false) => i128::from(a as u16),
                (32, false) => i128::from(a as u32),
                (_, false) => i128::from(a),
            };
            let exact = Dyadic { negative: value < 0, m: value.unsigned_abs(), e: 0 };
            for rounding in MODES {
                let m = Modifiers::rounding(rounding);
                let check = |f: Fmt, bits: u64| {
                    assert!(f.accepts_value(bits, rounding, exact), "{f:?} {rounding:?} {value}: {bits:#x}");
                };
                check(SINGLE, u64::from(convert::f32_from_int(a, from, m)));
                check(DOUBLE, convert::f64_from_int(a, from, m));
                check(HALF, u64::from(convert::half_from_int::<F16>(a, from, m)));
                check(BFLOAT, u64::from(convert::half_from_int::<Bf16>(a, from, m)));
            }
            for to in INTS {
                let (low, high) = range(to);
                assert_eq!(convert::int_from_int(a, from, to, true), value.clamp(low, high) as u64);
                let dropped = value.rem_euclid(1 << to.bits);
                let wrapped = if dropped > high { dropped - (1 << to.bits) } else { dropped };
                assert_eq!(convert::int_from_int(a, from, to, false), wrapped as u64);
            }
        }
    }
}

#[test]
fn floats_to_floats() {
    let mut random = Random(9);
    for round in 0..400_000 {
        let a = match round % 2 {
            0 => random.operand(DOUBLE, 0),
            // About numbers and midpoints of f32.
            _ => f64::from(f32::from_bits(random.operand(SINGLE, 0) as u32))
                .to_bits()
                .wrapping_add((random.next() % 2) << 28)
                .wrapping_add(random.next() % 3)
                .wrapping_sub(1),
        };
        for rounding in MODES {
            let m = Modifiers::rounding(rounding);
            let got = convert::f32_from_f64(a, m);
            if DOUBLE.finite(a) {
                assert!(
                    SINGLE.accepts_value(u64::from(got), rounding, DOUBLE.value(a)),
                    "{rounding:?} {a:#x}: {got:#x}"
                );
            } else {
                assert_eq!(got, canonical(f64::from_bits(a) as f32));
            }
            let bits = (a >> 32) as u32;
            let x = f32::from_bits(bits);
            let host = match rounding {
                Rounding::Nearest => x.round_ties_even(),
                Rounding::Zero => x.trunc(),
                Rounding::Down => x.floor(),
                Rounding::Up => x.ceil(),
            };
            assert_eq!(convert::integral_f32(bits, m), canonical(host));
            let wide = convert::f64_from_f32(bits, m);
            assert_eq!(
                f32::from_bits(convert::f32_from_f64(wide, Modifiers::RN)).total_cmp(&f32::from_bits(canonical(x))),
                Ordering::Equal
            );
            let tf32 = convert::tf32_from_f32(bits, m);
            if x.is_finite() && matches!(rounding, Rounding::Nearest | Rounding::Zero) {
                assert_eq!(tf32 & 0x1fff, 0);
                assert!(TF32.accepts_value(u64::from(tf32 >> 13), rounding, SINGLE.value(u64::from(bits))));
            }
        }
    }
    for bits in 0..=u16::MAX {
        for rounding in MODES {
            let m = Modifiers::rounding(rounding);
            let x = f64::from(F16::widen(bits)).to_bits();
            let expected = convert::half_from_f64::<F16>(convert::integral_f64(x, m), Modifiers::RN);
            assert_eq!(convert::integral_half::<F16>(bits, m), expected);
            let x = u64::from(F16::widen(bits).to_bits());
            if SINGLE.finite(x) {
                let got = convert::half_from_half::<F16, Bf16>(bits, m);
                assert!(BFLOAT.accepts_value(u64::from(got), rounding, SINGLE.value(x)));
            }
        }
        assert_eq!(convert::f32_from_half::<Bf16>(bits, Modifiers::RN), canonical(Bf16::widen(bits)));
        let wide = f64::from_bits(convert::f64_from_half::<F16>(bits, Modifiers::RN));
        assert_eq!(wide.is_nan(), F16::widen(bits).is_nan());
        assert!(wide.is_nan() || wide == f64::from(F16::widen(bits)));
    }
}

#[test]
fn special_conversions() {
    let finite = Modifiers { satfinite: true, ..Modifiers::RN };
    let relu = Modifiers { relu: true, ..Modifiers::RN };
    let bits = f32::to_bits;
    assert_eq!(convert::half_from_f32::<F16>(bits(1e9), finite), 0x7bff);
    assert_eq!(convert::half_from_f32::<F16>(bits(f32::NEG_INFINITY), finite), 0xfbff);
    assert_eq!(convert::half_from_f32::<Bf16>(bits(f32::MAX), finite), 0x7f7f);
    assert_eq!(convert::half_from_f32::<Bf16>(bits(f32::NAN), finite), halves::NAN);
    assert_eq!(convert::half_from_f32::<F16>(bits(-2.0), relu), 0);
    assert_eq!(convert::half_from_f32::<F16>(bits(f32::NAN), relu), halves::NAN);
    assert_eq!(convert::half2_from_f32::<F16>(bits(1.0), bits(-2.0), Modifiers::RN), 0x3c00_c000);
    // tf32: a tie goes to even or away; below it both go down.
    assert_eq!(convert::tf32_from_f32(0x3f80_1000, Modifiers::RN), 0x3f80_0000);
    assert_eq!(convert::tf32_away_from_f32(0x3f80_1000, Modifiers::RN), 0x3f80_2000);
    assert_eq!(convert::tf32_away_from_f32(0xbf80_1000, Modifiers::RN), 0xbf80_2000);
    assert_eq!(convert::tf32_away_from_f32(0x3f80_0fff, Modifiers::RN), 0x3f80_0000);
    assert_eq!(convert::tf32_away_from_f32(bits(f32::MAX), Modifiers::RN), bits(f32::INFINITY));
    assert_eq!(convert::tf32_away_from_f32(bits(f32::MAX), finite), 0x7f7f_e000);
    assert_eq!(convert::tf32_from_f32(bits(-1.0), relu), 0);
    assert_eq!(convert::tf32_from_f32(0xff80_0001, Modifiers::RN), single::NAN);
    assert_eq!(convert::tf32_operand(0x3f80_1fff), 0x3f80_0000);
    // .ftz of the f32 side.
    let ftz = Modifiers { ftz: true, ..Modifiers::RN };
    assert_eq!(convert::f32_from_f64(1e-40f64.to_bits(), ftz), 0);
    assert_eq!(convert::f64_from_f32(0x8000_0001, ftz), 1 << 63);
    assert_eq!(convert::f32_from_half::<F16>(1, ftz), 2f32.powi(-24).to_bits());
    assert_eq!(convert::integral_f32(1, Modifiers { rounding: Rounding::Up, ..ftz }), 0);
    assert_eq!(convert::integral_f32(bits(-0.25), Modifiers::RN), 1 << 31);
}

// ---------------------------------------------------------------------------------------------------------------------
// Approximations

/// The distance in units of the last place.
fn ulps(a: u32, b: u32) -> u32 {
    let key = |bits: u32| i64::from(bits as i32 ^ ((bits as i32 >> 31) & i32::MAX));
    (key(a) - key(b)).unsigned_abs() as u32
}

/// Special values: 9.7.3.8 and 9.7.3.13 to 9.7.3.22, 9.7.4.9, 9.7.4.10, row by row.
#[test]
fn approximations_of_special_values() {
    let (inf, nan, tiny) = (f32::INFINITY, f32::NAN, 1e-40f32);
    let check = |name: &str, op: fn(u32, bool) -> u32, rows: &[(f32, bool, f32)]| {
        for &(x, ftz, expected) in rows {
            let got = op(x.to_bits(), ftz);
            assert_eq!(got, canonical(expected), "{name}({x}), ftz {ftz}: {}", f32::from_bits(got));
        }
    };
    for ftz in [false, true] {
        check(
            "rcp",
            approx::rcp,
            &[(-inf, ftz, -0.0), (-0.0, ftz, -inf), (0.0, ftz, inf), (inf, ftz, 0.0), (nan, ftz, nan)],
        );
        check(
            "sqrt",
            approx::sqrt,
            &[(-inf, ftz, nan), (-1.0, ftz, nan), (-0.0, ftz, -0.0), (0.0, ftz, 0.0), (inf, ftz, inf), (nan, ftz, nan)],
        );
        check(
            "rsqrt",
            approx::rsqrt,
            &[(-inf, ftz, nan), (-1.0, ftz, nan), (-0.0, ftz, -inf), (0.0, ftz, inf), (inf, ftz, 0.0), (nan, ftz, nan)],
        );
        check(
            "sin",
            approx::sin,
            &[(-inf, ftz, nan), (-0.0, ftz, -0.0), (0.0, ftz, 0.0), (inf, ftz, nan), (nan, ftz, nan)],
        );
        check(
            "cos",
            approx::cos,
            &[(-inf, ftz, nan), (-0.0, ftz, 1.0), (0.0, ftz, 1.0), (inf, ftz, nan), (nan, ftz, nan)],
        );
        check(
            "lg2",
            approx::lg2,
            &[
                (-inf, ftz, nan),
                (-1.0, ftz, nan),
                (-0.0, ftz, -inf),
                (0.0, ftz, -inf),
                (inf, ftz, inf),
                (nan, ftz, nan),
            ],
        );
        check(
            "ex2",
            approx::ex2,
            &[(-inf, ftz, 0.0), (-0.0, ftz, 1.0), (0.0, ftz, 1.0), (inf, ftz, inf), (nan, ftz, nan)],
        );
    }
    check(
        "tanh",
        |a, _| approx::tanh(a),
        &[
            (-inf, false, -1.0),
            (-0.0, false, -0.0),
            (0.0, false, 0.0),
            (inf, false, 1.0),
            (nan, false, nan),
            (tiny, false, tiny),
        ],
    );
    // Subnormal numbers with and without .ftz.
    check(
        "rcp",
        approx::rcp,
        &[(-tiny, true, -inf), (2f32.powi(127), true, 0.0), (2f32.powi(-127), false, 2f32.powi(127))],
    );
    check("rsqrt", approx::rsqrt, &[(tiny, true, inf), (-tiny, true, -inf), (2f32.powi(-130), false, 2f32.powi(65))]);
    check("sqrt", approx::sqrt, &[(-tiny, true, -0.0), (-tiny, false, nan), (2f32.powi(-130), false, 2f32.powi(-65))]);
    check("lg2", approx::lg2, &[(tiny, true, -inf), (-tiny, true, -inf), (2f32.powi(-130), false, -130.0)]);
    check(
        "ex2",
        approx::ex2,
        &[
            (-tiny, true, 1.0),
            (-130.0, true, 0.0),
            (-130.0, false, 2f32.powi(-130)),
            (128.0, true, inf),
            (-150.5, false, 0.0),
        ],
    );
    check("sin", approx::sin, &[(-tiny, true, -0.0), (tiny, false, tiny)]);
    // div.approx: a divisor above 2^126 has a reciprocal of zero.
    let div = |a: f32, b: f32, ftz| approx::div(a.to_bits(), b.to_bits(), ftz);
    let large = 2f32.powi(127);
    assert_eq!(div(inf, large, false), single::NAN);
    assert_eq!(div(large, -large, false), (-0f32).to_bits());
    assert_eq!(div(2f32.powi(126), 2f32.powi(126), false), 1f32.to_bits());
    assert_eq!(div(inf, inf, false), single::NAN);
    assert_eq!(div(-1.0, 0.0, true), (-inf).to_bits());
    assert_eq!(div(1.0, tiny, true), inf.to_bits());
    assert_eq!(approx::div_full(large.to_bits(), large.to_bits(), false), 1f32.to_bits());
    // rcp.approx.ftz.f64 and rsqrt.approx.ftz.f64.
    let (rcp, rsqrt) = (approx::rcp_upper as fn(u64) -> u64, approx::rsqrt_upper as fn(u64) -> u64);
    let (neg, sub, big, no) = (1u64 << 63, 1u64 << 50, f64::INFINITY.to_bits(), 0x7fff_ffff_0000_0000);
    for (op, x, expected) in [
        (rcp, neg | big, neg),
        (rcp, neg | sub, neg | big),
        (rcp, neg, neg | big),
        (rcp, 0, big),
        (rcp, sub, big),
        (rcp, big, 0),
        (rcp, f64::NAN.to_bits(), no),
        (rcp, f64::MAX.to_bits(), 0),
        (rcp, 2f64.to_bits() | 0xffff_ffff, 0.5f64.to_bits()),
        (rsqrt, neg | big, no),
        (rsqrt, neg | sub, neg | big),
        (rsqrt, neg, neg | big),
        (rsqrt, 0, big),
        (rsqrt, sub, big),
        (rsqrt, big, 0),
        (rsqrt, 4f64.to_bits(), 0.5f64.to_bits()),
    ] {
        assert_eq!(op(x), expected, "{x:#x}");
    }
    assert_eq!(approx::rsqrt_f64(4f64.to_bits()), 0.5f64.to_bits());
    // Halves.
    for (x, expected) in
        [(0xff80, 0), (0x8001, 0x3f80), (0x8000, 0x3f80), (0, 0x3f80), (1, 0x3f80), (0x7f80, 0x7f80), (0x7fc0, 0x7fff)]
    {
        assert_eq!(approx::ex2_half::<Bf16>(x, true), expected);
    }
    assert_eq!(approx::ex2_half::<Bf16>(Bf16::narrow(-130.0, Rounding::Nearest), true), 0);
    for (x, expected) in [(0xfc00, 0), (0x8000, 0x3c00), (0, 0x3c00), (0x7c00, 0x7c00), (0x7e00, 0x7fff)] {
        assert_eq!(approx::ex2_half::<F16>(x, false), expected);
    }
    for (x, expected) in [(0xfc00, 0xbc00), (0x8000, 0x8000), (0, 0), (0x7c00, 0x3c00), (0x7e00, 0x7fff), (1, 1)] {
        assert_eq!(approx::tanh_half::<F16>(x), expected);
    }
}

/// The bounds of 9.7.3.8 and 9.7.3.13 to 9.7.3.22, against identities that do not use the same function.
#[test]
fn approximations_within_their_bounds() {
    let mut random = Random(10);
    let value = |bits: u32| f64::from(f32::from_bits(bits));
    for _ in 0..300_000 {
        let a = random.operand(SINGLE, 0) as u32;
        let b = random.operand(SINGLE, u64::from(a)) as u32;
        let x = value(a);
        if !x.is_finite() || x == 0.0 {
            continue;
        }
        let rn = Modifiers::RN;
        assert!(ulps(approx::rcp(a, false), single::rcp(a, rn)) <= 1);
        assert!(ulps(approx::div_full(a, b, false), single::div(a, b, rn)) <= 2);
        if (2f64.powi(-126)..=2f64.powi(126)).contains(&value(b).abs()) {
            assert!(ulps(approx::div(a, b, false), single::div(a, b, rn)) <= 2);
        }
        if x > 0.0 {
            let root = value(approx::sqrt(a, false));
            assert!((root * root / x - 1.0).abs() <= 2.0 * 2f64.powi(-23));
            let inverse = value(approx::rsqrt(a, false));
            assert!((inverse * inverse * x - 1.0).abs() <= 2.0 * 2f64.powf(-22.9));
            // Two to the logarithm is the number: an absolute error e of the one is a relative error e ln 2.
            let log = value(approx::lg2(a, false));
            let bound = if (0.5..2.0).contains(&x) { 2f64.powi(-22) } else { 2f64.powi(-22) * log.abs() };
            assert!(((log * std::f64::consts::LN_2).exp() / x).ln().abs() <= bound, "lg2 {x}");
        }
        // Angles and exponents of ordinary size.
        let angle = (random.next() as i64 as f64 / 2f64.powi(63) * 100.0 * std::f64::consts::PI) as f32;
        let bound = 2f64.powf(if angle.abs() <= std::f32::consts::TAU { -20.5 } else { -14.7 });
        let (sin, cos) = (value(approx::sin(angle.to_bits(), false)), value(approx::cos(angle.to_bits(), false)));
        let half = f64::from(angle) / 2.0;
        assert!((sin - 2.0 * half.sin() * half.cos()).abs() <= bound);
        assert!((cos - (1.0 - 2.0 * half.sin() * half.sin())).abs() <= bound);
        let exponent = angle / 2.0;
        let got = approx::ex2(exponent.to_bits(), false);
        assert!(ulps(got, (f64::from(exponent).exp2() as f32).to_bits()) <= 2, "ex2 {exponent}");
        let small = angle / 64.0;
        let e = (2.0 * f64::from(small)).exp_m1();
        let tanh = value(approx::tanh(small.to_bits()));
        assert!(small == 0.0 || (tanh / (e / (e + 2.0)) - 1.0).abs() <= 2f64.powi(-11));
    }
    let half_bounds = |bits: u16| {
        let x = f64::from(F16::widen(bits));
        if x.is_finite() && x.abs() < 14.0 {
            let ex2 = f64::from(F16::widen(approx::ex2_half::<F16>(bits, false)));
            assert!((ex2 / x.exp2() - 1.0).abs() <= 2f64.powf(-9.9));
            assert!((f64::from(F16::widen(approx::tanh_half::<F16>(bits))) - x.tanh()).abs() <= 2f64.powf(-10.987));
        }
        let x = f64::from(Bf16::widen(bits));
        if x.is_finite() && x.abs() < 126.0 {
            let ex2 = f64::from(Bf16::widen(approx::ex2_half::<Bf16>(bits, true)));
            assert!((ex2 / x.exp2() - 1.0).abs() <= 2f64.powi(-7));
            assert!((f64::from(Bf16::widen(approx::tanh_half::<Bf16>(bits))) - x.tanh()).abs() <= 2f64.powi(-8));
        }
    };
    (0..=u16::MAX).for_each(half_bounds);
    // rcp.approx.ftz.f64: 20 bits of significand.
    for _ in 0..100_000 {
        let x = f64::from_bits(random.next() >> 2 | 1 << 61);
        if x.is_normal() {
            let got = approx::rcp_upper(x.to_bits());
            assert_eq!(got as u32, 0);
            assert!((f64::from_bits(got) * x - 1.0).abs() <= 2f64.powi(-19));
            let got = f64::from_bits(approx::rsqrt_upper(x.to_bits()));
            assert!((got * got * x - 1.0).abs() <= 2f64.powi(-18));
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Warps

#[test]
fn lanes_agree_with_scalars() {
    let mut random = Random(11);
    let ftz = Modifiers { ftz: true, ..Modifiers::RN };
    for _ in 0..5_000 {
        let mut draw = |near: u32| random.operand(SINGLE, u64::from(near)) as u32;
        let a: [u32; 32] = std::array::from_fn(|_| draw(0));
        let b = a.map(&mut draw);
        let c = a.map(&mut draw);
        let (mut plain, mut flushed) = ([0; 32], [0; 32]);
        lanes::fma32(&mut plain, &a, &b, &c);
        lanes::fma32_ftz(&mut flushed, &a, &b, &c);
        for i in 0..32 {
            assert_eq!(plain[i], single::fma(a[i], b[i], c[i], Modifiers::RN));
            assert_eq!(flushed[i], single::fma(a[i], b[i], c[i], ftz));
        }
        let a: [u64; 32] = std::array::from_fn(|_| random.operand(DOUBLE, 0));
        let b = a.map(|near| random.operand(DOUBLE, near));
        let c = a.map(|near| random.operand(DOUBLE, near));
        let mut d = [0; 32];
        lanes::fma64(&mut d, &a, &b, &c);
        for i in 0..32 {
            assert_eq!(d[i], double::fma(a[i], b[i], c[i], Rounding::Nearest));
        }
    }
    let all: Vec<u16> = (0..=u16::MAX).chain([1, 2, 3]).collect();
    let mut wide = vec![0; all.len()];
    lanes::widen_f16(&mut wide, &all);
    assert!(wide.iter().zip(&all).all(|(&w, &a)| w == F16::widen(a).to_bits()));
    let inputs: Vec<u32> = (0..1_000_003).map(|_| random.operand(SINGLE, 0) as u32).collect();
    let mut narrow = vec![0; inputs.len()];
    lanes::narrow_f16(&mut narrow, &inputs);
    assert!(narrow.iter().zip(&inputs).all(|(&n, &x)| n == F16::narrow(f32::from_bits(x), Rounding::Nearest)));
}
