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


class Moments:
    """Count, mean and sum of squares about the mean of a group of numbers, or of many groups at once.

    Parameters
    ----------
    count : float
        How many numbers a group holds.
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

    count: float
    mean: FloatArray
    m2: FloatArray
    _low: FloatArray

    def __init__(self, count: float, mean: FloatArray, m2: FloatArray) -> None:
        mean = np.asarray(mean, np.float64)
        self._set(float(count), mean, np.zeros_like(mean), np.asarray(m2, np.float64))

    def _set(self, count: float, mean: FloatArray, low: FloatArray, m2: FloatArray) -> None:
        self.count, self.mean, self._low, self.m2 = count, mean, low, m2

    @classmethod
    def _of(cls, count: float, mean: FloatArray, low: FloatArray, m2: FloatArray) -> Moments:
        made = cls.__new__(cls)
        made._set(count, mean, low, m2)
        return made

    def var(self, ddof: float = 0) -> FloatArray:
        """The variance, ``m2 / (count - ddof)``; NaN or infinite, as IEEE has it, where nothing is left to divide by."""
        with np.errstate(all="ignore"):
            return np.asarray(self.m2 / np.float64(self.count - ddof))

    def std(self, ddof: float = 0) -> FloatArray:
        """The standard deviation, the root of `var`."""
        with np.errstate(all="ignore"):
            return np.asarray(np.sqrt(self.var(ddof)))

    def __add__(self, other: Moments) -> Moments:
        if not isinstance(other, Moments):
            return NotImplemented
        if self.mean.shape != other.mean.shape:
            raise ValueError(f"other has groups of shape {other.mean.shape}; expected {self.mean.shape}")
        if self.count == 0 or other.count == 0:
            return other if self.count == 0 else self
        count = self.count + other.count
        share = other.count / count
        with np.errstate(all="ignore"):
            delta = (other.mean - self.mean) + (other._low - self._low)
            mean, low = _two_sum(self.mean, self._low + delta * share)
            m2 = self.m2 + other.m2 + delta * delta * (self.count * share)
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
        return self.count == other.count and all(
            np.array_equal(getattr(self, name), getattr(other, name), equal_nan=True)
            for name in ("mean", "_low", "m2")
        )

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[object, ...]:
        return Moments._of, (self.count, self.mean, self._low, self.m2)

    def __repr__(self) -> str:
        return f"Moments(count={self.count:g}, mean={self.mean!r}, m2={self.m2!r})"


def moments(x: Viewable, axis: Axes = 0) -> Moments:
    """Count, mean and sum of squares about the mean of x over the given axes, in one read.

    Parameters
    ----------
    x : array of float32, float64, float16 or bfloat16
        Any shape and strides.
    axis : int or tuple of int
        The axes to reduce, together.

    Returns
    -------
    Moments
        With float64 arrays of x's shape without the reduced axes.

    Raises
    ------
    TypeError
        For what is not an array, or has another dtype.
    ValueError
        For a wrong axis.

    References
    ----------
    Welford (1962); Chan, Golub & LeVeque (1979).

    Examples
    --------
    >>> import numpy as np, onepass as op
    >>> m = op.moments(np.array([[1.0, 10.0], [3.0, 30.0]]))
    >>> m.count, m.mean, m.var(ddof=1)
    (2.0, array([ 2., 20.]), array([  2., 200.]))
    """
    return Moments._of(*_core.moments(x, axis))
