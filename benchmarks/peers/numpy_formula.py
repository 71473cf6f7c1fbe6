"""NumPy: the formula as a user writes it."""

from __future__ import annotations

from functools import partial

from cases import Case, Data
from formulas import FORMULAS as JOBS

from peers import Job


def job(case: Case, data: Data, threads: int) -> Job:
    return Job(partial(JOBS[case.job], case, **data.arrays))
