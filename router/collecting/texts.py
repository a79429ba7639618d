"""Print plans and results of collecting for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from router.collecting.collect import CollectSummary
from router.collecting.plan import HOLDOUT, START_S, TOKENS_PER_S, CollectionPlan, LabelNeed, ModelPlan
from router.money import amount_text, usd_text


def print_plan(plan: CollectionPlan, console: Console) -> None:
    """Print what a collection asks, costs and takes, and what is assumed."""
    _say(console, f"{plan.n_prompts:,} of {plan.n_log:,} prompts ({plan.drawn}), graded by {', '.join(plan.graders)}.")
    table = Table()
    for header in ("model", "role"):
        table.add_column(header)
    for header in ("calls", "in the log", "in the store", "tokens in", "tokens out", "USD", "minutes"):
        table.add_column(header, justify="right")
    for one in plan.models:
        table.add_row(*_cells(one))
    console.print(table)
    if plan.expected_usd is None or plan.most_usd is None:
        _say(console, f"{plan.calls:,} calls, about {plan.minutes:.1f} minutes. Some prices are unknown.")
    else:
        _say(
            console,
            f"{plan.calls:,} calls, about {usd_text(plan.expected_usd)} (at most {usd_text(plan.most_usd)}) and "
            f"{plan.minutes:.1f} minutes, at list prices, if an upstream begins to answer after {START_S:g} s and "
            f"writes {TOKENS_PER_S:g} tokens a second.",
        )
    if plan.spent_usd:
        _say(console, f"Earlier runs for this file spent {usd_text(plan.spent_usd)}.")
    _say_counts(console, "left out", plan.left_out)
    for note in plan.notes:
        _say(console, f"  note: {note}")


def _cells(one: ModelPlan) -> tuple[str, ...]:
    usd = "unknown" if one.expected_usd is None else amount_text(one.expected_usd)
    counts = (one.calls, one.from_log, one.from_store, one.input_tokens, one.output_tokens)
    return (one.model, one.role, *(f"{count:,}" for count in counts), usd, f"{one.minutes:.1f}")


def print_collection(summary: CollectSummary, console: Console) -> None:
    """Print what a collection wrote, what it cost, and why it stopped if it did."""
    written = summary.written
    _say(
        console,
        f"Wrote {written.n_rows:,} rows to {summary.out}: {written.n_complete:,} of {summary.n_prompts:,} prompts have "
        f"a score of every candidate.",
    )
    for model, mean in written.mean_scores.items():
        _say(console, f"  {model}: {'no score' if mean is None else f'mean score {mean:.3f}'}")
    _say_counts(console, "without a score", written.without_score)
    _say(console, f"{summary.calls:,} calls for {usd_text(summary.spent_usd)} in all runs for this file.")
    if summary.stopped is not None:
        _say(console, f"Stopped early: {summary.stopped}")


def print_label_needs(needs: Sequence[LabelNeed], max_loss: float, console: Console) -> None:
    """Print how many labels a target needs, for policies of several true losses."""
    _say(console, f"To certify a mean quality loss of at most {max_loss:g} with 95 % confidence:")
    table = Table()
    for header in ("true loss", "answers that differ", "prompts that certify", "prompts to collect", "chance now"):
        table.add_column(header, justify="right")
    for need in needs:
        table.add_row(
            f"{need.mean_loss:.3f}",
            f"{need.differing:.0%}",
            "too many" if need.certifying is None else f"{need.certifying:,}",
            "too many" if need.to_collect is None else f"{need.to_collect:,}",
            f"{need.chance:.0%}",
        )
    console.print(table)
    _say(
        console,
        f"The first counts are for a chance of 80 %; {HOLDOUT:.0%} of the collected prompts certify. Nobody knows the "
        "true loss before there are labels: collect some, then `elle tune --plan` says it for your own policy.",
    )


def _say_counts(console: Console, what: str, counts: Mapping[str, int]) -> None:
    for why, count in counts.items():
        _say(console, f"  {what}, {why}: {count:,}")


def _say(console: Console, line: str) -> None:
    console.print(line, highlight=False, soft_wrap=True)
