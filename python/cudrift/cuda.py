"""The drift on a CUDA device, of whatever has `__cuda_array_interface__` or `__dlpack__`: PyTorch, JAX, CuPy, Numba.

Nothing is allocated and nothing waited for: arrays, workspace and stream are the caller's.
"""

from __future__ import annotations

import ctypes
import dataclasses
import math
from ctypes import byref, c_char_p, c_int32, c_int64, c_size_t, c_uint8, c_uint16, c_uint64, c_void_p, py_object

from . import _abi
from ._call import DTYPES, Block, Call
from ._spec import Spec, native

__all__ = ["Gpu", "Plan", "Scalars", "block", "probe"]


@dataclasses.dataclass(frozen=True)
class Gpu:
    """A CUDA device."""

    name: str
    capability: tuple[int, int]
    memory: int
    """Bytes."""
    driver: tuple[int, int]
    """The CUDA version that the driver supports."""
    simulated: bool
    """Is it the simulator of this project, which executes kernels on the CPU for tests?"""


def probe() -> Gpu:
    """The first device. Raises `NoDeviceError`, which says what is missing."""
    gpu = _abi.CudaGpu()
    _abi.lib.cudrift_cuda_probe(byref(gpu))
    capability, driver = (gpu.major, gpu.minor), (gpu.driver_major, gpu.driver_minor)
    return Gpu(gpu.name.decode(), capability, gpu.memory, driver, bool(gpu.simulated))


Scalars = _abi.CudaScalars
"""What a workspace begins with, in device memory: `Scalars.scale.offset` and so on are where, in bytes."""


class Plan:
    """A drift of one spec, shape and type on a device.

    It owns nothing there: a call takes a `workspace` of `workspace_bytes` bytes, which begins at a multiple of 16. A plan may
    be used from several threads and on several streams at a time, with a workspace for each.

    `shape` is (B, G, N, P, D) and `dtype` the samples' type, "float32", "float16" or "bfloat16". `tensor_cores` is "auto" (for
    half precision), "always" (float32 in TF32) or "never".
    """

    def __init__(self, spec: Spec, shape, dtype: str, device: int = 0, tensor_cores: str = "auto"):
        if dtype not in DTYPES or dtype == "float64":
            raise _abi.InvalidError(f"cudrift: samples are {dtype}, expected float32, float16 or bfloat16 on a device")
        if tensor_cores not in _abi.TENSOR_CORES:
            expected = ", ".join(_abi.TENSOR_CORES)
            raise _abi.InvalidError(f"cudrift: tensor_cores is {tensor_cores!r}, expected one of {expected}")
        self._handle = c_void_p()
        self.shape, self.dtype, self.device = tuple(shape), dtype, device
        cores = _abi.TENSOR_CORES.index(tensor_cores)
        arguments = (byref(native(spec)), byref(_abi.Shape(*shape)), DTYPES[dtype], device, cores, byref(self._handle))
        _abi.lib.cudrift_cuda_plan_new(*arguments)
        size = c_size_t()
        _abi.lib.cudrift_cuda_plan_workspace_bytes(self._handle, byref(size))
        self.workspace_bytes: int = size.value

    def __del__(self):
        if getattr(self, "_handle", None):
            _abi.lib.cudrift_cuda_plan_free(self._handle)

    def run(
        self,
        gen,
        pos,
        neg=None,
        *,
        weight_gen=None,
        weight_pos=None,
        weight_neg=None,
        workspace,
        gradient=None,
        loss=None,
        force=None,
        stream: int = 0,
        phase: str | None = None,
    ) -> None:
        """Appends a call, or one phase of it, to `stream`, the address of a CUstream (0 is the default stream).

        Samples are [B, n, D] with coordinates side by side, weights float32 [B, n] without gaps, results float32 without gaps:
        `gradient` and `force` [B, G, D], `loss` [B], each left out where it is None. What was written to an array on another
        stream must be there before; arrays stay as they are until the stream has come so far.

        Phases, of a call that is spread over devices: "distances", "scale", "norms", "theta", "force". After the first the
        five numbers from `Scalars.weighted_distance` on are added over devices, after the third the eight of `Scalars.squares`.
        """
        held = []  # capsules of arrays, until their memory is the stream's
        of = lambda name, array: None if array is None else block(name, array, stream, held, self.device)  # noqa: E731
        call = Call(
            [of("gen", gen), of("neg", neg), of("pos", pos)],
            [of("weight_gen", weight_gen), of("weight_neg", weight_neg), of("weight_pos", weight_pos)],
        )
        for name, array in (("gradient", gradient), ("loss", loss), ("force", force), ("workspace", workspace)):
            if (getattr(array, "__cuda_array_interface__", None) or {}).get("data", (0, False))[1]:
                raise _abi.InvalidError(f"cudrift: {name} is read-only")
        results = {"gradient": of("gradient", gradient), "loss": of("loss", loss), "force": of("force", force)}
        self.append(call, results, of("workspace", workspace), stream, phase)

    def append(self, call: Call, results: dict, workspace: Block, stream: int, phase: str | None = None) -> None:
        """As `run`, of blocks."""
        if (call.extents, call.dtype) != (self.shape, self.dtype):
            got, expected = f"{call.dtype} {call.extents}", f"{self.dtype} {self.shape}"
            raise _abi.InvalidError(f"cudrift: samples are {got}, (B, G, N, P, D), and the plan is for {expected}")
        outputs = _abi.CudaOutputs()
        b, g, _, _, d = self.shape
        for name, to in results.items():
            if to is None:
                continue
            extents = (b,) if name == "loss" else (b, g, d)
            if to.dtype != "float32" or to.strides is not None or tuple(to.shape) != extents:
                got = f"{to.dtype} {list(to.shape)}"
                raise _abi.InvalidError(f"cudrift: {name} is {got}, expected float32 {list(extents)} without gaps")
            setattr(outputs, name, to.address)
        if workspace.strides is not None or _size(workspace) < self.workspace_bytes:
            raise _abi.InvalidError(
                f"cudrift: workspace has {_size(workspace)} bytes, expected {self.workspace_bytes} or more without gaps"
            )
        arguments = (self._handle, byref(call.inputs), byref(outputs), workspace.address, stream)
        if phase is None:
            _abi.lib.cudrift_cuda_plan_run(*arguments)
        elif phase in _abi.PHASES:
            _abi.lib.cudrift_cuda_plan_phase(*arguments, _abi.PHASES.index(phase))
        else:
            raise _abi.InvalidError(f"cudrift: phase is {phase!r}, expected one of {', '.join(_abi.PHASES)}")

    def scalars(self, workspace, stream: int = 0) -> Scalars:
        """Waits for the stream and copies the scalars of the last run in the workspace: scale, sigma, loss_r and so on."""
        held, scalars = [], Scalars()
        room = block("workspace", workspace, stream, held, self.device)
        _abi.lib.cudrift_cuda_plan_scalars(self._handle, room.address, stream, byref(scalars))
        return scalars


