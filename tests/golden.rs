//! The golden vectors: the reference to 1e-10, the CPU backend against the official code's own error.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Case, check, golden_files, read_npz, relative_error};
use cudrift::{DriftSpec, FieldInputs, FieldSpec, Kernel, bf16, cpu, f16, reference};

const KEYS: [&str; 6] = ["loss", "scale", "scale_inputs", "loss_R", "goal_scaled", "grad_gen"];

fn spec_of(arrays: &std::collections::BTreeMap<String, common::Array>) -> DriftSpec {
    let mut spec = DriftSpec::official();
    spec.temperatures.clone_from(&arrays["R_list"].data);
    spec
}

#[test]
fn reference_agrees_with_every_golden_drift() {
    for path in golden_files(false) {
        let arrays = read_npz(&path);
        let out = Case::from_npz(&arrays).reference(&spec_of(&arrays));
        let got: [&[f64]; 6] = [&out.loss, &[out.scale.scale], &[out.scale.sigma], &out.loss_r, &out.goal, &out.grad];
        for (key, got) in KEYS.into_iter().zip(got) {
            let want = &arrays[&format!("ref_f64_{key}")].data;
            check(&format!("{} {key}", path.display()), relative_error(got, want), 1e-10);
        }
    }
}

#[test]
fn cpu_is_at_most_twice_as_wrong_as_the_official_code() {
    for path in golden_files(false) {
        let arrays = read_npz(&path);
        let case = Case::from_npz(&arrays);
        let inputs = case.inputs();
        let out = cpu::drift(&spec_of(&arrays), &inputs).unwrap();
        let wide = |v: &[f32]| v.iter().map(|v| f64::from(*v)).collect::<Vec<_>>();
        let got = [
            wide(&out.loss),
            vec![out.scale.scale],
            vec![out.scale.sigma],
            out.loss_r.clone(),
            wide(&out.goal(&inputs)),
            wide(&out.gradient()),
        ];
        for (key, got) in KEYS.into_iter().zip(got) {
            let want = &arrays[&format!("ref_f64_{key}")].data;
            let official = relative_error(&arrays[&format!("official_f32_{key}")].data, want);
            // Asked is at most twice the official error, or 2e-6; the README promises 2e-6 throughout.
            let bound = 2e-6;
            check(&format!("{} {key}", path.display()), relative_error(&got, want), bound);
            if path.ends_with("offset30_g16_p16_n8_s32.npz") && key == "grad_gen" {
                assert!(official >= 1e-3, "the README quotes the official error on these points");
            }
        }
    }
}

/// Half inputs are widened exactly and everything after that is f32, so the f32 bound holds against f64 on the
/// rounded inputs; style.md's rule for halves is weaker.
#[test]
fn cpu_in_half_precision_meets_the_f32_bound_on_the_rounded_inputs() {
    fn of<T: common::Convert>(path: &std::path::Path) {
        let arrays = read_npz(path);
        let (typed, rounded) = Case::from_npz(&arrays).rounded::<T>();
        let spec = spec_of(&arrays);
        let want = rounded.reference(&spec);
        let inputs = rounded.typed_inputs(&typed);
        let out = cpu::drift(&spec, &inputs).unwrap();
        let wide = |v: &[f32]| v.iter().map(|v| f64::from(*v)).collect::<Vec<_>>();
        for (key, got, want) in [
            ("loss", wide(&out.loss), &want.loss),
            ("loss_R", out.loss_r.clone(), &want.loss_r),
            ("goal_scaled", wide(&out.goal(&inputs)), &want.goal),
            ("grad_gen", wide(&out.gradient()), &want.grad),
        ] {
            let official =
                relative_error(&arrays[&format!("official_f32_{key}")].data, &arrays[&format!("ref_f64_{key}")].data);
            let bound = (2.0 * official).clamp(4e-6, 2e-4);
            check(&format!("{} {} {key}", path.display(), T::DTYPE), relative_error(&got, want), bound);
        }
    }
    for path in golden_files(false) {
        of::<f16>(&path);
        of::<bf16>(&path);
    }
}

#[test]
fn fields_agree_with_every_golden_value() {
    for path in golden_files(true) {
        let arrays = read_npz(&path);
        let narrow = |name: &str| arrays[name].data.iter().map(|v| *v as f32).collect::<Vec<_>>();
        let shape = |name: &str| [arrays[name].shape[0], arrays[name].shape[1]];
        let weights = |name: &str| arrays.get(name).map(|a| a.data.iter().map(|v| *v as f32).collect::<Vec<_>>());
        let (weight_p, weight_q) = (weights("weight_p"), weights("weight_q"));
        let (x, p, q) = (narrow("x"), narrow("p"), narrow("q"));
        let wide = |name: &str| &arrays[name].data[..];
        let inputs32 = FieldInputs::new((&x, shape("x")), (&p, shape("p")), (&q, shape("q")))
            .unwrap()
            .weights(weight_p.as_deref(), weight_q.as_deref())
            .unwrap();
        let inputs64 = FieldInputs::new((wide("x"), shape("x")), (wide("p"), shape("p")), (wide("q"), shape("q")))
            .unwrap()
            .weights(weight_p.as_deref(), weight_q.as_deref())
            .unwrap();
        let mut checked = 0;
        for (family, kernel) in [("gauss", Kernel::Gaussian), ("laplace", Kernel::Laplace)] {
            for (at, &h) in arrays[&format!("{family}_h")].data.iter().enumerate() {
                for mask in ["", "selfmask_"] {
                    let prefix = format!("{family}_h{at}_{mask}");
                    if !arrays.contains_key(&format!("{prefix}ms_p")) {
                        continue;
                    }
                    let mut spec = FieldSpec::new(kernel, h);
                    spec.self_mask = !mask.is_empty();
                    let want = |name: &str| &arrays[&format!("{prefix}{name}")].data;
                    let f64s = reference::field(&spec, &inputs64).unwrap();
                    let f32s = cpu::field(&spec, &inputs32).unwrap();
                    let dim = shape("x")[1];
                    let disc = |v: &[f64]| {
                        v.chunks(dim).map(|v| v.iter().map(|v| v * v).sum::<f64>()).sum::<f64>()
                            / (v.len() / dim) as f64
                    };
                    for (name, a, b) in [
                        ("ms_p", &f64s.ms_p, &f32s.ms_p),
                        ("ms_q", &f64s.ms_q, &f32s.ms_q),
                        ("drift", &f64s.drift, &f32s.drift),
                        ("score_p", &f64s.score_p, &f32s.score_p),
                        ("score_q", &f64s.score_q, &f32s.score_q),
                        ("score_diff", &f64s.score_diff, &f32s.score_diff),
                        ("logz_p", &f64s.logz_p, &f32s.logz_p),
                        ("logz_q", &f64s.logz_q, &f32s.logz_q),
                    ] {
                        check(&format!("{prefix}{name} f64"), relative_error(a, want(name)), 1e-10);
                        check(&format!("{prefix}{name} f32"), relative_error(b, want(name)), 2e-5);
                        checked += 1;
                    }
                    check(&format!("{prefix}ms_disc"), relative_error(&[disc(&f64s.drift)], want("ms_disc")), 1e-10);
                    check(
                        &format!("{prefix}score_disc"),
                        relative_error(&[disc(&f64s.score_diff)], want("score_disc")),
                        1e-10,
                    );
                }
            }
        }
        assert!(checked >= 32, "only {checked} arrays of {} were looked at", path.display());
    }
}
