//! The practical force by blocks: spec 6.5 against the reference's force, and its definitions by hand.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Case, Normal, check, relative_error};
use cudrift::diagnostics::{Block, ForceParts};
use cudrift::{Coupling, DriftInputs, DriftSpec, Error, Form, Kernel, Points, Sinkhorn, reference};

fn wide(v: &[f32]) -> Vec<f64> {
    v.iter().map(|v| f64::from(*v)).collect()
}

/// The samples of a case in f64, and its weights.
fn with<R>(case: &Case, work: impl FnOnce(&DriftInputs<'_, f64>) -> R) -> R {
    let s = case.shape;
    let (x, n, p) = (wide(&case.generated), wide(&case.negatives), wide(&case.positives));
    let points = |v, count| Points::new(v, [s.groups, count, s.dim]).unwrap();
    let mut inputs = DriftInputs::new(points(&x, s.generated), points(&p, s.positives)).unwrap();
    if s.negatives > 0 {
        inputs = inputs.negatives(points(&n, s.negatives)).unwrap();
    }
    if let (Some(w), Some(v)) = (&case.weight_negatives, &case.weight_positives) {
        inputs = inputs.weight_negatives(w).unwrap().weight_positives(v).unwrap();
    }
    work(&inputs)
}

#[test]
fn the_parts_are_the_force() {
    for (spec, shape) in [
        (DriftSpec::official(), [2, 7, 3, 5, 4]),
        (DriftSpec::paper(), [2, 7, 0, 5, 4]),
        (DriftSpec::notebook(), [1, 6, 2, 9, 2]),
        (DriftSpec::paper().coupled(Coupling::Sinkhorn(Sinkhorn::new(5)), Form::Joint), [2, 7, 3, 5, 4]),
    ] {
        let case = Case::random(3, shape).weighted(2);
        with(&case, |inputs| {
            let want = reference::drift(&spec, inputs).unwrap();
            for (r, parts) in ForceParts::new(&spec, inputs).unwrap().iter().enumerate() {
                let sum: Vec<f64> =
                    parts.from_generated.iter().zip(&parts.from_negatives).map(|(a, b)| a + b).collect();
                check("force", relative_error(&sum, &want.force_r[r]), 1e-11);
                let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
                let [g, n, p] = parts.mass.each_ref().map(|mass| mean(mass));
                check("masses", relative_error(&[g + n, p], &want.rows[r].mass), 1e-12);
                check("samples", relative_error(&[mean(&parts.effective[2])], &want.rows[r].effective[1..]), 1e-12);
            }
        });
    }
}

/// `mu_B - mu_row_B = Cov_a(h, Y) / E_a h` with a of the row's softmax and h the inverse root of the column's sum; 0
/// where the row stands alone.
#[test]
fn distortion_is_a_covariance() {
    let case = Case::random(5, [1, 6, 4, 8, 3]);
    let mut spec = DriftSpec::paper();
    spec.temperatures = vec![0.3, 1.0];
    for kernel in Kernel::ALL {
        spec.kernel = kernel;
        with(&case, |inputs| {
            let both = reference::drift(&spec, inputs).unwrap();
            let mut alone = spec.clone();
            alone.coupling = Coupling::Row;
            let rows = reference::drift(&alone, inputs).unwrap();
            let parts = ForceParts::new(&spec, inputs).unwrap();
            for (r, parts) in parts.iter().enumerate() {
                let got = parts.distortion(Block::Positives);
                for (i, got) in got.iter().enumerate() {
                    // A = a h c with a factor c of the row.
                    let own = |a: &[f64]| a[i * 18 + 10..(i + 1) * 18].to_vec();
                    let (a, both) = (own(&rows.affinities[r]), own(&both.affinities[r]));
                    let mass: f64 = a.iter().sum();
                    let a: Vec<f64> = a.iter().map(|a| a / mass).collect();
                    let h: Vec<f64> = both.iter().zip(&a).map(|(both, a)| both / a).collect();
                    let mean = |of: &dyn Fn(usize) -> f64| (0..8).map(|j| a[j] * of(j)).sum::<f64>();
                    let mean_h = mean(&|j| h[j]);
                    let step = |k: usize| {
                        let y = |j: usize| f64::from(case.positives[j * 3 + k]) / rows.scale.sigma;
                        (mean(&|j| h[j] * y(j)) - mean_h * mean(&y)) / mean_h
                    };
                    let want = (0..3).map(|k| step(k).powi(2)).sum::<f64>().sqrt();
                    check("distortion", (got - want).abs(), 1e-9);
                }
            }
            for parts in ForceParts::new(&alone, inputs).unwrap() {
                assert!(Block::ALL.iter().all(|block| parts.distortion(*block).iter().all(|e| *e < 1e-12)));
            }
        });
    }
}

/// The pool that the block is makes no error; the error of a few samples of a large pool falls with their number.
#[test]
fn finite_pools() {
    let mut normal = Normal::new(8);
    let pool: Vec<f64> = (0..4000 * 2).map(|_| f64::from(normal.next())).collect();
    let mut spec = DriftSpec::notebook();
    spec.temperatures = vec![1.0];
    let error = |count: usize| {
        let mut case = Case::random(2, [1, 20, 0, count, 2]);
        case.positives = pool[..2 * count].iter().map(|v| *v as f32).collect();
        with(&case, |inputs| {
            let parts = ForceParts::new(&spec, inputs).unwrap().remove(0);
            let own = wide(&case.positives);
            let none = parts.pool_error(&spec, inputs, Block::Positives, (&own, [count, 2])).unwrap();
            assert!(none.iter().all(|e| *e < 1e-12));
            let errors = parts.pool_error(&spec, inputs, Block::Positives, (&pool, [4000, 2])).unwrap();
            errors.iter().sum::<f64>() / 20.0
        })
    };
    let [few, many] = [error(20), error(500)];
    assert!(many > 0.0 && few > 2.5 * many, "{few} {many}");
}

#[test]
fn impossible_parts() {
    let case = Case::random(2, [2, 4, 0, 4, 2]);
    let spec = DriftSpec::notebook();
    with(&case, |inputs| {
        let split = spec.clone().coupled(Coupling::Row, Form::Split);
        assert!(matches!(ForceParts::new(&split, inputs), Err(Error::Value { argument: "form", .. })));
        let parts = ForceParts::new(&spec, inputs).unwrap().remove(0);
        let pool = [0.0; 6];
        assert!(matches!(parts.pool_error(&spec, inputs, Block::Positives, (&pool, [3, 2])), Err(Error::Shape { .. })));
    });
}
