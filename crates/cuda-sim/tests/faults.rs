//! Planted faults: each must be reported with its kind and its place, and its correct twin must not be.

mod support;

use cudrift_sim::device::Order;
use cudrift_sim::finding::{Finding, Kind};
use support::{Shape, Sim, args, source};

/// Launches a kernel of a file compiled with FAULT=1, then with FAULT=0.
///
/// The finding must be of one of the kinds and lie on a line that the file marks with `// FAULT kernel`. What the CUDA
/// headers inline may be placed there instead.
fn check(file: &str, kernel: &str, kinds: &[Kind], launch: impl Fn(&Sim, bool) -> Result<(), Box<Finding>>) {
    let finding = launch(&Sim::with(file, &["-DFAULT=1"]), true).expect_err("the fault was not reported");
    println!("{finding}");
    assert!(kinds.contains(&finding.kind), "{kinds:?} expected: {finding}");
    assert_eq!(finding.kernel, kernel);
    assert!(finding.line > 0 && !finding.instruction.is_empty(), "{finding}");
    let (path, line) = finding.source.clone().expect("a line of the source");
    let mark = format!("// FAULT {kernel}");
    let text = source(file);
    let marked = text.lines().zip(1..).filter(|(text, _)| text.ends_with(&mark)).map(|(_, line)| line);
    let marked: Vec<u32> = marked.collect();
    assert!(marked.contains(&line) || !path.ends_with(file), "not at {marked:?}: {finding}");

    if let Err(finding) = launch(&Sim::with(file, &["-DFAULT=0"]), false) {
        panic!("the twin is correct: {finding}");
    }
}

const MEMORY: &str = "faults_memory.cu";
const RACE: &str = "faults_race.cu";
const SYNC: &str = "faults_sync.cu";

/// Some floats.
fn floats(sim: &Sim, count: usize) -> u64 {
    sim.upload(&(0..count).map(|i| i as f32).collect::<Vec<_>>())
}

fn ints(sim: &Sim, count: i32) -> u64 {
    sim.upload(&(0..count).collect::<Vec<_>>())
}

// Addresses.

#[test]
fn index_one_off() {
    check(MEMORY, "index_one_off", &[Kind::OutOfBounds], |sim, _| {
        sim.try_launch("index_one_off", Shape::cover(101, 64), args![sim.alloc::<f32>(100), 100])
    });
}

#[test]
fn index_before() {
    check(MEMORY, "index_before", &[Kind::OutOfBounds], |sim, _| {
        sim.try_launch("index_before", Shape::new(1, 64), args![floats(sim, 50), sim.alloc::<f32>(50), 50])
    });
}

#[test]
fn tail_unguarded() {
    check(MEMORY, "tail_unguarded", &[Kind::OutOfBounds], |sim, _| {
        sim.try_launch("tail_unguarded", Shape::cover(100, 64), args![floats(sim, 100), sim.alloc::<f32>(128), 100])
    });
}

#[test]
fn wrong_predicate() {
    check(MEMORY, "wrong_predicate", &[Kind::OutOfBounds], |sim, _| {
        let args = args![floats(sim, 600), sim.alloc::<f32>(600), 20, 30];
        sim.try_launch("wrong_predicate", Shape::new([2, 2], [16, 16]), args)
    });
}

#[test]
fn index_overflow() {
    check(MEMORY, "index_overflow", &[Kind::OutOfBounds], |sim, _| {
        sim.try_launch("index_overflow", Shape::new(1, 64), args![sim.alloc::<f32>(63 * 1024 + 1), 1 << 26])
    });
}

#[test]
fn vector_tail() {
    check(MEMORY, "vector_tail", &[Kind::OutOfBounds], |sim, _| {
        sim.try_launch("vector_tail", Shape::new(1, 32), args![floats(sim, 30), sim.alloc::<f32>(8), 30])
    });
}

