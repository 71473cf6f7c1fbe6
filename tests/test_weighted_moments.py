"""moments(mask=, weights=, skipna=): digits, what is left out, weights as repeated elements, merging, errors."""

import pickle
import re

import datasets
import layouts
import ml_dtypes
import nist
import numpy as np
import pytest
import references as ref

import onepass as op

UNITS = 8
F32 = np.float32
ALL = [np.dtype(t) for t in (F32, np.float64, np.float16, ml_dtypes.bfloat16)]
each_dtype = pytest.mark.parametrize("dtype", ALL, ids=str)

AXES = [
    ((6,), 0), ((300,), 0), ((9000,), -1), ((40, 7), 0), ((40, 7), 1), ((3, 8300), 1), ((700, 3), 0), ((300, 70), -2),
    ((40, 7), (0, 1)), ((5, 6, 19), 1), ((5, 6, 19), (0, 2)), ((5, 6, 19), (2, 0)), ((5, 6, 19), (-1, -2)),
    ((5, 6, 19), (0, 1)), ((5, 6, 19), (0, 1, 2)), ((3, 4, 5, 6), (1, 3)), ((3, 4, 5, 6), (-4, 2)),
    ((2, 3, 4, 5, 6), (4, 0, 2)), ((1, 17, 1), 1), ((1, 1), 0),
]  # fmt: skip
each_axis = pytest.mark.parametrize(("shape", "axis"), AXES, ids=str)


def kept_shape(shape, axis):
    axes = ref.axes_of(axis, len(shape))
    return tuple(n for i, n in enumerate(shape) if i not in axes)


def check(m, x, weights, axis, message=""):
    """Count, mean and m2 against the sums of the formula; 0 and NaN where nothing counts."""
    kind = np.dtype(np.float64 if x.dtype == np.float64 else F32)
    count, near, centre, m2 = ref.weighted_moments(x, weights, axis)
    axes = ref.axes_of(axis, x.ndim)
    shape = kept_shape(x.shape, axis)
    assert isinstance(m.count, float) or (m.count.shape, m.count.dtype) == (shape, np.float64), message
    assert (m.mean.shape, m.mean.dtype, m.m2.shape, m.m2.dtype) == (shape, np.float64) * 2, message
    counts = np.broadcast_to(m.count, shape).reshape(count.shape)
    assert (np.abs(counts - count) <= 4 * np.finfo(np.float64).eps * count).all(), message
    some = (count > 0).reshape(shape)
    assert np.isnan(m.mean[~some]).all(), message
    assert not m.m2[~some].any(), message
    with np.errstate(all="ignore"):
        distance = np.where(np.asarray(weights) > 0, np.abs((ref.wide(x) - near) - centre), 0).max(
            axes, keepdims=True
        )
        rounding = np.finfo(np.float64).eps / 2 * np.abs(near) * 1.001
        error = np.abs((m.mean.reshape(near.shape) - near) - centre) - rounding
        room = UNITS * np.finfo(kind).eps / 2 * distance
    assert (error <= room)[count > 0].all(), message
    assert ref.relative_units(m.m2[some], m2.reshape(shape)[some], kind) <= UNITS, message


def data(name, dtype, shape, axis, seed=0):
    """The hard data set, each group one of its rows."""
    axes = ref.axes_of(axis, len(shape))
    kept = kept_shape(shape, axis)
    rows = datasets.hard(name, dtype, (*kept, int(np.prod([shape[a] for a in axes]))), seed)
    x = rows.reshape(*kept, *[shape[a] for a in axes])
    return np.ascontiguousarray(np.moveaxis(x, range(len(kept), x.ndim), axes))


