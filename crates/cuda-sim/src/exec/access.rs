//! Loads, stores, atomics and copies of a warp, with every check.

use super::Fault;
use super::block::Grid;
use super::regs::{LANES, Row, Src, lanes};
use super::shared::{Accessor, Conflict, History, Shared};
use super::warp::{PendingCopy, Warp};
use crate::counters::{self, Access, Tally};
use crate::decode::{Address, Atomic, Base, LocalCopy, NOWHERE, Space, Unit, WINDOW, window};
use crate::device::Checks;
use crate::finding::Kind;
use crate::float::half::{self, Bf16, F16};
use crate::float::{Modifiers, Rounding, double, single};
use crate::memory::Region;
use crate::ptx::Type;
use crate::touched::{Touch, Toucher};

/// Parts of the longest load or store.
pub(crate) const PARTS: usize = 8;

/// A warp's view of memory at an instruction.
pub(super) struct Site<'s, 'g> {
    pub grid: &'s Grid<'g>,
    pub shared: &'s mut Shared,
    pub global: &'s mut History,
    /// The allocation that was accessed last.
    pub region: &'s mut usize,
    /// The block's number.
    pub block: u64,
    /// Are global accesses compared with those of other blocks?
    pub touching: bool,
    /// What is counted.
    pub tally: Option<&'s mut Tally>,
    pub warp: usize,
    pub pc: u32,
    pub epoch: u32,
    pub named: bool,
}

/// The operands of a load or store.
pub(super) struct Transfer<'a> {
    pub address: &'a Address,
    pub unit: Unit,
    pub strong: bool,
}

impl Transfer<'_> {
    /// Do so many units move together in global memory? What takes part in synchronisation does, for no other thread may
    /// see a part of it.
    fn together(&self, count: usize) -> bool {
        self.strong && count > 1 && self.unit == Unit::Word
    }
}

