"""`onepass demo`: the main job on real data, checked, timed and drawn.

The wine data of scikit-learn (178 wines, 13 measurements whose scales differ a thousandfold; Forina et al.,
1988, UCI Machine Learning Repository) is normalized both ways:

    by column   batch_norm(x, training=True)   one measurement across wines
    by row      layer_norm(x)                  all measurements of one wine

    y = (x - mean) / sqrt(var + eps),  var = sum((x - mean)^2) / n

The results are checked against the same formula in float64 NumPy; `run` returns 1 where a check fails.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import onepass as op
from onepass import bench, timing
from onepass._types import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from rich.console import Console

EPS = 1e-5
# The promise of the tests: the error of y within 8 units of eps/2 * max|y| of its group.
ALLOWED_UNITS = 8.0
SAMPLE = 0
# Okabe & Ito (2008), told apart by the colour-blind too.
BEFORE, BY_COLUMN, BY_ROW = "#5a5a5a", "#0072b2", "#d55e00"
# (shape, what it is, the case of `bench` that is timed)
TIMED = (
    ("transformer: 8 x 512 tokens of 768", bench.Case("layer_norm", (8 * 512, 768), -1, bench.ROWS)),
    ("CNN: 32 images of 56 x 56, 64 channels", bench.Case("batch_norm", (32, 64, 56, 56), 1, bench.COLUMNS)),
)


def reference(x: Array, axis: int) -> Array:
    """The formula in float64, over one axis."""
    x = x.astype(np.float64)
    mean = x.mean(axis=axis, keepdims=True)
    var = np.mean((x - mean) ** 2, axis=axis, keepdims=True)
    y: Array = (x - mean) / np.sqrt(var + EPS)
    return y


@dataclass(frozen=True)
class Check:
    """The largest difference from float64 NumPy, as it is and in units of eps/2 * max|y| of its group."""

    title: str
    difference: float
    units: float

    @classmethod
    def of(cls, title: str, y: Array, expected: Array, axis: int) -> Check:
        difference = np.abs(y - expected)
        unit = np.finfo(y.dtype).eps / 2 * np.abs(expected).max(axis=axis, keepdims=True)
        return cls(title, float(difference.max()), float((difference / unit).max()))

    @property
    def right(self) -> bool:
        return self.units <= ALLOWED_UNITS  # false for NaN too


@dataclass(frozen=True)
class Wine:
    """The data before and after, all `(178, 13)` float32."""

    names: list[str]
    before: Array
    by_column: Array
    by_row: Array

    @classmethod
    def load(cls) -> Wine:
        wine = importlib.import_module("sklearn.datasets").load_wine()
        x = np.ascontiguousarray(wine.data, dtype=np.float32)
        names = [name.removesuffix("_of_diluted_wines").replace("_", " ") for name in wine.feature_names]
        names = [name.replace("od280/od315", "OD280/OD315") for name in names]
        return cls(names, x, op.batch_norm(x, training=True, eps=EPS), op.layer_norm(x, eps=EPS))

    def checks(self) -> list[Check]:
        return [
            Check.of("wine by column", self.by_column, reference(self.before, 0), 0),
            Check.of("wine by row", self.by_row, reference(self.before, 1), 1),
        ]


@dataclass(frozen=True)
class Padding:
    """Sentences of 5 to 60 words, 32 channels each, padded with zeros to one length: `(8, 60, 32)` float32.

    The norms of the real words are compared with those of the same words without any padding.
    """

    real: Array  # bool, (8, 60): a word, not padding
    statistics: dict[str, tuple[float, float]]  # of the real words, without and with the padding
    moved_by_column: float  # the largest change of a real word's y
    moved_by_row: float  # the same, and of its mean and rstd
    checks: list[Check]

    @classmethod
    def measure(cls) -> Padding:
        rng = np.random.default_rng(0)
        lengths = np.array([60, 5, 22, 9, 41, 14, 7, 30])
        real = np.arange(lengths.max()) < lengths[:, None]
        padded = rng.normal(3.0, 1.0, (*real.shape, 32)).astype(np.float32)
        padded[~real] = 0.0
        words = padded[real]  # (188, 32): the same numbers, no padding

        column_words = op.batch_norm(words, training=True, eps=EPS, return_stats=True)
        column_padded = op.batch_norm(padded, training=True, axis=-1, eps=EPS, return_stats=True)
        row_words = op.layer_norm(words, eps=EPS, return_stats=True)
        row_padded = tuple(array[real] for array in op.layer_norm(padded, eps=EPS, return_stats=True))

        def average(array: Array) -> float:
            return float(array.mean(dtype=np.float64))

        def var(rstd: Array) -> float:
            return average(rstd.astype(np.float64) ** -2 - EPS)

        return cls(
            real,
            {
                "mean by column": (average(column_words[1]), average(column_padded[1])),
                "variance by column": (var(column_words[2]), var(column_padded[2])),
                "mean by row": (average(row_words[1]), average(row_padded[1])),
                "variance by row": (var(row_words[2]), var(row_padded[2])),
            },
            float(np.abs(column_padded[0][real] - column_words[0]).max()),
            max(float(np.abs(a - b).max()) for a, b in zip(row_padded, row_words, strict=True)),
            [
                Check.of("words by column", column_words[0], reference(words, 0), 0),
                Check.of("words by row", row_words[0], reference(words, 1), 1),
            ],
        )


def short(value: float) -> str:
    """Four digits; two of what is zero but for rounding."""
    if value == 0:
        return "0"
    return f"{value:.1e}" if abs(value) < 1e-3 else f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:#.4g}"


def print_wine(console: Console, wine: Wine) -> None:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, title="178 wines, 13 measurements", title_style="bold")
    table.add_column("", no_wrap=True)
    for heading in ("mean before", "after", "variance before", "after"):
        table.add_column(heading, justify="right", no_wrap=True)

    def add(title: str, before: Array, after: Array) -> None:
        figures = before.mean(), after.mean(), before.var(), after.var()
        table.add_row(title, *(short(float(figure)) for figure in figures))

    table.add_row("[bold]by column (batch norm)[/]")
    for index, name in enumerate(wine.names):
        add(name, wine.before[:, index].astype(np.float64), wine.by_column[:, index].astype(np.float64))
    table.add_section()
    table.add_row("[bold]by row (layer norm)[/]")
    for index in (0, 1, 2):
        add(f"wine {index}", wine.before[index].astype(np.float64), wine.by_row[index].astype(np.float64))
    table.add_row(f"... and {len(wine.before) - 3} more wines")
    console.print(table)


def print_checks(console: Console, checks: list[Check]) -> bool:
    for check in checks:
        verdict = "[green]right[/]" if check.right else "[bold red]WRONG[/]"
        console.print(
            f"{verdict}: {check.title} agrees with float64 NumPy within {check.difference:.1e}"
            f" ({check.units:.1f} of {ALLOWED_UNITS:.0f} units of float32 rounding)",
            highlight=False,
            soft_wrap=True,
        )
    return all(check.right for check in checks)


def print_padding(console: Console, padding: Padding) -> bool:
    from rich import box
    from rich.table import Table

    sentences, longest = padding.real.shape
    share = 100 * (1 - padding.real.mean())
    title = f"{sentences} sentences of 5 to {longest} words, {share:.0f} % padding"
    table = Table(box=box.SIMPLE_HEAD, title=title, title_style="bold")
    table.add_column("", no_wrap=True)
    for heading in ("without padding", "with padding"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, pair in padding.statistics.items():
        table.add_row(name, *map(short, pair))
    table.add_row("largest change of a normalized word, by column", "", short(padding.moved_by_column))
    table.add_row("largest change of a normalized word, by row", "", short(padding.moved_by_row))
    console.print(table)
    console.print(
        "Padding enters the statistics of a column and so moves every real word; a row has its own.",
        highlight=False,
        soft_wrap=True,
    )
    unmoved = padding.moved_by_row == 0.0
    if not unmoved:
        console.print("[bold red]WRONG[/]: padding changed the row norm of a real word")
    return unmoved


def print_times(console: Console, times: list[tuple[str, bench.Case, dict[str, timing.Seconds]]]) -> None:
    from rich import box
    from rich.table import Table

    threads = op.get_num_threads()
    title = f"float32, {op.isa()}, {threads} thread{'s'[: threads > 1]}"
    table = Table(box=box.SIMPLE_HEAD, title=title, title_style="bold")
    table.add_column("", no_wrap=True)
    for heading in ("onepass", "NumPy", "faster"):
        table.add_column(heading, justify="right", no_wrap=True)
    for title, case, seconds in times:
        mine, theirs = seconds["onepass"], seconds["NumPy"]
        table.add_row(
            f"{case.function}, {title}",
            bench.duration(float(np.median(mine))),
            bench.duration(float(np.median(theirs))),
            f"{timing.Ratio.of(theirs, mine).median:.1f}x",
        )
    console.print(table)


def draw(wine: Wine, output: Path) -> None:
    """Save the picture: six panels, the 13 measurements from top to bottom in each."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=(15, 9.5), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12))
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 3, sharey=True)
    rows = np.arange(len(wine.names))
    by_column, by_row = "by column (batch norm)", "by row (layer norm)"

    def boxes(panel: Axes, values: Array, colour: str) -> None:
        panel.boxplot(
            list(values.T),
            orientation="horizontal",
            positions=rows,
            widths=0.6,
            patch_artist=True,
            boxprops={"facecolor": colour, "edgecolor": colour, "alpha": 0.6},
            medianprops={"color": "black", "linewidth": 1.5},
            whiskerprops={"color": colour},
            capprops={"color": colour},
            flierprops={"marker": ".", "markersize": 4, "markeredgecolor": colour},
            manage_ticks=False,
        )

    def dots(panel: Axes, values: Array, colour: str, label: str, marker: str) -> None:
        panel.plot(values, rows, marker, color=colour, label=label, markersize=8, alpha=0.85)

    boxes(panels[0, 0], wine.before, BEFORE)
    panels[0, 0].set(title="178 wines, before", xscale="log", xlabel="value, in its own unit (log scale)")
    boxes(panels[0, 1], wine.by_column, BY_COLUMN)
    panels[0, 1].set(title=f"after, {by_column}", xlabel="standard deviations from this measurement's mean")
    boxes(panels[0, 2], wine.by_row, BY_ROW)
    panels[0, 2].set(title=f"after, {by_row}", xlabel="standard deviations from this wine's mean")

    variances = panels[1, 0]
    dots(variances, wine.before.var(axis=0), BEFORE, "before", "o")
    dots(variances, wine.by_column.var(axis=0), BY_COLUMN, f"after, {by_column}", "s")
    dots(variances, wine.by_row.var(axis=0), BY_ROW, f"after, {by_row}", "D")
    variances.set(title="variance of each measurement", xscale="log", xlabel="variance (log scale)")

    dots(panels[1, 1], wine.before[SAMPLE], BEFORE, "before", "o")
    panels[1, 1].set(
        title=f"wine {SAMPLE}, before", xscale="log", xlabel="value, in its own unit (log scale)"
    )
    dots(panels[1, 2], wine.by_column[SAMPLE], BY_COLUMN, by_column, "s")
    dots(panels[1, 2], wine.by_row[SAMPLE], BY_ROW, by_row, "D")
    panels[1, 2].set(title=f"wine {SAMPLE}, after", xlabel="standard deviations from the mean")

    for panel in (panels[0, 1], panels[0, 2], panels[1, 2]):
        panel.axvline(0, color="0.4", linewidth=1, zorder=0)
    for panel in panels.flat:
        panel.grid(axis="x", color="0.88")
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
    for panel in panels[:, 0]:
        panel.set_yticks(rows, wine.names)
    panels[0, 0].invert_yaxis()  # shared: the first measurement on top, everywhere
    # The variances show all three, in the colours that every panel uses.
    handles, labels = variances.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=11)
    figure.suptitle(
        "The same wines, normalized by column and by row: only by column do measurements in different units"
        " become comparable",
        fontsize=14,
    )
    figure.savefig(output, dpi=130)


