"""What the tests of the layers share: each layer beside its function and torch's module, and states for them."""

import dataclasses
from collections.abc import Callable
from functools import partial

import ml_dtypes
import numpy as np
import pytest

import onepass as op

F32 = np.float32
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = [np.dtype(t) for t in (np.float32, np.float64, np.float16, ml_dtypes.bfloat16)]


@dataclasses.dataclass(frozen=True)
class Kind:
    """A layer, the call that it stands for, and its module in torch."""

    name: str
    make: Callable  # make(dtype=..., bias=...) -> layer
    norm: Callable  # norm(x, weight=..., ...) -> y
    shape: tuple[int, ...]  # of x
    affine: tuple[int, ...]  # of weight and bias
    module: Callable  # module(torch.nn) -> module
    axis: int = 1  # of the channels, which torch has at 1

    @property
    def has_bias(self):
        return not self.name.startswith("RMS")

    @property
    def has_mask(self):
        return self.name.startswith(("Batch", "Group", "Instance"))

    @property
    def has_running(self):
        return self.name.startswith("Batch")

    @property
    def names(self):
        """In torch's order."""
        bias = ["bias"] if self.has_bias else []
        return ["weight", *bias, *(["running_mean", "running_var"] if self.has_running else [])]


def kind(layer, sizes, norm, settings, shape, affine, module):
    """The settings by name are both the layer's and the function's."""
    return Kind(
        f"{layer.__name__}{sizes}{'x'.join(map(str, shape))}", partial(layer, *sizes, **settings),
        partial(norm, **settings), shape, affine, module, settings.get("axis", 1),
    )  # fmt: skip


KINDS = [
    kind(op.LayerNorm, (5,), op.layer_norm, {}, (4, 3, 5), (5,), lambda nn: nn.LayerNorm(5)),
    kind(op.LayerNorm, ((3, 5),), partial(op.layer_norm, axis=(1, 2)), {"eps": 1e-2}, (4, 3, 5), (3, 5),
         lambda nn: nn.LayerNorm((3, 5), eps=1e-2)),
    kind(op.RMSNorm, ([7],), op.rms_norm, {}, (4, 7), (7,), lambda nn: nn.RMSNorm(7)),
    kind(op.RMSNorm, ((3, 5),), partial(op.rms_norm, axis=(0, 1)), {"eps": 1e-2}, (3, 5), (3, 5),
         lambda nn: nn.RMSNorm((3, 5), eps=1e-2)),
    kind(op.BatchNorm, (3,), op.batch_norm, {}, (6, 3, 5, 2), (3,), lambda nn: nn.BatchNorm2d(3)),
    kind(op.BatchNorm, (5,), op.batch_norm, {"axis": -1, "eps": 1e-2, "momentum": 0.25}, (4, 3, 5), (5,),
         lambda nn: nn.BatchNorm1d(5, eps=1e-2, momentum=0.25)),
    kind(op.GroupNorm, (2, 6), partial(op.group_norm, num_groups=2), {}, (4, 6, 5), (6,), lambda nn: nn.GroupNorm(2, 6)),
    kind(op.GroupNorm, (3, 6), partial(op.group_norm, num_groups=3), {"axis": -1, "eps": 1e-2}, (4, 5, 6), (6,),
         lambda nn: nn.GroupNorm(3, 6, eps=1e-2)),
    kind(op.InstanceNorm, (3,), op.instance_norm, {}, (4, 3, 5), (3,), lambda nn: nn.InstanceNorm1d(3, affine=True)),
    kind(op.InstanceNorm, (6,), op.instance_norm, {"axis": 3, "eps": 1e-2}, (2, 5, 4, 6), (6,),
         lambda nn: nn.InstanceNorm2d(6, eps=1e-2, affine=True)),
]  # fmt: skip

each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
each_masked_kind = pytest.mark.parametrize(
    "kind", [k for k in KINDS if k.has_mask], ids=lambda kind: kind.name
)
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def running_dtype(dtype):
    return np.dtype(np.float64 if dtype == np.float64 else F32)


def random_state(layer, seed=0):
    """Arrays as those of the layer, with values as after training."""
    rng = np.random.default_rng(seed)
    return {
        name: (rng.uniform(0.5, 2, a.shape) if name in ("weight", "running_var") else rng.normal(0, 0.5, a.shape))
        .astype(a.dtype)
        for name, a in layer.state_dict().items()
    }  # fmt: skip


def trained(kind, **settings):
    layer = kind.make(**settings)
    layer.load_state_dict(random_state(layer))
    return layer


def data(kind, dtype, seed=1):
    return (2 + 3 * np.random.default_rng(seed).standard_normal(kind.shape)).astype(dtype)


def mask_for(kind, seed=1):
    """Most places of x, some of every sample."""
    shape = tuple(np.delete(kind.shape, kind.axis))
    mask = np.random.default_rng(seed).random(shape) < 0.75
    mask[..., :2], mask.flat[-1] = True, False
    return mask


def bits(state):
    return {name: (array.dtype, array.shape, array.tobytes()) for name, array in state.items()}


def assert_same(a, b):
    assert bits({"": a}) == bits({"": b})
