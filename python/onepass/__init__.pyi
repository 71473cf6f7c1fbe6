"""The public face, typed. The docstrings stand beside the functions."""

from typing import Literal, overload

from ._types import Array, Axes, Viewable
from .batch_norm import batch_norm_backward as batch_norm_backward
from .control import available_isas as available_isas
from .control import get_num_threads as get_num_threads
from .control import isa as isa
from .control import num_threads as num_threads
from .control import set_num_threads as set_num_threads
from .control import show_config as show_config
from .control import use_isa as use_isa
from .group_norm import group_norm_backward as group_norm_backward
from .instance_norm import instance_norm_backward as instance_norm_backward
from .layer_norm import add_layer_norm as add_layer_norm
from .layer_norm import layer_norm_backward as layer_norm_backward
from .layers import BatchNorm as BatchNorm
from .layers import GroupNorm as GroupNorm
from .layers import InstanceNorm as InstanceNorm
from .layers import LayerNorm as LayerNorm
from .layers import RMSNorm as RMSNorm
from .min_max_scale import min_max_scale as min_max_scale
from .moments import Moments as Moments
from .moments import moments as moments
from .rms_norm import add_rms_norm as add_rms_norm
from .rms_norm import rms_norm_backward as rms_norm_backward

__version__: str
__all__: list[str]

@overload
def layer_norm(
    x: Viewable,
    weight: Viewable | None = None,
    bias: Viewable | None = None,
    *,
    axis: Axes = -1,
    eps: float = 1e-5,
    out: Array | None = None,
    return_stats: Literal[False] = False,
) -> Array: ...
@overload
def layer_norm(
    x: Viewable,
    weight: Viewable | None = None,
    bias: Viewable | None = None,
    *,
    axis: Axes = -1,
    eps: float = 1e-5,
    out: Array | None = None,
    return_stats: Literal[True],
) -> tuple[Array, Array, Array]: ...
@overload
def layer_norm(
    x: Viewable,
    weight: Viewable | None = None,
    bias: Viewable | None = None,
    *,
    axis: Axes = -1,
    eps: float = 1e-5,
    out: Array | None = None,
    return_stats: bool,
) -> Array | tuple[Array, Array, Array]: ...
@overload
def rms_norm(
    x: Viewable,
    weight: Viewable | None = None,
    *,
    axis: Axes = -1,
    eps: float | None = None,
    out: Array | None = None,
    return_stats: Literal[False] = False,
) -> Array: ...
@overload
def rms_norm(
    x: Viewable,
    weight: Viewable | None = None,
    *,
    axis: Axes = -1,
    eps: float | None = None,
    out: Array | None = None,
    return_stats: Literal[True],
) -> tuple[Array, Array]: ...
@overload
def rms_norm(
    x: Viewable,
    weight: Viewable | None = None,
    *,
    axis: Axes = -1,
    eps: float | None = None,
    out: Array | None = None,
    return_stats: bool,
) -> Array | tuple[Array, Array]: ...
@overload
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
    return_stats: Literal[False] = False,
) -> Array: ...
@overload
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
    return_stats: Literal[True],
) -> tuple[Array, Array, Array]: ...
@overload
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
    return_stats: bool,
) -> Array | tuple[Array, Array, Array]: ...
@overload
def standardize(
    x: Viewable,
    *,
    axis: Axes = 0,
    ddof: float = 0,
    eps: float = 0.0,
    out: Array | None = None,
    return_moments: Literal[False] = False,
) -> Array: ...
@overload
def standardize(
    x: Viewable,
    *,
    axis: Axes = 0,
    ddof: float = 0,
    eps: float = 0.0,
    out: Array | None = None,
    return_moments: Literal[True],
) -> tuple[Array, Moments]: ...
@overload
def standardize(
    x: Viewable,
    *,
    axis: Axes = 0,
    ddof: float = 0,
    eps: float = 0.0,
    out: Array | None = None,
    return_moments: bool,
) -> Array | tuple[Array, Moments]: ...
@overload
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
    return_stats: Literal[False] = False,
) -> Array: ...
@overload
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
    return_stats: Literal[True],
) -> tuple[Array, Array, Array]: ...
@overload
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
    return_stats: bool,
) -> Array | tuple[Array, Array, Array]: ...
@overload
def instance_norm(
    x: Viewable,
    weight: Viewable | None = None,
    bias: Viewable | None = None,
    *,
    axis: int = 1,
    eps: float = 1e-5,
    mask: Viewable | None = None,
    out: Array | None = None,
    return_stats: Literal[False] = False,
) -> Array: ...
@overload
def instance_norm(
    x: Viewable,
    weight: Viewable | None = None,
    bias: Viewable | None = None,
    *,
    axis: int = 1,
    eps: float = 1e-5,
    mask: Viewable | None = None,
    out: Array | None = None,
    return_stats: Literal[True],
) -> tuple[Array, Array, Array]: ...
@overload
def instance_norm(
    x: Viewable,
    weight: Viewable | None = None,
    bias: Viewable | None = None,
    *,
    axis: int = 1,
    eps: float = 1e-5,
    mask: Viewable | None = None,
    out: Array | None = None,
    return_stats: bool,
) -> Array | tuple[Array, Array, Array]: ...
