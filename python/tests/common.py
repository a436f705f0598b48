"""Golden cases, and how results are judged."""

import time
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
CASES = sorted(path for path in (ROOT / "tests/golden").glob("*.npz") if not path.name.startswith("ms_"))
assert len(CASES) == 10, CASES
OPTIONAL = ("neg", "weight_gen", "weight_pos", "weight_neg")


class Case:
    """A golden case: inputs by the official names, None where they are not there, and what is expected, in f64."""

    def __init__(self, path, dtype=np.float32):
        with np.load(path) as file:
            arrays = dict(file)
        self.name = path.stem
        self.gen, self.pos = arrays["gen"].astype(dtype), arrays["pos"].astype(dtype)
        self.neg = arrays["neg"].astype(dtype) if "neg" in arrays else None
        for name in ("weight_gen", "weight_pos", "weight_neg"):
            setattr(self, name, arrays[name].astype(np.float32) if name in arrays else None)
        self.temperatures = tuple(float(r) for r in arrays["R_list"])
        self.want = {key[8:]: value for key, value in arrays.items() if key.startswith("ref_f64_")}

    @property
    def arrays(self):
        """In the order of the official `drift_loss`."""
        return [self.gen, self.pos, self.neg, self.weight_gen, self.weight_pos, self.weight_neg]


def error(got, want):
    """The largest error, as a share of the largest value that is expected; NaN is infinite."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape, (got.shape, want.shape)
    worst = np.abs(got - want).max(initial=0.0)
    if not np.isfinite(worst):
        return float("inf")
    return 0.0 if worst == 0 else worst / np.abs(want).max()


class Test(unittest.TestCase):
    def near(self, got, want, bound, what=""):
        self.assertLessEqual(error(got, want), bound, what)

    def refused(self, says, call, *arguments, kind=ValueError, **named):
        """A call is refused by one line that says this."""
        with self.assertRaises(kind) as refusal:
            call(*arguments, **named)
        self.assertIn(says, str(refusal.exception))


def pages():
    """Pages of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1])


def growth(call, blocks=4, count=5000):
    """By how many pages so many calls make the process grow, in the best of some blocks: what leaks does so in each."""
    least = float("inf")
    for _ in range(blocks):
        before = pages()
        for _ in range(count):
            call()
        least = min(least, pages() - before)
    return least


def microseconds(call, count=10000):
    """What a call takes."""
    start = time.perf_counter()
    for _ in range(count):
        call()
    return 1e6 * (time.perf_counter() - start) / count


def in_threads(work, count):
    """What `work(0)` to `work(count - 1)` give, by as many threads."""
    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(work, range(count)))


def samples(seed, shape, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)
