"""Who takes part, and what each of them can do.

A peer is a module with a table `JOBS` from a case's job to how that peer is asked for it; a job that is missing
there, a dtype it has no kernel for and a package that is not installed are dashes in the report (`Absent`).
Results are made before the timing or come from an allocator that keeps its memory, and no peer's conversion from
or to NumPy is timed.

| | layer | rms | add_* | group | instance | batch, inference | batch, training | moments | backward | 16 bits |
|---|---|---|---|---|---|---|---|---|---|---|
| NumPy, JAX | formula | formula | formula | formula | formula | formula | formula | formula | formula | in float32 |
| torch | x | x | two calls | x | x | x | x | var_mean | aten's own | x |
| ONNX Runtime | x | Simplified | Skip | x | x | x | x, channels first | - | - | x |
| scikit-learn | - | - | - | - | - | - | - | StandardScaler.fit | - | - |
| oneDNN 3.2 | x | - | - | - | as batch norm | x | x | - | x | bfloat16 |

NumPy and scikit-learn compute with one thread.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from cases import Array, Case, Data


class Absent(Exception):
    """Why a peer has no figure for a case: a dash, not an error."""


@dataclass(frozen=True)
class Job:
    """What to call; how to see what it returned as arrays; what to be in while it is called; by which kernel."""

    call: Callable[[], Any]
    arrays: Callable[[Any], Sequence[Any]] = list
    around: Callable[[], AbstractContextManager[Any]] = nullcontext
    kernel: str = ""


@dataclass(frozen=True)
class Peer:
    """A column of the report: the module here and the distributions it needs."""

    name: str
    module: str
    needs: tuple[str, ...]

    def job(self, case: Case, data: Data, threads: int) -> Job:
        """The peer's way to do the case; raises `Absent` where it has none."""
        for distribution in self.needs:
            if distribution_version(distribution) is None:
                raise Absent(f"{distribution} is not installed")
        try:
            module = importlib.import_module(f"peers.{self.module}")
        except ImportError as error:
            raise Absent(f"cannot be imported: {error}") from error
        if case.job not in module.JOBS:
            raise Absent("has no such operation")
        job: Job = module.job(case, data, threads)
        return job


PEERS = (
    Peer("NumPy", "numpy_formula", ("numpy",)),
    Peer("torch", "torch_functional", ("torch",)),
    Peer("ONNX Runtime", "onnx_node", ("onnx", "onnxruntime")),
    Peer("JAX", "jax_formula", ("jax", "jaxlib")),
    Peer("scikit-learn", "sklearn_scaler", ("scikit-learn",)),
    Peer("oneDNN", "onednn", ("onednn-cpu-gomp", "onednn-devel-cpu-gomp")),
)


# Asked of the environment once, when torch, oneDNN and XLA are loaded. Nobody can tell ONNX Runtime, nor NumPy any more.
HELD = {
    "x86-64-v3": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "XLA_FLAGS": "--xla_cpu_max_isa=AVX2",
    },
    "baseline": {
        "ATEN_CPU_CAPABILITY": "default",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "XLA_FLAGS": "--xla_cpu_max_isa=SSE4_2",
    },
}


def hold(isa: str) -> None:
    """Hold the peers to an instruction set; to be called before any of them is asked for a job."""
    os.environ.update(HELD.get(isa, {}))


def distribution_version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def versions() -> dict[str, str | None]:
    return {need: distribution_version(need) for peer in PEERS for need in peer.needs}


# Loose: float32 sums in another order, and one rounding more or less in 16 bits. Gradients of the weights are sums
# over many rows, hence relative to the largest.
TOLERANCES = {"float32": 1e-3, "float16": 1e-2, "bfloat16": 4e-2}
SAMPLED = 1 << 20


def sample(array: Any) -> Array:
    """Up to about a million elements of it, evenly spaced."""
    flat = np.asarray(array).reshape(-1)
    # An odd distance, so that with a power of two as width it is not the same column every time.
    return flat[:: max(1, flat.size // SAMPLED) | 1].astype(np.float64)


def disagreement(case: Case, expected: Sequence[Any], got: Sequence[Any]) -> str | None:
    """Where two results of the same job differ by more than rounding explains, or None."""
    if len(expected) != len(got):
        return f"{len(got)} results instead of {len(expected)}"
    for index, (ours, theirs) in enumerate(zip(map(sample, expected), map(sample, got), strict=True)):
        if ours.shape != theirs.shape:
            return f"result {index} has {theirs.size} sampled elements instead of {ours.size}"
        error = float(np.max(np.abs(ours - theirs), initial=0.0))
        allowed = TOLERANCES[case.dtype] * max(1.0, float(np.max(np.abs(ours), initial=0.0)))
        if not error <= allowed:  # a NaN is no agreement
            return f"result {index} differs by {error:.3g}, more than {allowed:.3g}"
    return None
