"""layer_norm: digits, constants, NaN, axes, strides, out, statistics, empty arrays."""

import datasets
import numpy as np
import pytest
import references as ref
from layouts import AXES, normalized_shape, strided

import onepass as op

UNITS = 8


@pytest.mark.parametrize("name", datasets.HARD)
def test_digits(name, dtype, each_isa):
    for d in datasets.LENGTHS + datasets.LONG_LENGTHS:
        x = datasets.hard(name, dtype, (3, d), seed=d)
        weight, bias = datasets.weight_and_bias(dtype, d)
        for eps in (1e-5, 0.0):
            for w, b in ((None, None), (weight, bias), (weight, None), (None, bias)):
                if eps == 0 and ref.normalize(x, 1, 0.0)[2].max() == np.inf:
                    continue  # a constant row: see test_constant_rows
                units = ref.units(op.layer_norm(x, w, b, eps=eps), ref.layer_norm(x, w, b, eps=eps)[0], -1)
                message = f"{name}, D={d}, eps={eps}, weight {w is not None}, bias {b is not None}"
                assert units <= UNITS, f"{units:.1f} units: {message}"


@pytest.mark.parametrize("name", datasets.EXTREMES)
def test_digits_at_the_ends_of_the_range(name, dtype, each_isa):
    for d in (2, 3, 16, 129, 1000, 4097):
        x = datasets.extreme(name, dtype, (3, d), seed=d)
        units = ref.units(op.layer_norm(x, eps=0.0), ref.layer_norm(x, eps=0.0)[0], -1)
        assert units <= UNITS, f"{units:.1f} units: {name}, D={d}"


def test_an_extreme_row_among_ordinary_ones(dtype, each_isa):
    for d in (3, 64, 129, 1024):
        x = datasets.hard("N(0, 1)", dtype, (37, d))
        expected = op.layer_norm(x, eps=0.0)
        for scale in (2.0**66, 2.0**-83):
            changed = x.copy()
            changed[2] *= dtype.type(scale)
            y = op.layer_norm(changed, eps=0.0)
            assert np.array_equal(np.delete(y, 2, 0), np.delete(expected, 2, 0)), (d, scale)
            assert ref.units(y, ref.layer_norm(changed, eps=0.0)[0], -1) <= UNITS, (d, scale)


def test_constant_rows(dtype, each_isa):
    for d in datasets.LENGTHS + datasets.LONG_LENGTHS:
        weight, bias = datasets.weight_and_bias(dtype, d)
        x = np.repeat(np.array(datasets.CONSTANTS, dtype)[:, None], d, axis=1)
        for eps in (1e-5, 0.0):
            assert np.array_equal(op.layer_norm(x, eps=eps), np.zeros_like(x)), (d, eps)
            assert np.array_equal(op.layer_norm(x, weight, eps=eps), np.zeros_like(x)), (d, eps)
            assert np.array_equal(op.layer_norm(x, weight, bias, eps=eps), np.tile(bias, (len(x), 1))), (
                d,
                eps,
            )
            assert np.array_equal(op.layer_norm(x, None, bias, eps=eps), np.tile(bias, (len(x), 1))), (d, eps)


def test_constant_groups_over_other_axes(dtype, each_isa):
    for constant in datasets.CONSTANTS:
        x = np.full((3, 37, 21), constant, dtype)
        for axis in (0, 1, (0, 1), (0, 2), (0, 1, 2)):
            weight, bias = datasets.weight_and_bias(dtype, normalized_shape(x.shape, axis))
            expected = ref.affine(np.zeros(x.shape), None, bias, ref.axes_of(axis, 3)).astype(dtype)
            for eps in (1e-5, 0.0):
                assert np.array_equal(op.layer_norm(x, weight, bias, axis=axis, eps=eps), expected), (
                    constant,
                    axis,
                )