def weights_for(shape, seed=3):
    """Of many sizes, and some 0."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random(shape) < 0.2, 0.0, np.exp(rng.standard_normal(shape)))


@pytest.mark.parametrize("name", datasets.HARD)
def test_digits(name, dtype):
    for shape, axis in AXES:
        x = data(name, dtype, shape, axis)
        mask = np.random.default_rng(1).random(shape) < 0.7
        weights = weights_for(shape)
        for given, weight in (({"mask": mask}, mask), ({"weights": weights}, weights)):
            check(op.moments(x, axis, **given), x, weight, axis, (shape, axis, *given))


@each_axis
@each_dtype
def test_every_way_and_their_combinations(shape, axis, dtype):
    """A mask of any shape that broadcasts, weights in float64 or x's type, NaN left out: their product weighs."""
    rng = np.random.default_rng(2)
    x = data("N(0, 1)", dtype, shape, axis)
    holes = x.copy()
    holes[rng.random(shape) < 0.2] = np.nan
    masks = [None, rng.random(shape) < 0.7, rng.random(shape[-1:]) < 0.7, np.True_, np.False_]
    masks += [rng.random((n, *[1] * (len(shape) - i - 1))) < 0.7 for i, n in enumerate(shape)]
    weights = [None, weights_for(shape), weights_for(shape).astype(dtype)]
    axes = ref.axes_of(axis, len(shape))
    if len(axes) == 1:
        weights += [weights_for(shape[axes[0]]), weights_for(shape[axes[0]]).astype(dtype)]
    for i, mask in enumerate(masks):
        for w in weights if i < 3 else weights[:2]:
            for skipna in (False, True):
                if mask is None and w is None and not skipna:
                    continue
                weigh = np.broadcast_to(True if mask is None else mask, shape).astype(np.float64)
                if w is not None:
                    along = [n if a in axes else 1 for a, n in enumerate(shape)]
                    weigh = weigh * ref.wide(w).reshape(shape if w.shape == shape else along)
                if skipna:
                    weigh = np.where(np.isnan(ref.wide(holes)), 0, weigh)
                given = holes if skipna else x
                m = op.moments(given, axis, mask=mask, weights=w, skipna=skipna)
                check(m, given, weigh, axis, (np.shape(mask), np.shape(w), skipna))


@each_axis
def test_the_count_is_a_scalar_where_groups_cannot_differ(shape, axis, dtype):
    x = data("N(0, 1)", dtype, shape, axis)
    axes = ref.axes_of(axis, len(shape))
    assert isinstance(op.moments(x, axis).count, float)
    if len(axes) == 1:
        m = op.moments(x, axis, weights=np.full(shape[axes[0]], 0.5))
        assert isinstance(m.count, float)
        assert m.count == shape[axes[0]] / 2
    for given in ({"mask": np.ones(shape, np.bool_)}, {"skipna": True}):
        m = op.moments(x, axis, **given)
        assert np.ndim(m.count) == len(kept_shape(shape, axis))
        assert np.all(m.count == op.moments(x, axis).count)


@each_axis
def test_a_weight_of_n_is_the_element_n_times(shape, axis, dtype):
    axes = ref.axes_of(axis, len(shape))
    x = data("N(1e4, 1)", dtype, shape, axis)
    if len(axes) > 1:
        return check(op.moments(x, axis, weights=np.full(shape, 3.0)), x, np.full(shape, 3.0), axis)
    times = np.random.default_rng(0).integers(0, 4, shape[axes[0]])
    times[0] = 2
    m = op.moments(x, axis, weights=times.astype(np.float64))
    repeated = np.repeat(x, times, axes[0])
    assert m.count == times.sum()
    check(m, repeated, np.ones(repeated.shape), axis)
    check(op.moments(x, axis, mask=np.moveaxis(np.broadcast_to(times > 0, np.moveaxis(x, axis, -1).shape), -1, axis)),
          np.compress(times > 0, x, axes[0]), True, axis)  # fmt: skip


