"""rms_norm: digits, zeros, eps, axes, strides, out, statistics, empty arrays."""

import datasets
import numpy as np
import pytest
import references as ref
from layouts import AXES, normalized_shape, strided

import onepass as op

UNITS = 8
LAYOUTS = [((9, 37), -1), ((9, 37), 0), ((3, 5, 16), (1, 2)), ((3, 5, 16), 1), ((3, 5, 16), (0, 2))]


def weight_of(dtype, shape, axis):
    return datasets.weight_and_bias(dtype, normalized_shape(shape, axis))[0]


@pytest.mark.parametrize("name", datasets.HARD)
def test_digits(name, dtype, each_isa):
    for d in datasets.LENGTHS + datasets.LONG_LENGTHS:
        x = datasets.hard(name, dtype, (3, d), seed=d)
        weight = datasets.weight_and_bias(dtype, d)[0]
        for eps in (1e-5, 0.0):
            for w in (None, weight):
                units = ref.units(op.rms_norm(x, w, eps=eps), ref.rms_norm(x, w, eps=eps)[0], -1)
                assert units <= UNITS, f"{units:.1f} units: {name}, D={d}, eps={eps}, weight {w is not None}"


@pytest.mark.parametrize("name", datasets.EXTREMES)
def test_digits_at_the_ends_of_the_range(name, dtype, each_isa):
    for d in (1, 2, 3, 16, 129, 1000, 4097):
        x = datasets.extreme(name, dtype, (3, d), seed=d)
        units = ref.units(op.rms_norm(x, eps=0.0), ref.rms_norm(x)[0], -1)
        assert units <= UNITS, f"{units:.1f} units: {name}, D={d}"


@pytest.mark.parametrize("name", [*datasets.EXTREMES, "1e20 N", "1e-20 N"])
def test_digits_at_the_ends_of_the_range_over_other_axes(name, dtype, each_isa):
    make = datasets.extreme if name in datasets.EXTREMES else datasets.hard
    x = make(name, dtype, (3, 40, 19))
    for axis in (0, 1, (0, 1), (0, 2)):
        axes = ref.axes_of(axis, x.ndim)
        units = ref.units(op.rms_norm(x, axis=axis, eps=0.0), ref.rms_norm(x, axis=axis)[0], axes)
        assert units <= UNITS, f"{units:.1f} units: axis {axis}"


def test_the_least_subnormal(dtype, each_isa):
    for d in (1, 7, 16, 129):
        x = np.full((2, d), np.finfo(dtype).smallest_subnormal)
        x[1] *= -1
        assert np.array_equal(op.rms_norm(x, eps=0.0), np.sign(x)), d


def test_an_extreme_row_among_ordinary_ones(dtype, each_isa):
    for d in (3, 64, 129, 1024):
        x = datasets.hard("N(0, 1)", dtype, (37, d))
        expected = op.rms_norm(x, eps=0.0)
        for scale in (2.0**66, 2.0**-83):
            changed = x.copy()
            changed[2] *= dtype.type(scale)
            y = op.rms_norm(changed, eps=0.0)
            assert np.array_equal(np.delete(y, 2, 0), np.delete(expected, 2, 0)), (d, scale)
            assert ref.units(y, ref.rms_norm(changed)[0], -1) <= UNITS, (d, scale)


def test_zero_rows(dtype, each_isa):
    for d in datasets.LENGTHS + datasets.LONG_LENGTHS:
        x = datasets.hard("N(0, 1)", dtype, (4, d))
        weight = datasets.weight_and_bias(dtype, d)[0]
        expected = op.rms_norm(x, weight)
        x[1], x[2] = 0, -0.0
        for eps in (None, 1e-5, 0.0):
            y, rstd = op.rms_norm(x, weight, eps=eps, return_stats=True)
            assert not y[1:3].any(), (d, eps)
            assert not op.rms_norm(x, eps=eps)[1:3].any(), (d, eps)
            assert not np.isnan(rstd).any()
            if eps == 0:
                assert np.isposinf(rstd[1:3]).all()
        assert np.array_equal(op.rms_norm(x, weight)[[0, 3]], expected[[0, 3]]), d


