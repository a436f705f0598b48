//! What launches execute and move.
//!
//! Instructions are those of PTX: what the assembler makes of them is seldom more. Sectors and wavefronts are counted as
//! Nsight Compute counts them; what a first-level cache holds back, and what the second level has to fetch, come from
//! models of caches of the device's sizes, for blocks that run one after another.

use std::fmt::Write;
use std::ops::AddAssign;

use crate::cache::{Cache, SECTOR};

/// Sorts of instructions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
#[repr(u8)]
pub enum Class {
    #[default]
    Other,
    Integer,
    Single,
    Double,
    Half,
    Special,
    Convert,
    Compare,
    Move,
    Control,
    Warp,
    Barrier,
    Tensor,
    Matrix,
    AsyncCopy,
    GlobalLoad,
    GlobalStore,
    Atomic,
    SharedLoad,
    SharedStore,
    Local,
    Constant,
}

impl Class {
    /// Every class, with its name.
    pub const ALL: [(Self, &str); 22] = [
        (Self::Other, "other"),
        (Self::Integer, "integer"),
        (Self::Single, "f32"),
        (Self::Double, "f64"),
        (Self::Half, "half"),
        (Self::Special, "special_function"),
        (Self::Convert, "conversion"),
        (Self::Compare, "compare_select"),
        (Self::Move, "move"),
        (Self::Control, "control"),
        (Self::Warp, "warp"),
        (Self::Barrier, "barrier"),
        (Self::Tensor, "tensor"),
        (Self::Matrix, "matrix_load_store"),
        (Self::AsyncCopy, "async_copy"),
        (Self::GlobalLoad, "global_load"),
        (Self::GlobalStore, "global_store"),
        (Self::Atomic, "atomic"),
        (Self::SharedLoad, "shared_load"),
        (Self::SharedStore, "shared_store"),
        (Self::Local, "local"),
        (Self::Constant, "constant_parameter"),
    ];

    /// The class of an instruction as PTX spells it.
    pub fn of(opcode: &str) -> Self {
        let mut words = opcode.split('.');
        let name = words.next().unwrap_or_default();
        let has = |wanted: &str| words.clone().any(|word| word == wanted);
        let ends = |types: &[&str]| words.clone().any(|word| types.contains(&word));
        match name {
            "mma" | "wmma" => Self::Tensor,
            "ldmatrix" | "stmatrix" => Self::Matrix,
            "cp" => Self::AsyncCopy,
            "atom" | "red" => Self::Atomic,
            "ld" | "ldu" if has("shared") => Self::SharedLoad,
            "st" if has("shared") => Self::SharedStore,
            "ld" | "st" if has("local") => Self::Local,
            "ld" | "st" if has("param") || has("const") => Self::Constant,
            "ld" | "ldu" => Self::GlobalLoad,
            "st" => Self::GlobalStore,
            "bar" | "barrier" => Self::Barrier,
            "shfl" | "vote" | "match" | "redux" | "activemask" | "elect" | "movmatrix" => Self::Warp,
            "bra" | "brx" | "call" | "ret" | "exit" => Self::Control,
            "mov" | "cvta" | "isspacep" => Self::Move,
            "cvt" => Self::Convert,
            "setp" | "set" | "selp" | "slct" | "testp" => Self::Compare,
            "ex2" | "lg2" | "sin" | "cos" | "tanh" => Self::Special,
            "rcp" | "sqrt" | "rsqrt" | "div" if has("approx") || has("full") => Self::Special,
            "add" | "sub" | "mul" | "mad" | "fma" | "div" | "rcp" | "sqrt" | "rsqrt" | "min" | "max" | "abs"
            | "neg" | "copysign" => {
                if has("f32") {
                    Self::Single
                } else if has("f64") {
                    Self::Double
                } else if ends(&["f16", "f16x2", "bf16", "bf16x2"]) {
                    Self::Half
                } else {
                    Self::Integer
                }
            }
            "membar" | "fence" | "nanosleep" | "trap" | "prefetch" | "prefetchu" | "pmevent" => Self::Other,
            _ => Self::Integer,
        }
    }
}

