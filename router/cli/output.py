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
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    if not sys.stderr.isatty():
        yield _progress_lines(label)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=None, visible=False)
        yield lambda done, total: bar.update(task, completed=done, total=total, visible=True)


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


def _progress_lines(label: str) -> Callable[[int, int], None]:
    def report(done: int, total: int) -> None:
        if done == total or done % 1000 == 0:
            click.echo(f"{label}: {done} of {total}", err=True)

    return report
