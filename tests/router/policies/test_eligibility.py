"""A candidate that breaks a bound of the request may not answer, and overrides that cannot hold are refused."""

from __future__ import annotations

import math

import pytest

from router.decision import Reason
from router.errors import InvalidRequestError, NoEligibleCandidateError, UnknownCandidateError
from router.policies.candidates.candidate import Prices
from router.values import ApiFormat, Capability, Overrides
from tests.router.policies.cases import decide, judged, make_ask, make_rules


def test_a_pin_is_obeyed() -> None:
    choice = decide(make_rules(), make_ask(), Overrides(pin="small"), judged(0.9, 0.1))
    assert (choice.chosen.name, choice.reason) == ("small", Reason.PINNED)


def test_a_pin_does_not_lift_capabilities() -> None:
    ask = make_ask(needs=frozenset({Capability.IMAGE}))
    with pytest.raises(NoEligibleCandidateError, match="small: cannot handle image"):
        decide(make_rules(), ask, Overrides(pin="small"), judged(0.9, 0.1))


def test_the_only_candidate_with_a_needed_capability_answers() -> None:
    rules = make_rules(changes={"large": {"capabilities": ["text", "image"]}})
    ask = make_ask(needs=frozenset({Capability.IMAGE}))
    choice = decide(rules, ask, Overrides(), judged(0.1, 0.9))
    assert (choice.chosen.name, choice.reason) == ("large", Reason.ONLY_ELIGIBLE)


def test_the_error_names_each_candidate_and_each_broken_bound() -> None:
    rules = make_rules(changes={"small": {"context_window_tokens": 50}})
    with pytest.raises(NoEligibleCandidateError) as caught:
        decide(rules, make_ask(), Overrides(denied_candidates=("large",)), judged(0.1, 0.1))
    assert "small: context window of 50 tokens, about 100 needed" in str(caught.value)
    assert "large: among denied_candidates" in str(caught.value)


def test_the_callers_output_bound_counts_against_the_context_window() -> None:
    rules = make_rules(changes={"small": {"context_window_tokens": 150}})
    choice = decide(rules, make_ask(max_output_tokens=100), Overrides(), judged(0.1, 0.1))
    assert choice.chosen.name == "large"


@pytest.mark.parametrize(("window", "fits"), [(100, True), (99, False)])
def test_a_request_as_long_as_the_context_window_fits_and_one_token_more_does_not(window: int, fits: bool) -> None:
    rules = make_rules(changes={"small": {"context_window_tokens": window}})
    choice = decide(rules, make_ask(), Overrides(), judged(0.1, 0.1))
    assert (choice.chosen.name == "small") == fits


def test_a_cost_bound_excludes_expensive_candidates_and_those_without_a_price() -> None:
    cheap = Prices(input_usd_per_million_tokens=1, output_usd_per_million_tokens=1)
    choice = decide(make_rules(prices=(cheap, None)), make_ask(), Overrides(max_cost_usd=0.001), judged(0.9, 0.1))
    assert choice.chosen.name == "small"
    assert choice.candidates[0].expected_cost_usd == pytest.approx(400e-6)
    with pytest.raises(NoEligibleCandidateError, match=r"price unknown.*"):
        decide(make_rules(prices=(cheap, None)), make_ask(), Overrides(max_cost_usd=0), judged(0.9, 0.1))


def test_only_candidates_of_the_required_region_may_answer() -> None:
    rules = make_rules(changes={"small": {"regions": ["eu", "us"]}, "large": {"regions": ["us"]}})
    choice = decide(rules, make_ask(), Overrides(require_region="eu"), judged(0.9, 0.1))
    assert (choice.chosen.name, choice.reason) == ("small", Reason.ONLY_ELIGIBLE)
    assert choice.candidates[1].ineligible_because == ("region 'eu' required, its regions are us",)
    assert decide(rules, make_ask(), Overrides(require_region="us"), judged(0.9, 0.1)).chosen.name == "large"


@pytest.mark.parametrize("region", ["asia", "EU", ""])
def test_a_region_of_no_candidate_is_an_error_that_names_the_regions_of_all(region: str) -> None:
    rules = make_rules(changes={"small": {"regions": ["eu", "us"]}})
    with pytest.raises(NoEligibleCandidateError) as caught:
        decide(rules, make_ask(), Overrides(require_region=region), judged(0.9, 0.1))
    assert f"small: region {region!r} required, its regions are eu, us" in str(caught.value)
    assert "its regions are not stated" in str(caught.value)


def test_a_request_may_require_a_region_besides_that_of_the_policy_but_not_lift_it() -> None:
    changes = {"small": {"regions": ["eu"]}, "large": {"regions": ["us"]}}
    rules = make_rules(changes=changes, require_region="eu")
    assert decide(rules, make_ask(), Overrides(), judged(0.9, 0.1)).chosen.name == "small"
    with pytest.raises(NoEligibleCandidateError, match=r"small: region 'us' required.*large: region 'eu' required"):
        decide(rules, make_ask(), Overrides(require_region="us"), judged(0.9, 0.1))


def test_unknown_content_parts_are_refused_rather_than_ignored() -> None:
    with pytest.raises(NoEligibleCandidateError, match="hologram"):
        decide(make_rules(pass_unknown_parts=False), make_ask(unknown_parts=("hologram",)), Overrides(), None)


def test_a_fixed_rule_is_never_silently_replaced() -> None:
    rules = make_rules({"kind": "fixed", "candidate": "small"})
    assert decide(rules, make_ask(), Overrides(), None).reason is Reason.FIXED
    with pytest.raises(NoEligibleCandidateError, match="small: among denied_candidates"):
        decide(rules, make_ask(), Overrides(denied_candidates=("small",)), None)


@pytest.mark.parametrize(
    ("overrides", "error", "field"),
    [
        (Overrides(max_risk=1.5), InvalidRequestError, "overrides.max_risk"),
        (Overrides(max_risk=math.nan), InvalidRequestError, "overrides.max_risk"),
        (Overrides(min_gain=1.1), InvalidRequestError, "overrides.min_gain"),
        (Overrides(min_gain=0.1, max_risk=0.1), InvalidRequestError, "overrides.min_gain"),
        (Overrides(max_cost_usd=-1), InvalidRequestError, "overrides.max_cost_usd"),
        (Overrides(max_cost_usd=math.inf), InvalidRequestError, "overrides.max_cost_usd"),
        (Overrides(pin="nobody"), UnknownCandidateError, "overrides.pin"),
        (Overrides(allowed_candidates=("small", "nobody")), UnknownCandidateError, "overrides.allowed_candidates"),
        (Overrides(denied_candidates=("nobody",)), UnknownCandidateError, "overrides.denied_candidates"),
    ],
)
def test_overrides_that_cannot_hold_are_refused_with_their_field(
    overrides: Overrides, error: type[InvalidRequestError], field: str
) -> None:
    with pytest.raises(error) as caught:
        decide(make_rules(), make_ask(), overrides, judged(0.1, 0.1))
    assert caught.value.field == field


def test_what_only_anthropics_models_understand_goes_to_a_candidate_that_speaks_its_api() -> None:
    rules = make_rules(changes={"large": {"model": "anthropic/claude-opus-4-5", "api_base": None}})
    ask = make_ask(native_needs=("mcp_servers",), api_format=ApiFormat.ANTHROPIC_MESSAGES)
    decision = decide(rules, ask, Overrides(), judged(0.1, 0.1))
    assert decision.chosen.name == "large"
    (because,) = decision.candidates[0].ineligible_because
    assert because == "does not speak Anthropic's API itself, which 'mcp_servers' needs"
