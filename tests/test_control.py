"""Threads, instruction sets, the configuration; the fork, the GIL, and many Python threads at once."""

import importlib.metadata
import os
import sys
import threading

import numpy as np
import pytest

import onepass as op

ISAS = ("baseline", "x86-64-v3", "x86-64-v4")


def run(python, code, **env):
    done = python("-W", "ignore", "-c", code, **env)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_set_num_threads():
    for n in (1, 2, 7, np.int64(3)):
        op.set_num_threads(n)
        assert op.get_num_threads() == n


def test_num_threads_is_put_back():
    op.set_num_threads(2)
    with op.num_threads(5):
        assert op.get_num_threads() == 5
        with op.num_threads(1):
            assert op.get_num_threads() == 1
        assert op.get_num_threads() == 5
    assert op.get_num_threads() == 2
    with pytest.raises(KeyError), op.num_threads(5):
        raise KeyError
    assert op.get_num_threads() == 2


@pytest.mark.parametrize("bad", [0, -1, -(2**31)])
def test_numbers_of_threads_that_are_too_small(bad):
    before = op.get_num_threads()
    with pytest.raises(ValueError, match=str(bad)):
        op.set_num_threads(bad)
    with pytest.raises(ValueError, match=str(bad)), op.num_threads(bad):
        pass
    assert op.get_num_threads() == before


@pytest.mark.parametrize("bad", ["2", 2.0, None, [2], 1j])
def test_numbers_of_threads_that_are_none(bad):
    before = op.get_num_threads()
    with pytest.raises(TypeError):
        op.set_num_threads(bad)
    with pytest.raises(TypeError), op.num_threads(bad):
        pass
    assert op.get_num_threads() == before


GET = "import onepass; print(onepass.get_num_threads())"


def test_default_threads_follow_the_environment(python):
    for n in ("1", "3", "6"):
        assert run(python, GET, OMP_NUM_THREADS=n) == n


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux sets the affinity")
def test_default_threads_follow_the_affinity(python):
    cpus = sorted(os.sched_getaffinity(0))
    assert 1 <= int(run(python, GET)) <= len(cpus)
    one = f"import os; os.sched_setaffinity(0, [{cpus[-1]}]); {GET}"
    assert run(python, one) == "1"
    assert run(python, one, OMP_NUM_THREADS="3") == "3"


def test_available_isas():
    available = op.available_isas()
    assert available[0] == "baseline"
    assert list(available) == [name for name in ISAS if name in available]  # the widest last
    assert op.isa() in available


