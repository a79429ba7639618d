"""`elle canary`: try a new policy on a growing share of the traffic, and undo it if it loses too much."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from router.cli.options import AUTHOR, JSON, PATH, FiniteRange
from router.cli.output import NOT_CERTIFIED, print_json, progress_bar, stdout
from router.cli.running.ledger_options import LEDGER
from router.quoting import quoted

_STATE = click.option(
    "--state",
    type=PATH,
    default="canary.json",
    show_default=True,
    help="The file of the canary, which `elle serve --canary` follows.",
)


@click.group("canary", short_help="Try a new policy on a share of the traffic, step by step.")
def canary_verb() -> None:
    """Try a new policy on a share of the traffic, widen it step by step, and roll it back if it loses too much.

    The service must serve both policies and follow the canary's file: elle serve --policy old.yaml --policy new.yaml
    --ledger ledger.db --canary canary.json. Then run `elle canary step` now and then, for example every hour.
    """


@canary_verb.command("start", short_help="Begin a canary.")
@click.argument("new", metavar="NEW")
@click.option(
    "--base",
    required=True,
    metavar="NAME",
    help="The policy that serves now; the canary takes a share of its requests.",
)
@click.option(
    "--share",
    type=FiniteRange(0.01, 100),
    default=5.0,
    show_default=True,
    help="The first share of the requests, in percent. The next ones are 25, 50 and 100.",
)
@click.option(
    "--max-loss",
    required=True,
    type=FiniteRange(-1, 0.98, min_open=True, max_open=True),
    help="The largest mean loss against the reference candidate that is acceptable. A loss is a share of answers: 0.02 "
    "is two more bad answers in a hundred.",
)
@click.option(
    "--labels-per-step",
    type=click.IntRange(1),
    default=200,
    show_default=True,
    help="The number of labels that each step needs before the next one.",
)
@_STATE
@AUTHOR
@click.option("--reason", default="", help="Why, for the audit trail.")
@click.option("--force", is_flag=True, help="Replace a canary that is not over.")
@JSON
def canary_start_verb(new: str, state: Path, author: str, as_json: bool, **options: Any) -> None:
    """Begin a canary of the policy NEW, by its name in the service."""
    if new == options["base"]:
        raise click.UsageError(f"NEW and --base are one policy, {quoted(new)}; a canary tries another one.")
    from router.cli.steps.canary_files import canary_to_dict, start_canary

    file = start_canary(state, new, author=author, **options)
    if as_json:
        print_json(canary_to_dict(file))
        return
    plan = file.canary.plan
    click.echo(
        f"{plan.policy} decides {100 * file.canary.share:g} % of the requests of {plan.base}, in every service that "
        f"serves both and follows {state} (elle serve --canary {state})."
    )


@canary_verb.command("step", short_help="Weigh new evidence, and widen, pause or roll back.")
@_STATE
@LEDGER
@click.option("--reference", required=True, metavar="CANDIDATE", help="The candidate that losses are measured against.")
@click.option(
    "--labels",
    multiple=True,
    type=PATH,
    help="Further labels: a file of outcomes, whose prompt_id is the id of a decision drawn by chance; repeatable.",
)
@click.option(
    "--author",
    metavar="NAME",
    default="elle canary step",
    show_default=True,
    help="Who does it, for the audit trail.",
)
@JSON
def canary_step_verb(state: Path, author: str, as_json: bool, **options: Any) -> None:
    """Feed the canary with what the ledger says, and let it widen, pause or roll back.

    Labels are the grades that `elle ledger label` has put into the ledger, and those of --labels.

    The exit status is 3 if the canary has been rolled back.
    """
    from router.cli.steps.canary_files import canary_to_dict, print_canary, step_canary
    from router.rollout.canary import CanaryStatus

    with progress_bar("reading decisions") as progress:
        file, left_out = step_canary(state, author=author, on_progress=progress, **options)
    if as_json:
        print_json({**canary_to_dict(file), "left_out": left_out})
    else:
        print_canary(file, stdout())
        for why in left_out:
            click.echo(why)
    if file.canary.status is CanaryStatus.ROLLED_BACK:
        raise SystemExit(NOT_CERTIFIED)


@canary_verb.command("status", short_help="Show a canary, its evidence and its audit trail.")
@_STATE
@JSON
def canary_status_verb(state: Path, as_json: bool) -> None:
    """Show a canary, its evidence and its audit trail."""
    from router.cli.steps.canary_files import canary_to_dict, print_canary
    from router.rollout.canary_file import read_canary

    file = read_canary(state)
    if as_json:
        print_json(canary_to_dict(file))
    else:
        print_canary(file, stdout())


@canary_verb.command("stop", short_help="End a canary; the policy that serves decides everything again.")
@_STATE
@AUTHOR
@click.option("--reason", required=True, help="Why, for the audit trail.")
@JSON
def canary_stop_verb(state: Path, author: str, reason: str, as_json: bool) -> None:
    """End a canary: within two seconds the policy that served before decides all requests again."""
    from router.cli.steps.canary_files import canary_to_dict, stop_canary

    file = stop_canary(state, reason, author)
    if as_json:
        print_json(canary_to_dict(file))
        return
    canary = file.canary
    told = canary.status.value.replace("_", " ")
    click.echo(f"The canary of {canary.plan.policy} is {told}, and {canary.plan.base} decides everything again.")
