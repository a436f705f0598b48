//! Attraction by way of landmarks: the exact one where all data are landmarks, the source's own formulas, the backends.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Normal, check, relative_error};
use cudrift::{Error, FieldInputs, FieldSpec, Kernel, Projection, cpu, reference};

fn draw(seed: u64, n: usize, shift: f32) -> Vec<f32> {
    let mut normal = Normal::new(seed);
    (0..n).map(|_| normal.next() + shift).collect()
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|v| f64::from(*v)).collect()
}

/// The exact barycentre that every query sees.
fn exact(spec: &FieldSpec, x: &[f32], y: &[f32], dim: usize) -> Vec<f64> {
    let (x, y) = (wide(x), wide(y));
    let of = |set: &[f64]| [set.len() / dim, dim];
    let inputs = FieldInputs::new((&x, of(&x)), (&y, of(&y)), (&y, of(&y))).unwrap();
    let shift = reference::field(spec, &inputs).unwrap().ms_p;
    x.iter().zip(shift).map(|(x, shift)| x + shift).collect()
}

#[test]
fn all_data_as_landmarks_are_exact() {
    for kernel in Kernel::ALL {
        let (dim, y, x) = (3, draw(1, 40 * 3, 0.5), draw(2, 15 * 3, 0.0));
        let spec = FieldSpec::new(kernel, 0.7);
        let data = (&y[..], [40, dim]);
        let want = exact(&spec, &x, &y, dim);
        let projection = Projection::new(&spec, data, data, 1e-10).unwrap();
        // What the ridge moves is 1e-10 over the least eigenvalue, which the smoother kernels have nearer to 0.
        let bound = if kernel == Kernel::Laplace { 1e-8 } else { 1e-4 };
        check(&format!("{kernel}"), relative_error(&reference::projected(&projection, &wide(&x)), &want), bound);
    }
}

/// Eigenvalues and vectors (columns) of a symmetric matrix by Jacobi's rotations.
fn eigen(mut a: Vec<f64>, n: usize) -> (Vec<f64>, Vec<f64>) {
    let mut v = vec![0.0; n * n];
    (0..n).for_each(|i| v[i * n + i] = 1.0);
    for _ in 0..30 {
        for p in 0..n {
            for q in p + 1..n {
                if a[p * n + q].abs() < 1e-300 {
                    continue;
                }
                let theta = 0.5 * (a[q * n + q] - a[p * n + p]) / a[p * n + q];
                let t = theta.signum() / (theta.abs() + theta.hypot(1.0));
                let c = 1.0 / t.hypot(1.0);
                let s = t * c;
                for k in 0..n {
                    let (x, y) = (a[k * n + p], a[k * n + q]);
                    (a[k * n + p], a[k * n + q]) = (c * x - s * y, s * x + c * y);
                }
                for k in 0..n {
                    let (x, y) = (a[p * n + k], a[q * n + k]);
                    (a[p * n + k], a[q * n + k]) = (c * x - s * y, s * x + c * y);
                }
                for k in 0..n {
                    let (x, y) = (v[k * n + p], v[k * n + q]);
                    (v[k * n + p], v[k * n + q]) = (c * x - s * y, s * x + c * y);
                }
            }
        }
    }
    ((0..n).map(|i| a[i * n + i]).collect(), v)
}

/// The source's way, spec 8.11: features by the root of the inverse, cached sums z and Q of all data.
#[test]
fn it_is_the_source_s_folded() {
    let (dim, m, n) = (2, 12, 200);
    let (u, y, x) = (draw(3, m * dim, 0.0), draw(4, n * dim, 0.3), draw(5, 9 * dim, 0.0));
    let (tau, ridge) = (0.8, 1e-4);
    let k = |a: &[f32], b: &[f32]| {
        let square: f64 = a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
        (-square.sqrt() / tau).exp()
    };
    let mut w: Vec<f64> = u.chunks(dim).flat_map(|a| u.chunks(dim).map(move |b| k(a, b))).collect();
    (0..m).for_each(|i| w[i * m + i] += ridge);
    let (values, vectors) = eigen(w, m);
    // A = V max(values, 1e-8)^(-1/2) V^T.
    let root = |i: usize, j: usize| -> f64 {
        (0..m).map(|e| vectors[i * m + e] * vectors[j * m + e] / values[e].max(1e-8).sqrt()).sum()
    };
    let phi = |x: &[f32]| -> Vec<f64> {
        let row: Vec<f64> = u.chunks(dim).map(|u| k(x, u)).collect();
        (0..m).map(|j| (0..m).map(|i| row[i] * root(i, j)).sum()).collect()
    };
    let (mut z, mut q) = (vec![0.0; m], vec![0.0; m * dim]);
    for y in y.chunks(dim) {
        for (j, phi) in phi(y).into_iter().enumerate() {
            z[j] += phi;
            y.iter().enumerate().for_each(|(d, v)| q[j * dim + d] += phi * f64::from(*v));
        }
    }
    let mut want = Vec::new();
    for x in x.chunks(dim) {
        let phi = phi(x);
        let mass: f64 = phi.iter().zip(&z).map(|(p, z)| p * z).sum();
        let sum = |d: usize| phi.iter().enumerate().map(|(j, p)| p * q[j * dim + d]).sum::<f64>();
        want.extend((0..dim).map(|d| sum(d) / mass.max(1e-8)));
    }
    let spec = FieldSpec::new(Kernel::Laplace, tau);
    let projection = Projection::new(&spec, (&u, [m, dim]), (&y, [n, dim]), ridge).unwrap();
    check("folded", relative_error(&reference::projected(&projection, &wide(&x)), &want), 1e-12);
    assert_eq!((projection.dim(), projection.landmarks().len(), projection.spec()), (dim, m * dim, &spec));
}

