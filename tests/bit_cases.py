"""The cases of test_same_bits.py: calls of every function in every layout that reaches other kernels.

A new function is a row of CASES for each of these. What a case is called with and compared with is here, too, for
test_same_bits_large.py has cases of its own.
"""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np

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
    gradient: bool = False  # is the first result of x's shape, though there is no out?

    @property
    def id(self):
        return f"{self.name}-{'x'.join(map(str, self.shape))}"

    def of_rows(self, results):
        """What comes out for each slice along axis 0."""
        return results[0] if self.has_out or self.gradient else np.stack(results[1:], axis=1)


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


def mixed(x):
    """Numbers in [0.5, 1) that follow their element of x wherever it goes, the same bits in every layout."""
    return np.abs(np.frexp(np.ascontiguousarray(x) * x.dtype.type(3))[0])


def mask_of(x, axis, masked):
    """Most places, of the first channel's numbers."""
    return {"mask": mixed(np.take(x, 0, axis)) < 0.9} if masked else {}


def rows_gradient(norm, axis=-1):
    def run(x, out):
        axes = axis if isinstance(axis, tuple) else (axis,)
        weight, _ = parameters(x.dtype, tuple(x.shape[a] for a in axes))
        return norm(np.mod(x, 0.7) - x.dtype.type(0.3), x, weight, axis=axis, eps=1e-5)

    return run


def batch_norm(axis=1, training=True, masked=False):
    def run(x, out):
        c = x.shape[axis]
        weight, bias = parameters(x.dtype, c)
        running = bias * 2, weight + 1
        given = mask_of(x, axis, masked)
        y = op.batch_norm(x, weight, bias, running_mean=running[0], running_var=running[1], training=training,
                          axis=axis, out=out, return_stats=True, **given)  # fmt: skip
        return *y, *running

    return run


def group_norm(groups, axis=1, masked=False):
    def run(x, out):
        weight, bias = parameters(x.dtype, x.shape[axis])
        given = mask_of(x, axis, masked)
        return op.group_norm(x, groups, weight, bias, axis=axis, out=out, return_stats=True, **given)

    return run


def instance_norm(axis=1, masked=False):
    def run(x, out):
        weight, bias = parameters(x.dtype, x.shape[axis])
        given = mask_of(x, axis, masked)
        return op.instance_norm(x, weight, bias, axis=axis, out=out, return_stats=True, **given)

    return run


def rows_as_channels(x, out):
    """Each row is a channel of one sample, and all have one weight and one bias."""
    weight, bias = np.full(len(x), 1.5, x.dtype), np.full(len(x), 0.25, x.dtype)
    out = out if out is None else out[None]
    return tuple(of[0] for of in op.instance_norm(x[None], weight, bias, axis=1, out=out, return_stats=True))


def gradient(function, *groups, axis=1, masked=False, inference=False):
    """dx, dweight and dbias of a norm of channels."""

    def run(x, out):
        weight, bias = parameters(x.dtype, x.shape[axis])
        given = mask_of(x, axis, masked)
        if inference:
            given = {"training": False, "running_mean": bias, "running_var": weight}
        return function(mixed(x) - x.dtype.type(0.7), x, *groups, weight, axis=axis, **given)

    return run


def moments(axis, how=None):
    def run(x, out):
        if how == "masked":
            m = op.moments(x, axis, mask=mixed(x) < 0.9)
        elif how == "weighted":
            m = op.moments(x, axis, weights=mixed(x))
        elif how == "skipna":
            m = op.moments(np.where(mixed(x) < 0.9, x, x.dtype.type(np.nan)), axis, skipna=True)
        else:
            m = op.moments(x, axis)
        return np.asarray(m.count), m.mean, m.m2, m.std(1)

    return run


def standardize(axis):
    def run(x, out):
        y, m = op.standardize(x, axis=axis, eps=1e-6, out=out, return_moments=True)
        return y, m.mean, m.m2

    return run


def min_max_scale(axis):
    def run(x, out):
        return (op.min_max_scale(x, axis=axis, feature_range=(-0.7, 1.9), out=out),)

    return run


