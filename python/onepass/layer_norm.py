"""Layer norm: every sample by the mean and deviation of its own features."""

from __future__ import annotations

from . import _core
from ._types import Array, Axes, Viewable


def layer_norm(
    x: Viewable,
    weight: Viewable | None = None,
    bias: Viewable | None = None,
    *,
    axis: Axes = -1,
    eps: float = 1e-5,
    out: Array | None = None,
    return_stats: bool = False,
) -> Array | tuple[Array, Array, Array]:
    """Normalize x over the given axes: ``(x - mean) / sqrt(var + eps) * weight + bias``.

    Parameters
    ----------
    x : array of float32, float64, float16 or bfloat16
        Any shape and strides.
    weight, bias : array, optional
        Of the shape of x along `axis`; of x's dtype, or float32 where x has 16 bits. Either may be given without the other.
    axis : int or tuple of int
        The axes to normalize over, together. Trailing axes are the fast case.
    eps : float
        Added to the (biased) variance.
    out : array, optional
        Where to write the result: x's shape and dtype, writeable, any strides. It may be x itself.
    return_stats : bool
        Also return the statistics.

    Returns
    -------
    y : array
        x's shape and dtype, C-contiguous; or `out`.
    mean, rstd : array
        With `return_stats`: the mean and ``1 / sqrt(var + eps)``, with the reduced axes of length 1; float32, or float64
        where x is.

    Raises
    ------
    TypeError
        For what is not an array, or has another dtype.
    ValueError
        For a wrong shape or axis, or an `out` that is read-only or overlaps an input.

    Notes
    -----
    A constant group gives exactly `bias`. A row's result does not depend on the other rows, on threads, memory layout
    or instruction set.

    References
    ----------
    Ba, Kiros & Hinton (2016), Layer Normalization. Statistics: Chan, Golub & LeVeque (1979, 1983).

    Examples
    --------
    >>> import numpy as np, onepass as op
    >>> x = np.array([[1, 2, 3, 4], [10, 10, 10, 10]], np.float32)
    >>> op.layer_norm(x, eps=0.0).round(3)
    array([[-1.342, -0.447,  0.447,  1.342],
           [ 0.   ,  0.   ,  0.   ,  0.   ]], dtype=float32)
    """
    return _core.layer_norm(x, weight, bias, axis, eps, out, return_stats)  # type: ignore[no-any-return]


def add_layer_norm(
    x: Viewable,
    residual: Viewable,
    weight: Viewable | None = None,
    bias: Viewable | None = None,
    *,
    axis: Axes = -1,
    eps: float = 1e-5,
    out: Array | None = None,
    sum_out: Array | None = None,
) -> tuple[Array, Array]:
    """Add a residual and layer-normalize the sum, in one go through memory.

    Parameters
    ----------
    x, residual : array of float32, float64, float16 or bfloat16
        Of one shape and dtype, any strides.
    weight, bias : array, optional
        Of the shape of x along `axis`; of x's dtype, or float32 where x has 16 bits. Either may be given without the other.
    axis : int or tuple of int
        The axes to normalize over, together.
    eps : float
        Added to the (biased) variance.
    out, sum_out : array, optional
        Where to write the two results: x's shape and dtype, writeable, any strides, apart from each other. `out` may be x
        itself, `sum_out` may be x or residual itself.

    Returns
    -------
    y : array
        ``layer_norm(x + residual, weight, bias)``.
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
    Ba, Kiros & Hinton (2016), Layer Normalization.

    Examples
    --------
    >>> import numpy as np, onepass as op
    >>> y, total = op.add_layer_norm(np.array([1.0, 0.0]), np.array([2.0, 5.0]), eps=0.0)
    >>> total, y
    (array([3., 5.]), array([-1.,  1.]))
    """
    return _core.add_layer_norm(x, residual, weight, bias, axis, eps, out, sum_out)  # type: ignore[no-any-return]


def layer_norm_backward(
    dy: Viewable,
    x: Viewable,
    weight: Viewable | None = None,
    *,
    axis: Axes = -1,
    eps: float = 1e-5,
) -> tuple[Array, Array, Array]:
    """Gradients of `layer_norm`: those of x, weight and bias, from that of its result.

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
    eps : float
        What was added to the variance.

    Returns
    -------
    dx : array
        x's shape and dtype, C-contiguous.
    dweight, dbias : array
        Of the shape of x along `axis`; float32, or float64 where x is. Also where there was no weight or bias.

    Raises
    ------
    TypeError
        For what is not an array, or has another dtype.
    ValueError
        For a wrong shape or axis.

    Notes
    -----
    With ``xhat = (x - mean) * rstd`` and ``g = dy * weight``, ``dx = rstd * (g - mean(g) - xhat * mean(g * xhat))``,
    ``dweight`` is the sum of ``dy * xhat`` and ``dbias`` that of ``dy``. A row of dx does not depend on the other rows;
    nothing depends on threads, memory layout or instruction set. A constant group with ``eps=0`` gets 0.

    References
    ----------
    Ba, Kiros & Hinton (2016), Layer Normalization.

    Examples
    --------
    >>> import numpy as np, onepass as op
    >>> x, dy = np.array([[1.0, 2.0, 3.0], [4.0, 4.0, 7.0]]), np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    >>> dx, dweight, dbias = op.layer_norm_backward(dy, x, eps=0.0)
    >>> dx.round(3) + 0.0
    array([[ 0.204, -0.408,  0.204],
           [-0.354,  0.354,  0.   ]])
    >>> dweight.round(3), dbias
    (array([-1.225, -0.707,  0.   ]), array([1., 1., 0.]))
    """
    return _core.layer_norm_backward(dy, x, weight, axis, eps)  # type: ignore[no-any-return]