impl<'g> Site<'_, 'g> {
    fn addresses(&self, warp: &Warp, address: &Address) -> [u64; LANES] {
        let offset = address.offset as u64;
        let mut addresses = [offset; LANES];
        match address.base {
            Base::None => {}
            Base::Row32(row) => {
                let base = warp.regs.row(row);
                for lane in 0..LANES {
                    addresses[lane] = base[lane].wrapping_add(offset as u32).into();
                }
            }
            Base::Row64(row) => {
                let base = warp.regs.get::<u64>(row);
                for lane in 0..LANES {
                    addresses[lane] = base[lane].wrapping_add(offset);
                }
            }
        }
        addresses
    }

    /// The space of the lowest lane of `mask`, the lanes that are in the same, and what to take off their addresses.
    fn resolve(&self, space: Space, addresses: &[u64; LANES], mask: u32) -> (Space, u32, u64) {
        if space != Space::Generic {
            return (space, mask, 0);
        }
        let of = |address: u64| {
            let in_window = |space: &&Space| address.wrapping_sub(window(**space)) < WINDOW;
            [Space::Shared, Space::Local, Space::Param].iter().find(in_window).copied().unwrap_or(Space::Global)
        };
        let space = of(addresses[mask.trailing_zeros() as usize]);
        let same = lanes(mask).filter(|&lane| of(addresses[lane]) == space).fold(0, |found, lane| found | 1 << lane);
        (space, same, window(space))
    }

    fn accessor<'a>(&self, warp: &'a Warp, lane: usize, strong: bool) -> Accessor<'a> {
        Accessor {
            warp: self.warp,
            lane,
            pc: self.pc,
            clock: &warp.clock,
            epoch: self.epoch,
            named: self.named,
            strong,
            checks: self.grid.checks,
        }
    }

    /// The allocation that holds the bytes, and their offset there. Is the access atomic, or as good as that?
    #[inline(always)]
    fn global(
        &mut self,
        address: u64,
        size: u32,
        lane: usize,
        what: &str,
        atomic: bool,
    ) -> Result<(&'g Region, u64), Fault> {
        let found = self.find(address, size, lane, what)?;
        if self.touching {
            self.touch(found, size, lane, what, atomic)?;
        }
        Ok(found)
    }

    #[inline(always)]
    fn find(&mut self, address: u64, size: u32, lane: usize, what: &str) -> Result<(&'g Region, u64), Fault> {
        let size = u64::from(size);
        if address & (size - 1) != 0 {
            return Err(misaligned(what, "global", address, size, lane));
        }
        let map = self.grid.map;
        if *self.region < map.len() {
            let region = map.region(*self.region);
            if let Some(offset) = region.offset(address, size) {
                return Ok((region, offset));
            }
        }
        let index = map.find(address);
        match index.map(|index| map.region(index)) {
            Some(region) if region.offset(address, size).is_some() => {
                *self.region = index.unwrap_or(0);
                Ok((region, address - region.base()))
            }
            below => Err(self.stray(address, size, lane, what, below)),
        }
    }

    /// Counts an access of lanes to global or shared memory, where that is asked for.
    #[inline(always)]
    fn tally(
        &mut self,
        space: Space,
        (bytes, write, uncached): (u32, bool, bool),
        mask: u32,
        address: impl Fn(usize) -> u64,
    ) {
        let Some(tally) = &mut self.tally else { return };
        let space = match space {
            Space::Shared => counters::Space::Shared,
            Space::Global | Space::Generic => counters::Space::Global,
            _ => return,
        };
        let addresses: Vec<u64> = lanes(mask).map(address).collect();
        if !addresses.is_empty() {
            tally.access(Access { space, bytes: bytes.into(), write, uncached }, &addresses);
        }
    }

    /// Compares an access to global memory with those of the block's other threads. `write`: does it leave the bytes as
    /// they are?
    #[cold]
    fn order(
        &mut self,
        warp: &Warp,
        lane: usize,
        (address, size): (u64, u32),
        strong: bool,
        write: Option<bool>,
    ) -> Result<(), Fault> {
        let checks = Checks { race: true, shared_init: false, ..self.grid.checks };
        let by = Accessor { checks, ..self.accessor(warp, lane, strong) };
        let done = match write {
            None => self.global.read(address, size, &by),
            Some(same) => self.global.write(address, size, &by, same),
        };
        done.map_err(|conflict| self.conflict_at(conflict, format!("global address 0x{address:x}"), lane))
    }

    /// Compares an access with those of other blocks.
    #[cold]
    fn touch(
        &self,
        (region, offset): (&Region, u64),
        size: u32,
        lane: usize,
        what: &str,
        atomic: bool,
    ) -> Result<(), Fault> {
        let how = if what.ends_with("read") { Touch::Read } else { Touch::Write };
        let by = Toucher { launch: self.grid.launch, block: self.block, atomic };
        region.touched().touch(offset, size.into(), how, &by).map_err(|(other, before)| {
            let before = if before == Touch::Read { "read" } else { "written" };
            let who = other.map_or("other blocks".to_owned(), |block| {
                let [x, y, z] = Grid::index(block, self.grid.grid);
                format!("block ({x},{y},{z})")
            });
            let at = region.base() + offset;
            Fault::new(
                Kind::Race,
                lane,
                format!("{what} of {size} bytes at 0x{at:x}, {before} by {who} in this launch"),
            )
        })
    }

    #[cold]
    fn stray(&self, address: u64, size: u64, lane: usize, what: &str, below: Option<&Region>) -> Fault {
        let access = format!("{what} of {size} bytes at 0x{address:x}");
        if let Some((base, len)) = self.grid.map.freed(address) {
            let detail = format!("{access}, inside an allocation of {len} bytes at 0x{base:x} that was freed");
            return Fault::new(Kind::UseAfterFree, lane, detail);
        }
        let detail = match below {
            Some(region) if address - region.base() < region.len() + crate::memory::GAP => {
                let beyond = (address + size) - (region.base() + region.len());
                let (len, base) = (region.len(), region.base());
                format!("{access}, {beyond} bytes beyond the end of an allocation of {len} bytes at 0x{base:x}")
            }
            _ => format!("{access}, in no allocation"),
        };
        Fault::new(Kind::OutOfBounds, lane, detail)
    }

    /// The offset of bytes in shared or local memory, or among the parameters.
    #[inline(always)]
    fn offset(&self, address: u64, size: u32, space: Space, lane: usize, what: &str) -> Result<u32, Fault> {
        let len = match space {
            Space::Shared => self.shared.len(),
            Space::Local => self.grid.image.local,
            _ => self.grid.params.len() as u32,
        };
        let name = match space {
            Space::Shared => "shared",
            Space::Local => "local",
            _ => "parameter",
        };
        if address & u64::from(size - 1) != 0 {
            return Err(misaligned(what, name, address, size.into(), lane));
        }
        if address >= u64::from(len) || u64::from(len) - address < size.into() {
            let detail = format!("{what} of {size} bytes at {name} offset 0x{address:x}; there are {len} bytes");
            return Err(Fault::new(Kind::OutOfBounds, lane, detail));
        }
        Ok(address as u32)
    }

    #[cold]
    fn conflict(&self, conflict: Conflict, offset: u32, lane: usize) -> Fault {
        self.conflict_at(conflict, format!("shared offset 0x{offset:x}"), lane)
    }

    #[cold]
    fn conflict_at(&self, conflict: Conflict, place: String, lane: usize) -> Fault {
        let mut detail = format!("{place} {}", conflict.what);
        if let Some((who, pc)) = conflict.other {
            let [x, y, z] = self.grid.thread(who.into());
            let line = self.grid.image.code.get(pc as usize).map_or(0, |step| step.line);
            detail += &format!(": thread ({x},{y},{z}), PTX line {line}");
        }
        Fault::new(conflict.kind, lane, detail)
    }

    pub fn load(
        &mut self,
        warp: &mut Warp,
        mask: u32,
        transfer: &Transfer<'_>,
        rows: &[u32],
        (signed, high): (bool, u32),
    ) -> Result<(), Fault> {
        let addresses = self.addresses(warp, transfer.address);
        let unit = transfer.unit.bytes();
        let count = rows.len();
        let size = unit * count as u32;
        let (unchecked, ordering) = (!self.grid.checks.global_init, self.grid.checks.global_race);
        let together = transfer.together(count);
        let mut out = [[0u32; LANES]; PARTS];
        let mut rest = mask;
        while rest != 0 {
            let (space, same, less) = self.resolve(transfer.address.space, &addresses, rest);
            rest &= !same;
            self.tally(space, (size, false, transfer.strong), same, |lane| addresses[lane].wrapping_sub(less));
            if space == Space::Shared
                && transfer.unit == Unit::Word
                && self.load_shared(warp, same, (&addresses, less), rows, transfer.strong, &mut out)
            {
                continue;
            }
            for lane in lanes(same) {
                let address = addresses[lane].wrapping_sub(less);
                match space {
                    Space::Global | Space::Const | Space::Generic => {
                        let (region, offset) = self.global(address, size, lane, "read", transfer.strong)?;
                        let whole = unchecked || region.written(offset, size.into());
                        for at in 0..count {
                            let offset = offset + u64::from(unit) * at as u64;
                            if !whole && rows[at] != NOWHERE && !region.written(offset, unit.into()) {
                                return Err(uninitialised(address, size, lane));
                            }
                            if ordering && rows[at] != NOWHERE {
                                let bytes = (region.base() + offset, unit);
                                self.order(warp, lane, bytes, transfer.strong, None)?;
                            }
                            out[at][lane] = read(region, offset, transfer.unit);
                        }
                        if together {
                            let mut words = [0; PARTS];
                            region.load_words(offset, &mut words[..count]);
                            out.iter_mut().zip(words).for_each(|(out, word)| out[lane] = word);
                        }
                    }
                    Space::Shared => {
                        let offset = self.offset(address, size, space, lane, "read")?;
                        let by = self.accessor(warp, lane, transfer.strong);
                        for at in 0..count {
                            let offset = offset + unit * at as u32;
                            if rows[at] == NOWHERE {
                                continue;
                            }
                            match self.shared.load(offset, unit, &by) {
                                Ok(value) => out[at][lane] = value,
                                Err(conflict) => return Err(self.conflict(conflict, offset, lane)),
                            }
                        }
                    }
                    Space::Local => {
                        let offset = self.offset(address, size, space, lane, "read")?;
                        let first = lane * self.grid.image.local as usize + offset as usize;
                        for at in 0..count {
                            out[at][lane] = little(&warp.local[first + at * unit as usize..][..unit as usize]);
                        }
                    }
                    Space::Param => {
                        let offset = self.offset(address, size, space, lane, "read")? as usize;
                        for at in 0..count {
                            let bytes = &self.grid.params[offset + at * unit as usize..][..unit as usize];
                            out[at][lane] = little(bytes);
                        }
                    }
                }
            }
        }
        let shift = 32 - 8 * unit;
        for (&row, values) in rows.iter().zip(&mut out).filter(|(row, _)| **row != NOWHERE) {
            if signed && shift > 0 {
                *values = values.map(|value| ((value << shift) as i32 >> shift) as u32);
            }
            warp.regs.set_row(row, values, mask);
        }
        if high != NOWHERE {
            let values = out[0].map(|value| if signed { (value as i32 >> 31) as u32 } else { 0 });
            warp.regs.set_row(high, &values, mask);
        }
        Ok(())
    }

    /// Words of shared memory for all lanes together; false where something about them wants a closer look.
    #[inline(always)]
    fn load_shared(
        &mut self,
        warp: &Warp,
        mask: u32,
        (addresses, less): (&[u64; LANES], u64),
        rows: &[u32],
        strong: bool,
        out: &mut [[u32; LANES]; PARTS],
    ) -> bool {
        let size = 4 * rows.len() as u64;
        let Some(last) = u64::from(self.shared.len()).checked_sub(size) else { return false };
        let (mut offsets, mut bad) = ([0; LANES], 0);
        for lane in 0..LANES {
            let address = addresses[lane].wrapping_sub(less);
            offsets[lane] = address as u32;
            bad |= u32::from(address > last || address & (size - 1) != 0) << lane;
        }
        let mut wanted = [false; PARTS];
        wanted.iter_mut().zip(rows).for_each(|(wanted, row)| *wanted = *row != NOWHERE);
        let mut by = self.accessor(warp, 0, strong);
        bad & mask == 0 && self.shared.load_words(&mut by, mask, &offsets, &wanted[..rows.len()], out)
    }

    pub fn store(
        &mut self,
        warp: &mut Warp,
        mask: u32,
        transfer: &Transfer<'_>,
        values: &[Src<u32>],
    ) -> Result<(), Fault> {
        let addresses = self.addresses(warp, transfer.address);
        let unit = transfer.unit.bytes();
        let count = values.len();
        let size = unit * count as u32;
        let (ordering, together) = (self.grid.checks.global_race, transfer.together(count));
        let mut parts = [[0u32; LANES]; PARTS];
        parts.iter_mut().zip(values).for_each(|(part, value)| *part = value.fetch(&warp.regs));
        let mut rest = mask;
        while rest != 0 {
            let (space, same, less) = self.resolve(transfer.address.space, &addresses, rest);
            rest &= !same;
            self.tally(space, (size, true, true), same, |lane| addresses[lane].wrapping_sub(less));
            for lane in lanes(same) {
                let address = addresses[lane].wrapping_sub(less);
                match space {
                    Space::Global | Space::Const | Space::Generic => {
                        let (region, offset) = self.global(address, size, lane, "write", transfer.strong)?;
                        if region.read_only() {
                            return Err(read_only(address, size, lane));
                        }
                        for at in 0..count {
                            let (offset, value) = (offset + u64::from(unit) * at as u64, parts[at][lane]);
                            if ordering {
                                let same = read(region, offset, transfer.unit) == value & u32::MAX >> (32 - 8 * unit);
                                let bytes = (region.base() + offset, unit);
                                self.order(warp, lane, bytes, transfer.strong, Some(same))?;
                            }
                            match transfer.unit {
                                _ if together => {}
                                Unit::Word => region.store32(offset, value),
                                Unit::Half => region.store16(offset, value as u16),
                                Unit::Byte => region.store8(offset, value as u8),
                            }
                        }
                        if together {
                            let words: [u32; PARTS] = std::array::from_fn(|at| parts[at][lane]);
                            region.store_words(offset, &words[..count]);
                        }
                        if !region.all_written() {
                            region.mark(offset, size.into());
                        }
                    }
                    Space::Shared => {
                        let offset = self.offset(address, size, space, lane, "write")?;
                        let by = self.accessor(warp, lane, transfer.strong);
                        for at in 0..count {
                            let offset = offset + unit * at as u32;
                            let done = self.shared.store(offset, unit, parts[at][lane], &by);
                            done.map_err(|conflict| self.conflict(conflict, offset, lane))?;
                        }
                    }
                    Space::Local => {
                        let offset = self.offset(address, size, space, lane, "write")?;
                        let first = lane * self.grid.image.local as usize + offset as usize;
                        for at in 0..count {
                            let to = &mut warp.local[first + at * unit as usize..][..unit as usize];
                            to.copy_from_slice(&parts[at][lane].to_le_bytes()[..unit as usize]);
                        }
                    }
                    Space::Param => return Err(read_only(address, size, lane)),
                }
            }
        }
        Ok(())
    }

    pub fn atomic(
        &mut self,
        warp: &mut Warp,
        mask: u32,
        address: &Address,
        (op, ty): (Atomic, Type),
        dst: Option<u32>,
        values: &[Src<u64>; 2],
    ) -> Result<(), Fault> {
        let addresses = self.addresses(warp, address);
        let size = ty.bytes();
        let fetch = |value: &Src<u64>| value.fetch_word_or_two(&warp.regs, size == 8);
        let [a, b] = [fetch(&values[0]), if op == Atomic::Cas { fetch(&values[1]) } else { [0; LANES] }];
        let unchecked = !self.grid.checks.global_init;
        let mut out = [0u64; LANES];
        let mut rest = mask;
        while rest != 0 {
            let (space, same, less) = self.resolve(address.space, &addresses, rest);
            rest &= !same;
            self.tally(space, (size, true, true), same, |lane| addresses[lane].wrapping_sub(less));
            for lane in lanes(same) {
                let address = addresses[lane].wrapping_sub(less);
                let new = |old: u64| apply(op, ty, old, [a[lane], b[lane]], space != Space::Shared);
                out[lane] = match space {
                    Space::Global | Space::Generic => {
                        let (region, offset) = self.global(address, size, lane, "atomic", true)?;
                        if region.read_only() {
                            return Err(read_only(address, size, lane));
                        }
                        if !unchecked && !region.written(offset, size.into()) {
                            return Err(uninitialised(address, size, lane));
                        }
                        if self.grid.checks.global_race {
                            for at in (0..size).step_by(4) {
                                self.order(warp, lane, (address + u64::from(at), size.min(4)), true, Some(false))?;
                            }
                        }
                        match size {
                            2 => region.update16(offset, |old| new(old.into()) as u16).into(),
                            4 => region.update32(offset, |old| new(old.into()) as u32).into(),
                            _ => region.update64(offset, new),
                        }
                    }
                    Space::Shared => {
                        let offset = self.offset(address, size, space, lane, "atomic")?;
                        let by = self.accessor(warp, lane, true);
                        let old = self.shared.update(offset, size, &by, new);
                        old.map_err(|c| self.conflict(c, offset, lane))?
                    }
                    _ => {
                        let detail = "an atomic operation on memory that is neither global nor shared";
                        return Err(Fault::new(Kind::Illegal, lane, detail));
                    }
                };
            }
        }
        if let Some(row) = dst {
            warp.regs.set_row(row, &out.map(|old| old as u32), mask);
            if size == 8 {
                warp.regs.set_row(row + 1, &out.map(|old| (old >> 32) as u32), mask);
            }
        }
        Ok(())
    }

    /// `cp.async`: reads at once, writes when it is waited for.
    pub fn copy_async(
        &mut self,
        warp: &mut Warp,
        mask: u32,
        (to, from): (&Address, &Address),
        bytes: u32,
        valid: Option<&Src<u32>>,
    ) -> Result<(), Fault> {
        let (to, from) = (self.addresses(warp, to), self.addresses(warp, from));
        let (unchecked, ordering) = (!self.grid.checks.global_init, self.grid.checks.global_race);
        let valid = valid.map_or([bytes; LANES], |valid| valid.fetch(&warp.regs));
        // Lanes that fill with zeros read nothing. Copies of 16 bytes pass the first level by.
        let reading = lanes(mask).filter(|&lane| valid[lane] > 0).fold(0, |mask, lane| mask | 1 << lane);
        self.tally(Space::Global, (bytes, false, bytes == 16), reading, |lane| from[lane]);
        self.tally(Space::Shared, (bytes, true, false), mask, |lane| to[lane]);
        for lane in lanes(mask) {
            let mut data = [0; 4];
            let kept = valid[lane];
            if kept > bytes {
                let detail = format!("cp.async of {bytes} bytes with {kept} source bytes");
                return Err(Fault::new(Kind::Illegal, lane, detail));
            }
            if from[lane] % u64::from(bytes) != 0 {
                return Err(misaligned("asynchronous read", "global", from[lane], bytes.into(), lane));
            }
            for (word, data) in (0..).zip(&mut data[..bytes.div_ceil(4) as usize]) {
                let here = kept.saturating_sub(4 * word).min(4);
                let address = from[lane] + u64::from(4 * word);
                for byte in 0..if here == 4 { 0 } else { here } {
                    let (region, offset) =
                        self.global(address + u64::from(byte), 1, lane, "asynchronous read", false)?;
                    if ordering {
                        self.order(warp, lane, (address + u64::from(byte), 1), false, None)?;
                    }
                    *data |= u32::from(region.load8(offset)) << (8 * byte);
                }
                if here == 4 {
                    let (region, offset) = self.global(address, 4, lane, "asynchronous read", false)?;
                    if !unchecked && !region.written(offset, 4) {
                        return Err(uninitialised(address, 4, lane));
                    }
                    if ordering {
                        self.order(warp, lane, (address, 4), false, None)?;
                    }
                    *data = region.load32(offset);
                }
            }
            let offset = self.offset(to[lane], bytes, Space::Shared, lane, "asynchronous write")?;
            let (by, pc, words) = (self.accessor(warp, lane, false), self.pc, bytes / 4);
            let alike = |copy: &PendingCopy| (copy.pc, copy.to, copy.words, copy.data) == (pc, offset, words, data);
            for word in 0..words {
                let at = offset + 4 * word;
                let begun = self.shared.begin_copy(at, &by, || warp.copies.iter().any(alike));
                begun.map_err(|c| self.conflict(c, at, lane))?;
            }
            let group = warp.group[lane];
            warp.copies.push_back(PendingCopy { lane, group, to: offset, words, data, pc });
        }
        Ok(())
    }

    /// `cp.async.wait_group`: completes all but the latest `pending` groups; with `NOWHERE`, everything.
    pub fn copy_wait(&mut self, warp: &mut Warp, mask: u32, pending: u32) {
        let group = warp.group;
        let tick = warp.clock.tick;
        let done = |copy: &PendingCopy| {
            mask >> copy.lane & 1 == 1 && (pending == NOWHERE || copy.group + pending < group[copy.lane])
        };
        for copy in warp.copies.iter().filter(|copy| done(copy)) {
            let who = (self.warp * LANES + copy.lane) as u16;
            for word in 0..copy.words {
                self.shared.end_copy(copy.to + 4 * word, copy.data[word as usize], who, copy.pc, tick);
            }
        }
        warp.copies.retain(|copy| !done(copy));
    }

    /// `ldmatrix` and `stmatrix`: lane 8 m + r has the address of row r of matrix m, eight halves.
    pub fn matrix(
        &mut self,
        warp: &mut Warp,
        address: &Address,
        rows: &[u32],
        transposed: bool,
        store: bool,
    ) -> Result<(), Fault> {
        let addresses = self.addresses(warp, address);
        let active = u32::MAX >> (32 - 8 * rows.len());
        let (space, same, less) = self.resolve(address.space, &addresses, active);
        if space != Space::Shared || same != active {
            let detail = "a matrix instruction with an address outside shared memory";
            return Err(Fault::new(Kind::Illegal, 0, detail));
        }
        let what = if store { "matrix write" } else { "matrix read" };
        let mut offsets = [0; LANES];
        for lane in lanes(active) {
            offsets[lane] = self.offset(addresses[lane].wrapping_sub(less), 16, space, lane, what)?;
        }
        self.tally(space, (16, store, false), active, |lane| u64::from(offsets[lane]));
        // The words of each row, where they are sure to be right.
        let mut quads = [[0; LANES]; 4];
        let mut by = self.accessor(warp, 0, false);
        let read = !store && self.shared.load_words(&mut by, active, &offsets, &[true; 4], &mut quads);
        for (matrix, &register) in rows.iter().enumerate() {
            if store {
                let values = *warp.regs.row(register);
                let words = if transposed { super::mma::transpose(&values) } else { values };
                for (at, word) in words.iter().enumerate() {
                    let (lane, offset) = (8 * matrix + at / 4, offsets[8 * matrix + at / 4] + 4 * (at as u32 % 4));
                    let by = self.accessor(warp, lane, false);
                    let done = self.shared.store(offset, 4, *word, &by);
                    done.map_err(|c| self.conflict(c, offset, lane))?;
                }
            } else {
                let mut words: Row = [0; LANES];
                for (at, word) in words.iter_mut().enumerate() {
                    let (lane, offset) = (8 * matrix + at / 4, offsets[8 * matrix + at / 4] + 4 * (at as u32 % 4));
                    if read {
                        *word = quads[at % 4][lane];
                        continue;
                    }
                    let by = self.accessor(warp, lane, false);
                    *word = self.shared.load(offset, 4, &by).map_err(|c| self.conflict(c, offset, lane))?;
                }
                let values = if transposed { super::mma::transpose(&words) } else { words };
                warp.regs.set_row(register, &values, u32::MAX);
            }
        }
        Ok(())
    }

    /// Copies between a caller's and a callee's parameters.
    pub fn local_copies(&self, warp: &mut Warp, mask: u32, copies: &[LocalCopy]) {
        let stride = self.grid.image.local as usize;
        for lane in lanes(mask) {
            for copy in copies {
                let (from, to) = (lane * stride + copy.from as usize, lane * stride + copy.to as usize);
                warp.local.copy_within(from..from + copy.bytes as usize, to);
            }
        }
    }

    /// A text in global memory, for the message of a failed assertion.
    pub fn text(&self, address: u64) -> String {
        let Some(region) = self.grid.map.find(address).map(|index| self.grid.map.region(index)) else {
            return String::new();
        };
        let end = region.len().min(address.wrapping_sub(region.base()).saturating_add(1 << 10));
        let bytes = (address.wrapping_sub(region.base())..end).map(|offset| region.load8(offset));
        String::from_utf8_lossy(&bytes.take_while(|&byte| byte != 0).collect::<Vec<_>>()).into_owned()
    }
}

