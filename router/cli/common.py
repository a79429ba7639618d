"""What the commands of `elle` share: options, output for people and for programs, progress."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

if TYPE_CHECKING:
    from router.tuning.outcomes.feature_cache import Progress

PATH = click.Path(path_type=Path)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")


def stdout() -> Console:
    """Where tables go."""
    # Without a terminal rich falls back to 80 columns and cuts tables.
    return Console() if sys.stdout.isatty() else Console(width=160)


def names_of(text: str | None) -> tuple[str, ...] | None:
    """The names in a comma-separated list; None where none was given."""
    return tuple(name.strip() for name in text.split(",") if name.strip()) if text else None


def print_json(value: object) -> None:
    """JSON on stdout."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


@contextlib.contextmanager
def progress(label: str) -> Iterator[Progress | None]:
    """A progress bar on stderr where a person watches; otherwise a line now and then."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    if not sys.stderr.isatty():
        yield _progress_lines(label)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=None, visible=False)
        yield lambda done, total: bar.update(task, completed=done, total=total, visible=True)


def _progress_lines(label: str) -> Callable[[int, int], None]:
    def report(done: int, total: int) -> None:
        if done == total or done % 1000 == 0:
            click.echo(f"{label}: {done} of {total}", err=True)

    return report
