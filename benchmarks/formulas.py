"""Every job as one writes it with whole-array operations: timed as NumPy's way, and under `jax.jit` as JAX's.

    y = (x - mean) / sqrt(var + eps) * weight + bias

16-bit input is computed in float32 and rounded once, as everybody here does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cases import Case

Axes = tuple[int, ...]


def widened(x: Any) -> Any:
    return x.astype("float32") if x.dtype.itemsize == 2 else x


def broadcast(case: Case, entries: Any) -> Any:
    """`entries`, one for each channel, so that they go with x."""
    shape = [1] * len(case.shape)
    shape[case.axis] = -1
    return widened(entries).reshape(shape)


def all_but_channels(case: Case) -> Axes:
    return tuple(axis for axis in range(len(case.shape)) if axis != case.axis % len(case.shape))


def standardized(case: Case, x: Any, axes: Axes) -> tuple[Any, Any]:
    """(x - mean) * rstd, and rstd."""
    rstd = 1 / (x.var(axis=axes, keepdims=True) + case.eps) ** 0.5
    return (x - x.mean(axis=axes, keepdims=True)) * rstd, rstd


def gradient(g: Any, xhat: Any, rstd: Any, axes: Axes) -> Any:
    """What comes back through `standardized`: rstd * (g - mean(g) - xhat * mean(g * xhat))."""
    mean_gx = (g * xhat).mean(axis=axes, keepdims=True)
    return rstd * (g - g.mean(axis=axes, keepdims=True) - xhat * mean_gx)


def layer_norm(case: Case, x: Any, weight: Any, bias: Any) -> list[Any]:
    xhat, _ = standardized(case, widened(x), (-1,))
    return [(xhat * widened(weight) + widened(bias)).astype(x.dtype)]


def rms_norm(case: Case, x: Any, weight: Any) -> list[Any]:
    wide = widened(x)
    rstd = 1 / ((wide * wide).mean(axis=-1, keepdims=True) + case.eps) ** 0.5
    return [(wide * rstd * widened(weight)).astype(x.dtype)]


def add_layer_norm(case: Case, x: Any, residual: Any, weight: Any, bias: Any) -> list[Any]:
    total = x + residual
    return [*layer_norm(case, total, weight, bias), total]


def add_rms_norm(case: Case, x: Any, residual: Any, weight: Any) -> list[Any]:
    total = x + residual
    return [*rms_norm(case, total, weight), total]


def group_norm(case: Case, x: Any, weight: Any, bias: Any) -> list[Any]:
    # Channels first.
    xhat, _ = standardized(case, x.reshape(x.shape[0], case.groups, -1), (-1,))
    return [xhat.reshape(x.shape) * broadcast(case, weight) + broadcast(case, bias)]


def instance_norm(case: Case, x: Any, weight: Any, bias: Any) -> list[Any]:
    xhat, _ = standardized(case, x, all_but_channels(case)[1:])
    return [xhat * broadcast(case, weight) + broadcast(case, bias)]


def batch_norm(case: Case, x: Any, weight: Any, bias: Any) -> list[Any]:
    xhat, _ = standardized(case, x, all_but_channels(case))
    return [xhat * broadcast(case, weight) + broadcast(case, bias)]


def batch_norm_inference(
    case: Case, x: Any, weight: Any, bias: Any, running_mean: Any, running_var: Any
) -> list[Any]:
    scale = weight / (running_var + case.eps) ** 0.5
    return [(x - broadcast(case, running_mean)) * broadcast(case, scale) + broadcast(case, bias)]


def moments(case: Case, x: Any) -> list[Any]:
    return [x.mean(axis=0), x.var(axis=0)]


def layer_norm_backward(case: Case, x: Any, dy: Any, weight: Any) -> list[Any]:
    xhat, rstd = standardized(case, x, (-1,))
    return [gradient(dy * weight, xhat, rstd, (-1,)), (dy * xhat).sum(axis=0), dy.sum(axis=0)]


def batch_norm_backward(case: Case, x: Any, dy: Any, weight: Any) -> list[Any]:
    axes = all_but_channels(case)
    xhat, rstd = standardized(case, x, axes)
    dx = gradient(dy * broadcast(case, weight), xhat, rstd, axes)
    return [dx, (dy * xhat).sum(axis=axes), dy.sum(axis=axes)]


FORMULAS: dict[str, Callable[..., list[Any]]] = {
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
    )
}
