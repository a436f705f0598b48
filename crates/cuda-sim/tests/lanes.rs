//! Which lane and register holds which element: mma, ldmatrix, stmatrix and shfl against the tables of the PTX ISA.
//!
//! The tables are written out below as data, with the section they come from (numbered as in PTX ISA 9.2). A kernel and
//! an interpreter that share a misreading agree with each other, so the tables are compared with a second source first:
//! the layouts in CuTe's `MMA_Traits` and `Copy_Traits` (CUTLASS, `include/cute/atom/`, `mma_traits_sm80.hpp`,
//! `copy_traits_sm75.hpp` and `copy_traits_sm90.hpp`), and for shfl the `__shfl_*_sync` functions of the CUDA C++
//! programming guide. Then kernels that do little else are driven with one-hot matrices against matrices of distinct
//! numbers: two swapped lanes, registers or halves of a register cannot cancel.

#![allow(clippy::unwrap_used)]

use std::fmt::Write;

use cudrift_sim::device::{Device, Profile};
use cudrift_sim::launch::{Args, Launch, run};
use cudrift_sim::program::Program;

const LANES: usize = 32;

/// Places of the elements of a fragment. One index of the matrix goes with the group of four lanes, the other with the
/// lane's place in its group: for element i of lane l, `groupID = l >> 2` and `threadID_in_group = l % 4` give
/// `groupID + group[i]` and `threadID_in_group * step + inner[i]`.
struct Table {
    section: &'static str,
    step: usize,
    group: &'static [usize],
    inner: &'static [usize],
}

impl Table {
    /// The place of element `i` of `lane`: the index that goes with the group, and the other.
    fn place(&self, lane: usize, i: usize) -> (usize, usize) {
        ((lane >> 2) + self.group[i], lane % 4 * self.step + self.inner[i])
    }
}

// Multiplicand A, rows with the group: "row = groupID for a0 and a1, groupID + 8 for a2 and a3; col =
// threadID_in_group * 2 + (i & 0x1)".
const A_1688_HALF: Table = Table {
    section: "9.7.14.5.7 Matrix Fragments for mma.m16n8k8, A, .f16 and .bf16",
    step: 2,
    group: &[0, 0, 8, 8],
    inner: &[0, 1, 0, 1],
};
// "row = (threadID_in_group * 2) + i; col = groupID".
const B_1688_HALF: Table = Table {
    section: "9.7.14.5.7 Matrix Fragments for mma.m16n8k8, B, .f16 and .bf16",
    step: 2,
    group: &[0, 0],
    inner: &[0, 1],
};
// "row = groupID for a0 and a2, groupID + 8 for a1 and a3; col = threadID_in_group for a0 and a1, threadID_in_group + 4
// for a2 and a3".
const A_1688_TF32: Table = Table {
    section: "9.7.14.5.7 Matrix Fragments for mma.m16n8k8, A, .tf32",
    step: 1,
    group: &[0, 8, 0, 8],
    inner: &[0, 0, 4, 4],
};
// "row = threadID_in_group for b0, threadID_in_group + 4 for b1; col = groupID".
const B_1688_TF32: Table =
    Table { section: "9.7.14.5.7 Matrix Fragments for mma.m16n8k8, B, .tf32", step: 1, group: &[0, 0], inner: &[0, 4] };
// "row = groupID for 0 <= i < 2 || 4 <= i < 6, groupID + 8 otherwise; col = (threadID_in_group * 2) + (i & 0x1) for
// i < 4, that + 8 for i >= 4".
const A_16816: Table = Table {
    section: "9.7.14.5.8 Matrix Fragments for mma.m16n8k16 with floating point type, A, .f16 and .bf16",
    step: 2,
    group: &[0, 0, 8, 8, 0, 0, 8, 8],
    inner: &[0, 1, 0, 1, 8, 9, 8, 9],
};
// "row = (threadID_in_group * 2) + (i & 0x1) for i < 2, that + 8 for i >= 2; col = groupID".
const B_16816: Table = Table {
    section: "9.7.14.5.8 Matrix Fragments for mma.m16n8k16 with floating point type, B, .f16 and .bf16",
    step: 2,
    group: &[0, 0, 0, 0],
    inner: &[0, 1, 8, 9],
};
// "row = groupID for i < 2, groupID + 8 for i >= 2; col = (threadID_in_group * 2) + (i & 0x1)".
const C_16_8: Table = Table {
    section: "9.7.14.5.7 and 9.7.14.5.8, accumulators C and D, .f16 and .f32",
    step: 2,
    group: &[0, 0, 8, 8],
    inner: &[0, 1, 0, 1],
};

