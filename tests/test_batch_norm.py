"""batch_norm in every layout: digits, constants, NaN, out, statistics, and the running statistics."""

import datasets
import numpy as np
import pytest
import references as ref

import onepass as op

UNITS = 8

# (samples, spatial extents): one layout with the channels at 1 and one with the channels last for each.
LAYOUTS = [
    *[(n, ()) for n in (1, 2, 3, 15, 16, 17, 127, 128, 129, 300, 1031)],
    *[(n, (s,)) for n in (1, 2, 5, 33) for s in (1, 2, 3, 7, 16, 100)],
    *[(n, (s,)) for n in (1, 3) for s in (127, 128, 129, 1024, 5003)],
    (4, (7, 7)),
    (3, (14, 5)),
    (1, (56, 56)),
    (17, (1, 3)),
    (2, (3, 4, 5)),
    (5, (2, 1, 2)),
]
CHANNELS = (1, 3, 16, 17, 37)
SOME_LAYOUTS = [(6, ()), (200, ()), (5, (3,)), (3, (129,)), (4, (7, 6)), (2, (3, 4, 5))]


def layouts(layouts=LAYOUTS):
    """(samples, spatial extents, channel axis, channels), each layout with channels first and last."""
    for i, (n, spatial) in enumerate(layouts):
        for axis in (1, -1):
            yield n, spatial, axis, CHANNELS[(i + (axis < 0)) % len(CHANNELS)]


def batch(name, dtype, n, spatial, axis, channels):
    """The hard data set `name`, every channel one of its groups."""
    groups = datasets.hard(name, dtype, (channels, n * int(np.prod(spatial))), seed=n + 7 * channels)
    return datasets.spread_channels(groups, n, spatial, axis)


def reduced_axes(x, axis):
    return ref.others(axis % x.ndim, x.ndim)


@pytest.mark.parametrize("name", datasets.HARD)
def test_digits_in_training(name, dtype, each_isa):
    for n, spatial, axis, c in layouts():
        x = batch(name, dtype, n, spatial, axis, c)
        weight, bias = datasets.weight_and_bias(dtype, c)
        normalized = ref.batch_norm(x, axis=axis)[0]
        for w, b in ((None, None), (weight, bias), (weight, None), (None, bias)):
            y = op.batch_norm(x, w, b, training=True, axis=axis)
            assert (y.shape, y.dtype, y.flags.c_contiguous) == (x.shape, dtype, True)
            expected = ref.affine(normalized, w, b, (axis % x.ndim,))
            units = ref.units(y, expected, reduced_axes(x, axis))
            message = f"{name}, {x.shape}, axis {axis}, weight {w is not None}, bias {b is not None}"
            assert units <= UNITS, f"{units:.1f} units: {message}"


@pytest.mark.parametrize("name", [name for name in datasets.HARD if name != "1e20 N"])
def test_digits_in_inference(name, dtype, each_isa):
    for n, spatial, axis, c in layouts():
        x = batch(name, dtype, n, spatial, axis, c)
        weight, bias = datasets.weight_and_bias(dtype, c)
        _, mean, m2 = ref.moments(x, reduced_axes(x, axis))
        running_mean, running_var = mean.astype(dtype), (m2 / x.size * c + 0.5).astype(dtype)
        normalized = ref.batch_norm_inference(x, running_mean, running_var, axis=axis)[0]
        for w, b in ((None, None), (weight, bias), (weight, None), (None, bias)):
            y = op.batch_norm(x, w, b, running_mean=running_mean, running_var=running_var, axis=axis)
            assert (y.shape, y.dtype, y.flags.c_contiguous) == (x.shape, dtype, True)
            # A small group may lie where y and bias cancel: a unit is never less than that of the bias.
            room = (
                0 if b is None else np.abs(ref.affine(np.zeros_like(normalized), None, b, (axis % x.ndim,)))
            )
            expected = ref.affine(normalized, w, b, (axis % x.ndim,))
            error = np.abs(ref.wide(y) - expected).max(reduced_axes(x, axis))
            size = np.maximum(np.abs(expected), room).max(reduced_axes(x, axis))
            units = (error / (size * np.finfo(dtype).eps / 2 + (size == 0))).max()
            assert units <= UNITS, f"{units:.1f} units: {name}, {x.shape}, axis {axis}"


