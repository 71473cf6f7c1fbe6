"""Batch, group and instance norm beside their formulas: with masks, and the gradients.

A channel's or a group's elements are a row; of a row v are the places that the mask lets into its statistics:

    mean = mean(x[v]),  rstd = 1 / sqrt(mean((x[v] - mean)^2) + eps),  xhat = (x - mean) rstd,  y = xhat weight + bias
    g = dy weight,  dx = rstd (g - [v] (sum(g) + xhat sum(g xhat)) / count),  dweight = sum(dy xhat),  dbias = sum(dy)
"""

import dataclasses

import datasets
import numpy as np
import references as ref

import onepass as op

UNITS = 8  # of eps/2 * max|y|
GRADIENT_UNITS = 16


@dataclasses.dataclass(frozen=True)
class Norm:
    """One of the three on x of a shape."""

    function: str
    shape: tuple[int, ...]
    axis: int = 1
    groups: int | None = None  # of group_norm

    def __str__(self):
        groups = "" if self.groups is None else f" in {self.groups}"
        return f"{self.function} {'x'.join(map(str, self.shape))}{groups}, axis {self.axis}"

    @property
    def channels(self):
        return self.shape[self.axis]

    @property
    def of_batch(self):
        return self.function == "batch_norm"

    @property
    def mask_shape(self):
        channel = self.axis % len(self.shape)
        return self.shape[:channel] + self.shape[channel + 1 :]

    def forward(self, x, weight=None, bias=None, **given):
        return self._call(self.function, (x,), (weight, bias), {"training": True}, given)

    def backward(self, dy, x, weight=None, **given):
        return self._call(self.function + "_backward", (dy, x), (weight,), {}, given)

    def _call(self, function, arrays, parameters, of_batch, given):
        groups = () if self.groups is None else (self.groups,)
        given = {**(of_batch if self.of_batch else {}), "axis": self.axis, **given}
        return getattr(op, function)(*arrays, *groups, *parameters, **given)

    def rows(self, a):
        """An array of x's shape as (groups, elements)."""
        if self.of_batch:
            return np.moveaxis(a, self.axis, 0).reshape(self.channels, -1)
        return np.moveaxis(a, self.axis, 1).reshape(self.shape[0] * (self.groups or self.channels), -1)

    def back(self, rows):
        """The array of x's shape that these are the rows of."""
        at = 0 if self.of_batch else 1
        moved = np.moveaxis(np.empty(self.shape, np.bool_), self.axis, at).shape
        return np.moveaxis(rows.reshape(moved), at, self.axis)

    def spread(self, mask):
        """A mask as an array of x's shape."""
        return np.broadcast_to(np.expand_dims(mask, self.axis), self.shape)

    def a_channel(self, parameter):
        """Weight or bias as an array that broadcasts to x."""
        shape = [1] * len(self.shape)
        shape[self.axis] = -1
        return ref.wide(parameter).reshape(shape)

    def data(self, name, dtype, seed=0):
        """The hard data set `name`, each group one of its rows."""
        rows = self.rows(np.empty(self.shape, np.bool_)).shape
        return np.ascontiguousarray(self.back(datasets.hard(name, dtype, rows, seed)))

    def mask(self, seed=0):
        """Sequences of every length: of the first axis of the mask one is whole, the others end sooner or later.

        Where there are samples, the last axes of each are cut; of a batch without spatial axes, so is the batch.
        """
        rng = np.random.default_rng(seed)
        shape = self.mask_shape
        if len(shape) == 1 and not self.of_batch:  # nothing to pad: a sample is one place
            return np.ones(shape, np.bool_)
        if len(shape) == 1:
            return rng.permutation(np.arange(shape[0]) < max(2, shape[0] * 2 // 3))
        places = int(np.prod(shape[1:]))
        lengths = rng.integers(min(2, places), places + 1, shape[0])
        lengths[rng.integers(shape[0])] = places
        return (np.arange(places) < lengths[:, None]).reshape(shape)


@dataclasses.dataclass(frozen=True)
class Known:
    """What the formula says of x: xhat in x's shape, and of each row count, mean (in two parts), rstd and max|x - mean|."""

    norm: Norm
    xhat: np.ndarray
    count: np.ndarray
    near: np.ndarray
    centre: np.ndarray
    rstd: np.ndarray
    reach: np.ndarray

    def mean_units(self, mean):
        """As ref.mean_units: of max|x - mean| of what counts, beyond rounding the mean to its own type."""
        half_eps = np.finfo(mean.dtype).eps / 2
        error = np.abs((ref.wide(mean).reshape(self.near.shape) - self.near) - self.centre)
        error = np.maximum(error - half_eps * np.abs(self.near) * 1.001, 0)
        return float(np.where(error == 0, 0, error / (half_eps * self.reach)).max())

    def rstd_units(self, rstd):
        return ref.relative_units(rstd, self.rstd, rstd.dtype)


def known(norm, x, mask=None, eps=1e-5):
    rows = ref.wide(norm.rows(x))
    seen = np.True_ if mask is None else norm.rows(norm.spread(mask))
    count, near, centre, m2 = ref.weighted_moments(norm.rows(x), seen, 1)
    with np.errstate(all="ignore"):
        rstd = 1 / np.sqrt(m2 / count + eps)
        distance = (rows - near) - centre
        reach = np.where(seen, np.abs(distance), 0).max(1, keepdims=True)
        return Known(norm, norm.back(distance * rstd), count, near, centre, rstd, reach)


def affine(norm, xhat, weight=None, bias=None):
    y = xhat if weight is None else xhat * norm.a_channel(weight)
    return y if bias is None else y + norm.a_channel(bias)


def forward(norm, x, weight=None, bias=None, mask=None, eps=1e-5):
    return affine(norm, known(norm, x, mask, eps).xhat, weight, bias)


def backward(norm, dy, x, weight=None, mask=None, eps=1e-5):
    """dx, dweight, dbias."""
    of = known(norm, x, mask, eps)
    dy, xhat = ref.wide(dy), norm.rows(of.xhat)
    seen = 1.0 if mask is None else norm.rows(norm.spread(mask))
    g = norm.rows(affine(norm, dy, weight))
    handed_back = g.sum(1, keepdims=True) + xhat * (g * xhat).sum(1, keepdims=True)
    dx = norm.back(of.rstd * (g - seen * handed_back / of.count))
    axes = ref.others(norm.axis % len(norm.shape), len(norm.shape))
    return dx, (dy * of.xhat).sum(axes), dy.sum(axes)


def wrong(norm, y, y_ref, mask=None):
    """How many elements are further from the formula than promised.

    A unit is that of the largest number among the unmasked of the row; what padding holds may be larger than all of
    them, and has its own. In 16 bits it is the correctly rounded result or its neighbour.
    """
    if y.dtype.itemsize == 2:
        return int((ref.steps(y, y_ref) > 1).sum())
    seen = np.abs(y_ref) if mask is None else np.where(norm.spread(mask), np.abs(y_ref), 0)
    largest = norm.rows(seen).max(1, keepdims=True)
    size = norm.back(np.broadcast_to(largest, norm.rows(seen).shape))
    if mask is not None:
        size = np.where(norm.spread(mask), size, np.maximum(size, np.abs(y_ref)))
    error = np.abs(ref.wide(y) - y_ref)
    return int((~(error <= UNITS * np.finfo(y.dtype).eps / 2 * size)).sum())


def gradient_units(norm, got, want):
    """The largest errors of dx, dweight and dbias: of dx in units of its group, of the others in units of all channels.

    In 16 bits dx is to be the rounded one or its neighbour: 0, or infinity.
    """
    dx, *sums = got
    if dx.dtype.itemsize == 2:
        of_dx = 0.0 if ref.steps(dx, want[0]).max(initial=0) <= 1 else np.inf
    else:
        of_dx = ref.units(norm.rows(dx), norm.rows(want[0]), 1)
    return (of_dx, *(ref.units(a, b, 0) for a, b in zip(sums, want[1:], strict=True)))


# Every layout: channels first, last, first of all and in between; one sample; short and long; narrow, wide and many.
BATCH = [
    Norm("batch_norm", shape, axis)
    for shape, axis in (
        ((40, 5), 1), ((301, 17), 1), ((9001, 3), 1), ((5, 70), 0), ((7, 3, 9), 1), ((7, 9, 3), -1), ((20, 9, 16), 2),
        ((3, 5, 8, 7), 1), ((3, 8, 7, 5), -1), ((3, 8, 5, 7), 2), ((2, 3, 4, 5, 6), 3), ((1, 3, 50), 1), ((1, 50, 3), -1),
        ((1, 2, 8200), 1), ((2, 150, 20), -1), ((40, 4, 10), 1), ((3, 30, 11, 9), 1), ((2, 40, 200), 1),
    )
]  # fmt: skip
GROUP = [
    Norm("group_norm", shape, axis, groups)
    for shape, axis, groups in (
        ((3, 8, 10), 1, 2), ((3, 10, 8), -1, 4), ((2, 6, 7, 5), 1, 3), ((2, 7, 5, 6), -1, 1), ((2, 7, 6, 5), 2, 2),
        ((1, 64, 33), 1, 32), ((1, 33, 64), 2, 8), ((4, 96, 3), 1, 3), ((2, 4, 2, 3, 4), 1, 4), ((1, 2, 8200), 1, 1),
        ((2, 301, 8), -1, 2), ((5, 12), 1, 3), ((5, 12), -1, 1), ((50, 64), 1, 4),
        ((70, 1, 1, 60), -1, 3), ((40, 6, 2, 2), 1, 2), ((9, 20, 9, 9), 1, 4),
    )
]  # fmt: skip
INSTANCE = [
    Norm("instance_norm", shape, axis)
    for shape, axis in (
        ((3, 4, 10), 1), ((3, 10, 4), -1), ((2, 3, 7, 5), 1), ((2, 7, 5, 3), -1), ((2, 7, 3, 5), 2), ((1, 33, 129), 1),
        ((1, 129, 33), -1), ((2, 1, 8200), 1), ((2, 301, 8), -1), ((2, 3, 2, 3, 4), 1), ((30, 3, 9), 1),
    )
]  # fmt: skip
NORMS = [*BATCH, *GROUP, *INSTANCE]
SOME = [BATCH[0], BATCH[4], BATCH[5], BATCH[9], *GROUP[:2], GROUP[4], INSTANCE[0], INSTANCE[1]]
