//! The table of instructions against a second evaluation of each, written from the text of the PTX ISA.
//!
//! An [`Op`] is an instruction as PTX writes it, the kinds of its operands, and what it computes. Integers are
//! evaluated in i128, floats as exact integers times powers of two that are rounded once by [`Format::round`]; nothing
//! is shared with the simulator. Each is executed on special values (zeros, extremes, infinities, NaNs, subnormals,
//! ties) and on random ones, with registers in every place and with an immediate in each place in turn. Random programs
//! then mix them, with branches and loops that part the lanes of a warp.

#![allow(clippy::unwrap_used)]

use std::fmt::Write;

use cudrift_sim::device::{Device, Profile};
use cudrift_sim::launch::{Args, Launch, run};
use cudrift_sim::program::Program;

// ---------------------------------------------------------------------------------------------------------------------
// Numbers

/// A reproducible sequence (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() >> 33) as usize % n
    }

    fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }
}

/// The low bits.
fn low(x: u64, bits: u32) -> u64 {
    x & u64::MAX >> (64 - bits)
}

/// An integer type of PTX.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Int {
    bits: u32,
    signed: bool,
}

impl Int {
    fn all(bits: &[u32]) -> Vec<Int> {
        bits.iter().flat_map(|&bits| [false, true].map(|signed| Int { bits, signed })).collect()
    }

    fn name(self) -> String {
        format!("{}{}", if self.signed { 's' } else { 'u' }, self.bits)
    }

    fn value(self, x: u64) -> i128 {
        let x = low(x, self.bits) as i128;
        if self.signed && x >> (self.bits - 1) == 1 { x - (1 << self.bits) } else { x }
    }

    fn min(self) -> i128 {
        if self.signed { -(1 << (self.bits - 1)) } else { 0 }
    }

    fn max(self) -> i128 {
        self.min() + ((1 << self.bits) - 1)
    }

    fn clamp(self, x: i128) -> u64 {
        x.clamp(self.min(), self.max()) as u64
    }
}

/// A direction of rounding.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    Nearest,
    Zero,
    Down,
    Up,
}

const MODES: [(&str, Mode); 4] = [("rn", Mode::Nearest), ("rz", Mode::Zero), ("rm", Mode::Down), ("rp", Mode::Up)];

impl Mode {
    /// Does the magnitude grow, where the dropped part compares with half so and the kept part is odd?
    fn grows(self, negative: bool, exact: bool, half: std::cmp::Ordering, odd: bool) -> bool {
        match self {
            Self::Nearest => half.is_gt() || (half.is_eq() && odd),
            Self::Zero => false,
            Self::Down => negative && !exact,
            Self::Up => !negative && !exact,
        }
    }
}

/// `±m * 2^e`. Where it stands for a number between two of that form, its last bit is set, far below what is kept.
#[derive(Clone, Copy, Debug)]
struct Number {
    negative: bool,
    m: u128,
    e: i32,
}

impl Number {
    fn integer(x: i128) -> Self {
        Self { negative: x < 0, m: x.unsigned_abs(), e: 0 }
    }

    fn times(self, other: Self) -> Self {
        Self { negative: self.negative != other.negative, m: self.m * other.m, e: self.e + other.e }
    }

    /// The first bit moved to place 125.
    fn normal(self) -> Self {
        let by = self.m.leading_zeros() as i32 - 2;
        Self { m: self.m << by, e: self.e - by, ..self }
    }

    fn plus(self, other: Self, mode: Mode) -> Self {
        if self.m == 0 && other.m == 0 {
            let negative = if self.negative == other.negative { self.negative } else { mode == Mode::Down };
            return Self { negative, m: 0, e: 0 };
        }
        if self.m == 0 || other.m == 0 {
            return if self.m == 0 { other } else { self };
        }
        let (a, b) = (self.normal(), other.normal());
        let (a, b) = if a.e >= b.e { (a, b) } else { (b, a) };
        let by = (a.e - b.e).min(127);
        let shifted = b.m >> by | u128::from(b.m & ((1 << by) - 1) != 0);
        if a.negative == b.negative {
            return Self { m: a.m + shifted, ..a };
        }
        match a.m.cmp(&shifted) {
            std::cmp::Ordering::Greater => Self { m: a.m - shifted, ..a },
            std::cmp::Ordering::Less => Self { m: shifted - a.m, negative: b.negative, ..a },
            std::cmp::Ordering::Equal => Self { negative: mode == Mode::Down, m: 0, e: 0 },
        }
    }

    fn over(self, other: Self) -> Self {
        let (a, b) = (self.normal(), other.m);
        let (quotient, rest) = if a.m == 0 { (0, 0) } else { (a.m / b, a.m % b) };
        Self {
            negative: self.negative != other.negative,
            m: quotient << 1 | u128::from(rest != 0),
            e: a.e - other.e - 1,
        }
    }

    fn root(self) -> Self {
        let a = self.normal();
        let (m, e) = if a.e % 2 == 0 { (a.m, a.e) } else { (a.m << 1, a.e - 1) };
        let root = m.isqrt();
        Self { negative: self.negative, m: root << 1 | u128::from(root * root != m), e: e / 2 - 1 }
    }

    /// The integer that it rounds to; beyond 2^100, something as large.
    fn integral(self, mode: Mode) -> i128 {
        let magnitude = match self.e {
            0.. => self.m << self.e.min(60),
            e if e < -126 => u128::from(mode.grows(self.negative, self.m == 0, std::cmp::Ordering::Less, false)),
            e => {
                let (kept, rest) = (self.m >> -e, self.m & ((1 << -e) - 1));
                let half = rest.cmp(&(1 << (-e - 1)));
                kept + u128::from(mode.grows(self.negative, rest == 0, half, kept & 1 == 1))
            }
        };
        if self.negative { -(magnitude as i128) } else { magnitude as i128 }
    }
}

/// A floating-point format: bits, and bits of its fraction.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Format {
    name: &'static str,
    bits: u32,
    fraction: u32,
}

const F16: Format = Format { name: "f16", bits: 16, fraction: 10 };
const BF16: Format = Format { name: "bf16", bits: 16, fraction: 7 };
const F32: Format = Format { name: "f32", bits: 32, fraction: 23 };
const F64: Format = Format { name: "f64", bits: 64, fraction: 52 };

impl Format {
    fn sign(self) -> u64 {
        1 << (self.bits - 1)
    }

    fn inf(self) -> u64 {
        self.sign() - (1 << self.fraction)
    }

    fn one(self) -> u64 {
        (self.inf() >> 1) & self.inf()
    }

    /// The NaN that operations return; that of f64 is left open, see [`Kind::same`].
    fn canonical(self) -> u64 {
        self.sign() - 1
    }

    fn magnitude(self, x: u64) -> u64 {
        x & (self.sign() - 1)
    }

    fn is_nan(self, x: u64) -> bool {
        self.magnitude(x) > self.inf()
    }

    fn is_inf(self, x: u64) -> bool {
        self.magnitude(x) == self.inf()
    }

    fn negative(self, x: u64) -> bool {
        x & self.sign() != 0
    }

    /// A subnormal number becomes a zero.
    fn flush(self, x: u64, ftz: bool) -> u64 {
        if ftz && self.magnitude(x) < 1 << self.fraction { x & self.sign() } else { x }
    }

    /// `.sat`.
    fn saturate(self, x: u64, sat: bool) -> u64 {
        match sat {
            true if self.is_nan(x) || self.negative(x) => 0,
            true => x.min(self.one()),
            false => x,
        }
    }

    fn least_exponent(self) -> i32 {
        2 - (1 << (self.bits - self.fraction - 2)) - self.fraction as i32
    }

    fn number(self, x: u64) -> Number {
        let (field, fraction) = (self.magnitude(x) >> self.fraction, x & ((1 << self.fraction) - 1));
        let hidden = if field == 0 { 0 } else { 1u128 << self.fraction };
        let e = self.least_exponent() + field.saturating_sub(1) as i32;
        Number { negative: self.negative(x), m: hidden | u128::from(fraction), e }
    }

    fn round(self, x: Number, mode: Mode) -> u64 {
        let sign = if x.negative { self.sign() } else { 0 };
        if x.m == 0 {
            return sign;
        }
        let top = 128 - x.m.leading_zeros() as i32;
        let ulp = (x.e + top - self.fraction as i32 - 1).max(self.least_exponent());
        let kept = Number { negative: false, m: x.m, e: x.e - ulp };
        let mode = match mode {
            Mode::Down if x.negative => Mode::Up,
            Mode::Up if x.negative => Mode::Down,
            mode => mode,
        };
        // The hidden bit makes the exponent's field one more, a carry again.
        let bits = (((ulp - self.least_exponent()) as i128) << self.fraction) + kept.integral(mode);
        let limit = i128::from(self.inf());
        sign | match mode {
            Mode::Zero | Mode::Down => bits.min(limit - 1) as u64,
            Mode::Nearest | Mode::Up => bits.min(limit) as u64,
        }
    }

    /// `cvt` to another format.
    fn convert(self, x: u64, to: Format, mode: Mode) -> u64 {
        let sign = if self.negative(x) { to.sign() } else { 0 };
        match x {
            _ if self.is_nan(x) => to.canonical(),
            _ if self.is_inf(x) => sign | to.inf(),
            _ => to.round(self.number(x), mode),
        }
    }

    fn fma(self, a: u64, b: u64, c: u64, mode: Mode) -> u64 {
        let negative = self.negative(a) != self.negative(b);
        let zero = |x| self.magnitude(x) == 0;
        let infinite = self.is_inf(a) || self.is_inf(b);
        if [a, b, c].into_iter().any(|x| self.is_nan(x))
            || (self.is_inf(a) && zero(b))
            || (self.is_inf(b) && zero(a))
            || (infinite && self.is_inf(c) && negative != self.negative(c))
        {
            self.canonical()
        } else if infinite {
            self.inf() | if negative { self.sign() } else { 0 }
        } else if self.is_inf(c) {
            c
        } else {
            self.round(self.number(a).times(self.number(b)).plus(self.number(c), mode), mode)
        }
    }

