"""The drift of NumPy's arrays."""

from __future__ import annotations

from typing import Mapping, NamedTuple, Optional

import numpy as np

from . import _abi
from ._call import Block, Call
from ._spec import Spec, resolve


class Drift(NamedTuple):
    """The result of `drift`. Arrays that were not asked for are None."""

    loss: Optional[np.ndarray]
    """[B]: mean over samples and coordinates of (gen / sigma - goal)^2."""
    gradient: Optional[np.ndarray]
    """[B, G, D]: of the sum of the losses by gen, with goal and sigma held."""
    goal: Optional[np.ndarray]
    """[B, G, D]: gen / sigma + force, the frozen target of the regression."""
    force: Optional[np.ndarray]
    """[B, G, D]: the drift, in units of the scaled coordinates."""
    scale: float
    """The mean distance."""
    sigma: float
    """What coordinates are divided by."""
    loss_r: np.ndarray
    """[R]: the mean square of each temperature's force. What to watch during training."""
    marginal_error: np.ndarray
    """[R]: of Sinkhorn couplings, how near the plans came to their marginals."""
    iterations: np.ndarray
    """[R]: and after how many iterations."""
    nonfinite: int
    """How many input coordinates are NaN or infinite; where it is not 0, results that they reach are NaN."""


# What numpy.dtype.name takes ten microseconds to say.
_NAMES = {np.dtype(name): name for name in ("float32", "float16", "float64")}
_ARRAYS = ("loss", "gradient", "goal", "force")


def _block(name, array, weight=False):
    """The array's block, and what owns its memory."""
    if array is None:
        return None, None
    if not isinstance(array, np.ndarray):
        raise _abi.InvalidError(f"cudrift: {name} is {type(array).__name__}, expected numpy.ndarray")
    if weight:
        array = np.ascontiguousarray(array, dtype=np.float32)
    if not array.flags.aligned:
        array = array.copy()
    size, strides = array.dtype.itemsize, None
    if not array.dtype.isnative:
        raise _abi.InvalidError(f"cudrift: {name} is {array.dtype.str}, whose bytes are in another order than the machine's")
    if not array.flags.c_contiguous:
        if any(stride % size for stride in array.strides):
            array = np.ascontiguousarray(array)
        else:
            strides = [stride // size for stride in array.strides]
    return Block(array.__array_interface__["data"][0], array.shape, strides, _NAMES.get(array.dtype) or array.dtype.name), array


def drift(
    gen: np.ndarray,
    pos: np.ndarray,
    neg: Optional[np.ndarray] = None,
    *,
    weight_gen: Optional[np.ndarray] = None,
    weight_pos: Optional[np.ndarray] = None,
    weight_neg: Optional[np.ndarray] = None,
    spec: Spec | str | None = None,
    temperatures=None,
    kernel: Optional[str] = None,
    out: Optional[Mapping[str, np.ndarray]] = None,
) -> Drift:
    """The drift of generated samples `gen` [B, G, D] towards `pos` [B, P, D], away from one another and from `neg` [B, N, D].

    Samples are float32, float16, bfloat16 (of ml_dtypes) or float64, all of one type, of any strides; those without gaps are
    not copied. float64 goes to the reference, which is exact and slow. Weights [B, n] are 1 where they are None.

    `spec` is a `Spec` or a preset's name (official where it is None); `temperatures` and `kernel` change it.

    `out` maps some of loss [B], gradient, goal and force [B, G, D] to arrays without gaps that the results are written to,
    float32 (float64 for float64 samples); then only those are computed. Without it all four are new arrays.

    Raises `InvalidError` (a ValueError) for shapes, types and values that cannot be.
    """
    spec = resolve(spec, temperatures, kernel)
    samples = [_block(name, array) for name, array in (("gen", gen), ("neg", neg), ("pos", pos))]
    weights = [
        _block(name, array, weight=True)
        for name, array in (("weight_gen", weight_gen), ("weight_neg", weight_neg), ("weight_pos", weight_pos))
    ]
    if samples[0][0] is None or samples[2][0] is None:
        raise _abi.InvalidError("cudrift: gen and pos are needed")
    call = Call([block for block, _ in samples], [block for block, _ in weights])
    number = np.float64 if call.dtype == "float64" else np.float32
    shapes = {name: (call.groups, call.generated, call.dim) for name in _ARRAYS} | {"loss": (call.groups,)}
    if out is None:
        arrays = {name: np.empty(shape, number) for name, shape in shapes.items()}
    else:
        arrays = dict(out)
        taken = [owner for _, owner in samples + weights if owner is not None]
        for name, array in arrays.items():
            _writable(name, array, shapes, number, taken)
            taken.append(array)
    numbers = [np.zeros(len(spec.temperatures), kind) for kind in (np.float64, np.float64, np.uint32)]
    outputs = _abi.Outputs()
    for name, array in arrays.items():
        setattr(outputs, name, array.__array_interface__["data"][0])
    for name, array in zip(("loss_r", "marginal_error", "iterations"), numbers):
        setattr(outputs, name, array.__array_interface__["data"][0])
    call.run(spec, outputs)
    return Drift(*map(arrays.get, _ARRAYS), outputs.scale, outputs.sigma, *numbers, outputs.nonfinite)


def _writable(name, array, shapes, number, taken):
    if name not in shapes:
        raise _abi.InvalidError(f"cudrift: out has {name!r}, expected some of {', '.join(shapes)}")
    fits = isinstance(array, np.ndarray) and array.dtype == number and array.shape == shapes[name]
    if not (fits and array.flags.c_contiguous and array.flags.writeable):
        expected = f"a writable {np.dtype(number).name} array without gaps of shape {list(shapes[name])}"
        raise _abi.InvalidError(f"cudrift: out[{name!r}] is not {expected}")
    if any(np.may_share_memory(array, other) for other in taken):
        raise _abi.InvalidError(f"cudrift: out[{name!r}] overlaps an input or a result; results need memory of their own")
