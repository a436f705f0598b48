//! `drift` and `field`: the golden vectors through files, and everything that can be wrong with a file.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;

const DRIFT_KEYS: [&str; 6] = ["loss", "scale", "scale_inputs", "loss_R", "goal_scaled", "grad_gen"];

#[test]
fn golden_drifts_through_files() {
    let folder = Folder::new();
    let out = folder.text("out.npz");
    let mut files = 0;
    for entry in std::fs::read_dir(golden("")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if !name.ends_with(".npz") || name.starts_with("ms_") {
            continue;
        }
        files += 1;
        let want = read_npz(&path);
        succeeds(&["drift", "--in", path.to_str().unwrap(), "--out", &out]);
        let got = read_npz(&folder.path("out.npz"));
        for key in DRIFT_KEYS {
            let reference = &want[&format!("ref_f64_{key}")];
            let official = relative_error(&want[&format!("official_f32_{key}")].2, &reference.2);
            let error = relative_error(&got[key].2, &reference.2);
            let bound = (2.0 * official).clamp(2e-6, 2e-4);
            assert!(error <= bound, "{name} {key}: {error:e} exceeds {bound:e}");
            assert_eq!(got[key].0, reference.0, "{name} {key}");
        }
        assert_eq!((got["nonfinite"].0.len(), &got["nonfinite"].2[..]), (0, &[0.0][..]));
        assert_eq!(got.len(), 7);
        if cuda() {
            succeeds(&["drift", "--in", path.to_str().unwrap(), "--out", &out, "--backend", "cuda"]);
            let got = read_npz(&folder.path("out.npz"));
            for key in DRIFT_KEYS {
                let reference = &want[&format!("ref_f64_{key}")];
                let official = relative_error(&want[&format!("official_f32_{key}")].2, &reference.2);
                let error = relative_error(&got[key].2, &reference.2);
                let bound = (4.0 * official).clamp(5e-6, 2e-4);
                assert!(error <= bound, "{name} {key} by CUDA: {error:e} exceeds {bound:e}");
            }
        }
        // Inputs that f16 holds exactly lose nothing by it.
        if name.starts_with("fp16rep") {
            succeeds(&["drift", "--in", path.to_str().unwrap(), "--out", &out, "--dtype", "f16"]);
            assert_eq!(read_npz(&folder.path("out.npz")), got);
        }
    }
    assert_eq!(files, 10);
}

#[test]
fn golden_fields_through_files() {
    let folder = Folder::new();
    let out = folder.text("out.npz");
    for name in ["ms_g6_p5_s2.npz", "ms_g33_p47_n29_s7.npz"] {
        let path = golden(name);
        let want = read_npz(std::path::Path::new(&path));
        let mut checked = 0;
        for (family, kernel) in [("gauss", "gaussian"), ("laplace", "laplace")] {
            for (at, h) in want[&format!("{family}_h")].2.iter().enumerate() {
                for mask in ["", "selfmask_"] {
                    let prefix = format!("{family}_h{at}_{mask}");
                    if !want.contains_key(&format!("{prefix}ms_p")) {
                        continue;
                    }
                    let field = ["mean-shift", "score"][at % 2];
                    let h = h.to_string();
                    let mut args = vec![
                        "field",
                        "--in",
                        &path,
                        "--out",
                        &out,
                        "--field",
                        field,
                        "--kernel",
                        kernel,
                        "--bandwidth",
                        &h,
                    ];
                    if !mask.is_empty() {
                        args.push("--self-mask");
                    }
                    succeeds(&args);
                    let got = read_npz(&folder.path("out.npz"));
                    assert_eq!(got["velocity"], got[["drift", "score_diff"][at % 2]]);
                    for key in ["ms_p", "ms_q", "drift", "score_p", "score_q", "score_diff", "logz_p", "logz_q"] {
                        let reference = &want[&format!("{prefix}{key}")];
                        let error = relative_error(&got[key].2, &reference.2);
                        assert!(error <= 2e-5, "{prefix}{key}: {error:e}");
                        assert_eq!(got[key].0, reference.0);
                        checked += 1;
                    }
                }
            }
        }
        assert!(checked >= 32, "{checked}");
    }
}

