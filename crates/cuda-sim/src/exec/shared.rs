//! The shared memory of a block, and its shadow: who wrote and read each byte, and when. Global memory has one too, of
//! what the block touches, where that is asked for.
//!
//! Time is counted per warp: a warp's tick advances when it synchronises. An access is ordered before another if the
//! accessing warp knows the other's tick, through barriers that both took part in; within a warp, if `bar.warp.sync`
//! stands between. Two accesses of different threads that are not ordered race, unless both read, or both are atomic,
//! relaxed, acquire or release.

use std::collections::HashMap;

use super::regs::{LANES, lanes};
use crate::device::Checks;
use crate::finding::Kind;

/// What a warp knows of the order of things.
#[derive(Clone)]
pub(super) struct Clock {
    /// The warp's own time.
    pub tick: u32,
    /// Ticks of the warp itself up to which all its lanes have synchronised.
    pub full: u32,
    /// Ticks of every warp up to which this one has synchronised with it.
    pub known: [u32; LANES],
    /// Ticks of each lane up to which each lane has synchronised with it, by barriers of part of the warp.
    pub partial: Option<Box<[[u32; LANES]; LANES]>>,
}

impl Default for Clock {
    fn default() -> Self {
        Self { tick: 1, full: 0, known: [0; LANES], partial: None }
    }
}

impl Clock {
    /// `bar.warp.sync` of the lanes.
    pub fn warp_sync(&mut self, members: u32, live: u32) {
        if members & live == live {
            self.full = self.tick;
        } else {
            let partial = self.partial.get_or_insert_with(|| Box::new([[0; LANES]; LANES]));
            let mut join = [0; LANES];
            for lane in lanes(members) {
                for other in 0..LANES {
                    join[other] = join[other].max(partial[lane][other]);
                }
                join[lane] = self.tick;
            }
            lanes(members).for_each(|lane| partial[lane] = join);
        }
        self.tick += 1;
    }
}

/// A thread at an instruction.
pub(super) struct Accessor<'a> {
    pub warp: usize,
    pub lane: usize,
    pub pc: u32,
    pub clock: &'a Clock,
    /// Barriers of the whole block so far.
    pub epoch: u32,
    /// Have barriers of part of the block been used?
    pub named: bool,
    /// Atomic, relaxed, acquire or release?
    pub strong: bool,
    pub checks: Checks,
}

impl Accessor<'_> {
    fn who(&self) -> u16 {
        (self.warp * LANES + self.lane) as u16
    }

    /// Is what that thread did at that tick before this access?
    fn after(&self, who: u16, tick: u32) -> bool {
        let (warp, lane) = (usize::from(who) / LANES, usize::from(who) % LANES);
        if warp != self.warp {
            return self.clock.known[warp] >= tick;
        }
        lane == self.lane
            || tick <= self.clock.full
            || self.clock.partial.as_ref().is_some_and(|partial| partial[self.lane][lane] >= tick)
    }
}

/// What conflicts with an access.
pub(super) struct Conflict {
    pub kind: Kind,
    pub what: &'static str,
    /// The other thread of the block and the place of its access.
    pub other: Option<(u16, u32)>,
}

/// The history of a word, or of one byte of it.
#[derive(Clone, Copy, Default)]
struct Cell {
    /// When it was last written; 0 for never.
    written: u32,
    write_pc: u32,
    writer: u16,
    /// The latest thread that read since, and all lanes of its warp that did at that tick.
    reader: u16,
    read: u32,
    read_pc: u32,
    read_lanes: u32,
    /// Warps that read since, in the epoch.
    read_warps: u32,
    read_epoch: u32,
    strong: bool,
    /// How many asynchronous copies to it are under way.
    pending: u8,
    /// Its four bytes have histories of their own.
    split: bool,
}

impl Cell {
    /// Is the last write before this access, or may it be at the same time?
    #[inline(always)]
    fn ordered(&self, by: &Accessor<'_>) -> bool {
        by.after(self.writer, self.written) || (by.strong && self.strong) || !by.checks.race
    }

    #[inline(always)]
    fn on_read(&mut self, by: &Accessor<'_>) -> Result<(), Conflict> {
        if self.pending > 0 || (self.written == 0 && by.checks.shared_init) || !self.ordered(by) {
            return Err(self.bad_read());
        }
        self.note_reads(by, 1 << by.lane);
        Ok(())
    }

