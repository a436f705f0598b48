//! The sliced Wasserstein field: what it comes to where that is known, the CPU against the reference.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Convert, Normal, check, relative_error};
use cudrift::{Error, SlicedInputs, bf16, cpu, directions, f16, reference};

fn draw(seed: u64, n: usize) -> Vec<f32> {
    let mut normal = Normal::new(seed);
    (0..n).map(|_| normal.next()).collect()
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|v| f64::from(*v)).collect()
}

/// On the line it is the transport itself, whichever way the directions point.
#[test]
fn on_the_line_it_is_the_transport() {
    let x = [0.3, -2.0, 5.0, 1.0];
    let p = [10.0, 7.0, 8.0, 9.5];
    let of = |p: &[f64], m: usize, directions: &[f32]| {
        reference::sliced(&SlicedInputs::new((&x, [4, 1]), (p, [m, 1]), (directions, [directions.len(), 1])).unwrap())
    };
    let want = [8.0 - 0.3, 7.0 + 2.0, 10.0 - 5.0, 9.5 - 1.0];
    check("pairs", relative_error(&of(&p, 4, &[1.0, -1.0, -1.0]), &want), 1e-15);
    // One reference; two, whose quantiles at 1/8, 3/8, 5/8, 7/8 lie at ranks -1/4, 1/4, 3/4, 5/4 of theirs.
    check("one", relative_error(&of(&[3.0], 1, &[1.0]), &x.map(|v| 3.0 - v)), 1e-15);
    let want = [4.0 - 0.3, 3.0 + 2.0, 7.0 - 5.0, 6.0 - 1.0];
    check("two", relative_error(&of(&[7.0, 3.0], 2, &[1.0]), &want), 1e-15);
    // Each of eight references twice as near together: ranks 1/2, 5/2, 9/2, 13/2.
    let eight: Vec<f64> = (0..8).map(f64::from).collect();
    check("eight", relative_error(&of(&eight, 8, &[1.0]), &[2.5 - 0.3, 0.5 + 2.0, 6.5 - 5.0, 4.5 - 1.0]), 1e-15);
}

/// A shifted copy has the shift for its velocity, in the mean over directions; where x is p nothing moves.
#[test]
fn a_copy_is_moved_back() {
    let (dim, shift) = (3, [0.5f32, -1.0, 2.0]);
    let p = draw(1, 40 * dim);
    let x: Vec<f32> = p.chunks(dim).rev().flat_map(|y| y.iter().zip(shift).map(|(y, s)| y - s)).collect();
    let thetas = directions(20_000, dim, 7, 0).unwrap();
    let of = |x: &[f32]| cpu::sliced(&SlicedInputs::new((x, [40, 3]), (&p, [40, 3]), (&thetas, [20_000, 3])).unwrap());
    let want: Vec<f64> = x.chunks(dim).flat_map(|_| wide(&shift)).collect();
    check("shift", relative_error(&of(&x).unwrap(), &want), 0.03);
    assert!(of(&p).unwrap().iter().all(|v| *v == 0.0));
}

/// Half the squared distance falls along it: spec 8.9 is minus the gradient, times n D.
#[test]
fn it_is_the_gradient_of_the_sliced_distance() {
    let (n, dim) = (6, 2);
    let (x, p) = (wide(&draw(3, n * dim)), wide(&draw(4, n * dim)));
    let thetas = directions(5, dim, 9, 3).unwrap();
    let distance = |x: &[f64]| {
        let mut sum = 0.0;
        for theta in thetas.chunks(dim) {
            let sorted = |set: &[f64]| {
                let along = set.chunks(dim).map(|v| v.iter().zip(theta).map(|(v, t)| v * f64::from(*t)).sum());
                let mut along: Vec<f64> = along.collect();
                along.sort_by(f64::total_cmp);
                along
            };
            sum += sorted(x).iter().zip(sorted(&p)).map(|(a, b)| 0.5 * (a - b) * (a - b)).sum::<f64>();
        }
        sum / 5.0
    };
    let slopes: Vec<f64> = (0..x.len())
        .map(|k| {
            let moved = |step: f64| {
                let mut x = x.clone();
                x[k] += step;
                distance(&x)
            };
            -(dim as f64) * (moved(1e-6) - moved(-1e-6)) / 2e-6
        })
        .collect();
    let got = reference::sliced(&SlicedInputs::new((&x, [n, dim]), (&p, [n, dim]), (&thetas, [5, dim])).unwrap());
    check("gradient", relative_error(&got, &slopes), 1e-8);
}

