"""The verbs of `elle` for labels: people grade judged answers, and labels of a task change a saved probe."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from router.cli.options import ENCODER_DIR, JSON, PATH, PROBE, is_forced, output_option, require_free
from router.cli.output import print_json, progress_bar

if TYPE_CHECKING:
    from router.tuning.fitting.task_labels import TaskChange


@click.command("label-task", short_help="Add labels of one task to a probe, or withdraw them.")
@PROBE
@click.argument("task")
@click.argument("labels", type=PATH)
@output_option(
    "The folder to write the new version to. Default: PROBE itself, which needs --force.", required=False, folder=True
)
@click.option("--withdraw", is_flag=True, help="Withdraw these labels, exactly as if they had never been added.")
@ENCODER_DIR
@JSON
@click.pass_context
def label_task_verb(
    ctx: click.Context,
    probe: Path,
    task: str,
    labels: Path,
    out: Path | None,
    withdraw: bool,
    encoder_dir: Path | None,
    as_json: bool,
) -> None:
    """Add LABELS (prompt, model, score) of the task with the key TASK to PROBE, and write a new version of it.

    Two to five labelled prompts are enough to matter. PROBE must be fitted on outcomes with a column `task`. The new
    version has a new identity, so a policy with a certificate must be tuned again.
    """
    from probes.errors import DataError
    from probes.tasks.keys import key_fault
    from router.cli.steps.label_files import LabelFiles, label_files

    if fault := key_fault(task):
        raise DataError(f"TASK must {fault}.")
    if out is None:
        require_free(probe, folder=True, force=is_forced(ctx))
    with progress_bar("encoding") as on_progress:
        change = label_files(LabelFiles(probe, labels, out or probe, encoder_dir), task, withdraw, on_progress)
    if as_json:
        print_json(change.to_dict() | {"out": str(out or probe)})
    else:
        _say(change, out or probe)


def _say(change: TaskChange, out: Path) -> None:
    state = "is new" if change.is_new else "is forgotten" if change.is_forgotten else "was known"
    click.echo(f"Task {change.task} {state}; the probe knows {change.n_tasks:,} tasks now.")
    for name, one in change.models.items():
        click.echo(
            f"{name}: {one.labels_before:,} -> {one.labels:,} labels, loss moved by {one.offset_before:+.3f} -> "
            f"{one.offset:+.3f}"
        )
    for note in change.notes:
        click.echo(f"Note: {note}.")
    click.echo(
        f"Wrote {out} (probe {change.identity[:12]}, before {change.old_identity[:12]}). Tune policies with a "
        f"certificate again."
    )


@click.command("label")
@click.argument("outcomes", type=PATH)
@click.option("--n", "n_prompts", type=click.IntRange(1), default=100, show_default=True, help="The number of prompts.")
@click.option("--labels", type=PATH, help="The file that keeps the labels. Default: OUTCOMES with .labels.jsonl.")
@click.option("--export", "sheet_out", type=PATH, help="Write open questions to this CSV file and ask nothing.")
@click.option("--import", "sheet_in", type=PATH, help="Read verdicts from this CSV file and ask nothing.")
@click.option("--report", is_flag=True, help="Ask nothing; report what is known.")
@output_option("The file to write all outcomes to, with human grades beside judged ones (JSON Lines).", required=False)
@JSON
@click.pass_context
def label_answers_verb(
    ctx: click.Context,
    outcomes: Path,
    n_prompts: int,
    labels: Path | None,
    sheet_out: Path | None,
    sheet_in: Path | None,
    report: bool,
    out: Path | None,
    as_json: bool,
) -> None:
    """Let a person grade answers in OUTCOMES, blind.

    The answers are those of a random part of the prompts. The report says how far the judge agrees with the person.

    OUTCOMES is a file that `elle collect` wrote. Names of models are hidden, and the order is random. One key grades:
    each key is kept at once, so that you can quit (q), take back (u) and go on later.
    """
    from probes.errors import DataError
    from router.cli.steps.label_outcomes import Labelling, label_outcomes

    asks = not (report or sheet_out or sheet_in)
    if asks and not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise DataError("a person grades in a terminal, and this is none; use --export and --import, or --report.")
    if sheet_out is not None:
        require_free(sheet_out, folder=False, force=is_forced(ctx))
    labels = labels or outcomes.with_name(f"{outcomes.name}.labels.jsonl")
    with _single_keys() if asks else contextlib.nullcontext() as read_key:
        screen = None if read_key is None else (read_key, functools.partial(click.echo, err=True))
        found = label_outcomes(Labelling(outcomes, labels, n_prompts, sheet_out, sheet_in, out, screen))
    if as_json:
        print_json(found.to_dict() | {"labels": str(labels)})
    else:
        click.echo("\n".join(found.lines()))
        if sheet_out is not None:
            click.echo(f"Wrote the open questions to {sheet_out}. Fill in its column verdict, and give it to --import.")
        if out is not None:
            click.echo(f"Wrote all outcomes to {out}, with human_score where a person graded.")


@contextlib.contextmanager
def _single_keys() -> Iterator[Callable[[], str]]:
    """Yield a function that returns the next key of the terminal; the end of input and Ctrl-C are the key `q`.

    The terminal stays in this mode between two keys: `click.getchar` would throw away what is typed meanwhile. Ctrl-C
    is a key like others, so that it cannot come in the middle of something.
    """
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)

    def read_key() -> str:
        key = os.read(fd, 1)
        return "q" if key in {b"", b"\x03", b"\x04"} else key.decode("ascii", "replace")

    try:
        tty.setcbreak(fd, termios.TCSADRAIN)
        mode = termios.tcgetattr(fd)
        mode[tty.LFLAG] &= ~termios.ISIG
        termios.tcsetattr(fd, termios.TCSADRAIN, mode)
        yield read_key
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
