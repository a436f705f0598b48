//! Thread-instructions a second with every check on, on one core and on all: `cargo bench -p cuda-sim`.

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
    println!("{:<28} {:>14} {:>12} {:>12}", format!("product {SIZE}^3"), "thread instr.", "M/s, 1 core", "M/s, all");
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
        for workers in [1, all] {
            sim.device.workers = workers;
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
        println!("{kernel:<28} {instructions:>14} {:>12.0} {:>12.0}", rates[0], rates[1]);
    }
}