fn from<T: Convert>(x: &[f32], p: &[f32], [n, m, count, dim]: [usize; 4], bound: f64) {
    let thetas = directions(count, dim, 2, 1).unwrap();
    let narrow = |set: &[f32]| set.iter().map(|v| T::from_f32(*v)).collect::<Vec<_>>();
    let (x, p) = (narrow(x), narrow(p));
    let wide = |set: &[T]| set.iter().map(|v| f64::from(v.back())).collect::<Vec<_>>();
    let (wide_x, wide_p) = (wide(&x), wide(&p));
    let inputs = SlicedInputs::new((&x, [n, dim]), (&p, [m, dim]), (&thetas, [count, dim])).unwrap();
    let got = cpu::sliced(&inputs).unwrap();
    let inputs = SlicedInputs::new((&wide_x, [n, dim]), (&wide_p, [m, dim]), (&thetas, [count, dim])).unwrap();
    check(&format!("{n} {m} {count} {dim}"), relative_error(&got, &reference::sliced(&inputs)), bound);
}

#[test]
fn the_cpu_agrees_with_the_reference() {
    for shape in [[1, 1, 1, 1], [7, 3, 5, 2], [3, 7, 5, 2], [50, 50, 33, 3], [64, 100, 17, 40], [129, 20, 70, 9]] {
        let [n, m, _, dim] = shape;
        let (x, p) = (draw(11, n * dim), draw(12, m * dim));
        from::<f32>(&x, &p, shape, 2e-6);
        // Ties of halves pair off in order.
        from::<f16>(&x, &p, shape, 2e-6);
        from::<bf16>(&x, &p, shape, 2e-6);
        // Far from the origin, as exact as the coordinates are.
        let far = |set: &[f32]| set.iter().map(|v| v + 1024.0).collect::<Vec<_>>();
        from::<f32>(&far(&x), &far(&p), shape, 2e-6);
    }
    let nothing = SlicedInputs::new((&[0.0f32; 0], [0, 2]), (&[1.0, 2.0], [1, 2]), (&[1.0, 0.0], [1, 2])).unwrap();
    assert!(cpu::sliced(&nothing).unwrap().is_empty());
}

#[test]
fn what_cannot_be() {
    let (x, p, theta) = ([0.0f32; 4], [0.0f32; 6], [1.0f32, 0.0]);
    let of = |x: (&[f32], [usize; 2]), p: (&[f32], [usize; 2]), theta: (&[f32], [usize; 2])| {
        SlicedInputs::new((x.0, x.1), (p.0, p.1), theta).map(|_| ()).unwrap_err()
    };
    assert!(matches!(of((&x, [3, 2]), (&p, [3, 2]), (&theta, [1, 2])), Error::Shape { argument: "x", .. }));
    assert!(matches!(of((&x, [2, 2]), (&p, [2, 3]), (&theta, [1, 2])), Error::Shape { argument: "p", .. }));
    assert!(matches!(of((&x, [2, 2]), (&[], [0, 2]), (&theta, [1, 2])), Error::Value { argument: "p", .. }));
    assert!(matches!(of((&x, [2, 2]), (&p, [3, 2]), (&[], [0, 2])), Error::Value { argument: "directions", .. }));
    assert!(matches!(of((&[], [0, 0]), (&[], [0, 0]), (&[], [0, 0])), Error::Value { .. }));
    assert!(directions(0, 2, 0, 0).is_err() && directions(2, 0, 0, 0).is_err());
    assert!(matches!(directions(usize::MAX / 8, 2, 0, 0), Err(Error::TooLarge { .. })));
    // A NaN among the queries reaches all; one among the references the last of the ranks.
    let thetas = [1.0f32];
    let line = |x: &[f32], p: &[f32]| {
        cpu::sliced(&SlicedInputs::new((x, [3, 1]), (p, [3, 1]), (&thetas, [1, 1])).unwrap()).unwrap()
    };
    let moved = line(&[1.0, 2.0, 0.0], &[1.0, f32::NAN, 2.0]);
    assert!(moved[1].is_nan() && moved[0] == 1.0 && moved[2] == 1.0);
    assert!(line(&[1.0, f32::NAN, 0.0], &[1.0, 3.0, 2.0]).iter().all(|v| v.is_nan()));
}

