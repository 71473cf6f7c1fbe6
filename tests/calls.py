"""Every public function as the tests that walk all of them call it: a row of CALLS for each, or for each of its modes.

A row's function takes x's shape and the axis, and gives a Call: what the function takes beside x, what comes out, how x
falls into groups, and the formula. The tests of properties, golden digests, guard pages, processes, leaks and the
floating-point environment follow by themselves; only test_golden.py also wants a layout for the new row.
"""

import dataclasses
from collections.abc import Callable

import ml_dtypes
import numpy as np
import references as ref

import onepass as op

DTYPES = {
    name: np.dtype(kind)
    for name, kind in {
        "float32": np.float32,
        "float64": np.float64,
        "float16": np.float16,
        "bfloat16": ml_dtypes.bfloat16,
    }.items()
}


def arithmetic(dtype):
    """What statistics have where x has dtype."""
    return np.dtype(np.float64) if dtype == np.float64 else np.dtype(np.float32)


@dataclasses.dataclass(frozen=True)
class Taken:
    """An array argument beside x."""

    shape: tuple[int, ...]
    role: str  # "data" (as x), "weight" and "bias" (x's dtype), "mean" and "var" (the statistics' dtype)
    updated: bool = False  # is it written in place?

    def dtype(self, x):
        return arithmetic(x) if self.role in ("mean", "var") else x


@dataclasses.dataclass(frozen=True)
class Call:
    """A public function, its axes chosen."""

    name: str
    shape: tuple[int, ...]
    takes: dict[str, Taken]
    run: Callable  # run(arrays, eps, **outs) -> every array that comes out, y first; arrays["x"] and what it takes
    groups: Callable  # groups(a) -> (groups, elements): an array of x's shape, cut as x is
    reference: Callable | None = None  # reference(arrays, eps) -> y
    outs: tuple[str, ...] = ("out",)
    rows: bool = False  # are axis 0's slices promised to be independent of one another, bit for bit?
    centred: bool = True  # is the mean subtracted?

    def results(self, arrays, eps=1e-5, **outs):
        """Everything that comes out: the results, then copies of what was updated in place."""
        arrays = {k: v.copy() if k in self.takes and self.takes[k].updated else v for k, v in arrays.items()}
        given = self.run(arrays, eps, **outs)
        return *given, *(arrays[name] for name, taken in self.takes.items() if taken.updated)


def cut(axes):
    """groups() of a function that reduces the given axes."""

    def groups(a):
        moved = np.moveaxis(a, axes, range(-len(axes), 0))
        return moved.reshape(-1, int(np.prod(moved.shape[moved.ndim - len(axes) :])))

    return groups


def _parameters(shape, *names):
    return {name: Taken(shape, name) for name in names}


def _statistics(shape, updated):
    return {
        "running_mean": Taken(shape, "mean", updated),
        "running_var": Taken(shape, "var", updated),
    }


def layer_norm(shape, axis):
    axes = ref.axes_of(axis, len(shape))
    return Call(
        "layer_norm", shape, _parameters(tuple(shape[a] for a in axes), "weight", "bias"),
        lambda a, eps, **outs: op.layer_norm(a["x"], a["weight"], a["bias"], axis=axis, eps=eps,
                                             return_stats=True, **outs),
        cut(axes),
        lambda a, eps: ref.layer_norm(a["x"], a["weight"], a["bias"], axis, eps)[0],
        rows=0 not in axes,
    )  # fmt: skip


def rms_norm(shape, axis):
    axes = ref.axes_of(axis, len(shape))
    return Call(
        "rms_norm", shape, _parameters(tuple(shape[a] for a in axes), "weight"),
        lambda a, eps, **outs: op.rms_norm(a["x"], a["weight"], axis=axis, eps=eps, return_stats=True, **outs),
        cut(axes),
        lambda a, eps: ref.rms_norm(a["x"], a["weight"], axis, eps)[0],
        rows=0 not in axes, centred=False,
    )  # fmt: skip


