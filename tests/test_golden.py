"""Golden digests: results have the bits that they had when tests/golden.txt was written, on every platform."""

import subprocess
import sys

import calls
import golden
import numpy as np
import pytest

import onepass as op


def test_the_generator_is_splitmix64():
    """The numbers that its authors' program prints for seed 0."""
    assert [hex(h) for h in golden.hashes(0, 3).tolist()] == [
        "0xe220a8397b1dcdaf",
        "0x6e789e6aa1b965f4",
        "0x6c45d188009454f",
    ]


def test_inputs():
    written = golden.read()
    for key, sha in golden.input_digests():
        assert written[key] == sha, key


def test_the_table_is_of_these_cases():
    assert set(golden.read()) == {*golden.CASES, *dict(golden.input_digests())}


@pytest.mark.parametrize("dtype", golden.DIGITS)
@pytest.mark.parametrize("name", calls.CALLS)
def test_digests(name, dtype, each_isa):
    written = golden.read()
    cases = [case for case, (n, *_, d) in golden.CASES.items() if (n, d) == (name, dtype)]
    assert cases
    for threads, case in zip((1, 2, 3) * len(cases), cases, strict=False):
        op.set_num_threads(threads)
        results = golden.results(case)
        assert not any(np.isnan(result.astype(np.float64)).any() for result in results), case
        assert golden.digest(results) == written[case], case


@pytest.mark.parametrize("name", calls.CALLS)
def test_what_was_written_is_right(name):
    for case, (n, shape, axis, groups, dtype) in golden.CASES.items():
        if n == name:
            call = calls.CALLS[name](shape, axis)
            arrays = golden.inputs(call, groups, dtype)
            assert not calls.faults(call, golden.results(case), arrays, golden.EPS), case


def test_a_digest_sees_one_bit():
    results = golden.results(next(iter(golden.CASES)))
    before = golden.digest(results)
    assert before == golden.digest([result.copy() for result in results])
    results[-1].view(np.uint32).flat[-1] ^= 1
    assert golden.digest(results) != before


def test_the_command_finds_what_differs(tmp_path):
    """On a copy of the table in which a digit is changed."""
    lines = golden.TABLE.read_text().splitlines(keepends=True)
    last = lines[-1]
    lines[-1] = ("1" if last[0] == "0" else "0") + last[1:]
    (tmp_path / "golden.txt").write_text("".join(lines))
    code = "import pathlib, sys, golden; golden.TABLE = pathlib.Path(sys.argv.pop()); sys.exit(golden.main())"
    here = golden.TABLE.parent
    for table, status, said in (
        (tmp_path / "golden.txt", 1, last.split()[1]),
        (golden.TABLE, 0, f"{len(lines)} digests, all as written"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", code, table], cwd=here, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout.strip()) == (status, said), done.stderr
