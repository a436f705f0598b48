//! Kernels of many kinds, compiled by nvcc and executed here, against plain Rust. A finding fails a test.

mod support;

use cudrift_sim::counters::{Class, Requests};
use support::{Random, Shape, Sim, args, assert_close, bf16, f16, from_bf16, from_f16};

/// The product of row-major matrices, in f64.
fn product(a: &[f64], b: &[f64], m: usize, n: usize, k: usize) -> Vec<f64> {
    let mut c = vec![0.0; m * n];
    for i in 0..m {
        for l in 0..k {
            for j in 0..n {
                c[i * n + j] += a[i * k + l] * b[l * n + j];
            }
        }
    }
    c
}

#[test]
fn gemm_f32() {
    let sim = Sim::new("gemm_f32.cu");
    let random = &mut Random::new(1);
    for (kernel, tile, block, m, n, k) in [
        ("gemm_tile", 16, [16, 16], 1, 1, 1),
        ("gemm_tile", 16, [16, 16], 33, 50, 37),
        ("gemm_tile", 16, [16, 16], 32, 16, 48),
        ("gemm_blocked", 64, [256, 1], 70, 68, 36),
        ("gemm_blocked", 64, [256, 1], 128, 64, 32),
    ] {
        let (a, b) = (random.floats(m * k), random.floats(k * n));
        let (a_dev, b_dev, c_dev) = (sim.upload(&a), sim.upload(&b), sim.alloc::<f32>(m * n));
        let shape = Shape::new([(n as u32).div_ceil(tile), (m as u32).div_ceil(tile)], block);
        sim.launch(kernel, shape, args![a_dev, b_dev, c_dev, m as i32, n as i32, k as i32]);
        // Sums run in the order of k with fused multiply-adds, so the bits agree.
        let want: Vec<f32> =
            (0..m * n).map(|i| (0..k).fold(0.0, |sum, l| a[i / n * k + l].mul_add(b[l * n + i % n], sum))).collect();
        assert_eq!(sim.download::<f32>(c_dev, m * n), want, "{kernel} {m} {n} {k}");
    }
}

#[test]
fn gemm_f16() {
    let sim = Sim::new("gemm_f16.cu");
    let random = &mut Random::new(2);
    for (m, n, k) in [(1, 8, 8), (70, 72, 40), (64, 64, 96), (129, 136, 32)] {
        let mut halves = |count| -> Vec<u16> { (0..count).map(|_| f16(random.f32().into())).collect() };
        let (a, b) = (halves(m * k), halves(k * n));
        let (a_dev, b_dev, c_dev) = (sim.upload(&a), sim.upload(&b), sim.alloc::<f32>(m * n));
        let shape = Shape::new([(n as u32).div_ceil(64), (m as u32).div_ceil(64)], 128);
        sim.launch("gemm_f16", shape, args![a_dev, b_dev, c_dev, m as i32, n as i32, k as i32]);
        let [a, b] = [a, b].map(|bits| bits.into_iter().map(from_f16).collect::<Vec<_>>());
        assert_close(&sim.download(c_dev, m * n), &product(&a, &b, m, n, k), 1e-6);
    }
}

/// D = A B + C of one warp, where B is given by columns.
fn one_product(a: &[f64], b: &[f64], c: &[f32], k: usize) -> Vec<f64> {
    let by_rows: Vec<f64> = (0..k * 8).map(|i| b[i % 8 * k + i / 8]).collect();
    product(a, &by_rows, 16, 8, k).iter().zip(c).map(|(sum, &c)| sum + f64::from(c)).collect()
}

#[test]
fn mma_of_halves() {
    let sim = Sim::new("mma.cu");
    let random = &mut Random::new(3);
    type Format = (fn(f64) -> u16, fn(u16) -> f64);
    let (half, brain): (Format, Format) = ((f16, from_f16), (bf16, from_bf16));
    for (kernel, k, (round, widen)) in
        [("mma_f16_k16", 16, half), ("mma_bf16_k16", 16, brain), ("mma_f16_k8", 8, half), ("mma_bf16_k8", 8, brain)]
    {
        let mut halves = |count| -> Vec<u16> { (0..count).map(|_| round(random.f32().into())).collect() };
        let (a, b) = (halves(16 * k), halves(8 * k));
        let c = random.floats(16 * 8);
        let (a_dev, b_dev, c_dev, d_dev) = (sim.upload(&a), sim.upload(&b), sim.upload(&c), sim.alloc::<f32>(16 * 8));
        sim.launch(kernel, Shape::new(1, 32), args![a_dev, b_dev, c_dev, d_dev]);
        let [a, b] = [a, b].map(|bits| bits.into_iter().map(widen).collect::<Vec<_>>());
        assert_close(&sim.download(d_dev, 16 * 8), &one_product(&a, &b, &c, k), 1e-6);
    }
}

#[test]
fn mma_of_tf32() {
    let sim = Sim::new("mma.cu");
    let random = &mut Random::new(4);
    for (kernel, k) in [("mma_tf32_k8", 8), ("mma_tf32_k4", 4)] {
        let (a, b, c) = (random.floats(16 * k), random.floats(8 * k), random.floats(16 * 8));
        let (a_dev, b_dev, c_dev, d_dev) = (sim.upload(&a), sim.upload(&b), sim.upload(&c), sim.alloc::<f32>(16 * 8));
        sim.launch(kernel, Shape::new(1, 32), args![a_dev, b_dev, c_dev, d_dev]);
        // To ten binary places, ties away from zero.
        let tf32 = |x: &f32| f64::from(f32::from_bits((x.to_bits() + 0x1000) & !0x1fff));
        let [a, b] = [a, b].map(|values| values.iter().map(tf32).collect::<Vec<_>>());
        assert_close(&sim.download(d_dev, 16 * 8), &one_product(&a, &b, &c, k), 1e-6);
    }
}

#[test]
fn mma_with_half_sums() {
    let sim = Sim::new("mma.cu");
    let random = &mut Random::new(5);
    // Small whole numbers: every sum is exact in f16, whatever the order.
    let mut whole = |count| -> Vec<f64> { (0..count).map(|_| random.int(-7, 8).into()).collect() };
    let (a, b, c) = (whole(16 * 16), whole(8 * 16), whole(16 * 8));
    let [a_dev, b_dev, c_dev] =
        [&a, &b, &c].map(|values| sim.upload(&values.iter().map(|&x| f16(x)).collect::<Vec<_>>()));
    let d_dev = sim.alloc::<u16>(16 * 8);
    sim.launch("mma_f16_sums", Shape::new(1, 32), args![a_dev, b_dev, c_dev, d_dev]);
    let c: Vec<f32> = c.iter().map(|&x| x as f32).collect();
    let got: Vec<f64> = sim.download(d_dev, 16 * 8).into_iter().map(from_f16).collect();
    assert_eq!(got, one_product(&a, &b, &c, 16));
}