/// A thread-value layout of CuTe: `Layout<Shape<Shape<_4, _8>, values>, Stride<threads, values>>`, which maps to the
/// column-major index of a matrix whose first mode has `extent` elements: M of A, N of B, M of C.
struct Cute {
    extent: usize,
    threads: [usize; 2],
    /// Shape and stride of each mode of the values.
    values: &'static [(usize, usize)],
}

impl Cute {
    /// The place of value `v` of `lane`: the index of the first mode, and of the second.
    fn place(&self, lane: usize, v: usize) -> (usize, usize) {
        let threads = lane % 4 * self.threads[0] + lane / 4 * self.threads[1];
        let (index, _) = self
            .values
            .iter()
            .fold((threads, v), |(index, rest), (shape, stride)| (index + rest % shape * stride, rest / shape));
        (index % self.extent, index / self.extent)
    }
}

// SM80_16x8_Row.
const CUTE_16X8_ROW: Cute = Cute { extent: 16, threads: [32, 1], values: &[(2, 16), (2, 8)] };
// SM80_8x8_Row.
const CUTE_8X8_ROW: Cute = Cute { extent: 8, threads: [16, 1], values: &[(2, 8)] };
// MMA_Traits<SM80_16x8x16_F16F16F16F16_TN>::ALayout and BLayout.
const CUTE_A_16816: Cute = Cute { extent: 16, threads: [32, 1], values: &[(2, 16), (2, 8), (2, 128)] };
const CUTE_B_16816: Cute = Cute { extent: 8, threads: [16, 1], values: &[(2, 8), (2, 64)] };
// MMA_Traits<SM80_16x8x8_F32TF32TF32F32_TN>::ALayout and BLayout.
const CUTE_A_1688_TF32: Cute = Cute { extent: 16, threads: [16, 1], values: &[(2, 8), (2, 64)] };
const CUTE_B_1688_TF32: Cute = Cute { extent: 8, threads: [8, 1], values: &[(2, 32)] };

/// An element as registers hold it; the numbers of these tests are exact in each.
#[derive(Clone, Copy, PartialEq)]
enum Format {
    F16,
    Bf16,
    /// f32, and tf32, which has its bits.
    F32,
}

impl Format {
    fn per_register(self) -> usize {
        if self == Self::F32 { 1 } else { 2 }
    }

    fn encode(self, x: f32) -> u32 {
        let bits = x.to_bits();
        match self {
            Self::F32 => bits,
            Self::Bf16 => bits >> 16,
            Self::F16 if x == 0.0 => bits >> 16,
            // The exponent's bias is 15 in place of 127.
            Self::F16 => (bits >> 16 & 0x8000) | ((bits >> 13 & 0x3_ffff) - (112 << 10)),
        }
    }

    fn decode(self, bits: u32) -> f32 {
        match self {
            Self::F32 => f32::from_bits(bits),
            Self::Bf16 => f32::from_bits(bits << 16),
            Self::F16 if bits & 0x7fff == 0 => f32::from_bits(bits << 16),
            Self::F16 => f32::from_bits((bits & 0x8000) << 16 | ((bits & 0x7fff) + (112 << 10)) << 13),
        }
    }
}

/// One form of mma.
struct Mma {
    opcode: &'static str,
    k: usize,
    operand: Format,
    accumulator: Format,
    a: &'static Table,
    b: &'static Table,
    cute_a: &'static Cute,
    cute_b: &'static Cute,
}

const M: usize = 16;
const N: usize = 8;

const MMAS: [Mma; 7] = [
    half("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32", 8, Format::F16, Format::F32),
    half("mma.sync.aligned.m16n8k8.row.col.f16.f16.f16.f16", 8, Format::F16, Format::F16),
    half("mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32", 8, Format::Bf16, Format::F32),
    half("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32", 16, Format::F16, Format::F32),
    half("mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16", 16, Format::F16, Format::F16),
    half("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32", 16, Format::Bf16, Format::F32),
    Mma {
        opcode: "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32",
        k: 8,
        operand: Format::F32,
        accumulator: Format::F32,
        a: &A_1688_TF32,
        b: &B_1688_TF32,
        cute_a: &CUTE_A_1688_TF32,
        cute_b: &CUTE_B_1688_TF32,
    },
];

