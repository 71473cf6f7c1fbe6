"""The everyday call: a fresh result each time, in a process whose allocator nobody has told to keep its memory.

compare.py's own process keeps what is freed, so that torch does not pay for fresh pages while its kernels are
timed. What a user of onepass pays, pages included, can therefore not be seen there: a second process makes these
calls, and its turns are interleaved with the others'.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from multiprocessing import get_context

import ours
from cases import Case, Data
from rounds import Turn, wait_until_quiet

import onepass as op


@lru_cache(maxsize=1)  # one case's arrays at a time
def turn(case: Case, threads: int, isa: str) -> Turn:
    op.set_num_threads(threads)
    op.use_isa(isa)
    return Turn(ours.job(case, Data.of(case), fresh=True).call)


def burst(case: Case, threads: int, isa: str, number: int) -> tuple[float, float]:
    """In the second process: seconds of `number` calls, and the processor time that all of it took."""
    before = time.process_time()
    seconds = turn(case, threads, isa).timeit(number)
    wait_until_quiet()
    return seconds, time.process_time() - before


class EverydayTurn(Turn):
    """Asks the second process for a burst."""

    def __init__(self, pool: ProcessPoolExecutor, case: Case, threads: int, isa: str) -> None:
        self.pool, self.given = pool, (case, threads, isa)
        self.used = 0.0
        super().__init__(int)

    def burst(self, number: int) -> float:
        seconds, used = self.pool.submit(burst, *self.given, number).result()
        self.used += used
        return seconds


@contextmanager
def second_process() -> Iterator[ProcessPoolExecutor]:
    # Not forked: a child that inherits threads' locks and an allocator's settings is not everyday.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        yield pool
