//! Small kernels at the edges of the interpreter: lanes that wait for each other, warp-level instructions that lanes
//! reach on different ways, barriers of part of a block, operands that no compiler writes, and texts that are not PTX.

#![allow(clippy::unwrap_used)]

use std::fmt::Write;

use cudrift_sim::device::{Device, Profile};
use cudrift_sim::finding::{Finding, Kind};
use cudrift_sim::launch::{Args, Launch, run};
use cudrift_sim::program::{LoadError, Program};

const LANES: usize = 32;

fn device() -> Device {
    let mut device = Device::new(Profile::of(80).unwrap());
    device.watchdog = 1 << 22;
    device
}

/// A kernel with the address of an array in `%out`, and of the thread's word of it in `%own`.
fn kernel(functions: &str, body: &str) -> String {
    format!(
        ".version 7.8\n.target sm_80\n.address_size 64\n{functions}\n.visible .entry kernel(.param .u64 out)\n{{\n\
         .reg .b32 %tid, %block, %size, %thread, %lane;\n.reg .b64 %out, %own;\n.reg .pred %p<8>;\n\
         .reg .b32 %r<32>;\n.reg .b64 %rd<8>;\n.reg .f32 %f<8>;\n\
         ld.param.u64 %out, [out];\ncvta.to.global.u64 %out, %out;\nmov.u32 %tid, %tid.x;\n\
         mov.u32 %block, %ctaid.x;\nmov.u32 %size, %ntid.x;\nmad.lo.u32 %thread, %block, %size, %tid;\n\
         mov.u32 %lane, %laneid;\nmad.wide.u32 %own, %thread, 4, %out;\n{body}\nret;\n}}\n"
    )
}

/// What the array of `words` zeros holds after the kernel.
fn try_run(text: &str, blocks: usize, threads: usize, words: usize) -> Result<Vec<u32>, Box<Finding>> {
    let device = device();
    let out = device.memory.alloc(words as u64 * 4).unwrap();
    device.memory.write(out, &vec![0; words * 4]).unwrap();
    let program = Program::load(&device, text).unwrap_or_else(|error| panic!("{error:?}\n{text}"));
    let params = Args::new().u64(out);
    let launch = Launch {
        kernel: program.kernel("kernel").unwrap(),
        grid: [blocks as u32, 1, 1],
        block: [threads as u32, 1, 1],
        shared: 0,
        params: params.as_bytes(),
        cooperative: false,
    };
    run(&device, &launch).map_err(Box::new)?;
    let mut raw = vec![0; words * 4];
    device.memory.read(out, &mut raw).unwrap();
    Ok(raw.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect())
}

/// As [`try_run`] with a word for each thread of one block of the body.
fn threads(body: &str, threads: usize) -> Vec<u32> {
    let text = kernel("", body);
    try_run(&text, 1, threads, threads).unwrap_or_else(|finding| panic!("{finding}\n{text}"))
}

/// What the sanitizer finds in one block of the body.
fn finding(body: &str, threads: usize) -> Kind {
    try_run(&kernel("", body), 1, threads, threads).expect_err("a finding").kind
}

/// Why the text is refused.
fn refusal(text: &str) -> String {
    match Program::load(&device(), text) {
        Err(LoadError::Ptx(error)) => error.message,
        Err(other) => format!("{other:?}"),
        Ok(_) => panic!("accepted:\n{text}"),
    }
}

// From sm_70 on, "the GPU maintains execution state per thread", so that threads of one warp may hold locks that others
// of it wait for (CUDA C++ programming guide, Independent Thread Scheduling; the white paper of Volta has the example).

