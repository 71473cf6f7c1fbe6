"""Calls without number, and the resident size after them. Linux.

    python tests/leaks.py CALLS ERRORS      so many calls and raised errors of every function

It prints by how many bytes the process grew in each.
"""

import gc
import sys

import numpy as np


def resident():
    """Bytes."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def growth(work, times):
    """How much the resident size grows over `times` runs, once a tenth as many have filled what is kept."""
    for _ in range(max(times // 10, 100)):
        work()
    gc.collect()
    before = resident()
    for _ in range(times):
        work()
    gc.collect()
    return resident() - before


def small(name):
    """A call on few elements, in place of a new result where it has one, and one with results of its own."""
    import calls

    row = calls.CALLS[name]
    call = row((3, 4, 5), 1)
    arrays = calls.arguments(call, np.dtype(np.float32))
    outs = {key: np.zeros(call.shape, np.float32) for key in call.outs}

    def work():
        call.run(arrays, 1e-5)
        call.run(arrays, 1e-5, **outs)

    return work


def errors(name):
    """Every kind of bad x that can be told from an array, and a bad argument beside it."""
    import calls

    call = calls.CALLS[name]((3, 4, 5), 1)
    arrays = calls.arguments(call, np.dtype(np.float32))
    bad = [
        {"x": [1.0]},
        {"x": np.ones((3, 4, 5), np.int32)},
        {"x": np.ma.masked_array(arrays["x"], arrays["x"] > 0)},
        {"x": np.ones((3, 4, 5), np.dtype(np.float32).newbyteorder())},
        {"x": None},
        *({key: wrong} for key in call.takes for wrong in (np.ones((7, 7), np.float32), "text")),
    ]

    def work():
        """How many errors it raised."""
        raised = 0
        for wrong in bad:
            try:
                call.run({**arrays, **wrong}, 1e-5)
            except (TypeError, ValueError):
                raised += 1
        return raised

    return work


def leaky(kept=[]):  # noqa: B006 (what is kept is the point)
    """What must be seen."""
    return lambda: kept.append(bytearray(16))


def main(times, raised):
    import calls

    print("leak", growth(leaky(), 20_000))
    for name in calls.CALLS:
        print("calls", growth(small(name), times // 2), name)
        work = errors(name)
        assert work() >= 5, name
        print("errors", growth(work, raised // work() + 1), name)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
