"""The formulas, written as plainly as they read, in float64 (long double for float64 input).

    y = (x - mean) / sqrt(var + eps) * weight + bias,   mean and var of each group of the stored data

Errors are counted in units of eps/2 * max|y| of the group that an element belongs to.
"""

import numpy as np


def wide(x):
    """x as it is stored, in a type with digits to spare."""
    x = np.asarray(x)
    return x.astype(np.longdouble if x.dtype in (np.float64, np.longdouble) else np.float64)


def axes_of(axis, ndim):
    axes = axis if isinstance(axis, tuple) else (axis,)
    return tuple(sorted(a % ndim for a in axes))


def affine(y, weight, bias, axes):
    """Weight and bias have the shape of `axes`, in the order in which these stand in y."""
    shape = [n if i in axes else 1 for i, n in enumerate(y.shape)]
    if weight is not None:
        y = y * wide(weight).reshape(shape)
    if bias is not None:
        y = y + wide(bias).reshape(shape)
    return y


def centred(x, axes):
    """x - mean, and the mean in two parts: one long double is too short for 1e6 + N in float64."""
    x = wide(x)
    near = x.mean(axes, keepdims=True).astype(np.float64)
    centre = (x - near).mean(axes, keepdims=True)
    return (x - near) - centre, near, centre


def normalize(x, axes, eps, ddof=0):
    """The normalized x, the mean and 1 / sqrt(var + eps) of each group."""
    count, mean, m2 = moments(x, axes, keepdims=True)
    with np.errstate(all="ignore"):
        rstd = 1 / np.sqrt(m2 / (count - ddof) + eps)
        return centred(x, axes)[0] * rstd, mean, rstd


def layer_norm(x, weight=None, bias=None, axis=-1, eps=1e-5):
    axes = axes_of(axis, x.ndim)
    y, mean, rstd = normalize(x, axes, eps)
    return affine(y, weight, bias, axes), mean, rstd


def rms_norm(x, weight=None, axis=-1, eps=0.0):
    """x / sqrt(mean(x^2) + eps) * weight, and 1 / sqrt(mean(x^2) + eps)."""
    axes = axes_of(axis, x.ndim)
    rstd = 1 / np.sqrt(np.square(wide(x)).mean(axes, keepdims=True) + eps)
    return affine(wide(x) * rstd, weight, None, axes), rstd


def layer_norm_backward(dy, x, weight=None, axis=-1, eps=1e-5):
    """dx, dweight, dbias; and what dx is made of, dy * weight / sqrt(var + eps)."""
    axes = axes_of(axis, x.ndim)
    xhat, _, rstd = normalize(x, axes, eps)
    g = affine(wide(dy), weight, None, axes)
    dx = rstd * (g - g.mean(axes, keepdims=True) - xhat * (g * xhat).mean(axes, keepdims=True))
    rows = others_than(axes, x.ndim)
    return dx, (wide(dy) * xhat).sum(rows), wide(dy).sum(rows), rstd * g


def rms_norm_backward(dy, x, weight=None, axis=-1, eps=0.0):
    """dx, dweight; and what dx is made of, dy * weight / sqrt(mean(x^2) + eps)."""
    axes = axes_of(axis, x.ndim)
    rstd = 1 / np.sqrt(np.square(wide(x)).mean(axes, keepdims=True) + eps)
    xhat, g = wide(x) * rstd, affine(wide(dy), weight, None, axes)
    dx = rstd * (g - xhat * (g * xhat).mean(axes, keepdims=True))
    return dx, (wide(dy) * xhat).sum(others_than(axes, x.ndim)), rstd * g


def batch_norm(x, weight=None, bias=None, axis=1, eps=1e-5):
    """In training: every axis but the channels' is reduced."""
    channel = axis % x.ndim
    y, mean, rstd = normalize(x, others(channel, x.ndim), eps)
    return affine(y, weight, bias, (channel,)), mean, rstd


def batch_norm_inference(x, running_mean, running_var, weight=None, bias=None, axis=1, eps=1e-5):
    channel = axis % x.ndim
    shape = [n if i == channel else 1 for i, n in enumerate(x.shape)]
    mean = wide(running_mean).reshape(shape)
    rstd = 1 / np.sqrt(wide(running_var).reshape(shape) + eps)
    return affine((wide(x) - mean) * rstd, weight, bias, (channel,)), mean, rstd


def running_statistics(x, running_mean, running_var, momentum=0.1, running_ddof=1, axis=1):
    """What an update in training leaves in the running mean and variance."""
    count, mean, m2 = moments(x, others(axis % x.ndim, x.ndim))
    old_mean, old_var = wide(running_mean), wide(running_var)
    return (
        (1 - momentum) * old_mean + momentum * mean,
        (1 - momentum) * old_var + momentum * (m2 / (count - running_ddof)),
    )


