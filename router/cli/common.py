"""What the commands of `elle` share: options, output for people and for programs, progress."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from rich.console import Console

from probes.errors import DataError

if TYPE_CHECKING:
    from router.tuning.outcomes.feature_cache import Progress

_Function = TypeVar("_Function", bound=Callable[..., Any])

PATH = click.Path(path_type=Path)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")


#: Exit status of a command that did its work but left something out, and says what.
INCOMPLETE = 3

_FORCE = "router.cli.force"


def output(help_text: str, *, required: bool = True, folder: bool = False) -> Callable[[_Function], _Function]:
    """Return a decorator that gives a command `--out` and `--force`: nothing is replaced unless that is asked for.

    The place is looked at before the command does any work. `folder` says that the command writes a folder.
    """

    def note(ctx: click.Context, _: click.Parameter, force: bool) -> None:
        ctx.meta[_FORCE] = force

    def look(ctx: click.Context, _: click.Parameter, out: Path | None) -> Path | None:
        if out is not None:
            require_free(out, folder=folder, force=ctx.meta[_FORCE])
        return out

    what = "a folder that holds something" if folder else "a file that is there"
    place = click.option("--out", required=required, type=PATH, help=help_text, callback=look)
    # Eager, so that it is known when --out is looked at.
    force = click.option(
        "--force", is_flag=True, expose_value=False, is_eager=True, help=f"Replace {what}.", callback=note
    )
    return lambda command: place(force(command))


def require_free(out: Path, *, folder: bool, force: bool) -> None:
    """Raise DataError where something is at `out` that must not be replaced, or where nothing can be written there."""
    kind = "a folder" if folder else "a file"
    if out.exists() and out.is_dir() != folder:
        raise DataError(f"{out} must be {kind} and is not; choose another --out.")
    occupied = any(out.iterdir()) if out.is_dir() else out.exists()
    if occupied and not force:
        raise DataError(f"{out} exists; give --force to replace it, or another --out.")
    if not folder and not out.absolute().parent.is_dir():
        raise DataError(f"the folder of {out} must exist; create it first.")


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
