"""Forks, pools, other OpenMP runtimes and regions, many Python threads, quotas, interrupts: same results, and no hang.

A hang is a process that does not end in time. The settings of threads themselves are tested in test_control.py.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import sysconfig

import openmp_peers
import pytest

import onepass as op
from onepass import _core

TESTS = pathlib.Path(__file__).parent
ROOT = TESTS.parent
PEERS = str(pathlib.Path(openmp_peers.__file__))
# Where processors are shared, waiting threads that spin keep those from running that they wait for.
PASSIVE = {"OMP_WAIT_POLICY": "passive"}

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has it")
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")


def run(python, code, timeout=120, **env):
    """What a program prints that has `check`: calls of every function whose results have to be the serial ones."""
    head = f"import sys; sys.path.insert(0, {str(TESTS)!r})\nimport openmp_peers, onepass as op\n"
    done = python("-W", "ignore", "-c", head + code, timeout=timeout, **{**PASSIVE, **env})
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.split()


@forks
def test_every_function_in_a_forked_child(python):
    """The parent used threads; the child must not wait for them, may ask for its own, and changes nothing of the parent."""
    code = """
import os
check = openmp_peers.functions()
check()
child = os.fork()
if child == 0:
    alone = op.get_num_threads()
    check()
    op.set_num_threads(3)
    check()
    grandchild = os.fork()
    if grandchild == 0:
        check()
        os._exit(0)
    _, status = os.waitpid(grandchild, 0)
    os._exit(0 if (status, alone) == (0, 1) else 1)
_, status = os.waitpid(child, 0)
check()
print(status, op.get_num_threads())
"""
    assert run(python, code) == ["0", "2"]


@forks
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_pools(method, python, tmp_path):
    program = tmp_path / "pool.py"
    program.write_text(f"""
import multiprocessing, sys
sys.path.insert(0, {str(TESTS)!r})
import openmp_peers, onepass as op

def work(i):
    openmp_peers.functions()()
    op.set_num_threads(1 + i)
    return op.get_num_threads() >= 1

if __name__ == "__main__":
    check = openmp_peers.functions()
    check()
    with multiprocessing.get_context({method!r}).Pool(2) as pool:
        assert pool.map_async(work, range(4)).get(100) == [True] * 4
    check()
    print(op.get_num_threads())
""")
    done = python("-W", "ignore", str(program), **PASSIVE)
    assert (done.stdout.split(), done.returncode) == (["2"], 0), done.stderr[-2000:]


def test_set_num_threads_is_the_processs(python):
    """Another Python thread sees it; another process does not. The docstring says so."""
    code = """
import subprocess, threading
op.set_num_threads(5)
seen = []
thread = threading.Thread(target=lambda: (seen.append(op.get_num_threads()), op.set_num_threads(3)))
thread.start()
thread.join()
other = subprocess.run([sys.executable, "-c", "import onepass; print(onepass.get_num_threads())"], capture_output=True)
print(*seen, op.get_num_threads(), int(other.stdout))
"""
    assert run(python, code, OMP_NUM_THREADS="7") == ["5", "3", "7"]
    assert "process" in op.set_num_threads.__doc__


def test_eight_python_threads_at_once(python):
    code = """
import threading
checks, failures, start = [openmp_peers.functions() for _ in range(2)], [], threading.Barrier(8)
def work(i):
    start.wait()
    try:
        for _ in range(3):
            checks[i % 2]()
    except BaseException as error:
        failures.append(error)
threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(failures), *failures[:1])
"""
    assert run(python, code) == ["0"]


@linux
def test_short_lived_python_threads_leave_nothing_behind(python):
    """Each has OpenMP threads and scratch memory of its own; both end with it."""
    code = """
import os, threading, leaks
import numpy as np
x = np.ones((400, 400), np.float32)
op.set_num_threads(3)
def work():
    thread = threading.Thread(target=lambda: (op.layer_norm(x, axis=0), op.moments(x)))
    thread.start()
    thread.join()
