"""Keys and passwords that stand in a policy file, rightly or by mistake, are shown nowhere."""

from __future__ import annotations

import json
import traceback
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from router.cli.main import cli
from router.errors import ConfigError
from router.gateways.litellm_config import policy_from_litellm
from router.policies.credentials import check_key_variable, shown_base
from router.policies.loading import load_policy

KEYS = [
    "sk-proj-4f8aQ2wXkz81Lm",
    "sk_live_51HabcDEFghi",
    "gsk_a8Kd92LmQpZx71",
    "AIzaSyD9xQ2mK4vL8pR1tW",
    "9f86d081884c7d659a2feaa0c55ad015",
    "AKIAIOSFODNN7EXAMPLE",
    "abcdefghijabcdefghijabcdefghijabcdefghij",
]
NAMES = ["OPENAI_API_KEY", "MY_KEY_2", "key", "AZURE_OPENAI_API_KEY_EU_WEST_1", "MyOpenAIKey", "TOGETHERAI_API_KEY"]


def policy(folder: Path, **candidate: Any) -> Path:
    one = {"name": "c", "model": "openai/gpt-4o"} | candidate
    rest = {"schema": "elle.policy/1", "name": "p", "rule": {"kind": "fixed", "candidate": "c"}, "safe_default": "c"}
    path = folder / "policy.yaml"
    path.write_text(json.dumps(rest | {"candidates": [one]}), "utf-8")
    return path


@pytest.mark.parametrize("key", KEYS)
def test_a_key_in_place_of_its_variables_name_is_refused_and_not_shown(tmp_path: Path, key: str) -> None:
    with pytest.raises(ConfigError, match="api_key_env: must be the name of the environment variable") as caught:
        load_policy(policy(tmp_path, api_key_env=key))
    assert key not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("name", NAMES)
def test_usual_names_of_variables_are_accepted(name: str) -> None:
    assert check_key_variable(name) == name


@pytest.mark.parametrize(
    "base",
    ["api.example.com/v1", "localhost:8000/v1", "ftp://u:pw-secret@h", "https://", "http:/h", "https://h/v1#pw-secret"],
)
def test_an_api_base_that_is_no_url_is_refused_and_not_shown(tmp_path: Path, base: str) -> None:
    with pytest.raises(ConfigError, match="api_base: must be a URL that begins with http:// or https://") as caught:
        load_policy(policy(tmp_path, api_base=base))
    assert "pw-secret" not in "".join(traceback.format_exception(caught.value))


def test_no_json_and_no_repr_shows_the_password_of_a_url(tmp_path: Path) -> None:
    base = "https://user:pw-secret@example.com:8000/v1?key=pw-secret"
    served = load_policy(policy(tmp_path, api_base=base))
    assert "pw-secret" not in served.to_json()
    assert "https://***@example.com:8000/v1?***" in served.to_json()
    assert "pw-secret" not in repr(served.rules.file)
    assert shown_base("http://127.0.0.1:1/v1") == "http://127.0.0.1:1/v1"


SECRETS = [
    "sk-proj-4f8aQ2wXkz81Lm",
    "sk-ant-api03-Xy7_bQ-99kLmNop",
    "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
    "github_pat_11ABCDEFG0abcdefghijkl",
    "AKIAIOSFODNN7EXAMPLE",
    "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "SK-ANT-API03-ABCDEFGHIJKLMNOP",
    "AIzaSyD9xQ2mK4vL8pR1tW",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N",
    "xai-abcdefghijklmnop1234",
    "hf_AbCdEfGhIjKlMnOpQrSt",
    "9f86d081884c7d659a2feaa0c55ad015",
    "q8Zt3LmW0pXv7RkYb2NcJd5H",
    "9f86d081884c7d659a2feaa0c55ad0159f86d081884c7d659a2feaa0c55ad015",
]


def places(secret: str) -> dict[str, dict[str, Any]]:
    """Policies with a secret in each free field."""
    one = {"name": "c", "model": "openai/gpt-4o"}
    rest: dict[str, Any] = {
        "schema": "elle.policy/1", "name": "p", "rule": {"kind": "fixed", "candidate": "c"}, "safe_default": "c",
    }  # fmt: skip
    return {
        "name": rest | {"name": secret, "candidates": [one]},
        "description": rest | {"description": f"the key is {secret}.", "candidates": [one]},
        "safe_default": rest | {"safe_default": secret, "candidates": [one]},
        "candidates.0.name": rest | {"candidates": [one | {"name": secret}]},
        "candidates.0.model": rest | {"candidates": [one | {"model": f"openai/{secret}"}]},
        "candidates.0.probe_model": rest | {"candidates": [one | {"probe_model": secret}]},
        "candidates.0.regions.0": rest | {"candidates": [one | {"regions": [secret]}]},
        "candidates.0.timeout_s": rest | {"candidates": [one | {"timeout_s": secret}]},
        "rule.candidate": rest | {"rule": {"kind": "fixed", "candidate": secret}, "candidates": [one]},
        "rule.kind": rest | {"rule": {"kind": secret}, "candidates": [one]},
        "the file": rest | {secret: 1, "candidates": [one]},
        "profiles": rest | {"profiles": {secret: {"rule": rest["rule"]}}, "candidates": [one]},
    }


