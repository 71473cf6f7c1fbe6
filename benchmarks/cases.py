"""What compare.py measures: the cases, the floors asked for them, their data and their ceilings.

A ceiling is moving the same bytes and nothing else. Let every array have the size of x, let a case read k of
them, some more than once, and write m. Then

    ceiling = copy of m arrays  +  (reads - m) / k * read of all k arrays

where `reads` counts how many arrays' worth has to be read: each written array is paired with one that is read (a
copy, with ordinary or non-temporal stores, whichever is quicker), and what is left to read is only read. So layer
norm is held against a copy, moments against a read, and batch norm in training against a read and a copy. The
probes work on the case's own arrays: they meet the same caches as the kernels do.
"""

from __future__ import annotations

import math
import mmap
import random
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatch
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

EPS = 1e-5
HUGE = 1 << 22  # bytes: from there on NumPy asks for huge pages
LINE = 64  # bytes of a cache line; everybody gets x and out at the start of one, or `Case.behind` it


@dataclass(frozen=True)
class Ceiling:
    """How many arrays of x's size go in and out, and how many times in all one of them has to be read."""

    name: str
    inputs: int
    outputs: int
    reads: int


COPY = Ceiling("copy", 1, 1, 1)
READ = Ceiling("read", 1, 0, 1)
READ_AND_COPY = Ceiling(
    "read x; copy x to y", 1, 1, 2
)  # no column can be written before its last row was read
ADD = Ceiling("copy x and residual to y and the sum", 2, 2, 2)
ROW_GRADIENT = Ceiling("read x; copy dy to dx", 2, 1, 2)
COLUMN_GRADIENT = Ceiling("read x and dy; read x, copy dy to dx", 2, 1, 4)
NP_ADD = Ceiling("np.add(x, x, out=o)", 1, 1, 1)  # of the smallest call: what NumPy pays for calling anything

# What goes into each function, by its argument's name.
ARGUMENTS = {
    "layer_norm": ("x", "weight", "bias"),
    "rms_norm": ("x", "weight"),
    "add_layer_norm": ("x", "residual", "weight", "bias"),
    "add_rms_norm": ("x", "residual", "weight"),
    "group_norm": ("x", "weight", "bias"),
    "instance_norm": ("x", "weight", "bias"),
    "batch_norm": ("x", "weight", "bias"),
    "batch_norm_inference": ("x", "weight", "bias", "running_mean", "running_var"),
    "moments": ("x",),
    "layer_norm_backward": ("x", "dy", "weight"),
    "batch_norm_backward": ("x", "dy", "weight"),
    "group_norm_backward": ("x", "dy", "weight"),
    "instance_norm_backward": ("x", "dy", "weight"),
}


@dataclass(frozen=True)
class Case:
    """One function on one shape.

    `job` is a key of `ARGUMENTS`: onepass's name, with batch norm in inference told apart from batch norm in
    training. `axis` is the axis that holds the weights' entries. `floor` is the fraction of the ceiling that is
    asked for, `against` are the least ratios asked for, peer's time / our time ("best": of every peer). x and the
    results begin `behind` bytes behind the start of a cache line.
    """

    job: str
    shape: tuple[int, ...]
    ceiling: Ceiling
    floor: float
    against: Mapping[str, float] = field(default_factory=dict, compare=False)
    axis: int = -1
    dtype: str = "float32"
    groups: int = 1
    eps: float = EPS
    quick: bool = False
    behind: int = 0

    @property
    def label(self) -> str:
        words = [self.job.replace("_inference", " inference")]
        if self.job == "batch_norm":
            words[0] += " training"
        words.append("x".join(map(str, self.shape)))
        if len(self.shape) > 2:
            words.append("channels-first" if self.axis == 1 else "channels-last")
        if self.dtype != "float32":
            words.append(self.dtype)
        return " ".join(words)

    @property
    def channels(self) -> int:
        return self.shape[self.axis]

    @property
    def smallest(self) -> bool:
        """Whether it is the call that is timed, not the kernel: an everyday one, with a fresh result."""
        return self.ceiling is NP_ADD

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        if self.dtype == "bfloat16":
            import ml_dtypes  # noqa: F401  (which tells NumPy of the name)

            return np.dtype("bfloat16")
        return np.dtype(self.dtype)

    @property
    def moved(self) -> int:
        """Bytes that have to be read and written."""
        return prod(self.shape) * self.numpy_dtype.itemsize * (self.ceiling.reads + self.ceiling.outputs)

    def matches(self, patterns: tuple[str, ...]) -> bool:
        return any(fnmatch(self.label, f"*{pattern}*") for pattern in patterns)


