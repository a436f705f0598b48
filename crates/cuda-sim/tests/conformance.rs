//! Code that nobody here wrote: the block and warp algorithms of CUB and the cooperative groups of the CUDA toolkit,
//! each against a reference on the host.
//!
//! The name of a kernel ends with its type and its extents, from which the reference takes them. Results are equal to
//! the bit, those of floats too: what is summed are multiples of 1/64 below 8, whose sums have no rounding.

mod support;

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::fmt::Debug;

use cudrift_sim::device::{Checks, Order};
use cudrift_sim::finding::Kind;
use support::{Element, Random, Shape, Sim, args};

/// A file of kernels, and the list of its cases.
type File = (&'static str, fn(&mut Suite));

const FILES: [File; 4] = [
    ("conformance_reduce.cu", reductions),
    ("conformance_sort.cu", sorts),
    ("conformance_move.cu", moves),
    ("conformance_groups.cu", groups),
];

/// Kernels with one check off, by the beginning of their names, with what it finds.
///
/// A merge by warps reads one key beyond its tile, for which its storage has room. Of raking threads with two items
/// each, the last has one where their number is odd, and scans a second that nothing wrote behind all others.
/// A scan by a logical warp that no shuffle serves reads before its first lane. None makes use of what it reads.
///
/// The ranks by masks in shared memory are a race by the letter: that all lanes have read a mask before their leader
/// clears it follows only from a shuffle that depends on what they read, and no shuffle orders memory.
const EXCUSED: [(&str, Kind); 6] = [
    ("warp_merge_sort", Kind::Uninitialised),
    ("block_scan_raking_compose_affine_37x2", Kind::Uninitialised),
    ("block_scan_warps_maximum_i32_37x3", Kind::Uninitialised),
    ("carried_scan_warps_compose_affine_37x2", Kind::Uninitialised),
    ("warp_scan_compose_affine_21x21", Kind::Uninitialised),
    ("radix_rank_early_or", Kind::Race),
];

/// Kernels that hand registers on which nothing has written, through local memory and a shuffle, to where they are not
/// used: cooperative groups leave part of a group's description, and an element of a scan, as they were.
const HANDED_ON: [&str; 2] = ["binary_partition_i32_64x8", "scan_update_i32_64x8"];

#[test]
fn on_sm_80() {
    conformance(80, Order::Ascending);
}

/// Other code comes of it in part, as of the election of a thread.
#[test]
fn on_sm_90() {
    conformance(90, Order::Ascending);
}

#[test]
fn in_any_order() {
    for order in [Order::Descending, Order::Random(1), Order::Random(2)] {
        conformance(80, order);
    }
}

/// Races between blocks are looked for as well, which costs little here.
const CHECKS: Checks = Checks { global_race: true, registers: true, ..Checks::USUAL };

fn conformance(arch: u32, order: Order) {
    let suites: Vec<Suite> = std::thread::scope(|scope| {
        let run = |(file, cases): File| {
            scope.spawn(move || {
                let mut sim = Sim::of(arch, file, &[]);
                (sim.device.order, sim.device.checks) = (order, CHECKS);
                let mut suite = Suite { sim, random: Random::new(1), right: vec![], wrong: vec![] };
                cases(&mut suite);
                suite
            })
        };
        let threads = FILES.map(run);
        threads.into_iter().map(|thread| thread.join().expect("a suite")).collect()
    });
    let right: Vec<&String> = suites.iter().flat_map(|suite| &suite.right).collect();
    let wrong: Vec<&String> = suites.iter().flat_map(|suite| &suite.wrong).collect();
    right.iter().for_each(|name| println!("{name}"));
    println!("{} kernels are right on sm_{arch}", right.len());
    assert!(wrong.is_empty(), "{} kernels are wrong: {wrong:#?}", wrong.len());
    assert!(right.len() >= 100, "{} kernels", right.len());
    for suite in &suites {
        let cases: BTreeSet<&str> = suite.right.iter().map(String::as_str).collect();
        let kernels: BTreeSet<&str> = suite.sim.program.kernels().iter().map(|kernel| &*kernel.name).collect();
        assert_eq!(cases, kernels, "every kernel has a case");
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// The cases

fn reductions(s: &mut Suite) {
    s.block_reduce("raking_plus_i32_128x4", 77, plus::<i32>);
    s.block_reduce("raking_plus_u8_37x3", 36, plus::<u8>);
    s.block_reduce("raking_compose_affine_96x2", 50, compose);
    s.block_reduce("commutative_plus_u64_256x2", 200, plus::<u64>);
    s.block_reduce("commutative_plus_f32_96x4", 33, plus::<f32>);
    s.block_reduce("commutative_maximum_i32_37x1", 5, maximum::<i32>);
    s.block_reduce("warps_plus_f64_96x3", 95, plus::<f64>);
    s.block_reduce("warps_compose_affine_37x4", 34, compose);
    s.block_reduce("warps_maximum_i16_256x1", 1, maximum::<i16>);
    s.block_reduce("warps_plus_u32_128x5", 64, plus::<u32>);
    s.block_reduce("atomic_plus_i32_96x3", 71, plus::<i32>);
    s.block_reduce("atomic_plus_f32_128x2", 97, plus::<f32>);
    s.block_reduce("atomic_plus_u64_64x2", 40, plus::<u64>);
    s.block_reduce("atomic_plus_f64_96x1", 65, plus::<f64>);

    s.block_scan("raking_plus_i32_96x3", plus::<i32>);
    s.block_scan("raking_compose_affine_37x2", compose);
    s.block_scan("raking_plus_f64_128x1", plus::<f64>);
    s.block_scan("memoize_plus_u64_128x4", plus::<u64>);
    s.block_scan("memoize_maximum_f32_96x5", maximum::<f32>);
    s.block_scan("memoize_plus_u8_37x4", plus::<u8>);
    s.block_scan("warps_plus_f32_256x2", plus::<f32>);
    s.block_scan("warps_compose_affine_96x3", compose);
    s.block_scan("warps_maximum_i32_37x3", maximum::<i32>);
    s.block_scan("warps_plus_u8_128x1", plus::<u8>);

    s.carried_scan("raking_plus_u64_96x2", 1000, plus::<u64>);
    s.carried_scan("memoize_maximum_i32_128x3", 900, maximum::<i32>);
    s.carried_scan("warps_compose_affine_37x2", 500, compose);

    s.grid_scan("plus_i32_128x3x9", 3333, plus::<i32>);
    s.grid_scan("maximum_f64_96x2x40", 7600, maximum::<f64>);
    s.grid_scan("compose_affine_64x2x35", 4480, compose);

    s.warp_reduce("plus_i32_96x32", 17, plus::<i32>);
    s.warp_reduce("maximum_u8_64x16", 1, maximum::<u8>);
    s.warp_reduce("plus_f64_128x8", 7, plus::<f64>);
    s.warp_reduce("compose_affine_96x16", 11, compose);
    s.warp_reduce("plus_u64_64x32", 32, plus::<u64>);
    s.warp_reduce("plus_f32_40x4", 3, plus::<f32>);
    s.warp_reduce("plus_i32_12x12", 10, plus::<i32>);

    s.warp_reduce_batched("plus_i32_96x5x32", plus::<i32>);
    s.warp_reduce_batched("maximum_f64_64x9x8", maximum::<f64>);

    s.warp_scan("plus_i32_96x32", 20, plus::<i32>);
    s.warp_scan("plus_u8_64x8", 5, plus::<u8>);
    s.warp_scan("compose_affine_96x32", 31, compose);
    s.warp_scan("maximum_f64_64x16", 9, maximum::<f64>);
    s.warp_scan("plus_f32_64x32", 1, plus::<f32>);
    s.warp_scan("plus_u64_128x8", 8, plus::<u64>);
    s.warp_scan("compose_affine_21x21", 13, compose);
}

fn sorts(s: &mut Suite) {
    s.radix_sort::<u8>("radix_sort_u8_96x3");
    s.radix_sort::<u16>("radix_sort_u16_37x4");
    s.radix_sort::<i32>("radix_sort_i32_128x4");
    s.radix_sort::<f32>("radix_sort_f32_96x5");
    s.radix_sort::<F16>("radix_sort_f16_128x2");
    s.radix_sort::<f64>("radix_sort_f64_37x3");
    s.radix_sort::<u64>("radix_sort_raking_u64_128x2");
    s.radix_sort::<Record>("radix_sort_records_record_96x2");
    s.radix_sort_bits("u32_96x4", 9);

    s.radix_sort_pairs::<i32, u16>("i32_96x3", |i| i as u16);
    s.radix_sort_pairs::<f32, i32>("f32_37x5", |i| i as i32);
    s.radix_sort_pairs::<u8, i32>("down_u8_128x4", |i| i as i32);
    s.radix_sort_pairs::<f64, i64>("down_f64_96x2", |i| i as i64);

    s.radix_rank("u32_37x6", 3);
    s.radix_rank("down_u32_96x3", 0);
    s.radix_rank("match_u32_96x4", 7);
    s.radix_rank("match_down_u32_128x3", 12);
    s.radix_rank("early_u32_128x2", 1);
    s.radix_rank("early_or_u32_64x5", 27);

    s.merge_sort::<i32>("i32_128x3", 384);
    s.merge_sort::<Record>("record_64x4", 200);
    s.merge_sort::<f64>("f64_256x1", 131);
    s.merge_sort::<u8>("u8_32x7", 224);

    s.warp_merge_sort::<i32>("i32_96x3x32");
    s.warp_merge_sort::<u64>("u64_64x4x16");
    s.warp_merge_sort::<f32>("f32_40x5x8");
}

fn moves(s: &mut Suite) {
    s.load_store::<u8>("direct_u8_37x3", 100);
    s.load_store::<i32>("striped_i32_96x3", 200);
    s.load_store::<f32>("vectorize_f32_128x4", 512);
    s.load_store::<u8>("vectorize_u8_96x8", 768);
    s.load_store::<u64>("transpose_u64_37x4", 131);
    s.load_store::<i16>("warp_transpose_i16_96x5", 301);
    s.load_store::<f64>("timesliced_f64_128x3", 384);

    s.warp_load_store::<u64>("striped_u64_64x3x16", 40);
    s.warp_load_store::<i32>("transpose_i32_96x4x32", 67);
    s.warp_load_store::<u8>("transpose_u8_64x5x8", 40);

    s.exchange::<u8>("u8_96x4");
    s.exchange::<i32>("i32_37x3");
    s.exchange::<Triple>("triple_64x2");
    s.exchange::<f64>("f64_128x3");
    s.exchange::<u64>("timesliced_u64_96x4");

    s.warp_exchange::<i32>("smem_i32_96x3x32");
    s.warp_exchange::<u8>("smem_u8_64x5x8");
    s.warp_exchange::<f32>("shuffle_f32_64x16x16");
    s.warp_exchange::<u64>("shuffle_u64_32x8x8");

    s.shuffle::<i32>("i32_96x3", 40);
    s.shuffle::<u8>("u8_37x2", 36);
    s.shuffle::<Triple>("triple_64x4", 1);

    s.discontinuity::<i32>("i32_96x3");
    s.discontinuity::<u8>("u8_37x4");
    s.discontinuity::<f64>("f64_128x1");

    s.difference("u64_96x3", 200, u64::wrapping_sub);
    s.difference("f32_37x2", 73, |a: f32, b| a - b);
    s.difference("i16_128x4", 5, i16::wrapping_sub);

    s.run_length("u8_96x2", 150, 0xff);
    s.run_length("u64_37x3", 111, u32::MAX);

    s.histogram("sort_u8_96x4", 256, |bin| bin as u8);
    s.histogram("sort_i32_37x3", 50, |bin| bin as i32);
    s.histogram("atomic_u8_128x3", 256, |bin| bin as u8);
    s.histogram("atomic_i16_37x5", 10, |bin| bin as i16);
}

fn groups(s: &mut Suite) {
    s.tile("tile_i32_96x1");
    s.tile("tile_i32_64x2");
    s.tile("tile_i32_96x4");
    s.tile("tile_i32_40x8");
    s.tile("tile_i32_96x16");
    s.tile("tile_i32_128x32");
    s.collectives("tile_of_tile_i32_96x4", 0, |_| (0..24).map(|i| Group::part(4 * i..4 * i + 4, i % 4, 4)).collect());
    s.tile_shuffle::<Affine>("affine_64x8");
    s.tile_shuffle::<f64>("f64_40x8");
    s.tile_shuffle::<u8>("u8_96x8");

    // Some tiles have one value, some two, of which the lower halves are equal.
    let x = (0..96).map(|t| 5 | (t / 8 % 3 * (t % 5 % 2) + 1) << 32).collect();
    s.run("match_long_u64_96x8", 0, 1, x, |x: &mut [u64]| {
        let those = |t: usize, bit: u32| {
            (0..8).filter(|i| x[t / 8 * 8 + i] >> bit == x[t] >> bit).fold(0, |mask, i| mask | 1u32 << i)
        };
        let all = |t| if those(t, 33) == 255 { 255 + 256 } else { 0 };
        (0..96).map(|t| those(t, 32)).chain((0..96).map(all)).collect()
    });

    // Threads that take a branch know nothing of the others; parts of a tile know how many there are.
    let alone = |groups: Vec<Group>| groups.into_iter().map(|group| Group::part(group.threads, 0, 1)).collect();
    s.collectives("coalesced_i32_96x32", 3, |x| alone(split(x.len(), 32, |t| x[t] % 3 == 0)));
    s.collectives("coalesced_i32_37x32", 2, |x| alone(split(x.len(), 32, |t| x[t] % 2 == 0)));
    s.collectives("coalesced_tile_i32_64x4", 2, |x| {
        let taken = split(x.len(), 32, |t| x[t] % 2 == 0).into_iter().filter(|group| x[group.threads[0]] % 2 == 0);
        let tiles = |group: Group| {
            let count = group.threads.len().div_ceil(4);
            let tiles = group.threads.chunks(4).enumerate().map(|(i, tile)| Group::part(tile.to_vec(), i, count));
            tiles.collect::<Vec<_>>()
        };
        taken.flat_map(tiles).collect()
    });
    // Of two parts, the one for which the predicate holds is the second.
    let pair = |x: &[i32], size: usize| {
        let mut groups = split(x.len(), size, |t| x[t] % 3 == 0);
        let whole = |group: &Group| group.of == 1;
        groups.iter_mut().filter(|g| !whole(g)).for_each(|g| g.number = usize::from(x[g.threads[0]] % 3 == 0));
        groups
    };
    s.collectives("binary_partition_i32_96x32", 3, |x| pair(x, 32));
    s.collectives("binary_partition_i32_64x8", 3, |x| pair(x, 8));
    s.collectives("labeled_partition_i32_96x32", 7, |x| split(x.len(), 32, |t| x[t] % 7));
    s.collectives("labeled_partition_i32_64x16", 3, |x| split(x.len(), 16, |t| x[t] % 3));
    s.case("invoke_one_i32_96x32", 5, 96, |x: &mut [i32]| {
        let parts = split(96, 32, |t| x[t] % 5);
        let mut y = vec![fold(x.to_vec(), plus); 97];
        for part in parts {
            let sum = fold(part.threads.iter().map(|&t| x[t]), plus);
            part.threads.iter().for_each(|t| y[1 + t] = sum.wrapping_mul(2));
        }
        y
    });

    s.group_reduce("plus_i32_96x32", plus::<i32>);
    s.group_reduce("plus_u8_64x16", plus::<u8>);
    s.group_reduce("plus_f32_40x8", plus::<f32>);
    s.group_reduce("plus_u64_96x32", plus::<u64>);
    s.group_reduce("less_i32_96x16", |a: i32, b| a.min(b));
    s.group_reduce("less_f64_64x32", |a: f64, b| a.min(b));
    s.group_reduce("greater_u32_96x32", maximum::<u32>);
    s.group_reduce("greater_i16_64x4", maximum::<i16>);
    s.group_reduce("bit_and_u32_96x32", |a: u32, b| a & b);
    s.group_reduce("bit_or_i32_64x16", |a: i32, b| a | b);
    s.group_reduce("bit_xor_u64_96x8", |a: u64, b| a ^ b);

    s.group_scan("plus_i32_96x32", plus::<i32>, Some(0));
    s.group_scan("plus_u64_64x8", plus::<u64>, Some(0));
    s.group_scan("plus_f32_40x4", plus::<f32>, Some(0.0));
    s.group_scan("greater_i32_96x16", maximum::<i32>, None);
    // Groups have the later thread's value before the earlier one's.
    s.group_scan("compose_affine_64x32", |f, g| compose(g, f), None);

    s.case("scan_update_i32_64x8", 1234, 64, |x: &mut [i32]| {
        let mut y: Vec<i32> = x.chunks(8).flat_map(|tile| exclusive(tile, 0, plus)).collect();
        y.push(plus(1234, fold(x.to_vec(), plus)));
        y
    });
    s.case("reduce_update_i32_96x16", 99, 96, |x: &mut [i32]| vec![plus(99, fold(x.to_vec(), plus)); 96]);

    s.copy::<u8>("u8_96x5");
    s.copy::<i16>("i16_37x4");
    s.copy::<i32>("i32_64x3");
    s.copy::<f64>("f64_96x2");
    s.case("staged_copy_f32_96x5", 5, 480, |x: &mut [f32]| {
        (0..96).map(|t| x.iter().skip(t).step_by(96).sum::<f32>()).collect()
    });
    s.tile_copy("i32_96x32", 70);
    s.tile_copy("i32_64x8", 21);

    s.barrier("i32_96x1", 9);
    s.barrier("i32_37x1", 6);

    s.grid("grid_rounds_i32_64x7", 6, 64 * 7, |x: &mut [i32]| {
        let mut y = x.to_vec();
        for _ in 0..6 {
            y = (0..y.len()).map(|i| y[i].wrapping_mul(3).wrapping_add(y[(i + 1) % y.len()])).collect();
        }
        y
    });
    s.grid("grid_sum_i32_96x5", 1111, 1111, |x: &mut [i32]| {
        let part = |block| fold((0..x.len()).filter(|i| i / 96 % 5 == block).map(|i| x[i]), plus);
        [vec![fold(x.to_vec(), plus)], (0..5).map(part).collect()].concat()
    });
}

// ---------------------------------------------------------------------------------------------------------------------
// The references

impl Suite {
    fn block_reduce<T: Value>(&mut self, name: &str, n: usize, op: fn(T, T) -> T) {
        let [threads, items] = extents(name);
        self.case(&format!("block_reduce_{name}"), n, threads * items, |x: &mut [T]| {
            vec![fold(x.to_vec(), op), fold(x.iter().copied().step_by(items).take(n), op)]
        });
    }

    fn block_scan<T: Value>(&mut self, name: &str, op: fn(T, T) -> T) {
        let [threads, items] = extents(name);
        self.case(&format!("block_scan_{name}"), 0, threads * items, |x: &mut [T]| {
            [inclusive(x, op), exclusive(x, x[0], op), vec![fold(x.to_vec(), op); threads]].concat()
        });
    }

    fn carried_scan<T: Value>(&mut self, name: &str, n: usize, op: fn(T, T) -> T) {
        self.case(&format!("carried_scan_{name}"), n, n, |x: &mut [T]| exclusive(x, x[0], op));
    }

    fn grid_scan<T: Value>(&mut self, name: &str, n: usize, op: fn(T, T) -> T) {
        self.grid(&format!("grid_scan_{name}"), n, n, |x: &mut [T]| inclusive(x, op));
    }

    fn warp_reduce<T: Value>(&mut self, name: &str, n: usize, op: fn(T, T) -> T) {
        let [threads, lanes] = extents(name);
        self.case(&format!("warp_reduce_{name}"), n, threads, |x: &mut [T]| {
            let warps = || x.chunks(lanes);
            let mut y: Vec<T> = warps().map(|warp| fold(warp.to_vec(), op)).collect();
            y.extend(warps().map(|warp| fold(warp[..n].to_vec(), op)));
            // A segment begins where the rest of the thread's number is this, and with each warp.
            for first in [0, 1] {
                let begins = |t: usize| t.is_multiple_of(lanes) || t % 5 == first;
                let end = |t: usize| (t + 1..threads).find(|&t| begins(t)).unwrap_or(threads);
                y.extend((0..threads).map(|t| if begins(t) { fold(x[t..end(t)].to_vec(), op) } else { x[t] }));
            }
            y
        });
    }

    fn warp_reduce_batched<T: Value>(&mut self, name: &str, op: fn(T, T) -> T) {
        let [threads, items, lanes] = extents(name);
        self.case(&format!("warp_reduce_batched_{name}"), 0, threads * items, |x: &mut [T]| {
            let batch = |warp: &[T], item| fold(warp.iter().copied().skip(item).step_by(items), op);
            x.chunks(lanes * items).flat_map(|warp| (0..items).map(move |item| batch(warp, item))).collect()
        });
    }

    fn warp_scan<T: Value>(&mut self, name: &str, n: usize, op: fn(T, T) -> T) {
        let [threads, lanes] = extents(name);
        self.case(&format!("warp_scan_{name}"), n, threads, |x: &mut [T]| {
            let scanned: Vec<T> = x.chunks(lanes).flat_map(|warp| inclusive(warp, op)).collect();
            let after = x.chunks(lanes).flat_map(|warp| exclusive(warp, x[0], op)).collect();
            let some = (0..threads).map(|t| if t % lanes < n { scanned[t] } else { x[t] }).collect();
            let all = (0..threads).map(|t| scanned[t / lanes * lanes + lanes - 1]).collect();
            [scanned.clone(), after, some, all].concat()
        });
    }

    fn radix_sort<T: Key>(&mut self, name: &str) {
        let [threads, items] = extents(name);
        let keys = self.keys(threads * items);
        self.run(name, 0, 1, keys, |x: &mut [T]| {
            let mut y = x.to_vec();
            x.sort_by_key(|&key| key.order());
            y.sort_by_key(|&key| Reverse(key.order()));
            y
        });
    }

    fn radix_sort_bits(&mut self, name: &str, n: usize) {
        let [threads, items] = extents(name);
        self.case(&format!("radix_sort_bits_{name}"), n, threads * items, |x: &mut [u32]| {
            let mut y = x.to_vec();
            y.sort_by_key(|key| key >> n & 0x1fff);
            y
        });
    }

    fn radix_sort_pairs<T: Key, V: Element>(&mut self, name: &str, value: fn(usize) -> V) {
        let [threads, items] = extents(name);
        let keys = self.keys(threads * items);
        self.run(&format!("radix_sort_pairs_{name}"), 0, 1, keys, |x: &mut [T]| {
            let down = name.starts_with("down");
            let places = sort(x, |key| if down { !key.order() } else { key.order() });
            places.into_iter().map(value).collect()
        });
    }

    fn radix_rank(&mut self, name: &str, n: usize) {
        let [threads, items] = extents(name);
        self.case(&format!("radix_rank_{name}"), n, threads * items, |x: &mut [u32]| {
            let down = if name.contains("down") { 31 } else { 0 };
            let mut ranks = vec![0; x.len()];
            let places = sort(&mut x.to_vec(), |key| u64::from(key >> n & 31 ^ down));
            places.into_iter().enumerate().for_each(|(rank, place)| ranks[place] = rank as i32);
            ranks
        });
    }

    fn merge_sort<T: Key>(&mut self, name: &str, n: usize) {
        let [threads, items] = extents(name);
        let mut keys: Vec<T> = self.values(threads * items);
        // What fills the tile up must not come before any other.
        let last = (0..n).max_by_key(|&i| keys[i].order()).expect("a key");
        keys.swap(n - 1, last);
        self.run(&format!("merge_sort_{name}"), n, 1, keys, |x: &mut [T]| {
            sort(&mut x[..n], T::order).into_iter().map(|place| place as i32).collect()
        });
    }

    fn warp_merge_sort<T: Key>(&mut self, name: &str) {
        let [threads, items, lanes] = extents(name);
        self.case(&format!("warp_merge_sort_{name}"), 0, threads * items, |x: &mut [T]| {
            let warps = x.chunks_mut(lanes * items).enumerate();
            let places = warps.map(|(w, x)| (w * lanes * items, sort(x, T::order)));
            places.flat_map(|(base, places)| places.into_iter().map(move |place| (base + place) as i32)).collect()
        });
    }

    fn load_store<T: Value>(&mut self, name: &str, n: usize) {
        let [threads, items] = extents(name);
        let holder = |i: usize| if name.starts_with("striped") { i % threads } else { i / items };
        self.case(&format!("load_store_{name}"), n, n, |x: &mut [T]| {
            (0..n).map(|i| x[i].plus(T::count(holder(i)))).collect()
        });
    }

    fn warp_load_store<T: Value>(&mut self, name: &str, n: usize) {
        let [threads, items, lanes] = extents(name);
        let holder = |i: usize| if name.starts_with("striped") { i % lanes } else { i / items % lanes };
        let count = (threads - lanes) * items + n;
        self.case(&format!("warp_load_store_{name}"), n, count, |x: &mut [T]| {
            (0..count).map(|i| x[i].plus(T::count(holder(i % (lanes * items))))).collect()
        });
    }

    fn exchange<T: Value>(&mut self, name: &str) {
        let [threads, items] = extents(name);
        self.case(&format!("exchange_{name}"), 0, threads * items, |x: &mut [T]| {
            let mut y = vec![to_striped(x, items), to_blocked(x, items), scatter(x), to_striped(&scatter(x), items)];
            if threads % 32 == 0 {
                let warps = || x.chunks(32 * items);
                y.push(warps().flat_map(|warp| to_striped(warp, items)).collect());
                y.push(warps().flat_map(|warp| to_blocked(warp, items)).collect());
            }
            y.concat()
        });
    }

    fn warp_exchange<T: Value>(&mut self, name: &str) {
        let [threads, items, lanes] = extents(name);
        self.case(&format!("warp_exchange_{name}"), 0, threads * items, |x: &mut [T]| {
            let warps = || x.chunks(lanes * items);
            let mut y: Vec<T> = warps().flat_map(|warp| to_striped(warp, items)).collect();
            y.extend(warps().flat_map(|warp| to_blocked(warp, items)));
            if name.starts_with("smem") {
                y.extend(warps().flat_map(|warp| to_striped(&scatter(warp), items)));
            }
            y
        });
    }

    fn shuffle<T: Value>(&mut self, name: &str, n: usize) {
        let [threads, items] = extents(name);
        self.case(&format!("shuffle_{name}"), n, threads * items, |x: &mut [T]| {
            let firsts: Vec<T> = x.iter().copied().step_by(items).collect();
            let mut y: Vec<T> = (n..n + threads).map(|t| *firsts.get(t).unwrap_or(&x[0])).collect();
            y.extend((n..n + threads).map(|t| firsts[t % threads]));
            y.push(x[0]);
            y.extend_from_slice(&x[..x.len() - 1]);
            y.extend_from_slice(&x[1..]);
            y.push(x[0]);
            y
        });
    }

    fn discontinuity<T: Value + PartialEq>(&mut self, name: &str) {
        let [threads, items] = extents(name);
        let edge = T::count(1);
        let x = (0..threads * items).map(|_| T::count(self.random.int(0, 3) as usize)).collect();
        self.run(&format!("discontinuity_{name}"), 1, 1, x, |x: &mut [T]| {
            let last = x.len() - 1;
            let head = |i: usize| i == 0 || x[i] != x[i - 1];
            let tail = |i: usize| i == last || x[i] != x[i + 1];
            let both = |i: usize| {
                let head = if i == 0 { x[0] != edge } else { head(i) };
                let tail = if i == last { x[last] != edge } else { tail(i) };
                i32::from(head) + 2 * i32::from(tail)
            };
            let all = 0..x.len();
            let flags = all.clone().map(|i| head(i).into()).chain(all.clone().map(|i| tail(i).into()));
            flags.chain(all.map(both)).collect()
        });
    }

    fn difference<T: Value>(&mut self, name: &str, n: usize, minus: fn(T, T) -> T) {
        let [threads, items] = extents(name);
        let count = threads * items;
        self.case(&format!("difference_{name}"), n, count, |x: &mut [T]| {
            let left = (0..count).map(|i| if i == 0 { x[0] } else { minus(x[i], x[i - 1]) });
            let left_some = (0..count).map(|i| if i >= n { x[i] } else { minus(x[i], x[i.saturating_sub(1)]) });
            let right = (0..count).map(|i| minus(x[i], x[(i + 1) % count]));
            let right_some = (0..count).map(|i| if i + 1 >= n { x[i] } else { minus(x[i], x[i + 1]) });
            left.chain(left_some).chain(right).chain(right_some).collect()
        });
    }

    fn run_length(&mut self, name: &str, n: usize, values: u32) {
        let [threads, runs] = extents(name);
        self.case(&format!("run_length_{name}"), n, threads * runs, |x: &mut [u32]| {
            x[..n].iter().flat_map(|&run| (0..1 + run % 6).map(move |i| (run >> 8 & values) * 8 + i)).collect()
        });
    }

    fn histogram<T: Element + PartialEq>(&mut self, name: &str, bins: usize, bin: fn(usize) -> T) {
        let [threads, items] = extents(name);
        // The lower half is hit more often.
        let mut draw = || self.random.int(0, bins as i32) as usize / if self.random.int(0, 2) == 0 { 1 } else { 2 };
        let x = (0..threads * items).map(|_| bin(draw())).collect();
        self.run(&format!("histogram_{name}"), 0, 1, x, |x: &mut [T]| {
            let count = |i: usize| x.iter().filter(|&&x| x == bin(i)).count() as u32;
            (0..bins).map(count).chain((0..bins).map(|i| 2 * count(i))).collect()
        });
    }

    /// A kernel that has what [`Group::collectives`] says of the groups that threads with these values form.
    fn collectives(&mut self, name: &str, n: usize, form: impl Fn(&[i32]) -> Vec<Group>) {
        let [threads, _] = extents(name);
        let x = self.group_values(threads);
        self.run(name, n, 1, x, |x: &mut [i32]| Group::collectives(&form(x), x));
    }

    fn tile(&mut self, name: &str) {
        let [threads, size] = extents(name);
        let x = self.group_values(threads);
        self.run(name, 0, 1, x, |x: &mut [i32]| {
            let tiles = (0..threads / size).map(|i| Group::part(i * size..(i + 1) * size, i, threads / size));
            let mut y = Group::collectives(&tiles.collect::<Vec<_>>(), x);
            y.extend((0..threads).map(|t| x[t ^ (size - 1)]));
            y
        });
    }

    fn tile_shuffle<T: Value>(&mut self, name: &str) {
        let [threads, size] = extents(name);
        self.case(&format!("tile_shuffle_{name}"), 0, threads, |x: &mut [T]| {
            (0..threads).map(|t| x[t / size * size + (t + 1) % size]).collect()
        });
    }

    fn group_reduce<T: Value>(&mut self, name: &str, op: fn(T, T) -> T) {
        let [threads, size] = extents(name);
        self.case(&format!("reduce_{name}"), 0, threads, |x: &mut [T]| {
            let mut y = x.repeat(2);
            for (base, groups) in [split(threads, size, |_| 0), split(threads, 32, |t| t % 3 == 0)].iter().enumerate() {
                for Group { threads: group, .. } in groups {
                    let all = fold(group.iter().map(|&t| x[t]), op);
                    group.iter().for_each(|t| y[base * threads + t] = all);
                }
            }
            y
        });
    }

    /// `zero`: what the exclusive scan has for a group's first thread, where that is not x.
    fn group_scan<T: Value>(&mut self, name: &str, op: fn(T, T) -> T, zero: Option<T>) {
        let [threads, size] = extents(name);
        self.case(&format!("scan_{name}"), 0, threads, |x: &mut [T]| {
            let mut y = x.repeat(4);
            for (base, groups) in [split(threads, size, |_| 0), split(threads, 32, |t| t % 3 == 0)].iter().enumerate() {
                for Group { threads: group, .. } in groups {
                    let values: Vec<T> = group.iter().map(|&t| x[t]).collect();
                    let scanned = inclusive(&values, op);
                    for (rank, t) in group.iter().enumerate() {
                        y[2 * base * threads + t] = scanned[rank];
                        y[(2 * base + 1) * threads + t] =
                            if rank > 0 { scanned[rank - 1] } else { zero.unwrap_or(values[0]) };
                    }
                }
            }
            y
        });
    }

    fn copy<T: Value>(&mut self, name: &str) {
        let [threads, items] = extents(name);
        self.case(&format!("copy_{name}"), 0, threads * items, |x: &mut [T]| x[3..].iter().rev().copied().collect());
    }

    fn tile_copy(&mut self, name: &str, n: usize) {
        let [threads, size] = extents(name);
        self.case(&format!("tile_copy_{name}"), n, threads / size * n, |x: &mut [i32]| {
            x.chunks(n).flat_map(|part| part.iter().rev().copied()).collect()
        });
    }

    fn barrier(&mut self, name: &str, n: usize) {
        let [threads, _] = extents(name);
        self.case(&format!("barrier_{name}"), n, threads, |x: &mut [i32]| {
            let mut y = x.to_vec();
            for _ in 0..n {
                y = (0..threads).map(|t| y[t].wrapping_mul(3).wrapping_add(y[(t + 1) % threads])).collect();
            }
            y
        });
    }

    /// Values of which some are alike by their low bits.
    fn group_values(&mut self, count: usize) -> Vec<i32> {
        self.random.ints(count, -500, 500)
    }
}

fn fold<T>(x: impl IntoIterator<Item = T>, op: fn(T, T) -> T) -> T {
    x.into_iter().reduce(op).expect("a value")
}

fn inclusive<T: Copy>(x: &[T], op: fn(T, T) -> T) -> Vec<T> {
    let mut y = exclusive(&x[1..], x[0], op);
    y.extend(x[1..].last().map(|&last| op(y[y.len() - 1], last)));
    y
}

fn exclusive<T: Copy>(x: &[T], first: T, op: fn(T, T) -> T) -> Vec<T> {
    x.iter().scan(first, |sum, &x| Some(std::mem::replace(sum, op(*sum, x)))).collect()
}

/// Sorts, keeping the order of equal ones; where each was before.
fn sort<T: Copy>(x: &mut [T], order: impl Fn(T) -> u64) -> Vec<usize> {
    let mut places: Vec<usize> = (0..x.len()).collect();
    places.sort_by_key(|&i| order(x[i]));
    let old = x.to_vec();
    places.iter().zip(x).for_each(|(&place, x)| *x = old[place]);
    places
}

/// What threads hold in stripes, one thread after another: of thread t and item i, number i * threads + t.
fn to_striped<T: Copy>(x: &[T], items: usize) -> Vec<T> {
    let threads = x.len() / items;
    (0..x.len()).map(|at| x[at % items * threads + at / items]).collect()
}

/// The inverse.
fn to_blocked<T: Copy>(x: &[T], items: usize) -> Vec<T> {
    to_striped(x, x.len() / items)
}

/// The permutation that the kernels scatter by.
fn scatter<T: Copy>(x: &[T]) -> Vec<T> {
    let mut y = x.to_vec();
    (0..x.len()).for_each(|i| y[(i * 1009 + 7) % x.len()] = x[i]);
    y
}

/// Threads of a block that form a cooperative group.
struct Group {
    threads: Vec<usize>,
    /// Which of how many parts of the parent.
    number: usize,
    of: usize,
}

impl Group {
    fn part(threads: impl IntoIterator<Item = usize>, number: usize, of: usize) -> Self {
        Self { threads: threads.into_iter().collect(), number, of }
    }

    /// The words that each thread of each group has in the end; zeros of threads in none.
    fn collectives(groups: &[Self], x: &[i32]) -> Vec<i32> {
        let mut y = vec![0; 13 * x.len()];
        for group in groups {
            let values: Vec<i32> = group.threads.iter().map(|&t| x[t]).collect();
            let size = values.len();
            let those = |holds: &dyn Fn(i32) -> bool| {
                (0..size).filter(|&rank| holds(values[rank])).fold(0, |mask, rank| mask | 1u32 << rank) as i32
            };
            let equal = values.iter().all(|x| (x % 16 == 5) == (values[0] % 16 == 5));
            for (rank, t) in group.threads.iter().enumerate() {
                y[13 * t..][..13].copy_from_slice(&[
                    size as i32,
                    rank as i32,
                    group.number as i32,
                    group.of as i32,
                    values[(3 * rank + 1) % size],
                    values[rank.saturating_sub(1)],
                    values[if rank + 2 < size { rank + 2 } else { rank }],
                    those(&|x| x & 1 == 1),
                    values.iter().any(|x| x % 16 == 3).into(),
                    values.iter().all(|x| x % 16 != 5).into(),
                    those(&|x| x % 4 == values[rank] % 4),
                    if equal { those(&|_| true) } else { 0 },
                    equal.into(),
                ]);
            }
        }
        y
    }
}

/// Parts each tile of threads by a label, in the order of their first threads.
fn split<L: PartialEq>(threads: usize, size: usize, label: impl Fn(usize) -> L) -> Vec<Group> {
    let mut groups = Vec::new();
    for first in (0..threads).step_by(size) {
        let mut parts: Vec<Vec<usize>> = Vec::new();
        for t in first..threads.min(first + size) {
            match parts.iter_mut().find(|part| label(part[0]) == label(t)) {
                Some(part) => part.push(t),
                None => parts.push(vec![t]),
            }
        }
        let of = parts.len();
        groups.extend(parts.into_iter().enumerate().map(|(number, threads)| Group { threads, number, of }));
    }
    groups
}

// ---------------------------------------------------------------------------------------------------------------------
// Values

/// What kernels move and combine.
trait Value: Element + Debug {
    /// A value for each pattern; sums of such have no rounding.
    fn of(bits: u64) -> Self;
    fn count(number: usize) -> Self;
    fn plus(self, other: Self) -> Self;
}

/// What kernels sort.
trait Key: Value {
    /// A value for each pattern: all that there are, and often the same ones.
    fn any(bits: u64) -> Self {
        Self::of(if bits >> 62 == 0 { bits % 5 } else { bits })
    }
    /// Ascending as the keys are.
    fn order(self) -> u64;
}

fn plus<T: Value>(a: T, b: T) -> T {
    a.plus(b)
}

fn maximum<T: PartialOrd>(a: T, b: T) -> T {
    if b > a { b } else { a }
}

macro_rules! integers {
    ($($type:ty)*) => {$(
        impl Value for $type {
            fn of(bits: u64) -> Self {
                bits as Self
            }
            fn count(number: usize) -> Self {
                number as Self
            }
            fn plus(self, other: Self) -> Self {
                self.wrapping_add(other)
            }
        }
        impl Key for $type {
            fn order(self) -> u64 {
                // The least is 0.
                self.wrapping_sub(Self::MIN) as u64 & (u64::MAX >> (64 - Self::BITS))
            }
        }
    )*};
}

integers!(u8 i16 u16 i32 u32 i64 u64);

/// Zeros of both signs are equal to a sort by digits; NaN lies where its bits do.
fn float_order(bits: u64, width: u32) -> u64 {
    let sign = 1 << (width - 1);
    let bits = if bits == sign { 0 } else { bits };
    if bits & sign == 0 { bits | sign } else { !bits & (u64::MAX >> (64 - width)) }
}

macro_rules! floats {
    ($($type:ty: $bits:ty)*) => {$(
        impl Value for $type {
            fn of(bits: u64) -> Self {
                ((bits % 1024) as i32 - 512) as Self / 64.0
            }
            fn count(number: usize) -> Self {
                number as Self
            }
            fn plus(self, other: Self) -> Self {
                self + other
            }
        }
        impl Key for $type {
            fn any(bits: u64) -> Self {
                const SPECIAL: [$type; 6] = [0.0, -0.0, <$type>::INFINITY, <$type>::NEG_INFINITY, <$type>::NAN, 1.0];
                if bits >> 62 == 0 { SPECIAL[bits as usize % 6] } else { <$type>::from_bits(bits as $bits) }
            }
            fn order(self) -> u64 {
                float_order(self.to_bits().into(), <$bits>::BITS)
            }
        }
    )*};
}

floats!(f32: u32 f64: u64);

/// A half, by its bits.
#[derive(Clone, Copy, Debug)]
struct F16(u16);

impl Value for F16 {
    fn of(bits: u64) -> Self {
        Self(bits as u16)
    }
    fn count(number: usize) -> Self {
        Self(number as u16)
    }
    fn plus(self, _: Self) -> Self {
        unreachable!("halves are only sorted")
    }
}

impl Key for F16 {
    fn any(bits: u64) -> Self {
        Self(if bits >> 62 == 0 { [0, 0x8000, 0x7c00, 0xfc00, 0x7e00, 0x3c00][bits as usize % 6] } else { bits as u16 })
    }
    fn order(self) -> u64 {
        float_order(self.0.into(), 16)
    }
}

/// t -> scale t + shift.
type Affine = [u32; 2];
type Triple = [u32; 3];

/// f, then g.
fn compose(f: Affine, g: Affine) -> Affine {
    [f[0].wrapping_mul(g[0]), f[1].wrapping_mul(g[0]).wrapping_add(g[1])]
}

impl<const N: usize> Element for [u32; N] {
    const SIZE: usize = 4 * N;
    fn le_bytes(self) -> Vec<u8> {
        self.iter().flat_map(|word| word.to_le_bytes()).collect()
    }
    fn from_le(bytes: &[u8]) -> Self {
        std::array::from_fn(|i| Element::from_le(&bytes[4 * i..][..4]))
    }
}

impl<const N: usize> Value for [u32; N] {
    fn of(bits: u64) -> Self {
        std::array::from_fn(|i| (bits >> (16 * i)) as u32)
    }
    fn count(number: usize) -> Self {
        [number as u32; N]
    }
    fn plus(self, other: Self) -> Self {
        std::array::from_fn(|i| self[i].wrapping_add(other[i]))
    }
}

/// Ordered by `high` and `low`.
#[derive(Clone, Copy, Debug)]
struct Record {
    high: u32,
    low: i16,
    other: i16,
}

impl Value for Record {
    fn of(bits: u64) -> Self {
        Self { high: (bits as u32 % 7) << 20, low: (bits >> 32) as i16 % 5, other: (bits >> 48) as i16 }
    }
    fn count(number: usize) -> Self {
        Self::of(number as u64)
    }
    fn plus(self, _: Self) -> Self {
        unreachable!("records are only sorted")
    }
}

impl Key for Record {
    fn order(self) -> u64 {
        u64::from(self.high) << 16 | self.low.order()
    }
}

impl Element for Record {
    const SIZE: usize = 8;
    fn le_bytes(self) -> Vec<u8> {
        [self.high.le_bytes(), self.low.le_bytes(), self.other.le_bytes()].concat()
    }
    fn from_le(bytes: &[u8]) -> Self {
        let [high, low, other] = [&bytes[..4], &bytes[4..6], &bytes[6..]];
        Self { high: Element::from_le(high), low: Element::from_le(low), other: Element::from_le(other) }
    }
}

impl Element for F16 {
    const SIZE: usize = 2;
    fn le_bytes(self) -> Vec<u8> {
        self.0.le_bytes()
    }
    fn from_le(bytes: &[u8]) -> Self {
        Self(Element::from_le(bytes))
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Running

/// A file of kernels, and which of them were right.
struct Suite {
    sim: Sim,
    random: Random,
    right: Vec<String>,
    wrong: Vec<String>,
}

impl Suite {
    fn values<T: Value>(&mut self, count: usize) -> Vec<T> {
        (0..count).map(|_| T::of(self.random.bits())).collect()
    }

    fn keys<T: Key>(&mut self, count: usize) -> Vec<T> {
        (0..count).map(|_| T::any(self.random.bits())).collect()
    }

    /// One block on `count` random values.
    fn case<X: Value, Y: Element>(
        &mut self,
        name: &str,
        n: usize,
        count: usize,
        want: impl FnOnce(&mut [X]) -> Vec<Y>,
    ) {
        let x = self.values(count);
        self.run(name, n, 1, x, want);
    }

    /// A cooperative grid, as many blocks as the last extent says.
    fn grid<X: Value, Y: Element>(
        &mut self,
        name: &str,
        n: usize,
        count: usize,
        want: impl FnOnce(&mut [X]) -> Vec<Y>,
    ) {
        let blocks = name.rsplit('x').next().and_then(|blocks| blocks.parse().ok()).expect("blocks");
        let x = self.values(count);
        self.run(name, n, blocks, x, want);
    }

    /// Launches a kernel with x, y and n; `want` turns x into what it shall be then, and has y.
    fn run<X: Element, Y: Element>(
        &mut self,
        name: &str,
        n: usize,
        blocks: u32,
        mut x: Vec<X>,
        want: impl FnOnce(&mut [X]) -> Vec<Y>,
    ) {
        let first = name.rsplit('_').next().and_then(|extents| extents.split('x').next());
        let threads: u32 = first.and_then(|threads| threads.parse().ok()).expect("threads");
        let shape = Shape::new(blocks, threads);
        let shape = if blocks > 1 { shape.cooperative() } else { shape };
        let (launched, x_dev) = (x.clone(), self.sim.upload(&x));
        let y = want(&mut x);
        let y_dev = self.sim.alloc::<Y>(y.len());
        let launch = |sim: &Sim| sim.try_launch(name, shape, args![x_dev, y_dev, n as i32]);
        if HANDED_ON.contains(&name) {
            let finding = launch(&self.sim).expect_err("a check is off that finds nothing");
            assert!(finding.detail.contains("register"), "{finding}");
            self.sim.write(x_dev, &launched);
            self.sim.device.checks.registers = false;
        }
        if let Some((_, kind)) = EXCUSED.iter().find(|(kernel, _)| name.starts_with(kernel)) {
            let finding = launch(&self.sim).expect_err("a check is off that finds nothing");
            assert_eq!(finding.kind, *kind, "{finding}");
            self.sim.write(x_dev, &launched);
            match kind {
                Kind::Race => self.sim.device.checks.race = false,
                _ => self.sim.device.checks.shared_init = false,
            }
        }
        let result = launch(&self.sim).map_err(|finding| finding.to_string());
        self.sim.device.checks = CHECKS;
        let result = result.and_then(|()| same("x", &self.sim.download(x_dev, x.len()), &x));
        match result.and_then(|()| same("y", &self.sim.download(y_dev, y.len()), &y)) {
            Ok(()) => self.right.push(name.to_owned()),
            Err(what) => self.wrong.push(format!("{name}: {what}")),
        }
    }
}

/// The numbers at a name's end.
fn extents<const N: usize>(name: &str) -> [usize; N] {
    let numbers = name.rsplit('_').next().expect("extents").split('x');
    let numbers: Vec<usize> = numbers.map(|number| number.parse().expect("a number")).collect();
    numbers.try_into().expect("so many extents")
}

fn same<T: Element>(array: &str, got: &[T], want: &[T]) -> Result<(), String> {
    let differ = |&i: &usize| got[i].le_bytes() != want[i].le_bytes();
    let Some(i) = (0..want.len()).find(differ) else { return Ok(()) };
    let count = (0..want.len()).filter(differ).count();
    let [got, want] = [got[i], want[i]].map(|value| value.le_bytes().into_iter().rev().collect::<Vec<u8>>());
    Err(format!("{array}[{i}] is {got:02x?}, not {want:02x?}, and so {count} in all"))
}