def test_all_alike_is_the_plain_call(dtype, each_isa):
    """A mask of True, weights of 1: within what is promised, and one power of two changes no bit."""
    for shape, axis in AXES:
        x = data("N(1e4, 1)", dtype, shape, axis)
        for given in ({"mask": np.ones(shape, np.bool_)}, {"weights": np.ones(shape)}, {"skipna": True}):
            check(op.moments(x, axis, **given), x, True, axis, (shape, axis))
        weights = weights_for(shape)
        m, twice = op.moments(x, axis, weights=weights), op.moments(x, axis, weights=2 * weights)
        assert np.array_equal(m.mean, twice.mean, equal_nan=True)
        assert np.array_equal(2 * m.m2, twice.m2)


@each_axis
@each_dtype
def test_what_does_not_count_may_hold_anything(shape, axis, dtype):
    x = data("N(0, 1)", dtype, shape, axis)
    mask = np.random.default_rng(1).random(shape) < 0.7
    expected = [op.moments(x, axis, mask=mask), op.moments(x, axis, weights=mask.astype(np.float64))]
    for garbage in (np.nan, np.inf, -np.inf, 6e4):
        changed = np.where(mask, x, dtype.type(garbage))
        assert op.moments(changed, axis, mask=mask) == expected[0], garbage
        assert op.moments(changed, axis, weights=mask.astype(np.float64)) == expected[1], garbage
    holes = np.where(mask, x, dtype.type(np.nan))
    check(op.moments(holes, axis, skipna=True), x, mask, axis)
    assert np.array_equal(expected[0].count, op.moments(holes, axis, skipna=True).count)


def test_nan_that_counts_stays_in_its_column(dtype, each_isa):
    x = datasets.hard("N(0, 1)", dtype, (300, 24))
    mask = np.random.default_rng(1).random(x.shape) < 0.7
    mask[211, 9] = True
    for bad, skipna in ((np.nan, False), (np.inf, False), (np.inf, True)):
        hurt = x.copy()
        hurt[211, 9] = bad
        expected, m = (op.moments(a, mask=mask, skipna=skipna) for a in (x, hurt))
        assert not np.isfinite(m.mean[9])
        assert np.isnan(m.m2[9])
        assert np.array_equal(m.count, expected.count)
        assert np.array_equal(np.delete(m.mean, 9), np.delete(expected.mean, 9))
        assert np.array_equal(np.delete(m.m2, 9), np.delete(expected.m2, 9))


def test_constants(dtype, each_isa):
    x = np.tile(np.array(datasets.CONSTANTS, dtype), (300, 1))
    weights = weights_for(x.shape)
    for given in (
        {"mask": weights > 0},
        {"weights": weights},
        {"weights": weights[:, 0].copy()},
        {"skipna": True},
    ):
        for m in (op.moments(x, **given), op.moments(np.asfortranarray(x), **given)):
            assert np.array_equal(m.mean, x[0].astype(np.float64))
            assert not m.m2.any()


@pytest.mark.parametrize("name", nist.CONSTRUCTED)
def test_digits_of_nist(name, each_isa):
    """The mean to 14 digits and the deviation to 13, as without weights: padding, holes, and every second one twice."""
    x = nist.load(name, from_file=False)[0]
    mean, deviation = nist.exact(x)
    holes = np.insert(x, np.arange(0, len(x), 3), np.nan)
    rows = np.stack([holes, holes[::-1]])
    half = np.concatenate([x[::2], x[1::2], [1e300, np.inf]])
    for how, m in (
        ("skipna", op.moments(holes, skipna=True)),
        ("mask", op.moments(holes, mask=~np.isnan(holes))),
        ("masked rows", op.moments(rows, axis=1, mask=~np.isnan(rows))),
        ("weights of 0", op.moments(half, weights=np.append(np.ones(len(x)), [0, 0]))),
        ("merged", op.moments(holes[:100], skipna=True) + op.moments(holes[100:], skipna=True)),
    ):  # fmt: skip
        for got_mean, got_deviation in zip(m.mean.ravel(), m.std(1).ravel(), strict=True):
            assert nist.digits(got_mean, mean) >= 14, how
            assert nist.digits(got_deviation, deviation) >= 13, how