@pytest.mark.skipif(not os.path.exists("/proc/cpuinfo"), reason="needs /proc/cpuinfo")
def test_every_instruction_set_of_the_processor_is_there():
    with open("/proc/cpuinfo") as file:
        flags = next((set(line.split()) for line in file if line.startswith("flags")), set())
    expected = {
        "baseline": True,
        "x86-64-v3": {"avx2", "fma", "f16c", "bmi1", "bmi2"} <= flags,
        "x86-64-v4": {"avx2", "fma", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512cd"} <= flags,
    }
    assert list(op.available_isas()) == [name for name, runs in expected.items() if runs]


def test_use_isa():
    for name in op.available_isas():
        op.use_isa(name)
        assert op.isa() == name


@pytest.mark.parametrize("bad", ["avx9", "", "v3", "BASELINE", "x86-64-v4 "])
def test_unknown_isas(bad):
    before = op.isa()
    with pytest.raises(ValueError, match=".*".join(op.available_isas())):
        op.use_isa(bad)
    assert op.isa() == before


@pytest.mark.parametrize("bad", [None, 1, b"baseline", ["baseline"]])
def test_isas_that_are_no_names(bad):
    before = op.isa()
    with pytest.raises(TypeError):
        op.use_isa(bad)
    assert op.isa() == before


SHOW = "import onepass; print(onepass.isa())"


def test_the_environment_chooses_the_isa(python):
    for name in op.available_isas():
        assert run(python, SHOW, ONEPASS_ISA=name) == name
    assert run(python, SHOW) == op.available_isas()[-1]


def test_an_unknown_isa_in_the_environment(python):
    done = python("-c", SHOW, ONEPASS_ISA="avx9")
    assert done.returncode != 0
    assert "avx9" in done.stderr
    assert "ONEPASS_ISA" in done.stderr
    for name in op.available_isas():
        assert name in done.stderr


def test_show_config(capsys):
    op.use_isa("baseline")
    op.set_num_threads(3)
    assert op.show_config() is None
    text = capsys.readouterr().out
    lines = {line.split(maxsplit=1)[0].lower(): line for line in text.splitlines() if line.strip()}
    for name, word in {
        "onepass": op.__version__,
        "numpy": np.__version__,
        "isa": "baseline",
        "threads": "3",
    }.items():
        assert word in lines[name], text
    for word in ("compiler", "flags", "openmp", "cache", *op.available_isas()):
        assert word in text.lower(), text
    op.use_isa(op.available_isas()[-1])
    op.show_config()
    assert (capsys.readouterr().out == text) == (len(op.available_isas()) == 1)


def test_what_takes_long_to_import_is_imported_when_asked_for(python):
    ask = "print('importlib.metadata' in set(sys.modules) - before, onepass.__version__)"
    done = python("-c", f"import sys, numpy; before = set(sys.modules); import onepass; {ask}")
    assert done.stdout.split() == ["False", op.__version__], done.stderr
    assert op.__version__ == importlib.metadata.version("onepass")
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = op.no_such_name


def test_the_environment_stands_in_for_the_first_cache(python):
    done = python("-c", "import onepass; onepass.show_config()", ONEPASS_FIRST_CACHE=str(77 << 10))
    assert "77 KiB" in done.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_child_computes(python):
    code = """
import os, threading
import numpy as np, onepass as op
x = np.random.default_rng(0).standard_normal((3001, 257)).astype(np.float32)
op.set_num_threads(4)
def results():
    m = op.moments(x)
    arrays = op.layer_norm(x), op.batch_norm(x, training=True), m.mean, m.m2
    return [array.tobytes() for array in arrays]
want = results()
for generation in range(3):
    child = os.fork()
    if child == 0:
        right = results() == want
        op.set_num_threads(4)   # a child may start threads of its own
        os._exit(0 if right and results() == want else 1)
    pid, status = os.waitpid(child, 0)
    assert status == 0, status
    assert results() == want
print("same")
"""
    assert run(python, code) == "same"


def test_many_python_threads_at_once(each_isa):
    rng = np.random.default_rng(0)
    xs = [rng.standard_normal((700 + i, 257)).astype(np.float32) for i in range(8)]

    def results(x):
        m = op.moments(x)
        return [op.layer_norm(x).tobytes(), op.batch_norm(x, training=True).tobytes(), m.mean.tobytes()]

    want = [results(x) for x in xs]
    got, start = [[] for _ in xs], threading.Barrier(len(xs))

    def work(i):
        start.wait()
        for k in range(8):
            op.set_num_threads(1 + (i + k) % 3)
            got[i].append(results(xs[i]) == want[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(xs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [[True] * 8] * len(xs)


CALLS = {
    "layer_norm": lambda x: op.layer_norm(x, out=x),
    "layer_norm over columns": lambda x: op.layer_norm(x, axis=0, out=x),
    "batch_norm": lambda x: op.batch_norm(x, training=True, out=x),
    "moments": op.moments,
    "standardize": lambda x: op.standardize(x, out=x),
    "min_max_scale": lambda x: op.min_max_scale(x, out=x),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_the_gil_is_released(call):
    """With a long switch interval, this thread runs during the call only if the call lets go of the GIL."""
    x = np.random.default_rng(0).standard_normal((4096, 1024), np.float32)
    inside = False

    def work(started):
        nonlocal inside
        started.set()
        inside = True
        call(x)
        inside = False

    interval = sys.getswitchinterval()
    sys.setswitchinterval(100)
    try:
        for _ in range(50):  # the system may be slow to wake this thread
            started = threading.Event()
            thread = threading.Thread(target=work, args=(started,))
            thread.start()
            started.wait()
            seen = inside
            thread.join()
            if seen:
                return
    finally:
        sys.setswitchinterval(interval)
    pytest.fail("no other Python thread ran during 50 calls")
