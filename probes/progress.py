"""Show on stderr how far a long computation is, as a bar on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn


def terminal_bar(*further: ProgressColumn) -> Progress:
    """Return a progress bar on stderr. It shows a label, how many of the rows are done, and the time left.

    further: columns that are shown after these.
    """
    # Most programs that import this package draw no bar.
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, *further, console=Console(stderr=True))


@contextmanager
def counting_bar(label: str, total: int, progress: bool | None, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Yield a function that is told how many more rows are done, and draws a bar.

    progress: whether to draw it; None draws it only if stderr is a terminal.
    """
    if not (sys.stderr.isatty() if progress is None else progress):
        yield lambda rows: None
        return
    with terminal_bar() as bar:
        task = bar.add_task(label, total=total, completed=done)
        yield lambda rows: bar.advance(task, rows)