#[test]
fn velocities_by_name() {
    let folder = Folder::new();
    let (path, out) = (golden("ms_g6_p5_s2.npz"), folder.text("out.npz"));
    let all = ["field", "--in", &path, "--out", &out, "--bandwidth", "1"];
    let of = |words: &[&str]| {
        succeeds(&[&all[..], words].concat());
        let mut arrays = read_npz(&folder.path("out.npz"));
        (arrays.remove("velocity").unwrap().2, arrays)
    };
    let (sharp, arrays) = of(&["--field", "sharp"]);
    assert_eq!(sharp, arrays["sharp"].2);
    let (score, _) = of(&["--field", "score"]);
    let (mmd, _) = of(&["--field", "mmd", "--kernel", "plummer"]);
    assert_eq!(of(&["--field", "coulomb"]).0, mmd);
    let (kl, arrays) = of(&["--field", "forward-kl"]);
    let [m, l] = ["p", "q"].map(|set| of(&[]).1[&format!("log_total_{set}")].2[0]);
    for (i, (kl, score)) in kl.chunks(2).zip(score.chunks(2)).enumerate() {
        let ratio = (arrays["logz_p"].2[i] - m - arrays["logz_q"].2[i] + l).clamp(-5.0, 5.0).exp();
        assert!(kl.iter().zip(score).all(|(kl, score)| (kl - ratio * score).abs() <= 1e-5 * kl.abs().max(1.0)));
    }
    let (chi, _) = of(&["--field", "chi-squared", "--most-log-ratio", "1e-9"]);
    assert!(chi.iter().zip(&score).all(|(chi, score)| (chi - 2.0 * score).abs() <= 1e-6 * chi.abs()));
    let (x, p) = ([0.0f32, 1.0, 2.0, -1.0, 0.5, 0.5], [3.0f32, 1.0, -2.0, 0.0]);
    let points = folder.path("points.npz");
    write_npz(&points, &[("x", npy_f32(&[3, 2], &x)), ("p", npy_f32(&[2, 2], &p)), ("q", npy_f32(&[3, 2], &x))]);
    let points = points.to_str().unwrap();
    let sliced = ["field", "--in", points, "--out", &out, "--field", "sliced", "--directions", "50", "--seed", "3"];
    succeeds(&sliced);
    let arrays = read_npz(&folder.path("out.npz"));
    let (x, p) = (x.map(f64::from), p.map(f64::from));
    let thetas = cudrift::directions(50, 2, 3, 0).unwrap();
    let inputs = cudrift::SlicedInputs::new((&x, [3, 2]), (&p, [2, 2]), (&thetas, [50, 2])).unwrap();
    assert!(relative_error(&arrays["velocity"].2, &cudrift::reference::sliced(&inputs)) <= 2e-6);
    assert_eq!(arrays.len(), 1);
    fails(&[&sliced[..], &["--bandwidth", "1"]].concat(), 2, "kernel");
    fails(&[&sliced[..8], &["0"]].concat(), 1, "directions");
    fails(&["field", "--in", &path, "--out", &out, "--field", "sliced"], 2, "weights");
    // Every point a landmark: the mean shift. With noise: the score at the queries that come with it.
    let base = ["field", "--in", points, "--out", &out, "--bandwidth", "1", "--field"];
    let written = |words: &[&str]| {
        succeeds(words);
        read_npz(&folder.path("out.npz"))
    };
    let shift = written(&[&base[..], &["mean-shift", "--self-mask"]].concat()).remove("velocity").unwrap().2;
    let near =
        written(&[&base[..], &["nystrom", "--self-mask", "--landmarks", "2"]].concat()).remove("velocity").unwrap().2;
    // The ridge is 1e-4.
    assert!(relative_error(&near, &shift) <= 1e-3, "{near:?} {shift:?}");
    fails(&[&base[..], &["nystrom", "--landmarks", "3"]].concat(), 1, "landmarks");
    let other = folder.path("other.npz");
    let (line, space) = (npy_f32(&[4, 3], &[1.0; 12]), npy_f32(&[10, 2], &[1.0; 20]));
    write_npz(&other, &[("x", line.clone()), ("p", space), ("q", line)]);
    let other = other.to_str().unwrap();
    for landmarks in ["1", "5"] {
        let words = ["field", "--in", other, "--out", &out, "--bandwidth", "1", "--field", "nystrom", "--landmarks"];
        fails(&[&words[..], &[landmarks]].concat(), 1, "p has shape");
    }
    let noised = written(&[&base[..], &["sd-flow", "--seed", "7"]].concat());
    let queries: Vec<f32> = noised["queries"].2.iter().map(|v| *v as f32).collect();
    let moved = folder.path("moved.npz");
    let (x, p) = (x.map(|v| v as f32), p.map(|v| v as f32));
    write_npz(&moved, &[("x", npy_f32(&[3, 2], &queries)), ("p", npy_f32(&[2, 2], &p)), ("q", npy_f32(&[3, 2], &x))]);
    let moved = moved.to_str().unwrap();
    let at = ["field", "--in", moved, "--out", &out, "--bandwidth", "1", "--field", "score", "--kernel", "gaussian"];
    assert_eq!(written(&at)["velocity"], noised["velocity"]);
    // W-Flow is the difference of plans.
    let plan = written(&[
        "field",
        "--in",
        points,
        "--out",
        &out,
        "--bandwidth",
        "1",
        "--coupling",
        "sinkhorn",
        "--kernel",
        "gaussian",
    ]);
    assert_eq!(written(&[&base[..], &["w-flow"]].concat())["drift"], plan["drift"]);
    for (words, says) in [
        (&["--field", "coulomb", "--kernel", "laplace"][..], "plummer"),
        (&["--field", "score", "--coupling", "sinkhorn"], "mean-shift"),
        (&["--field", "nystrom"], "weights"),
        (&["--field", "w-flow", "--coupling", "row"], "w-flow"),
        (&["--field", "w-flow", "--form", "joint"], "w-flow"),
    ] {
        fails(&[&all[..], words].concat(), 2, says);
    }
    fails(&[&all[..], &["--field", "forward-kl", "--most-log-ratio", "-1"]].concat(), 1, "most");
}

