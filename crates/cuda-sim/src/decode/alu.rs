//! Instructions on registers only: integers, logic, data movement, comparisons.

use super::names::{Named, Register};
use super::{Address, Base, CARRY, Lanes, Op, Operation, Space};
use crate::exec::regs::{LANES, PredSrc, Regs, Src, Value};
use crate::float::Compare;
use crate::ptx::{Arg, Error, Type};

/// First address of shared memory as generic addresses see it.
pub const SHARED_WINDOW: u64 = 0x7000_0000_0000;
/// First address of local memory as generic addresses see it.
pub const LOCAL_WINDOW: u64 = 0x7100_0000_0000;
/// First address of a kernel's parameters as generic addresses see it.
pub const PARAM_WINDOW: u64 = 0x7200_0000_0000;
/// Bytes of each window.
pub const WINDOW: u64 = 1 << 32;

/// The distance between an address in a space and the generic address of the same byte.
pub fn window(space: Space) -> u64 {
    match space {
        Space::Shared => SHARED_WINDOW,
        Space::Local => LOCAL_WINDOW,
        Space::Param => PARAM_WINDOW,
        Space::Generic | Space::Global | Space::Const => 0,
    }
}

/// Runs the body with the host's type of the integer type.
macro_rules! integer {
    ($self:ident, $ty:expr, $t:ident => $body:expr) => {
        match $ty {
            Type::U(16) | Type::B(16) => {
                type $t = u16;
                $body
            }
            Type::S(16) => {
                type $t = i16;
                $body
            }
            Type::U(32) | Type::B(32) => {
                type $t = u32;
                $body
            }
            Type::S(32) => {
                type $t = i32;
                $body
            }
            Type::U(64) | Type::B(64) => {
                type $t = u64;
                $body
            }
            Type::S(64) => {
                type $t = i64;
                $body
            }
            _ => $self.unknown(),
        }
    };
}

impl<'a> Operation<'_, '_, 'a> {
    pub(super) fn error<T>(&self, message: impl Into<String>) -> Result<T, Error> {
        Err(Error::new(self.instruction.line, message))
    }

    pub(super) fn unknown<T>(&self) -> Result<T, Error> {
        self.error(format!("`{}` is not simulated", self.instruction.opcode))
    }

    /// Is the modifier there?
    pub(super) fn has(&mut self, word: &str) -> bool {
        let at = self.words.iter().position(|known| *known == word);
        self.used |= at.map_or(0, |at| 1 << at);
        at.is_some()
    }

    /// Modifiers that change nothing here.
    pub(super) fn modifiers(&mut self, words: &[&str]) {
        for word in words {
            self.has(word);
        }
    }

    /// The one of the modifiers that is there.
    pub(super) fn one_of<T: Copy>(&mut self, words: &[(&str, T)]) -> Option<T> {
        words.iter().find(|(word, _)| self.has(word)).map(|(_, value)| *value)
    }

    /// The types among the modifiers, in order.
    pub(super) fn types(&mut self) -> Vec<Type> {
        let mut types = Vec::new();
        for (at, word) in self.words.iter().enumerate() {
            if let Some(ty) = Type::of(word) {
                self.used |= 1 << at;
                types.push(ty);
            }
        }
        types
    }

    /// The only type.
    pub(super) fn ty(&mut self) -> Result<Type, Error> {
        match self.types()[..] {
            [ty] => Ok(ty),
            _ => self.unknown(),
        }
    }

    /// Refuses operands that nothing has looked at. Behind the operands may stand a cache policy.
    pub(super) fn operands(&self) -> Result<(), Error> {
        let hints = usize::from(self.words.contains(&"L2::cache_hint"));
        if self.used != !0 && self.count() > self.read.get() + hints {
            return self.error(format!("`{}` has too many operands", self.instruction.opcode));
        }
        Ok(())
    }

    /// Refuses what was not understood.
    pub(super) fn finish(&self) -> Result<(), Error> {
        match (0..self.words.len()).find(|at| *at < 64 && self.used >> at & 1 == 0) {
            Some(at) => self
                .error(format!("`{}`: the modifier `.{}` is not simulated", self.instruction.opcode, self.words[at])),
            None => Ok(()),
        }
    }

