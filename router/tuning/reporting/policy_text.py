"""Write what `elle evaluate --policy` says: one sentence, its estimates, a warning, and a row for each rule."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from probes.measures.bootstrap import Interval
from router.money import amount_text, usd_text
from router.tuning.judging.policy_evaluation import PolicyEvaluation
from router.tuning.judging.policy_figures import RuleEvaluation

#: A warning is given if the probe was fitted on at least this share of the prompts.
_SEEN_SHARE = 0.01

#: Columns of the table of rules.
HEADERS = ("rule", "answered by", "quality", "lost", "USD per 1,000", "saved", "observed", "abstained")


def policy_sentence(found: PolicyEvaluation) -> str:
    """Return which share each candidate gets, at what quality and cost, compared with always the strong one."""
    own, strong = found.own, found.always_strong
    going = [f"{1000 * share:.0f} go to {name}" for name, share in own.shares.items()]
    parts = [
        f"Of 1,000 requests {_listed(going)}.",
        f"Their mean quality is {_number(own.quality)}; always {found.strong} has {strong.quality.value:.3f}, so "
        f"{_difference(own.lost)}.",
    ]
    if own.cost_usd_per_1k is None:
        parts.append("What they cost is not known: give the candidates prices.")
    else:
        parts.append(f"1,000 requests cost {usd_text(own.cost_usd_per_1k.value)}{_saving(found)}.")
    return " ".join(parts)


def _saving(found: PolicyEvaluation) -> str:
    saved, strong = found.own.saved, found.always_strong.cost_usd_per_1k
    if saved is None or strong is None:
        return ""
    word, low, high = "is saved", saved.low, saved.high
    if saved.value < 0:
        word, low, high = "more is spent", -saved.high, -saved.low
    share = f"{abs(saved.value):.0%} {word}" + (f" ({low:+.0%} to {high:+.0%})" if low != high else "")
    return f"; always {found.strong} costs {usd_text(strong.value)}, so {share}"


def policy_estimates(found: PolicyEvaluation) -> tuple[str, ...]:
    """Return a sentence for each number of `policy_sentence` that rests on an estimate, not on an observation."""
    own, strong = found.own, found.always_strong
    said = []
    for one, of in ((own, "the policy's choices"), (strong, f"always {found.strong}")):
        if one.observed_share < 1.0:
            low, high = one.quality_bounds
            said.append(
                f"{1 - one.observed_share:.1%} of the scores of {of} were not observed and are estimated by "
                f"{found.estimated_by}; whatever they are, the mean lies between {low:.3f} and {high:.3f}."
            )
    if own.observed_share < 1.0 or strong.observed_share < 1.0:
        low, high = own.lost_bounds
        said.append(
            f"The intervals do not cover errors of these estimates; whatever the scores are, the loss lies between "
            f"{low:+.3f} and {high:+.3f}."
        )
    if own.cost_estimated_share:
        said.append(
            f"{own.cost_estimated_share:.1%} of the costs are estimated: the data lack their token counts, so the "
            "prompt's length and the candidate's expected_output_tokens stand in."
        )
    return tuple(said)


def policy_warning(found: PolicyEvaluation) -> str | None:
    """Return what makes the figures flatter the policy, or None if nothing does."""
    if found.n_seen_in_fit < _SEEN_SHARE * found.n or not found.n_seen_in_fit:
        return None
    rest = ""
    if found.unseen is not None:
        rest = f" On the other {found.n - found.n_seen_in_fit:,}: quality {_number(found.unseen.quality)}, "
        rest += f"{_difference(found.unseen.lost)}."
    return (
        f"{found.n_seen_in_fit:,} of these {found.n:,} prompts have a text that the probe was fitted on, so the "
        f"figures may flatter it.{rest}"
    )


def policy_json(found: PolicyEvaluation) -> dict[str, Any]:
    """Return plain JSON values, the sentence first."""
    return {
        "sentence": policy_sentence(found),
        "estimates": list(policy_estimates(found)),
        "warning": policy_warning(found),
        "policy": found.policy,
        "weak": found.weak,
        "strong": found.strong,
        "n": found.n,
        "n_refused": found.n_refused,
        "n_seen_in_fit": found.n_seen_in_fit,
        "unseen": None if found.unseen is None else asdict(found.unseen),
        "period": found.period,
        "rules": [asdict(one) for one in found.rules],
        "notes": list(found.notes),
        "data": [asdict(source) for source in found.data],
    }


def print_policy(found: PolicyEvaluation, console: Console) -> None:
    """Print for people the sentence, what in it is estimated, and a row for each rule."""
    for text in (policy_sentence(found), *policy_estimates(found)):
        console.print(text, highlight=False)
    console.print(figure_table(HEADERS, [cells_of(one) for one in found.rules]))
    for note in found.notes:
        console.print(note, style="dim", highlight=False)


def figure_table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Return a table of rows whose first cell is a name and whose others are figures."""
    table = Table(box=None, pad_edge=False)
    for place, header in enumerate(headers):
        table.add_column(header, justify="left" if not place else "right")
    for row in rows:
        table.add_row(*row)
    return table


def cells_of(one: RuleEvaluation) -> tuple[str, ...]:
    """Return the row of a rule in the table, with a cell for each of HEADERS."""
    cost, saved = one.cost_usd_per_1k, one.saved
    return (
        one.name,
        ", ".join(f"{name} {share:.1%}" for name, share in one.shares.items() if share),
        f"{one.quality.value:.3f} [{one.quality.low:.3f}, {one.quality.high:.3f}]",
        f"{one.lost.value:+.3f} [{one.lost.low:+.3f}, {one.lost.high:+.3f}]",
        "-" if cost is None else f"{amount_text(cost.value)} [{amount_text(cost.low)}, {amount_text(cost.high)}]",
        "-" if saved is None else f"{saved.value:.1%} [{saved.low:.1%}, {saved.high:.1%}]",
        f"{one.observed_share:.1%}",
        f"{one.abstained_share:.1%}",
    )


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + f" and {parts[-1]}"


def _number(interval: Interval) -> str:
    return f"{interval.value:.3f} (95 % interval {interval.low:.3f} to {interval.high:.3f})"


def _difference(lost: Interval) -> str:
    if lost.low == lost.high == 0.0:
        return "nothing is lost"
    word, low, high = ("lost", lost.low, lost.high) if lost.value >= 0 else ("gained", -lost.high, -lost.low)
    return f"{abs(lost.value):.3f} is {word} ({low:+.3f} to {high:+.3f})"
