"""Device memory by `__cuda_array_interface__` and by DLPack: the golden set, phases, streams, and what is refused."""

import ctypes
import unittest

import cudrift
import ml_dtypes
import numpy as np
from common import CASES, Case, Test, samples
from cudrift import cuda

driver = ctypes.CDLL("libcuda.so")
FLOATS = {np.dtype(np.float32): (2, 32), np.dtype(np.float16): (2, 16), np.dtype(ml_dtypes.bfloat16): (4, 16)}
CODES = FLOATS | {np.dtype(np.uint8): (1, 8)}


def call(name, *arguments):
    status = getattr(driver, name)(*arguments)
    assert status == 0, (name, status)


class Array:
    """An array on the device, as another library has it; numbers of `interface` have what it shows of itself."""

    def __init__(self, values, offset=0):
        values = np.asarray(values)
        self.shape, self.dtype, self.strides, self.offset = values.shape, values.dtype, None, offset
        self.memory = ctypes.c_uint64()
        call("cuMemAlloc_v2", ctypes.byref(self.memory), ctypes.c_size_t(values.nbytes + offset + 1))
        if values.size:
            source = np.ascontiguousarray(values)
            to = ctypes.c_uint64(self.memory.value + offset)
            call("cuMemcpyHtoD_v2", to, ctypes.c_void_p(source.ctypes.data), ctypes.c_size_t(values.nbytes))

    def __del__(self):
        driver.cuMemFree_v2(self.memory)

    def numpy(self):
        call("cuCtxSynchronize")
        values = np.empty(self.shape, self.dtype)
        source = ctypes.c_uint64(self.memory.value + self.offset)
        call("cuMemcpyDtoH_v2", ctypes.c_void_p(values.ctypes.data), source, ctypes.c_size_t(values.nbytes))
        return values


class Interface(Array):
    read_only = False

    @property
    def __cuda_array_interface__(self):
        address = self.memory.value + self.offset
        data = (address if np.prod(self.shape) else 0, self.read_only)
        # As PyTorch shows bfloat16.
        name = "<V2" if self.dtype == ml_dtypes.bfloat16 else self.dtype.str
        return {"shape": self.shape, "typestr": name, "data": data, "strides": self.strides, "version": 3}


class DlManaged(ctypes.Structure):
    _fields_ = [("tensor", cuda._DlTensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p)]


_new_capsule = ctypes.pythonapi.PyCapsule_New
_new_capsule.argtypes, _new_capsule.restype = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p], ctypes.py_object


class DLPack(Array):
    device = (2, 0)

    def __dlpack_device__(self):
        return self.device

    def __dlpack__(self, stream=None):
        assert stream is not None and stream != 0, "DLPack has no stream 0"
        self.stream = stream
        rank, (code, bits) = len(self.shape), CODES[self.dtype]
        self.extents = (ctypes.c_int64 * rank)(*self.shape)
        steps = None
        if self.strides is not None:
            steps = ctypes.cast((ctypes.c_int64 * rank)(*self.strides), ctypes.POINTER(ctypes.c_int64))
        self.managed = DlManaged(
            cuda._DlTensor(self.memory.value, *self.device, rank, code, bits, 1, self.extents, steps, self.offset)
        )
        return _new_capsule(ctypes.addressof(self.managed), b"dltensor", None)


def stream():
    handle = ctypes.c_void_p()
    call("cuStreamCreate", ctypes.byref(handle), 1)
    return handle.value


def setUpModule():
    context, device = ctypes.c_void_p(), ctypes.c_int()
    call("cuInit", 0)
    call("cuDeviceGet", ctypes.byref(device), 0)
    call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    call("cuCtxSetCurrent", context)


def inputs(case, kind, **types):
    named = {name: getattr(case, name) for name in ("gen", "pos", "neg", "weight_gen", "weight_pos", "weight_neg")}
    return {name: kind(array) for name, array in named.items() if array is not None}


def extents(gen, pos, neg=None):
    return (gen.shape[0], gen.shape[1], 0 if neg is None else neg.shape[1], pos.shape[1], gen.shape[2])


def run(plan, kind, arrays, on=0, **named):
    b, g, _, _, d = plan.shape
    outputs = {"gradient": kind(np.zeros((b, g, d), np.float32)), "loss": kind(np.zeros(b, np.float32))}
    workspace = kind(np.zeros(plan.workspace_bytes, np.uint8))
    plan.run(**arrays, **outputs, workspace=workspace, stream=on, **named)
    return outputs["gradient"], outputs["loss"], workspace


