"""The verb of `elle` that adds labels of a task to a saved probe, or withdraws them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from router.cli.options import ENCODER_DIR, JSON, PATH, is_forced, output_option, require_free
from router.cli.output import print_json, progress_bar

if TYPE_CHECKING:
    from router.tuning.fitting.task_labels import TaskChange


@click.command("label-task", short_help="Add labels of one task to a probe, or withdraw them.")
@click.argument("probe", type=PATH)
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


LABELLING_VERBS = (label_task_verb,)