def table() -> Iterator[Case]:
    """The cases with their floors; shapes that a line leaves open are chosen here."""
    shape: tuple[int, ...]
    in_cache = {(512, 768): 0.5, (2048, 1024): 0.6, (128, 4096): 0.5}
    for job in ("layer_norm", "rms_norm"):
        for shape, floor in in_cache.items():
            asked = {"oneDNN": 1.0, "torch": 2.0, "ONNX Runtime": 2.0}
            quick = job == "layer_norm" and shape == (2048, 1024)
            yield Case(job, shape, COPY, floor, asked, quick=quick)
    for shape in ((65536, 1024), (16384, 4096)):
        asked = {"oneDNN": 1.35, "torch": 1.6}
        yield Case("layer_norm", shape, COPY, 0.95, asked, quick=shape == (16384, 4096))

    for job in ("add_layer_norm", "add_rms_norm"):
        for rows, floor in ((2048, 0.5), (32768, 0.9)):
            quick = job == "add_rms_norm" and rows == 2048
            yield Case(job, (rows, 1024), ADD, floor, {"torch": 1.5}, quick=quick)
    for dtype in ("bfloat16", "float16"):
        for rows, floor in ((2048, 0.3), (65536, 0.85)):
            asked = {"oneDNN": 1.1, "torch": 2.5}
            quick = dtype == "bfloat16" and rows == 2048
            yield Case("layer_norm", (rows, 1024), COPY, floor, asked, dtype=dtype, quick=quick)
    yield Case("group_norm", (8, 256, 28, 28), COPY, 0.45, {"torch": 1.5}, axis=1, groups=32, quick=True)
    yield Case("instance_norm", (8, 64, 56, 56), COPY, 0.45, {"torch": 1.5}, axis=1)

    inference: dict[tuple[int, ...], tuple[int, float]] = {
        (1024, 1024): (1, 0.55),
        (8, 256, 28, 28): (1, 0.55),
        (8, 28, 28, 256): (-1, 0.55),
        (32768, 1024): (1, 0.95),
        (128, 64, 56, 56): (1, 0.95),
        (128, 56, 56, 64): (-1, 0.95),
    }
    for shape, (axis, floor) in inference.items():
        quick = shape == (8, 256, 28, 28)
        yield Case("batch_norm_inference", shape, COPY, floor, {"best": 1.0}, axis=axis, quick=quick)

    rows_of_channels: dict[tuple[int, ...], tuple[int, float]] = {
        (1024, 1024): (1, 1.5),
        (4096, 256): (1, 1.5),
        (65536, 64): (1, 1.5),
        (8, 28, 28, 256): (-1, 1.5),
        (32, 56, 56, 64): (-1, 1.0),  # x and y together are larger than most caches
    }
    for shape, (axis, onednn) in rows_of_channels.items():
        asked = {"torch": 1.7, "oneDNN": onednn}
        yield Case("batch_norm", shape, READ_AND_COPY, 0.6, asked, axis=axis, quick=shape == (1024, 1024))
    for shape in ((8, 256, 28, 28), (64, 128, 16, 16), (32, 64, 56, 56)):
        asked = {"torch": 6.0, "oneDNN": 5.0}
        yield Case("batch_norm", shape, READ_AND_COPY, 0.5, asked, axis=1, quick=shape[0] == 8)
    asked = {"torch": 1.4, "oneDNN": 1.4}
    yield Case("batch_norm", (32768, 1024), READ_AND_COPY, 0.9, asked, axis=1)

    for shape, floor in {(1024, 1024): 0.45, (65536, 64): 0.45, (32768, 1024): 0.9}.items():
        asked = {"torch": 30.0, "scikit-learn": 30.0}
        yield Case("moments", shape, READ, floor, asked, quick=shape == (1024, 1024))

    for rows, floor, torch in ((2048, 0.45, 2.2), (32768, 0.9, 1.5)):
        asked = {"torch": torch}
        yield Case("layer_norm_backward", (rows, 1024), ROW_GRADIENT, floor, asked, quick=rows == 2048)
    for shape in ((1024, 1024), (32, 64, 56, 56)):
        asked = {"torch": 1.5}
        yield Case("batch_norm_backward", shape, COLUMN_GRADIENT, 0.5, asked, axis=1)

    yield Case("layer_norm", (1, 768), NP_ADD, 0.5, {"torch": 2.5, "ONNX Runtime": 2.5}, quick=True)


