"""mask= of batch, group and instance norm: padded batches have the statistics of the sequences without their padding."""

import datasets
import grouped
import ml_dtypes
import numpy as np
import pytest
import references as ref
from grouped import BATCH, NORMS, SOME, UNITS

import onepass as op

F32 = np.float32
HALVES = [np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)]
ALL = [np.dtype(F32), np.dtype(np.float64), *HALVES]

each_norm = pytest.mark.parametrize("norm", NORMS, ids=str)
some_norm = pytest.mark.parametrize("norm", SOME, ids=str)
each_batch = pytest.mark.parametrize("norm", BATCH, ids=str)
each_dtype = pytest.mark.parametrize("dtype", ALL, ids=str)


def arithmetic(dtype):
    return np.dtype(np.float64 if dtype == np.float64 else F32)


def parameters(norm, dtype):
    weight, bias = datasets.weight_and_bias(arithmetic(dtype), norm.channels)
    return (None, None), (weight, bias), (weight, None), (None, bias)


def stats_shape(norm):
    if norm.of_batch:
        return tuple(norm.channels if i == norm.axis % len(norm.shape) else 1 for i in range(len(norm.shape)))
    shape = [norm.shape[0], *[1] * (len(norm.shape) - 1)]
    shape[norm.axis] = norm.groups or norm.channels
    return tuple(shape)


def check(norm, x, mask, eps=1e-5, parameters=((None, None),)):
    """Every element against the formula; and the statistics, in the type of x's arithmetic."""
    of = grouped.known(norm, x, mask, eps)
    for weight, bias in parameters:
        y, mean, rstd = norm.forward(x, weight, bias, mask=mask, eps=eps, return_stats=True)
        assert (y.shape, y.dtype, y.flags.c_contiguous) == (x.shape, x.dtype, True)
        assert grouped.wrong(norm, y, grouped.affine(norm, of.xhat, weight, bias), mask) == 0
        assert mean.shape == rstd.shape == stats_shape(norm)
        assert mean.dtype == rstd.dtype == arithmetic(x.dtype)
        assert of.mean_units(mean) <= UNITS
        assert of.rstd_units(rstd) <= UNITS


def same(a, b):
    """Bit for bit, but for which NaN."""
    return all(p.dtype == q.dtype and np.array_equal(p, q, equal_nan=True) for p, q in zip(a, b, strict=True))


@pytest.mark.parametrize("name", datasets.HARD)
@each_norm
def test_digits(norm, name, dtype):
    x, mask = norm.data(name, dtype), norm.mask()
    for eps in (1e-5, 0.0):
        check(norm, x, mask, eps, parameters(norm, dtype)[: 2 if eps else 1])


@pytest.mark.parametrize("name", ["N(0, 1)", "integers 0..255"])
@each_norm
def test_digits_of_16_bits(norm, name, half):
    weight_and_bias = parameters(norm, half)
    check(norm, norm.data(name, half), norm.mask(), parameters=weight_and_bias)
    mine = [None if p is None else p.astype(half) for p in weight_and_bias[1]]
    check(norm, norm.data(name, half), norm.mask(), parameters=[mine])


@pytest.mark.parametrize("name", [*datasets.EXTREMES, "N(1e4, 1)", "1e-25 N"])
@some_norm
def test_the_ends_of_the_range(norm, name, dtype):
    rows = norm.rows(np.empty(norm.shape, np.bool_)).shape
    make = datasets.extreme if name in datasets.EXTREMES else datasets.hard
    x, mask = np.ascontiguousarray(norm.back(make(name, dtype, rows))), norm.mask()
    expected = grouped.forward(norm, x, mask=mask, eps=0.0)
    for isa in op.available_isas():
        op.use_isa(isa)
        assert grouped.wrong(norm, norm.forward(x, mask=mask, eps=0.0), expected, mask) == 0, isa


