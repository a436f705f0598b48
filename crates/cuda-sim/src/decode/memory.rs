//! Loads, stores, atomics, asynchronous copies.

use super::{Atomic, Op, Operation, Space, Unit};
use crate::exec::PARTS;
use crate::exec::regs::Src;
use crate::ptx::{Arg, Error, Type};

impl<'a> Operation<'_, '_, 'a> {
    /// The state space among the modifiers.
    pub(super) fn space(&mut self) -> Option<Space> {
        self.one_of(&[
            ("global", Space::Global),
            ("shared", Space::Shared),
            ("shared::cta", Space::Shared),
            ("local", Space::Local),
            ("const", Space::Const),
            ("param", Space::Param),
            ("param::entry", Space::Param),
            ("param::func", Space::Param),
        ])
    }

    /// Bits of a register operand; 0 for anything else.
    pub(super) fn width(&mut self, arg: &Arg<'a>) -> u32 {
        match arg {
            Arg::Name(name) => match self.names.find(name, self.image) {
                Some(super::names::Named::Register(register)) => register.ty.bits(),
                _ => 0,
            },
            _ => 0,
        }
    }

    /// Hints for caches, which are not simulated, and scopes, which all mean the whole device here.
    fn hints(&mut self) {
        self.modifiers(&[
            "cta", "cluster", "gpu", "sys", "ca", "cg", "cs", "lu", "cv", "wb", "wt", "nc", "weak", "unified",
        ]);
        for (at, word) in self.words.iter().enumerate() {
            if word.starts_with("L1::") || word.starts_with("L2::") {
                self.used |= 1 << at;
            }
        }
    }

    pub(super) fn memory(&mut self) -> Result<Op, Error> {
        self.hints();
        match self.name {
            "ld" | "ldu" => self.load(),
            "st" => self.store(),
            "atom" | "red" => self.atomic(),
            "cp" => self.copy_async(),
            "ldmatrix" | "stmatrix" => self.matrix(),
            _ => {
                // prefetch and its like: hints.
                self.used = !0;
                Ok(Op::Nop)
            }
        }
    }

    /// Does the access take part in synchronisation, so that it does not race? `volatile` might by the letter (8.4); but
    /// where it stands for warps that run in lockstep, as before sm_70, it hides a race.
    fn strong(&mut self) -> bool {
        self.has("volatile");
        let words = [("relaxed", ()), ("acquire", ()), ("release", ()), ("mmio", ())];
        self.one_of(&words).is_some()
    }

