"""Print what the verbs of `elle` answer: tables and JSON go to stdout, progress goes to stderr.

With --json stdout holds one JSON object, whichever the verb and however it ends: `answering_in_json` prints it.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TextIO

import click

from probes.progress import terminal_bar

if TYPE_CHECKING:
    from rich.console import Console

    from router.tuning.outcomes.feature_cache import Progress

# Click itself ends with 1 after an error and with 2 after wrong usage.

#: Exit status of a command that did its work, left something out, and said what.
INCOMPLETE = 3

#: Exit status of a command that worked and whose answer is no: no certificate, or an exported encoder that is worse.
NOT_CERTIFIED = 3


def stdout() -> Console:
    """Return the console that tables are printed on."""
    return console_on(sys.stdout)


def console_on(stream: TextIO) -> Console:
    """Return a console that writes to stdout or stderr. It shows texts as they are: `[b]` in a name is no markup.

    A pipe gets each sentence on one line, and no table loses letters.
    """
    # rich takes 25 ms to import, and `elle serve` starts without it.
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    class Lossless(Console):
        def print(self, *objects: Any, **options: Any) -> None:
            for table in objects:
                for column in table.columns if isinstance(table, Table) else ():
                    column.overflow = "fold"
            if not self.is_terminal and all(isinstance(one, str | Text) for one in objects):
                options.setdefault("soft_wrap", True)
            super().print(*objects, **options)

    # If the stream is no terminal, rich falls back to 80 columns, which is too narrow for our tables.
    return Lossless(file=stream, width=None if stream.isatty() else 160, markup=False)


#: Where click keeps, while a verb runs, the words of a verb that answers in JSON, and what it answers.
_VERB, _ANSWER = "router.cli.verb", "router.cli.answer"


def remember_json(ctx: click.Context, _: click.Parameter, as_json: bool) -> bool:
    """Remember that a verb answers in JSON, with its words, such as "policy list". The callback of `--json`."""
    if as_json:
        ctx.meta[_VERB] = " ".join(_words(ctx))
    return as_json


def _words(ctx: click.Context) -> Iterator[str]:
    if ctx.parent is not None:
        yield from _words(ctx.parent)
        yield ctx.info_name or ""


def answers_in_json() -> bool:
    """Return whether the verb that runs has got --json."""
    return _VERB in click.get_current_context().meta


def print_json(answer: Mapping[str, object]) -> None:
    """Answer with these keys, in the one JSON object that is printed when the verb has ended.

    The key `out` is the place that --out named, if it was given.
    """
    ctx = click.get_current_context()
    written = ctx.params.get("out")
    ctx.meta[_ANSWER] = dict(answer) if written is None else {"out": str(written), **answer}


@contextlib.contextmanager
def answering_in_json(ctx: click.Context) -> Iterator[None]:
    """Print one JSON object on stdout after a verb that has got --json: what it answered, or why it failed.

    Its first keys are the same for every verb: `verb`, `exit_status`, and `error` after an error. Then come those that
    the verb gave to `print_json`.
    """
    status, error = 0, ""
    asked = "--json" in ctx.args
    try:
        yield
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
        raise
    except click.ClickException as failure:
        status, error = failure.exit_code, failure.format_message()
        if asked and isinstance(failure, click.UsageError) and failure.ctx is not None:
            # Wrong words before --json end the reading of the command before --json is read.
            ctx.meta.setdefault(_VERB, " ".join(_words(failure.ctx)))
        raise
    except (click.Abort, KeyboardInterrupt):
        status, error = 1, "it was stopped."
        raise
    except BaseException:
        # A defect of ours: nothing can be said about the answer.
        ctx.meta.pop(_VERB, None)
        raise
    finally:
        if (verb := ctx.meta.get(_VERB)) is not None:
            ended = {"verb": verb, "exit_status": status} | ({"error": error} if error else {})
            answer = ended | ctx.meta.get(_ANSWER, {})
            escaped = not (sys.stdout.encoding or "").lower().startswith("utf")
            click.echo(json.dumps(answer, indent=2, ensure_ascii=escaped, allow_nan=False))


@contextlib.contextmanager
def progress_bar(label: str) -> Iterator[Progress | None]:
    """Yield a function of (done, total) that shows a bar on a terminal, and otherwise prints a line now and then."""
    with _bar(label, lines_every=1000) as report:
        yield lambda done, total: report(done, total, "")


@contextlib.contextmanager
def spending_bar(label: str) -> Iterator[Callable[[int, int, str], None]]:
    """Yield a function of (done, total, what is spent), which shows a bar on a terminal and otherwise prints lines.

    Ctrl-C is answered with what becomes of the work: verbs that spend keep every answer and go on from there.
    """
    with _bar(label, lines_every=100) as report:
        try:
            yield report
        except KeyboardInterrupt:
            click.echo("Stopped. The same command goes on from here, and pays nothing twice.", err=True)
            raise


@contextlib.contextmanager
def _bar(label: str, *, lines_every: int) -> Iterator[Callable[[int, int, str], None]]:
    from rich.progress import TextColumn

    def line(done: int, total: int, words: str) -> None:
        if done == total or done % lines_every == 0:
            click.echo(f"{label}: {done} of {total}{words and ', '}{words}", err=True)

    if not sys.stderr.isatty():
        yield line
        return
    bar = terminal_bar(TextColumn("{task.fields[words]}"))
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