#[test]
fn a_lock_that_lanes_of_a_warp_wait_for_in_a_loop_of_its_own() {
    // while (atomicCAS(&out[0], 0, 1) != 0) {}  out[1] += 1;  atomicExch(&out[0], 0);
    let body = "SPIN: atom.global.cas.b32 %r0, [%out], 0, 1;\nsetp.ne.u32 %p0, %r0, 0;\n@%p0 bra SPIN;\n\
                ld.volatile.global.u32 %r1, [%out+4];\nadd.u32 %r1, %r1, 1;\nst.volatile.global.u32 [%out+4], %r1;\n\
                membar.gl;\natom.global.exch.b32 %r0, [%out], 0;";
    assert_eq!(threads(body, LANES)[..2], [0, 32]);
    // Between warps and blocks too.
    let text = kernel("", body);
    assert_eq!(try_run(&text, 3, 64, 192).unwrap()[..2], [0, 192]);
}

#[test]
fn lanes_that_spin_for_a_long_way_of_another_lane() {
    // Lane 0 counts to 3000 after the loop in which the others wait for its flag.
    for first in ["eq", "ne"] {
        let wait = "WAIT: ld.volatile.global.u32 %r0, [%out];\nsetp.eq.u32 %p1, %r0, 0;\n@%p1 bra WAIT;\nbra END;\n";
        let count = "COUNT: mov.u32 %r1, 0;\nMORE: add.u32 %r1, %r1, 1;\nsetp.lt.u32 %p2, %r1, 3000;\n@%p2 bra MORE;\n\
                     st.volatile.global.u32 [%out], %r1;\nbra END;\n";
        let body = match first {
            "eq" => format!("setp.ne.u32 %p0, %lane, 0;\n@!%p0 bra COUNT;\n{wait}{count}END:"),
            _ => format!("setp.ne.u32 %p0, %lane, 0;\n@%p0 bra WAIT;\n{count}{wait}END:"),
        };
        assert_eq!(threads(&body, LANES)[0], 3000);
    }
}

#[test]
fn lanes_at_the_end_of_the_kernel_have_exited() {
    // `if (lane >= 20) return; out[i] = __ballot_sync(~0u, lane & 1);`: "all non-exited threads in the mask".
    let body = "setp.ge.u32 %p0, %lane, 20;\n@%p0 bra END;\nand.b32 %r0, %lane, 1;\nsetp.eq.u32 %p1, %r0, 1;\n\
                vote.sync.ballot.b32 %r1, %p1, 0xffffffff;\nst.global.u32 [%own], %r1;\nEND:";
    let want: Vec<_> = (0..32).map(|lane| if lane < 20 { 0xaaaa_aaaa & 0xf_ffff } else { 0 }).collect();
    assert_eq!(threads(body, LANES), want);
}

#[test]
fn a_mask_that_is_complete_does_not_wait_for_one_that_is_not() {
    // Three calls of one function: lanes 16 to 23 come first and wait for 24 to 31, then come 0 to 15.
    let function = ".func (.param .b32 result) sum(.param .b32 mask)\n{\n.reg .b32 %r<4>;\nld.param.u32 %r0, [mask];\n\
                    redux.sync.add.u32 %r1, 1, %r0;\nst.param.u32 [result], %r1;\nret;\n}";
    let call = |mask: &str| {
        format!(
            "{{\n.param .b32 a;\n.param .b32 b;\nst.param.b32 [a], {mask};\ncall (b), sum, (a);\n\
             ld.param.b32 %r9, [b];\n}}\n"
        )
    };
    let body = format!(
        "setp.lt.u32 %p0, %lane, 16;\n@%p0 bra LOW;\nsetp.lt.u32 %p1, %lane, 24;\n@%p1 bra MIDDLE;\nbra HIGH;\n\
         MIDDLE: {}bra END;\nLOW: {}bra END;\nHIGH: {}bra END;\nEND: st.global.u32 [%own], %r9;",
        call("0xffff0000"),
        call("0x0000ffff"),
        call("0xffff0000")
    );
    let text = kernel(function, &body);
    let got = try_run(&text, 1, LANES, LANES).unwrap_or_else(|finding| panic!("{finding}"));
    assert_eq!(got, [16; LANES]);
}

