#!/usr/bin/env python3
"""Times fields and Sinkhorn drifts beside the public implementations of the same: in turns, after checking agreement."""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
WORK = ROOT / "target" / "peers-fields"
PINS = HERE / "fields-requirements.txt"
POINTS, ITERATIONS = 4096, 20
HELP = """\
n = m = 4096 points, in 2, 64 and 512 dimensions, f32. Fields: mean shifts and kernel scores of two sets at n queries,
Laplace kernel. Sinkhorn: two plans with the cost |x - y|, 20 iterations in logarithms, and the difference of their
barycentres. Every side is checked against NumPy in f64, then all take turns; a number is a median over rounds.

Writes target/peers-fields/results.json and prints a table. The first run installs PyTorch, KeOps, JAX and OTT into
target/peers-fields (several GB). Leave the machine alone meanwhile."""


def note(text):
    print(text, file=sys.stderr, flush=True)


# ---- f64


def distances(x, y):
    import numpy as np

    q = (x * x).sum(1)[:, None] + (y * y).sum(1)[None, :] - 2 * x @ y.T
    return np.sqrt(np.maximum(q, 0))


def true_field(x, y, h):
    """Mean shift and score, in f64."""
    import numpy as np

    r = distances(x, y)
    k = np.exp(-(r - r.min(1, keepdims=True)) / h)
    w = k / k.sum(1, keepdims=True)
    shift = w @ y - x
    b = np.where(r > 0, w / np.maximum(r, 1e-300) / h, 0)
    return shift, b @ y - b.sum(1, keepdims=True) * x


def true_barycentre(x, y, epsilon):
    import numpy as np
    from numpy import logaddexp

    def lse(a, axis):
        most = a.max(axis, keepdims=True)
        return np.log(np.exp(a - most).sum(axis)) + most.squeeze(axis)

    m = -distances(x, y) / epsilon
    v = np.zeros(len(y))
    for _ in range(ITERATIONS):
        u = -lse(m + v[None, :], 1)
        v = -lse(m + u[:, None], 0)
    p = np.exp(m + v[None, :] - lse(m + v[None, :], 1)[:, None])
    return p @ y


# ---- the sides, each in a process of its own


def keops_field(x, p, q, h):
    import torch
    from pykeops.torch import LazyTensor

    def side(x, y):
        a, b = LazyTensor(x[:, None, :].contiguous()), LazyTensor(y[None, :, :].contiguous())
        r = ((a - b) ** 2).sum(-1).sqrt()
        far = (-r / h).max(1)
        k = (-(r / h) - LazyTensor(far[:, None, :])).exp()
        mass = k.sum(1)
        shift = (k * (b - a)).sum(1) / mass
        score = ((k * (((a - b) ** 2).sum(-1) + 1e-12).rsqrt() / h) * (b - a)).sum(1) / mass
        return shift, score

    return lambda: [t for y in (p, q) for t in side(x, y)]


def torch_field(x, p, q, h):
    import torch

    def side(x, y):
        r = torch.cdist(x, y)
        w = torch.softmax(-r / h, 1)
        b = torch.where(r > 0, w / (r * h), torch.zeros_like(r))
        return w @ y - x, b @ y - b.sum(1, keepdim=True) * x

    return lambda: [t for y in (p, q) for t in side(x, y)]


def jax_field(x, p, q, h):
    import jax
    import jax.numpy as jnp

    def side(x, y):
        q = (x * x).sum(1)[:, None] + (y * y).sum(1)[None, :] - 2 * x @ y.T
        r = jnp.sqrt(jnp.maximum(q, 0))
        w = jax.nn.softmax(-r / h, 1)
        b = jnp.where(r > 0, w / jnp.where(r > 0, r * h, 1), 0)
        return w @ y - x, b @ y - b.sum(1, keepdims=True) * x

    both = jax.jit(lambda x, p, q: side(x, p) + side(x, q))
    return lambda: jax.block_until_ready(both(x, p, q))


def ott_sinkhorn(x, p, q, epsilon):
    import jax
    from ott.geometry import costs, pointcloud
    from ott.problems.linear import linear_problem
    from ott.solvers.linear import sinkhorn

    n = x.shape[0]
    solver = sinkhorn.Sinkhorn(
        threshold=-1.0, min_iterations=ITERATIONS, max_iterations=ITERATIONS, inner_iterations=ITERATIONS
    )

    def barycentre(x, y):
        geometry = pointcloud.PointCloud(x, y, cost_fn=costs.Euclidean(), epsilon=epsilon)
        out = solver(linear_problem.LinearProblem(geometry))
        # Columns last, as ours; then rows are made 1.
        g = out.g
        logits = (g[None, :] - geometry.cost_matrix) / epsilon
        return jax.nn.softmax(logits, 1) @ y

    both = jax.jit(lambda x, p, q: barycentre(x, p) - barycentre(x, q))
    return lambda: [jax.block_until_ready(both(x, p, q))]


