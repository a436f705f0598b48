"""A call as C has it, for whatever has addresses, strides and extents."""

from __future__ import annotations

import ctypes
import functools
import threading
from ctypes import byref, c_int64
from typing import NamedTuple, Optional, Sequence

from . import _abi
from ._spec import Spec, native

DTYPES = {"float32": _abi.F32, "float16": _abi.F16, "bfloat16": _abi.BF16, "float64": _abi.F64}
NAMES = ("gen", "neg", "pos")


class Block(NamedTuple):
    """An array somewhere: samples [B, n, D] or weights [B, n]."""

    address: int
    shape: Sequence[int]
    strides: Optional[Sequence[int]]
    """In elements; None without gaps."""
    dtype: str


class Call:
    """The samples and weights of a call, compared with one another.

    `samples` are gen, neg, pos and `weights` theirs, each None where it is not there. Whoever owns the memory outlives this.
    """

    def __init__(self, samples: Sequence[Optional[Block]], weights: Sequence[Optional[Block]]):
        gen, neg, pos = samples
        for name, block in zip(NAMES, samples):
            if block is not None and len(block.shape) != 3:
                raise _abi.InvalidError(
                    f"cudrift: {name} has shape {list(block.shape)}, expected [B, n, D]; one group of x is x[None]"
                )
            if block is not None and block.dtype != gen.dtype:
                raise _abi.InvalidError(f"cudrift: {name} is {block.dtype} and gen {gen.dtype}; convert one of them")
        if gen.dtype not in DTYPES:
            raise _abi.InvalidError(f"cudrift: gen is {gen.dtype}, expected one of {', '.join(DTYPES)}")
        groups, generated, dim = gen.shape
        counts = [0 if block is None else block.shape[1] for block in samples]
        for name, block, count in zip(NAMES, samples, counts):
            if block is not None and tuple(block.shape) != (groups, count, dim):
                raise _abi.InvalidError(
                    f"cudrift: {name} has shape {list(block.shape)}, expected [{groups}, n, {dim}] as gen's, {list(gen.shape)}"
                )
        for name, block, count in zip(NAMES, weights, counts):
            if block is None:
                continue
            if block.dtype != "float32" or block.strides is not None or tuple(block.shape) != (groups, count):
                raise _abi.InvalidError(
                    f"cudrift: weight_{name} is {block.dtype} {list(block.shape)}, expected float32 [{groups}, {count}] "
                    "without gaps"
                )
        self.dtype = gen.dtype
        self.groups, self.generated, self.dim = groups, generated, dim
        self.extents = (groups, generated, counts[1], counts[2], dim)
        self.shape = _abi.Shape(*self.extents)
        self.inputs = _abi.Inputs()
        self._strides = []  # what the inputs point to
        for to, block in zip((self.inputs.generated, self.inputs.negatives, self.inputs.positives), samples):
            if block is not None:
                to.data = block.address
                if block.strides is not None:
                    strides = (c_int64 * 3)(*block.strides)
                    self._strides.append(strides)
                    to.strides = ctypes.cast(strides, ctypes.POINTER(c_int64))
        for to, block in zip(("generated", "negatives", "positives"), weights):
            if block is not None and block.address:
                setattr(self.inputs, f"weight_{to}", block.address)

    def run(self, spec: Spec, outputs: _abi.Outputs) -> None:
        """The drift on the CPU."""
        _abi.lib.cudrift_drift(
            byref(native(spec)), byref(self.shape), DTYPES[self.dtype], byref(self.inputs), byref(outputs)
        )


class Plan:
    """Phases on the CPU, whose sums workers add up in between. One thread at a time goes through them."""

    def __init__(self, spec: Spec, shape: tuple, dtype: str):
        self._handle = ctypes.c_void_p()
        _abi.lib.cudrift_plan_new(
            byref(native(spec)), byref(_abi.Shape(*shape)), DTYPES[dtype], byref(self._handle)
        )

    def __del__(self):
        if self._handle:
            _abi.lib.cudrift_plan_free(self._handle)

    def distances(self, call: Call) -> _abi.ScaleSums:
        sums = _abi.ScaleSums()
        _abi.lib.cudrift_plan_distances(self._handle, byref(call.inputs), byref(sums))
        return sums

    def coefficients(self, call: Call, scale: _abi.ScaleSums) -> _abi.ForceSums:
        sums = _abi.ForceSums()
        _abi.lib.cudrift_plan_coefficients(self._handle, byref(call.inputs), byref(scale), byref(sums))
        return sums

    def contraction(
        self, call: Call, scale: _abi.ScaleSums, force: _abi.ForceSums, outputs: _abi.Outputs
    ) -> None:
        inputs = byref(call.inputs)
        _abi.lib.cudrift_plan_contraction(self._handle, inputs, byref(scale), byref(force), byref(outputs))


class _Plans(threading.local):
    def __init__(self):
        self.of = functools.lru_cache(maxsize=8)(Plan)


_plans = _Plans()


def plan_of(spec: Spec, call: Call) -> Plan:
    """This thread's plan for such calls, kept for the next."""
    return _plans.of(spec, call.extents, call.dtype)