/// The field of the device beside the reference. `cargo xtask test` runs these on the simulator.
#[cfg(feature = "cuda")]
mod device {
    use super::*;
    use common::device;
    use cudrift::cuda::cudarc::driver::DeviceRepr;
    use cudrift::cuda::{Context, SlicedPlan};
    use cudrift::{Dtype, Element};

    fn agrees<T: Convert + Element + DeviceRepr>(context: &Context, shape: [usize; 4], offset: f32) {
        let [n, m, count, dim] = shape;
        let thetas = directions(count, dim, 5, 1).unwrap();
        let narrow = |seed, n| draw(seed, n * dim).into_iter().map(|v| T::from_f32(v + offset)).collect::<Vec<_>>();
        let (x, p) = (narrow(21, n), narrow(22, m));
        let wide = |set: &[T]| set.iter().map(|v| f64::from(v.back())).collect::<Vec<_>>();
        let (wide_x, wide_p) = (wide(&x), wide(&p));
        let inputs = SlicedInputs::new((&x, [n, dim]), (&p, [m, dim]), (&thetas, [count, dim])).unwrap();
        let got = context.sliced(&inputs).unwrap();
        let inputs = SlicedInputs::new((&wide_x, [n, dim]), (&wide_p, [m, dim]), (&thetas, [count, dim])).unwrap();
        check(&format!("{shape:?} {offset}"), relative_error(&got, &reference::sliced(&inputs)), 2e-6);
    }

    #[test]
    fn the_device_agrees_with_the_reference() {
        if device().is_none() {
            return;
        }
        let context = Context::new().unwrap();
        for shape in [
            [1, 1, 1, 1],
            [2, 3, 1, 1],
            [7, 3, 5, 2],
            [33, 64, 40, 3],
            [65, 31, 9, 70],
            [300, 300, 3, 2],
            [600, 257, 4, 2],
        ] {
            for offset in [0.0, 512.0] {
                agrees::<f32>(&context, shape, offset);
            }
            agrees::<f16>(&context, shape, 0.0);
            agrees::<bf16>(&context, shape, 0.0);
        }
        let nothing = SlicedInputs::new((&[0.0f32; 0], [0, 2]), (&[1.0, 2.0], [1, 2]), (&[1.0, 0.0], [1, 2])).unwrap();
        assert!(context.sliced(&nothing).unwrap().is_empty());
        // Without a share in it a NaN does not matter.
        let theta = [1.0f32];
        let of = |x: &[f32], p: &[f32]| {
            context.sliced(&SlicedInputs::new((x, [3, 1]), (p, [3, 1]), (&theta, [1, 1])).unwrap()).unwrap()
        };
        let moved = of(&[1.0, 2.0, 0.0], &[1.0, f32::NAN, 2.0]);
        assert!(moved[1].is_nan() && moved[0] == 1.0 && moved[2] == 1.0);
        assert!(of(&[1.0, f32::NAN, 0.0], &[1.0, 3.0, 2.0]).iter().all(|v| v.is_nan()));
    }

    #[test]
    fn what_a_launch_cannot_have() {
        if device().is_none() {
            return;
        }
        let context = Context::new().unwrap();
        let plan = |shape| SlicedPlan::new(context.kernels(), shape, Dtype::F32);
        assert!(matches!(plan([1, 1, 0, 1]), Err(Error::Value { .. })));
        for shape in [[1 << 31, 1, 1, 1], [1 << 20, 1, 1 << 24, 1 << 20], [usize::MAX, 2, 2, 2], [1, 1, 1 << 40, 1]] {
            assert!(matches!(plan(shape), Err(Error::TooLarge { .. })), "{shape:?}");
        }
    }
}
