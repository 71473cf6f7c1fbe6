"""moments and Moments: digits, merging, equality, pickling. (test_nist.py has NIST's data.)"""

import pickle

import datasets
import numpy as np
import pytest
import references as ref

import onepass as op

UNITS = 8


@pytest.mark.parametrize("name", datasets.HARD)
def test_digits(name, dtype, each_isa):
    for n in datasets.LENGTHS + datasets.LONG_LENGTHS:
        rows = datasets.hard(name, dtype, (5, n), seed=n)
        for x, axis in ((np.ascontiguousarray(rows.T), 0), (rows, 1), (rows, -1)):
            m = op.moments(x, axis)
            _, mean_ref, m2_ref = ref.moments(x, axis)
            message = f"{name}, n={n}, axis={axis}"
            assert (m.mean.shape, m.mean.dtype, m.m2.dtype) == (mean_ref.shape, np.float64, np.float64), (
                message
            )
            assert m.m2.shape == m.mean.shape, message
            assert m.count == n, message
            assert ref.mean_units(m.mean, x, axis) <= UNITS, message
            assert ref.relative_units(m.m2, m2_ref, dtype) <= UNITS, message


@pytest.mark.parametrize("rows", [5, 100, 128, 300])
def test_a_column_that_is_read_again_moves_no_other(rows, dtype, each_isa):
    """Columns that begin far from their means among others that do not, wherever they lie in a vector."""
    columns = 37
    x = datasets.hard("N(1e4, 1)", dtype, (rows, columns))
    x[: min(8, rows - 1), ::5] += 1000
    m = op.moments(x)
    assert ref.mean_units(m.mean, x, 0) <= UNITS
    assert ref.relative_units(m.m2, ref.moments(x, 0)[2], dtype) <= UNITS
    for shift in (1, 3, 16):
        order = np.roll(np.arange(columns), shift)
        moved = op.moments(np.ascontiguousarray(x[:, order]))
        assert np.array_equal(moved.mean, m.mean[order]), shift
        assert np.array_equal(moved.m2, m.m2[order]), shift


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_columns_of_many_rows(dtype, each_isa):
    """Their blocks are longer, and are summed in parts; some begin far from their means."""
    x = datasets.hard("N(1e4, 1)", dtype, (16517, 512))
    x[: 256 * (len(x) // 256)].reshape(-1, 256, 512)[:, :8, ::5] += 1000
    m = op.moments(x)
    assert ref.mean_units(m.mean, x, 0) <= UNITS
    assert ref.relative_units(m.m2, ref.moments(x, 0)[2], dtype) <= UNITS


def test_axes(dtype, each_isa):
    for shape, axis in [((6,), 0), ((6, 7), 0), ((6, 7), -1), ((6, 7), (0, 1)), ((1, 1), 0),
                        ((6, 7, 8), 1), ((6, 7, 8), (0, 2)), ((6, 7, 8), (2, 0)), ((6, 7, 8), (-1, -2)),
                        ((6, 7, 8), (0, 1, 2)), ((3, 4, 5, 6), (0, 2, 3)), ((3, 4, 5, 6), (1, 3)),
                        ((2, 3, 4, 5, 6), (0, 2, 4))]:  # fmt: skip
        x = datasets.hard("N(1e4, 1)", dtype, shape)
        m = op.moments(x, axis)
        count, mean_ref, m2_ref = ref.moments(x, axis)
        assert np.ndim(m.count) == 0
        assert m.count == count
        assert np.shape(m.mean) == np.shape(m.m2) == mean_ref.shape, (shape, axis)
        assert ref.mean_units(m.mean, x, ref.axes_of(axis, x.ndim)) <= UNITS, (shape, axis)
        assert ref.relative_units(m.m2, m2_ref, dtype) <= UNITS, (shape, axis)


def test_axis_defaults_to_0(dtype):
    x = datasets.hard("N(0, 1)", dtype, (6, 7))
    assert op.moments(x) == op.moments(x, 0)
    assert op.moments(x) == op.moments(x, axis=0)
    assert op.moments(x) != op.moments(x, axis=1)


def test_strides(dtype, each_isa):
    x = datasets.hard("N(1e4, 1)", dtype, (300, 24))
    for axis in (0, 1, (0, 1)):
        expected = op.moments(x, axis)
        wider = np.zeros((600, 48), dtype)
        wider[::2, 1::2] = x
        for view in (
            wider[::2, 1::2],
            np.array(x, order="F"),
            np.flip(np.flip(x).copy()),
            np.flip(np.flip(x, 0).copy(), 0),
        ):
            assert np.array_equal(view, x)
            assert op.moments(view, axis) == expected, axis
    assert not op.moments(np.broadcast_to(x[:1], x.shape)).m2.any()


def test_var_and_std(dtype):
    x = datasets.hard("exp(3N)", dtype, (100, 7))
    m = op.moments(x)
    for ddof in (0, 1, 2, 0.5):
        assert np.allclose(m.var(ddof), m.m2 / (100 - ddof), rtol=1e-15, atol=0)
        assert np.allclose(m.var(ddof=ddof), m.m2 / (100 - ddof), rtol=1e-15, atol=0)
        assert np.allclose(m.std(ddof), np.sqrt(m.m2 / (100 - ddof)), rtol=1e-15, atol=0)
    assert np.array_equal(m.var(), m.var(0))
    assert np.array_equal(m.std(), m.std(0))


def test_constants(dtype, each_isa):
    for n in datasets.LENGTHS:
        x = np.tile(np.array(datasets.CONSTANTS, dtype), (n, 1))
        for m in (op.moments(x), op.moments(np.ascontiguousarray(x.T), axis=1)):
            assert np.array_equal(m.mean, x[0])
            assert not m.m2.any()


def test_nan_stays_in_its_column(dtype, each_isa):
    x = datasets.hard("N(0, 1)", dtype, (300, 24))
    expected = op.moments(x)
    for bad in (np.nan, np.inf):
        changed = x.copy()
        changed[211, 9] = bad
        m = op.moments(changed)
        assert not np.isfinite(m.mean[9])
        assert np.isnan(m.m2[9])
        assert np.array_equal(np.delete(m.mean, 9), np.delete(expected.mean, 9))
        assert np.array_equal(np.delete(m.m2, 9), np.delete(expected.m2, 9))


def test_empty(dtype, each_isa):
    assert op.moments(np.empty((4, 0), dtype)).mean.shape == (0,)
    assert op.moments(np.empty((4, 0), dtype)).count == 4
    empty = op.moments(np.empty((0, 5), dtype))
    assert empty.count == 0
    assert empty.mean.shape == empty.m2.shape == (5,)
    assert not empty.m2.any()
    m = op.moments(datasets.hard("N(0, 1)", dtype, (10, 5)))
    for merged in (empty + m, m + empty, op.Moments.merge([empty, m, empty])):
        assert merged.count == 10
        assert np.array_equal(merged.mean, m.mean)
        assert np.array_equal(merged.m2, m.m2)
    assert (empty + empty).count == 0


def cut(x, *places):
    return [op.moments(part) for part in np.split(x, places)]


@pytest.mark.parametrize("name", datasets.HARD)
def test_merge(name, dtype):
    x = np.ascontiguousarray(datasets.hard(name, dtype, (6, 1000)).T)
    _, _, m2_ref = ref.moments(x)
    for places in ((500,), (1,), (999,), (1, 3, 10, 11, 500, 998), tuple(range(1, 1000))):
        parts = cut(x, *places)
        merged = [
            op.Moments.merge(parts),
            op.Moments.merge(tuple(reversed(parts))),
            op.Moments.merge(iter(parts)),
        ]
        if len(parts) < 10:  # one after the other, errors add up
            merged += [sum(parts[1:], parts[0]), sum(parts[:0:-1], parts[0])]
        for m in merged:
            assert isinstance(m, op.Moments)
            assert m.count == 1000
            assert ref.mean_units(m.mean, x, 0) <= UNITS, (name, len(parts))
            assert ref.relative_units(m.m2, m2_ref, dtype) <= UNITS, (name, len(parts))


def test_merge_leaves_its_arguments_alone(dtype):
    a, b = cut(datasets.hard("N(0, 1)", dtype, (10, 5)), 3)
    kept = pickle.loads(pickle.dumps((a, b)))
    op.Moments.merge([a, b])
    _ = a + b
    assert (a, b) == kept
    assert op.Moments.merge([a]) == a


def test_what_does_not_merge(dtype):
    m = op.moments(datasets.hard("N(0, 1)", dtype, (10, 5)))
    with pytest.raises(ValueError, match="shape"):
        m + op.moments(np.ones((10, 4), dtype))
    with pytest.raises(TypeError):
        m + 1
    with pytest.raises(TypeError):
        op.Moments.merge([m, 1])


def test_equality_and_pickling(dtype):
    x = datasets.hard("N(0, 1)", dtype, (10, 5))
    m = op.moments(x)
    assert m == op.moments(x.copy())
    assert m != op.moments(x[:9])
    assert m != op.moments(x[:, :4])
    assert m != op.moments(x + dtype.type(1))
    assert m != op.moments(x * dtype.type(2))
    assert m != 1
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        copied = pickle.loads(pickle.dumps(m, protocol))
        assert copied == m
        assert np.array_equal(copied.var(1), m.var(1))
        assert np.ndim(copied.count) == 0
    scalar = op.moments(x, axis=(0, 1))
    assert pickle.loads(pickle.dumps(scalar)) == scalar


def test_threads(dtype, each_threads):
    for shape, axis in (
        ((3001, 257), 0),
        ((65536, 16), 0),
        ((257, 3001), 1),
        ((100, 64, 100), (0, 2)),
        ((700_001,), 0),
    ):
        x = datasets.hard("N(1e4, 1)", dtype, shape)
        m = op.moments(x, axis)
        assert ref.mean_units(m.mean, x, ref.axes_of(axis, x.ndim)) <= UNITS, shape
        assert ref.relative_units(m.m2, ref.moments(x, axis)[2], dtype) <= UNITS, shape
