"""group_norm and instance_norm in every layout: digits, constants, statistics, out, bits, errors."""

import datasets
import numpy as np
import pytest
import references as ref

import onepass as op

UNITS = 8

# (samples, channels, groups, spatial extents)
CASES = [
    (2, 6, 3, ()),
    (5, 4, 2, ()),
    (3, 8, 2, (10,)),
    (3, 8, 8, (129,)),
    (2, 8, 4, (7, 5)),
    (2, 64, 32, (28, 28)),
    (1, 4, 2, (3,)),
    (5, 1, 1, (9,)),
    (3, 4, 4, (1, 1)),
    (1, 1, 1, (5,)),
    (2, 128, 2, (3,)),
    (7, 96, 3, (33,)),
    (2, 6, 3, (2, 3, 4)),
]


def reference(x, groups, weight=None, bias=None, eps=1e-5):
    """Channels first: the channels cut into groups, each normalized with its pixels; then a weight a channel."""
    cut = x.reshape(x.shape[0], groups, -1)
    y, mean, rstd = ref.normalize(cut, (2,), eps)
    shape = (x.shape[0], groups, *(1 for _ in x.shape[2:]))
    return ref.affine(y.reshape(x.shape), weight, bias, (1,)), mean.reshape(shape), rstd.reshape(shape)


def units(y, y_ref, groups):
    cut = (y.shape[0], groups, -1)
    return ref.units(np.ascontiguousarray(y).reshape(cut), y_ref.reshape(cut), (2,))


def last(x):
    return np.ascontiguousarray(np.moveaxis(x, 1, -1))


def batch(name, dtype, n, channels, groups, spatial):
    """The hard data set `name`, every group of every sample one of its groups."""
    size = channels // groups * int(np.prod(spatial))
    return datasets.hard(name, dtype, (n * groups, size), seed=n + channels).reshape(n, channels, *spatial)


@pytest.mark.parametrize("name", datasets.HARD)
def test_digits(name, dtype, each_isa):
    for n, channels, groups, spatial in CASES:
        x = batch(name, dtype, n, channels, groups, spatial)
        weight, bias = np.ones(channels, dtype), np.zeros(channels, dtype)
        for w, b in ((None, None), (weight, bias), (weight, None), (None, bias)):
            y_ref, mean, rstd = reference(x, groups, w, b)
            for layout, back in ((x, lambda a: a), (last(x), lambda a: np.moveaxis(a, -1, 1))):
                axis = 1 if layout is x else -1
                y, m, r = op.group_norm(layout, groups, w, b, axis=axis, return_stats=True)
                message = f"{name}, {x.shape} in {groups}, axis {axis}, weight {w is not None}, bias {b is not None}"
                assert (y.shape, y.dtype, y.flags.c_contiguous) == (layout.shape, dtype, True), message
                assert units(back(y), y_ref, groups) <= UNITS, message
                assert (back(m).shape, m.dtype) == (mean.shape, dtype), message
                np.testing.assert_allclose(back(r), rstd, rtol=8 * np.finfo(dtype).eps, err_msg=message)


def test_weight_and_bias_are_the_channels(dtype):
    for n, channels, groups, spatial in CASES:
        x = batch("N(0, 1)", dtype, n, channels, groups, spatial)
        weight, bias = datasets.weight_and_bias(dtype, channels)
        for w, b in ((weight, bias), (weight, None), (None, bias)):
            y_ref = reference(x, groups, w, b)[0]
            scale = np.abs(y_ref).max()
            for y in (
                op.group_norm(x, groups, w, b),
                np.moveaxis(op.group_norm(last(x), groups, w, b, axis=-1), -1, 1),
            ):
                assert np.abs(y - y_ref).max() <= UNITS * np.finfo(dtype).eps / 2 * scale, (x.shape, groups)


def test_instance_norm_is_a_group_a_channel(dtype):
    for n, channels, _, spatial in CASES:
        if not spatial:
            continue
        x = batch("N(1e4, 1)", dtype, n, channels, channels, spatial)
        weight, bias = datasets.weight_and_bias(dtype, channels)
        assert np.array_equal(op.instance_norm(x, weight, bias), op.group_norm(x, channels, weight, bias))
        y = op.instance_norm(last(x), weight, bias, axis=-1)
        assert np.array_equal(y, op.group_norm(last(x), channels, weight, bias, axis=-1))
        assert (
            units(np.moveaxis(op.instance_norm(last(x), axis=-1), -1, 1), reference(x, channels)[0], channels)
            <= UNITS
        )


