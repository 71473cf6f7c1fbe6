"""Timing several actions side by side: interleaved rounds, and the ceiling they are held against.

Two figures taken minutes apart on a shared machine are not comparable. So the actions take turns, A B C B C A
C A B ..., and what is reported is the median over rounds of the ratio *within* a round: whatever slowed the
machine then slowed both. `bench`, `demo` and `benchmarks/` all measure through `interleave`.

The ceiling. Normalizing does next to no arithmetic per byte, so the honest limit is moving the same bytes
with the same threads and doing nothing else: a copy, with ordinary or non-temporal stores, whichever is
faster; for statistics alone a read; for column norms, which must see all of their data before they can write
any, a read followed by a copy.
"""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from timeit import Timer
from typing import Any

import numpy as np
import numpy.typing as npt

from onepass import _core

Seconds = npt.NDArray[np.float64]
Action = Callable[[], object] | Timer

# A sample lasts at least this long, so that the clock and the loop around the call do not show.
SAMPLE_SECONDS = 2e-3
# Below this an untimed call precedes each sample, to bring back the cache lines that the others threw out.
REHEARSE_SECONDS = 0.1
# Before each turn: the worker threads of whoever had the last one spin for a while before they sleep.
PAUSE_SECONDS = 3e-3
MIN_ROUNDS = 5


@dataclass(frozen=True)
class Ratio:
    """Median of the round-by-round ratios, and the distance between their quartiles as a fraction of it."""

    median: float
    spread: float

    @classmethod
    def of(cls, numerator: Seconds, denominator: Seconds) -> Ratio:
        low, middle, high = np.percentile(numerator / denominator, [25, 50, 75])
        return cls(float(middle), float((high - low) / middle))


def interleave(
    actions: Mapping[str, Action], *, rounds: int = 15, budget: float = 6.0, sample: float = SAMPLE_SECONDS
) -> dict[str, Seconds]:
    """Seconds per call of each action, one figure per round.

    Parameters
    ----------
    actions
        What to call, by name. A `timeit.Timer` over a statement leaves out the cost of calling a lambda,
        which matters below a microsecond.
    rounds
        How many times each action has its turn.
    budget
        Seconds after which no further round begins, once there were `MIN_ROUNDS`.
    sample
        A turn calls the action often enough to last this long, in seconds.
    """
    timers = {name: given if isinstance(given, Timer) else Timer(given) for name, given in actions.items()}
    calls = {}
    for name, timer in timers.items():
        timer.timeit(1)  # the first call may start threads, or touch pages for the first time
        once = timer.timeit(1)
        if once < sample:
            once = timer.timeit(8) / 8
        calls[name] = max(1, round(sample / once))
    seconds: dict[str, list[float]] = {name: [] for name in timers}
    order = list(timers)
    start = time.perf_counter()
    for done in range(max(rounds, MIN_ROUNDS)):
        if done >= MIN_ROUNDS and time.perf_counter() - start > budget:
            break
        for name in order:
            timer, n = timers[name], calls[name]
            time.sleep(PAUSE_SECONDS)
            if not seconds[name] or seconds[name][-1] < REHEARSE_SECONDS:
                timer.timeit(1)
            seconds[name].append(timer.timeit(n) / n)
        # Nobody always comes after the same neighbour.
        order.append(order.pop(0))
    return {name: np.array(values) for name, values in seconds.items()}


def ceiling_actions(src: npt.NDArray[Any], dst: npt.NDArray[Any]) -> dict[str, Action]:
    """The probes to run beside a kernel that reads `src` and writes `dst`, to be timed by `interleave`."""
    return {
        "copy": lambda: _core.copy_probe(src, dst, False),
        "stream": lambda: _core.copy_probe(src, dst, True),
        "read": lambda: _core.read_probe(src),
    }


def ceiling_seconds(seconds: Mapping[str, Seconds], sweeps: Sequence[str]) -> Seconds:
    """Round by round, what `sweeps` over the data (each "read" or "copy") cost at least."""
    stream_wins = np.median(seconds["stream"]) < np.median(seconds["copy"])
    cost = {"read": seconds["read"], "copy": seconds["stream" if stream_wins else "copy"]}
    total: Seconds = np.sum([cost[sweep] for sweep in sweeps], axis=0)
    return total


def keep_freed_memory() -> None:
    """Let glibc keep what is freed, for the rest of the process.

    A peer that cannot write into a given result allocates one per call; with glibc's defaults each large one
    is fresh pages, and what would be timed is the kernel zeroing them. Without glibc this does nothing.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return  # musl has none
    m_trim_threshold, m_mmap_max = -1, -4
    mallopt(m_mmap_max, 0)
    mallopt(m_trim_threshold, 2**31 - 1)
