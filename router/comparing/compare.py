"""Compare two policies by a ledger (`compare`): quality by feedback, and cost, each with estimates and intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from probes.measures.bootstrap import Interval
from router.comparing.estimators import LoggedRewards, Overlap, estimate, estimated_difference, overlap_of
from router.comparing.replay import NotReplayableError, replayed, was_by_rule
from router.errors import ConfigError
from router.feedback.pieces import FeedbackKind
from router.feedback.weighing import opinions_of
from router.policies.loading import ServedPolicy
from router.quoting import quoted

if TYPE_CHECKING:
    from router.ledger.reader import LoggedDecision


@dataclass(frozen=True, slots=True)
class FigureComparison:
    """Compares two policies in one figure.

    Attributes:
        overlaps: of the first policy and of the second.
        estimates: by estimator of the first policy and of the second; empty without rows.
        difference: by estimator, how much the second exceeds the first; empty without rows.
        without_rows: what to say if no decision has the figure.
    """

    overlaps: tuple[Overlap, Overlap]
    estimates: tuple[dict[str, Interval], dict[str, Interval]]
    difference: dict[str, Interval]
    without_rows: str

    @property
    def why_not_enough(self) -> str:
        """Return why the figure cannot be compared, in words; empty if it can."""
        if not self.overlaps[0].n_rows:
            return self.without_rows
        return next((why for one in self.overlaps if (why := one.why_not_enough)), "")


@dataclass(frozen=True, slots=True)
class PolicyComparison:
    """Holds the comparison of two policies.

    Attributes:
        quality: by feedback of the kind that was asked for, 0 to 1.
        cost_usd: by the cost of one answer.
        agreement: the share of replayed requests for which both choose the same candidate.
        n_replayed: the number of requests that both policies decided again.
        left_out: how many decisions say nothing, by why.
    """

    quality: FigureComparison
    cost_usd: FigureComparison
    agreement: float
    n_replayed: int
    left_out: dict[str, int]


@dataclass(slots=True)
class _Row:
    weights: tuple[float, float]
    supported: tuple[bool, bool]
    expected_risk: tuple[float, float, float]
    expected_cost: tuple[float, float, float]
    quality: float | None
    cost: float | None


def compare(
    decisions: Iterable[LoggedDecision],
    policies: tuple[ServedPolicy, ServedPolicy],
    kind: FeedbackKind,
    *,
    name: str | None = None,
    seed: int = 0,
) -> PolicyComparison:
    """Return what a ledger says about two policies.

    Args:
        decisions: logged decisions with their answers and feedback.
        policies: the two policies; differences are of the second minus the first.
        kind: the kind of feedback that is quality.
        name: only feedback of this name, such as one of several checks; None takes the first of the kind.
        seed: of the bootstrap.

    Raises ConfigError if no decision can be replayed.
    """
    left_out: Counter[str] = Counter()
    rows: list[_Row] = []
    n_same = 0
    for decision in decisions:
        try:
            row, is_same = _row(decision, policies, kind, name)
        except NotReplayableError as error:
            left_out[str(error)] += 1
            continue
        rows.append(row)
        n_same += is_same
    if not rows:
        if not left_out:
            raise ConfigError("the ledger has no such decisions; look at `elle ledger stats` and --since.")
        why = "; ".join(f"{reason}: {count:,}" for reason, count in left_out.most_common(3))
        raise ConfigError(f"no decision of the ledger says anything about these policies ({why}).")
    named = "" if name is None else f" with the name {quoted(name)}"
    no_quality = f"none of these decisions has feedback of the kind {kind.value}{named} (docs/feedback.md)"
    no_cost = "none of these decisions has an answer whose cost is known; give the candidates of the policy `prices`"
    quality = _figure(rows, lambda row: row.quality, lambda row: _quality(row.expected_risk), seed, no_quality)
    cost = _figure(rows, lambda row: row.cost, lambda row: row.expected_cost, seed, no_cost)
    return PolicyComparison(quality, cost, n_same / len(rows), len(rows), dict(left_out))


def _row(
    decision: LoggedDecision, policies: tuple[ServedPolicy, ServedPolicy], kind: FeedbackKind, name: str | None
) -> tuple[_Row, bool]:
    if not was_by_rule(decision):
        raise NotReplayableError(f"no rule decided ({decision.values['reason']})")
    if decision.outcome is not None and decision.answered_by != decision.chosen:
        raise NotReplayableError("another candidate answered, or none")
    found = [replayed(policy, decision) for policy in policies]
    by_name = {one.candidate: one for one in decision.candidates}
    chosen, propensity = decision.chosen, float(decision.values["propensity"])
    names = (chosen, found[0][0], found[1][0])
    # Only what the logged policy could have drawn is supported; it draws among candidates with a price.
    explores = propensity < 1
    supported = [one == chosen or (explores and by_name[one].cost is not None) for one in names[1:]]
    quality = next((o.value for o in opinions_of(decision) if o.kind is kind and name in (None, o.name)), None)
    risks = tuple(np.nan if (risk := by_name[one].risk) is None else risk for one in names)
    costs = tuple(np.nan if (cost := by_name[one].cost) is None else cost for one in names)
    row = _Row(
        weights=(1 / propensity if names[1] == chosen else 0.0, 1 / propensity if names[2] == chosen else 0.0),
        supported=(supported[0], supported[1]),
        expected_risk=(risks[0], risks[1], risks[2]),
        expected_cost=(costs[0], costs[1], costs[2]),
        quality=quality,
        cost=None if decision.outcome is None else decision.outcome.cost_usd,
    )
    return row, names[1] == names[2]


def _quality(risks: tuple[float, float, float]) -> tuple[float, float, float]:
    return 1 - risks[0], 1 - risks[1], 1 - risks[2]


def _figure(
    rows: list[_Row],
    reward: Callable[[_Row], float | None],
    expected: Callable[[_Row], tuple[float, float, float]],
    seed: int,
    without_rows: str,
) -> FigureComparison:
    known = [(row, value) for row in rows if (value := reward(row)) is not None]
    rewards = np.array([value for _, value in known])
    # Without a model's number the doubly robust estimate becomes the inverse propensity score of that row.
    model = np.nan_to_num(np.array([expected(row) for row, _ in known]).reshape(-1, 3))
    both = [
        LoggedRewards(
            weights=np.array([row.weights[which] for row, _ in known]),
            rewards=rewards,
            expected_of_logged=model[:, 0],
            expected_of_policy=model[:, 1 + which],
            supported=np.array([row.supported[which] for row, _ in known], dtype=bool),
        )
        for which in (0, 1)
    ]
    overlaps = overlap_of(both[0]), overlap_of(both[1])
    if not known:
        return FigureComparison(overlaps, ({}, {}), {}, without_rows)
    estimates = estimate(both[0], seed=seed), estimate(both[1], seed=seed)
    difference = estimated_difference(both[0], both[1], seed=seed)
    return FigureComparison(overlaps, estimates, difference, without_rows)
