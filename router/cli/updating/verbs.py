"""The verbs `elle recalibrate` and `elle forget`."""

from __future__ import annotations

import datetime
from dataclasses import asdict
from typing import Any

import click

from router.cli.options import ENCODER_DIR, JSON, PATH, PROBE, FiniteRange, GroupedCommand, new_folder, seed_option
from router.cli.output import NOT_CERTIFIED, print_json, progress_bar, stdout
from router.cli.running.ledger_options import LEDGER_PLACE, seconds, since_option

_OUT = click.option("--out", required=True, type=PATH, callback=new_folder, help="The new folder to write.")

_GROUPS = {
    "Labels": ("ledger", "since"),
    "What certifies": ("policy", "holdout", "calibration", "max_request_usd", "allow_uncertified"),
    "Output": ("out", "as_json"),
}


@click.command(
    "recalibrate", cls=GroupedCommand, groups=_GROUPS, short_help="Merge new labels into a probe, and certify again."
)
@PROBE
@click.argument("labels", nargs=-1, type=PATH)
@_OUT
@click.option(
    "--ledger",
    type=LEDGER_PLACE,
    metavar="PATH|URL",
    help="Also take the grades that `elle ledger label` has put into this ledger, which must keep prompts.",
)
@since_option("With --ledger: only grades of what was decided at this time (UTC) or later.")
@click.option("--policy", type=PATH, help="A certified policy on PROBE, whose targets are certified again.")
@click.option(
    "--holdout",
    metavar="SHARE|latest:SHARE",
    default="0.4",
    show_default=True,
    help="The part of LABELS that is set aside to certify with: a share, or latest:20% for the newest.",
)
@click.option(
    "--calibration",
    multiple=True,
    type=PATH,
    metavar="FILE",
    help="Merge all of LABELS, and certify with all rows of this file. Repeatable.",
)
@click.option("--max-request-usd", type=FiniteRange(0, min_open=True), help="As in `elle tune`, for a target on cost.")
@click.option("--allow-uncertified", is_flag=True, help="Write a policy without a certificate if none is possible.")
@seed_option("The seed of the folds and of the rows that are set aside.")
@ENCODER_DIR
@JSON
def recalibrate_verb(as_json: bool, ledger: str | None, since: datetime.datetime | None, **options: Any) -> None:
    """Merge LABELS (prompt, model, score) into PROBE as if its fit had had them, and refit its calibration maps.

    LABELS must be a random sample of the traffic. PROBE must be fitted with --keep-statistics. The new folder holds
    `probe`, and `policy.yaml` if a --policy was given and its targets can be certified on the labels that were set
    aside; if they cannot, the exit status is 3. Nothing is replaced, and nothing is activated.
    """
    from router.cli.updating.ledger_grades import labels_of_ledger
    from router.cli.updating.recalibrate_files import RecalibrateOptions, print_recalibration, recalibrate_files

    given = click.get_current_context().get_parameter_source("holdout") is not click.core.ParameterSource.DEFAULT
    if options["calibration"] and given:
        raise click.UsageError("give --holdout or --calibration, because with a file of its own nothing is set aside.")
    if options["calibration"] and options["policy"] is None:
        raise click.UsageError("--calibration certifies a policy; give --policy.")
    if ledger is None and since is not None:
        raise click.UsageError("--since chooses grades of a ledger; give --ledger.")
    if ledger is None and not options["labels"]:
        raise click.UsageError("give files of LABELS, or --ledger.")
    with labels_of_ledger(ledger, seconds(since), options["out"]) as files, progress_bar("encoding") as on_progress:
        options["labels"] = (*options["labels"], *files)
        summary = recalibrate_files(RecalibrateOptions(**options), on_progress)
    if as_json:
        print_json(summary.to_dict())
    else:
        print_recalibration(summary, stdout())
    if not summary.certified:
        raise SystemExit(NOT_CERTIFIED)


@click.command("forget", short_help="Remove labels from a probe, as if its fit had never had them.")
@PROBE
@click.argument("labels", nargs=-1, required=True, type=PATH)
@_OUT
@click.option("--skip-unknown", is_flag=True, help="Skip rows that the fit never saw, instead of refusing them.")
@ENCODER_DIR
@JSON
def forget_verb(as_json: bool, **options: Any) -> None:
    """Remove LABELS (prompt, model, score), such as those of a person, from PROBE.

    The sums of the fit become what they would be without these rows, up to rounding. LABELS must hold the rows as the
    fit read them, with all labels of each prompt. The command says what it cannot remove.
    """
    from router.cli.updating.forget_files import ForgetOptions, forget_files, say_forgotten

    with progress_bar("encoding") as on_progress:
        found = forget_files(ForgetOptions(**options), on_progress)
    if as_json:
        print_json(asdict(found))
    else:
        say_forgotten(found, options["out"])
