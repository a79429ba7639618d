"""Print the evaluation of a probe: a table of rankings, a table of slices, and how to read them."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from router.money import usd_text
from router.tuning.judging.cross_validation import BASELINE_FOLDS
from router.tuning.judging.probe_evaluation import EXPECT, PROBE, Evaluation
from router.tuning.judging.ranking import Ranking

#: Slices that are shown of each way of slicing.
_SHOWN_SLICES = 8

#: Columns of the table of rankings. The second interval's header ends in a space, because headers are keys here.
_WIDE = ("APGR", "95 %", "ahead by", "95 % ", "CPT20", "CPT50", "CPT80", "AIQ", "saved", "AUROC", "ECE")
_NARROW = ("APGR", "95 %", "ahead by", "95 % ", "CPT50")
_WIDE_FROM = 120

_HOW_TO_READ = (
    "APGR: share of the quality gap recovered, averaged over shares of strong calls (random 0.5); beside it, "
    "by how much predicted gain is ahead, paired. CPT: least share of strong calls that recovers this part of "
    "the gap. AIQ: mean quality over the cost axis under the concave hull. Saved: cost against always strong, "
    "at its quality. AUROC, ECE: of the weak model's risk; baselines are calibrated on these very prompts. "
    "Lift: quality above random choice at equal strong share."
)


def print_evaluation(found: Evaluation, console: Console) -> None:
    """Print the figures of a probe and of the baselines as tables for people."""
    title = (
        f"{found.strong} (score {found.strong_score:.3f}) over {found.weak} ({found.weak_score:.3f}), "
        f"{found.n:,} prompts, {_how_judged(found)}"
    )
    print_rankings(console, title, {PROBE: found.probe, **found.baselines}, _constants(found))
    for name, apgr in found.splits.items():
        text = f"{name:<6} split: APGR {apgr.value:.3f} ({apgr.low:.3f} to {apgr.high:.3f}); {EXPECT[name]}."
        console.print(text, highlight=False)
    console.print(_slice_table(found))
    if found.n_estimated_costs:
        console.print(f"{found.n_estimated_costs:,} of {2 * found.n:,} costs are estimates.", highlight=False)
    for name, why in found.skipped.items():
        console.print(f"not run: {name}: {why}", style="dim", highlight=False)
    console.print(_HOW_TO_READ, style="dim")


def print_rankings(
    console: Console, title: str, rankings: Mapping[str, Ranking], remarks: Mapping[str, str] | None = None
) -> None:
    """Print rankings as a table for people, and below it each remark on a line of its own."""
    shown = _WIDE if console.width >= _WIDE_FROM else _NARROW
    table = Table(box=None, pad_edge=False)
    table.add_column("ranking by", no_wrap=True)
    for header in shown:
        table.add_column(header.strip(), justify="right", no_wrap=True)
    for name, ranking in rankings.items():
        cells = _cells(ranking)
        table.add_row(name.replace("_", " "), *(cells[header] for header in shown))
    # This is not the table's own title, because that would be wrapped at the table's width.
    console.print(title, highlight=False)
    console.print(table)
    for name, remark in (remarks or {}).items():
        console.print(f"{name}: {remark}", highlight=False, style="dim")


def _cells(ranking: Ranking) -> dict[str, str]:
    ahead = ranking.ahead.get("apgr")
    shares = {"CPT20": "cpt20", "CPT50": "cpt50", "CPT80": "cpt80", "AIQ": "aiq", "saved": "cost_saved"}
    plain = {"AUROC": "auroc", "ECE": "ece"}
    return {
        "APGR": f"{ranking.apgr.value:.3f}",
        "95 %": f"{ranking.apgr.low:.3f} to {ranking.apgr.high:.3f}",
        "ahead by": "" if ahead is None else f"{ahead.value:+.3f}",
        "95 % ": "" if ahead is None else f"{ahead.low:+.3f} to {ahead.high:+.3f}",
        **{header: _cell(ranking.value(name), ".1%") for header, name in shares.items()},
        **{header: _cell(ranking.value(name), ".3f") for header, name in plain.items()},
    }


def _cell(value: float | None, shape: str) -> str:
    return "-" if value is None else format(value, shape)


def _how_judged(found: Evaluation) -> str:
    if found.split is None:
        return f"the probe as it is; trained baselines by {BASELINE_FOLDS}-fold cross-fitting on these data"
    by = "whole groups left out" if found.split == "group" else "split by prompt text"
    return f"refitted in {found.folds} folds, {by}"


def _constants(found: Evaluation) -> dict[str, str]:
    costs = (found.weak_cost_usd, found.strong_cost_usd)
    return {
        f"always {name}": f"quality {score:.3f}" + ("" if cost is None else f", {usd_text(1000 * cost)} per 1,000")
        for name, score, cost in zip(
            (found.weak, found.strong), (found.weak_score, found.strong_score), costs, strict=True
        )
    }


def _slice_table(found: Evaluation) -> Table:
    table = Table(box=None, pad_edge=False, title="Slices, worst lift first", title_justify="left")
    table.add_column("slice")
    for header in ("prompts", "weak", "strong", "lift", "95 %", "APGR"):
        table.add_column(header, justify="right")
    for by, slices in found.slices.items():
        for label, one in sorted(slices.items(), key=lambda item: item[1].lift.value)[:_SHOWN_SLICES]:
            lift = one.lift
            table.add_row(
                f"{by} {label}",
                f"{one.n:,}",
                f"{one.weak_score:.3f}",
                f"{one.strong_score:.3f}",
                f"{lift.value:+.3f}",
                f"{lift.low:+.3f} to {lift.high:+.3f}",
                "-" if one.apgr is None else f"{one.apgr.value:.3f}",
            )
    return table
