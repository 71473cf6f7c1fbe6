"""Same bits: over threads, instruction sets, places in the batch, alignment, strides, out, in place.

A new function is a row of CASES for each layout that reaches other kernels. Every test here walks all rows.
"""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
import pytest

import onepass as op


@dataclasses.dataclass(frozen=True)
class Case:
    """A call on x of a shape; group g of x lies at index g of axis `groups`."""

    name: str
    shape: tuple[int, ...]
    run: Callable  # run(x, out) -> every array that comes out
    groups: int
    rows: bool = False  # are results promised not to depend on the other groups along axis 0?
    has_out: bool = True

    @property
    def id(self):
        return f"{self.name}-{'x'.join(map(str, self.shape))}"


def parameters(dtype, shape):
    rng = np.random.default_rng(7)
    return rng.uniform(0.5, 2, shape).astype(dtype), rng.standard_normal(shape).astype(dtype)


def layer_norm(axis=-1):
    def run(x, out):
        axes = axis if isinstance(axis, tuple) else (axis,)
        weight, bias = parameters(x.dtype, tuple(x.shape[a] for a in axes))
        return op.layer_norm(x, weight, bias, axis=axis, out=out, return_stats=True)

    return run


def rms_norm(axis=-1):
    def run(x, out):
        axes = axis if isinstance(axis, tuple) else (axis,)
        weight, _ = parameters(x.dtype, tuple(x.shape[a] for a in axes))
        return op.rms_norm(x, weight, axis=axis, eps=1e-5, out=out, return_stats=True)

    return run


def add_norm(norm, axis=-1):
    def run(x, out):
        weight, bias = parameters(x.dtype, x.shape[axis])
        given = (weight, bias) if norm is op.add_layer_norm else (weight,)
        return norm(x, x * x.dtype.type(0.3), *given, axis=axis, eps=1e-5, out=out)

    return run


def backward(norm, axis=-1):
    def run(x, out):
        axes = axis if isinstance(axis, tuple) else (axis,)
        weight, _ = parameters(x.dtype, tuple(x.shape[a] for a in axes))
        return norm(np.mod(x, 0.7) - x.dtype.type(0.3), x, weight, axis=axis, eps=1e-5)

    return run


def batch_norm(axis=1, training=True):
    def run(x, out):
        c = x.shape[axis]
        weight, bias = parameters(x.dtype, c)
        running = bias * 2, weight + 1
        y = op.batch_norm(x, weight, bias, running_mean=running[0], running_var=running[1], training=training,
                          axis=axis, out=out, return_stats=True)  # fmt: skip
        return *y, *running

    return run


def group_norm(groups, axis=1):
    def run(x, out):
        weight, bias = parameters(x.dtype, x.shape[axis])
        return op.group_norm(x, groups, weight, bias, axis=axis, out=out, return_stats=True)

    return run


def instance_norm(axis=1):
    def run(x, out):
        weight, bias = parameters(x.dtype, x.shape[axis])
        return op.instance_norm(x, weight, bias, axis=axis, out=out, return_stats=True)

    return run


def moments(axis):
    def run(x, out):
        m = op.moments(x, axis)
        return np.float64(m.count), m.mean, m.m2, m.std(1)

    return run


def standardize(axis):
    def run(x, out):
        y, m = op.standardize(x, axis=axis, eps=1e-6, out=out, return_moments=True)
        return y, m.mean, m.m2

    return run


