#!/usr/bin/env python3
"""Times cudrift beside JAX and PyTorch on this machine: in turns, after checking that all of them agree."""

import argparse
import json
import math
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
WORK = ROOT / "target" / "peers"
PINS = HERE / "requirements.txt"
SHAPES = {  # B, G, P, N, D, as in `cudrift bench`
    "a": [8, 64, 64, 32, 640],
    "b": [64, 64, 64, 32, 640],
    "c": [32, 64, 64, 16, 1280],
    "d": [1, 2048, 2048, 0, 2],
    "e": [1, 4096, 4096, 0, 512],
    "f": [256, 64, 64, 32, 256],
}
INSIDE = {"in jax": "jax", "in torch": "eager"}  # cudrift's front ends, and who runs them
PEERS = {"jax": "JAX jit", "eager": "PyTorch eager", "compile": "torch.compile"}
STEPS, PARTS, PEER_STEPS = 2000, 3, 30  # the training: our steps, in how many parts; a peer's steps before each part
LAPS = ["noise and data", "generator, forward", "drift", "generator, backward", "update"]  # of a step
AGREE, EXPLAINED = 1e-4, 1e-2  # of the array's maximum; between them, a peer's own f32 error becomes a footnote
HELP = """\
For each shape: agreement of loss and gradient with an f64 evaluation, then rounds in which cudrift, JAX, PyTorch eager
and torch.compile take turns, so that whatever disturbs the machine disturbs all. A side's number is the median over
rounds of its median in a round. Every peer tries several ways to write the maths and reports its fastest.
Then the default training: all of ours, and some steps of PyTorch's, scaled up. Leave the machine alone meanwhile.

Writes target/peers/results.json, docs/peers.png and the README's table; the last two only after a full run.
The first run installs PyTorch and JAX into target/peers (about 6 GB). Exit status: 0, 2 for wrong usage, 1 otherwise.

examples:
  python3 benches/peers/run.py                                  everything, about 15 minutes on two cores
  python3 benches/peers/run.py --shapes d --rounds 1 --no-train a quick look at one shape
  python3 benches/peers/run.py --only-check                     agreement only, no timing"""


class Stop(Exception):
    """One line that says what to do."""


def note(text):
    print(text, file=sys.stderr, flush=True)


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parser.add_argument("--shapes", default=",".join(SHAPES), help="letters, with commas (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds per shape (default: 5)")
    parser.add_argument("--threads", type=int, default=min(2, cores), help="threads of every side (default: 2)")
    parser.add_argument("--no-train", action="store_true", help="leave the training out")
    parser.add_argument(
        "--inside", action="store_true", help="time cudrift from inside JAX and PyTorch too, and print a table of it"
    )
    parser.add_argument("--only-check", action="store_true", help="check agreement and stop")
    parser.add_argument("--no-readme", action="store_true", help="leave README.md and docs/peers.png as they are")
    parser.add_argument(
        "--malloc",
        choices=["keep", "stock"],
        default="keep",
        help="keep: glibc keeps freed memory, on every side; stock: it hands large blocks back to the system, and the "
        "page faults cost PyTorch up to half its time (default: keep)",
    )
    parser.add_argument("--cudrift", metavar="PATH", help="a built cudrift (default: build it)")
    parser.add_argument("--python", metavar="PATH", help="a Python that has requirements.txt (default: set one up)")
    args = parser.parse_args()
    args.shapes = args.shapes.split(",")
    for letter in args.shapes:
        if letter not in SHAPES:
            parser.error(f"no shape {letter!r}; expected some of {','.join(SHAPES)}")
    if args.rounds < 1:
        parser.error("--rounds expects at least 1")
    if not 1 <= args.threads <= cores:
        parser.error(f"--threads expects 1 to {cores} on this machine")
    args.full = args.shapes == list(SHAPES) and not args.no_train
    return args


# ---- set-up


def installed(python):
    check = (
        "import sys, importlib.metadata as m\n"
        "for line in open(sys.argv[1]):\n"
        "    name, version = line.strip().split('==')\n"
        "    assert m.version(name).split('+')[0] == version"
    )
    return subprocess.run([python, "-c", check, str(PINS)], stderr=subprocess.DEVNULL).returncode == 0


