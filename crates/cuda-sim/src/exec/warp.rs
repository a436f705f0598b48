//! A warp: its registers, and how its lanes part and meet.
//!
//! Lanes that are at the same place form a *split*. A divergent branch makes two of one, under a *record* of the point
//! where they meet again; a split that comes to the point waits there until all lanes of the record have arrived, or
//! have exited. Among splits that can run, the one furthest behind in the code goes first, and splits of one record that
//! come to the same place join. Every split gets its turn, and no lane waits for ever at a point of rejoining, so that
//! lanes may wait for each other, as they may from sm_70 on. A call is a record whose point is the place after it.

use std::collections::VecDeque;

use super::regs::{Regs, lanes};
use super::shared::Clock;
use crate::decode::NOWHERE;

/// Why a split does not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waiting {
    /// It can run.
    No,
    /// For further lanes of these to come to its warp-level instruction.
    Lanes(u32),
    /// For a barrier of the block.
    Barrier(u32),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Split {
    pub pc: u32,
    pub mask: u32,
    pub record: usize,
    pub waiting: Waiting,
}

#[derive(Clone, Copy, Debug, Default)]
struct Record {
    rejoin: u32,
    expected: u32,
    arrived: u32,
    parent: usize,
    call: bool,
    used: bool,
}

/// An asynchronous copy that was not waited for yet.
#[derive(Clone, Copy)]
pub(super) struct PendingCopy {
    pub lane: usize,
    pub group: u32,
    pub to: u32,
    pub words: u32,
    pub data: [u32; 4],
    pub pc: u32,
}

/// No record: the outermost level.
const NONE: usize = usize::MAX;

#[derive(Default)]
pub(super) struct Warp {
    pub regs: Regs,
    /// Of each register, the lanes that have written it, where that is checked.
    pub known: Vec<u32>,
    pub local: Vec<u8>,
    pub splits: Vec<Split>,
    records: Vec<Record>,
    /// Lanes that have not exited.
    pub live: u32,
    /// Lanes that the warp began with.
    pub born: u32,
    pub clock: Clock,
    pub copies: VecDeque<PendingCopy>,
    /// The number of the open group of each lane.
    pub group: [u32; 32],
    /// Instructions executed.
    pub steps: u64,
    /// Instructions executed, times the lanes that took part.
    pub lane_steps: u64,
    /// Where the next turn begins, by `steps`.
    pub turn: u64,
    /// When each lane last had a turn of its own.
    served: [u64; 32],
    /// Was an atomic operation executed in this turn, as by lanes that wait for a lock?
    pub polls: bool,
}

impl Warp {
    /// Begins with these lanes at the first instruction.
    pub fn start(&mut self, lanes: u32) {
        self.splits.clear();
        self.splits.push(Split { pc: 0, mask: lanes, record: NONE, waiting: Waiting::No });
        self.records.clear();
        self.live = lanes;
        self.born = lanes;
        self.clock = Clock::default();
        self.copies.clear();
        self.group = [0; 32];
        self.steps = 0;
        self.lane_steps = 0;
        self.turn = 0;
        self.served = [0; 32];
        self.polls = false;
    }

    /// Where the split's lanes meet the others again.
    pub fn rejoin(&self, record: usize) -> u32 {
        if record == NONE || self.records[record].call { NOWHERE } else { self.records[record].rejoin }
    }

    fn record(&mut self, rejoin: u32, expected: u32, arrived: u32, parent: usize, call: bool) -> usize {
        let new = Record { rejoin, expected, arrived, parent, call, used: true };
        match self.records.iter().position(|record| !record.used) {
            Some(free) => {
                self.records[free] = new;
                free
            }
            None => {
                self.records.push(new);
                self.records.len() - 1
            }
        }
    }

    /// Parts a split: the lanes of `taken` go to `target`, the others to the next instruction.
    pub fn diverge(&mut self, split: usize, taken: u32, target: u32, rejoin: u32) {
        let Split { pc, mask, record, .. } = self.splits[split];
        let record = match rejoin {
            NOWHERE => record,
            // The lanes that leave a loop one after another all wait under one record.
            _ if self.rejoin(record) == rejoin => record,
            _ => self.record(rejoin, mask, 0, record, false),
        };
        self.splits[split] = Split { pc: pc + 1, mask: mask & !taken, record, waiting: Waiting::No };
        self.splits.push(Split { pc: target, mask: taken, record, waiting: Waiting::No });
    }

