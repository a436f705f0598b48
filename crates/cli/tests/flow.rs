//! `flow`: what it writes, that points come to the data along every field, and what is refused.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;

/// The lines of `flow.jsonl`: step, mean square, SWD.
fn lines(folder: &Folder, name: &str) -> Vec<[f64; 3]> {
    let text = std::fs::read_to_string(folder.path(&format!("{name}/flow.jsonl"))).unwrap();
    let line = |line: &str| -> [f64; 3] {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        ["step", "mean_square", "swd1"].map(|key| line[key].as_f64().unwrap())
    };
    text.lines().map(line).collect()
}

fn flow(folder: &Folder, name: &str, extra: &[&str]) {
    let out = folder.text(name);
    let words = ["flow", "--data", "two-moons", "--out", &out, "--points", "128", "--steps", "60", "--frames", "4"];
    succeeds(&[&words[..], extra].concat());
}

#[test]
fn it_writes_frames_and_pictures() {
    let folder = Folder::new();
    flow(&folder, "drift", &[]);
    let (shape, kind, values) = read_npy(&std::fs::read(folder.path("drift/particles.npy")).unwrap());
    assert_eq!((shape, kind.as_str()), (vec![4, 128, 2], "'<f4'"));
    let lines = lines(&folder, "drift");
    assert_eq!(lines.iter().map(|line| line[0]).collect::<Vec<_>>(), [0.0, 20.0, 40.0, 60.0]);
    assert!(lines[3][2] < 0.5 * lines[0][2], "{lines:?}");
    // The last step is shorter than the way since the frame before.
    let (before, last) = (&values[2 * 256..3 * 256], &values[3 * 256..]);
    let way: f64 = before.iter().zip(last).map(|(a, b)| (a - b) * (a - b)).sum::<f64>() / 256.0;
    assert!(0.0 < lines[3][1] && lines[3][1] < way, "{lines:?} {way}");
    for (name, frames) in [("flow.png", Some(4u8)), ("frames.png", None)] {
        let bytes = std::fs::read(folder.path(&format!("drift/{name}"))).unwrap();
        assert!(bytes.starts_with(b"\x89PNG\r\n\x1a\n") && bytes.len() > 5000, "{name}");
        // The chunk that says how many frames an animated picture has.
        let at = bytes.windows(4).position(|four| four == b"acTL");
        assert_eq!(at.map(|at| bytes[at + 7]), frames, "{name}");
    }
}

#[test]
fn points_come_to_the_data_along_every_field() {
    let folder = Folder::new();
    for field in
        ["mean-shift", "score", "sharp", "mmd", "coulomb", "forward-kl", "chi-squared", "sliced", "sd-flow", "nystrom"]
    {
        // The sizes of these fields differ; their directions are what is looked at.
        let landmarks = ["--landmarks", "100"];
        flow(&folder, field, &[&["--field", field, "--normalize", "--step", "0.02"], &landmarks[..]].concat());
        let lines = lines(&folder, field);
        assert!(lines[3][2] < 0.6 * lines[0][2], "{field}: {lines:?}");
        assert!((lines[3][1].sqrt() / 0.02 - 1.0).abs() <= 1e-4, "{field}: {lines:?}");
    }
    for (name, words) in [
        ("plan", &["--coupling", "sinkhorn"][..]),
        ("w-flow", &["--field", "w-flow"]),
        ("halves", &["--independent", "--field", "mmd", "--kernel", "gaussian"]),
    ] {
        flow(&folder, name, words);
        let lines = lines(&folder, name);
        assert!(lines[3][2] < 0.5 * lines[0][2], "{name}: {lines:?}");
    }
    // Two drifts in a step lead farther than one.
    flow(&folder, "one", &["--step", "0.02"]);
    flow(&folder, "ahead", &["--step", "0.02", "--lookahead", "1,1"]);
    let [one, two] = ["one", "ahead"].map(|name| lines(&folder, name)[1]);
    assert!(two[1] > 1.5 * one[1] && two[2] < one[2], "{one:?} {two:?}");
    if cuda() {
        for (name, words) in [
            ("coulomb", &["--field", "coulomb"][..]),
            ("sliced", &["--field", "sliced"]),
            ("halves", &["--field", "w-flow"]),
            ("ahead", &["--lookahead", "1,0.5"]),
        ] {
            let (host, device) = (format!("{name}-cpu"), format!("{name}-cuda"));
            flow(&folder, &host, &[words, &["--backend", "cpu"]].concat());
            flow(&folder, &device, &[words, &["--backend", "cuda"]].concat());
            for (host, device) in lines(&folder, &host).iter().zip(lines(&folder, &device)) {
                assert!(host.iter().zip(device).all(|(a, b)| (a - b).abs() <= 1e-3 * a.abs()), "{host:?} {device:?}");
            }
        }
    }
}

#[test]
fn what_is_refused() {
    let folder = Folder::new();
    let out = folder.text("not");
    let fail = |extra: &[&str], status, hint: &str| {
        fails(&[&["flow", "--data", "ring", "--out", &out][..], extra].concat(), status, hint);
    };
    fail(&["--frames", "1"], 1, "frames");
    fail(&["--steps", "5", "--frames", "9"], 1, "frames");
    fail(&["--points", "1"], 1, "--points");
    fail(&["--spread", "0"], 1, "--spread");
    fail(&["--bandwidth", "-1"], 1, "temperature");
    fail(&["--field", "score", "--bandwidth", "nan"], 1, "bandwidth");
    fail(&["--field", "score", "--step", "0"], 1, "step");
    fail(&["--field", "mean-shift", "--step", "1e38"], 1, "smaller --step");
    fail(&["--field", "score", "--coupling", "row"], 2, "--coupling");
    fail(&["--normalize"], 2, "--normalize");
    fail(&["--field", "sd-flow", "--kernel", "laplace"], 2, "gaussian");
    fail(&["--field", "nystrom", "--landmarks", "20000"], 1, "landmarks");
    fail(&["--field", "sliced", "--independent"], 1, "independent");
    fail(&["--independent", "--points", "31"], 1, "even");
    fail(&["--independent", "--lookahead", "1,1"], 1, "--lookahead");
    fail(&["--field", "w-flow", "--coupling", "row"], 2, "w-flow");
    fail(&["--field", "w-flow", "--form", "joint"], 2, "w-flow");
    fail(&["--lookahead", "1,nan"], 1, "weights");
    assert!(!folder.path("not").exists());
}
