"""Every function once, on a few MiB, with and without its masks: for regressions from one commit to the next.

How close to the ceiling they come, and how far ahead of their peers they are, is `compare.py`'s matter.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import onepass as op

ROWS, COLS = 2048, 1024
IMAGES = (16, 128, 32, 32)
rng = np.random.default_rng(0)
x, dy, other, out, sum_out = (rng.standard_normal((ROWS, COLS), np.float32) for _ in range(5))
w, b = rng.standard_normal((2, COLS), np.float32)
images, dimages, images_out = (rng.standard_normal(IMAGES, np.float32) for _ in range(3))
weight, bias = rng.standard_normal((2, IMAGES[1]), np.float32)
rows_mask = np.arange(ROWS) % 4 != 0
pixels_mask = np.broadcast_to(np.arange(IMAGES[3]) < 25, (IMAGES[0], *IMAGES[2:]))

CALLS: dict[str, Callable[[], Any]] = {
    "layer_norm": lambda: op.layer_norm(x, w, b, out=out),
    "rms_norm": lambda: op.rms_norm(x, w, out=out),
    "add_layer_norm": lambda: op.add_layer_norm(x, other, w, b, out=out, sum_out=sum_out),
    "add_rms_norm": lambda: op.add_rms_norm(x, other, w, out=out, sum_out=sum_out),
    "batch_norm": lambda: op.batch_norm(x, w, b, training=True, out=out),
    "batch_norm-masked": lambda: op.batch_norm(x, w, b, training=True, mask=rows_mask, out=out),
    "batch_norm-images": lambda: op.batch_norm(images, weight, bias, training=True, out=images_out),
    "group_norm": lambda: op.group_norm(images, 8, weight, bias, out=images_out),
    "group_norm-masked": lambda: op.group_norm(images, 8, weight, bias, mask=pixels_mask, out=images_out),
    "instance_norm": lambda: op.instance_norm(images, weight, bias, out=images_out),
    "instance_norm-masked": lambda: op.instance_norm(images, weight, bias, mask=pixels_mask, out=images_out),
    "layer_norm_backward": lambda: op.layer_norm_backward(dy, x, w),
    "rms_norm_backward": lambda: op.rms_norm_backward(dy, x, w),
    "batch_norm_backward": lambda: op.batch_norm_backward(dy, x, w),
    "batch_norm_backward-images": lambda: op.batch_norm_backward(dimages, images, weight),
    "group_norm_backward": lambda: op.group_norm_backward(dimages, images, 8, weight),
    "instance_norm_backward": lambda: op.instance_norm_backward(dimages, images, weight),
    "moments": lambda: op.moments(x),
    "moments-weighted": lambda: op.moments(x, weights=rows_mask.astype(np.float64)),
    "moments-skipna": lambda: op.moments(x, skipna=True),
    "standardize": lambda: op.standardize(x, out=out),
    "min_max_scale": lambda: op.min_max_scale(x, out=out),
}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", CALLS)
def test_function(name: str, threads: int, benchmark) -> None:
    benchmark.group = f"{name}, {threads} thread{'s'[: threads > 1]}"
    with op.num_threads(threads):
        benchmark(CALLS[name])


def test_no_function_is_without_a_benchmark() -> None:
    measured = {name.split("-")[0] for name in CALLS}
    control = {
        "set_num_threads",
        "get_num_threads",
        "num_threads",
        "isa",
        "available_isas",
        "use_isa",
        "show_config",
    }
    functions = {name for name in op.__all__ if name[0].islower()}
    assert functions - control == measured
