"""The norms as objects that hold their parameters, and take those that torch has trained.

A layer is the function of its name, with weight, bias and running statistics kept beside the settings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from ._layer import Layer, integer, real, size, sizes, zeros_if
from ._types import Array, Viewable
from .batch_norm import batch_norm
from .group_norm import group_norm
from .instance_norm import instance_norm
from .layer_norm import layer_norm
from .rms_norm import rms_norm


class LayerNorm(Layer):
    """Layer norm that holds its weight and bias: ``layer_norm`` over the last axes.

    Parameters
    ----------
    shape : int or tuple of int
        The shape of x along its last axes, over which it is normalized together.
    eps : float
        Added to the (biased) variance.
    bias : bool
        Whether there is a bias.
    dtype : dtype
        Of weight and bias: float32, float64, float16 or ml_dtypes.bfloat16. x has the same, or may have 16 bits
        where the layer has float32.

    Attributes
    ----------
    weight : array of the given shape and dtype
        Ones at first.
    bias : array of the given shape and dtype, or None
        Zeros at first.
    training : bool
        False; it changes nothing here.

    Raises
    ------
    TypeError, ValueError
        For what is not as above. Calls raise what `layer_norm` does.

    References
    ----------
    Ba, Kiros & Hinton (2016), Layer Normalization.

    Examples
    --------
    >>> import numpy as np, onepass as op
    >>> layer = op.LayerNorm(2, eps=0.0)
    >>> layer
    LayerNorm((2,), eps=0.0, bias=True, dtype=float32)
    >>> layer.bias[:] = 10
    >>> layer(np.array([[1, 3], [200, 100]], np.float32))
    array([[ 9., 11.],
           [11.,  9.]], dtype=float32)
    """

    _SIZES = ("shape",)
    _SETTINGS = ("eps", "bias", "dtype")

    def __init__(
        self,
        shape: int | Sequence[int],
        *,
        eps: float = 1e-5,
        bias: bool = True,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        self.shape = sizes("shape", shape)
        self.eps = real("eps", eps)
        super().__init__(self.shape, dtype)
        self.bias = zeros_if(bias, self.weight)

    def __call__(self, x: Viewable, *, out: Array | None = None) -> Array:
        """``layer_norm(x, weight, bias)`` over the last axes, with the layer's eps; `out` as there."""
        axes = tuple(range(-len(self.shape), 0))
        return layer_norm(x, self.weight, self.bias, axis=axes, eps=self.eps, out=out)  # type: ignore[return-value]


class RMSNorm(Layer):
    """RMS norm that holds its weight: ``rms_norm`` over the last axes.

    Parameters
    ----------
    shape : int or tuple of int
        The shape of x along its last axes, over which it is normalized together.
    eps : float, optional
        Added to the mean square. None: the eps of the arithmetic, float32's (1.19e-07) or float64's.
    dtype : dtype
        Of the weight: float32, float64, float16 or ml_dtypes.bfloat16. x has the same, or may have 16 bits
        where the layer has float32.

    Attributes
    ----------
    weight : array of the given shape and dtype
        Ones at first.
    training : bool
        False; it changes nothing here.

    Raises
    ------
    TypeError, ValueError
        For what is not as above. Calls raise what `rms_norm` does.

    References
    ----------
    Zhang & Sennrich (2019), Root Mean Square Layer Normalization.

    Examples
    --------
    >>> import numpy as np, onepass as op
    >>> layer = op.RMSNorm(2, eps=0.0, dtype=np.float64)
    >>> layer
    RMSNorm((2,), eps=0.0, dtype=float64)
    >>> layer.weight[:] = np.sqrt(0.5)
    >>> layer(np.array([[3.0, 4.0]]))
    array([[0.6, 0.8]])
    """

    _ARRAYS = ("weight",)
    _SIZES = ("shape",)
    _SETTINGS = ("eps", "dtype")

    def __init__(
        self, shape: int | Sequence[int], *, eps: float | None = None, dtype: npt.DTypeLike = np.float32
    ) -> None:
        self.shape = sizes("shape", shape)
        self.eps = None if eps is None else real("eps", eps)
        super().__init__(self.shape, dtype)

    def __call__(self, x: Viewable, *, out: Array | None = None) -> Array:
        """``rms_norm(x, weight)`` over the last axes, with the layer's eps; `out` as there."""
        axes = tuple(range(-len(self.shape), 0))
        return rms_norm(x, self.weight, axis=axes, eps=self.eps, out=out)  # type: ignore[return-value]