    /// Reads of lanes of a warp by one instruction, `by` the lowest: as [`Cell::on_read`] of each, where that is sure to go
    /// well; else nothing, and false.
    #[inline(always)]
    fn on_reads(&mut self, by: &Accessor<'_>, readers: u32) -> bool {
        let writer = usize::from(self.writer) / LANES;
        // Whether this warp's own write was before hangs on the lane.
        let known = if writer == by.warp { by.clock.full } else { by.clock.known[writer] };
        let ordered = self.written <= known || !by.checks.race;
        if self.pending > 0 || self.split || !ordered || (self.written == 0 && by.checks.shared_init) {
            return false;
        }
        self.note_reads(by, readers);
        true
    }

    #[inline(always)]
    fn note_reads(&mut self, by: &Accessor<'_>, readers: u32) {
        if self.read == by.clock.tick && usize::from(self.reader) / LANES == by.warp {
            self.read_lanes |= readers;
        } else if !by.strong {
            if self.read_epoch != by.epoch {
                self.read_warps = 0;
                self.read_epoch = by.epoch;
            }
            self.read_warps |= 1 << by.warp;
            self.reader = by.who();
            self.read = by.clock.tick;
            self.read_pc = by.pc;
            self.read_lanes = readers;
        }
    }

    #[cold]
    fn bad_read(&self) -> Conflict {
        if self.pending > 0 {
            self.conflict(Kind::AsyncCopy, "read before the asynchronous copy to it was waited for")
        } else if self.written == 0 {
            let what = "read before anything was written there (is a barrier missing?)";
            Conflict { kind: Kind::Uninitialised, what, other: None }
        } else {
            self.conflict(Kind::Race, "read while another thread writes")
        }
    }

    /// `same`: does the write leave the bytes as they are?
    #[inline(always)]
    fn on_write(&mut self, by: &Accessor<'_>, same: impl Fn() -> bool) -> Result<(), Conflict> {
        self.check_write(by, same)?;
        self.set_written(by.who(), by.clock.tick, by.pc, by.strong);
        Ok(())
    }

    #[inline(always)]
    fn set_written(&mut self, who: u16, tick: u32, pc: u32, strong: bool) {
        self.written = tick;
        self.writer = who;
        self.write_pc = pc;
        self.strong = strong;
        self.read = 0;
        self.read_warps = 0;
    }

    #[inline(always)]
    fn check_write(&self, by: &Accessor<'_>, same: impl Fn() -> bool) -> Result<(), Conflict> {
        if self.pending > 0 {
            return Err(self.conflict(Kind::AsyncCopy, "written while an asynchronous copy to it is under way"));
        }
        // Lanes that store the same value with one instruction agree on what comes out.
        let agree = || self.write_pc == by.pc && same();
        if self.written != 0 && !self.ordered(by) && !agree() {
            return Err(self.conflict(Kind::Race, "written while another thread writes"));
        }
        if self.read == 0 || !by.checks.race {
            return Ok(());
        }
        let reading_warp = usize::from(self.reader) / LANES;
        let race = |lane: usize| Conflict {
            kind: Kind::Race,
            what: "written while another thread reads",
            other: Some(((reading_warp * LANES + lane) as u16, self.read_pc)),
        };
        if reading_warp != by.warp {
            if !by.after(self.reader, self.read) {
                return Err(race(usize::from(self.reader) % LANES));
            }
        } else if self.read > by.clock.full {
            let mut others = lanes(self.read_lanes).map(|lane| (lane, (by.warp * LANES + lane) as u16));
            if let Some((lane, _)) = others.find(|&(_, who)| !by.after(who, self.read)) {
                return Err(race(lane));
            }
        }
        // Of further warps only the epoch is known; barriers of part of the block may have ordered them.
        let further = self.read_warps & !(1 << by.warp) & !(1 << reading_warp);
        if further != 0 && self.read_epoch == by.epoch && !by.named {
            let other = Some(((further.trailing_zeros() as usize * LANES) as u16, self.read_pc));
            return Err(Conflict { kind: Kind::Race, what: "written while another warp reads", other });
        }
        Ok(())
    }