    /// An operation other than the approximate ones.
    fn apply(self, name: &str, x: &[u64], mode: Mode) -> u64 {
        let negative = |x| if self.negative(x) { self.sign() } else { 0 };
        let zero = |x| self.magnitude(x) == 0;
        match name {
            "add" => self.fma(x[0], self.one(), x[1], mode),
            "sub" => self.fma(x[0], self.one(), x[1] ^ self.sign(), mode),
            // The zero that is added has the product's sign.
            "mul" => self.fma(x[0], x[1], (x[0] ^ x[1]) & self.sign(), mode),
            "fma" => self.fma(x[0], x[1], x[2], mode),
            "rcp" => self.apply("div", &[self.one(), x[0]], mode),
            "div" => {
                let sign = negative(x[0] ^ x[1]);
                let (a, b) = (x[0], x[1]);
                match () {
                    () if self.is_nan(a) || self.is_nan(b) => self.canonical(),
                    () if self.is_inf(a) && self.is_inf(b) || zero(a) && zero(b) => self.canonical(),
                    () if self.is_inf(a) || zero(b) => sign | self.inf(),
                    () if zero(a) || self.is_inf(b) => sign,
                    () => self.round(self.number(a).over(self.number(b)), mode),
                }
            }
            "sqrt" if self.is_nan(x[0]) => self.canonical(),
            "sqrt" if zero(x[0]) => x[0],
            "sqrt" if self.negative(x[0]) => self.canonical(),
            "sqrt" if self.is_inf(x[0]) => x[0],
            "sqrt" => self.round(self.number(x[0]).root(), mode),
            _ => unreachable!("{name}"),
        }
    }

    fn less(self, a: u64, b: u64) -> bool {
        let key = |x| if self.negative(x) { -i128::from(self.magnitude(x)) } else { i128::from(self.magnitude(x)) };
        key(a) < key(b)
    }

    fn compare(self, name: &str, a: u64, b: u64) -> bool {
        let unordered = self.is_nan(a) || self.is_nan(b);
        match (name, name.strip_suffix('u')) {
            ("num", _) => !unordered,
            ("nan", _) => unordered,
            (_, Some(ordered)) => unordered || self.compare(ordered, a, b),
            _ if unordered => false,
            ("lt", _) => self.less(a, b),
            ("gt", _) => self.less(b, a),
            ("le", _) => !self.less(b, a),
            ("ge", _) => !self.less(a, b),
            ("eq", _) => !self.less(a, b) && !self.less(b, a),
            _ => self.less(a, b) || self.less(b, a),
        }
    }

    fn extremum(self, max: bool, nan: bool, a: u64, b: u64) -> u64 {
        match (self.is_nan(a), self.is_nan(b)) {
            (true, true) => self.canonical(),
            (true, false) | (false, true) if nan => self.canonical(),
            (true, false) => b,
            (false, true) => a,
            // "+0.0 > -0.0".
            _ if self.magnitude(a | b) == 0 && max => a & b,
            _ if self.magnitude(a | b) == 0 => a | b,
            _ if self.less(a, b) != max => a,
            _ => b,
        }
    }

    /// A random operand; `near` is another operand, for sums that cancel.
    fn operand(self, random: &mut Random, near: u64) -> u64 {
        let (quiet, least) = (1 << (self.fraction - 1), 1 << self.fraction);
        let specials = [
            0,
            1,
            2,
            least - 1,
            least,
            least + 1,
            self.one(),
            self.one() - 1,
            self.one() + 1,
            self.inf() - 1,
            self.inf(),
            self.inf() | 1,
            self.inf() | quiet | 5,
            self.canonical(),
        ];
        let sign = random.next() << 63 >> (64 - self.bits);
        let bits = match random.below(8) {
            0..3 => *random.pick(&specials),
            // k / 2, near the limits of integer types too, and their neighbours.
            3 => {
                let k = (1i128 << random.below(66)) + random.below(4) as i128 - 2;
                self.round(Number { e: -1, ..Number::integer(k) }, *random.pick(&[Mode::Zero, Mode::Up]))
            }
            4 => self.round(Number { e: -1, ..Number::integer(random.below(1024) as i128) }, Mode::Zero),
            5 => low((near & !7).wrapping_add(random.next() & 7), self.bits),
            6 => low(random.next(), self.bits) & !(self.inf() >> 1) | self.one() & random.next(),
            _ => low(random.next(), self.bits),
        };
        bits ^ sign
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// The table

/// What an operand is: its width, and which values are interesting.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Int(u32),
    Float(Format),
    /// Two halves.
    Packed(Format),
    Pred,
}

const H: Kind = Kind::Int(16);
const R: Kind = Kind::Int(32);
const D: Kind = Kind::Int(64);

impl Kind {
    /// Bits of the register; of a predicate, those of the register that it is made from.
    fn bits(self) -> u32 {
        match self {
            Self::Int(bits) => bits,
            Self::Float(format) => format.bits,
            Self::Packed(_) | Self::Pred => 32,
        }
    }

    fn operand(self, random: &mut Random, near: u64) -> u64 {
        match self {
            Self::Pred => random.next() >> 63,
            Self::Float(format) => format.operand(random, near),
            Self::Packed(format) => {
                format.operand(random, near & 0xffff) | format.operand(random, near >> 16 & 0xffff) << 16
            }
            Self::Int(bits) => {
                let top = 1u64 << (bits - 1);
                let few = [0, 1, 2, 3, 4, 7, 8, 15, 16, 17, 24, 31, 32, 33, 63, 64, 65, 127, 128, 255, 256];
                let value = match random.below(8) {
                    0 => random.below(4) as u64,
                    1 => *random.pick(&few),
                    2 => random.pick(&few).wrapping_neg(),
                    3 => *random.pick(&[top, top - 1, top + 1, u64::MAX, u64::MAX - 1, u64::MAX >> 1, 0x8000, 0x7fff]),
                    4 => near.wrapping_add(random.below(3) as u64).wrapping_sub(1),
                    5 => random.next() >> random.below(64),
                    _ => random.next(),
                };
                low(value, bits)
            }
        }
    }

    /// An immediate; halves have none.
    fn literal(self, x: u64) -> Option<String> {
        Some(match self {
            Self::Int(bits) if x.is_multiple_of(3) => Int { bits, signed: true }.value(x).to_string(),
            Self::Int(_) => format!("{x:#x}"),
            Self::Float(F32) => format!("0f{x:08X}"),
            Self::Float(F64) => format!("0d{x:016X}"),
            _ => return None,
        })
    }

    fn same(self, a: u64, b: u64) -> bool {
        a == b || (self == Self::Float(F64) && F64.is_nan(a) && F64.is_nan(b))
    }
}

type Oracle = Box<dyn Fn(&[u64]) -> Option<u64>>;

/// An instruction, or a few: `$d` is the destination, `$0` and on are the operands.
struct Op {
    text: String,
    d: Kind,
    s: Vec<Kind>,
    /// The operands that may be immediates, as a bit set.
    immediates: u32,
    /// The result; nothing where the ISA leaves it open.
    oracle: Oracle,
}

#[derive(Default)]
struct Table(Vec<Op>);

impl Table {
    fn add(
        &mut self,
        name: impl Into<String>,
        d: Kind,
        s: &[Kind],
        oracle: impl Fn(&[u64]) -> u64 + 'static,
    ) -> &mut Op {
        let mut text = format!("{} $d", name.into());
        for at in 0..s.len() {
            write!(text, ", ${at}").unwrap();
        }
        text.push(';');
        self.text(text, d, s, move |x| Some(oracle(x)))
    }

    fn text(
        &mut self,
        text: impl Into<String>,
        d: Kind,
        s: &[Kind],
        oracle: impl Fn(&[u64]) -> Option<u64> + 'static,
    ) -> &mut Op {
        self.0.push(Op { text: text.into(), d, s: s.to_vec(), immediates: !0, oracle: Box::new(oracle) });
        self.0.last_mut().unwrap()
    }