#[test]
fn one_lane_of_a_mask_is_elected() {
    // Twenty lanes and twelve, each with their own mask; then all, by a leader whose number nobody wants.
    let body = "setp.lt.u32 %p0, %lane, 20;\nselp.b32 %r0, 0xfffff, 0xfff00000, %p0;\nelect.sync %r1|%p1, %r0;\n\
                @%p1 add.u32 %r1, %r1, 100;\nelect.sync _|%p2, 0xffffffff;\n@%p2 add.u32 %r1, %r1, 1000;\n\
                st.global.u32 [%own], %r1;";
    let mut want = [[0; 20].as_slice(), &[20; 12]].concat();
    (want[0], want[20]) = (1100, 120);
    assert_eq!(threads(body, LANES), want);
    let alone = "setp.lt.u32 %p0, %lane, 20;\n@%p0 elect.sync %r1|%p1, 0xffffffff;";
    assert_eq!(finding(alone, LANES), Kind::WarpSync);
}

#[test]
fn a_warp_barrier_is_met_from_two_places() {
    // PTX ISA, bar.warp.sync: waits "until all threads corresponding to membermask have executed a bar.warp.sync with
    // the same membermask value", wherever it stands.
    let body = ".shared .b32 value;\nsetp.lt.u32 %p0, %lane, 16;\n@%p0 bra LOW;\n\
                bar.warp.sync 0xffffffff;\nld.shared.u32 %r0, [value];\nbra END;\n\
                LOW: setp.eq.u32 %p1, %lane, 3;\n@%p1 st.shared.u32 [value], 77;\nbar.warp.sync -1;\n\
                ld.shared.u32 %r0, [value];\nEND: st.global.u32 [%own], %r0;";
    assert_eq!(threads(body, LANES), [77; LANES]);
    // Another mask is another barrier.
    let other = body.replace("bar.warp.sync -1;", "bar.warp.sync 0x7fffffff;");
    assert_eq!(finding(&other, LANES), Kind::WarpSync);
}

#[test]
fn what_a_warp_writes_after_it_has_arrived_is_not_ordered() {
    // Warp 0 arrives and goes on, warp 1 waits and reads what warp 0 wrote before and after.
    let body = |before: &str, after: &str| {
        format!(
            ".shared .b32 value[32];\nmov.u32 %r0, value;\nmad.lo.u32 %r0, %lane, 4, %r0;\n\
             setp.lt.u32 %p0, %tid, 32;\n@%p0 bra PRODUCE;\nbar.sync 1, 64;\nld.shared.u32 %r1, [%r0];\n\
             st.global.u32 [%own], %r1;\nbra END;\nPRODUCE: {before}bar.arrive 1, 64;\n{after}END:"
        )
    };
    let store = "st.shared.u32 [%r0], %tid;\n";
    assert_eq!(threads(&body(store, ""), 64)[32..], (0..32).collect::<Vec<_>>());
    assert_eq!(finding(&body(store, store), 64), Kind::Race);
}

#[test]
fn an_unaligned_barrier_with_lanes_predicated_off() {
    // Lanes 0 to 15 and 16 to 31 come to the barrier by themselves.
    let body = "setp.lt.u32 %p0, %lane, 16;\n@%p0 barrier.sync 0;\n@!%p0 barrier.sync 0;\nst.global.u32 [%own], 5;";
    assert_eq!(threads(body, 64), [5; 64]);
    let aligned = body.replace("barrier.sync", "barrier.sync.aligned");
    assert_eq!(finding(&aligned, 64), Kind::Barrier);
}

