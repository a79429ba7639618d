"""The floor of a decision: who may stand in for the chosen candidate. A table, and a property."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.answering.fallback import candidates_to_ask, may_read_more
from router.decision import ArtifactRef, CandidateRisk, Reason, RoutingDecision, Timings
from router.policies.policy_file import PolicyFile

NAMES = ("a", "b", "c", "d")


def policy(fallback: str = "up", windows: tuple[int | None, ...] = (None,) * 4) -> PolicyFile:
    candidates = [
        {"name": name, "model": f"openai/{name}", "context_window_tokens": window}
        for name, window in zip(NAMES, windows, strict=True)
    ]
    data = {"schema": "elle.policy/1", "name": "p", "candidates": candidates, "safe_default": "d"}
    return PolicyFile.model_validate(data | {"rule": {"kind": "fixed", "candidate": "a"}, "fallback": fallback})


def decision(
    chosen: str, risks: tuple[float | None, ...], reason: Reason = Reason.GAIN_BELOW_THRESHOLD, ineligible: str = ""
) -> RoutingDecision:
    rows = tuple(
        CandidateRisk(name, f"openai/{name}", risk, risk, None, ("no",) if name in ineligible else ())
        for name, risk in zip(NAMES, risks, strict=True)
    )
    return RoutingDecision(
        decision_id="",
        requested="p",
        chosen=chosen,
        chosen_model=f"openai/{chosen}",
        reason=reason,
        difficulty=None,
        candidates=rows,
        threshold=None,
        gain=None,
        policy=ArtifactRef("p", "1", ""),
        probe=None,
        abstained=reason is Reason.ABSTAINED,
        leverage=None,
        timings=Timings(),
        session_id="",
        input_tokens_estimate=0,
    )


FALLING = (0.4, 0.3, 0.2, 0.1)
MIXED = (0.4, 0.2, 0.3, 0.1)
UNKNOWN = (None,) * 4


@pytest.mark.parametrize(
    ("case", "wanted"),
    [
        (decision("a", FALLING), "abcd"),
        (decision("c", FALLING), "cd"),
        (decision("d", FALLING), "d"),
        # A dearer candidate that is riskier for this prompt is a step down; a cheaper one that is less risky is not.
        (decision("b", MIXED), "bd"),
        (decision("c", MIXED), "cbd"),
        (decision("a", (0.4, 0.4, 0.4, 0.4)), "abcd"),
        (decision("a", FALLING, ineligible="bc"), "ad"),
        (decision("b", UNKNOWN), "bcd"),
        (decision("b", MIXED, Reason.ABSTAINED), "bcd"),
        (decision("b", MIXED, Reason.FAILED_OPEN), "bcd"),
        (decision("c", MIXED, Reason.SESSION_HELD), "cd"),
        (decision("a", FALLING, Reason.PINNED), "a"),
        (decision("a", UNKNOWN, Reason.FIXED), "a"),
        (decision("a", FALLING, Reason.ONLY_ELIGIBLE, ineligible="bcd"), "a"),
    ],
)
def test_only_candidates_at_or_above_the_floor_stand_in_cheapest_first(case: RoutingDecision, wanted: str) -> None:
    assert "".join(candidate.name for candidate in candidates_to_ask(policy(), case)) == wanted


def test_nobody_does_where_the_policy_says_so() -> None:
    assert [one.name for one in candidates_to_ask(policy("none"), decision("a", FALLING))] == ["a"]


@given(
    risks=st.tuples(*[st.floats(0, 1)] * 4),
    chosen=st.sampled_from(NAMES),
    ineligible=st.sets(st.sampled_from(NAMES)),
    reason=st.sampled_from(Reason),
)
def test_whatever_is_decided_nobody_stands_in_from_below(
    risks: tuple[float, ...], chosen: str, ineligible: set[str], reason: Reason
) -> None:
    made = decision(chosen, risks, reason, "".join(ineligible - {chosen}))
    first, *others = candidates_to_ask(policy(), made)
    assert first.name == chosen
    assert len({first.name, *(one.name for one in others)}) == 1 + len(others)
    for one in others:
        row = made.candidates[NAMES.index(one.name)]
        assert row.eligible
        assert NAMES.index(one.name) > NAMES.index(chosen) or row.risk <= risks[NAMES.index(chosen)]  # type: ignore[operator]


@pytest.mark.parametrize(
    ("window", "other", "wanted"), [(8, 16, True), (16, 8, False), (8, 8, False), (8, None, True), (None, 8, False)]
)
def test_what_is_too_long_for_one_goes_only_to_one_said_to_read_more(
    window: int | None, other: int | None, wanted: bool
) -> None:
    first, second, *_ = policy(windows=(window, other, 1, 1)).candidates
    assert may_read_more(second, first) is wanted
