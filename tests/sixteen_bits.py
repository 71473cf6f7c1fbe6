"""What the tests of 16-bit types share: the types, and calls beside their references."""

import dataclasses
from collections.abc import Callable

import datasets
import ml_dtypes
import numpy as np
import references as ref

import onepass as op

F32 = np.float32
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
HALVES = [np.dtype(np.float16), BFLOAT16]


@dataclasses.dataclass(frozen=True)
class Case:
    """A call and its reference: both take x, weight, bias and eps; groups lie along `axes`."""

    name: str
    shape: tuple[int, ...]
    axes: tuple[int, ...]
    run: Callable  # run(x, weight, bias, eps, out=None) -> y
    reference: Callable  # reference(x, weight, bias, eps) -> y
    affine: tuple[int, ...] | None = None  # the axes of weight and bias
    has_bias: bool = True

    def parameters(self, dtype):
        """No affine, and weight and bias in the given dtype."""
        yield None, None
        if self.affine is not None:
            weight, bias = datasets.weight_and_bias(F32, tuple(self.shape[a] for a in self.affine))
            yield weight.astype(dtype), bias.astype(dtype) if self.has_bias else None


def layer_norm(name, shape, axes):
    return Case(
        name, shape, axes,
        lambda x, w, b, eps, out=None: op.layer_norm(x, w, b, axis=axes, eps=eps, out=out),
        lambda x, w, b, eps: ref.layer_norm(x, w, b, axes, eps)[0],
        axes,
    )  # fmt: skip


def rms_norm(name, shape, axes):
    return Case(
        name, shape, axes,
        lambda x, w, b, eps, out=None: op.rms_norm(x, w, axis=axes, eps=eps, out=out),
        lambda x, w, b, eps: ref.rms_norm(x, w, axes, eps)[0],
        axes, has_bias=False,
    )  # fmt: skip


def batch_norm(name, shape, axis):
    return Case(
        name, shape, ref.others(axis % len(shape), len(shape)),
        lambda x, w, b, eps, out=None: op.batch_norm(x, w, b, training=True, axis=axis, eps=eps, out=out),
        lambda x, w, b, eps: ref.batch_norm(x, w, b, axis, eps)[0],
        (axis % len(shape),),
    )  # fmt: skip


def inference(name, shape, axis):
    def running(x):
        """Statistics near x's own, as after training."""
        _, mean, rstd = ref.batch_norm(x, axis=axis, eps=0.0)
        return (1.01 * mean).astype(F32).ravel(), (1.1 / rstd**2).astype(F32).ravel()

    def run(x, w, b, eps, out=None):
        mean, var = running(x)
        return op.batch_norm(x, w, b, running_mean=mean, running_var=var, axis=axis, eps=eps, out=out)

    def reference(x, w, b, eps):
        return ref.batch_norm_inference(x, *running(x), w, b, axis, eps)[0]

    return Case(name, shape, ref.others(axis % len(shape), len(shape)), run, reference, (axis % len(shape),))


def standardize(name, shape, axes):
    return Case(
        name, shape, axes,
        lambda x, w, b, eps, out=None: op.standardize(x, axis=axes, eps=eps, out=out),
        lambda x, w, b, eps: ref.standardize(x, axes, 0, eps),
    )  # fmt: skip


def min_max_scale(name, shape, axes):
    return Case(
        name, shape, axes,
        lambda x, w, b, eps, out=None: op.min_max_scale(x, axis=axes, feature_range=(-0.7, 1.9), out=out),
        lambda x, w, b, eps: ref.min_max_scale(x, axes, (-0.7, 1.9)),
    )  # fmt: skip


def is_nan(x):
    """(ml_dtypes' isnan warns of signalling ones)"""
    return (x.view(np.uint16) & 0x7FFF) > np.array(np.inf, x.dtype).view(np.uint16)
