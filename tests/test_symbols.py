"""The walls of cpp/: kernels of one instruction set share no symbol with another's, and layers keep apart.

An inline function that is compiled with AVX flags in one unit and without in another is merged by the linker;
an old processor then dies on it. So every symbol that a kernel's object offers lies in the namespace of its
instruction set, and none is weak.
"""

import concurrent.futures
import functools
import os
import pathlib
import platform
import re
import shutil
import subprocess

import pytest

CPP = pathlib.Path(__file__).resolve().parents[1] / "cpp"
KERNELS = sorted(CPP.glob("kernels/*.cpp"))
X86 = platform.machine().lower() in ("x86_64", "amd64")

# As CMakeLists.txt has them.
V3 = ["-mavx2", "-mfma", "-mf16c", "-mbmi", "-mbmi2"]
FLAGS = {
    "baseline": [],
    "x86-64-v3": V3,
    "x86-64-v4": [*V3, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512cd"],
}
NAMESPACES = {"baseline": "baseline", "x86-64-v3": "v3", "x86-64-v4": "v4"}

each_isa = pytest.mark.parametrize(
    "isa",
    [
        isa if isa == "baseline" or X86 else pytest.param(isa, marks=pytest.mark.skip("not x86"))
        for isa in FLAGS
    ],
)


# A pointer to the runtime's handler of exceptions, the same in every unit: no code that could be merged.
PERSONALITY = "DW.ref.__gxx_personality_v0"


@functools.cache
def tools():
    """The compiler, and how to have symbols without the code, which takes most of the time: (flags, nm)."""
    compiler = os.environ.get("CXX") or next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))))
    if "clang" not in output(compiler, "--version").lower():
        plugin = output(compiler, "-print-file-name=liblto_plugin.so").strip()
        if os.path.isfile(plugin):
            return compiler, ["-flto", "-fno-fat-lto-objects"], ["nm", "--plugin", plugin]
    return compiler, [], ["nm"]


def output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def compile_unit(source, isa, to):
    """Unoptimized, so that no function disappears into its callers."""
    compiler, without_code, _ = tools()
    flags = [
        *without_code,
        "-std=c++17",
        "-O0",
        "-DONEPASS_INLINE=inline",
        "-DONEPASS_FLAT=",
        "-ffp-contract=off",
        f"-DONEPASS_ISA={NAMESPACES[isa]}",
        f"-I{CPP}",
        *FLAGS[isa],
    ]
    output(compiler, *flags, "-c", str(source), "-o", str(to))
    return to


def symbols_of(unit, isa):
    """The symbols outside the instruction set's namespace or open to merging; and whether any lies inside."""
    _, _, nm = tools()
    lines = output(*nm, "-C", "--defined-only", str(unit)).splitlines()
    symbols = [tuple(line.split(maxsplit=2)[1:]) for line in lines]
    own = f"onepass::{NAMESPACES[isa]}::"
    offered = [(kind, name) for kind, name in symbols if kind.isupper() or kind in "uvw"]
    strays = [symbol for symbol in offered if symbol[0] in "WVuvw" or not symbol[1].startswith(own)]
    return [symbol for symbol in strays if symbol[1] != PERSONALITY], len(offered) > len(strays)


def test_there_are_kernels():
    assert KERNELS


@pytest.fixture(scope="module")
def units(tmp_path_factory):
    """Every unit by source and instruction set, compiled side by side: futures of the paths."""
    folder = tmp_path_factory.mktemp("units")
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        yield {
            (source, isa): pool.submit(compile_unit, source, isa, folder / f"{source.stem}-{isa}.o")
            for isa in (FLAGS if X86 else ["baseline"])
            for source in KERNELS
        }
        pool.shutdown(cancel_futures=True)


@each_isa
@pytest.mark.parametrize("source", KERNELS, ids=lambda source: source.name)
def test_symbols_lie_in_the_instruction_sets_namespace(source, isa, units):
    found, offers_something = symbols_of(units[source, isa].result(), isa)
    assert not found
    assert offers_something


@pytest.mark.parametrize(
    "code",
    [
        "inline int shared(int n) { return n + 1; }\nint onepass::baseline::use(int n) { return shared(n); }",
        "template <class T> T shared(T n) { return n; }\n"
        "int onepass::baseline::use(int n) { return shared(n); }",
        "struct Shared { int get() { return 1; } };\n"
        "int onepass::baseline::use(int) { return Shared().get(); }",
        "namespace onepass::baseline { inline int shared() { return 1; } }\n"
        "int onepass::baseline::use(int) { return shared(); }",
        "int shared(int n) { return n; }",
    ],
)
def test_what_the_test_above_would_catch(code, tmp_path):
    source = tmp_path / "bad.cpp"
    source.write_text(f"namespace onepass::baseline {{ int use(int); }}\n{code}\n")
    found, _ = symbols_of(compile_unit(source, "baseline", tmp_path / "bad.o"), "baseline")
    assert any("shared" in name or "Shared" in name for _, name in found)


def code_of(path):
    """A file without its comments."""
    return re.sub(r"//[^\n]*|/\*.*?\*/", "", path.read_text(), flags=re.DOTALL)


def sources(*folders):
    found = [path for folder in folders for path in sorted((CPP / folder).rglob("*.[ch]pp"))]
    assert found, folders
    return found


def naming(pattern, *folders):
    return [
        str(path.relative_to(CPP))
        for path in sources(*folders)
        if re.search(pattern, code_of(path), re.IGNORECASE)
    ]


LAYERS = ("simd", "kernels", "dispatch", "plan", "bindings")  # each includes only itself and those before it


def test_every_folder_is_a_layer():
    assert {path.name for path in CPP.iterdir() if path.is_dir()} == set(LAYERS)


def test_only_the_plan_knows_openmp():
    assert not naming(
        r"#\s*include\s*<omp|#\s*pragma\s+omp|\bomp_|\b_OPENMP\b", "simd", "kernels", "dispatch", "bindings"
    )
    assert naming(r"#\s*pragma\s+omp", "plan")


def test_only_the_bindings_know_python():
    assert not naming(r"\bpython|\bpybind|\bPy_|\bPy[A-Z]|\bnumpy", "simd", "kernels", "dispatch", "plan")
    assert naming("pybind11", "bindings")


def test_layers_include_only_what_is_below():
    for i, layer in enumerate(LAYERS):
        for path in sources(layer):
            for included in re.findall(r'#\s*include\s*"([^"]+)"', code_of(path)):
                assert included.split("/")[0] in LAYERS[: i + 1], (
                    f"{path.relative_to(CPP)} includes {included}"
                )


def test_kernels_use_no_containers_or_algorithms():
    allowed = {"cstddef", "cstdint", "cmath", "immintrin.h", "arm_neon.h"}
    for path in sources("simd", "kernels"):
        assert set(re.findall(r"#\s*include\s*<([^>]+)>", code_of(path))) <= allowed, path.name
