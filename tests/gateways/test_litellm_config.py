"""LiteLLM's model_list files load as they are, and nothing secret comes along."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from router.cli.main import cli
from router.errors import ConfigError
from router.gateways.litellm_config import policy_from_litellm
from router.policies.loading import load_policy
from router.policies.policy_file import PolicyFile

CONFIG = """
model_list:
  - model_name: smart
    litellm_params: {model: openai/gpt-4o, api_key: os.environ/OPENAI_API_KEY, temperature: 0.2, top_p: many, rpm: 5}
  - model_name: smart
    litellm_params: {model: openai/gpt-4o, api_key: os.environ/OPENAI_API_KEY_2}
  - model_name: own / small
    litellm_params:
      model: hosted_vllm/acme/small-7b
      api_base: http://10.0.0.7:8000/v1
      api_key: sk-very-secret
      timeout: 30
    model_info:
      input_cost_per_token: 0.0000001
      output_cost_per_token: 0.0000002
      max_input_tokens: 16000
      supports_function_calling: true
  - model_name: pair
    litellm_params: {model: groq/acme-8b, api_base: os.environ/GROQ_BASE}
    model_info: {input_cost_per_token: 0.0, output_cost_per_token: 0.0}
  - model_name: pair
    litellm_params: {model: groq/acme-70b, input_cost_per_token: 0.000001, output_cost_per_token: 0.000001}
  - model_name: vectors
    litellm_params: {model: openai/text-embedding-3-small}
  - model_name: "*"
    litellm_params: {model: "openai/*"}
litellm_settings: {drop_params: true}
general_settings: {master_key: sk-master}
"""


@pytest.fixture
def config(tmp_path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG, "utf-8")
    return path


def candidates(text: str) -> dict:
    file = PolicyFile.model_validate(yaml.safe_load(text))
    return {candidate.name: candidate for candidate in file.candidates}


def test_a_model_list_becomes_candidates_cheapest_first(config):
    found = candidates(policy_from_litellm(config))
    assert list(found) == ["acme-8b", "own-small", "acme-70b", "smart"]
    small, smart = found["own-small"], found["smart"]
    assert small.model == "hosted_vllm/acme/small-7b"
    assert (small.api_base, small.api_key_env, small.timeout_s) == ("http://10.0.0.7:8000/v1", None, 30.0)
    assert (small.prices.input_usd_per_million_tokens, small.prices.output_usd_per_million_tokens) == (0.1, 0.2)
    assert small.context_window_tokens == 16000
    assert [able.value for able in small.capabilities] == ["text", "tools"]
    assert smart.api_key_env == "OPENAI_API_KEY"
    assert smart.params.named == {"temperature": 0.2}


def test_efforts_of_one_model_become_candidates_and_other_deployments_share_its_load(tmp_path):
    path = tmp_path / "config.yaml"
    said = ({"reasoning_effort": "low"}, {"reasoning_effort": "high", "seed": 1}, {"reasoning_effort": "high"})
    listed = [{"model_name": "gpt", "litellm_params": {"model": "openai/gpt-x", **params}} for params in said]
    path.write_text(yaml.safe_dump({"model_list": listed}), "utf-8")
    text = policy_from_litellm(path)
    found = candidates(text)
    assert {name: dict(one.params.named) for name, one in found.items()} == {
        "gpt": {"reasoning_effort": "low"},
        "gpt-2": {"reasoning_effort": "high", "seed": 1},
    }
    assert "further deployment" in text


def test_what_litellm_knows_of_a_model_is_taken_from_its_table(config):
    pytest.importorskip("litellm", reason="the table is LiteLLM's")
    smart = candidates(policy_from_litellm(config))["smart"]
    assert {"text", "image", "tools", "json_schema"} <= {able.value for able in smart.capabilities}
    assert smart.prices is not None
    assert smart.context_window_tokens == 128000


def test_no_secret_is_written_and_what_is_left_out_is_said(config):
    text = policy_from_litellm(config)
    assert "sk-" not in text
    notes = [line for line in text.splitlines() if line.startswith("# Note")]
    said = "\n".join(notes)
    for part in (
        "own-small: its key stands",
        "rpm, top_p of its litellm_params",
        "further deployment",
        "GROQ_BASE",
        "vectors",
        "openai/*",
    ):
        assert part in said, part


def test_the_file_is_served_as_it_is(config, tmp_path):
    done = CliRunner().invoke(cli, ["policy", "new", "--from-litellm", str(config)])
    assert done.exit_code == 0, done.output
    path = tmp_path / "policy.yaml"
    path.write_text(done.stdout, "utf-8")
    served = load_policy(path)
    assert served.rules.file.safe_default == "smart"
    assert CliRunner().invoke(cli, ["decide", "hello", "--policy", str(path)]).exit_code == 0


def test_without_prices_the_order_of_the_file_stays_and_is_said(tmp_path):
    path = tmp_path / "config.yaml"
    listed = [{"model_name": name, "litellm_params": {"model": f"x/{name}-nobody-knows"}} for name in ("b", "a")]
    path.write_text(yaml.safe_dump({"model_list": listed}), "utf-8")
    text = policy_from_litellm(path)
    assert list(candidates(text)) == ["b", "a"]
    assert "cheapest first" in text


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "must hold a list `model_list`"),
        ("model_list: 3", "must hold a list `model_list`"),
        ("model_list: [{model_name: a}]", r"model_list\[0\]"),
        ("model_list: []", "at least one chat model"),
        ("model_list: [", "must be YAML"),
    ],
)
def test_a_file_that_is_none_is_named(tmp_path, text, match):
    path = tmp_path / "config.yaml"
    path.write_text(text, "utf-8")
    with pytest.raises(ConfigError, match=match):
        policy_from_litellm(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        policy_from_litellm(tmp_path / "nowhere.yaml")
