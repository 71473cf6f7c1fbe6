"""onepass, its peers and the ceiling, side by side: `python benchmarks/compare.py --help`.

For every case all of them take turns in one process, round after round; what is reported are medians of the
round-by-round ratios. The cases and the ceilings are in `cases`, the peers in `peers`, the measuring in `rounds`.
Needs the extra `[bench]`; a peer that is not installed is a dash.
"""

from __future__ import annotations

import json
import sys
import warnings
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

try:
    import click
    from rich.console import Console
    from rich.table import Table
except ImportError as missing:
    sys.exit(f"compare.py needs {missing.name}: pip install 'onepass[bench]'")

import report
from cases import CASES, LINE, at_random
from everyday import second_process
from growth import FLOAT, grow, series
from peers import PEERS, hold
from rounds import FULL, QUICK, Effort
from side_by_side import Row, compare

import onepass as op
from onepass.cli import PICTURE_SUFFIXES, progress
from onepass.timing import keep_freed_memory

DAY = 86400.0  # seconds
ISAS = {"baseline": "baseline", "v3": "x86-64-v3", "v4": "x86-64-v4"}
NAMES = tuple(peer.name for peer in PEERS)


def writable(_: click.Context, __: click.Parameter, value: Path | None) -> Path | None:
    # Found out now, not after the work whose result would be lost.
    if value is not None and not value.absolute().parent.is_dir():
        raise click.BadParameter(f"there is no directory {str(value.absolute().parent)!r}")
    return value


def drawable(context: click.Context, parameter: click.Parameter, value: Path | None) -> Path | None:
    if value is not None and value.suffix.lower() not in PICTURE_SUFFIXES:
        raise click.BadParameter(f"{value.name!r} does not end in one of {', '.join(PICTURE_SUFFIXES)}")
    return writable(context, parameter, value)


def whole_floats(_: click.Context, __: click.Parameter, value: int) -> int:
    # The ceilings' probes read and write float32, which lies at multiples of its size.
    if value % FLOAT.itemsize:
        raise click.BadParameter(f"{value} is not a multiple of {FLOAT.itemsize}, the size of a float32")
    return value


FILE = click.Path(dir_okay=False, writable=True, path_type=Path)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--quick", is_flag=True, help="A case of each kind and few rounds: under two minutes.")
@click.option(
    "--case",
    "patterns",
    multiple=True,
    metavar="PATTERN",
    help="Only cases whose label has this in it (* and ? as in file names); may be repeated.",
)
@click.option(
    "--peer",
    "peers",
    multiple=True,
    type=click.Choice(NAMES, case_sensitive=False),
    help="Only these peers; may be repeated.  [default: all]",
)
@click.option(
    "--threads",
    "threads",
    multiple=True,
    type=click.IntRange(min=1),
    help="For everybody; may be repeated.  [default: 1 and all]",
)
@click.option(
    "--isa",
    type=click.Choice(tuple(ISAS)),
    help="The instruction set of all who can be held to one.  [default: the best]",
)
@click.option(
    "--behind",
    type=click.IntRange(0, LINE - 1),
    callback=whole_floats,
    default=0,
    show_default=True,
    metavar="BYTES",
    help="Where x and the results of the cases begin, behind the start of a cache line; NumPy's arrays: 16.",
)
@click.option(
    "--random",
    "count",
    type=click.IntRange(min=1),
    help="So many cases at random beside torch, instead of the table's; a few seconds each.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of --random.")
