"""The verbs of `elle` that lead from a log to outcomes: ask the candidates of a policy, and grade their answers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from router.cli.options import JSON, PATH, FiniteRange, GroupedCommand, asking_options, require_other_than_input
from router.cli.output import INCOMPLETE, console_on, print_json, progress_bar, spending_bar, stdout
from router.money import usd_text

if TYPE_CHECKING:
    from router.collecting.collect import CollectOptions
    from router.collecting.jobs import CollectProgress
    from router.collecting.plan import CollectionPlan

_COLLECT_GROUPS = {
    "Which prompts": ("n", "select", "seed", "format", "encoder_dir"),
    "Grading": ("graders", "judges"),
    "Money and time": ("budget_usd", "max_calls", "max_output_tokens", "concurrency", "rates"),
    "Before anything is spent": ("dry_run", "plan", "max_loss", "yes"),
    "Output": ("out", "store", "force", "as_json"),
}


@click.command(
    "collect",
    cls=GroupedCommand,
    groups=_COLLECT_GROUPS,
    short_help="Ask models the prompts of a log, and grade the answers.",
)
@click.argument("prompts", nargs=-1, required=True, type=PATH)
@click.option("--policy", required=True, type=PATH, help="The policy file whose candidates are asked.")
@click.option("--out", required=True, type=PATH, help="The file of outcomes to write, .jsonl.")
@click.option("--n", default=600, show_default=True, type=click.IntRange(1), help="The number of prompts to ask.")
@click.option(
    "--select",
    type=click.Choice(["random", "informative"]),
    default="random",
    show_default=True,
    help="random: a uniform draw, which may certify. informative: prompts unlike each other, on which the models are "
    "expected to differ; only for the fit.",
)
@asking_options
@click.option("--store", type=PATH, help="The file that keeps all answers. Default: elle-collect.sqlite beside --out.")
@click.option("--dry-run", is_flag=True, help="Print what would be asked and what it costs, and end.")
@click.option("--plan", is_flag=True, help="Print how many labels a target needs, with what chance, and end.")
@click.option(
    "--max-loss",
    default=0.02,
    show_default=True,
    type=FiniteRange(0, 1, min_open=True, max_open=True),
    help="With --plan: the target on the mean quality lost.",
)
@click.option("--force", is_flag=True, help="Replace a file that no earlier run wrote.")
@JSON
def collect_verb(prompts: tuple[Path, ...], policy: Path, out: Path, as_json: bool, **options: Any) -> None:
    """Ask every candidate of a policy the prompts of a log, grade the answers, and write outcomes for `elle fit`.

    PROMPTS are files with a column prompt or messages, and optionally reference, choices, tests, group, weight, model
    and answer; or files that `elle import` reads. Answers in them count as those of their model.

    Every answer is kept in --store before the next step. The same command goes on where an earlier one was interrupted,
    and pays nothing twice. The exit status is 3 if it stopped before all prompts were done.
    """
    from router.collecting.collect import CollectionListener, collect, plan_collection
    from router.collecting.plan import label_needs
    from router.collecting.texts import print_collection, print_label_needs, print_plan

    require_other_than_input(click.get_current_context(), out)
    dry_run, plan, yes, max_loss = (options.pop(name) for name in ("dry_run", "plan", "yes", "max_loss"))
    asked = collect_options(policy, options)
    if plan:
        needs = label_needs(max_loss, asked.selection.n or 0)
        if as_json:
            print_json({"needs": [need.to_dict() for need in needs]})
        else:
            print_label_needs(needs, max_loss, stdout())
        return
    with progress_bar("encoding") as on_encoding:
        if dry_run:
            found = plan_collection(prompts, policy, out, asked, on_encoding)
            if as_json:
                print_json(found.to_dict())
            else:
                print_plan(found, stdout())
            return
        with spending_bar("asking") as report:
            watch = CollectionListener(
                lambda found: is_confirmed(found, yes=yes), lambda at: report_spending(at, report), on_encoding
            )
            summary = collect(prompts, policy, out, asked, watch)
    if summary is None:
        raise click.Abort
    if as_json:
        print_json(summary.to_dict())
    else:
        print_collection(summary, stdout())
    if summary.stopped is not None:
        raise SystemExit(INCOMPLETE)


def collect_options(policy: Path | None, options: dict[str, Any]) -> CollectOptions:
    """Return the options of collecting that the options of a verb ask for; those of `asking_options` are among them.

    policy: the policy file whose probe says which prompts are informative; None if no prompt is chosen by that.
    """
    from router.collecting.calls.asking import AskingLimits
    from router.collecting.collect import CollectOptions
    from router.collecting.sampling import Selection

    selection = Selection(
        n=options.pop("n"),
        how=options.pop("select", "random"),
        seed=options.pop("seed"),
        policy=policy,
        encoder_dir=options.pop("encoder_dir"),
    )
    limits = AskingLimits(options.pop("concurrency"), _per_minute(options.pop("rates")))
    return CollectOptions(selection=selection, limits=limits, **options)


def _per_minute(rates: Sequence[str]) -> dict[str, float]:
    found = {}
    for given in rates:
        model, _, calls = given.rpartition("=")
        try:
            rate = float(calls)
        except ValueError:
            rate = 0.0
        if not 0 < rate < float("inf"):
            raise click.UsageError(f"--rate must be calls a minute, as in 60 or gpt-5=60; got {given!r}.")
        found[model] = rate
    return found


def is_confirmed(plan: CollectionPlan, *, yes: bool) -> bool:
    """Show the plan on stderr, and return whether the user agrees to it. Without calls there is nothing to ask."""

    from router.collecting.texts import print_plan

    print_plan(plan, console_on(sys.stderr))
    if yes or not plan.calls:
        return True
    if not sys.stdin.isatty():
        raise click.UsageError("give --yes to make these calls; there is no terminal to ask on.")
    return click.confirm("Make these calls?", err=True)


def report_spending(at: CollectProgress, report: Callable[[int, int, str], None]) -> None:
    """Show how many prompts are done, and what is spent of what is expected."""
    expected = "" if at.expected_usd is None else f" of about {usd_text(at.expected_usd)}"
    report(at.n_done, at.n_prompts, f"{usd_text(at.spent_usd)}{expected}")
