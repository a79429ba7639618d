"""Each rule chooses the right candidate, the safe default answers if need be, and properties hold for any numbers."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.asking.ask import Ask
from router.decision import Reason
from router.errors import NoEligibleCandidateError
from router.policies.candidates.candidate import Prices
from router.policies.choice import Choice, cheapest_choice, choose, is_strong
from router.policies.eligibility import check_eligibility
from router.policies.rules import Rules
from router.values import Overrides
from tests.router.policies.cases import decide, judged, make_ask, make_rules, needs_no_scores


class TestGainRule:
    def test_the_stronger_candidate_answers_when_its_gain_exceeds_the_threshold(self) -> None:
        choice = decide(make_rules(), make_ask(), Overrides(), judged(0.5, 0.3))
        assert (choice.chosen.name, choice.reason) == ("large", Reason.GAIN_ABOVE_THRESHOLD)
        assert choice.gain == pytest.approx(0.2)
        assert choice.threshold == pytest.approx(0.1)

    def test_a_hopeless_prompt_goes_to_the_cheap_candidate(self) -> None:
        choice = decide(make_rules(), make_ask(), Overrides(), judged(0.98, 0.95))
        assert (choice.chosen.name, choice.reason) == ("small", Reason.GAIN_BELOW_THRESHOLD)

    def test_a_gain_equal_to_the_threshold_stays_cheap(self) -> None:
        rules = make_rules({"kind": "gain", "thresholds": [0.25]})
        assert decide(rules, make_ask(), Overrides(), judged(0.5, 0.25)).chosen.name == "small"

    def test_a_useless_middle_tier_does_not_hide_a_useful_top_tier(self) -> None:
        rules = make_rules(names=("a", "b", "c"))
        choice = decide(rules, make_ask(), Overrides(), judged(0.6, 0.6, 0.1))
        assert choice.chosen.name == "c"
        assert choice.threshold == pytest.approx(0.2)

    def test_the_price_of_a_tier_that_may_not_answer_still_counts(self) -> None:
        rules = make_rules(names=("a", "b", "c"))
        denied = Overrides(denied_candidates=("b",))
        assert decide(rules, make_ask(), denied, judged(0.5, 0.0, 0.25)).chosen.name == "c"
        assert decide(rules, make_ask(), denied, judged(0.5, 0.0, 0.35)).chosen.name == "a"

    @given(
        risks=st.lists(st.floats(0, 1), min_size=2, max_size=6),
        data=st.data(),
    )
    def test_raising_a_threshold_never_moves_a_prompt_to_a_stronger_tier(
        self, risks: list[float], data: st.DataObject
    ) -> None:
        steps = len(risks) - 1
        low = data.draw(st.lists(st.floats(-1, 1), min_size=steps, max_size=steps))
        by = data.draw(st.floats(0, 1))
        high = [min(1.0, threshold + by) for threshold in low]
        names = tuple(f"m{i}" for i in range(len(risks)))
        lower, higher = (
            names.index(
                decide(
                    make_rules({"kind": "gain", "thresholds": thresholds}, names=names),
                    make_ask(),
                    Overrides(),
                    judged(*risks),
                ).chosen.name
            )
            for thresholds in (low, high)
        )
        value = [-risk - math.fsum(high[:i]) for i, risk in enumerate(risks)]
        # Equal values up to rounding may fall either way; anything else must not climb.
        assert higher <= lower or math.isclose(value[higher], value[lower], abs_tol=1e-9)

    @given(risk_small=st.floats(0, 1), risk_large=st.floats(0, 1), threshold=st.floats(-1, 1))
    def test_with_two_tiers_the_rule_is_gain_above_threshold(
        self, risk_small: float, risk_large: float, threshold: float
    ) -> None:
        rules = make_rules({"kind": "gain", "thresholds": [threshold]})
        chosen = decide(rules, make_ask(), Overrides(), judged(risk_small, risk_large)).chosen.name
        assert (chosen == "large") == (risk_small - risk_large > threshold)


CHEAP = Prices(input_usd_per_million_tokens=1, output_usd_per_million_tokens=1)
DEAR = Prices(input_usd_per_million_tokens=10, output_usd_per_million_tokens=10)


class TestCostRule:
    """100 input and 300 output tokens: 0.0004 USD at CHEAP, 0.004 at DEAR."""

    @staticmethod
    def rules(quality_per_usd: float, prices: tuple[Prices, ...] = (CHEAP, DEAR), **more: object) -> Rules:
        names = tuple(f"m{i}" for i in range(len(prices)))
        changes = {name: {"prices": price.model_dump()} for name, price in zip(names, prices, strict=True)}
        rule = {"kind": "cost", "quality_per_usd": quality_per_usd}
        return make_rules(rule, names=names, prices=prices, changes=changes, **more)  # type: ignore[arg-type]

    def test_a_more_expensive_answer_must_gain_enough_quality_for_its_price(self) -> None:
        # The step costs 0.0036 USD: at 50 per USD it must gain more than 0.18.
        above = decide(self.rules(50), make_ask(), Overrides(), judged(0.5, 0.3))
        assert (above.chosen.name, above.reason) == ("m1", Reason.GAIN_ABOVE_THRESHOLD)
        assert above.threshold == pytest.approx(0.18)
        assert above.gain == pytest.approx(0.2)
        below = decide(self.rules(60), make_ask(), Overrides(), judged(0.5, 0.3))
        assert (below.chosen.name, below.reason) == ("m0", Reason.GAIN_BELOW_THRESHOLD)

    def test_the_same_gain_buys_a_short_request_and_not_a_long_one(self) -> None:
        long = make_ask(input_tokens_estimate=10_000)
        assert decide(self.rules(20), make_ask(), Overrides(), judged(0.5, 0.3)).chosen.name == "m1"
        assert decide(self.rules(20), long, Overrides(), judged(0.5, 0.3)).chosen.name == "m0"

    def test_a_weight_of_zero_chooses_the_best_and_a_large_one_the_cheapest(self) -> None:
        judgement = judged(0.5, 0.1, 0.3)
        prices = (DEAR, CHEAP, CHEAP)
        assert decide(self.rules(0, prices), make_ask(), Overrides(), judgement).chosen.name == "m1"
        assert decide(self.rules(1e6, prices), make_ask(), Overrides(), judged(0.1, 0.5, 0.5)).chosen.name == "m1"
        assert decide(self.rules(-1e6, prices), make_ask(), Overrides(), judged(0.9, 0.1, 0.1)).chosen.name == "m0"

    def test_of_equal_candidates_the_cheaper_one_answers_wherever_it_is_listed(self) -> None:
        assert decide(self.rules(0, (DEAR, CHEAP)), make_ask(), Overrides(), judged(0.5, 0.5)).chosen.name == "m1"

    def test_candidates_that_may_not_answer_are_left_out(self) -> None:
        choice = decide(self.rules(0), make_ask(), Overrides(denied_candidates=("m1",)), judged(0.9, 0.1))
        assert (choice.chosen.name, choice.reason) == ("m0", Reason.ONLY_ELIGIBLE)

    def test_an_unfamiliar_prompt_goes_to_the_safe_default(self) -> None:
        rules = self.rules(1e6, max_leverage=0.5)
        assert decide(rules, make_ask(), Overrides(), judged(0.1, 0.9, leverage=0.6)).chosen.name == "m1"

    @given(
        risks=st.lists(st.floats(0, 1), min_size=2, max_size=5),
        low=st.floats(-1e4, 1e4),
        by=st.floats(0, 1e4),
        data=st.data(),
    )
    def test_a_larger_weight_of_cost_never_chooses_a_more_expensive_candidate(
        self, risks: list[float], low: float, by: float, data: st.DataObject
    ) -> None:
        numbers = data.draw(st.lists(st.integers(0, 50), min_size=len(risks), max_size=len(risks)))
        prices = tuple(Prices(input_usd_per_million_tokens=n, output_usd_per_million_tokens=n) for n in numbers)
        chosen = [
            decide(self.rules(number, prices), make_ask(), Overrides(), judged(*risks)) for number in (low, low + by)
        ]
        costs = [next(c.expected_cost_usd for c in x.candidates if c.candidate == x.chosen.name) for x in chosen]
        assert costs[0] is not None
        assert costs[1] is not None
        # What is bought twice at different prices of quality differs by rounding only.
        assert costs[1] <= costs[0] or by * (costs[1] - costs[0]) < 1e-9


class TestRiskBound:
    RULE = {"kind": "risk_bound", "max_risk": 0.3}  # noqa: RUF012

    def test_the_cheapest_within_the_bound_answers(self) -> None:
        choice = decide(make_rules(self.RULE), make_ask(), Overrides(), judged(0.2, 0.1))
        assert (choice.chosen.name, choice.reason) == ("small", Reason.WITHIN_RISK_BOUND)

    def test_cheapest_means_expected_cost_if_all_prices_are_known(self) -> None:
        prices = (
            Prices(input_usd_per_million_tokens=5, output_usd_per_million_tokens=5),
            Prices(input_usd_per_million_tokens=1, output_usd_per_million_tokens=1),
        )
        choice = decide(make_rules(self.RULE, prices=prices), make_ask(), Overrides(), judged(0.2, 0.1))
        assert choice.chosen.name == "large"

    def test_if_none_is_within_the_bound_the_least_risky_answers(self) -> None:
        choice = decide(make_rules(self.RULE), make_ask(), Overrides(), judged(0.5, 0.6))
        assert (choice.chosen.name, choice.reason) == ("small", Reason.NONE_WITHIN_RISK_BOUND)

    def test_max_risk_of_the_request_replaces_the_rule(self) -> None:
        choice = decide(make_rules(), make_ask(), Overrides(max_risk=0.55), judged(0.5, 0.1))
        assert (choice.chosen.name, choice.reason) == ("small", Reason.WITHIN_RISK_BOUND)


class TestMinGainOfTheRequest:
    @pytest.mark.parametrize(
        ("min_gain", "chosen"), [(-1.0, "large"), (0.19, "large"), (0.21, "small"), (1.0, "small")]
    )
    def test_min_gain_replaces_a_rule_of_any_kind(self, min_gain: float, chosen: str) -> None:
        for rule in (
            {"kind": "gain", "thresholds": [0.9]},
            TestRiskBound.RULE,
            {"kind": "fixed", "candidate": "small"},
        ):
            choice = decide(make_rules(rule), make_ask(), Overrides(min_gain=min_gain), judged(0.5, 0.3))
            assert choice.chosen.name == chosen
            assert choice.threshold == pytest.approx(min_gain)

    def test_min_gain_is_the_price_of_each_step_between_tiers(self) -> None:
        choice = decide(make_rules(names=("a", "b", "c")), make_ask(), Overrides(min_gain=0.2), judged(0.6, 0.6, 0.1))
        assert (choice.chosen.name, choice.threshold) == ("c", pytest.approx(0.4))

    def test_min_gain_changes_nothing_with_a_single_candidate(self) -> None:
        rules = make_rules({"kind": "fixed", "candidate": "a"}, names=("a",))
        assert decide(rules, make_ask(), Overrides(min_gain=0.2), judged(0.6)).chosen.name == "a"


class TestFallingBack:
    def test_an_unfamiliar_prompt_goes_to_the_safe_default(self) -> None:
        rules = make_rules(max_leverage=0.5)
        choice = decide(rules, make_ask(), Overrides(), judged(0.1, 0.1, leverage=0.6))
        assert (choice.chosen.name, choice.reason, choice.abstained) == ("large", Reason.ABSTAINED, True)

    def test_a_caller_who_accepts_any_risk_gets_the_cheap_candidate_for_an_unfamiliar_prompt(self) -> None:
        rules = make_rules(max_leverage=0.5)
        choice = decide(rules, make_ask(), Overrides(max_risk=1.0), judged(0.1, 0.1, leverage=0.6))
        assert (choice.chosen.name, choice.reason) == ("small", Reason.WITHIN_RISK_BOUND)
        assert decide(rules, make_ask(), Overrides(max_risk=0.99), judged(0.1, 0.1, leverage=0.6)).abstained

    def test_at_the_leverage_limit_the_router_still_judges(self) -> None:
        rules = make_rules(max_leverage=0.5)
        assert not decide(rules, make_ask(), Overrides(), judged(0.1, 0.1, leverage=0.5)).abstained

    def test_a_request_with_nothing_to_judge_goes_to_the_safe_default(self) -> None:
        choice = decide(make_rules(), make_ask(""), Overrides(), None)
        assert (choice.chosen.name, choice.reason) == ("large", Reason.ABSTAINED)

    def test_a_failed_judgement_has_another_reason_than_an_abstention(self) -> None:
        choice = decide(make_rules(), make_ask(), Overrides(), None, failed=True)
        assert (choice.chosen.name, choice.reason, choice.abstained) == ("large", Reason.FAILED_OPEN, False)

    def test_a_safe_default_that_may_not_answer_is_replaced_by_the_next_stronger(self) -> None:
        rules = make_rules(names=("a", "b", "c"), safe_default="b")
        choice = decide(rules, make_ask(), Overrides(denied_candidates=("b",)), None, failed=True)
        assert choice.chosen.name == "c"

    def test_without_a_stronger_candidate_the_strongest_eligible_one_answers(self) -> None:
        rules = make_rules(names=("a", "b", "c"), safe_default="c")
        choice = decide(rules, make_ask(), Overrides(denied_candidates=("c",)), None, failed=True)
        assert choice.chosen.name == "b"


class TestNeedsNoScores:
    def test_a_pin_and_a_single_candidate_need_no_scores(self) -> None:
        assert needs_no_scores(make_rules(), make_ask(), Overrides(pin="small"))
        assert needs_no_scores(make_rules(), make_ask(), Overrides(denied_candidates=("small",)))
        assert needs_no_scores(make_rules(), make_ask(), Overrides(denied_candidates=("small",), max_risk=0.1))

    def test_a_choice_among_several_and_a_fixed_rule_need_scores(self) -> None:
        fixed = make_rules({"kind": "fixed", "candidate": "small"})
        assert not needs_no_scores(make_rules(), make_ask(), Overrides())
        assert not needs_no_scores(fixed, make_ask(), Overrides())
        assert not needs_no_scores(fixed, make_ask(), Overrides(denied_candidates=("large",)))

    def test_a_request_that_nobody_may_answer_is_refused_before_any_score(self) -> None:
        fixed = make_rules({"kind": "fixed", "candidate": "small"})
        for rules, overrides in (
            (make_rules(), Overrides(denied_candidates=("small", "large"))),
            (make_rules(), Overrides(pin="small", denied_candidates=("small",))),
            (fixed, Overrides(denied_candidates=("small",))),
        ):
            with pytest.raises(NoEligibleCandidateError):
                needs_no_scores(rules, make_ask(), overrides)

    @given(risks=st.lists(st.floats(0, 1), min_size=1, max_size=4), data=st.data())
    def test_if_no_scores_are_needed_no_judgement_changes_the_choice(
        self, risks: list[float], data: st.DataObject
    ) -> None:
        names = tuple(f"m{i}" for i in range(len(risks)))
        rules = make_rules({"kind": "risk_bound", "max_risk": data.draw(st.floats(0, 1))}, names=names)
        overrides = Overrides(
            denied_candidates=tuple(sorted(data.draw(st.sets(st.sampled_from(names), max_size=len(names) - 1)))),
            max_risk=data.draw(st.none() | st.floats(0, 1)),
        )
        if needs_no_scores(rules, make_ask(), overrides):
            blind, seeing = (decide(rules, make_ask(), overrides, j) for j in (None, judged(*risks)))
            assert (blind.chosen, blind.reason) == (seeing.chosen, seeing.reason)


@given(
    risks=st.lists(st.floats(0, 1), min_size=1, max_size=5),
    data=st.data(),
)
def test_the_chosen_candidate_is_always_one_that_may_answer(risks: list[float], data: st.DataObject) -> None:
    names = tuple(f"m{i}" for i in range(len(risks)))
    denied = data.draw(st.sets(st.sampled_from(names)))
    rule: dict[str, object] = (
        {"kind": "gain", "thresholds": [0.05] * (len(names) - 1)}
        if len(names) > 1 and data.draw(st.booleans())
        else {"kind": "risk_bound", "max_risk": data.draw(st.floats(0, 1))}
    )
    rules = make_rules(rule, names=names, safe_default=data.draw(st.sampled_from(names)), max_leverage=0.5)
    judgement = judged(*risks, leverage=data.draw(st.floats(0, 1)))
    overrides = Overrides(denied_candidates=tuple(sorted(denied)))
    if denied == set(names):
        with pytest.raises(NoEligibleCandidateError):
            decide(rules, make_ask(), overrides, judgement)
    else:
        assert decide(rules, make_ask(), overrides, judgement).chosen.name not in denied


class TestBeyondALimit:
    """The cheapest candidate takes the place of a stronger one, unless the request rules it out."""

    RISKS = (0.9, 0.5, 0.1)

    def chosen(self, overrides: Overrides, ask: Ask | None = None, kept_by: str = "") -> tuple[bool, Choice | None]:
        rules = make_rules(names=("a", "b", "c"), changes={"a": {"context_window_tokens": 1000}})
        found = check_eligibility(rules, ask or make_ask(), overrides, kept_by=kept_by)
        choice = choose(found, judged(*self.RISKS))
        return is_strong(found, choice), cheapest_choice(found, choice)

    def test_a_stronger_choice_is_replaced_and_named(self) -> None:
        strong, cheap = self.chosen(Overrides())
        assert strong
        assert cheap is not None
        assert cheap.would_choose is not None
        assert (cheap.chosen.name, cheap.reason, cheap.would_choose.name) == ("a", Reason.OVER_LIMIT, "c")
        assert cheap.gain is not None

    def test_the_cheapest_is_the_cheapest_that_can_answer(self) -> None:
        strong, cheap = self.chosen(Overrides(), make_ask(input_tokens_estimate=5000))
        assert (strong, cheap and cheap.chosen.name) == (True, "b")
        strong, cheap = self.chosen(Overrides(pin="b"), make_ask(input_tokens_estimate=5000))
        assert not strong

    @pytest.mark.parametrize(
        ("overrides", "kept_by"),
        [
            (Overrides(pin="c"), ""),
            (Overrides(allowed_candidates=("b", "c")), ""),
            (Overrides(denied_candidates=("a",)), ""),
            (Overrides(), "c"),
        ],
    )
    def test_a_request_that_rules_the_cheapest_out_is_strong_and_has_no_cheap_choice(
        self, overrides: Overrides, kept_by: str
    ) -> None:
        assert self.chosen(overrides, kept_by=kept_by) == (True, None)

    def test_the_cheapest_choice_is_not_strong(self) -> None:
        assert not self.chosen(Overrides(pin="a"))[0]
        assert not self.chosen(Overrides(allowed_candidates=("a",)))[0]