@pytest.mark.parametrize("name", datasets.EXTREMES)
def test_digits_at_the_ends_of_the_range(name, dtype, each_isa):
    for n, spatial, axis, c in layouts(SOME_LAYOUTS):
        groups = datasets.extreme(name, dtype, (c, n * int(np.prod(spatial))))
        x = datasets.spread_channels(groups, n, spatial, axis)
        y = op.batch_norm(x, training=True, axis=axis, eps=0.0)
        units = ref.units(y, ref.batch_norm(x, axis=axis, eps=0.0)[0], reduced_axes(x, axis))
        assert units <= UNITS, f"{units:.1f} units: {name}, {x.shape}, axis {axis}"


def test_an_extreme_channel_among_ordinary_ones(dtype, each_isa):
    for n, spatial, axis, _ in layouts(SOME_LAYOUTS):
        x = batch("N(0, 1)", dtype, n, spatial, axis, 20)
        expected = op.batch_norm(x, training=True, axis=axis, eps=0.0)
        for scale in (2.0**66, 2.0**-83):
            changed = x.copy()
            np.moveaxis(changed, axis, 0)[13] *= dtype.type(scale)
            y = op.batch_norm(changed, training=True, axis=axis, eps=0.0)
            message = (x.shape, axis, scale)
            assert np.array_equal(np.delete(y, 13, axis), np.delete(expected, 13, axis)), message
            y_ref = ref.batch_norm(changed, axis=axis, eps=0.0)[0]
            assert ref.units(y, y_ref, reduced_axes(x, axis)) <= UNITS, message


def test_constant_channels(dtype, each_isa):
    for n, spatial, axis, _ in layouts():
        groups = np.repeat(np.array(datasets.CONSTANTS, dtype)[:, None], n * int(np.prod(spatial)), axis=1)
        x = datasets.spread_channels(groups, n, spatial, axis)
        weight, bias = datasets.weight_and_bias(dtype, len(groups))
        expected = ref.affine(np.zeros(x.shape), None, bias, (axis % x.ndim,)).astype(dtype)
        for eps in (1e-5, 0.0):
            call = {"training": True, "axis": axis, "eps": eps}
            assert not op.batch_norm(x, **call).any(), (x.shape, axis, eps)
            assert not op.batch_norm(x, weight, **call).any(), (x.shape, axis, eps)
            assert np.array_equal(op.batch_norm(x, weight, bias, **call), expected), (x.shape, axis, eps)
            assert np.array_equal(op.batch_norm(x, None, bias, **call), expected), (x.shape, axis, eps)


def test_nan_and_infinity_stay_in_their_channel(dtype, each_isa):
    for n, spatial, axis, _ in layouts(SOME_LAYOUTS):
        x = batch("N(0, 1)", dtype, n, spatial, axis, 20)
        running_mean, running_var = np.zeros(20, dtype), np.ones(20, dtype)
        expected = op.batch_norm(x, training=True, axis=axis)
        for bad in (np.nan, np.inf, -np.inf):
            for place in (0, n * int(np.prod(spatial)) - 1):
                changed = x.copy()
                channel = np.moveaxis(changed, axis, 0)[11]
                channel[np.unravel_index(place, channel.shape)] = bad
                y = op.batch_norm(changed, training=True, axis=axis)
                message = (x.shape, axis, bad, place)
                assert np.isnan(np.moveaxis(y, axis, 0)[11]).all(), message
                assert np.array_equal(np.delete(y, 11, axis), np.delete(expected, 11, axis)), message
                y = op.batch_norm(changed, running_mean=running_mean, running_var=running_var, axis=axis)
                assert np.isfinite(y).sum() == x.size - 1, message


