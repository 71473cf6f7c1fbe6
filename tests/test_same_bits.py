"""Same bits: over threads, instruction sets, places in the batch, alignment, strides, out, in place.

Every test here walks all rows of bit_cases.CASES, to which a new function adds its own.
"""

import dataclasses
import inspect

import ml_dtypes
import numpy as np
import pytest
from bit_cases import CASES, assert_same, data, expected, layer_norm, rms_norm, rows_as_channels

import onepass as op

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)


@every_case
def test_threads(case, dtype):
    x = data(case, dtype)
    want = expected(case, x)
    for threads in (2, 3, 5, 8):
        op.set_num_threads(threads)
        assert_same(case.run(x, None), want, f"{threads} threads")


@every_case
def test_instruction_sets(case, dtype):
    x = data(case, dtype)
    want = expected(case, x)
    for isa in op.available_isas():
        op.use_isa(isa)
        assert_same(case.run(x, None), want, isa)


def shorter(case):
    """The case with fewer rows: where memory is laid out otherwise, no size is needed to see it."""
    return dataclasses.replace(case, shape=tuple(min(n, 8009) for n in case.shape))


def moved(x, by):
    """A copy of x whose memory begins `by` elements behind a 64-byte boundary."""
    buffer = np.empty(x.size + 64, x.dtype)
    start = -(buffer.ctypes.data // x.itemsize) % (64 // x.itemsize) + by
    copy = buffer[start : start + x.size].reshape(x.shape)
    copy[...] = x
    return copy


@every_case
def test_alignment(case, dtype):
    case = shorter(case)
    x = data(case, dtype)
    want = expected(case, x)
    for isa in op.available_isas():
        op.use_isa(isa)
        for by in (0, 1, 5):
            assert_same(case.run(moved(x, by), None), want, f"x {by} elements off, {isa}")
            if case.has_out:
                assert_same(case.run(x, moved(np.zeros_like(x), by)), want, f"out {by} elements off, {isa}")


def strided(x):
    """Copies of x under other strides, by name."""
    wider = np.empty((*x.shape[:-1], x.shape[-1] + 5), x.dtype)
    wider[..., 2:-3] = x
    yield "padded rows", wider[..., 2:-3]
    sparse = np.empty((*x.shape[:-1], 2 * x.shape[-1]), x.dtype)
    sparse[..., ::2] = x
    yield "every second element", sparse[..., ::2]
    skipped = np.empty((2 * x.shape[0], *x.shape[1:]), x.dtype)
    skipped[1::2] = x
    yield "every second row", skipped[1::2]
    yield "rows reversed", np.flip(np.flip(x, 0).copy(), 0)
    yield "last axis reversed", np.flip(np.flip(x, -1).copy(), -1)
    yield "Fortran", np.array(x, order="F")


@every_case
def test_strides_out_and_in_place(case, dtype):
    case = shorter(case)
    x = data(case, dtype)
    want = expected(case, x)
    op.set_num_threads(2)
    for name, view in [*strided(x), ("contiguous", x.copy())]:
        assert_same(case.run(view, None), want, f"x {name}")
        if case.has_out:
            out = (
                np.empty_like(view)
                if name in ("contiguous", "Fortran")
                else dict(strided(np.zeros_like(x)))[name]
            )
            assert_same(case.run(x, out), want, f"out {name}")
            assert_same(case.run(view, view), want, f"in place {name}")


@pytest.mark.parametrize("case", [case for case in CASES if case.rows], ids=lambda case: case.id)
def test_place_in_the_batch(case, dtype):
    x = data(case, dtype)
    y = case.of_rows(expected(case, x))
    n = len(x)

    def rows(x):
        return case.of_rows(case.run(np.ascontiguousarray(x), None))

    shuffled = np.random.default_rng(3).permutation(n)
    for name, places in {
        "reversed": np.arange(n)[::-1],
        "shuffled": shuffled,
        "a part": np.arange(n // 3, n),
        "an odd part": np.arange(1, n, 3),
        "the first": np.arange(1),
        "the last": np.arange(n - 1, n),
        "three": shuffled[:3],
        "all, 5 times over": np.tile(np.arange(min(n, 9)), 5),
    }.items():
        for threads in (1, 2):
            op.set_num_threads(threads)
            assert_same([rows(x[places])], [y[places]], f"{name}, {threads} threads")


every_type = pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])


