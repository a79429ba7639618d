"""`elle validate` and `elle decide` show the parameters of candidates, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from tests.router.cli.test_cli import as_json, run


def test_parameters_of_candidates_and_what_they_refuse_are_shown(tmp_path: Path) -> None:
    policy = {
        "schema": "elle.policy/1",
        "name": "p",
        "candidates": [
            {"name": "plain", "model": "openai/x", "api_base": "canned"},
            {"name": "quick", "model": "openai/gpt-5", "params": {"reasoning_effort": "low"}, "unsupported": ["n"]},
        ],
        "rule": {"kind": "fixed", "candidate": "quick"},
        "safe_default": "quick",
    }
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(policy))
    shown = run("validate", tmp_path / "my.yaml", "--deciding-only").stdout
    assert 'quick is asked with {"reasoning_effort": "low"} and refuses n.' in shown
    assert "plain" not in shown.partition("\n")[2]
    found = as_json(run("validate", tmp_path / "my.yaml", "--deciding-only", "--json"))
    assert found["params"] == {"plain": {}, "quick": {"reasoning_effort": "low"}}
    assert found["refused_parameters"] == {"plain": [], "quick": ["n"]}
    chat = {"messages": [{"role": "user", "content": "hello"}], "n": 1}
    (tmp_path / "chat.json").write_text(json.dumps(chat))
    asked = ("decide", "--chat", tmp_path / "chat.json", "--policy", tmp_path / "my.yaml")
    assert "yes, without n" in run(*asked).stdout
    assert as_json(run(*asked, "--json"))["candidates"][1]["dropped_parameters"] == ["n"]
