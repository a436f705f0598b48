//! The CUDA drift under attack, on the simulator (crates/cuda-sim): other orders of blocks, warps and streams, races
//! in global memory, approximate functions that err, and calls that fail.
#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used)]

mod common;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::process::Command;

use common::bench::{Arrays, Bench, Call};
use common::{Case, check, device, elsewhere, relative_error, written_elsewhere};
use cudrift::cuda::{self, Plan};
use cudrift::{DriftSpec, Dtype, Error};

/// Settings of the simulator that no result may hang on; several attack at once.
const SCHEDULES: [&[(&str, &str)]; 5] = [
    &[("CUDRIFT_SIM_WITH", "global-race,registers"), ("CUDRIFT_SIM_LEAKS", "1")],
    &[("CUDRIFT_SIM_ORDER", "descending"), ("CUDRIFT_SIM_STREAMS", "late")],
    &[("CUDRIFT_SIM_ORDER", "1"), ("CUDRIFT_SIM_STREAMS", "1")],
    &[("CUDRIFT_SIM_ORDER", "2"), ("CUDRIFT_SIM_STREAMS", "2"), ("CUDRIFT_SIM_WITH", "global-race")],
    &[("CUDRIFT_SIM_ORDER", "descending"), ("CUDRIFT_SIM_THREADS", "1"), ("CUDRIFT_SIM_DEVICE", "sm_90")],
];

/// How every line of the simulator begins that reports something.
const REPORT: &str = "cudrift-sim:";

/// Is there a simulator to attack with?
fn simulated() -> bool {
    device().is_some_and(|gpu| gpu.simulated)
}

/// A number that hangs on every bit of what random calls give.
fn digest(seeds: Range<u64>) -> u64 {
    let bench = Bench::new().unwrap();
    let mut hasher = DefaultHasher::new();
    for seed in seeds {
        Call::small(seed).run(&bench, |_, outcome, _| {
            let arrays = [&outcome.force, &outcome.gradient, &outcome.loss];
            arrays.into_iter().flatten().for_each(|v| v.to_bits().hash(&mut hasher));
            format!("{:?}", outcome.statistics).hash(&mut hasher);
        });
    }
    hasher.finish()
}

/// Runs random calls as they are and under every schedule, and compares every bit.
fn the_same_bits(test: &str, seeds: &Range<u64>) {
    if !simulated() {
        return;
    }
    let mut want = None;
    for schedule in [&[] as &[_]].into_iter().chain(SCHEDULES) {
        let change = |child: &mut Command| {
            child.envs(schedule.iter().copied());
        };
        let Some(written) = written_elsewhere(test, change) else {
            return eprintln!("digest {:x}", digest(seeds.clone()));
        };
        assert!(!written.contains(REPORT), "{schedule:?}: {written}");
        let got = written.lines().find(|line| line.starts_with("digest")).unwrap().to_owned();
        assert_eq!(want.get_or_insert_with(|| got.clone()), &got, "{schedule:?}");
    }
}

#[test]
fn random_calls_under_every_schedule() {
    the_same_bits("random_calls_under_every_schedule", &(0..6));
}

// In two halves, for two cores.
#[test]
#[ignore = "minutes: `cargo xtask test --full` runs it"]
fn many_random_calls_under_every_schedule() {
    the_same_bits("many_random_calls_under_every_schedule", &(6..256));
}

#[test]
#[ignore = "minutes: `cargo xtask test --full` runs it"]
fn more_random_calls_under_every_schedule() {
    the_same_bits("more_random_calls_under_every_schedule", &(256..506));
}

/// Results stay inside their bounds where approximate functions err as much as they may.
fn within_errors(test: &str, seeds: &Range<u64>) {
    for seed in ["1", "2", "3"] {
        let errors = |child: &mut Command| {
            child.env("CUDRIFT_SIM_ERRORS", seed);
        };
        if !simulated() || elsewhere(test, errors) {
            continue;
        }
        let bench = Bench::new().unwrap();
        return seeds.clone().for_each(|seed| Call::small(seed).judge(&bench));
    }
}

#[test]
fn random_calls_with_errors() {
    within_errors("random_calls_with_errors", &(0..6));
}

#[test]
#[ignore = "minutes: `cargo xtask test --full` runs it"]
fn many_random_calls_with_errors() {
    within_errors("many_random_calls_with_errors", &(6..206));
}