#[test]
fn atomic_outside() {
    check(MEMORY, "atomic_outside", &[Kind::OutOfBounds], |sim, _| {
        sim.try_launch("atomic_outside", Shape::new(1, 100), args![ints(sim, 10), ints(sim, 100)])
    });
}

#[test]
fn async_copy_outside() {
    check(MEMORY, "async_copy_outside", &[Kind::OutOfBounds], |sim, _| {
        sim.try_launch("async_copy_outside", Shape::new(1, 32), args![floats(sim, 100), sim.alloc::<f32>(32), 100])
    });
}

#[test]
fn shared_one_off() {
    check(MEMORY, "shared_one_off", &[Kind::OutOfBounds], |sim, _| {
        sim.try_launch("shared_one_off", Shape::new(1, 64), args![floats(sim, 64), sim.alloc::<f32>(64)])
    });
}

#[test]
fn shared_dynamic_one_off() {
    check(MEMORY, "shared_dynamic_one_off", &[Kind::OutOfBounds], |sim, _| {
        let shape = Shape::new(1, 96).shared(90 * 4);
        sim.try_launch("shared_dynamic_one_off", shape, args![floats(sim, 90), sim.alloc::<f32>(90), 90])
    });
}

#[test]
fn local_one_off() {
    check(MEMORY, "local_one_off", &[Kind::OutOfBounds], |sim, _| {
        sim.try_launch("local_one_off", Shape::new(1, 32), args![ints(sim, 9), sim.alloc::<i32>(32)])
    });
}

#[test]
fn use_after_free() {
    check(MEMORY, "use_after_free", &[Kind::UseAfterFree], |sim, fault| {
        let x = floats(sim, 32);
        if fault {
            sim.device.memory.free(x).unwrap();
        }
        sim.try_launch("use_after_free", Shape::new(1, 32), args![x, sim.alloc::<f32>(32)])
    });
}

#[test]
fn misaligned_global() {
    check(MEMORY, "misaligned_global", &[Kind::Misaligned], |sim, _| {
        sim.try_launch("misaligned_global", Shape::new(1, 16), args![floats(sim, 72), sim.alloc::<f32>(16)])
    });
}

#[test]
fn misaligned_shared() {
    check(MEMORY, "misaligned_shared", &[Kind::Misaligned], |sim, _| {
        sim.try_launch("misaligned_shared", Shape::new(1, 64), args![floats(sim, 64), sim.alloc::<f32>(64)])
    });
}

#[test]
fn stray_pointer() {
    // Null, a little beyond it, as the host's stack has it, and beyond all.
    for stray in [0, 64, 0x7fff_1234_5678, !0u64 - 1023] {
        check(MEMORY, "stray_pointer", &[Kind::OutOfBounds], |sim, fault| {
            let x = if fault { stray } else { floats(sim, 32) };
            sim.try_launch("stray_pointer", Shape::new(1, 32), args![x, sim.alloc::<f32>(32)])
        });
    }
}

#[test]
fn write_to_constant() {
    check(MEMORY, "write_to_constant", &[Kind::ReadOnly], |sim, fault| {
        let (scales, _) = sim.program.global("scales").unwrap();
        let p = if fault { scales } else { sim.alloc::<f32>(32) };
        sim.try_launch("write_to_constant", Shape::new(1, 32), args![p])
    });
}

// Races, asynchronous copies, initialisation.

#[test]
fn read_before_write() {
    check(RACE, "read_before_write", &[Kind::Race, Kind::Uninitialised], |sim, _| {
        sim.try_launch("read_before_write", Shape::new(1, 128), args![floats(sim, 128), sim.alloc::<f32>(128)])
    });
}

#[test]
fn read_after_write() {
    check(RACE, "read_after_write", &[Kind::Race], |sim, _| {
        sim.try_launch("read_after_write", Shape::new(1, 128), args![floats(sim, 128), sim.alloc::<f32>(128)])
    });
}