def test_strides(dtype):
    x = datasets.hard("N(1e4, 1)", dtype, (60, 24))
    weights, mask = weights_for(x.shape), np.random.default_rng(1).random(x.shape) < 0.7
    for axis in (0, 1, (0, 1)):
        expected = op.moments(x, axis, mask=mask, weights=weights)
        views = zip(*(layouts.strided(a) for a in (x, mask, weights)), strict=True)
        for (name, x_view), (_, mask_view), (_, weights_view) in views:
            assert op.moments(x_view, axis, mask=mask_view, weights=weights_view) == expected, (name, axis)
            assert op.moments(x, axis, mask=memoryview(mask), weights=weights_view) == expected, (name, axis)
    for column in (weights[:, 3], weights[::-1, 3][::-1], np.broadcast_to(weights[0, 0], 60)):
        assert op.moments(x, weights=column) == op.moments(x, weights=column.copy())


def test_merging_groups_that_differ(dtype):
    """Parts of which groups have all, some or nothing merge to the whole; what is nothing changes nothing."""
    x = datasets.hard("N(1e6, 1)", dtype, (60, 4))
    mask = np.random.default_rng(1).random(x.shape) < 0.6
    mask[:20, 0] = mask[20:40, 1] = mask[:, 2] = False
    mask[40:, 0] = False
    parts = [op.moments(x[i : i + 20], mask=mask[i : i + 20]) for i in (0, 20, 40)]
    assert [p.count[0] > 0 for p in parts] == [False, True, False]
    for merged in (op.Moments.merge(parts), op.Moments.merge(parts[::-1]), parts[0] + parts[1] + parts[2]):
        assert np.array_equal(merged.count, mask.sum(0))
        check(merged, x, mask, 0)
    empty = op.moments(x, mask=np.False_)
    assert np.array_equal(empty.count, np.zeros(4))
    for merged in (empty + parts[0], parts[0] + empty):
        assert merged == parts[0]
    assert (empty + empty) == empty
    plain = op.moments(x[:20])  # of a scalar count
    check(plain + parts[1], x[:40], np.concatenate([np.ones((20, 4)), mask[20:40]]), 0)
    assert isinstance((plain + plain).count, float)
    weighted = op.moments(x, weights=weights_for(60))
    check(weighted + parts[0], np.concatenate([x, x[:20]]),
          np.concatenate([np.broadcast_to(weights_for(60)[:, None], x.shape), mask[:20]]), 0)  # fmt: skip


def test_var_and_std(dtype):
    x = datasets.hard("exp(3N)", dtype, (100, 7))
    mask = np.random.default_rng(1).random(x.shape) < 0.6
    mask[:, 2], mask[:, 3], mask[:, 4] = False, np.arange(100) == 7, np.arange(100) < 2
    m = op.moments(x, mask=mask)
    with np.errstate(all="ignore"):
        for ddof in (0, 1, 0.5):
            np.testing.assert_allclose(m.var(ddof), m.m2 / (mask.sum(0) - ddof), rtol=1e-15)
            np.testing.assert_allclose(m.std(ddof), np.sqrt(m.m2 / (mask.sum(0) - ddof)), rtol=1e-15)
    assert np.isnan(m.var()[2])
    assert m.var()[3] == 0
    assert np.isnan(m.var(1)[3])
    wide = ref.wide(x[:, 4])[:2]
    np.testing.assert_allclose(m.var(1)[4], float(wide.var(ddof=1)), rtol=1e-6)


def test_equality_pickling_and_repr(dtype):
    x = datasets.hard("N(0, 1)", dtype, (10, 3))
    mask = np.random.default_rng(1).random(x.shape) < 0.6
    mask[:, 1] = False
    m = op.moments(x, mask=mask)
    assert m == op.moments(x.copy(), mask=mask.copy())
    assert m != op.moments(x, mask=~mask)
    assert m != op.moments(x)
    assert op.moments(x, weights=np.full(10, 0.5)) != op.moments(x)
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        copied = pickle.loads(pickle.dumps(m, protocol))
        assert copied == m
        assert np.array_equal(copied.count, m.count)
    assert repr(m) == f"Moments(count={m.count!r}, mean={m.mean!r}, m2={m.m2!r})"
    assert (
        repr(op.moments(np.ones(2), weights=np.array([0.5, 1.0])))
        == "Moments(count=1.5, mean=array(1.), m2=array(0.))"
    )
    rebuilt = op.Moments(m.count, m.mean, m.m2)
    assert np.array_equal(rebuilt.var(), m.var(), equal_nan=True)


