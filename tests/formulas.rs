//! Vectors and identities of the specification.
#![allow(clippy::unwrap_used)]

mod common;

use common::{check, relative_error};
use cudrift::{DriftInputs, DriftSpec, Points, cpu, reference};

const GENERATED: [f64; 6] = [0.0, 0.0, 1.0, 0.0, 0.5, -1.0];
const NEGATIVE: [f64; 2] = [0.0, 2.0];
const POSITIVE: [f64; 4] = [1.0, 1.0, 2.0, 0.0];

fn narrow(values: &[f64]) -> Vec<f32> {
    values.iter().map(|v| *v as f32).collect()
}

/// Spec 2.8 (a), printed there to 9 digits.
#[test]
fn official_vector() {
    let points = |v, n| Points::new(v, [1, n, 2]).unwrap();
    let inputs = DriftInputs::new(points(&GENERATED[..], 3), points(&POSITIVE[..], 2))
        .unwrap()
        .negatives(points(&NEGATIVE[..], 1))
        .unwrap()
        .weight_negatives(&[0.5])
        .unwrap();
    let out = reference::drift(&DriftSpec::official(), &inputs).unwrap();
    let f2 = [0.29458934086563965, 0.3461851067876765, 0.3108441676054606];
    let c = [
        [-0.000127793419, -0.0750726245, -0.052320872, -0.00482657941, 0.12165463, 0.0106932395],
        [-0.414683684, -0.000998290392, -0.289008305, -0.00976463903, 0.346362046, 0.368092873],
        [-0.0160528411, -0.0160528411, -3.76382347e-05, -2.0300229e-05, 0.00766527589, 0.0244983448],
    ];
    let f = [0.050313866, 0.197753607, 1.12768656, 0.7411335, 0.048848374, 0.00922120592];
    let total = [0.0955164358, 0.360568967, 6.49467865, 3.30957426, 0.0901270231, 0.0177941879];
    let grad = [-0.0383163956, -0.144642156, -2.6053388, -1.32763493, -0.0361544339, -0.00713813427];
    check("scale", relative_error(&[out.scale.scale], &[1.1751334902568453]), 1e-15);
    check("sigma", relative_error(&[out.scale.sigma], &[0.830944859760031]), 1e-15);
    check("f2", relative_error(&out.loss_r, &f2), 1e-14);
    check("C", relative_error(&out.coefficients[2], c.as_flattened()), 1e-8);
    check("F", relative_error(&out.force_r[2], &f), 1e-8);
    check("F_tot", relative_error(&out.force, &total), 1e-8);
    check("loss", relative_error(&out.loss, &[8.880284227902704]), 1e-14);
    check("gradient", relative_error(&out.grad, &grad), 1e-8);

    let (generated, positive, negative) = (narrow(&GENERATED), narrow(&POSITIVE), narrow(&NEGATIVE));
    let points = |v, n| Points::new(v, [1, n, 2]).unwrap();
    let inputs = DriftInputs::new(points(&generated[..], 3), points(&positive[..], 2))
        .unwrap()
        .negatives(points(&negative[..], 1))
        .unwrap()
        .weight_negatives(&[0.5])
        .unwrap();
    let out = cpu::drift(&DriftSpec::official(), &inputs).unwrap();
    check("F_tot, cpu", relative_error(&out.force, &total), 2e-6);
    check("gradient, cpu", relative_error(&out.gradient(), &grad), 2e-6);
    check("loss, cpu", relative_error(&out.loss, &[8.880284227902704]), 2e-6);
}

/// Spec 2.8 (b).
#[test]
fn notebook_vector() {
    let mut spec = DriftSpec::notebook();
    spec.temperatures = vec![0.5];
    let want = [0.130352174, 0.32822788, 0.781005752, 0.567369036, 0.191711129, 0.059603481];
    let inputs = DriftInputs::new(
        Points::new(&GENERATED[..], [1, 3, 2]).unwrap(),
        Points::new(&POSITIVE[..], [1, 2, 2]).unwrap(),
    )
    .unwrap();
    let out = reference::drift(&spec, &inputs).unwrap();
    check("V", relative_error(&out.force, &want), 1e-8);
    check("loss", relative_error(&out.loss, &[0.18281809500472904]), 1e-14);
    check("loss_R", relative_error(&out.loss_r, &[0.18281809500472904]), 1e-14);
    assert_eq!((out.scale.scale, out.scale.sigma), (1.0, 1.0));

    let (generated, positive) = (narrow(&GENERATED), narrow(&POSITIVE));
    let inputs =
        DriftInputs::new(Points::new(&generated, [1, 3, 2]).unwrap(), Points::new(&positive, [1, 2, 2]).unwrap())
            .unwrap();
    let out = cpu::drift(&spec, &inputs).unwrap();
    check("V, cpu", relative_error(&out.force, &want), 2e-6);
}

/// The gradient of spec 5 is that of the loss with goal and scale frozen: finite differences in f64.
#[test]
fn gradient_agrees_with_finite_differences() {
    let case = common::Case::random(3, [2, 5, 3, 4, 3]).weighted(3);
    for spec in [DriftSpec::official(), DriftSpec::paper(), DriftSpec::notebook()] {
        let out = case.reference(&spec);
        let loss = |x: &[f64]| -> f64 {
            let residual = x.iter().zip(&out.goal).map(|(x, goal)| (x / out.scale.sigma - goal).powi(2));
            residual.sum::<f64>() / 15.0
        };
        let x: Vec<f64> = case.generated.iter().map(|v| f64::from(*v)).collect();
        let slopes: Vec<f64> = (0..x.len())
            .map(|k| {
                let moved = |step: f64| {
                    let mut x = x.clone();
                    x[k] += step;
                    loss(&x)
                };
                (moved(1e-5) - moved(-1e-5)) / 2e-5
            })
            .collect();
        check("gradient", relative_error(&slopes, &out.grad), 1e-8);
    }
}

/// Spec 2.3: coefficients of a row sum to 0, and the normalised forces have mean square 1.
#[test]
fn coefficients_sum_to_zero() {
    let case = common::Case::random(9, [3, 11, 4, 6, 5]).weighted(1);
    let out = case.reference(&DriftSpec::official());
    for c in &out.coefficients {
        for row in c.chunks(case.shape.targets()) {
            let size: f64 = row.iter().map(|c| c.abs()).sum();
            check("sum of C", row.iter().sum::<f64>().abs() / size, 1e-14);
        }
    }
}