const fn half(opcode: &'static str, k: usize, operand: Format, accumulator: Format) -> Mma {
    let (a, b, cute_a, cute_b) = if k == 16 {
        (&A_16816, &B_16816, &CUTE_A_16816, &CUTE_B_16816)
    } else {
        (&A_1688_HALF, &B_1688_HALF, &CUTE_16X8_ROW, &CUTE_8X8_ROW)
    };
    Mma { opcode, k, operand, accumulator, a, b, cute_a, cute_b }
}

#[test]
fn both_sources_describe_the_same_fragments() {
    let tables = MMAS.iter().flat_map(|mma| [(mma.a, mma.cute_a, M, mma.k), (mma.b, mma.cute_b, N, mma.k)]);
    for (table, cute, rows, cols) in tables.chain([(&C_16_8, &CUTE_16X8_ROW, M, N)]) {
        let elements = table.group.len();
        let mut held = vec![false; rows * cols];
        for (lane, i) in (0..LANES).flat_map(|lane| (0..elements).map(move |i| (lane, i))) {
            let (row, col) = table.place(lane, i);
            assert_eq!((row, col), cute.place(lane, i), "{}: lane {lane}, element {i}", table.section);
            assert!(!std::mem::replace(&mut held[row * cols + col], true), "{}: held twice", table.section);
        }
        assert!(held.into_iter().all(|held| held), "{}: held by no lane", table.section);
    }
}

/// A device, and what a test does with it.
struct Gpu(Device);

impl Gpu {
    fn new(arch: u32) -> Self {
        Self(Device::new(Profile::of(arch).unwrap()))
    }

    /// Runs `kernel` of `text` in blocks of one warp: addresses of the inputs and of the output, `words` long, are its
    /// parameters.
    fn run(&self, text: &str, blocks: usize, inputs: &[Vec<u32>], words: usize) -> Vec<u32> {
        let memory = &self.0.memory;
        let bytes = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
        let mut args = Args::new();
        for input in inputs {
            let at = memory.alloc(input.len() as u64 * 4).unwrap();
            memory.write(at, &bytes(input)).unwrap();
            args = args.u64(at);
        }
        let output = memory.alloc(words as u64 * 4).unwrap();
        let args = args.u64(output);
        let program = Program::load(&self.0, text).unwrap_or_else(|error| panic!("{error:?}\n{text}"));
        let launch = Launch {
            kernel: program.kernel("kernel").unwrap(),
            grid: [blocks as u32, 1, 1],
            block: [LANES as u32, 1, 1],
            shared: 0,
            params: args.as_bytes(),
            cooperative: false,
        };
        run(&self.0, &launch).unwrap_or_else(|finding| panic!("{finding}\n{text}"));
        let mut raw = vec![0; words * 4];
        memory.read(output, &mut raw).unwrap();
        raw.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect()
    }
}

/// The text of a kernel with `parameters` addresses p0, p1, ..., which begins with the lane in `%lane` and the number
/// of the thread in the grid in `%thread`.
fn kernel(arch: u32, parameters: usize, body: &str) -> String {
    let list: Vec<_> = (0..parameters).map(|index| format!(".param .u64 p{index}")).collect();
    format!(
        ".version 7.8\n.target sm_{arch}\n.address_size 64\n.visible .entry kernel({})\n{{\n\
         .reg .b32 %lane, %block, %thread;\n.reg .b64 %address, %offset;\n\
         mov.u32 %lane, %tid.x;\nmov.u32 %block, %ctaid.x;\nmad.lo.u32 %thread, %block, {LANES}, %lane;\n\
         {body}ret;\n}}\n",
        list.join(", ")
    )
}

/// Leaves in `%address` the address of the thread's `words` words of array `parameter`.
fn own(parameter: usize, words: usize) -> String {
    format!(
        "ld.param.u64 %address, [p{parameter}];\ncvta.to.global.u64 %address, %address;\n\
         mul.wide.u32 %offset, %thread, {};\nadd.s64 %address, %address, %offset;\n",
        words * 4
    )
}