#[test]
fn temperatures_come_from_the_flag_then_the_file_then_the_preset() {
    let folder = Folder::new();
    let out = folder.text("out.npz");
    let count = |args: &[&str]| {
        let mut all = vec!["drift", "--out", &out, "--in"];
        all.extend(args);
        succeeds(&all);
        read_npz(&folder.path("out.npz"))["loss_R"].2.len()
    };
    assert_eq!(count(&[&folder.case(&[])]), 3);
    assert_eq!(count(&[&folder.case(&[]), "--preset", "notebook"]), 1);
    let with_list = folder.case(&[("R_list", npy_f64(&[2], &[0.1, 0.3]))]);
    assert_eq!(count(&[&with_list]), 2);
    assert_eq!(count(&[&with_list, "--temperatures", "0.1,0.2,0.3,0.4"]), 4);
}

#[test]
fn every_numeric_type_and_order_is_converted() {
    let folder = Folder::new();
    let out = folder.text("out.npz");
    let result = |gen_bytes: Vec<u8>| {
        let case = folder.case(&[("gen", gen_bytes)]);
        succeeds(&["drift", "--in", &case, "--out", &out]);
        read_npz(&folder.path("out.npz"))
    };
    let values: Vec<i8> = (0..24i32).map(|k| (k * 7 % 11 - 5) as i8).collect();
    let floats: Vec<f32> = values.iter().map(|v| f32::from(*v)).collect();
    let want = result(npy_f32(&[2, 3, 4], &floats));
    let shape = "(2, 3, 4)";
    let of = |bytes: &dyn Fn(i8) -> Vec<u8>| values.iter().flat_map(|v| bytes(*v)).collect::<Vec<u8>>();
    for (descr, data) in [
        ("'<f8'", of(&|v| f64::from(v).to_le_bytes().to_vec())),
        ("'>f8'", of(&|v| f64::from(v).to_be_bytes().to_vec())),
        ("'>f4'", of(&|v| f32::from(v).to_be_bytes().to_vec())),
        ("'<f2'", of(&|v| half::f16::from_f32(f32::from(v)).to_le_bytes().to_vec())),
        ("'|i1'", of(&|v| v.to_le_bytes().to_vec())),
        ("'<i2'", of(&|v| i16::from(v).to_le_bytes().to_vec())),
        ("'>i4'", of(&|v| i32::from(v).to_be_bytes().to_vec())),
        ("'<i8'", of(&|v| i64::from(v).to_le_bytes().to_vec())),
    ] {
        assert_eq!(result(npy(descr, false, shape, &data)), want, "{descr}");
    }
    // the same array stored column by column
    let mut fortran = Vec::new();
    for d in 0..4 {
        for i in 0..3 {
            for b in 0..2 {
                fortran.extend(floats[(b * 3 + i) * 4 + d].to_le_bytes());
            }
        }
    }
    assert_eq!(result(npy("'<f4'", true, shape, &fortran)), want, "Fortran order");
}

