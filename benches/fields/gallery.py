#!/usr/bin/env python3
"""Pictures of points on their way along every field, and a table of how near to the data they come."""

import argparse
import array
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
WORK = ROOT / "target" / "fields"
DOCS = ROOT / "docs" / "fields"
HELP = """\
flow      `cudrift flow` along each field, from a normal distribution to the checkerboard: a picture each, and a table
train     `cudrift train` along each, on the checkerboard: how near generators come, and the time of the field on the CPU
count     one step along each on the simulator: launches, instructions, bytes
nystrom   landmarks beside all of 10,000 points: error and time
Pictures and tables go to docs/fields, between the markers of its README.md. Nothing is installed. All of it takes half an
hour."""
SECTIONS = ["flow", "train", "count", "nystrom"]
# Fields whose size falls with the distance go by steps of one length; the others by a fifth of themselves.
EVEN = ["--normalize", "--step", "0.02"]
FIELDS = {
    "drift": ["--bandwidth", "0.1"],
    "mean-shift": ["--field", "mean-shift", "--kernel", "gaussian", "--bandwidth", "0.2"],
    "score": ["--field", "score", "--kernel", "gaussian", "--bandwidth", "0.2", *EVEN],
    "sharp": ["--field", "sharp", "--kernel", "laplace", "--bandwidth", "0.2", *EVEN],
    "mmd": ["--field", "mmd", "--kernel", "gaussian", "--bandwidth", "0.2", *EVEN],
    "coulomb": ["--field", "coulomb", "--bandwidth", "0.1", *EVEN],
    "forward-kl": ["--field", "forward-kl", "--kernel", "gaussian", "--bandwidth", "0.2", *EVEN],
    "chi-squared": ["--field", "chi-squared", "--kernel", "gaussian", "--bandwidth", "0.2", *EVEN],
    "sliced": ["--field", "sliced"],
    "sd-flow": ["--field", "sd-flow", "--bandwidth", "0.2", *EVEN],
    "nystrom": ["--field", "nystrom", "--bandwidth", "0.1"],
    "w-flow": ["--field", "w-flow", "--bandwidth", "0.1"],
    "lookahead": ["--bandwidth", "0.1", "--lookahead", "1,1"],
    "independent": ["--independent", "--bandwidth", "0.1"],
}
# As the flags of a run: bandwidths are temperatures, and what has no flag is in a file of options. The generator of a
# field whose size falls with the distance has steps of one length too: the root mean square that the drift begins with.
TRAIN = {
    "drift": [],
    "mean-shift": ["--field", "mean-shift", "--kernel", "gaussian", "--temperatures", "0.1"],
    "score": ["--field", "score", "--kernel", "gaussian", "--temperatures", "0.1", "even"],
    "sharp": ["--field", "sharp", "--kernel", "laplace", "--temperatures", "0.1", "even"],
    "mmd": ["--field", "mmd", "--kernel", "gaussian", "--temperatures", "0.2", "even"],
    "coulomb": ["--field", "coulomb", "--temperatures", "0.1", "even"],
    "forward-kl": ["--field", "forward-kl", "--kernel", "gaussian", "--temperatures", "0.1", "even"],
    "chi-squared": ["--field", "chi-squared", "--kernel", "gaussian", "--temperatures", "0.2", "even"],
    "sliced": ["--field", "sliced"],
    "sd-flow": ["--field", "sd-flow", "--temperatures", "0.1", "even"],
    "nystrom": ["--field", "nystrom", "--temperatures", "0.05"],
    "w-flow": ["--field", "w-flow", "--temperatures", "0.05"],
    "lookahead": ["--lookahead", "1,1"],
    "independent": ["--independent"],
}
STEPS, BATCH = 2000, 1024
POINTS = 512  # counted


def build(words):
    if subprocess.run(["cargo", "build", *words], cwd=ROOT).returncode != 0:
        raise SystemExit("cargo build failed for the reason above")


def run(words, name, **more):
    done = subprocess.run([str(word) for word in words], **{"stdout": subprocess.DEVNULL, **more})
    if done.returncode != 0:
        raise SystemExit(f"cudrift failed for {name}: {done.stderr or 'for the reason above'}")
    return done


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def note(text):
    print(text, file=sys.stderr, flush=True)


def flow(cudrift):
    rows = []
    for name, flags in FIELDS.items():
        out = WORK / name
        run([cudrift, "flow", "--data", "checkerboard", "--backend", "cpu", "--out", out, *flags], name)
        shutil.copyfile(out / "frames.png", DOCS / f"{name}.png")
        swd = [line["swd1"] for line in lines(out / "flow.jsonl")]
        rows.append(f"| [{name}]({name}.png) | `{' '.join(flags)}` | {swd[len(swd) // 4]:.3f} | {swd[-1]:.3f} |")
        note(f"{name}: SWD {swd[0]:.3f} to {swd[-1]:.3f}")
    return ["| field | flags | SWD after 50 steps | after 200 |", "|---|---|---|---|", *rows]


def train(cudrift):
    rows, times = [], {}
    even = WORK / "even.toml"
    even.write_text("field_normalize = true\nfield_step = 0.05\n")
    for name, flags in TRAIN.items():
        out = WORK / f"train-{name}"
        shutil.rmtree(out, ignore_errors=True)
        plain = [word for word in flags if word != "even"]
        words = plain + (["--config", even] if "even" in flags else [])
        words = [cudrift, "train", "--data", "checkerboard", "--backend", "cpu", "--out", out, "--profile", *words]
        done = run([*words, "--steps", STEPS, "--batch", BATCH], name, stderr=subprocess.PIPE, text=True)
        seconds = [line.split()[1] for line in done.stderr.splitlines() if line.startswith("drift ")]
        times[name] = 1e3 * float(seconds[0]) / STEPS
        swd = lines(out / "metrics.jsonl")
        tail = sorted(line["swd1"] for line in swd[-5:])[2]
        beside = times[name] / times["drift"]
        shown = (f"`{' '.join(plain)}`" if plain else "") + (", even" if "even" in flags else "")
        rows.append(f"| {name} | {shown} | {tail:.3f} | {times[name]:.2f} | {beside:.1f} |")
        note(f"{name}: SWD {tail:.3f}, {times[name]:.2f} ms a step")
    return ["| field | flags | SWD | ms of the field a step | beside the drift |", "|---|---|---|---|---|", *rows]