    /// Calls: the lanes of `mask` go to `target`, and meet the others of the split at `back`.
    pub fn call(&mut self, split: usize, mask: u32, target: u32, back: u32) {
        let Split { mask: all, record, .. } = self.splits[split];
        let record = self.record(back, all, all & !mask, record, true);
        self.splits[split] = Split { pc: target, mask, record, waiting: Waiting::No };
    }

    /// Returns the lanes of `mask` from the innermost call; false where there is none, so that they exit.
    pub fn give_back(&mut self, split: usize, mask: u32) -> bool {
        let record = self.splits[split].record;
        if record == NONE || !self.records[record].call {
            return false;
        }
        self.leave(split, mask);
        self.arrive_at(record, mask);
        true
    }

    pub fn in_call(&self, split: usize) -> bool {
        let mut record = self.splits[split].record;
        while record != NONE {
            if self.records[record].call {
                return true;
            }
            record = self.records[record].parent;
        }
        false
    }

    /// Takes lanes out of a split that goes on at the next instruction, or ends.
    fn leave(&mut self, split: usize, mask: u32) {
        let here = &mut self.splits[split];
        here.mask &= !mask;
        here.pc += 1;
        if here.mask == 0 {
            self.splits.swap_remove(split);
        }
    }

    /// A whole split has come to its point of rejoining.
    pub fn arrive(&mut self, split: usize) {
        let Split { mask, record, .. } = self.splits.swap_remove(split);
        self.arrive_at(record, mask);
    }

    fn arrive_at(&mut self, record: usize, mask: u32) {
        self.records[record].arrived |= mask;
        self.release(record);
    }

    /// Lets the lanes of a complete record go on.
    fn release(&mut self, record: usize) {
        let Record { rejoin, expected, arrived, parent, .. } = self.records[record];
        if expected == 0 {
            self.records[record].used = false;
        } else if arrived == expected {
            self.records[record].used = false;
            self.splits.push(Split { pc: rejoin, mask: expected, record: parent, waiting: Waiting::No });
        }
    }

    /// Lets the lanes that wait at points of rejoining go on by themselves: others may wait for what they do next.
    pub fn part(&mut self) {
        for record in self.records.iter_mut().filter(|record| record.used && record.arrived != 0) {
            let Record { rejoin, arrived, parent, .. } = *record;
            record.expected &= !arrived;
            record.arrived = 0;
            self.splits.push(Split { pc: rejoin, mask: arrived, record: parent, waiting: Waiting::No });
        }
    }

    /// Ends lanes of a split.
    pub fn exit(&mut self, split: usize, mask: u32) {
        self.live &= !mask;
        let mut record = self.splits[split].record;
        self.leave(split, mask);
        while record != NONE {
            let parent = self.records[record].parent;
            self.records[record].expected &= !mask;
            self.release(record);
            record = parent;
        }
    }

    /// The split to run next: the furthest behind of those that can; if `fair`, the one that has waited the longest.
    pub fn choose(&mut self, fair: bool) -> Option<usize> {
        let ready = (0..self.splits.len()).filter(|&at| self.splits[at].waiting == Waiting::No);
        if !fair {
            return ready.min_by_key(|&at| self.splits[at].pc);
        }
        let chosen = ready.min_by_key(|&at| lanes(self.splits[at].mask).map(|lane| self.served[lane]).min())?;
        lanes(self.splits[chosen].mask).for_each(|lane| self.served[lane] = self.steps);
        Some(chosen)
    }

    /// Joins splits that are at the same place under the same record; the position of the given one afterwards.
    pub fn join(&mut self, mut split: usize) -> usize {
        let mut at = 0;
        while at < self.splits.len() {
            let (here, other) = (self.splits[split], self.splits[at]);
            if at != split && other.waiting == Waiting::No && (other.pc, other.record) == (here.pc, here.record) {
                self.splits[split].mask |= other.mask;
                let last = self.splits.len() - 1;
                self.splits.swap_remove(at);
                if split == last {
                    split = at;
                }
            } else {
                at += 1;
            }
        }
        split
    }

    /// The least place among other splits that can run: a split that comes there gives way.
    pub fn limit(&self, split: usize) -> u32 {
        let others = self.splits.iter().enumerate().filter(|(at, other)| *at != split && other.waiting == Waiting::No);
        others.map(|(_, other)| other.pc).min().unwrap_or(NOWHERE)
    }
}