/// Floating-point operations of one thread at an instruction; of a tensor core's, of the whole warp.
pub(crate) fn operations(opcode: &str) -> u32 {
    let class = Class::of(opcode);
    match class {
        Class::Single | Class::Double if opcode.starts_with("fma") || opcode.starts_with("mad") => 2,
        Class::Single | Class::Double if ["add", "sub", "mul"].iter().any(|name| opcode.starts_with(name)) => 1,
        Class::Tensor => {
            let extents = opcode.split('.').find_map(|word| {
                let (m, rest) = word.strip_prefix('m')?.split_once('n')?;
                let (n, k) = rest.split_once('k')?;
                Some(2 * m.parse::<u32>().ok()? * n.parse::<u32>().ok()? * k.parse::<u32>().ok()?)
            });
            extents.unwrap_or(0)
        }
        _ => 0,
    }
}

/// What a launch executed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Instructions of warps, each counted once for all its lanes.
    pub warp_instructions: u64,
    /// Instructions of threads: of a warp's instruction, as many as lanes took part.
    pub thread_instructions: u64,
    /// More, where [`Device::counting`](crate::device::Device::counting) asks for it.
    pub details: Option<Box<Details>>,
}

/// Accesses of one kind to global memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// Instructions of warps.
    pub requests: u64,
    /// Different sectors of 32 bytes that each touched.
    pub sectors: u64,
    /// Threads' accesses.
    pub accesses: u64,
    /// Of these, the ones of 16 bytes.
    pub wide: u64,
}

/// What a launch executed and moved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// Of each class of instructions, warps' and threads'.
    pub classes: [[u64; 2]; Class::ALL.len()],
    /// Branches at which lanes of a warp parted.
    pub divergent_branches: u64,
    /// Floating-point operations on tensor cores, in f32 and in f64; a fused multiply-add is two.
    pub flop: [u64; 3],
    /// Reads from and writes to global memory, atomic operations among the latter.
    pub global: [Requests; 2],
    /// Sectors that the second-level cache delivers, and takes.
    pub l2_sectors: [u64; 2],
    /// Bytes that memory delivers, and takes or will take of what was written here.
    pub dram_bytes: [u64; 2],
    /// Wavefronts of shared memory, and as many as they would be without conflicts of banks.
    pub shared_wavefronts: [u64; 2],
    /// Executions of each instruction of the kernel, by warps and by threads.
    pub executed: Vec<[u64; 2]>,
}

impl AddAssign for Requests {
    fn add_assign(&mut self, other: Self) {
        self.requests += other.requests;
        self.sectors += other.sectors;
        self.accesses += other.accesses;
        self.wide += other.wide;
    }
}

impl AddAssign<&Details> for Details {
    fn add_assign(&mut self, other: &Details) {
        for (class, more) in self.classes.iter_mut().zip(other.classes) {
            class.iter_mut().zip(more).for_each(|(count, more)| *count += more);
        }
        self.executed.resize(self.executed.len().max(other.executed.len()), [0; 2]);
        for (executed, more) in self.executed.iter_mut().zip(&other.executed) {
            executed.iter_mut().zip(more).for_each(|(count, more)| *count += more);
        }
        self.divergent_branches += other.divergent_branches;
        self.flop.iter_mut().zip(other.flop).for_each(|(count, more)| *count += more);
        self.global.iter_mut().zip(other.global).for_each(|(count, more)| *count += more);
        self.l2_sectors.iter_mut().zip(other.l2_sectors).for_each(|(count, more)| *count += more);
        self.dram_bytes.iter_mut().zip(other.dram_bytes).for_each(|(count, more)| *count += more);
        self.shared_wavefronts.iter_mut().zip(other.shared_wavefronts).for_each(|(count, more)| *count += more);
    }
}

impl Details {
    /// Sorts the executions of instructions, of which each has a class and does some floating-point operations.
    pub(crate) fn classify(&mut self, steps: impl Iterator<Item = (Class, u32)>) {
        for ((class, flop), &[warps, threads]) in steps.zip(&self.executed) {
            let counts = &mut self.classes[class as usize];
            *counts = [counts[0] + warps, counts[1] + threads];
            let (of, times) = match class {
                Class::Tensor => (0, warps),
                Class::Double => (2, threads),
                _ => (1, threads),
            };
            self.flop[of] += times * u64::from(flop);
        }
    }
}

impl AddAssign for Counters {
    fn add_assign(&mut self, other: Self) {
        self.warp_instructions += other.warp_instructions;
        self.thread_instructions += other.thread_instructions;
        if let Some(details) = other.details {
            **self.details.get_or_insert_default() += &details;
        }
    }
}