#[test]
fn lanes_that_copy_the_same() {
    // As lanes may store the same value. Cooperative groups have the lanes of a tile beyond the end of an array copy its
    // last element once more.
    let body = ".shared .b32 tile[16];\nst.global.u32 [%own], %lane;\nbar.warp.sync -1;\nshr.u32 %r0, %lane, 1;\n\
                mad.wide.u32 %rd0, %r0, 4, %out;\nmov.u32 %r1, tile;\nmad.lo.u32 %r1, %r0, 4, %r1;\n\
                cp.async.ca.shared.global [%r1], [%rd0], 4;\nand.b32 %r2, %lane, 1;\nsetp.eq.u32 %p0, %r2, 0;\n\
                cp.async.wait_all;\nbar.warp.sync -1;\nld.shared.u32 %r3, [%r1];\nst.global.u32 [%own], %r3;";
    assert_eq!(threads(body, LANES), (0..LANES as u32).map(|t| t / 2).collect::<Vec<_>>());
    let others = body.replace("[%rd0], 4", "[%own], 4");
    assert_eq!(finding(&others, LANES), Kind::AsyncCopy, "two values");
    let waits = body.replace("cp.async.wait_all", "@%p0 cp.async.wait_all");
    assert_eq!(finding(&waits, LANES), Kind::AsyncCopy, "every second lane waits");
}

#[test]
fn an_operand_too_many() {
    // PTX ISA 8.8 has min and max of three; that the third is left out would be a wrong result.
    for line in ["max.f32 %f0, %f1, %f2, %f3;", "add.u32 %r0, %r1, %r2, %r3;", "ret 1;", "mov.u32 %r0, %r1, %r2;"] {
        assert!(refusal(&kernel("", line)).contains("operands"), "{line}");
    }
    // Operands that are hints.
    let hints = "mov.b64 %rd0, 0;\nst.global.L2::cache_hint.u32 [%own], 3, %rd0;\n\
                 ld.global.L2::cache_hint.u32 %r0, [%own], %rd0;\nprefetch.global.L2 [%own];\nnanosleep.u32 20;";
    assert_eq!(threads(hints, 1), [3]);
}

/// Texts that are no PTX a compiler writes, each with a word of its refusal.
#[test]
fn hostile_texts_are_refused() {
    let body = |body: &str| kernel("", body);
    let words = ".x".repeat(70);
    let deep = ["{", "["].map(|mark| mark.repeat(100_000));
    let generic = format!(".version 7.8\n.target sm_80\n.global .u64 x = {}", "generic(".repeat(100_000));
    let chain: String = (0..20_000)
        .rev()
        .map(|at| {
            format!(
                ".func f{at}()\n{{\n{}ret;\n}}\n",
                if at < 19_999 { format!("call f{};\n", at + 1) } else { String::new() }
            )
        })
        .collect();
    let cases = [
        (body("mov.b32 {}, %r0;"), ""),
        (body("mov.b32 %r0, {};"), ""),
        (body("mov.b32 {}, {};"), ""),
        (body("ld.global.v8.b64 {%rd0, %rd1, %rd2, %rd3, %rd4, %rd5, %rd6, %rd7}, [%out];"), ""),
        (body("st.global.v8.b64 [%out], {%rd0, %rd1, %rd2, %rd3, %rd4, %rd5, %rd6, %rd7};"), ""),
        (body("ld.global.u32 %r0, [%out, %out];"), ""),
        (body("mov.u32 %r0, %r1 - 9223372036854775808;"), ""),
        (body(&format!("add{words}.u32 %r0, %r1, %r2;")), ""),
        (body(&format!("mov.u32 %r0, {};", deep[0])), "deep"),
        (body(&format!("mov.u32 %r0, {};", deep[1])), "deep"),
        (generic, ""),
        (kernel(&chain, "call f0;"), "deep"),
        (kernel(".func f(.param .b8 x[9000000])\n{\nret;\n}", ".param .b8 y[9000000];\ncall f, (y);"), "local memory"),
        (kernel(".func f(.param .b8 x[64])\n{\nret;\n}", ".param .b8 y[4];\ncall f, (y);"), "bytes"),
        (kernel(".func (.param .b8 x[64]) f()\n{\nret;\n}", ".param .b8 y[4];\ncall (y), f;"), "bytes"),
        (kernel(".func (.param .b32 x) f()\n{\nret;\n}", ".param .b32 y;\ncall (y, y), f;"), "results"),
        (body(".local .b8 x[4294967295];"), "local memory"),
        (body(".local .align 2147483648 .b8 x[4];\n.local .align 2147483648 .b8 y[4];"), "alignment"),
        (body(".shared .b8 x[4];\n.shared .b8 y[18446744073709551615];"), "shared memory"),
        (body(".shared .b8 x[4294967296][4294967296];"), "shared memory"),
        (
            ".version 7.8\n.target sm_80\n.entry k(.param .b8 a[65536], .param .b8 b[65536])\n{\nret;\n}".to_owned(),
            "parameters",
        ),
    ];
    for (text, word) in cases {
        let message = refusal(&text);
        assert!(message.contains(word), "{message}");
    }
}