grown = leaks.growth(work, 300)
print(grown < 8 << 20, len(os.listdir("/proc/self/task")) < 20)
"""
    assert run(python, code) == ["True", "True"]


@linux
def test_inside_another_openmp_region(python):
    done = python(PEERS, "nested", **PASSIVE)
    assert (done.stdout, done.returncode) == ("right\n", 0), done.stderr[-2000:]


@pytest.mark.parametrize("order", ["first", "last"])
@pytest.mark.parametrize("peer", ["torch", "sklearn"])
def test_beside_another_openmp_runtime(peer, order, python):
    pytest.importorskip(peer)
    done = python("-W", "ignore", PEERS, peer, order, **PASSIVE)
    assert (done.stdout, done.returncode) == ("right\n", 0), done.stderr[-2000:]


# What /proc/self/cgroup says the process lies in, the files below /sys/fs/cgroup, and the quota they come to.
CGROUPS = {
    "none": (None, {}, 0),
    "unlimited": ("0::/", {"cpu.max": "max 100000"}, 0),
    "v2": ("0::/", {"cpu.max": "250000 100000"}, 2.5),
    "less than one": ("0::/", {"cpu.max": "5000 50000"}, 0.1),
    "the parent's": ("0::/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "150000 100000"}, 1.5),
    "the smallest": ("0::/a/b", {"a/b/cpu.max": "300000 100000", "a/cpu.max": "200000 100000"}, 2),
    "another group's": ("0::/a", {"b/cpu.max": "100000 100000"}, 0),
    "v1": (
        "3:cpuset:/x\n2:cpuacct,cpu:/a\n1:name=systemd:/",
        {"cpu/a/cpu.cfs_quota_us": "350000", "cpu/a/cpu.cfs_period_us": "100000"},
        3.5,
    ),
    "v1 unlimited": ("1:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 0),
    "nonsense": ("0::/\n\nwhat", {"cpu.max": "many few"}, 0),
}


@pytest.mark.parametrize(("lies_in", "files", "quota"), CGROUPS.values(), ids=CGROUPS)
def test_cgroup_quotas(lies_in, files, quota, tmp_path):
    files = {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    if lies_in:
        files["proc/self/cgroup"] = lies_in
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    assert _core.cgroup_quota(str(tmp_path)) == quota


def may_mount():
    """Can this process see other files in the places of the system's? (root can, mostly)"""
    if sys.platform != "linux" or not shutil.which("unshare"):
        return False
    command = ["unshare", "-m", "mount", "--bind", "/tmp", "/sys/fs/cgroup"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not may_mount(), reason="may not mount a folder over /sys/fs/cgroup")
@pytest.mark.parametrize(("quota", "most"), [("100000 100000", 1), ("150000 100000", 2), ("max 100000", 999)])
def test_default_threads_follow_the_quota(quota, most, tmp_path):
    """The real default, under a quota that a folder in the place of /sys/fs/cgroup makes up."""
    (tmp_path / "cpu.max").write_text(quota)
    (tmp_path / "get.py").write_text("import onepass; print(onepass.get_num_threads())")
    shell = f"mount --bind {tmp_path} /sys/fs/cgroup && exec {sys.executable} {tmp_path}/get.py"
    env = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", shell], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == min(len(os.sched_getaffinity(0)), most)


@pytest.mark.skipif(not hasattr(os, "kill") or sys.platform == "win32", reason="there are no signals")
@pytest.mark.parametrize("threads", [1, 2])
def test_an_interrupt_during_a_call(threads, python):
    """It is raised when the call returns: the result is whole, and so is what comes after."""
    code = f"""
import os, signal, threading, time
import numpy as np
signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell's job in the background ignores
op.set_num_threads({threads})
block = np.random.default_rng(0).standard_normal((500, 4096), np.float32)
x, want = np.broadcast_to(block, (20, 500, 4096)), op.layer_norm(block)
interrupted = during = 0
while not during:
    out = np.full(x.shape, 7, np.float32)
    def interrupt():
        while out[0, 0, 0] == 7:  # nothing has been written
            time.sleep(0)
        global unfinished
        unfinished = out[-1, -1, -1] == 7 or out[9, -1, -1] == 7
        os.kill(os.getpid(), signal.SIGINT)
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        op.layer_norm(x, out=out)
        thread.join()
        time.sleep(1)
    except KeyboardInterrupt:
        interrupted += 1
    thread.join()
    assert (out == want).all()
    assert interrupted, "no interrupt"
    during = unfinished
assert (op.layer_norm(block) == want).all()
print("interrupted")
"""
    assert run(python, code) == ["interrupted"]


FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


def test_the_extension_says_that_it_needs_no_gil(python):
    source = (ROOT / "cpp" / "bindings" / "module.cpp").read_text()
    assert re.search(r"^PYBIND11_MODULE\(_core, \w+, .*mod_gil_not_used\(\)", source, re.MULTILINE)
    if FREE_THREADED:  # (others' modules say nothing) importing what does not say so switches the lock on
        assert run(python, "print(sys._is_gil_enabled())", PYTHON_GIL=None) == ["False"]