class Golden(Test):
    def test_the_golden_set_by_both_protocols(self):
        for kind in (Interface, DLPack):
            for path in CASES:
                case = Case(path)
                spec = cudrift.Spec.official(temperatures=case.temperatures)
                plan = cuda.Plan(spec, extents(case.gen, case.pos, case.neg), "float32")
                on = stream()
                gradient, loss, workspace = run(plan, kind, inputs(case, kind), on)
                scalars = plan.scalars(workspace, on)
                self.near(gradient.numpy(), case.want["grad_gen"], 1e-5, case.name)
                self.near(loss.numpy(), case.want["loss"], 1e-5, case.name)
                self.near(scalars.scale, case.want["scale"], 1e-5, case.name)
                self.near(scalars.sigma, case.want["scale_inputs"], 1e-5, case.name)
                self.near(scalars.loss_r[: len(case.temperatures)], case.want["loss_R"], 1e-5, case.name)

    def test_half_precision(self):
        gen, pos = samples(1, (2, 2, 32, 16))
        for dtype, name in ((np.float16, "float16"), (ml_dtypes.bfloat16, "bfloat16")):
            x, y = gen.astype(dtype), pos.astype(dtype)
            exact = cudrift.drift(x.astype(np.float64), y.astype(np.float64)).gradient
            for kind in (Interface, DLPack):
                plan = cuda.Plan(cudrift.Spec.official(), extents(x, y), name)
                gradient, _, _ = run(plan, kind, {"gen": kind(x), "pos": kind(y)})
                self.near(gradient.numpy(), exact, 2e-2, name)
                plan = cuda.Plan(cudrift.Spec.official(), extents(x, y), name, tensor_cores="never")
                gradient, _, _ = run(plan, kind, {"gen": kind(x), "pos": kind(y)})
                self.near(gradient.numpy(), exact, 1e-5, name)

    def test_two_workers_are_one(self):
        gen, pos = samples(2, (2, 4, 12, 8))
        whole = cuda.Plan(cudrift.Spec.official(), extents(gen, pos), "float32")
        want = run(whole, Interface, {"gen": Interface(gen), "pos": Interface(pos)})[0].numpy()
        plan = cuda.Plan(cudrift.Spec.official(), extents(gen[:2], pos[:2]), "float32")
        parts = []
        for own in (slice(0, 2), slice(2, 4)):
            arrays = {"gen": Interface(gen[own]), "pos": Interface(pos[own])}
            parts.append((arrays, *run(plan, Interface, arrays, phase="distances")))

        def phase(name):
            for arrays, gradient, loss, workspace in parts:
                plan.run(**arrays, gradient=gradient, loss=loss, workspace=workspace, phase=name)

        for field, count, names in ((cuda.Scalars.weighted_distance, 5, ["scale", "norms"]), (cuda.Scalars.squares, 8, ["theta", "force"])):
            call("cuCtxSynchronize")
            total, size = np.zeros(count), ctypes.c_size_t(8 * count)
            for *_, workspace in parts:
                own = np.empty(count)
                at = ctypes.c_uint64(workspace.memory.value + field.offset)
                call("cuMemcpyDtoH_v2", ctypes.c_void_p(own.ctypes.data), at, size)
                total += own
            for *_, workspace in parts:
                at = ctypes.c_uint64(workspace.memory.value + field.offset)
                call("cuMemcpyHtoD_v2", at, ctypes.c_void_p(total.ctypes.data), size)
            for name in names:
                phase(name)
        got = np.concatenate([gradient.numpy() for _, gradient, _, _ in parts])
        self.near(got, want, 1e-6)

    def test_strides(self):
        gen, pos = samples(3, (2, 2, 6, 4))
        plan = cuda.Plan(cudrift.Spec.official(), extents(gen, pos), "float32")
        want = run(plan, Interface, {"gen": Interface(gen), "pos": Interface(pos)})[0].numpy()
        for kind, unit in ((Interface, 4), (DLPack, 1)):
            # Each sample with two more numbers behind it, the array four bytes on in its memory.
            wide = kind(np.concatenate([gen, np.full((2, 6, 2), np.nan, np.float32)], axis=2), offset=4)
            wide.shape, wide.strides = gen.shape, tuple(unit * stride for stride in (36, 6, 1))
            whole = kind(pos)
            whole.strides = tuple(unit * stride for stride in (24, 4, 1))
            got = run(plan, kind, {"gen": wide, "pos": whole})[0].numpy()
            np.testing.assert_array_equal(got, want)


class Refused(Test):
    def test_what_cannot_be(self):
        gen, pos = map(Interface, samples(4, (2, 2, 6, 4)))
        spec, shape, refused = cudrift.Spec.official(), (2, 6, 0, 6, 4), self.refused
        plan = cuda.Plan(spec, shape, "float32")
        workspace = Interface(np.zeros(plan.workspace_bytes, np.uint8))
        refused("samples are float64", cuda.Plan, spec, shape, "float64")
        refused("tensor_cores is 'some'", cuda.Plan, spec, shape, "float32", tensor_cores="some")
        refused("G", cuda.Plan, spec, (2, 0, 0, 6, 4), "float32")
        refused("device 99", cuda.Plan, spec, shape, "float32", 99, kind=cudrift.DeviceError)
        refused("the plan is for", plan.run, gen, gen, gen, workspace=workspace)
        refused("has no __cuda_array_interface__", plan.run, gen, [1.0], workspace=workspace)
        refused("workspace has 8 bytes", plan.run, gen, pos, workspace=Interface(np.zeros(8, np.uint8)))
        refused("phase is 'all'", plan.run, gen, pos, workspace=workspace, phase="all")
        short = Interface(np.zeros(3, np.float32))
        refused("loss is float32 [3]", plan.run, gen, pos, workspace=workspace, loss=short)
        refused("weight_pos is float16", plan.run, gen, pos, workspace=workspace, weight_pos=Interface(np.ones((2, 6), np.float16)))
        elsewhere = DLPack(np.zeros((2, 6, 4), np.float32))
        elsewhere.device = (1, 0)
        refused("DLPack's device (1, 0)", plan.run, elsewhere, pos, workspace=workspace)
        backward = Interface(np.zeros((2, 6, 4), np.float32), offset=92)
        backward.strides = (96, 16, -4)
        refused("side by side", plan.run, backward, pos, workspace=workspace)
        fixed = Interface(np.zeros(2, np.float32))
        fixed.read_only = True
        refused("loss is read-only", plan.run, gen, pos, workspace=workspace, loss=fixed)
        odd = Interface(np.zeros((2, 6, 4), np.float32))
        odd.strides = (97, 16, 4)
        refused("multiples", plan.run, odd, pos, workspace=workspace)

    def test_the_device(self):
        gpu = cuda.probe()
        self.assertTrue(gpu.name and gpu.capability >= (8, 0) and gpu.memory > 1 << 30)


if __name__ == "__main__":
    unittest.main()
