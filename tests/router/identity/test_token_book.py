"""The file of tokens keeps digests only, finds a token by its text, and is refused if it is spoiled."""

from __future__ import annotations

import datetime
import json
import os
import stat
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from probes.atomic_write import write_file
from router.cli.main import cli
from router.errors import ConfigError
from router.identity.principal import Scope, TokenLimits
from router.identity.token_book import TokenBook, changing, new_token, now_utc, token_digest
from tests.router.identity.guarded import add_token


def test_the_file_holds_no_token_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "tokens.json"
    text, token = add_token(path, "team-a")
    raw = path.read_text("utf-8")
    assert text not in raw
    assert text.rpartition("_")[2] not in raw
    assert token.sha256 in raw
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    found = TokenBook.load(path).find(text)
    assert found is not None
    assert found[1].id == f"token:{token.id}"
    assert found[1].label == "team-a"


def test_a_token_is_found_whole_or_not_at_all() -> None:
    text, token = new_token("a", [Scope.ROUTE])
    book = TokenBook([token])
    assert book.find(text) is not None
    assert all(book.find(other) is None for other in ("", text[:-1], text + "x", text.upper(), token.sha256, "\ud800"))


def test_a_token_that_is_revoked_by_a_link_is_revoked_in_the_file_that_the_service_reads(tmp_path: Path) -> None:
    add_token(tmp_path / "real" / "tokens.json", "a")
    link = tmp_path / "link.json"
    link.symlink_to(tmp_path / "real" / "tokens.json")
    with changing(link) as known:
        known[0] = known[0].model_copy(update={"revoked_at": now_utc()})
    assert link.is_symlink()
    assert TokenBook.load(tmp_path / "real" / "tokens.json").tokens[0].revoked_at is not None


def test_a_service_that_reads_the_file_as_somebody_else_can_read_it_after_a_change_too(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    add_token(path, "a")
    path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(path, 10_001, 10_002)
    before = path.stat()
    with changing(path) as known:
        known[0] = known[0].model_copy(update={"revoked_at": now_utc()})
    after = path.stat()
    assert after.st_ino != before.st_ino
    assert (after.st_uid, after.st_gid, after.st_mode) == (before.st_uid, before.st_gid, before.st_mode)


@pytest.mark.parametrize(("given", "kept"), [(0o666, 0o640), (0o604, 0o600), (0o600, 0o600)])
def test_a_change_gives_nobody_more_rights(tmp_path: Path, given: int, kept: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"before")
    path.chmod(given)
    write_file(path, b"after", mode=0o640)
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"after", kept)


@pytest.mark.parametrize("option", ["--requests-per-second", "--requests-per-minute", "--usd-per-day"])
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_limit_that_is_no_finite_number_is_wrong_usage(tmp_path: Path, option: str, value: str) -> None:
    done = CliRunner().invoke(cli, ["token", "create", "a", "--tokens", str(tmp_path / "tokens.json"), option, value])
    assert (done.exit_code, option in done.output) == (2, True)
    assert not (tmp_path / "tokens.json").exists()


def test_no_option_of_any_verb_takes_what_is_no_number() -> None:
    ranges = [one.type for one in _options(cli) if isinstance(one.type, click.FloatRange)]
    assert len(ranges) > 20
    for kind in ranges:
        with pytest.raises(click.BadParameter):
            kind.convert("nan", None, None)


def _options(command: click.Command) -> list[click.Parameter]:
    below = command.commands.values() if isinstance(command, click.Group) else ()
    return [*command.params, *(option for one in below for option in _options(one))]


def test_tokens_differ_and_are_hard_to_guess() -> None:
    texts = {new_token("a", [Scope.ROUTE])[0] for _ in range(100)}
    assert len(texts) == 100
    assert all(len(text.split("_", 2)[2]) == 43 for text in texts)


def test_a_token_is_valid_until_it_expires_or_is_revoked() -> None:
    now = now_utc()
    _, token = new_token("a", [Scope.ROUTE], expires_at=now + datetime.timedelta(seconds=10))
    assert token.state(now) == "valid"
    assert token.state(now + datetime.timedelta(seconds=10)) == "expired"
    assert token.model_copy(update={"revoked_at": now}).state(now) == "revoked"


def test_what_is_saved_is_loaded_again(tmp_path: Path) -> None:
    limits = TokenLimits.model_validate({"requests_per_second": 2.5, "strong_share": 0.3, "beyond": "cheap"})
    with changing(tmp_path / "tokens.json") as known:
        _, token = new_token("Team A", [Scope.ROUTE, Scope.ADMIN], expires_at=now_utc(), limits=limits)
        known.append(token)
    assert TokenBook.load(tmp_path / "tokens.json").tokens == (token,)


def test_a_failed_change_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    add_token(path, "a")
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="'a' occurs twice"):
        add_token(path, "a")
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sha256": "12"}, "wrong at tokens.0.sha256"),
        ({"scopes": ["root"]}, "wrong at tokens.0.scopes"),
        ({"scopes": []}, "wrong at tokens.0.scopes"),
        ({"expires_at": "2026-01-01T00:00:00"}, "wrong at tokens.0.expires_at"),
        ({"limits": {"strong_share": 2}}, "wrong at tokens.0.limits.strong_share"),
        ({"limits": {"requests_per_second": 0}}, "wrong at tokens.0.limits.requests_per_second"),
        ({"limits": {"usd_per_day": "1e999"}}, "wrong at tokens.0.limits.usd_per_day"),
        ({"secret": "a canary"}, "wrong at tokens.0.secret"),
    ],
)
def test_a_wrong_file_is_refused_and_not_quoted(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = tmp_path / "tokens.json"
    add_token(path, "a")
    document = json.loads(path.read_text("utf-8"))
    document["tokens"][0] |= change
    path.write_text(json.dumps(document), "utf-8")
    with pytest.raises(ConfigError, match=message) as caught:
        TokenBook.load(path)
    assert "canary" not in str(caught.value)


def test_a_file_that_others_may_write_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    add_token(path, "a")
    path.chmod(0o620)
    with pytest.raises(ConfigError, match="chmod 600"):
        TokenBook.load(path)


def test_a_missing_file_and_one_that_is_no_json_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="elle token create"):
        TokenBook.load(tmp_path / "tokens.json")
    (tmp_path / "tokens.json").write_text("tokens: []", "utf-8")
    (tmp_path / "tokens.json").chmod(0o600)
    with pytest.raises(ConfigError, match="must be JSON: a value is missing"):
        TokenBook.load(tmp_path / "tokens.json")


@pytest.mark.parametrize("name", ["", "a\nb", "ä" * 70, "-x", "x" * 65])
def test_a_name_that_no_label_can_hold_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="name"):
        new_token(name, [Scope.ROUTE])


def test_a_digest_is_that_of_the_text() -> None:
    assert token_digest("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