#[test]
fn write_after_read() {
    check(RACE, "write_after_read", &[Kind::Race], |sim, _| {
        sim.try_launch("write_after_read", Shape::new(1, 128), args![floats(sim, 384), sim.alloc::<f32>(128), 3])
    });
}

#[test]
fn double_buffer() {
    check(RACE, "double_buffer", &[Kind::Race], |sim, _| {
        sim.try_launch("double_buffer", Shape::new(1, 128), args![floats(sim, 640), sim.alloc::<f32>(128), 5])
    });
}

#[test]
fn neighbour_lane() {
    check(RACE, "neighbour_lane", &[Kind::Race], |sim, _| {
        sim.try_launch("neighbour_lane", Shape::new(1, 32), args![floats(sim, 32), sim.alloc::<f32>(32)])
    });
}

#[test]
fn warp_tree() {
    check(RACE, "warp_tree", &[Kind::Race], |sim, _| {
        sim.try_launch("warp_tree", Shape::new(1, 32), args![floats(sim, 64), sim.alloc::<f32>(1)])
    });
}

#[test]
fn lanes_disagree() {
    check(RACE, "lanes_disagree", &[Kind::Race], |sim, _| {
        sim.try_launch("lanes_disagree", Shape::new(1, 32), args![ints(sim, 32), sim.alloc::<i32>(32)])
    });
}

#[test]
fn warps_disagree() {
    check(RACE, "warps_disagree", &[Kind::Race], |sim, _| {
        sim.try_launch("warps_disagree", Shape::new(1, 64), args![ints(sim, 64), sim.alloc::<i32>(64)])
    });
}

#[test]
fn count_without_atomic() {
    check(RACE, "count_without_atomic", &[Kind::Race], |sim, _| {
        let x = sim.upload(&(0..64).map(|i| i % 8).collect::<Vec<i32>>());
        sim.try_launch("count_without_atomic", Shape::new(1, 64), args![x, sim.alloc::<i32>(8)])
    });
}

#[test]
fn other_barrier() {
    check(RACE, "other_barrier", &[Kind::Race], |sim, _| {
        sim.try_launch("other_barrier", Shape::new(1, 64), args![ints(sim, 64), sim.alloc::<i32>(64)])
    });
}

#[test]
fn async_no_wait() {
    check(RACE, "async_no_wait", &[Kind::AsyncCopy], |sim, _| {
        sim.try_launch("async_no_wait", Shape::new(1, 64), args![floats(sim, 64), sim.alloc::<f32>(64)])
    });
}

#[test]
fn async_wait_weak() {
    check(RACE, "async_wait_weak", &[Kind::AsyncCopy], |sim, _| {
        sim.try_launch("async_wait_weak", Shape::new(1, 64), args![floats(sim, 256), sim.alloc::<f32>(64), 4])
    });
}

#[test]
fn async_no_commit() {
    check(RACE, "async_no_commit", &[Kind::AsyncCopy], |sim, _| {
        sim.try_launch("async_no_commit", Shape::new(1, 64), args![floats(sim, 64), sim.alloc::<f32>(64)])
    });
}

#[test]
fn async_no_barrier() {
    check(RACE, "async_no_barrier", &[Kind::Race, Kind::AsyncCopy], |sim, _| {
        sim.try_launch("async_no_barrier", Shape::new(1, 64), args![floats(sim, 64), sim.alloc::<f32>(64)])
    });
}

#[test]
fn shared_half_written() {
    check(RACE, "shared_half_written", &[Kind::Uninitialised], |sim, _| {
        sim.try_launch("shared_half_written", Shape::new(1, 64), args![floats(sim, 64), sim.alloc::<f32>(64)])
    });
}

#[test]
fn tile_tail() {
    check(RACE, "tile_tail", &[Kind::Uninitialised], |sim, _| {
        sim.try_launch("tile_tail", Shape::new(1, 32), args![floats(sim, 20), sim.alloc::<f32>(32), 20])
    });
}

