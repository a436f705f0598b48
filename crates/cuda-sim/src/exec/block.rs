//! A block: its warps in turn, and its barriers.

use std::sync::atomic::{Ordering::SeqCst, fence};
use std::sync::{Mutex, PoisonError};

use super::Fault;
use super::access::{Site, Transfer};
use super::collective;
use super::regs::{LANES, Regs, Src, lanes};
use super::shared::{History, Shared};
use super::warp::{Split, Waiting, Warp};
use crate::cache::Cache;
use crate::counters::{Counters, Tally};
use crate::decode::{Atomic, Image, NOWHERE, Op, Reduction, Special, Step, Touch, Usage, Vote};
use crate::device::{Checks, Order};
use crate::finding::Kind;
use crate::memory::Map;

/// Instructions that a warp executes before another warp has its turn.
const WARP_TURN: u64 = 1 << 14;
/// Instructions that a split executes before another split of the warp has its turn, where there is one.
const SPLIT_TURN: u64 = 1 << 10;
/// Barriers of a block.
const BARRIERS: usize = 16;

/// What all blocks of a launch share.
pub(crate) struct Grid<'a> {
    pub image: &'a Image,
    pub map: &'a Map,
    pub params: &'a [u8],
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub dynamic_shared: u32,
    /// Device address of the barrier of a cooperative grid, or 0.
    pub barrier: u64,
    pub multiprocessors: u32,
    /// Instructions after which a warp is taken to hang.
    pub watchdog: u64,
    pub checks: Checks,
    pub order: Order,
    /// A number that no other launch has.
    pub launch: u32,
    /// The second-level cache, where sectors are counted, and a block's bytes of the first level.
    pub l2: Option<&'a Mutex<Cache>>,
    pub l1: u64,
}

impl Grid<'_> {
    /// The extents' index of a number.
    pub fn index(number: u64, extents: [u32; 3]) -> [u32; 3] {
        let [x, y] = [u64::from(extents[0]), u64::from(extents[1])];
        [(number % x) as u32, (number / x % y) as u32, (number / x / y) as u32]
    }

    /// The index of a thread in its block.
    pub fn thread(&self, number: usize) -> [u32; 3] {
        Self::index(number as u64, self.block)
    }

    fn threads(&self) -> u32 {
        self.block.iter().product()
    }
}

/// How far a block has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// All threads have exited.
    Done,
    /// There is more to do.
    More,
}

/// Why a block stopped.
pub(crate) struct Stop {
    pub fault: Fault,
    pub warp: usize,
    pub pc: u32,
}

/// A barrier that threads have come to.
#[derive(Clone, Copy, Debug, Default)]
struct Barrier {
    expected: u32,
    arrived: u32,
    warps: u32,
    all: u32,
    any: u32,
    count: u32,
    /// Ticks of every warp up to which those that came had synchronised with it.
    known: [u32; LANES],
}

/// A block under execution.
#[derive(Default)]
pub(crate) struct Block {
    pub number: u64,
    warps: Vec<Warp>,
    shared: Shared,
    /// Of global memory, where races are looked for there.
    global: History,
    barriers: [Barrier; BARRIERS],
    /// Turns that every warp had.
    round: u64,
    /// Barriers of all threads so far.
    epoch: u32,
    /// Have barriers of some threads been used?
    named: bool,
    region: usize,
    /// Has it ordered its accesses for the whole device?
    fenced: bool,
    /// What is counted, where that is asked for.
    tally: Option<Box<Tally>>,
}

/// What to do after an instruction that the fast loop does not know.
enum Next {
    /// The next one.
    Step,
    /// Splits have changed: choose again.
    Choose,
}

