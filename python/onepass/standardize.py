"""Standardize: every group to mean 0 and deviation 1."""

from __future__ import annotations

from . import _core
from ._types import Array, Axes, Viewable
from .moments import Moments


def standardize(
    x: Viewable,
    *,
    axis: Axes = 0,
    ddof: float = 0,
    eps: float = 0.0,
    out: Array | None = None,
    return_moments: bool = False,
) -> Array | tuple[Array, Moments]:
    """Subtract the mean and divide by the standard deviation: ``(x - mean) / sqrt(M2 / (count - ddof) + eps)``.

    Parameters
    ----------
    x : array of float32, float64, float16 or bfloat16
        Any shape and strides.
    axis : int or tuple of int
        The axes that a group spans; 0 standardizes each column.
    ddof : float
        What is subtracted from the count for the variance.
    eps : float
        Added to the variance.
    out : array, optional
        Where to write the result: x's shape and dtype, writeable, any strides. It may be x itself.
    return_moments : bool
        Also return the `Moments` of x.

    Returns
    -------
    y : array
        x's shape and dtype, C-contiguous; or `out`. A constant group gives 0.
    moments : Moments
        With `return_moments`.

    Raises
    ------
    TypeError
        For what is not an array, or has another dtype.
    ValueError
        For a wrong axis, or an `out` that is read-only, of another shape, or overlaps x.

    References
    ----------
    Chan, Golub & LeVeque (1979, 1983).

    Examples
    --------
    >>> import numpy as np, onepass as op
    >>> op.standardize(np.array([[1.0, 10.0, 7.0], [3.0, 30.0, 7.0]]))
    array([[-1., -1.,  0.],
           [ 1.,  1.,  0.]])
    """
    result = _core.standardize(x, axis, ddof, eps, out, return_moments)
    if not return_moments:
        return result  # type: ignore[no-any-return]
    y, parts = result
    return y, Moments._of(*parts)