    /// 9.7.1: integers.
    fn arithmetic(&mut self) {
        for t in Int::all(&[16, 32, 64]) {
            let (n, k, v) = (t.name(), Kind::Int(t.bits), move |x| t.value(x));
            self.add(format!("add.{n}"), k, &[k; 2], move |x| (v(x[0]) + v(x[1])) as u64);
            self.add(format!("sub.{n}"), k, &[k; 2], move |x| (v(x[0]) - v(x[1])) as u64);
            self.add(format!("min.{n}"), k, &[k; 2], move |x| v(x[0]).min(v(x[1])) as u64);
            self.add(format!("max.{n}"), k, &[k; 2], move |x| v(x[0]).max(v(x[1])) as u64);
            // By zero the ISA leaves it open: all ones is what the code of ptxas gives.
            let wide = u64::MAX;
            self.add(format!("div.{n}"), k, &[k; 2], move |x| v(x[0]).checked_div(v(x[1])).map_or(wide, |q| q as u64));
            self.add(format!("rem.{n}"), k, &[k; 2], move |x| v(x[0]).checked_rem(v(x[1])).map_or(wide, |q| q as u64));
            self.add(format!("sad.{n}"), k, &[k; 3], move |x| ((v(x[0]) - v(x[1])).abs() + v(x[2])) as u64);
            // The upper half of a product of u64 does not fit i128.
            let part = move |x: &[u64], high| {
                let product = v(x[0]).wrapping_mul(v(x[1])) as u128;
                if high { (product >> t.bits) as u64 } else { product as u64 }
            };
            for (half, high) in [("lo", false), ("hi", true)] {
                self.add(format!("mul.{half}.{n}"), k, &[k; 2], move |x| part(x, high));
                self.add(format!("mad.{half}.{n}"), k, &[k; 3], move |x| part(x, high).wrapping_add(x[2]));
            }
            if t.bits < 64 {
                let w = Kind::Int(2 * t.bits);
                self.add(format!("mul.wide.{n}"), w, &[k; 2], move |x| (v(x[0]) * v(x[1])) as u64);
                self.add(format!("mad.wide.{n}"), w, &[k, k, w], move |x| {
                    ((v(x[0]) * v(x[1])) as u64).wrapping_add(x[2])
                });
            }
            if t.signed {
                self.add(format!("abs.{n}"), k, &[k], move |x| v(x[0]).unsigned_abs() as u64);
                self.add(format!("neg.{n}"), k, &[k], move |x| -v(x[0]) as u64);
            }
            if t.bits > 16 {
                self.carries(t);
            }
        }
        let s = Int { bits: 32, signed: true };
        let v = move |x| s.value(x);
        self.add("add.sat.s32", R, &[R; 2], move |x| s.clamp(v(x[0]) + v(x[1])));
        self.add("sub.sat.s32", R, &[R; 2], move |x| s.clamp(v(x[0]) - v(x[1])));
        self.add("mad.hi.sat.s32", R, &[R; 3], move |x| s.clamp(((v(x[0]) * v(x[1])) >> 32) + v(x[2])));
        for t in Int::all(&[24]) {
            let n = if t.signed { "s32" } else { "u32" };
            for (half, by) in [("lo", 0), ("hi", 16)] {
                let product = move |x: &[u64]| ((t.value(x[0]) * t.value(x[1])) >> by) as u64;
                self.add(format!("mul24.{half}.{n}"), R, &[R; 2], product);
                self.add(format!("mad24.{half}.{n}"), R, &[R; 3], move |x| product(x).wrapping_add(x[2]));
            }
        }
        for (a, b) in Int::all(&[32]).into_iter().flat_map(|a| Int::all(&[32]).into_iter().map(move |b| (a, b))) {
            let part = |t: Int, x: u64, bits: u32, at: u32| Int { bits, ..t }.value(x >> (bits * at));
            let n = format!("{}.{}", a.name(), b.name());
            self.add(format!("dp4a.{n}"), R, &[R; 3], move |x| {
                (0..4).map(|i| part(a, x[0], 8, i) * part(b, x[1], 8, i)).fold(i128::from(x[2]), |sum, y| sum + y)
                    as u64
            });
            for (half, first) in [("lo", 0), ("hi", 2)] {
                self.add(format!("dp2a.{half}.{n}"), R, &[R; 3], move |x| {
                    let sum: i128 = (0..2).map(|i| part(a, x[0], 16, i) * part(b, x[1], 8, first + i)).sum();
                    (sum as u64).wrapping_add(x[2])
                });
            }
        }
    }

    /// 9.7.2: sums of two words each. Of the carry between them only that it comes through can be seen.
    fn carries(&mut self, t: Int) {
        let (n, k, bits) = (t.name(), Kind::Int(t.bits), t.bits);
        let wide = move |low: u64, high: u64| u128::from(high) << bits | u128::from(low);
        let (add, sub) =
            (format!("add.cc.{n} $d, $0, $1; addc.{n} $d, "), format!("sub.cc.{n} $d, $0, $1; subc.{n} $d, "));
        self.text(add + "$2, $3;", k, &[k; 4], move |x| {
            Some((wide(x[0], x[2]).wrapping_add(wide(x[1], x[3])) >> bits) as u64)
        });
        self.text(sub + "$2, $3;", k, &[k; 4], move |x| {
            Some((wide(x[0], x[2]).wrapping_sub(wide(x[1], x[3])) >> bits) as u64)
        });
        // Through the middle: the carry of addc.cc and subc.cc.
        let middle = |first: &str, name: &str| {
            format!("{first}.cc.{n} $d, $0, $1; {name}c.cc.{n} $d, $2, $3; {name}c.{n} $d, $2, $0;")
        };
        self.text(middle("add", "add"), k, &[k; 4], move |x| {
            let one = |a: u64, b: u64, c: u128| (u128::from(a) + u128::from(b) + c) >> bits;
            Some(x[2].wrapping_add(x[0]).wrapping_add(one(x[2], x[3], one(x[0], x[1], 0)) as u64))
        });
        self.text(middle("sub", "sub"), k, &[k; 4], move |x| {
            let one = |a: u64, b: u64, c: u128| u128::from(u128::from(a) < u128::from(b) + c);
            Some(x[2].wrapping_sub(x[0]).wrapping_sub(one(x[2], x[3], one(x[0], x[1], 0)) as u64))
        });
        let part = move |x: &[u64], high: bool| {
            let product = t.value(x[0]).wrapping_mul(t.value(x[1])) as u128;
            low(if high { product >> bits } else { product } as u64, bits)
        };
        for (half, high) in [("lo", false), ("hi", true)] {
            let text = format!("mad.{half}.cc.{n} $d, $0, $1, $2; addc.{n} $d, $3, 0;");
            self.text(text, k, &[k; 4], move |x| {
                Some(x[3].wrapping_add(((u128::from(part(x, high)) + u128::from(x[2])) >> bits) as u64))
            });
            let text = format!("add.cc.{n} $d, $0, $1; madc.{half}.cc.{n} $d, $0, $1, $2; addc.{n} $d, $d, $3;");
            self.text(text, k, &[k; 4], move |x| {
                let carry = (u128::from(x[0]) + u128::from(x[1])) >> bits;
                let sum = u128::from(part(x, high)) + u128::from(x[2]) + carry;
                Some((low(sum as u64, bits)).wrapping_add(x[3]).wrapping_add((sum >> bits) as u64))
            });
        }
    }

    /// 9.7.1, 9.7.8, 9.7.9: bits.
    fn manipulation(&mut self) {
        for k in [H, R, D] {
            let bits = k.bits();
            self.add(format!("and.b{bits}"), k, &[k; 2], |x| x[0] & x[1]);
            self.add(format!("or.b{bits}"), k, &[k; 2], |x| x[0] | x[1]);
            self.add(format!("xor.b{bits}"), k, &[k; 2], |x| x[0] ^ x[1]);
            self.add(format!("not.b{bits}"), k, &[k], |x| !x[0]);
            self.add(format!("cnot.b{bits}"), k, &[k], |x| u64::from(x[0] == 0));
            self.add(format!("mov.b{bits}"), k, &[k], |x| x[0]);
            let left = move |x: &[u64]| if x[1] < 64 { x[0] << x[1] } else { 0 };
            self.add(format!("shl.b{bits}"), k, &[k, R], left);
            let b = Int { bits, signed: false };
            for (name, t) in [("b", b), ("u", b), ("s", Int { signed: true, ..b })] {
                let right = move |x: &[u64]| (t.value(x[0]) >> x[1].min(bits.into())) as u64;
                self.add(format!("shr.{name}{bits}"), k, &[k, R], right);
            }
        }
        for t in Int::all(&[32, 64]) {
            let (n, bits, k) = (t.name(), t.bits, Kind::Int(t.bits));
            let bit = |x: u64, at: u64| x >> at & 1;
            let find = move |x: u64| {
                let skip = u64::from(t.signed && t.value(x) < 0);
                (0..bits).rev().find(|&at| bit(x, at.into()) != skip)
            };
            self.add(format!("bfind.{n}"), R, &[k], move |x| find(x[0]).map_or(!0, u64::from));
            self.add(format!("bfind.shiftamt.{n}"), R, &[k], move |x| {
                find(x[0]).map_or(!0, |at| (bits - 1 - at).into())
            });
            self.add(format!("bfe.{n}"), k, &[k, R, R], move |x| {
                let (msb, pos, len) = (u64::from(bits) - 1, x[1] & 255, x[2] & 255);
                let sign = if t.signed && len > 0 { bit(x[0], (pos + len - 1).min(msb)) } else { 0 };
                (0..=msb).map(|i| if i < len && pos + i <= msb { bit(x[0], pos + i) << i } else { sign << i }).sum()
            });
            if !t.signed {
                self.add(format!("popc.b{bits}"), R, &[k], move |x| (0..bits).map(|i| bit(x[0], i.into())).sum());
                self.add(format!("clz.b{bits}"), R, &[k], move |x| {
                    find(x[0]).map_or(bits.into(), |at| (bits - 1 - at).into())
                });
                self.add(format!("brev.b{bits}"), k, &[k], move |x| {
                    (0..bits).map(|i| bit(x[0], i.into()) << (bits - 1 - i)).sum()
                });
                self.add(format!("bfi.b{bits}"), k, &[k, k, R, R], move |x| {
                    let (pos, len) = (x[2] & 255, x[3] & 255);
                    let inside = |i| i >= pos && i < pos + len;
                    (0..bits.into()).map(|i| (if inside(i) { bit(x[0], i - pos) } else { bit(x[1], i) }) << i).sum()
                });
            }
        }
        for clamp in [true, false] {
            let mode = if clamp { "clamp" } else { "wrap" };
            let amount = move |n: u64| if clamp { n.min(32) } else { n & 31 };
            self.add(format!("shf.l.{mode}.b32"), R, &[R; 3], move |x| (x[1] << 32 | x[0]) << amount(x[2]) >> 32);
            self.add(format!("shf.r.{mode}.b32"), R, &[R; 3], move |x| (x[1] << 32 | x[0]) >> amount(x[2]));
            self.add(format!("bmsk.{mode}.b32"), R, &[R; 2], move |x| {
                (0..32).filter(|i| *i >= amount(x[0]) && *i < amount(x[0]) + amount(x[1])).map(|i| 1 << i).sum()
            });
            for t in Int::all(&[32]) {
                self.add(format!("szext.{mode}.{}", t.name()), R, &[R; 2], move |x| match amount(x[1]) as u32 {
                    0 => 0,
                    bits => Int { bits, ..t }.value(x[0]) as u64,
                });
            }
        }
        for table in [0u64, 1, 2, 4, 8, 16, 32, 64, 128, 255, 0x96, 0xe8, 0xca, 0x1b, 0x6d] {
            self.text(format!("lop3.b32 $d, $0, $1, $2, {table:#x};"), R, &[R; 3], move |x| {
                let index = |i: u64| (x[0] >> i & 1) << 2 | (x[1] >> i & 1) << 1 | x[2] >> i & 1;
                Some((0..32).map(|i| (table >> index(i) & 1) << i).sum())
            });
        }
        self.add("fns.b32", R, &[R, R, R], |x| {
            let (mask, n) = (x[0], x[2] as u32 as i32);
            let set = |at: i32| mask >> at & 1 == 1;
            let (mut at, mut left) = (x[1] as u32 as i32, n.unsigned_abs().saturating_sub(1));
            while (0..32).contains(&at) {
                match set(at) {
                    true if left == 0 => return at as u64,
                    _ if n == 0 => break,
                    found => left -= u32::from(found),
                }
                at += n.signum();
            }
            !0
        });
        let bytes = |x: &[u64], chosen: [u64; 4]| {
            let both = x[1] << 32 | x[0];
            (0..4).map(|i| (both >> (8 * chosen[i]) & 255) << (8 * i)).sum::<u64>()
        };
        self.add("prmt.b32", R, &[R; 3], |x| {
            let both = x[1] << 32 | x[0];
            let byte = |i: u64| {
                let control = x[2] >> (4 * i) & 15;
                let byte = both >> (8 * (control & 7)) & 255;
                if control < 8 { byte } else { (byte >> 7) * 255 }
            };
            (0..4).map(|i| byte(i) << (8 * i)).sum()
        });
        // The table of 9.7.9.7, bytes from the least significant.
        let modes: [(&str, [[u64; 4]; 4]); 6] = [
            ("f4e", [[0, 1, 2, 3], [1, 2, 3, 4], [2, 3, 4, 5], [3, 4, 5, 6]]),
            ("b4e", [[0, 7, 6, 5], [1, 0, 7, 6], [2, 1, 0, 7], [3, 2, 1, 0]]),
            ("rc8", [[0; 4], [1; 4], [2; 4], [3; 4]]),
            ("ecl", [[0, 1, 2, 3], [1, 1, 2, 3], [2, 2, 2, 3], [3, 3, 3, 3]]),
            ("ecr", [[0, 0, 0, 0], [0, 1, 1, 1], [0, 1, 2, 2], [0, 1, 2, 3]]),
            ("rc16", [[0, 1, 0, 1], [2, 3, 2, 3], [0, 1, 0, 1], [2, 3, 2, 3]]),
        ];
        for (mode, table) in modes {
            self.add(format!("prmt.b32.{mode}"), R, &[R; 3], move |x| bytes(x, table[(x[2] & 3) as usize]));
        }
        // Vectors of registers.
        let split = "{ .reg .b16 %a, %b; mov.b32 {%a, %b}, $0; mov.b32 $d, {%b, %a}; }";
        self.text(split, R, &[R], |x| Some(x[0] >> 16 | x[0] << 16));
        let split = "{ .reg .b32 %a, %b; mov.b64 {%a, %b}, $0; mov.b64 $d, {%b, %a}; }";
        self.text(split, D, &[D], |x| Some(x[0].rotate_left(32)));
        let split = "{ .reg .b16 %a<4>; mov.b64 {%a0, %a1, %a2, %a3}, $0; mov.b64 $d, {%a2, %a0, %a3, %a1}; }";
        self.text(split, D, &[D], |x| {
            let part = |i: u64| x[0] >> (16 * i) & 0xffff;
            Some(part(2) | part(0) << 16 | part(3) << 32 | part(1) << 48)
        });
    }

