"""`elle top` shows the figures of a page, and says what to do if none answers or a token is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from router.cli.main import cli
from router.cli.running.top import _newest
from router.identity.gate import IdentitySettings
from router.identity.principal import Scope
from router.identity.server_tls import TlsFiles
from tests.router.admin.served import served_page
from tests.router.identity.guarded import add_token


def test_the_figures_are_shown_to_whoever_has_a_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    book = tmp_path / "tokens.json"
    token, _ = add_token(book, "a", Scope.ADMIN)
    with served_page(tmp_path, identity=IdentitySettings(book)) as page:
        asked = ["top", "--url", page.url, "--period", "all"]
        refused = CliRunner().invoke(cli, [*asked, "--once"])
        assert refused.exit_code == 1
        assert "ELLE_ADMIN_TOKEN" in refused.output
        monkeypatch.setenv("ELLE_ADMIN_TOKEN", token)
        shown = CliRunner().invoke(cli, [*asked, "--once"]).output
        told = json.loads(CliRunner().invoke(cli, [*asked, "--json"]).output)
    for figure in (
        "3 decisions, decided share 50.0 %",
        "saved 75.0 %",
        "small",
        "ABSTAINED",
        "EXPIRED",
        "has expired",
        "team-<b>",
    ):
        assert figure in shown, figure
    assert told["period_total"]["decisions"] == 3
    assert token not in shown


def test_the_screen_goes_on_while_the_service_is_started_anew(tmp_path: Path) -> None:
    with served_page(tmp_path) as page:
        assert "3 decisions" in told_by(_newest(page.url, "all"))
    assert "no operator's page answers" in told_by(_newest(page.url, "all"))


def told_by(shown: Any) -> str:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(shown)
    return capture.get()


def test_a_certificate_that_is_not_trusted_is_told_with_what_to_do(tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    from tests.router.identity.authority import Authority

    files = TlsFiles(tmp_path / "cert.pem", tmp_path / "key.pem")
    Authority("a").sign("service").write(files.cert, files.key)
    with served_page(tmp_path, tls=files) as page:
        done = CliRunner().invoke(cli, ["top", "--once", "--url", page.url.replace("http:", "https:")])
    assert done.exit_code == 1
    assert "is not trusted; set SSL_CERT_FILE" in done.output


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "file:///etc/passwd"])
def test_without_a_page_it_says_what_to_do(url: str) -> None:
    done = CliRunner().invoke(cli, ["top", "--once", "--url", url])
    assert done.exit_code == 1
    assert "--url" in done.output
    assert "Traceback" not in done.output