/// A list of registers, in braces.
fn registers(name: &str, count: usize) -> String {
    let list: Vec<_> = (0..count).map(|index| format!("%{name}{index}")).collect();
    format!("{{{}}}", list.join(", "))
}

impl Mma {
    /// Registers of a fragment.
    fn registers(table: &Table, format: Format) -> usize {
        table.group.len() / format.per_register()
    }

    /// Loads each lane's registers of A, B and C, multiplies, and stores those of D.
    fn text(&self) -> String {
        let counts = [Self::registers(self.a, self.operand), Self::registers(self.b, self.operand)];
        let sums = Self::registers(&C_16_8, self.accumulator);
        let sum = if self.accumulator == Format::F32 { "f32" } else { "b32" };
        let mut body = String::new();
        let operands = [("a", "b32", counts[0]), ("b", "b32", counts[1]), ("c", sum, sums), ("d", sum, sums)];
        for (parameter, (name, kind, count)) in operands.into_iter().enumerate() {
            writeln!(body, ".reg .{kind} %{name}<{count}>;").unwrap();
            if name == "d" {
                let lists = [("d", sums), ("a", counts[0]), ("b", counts[1]), ("c", sums)];
                let lists = lists.map(|(name, count)| registers(name, count));
                writeln!(body, "{} {};", self.opcode, lists.join(", ")).unwrap();
            }
            body += &own(parameter, count);
            for index in 0..count {
                let offset = index * 4;
                if name == "d" {
                    writeln!(body, "st.global.{kind} [%address+{offset}], %d{index};").unwrap();
                } else {
                    writeln!(body, "ld.global.{kind} %{name}{index}, [%address+{offset}];").unwrap();
                }
            }
        }
        kernel(80, 4, &body)
    }

    /// The registers of all lanes that hold a matrix, given by the index that goes with the group and the other.
    fn pack(table: &Table, format: Format, value: impl Fn(usize, usize) -> f32) -> Vec<u32> {
        let per_register = format.per_register();
        let mut words = Vec::new();
        for lane in 0..LANES {
            for register in 0..Self::registers(table, format) {
                // "Elements (low to high)".
                words.push((0..per_register).fold(0, |word, part| {
                    let (group, inner) = table.place(lane, register * per_register + part);
                    word | format.encode(value(group, inner)) << (16 * part)
                }));
            }
        }
        words
    }

    /// Row-major D from the registers of all lanes.
    fn unpack(&self, words: &[u32]) -> Vec<f32> {
        let per_register = self.accumulator.per_register();
        let mut d = vec![f32::NAN; M * N];
        for (lane, registers) in words.chunks_exact(4 / per_register).enumerate() {
            for i in 0..4 {
                let (row, col) = C_16_8.place(lane, i);
                let word = registers[i / per_register] >> (16 * (i % per_register));
                d[row * N + col] = self.accumulator.decode(if per_register == 2 { word & 0xffff } else { word });
            }
        }
        d
    }

    /// D of each case, row-major, from row-major A, B and C.
    fn products(&self, cases: &[[Vec<f32>; 3]]) -> Vec<Vec<f32>> {
        let k = self.k;
        let mut inputs = [Vec::new(), Vec::new(), Vec::new()];
        for [a, b, c] in cases {
            inputs[0].extend(Self::pack(self.a, self.operand, |row, col| a[row * k + col]));
            // The group goes with the columns of B.
            inputs[1].extend(Self::pack(self.b, self.operand, |col, row| b[row * N + col]));
            inputs[2].extend(Self::pack(&C_16_8, self.accumulator, |row, col| c[row * N + col]));
        }
        let words = LANES * Self::registers(&C_16_8, self.accumulator);
        let output = Gpu::new(80).run(&self.text(), cases.len(), &inputs, cases.len() * words);
        output.chunks_exact(words).map(|words| self.unpack(words)).collect()
    }
}

fn one_hot(len: usize, at: usize) -> Vec<f32> {
    (0..len).map(|index| f32::from(u8::from(index == at))).collect()
}

/// `len` numbers from `first` on.
fn distinct(first: usize, len: usize) -> Vec<f32> {
    (first..first + len).map(|x| x as f32).collect()
}