    /// 9.7.5 to 9.7.7: comparisons and selections.
    fn comparisons(&mut self) {
        const NAMES: [&str; 6] = ["eq", "ne", "lt", "le", "gt", "ge"];
        const UNORDERED: [&str; 8] = ["equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan"];
        type Holds = fn(&str, Kind, u64, u64) -> bool;
        let mut tests: Vec<(String, Kind, Holds)> = Vec::new();
        for bits in [16, 32, 64] {
            let k = Kind::Int(bits);
            NAMES.iter().for_each(|name| tests.push((format!("{name}.s{bits}"), k, integers::<true>)));
            NAMES.iter().for_each(|name| tests.push((format!("{name}.u{bits}"), k, integers::<false>)));
            ["lo", "ls", "hi", "hs"]
                .iter()
                .for_each(|name| tests.push((format!("{name}.u{bits}"), k, integers::<false>)));
            NAMES[..2].iter().for_each(|name| tests.push((format!("{name}.b{bits}"), k, integers::<false>)));
        }
        for name in NAMES.into_iter().chain(UNORDERED) {
            for format in [F16, BF16, F32, F64] {
                tests.push((format!("{name}.{}", format.name), Kind::Float(format), floats::<false>));
                if matches!(format, F16 | F32) {
                    tests.push((format!("{name}.ftz.{}", format.name), Kind::Float(format), floats::<true>));
                }
            }
        }
        type Combine = fn(bool, bool) -> bool;
        let combine: [(&str, Combine); 3] = [("and", |a, b| a & b), ("or", |a, b| a | b), ("xor", |a, b| a ^ b)];
        for (at, (test, k, holds)) in tests.into_iter().enumerate() {
            let (name, ty) = test.split_once('.').map(|(name, ty)| (name.to_owned(), ty.to_owned())).unwrap();
            let of = name.clone();
            self.add(format!("setp.{test}"), Kind::Pred, &[k; 2], move |x| holds(&of, k, x[0], x[1]).into());
            for (turn, (word, f)) in combine.into_iter().enumerate() {
                // Both predicates, and the third operand negated now and then.
                let of = name.clone();
                let (not, negated) = if (at + turn) % 2 == 0 { ("", false) } else { ("!", true) };
                if matches!(k, Kind::Float(F16 | BF16)) {
                    let text = format!("setp.{name}.{word}.{ty} $d, $0, $1, {not}$2;");
                    self.text(text, Kind::Pred, &[k, k, Kind::Pred], move |x| {
                        Some(f(holds(&of, k, x[0], x[1]), (x[2] == 1) != negated).into())
                    });
                } else {
                    let text = format!(
                        "{{ .reg .pred %y, %n; .reg .b32 %t; setp.{name}.{word}.{ty} %y|%n, $0, $1, {not}$2; \
                         selp.b32 $d, 1, 0, %y; selp.b32 %t, 2, 0, %n; or.b32 $d, $d, %t; }}"
                    );
                    self.text(text, R, &[k, k, Kind::Pred], move |x| {
                        let (found, c) = (holds(&of, k, x[0], x[1]), (x[2] == 1) != negated);
                        Some(u64::from(f(found, c)) + 2 * u64::from(f(!found, c)))
                    });
                }
                let dtypes: &[(&str, Kind, u64)] = match (k, ty.trim_start_matches("ftz.")) {
                    (Kind::Float(F16), _) => &[("f16", H, 0x3c00), ("u16", H, 0xffff), ("s32", R, 0xffff_ffff)],
                    (Kind::Float(BF16), _) => &[("bf16", H, 0x3f80), ("s16", H, 0xffff), ("u32", R, 0xffff_ffff)],
                    _ => &[("u32", R, 0xffff_ffff), ("s32", R, 0xffff_ffff), ("f32", R, 0x3f80_0000)],
                };
                let &(dtype, d, yes) = &dtypes[turn % dtypes.len()];
                let of = name.clone();
                let sty = ty.trim_start_matches("ftz.");
                let ftz = if sty.len() < ty.len() { ".ftz" } else { "" };
                let text = format!("set.{name}.{word}{ftz}.{dtype}.{sty} $d, $0, $1, {not}$2;");
                self.text(text, d, &[k, k, Kind::Pred], move |x| {
                    Some(yes * u64::from(f(holds(&of, k, x[0], x[1]), (x[2] == 1) != negated)))
                });
            }
        }
        for (format, yes) in [(F16, 0x3c00), (BF16, 0x3f80)] {
            for name in ["lt", "geu", "ne", "num"] {
                let k = Kind::Packed(format);
                let holds = move |x: &[u64], by: u32| format.compare(name, x[0] >> by & 0xffff, x[1] >> by & 0xffff);
                let text = format!(
                    "{{ .reg .pred %y, %n; .reg .b32 %t; setp.{name}.xor.{}x2 %y|%n, $0, $1, $2; \
                     selp.b32 $d, 1, 0, %y; selp.b32 %t, 2, 0, %n; or.b32 $d, $d, %t; }}",
                    format.name
                );
                self.text(text, R, &[k, k, Kind::Pred], move |x| {
                    Some((u64::from(holds(x, 0)) ^ x[2]) | (u64::from(holds(x, 16)) ^ x[2]) << 1)
                });
                self.add(format!("set.{name}.{0}x2.{0}x2", format.name), k, &[k; 2], move |x| {
                    yes * (u64::from(holds(x, 0)) | u64::from(holds(x, 16)) << 16)
                });
            }
        }
        for (name, f) in combine {
            self.add(format!("{name}.pred"), Kind::Pred, &[Kind::Pred; 2], move |x| f(x[0] == 1, x[1] == 1).into());
        }
        self.add("not.pred", Kind::Pred, &[Kind::Pred], |x| 1 - x[0]);
        self.add("mov.pred", Kind::Pred, &[Kind::Pred], |x| x[0]);
        for (types, k) in [(["b16", "u16", "s16"], H), (["b32", "u32", "s32"], R), (["b64", "u64", "s64"], D)] {
            for ty in types {
                self.add(format!("selp.{ty}"), k, &[k, k, Kind::Pred], |x| x[1 - x[2] as usize]);
                self.add(format!("slct.{ty}.s32"), k, &[k, k, R], |x| x[usize::from(x[2] >> 31 == 1)]);
                let f = Kind::Float(F32);
                // "If operand c is NaN, the comparison is unordered and operand b is selected"; -0 is not less than 0.
                self.add(format!("slct.{ty}.f32"), k, &[k, k, f], |x| x[usize::from(!F32.compare("ge", x[2], 0))]);
                self.add(format!("slct.ftz.{ty}.f32"), k, &[k, k, f], |x| {
                    x[usize::from(!F32.compare("ge", F32.flush(x[2], true), 0))]
                });
            }
        }
        for format in [F32, F64] {
            let k = Kind::Float(format);
            self.add(format!("selp.{}", format.name), k, &[k, k, Kind::Pred], |x| x[1 - x[2] as usize]);
            type Holds = fn(Format, u64) -> bool;
            let tests: [(&str, Holds); 6] = [
                ("finite", |f, x| f.magnitude(x) < f.inf()),
                ("infinite", |f, x| f.is_inf(x)),
                ("number", |f, x| !f.is_nan(x)),
                ("notanumber", |f, x| f.is_nan(x)),
                // "true if the input is a normal number"; zero is subnormal for neither.
                ("normal", |f, x| {
                    f.magnitude(x) < f.inf() && (f.magnitude(x) >> f.fraction != 0 || f.magnitude(x) == 0)
                }),
                ("subnormal", |f, x| f.magnitude(x) >> f.fraction == 0 && f.magnitude(x) != 0),
            ];
            for (name, f) in tests {
                self.add(format!("testp.{name}.{}", format.name), Kind::Pred, &[k], move |x| f(format, x[0]).into());
            }
        }
    }

