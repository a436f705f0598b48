"""The drift of PyTorch's tensors, on the CPU and on CUDA's current stream."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
from typing import Optional, Sequence

import torch
from torch import Tensor

from . import _abi, cuda
from ._call import DTYPES, Block, Call, plan_of
from ._spec import Spec, from_text, resolve

__all__ = ["drift_loss"]

_DOUBLE = ctypes.sizeof(ctypes.c_double)
_NAMES = {getattr(torch, name): name for name in ("uint8", *DTYPES)}


def drift_loss(
    gen: Tensor,
    fixed_pos: Tensor,
    fixed_neg: Tensor | None = None,
    weight_gen: Tensor | None = None,
    weight_pos: Tensor | None = None,
    weight_neg: Tensor | None = None,
    R_list: Sequence[float] | None = None,
    *,
    spec: Spec | str | None = None,
    process_group=None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of generated samples that regress onto themselves plus their drift, as the official `drift_loss` has it.

    `gen` is [B, G, D], `fixed_pos` [B, P, D], `fixed_neg` [B, N, D], weights [B, n], all 1 where they are None. Samples are
    float32, float16, bfloat16 or float64 (by the reference, on the CPU, slow, without a process group); where types differ they
    are promoted. Tensors without gaps are not copied; on CUDA those whose coordinates lie side by side are not.

    Gives the loss of each group, [B], of which `gen` alone has a gradient, and for logging `info`, with the mean distance as
    "scale" and the mean square of each temperature's force as "loss_0.02" and so on.

    `spec` is a `cudrift.Spec` or a preset's name, official where it is None; `R_list`, where it is given, are its temperatures
    (official: 0.02, 0.05, 0.2).

    With a `process_group`, the groups of all its processes are one batch: scale and force norms are theirs, by two all-reduces
    of a few numbers. The loss is that of this process's groups.
    """
    names = None if R_list is None else tuple(R_list)
    text, temperatures = _constants(spec.text if isinstance(spec, Spec) else spec, names)
    dtype = gen.dtype
    for other in (fixed_pos, fixed_neg):
        if other is not None and other.dtype != dtype:
            dtype = torch.promote_types(dtype, other.dtype)
    group = ""
    if process_group is not None and process_group.size() > 1:
        group = process_group.group_name
        if dtype == torch.float64:
            raise _abi.InvalidError("cudrift: float64 goes to the reference, which has no process group; take float32")
    # The registered operator, for whoever traces; what eager PyTorch takes for it, beyond the call, is several times more.
    drift = torch.ops.cudrift.drift if torch.compiler.is_compiling() else _Drift.apply
    loss, _, numbers = drift(
        _plain(gen, dtype),
        _fixed(fixed_pos, dtype),
        _fixed(fixed_neg, dtype),
        _fixed(weight_gen, torch.float32, whole=True),
        _fixed(weight_pos, torch.float32, whole=True),
        _fixed(weight_neg, torch.float32, whole=True),
        text,
        group,
    )
    scale, _, _, *loss_r = numbers.detach().unbind()
    info = {"scale": scale}
    info.update((f"loss_{r}", f2) for r, f2 in zip(temperatures if names is None else names, loss_r))
    return loss, info


# What changes nothing is asked for before it is done: even that takes microseconds.


def _plain(tensor, dtype):
    """A tensor whose memory is what it shows, of this type."""
    tensor = tensor.resolve_neg()
    return tensor if tensor.dtype == dtype else tensor.to(dtype)


def _fixed(tensor, dtype, whole=False):
    """The same of one that has no gradient, without gaps where it is to be whole."""
    if tensor is None:
        return None
    tensor = _plain(tensor.detach() if tensor.requires_grad else tensor, dtype)
    return tensor if not whole or tensor.is_contiguous() else tensor.contiguous()


@torch.compiler.assume_constant_result
def _constants(spec, temperatures):
    """Of a preset's name or a spec's text, and temperatures that change it: the text, and its temperatures."""
    own = resolve(spec if spec is None or spec in _abi.PRESETS else from_text(spec), temperatures)
    return own.text, own.temperatures