@pytest.mark.parametrize("ragged", [True, False], ids=["ragged", "scattered"])
@each_batch
@each_dtype
def test_padded_batches_are_the_sequences_end_to_end(norm, dtype, ragged):
    """The issue's promise: statistics and running statistics, of whatever stands in the padding."""
    x = norm.data("N(0, 1)", dtype)
    mask = (
        norm.mask()
        if ragged and norm.shape[0] > 1
        else np.random.default_rng(4).random(norm.mask_shape) < 0.6
    )
    assert 3 < mask.sum() < mask.size
    tokens = np.moveaxis(x, norm.axis, -1)[mask]
    padded = np.where(norm.spread(mask), x, dtype.type(7))
    kind = arithmetic(dtype)
    old_mean, old_var = (
        np.linspace(1, 3, norm.channels).astype(kind),
        np.linspace(0.5, 2, norm.channels).astype(kind),
    )
    for ddof, momentum in ((1, 0.1), (0, 0.75)):
        running = {"running_mean": old_mean.copy(), "running_var": old_var.copy()}
        given = {**running, "running_ddof": ddof, "momentum": momentum}
        y, mean, rstd = norm.forward(padded, mask=mask, return_stats=True, **given)
        assert np.array_equal(y, norm.forward(padded, mask=mask))
        _, _, rstd_ref = ref.batch_norm(tokens)
        assert ref.mean_units(mean, tokens, 0, kind) <= UNITS
        assert ref.relative_units(rstd, rstd_ref.reshape(rstd.shape), kind) <= UNITS
        expected = ref.running_statistics(tokens, old_mean, old_var, momentum, ddof)
        unit = np.finfo(kind).eps / 2 * np.maximum(3, np.abs(ref.wide(x)).max())
        for got, want in zip(running.values(), expected, strict=True):
            assert (np.abs(got - want) <= UNITS * unit).all()
        # And as the function itself gives it without padding.
        alone = {"running_mean": old_mean.copy(), "running_var": old_var.copy()}
        y_alone = op.batch_norm(tokens, training=True, **{**given, **alone})
        valid = np.moveaxis(y, norm.axis, -1)[mask]
        if dtype.itemsize == 2:
            assert ref.steps(valid, ref.wide(y_alone)).max() <= 1
        else:
            assert ref.units(valid, ref.wide(y_alone), 0) <= UNITS
        for name, got in running.items():
            assert (np.abs(got - alone[name]) <= UNITS * unit).all()


@pytest.mark.parametrize("norm", [n for n in NORMS if not n.of_batch and len(n.shape) > 2], ids=str)
@each_dtype
def test_a_padded_sample_is_the_sample_without_padding(norm, dtype):
    """Group and instance norm, a sample after the other: the padding cut off."""
    x = norm.data("N(0, 1)", dtype)
    mask = norm.mask()
    y, mean, rstd = norm.forward(np.where(norm.spread(mask), x, dtype.type(7)), mask=mask, return_stats=True)
    kind = arithmetic(dtype)
    for sample, valid, got, m, r in zip(x, mask, y, mean, rstd, strict=True):
        tokens = np.moveaxis(sample, norm.axis - 1 if norm.axis > 0 else -1, 0)[
            :, valid
        ]  # (channels, places)
        groups = tokens.reshape(norm.groups or norm.channels, -1)
        y_ref, _, rstd_ref = ref.normalize(groups, (1,), 1e-5)
        assert ref.mean_units(m.reshape(-1, 1), groups, 1, kind) <= UNITS
        assert ref.relative_units(r.reshape(-1, 1), rstd_ref, kind) <= UNITS
        got = np.moveaxis(got, norm.axis - 1 if norm.axis > 0 else -1, 0)[:, valid].reshape(groups.shape)
        if dtype.itemsize == 2:
            assert ref.steps(got, y_ref).max() <= 1
        else:
            assert ref.units(got, y_ref, 1) <= UNITS


@pytest.mark.parametrize("garbage", [np.nan, np.inf, -np.inf, 1e30, -1e4], ids=str)
@each_norm
def test_padding_may_hold_anything(norm, garbage, dtype):
    """Bit for bit the statistics and the valid elements of padding with zeros; what padding holds is normalized."""
    mask = norm.mask()
    seen = norm.spread(mask)
    x = np.where(seen, norm.data("N(1e4, 1)", dtype), 0)
    changed = np.where(seen, x, dtype.type(garbage))
    if norm.of_batch:
        zero, hurt = ([np.ones(norm.channels, dtype) for _ in range(2)] for _ in range(2))
        running = [{"running_mean": pair[0], "running_var": pair[1]} for pair in (zero, hurt)]
    else:
        running = [{}, {}]
    y, *stats = norm.forward(x, mask=mask, return_stats=True, **running[0])
    y_changed, *stats_changed = norm.forward(changed, mask=mask, return_stats=True, **running[1])
    assert same(stats, stats_changed)
    assert same(running[0].values(), running[1].values())
    assert np.isfinite(stats).all()
    assert np.array_equal(y[seen], y_changed[seen])
    if np.isfinite(garbage):
        assert grouped.wrong(norm, y_changed, grouped.forward(norm, changed, mask=mask), mask) == 0
    else:
        assert np.array_equal(y_changed[~seen], changed[~seen], equal_nan=True)


