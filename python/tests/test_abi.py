"""cudrift/_abi.py says what cudrift.h says."""

import ctypes
import re
import unittest

from common import ROOT
from cudrift import _abi

HEADER = re.sub(r"//.*|/\*.*?\*/", "", (ROOT / "crates/capi/include/cudrift.h").read_text())
TYPES = {
    "double": ctypes.c_double,
    "uint32_t": ctypes.c_uint32,
    "uint64_t": ctypes.c_uint64,
    "int32_t": ctypes.c_int32,
    "int64_t": ctypes.c_int64,
    "size_t": ctypes.c_size_t,
    "char": ctypes.c_char,
}
STRUCTS = {
    "cudrift_spec": _abi.Spec,
    "cudrift_shape": _abi.Shape,
    "cudrift_points": _abi.Points,
    "cudrift_inputs": _abi.Inputs,
    "cudrift_outputs": _abi.Outputs,
    "cudrift_scale_sums": _abi.ScaleSums,
    "cudrift_force_sums": _abi.ForceSums,
    "cudrift_cuda_gpu": _abi.CudaGpu,
    "cudrift_cuda_scalars": _abi.CudaScalars,
    "cudrift_cuda_outputs": _abi.CudaOutputs,
}
CHOICES = {
    "": _abi.PRESETS + _abi.KERNELS + _abi.COUPLINGS + _abi.FORMS,
    "SCALE_": _abi.FEATURE_SCALES,
    "MASK_": _abi.SELF_MASKS,
    "FLOOR_": _abi.AFFINITY_FLOORS,
    "WEIGHTS_": _abi.WEIGHTS,
    "NORM_": _abi.FORCE_NORMS,
    "TENSOR_CORES_": _abi.TENSOR_CORES,
    "PHASE_": _abi.PHASES,
}


def fields(name):
    body = re.search(rf"typedef struct {name} {{(.*?)}} {name};", HEADER, re.S)[1]
    return [line.split() for line in body.split(";") if line.strip()]


class Abi(unittest.TestCase):
    def test_structs(self):
        found = re.findall(r"typedef struct (cudrift_\w+) {", HEADER)
        self.assertEqual(sorted(found), sorted(STRUCTS))
        for name, ours in STRUCTS.items():
            theirs = fields(name)
            self.assertEqual(len(theirs), len(ours._fields_), name)
            for words, (field, kind) in zip(theirs, ours._fields_):
                declared = words[-1]
                self.assertEqual(re.sub(r"^\*|\[.*", "", declared), field, name)
                if declared.startswith("*"):
                    self.assertEqual(ctypes.sizeof(kind), ctypes.sizeof(ctypes.c_void_p), field)
                    continue
                want = STRUCTS.get(words[-2]) or TYPES[words[-2]]
                for extent in reversed(re.findall(r"\[(\w+)\]", declared)):
                    want = want * int({"CUDRIFT_MAX_TEMPERATURES": _abi.MAX_TEMPERATURES}.get(extent, extent))
                same = kind is want or (ctypes.sizeof(kind), getattr(kind, "_length_", 0)) == (
                    ctypes.sizeof(want),
                    getattr(want, "_length_", 0),
                )
                self.assertTrue(same, f"{name}.{field} is {kind}, expected {want}")

    def test_constants(self):
        constants = {name: int(value) for name, value in re.findall(r"#define CUDRIFT_(\w+) (\d+)", HEADER)}
        for name in ("F32", "F16", "BF16", "F64", "MAX_TEMPERATURES"):
            self.assertEqual(constants.pop(name), getattr(_abi, name), name)
        for name in ("OK", "INVALID", "TOO_LARGE", "ORDER", "INTERNAL", "NO_DEVICE", "DEVICE"):
            self.assertEqual(constants.pop(name), getattr(_abi, name), name)
        for prefix, names in CHOICES.items():
            for family in (_abi.PRESETS, _abi.KERNELS, _abi.COUPLINGS, _abi.FORMS) if prefix == "" else (names,):
                for number, name in enumerate(family):
                    self.assertEqual(constants.pop(prefix + name.upper()), number, name)
        self.assertEqual(constants, {}, "constants that Python has no name for")

    def test_functions(self):
        functions = dict(re.findall(r"(cudrift_\w+)\(([^)]*)\);", HEADER))
        ours = _abi._STATUS | {name: arguments for name, (arguments, _) in _abi._OTHER.items()}
        self.assertEqual(sorted(functions), sorted(ours))
        for name, arguments in functions.items():
            count = 0 if arguments.strip() == "void" else arguments.count(",") + 1
            self.assertEqual(count, len(ours[name]), name)


if __name__ == "__main__":
    unittest.main()