#[test]
fn hostile_numbers_that_mean_something() {
    let device = device();
    for directive in [".maxntid 65536, 65536, 65536", ".reqntid 0", ".maxntid 1024\n.minnctapersm 4294967295"] {
        let text = format!(".version 7.8\n.target sm_80\n.entry k()\n{directive}\n{{\nret;\n}}");
        assert!(Program::load(&device, &text).is_ok(), "{directive}");
    }
    let far = ".shared .b32 x;\nld.shared.u32 %r0, [x+9223372036854775807];\nst.global.u32 [%own], %r0;";
    assert!(matches!(finding(far, 1), Kind::OutOfBounds | Kind::Misaligned));
    assert_eq!(finding(".shared .b32 x;\nld.shared.u32 %r0, [x + -4];", 1), Kind::OutOfBounds);
}

#[test]
fn a_block_or_grid_of_nothing_does_nothing() {
    let device = device();
    let program = Program::load(&device, &kernel("", "")).unwrap();
    for (grid, block) in [([0, 1, 1], [32, 1, 1]), ([2, 1, 1], [0, 1, 1]), ([1, 0, 1], [1, 0, 1])] {
        let kernel = program.kernel("kernel").unwrap();
        let params = Args::new().u64(0);
        let launch = Launch { kernel, grid, block, shared: 0, params: params.as_bytes(), cooperative: false };
        assert_eq!(run(&device, &launch).unwrap().thread_instructions, 0);
    }
}

#[test]
fn long_kernels_are_decoded_in_time() {
    let mut body = String::from(".reg .b32 %x<60000>;\nmov.u32 %x0, %tid;\n");
    for at in 1..60_000 {
        writeln!(body, "add.u32 %x{at}, %x{}, 1;", at - 1).unwrap();
    }
    body += "st.global.u32 [%own], %x59999;";
    let begin = std::time::Instant::now();
    assert_eq!(threads(&body, 1), [59_999]);
    assert!(begin.elapsed().as_secs() < 20, "{:?}", begin.elapsed());
}

#[test]
fn a_pointer_into_an_array_as_a_first_value() {
    // As nvcc writes `__device__ int numbers[3] = {5, 6, 7}; __device__ int* second = &numbers[1];`.
    let globals = ".global .align 4 .u32 numbers[3] = {5, 6, 7};\n.global .align 8 .u64 second = generic(numbers)+4;\n\
                   .global .align 8 .u64 all[2] = {generic(numbers)+8, generic(numbers)};";
    let body = "ld.global.u64 %rd0, [second];\nld.u32 %r0, [%rd0];\nst.global.u32 [%out], %r0;\n\
                ld.global.u64 %rd0, [all];\nld.u32 %r0, [%rd0];\nst.global.u32 [%out+4], %r0;\n\
                ld.global.u64 %rd0, [all+8];\nld.u32 %r0, [%rd0];\nst.global.u32 [%out+8], %r0;";
    assert_eq!(try_run(&kernel(globals, body), 1, 1, 3).unwrap(), [6, 7, 5]);
}

/// A sequence of numbers without pattern.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