    pub(super) fn arg(&self, at: usize) -> Result<Arg<'a>, Error> {
        self.read.set(self.read.get().max(at + 1));
        match self.instruction.args.get(at) {
            Some(arg) => Ok(arg.clone()),
            None => self.error(format!("`{}` has too few operands", self.instruction.opcode)),
        }
    }

    /// So many elements of a vector, or the operand itself where it is one.
    pub(super) fn vector(&self, at: usize, count: usize) -> Result<Vec<Arg<'a>>, Error> {
        let elements = match self.arg(at)? {
            Arg::Vector(elements) => elements,
            element => vec![element],
        };
        if elements.len() == count { Ok(elements) } else { self.error(format!("{count} elements expected")) }
    }

    pub(super) fn count(&self) -> usize {
        self.instruction.args.len()
    }

    pub(super) fn label(&self, at: usize) -> Result<&'a str, Error> {
        match self.arg(at)? {
            Arg::Name(name) => Ok(name),
            _ => self.error("a label expected"),
        }
    }

    /// The first row of a register of that many bits that is written, or a fresh one for `_`.
    pub(super) fn row(&mut self, arg: &Arg<'a>, bits: u32) -> Result<u32, Error> {
        let Arg::Name(name) = arg else { return self.error(format!("a register expected, found {arg:?}")) };
        if *name == "_" {
            return Ok(super::names::allocate(if bits > 32 { Type::B(64) } else { Type::B(32) }, self.image));
        }
        match self.names.find(name, self.image) {
            Some(Named::Register(register)) if matches!(register.ty.bits(), 8..=64) && !self.special(register) => {
                let width = register.ty.bits();
                // The result of a conversion may be narrower (9.4.1), which in one row makes no difference.
                if width != bits && !(self.name == "cvt" && bits < width && width == 32) {
                    return self.error(format!("`{name}` has {width} bits, {bits} are needed"));
                }
                self.image.touch(register.at, width, true);
                Ok(register.at)
            }
            Some(_) => self.error(format!("`{name}` is not a register of {bits} bits that can be written")),
            None => self.error(format!("`{name}` is not declared")),
        }
    }

    fn special(&self, register: Register) -> bool {
        self.image.specials.iter().any(|known| known.1 == register.at)
    }

    pub(super) fn dst<T: Value>(&mut self, at: usize) -> Result<u32, Error> {
        let arg = self.arg(at)?;
        self.row(&arg, 8 * size_of::<T>() as u32)
    }

    /// The last type among the modifiers: of a conversion, that of the source.
    fn last_type(&self) -> Option<Type> {
        self.words.iter().rev().find_map(|word| Type::of(word))
    }

    pub(super) fn src<T: Value>(&mut self, at: usize) -> Result<Src<T>, Error> {
        let arg = self.arg(at)?;
        self.literal(&arg)?;
        let bits = self.last_type().filter(|_| self.name == "cvt").map_or(8 * size_of::<T>() as u32, Type::bits);
        self.source(&arg, bits)
    }

    /// Refuses a literal of another kind than the type (4.5).
    pub(super) fn literal(&self, arg: &Arg<'a>) -> Result<(), Error> {
        use Type::{B, Bf16, Bf16x2, F16, F16x2, F32, F64};
        match (arg, self.last_type().filter(|_| self.name != "slct")) {
            (Arg::Int(_), Some(F16 | F16x2 | Bf16 | Bf16x2 | F32 | F64)) => self.error("an integer among floats"),
            (Arg::F32(_), None | Some(B(32) | F32 | F64)) | (Arg::F64(_), None | Some(B(64) | F32 | F64)) => Ok(()),
            (Arg::F32(_) | Arg::F64(_), _) => self.error("a literal of another type"),
            _ => Ok(()),
        }
    }

    /// An operand of 64 bits, or of fewer: see [`Src::fetch_word_or_two`].
    pub(super) fn word_or_two(&mut self, at: usize, bits: u32) -> Result<Src<u64>, Error> {
        let arg = self.arg(at)?;
        self.literal(&arg)?;
        if bits == 64 {
            return self.source(&arg, bits);
        }
        Ok(match self.source::<u32>(&arg, bits)? {
            Src::Row(row) => Src::Row(row),
            Src::Imm(value) => Src::Imm(value.into()),
        })
    }

    /// A register of that many bits, or a number.
    pub(super) fn source<T: Value>(&mut self, arg: &Arg<'a>, bits: u32) -> Result<Src<T>, Error> {
        let number = |value: u64| Src::Imm(T::join(value as u32, (value >> 32) as u32));
        Ok(match arg {
            Arg::Int(value) => number(*value as u64),
            Arg::F32(value) if T::ROWS == 1 => number((*value).into()),
            Arg::F32(value) => number(f64::from(f32::from_bits(*value)).to_bits()),
            Arg::F64(value) if T::ROWS == 2 => number(*value),
            Arg::F64(value) => number((f64::from_bits(*value) as f32).to_bits().into()),
            Arg::Name("WARP_SZ") => number(LANES as u64),
            Arg::Name(name) | Arg::Offset(name, _) => {
                let offset = if let Arg::Offset(_, offset) = arg { *offset } else { 0 };
                match self.names.find(name, self.image) {
                    Some(Named::Symbol(symbol)) => number(symbol.value.wrapping_add(offset as u64)),
                    Some(Named::Register(register)) if offset == 0 && register.ty != Type::Pred => {
                        let (width, special) = (register.ty.bits(), self.special(register));
                        // Stores and conversions read the low bits of a wider register (9.4.1).
                        let wider = special || matches!(self.name, "st" | "cvt");
                        if width < bits || (width > bits && !wider) {
                            return self.error(format!("`{name}` has {width} bits, {bits} are read"));
                        }
                        if special && !matches!(self.name, "mov" | "cvt") {
                            return self.error(format!("`{name}` is read by mov and cvt alone"));
                        }
                        self.image.touch(register.at, 32 * T::ROWS, false);
                        Src::Row(register.at)
                    }
                    Some(Named::Register(_)) => return self.error(format!("`{name}` is not a register of that size")),
                    _ => return self.error(format!("`{name}` is not declared")),
                }
            }
            _ => return self.error(format!("a register or a number expected, found {arg:?}")),
        })
    }

    pub(super) fn pred_dst(&mut self, arg: &Arg<'a>) -> Result<u32, Error> {
        match arg {
            Arg::Name("_") => Ok(super::names::allocate(Type::Pred, self.image)),
            Arg::Name(name) => self.names.pred(name, self.image, self.instruction.line),
            _ => self.error(format!("a predicate expected, found {arg:?}")),
        }
    }

    pub(super) fn pred(&mut self, at: usize) -> Result<PredSrc, Error> {
        let arg = self.arg(at)?;
        let negated = matches!(arg, Arg::Not(_));
        match arg {
            Arg::Name(name) | Arg::Not(name) => {
                Ok(PredSrc { index: Some(self.names.pred(name, self.image, self.instruction.line)?), negated })
            }
            Arg::Int(value) => Ok(PredSrc { index: None, negated: value != 0 }),
            _ => self.error(format!("a predicate expected, found {arg:?}")),
        }
    }

    /// `d`, and `p` where the first operand is `d|p`.
    pub(super) fn pair(&self) -> Result<(Arg<'a>, Option<Arg<'a>>), Error> {
        Ok(match self.arg(0)? {
            Arg::Pair(first, second) => (*first, Some(*second)),
            first => (first, None),
        })
    }

    /// An address operand in the space that the modifiers name.
    pub(super) fn address(&mut self, at: usize, space: Space) -> Result<Address, Error> {
        let arg = self.arg(at)?;
        let Arg::Address(parts) = &arg else { return self.error(format!("an address expected, found {arg:?}")) };
        let address = |space, base, offset| Address { space, base, offset };
        if parts.len() > 1 {
            return self.error("an address of one part expected");
        }
        Ok(match parts.first() {
            Some(Arg::Int(value)) => address(space, Base::None, *value as i64),
            Some(Arg::Name(name) | Arg::Offset(name, _)) => {
                let offset = if let Some(Arg::Offset(_, offset)) = parts.first() { *offset } else { 0 };
                match self.names.find(name, self.image) {
                    Some(Named::Register(register)) if register.ty.bits() == 64 => {
                        self.image.touch(register.at, 64, false);
                        address(space, Base::Row64(register.at), offset)
                    }
                    Some(Named::Register(register)) if register.ty.bits() == 32 => {
                        self.image.touch(register.at, 32, false);
                        address(space, Base::Row32(register.at), offset)
                    }
                    Some(Named::Symbol(symbol)) => {
                        // A function's .param variables live in local memory; a name carries its own space.
                        address(symbol.space, Base::None, (symbol.value as i64).wrapping_add(offset))
                    }
                    _ => return self.error(format!("`{name}` is not an address")),
                }
            }
            _ => return self.error("an empty address"),
        })
    }

    pub(super) fn one<A: Value, D: Value>(&mut self, f: impl Fn(A) -> D + Send + Sync + 'static) -> Result<Op, Error> {
        let (d, a) = (self.dst::<D>(0)?, self.src(1)?);
        Ok(Op::Lanes(map1(d, a, f)))
    }

    pub(super) fn two<A: Value, B: Value, D: Value>(
        &mut self,
        f: impl Fn(A, B) -> D + Send + Sync + 'static,
    ) -> Result<Op, Error> {
        let (d, a, b) = (self.dst::<D>(0)?, self.src(1)?, self.src(2)?);
        Ok(Op::Lanes(map2(d, a, b, f)))
    }

    pub(super) fn three<A: Value, B: Value, C: Value, D: Value>(
        &mut self,
        f: impl Fn(A, B, C) -> D + Send + Sync + 'static,
    ) -> Result<Op, Error> {
        let (d, a, b, c) = (self.dst::<D>(0)?, self.src(1)?, self.src(2)?, self.src(3)?);
        Ok(Op::Lanes(map3(d, a, b, c, f)))
    }

    /// A predicate of one operand.
    pub(super) fn test<T: Value>(&mut self, f: impl Fn(T) -> bool + Send + Sync + 'static) -> Result<Op, Error> {
        let first = self.arg(0)?;
        let (p, a) = (self.pred_dst(&first)?, self.src(1)?);
        let found = mask(a, Src::Imm(T::default()), move |a, _| f(a));
        Ok(Op::Lanes(Box::new(move |regs, mask| regs.set_pred(p, found(regs), mask))))
    }

    /// Decodes everything but branches and calls.
    pub(super) fn decode(&mut self) -> Result<Op, Error> {
        match self.name {
            "mov" => self.mov(),
            "ld" | "ldu" | "st" | "atom" | "red" | "cp" | "ldmatrix" | "stmatrix" | "prefetch" | "prefetchu"
            | "discard" | "applypriority" => self.memory(),
            "shfl" | "vote" | "match" | "redux" | "elect" | "activemask" | "bar" | "barrier" | "mma" | "movmatrix" => {
                self.warp()
            }
            "membar" | "fence" => {
                let words = ["cta", "gl", "sys", "gpu", "cluster", "sc", "acq_rel", "acquire", "release", "proxy"];
                self.modifiers(&words);
                self.modifiers(&["alias", "async", "global", "shared::cta", "level"]);
                Ok(Op::Fence)
            }
            "nanosleep" | "pmevent" => {
                self.types();
                self.arg(0)?;
                Ok(Op::Nop)
            }
            "brkpt" => Ok(Op::Nop),
            "trap" => Ok(Op::Trap),
            "exit" => Ok(Op::Exit),
            "ret" => {
                self.modifiers(&["uni"]);
                Ok(Op::Return)
            }
            "createpolicy" => {
                self.used = !0;
                self.one_constant()
            }
            "cvta" => self.cvta(),
            "isspacep" => self.isspacep(),
            "setp" => self.setp(),
            "set" => self.set(),
            "selp" => self.selp(),
            "slct" => self.slct(),
            "cvt" => self.cvt(),
            "and" | "or" | "xor" | "not" => self.logic(),
            "add" | "sub" | "mul" | "mad" | "fma" | "min" | "max" | "div" | "rem" | "abs" | "neg" => {
                let float = self.words.iter().filter_map(|word| Type::of(word)).any(|ty| {
                    use Type::{Bf16, Bf16x2, F16, F16x2, F32, F64};
                    matches!(ty, F16 | F16x2 | Bf16 | Bf16x2 | F32 | F64)
                });
                if float { self.float() } else { self.arithmetic() }
            }
            "addc" | "subc" | "madc" => self.arithmetic(),
            "rcp" | "sqrt" | "rsqrt" | "sin" | "cos" | "lg2" | "ex2" | "tanh" | "copysign" | "testp" => self.float(),
            _ => self.bits(),
        }
    }

    /// `createpolicy`: caches are not simulated, so that every policy is the same.
    fn one_constant(&mut self) -> Result<Op, Error> {
        let d = self.dst::<u64>(0)?;
        Ok(Op::Lanes(map1(d, Src::Imm(0u64), |a| a)))
    }

    fn mov(&mut self) -> Result<Op, Error> {
        let ty = self.ty()?;
        if ty == Type::Pred {
            let first = self.arg(0)?;
            let (d, a) = (self.pred_dst(&first)?, self.pred(1)?);
            return Ok(Op::Lanes(Box::new(move |regs, mask| regs.set_pred(d, a.fetch(regs), mask))));
        }
        if let Arg::Name(name @ ("%clock" | "%clock64" | "%globaltimer" | "%clock_hi" | "%globaltimer_lo")) =
            self.arg(1)?
        {
            let arg = self.arg(0)?;
            let row = self.row(&arg, ty.bits())?;
            let high = if ty.bits() == 64 { row + 1 } else { super::NOWHERE };
            return Ok(if name == "%clock_hi" {
                Op::Lanes(map1(row, Src::Imm(0u32), |a| a))
            } else {
                Op::Clock(row, high)
            });
        }
        match (self.arg(0)?, self.arg(1)?) {
            (Arg::Vector(parts), _) | (_, Arg::Vector(parts)) if parts.is_empty() => self.unknown(),
            (Arg::Vector(to), from) => self.unpack(&to, &from, ty),
            (_, Arg::Vector(from)) => self.pack(&from, ty),
            _ => match ty.bits() {
                16 => self.one(|a: u16| a),
                32 => self.one(|a: u32| a),
                64 => self.one(|a: u64| a),
                _ => self.unknown(),
            },
        }
    }

    /// `mov.b64 {a, b}, c` and its like: a 64-bit value is two words, and a word is one part, two or four.
    fn unpack(&mut self, to: &[Arg<'a>], from: &Arg<'a>, ty: Type) -> Result<Op, Error> {
        let each = ty.bits() / to.len() as u32;
        let from: [Src<u32>; 2] = match ty.bits() {
            64 => self.source::<u64>(from, 64)?.words(),
            16 | 32 => [self.source(from, ty.bits())?, Src::Imm(0)],
            _ => return self.unknown(),
        };
        if !matches!(each, 8 | 16 | 32) {
            return self.unknown();
        }
        let mut rows = Vec::new();
        for arg in to {
            rows.push(self.row(arg, each)?);
        }
        let keep = u32::MAX >> (32 - each);
        Ok(Op::Lanes(Box::new(move |regs, mask| {
            let words = from.map(|from| from.fetch(regs));
            for (at, row) in (0u32..).zip(&rows) {
                let bit = at * each;
                regs.set_row(*row, &words[(bit / 32) as usize].map(|word| word >> (bit % 32) & keep), mask);
            }
        })))
    }

    fn pack(&mut self, from: &[Arg<'a>], ty: Type) -> Result<Op, Error> {
        let each = ty.bits() / from.len() as u32;
        if !matches!((ty.bits(), each), (16, 8) | (32, 8 | 16) | (64, 16 | 32)) {
            return self.unknown();
        }
        let first = self.arg(0)?;
        let row = self.row(&first, ty.bits())?;
        let mut parts = Vec::new();
        for arg in from {
            parts.push(self.source::<u32>(arg, each)?);
        }
        let keep = u32::MAX >> (32 - each);
        let words = ty.bits().div_ceil(32);
        Ok(Op::Lanes(Box::new(move |regs, mask| {
            let mut packed = [[0u32; LANES]; 2];
            for (at, part) in (0u32..).zip(&parts) {
                let (bit, value) = (at * each, part.fetch(regs));
                let word = &mut packed[(bit / 32) as usize];
                for lane in 0..LANES {
                    word[lane] |= (value[lane] & keep) << (bit % 32);
                }
            }
            for word in 0..words {
                regs.set_row(row + word, &packed[word as usize], mask);
            }
        })))
    }

    /// Generic addresses: each space has a window, global memory is where it is.
    fn cvta(&mut self) -> Result<Op, Error> {
        let to = self.has("to");
        let space = self.space().unwrap_or(Space::Global);
        let distance = if to { 0u64.wrapping_sub(window(space)) } else { window(space) };
        match self.ty()?.bits() {
            64 => self.one(move |a: u64| a.wrapping_add(distance)),
            _ => self.unknown(),
        }
    }

    fn isspacep(&mut self) -> Result<Op, Error> {
        let Some(space) = self.space() else { return self.unknown() };
        self.test(move |address: u64| match space {
            Space::Global | Space::Generic => address < SHARED_WINDOW,
            Space::Const => false,
            _ => address.wrapping_sub(window(space)) < WINDOW,
        })
    }

    /// The comparison among the modifiers, of those that the type has. The unsigned names mean what the others do of an
    /// unsigned type.
    fn comparison(&mut self, ty: Type) -> Option<Compare> {
        use Compare::{Eq, Equ, Ge, Geu, Gt, Gtu, Le, Leu, Lt, Ltu, Nan, Ne, Neu, Num};
        let equal = [("eq", Eq), ("ne", Ne)];
        let ordered = [("lt", Lt), ("le", Le), ("gt", Gt), ("ge", Ge)];
        let unsigned = [("lo", Lt), ("ls", Le), ("hi", Gt), ("hs", Ge)];
        let unordered = [("equ", Equ), ("neu", Neu), ("ltu", Ltu), ("leu", Leu), ("gtu", Gtu), ("geu", Geu)];
        let rest = [("num", Num), ("nan", Nan)];
        let found = self.one_of(&equal);
        match ty {
            Type::B(_) => found,
            Type::S(_) => found.or_else(|| self.one_of(&ordered)),
            Type::U(_) => found.or_else(|| self.one_of(&ordered)).or_else(|| self.one_of(&unsigned)),
            _ => {
                let found = found.or_else(|| self.one_of(&ordered));
                found.or_else(|| self.one_of(&unordered)).or_else(|| self.one_of(&rest))
            }
        }
    }

    /// The mask of lanes in which operands `a` and `b` compare so.
    fn compare(&mut self, a: usize, b: usize, ty: Type) -> Result<Test, Error> {
        let Some(compare) = self.comparison(ty) else { return self.unknown() };
        let ftz = matches!(ty, Type::F32 | Type::F16) && self.has("ftz");
        use crate::float::{double, half, single};
        Ok(match ty {
            Type::F32 => mask(self.src(a)?, self.src(b)?, move |a: u32, b| single::compare(a, b, compare, ftz)),
            Type::F64 => mask(self.src(a)?, self.src(b)?, move |a: u64, b| double::compare(a, b, compare)),
            Type::F16 => {
                mask(self.src(a)?, self.src(b)?, move |a: u16, b| half::compare::<half::F16>(a, b, compare, ftz))
            }
            Type::Bf16 => {
                mask(self.src(a)?, self.src(b)?, move |a: u16, b| half::compare::<half::Bf16>(a, b, compare, ftz))
            }
            _ => integer!(self, ty, T => {
                let (a, b): (Src<T>, Src<T>) = (self.src(a)?, self.src(b)?);
                Ok(match compare {
                    Compare::Eq => mask(a, b, |a, b| a == b),
                    Compare::Ne => mask(a, b, |a, b| a != b),
                    Compare::Lt => mask(a, b, |a, b| a < b),
                    Compare::Le => mask(a, b, |a, b| a <= b),
                    Compare::Gt => mask(a, b, |a, b| a > b),
                    Compare::Ge => mask(a, b, |a, b| a >= b),
                    _ => return self.unknown(),
                })
            })?,
        })
    }

    /// How `c` enters `setp.CmpOp.BoolOp p, a, b, c`.
    fn combine(&mut self, at: usize) -> Result<impl Fn(&Regs, u32) -> u32 + Send + Sync + 'static, Error> {
        let op = self.one_of(&[("and", 0), ("or", 1), ("xor", 2)]);
        let c = match op {
            Some(_) => self.pred(at)?,
            None => PredSrc { index: None, negated: false },
        };
        Ok(move |regs: &Regs, found: u32| match op {
            Some(0) => found & c.fetch(regs),
            Some(1) => found | c.fetch(regs),
            Some(_) => found ^ c.fetch(regs),
            None => found,
        })
    }

    fn setp(&mut self) -> Result<Op, Error> {
        let types = self.types();
        if let [half @ (Type::F16x2 | Type::Bf16x2)] = types[..] {
            return self.setp_packed(half);
        }
        let [ty] = types[..] else { return self.unknown() };
        let (p, q) = self.pair()?;
        let (compare, combine) = (self.compare(1, 2, ty)?, self.combine(3)?);
        let p = self.pred_dst(&p)?;
        let q = q.map(|q| self.pred_dst(&q)).transpose()?;
        Ok(Op::Lanes(Box::new(move |regs, mask| {
            let found = compare(regs);
            let (yes, no) = (combine(regs, found), combine(regs, !found));
            regs.set_pred(p, yes, mask);
            if let Some(q) = q {
                regs.set_pred(q, no, mask);
            }
        })))
    }

    /// `setp.f16x2 p|q`: one predicate for each half.
    fn setp_packed(&mut self, ty: Type) -> Result<Op, Error> {
        use crate::float::half;
        let Some(compare) = self.comparison(ty) else { return self.unknown() };
        let ftz = self.has("ftz");
        let (Some(Arg::Pair(p, q)), combine) = (self.instruction.args.first().cloned(), self.combine(3)?) else {
            return self.unknown();
        };
        let (p, q) = (self.pred_dst(&p)?, self.pred_dst(&q)?);
        let (a, b): (Src<u32>, Src<u32>) = (self.src(1)?, self.src(2)?);
        let f = if ty == Type::F16x2 { half::compare::<half::F16> } else { half::compare::<half::Bf16> };
        Ok(Op::Lanes(Box::new(move |regs, mask| {
            let (a, b) = (a.fetch(regs), b.fetch(regs));
            let found = |shift: u32| {
                (0..LANES).fold(0, |found, lane| {
                    let half = |word: u32| (word >> shift) as u16;
                    found | u32::from(f(half(a[lane]), half(b[lane]), compare, ftz)) << lane
                })
            };
            let (low, high) = (found(0), found(16));
            let (low, high) = (combine(regs, low), combine(regs, high));
            regs.set_pred(p, low, mask);
            regs.set_pred(q, high, mask);
        })))
    }

    fn set(&mut self) -> Result<Op, Error> {
        let types = self.types();
        if let [d, s @ (Type::F16x2 | Type::Bf16x2)] = types[..] {
            use crate::float::half;
            let Some(compare) = self.comparison(s) else { return self.unknown() };
            let ftz = self.has("ftz");
            let yes: u16 = match d {
                Type::F16x2 => 0x3c00,
                Type::Bf16x2 => 0x3f80,
                _ => return self.unknown(),
            };
            let f = if s == Type::F16x2 { half::compare::<half::F16> } else { half::compare::<half::Bf16> };
            return self.two(move |a: u32, b: u32| {
                let half =
                    |shift: u32| u32::from(yes) * u32::from(f((a >> shift) as u16, (b >> shift) as u16, compare, ftz));
                half(0) | half(16) << 16
            });
        }
        let [d, s] = types[..] else { return self.unknown() };
        let (compare, combine) = (self.compare(1, 2, s)?, self.combine(3)?);
        let yes = match d {
            Type::F32 => 0x3f80_0000,
            Type::U(32) | Type::S(32) => u32::MAX,
            Type::U(16) | Type::S(16) if matches!(s, Type::F16 | Type::Bf16) => 0xffff,
            Type::F16 => 0x3c00,
            Type::Bf16 => 0x3f80,
            _ => return self.unknown(),
        };
        let first = self.arg(0)?;
        let row = self.row(&first, d.bits())?;
        Ok(Op::Lanes(Box::new(move |regs, mask| {
            let found = combine(regs, compare(regs));
            let values = std::array::from_fn(|lane| yes * (found >> lane & 1));
            regs.set_row(row, &values, mask);
        })))
    }

    fn selp(&mut self) -> Result<Op, Error> {
        match self.ty()?.bits() {
            16 => self.select::<u16>(),
            32 => self.select::<u32>(),
            64 => self.select::<u64>(),
            _ => self.unknown(),
        }
    }

    fn select<T: Value>(&mut self) -> Result<Op, Error> {
        let (row, a, b, p) = (self.dst::<T>(0)?, self.src::<T>(1)?, self.src::<T>(2)?, self.pred(3)?);
        Ok(Op::Lanes(Box::new(move |regs, mask| {
            let (a, mut d, p) = (a.fetch(regs), b.fetch(regs), p.fetch(regs));
            for lane in 0..LANES {
                d[lane] = if p >> lane & 1 == 1 { a[lane] } else { d[lane] };
            }
            regs.put(row, &d, mask);
        })))
    }

    /// `slct`: `a` where `c` is not negative.
    fn slct(&mut self) -> Result<Op, Error> {
        let ftz = self.has("ftz");
        let types = self.types();
        let [d, s] = types[..] else { return self.unknown() };
        let first: fn(u32) -> bool = match (s, ftz) {
            (Type::S(32), _) => |c| (c as i32) >= 0,
            // NaN selects b; subnormals are flushed to a zero of their sign, and -0 is not less than 0.
            (Type::F32, false) => |c| f32::from_bits(c) >= 0.0,
            (Type::F32, true) => |c| f32::from_bits(crate::float::single::flush(c)) >= 0.0,
            _ => return self.unknown(),
        };
        match d.bits() {
            16 => self.three(move |a: u16, b: u16, c: u32| if first(c) { a } else { b }),
            32 => self.three(move |a: u32, b: u32, c: u32| if first(c) { a } else { b }),
            64 => self.three(move |a: u64, b: u64, c: u32| if first(c) { a } else { b }),
            _ => self.unknown(),
        }
    }

    fn logic(&mut self) -> Result<Op, Error> {
        let ty = self.ty()?;
        let name = self.name;
        if ty == Type::Pred {
            let first = self.arg(0)?;
            let (d, a) = (self.pred_dst(&first)?, self.pred(1)?);
            let b = if name == "not" { a } else { self.pred(2)? };
            let f: fn(u32, u32) -> u32 = match name {
                "and" => |a, b| a & b,
                "or" => |a, b| a | b,
                "xor" => |a, b| a ^ b,
                _ => |a, _| !a,
            };
            return Ok(Op::Lanes(Box::new(move |regs, mask| regs.set_pred(d, f(a.fetch(regs), b.fetch(regs)), mask))));
        }
        let ty = Type::U(ty.bits() as u8);
        integer!(self, ty, T => match name {
            "and" => self.two(|a: T, b: T| a & b),
            "or" => self.two(|a: T, b: T| a | b),
            "xor" => self.two(|a: T, b: T| a ^ b),
            _ => self.one(|a: T| !a),
        })
    }

    /// Integer arithmetic.
    fn arithmetic(&mut self) -> Result<Op, Error> {
        let ty = self.ty()?;
        let carry_out = self.has("cc");
        if carry_out || self.name.ends_with('c') {
            return self.with_carry(ty, carry_out);
        }
        let sat = self.has("sat");
        let part = self.one_of(&[("lo", Part::Low), ("hi", Part::High), ("wide", Part::Wide)]);
        match (self.name, part, sat) {
            ("min", None, _) if ty == Type::S(32) && self.has("relu") => self.two(|a: i32, b: i32| a.min(b).max(0)),
            ("max", None, _) if ty == Type::S(32) && self.has("relu") => self.two(|a: i32, b: i32| a.max(b).max(0)),
            ("add", None, true) if ty == Type::S(32) => self.two(|a: i32, b: i32| a.saturating_add(b)),
            ("sub", None, true) if ty == Type::S(32) => self.two(|a: i32, b: i32| a.saturating_sub(b)),
            ("mad", Some(Part::High), true) if ty == Type::S(32) => self.three(|a: i32, b: i32, c: i32| {
                (((i64::from(a) * i64::from(b)) >> 32) + i64::from(c)).clamp(i32::MIN.into(), i32::MAX.into()) as i32
            }),
            (_, _, true) => self.unknown(),
            ("mul", Some(Part::Wide), _) => match ty {
                Type::U(16) => self.two(|a: u16, b: u16| u32::from(a) * u32::from(b)),
                Type::S(16) => self.two(|a: i16, b: i16| i32::from(a) * i32::from(b)),
                Type::U(32) => self.two(|a: u32, b: u32| u64::from(a) * u64::from(b)),
                Type::S(32) => self.two(|a: i32, b: i32| i64::from(a) * i64::from(b)),
                _ => self.unknown(),
            },
            ("mad", Some(Part::Wide), _) => match ty {
                Type::U(16) => self.three(|a: u16, b: u16, c: u32| (u32::from(a) * u32::from(b)).wrapping_add(c)),
                Type::S(16) => self.three(|a: i16, b: i16, c: i32| (i32::from(a) * i32::from(b)).wrapping_add(c)),
                Type::U(32) => self.three(|a: u32, b: u32, c: u64| (u64::from(a) * u64::from(b)).wrapping_add(c)),
                Type::S(32) => self.three(|a: i32, b: i32, c: i64| (i64::from(a) * i64::from(b)).wrapping_add(c)),
                _ => self.unknown(),
            },
            (name, part, _) => integer!(self, ty, T => match (name, part) {
                ("add", None) => self.two(|a: T, b: T| a.wrapping_add(b)),
                ("sub", None) => self.two(|a: T, b: T| a.wrapping_sub(b)),
                ("mul", Some(Part::Low)) => self.two(|a: T, b: T| a.wrapping_mul(b)),
                ("mul", Some(Part::High)) => self.two(|a: T, b: T| (i128::from(a).wrapping_mul(i128::from(b)) >> T::BITS) as T),
                ("mad", Some(Part::Low)) => self.three(|a: T, b: T, c: T| a.wrapping_mul(b).wrapping_add(c)),
                ("mad", Some(Part::High)) => self.three(|a: T, b: T, c: T| {
                    ((i128::from(a).wrapping_mul(i128::from(b)) >> T::BITS) as T).wrapping_add(c)
                }),
                ("min", None) => self.two(|a: T, b: T| a.min(b)),
                ("max", None) => self.two(|a: T, b: T| a.max(b)),
                // 9.7.1: division by zero gives a machine-dependent value; all ones in the code that ptxas makes.
                ("div", None) => self.two(|a: T, b: T| if b == 0 { !0 } else { a.wrapping_div(b) }),
                ("rem", None) => self.two(|a: T, b: T| if b == 0 { !0 } else { a.wrapping_rem(b) }),
                ("abs", None) => self.one(|a: T| if i128::from(a) < 0 { (0 as T).wrapping_sub(a) } else { a }),
                ("neg", None) => self.one(|a: T| (0 as T).wrapping_sub(a)),
                _ => self.unknown(),
            }),
        }
    }

    /// `add.cc`, `addc`, `sub.cc`, `subc`, `mad.cc`, `madc`: through the carry flag (9.7.2).
    fn with_carry(&mut self, ty: Type, carry_out: bool) -> Result<Op, Error> {
        let wide = ty.bits() == 64;
        let carry_in = self.name.ends_with('c');
        let high = self.has("hi");
        self.has("lo");
        let signed = ty.signed();
        let bits = ty.bits();
        let kind = &self.name[..3];
        if !matches!(bits, 32 | 64) {
            return self.unknown();
        }
        let (subtract, multiply) = (kind == "sub", kind == "mad");
        let d = if wide { self.dst::<u64>(0)? } else { self.dst::<u32>(0)? };
        let (a, b) = (self.word_or_two(1, bits)?, self.word_or_two(2, bits)?);
        let c = if multiply { self.word_or_two(3, bits)? } else { Src::Imm(0) };
        let keep = u64::MAX >> (64 - bits);
        let extend = move |value: u64| {
            if signed && bits == 32 {
                i128::from(value as i32)
            } else if signed {
                i128::from(value as i64)
            } else {
                i128::from(value)
            }
        };
        Ok(Op::Lanes(Box::new(move |regs, mask| {
            let (a, b, c) =
                (a.fetch_word_or_two(regs, wide), b.fetch_word_or_two(regs, wide), c.fetch_word_or_two(regs, wide));
            let flags = if carry_in { regs.pred(CARRY) } else { 0 };
            let (mut out, mut carries) = ([0u64; LANES], 0);
            for lane in 0..LANES {
                let flag = u128::from(flags >> lane & 1);
                let (x, y) = if multiply {
                    let product = extend(a[lane]).wrapping_mul(extend(b[lane])) as u128;
                    ((if high { product >> bits } else { product }) as u64 & keep, c[lane])
                } else {
                    (a[lane], b[lane])
                };
                let (x, y) = (u128::from(x), u128::from(y));
                let (value, carry) = if subtract {
                    (x.wrapping_sub(y).wrapping_sub(flag), x < y + flag)
                } else {
                    (x + y + flag, x + y + flag > u128::from(keep))
                };
                out[lane] = value as u64 & keep;
                carries |= u32::from(carry) << lane;
            }
            if wide {
                regs.put(d, &out, mask);
            } else {
                regs.put(d, &out.map(|value| value as u32), mask);
            }
            if carry_out {
                regs.set_pred(CARRY, carries, mask);
            }
        })))
    }

    /// Bit manipulation.
    fn bits(&mut self) -> Result<Op, Error> {
        let types = self.types();
        let Some(&ty) = types.first() else { return self.unknown() };
        match (self.name, ty) {
            ("shl", _) => match ty.bits() {
                16 => self.two(|a: u16, n: u32| a.checked_shl(n).unwrap_or(0)),
                32 => self.two(|a: u32, n: u32| a.checked_shl(n).unwrap_or(0)),
                _ => self.two(|a: u64, n: u32| a.checked_shl(n).unwrap_or(0)),
            },
            ("shr", Type::S(16)) => self.two(|a: i16, n: u32| a >> n.min(15)),
            ("shr", Type::S(32)) => self.two(|a: i32, n: u32| a >> n.min(31)),
            ("shr", Type::S(64)) => self.two(|a: i64, n: u32| a >> n.min(63)),
            ("shr", _) => match ty.bits() {
                16 => self.two(|a: u16, n: u32| a.checked_shr(n).unwrap_or(0)),
                32 => self.two(|a: u32, n: u32| a.checked_shr(n).unwrap_or(0)),
                _ => self.two(|a: u64, n: u32| a.checked_shr(n).unwrap_or(0)),
            },
            ("shf", Type::B(32)) => {
                let (left, clamp) = (self.has("l"), self.has("clamp"));
                self.modifiers(&["r", "wrap"]);
                self.three(move |a: u32, b: u32, n: u32| {
                    let n = if clamp { n.min(32) } else { n % 32 };
                    let both = u64::from(b) << 32 | u64::from(a);
                    if left { (both << n >> 32) as u32 } else { (both >> n) as u32 }
                })
            }
            ("cnot", _) => match ty.bits() {
                16 => self.one(|a: u16| u16::from(a == 0)),
                32 => self.one(|a: u32| u32::from(a == 0)),
                _ => self.one(|a: u64| u64::from(a == 0)),
            },
            ("popc", Type::B(32)) => self.one(|a: u32| a.count_ones()),
            ("popc", Type::B(64)) => self.one(|a: u64| a.count_ones()),
            ("clz", Type::B(32)) => self.one(|a: u32| a.leading_zeros()),
            ("clz", Type::B(64)) => self.one(|a: u64| a.leading_zeros()),
            ("brev", Type::B(32)) => self.one(|a: u32| a.reverse_bits()),
            ("brev", Type::B(64)) => self.one(|a: u64| a.reverse_bits()),
            ("bfind", _) => {
                let shift = self.has("shiftamt");
                let find = move |a: u64, bits: u32| match a {
                    0 => u32::MAX,
                    _ if shift => bits - 1 - (63 - a.leading_zeros()),
                    _ => 63 - a.leading_zeros(),
                };
                match ty {
                    Type::U(32) => self.one(move |a: u32| find(a.into(), 32)),
                    Type::S(32) => self.one(move |a: i32| find(u64::from((if a < 0 { !a } else { a }) as u32), 32)),
                    Type::U(64) => self.one(move |a: u64| find(a, 64)),
                    Type::S(64) => self.one(move |a: i64| find((if a < 0 { !a } else { a }) as u64, 64)),
                    _ => self.unknown(),
                }
            }
            ("bfe", Type::U(32)) => self.three(|a: u32, at: u32, n: u32| extract(a.into(), at, n, 32, false) as u32),
            ("bfe", Type::S(32)) => self.three(|a: u32, at: u32, n: u32| extract(a.into(), at, n, 32, true) as u32),
            ("bfe", Type::U(64)) => self.three(|a: u64, at: u32, n: u32| extract(a, at, n, 64, false)),
            ("bfe", Type::S(64)) => self.three(|a: u64, at: u32, n: u32| extract(a, at, n, 64, true)),
            ("bfi", Type::B(32)) => {
                let (d, a, b, at, n) = (self.dst::<u32>(0)?, self.src(1)?, self.src(2)?, self.src(3)?, self.src(4)?);
                let f = |a: u32, b: u32, at: u32, n: u32| insert(a.into(), b.into(), at, n, 32) as u32;
                Ok(Op::Lanes(map4(d, a, b, at, n, f)))
            }
            ("bfi", Type::B(64)) => {
                let (d, a, b, at, n) = (self.dst::<u64>(0)?, self.src(1)?, self.src(2)?, self.src(3)?, self.src(4)?);
                Ok(Op::Lanes(map4(d, a, b, at, n, |a: u64, b: u64, at: u32, n: u32| insert(a, b, at, n, 64))))
            }
            ("bmsk", Type::B(32)) => {
                let clamp = self.has("clamp");
                self.has("wrap");
                self.two(move |at: u32, n: u32| {
                    let (at, n) = if clamp { (at, n.min(32)) } else { (at % 32, n % 32) };
                    let ones = ((1u64 << n) - 1) as u32;
                    ones.checked_shl(at).unwrap_or(0)
                })
            }
            ("szext", Type::U(32) | Type::S(32)) => {
                let (clamp, signed) = (self.has("clamp"), ty.signed());
                self.has("wrap");
                self.two(move |a: u32, n: u32| {
                    let n = if clamp { n.min(32) } else { n % 32 };
                    extract(a.into(), 0, n, 32, signed) as u32
                })
            }
            ("lop3", Type::B(32)) => {
                let Arg::Int(table) = self.arg(4)? else { return self.unknown() };
                let picks: [u32; 8] = std::array::from_fn(|at| if table >> at & 1 == 1 { u32::MAX } else { 0 });
                self.three(move |a: u32, b: u32, c: u32| {
                    (picks[0] & !a & !b & !c)
                        | (picks[1] & !a & !b & c)
                        | (picks[2] & !a & b & !c)
                        | (picks[3] & !a & b & c)
                        | (picks[4] & a & !b & !c)
                        | (picks[5] & a & !b & c)
                        | (picks[6] & a & b & !c)
                        | (picks[7] & a & b & c)
                })
            }
            ("prmt", Type::B(32)) => {
                let modes = ["f4e", "b4e", "rc8", "ecl", "ecr", "rc16"];
                let mode = modes.iter().position(|mode| self.has(mode));
                self.three(move |a: u32, b: u32, c: u32| permute(a, b, c, mode))
            }
            ("sad", _) => integer!(self, ty, T => self.three(|a: T, b: T, c: T| {
                (if a > b { a.wrapping_sub(b) } else { b.wrapping_sub(a) }).wrapping_add(c)
            })),
            ("mul24" | "mad24", Type::U(32) | Type::S(32)) => {
                let (high, signed) = (self.has("hi"), ty.signed());
                self.has("lo");
                let product = move |a: u32, b: u32| {
                    let (a, b) = if signed {
                        (i64::from(a as i32) << 40 >> 40, i64::from(b as i32) << 40 >> 40)
                    } else {
                        (i64::from(a & 0xff_ffff), i64::from(b & 0xff_ffff))
                    };
                    (if high { (a * b) >> 16 } else { a * b }) as u32
                };
                if self.name == "mul24" {
                    self.two(product)
                } else {
                    self.three(move |a: u32, b: u32, c: u32| product(a, b).wrapping_add(c))
                }
            }
            ("dp4a", _) => {
                let [Type::U(32) | Type::S(32), Type::U(32) | Type::S(32)] = types[..] else { return self.unknown() };
                let (a_signed, b_signed) = (types[0].signed(), types[1].signed());
                self.three(move |a: u32, b: u32, c: u32| {
                    (0..4).fold(c, |sum, at| {
                        let (a, b) =
                            (extract(a.into(), 8 * at, 8, 32, a_signed), extract(b.into(), 8 * at, 8, 32, b_signed));
                        sum.wrapping_add((a as u32).wrapping_mul(b as u32))
                    })
                })
            }
            ("dp2a", _) => {
                let [Type::U(32) | Type::S(32), Type::U(32) | Type::S(32)] = types[..] else { return self.unknown() };
                let (a_signed, b_signed, high) = (types[0].signed(), types[1].signed(), self.has("hi"));
                self.has("lo");
                self.three(move |a: u32, b: u32, c: u32| {
                    (0..2).fold(c, |sum, at| {
                        let byte = 8 * (at + if high { 2 } else { 0 });
                        let (a, b) =
                            (extract(a.into(), 16 * at, 16, 32, a_signed), extract(b.into(), byte, 8, 32, b_signed));
                        sum.wrapping_add((a as u32).wrapping_mul(b as u32))
                    })
                })
            }
            ("fns", Type::B(32)) => self.three(|a: u32, base: u32, n: u32| nth_set(a, base, n as i32)),
            _ => self.unknown(),
        }
    }
}