def strided(x):
    """x's values under other strides, by name."""
    wider = np.zeros([2 * n for n in x.shape], x.dtype)
    wider[tuple(slice(1, None, 2) for _ in x.shape)] = x
    yield "every second element", wider[tuple(slice(1, None, 2) for _ in x.shape)]
    yield "Fortran", np.array(x, order="F")
    yield "reversed", np.flip(np.flip(x).copy())
    yield "the other layout", np.moveaxis(np.array(np.moveaxis(x, 1, -1), order="C"), -1, 1)
    yield "a part of the samples", np.concatenate([x, x])[: len(x)]
    yield "a part of the channels", np.concatenate([x, x], axis=1)[:, : x.shape[1]]


def results(x, c, axis, training, out=None):
    """y, mean, rstd and the running statistics after the call."""
    weight, bias = datasets.weight_and_bias(x.dtype, c)
    running = np.linspace(-1, 1, c).astype(x.dtype), np.linspace(0.5, 2, c).astype(x.dtype)
    y = op.batch_norm(x, weight, bias, running_mean=running[0], running_var=running[1], training=training,
                      axis=axis, out=out, return_stats=True)  # fmt: skip
    return *y, *running


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 12, 24, 100])
def test_narrow_rows_have_the_bits_of_their_parts(channels, dtype, each_isa):
    """They are written several at a time, by how many there are."""
    x = np.ascontiguousarray(datasets.hard("N(0, 1)", dtype, (channels, 1031), seed=channels).T)
    running = {"running_mean": x.mean(0), "running_var": x.var(0)}
    weight, bias = datasets.weight_and_bias(dtype, channels)
    for w, b in ((None, None), (weight, bias)):
        y = op.batch_norm(x, w, b, **running)
        for rows in (1, 8, 15, 16, 17, 100, 1000):
            assert np.array_equal(op.batch_norm(x[:rows], w, b, **running), y[:rows], equal_nan=True), rows


@pytest.mark.parametrize("training", [True, False])
def test_strides_out_and_in_place(training, dtype, each_isa):
    for n, spatial, axis, c in layouts(SOME_LAYOUTS):
        x = batch("N(1e4, 1)", dtype, n, spatial, axis, c)
        kept, expected = x.copy(), results(x, c, axis, training)
        outs = [*strided(np.full(x.shape, 7, dtype)), ("contiguous", np.empty_like(x))]
        for name, view in [*strided(x), ("contiguous", x.copy())]:
            assert np.array_equal(view, x)
            message = f"{name}, {x.shape}, axis {axis}"
            for got, want in zip(results(view, c, axis, training), expected, strict=True):
                assert np.array_equal(got, want), f"x {message}"
            y, *rest = results(view, c, axis, training, out=view)
            assert y is view
            for got, want in zip((y, *rest), expected, strict=True):
                assert np.array_equal(got, want), f"in place {message}"
        for name, out in outs:
            y, *rest = results(x, c, axis, training, out=out)
            assert y is out
            for got, want in zip((y, *rest), expected, strict=True):
                assert np.array_equal(got, want), f"out {name}, {x.shape}, axis {axis}"
        assert np.array_equal(x, kept)


def test_statistics_in_training(dtype, each_isa):
    for n, spatial, axis, c in layouts(SOME_LAYOUTS):
        for name in ("N(0, 1)", "N(1e6, 1)", "1e20 N"):
            x = batch(name, dtype, n, spatial, axis, c)
            y, mean, rstd = op.batch_norm(x, training=True, axis=axis, return_stats=True)
            _, mean_ref, rstd_ref = ref.batch_norm(x, axis=axis)
            assert np.array_equal(y, op.batch_norm(x, training=True, axis=axis))
            assert mean.shape == rstd.shape == mean_ref.shape
            assert mean.dtype == rstd.dtype == dtype
            assert ref.mean_units(mean, x, reduced_axes(x, axis)) <= UNITS, (name, x.shape, axis)
            assert ref.relative_units(rstd, rstd_ref, dtype) <= UNITS, (name, x.shape, axis)