def narrow_rows(n, d, dtype):
    """Ordinary rows, and some that are not finite, constant, or out of range."""
    x = np.random.default_rng(d).standard_normal((n, d)) + 1
    x[[2, 20], d // 2] = np.nan, np.inf
    x[3], x[5], x[30] = 0.1, x[5] * 2.0**66, x[30] * 2.0**-83
    with np.errstate(over="ignore"):
        return x.astype(dtype)


def assert_same_numbers(got, want, where):
    nan = np.isnan(got)
    assert np.array_equal(nan, np.isnan(want)), where
    assert got[~nan].tobytes() == want[~nan].tobytes(), where


def moments(x, out):
    of_rows = op.moments(x, axis=-1)
    return of_rows.mean, of_rows.m2


def min_max_scale(x, out):
    with np.errstate(over="ignore", invalid="ignore"):
        return (op.min_max_scale(x, axis=-1),)


@pytest.mark.parametrize(
    "run",
    [layer_norm(), rms_norm(), moments, rows_as_channels, min_max_scale],
    ids=["layer_norm", "rms_norm", "moments", "instance_norm", "min_max_scale"],
)
@every_type
def test_narrow_rows_side_by_side(run, dtype, each_isa):
    """Those that are finished together have the bits of each alone, and so have their statistics."""
    for d in (1, 2, 5, 15, 16, 17, 31, 64, 100, 128, 255, 256, 511, 600):
        x = narrow_rows(39, d, dtype)
        together = run(x, None)
        for row in range(len(x)):
            alone = run(x[row : row + 1], None)
            for one, of_all in zip(alone, together, strict=True):
                assert_same_numbers(np.asarray(one), np.asarray(of_all)[row : row + 1], (d, row))


@pytest.mark.parametrize("norm", [op.layer_norm_backward, op.rms_norm_backward])
@every_type
def test_gradients_of_narrow_rows_side_by_side(norm, dtype, each_isa):
    """In blocks of enough rows they are finished together; in a call of a few, each is alone."""
    for d in (1, 3, 15, 16, 17, 31, 64, 100, 128, 192, 255):
        x, weight, dy = narrow_rows(600, d, dtype), np.full(d, 1.5, dtype), np.ones((600, d)) / 3
        dy[::2] = x[::-2]
        dy[33] = 2.0**125  # The row's sums overflow.
        with np.errstate(over="ignore"):
            dy = dy.astype(dtype)
        together = norm(dy, x, weight)[0]
        for row in range(0, len(x), 15):
            few = slice(row, row + 15)
            assert_same_numbers(norm(dy[few], x[few], weight)[0], together[few], (d, row))


@every_type
def test_gradients_of_short_channels_side_by_side(dtype, each_isa):
    for d in (1, 3, 9, 16, 17, 33, 49, 63, 64, 65):
        x = narrow_rows(39, d, dtype)[None]
        dy, weight = np.ones_like(x) / dtype(3), np.full(39, 1.5, dtype)
        dy[0, ::2] = x[0, ::-2]
        x[0, 7, d // 2] = 1000  # Its pivot is astray, or the one of what is left.
        together = op.instance_norm_backward(dy, x, weight, axis=1)
        for channel in range(39):
            one = np.s_[channel : channel + 1]
            alone = op.instance_norm_backward(dy[:, one], x[:, one], weight[one], axis=1)
            for got, want in zip(
                alone, (together[0][:, one], together[1][one], together[2][one]), strict=True
            ):
                assert_same_numbers(got, want, (d, channel))


@pytest.mark.parametrize("norm", [op.layer_norm_backward, op.rms_norm_backward])
@every_type
def test_gradients_of_rows_in_pairs(norm, dtype, each_isa):
    """Two rows are written at once, whichever two, if both are as usual."""
    for d in (512, 2048, 4096):
        x, weight, dy = narrow_rows(31, d, dtype), np.full(d, 1.5, dtype), np.ones((31, d)) / 3
        dy[::2] = x[::-2]
        dy[13] = 2.0**125  # The row's sums overflow.
        with np.errstate(over="ignore"):
            dy = dy.astype(dtype)
        together, shifted = norm(dy, x, weight)[0], norm(dy[1:], x[1:], weight)[0]
        assert_same_numbers(shifted, together[1:], d)
        for row in range(len(x)):
            alone = slice(row, row + 1)
            assert_same_numbers(norm(dy[alone], x[alone], weight)[0], together[alone], (d, row))


def test_every_public_norm_is_walked():
    control = {
        "available_isas",
        "get_num_threads",
        "isa",
        "num_threads",
        "set_num_threads",
        "show_config",
        "use_isa",
    }
    walked = {case.name.split()[0] for case in CASES}
    # A layer is its function: tests/test_layers.py compares the two bit for bit.
    functions = {name for name in op.__all__ if not inspect.isclass(getattr(op, name))}
    assert functions - control == walked
