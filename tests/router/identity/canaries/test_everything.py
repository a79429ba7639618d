"""No secret, and no text of a caller, is in anything that services say and keep, whatever door and failure."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from router.cli.main import cli
from tests.router.identity.canaries import driving
from tests.router.identity.canaries import planted as plants
from tests.router.identity.canaries.planted import TEXTS, World, planted

pytestmark = pytest.mark.slow

#: The files that hold secrets because that is what they are for.
HOLDERS = {
    "key.pem",
    "ledger.key",
    "state.key",
    "plain.yaml",
    "secure.yaml",
    "test.yaml",
    "tokens.json",
    "litellm.yaml",
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Run the services, come in by every door, and end the services, so that everything is written."""
    with planted(tmp_path_factory.mktemp("canaries")) as world:
        driving.drive_http(world, world.http_url, world.verify, many=True)
        driving.drive_http(world, world.plain.url, True, many=False)
        driving.drive_grpc(world, world.secure.address, world.credentials)
        driving.drive_grpc(world, world.plain.address, None)
        driving.drive_ext_proc(world, world.secure.address, world.credentials)
        driving.drive_admin(world)
        os.kill(world.secure.process.pid, signal.SIGHUP)
        for service in (world.secure, world.plain):
            service.ask_to_end(signal.SIGINT)
        for service in (world.secure, world.plain):
            service.process.wait(60)
        yield world


def test_every_door_and_every_failure_was_seen(world: World) -> None:
    """A search in nothing would find nothing."""
    said = " ".join(world.said.values())
    for word in (
        "UNAUTHENTICATED",
        "PERMISSION_DENIED",
        "OK",
        "413",
        "not served",
        "It says: Incorrect API key",
        "I do not know: ***",
    ):
        assert word in said, word
    for reason in ("DENIED", "REJECTED", "UNAVAILABLE"):
        assert f"UPSTREAM_{reason}" in said, reason
    for reason in ("no_token", "unknown_token", "expired", "revoked", "wrong_scope", "oversized"):
        assert re.search(rf'elle_turned_away_total{{[^}}]*reason="{reason}"}} [1-9]', world.said["metrics"]), reason
    assert '"level": "info"' in world.secure.text
    assert " INFO " in world.plain.text
    assert '"message": "decided"' in world.secure.text
    assert world.collector.spans
    assert "the keys in http://127.0.0.1:1/keys cannot be used" in world.plain.text
    for name in ("ledger.db", "state.db", "drift.json"):
        assert (world.folder / name).stat().st_size > 0, name
    assert any((world.folder / "spool").iterdir())


def test_nobody_is_told_a_secret(world: World) -> None:
    secrets = {name: value for name, value in world.secrets.items() if name not in TEXTS}
    _search(world.said, secrets)


def test_no_secret_and_no_text_of_a_caller_is_logged_counted_or_traced(world: World) -> None:
    places = {
        "log in JSON": world.secure.text,
        "log for people": world.plain.text,
        "metrics": world.said["metrics"],
        "traces": world.collector.raw.decode("latin-1"),
        **{place: said for place, said in world.said.items() if place.startswith("page")},
    }
    _search(places, world.secrets)


def test_no_file_holds_a_secret_but_those_that_are_for_it(world: World) -> None:
    files = {
        str(path.relative_to(world.folder)): path.read_bytes().decode("latin-1")
        for path in world.folder.rglob("*")
        if path.is_file() and path.name not in HOLDERS
    }
    assert {"ledger.db"} <= files.keys()
    assert any(name.startswith("spool/") for name in files)
    _search(files, world.secrets)
    # The book of tokens holds digests, and no token.
    tokens = {name: value for name, value in world.secrets.items() if "digest" not in name}
    _search({"tokens.json": (world.folder / "tokens.json").read_text("utf-8")}, tokens)


def _search(places: dict[str, str], secrets: dict[str, str]) -> None:
    found = [
        f"{name} is in {place}: ...{said[max(0, said.index(secret) - 200) :][:400]}..."
        for place, said in places.items()
        for name, secret in secrets.items()
        if secret in said
    ]
    assert not found, "\n\n".join(found)


def test_the_command_line_says_no_secret(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = world.folder
    monkeypatch.setenv("ELLE_ADMIN_TOKEN", world.tokens["admin"])
    monkeypatch.chdir(folder)
    (folder / "litellm.yaml").write_text(yaml.safe_dump({"model_list": [_litellm_model(world)]}), "utf-8")
    policy, said = str(folder / "test.yaml"), {}
    for words in (
        ["doctor", "--config", str(folder / "secure.yaml")],
        ["doctor", "--config", str(folder / "plain.yaml"), "--json"],
        ["validate", policy],
        ["validate", policy, "--json"],
        ["policy", "validate", policy, "--store", "store"],
        ["policy", "activate", policy, "--store", "store", "--reason", "first"],
        ["policy", "list", "--store", "store", "--json"],
        ["policy", "show", "test", "--store", "store"],
        ["policy", "show", "test", "--store", "store", "--json"],
        ["policy", "diff", "test", policy, "--store", "store"],
        ["policy", "history", "--store", "store", "--json"],
        ["policy", "new", "--from-litellm", "litellm.yaml"],
        ["token", "list", "--tokens", "tokens.json", "--json"],
        ["top", "--once", "--url", world.admin_url],
        ["decide", "hello", "--policy", policy, "--json"],
        ["ledger", "stats", "--ledger", "ledger.db", "--json"],
        ["ledger", "stats", "--ledger", f"postgresql://me:{plants.DATABASE_PASSWORD}@127.0.0.1:1/ledger"],
        ["ledger", "migrate", "--ledger", f"mysql://me:{plants.DATABASE_PASSWORD}@127.0.0.1:1/ledger"],
        ["policy", "list", "--store", f"postgresql://me:{plants.DATABASE_PASSWORD}@127.0.0.1:1/ledger"],
        [
            "serve",
            "--jwks",
            f"https://me:{plants.URL_PASSWORD}@example.com",
            "--jwt-issuer",
            "a",
            "--jwt-audience",
            "b",
        ],
        ["serve", "--otlp-endpoint", f"http://me:{plants.COLLECTOR_PASSWORD}@127.0.0.1:1", "--port", "0"],
        ["serve", "--store", f"mysql://me:{plants.DATABASE_PASSWORD}@127.0.0.1/a", "--port", "0"],
    ):
        done = CliRunner().invoke(cli, words)
        assert done.output, words
        assert not isinstance(done.exception, Exception) or isinstance(done.exception, SystemExit), done.exception
        said[f"elle {' '.join(words[:2])} {len(said)}"] = done.output
    _search(said, world.secrets)


def _litellm_model(world: World) -> dict[str, object]:
    base = f"https://user:{plants.URL_PASSWORD}@example.com/v1?key={world.secrets['key of a provider']}"
    key = world.secrets["key of a provider"]
    return {"model_name": "a", "litellm_params": {"model": "openai/a", "api_base": base, "api_key": key}}


def test_a_broken_file_is_not_quoted(world: World, tmp_path: Path) -> None:
    secret = "canary-in-a-broken-file"
    for text in (f"ledger: [{secret}", f"{secret}", f"port: [{secret}, {secret}]", f"a: b: {secret}"):
        (tmp_path / "elle.yaml").write_text(text, "utf-8")
        for words in (["serve", "--config"], ["doctor", "--config"], ["validate"], ["token", "list", "--tokens"]):
            done = CliRunner().invoke(cli, [*words, str(tmp_path / "elle.yaml")])
            assert done.exit_code != 0
            assert secret not in done.output, done.output
