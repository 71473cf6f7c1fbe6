"""What a call costs before any work is done: a small layer norm beside the smallest thing NumPy does.

The everyday call, with weight, bias and a fresh result, against `np.add(x, x, out=o)` of the same size.
"""

from timeit import Timer

import numpy as np
import pytest

import onepass as op
from onepass import timing

STATEMENTS = {"layer_norm": "layer_norm(x, weight, bias)", "np.add": "add(x, x, out=o)"}


@pytest.fixture
def names():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 768), dtype=np.float32)
    weight, bias = rng.standard_normal((2, 768), dtype=np.float32)
    return {"layer_norm": op.layer_norm, "add": np.add, "x": x, "weight": weight, "bias": bias, "o": x.copy()}


@pytest.mark.parametrize("who", ["layer_norm", "np.add"])
def test_call_overhead(benchmark, names, ratios, who):
    benchmark.group = "call overhead, 1 x 768"
    x, weight, bias, o = (names[name] for name in ("x", "weight", "bias", "o"))
    if who == "np.add":
        benchmark(np.add, x, x, out=o)
        return
    benchmark(op.layer_norm, x, weight, bias)
    timers = {who: Timer(statement, globals=names) for who, statement in STATEMENTS.items()}
    seconds = timing.interleave(timers, rounds=51)
    ratio = timing.Ratio.of(seconds["layer_norm"], seconds["np.add"])
    benchmark.extra_info["layer_norm / np.add"] = ratio.median
    ratios.append(
        f"call overhead, layer_norm of 1 x 768 with a fresh result: "
        f"{np.median(seconds['layer_norm']) * 1e6:.2f} us, {ratio.median:.2f} times np.add(x, x, out=o)"
    )