impl Block {
    /// Begins the block of that number.
    pub fn start(&mut self, grid: &Grid<'_>, number: u64) {
        self.number = number;
        let threads = grid.threads() as usize;
        self.warps.resize_with(threads.div_ceil(LANES), Warp::default);
        self.shared.reset(grid.image.shared + grid.dynamic_shared);
        self.global.clear();
        self.barriers = Default::default();
        self.round = number << 32;
        self.epoch = 0;
        self.named = false;
        self.fenced = false;
        if grid.l2.is_some() {
            self.tally.get_or_insert_with(|| Box::new(Tally::new(grid.l1))).start(grid.image.code.len());
        }
        let index = Grid::index(number, grid.grid);
        for (w, warp) in self.warps.iter_mut().enumerate() {
            let count = (threads - w * LANES).min(LANES);
            warp.start(u32::MAX >> (LANES - count));
            warp.regs.reset(grid.image.rows as usize, grid.image.preds as usize);
            warp.local.clear();
            warp.local.resize(grid.image.local as usize * LANES, crate::memory::POISON);
            warp.known.clear();
            if grid.checks.registers {
                warp.known.resize(grid.image.rows as usize, 0);
                grid.image.specials.iter().for_each(|&(_, row)| warp.known[row as usize] = u32::MAX);
            }
            for &(special, row) in &grid.image.specials {
                let value = |lane: usize| special_value(special, w, lane, index, grid);
                warp.regs.set_row(row, &std::array::from_fn(value), u32::MAX);
            }
        }
    }

    /// What has been executed.
    pub fn counters(&mut self, grid: &Grid<'_>) -> Counters {
        let sum = |count: fn(&Warp) -> u64| self.warps.iter().map(count).sum();
        let (warp_instructions, thread_instructions) = (sum(|warp| warp.steps), sum(|warp| warp.lane_steps));
        let details = self.tally.as_deref_mut().map(|tally| {
            if let Some(l2) = grid.l2 {
                tally.pass(&mut l2.lock().unwrap_or_else(PoisonError::into_inner));
            }
            Box::new(std::mem::take(&mut tally.details))
        });
        Counters { warp_instructions, thread_instructions, details }
    }

    /// Gives every warp a turn.
    pub fn run(&mut self, grid: &Grid<'_>) -> Result<Progress, Stop> {
        let (mut done, mut ran) = (true, false);
        self.round += 1;
        for n in 0..self.warps.len() {
            let w = grid.order.warp(self.round, n, self.warps.len());
            ran |= self.run_warp(grid, w, grid.order.turn(self.round, w, WARP_TURN))?;
            done &= self.warps[w].live == 0;
        }
        if done {
            return Ok(Progress::Done);
        }
        if ran { Ok(Progress::More) } else { Err(self.stuck(grid)) }
    }

    /// Why no warp can go on.
    fn stuck(&self, grid: &Grid<'_>) -> Stop {
        let waiting = |(w, warp): (usize, &Warp)| warp.splits.first().map(|split| (w, *split));
        let Some((w, split)) = self.warps.iter().enumerate().find_map(waiting) else {
            return Stop { fault: Fault::new(Kind::Hang, 0, "no thread can go on"), warp: 0, pc: 0 };
        };
        // A warp whose lanes wait for each other says more than those that wait for it.
        let apart = self.warps.iter().enumerate().find_map(|(w, warp)| {
            let split = warp.splits.iter().find(|split| matches!(split.waiting, Waiting::Lanes(_)))?;
            Some((w, *split))
        });
        let (w, split) = apart.unwrap_or((w, split));
        let lane = split.mask.trailing_zeros() as usize;
        let (kind, detail) = match split.waiting {
            Waiting::Lanes(members) => {
                let missing = members & self.warps[w].live & !split.mask;
                let missing = if missing == 0 { members & !split.mask } else { missing };
                match grid.image.code[split.pc as usize].op {
                    Op::Barrier { .. } => {
                        (Kind::Barrier, format!("lanes 0x{missing:08x} of the warp do not come to this barrier"))
                    }
                    _ => (Kind::WarpSync, format!("lanes 0x{missing:08x} of the member mask do not come here")),
                }
            }
            Waiting::Barrier(id) => {
                let Barrier { arrived, expected, .. } = self.barriers[id as usize];
                let exited: u32 = self.warps.iter().map(|warp| (warp.born & !warp.live).count_ones()).sum();
                let gone = if exited > 0 { format!("; {exited} have exited") } else { String::new() };
                (Kind::Barrier, format!("barrier {id} waits for {expected} threads, {arrived} have come{gone}"))
            }
            Waiting::No => (Kind::Hang, "no thread can go on".into()),
        };
        Stop { fault: Fault::new(kind, lane, detail), warp: w, pc: split.pc }
    }

