"""libcudrift as ctypes sees it: the structs, constants and functions of cudrift.h, which tests compare with this file."""

import ctypes
import os
from ctypes import POINTER, c_char, c_char_p, c_double, c_int32, c_int64, c_size_t, c_uint32, c_uint64, c_void_p
from pathlib import Path

MAX_TEMPERATURES = 8
F32, F16, BF16, F64 = range(4)
OK, INVALID, TOO_LARGE, ORDER, INTERNAL, NO_DEVICE, DEVICE = range(7)

# The names of choices, in the order of their numbers.
PRESETS = ("official", "paper", "notebook")
KERNELS = ("laplace", "gaussian", "matern32", "matern52", "matern72", "matern92", "plummer")
FEATURE_SCALES = ("official", "paper", "raw")
SELF_MASKS = ("add", "set", "remove", "keep")
COUPLINGS = ("row_column", "row", "sinkhorn")
FORMS = ("joint", "split")
AFFINITY_FLOORS = ("product", "normalizer", "none")
WEIGHTS = ("affinity", "logit", "ignored")
FORCE_NORMS = ("rms", "none")
TENSOR_CORES = ("auto", "always", "never")
PHASES = ("distances", "scale", "norms", "theta", "force")


class Error(RuntimeError):
    """What libcudrift refused, in one line."""


class InvalidError(Error, ValueError):
    """An argument is not what it should be."""


class TooLargeError(Error, MemoryError):
    """Memory does not suffice, on the host or on a device."""


class NoDeviceError(Error):
    """There is no CUDA device, or a library or the kernels are not found."""


class DeviceError(Error):
    """The CUDA driver refused an operation."""


_ERRORS = {INVALID: InvalidError, TOO_LARGE: TooLargeError, NO_DEVICE: NoDeviceError, DEVICE: DeviceError}


class Spec(ctypes.Structure):
    _fields_ = [
        ("kernel", c_uint32),
        ("temperature_count", c_uint32),
        ("temperatures", c_double * MAX_TEMPERATURES),
        ("feature_scale", c_uint32),
        ("self_mask", c_uint32),
        ("self_mask_value", c_double),
        ("min_squared_distance", c_double),
        ("coupling", c_uint32),
        ("form", c_uint32),
        ("sinkhorn_iterations", c_uint32),
        ("affinity_floor", c_uint32),
        ("sinkhorn_tolerance", c_double),
        ("affinity_floor_value", c_double),
        ("weights", c_uint32),
        ("force_norm", c_uint32),
        ("force_norm_floor", c_double),
        ("near_pairs", c_double),
        ("center", c_uint32),
        ("constant_self_distance", c_uint32),
        ("f64_sums", c_uint32),
        ("reserved", c_uint32),
    ]


class Shape(ctypes.Structure):
    _fields_ = [(name, c_int64) for name in ("groups", "generated", "negatives", "positives", "dim")]


class Points(ctypes.Structure):
    _fields_ = [("data", c_void_p), ("strides", POINTER(c_int64))]


class Inputs(ctypes.Structure):
    _fields_ = [
        ("generated", Points),
        ("negatives", Points),
        ("positives", Points),
        ("weight_generated", c_void_p),
        ("weight_negatives", c_void_p),
        ("weight_positives", c_void_p),
    ]


class Outputs(ctypes.Structure):
    _fields_ = [
        ("force", c_void_p),
        ("gradient", c_void_p),
        ("goal", c_void_p),
        ("loss", c_void_p),
        ("loss_r", c_void_p),
        ("marginal_error", c_void_p),
        ("iterations", c_void_p),
        ("scale", c_double),
        ("sigma", c_double),
        ("nonfinite", c_int64),
    ]


class ScaleSums(ctypes.Structure):
    _fields_ = [(name, c_double) for name in ("weighted_distance", "weight", "any_weight", "nonfinite", "groups")]


class ForceSums(ctypes.Structure):
    _fields_ = [("squares", c_double * MAX_TEMPERATURES), ("groups", c_double)]


class CudaGpu(ctypes.Structure):
    _fields_ = [
        ("name", c_char * 256),
        ("memory", c_uint64),
        ("major", c_uint32),
        ("minor", c_uint32),
        ("driver_major", c_uint32),
        ("driver_minor", c_uint32),
        ("simulated", c_uint32),
        ("reserved", c_uint32),
    ]


