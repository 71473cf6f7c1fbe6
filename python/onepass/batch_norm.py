"""Batch norm and its gradient: every channel by its mean and deviation over the batch, or by running statistics."""

from __future__ import annotations

from . import _core
from ._types import Array, Gradients, Viewable


def batch_norm(
    x: Viewable,
    weight: Viewable | None = None,
    bias: Viewable | None = None,
    *,
    running_mean: Viewable | None = None,
    running_var: Viewable | None = None,
    training: bool = False,
    momentum: float = 0.1,
    running_ddof: float = 1,
    axis: int = 1,
    eps: float = 1e-5,
    mask: Viewable | None = None,
    out: Array | None = None,
    return_stats: bool = False,
) -> Array | tuple[Array, Array, Array]:
    """Normalize each channel of x: ``(x - mean) / sqrt(var + eps) * weight + bias``.

    Parameters
    ----------
    x : array of float32, float64, float16 or bfloat16
        Any number of axes, any strides; every axis but `axis` is reduced.
    weight, bias : array of shape (channels,), optional
        Of x's dtype, or float32 where x has 16 bits; either may be given without the other.
    running_mean, running_var : array of shape (channels,), optional
        float32 (float64 where x is), any stride. ``training=False`` normalizes with them and needs both;
        ``training=True`` updates in place what is given: ``r = (1 - momentum) * r + momentum * batch``.
    training : bool
        Normalize with the batch's own mean and biased variance.
    momentum : float
        The weight of the batch in the update: torch's meaning; Keras's and ONNX's momentum is one minus it.
    running_ddof : float
        What the update subtracts from the count for the variance: 1 as torch does; 0 as ONNX, Keras and Flax do.
    axis : int
        The channel axis: 1 for channels-first, -1 for channels-last.
    eps : float
        Added to the variance.
    mask : array of bool, optional
        x's shape without the channel axis. Only where it is true do elements enter the statistics and their counts; every
        element is normalized. What stands where it is false may be anything.
    out : array, optional
        Where to write the result: x's shape and dtype, writeable, any strides. It may be x itself.
    return_stats : bool
        Also return the statistics that were used.

    Returns
    -------
    y : array
        x's shape and dtype, C-contiguous; or `out`.
    mean, rstd : array
        With `return_stats`: the mean and ``1 / sqrt(var + eps)`` with the reduced axes of length 1; float32, or float64
        where x is.

    Raises
    ------
    TypeError
        For what is not an array, or has another dtype.
    ValueError
        For a wrong shape or axis, missing running statistics, memory that is read-only or overlaps, or a running variance
        to be updated from no more than `running_ddof` (unmasked) elements a channel. Nothing has been written then.

    Notes
    -----
    A constant channel gives exactly `bias`. An empty batch, or one without an unmasked element, leaves
    the running statistics as they were.

    References
    ----------
    Ioffe & Szegedy (2015), Batch Normalization. Statistics: Chan, Golub & LeVeque (1979, 1983).

    Examples
    --------
    >>> import numpy as np, onepass as op
    >>> x = np.array([[1, 100], [3, 300]], np.float32)
    >>> op.batch_norm(x, training=True, eps=0.0)
    array([[-1., -1.],
           [ 1.,  1.]], dtype=float32)
    >>> mean, var = np.zeros(2, np.float32), np.ones(2, np.float32)
    >>> y = op.batch_norm(x, running_mean=mean, running_var=var, training=True)
    >>> mean, var
    (array([ 0.2, 20. ], dtype=float32), array([1.1000e+00, 2.0009e+03], dtype=float32))
    """
    return _core.batch_norm(  # type: ignore[no-any-return]
        x,
        weight,
        bias,
        running_mean,
        running_var,
        training,
        momentum,
        running_ddof,
        axis,
        eps,
        mask,
        out,
        return_stats,
    )


def batch_norm_backward(
    dy: Viewable,
    x: Viewable,
    weight: Viewable | None = None,
    *,
    running_mean: Viewable | None = None,
    running_var: Viewable | None = None,
    training: bool = True,
    axis: int = 1,
    eps: float = 1e-5,
    mask: Viewable | None = None,
) -> Gradients:
    """Gradients of `batch_norm`, its statistics taken from x again.

    Parameters
    ----------
    dy : array
        The gradient of the result: x's shape and dtype.
    x : array of float32, float64, float16 or bfloat16
        What was normalized. Any strides; x and dy may be copied where they are not C-contiguous.
    weight : array of shape (channels,), optional
        Of x's dtype, or float32 where x has 16 bits.
    running_mean, running_var : array of shape (channels,), optional
        What ``training=False`` was given; it needs both. They are constants of that gradient.
    training : bool
        Whether the batch's own statistics were used: the default here, since gradients belong to training.
    axis, eps
        As they were given to `batch_norm`.
    mask : array of bool, optional
        As it was given to `batch_norm`: elements where it is false were normalized, but had no part in the statistics.

    Returns
    -------
    dx : array
        x's shape and dtype, C-contiguous.
    dweight, dbias : array of shape (channels,)
        float32, or float64 where x is. Always returned.

    Raises
    ------
    TypeError
        For what is not an array, or has another dtype.
    ValueError
        For a wrong shape or axis, or missing running statistics.

    Notes
    -----
    With ``g = dy * weight`` and n (unmasked) elements a channel,
    ``dx = rstd * (g - sum(g) / n - xhat * sum(g * xhat) / n)``: both means are what the statistics hand back.

    References
    ----------
    Ioffe & Szegedy (2015), Batch Normalization.

    Examples
    --------
    >>> import numpy as np, onepass as op
    >>> x = np.array([[1.0], [3.0], [5.0]])
    >>> dx, dweight, dbias = op.batch_norm_backward(np.array([[1.0], [0.0], [0.0]]), x, eps=0.0)
    >>> dx.round(6) + 0.0, dweight.round(6), dbias
    (array([[ 0.102062],
           [-0.204124],
           [ 0.102062]]), array([-1.224745]), array([1.]))
    """
    return _core.batch_norm_backward(dy, x, weight, running_mean, running_var, training, axis, eps, mask)
