"""Group norm and its gradient: every sample by the mean and deviation of groups of its channels."""

from __future__ import annotations

from . import _core
from ._types import Array, Gradients, Viewable


def group_norm(
    x: Viewable,
    num_groups: int,
    weight: Viewable | None = None,
    bias: Viewable | None = None,
    *,
    axis: int = 1,
    eps: float = 1e-5,
    mask: Viewable | None = None,
    out: Array | None = None,
    return_stats: bool = False,
) -> Array | tuple[Array, Array, Array]:
    """Normalize each group of channels of each sample: ``(x - mean) / sqrt(var + eps) * weight + bias``.

    Parameters
    ----------
    x : array of float32, float64, float16 or bfloat16
        (samples, channels, ...) or channels-last, with any number of spatial axes or none. Any strides.
    num_groups : int
        How many groups the channels are cut into; it divides their number.
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
        With `return_stats`: the mean and ``1 / sqrt(var + eps)``, of length 1 along the spatial axes and `num_groups`
        along the channel axis; float32, or float64 where x is.

    Raises
    ------
    TypeError
        For what is not an array, or has another dtype.
    ValueError
        For a wrong shape or axis, groups that do not divide the channels, or an `out` that is read-only or overlaps an
        input.

    References
    ----------
    Wu & He (2018), Group Normalization. Statistics: Chan, Golub & LeVeque (1979, 1983).

    Examples
    --------
    >>> import numpy as np, onepass as op
    >>> x = np.array([[1, 3, 10, 30]], np.float32)
    >>> op.group_norm(x, 2, eps=0.0)
    array([[-1.,  1., -1.,  1.]], dtype=float32)
    """
    return _core.group_norm(x, num_groups, weight, bias, axis, eps, mask, out, return_stats)  # type: ignore[no-any-return]


def group_norm_backward(
    dy: Viewable,
    x: Viewable,
    num_groups: int,
    weight: Viewable | None = None,
    *,
    axis: int = 1,
    eps: float = 1e-5,
    mask: Viewable | None = None,
) -> Gradients:
    """Gradients of `group_norm`, its statistics taken from x again.

    Parameters
    ----------
    dy : array
        The gradient of the result: x's shape and dtype.
    x : array of float32, float64, float16 or bfloat16
        What was normalized. Any strides; x and dy may be copied where they are not C-contiguous.
    num_groups : int
        As it was given to `group_norm`.
    weight : array of shape (channels,), optional
        Of x's dtype, or float32 where x has 16 bits.
    axis, eps, mask
        As they were given to `group_norm`.

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
        For a wrong shape or axis, or groups that do not divide the channels.

    Notes
    -----
    With ``g = dy * weight`` and n (unmasked) elements of a group,
    ``dx = rstd * (g - sum(g) / n - xhat * sum(g * xhat) / n)``.

    References
    ----------
    Wu & He (2018), Group Normalization.

    Examples
    --------
    >>> import numpy as np, onepass as op
    >>> x = np.array([[1.0, 3.0, 5.0, 10.0, 30.0, 50.0]])
    >>> dx, dweight, dbias = op.group_norm_backward(np.eye(1, 6), x, 2, eps=0.0)
    >>> dx.round(6) + 0.0
    array([[ 0.102062, -0.204124,  0.102062,  0.      ,  0.      ,  0.      ]])
    """
    return _core.group_norm_backward(dy, x, num_groups, weight, axis, eps, mask)