CASES = [
    *[
        Case("layer_norm", shape, layer_norm(), 0, rows=True)
        for shape in ((1024, 1024), (65536, 64), (3001, 257), (150, 2051), (3, 400_003))
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
        for shape in ((1024, 1024), (65536, 64), (3001, 257), (150, 2051), (3, 400_003))
    ],
    Case("rms_norm images", (500, 5, 19, 13), rms_norm((1, 2, 3)), 0, rows=True),
    Case("rms_norm over channels", (64, 128, 16, 16), rms_norm(1), 0, rows=True),
    Case("rms_norm over columns", (3001, 257), rms_norm(0), 1),
    *[
        Case(norm.__name__, shape, add_norm(norm), 0, rows=True)
        for norm in (op.add_layer_norm, op.add_rms_norm)
        for shape in ((3001, 257), (150, 2051), (3, 400_003))
    ],
    *[
        Case(
            f"{norm.__name__} {axis}",
            shape,
            rows_gradient(norm, axis),
            groups,
            rows=groups == 0,
            has_out=False,
            gradient=True,
        )
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
        Case("batch_norm masked", shape, batch_norm(axis, masked=True), axis)
        for shape, axis in (
            ((3001, 257), 1),
            ((50_003, 13), 1),
            ((30, 65, 17, 16), 1),
            ((30, 17, 16, 65), -1),
        )
    ],
    Case("group_norm masked", (16, 64, 23, 21), group_norm(8, masked=True), 0, rows=True),
    Case("group_norm masked, channels last", (16, 23, 21, 64), group_norm(8, -1, masked=True), 0, rows=True),
    Case("instance_norm masked", (30, 33, 19, 13), instance_norm(masked=True), 0, rows=True),
    Case(
        "instance_norm masked, channels last", (30, 19, 13, 33), instance_norm(-1, masked=True), 0, rows=True
    ),
    *[
        Case(
            "batch_norm_backward",
            shape,
            gradient(op.batch_norm_backward, axis=axis),
            axis,
            has_out=False,
            gradient=True,
        )
        for shape, axis in (
            ((1001, 1003), 1),
            ((50_003, 13), 1),
            ((30, 65, 17, 16), 1),
            ((30, 17, 16, 65), -1),
            ((300, 200, 7), 1),
        )
    ],
    *[
        Case(
            f"batch_norm_backward {name}",
            (30, 65, 17, 16),
            gradient(op.batch_norm_backward, **{name: True}),
            1,
            rows=name == "inference",
            has_out=False,
            gradient=True,
        )
        for name in ("masked", "inference")
    ],
    Case(
        "batch_norm_backward masked, channels last",
        (3001, 257),
        gradient(op.batch_norm_backward, masked=True),
        1,
        has_out=False,
        gradient=True,
    ),
    *[
        Case(
            f"{function.__name__}{' masked' * masked} axis {axis}",
            shape,
            gradient(function, *groups, axis=axis, masked=masked),
            0,
            rows=True,
            has_out=False,
            gradient=True,
        )
        for function, groups in ((op.group_norm_backward, (8,)), (op.instance_norm_backward, ()))
        for shape, axis in (((16, 64, 23, 21), 1), ((16, 23, 21, 64), -1))
        for masked in (False, True)
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
    *[
        Case(f"moments {how}", shape, moments(axis, how), 1 - axis, rows=axis == 1, has_out=False)
        for how in ("masked", "weighted", "skipna")
        for shape, axis in (((3001, 257), 0), ((1003, 501), 1))
    ],
    Case("moments weighted in narrow columns", (100_003, 3), moments(0, "weighted"), 1, has_out=False),
    Case("moments masked in images", (30, 65, 16, 16), moments((0, 2, 3), "masked"), 1, has_out=False),
    *[Case("standardize", shape, standardize(0), 1) for shape in ((1024, 1024), (65536, 64), (3001, 257))],
    Case("standardize narrow columns", (50_003, 13), standardize(0), 1),
    Case("standardize rows", (3001, 257), standardize(1), 0, rows=True),
    *[
        Case("min_max_scale", shape, min_max_scale(0), 1)
        for shape in ((1024, 1024), (65536, 64), (3001, 257), (50_003, 13))
    ],
    Case("min_max_scale narrow columns", (5, 20_001, 3), min_max_scale(1), 0, rows=True),
    Case("min_max_scale rows", (3001, 257), min_max_scale(1), 0, rows=True),
    Case("min_max_scale long rows", (3, 400_003), min_max_scale(1), 0, rows=True),
    Case("min_max_scale images", (64, 128, 16, 16), min_max_scale((0, 2, 3)), 1),
    Case("min_max_scale short blocks", (300, 200, 7), min_max_scale((0, 2)), 1),
    Case("min_max_scale few blocks", (3, 2, 200_003), min_max_scale((0, 2)), 1),
    Case("min_max_scale everything", (1001, 1003), min_max_scale((0, 1)), 0),
]


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


def results(call, *args):
    """What comes out of a call, as a tuple."""
    result = call(*args)
    return result if isinstance(result, tuple) else (result,)


def assert_same(got, want, how):
    for i, (a, b) in enumerate(zip(got, want, strict=True)):
        a, b = np.asarray(a), np.asarray(b)
        assert (a.shape, a.dtype) == (b.shape, b.dtype), f"{how}: result {i}"
        differ = np.count_nonzero(a.view(f"u{a.itemsize}") != b.view(f"u{b.itemsize}"))
        assert not differ, f"{how}: result {i} differs in {differ} of {a.size}"


def ways(make):
    """Arrays, and where results of each may go: new, as x lies, and over x. `make` gives x anew."""
    x = make()
    yield x, None
    yield x, np.empty_like(x)
    if not any(n > 1 and stride == 0 for n, stride in zip(x.shape, x.strides, strict=True)):
        yield x, x
