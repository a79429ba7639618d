"""Show the explanation of a decision as plain JSON values for scripts, or as text for people."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from router.cli.render import decision_to_dict, describe_kinds, format_number
from router.explaining.parts import Explanation, Part
from router.explaining.sentences import plain_reason, why_no_parts

#: Kinds of a smaller share are left out of the table: they add nothing that three decimals would show.
_LEAST_SHARE = 0.0005


def explanation_to_dict(explanation: Explanation) -> dict[str, Any]:
    """Return the reason, the decision record and the parts as plain JSON values."""
    return {
        "reason": plain_reason(explanation.decision),
        "compared": explanation.compared,
        "parts": [dataclasses.asdict(part) for part in explanation.parts],
        "note": why_no_parts(explanation),
        "decision": decision_to_dict(explanation.decision),
    }


def print_explanation(explanation: Explanation, console: Console) -> None:
    """Print who answers and why, the nearest kinds, and the parts of the risks and of the gain."""
    decision = explanation.decision
    console.print(Text.assemble((decision.chosen, "bold"), f" ({decision.chosen_model}) answers"))
    console.print(Text(plain_reason(decision)))
    console.print()
    if note := why_no_parts(explanation):
        console.print(Text(note))
    if explanation.parts:
        console.print(_table(explanation))
        for line in _remarks(explanation):
            console.print(Text(line))
    digests = [f"{one.name!r} {one.digest[:12]}" for one in (decision.policy, decision.probe) if one is not None]
    console.print(Text(f"policy {', probe '.join(digests)}", style="dim"))


def _table(explanation: Explanation) -> Table:
    """Return the table of the parts: the risks of the candidates that were compared, or of all, and the gain."""
    decision = explanation.decision
    names = explanation.compared or tuple(one.candidate for one in decision.candidates)
    table = Table(box=None, pad_edge=False)
    table.add_column("what it adds")
    table.add_column("share", justify="right")
    for name in names:
        table.add_column(Text(f"risk of {name}"), justify="right")
    if explanation.compared:
        table.add_column("gain", justify="right")
    for number, part in enumerate(explanation.parts):
        if part.share is not None and part.share < _LEAST_SHARE:
            continue
        table.add_row(*_cells(explanation, part, names, sign="" if number == 0 else "+"))
    risks = {one.candidate: one.risk for one in decision.candidates}
    total = [Text(format_number(risks[name]), style="bold") for name in names]
    gain = [Text(f"{decision.gain:+.3f}", style="bold")] if decision.gain is not None and explanation.compared else []
    table.add_row(Text("sum", style="bold"), "", *total, *gain)
    return table


def _cells(explanation: Explanation, part: Part, names: tuple[str, ...], sign: str) -> Iterator[Text]:
    yield Text(f"{part.what}{' *' if part.assumed else ''}")
    yield Text("" if part.share is None else f"{100 * part.share:.0f} %")
    for name in names:
        yield Text(f"{part.risk[name]:{sign}z.3f}")
    if explanation.compared and part.gain is not None:
        yield Text(f"{part.gain:+z.3f}")


def _remarks(explanation: Explanation) -> Iterator[str]:
    decision = explanation.decision
    if any(part.assumed for part in explanation.parts):
        yield "* The losses of this kind were assumed, and not measured."
    if decision.kinds is not None and not decision.kinds.known:
        yield f"kinds: {describe_kinds(decision.kinds)}"
    if explanation.compared and decision.threshold is not None:
        base, stronger = explanation.compared
        yield f"The gain is how much better {stronger} is expected to be than {base}."
        yield f"It must exceed {decision.threshold:.3f} for {stronger} to answer."