def test_statistics_in_inference(dtype, each_isa):
    for n, spatial, axis, c in layouts(SOME_LAYOUTS):
        x = batch("N(0, 1)", dtype, n, spatial, axis, c)
        running_mean, running_var = np.linspace(-1, 1, c).astype(dtype), np.linspace(0.5, 2, c).astype(dtype)
        call = {"running_mean": running_mean, "running_var": running_var, "axis": axis}
        y, mean, rstd = op.batch_norm(x, **call, return_stats=True)
        _, mean_ref, rstd_ref = ref.batch_norm_inference(x, running_mean, running_var, axis=axis)
        assert np.array_equal(y, op.batch_norm(x, **call))
        assert mean.shape == rstd.shape == mean_ref.shape
        assert mean.dtype == rstd.dtype == dtype
        assert np.array_equal(mean, mean_ref)
        assert ref.relative_units(rstd, rstd_ref, dtype) <= UNITS


def running_units(got, want, *sizes):
    """The largest error in units of eps/2 of the largest number that enters an element."""
    size = np.maximum.reduce([np.abs(ref.wide(s)) for s in sizes])
    return float((np.abs(ref.wide(got) - want) / size).max() / (np.finfo(got.dtype).eps / 2))


@pytest.mark.parametrize("running_ddof", [0, 1])
@pytest.mark.parametrize("momentum", [0.1, 0.0, 1.0, 0.01, 0.75])
def test_running_statistics(momentum, running_ddof, dtype, each_isa):
    for n, spatial, axis, c in layouts(SOME_LAYOUTS):
        for name in ("N(0, 1)", "N(1e6, 1)", "exp(3N)"):
            x = batch(name, dtype, n, spatial, axis, c)
            old_mean = np.linspace(1, 3, c).astype(dtype)
            old_var = np.linspace(0.5, 2, c).astype(dtype)
            new_mean, new_var = old_mean.copy(), old_var.copy()
            y = op.batch_norm(x, running_mean=new_mean, running_var=new_var, training=True, axis=axis,
                              momentum=momentum, running_ddof=running_ddof)  # fmt: skip
            assert np.array_equal(y, op.batch_norm(x, training=True, axis=axis))
            mean, var = ref.running_statistics(x, old_mean, old_var, momentum, running_ddof, axis)
            batch_var = ref.running_statistics(x, old_mean, old_var, 1.0, running_ddof, axis)[1]
            largest = np.abs(x).max(reduced_axes(x, axis))
            message = (name, x.shape, axis)
            assert running_units(new_mean, mean, old_mean, largest) <= UNITS, message
            assert running_units(new_var, var, old_var, batch_var) <= UNITS, message
            if momentum == 0:
                assert np.array_equal(new_mean, old_mean), message
                assert np.array_equal(new_var, old_var), message


def test_running_statistics_default_to_torchs(dtype):
    x = batch("N(0, 1)", dtype, 5, (3,), 1, 4)
    pairs = [(np.ones(4, dtype), np.ones(4, dtype)) for _ in range(2)]
    op.batch_norm(x, running_mean=pairs[0][0], running_var=pairs[0][1], training=True)
    op.batch_norm(
        x, running_mean=pairs[1][0], running_var=pairs[1][1], training=True, momentum=0.1, running_ddof=1
    )
    assert np.array_equal(pairs[0], pairs[1])
    assert not np.array_equal(pairs[0][0], np.ones(4, dtype))


def test_running_statistics_of_any_stride(dtype, each_isa):
    for n, spatial, axis, c in layouts(SOME_LAYOUTS):
        x = batch("N(0, 1)", dtype, n, spatial, axis, c)
        plain = np.ones(c, dtype), np.ones(c, dtype)
        op.batch_norm(x, running_mean=plain[0], running_var=plain[1], training=True, axis=axis)
        trained = op.batch_norm(x, running_mean=plain[0], running_var=plain[1], axis=axis)
        table = np.ones((c, 5), dtype)
        rmean, rvar = table[:, 1], table[::-1, 3]
        op.batch_norm(x, running_mean=rmean, running_var=rvar, training=True, axis=axis)
        assert np.array_equal(rmean, plain[0])
        assert np.array_equal(rvar, plain[1])
        assert (table[:, [0, 2, 4]] == 1).all()
        assert np.array_equal(op.batch_norm(x, running_mean=rmean, running_var=rvar, axis=axis), trained)