/// The mask of lanes in which something holds.
type Test = Box<dyn Fn(&Regs) -> u32 + Send + Sync>;

/// Which part of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Low,
    High,
    Wide,
}

/// `bfe` (9.7.1.20): beyond the top bit come zeros, or copies of the sign.
fn extract(a: u64, at: u32, n: u32, bits: u32, signed: bool) -> u64 {
    let (at, n) = (at & 0xff, n & 0xff);
    let bit = |at: u32| if at < bits { a >> at & 1 } else { 0 };
    let sign = if !signed || n == 0 { 0 } else { bit((at + n - 1).min(bits - 1)) };
    let filled = 0u64.wrapping_sub(sign);
    let n = n.min(bits.saturating_sub(at));
    if n == 0 {
        return filled;
    }
    let ones = u64::MAX >> (64 - n);
    (a >> at & ones) | (filled & !ones)
}

/// `bfi` (9.7.1.21).
fn insert(a: u64, b: u64, at: u32, n: u32, bits: u32) -> u64 {
    let (at, n) = (at & 0xff, n & 0xff);
    if at >= bits || n == 0 {
        return b;
    }
    let ones = u64::MAX >> (64 - n.min(bits - at)) << at;
    ((a << at) & ones) | (b & !ones)
}

/// `prmt` (9.7.9.7), its modes in the order of the ISA.
fn permute(a: u32, b: u32, c: u32, mode: Option<usize>) -> u32 {
    let bytes = u64::from(b) << 32 | u64::from(a);
    let pick = |at: u32| (bytes >> (8 * (at & 7)) & 0xff) as u32;
    let chosen = |at: u32| {
        let n = c & 3;
        match mode {
            None => {
                let selector = c >> (4 * at);
                let byte = pick(selector);
                if selector & 8 == 0 { byte } else { (byte >> 7) * 0xff }
            }
            Some(0) => pick(n + at),
            Some(1) => pick(n.wrapping_sub(at)),
            Some(2) => pick(n),
            Some(3) => pick(n.max(at)),
            Some(4) => pick(n.min(at)),
            Some(_) => pick((n & 1) * 2 + (at & 1)),
        }
    };
    (0..4).fold(0, |word, at| word | chosen(at) << (8 * at))
}

