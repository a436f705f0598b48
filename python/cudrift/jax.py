"""The drift of JAX's arrays, on the CPU and on CUDA devices, through XLA's foreign function interface."""

from __future__ import annotations

import functools
from typing import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from . import _abi, cuda
from ._call import DTYPES
from ._spec import Spec, native, resolve

__all__ = ["drift_loss"]

_WHOLE, _DISTANCES, _COEFFICIENTS, _CONTRACTION = range(4)
_NAME = "cudrift"

jax.ffi.register_ffi_target(_NAME, jax.ffi.pycapsule(_abi.lib.cudrift_xla), platform="cpu")
jax.ffi.register_ffi_target(_NAME, jax.ffi.pycapsule(_abi.lib.cudrift_xla_cuda), platform="CUDA")


def drift_loss(
    gen: jax.Array,
    fixed_pos: jax.Array,
    fixed_neg: jax.Array | None = None,
    weight_gen: jax.Array | None = None,
    weight_pos: jax.Array | None = None,
    weight_neg: jax.Array | None = None,
    R_list: Sequence[float] | None = None,
    *,
    spec: Spec | str | None = None,
    axis_name=None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The loss of generated samples that regress onto themselves plus their drift, as the official `drift_loss` has it.

    `gen` is [B, G, D], `fixed_pos` [B, P, D], `fixed_neg` [B, N, D], weights [B, n], all 1 where they are None. Samples are
    float32, float16, bfloat16 or float64 (by the reference, on the CPU, slow, without an axis); where types differ they are
    promoted.

    Gives the loss of each group, [B], of which `gen` alone has a gradient, and for logging `info`, with the mean distance as
    "scale" and the mean square of each temperature's force as "loss_0.02" and so on. Works under jit, grad, vmap and shard_map.

    `spec` is a `cudrift.Spec` or a preset's name, official where it is None; `R_list`, where it is given, are its temperatures
    (official: 0.02, 0.05, 0.2).

    With an `axis_name` of shard_map or pmap, the groups of all devices along it are one batch: scale and force norms are theirs,
    by two psums of a few numbers. The loss is that of this device's groups.
    """
    spec = resolve(spec, R_list)
    dtype = jnp.result_type(*(array for array in (gen, fixed_pos, fixed_neg) if array is not None))
    if axis_name is not None and dtype == jnp.float64:
        raise _abi.InvalidError("cudrift: float64 goes to the reference, which has no axis_name; take float32")
    if dtype.name not in DTYPES:
        raise _abi.InvalidError(f"cudrift: samples are {dtype.name}, expected one of {', '.join(DTYPES)}")
    gen, fixed_pos = jnp.asarray(gen, dtype), jnp.asarray(fixed_pos, dtype)
    for name, array in (("gen", gen), ("fixed_pos", fixed_pos), ("fixed_neg", fixed_neg)):
        if array is not None and (array.ndim != 3 or (array.shape[0], array.shape[2]) != (gen.shape[0], gen.shape[-1])):
            raise _abi.InvalidError(f"cudrift: {name} has shape {list(array.shape)}, gen {list(gen.shape)}: expected [B, n, D]")
    groups, generated, dim = gen.shape
    neg = jnp.zeros((groups, 0, dim), dtype) if fixed_neg is None else jnp.asarray(fixed_neg, dtype)
    weights = []
    for name, weight, count in (
        ("gen", weight_gen, generated),
        ("neg", weight_neg, neg.shape[1]),
        ("pos", weight_pos, fixed_pos.shape[1]),
    ):
        none = weight is None
        weight = jnp.zeros((groups, 0), jnp.float32) if none else jnp.asarray(weight, jnp.float32)
        if not none and weight.shape != (groups, count):
            raise _abi.InvalidError(f"cudrift: weight_{name} has shape {list(weight.shape)}, expected {[groups, count]}")
        weights.append(weight)
    axes = axis_name if axis_name is None or isinstance(axis_name, str) else tuple(axis_name)
    loss, gradient, numbers = _drift(spec, axes, *jax.lax.stop_gradient((gen, neg, fixed_pos, *weights)))
    loss = _regression(gen, loss, gradient, numbers[1])
    info = {"scale": numbers[0]}
    info.update((f"loss_{r}", numbers[3 + k]) for k, r in enumerate(spec.temperatures if R_list is None else R_list))
    return loss, info


@jax.custom_jvp
def _regression(gen, loss, gradient, sigma):
    """The mean of (gen / sigma - goal)^2, whose value and gradient at `gen` are known; goal and sigma are held."""
    return loss


@_regression.defjvp
def _(primals, tangents):
    gen, _, gradient, sigma = primals
    slope = _slope(gen, gradient, sigma)
    return _regression(*primals), (slope * tangents[0]).sum((1, 2)).astype(gradient.dtype)


@jax.custom_jvp
def _slope(gen, gradient, sigma):
    """Its gradient by `gen`."""
    return gradient


@_slope.defjvp
def _(primals, tangents):
    gen, gradient, sigma = primals
    return _slope(*primals), (2 / (gen.shape[1] * gen.shape[2] * sigma**2) * tangents[0]).astype(gradient.dtype)


def _drift(spec, axes, gen, *fixed):
    """Loss [B], gradient [B, G, D], and scale, sigma, nonfinite, loss_r in f32 (f64 for samples in f64)."""
    number = jnp.float64 if gen.dtype == jnp.float64 else jnp.float32
    results = [
        jax.ShapeDtypeStruct(gen.shape[:1], number),
        jax.ShapeDtypeStruct(gen.shape, number),
        _doubles(3 + len(spec.temperatures)),
    ]
    call = functools.partial(_call, spec, gen, *fixed)
    # What custom calls give is to vary over the axes of a shard_map that their operands vary over.
    varying = frozenset().union(*(_varies_over(array) for array in (gen, *fixed)))
    if axes is None:
        loss, gradient, numbers = call(_WHOLE, results)
    else:
        # What the phases leave to one another, in one place.
        state = _state(spec, gen, *fixed[:2])
        scale, left = call(_DISTANCES, [_doubles(len(_abi.ScaleSums._fields_)), state])
        scale = _added_up(_vary(scale, varying), axes)
        squares, left = call(_COEFFICIENTS, [_doubles(_abi.MAX_TEMPERATURES), state], scale, _vary(left, varying))
        squares = _added_up(_vary(squares, varying), axes)
        loss, gradient, numbers, _ = call(_CONTRACTION, [*results, state], scale, squares, _vary(left, varying))
    everywhere = () if axes is None else (axes,) if isinstance(axes, str) else axes
    numbers = _vary(numbers, varying.difference(everywhere))
    return _vary(loss, varying), _vary(gradient, varying), _numbers(numbers).astype(number)


def _varies_over(array):
    """The axes of a shard_map over which an array varies."""
    kind = jax.typeof(array)
    # By either name, of which a version of JAX has one.
    return frozenset(getattr(kind, "vma", None) or getattr(getattr(kind, "mat", None), "varying", ()))


def _vary(array, axes):
    if not axes:
        return array
    axes = tuple(sorted(axes))
    return jax.lax.pcast(array, axes, to="varying") if hasattr(jax.lax, "pcast") else jax.lax.pvary(array, axes)


def _doubles(count):
    """Numbers of eight bytes where JAX may have none: two halves each, the low one first."""
    return jax.ShapeDtypeStruct((count, 2), jnp.uint32)


def _state(spec, gen, neg, pos):
    """The number of a call on the CPU, the workspace on a device, where there may be one."""
    groups, generated, dim = gen.shape
    try:
        device = jax.local_devices(backend="cuda")[0].local_hardware_id
        shape = (groups, generated, neg.shape[1], pos.shape[1], dim)
        return jax.ShapeDtypeStruct((cuda.Plan(spec, shape, gen.dtype.name, device).workspace_bytes,), jnp.uint8)
    except (RuntimeError, _abi.Error):  # JAX has none, or libcudrift cannot use it: whoever calls it there is told
        return jax.ShapeDtypeStruct((8,), jnp.uint8)


def _call(spec, gen, neg, pos, weight_gen, weight_neg, weight_pos, phase, results, *more):
    operands = (gen, neg, pos, weight_gen, weight_neg, weight_pos, *more)
    attributes = {"spec": np.frombuffer(bytes(native(spec)), np.uint8), "phase": np.int64(phase)}
    # The state is the last of either; the first phase begins it.
    aliases = {len(operands) - 1: len(results) - 1} if len(more) > 1 else {}
    call = jax.ffi.ffi_call(_NAME, results, vmap_method="sequential", input_output_aliases=aliases)
    return call(*operands, **attributes)


def _added_up(halves, axes):
    return _halves(jax.lax.psum(_numbers(halves), axes))


_SIGN, _INFINITY, _NAN = np.uint32(1 << 31), np.uint32(0xFF << 23), np.uint32(0x1FF << 22)
_BIAS = 1023 - 127  # of exponents, f64's over f32's


def _numbers(halves):
    """Doubles [n, 2] as numbers: f64 where JAX has it, else the nearest f32, and 0 below its normal ones."""
    if jax.config.jax_enable_x64:
        return jax.lax.bitcast_convert_type(halves, jnp.float64)
    low, high = halves[:, 0], halves[:, 1]
    sign, exponent = high & _SIGN, ((high >> 20) & 0x7FF).astype(jnp.int32)
    digits = (high & 0xFFFFF) << 3 | low >> 29
    # Rounding may carry into the exponent, which is then right too.
    normal = ((exponent - _BIAS).astype(jnp.uint32) << 23 | digits) + ((low >> 28) & 1)
    is_nan = (exponent == 0x7FF) & ((high & 0xFFFFF | low) != 0)
    size = jnp.where(exponent <= _BIAS, 0, jnp.where(exponent >= _BIAS + 255, _INFINITY, normal))
    return jax.lax.bitcast_convert_type(sign | jnp.where(is_nan, _NAN, size), jnp.float32)


def _halves(numbers):
    """And back."""
    bits = jax.lax.bitcast_convert_type(numbers, jnp.uint32)
    if numbers.dtype == jnp.float64:
        return bits
    exponent, digits = (bits >> 23) & 0xFF, bits & 0x7FFFFF
    wide = jnp.where(exponent == 255, np.uint32(0x7FF), exponent + np.uint32(_BIAS))
    nothing = exponent == 0
    high = jnp.where(nothing, 0, wide << 20 | digits >> 3)
    return jnp.stack([jnp.where(nothing, 0, digits << 29), bits & _SIGN | high], axis=-1)