def environment(args):
    if args.python:
        if not shutil.which(args.python):
            raise Stop(f"--python {args.python}: no such program")
        if not installed(args.python):
            raise Stop(f"{args.python} lacks what is pinned; give it {PINS.relative_to(ROOT)} with its pip install -r")
        return args.python
    python = str(WORK / "venv" / "bin" / "python")
    if Path(python).exists() and installed(python):
        return python
    if sys.version_info < (3, 11):
        raise Stop("the pinned PyTorch and JAX need Python 3.11 or newer; run this script with one, say python3.11")
    note("installing PyTorch and JAX into target/peers (once, some minutes)")
    for command in (
        [sys.executable, "-m", "venv", str(WORK / "venv")],
        [python, "-m", "pip", "install", "--quiet", "-r", str(PINS)],
    ):
        if subprocess.run(command).returncode != 0:
            raise Stop("the set-up failed for the reason above; mend it, remove target/peers/venv and run this again")
    return python


def library():
    """cudrift's front ends for the peers, and their library."""
    if subprocess.run(["cargo", "build", "--release", "-p", "cudrift-capi"], cwd=ROOT).returncode != 0:
        raise Stop("cargo build failed for the reason above")
    built = ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "release" / "libcudrift.so"
    os.environ.update(CUDRIFT_LIBRARY=str(built), PYTHONPATH=str(ROOT / "python"))


def binary(args):
    if args.cudrift:
        if not shutil.which(args.cudrift):
            raise Stop(f"--cudrift {args.cudrift}: no such program")
        return str(Path(shutil.which(args.cudrift)).resolve())
    if not shutil.which("cargo"):
        raise Stop("cargo is missing; install Rust, or name a built cudrift with --cudrift PATH")
    if subprocess.run(["cargo", "build", "--release", "-p", "cudrift-cli"], cwd=ROOT).returncode != 0:
        raise Stop("cargo build failed for the reason above")
    return str(ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "release" / "cudrift")


def equal_terms(args):
    """What every side inherits: the same cores, thread counts and allocator."""
    if hasattr(os, "sched_setaffinity"):  # this is what limits JAX
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])
    for name in ("RAYON_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(args.threads)
    if args.malloc == "keep":
        os.environ.update(MALLOC_MMAP_THRESHOLD_=str(1 << 32), MALLOC_TRIM_THRESHOLD_=str(1 << 33))
        os.environ["MALLOC_TOP_PAD_"] = str(1 << 28)
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(WORK / "inductor")
    os.environ["CUDA_VISIBLE_DEVICES"] = ""


# ---- the sides


class Worker:
    def __init__(self, name, threads):
        script = ["jax_peer.py"] if name == "jax" else ["torch_peer.py", name, str(threads)]
        self.name, self.log = name, WORK / f"{name}.log"
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / script[0]), *script[1:]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log.open("w"),
            text=True,
        )

    def ask(self, do, **rest):
        try:
            self.process.stdin.write(json.dumps({"do": do, **rest}) + "\n")
            self.process.stdin.flush()
            answer = json.loads(self.process.stdout.readline())
        except (BrokenPipeError, ValueError):
            raise Stop(f"{PEERS[self.name]} ended early; target/peers/{self.log.name} says why") from None
        if "error" in answer:
            raise Stop(f"{PEERS[self.name]}: {answer['error']}")
        return answer

    def time(self, runs, **rest):
        return self.ask("time", runs=runs, **rest)["seconds"]

    def end(self):
        self.process.stdin.close()  # the worker leaves, and the compiler processes PyTorch keeps with it
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()