@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_in_any_field_is_refused_and_not_shown(tmp_path: Path, secret: str) -> None:
    path = tmp_path / "policy.yaml"
    for place, written in places(secret).items():
        if place == "description" and len(secret) == 64 and secret.isalnum():
            continue  # A description may hold the digest of something.
        path.write_text(json.dumps(written), "utf-8")
        with pytest.raises(ConfigError, match=f"{place} seems to hold an API key") as caught:
            load_policy(path)
        assert secret not in "".join(traceback.format_exception(caught.value))
        result = CliRunner().invoke(cli, ["validate", str(path)])
        assert result.exit_code == 1
        assert secret not in result.output


def test_usual_models_names_and_digests_are_no_secrets(tmp_path: Path) -> None:
    digest = "02e509c789964a7ea8736978a43525956ef40397be9033abf9fd2badfe68c9e3"
    models = (
        "openai/gpt-4o-mini-2024-07-18", "together_ai/meta-llama/Meta-Llama-3.1-405B-Instruct-Turbo",
        "bedrock/us.anthropic.claude-3-5-sonnet-20241022-v2:0", f"replicate/meta/llama-2-70b-chat:{digest}",
        "ft:gpt-3.5-turbo-0613:my-org:custom_suffix:7p4lURel", "vertex_ai/1234567890123456789", "openai//models/mine",
        "openai/DeepSeek-R1-Distill-Qwen-32B-AWQ-Int4-W4A16", "task-key-management", "risk-aware-classifier-model",
    )  # fmt: skip
    for model in models:
        assert load_policy(policy(tmp_path, model=model)).rules.file.candidates[0].model == model
    rest = places("x")["name"] | {"version": digest, "description": f"commit {digest[:40]}", "name": "p"}
    (tmp_path / "policy.yaml").write_text(json.dumps(rest), "utf-8")
    assert load_policy(tmp_path / "policy.yaml").ref.version == digest


def test_a_key_in_the_path_of_a_url_is_not_shown() -> None:
    assert shown_base("https://h/v1/sk-proj-4f8aQ2wXkz81Lm/x") == "https://h/v1/***/x"


@pytest.mark.parametrize("model", ["openai/", "/gpt-4o", "openai/ ", " openai/gpt-4o", "openai/gpt\n4o"])
def test_a_model_without_a_name_is_reported_as_that(tmp_path: Path, model: str) -> None:
    with pytest.raises(ConfigError, match=r"candidates\.0\.model: must") as caught:
        load_policy(policy(tmp_path, model=model))
    assert "key" not in str(caught.value)


def test_a_secret_among_the_names_of_a_litellm_file_is_refused_and_not_shown(tmp_path: Path) -> None:
    for one in ({"model_name": SECRETS[0], "litellm_params": {"model": "openai/a"}},
                {"model_name": "a", "litellm_params": {"model": f"openai/{SECRETS[0]}"}},
                {"model_name": "a", "litellm_params": {"model": "openai/a", SECRETS[0]: 1}}):  # fmt: skip
        path = tmp_path / "config.yaml"
        path.write_text(json.dumps({"model_list": [one]}), "utf-8")
        with pytest.raises(ConfigError, match="seems to hold an API key") as caught:
            policy_from_litellm(path)
        assert SECRETS[0] not in str(caught.value)


def test_a_yaml_error_does_not_quote_the_line(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text("candidates:\n  - api_key_env: sk-proj-4f8a: x\n", "utf-8")
    with pytest.raises(ConfigError, match="line 2") as caught:
        load_policy(path)
    assert "sk-proj" not in "".join(traceback.format_exception(caught.value))


def test_a_policy_from_a_litellm_file_shows_neither_key_nor_password(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    params = [
        {"model": "openai/a", "api_base": "https://user:pw-secret@h/v1?key=pw-secret", "api_key": "pw-secret-key"},
        {"model": "openai/b", "api_base": "os.environ/BASE", "api_key": "os.environ/sk-proj-4f8aQ2wXkz81Lm"},
    ]
    listed = [{"model_name": one["model"][-1], "litellm_params": one} for one in params]
    path.write_text(json.dumps({"model_list": listed}), "utf-8")
    text = policy_from_litellm(path)
    assert "pw-secret" not in text
    assert "sk-proj" not in text
    assert "api_base: https://h/v1" in text
