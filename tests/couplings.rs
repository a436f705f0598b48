//! Couplings and forms (spec 7): entropic plans, rows alone and both softmaxes, joint and split.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Case, check, relative_error};
use cudrift::{
    AffinityFloor, Convergence, Coupling, DriftInputs, DriftSpec, Error, FieldInputs, FieldSpec, Form, Kernel, Points,
    SelfMask, Sinkhorn, WeightRule, cpu, reference,
};

const FORMS: [Form; 2] = [Form::Joint, Form::Split];

fn sinkhorn(iterations: u32) -> Coupling {
    Coupling::Sinkhorn(Sinkhorn::new(iterations))
}

/// The notebook's dialect at one temperature.
fn raw(temperature: f64, coupling: Coupling, form: Form) -> DriftSpec {
    let mut spec = DriftSpec::notebook().coupled(coupling, form);
    spec.temperatures = vec![temperature];
    spec
}

/// Spec 2.8 (d).
#[test]
fn golden_sinkhorn() {
    let gen_ = [0.0f32, 0.0, 1.0, 0.0, 0.5, -1.0];
    let positives = [1.0f32, 1.0, 2.0, 0.0];
    let want = [1.12325511, 0.811469892, 0.703511207, 0.535948768, 1.17323368, 1.15258132];
    let inputs =
        DriftInputs::new(Points::new(&gen_, [1, 3, 2]).unwrap(), Points::new(&positives, [1, 2, 2]).unwrap()).unwrap();
    let spec = raw(0.5, sinkhorn(20), Form::Split);
    let out = cpu::drift(&spec, &inputs).unwrap();
    check("cpu", relative_error(&out.force, &want), 1e-6);
    assert_eq!(out.convergence[0].iterations, 20);
    let case = Case::of([1, 3, 0, 2, 2], [&gen_, &[], &positives]);
    check("reference", relative_error(&case.reference(&spec).force, &want), 1e-8);
}

/// Coefficients of the split form are the plan's rows, with a sign: both marginals of each block.
#[test]
fn a_plan_has_its_marginals() {
    let case = Case::random(3, [2, 7, 3, 9, 4]).weighted(5);
    let mut spec = DriftSpec::official().coupled(sinkhorn(1000), Form::Split);
    spec.temperatures = vec![0.2, 1.0];
    for kernel in Kernel::ALL {
        spec.kernel = kernel;
        let out = case.reference(&spec);
        let weights = [&case.weight_generated, &case.weight_negatives, &case.weight_positives];
        for (r, c) in out.coefficients.iter().enumerate() {
            assert!(out.convergence[r].error < 1e-9, "{kernel}: {:?}", out.convergence[r]);
            for (b, c) in c.chunks(7 * 19).enumerate() {
                let of_kind = |w: &Option<Vec<f32>>| {
                    let w = w.as_ref().unwrap();
                    w[b * w.len() / 2..][..w.len() / 2].to_vec()
                };
                let w: Vec<f32> = weights.into_iter().flat_map(of_kind).collect();
                let w = |j: usize| f64::from(w[j]);
                for block in [0..10, 10..19] {
                    let all: f64 = block.clone().map(w).sum();
                    for j in block.clone() {
                        let column: f64 = (0..7).map(|i| c[i * 19 + j].abs()).sum();
                        check("column", (column - 7.0 * w(j) / all).abs(), 1e-8);
                    }
                    for c in c.chunks(19) {
                        let row: f64 = c[block.clone()].iter().map(|c| c.abs()).sum();
                        check("row", (row - 1.0).abs(), 1e-12);
                    }
                }
            }
        }
    }
}

/// Where data and samples are the same, a plan moves nothing: the debiasing of spec 7.2.
#[test]
fn equal_sets_do_not_move() {
    let mut case = Case::random(8, [1, 12, 0, 12, 3]);
    case.positives.clone_from(&case.generated);
    let moved = |case: &Case, spec: &DriftSpec| {
        let (a, b) = (case.reference(spec).force, cpu::drift(spec, &case.inputs()).unwrap().force);
        (a.iter().fold(0.0f64, |m, f| m.max(f.abs())), b.iter().fold(0.0f32, |m, f| m.max(f.abs())))
    };
    for kernel in Kernel::ALL {
        let mut spec = raw(0.8, sinkhorn(20), Form::Split);
        spec.kernel = kernel;
        let (wide, single) = moved(&case, &spec);
        assert!(wide < 1e-14 && single < 1e-6, "{kernel}: {wide:e} {single:e}");
    }
    // Both softmaxes with the self pairs masked do.
    assert!(moved(&case, &raw(0.8, Coupling::RowColumn, Form::Split)).0 > 1e-2);
}