    /// Runs a warp until it waits, ends, or has had its turn. Did it do anything?
    fn run_warp(&mut self, grid: &Grid<'_>, w: usize, turn: u64) -> Result<bool, Stop> {
        let begin = self.warps[w].steps;
        loop {
            let warp = &mut self.warps[w];
            let used = warp.steps - begin;
            if used >= turn {
                if warp.steps / WARP_TURN > begin / WARP_TURN {
                    warp.part();
                }
                return Ok(true);
            }
            let fair = warp.steps >= warp.turn;
            if fair {
                warp.turn = warp.steps + SPLIT_TURN;
                if std::mem::take(&mut warp.polls) {
                    warp.part();
                }
            }
            let Some(split) = warp.choose(fair) else { return Ok(used > 0) };
            let split = warp.join(split);
            let Split { pc, record, .. } = warp.splits[split];
            if pc == warp.rejoin(record) {
                warp.arrive(split);
                continue;
            }
            if warp.steps > grid.watchdog {
                let fault = Fault::new(Kind::Hang, 0, format!("a warp has executed {} instructions", warp.steps));
                return Err(Stop { fault, warp: w, pc });
            }
            let mut pc = pc;
            self.run_split(grid, w, split, &mut pc, fair, begin + turn).map_err(|fault| Stop { fault, warp: w, pc })?;
        }
    }

    /// Runs a split until it parts, waits, ends, meets others, or has had its turn. A `fair` turn may lead it away from
    /// others that are further behind. The warp's own turn ends when it has executed `last` instructions.
    fn run_split(
        &mut self,
        grid: &Grid<'_>,
        w: usize,
        split: usize,
        at: &mut u32,
        fair: bool,
        last: u64,
    ) -> Result<(), Fault> {
        let code = &grid.image.code[..];
        let warp = &mut self.warps[w];
        let limit = if fair { NOWHERE } else { warp.limit(split) };
        let Split { mut pc, mask, record, .. } = warp.splits[split];
        let rejoin = warp.rejoin(record);
        let end = if mask == warp.live { last } else { last.min(warp.turn) };
        loop {
            let step = &code[pc as usize];
            let warp = &mut self.warps[w];
            let active = step.guard.map_or(mask, |guard| mask & guard.fetch(&warp.regs));
            warp.steps += 1;
            warp.lane_steps += u64::from(active.count_ones());
            *at = pc;
            if let Some(tally) = &mut self.tally {
                let [warps, threads] = &mut tally.details.executed[pc as usize];
                *warps += 1;
                *threads += u64::from(active.count_ones());
            }
            if grid.checks.registers {
                self.check_registers(grid, w, pc, active)?;
            }
            let warp = &mut self.warps[w];
            match &step.op {
                Op::Lanes(f) => {
                    if active != 0 {
                        f(&mut warp.regs, active);
                    }
                    pc += 1;
                }
                Op::Branch { target } if active == mask => pc = *target,
                Op::Branch { .. } if active == 0 => pc += 1,
                Op::Branch { target } => {
                    if let Some(tally) = &mut self.tally {
                        tally.details.divergent_branches += 1;
                    }
                    warp.splits[split].pc = pc;
                    warp.diverge(split, active, *target, step.rejoin);
                    return Ok(());
                }
                Op::Load { .. } | Op::Store { .. } | Op::Atomic { .. } | Op::CopyAsync { .. } => {
                    warp.polls |= matches!(step.op, Op::Atomic { .. });
                    self.fenced |= step.orders;
                    if active != 0 {
                        self.transfer(grid, w, pc, active, step)?;
                    }
                    pc += 1;
                }
                Op::Nop => pc += 1,
                Op::Fence => {
                    fence(SeqCst);
                    self.fenced |= step.orders;
                    pc += 1;
                }
                _ => {
                    warp.splits[split].pc = pc;
                    match self.rare(grid, w, split, active, step)? {
                        Next::Step => pc += 1,
                        Next::Choose => return Ok(()),
                    }
                }
            }
            if pc == rejoin || pc >= limit || self.warps[w].steps >= end {
                self.warps[w].splits[split].pc = pc;
                return Ok(());
            }
        }
    }