def _added(norm):
    """A norm of x + residual, from the norm of x."""

    def build(shape, axis):
        plain = norm(shape, axis)
        function = getattr(op, f"add_{plain.name}")
        names = [*plain.takes]

        def run(a, eps, **outs):
            parameters = [a[name] for name in names]
            return function(a["x"], a["residual"], *parameters, axis=axis, eps=eps, **outs)

        def reference(a, eps):
            total = ref.wide(a["x"]) + ref.wide(a["residual"])
            dtype = a["x"].dtype
            total = ref.rounded(total, dtype) if dtype.itemsize == 2 else total.astype(dtype)
            return plain.reference({**a, "x": total}, eps)

        return dataclasses.replace(
            plain,
            name=f"add_{plain.name}",
            takes={"residual": Taken(shape, "data"), **plain.takes},
            run=run,
            reference=reference,
            outs=("out", "sum_out"),
        )

    return build


add_layer_norm, add_rms_norm = _added(layer_norm), _added(rms_norm)


def batch_norm_training(shape, axis):
    channels = (shape[axis],)

    def run(a, eps, **outs):
        return op.batch_norm(
            a["x"], a["weight"], a["bias"], running_mean=a["running_mean"], running_var=a["running_var"],
            training=True, running_ddof=0, axis=axis, eps=eps, return_stats=True, **outs,
        )  # fmt: skip

    return Call(
        "batch_norm training", shape,
        _parameters(channels, "weight", "bias") | _statistics(channels, True),
        run,
        cut(ref.others(axis % len(shape), len(shape))),
        lambda a, eps: ref.batch_norm(a["x"], a["weight"], a["bias"], axis, eps)[0],
    )  # fmt: skip


def batch_norm_inference(shape, axis):
    channels = (shape[axis],)

    def run(a, eps, **outs):
        running = {name: a[name] for name in ("running_mean", "running_var")}
        return op.batch_norm(
            a["x"], a["weight"], a["bias"], **running, axis=axis, eps=eps, return_stats=True, **outs
        )

    return Call(
        "batch_norm inference", shape,
        _parameters(channels, "weight", "bias") | _statistics(channels, False),
        run,
        cut(ref.others(axis % len(shape), len(shape))),
        lambda a, eps: ref.batch_norm_inference(a["x"], a["running_mean"], a["running_var"], a["weight"],
                                                a["bias"], axis, eps)[0],
        rows=axis % len(shape) != 0,
    )  # fmt: skip