def count(cudrift):
    """The simulator is a debug build, as the tests have it."""
    build(["-p", "cuda-sim", "--lib"])
    target = ROOT / os.environ.get("CARGO_TARGET_DIR", "target")
    links = WORK / "sim"
    shutil.rmtree(links, ignore_errors=True)
    links.mkdir()
    for link in ["libcuda.so", "libcublas.so", "libcublasLt.so"]:
        (links / link).symlink_to((target / "debug" / "libcudrift_sim.so").resolve())
    rows, base = [], None
    for name, flags in FIELDS.items():
        counters = WORK / f"{name}.jsonl"
        counters.unlink(missing_ok=True)
        words = [cudrift, "flow", "--data", "checkerboard", "--backend", "cuda", "--out", WORK / f"count-{name}"]
        words += ["--points", POINTS, "--steps", "1", "--frames", "2", *flags]
        run(words, name, env={**os.environ, "LD_LIBRARY_PATH": str(links), "CUDRIFT_SIM_COUNTERS": str(counters)})
        launches = lines(counters)
        warps = sum(line["warp_instructions"] for line in launches) / 1e6
        l2 = sum(line[f"lts__t_sectors_srcunit_tex_op_{way}.sum"] for line in launches for way in ["read", "write"])
        base = base or (warps, l2)
        rows.append(
            f"| {name} | {len(launches)} | {warps:.2f} | {warps / base[0]:.1f} | {l2 * 32 / 1e6:.2f} | {l2 / base[1]:.1f} |"
        )
        note(f"{name}: {len(launches)} launches, {warps:.2f} million warp instructions")
    head = "| field | launches | million warp instructions | beside the drift | MB through L2 | beside the drift |"
    return [head, "|---|---|---|---|---|---|", *rows]


def npz(path, arrays):
    """Arrays of f32, (shape, numbers), as NumPy writes them."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, (shape, values) in arrays.items():
            text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {tuple(shape)!r}, }}".encode()
            text += b" " * (-(len(text) + 11) % 64) + b"\n"
            archive.writestr(f"{name}.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + values.tobytes())


def read(path, name):
    with zipfile.ZipFile(path) as archive:
        data = archive.read(f"{name}.npy")
    start = 10 + struct.unpack("<H", data[8:10])[0]
    return array.array("f", data[start:])


def nystrom(cudrift):
    """1,000 queries among as many others, 10,000 data: a mixture of 20 Gaussians, and the same in either set."""
    rows = []
    for dim in [2, 64, 512]:
        draw = random.Random(dim)
        centres = [[draw.gauss(0, 1) for _ in range(dim)] for _ in range(20)]
        points = lambda n: array.array("f", (c + 0.5 * draw.gauss(0, 1) for _ in range(n) for c in draw.choice(centres)))
        x, p = points(1000), points(10000)
        case, out = WORK / "nystrom.npz", WORK / "field.npz"
        npz(case, {"x": ([1000, dim], x), "p": ([10000, dim], p), "q": ([1000, dim], x)})
        common = [cudrift, "field", "--in", case, "--out", out, "--backend", "cpu", "--self-mask", "--runs", "9"]
        common += ["--bandwidth", "0.3", "--dimension-exponent", "0.5"]

        def timed(*words):
            done = run([*common, *words], f"D = {dim}", stdout=subprocess.PIPE, text=True)
            return float(done.stdout.split()[0]), read(out, "velocity")

        exact_time, exact = timed("--field", "mean-shift")
        size = lambda values: sum(v * v for v in values) ** 0.5
        attraction = read(out, "ms_p")
        for count in [50, 150, 500, 2000]:
            time, got = timed("--field", "nystrom", "--landmarks", count)
            error = size(a - b for a, b in zip(got, exact))
            shares = f"{error / size(attraction):.3f} | {error / size(exact):.2f}"
            rows.append(f"| {dim} | {count} | {shares} | {time:.1f} | {exact_time:.1f} | {exact_time / time:.1f} |")
            note(f"D = {dim}, {count} landmarks: errors {shares}, {time:.1f} ms against {exact_time:.1f}")
    head = "| D | landmarks | error / attraction | error / V | ms | ms of the exact field | times faster |"
    return [head, "|---|---|---|---|---|---|---|", *rows]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"{', '.join(SECTIONS)} [default: all]")
    sections = parser.parse_args().sections or SECTIONS
    if unknown := set(sections) - set(SECTIONS):
        parser.error(f"unknown section {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    build(["--release", "-p", "cudrift-cli"])
    cudrift = ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "release" / "cudrift"
    for folder in (WORK, DOCS):
        folder.mkdir(parents=True, exist_ok=True)
    page = DOCS / "README.md"
    for section in sections:
        table = globals()[section](cudrift)
        begin, end = f"<!-- {section} begins -->", f"<!-- {section} ends -->"
        head, rest = page.read_text().split(begin)
        page.write_text(head + begin + "\n" + "\n".join(table) + "\n" + end + rest.split(end)[1])
        note(f"the table of {section} in {page.relative_to(ROOT)} is written")


if __name__ == "__main__":
    main()