/// A kernel of `blocks` blocks of statements that end in branches, tables, returns and calls at random, forwards and
/// backwards, with a limit to the number of jumps; each lane's way depends on its number.
fn maze(random: &mut Random, blocks: usize) -> String {
    let step = |random: &mut Random, body: &mut String| {
        let (factor, sum) = (2 * random.below(500) + 1, random.below(1000));
        writeln!(body, "mad.lo.u32 %x, %x, {factor}, {sum};\nshr.u32 %bits, %x, {};", random.below(20)).unwrap();
    };
    let flow = |random: &mut Random, body: &mut String, prefix: &str, count: usize, at: usize| {
        let target = random.below(count + 1);
        let modulus = 2 + random.below(4);
        writeln!(body, "{prefix}{at}: sub.u32 %fuel, %fuel, 1;\nsetp.eq.u32 %stop, %fuel, 0;").unwrap();
        writeln!(body, "@%stop bra {prefix}{count};").unwrap();
        step(random, body);
        writeln!(body, "rem.u32 %bits, %bits, {modulus};\nsetp.eq.u32 %go, %bits, 0;").unwrap();
        match random.below(8) {
            0 if prefix == "F" && at == 0 => writeln!(body, "@%go exit;").unwrap(),
            0 => {
                let targets: Vec<_> = (0..modulus).map(|_| format!("{prefix}{}", random.below(count + 1))).collect();
                writeln!(body, "{prefix}T{at}: .branchtargets {};", targets.join(", ")).unwrap();
                let guard = ["", "@%go ", "@!%go "][random.below(3)];
                writeln!(body, "{guard}brx.idx %bits, {prefix}T{at};").unwrap();
            }
            1 if prefix == "F" => writeln!(body, "st.param.u32 [result], %x;\n@%go ret;").unwrap(),
            1 if at.is_multiple_of(3) => writeln!(body, "st.global.u32 [%own], %x;\n@%go exit;").unwrap(),
            2 | 3 if prefix == "B" => {
                let guard = ["", "@%go ", "@!%go "][random.below(3)];
                writeln!(body, "{{\n.param .b32 a;\n.param .b32 b;\nst.param.b32 [a], %x;").unwrap();
                writeln!(body, "st.param.b32 [b], %x;\n{guard}call (b), f, (a);\nld.param.b32 %y, [b];\n}}").unwrap();
                writeln!(body, "{guard}add.u32 %x, %x, %y;").unwrap();
            }
            4 => writeln!(body, "bra {prefix}{target};").unwrap(),
            _ => writeln!(body, "@{}%go bra {prefix}{target};", ["", "!"][random.below(2)]).unwrap(),
        }
    };
    let registers = ".reg .b32 %x, %y, %bits, %fuel;\n.reg .pred %go, %stop;\n";
    let mut function = format!(
        ".func (.param .b32 result) f(.param .b32 start)\n{{\n{registers}ld.param.u32 %x, [start];\n\
         mov.u32 %fuel, 12;\n"
    );
    let inner = 1 + random.below(4);
    (0..inner).for_each(|at| flow(random, &mut function, "F", inner, at));
    writeln!(function, "F{inner}: xor.b32 %x, %x, 0x5a5a;\nst.param.u32 [result], %x;\nret;\n}}").unwrap();
    let mut body = format!("{registers}mov.u32 %x, %thread;\nmov.u32 %fuel, 60;\n");
    (0..blocks).for_each(|at| flow(random, &mut body, "B", blocks, at));
    writeln!(body, "B{blocks}: add.u32 %x, %x, 7;\nst.global.u32 [%own], %x;").unwrap();
    kernel(&function, &body)
}

/// Lanes of a warp come to the same results as threads that have a warp each.
#[test]
fn ways_of_lanes_are_those_of_single_threads() {
    let mut random = Random(0x1234_5678_9abc_def1);
    let mut apart = 0;
    for _ in 0..MAZES {
        let blocks = 2 + random.below(8);
        let text = maze(&mut random, blocks);
        let single = try_run(&text, 64, 1, 64).unwrap_or_else(|finding| panic!("{finding}\n{text}"));
        let together = try_run(&text, 1, 64, 64).unwrap_or_else(|finding| panic!("{finding}\n{text}"));
        assert_eq!(single, together, "{text}");
        apart += usize::from(single[1..].iter().any(|word| *word != single[0]));
    }
    assert!(apart > MAZES / 2, "{apart} of {MAZES}");
}

