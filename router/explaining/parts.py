"""Split the predicted losses, risks and gain of a decision into parts that add up to them (`explain`)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from probes.probe import DifficultyProbe
from router.decision import RoutingDecision
from router.errors import InvalidRequestError
from router.policies.loading import ServedPolicy

#: The names of the parts that are no kinds.
ALL_KINDS, TASK, WITHIN, ALONE = "all known kinds", "the task", "this prompt within its kind", "this prompt"


@dataclass(frozen=True, slots=True)
class Part:
    """Holds what one thing adds to the loss and the risk of each candidate, and to the gain.

    Attributes:
        what: a kind in words, or ALL_KINDS, TASK, WITHIN or ALONE.
        share: the share of the kind, 0 to 1; None if the part is no kind.
        assumed: True for a kind whose losses in the fit are assumptions.
        loss, risk: what is added for each candidate, by name; the first part is where the sum begins.
        gain: what is added to the gain; None if the decision compared no gains.
    """

    what: str
    share: float | None
    assumed: bool
    loss: Mapping[str, float]
    risk: Mapping[str, float]
    gain: float | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """Holds a decision with its parts.

    Attributes:
        decision: the decision record.
        parts: the parts; empty if the prompt was not judged, or if the probe knows no kinds.
        compared: the names of the two candidates whose risks the gain compares, the cheaper one first; None without a
            gain.
        knows_kinds: True if the probe of the policy knows kinds.
    """

    decision: RoutingDecision
    parts: tuple[Part, ...]
    compared: tuple[str, str] | None
    knows_kinds: bool


def explain(decision: RoutingDecision, policy: ServedPolicy) -> Explanation:
    """Return the parts of a decision that this policy has made. It needs no encoder, only record and probe.

    The predicted loss of candidate j is linear in the features: l_j(x) = c_j x + b_j. With m_k the mean features of
    kind k, its loss is L_jk = l_j(m_k), and the mean over all kinds is L_j. For the nearest kinds of the record, with
    shares p_k, the parts of the loss are

        l_j(x) = L_j  +  sum_k p_k (L_jk - L_j)  +  offset of the task  +  rest_j,

    and rest_j is what this prompt adds within its kind. A prompt of no known kind has no parts of kinds.

    The risk r_j = g_j(l_j) is a monotone map of the loss. A part of the loss moves it by its size times the mean slope
    of g_j between L_j and l_j(x), so that the risks add up too: this is the price of Aumann and Shapley (1974, "Values
    of Non-Atomic Games") for one variable. The gain is the difference of two risks, and so is each of its parts.

    Raises InvalidRequestError for a decision that another probe has made.
    """
    probe = policy.probe
    if decision.probe != policy.probe_ref:
        raise InvalidRequestError(
            f"the decision must have been made with the probe of policy {policy.ref.name!r}; it was made with another."
        )
    pair = compared(decision)
    knows_kinds = probe is not None and probe.kinds is not None
    if probe is None or decision.kinds is None or any(one.raw is None for one in decision.candidates):
        return Explanation(decision, (), pair, knows_kinds)
    return Explanation(decision, _parts(decision, probe, policy.columns, pair), pair, knows_kinds)


def compared(decision: RoutingDecision) -> tuple[str, str] | None:
    """Return the names of the candidates whose risks the gain of a decision compares, the cheaper one first."""
    if decision.gain is None or decision.threshold is None:
        return None
    risks = {one.candidate: one.risk for one in decision.candidates if one.eligible and one.risk is not None}
    selected = decision.would_choose or decision.chosen
    above = decision.gain > decision.threshold
    for other in risks:
        base, stronger = (other, selected) if above else (selected, other)
        if other != selected and risks[base] - risks[stronger] == decision.gain:
            return base, stronger
    return None


def _parts(
    decision: RoutingDecision, probe: DifficultyProbe, columns: Sequence[int], pair: tuple[str, str] | None
) -> tuple[Part, ...]:
    assert probe.kinds is not None  # noqa: S101  (the caller has looked)
    assert decision.kinds is not None  # noqa: S101
    picked = list(columns)
    coef, intercept = probe.linear.coef[picked].astype(np.float64), probe.linear.intercept[picked].astype(np.float64)
    of_kinds = probe.kinds.means.astype(np.float64) @ coef.T + intercept
    base = of_kinds.mean(axis=0)
    steps: list[tuple[str, float | None, bool, np.ndarray]] = [(ALL_KINDS, None, False, base)]
    for kind in decision.kinds.nearest if decision.kinds.known else ():
        own = of_kinds[probe.kinds.names.index(kind.name)]
        steps.append((kind.name, kind.share, kind.assumed, kind.share * (own - base)))
    offset = probe.offset_of(decision.task)
    if offset is not None:
        steps.append((TASK, None, False, offset[picked].astype(np.float64)))
    loss = np.array([one.raw for one in decision.candidates], dtype=np.float64)
    rest = loss - np.sum([step for *_, step in steps], axis=0)
    steps.append((WITHIN if decision.kinds.known else ALONE, None, False, rest))
    risks = _risks(decision, probe, picked, [step for *_, step in steps])
    names = [one.candidate for one in decision.candidates]
    return tuple(
        Part(what, share, assumed, _named(names, step), risk, None if pair is None else risk[pair[0]] - risk[pair[1]])
        for (what, share, assumed, step), risk in zip(steps, risks, strict=True)
    )


def _risks(
    decision: RoutingDecision, probe: DifficultyProbe, columns: Sequence[int], steps: Sequence[np.ndarray]
) -> list[dict[str, float]]:
    """Return what each step of the loss adds to the risk of each candidate; the last step takes what is rounded."""
    found: list[dict[str, float]] = [{} for _ in steps]
    for j, (one, column) in enumerate(zip(decision.candidates, columns, strict=True)):
        assert one.raw is not None  # noqa: S101  (the caller has looked)
        assert one.risk is not None  # noqa: S101
        begin = probe.calibrators[column].predict_one(float(steps[0][j]))
        moved = one.raw - float(steps[0][j])
        slope = (one.risk - begin) / moved if abs(moved) > 1e-12 else 0.0
        values = [begin, *(slope * float(step[j]) for step in steps[1:-1])]
        for place, value in zip(found, [*values, one.risk - math.fsum(values)], strict=True):
            place[one.candidate] = value
    return found


def _named(names: Sequence[str], values: np.ndarray) -> dict[str, float]:
    return dict(zip(names, values.tolist(), strict=True))
