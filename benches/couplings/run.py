#!/usr/bin/env python3
"""Gaussian, Laplace and Sinkhorn beside one another: toy targets, temperatures, and how fast modes decay."""

import argparse
import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
WORK = ROOT / "target" / "couplings"
DOCS = ROOT / "docs" / "couplings"
PINS = ["matplotlib==3.11.2", "numpy==2.4.6", "scikit-learn==1.9.1"]
HELP = """\
targets       each coupling on the four targets in the plane, three seeds: SWD and MMD after the notebook's training,
              beside what two draws of the data have
temperatures  each coupling on the digits at temperatures from 0.01 to 10, the paper's dialect
annealing     the rates at which Fourier modes of a density decay, measured with `cudrift field` on a fine grid, and the
              times that follow at a fixed bandwidth and at one that falls

Prints the tables as they stand in docs/couplings, where it also writes the picture. The first run installs NumPy,
matplotlib and scikit-learn into target/couplings."""
LEAST = 1e-4  # rates below are noise of f32
TARGETS = ["swiss-roll", "checkerboard", "two-moons", "ring"]
COUPLINGS = {
    "Laplace": ["--kernel", "laplace"],
    "Gaussian": ["--kernel", "gaussian"],
    "Sinkhorn": ["--kernel", "laplace", "--coupling", "sinkhorn"],
}


def note(text):
    print(text, file=sys.stderr, flush=True)


def table(header, rows):
    print("| " + " | ".join(header) + " |")
    print("|" + "|".join("---" for _ in header) + "|")
    for row in rows:
        print("| " + " | ".join(row) + " |", flush=True)


