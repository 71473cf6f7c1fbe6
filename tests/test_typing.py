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
y = op.batch_norm(x, training=True, mask=x[:, 0] > 0) + op.group_norm(x, 2, mask=None)
y, mu, rstd = op.instance_norm(x, mask=x > 0, return_stats=True)
dx, dweight, dbias = op.batch_norm_backward(y, x, weight, running_mean=mean, running_var=var, training=False)
dx, dweight, dbias = op.group_norm_backward(y, x, 2, weight, axis=-1, eps=0, mask=None)
dx, dweight, dbias = op.instance_norm_backward(dx, x)
y = dx + dweight * dbias

m: op.Moments = op.moments(x, axis=(0, 1))
m = m + op.moments(x) + op.Moments.merge([m, m])
deviation: npt.NDArray[np.float64] = np.asarray(m.std(ddof=1) + m.var(1) + m.mean + m.m2)
n: float | npt.NDArray[np.float64] = m.count
m = op.moments(x, mask=x > 0, weights=np.ones(8), skipna=True)
same: bool = m == pickle.loads(pickle.dumps(m))

y = op.standardize(x, axis=0, ddof=1, eps=1e-8, out=x)
y, m = op.standardize(x, return_moments=True)
y = op.min_max_scale(x, axis=(0, 1), feature_range=(-1, 1.5), out=x)
y = op.min_max_scale(x, feature_range=[0, 255])

layer: op.LayerNorm = op.LayerNorm((8, 4), eps=1e-6, bias=False, dtype=np.float64)
y = layer(x, out=y)
y = op.RMSNorm(4, eps=None, dtype="float32")(x)
batch = op.BatchNorm(4, momentum=0.01, running_ddof=0, axis=-1)
batch.training = True
y = batch(x, mask=None)
y = op.GroupNorm(2, channels=4)(x) + op.InstanceNorm(4, axis=2, dtype=np.dtype(np.float16))(x)
state: dict[str, npt.NDArray[np.float32]] = batch.state_dict()
batch.load_state_dict({"norm." + name: value for name, value in state.items()}, prefix="norm.")
batch.weight[:] = batch.running_var


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
op.moments(x, 0, None)
op.batch_norm(x, None, None, None)
op.batch_norm_backward(x)
op.batch_norm_backward(x, x, bias=x)
op.batch_norm_backward(x, x, None, None)
dx1, dw1 = op.batch_norm_backward(x, x)
op.group_norm_backward(x, x)
op.group_norm_backward(x, x, "2")
op.instance_norm_backward(x, x, 2, x)
op.standardize(x, 0)
op.min_max_scale(x, 0)
op.min_max_scale(x, feature_range=1.0)
s3: str = op.min_max_scale(x)
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
op.LayerNorm(4, 1e-5)
op.LayerNorm("4")
op.RMSNorm(4, bias=True)
op.BatchNorm((4,))
op.GroupNorm(4)
op.InstanceNorm(4, momentum=0.1)
op.LayerNorm(4)(x, mask=x)
op.BatchNorm(4)(x, return_stats=True)
op.BatchNorm(4).load_state_dict([x])
s3: str = op.GroupNorm(1, 4)(x)
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
