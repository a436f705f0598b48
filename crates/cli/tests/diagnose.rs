//! `diagnose`: what it prints and writes, on mixtures of its own and on a user's points.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;

/// The numbers of a table's rows.
fn rows(text: &str) -> Vec<Vec<f64>> {
    let cells = |line: &str| line.split('|').filter_map(|cell| cell.trim().parse().ok()).collect::<Vec<f64>>();
    text.lines().map(cells).filter(|row| !row.is_empty()).collect()
}

#[test]
fn mixtures_are_measured_tabled_and_drawn() {
    let folder = Folder::new();
    let out = folder.text("view");
    let args = ["diagnose", "--synthetic", "ring,raw", "--dims", "128,8,32,8", "--seeds", "2", "--out", &out];
    let output = succeeds(&[&args[..], &["--references", "512", "--queries", "64"]].concat());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let rows = rows(&text);
    assert_eq!(rows.iter().map(|row| row[0]).collect::<Vec<_>>(), [8.0, 32.0, 128.0, 8.0, 32.0, 128.0], "{text}");
    assert_eq!(text.matches("slope of log relative").count(), 2, "{text}");
    for (set, rows) in ["ring", "raw"].into_iter().zip(rows.chunks(3)) {
        // Relative error falls, the cosine rises, with the number of dimensions.
        assert!(rows[2][2] < rows[1][2] && rows[2][3] > rows[1][3] && rows[2][3] > 0.95, "{text}");
        let csv = std::fs::read_to_string(folder.path("view").join(format!("{set}.csv"))).unwrap();
        let lines: Vec<_> = csv.lines().collect();
        assert!(lines.len() == 7 && lines[0].starts_with("D,seed,absolute,relative"), "{csv}");
        let relative = |line: &str| line.split(',').nth(3).unwrap().parse::<f64>().unwrap();
        let mean = (relative(lines[5]) + relative(lines[6])) / 2.0;
        assert!((mean / rows[2][2] - 1.0).abs() <= 5e-3, "{csv}{text}");
        let picture = std::fs::read(folder.path("view").join(format!("{set}.png"))).unwrap();
        assert!(picture.starts_with(b"\x89PNG\r\n\x1a\n") && picture.len() > 5000);
    }
}

#[test]
fn a_users_points_are_measured() {
    let points = golden("ms_g33_p47_n29_s7.npz");
    let output = succeeds(&["diagnose", "--in", &points, "--kernel", "gaussian", "--bandwidth", "0.7"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // A Gaussian's drift is tau² times the score discrepancy.
    let row = rows(&text).remove(0);
    assert!(row[0] == 7.0 && row[2] <= 1e-10 && row[3] >= 0.9999 && row[4..6] == [1.0, 1.0], "{text}");
}

#[test]
fn a_runs_checkpoint_is_measured() {
    let folder = Folder::new();
    let run = folder.text("run");
    let args =
        ["--steps", "5", "--batch", "64", "--kernel", "gaussian", "--temperatures", "0.05,0.5", "--backend", "cpu"];
    succeeds(&[&["train", "--data", "two-moons", "--out", &run][..], &args].concat());
    let few = ["--queries", "48", "--references", "200"];
    let text = |run: &str| {
        let output = succeeds(&[&["diagnose", "--run", run][..], &few].concat());
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let shown = text(&run);
    assert!(shown.starts_with("step 5; length scales are temperatures times 1.0000"), "{shown}");
    let rows = rows(&shown);
    assert_eq!(rows.iter().map(|row| row[0]).collect::<Vec<_>>(), [0.05, 0.5, 0.05, 0.5], "{shown}");
    for row in &rows[..2] {
        // A Gaussian's drift is tau² times the score discrepancy.
        assert!(row[2] <= 1e-10 && row[3] >= 0.9999 && row[4..6] == [1.0, 1.0], "{shown}");
        assert!((1.0..=200.0).contains(&row[7]) && (1.0..=200.0).contains(&row[8]), "{shown}");
    }
    for row in &rows[2..] {
        let [mass_g, mass_p, ess_g, ess_p, step, moved_g, moved_p, pool] = row[1..9] else { panic!("{shown}") };
        assert!(mass_g > 0.0 && mass_p > 0.0 && mass_g.hypot(mass_p) <= 1.5, "{shown}");
        assert!((1.0..=48.0).contains(&ess_g) && (1.0..=48.0).contains(&ess_p), "{shown}");
        // No barycentre lies beyond the data, which are a few units wide.
        assert!([step, moved_g, moved_p, pool].iter().all(|v| *v > 0.0 && *v < 5.0), "{shown}");
    }
    // Wider kernels see more.
    assert!(rows[1][7] > rows[0][7] && rows[3][3] > rows[2][3], "{shown}");

    let split = folder.text("split");
    succeeds(
        &[&["train", "--data", "ring", "--out", &split, "--coupling", "row", "--form", "split"][..], &args].concat(),
    );
    assert!(text(&split).contains("two barycentres"));
    fails(&["diagnose", "--run", &folder.text("none")], 1, "config.json");
    fails(&["diagnose", "--run", &run, "--bandwidth", "1"], 2, "temperatures");
    fails(&["diagnose", "--run", &run, "--kernel", "laplace"], 2, "cannot be used");
    fails(&["diagnose", "--run", &run, "--queries", "0"], 1, "at least 1");
    std::fs::remove_file(folder.path("run").join("checkpoint.safetensors")).unwrap();
    fails(&["diagnose", "--run", &run], 1, "checkpoint.safetensors");
}

#[test]
fn impossible_measurements() {
    let points = golden("ms_g6_p5_s2.npz");
    fails(&["diagnose"], 2, "--synthetic");
    fails(&["diagnose", "--in", &points], 2, "--bandwidth");
    fails(&["diagnose", "--in", &points, "--synthetic", "ring", "--bandwidth", "1"], 2, "cannot be used");
    fails(&["diagnose", "--in", &points, "--bandwidth", "-1"], 1, "bandwidth");
    fails(&["diagnose", "--synthetic", "ring", "--dims", "1"], 1, "at least 2");
    fails(&["diagnose", "--synthetic", "raw", "--bandwidth", "1"], 2, "--norms");
    fails(&["diagnose", "--synthetic", "square"], 2, "square");
    fails(&["diagnose", "--synthetic", "raw", "--seeds", "0"], 2, "--seeds");
    fails(&["diagnose", "--synthetic", "raw", "--dims", "8", "--queries", "0"], 1, "queries");
    fails(&["diagnose", "--synthetic", "raw", "--dims", "8", "--references", "0"], 1, "at least one point");
    fails(&["diagnose", "--synthetic", "raw", "--dims", "4000000000", "--references", "4000000000"], 1, "memory");
}
