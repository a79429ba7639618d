"""The configuration file of `elle serve`: keys, values, and what wins over what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from router.cli.main import cli
from router.cli.running import serve
from router.serving.settings import ServerSettings
from tests.conftest import ROOT


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[ServerSettings]:
    """Return the settings with which `elle serve` would start, without starting it."""
    found: list[Any] = []

    async def note(settings: ServerSettings, _: Any) -> None:
        found.append(settings)

    monkeypatch.setattr("router.serving.server.serve_forever", note)
    return found


def run(file: Path | None, text: str, *arguments: str, **env: str) -> str:
    options = []
    if file is not None:
        file.write_text(text, "utf-8")
        options = ["--config", str(file)]
    done = CliRunner().invoke(cli, ["serve", *options, *arguments], env=env)
    assert done.exit_code in {0, 1, 2}, done.output
    return done.output


def test_a_key_is_an_option(tmp_path: Path, served: list[ServerSettings]) -> None:
    text = "port: 0\nhttp: 8080\npolicy: [a.yaml, sub/b.yaml]\nmax_body_bytes: 1000\ntokens: /etc/elle/tokens.json\n"
    assert run(tmp_path / "elle.yaml", text + "drain_s: 1.5\n") == ""
    (found,) = served
    assert (found.port, found.http_port, found.drain_s) == (0, 8080, 1.5)
    # A path is relative to the folder of the file.
    assert found.policies == (tmp_path / "a.yaml", tmp_path / "sub" / "b.yaml")
    assert found.identity.tokens == Path("/etc/elle/tokens.json")


@pytest.mark.parametrize(("place", "found"), [("keys.json", "{folder}/keys.json"), ("https://id/k", "https://id/k")])
def test_a_path_that_may_be_a_url_is_relative_too(
    tmp_path: Path, served: list[ServerSettings], place: str, found: str
) -> None:
    run(tmp_path / "elle.yaml", f"jwks: {place}\njwt_issuer: https://id\njwt_audience: elle\n")
    jwt = served[0].identity.jwt
    assert jwt is not None
    assert jwt.keys == found.format(folder=tmp_path)


def test_an_option_wins_over_the_environment_and_the_environment_over_the_file(
    tmp_path: Path, served: list[ServerSettings]
) -> None:
    file = tmp_path / "elle.yaml"
    run(file, "port: 1")
    run(file, "port: 1", ELLE_PORT="2")
    run(file, "port: 1", "--port", "3", ELLE_PORT="2")
    run(None, "", ELLE_CONFIG=str(file))
    run(None, "")
    assert [found.port for found in served] == [1, 2, 3, 1, 50051]


def test_a_null_and_an_empty_file_leave_the_default(tmp_path: Path, served: list[ServerSettings]) -> None:
    run(tmp_path / "elle.yaml", "port:\n")
    run(tmp_path / "elle.yaml", "")
    assert [found.port for found in served] == [50051, 50051]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prot: 1", "there is no key 'prot'. Did you mean port?"),
        ("zzzz: 1", "there is no key 'zzzz'. The keys are "),
        ("7: 1", "there is no key 7."),
        ("port: 99999", "port cannot be '99999': 99999 is not in the range"),
        ("port: [1]", "port must be one value, got a list"),
        ("port: true", "port must be one value, got true"),
        ("ext_proc: maybe", "ext_proc cannot be 'maybe'"),
        ("- port", "must hold keys with values"),
        ("port: 1\nport: 2", "occurs twice"),
    ],
)
def test_a_wrong_file_is_refused_with_what_to_do(
    tmp_path: Path, served: list[ServerSettings], text: str, message: str
) -> None:
    assert message in run(tmp_path / "elle.yaml", text).replace("\n", " ")
    assert not served


def test_every_option_can_be_set_by_file_and_environment() -> None:
    keys = {one.envvar for one in serve.serve_verb.configurable()}  # type: ignore[attr-defined]
    assert {"ELLE_PORT", "ELLE_HTTP", "ELLE_POLICY", "ELLE_TOKENS", "ELLE_ENCODER_DIR", "ELLE_DRAIN_S"} <= keys


def test_the_example_is_valid(served: list[ServerSettings]) -> None:
    done = CliRunner().invoke(cli, ["serve", "--config", str(ROOT / "examples" / "elle.yaml"), "--workers", "1"])
    assert (done.exit_code, done.output) == (0, "")
    assert (served[0].http_port, served[0].reflection) == (8443, False)
