"""A prompt that the probe does not know goes to the safe default, if the choice is close where the policy says so."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from router.decision import Reason
from router.policies.rules import Judgement
from router.values import Overrides
from tests.router.policies.cases import decide, judged, make_ask, make_rules


def unfamiliar(*risks: float) -> Judgement:
    return dataclasses.replace(judged(*risks), leverage=9.0)


def chosen(judgement: Judgement, rule: dict[str, Any] | None = None, **keys: Any) -> tuple[str, Reason, str]:
    rules = make_rules(*([rule] if rule else []), max_leverage=1.0, **keys)
    choice = decide(rules, make_ask(), Overrides(), judgement)
    return choice.chosen.name, choice.reason, choice.would_choose.name if choice.would_choose else ""


def test_an_unfamiliar_prompt_abstains_and_says_what_it_would_choose() -> None:
    assert chosen(unfamiliar(0.1, 0.1)) == ("large", Reason.ABSTAINED, "small")
    assert chosen(unfamiliar(0.9, 0.1)) == ("large", Reason.ABSTAINED, "large")
    assert chosen(judged(0.1, 0.1)) == ("small", Reason.GAIN_BELOW_THRESHOLD, "")


def test_the_record_of_an_abstention_holds_gain_and_threshold() -> None:
    choice = decide(make_rules(max_leverage=1.0), make_ask(), Overrides(), unfamiliar(0.5, 0.45))
    assert choice.reason is Reason.ABSTAINED
    assert choice.gain == pytest.approx(0.05)
    assert choice.threshold == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("risks", "expected"),
    [
        ((0.10, 0.10), "small"),  # better by 0.10, the whole price of the step
        ((0.20, 0.14), "small"),  # better by 0.04: close
        ((0.90, 0.10), "large"),  # the rule chooses the safe default anyway
    ],
)
def test_within_a_margin_only_close_choices_abstain(risks: tuple[float, float], expected: str) -> None:
    name, reason, would = chosen(unfamiliar(*risks), abstain_within=0.05)
    assert (reason is Reason.ABSTAINED) == (risks == (0.20, 0.14))
    assert (would or name) == expected


def test_a_bound_on_the_risk_abstains_where_the_risk_is_near_it() -> None:
    rule = {"kind": "risk_bound", "max_risk": 0.3}
    assert chosen(unfamiliar(0.28, 0.1), rule, abstain_within=0.05) == ("large", Reason.ABSTAINED, "small")
    assert chosen(unfamiliar(0.05, 0.1), rule, abstain_within=0.05) == ("small", Reason.WITHIN_RISK_BOUND, "")
    assert chosen(unfamiliar(0.05, 0.1), rule) == ("large", Reason.ABSTAINED, "small")
