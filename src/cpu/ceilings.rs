//! What this machine can do at best, measured: the ceilings that benchmarks are read against.

use super::gemm::{pack_transposed, packed_len, product};
use super::isa::{Isa, LANES, exp, per_isa};
use rayon::prelude::*;
use std::time::Instant;

/// Measured ceilings of all threads of rayon's current pool together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ceilings {
    /// Matrix product of 2048 x 2048 x 2048 in f32, GFLOP/s.
    pub sgemm_gflops: f64,
    /// Copy of 256 MiB, read plus written, GB/s.
    pub copy_gbs: f64,
    /// Exponentials of the inner loops, on data in cache, 1e9 per second.
    pub exp_gs: f64,
}

/// Measures the ceilings; the best of a few runs each, about a second in all.
pub fn ceilings() -> Ceilings {
    const N: usize = 2048;
    const ROWS: usize = 128;
    let isa = Isa::detect();
    let a = vec![1.0f32; N * N];
    let mut packed = vec![0.0f32; packed_len(N, N)];
    let mut c = vec![0.0f32; N * N];
    let sgemm = best(3, || {
        pack_transposed(isa, &a, N, N, &mut packed);
        a.par_chunks(ROWS * N).zip(c.par_chunks_mut(ROWS * N)).for_each(|(rows, out)| {
            product(isa, [ROWS, N, N], rows, &packed, out);
        });
    });
    let from = vec![1.0f32; 32 << 20];
    let mut to = vec![0.0f32; 32 << 20];
    let copy = best(5, || {
        from.par_chunks(1 << 20).zip(to.par_chunks_mut(1 << 20)).for_each(|(from, to)| to.copy_from_slice(from));
    });
    const VALUES: usize = 1 << 12;
    const REPEATS: usize = 512;
    let exps = best(5, || {
        (0..64).into_par_iter().for_each(|_| {
            let mut values = [-1.0f32; VALUES];
            for _ in 0..REPEATS {
                exp_of_minus(isa, &mut values);
            }
            std::hint::black_box(&values);
        });
    });
    Ceilings {
        sgemm_gflops: 2.0 * (N * N * N) as f64 / sgemm / 1e9,
        copy_gbs: 2.0 * (from.len() * size_of::<f32>()) as f64 / copy / 1e9,
        exp_gs: (64 * REPEATS * VALUES) as f64 / exps / 1e9,
    }
}

/// The shortest of `runs` runs, in seconds.
fn best(runs: usize, mut work: impl FnMut()) -> f64 {
    (0..runs)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed().as_secs_f64()
        })
        .fold(f64::INFINITY, f64::min)
}

per_isa! {
    /// `v = e^-v`, which stays in [0, 1] however often it is repeated.
    fn exp_of_minus(values: &mut [f32]) {
        for v in values.as_chunks_mut::<LANES>().0 {
            exp(V::zero().sub(V::load(v))).store(v);
        }
    }
}
