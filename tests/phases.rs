//! Phases, chunks, threads: the same bits however the work is cut.
#![allow(clippy::unwrap_used)]

mod common;

use common::Case;
use cudrift::{DriftSpec, Error, bf16, cpu, cpu::Plan};

/// Shapes of both regimes: one tile per group, several tiles, several stripes, low and high D.
const SHAPES: [[usize; 5]; 11] = [
    [7, 64, 32, 64, 40],
    [5, 13, 3, 7, 2],
    [3, 1, 0, 1, 1],
    [2, 300, 20, 500, 3],
    [3, 129, 0, 131, 40],
    [2, 500, 40, 700, 17],
    [1, 2048, 0, 2048, 2],
    [1, 1100, 30, 900, 70],
    [4, 40, 8, 40, 5120],
    [1, 130, 0, 5000, 2],
    [2, 300, 0, 200, 300],
];

fn specs() -> [DriftSpec; 3] {
    [DriftSpec::official(), DriftSpec::paper(), DriftSpec::notebook()]
}

fn assert_same_bits(what: &str, a: &cpu::Drift, b: &cpu::Drift) {
    let bits = |v: &[f32]| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    assert!(bits(&a.force) == bits(&b.force), "{what}: forces differ");
    assert_eq!(bits(&a.loss), bits(&b.loss), "{what}: losses differ");
    assert_eq!((a.scale, &a.loss_r), (b.scale, &b.loss_r), "{what}: statistics differ");
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    for shape in SHAPES {
        let case = Case::random(1, shape).weighted(2);
        for spec in specs() {
            let run = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| cpu::drift(&spec, &case.inputs()).unwrap())
            };
            let one = run(1);
            for threads in [2, 3, 8] {
                assert_same_bits(&format!("{shape:?} on {threads} threads"), &run(threads), &one);
            }
        }
    }
}

/// Chunks over B, each with its own plan and workspace, merged in order: the bits of the one call.
#[test]
fn chunks_over_groups_give_the_same_bits() {
    for shape in SHAPES {
        let case = Case::random(4, shape).weighted(5);
        let inputs = case.inputs();
        let groups = shape[0];
        for spec in specs() {
            let whole = cpu::drift(&spec, &inputs).unwrap();
            for cuts in [vec![0, groups], (0..=groups).collect(), vec![0, groups / 2, groups / 2, groups]] {
                let mut parts: Vec<_> = cuts
                    .windows(2)
                    .map(|w| {
                        let part = inputs.groups(w[0]..w[1]).unwrap();
                        let plan = Plan::new(&spec, part.shape()).unwrap().keep(if w[0] == 0 { 0 } else { 1 << 20 });
                        let workspace = plan.workspace();
                        (plan, part, workspace)
                    })
                    .collect();
                let sums = parts.iter_mut().map(|(plan, part, ws)| plan.distances(part, ws).unwrap());
                let scale = sums.reduce(|a, b| a.merge(b)).unwrap().finish(&spec).unwrap();
                let sums = parts.iter_mut().map(|(plan, part, ws)| plan.coefficients(part, &scale, ws).unwrap());
                let norms = sums.reduce(|a, b| a.merge(b)).unwrap().finish(&spec, &scale);
                let (mut force, mut loss) = (Vec::new(), Vec::new());
                for (plan, part, ws) in &mut parts {
                    let shape = part.shape();
                    let mut f = vec![f32::NAN; shape.groups * shape.generated * shape.dim];
                    let mut l = vec![f32::NAN; shape.groups];
                    plan.contraction(part, &scale, &norms, ws, &mut f, &mut l).unwrap();
                    force.extend(f);
                    loss.extend(l);
                }
                let bits = |v: &[f32]| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                assert!(bits(&force) == bits(&whole.force), "{shape:?} cut at {cuts:?}");
                assert_eq!(bits(&loss), bits(&whole.loss));
                assert_eq!(norms.f2, whole.loss_r);
            }
        }
    }
}

#[test]
fn a_workspace_serves_many_calls() {
    let spec = DriftSpec::official();
    for shape in [[3, 20, 4, 9, 12], [2, 300, 20, 500, 3], [1, 300, 30, 200, 70], [2, 300, 0, 200, 40]] {
        for spec in [spec.clone(), DriftSpec::paper(), DriftSpec::notebook()] {
            let (first, mut second) = (Case::random(1, shape), Case::random(2, shape).weighted(1));
            second.weight_positives.as_mut().unwrap()[..3].fill(0.0);
            let plan = Plan::new(&spec, first.shape).unwrap();
            let mut workspace = plan.workspace();
            for case in [&first, &second, &first] {
                let inputs = case.inputs();
                let scale = plan.distances(&inputs, &mut workspace).unwrap().finish(&spec).unwrap();
                let norms = plan.coefficients(&inputs, &scale, &mut workspace).unwrap().finish(&spec, &scale);
                let (mut force, mut loss) = (vec![f32::NAN; case.generated.len()], vec![f32::NAN; shape[0]]);
                plan.contraction(&inputs, &scale, &norms, &mut workspace, &mut force, &mut loss).unwrap();
                assert_eq!(force, cpu::drift(&spec, &inputs).unwrap().force);
            }
        }
    }
}

