"""RMS norm: every sample by the root of the mean square of its own features."""

from __future__ import annotations

from . import _core
from ._types import Array, Axes, Viewable


def rms_norm(
    x: Viewable,
    weight: Viewable | None = None,
    *,
    axis: Axes = -1,
    eps: float | None = None,
    out: Array | None = None,
    return_stats: bool = False,
) -> Array | tuple[Array, Array]:
    """Divide x by its root mean square over the given axes: ``x / sqrt(mean(x^2) + eps) * weight``.

    Parameters
    ----------
    x : array of float32, float64, float16 or bfloat16
        Any shape and strides.
    weight : array, optional
        Of the shape of x along `axis`; of x's dtype, or float32 where x has 16 bits.
    axis : int or tuple of int
        The axes to normalize over, together. Trailing axes are the fast case.
    eps : float, optional
        Added to the mean square. None: the eps of the arithmetic, float32's (1.19e-07) or float64's.
    out : array, optional
        Where to write the result: x's shape and dtype, writeable, any strides. It may be x itself.
    return_stats : bool
        Also return the statistics.

    Returns
    -------
    y : array
        x's shape and dtype, C-contiguous; or `out`.
    rstd : array
        With `return_stats`: ``1 / sqrt(mean(x^2) + eps)``, with the reduced axes of length 1; float32, or float64 where
        x is.

    Raises
    ------
    TypeError
        For what is not an array, or has another dtype.
    ValueError
        For a wrong shape or axis, or an `out` that is read-only or overlaps an input.

    References
    ----------
    Zhang & Sennrich (2019), Root Mean Square Layer Normalization.

    Examples
    --------
    >>> import numpy as np, onepass as op
    >>> op.rms_norm(np.array([[3.0, 4.0]]), eps=0.0) * np.sqrt(0.5)
    array([[0.6, 0.8]])
    """
    return _core.rms_norm(x, weight, axis, eps, out, return_stats)  # type: ignore[no-any-return]


def add_rms_norm(
    x: Viewable,
    residual: Viewable,
    weight: Viewable | None = None,
    *,
    axis: Axes = -1,
    eps: float | None = None,
    out: Array | None = None,
    sum_out: Array | None = None,
) -> tuple[Array, Array]:
    """Add a residual and normalize the sum by its root mean square, in one go through memory.

    Parameters
    ----------
    x, residual : array of float32, float64, float16 or bfloat16
        Of one shape and dtype, any strides.
    weight : array, optional
        Of the shape of x along `axis`; of x's dtype, or float32 where x has 16 bits.
    axis : int or tuple of int
        The axes to normalize over, together.
    eps : float, optional
        Added to the mean square. None: the eps of the arithmetic.
    out, sum_out : array, optional
        Where to write the two results: x's shape and dtype, writeable, any strides, apart from each other. `out` may be x
        itself, `sum_out` may be x or residual itself.

    Returns
    -------
    y : array
        ``rms_norm(x + residual, weight)``.
    sum : array
        ``x + residual``, rounded to x's dtype once: it is what is normalized.

    Raises
    ------
    TypeError
        For what is not an array, or has another dtype.
    ValueError
        For a wrong shape or axis, or a result that is read-only or overlaps what it must not.

    References
    ----------
    Zhang & Sennrich (2019), Root Mean Square Layer Normalization.

    Examples
    --------
    >>> import numpy as np, onepass as op
    >>> y, total = op.add_rms_norm(np.array([1.0, 0.0]), np.array([2.0, 4.0]), eps=0.0)
    >>> total, y * np.sqrt(0.5)
    (array([3., 4.]), array([0.6, 0.8]))
    """
    return _core.add_rms_norm(x, residual, weight, axis, eps, out, sum_out)  # type: ignore[no-any-return]


def rms_norm_backward(
    dy: Viewable,
    x: Viewable,
    weight: Viewable | None = None,
    *,
    axis: Axes = -1,
    eps: float | None = None,
) -> tuple[Array, Array]:
    """Gradients of `rms_norm`: those of x and weight, from that of its result.

    Parameters
    ----------
    dy : array
        The gradient of the result: x's shape and dtype, any strides.
    x : array of float32, float64, float16 or bfloat16
        What was normalized. Its statistics are computed again: nothing needs to be kept from the forward pass.
    weight : array, optional
        Of the shape of x along `axis`; of x's dtype, or float32 where x has 16 bits. None: ones.
    axis : int or tuple of int
        The axes that were normalized over, together. Trailing axes are the fast case.
    eps : float, optional
        What was added to the mean square. None: the eps of the arithmetic.

    Returns
    -------
    dx : array
        x's shape and dtype, C-contiguous.
    dweight : array
        Of the shape of x along `axis`; float32, or float64 where x is. Also where there was no weight.

    Raises
    ------
    TypeError
        For what is not an array, or has another dtype.
    ValueError
        For a wrong shape or axis.

    Notes
    -----
    With ``xhat = x * rstd`` and ``g = dy * weight``, ``dx = rstd * (g - xhat * mean(g * xhat))``, and ``dweight`` is the
    sum of ``dy * xhat``. A row of dx does not depend on the other rows; nothing depends on threads, memory layout or
    instruction set. A group of zeros with ``eps=0`` gets 0.

    References
    ----------
    Zhang & Sennrich (2019), Root Mean Square Layer Normalization.

    Examples
    --------
    >>> import numpy as np, onepass as op
    >>> dx, dweight = op.rms_norm_backward(np.array([[1.0, 0.0]]), np.array([[3.0, 4.0]]), eps=0.0)
    >>> dx * np.sqrt(0.5)
    array([[ 0.128, -0.096]])
    >>> dweight * np.sqrt(0.5)
    array([0.6, 0. ])
    """
    return _core.rms_norm_backward(dy, x, weight, axis, eps)  # type: ignore[no-any-return]