@click.option("--rounds", type=click.IntRange(min=5), help="At most so many; with it there is no time limit.")
@click.option("--growth", "growing", is_flag=True, help="How the cost grows, instead of the cases.")
@click.option("--json", "json_file", type=FILE, callback=writable, help="Write the figures here.")
@click.option("--markdown", type=FILE, callback=writable, help="Write the short tables here.")
@click.option("--picture", type=FILE, callback=drawable, help="Draw the fractions of the ceiling here.")
@click.option("--why", is_flag=True, help="Tell the reason of each dash.")
@click.option("--list", "listing", is_flag=True, help="List the cases and stop.")
def main(
    quick: bool,
    patterns: tuple[str, ...],
    peers: tuple[str, ...],
    threads: tuple[int, ...],
    isa: str | None,
    behind: int,
    count: int | None,
    seed: int,
    rounds: int | None,
    growing: bool,
    json_file: Path | None,
    markdown: Path | None,
    picture: Path | None,
    why: bool,
    listing: bool,
) -> None:
    """Time onepass beside its peers and beside moving the same bytes."""
    chosen = CASES if count is None else tuple(at_random(count, seed))
    cases = [
        replace(case, behind=behind)
        for case in chosen
        if case.matches(patterns or ("",)) and (case.quick or not quick or patterns or count)
    ]
    if listing:
        for case in cases:
            click.echo(f"{case.label}  (ceiling: {case.ceiling.name})")
        return
    if not cases:
        raise click.UsageError(f"no case matches {', '.join(patterns)}; --list tells their names")
    if growing and behind:
        raise click.UsageError("--behind is for the cases; --growth has a series of its own for alignment")
    effort = QUICK if quick or count else FULL
    if count:
        peers = peers or ("torch",)
    if rounds is not None:
        effort = replace(effort, rounds=rounds, budget=DAY)
    counts = threads or tuple(sorted({1, op.get_num_threads()}))
    if isa is not None:
        if ISAS[isa] not in op.available_isas():
            raise click.UsageError(f"this processor has no {ISAS[isa]}")
        op.use_isa(ISAS[isa])
    if op.isa() != op.available_isas()[-1]:  # by --isa, or by ONEPASS_ISA
        hold(op.isa())

    keep_freed_memory()
    warnings.simplefilter("ignore")  # a peer's deprecations are not the user's business
    console = Console(soft_wrap=True, highlight=False)
    rows: list[Row] = []
    growths: list[dict[str, Any]] = []
    for n in counts:
        if growing:
            growths += show_growth(n, effort)
        else:
            rows += show_cases(cases, n, effort, peers or NAMES)
    if rows:
        console.print(report.LEGEND.format(margin=effort.margin, flag="--why"), end="", markup=False)
    for line in report.behind(rows) if count else ():
        console.print(line, markup=False)
    for line in report.absences(rows) if why else ():
        console.print(line, markup=False)
    document = report.document(rows, growths, effort)
    if json_file is not None:
        json_file.write_text(json.dumps(document, indent=2) + "\n")
    if markdown is not None:
        markdown.write_text(report.markdown(document))
    if picture is not None:
        report.draw(rows, picture)
    wrong = [(row.case.label, peer, reason) for row in rows for peer, reason in row.wrong.items()]
    for label, peer, reason in wrong:
        console.print(f"{label}: {peer} and onepass disagree: {reason}", markup=False)
    # (Of shapes at random some are ill-conditioned, and some peers sum in 16 bits.)
    sys.exit(bool(wrong) and not count)


def show(table: Table) -> None:
    """At its full width: lines that a terminal wraps can be read, figures that were cut off cannot."""
    width = Console(width=1000).measure(table).maximum
    Console(width=width).print(table)


def show_cases(cases: list[Any], count: int, effort: Effort, peers: tuple[str, ...]) -> list[Row]:
    """Measure and print one table."""
    rows = []
    with second_process() as second, progress(len(cases)) as step:
        for case in cases:
            step(f"{case.label}, {count} thread{'s'[: count > 1]}")
            rows.append(compare(case, count, effort, peers, second))
    show(report.table(rows))
    return rows


def show_growth(count: int, effort: Effort) -> list[dict[str, Any]]:
    every = list(series(count))
    rows = []
    with progress(len(every)) as step:
        for members in every:
            step(f"{members[0].series}, {count} thread{'s'[: count > 1]}")
            rows += grow(members, effort)
    show(report.growth_table(rows, count, op.isa()))
    return [{"threads": count, "isa": op.isa(), **asdict(row), "reached": row.reached} for row in rows]


if __name__ == "__main__":
    main()
