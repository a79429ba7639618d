"""The exact edges of a choice: equal is not above, nobody is weaker than the safe default, every number is recorded."""

from __future__ import annotations

import pytest

from router.decision import Reason
from router.errors import InvalidRequestError, NoEligibleCandidateError
from router.policies.candidates.candidate import Prices
from router.policies.choice import choose
from router.policies.eligibility import check_eligibility, expected_cost_usd
from router.policies.policy_file import GainRule
from router.policies.rules import Judgement, rule_in_force
from router.values import Capability, HeldCandidate, Overrides
from tests.router.policies.cases import decide, judged, make_ask, make_rules, needs_no_scores

THREE = ("a", "b", "c")
PRICES = Prices(input_usd_per_million_tokens=1, output_usd_per_million_tokens=2)


class TestRiskBound:
    @pytest.mark.parametrize("prices", [None, (PRICES, PRICES)])
    def test_a_risk_equal_to_the_bound_is_within_it_and_the_record_names_the_bound(
        self, prices: tuple[Prices, Prices] | None
    ) -> None:
        choice = decide(make_rules(prices=prices), make_ask(), Overrides(max_risk=0.25), judged(0.25, 0.1))
        assert (choice.chosen.name, choice.reason) == ("small", Reason.WITHIN_RISK_BOUND)
        assert (choice.threshold, choice.gain) == (0.25, None)

    def test_where_nobody_is_within_it_the_least_risk_answers_wherever_it_stands(self) -> None:
        for risks, name in (((0.9, 0.4, 0.5), "b"), ((0.4, 0.9, 0.5), "a"), ((0.9, 0.5, 0.4), "c")):
            choice = decide(make_rules(names=THREE), make_ask(), Overrides(max_risk=0.3), judged(*risks))
            assert (choice.chosen.name, choice.reason) == (name, Reason.NONE_WITHIN_RISK_BOUND)
            assert choice.threshold == 0.3

    def test_a_session_keeps_a_candidate_whose_risk_is_the_bound_itself(self) -> None:
        held, ask = HeldCandidate("large", 10, 1), make_ask(in_tool_loop=True)
        choice = decide(make_rules(), ask, Overrides(max_risk=0.25), judged(0.1, 0.25), held=held)
        assert (choice.chosen.name, choice.reason) == ("large", Reason.SESSION_HELD)