/// The error falls with the number of landmarks.
#[test]
fn more_landmarks_are_nearer() {
    let (dim, n) = (2, 1000);
    let (y, x) = (draw(6, n * dim, 0.0), draw(7, 100 * dim, 0.0));
    let spec = FieldSpec::new(Kernel::Laplace, 0.5);
    let want = exact(&spec, &x, &y, dim);
    let errors = [10, 40, 160, 640].map(|count| {
        let projection = Projection::among(&spec, (&y, [n, dim]), count, 0).unwrap();
        let got = reference::projected(&projection, &wide(&x));
        (got.iter().zip(&want).map(|(a, b)| (a - b).powi(2)).sum::<f64>() / want.len() as f64).sqrt()
    });
    let shown = errors.map(|error| format!("{error:.1e}"));
    println!("root mean square errors with 10, 40, 160, 640 landmarks of {n}: {shown:?}");
    assert!(errors.windows(2).all(|pair| pair[1] < 0.5 * pair[0]) && errors[3] < 3e-3, "{errors:?}");
}

fn cases() -> Vec<(Kernel, [usize; 4])> {
    let shapes =
        [[1, 1, 1, 1], [7, 5, 30, 2], [33, 64, 100, 8], [40, 33, 120, 40], [70, 130, 300, 19], [3, 70, 90, 257]];
    let mut cases: Vec<_> = shapes.into_iter().map(|shape| (Kernel::Laplace, shape)).collect();
    cases.extend(Kernel::ALL.into_iter().map(|kernel| (kernel, [35, 40, 200, 12])));
    cases
}

fn case(kernel: Kernel, shape: [usize; 4]) -> (Projection, Vec<f32>, Vec<f64>) {
    case_at(kernel, 0.6, shape)
}

/// With a bandwidth of so many roots of D.
fn case_at(kernel: Kernel, bandwidth: f64, [n, m, all, dim]: [usize; 4]) -> (Projection, Vec<f32>, Vec<f64>) {
    let (y, mut x) = (draw(8, all * dim, 5.0), draw(9, n * dim, 5.0));
    let spec = FieldSpec::new(kernel, bandwidth * (dim as f64).sqrt());
    let projection = Projection::among(&spec, (&y, [all, dim]), m.min(all), 2).unwrap();
    // One query on a landmark.
    x[..dim].copy_from_slice(&projection.landmarks()[..dim]);
    let want = reference::projected(&projection, &wide(&x));
    (projection, x, want)
}

#[test]
fn the_cpu_agrees_with_the_reference() {
    for (kernel, shape) in cases() {
        let (projection, x, want) = case(kernel, shape);
        let got = cpu::projected(&projection, &x).unwrap();
        check(&format!("{kernel} {shape:?}"), relative_error(&got, &want), 1e-6);
    }
    // More landmarks than a chunk has.
    let (projection, x, want) = case(Kernel::Laplace, [4, 2100, 2200, 2]);
    check("chunks", relative_error(&cpu::projected(&projection, &x).unwrap(), &want), 1e-6);
}

/// Smooth kernels that see everything have nearly singular matrices; the ridge keeps C from numbers so great that their sums
/// would cancel in f32.
#[test]
fn wide_and_smooth_kernels() {
    for (kernel, dim) in [(Kernel::Gaussian, 2), (Kernel::Gaussian, 16), (Kernel::Matern92, 2), (Kernel::Plummer, 4)] {
        for bandwidth in [2.0, 10.0] {
            let (projection, x, want) = case_at(kernel, bandwidth, [60, 200, 1000, dim]);
            let got = cpu::projected(&projection, &x).unwrap();
            check(&format!("{kernel} {bandwidth} {dim}"), relative_error(&got, &want), 1e-6);
        }
    }
}

