"""Rows that are brought side by side, some at a time, and rows whose first dimensions no single stride joins.

What comes of them is known without it: the bits of the same call on arrays in C order.
"""

import numpy as np
import pytest
from bit_cases import assert_same, results, ways
from layouts import every_dtype

import onepass as op


def values(*shape):
    return np.random.default_rng(0).standard_normal(shape)


# More rows than a panel holds, and more panels than one; each function of an array gives a view of another.
VIEWS = {
    "transposed": (values(300, 1500), lambda a: a.T),
    "transposed, narrow": (values(20, 15000), lambda a: a.T),
    "transposed, wide": (values(9000, 40), lambda a: a.T),
    "transposed, a few": (values(17, 19), lambda a: a.T),
    "channels last": (values(3, 70, 9, 13), lambda a: np.moveaxis(a, 1, -1)),
    "heads first": (values(2, 60, 5, 64), lambda a: a.transpose(0, 2, 1, 3)),
    "windows": (values(2, 4, 3, 4, 3, 20), lambda a: a.transpose(0, 1, 3, 2, 4, 5)),
    "many dimensions": (values(3, 2, 3, 2, 3, 2, 3, 8), lambda a: a.transpose(6, 5, 4, 3, 2, 1, 0, 7)),
    "three heads of eight": (values(3, 500, 8, 64), lambda a: a[:, :, :3]),
    "a head of eight": (values(40, 8, 17), lambda a: a[:, 5:6]),
    "heads, narrow": (values(9000, 4, 9), lambda a: a[:, 1:]),
    "every second element": (values(700, 250), lambda a: a[:, ::2]),
    "every seventh element": (values(700, 700), lambda a: a[:, ::7]),
    "backwards": (values(30, 20, 150), lambda a: a[:, :, ::-1]),
    "all backwards": (values(300, 1500), lambda a: a.T[::-1, ::-1]),
    "columns of rows that lie apart": (values(400, 600), lambda a: a[:, ::2].T),
    "a few long rows": (values(2, 4, 40000), lambda a: a[:, :3, ::2]),
    "one element, many times": (values(600, 1), lambda a: np.broadcast_to(a, (600, 130))),
    "channels last as first": (values(2, 32, 32, 300), lambda a: np.moveaxis(a, -1, 1)),
    "channels last as first, few": (values(5, 7, 6, 40), lambda a: np.moveaxis(a, -1, 1)),
    "some channels": (values(4, 30, 6, 7), lambda a: a[:, 4:24]),
    "every second channel": (values(4, 40, 6, 7), lambda a: a[:, ::2]),
    "channels backwards": (values(4, 20, 64, 64), lambda a: a[:, ::-1]),
}

every_view = pytest.mark.parametrize("name", VIEWS)


def view_of(name, dtype):
    array, view = VIEWS[name]
    x = view(array.astype(dtype))
    return x, np.ascontiguousarray(x)


def parameters(x):
    cols = np.arange(x.shape[-1])
    return (1 + 0.01 * (cols % 7)).astype(x.dtype), (0.1 * (cols % 5)).astype(x.dtype)


@every_dtype
@pytest.mark.parametrize("threads", [1, 3])
@every_view
def test_norms_of_rows(name, dtype, threads):
    x, dense = view_of(name, dtype)
    weight, bias = parameters(x)
    with op.num_threads(threads):
        for call in (
            lambda a: op.layer_norm(a, weight, bias),
            lambda a: op.layer_norm(a, weight, bias, return_stats=True),
            lambda a: op.rms_norm(a, weight),
            lambda a: op.min_max_scale(a, axis=-1),
            lambda a: op.standardize(a, axis=-1),
            lambda a: op.add_layer_norm(a, a, weight, bias),
            lambda a: op.add_rms_norm(a, dense, weight),
            lambda a: op.add_rms_norm(dense, a, weight),
        ):
            assert_same(results(call, x), results(call, dense), name)
        got, want = op.moments(x, axis=-1), op.moments(dense, axis=-1)
        assert_same((got.mean, got.m2), (want.mean, want.m2), name)
        out = np.empty((*x.shape[:-1], x.shape[-1] + 3), dtype)[..., 1:-2]
        assert_same([op.layer_norm(x, weight, bias, out=out)], [op.layer_norm(dense, weight, bias)], name)


@every_dtype
@pytest.mark.parametrize("threads", [1, 3])
@every_view
def test_gradients_of_rows(name, dtype, threads):
    x, dense = view_of(name, dtype)
    weight, _ = parameters(x)
    with op.num_threads(threads):
        for norm in (op.layer_norm_backward, op.rms_norm_backward):
            want = norm(dense, dense, weight)
            for dy, of in ((x, x), (x, dense), (dense, x)):
                assert_same(norm(dy, of, weight), want, name)


@every_dtype
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("name", [name for name in VIEWS if len(VIEWS[name][1](VIEWS[name][0]).shape) > 2])
def test_groups_of_channels(name, dtype, threads):
    x, dense = view_of(name, dtype)
    weight = np.arange(x.shape[1]).astype(dtype)
    groups = next(n for n in (5, 4, 3, 2, 1) if x.shape[1] % n == 0)
    with op.num_threads(threads):
        for call in (
            lambda a, out: op.group_norm(a, groups, weight, weight, out=out, return_stats=True),
            lambda a, out: op.instance_norm(a, weight, out=out, return_stats=True),
            lambda a, out: op.layer_norm(a, axis=(-2, -1), out=out),
            lambda a, out: op.rms_norm(a, out=out),
        ):
            want = results(call, dense, None)
            for of, out in ways(lambda: VIEWS[name][1](VIEWS[name][0].astype(dtype))):
                assert_same(results(call, of, out), want, name)