    fn conflict(&self, kind: Kind, what: &'static str) -> Conflict {
        Conflict { kind, what, other: Some((self.writer, self.write_pc)) }
    }
}

/// The bytes of words that were accessed in parts, by the words' numbers.
type Parts = HashMap<u64, [Cell; 4]>;

/// Calls `f` with the history of every byte of an access to a word, which has that number.
#[inline(always)]
fn visit(
    (cell, parts): (&mut Cell, &mut Parts),
    word: u64,
    (first, size): (usize, u32),
    mut f: impl FnMut(&mut Cell) -> Result<(), Conflict>,
) -> Result<(), Conflict> {
    if size == 4 && !cell.split {
        return f(cell);
    }
    if !cell.split {
        parts.insert(word, [*cell; 4]);
        cell.split = true;
    }
    let parts = parts.entry(word).or_default();
    parts[first..first + size as usize].iter_mut().try_for_each(f)
}

/// What a block has done with global memory.
#[derive(Default)]
pub(super) struct History {
    cells: HashMap<u64, Cell>,
    parts: Parts,
}

impl History {
    /// Forgets everything.
    pub fn clear(&mut self) {
        self.cells.clear();
        self.parts.clear();
    }

    /// Notes a read of 1, 2 or 4 bytes at an address that their number divides.
    pub fn read(&mut self, address: u64, size: u32, by: &Accessor<'_>) -> Result<(), Conflict> {
        self.visit(address, size, |cell| cell.on_read(by))
    }

    /// Notes a write. `same`: does it leave the bytes as they are?
    pub fn write(&mut self, address: u64, size: u32, by: &Accessor<'_>, same: bool) -> Result<(), Conflict> {
        self.visit(address, size, |cell| cell.on_write(by, || same))
    }

    fn visit(
        &mut self,
        address: u64,
        size: u32,
        f: impl FnMut(&mut Cell) -> Result<(), Conflict>,
    ) -> Result<(), Conflict> {
        let word = address / 4;
        visit((self.cells.entry(word).or_default(), &mut self.parts), word, ((address % 4) as usize, size), f)
    }
}

/// The shared memory of a block.
#[derive(Default)]
pub(super) struct Shared {
    len: u32,
    bytes: Vec<u8>,
    cells: Vec<Cell>,
    parts: Parts,
}

impl Shared {
    /// Fresh memory of so many bytes.
    pub fn reset(&mut self, bytes: u32) {
        self.bytes.clear();
        self.bytes.resize(bytes.next_multiple_of(4) as usize, crate::memory::POISON);
        self.cells.clear();
        self.cells.resize(bytes.div_ceil(4) as usize, Cell::default());
        self.parts.clear();
        self.len = bytes;
    }

    /// Bytes.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// The bytes at an offset, as a number; `size` is 1, 2 or 4 and divides the offset.
    #[inline(always)]
    fn peek(&self, offset: u32, size: u32) -> u32 {
        let at = offset as usize;
        match (size, &self.bytes[at..at + size as usize]) {
            (4, &[a, b, c, d]) => u32::from_le_bytes([a, b, c, d]),
            (2, &[a, b]) => u16::from_le_bytes([a, b]).into(),
            (_, bytes) => bytes[0].into(),
        }
    }

    #[inline(always)]
    fn poke(&mut self, offset: u32, size: u32, value: u32) {
        let at = offset as usize;
        self.bytes[at..at + size as usize].copy_from_slice(&value.to_le_bytes()[..size as usize]);
    }

    /// Calls `f` with the history of every byte of an access.
    #[inline(always)]
    fn visit(
        &mut self,
        offset: u32,
        size: u32,
        f: impl FnMut(&mut Cell) -> Result<(), Conflict>,
    ) -> Result<(), Conflict> {
        let word = offset / 4;
        visit((&mut self.cells[word as usize], &mut self.parts), word.into(), ((offset % 4) as usize, size), f)
    }