    /// 9.7.3 and 9.7.4: floats, but for the approximations.
    fn floats(&mut self) {
        for format in [F32, F64] {
            let (n, k) = (format.name, Kind::Float(format));
            let flushes: &[(&str, bool)] = if format == F32 { &[("", false), (".ftz", true)] } else { &[("", false)] };
            for (&(flush, ftz), (round, mode)) in flushes.iter().flat_map(|f| MODES.map(|mode| (f, mode))) {
                for (name, count) in
                    [("add", 2), ("sub", 2), ("mul", 2), ("fma", 3), ("div", 2), ("rcp", 1), ("sqrt", 1)]
                {
                    let saturates = format == F32 && matches!(name, "add" | "sub" | "mul" | "fma");
                    for sat in [false, true].into_iter().filter(|sat| !sat || saturates) {
                        let suffix = if sat { ".sat" } else { "" };
                        self.add(format!("{name}.{round}{flush}{suffix}.{n}"), k, &vec![k; count], move |x| {
                            let x: Vec<_> = x.iter().map(|x| format.flush(*x, ftz)).collect();
                            format.saturate(format.flush(format.apply(name, &x, mode), ftz), sat)
                        });
                    }
                }
            }
            for &(flush, ftz) in flushes {
                let f = move |x| format.flush(x, ftz);
                for (name, max) in [("min", false), ("max", true)] {
                    for nan in [false, true].into_iter().filter(|nan| !nan || format == F32) {
                        let word = if nan { ".NaN" } else { "" };
                        self.add(format!("{name}{flush}{word}.{n}"), k, &[k; 2], move |x| {
                            format.extremum(max, nan, f(x[0]), f(x[1]))
                        });
                    }
                }
                // Of NaN, whether the payload survives is left open.
                let known = move |x: u64, y: u64| (!format.is_nan(x)).then_some(y);
                let (abs, neg) = (format!("abs{flush}.{n} $d, $0;"), format!("neg{flush}.{n} $d, $0;"));
                self.text(abs, k, &[k], move |x| known(x[0], format.magnitude(f(x[0]))));
                self.text(neg, k, &[k], move |x| known(x[0], f(x[0]) ^ format.sign()));
            }
            self.add(format!("copysign.{n}"), k, &[k; 2], move |x| format.magnitude(x[1]) | x[0] & format.sign());
            self.add(format!("mov.{n}"), k, &[k], |x| x[0]);
        }
        for format in [F16, BF16] {
            let flushes: &[(&str, bool)] = if format == F16 { &[("", false), (".ftz", true)] } else { &[("", false)] };
            for &(flush, ftz) in flushes {
                let f = move |x| format.flush(x, ftz);
                for (name, count) in [("add", 2), ("sub", 2), ("mul", 2), ("fma", 3)] {
                    let limits: &[&str] = match (name, format) {
                        ("fma", F16) => &["", ".sat", ".relu"],
                        ("fma", _) => &["", ".relu"],
                        (_, F16) => &["", ".sat"],
                        _ => &[""],
                    };
                    for &limit in limits {
                        self.halves(format!("{name}.rn{flush}{limit}"), format, count, move |x| {
                            let x: Vec<_> = x.iter().map(|x| f(*x)).collect();
                            let y = format.saturate(f(format.apply(name, &x, Mode::Nearest)), limit == ".sat");
                            if limit == ".relu" && format.negative(y) { 0 } else { y }
                        });
                    }
                }
                for (name, max) in [("min", false), ("max", true)] {
                    for (word, nan) in [("", false), (".NaN", true)] {
                        self.halves(format!("{name}{flush}{word}"), format, 2, move |x| {
                            format.extremum(max, nan, f(x[0]), f(x[1]))
                        });
                    }
                }
                self.halves(format!("abs{flush}"), format, 1, move |x| format.magnitude(f(x[0])));
                self.halves(format!("neg{flush}"), format, 1, move |x| f(x[0]) ^ format.sign());
            }
        }
    }

    /// An operation on halves: of one, and of two at a time.
    fn halves(&mut self, name: String, format: Format, count: usize, f: impl Fn(&[u64]) -> u64 + Copy + 'static) {
        self.add(format!("{name}.{}", format.name), Kind::Float(format), &vec![Kind::Float(format); count], f);
        let packed = Kind::Packed(format);
        self.add(format!("{name}.{}x2", format.name), packed, &vec![packed; count], move |x| {
            let half = |by: u32| f(&x.iter().map(|x| x >> by & 0xffff).collect::<Vec<_>>());
            half(0) | half(16) << 16
        });
    }

