//! The examples that bring a field of their own learn what they are to learn.
#![allow(clippy::unwrap_used, dead_code)]

#[path = "../examples/06_dmd.rs"]
mod dmd;
#[path = "../examples/07_ign.rs"]
mod ign;

#[test]
fn a_teacher_s_score_less_a_fake_one() {
    let [before, after] = dmd::train(200).unwrap();
    println!("SWD {before:.3} -> {after:.3}");
    assert!(after <= 0.1 && after <= 0.35 * before, "{before} -> {after}");
}

#[test]
fn an_idempotent_network() {
    let [before, after] = ign::train(400).unwrap();
    println!("SWD {before:.3} -> {after:.3}");
    assert!(after <= 0.5 * before, "{before} -> {after}");
}
