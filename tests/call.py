"""What a call is to the tests that walk all functions, and how far its results may be from the formula.

calls.py has the table; calls_forward.py and calls_backward.py make its rows.
"""

import dataclasses
from collections.abc import Callable

import ml_dtypes
import numpy as np
import references as ref

DTYPES = {
    name: np.dtype(kind)
    for name, kind in {
        "float32": np.float32,
        "float64": np.float64,
        "float16": np.float16,
        "bfloat16": ml_dtypes.bfloat16,
    }.items()
}

# What is promised, in units of eps/2 of the arithmetic times the largest number of the group.
UNITS = {"norm": 8, "moments": 8, "gradient": 16}


def arithmetic(dtype):
    """What statistics have where x has dtype."""
    return np.dtype(np.float64) if dtype == np.float64 else np.dtype(np.float32)


@dataclasses.dataclass(frozen=True)
class Taken:
    """An array argument beside x."""

    shape: tuple[int, ...]
    role: str  # "data" (like x), "weight", "bias", "mean", "var", "mask", "weights"
    updated: bool = False  # is it written in place?

    def dtype(self, x):
        """x's, but for statistics, masks and the weights of moments."""
        if self.role in ("mean", "var"):
            return arithmetic(x)
        return {"mask": np.dtype(bool), "weights": np.dtype(np.float64)}.get(self.role, x)


@dataclasses.dataclass(frozen=True)
class Call:
    """A public function, its axes chosen. `arrays` holds "x" and what it takes, by name."""

    name: str
    shape: tuple[int, ...]
    takes: dict[str, Taken]
    run: Callable  # run(arrays, eps, **outs) -> every array that comes out; y, or dx, first
    groups: Callable  # groups(a) -> (groups, elements): an array of x's shape, cut as x is
    reference: Callable | None = None  # reference(arrays, eps) -> y, or dx
    size: Callable | None = None  # size(arrays, eps) -> the numbers that y is made of, where y may be smaller
    sums: Callable | None = None  # sums(arrays, eps) -> (dweight and its size, dbias and its)
    weigh: Callable | None = None  # weigh(arrays) -> how much each element counts, where not all count alike
    prepare: Callable = lambda arrays: None  # what is to be done to the arrays that arguments() makes
    outs: tuple[str, ...] = ("out",)
    rows: tuple[int, ...] = ()  # results whose slices along axis 0 do not depend on one another, bit for bit
    axis: int | tuple[int, ...] = 0
    centred: bool = True  # is the mean subtracted?

    @property
    def kind(self):
        return "moments" if self.name.startswith("moments") else "gradient" if self.sums else "norm"

    def results(self, arrays, eps=1e-5, **outs):
        """Everything that comes out: the results, then copies of what was updated in place."""
        arrays = {k: v.copy() if k in self.takes and self.takes[k].updated else v for k, v in arrays.items()}
        given = self.run(arrays, eps, **outs)
        return *given, *(arrays[name] for name, taken in self.takes.items() if taken.updated)

    def places(self):
        """Where the elements of each group lie in x, flattened."""
        return self.groups(np.arange(np.prod(self.shape, dtype=int)).reshape(self.shape))

    def scattered(self, groups):
        """An array of x's shape, from its groups."""
        a = np.empty(self.shape, groups.dtype)
        a.flat[self.places()] = groups
        return a


def bits(results):
    """What is compared where results must be the same: their bytes; which NaN came out is not promised."""
    canonical = []
    for result in results:
        nan = np.isnan(result)
        canonical.append(
            (np.where(nan, result.dtype.type(np.nan), result) if nan.any() else result).tobytes()
        )
    return canonical


def cut(axes):
    """groups() of a function that reduces the given axes."""

    def groups(a):
        moved = np.moveaxis(a, axes, range(-len(axes), 0))
        return moved.reshape(-1, int(np.prod(moved.shape[moved.ndim - len(axes) :])))

    return groups


def determined(call, arrays, eps):
    """For which groups the formula has an answer: something counts, and there is something to divide by."""
    x = ref.wide(arrays["x"])
    x = call.groups(x + ref.wide(arrays["residual"]) if "residual" in arrays else x)
    counts = call.groups(call.weigh(arrays) > 0 if call.weigh else np.ones(call.shape, bool))
    given = "running_var" in arrays and not call.takes["running_var"].updated
    if eps > 0 or given or call.kind == "moments":
        return counts.any(1)
    first = np.take_along_axis(x, counts.argmax(1)[:, None], 1) if call.centred else 0
    return (counts & (x != first)).any(1)


