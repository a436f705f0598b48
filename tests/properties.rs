//! Properties that hold for any samples, over random shapes, values and specs.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Case, Normal, naive, relative_error};
use cudrift::{Coupling, DriftSpec, Form, Kernel, Sinkhorn, bf16, cpu, f16};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use std::ops::Range;

/// A small call of any kind; the notebook's temperature follows the spread of the samples.
fn any_case() -> impl Strategy<Value = (Case, DriftSpec)> {
    case_of(0..3, -3..4)
}

/// Presets 0 official, 1 paper, 2 notebook; samples of size 10^decade.
fn case_of(presets: Range<usize>, decades: Range<i32>) -> impl Strategy<Value = (Case, DriftSpec)> {
    // One query alone is normalised to a force of 1 whatever it was (spec 2.4, G = 1), which hides every error but ours.
    let shape = (1usize..4, 2usize..30, 0usize..20, 1usize..30, 1usize..40);
    let values = (any::<u32>(), decades, any::<bool>(), prop_oneof![Just(0.0f32), Just(10.0), Just(-300.0)]);
    let choices = (presets, 0..Kernel::ALL.len(), 0usize..8, prop::collection::vec(0.02f64..2.0, 1..4));
    (shape, values, choices).prop_map(
        |((b, g, n, p, d), (seed, decade, weighted, offset), (preset, kernel, coupling, r))| {
            let scale = 10f32.powi(decade);
            let mut case = Case::random(u64::from(seed), [b, g, n, p, d]).scaled(scale).translated(offset * scale);
            if weighted {
                case = case.weighted(u64::from(seed));
            }
            let mut spec = [DriftSpec::official(), DriftSpec::paper(), DriftSpec::notebook()][preset].clone();
            spec.kernel = Kernel::ALL[kernel];
            spec = match coupling {
                0 => spec.coupled(Coupling::Row, Form::Joint),
                1 => spec.coupled(Coupling::Sinkhorn(Sinkhorn::new(3)), Form::Joint),
                2 => spec.coupled(Coupling::Sinkhorn(Sinkhorn::new(3)), Form::Split),
                3 => spec.coupled(Coupling::RowColumn, Form::Split),
                _ => spec,
            };
            let unit = if preset == 2 { f64::from(scale) * (2.0 * d as f64).sqrt() } else { 1.0 };
            spec.temperatures = r.into_iter().map(|r| r * unit).collect();
            (case, spec)
        },
    )
}

/// What an error may be: twice that of the plain f32 formulas (2e-4 at most), eight times what half a unit in the last place of the
/// samples moves, and rounding noise.
fn bound(case: &Case, spec: &DriftSpec, want: &[f64]) -> f64 {
    let plain = relative_error(&naive::force(spec, case), want);
    let mut moved = case.clone();
    let mut rng = Normal::new(17);
    let wide: Vec<f64> = moved.samples().map(|v| f64::from(*v)).collect();
    let mut step = wide.iter().map(|v| v * (1.0 + 6e-8 * f64::from(2.0 * rng.uniform() - 1.0)));
    let shape = moved.shape;
    let mut take = |n: usize| step.by_ref().take(shape.groups * n * shape.dim).collect::<Vec<_>>();
    let (generated, negatives, positives) = (take(shape.generated), take(shape.negatives), take(shape.positives));
    let conditioning = relative_error(&case.reference_on(spec, &generated, &negatives, &positives).force, want);
    // A plain version that cancels to nonsense far from the origin does not excuse ours.
    let plain = if plain.is_finite() { (2.0 * plain).min(2e-4) } else { 0.0 };
    plain + 8.0 * conditioning + 2e-6
}

/// Forces whose squares f32 cannot hold to full precision are nobody's business; nor are those that the reference's own
/// loss, a difference of samples and goals in f64, has few digits of.
fn representable(case: &Case, force: &[f64]) -> bool {
    let mut case = case.clone();
    let sample = case.samples().fold(1.0f64, |m, v| m.max(f64::from(v.abs())));
    force.iter().fold(0.0f64, |m, f| m.max(f.abs())) > 1e-12 * sample
}

