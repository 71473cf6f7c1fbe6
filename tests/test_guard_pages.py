"""No function touches memory beside its arrays: guard pages directly before and after each of them."""

import pathlib
import signal
import sys

import calls
import pytest

import onepass as op

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the helper speaks to Linux")

PROGRAM = str(pathlib.Path(__file__).with_name("guard_pages.py"))


@pytest.mark.parametrize("dtype", calls.DTYPES)
@pytest.mark.parametrize("isa", op.available_isas())
def test_every_function(isa, dtype, python):
    done = python(PROGRAM, isa, dtype)
    lines = done.stdout.splitlines()
    ended = signal.strsignal(-done.returncode) if done.returncode < 0 else done.stderr
    assert done.returncode == 0, f"{lines[-1:]}: {ended}"
    assert lines[-1] == "untouched"
    assert {line.split(" (")[0] for line in lines[:-1]} == set(calls.CALLS)


@pytest.mark.parametrize("how", ["behind", "before", "write"])
def test_a_touch_ends_the_process(how, python):
    done = python(PROGRAM, "touch", how)
    assert (done.stdout, done.returncode) == ("21.0\n", -signal.SIGSEGV), done.stderr