const MAZES: usize = 300;

/// A kernel of many kinds of statements, to be mutated.
const SEED: &str = r#".version 7.8
.target sm_80
.address_size 64
.global .align 4 .u32 counter = 3;
.const .align 4 .b8 table[16] = {1, 2, 3, 4};
.global .u64 pointer = generic(counter)+0;
.func (.param .b32 result) twice(.param .b32 x)
{
.reg .b32 %r<3>;
ld.param.b32 %r1, [x];
shl.b32 %r2, %r1, 1;
st.param.b32 [result], %r2;
ret;
}
.visible .entry kernel(.param .u64 out, .param .align 8 .b8 more[24])
.maxntid 64, 1, 1
.minnctapersm 2
{
.local .align 8 .b8 depot[64];
.shared .align 16 .b8 tile[1024];
.reg .pred %p<4>;
.reg .b16 %rs<8>;
.reg .b32 %r<32>;
.reg .f32 %f<8>;
.reg .b64 %rd<8>;
.loc 1 2 3
ld.param.u64 %rd1, [out];
cvta.to.global.u64 %rd2, %rd1;
mov.u32 %r1, %tid.x;
mul.wide.u32 %rd3, %r1, 4;
add.s64 %rd4, %rd2, %rd3;
mov.b32 {%rs1, %rs2}, %r1;
mov.b32 %r2, {%rs2, %rs1};
mov.b64 %rd5, {%r1, %r2};
st.local.v2.u32 [depot+8], {%r1, %r2};
st.shared.v4.b32 [tile+16], {0, 0, 0, 0};
setp.lt.u32 %p1|%p2, %r1, 5;
@%p1 bra THEN;
lop3.b32 %r3, %r1, %r2, 7, 0x96;
bra.uni END;
THEN:
prmt.b32 %r3, %r1, %r2, 0x5410;
END:
shfl.sync.bfly.b32 %r4|%p3, %r3, 1, 31, -1;
table2: .branchtargets THEN2, END2;
and.b32 %r5, %r1, 1;
brx.idx %r5, table2;
THEN2:
atom.global.add.u32 %r6, [counter], 1;
END2:
bar.sync 0;
{
.param .b32 a;
.param .b32 b;
st.param.b32 [a+0], %r1;
call.uni (b), twice, (a);
ld.param.b32 %r7, [b+0];
}
cvt.rn.f32.u32 %f1, %r7;
fma.rn.f32 %f2, %f1, 0f3F800000, %f1;
cp.async.ca.shared.global [tile], [%rd4], 4;
cp.async.commit_group;
cp.async.wait_group 0;
mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%f3,%f4,%f5,%f6}, {%r1,%r2}, {%r3}, {%f2,%f2,%f2,%f2};
bfe.u32 %r8, %r1, 3, 5;
st.global.f32 [%rd4], %f3;
ret;
}
"#;

