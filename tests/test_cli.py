"""The command line: info always, demo and bench with the extra, one line without it."""

import json
import shutil
import sysconfig

import numpy as np
import pytest

import onepass as op

# What the extra [demo] brings.
EXTRA = ("click", "rich", "matplotlib", "sklearn")

HIDE = """\
import runpy, sys
for name in sys.argv.pop(1).split(","):
    sys.modules[name] = None   # cannot be imported, and find_spec does not find it
sys.argv[0] = "onepass"
runpy.run_module("onepass", run_name="__main__")
"""


def hidden(python, modules, *args):
    """`python -m onepass *args` where the modules are not installed."""
    return python("-c", HIDE, ",".join(modules), *args)


def test_info(python):
    done = python("-m", "onepass", "info", ONEPASS_ISA="baseline", OMP_NUM_THREADS="3")
    assert done.returncode == 0, done.stderr
    assert done.stdout == python("-c", "import onepass; onepass.show_config()", ONEPASS_ISA="baseline",
                                 OMP_NUM_THREADS="3").stdout  # fmt: skip
    for word in (op.__version__, np.__version__, "baseline"):
        assert word in done.stdout


def test_the_command_is_installed(python):
    command = shutil.which("onepass", path=sysconfig.get_path("scripts"))
    assert command is not None
    code = "import subprocess, sys; sys.exit(subprocess.run([sys.argv[1], 'info']).returncode)"
    done = python("-c", code, command)
    assert done.returncode == 0, done.stderr
    assert op.__version__ in done.stdout


def test_info_without_the_extra(python):
    done = hidden(python, EXTRA, "info")
    assert done.returncode == 0, done.stderr
    assert np.__version__ in done.stdout


@pytest.mark.parametrize("command", ["demo", "bench"])
@pytest.mark.parametrize("modules", [EXTRA, ("click",), ("rich",), ("click", "rich")], ids=",".join)
def test_what_to_install(python, command, modules):
    done = hidden(python, modules, command)
    assert done.returncode != 0
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "pip install 'onepass[demo]'" in done.stderr


@pytest.mark.parametrize("module", ["matplotlib", "sklearn"])
def test_what_to_install_for_the_demo(python, module):
    done = hidden(python, (module,), "demo")
    assert done.returncode != 0
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "pip install 'onepass[demo]'" in done.stderr


def test_importing_onepass_needs_numpy_alone(python):
    code = """
import sys
before = set(sys.modules)
import onepass
new = {name.split(".")[0] for name in set(sys.modules) - before}
print(*sorted(name for name in new if name not in sys.stdlib_module_names))
"""
    done = python("-c", code)
    assert done.stdout.split() == ["numpy", "onepass"], done.stderr


@pytest.mark.parametrize(
    "args", [("nonsense",), ("info", "nonsense"), ("--nonsense",), ("demo", "--nonsense")]
)
def test_wrong_arguments(python, args):
    done = python("-m", "onepass", *args)
    assert done.returncode not in (0, 1)
    assert "nonsense" in done.stderr
    assert "Traceback" not in done.stderr


def test_demo(python, tmp_path):
    for module in EXTRA:
        pytest.importorskip(module)
    picture = tmp_path / "picture.png"
    done = python("-m", "onepass", "demo", "--output", str(picture), MPLBACKEND="agg", COLUMNS="200")
    assert done.returncode == 0, done.stdout + done.stderr
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size > 10_000
    assert picture.name in done.stdout
    for word in ("mean", "variance", "padd", "float64"):
        assert word in done.stdout.lower(), word


def test_bench(python, tmp_path):
    for module in ("click", "rich"):
        pytest.importorskip(module)
    file = tmp_path / "figures.json"
    done = python("-m", "onepass", "bench", "--quick", "--json", str(file), timeout=240, COLUMNS="200")
    assert done.returncode == 0, done.stdout + done.stderr
    for word in ("layer_norm", "batch_norm", "numpy"):
        assert word in done.stdout.lower(), word
    assert json.loads(file.read_text())