#[test]
fn refused_types() {
    let folder = Folder::new();
    let out = folder.text("out.npz");
    for (descr, size) in [
        ("'|b1'", 1),
        ("'<c8'", 8),
        ("'<c16'", 16),
        ("'<U2'", 8),
        ("'|S3'", 3),
        ("'<M8[s]'", 8),
        ("'|V4'", 4),
        ("'<f16'", 16),
    ] {
        let case = folder.case(&[("gen", npy(descr, false, "(2, 3, 4)", &vec![0; 24 * size]))]);
        fails(&["drift", "--in", &case, "--out", &out], 1, "gen");
    }
    let case = folder.case(&[("gen", npy("'|O'", false, "(2, 3, 4)", b"\x80\x03]q\x00."))]);
    fails(&["drift", "--in", &case, "--out", &out], 1, "gen");
    let case = folder.case(&[("gen", npy("[('a', '<f4'), ('b', '<f4')]", false, "(2, 3, 4)", &[0; 192]))]);
    fails(&["drift", "--in", &case, "--out", &out], 1, "gen");
    assert!(!folder.path("out.npz").exists());
}

#[test]
fn wrong_shapes_keys_and_values() {
    let folder = Folder::new();
    let out = folder.text("out.npz");
    std::fs::write(folder.path("out.npz"), "an earlier result").unwrap();
    let f32s = |shape: &[usize]| npy_f32(shape, &wave(shape.iter().product(), 2.0));
    for (changes, hint) in [
        (vec![("gen", f32s(&[6, 4]))], "[B, G, D]"),
        (vec![("gen", f32s(&[24]))], "[B, G, D]"),
        (vec![("gen", f32s(&[]))], "[B, G, D]"),
        (vec![("gen", f32s(&[1, 2, 3, 4]))], "[B, G, D]"),
        (vec![("gen", f32s(&[3, 3, 4]))], "shape"),
        (vec![("gen", f32s(&[2, 3, 5]))], "shape"),
        (vec![("gen", f32s(&[2, 0, 4]))], "G"),
        (vec![("gen", f32s(&[2, 3, 0])), ("pos", f32s(&[2, 5, 0]))], "D"),
        (vec![("neg", f32s(&[2, 4]))], "neg"),
        (vec![("neg", f32s(&[1, 2, 4]))], "shape"),
        (vec![("weight_pos", f32s(&[2, 4]))], "weight_pos"),
        (vec![("weight_pos", f32s(&[10]))], "weight_pos"),
        (vec![("weight_neg", npy_f32(&[2, 3], &[1.0; 6]))], "weight_neg"),
        (vec![("weight_gen", npy_f32(&[2, 3], &[1.0, 1.0, -1.0, 1.0, 1.0, 1.0]))], "weight"),
        (vec![("weight_gen", npy_f32(&[2, 3], &[1.0, 1.0, f32::NAN, 1.0, 1.0, 1.0]))], "weight"),
        (vec![("weight_gen", npy_f32(&[2, 3], &[0.0; 6])), ("weight_pos", npy_f32(&[2, 5], &[0.0; 10]))], "weight"),
        (vec![("R_list", npy_f64(&[], &[0.1]))], "R_list"),
        (vec![("R_list", npy_f64(&[0], &[]))], "temperatures"),
        (vec![("R_list", npy_f64(&[1], &[f64::NAN]))], "temperature"),
        (vec![("R_list", npy_f64(&[9], &[0.1; 9]))], "temperatures"),
        (vec![("extra", f32s(&[2]))], "extra"),
    ] {
        let case = folder.case(&changes);
        fails(&["drift", "--in", &case, "--out", &out], 1, hint);
    }
    let path = folder.path("only.npz");
    write_npz(&path, &[("gen", f32s(&[2, 3, 4]))]);
    fails(&["drift", "--in", path.to_str().unwrap(), "--out", &out], 1, "pos");
    let case = folder.case(&[]);
    for bad in ["nan", "-0.1", "0", "inf", "1e-30", "0.1,nan", "1,1,1,1,1,1,1,1,1"] {
        fails(&["drift", "--in", &case, "--out", &out, "--temperatures", bad], 1, "temperature");
    }
    for args in [
        &["--temperatures", "abc"][..],
        &["--preset", "nonsense"],
        &["--kernel", "cauchy"],
        &["--dtype", "f8"],
        &["--backend", "tpu"],
        &["--frobnicate"],
        &["--out"],
    ] {
        let mut all = vec!["drift", "--in", &case];
        if args != ["--out"] {
            all.extend(["--out", &out]);
        }
        all.extend(args);
        fails(&all, 2, "--help");
    }
    fails(&["drift", "--in", &case], 2, "--out");
    let mut without = cudrift();
    without.args(["drift", "--in", &case, "--out", &out, "--backend", "cuda"]);
    let without = without.env_remove("LD_LIBRARY_PATH").env("CUDA_VISIBLE_DEVICES", "").output().unwrap();
    assert_failed("without a device", &without, 1, "--backend cpu computes the same");
    assert_eq!(std::fs::read_to_string(folder.path("out.npz")).unwrap(), "an earlier result");
    // nothing half-written lies about
    assert_eq!(std::fs::read_dir(folder.path("")).unwrap().count(), 3);
}