    /// Refuses to compute with registers that nothing has written, and notes what is written.
    #[cold]
    fn check_registers(&mut self, grid: &Grid<'_>, w: usize, pc: u32, active: u32) -> Result<(), Fault> {
        let known = &mut self.warps[w].known;
        let rows = |touch: &Touch| touch.row as usize..(touch.row + touch.rows) as usize;
        let touches = grid.image.touches(pc);
        // A constant is known.
        let registers = touches.iter().filter(|touch| !touch.write).count();
        let (mut sources, mut any) = (Vec::new(), if registers < 2 { u32::MAX } else { 0 });
        for touch in touches.iter().filter(|touch| !touch.write) {
            let whole = known[rows(touch)].iter().fold(u32::MAX, |whole, known| whole & known);
            let missing = active & !whole;
            if missing != 0 && touch.usage == Usage::Computes {
                let lane = missing.trailing_zeros() as usize;
                return Err(Fault::new(Kind::Uninitialised, lane, "a register is read that nothing has written"));
            }
            sources.extend_from_slice(&known[rows(touch)]);
            any |= whole;
        }
        let targets: Vec<usize> = touches.iter().filter(|touch| touch.write).flat_map(rows).collect();
        let all = sources.iter().fold(u32::MAX, |all, known| all & known);
        for (at, &row) in targets.iter().enumerate() {
            let new = match touches[0].usage {
                Usage::Selects => any,
                // Halves go each their own way.
                Usage::Moves if sources.len() == targets.len() => sources[at],
                _ => all,
            };
            known[row] = known[row] & !active | new & active;
        }
        Ok(())
    }

    fn site<'s, 'g>(&'s mut self, grid: &'s Grid<'g>, w: usize, pc: u32) -> (Site<'s, 'g>, &'s mut Warp) {
        let Self { number, warps, shared, global, region, epoch, named, fenced, tally, .. } = self;
        let tally = tally.as_deref_mut();
        let touching = grid.checks.global_race && !*fenced;
        let (block, epoch, named) = (*number, *epoch, *named);
        (Site { grid, shared, global, region, block, touching, tally, warp: w, pc, epoch, named }, &mut warps[w])
    }

    fn transfer(&mut self, grid: &Grid<'_>, w: usize, pc: u32, active: u32, step: &Step) -> Result<(), Fault> {
        let (mut site, warp) = self.site(grid, w, pc);
        match &step.op {
            Op::Load { address, unit, rows, signed, high, strong } => {
                let transfer = Transfer { address, unit: *unit, strong: *strong };
                site.load(warp, active, &transfer, rows, (*signed, *high))
            }
            Op::Store { address, unit, values, strong } => {
                let transfer = Transfer { address, unit: *unit, strong: *strong };
                site.store(warp, active, &transfer, values)
            }
            Op::Atomic { address, op, ty, dst, values } => site.atomic(warp, active, address, (*op, *ty), *dst, values),
            Op::CopyAsync { to, from, bytes, valid } => {
                site.copy_async(warp, active, (to, from), *bytes, valid.as_ref())
            }
            _ => Ok(()),
        }
    }