#[test]
fn global_half_written() {
    check(RACE, "global_half_written", &[Kind::Uninitialised], |sim, fault| {
        let x = sim.alloc::<f32>(64);
        sim.write(x, &vec![1f32; if fault { 50 } else { 64 }]);
        sim.try_launch("global_half_written", Shape::new(1, 64), args![x, sim.alloc::<f32>(64)])
    });
}

#[test]
fn sum_not_zeroed() {
    check(RACE, "sum_not_zeroed", &[Kind::Uninitialised], |sim, fault| {
        let sum = if fault { sim.alloc::<f32>(1) } else { floats(sim, 1) };
        sim.try_launch("sum_not_zeroed", Shape::new(1, 64), args![floats(sim, 64), sum])
    });
}

// Barriers, warp-level instructions, ends.

#[test]
fn barrier_after_exit() {
    check(SYNC, "barrier_after_exit", &[Kind::Barrier], |sim, _| {
        sim.try_launch("barrier_after_exit", Shape::new(1, 128), args![ints(sim, 100), sim.alloc::<i32>(100), 100])
    });
}

#[test]
fn barrier_in_branch() {
    check(SYNC, "barrier_in_branch", &[Kind::Barrier], |sim, _| {
        sim.try_launch("barrier_in_branch", Shape::new(1, 64), args![sim.alloc::<i32>(64)])
    });
}

#[test]
fn barrier_counts_differ() {
    check(SYNC, "barrier_counts_differ", &[Kind::Barrier], |sim, _| {
        sim.try_launch("barrier_counts_differ", Shape::new(1, 64), args![ints(sim, 3), sim.alloc::<i32>(64)])
    });
}

#[test]
fn barrier_never_reached() {
    check(SYNC, "barrier_never_reached", &[Kind::Barrier, Kind::Hang], |sim, _| {
        sim.try_launch("barrier_never_reached", Shape::new(1, 64), args![ints(sim, 32), sim.alloc::<i32>(32)])
    });
}

#[test]
fn shuffle_lanes_missing() {
    check(SYNC, "shuffle_lanes_missing", &[Kind::WarpSync], |sim, _| {
        sim.try_launch("shuffle_lanes_missing", Shape::new(1, 32), args![ints(sim, 32), sim.alloc::<i32>(32)])
    });
}

#[test]
fn vote_lanes_missing() {
    check(SYNC, "vote_lanes_missing", &[Kind::WarpSync], |sim, _| {
        sim.try_launch("vote_lanes_missing", Shape::new(1, 32), args![ints(sim, 32), sim.alloc::<u32>(32), 20])
    });
}

#[test]
fn mask_without_self() {
    check(SYNC, "mask_without_self", &[Kind::WarpSync], |sim, _| {
        sim.try_launch("mask_without_self", Shape::new(1, 32), args![ints(sim, 32), sim.alloc::<i32>(32)])
    });
}

#[test]
fn matrix_lanes_missing() {
    check(SYNC, "matrix_lanes_missing", &[Kind::WarpSync], |sim, _| {
        sim.try_launch("matrix_lanes_missing", Shape::new(1, 32), args![ints(sim, 96), sim.alloc::<u32>(32)])
    });
}

#[test]
fn trap() {
    check(SYNC, "trap", &[Kind::Trap], |sim, fault| {
        let limit = if fault { 62 } else { 63 };
        sim.try_launch("trap", Shape::new(1, 64), args![ints(sim, 64), sim.alloc::<i32>(64), limit])
    });
}

#[test]
fn assertion() {
    check(SYNC, "assertion", &[Kind::Trap], |sim, fault| {
        let limit = if fault { 62 } else { 63 };
        sim.try_launch("assertion", Shape::new(1, 64), args![ints(sim, 64), sim.alloc::<i32>(64), limit])
    });
}