impl Counters {
    /// The members of a JSON object, by the names of Nsight Compute's metrics where these exist.
    pub fn json(&self) -> String {
        let mut text = format!(
            "\"warp_instructions\": {}, \"thread_instructions\": {}",
            self.warp_instructions, self.thread_instructions
        );
        let Some(details) = &self.details else { return text };
        let [tensor, single, double] = details.flop;
        let [load, store] = details.global;
        let [l2_read, l2_write] = details.l2_sectors;
        let [dram_read, dram_write] = details.dram_bytes;
        let [wavefronts, ideal] = details.shared_wavefronts;
        let members = [
            ("smsp__sass_branch_targets_threads_divergent.sum", details.divergent_branches),
            ("tensor_flop", tensor),
            ("f32_flop", single),
            ("f64_flop", double),
            ("l1tex__t_requests_pipe_lsu_mem_global_op_ld.sum", load.requests),
            ("l1tex__t_sectors_pipe_lsu_mem_global_op_ld.sum", load.sectors),
            ("global_load_accesses", load.accesses),
            ("global_load_accesses_of_16_bytes", load.wide),
            ("l1tex__t_requests_pipe_lsu_mem_global_op_st.sum", store.requests),
            ("l1tex__t_sectors_pipe_lsu_mem_global_op_st.sum", store.sectors),
            ("global_store_accesses", store.accesses),
            ("global_store_accesses_of_16_bytes", store.wide),
            ("lts__t_sectors_srcunit_tex_op_read.sum", l2_read),
            ("lts__t_sectors_srcunit_tex_op_write.sum", l2_write),
            ("dram__bytes_read.sum", dram_read),
            ("dram__bytes_write.sum", dram_write),
            ("l1tex__data_pipe_lsu_wavefronts_mem_shared.sum", wavefronts),
            ("shared_wavefronts_without_conflicts", ideal),
        ];
        for (name, value) in members {
            let _ = write!(text, ", \"{name}\": {value}");
        }
        for (of, name) in ["warp_instructions_by_class", "thread_instructions_by_class"].into_iter().enumerate() {
            let classes = Class::ALL.iter().zip(details.classes).filter(|(_, counts)| counts[0] > 0);
            let classes: Vec<String> =
                classes.map(|((_, class), counts)| format!("\"{class}\": {}", counts[of])).collect();
            let _ = write!(text, ", \"{name}\": {{{}}}", classes.join(", "));
        }
        text
    }
}

/// A memory space, for what is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Space {
    Global,
    Shared,
}

/// How a warp accesses memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Access {
    pub space: Space,
    /// Bytes of a lane.
    pub bytes: u64,
    pub write: bool,
    /// Does it pass the first-level cache by?
    pub uncached: bool,
}

/// Counts what a block does.
pub(crate) struct Tally {
    pub details: Details,
    /// The block's part of the first-level cache.
    l1: Cache,
    /// Sectors that go on to the second level, and whether they are written.
    pub beyond: Vec<(u64, bool)>,
}

impl Tally {
    /// With a first-level cache of so many bytes.
    pub fn new(l1: u64) -> Self {
        Self { details: Details::default(), l1: Cache::new(l1), beyond: Vec::new() }
    }

    /// Begins another block, of a program of so many instructions: its part of the cache holds nothing.
    pub fn start(&mut self, steps: usize) {
        self.l1.clear();
        self.details.executed.resize(steps, [0; 2]);
    }

    /// Counts an access of a warp's lanes; `addresses` has those that take part.
    pub fn access(&mut self, access: Access, addresses: &[u64]) {
        match access.space {
            Space::Global => self.global(access, addresses),
            Space::Shared => {
                let [actual, ideal] = wavefronts(access.bytes, addresses);
                self.details.shared_wavefronts[0] += actual;
                self.details.shared_wavefronts[1] += ideal;
            }
        }
    }

    fn global(&mut self, access: Access, addresses: &[u64]) {
        let of = |address: &u64| address / SECTOR..=(address + access.bytes - 1) / SECTOR;
        let mut sectors: Vec<u64> = addresses.iter().flat_map(of).collect();
        sectors.sort_unstable();
        sectors.dedup();
        let requests = &mut self.details.global[usize::from(access.write)];
        let lanes = addresses.len() as u64;
        requests.requests += 1;
        requests.sectors += sectors.len() as u64;
        requests.accesses += lanes;
        requests.wide += if access.bytes == 16 { lanes } else { 0 };
        for sector in sectors {
            // Writes go through.
            if access.write || access.uncached || !self.l1.access(sector, false).hit {
                self.beyond.push((sector, access.write));
                self.details.l2_sectors[usize::from(access.write)] += 1;
            }
        }
    }

