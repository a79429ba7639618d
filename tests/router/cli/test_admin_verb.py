"""`elle admin` lists, activates and takes back versions of a running service, and says what to do if it cannot."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from router.cli.main import cli
from router.identity.gate import IdentitySettings
from router.identity.principal import Scope
from router.serving.settings import ServerSettings
from router.versions.version import PolicyVersion
from tests.router.identity.guarded import add_token
from tests.router.serving.reloading.test_admin_service import kept_versions
from tests.service import running


class Served:
    """A service with a store of three versions, its address, and a token of each scope."""

    def __init__(self, address: str, versions: list[PolicyVersion], tokens: dict[Scope, str]) -> None:
        self.address, self.versions, self.tokens = address, versions, tokens

    def elle(self, *words: str, scope: Scope | None = Scope.ADMIN) -> Any:
        env = {"ELLE_ADMIN_TOKEN": self.tokens[scope] if scope else ""}
        return CliRunner(env=env).invoke(cli, ["admin", *words, "--address", self.address])

    def json(self, *words: str) -> Any:
        done = self.elle(*words, "--json")
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder: Path = tmp_path_factory.mktemp("admin")
    _, versions = kept_versions(folder)
    tokens = {scope: add_token(folder / "tokens.json", scope.value, scope)[0] for scope in Scope}
    identity = IdentitySettings(folder / "tokens.json")
    with running(ServerSettings(store=folder / "store", port=0, drain_s=1, identity=identity)) as service:
        yield Served(service.address, versions, tokens)


def test_versions_are_listed_activated_and_taken_back(served: Served) -> None:
    first, second, _ = served.versions
    told = served.json("list")
    assert [one["policy_digest"] for one in told["served"]] == [first.policy_digest]
    assert {one["id"]: one["active"] for one in told["versions"]} == {one.id: one is first for one in served.versions}
    change = served.json("activate", second.id[:12], "--reason", "better", "--expect", first.id)
    assert (change["before"], change["after"]) == (first.id, second.id)
    assert change["author"].startswith("admin (token:")
    assert second.policy_digest[:12] in served.elle("list").stdout
    shown = served.elle("rollback", "test", "--reason", "worse").stdout
    assert shown == f"test: {first.id[:12]} is active and served, {second.id[:12]} was\n"
    assert served.json("reload")["replaced"] is False
    assert "those of before" in served.elle("reload").stdout


@pytest.mark.parametrize(
    ("words", "scope", "says"),
    [
        (("list",), None, "Set ELLE_ADMIN_TOKEN"),
        (("reload",), Scope.ROUTE, "Set ELLE_ADMIN_TOKEN"),
        (("activate", "000000", "--reason", "why"), Scope.ADMIN, "has no version"),
        (("rollback", "test", "--reason", "why", "--expect", "none"), Scope.ADMIN, "ABORTED"),
    ],
)
def test_what_cannot_be_done_is_said(served: Served, words: tuple[str, ...], scope: Scope | None, says: str) -> None:
    done = served.elle(*words, scope=scope)
    assert done.exit_code == 1
    assert says in done.output
    assert "Traceback" not in done.output
    assert all(token not in done.output for token in served.tokens.values())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--address", "127.0.0.1:1"), "If it speaks TLS, give --tls"),
        (("--address", "10.0.0.1:50051"), "could read the token"),
        (("--address", "localhost:1", "--tls-cert", "none.pem"), "must be given together"),
        (("--address", "localhost:1", "--tls-ca", "none.pem"), "cannot be used"),
    ],
)
def test_without_a_service_it_says_what_to_do(options: tuple[str, ...], says: str) -> None:
    done = CliRunner().invoke(cli, ["admin", "list", *options])
    assert done.exit_code == 1
    assert says in done.output