/// `fns` (9.7.1.23).
fn nth_set(a: u32, base: u32, n: i32) -> u32 {
    let set = |at: i64| a >> at & 1 == 1;
    // Outside of the word, as ptxas folds it, nothing is found.
    if base > 31 {
        return u32::MAX;
    }
    let base = i64::from(base);
    let found = match n {
        0 => set(base).then_some(base),
        1.. => (base..32).filter(|at| set(*at)).nth(n as usize - 1),
        _ => (0..=base).rev().filter(|at| set(*at)).nth(n.unsigned_abs() as usize - 1),
    };
    found.map_or(u32::MAX, |at| at as u32)
}

fn mask<T: Value>(a: Src<T>, b: Src<T>, f: impl Fn(T, T) -> bool + Send + Sync + 'static) -> Test {
    Box::new(move |regs| {
        let (a, b) = (a.fetch(regs), b.fetch(regs));
        let mut found = 0;
        for lane in 0..LANES {
            found |= u32::from(f(a[lane], b[lane])) << lane;
        }
        found
    })
}

pub(super) fn map1<A: Value, D: Value>(d: u32, a: Src<A>, f: impl Fn(A) -> D + Send + Sync + 'static) -> Lanes {
    Box::new(move |regs, mask| {
        let (a, mut out) = (a.fetch(regs), [D::default(); LANES]);
        for lane in 0..LANES {
            out[lane] = f(a[lane]);
        }
        regs.put(d, &out, mask);
    })
}