#[test]
fn misuse_is_a_typed_error() {
    let spec = DriftSpec::official();
    let case = Case::random(1, [2, 5, 0, 4, 3]);
    let inputs = case.inputs();
    let plan = Plan::new(&spec, case.shape).unwrap();
    let mut workspace = plan.workspace();
    let scale = cudrift::Scale { scale: 1.0, sigma: 1.0, distance: 1.0 };
    assert!(matches!(plan.coefficients(&inputs, &scale, &mut workspace), Err(Error::Order { .. })));
    let sums = plan.distances(&inputs, &mut workspace).unwrap();
    let scale = sums.finish(&spec).unwrap();
    let norms = cpu::ForceNorms { f2: vec![1.0; 3], theta: vec![1.0; 3], convergence: Vec::new() };
    let (mut force, mut loss) = (vec![0.0; 30], vec![0.0; 2]);
    let early = plan.contraction(&inputs, &scale, &norms, &mut workspace, &mut force, &mut loss);
    assert!(matches!(early, Err(Error::Order { .. })));
    plan.coefficients(&inputs, &scale, &mut workspace).unwrap();
    let short = plan.contraction(&inputs, &scale, &norms, &mut workspace, &mut force[1..], &mut loss);
    assert!(matches!(short, Err(Error::Shape { argument: "force", .. })));
    let short = plan.contraction(&inputs, &scale, &norms, &mut workspace, &mut force, &mut loss[1..]);
    assert!(matches!(short, Err(Error::Shape { argument: "loss", .. })));
    let norms = cpu::ForceNorms { f2: vec![1.0], theta: vec![1.0], convergence: Vec::new() };
    let short = plan.contraction(&inputs, &scale, &norms, &mut workspace, &mut force, &mut loss);
    assert!(matches!(short, Err(Error::Shape { argument: "norms", .. })));

    let other = Case::random(1, [2, 5, 1, 4, 3]);
    assert!(matches!(plan.distances(&other.inputs(), &mut workspace), Err(Error::Shape { .. })));
    let other_plan = Plan::new(&spec, other.shape).unwrap();
    assert!(matches!(other_plan.distances(&other.inputs(), &mut workspace), Err(Error::Order { .. })));
}

/// A workspace of a plan with another spec, or another scale in phase C, would mix what belongs to different calls.
#[test]
fn foreign_workspaces_and_scales_are_typed_errors() {
    for shape in [[2, 5, 0, 4, 3], [1, 300, 0, 200, 3]] {
        let case = Case::random(1, shape);
        let inputs = case.inputs();
        let spec = DriftSpec::official();
        let plan = Plan::new(&spec, case.shape).unwrap();
        let mut workspace = plan.workspace();
        let scale = plan.distances(&inputs, &mut workspace).unwrap().finish(&spec).unwrap();
        let norms = plan.coefficients(&inputs, &scale, &mut workspace).unwrap().finish(&spec, &scale);
        let (mut force, mut loss) = (vec![0.0; case.generated.len()], vec![0.0; shape[0]]);
        let mut other_spec = spec.clone();
        other_spec.temperatures = vec![0.1, 0.2, 0.4];
        let other = Plan::new(&other_spec, case.shape).unwrap();
        let mixed = other.contraction(&inputs, &scale, &norms, &mut workspace, &mut force, &mut loss);
        assert!(matches!(mixed, Err(Error::Order { .. })));
        let other = plan.clone().keep(0);
        assert!(matches!(other.coefficients(&inputs, &scale, &mut workspace), Err(Error::Order { .. })));
        let mut moved = scale;
        moved.sigma *= 2.0;
        let mixed = plan.contraction(&inputs, &moved, &norms, &mut workspace, &mut force, &mut loss);
        assert!(matches!(mixed, Err(Error::Order { .. })));
        plan.contraction(&inputs, &scale, &norms, &mut workspace, &mut force, &mut loss).unwrap();
    }
}

/// The same values in another element type give the same bits: everything after widening is f32.
#[test]
fn half_inputs_are_widened_exactly() {
    for shape in [[3, 20, 4, 9, 5], [3, 20, 4, 9, 33], [1, 200, 0, 300, 2]] {
        let (typed, rounded) = Case::random(6, shape).rounded::<bf16>();
        let half = cpu::drift(&DriftSpec::official(), &rounded.typed_inputs(&typed)).unwrap();
        assert_same_bits("bf16", &half, &cpu::drift(&DriftSpec::official(), &rounded.inputs()).unwrap());
    }
}

/// `CUDRIFT_ISA` is heeded: what the test command forces is what is tested.
#[test]
fn a_forced_instruction_set_is_used() {
    if let Ok(name) = std::env::var("CUDRIFT_ISA") {
        assert_eq!(cpu::instruction_set(), name);
    }
}