#[test]
fn mma_with_one_hot_a() {
    for mma in &MMAS {
        let (b, c) = (distinct(1, mma.k * N), distinct(512, M * N));
        let cases: Vec<_> = (0..M * mma.k).map(|at| [one_hot(M * mma.k, at), b.clone(), c.clone()]).collect();
        for (at, d) in mma.products(&cases).into_iter().enumerate() {
            let (i, l) = (at / mma.k, at % mma.k);
            for (place, got) in d.into_iter().enumerate() {
                let (row, col) = (place / N, place % N);
                let want = c[place] + if row == i { b[l * N + col] } else { 0.0 };
                assert_eq!(got, want, "{}: A is 1 at ({i}, {l}), D at ({row}, {col})", mma.opcode);
            }
        }
    }
}

#[test]
fn mma_with_one_hot_b() {
    for mma in &MMAS {
        let (a, c) = (distinct(1, M * mma.k), distinct(512, M * N));
        let cases: Vec<_> = (0..mma.k * N).map(|at| [a.clone(), one_hot(mma.k * N, at), c.clone()]).collect();
        for (at, d) in mma.products(&cases).into_iter().enumerate() {
            let (l, j) = (at / N, at % N);
            for (place, got) in d.into_iter().enumerate() {
                let (row, col) = (place / N, place % N);
                let want = c[place] + if col == j { a[row * mma.k + l] } else { 0.0 };
                assert_eq!(got, want, "{}: B is 1 at ({l}, {j}), D at ({row}, {col})", mma.opcode);
            }
        }
    }
}

#[test]
fn mma_sums_over_k() {
    for mma in &MMAS {
        // Small whole numbers, of which every sum is exact in every format.
        let numbers = |len: usize, factor: usize| (0..len).map(|x| (x * factor % 7) as f32 - 3.0).collect::<Vec<_>>();
        let (a, b, c) = (numbers(M * mma.k, 5), numbers(mma.k * N, 11), numbers(M * N, 3));
        let d = &mma.products(&[[a.clone(), b.clone(), c.clone()]])[0];
        for (place, got) in d.iter().enumerate() {
            let (row, col) = (place / N, place % N);
            let ab: f32 = (0..mma.k).map(|l| a[row * mma.k + l] * b[l * N + col]).sum();
            assert_eq!(*got, ab + c[place], "{}: D at ({row}, {col})", mma.opcode);
        }
    }
}

/// 9.7.14.5.15 ldmatrix, Figure 104: "A group of four threads loads an entire row of the matrix", thread 0 the first
/// fragment of two elements; and ".trans indicates that the matrix is loaded in column-major format". Row and column of
/// the lower (0) or upper (1) half of a lane's register.
fn ldmatrix_place(transposed: bool, lane: usize, half: usize) -> (usize, usize) {
    let (row, col) = (lane / 4, lane % 4 * 2 + half);
    if transposed { (col, row) } else { (row, col) }
}

#[test]
fn both_sources_describe_the_same_ldmatrix() {
    // Copy_Traits<SM75_U32x4_LDSM_N>::DstLayout is Layout<Shape<_32, Shape<_32, _4>>, Stride<_32, Stride<_1, _1024>>>,
    // and Copy_Traits<SM75_U16x8_LDSM_T>::DstLayout is Layout<Shape<Shape<_4, _8>, Shape<_16, _2, _4>>,
    // Stride<Stride<_256, _16>, Stride<_1, _128, _1024>>>, both from thread and value to the bit of the source, of
    // which 16 are an element, 128 a row and 1024 a matrix.
    for lane in 0..LANES {
        for matrix in 0..4 {
            for half in 0..2 {
                let plain = lane * 32 + half * 16 + matrix * 1024;
                let transposed = lane % 4 * 256 + lane / 4 * 16 + half * 128 + matrix * 1024;
                for (trans, bit) in [(false, plain), (true, transposed)] {
                    assert_eq!(bit / 1024, matrix);
                    assert_eq!((bit % 1024 / 128, bit % 128 / 16), ldmatrix_place(trans, lane, half));
                }
            }
        }
    }
}

/// Rows of eight halves in shared memory, more than any form loads or stores.
const SLOTS: usize = 48;
const WORDS: usize = SLOTS * 4;