#[test]
fn broken_files() {
    let folder = Folder::new();
    let (out, bad) = (folder.text("out.npz"), folder.text("bad.npz"));
    let drift = ["drift", "--in", &bad, "--out", &out];
    fails(&drift, 1, "cannot read");
    std::fs::create_dir(&bad).unwrap();
    fails(&drift, 1, "cannot read");
    std::fs::remove_dir(&bad).unwrap();
    for content in [&b""[..], b"PK\x03\x04", b"not a zip file at all, but text", &npy_f32(&[2], &[1.0, 2.0])] {
        std::fs::write(&bad, content).unwrap();
        fails(&drift, 1, "not a whole .npz file");
    }
    let good = std::fs::read(folder.case(&[])).unwrap();
    for keep in (1..good.len()).step_by(37) {
        std::fs::write(&bad, &good[..keep]).unwrap();
        fails(&drift, 1, "bad.npz");
    }
    // A header may promise anything.
    for (shape, hint) in [
        ("(1000000000, 1000000000, 1)", "promises"),
        ("(18446744073709551615, 2, 2)", "promises"),
        ("(2, 3, 5)", "promises"),
        ("(2, 3, 3)", "promises"),
        ("(-2, 3, 4)", "gen"),
        ("(99999999999999999999999, 3, 4)", "gen"),
        ("2", "gen"),
    ] {
        let data: Vec<u8> = wave(24, 0.0).iter().flat_map(|v| v.to_le_bytes()).collect();
        let case = folder.case(&[("gen", npy("'<f4'", false, shape, &data))]);
        fails(&["drift", "--in", &case, "--out", &out], 1, hint);
    }
    for entry in [&b""[..], b"\x93NUMPY", b"\x93NUMPY\x01\x00\xff\xff{", b"\x93NUMPY\x07\x00\x10\x00", b"garbage"] {
        let case = folder.case(&[("gen", entry.to_vec())]);
        fails(&["drift", "--in", &case, "--out", &out], 1, "gen");
    }
    assert!(!folder.path("out.npz").exists());
}