def test_empty(dtype):
    for given in ({"mask": np.True_}, {"weights": np.empty((0, 5))}, {"skipna": True}):
        m = op.moments(np.empty((0, 5), dtype), **given)
        assert np.array_equal(m.count, np.zeros(5))
        assert np.isnan(m.mean).all()
        assert not m.m2.any()
    assert op.moments(np.empty((0, 5), dtype), weights=np.empty(0)).count == 0
    assert op.moments(np.empty((4, 0), dtype), skipna=True).count.shape == (0,)


def test_threads(dtype, each_threads):
    for shape, axis in (((3001, 40), 0), ((40, 3001), 1), ((100, 8, 100), (0, 2)), ((100_001,), 0)):
        x = datasets.hard("N(1e4, 1)", dtype, shape)
        weights = weights_for(shape)
        check(op.moments(x, axis, weights=weights), x, weights, axis, shape)


X = np.ones((4, 3), F32)


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"mask": [[True] * 3] * 4}, TypeError, "mask is list; expected a NumPy array of bool"),
        ({"mask": np.ones((4, 3))}, TypeError, "mask has dtype float64; expected bool"),
        ({"mask": np.ones(4, np.bool_)}, ValueError,
         "mask has shape (4,); expected one that broadcasts to (4, 3), the shape of x"),
        ({"mask": np.ones((2, 4, 3), np.bool_)}, ValueError, "mask has shape (2, 4, 3); expected"),
        ({"weights": [1.0] * 4}, TypeError, "weights is list"),
        ({"weights": np.ones(4, int)}, TypeError, "weights has dtype int64"),
        ({"weights": np.ones(4, np.float16)}, TypeError, "weights has dtype float16; expected float64 or float32"),
        ({"weights": np.ones(3)}, ValueError,
         "weights has shape (3,); expected (4, 3), the shape of x, or (4,), its length along axis"),
        ({"weights": np.ones((4, 1))}, ValueError, "weights has shape (4, 1); expected (4, 3)"),
        ({"weights": np.ones(())}, ValueError, "weights has shape (); expected (4, 3)"),
        ({"weights": np.ones(4), "axis": (0, 1)}, ValueError, "weights has shape (4,); expected (4, 3), the shape of x"),
        ({"weights": np.ones(4), "axis": 1}, ValueError, "(4,); expected (4, 3), the shape of x, or (3,)"),
        *[({"weights": np.array([1, 2, bad, 3.0])}, ValueError,
           "weights has elements that are negative, NaN or infinite; expected finite ones, 0 or more")
          for bad in (-1, np.nan, np.inf, -np.inf, -1e-300)],
        ({"weights": np.full((4, 3), -1, F32)}, ValueError, "weights has elements that are negative"),
        ({"weights": np.array([1, -1, 1, 1.0]), "mask": np.array([[True], [False], [True], [True]])}, ValueError,
         "weights has elements that are negative"),
        ({"skipna": np.ones(3)}, TypeError, "skipna is numpy.ndarray; expected a bool"),
    ],
)  # fmt: skip
def test_wrong_input(given, error, words):
    with pytest.raises(error, match=re.escape(words)):
        op.moments(X, **given)


def test_float64_weights_of_float64():
    with pytest.raises(TypeError, match=r"weights has dtype float32; expected float64, as x is float64"):
        op.moments(X.astype(np.float64), weights=np.ones(4, F32))
    assert op.moments(X, weights=np.array([0.0, -0.0, 1, 2])).count == 3
