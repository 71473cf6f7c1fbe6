"""JAX: the formula under `jax.jit`, on the CPU.

XLA takes its number of threads from the environment (NPROC) when its client is made, and gives no other way to
choose it; so each change makes a new client.
"""

from __future__ import annotations

import os
from functools import partial

import jax
import jax.extend.backend
from cases import Case, Data
from formulas import FORMULAS as JOBS

from peers import Job

jax.config.update("jax_platforms", "cpu")


def set_threads(threads: int) -> None:
    if os.environ.get("NPROC") != str(threads):
        os.environ["NPROC"] = str(threads)
        jax.clear_caches()
        jax.extend.backend.clear_backends()


def job(case: Case, data: Data, threads: int) -> Job:
    set_threads(threads)
    compiled = jax.jit(partial(JOBS[case.job], case))
    arrays = jax.device_put(data.arrays)

    def run() -> list[jax.Array]:
        return jax.block_until_ready(compiled(**arrays))

    return Job(run)
