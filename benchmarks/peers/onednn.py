"""oneDNN, through its C API: primitives with preallocated memory, in the layouts that the arrays have.

The library comes in the wheel onednn-cpu-gomp (2023.2.0 is oneDNN 3.2) and its headers in onednn-devel-cpu-gomp;
`onednn_peer.cpp` is compiled against them when it is first needed and kept in the user's cache directory.
3.2 has neither RMS nor group normalization (3.3 brought the latter), and nothing that takes moments alone.
Instance norm is batch norm of one sample that has all samples' channels, which is how torch does it as well.
Its backward primitives are handed the statistics that their forward pass kept; onepass computes them again.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from functools import cache
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import numpy as np
from cases import Array, Case, Data

from peers import Absent, Job

SOURCE = Path(__file__).parent.parent / "onednn_peer.cpp"

# The primitive, its propagation kind, and the arguments it is bound to.
FORWARD = ("x", "weight", "bias", "y")
STATISTICS = ("mean", "var")
GRADIENTS = ("x", "dy", "weight", *STATISTICS, "dx", "dweight", "dbias")
JOBS = {
    "layer_norm": ("layer_norm", "inference", FORWARD),
    "instance_norm": ("batch_norm", "training", FORWARD + STATISTICS),
    "batch_norm_inference": ("batch_norm", "inference", FORWARD + STATISTICS),
    "batch_norm": ("batch_norm", "training", FORWARD + STATISTICS),
    "layer_norm_backward": ("layer_norm", "backward", ("bias", *GRADIENTS)),
    "batch_norm_backward": ("batch_norm", "backward", GRADIENTS),
}


def installed(package: str, ending: str) -> Path:
    for file in distribution(package).files or ():
        if str(file).endswith(ending):
            return Path(str(file.locate())).resolve()
    raise Absent(f"the wheel {package} has no {ending} here")


@cache
def library() -> ctypes.CDLL:
    """The compiled bridge; raises `Absent` where it cannot be built."""
    headers = installed("onednn-devel-cpu-gomp", "include/oneapi/dnnl/dnnl.h").parents[2]
    dnnl = installed("onednn-cpu-gomp", "libdnnl.so.3")
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        raise Absent("there is no C++ compiler to build onednn_peer.cpp with")
    flags = ["-O2", "-std=c++17", "-fPIC", "-shared", "-fopenmp", f"-I{headers}"]
    link = [str(dnnl), f"-Wl,-rpath,{dnnl.parent}"]
    key = hashlib.sha256("\0".join([SOURCE.read_text(), compiler, *flags, *link]).encode()).hexdigest()
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "onepass-benchmarks"
    built = folder / f"onednn_peer-{key[:16]}.so"
    if not built.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            half = Path(scratch) / built.name
            command = [*compiler.split(), *flags, str(SOURCE), *link, "-o", str(half)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise Absent(f"onednn_peer.cpp does not compile: {done.stderr.strip()[-200:]}")
            half.replace(built)  # complete or not there, whoever else builds it
    bridge = ctypes.CDLL(str(built))
    bridge.onednn_error.restype = ctypes.c_char_p
    bridge.onednn_implementation.restype = ctypes.c_char_p
    bridge.onednn_implementation.argtypes = [ctypes.c_void_p]
    bridge.onednn_run.argtypes = [ctypes.c_void_p]
    bridge.onednn_free.argtypes = [ctypes.c_void_p]
    bridge.onednn_plan.restype = ctypes.c_void_p
    bridge.onednn_plan.argtypes = [
        *(ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p),
        *(ctypes.c_float, ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p),
    ]
    return bridge


class Plan:
    """A primitive bound to arrays, which it keeps alive."""

    def __init__(self, case: Case, x: Array, operation: str, propagation: str, arrays: dict[str, Array]):
        self.bridge, self.arrays = library(), arrays
        dims = (ctypes.c_int64 * x.ndim)(*x.shape)
        strides = (ctypes.c_int64 * x.ndim)(*(stride // x.itemsize for stride in x.strides))
        names = (ctypes.c_char_p * len(arrays))(*(name.encode() for name in arrays))
        data = (ctypes.c_void_p * len(arrays))(*(array.ctypes.data for array in arrays.values()))
        given = operation == "batch_norm" and propagation == "inference"
        self.handle = ctypes.c_void_p(
            self.bridge.onednn_plan(
                *(operation.encode(), propagation.encode(), case.dtype.encode(), x.ndim, dims, strides),
                *(case.eps, given, len(arrays), names, data),
            )
        )
        if not self.handle:
            raise Absent(f"{self.bridge.onednn_error().decode()} for {case.dtype}")

    @property
    def implementation(self) -> str:
        name: bytes = self.bridge.onednn_implementation(self.handle)
        return name.decode()

    def run(self) -> Any:
        status = self.bridge.onednn_run(self.handle)
        if status:
            raise RuntimeError(f"oneDNN status {status}")

    def __del__(self) -> None:
        if getattr(self, "handle", None):
            self.bridge.onednn_free(self.handle)


def laid_out(case: Case, array: Array) -> Array:
    """As oneDNN names the dimensions: channels last for layer norm, second for batch norm, whatever the strides."""
    if case.job == "instance_norm":
        return array.reshape(1, -1, *case.shape[2:])
    return array if case.job.startswith("layer") else np.moveaxis(array, case.axis, 1)


def job(case: Case, data: Data, threads: int) -> Job:
    library().onednn_set_threads(threads)
    operation, propagation, names = JOBS[case.job]
    x = data.arrays["x"]
    samples = case.shape[0] if case.job == "instance_norm" else 1

    def entries(name: str) -> Array:
        """An argument that is not of x's size; float32 to oneDNN, whatever x is."""
        channels = samples * case.channels
        if name in data.arrays:
            return np.tile(data.arrays[name].astype(np.float32), samples)
        if name not in STATISTICS:  # gradients to be; the bias, on which none depends
            return np.zeros(channels, np.float32)
        if propagation == "backward":
            axis = case.axis % x.ndim
            layer = operation == "layer_norm"
            reduced = (axis,) if layer else tuple(a for a in range(x.ndim) if a != axis)
            return np.ascontiguousarray(getattr(x, name)(axis=reduced), np.float32)
        running = data.arrays.get(f"running_{name}")
        return np.zeros(channels, np.float32) if running is None else running

    whole = {"x": x, "dy": data.arrays.get("dy"), "y": np.empty_like(x), "dx": np.empty_like(x)}
    arrays = {name: whole[name] if name in whole else entries(name) for name in names}
    plan = Plan(case, laid_out(case, x), operation, propagation, arrays)
    wanted = ("dx", "dweight", "dbias") if propagation == "backward" else ("y",)
    return Job(plan.run, lambda _: [arrays[name] for name in wanted], kernel=plan.implementation)
