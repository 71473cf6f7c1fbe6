"""What the tests share: element types, instruction sets, numbers of threads, other processes."""

import os
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, settings

import onepass as op

# Examples of properties: those of the suite, the same ones in every run, or others each time and many more of them.
settings.register_profile(
    "suite",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=30,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.register_profile("search", settings.get_profile("suite"), derandomize=False, max_examples=2000)
settings.load_profile("suite")


@pytest.fixture(autouse=True)
def settings_put_back():
    """A test that fails halfway must not change what the others test."""
    isa, threads = op.isa(), op.get_num_threads()
    yield
    op.use_isa(isa)
    op.set_num_threads(threads)


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def dtype(request):
    return np.dtype(request.param)


@pytest.fixture(params=[np.float16, ml_dtypes.bfloat16], ids=["float16", "bfloat16"])
def half(request):
    return np.dtype(request.param)


@pytest.fixture(params=op.available_isas())
def each_isa(request):
    op.use_isa(request.param)
    return request.param


@pytest.fixture(params=[1, 2, 3, 5], ids="threads={}".format)
def each_threads(request):
    op.set_num_threads(request.param)
    return request.param


@pytest.fixture
def python(tmp_path):
    """Runs `python *args` away from the repository; an `env` value of None unsets."""

    def run(*args, timeout=120, **env):
        merged = {**os.environ, "OMP_NUM_THREADS": None, "ONEPASS_ISA": None, **env}
        return subprocess.run(
            [sys.executable, *args],
            env={name: value for name, value in merged.items() if value is not None},
            cwd=tmp_path,
            timeout=timeout,
            capture_output=True,
            text=True,
            check=False,
        )

    return run