def torch_sinkhorn(x, p, q, epsilon):
    import torch

    def barycentre(x, y):
        m = torch.cdist(x, y) / -epsilon
        v = torch.zeros(len(y))
        for _ in range(ITERATIONS):
            u = -torch.logsumexp(m + v[None, :], 1)
            v = -torch.logsumexp(m + u[:, None], 0)
        return torch.softmax(m + v[None, :], 1) @ y

    return lambda: [barycentre(x, p) - barycentre(x, q)]


def jax_sinkhorn(x, p, q, epsilon):
    import jax
    import jax.numpy as jnp

    def barycentre(x, y):
        q = (x * x).sum(1)[:, None] + (y * y).sum(1)[None, :] - 2 * x @ y.T
        m = jnp.sqrt(jnp.maximum(q, 0)) / -epsilon

        def step(_, v):
            u = -jax.nn.logsumexp(m + v[None, :], 1)
            return -jax.nn.logsumexp(m + u[:, None], 0)

        v = jax.lax.fori_loop(0, ITERATIONS, step, jnp.zeros(len(y)))
        return jax.nn.softmax(m + v[None, :], 1) @ y

    both = jax.jit(lambda x, p, q: barycentre(x, p) - barycentre(x, q))
    return lambda: [jax.block_until_ready(both(x, p, q))]


def geomloss_sinkhorn(x, p, q, epsilon):
    """Its own schedule: annealed, symmetric updates; as many of them. It is not asked to agree beyond a percent."""
    import torch
    from geomloss import SamplesLoss

    diameter = float((x.max(0)[0].maximum(p.max(0)[0]) - x.min(0)[0].minimum(p.min(0)[0])).norm())
    scaling = (epsilon / diameter) ** (1 / (ITERATIONS - 2))
    loss = SamplesLoss("sinkhorn", p=1, blur=epsilon, scaling=scaling, debias=False, potentials=True, diameter=diameter,
                       backend="tensorized", cost=lambda x, y: torch.cdist(x, y))

    def barycentre(x, y):
        _, g = loss(x, y)
        return torch.softmax((g.reshape(1, -1) - torch.cdist(x, y)) / epsilon, 1) @ y

    return lambda: [barycentre(x, p) - barycentre(x, q)]


SIDES = {
    "field": {"KeOps": keops_field, "PyTorch": torch_field, "JAX jit": jax_field},
    "sinkhorn": {
        "OTT-JAX": ott_sinkhorn, "JAX jit": jax_sinkhorn, "PyTorch": torch_sinkhorn, "GeomLoss": geomloss_sinkhorn,
    },
}
# Their own order of updates and schedule agree with the formulas at convergence only.
LOOSE = {"OTT-JAX": 1.0, "GeomLoss": 1.0}


def worker(what, side, case, scale, threads):
    import numpy as np

    arrays = [np.load(case)[key] for key in ("x", "p", "q")]
    if "JAX" in side:
        import jax.numpy as jnp

        arrays = [jnp.asarray(a) for a in arrays]
    else:
        import torch

        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        arrays = [torch.from_numpy(a) for a in arrays]
    work = SIDES[what][side](*arrays, scale)
    out = [np.asarray(a) for a in work()]
    np.savez(WORK / "worker.npz", *out)
    print("ready", flush=True)
    for line in sys.stdin:
        runs = []
        for _ in range(int(line)):
            start = time.perf_counter()
            work()
            runs.append(time.perf_counter() - start)
        print(json.dumps(statistics.median(runs)), flush=True)


