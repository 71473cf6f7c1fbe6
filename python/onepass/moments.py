"""Moments: count, mean and sum of squares about the mean, and their exact merge.

    count = na + nb,   delta = mean_b - mean_a
    mean  = mean_a + delta nb / count
    M2    = M2_a + M2_b + delta^2 na nb / count

Chan, Golub & LeVeque (1979); with nb = 1 it is Welford's update (1962).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from operator import add

import numpy as np

from . import _core
from ._types import Axes, FloatArray, Viewable


def _two_sum(a: FloatArray, b: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The sum and what rounding took from it (Knuth 1969)."""
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


def _count(count: float | FloatArray) -> float | FloatArray:
    """A scalar as a float, anything else as an array of float64."""
    if type(count) is float:  # (np.ndim takes half as long as the moments of a small array)
        return count
    return float(count) if np.ndim(count) == 0 else np.asarray(count, np.float64)


class Moments:
    """Count, mean and sum of squares about the mean of a group of numbers, or of many groups at once.

    Parameters
    ----------
    count : float or array of float64
        How many numbers a group holds, or the sum of their weights; an array where groups differ.
    mean : array of float64
        Their means, an element a group.
    m2 : array of float64
        Their sums of squares about the mean.

    Notes
    -----
    The mean is kept as a sum of two float64, so that merging loses no digits of a deviation that is small beside it.

    Examples
    --------
    >>> import numpy as np, onepass as op
    >>> x = np.arange(10.0)
    >>> op.moments(x[:3]) + op.moments(x[3:]) == op.moments(x)
    True
    >>> float(op.moments(x).std())
    2.8722813232690143
    """

    __slots__ = ("_low", "count", "m2", "mean")

    count: float | FloatArray
    mean: FloatArray
    m2: FloatArray
    _low: FloatArray

    def __init__(self, count: float | FloatArray, mean: FloatArray, m2: FloatArray) -> None:
        self.count = _count(count)
        self.mean = np.asarray(mean, np.float64)
        self.m2 = np.asarray(m2, np.float64)
        self._low = np.zeros_like(self.mean)

    @classmethod
    def _of(cls, count: float | FloatArray, mean: FloatArray, low: FloatArray, m2: FloatArray) -> Moments:
        made = cls.__new__(cls)
        made.count, made.mean, made._low, made.m2 = count, mean, low, m2
        return made

    def var(self, ddof: float = 0) -> FloatArray:
        """The variance, ``m2 / (count - ddof)``; NaN or infinite, as IEEE has it, where nothing is left to divide by."""
        with np.errstate(all="ignore"):
            return np.asarray(self.m2 / np.subtract(self.count, ddof))

    def std(self, ddof: float = 0) -> FloatArray:
        """The standard deviation, the root of `var`."""
        with np.errstate(all="ignore"):
            return np.asarray(np.sqrt(self.var(ddof)))

    def __add__(self, other: Moments) -> Moments:
        if not isinstance(other, Moments):
            return NotImplemented
        if self.mean.shape != other.mean.shape:
            raise ValueError(f"other has groups of shape {other.mean.shape}; expected {self.mean.shape}")
        count = _count(np.add(self.count, other.count))
        with np.errstate(all="ignore"):
            share = np.divide(other.count, count)
            delta = (other.mean - self.mean) + (other._low - self._low)
            mean, low = _two_sum(self.mean, self._low + delta * share)
            m2 = self.m2 + other.m2 + delta * delta * (self.count * share)
        # What one of both knows nothing about is the other's.
        for of, empty in ((self, np.equal(other.count, 0)), (other, np.equal(self.count, 0))):
            if np.any(empty):
                mean, low, m2 = (
                    np.where(empty, a, b) for a, b in ((of.mean, mean), (of._low, low), (of.m2, m2))
                )
        return Moments._of(count, mean, low, m2)

    @staticmethod
    def merge(parts: Iterable[Moments]) -> Moments:
        """All of them as if they had been one array.

        Parameters
        ----------
        parts : iterable of Moments
            Of groups of one shape. They are merged in a binary tree, neighbours first.

        Raises
        ------
        ValueError
            Where there are none.
        """
        level = list(parts)
        if not level:
            raise ValueError("parts is empty; expected at least one Moments")
        while len(level) > 1:
            level = [reduce(add, level[i : i + 2]) for i in range(0, len(level), 2)]
        return level[0]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Moments):
            return NotImplemented
        return all(
            np.array_equal(getattr(self, name), getattr(other, name), equal_nan=True)
            for name in ("count", "mean", "_low", "m2")
        )

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[object, ...]:
        return Moments._of, (self.count, self.mean, self._low, self.m2)

    def __repr__(self) -> str:
        count = f"{self.count:g}" if isinstance(self.count, float) else repr(self.count)
        return f"Moments(count={count}, mean={self.mean!r}, m2={self.m2!r})"


def moments(
    x: Viewable,
    axis: Axes = 0,
    *,
    mask: Viewable | None = None,
    weights: Viewable | None = None,
    skipna: bool = False,
) -> Moments:
    """Count, mean and sum of squares about the mean of x over the given axes, in one read.

    Parameters
    ----------
    x : array of float32, float64, float16 or bfloat16
        Any shape and strides.
    axis : int or tuple of int
        The axes to reduce, together.
    mask : array of bool, optional
        Broadcast to x; only where it is true do elements count. What stands where it is false may be anything.
    weights : array of float64 or of x's dtype, optional
        How much each element counts, 0 or more: of x's shape, or 1-D along a single reduced axis. The count is their sum.
    skipna : bool
        Leave NaN out, group by group.

    Returns
    -------
    Moments
        With float64 arrays of x's shape without the reduced axes. The count is a float where all groups have the same:
        without `mask`, `skipna` and weights of x's shape.

    Raises
    ------
    TypeError
        For what is not an array, or has another dtype.
    ValueError
        For a wrong axis or shape, or weights that are negative, NaN or infinite.

    Notes
    -----
    Weighted, ``mean = sum(w x) / count`` and ``m2 = sum(w (x - mean)^2)``; a weight of 2 is the same as the element given
    twice. A group of which nothing counts has the count 0 and the mean NaN.

    References
    ----------
    Chan, Golub & LeVeque (1979, 1983); with weights West (1979).

    Examples
    --------
    >>> import numpy as np, onepass as op
    >>> m = op.moments(np.array([[1.0, 10.0], [3.0, 30.0]]))
    >>> m.count, m.mean, m.var(ddof=1)
    (2.0, array([ 2., 20.]), array([  2., 200.]))
    >>> m = op.moments(np.array([[1.0, 10.0], [3.0, np.nan]]), skipna=True)
    >>> m.count, m.mean
    (array([2., 1.]), array([ 2., 10.]))
    """
    count, mean, low, m2 = _core.moments(x, axis, mask, weights, skipna)
    return Moments._of(_count(count), mean, low, m2)