/// Far from all landmarks nothing is seen, and a barycentre of nothing is 0; a NaN stays with its query.
#[test]
fn what_sees_nothing() {
    let (projection, _, _) = case(Kernel::Laplace, [1, 5, 30, 2]);
    let got = cpu::projected(&projection, &[1e6, 1e6, f32::NAN, 5.0, 5.0, 5.0]).unwrap();
    assert!(got[..2] == [0.0, 0.0] && got[2].is_nan() && got[3].is_nan() && got[4].is_finite(), "{got:?}");
    assert!(cpu::projected(&projection, &[]).unwrap().is_empty());
}

#[test]
fn what_cannot_be() {
    let (spec, y) = (FieldSpec::new(Kernel::Gaussian, 1.0), draw(1, 12, 0.0));
    let of = |u: (&[f32], [usize; 2]), y: (&[f32], [usize; 2]), ridge: f64| {
        Projection::new(&spec, u, y, ridge).map(|_| ()).unwrap_err()
    };
    let data = (&y[..], [6, 2]);
    assert!(matches!(of((&y, [5, 2]), data, 1e-4), Error::Shape { argument: "landmarks", .. }));
    assert!(matches!(of((&y, [4, 3]), data, 1e-4), Error::Shape { argument: "data", .. }));
    assert!(matches!(of((&[], [0, 2]), data, 1e-4), Error::Value { argument: "landmarks", .. }));
    assert!(matches!(of(data, (&[], [0, 2]), 1e-4), Error::Value { argument: "data", .. }));
    assert!(matches!(of((&[f32::NAN, 0.0], [1, 2]), data, 1e-4), Error::Value { argument: "landmarks", .. }));
    for ridge in [-1.0, f64::NAN, f64::INFINITY] {
        assert!(matches!(of(data, data, ridge), Error::Value { argument: "ridge", .. }));
    }
    // The same landmark twice.
    assert!(matches!(of((&[1.0, 2.0, 1.0, 2.0], [2, 2]), data, 0.0), Error::Value { argument: "ridge", .. }));
    assert!(Projection::new(&spec, (&[1.0, 2.0, 1.0, 2.0], [2, 2]), data, 1e-4).is_ok());
    assert!(matches!(Projection::among(&spec, data, 7, 0), Err(Error::Value { argument: "landmarks", .. })));
    assert!(matches!(Projection::among(&FieldSpec::new(Kernel::Laplace, 0.0), data, 2, 0), Err(Error::Value { .. })));
    let nothing = Projection::among(&spec, (&[], [usize::MAX, 0]), 1, 0);
    assert!(matches!(nothing, Err(Error::Value { .. })));
    let projection = Projection::among(&spec, data, 3, 0).unwrap();
    assert!(matches!(cpu::projected(&projection, &[0.0; 3]), Err(Error::Shape { .. })));
    // Each datum once.
    let all = Projection::among(&spec, data, 6, 3).unwrap();
    let sorted = |set: &[f32]| {
        let mut rows: Vec<[u32; 2]> = set.chunks(2).map(|row| [row[0].to_bits(), row[1].to_bits()]).collect();
        rows.sort_unstable();
        rows
    };
    assert_eq!(sorted(all.landmarks()), sorted(&y));
}

/// The device's beside the reference. `cargo xtask test` runs these on the simulator.
#[cfg(feature = "cuda")]
mod device {
    use super::*;
    use cudrift::cuda::Context;

    #[test]
    fn the_device_agrees_with_the_reference() {
        if common::device().is_none() {
            return;
        }
        let context = Context::new().unwrap();
        for (kernel, shape) in cases() {
            let (projection, x, want) = case(kernel, shape);
            let got = context.projected(&projection, &x).unwrap();
            let got: Vec<f64> = got.iter().zip(&x).map(|(v, x)| f64::from(*v) + f64::from(*x)).collect();
            check(&format!("{kernel} {shape:?}"), relative_error(&got, &want), 2e-6);
        }
        let (projection, _, _) = case(Kernel::Laplace, [1, 5, 30, 2]);
        let got = context.projected(&projection, &[1e6, 1e6, f32::NAN, 5.0, 5.0, 5.0]).unwrap();
        assert!(got[..2] == [-1e6, -1e6] && got[2].is_nan() && got[3].is_nan() && got[4].is_finite(), "{got:?}");
        assert!(context.projected(&projection, &[]).unwrap().is_empty());
        assert!(matches!(context.projected(&projection, &[0.0; 3]), Err(Error::Shape { .. })));
    }
}
