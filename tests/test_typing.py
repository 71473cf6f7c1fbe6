"""The types: mypy --strict takes a user's program, and objects to a wrong one."""

import os
import pathlib
import re

import pytest

import onepass as op

RIGHT = """\
import array
import pickle

import numpy as np
import numpy.typing as npt

import onepass as op

x: npt.NDArray[np.float32] = np.ones((8, 4), np.float32)
weight = np.ones(4, np.float32)
bias = np.zeros(4, np.float32)
mean, var = np.zeros(4, np.float32), np.ones(4, np.float32)

y: npt.NDArray[np.float32] = op.layer_norm(x)
y = op.layer_norm(x, weight, bias, axis=(0, 1), eps=1e-6, out=y)
y, mu, rstd = op.layer_norm(x, weight=weight, axis=-1, return_stats=True)
total: float = float(mu.sum() + rstd.sum())
y = op.layer_norm(array.array("f", [1.0, 2.0]))

y = op.rms_norm(x)
y = op.rms_norm(x, weight, axis=(0, 1), eps=None, out=y)
y, rstd = op.rms_norm(x, weight=weight, eps=1e-6, return_stats=True)
y, total_of_two = op.add_layer_norm(x, y, weight, bias, axis=-1, eps=0, out=x, sum_out=y)
y, total_of_two = op.add_rms_norm(x, residual=y, weight=weight, eps=None, sum_out=x)
dx, dweight, dbias = op.layer_norm_backward(y, x, weight, axis=-1, eps=1e-6)
dx, dweight = op.rms_norm_backward(y, x, weight=weight, eps=None)
half: npt.NDArray[np.float16] = x.astype(np.float16)
half = op.layer_norm(half, weight)

y = op.batch_norm(x, weight, bias, running_mean=mean, running_var=var)
y = op.batch_norm(x, training=True, momentum=0.01, running_ddof=0, axis=-1, eps=0)
y, mu, rstd = op.batch_norm(x, training=True, return_stats=True)

m: op.Moments = op.moments(x, axis=(0, 1))
m = m + op.moments(x) + op.Moments.merge([m, m])
deviation: npt.NDArray[np.float64] = np.asarray(m.std(ddof=1) + m.var(1) + m.mean + m.m2)
n: float = m.count
same: bool = m == pickle.loads(pickle.dumps(m))

y = op.standardize(x, axis=0, ddof=1, eps=1e-8, out=x)
y, m = op.standardize(x, return_moments=True)


def flags(stats: bool) -> None:
    op.layer_norm(x, return_stats=stats)
    op.rms_norm(x, return_stats=stats)
    op.batch_norm(x, training=True, return_stats=stats)
    op.standardize(x, return_moments=stats)


op.set_num_threads(2)
threads: int = op.get_num_threads()
with op.num_threads(1):
    name: str = op.isa()
for name in op.available_isas():
    op.use_isa(name)
op.show_config()
"""

# Every line but the first three is an error.
WRONG = """\
import numpy as np
import onepass as op
x = np.ones((8, 4), np.float32)
op.layer_norm(x, epsilon=1e-5)
op.layer_norm(x, eps="1e-5")
op.layer_norm(x, axis=1.5)
op.layer_norm(x, None, None, -1)
op.layer_norm()
s1: str = op.layer_norm(x)
y1, mean1 = op.layer_norm(x, return_stats=True)
op.batch_norm(x, training=True, axis=(0, 1))
op.batch_norm(x, momentum="high")
a1, b1 = op.moments(x)
op.moments(x).average
op.moments(x) + 1
op.Moments.merge(3)
op.standardize(x, 0)
op.set_num_threads("two")
op.use_isa(3)
op.rms_norms(x)
op.layer_norm(x, eps=None)
op.rms_norm(x, bias=x)
op.rms_norm(x, None, -1)
y2, mean2, rstd2 = op.rms_norm(x, return_stats=True)
op.add_rms_norm(x)
s2: str = op.add_rms_norm(x, x)
op.add_layer_norm(x, x, return_stats=True)
op.layer_norm_backward(x)
op.layer_norm_backward(x, x, eps=None)
dx2, dweight2, dbias2 = op.rms_norm_backward(x, x)
n1: str = op.get_num_threads()
"""


@pytest.fixture
def mypy(python, tmp_path):
    package = pathlib.Path(op.__file__).parent
    # An editable installation is no package to mypy unless it is shown where it lies.
    path = None if "site-packages" in package.parts else os.fspath(package.parent)

    def run(code):
        program = tmp_path / "program.py"
        program.write_text(code)
        return python(
            "-m",
            "mypy",
            "--strict",
            "--cache-dir",
            os.fspath(tmp_path / "cache"),
            "program.py",
            MYPYPATH=path,
        )

    return run


def test_a_right_program(mypy):
    done = mypy(RIGHT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_wrong_program(mypy):
    done = mypy(WRONG)
    assert done.returncode == 1, done.stdout + done.stderr
    objected = {int(line) for line in re.findall(r"^program\.py:(\d+): error", done.stdout, re.MULTILINE)}
    missed = set(range(4, len(WRONG.splitlines()) + 1)) - objected
    assert not missed, [WRONG.splitlines()[i - 1] for i in sorted(missed)]
    assert objected.isdisjoint({1, 2, 3}), done.stdout


def test_the_package_says_that_it_is_typed():
    assert (pathlib.Path(op.__file__).parent / "py.typed").exists()