#[test]
fn reductions() {
    let sim = Sim::new("reduce.cu");
    let n = 10_007;
    let x: Vec<f32> = Random::new(6).ints(n, -100, 100).into_iter().map(|x| x as f32).collect();
    let total: f32 = x.iter().sum();
    let x_dev = sim.upload(&x);

    let sums = sim.alloc::<f32>(7);
    sim.launch("sum_blocks", Shape::new(7, 256), args![x_dev, sums, n as i32]);
    assert_eq!(sim.download::<f32>(sums, 7).iter().sum::<f32>(), total);

    let (value, place) = (sim.alloc::<f32>(1), sim.alloc::<i32>(1));
    sim.launch("arg_max", Shape::new(1, 192), args![x_dev, value, place, n as i32]);
    let first = x.iter().position(|&x| x == 99.0).unwrap();
    assert_eq!((sim.download(value, 1)[0], sim.download(place, 1)[0]), (99.0f32, first as i32));

    // Twice, since the last block leaves the counter as it was.
    for blocks in [5, 12] {
        let (sums, result) = (sim.alloc::<f32>(blocks as usize), sim.alloc::<f32>(1));
        sim.launch("sum_all", Shape::new(blocks, 128), args![x_dev, sums, result, n as i32]);
        assert_eq!(sim.download::<f32>(result, 1), [total]);
    }
}

#[test]
fn scans() {
    let sim = Sim::new("scan.cu");
    let n = 2_000;
    let x: Vec<u32> = Random::new(7).ints(n, 0, 1000).into_iter().map(|x| x as u32).collect();
    let running = |x: &[u32]| -> Vec<u32> {
        x.iter()
            .scan(0, |sum, &x| {
                *sum += x;
                Some(*sum)
            })
            .collect()
    };
    let blocks = n.div_ceil(256);
    let (x_dev, y, sums) = (sim.upload(&x), sim.alloc::<u32>(n), sim.alloc::<u32>(blocks));
    let (scanned, total) = (sim.alloc::<u32>(blocks), sim.alloc::<u32>(1));
    sim.launch("scan_blocks", Shape::cover(n, 256), args![x_dev, y, sums, n as i32]);
    sim.launch("scan_blocks", Shape::new(1, 256), args![sums, scanned, total, blocks as i32]);
    sim.launch("add_sums", Shape::cover(n, 256), args![y, scanned, n as i32]);
    assert_eq!(sim.download::<u32>(y, n), running(&x));

    let tree = sim.upload(&x[..512]);
    sim.launch("scan_tree", Shape::new(1, 256), args![tree]);
    assert_eq!(sim.download::<u32>(tree, 512), [&[0], &running(&x[..511])[..]].concat());
}

#[test]
fn histogram() {
    let sim = Sim::new("histogram.cu");
    let random = &mut Random::new(8);
    let bytes: Vec<u8> = (0..5_001).map(|_| (random.int(0, 16) * random.int(0, 16)) as u8).collect();
    let (x, counts) = (sim.upload(&bytes), sim.upload(&[0u32; 256]));
    sim.launch("histogram", Shape::new(5, 160), args![x, counts, bytes.len() as i32]);
    let mut want = vec![0u32; 256];
    bytes.iter().for_each(|&byte| want[usize::from(byte)] += 1);
    assert_eq!(sim.download::<u32>(counts, 256), want);
}

#[test]
fn transpose() {
    let sim = Sim::new("transpose.cu");
    for (rows, columns) in [(1, 1), (45, 70), (64, 32)] {
        let x = Random::new(9).floats(rows * columns);
        let (x_dev, y) = (sim.upload(&x), sim.alloc::<f32>(x.len()));
        let shape = Shape::new([(columns as u32).div_ceil(32), (rows as u32).div_ceil(32)], [32, 8]);
        sim.launch("transpose", shape, args![x_dev, y, rows as i32, columns as i32]);
        let want: Vec<f32> = (0..x.len()).map(|i| x[i % rows * columns + i / rows]).collect();
        assert_eq!(sim.download::<f32>(y, x.len()), want);
    }
}

#[test]
fn softmax() {
    let sim = Sim::new("softmax.cu");
    let (rows, columns) = (7, 77);
    let x: Vec<f32> = Random::new(10).floats(rows * columns).into_iter().map(|x| 30.0 * x).collect();
    let want: Vec<f64> = x
        .chunks(columns)
        .flat_map(|row| {
            let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let e: Vec<f64> = row.iter().map(|x| f64::from(x - top).exp()).collect();
            let sum: f64 = e.iter().sum();
            e.into_iter().map(move |e| e / sum)
        })
        .collect();
    for (kernel, bound) in [("softmax", 3e-7), ("softmax_fast", 3e-6)] {
        let (x_dev, y) = (sim.upload(&x), sim.alloc::<f32>(x.len()));
        let shape = Shape::new((rows as u32).div_ceil(4), [32, 4]);
        sim.launch(kernel, shape, args![x_dev, y, rows as i32, columns as i32]);
        assert_close(&sim.download(y, x.len()), &want, bound);
    }
}

#[test]
fn dynamic_shared_memory() {
    let sim = Sim::new("shared_dynamic.cu");
    let n = 25_600;
    let mut x = Random::new(11).floats(n);
    let (x_dev, y) = (sim.upload(&x), sim.alloc::<f32>(n));
    sim.launch("reverse", Shape::new(1, 256).shared(n * 4), args![x_dev, y, n as i32]);
    x.reverse();
    assert_eq!(sim.download::<f32>(y, n), x);

    let n = 301;
    let x = Random::new(12).ints(n, -50, 50);
    let (x_dev, y) = (sim.upload(&x), sim.alloc::<i32>(n));
    sim.launch("partition", Shape::new(1, 64).shared(n * 6), args![x_dev, y, n as i32]);
    let (negative, other): (Vec<i32>, Vec<i32>) = x.iter().partition(|&&x| x < 0);
    assert_eq!(sim.download::<i32>(y, n), [negative, other].concat());
}