#[test]
fn unwritable_outputs() {
    let folder = Folder::new();
    let case = folder.case(&[]);
    let drift = |out: &str| run(&["drift", "--in", &case, "--out", out]);
    assert_failed("missing folder", &drift(&folder.text("no/such/out.npz")), 1, "cannot write");
    assert_failed("a folder", &drift(&folder.text("")), 1, "cannot write");
    std::fs::write(folder.path("file"), "").unwrap();
    assert_failed("a file for a folder", &drift(&folder.text("file/out.npz")), 1, "cannot write");
    #[cfg(target_os = "linux")]
    assert_failed("full", &drift("/dev/full"), 1, "No space left");
}

/// A limit on the size of files stands for a full disk: the earlier result stays whole.
#[cfg(unix)]
#[test]
fn a_full_disk_keeps_the_earlier_result() {
    let folder = Folder::new();
    let case = folder.path("case.npz");
    let samples = npy_f32(&[4, 64, 64], &wave(4 * 64 * 64, 0.0));
    write_npz(&case, &[("gen", samples.clone()), ("pos", samples)]);
    let out = folder.path("out.npz");
    std::fs::write(&out, "an earlier result").unwrap();
    let script = r#"trap '' XFSZ; ulimit -f 16; exec "$0" drift --in "$1" --out "$2""#;
    let output = std::process::Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_cudrift")])
        .args([&case, &out])
        .output()
        .unwrap();
    assert_failed("file size limit", &output, 1, "cannot write");
    assert_eq!(std::fs::read_to_string(&out).unwrap(), "an earlier result");
    assert_eq!(std::fs::read_dir(folder.path("")).unwrap().count(), 2, "a temporary file was left behind");
}

#[test]
fn data_that_is_not_finite_is_a_warning() {
    let folder = Folder::new();
    let out = folder.text("out.npz");
    let mut values = wave(24, 0.0);
    (values[3], values[7]) = (f32::NAN, f32::INFINITY);
    let case = folder.case(&[("gen", npy_f32(&[2, 3, 4], &values))]);
    let output = succeeds(&["drift", "--in", &case, "--out", &out]);
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("warning: 2 input values"));
    let got = read_npz(&folder.path("out.npz"));
    assert_eq!(got["nonfinite"].2, [2.0]);
    assert!(got["loss"].2.iter().all(|v| v.is_nan()));
}