    /// 9.7.9.21: conversions.
    fn conversions(&mut self) {
        let all = Int::all(&[8, 16, 32, 64]);
        // Operands may lie in registers wider than their types; a wider destination takes the extension.
        let widths = |t: Int| [16, 32, 64].into_iter().filter(move |bits| *bits >= t.bits).map(Kind::Int);
        // ptxas wants the very width beside bf16, and has no 8 bits there.
        let fitting = move |format: Format, t: Int| {
            widths(t).filter(move |k| format != BF16 || k.bits() == t.bits).collect::<Vec<_>>()
        };
        for (to, from) in all.iter().flat_map(|&to| all.iter().map(move |&from| (to, from))) {
            for (d, s) in widths(to).flat_map(|d| widths(from).map(move |s| (d, s))) {
                let name = format!("{}.{}", to.name(), from.name());
                self.add(format!("cvt.{name}"), d, &[s], move |x| to.value(from.value(x[0]) as u64) as u64)
                    .immediates = 0;
                if from.max() > to.max() || from.min() < to.min() {
                    self.add(format!("cvt.sat.{name}"), d, &[s], move |x| to.clamp(from.value(x[0]))).immediates = 0;
                }
            }
        }
        for (format, &t) in [F16, BF16, F32, F64].into_iter().flat_map(|f| all.iter().map(move |t| (f, t))) {
            let (n, k) = (format.name, Kind::Float(format));
            for (round, mode) in MODES {
                for d in fitting(format, t) {
                    for (flush, ftz) in [("", false), (".ftz", true)].into_iter().filter(|f| !f.1 || format == F32) {
                        let text = format!("cvt.{round}i{flush}.{}.{n} $d, $0;", t.name());
                        self.text(text, d, &[k], move |x| {
                            let x = format.flush(x[0], ftz);
                            Some(match () {
                                () if format.is_nan(x) && (format == F64 || t.bits == 64) => {
                                    t.value(1 << (t.bits - 1)) as u64
                                }
                                () if format.is_nan(x) => 0,
                                () if format.is_inf(x) => {
                                    t.clamp(if format.negative(x) { -(1 << 100) } else { 1 << 100 })
                                }
                                () => t.clamp(format.number(x).integral(mode)),
                            })
                        })
                        .immediates = 0;
                    }
                }
                for s in fitting(format, t) {
                    let name = format!("{n}.{}", t.name());
                    let f = move |x: &[u64]| format.round(Number::integer(t.value(x[0])), mode);
                    self.add(format!("cvt.{round}.{name}"), k, &[s], f).immediates = 0;
                    if format != BF16 {
                        let sat = move |x: &[u64]| format.saturate(f(x), true);
                        self.add(format!("cvt.{round}.sat.{name}"), k, &[s], sat).immediates = 0;
                    }
                }
            }
        }
        for format in [F16, BF16, F32, F64] {
            let (n, k) = (format.name, Kind::Float(format));
            for (round, mode) in MODES {
                for limit in ["", ".ftz", ".sat"] {
                    if limit == ".ftz" && format != F32 || limit == ".sat" && format == BF16 {
                        continue;
                    }
                    self.add(format!("cvt.{round}i{limit}.{n}.{n}"), k, &[k], move |x| {
                        let x = format.flush(x[0], limit == ".ftz");
                        let y = match () {
                            () if format.is_nan(x) => format.canonical(),
                            () if format.is_inf(x) || format.number(x).e >= 0 => x,
                            () => {
                                format.round(Number::integer(format.number(x).integral(mode)), mode) | x & format.sign()
                            }
                        };
                        format.saturate(y, limit == ".sat")
                    })
                    .immediates = 0;
                }
            }
        }
        for (from, to) in [(F16, F32), (BF16, F32), (F16, F64), (F32, F64), (BF16, F64)] {
            let name = format!("cvt.{}.{}", to.name, from.name);
            let (d, s) = (Kind::Float(to), Kind::Float(from));
            self.add(name, d, &[s], move |x| from.convert(x[0], to, Mode::Nearest)).immediates = 0;
        }
        for (name, from, to) in
            [("ftz.f64.f32", F32, F64), ("ftz.sat.f64.f32", F32, F64), ("ftz.f32.f32", F32, F32)].into_iter().chain([
                ("sat.f32.f32", F32, F32),
                ("sat.f16.f16", F16, F16),
                ("sat.f64.f64", F64, F64),
                ("sat.f32.f16", F16, F32),
            ])
        {
            let (ftz, sat) = (name.contains("ftz"), name.contains("sat"));
            self.add(format!("cvt.{name}"), Kind::Float(to), &[Kind::Float(from)], move |x| {
                to.saturate(from.convert(from.flush(x[0], ftz), to, Mode::Nearest), sat)
            })
            .immediates = 0;
        }
        for (from, to) in [(F64, F32), (F64, F16), (F32, F16), (F32, BF16), (F64, BF16), (F16, BF16), (BF16, F16)] {
            for (round, mode) in MODES {
                for limit in ["", ".ftz", ".sat", ".relu"] {
                    let legal = match (limit, to, mode) {
                        ("", ..) => true,
                        (".relu", F16 | BF16, Mode::Nearest | Mode::Zero) => from == F32,
                        (".ftz", ..) => from == F32 || to == F32,
                        (".sat", F16 | F32, _) => from != BF16,
                        _ => false,
                    };
                    if !legal {
                        continue;
                    }
                    let name = format!("cvt.{round}{limit}.{}.{}", to.name, from.name);
                    self.add(name, Kind::Float(to), &[Kind::Float(from)], move |x| {
                        // Of halves, nothing is flushed.
                        let flush = |format: Format, x| format.flush(x, limit == ".ftz" && format == F32);
                        let y = flush(to, from.convert(flush(from, x[0]), to, mode));
                        let y = to.saturate(y, limit == ".sat");
                        if limit == ".relu" && to.negative(y) { 0 } else { y }
                    })
                    .immediates = 0;
                }
            }
        }
        for to in [F16, BF16] {
            for ((round, mode), relu) in [MODES[0], MODES[1]].into_iter().flat_map(|m| [(m, false), (m, true)]) {
                let name = format!("cvt.{round}{}.{}x2.f32", if relu { ".relu" } else { "" }, to.name);
                self.add(name, Kind::Packed(to), &[Kind::Float(F32); 2], move |x| {
                    let half = |x: u64| match F32.convert(x, to, mode) {
                        y if relu && to.negative(y) => 0,
                        y => y,
                    };
                    half(x[0]) << 16 | half(x[1])
                })
                .immediates = 0;
            }
        }
        let tf32 = Format { name: "tf32", bits: 19, fraction: 10 };
        for (round, mode) in [MODES[0], MODES[1]] {
            self.add(format!("cvt.{round}.tf32.f32"), R, &[Kind::Float(F32)], move |x| {
                if F32.is_nan(x[0]) { F32.canonical() } else { F32.convert(x[0], tf32, mode) << 13 }
            })
            .immediates = 0;
        }
        self.add("cvt.rna.tf32.f32", R, &[Kind::Float(F32)], |x| {
            if F32.is_nan(x[0]) { F32.canonical() } else { (x[0] + (1 << 12)) & !0x1fff }
        })
        .immediates = 0;
    }
}

/// A comparison of integers.
fn integers<const SIGNED: bool>(name: &str, k: Kind, a: u64, b: u64) -> bool {
    let t = Int { bits: k.bits(), signed: SIGNED };
    let order = t.value(a).cmp(&t.value(b));
    match name {
        "eq" => order.is_eq(),
        "ne" => order.is_ne(),
        "lt" | "lo" => order.is_lt(),
        "le" | "ls" => order.is_le(),
        "gt" | "hi" => order.is_gt(),
        _ => order.is_ge(),
    }
}

/// A comparison of floats.
fn floats<const FTZ: bool>(name: &str, k: Kind, a: u64, b: u64) -> bool {
    match k {
        Kind::Float(format) => format.compare(name, format.flush(a, FTZ), format.flush(b, FTZ)),
        _ => unreachable!("{k:?}"),
    }
}

fn table() -> Vec<Op> {
    let mut table = Table::default();
    table.arithmetic();
    table.manipulation();
    table.comparisons();
    table.floats();
    table.conversions();
    table.0
}

// ---------------------------------------------------------------------------------------------------------------------
// Execution

/// Threads of a launch, in blocks of one warp.
const THREADS: usize = 256;
/// What memory holds before a kernel writes it.
const UNTOUCHED: u64 = 0xcccc_cccc_cccc_cccc;

/// A kernel of two arrays of 64-bit slots, `[slot][thread]`: `%in` and `%out` point to the thread's first slots.
fn kernel(body: &str) -> String {
    format!(
        ".version 8.0\n.target sm_90\n.address_size 64\n.visible .entry kernel(.param .u64 from, .param .u64 to)\n{{\n\
         .reg .b64 %in, %out, %offset;\n.reg .b32 %thread, %block;\n\
         mov.u32 %thread, %tid.x;\nmov.u32 %block, %ctaid.x;\nmad.lo.u32 %thread, %block, 32, %thread;\n\
         mul.wide.u32 %offset, %thread, 8;\n\
         ld.param.u64 %in, [from];\nadd.u64 %in, %in, %offset;\n\
         ld.param.u64 %out, [to];\nadd.u64 %out, %out, %offset;\n\
         {body}ret;\n}}\n"
    )
}

/// The distance from a thread's first slot to another.
fn slot(at: usize) -> usize {
    at * THREADS * 8
}

struct Gpu(Device);

impl Gpu {
    fn new() -> Self {
        Self(Device::new(Profile::of(90).unwrap()))
    }

    fn run(&self, text: &str, input: &[u64], slots: usize) -> Vec<u64> {
        let memory = &self.0.memory;
        let bytes = |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
        let from = memory.alloc(input.len().max(1) as u64 * 8).unwrap();
        let to = memory.alloc((slots * THREADS * 8) as u64).unwrap();
        memory.write(from, &bytes(input)).unwrap();
        memory.write(to, &bytes(&vec![UNTOUCHED; slots * THREADS])).unwrap();
        let program = Program::load(&self.0, text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let args = Args::new().u64(from).u64(to);
        let launch = Launch {
            kernel: program.kernel("kernel").unwrap(),
            grid: [(THREADS / 32) as u32, 1, 1],
            block: [32, 1, 1],
            shared: 0,
            params: args.as_bytes(),
            cooperative: false,
        };
        run(&self.0, &launch).unwrap_or_else(|finding| panic!("{finding}\n{text}"));
        let mut raw = vec![0; slots * THREADS * 8];
        memory.read(to, &mut raw).unwrap();
        memory.free(from).unwrap();
        memory.free(to).unwrap();
        raw.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)).collect()
    }
}

/// An instruction with registers, or an immediate in one place.
struct Variant<'a> {
    op: &'a Op,
    immediate: Option<(usize, u64, String)>,
}

impl Op {
    fn variants(&self, random: &mut Random) -> Vec<Variant<'_>> {
        let mut variants = vec![Variant { op: self, immediate: None }];
        let mut places: Vec<_> = (0..self.s.len()).filter(|at| self.immediates >> at & 1 == 1).collect();
        places.extend_from_within(..);
        for at in places {
            let mut value = self.s[at].operand(random, 0);
            // ptxas takes no other positions and lengths as constants.
            if self.text.starts_with("bf") && self.s[at] == R && at + 2 >= self.s.len() {
                value &= 255;
            }
            if let Some(literal) = self.s[at].literal(value) {
                variants.push(Variant { op: self, immediate: Some((at, value, literal)) });
            }
        }
        variants
    }

    /// The text with operands in their places.
    fn instance(&self, d: &str, s: &[String]) -> String {
        let text = s.iter().enumerate().fold(self.text.clone(), |text, (at, s)| text.replace(&format!("${at}"), s));
        text.replace("$d", d)
    }
}

impl Variant<'_> {
    /// The instruction alone, as it stands in the kernel.
    fn instance(&self) -> String {
        let operand = |at: usize| match &self.immediate {
            Some((place, _, literal)) if *place == at => literal.clone(),
            _ => format!("%s{at}"),
        };
        self.op.instance("%d", &(0..self.op.s.len()).map(operand).collect::<Vec<_>>())
    }

    /// Loads the operands, executes, and stores the result.
    fn body(&self, input: usize, output: usize) -> String {
        let mut body = "{\n".to_string();
        for (at, kind) in self.op.s.iter().enumerate() {
            let (bits, from) = (kind.bits(), slot(input + at));
            if *kind == Kind::Pred {
                writeln!(body, ".reg .pred %s{at}; .reg .b32 %w{at}; ld.global.b32 %w{at}, [%in+{from}];").unwrap();
                writeln!(body, "setp.ne.s32 %s{at}, %w{at}, 0;").unwrap();
            } else {
                writeln!(body, ".reg .b{bits} %s{at}; ld.global.b{bits} %s{at}, [%in+{from}];").unwrap();
            }
        }
        let (bits, to) = (self.op.d.bits(), slot(output));
        if self.op.d == Kind::Pred {
            writeln!(body, ".reg .pred %d; .reg .b32 %result; {}", self.instance()).unwrap();
            writeln!(body, "selp.b32 %result, 1, 0, %d; st.global.b32 [%out+{to}], %result;\n}}").unwrap();
        } else {
            writeln!(body, ".reg .b{bits} %d; {}\nst.global.b{bits} [%out+{to}], %d;\n}}", self.instance()).unwrap();
        }
        body
    }
}