/// Every mutant is refused, or runs to its end or to a finding; none brings the host down.
#[test]
fn mutants_of_a_kernel() {
    assert!(Program::load(&device(), SEED).is_ok());
    let numbers = ["0", "-1", "65535", "4294967295", "18446744073709551615", "9223372036854775808", "0f7FC00000", "_"];
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut ran, mut refused) = (0, 0);
    for case in 0..MUTANTS {
        // Statements are moved about, or tokens within them, mostly in exchange for others of their kind.
        let mut words: Vec<&str> = if case % 2 == 0 {
            SEED.split_inclusive('\n').collect()
        } else {
            SEED.split_inclusive(|byte: char| !byte.is_ascii_alphanumeric()).collect()
        };
        for _ in 0..1 + random.below(2) {
            let at = random.below(words.len());
            let like =
                |word: &&&str| word.starts_with(&words[at][..1]) && word.ends_with(&words[at][words[at].len() - 1..]);
            let alike: Vec<&str> = words.iter().filter(like).copied().collect();
            let (other, similar) = (random.below(words.len()), alike[random.below(alike.len())]);
            match random.below(8) {
                0 => drop(words.remove(at)),
                1 => words.insert(at, words[other]),
                2 => words.swap(at, other),
                3 if case % 2 == 1 => words[at] = numbers[random.below(numbers.len())],
                4 if case % 16 == 1 => words.truncate(at + 1),
                _ => words[at] = similar,
            }
        }
        let text = words.concat();
        let mut device = device();
        (device.watchdog, device.workers) = (1 << 14, 1);
        let Ok(program) = Program::load(&device, &text) else {
            refused += 1;
            continue;
        };
        let out = device.memory.alloc(256).unwrap();
        let Some(kernel) = program.kernel("kernel") else { continue };
        let mut params = vec![0; kernel.param_bytes as usize];
        params.iter_mut().zip(out.to_le_bytes()).for_each(|(to, byte)| *to = byte);
        let launch =
            Launch { kernel, grid: [2, 1, 1], block: [40, 1, 1], shared: 64, params: &params, cooperative: false };
        drop(run(&device, &launch));
        ran += 1;
    }
    assert!(ran > MUTANTS / 20 && refused > MUTANTS / 20, "{ran} ran, {refused} were refused");
}

const MUTANTS: usize = 4000;

/// What the sanitizer finds in one block of the body, where registers are checked too.
fn unwritten(body: &str) -> Option<Finding> {
    let mut device = device();
    device.checks.registers = true;
    let out = device.memory.alloc(128).unwrap();
    device.memory.write(out, &[0; 128]).unwrap();
    let program = Program::load(&device, &kernel("", body)).unwrap();
    let (kernel, params) = (program.kernel("kernel").unwrap(), Args::new().u64(out));
    let params = params.as_bytes();
    run(&device, &Launch { kernel, grid: [1; 3], block: [32, 1, 1], shared: 0, params, cooperative: false }).err()
}

#[test]
fn registers_that_nothing_has_written() {
    let cases = [
        ("add.u32 %r1, %r0, 1;", Some("add.u32")),
        ("mov.u32 %r0, 1; add.u32 %r1, %r0, 1; st.global.u32 [%own], %r1;", None),
        // In half of the lanes.
        ("setp.lt.u32 %p1, %lane, 16;\n@%p1 mov.u32 %r0, 1;\nadd.u32 %r1, %r0, 1;", Some("add.u32")),
        ("setp.lt.u32 %p1, %lane, 16;\n@%p1 mov.u32 %r0, 1;\n@%p1 add.u32 %r1, %r0, 1;", None),
        // Handed on, and used then; or chosen against.
        ("mov.u32 %r1, %r0;\nmov.u32 %r2, %r1;", None),
        ("mov.u32 %r1, %r0;\nst.global.u32 [%own], %r1;", Some("st.global.u32")),
        (
            "mov.u32 %r2, 7;\nsetp.lt.u32 %p1, %lane, 32;\nselp.u32 %r1, %r2, %r0, %p1;\nst.global.u32 [%own], %r1;",
            None,
        ),
        // An address, half of a wide register.
        ("ld.global.u32 %r1, [%rd0];", Some("ld.global.u32")),
        ("mov.b64 %rd1, {%lane, %r0};\nadd.u64 %rd2, %rd1, 1;", Some("add.u64")),
        ("fma.rn.f32 %f1, %f0, %f0, %f0;", Some("fma.rn.f32")),
    ];
    for (body, at) in cases {
        let finding = unwritten(body);
        assert_eq!(finding.is_some(), at.is_some(), "{body}: {finding:?}");
        if let (Some(finding), Some(at)) = (finding, at) {
            assert!(finding.kind == Kind::Uninitialised && finding.instruction.starts_with(at), "{body}: {finding}");
            assert!(finding.detail.contains("register"), "{finding}");
        }
    }
}