#[test]
fn empty_batches_and_weights_in_the_notebook() {
    let folder = Folder::new();
    let out = folder.text("out.npz");
    let case = folder.case(&[("gen", npy_f32(&[0, 3, 4], &[])), ("pos", npy_f32(&[0, 5, 4], &[]))]);
    for preset in ["official", "paper", "notebook"] {
        succeeds(&["drift", "--in", &case, "--out", &out, "--preset", preset]);
        let got = read_npz(&folder.path("out.npz"));
        assert_eq!((&got["loss"].0[..], &got["grad_gen"].0[..]), (&[0][..], &[0, 3, 4][..]));
        assert_eq!(got["scale"].2, [0.0]);
    }
    let plain = folder.case(&[]);
    succeeds(&["drift", "--in", &plain, "--out", &out, "--preset", "notebook"]);
    let want = read_npz(&folder.path("out.npz"));
    let weighted = folder.case(&[("weight_gen", npy_f32(&[2, 3], &[0.5; 6]))]);
    let output = succeeds(&["drift", "--in", &weighted, "--out", &out, "--preset", "notebook"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("ignored"));
    assert_eq!(read_npz(&folder.path("out.npz")), want);
}

/// A bandwidth of each query from the file, one for all from the flag, the median, and its growth with D.
#[test]
fn bandwidths_of_fields() {
    let folder = Folder::new();
    let (path, out) = (folder.path("case.npz"), folder.text("out.npz"));
    let points = |n: usize, shift: f32| npy_f32(&[n, 4], &wave(4 * n, shift));
    let entries = [("x", points(3, 0.3)), ("p", points(4, 0.1)), ("q", points(5, 0.7))];
    write_npz(&path, &[&entries[..], &[("bandwidth", npy_f32(&[3], &[0.5, 2.0, 1.0]))]].concat());
    let case = path.to_str().unwrap();
    let drift = |extra: &[&str]| {
        succeeds(&[&["field", "--in", case, "--out", &out][..], extra].concat());
        read_npz(&folder.path("out.npz"))["drift"].2.clone()
    };
    let own = drift(&[]);
    let one = drift(&["--bandwidth", "2"]);
    assert_eq!(own[4..8], one[4..8]);
    assert_ne!(own[..4], one[..4]);
    assert_eq!(drift(&["--bandwidth", "1", "--dimension-exponent", "0.5"]), one);
    assert_ne!(drift(&["--bandwidth", "median"]), one);
    write_npz(&path, &[&entries[..], &[("bandwidth", npy_f32(&[3], &[0.5, -2.0, 1.0]))]].concat());
    fails(&["field", "--in", case, "--out", &out], 1, "bandwidth");
}

/// Spec 2.8 (d) as a drift and as a field, and the other couplings beside the fields that they are.
#[test]
fn couplings_through_files() {
    let folder = Folder::new();
    let (path, out) = (folder.path("case.npz"), folder.text("out.npz"));
    let case = path.to_str().unwrap();
    let (x, p) = ([0.0f32, 0.0, 1.0, 0.0, 0.5, -1.0], [1.0f32, 1.0, 2.0, 0.0]);
    let want = [1.12325511, 0.811469892, 0.703511207, 0.535948768, 1.17323368, 1.15258132];
    write_npz(&path, &[("gen", npy_f32(&[1, 3, 2], &x)), ("pos", npy_f32(&[1, 2, 2], &p))]);
    let plan = ["--coupling", "sinkhorn"];
    let drift = ["drift", "--in", case, "--out", &out, "--preset", "notebook", "--temperatures", "0.5"];
    for backend in if cuda() { &["cpu", "cuda"][..] } else { &["cpu"] } {
        succeeds(&[&drift[..], &plan, &["--backend", backend]].concat());
        let got = read_npz(&folder.path("out.npz"));
        let moved: Vec<f64> = got["goal_scaled"].2.iter().zip(x).map(|(goal, x)| goal - f64::from(x)).collect();
        assert!(relative_error(&moved, &want) <= 1e-6, "{moved:?}");
        assert_eq!(got["iterations"].2, [20.0]);
        assert!(got["marginal_error"].2[0] < 1e-3 && got.len() == 9);
    }
    fails(&[&drift[..], &["--sinkhorn-tolerance", "1e-3"]].concat(), 2, "sinkhorn");

    write_npz(&path, &[("x", npy_f32(&[3, 2], &x)), ("p", npy_f32(&[2, 2], &p)), ("q", npy_f32(&[3, 2], &x))]);
    let field = |extra: &[&str]| {
        succeeds(&[&["field", "--in", case, "--out", &out, "--bandwidth", "0.5"][..], extra].concat());
        read_npz(&folder.path("out.npz"))
    };
    let got = field(&plan);
    assert!(relative_error(&got["drift"].2, &want) <= 1e-6 && got["iterations"].2 == [20.0], "{got:?}");
    // The sum of both masses is 1, so that the joint form is the split one times their product.
    let (rows, joint) = (field(&[]), field(&["--coupling", "row", "--form", "joint"]));
    for (i, (split, joint)) in rows["drift"].2.iter().zip(&joint["drift"].2).enumerate() {
        let odds = (rows["logz_p"].2[i / 2] - rows["logz_q"].2[i / 2]).exp();
        let share = odds / (1.0 + odds);
        assert!((joint - split * share * (1.0 - share)).abs() < 1e-5, "{i}: {joint} {split} {share}");
    }
    let both = |extra: &[&str]| field(&[&["--coupling", "row-column"][..], extra].concat())["drift"].2.clone();
    assert_ne!(both(&[]), both(&["--self-mask"]));
    assert_ne!(both(&[]), both(&["--form", "split"]));
    assert_eq!(field(&["--form", "split"]), rows);
    if cuda() {
        let got = field(&["--backend", "cuda"]);
        for (key, want) in &rows {
            assert!(relative_error(&got[key].2, &want.2) <= 1e-5, "{key}");
        }
        assert!(relative_error(&field(&[&plan[..], &["--backend", "cuda"]].concat())["drift"].2, &want) <= 1e-6);
    }
    write_npz(&path, &[("x", npy_f32(&[3, 2], &x)), ("p", npy_f32(&[2, 2], &p)), ("q", npy_f32(&[2, 2], &p))]);
    let masked = ["field", "--in", case, "--out", &out, "--bandwidth", "0.5", "--self-mask"];
    fails(&[&masked[..], &plan].concat(), 2, "q that is x");
}

#[test]
fn wrong_fields() {
    let folder = Folder::new();
    let (path, out) = (folder.path("case.npz"), folder.text("out.npz"));
    let case = path.to_str().unwrap();
    let points = |n: usize| npy_f32(&[n, 2], &wave(2 * n, 0.3));
    let good = [("x", points(3)), ("p", points(4)), ("q", points(5))];
    write_npz(&path, &good);
    succeeds(&["field", "--in", case, "--out", &out, "--bandwidth", "0.5"]);
    for bad in ["nan", "0", "-1", "inf"] {
        fails(&["field", "--in", case, "--out", &out, "--bandwidth", bad], 1, "bandwidth");
    }
    fails(&["field", "--in", case, "--out", &out], 2, "--bandwidth");
    fails(&["field", "--in", case, "--out", &out, "--bandwidth", "mean"], 2, "median");
    fails(&["field", "--in", case, "--out", &out, "--dimension-exponent", "0.5"], 2, "--bandwidth");
    fails(&["field", "--in", case, "--out", &out, "--bandwidth", "1", "--field", "curl"], 2, "curl");
    fails(&["field", "--in", case, "--out", &out, "--bandwidth", "1", "--self-mask"], 1, "self mask");
    for (name, bytes) in [
        ("x", npy_f32(&[6], &wave(6, 0.0))),
        ("p", npy_f32(&[4, 3], &wave(12, 0.0))),
        ("q", npy_f32(&[0, 2], &[])),
        ("weight_p", npy_f32(&[3], &[1.0; 3])),
        ("weight_q", npy_f32(&[5], &[0.0; 5])),
        ("weight_q", npy_f32(&[5], &[1.0, 1.0, -1.0, 1.0, 1.0])),
        ("other", points(1)),
    ] {
        let mut entries: Vec<_> = good.iter().filter(|(have, _)| *have != name).cloned().collect();
        entries.push((name, bytes));
        write_npz(&path, &entries);
        fails(&["field", "--in", case, "--out", &out, "--bandwidth", "0.5"], 1, name);
    }
}