/// Where the rows' softmax has the columns' marginals already, which symmetry brings about, the first row projection is
/// the plan.
#[test]
fn the_row_coupling_is_a_row_projection() {
    let polygon = |count: usize, radius: f32, turn: f32| -> Vec<f32> {
        let angle = |k: usize| (k as f32 + turn) * std::f32::consts::TAU / count as f32;
        (0..count).flat_map(|k| [radius * angle(k).cos(), radius * angle(k).sin()]).collect()
    };
    let case = Case::of([1, 6, 0, 6, 2], [&polygon(6, 1.0, 0.0), &[], &polygon(6, 1.5, 0.3)]);
    let mut rows = raw(0.7, Coupling::Row, Form::Split);
    rows.self_mask = SelfMask::Keep;
    let want = case.reference(&rows).force;
    for iterations in [1, 5] {
        let plan = case.reference(&raw(0.7, sinkhorn(iterations), Form::Split));
        check("plan", relative_error(&plan.force, &want), 1e-6);
        assert!(plan.convergence[0].error < 1e-6);
    }
}

/// The split form of the row coupling is the difference of two mean shifts.
#[test]
fn split_rows_are_mean_shifts() {
    let case = Case::random(21, [1, 9, 0, 11, 3]);
    let wide = |v: &[f32]| v.iter().map(|v| f64::from(*v)).collect::<Vec<_>>();
    let (x, p) = (wide(&case.generated), wide(&case.positives));
    for kernel in Kernel::ALL {
        for masked in [false, true] {
            let mut spec = raw(0.6, Coupling::Row, Form::Split);
            spec.kernel = kernel;
            spec.self_mask = if masked { SelfMask::Remove } else { SelfMask::Keep };
            let mut field = FieldSpec::new(kernel, 0.6);
            field.self_mask = masked;
            let inputs = FieldInputs::new((&x, [9, 3]), (&p, [11, 3]), (&x, [9, 3])).unwrap();
            let want = reference::field(&field, &inputs).unwrap().drift;
            check("reference", relative_error(&case.reference(&spec).force, &want), 1e-12);
            check("cpu", relative_error(&cpu::drift(&spec, &case.inputs()).unwrap().force, &want), 2e-6);
        }
    }
}

#[track_caller]
fn agrees(what: &str, spec: &DriftSpec, case: &Case, bound: f64) {
    let want = case.reference(spec);
    let got = cpu::drift(spec, &case.inputs()).unwrap();
    check(&format!("{what}: force"), relative_error(&got.force, &want.force), bound);
    check(&format!("{what}: loss"), relative_error(&got.loss, &want.loss), 2.0 * bound);
    check(&format!("{what}: f2"), relative_error(&got.loss_r, &want.loss_r), 4.0 * bound);
    for (got, want) in got.convergence.iter().zip(&want.convergence) {
        assert_eq!(got.iterations, want.iterations, "{what}");
        check(&format!("{what}: marginals"), (got.error - want.error).abs(), 1e-2 * want.error + 1e-5);
    }
}

/// Every coupling and form in every dialect, on every route of the CPU.
#[test]
fn cpu_agrees_with_the_reference() {
    let shapes = [[2, 9, 2, 7, 3], [2, 9, 2, 7, 30], [1, 33, 0, 20, 640], [1, 260, 8, 250, 12], [1, 260, 30, 280, 2]];
    for (at, shape) in shapes.into_iter().enumerate() {
        let case = Case::random(2, shape).weighted(8);
        for (name, dialect) in
            [("official", DriftSpec::official()), ("paper", DriftSpec::paper()), ("notebook", DriftSpec::notebook())]
        {
            for (coupling, form) in [
                (sinkhorn(4), Form::Joint),
                (sinkhorn(4), Form::Split),
                (Coupling::RowColumn, Form::Split),
                (Coupling::Row, Form::Split),
            ] {
                let mut spec = dialect.clone().coupled(coupling, form);
                spec.kernel = Kernel::ALL[at % Kernel::ALL.len()];
                let unit = if name == "notebook" { (2.0 * shape[4] as f64).sqrt() } else { 1.0 };
                spec.temperatures = [0.05, 0.2, 1.0].map(|r| r * unit).to_vec();
                agrees(&format!("{name} {} {coupling:?} {form:?} {shape:?}", spec.kernel), &spec, &case, 2e-5);
            }
        }
    }
}

