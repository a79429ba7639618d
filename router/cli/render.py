"""Show a routing decision as plain JSON values for scripts, or as a table for people."""

from __future__ import annotations

import dataclasses
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from router.decision import NearKinds, RoutingDecision
from router.explaining.reason_words import describe_reason
from router.money import amount_text


def decision_to_dict(decision: RoutingDecision) -> dict[str, Any]:
    """Return the decision record as plain JSON values."""
    record = dataclasses.asdict(decision)
    record["reason"] = decision.reason.value
    for row, candidate in zip(record["candidates"], decision.candidates, strict=True):
        row["eligible"] = candidate.eligible
    return record


def print_decision(decision: RoutingDecision, console: Console) -> None:
    """Print one decision: the chosen candidate and the reason, a table of all candidates, the figures."""
    chosen = Text(decision.chosen, "bold")
    console.print(
        chosen.append(f" ({decision.chosen_model})  {describe_reason(decision)}", "not bold"), highlight=False
    )
    console.print(_candidate_table(decision))
    console.print(
        f"difficulty {format_number(decision.difficulty)}, leverage {format_number(decision.leverage)}, "
        f"about {decision.input_tokens_estimate} input tokens, {decision.timings.total_s * 1e3:.1f} ms",
        highlight=False,
    )
    if decision.kinds is not None:
        console.print(f"kinds: {describe_kinds(decision.kinds)}", highlight=False)
    probe = f", probe {decision.probe.name!r} {decision.probe.digest[:12]}" if decision.probe else ""
    policy = f"policy {decision.policy.name!r} {decision.policy.digest[:12]}"
    console.print(policy + probe, style="dim", highlight=False)


def _candidate_table(decision: RoutingDecision) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("candidate")
    for header in ("risk", "raw loss", "cost USD"):
        table.add_column(header, justify="right")
    table.add_column("may answer")
    for row in decision.candidates:
        name = Text(row.candidate, "bold" if row.candidate == decision.chosen else "")
        cost = "-" if row.expected_cost_usd is None else amount_text(row.expected_cost_usd)
        numbers = (format_number(row.risk), format_number(row.raw), cost)
        left_out = f", without {', '.join(row.dropped_parameters)}" if row.dropped_parameters else ""
        answers = f"yes{left_out}" if row.eligible else "; ".join(row.ineligible_because)
        table.add_row(name, *numbers, answers)
    return table


def describe_kinds(kinds: NearKinds) -> str:
    """Return the nearest kinds with their shares, and whether the prompt is of one of them: "law exam 84 %, ..."."""
    named = ", ".join(f"{kind.name} {100 * kind.share:.0f} %" for kind in kinds.nearest)
    return named if kinds.known else f"none of the known ones; the nearest are {named}"


def format_number(value: float | None) -> str:
    """Return a number with three digits after the point, or "-" if the number is None."""
    return "-" if value is None else f"{value:.3f}"