#[inline(always)]
fn read(region: &Region, offset: u64, unit: Unit) -> u32 {
    match unit {
        Unit::Word => region.load32(offset),
        Unit::Half => region.load16(offset).into(),
        Unit::Byte => region.load8(offset).into(),
    }
}

fn little(bytes: &[u8]) -> u32 {
    let mut word = [0; 4];
    word[..bytes.len()].copy_from_slice(bytes);
    u32::from_le_bytes(word)
}

#[cold]
fn misaligned(what: &str, space: &str, address: u64, size: u64, lane: usize) -> Fault {
    let detail = format!("{what} of {size} bytes at {space} address 0x{address:x}, which they do not divide");
    Fault::new(Kind::Misaligned, lane, detail)
}

#[cold]
fn uninitialised(address: u64, size: u32, lane: usize) -> Fault {
    let detail = format!("read of {size} bytes at 0x{address:x}, not all of which were written");
    Fault::new(Kind::Uninitialised, lane, detail)
}

#[cold]
fn read_only(address: u64, size: u32, lane: usize) -> Fault {
    Fault::new(Kind::ReadOnly, lane, format!("write of {size} bytes at 0x{address:x}, which may only be read"))
}

/// What an atomic operation leaves (9.7.13.5). Sums of f32 flush subnormals in global memory, and only there.
fn apply(op: Atomic, ty: Type, old: u64, [a, b]: [u64; 2], flush: bool) -> u64 {
    let (old32, a32) = (old as u32, a as u32);
    let halves = |f: fn(u16, u16) -> u16| {
        let half = |shift: u32| u32::from(f((old32 >> shift) as u16, (a32 >> shift) as u16));
        u64::from(half(0) | half(16) << 16)
    };
    let m = Modifiers::RN;
    match (op, ty) {
        (Atomic::Exch, _) => a,
        (Atomic::Cas, _) => {
            let keep = u64::MAX >> (64 - ty.bits());
            if old == a & keep { b } else { old }
        }
        (Atomic::And, _) => old & a,
        (Atomic::Or, _) => old | a,
        (Atomic::Xor, _) => old ^ a,
        (Atomic::Inc, _) => (if old32 >= a32 { 0 } else { old32 + 1 }).into(),
        (Atomic::Dec, _) => (if old32 == 0 || old32 > a32 { a32 } else { old32 - 1 }).into(),
        (Atomic::Add, Type::F32) => single::add(old32, a32, Modifiers { ftz: flush, ..m }).into(),
        (Atomic::Add, Type::F64) => double::add(old, a, Rounding::Nearest),
        (Atomic::Add, Type::F16) => half::add::<F16>(old as u16, a as u16, m).into(),
        (Atomic::Add, Type::Bf16) => half::add::<Bf16>(old as u16, a as u16, m).into(),
        (Atomic::Add, Type::F16x2) => halves(|a, b| half::add::<F16>(a, b, Modifiers::RN)),
        (Atomic::Add, Type::Bf16x2) => halves(|a, b| half::add::<Bf16>(a, b, Modifiers::RN)),
        (Atomic::Min, Type::F16x2) => halves(|a, b| half::min::<F16>(a, b, false, false)),
        (Atomic::Max, Type::F16x2) => halves(|a, b| half::max::<F16>(a, b, false, false)),
        (Atomic::Min, Type::Bf16x2) => halves(|a, b| half::min::<Bf16>(a, b, false, false)),
        (Atomic::Max, Type::Bf16x2) => halves(|a, b| half::max::<Bf16>(a, b, false, false)),
        (Atomic::Min, Type::F16) => half::min::<F16>(old as u16, a as u16, false, false).into(),
        (Atomic::Max, Type::F16) => half::max::<F16>(old as u16, a as u16, false, false).into(),
        (Atomic::Min, Type::Bf16) => half::min::<Bf16>(old as u16, a as u16, false, false).into(),
        (Atomic::Max, Type::Bf16) => half::max::<Bf16>(old as u16, a as u16, false, false).into(),
        (Atomic::Add, _) => old.wrapping_add(a),
        (Atomic::Min, Type::S(32)) => ((old as i32).min(a as i32) as u32).into(),
        (Atomic::Max, Type::S(32)) => ((old as i32).max(a as i32) as u32).into(),
        (Atomic::Min, Type::S(_)) => (old as i64).min(a as i64) as u64,
        (Atomic::Max, Type::S(_)) => (old as i64).max(a as i64) as u64,
        (Atomic::Min, _) => old.min(a),
        (Atomic::Max, _) => old.max(a),
    }
}
