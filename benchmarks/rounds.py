"""Measuring side by side: bursts, quiet between them, and rounds until the medians stand still.

`onepass.timing.interleave` lets the actions take turns; here is what several frameworks in one process need on
top of it.

Worker threads spin for a while after a parallel region, each framework's for its own time (libgomp milliseconds,
ONNX Runtime more), and whoever comes next would share the cores with them. So before a turn this process waits
until it has used no processor time for a moment, however long that takes.

Worker threads that wait spin, so a team that lost one of its processors to another process waits for it for whole time
slices of the scheduler, steadily: such figures settle and are worth nothing. So the report also tells how many
processors others used meanwhile. And where a host moves the processors of a virtual machine about, threads are nearer
to each other at one time than at another, which makes a factor of two in small calls: it tells what they need to meet.

A median over rounds is settled when its margin is small: with quartiles a and b over n rounds, the notch of McGill,
Tukey and Larsen (Variations of box plots, 1978), 1.57 (b - a) / sqrt(n), about a 95 % interval. Rounds are added for
the ratios that are not settled yet, until they are, or until rounds or time are used up: then the report says so.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from math import isnan
from pathlib import Path
from timeit import Timer
from typing import Any, ClassVar

import numpy as np

import onepass as op
from onepass.timing import Ratio, Seconds, ceiling_actions, interleave

BURST_SECONDS = 8e-3

QUIET_SECONDS = 1e-3
QUIET_SHARE = 0.1  # of a core
QUIET_PATIENCE = 0.25


def wait_until_quiet() -> bool:
    """Sleep until no thread of this process computes; False if that did not come about."""
    give_up = time.perf_counter() + QUIET_PATIENCE
    while time.perf_counter() < give_up:
        used, begun = time.process_time(), time.perf_counter()
        time.sleep(QUIET_SECONDS)
        if time.process_time() - used < QUIET_SHARE * (time.perf_counter() - begun):
            return True
    return False


def busy_seconds() -> float:
    """Processor time that everybody together has used since the machine started; NaN where nobody tells."""
    try:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    except OSError:
        return float("nan")
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields)
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


class Others:
    """How many processors others have kept busy since this was made; `second` is our second process's time."""

    def __init__(self) -> None:
        self.begun, self.before = time.perf_counter(), busy_seconds() - time.process_time()

    def processors(self, second: float) -> float | None:
        used = busy_seconds() - time.process_time() - self.before - second
        return None if isnan(used) else max(0.0, used) / (time.perf_counter() - self.begun)


class Turn(Timer):
    """An action that waits for quiet when it follows another's turn, and runs in a context of its own."""

    last: ClassVar[Turn | None] = None

    def __init__(
        self, call: Callable[[], Any], around: Callable[[], AbstractContextManager[Any]] = nullcontext
    ) -> None:
        super().__init__(call)
        self.around = around

    def timeit(self, number: int = 1) -> float:
        if Turn.last is not self:
            wait_until_quiet()
            Turn.last = self
        with self.around():
            return self.burst(number)

    def burst(self, number: int) -> float:
        return super().timeit(number)


@dataclass(frozen=True)
class Effort:
    """When to stop: after so many `rounds` at most, and no new `batch` of them begins after `budget` seconds."""

    rounds: int
    batch: int
    budget: float
    margin: float


FULL = Effort(rounds=49, batch=7, budget=20.0, margin=0.02)
QUICK = Effort(rounds=10, batch=5, budget=1.5, margin=0.05)


@dataclass(frozen=True)
class Figure:
    """A median of round-by-round ratios; `spread` is between its quartiles, both as fractions of it."""

    median: float
    spread: float
    margin: float
    rounds: int
    settled: bool

    @classmethod
    def of(cls, numerator: Seconds, denominator: Seconds, effort: Effort) -> Figure:
        together = ~np.isnan(numerator + denominator)
        ratio = Ratio.of(numerator[together], denominator[together])
        rounds = int(together.sum())
        margin = 1.57 * ratio.spread / rounds**0.5
        return cls(ratio.median, ratio.spread, margin, rounds, margin <= effort.margin)


NEAR = 128 << 10  # bytes for each thread, which its nearer caches hold; a call is not shared for less
MEETINGS = 9


def meeting_seconds(threads: int) -> float:
    """What it takes threads to begin a task together and to be done: more than its nth part by one thread takes."""
    x = np.zeros((threads, NEAR), np.uint8).view(np.float32)
    read = ceiling_actions(x, x)["read"]
    turns = {count: Turn(read, partial(op.num_threads, count)) for count in (1, threads)}
    taken = {count: float(np.median(turn.repeat(MEETINGS, 200))) / 200 for count, turn in turns.items()}
    return taken[threads] - taken[1] / threads


# From the seconds of all actions to one ratio's numerator and denominator.
Pair = Callable[[Mapping[str, Seconds]], tuple[Seconds, Seconds]]


@dataclass(frozen=True)
class Wanted:
    """A ratio to measure: of what, and which actions it is made of."""

    pair: Pair
    actions: frozenset[str]


def measure(
    actions: Mapping[str, Timer], wanted: Mapping[str, Wanted], effort: Effort
) -> tuple[dict[str, Seconds], dict[str, Figure]]:
    """Seconds by action and round (NaN where it had no turn), and the ratios with their margins."""
    seconds: dict[str, Seconds] = {name: np.empty(0) for name in actions}
    figures: dict[str, Figure] = {}
    taking_part: Iterable[str] = actions
    begun = time.perf_counter()
    done = 0
    while taking_part:
        batch = interleave(
            {name: actions[name] for name in taking_part},
            rounds=effort.batch,
            sample=BURST_SECONDS,
            budget=effort.budget / 2,
        )
        rounds = len(next(iter(batch.values())))
        done += rounds
        missed = np.full(rounds, np.nan)
        seconds = {name: np.append(seconds[name], batch.get(name, missed)) for name in actions}
        figures = {name: Figure.of(*want.pair(seconds), effort) for name, want in wanted.items()}
        if done >= effort.rounds or time.perf_counter() - begun > effort.budget:
            break
        unsettled = {name for name, figure in figures.items() if not figure.settled}
        needed = frozenset[str]().union(*(wanted[name].actions for name in unsettled))
        taking_part = [name for name in actions if name in needed]
    return seconds, figures
