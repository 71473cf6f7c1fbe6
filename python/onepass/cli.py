"""The command `onepass`: info, demo and bench.

The command line and its tables come from the extra `[demo]`, so nothing here imports click at the top:
`info`, `--help` and `--version` work with NumPy alone; the others then say in one line what to install.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import click

# What each command imports beyond NumPy: the package's name on PyPI, then the module's.
NEEDS: dict[str, dict[str, str]] = {
    "demo": {"click": "click", "rich": "rich", "matplotlib": "matplotlib", "scikit-learn": "sklearn"},
    "bench": {"click": "click", "rich": "rich"},
}

PICTURE_SUFFIXES = (".png", ".pdf", ".svg")

PLAIN_HELP = """\
Usage: onepass [--help] [--version] COMMAND

  Layer and batch normalization of NumPy arrays, at the speed of memory.

Commands:
  info   What a bug report needs: versions, compiler, threads, ...
  demo   Normalize real data both ways, check it, time it, draw it.  (*)
  bench  Time onepass against NumPy and the copy ceiling.            (*)

(*) not installed yet: pip install 'onepass[demo]'
"""


def missing(command: str) -> str | None:
    """The one line to print where `command` lacks a package, or None where it can run."""
    absent = [name for name, module in NEEDS.get(command, {}).items() if find_spec(module) is None]
    if not absent:
        return None
    return f"onepass {command} needs {', '.join(absent)}: pip install 'onepass[demo]'"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the entry point of `onepass` and of `python -m onepass`."""
    args = list(sys.argv[1:] if argv is None else argv)
    if find_spec("click") is None:
        return plain(args)
    # Click ends the process itself (SystemExit), with the status of the command.
    app().main(args=args, prog_name="onepass")
    return 0


@contextmanager
def progress(total: int) -> Iterator[Callable[[str], None]]:
    """Show on stderr how far `total` steps have come; yields what to call, with a title, as each begins."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        # A moving bar in a log file is a mess; a line for each step is not.
        yield lambda title: console.print(f"... {title}", markup=False, highlight=False, soft_wrap=True)
        return
    columns = (BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    # Few refreshes: the bar is drawn by a thread of this process, beside what is being timed.
    with Progress(*columns, console=console, transient=True, refresh_per_second=4) as bar:
        task = bar.add_task("", total=total)
        begun = 0

        def step(title: str) -> None:
            nonlocal begun
            bar.update(task, description=title, completed=begun)
            begun += 1

        yield step


def info() -> None:
    import onepass

    onepass.show_config()


def plain(args: list[str]) -> int:
    """The command line where click is not installed."""
    command = next((arg for arg in args if not arg.startswith("-")), None)
    if command in NEEDS:
        print(missing(command), file=sys.stderr)
        return 2
    if "--version" in args:
        print(f"onepass, version {version('onepass')}")
        return 0
    if not args or "--help" in args or "-h" in args:
        print(PLAIN_HELP, end="")
        return 0
    if args == ["info"]:
        info()
        return 0
    print(f"onepass: do not understand {' '.join(args)!r}; try: onepass --help", file=sys.stderr)
    return 2


def app() -> click.Group:
    """The command line where click is installed."""
    import click

    def require(command: str) -> None:
        message = missing(command)
        if message is not None:
            click.echo(message, err=True)
            raise click.exceptions.Exit(2)

    def check_directory(_: click.Context, __: click.Parameter, value: Path | None) -> Path | None:
        # Found out here, not after the work whose result would be lost.
        if value is not None and not value.absolute().parent.is_dir():
            raise click.BadParameter(f"there is no directory {str(value.absolute().parent)!r}")
        return value

    def check_picture(context: click.Context, parameter: click.Parameter, value: Path) -> Path:
        if value.suffix.lower() not in PICTURE_SUFFIXES:
            raise click.BadParameter(f"{value.name!r} does not end in one of {', '.join(PICTURE_SUFFIXES)}")
        check_directory(context, parameter, value)
        return value

    file = click.Path(dir_okay=False, writable=True, path_type=Path)

    @click.group(context_settings={"help_option_names": ["-h", "--help"]})
    @click.version_option(version("onepass"), prog_name="onepass")
    def group() -> None:
        """Layer and batch normalization of NumPy arrays, at the speed of memory."""

    @group.command("info")
    def info_command() -> None:
        """What a bug report needs: versions, compiler, threads, ..."""
        info()

    @group.command("demo")
    @click.option(
        "--output",
        type=file,
        callback=check_picture,
        default=Path("onepass-demo.png"),
        show_default=True,
        help="Where to save the picture (.png, .pdf or .svg).",
    )
    def demo_command(output: Path) -> None:
        """Normalize real data both ways, check it, time it, draw it.

        178 wines with 13 measurements each, by column (batch norm) and by row (layer norm), checked against
        float64 NumPy. Takes some seconds; exits with 1 if a result is wrong.
        """
        require("demo")
        from onepass import demo

        raise click.exceptions.Exit(demo.run(output))

    @group.command("bench")
    @click.option("--json", "json_file", type=file, callback=check_directory, help="Write the figures here.")
    @click.option("--quick", is_flag=True, help="Half of the sizes and fewer rounds.")
    @click.option("--threads", type=click.IntRange(min=1), help="For everybody.  [default: onepass's own]")
    def bench_command(json_file: Path | None, quick: bool, threads: int | None) -> None:
        """Time onepass against NumPy and the copy ceiling.

        Torch and ONNX Runtime (with onnx) join in where they are installed. All run in interleaved rounds in
        this process; the table shows medians of the round-by-round ratios.
        """
        require("bench")
        from onepass import bench

        raise click.exceptions.Exit(bench.run(json_file=json_file, quick=quick, threads=threads))

    return group
