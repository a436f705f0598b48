//! The command as a shell sees it: help, status, pipes, threads.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use std::process::Stdio;

#[test]
fn help_and_version() {
    for args in [
        &["--help"][..],
        &["train", "--help"],
        &["drift", "--help"],
        &["field", "--help"],
        &["diagnose", "--help"],
        &["bench", "--help"],
    ] {
        let output = succeeds(args);
        assert!(String::from_utf8_lossy(&output.stdout).contains("Usage:"), "{args:?}");
        assert!(output.stderr.is_empty());
    }
    assert!(String::from_utf8_lossy(&succeeds(&["--version"]).stdout).starts_with("cudrift 0."));
    let output = run(&[]);
    assert_failed("no command", &output, 2, "name a command");
    assert!(String::from_utf8_lossy(&output.stdout).contains("Usage:"));
    fails(&["nonsense"], 2, "--help");
}

#[test]
fn doctor_checks_itself() {
    let output = succeeds(&["doctor"]);
    let text = String::from_utf8_lossy(&output.stdout);
    for word in ["instruction set", "threads", "CUDA", "self check"] {
        assert!(text.contains(word), "{word} in\n{text}");
    }
    // `cargo xtask test` puts the simulator where the driver's library is looked for.
    let simulator = std::env::var("LD_LIBRARY_PATH").is_ok_and(|path| path.contains("target/sim"));
    assert!(!simulator || text.contains("this is cudrift's simulator, not a GPU"), "{text}");
    let none = cudrift().arg("doctor").env("CUDRIFT_SIM_DEVICE", "sm_1").output().unwrap();
    assert!(none.status.success(), "a device that refuses is no reason to fail");
    assert!(!simulator || String::from_utf8_lossy(&none.stdout).contains("no CUDA device: cuInit answers"), "{none:?}");
}

#[test]
fn bench_reports_in_both_forms() {
    let table = succeeds(&["bench", "--shapes", "a", "--runs", "1"]);
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    assert!(table.contains("sgemm") && table.contains("8 x 64 x 64 x 32 x 640"), "{table}");
    let json = succeeds(&["bench", "--shapes", "a", "--runs", "1", "--dtype", "bf16", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert!(
        json["rows"][0]["gflops"].as_f64().unwrap() > 0.1 && json["ceilings"]["sgemm_gflops"].as_f64().unwrap() > 1.0
    );
    assert!(json["rows"][0]["peak_bytes_beyond_inputs_and_outputs"].as_u64().unwrap() > 0);
    fails(&["bench", "--shapes", "z"], 1, "no shape");
    fails(&["bench", "--runs", "0"], 1, "--runs");
}

/// Nobody reading is no reason to fail, still less to panic.
#[cfg(target_os = "linux")]
#[test]
fn closed_and_full_streams() {
    let folder = Folder::new();
    let case = folder.case(&[]);
    let out = folder.text("out.npz");
    let full = || Stdio::from(std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    let closed = || {
        let mut child = std::process::Command::new("true").stdin(Stdio::piped()).spawn().unwrap();
        let pipe = child.stdin.take().unwrap();
        child.wait().unwrap();
        Stdio::from(pipe)
    };
    let status = |args: &[&str], stdout: Stdio, stderr: Stdio| {
        cudrift().args(args).stdout(stdout).stderr(stderr).status().unwrap().code()
    };
    assert_eq!(status(&["doctor"], closed(), Stdio::null()), Some(0));
    assert_eq!(status(&["--help"], closed(), Stdio::null()), Some(0));
    assert_eq!(status(&["doctor"], full(), Stdio::null()), Some(1));
    assert_eq!(status(&["nonsense"], Stdio::null(), full()), Some(2));
    assert_eq!(status(&["drift", "--in", "none.npz", "--out", &out], Stdio::null(), full()), Some(1));
    let weighted = folder.case(&[("weight_gen", npy_f32(&[2, 3], &[0.5; 6]))]);
    let notebook = ["drift", "--in", &weighted, "--out", &out, "--preset", "notebook"];
    assert_eq!(status(&notebook, Stdio::null(), full()), Some(0));
    let config = folder.path("small.toml");
    std::fs::write(&config, "batch = 16\nhidden = [8]\nnoise_dim = 4\nlog_every = 1\n").unwrap();
    let (run, config) = (folder.text("run"), config.to_str().unwrap());
    let train = ["train", "--data", "ring", "--steps", "20", "--config", config, "--out", &run];
    assert_eq!(status(&train, closed(), closed()), Some(0));
    assert!(folder.path("run/samples.png").exists());
    drop(case);
}

#[test]
fn impossible_numbers_of_threads() {
    let output = cudrift().arg("doctor").env("RAYON_NUM_THREADS", "100000").output().unwrap();
    assert_failed("100000 threads", &output, 1, "RAYON_NUM_THREADS");
}

/// Messages are bounded and cannot steer a terminal.
#[test]
fn messages_are_one_printable_line() {
    let folder = Folder::new();
    let long = "x".repeat(5000);
    let case = folder.case(&[(&long, npy_f32(&[1], &[1.0]))]);
    let output = run(&["drift", "--in", &case, "--out", &folder.text("out.npz")]);
    assert_failed("a long key", &output, 1, "unknown key");
    assert!(output.stderr.len() < 1000);
    let output = run(&["drift", "--in", "\u{1b}[31mred.npz", "--out", "out.npz"]);
    assert_failed("an escape in a name", &output, 1, "red.npz");
    assert!(!output.stderr.contains(&0x1b));
}
