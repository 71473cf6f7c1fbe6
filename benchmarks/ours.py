"""onepass's way to do each job: into given results, or as the everyday call that makes its own."""

from __future__ import annotations

from functools import partial
from typing import Any

from cases import Array, Case, Data
from peers import Absent, Job

import onepass as op

# Where onepass takes `out`, the names of its results' arguments.
RESULTS = {
    "add_layer_norm": ("out", "sum_out"),
    "add_rms_norm": ("out", "sum_out"),
    "moments": (),
    "layer_norm_backward": (),
    "batch_norm_backward": (),
    "group_norm_backward": (),
    "instance_norm_backward": (),
}


def arrays(result: Any) -> list[Array]:
    if isinstance(result, op.Moments):
        return [result.mean, result.var()]
    return [result] if not isinstance(result, tuple) else list(result)


def job(case: Case, data: Data, *, fresh: bool = False) -> Job:
    """Raises `Absent` where this version of onepass has no such function."""
    name = case.job.removesuffix("_inference")
    function = getattr(op, name, None)
    if function is None:
        raise Absent(f"onepass {op.__version__} has no {name}")
    given = dict(data.arrays)
    # As users write them: these by position, everything else by name.
    positional: list[Any] = [given.pop(key) for key in ("dy", "x", "residual") if key in given]
    if name.startswith("group_norm"):
        positional.append(case.groups)
    positional += [given.pop(key) for key in ("weight", "bias") if key in given]
    options: dict[str, Any] = dict(given)
    if name == "moments":
        options["axis"] = 0
    elif not case.smallest:  # which leaves what is the default anyway
        options["eps"] = case.eps
    if name.startswith(("batch_norm", "group_norm", "instance_norm")):
        options["axis"] = case.axis
    if name.startswith("batch_norm"):
        options["training"] = case.job != "batch_norm_inference"
    if not (fresh or case.smallest):
        options |= dict(zip(RESULTS.get(case.job, ("out",)), data.results, strict=False))
    return Job(partial(function, *positional, **options), arrays)


def has_results(case: Case) -> bool:
    """Whether the everyday call differs from the one that is given its results."""
    return not case.smallest and bool(RESULTS.get(case.job, ("out",)))