    /// Instructions that change splits, need other lanes, or seldom occur.
    fn rare(&mut self, grid: &Grid<'_>, w: usize, split: usize, active: u32, step: &Step) -> Result<Next, Fault> {
        if active == 0 {
            return Ok(Next::Step);
        }
        let pc = self.warps[w].splits[split].pc;
        let first = active.trailing_zeros() as usize;
        match &step.op {
            Op::Exit => {
                self.exit(w, split, active);
                Ok(Next::Choose)
            }
            Op::Return => {
                let warp = &mut self.warps[w];
                if !warp.give_back(split, active) {
                    if warp.in_call(split) {
                        return Err(Fault::new(Kind::Illegal, first, "ret before diverged lanes met again"));
                    }
                    self.exit(w, split, active);
                }
                Ok(Next::Choose)
            }
            Op::Call { target, copies } => {
                let (site, warp) = self.site(grid, w, pc);
                site.local_copies(warp, active, copies);
                warp.call(split, active, *target, pc + 1);
                Ok(Next::Choose)
            }
            Op::Results(copies) => {
                let (site, warp) = self.site(grid, w, pc);
                site.local_copies(warp, active, copies);
                Ok(Next::Step)
            }
            Op::Switch { index, targets } => self.switch(w, split, active, index, targets, step.rejoin),
            Op::Trap => Err(Fault::new(Kind::Trap, first, "trap")),
            Op::Assert(places) => {
                let (site, warp) = self.site(grid, w, pc);
                let read = |place: u32, bytes: usize| {
                    let from = first * grid.image.local as usize + place as usize;
                    let mut value = [0; 8];
                    if let Some(found) = warp.local.get(from..from + bytes) {
                        value[..bytes].copy_from_slice(found);
                    }
                    u64::from_le_bytes(value)
                };
                let [message, file, line, _] = *places;
                let detail = format!(
                    "assert failed: {} ({}:{})",
                    site.text(read(message, 8)),
                    site.text(read(file, 8)),
                    read(line, 4)
                );
                Err(Fault::new(Kind::Trap, first, detail))
            }
            Op::CopyCommit => {
                lanes(active).for_each(|lane| self.warps[w].group[lane] += 1);
                Ok(Next::Step)
            }
            Op::CopyWait(pending) => {
                let (mut site, warp) = self.site(grid, w, pc);
                site.copy_wait(warp, active, *pending);
                Ok(Next::Step)
            }
            Op::Clock(low, high) => {
                let warp = &mut self.warps[w];
                let now = warp.steps;
                warp.regs.set_row(*low, &[now as u32; LANES], active);
                if *high != NOWHERE {
                    warp.regs.set_row(*high, &[(now >> 32) as u32; LANES], active);
                }
                Ok(Next::Step)
            }
            Op::ActiveMask(row) => {
                self.warps[w].regs.set_row(*row, &[active; LANES], active);
                Ok(Next::Step)
            }
            Op::Barrier { .. } => self.barrier(grid, w, split, active, step),
            _ => self.collective(grid, w, split, step),
        }
    }

    fn exit(&mut self, w: usize, split: usize, mask: u32) {
        let warp = &mut self.warps[w];
        warp.exit(split, mask);
        self.wake(w);
    }

    /// Lets the splits that wait for lanes look again.
    fn wake(&mut self, w: usize) {
        for split in &mut self.warps[w].splits {
            if matches!(split.waiting, Waiting::Lanes(_)) {
                split.waiting = Waiting::No;
            }
        }
    }

    fn switch(
        &mut self,
        w: usize,
        split: usize,
        active: u32,
        index: &Src<u32>,
        targets: &[u32],
        rejoin: u32,
    ) -> Result<Next, Fault> {
        let warp = &mut self.warps[w];
        let index = index.fetch(&warp.regs);
        let mut rest = active;
        let pc = warp.splits[split].pc;
        loop {
            let first = rest.trailing_zeros() as usize;
            let same = lanes(rest).filter(|&lane| index[lane] == index[first]).fold(0, |m, lane| m | 1 << lane);
            let Some(&target) = targets.get(index[first] as usize) else {
                let detail = format!("brx.idx with index {} of {} targets", index[first], targets.len());
                return Err(Fault::new(Kind::Illegal, first, detail));
            };
            rest &= !same;
            if same == warp.splits[split].mask {
                warp.splits[split].pc = target;
                return Ok(Next::Choose);
            }
            warp.diverge(split, same, target, rejoin);
            if rest == 0 {
                return Ok(Next::Choose);
            }
            // The rest is in the old split, which has moved on by one: put it back.
            warp.splits[split].pc = pc;
        }
    }

    /// Gathers the lanes of a warp-level instruction: the splits that execute it now, or nothing while some are missing.
    fn gather(&mut self, grid: &Grid<'_>, w: usize, split: usize, needed: u32) -> Option<u32> {
        let warp = &mut self.warps[w];
        warp.splits[split].waiting = Waiting::Lanes(needed);
        let pc = warp.splits[split].pc;
        // Warp barriers are met wherever they stand.
        let meets = |pc: u32| matches!(grid.image.code[pc as usize].op, Op::WarpBarrier { .. });
        let here = |other: &&Split| other.pc == pc || (meets(pc) && meets(other.pc));
        let mut all = u32::MAX;
        loop {
            let complete = |other: &&Split| matches!(other.waiting, Waiting::Lanes(of) if of & warp.live & !all == 0);
            let found = warp.splits.iter().filter(here).filter(complete).fold(0, |found, other| found | other.mask);
            if found == all {
                break;
            }
            all = found;
        }
        (all & warp.splits[split].mask != 0).then_some(all)
    }