def test_nan_and_infinity_that_are_valid_stay_in_their_group(dtype, each_isa):
    for norm in SOME:
        mask = norm.mask()
        x = norm.data("N(0, 1)", dtype)
        hurt = x.copy()
        at = tuple(np.argwhere(norm.spread(mask))[7])
        hit = np.zeros(x.shape, np.bool_)
        hit[at] = True
        hit = norm.back(np.broadcast_to(norm.rows(hit).any(1, keepdims=True), norm.rows(hit).shape))
        for bad in (np.nan, np.inf):
            hurt[at] = bad
            y, y_hurt = norm.forward(x, mask=mask), norm.forward(hurt, mask=mask)
            assert not np.isfinite(y_hurt[hit]).any(), norm
            assert np.array_equal(y_hurt[~hit], y[~hit]), norm


@each_norm
@each_dtype
def test_a_mask_that_is_true_everywhere(norm, dtype):
    """The formula of the call without a mask, and within what is promised of its results."""
    x, mask = norm.data("N(0, 1)", dtype), np.ones(norm.mask_shape, np.bool_)
    of = grouped.known(norm, x)
    for weight, bias in parameters(norm, dtype)[:2]:
        y, mean, rstd = norm.forward(x, weight, bias, mask=mask, return_stats=True)
        assert grouped.wrong(norm, y, ref.wide(norm.forward(x, weight, bias))) == 0
        assert of.mean_units(mean) <= UNITS
        assert of.rstd_units(rstd) <= UNITS


@each_norm
@each_dtype
def test_a_mask_that_is_false_everywhere(norm, dtype):
    """Nothing is known: NaN, as 0 / 0; and running statistics stay as they were."""
    mask = np.zeros(norm.mask_shape, np.bool_)
    running = {}
    if norm.of_batch:
        running = {
            name: np.full(norm.channels, 3, arithmetic(dtype)) for name in ("running_mean", "running_var")
        }
    for out in (None, np.empty(norm.shape, dtype)):
        y, *stats = norm.forward(
            norm.data("N(0, 1)", dtype), mask=mask, return_stats=True, out=out, **running
        )
        assert (y.shape, y.dtype) == (norm.shape, dtype)
        assert np.isnan(y).all()
        assert np.isnan(stats).all()
        assert all((statistic == 3).all() for statistic in running.values())


@pytest.mark.parametrize("norm", [n for n in NORMS if not n.of_batch], ids=str)
def test_one_sample_without_valid_elements(norm, dtype):
    mask = norm.mask()
    x = norm.data("N(0, 1)", dtype)
    y, *stats = norm.forward(x, mask=mask, return_stats=True)
    mask[-1] = False
    without, *stats_without = norm.forward(x, mask=mask, return_stats=True)
    for a, b in zip((y, *stats), (without, *stats_without), strict=True):
        assert np.isnan(b[-1]).all()
        assert np.array_equal(a[:-1], b[:-1])


@each_norm
def test_constant_groups_give_the_bias(norm, dtype):
    bias = datasets.weight_and_bias(dtype, norm.channels)[1]
    mask = norm.mask()
    seen = norm.spread(mask)
    expected = np.broadcast_to(norm.a_channel(bias).astype(dtype), norm.shape)[seen]
    for value, eps in zip(datasets.CONSTANTS, (1e-5, 0.0, 1e-5, 0.0, 0.0), strict=True):
        x = np.where(seen, dtype.type(value), dtype.type(5))
        assert np.array_equal(norm.forward(x, None, bias, mask=mask, eps=eps)[seen], expected), value


@some_norm
def test_threads_and_instruction_sets(norm, dtype):
    """(That the bits are the same: tests/test_same_bits.py, on larger arrays.)"""
    x, mask = norm.data("N(1e4, 1)", dtype), norm.mask()
    expected = grouped.forward(norm, x, mask=mask)
    for isa in op.available_isas():
        for threads in (1, 2, 5):
            op.use_isa(isa)
            op.set_num_threads(threads)
            assert grouped.wrong(norm, norm.forward(x, mask=mask), expected, mask) == 0, (isa, threads)
