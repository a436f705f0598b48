"""`python -m cudrift.doctor`: what this machine offers cudrift, and what to do about what is missing."""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import sys

import numpy as np

import cudrift
from cudrift import _abi, cuda


def check() -> float:
    """The largest error of a small drift by the vector kernels against the f64 reference, as a share of the largest value."""
    numbers = np.random.default_rng(0)
    gen, pos = numbers.standard_normal((2, 3, 16, 8))
    exact = cudrift.drift(gen, pos).gradient
    got = cudrift.drift(gen.astype(np.float32), pos.astype(np.float32)).gradient
    return float(np.abs(got - exact).max() / np.abs(exact).max())


def framework(name: str, module: str, wanted: str) -> str:
    """Whether a framework is there, and works with cudrift."""
    try:
        version = importlib.import_module(name).__version__
    except ImportError:
        return f"not installed; `pip install {wanted}` for cudrift.{name}"
    try:
        importlib.import_module(module)
    except Exception as error:  # whatever its import raises is the answer
        return f"{version}, but {module} cannot be imported: {error}"
    return f"{version}, {module} works with it"


def device() -> str:
    try:
        gpu = cuda.probe()
    except cudrift.Error as error:
        return str(error)
    kind = "the simulator, " if gpu.simulated else ""
    capability, driver = ".".join(map(str, gpu.capability)), ".".join(map(str, gpu.driver))
    return f"{kind}{gpu.name}, {gpu.memory >> 20} MiB, compute capability {capability}, driver for CUDA {driver}"


def main() -> int:
    """Prints what is there; the exit status is 1 where results are wrong."""
    argparse.ArgumentParser(prog="python -m cudrift.doctor", description=__doc__).parse_args()
    error = check()
    right = error < 1e-5
    threads = os.environ.get("RAYON_NUM_THREADS") or len(os.sched_getaffinity(0))
    for name, text in {
        "cudrift": f"{cudrift.__version__}, {_abi.path()}",
        "processor": f"{platform.machine()}, {_abi.lib.cudrift_instruction_set().decode()}, {threads} threads",
        "self check": f"within {error:.0e} of the reference" if right else f"WRONG by {error:.0e}: please report this",
        "device": device(),
        "numpy": np.__version__,
        "torch": framework("torch", "cudrift.torch", "torch"),
        "jax": framework("jax", "cudrift.jax", "jax"),
        "python": sys.version.split()[0],
    }.items():
        print(f"{name + ':':12} {text}")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