/// Where the rows of the matrices lie: "Consecutive instances of row need not be stored contiguously in memory".
fn slot(row: usize) -> usize {
    (row * 29 + 7) % SLOTS
}

/// The offset of the row that each lane gives: "Addresses addr0–addr7 correspond to the rows of the first matrix,
/// addresses addr8–addr15 correspond to the rows of the second matrix, and so on". Lanes past the last row point
/// outside, for from sm_80 on their addresses are not used.
fn rows(matrices: usize) -> Vec<u32> {
    (0..LANES).map(|lane| if lane < 8 * matrices { slot(lane) as u32 * 16 } else { 0x7fff_fff0 }).collect()
}

/// Copies array `parameter` to the slots, or the slots to it.
fn copy_slots(parameter: usize, out: bool) -> String {
    let mut body = own(parameter, 1);
    body += "mov.u32 %place, tile;\nmad.lo.u32 %place, %lane, 4, %place;\n";
    for offset in (0..WORDS * 4).step_by(LANES * 4) {
        let (global, shared) = (format!("[%address+{offset}]"), format!("[%place+{offset}]"));
        body += &if out {
            format!("ld.shared.b32 %word, {shared};\nst.global.b32 {global}, %word;\n")
        } else {
            format!("ld.global.b32 %word, {global};\nst.shared.b32 {shared}, %word;\n")
        };
    }
    body
}

/// Fills the slots from array 0, and leaves in `%place` the address of the row that the lane gives by array 1.
fn filled_slots() -> String {
    let mut body = format!(".shared .align 16 .b8 tile[{}];\n.reg .b32 %d<4>, %word, %place, %row;\n", SLOTS * 16);
    body += &copy_slots(0, false);
    body += "bar.sync 0;\n";
    body += &own(1, 1);
    body + "ld.global.b32 %row, [%address];\nmov.u32 %place, tile;\nadd.s32 %place, %place, %row;\n"
}

/// Every form of ldmatrix and stmatrix for halves: the number of matrices, and whether they are transposed.
fn forms() -> impl Iterator<Item = (usize, bool, String)> {
    let name =
        |count: usize, transposed: bool| format!("m8n8.x{count}{}.shared.b16", if transposed { ".trans" } else { "" });
    [1, 2, 4].into_iter().flat_map(move |count| [false, true].map(|trans| (count, trans, name(count, trans))))
}

/// Two halves in each word, `first + 1` and so on.
fn distinct_halves(first: u32, words: usize) -> Vec<u32> {
    (0..words as u32).map(|word| (first + 2 * word + 1) | (first + 2 * word + 2) << 16).collect()
}

#[test]
fn ldmatrix_of_distinct_elements() {
    for (matrices, transposed, form) in forms() {
        let mut body = filled_slots();
        writeln!(body, "ldmatrix.sync.aligned.{form} {}, [%place];", registers("d", matrices)).unwrap();
        body += &own(2, matrices);
        for index in 0..matrices {
            writeln!(body, "st.global.b32 [%address+{}], %d{index};", index * 4).unwrap();
        }
        let inputs = [distinct_halves(0, WORDS), rows(matrices)];
        let output = Gpu::new(80).run(&kernel(80, 3, &body), 1, &inputs, LANES * matrices);
        for (place, got) in output.into_iter().enumerate() {
            let (lane, matrix) = (place / matrices, place % matrices);
            let want = [0, 1].map(|half| {
                let (row, col) = ldmatrix_place(transposed, lane, half);
                slot(8 * matrix + row) * 8 + col + 1
            });
            assert_eq!([got & 0xffff, got >> 16], want.map(|x| x as u32), "{form}: lane {lane}, register {matrix}");
        }
    }
}

