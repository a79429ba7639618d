"""`elle policy` as an operator uses it: activate, compare, roll back, look at the history; errors say what to do."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from router.cli.main import cli
from router.policies.loading import DEFAULT_POLICY, EXAMPLE_POLICY
from tests.fakes import write_policy

FIXED = {"kind": "fixed", "candidate": "small"}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ELLE_STORE", str(tmp_path / "store"))
    return tmp_path / "store"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["policy", *map(str, arguments)])


def answer(*arguments: object) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def change(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text("utf-8").replace(old, new), "utf-8")


def test_new_prints_the_embedded_policy_or_the_example() -> None:
    assert run("new").stdout == DEFAULT_POLICY.read_text("utf-8")
    assert run("new", "--example").stdout == EXAMPLE_POLICY.read_text("utf-8")
    assert "exclude each other" in run("new", "--example", "--from-litellm", "config.yaml").output


def test_an_empty_store_is_said_to_be_one_and_a_store_needs_a_name(store: Path) -> None:
    store.mkdir()
    for verb, what in (("list", "no version"), ("history", "no change")):
        result = run(verb)
        assert result.exit_code == 0
        assert f"There is {what} in {store}" in result.stderr
        assert run(verb, "--json").stdout.count("[]") == 1
        assert "must name a directory" in run(verb, "--store", " ").output
    assert "no change of 'x'" in run("history", "x").stderr


def test_versions_are_activated_compared_and_rolled_back(store: Path, tmp_path: Path) -> None:
    path = write_policy(tmp_path, probe=None, rule=FIXED)
    first = answer("activate", path, "--reason", "it begins", "--author", "ann", "--expect", "none")
    before = path.read_bytes()
    change(path, "candidate: small", "candidate: large")
    second = answer("activate", path, "--reason", "large is [bold]better[/]", "--expect", first["after"][:12])
    assert (second["before"], second["kind"]) == (first["after"], "activate")
    found = answer("diff", first["after"], "test")
    assert [line for line in found["lines"] if re.match(r"[+-] ", line)] == [
        "-  candidate: small",
        "+  candidate: large",
    ]
    assert [row["active"] for row in answer("list")["versions"]] == [False, True]
    back = answer("rollback", "test", "--reason", "it was not")
    assert back["after"] == first["after"]
    assert run("show", "test", "--out", tmp_path / "out").exit_code == 0
    assert (tmp_path / "out" / "policy.yaml").read_bytes() == before
    assert "replaces nothing" in run("show", "test", "--out", tmp_path / "out").output
    history = answer("history", "test")["changes"]
    assert next((row["number"], row["kind"], row["author"]) for row in history) == (1, "activate", "ann")
    assert "large is [bold]better[/]" in run("history").stdout
    assert answer("history", "nobody")["changes"] == []


def test_what_cannot_be_used_or_is_not_expected_changes_nothing(store: Path, tmp_path: Path) -> None:
    path = write_policy(tmp_path, probe=None, rule=FIXED)
    answer("activate", path, "--reason", "it begins")
    for arguments, words in (
        (("activate", path, "--reason", "again"), "active already"),
        (("activate", tmp_path / "none.yaml", "--reason", "why"), "does not exist"),
        (("activate", "nothing", "--reason", "why"), "elle policy list"),
        (("rollback", "test", "--reason", "why"), "no earlier version"),
        (("rollback", "nobody", "--reason", "why"), "no version of a policy 'nobody' was ever active"),
        (("activate", path, "--reason", " "), "reason"),
        (("activate", path), "--reason"),
    ):
        result = run(*arguments)
        assert result.exit_code in {1, 2}
        assert words in result.output
    change(path, "candidate: small", "candidate: nobody")
    assert "rule.candidate" in run("activate", path, "--reason", "why").output
    change(path, "candidate: nobody", "candidate: large")
    assert "not what was expected" in run("activate", path, "--reason", "why", "--expect", "none").output
    # The file is kept already, and what was kept was damaged.
    (kept,) = (
        store / "versions" / row["id"] / "policy.yaml" for row in answer("list")["versions"] if not row["active"]
    )
    kept.write_text("damaged", "utf-8")
    assert "was changed since it was kept" in run("activate", path, "--reason", "why").output
    assert len(answer("history")["changes"]) == 1


def test_nobody_goes_back_to_a_version_that_was_damaged(store: Path, tmp_path: Path) -> None:
    path = write_policy(tmp_path, probe=None, rule=FIXED)
    first = answer("activate", path, "--reason", "it begins")["after"]
    change(path, "candidate: small", "candidate: large")
    answer("activate", path, "--reason", "better")
    kept = store / "versions" / first / "policy.yaml"
    whole = kept.read_bytes()
    kept.write_text("damaged", "utf-8")
    assert "was changed since it was kept" in run("rollback", "test", "--reason", "worse").output
    assert len(answer("history")["changes"]) == 2
    kept.write_bytes(whole)
    assert answer("rollback", "test", "--reason", "worse")["after"] == first


def test_a_policy_file_is_validated_without_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ELLE_STORE", raising=False)
    path = write_policy(tmp_path, probe=None, rule=FIXED)
    assert "can be activated" in run("validate", path).output
    assert "can be activated" in run("validate", path, "--store", str(tmp_path / "later")).output
    assert "give --store" in run("validate", "abcdef").output


def test_passwords_of_a_policy_are_in_no_output(store: Path, tmp_path: Path) -> None:
    candidates = [
        {"name": name, "model": "openai/m", "api_base": "http://ann:hunter2canary@127.0.0.1:1/v1"}
        for name in ("small", "large")
    ]
    path = write_policy(tmp_path, probe=None, rule=FIXED, candidates=candidates)
    shown = [run("activate", path, "--reason", "why").output]
    change(path, "candidate: small", "candidate: large")
    change(path, "hunter2canary", "hunter3canary")
    shown += [run("activate", path, "--reason", "why").output, run("list").output, run("history").output]
    ids = [row["id"] for row in answer("list")["versions"]]
    shown += [
        run(verb, *ids[: 2 if verb == "diff" else 1], *more).output
        for verb in ("show", "diff")
        for more in ((), ("--json",))
    ]
    assert "***@127.0.0.1" in "".join(shown)
    assert "canary" not in "".join(shown)


def test_a_user_without_a_name_can_change_a_policy_as_in_containers(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    # No system has a user of this number.
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)
    path = write_policy(tmp_path, probe=None, rule=FIXED)
    assert answer("activate", path, "--reason", "it begins")["author"] == f"uid {2**31 - 7}"
