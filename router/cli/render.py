"""Decisions for people and for scripts: plain JSON values, and tables for a terminal."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from router.values import CandidateRisk, RoutingDecision


def decision_to_dict(decision: RoutingDecision) -> dict[str, Any]:
    """The decision record as plain JSON values."""
    record = dataclasses.asdict(decision)
    record["reason"] = decision.reason.value
    for row, candidate in zip(record["candidates"], decision.candidates, strict=True):
        row["eligible"] = candidate.eligible
    return record


def print_decision(decision: RoutingDecision, console: Console) -> None:
    """One decision, for a person."""
    model = escape(decision.chosen_model)
    console.print(f"[bold]{decision.chosen}[/bold] ({model})  {say_reason(decision)}", highlight=False)
    table = Table(box=None, pad_edge=False)
    for header, justify in (("candidate", "left"), ("risk", "right"), ("raw loss", "right"), ("cost USD", "right")):
        table.add_column(header, justify="left" if justify == "left" else "right")
    table.add_column("may answer")
    for row in decision.candidates:
        mark = "[bold]" if row.candidate == decision.chosen else ""
        cells = (mark + row.candidate, number(row.risk), number(row.raw), number(row.expected_cost_usd, 6))
        table.add_row(*cells, "yes" if row.eligible else escape("; ".join(row.ineligible_because)))
    console.print(table)
    console.print(
        f"difficulty {number(decision.difficulty)}, leverage {number(decision.leverage)}, "
        f"about {decision.input_tokens_estimate} input tokens, {decision.timings.total_s * 1e3:.1f} ms",
        highlight=False,
    )
    probe = f", probe {decision.probe.name} {decision.probe.digest[:12]}" if decision.probe else ""
    console.print(f"policy {decision.policy.name} {decision.policy.digest[:12]}{probe}", style="dim", highlight=False)


def say_reason(decision: RoutingDecision) -> str:
    """The reason in words, with its numbers."""
    words = decision.reason.value.lower().replace("_", " ")
    if decision.abstained:
        return (
            f"{words}: unlike what the probe knows" if decision.leverage is not None else f"{words}: nothing to judge"
        )
    if decision.gain is not None and decision.threshold is not None:
        sign = ">" if decision.gain > decision.threshold else "<="
        return f"{words}: {decision.gain:+.3f} {sign} {decision.threshold:.3f}"
    return f"{words} {decision.threshold:.3f}" if decision.threshold is not None else words


def risks_in_short(candidates: Sequence[CandidateRisk]) -> list[str]:
    """The calibrated risk of each candidate, or why it may not answer."""
    return [number(c.risk) if c.eligible else f"{number(c.risk)} (not eligible)" for c in candidates]


def number(value: float | None, digits: int = 3) -> str:
    """A number, or a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"