#[test]
fn stmatrix_of_distinct_elements() {
    // "Each thread in a warp stores fragments of a row", as ldmatrix loads them; CuTe's SM90_U32x4_STSM_N and
    // SM90_U16x8_STSM_T are the layouts of its ldmatrix the other way round.
    for (matrices, transposed, form) in forms() {
        let mut body = filled_slots() + &own(2, matrices);
        for index in 0..matrices {
            writeln!(body, "ld.global.b32 %d{index}, [%address+{}];", index * 4).unwrap();
        }
        writeln!(body, "stmatrix.sync.aligned.{form} [%place], {};\nbar.sync 0;", registers("d", matrices)).unwrap();
        body += &copy_slots(3, true);
        let held = distinct_halves(1000, LANES * matrices);
        let before = distinct_halves(0, WORDS);
        let inputs = [before.clone(), rows(matrices), held.clone()];
        let output = Gpu::new(90).run(&kernel(90, 4, &body), 1, &inputs, WORDS);
        let halves = |words: &[u32]| words.iter().flat_map(|word| [word & 0xffff, word >> 16]).collect::<Vec<_>>();
        let (mut want, held) = (halves(&before), halves(&held));
        for (place, value) in held.into_iter().enumerate() {
            let (lane, matrix) = (place / 2 / matrices, place / 2 % matrices);
            let (row, col) = ldmatrix_place(transposed, lane, place % 2);
            want[slot(8 * matrix + row) * 8 + col] = value;
        }
        assert_eq!(halves(&output), want, "{form}");
    }
}

