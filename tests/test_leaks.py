"""Calls and raised errors leave the resident size and the reference counts where they were."""

import gc
import pathlib
import sys

import calls
import leaks
import numpy as np
import pytest

PROGRAM = str(pathlib.Path(leaks.__file__))
ROOM = 128 << 10  # bytes; 10 000 leaks of the smallest object are more
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/statm")


def grown(done):
    """Bytes, by what and of which function."""
    assert done.returncode == 0, done.stderr
    lines = [line.split(maxsplit=2) for line in done.stdout.splitlines()]
    return {(what, *name): int(size) for what, size, *name in lines}


def assert_nothing_leaks(sizes):
    assert sizes.pop(("leak",)) > 4 * ROOM  # what leaks on purpose
    assert {name for _, name in sizes} == set(calls.CALLS)
    assert {key: size for key, size in sizes.items() if size > ROOM} == {}


@linux
def test_resident_size(python):
    assert_nothing_leaks(grown(python(PROGRAM, "20000", "10000")))


@linux
@pytest.mark.slow
def test_resident_size_after_a_million_calls_of_each(python):
    assert_nothing_leaks(grown(python(PROGRAM, "1000000", "100000", timeout=1200)))


def counts(arrays):
    """References to arrays, and to what stands behind them."""
    return [sys.getrefcount(a) for a in (*arrays, np.dtype(np.float32), np.dtype(np.float64), np.dtype(bool))]


@pytest.mark.parametrize("name", calls.CALLS)
def test_reference_counts(name):
    call = calls.CALLS[name]((3, 4, 5), 1)
    arrays = calls.arguments(call, np.dtype(np.float32))
    outs = {key: np.zeros(call.shape, np.float32) for key in call.outs}
    held = [*arrays.values(), *outs.values()]
    raises = leaks.errors(name)

    def work():
        results = call.run(arrays, 1e-5)
        owned = [result if result.base is None else result.base for result in results]
        # Each new result is referred to from here alone: the tuple, the list, the loop's variable and the call's.
        fresh = [sys.getrefcount(array) for array in owned]
        given = call.run(arrays, 1e-5, **outs)
        assert all(got is out for got, out in zip(given, outs.values(), strict=False))
        assert raises() >= 5
        return fresh

    work()
    gc.collect()
    before, nones = counts(held), sys.getrefcount(None)
    for _ in range(100):
        assert max(work()) <= 4
    gc.collect()
    assert counts(held) == before
    assert abs(sys.getrefcount(None) - nones) < 50  # (others refer to it as well)