def _drift(
    gen: Tensor,
    pos: Tensor,
    neg: Optional[Tensor],
    weight_gen: Optional[Tensor],
    weight_pos: Optional[Tensor],
    weight_neg: Optional[Tensor],
    spec: str,
    group: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss [B], gradient [B, G, D] and, in f64, scale, sigma, nonfinite, loss_r."""
    others = [t for t in (pos, neg, weight_gen, weight_pos, weight_neg) if t is not None]
    if any(t.device != gen.device for t in others):
        devices = ", ".join(sorted({str(t.device) for t in (gen, *others)}))
        raise _abi.InvalidError(f"cudrift: tensors lie on {devices}; move them to one")
    if gen.device.type not in ("cpu", "cuda"):
        raise _abi.InvalidError(f"cudrift: tensors lie on {gen.device}, expected cpu or cuda")
    on = _on_cuda if gen.is_cuda else _on_cpu
    return on(from_text(spec), [gen, neg, pos], [weight_gen, weight_neg, weight_pos], group)


_operator = torch.library.custom_op("cudrift::drift", _drift, mutates_args=())


@_operator.register_fake
def _(gen, pos, neg, weight_gen, weight_pos, weight_neg, spec, group):
    return (*_results(gen), gen.new_empty(3 + len(from_text(spec).temperatures), dtype=torch.float64))


def _block(tensor):
    if tensor is None:
        return None
    strides = None if tensor.is_contiguous() else tensor.stride()
    return Block(tensor.data_ptr(), tensor.shape, strides, _NAMES.get(tensor.dtype, str(tensor.dtype)))


def _results(gen):
    """Loss and gradient, to be written."""
    number = torch.float64 if gen.dtype == torch.float64 else torch.float32
    return gen.new_empty(gen.shape[0], dtype=number), gen.new_empty(gen.shape, dtype=number)


@functools.cache
def _parallel():
    """OpenMP's function that PyTorch's own loops go through, where it is built with OpenMP."""
    own = os.path.join(os.path.dirname(torch.__file__), "lib", "libtorch_cpu.so")
    for library in (None, own):  # as the loader looks for it
        try:
            function = ctypes.CDLL(library, os.RTLD_NOLOAD | os.RTLD_LAZY).GOMP_parallel
            return ctypes.cast(function, ctypes.c_void_p)
        except (OSError, AttributeError):
            pass
    return None


_PROCESS = os.getpid()


@contextlib.contextmanager
def _threads():
    """Meanwhile calls of this thread run on PyTorch's threads, as many as it is set to.

    Not in a child that was forked off, which has none of them: there OpenMP would wait for them for ever.
    """
    parallel = _parallel() if os.getpid() == _PROCESS else None
    if parallel is None:
        yield
        return
    _abi.lib.cudrift_borrow_threads(parallel, torch.get_num_threads())
    try:
        yield
    finally:
        _abi.lib.cudrift_borrow_threads(None, 0)


def _on_cpu(spec, samples, weights, group):
    call = Call([_block(t) for t in samples], [_block(t) for t in weights])
    loss, gradient = _results(samples[0])
    numbers = (ctypes.c_double * (3 + len(spec.temperatures)))()
    loss_r = ctypes.addressof(numbers) + 3 * _DOUBLE
    outputs = _abi.Outputs(gradient=gradient.data_ptr(), loss=loss.data_ptr(), loss_r=loss_r)
    with _threads():
        if group:
            plan = plan_of(spec, call)
            scale = _added_up(plan.distances(call), group)
            force = _added_up(plan.coefficients(call, scale), group)
            plan.contraction(call, scale, force, outputs)
        else:
            call.run(spec, outputs)
    numbers[0], numbers[1], numbers[2] = outputs.scale, outputs.sigma, outputs.nonfinite
    return loss, gradient, torch.frombuffer(numbers, dtype=torch.float64)


def _added_up(sums, group):
    """Sums over all processes of a group."""
    # Doubles only, which the tensor shares.
    numbers = torch.frombuffer(sums, dtype=torch.float64)
    _all_reduce(numbers, group)
    return sums


def _all_reduce(numbers, group):
    from torch.distributed import all_reduce
    from torch.distributed.distributed_c10d import _resolve_process_group

    all_reduce(numbers, group=_resolve_process_group(group))


_plan = functools.lru_cache(maxsize=64)(cuda.Plan)


def _on_cuda(spec, samples, weights, group):
    # Coordinates lie side by side on a device.
    samples = [t if t is None or t.stride(-1) == 1 or t.shape[-1] == 1 else t.contiguous() for t in samples]
    gen = samples[0]
    # By addresses: PyTorch shows no interface of a tensor that wants a gradient.
    call = Call([_block(t) for t in samples], [_block(t) for t in weights])
    plan = _plan(spec, call.extents, call.dtype, gen.get_device())
    loss, gradient = _results(gen)
    # Given back to PyTorch at the end of this function, which hands it out again in the order of the stream alone.
    workspace = torch.empty(plan.workspace_bytes, dtype=torch.uint8, device=gen.device)
    scalars = workspace[: ctypes.sizeof(cuda.Scalars)].view(torch.float64)
    stream = torch.cuda.current_stream(gen.device).cuda_stream
    results = {"gradient": _block(gradient), "loss": _block(loss)}
    run = functools.partial(plan.append, call, results, _block(workspace), stream)

    def part(first, last):
        return scalars[first.offset // _DOUBLE : (last.offset + last.size) // _DOUBLE]

    fields = cuda.Scalars
    if group:
        run(phase="distances")
        _all_reduce(part(fields.weighted_distance, fields.groups), group)
        run(phase="scale")
        run(phase="norms")
        _all_reduce(part(fields.squares, fields.squares), group)
        run(phase="theta")
        run(phase="force")
    else:
        run()
    loss_r = part(fields.loss_r, fields.loss_r)[: len(spec.temperatures)]
    nonfinite = part(fields.nonfinite, fields.nonfinite)
    return loss, gradient, torch.cat([part(fields.scale, fields.sigma), nonfinite, loss_r])


def _remember(ctx, inputs, output):
    _, gradient, numbers = output
    ctx.save_for_backward(inputs[0], gradient, numbers)
    ctx.set_materialize_grads(False)


def _backward(ctx, loss, _gradient, _numbers):
    gen, gradient, numbers = ctx.saved_tensors
    if loss is None:
        return (None,) * 8
    if torch.is_grad_enabled():
        # Of a second derivative: (gen / sigma - goal)^2 with goal and sigma held.
        factor = 2.0 / (gen.shape[1] * gen.shape[2] * numbers[1] ** 2)
        gradient = gradient + factor.to(gradient.dtype) * (gen - gen.detach())
    return ((loss[:, None, None] * gradient).to(gen.dtype), *(None,) * 7)


_operator.register_autograd(_backward, setup_context=_remember)


class _Drift(torch.autograd.Function):
    """The same without the operator."""

    forward, setup_context, backward = map(staticmethod, (_drift, _remember, _backward))
