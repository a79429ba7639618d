"""A session keeps the candidate that answered it last in tool loops and for its prompt cache, and else gives it up."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.decision import Reason
from router.policies.candidates.candidate import Prices
from router.policies.rules import Rules
from router.values import Capability, HeldCandidate, Overrides
from tests.router.policies.cases import decide, judged, make_ask, make_rules, needs_no_scores

WEAK = Prices(input_usd_per_million_tokens=5, output_usd_per_million_tokens=30)
STRONG = Prices(
    input_usd_per_million_tokens=10, output_usd_per_million_tokens=30, cached_input_usd_per_million_tokens=1
)
HELD = HeldCandidate("large", input_tokens=1000, idle_s=10)
EASY, HARD = (0.3, 0.29), (0.9, 0.1)


def rules_of(weak: Prices | None = WEAK, strong: Prices | None = STRONG, **keys: Any) -> Rules:
    return make_rules(prices=(weak, strong), **keys)


def who(rules: Rules, risk: tuple[float, float], held: HeldCandidate | None, **facts: Any) -> tuple[str, Reason]:
    choice = decide(rules, make_ask(input_tokens_estimate=1200, **facts), Overrides(), judged(*risk), held=held)
    return choice.chosen.name, choice.reason


class TestHolding:
    def test_at_a_human_turn_a_stronger_candidate_takes_over_freely(self) -> None:
        held = HeldCandidate("small", 1_000_000, 0)
        assert who(rules_of(), HARD, held) == ("large", Reason.GAIN_ABOVE_THRESHOLD)

    def test_a_weaker_candidate_takes_over_only_if_it_is_cheaper_with_a_cold_cache(self) -> None:
        # Staying: 1,000 tokens at 1 and 200 at 10 USD per million, 0.003; leaving: 1,200 at 5, 0.006. Output is equal.
        assert who(rules_of(), EASY, HELD) == ("large", Reason.SESSION_HELD)
        cheaper = Prices(input_usd_per_million_tokens=2, output_usd_per_million_tokens=30)
        assert who(rules_of(weak=cheaper), EASY, HELD) == ("small", Reason.GAIN_BELOW_THRESHOLD)

    def test_at_equal_cost_the_session_stays(self) -> None:
        equal = Prices(input_usd_per_million_tokens=2.5, output_usd_per_million_tokens=30)
        assert who(rules_of(weak=equal), EASY, HELD) == ("large", Reason.SESSION_HELD)

    def test_a_session_is_not_held_when_the_prompt_cache_has_expired(self) -> None:
        assert who(rules_of(), EASY, HeldCandidate("large", 1000, 300)) == ("large", Reason.SESSION_HELD)
        assert who(rules_of(), EASY, HeldCandidate("large", 1000, 301))[0] == "small"
        patient = rules_of(changes={"large": {"prompt_cache_s": 3600}})
        assert who(patient, EASY, HeldCandidate("large", 1000, 301))[0] == "large"

    def test_no_more_tokens_are_cached_than_the_request_has(self) -> None:
        choice = decide(rules_of(), make_ask(), Overrides(), judged(*EASY), held=HeldCandidate("large", 10**9, 0))
        # 100 tokens: all cached at 1, not a negative cost; the other takes 100 at 5.
        assert choice.chosen.name == "large"

    @pytest.mark.parametrize("strong", [None, STRONG.model_copy(update={"cached_input_usd_per_million_tokens": None})])
    def test_without_a_price_of_cached_input_the_session_is_not_held(self, strong: Prices | None) -> None:
        assert who(rules_of(strong=strong), EASY, HELD)[0] == "small"

    def test_inside_a_tool_loop_the_candidate_stays_whatever_the_rule_says(self) -> None:
        for name, risk in (("small", HARD), ("large", EASY)):
            held = HeldCandidate(name, 0, 10**6)
            assert who(rules_of(), risk, held, in_tool_loop=True) == (name, Reason.SESSION_HELD)

    def test_if_the_rule_chooses_the_held_candidate_the_reason_is_that_of_the_rule(self) -> None:
        assert who(rules_of(), HARD, HELD) == ("large", Reason.GAIN_ABOVE_THRESHOLD)

    def test_a_held_choice_has_neither_threshold_nor_gain(self) -> None:
        choice = decide(rules_of(), make_ask(), Overrides(), judged(*EASY), held=HELD)
        assert (choice.reason, choice.threshold, choice.gain) == (Reason.SESSION_HELD, None, None)
        assert [c.risk for c in choice.candidates] == list(EASY)


class TestReleasing:
    def test_a_held_candidate_that_may_not_answer_any_more_is_released(self) -> None:
        rules = make_rules(
            names=("a", "b", "c"),
            prices=(WEAK, WEAK, STRONG),
            changes={n: {"capabilities": ["text", "image"]} for n in "ab"},
        )
        held = HeldCandidate("c", 1000, 0)
        for loop in (False, True):
            ask = make_ask(needs=frozenset({Capability.IMAGE}), in_tool_loop=loop)
            choice = decide(rules, ask, Overrides(), judged(0.5, 0.45, 0.1), held=held)
            assert (choice.chosen.name, choice.reason) == ("a", Reason.GAIN_BELOW_THRESHOLD)
            assert not needs_no_scores(rules, ask, Overrides(), held)

    def test_a_held_candidate_that_the_policy_no_longer_has_is_released(self) -> None:
        assert who(rules_of(), EASY, HeldCandidate("gone", 1000, 0), in_tool_loop=True)[0] == "small"

    def test_a_pin_and_a_fixed_rule_are_preferred_to_the_session(self) -> None:
        ask = make_ask(in_tool_loop=True)
        assert decide(rules_of(), ask, Overrides(pin="small"), None, held=HELD).reason is Reason.PINNED
        fixed = make_rules({"kind": "fixed", "candidate": "small"})
        assert decide(fixed, ask, Overrides(), None, held=HELD).reason is Reason.FIXED
        # Also where the holder may not go on, and somebody above the fixed one could.
        three = make_rules({"kind": "fixed", "candidate": "a"}, names=("a", "b", "c"), prices=(WEAK, WEAK, STRONG))
        choice = decide(three, ask, Overrides(denied_candidates=("b",)), None, held=HeldCandidate("b", 1, 1))
        assert (choice.chosen.name, choice.reason) == ("a", Reason.FIXED)

    def test_a_policy_may_ignore_sessions(self) -> None:
        assert who(rules_of(sessions="ignore"), EASY, HELD, in_tool_loop=True)[0] == "small"

    def test_a_candidate_that_breaks_the_risk_bound_is_not_held(self) -> None:
        ask = make_ask(in_tool_loop=True)
        overrides = Overrides(max_risk=0.3)
        assert not needs_no_scores(rules_of(), ask, overrides, HELD)
        choice = decide(rules_of(), ask, overrides, judged(0.2, 0.5), held=HELD)
        assert (choice.chosen.name, choice.reason) == ("small", Reason.WITHIN_RISK_BOUND)
        choice = decide(rules_of(), ask, overrides, judged(0.2, 0.25), held=HELD)
        assert (choice.chosen.name, choice.reason) == ("large", Reason.SESSION_HELD)

    def test_inside_a_tool_loop_of_a_held_session_no_scores_are_needed(self) -> None:
        assert needs_no_scores(rules_of(), make_ask(in_tool_loop=True), Overrides(), HELD)
        assert not needs_no_scores(rules_of(), make_ask(in_tool_loop=True), Overrides(), None)
        assert not needs_no_scores(rules_of(), make_ask(), Overrides(), HELD)


@given(
    risk=st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)),
    tokens=st.integers(0, 10**6),
    idle_s=st.floats(0, 1000),
    held=st.sampled_from("abc"),
    denied=st.sets(st.sampled_from("abc"), max_size=2),
    loop=st.booleans(),
)
def test_a_session_only_ever_keeps_its_own_candidate_or_follows_the_rule(
    risk: tuple[float, ...], tokens: int, idle_s: float, held: str, denied: set[str], loop: bool
) -> None:
    rules = make_rules(names=("a", "b", "c"), prices=(WEAK, WEAK, STRONG))
    ask, overrides = make_ask(in_tool_loop=loop), Overrides(denied_candidates=tuple(sorted(denied)))
    alone = decide(rules, ask, overrides, judged(*risk))
    choice = decide(rules, ask, overrides, judged(*risk), held=HeldCandidate(held, tokens, idle_s))
    assert choice.chosen.name not in denied
    if loop and any(name >= held for name in set("abc") - denied):
        assert choice.chosen.name >= held  # never down in the middle, not even where the holder may not go on
    else:
        assert choice.chosen == alone.chosen or choice.chosen.name == held
    if not loop:
        assert choice.chosen.name >= alone.chosen.name  # never below what the rule decides