pub(super) fn map2<A: Value, B: Value, D: Value>(
    d: u32,
    a: Src<A>,
    b: Src<B>,
    f: impl Fn(A, B) -> D + Send + Sync + 'static,
) -> Lanes {
    Box::new(move |regs, mask| {
        let (a, b, mut out) = (a.fetch(regs), b.fetch(regs), [D::default(); LANES]);
        for lane in 0..LANES {
            out[lane] = f(a[lane], b[lane]);
        }
        regs.put(d, &out, mask);
    })
}

pub(super) fn map3<A: Value, B: Value, C: Value, D: Value>(
    d: u32,
    a: Src<A>,
    b: Src<B>,
    c: Src<C>,
    f: impl Fn(A, B, C) -> D + Send + Sync + 'static,
) -> Lanes {
    Box::new(move |regs, mask| {
        let (a, b, c, mut out) = (a.fetch(regs), b.fetch(regs), c.fetch(regs), [D::default(); LANES]);
        for lane in 0..LANES {
            out[lane] = f(a[lane], b[lane], c[lane]);
        }
        regs.put(d, &out, mask);
    })
}

fn map4<A: Value, B: Value, C: Value, E: Value, D: Value>(
    d: u32,
    a: Src<A>,
    b: Src<B>,
    c: Src<C>,
    e: Src<E>,
    f: impl Fn(A, B, C, E) -> D + Send + Sync + 'static,
) -> Lanes {
    Box::new(move |regs, mask| {
        let (a, b, c, e, mut out) = (a.fetch(regs), b.fetch(regs), c.fetch(regs), e.fetch(regs), [D::default(); LANES]);
        for lane in 0..LANES {
            out[lane] = f(a[lane], b[lane], c[lane], e[lane]);
        }
        regs.put(d, &out, mask);
    })
}