CASES = tuple(table())

OF_ROWS = {
    "layer_norm": COPY,
    "rms_norm": COPY,
    "add_layer_norm": ADD,
    "add_rms_norm": ADD,
    "layer_norm_backward": ROW_GRADIENT,
}
OF_COLUMNS = {
    "batch_norm": READ_AND_COPY,
    "batch_norm_inference": COPY,
    "batch_norm_backward": COLUMN_GRADIENT,
    "moments": READ,
}
OF_IMAGES = {
    **{job: ceiling for job, ceiling in OF_COLUMNS.items() if job != "moments"},
    "group_norm": COPY,
    "instance_norm": COPY,
    "group_norm_backward": ROW_GRADIENT,
    "instance_norm_backward": ROW_GRADIENT,
}


def at_random(count: int, seed: int) -> Iterator[Case]:
    """Shapes that nobody chose, of 4 KiB to 16 MiB in float32: what the table's even ones leave unseen."""
    rng = random.Random(seed)

    def size(least: float, most: float) -> int:
        return round(math.exp(rng.uniform(math.log(least), math.log(most))))

    for _ in range(count):
        jobs = rng.choice((OF_ROWS, OF_COLUMNS, OF_IMAGES))
        job = rng.choice(tuple(jobs))
        elements, axis, channels = size(1 << 10, 1 << 22), -1, 0
        shape: tuple[int, ...]
        if jobs is OF_IMAGES:
            channels, side, axis = 4 * size(1, 128), size(2, 40), rng.choice((1, -1))
            image = (channels, side, side) if axis == 1 else (side, side, channels)
            shape = (max(1, elements // prod(image)), *image)
        else:
            columns = size(2, min(elements // 2, 1 << 14))
            shape = (elements // columns, columns)
        dtype = rng.choice(("float32", "float32", "float16", "bfloat16"))
        if job == "batch_norm_inference":  # whose statistics are float32, and torch mixes these as it likes
            dtype = "float32"
        groups = math.gcd(channels, 32)
        yield Case(job, shape, jobs[job], 0.0, {"torch": 1.0}, axis, dtype, groups)


def pages(nbytes: int) -> Array:
    """Fresh memory, of huge pages where NumPy would ask for them.

    A process that keeps what is freed hands out pages that others have had, and these are small ones if it was not
    NumPy that had them first: a few per cent, by what was measured before.
    """
    if nbytes < HUGE or not hasattr(mmap, "MADV_HUGEPAGE"):
        return np.empty(nbytes, np.uint8)
    memory = mmap.mmap(-1, nbytes)
    with suppress(OSError):  # of a kernel that has none
        memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, np.uint8)


def aligned(shape: tuple[int, ...], dtype: np.dtype[Any], behind: int = 0) -> Array:
    """An uninitialized array that begins where a cache line does, or so many bytes behind that."""
    nbytes = prod(shape) * dtype.itemsize
    memory = pages(nbytes + LINE)
    start = (behind - memory.ctypes.data) % LINE
    return memory[start : start + nbytes].view(dtype).reshape(shape)


@dataclass(frozen=True)
class Data:
    """A case's arrays: `arrays` by argument name, and the results of x's shape.

    `sources` are those of x's size laid end to end, for the probes, and so are `results`.
    """

    arrays: dict[str, Array]
    sources: Array
    results: Array

    @classmethod
    def of(cls, case: Case) -> Data:
        rng = np.random.default_rng(0)
        dtype, names = case.numpy_dtype, ARGUMENTS[case.job]
        sources = aligned((case.ceiling.inputs, *case.shape), dtype, case.behind)
        arrays = {}
        for source, name in zip(sources, names[: case.ceiling.inputs], strict=True):
            source[...] = rng.standard_normal(case.shape, np.float32) + np.float32(0.5)
            arrays[name] = source
        for name in names[case.ceiling.inputs :]:
            # Of both signs, but for the variances; none near 0, so that every element takes part in the check.
            entries = rng.uniform(0.5, 1.5, case.channels)
            signs = 1 if name == "running_var" else rng.choice((-1, 1), case.channels)
            arrays[name] = (signs * entries).astype(dtype)
        results = aligned((case.ceiling.outputs, *case.shape), dtype, case.behind)
        results[...] = 0
        return cls(arrays, sources, results)