/// A column far from every row, whose affinities are all small, keeps its digits: what a row does not miss may be all that
/// the column has.
#[test]
fn far_columns_keep_their_digits() {
    for seed in 0..60 {
        let case = Case::random(seed, [1, 6, 0, 9, 10]);
        for kernel in Kernel::ALL {
            for temperature in [0.02, 0.025, 0.03, 0.04] {
                let mut spec = DriftSpec::paper().coupled(sinkhorn(3), Form::Split);
                (spec.kernel, spec.temperatures, spec.self_mask) = (kernel, vec![temperature], SelfMask::Keep);
                // Exponents are hundreds; the Gaussian's have twice the distances' error.
                agrees(&format!("{kernel} {seed} {temperature}"), &spec, &case, 1e-4);
            }
        }
    }
}

/// So low a temperature that a far target's affinities underflow in every row's softmax: its column must be brought to
/// its marginal all the same.
#[test]
fn low_temperatures_reach_far_targets() {
    for shape in [[1, 9, 0, 7, 3], [1, 260, 0, 250, 2], [1, 260, 0, 250, 20]] {
        let mut case = Case::random(6, shape);
        for v in &mut case.positives[..shape[4]] {
            *v += 30.0;
        }
        for (kernel, temperature) in [(Kernel::Laplace, 0.1), (Kernel::Gaussian, 1.5), (Kernel::Matern52, 0.2)] {
            for form in FORMS {
                let mut spec = raw(temperature, sinkhorn(10), form);
                spec.kernel = kernel;
                agrees(&format!("{kernel} {form:?} {shape:?}"), &spec, &case, 1e-4);
            }
        }
    }
}

#[test]
fn a_plan_stops_at_its_tolerance() {
    let case = Case::random(4, [1, 40, 0, 50, 2]);
    let at = |tolerance, iterations| {
        let spec = raw(0.3, Coupling::Sinkhorn(Sinkhorn { iterations, tolerance }), Form::Joint);
        (case.reference(&spec), cpu::drift(&spec, &case.inputs()).unwrap())
    };
    let (wide, single) = at(1e-3, 500);
    let Convergence { iterations, error } = wide.convergence[0];
    assert!((2..500).contains(&iterations) && error <= 1e-3, "{iterations} {error}");
    assert_eq!(single.convergence[0].iterations, iterations);
    assert!((single.convergence[0].error - error).abs() < 1e-5);
    // One iteration before it was not there yet; and what comes is what so many iterations give.
    assert!(at(0.0, iterations - 1).0.convergence[0].error > 1e-3);
    assert_eq!(at(0.0, iterations).0.force, wide.force);
    assert_eq!(at(0.0, iterations).1.force, single.force);
    // Rows and blocks without any pair hold nothing up.
    let alone = Case::random(4, [1, 1, 0, 5, 2]);
    let mut spec = raw(0.3, Coupling::Sinkhorn(Sinkhorn { iterations: 50, tolerance: 1e-6 }), Form::Split);
    spec.self_mask = SelfMask::Remove;
    assert_eq!(alone.reference(&spec).convergence[0], Convergence { iterations: 1, error: 0.0 });
    let got = cpu::drift(&spec, &alone.inputs()).unwrap();
    assert!(got.convergence[0].iterations == 1 && got.convergence[0].error < 1e-6);
}

/// What is kept between phases, and how many threads there are, leaves no trace.
#[test]
fn bits_depend_on_the_samples_alone() {
    for shape in [[3, 20, 4, 30, 40], [1, 300, 20, 600, 9], [2, 300, 0, 600, 2]] {
        let case = Case::random(12, shape);
        for form in FORMS {
            let spec = DriftSpec::official().coupled(sinkhorn(5), form);
            let inputs = case.inputs();
            let of = |keep: usize| {
                let plan = cpu::Plan::new(&spec, inputs.shape()).unwrap().keep(keep);
                let mut workspace = plan.workspace();
                let scale = plan.distances(&inputs, &mut workspace).unwrap().finish(&spec).unwrap();
                let norms = plan.coefficients(&inputs, &scale, &mut workspace).unwrap().finish(&spec, &scale);
                let (mut force, mut loss) = (vec![0.0; case.generated.len()], vec![0.0; shape[0]]);
                plan.contraction(&inputs, &scale, &norms, &mut workspace, &mut force, &mut loss).unwrap();
                (force, loss, norms)
            };
            let want = of(usize::MAX);
            assert_eq!(of(0), want, "{shape:?} {form:?}");
            let pool = rayon::ThreadPoolBuilder::new().num_threads(5).build().unwrap();
            assert_eq!(pool.install(|| of(0)), want, "{shape:?} {form:?}");
        }
    }
}