def run(output: Path) -> int:
    """Show everything and save the picture; returns the exit status."""
    from rich.console import Console

    from onepass.cli import progress

    console = Console() if Console().is_terminal else Console(width=100)
    timing.keep_freed_memory()
    try:
        with progress(3 + len(TIMED)) as step:
            step("normalizing 178 wines")
            wine = Wine.load()
            step("padding sentences")
            padding = Padding.measure()
            times = []
            for title, case in TIMED:
                step(f"timing {case.function} of {' x '.join(map(str, case.shape))}")
                # Compares the results, too, and raises ArithmeticError where they differ.
                todo = bench.actions(case, peers=("NumPy",))
                pair = {name: todo[name] for name in ("onepass", "NumPy")}
                times.append((title, case, timing.interleave(pair, rounds=9, budget=8.0)))
            step("drawing")
            draw(wine, output)
    except ArithmeticError as wrong:
        console.print(f"[bold red]WRONG[/]: {wrong}")
        return 1

    print_wine(console, wine)
    right = print_checks(console, wine.checks())
    right = print_padding(console, padding) and right
    right = print_checks(console, padding.checks) and right
    print_times(console, times)
    console.print(f"picture: {output.absolute()}", markup=False, highlight=False, soft_wrap=True)
    return 0 if right else 1