class CudaScalars(ctypes.Structure):
    _fields_ = [
        ("weighted_distance", c_double),
        ("weight", c_double),
        ("any_weight", c_double),
        ("nonfinite", c_double),
        ("groups", c_double),
        ("squares", c_double * MAX_TEMPERATURES),
        ("rows", (c_double * 4) * MAX_TEMPERATURES),
        ("mean", c_double),
        ("scale", c_double),
        ("sigma", c_double),
        ("distance", c_double),
        ("inverse", c_double),
        ("loss_r", c_double * MAX_TEMPERATURES),
        ("theta", c_double * MAX_TEMPERATURES),
        ("iterations", c_double * MAX_TEMPERATURES),
        ("marginal_error", c_double * MAX_TEMPERATURES),
    ]


class CudaOutputs(ctypes.Structure):
    _fields_ = [("force", c_void_p), ("gradient", c_void_p), ("loss", c_void_p)]


_STATUS = {
    "cudrift_spec_preset": [c_uint32, POINTER(Spec)],
    "cudrift_spec_couple": [POINTER(Spec), c_uint32, c_uint32],
    "cudrift_drift": [POINTER(Spec), POINTER(Shape), c_uint32, POINTER(Inputs), POINTER(Outputs)],
    "cudrift_plan_new": [POINTER(Spec), POINTER(Shape), c_uint32, POINTER(c_void_p)],
    "cudrift_plan_workspace_bytes": [c_void_p, POINTER(c_size_t)],
    "cudrift_plan_run": [c_void_p, POINTER(Inputs), POINTER(Outputs)],
    "cudrift_plan_distances": [c_void_p, POINTER(Inputs), POINTER(ScaleSums)],
    "cudrift_plan_coefficients": [c_void_p, POINTER(Inputs), POINTER(ScaleSums), POINTER(ForceSums)],
    "cudrift_plan_contraction": [
        c_void_p,
        POINTER(Inputs),
        POINTER(ScaleSums),
        POINTER(ForceSums),
        POINTER(Outputs),
    ],
    "cudrift_borrow_threads": [c_void_p, c_uint32],
    "cudrift_cuda_probe": [POINTER(CudaGpu)],
    "cudrift_cuda_plan_new": [POINTER(Spec), POINTER(Shape), c_uint32, c_int32, c_uint32, POINTER(c_void_p)],
    "cudrift_cuda_plan_workspace_bytes": [c_void_p, POINTER(c_size_t)],
    "cudrift_cuda_plan_run": [c_void_p, POINTER(Inputs), POINTER(CudaOutputs), c_void_p, c_void_p],
    "cudrift_cuda_plan_phase": [c_void_p, POINTER(Inputs), POINTER(CudaOutputs), c_void_p, c_void_p, c_uint32],
    "cudrift_cuda_plan_scalars": [c_void_p, c_void_p, c_void_p, POINTER(CudaScalars)],
}
_OTHER = {
    "cudrift_version": ([], c_char_p),
    "cudrift_instruction_set": ([], c_char_p),
    "cudrift_message": ([], c_char_p),
    "cudrift_forget": ([], None),
    "cudrift_plan_free": ([c_void_p], None),
    "cudrift_cuda_plan_free": ([c_void_p], None),
    "cudrift_xla": ([c_void_p], c_void_p),
    "cudrift_xla_cuda": ([c_void_p], c_void_p),
}


def path():
    """The library's file: `CUDRIFT_LIBRARY` names another than the package's own."""
    return Path(os.environ.get("CUDRIFT_LIBRARY") or Path(__file__).with_name("libcudrift.so"))


def _check(status, _function, _arguments):
    if status != OK:
        raise _ERRORS.get(status, Error)(lib.cudrift_message().decode())


def _load():
    try:
        library = ctypes.CDLL(str(path()))
    except OSError as error:
        raise ImportError(f"cudrift: {error}; install the wheel, or name libcudrift.so in CUDRIFT_LIBRARY") from error
    for name, arguments in _STATUS.items():
        function = getattr(library, name)
        function.argtypes, function.restype, function.errcheck = arguments, c_uint32, _check
    for name, (arguments, result) in _OTHER.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, result
    return library


lib = _load()