    /// Moves the gathered splits to the next instruction.
    fn pass(&mut self, w: usize, mask: u32) {
        for split in &mut self.warps[w].splits {
            if split.mask & mask != 0 {
                split.pc += 1;
                split.waiting = Waiting::No;
            }
        }
    }

    fn collective(&mut self, grid: &Grid<'_>, w: usize, split: usize, step: &Step) -> Result<Next, Fault> {
        let warp = &mut self.warps[w];
        let Split { pc, mask, .. } = warp.splits[split];
        let mut members = members(&step.op, &warp.regs);
        let active = step.guard.map_or(mask, |guard| mask & guard.fetch(&warp.regs));
        let mut needed = 0;
        for lane in lanes(active) {
            if members[lane] >> lane & 1 == 0 {
                let detail = format!("the lane is not in its own member mask 0x{:08x}", members[lane]);
                return Err(Fault::new(Kind::WarpSync, lane, detail));
            }
            needed |= members[lane];
        }
        let passed_by = needed & mask & !active;
        if passed_by != 0 {
            let detail = format!("lanes 0x{passed_by:08x} of the member mask are predicated off");
            return Err(Fault::new(Kind::WarpSync, active.trailing_zeros() as usize, detail));
        }
        let whole = matches!(step.op, Op::Whole(_) | Op::Matrix { .. });
        if whole && warp.live != u32::MAX {
            let detail = format!("lanes 0x{:08x} of the warp have exited, or never were", !warp.live);
            return Err(Fault::new(Kind::WarpSync, active.trailing_zeros() as usize, detail));
        }
        let Some(gathered) = self.gather(grid, w, split, needed) else { return Ok(Next::Choose) };
        let warp = &mut self.warps[w];
        let mut all = 0;
        for other in warp.splits.iter().filter(|other| other.mask & gathered != 0) {
            let step = &grid.image.code[other.pc as usize];
            all |= step.guard.map_or(other.mask, |guard| other.mask & guard.fetch(&warp.regs));
            if other.pc != pc {
                let theirs = self::members(&step.op, &warp.regs);
                lanes(other.mask).for_each(|lane| members[lane] = theirs[lane]);
            }
        }
        let left = warp.splits.iter().filter(|other| other.pc == pc && other.mask & gathered == 0);
        let mut waiting = left.filter_map(|other| match other.waiting {
            Waiting::Lanes(of) if of & all != 0 => Some((other.mask.trailing_zeros() as usize, of)),
            _ => None,
        });
        if let Some((lane, of)) = waiting.next() {
            let detail = format!("lanes 0x{:08x} of the member mask 0x{of:08x} are here with another mask", of & all);
            return Err(Fault::new(Kind::WarpSync, lane, detail));
        }
        // Lanes of different masks go by themselves.
        let mut rest = all;
        while rest != 0 {
            let first = rest.trailing_zeros() as usize;
            let set = members[first];
            let group = lanes(rest).filter(|&lane| members[lane] == set).fold(0, |m, lane| m | 1 << lane);
            let missing = set & self.warps[w].live & !group;
            if missing != 0 {
                let detail = format!("lanes 0x{missing:08x} of the member mask 0x{set:08x} are here with another mask");
                return Err(Fault::new(Kind::WarpSync, first, detail));
            }
            rest &= !group;
            self.together(grid, w, pc, group, step)?;
        }
        self.pass(w, gathered);
        Ok(Next::Choose)
    }