CASES = [
    *[
        Case("layer_norm", shape, layer_norm(), 0, rows=True)
        for shape in ((1024, 1024), (65536, 64), (3001, 257), (3, 400_003))
    ],
    Case("layer_norm last two", (500, 37, 41), layer_norm((1, 2)), 0, rows=True),
    Case("layer_norm images", (64, 128, 16, 16), layer_norm((1, 2, 3)), 0, rows=True),
    Case("layer_norm over channels", (64, 128, 16, 16), layer_norm(1), 0, rows=True),
    Case("layer_norm over columns", (3001, 257), layer_norm(0), 1),
    Case("layer_norm over narrow columns", (7, 20_001, 5), layer_norm(1), 0, rows=True),
    Case("layer_norm over everything", (1001, 1003), layer_norm((0, 1)), 0),
    Case("layer_norm over the first and last", (50, 60, 70), layer_norm((0, 2)), 1),
    Case("group_norm", (16, 64, 28, 28), group_norm(8), 0, rows=True),
    Case("group_norm of few", (3000, 12), group_norm(3), 0, rows=True),
    Case("group_norm channels last", (16, 28, 28, 64), group_norm(8, -1), 0, rows=True),
    Case("instance_norm", (30, 33, 19, 13), instance_norm(), 0, rows=True),
    Case("instance_norm channels last", (30, 19, 13, 33), instance_norm(-1), 0, rows=True),
    *[
        Case("rms_norm", shape, rms_norm(), 0, rows=True)
        for shape in ((1024, 1024), (65536, 64), (3001, 257), (3, 400_003))
    ],
    Case("rms_norm images", (500, 5, 19, 13), rms_norm((1, 2, 3)), 0, rows=True),
    Case("rms_norm over channels", (64, 128, 16, 16), rms_norm(1), 0, rows=True),
    Case("rms_norm over columns", (3001, 257), rms_norm(0), 1),
    *[
        Case(norm.__name__, shape, add_norm(norm), 0, rows=True)
        for norm in (op.add_layer_norm, op.add_rms_norm)
        for shape in ((3001, 257), (3, 400_003))
    ],
    *[
        Case(f"{norm.__name__} {axis}", shape, backward(norm, axis), groups, rows=groups == 0, has_out=False)
        for norm in (op.layer_norm_backward, op.rms_norm_backward)
        for shape, axis, groups in (
            *[(shape, -1, 0) for shape in ((1024, 1024), (65536, 64), (3001, 257), (3, 400_003))],
            ((500, 5, 19, 13), (1, 2, 3), 0),
            ((64, 128, 16, 16), 1, 0),
            ((3001, 257), 0, 1),
        )
    ],
    Case("add_layer_norm over channels", (16, 65, 17, 9), add_norm(op.add_layer_norm, 1), 0, rows=True),
    *[
        Case(
            f"batch_norm {'training' if training else 'inference'}",
            shape,
            batch_norm(axis, training),
            axis,
            rows=not training,
        )
        for training in (True, False)
        for shape, axis in (
            ((1024, 1024), 1),
            ((65536, 64), 1),
            ((50_003, 13), 1),
            ((20_001, 3, 5), 1),
            ((3001, 257), 1),
            ((64, 128, 16, 16), 1),
            ((64, 16, 16, 128), -1),
            ((300, 200, 7), 1),
            ((300, 7, 200), -1),
            ((3, 2, 200_003), 1),
            ((5, 19, 11, 13, 17), 1),
        )
    ],
    *[
        Case("moments", shape, moments(0), 1, has_out=False)
        for shape in ((1024, 1024), (65536, 64), (3001, 257))
    ],
    Case("moments of narrow columns", (300_001, 3), moments(0), 1, has_out=False),
    Case("moments of one column", (1_200_001, 1), moments(0), 1, has_out=False),
    Case("moments of rows", (3001, 257), moments(1), 0, rows=True, has_out=False),
    Case("moments of channels", (64, 128, 16, 16), moments((0, 2, 3)), 1, has_out=False),
    Case("moments of everything", (1001, 1003), moments((0, 1)), 0, has_out=False),
    *[Case("standardize", shape, standardize(0), 1) for shape in ((1024, 1024), (65536, 64), (3001, 257))],
    Case("standardize narrow columns", (50_003, 13), standardize(0), 1),
    Case("standardize rows", (3001, 257), standardize(1), 0, rows=True),
]

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
    def of_rows(results):
        """What belongs to a row each: x normalized, or moments behind their count."""
        return results[0] if np.ndim(results[0]) else np.stack(results[1:], axis=1)

    def rows(x):
        return of_rows(case.run(np.ascontiguousarray(x), None))

    x = data(case, dtype)
    y = of_rows(expected(case, x))
    n = len(x)

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


# Results larger than the caches are written past them, with other stores.
STREAMED = [
    Case("layer_norm", (9001, 1999), layer_norm(), 0),
    Case("layer_norm images", (20_001, 7, 129), layer_norm((1, 2)), 0),
    Case("rms_norm", (9001, 1999), rms_norm(), 0),
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


@pytest.mark.parametrize("shape", [(9001, 1999), (70, 33, 99, 79), (200_003, 91)])
def test_training_on_batches_larger_than_the_caches(shape):
    case = Case("batch_norm training", shape, batch_norm(), 1)
    x = data(case, np.dtype(np.float32))
    want = expected(case, x)
    for isa, threads in zip(op.available_isas(), (2, 3, 5), strict=False):
        op.use_isa(isa)
        op.set_num_threads(threads)
        assert_same(case.run(x, None), want, f"{isa}, {threads} threads")
    in_place = x.copy()  # is not streamed
    assert_same(case.run(in_place, in_place), want, "in place")


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
    assert set(op.__all__) - control - {"Moments"} == walked
