"""`elle compare`: estimate from a ledger how good and how expensive two policies would have been."""

from __future__ import annotations

import datetime
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from router.cli.options import JSON, PATH, seed_option
from router.cli.output import INCOMPLETE, print_json, progress_bar, stdout
from router.cli.running.ledger_options import LEDGER, since_option
from router.feedback.pieces import FeedbackKind
from router.ledger.settings import LedgerSettings
from router.plain_json import with_leaves

if TYPE_CHECKING:
    from router.comparing.compare import FigureComparison, PolicyComparison


@click.command("compare", short_help="Compare two policies by what a ledger holds.")
@click.argument("policy_a", type=PATH)
@click.argument("policy_b", type=PATH)
@LEDGER
@click.option(
    "--kind",
    type=click.Choice([kind.value for kind in FeedbackKind if kind is not FeedbackKind.RETRY]),
    default=FeedbackKind.CHECK.value,
    show_default=True,
    help="The kind of feedback that is quality. A retry is none: nobody says that there was none.",
)
@click.option("--name", metavar="NAME", help="Only feedback of this name, such as one of several checks.")
@since_option("Only what was decided at this time (UTC) or later.")
@seed_option("The seed of the bootstrap.")
@JSON
def compare_verb(policy_a: Path, policy_b: Path, ledger: str, since: datetime.datetime | None, **asked: Any) -> None:
    """Estimate how good and how expensive POLICY_A and POLICY_B would have been on the requests of a ledger.

    Neither is served for that. It needs decisions of a policy that explores (docs/compare.md). The exit status is 3 if
    the ledger holds too little to compare their quality.
    """
    from router.comparing.compare import compare
    from router.ledger.opening import opened_reader
    from router.ledger.reader import Span
    from router.policies.loading import load_policy

    policies = load_policy(policy_a), load_policy(policy_b)
    span = Span(since=None if since is None else since.replace(tzinfo=datetime.UTC).timestamp())
    with opened_reader(LedgerSettings(ledger)) as reader, progress_bar("decisions") as on_progress:
        total = reader.count(span)

        def told() -> Any:
            for done, decision in enumerate(reader.decisions(span), 1):
                yield decision
                if on_progress is not None:
                    on_progress(done, total)

        found = compare(told(), policies, FeedbackKind(asked["kind"]), name=asked["name"], seed=asked["seed"])
    names = _names(policy_a, policy_b)
    if asked["as_json"]:
        print_json(_as_dict(found, names))
    else:
        _print_comparison(found, names)
    if found.quality.why_not_enough:
        raise SystemExit(INCOMPLETE)


def _names(first: Path, second: Path) -> tuple[str, str]:
    """Return a name for each policy: that of its file without the suffix, or its path if both files have one name."""
    return (first.stem, second.stem) if first.stem != second.stem else (str(first), str(second))


def _as_dict(found: PolicyComparison, names: tuple[str, str]) -> dict[str, Any]:
    figures = {
        title: {
            "enough": not figure.why_not_enough,
            "why_not_enough": figure.why_not_enough or None,
            "policies": [
                {
                    "policy": name,
                    "overlap": asdict(overlap),
                    "estimates": {key: asdict(value) for key, value in estimates.items()},
                }
                for name, overlap, estimates in zip(names, figure.overlaps, figure.estimates, strict=True)
            ],
            "difference": {key: asdict(value) for key, value in figure.difference.items()},
        }
        for title, figure in (("quality", found.quality), ("cost_usd", found.cost_usd))
    }
    rest = {"agreement": found.agreement, "n_replayed": found.n_replayed, "left_out": found.left_out}
    return with_leaves(figures | rest, _none_for_nan)  # type: ignore[no-any-return]


def _none_for_nan(value: Any) -> Any:
    # JSON has no NaN.
    return None if isinstance(value, float) and value != value else value


def _print_comparison(found: PolicyComparison, names: tuple[str, str]) -> None:
    click.echo(
        f"{found.n_replayed:,} decisions were decided again; both policies choose the same candidate for "
        f"{found.agreement:.1%} of them."
    )
    for reason, count in sorted(found.left_out.items(), key=lambda one: -one[1]):
        click.echo(f"left out {count:,}: {reason}")
    for title, figure, digits in (("quality", found.quality, 3), ("cost of an answer, USD", found.cost_usd, 6)):
        _print_figure(title, figure, names, digits)


def _print_figure(title: str, figure: FigureComparison, names: tuple[str, str], digits: int) -> None:
    table = Table(title, "rows", "matched", "worth", "largest weight", "IPS", "self-normalised", "doubly robust")
    for name, overlap, estimates in zip(names, figure.overlaps, figure.estimates, strict=True):
        counts = (f"{overlap.n_rows:,}", f"{overlap.n_matched:,}", f"{overlap.effective:,.0f}")
        table.add_row(name, *counts, f"{overlap.max_weight:.1f}", *_cells(estimates, digits))
    table.add_row(f"{names[1]} - {names[0]}", "", "", "", "", *_cells(figure.difference, digits))
    stdout().print(table)
    if figure.why_not_enough:
        click.echo(f"NOT ENOUGH to compare {title}: {figure.why_not_enough}.")


def _cells(estimates: Any, digits: int) -> list[str]:
    if not estimates:
        return ["", "", ""]
    return [_cell(one, digits) for one in estimates.values()]


def _cell(estimate: Any, digits: int) -> str:
    if math.isnan(estimate.value):
        return "no row matches"
    if not estimate.is_known:
        return f"{estimate.value:.{digits}f} [too few]"
    return f"{estimate.value:.{digits}f} [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"
