"""Which combinations exist: what every function offers, and the layouts that it takes.

    COMBINATIONS   function -> what it offers. Every function takes every one of calls.DTYPES, every layout of its kind,
                   any strides, and gives a new array, or writes to out where it has one: any strides, or x itself.
    LAYOUTS        kind of axis -> (shape, axis)

test_combinations.py walks all of them on tiny arrays, in every mode that calls.CALLS has rows for.
"""

import dataclasses

# The kinds of axis are those of calls.Row.
LAYOUTS = {
    "axes": [
        ((13,), 0), ((3, 17), -1), ((17, 3), 0), ((3, 17), (0, 1)), ((3, 17, 5), 1), ((3, 4, 17), (1, 2)),
        ((4, 3, 17), (0, 2)), ((17, 2, 3), (0, 1)), ((3, 4, 5, 7), (1, 3)), ((2, 3, 4, 3, 2), (0, 2, 4)), ((5, 1), 1),
    ],
    "channels": [
        ((9, 5), 1), ((9, 5), -1), ((5, 9), 0), ((3, 5, 7), 1), ((3, 7, 5), -1), ((3, 5, 4, 3), 1), ((3, 4, 3, 5), -1),
        ((3, 4, 5, 3), 2), ((2, 3, 2, 3, 2), 1), ((1, 5, 7), 1), ((3, 1, 7), 1),
    ],
    "samples": [
        ((3, 6), 1), ((3, 6), -1), ((3, 6, 7), 1), ((3, 7, 6), -1), ((3, 6, 4, 3), 1), ((3, 4, 3, 6), -1),
        ((3, 4, 6, 3), 2), ((2, 6, 2, 3, 2), 1), ((1, 6, 7), 1), ((3, 1, 7), 1),
    ],
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Offers:
    """What a function takes beside x, its parameters and its axis; and whether it has a gradient."""

    outs: tuple[str, ...] = ("out",)
    statistics: str | None = None  # the argument that asks for them
    mask: bool = False
    weights: bool = False  # and skipna
    running: bool = False  # statistics, and training
    gradient: bool = False


COMBINATIONS = {
    "layer_norm": Offers(statistics="return_stats", gradient=True),
    "rms_norm": Offers(statistics="return_stats", gradient=True),
    "add_layer_norm": Offers(outs=("out", "sum_out")),
    "add_rms_norm": Offers(outs=("out", "sum_out")),
    "batch_norm": Offers(statistics="return_stats", mask=True, running=True, gradient=True),
    "group_norm": Offers(statistics="return_stats", mask=True, gradient=True),
    "instance_norm": Offers(statistics="return_stats", mask=True, gradient=True),
    "layer_norm_backward": Offers(outs=()),
    "rms_norm_backward": Offers(outs=()),
    "batch_norm_backward": Offers(outs=(), mask=True, running=True),
    "group_norm_backward": Offers(outs=(), mask=True),
    "instance_norm_backward": Offers(outs=(), mask=True),
    "moments": Offers(outs=(), mask=True, weights=True),
    "standardize": Offers(statistics="return_moments"),
    "min_max_scale": Offers(),
}
