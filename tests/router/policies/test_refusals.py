"""What becomes of parameters that a candidate refuses, by the policy and by the value."""

from __future__ import annotations

from typing import Any

import pytest

from router.errors import InvalidRequestError, NoEligibleCandidateError
from router.policies.rules import Rules
from router.values import ApiFormat, Overrides
from tests.router.policies.cases import decide, judged, make_ask, make_rules

NOBODY = Overrides()


def fussy(mode: str, *names: str, **keys: Any) -> Rules:
    return make_rules(changes={"large": {"unsupported": list(names)}}, on_unsupported=mode, **keys)


def rows(rules: Rules, given: dict[str, Any], overrides: Overrides = NOBODY) -> Any:
    return decide(rules, make_ask(given=given), overrides, judged(0.9, 0.1)).candidates


@pytest.mark.parametrize(
    ("mode", "value", "dropped", "broken"),
    [
        ("drop", 1, ("temperature",), ()),
        ("drop", 1.0, ("temperature",), ()),
        ("drop", 0.5, (), ("refuses the parameter 'temperature'",)),
        ("drop", True, (), ("refuses the parameter 'temperature'",)),
        ("drop", None, (), ()),
        ("drop_any", 0.5, ("temperature",), ()),
        ("ineligible", 1, (), ("refuses the parameter 'temperature'",)),
        ("refuse", 1, ("temperature",), ()),
    ],
)
def test_by_mode_and_value(mode: str, value: Any, dropped: tuple[str, ...], broken: tuple[str, ...]) -> None:
    small, large = rows(fussy(mode, "temperature"), {"temperature": value})
    assert (small.dropped_parameters, small.ineligible_because) == ((), ())
    assert (large.dropped_parameters, large.ineligible_because) == (dropped, broken)


def test_a_policy_that_refuses_names_the_parameter_and_spares_who_cannot_answer_anyway() -> None:
    with pytest.raises(InvalidRequestError, match="stop must be left out or be neutral: candidate 'large'") as caught:
        rows(fussy("refuse", "stop", "n"), {"stop": ["x"], "n": 1})
    assert caught.value.field == "stop"
    denied = Overrides(denied_candidates=("large",))
    assert rows(fussy("refuse", "stop"), {"stop": ["x"]}, denied)[1].ineligible_because == (
        "among denied_candidates",
        "refuses the parameter 'stop'",
    )


def test_a_pinned_candidate_is_asked_whatever_it_refuses() -> None:
    pinned = Overrides(pin="large")
    for mode in ("drop", "ineligible", "refuse"):
        row = rows(fussy(mode, "stop", "n"), {"stop": ["x"], "n": 1}, pinned)[1]
        assert row.eligible
        assert row.dropped_parameters == (() if mode == "ineligible" else ("n",))


def test_a_bound_under_another_name_is_no_refusal() -> None:
    one, both = (fussy("drop", *names) for names in (["max_tokens"], ["max_tokens", "max_completion_tokens"]))
    assert rows(one, {"max_tokens": 5})[1].eligible
    assert not rows(both, {"max_tokens": 5})[1].eligible


@pytest.mark.parametrize(
    ("name", "value", "is_neutral"),
    [
        *(("frequency_penalty", 0, True), ("presence_penalty", 0.0, True), ("frequency_penalty", 0.1, False)),
        *(
            ("n", 1, True),
            ("n", 2, False),
            ("logprobs", False, True),
            ("logprobs", True, False),
            ("logprobs", 0, False),
        ),
        *(("stop", [], True), ("stop", ["x"], False), ("top_p", 1, True), ("logit_bias", {}, True)),
        *(("parallel_tool_calls", True, True), ("parallel_tool_calls", 1, False), ("seed", 0, False)),
        *(("reasoning_effort", "none", True), ("reasoning_effort", "low", False), ("service_tier", "auto", True)),
        *(("response_format", {"type": "text"}, True), ("thinking", {"type": "disabled"}, True), ("what", 1, False)),
    ],
)
def test_neutral_values(name: str, value: Any, is_neutral: bool) -> None:
    row = rows(fussy("drop", name), {name: value})[1]
    assert row.eligible == is_neutral
    assert row.dropped_parameters == ((name,) if is_neutral else ())


@pytest.mark.parametrize(
    ("api", "model", "base", "takes"),
    [
        (ApiFormat.OPENAI_CHAT, "openai/x", "http://h/v1", True),
        (ApiFormat.OPENAI_CHAT, "openrouter/x", None, True),
        (ApiFormat.OPENAI_CHAT, "gemini/x", None, True),
        (ApiFormat.OPENAI_CHAT, "bedrock/x", None, False),
        (ApiFormat.OPENAI_CHAT, "anthropic/x", None, False),
        (ApiFormat.ANTHROPIC_MESSAGES, "anthropic/x", None, True),
        (ApiFormat.ANTHROPIC_MESSAGES, "openai/x", "http://h/v1", False),
        (ApiFormat.OPENAI_RESPONSES, "openai/x", None, True),
        (ApiFormat.OPENAI_RESPONSES, "openai/x", "http://h/v1", False),
    ],
)
def test_unknown_parts_go_to_who_speaks_the_api(api: ApiFormat, model: str, base: str | None, takes: bool) -> None:
    rules = make_rules(names=("small",), changes={"small": {"model": model, "api_base": base}}, rule=FIXED)
    ask = make_ask(unknown_parts=("hologram",), api_format=api)
    assert decide(rules, ask, Overrides(pin="small"), None).candidates[0].eligible
    if takes:
        assert decide(rules, ask, NOBODY, None).candidates[0].eligible
    else:
        with pytest.raises(NoEligibleCandidateError, match="content parts of unknown type 'hologram'"):
            decide(rules, ask, NOBODY, None)


FIXED: dict[str, object] = {"kind": "fixed", "candidate": "small"}