#[test]
fn every_instruction() {
    let (gpu, table, mut random) = (Gpu::new(), table(), Random(0x5eed));
    let (mut failures, mut failed, mut checked) = (Vec::new(), 0, 0usize);
    for ops in table.chunks(16) {
        let (mut body, mut input, mut variants) = (String::new(), Vec::new(), Vec::new());
        for op in ops {
            let first = input.len() / THREADS;
            let operands: Vec<Vec<u64>> = (0..THREADS)
                .map(|_| {
                    let near = op.s[0].operand(&mut random, 0);
                    let rest: Vec<_> = op.s[1..].iter().map(|kind| kind.operand(&mut random, near)).collect();
                    [vec![near], rest].concat()
                })
                .collect();
            for at in 0..op.s.len() {
                input.extend(operands.iter().map(|x| x[at]));
            }
            for variant in op.variants(&mut random) {
                body += &variant.body(first, variants.len());
                variants.push((variant, operands.clone()));
            }
        }
        let output = gpu.run(&kernel(&body), &input, variants.len());
        for ((variant, operands), results) in variants.iter().zip(output.chunks(THREADS)) {
            let bits = variant.op.d.bits();
            let mut wrong = 0;
            for (operands, &got) in operands.iter().zip(results) {
                let mut operands = operands.clone();
                if let Some((at, value, _)) = &variant.immediate {
                    operands[*at] = *value;
                }
                let Some(expected) = (variant.op.oracle)(&operands) else { continue };
                let (expected, got, above) = (low(expected, bits), low(got, bits), got ^ low(got, bits));
                checked += 1;
                if !variant.op.d.same(expected, got) || above != UNTOUCHED ^ low(UNTOUCHED, bits) {
                    wrong += 1;
                    if wrong <= 2 {
                        let inputs = operands.iter().map(|x| format!("{x:#x}")).collect::<Vec<_>>().join(", ");
                        failures.push(format!(
                            "{}\n    inputs {inputs}; expected {expected:#x}, got {got:#x}",
                            variant.instance()
                        ));
                    }
                }
            }
            failed += usize::from(wrong > 0);
        }
    }
    println!("{} instructions, {checked} results", table.len());
    assert!(failures.is_empty(), "{failed} variants failed:\n{}", failures.join("\n"));
}

/// Loads and stores of every type and width, through every space, to registers of every size.
#[test]
fn loads_and_stores() {
    let gpu = Gpu::new();
    let mut random = Random(0x10ad);
    let input: Vec<u64> = (0..2 * THREADS).map(|_| random.next()).collect();
    let mut types: Vec<(String, Int)> = Vec::new();
    for t in Int::all(&[8, 16, 32, 64]) {
        types.push((t.name(), t));
        if !t.signed {
            types.push((format!("b{}", t.bits), t));
            if t.bits >= 32 {
                types.push((format!("f{}", t.bits), t));
            }
        }
    }
    for (name, t) in types {
        for (count, width) in [1, 2, 4].into_iter().flat_map(|count| [16, 32, 64].map(|width| (count, width))) {
            let narrow = width > t.bits && (name.starts_with('f') || (count > 1 && width == 64));
            if width < t.bits || narrow || count * t.bits > 128 {
                continue;
            }
            let (bytes, n) = ((count * t.bits / 8) as usize, count as usize);
            let vector = if n == 1 { String::new() } else { format!(".v{n}") };
            let list = |prefix: &str| match n {
                1 => format!("%{prefix}0"),
                _ => format!("{{{}}}", (0..n).map(|i| format!("%{prefix}{i}")).collect::<Vec<_>>().join(", ")),
            };
            for space in ["global", "shared", "local"] {
                // A thread's 16 bytes of the input are its pair of neighbouring slots of an array half as long.
                let mut body = format!(
                    ".shared .align 16 .b8 tile[512]; .local .align 16 .b8 own[16];\n\
                     .reg .b{width} %a<{n}>, %b<{n}>; .reg .b64 %wide, %at, %tile;\n\
                     ld.param.u64 %wide, [from]; add.u64 %wide, %wide, %offset; add.u64 %wide, %wide, %offset;\n\
                     ld.global{vector}.{name} {}, [%wide];\n",
                    list("a")
                );
                let at = match space {
                    "global" => "ld.param.u64 %at, [to]; add.u64 %at, %at, %offset; add.u64 %at, %at, %offset;",
                    "shared" => "mov.u64 %at, tile; and.b64 %tile, %offset, 255; mad.lo.u64 %at, %tile, 2, %at;",
                    _ => "mov.u64 %at, own;",
                };
                writeln!(body, "{at}\nst.{space}{vector}.{name} [%at], {};", list("a")).unwrap();
                writeln!(body, "ld.{space}{vector}.{name} {}, [%at];", list("b")).unwrap();
                for (i, prefix) in (0..n).flat_map(|i| [(i, 'a'), (i, 'b')]) {
                    let to = slot(2 + i + if prefix == 'a' { 0 } else { n });
                    writeln!(body, "st.global.b{width} [%out+{to}], %{prefix}{i};").unwrap();
                }
                let output = gpu.run(&kernel(&body), &input, 2 + 2 * n);
                let all = |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
                for thread in 0..THREADS {
                    let from = all(&input[2 * thread..][..2]);
                    let context =
                        || format!("ld.{space}{vector}.{name} to .b{width}, thread {thread}, bytes {from:02x?}");
                    for i in 0..n {
                        let size = t.bits as usize / 8;
                        let value = (0..size).rev().fold(0, |value, at| value << 8 | u64::from(from[i * size + at]));
                        let expected = low(t.value(value) as u64, width);
                        for at in [2 + i, 2 + i + n] {
                            let got = low(output[at * THREADS + thread], width);
                            assert_eq!(
                                got,
                                expected,
                                "{}: element {i}: got {got:#x}, expected {expected:#x}",
                                context()
                            );
                        }
                    }
                    let stored = all(&output[2 * thread..][..2]);
                    let expected: Vec<u8> = if space == "global" {
                        [&from[..bytes], &[0xcc; 16][bytes..]].concat()
                    } else {
                        vec![0xcc; 16]
                    };
                    assert_eq!(stored, expected, "{}: stored", context());
                }
            }
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Random programs

/// Registers of each kind that a program has: 16, 32, 64 bits, predicates.
const FILE: [(usize, char, &str); 4] = [(4, 'h', "b16"), (6, 'r', "b32"), (4, 'd', "b64"), (3, 'p', "pred")];

type State = [[u64; 6]; 4];

/// Which of the files holds a kind.
fn file(kind: Kind) -> usize {
    match kind {
        Kind::Pred => 3,
        _ => kind.bits().trailing_zeros() as usize - 4,
    }
}

fn register(kind: Kind, at: usize) -> String {
    format!("%{}{at}", FILE[file(kind)].1)
}

enum Source {
    Register(usize),
    Immediate(u64, String),
}

enum Statement<'a> {
    Do {
        op: &'a Op,
        d: usize,
        s: Vec<Source>,
        guard: Option<(usize, bool)>,
    },
    If {
        p: usize,
        negated: bool,
        yes: Vec<Statement<'a>>,
        no: Vec<Statement<'a>>,
    },
    /// As often as the low bits of a 32-bit register say.
    Loop {
        count: usize,
        body: Vec<Statement<'a>>,
    },
}

fn statements<'a>(ops: &[&'a Op], random: &mut Random, depth: usize) -> Vec<Statement<'a>> {
    let many = 3 + random.below(8) + if depth == 0 { 16 } else { 0 };
    let mut list = Vec::new();
    for _ in 0..many {
        let nested = |random: &mut Random| statements(ops, random, depth + 1);
        list.push(match random.below(12) {
            0 if depth < 3 => {
                let (p, negated) = (random.below(FILE[3].0), random.below(2) == 0);
                let no = if random.below(3) == 0 { Vec::new() } else { nested(random) };
                Statement::If { p, negated, yes: nested(random), no }
            }
            1 if depth < 2 => Statement::Loop { count: random.below(FILE[1].0), body: nested(random) },
            _ => {
                let op = *random.pick(ops);
                let single = op.text.matches(';').count() == 1;
                let d = random.below(FILE[file(op.d)].0);
                let mut s = Vec::new();
                for kind in &op.s {
                    let mut at = random.below(FILE[file(*kind)].0);
                    // Of several instructions the first must not overwrite what the next ones read.
                    if !single && file(*kind) == file(op.d) && at == d {
                        at = (at + 1) % FILE[file(*kind)].0;
                    }
                    s.push(Source::Register(at));
                }
                let place = random.below(2 * op.s.len());
                if place < op.s.len() && op.immediates >> place & 1 == 1 {
                    let value = op.s[place].operand(random, 0);
                    let value = if op.text.starts_with("bf") { value & 255 } else { value };
                    if let Some(literal) = op.s[place].literal(value) {
                        s[place] = Source::Immediate(value, literal);
                    }
                }
                let guarded = single && random.below(4) == 0;
                let guard = guarded.then(|| (random.below(FILE[3].0), random.below(2) == 0));
                Statement::Do { op, d, s, guard }
            }
        });
    }
    list
}

