//! The sequence without fusion that the kernels are compared with: does it compute the same?
#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used)]

mod common;
#[path = "../benches/unfused/mod.rs"]
mod unfused;

use common::{Case, Convert, check, device, relative_error};
use cudrift::cuda::cudarc::driver::{CudaContext, DeviceRepr};
use cudrift::{DriftSpec, cpu, f16};
use unfused::Unfused;

/// Compares with the CPU on samples rounded alike.
fn compare<T: Convert + DeviceRepr>(name: &str, shape: [usize; 5], bound: f64) {
    let stream = CudaContext::new(0).unwrap().new_stream().unwrap();
    let (spec, case) = (DriftSpec::official(), Case::random(5, shape));
    let (typed, case) = case.rounded::<T>();
    let want = cpu::drift(&spec, &case.inputs()).unwrap();
    // There is no empty array on a device.
    let upload = |samples: &[T]| stream.clone_htod(&[samples, &[T::from_f32(f32::NAN)]].concat()).unwrap();
    let samples = [&typed.generated, &typed.negatives, &typed.positives].map(|samples| upload(samples));
    let mut gradient = stream.clone_htod(&vec![f32::NAN; case.generated.len()]).unwrap();
    let mut loss = stream.clone_htod(&vec![f32::NAN; case.shape.groups]).unwrap();
    let mut unfused = Unfused::new(&stream, case.shape, name);
    unfused.run(&spec.temperatures, &samples, &mut gradient, &mut loss);
    let pairs = case.shape.groups * case.shape.generated * case.shape.targets();
    assert!(unfused.workspace_bytes() > 3 * 4 * pairs, "distances and two softmaxes");
    let wide = |values: &[f32]| values.iter().map(|v| f64::from(*v)).collect::<Vec<_>>();
    let (gradient, loss) = (stream.clone_dtoh(&gradient).unwrap(), stream.clone_dtoh(&loss).unwrap());
    check(&format!("{name} {shape:?} gradient"), relative_error(&gradient, &wide(&want.gradient())), bound);
    check(&format!("{name} {shape:?} loss"), relative_error(&loss, &wide(&want.loss)), bound);
}

#[test]
fn the_sequence_gives_the_same_gradient() {
    if device().is_none() {
        return;
    }
    for shape in [[3, 13, 5, 9, 40], [1, 70, 0, 61, 2], [2, 64, 32, 64, 72]] {
        compare::<f32>("f32", shape, 2e-5);
        // cuBLAS rounds to ten digits what it multiplies, and where points are near others that is what is left of them.
        compare::<f32>("tf32", shape, 2e-2);
        compare::<f16>("f16", shape, 1e-3);
    }
}
