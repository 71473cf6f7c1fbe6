"""Instance norm and its gradient: every channel of every sample by its own mean and deviation."""

from __future__ import annotations

from . import _core
from ._types import Array, Gradients, Viewable


def instance_norm(
    x: Viewable,
    weight: Viewable | None = None,
    bias: Viewable | None = None,
    *,
    axis: int = 1,
    eps: float = 1e-5,
    mask: Viewable | None = None,
    out: Array | None = None,
    return_stats: bool = False,
) -> Array | tuple[Array, Array, Array]:
    """Normalize each channel of each sample: ``(x - mean) / sqrt(var + eps) * weight + bias``.

    Parameters
    ----------
    x : array of float32, float64, float16 or bfloat16
        (samples, channels, ...) or channels-last, with at least one spatial axis. Any strides.
    weight, bias : array of shape (channels,), optional
        Of x's dtype, or float32 where x has 16 bits; either may be given without the other.
    axis : int
        The channel axis: 1 for channels-first, -1 for channels-last. Axis 0 holds the samples.
    eps : float
        Added to the (biased) variance.
    mask : array of bool, optional
        x's shape without the channel axis. Only where it is true do elements enter the statistics; every element is
        normalized. What stands where it is false may be anything.
    out : array, optional
        Where to write the result: x's shape and dtype, writeable, any strides. It may be x itself.
    return_stats : bool
        Also return the statistics.

    Returns
    -------
    y : array
        x's shape and dtype, C-contiguous; or `out`.
    mean, rstd : array
        With `return_stats`: the mean and ``1 / sqrt(var + eps)``, of length 1 along the spatial axes and of its length
        along the channel axis; float32, or float64 where x is.

    Raises
    ------
    TypeError
        For what is not an array, or has another dtype.
    ValueError
        For a wrong shape or axis, or an `out` that is read-only or overlaps an input.

    References
    ----------
    Ulyanov, Vedaldi & Lempitsky (2016), Instance Normalization. Statistics: Chan, Golub & LeVeque (1979, 1983).

    Examples
    --------
    >>> import numpy as np, onepass as op
    >>> x = np.array([[[1, 3], [10, 30]]], np.float32)
    >>> op.instance_norm(x, eps=0.0)
    array([[[-1.,  1.],
            [-1.,  1.]]], dtype=float32)
    """
    return _core.instance_norm(x, weight, bias, axis, eps, mask, out, return_stats)  # type: ignore[no-any-return]


def instance_norm_backward(
    dy: Viewable,
    x: Viewable,
    weight: Viewable | None = None,
    *,
    axis: int = 1,
    eps: float = 1e-5,
    mask: Viewable | None = None,
) -> Gradients:
    """Gradients of `instance_norm`, its statistics taken from x again.

    Parameters
    ----------
    dy : array
        The gradient of the result: x's shape and dtype.
    x : array of float32, float64, float16 or bfloat16
        What was normalized. Any strides; x and dy may be copied where they are not C-contiguous.
    weight : array of shape (channels,), optional
        Of x's dtype, or float32 where x has 16 bits.
    axis, eps, mask
        As they were given to `instance_norm`.

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
        For a wrong shape or axis.

    Notes
    -----
    With ``g = dy * weight`` and n (unmasked) elements of a channel of a sample,
    ``dx = rstd * (g - sum(g) / n - xhat * sum(g * xhat) / n)``.

    References
    ----------
    Ulyanov, Vedaldi & Lempitsky (2016), Instance Normalization.

    Examples
    --------
    >>> import numpy as np, onepass as op
    >>> x = np.array([[[1.0, 3.0, 5.0], [10.0, 30.0, 50.0]]])
    >>> dx, dweight, dbias = op.instance_norm_backward(np.ones_like(x), x, eps=0.0)
    >>> dx + 0.0, dbias
    (array([[[0., 0., 0.],
            [0., 0., 0.]]]), array([3., 3.]))
    """
    return _core.instance_norm_backward(dy, x, weight, axis, eps, mask)