class Peer:
    def __init__(self, what, side, case, scale, threads):
        self.log = WORK / "worker.log"
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--worker", what, side, str(case), str(scale), str(threads)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log.open("w"), text=True,
        )
        # KeOps says what it compiles.
        if "ready\n" not in iter(self.process.stdout.readline, ""):
            said = (self.log.read_text().strip().splitlines() or ["no message"])[-1]
            if "out of memory" in said.lower():
                raise MemoryError(said)
            raise SystemExit(f"{side} ended early: {said}")

    def time(self, runs):
        print(runs, file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def ours(cudrift, what, case, scale, runs):
    command = [cudrift, "field", "--in", str(case), "--out", str(WORK / "ours.npz"), "--kernel", "laplace"]
    command += ["--bandwidth", str(scale), "--backend", "cpu", "--runs", str(runs)]
    if what == "sinkhorn":
        command += ["--coupling", "sinkhorn", "--sinkhorn-iterations", str(ITERATIONS)]
    shown = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return float(re.match(r"(\d+\.\d+) ms", shown)[1]) / 1e3 if runs else 0.0


def measure(what, dim, cudrift, args):
    import numpy as np

    rng = np.random.default_rng(dim)
    points = lambda shift: (rng.standard_normal((POINTS, dim)) + shift).astype(np.float32)
    case = WORK / "case.npz"
    x, p, q = points(0.0), points(0.5), points(0.0)
    np.savez(case, x=x, p=p, q=q)
    # Distances are near sqrt(2 D).
    scale = (0.1 if what == "field" else 0.05) * (2 * dim) ** 0.5
    wide = [a.astype(np.float64) for a in (x, p, q)]
    if what == "field":
        want = [t for y in wide[1:] for t in true_field(wide[0], y, scale)]
        keys = ["ms_p", "score_p", "ms_q", "score_q"]
    else:
        want = [true_barycentre(wide[0], wide[1], scale) - true_barycentre(wide[0], wide[2], scale)]
        keys = ["drift"]
    error = lambda got: max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(got, want))
    ours(cudrift, what, case, scale, 0)
    own = np.load(WORK / "ours.npz")
    errors = {"cudrift": error([own[key] for key in keys])}
    peers = {}
    for side in SIDES[what]:
        try:
            peers[side] = Peer(what, side, case, scale, args.threads)
        except MemoryError as refused:
            note(f"{what} {dim}: {side} is left out: {refused}")
            continue
        errors[side] = error(np.load(WORK / "worker.npz").values())
    note(f"{what} {dim}: error against f64: " + ", ".join(f"{side} {e:.1e}" for side, e in errors.items()))
    for side, value in errors.items():
        if not value <= LOOSE.get(side, 1e-4 if side == "cudrift" else 1e-2):
            raise SystemExit(f"{what} in {dim} dimensions is not reported: {side} is {value:.1e} off f64")
    once = {side: peer.time(1) for side, peer in peers.items()}
    once["cudrift"] = ours(cudrift, what, case, scale, 1)
    rounds = {side: [] for side in ["cudrift", *peers]}
    for turn in range(args.rounds):
        for side in rounds:
            runs = max(1, min(20, round(1.0 / once[side])))
            seconds = ours(cudrift, what, case, scale, runs) if side == "cudrift" else peers[side].time(runs)
            rounds[side].append(seconds)
            note(f"{what} {dim}  round {turn + 1}/{args.rounds}  {side:8} {1e3 * seconds:9.2f} ms")
    for peer in peers.values():
        peer.end()
    return {"what": what, "dim": dim, "errors": errors, "ms": {s: 1e3 * statistics.median(v) for s, v in rounds.items()}}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dims", default="2,64,512", help="numbers of dimensions (default: %(default)s)")
    parser.add_argument("--what", default="field,sinkhorn", help="what is timed (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds (default: 3)")
    parser.add_argument("--threads", type=int, default=2, help="threads of every side (default: 2)")
    args = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    python = WORK / "venv" / "bin" / "python"
    if Path(sys.prefix) != WORK / "venv":
        done = WORK / "installed.txt"
        if not python.exists() or not done.exists() or done.read_text() != PINS.read_text():
            note("installing PyTorch, KeOps, JAX and OTT into target/peers-fields (once, some minutes)")
            subprocess.run([sys.executable, "-m", "venv", str(WORK / "venv")], check=True)
            subprocess.run([str(python), "-m", "pip", "install", "--quiet", "-r", str(PINS)], check=True)
            done.write_text(PINS.read_text())
        os.execv(python, [str(python), *sys.argv])
    subprocess.run(["cargo", "build", "--release", "-p", "cudrift-cli"], cwd=ROOT, check=True)
    cudrift = str(ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "release" / "cudrift")
    if hasattr(os, "sched_setaffinity"):  # this is what limits JAX
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])
    for name in ("RAYON_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(args.threads)
    # glibc keeps freed memory, on every side: otherwise page faults cost the dense ones up to half their time.
    os.environ.update(MALLOC_MMAP_THRESHOLD_=str(1 << 32), MALLOC_TRIM_THRESHOLD_=str(1 << 33))
    os.environ["MALLOC_TOP_PAD_"] = str(1 << 28)
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    rows = [
        measure(what, int(dim), cudrift, args) for what in args.what.split(",") for dim in args.dims.split(",")
    ]
    (WORK / "results.json").write_text(json.dumps(rows, indent=1) + "\n")
    for row in rows:
        fastest = min((ms, side) for side, ms in row["ms"].items() if side != "cudrift")
        cells = ", ".join(f"{side} {ms:.1f}" for side, ms in row["ms"].items())
        print(f"{row['what']:8} D = {row['dim']:4}: {cells} ms; {fastest[0] / row['ms']['cudrift']:.2f} times {fastest[1]}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        what, side, case, scale, threads = sys.argv[2:]
        worker(what, side, case, float(scale), int(threads))
    else:
        main()
