"""Every public function as the tests that walk all of them call it: a row of CALLS for each, or for each of its modes.

A row takes x's shape and the axis, and gives a Call: what the function takes beside x, what comes out, how x falls into
groups, and the formula. The tests of properties, hard data, golden digests, guard pages, processes, leaks and the
floating-point environment follow by themselves; only the digests have to be written anew (see golden.py).
"""

import dataclasses
from collections.abc import Callable
from functools import partial

import calls_backward as backward
import calls_forward as forward
import numpy as np
from call import DTYPES, UNITS, Call, Taken, arithmetic, bits, faults, wrong

__all__ = ["CALLS", "CONTROL", "DTYPES", "UNITS", "Call", "Row", "Taken", "arguments", "arithmetic", "bits", "faults",
           "usual", "wrong"]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Row:
    """A function and the axes that it takes."""

    build: Callable  # build(shape, axis) -> Call
    axis: str  # "axes": one or several of x's; "channels": one; "samples": one, and axis 0 holds the samples
    least_ndim: int = 1

    def __call__(self, shape, axis):
        return dataclasses.replace(self.build(shape, axis), axis=axis)


CALLS = {
    "layer_norm": Row(forward.layer_norm, "axes"),
    "rms_norm": Row(forward.rms_norm, "axes"),
    "add_layer_norm": Row(forward.added(forward.layer_norm), "axes"),
    "add_rms_norm": Row(forward.added(forward.rms_norm), "axes"),
    "batch_norm training": Row(forward.batch_norm_training, "channels", 2),
    "batch_norm training masked": Row(partial(forward.batch_norm_training, masked=True), "channels", 2),
    "batch_norm inference": Row(forward.batch_norm_inference, "channels", 2),
    "group_norm": Row(forward.grouped("group_norm"), "samples", 2),
    "group_norm masked": Row(forward.grouped("group_norm", True), "samples", 3),
    "instance_norm": Row(forward.grouped("instance_norm"), "samples", 3),
    "instance_norm masked": Row(forward.grouped("instance_norm", True), "samples", 3),
    "moments": Row(forward.moments(), "axes"),
    "moments masked": Row(forward.moments("masked"), "axes"),
    "moments weighted": Row(forward.moments("weighted"), "axes"),
    "moments skipna": Row(forward.moments("skipna"), "axes"),
    "standardize": Row(forward.standardize, "axes"),
    "min_max_scale": Row(forward.min_max_scale, "axes"),
    "layer_norm_backward": Row(backward.of_rows("layer_norm_backward"), "axes"),
    "rms_norm_backward": Row(backward.of_rows("rms_norm_backward", centred=False), "axes"),
    "batch_norm_backward": Row(backward.batch_norm(), "channels", 2),
    "batch_norm_backward masked": Row(backward.batch_norm("masked"), "channels", 2),
    "batch_norm_backward inference": Row(backward.batch_norm("inference"), "channels", 2),
    "group_norm_backward": Row(backward.grouped("group_norm_backward"), "samples", 2),
    "group_norm_backward masked": Row(backward.grouped("group_norm_backward", True), "samples", 3),
    "instance_norm_backward": Row(backward.grouped("instance_norm_backward"), "samples", 3),
    "instance_norm_backward masked": Row(backward.grouped("instance_norm_backward", True), "samples", 3),
}

# What op.__all__ holds beside the functions of CALLS.
CONTROL = {
    "available_isas",
    "isa",
    "use_isa",
    "get_num_threads",
    "num_threads",
    "set_num_threads",
    "show_config",
}


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
        elif taken.role == "mask":
            values = rng.random(taken.shape) < 0.75
        elif taken.role == "weights":
            values = np.maximum(rng.uniform(-0.5, 2, taken.shape), 0)
        else:
            values = rng.uniform(-0.25, 0.25, taken.shape)
        made[name] = values.astype(taken.dtype(dtype))
    call.prepare(made)
    return made