#[test]
fn movmatrix_of_distinct_elements() {
    // "Each thread in a warp holds a fragment of a row of the input matrix", and of "a column of the result matrix".
    let mut body = own(0, 1) + ".reg .b32 %a, %d;\nld.global.b32 %a, [%address];\n";
    body += "movmatrix.sync.aligned.m8n8.trans.b16 %d, %a;\n";
    body += &own(1, 1);
    body += "st.global.b32 [%address], %d;\n";
    let output = Gpu::new(80).run(&kernel(80, 2, &body), 1, &[distinct_halves(0, LANES)], LANES);
    for (lane, got) in output.into_iter().enumerate() {
        let want = [0, 1].map(|half| {
            let (row, col) = ldmatrix_place(true, lane, half);
            row * 8 + col + 1
        });
        assert_eq!([got & 0xffff, got >> 16], want.map(|x| x as u32), "lane {lane}");
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Shuffle {
    Up,
    Down,
    Bfly,
    Idx,
}

impl Shuffle {
    const ALL: [Self; 4] = [Self::Up, Self::Down, Self::Bfly, Self::Idx];

    /// Data Movement and Conversion Instructions, shfl.sync, Semantics: the lane that `lane` reads and its predicate,
    /// for operands b and c.
    fn source(self, lane: u32, b: u32, c: u32) -> (u32, bool) {
        let (bval, cval, segmask) = (b & 31, c & 31, c >> 8 & 31);
        let max_lane = (lane & segmask) | (cval & !segmask);
        let min_lane = lane & segmask;
        let (lane, bval, max_lane) = (lane as i32, bval as i32, max_lane as i32);
        let (j, pval) = match self {
            Self::Up => (lane - bval, lane - bval >= max_lane),
            Self::Down => (lane + bval, lane + bval <= max_lane),
            Self::Bfly => (lane ^ bval, lane ^ bval <= max_lane),
            Self::Idx => {
                let j = (min_lane | (bval as u32 & !segmask)) as i32;
                (j, j <= max_lane)
            }
        };
        if pval { (j as u32, true) } else { (lane as u32, false) }
    }

    /// The lane that `lane` reads in `__shfl_*_sync(mask, var, operand, width)`, by the CUDA C++ programming guide,
    /// "Warp Shuffle Functions": each subsection of `width` lanes is a separate entity with a starting logical lane of
    /// 0; __shfl_sync takes its operand modulo width; up and down do not wrap around, so the lower or upper lanes stay
    /// unchanged; xor within the guide's text may read lower subsections, but not later ones.
    fn documented(self, lane: u32, operand: u32, width: u32) -> u32 {
        let (start, own) = (lane / width * width, lane % width);
        match self {
            Self::Up => {
                if own >= operand {
                    lane - operand
                } else {
                    lane
                }
            }
            Self::Down => {
                if own + operand < width {
                    lane + operand
                } else {
                    lane
                }
            }
            Self::Bfly => {
                if (lane ^ operand) < start + width {
                    lane ^ operand
                } else {
                    lane
                }
            }
            Self::Idx => start + operand % width,
        }
    }

    /// Operand c of the function with that width.
    fn control(self, width: u32) -> u32 {
        (LANES as u32 - width) << 8 | if self == Self::Up { 0 } else { 31 }
    }
}

const WIDTHS: [u32; 6] = [1, 2, 4, 8, 16, 32];

#[test]
fn both_sources_describe_the_same_shuffles() {
    for mode in Shuffle::ALL {
        for width in WIDTHS {
            for (lane, operand) in (0..32).flat_map(|lane| (0..32).map(move |operand| (lane, operand))) {
                let (from, _) = mode.source(lane, operand, mode.control(width));
                assert_eq!(from, mode.documented(lane, operand, width), "{mode:?} {width} {lane} {operand}");
            }
        }
    }
}

#[test]
fn shfl_by_every_operand_clamp_and_segment() {
    for mode in Shuffle::ALL {
        let name = format!("{mode:?}").to_lowercase();
        let mut body = String::from(".reg .b32 %a, %b, %c, %d, %p;\n.reg .pred %in;\n");
        for (parameter, name) in ["a", "b", "c"].into_iter().enumerate() {
            body += &own(parameter, 1);
            writeln!(body, "ld.global.b32 %{name}, [%address];").unwrap();
        }
        writeln!(body, "shfl.sync.{name}.b32 %d|%in, %a, %b, %c, 0xffffffff;\nselp.u32 %p, 1, 0, %in;").unwrap();
        body += &own(3, 2);
        body += "st.global.b32 [%address], %d;\nst.global.b32 [%address+4], %p;\n";
        // Uniform operands as the functions pass them, then every lane its own, with bits that are to be ignored.
        let mut cases: Vec<[(u32, u32); LANES]> = Vec::new();
        for width in WIDTHS {
            cases.extend((0..32).map(|operand| [(operand, mode.control(width)); LANES]));
        }
        let mut state = 1_u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.rotate_right(8)
        };
        for clamp in 0..32 {
            for segment in [0, 0x10, 0x18, 0x1c, 0x1e, 0x1f, 0x05] {
                cases.push([0; LANES].map(|_| (random(), random() & !0x1f1f | segment << 8 | clamp)));
            }
        }
        let values: Vec<_> = (0..cases.len() * LANES).map(|thread| 0x5000_0000 + thread as u32).collect();
        let pick = |pick: fn(&(u32, u32)) -> u32| cases.iter().flatten().map(pick).collect::<Vec<_>>();
        let inputs = [values.clone(), pick(|case| case.0), pick(|case| case.1)];
        let output = Gpu::new(80).run(&kernel(80, 4, &body), cases.len(), &inputs, 2 * values.len());
        for (thread, got) in output.as_chunks::<2>().0.iter().enumerate() {
            let (block, lane) = (thread / LANES, thread % LANES);
            let (b, c) = cases[block][lane];
            let (from, within) = mode.source(lane as u32, b, c);
            let want = [values[block * LANES + from as usize], within.into()];
            assert_eq!(*got, want, "shfl.{name}: lane {lane}, b {b:#x}, c {c:#x}");
        }
    }
}

#[test]
fn shfl_with_immediate_operands_and_without_a_predicate() {
    let mut body = String::from(".reg .b32 %a, %d;\n");
    body += &own(0, 1);
    body += "ld.global.b32 %a, [%address];\nshfl.sync.bfly.b32 %d, %a, 5, 31, -1;\n";
    body += "shfl.sync.down.b32 %d, %d, 2, 0x181f, -1;\nshfl.sync.up.b32 %d, %d, 1, 0, -1;\n";
    body += "shfl.sync.idx.b32 %d, %d, 3, 0x1c1f, -1;\n";
    body += &own(1, 1);
    body += "st.global.b32 [%address], %d;\n";
    let output = Gpu::new(80).run(&kernel(80, 2, &body), 1, &[(100..132).collect()], LANES);
    let steps = [(Shuffle::Idx, 3, 0x1c1f), (Shuffle::Up, 1, 0), (Shuffle::Down, 2, 0x181f), (Shuffle::Bfly, 5, 31)];
    for (lane, got) in output.into_iter().enumerate() {
        // From the last instruction back to the lane that the value came from.
        let from = steps.into_iter().fold(lane as u32, |lane, (mode, b, c)| mode.source(lane, b, c).0);
        assert_eq!(got, 100 + from, "lane {lane}");
    }
}
