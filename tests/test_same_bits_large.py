"""Same bits where arrays are larger than the caches: results are written past these, and what is read is sent for.

The cases are its own: test_same_bits.py walks all functions, on arrays that a cache holds.
"""

import numpy as np
import pytest
from bit_cases import (
    Case,
    add_norm,
    assert_same,
    batch_norm,
    data,
    expected,
    gradient,
    group_norm,
    instance_norm,
    layer_norm,
    moments,
    rms_norm,
    rows_as_channels,
    rows_gradient,
)
from call import DTYPES

import onepass as op

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


# Rows of less than a cache line and more, with and without whole lines of their own.
SHORT = [
    ("float32", 5),
    ("float32", 16),
    ("float32", 37),
    ("float32", 48),
    ("float16", 7),
    ("float16", 19),
    ("bfloat16", 64),
    ("bfloat16", 128),
]


@pytest.mark.parametrize(
    "run",
    [layer_norm(), rms_norm(), add_norm(op.add_layer_norm), rows_as_channels],
    ids=["layer_norm", "rms_norm", "add_layer_norm", "instance_norm"],
)
@pytest.mark.parametrize(("dtype", "cols"), SHORT, ids=lambda value: str(value))
def test_short_rows_larger_than_the_caches(run, dtype, cols):
    """They are gathered, and streamed line by line: into whatever place, and not beyond it."""
    dtype = DTYPES[dtype]
    rows, guard = (40 << 20) // (cols * dtype.itemsize) + 5, 70
    x = np.random.default_rng(3).standard_normal((rows, cols), np.float32).astype(dtype)
    pieces = [run(part, None) for part in np.array_split(x, 40)]  # which are not streamed
    want = [np.concatenate(of) for of in zip(*pieces, strict=True)]
    memory = np.empty(x.size + 2 * guard, dtype)
    start = -memory.ctypes.data % 64 // dtype.itemsize + 64 // dtype.itemsize
    for isa, threads, by in zip(
        op.available_isas() * 2, (1, 2, 3, 2, 1, 5), (0, 1, 8, 3, 4, 15), strict=False
    ):
        op.use_isa(isa)
        op.set_num_threads(threads)
        memory[...] = 7
        out = memory[start + by :][: x.size].reshape(x.shape)
        assert_same(run(x, out), want, f"{isa}, {threads} threads, {by} elements behind a line")
        assert (memory[: start + by] == 7).all()
        assert (memory[start + by + x.size :] == 7).all()


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
        op.rms_norm(x[:99], weight), op.layer_norm(x[:99, :2400], weight[:2400], bias[:2400]),
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


BETWEEN_LINES = """
import numpy as np
import onepass as op

rng = np.random.default_rng(0)
for dtype, rows, cols in [("float32", 9001, 383), ("float64", 1801, 1023), ("float16", 9001, 1001)]:
    dy, x = rng.standard_normal((2, rows, cols)).astype(dtype)
    weight = np.linspace(-1, 2, cols, dtype=dtype)
    for backward in op.layer_norm_backward, op.rms_norm_backward:
        parts = zip(*(np.array_split(a, 9) for a in (dy, x)), strict=True)
        pieces = np.concatenate([backward(*part, weight)[0] for part in parts])
        for isa in op.available_isas():
            op.use_isa(isa)
            assert np.array_equal(backward(dy, x, weight)[0], pieces), (dtype, isa, backward)
print("same")
"""


def test_results_that_begin_between_cache_lines(python):
    """As the system's memory does, 16 bytes behind one, where results' memory is not kept."""
    done = python("-c", BETWEEN_LINES, ONEPASS_KEEP="0")
    assert done.stdout == "same\n", done.stderr
