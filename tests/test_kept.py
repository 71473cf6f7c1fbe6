"""Memory of large results: NumPy's arrays own it, and what they let go of serves the next ones."""

import concurrent.futures
import importlib
import pathlib
import sys
import tracemalloc

import numpy as np
import pytest

import onepass as op

ROW = 1024  # elements: 4 KiB
# Rows of what is small, and of what has huge pages, on both sides of a whole one.
SIZES = [17, 100, 511, 512, 513, 3000]


def result(rows, value=1.0):
    """A result full of a value."""
    return op.layer_norm(np.zeros((rows, ROW), np.float32), bias=np.full(ROW, value, np.float32))


def handler(array):
    core = "numpy._core" if hasattr(np, "_core") else "numpy.core"
    return importlib.import_module(f"{core}.multiarray").get_handler_name(array)


@pytest.mark.parametrize("rows", SIZES)
def test_arrays_own_it(rows):
    y = result(rows)
    assert (y.flags.owndata, y.base, handler(y)) == (True, None, "onepass")
    assert y.ctypes.data % 64 == 0
    assert {handler(array) for array in (y.copy(), np.empty_like(y), result(15))} == {"default_allocator"}


@pytest.mark.skipif(sys.platform != "linux", reason="large ones are not mapped")
def test_large_ones_begin_off_any_kib_of_their_pages():
    """There rows of others' arrays begin, and loads that lie just before pending stores wait for these."""
    begins = {y.ctypes.data % 4096 for y in [result(600) for _ in range(6)]}
    assert len(begins) > 1
    assert {begin % 1024 for begin in begins} == {512}


@pytest.mark.parametrize("rows", SIZES)
def test_the_next_one_has_it(rows):
    y = result(rows)
    at = y.ctypes.data
    del y
    assert result(rows).ctypes.data == at


def test_the_last_one_let_go_of_is_the_next():
    first, second = result(600), result(600)
    at = second.ctypes.data
    del first
    del second
    assert result(600).ctypes.data == at


NEARLY = """
import numpy as np, onepass as op
at = op.layer_norm(np.zeros((600, 1024), np.float32)).ctypes.data
print([op.layer_norm(np.zeros((rows, 1024), np.float32)).ctypes.data == at for rows in (560, 600, 500, 640)])
"""


def test_so_has_one_that_is_nearly_as_large(python):
    """But none that would leave more than an eighth unused."""
    done = python("-c", NEARLY)
    assert done.stdout.strip() == "[True, True, False, False]", done.stderr


def test_results_are_apart():
    def rounds(seed):
        rng, held = np.random.default_rng(seed), {}
        for i in range(200):
            held[int(rng.integers(8))] = (result(int(rng.choice(SIZES[:5])), float(i)), float(i))
            for y, value in held.values():
                assert y[0, 0] == y[-1, -1] == value
        for y, value in held.values():
            assert (y == value).all()

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(rounds, seed) for seed in range(4)]:
            done.result()


@pytest.mark.parametrize("rows", [40, 600])
def test_resize(rows):
    for other in (2 * rows, rows // 2):
        y = result(rows)
        y.resize((other, ROW), refcheck=False)
        assert (y[: min(rows, other)] == 1).all()
        assert (y[rows:] == 0).all()


def test_python_counts_it():
    tracemalloc.start()
    try:
        y = result(600)
        assert tracemalloc.get_traced_memory()[0] > y.nbytes
        del y
        assert tracemalloc.get_traced_memory()[0] < 600 * ROW
    finally:
        tracemalloc.stop()


PROGRAM = """
import ctypes, numpy as np, onepass as op
def resident():
    getattr(ctypes.CDLL(None), "malloc_trim", int)(0)  # what the allocator keeps is not ours
    with open("/proc/self/smaps_rollup") as file:
        sizes = dict(line.split()[:2] for line in list(file)[1:])
    return (int(sizes["Rss:"]) - int(sizes["LazyFree:"])) >> 10  # without what the system may take
x = np.random.default_rng(0).standard_normal((2048, 1024), dtype=np.float32)
op.layer_norm(x, out=np.empty_like(x))
before = resident()
many = [op.layer_norm(x) for _ in range(30)]
many += [op.layer_norm(x[:200]) for _ in range(100)]
held = resident() - before
del many
print(held, resident() - before)
"""


@pytest.mark.skipif(not pathlib.Path("/proc/self/smaps_rollup").exists(), reason="reads it")
@pytest.mark.parametrize(("keep", "most"), [("0", 0), ("8", 8 + 8), ("48", 48 + 16), (None, 64 + 16)])
def test_no_more_than_that_is_kept(keep, most, python):
    done = python("-c", PROGRAM, ONEPASS_KEEP=keep)
    assert done.returncode == 0, done.stderr
    held, left = map(int, done.stdout.split())
    assert held > 280
    assert left <= most + 24