/// `error <= bound`, written so that NaN fails.
fn within(what: &str, error: f64, bound: f64) -> Result<(), TestCaseError> {
    prop_assert!(error <= bound, "{what}: error {error:e} exceeds {bound:e}");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, rng_seed: RngSeed::Fixed(20260205), ..ProptestConfig::default() })]

    #[test]
    fn cpu_is_at_most_twice_as_wrong_as_the_plain_formulas((case, spec) in any_case()) {
        let want = case.reference(&spec);
        prop_assume!(representable(&case, &want.force));
        let got = cpu::drift(&spec, &case.inputs()).unwrap();
        let bound = bound(&case, &spec, &want.force);
        within("force", relative_error(&got.force, &want.force), bound)?;
        within("loss", relative_error(&got.loss, &want.loss), 4.0 * bound)?;
        within("f2", relative_error(&got.loss_r, &want.loss_r), 4.0 * bound)?;
        let goal = got.goal(&case.inputs());
        within("goal", relative_error(&goal, &want.goal), bound)?;
    }

    #[test]
    fn half_precision_inputs((case, spec) in any_case()) {
        fn of<T: common::Convert>(case: &Case, spec: &DriftSpec) -> Result<(), TestCaseError> {
            let (typed, rounded) = case.rounded::<T>();
            let want = rounded.reference(spec);
            prop_assume!(representable(&rounded, &want.force));
            let got = cpu::drift(spec, &rounded.typed_inputs(&typed)).unwrap();
            let error = relative_error(&got.force, &want.force);
            within(T::DTYPE.name(), error, bound(&rounded, spec, &want.force))
        }
        of::<bf16>(&case, &spec)?;
        // f16 ends at 65504.
        if case.clone().samples().all(|v| v.abs() < 6e4) {
            of::<f16>(&case, &spec)?;
        }
    }

    /// Targets of one block may come in any order.
    #[test]
    fn permuting_targets_changes_nothing((case, spec) in any_case()) {
        let mut turned = case.clone();
        let s = case.shape;
        for b in 0..s.groups {
            turned.positives[b * s.positives * s.dim..(b + 1) * s.positives * s.dim].rotate_right(s.dim);
            turned.negatives[b * s.negatives * s.dim..(b + 1) * s.negatives * s.dim].rotate_right(s.dim * s.negatives.min(1));
            for (w, n) in [(&mut turned.weight_positives, s.positives), (&mut turned.weight_negatives, s.negatives)] {
                if let Some(w) = w {
                    w[b * n..(b + 1) * n].rotate_right(n.min(1));
                }
            }
        }
        let (a, b) = (case.reference(&spec), turned.reference(&spec));
        prop_assert!(relative_error(&b.force, &a.force) <= 1e-10);
        prop_assume!(representable(&case, &a.force));
        let got = cpu::drift(&spec, &turned.inputs()).unwrap();
        within("permuted", relative_error(&got.force, &a.force), bound(&case, &spec, &a.force))?;
    }

    /// Multiplying all samples by a power of two changes nothing but sigma, while no clip acts. (The clip of squared
    /// distances at 1e-8 always acts on the official preset's self pairs: 1e-4 / scale of the mean at most.)
    #[test]
    fn scale_equivariance((case, spec) in case_of(0..2, 2..4), power in -3i32..4) {
        let scaled = case.clone().scaled(2f32.powi(power));
        let (a, b) = (case.reference(&spec), scaled.reference(&spec));
        prop_assert!(relative_error(&b.force, &a.force) <= 1e-3);
        let out = cpu::drift(&spec, &scaled.inputs()).unwrap();
        within("scaled", relative_error(&out.force, &b.force), bound(&scaled, &spec, &b.force))?;
        prop_assert!((out.scale.sigma / a.scale.sigma / 2f64.powi(power) - 1.0).abs() <= 1e-5);
    }

    /// Swapping the roles of two sets that the queries stand apart from negates the force.
    #[test]
    fn antisymmetry(seed in any::<u32>(), n in 1usize..20, d in 1usize..20) {
        // With weights 0 on the generated samples the negative block is `neg` alone, and the dialect without
        // normalisation is antisymmetric in (neg, pos).
        let mut case = Case::random(u64::from(seed), [1, 6, n, n, d]);
        case.weight_generated = Some(vec![0.0; 6]);
        case.weight_negatives = Some(vec![1.0; n]);
        case.weight_positives = Some(vec![1.0; n]);
        let mut spec = DriftSpec::official();
        spec.temperatures = vec![0.3];
        spec.feature_scale = cudrift::FeatureScale::Raw;
        let mut swapped = case.clone();
        std::mem::swap(&mut swapped.negatives, &mut swapped.positives);
        let (a, b) = (case.reference(&spec), swapped.reference(&spec));
        let minus: Vec<f64> = b.force.iter().map(|v| -v).collect();
        prop_assert!(relative_error(&a.force, &minus) <= 1e-9);
        let (a, b) = (cpu::drift(&spec, &case.inputs()).unwrap(), cpu::drift(&spec, &swapped.inputs()).unwrap());
        let minus: Vec<f64> = b.force.iter().map(|v| -f64::from(*v)).collect();
        prop_assert!(relative_error(&a.force, &minus) <= 2e-4);
    }

    /// The same call gives the same bits, and never anything but finite numbers.
    #[test]
    fn repeatable_and_finite((case, spec) in any_case()) {
        let (a, b) = (cpu::drift(&spec, &case.inputs()).unwrap(), cpu::drift(&spec, &case.inputs()).unwrap());
        prop_assert!(a.force.iter().chain(&a.loss).all(|v| v.is_finite()));
        prop_assert!(a == b);
    }

    /// Whatever the bits of the samples, a call returns: values or NaN, and the count of what was not finite.
    #[test]
    fn any_bits_are_survived(bits in prop::collection::vec(any::<u32>(), 3 * 4 * 2..=3 * 4 * 2), preset in 0usize..3) {
        let values: Vec<f32> = bits.into_iter().map(f32::from_bits).collect();
        let mut case = Case::random(1, [2, 4, 4, 4, 1]);
        case.generated.copy_from_slice(&values[..8]);
        case.negatives.copy_from_slice(&values[8..16]);
        case.positives.copy_from_slice(&values[16..]);
        let spec = &[DriftSpec::official(), DriftSpec::paper(), DriftSpec::notebook()][preset];
        let out = cpu::drift(spec, &case.inputs()).unwrap();
        prop_assert_eq!(out.nonfinite, values.iter().filter(|v| !v.is_finite()).count() as u64);
        prop_assert_eq!(out.force.len(), 8);
    }
}
