"""One case: who takes part, whether they agree, the measuring, and the row that comes of it."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import ours
from cases import Case, Data
from everyday import EverydayTurn
from peers import PEERS, Absent, disagreement
from rounds import Effort, Figure, Others, Turn, Wanted, measure, meeting_seconds

import onepass as op
from onepass import timing
from onepass.timing import Seconds

OURS, EVERYDAY = "onepass", "everyday"


@dataclass
class Row:
    """What was found of one case: medians in seconds, and ratios with their margins.

    `fraction` is ceiling time / our time, `ratios` are peer's time / our time, `everyday` is the time of a call
    with a fresh result / our time with a given one; `others` are the processors that other processes used, and
    `meeting` the seconds that several threads needed to meet, before the rounds and after them.
    `absent` has the reason of every dash, `wrong` those whose result is not ours, and `kernels` what a peer itself
    calls the kernel that ran.
    """

    case: Case
    threads: int
    isa: str
    seconds: dict[str, float] = field(default_factory=dict)
    fraction: Figure | None = None
    ratios: dict[str, Figure] = field(default_factory=dict)
    everyday: Figure | None = None
    others: float | None = None
    meeting: tuple[float, float] | None = None
    absent: dict[str, str] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)
    kernels: dict[str, str] = field(default_factory=dict)

    @property
    def gigabytes_per_second(self) -> float:
        return self.case.moved / self.seconds[OURS] / 1e9

    def fraction_of(self, name: str) -> float | None:
        """Ceiling time / the time of `name`, a peer or onepass itself."""
        if self.fraction is None or (name != OURS and name not in self.ratios):
            return None
        return self.fraction.median / (1 if name == OURS else self.ratios[name].median)

    @property
    def missed(self) -> dict[str, float]:
        """What was asked for and not reached, by peer or "ceiling"; empty where all of it was."""
        missed = {}
        if self.fraction is not None and self.fraction.median < self.case.floor:
            missed["ceiling"] = self.case.floor
        for peer, ratio in self.ratios.items():
            asked = self.case.against.get(peer, self.case.against.get("best", 0.0))
            if ratio.median < asked:
                missed[peer] = asked
        return missed


def probes(case: Case, data: Data) -> dict[str, Turn]:
    """What the ceiling is made of: "copy" and "stream" of what is written, "read" of all that is read."""
    if case.smallest:
        x = data.arrays["x"]
        return {"np.add": Turn(partial(np.add, x, x, out=np.empty_like(x)))}
    written = case.ceiling.outputs
    found: dict[str, Any] = {"read": timing.ceiling_actions(data.sources, data.sources)["read"]}
    if written:
        pairs = timing.ceiling_actions(data.sources[-written:], data.results)
        found = {name: pairs[name] for name in ("copy", "stream")} | found
    if case.ceiling.reads == written:
        del found["read"]
    return {name: Turn(action) for name, action in found.items()}


def ceiling(case: Case, seconds: Mapping[str, Seconds]) -> Seconds:
    """Round by round, what the case's bytes cost at least (see `cases`)."""
    if case.smallest:
        return seconds["np.add"]
    total: Seconds = np.zeros(())
    if case.ceiling.outputs:
        total = min(seconds["copy"], seconds["stream"], key=np.nanmedian)
    only_read = case.ceiling.reads - case.ceiling.outputs
    return total + only_read / case.ceiling.inputs * seconds["read"] if only_read else total


def peer_and_ours(peer: str, seconds: Mapping[str, Seconds]) -> tuple[Seconds, Seconds]:
    return seconds[peer], seconds[OURS]


def compare(
    case: Case, threads: int, effort: Effort, wanted_peers: tuple[str, ...], second: ProcessPoolExecutor
) -> Row:
    """Check and time one case with `threads` threads for everybody who knows threads."""
    row = Row(case, threads, op.isa())
    with op.num_threads(threads):
        try:
            data = Data.of(case)
            mine = ours.job(case, data)
        except (Absent, ImportError) as reason:  # ml_dtypes is what bfloat16 needs
            row.absent[OURS] = str(reason)
            return row
        actions = {OURS: Turn(mine.call)}
        expected = mine.arrays(mine.call())
        for peer in PEERS:
            if peer.name not in wanted_peers:
                continue
            try:
                job = peer.job(case, data, threads)
                with job.around():
                    wrong = disagreement(case, expected, job.arrays(job.call()))
            except Absent as reason:
                row.absent[peer.name] = str(reason)
                continue
            except Exception as failure:  # a peer's trouble is no reason to lose everybody's figures
                row.absent[peer.name] = f"failed: {type(failure).__name__}: {failure}"[:200]
                continue
            if wrong is None:
                actions[peer.name] = Turn(job.call, job.around)
                row.kernels |= {peer.name: job.kernel} if job.kernel else {}
            else:
                row.wrong[peer.name] = wrong
        peers = [name for name in actions if name != OURS]
        everyday = EverydayTurn(second, case, threads, op.isa())
        if ours.has_results(case):
            actions[EVERYDAY] = everyday
        probing = probes(case, data)
        actions |= probing

        fraction = Wanted(lambda s: (ceiling(case, s), s[OURS]), frozenset({OURS, *probing}))
        wanted = {"ceiling": fraction} | {
            name: Wanted(partial(peer_and_ours, name), frozenset({OURS, name}))
            for name in actions
            if name in (*peers, EVERYDAY)
        }
        before = meeting_seconds(threads) if threads > 1 else None
        others = Others()
        seconds, figures = measure(actions, wanted, effort)
        row.others = others.processors(everyday.used)
        if before is not None:
            row.meeting = before, meeting_seconds(threads)
    row.seconds = {name: float(np.nanmedian(values)) for name, values in seconds.items()}
    row.seconds["ceiling"] = float(np.nanmedian(ceiling(case, seconds)))
    row.fraction = figures["ceiling"]
    row.ratios = {name: figures[name] for name in peers}
    row.everyday = figures.get(EVERYDAY)
    return row