class _ChannelLayer(Layer):
    """A layer with a weight and a bias for each channel."""

    _SIZES: ClassVar[tuple[str, ...]] = ("channels",)
    _SETTINGS: ClassVar[tuple[str, ...]] = ("eps", "bias", "axis", "dtype")

    def __init__(
        self,
        channels: int,
        *,
        eps: float = 1e-5,
        bias: bool = True,
        axis: int = 1,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        self.channels = size("channels", channels)
        self.eps = real("eps", eps)
        self.axis = integer("axis", axis)
        super().__init__(self.channels, dtype)
        self.bias = zeros_if(bias, self.weight)


class BatchNorm(_ChannelLayer):
    """Batch norm that holds its weight, bias and running statistics.

    Parameters
    ----------
    channels : int
        How many channels x has.
    eps : float
        Added to the variance.
    momentum : float
        The weight of the batch in the update of the running statistics: torch's meaning; Keras's and ONNX's momentum is
        one minus it.
    running_ddof : float
        What the update subtracts from the count for the variance: 1 as torch does; 0 as ONNX, Keras and Flax do.
    bias : bool
        Whether there is a bias.
    axis : int
        The channel axis: 1 for channels-first, -1 for channels-last.
    dtype : dtype
        Of weight and bias: float32, float64, float16 or ml_dtypes.bfloat16. x has the same, or may have 16 bits
        where the layer has float32.

    Attributes
    ----------
    weight : array of shape (channels,) and the given dtype
        Ones at first.
    bias : array of shape (channels,) and the given dtype, or None
        Zeros at first.
    running_mean, running_var : array of shape (channels,)
        Zeros and ones at first; float32, or float64 where dtype is.
    training : bool
        False: x is normalized with the running statistics. Where it is set to True, with x's own, and the running
        statistics are updated in place.

    Raises
    ------
    TypeError, ValueError
        For what is not as above. Calls raise what `batch_norm` does.

    References
    ----------
    Ioffe & Szegedy (2015), Batch Normalization.

    Examples
    --------
    >>> import numpy as np, onepass as op
    >>> layer = op.BatchNorm(2, eps=0.0, momentum=0.5)
    >>> layer
    BatchNorm(2, eps=0.0, momentum=0.5, running_ddof=1.0, bias=True, axis=1, dtype=float32)
    >>> x = np.array([[1, 100], [3, 300]], np.float32)
    >>> layer.training = True
    >>> layer(x)
    array([[-1., -1.],
           [ 1.,  1.]], dtype=float32)
    >>> layer.running_mean
    array([  1., 100.], dtype=float32)
    >>> layer.training = False
    >>> layer(x[:1])
    array([[0., 0.]], dtype=float32)
    """

    _ARRAYS = (*_ChannelLayer._ARRAYS, "running_mean", "running_var")
    _SETTINGS = ("eps", "momentum", "running_ddof", "bias", "axis", "dtype")

    def __init__(
        self,
        channels: int,
        *,
        eps: float = 1e-5,
        momentum: float = 0.1,
        running_ddof: float = 1,
        bias: bool = True,
        axis: int = 1,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        super().__init__(channels, eps=eps, bias=bias, axis=axis, dtype=dtype)
        self.momentum = real("momentum", momentum)
        self.running_ddof = real("running_ddof", running_ddof)
        arithmetic = np.float64 if self.dtype == np.float64 else np.float32
        self.running_mean: Array = np.zeros(self.channels, arithmetic)
        self.running_var: Array = np.ones(self.channels, arithmetic)

    def __call__(self, x: Viewable, *, mask: Viewable | None = None, out: Array | None = None) -> Array:
        """``batch_norm(x, weight, bias)`` with the layer's running statistics and settings; `mask` and `out` as there."""
        return batch_norm(  # type: ignore[return-value]
            x,
            self.weight,
            self.bias,
            running_mean=self.running_mean,
            running_var=self.running_var,
            training=self.training,
            momentum=self.momentum,
            running_ddof=self.running_ddof,
            axis=self.axis,
            eps=self.eps,
            mask=mask,
            out=out,
        )


class GroupNorm(_ChannelLayer):
    """Group norm that holds its weight and bias.

    Parameters
    ----------
    groups : int
        How many groups the channels are cut into; it divides their number.
    channels : int
        How many channels x has.
    eps : float
        Added to the (biased) variance.
    bias : bool
        Whether there is a bias.
    axis : int
        The channel axis: 1 for channels-first, -1 for channels-last. Axis 0 holds the samples.
    dtype : dtype
        Of weight and bias: float32, float64, float16 or ml_dtypes.bfloat16. x has the same, or may have 16 bits
        where the layer has float32.

    Attributes
    ----------
    weight : array of shape (channels,) and the given dtype
        Ones at first.
    bias : array of shape (channels,) and the given dtype, or None
        Zeros at first.
    training : bool
        False; it changes nothing here.

    Raises
    ------
    TypeError, ValueError
        For what is not as above. Calls raise what `group_norm` does.

    References
    ----------
    Wu & He (2018), Group Normalization.

    Examples
    --------
    >>> import numpy as np, onepass as op
    >>> layer = op.GroupNorm(2, 4, eps=0.0)
    >>> layer
    GroupNorm(2, 4, eps=0.0, bias=True, axis=1, dtype=float32)
    >>> layer(np.array([[1, 3, 10, 30]], np.float32))
    array([[-1.,  1., -1.,  1.]], dtype=float32)
    """

    _SIZES = ("groups", "channels")

    def __init__(
        self,
        groups: int,
        channels: int,
        *,
        eps: float = 1e-5,
        bias: bool = True,
        axis: int = 1,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        self.groups = integer("groups", groups)
        super().__init__(channels, eps=eps, bias=bias, axis=axis, dtype=dtype)
        if self.groups < 1 or self.channels % self.groups:
            raise ValueError(f"groups is {self.groups}; expected a divisor of the {self.channels} channels")

    def __call__(self, x: Viewable, *, mask: Viewable | None = None, out: Array | None = None) -> Array:
        """``group_norm(x, groups, weight, bias)`` with the layer's axis and eps; `mask` and `out` as there."""
        return group_norm(  # type: ignore[return-value]
            x, self.groups, self.weight, self.bias, axis=self.axis, eps=self.eps, mask=mask, out=out
        )


class InstanceNorm(_ChannelLayer):
    """Instance norm that holds its weight and bias: torch's with ``affine=True``.

    Parameters
    ----------
    channels : int
        How many channels x has.
    eps : float
        Added to the (biased) variance.
    bias : bool
        Whether there is a bias.
    axis : int
        The channel axis: 1 for channels-first, -1 for channels-last. Axis 0 holds the samples.
    dtype : dtype
        Of weight and bias: float32, float64, float16 or ml_dtypes.bfloat16. x has the same, or may have 16 bits
        where the layer has float32.

    Attributes
    ----------
    weight : array of shape (channels,) and the given dtype
        Ones at first.
    bias : array of shape (channels,) and the given dtype, or None
        Zeros at first.
    training : bool
        False; it changes nothing here: there are no running statistics.

    Raises
    ------
    TypeError, ValueError
        For what is not as above. Calls raise what `instance_norm` does.

    References
    ----------
    Ulyanov, Vedaldi & Lempitsky (2016), Instance Normalization.

    Examples
    --------
    >>> import numpy as np, onepass as op
    >>> layer = op.InstanceNorm(2, eps=0.0)
    >>> layer
    InstanceNorm(2, eps=0.0, bias=True, axis=1, dtype=float32)
    >>> layer(np.array([[[1, 3], [10, 30]]], np.float32))
    array([[[-1.,  1.],
            [-1.,  1.]]], dtype=float32)
    """

    def __call__(self, x: Viewable, *, mask: Viewable | None = None, out: Array | None = None) -> Array:
        """``instance_norm(x, weight, bias)`` with the layer's axis and eps; `mask` and `out` as there."""
        return instance_norm(  # type: ignore[return-value]
            x, self.weight, self.bias, axis=self.axis, eps=self.eps, mask=mask, out=out
        )
