//! Floating-point instructions and conversions.

use super::alu::map1;
use super::{Op, Operation};
use crate::exec::regs::{LANES, Src, Value};
use crate::float::approx::Bound;
use crate::float::half::{Bf16, F16, Half};
use crate::float::{Modifiers, Rounding, TestOp, approx, convert, double, half, lanes, single};
use crate::ptx::{Error, Type};

/// Applies an f32 operation with its modifiers; the common ones are constants, so that the loop over lanes vectorises.
macro_rules! modified {
    ($self:ident, $arity:ident, $m:expr, |$($x:ident: $t:ty),*| $f:path) => {{
        const FTZ: Modifiers = Modifiers { ftz: true, ..Modifiers::RN };
        let m = $m;
        if m == Modifiers::RN {
            $self.$arity(|$($x: $t),*| $f($($x,)* Modifiers::RN))
        } else if m == FTZ {
            $self.$arity(|$($x: $t),*| $f($($x,)* FTZ))
        } else {
            $self.$arity(move |$($x: $t),*| $f($($x,)* m))
        }
    }};
}

/// A fused product and sum of a warp: `(d, a, b, c)`.
type Fused<T> = fn(&mut [T; LANES], &[T; LANES], &[T; LANES], &[T; LANES]);

/// `f` of the low halves and of the high halves.
fn halves<const N: usize>(words: [u32; N], f: impl Fn([u16; N]) -> u16) -> u32 {
    u32::from(f(words.map(|word| word as u16))) | u32::from(f(words.map(|word| (word >> 16) as u16))) << 16
}