class TestJudgement:
    def test_the_record_has_both_numbers_of_every_candidate(self) -> None:
        judgement = Judgement(raw=(1.5, -0.5), risk=(0.6, 0.2), difficulty=0.5, leverage=0.0)
        rows = decide(make_rules(), make_ask(), Overrides(), judgement).candidates
        assert [(row.raw, row.risk) for row in rows] == [(1.5, 0.6), (-0.5, 0.2)]

    @pytest.mark.parametrize("risks", [(0.1,), (0.1, 0.2, 0.3)])
    def test_one_of_another_number_of_candidates_is_an_error_and_never_cut_to_fit(
        self, risks: tuple[float, ...]
    ) -> None:
        with pytest.raises(ValueError, match="zip"):
            decide(make_rules(), make_ask(), Overrides(), judged(*risks))

    def test_so_are_prices_of_another_number_of_candidates(self) -> None:
        with pytest.raises(ValueError, match="zip"):
            decide(make_rules(prices=(PRICES, PRICES, PRICES)), make_ask(), Overrides(), judged(0.1, 0.2))

    def test_a_prompt_as_far_away_as_the_limit_is_still_judged(self) -> None:
        rules = make_rules(max_leverage=0.5)
        assert decide(rules, make_ask(), Overrides(), judged(0.5, 0.45, leverage=0.5)).chosen.name == "small"
        assert decide(rules, make_ask(), Overrides(), judged(0.5, 0.45, leverage=0.51)).reason is Reason.ABSTAINED


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (Overrides(max_risk=1.5), "max_risk must be 0 to 1, got 1.5."),
        (Overrides(min_gain=-1.5), "min_gain must be -1 to 1, got -1.5."),
        (Overrides(max_cost_usd=-2.0), "max_cost_usd must be a finite number of 0 or more, got -2.0."),
    ],
)
def test_a_number_out_of_range_is_told_with_its_range(overrides: Overrides, words: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        decide(make_rules(), make_ask(), overrides, None)
    assert str(caught.value) == words


class TestDefaults:
    def test_a_prompt_that_nobody_judged_and_whose_judging_did_not_fail_is_abstained_from(self) -> None:
        eligibility = check_eligibility(make_rules(), make_ask(), Overrides())
        assert choose(eligibility, None).reason is Reason.ABSTAINED
        assert choose(eligibility, None, judging_failed=True).reason is Reason.FAILED_OPEN

    def test_in_a_tool_loop_a_stronger_candidate_takes_over_from_one_that_may_not_go_on(self) -> None:
        held, overrides = HeldCandidate("b", 1, 1), Overrides(denied_candidates=("b",))
        risks = judged(0.1, 0.1, 0.1)
        loop = decide(make_rules(names=THREE), make_ask(in_tool_loop=True), overrides, risks, held=held)
        assert loop.chosen.name == "c"
        assert decide(make_rules(names=THREE), make_ask(), overrides, risks, held=held).chosen.name == "a"


class TestSafeDefault:
    def test_it_answers_itself_where_it_may_though_a_stronger_one_may_too(self) -> None:
        rules = make_rules(names=THREE, safe_default="b")
        assert decide(rules, make_ask(), Overrides(), None).chosen.name == "b"

    def test_else_the_next_stronger_one_and_else_the_strongest_there_is(self) -> None:
        rules = make_rules(names=("a", "b", "c", "d"), safe_default="b")
        assert decide(rules, make_ask(), Overrides(denied_candidates=("b",)), None).chosen.name == "c"
        rules = make_rules(names=THREE, safe_default="c")
        assert decide(rules, make_ask(), Overrides(denied_candidates=("c",)), None).chosen.name == "b"
        rules = make_rules(names=("a", "b", "c", "d"), safe_default="d")
        assert decide(rules, make_ask(), Overrides(denied_candidates=("d",)), None).chosen.name == "c"


def test_the_least_gain_of_a_caller_is_asked_of_every_step_once() -> None:
    file = make_rules(names=THREE).file
    assert rule_in_force(file, Overrides(min_gain=0.25)) == GainRule(kind="gain", thresholds=(0.25, 0.25))
    alone = make_rules({"kind": "fixed", "candidate": "a"}, names=("a",)).file
    assert rule_in_force(alone, Overrides(min_gain=0.25)) == alone.rule


def test_a_cache_that_has_expired_saves_not_even_one_token() -> None:
    # A cold request of the holder costs 12,000 millionths of a USD; one cached token would save nine of them.
    holder = Prices(
        input_usd_per_million_tokens=10, output_usd_per_million_tokens=30, cached_input_usd_per_million_tokens=1
    )
    cheaper = Prices(input_usd_per_million_tokens=9.996, output_usd_per_million_tokens=30)
    ask, cold = make_ask(input_tokens_estimate=1200), HeldCandidate("large", 1000, 301)
    choice = decide(make_rules(prices=(cheaper, holder)), ask, Overrides(), judged(0.3, 0.29), held=cold)
    assert choice.chosen.name == "small"


def test_a_first_request_is_expected_to_find_nothing_cached() -> None:
    prices = Prices(
        input_usd_per_million_tokens=10, output_usd_per_million_tokens=0, cached_input_usd_per_million_tokens=1
    )
    candidate = make_rules().file.candidates[0]
    assert expected_cost_usd(candidate, prices, make_ask()) == pytest.approx(0.001, abs=1e-12)


class TestWhoMayAnswer:
    def test_text_needs_a_candidate_that_reads_text_and_no_text_does_not(self) -> None:
        rules = make_rules(changes={"small": {"capabilities": ["image"]}, "large": {"capabilities": ["text", "image"]}})
        image = frozenset({Capability.IMAGE})
        silent = decide(rules, make_ask("", needs=image), Overrides(), judged(0.1, 0.1))
        assert silent.chosen.name == "small"
        spoken = decide(rules, make_ask("what is this?", needs=image), Overrides(), judged(0.1, 0.1))
        assert spoken.candidates[0].ineligible_because == ("cannot handle text",)

    @pytest.mark.parametrize(
        ("number", "words"),
        [
            (1, "content parts of unknown type 'k0'"),
            (3, "content parts of unknown type 'k0', 'k1', 'k2'"),
            (4, "content parts of unknown type 'k0', 'k1', 'k2' and 1 more"),
            (1003, "content parts of unknown type 'k0', 'k1', 'k2' and 1,000 more"),
        ],
    )
    def test_a_message_names_three_unknown_kinds_and_counts_the_others(self, number: int, words: str) -> None:
        ask = make_ask(unknown_parts=tuple(f"k{i}" for i in range(number)))
        rules = make_rules(pass_unknown_parts=False)
        with pytest.raises(NoEligibleCandidateError) as caught:
            decide(rules, ask, Overrides(), None)
        assert f"(small: {words}; large: {words})" in str(caught.value)

    def test_the_error_says_of_whom_it_speaks_and_joins_reasons_and_candidates(self) -> None:
        rules = make_rules(changes={"small": {"context_window_tokens": 50}})
        denied = Overrides(denied_candidates=("small", "large"))
        with pytest.raises(NoEligibleCandidateError) as caught:
            decide(rules, make_ask(), denied, None)
        assert str(caught.value).startswith(
            "no candidate may answer this request (small: among denied_candidates, context window of 50 tokens, about "
            "100 needed; large: among denied_candidates). "
        )
        with pytest.raises(NoEligibleCandidateError) as caught:
            decide(rules, make_ask(), Overrides(pin="small"), None)
        assert str(caught.value).startswith("the pinned candidate may not answer this request (small: context window ")

    def test_of_a_fixed_rule_it_names_the_fixed_candidate_only(self) -> None:
        rules = make_rules({"kind": "fixed", "candidate": "small"})
        for ask_for in (decide, lambda *args: needs_no_scores(*args[:3])):
            with pytest.raises(NoEligibleCandidateError) as caught:
                ask_for(rules, make_ask(), Overrides(denied_candidates=("small",)), None)
            assert str(caught.value).startswith(
                "the policy asks one candidate only, which may not answer this request (small: among denied_candidates)"
            )

    def test_a_cost_equal_to_the_bound_may_be_paid(self) -> None:
        cost = expected_cost_usd(make_rules().file.candidates[0], PRICES, make_ask())
        assert cost is not None
        choice = decide(make_rules(prices=(PRICES, PRICES)), make_ask(), Overrides(max_cost_usd=cost), judged(0.9, 0.1))
        assert choice.chosen.name == "large"
        dearer = Prices(input_usd_per_million_tokens=1.1, output_usd_per_million_tokens=2)
        rows = decide(make_rules(prices=(PRICES, dearer)), make_ask(), Overrides(max_cost_usd=cost), None).candidates
        assert rows[1].ineligible_because == ("expected cost of 0.000710 USD, above max_cost_usd of 0.000700 USD",)