    /// Passes what goes on to the second level.
    pub fn pass(&mut self, l2: &mut Cache) {
        for (sector, write) in self.beyond.drain(..) {
            let outcome = l2.access(sector, write);
            self.details.dram_bytes[0] += if outcome.hit || write { 0 } else { SECTOR };
            self.details.dram_bytes[1] += if outcome.dirtied { SECTOR } else { 0 };
        }
    }
}

/// Wavefronts of an access to shared memory, and as many as they are where no bank is asked for two words. Lanes go
/// together as far as 128 bytes reach: all for words, half of them for 8 bytes each, a quarter for 16.
fn wavefronts(bytes: u64, addresses: &[u64]) -> [u64; 2] {
    let (mut actual, mut ideal) = (0, 0);
    let together = (128 / bytes.max(4)) as usize;
    for lanes in addresses.chunks(together) {
        let words = lanes.iter().flat_map(|address| address / 4..=(address + bytes.max(1) - 1) / 4);
        let mut words: Vec<u64> = words.collect();
        words.sort_unstable();
        words.dedup();
        let mut banks = [0u64; 32];
        words.iter().for_each(|word| banks[(word % 32) as usize] += 1);
        actual += banks.into_iter().max().unwrap_or(0);
        ideal += 1;
    }
    [actual, ideal]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_follow_from_the_name() {
        let cases = [
            ("fma.rn.f32", Class::Single, 2),
            ("add.f64", Class::Double, 1),
            ("mad.lo.s32", Class::Integer, 0),
            ("fma.rn.f16x2", Class::Half, 0),
            ("ex2.approx.ftz.f32", Class::Special, 0),
            ("sqrt.rn.f32", Class::Single, 0),
            ("ld.global.v4.f32", Class::GlobalLoad, 0),
            ("ld.shared.u32", Class::SharedLoad, 0),
            ("ld.param.u64", Class::Constant, 0),
            ("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32", Class::Tensor, 4096),
            ("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32", Class::Tensor, 2048),
            ("cp.async.cg.shared.global", Class::AsyncCopy, 0),
            ("shfl.sync.bfly.b32", Class::Warp, 0),
        ];
        for (opcode, class, flop) in cases {
            assert_eq!((Class::of(opcode), operations(opcode)), (class, flop), "{opcode}");
        }
        assert!(Class::ALL.iter().zip(0..).all(|((class, _), number)| *class as u8 == number));
    }

    #[test]
    fn wavefronts_are_the_fullest_bank_s() {
        let lanes = |stride: u64| -> Vec<u64> { (0..32).map(|lane| lane * stride).collect() };
        assert_eq!(wavefronts(4, &lanes(4)), [1, 1]);
        assert_eq!(wavefronts(4, &lanes(8)), [2, 1]);
        assert_eq!(wavefronts(4, &lanes(128)), [32, 1]);
        assert_eq!(wavefronts(4, &lanes(0)), [1, 1]);
        assert_eq!(wavefronts(2, &lanes(2)), [1, 1]);
        assert_eq!(wavefronts(8, &lanes(8)), [2, 2]);
        assert_eq!(wavefronts(16, &lanes(16)), [4, 4]);
        assert_eq!(wavefronts(16, &lanes(128)), [32, 4]);
        // Rows of 144 bytes: eight in turn meet different banks.
        assert_eq!(wavefronts(16, &lanes(144)), [4, 4]);
    }

    #[test]
    fn sectors_are_counted_once_a_request_and_kept() {
        let mut tally = Tally::new(64 << 10);
        let read = Access { space: Space::Global, bytes: 4, write: false, uncached: false };
        let lanes = |start: u64, stride: u64| -> Vec<u64> { (0..32).map(|lane| start + lane * stride).collect() };
        tally.access(read, &lanes(4096, 4));
        tally.access(read, &lanes(4096, 4));
        tally.access(Access { bytes: 16, ..read }, &lanes(8192, 16));
        tally.access(Access { uncached: true, ..read }, &lanes(4096, 4));
        tally.access(Access { write: true, ..read }, &lanes(4096, 4));
        let [load, store] = tally.details.global;
        assert_eq!(load, Requests { requests: 4, sectors: 4 + 4 + 16 + 4, accesses: 128, wide: 32 });
        assert_eq!(store, Requests { requests: 1, sectors: 4, accesses: 32, wide: 0 });
        assert_eq!(tally.details.l2_sectors, [4 + 16 + 4, 4]);
        tally.pass(&mut Cache::new(1 << 20));
        assert_eq!(tally.details.dram_bytes, [20 * 32, 4 * 32]);
    }
}
