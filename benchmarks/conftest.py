"""What the benchmarks share: the cases' fixtures, and the ratios printed when the session ends.

pytest-benchmark measures onepass, NumPy and the probes of the ceiling one after the other, for comparing a
figure with the same figure of an older commit (`--benchmark-autosave`, `--benchmark-compare`). Ratios between
them come from `onepass.bench.measure`, which lets them take turns. No timing is asserted.
"""

from collections.abc import Callable, Iterator

import pytest

import onepass as op
from onepass import bench, timing

THREADS = (1, 2)
RATIOS = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[RATIOS] = []
    timing.keep_freed_memory()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes `case`, `threads` and `who` runs for all CASES of its module."""
    if "case" not in metafunc.fixturenames:
        return
    combinations = []
    for case in metafunc.module.CASES:
        probes = {
            probe for sweep in case.sweeps for probe in (("copy", "stream") if sweep == "copy" else ("read",))
        }
        for threads in THREADS:
            for who in ("onepass", "NumPy", *sorted(probes)):
                shape = "x".join(map(str, case.shape))
                combinations.append(pytest.param(case, threads, who, id=f"{shape}-{threads}-{who}"))
    metafunc.parametrize(("case", "threads", "who"), combinations)


@pytest.fixture(autouse=True)
def threads_put_back() -> Iterator[None]:
    with op.num_threads(op.get_num_threads()):
        yield


@pytest.fixture
def ratios(request: pytest.FixtureRequest) -> list[str]:
    """The lines that are printed at the end."""
    return request.config.stash[RATIOS]


@pytest.fixture
def side_by_side(benchmark, ratios: list[str]) -> Callable[[bench.Case, int, str], None]:
    """Measure one of those who take part in a case; with onepass's turn come the ratios."""

    def run(case: bench.Case, threads: int, who: str) -> None:
        title = f"{case.label}, {' x '.join(map(str, case.shape))}, {threads} thread{'s'[: threads > 1]}"
        benchmark.group = title
        op.set_num_threads(threads)
        benchmark(bench.actions(case, peers=("NumPy",))[who])
        if who != "onepass":
            return
        row = bench.measure(case, threads, peers=("NumPy",))
        benchmark.extra_info["fraction of ceiling"] = row.fraction.median
        benchmark.extra_info["NumPy / onepass"] = row.ratios["NumPy"].median
        ratios.append(
            f"{title}: {bench.ratio_text(row.fraction, 2, '')} of the ceiling ({' + '.join(case.sweeps)}), "
            f"{row.gigabytes_per_second:.1f} GB/s, {bench.ratio_text(row.ratios['NumPy'])} NumPy's speed"
        )

    return run


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.stash[RATIOS]:
        terminalreporter.section(f"side by side: medians of interleaved rounds, {op.isa()}, float32")
        for line in config.stash[RATIOS]:
            terminalreporter.write_line(line)
        terminalreporter.write_line("~: quartiles over the rounds more than 15 % apart")
