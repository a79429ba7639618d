"""Keys and passwords that stand in a policy file, rightly or by mistake, are shown nowhere."""

from __future__ import annotations

import json
import traceback
from pathlib import Path
from typing import Any

import pytest

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
    "base", ["api.example.com/v1", "localhost:8000/v1", "ftp://u:pw-secret@h", "https://", "http:/h"]
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
