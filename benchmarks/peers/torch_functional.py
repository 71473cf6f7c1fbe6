"""torch: `torch.nn.functional` under `inference_mode`, and aten's own backward kernels, called without autograd.

The backward kernels are handed the statistics that their forward pass kept; onepass computes them again. Torch's
norms have no `out=`: its results come from an allocator that keeps its memory (`timing.keep_freed_memory`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from cases import Array, Case, Data

from peers import Job

Call = Callable[[], Any]
aten = torch.ops.aten


def tensor(array: Array) -> torch.Tensor:
    if array.dtype.name == "bfloat16":  # which torch.from_numpy does not know
        return torch.from_numpy(array.view("int16")).view(torch.bfloat16)
    return torch.from_numpy(array)


def layer_norm(case: Case, x: Any, weight: Any, bias: Any) -> Call:
    return partial(F.layer_norm, x, weight.shape, weight, bias, case.eps)


def rms_norm(case: Case, x: Any, weight: Any) -> Call:
    return partial(F.rms_norm, x, weight.shape, weight, case.eps)


def add_layer_norm(case: Case, x: Any, residual: Any, weight: Any, bias: Any) -> Call:
    def two_calls() -> list[Any]:
        total = x + residual
        return [F.layer_norm(total, weight.shape, weight, bias, case.eps), total]

    return two_calls


def add_rms_norm(case: Case, x: Any, residual: Any, weight: Any) -> Call:
    def two_calls() -> list[Any]:
        total = x + residual
        return [F.rms_norm(total, weight.shape, weight, case.eps), total]

    return two_calls


def of_channels(case: Case, function: Callable[..., Any], *given: Any, **options: Any) -> Call:
    """`function`, of x or dx or whatever comes first of several.

    Channels-last memory is, to torch, a channels-first shape with other strides.
    """

    def run() -> Any:
        result = function(*given, **options)
        if isinstance(result, torch.Tensor):
            return torch.movedim(result, 1, case.axis)
        first, *rest = result
        return [torch.movedim(first, 1, case.axis), *rest]

    return run


def group_norm(case: Case, x: Any, weight: Any, bias: Any) -> Call:
    return of_channels(
        case, F.group_norm, torch.movedim(x, case.axis, 1), case.groups, weight, bias, case.eps
    )


def instance_norm(case: Case, x: Any, weight: Any, bias: Any) -> Call:
    first = torch.movedim(x, case.axis, 1)
    return of_channels(case, F.instance_norm, first, weight=weight, bias=bias, eps=case.eps)


def batch_norm(case: Case, x: Any, weight: Any, bias: Any) -> Call:
    first = torch.movedim(x, case.axis, 1)
    return of_channels(case, F.batch_norm, first, None, None, weight, bias, training=True, eps=case.eps)


def batch_norm_inference(
    case: Case, x: Any, weight: Any, bias: Any, running_mean: Any, running_var: Any
) -> Call:
    first = torch.movedim(x, case.axis, 1)
    return of_channels(case, F.batch_norm, first, running_mean, running_var, weight, bias, eps=case.eps)


def moments(case: Case, x: Any) -> Call:
    call = partial(torch.var_mean, x, dim=0, correction=0)
    return lambda: call()[::-1]


def layer_norm_backward(case: Case, x: Any, dy: Any, weight: Any) -> Call:
    _, mean, rstd = aten.native_layer_norm(x, weight.shape, weight, None, case.eps)
    all_three = [True, True, True]
    bias = torch.zeros_like(weight)
    return partial(aten.native_layer_norm_backward, dy, x, weight.shape, mean, rstd, weight, bias, all_three)


def batch_norm_backward(case: Case, x: Any, dy: Any, weight: Any) -> Call:
    first, dy_first = torch.movedim(x, case.axis, 1), torch.movedim(dy, case.axis, 1)
    _, mean, rstd = aten.native_batch_norm(first, weight, None, None, None, True, 0.0, case.eps)
    kept = (None, None, mean, rstd, True, case.eps, [True, True, True])
    return of_channels(case, aten.native_batch_norm_backward, dy_first, first, weight, *kept)


def group_norm_backward(case: Case, x: Any, dy: Any, weight: Any, groups: int | None = None) -> Call:
    groups = groups or case.groups
    first, dy_first = torch.movedim(x, case.axis, 1), torch.movedim(dy, case.axis, 1)
    sizes = (len(x), case.channels, x[0].numel() // case.channels, groups)
    _, mean, rstd = aten.native_group_norm(first, weight, None, *sizes, case.eps)
    kept = (mean, rstd, weight, *sizes, [True, True, True])
    return of_channels(case, aten.native_group_norm_backward, dy_first, first, *kept)


def instance_norm_backward(case: Case, x: Any, dy: Any, weight: Any) -> Call:
    return group_norm_backward(case, x, dy, weight, groups=case.channels)


JOBS: dict[str, Callable[..., Call]] = {
    function.__name__: function
    for function in (
        layer_norm,
        rms_norm,
        add_layer_norm,
        add_rms_norm,
        group_norm,
        instance_norm,
        batch_norm,
        batch_norm_inference,
        moments,
        layer_norm_backward,
        batch_norm_backward,
        group_norm_backward,
        instance_norm_backward,
    )
}


def arrays(result: Any) -> list[Array]:
    tensors = [result] if isinstance(result, torch.Tensor) else result
    return [(t.float() if t.element_size() == 2 else t).numpy() for t in tensors]


def job(case: Case, data: Data, threads: int) -> Job:
    torch.set_num_threads(threads)
    with torch.inference_mode():
        call = JOBS[case.job](case, **{name: tensor(array) for name, array in data.arrays.items()})
    return Job(call, arrays, torch.inference_mode)