/// Weights of a plan are marginals, whatever rule they come by; a weight of 0 takes the target away.
#[test]
fn weights_are_marginals() {
    let mut case = Case::random(31, [1, 8, 5, 9, 3]);
    let mut weights = vec![1.0f32; 9];
    weights[4] = 0.0;
    weights[2] = 2.5;
    case.weight_positives = Some(weights);
    let mut without = case.clone();
    without.shape.positives = 8;
    without.positives.drain(12..15);
    without.weight_positives.as_mut().unwrap().remove(4);
    let mut spec = raw(0.5, sinkhorn(12), Form::Split);
    let forces: Vec<Vec<f64>> = [WeightRule::Affinity, WeightRule::Logit]
        .into_iter()
        .flat_map(|rule| {
            spec.weights = rule;
            agrees("weighted", &spec, &case, 5e-6);
            [case.reference(&spec).force, without.reference(&spec).force]
        })
        .collect();
    for force in &forces {
        check("force", relative_error(force, &forces[0]), 1e-12);
    }
    spec.weights = WeightRule::Ignored;
    assert!(relative_error(&case.reference(&spec).force, &forces[0]) > 1e-2);
}

#[test]
fn nothing_to_be_drawn_to() {
    for form in FORMS {
        for coupling in [sinkhorn(3), Coupling::Row, Coupling::RowColumn] {
            let mut spec = raw(0.5, coupling, form);
            spec.affinity_floor = AffinityFloor::None;
            let case = Case::random(3, [1, 5, 2, 0, 3]);
            assert!(case.reference(&spec).force.iter().all(|f| *f == 0.0));
            assert!(
                cpu::drift(&spec, &case.inputs()).unwrap().force.iter().all(|f| *f == 0.0),
                "{coupling:?} {form:?}"
            );
        }
    }
}

#[test]
fn what_is_not_finite_is_counted() {
    for form in FORMS {
        let spec = DriftSpec::official().coupled(sinkhorn(5), form);
        let mut case = Case::random(3, [2, 5, 2, 6, 3]);
        case.positives[4] = f32::NAN;
        let got = cpu::drift(&spec, &case.inputs()).unwrap();
        assert_eq!(got.nonfinite, 1);
        assert!(got.force.iter().all(|f| f.is_nan()));
    }
}

#[test]
fn specs_that_contradict_themselves_are_refused() {
    let refused = |change: &dyn Fn(&mut DriftSpec), argument: &str| {
        let mut spec = DriftSpec::official().coupled(sinkhorn(20), Form::Split);
        change(&mut spec);
        match spec.validate() {
            Err(Error::Value { argument: got, .. }) => assert_eq!(got, argument),
            other => panic!("{argument}: {other:?}"),
        }
    };
    refused(&|spec| spec.affinity_floor = AffinityFloor::Product(1e-6), "affinity_floor");
    refused(&|spec| spec.coupling = sinkhorn(0), "iterations");
    refused(&|spec| spec.coupling = sinkhorn(200_000), "iterations");
    for tolerance in [-1.0, f64::NAN, f64::INFINITY] {
        refused(&|spec| spec.coupling = Coupling::Sinkhorn(Sinkhorn { iterations: 5, tolerance }), "tolerance");
    }
    let mut spec = DriftSpec::official();
    spec.form = Form::Split;
    assert!(spec.validate().is_err());
}

/// Every coupling and form in every dialect on the device, in every type and rung.
#[cfg(feature = "cuda")]
mod cuda {
    use super::*;
    use common::bench::Bench;
    use cudrift::cuda::Options;
    use cudrift::{bf16, f16};

    const COUPLED: [(Coupling, Form); 4] = [
        (Coupling::Sinkhorn(Sinkhorn { iterations: 4, tolerance: 0.0 }), Form::Joint),
        (Coupling::Sinkhorn(Sinkhorn { iterations: 4, tolerance: 0.0 }), Form::Split),
        (Coupling::RowColumn, Form::Split),
        (Coupling::Row, Form::Split),
    ];