    /// Reads `rows` words of each lane of `mask`, from offsets that are multiples of 4 and inside; those of no row are passed
    /// over. `by` is of any lane. False where a word must be read lane by lane: what was done until then does no harm.
    #[inline(always)]
    pub fn load_words(
        &mut self,
        by: &mut Accessor<'_>,
        mask: u32,
        offsets: &[u32; LANES],
        rows: &[bool],
        out: &mut [[u32; LANES]],
    ) -> bool {
        let first = mask.trailing_zeros() as usize;
        // Lanes that share words mostly do so in one of these ways; a word's history is looked at once for all of them.
        let shared = [1, 2, 4, 8, 16].iter().any(|step| offsets[(first + step) % LANES] == offsets[first]);
        let mut rest = mask;
        while rest != 0 {
            let lane = rest.trailing_zeros() as usize;
            let offset = offsets[lane];
            let mut same = 1 << lane;
            if shared {
                same = (0..LANES).fold(0, |same, lane| same | u32::from(offsets[lane] == offset) << lane) & rest;
            }
            rest &= !same;
            by.lane = lane;
            let (word, at) = ((offset / 4) as usize, offset as usize);
            let cells = self.cells[word..word + rows.len()].iter_mut();
            let words = self.bytes[at..at + 4 * rows.len()].as_chunks::<4>().0;
            for (((cell, word), wanted), out) in cells.zip(words).zip(rows).zip(&mut *out) {
                if !wanted {
                    continue;
                }
                if !cell.on_reads(by, same) {
                    return false;
                }
                let value = u32::from_le_bytes(*word);
                if shared {
                    lanes(same).for_each(|lane| out[lane] = value);
                } else {
                    out[lane] = value;
                }
            }
        }
        true
    }

    /// Reads 1, 2 or 4 bytes at an offset that their number divides.
    #[inline(always)]
    pub fn load(&mut self, offset: u32, size: u32, by: &Accessor<'_>) -> Result<u32, Conflict> {
        match self.cells.get_mut((offset / 4) as usize) {
            Some(cell) if size == 4 && !cell.split => cell.on_read(by)?,
            _ => self.visit(offset, size, |cell| cell.on_read(by))?,
        }
        Ok(self.peek(offset, size))
    }

    /// Writes 1, 2 or 4 bytes at an offset that their number divides.
    #[inline(always)]
    pub fn store(&mut self, offset: u32, size: u32, value: u32, by: &Accessor<'_>) -> Result<(), Conflict> {
        let old = self.peek(offset, size);
        let kept = u32::MAX >> (32 - 8 * size);
        self.visit(offset, size, |cell| cell.on_write(by, || old == value & kept))?;
        self.poke(offset, size, value);
        Ok(())
    }

    /// Replaces 2, 4 or 8 bytes by `f` of them; what was there. The accessor is strong.
    pub fn update(
        &mut self,
        offset: u32,
        size: u32,
        by: &Accessor<'_>,
        f: impl FnOnce(u64) -> u64,
    ) -> Result<u64, Conflict> {
        let unit = size.min(4);
        let mut old = 0;
        for at in (0..size).step_by(4) {
            self.visit(offset + at, unit, |cell| {
                cell.on_read(by)?;
                cell.on_write(by, || false)
            })?;
            old |= u64::from(self.peek(offset + at, unit)) << (8 * at);
        }
        let new = f(old);
        (0..size).step_by(4).for_each(|at| self.poke(offset + at, unit, (new >> (8 * at)) as u32));
        Ok(old)
    }

    /// Marks a word as the target of an asynchronous copy. `same`: does one with this instruction bring the same there?
    pub fn begin_copy(&mut self, offset: u32, by: &Accessor<'_>, same: impl Fn() -> bool) -> Result<(), Conflict> {
        self.visit(offset, 4, |cell| {
            let again = (1..u8::MAX).contains(&cell.pending) && cell.write_pc == by.pc && same();
            if !again {
                cell.check_write(by, || false)?;
            }
            cell.pending += 1;
            cell.writer = by.who();
            cell.write_pc = by.pc;
            Ok(())
        })
    }

    /// Completes an asynchronous copy of a word: as if its thread wrote it now.
    pub fn end_copy(&mut self, offset: u32, value: u32, who: u16, pc: u32, tick: u32) {
        let done = self.visit(offset, 4, |cell| {
            cell.pending -= 1;
            cell.set_written(who, tick, pc, false);
            Ok(())
        });
        debug_assert!(done.is_ok());
        self.poke(offset, 4, value);
    }
}
