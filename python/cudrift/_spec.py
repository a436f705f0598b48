"""What to compute."""

from __future__ import annotations

import dataclasses
import functools
from ctypes import byref
from typing import Literal

from . import _abi

Kernel = Literal["laplace", "gaussian", "matern32", "matern52", "matern72", "matern92", "plummer"]

# Each choice's names, by the field.
_CHOICES = {
    "kernel": _abi.KERNELS,
    "feature_scale": _abi.FEATURE_SCALES,
    "self_mask": _abi.SELF_MASKS,
    "coupling": _abi.COUPLINGS,
    "form": _abi.FORMS,
    "affinity_floor": _abi.AFFINITY_FLOORS,
    "weights": _abi.WEIGHTS,
    "force_norm": _abi.FORCE_NORMS,
}
_FLAGS = ("center", "constant_self_distance", "f64_sums")


@dataclasses.dataclass(frozen=True)
class Spec:
    """Every numeric choice of a drift. Begin with a preset and change fields: `Spec.official(kernel="gaussian")`.

    The fields are those of `cudrift_spec` in cudrift.h, with names in the place of numbers.
    """

    temperatures: tuple[float, ...]
    """In units of the normalised distance, 1 to 8 of them."""
    kernel: Kernel
    feature_scale: Literal["official", "paper", "raw"]
    """The length scale of features: the mean distance, that without self pairs, or 1."""
    self_mask: Literal["add", "set", "remove", "keep"]
    """What becomes of the distance of a sample to itself, with `self_mask_value`."""
    self_mask_value: float
    min_squared_distance: float
    """Lower clip of squared distances."""
    coupling: Literal["row_column", "row", "sinkhorn"]
    form: Literal["joint", "split"]
    sinkhorn_iterations: int
    sinkhorn_tolerance: float
    affinity_floor: Literal["product", "normalizer", "none"]
    affinity_floor_value: float
    weights: Literal["affinity", "logit", "ignored"]
    """Whether weights multiply affinities, or their logarithms are added to logits."""
    force_norm: Literal["rms", "none"]
    force_norm_floor: float
    near_pairs: float
    """Pairs nearer than this share of their squared norms have distances from differences."""
    center: bool
    constant_self_distance: bool
    f64_sums: bool
    text: str = dataclasses.field(init=False, repr=False, compare=False)
    """All of it, as a compiler can take it for a constant."""

    def __post_init__(self):
        object.__setattr__(self, "temperatures", _floats(self.temperatures))
        object.__setattr__(self, "text", bytes(native(self)).hex())

    @staticmethod
    def official(**changes) -> Spec:
        """The official JAX release: temperatures 0.02, 0.05, 0.2."""
        return _preset("official", changes)

    @staticmethod
    def paper(**changes) -> Spec:
        """The paper's Algorithm 2 with its normalisation."""
        return _preset("paper", changes)

    @staticmethod
    def notebook(**changes) -> Spec:
        """The official toy notebook: raw coordinates, temperature 0.05."""
        return _preset("notebook", changes)

    def replace(self, **changes) -> Spec:
        """The same with other fields."""
        return dataclasses.replace(self, **changes)

    def coupled(self, coupling: str, form: str = "joint") -> Spec:
        """The same with another coupling and form, and what goes with them: no affinity floor in the split form and for
        Sinkhorn, and for that no self mask."""
        spec = _abi.Spec.from_buffer_copy(native(self))
        numbers = (_number("coupling", coupling), _number("form", form))
        _abi.lib.cudrift_spec_couple(byref(spec), *numbers)
        return from_native(spec)


def _floats(temperatures):
    return tuple(map(float, (temperatures,) if isinstance(temperatures, (int, float)) else temperatures))


def _fields():
    return [field for field in dataclasses.fields(Spec) if field.init]


def _number(field, name):
    names = _CHOICES[field]
    if name not in names:
        raise _abi.InvalidError(f"cudrift: {field} is {name!r}, expected one of {', '.join(names)}")
    return names.index(name)


@functools.lru_cache(maxsize=256)
def native(spec: Spec) -> _abi.Spec:
    """As C has it. One object for equal specs: not to be changed."""
    to = _abi.Spec()
    if not 1 <= len(spec.temperatures) <= _abi.MAX_TEMPERATURES:
        raise _abi.InvalidError(f"cudrift: {len(spec.temperatures)} temperatures, expected 1 to {_abi.MAX_TEMPERATURES}")
    for field in _fields():
        value = getattr(spec, field.name)
        if field.name == "temperatures":
            to.temperature_count = len(value)
            to.temperatures[: len(value)] = value
        else:
            value = _number(field.name, value) if field.name in _CHOICES else value
            if field.name == "sinkhorn_iterations" and not 0 <= value < 1 << 32:
                raise _abi.InvalidError(f"cudrift: sinkhorn_iterations is {value}, expected 0 to {(1 << 32) - 1}")
            setattr(to, field.name, value)
    return to


@functools.lru_cache(maxsize=256)
def from_text(text: str) -> Spec:
    """The spec with this text."""
    return from_native(_abi.Spec.from_buffer_copy(bytes.fromhex(text)))


def from_native(spec: _abi.Spec) -> Spec:
    """And back."""
    values = {}
    for field in _fields():
        value = getattr(spec, field.name)
        if field.name == "temperatures":
            value = tuple(value[: spec.temperature_count])
        elif field.name in _CHOICES:
            value = _CHOICES[field.name][value]
        values[field.name] = bool(value) if field.name in _FLAGS else value
    return Spec(**values)


@functools.lru_cache(maxsize=None)
def _of_preset(name):
    spec = _abi.Spec()
    _abi.lib.cudrift_spec_preset(_abi.PRESETS.index(name), byref(spec))
    return from_native(spec)


def _preset(name, changes):
    return dataclasses.replace(_of_preset(name), **changes)


def resolve(spec: Spec | str | None, temperatures=None, kernel=None) -> Spec:
    """The spec of a call: a spec or a preset's name, and what the call changes in it."""
    return _resolved(spec, None if temperatures is None else _floats(temperatures), kernel)


@functools.lru_cache(maxsize=256)
def _resolved(spec, temperatures, kernel):
    if spec is None or isinstance(spec, str):
        if spec is not None and spec not in _abi.PRESETS:
            raise _abi.InvalidError(f"cudrift: the preset is {spec!r}, expected one of {', '.join(_abi.PRESETS)}")
        spec = _of_preset(spec or "official")
    changes = {}
    if temperatures is not None:
        changes["temperatures"] = temperatures
    if kernel is not None:
        changes["kernel"] = kernel
    return dataclasses.replace(spec, **changes) if changes else spec