/// Writes the PTX.
fn emit(list: &[Statement<'_>], labels: &mut usize, into: &mut String) {
    for statement in list {
        *labels += 1;
        let label = *labels;
        match statement {
            Statement::Do { op, d, s, guard } => {
                if let Some((p, negated)) = guard {
                    write!(into, "@{}%p{p} ", if *negated { "!" } else { "" }).unwrap();
                }
                let operand = |(kind, source): (&Kind, &Source)| match source {
                    Source::Register(at) => register(*kind, *at),
                    Source::Immediate(_, literal) => literal.clone(),
                };
                let s: Vec<_> = op.s.iter().zip(s).map(operand).collect();
                writeln!(into, "{}", op.instance(&register(op.d, *d), &s)).unwrap();
            }
            Statement::If { p, negated, yes, no } => {
                writeln!(into, "@{}%p{p} bra $else{label};", if *negated { "" } else { "!" }).unwrap();
                emit(yes, labels, into);
                writeln!(into, "bra $end{label};\n$else{label}:").unwrap();
                emit(no, labels, into);
                writeln!(into, "$end{label}:").unwrap();
            }
            Statement::Loop { count, body } => {
                writeln!(into, "{{ .reg .b32 %n; .reg .pred %again;\nand.b32 %n, %r{count}, 3;\n$loop{label}:")
                    .unwrap();
                writeln!(into, "setp.eq.u32 %again, %n, 0;\n@%again bra $end{label};\nsub.u32 %n, %n, 1;").unwrap();
                emit(body, labels, into);
                writeln!(into, "bra $loop{label};\n$end{label}: }}").unwrap();
            }
        }
    }
}

/// Does the same to one thread's registers.
fn evaluate(list: &[Statement<'_>], state: &mut State) {
    for statement in list {
        match statement {
            Statement::Do { op, d, s, guard } => {
                if guard.is_some_and(|(p, negated)| (state[3][p] == 1) == negated) {
                    continue;
                }
                let operand = |(kind, source): (&Kind, &Source)| match source {
                    Source::Register(at) => state[file(*kind)][*at],
                    Source::Immediate(value, _) => *value,
                };
                let s: Vec<_> = op.s.iter().zip(s).map(operand).collect();
                state[file(op.d)][*d] = low((op.oracle)(&s).unwrap(), op.d.bits());
            }
            Statement::If { p, negated, yes, no } => {
                evaluate(if (state[3][*p] == 1) == *negated { no } else { yes }, state);
            }
            Statement::Loop { count, body } => (0..state[1][*count] & 3).for_each(|_| evaluate(body, state)),
        }
    }
}

#[test]
fn random_programs() {
    let (gpu, table, mut random) = (Gpu::new(), table(), Random(0xd1ce));
    // Those whose result is defined bit by bit for every input.
    let undefined = |op: &&Op| ["abs.f", "abs.ftz", "neg.f", "neg.ftz"].iter().any(|name| op.text.starts_with(name));
    let double = |op: &Op| op.s.iter().chain([&op.d]).any(|kind| *kind == Kind::Float(F64));
    let (floats, integers): (Vec<_>, Vec<_>) = table
        .iter()
        .filter(|op| !undefined(op) && !double(op) && !op.text.starts_with("{ .reg .pred"))
        .partition(|op| op.s.iter().chain([&op.d]).any(|kind| matches!(kind, Kind::Float(_) | Kind::Packed(_))));
    for number in 0..400 {
        let ops: Vec<&Op> = (0..40).map(|at| *random.pick(if at < 25 { &integers } else { &floats })).collect();
        let program = statements(&ops, &mut random, 0);
        let (mut body, mut input, mut slots) = (String::new(), Vec::new(), Vec::new());
        for (at, (count, prefix, ty)) in FILE.into_iter().enumerate() {
            writeln!(body, ".reg .{ty} %{prefix}<{count}>;").unwrap();
            slots.extend((0..count).map(|i| (at, i)));
        }
        writeln!(body, ".reg .b32 %word;").unwrap();
        for (number, &(at, i)) in slots.iter().enumerate() {
            let (from, (_, prefix, ty)) = (slot(number), FILE[at]);
            match at {
                3 => writeln!(body, "ld.global.b32 %word, [%in+{from}]; setp.ne.b32 %p{i}, %word, 0;").unwrap(),
                _ => writeln!(body, "ld.global.{ty} %{prefix}{i}, [%in+{from}];").unwrap(),
            }
            let kind = [H, if i < 3 { R } else { Kind::Float(F32) }, D, Kind::Pred][at];
            input.extend((0..THREADS).map(|_| kind.operand(&mut random, 0)));
        }
        emit(&program, &mut 0, &mut body);
        for (number, &(at, i)) in slots.iter().enumerate() {
            let (to, (_, prefix, ty)) = (slot(number), FILE[at]);
            match at {
                3 => writeln!(body, "selp.b32 %word, 1, 0, %p{i}; st.global.b32 [%out+{to}], %word;").unwrap(),
                _ => writeln!(body, "st.global.{ty} [%out+{to}], %{prefix}{i};").unwrap(),
            }
        }
        let text = kernel(&body);
        let output = gpu.run(&text, &input, slots.len());
        for thread in 0..THREADS {
            let mut state = State::default();
            slots.iter().enumerate().for_each(|(number, &(at, i))| state[at][i] = input[number * THREADS + thread]);
            evaluate(&program, &mut state);
            for (number_of, &(at, i)) in slots.iter().enumerate() {
                let bits = [16, 32, 64, 32][at];
                let (expected, got) = (state[at][i], low(output[number_of * THREADS + thread], bits));
                let name = FILE[at].1;
                assert_eq!(
                    got, expected,
                    "program {number}, thread {thread}: %{name}{i}: expected {expected:#x}, got {got:#x}\n{text}"
                );
            }
        }
    }
}

const REGISTERS: &str = ".reg .b16 %h<4>; .reg .b32 %r<4>; .reg .b64 %d<4>; .reg .pred %p<4>;";

/// What ptxas refuses too, and what would otherwise be executed as something else.
#[test]
fn refused() {
    const LINES: [&str; 75] = [
        // Registers of another width.
        "add.u32 %r0, %r1, %h0;",
        "add.u32 %r0, %r1, %d0;",
        "add.u64 %d0, %d1, %r0;",
        "add.u16 %h0, %h1, %r0;",
        "mov.u32 %r0, %d0;",
        "mov.b16 %h0, %r0;",
        "shl.b32 %r0, %r1, %d0;",
        "sad.u32 %r0, %r1, %r2, %d0;",
        "selp.b32 %r0, %r1, %h0, %p0;",
        "mul.wide.u32 %r0, %r1, %r2;",
        "popc.b64 %d0, %d1;",
        "add.f16x2 %h0, %h1, %h2;",
        "add.cc.u16 %h0, %h1, %h2;",
        // Loads, stores and moves with registers that the type does not fit into.
        "ld.global.u32 %h0, [%out];",
        "ld.global.u64 %r0, [%out];",
        "ld.global.v2.u32 {%h0, %h1}, [%out];",
        "st.global.u32 [%out], %h0;",
        "st.global.u64 [%out], %r0;",
        "st.global.v2.f32 [%out], {%h0, %h1};",
        "mov.u32 %h0, %r0;",
        "mov.u16 %r0, %h0;",
        "mov.b32 %h0, {%h1, %h2};",
        "mov.b32 %r0, {%r1, %r2};",
        "mov.b32 {%r0, %r1}, %r2;",
        "mov.b32 {%h0, %h1}, %d0;",
        "mov.b64 {%r0, %r1}, {%r2, %r3};",
        // Results, conversions and atomics likewise.
        "add.u32 %h0, %r0, %r1;",
        "add.u16 %r0, %h0, %h1;",
        "add.f16 %r0, %h0, %h1;",
        "add.cc.u16 %r0, %r1, %r2;",
        "set.eq.u32.f32 %h0, %r0, %r1;",
        "cvt.u32.u16 %h0, %h1;",
        "cvt.u32.u32 %r0, %h1;",
        "atom.global.add.u32 %h0, [%out], %r1;",
        "atom.global.add.u32 %r0, [%out], %d1;",
        "red.global.add.noftz.f16 [%out], %r1;",
        // Special registers are read by moves and conversions alone.
        "mov.u32 %tid.x, %r0;",
        "ld.global.u32 %tid.x, [%out];",
        "add.u32 %r0, %tid.x, %r1;",
        "st.global.u32 [%out], %tid.x;",
        "mov.u64 %d0, %tid.x;",
        // Literals of another kind.
        "add.f32 %r0, %r1, 1;",
        "add.f64 %d0, %d1, 1;",
        "mov.f32 %r0, 1;",
        "setp.lt.f32 %p0, %r1, 0;",
        "add.u32 %r0, %r1, 0f3F800000;",
        "mov.u32 %r0, 1.5;",
        "mov.b64 %d0, 0f3F800000;",
        "add.f16 %h0, %h1, 0x3c00;",
        "setp.lt.s32 %p0, %r1, 0f3F800000;",
        "st.global.f32 [%out], 1;",
        "red.global.add.f32 [%out], 1;",
        "cvt.f64.f32 %d0, 1;",
        // Modifiers that the type or the operation does not have, and those that are missing.
        "add.sat.f64 %d0, %d1, %d2;",
        "add.ftz.f64 %d0, %d1, %d2;",
        "add.sat.u32 %r0, %r1, %r2;",
        "add.relu.f32 %r0, %r1, %r2;",
        "add.rz.f16 %h0, %h1, %h2;",
        "add.rn.sat.bf16 %h0, %h1, %h2;",
        "min.ftz.bf16 %h0, %h1, %h2;",
        "fma.f32 %r0, %r1, %r2, %r3;",
        "div.f32 %r0, %r1, %r2;",
        "cvt.s32.f32 %r0, %r1;",
        "cvt.f32.s32 %r0, %r1;",
        "cvt.rn.s32.f32 %r0, %r1;",
        "cvt.rna.f16.f32 %h0, %r1;",
        "cvt.ftz.u32.u32 %r0, %r1;",
        "cvt.rn.sat.bf16.f32 %h0, %r1;",
        // Comparisons that the type does not have.
        "setp.lt.b32 %p0, %r1, %r2;",
        "setp.lo.s32 %p0, %r1, %r2;",
        "setp.hi.f32 %p0, %r1, %r2;",
        "setp.ltu.u32 %p0, %r1, %r2;",
        "setp.eq.ftz.s32 %p0, %r1, %r2;",
        // Operands too many.
        "add.s32 %r0, %r1, %r2, %r3;",
        "min.f32 %r0, %r1, %r2, %r3;",
    ];
    let gpu = Gpu::new();
    for line in LINES {
        let text = kernel(&format!("{REGISTERS}\n{line}\n"));
        assert!(Program::load(&gpu.0, &text).is_err(), "{line} is executed");
    }
}

/// Operands that do not have the type's width, or are no registers, and that ptxas takes.
#[test]
fn accepted() {
    const LINES: [&str; 12] = [
        "ld.global.u8 %d0, [%out];",
        "ld.global.v2.f32 {_, %r0}, [%out];",
        "st.global.u8 [%out], %d0;",
        "st.global.v2.f32 [%out], {%r0, 1.0};",
        "mov.u16 %h0, %tid.x;",
        "mov.u32 %r0, %gridid;",
        "mov.b32 {_, %h0}, %tid.x;",
        "mov.b64 %d0, {%r0, 0f3F800000};",
        "cvt.u64.u32 %d0, %tid.x;",
        "cvt.u16.u32 %d0, %r0;",
        "cvt.rn.f16.f32 %r0, %d1;",
        "atom.global.cas.b32 %r0, [%out], 0f3F800000, 1;",
    ];
    let gpu = Gpu::new();
    for line in LINES {
        let text = kernel(&format!("{REGISTERS}\n{line}\n"));
        assert!(Program::load(&gpu.0, &text).is_ok(), "{line} is refused");
    }
}
