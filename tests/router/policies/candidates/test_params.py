"""Parameters of a candidate are checked, bounded, priced and part of who the candidate is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from router.errors import ConfigError
from router.policies.candidates.candidate import Candidate
from router.policies.candidates.prices import resolve_prices
from router.policies.eligibility import expected_cost_usd
from router.policies.policy_file import read_policy_file
from router.tuning.outcomes.candidates import candidates_from_names, read_prices
from router.values import Overrides
from tests.conftest import ROOT
from tests.router.policies.cases import decide, judged, make_ask, make_rules


def candidate(**keys: Any) -> Candidate:
    return Candidate.model_validate({"name": "a", "model": "openai/x"} | keys)


def fault(folder: Path, **keys: Any) -> str:
    policy = {
        "schema": "elle.policy/1",
        "name": "p",
        "candidates": [{"name": "a", "model": "openai/x"} | keys],
        "rule": {"kind": "fixed", "candidate": "a"},
        "safe_default": "a",
    }
    path = folder / "policy.yaml"
    path.write_text(yaml.safe_dump(policy), "utf-8")
    with pytest.raises(ConfigError) as caught:
        read_policy_file(path)
    return str(caught.value)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"params": {"reasoning_efort": "low"}}, "params.reasoning_efort: unknown key; remove it or correct its"),
        ({"params": {"reasoning_efort": "low"}}, "did you mean `reasoning_effort`?"),
        ({"parms": {}}, "did you mean `params`?"),
        ({"params": {"top_k": 5}}, "did you mean `top_p`?"),
        ({"params": {"mirostat": 5}}, "write a field of the provider's own under `extra_body`"),
        ({"params": {"extra_body": {"temperature": 1}}}, "must not hold temperature; write it under params itself"),
        ({"params": {"extra_body": {"messages": []}}}, "must not hold messages, which the request sets"),
        ({"params": {"extra_body": {"x": "y" * 20_000}}}, "must have at most 16,384 bytes as JSON"),
        ({"params": {"extra_body": {"x": float("inf")}}}, "Input should be a finite number"),
        ({"params": {"max_tokens": 0}}, "params.max_tokens: Input should be greater than 0"),
        ({"params": {"verbosity": "loud"}}, "'low', 'medium' or 'high', got 'loud'"),
        ({"unsupported": ["temprature"]}, "temprature is no parameter; did you mean temperature?"),
        ({"unsupported": ["n"], "params": {"extra_body": {"x": 1}}, "zzz": 1}, "zzz: unknown key"),
        ({"unsupported": ["seed"], "params": {"seed": 1}}, "unsupported must not name seed, which params sets"),
    ],
)
def test_what_is_wrong_is_said_with_the_key_that_was_meant(tmp_path: Path, keys: dict[str, Any], words: str) -> None:
    assert words in fault(tmp_path, **keys)


def test_a_parameter_of_a_candidates_own_is_not_refused_by_it() -> None:
    assert "temperature" in make_rules(changes={"small": {"model": "openai/gpt-5"}}).refused[0]
    own = make_rules(changes={"small": {"model": "openai/gpt-5", "params": {"temperature": 1}}})
    assert "temperature" not in own.refused[0]


def test_a_candidates_own_bound_caps_its_cost_and_its_context() -> None:
    prices = candidate(prices={"input_usd_per_million_tokens": 0, "output_usd_per_million_tokens": 1e6}).prices
    capped = candidate(params={"max_tokens": 10}, expected_output_tokens=300)
    assert not isinstance(prices, str)
    assert expected_cost_usd(capped, prices, make_ask()) == 10
    assert expected_cost_usd(capped, prices, make_ask(max_output_tokens=7)) == 7
    assert expected_cost_usd(candidate(expected_output_tokens=300), prices, make_ask()) == 300
    rules = make_rules(changes={"small": {"context_window_tokens": 150, "params": {"max_tokens": 60}}})
    rows = decide(rules, make_ask(), Overrides(), judged(0.1, 0.1)).candidates
    assert rows[0].ineligible_because == ("context window of 150 tokens, about 160 needed",)


def test_two_efforts_of_one_model_are_two_candidates() -> None:
    low, high = (candidate(params={"reasoning_effort": effort}) for effort in ("low", "high"))
    assert low != high
    assert len({low, high, candidate(params={"reasoning_effort": "low"})}) == 2
    assert candidate() == candidate(params={})


def test_the_candidates_of_the_page_are_valid() -> None:
    block = (ROOT / "docs" / "candidates.md").read_text("utf-8").split("```")[1]
    found = [Candidate.model_validate(one) for one in yaml.safe_load(block)["candidates"]]
    assert [one.name_in_probe for one in found] == ["gpt-x@low", "gpt-x@high"]
    assert found[1].params.extra_body == {"safety": "strict"}


def test_prices_of_litellm_are_those_of_the_tier() -> None:
    pytest.importorskip("litellm", reason="LiteLLM is not installed; `pip install 'elle-router[dispatch]'`")
    usual, flex, other = (
        resolve_prices(candidate(model="openai/gpt-5", prices="litellm", params={"service_tier": tier} if tier else {}))
        for tier in (None, "flex", "of-nobody")
    )
    assert usual is not None
    assert flex is not None
    assert flex.input_usd_per_million_tokens < usual.input_usd_per_million_tokens
    assert other == usual


def test_a_price_file_says_with_which_parameters_a_model_of_the_data_was_asked(tmp_path: Path) -> None:
    listed = {"input_usd_per_million_tokens": 1, "output_usd_per_million_tokens": 10, "model": "openai/gpt-x"}
    efforts = {f"gpt-x@{one}": listed | {"params": {"reasoning_effort": one}} for one in ("low", "high")}
    (tmp_path / "prices.yaml").write_text(yaml.safe_dump(efforts), "utf-8")
    table = read_prices(tmp_path / "prices.yaml")
    found = candidates_from_names(list(efforts), table, litellm=False, lengths={"gpt-x@high": 900})
    assert [(one.name, one.name_in_probe) for one in found] == [
        ("gpt-x-low", "gpt-x@low"),
        ("gpt-x-high", "gpt-x@high"),
    ]
    assert [one.params.reasoning_effort for one in found] == ["low", "high"]
    assert [one.expected_output_tokens for one in found] == [300, 900]