/// Arrays that other streams write before a call and after it: the call's streams wait, and are waited for.
#[test]
fn streams_wait_for_each_other() {
    if !simulated() {
        return;
    }
    for schedule in ["late", "1", "2", "3"] {
        let late = |child: &mut Command| {
            child.env("CUDRIFT_SIM_STREAMS", schedule);
        };
        if elsewhere("streams_wait_for_each_other", late) {
            continue;
        }
        let bench = Bench::new().unwrap();
        let (spec, case) = (DriftSpec::official(), Case::random(90, [2, 70, 5, 40, 33]));
        let want = bench.run::<f32>(&spec, &case);
        let other = bench.stream.context().new_stream().unwrap();
        let third = bench.stream.context().new_stream().unwrap();
        let plan = Plan::new(&spec, case.shape, Dtype::F32).unwrap();
        let mut arrays = Arrays::<f32>::new(&other, &case, 0);
        let mut workspace = bench.workspace(&plan);
        let (inputs, outputs) = arrays.views();
        plan.run(&bench.kernels, &bench.stream, inputs, &mut workspace, outputs).unwrap();
        // The samples are overwritten once the call has read them, the force is read once it is written.
        arrays.samples.iter_mut().for_each(|samples| other.memset_zeros(samples).unwrap());
        let force = third.clone_dtoh(&arrays.force).unwrap();
        assert_eq!(force[..want.force.len()], want.force);
        third.memset_zeros(&mut arrays.gradient).unwrap();
        let statistics = plan.statistics(&bench.stream, &workspace).unwrap().remove(0);
        assert_eq!(statistics, want.statistics);
        return;
    }
}

/// Each allocation, copy, launch, module or object of a call, or one out of so many, fails once: the answer is an error that
/// says so, the next call is right unless the context is lost, and nothing is left behind where `frees` says so.
fn failing(test: &str, call: &str, lost: bool, frees: bool, one_of: usize) {
    for number in (1..).step_by(one_of) {
        let order = format!("{call}:{number}");
        let fail = |child: &mut Command| {
            child.env("CUDRIFT_SIM_FAIL", &order).env("CUDRIFT_SIM_LEAKS", "1");
        };
        if !simulated() {
            return;
        }
        let Some(written) = written_elsewhere(test, fail) else { return fails_cleanly(lost) };
        if !written.contains("as CUDRIFT_SIM_FAIL asks") {
            assert!(number > 1, "no {call} ever failed");
            return;
        }
        assert!(!frees || !written.contains("leak"), "{order}: {written}");
    }
}

fn fails_cleanly(lost: bool) {
    let (spec, case) = (DriftSpec::official(), Case::random(91, [2, 9, 3, 14, 33]).weighted(91));
    let want = case.reference(&spec);
    let typed = |error: &Error| {
        let typed = matches!(error, Error::DeviceMemory { .. } | Error::Device { .. } | Error::NoKernels { .. });
        assert!(typed && !error.to_string().contains('\n'), "{error}");
        eprintln!("it says: {error}");
    };
    let mut failed = false;
    let mut once = |context: &mut Option<cuda::Context>| {
        let result = match context {
            None => cuda::Context::new().map(|new| context.insert(new)),
            Some(context) => Ok(context),
        };
        match result.and_then(|context| context.drift(&spec, &case.inputs())) {
            Ok(got) => check("force", relative_error(&got.force, &want.force), 5e-6),
            Err(error) => {
                typed(&error);
                assert!(!failed || lost, "a second error: {error}");
                failed = true;
            }
        }
    };
    let mut context = None;
    once(&mut context);
    once(&mut context);
    once(&mut context);
}

#[test]
fn failing_allocations() {
    failing("failing_allocations", "alloc", false, true, 4);
}

#[test]
fn failing_copies() {
    // A lost context frees nothing any more.
    failing("failing_copies", "copy", true, false, 4);
}

#[test]
fn failing_launches() {
    failing("failing_launches", "launch", false, true, 4);
}

#[test]
fn dying_kernels() {
    failing("dying_kernels", "kernel", true, false, 4);
}

#[test]
#[ignore = "half a minute: `cargo xtask test --full` runs it"]
fn every_failing_allocation() {
    failing("every_failing_allocation", "alloc", false, true, 1);
}

#[test]
#[ignore = "half a minute: `cargo xtask test --full` runs it"]
fn every_failing_copy() {
    failing("every_failing_copy", "copy", true, false, 1);
}

#[test]
#[ignore = "half a minute: `cargo xtask test --full` runs it"]
fn every_failing_launch() {
    failing("every_failing_launch", "launch", false, true, 1);
}

#[test]
#[ignore = "half a minute: `cargo xtask test --full` runs it"]
fn every_dying_kernel() {
    failing("every_dying_kernel", "kernel", true, false, 1);
}

#[test]
fn failing_modules() {
    failing("failing_modules", "module", false, true, 1);
}

#[test]
#[ignore = "half a minute: `cargo xtask test --full` runs it"]
fn failing_objects() {
    // cudarc makes a slice's events after its memory, and keeps that where an event fails (0.19.10, `CudaStream::alloc`).
    failing("failing_objects", "object", false, false, 1);
}

/// With less and less memory: an error that says what does not fit, or the right answer.
#[test]
fn little_memory() {
    if !simulated() {
        return;
    }
    for bytes in ["2000", "10000", "20000", "40000", "1000000"] {
        let little = |child: &mut Command| {
            child.env("CUDRIFT_SIM_MEMORY", bytes).env("CUDRIFT_SIM_LEAKS", "1");
        };
        match written_elsewhere("little_memory", little) {
            Some(written) => assert!(!written.contains(REPORT), "{written}"),
            None => return fails_cleanly(true),
        }
    }
}
