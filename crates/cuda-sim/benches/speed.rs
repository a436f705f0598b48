//! Thread-instructions a second, on one core and on all with every usual check, and on all without the checks that can be
//! left out: `cargo bench -p cuda-sim`.

use cudrift_sim::device::Checks;
use std::time::Instant;

#[path = "../tests/support/mod.rs"]
mod support;

use support::{Shape, Sim, args};

const SIZE: u32 = 256;
const RUNS: usize = 9;

fn main() {
    // With `cargo test --benches` each kernel runs once.
    let runs = if std::env::args().any(|arg| arg == "--bench") { RUNS } else { 1 };
    let count = (SIZE * SIZE) as usize;
    let none = Checks { race: false, shared_init: false, global_init: false, ..Checks::USUAL };
    let head = ["thread instr.", "M/s, 1 core", "M/s, all", "no checks"].map(|word| format!("{word:>14}"));
    println!("{:<28}{}", format!("product {SIZE}^3"), head.concat());
    for (file, kernel, threads) in [("gemm_f32.cu", "gemm_blocked", 256), ("gemm_f16.cu", "gemm_f16", 128)] {
        let mut sim = Sim::new(file);
        let (a, b) = if kernel == "gemm_f16" {
            (sim.upload(&vec![0x3c00u16; count]), sim.upload(&vec![0x3800u16; count]))
        } else {
            (sim.upload(&vec![1f32; count]), sim.upload(&vec![0.5f32; count]))
        };
        let c = sim.alloc::<f32>(count);
        let shape = Shape::new([SIZE / 64, SIZE / 64], threads);
        let mut rates = Vec::new();
        let all = sim.device.workers;
        let mut instructions = 0;
        for (workers, checks) in [(1, Checks::USUAL), (all, Checks::USUAL), (all, none)] {
            (sim.device.workers, sim.device.checks) = (workers, checks);
            let mut seconds: Vec<f64> = (0..runs)
                .map(|_| {
                    let start = Instant::now();
                    let counters = sim.count(kernel, shape, args![a, b, c, SIZE as i32, SIZE as i32, SIZE as i32]);
                    instructions = counters.thread_instructions;
                    start.elapsed().as_secs_f64()
                })
                .collect();
            assert!(sim.download::<f32>(c, count).iter().all(|&sum| sum == SIZE as f32 / 2.0), "{kernel}: a wrong sum");
            seconds.sort_by(f64::total_cmp);
            rates.push(instructions as f64 / seconds[runs / 2] / 1e6);
        }
        println!("{kernel:<28}{instructions:>14}{:>14.0}{:>14.0}{:>14.0}", rates[0], rates[1], rates[2]);
    }
}
