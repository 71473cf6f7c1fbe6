"""standardize: columns (or any other groups) of mean 0 and variance 1."""

import datasets
import numpy as np
import pytest
import references as ref

import onepass as op

UNITS = 8
SHAPES = [((300, 24), 0), ((300, 24), 1), ((300, 24), -1), ((500,), 0), ((7, 40, 9), 1), ((7, 40, 9), 0),
          ((7, 40, 9), (0, 2)), ((7, 40, 9), (0, 1)), ((7, 40, 9), (1, 2))]  # fmt: skip


@pytest.mark.parametrize("name", datasets.HARD)
def test_digits(name, dtype, each_isa):
    for n in datasets.LENGTHS[1:] + datasets.LONG_LENGTHS:
        rows = datasets.hard(name, dtype, (5, n), seed=n)
        if not ref.moments(rows, 1)[2].all():
            continue  # a constant row: see test_constants
        for x, axis in ((np.ascontiguousarray(rows.T), 0), (rows, 1)):
            for ddof in (0, 1):
                y = op.standardize(x, axis=axis, ddof=ddof)
                assert (y.shape, y.dtype, y.flags.c_contiguous) == (x.shape, dtype, True)
                units = ref.units(y, ref.standardize(x, axis, ddof), axis)
                assert units <= UNITS, f"{units:.1f} units: {name}, n={n}, axis={axis}, ddof={ddof}"


@pytest.mark.parametrize("name", datasets.EXTREMES)
def test_digits_at_the_ends_of_the_range(name, dtype, each_isa):
    for n in (2, 17, 300, 1031):
        x = datasets.extreme(name, dtype, (n, 11))
        assert ref.units(op.standardize(x), ref.standardize(x), 0) <= UNITS, (name, n)


@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_axes(shape, axis, dtype, each_isa):
    x = datasets.hard("N(1e4, 1)", dtype, shape)
    for eps, ddof in ((0.0, 0), (1e-3, 0), (0.5, 1)):
        y = op.standardize(x, axis=axis, eps=eps, ddof=ddof)
        assert ref.units(y, ref.standardize(x, axis, ddof, eps), ref.axes_of(axis, x.ndim)) <= UNITS
    assert np.array_equal(op.standardize(x), op.standardize(x, axis=0, ddof=0, eps=0.0))


@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_moments_are_those_of_moments(shape, axis, dtype, each_isa):
    for data in ("N(1e4, 1)", "1e-25 N"):
        x = datasets.hard(data, dtype, shape)
        for eps, ddof in ((0.0, 0), (1e-3, 0), (0.0, 1)):
            y, m = op.standardize(x, axis=axis, eps=eps, ddof=ddof, return_moments=True)
            assert np.array_equal(y, op.standardize(x, axis=axis, eps=eps, ddof=ddof))
            assert isinstance(m, op.Moments)
            assert m == op.moments(x, axis)


def test_constants(dtype, each_isa):
    for n in datasets.LENGTHS:
        x = np.tile(np.array(datasets.CONSTANTS, dtype), (n, 1))
        for eps in (0.0, 1e-5):
            assert not op.standardize(x, eps=eps).any(), n
            assert not op.standardize(np.ascontiguousarray(x.T), axis=1, eps=eps).any(), n


def test_a_constant_column_leaves_the_others_alone(dtype, each_isa):
    x = datasets.hard("N(0, 1)", dtype, (300, 24))
    expected = op.standardize(x)
    for constant in datasets.CONSTANTS:
        changed = x.copy()
        changed[:, 7] = constant
        y = op.standardize(changed)
        assert not y[:, 7].any()
        assert np.array_equal(np.delete(y, 7, 1), np.delete(expected, 7, 1))


def test_nan_stays_in_its_column(dtype, each_isa):
    x = datasets.hard("N(0, 1)", dtype, (300, 24))
    expected = op.standardize(x)
    x[17, 7] = np.nan
    y = op.standardize(x)
    assert np.isnan(y[:, 7]).all()
    assert np.array_equal(np.delete(y, 7, 1), np.delete(expected, 7, 1))


@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_strides_out_and_in_place(shape, axis, dtype, each_isa):
    x = datasets.hard("N(1e4, 1)", dtype, shape)
    expected = op.standardize(x, axis=axis)
    wider = np.zeros([2 * n for n in shape], dtype)
    window = tuple(slice(1, None, 2) for _ in shape)
    wider[window] = x
    for view in (wider[window], np.array(x, order="F"), np.flip(np.flip(x).copy()), x.copy()):
        assert np.array_equal(view, x)
        assert np.array_equal(op.standardize(view, axis=axis), expected)
        out = np.empty_like(view)
        assert op.standardize(x, axis=axis, out=out) is out
        assert np.array_equal(out, expected)
        result, m = op.standardize(view, axis=axis, out=view, return_moments=True)
        assert result is view
        assert np.array_equal(view, expected)
        assert m == op.moments(x, axis)


@pytest.mark.parametrize(("shape", "axis"), [((0, 4), 0), ((4, 0), 0), ((4, 0), 1), ((0, 4), 1), ((0,), 0)])
def test_empty(shape, axis, dtype, each_isa):
    x = np.empty(shape, dtype)
    y, m = op.standardize(x, axis=axis, return_moments=True)
    assert (y.shape, y.dtype) == (shape, dtype)
    assert m.count == shape[axis]


def test_threads(dtype, each_threads):
    x = datasets.hard("N(1e4, 1)", dtype, (3001, 257))
    assert ref.units(op.standardize(x), ref.standardize(x), 0) <= UNITS