#[test]
fn device_calls() {
    let sim = Sim::new("calls.cu");
    let random = &mut Random::new(13);
    let n = 100;
    let (a, b) = (random.ints(n, 1, 5000), random.ints(n, 1, 5000));
    let (a_dev, b_dev, out) = (sim.upload(&a), sim.upload(&b), sim.alloc::<i32>(n));
    sim.launch("divisors", Shape::cover(n, 64), args![a_dev, b_dev, out, n as i32]);
    let divisor = |mut a: i32, mut b: i32| {
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    let want: Vec<i32> = (0..n).map(|i| [divisor(a[i], b[i]), divisor(a[i], b[i]) + 1, -1][i % 3]).collect();
    assert_eq!(sim.download::<i32>(out, n), want);

    let x: Vec<f64> = (0..2 * n).map(|_| f64::from(random.f32())).collect();
    let (x_dev, out) = (sim.upload(&x), sim.alloc::<f64>(2 * n));
    sim.launch("powers", Shape::cover(n, 32), args![x_dev, out, n as i32]);
    for (i, got) in sim.download::<f64>(out, 2 * n).chunks(2).enumerate() {
        let (re, im) = (x[2 * i], x[2 * i + 1]);
        let (mut p, mut q) = (1.0, 0.0);
        for _ in 0..i % 13 {
            (p, q) = (p * re - q * im, p * im + q * re);
        }
        assert!((got[0] - p).abs() + (got[1] - q).abs() < 1e-12, "power {i}: {got:?}, want {p} {q}");
    }

    let x = random.ints(64 * 8, -1000, 1000);
    let (x_dev, local, shared) = (sim.upload(&x), sim.alloc::<i32>(x.len()), sim.alloc::<i32>(x.len()));
    sim.launch("sort_runs", Shape::new(1, 64), args![x_dev, local, shared]);
    let mut want = x;
    want.chunks_mut(8).for_each(<[i32]>::sort);
    assert_eq!(sim.download::<i32>(local, want.len()), want);
    assert_eq!(sim.download::<i32>(shared, want.len()), want);
}

#[test]
fn collatz() {
    let sim = Sim::new("divergence.cu");
    let start: Vec<u32> = (1..150).collect();
    let (start_dev, steps) = (sim.upload(&start), sim.alloc::<u32>(start.len()));
    sim.launch("collatz", Shape::cover(start.len(), 64), args![start_dev, steps, start.len() as i32]);
    let count = |&start: &u32| {
        let (mut x, mut count) = (u64::from(start), 0u32);
        while x != 1 {
            x = if x.is_multiple_of(2) { x / 2 } else { 3 * x + 1 };
            count += 1;
        }
        count
    };
    assert_eq!(sim.download::<u32>(steps, start.len()), start.iter().map(count).collect::<Vec<_>>());
}

#[test]
fn nested_divergence() {
    let sim = Sim::new("divergence.cu");
    let n = 90;
    let (x, before) = (Random::new(14).ints(n, 0, 60), Random::new(15).ints(n, 0, 2));
    let (x_dev, out) = (sim.upload(&x), sim.upload(&before));
    sim.launch("nested", Shape::cover(n, 64), args![x_dev, out, n as i32]);
    let nested = |i: i32, limit: i32, before: i32| {
        let mut sum = 0;
        for a in 0..limit {
            if a % 3 == i % 3 {
                continue;
            }
            for b in a.. {
                if (a * b + i) % 7 == 0 {
                    break;
                }
                if sum > 1000 {
                    return -sum;
                }
                sum += if b % 2 == 0 { b } else { before & 1 };
            }
            if sum % 11 == 5 {
                break;
            }
        }
        sum
    };
    let want: Vec<i32> = (0..n).map(|i| nested(i as i32, x[i], before[i])).collect();
    assert_eq!(sim.download::<i32>(out, n), want);
}

#[test]
fn cases() {
    let sim = Sim::new("divergence.cu");
    let n = 70;
    let x: Vec<i32> = (0..n as i32).map(|i| (i * 7) % 11 - 1).collect();
    let (x_dev, out) = (sim.upload(&x), sim.upload(&vec![0f32; 2 * n]));
    sim.launch("choose", Shape::cover(n, 96), args![x_dev, out, n as i32]);
    let mut want = vec![0f32; 2 * n];
    for i in 0..n {
        let v = i as f32 * 0.5;
        want[i] = match x[i] {
            0 => v + 1.0,
            1 => v * v,
            2 | 3 => 1.0 / (v + 1.0),
            4 => v - 3.0,
            5 => std::iter::successors(Some(1f32), |r| Some(r * 2.0)).find(|&r| r >= v).unwrap(),
            6 => (v - 10.0).abs(),
            7 => v.floor(),
            8 => -v,
            _ => 99.0,
        };
        if x[i] == 4 {
            want[i + n] = v - 3.0;
        }
    }
    assert_eq!(sim.download::<f32>(out, 2 * n), want);
}

#[test]
fn reconvergence() {
    let sim = Sim::new("divergence.cu");
    let x = Random::new(16).ints(64, 0, 40);
    let (x_dev, out) = (sim.upload(&x), sim.alloc::<i32>(64));
    sim.launch("meet_again", Shape::new(1, 64), args![x_dev, out]);
    let own: Vec<i32> = x
        .iter()
        .map(|&x| {
            let (mut v, mut i) = (x, 0);
            while i < v {
                v -= i32::from(i % 2 == 0);
                i += 1;
            }
            match v {
                _ if v & 1 != 0 => 3 * v,
                _ if v & 2 != 0 => v / 2,
                _ => v,
            }
        })
        .collect();
    let want: Vec<i32> = (0..64).map(|t| 63 - t).map(|t: usize| own[t] + own[t ^ 1]).collect();
    assert_eq!(sim.download::<i32>(out, 64), want);
}

#[test]
fn f64_arithmetic() {
    let sim = Sim::new("f64.cu");
    let random = &mut Random::new(17);
    let n = 150;
    let mut values = || -> Vec<f64> {
        (0..n)
            .map(|i| f64::from(random.f32()) * 10f64.powi(i as i32 % 9 - 4) + f64::from(random.f32()) * 1e-9)
            .collect()
    };
    let (x, y) = (values(), values());
    let (x_dev, y_dev, out) = (sim.upload(&x), sim.upload(&y), sim.alloc::<f64>(n * 16));
    sim.launch("arithmetic", Shape::cover(n, 64), args![x_dev, y_dev, out, n as i32]);
    for (i, got) in sim.download::<f64>(out, n * 16).chunks(16).enumerate() {
        let (a, b) = (x[i], y[i]);
        let want = [
            a + b,
            a * b,
            a / b,
            a.abs().sqrt(),
            a.mul_add(b, 1.0),
            a.min(b),
            a.max(b),
            a.floor(),
            b.trunc(),
            f64::from(a as f32),
            ((a * 1000.0) as i64) as f64,
            if a < b { a.copysign(b) } else { -b },
            a.round_ties_even(),
            1.0 / b,
            a.ceil() - a,
            a % b,
        ];
        assert_eq!(
            got.iter().map(|x| x.to_bits()).collect::<Vec<_>>(),
            want.map(f64::to_bits),
            "{a} {b}: {got:?}, want {want:?}"
        );
    }
}

#[test]
fn f64_functions() {
    let sim = Sim::new("f64.cu");
    let random = &mut Random::new(18);
    let n = 100;
    let x: Vec<f64> = (0..n).map(|i| f64::from(random.f32()) * [1.0, 20.0, 0.01][i % 3]).collect();
    let (x_dev, out) = (sim.upload(&x), sim.alloc::<f64>(n * 8));
    sim.launch("functions", Shape::cover(n, 64), args![x_dev, out, n as i32]);
    for (i, got) in sim.download::<f64>(out, n * 8).chunks(8).enumerate() {
        let a = x[i];
        let m = a.abs();
        let want = [a.exp(), m.ln(), m.powf(1.7), a.sin(), a.cbrt(), a.tanh(), 1.0 / m.sqrt(), a.hypot(2.0)];
        for (got, want) in got.iter().zip(want) {
            assert!((got - want).abs() <= 1e-15 * want.abs().max(0.25), "{a}: {got:?}, want {want:?}");
        }
    }
}

/// The error function by its Taylor series, good for |x| < 4.
fn erf(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for k in 1..100 {
        term *= -x * x / f64::from(k);
        sum += term / f64::from(2 * k + 1);
    }
    sum * std::f64::consts::FRAC_2_SQRT_PI
}

#[test]
fn f32_functions() {
    let sim = Sim::new("f64.cu");
    let random = &mut Random::new(19);
    let n = 120;
    // Some are far beyond the range that a cheap reduction of the angle serves.
    let x: Vec<f32> = (0..n).map(|i| if i % 10 == 9 { random.f32() * 1e6 } else { random.f32() * 3.0 }).collect();
    let (x_dev, out) = (sim.upload(&x), sim.alloc::<f32>(n * 16));
    sim.launch("functions_f32", Shape::cover(n, 64), args![x_dev, out, n as i32]);
    for (i, got) in sim.download::<f32>(out, n * 16).chunks(16).enumerate() {
        let a = f64::from(x[i]);
        let m = a.abs();
        let want = [
            a.sin(),
            a.cos(),
            if m < 3.5 { erf(a) } else { a.signum() },
            a.tanh(),
            a.exp(),
            m.ln(),
            m.powf(f64::from(0.3f32)),
            1.0 / a,
            m.sqrt(),
            1.0 / m.sqrt(),
            a.atan(),
            m.ln_1p(),
            a.exp_m1(),
            a % f64::from(0.7f32),
            a.exp2(),
            m.log2(),
        ];
        for (f, (&got, want)) in got.iter().zip(want).enumerate() {
            let want = f64::from(want as f32);
            let near = (f64::from(got) - want).abs() <= 1e-6 * want.abs().max(0.25);
            assert!(near || f64::from(got) == want, "function {f} of {a}: {got}, want {want}");
        }
    }
}

#[test]
fn words() {
    let sim = Sim::new("integers.cu");
    let random = &mut Random::new(20);
    let n = 200;
    let special = [0, 1, 2, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 0xff, 0xffff_0000];
    let mut value = |i: usize| match i {
        _ if i < 64 => special[i % 8],
        _ => (random.bits() >> (random.bits() % 33 + 31)) as u32,
    };
    let x: Vec<u32> = (0..n).map(&mut value).collect();
    let y: Vec<u32> = (0..n).map(|i| if i < 64 { special[i / 8].max(1) } else { value(i).max(1) }).collect();
    let (x_dev, y_dev, out) = (sim.upload(&x), sim.upload(&y), sim.alloc::<u32>(n * 32));
    sim.launch("words", Shape::cover(n, 64), args![x_dev, y_dev, out, n as i32]);
    for (i, got) in sim.download::<u32>(out, n * 32).chunks(32).enumerate() {
        let want = words_of(x[i], y[i]);
        for (o, (got, want)) in got.iter().zip(want).enumerate() {
            assert_eq!(*got, want, "o[{o}] of {:#x}, {:#x}", x[i], y[i]);
        }
    }
}

fn words_of(a: u32, b: u32) -> [u32; 32] {
    let (s, t) = (a as i32, b as i32);
    let (wide_a, wide_s) = (u64::from(a), i64::from(s));
    let permute = |selector: u32| {
        let bytes = [a.to_le_bytes(), b.to_le_bytes()].concat();
        u32::from_le_bytes([0, 4, 8, 12].map(|shift| {
            let nibble = selector >> shift;
            let byte = bytes[(nibble & 7) as usize];
            if nibble & 8 == 0 { byte } else { ((byte as i8) >> 7) as u8 }
        }))
    };
    let signed = |x: u32| x.to_le_bytes().map(|byte| i32::from(byte as i8));
    let unsigned = |x: u32| x.to_le_bytes().map(u32::from);
    let (position, length) = (b % 40, b / 64 % 40);
    let field = if length == 0 { 0 } else { (wide_a >> position) as u32 & (((1u64 << length.min(32)) - 1) as u32) };
    let sign = (wide_s >> (position + length).saturating_sub(1).min(31)) & 1 == 1;
    let within = length.min(32u32.saturating_sub(position));
    let extended = match length {
        0 => 0,
        _ if sign && within < 32 => (a.checked_shr(position).unwrap_or(0) & ((1u32 << within) - 1)) | (!0u32 << within),
        _ => field,
    };
    let mask = (((1u64 << length.min(32)) - 1) << position) as u32;
    let quotient = if t == -1 { (0, 0) } else { (s / t, s % t) };
    // .wrap takes the width modulo 32.
    let width = b % 33 % 32;
    [
        a / b,
        a % b,
        quotient.0 as u32,
        quotient.1 as u32,
        ((wide_a * u64::from(b)) >> 32) as u32,
        ((wide_s * i64::from(t)) >> 32) as u32,
        a.count_ones(),
        a.leading_zeros(),
        a.reverse_bits(),
        if a == 0 { 0 } else { a.trailing_zeros() + 1 },
        permute(0x5410),
        // __byte_perm looks at three bits of each selector.
        permute(b & 0x7777),
        (((u64::from(b) << 32 | wide_a) << 13) >> 32) as u32,
        ((u64::from(b) << 32 | wide_a) >> (b % 32)) as u32,
        signed(a).iter().zip(signed(b)).fold(7i32, |sum, (x, y)| sum.wrapping_add(x * y)) as u32,
        unsigned(a).iter().zip(unsigned(b)).fold(7u32, |sum, (x, y)| sum.wrapping_add(x * y)),
        (i32::from(a as i16) * signed(b)[0] + i32::from((a >> 16) as i16) * signed(b)[1] - 1) as u32,
        s.abs_diff(t).wrapping_add(5),
        ((wide_s + i64::from(t)) >> 1) as u32,
        ((wide_s + i64::from(t) + 1) >> 1) as u32,
        s.min(t) as u32,
        a.max(b),
        s.wrapping_abs() as u32,
        (((s << 8) >> 8).wrapping_mul((t << 8) >> 8)) as u32,
        field,
        extended,
        (b & !mask) | (((wide_a << position) as u32) & mask),
        a ^ b ^ (a >> 3),
        match if s < 0 { !a } else { a } {
            0 => !0,
            x => 31 - x.leading_zeros(),
        },
        match width {
            0 => 0,
            _ => ((s << (32 - width)) >> (32 - width)) as u32,
        },
        (s >> (b % 32)) as u32,
        (i32::from(a as i16) + i32::from(b as u8) + i32::from(a as i8)) as u32,
    ]
}

#[test]
fn longs() {
    let sim = Sim::new("integers.cu");
    let random = &mut Random::new(21);
    let n = 100;
    let mut values = || -> Vec<u64> {
        (0..n).map(|i| [random.bits(), random.bits() >> 35, !0, random.bits() | 1 << 63][i % 4].max(1)).collect()
    };
    let (x, mut y) = (values(), values());
    y.rotate_left(37);
    let (x_dev, y_dev, out) = (sim.upload(&x), sim.upload(&y), sim.alloc::<u64>(n * 16));
    sim.launch("longs", Shape::cover(n, 64), args![x_dev, y_dev, out, n as i32]);
    for (i, got) in sim.download::<u64>(out, n * 16).chunks(16).enumerate() {
        let (a, b) = (x[i], y[i]);
        let (s, t) = (a as i64, b as i64);
        let quotient = if t == -1 { (0, 0) } else { (s / t, s % t) };
        let want = [
            a / b,
            a % b,
            quotient.0 as u64,
            quotient.1 as u64,
            ((u128::from(a) * u128::from(b)) >> 64) as u64,
            ((i128::from(s) * i128::from(t)) >> 64) as u64,
            a.count_ones().into(),
            a.leading_zeros().into(),
            a.reverse_bits(),
            (a.trailing_zeros() + 1).into(),
            a.wrapping_mul(b).wrapping_add(3),
            (s >> (b % 64)) as u64,
            a << (b % 64),
            s.min(t) as u64 ^ a.max(b),
            i64::from(a as i32).wrapping_mul(i64::from(b as i32)) as u64,
            a.wrapping_add(b),
        ];
        assert_eq!(got, want, "{a:#x}, {b:#x}");
    }
}

#[test]
fn conversions() {
    let sim = Sim::new("integers.cu");
    let random = &mut Random::new(22);
    let x: Vec<f32> = (0..100)
        .map(|i| match i {
            0..6 => [0.5, -0.5, 1.5, -2.5, 0.0, 3e9][i],
            _ => random.f32() * 10f32.powi(i as i32 % 10),
        })
        .collect();
    let (x_dev, out) = (sim.upload(&x), sim.alloc::<i32>(x.len() * 16));
    sim.launch("conversions", Shape::cover(x.len(), 64), args![x_dev, out, x.len() as i32]);
    for (i, got) in sim.download::<i32>(out, x.len() * 16).chunks(16).enumerate() {
        let a = x[i];
        let bits = a.to_bits();
        let exact = f64::from(a);
        let tenth = f64::from(0.1f32);
        let want = [
            a.round_ties_even() as i32,
            a as i32,
            a.ceil() as i32,
            a.floor() as i32,
            a as u32 as i32,
            (a.round_ties_even() as i64 >> 16) as i32,
            (bits as i32 as f32).to_bits() as i32,
            toward(f64::from(bits as i32), f64::NEG_INFINITY),
            toward(f64::from(bits), f64::INFINITY),
            if a > 0.0 { a.min(1.0).to_bits() as i32 } else { 0 },
            (exact * 0.5).round_ties_even() as i32,
            toward(1.0 / 3.0 * exact, 0.0),
            a.round_ties_even().to_bits() as i32,
            // Exact in f64 but for the smallest, where the f64 is itself rounded, though never across an f32.
            toward(exact + tenth, 0.0),
            toward(exact * tenth, f64::INFINITY),
            toward(exact * tenth + 1.0, f64::NEG_INFINITY),
        ];
        assert_eq!(got, want, "{a}");
    }
}

/// The bits of `x` rounded to an f32 on the side of `x` where `end` lies.
fn toward(x: f64, end: f64) -> i32 {
    let near = x as f32;
    let wide = f64::from(near);
    let beyond = match end {
        0.0 => wide.abs() > x.abs(),
        _ if end > x => wide < x,
        _ => wide > x,
    };
    let rounded = match (beyond, end) {
        (false, _) => near,
        (true, 0.0) if x > 0.0 => near.next_down(),
        (true, 0.0) => near.next_up(),
        (true, _) if end > x => near.next_up(),
        (true, _) => near.next_down(),
    };
    rounded.to_bits() as i32
}

/// Compares the pairs that a kernel of half.cu makes of each two pairs with those of `want`.
fn pairs<const N: usize>(
    kernel: &str,
    to: fn(f64) -> u16,
    from: fn(u16) -> f64,
    want: impl Fn([f64; 2], [f64; 2]) -> [[u16; 2]; N],
) {
    let sim = Sim::new("half.cu");
    let random = &mut Random::new(23);
    let n = 100;
    let mut halves = || -> Vec<u16> { (0..2 * n).map(|_| to(f64::from(random.f32()) * 4.0)).collect() };
    let (x, y) = (halves(), halves());
    let (x_dev, y_dev, out) = (sim.upload(&x), sim.upload(&y), sim.alloc::<u16>(n * 2 * N));
    sim.launch(kernel, Shape::cover(n, 64), args![x_dev, y_dev, out, n as i32]);
    for (i, got) in sim.download::<u16>(out, n * 2 * N).chunks(2 * N).enumerate() {
        let [a, b] = [&x, &y].map(|operand| [0, 1].map(|h| from(operand[2 * i + h])));
        assert_eq!(got, want(a, b).concat(), "{a:?}, {b:?}");
    }
}

#[test]
fn f16_arithmetic() {
    pairs("arithmetic_f16", f16, from_f16, |a, b| {
        let each = |f: fn(f64, f64) -> f64| [f16(f(a[0], b[0])), f16(f(a[1], b[1]))];
        [
            each(|a, b| a + b),
            each(|a, b| a - b),
            each(|a, b| a * b),
            each(|a, b| a * b + a),
            each(f64::min),
            each(f64::max),
            each(|a, _| -a),
            each(|_, b| b.abs()),
            [f16(a[0] + b[1]), f16(a[1] * b[0])],
            [f16((a[0] as f32 * 3.0).into()), f16((b[1] as f32 / 3.0).into())],
            each(|a, b| if a + b > 0.0 { (a + b).min(1.0) } else { 0.0 }),
            each(|a, b| f64::from(u8::from(a > b))),
        ]
    });
}

#[test]
fn bf16_arithmetic() {
    pairs("arithmetic_bf16", bf16, from_bf16, |a, b| {
        let each = |f: fn(f64, f64) -> f64| [bf16(f(a[0], b[0])), bf16(f(a[1], b[1]))];
        [
            each(|a, b| a + b),
            each(|a, b| a - b),
            each(|a, b| a * b),
            each(|a, b| a * b + a),
            each(f64::min),
            each(f64::max),
            each(|a, _| -a),
            [bf16((a[0] as f32 * 3.0).into()), bf16((b[1] as f32 / 3.0).into())],
        ]
    });
}

#[test]
fn sums_of_halves() {
    let sim = Sim::new("half.cu");
    let (rows, columns) = (3, 41);
    let x: Vec<i32> = Random::new(25).ints(rows * columns * 2, -50, 50);
    let x_dev = sim.upload(&x.iter().map(|&x| f16(x.into())).collect::<Vec<_>>());
    let y = sim.alloc::<f32>(rows);
    sim.launch("row_sums", Shape::new(rows as u32, 32), args![x_dev, y, rows as i32, columns as i32]);
    let want: Vec<f32> = x.chunks(columns * 2).map(|row| row.iter().sum::<i32>() as f32).collect();
    assert_eq!(sim.download::<f32>(y, rows), want);
}

fn lanes(predicate: impl Fn(usize) -> bool) -> u32 {
    (0..32).filter(|&lane| predicate(lane)).fold(0, |mask, lane| mask | 1 << lane)
}

#[test]
fn votes() {
    let sim = Sim::new("warp.cu");
    let x = Random::new(26).ints(32, -99, 100);
    let (x_dev, out) = (sim.upload(&x), sim.alloc::<u32>(32 * 12));
    sim.launch("votes", Shape::new(1, 32), args![x_dev, out]);
    let unsigned = || x.iter().map(|&x| x as u32);
    for (t, got) in sim.download::<u32>(out, 32 * 12).chunks(12).enumerate() {
        let and = unsigned().fold(!0, |a, x| a & (x | 1));
        let or = unsigned().fold(0, |a, x| a | x);
        let want = [
            lanes(|l| x[l] > 0),
            x.iter().any(|&x| x > 90).into(),
            x.iter().all(|&x| x > -90).into(),
            lanes(|l| x[l] % 4 == x[t] % 4),
            !0,
            1,
            x.iter().sum::<i32>() as u32,
            *x.iter().min().unwrap() as u32,
            unsigned().max().unwrap(),
            unsigned().fold(0, |a, x| a ^ x),
            and | or << 1,
            lanes(|l| x[l] / 10 == x[t] / 10),
        ];
        assert_eq!(got, want, "lane {t}");
    }
}

#[test]
fn parts_of_a_warp() {
    let sim = Sim::new("warp.cu");
    let x = Random::new(27).ints(32, -99, 100);
    let (x_dev, out) = (sim.upload(&x), sim.alloc::<u32>(32 * 4));
    sim.launch("parts", Shape::new(1, 32), args![x_dev, out]);
    for (t, got) in sim.download::<u32>(out, 32 * 4).chunks(4).enumerate() {
        let want = if t % 2 == 0 {
            let sum: i32 = x.iter().step_by(2).sum();
            [0x5555_5555, lanes(|l| l % 2 == 0 && x[l] > 0), sum as u32, x[4] as u32]
        } else {
            [0, x.iter().skip(1).step_by(2).any(|&x| x > 0).into(), x[7] as u32, t as u32 / 2]
        };
        assert_eq!(got, want, "lane {t}");
    }
}

#[test]
fn shuffles() {
    let sim = Sim::new("warp.cu");
    let x = Random::new(28).ints(32, -1000, 1000);
    let (x_dev, out) = (sim.upload(&x), sim.alloc::<i32>(32 * 12));
    sim.launch("shuffles", Shape::new(1, 32), args![x_dev, out]);
    for (t, got) in sim.download::<i32>(out, 32 * 12).chunks(12).enumerate() {
        let up = |d: usize, width: usize| x[if t % width >= d { t - d } else { t }];
        let down = |d: usize, width: usize| x[if t % width + d < width { t + d } else { t }];
        let want = [
            x[5],
            x[t * 7 % 32],
            x[t / 8 * 8 + 3],
            up(1, 32),
            up(3, 16),
            down(2, 32),
            down(5, 8),
            x[t ^ 9],
            // Across a boundary of the width towards lower lanes a butterfly may read, towards higher ones it may not.
            x[if (t ^ 6) <= t / 4 * 4 + 3 { t ^ 6 } else { t }],
            ((i64::from(x[t ^ 31]) << 30) >> 28) as i32,
            (t >= 4).into(),
            ((1u64 << t) - 1) as i32,
        ];
        assert_eq!(got, want, "lane {t}");
    }
}

#[test]
fn cooperative_grid() {
    let sim = Sim::new("grid.cu");
    let (n, rounds) = (500, 7);
    let mut x: Vec<u32> = Random::new(29).ints(n, 0, 1000).into_iter().map(|x| x as u32).collect();
    let (x_dev, y) = (sim.upload(&x), sim.alloc::<u32>(n));
    sim.launch("ring", Shape::new(5, 64).cooperative(), args![x_dev, y, n as i32, rounds]);
    for _ in 0..rounds {
        x = (0..n).map(|i| x[(i + n - 1) % n].wrapping_add(x[(i + 1) % n])).collect();
    }
    assert_eq!(sim.download::<u32>(if rounds % 2 == 0 { x_dev } else { y }, n), x);
}

#[test]
fn tiles_of_a_block() {
    let sim = Sim::new("grid.cu");
    let x = Random::new(30).ints(64, -1000, 1000);
    let (x_dev, out) = (sim.upload(&x), sim.alloc::<i32>(8));
    sim.launch("tiles", Shape::new(1, 64), args![x_dev, out]);
    assert_eq!(sim.download::<i32>(out, 8), x.chunks(8).map(|tile| tile.iter().sum()).collect::<Vec<i32>>());
}

#[test]
fn local_arrays() {
    let sim = Sim::new("spaces.cu");
    let n = 100;
    let x = Random::new(31).ints(n, 0, 1 << 30);
    let (x_dev, out) = (sim.upload(&x), sim.alloc::<i32>(n));
    sim.launch("local_index", Shape::cover(n, 64), args![x_dev, out, n as i32]);
    let most = |&x: &i32| {
        let mut counts = [0; 10];
        x.to_string().bytes().for_each(|digit| counts[usize::from(digit - b'0')] += 1);
        let best = (1..10).fold(0, |best, d| if counts[d] >= counts[best] { d } else { best });
        best as i32 * 100 + counts[best]
    };
    assert_eq!(sim.download::<i32>(out, n), x.iter().map(most).collect::<Vec<_>>());
}

#[test]
fn constants() {
    let sim = Sim::new("spaces.cu");
    let n = 70;
    let x = Random::new(32).floats(n);
    let table: Vec<i32> = (0..64).map(|i| i * i - 100).collect();
    let (addr, size) = sim.program.global("table").unwrap();
    assert_eq!(size, 256);
    sim.write(addr, &table);
    let (x_dev, out) = (sim.upload(&x), sim.alloc::<f32>(n));
    sim.launch("polynomial", Shape::cover(n, 32), args![x_dev, out, n as i32]);
    let polynomial = |i: usize| {
        let sum = [1.0, -0.5, 0.25, 3.0, -2.0].into_iter().fold(0f32, |sum, c| sum.mul_add(x[i], c));
        sum + table[i % 64] as f32
    };
    assert_eq!(sim.download::<f32>(out, n), (0..n).map(polynomial).collect::<Vec<_>>());
}

#[test]
fn module_globals() {
    let sim = Sim::new("spaces.cu");
    let out = sim.alloc::<i32>(40);
    sim.launch("globals", Shape::new(1, 40), args![out]);
    let want: Vec<i32> = (0..40).map(|t| [1, 2, 3, 250, 251, 252][t % 6] + 1).collect();
    assert_eq!(sim.download::<i32>(out, 40), want);
    let (counter, _) = sim.program.global("counter").unwrap();
    assert_eq!(sim.download::<i32>(counter, 1), [47]);

    let values = sim.alloc::<f32>(32);
    sim.launch("leave", Shape::new(1, 32), args![values]);
    sim.launch("use_left", Shape::new(1, 32), args![0.5f32]);
    assert_eq!(sim.download::<f32>(values, 32), (0..32).map(|t| t as f32 + 0.5).collect::<Vec<_>>());
}

#[test]
fn large_parameter() {
    let sim = Sim::new("spaces.cu");
    let n = 600;
    let values = Random::new(33).ints(500, -1000, 1000);
    let (count, shift, scale) = (499i32, 77i16, 0.25f64);
    // As the struct lies in memory.
    let mut table = vec![0u8; 2040];
    table[0..4].copy_from_slice(&count.to_le_bytes());
    table[4..6].copy_from_slice(&shift.to_le_bytes());
    table[8..16].copy_from_slice(&scale.to_le_bytes());
    values.iter().enumerate().for_each(|(i, x)| table[16 + 4 * i..][..4].copy_from_slice(&x.to_le_bytes()));
    (0..20).for_each(|i| table[2016 + i] = i as u8 * 12);
    let out = sim.alloc::<f64>(n);
    let mut args = args![out, n as i32].to_vec();
    args.insert(0, table);
    sim.launch("parameters", Shape::cover(n, 128), &args);
    let want: Vec<f64> =
        (0..n).map(|i| scale * f64::from(values[(i + 77) % 499]) + f64::from(i as u32 % 20 * 12)).collect();
    assert_eq!(sim.download::<f64>(out, n), want);
}

#[test]
fn parameters_of_every_width() {
    let sim = Sim::new("spaces.cu");
    let out = sim.alloc::<f64>(9);
    let args = args![-5i8, 250u8, -30_000i16, 60_000u16, -7i32, -(1i64 << 40), 0.5f32, -0.25f64, 1u8, out];
    sim.launch("widths", Shape::new(1, 1), args);
    let want = [-5.0, 250.0, -30_000.0, 60_000.0, -7.0, -(2f64.powi(40)), 0.5, -0.25, 1.0];
    assert_eq!(sim.download::<f64>(out, 9), want);
}

#[test]
fn generic_pointers() {
    let sim = Sim::new("spaces.cu");
    let x = Random::new(34).ints(32, 0, 100);
    let (x_dev, out) = (sim.upload(&x), sim.alloc::<i32>(32));
    sim.launch("generic", Shape::new(1, 32), args![x_dev, out]);
    let want: Vec<i32> = (0..32).map(|t| [x[t] + 2, x[t] + 1001, x[t] + x[t] % 4 * 10_000 + 4][t % 3]).collect();
    assert_eq!(sim.download::<i32>(out, 32), want);
}

#[test]
fn records() {
    let sim = Sim::new("spaces.cu");
    let random = &mut Random::new(35);
    let n = 32;
    let record: Vec<u8> = (0..n)
        .flat_map(|_| {
            let rest = (0..12).map(|_| random.bits() as u8).collect::<Vec<_>>();
            [&random.f32().to_le_bytes()[..], &rest].concat()
        })
        .collect();
    let d: Vec<f64> = (0..2 * n).map(|_| random.f32().into()).collect();
    let u: Vec<u8> = (0..4 * n).map(|_| random.bits() as u8).collect();
    let s: Vec<i16> = (0..2 * n).map(|_| random.bits() as i16).collect();
    let (r_out, d_out) = (sim.alloc::<u8>(16 * n), sim.alloc::<f64>(2 * n));
    let (u_out, s_out) = (sim.alloc::<u8>(4 * n), sim.alloc::<i16>(2 * n));
    let (record_dev, d_dev, u_dev, s_dev) = (sim.upload(&record), sim.upload(&d), sim.upload(&u), sim.upload(&s));
    let args = args![record_dev, r_out, d_dev, d_out, u_dev, u_out, s_dev, s_out];
    sim.launch("records", Shape::new(1, n as u32), args);

    let mut want = record;
    for record in want.chunks_mut(16) {
        let f = f32::from_le_bytes(record[..4].try_into().unwrap()) * 2.0;
        record[..4].copy_from_slice(&f.to_le_bytes());
        let h = [4, 6].map(|at| u16::from_le_bytes([record[at], record[at + 1]]));
        record[6..8].copy_from_slice(&h[0].wrapping_add(h[1]).to_le_bytes());
        record[15] = record[8] ^ record[11];
    }
    assert_eq!(sim.download::<u8>(r_out, 16 * n), want);
    assert_eq!(sim.download::<f64>(d_out, 2 * n), d.chunks(2).flat_map(|p| [p[1], p[0]]).collect::<Vec<_>>());
    assert_eq!(
        sim.download::<u8>(u_out, 4 * n),
        u.chunks(4).flat_map(|p| [p[3], p[2], p[1], p[0]]).collect::<Vec<_>>()
    );
    let swapped = s.chunks(2).flat_map(|p| [p[1].wrapping_neg(), p[0]]).collect::<Vec<_>>();
    assert_eq!(sim.download::<i16>(s_out, 2 * n), swapped);
}

#[test]
fn atomics() {
    let sim = Sim::new("atomics.cu");
    let n = 200;
    let x = Random::new(36).ints(n, -500, 500);
    let unsigned = || x.iter().map(|&x| x as u32);
    let sum: i32 = x.iter().sum();
    let start = [0, 0, 0, 0, -1, 0, 0, -1, 0, 0, 0, 0, 0, 0];
    let (x_dev, cells) = (sim.upload(&x), sim.upload(&start));
    let longs = sim.upload(&[0u64, 1 << 63, !0, 0, 0, 0, 0, 0]);
    sim.launch("all_kinds", Shape::cover(n, 64), args![x_dev, cells, longs, n as i32]);

    let mut got = sim.download::<i32>(cells, 14);
    // What was handed on, and what is left.
    got[12] = got[12].wrapping_add(got[11]);
    got[11] = 0;
    let want = [
        sum,
        -sum,
        *x.iter().min().unwrap(),
        *x.iter().max().unwrap(),
        x.iter().fold(-1, |a, x| a & (x | 0xff)),
        x.iter().fold(0, |a, x| a | (x & 0xf0f0)),
        x.iter().fold(0, |a, x| a ^ x),
        unsigned().min().unwrap() as i32,
        unsigned().max().unwrap() as i32,
        n as i32 % 17,
        (0..n).fold(0, |a, _| if a == 0 { 22 } else { a - 1 }),
        0,
        sum,
        3 * n as i32,
    ];
    assert_eq!(got, want);

    let mut got = sim.download::<u64>(longs, 8);
    got[7] = got[7].wrapping_add(got[6]);
    got[6] = 0;
    let shifted = || x.iter().map(|&x| ((i64::from(x)) << 20) as u64);
    let want = [
        shifted().fold(0u64, u64::wrapping_add),
        ((i64::from(*x.iter().max().unwrap())) << 20) as u64,
        unsigned().map(|x| u64::from(x) << 20).min().unwrap(),
        shifted().fold(0, |a, x| a ^ x),
        unsigned().fold(0, |a, x| a | 1 << (x % 64)),
        5 * n as u64,
        0,
        unsigned().map(u64::from).sum(),
    ];
    assert_eq!(got, want);
}

#[test]
fn reductions_without_result() {
    let sim = Sim::new("atomics.cu");
    let n = 150;
    let x = Random::new(37).ints(n, -300, 300);
    let (x_dev, cells, sum) = (sim.upload(&x), sim.upload(&[0, -999, 0, -999]), sim.upload(&[0f32]));
    sim.launch("reductions", Shape::cover(n, 64), args![x_dev, cells, sum, n as i32]);
    let (total, most) = (x.iter().sum::<i32>(), *x.iter().max().unwrap());
    let bits = x.iter().fold(0, |a, x| a | (x & 0x3c));
    assert_eq!(sim.download::<i32>(cells, 4), [total, most, bits, most]);
    assert_eq!(sim.download::<f32>(sum, 1), [0.5 * total as f32]);
}

#[test]
fn atomic_floats() {
    let sim = Sim::new("atomics.cu");
    let n = 100;
    let x = Random::new(38).ints(n, 0, 100);
    let (x_dev, f, d, h) = (sim.upload(&x), sim.upload(&[0f32]), sim.upload(&[0f64]), sim.upload(&[0u16; 2]));
    let from_shared = sim.upload(&[0f32]);
    sim.launch("floats", Shape::cover(n, 64), args![x_dev, f, d, h, from_shared, n as i32]);
    let sum: i32 = x.iter().sum();
    let odd = x.iter().filter(|&&x| x % 2 == 1).count();
    assert_eq!(sim.download::<f32>(f, 1), [sum as f32]);
    assert_eq!(sim.download::<f64>(d, 1), [f64::from(sum)]);
    assert_eq!(sim.download::<u16>(h, 2), [f16(n as f64), f16(odd as f64)]);
    assert_eq!(sim.download::<f32>(from_shared, 1), [sum as f32 + 0.5 * n as f32]);
}

/// As on a GPU, where CUB hands a tile's state and sum from block to block in one access of 16 bytes.
#[test]
fn what_is_relaxed_is_whole() {
    let sim = Sim::new("atomics.cu");
    let (pair, wide, torn) = (sim.upload(&[0u32; 2]), sim.upload(&[0u64; 2]), sim.upload(&[0i32; 2]));
    sim.launch("whole_words", Shape::new(64, 1), args![pair, wide, torn, 4000]);
    assert_eq!(sim.download::<i32>(torn, 2), [0, 0]);
}

#[test]
fn warp_aggregated_atomics() {
    let sim = Sim::new("atomics.cu");
    let n = 300;
    let x = Random::new(39).ints(n, -100, 100);
    let (x_dev, out, count) = (sim.upload(&x), sim.alloc::<i32>(n), sim.upload(&[0i32]));
    sim.launch("compact", Shape::cover(n, 96), args![x_dev, out, count, n as i32]);
    let mut want: Vec<i32> = x.into_iter().filter(|&x| x > 0).collect();
    assert_eq!(sim.download::<i32>(count, 1), [want.len() as i32]);
    let mut got = sim.download::<i32>(out, want.len());
    got.sort();
    want.sort();
    assert_eq!(got, want);
}

#[test]
fn lock_between_blocks() {
    let sim = Sim::new("atomics.cu");
    let (lock, sum, trips) = (sim.upload(&[0i32]), sim.upload(&[0i32]), sim.upload(&[0i32]));
    sim.launch("locked", Shape::new(40, 32), args![lock, sum, trips]);
    assert_eq!([lock, sum, trips].map(|cell| sim.download::<i32>(cell, 1)[0]), [0, 40 * 39 / 2, 40]);
}

#[test]
fn named_barriers() {
    let sim = Sim::new("barriers.cu");
    for rows in [1, 2, 7] {
        let x = Random::new(40).ints(rows * 96, -1000, 1000);
        let (x_dev, out) = (sim.upload(&x), sim.alloc::<i32>(rows * 96));
        sim.launch("pipeline", Shape::new(1, 128), args![x_dev, out, rows as i32]);
        let want: Vec<i32> = x.chunks(96).flat_map(|row| (0..96).map(|j| row[j] + row[95 - j])).collect();
        assert_eq!(sim.download::<i32>(out, rows * 96), want);
    }

    let x = Random::new(41).ints(128, -1000, 1000);
    let (x_dev, out) = (sim.upload(&x), sim.alloc::<i32>(128));
    sim.launch("halves", Shape::new(1, 128), args![x_dev, out]);
    let want: Vec<i32> = (0..128).map(|t| x[(127 - t) / 64 * 64 + 63 - (127 - t) % 64]).collect();
    assert_eq!(sim.download::<i32>(out, 128), want);
}

#[test]
fn voting_barriers() {
    let sim = Sim::new("barriers.cu");
    let x = Random::new(42).ints(96, -99, 100);
    let (x_dev, out) = (sim.upload(&x), sim.alloc::<i32>(96));
    sim.launch("voting", Shape::new(1, 96), args![x_dev, out]);
    let positive = x.iter().filter(|&&x| x > 0).count() as i32;
    // __syncthreads_or and _and answer "not zero".
    let want = positive * 100 + i32::from(x.iter().any(|&x| x > 98)) * 10 + i32::from(x.iter().all(|&x| x > -98));
    assert_eq!(sim.download::<i32>(out, 96), [want; 96]);
}

#[test]
fn cub_algorithms() {
    let sim = Sim::new("cub.cu");
    let random = &mut Random::new(43);
    let (threads, items) = (96, 5);
    let tile = threads as usize * items;

    let n = tile - 7;
    let mut x = random.ints(n, -1000, 1000);
    let (x_dev, maxima, sum) = (sim.upload(&x), sim.alloc::<i32>(n), sim.alloc::<i32>(1));
    sim.launch("running_maxima", Shape::new(1, threads), args![x_dev, maxima, sum, n as i32]);
    assert_eq!(sim.download::<i32>(sum, 1), [x.iter().sum::<i32>()]);
    for i in 1..n {
        x[i] = x[i].max(x[i - 1]);
    }
    assert_eq!(sim.download::<i32>(maxima, n), x);

    let keys: Vec<f32> = random.ints(tile, -100, 100).into_iter().map(|x| x as f32 * 0.5).collect();
    let (keys_dev, values_dev) = (sim.upload(&keys), sim.upload(&(0..tile as i32).collect::<Vec<_>>()));
    let (keys_out, values_out) = (sim.alloc::<f32>(tile), sim.alloc::<i32>(tile));
    sim.launch("sort_pairs", Shape::new(1, threads), args![keys_dev, values_dev, keys_out, values_out]);
    // A stable sort, as that by digits is.
    let mut want: Vec<i32> = (0..tile as i32).collect();
    want.sort_by(|&i, &j| keys[j as usize].total_cmp(&keys[i as usize]));
    assert_eq!(sim.download::<i32>(values_out, tile), want);
    assert_eq!(sim.download::<f32>(keys_out, tile), want.iter().map(|&i| keys[i as usize]).collect::<Vec<_>>());

    // The merge reads one key beyond its tile, for which its storage has room, and makes no use of it.
    let mut sim = sim;
    sim.device.checks.shared_init = false;
    let mut x = random.ints(tile, -1000, 1000);
    let x_dev = sim.upload(&x);
    sim.launch("merge_sort", Shape::new(1, threads), args![x_dev]);
    x.chunks_mut(32 * items).for_each(<[i32]>::sort);
    assert_eq!(sim.download::<i32>(x_dev, tile), x);
}

/// What a transpose moves follows from its extents.
#[test]
fn counters_of_a_transpose() {
    // A matrix that fits the second-level cache, and whose tiles are whole.
    let (rows, columns) = (256usize, 512usize);
    let elements = (rows * columns) as u64;
    let count = |macros: &[&str]| {
        let mut sim = Sim::with("transpose.cu", macros);
        (sim.device.counting, sim.device.workers) = (true, 1);
        let (x, y) = (sim.upload(&vec![1f32; rows * columns]), sim.alloc::<f32>(rows * columns));
        let shape = Shape::new([columns as u32 / 32, rows as u32 / 32], [32, 8]);
        let launch = || sim.count("transpose", shape, args![x, y, rows as i32, columns as i32]);
        (launch(), launch())
    };
    let (first, second) = count(&[]);
    let details = first.details.as_deref().unwrap();
    let requests = Requests { requests: elements / 32, sectors: elements / 8, accesses: elements, wide: 0 };
    assert_eq!(details.global, [requests; 2]);
    assert_eq!((details.l2_sectors, details.dram_bytes), ([elements / 8; 2], [elements * 4; 2]));
    assert_eq!(details.shared_wavefronts, [2 * elements / 32; 2]);
    let class = |class: Class| details.classes[class as usize];
    assert_eq!(class(Class::GlobalLoad), [elements / 32, elements]);
    assert_eq!(class(Class::SharedStore), [elements / 32, elements]);
    assert_eq!(class(Class::Barrier)[1], (columns / 32 * rows / 32) as u64 * 256);
    assert_eq!(details.classes.iter().map(|counts| counts[0]).sum::<u64>(), first.warp_instructions);
    assert_eq!(details.classes.iter().map(|counts| counts[1]).sum::<u64>(), first.thread_instructions);
    // Again: all that is read and written is in the cache, which has it to write back already.
    let details = second.details.as_deref().unwrap();
    assert_eq!((details.l2_sectors, details.dram_bytes), ([elements / 8; 2], [0; 2]));
    // Without padding a column lies in one bank.
    let (first, _) = count(&["-DPADDING=0"]);
    assert_eq!(first.details.unwrap().shared_wavefronts, [33 * elements / 32, 2 * elements / 32]);
}

#[test]
fn counters_of_a_product_on_tensor_cores() {
    let mut sim = Sim::new("mma.cu");
    sim.device.counting = true;
    let (halves, floats) = (sim.upload(&[0u16; 256]), sim.upload(&[0f32; 128]));
    let counters = sim.count("mma_f16_k16", Shape::new(1, 32), args![halves, halves, floats, floats]);
    let details = counters.details.as_deref().unwrap();
    assert_eq!(details.flop[0], 2 * 16 * 8 * 16);
    assert_eq!(details.classes[Class::Tensor as usize], [1, 32]);
    assert_eq!(details.divergent_branches, 0);
    // One object, with every brace closed.
    let json = format!("{{{}}}", counters.json());
    assert_eq!(json.matches(['{', '}']).count(), 6);
    assert!(json.contains("\"tensor_flop\": 4096") && json.contains("\"tensor\": 1"), "{json}");
}