def wrong(call, y, arrays, eps):
    """Where y is further from the formula than promised, as (groups, elements), if the formula has an answer.

    A unit is that of the largest result of the group, or of the largest number that results are made of, where those
    cancel. In 16 bits a result is what one within that distance rounds to.
    """
    y_ref = call.reference(arrays, eps)
    largest = np.abs(call.groups(y_ref)).max(1, keepdims=True, initial=0)
    if "bias" in arrays:
        unbiased = call.reference({**arrays, "bias": arrays["bias"] * 0}, eps)
        largest = np.maximum(largest, np.abs(call.groups(unbiased)).max(1, keepdims=True, initial=0))
    if call.size:
        largest = np.maximum(largest, call.groups(call.size(arrays, eps)).max(1, keepdims=True, initial=0))
    y, y_ref = call.groups(y), call.groups(y_ref)
    info = np.finfo(arithmetic(y.dtype))
    room = UNITS[call.kind] * (info.eps / 2 * largest + ref.wide(info.smallest_subnormal))
    low, high = y_ref - room, y_ref + room
    if y.dtype.itemsize == 2:
        low, high = (ref.wide(ref.rounded(bound, y.dtype)) for bound in (low, high))
    return ~((low <= ref.wide(y)) & (ref.wide(y) <= high)) & determined(call, arrays, eps)[:, None]


def wrong_sums(call, sums, arrays, eps):
    """Whether dweight or dbias is further from the formula than promised: units of the sum of absolute values."""
    for got, (expected, size) in zip(sums, call.sums(arrays, eps), strict=True):
        room = UNITS["gradient"] * np.finfo(got.dtype).eps / 2 * size + np.finfo(got.dtype).smallest_subnormal
        if got.shape != expected.shape or not (np.abs(ref.wide(got) - expected) <= room).all():
            return True
    return False


def wrong_moments(call, results, arrays):
    """Whether count, mean or m2 is: relative units of m2; of the mean, units of the group's largest deviation."""
    x, dtype = call.groups(ref.wide(arrays["x"])), arithmetic(arrays["x"].dtype)
    weights = call.groups(ref.wide(call.weigh(arrays) if call.weigh else np.ones(call.shape)))
    # About a number near the mean: one long double is too short for 1e6 + N in float64.
    first = np.take_along_axis(x, (weights > 0).argmax(1)[:, None], 1)
    x = np.where(weights > 0, x - first, 0)
    count = weights.sum(1)
    mean = (weights * x).sum(1) / count
    distance = np.where(weights > 0, x - mean[:, None], 0)
    m2 = (weights * np.square(distance)).sum(1)
    counts, means, m2s = (ref.wide(result).ravel() for result in results)
    unit = UNITS["moments"] * np.finfo(dtype).eps / 2
    double = np.finfo(np.float64)
    rounding = double.eps / 2 * np.abs(first[:, 0] + mean) * 1.001 + ref.wide(double.smallest_subnormal)
    far = (m2 >= double.max) | (m2 <= double.tiny)  # no double holds it, or not all of its digits
    right = (
        (np.abs(counts - count) <= 4 * double.eps * count)
        & (np.abs((means - first[:, 0]) - mean) <= unit * np.abs(distance).max(1) + rounding)
        & (far | (np.abs(m2s - m2) <= unit * m2))
        & ~np.isnan(m2s)
    )
    return not (right | ((count == 0) & (counts == 0))).all()


def faults(call, results, arrays, eps=1e-5):
    """What is wrong with a call's results, in words; nothing where they are right."""
    with np.errstate(all="ignore"):
        if call.kind == "moments":
            return "moments" if wrong_moments(call, results, arrays) else ""
        far = wrong(call, results[0], arrays, eps)
        if far.any():
            return f"{far.sum()} of {far.size} elements, in {far.any(1).sum()} of {len(far)} groups"
        all_determined = determined(call, arrays, eps).all()  # sums run over many groups
        if call.kind == "gradient" and all_determined and wrong_sums(call, results[1:], arrays, eps):
            return "dweight or dbias"
    return ""
