"""What compare.py shows: the tables, the JSON document and the picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from growth import GrowthRow
from peers import PEERS, versions
from rich import box
from rich.table import Table
from rich.text import Text
from rounds import Figure
from side_by_side import OURS, Row

from onepass.bench import duration, machine

SHORT = {"ONNX Runtime": "ONNX RT", "scikit-learn": "sklearn"}
DASH = "-"
DISTURBED = 0.15  # of a processor
LAST = ("everyday", "others", "meeting", "reached")  # columns
WIDEST = 1.25  # of the ceiling: what is drawn beyond it is noise

LEGEND = """\
of ceiling: time of moving the same bytes with the same threads / our time; asked: the floor set for it.
Peers: their time / ours, medians of the ratios within each round; behind "<" a floor that was missed.
everyday: a call with a fresh result / the call that is given one, in a process with the allocator's defaults.
spread: between the quartiles of "of ceiling".   ~: not settled, the median's margin is still above {margin:.0%}.
others: processors that other processes kept busy meanwhile; with a "!", measure again when they do not.
meeting: us that the threads need to begin together and to be done, before and after the rounds (a machine's state).
-: not installed or no such operation ({flag} tells). NumPy and scikit-learn compute with one thread.
"""


def figure_text(figure: Figure | None, asked: float | None = None, digits: int = 2) -> Text:
    """`asked` is a floor that was missed."""
    if figure is None:
        return Text(DASH, style="dim")
    text = Text(f"{'' if figure.settled else '~'}{figure.median:.{digits}f}")
    if asked is not None:
        text.append(f" <{asked:g}")
        text.stylize("red")
    return text


def others_text(processors: float | None) -> Text:
    if processors is None:
        return Text(DASH, style="dim")
    return Text(
        f"{processors:.2f}{'!' if processors > DISTURBED else ''}",
        style="red" if processors > DISTURBED else "",
    )


def meeting_text(seconds: tuple[float, float] | None) -> Text:
    if seconds is None:
        return Text(DASH, style="dim")
    return Text(" ".join(f"{1e6 * one:.1f}" for one in seconds))


def title_of(threads: int, isa: str) -> str:
    return f"{isa}, {threads} thread{'s'[: threads > 1]}"


def table(rows: Sequence[Row]) -> Table:
    """The rows of one number of threads and one instruction set."""
    shown = [peer.name for peer in PEERS]
    result = Table(title=title_of(rows[0].threads, rows[0].isa), box=box.SIMPLE_HEAD, title_style="bold")
    result.add_column("case", no_wrap=True)
    for heading in ("time", "GB/s", "of ceiling", "asked", "spread"):
        result.add_column(heading, justify="right", no_wrap=True)
    for name in shown:
        result.add_column(SHORT.get(name, name), justify="right", no_wrap=True)
    for heading in LAST:
        result.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        asked = f"{row.case.floor:g}"
        if row.fraction is None:
            cells = [
                DASH,
                DASH,
                DASH,
                asked,
                *(DASH for _ in (*shown, "spread", *LAST)),
            ]
            result.add_row(row.case.label, *cells)
            continue
        missed = row.missed
        result.add_row(
            row.case.label,
            duration(row.seconds[OURS]),
            f"{row.gigabytes_per_second:.1f}",
            figure_text(row.fraction),
            asked,
            f"{row.fraction.spread:.0%}",
            *(
                Text("WRONG", style="red")
                if name in row.wrong
                else figure_text(row.ratios.get(name), missed.get(name))
                for name in shown
            ),
            figure_text(row.everyday),
            others_text(row.others),
            meeting_text(row.meeting),
            Text("no", style="red") if missed else Text("yes", style="green"),
        )
    return result


def growth_table(rows: Sequence[GrowthRow], threads: int, isa: str) -> Table:
    title = f"time per element, {title_of(threads, isa)}"
    result = Table(title=title, box=box.SIMPLE_HEAD, title_style="bold")
    for heading in ("series", "case", "over"):
        result.add_column(heading, no_wrap=True)
    for heading in ("ratio", "at most", "spread", "reached"):
        result.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        result.add_row(
            row.series,
            row.name,
            row.against,
            figure_text(row.figure),
            f"{row.limit:.2f}",
            f"{row.figure.spread:.0%}",
            Text("yes", style="green") if row.reached else Text("no", style="red"),
        )
    return result


def behind(rows: Sequence[Row]) -> Iterator[str]:
    """Of each peer, with each number of threads: in how many cases it is quicker than onepass."""
    for threads in sorted({row.threads for row in rows}):
        for peer in PEERS:
            ratios = [
                row.ratios[peer.name].median
                for row in rows
                if row.threads == threads and peer.name in row.ratios
            ]
            if ratios:
                yield (
                    f"{peer.name}, {threads} thread{'s'[: threads > 1]}: quicker in {sum(r < 1 for r in ratios)}"
                    f" of {len(ratios)}; its time / ours {median(ratios):.2f} in the median"
                )


def absences(rows: Sequence[Row]) -> list[str]:
    """A line for each reason of a dash, with the cases it holds for."""
    reasons: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        for name, reason in row.absent.items():
            reasons.setdefault((name, reason), set()).add(f"{row.case.job} {row.case.dtype}")
    return [
        f"{name}: {reason} ({', '.join(sorted(jobs))})" for (name, reason), jobs in sorted(reasons.items())
    ]


def document(rows: Sequence[Row], growths: Sequence[dict[str, Any]], effort: Any) -> dict[str, Any]:
    """Everything that was found, and what it depends on."""
    facts = machine()
    facts["peers"] = versions()
    facts["effort"] = asdict(effort)
    facts["rows"] = [
        {
            "label": row.case.label,
            **asdict(row),
            "moved": row.case.moved,
            "gigabytes_per_second": row.gigabytes_per_second if row.seconds else None,
            "missed": row.missed,
        }
        for row in rows
    ]
    facts["growth"] = list(growths)
    return facts


NAMED = ("torch", "ONNX Runtime", "oneDNN")  # in the short tables


def markdown(document: dict[str, Any]) -> str:
    """The short tables of a document: a line a case, columns for each number of threads."""
    tables = ((document["rows"], cases_lines), (document["growth"], growth_lines))
    return "\n\n".join("\n".join(lines_of(rows)) for rows, lines_of in tables if rows) + "\n"


def cell(figure: dict[str, Any] | None, unit: str, missed: bool) -> str:
    if figure is None:
        return DASH
    return f"{'' if figure['settled'] else '~'}{figure['median']:.2f}{unit}{' ↓' if missed else ''}"


def cases_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    cases: dict[str, dict[int, dict[str, Any]]] = {}
    for row in rows:
        cases.setdefault(row["label"], {})[row["threads"]] = row
    blocks = list(dict.fromkeys(block for found in cases.values() for block in found))
    titles = [f"{name}, {threads}" for threads in blocks for name in ("of ceiling", *NAMED)]
    lines = ["| case | asked | " + " | ".join(titles) + " |", "|---|--:|" + "--:|" * len(titles)]
    for label, found in cases.items():
        cells = []
        for block in blocks:
            row = found.get(block, {"fraction": None, "ratios": {}, "missed": ()})
            cells.append(cell(row["fraction"], "", "ceiling" in row["missed"]))
            cells += [cell(row["ratios"].get(name), "x", name in row["missed"]) for name in NAMED]
        asked = next(iter(found.values()))["case"]["floor"]
        lines.append(f"| {label} | {asked:g} | " + " | ".join(cells) + " |")
    return lines


def growth_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    series: dict[tuple[str, str, float], dict[int, dict[str, Any]]] = {}
    for row in rows:
        series.setdefault((row["series"], row["name"], row["limit"]), {})[row["threads"]] = row
    blocks = list(dict.fromkeys(block for found in series.values() for block in found))
    titles = [f"threads {threads}" for threads in blocks]
    lines = [
        "| series | case | over | at most | " + " | ".join(titles) + " |",
        "|---|---|---|--:|" + "--:|" * len(titles),
    ]
    for (title, name, limit), found in series.items():
        against = " / ".join(dict.fromkeys(row["against"] for row in found.values()))
        cells = [
            cell(found[block]["figure"], "", not found[block]["reached"]) if block in found else DASH
            for block in blocks
        ]
        lines.append(f"| {title} | {name} | {against} | {limit:.2f} | " + " | ".join(cells) + " |")
    return lines


def draw(rows: Sequence[Row], path: Path) -> None:
    """Bars of fraction of the ceiling by case, ours beside the peers'; a panel for each table."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.patches import Patch

    panels: dict[int, list[Row]] = {}
    for row in rows:
        if row.fraction is not None:
            panels.setdefault(row.threads, []).append(row)
    if not panels:
        return
    names = [OURS, *(peer.name for peer in PEERS)]
    labels = list(dict.fromkeys(row.case.label for panel in panels.values() for row in panel))
    colors = {name: f"C{place}" for place, name in enumerate(names)}
    thickness = 0.84 / len(names)
    figure, axes = plt.subplots(
        1,
        len(panels),
        sharey=True,
        squeeze=False,
        layout="constrained",
        figsize=(3 + 4.5 * len(panels), 1.5 + 0.55 * len(labels)),
    )
    for axis, (threads, panel) in zip(axes[0], panels.items(), strict=True):
        for place, name in enumerate(names):
            bars = {
                labels.index(row.case.label): fraction
                for row in panel
                if (fraction := row.fraction_of(name)) is not None
            }
            heights = [at + (place - len(names) / 2 + 0.5) * thickness for at in bars]
            axis.barh(heights, list(bars.values()), thickness, color=colors[name])
        for row in panel:
            at = labels.index(row.case.label)
            axis.plot([row.case.floor] * 2, [at - 0.45, at + 0.45], color="black", linewidth=1)
        axis.axvline(1, color="gray", linewidth=1)
        axis.set_xlim(0, WIDEST)
        axis.set_title(title_of(threads, panel[0].isa))
        axis.set_xlabel("fraction of the ceiling (black: asked)")
        axis.grid(axis="x", alpha=0.3)
    axes[0][0].set_yticks(range(len(labels)), labels, fontsize=8)
    axes[0][0].invert_yaxis()
    handles = [Patch(color=colors[name]) for name in names]
    figure.legend(handles, names, loc="outside upper center", ncols=len(names), fontsize=8)
    figure.savefig(path, dpi=120)
    plt.close(figure)
