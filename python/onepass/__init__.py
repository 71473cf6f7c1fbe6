"""LayerNorm, BatchNorm and their family for NumPy on the CPU.

Statistics are taken in a single pass and the results have the same bits whatever the number of threads, the
alignment or the instruction set. Every function takes NumPy arrays and gives NumPy arrays; see each one's docstring.
"""

from .batch_norm import batch_norm, batch_norm_backward
from .control import (
    available_isas,
    get_num_threads,
    isa,
    num_threads,
    set_num_threads,
    show_config,
    use_isa,
)
from .group_norm import group_norm, group_norm_backward
from .instance_norm import instance_norm, instance_norm_backward
from .layer_norm import add_layer_norm, layer_norm, layer_norm_backward
from .layers import BatchNorm, GroupNorm, InstanceNorm, LayerNorm, RMSNorm
from .min_max_scale import min_max_scale
from .moments import Moments, moments
from .rms_norm import add_rms_norm, rms_norm, rms_norm_backward
from .standardize import standardize

__all__ = [
    "BatchNorm",
    "GroupNorm",
    "InstanceNorm",
    "LayerNorm",
    "Moments",
    "RMSNorm",
    "add_layer_norm",
    "add_rms_norm",
    "available_isas",
    "batch_norm",
    "batch_norm_backward",
    "get_num_threads",
    "group_norm",
    "group_norm_backward",
    "instance_norm",
    "instance_norm_backward",
    "isa",
    "layer_norm",
    "layer_norm_backward",
    "min_max_scale",
    "moments",
    "num_threads",
    "rms_norm",
    "rms_norm_backward",
    "set_num_threads",
    "show_config",
    "standardize",
    "use_isa",
]


def __getattr__(name: str) -> str:
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import version  # four times as long to import as all of this package

    return version("onepass")
