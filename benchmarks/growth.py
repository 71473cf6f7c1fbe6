"""How the cost grows: with the width, off the even widths, off alignment, with threads and with strides.

Each series is measured like the cases, all of its members in the same rounds. A member's figure is the time per
element over the time per element of the one it is held against; of the widths, over the quickest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from cases import Array, aligned
from rounds import Effort, Figure, Turn, Wanted, measure

import onepass as op

FLOAT = np.dtype(np.float32)
ELEMENTS = 1 << 21  # 8 MiB: more than a second-level cache, less than most third-level ones
WIDTHS = tuple(1 << power for power in range(8, 15))
LARGE = 1 << 24  # 64 MiB: more than any of them
ODD = {767: 768, 1000: 1008, 5003: 5008}  # and the next width of whole cache lines
SMALL = ((1, 768), (8, 768), (64, 768), (256, 768))
SMALL_COLUMNS = ((64, 768), (195, 205), (1035, 38), (256, 768), (336, 315))


@dataclass(frozen=True)
class Member:
    """What `make` makes, over `elements`, held against the member called `against` (None: the quickest)."""

    series: str
    name: str
    limit: float
    make: Callable[[], Callable[[], Any]]
    elements: int
    against: str | None
    threads: int


@dataclass(frozen=True)
class GrowthRow:
    series: str
    name: str
    against: str
    limit: float
    figure: Figure

    @property
    def reached(self) -> bool:
        return self.figure.median <= self.limit


class ThreadsTurn(Turn):
    """Sets its number of threads before each burst."""

    def __init__(self, call: Callable[[], Any], threads: int) -> None:
        super().__init__(call, partial(op.num_threads, threads))


def normal(shape: tuple[int, ...], off: int = 0) -> Array:
    """Random data that begins `off` elements after the start of a cache line."""
    memory = aligned((int(np.prod(shape)) + off,), FLOAT)
    memory[...] = np.random.default_rng(0).standard_normal(memory.size, FLOAT)
    return memory[off:].reshape(shape)


def layer_norm(shape: tuple[int, int], x_off: int = 0, out_off: int = 0) -> Callable[[], Any]:
    x = normal(shape, x_off)
    weight, bias = np.random.default_rng(1).standard_normal((2, shape[1]), FLOAT)
    return partial(op.layer_norm, x, weight, bias, out=normal(shape, out_off))


def batch_norm(shape: tuple[int, int], x_off: int = 0, out_off: int = 0) -> Callable[[], Any]:
    x = normal(shape, x_off)
    weight, bias = np.random.default_rng(1).standard_normal((2, shape[1]), FLOAT)
    return partial(op.batch_norm, x, weight, bias, training=True, out=normal(shape, out_off))


# Of x, its gradient, weight, bias, and where a result goes.
Call = Callable[[Array, Array, Array, Array, Array], Any]
OF_ROWS_APART: dict[str, Call] = {
    "layer_norm": lambda x, dy, weight, bias, out: op.layer_norm(x, weight, bias, out=out),
    "batch_norm": lambda x, dy, weight, bias, out: op.batch_norm(x, weight, bias, training=True, out=out),
    "moments": lambda x, dy, weight, bias, out: op.moments(x),
    "min_max_scale": lambda x, dy, weight, bias, out: op.min_max_scale(x, out=out),
    "layer_norm_backward": lambda x, dy, weight, bias, out: op.layer_norm_backward(dy, x, weight),
    "batch_norm_backward": lambda x, dy, weight, bias, out: op.batch_norm_backward(dy, x, weight),
}


def rows_apart(function: str, shape: tuple[int, int], apart: int) -> Callable[[], Any]:
    """A call with x, and dy, whose rows begin `apart` widths after each other."""
    x, dy = (normal((shape[0], apart * shape[1]))[:, : shape[1]] for _ in range(2))
    weight, bias = np.random.default_rng(1).standard_normal((2, shape[1]), FLOAT)
    return partial(OF_ROWS_APART[function], x, dy, weight, bias, normal(shape))


OF_COLUMNS: dict[str, Call] = {
    name: OF_ROWS_APART[name] for name in ("moments", "batch_norm", "min_max_scale")
} | {"standardize": lambda x, dy, weight, bias, out: op.standardize(x, axis=0, out=out)}
# Whether columns of x and of the result lie end to end, as a data frame's do.
TURNED = {
    "rows end to end": (False, False),
    "x by columns": (True, False),
    "x and out by columns": (True, True),
}


def columns(function: str, shape: tuple[int, int], turned: tuple[bool, bool]) -> Callable[[], Any]:
    x, out = (normal(shape[::-1]).T if by_columns else normal(shape) for by_columns in turned)
    weight, bias = np.random.default_rng(1).standard_normal((2, shape[1]), FLOAT)
    return partial(OF_COLUMNS[function], x, x, weight, bias, out)


# Queries and keys of attention: (samples, tokens, heads, features), as they lie beside others, and heads first.
HEADS: dict[str, Callable[[], Array]] = {
    "contiguous": lambda: normal((8, 256, 16, 64)),
    "x[:, :, :16] of 48 heads": lambda: normal((8, 256, 48, 64))[:, :, :16],
    "x[:, :, :8] of 16 heads, twice the tokens": lambda: normal((8, 512, 16, 64))[:, :, :8],
    "heads before tokens": lambda: normal((8, 256, 16, 64)).swapaxes(1, 2),
}


def rms_norm(make: Callable[[], Array]) -> Callable[[], Any]:
    x = make()
    return partial(op.rms_norm, x, np.ones(x.shape[-1], FLOAT), out=normal(x.shape))


def series(threads: int) -> Iterator[list[Member]]:
    """The members, series by series."""
    square = (ELEMENTS // 1024, 1024)
    offsets = {"aligned": (0, 0), "x + 4 bytes": (1, 0), "out + 4 bytes": (0, 1), "both + 4 bytes": (1, 1)}
    for norm in (layer_norm, batch_norm):
        name = f"{norm.__name__}, equal bytes"
        yield [
            Member(name, f"D={d}", 1.2, partial(norm, (ELEMENTS // d, d)), ELEMENTS, None, threads)
            for d in WIDTHS
        ]
        for odd, even in ODD.items():
            name, rows = f"{norm.__name__}, odd width", ELEMENTS // even
            yield [
                Member(name, f"D={d}", 1.15, partial(norm, (rows, d)), rows * d, f"D={even}", threads)
                for d in (even, odd)
            ]
        name = f"{norm.__name__}, alignment"
        yield [
            Member(name, label, 1.15, partial(norm, square, *off), ELEMENTS, "aligned", threads)
            for label, off in offsets.items()
        ]
    for where, elements in (("", ELEMENTS), (" from memory", LARGE)):
        for function in OF_ROWS_APART:
            name, shape = f"{function}, rows apart{where}", (elements // 1024, 1024)
            yield [
                Member(
                    name,
                    label,
                    1.3,
                    partial(rows_apart, function, shape, apart),
                    elements,
                    "contiguous",
                    threads,
                )
                for label, apart in (("contiguous", 1), ("x[:, :D]", 2))
            ]
    for function in OF_COLUMNS:
        yield [
            Member(
                f"{function}, columns end to end",
                label,
                2.0,  # each element has to be turned as well
                partial(columns, function, (ELEMENTS // 64, 64), turned),
                ELEMENTS,
                "rows end to end",
                threads,
            )
            for label, turned in TURNED.items()
            if function != "moments" or not turned[1]
        ]
    name = "rms_norm of heads"
    yield [
        Member(name, label, 1.3, partial(rms_norm, make), ELEMENTS, "contiguous", threads)
        for label, make in HEADS.items()
    ]
    if threads > 1:
        yield from more_threads(threads)


def more_threads(threads: int) -> Iterator[list[Member]]:
    counts = {"1 thread": 1, f"{threads} threads": threads}
    # 1.7 times the speed with two; as much of the way to linear with more.
    scaling = 1 / (1 + 0.7 * (threads - 1))
    for norm in (layer_norm, batch_norm):
        name, make = f"{norm.__name__}, threads", partial(norm, (ELEMENTS // 1024, 1024))
        yield [
            Member(name, label, scaling, make, ELEMENTS, "1 thread", count) for label, count in counts.items()
        ]
    for norm, shapes in ((layer_norm, SMALL), (batch_norm, SMALL_COLUMNS)):
        for rows, width in shapes:
            name = f"{norm.__name__} {rows}x{width}, threads allowed"
            yield [
                Member(name, label, 1.05, partial(norm, (rows, width)), rows * width, "1 thread", count)
                for label, count in counts.items()
            ]


def grow(members: list[Member], effort: Effort) -> list[GrowthRow]:
    """Measure one series."""
    sizes = {member.name: member.elements for member in members}
    turns = {member.name: ThreadsTurn(member.make(), member.threads) for member in members}
    against = members[0].against
    if against is None:
        # One batch tells who is quickest; the ratios are to that one ever after.
        first, _ = measure(turns, {}, effort)
        against = min(sizes, key=lambda name: float(np.median(first[name])) / sizes[name])

    def wanted(name: str) -> Wanted:
        return Wanted(
            lambda s: (s[name] / sizes[name], s[against] / sizes[against]), frozenset({name, against})
        )

    others = [member for member in members if member.name != against]
    _, figures = measure(turns, {member.name: wanted(member.name) for member in others}, effort)
    return [GrowthRow(m.series, m.name, against, m.limit, figures[m.name]) for m in others]