    /// The elements of a vector, or the only one.
    fn elements(&mut self, at: usize) -> Result<Vec<Arg<'a>>, Error> {
        let count = self.one_of(&[("v2", 2), ("v4", 4), ("v8", 8)]).unwrap_or(1);
        self.vector(at, count)
    }

    fn load(&mut self) -> Result<Op, Error> {
        let space = self.space().unwrap_or(Space::Generic);
        let (strong, elements, ty) = (self.strong(), self.elements(0)?, self.ty()?);
        let address = self.address(1, space)?;
        let unit = unit(ty);
        let (mut rows, mut signed, mut high) = (Vec::new(), false, super::NOWHERE);
        for element in &elements {
            // The register may be wider than the type (9.4.1).
            let width = self.width(element).max(ty.bits());
            let row = self.row(element, width)?;
            rows.push(row);
            if ty.bits() == 64 {
                rows.push(row + 1);
            } else if width == 64 {
                if elements.len() > 1 {
                    return self.unknown();
                }
                high = row + 1;
            }
            signed |= ty.signed() && width > ty.bits();
        }
        if ty.bits() > 64 || rows.len() > PARTS {
            return self.unknown();
        }
        Ok(Op::Load { address, unit, rows: rows.into(), signed, high, strong })
    }

    fn store(&mut self) -> Result<Op, Error> {
        let space = self.space().unwrap_or(Space::Generic);
        let (strong, elements, ty) = (self.strong(), self.elements(1)?, self.ty()?);
        let address = self.address(0, space)?;
        let mut values = Vec::new();
        for element in &elements {
            self.literal(element)?;
            if ty.bits() == 64 {
                values.extend(self.source::<u64>(element, 64)?.words());
            } else {
                values.push(self.source::<u32>(element, ty.bits())?);
            }
        }
        if ty.bits() > 64 || values.len() > PARTS {
            return self.unknown();
        }
        Ok(Op::Store { address, unit: unit(ty), values: values.into(), strong })
    }

    fn atomic(&mut self) -> Result<Op, Error> {
        let space = self.space().unwrap_or(Space::Generic);
        let operations = [
            ("add", Atomic::Add),
            ("min", Atomic::Min),
            ("max", Atomic::Max),
            ("inc", Atomic::Inc),
            ("dec", Atomic::Dec),
            ("and", Atomic::And),
            ("or", Atomic::Or),
            ("xor", Atomic::Xor),
            ("exch", Atomic::Exch),
            ("cas", Atomic::Cas),
        ];
        let Some(op) = self.one_of(&operations) else { return self.unknown() };
        self.modifiers(&["relaxed", "acquire", "release", "acq_rel", "noftz"]);
        let ty = self.ty()?;
        let first = usize::from(self.name == "atom");
        let dst = match self.name {
            "atom" => {
                let arg = self.arg(0)?;
                Some(self.row(&arg, ty.bits())?)
            }
            _ => None,
        };
        let address = self.address(first, space)?;
        let mut values = [Src::Imm(0); 2];
        for (at, value) in values.iter_mut().enumerate().take(if op == Atomic::Cas { 2 } else { 1 }) {
            *value = self.word_or_two(first + 1 + at, ty.bits())?;
        }
        use Atomic::{Add, And, Cas, Dec, Exch, Inc, Max, Min, Or, Xor};
        let known = matches!(
            (op, ty),
            (Add, Type::U(32 | 64) | Type::S(32 | 64) | Type::F32 | Type::F64)
                | (Add | Min | Max, Type::F16 | Type::F16x2 | Type::Bf16 | Type::Bf16x2)
                | (Min | Max, Type::U(32 | 64) | Type::S(32 | 64))
                | (Inc | Dec, Type::U(32))
                | (And | Or | Xor | Exch, Type::B(32 | 64))
                | (Cas, Type::B(16 | 32 | 64))
        );
        if !known {
            return self.unknown();
        }
        Ok(Op::Atomic { address, op, ty, dst, values })
    }

    fn copy_async(&mut self) -> Result<Op, Error> {
        if !self.has("async") {
            return self.unknown();
        }
        if self.has("commit_group") {
            return Ok(Op::CopyCommit);
        }
        if self.has("wait_all") {
            return Ok(Op::CopyWait(super::NOWHERE));
        }
        if self.has("wait_group") {
            return match self.arg(0)? {
                Arg::Int(groups) if (0..1 << 16).contains(&groups) => Ok(Op::CopyWait(groups as u32)),
                _ => self.error("the number of groups must be a constant"),
            };
        }
        if !(self.has("global") && (self.has("shared") || self.has("shared::cta"))) {
            return self.unknown();
        }
        let to = self.address(0, Space::Shared)?;
        let from = self.address(1, Space::Global)?;
        let bytes = match self.arg(2)? {
            Arg::Int(bytes @ (4 | 8 | 16)) => bytes as u32,
            _ => return self.error("cp.async copies 4, 8 or 16 bytes"),
        };
        let valid = match self.instruction.args.get(3) {
            Some(_) if self.words.contains(&"L2::cache_hint") && self.count() == 4 => None,
            Some(_) => Some(self.src::<u32>(3)?),
            None => None,
        };
        Ok(Op::CopyAsync { to, from, bytes, valid })
    }

    fn matrix(&mut self) -> Result<Op, Error> {
        let store = self.name == "stmatrix";
        self.modifiers(&["sync", "aligned", "m8n8"]);
        let count = self.one_of(&[("x1", 1), ("x2", 2), ("x4", 4)]);
        let transposed = self.has("trans");
        let space = self.space().unwrap_or(Space::Generic);
        let (Some(count), Type::B(16)) = (count, self.ty()?) else { return self.unknown() };
        let (registers, address) = if store { (1, 0) } else { (0, 1) };
        let mut rows = Vec::new();
        for element in &self.vector(registers, count)? {
            if store {
                match self.source::<u32>(element, 32)? {
                    Src::Row(row) => rows.push(row),
                    Src::Imm(_) => return self.error("registers expected"),
                }
            } else {
                rows.push(self.row(element, 32)?);
            }
        }
        Ok(Op::Matrix { address: self.address(address, space)?, rows: rows.into(), transposed, store })
    }
}

/// What a load or store moves at a time.
fn unit(ty: Type) -> Unit {
    match ty.bits() {
        8 => Unit::Byte,
        16 => Unit::Half,
        _ => Unit::Word,
    }
}