def others(channel, ndim):
    return others_than((channel,), ndim)


def others_than(axes, ndim):
    return tuple(i for i in range(ndim) if i not in axes)


def moments(x, axis=0, keepdims=False):
    """Count, mean and sum of squares about the mean."""
    axes = axes_of(axis, x.ndim)
    count = int(np.prod([x.shape[a] for a in axes]))
    distance, near, centre = centred(x, axes)
    mean, m2 = near + centre, np.square(distance).sum(axes, keepdims=True)
    return (count, mean, m2) if keepdims else (count, mean.squeeze(axes), m2.squeeze(axes))


def weighted_moments(x, weights, axis=0):
    """Count sum(w), mean (in two parts, as of `centred`) and sum(w (x - mean)^2); the axes are kept.

    What weighs nothing may hold anything.
    """
    axes = axes_of(axis, x.ndim)
    x, w = wide(x), np.broadcast_to(np.asarray(weights, np.longdouble), x.shape)
    with np.errstate(all="ignore"):
        count = w.sum(axes, keepdims=True)
        near = (np.where(w > 0, w * x, 0).sum(axes, keepdims=True) / count).astype(np.float64)
        centre = np.where(w > 0, w * (x - near), 0).sum(axes, keepdims=True) / count
        m2 = np.where(w > 0, w * np.square((x - near) - centre), 0).sum(axes, keepdims=True)
    return count, near, centre, m2


def standardize(x, axis=0, ddof=0, eps=0.0):
    return normalize(x, axes_of(axis, x.ndim), eps, ddof)[0]


def min_max_scale(x, axis=0, feature_range=(0.0, 1.0)):
    x = wide(x)
    lower, upper = (x.dtype.type(end) for end in feature_range)
    axes = axes_of(axis, x.ndim)
    least, greatest = x.min(axes, keepdims=True), x.max(axes, keepdims=True)
    width = np.where(greatest == least, 1, greatest - least)
    return lower + (x - least) * ((upper - lower) / width)


def units(y, y_ref, axis, terms=None):
    """The largest |y - y_ref| in units of eps/2 * max|y_ref| of its group; NaN where y has one.

    With `terms`, of the largest of these instead: where y is a difference of larger numbers.
    """
    with np.errstate(all="ignore"):
        error = np.abs(wide(y) - y_ref)
        unit = np.finfo(y.dtype).eps / 2 * np.abs(y_ref if terms is None else terms).max(axis, keepdims=True)
        return float(np.where(error == 0, 0, error / unit).max(initial=0))


def mean_units(mean, x, axis, dtype=None):
    """The largest error of a mean in units of eps/2 * max|x - mean|, beyond rounding it to its own type.

    A mean of 1e6 is asked for the digits of its group's spread, not for its own.
    """
    distance, near, centre = centred(x, axes_of(axis, x.ndim))
    mean = np.asarray(mean).reshape(near.shape)
    with np.errstate(all="ignore"):
        rounding = np.finfo(mean.dtype).eps / 2 * np.abs(near) * 1.001
        error = np.maximum(np.abs((wide(mean) - near) - centre) - rounding, 0)
        unit = np.finfo(dtype or x.dtype).eps / 2 * np.abs(distance).max(axis, keepdims=True)
        return float(np.where(error == 0, 0, error / unit).max(initial=0))


def relative_units(value, value_ref, dtype):
    """The largest relative error of positive values in units of eps/2."""
    value_ref = np.asarray(value_ref)
    with np.errstate(all="ignore"):
        error = np.abs(wide(value).reshape(value_ref.shape) - value_ref)
        return float(np.where(error == 0, 0, error / value_ref).max(initial=0) / (np.finfo(dtype).eps / 2))


# The 16-bit types: digits of the significand, and the exponent of the least subnormal.
SIXTEEN_BITS = {"float16": (11, -24), "bfloat16": (8, -133)}


def rounded(y, dtype):
    """y rounded once to the nearest of a 16-bit type, ties to even (the casts may go by way of float32)."""
    digits, least = SIXTEEN_BITS[np.dtype(dtype).name]
    y = np.asarray(y, np.float64)
    with np.errstate(all="ignore"):
        place = np.maximum(np.frexp(y)[1] - digits, least)
        return np.ldexp(np.rint(np.ldexp(y, -place)), place).astype(dtype)


def steps(y, y_ref):
    """How many numbers of its 16-bit type each y is from the rounded reference: 1 where it is a neighbour."""
    return np.abs(_rank(y) - _rank(rounded(y_ref, y.dtype)))


def _rank(y):
    """The place of each number among the numbers of its 16-bit type."""
    bits = np.ascontiguousarray(y).view(np.uint16).astype(np.int32)
    return np.where(bits < 0x8000, bits, 0x8000 - bits)
