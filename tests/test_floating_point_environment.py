"""Another library's floating-point environment changes no result, and no call changes the environment.

Subnormal inputs and results are walked in each; that they are right in the ordinary one, test_hard_data.py says.
"""

import pathlib
import platform
import sys

import floating_point
import numpy as np
import pytest

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"),
    reason="the layout of fenv_t is known for glibc on x86-64 and AArch64",
)

PROGRAM = str(pathlib.Path(floating_point.__file__))


def assert_nothing_found(done):
    lines = done.stdout.splitlines()
    some = lines[:: len(lines) // 5 + 1]
    assert done.returncode == 0, f"{len(lines)} found, such as {some} {done.stderr[-500:]}"
    assert lines == [""], lines


@pytest.mark.parametrize("environment", ["flushing", "upward"])
def test_results(environment, python):
    """Under it; with threads that were started in it; and afterwards, with those threads still there."""
    assert_nothing_found(python(PROGRAM, environment))


def test_flags(python):
    """None is raised by a call, and none is lowered."""
    assert_nothing_found(python(PROGRAM, "flags"))


def test_environments_are_what_they_say(python):
    """What NumPy computes in them; in a process of its own, which ends with them."""
    code = f"""
import sys
sys.path.insert(0, {str(pathlib.Path(PROGRAM).parent)!r})
import floating_point as fp, numpy as np
ordinary, least = fp.control(), np.float32(1e-40)
def computed():
    a = np.full(64, least)
    return bool((a * np.float32(0.5) == 0).all()), bool((a == 0).all()), bool((1 + a > 1).all())
for name in sys.argv[1:]:
    fp.set_control(ordinary | fp.ENVIRONMENTS[name])
    got = computed()
    fp.set_control(ordinary)
    print(name, *got)
"""
    done = python("-c", code, "ordinary", "FTZ", "upward", *(["DAZ"] if "DAZ" in floating_point.BITS else []))
    found = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()}
    assert found["ordinary"] == ["False", "False", "False"], done.stderr
    assert found["FTZ"][0] == "True"
    assert found["upward"][2] == "True"
    assert found.get("DAZ", ["", "True"])[1] == "True"


def test_what_the_program_calls_subnormal_is():
    for _, call, arrays in floating_point.cases():
        x = call.groups(arrays["x"])[1::3]
        least = float(floating_point.finfo(x.dtype).smallest_normal)
        assert (np.abs(np.nan_to_num(x.astype(np.float64))) < least).all()