def some_divisor(n):
    """Of the divisors of n the one in the middle."""
    divisors = [d for d in range(1, n + 1) if n % d == 0]
    return divisors[len(divisors) // 2]


def _grouped(name, norm, number):
    """Group norm, its channels cut into number(channels) groups; instance norm is a group a channel."""

    def build(shape, axis):
        n = number(shape[axis])

        def groups(a):
            first = np.moveaxis(a, axis, 1)
            return first.reshape(first.shape[0] * n, -1)

        def reference(a, eps):
            first = np.moveaxis(a["x"], axis, 1)
            y = ref.normalize(first.reshape(first.shape[0], n, -1), (2,), eps)[0].reshape(first.shape)
            return np.moveaxis(ref.affine(y, a["weight"], a["bias"], (1,)), 1, axis)

        return Call(
            name, shape, _parameters((shape[axis],), "weight", "bias"),
            lambda a, eps, **outs: norm(n, a["x"], a["weight"], a["bias"], axis=axis, eps=eps,
                                        return_stats=True, **outs),
            groups, reference, rows=True,
        )  # fmt: skip

    return build


group_norm = _grouped(
    "group_norm", lambda n, x, *parameters, **given: op.group_norm(x, n, *parameters, **given), some_divisor
)
instance_norm = _grouped(
    "instance_norm", lambda _, *arrays, **given: op.instance_norm(*arrays, **given), lambda c: c
)


def moments(shape, axis):
    axes = ref.axes_of(axis, len(shape))

    def run(a, eps):
        m = op.moments(a["x"], axis)
        return np.asarray(m.mean), np.asarray(m.m2)

    return Call("moments", shape, {}, run, cut(axes), outs=(), rows=0 not in axes)


def standardize(shape, axis):
    axes = ref.axes_of(axis, len(shape))

    def run(a, eps, **outs):
        y, m = op.standardize(a["x"], axis=axis, eps=eps, return_moments=True, **outs)
        return y, np.asarray(m.mean), np.asarray(m.m2)

    return Call(
        "standardize", shape, {}, run, cut(axes),
        lambda a, eps: ref.standardize(a["x"], axis, 0, eps),
        rows=0 not in axes,
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Row:
    """A function and the axes that it takes."""

    build: Callable  # build(shape, axis) -> Call
    axis: str  # "axes": one or several of x's; "channels": one; "samples": one, and axis 0 holds the samples
    least_ndim: int = 1

    def __call__(self, shape, axis):
        return self.build(shape, axis)


CALLS = {
    "layer_norm": Row(layer_norm, "axes"),
    "rms_norm": Row(rms_norm, "axes"),
    "add_layer_norm": Row(add_layer_norm, "axes"),
    "add_rms_norm": Row(add_rms_norm, "axes"),
    "batch_norm training": Row(batch_norm_training, "channels", 2),
    "batch_norm inference": Row(batch_norm_inference, "channels", 2),
    "group_norm": Row(group_norm, "samples", 2),
    "instance_norm": Row(instance_norm, "samples", 3),
    "moments": Row(moments, "axes"),
    "standardize": Row(standardize, "axes"),
}

# What op.__all__ holds beside the functions of CALLS.
CONTROL = {"available_isas", "get_num_threads", "isa", "num_threads", "set_num_threads", "show_config", "use_isa"}


def usual(name):
    """One call for each family of kernels that the function reaches, on small x: rows, columns, images."""
    row = CALLS[name]
    if row.axis == "axes":
        return [row((37, 129), -1), row((129, 37), 0), row((3, 17, 35), 1), row((4, 9, 33), (0, 2))]
    layouts = [((5, 6, 35), 1), ((5, 7, 5, 6), -1), ((150, 12), 1)]
    return [row(shape, axis) for shape, axis in layouts if len(shape) >= row.least_ndim]


def arguments(call, dtype, seed=0, data=None):
    """Arrays for a call: x and other data standard normal, or given; parameters and statistics around 1 and 0."""
    rng = np.random.default_rng(seed)
    made = {"x": rng.standard_normal(call.shape).astype(dtype) if data is None else data}
    for name, taken in call.takes.items():
        if taken.role == "data":
            values = rng.standard_normal(taken.shape)
        elif taken.role == "weight":
            values = rng.uniform(0.5, 2, taken.shape) * rng.choice([-1, 1], taken.shape)
        elif taken.role == "var":
            values = rng.uniform(0.5, 2, taken.shape)
        else:
            values = rng.uniform(-0.25, 0.25, taken.shape)
        made[name] = values.astype(taken.dtype(dtype))
    return made


UNITS = 8  # of eps/2 of the arithmetic, times the largest number of the group


def wrong(call, y, arrays, eps, units=UNITS):
    """Where y is further from the formula than promised, as (groups, elements).

    A unit is that of the group's largest result, or of the largest before the bias was added, which may cancel it. In
    16 bits a result is what one within that distance rounds to.
    """
    y_ref = call.reference(arrays, eps)
    largest = np.abs(call.groups(y_ref)).max(1, keepdims=True, initial=0)
    if "bias" in arrays:
        unbiased = call.reference({**arrays, "bias": arrays["bias"] * 0}, eps)
        largest = np.maximum(largest, np.abs(call.groups(unbiased)).max(1, keepdims=True, initial=0))
    y, y_ref = call.groups(y), call.groups(y_ref)
    room = units * np.finfo(arithmetic(y.dtype)).eps / 2 * largest
    low, high = y_ref - room, y_ref + room
    if y.dtype.itemsize == 2:
        low, high = (ref.wide(ref.rounded(bound, y.dtype)) for bound in (low, high))
    return ~((low <= ref.wide(y)) & (ref.wide(y) <= high))