def test_zero_groups_over_other_axes(dtype, each_isa):
    x = np.zeros((3, 37, 21), dtype)
    for axis in (0, 1, (0, 1), (0, 2), (0, 1, 2)):
        weight = weight_of(dtype, x.shape, axis)
        for eps in (None, 0.0):
            assert not op.rms_norm(x, weight, axis=axis, eps=eps).any(), axis


def test_nan_and_infinity_stay_in_their_row(dtype, each_isa):
    for d in (2, 16, 17, 129, 1000):
        x = datasets.hard("N(0, 1)", dtype, (37, d))
        expected = op.rms_norm(x)
        for column in (0, d // 2, d - 1):
            changed = x.copy()
            changed[2, column] = np.nan
            y = op.rms_norm(changed)
            assert np.isnan(y[2]).all(), (d, column)
            assert np.array_equal(np.delete(y, 2, 0), np.delete(expected, 2, 0)), (d, column)
            for bad in (np.inf, -np.inf):
                changed[2, column] = bad
                y = op.rms_norm(changed)
                assert np.isnan(y[2, column]), (d, bad, column)
                assert np.array_equal(np.delete(y, 2, 0), np.delete(expected, 2, 0)), (d, bad, column)


def test_eps_is_that_of_the_arithmetic_unless_given(dtype, each_isa):
    for scale in (1, 1e-3, 1e-4 if dtype == np.float32 else 1e-8):
        x = datasets.hard("N(0, 1)", dtype, (4, 50)) * dtype.type(scale)
        y = op.rms_norm(x)
        eps = float(np.finfo(dtype).eps)
        assert np.array_equal(y, op.rms_norm(x, eps=None))
        assert np.array_equal(y, op.rms_norm(x, eps=eps))
        assert ref.units(y, ref.rms_norm(x, eps=eps)[0], -1) <= UNITS, scale
    assert not np.array_equal(y, op.rms_norm(x, eps=0))


def test_eps_is_any_real_number(dtype):
    x = datasets.hard("N(0, 1)", dtype, (4, 50))
    for eps in (0, 1, 0.5, np.float32(0.25), np.float64(0.125), np.int64(3)):
        assert ref.units(op.rms_norm(x, eps=eps), ref.rms_norm(x, eps=float(eps))[0], -1) <= UNITS, repr(eps)
    assert not op.rms_norm(x, eps=np.inf).any()
    assert np.isnan(op.rms_norm(x, eps=-100.0)).all()
    assert np.isnan(op.rms_norm(x, eps=np.nan)).all()


@pytest.mark.parametrize(("shape", "axis"), AXES)
def test_axes(shape, axis, dtype, each_isa):
    x = datasets.hard("N(0, 1)", dtype, shape)
    weight = weight_of(dtype, shape, axis)
    axes = ref.axes_of(axis, x.ndim)
    for w in (None, weight):
        y, rstd = op.rms_norm(x, w, axis=axis, eps=1e-3, return_stats=True)
        y_ref, rstd_ref = ref.rms_norm(x, w, axis, 1e-3)
        assert (y.shape, y.dtype, y.flags.c_contiguous) == (shape, dtype, True)
        assert (rstd.shape, rstd.dtype) == (rstd_ref.shape, dtype)
        assert ref.units(y, y_ref, axes) <= UNITS
        assert ref.relative_units(rstd, rstd_ref, dtype) <= UNITS
        assert np.array_equal(y, op.rms_norm(x, w, axis=axis, eps=1e-3))


@pytest.mark.parametrize("name", datasets.HARD)
def test_digits_over_a_channel_axis(name, dtype, each_isa):
    for d in (1, 2, 3, 7, 8, 9, 127, 128, 129, 300, 1031):
        x = np.ascontiguousarray(np.moveaxis(datasets.hard(name, dtype, (2, 3, 7, d), seed=d), -1, 1))
        weight = datasets.weight_and_bias(dtype, d)[0]
        units = ref.units(op.rms_norm(x, weight, axis=1, eps=0), ref.rms_norm(x, weight, 1)[0], 1)
        assert units <= UNITS, f"{units:.1f} units: {name}, D={d}"


def test_the_order_of_axes_does_not_matter(dtype):
    x = datasets.hard("N(0, 1)", dtype, (4, 5, 6))
    weight = weight_of(dtype, x.shape, (1, 2))
    expected = op.rms_norm(x, weight, axis=(1, 2))
    for axis in ((2, 1), (-1, 1), (-2, -1), (-1, -2)):
        assert np.array_equal(op.rms_norm(x, weight, axis=axis), expected), axis


@pytest.mark.parametrize(("shape", "axis"), LAYOUTS)
def test_strides_out_and_in_place(shape, axis, dtype, each_isa):
    x = datasets.hard("N(1e4, 1)", dtype, shape)
    kept = x.copy()
    weight = weight_of(dtype, shape, axis)
    expected = op.rms_norm(x, weight, axis=axis)
    for name, view in (("contiguous", x.copy()), *strided(x)):
        y = op.rms_norm(view, weight, axis=axis)
        assert y.flags.c_contiguous, name
        assert np.array_equal(y, expected), name
        assert op.rms_norm(view, weight, axis=axis, out=view) is view, name
        assert np.array_equal(view, expected), name
    for name, out in (("contiguous", np.empty(shape, dtype)), *strided(np.full(shape, 7, dtype))):
        assert op.rms_norm(x, weight, axis=axis, out=out) is out, name
        assert np.array_equal(out, expected), name
        assert np.array_equal(x, kept), name
    for name, w in strided(weight):
        assert np.array_equal(op.rms_norm(x, w, axis=axis), expected), name


def test_statistics(dtype, each_isa):
    for name in ("N(0, 1)", "N(1e6, 1)", "1e20 N", "1e-20 N"):
        for d in (1, 16, 129, 5003):
            x = datasets.hard(name, dtype, (3, d))
            out = np.empty_like(x)
            result = op.rms_norm(x, eps=0.0, out=out, return_stats=True)
            assert isinstance(result, tuple)
            assert result[0] is out
            assert ref.relative_units(result[1], ref.rms_norm(x)[1], dtype) <= UNITS, (name, d)


@pytest.mark.parametrize(
    ("shape", "axis"),
    [((0,), 0), ((0, 5), -1), ((5, 0), -1), ((0, 5), 0), ((5, 0), 0), ((2, 0, 3), 1), ((2, 0, 3), (0, 2)),
     ((2, 3, 0), (1, 2)), ((0, 3, 4), (1, 2))],
)  # fmt: skip
def test_empty(shape, axis, dtype, each_isa):
    x, out = np.empty(shape, dtype), np.empty(shape, dtype)
    y, rstd = op.rms_norm(x, weight_of(dtype, shape, axis), axis=axis, return_stats=True)
    reduced = tuple(1 if i in ref.axes_of(axis, x.ndim) else n for i, n in enumerate(shape))
    assert (y.shape, y.dtype) == (shape, dtype)
    assert (rstd.shape, rstd.dtype) == (reduced, dtype)
    assert op.rms_norm(x, axis=axis, out=out) is out


def test_threads(dtype, each_threads):
    for shape in ((2500, 257), (3, 100_003)):
        x = datasets.hard("N(1e4, 1)", dtype, shape)
        weight = datasets.weight_and_bias(dtype, shape[1])[0]
        assert ref.units(op.rms_norm(x, weight, eps=0), ref.rms_norm(x, weight)[0], -1) <= UNITS
