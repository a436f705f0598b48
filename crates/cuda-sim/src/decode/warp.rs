//! Instructions across the lanes of a warp, and barriers.

use super::{Atomic, Op, Operation, Reduction, Shuffle, Vote};
use crate::exec::mma;
use crate::exec::regs::PredSrc;
use crate::ptx::{Error, Type};

impl Operation<'_, '_, '_> {
    pub(super) fn warp(&mut self) -> Result<Op, Error> {
        match self.name {
            "shfl" => self.shuffle(),
            "vote" => self.vote(),
            "match" => self.find_equal(),
            "redux" => self.redux(),
            "elect" => self.elect(),
            "activemask" => {
                self.ty()?;
                Ok(Op::ActiveMask(self.dst::<u32>(0)?))
            }
            "mma" => self.mma(),
            "movmatrix" => {
                self.modifiers(&["sync", "aligned", "m8n8", "trans"]);
                self.ty()?;
                let (d, a) = (self.dst::<u32>(0)?, self.src::<u32>(1)?);
                Ok(Op::Whole(Box::new(move |regs, mask| {
                    let moved = mma::transpose(&a.fetch(regs));
                    regs.set_row(d, &moved, mask);
                })))
            }
            _ => self.barrier(),
        }
    }

    fn shuffle(&mut self) -> Result<Op, Error> {
        if !self.has("sync") {
            return self.error("shfl without .sync: removed for sm_70 and later");
        }
        let modes = [("up", Shuffle::Up), ("down", Shuffle::Down), ("bfly", Shuffle::Bfly), ("idx", Shuffle::Idx)];
        let (Some(mode), Type::B(32)) = (self.one_of(&modes), self.ty()?) else { return self.unknown() };
        let (d, p) = self.pair()?;
        let dst = self.row(&d, 32)?;
        let pred = p.map(|p| self.pred_dst(&p)).transpose()?;
        Ok(Op::Shuffle {
            mode,
            dst,
            pred,
            value: self.src(1)?,
            lane: self.src(2)?,
            clamp: self.src(3)?,
            members: self.src(4)?,
        })
    }

    fn vote(&mut self) -> Result<Op, Error> {
        if !self.has("sync") {
            return self.error("vote without .sync: removed for sm_70 and later");
        }
        let votes = [("all", Vote::All), ("any", Vote::Any), ("uni", Vote::Uni), ("ballot", Vote::Ballot)];
        let Some(vote) = self.one_of(&votes) else { return self.unknown() };
        self.ty()?;
        let first = self.arg(0)?;
        let dst = if vote == Vote::Ballot { self.row(&first, 32)? } else { self.pred_dst(&first)? };
        Ok(Op::Vote { vote, dst, pred: self.pred(1)?, members: self.src(2)? })
    }

    fn find_equal(&mut self) -> Result<Op, Error> {
        let all = self.has("all");
        self.modifiers(&["any", "sync"]);
        let ty = self.ty()?;
        let (d, p) = self.pair()?;
        let dst = self.row(&d, 32)?;
        let pred = p.map(|p| self.pred_dst(&p)).transpose()?;
        let value = self.word_or_two(1, ty.bits())?;
        let members = self.src(2)?;
        Ok(Op::Match { all, dst, pred, value, wide: ty.bits() == 64, members })
    }

    fn redux(&mut self) -> Result<Op, Error> {
        self.has("sync");
        let operations = [
            ("add", Atomic::Add),
            ("min", Atomic::Min),
            ("max", Atomic::Max),
            ("and", Atomic::And),
            ("or", Atomic::Or),
            ("xor", Atomic::Xor),
        ];
        let Some(op) = self.one_of(&operations) else { return self.unknown() };
        let ty = self.ty()?;
        if !matches!(ty, Type::U(32) | Type::S(32) | Type::B(32)) {
            return self.unknown();
        }
        Ok(Op::Redux { op, signed: ty.signed(), dst: self.dst::<u32>(0)?, value: self.src(1)?, members: self.src(2)? })
    }

    fn elect(&mut self) -> Result<Op, Error> {
        let (true, (d, Some(p))) = (self.has("sync"), self.pair()?) else { return self.unknown() };
        Ok(Op::Elect { dst: self.row(&d, 32)?, pred: self.pred_dst(&p)?, members: self.src(1)? })
    }

    fn barrier(&mut self) -> Result<Op, Error> {
        self.modifiers(&["cta"]);
        if self.has("warp") {
            self.has("sync");
            return Ok(Op::WarpBarrier { members: self.src(0)? });
        }
        let aligned = self.name == "bar" || self.has("aligned");
        self.has("aligned");
        let arrive = self.has("arrive");
        if self.has("sync") || arrive {
            let threads = if self.count() > 1 { Some(self.src(1)?) } else { None };
            return Ok(Op::Barrier { id: self.src(0)?, threads, arrive, aligned, reduction: None });
        }
        if !self.has("red") {
            return self.unknown();
        }
        let operations = [("popc", Atomic::Add), ("and", Atomic::And), ("or", Atomic::Or)];
        let Some(op) = self.one_of(&operations) else { return self.unknown() };
        self.ty()?;
        let first = self.arg(0)?;
        let dst = if op == Atomic::Add { self.row(&first, 32)? } else { self.pred_dst(&first)? };
        let last = self.count().saturating_sub(1);
        let pred: PredSrc = self.pred(last)?;
        let threads = if last > 2 { Some(self.src(2)?) } else { None };
        let reduction = Some(Reduction { op, pred, dst });
        Ok(Op::Barrier { id: self.src(1)?, threads, arrive: false, aligned, reduction })
    }

    fn mma(&mut self) -> Result<Op, Error> {
        self.modifiers(&["sync", "aligned", "row", "col"]);
        let shapes = [("m16n8k4", 4), ("m16n8k8", 8), ("m16n8k16", 16)];
        let Some(k) = self.one_of(&shapes) else { return self.unknown() };
        let [d, a, b, c] = self.types()[..] else { return self.unknown() };
        let single = d == Type::F32;
        if a != b || c != d || !(single || d == Type::F16) {
            return self.unknown();
        }
        let format = match (a, k, single) {
            (Type::F16, 8 | 16, _) => mma::Format::F16,
            (Type::Bf16, 8 | 16, true) => mma::Format::Bf16,
            (Type::Tf32, 4 | 8, true) => mma::Format::Tf32,
            _ => return self.unknown(),
        };
        let each = if a == Type::Tf32 { 1 } else { 2 };
        let sums = if single { 4 } else { 2 };
        let (mut d, mut abc) = (Vec::new(), [const { Vec::new() }; 3]);
        for element in self.vector(0, sums)? {
            d.push(self.row(&element, 32)?);
        }
        for (at, count) in [(1, 16 * k / 32 / each), (2, 8 * k / 32 / each), (3, sums)] {
            for element in self.vector(at, count)? {
                abc[at - 1].push(self.source::<u32>(&element, 32)?);
            }
        }
        let [a, b, c] = abc;
        Ok(Op::Whole(mma::lanes(format, k, d, a, b, c)))
    }
}
