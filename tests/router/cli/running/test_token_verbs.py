"""`elle token`: a token is shown once, listed without itself, and revoked by its id or its name."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner, Result

from router.cli.main import cli
from router.identity.token_book import TokenBook


def elle(path: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["token", *arguments], env={"ELLE_TOKENS": str(path)})


def test_a_token_is_made_listed_and_revoked(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    made = elle(path, "create", "team-a", "--scope", "route", "--expires-in-days", "30", "--strong-share", "0.2")
    assert made.exit_code == 0, made.output
    text = made.stdout.strip()
    assert TokenBook.load(path).find(text) is not None
    listed = elle(path, "list")
    assert "team-a" in listed.stdout
    assert "valid" in listed.stdout
    assert text not in listed.output
    assert TokenBook.load(path).tokens[0].sha256 not in listed.output
    revoked = elle(path, "revoke", "team-a", "--json")
    assert revoked.exit_code == 0, revoked.output
    assert json.loads(revoked.stdout)["revoked_at"]
    assert json.loads(elle(path, "list", "--json").stdout)["tokens"][0]["state"] == "revoked"


def test_json_holds_the_token_and_what_it_allows(tmp_path: Path) -> None:
    made = elle(tmp_path / "tokens.json", "create", "a", "--json", "--usd-per-day", "5", "--beyond", "cheap")
    found = json.loads(made.stdout)
    assert found["token"].startswith(f"elle_{found['id']}_")
    assert found["scopes"] == ["complete", "route"]
    assert found["limits"] == {"usd_per_day": 5.0, "beyond": "cheap"}


def test_whoever_names_no_token_hears_the_nearest_one(tmp_path: Path) -> None:
    elle(tmp_path / "tokens.json", "create", "team-a")
    failed = elle(tmp_path / "tokens.json", "revoke", "team-b")
    assert failed.exit_code == 1
    assert "Did you mean team-a?" in failed.output


def test_a_name_is_given_once(tmp_path: Path) -> None:
    elle(tmp_path / "tokens.json", "create", "a")
    failed = elle(tmp_path / "tokens.json", "create", "a")
    assert (failed.exit_code, failed.stdout) == (1, "")
    assert "of the name 'a', which is not revoked; choose another name" in failed.output
    elle(tmp_path / "tokens.json", "revoke", "a")
    assert "which is revoked and keeps its name" in elle(tmp_path / "tokens.json", "create", "a").output


def test_a_name_that_no_token_can_have_is_refused_in_words(tmp_path: Path) -> None:
    failed = elle(tmp_path / "tokens.json", "create", "team $")
    assert (failed.exit_code, failed.stdout) == (1, "")
    assert "must have 1 to 64 letters, digits, spaces" in failed.output
