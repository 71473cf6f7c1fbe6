"""Gradients over channels of arrays whose samples, or the rows of one, lie apart: read as they lie, or copied.

What comes of them is known without it: the bits of the same call on arrays in C order.
"""

import numpy as np
import pytest
from bit_cases import assert_same
from layouts import every_dtype

import onepass as op


def values(*shape):
    return np.random.default_rng(1).standard_normal(shape)


# Wide enough not to be folded, or narrow; in one piece, or several. `axis`: the channels'.
VIEWS = {
    "columns of wider rows": (values(300, 640), lambda a: a[:, 40:600], 1),
    "narrow columns": (values(3000, 90), lambda a: a[:, 5:69], 1),
    "every third row": (values(900, 520), lambda a: a[::3], 1),
    "rows backwards": (values(70, 600), lambda a: a[::-1], 1),
    "one row, many times": (values(1, 600), lambda a: np.broadcast_to(a, (50, 600)), 1),
    "columns backwards": (values(70, 600), lambda a: a[:, ::-1], 1),
    "every second column": (values(70, 1200), lambda a: a[:, ::2], 1),
    "some channels": (values(5, 40, 6, 7), lambda a: a[:, 3:31], 1),
    "every second channel": (values(5, 48, 9, 31), lambda a: a[:, ::2], 1),
    "channels backwards": (values(4, 24, 100), lambda a: a[:, ::-1], 1),
    "every second sample": (values(8, 24, 100), lambda a: a[::2], 1),
    "long channels": (values(3, 8, 9000), lambda a: a[:, 1:7], 1),
    "one sample, many times": (values(1, 12, 90), lambda a: np.broadcast_to(a, (6, 12, 90)), 1),
    "one channel, many times": (values(5, 1, 90), lambda a: np.broadcast_to(a, (5, 12, 90)), 1),
    "cropped images": (values(3, 12, 9, 9), lambda a: a[:, :, 1:-1, 1:-1], 1),
    "swapped samples and channels": (values(12, 5, 60), lambda a: a.swapaxes(0, 1), 1),
    "without images": (values(40, 96), lambda a: a[:, ::2], 1),
    "images of one element": (values(40, 700, 1, 1), lambda a: a[:, 60:660], 1),
    "every second image of one element": (values(40, 48, 1, 1), lambda a: a[:, ::2], 1),
    "channels last of more": (values(4, 6, 7, 640), lambda a: a[..., 40:600], -1),
    "channels last, swapped": (values(6, 4, 7, 560), lambda a: a.swapaxes(0, 1), -1),
    "channels last, cropped": (values(4, 6, 7, 560), lambda a: a[:, 1:-1, 1:-1], -1),
    "narrow channels last of more": (values(4, 20, 30, 90), lambda a: a[..., 9:73], -1),
    # Whose elements lie apart, and are brought side by side.
    "channels last as first": (values(3, 9, 13, 70), lambda a: np.moveaxis(a, -1, 1), 1),
    "channels last as first, tiny": (values(40, 3, 3, 48), lambda a: np.moveaxis(a, -1, 1), 1),
    "some channels last as first": (values(3, 9, 13, 90), lambda a: np.moveaxis(a[..., 7:71], -1, 1), 1),
    "channels first as last": (values(3, 70, 9, 13), lambda a: np.moveaxis(a, 1, -1), -1),
    "channels first as last, wide": (values(3, 600, 4, 5), lambda a: np.moveaxis(a, 1, -1), -1),
    "every second place": (values(4, 6, 7, 14), lambda a: a[..., ::2], 1),
    "places backwards": (values(4, 6, 7, 9), lambda a: a[:, :, ::-1, ::-1], 1),
    "samples last": (values(6, 9, 13, 20), lambda a: np.moveaxis(a, -1, 0), 1),
    "samples last, without images": (values(96, 40), lambda a: a.T[:, None], -1),
    "every second channel last, without images": (values(40, 96), lambda a: a[:, None, ::2], -1),
}


@every_dtype
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("name", VIEWS)
def test_gradients(name, dtype, threads):
    array, view, axis = VIEWS[name]
    x = view(array.astype(dtype))
    dense, channels = np.ascontiguousarray(x), x.shape[axis]
    weight = (1 + np.arange(channels) % 5).astype(dtype)
    wide = np.float64 if dtype is np.float64 else np.float32
    mean, var = np.linspace(-1, 1, channels, dtype=wide), np.linspace(1, 2, channels, dtype=wide)
    mask = np.arange(x.size // channels).reshape(np.delete(x.shape, axis)) % 3 > 0
    calls = [
        lambda dy, x: op.batch_norm_backward(dy, x, weight, axis=axis),
        lambda dy, x: op.batch_norm_backward(dy, x, weight, axis=axis, mask=mask),
        lambda dy, x: op.batch_norm_backward(
            dy, x, weight, running_mean=mean, running_var=var, training=False, axis=axis
        ),
        lambda dy, x: op.group_norm_backward(dy, x, 2, weight, axis=axis),
    ]
    if x.ndim > 2:
        calls.append(lambda dy, x: op.instance_norm_backward(dy, x, weight, axis=axis))
    with op.num_threads(threads):
        for call in calls:
            want = call(dense, dense)
            for dy, of in ((x, x), (x, dense), (dense, x)):
                assert_same(call(dy, of), want, name)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("shape", [(12, 33, 32, 80), (2, 91, 90, 160)], ids=str)
def test_parts(shape, threads):
    """More than is brought at a time: some samples or channels, or some channels of each sample."""
    x = np.moveaxis(values(*shape).astype(np.float32), -1, 1)
    dense, weight = np.ascontiguousarray(x), (1 + np.arange(shape[-1]) % 5).astype(np.float32)
    mask = np.arange(x.size // shape[-1]).reshape(shape[:-1]) % 3 > 0
    calls = [
        lambda a: op.batch_norm_backward(a, a, weight),
        lambda a: op.group_norm_backward(a, a, 16, weight),
        lambda a: op.instance_norm_backward(a, a, mask=mask),
        lambda a: op.group_norm(a, 8, weight, mask=mask, return_stats=True),
        lambda a: op.batch_norm(a, weight, training=True, mask=mask, return_stats=True),
    ]
    with op.num_threads(threads):
        for call in calls:
            assert_same(call(x), call(dense), str(shape))