    /// Executes a warp-level instruction with the lanes of a group.
    fn together(&mut self, grid: &Grid<'_>, w: usize, pc: u32, group: u32, step: &Step) -> Result<(), Fault> {
        let (mut site, warp) = self.site(grid, w, pc);
        let regs = &mut warp.regs;
        match &step.op {
            Op::Whole(f) => f(regs, group),
            Op::Matrix { address, rows, transposed, store } => {
                return site.matrix(warp, address, rows, *transposed, *store);
            }
            Op::Shuffle { mode, dst, pred, value, lane, clamp, .. } => {
                let (value, lane, clamp) = (value.fetch(regs), lane.fetch(regs), clamp.fetch(regs));
                let mut absent = None;
                let (out, valid) = collective::shuffle(*mode, &value, &lane, &clamp, group, |to, from| {
                    if group >> from & 1 == 0 {
                        absent = absent.or(Some((to, from)));
                    }
                });
                if let Some((to, from)) = absent {
                    let detail = format!("shfl reads lane {from}, which takes no part in it");
                    return Err(Fault::new(Kind::WarpSync, to, detail));
                }
                regs.set_row(*dst, &out, group);
                if let Some(pred) = pred {
                    regs.set_pred(*pred, valid, group);
                }
            }
            Op::Vote { vote, dst, pred, .. } => {
                let result = collective::vote(*vote, pred.fetch(regs), group);
                match vote {
                    Vote::Ballot => regs.set_row(*dst, &[result; LANES], group),
                    _ => regs.set_pred(*dst, result, group),
                }
            }
            Op::Match { all, dst, pred, value, wide, .. } => {
                let found = collective::match_any(&value.fetch_word_or_two(regs, *wide), group);
                if *all {
                    let equal = found[group.trailing_zeros() as usize] == group;
                    regs.set_row(*dst, &[if equal { group } else { 0 }; LANES], group);
                    if let Some(pred) = pred {
                        regs.set_pred(*pred, if equal { u32::MAX } else { 0 }, group);
                    }
                } else {
                    regs.set_row(*dst, &found, group);
                }
            }
            Op::Redux { op, signed, dst, value, .. } => {
                let result = collective::reduce(*op, *signed, &value.fetch(regs), group);
                regs.set_row(*dst, &[result; LANES], group);
            }
            Op::Elect { dst, pred, .. } => {
                let leader = group.trailing_zeros();
                regs.set_row(*dst, &[leader; LANES], group);
                regs.set_pred(*pred, 1 << leader, group);
            }
            Op::WarpBarrier { .. } => {
                warp.clock.warp_sync(group, warp.live);
            }
            _ => {
                return Err(Fault::new(Kind::Illegal, group.trailing_zeros() as usize, "not a warp-level instruction"));
            }
        }
        Ok(())
    }

    fn barrier(&mut self, grid: &Grid<'_>, w: usize, split: usize, active: u32, step: &Step) -> Result<Next, Fault> {
        let Op::Barrier { id, threads, arrive, aligned, reduction } = &step.op else { return Ok(Next::Step) };
        let warp = &self.warps[w];
        let Split { pc, mask, .. } = warp.splits[split];
        let lane = active.trailing_zeros() as usize;
        if active != mask && !aligned {
            // The others go on; these come to the barrier by themselves.
            self.warps[w].diverge(split, active, pc, NOWHERE);
            return Ok(Next::Choose);
        }
        if active != mask {
            return Err(Fault::new(Kind::Barrier, lane, format!("lanes 0x{:08x} are predicated off", mask & !active)));
        }
        let arriving = if *aligned {
            let live = warp.live;
            let Some(all) = self.gather(grid, w, split, live) else { return Ok(Next::Choose) };
            all
        } else {
            mask
        };
        let warp = &self.warps[w];
        let id = id.fetch(&warp.regs)[lane];
        let block = grid.threads();
        let count = threads.map(|threads| threads.fetch(&warp.regs)[lane]);
        if id as usize >= BARRIERS || count.is_some_and(|count| count == 0 || count % LANES as u32 != 0) {
            let detail = format!("barrier {id} of {} threads", count.unwrap_or(block));
            return Err(Fault::new(Kind::Illegal, lane, detail));
        }
        let expected = count.unwrap_or(block);
        let barrier = &mut self.barriers[id as usize];
        if barrier.arrived == 0 {
            *barrier = Barrier { expected, all: u32::MAX, ..Barrier::default() };
        }
        // 9.7.13.1: with a thread count, a warp counts as a whole.
        barrier.arrived += if *aligned && count.is_some() { LANES as u32 } else { arriving.count_ones() };
        barrier.warps |= 1 << w;
        let clock = &warp.clock;
        barrier.known.iter_mut().zip(&clock.known).for_each(|(known, other)| *known = (*known).max(*other));
        barrier.known[w] = barrier.known[w].max(clock.tick);
        if barrier.expected != expected || barrier.arrived > expected {
            let Barrier { expected: other, arrived, .. } = *barrier;
            let detail = format!("barrier {id} of {expected} threads, where {arrived} of {other} have come");
            return Err(Fault::new(Kind::Barrier, lane, detail));
        }
        if let Some(reduction) = reduction {
            let yes = reduction.pred.fetch(&warp.regs) & arriving;
            barrier.count += yes.count_ones();
            barrier.any |= yes;
            barrier.all &= if yes == arriving { u32::MAX } else { 0 };
        }
        for split in &mut self.warps[w].splits {
            if split.pc == pc && split.mask & arriving != 0 {
                split.waiting = Waiting::Barrier(id);
            }
        }
        if *arrive {
            self.pass(w, arriving);
            // What the warp does from now on is not ordered before this barrier.
            self.warps[w].clock.tick += 1;
        }
        if self.barriers[id as usize].arrived == expected {
            self.complete(grid, id);
        }
        Ok(Next::Choose)
    }