impl Operation<'_, '_, '_> {
    fn rounding(&mut self) -> Option<Rounding> {
        use Rounding::{Down, Nearest, Up, Zero};
        self.one_of(&[("rn", Nearest), ("rz", Zero), ("rm", Down), ("rp", Up)])
    }

    fn float_modifiers(&mut self) -> Modifiers {
        self.has("noftz");
        Modifiers {
            rounding: self.rounding().unwrap_or_default(),
            ftz: self.has("ftz"),
            sat: self.has("sat"),
            relu: self.has("relu"),
            satfinite: self.has("satfinite"),
        }
    }

    /// Is there a rounding to a format, rather than to an integer?
    fn stated(&self) -> bool {
        self.words.iter().any(|word| matches!(*word, "rn" | "rz" | "rm" | "rp"))
    }

    pub(super) fn float(&mut self) -> Result<Op, Error> {
        if self.name == "testp" {
            return self.testp();
        }
        let m = self.float_modifiers();
        let types = self.types();
        // What a type does not have is not passed over in silence.
        let approximate = self.words.contains(&"approx");
        let fits = match types[..] {
            [Type::F32] => !m.relu,
            [Type::F64] => !m.sat && !m.relu && (!m.ftz || approximate),
            [Type::F16 | Type::F16x2] => m.rounding == Rounding::Nearest,
            _ => m.rounding == Rounding::Nearest && !m.sat && (!m.ftz || approximate),
        };
        let rounds = matches!(self.name, "fma" | "mad" | "div" | "rcp" | "sqrt");
        let stated = self.stated() || approximate || self.words.contains(&"full");
        let half = matches!(types[..], [Type::F16 | Type::F16x2 | Type::Bf16 | Type::Bf16x2]);
        if !fits || m.satfinite || (m.relu && self.name != "fma") || (rounds && !stated && !half) {
            return self.unknown();
        }
        match types[..] {
            [Type::F32] => self.single(m),
            [Type::F64] => self.double(m),
            [Type::F16] => self.half::<F16>(m),
            [Type::Bf16] => self.half::<Bf16>(m),
            [Type::F16x2] => self.half2::<F16>(m),
            [Type::Bf16x2] => self.half2::<Bf16>(m),
            _ => self.unknown(),
        }
    }

    fn single(&mut self, m: Modifiers) -> Result<Op, Error> {
        let (approximate, full, nan) = (self.has("approx"), self.has("full"), self.has("NaN"));
        let ftz = m.ftz;
        match (self.name, approximate) {
            ("add", false) => modified!(self, two, m, |a: u32, b: u32| single::add),
            ("sub", false) => modified!(self, two, m, |a: u32, b: u32| single::sub),
            ("mul", false) => modified!(self, two, m, |a: u32, b: u32| single::mul),
            ("fma" | "mad", false) if m == Modifiers::RN => self.fused(lanes::fma32),
            ("fma" | "mad", false) if m == (Modifiers { ftz: true, ..Modifiers::RN }) => self.fused(lanes::fma32_ftz),
            ("fma" | "mad", false) => self.three(move |a, b, c| single::fma(a, b, c, m)),
            ("min", false) => self.two(move |a, b| single::min(a, b, ftz, nan)),
            ("max", false) => self.two(move |a, b| single::max(a, b, ftz, nan)),
            ("abs", false) => self.one(move |a| single::abs(a, ftz)),
            ("neg", false) => self.one(move |a| single::neg(a, ftz)),
            ("copysign", false) => self.two(single::copysign),
            ("div", true) => self.inexact_quotient(move |a, b| approx::div(a, b, ftz)),
            ("div", false) if full => self.inexact_quotient(move |a, b| approx::div_full(a, b, ftz)),
            ("div", false) => modified!(self, two, m, |a: u32, b: u32| single::div),
            ("rcp", true) => self.inexact(Bound::Places(1), move |a| approx::rcp(a, ftz)),
            ("rcp", false) => modified!(self, one, m, |a: u32| single::rcp),
            ("sqrt", true) => self.inexact(Bound::Relative(-23.0), move |a| approx::sqrt(a, ftz)),
            ("sqrt", false) => modified!(self, one, m, |a: u32| single::sqrt),
            ("rsqrt", true) => self.inexact(Bound::Relative(-22.9), move |a| approx::rsqrt(a, ftz)),
            ("sin", true) => self.inexact(Bound::Absolute(-20.5), move |a| approx::sin(a, ftz)),
            ("cos", true) => self.inexact(Bound::Absolute(-20.5), move |a| approx::cos(a, ftz)),
            ("lg2", true) => self.inexact(Bound::Logarithm, move |a| approx::lg2(a, ftz)),
            ("ex2", true) => self.inexact(Bound::Places(2), move |a| approx::ex2(a, ftz)),
            ("tanh", true) => self.inexact(Bound::Relative(-11.0), approx::tanh),
            _ => self.unknown(),
        }
    }

    /// A function that errs by as much as it may, where that is asked for.
    fn inexact(&mut self, bound: Bound, f: impl Fn(u32) -> u32 + Send + Sync + 'static) -> Result<Op, Error> {
        match self.errors {
            0 => self.one(f),
            seed => self.one(move |a: u32| bound.add(seed, a.into(), f(a))),
        }
    }

    /// As [`Operation::inexact`], of two operands, by two units in the last place.
    fn inexact_quotient(&mut self, f: impl Fn(u32, u32) -> u32 + Send + Sync + 'static) -> Result<Op, Error> {
        match self.errors {
            0 => self.two(f),
            seed => {
                self.two(move |a: u32, b: u32| Bound::Places(2).add(seed, u64::from(a) << 32 | u64::from(b), f(a, b)))
            }
        }
    }

    /// A fused product and sum of whole rows.
    fn fused<T: Value>(&mut self, f: Fused<T>) -> Result<Op, Error> {
        let (d, a, b, c): (_, Src<T>, Src<T>, Src<T>) = (self.dst::<T>(0)?, self.src(1)?, self.src(2)?, self.src(3)?);
        Ok(Op::Lanes(Box::new(move |regs, mask| {
            let (a, b, c) = (a.fetch(regs), b.fetch(regs), c.fetch(regs));
            let mut out = c;
            f(&mut out, &a, &b, &c);
            regs.put(d, &out, mask);
        })))
    }

    fn double(&mut self, m: Modifiers) -> Result<Op, Error> {
        let approximate = self.has("approx");
        let r = m.rounding;
        match (self.name, approximate) {
            ("add", false) => self.two(move |a, b| double::add(a, b, r)),
            ("sub", false) => self.two(move |a, b| double::sub(a, b, r)),
            ("mul", false) => self.two(move |a, b| double::mul(a, b, r)),
            ("fma" | "mad", false) if m == Modifiers::RN => self.fused(lanes::fma64),
            ("fma" | "mad", false) => self.three(move |a, b, c| double::fma(a, b, c, r)),
            ("div", false) => self.two(move |a, b| double::div(a, b, r)),
            ("rcp", false) => self.one(move |a| double::rcp(a, r)),
            ("sqrt", false) => self.one(move |a| double::sqrt(a, r)),
            ("min", false) => self.two(double::min),
            ("max", false) => self.two(double::max),
            ("abs", false) => self.one(double::abs),
            ("neg", false) => self.one(double::neg),
            ("copysign", false) => self.two(double::copysign),
            ("rcp", true) => self.one(approx::rcp_upper),
            ("rsqrt", true) if m.ftz => self.one(approx::rsqrt_upper),
            ("rsqrt", true) => self.one(approx::rsqrt_f64),
            _ => self.unknown(),
        }
    }

    fn half<H: Half + Send + Sync + 'static>(&mut self, m: Modifiers) -> Result<Op, Error> {
        let (approximate, nan) = (self.has("approx"), self.has("NaN"));
        let ftz = m.ftz;
        match (self.name, approximate) {
            ("add", false) => self.two(move |a, b| half::add::<H>(a, b, m)),
            ("sub", false) => self.two(move |a, b| half::sub::<H>(a, b, m)),
            ("mul", false) => self.two(move |a, b| half::mul::<H>(a, b, m)),
            ("fma", false) => self.three(move |a, b, c| half::fma::<H>(a, b, c, m)),
            ("min", false) => self.two(move |a, b| half::min::<H>(a, b, ftz, nan)),
            ("max", false) => self.two(move |a, b| half::max::<H>(a, b, ftz, nan)),
            ("abs", false) => self.one(move |a| half::abs::<H>(a, ftz)),
            ("neg", false) => self.one(move |a| half::neg::<H>(a, ftz)),
            ("ex2", true) => self.one(move |a| approx::ex2_half::<H>(a, ftz)),
            ("tanh", true) => self.one(approx::tanh_half::<H>),
            _ => self.unknown(),
        }
    }

    fn half2<H: Half + Send + Sync + 'static>(&mut self, m: Modifiers) -> Result<Op, Error> {
        let (approximate, nan) = (self.has("approx"), self.has("NaN"));
        let ftz = m.ftz;
        let (f, sum): (fn(u16, u16, Modifiers) -> u16, _) = match (self.name, approximate) {
            ("add", false) => (half::add::<H>, true),
            ("sub", false) => (half::sub::<H>, true),
            ("mul", false) => (half::mul::<H>, true),
            _ => (half::add::<H>, false),
        };
        if sum {
            return self.two(move |a, b| halves([a, b], |[a, b]| f(a, b, m)));
        }
        match (self.name, approximate) {
            ("fma", false) => self.three(move |a, b, c| halves([a, b, c], |[a, b, c]| half::fma::<H>(a, b, c, m))),
            ("min", false) => self.two(move |a, b| halves([a, b], |[a, b]| half::min::<H>(a, b, ftz, nan))),
            ("max", false) => self.two(move |a, b| halves([a, b], |[a, b]| half::max::<H>(a, b, ftz, nan))),
            ("abs", false) => self.one(move |a| halves([a], |[a]| half::abs::<H>(a, ftz))),
            ("neg", false) => self.one(move |a| halves([a], |[a]| half::neg::<H>(a, ftz))),
            ("ex2", true) => self.one(move |a| halves([a], |[a]| approx::ex2_half::<H>(a, ftz))),
            ("tanh", true) => self.one(|a| halves([a], |[a]| approx::tanh_half::<H>(a))),
            _ => self.unknown(),
        }
    }

    fn testp(&mut self) -> Result<Op, Error> {
        use TestOp::{Finite, Infinite, Normal, NotANumber, Number, Subnormal};
        let named = [("finite", Finite), ("infinite", Infinite), ("number", Number)];
        let others = [("notanumber", NotANumber), ("normal", Normal), ("subnormal", Subnormal)];
        let Some(op) = self.one_of(&named).or_else(|| self.one_of(&others)) else { return self.unknown() };
        match self.ty()? {
            Type::F32 => self.test(move |a: u32| single::testp(a, op)),
            Type::F64 => self.test(move |a: u64| double::testp(a, op)),
            _ => self.unknown(),
        }
    }

    pub(super) fn cvt(&mut self) -> Result<Op, Error> {
        use Rounding::{Down, Nearest, Up, Zero};
        let integral = self.one_of(&[("rni", Nearest), ("rzi", Zero), ("rmi", Down), ("rpi", Up)]);
        let away = self.has("rna");
        let mut m = self.float_modifiers();
        if let Some(rounding) = integral {
            m.rounding = rounding;
        }
        let types = self.types();
        let [d, s] = types[..] else { return self.unknown() };
        let (whole, stated) = (integral.is_some(), self.stated());
        let integer = |ty: Type| matches!(ty, Type::U(_) | Type::S(_));
        let rounds = match (integer(d), integer(s)) {
            (true, true) => !whole && !stated && !m.ftz,
            (true, false) => whole && !stated,
            (false, true) => stated && !whole,
            (false, false) if d == s => !stated,
            (false, false) if d.bits() > s.bits() => !stated && !whole,
            (false, false) => (stated || away) && !whole,
        };
        let short = matches!(d, Type::F16 | Type::F16x2 | Type::Bf16 | Type::Bf16x2 | Type::Tf32);
        let fits = (!away || d == Type::Tf32)
            && (!m.ftz || d == Type::F32 || s == Type::F32)
            && (!m.relu && !m.satfinite || short)
            && !(m.sat && matches!(d, Type::Bf16 | Type::Bf16x2 | Type::Tf32));
        if !rounds || !fits {
            return self.unknown();
        }
        match (d, s) {
            (Type::F16x2, Type::F32) => self.two(move |a, b| convert::half2_from_f32::<F16>(a, b, m)),
            (Type::Bf16x2, Type::F32) => self.two(move |a, b| convert::half2_from_f32::<Bf16>(a, b, m)),
            (Type::Tf32, Type::F32) if away => self.one(move |a| convert::tf32_away_from_f32(a, m)),
            (Type::Tf32, Type::F32) => self.one(move |a| convert::tf32_from_f32(a, m)),
            (Type::F32, Type::F32) if whole => self.one(move |a| convert::integral_f32(a, m)),
            (Type::F32, Type::F32) => self.one(move |a| convert::f32_from_f32(a, m)),
            (Type::F32, Type::F64) => self.one(move |a| convert::f32_from_f64(a, m)),
            (Type::F32, Type::F16) => self.one(move |a| convert::f32_from_half::<F16>(a, m)),
            (Type::F32, Type::Bf16) => self.one(move |a| convert::f32_from_half::<Bf16>(a, m)),
            (Type::F64, Type::F64) if whole => self.one(move |a| convert::integral_f64(a, m)),
            (Type::F64, Type::F64) => self.one(move |a| convert::f64_from_f64(a, m)),
            (Type::F64, Type::F32) => self.one(move |a| convert::f64_from_f32(a, m)),
            (Type::F64, Type::F16) => self.one(move |a| convert::f64_from_half::<F16>(a, m)),
            (Type::F64, Type::Bf16) => self.one(move |a| convert::f64_from_half::<Bf16>(a, m)),
            (Type::F16, Type::F32) => self.one(move |a| convert::half_from_f32::<F16>(a, m)),
            (Type::Bf16, Type::F32) => self.one(move |a| convert::half_from_f32::<Bf16>(a, m)),
            (Type::F16, Type::F64) => self.one(move |a| convert::half_from_f64::<F16>(a, m)),
            (Type::Bf16, Type::F64) => self.one(move |a| convert::half_from_f64::<Bf16>(a, m)),
            (Type::F16, Type::F16) if whole => self.one(move |a| convert::integral_half::<F16>(a, m)),
            (Type::Bf16, Type::Bf16) if whole => self.one(move |a| convert::integral_half::<Bf16>(a, m)),
            (Type::F16, Type::F16) => self.one(move |a| convert::half_from_half::<F16, F16>(a, m)),
            (Type::Bf16, Type::F16) => self.one(move |a| convert::half_from_half::<F16, Bf16>(a, m)),
            (Type::F16, Type::Bf16) => self.one(move |a| convert::half_from_half::<Bf16, F16>(a, m)),
            (Type::Bf16, Type::Bf16) => self.one(move |a| convert::half_from_half::<Bf16, Bf16>(a, m)),
            _ => self.cvt_integer(d, s, m),
        }
    }

    /// Conversions from or to an integer. A destination register wider than the type takes its extension.
    fn cvt_integer(&mut self, d: Type, s: Type, m: Modifiers) -> Result<Op, Error> {
        let integer = |ty: Type| match ty {
            Type::U(bits) => Some(convert::Int { bits: bits.into(), signed: false }),
            Type::S(bits) => Some(convert::Int { bits: bits.into(), signed: true }),
            Type::B(bits) => Some(convert::Int { bits: bits.into(), signed: false }),
            _ => None,
        };
        let r = m.rounding;
        match (integer(d), integer(s), s, d) {
            (Some(to), Some(from), ..) => {
                if from.bits == 64 {
                    self.extended(to, move |a: u64| convert::int_from_int(a, from, to, m.sat))
                } else {
                    self.extended(to, move |a: u32| convert::int_from_int(a.into(), from, to, m.sat))
                }
            }
            (Some(to), None, Type::F32, _) => self.extended(to, move |a| convert::int_from_f32(a, r, m.ftz, to)),
            (Some(to), None, Type::F64, _) => self.extended(to, move |a| convert::int_from_f64(a, r, to)),
            (Some(to), None, Type::F16, _) => self.extended(to, move |a| convert::int_from_half::<F16>(a, r, to)),
            (Some(to), None, Type::Bf16, _) => self.extended(to, move |a| convert::int_from_half::<Bf16>(a, r, to)),
            (None, Some(from), _, Type::F32) => self.convert_integer(from, move |a| convert::f32_from_int(a, from, m)),
            (None, Some(from), _, Type::F64) => self.convert_integer(from, move |a| convert::f64_from_int(a, from, m)),
            (None, Some(from), _, Type::F16) => {
                self.convert_integer(from, move |a| convert::half_from_int::<F16>(a, from, m))
            }
            (None, Some(from), _, Type::Bf16) => {
                self.convert_integer(from, move |a| convert::half_from_int::<Bf16>(a, from, m))
            }
            _ => self.unknown(),
        }
    }

    fn convert_integer<D: Value>(
        &mut self,
        from: convert::Int,
        f: impl Fn(u64) -> D + Send + Sync + 'static,
    ) -> Result<Op, Error> {
        if from.bits == 64 { self.one(f) } else { self.one(move |a: u32| f(a.into())) }
    }

    /// Writes as many bits as the destination register has; `f` gives them extended to 64.
    fn extended<A: Value>(
        &mut self,
        to: convert::Int,
        f: impl Fn(A) -> u64 + Send + Sync + 'static,
    ) -> Result<Op, Error> {
        let arg = self.arg(0)?;
        let width = self.width(&arg).max(to.bits);
        let row = self.row(&arg, width)?;
        let a = self.src::<A>(1)?;
        Ok(Op::Lanes(match width {
            64 => map1(row, a, f),
            32 => map1(row, a, move |a| f(a) as u32),
            _ => map1(row, a, move |a| f(a) as u16),
        }))
    }
}