class Cudrift:
    def __init__(self, path):
        self.path = path
        self.quick = ["--no-ceilings"] if "--no-ceilings" in self.run("bench", "--help").stdout else []

    def run(self, *words):
        done = subprocess.run([self.path, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if done.returncode != 0:
            raise Stop(f"cudrift {words[0]} failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
        return done

    def train(self, *words):
        """The seconds of each of LAPS."""
        shown = self.run("train", "--profile", *words).stderr
        return [float(re.search(rf"^{name} +(\d+\.\d+) ", shown, re.M)[1]) for name in LAPS]

    def bench(self, letter, runs):
        report = json.loads(self.run("bench", "--shapes", letter, "--runs", str(runs), "--json", *self.quick).stdout)
        return report["rows"][0]["median_ms"], report["instruction_set"]


# ---- agreement


def file(name):
    return str(WORK / f"{name}.npz")


def write_case(letter, shape):
    import numpy as np

    b, g, p, n, d = shape
    rng = np.random.default_rng(ord(letter[0]))
    points = lambda count: rng.standard_normal((b, count, d), np.float32)
    np.savez(file("case"), gen=points(g), neg=points(n), pos=points(p) + np.float32(0.5))


def error(name, against):
    """The larger of loss's and gradient's greatest error, relative to the array's maximum."""
    import numpy as np

    ours, theirs = np.load(file(name)), np.load(file(against))
    worst = [np.abs(ours[k] - theirs[k]).max() / np.abs(theirs[k]).max() for k in ("loss", "grad_gen")]
    return float(max(worst, key=lambda value: math.inf if math.isnan(value) else value))


def agreement(letter, cudrift, workers, dialect="official"):
    """Errors of every side against f64; raises where a side computes something else."""
    temperatures = "0.2,0.05,0.02" if dialect == "official" else "0.05"
    files = ["--in", file("case"), "--out", file("cudrift")]
    cudrift.run("drift", *files, "--preset", dialect, "--temperatures", temperatures)
    workers["eager"].ask("truth", case=file("case"), out=file("f64"), dialect=dialect)
    errors = {"cudrift": error("cudrift", "f64")}
    if dialect == "official":
        for name, worker in workers.items():
            worker.ask("compute", out=file(name))
            errors[name] = error(name, "f64")
    note(f"{letter}: error against f64: " + ", ".join(f"{name} {value:.1e}" for name, value in errors.items()))
    for name, value in errors.items():
        if not value <= (AGREE if name == "cudrift" else EXPLAINED):
            raise Stop(f"shape {letter} is not reported: {name} is {value:.1e} off f64; mend it before timing it")
    return errors


# ---- timing


def measure(letter, shape, cudrift, args):
    write_case(letter, shape)
    workers = {name: Worker(name, args.threads) for name in PEERS}
    try:
        row = {"shape": shape, "forms": {}}
        for name, worker in workers.items():
            row["forms"][name] = worker.ask("load", case=file("case"))
        row["error_against_f64"] = agreement(letter, cudrift, workers)
        inside = INSIDE if args.inside else {}
        for side, name in inside.items():
            workers[name].ask("load_inside", case=file("case"))
            workers[name].ask("compute", out=file("inside"), inside=True)
            row["error_against_f64"][side] = error("inside", "f64")
            if not row["error_against_f64"][side] <= AGREE:
                raise Stop(f"shape {letter} is not reported: cudrift {side} is {row['error_against_f64'][side]:.1e} off f64")
        if args.only_check:
            return row
        # As many runs as take about a second, three at least.
        enough = lambda ms: max(3, min(200, round(1e3 / ms)))
        runs = {name: enough(min(row["forms"][name]["tried_ms"].values())) for name in workers}
        first, row["instruction_set"] = cudrift.bench(letter, 3)
        runs["cudrift"] = enough(first)
        runs.update({side: runs["cudrift"] for side in inside})
        row["rounds_ms"] = {name: [] for name in ["cudrift", *inside, *workers]}
        for turn in range(args.rounds):
            for name in row["rounds_ms"]:
                if name == "cudrift":
                    ms = cudrift.bench(letter, runs[name])[0]
                elif name in inside:
                    ms = 1e3 * statistics.median(workers[inside[name]].time(runs[name], inside=True))
                else:
                    ms = 1e3 * statistics.median(workers[name].time(runs[name]))
                row["rounds_ms"][name].append(ms)
                note(f"{letter}  round {turn + 1}/{args.rounds}  {name:8} {ms:9.2f} ms  ({runs[name]} runs)")
        row["times"] = {name: statistics.median(values) for name, values in row["rounds_ms"].items()}
        return row
    finally:
        for worker in workers.values():
            worker.end()


def training(cudrift, args):
    """Our whole training in parts; before each part, some steps of every peer, scaled to the whole."""
    write_case("train", [1, 2048, 2048, 0, 2])
    workers = {name: Worker(name, args.threads) for name in PEERS if name != "jax"}
    try:
        row = {"error_against_f64": agreement("train", cudrift, workers, "notebook")}
        if args.only_check:
            return row
        for worker in workers.values():
            worker.ask("load_training")
        folder = WORK / "train"
        shutil.rmtree(folder, ignore_errors=True)
        row["rounds_ms"] = {name: [] for name in workers}
        laps = {"cudrift": [], "eager": []}
        for part in range(1, PARTS + 1):
            for name, worker in workers.items():
                ms = 1e3 * statistics.median(worker.time(PEER_STEPS))
                row["rounds_ms"][name].append(ms)
                note(f"train  part {part}/{PARTS}  {name:8} {ms:9.2f} ms a step")
            laps["eager"].append(workers["eager"].ask("time_parts", runs=PEER_STEPS)["seconds"])
            steps = str(STEPS * part // PARTS)
            start = ["--data", "swiss-roll"] if part == 1 else ["--resume"]
            laps["cudrift"].append(cudrift.train(*start, "--steps", steps, "--out", str(folder)))
            last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
            note(f"train  part {part}/{PARTS}  cudrift  {last['seconds']:9.2f} s for {last['step']} steps")
        row["laps_ms"] = {
            "cudrift": [1e3 * sum(part) / STEPS for part in zip(*laps["cudrift"])],
            "eager": [1e3 * statistics.median(part) for part in zip(*laps["eager"])],
        }
        row["times"] = {"cudrift": last["seconds"]}  # here seconds
        for name, values in row["rounds_ms"].items():
            row["times"][name] = statistics.median(values) * STEPS / 1e3
        return row
    finally:
        for worker in workers.values():
            worker.end()


# ---- reporting


def markdown(lines):
    """A table that is readable as it is."""
    widths = [max(map(len, column)) for column in zip(*lines)]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |" for line in lines]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def digits(value):
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def table(results):
    lines = [["", "B, G, P, N, D", "cudrift ms", *(f"{name} ms" for name in PEERS.values()), "times faster"]]
    for letter, row in results["rows"].items():
        times = row["times"]
        cells = [digits(times[name]) if name in times else "" for name in ["cudrift", *PEERS]]
        if letter == "train":
            first = ["training", f"{STEPS} steps of 2048"]
            cells = [cell and f"{cell} s" for cell in cells]
        else:
            first = [letter, ", ".join(map(str, row["shape"]))]
        lines.append([*first, *cells, f"{row['faster']:.1f}"])
    return markdown(lines)


def table_of_insides(results):
    """The drift from inside the frameworks beside itself alone: medians over rounds."""
    lines = [["shape", "cudrift alone, ms", *(f"from {side[3:].replace('jax', 'JAX').replace('torch', 'PyTorch')}, ms" for side in INSIDE)]]
    for letter, row in results["rows"].items():
        times = row["times"]
        if letter != "train":
            beside = [f"{times[side]:.2f} ({times[side] / times['cudrift']:.2f}×)" for side in INSIDE]
            lines.append([letter, f"{times['cudrift']:.2f}", *beside])
    return markdown(lines)


def table_of_parts(row):
    """A step of the training, by its parts."""
    lines = [["part of a training step", "cudrift ms", "PyTorch eager ms", "times faster"]]
    ours, theirs = row["laps_ms"]["cudrift"], row["laps_ms"]["eager"]
    for name, own, other in zip([*LAPS, "together"], [*ours, sum(ours)], [*theirs, sum(theirs)]):
        lines.append([name, digits(own), digits(other), f"{other / own:.1f}"])
    return markdown(lines)


def caption(results):
    parts = [
        f"Medians of {results['rounds']} alternating rounds on {results['cpu']}, {results['threads']} threads",
        "forward plus gradient, f32, R = 0.2, 0.05, 0.02, against the fastest of the three",
        ", ".join(f"{name} {results['versions'][name]}" for name in ("jax", "torch")),
        "glibc told to keep freed memory, for every side" if results["malloc"] == "keep" else "stock glibc malloc",
        f"`{results['command']}`",
    ]
    notes = ["; ".join(parts) + "."]
    if "train" in results["rows"]:
        notes.append(
            f"Training is `cudrift train --data swiss-roll`, evaluations included; PyTorch's, without them, is "
            f"extrapolated from {PARTS * PEER_STEPS} steps; the parts are `cudrift train --profile`'s, medians of "
            "eager ones."
        )
    for letter, row in results["rows"].items():
        errors = row["error_against_f64"]
        off = [f"{PEERS[name]} {errors[name]:.0e}" for name in PEERS if errors.get(name, 0) > AGREE]
        if off:
            notes.append(f"On {letter} the error against f64, relative to the maximum, is: ")
            notes[-1] += ", ".join(off + [f"cudrift {errors['cudrift']:.0e}."])
    return " ".join(notes)


def rewrite_readme(text):
    readme = ROOT / "README.md"
    begin, end = "<!-- peers:begin -->", "<!-- peers:end -->"
    old = readme.read_text()
    if old.count(begin) != 1 or old.count(end) != 1:
        return note(f"README.md is left alone: it lacks the markers {begin} and {end}")
    head, rest = old.split(begin)
    readme.write_text(head + begin + "\n" + text + "\n" + end + rest.split(end)[1])


def draw(results, out):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rows = results["rows"]
    names = {"cudrift": "cudrift", **PEERS}
    colours = {"cudrift": "#b5482a", "jax": "#9aa7b1", "eager": "#c9c2b3", "compile": "#6f7d87"}
    figure, axes = plt.subplots(figsize=(9, 0.75 * len(rows) + 1.3), dpi=100)
    labels = []
    for at, (letter, row) in enumerate(rows.items()):
        times = row["times"]
        best = min(times[name] for name in PEERS if name in times)
        for slot, name in enumerate(names):
            if name in times:
                height = at + 0.2 * (slot - 1.5)
                label = None if at else names[name]
                axes.barh(height, best / times[name], 0.18, color=colours[name], label=label)
        end = (row["faster"], at - 0.3)
        axes.annotate(f"{row['faster']:.1f}×", end, (4, 0), textcoords="offset points", va="center", fontsize=9)
        labels.append("training" if letter == "train" else f"{letter}: " + "×".join(map(str, row["shape"])))
    axes.set_yticks(range(len(rows)), labels, fontsize=9)
    axes.invert_yaxis()
    axes.axvline(1, color="#444444", linewidth=0.8)
    where = f"{results['cpu']}, {results['threads']} threads"
    axes.set_xlabel(f"speed relative to the fastest of JAX and PyTorch, {where}", fontsize=9)
    axes.legend(frameon=False, fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_ylabel("B×G×P×N×D", fontsize=9)
    figure.tight_layout()
    figure.savefig(out)


def cpu_model():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def main():
    args = arguments()
    WORK.mkdir(parents=True, exist_ok=True)
    if os.environ.get("CUDRIFT_PEERS") != "inside":
        if os.getloadavg()[0] > 0.5:
            note("other programs are running; the numbers will be noisy")
        if not shutil.which(os.environ.get("CXX", "g++")):
            raise Stop("torch.compile needs g++; install it (on Debian: apt install g++) and run this again")
        python = environment(args)
        # From here on in the environment, for numpy and matplotlib.
        os.execve(python, [python, *sys.argv], {**os.environ, "CUDRIFT_PEERS": "inside"})
    cudrift_path = binary(args)
    if args.inside:
        library()
    equal_terms(args)
    cudrift = Cudrift(cudrift_path)
    versions = dict(line.strip().split("==") for line in PINS.open())
    options = [f"--shapes {','.join(args.shapes)}"] * (args.shapes != list(SHAPES)) + ["--no-train"] * args.no_train
    options += [f"--rounds {args.rounds}"] * (args.rounds != 5) + [f"--malloc {args.malloc}"] * (args.malloc != "keep")
    options += ["--inside"] * args.inside
    options += [f"--threads {args.threads}"] * (args.threads != 2)
    results = {
        "command": " ".join(["python3 benches/peers/run.py", *options]),
        "cpu": cpu_model(),
        "threads": args.threads,
        "malloc": args.malloc,
        "rounds": args.rounds,
        "versions": {**versions, "python": platform.python_version()},
        "rows": {},
    }
    refused = []
    for letter in args.shapes + ["train"] * (not args.no_train):
        try:
            row = training(cudrift, args) if letter == "train" else measure(letter, SHAPES[letter], cudrift, args)
        except Stop as reason:
            refused.append(str(reason))
            note(str(reason))
            continue
        if not args.only_check:
            times = row["times"]
            row["faster"] = min(times[name] for name in PEERS if name in times) / times["cudrift"]
            results["rows"][letter] = row
            print(table({"rows": {letter: row}}), flush=True)
    if results["rows"]:
        tables = [table(results)] + [table_of_parts(row) for row in results["rows"].values() if "laps_ms" in row]
        if args.inside:
            tables.append(table_of_insides(results))
        text = "\n\n".join([*tables, caption(results)])
        print("\n" + text)
        (WORK / "results.json").write_text(json.dumps(results, indent=1) + "\n")
        draw(results, WORK / "peers.png")
        if args.full and not refused and not args.no_readme:
            rewrite_readme(text)
            shutil.copy(WORK / "peers.png", ROOT / "docs" / "peers.png")
        else:
            note("README.md and docs/peers.png are left alone; see results.json and peers.png in target/peers")
    return 1 if refused else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Stop as reason:
        note(f"run.py: {reason}")
        sys.exit(1)
    except KeyboardInterrupt:
        note("run.py: interrupted; nothing was written")
        sys.exit(1)