    /// Lets all threads of a barrier go on.
    fn complete(&mut self, grid: &Grid<'_>, id: u32) {
        let barrier = std::mem::take(&mut self.barriers[id as usize]);
        for warp in &mut self.warps {
            let (mut waited, regs) = (0, &mut warp.regs);
            for split in warp.splits.iter_mut().filter(|split| split.waiting == Waiting::Barrier(id)) {
                waited |= split.mask;
                if let Op::Barrier { reduction: Some(Reduction { op, dst, .. }), .. } =
                    &grid.image.code[split.pc as usize].op
                {
                    match op {
                        Atomic::Add => regs.set_row(*dst, &[barrier.count; LANES], split.mask),
                        Atomic::And => regs.set_pred(*dst, barrier.all, split.mask),
                        _ => regs.set_pred(*dst, if barrier.any == 0 { 0 } else { u32::MAX }, split.mask),
                    }
                }
                split.waiting = Waiting::No;
                split.pc += 1;
            }
            if waited != 0 {
                let clock = &mut warp.clock;
                clock.known.iter_mut().zip(&barrier.known).for_each(|(known, other)| *known = (*known).max(*other));
                clock.warp_sync(waited, warp.live);
            }
        }
        if barrier.expected == grid.threads() {
            self.epoch += 1;
        } else {
            self.named = true;
        }
    }
}

/// The member mask of each lane.
fn members(op: &Op, regs: &Regs) -> [u32; LANES] {
    match op {
        Op::Shuffle { members, .. }
        | Op::Vote { members, .. }
        | Op::Match { members, .. }
        | Op::Redux { members, .. }
        | Op::Elect { members, .. }
        | Op::WarpBarrier { members } => members.fetch(regs),
        // mma and the matrix loads take the whole warp.
        _ => [u32::MAX; LANES],
    }
}

/// What a special register shows.
fn special_value(special: Special, warp: usize, lane: usize, index: [u32; 3], grid: &Grid<'_>) -> u32 {
    let bit = 1u32 << lane;
    let number = warp * LANES + lane;
    let blocks = |index: [u32; 3]| index[0].wrapping_add(grid.grid[0].wrapping_mul(index[1] + grid.grid[1] * index[2]));
    match special {
        Special::Tid(axis) => grid.thread(number)[axis],
        Special::Ntid(axis) => grid.block[axis],
        Special::Ctaid(axis) => index[axis],
        Special::Nctaid(axis) => grid.grid[axis],
        Special::Laneid => lane as u32,
        Special::Warpid => warp as u32,
        Special::Nwarpid => grid.threads().div_ceil(LANES as u32),
        Special::Smid => blocks(index) % grid.multiprocessors,
        Special::Nsmid => grid.multiprocessors,
        Special::LanemaskEq => bit,
        Special::LanemaskLt => bit - 1,
        Special::LanemaskLe => bit | (bit - 1),
        Special::LanemaskGt => !(bit | (bit - 1)),
        Special::LanemaskGe => !(bit - 1),
        Special::GridBarrier(half) => (grid.barrier >> (32 * half)) as u32,
        Special::DynamicShared => grid.dynamic_shared,
        Special::TotalShared => grid.image.shared + grid.dynamic_shared,
        Special::Zero => 0,
    }
}
