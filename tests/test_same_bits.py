"""Same bits: over threads, instruction sets, places in the batch, alignment, strides, out, in place.

Every test here walks all rows of bit_cases.CASES, to which a new function adds its own.
"""

import dataclasses
import functools
import inspect

import ml_dtypes
import numpy as np
import pytest
from bit_cases import (
    CASES,
    Case,
    add_norm,
    batch_norm,
    gradient,
    group_norm,
    instance_norm,
    layer_norm,
    moments,
    rms_norm,
    rows_gradient,
)

import onepass as op

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)


@functools.lru_cache(maxsize=2)
def data(case, dtype):
    """Ordinary groups, and some that need care: huge, tiny, constant, far from zero."""
    x = np.random.default_rng(5).standard_normal(case.shape) + 3
    groups = np.moveaxis(x, case.groups, 0)
    for i, change in enumerate(
        (lambda g: g * 1e20, lambda g: g * 1e-25, lambda g: g * 0 + 0.1, lambda g: g + 1e6)
    ):
        if len(groups) > 10:
            at = 5 + i * (len(groups) // 5)
            groups[at] = change(groups[at])
    x = np.ascontiguousarray(x, dtype)
    x.flags.writeable = False
    return x


def expected(case, x):
    """The plain call's results: one thread, the widest instruction set, contiguous memory, no out."""
    op.use_isa(op.available_isas()[-1])
    with op.num_threads(1):
        return case.run(x, None)


def assert_same(got, want, how):
    for i, (a, b) in enumerate(zip(got, want, strict=True)):
        a, b = np.asarray(a), np.asarray(b)
        assert (a.shape, a.dtype) == (b.shape, b.dtype), f"{how}: result {i}"
        assert a.tobytes() == b.tobytes(), (
            f"{how}: result {i} differs in {np.count_nonzero(a != b)} of {a.size}"
        )


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


@pytest.mark.parametrize("run", [layer_norm(), rms_norm()], ids=["layer_norm", "rms_norm"])
@every_type
def test_narrow_rows_side_by_side(run, dtype, each_isa):
    """Those that are finished together have the bits of each alone, and so have their statistics."""
    for d in (15, 16, 17, 31, 64, 100, 128, 255, 256, 511, 600):
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
    for d in (15, 16, 17, 31, 64, 100, 128, 192, 255):
        x, weight, dy = narrow_rows(600, d, dtype), np.full(d, 1.5, dtype), np.ones((600, d)) / 3
        dy[::2] = x[::-2]
        dy[33] = 2.0**125  # The row's sums overflow.
        with np.errstate(over="ignore"):
            dy = dy.astype(dtype)
        together = norm(dy, x, weight)[0]
        for row in range(0, len(x), 15):
            few = slice(row, row + 15)
            assert_same_numbers(norm(dy[few], x[few], weight)[0], together[few], (d, row))


# Results larger than the caches are written past them, with other stores. (Those of 500 x 3001 are larger than the nearer
# caches of most machines, and not than all: of those, what lies apart is sent for. Those of 6703 x 501 are larger than
# what is left in a last-level cache of 32 MiB, and do not come from memory, nor do gradients of 1501 x 1201. One row of
# 2601 or 4001, with its weights, is as much as a first cache of 48 KiB keeps from one reading to the next.)
STREAMED = [
    Case("layer_norm", (201, 2601), layer_norm(), 0),
    Case("rms_norm", (201, 4001), rms_norm(), 0),
    Case("add_layer_norm", (201, 2601), add_norm(op.add_layer_norm), 0),
    Case("layer_norm", (500, 3001), layer_norm(), 0),
    Case("batch_norm inference", (500, 3001), batch_norm(1, False), 0),
    Case("layer_norm", (6703, 501), layer_norm(), 0),
    Case("rms_norm", (6703, 501), rms_norm(), 0),
    Case("layer_norm", (9001, 1999), layer_norm(), 0),
    Case("layer_norm images", (20_001, 7, 129), layer_norm((1, 2)), 0),
    Case("layer_norm wide", (4003, 4099), layer_norm(), 0),
    Case("layer_norm narrow", (300_001, 61), layer_norm(), 0),
    Case("rms_norm narrow", (300_001, 64), rms_norm(), 0),
    Case("rms_norm", (9001, 1999), rms_norm(), 0),
    Case("add_layer_norm", (9001, 1999), add_norm(op.add_layer_norm), 0),
    Case("group_norm", (70, 32, 99, 79), group_norm(8), 0),
    Case("instance_norm", (70, 33, 99, 79), instance_norm(), 0),
    Case("layer_norm_backward", (1501, 1201), rows_gradient(op.layer_norm_backward), 0),
    Case("rms_norm_backward", (2003, 1024), rows_gradient(op.rms_norm_backward), 0),
    Case("layer_norm_backward", (9001, 1999), rows_gradient(op.layer_norm_backward), 0),
    Case("layer_norm_backward narrow", (300_001, 61), rows_gradient(op.layer_norm_backward), 0),
    Case("rms_norm_backward", (4003, 4099), rows_gradient(op.rms_norm_backward), 0),
    Case("batch_norm inference", (9001, 1999), batch_norm(1, False), 0),
    Case("batch_norm inference", (70, 33, 99, 79), batch_norm(1, False), 0),
    Case("batch_norm inference", (200_003, 91), batch_norm(1, False), 0),
]


@pytest.mark.parametrize("case", STREAMED, ids=lambda case: case.id)
def test_results_larger_than_the_caches(case):
    x = data(case, np.dtype(np.float32))
    pieces = [case.run(part, None)[0] for part in np.array_split(x, 9)]
    out = np.empty(x.size + 16, x.dtype)
    for isa, threads, by in zip(
        op.available_isas() * 2, (1, 2, 3, 5, 2, 1), (0, 1, 5, 3, 16, 0), strict=False
    ):
        op.use_isa(isa)
        op.set_num_threads(threads)
        y = case.run(x, out[by : by + x.size].reshape(x.shape))[0]
        for i, (got, want) in enumerate(zip(np.array_split(y, 9), pieces, strict=True)):
            assert_same([got], [want], f"{isa}, {threads} threads, out {by} elements off, part {i}")


def assert_same_everywhere(case, x, want):
    for isa, threads in zip(op.available_isas(), (2, 3, 5), strict=False):
        op.use_isa(isa)
        op.set_num_threads(threads)
        assert_same(case.run(x, None), want, f"{isa}, {threads} threads")


@pytest.mark.parametrize(
    "case",
    [
        Case(name, shape, run, 1)
        for shape in ((500, 3001), (9001, 1999), (70, 33, 99, 79), (200_003, 91))
        for name, run in (
            ("batch_norm", batch_norm()),
            ("batch_norm_backward", gradient(op.batch_norm_backward)),
        )
    ]
    + [
        Case(f"batch_norm_backward {name}", (70, 33, 99, 79), gradient(op.batch_norm_backward, **how), 1)
        for name, how in (("masked", {"masked": True}), ("inference", {"inference": True}))
    ]
    + [Case("batch_norm_backward", (11, 33, 199, 178), gradient(op.batch_norm_backward), 1)],
    ids=lambda case: case.id,
)
def test_batches_larger_than_the_caches(case):
    x = data(case, np.dtype(np.float32))
    want = expected(case, x)
    assert_same_everywhere(case, x, want)
    if case.name == "batch_norm":  # (a gradient has no out)
        in_place = x.copy()  # is not streamed
        assert_same(case.run(in_place, in_place), want, "in place")


@pytest.mark.parametrize(
    "case",
    [
        Case("layer_norm", (3001, 1201), layer_norm(), 0),
        Case("add_layer_norm", (3001, 1201), add_norm(op.add_layer_norm), 0),
        Case("layer_norm_backward", (3001, 1201), rows_gradient(op.layer_norm_backward), 0),
        Case("batch_norm inference", (3001, 1201), batch_norm(1, False), 0),
        Case("batch_norm", (3001, 1201), batch_norm(), 1),
        Case("batch_norm_backward", (3001, 1201), gradient(op.batch_norm_backward), 1),
    ],
    ids=lambda case: case.id,
)
def test_doubles_larger_than_the_caches(case):
    x = data(case, np.dtype(np.float64))
    assert_same_everywhere(case, x, expected(case, x))


@pytest.mark.parametrize(
    "case",
    [
        Case(name + " masked" * masked, shape, run, 0)
        for masked in (False, True)
        for name, shape, run in (
            ("group_norm_backward", (70, 32, 99, 79), gradient(op.group_norm_backward, 8, masked=masked)),
            (
                "instance_norm_backward",
                (70, 99, 79, 33),
                gradient(op.instance_norm_backward, axis=-1, masked=masked),
            ),
            ("group_norm", (70, 32, 99, 79), group_norm(8, masked=masked)),
        )
    ],
    ids=lambda case: case.id,
)
def test_samples_larger_together_than_the_caches(case):
    """They are solved in parts, of other sizes with other numbers of threads."""
    x = data(case, np.dtype(np.float32))
    want = expected(case, x)
    assert_same_everywhere(case, x, want)
    alone = [case.run(x[i : i + 1], None) for i in range(len(x))]
    assert_same([np.concatenate([of[0] for of in alone])], want[:1], "each sample alone")
    for i, of_all in enumerate(want[1:], start=1):
        of_each = np.stack([of[i] for of in alone], dtype=np.float64)
        if "backward" not in case.name:
            assert_same([np.concatenate([of[i] for of in alone])], [of_all], f"result {i}, each sample alone")
        else:
            assert np.all(np.abs(of_each.sum(0) - of_all) <= 1e-6 * np.abs(of_each).sum(0))


@pytest.mark.parametrize(
    ("shape", "axis"),
    [((9001, 1999), 0), ((9001, 1999), 1), ((70, 33, 99, 79), (0, 2, 3)), ((70, 33, 99, 79), (2, 3))],
)
def test_moments_of_what_no_cache_holds(shape, axis):
    """Statistics alone, read from memory: what is sent for ahead has no part in them."""
    case = Case("moments", shape, moments(axis), 1)
    x = data(case, np.dtype(np.float32))
    want = expected(case, x)
    assert_same_everywhere(case, x, want)


WHAT_NO_CACHE_HOLDS = """
import hashlib
import numpy as np, onepass as op

x = np.random.default_rng(5).standard_normal((3000, 4096), np.float32)
dy, double, planes = x[::-1].copy(), x[:1500].astype(np.float64), x.reshape(48, 250, 32, 32)
weight, bias, tall = x[0], x[1], x.reshape(-1, 512)
for isa in op.available_isas():
    op.use_isa(isa)
    digest = hashlib.sha256()
    for results in (
        op.layer_norm(x, weight, bias), op.layer_norm(double, double[0], double[1]), op.rms_norm(x, weight),
        op.add_layer_norm(x, dy, weight, bias), op.layer_norm_backward(dy, x, weight), op.min_max_scale(x, axis=0),
        op.batch_norm(x, weight, bias, training=True), op.batch_norm_backward(dy, x, weight, training=True),
        op.group_norm(planes, 25, weight[:250], bias[:250]), op.instance_norm(planes, weight[:250], bias[:250]),
        op.batch_norm(planes, training=True, axis=1), op.moments(x, axis=0).mean, op.moments(x, axis=1).mean,
        op.moments(tall).m2, op.moments(tall.astype(np.float64)).m2, op.batch_norm(tall, training=True),
    ):
        for result in results if isinstance(results, tuple) else (results,):
            digest.update(result)
    print(digest.hexdigest())
"""


def test_whatever_the_first_cache_holds(python):
    """Its size chooses the way from memory, and so loops that another machine never enters."""
    runs = [python("-c", WHAT_NO_CACHE_HOLDS, ONEPASS_FIRST_CACHE=str(kib << 10)) for kib in (32, 48)]
    assert [run.stderr for run in runs] == ["", ""]
    digests = [line for run in runs for line in run.stdout.split()]
    assert len(digests) == 2 * len(op.available_isas())
    assert len(set(digests)) == 1


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