def test_constant_groups_give_the_bias(dtype):
    bias = np.array([1.5, -2, 0.25, 7], dtype)
    for value in datasets.CONSTANTS:
        for eps in (1e-5, 0.0):
            x = np.full((2, 4, 37), value, dtype)
            assert np.array_equal(
                op.group_norm(x, 2, None, bias, eps=eps), np.broadcast_to(bias[:, None], x.shape)
            )
            assert not op.instance_norm(last(x), axis=-1, eps=eps).any()


def test_nan_stays_in_its_group(dtype):
    x = datasets.hard("N(0, 1)", dtype, (3, 8, 20))
    hurt = x.copy()
    hurt[1, 5, 7] = np.nan
    y, y_hurt = op.group_norm(x, 4), op.group_norm(hurt, 4)
    assert np.isnan(y_hurt[1, 4:6]).all()
    y_hurt[1, 4:6] = y[1, 4:6]
    assert np.array_equal(y, y_hurt)


def test_same_bits(dtype):
    results = set()
    x = datasets.hard("N(1e4, 1)", dtype, (6, 48, 31, 30))
    weight, bias = datasets.weight_and_bias(dtype, 48)
    for isa in op.available_isas():
        op.use_isa(isa)
        for threads in (1, 2, 3, 5, 8):
            op.set_num_threads(threads)
            ys = [op.group_norm(x, 6, weight, bias), op.group_norm(last(x), 6, weight, bias, axis=-1)]
            ys += [op.instance_norm(x[:4], weight), op.instance_norm(last(x), None, bias, axis=-1)]
            results.add(tuple(y.tobytes() for y in ys))
            assert np.array_equal(ys[0][2:4], op.group_norm(x[2:4], 6, weight, bias))
    assert len(results) == 1


def test_out_and_strides(dtype):
    x = datasets.hard("N(0, 1)", dtype, (3, 8, 7, 5))
    y = op.group_norm(x, 4)
    assert np.array_equal(op.group_norm(np.asfortranarray(x), 4), y)
    turned = x[::-1, :, ::-1]
    assert np.array_equal(op.group_norm(turned, 4), op.group_norm(turned.copy(), 4))
    assert np.array_equal(np.moveaxis(op.group_norm(np.moveaxis(x, 1, 2), 4, axis=2), 2, 1), y)
    out = np.empty(x.shape, dtype, order="F")
    assert op.group_norm(x, 4, out=out) is out
    assert np.array_equal(out, y)
    inplace = x.copy()
    op.group_norm(inplace, 4, out=inplace)
    assert np.array_equal(inplace, y)


def test_empty():
    for shape in ((0, 4, 3), (2, 4, 0), (2, 0, 3)):
        x = np.empty(shape, np.float32)
        assert op.group_norm(x, 2).shape == op.instance_norm(x).shape == shape


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda x: op.group_norm(x, 3), ValueError, "num_groups is 3; expected a divisor of the 4 channels"),
        (lambda x: op.group_norm(x, 0), ValueError, "num_groups is 0"),
        (lambda x: op.group_norm(x, None), TypeError, "num_groups is NoneType"),
        (lambda x: op.group_norm(x, 2.0), TypeError, "num_groups is float"),
        (lambda x: op.group_norm(x, 2, axis=0), ValueError, "axis is 0"),
        (lambda x: op.instance_norm(x, axis=-3), ValueError, "axis is 0"),
        (lambda x: op.group_norm(x, 2, axis=3), ValueError, "axis 3 is out of range"),
        (lambda x: op.instance_norm(x[:, :, 0]), ValueError, "at least one spatial axis"),
        (lambda x: op.group_norm(x[0, 0], 1), ValueError, "x has shape"),
        (
            lambda x: op.group_norm(x, 2, x[0, :3, 0].copy()),
            ValueError,
            "weight has shape (3,); expected (4,)",
        ),
        (
            lambda x: op.instance_norm(x, None, np.ones(4)),
            TypeError,
            "bias has dtype float64; expected float32",
        ),
        (lambda x: op.group_norm(x, 2, out=x[:, ::-1]), ValueError, "out overlaps x"),
    ],
)
def test_bad_input(call, error, words):
    x = datasets.hard("N(0, 1)", np.float32, (2, 4, 5))
    kept = x.copy()
    with pytest.raises(error) as caught:
        call(x)
    assert words in str(caught.value)
    assert np.array_equal(x, kept)
