"""Threads and instruction sets, and what a bug report needs to know."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from . import _core


def set_num_threads(n: int) -> None:
    """Set how many threads a call may use, for the whole process. A call uses fewer where the array is small.

    Parameters
    ----------
    n : int
        At least 1. No result depends on it.

    Raises
    ------
    TypeError, ValueError
        For what is not an int of at least 1.

    Examples
    --------
    >>> import onepass as op
    >>> before = op.get_num_threads()
    >>> op.set_num_threads(1)
    >>> op.get_num_threads()
    1
    >>> op.set_num_threads(before)
    """
    _core.set_num_threads(n)


def get_num_threads() -> int:
    """How many threads a call may use.

    By default OMP_NUM_THREADS, else what the process may use: the smaller of its CPU affinity and its cgroup's quota.
    In a forked child it is 1, because OpenMP's threads do not survive a fork.

    Examples
    --------
    >>> import onepass as op
    >>> op.get_num_threads() >= 1
    True
    """
    return _core.get_num_threads()


@contextmanager
def num_threads(n: int) -> Iterator[None]:
    """Use n threads within a ``with`` block. The setting is the process's, not the Python thread's.

    Examples
    --------
    >>> import onepass as op
    >>> with op.num_threads(1):
    ...     op.get_num_threads()
    1
    """
    before = get_num_threads()
    set_num_threads(n)
    try:
        yield
    finally:
        set_num_threads(before)


def isa() -> str:
    """The name of the instruction set in use.

    The environment variable ONEPASS_ISA chooses it at import; by default it is the widest that the machine runs.

    Examples
    --------
    >>> import onepass as op
    >>> op.isa() in op.available_isas()
    True
    """
    return _core.isa()


def available_isas() -> tuple[str, ...]:
    """The instruction sets that this machine runs, the widest last: "baseline", "x86-64-v3", "x86-64-v4".

    Examples
    --------
    >>> import onepass as op
    >>> op.available_isas()[0]
    'baseline'
    """
    return _core.available_isas()


def use_isa(name: str) -> None:
    """Use the kernels of another instruction set, for the whole process. No result depends on it.

    Raises
    ------
    TypeError, ValueError
        For a name that is not among `available_isas`.

    Examples
    --------
    >>> import onepass as op
    >>> before = op.isa()
    >>> op.use_isa("baseline")
    >>> op.use_isa(before)
    """
    if not isinstance(name, str):
        raise TypeError(f"name is {type(name).__name__}; expected one of {', '.join(available_isas())}")
    _core.use_isa(name)


def show_config() -> None:
    """Print versions, compiler, flags, instruction sets, threads and caches: what a bug report needs.

    Examples
    --------
    >>> import onepass as op
    >>> op.show_config()  # doctest: +ELLIPSIS
    onepass ...
    """
    from importlib.metadata import version  # (see __init__.py)

    build = _core.build()
    facts = {
        "onepass": version("onepass"),
        "python": f"{platform.python_version()} ({sys.platform}, {platform.machine()})",
        "numpy": np.__version__,
        "pybind11": build["pybind11"],
        "compiler": build["compiler"],
        "flags": build["flags"],
        "openmp": "yes" if build["openmp"] else "no: built single-threaded",
        "threads": f"{get_num_threads()} (of {build['usable_cpus']} processors that the process may use)",
        "isa": f"{isa()} (of {', '.join(available_isas())})",
        "first-level cache": f"{build['first_level_cache'] / 2**10:g} KiB",
        "last-level cache": f"{build['last_level_cache'] / 2**20:g} MiB",
    }
    width = max(map(len, facts))
    for name, fact in facts.items():
        print(f"{name:<{width}}  {fact}")


_forced = os.environ.get("ONEPASS_ISA")
if _forced:
    try:
        use_isa(_forced)
    except ValueError as error:
        raise ImportError(f"ONEPASS_ISA: {error}") from None