def test_a_constant_row_between_ordinary_ones(dtype, each_isa):
    for d in (2, 17, 128, 1000):
        x = datasets.hard("N(0, 1)", dtype, (37, d))
        expected = op.layer_norm(x)
        for constant in datasets.CONSTANTS:
            changed = x.copy()
            changed[3] = constant
            y = op.layer_norm(changed)
            assert not y[3].any(), (d, constant)
            assert np.array_equal(np.delete(y, 3, 0), np.delete(expected, 3, 0)), (d, constant)


def test_nan_and_infinity_stay_in_their_row(dtype, each_isa):
    for d in (2, 16, 17, 129, 1000):
        x = datasets.hard("N(0, 1)", dtype, (37, d))
        expected = op.layer_norm(x)
        for bad in (np.nan, np.inf, -np.inf):
            for column in (0, d // 2, d - 1):
                changed = x.copy()
                changed[2, column] = bad
                y = op.layer_norm(changed)
                assert np.isnan(y[2]).all(), (d, bad, column)
                assert np.array_equal(np.delete(y, 2, 0), np.delete(expected, 2, 0)), (d, bad, column)


def test_nan_stays_in_its_group_over_other_axes(dtype, each_isa):
    x = datasets.hard("N(0, 1)", dtype, (4, 40, 9))
    for axis in (0, 1, (0, 2), (0, 1)):
        expected = op.layer_norm(x, axis=axis)
        for bad in (np.nan, np.inf):
            changed = x.copy()
            changed[1, 33, 4] = bad
            y = op.layer_norm(changed, axis=axis)
            groups_hit = ~np.isfinite(changed).all(ref.axes_of(axis, 3), keepdims=True)
            hit = np.broadcast_to(groups_hit, x.shape)
            assert np.isnan(y[hit]).all(), axis
            assert np.array_equal(y[~hit], expected[~hit]), axis


@pytest.mark.parametrize(("shape", "axis"), AXES)
def test_axes(shape, axis, dtype, each_isa):
    x = datasets.hard("N(1e4, 1)", dtype, shape)
    weight, bias = datasets.weight_and_bias(dtype, normalized_shape(shape, axis))
    axes = ref.axes_of(axis, x.ndim)
    for w, b in ((None, None), (weight, bias), (weight, None), (None, bias)):
        y = op.layer_norm(x, w, b, axis=axis)
        assert (y.shape, y.dtype, y.flags.c_contiguous) == (shape, dtype, True)
        assert ref.units(y, ref.layer_norm(x, w, b, axis)[0], axes) <= UNITS


@pytest.mark.parametrize("name", datasets.HARD)
def test_digits_over_a_channel_axis(name, dtype, each_isa):
    for d in (1, 2, 3, 7, 8, 9, 127, 128, 129, 300, 1031):
        x = np.ascontiguousarray(np.moveaxis(datasets.hard(name, dtype, (2, 3, 7, d), seed=d), -1, 1))
        weight, bias = datasets.weight_and_bias(dtype, d)
        units = ref.units(op.layer_norm(x, weight, bias, axis=1), ref.layer_norm(x, weight, bias, 1)[0], 1)
        assert units <= UNITS, f"{units:.1f} units: {name}, D={d}"


def test_the_order_of_axes_does_not_matter(dtype):
    x = datasets.hard("N(0, 1)", dtype, (4, 5, 6))
    weight, bias = datasets.weight_and_bias(dtype, (5, 6))
    expected = op.layer_norm(x, weight, bias, axis=(1, 2))
    for axis in ((2, 1), (-1, 1), (-2, -1), (-1, -2), (np.int64(2), np.int32(1))):
        assert np.array_equal(op.layer_norm(x, weight, bias, axis=axis), expected), axis


def test_strides_of_x(dtype, each_isa):
    for shape, axis in (
        ((9, 37), -1),
        ((9, 37), 0),
        ((3, 5, 16), (1, 2)),
        ((3, 5, 16), 1),
        ((3, 5, 16), (0, 2)),
    ):
        x = datasets.hard("N(1e4, 1)", dtype, shape)
        weight, bias = datasets.weight_and_bias(dtype, normalized_shape(shape, axis))
        expected = op.layer_norm(x, weight, bias, axis=axis)
        for name, view in strided(x):
            assert np.array_equal(view, x), name
            y = op.layer_norm(view, weight, bias, axis=axis)
            assert y.flags.c_contiguous, name
            assert np.array_equal(y, expected), (name, shape, axis)


def test_zero_strides(dtype, each_isa):
    row = datasets.hard("N(0, 1)", dtype, (1, 37))
    rows = np.broadcast_to(row, (6, 37))
    assert np.array_equal(op.layer_norm(rows), np.tile(op.layer_norm(row), (6, 1)))
    constant = np.broadcast_to(row[0, :6, None], (6, 1000))
    assert not op.layer_norm(constant, eps=0.0).any()
    assert not op.layer_norm(rows, axis=0, eps=0.0).any()


def test_strides_of_weight_and_bias(dtype, each_isa):
    x = datasets.hard("N(0, 1)", dtype, (4, 6, 10))
    for axis in (-1, (1, 2), 1, (0, 1)):
        weight, bias = datasets.weight_and_bias(dtype, normalized_shape(x.shape, axis))
        expected = op.layer_norm(x, weight, bias, axis=axis)
        for (name, w), (_, b) in zip(strided(weight), strided(bias), strict=True):
            assert np.array_equal(op.layer_norm(x, w, b, axis=axis), expected), (name, axis)
    ones = np.broadcast_to(np.ones((), dtype), (10,))
    assert np.array_equal(
        op.layer_norm(x, ones, ones), op.layer_norm(x, np.ones(10, dtype), np.ones(10, dtype))
    )


def test_out(dtype, each_isa):
    for shape, axis in (
        ((9, 37), -1),
        ((9, 37), 0),
        ((3, 5, 16), (1, 2)),
        ((3, 5, 16), 1),
        ((3, 5, 16), (0, 2)),
    ):
        x = datasets.hard("N(1e4, 1)", dtype, shape)
        kept = x.copy()
        weight, bias = datasets.weight_and_bias(dtype, normalized_shape(shape, axis))
        expected = op.layer_norm(x, weight, bias, axis=axis)
        for name, out in (("contiguous", np.empty(shape, dtype)), *strided(np.full(shape, 7, dtype))):
            assert op.layer_norm(x, weight, bias, axis=axis, out=out) is out, name
            assert np.array_equal(out, expected), (name, shape, axis)
            assert np.array_equal(x, kept), name


def test_out_writes_nothing_beside_itself(dtype, each_isa):
    x = datasets.hard("N(0, 1)", dtype, (9, 37))
    room = np.full((20, 80), 7, dtype)
    inside = np.zeros(room.shape, bool)
    for window in (np.s_[2:11, 5:42], np.s_[1:19:2, 3:77:2], np.s_[10:1:-1, 60:23:-1]):
        room[...], inside[...] = 7, False
        inside[window] = True
        op.layer_norm(x, out=room[window])
        assert (room[~inside] == 7).all(), window
        assert np.array_equal(room[window], op.layer_norm(x)), window


def test_in_place(dtype, each_isa):
    for shape, axis in (
        ((9, 37), -1),
        ((9, 37), 0),
        ((3, 5, 16), (1, 2)),
        ((3, 5, 16), 1),
        ((3, 5, 16), (0, 2)),
    ):
        x = datasets.hard("N(1e4, 1)", dtype, shape)
        weight, bias = datasets.weight_and_bias(dtype, normalized_shape(shape, axis))
        expected = op.layer_norm(x, weight, bias, axis=axis)
        for name, view in (("contiguous", x.copy()), *strided(x)):
            assert op.layer_norm(view, weight, bias, axis=axis, out=view) is view, name
            assert np.array_equal(view, expected), (name, shape, axis)


def test_in_place_through_another_view_of_the_same_elements(dtype):
    x = datasets.hard("N(0, 1)", dtype, (9, 37))
    expected = op.layer_norm(x)
    op.layer_norm(x, out=x[:])
    assert np.array_equal(x, expected)


@pytest.mark.parametrize(("shape", "axis"), AXES)
def test_statistics(shape, axis, dtype, each_isa):
    axes = ref.axes_of(axis, len(shape))
    for name in ("N(0, 1)", "N(1e6, 1)", "1e20 N"):
        x = datasets.hard(name, dtype, shape)
        y, mean, rstd = op.layer_norm(x, axis=axis, return_stats=True)
        _, mean_ref, rstd_ref = ref.layer_norm(x, axis=axis)
        assert mean.shape == rstd.shape == mean_ref.shape
        assert mean.dtype == rstd.dtype == dtype
        assert np.array_equal(y, op.layer_norm(x, axis=axis))
        assert ref.mean_units(mean, x, axes) <= UNITS, name
        assert ref.relative_units(rstd, rstd_ref, dtype) <= UNITS, name


def test_statistics_with_out(dtype):
    x = datasets.hard("N(0, 1)", dtype, (4, 50))
    out = np.empty_like(x)
    expected = op.layer_norm(x, return_stats=True)
    result = op.layer_norm(x, out=out, return_stats=True)
    assert result[0] is out
    assert all(np.array_equal(a, b) for a, b in zip(result, expected, strict=True))


def test_statistics_of_constants(dtype, each_isa):
    x = np.repeat(np.array(datasets.CONSTANTS, dtype)[:, None], 129, axis=1)
    _, mean, rstd = op.layer_norm(x, eps=1e-5, return_stats=True)
    assert np.array_equal(mean[:, 0], x[:, 0])
    assert ref.relative_units(rstd, np.full((len(x), 1), 1 / np.sqrt(1e-5)), dtype) <= UNITS
    _, mean, rstd = op.layer_norm(x, eps=0.0, return_stats=True)
    assert np.array_equal(mean[:, 0], x[:, 0])
    assert np.isposinf(rstd).all()


@pytest.mark.parametrize(
    ("shape", "axis"),
    [((0,), 0), ((0, 5), -1), ((5, 0), -1), ((0, 5), 0), ((5, 0), 0), ((0, 0), 1),
     ((2, 0, 3), 1), ((2, 0, 3), (0, 2)), ((2, 3, 0), (1, 2)), ((0, 3, 4), (1, 2))],
)  # fmt: skip
def test_empty(shape, axis, dtype, each_isa):
    x = np.empty(shape, dtype)
    weight, bias = datasets.weight_and_bias(dtype, normalized_shape(shape, axis))
    out = np.empty(shape, dtype)
    y, mean, rstd = op.layer_norm(x, weight, bias, axis=axis, return_stats=True)
    reduced = tuple(1 if i in ref.axes_of(axis, x.ndim) else n for i, n in enumerate(shape))
    assert (y.shape, y.dtype) == (shape, dtype)
    assert mean.shape == rstd.shape == reduced
    assert mean.dtype == rstd.dtype == dtype
    assert op.layer_norm(x, axis=axis, out=out) is out


def test_eps_is_any_real_number(dtype):
    x = datasets.hard("N(0, 1)", dtype, (4, 50))
    for eps in (0, 1, 0.5, np.float32(0.25), np.float64(0.125), np.int64(3)):
        assert ref.units(op.layer_norm(x, eps=eps), ref.layer_norm(x, eps=float(eps))[0], -1) <= UNITS, repr(
            eps
        )
    assert not op.layer_norm(x, eps=np.inf).any()
    assert np.isnan(op.layer_norm(x, eps=-100.0)).all()
    assert np.isnan(op.layer_norm(x, eps=np.nan)).all()


def test_threads(dtype, each_threads):
    for shape in ((2500, 257), (3, 100_003)):
        x = datasets.hard("N(1e4, 1)", dtype, shape)
        weight, bias = datasets.weight_and_bias(dtype, shape[1])
        assert ref.units(op.layer_norm(x, weight, bias), ref.layer_norm(x, weight, bias)[0], -1) <= UNITS