    #[test]
    fn the_device_agrees_with_the_reference() {
        let Some(bench) = Bench::new() else { return };
        let mut seed = 0;
        for (name, dialect) in common::bench::dialects() {
            for (coupling, form) in COUPLED {
                for kernel in Kernel::ALL {
                    seed += 1;
                    let mut spec = dialect.clone().coupled(coupling, form);
                    spec.kernel = kernel;
                    spec.temperatures = if name == "notebook" { vec![0.7] } else { vec![0.05, 0.3, 1.0, 0.2] };
                    let mut case = Case::random(seed, [2, 9, 4, 7, 5]);
                    if seed % 2 == 0 {
                        case = case.weighted(seed);
                        case.weight_negatives.as_mut().unwrap()[1] = 0.0;
                    }
                    let what = format!("{name} {kernel} {coupling:?} {form:?}");
                    // A squared distance has twice its relative error, in exponents of hundreds.
                    let bound = if kernel == Kernel::Gaussian { 2e-5 } else { 1e-5 };
                    if seed % 3 == 0 {
                        bench.compare::<bf16>(&what, &spec, &case, bound);
                    } else {
                        bench.compare::<f32>(&what, &spec, &case, bound);
                    }
                }
            }
        }
    }

    /// Tiles that stream, several ranges of coordinates, distances kept or not.
    #[test]
    fn tiles_stream() {
        let Some(bench) = Bench::new() else { return };
        for (coupling, form) in COUPLED {
            for shape in [[1, 66, 3, 170, 40], [1, 65, 0, 180, 2]] {
                let spec = DriftSpec::official().coupled(coupling, form);
                let case = Case::random(5, shape).weighted(4);
                let what = format!("{coupling:?} {form:?}");
                bench.compare::<f16>(&what, &spec, &case, 2e-5);
                let runs = [true, false].map(|keep| {
                    let options = Options { keep_distances: Some(keep), ..bench.options };
                    bench.run_with::<f32>(&spec, &case, options)
                });
                for got in &runs {
                    common::bench::judge::<f32>(&what, &spec, &case, got, false, 2e-5);
                }
            }
        }
    }

    #[test]
    fn plans_stop_apart() {
        let Some(bench) = Bench::new() else { return };
        let mut case = Case::random(4, [3, 20, 0, 25, 2]);
        // The groups' plans need iterations of their own.
        case.positives[50..100].iter_mut().for_each(|v| *v *= 3.0);
        for form in FORMS {
            let mut spec = raw(0.6, Coupling::Sinkhorn(Sinkhorn { iterations: 60, tolerance: 1e-2 }), form);
            spec.temperatures = vec![0.6, 2.0];
            let want = case.reference(&spec);
            let loaded = bench.load::<f32>(&spec, &case);
            let got = bench.run::<f32>(&spec, &case);
            common::bench::judge::<f32>(&format!("{form:?}"), &spec, &case, &got, false, 1e-5);
            let taken: Vec<u32> = want.convergence.iter().map(|c| c.iterations).collect();
            assert!(taken[0] < 60 && taken[1] < taken[0], "{taken:?}");
            // Each iteration's three launches, the first rows, the start, and what every call has.
            assert_eq!(loaded.plan.launches(), 3 * 60 + 2 + 6);
        }
    }

    /// No pair in a block, samples that are not finite, far targets at low temperatures.
    #[test]
    fn edges() {
        let Some(bench) = Bench::new() else { return };
        for (coupling, form) in COUPLED {
            let mut spec = raw(0.5, coupling, form);
            spec.affinity_floor = AffinityFloor::None;
            let nothing = bench.run::<f32>(&spec, &Case::random(3, [1, 5, 2, 0, 3]));
            assert!(nothing.force.iter().all(|f| *f == 0.0), "{coupling:?} {form:?}");
            spec.self_mask = SelfMask::Remove;
            let alone = bench.run::<f32>(&spec, &Case::random(3, [1, 1, 0, 4, 3]));
            assert!(alone.force.iter().all(|f| *f == 0.0), "{coupling:?} {form:?}: {:?}", alone.force);
            assert!(!alone.statistics.convergence[0].error.is_nan());
            let mut case = Case::random(3, [2, 5, 2, 6, 3]);
            case.positives[4] = f32::NAN;
            let got = bench.run::<f32>(&DriftSpec::official().coupled(coupling, form), &case);
            assert_eq!(got.statistics.nonfinite, 1);
            assert!(got.force.iter().all(|f| f.is_nan()), "{coupling:?} {form:?}");
        }
        let mut case = Case::random(6, [1, 9, 0, 7, 3]);
        case.positives[..3].iter_mut().for_each(|v| *v += 30.0);
        for form in FORMS {
            bench.compare::<f32>("far", &raw(0.1, sinkhorn(10), form), &case, 1e-4);
        }
    }
}
