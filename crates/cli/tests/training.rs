//! `train` and `sample`: the contract's files, resuming, interrupting, and everything that can be wrong.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use std::path::Path;

/// A run of a few seconds; `extra` flags come last.
fn train(folder: &Folder, name: &str, extra: &[&str]) -> Vec<String> {
    let config = folder.path("small.toml");
    std::fs::write(&config, "batch = 64\nhidden = [16, 16]\nnoise_dim = 4\nlog_every = 5\ncheckpoint_every = 7\n")
        .unwrap();
    let mut args = vec!["train".to_owned(), "--config".to_owned(), config.to_str().unwrap().to_owned()];
    args.extend(["--out".to_owned(), folder.text(name)]);
    if !extra.contains(&"--data") {
        args.extend(["--data".to_owned(), "ring".to_owned()]);
    }
    args.extend(extra.iter().map(|a| (*a).to_owned()));
    args
}

fn texts(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

fn metrics(path: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(path.join("metrics.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Metrics without what depends on the clock.
fn timeless(path: &Path) -> Vec<serde_json::Value> {
    let mut lines = metrics(path);
    for line in &mut lines {
        assert!(line.as_object_mut().unwrap().remove("seconds").is_some());
    }
    lines
}

fn same_run(a: &Path, b: &Path) {
    assert_eq!(timeless(a), timeless(b));
    for name in ["checkpoint.safetensors", "generator.safetensors", "samples.npy", "samples.png", "loss.png"] {
        assert!(std::fs::read(a.join(name)).unwrap() == std::fs::read(b.join(name)).unwrap(), "{name} differs");
    }
}

#[test]
fn a_run_writes_what_the_contract_says() {
    let folder = Folder::new();
    let args = train(&folder, "run", &["--steps", "23", "--profile"]);
    let output = succeeds(&texts(&args));
    let run = folder.path("run");
    let mut names: Vec<_> =
        std::fs::read_dir(&run).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let want =
        "checkpoint.safetensors config.json generator.safetensors loss.png metrics.jsonl samples.npy samples.png";
    assert_eq!(names.join(" "), want);
    let steps: Vec<_> = metrics(&run).iter().map(|line| line["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, [1, 5, 10, 15, 20, 23]);
    for line in metrics(&run) {
        for key in ["loss", "loss_ema", "swd1", "swd2", "seconds", "scale", "grad_norm", "learning_rate"] {
            assert!(line[key].as_f64().is_some_and(f64::is_finite), "{key} in {line}");
        }
    }
    let (shape, kind, values) = read_npy(&std::fs::read(run.join("samples.npy")).unwrap());
    assert_eq!((shape, kind.as_str()), (vec![2048, 2], "'<f4'"));
    assert!(values.iter().all(|v| v.is_finite()));
    for name in ["samples.png", "loss.png"] {
        let bytes = std::fs::read(run.join(name)).unwrap();
        assert!(bytes.starts_with(b"\x89PNG\r\n\x1a\n") && bytes.len() > 5000, "{name}");
    }
    let config: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(run.join("config.json")).unwrap()).unwrap();
    assert_eq!(
        (config["data"].as_str(), config["steps"].as_u64(), config["seed"].as_u64()),
        (Some("ring"), Some(23), Some(42))
    );
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(stdout.contains("samples.png") && stdout.contains("SWD"), "{stdout}");
    assert!(stderr.contains("step 23/23") && stderr.contains("generator, backward"), "{stderr}");
}

/// Samples far nearer to one another than to the data see nothing else at a low temperature.
#[test]
fn a_drift_that_moves_nothing_is_told_once() {
    let folder = Folder::new();
    for (name, temperature, notes) in [("cold", "0.001", 1), ("warm", "0.05", 0)] {
        let output = succeeds(&texts(&train(&folder, name, &["--steps", "12", "--temperatures", temperature])));
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(stderr.matches("the drift moves no sample").count(), notes, "{stderr}");
    }
}

#[test]
fn the_defaults_are_the_notebooks() {
    let folder = Folder::new();
    succeeds(&["train", "--data", "swiss-roll", "--out", &folder.text("run"), "--steps", "1"]);
    let text = std::fs::read_to_string(folder.path("run/config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut want = serde_json::json!({
        "data": "swiss-roll", "preset": "notebook", "kernel": "laplace", "temperatures": [0.05], "steps": 1,
        "coupling": "row-column", "form": "joint", "sinkhorn_iterations": 20, "sinkhorn_tolerance": 0.0,
        "batch": 2048, "lr": 1e-3, "seed": 42, "backend": "auto", "noise_dim": 32, "hidden": [256, 256, 256],
        "beta1": 0.9, "beta2": 0.999, "weight_decay": 0.0, "warmup": 0, "clip_norm": 0.0, "ema_decay": 0.999,
        "log_every": 50, "checkpoint_every": 200, "annealing_rate": 0.0, "annealing_least": 1e-3, "blocks": 0,
        "features": ["identity"], "precision": "f32",
        // The notebook has no weights, and no classes: these are the official code's.
        "weights": "ignored", "labels": 10, "generated": 64, "positives": 64, "negatives": 32,
        "guidance": [1.0, 4.0], "guidance_power": 3.0, "unguided": 0.0, "loaded": 64, "class_buffer": 128, "buffer": 1000,
    });
    let field = serde_json::json!({ "field": null, "field_step": 1.0, "field_normalize": false, "most_log_ratio": 5.0,
        "directions": 200, "landmarks": 500, "pool": 10000, "independent": false, "lookahead": [1.0],
        "lookahead_step": 1.0 });
    want.as_object_mut().unwrap().extend(field.as_object().unwrap().clone());
    assert_eq!(config, want);
}

#[test]
fn resuming_gives_the_uninterrupted_run() {
    let folder = Folder::new();
    succeeds(&texts(&train(&folder, "whole", &["--steps", "20"])));
    succeeds(&texts(&train(&folder, "parts", &["--steps", "10"])));
    succeeds(&texts(&train(&folder, "parts", &["--steps", "15", "--resume"])));
    // what was said before may be left out
    succeeds(&["train", "--out", &folder.text("parts"), "--steps", "20", "--resume"]);
    // step 15 is logged either way
    same_run(&folder.path("whole"), &folder.path("parts"));
}

/// Ctrl-C in the midst of a long run: one line, status 1, and a checkpoint of the very step that the line names.
#[cfg(unix)]
#[test]
fn an_interrupt_writes_a_checkpoint() {
    let folder = Folder::new();
    let child = cudrift()
        .args(train(&folder, "run", &["--steps", "1000000"]))
        .stderr(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let log = folder.path("run/metrics.jsonl");
    while !std::fs::read_to_string(&log).is_ok_and(|text| text.lines().count() >= 3) {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    std::process::Command::new("kill").args(["-s", "INT", &child.id().to_string()]).status().unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let last = stderr.lines().last().unwrap();
    let step = last.strip_prefix("error: interrupted after step ").unwrap().split(' ').next().unwrap();
    let checkpoint = std::fs::read(folder.path("run/checkpoint.safetensors")).unwrap();
    let state = String::from_utf8_lossy(&checkpoint);
    assert!(state.contains(&format!(r#"\"step\":{step}"#)), "step {step} in the checkpoint");
}

#[cfg(unix)]
#[test]
fn interrupting_and_killing_lose_nothing() {
    use std::os::unix::process::ExitStatusExt;
    let folder = Folder::new();
    let steps = ["--steps", "600"];
    succeeds(&texts(&train(&folder, "whole", &steps)));
    for signal in ["INT", "KILL", "TERM", "KILL"] {
        let name = format!("{signal}-run");
        let mut resumes = 0;
        for wait in [3, 40, 90] {
            let mut args = train(&folder, &name, &steps);
            if folder.path(&name).exists() {
                args.push("--resume".to_owned());
                resumes += 1;
            }
            let child = cudrift()
                .args(&args)
                .stderr(std::process::Stdio::piped())
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap();
            std::thread::sleep(std::time::Duration::from_millis(wait));
            let id = child.id().to_string();
            std::process::Command::new("kill").args(["-s", signal, &id]).status().unwrap();
            let output = child.wait_with_output().unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr);
            let expected = output.status.success()
                || output.status.signal().is_some()
                || (output.status.code() == Some(1) && stderr.contains("interrupted after step"));
            assert!(expected, "{signal}: {:?} {stderr}", output.status);
        }
        let mut args = train(&folder, &name, &steps);
        if folder.path(&name).exists() {
            args.push("--resume".to_owned());
        }
        succeeds(&texts(&args));
        println!("{signal}: {resumes} resumes");
        same_run(&folder.path("whole"), &folder.path(&name));
        std::fs::remove_dir_all(folder.path(&name)).unwrap();
    }
}

#[test]
fn threads_do_not_change_a_run() {
    let folder = Folder::new();
    for threads in ["1", "2", "5"] {
        let args = train(&folder, threads, &["--steps", "12"]);
        let output = cudrift().args(&args).env("RAYON_NUM_THREADS", threads).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    same_run(&folder.path("1"), &folder.path("2"));
    same_run(&folder.path("1"), &folder.path("5"));
}

#[test]
fn a_users_points() {
    let folder = Folder::new();
    for (at, (dim, npz)) in [(1, false), (2, true), (5, false)].into_iter().enumerate() {
        let points = npy_f32(&[70, dim], &wave(70 * dim, 0.0));
        let path = folder.path(if npz { "points.npz" } else { "points.npy" });
        if npz {
            write_npz(&path, &[("x", points), ("ref_y", npy_f32(&[1], &[1.0])), ("official_z", npy_f32(&[1], &[1.0]))]);
        } else {
            std::fs::write(&path, points).unwrap();
        }
        let name = format!("run{at}");
        succeeds(&texts(&train(&folder, &name, &["--steps", "6", "--data", path.to_str().unwrap()])));
        let (shape, _, _) = read_npy(&std::fs::read(folder.path(&name).join("samples.npy")).unwrap());
        assert_eq!(shape, [2048, dim]);
    }
}

#[test]
fn samples_of_a_generator() {
    let folder = Folder::new();
    succeeds(&texts(&train(&folder, "run", &["--steps", "3"])));
    let (model, out) = (folder.text("run/generator.safetensors"), folder.text("samples.npy"));
    succeeds(&["sample", "--model", &model, "--count", "20000", "--seed", "42", "--out", &out]);
    let (shape, _, values) = read_npy(&std::fs::read(&out).unwrap());
    assert_eq!(shape, [20000, 2]);
    // the run's own samples are the first of the same seed
    let (_, _, kept) = read_npy(&std::fs::read(folder.path("run/samples.npy")).unwrap());
    assert_eq!(values[..kept.len()], kept);

    let sample = |model: &str, extra: &[&str]| {
        let mut args = vec!["sample", "--model", model, "--out", &out];
        args.extend(extra);
        run(&args)
    };
    assert_failed("count 0", &sample(&model, &["--count", "0"]), 1, "--count");
    assert_failed("count 1e12", &sample(&model, &["--count", "1000000000000000"]), 1, "too large");
    assert_failed("count -1", &sample(&model, &["--count", "-1"]), 2, "--count");
    assert_failed("a checkpoint", &sample(&folder.text("run/checkpoint.safetensors"), &[]), 1, "generator.safetensors");
    assert_failed("missing", &sample(&folder.text("none"), &[]), 1, "cannot read");
    assert_failed("a folder", &sample(&folder.text("run"), &[]), 1, "cannot read");
    let bytes = std::fs::read(&model).unwrap();
    let bad = folder.text("bad.safetensors");
    for keep in [0, 5, 8, 60, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&bad, &bytes[..keep]).unwrap();
        assert_failed("truncated", &sample(&bad, &[]), 1, "not a whole safetensors file");
    }
    // parameters that are not finite are a warning
    let mut nan = bytes.clone();
    let end = nan.len() - 8;
    nan[end..].copy_from_slice(&[0xff; 8]);
    std::fs::write(&bad, &nan).unwrap();
    let output = sample(&bad, &["--count", "2"]);
    assert!(output.status.success() && String::from_utf8_lossy(&output.stderr).starts_with("warning"));
}

/// On the simulator or a GPU; its checkpoint is the same on the CPU.
#[test]
fn a_run_on_a_device_is_that_of_the_cpu() {
    if !cuda() {
        return;
    }
    let folder = Folder::new();
    let loss = |name: &str| metrics(&folder.path(name)).last().unwrap()["loss_ema"].as_f64().unwrap();
    succeeds(&texts(&train(&folder, "device", &["--steps", "9", "--backend", "cuda"])));
    succeeds(&texts(&train(&folder, "host", &["--steps", "9", "--backend", "cpu"])));
    assert!((loss("device") - loss("host")).abs() <= 1e-4 * loss("host"), "{} {}", loss("device"), loss("host"));
    succeeds(&texts(&train(&folder, "device", &["--steps", "14", "--resume", "--backend", "cpu"])));
    succeeds(&texts(&train(&folder, "host", &["--steps", "14", "--resume", "--backend", "cuda"])));
    assert!((loss("device") - loss("host")).abs() <= 1e-4 * loss("host"), "{} {}", loss("device"), loss("host"));
}

/// Data that are one point have no MMD, which is no reason for a run to fail at its end.
#[test]
fn data_that_are_one_point() {
    let folder = Folder::new();
    let points = folder.path("points.npz");
    write_npz(&points, &[("x", npy_f32(&[5, 2], &[0.5; 10]))]);
    let output = succeeds(&texts(&train(&folder, "run", &["--steps", "2", "--data", points.to_str().unwrap()])));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("SWD") && text.contains("MMD² NaN"), "{text}");
    assert!(folder.path("run/samples.png").exists());
}

/// A run with plans goes on as it began, and records what it is.
#[test]
fn couplings_are_trained_with() {
    let folder = Folder::new();
    let plans = ["--coupling", "sinkhorn", "--temperatures", "0.5", "--sinkhorn-tolerance", "1e-3"];
    succeeds(&texts(&train(&folder, "whole", &[&["--steps", "12"][..], &plans].concat())));
    succeeds(&texts(&train(&folder, "parts", &[&["--steps", "5"][..], &plans].concat())));
    succeeds(&["train", "--out", &folder.text("parts"), "--steps", "12", "--resume"]);
    same_run(&folder.path("whole"), &folder.path("parts"));
    let text = std::fs::read_to_string(folder.path("whole/config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&config["coupling"], &config["form"]), (&"sinkhorn".into(), &"split".into()));
    let losses = |name: &str| metrics(&folder.path(name)).last().unwrap()["loss"].as_f64().unwrap();
    succeeds(&texts(&train(&folder, "joint", &[&["--steps", "12", "--form", "joint"][..], &plans].concat())));
    assert_ne!(losses("joint"), losses("whole"));
    let fail = |extra: &[&str], status, hint: &str| fails(&texts(&train(&folder, "not", extra)), status, hint);
    fail(&["--sinkhorn-iterations", "5"], 2, "--coupling sinkhorn");
    fail(&["--coupling", "sinkhorn", "--sinkhorn-iterations", "0"], 1, "iterations");
    fail(&["--coupling", "sinkhorn", "--sinkhorn-tolerance", "-1"], 1, "tolerance");
    fail(&["--coupling", "hungarian"], 2, "hungarian");
}

/// A run along a field goes on as it began, and records what it is.
#[test]
fn fields_are_trained_along() {
    let folder = Folder::new();
    let coulomb = ["--field", "coulomb", "--temperatures", "0.3"];
    succeeds(&texts(&train(&folder, "whole", &[&["--steps", "12"][..], &coulomb].concat())));
    succeeds(&texts(&train(&folder, "parts", &[&["--steps", "5"][..], &coulomb].concat())));
    succeeds(&["train", "--out", &folder.text("parts"), "--steps", "12", "--resume"]);
    same_run(&folder.path("whole"), &folder.path("parts"));
    let text = std::fs::read_to_string(folder.path("whole/config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&config["field"], &config["kernel"]), (&"coulomb".into(), &"plummer".into()));
    let losses = |name: &str| metrics(&folder.path(name)).iter().map(|line| line["loss"].clone()).collect::<Vec<_>>();
    succeeds(&texts(&train(&folder, "score", &["--steps", "12", "--field", "score", "--temperatures", "0.3"])));
    assert_ne!(losses("score"), losses("whole"));
    succeeds(&texts(&train(&folder, "sliced", &["--steps", "12", "--field", "sliced"])));
    assert_ne!(losses("sliced"), losses("score"));
    let fail = |extra: &[&str], status, hint: &str| fails(&texts(&train(&folder, "not", extra)), status, hint);
    fail(&["--field", "coulomb", "--kernel", "laplace"], 2, "plummer");
    fail(&["--field", "score", "--coupling", "sinkhorn"], 2, "--coupling");
    fail(&["--field", "score", "--temperatures", "0.1,0.2"], 1, "one temperature");
    fail(&["--field", "score", "--temperatures", "-1"], 1, "bandwidth");
    fail(&["--field", "curl"], 2, "curl");
}

#[test]
fn a_device_that_is_not_there_is_named() {
    let folder = Folder::new();
    let args = train(&folder, "none", &["--backend", "cuda"]);
    let mut without = cudrift();
    let without = without.args(args).env_remove("LD_LIBRARY_PATH").env("CUDA_VISIBLE_DEVICES", "").output().unwrap();
    assert_failed("without a device", &without, 1, "--backend cpu computes the same");
    assert!(!folder.path("none").exists());
}

#[test]
fn impossible_runs() {
    let folder = Folder::new();
    let refused = |extra: &[&str], status: i32, hint: &str| {
        let args = train(&folder, "none", extra);
        fails(&texts(&args), status, hint);
        assert!(!folder.path("none").exists(), "{extra:?} left a folder behind");
    };
    refused(&["--steps", "0"], 1, "steps");
    refused(&["--batch", "0"], 1, "batch");
    refused(&["--batch", "1"], 1, "batch");
    refused(&["--batch", "1000000000000000"], 1, "too large");
    refused(&["--lr", "nan"], 1, "learning rate");
    refused(&["--lr", "-1"], 1, "learning rate");
    refused(&["--temperatures", "nan"], 1, "temperature");
    refused(&["--temperatures", "0"], 1, "temperature");
    refused(&["--resume"], 1, "no folder");
    refused(&["--data", "nope"], 1, "swiss-roll");
    refused(&["--data", "nope.npy"], 1, "cannot read");
    refused(&["--steps", "many"], 2, "--steps");
    refused(&["--steps", "-1"], 2, "--steps");
    refused(&["--preset", "nonsense"], 2, "--preset");
    fails(&["train", "--out", &folder.text("none")], 2, "--data");
    fails(&["train", "--data", "ring"], 2, "--out");

    let toml = folder.path("bad.toml");
    for (text, hint) in [
        ("hidden = [0]", "layer sizes"),
        ("hidden = [1000000000000]", "2^34"),
        ("hidden = [100000, 100000]", "too large"),
        ("noise_dim = 0", "layer sizes"),
        ("stesp = 3", "stesp"),
        ("steps = \"three\"", "line 1"),
        ("steps = ", "line 1"),
        ("beta1 = 1.0", "beta1"),
        ("clip_norm = -1.0", "clip norm"),
        ("checkpoint_every = 0", "checkpoint_every"),
        ("kernel = \"cauchy\"", "cauchy"),
        ("temperatures = []", "temperatures"),
        ("temperatures = [0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]", "temperatures"),
    ] {
        std::fs::write(&toml, text).unwrap();
        let (out, toml) = (folder.text("none"), toml.to_str().unwrap());
        fails(&["train", "--data", "ring", "--out", &out, "--config", toml], 1, hint);
        assert!(!folder.path("none").exists(), "{text} left a folder behind");
    }
    fails(
        &["train", "--data", "ring", "--out", &folder.text("none"), "--config", &folder.text("no.toml")],
        1,
        "cannot read",
    );

    let data = folder.path("data.npy");
    for (bytes, hint) in [
        (npy_f32(&[6], &wave(6, 0.0)), "[n, D]"),
        (npy_f32(&[0, 2], &[]), "1 to 2^32 points"),
        (npy_f32(&[2, 0], &[]), "1 to 2^32 points"),
        (npy_f32(&[2, 2], &[1.0, f32::NAN, 2.0, 3.0]), "finite"),
        (npy("'|b1'", false, "(2, 2)", &[0; 4]), "element type"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff{}".to_vec(), "not a whole"),
    ] {
        std::fs::write(&data, bytes).unwrap();
        refused(&["--data", data.to_str().unwrap()], 1, hint);
    }
    std::fs::write(folder.path("file"), "").unwrap();
    fails(&texts(&train(&folder, "file", &[])), 1, "cannot");
}

/// Images of `classes` classes, each with a stripe of its own, and their labels.
fn stripes(path: &Path, classes: usize, key: &str) {
    let count = 30 * classes;
    let mut values = wave(count * 12, 0.5);
    for (k, image) in values.chunks_mut(12).enumerate() {
        image.iter_mut().for_each(|v| *v = 0.1 * v.sin());
        image[k % classes * 4..][..4].iter_mut().for_each(|v| *v += 1.0);
    }
    let labels: Vec<u8> = (0..count).flat_map(|k| ((k % classes) as i64).to_le_bytes()).collect();
    let shape: &[usize] = if key == "images" { &[count, 3, 4] } else { &[count, 12] };
    let labels = npy("'<i8'", false, &shape_text(&[count]), &labels);
    write_npz(path, &[(key, npy_f32(shape, &values)), ("labels", labels)]);
}

#[test]
fn classes_are_learned_sampled_and_gone_on_with() {
    let folder = Folder::new();
    let data = folder.text("data.npz");
    stripes(Path::new(&data), 3, "images");
    let config = folder.path("classes.toml");
    let text = "hidden = [32]\nblocks = 1\nnoise_dim = 4\nlabels = 4\ngenerated = 16\npositives = 16\nnegatives = 8\n\
                checkpoint_every = 30\nlog_every = 20\nlr = 3e-3\n";
    std::fs::write(&config, text).unwrap();
    let args = |name: &str, steps: &str, extra: &[&str]| -> Vec<String> {
        let (config, out) = (config.to_str().unwrap(), folder.text(name));
        let args = ["train", "--config", config, "--data", &data, "--preset", "paper", "--out", &out, "--steps", steps];
        args.iter().chain(extra).map(|a| (*a).to_owned()).collect()
    };
    let output = succeeds(&texts(&args("whole", "150", &["--backend", "cpu"])));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let row: Vec<f64> = text
        .lines()
        .find(|line| line.starts_with("1 "))
        .unwrap_or_else(|| panic!("{text}"))
        .split_whitespace()
        .map(|v| v.parse().unwrap())
        .collect();
    assert!(row[1] >= 0.9, "accuracy: {text}");
    succeeds(&texts(&args("parts", "80", &[])));
    succeeds(&texts(&args("parts", "150", &["--resume"])));
    same_run(&folder.path("whole"), &folder.path("parts"));

    let model = folder.text("whole/generator.safetensors");
    let sample = |extra: &[&str]| {
        let out = folder.text("samples.npy");
        let mut args = vec!["sample", "--model", &model, "--count", "6", "--out", &out];
        args.extend(extra);
        let output = run(&args);
        (output, std::fs::read(&out).map(|bytes| read_npy(&bytes).2).unwrap_or_default())
    };
    // Every third of all classes in turn is of class 1.
    let (turn, twos) = (sample(&[]).1, sample(&["--class", "1"]).1);
    assert_eq!(turn[12..24], twos[12..24]);
    assert_ne!(turn[..12], twos[..12]);
    let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
    assert!(twos.chunks(12).all(|x| mean(&x[4..8]) > mean(&x[..4]) + 0.5 && mean(&x[4..8]) > mean(&x[8..]) + 0.5));
    assert_ne!(sample(&["--class", "1", "--guidance", "3"]).1, twos);
    assert_failed("class 3", &sample(&["--class", "3"]).0, 1, "less than 3");
    assert_failed("guidance 0.5", &sample(&["--guidance", "0.5"]).0, 1, "at least 1");
    let plain = folder.text("plain");
    succeeds(&texts(&train(&folder, "plain", &["--steps", "1"])));
    for flag in ["--class", "--guidance"] {
        let model = format!("{plain}/generator.safetensors");
        fails(&["sample", "--model", &model, "--out", &folder.text("none.npy"), flag, "1"], 1, flag);
    }
}

/// An encoder from the data, a run on its features beside others, which keeps a copy of it; and what cannot be.
#[test]
fn features_and_encoders() {
    let folder = Folder::new();
    let (data, encoder) = (folder.text("data.npz"), folder.text("encoder.safetensors"));
    stripes(Path::new(&data), 3, "images");
    let train_encoder = |extra: &[&str]| {
        let args = ["encoder", "--data", &data, "--out", &encoder, "--hidden", "16,8", "--epochs", "200"];
        succeeds(&[&args[..], extra].concat())
    };
    let output = train_encoder(&["--task", "autoencoder"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("epoch 200/200"), "{output:?}");
    let code = std::fs::read(&encoder).unwrap();
    let output = train_encoder(&[]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("right in 100.0%"), "{output:?}");
    assert_ne!(code, std::fs::read(&encoder).unwrap());

    let features = format!("identity,patches:1,fourier:32:2,encoder:{encoder}");
    let args = |name: &str, steps: &str, features: &str, extra: &[&str]| -> Vec<String> {
        let out = folder.text(name);
        let args = ["train", "--data", &data, "--out", &out, "--steps", steps, "--features", features, "--profile"];
        args.iter().chain(extra).map(|a| (*a).to_owned()).collect()
    };
    let small = folder.path("small.toml");
    std::fs::write(&small, "hidden = [16]\nlabels = 3\ngenerated = 8\npositives = 8\nnegatives = 4\nlog_every = 5\n")
        .unwrap();
    let config = ["--preset", "paper", "--config", small.to_str().unwrap()];
    let output = succeeds(&texts(&args("whole", "40", &features, &config)));
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(stdout.contains("last hidden layer") && stderr.contains("features"), "{stdout}\n{stderr}");
    succeeds(&texts(&args("parts", "15", &features, &config)));
    assert_eq!(std::fs::read(&encoder).unwrap(), std::fs::read(folder.path("parts/encoder.safetensors")).unwrap());
    // What it came from is no longer needed.
    std::fs::write(&encoder, "").unwrap();
    succeeds(&texts(&args("parts", "40", &features, &["--resume"])));
    same_run(&folder.path("whole"), &folder.path("parts"));
    assert_failed("other features", &run(&texts(&args("parts", "50", "identity", &["--resume"]))), 1, "features was");

    let refused = |features: &str, hint: &str| fails(&texts(&args("none", "5", features, &config)), 1, hint);
    refused(&format!("encoder:{encoder}"), "not a whole safetensors file");
    refused("encoder:a,encoder:b", "two encoders");
    refused("encoder:missing", "missing");
    refused("wavelet", "expected identity, patches:SIZE");
    refused("patches:x", "expected identity, patches:SIZE");
    refused("patches:2", "the size of patches is 2");
    refused("fourier:8:0", "bandwidth");
    refused("fourier:0:1", "at least 1");
    refused("identity,identity", "once");
    assert!(!folder.path("none").exists());
    fails(&texts(&train(&folder, "none", &["--features", "patches:2"])), 1, "the data are points");
    fails(&["encoder", "--data", "ring", "--out", &encoder], 1, "has no end");
    let plain = folder.text("plain.npy");
    std::fs::write(&plain, npy_f32(&[40, 3], &wave(120, 0.0))).unwrap();
    fails(&["encoder", "--data", &plain, "--out", &encoder, "--task", "classifier"], 1, "no labels");
    fails(&["encoder", "--data", &plain, "--out", &encoder, "--epochs", "0"], 1, "epochs");
    succeeds(&["encoder", "--data", &plain, "--out", &encoder, "--hidden", "4", "--epochs", "2"]);
    let foreign =
        ["train", "--data", "ring", "--out", &folder.text("none"), "--features", &format!("encoder:{encoder}")];
    fails(&foreign, 1, "the encoder's inputs");
}

/// A run with classes that is killed at twenty moments by chance ends as the one that was not.
#[cfg(unix)]
#[test]
fn killed_twenty_times() {
    let folder = Folder::new();
    let data = folder.text("data.npz");
    stripes(Path::new(&data), 3, "images");
    let config = folder.path("classes.toml");
    let text = "hidden = [16]\nblocks = 1\nnoise_dim = 4\nlabels = 4\ngenerated = 8\npositives = 8\nnegatives = 4\n\
                checkpoint_every = 10\nlog_every = 50\npreset = \"paper\"\nsteps = 2000\n";
    std::fs::write(&config, text).unwrap();
    let args = |name: &str| -> Vec<String> {
        let (config, out) = (config.to_str().unwrap(), folder.text(name));
        let args = ["train", "--config", config, "--data", &data, "--out", &out, "--backend", "cpu", "--resume"];
        // There is nothing to resume where the folder is not there yet.
        args[..args.len() - usize::from(!folder.path(name).exists())].iter().map(|a| (*a).to_owned()).collect()
    };
    succeeds(&texts(&args("whole")));
    let mut chance = 12345u64;
    let mut before = 0;
    for _ in 0..20 {
        let mut child = cudrift().args(args("parts")).stderr(std::process::Stdio::null()).spawn().unwrap();
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        std::thread::sleep(std::time::Duration::from_millis(chance >> 57));
        before += usize::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }
    println!("{before} of 20 were running");
    assert!(before >= 10);
    succeeds(&texts(&args("parts")));
    same_run(&folder.path("whole"), &folder.path("parts"));
}

#[test]
fn bad_labels_and_images() {
    let folder = Folder::new();
    let data = folder.path("bad.npz");
    let refused = |entries: &[(&str, Vec<u8>)], hint: &str| {
        write_npz(&data, entries);
        fails(&texts(&train(&folder, "none", &["--data", data.to_str().unwrap()])), 1, hint);
    };
    let x = || ("x", npy_f32(&[4, 3], &wave(12, 0.0)));
    let labels = |values: &[f64]| ("labels", npy_f64(&[values.len()], values));
    refused(&[x(), labels(&[0.0, 1.0, 0.0])], "labels has shape [3], expected [4]");
    refused(&[x(), labels(&[0.0, 1.0, 0.0, -1.0])], "whole numbers from 0");
    refused(&[x(), labels(&[0.0, 1.0, 0.5, 1.0])], "whole numbers from 0");
    refused(&[x(), labels(&[0.0, 1.0, f64::NAN, 1.0])], "whole numbers from 0");
    refused(&[x(), labels(&[0.0, 0.0, 0.0, 0.0])], "two classes or more");
    refused(&[x(), labels(&[0.0, 2.0, 0.0, 2.0])], "class 1 without");
    refused(&[x(), ("labels", npy_f64(&[2, 2], &[0.0, 1.0, 0.0, 1.0]))], "expected [n]");
    refused(&[labels(&[0.0, 1.0])], "missing");
    refused(&[x(), ("images", npy_f32(&[4, 1, 3], &wave(12, 0.0)))], "give one of them");
    refused(&[("images", npy_f32(&[4, 3], &wave(12, 0.0)))], "[n, height, width]");
    refused(&[("images", npy_f32(&[4, 0, 3], &[]))], "no pixels");
    refused(&[x(), ("pixels", npy_f32(&[4], &wave(4, 0.0)))], "unknown key");

    stripes(&data, 2, "x");
    let config = folder.path("bad.toml");
    for (text, hint) in [
        ("labels = 100", "at most as many as are loaded"),
        ("generated = 1", "generated per label"),
        ("guidance = [0.5, 2.0]", "guidance is [0.5, 2.0]"),
        ("guidance = [1.0]", "bad.toml"),
        ("unguided = 2.0", "without guidance"),
        ("class_buffer = 0", "a class's buffer"),
    ] {
        std::fs::write(&config, text).unwrap();
        let (config, out) = (config.to_str().unwrap(), folder.text("none"));
        let data = data.to_str().unwrap();
        fails(&["train", "--data", data, "--config", config, "--out", &out, "--preset", "paper"], 1, hint);
    }
}

#[test]
fn an_earlier_run_is_not_touched() {
    let folder = Folder::new();
    succeeds(&texts(&train(&folder, "run", &["--steps", "5"])));
    let files = || -> Vec<_> {
        let mut entries: Vec<_> = std::fs::read_dir(folder.path("run")).unwrap().map(|e| e.unwrap().path()).collect();
        entries.sort();
        entries.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
    };
    let before = files();
    let refused = |extra: &[&str], hint: &str| {
        fails(&texts(&train(&folder, "run", extra)), 1, hint);
        assert!(files() == before, "{extra:?} changed the run");
    };
    refused(&[], "--resume");
    refused(&["--resume", "--steps", "3"], "5 steps already");
    refused(&["--resume", "--seed", "1"], "seed was 42, now 1");
    refused(&["--resume", "--data", "two-moons"], "data was");
    refused(&["--resume", "--lr", "0.5"], "lr was");

    // a checkpoint cut short, or of another architecture
    let checkpoint = folder.path("run/checkpoint.safetensors");
    let good = std::fs::read(&checkpoint).unwrap();
    std::fs::write(&checkpoint, &good[..good.len() / 2]).unwrap();
    fails(&texts(&train(&folder, "run", &["--resume", "--steps", "9"])), 1, "not a whole safetensors file");
    std::fs::copy(folder.path("run/generator.safetensors"), &checkpoint).unwrap();
    fails(&texts(&train(&folder, "run", &["--resume", "--steps", "9"])), 1, "not a checkpoint");
    let other = folder.path("other.toml");
    std::fs::write(&other, "hidden = [8]\nnoise_dim = 4\nbatch = 64\n").unwrap();
    let (out, other) = (folder.text("other"), other.to_str().unwrap());
    succeeds(&["train", "--data", "ring", "--steps", "1", "--out", &out, "--config", other]);
    std::fs::copy(folder.path("other/checkpoint.safetensors"), &checkpoint).unwrap();
    fails(&texts(&train(&folder, "run", &["--resume", "--steps", "9"])), 1, "layer sizes");
    // and none at all
    std::fs::remove_file(&checkpoint).unwrap();
    fails(&texts(&train(&folder, "run", &["--resume", "--steps", "9"])), 1, "no checkpoint.safetensors");
    std::fs::write(&checkpoint, &good).unwrap();
    assert!(files() == before);
    std::fs::write(folder.path("run/config.json"), "{").unwrap();
    fails(&texts(&train(&folder, "run", &["--resume", "--steps", "9"])), 1, "config.json");

    let lone = folder.path("lone");
    std::fs::create_dir(&lone).unwrap();
    std::fs::write(lone.join("generator.safetensors"), "precious").unwrap();
    fails(&texts(&train(&folder, "lone", &["--steps", "2"])), 1, "generator.safetensors of an earlier run");
}

#[cfg(unix)]
#[test]
fn a_full_disk_keeps_the_run() {
    let folder = Folder::new();
    succeeds(&texts(&train(&folder, "run", &["--steps", "7"])));
    let before = std::fs::read(folder.path("run/checkpoint.safetensors")).unwrap();
    // The checkpoint is larger than the limit, in blocks of 512 or 1024 bytes.
    let script = r#"trap '' XFSZ; ulimit -f 8; exec "$0" "$@""#;
    let output = std::process::Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_cudrift")])
        .args(train(&folder, "run", &["--steps", "14", "--resume"]))
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let last = stderr.lines().last().unwrap();
    assert!(last.starts_with("error: cannot write") && last.contains("checkpoint"), "{stderr}");
    assert_eq!(std::fs::read(folder.path("run/checkpoint.safetensors")).unwrap(), before);
    succeeds(&texts(&train(&folder, "run", &["--steps", "14", "--resume"])));
}

/// The README's first command, its time and its quality.
#[test]
#[ignore = "two minutes; cargo xtask test --full runs it"]
fn the_readmes_first_command() {
    let folder = Folder::new();
    for (data, low, high) in [("swiss-roll", 1.2e-5, 2.2e-5), ("checkerboard", 2.5e-5, 4.5e-5)] {
        let start = std::time::Instant::now();
        succeeds(&["train", "--data", data, "--out", &folder.text(data)]);
        let seconds = start.elapsed().as_secs_f64();
        let last = metrics(&folder.path(data)).pop().unwrap();
        let (loss, swd) = (last["loss_ema"].as_f64().unwrap(), last["swd1"].as_f64().unwrap());
        println!("{data}: {seconds:.0} s, loss {loss:e}, SWD {swd}");
        assert_eq!(last["step"], 2000);
        assert!((low..=high).contains(&loss), "{data}: {loss:e}");
        assert!(swd <= 0.04, "{data}: {swd}");
        assert!(seconds <= 300.0, "{data} took {seconds} s");
    }
}