_SIZES = {"float32": 4, "float16": 2, "bfloat16": 2, "float64": 8, "uint8": 1, "int8": 1}


def _size(block):
    return math.prod(block.shape, start=_SIZES.get(block.dtype, 1))


def block(name: str, array, stream: int, held: list, device: int) -> Block:
    """Where an array lies on the device. What keeps it there is appended to `held`."""
    interface = getattr(array, "__cuda_array_interface__", None)
    if interface is not None:
        if hasattr(array, "__dlpack_device__"):
            _same_device(name, array, device)
        return _from_interface(name, interface)
    if hasattr(array, "__dlpack__"):
        return _from_dlpack(name, array, stream, held, device)
    kind = type(array).__name__
    raise _abi.InvalidError(f"cudrift: {name} is {kind}, which has no __cuda_array_interface__ and no __dlpack__")


# PyTorch shows bfloat16 as two bytes of anything.
_TYPES = {"<f4": "float32", "<f2": "float16", "<f8": "float64", "|u1": "uint8", "|i1": "int8", "<V2": "bfloat16"}


def _gapless(shape, strides):
    """Whether strides in elements are those of an array without gaps."""
    if 0 in shape:
        return True
    expected = 1
    for extent, stride in zip(reversed(shape), reversed(strides)):
        if extent != 1 and stride != expected:
            return False
        expected *= extent
    return True


def _from_interface(name, interface):
    dtype = _TYPES.get(interface["typestr"], interface["typestr"])
    shape, strides = interface["shape"], interface.get("strides")
    if strides is not None:
        size = _SIZES.get(dtype, 1)
        if any(stride % size for stride in strides):
            raise _abi.InvalidError(f"cudrift: {name} has strides {list(strides)}, no multiples of its type's {size} bytes")
        strides = [stride // size for stride in strides]
        strides = None if _gapless(shape, strides) else strides
    return Block(interface["data"][0] or 0, shape, strides, dtype)


class _DlTensor(ctypes.Structure):
    _fields_ = [
        ("data", c_void_p),
        ("device_type", c_int32),
        ("device_id", c_int32),
        ("ndim", c_int32),
        ("code", c_uint8),
        ("bits", c_uint8),
        ("lanes", c_uint16),
        ("shape", ctypes.POINTER(c_int64)),
        ("strides", ctypes.POINTER(c_int64)),
        ("byte_offset", c_uint64),
    ]


_CUDA = (2, 13)  # device memory, and managed
_CODES = {(2, 32): "float32", (2, 16): "float16", (4, 16): "bfloat16", (2, 64): "float64", (1, 8): "uint8", (0, 8): "int8"}
_capsule_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_capsule_pointer.argtypes, _capsule_pointer.restype = [py_object, c_char_p], c_void_p


def _same_device(name, array, device):
    kind, number = array.__dlpack_device__()
    if int(kind) not in _CUDA or number != device:
        raise _abi.InvalidError(f"cudrift: {name} lies on DLPack's device ({int(kind)}, {number}), expected (2, {device})")


def _from_dlpack(name, array, stream, held, device):
    _same_device(name, array, device)
    # DLPack's number of the default stream is 1.
    capsule = array.__dlpack__(stream=stream or 1)
    held.append(capsule)
    tensor = _DlTensor.from_address(_capsule_pointer(capsule, b"dltensor"))
    shape = tensor.shape[: tensor.ndim]
    strides = tensor.strides[: tensor.ndim] if tensor.strides else None
    if strides is not None and _gapless(shape, strides):
        strides = None
    dtype = _CODES.get((tensor.code, tensor.bits), f"DLPack's ({tensor.code}, {tensor.bits})")
    return Block((tensor.data or 0) + tensor.byte_offset, shape, strides, dtype)
