"""Print what the verbs of `elle` answer: tables and JSON go to stdout, progress goes to stderr."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click
from rich.console import Console

if TYPE_CHECKING:
    from router.tuning.outcomes.feature_cache import Progress

# Click itself ends with 1 after an error and with 2 after wrong usage.

#: Exit status of a command that did its work, left something out, and said what.
INCOMPLETE = 3

#: Exit status of a command that worked and whose answer is no: no certificate, or an exported encoder that is worse.
NOT_CERTIFIED = 3


def stdout() -> Console:
    """Return the console that tables are printed on."""
    # If stdout is no terminal, rich falls back to 80 columns and cuts tables.
    return Console() if sys.stdout.isatty() else Console(width=160)


def print_json(value: object) -> None:
    """Print `value` as JSON on stdout."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


@contextlib.contextmanager
def progress_bar(label: str) -> Iterator[Progress | None]:
    """Yield a function of (done, total) that shows a bar on a terminal, and otherwise prints a line now and then."""
    with _bar(label, lines_every=1000) as report:
        yield lambda done, total: report(done, total, "")


@contextlib.contextmanager
def spending_bar(label: str) -> Iterator[Callable[[int, int, str], None]]:
    """Yield a function of (done, total, what is spent), which shows a bar on a terminal and otherwise prints lines."""
    with _bar(label, lines_every=100) as report:
        yield report


@contextlib.contextmanager
def _bar(label: str, *, lines_every: int) -> Iterator[Callable[[int, int, str], None]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    def line(done: int, total: int, words: str) -> None:
        if done == total or done % lines_every == 0:
            click.echo(f"{label}: {done} of {total}{words and ', '}{words}", err=True)

    if not sys.stderr.isatty():
        yield line
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, TextColumn("{task.fields[words]}"), console=Console(stderr=True))
    task = bar.add_task(label, total=None, words="")

    def report(done: int, total: int, words: str) -> None:
        # Only one bar can be on the terminal, so it is there between its first report and its last.
        bar.start()
        bar.update(task, completed=done, total=total, words=words)
        if done == total:
            bar.stop()

    try:
        yield report
    finally:
        bar.stop()


@contextlib.contextmanager
def progress_bars() -> Iterator[Callable[[str, int, int], None]]:
    """Yield a function of (what is done, done, total) that shows a bar, as `progress_bar` does, for each thing done."""
    with contextlib.ExitStack() as open_bars:
        bars: dict[str, Progress | None] = {}

        def tell(label: str, done: int, total: int) -> None:
            if label not in bars:
                # A terminal shows one bar at a time.
                open_bars.pop_all().close()
                bars[label] = open_bars.enter_context(progress_bar(label))
            if (on_progress := bars[label]) is not None:
                on_progress(done, total)

        yield tell
