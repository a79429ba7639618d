"""`elle drift`: say whether the traffic, the risks or a certified loss have changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from router.cli.options import ENCODER_DIR, JSON, PATH, GroupedCommand
from router.cli.output import NOT_CERTIFIED, print_json, progress_bar, stdout
from router.cli.running import drift_options
from router.cli.running.ledger_options import LEDGER_PLACE

_GROUPS = {
    "The traffic": ("state", "ledger", *drift_options.BLOCK_NAMES),
    "Labels": ("labels", "policy_file", "encoder_dir"),
}


@click.command("drift", cls=GroupedCommand, groups=_GROUPS, short_help="Say whether traffic or risks have changed.")
@click.option("--state", type=PATH, help="The file that `elle serve --drift-state` keeps.")
@click.option(
    "--ledger",
    type=LEDGER_PLACE,
    metavar="PATH|URL",
    envvar="ELLE_LEDGER",
    show_envvar=True,
    help="A ledger, whose decisions are replayed.",
)
@drift_options.block_options
@click.option(
    "--labels",
    multiple=True,
    type=PATH,
    help="A file of outcomes of a random sample of the new traffic, as `elle collect` writes it; repeatable.",
)
@click.option("--policy", "policy_file", type=PATH, help="The policy whose risks and certificate --labels are about.")
@ENCODER_DIR
@JSON
def drift_verb(
    state: Path | None,
    ledger: str | None,
    labels: tuple[Path, ...],
    policy_file: Path | None,
    as_json: bool,
    **rest: Any,
) -> None:
    """Compare the traffic of each day with that of the first week, and fresh labels with what was promised.

    Traffic needs no label: kinds, languages, lengths, risks, gains and abstentions are compared, and a difference
    counts if it is large and sure. Labels are fed one by one to tests that may be looked at at any time: one of the
    certified loss, two of each candidate's risks. The exit status is 3 if something has changed.
    """
    from router.cli.steps.drift_files import (
        drift_to_dict,
        has_changed,
        print_drift,
        watch_labels,
        watches_of_ledger,
        watches_of_state,
    )

    settings = drift_options.drift_settings(rest)
    source = click.get_current_context().get_parameter_source("ledger")
    if state is not None and source is click.core.ParameterSource.ENVIRONMENT:
        # What is asked for by an option goes before what the environment says.
        ledger = None
    if state is not None and ledger is not None:
        raise click.UsageError("give --state or --ledger, not both.")
    if (state is None) == (ledger is None) and not (labels and state is None):
        raise click.UsageError("give --state or --ledger, or --labels with --policy.")
    if bool(labels) != (policy_file is not None):
        raise click.UsageError("--labels and --policy need each other.")
    watches = {} if state is None else watches_of_state(state, settings)
    if ledger is not None:
        from router.ledger.opening import opened_reader
        from router.ledger.settings import LedgerSettings

        with opened_reader(LedgerSettings(ledger)) as reader:
            watches = watches_of_ledger(reader.decisions(), settings)
    fed = None
    if labels and policy_file is not None:
        with progress_bar("deciding") as progress:
            fed = watch_labels(policy_file, labels, rest["encoder_dir"], progress)
    if as_json:
        print_json(drift_to_dict(watches, fed))
    else:
        print_drift(watches, fed, stdout())
    if has_changed(watches, fed):
        raise SystemExit(NOT_CERTIFIED)