def test_only_one_of_the_running_statistics(dtype, each_isa):
    x = batch("N(0, 1)", dtype, 5, (3,), 1, 4)
    both = np.ones(4, dtype), np.ones(4, dtype)
    expected = op.batch_norm(x, running_mean=both[0], running_var=both[1], training=True)
    mean, var = np.ones(4, dtype), np.ones(4, dtype)
    assert np.array_equal(op.batch_norm(x, running_mean=mean, training=True), expected)
    assert np.array_equal(op.batch_norm(x, running_var=var, training=True), expected)
    assert np.array_equal(mean, both[0])
    assert np.array_equal(var, both[1])


def test_too_few_elements_for_the_running_variance(dtype):
    for shape, ddof in (((1, 3), 1), ((1, 3, 1, 1), 1), ((2, 3), 2), ((1, 3, 4), 7)):
        x = datasets.hard("N(0, 1)", dtype, shape)
        mean, var, out = np.ones(3, dtype), np.ones(3, dtype), np.full(shape, 7, dtype)
        with pytest.raises(ValueError, match="running_ddof"):
            op.batch_norm(x, running_mean=mean, running_var=var, training=True, running_ddof=ddof, out=out)
        assert (mean == 1).all()
        assert (var == 1).all()
        assert (out == 7).all()
        # Nothing is divided by zero where no running variance is updated.
        expected = op.batch_norm(x, training=True)
        assert np.array_equal(op.batch_norm(x, running_mean=mean, training=True, running_ddof=ddof), expected)
        assert np.array_equal(op.batch_norm(x, training=True, running_ddof=ddof), expected)
        op.batch_norm(x, running_mean=mean, running_var=var, running_ddof=ddof)


def test_one_element_a_channel(dtype, each_isa):
    weight, bias = datasets.weight_and_bias(dtype, 3)
    mean, var = np.full(3, 2, dtype), np.full(3, 4, dtype)
    x = np.array([[1, 2, 3]], dtype)
    y = op.batch_norm(
        x, weight, bias, running_mean=mean, running_var=var, training=True, momentum=0.5, running_ddof=0
    )
    assert np.array_equal(y, bias[None])
    assert np.array_equal(mean, np.array([1.5, 2, 2.5], dtype))
    assert np.array_equal(var, np.full(3, 2, dtype))


def test_inference_needs_both_running_statistics(dtype):
    x = batch("N(0, 1)", dtype, 5, (3,), 1, 4)
    ones, out = np.ones(4, dtype), np.full(x.shape, 7, dtype)
    for given in ({}, {"running_mean": ones}, {"running_var": ones}):
        with pytest.raises(ValueError, match=r"running_(mean|var)"):
            op.batch_norm(x, **given, out=out)
    assert (out == 7).all()


@pytest.mark.parametrize(
    "shape", [(0, 3), (0, 3, 4), (2, 3, 0), (2, 0, 4), (0, 0), (0, 3, 2, 2), (2, 3, 0, 4), (3, 0)]
)
def test_empty(shape, dtype, each_isa):
    x, c = np.empty(shape, dtype), shape[1]
    weight, bias = datasets.weight_and_bias(dtype, c)
    mean, var, out = np.full(c, 2, dtype), np.full(c, 4, dtype), np.empty(shape, dtype)
    for training in (True, False):
        call = {"running_mean": mean, "running_var": var, "training": training}
        y, *stats = op.batch_norm(x, weight, bias, **call, return_stats=True)
        assert (y.shape, y.dtype) == (shape, dtype)
        assert [s.shape for s in stats] == [tuple(n if i == 1 else 1 for i, n in enumerate(shape))] * 2
        assert op.batch_norm(x, **call, out=out) is out
        assert (mean == 2).all()
        assert (var == 4).all()


def test_threads(dtype, each_threads):
    for n, spatial, axis, c in (
        (3001, (), 1, 257),
        (20, (16, 16), 1, 64),
        (20, (16, 16), -1, 64),
        (300, (7,), 1, 200),
    ):
        x = batch("N(1e4, 1)", dtype, n, spatial, axis, c)
        units = ref.units(
            op.batch_norm(x, training=True, axis=axis), ref.batch_norm(x, axis=axis)[0], reduced_axes(x, axis)
        )
        assert units <= UNITS, f"{units:.1f} units: {x.shape}, axis {axis}"