class Cudrift:
    def __init__(self):
        if subprocess.run(["cargo", "build", "--release", "-p", "cudrift-cli"], cwd=ROOT).returncode != 0:
            raise SystemExit("cargo build failed for the reason above")
        self.path = str(ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "release" / "cudrift")

    def run(self, *words):
        done = subprocess.run([self.path, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if done.returncode != 0:
            raise SystemExit(f"cudrift {words[0]} failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
        return done.stdout

    def train(self, *words):
        """SWD, that of two draws, MMD², that of two draws."""
        folder = WORK / "run"
        shutil.rmtree(folder, ignore_errors=True)
        shown = self.run("train", "--out", folder, "--backend", "cpu", *words)
        number = r"(-?\d[\d.e-]*|NaN|nan|inf)"
        found = re.search(rf"SWD {number} \(two draws of the data: {number}\), MMD² {number} \({number}\)", shown)
        values = [float(v) for v in found.groups()]
        note(" ".join(map(str, words)) + f": SWD {values[0]:.4f} ({values[1]:.4f}), MMD² {values[2]:.1e} ({values[3]:.1e})")
        return values


def targets(cudrift, args):
    rows = []
    for target in TARGETS:
        cells = []
        for name, words in COUPLINGS.items():
            temperature = {"Gaussian": 0.07}.get(name, 0.05)
            runs = [
                cudrift.train("--data", target, "--temperatures", temperature, "--seed", seed, "--steps", args.steps, *words)
                for seed in range(args.seeds)
            ]
            swd, floor, mmd, mmd_floor = zip(*runs)
            mean = lambda values: sum(values) / len(values)
            cells.append(f"{mean(swd):.4f} ({min(swd):.4f} to {max(swd):.4f}), {mean(mmd):.1e}")
        rows.append([target, *cells, f"{mean(floor):.4f}, {mean(mmd_floor):.1e}"])
    print(f"\nSWD, mean (and extremes) of {args.seeds} seeds, and mean MMD², after {args.steps} steps:\n")
    table(["target", *COUPLINGS, "two draws of the data"], rows)


def temperatures(cudrift, args):
    import numpy as np
    from sklearn.datasets import load_digits

    digits = WORK / "digits.npz"
    np.savez(digits, images=load_digits().images.astype(np.float32) / 8 - 1)
    rows, floor = [], None
    for temperature in [0.01, 0.03, 0.1, 0.3, 1, 3, 10]:
        cells = []
        for words in COUPLINGS.values():
            swd, floor, mmd, mmd_floor = cudrift.train(
                "--data", digits, "--preset", "paper", "--temperatures", temperature, "--batch", 512, "--steps",
                args.steps // 4, *words,
            )
            cells.append(f"{swd:.3f}, {mmd:.1e}")
        rows.append([str(temperature), *cells])
    print(f"\nSWD and MMD² on the digits after {args.steps // 4} steps; two draws of the data have {floor:.3f}, {mmd_floor:.1e}:\n")
    table(["temperature", *COUPLINGS], rows)


def rate(cudrift, kernel, z):
    """How fast the mode K = z of a density decays at bandwidth 1, from the field at one period of it."""
    import numpy as np

    # Fast modes hardly move the kernel's mean, so that they may be high; in f32 they must.
    height, width = 0.02 if z < 2 else 0.3, min(math.pi / z, 2.0)
    reach, step = width + (10.0 if kernel == "gaussian" else 40.0), min(0.05, 2 * math.pi / z / 24)
    grid = np.arange(-reach, reach, step)[:, None]
    x = np.linspace(-width, width, 33)[:, None]
    case, out = WORK / "mode.npz", WORK / "field.npz"
    weights = 1 + height * np.cos(z * grid[:, 0])
    np.savez(case, x=x.astype(np.float32), p=grid.astype(np.float32), q=grid.astype(np.float32),
             weight_q=weights.astype(np.float32))
    cudrift.run("field", "--in", case, "--out", out, "--kernel", kernel, "--bandwidth", 1, "--backend", "cpu")
    drift, wave = np.load(out)["drift"][:, 0].astype(float), np.sin(z * x[:, 0])
    # dh/dt cos(Kx) = -dV/dx, linearised.
    return float(z * (drift @ wave) / (wave @ wave) / height)


def annealing(cudrift, args):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np

    fall, folds = 1 / 4, 3.0  # sigma = exp(-t / 4), a decay of e^-4 in all; until a mode is e^-3 of what it was
    z = np.geomspace(0.02, 128, 45)
    rates = {}
    for kernel, exact in [("gaussian", lambda s: s * np.exp(-s / 2)), ("laplace", lambda s: 2 * s / (1 + s) ** 2)]:
        rates[kernel] = np.array([rate(cudrift, kernel, v) for v in z])
        wanted = exact(z * z)
        seen = wanted > LEAST
        worst = np.abs(rates[kernel][seen] / wanted[seen] - 1).max()
        note(f"{kernel}: rates of {LEAST} and more within {worst:.1e} of those of spec 8.1")
        rates[kernel] = np.where(rates[kernel] > LEAST, rates[kernel], 0.0)
    waves = [1, 2, 4, 6, 8, 16, 32, 64]

    def fixed(kernel, wave):
        """At bandwidth 1."""
        value = np.interp(math.log(wave), np.log(z), rates[kernel])
        return folds / value if value > LEAST else math.inf

    def annealed(kernel, wave):
        t, decay, step = 0.0, 0.0, 1e-3
        while decay < folds and t < 60:
            at = wave * math.exp(-fall * t)
            decay += step * max(0.0, float(np.interp(math.log(at), np.log(z), rates[kernel], left=0.0)))
            t += step
        return t if decay >= folds else math.inf

    times = {(kernel, how.__name__): [how(kernel, wave) for wave in waves] for kernel in rates for how in (fixed, annealed)}
    shown = lambda t: "-" if math.isinf(t) else f"{t:.1f}" if t < 1e4 else f"{t:.0e}"
    print("\nTime until a mode K of the density is e^-3 of what it was, bandwidth 1, and exp(-t/4) where it falls:\n")
    table(
        ["K", "Gaussian, fixed", "Gaussian, falling", "Laplace, fixed", "Laplace, falling"],
        [[str(wave), *(shown(times[key][k]) for key in times)] for k, wave in enumerate(waves)],
    )
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for kernel, color in [("gaussian", "tab:blue"), ("laplace", "tab:orange")]:
        axes[0].loglog(z, np.where(rates[kernel] > 0, rates[kernel], np.nan), color=color, label=kernel.capitalize())
        for how, style in [("fixed", "--"), ("annealed", "-")]:
            axes[1].loglog(waves, times[kernel, how], style, color=color, marker="o", ms=3,
                           label=f"{kernel.capitalize()}, {'falling' if how == 'annealed' else how}")
    axes[0].set(xlabel="K times bandwidth", ylabel="rate of decay", ylim=(LEAST, 2))
    axes[1].set(xlabel="mode K", ylabel="time to e^-3", ylim=(1, 1e5))
    for axis in axes:
        axis.legend(frameon=False)
        axis.grid(alpha=0.3)
    DOCS.mkdir(parents=True, exist_ok=True)
    figure.savefig(DOCS / "annealing.png", dpi=110)
    note(f"{(DOCS / 'annealing.png').relative_to(ROOT)} is written")


PARTS = {"targets": targets, "temperatures": temperatures, "annealing": annealing}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="which tables (default: all)")
    parser.add_argument("--steps", type=int, default=2000, help="steps of a training in the plane (default: 2000)")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of each (default: 3)")
    args = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    python, done = WORK / "venv" / "bin" / "python", WORK / "installed.json"
    if Path(sys.prefix) != WORK / "venv":
        if not done.exists() or json.loads(done.read_text()) != PINS:
            note("installing NumPy, matplotlib and scikit-learn into target/couplings (once)")
            subprocess.run([sys.executable, "-m", "venv", str(WORK / "venv")], check=True)
            subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PINS], check=True)
            done.write_text(json.dumps(PINS))
        os.execv(python, [str(python), *sys.argv])
    cudrift = Cudrift()
    for part in args.parts or PARTS:
        PARTS[part](cudrift, args)


if __name__ == "__main__":
    main()