#[test]
fn grid_barrier() {
    check(SYNC, "grid_barrier", &[Kind::Trap], |sim, fault| {
        let shape = Shape::new(2, 32);
        let shape = if fault { shape } else { shape.cooperative() };
        sim.try_launch("grid_barrier", shape, args![sim.alloc::<i32>(2)])
    });
}

#[test]
fn spin() {
    check(SYNC, "spin", &[Kind::Hang], |sim, _| {
        let shape = Shape::new(2, 32).cooperative();
        sim.try_launch("spin", shape, args![sim.upload(&[0i32]), sim.alloc::<i32>(64)])
    });
}

// In global memory: between blocks, and between threads of one.

const BLOCKS: &str = "faults_blocks.cu";

/// As [`check`], with races in global memory looked for, under every order of blocks and warps.
fn check_blocks(kernel: &str, launch: impl Fn(&Sim, bool) -> Result<(), Box<Finding>>) {
    for order in [Order::Ascending, Order::Descending, Order::Random(1), Order::Random(2)] {
        check(BLOCKS, kernel, &[Kind::Race], |_, fault| {
            let mut sim = Sim::with(BLOCKS, &[if fault { "-DFAULT=1" } else { "-DFAULT=0" }]);
            (sim.device.checks.global_race, sim.device.order) = (true, order);
            launch(&sim, fault)
        });
    }
}

#[test]
fn smooth_in_place() {
    check_blocks("smooth_in_place", |sim, _| {
        sim.try_launch("smooth_in_place", Shape::cover(100, 32), args![floats(sim, 100), floats(sim, 100), 100])
    });
}

#[test]
fn same_place() {
    check_blocks("same_place", |sim, _| {
        sim.try_launch("same_place", Shape::new(5, 32), args![floats(sim, 5 * 64), floats(sim, 5)])
    });
}

#[test]
fn look_too_early() {
    check_blocks("look_too_early", |sim, _| {
        let count = sim.upload(&[0u32]);
        sim.try_launch("look_too_early", Shape::new(5, 32), args![count, sim.alloc::<u32>(5)])
    });
}

#[test]
fn last_block_adds() {
    check_blocks("last_block_adds", |sim, _| {
        let (parts, count, sum) = (sim.alloc::<f32>(7), sim.upload(&[0u32]), sim.alloc::<f32>(1));
        sim.try_launch("last_block_adds", Shape::new(7, 32), args![floats(sim, 7), parts, count, sum])?;
        assert_eq!(sim.download::<f32>(sum, 1), [21.0]);
        Ok(())
    });
}

#[test]
fn tile_too_far() {
    check_blocks("tile_too_far", |sim, _| sim.try_launch("tile_too_far", Shape::new(4, 8), args![floats(sim, 4 * 32)]));
}

#[test]
fn ring_without_meeting() {
    check_blocks("ring_without_meeting", |sim, _| {
        let shape = Shape::cover(96, 32).cooperative();
        sim.try_launch("ring_without_meeting", shape, args![floats(sim, 96), floats(sim, 96), 96, 4])
    });
}

#[test]
fn count_twice() {
    check_blocks("count_twice", |sim, _| {
        sim.try_launch("count_twice", Shape::new(2, 64), args![sim.upload(&[0i32; 2])])
    });
}

#[test]
fn reverse_in_place() {
    check_blocks("reverse_in_place", |sim, _| {
        sim.try_launch("reverse_in_place", Shape::new(2, 64), args![floats(sim, 128)])
    });
}

#[test]
fn halves_overlap() {
    check_blocks("halves_overlap", |sim, _| {
        let x = sim.upload(&(0..64).collect::<Vec<u16>>());
        sim.try_launch("halves_overlap", Shape::new(1, 64), args![x, sim.alloc::<u16>(64)])
    });
}

#[test]
fn hand_over() {
    check_blocks("hand_over", |sim, _| {
        let (sums, out) = (floats(sim, 2), sim.alloc::<f32>(1));
        sim.try_launch("hand_over", Shape::new(1, 64), args![floats(sim, 64), sums, out])
    });
}
