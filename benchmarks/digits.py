"""How many digits are right: the error of the float32 norms on hard data, ours beside the peers'.

    error = max over the elements of |y - exact| / (eps32 / 2 * max |exact| of its group)

`exact` is the formula in float64 on the same float32 numbers (with eps, weight and bias). One unit is the rounding of the
largest element; 16.8 million are all of them: no digit is right. The data sets are those of the tests, where ours
are held to 8 units over many more shapes. `python benchmarks/digits.py` prints the tables of the README, in Markdown.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import ours
from cases import COPY, EPS, Array, Case, Data, aligned
from formulas import FORMULAS
from peers import PEERS, Absent, Job, versions

import onepass as op

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
import datasets

BESIDE = [peer for peer in PEERS if peer.name != "scikit-learn"]  # which has no norm
UNIT = float(np.finfo(np.float32).eps) / 2
ALL = 1 / UNIT
NO_EPS = 1e-300  # torch takes no 0; in float32 it is one
GROUPS, LENGTH = 64, 1024
# Each case has 64 groups of 1024 elements, where (groups, elements) is put in these shapes.
CASES = {
    "layer_norm": ((64, 1024), -1),
    "rms_norm": ((64, 1024), -1),
    "batch_norm": ((1024, 64), 1),
    "group_norm": ((8, 32, 16, 16), 1),
    "instance_norm": ((4, 16, 32, 32), 1),
}
SETS = (
    "N(0, 1)",
    "N(1e4, 1)",
    "N(1e6, 1)",
    "N(-1e7, 100)",
    "integers 0..255",
    "outlier first",
    "outlier last",
    "exp(3N)",
    "1e20 N",
    "largest",
    "1e-20 N, eps 0",
    "1e-25 N, eps 0",
    "subnormal, eps 0",
    *(f"constant {value:g}" for value in datasets.CONSTANTS),
)


def groups_of(name: str) -> Array:
    """Each row is a group."""
    kind, _, _ = name.partition(", eps")
    if kind.startswith("constant"):
        value = next(value for value in datasets.CONSTANTS if f"{value:g}" == kind.split()[1])
        return np.full((GROUPS, LENGTH), value, np.float32)
    make = datasets.extreme if kind in datasets.EXTREMES else datasets.hard
    return make(kind, np.dtype(np.float32), (GROUPS, LENGTH))


def data_of(case: Case, name: str) -> Data:
    x = aligned(case.shape, case.numpy_dtype)
    groups = groups_of(name)
    x[...] = groups.T if case.job == "batch_norm" else groups.reshape(case.shape)
    weight, bias = datasets.weight_and_bias(case.numpy_dtype, case.channels)
    arrays = {"x": x, "weight": weight} | ({} if case.job == "rms_norm" else {"bias": bias})
    return Data(arrays, x[None], aligned((1, *case.shape), case.numpy_dtype))


def units(case: Case, y: Array, exact: Array) -> float:
    def grouped(array: Array) -> Array:
        return array.astype(np.float64).T if case.job == "batch_norm" else array.reshape(GROUPS, -1)

    error = np.abs(grouped(y) - grouped(exact)).max(axis=1)
    size = np.abs(grouped(exact)).max(axis=1)
    return float(np.where(error == 0, 0.0, error / (UNIT * size)).max())


def text(error: float | None) -> str:
    if error is None:
        return "-"
    if not np.isfinite(error):
        return "NaN"
    if error >= ALL / 2:
        return "**none right**"
    return f"{error:.1f}" if error < 100 else f"{error:.0e}".replace("e+0", "e")


def errors(job: str, name: str) -> list[str]:
    """Ours, then each peer's."""
    shape, axis = CASES[job]
    eps = NO_EPS if name.endswith("eps 0") else EPS
    case = Case(job, shape, COPY, 0.0, axis=axis, groups=8, eps=eps)
    data = data_of(case, name)
    wide = {key: array.astype(np.float64) for key, array in data.arrays.items()}
    exact = FORMULAS[job](case, **wide)[0]

    def found(job_of: Callable[[], Job]) -> float | None:
        try:
            work = job_of()
        except Absent:
            return None
        with work.around():
            return units(case, np.asarray(work.arrays(work.call())[0]), exact)

    jobs = [partial(ours.job, case, data), *(partial(peer.job, case, data, 1) for peer in BESIDE)]
    return [text(found(job_of)) for job_of in jobs]


def main() -> None:
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    names = ["onepass", *(peer.name for peer in BESIDE)]
    for job in CASES:
        print(f"\n| `{job}` | " + " | ".join(names) + " |\n|---|" + "--:|" * len(names))
        for name in SETS:
            print(f"| {name} | " + " | ".join(errors(job, name)) + " |")
    known = ", ".join(f"{name} {number}" for name, number in versions().items() if number)
    print(f"\nonepass {op.__version__} ({op.isa()}); {known}")


if __name__ == "__main__":
    main()
