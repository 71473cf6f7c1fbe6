"""Columns and blocks of arrays whose elements lie apart, as those of a data frame do: brought side by side, some at a time.

What comes of them is known without it: the bits of the same call on arrays in C order.
"""

import concurrent.futures

import ml_dtypes
import numpy as np
import pytest
from bit_cases import assert_same, results, ways
from layouts import every_dtype

import onepass as op


def values(*shape):
    return np.random.default_rng(2).standard_normal(shape)


# Few elements, which are brought all at once, and many; rows that are folded, end to end or not, and rows that are not;
# several blocks; rows of channels, and short ones. `axis`: the channels'.
VIEWS = {
    "Fortran": (values(100, 1000), lambda a: a.T, 1),
    "Fortran, narrow": (values(12, 100001), lambda a: a.T, 1),
    "Fortran, a column": (values(2, 3000), lambda a: a[:1].T, 1),
    "Fortran, folded apart": (values(200, 8003), lambda a: a.T, 1),
    "Fortran, wide": (values(1400, 1001), lambda a: a.T, 1),
    "Fortran, a few rows": (values(3000, 13), lambda a: a.T, 1),
    "Fortran, backwards": (values(100, 1000), lambda a: a.T[::-1, ::-1], 1),
    "Fortran of more": (values(40, 2000), lambda a: a.T[5:1500, 3:], 1),
    "Fortran images": (values(9, 12, 20, 6), lambda a: a.T, 1),
    "every second column": (values(2100, 1300), lambda a: a[:, ::2], 1),
    "columns backwards": (values(70, 600), lambda a: a[:, ::-1], 1),
    "one element, many times": (values(600, 1), lambda a: np.broadcast_to(a, (600, 130)), 1),
    "channels last": (values(3, 9, 13, 70), lambda a: np.moveaxis(a, -1, 1), 1),
    "channels last, many": (values(5, 70, 61, 60), lambda a: np.moveaxis(a, -1, 1), 1),
    "channels last, short": (values(40, 5, 7, 30), lambda a: np.moveaxis(a, -1, 1), 1),
    "channels first": (values(3, 70, 9, 13), lambda a: np.moveaxis(a, 1, -1), -1),
    "every second place": (values(4, 6, 7, 14), lambda a: a[..., ::2], 1),
    "images backwards": (values(4, 6, 7, 7), lambda a: a[..., ::-1], 2),
    "first axis last": (values(200, 30, 12), lambda a: a.transpose(1, 2, 0), 0),
    "first axes swapped": (values(30, 20, 50), lambda a: a.swapaxes(0, 1), 0),
    "last axes swapped": (values(9, 90, 33), lambda a: a.swapaxes(1, 2), 1),
}


@every_dtype
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("large", [False, True], ids=["", "large"])
@pytest.mark.parametrize("name", VIEWS)
def test_columns(name, large, dtype, threads):
    array, view, axis = VIEWS[name]
    array = (array * (float(ml_dtypes.finfo(dtype).max) / 16) if large else array).astype(dtype)
    x, channels = view(array), view(array).shape[axis]
    dense, others = np.ascontiguousarray(x), tuple(np.delete(np.arange(x.ndim), axis))
    wide = np.float64 if dtype is np.float64 else np.float32
    weight, bias = (1 + np.arange(channels) % 5).astype(dtype), (np.arange(channels) % 3).astype(dtype)
    mean, var = np.linspace(-1, 1, channels, dtype=wide), np.linspace(1, 2, channels, dtype=wide)
    calls = [
        lambda a, out: op.batch_norm(a, weight, bias, training=True, axis=axis, out=out, return_stats=True),
        lambda a, out: op.batch_norm(a, weight, running_mean=mean, running_var=var, axis=axis, out=out),
        lambda a, out: op.standardize(a, axis=others, out=out),
        lambda a, out: op.min_max_scale(a, axis=others, out=out),
        lambda a, out: op.min_max_scale(a, axis=axis, out=out),
        lambda a, out: op.layer_norm(a, weight, bias, axis=axis, out=out, return_stats=True),
        lambda a, out: op.layer_norm(a, bias=bias, axis=axis, out=out),
        lambda a, out: op.layer_norm(a, axis=axis, out=out),
        lambda a, out: op.rms_norm(a, weight, axis=axis, out=out),
    ]
    with op.num_threads(threads):
        got, want = op.moments(x, axis=others), op.moments(dense, axis=others)
        assert_same((got.mean, got.m2), (want.mean, want.m2), name)
        for call in calls:
            want = results(call, dense, None)
            for of, out in ways(lambda: view(array.copy())):
                assert_same(results(call, of, out), want, name)


@pytest.mark.parametrize("columns", [4, 512])
def test_long_blocks(columns):
    """Many rows are cut into blocks that are longer than others, folded or not."""
    x = np.tile(values(columns, 1000).astype(np.float16), (1, (17 << 20) // 2 // columns // 1000)).T
    dense = np.ascontiguousarray(x)
    got, want = op.moments(x, axis=0), op.moments(dense, axis=0)
    assert_same((got.mean, got.m2), (want.mean, want.m2), "moments")
    assert_same([op.standardize(x, axis=0)], [op.standardize(dense, axis=0)], "standardize")


def test_in_new_memory():
    """A new thread's scratch memory holds no more than a call needs, so that what is written beside it is not its own."""
    dense = (values(4, 100, 64, 65) * 1e37).astype(np.float32)
    x = np.moveaxis(np.ascontiguousarray(np.moveaxis(dense, 1, -1)), -1, 1)
    out = np.empty_like(x)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pool.submit(op.standardize, x, axis=(0, 2, 3), out=out).result()
    assert_same([out], [op.standardize(dense, axis=(0, 2, 3))], "out of range, channels last")


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("shape", [(50, 8), (3000, 600), (20000, 12)], ids=str)
def test_windows_that_overlap(shape, threads):
    """Both their rows and a row's elements lie beside each other, and are not ours to write, wherever results go."""
    rows, cols = shape
    held = values(rows + cols - 1).astype(np.float32)
    before, weight = held.copy(), (1 + np.arange(rows) % 5).astype(np.float32)
    x = np.lib.stride_tricks.sliding_window_view(held, cols)
    calls = [
        lambda a, out: op.layer_norm(a, weight, weight, axis=0, out=out),
        lambda a, out: op.rms_norm(a, weight, axis=0, out=out),
        lambda a, out: op.layer_norm(a, out=out),
        lambda a, out: op.batch_norm(a, training=True, out=out),
        lambda a, out: op.min_max_scale(a, out=out),
    ]
    with op.num_threads(threads):
        for call in calls:
            want = results(call, np.ascontiguousarray(x), None)
            for out in (None, np.empty((cols, rows), np.float32).T, np.empty((rows, cols), np.float32)):
                assert_same(results(call, x, out), want, str(shape))
                assert np.array_equal(held, before)


def test_running_statistics():
    """They are of the same elements, wherever those lie."""
    x = values(300, 40).astype(np.float32)
    of = [[np.zeros(40, np.float32), np.ones(40, np.float32)] for _ in range(2)]
    for array, (mean, var) in zip((x, np.asfortranarray(x)), of, strict=True):
        op.batch_norm(array, running_mean=mean, running_var=var, training=True)
    assert_same(*of, "running statistics")
