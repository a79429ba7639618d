"""`elle doctor` finds each thing that is wrong with an installation, says what to do, and writes nothing."""

from __future__ import annotations

import datetime
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from router.cli.checking import installation, machine, verb
from router.cli.checking.finding import Finding, Level, WantedService, run_checks
from router.cli.main import cli
from router.identity.principal import Scope
from router.identity.token_book import changing, now_utc
from router.ledger.settings import LedgerSettings
from router.rollout.canary import Canary, CanaryPlan
from router.rollout.canary_file import CanaryFile
from router.serving.settings import ServerSettings
from scripts.reference import ENVIRONMENT
from tests.router.identity.authority import Authority
from tests.router.identity.guarded import add_token
from tests.router.policies.score_policy import write_score_policy


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """Write a policy that needs no encoder, so that a check takes milliseconds."""
    return write_score_policy(tmp_path, name="mine")


def worst(findings: Iterator[Finding], check: str) -> list[Finding]:
    """Return what a check found beside what is well."""
    return [one for one in findings if one.check == check and one.level is not Level.OK]


def test_a_plain_installation_has_nothing_that_fails() -> None:
    done = CliRunner().invoke(cli, ["doctor", "--port", "0", "--json"])
    told = json.loads(done.stdout)
    assert done.exit_code == 0, done.stdout
    assert told["counts"]["fail"] == 0
    assert {one["check"] for one in told["findings"]} == {name for name, _ in verb._checks()}
    encoder = next(one for one in told["findings"] if one["check"] == "encoder")
    assert "every probe judges a prompt" in encoder["says"]
    # What is to be looked at says what to do.
    assert all(one["do"] for one in told["findings"] if one["level"] == "warn")


def test_whatever_fails_is_said_and_changes_the_exit_status(policy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOT_SET_KEY", raising=False)
    text = policy.read_text("utf-8").replace("api_base", "api_key_env: NOT_SET_KEY\n  api_base", 1)
    policy.write_text(text, "utf-8")
    done = CliRunner().invoke(cli, ["doctor", "--policy", str(policy), "--port", "0"])
    assert done.exit_code == 3, done.stdout
    assert "the variable NOT_SET_KEY is not set here" in done.stdout
    assert "export NOT_SET_KEY=" in done.stdout
    assert done.stdout.rstrip().endswith(" 1 failed.")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["--prot", "1"], "--port"),
        (["--tls-cert", "cert.pem"], "--tls-cert and --tls-key must both be given"),
        (["--config", "nowhere.yaml"], "does not exist"),
        (["--port", "many"], "'many' is not a valid integer"),
        (["--jwks", "keys.json"], "belong together"),
        (["--jwks", "keys.json"], "Mend the options first"),
    ],
)
def test_options_that_cannot_be_are_a_finding(given: list[str], says: str) -> None:
    done = CliRunner().invoke(cli, ["doctor", *given])
    assert done.exit_code == 3
    assert says in done.stdout


def test_the_options_may_come_from_a_file_and_the_environment(
    policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elle.yaml").write_text(f"policy: {policy.name}\ntokens: none.json\nport: 0\n", "utf-8")
    monkeypatch.setenv("ELLE_HOST", "0.0.0.0")
    found = list(verb.findings(["--config", str(tmp_path / "elle.yaml")]))
    assert "mine" in next(one.says for one in found if one.check == "policies")
    assert "none.json does not exist" in worst(iter(found), "tokens")[0].says
    assert "Give --tls-cert and --tls-key" in worst(iter(found), "exposure")[0].says


def _tls(folder: Path, *, days: int, mode: int = 0o600) -> list[str]:
    cert, key = folder / "cert.pem", folder / "key.pem"
    Authority("a").sign("a", days=days).write(cert, key)
    key.chmod(mode)
    return ["--tls-cert", str(cert), "--tls-key", str(key)]


def _token(folder: Path, expires_in: datetime.timedelta | None, **more: Any) -> list[str]:
    path = folder / "tokens.json"
    add_token(path, "soon", Scope.ROUTE)
    with changing(path) as known:
        known[0] = known[0].model_copy(update={"expires_at": expires_in and now_utc() + expires_in})
    path.chmod(more.get("mode", 0o600))
    return ["--tokens", str(path)]


def _open_folder(folder: Path) -> list[str]:
    (folder / "open").mkdir()
    given = _token(folder / "open", None)
    (folder / "open").chmod(0o777)
    return given


def _ledger_of_nobody(folder: Path) -> list[str]:
    (folder / "ledger.db").write_text("no database at all", "utf-8")
    return ["--ledger", str(folder / "ledger.db")]


def _state_of_nobody(folder: Path) -> list[str]:
    (folder / "state.db").write_text("no database at all", "utf-8")
    return ["--state", str(folder / "state.db")]


def _short_key(folder: Path) -> list[str]:
    (folder / "short.key").write_text("x", "utf-8")
    return ["--ledger", str(folder / "new.db"), "--ledger-key", str(folder / "short.key")]


def _canary_of_others(folder: Path) -> list[str]:
    CanaryFile(folder / "c.json", Canary(CanaryPlan("c", "nobody", "none", 0.02))).save()
    return ["--canary", str(folder / "c.json")]


#: For each fault the check that finds it, how bad it is, and what it says.
FAULTS: dict[str, tuple[Callable[[Path], list[str]], str, Level, str]] = {
    "certificate ends": (lambda f: _tls(f, days=3), "TLS", Level.WARN, "Renew the certificate"),
    "certificate ended": (lambda f: _tls(f, days=-3), "TLS", Level.FAIL, "expired on"),
    "key is open": (lambda f: _tls(f, days=90, mode=0o644), "TLS", Level.WARN, "chmod 600"),
    "no certificate": (lambda f: ["--tls-cert", "a", "--tls-key", "b"], "TLS", Level.FAIL, "cannot be read"),
    "token ends": (lambda f: _token(f, datetime.timedelta(days=2)), "tokens", Level.WARN, "these expire: soon"),
    "no valid token": (lambda f: _token(f, -datetime.timedelta(days=2)), "tokens", Level.WARN, "no valid token"),
    "tokens are open": (lambda f: _token(f, None, mode=0o644), "tokens", Level.WARN, "chmod 600"),
    "folder is open": (_open_folder, "tokens", Level.FAIL, "chmod o-w"),
    "no admin": (lambda f: [*_token(f, None), "--admin-port", "0"], "tokens", Level.WARN, "--scope admin"),
    "no keys": (
        lambda f: ["--jwks", "nowhere", "--jwt-issuer", "a", "--jwt-audience", "b"],
        "web tokens",
        Level.FAIL,
        "cannot be read",
    ),
    "open to all": (lambda f: ["--host", "0.0.0.0", "--insecure"], "exposure", Level.WARN, "at your cost"),
    "no ledger": (_ledger_of_nobody, "ledger", Level.FAIL, "not a database"),
    "no state": (_state_of_nobody, "state", Level.FAIL, "not a database"),
    "key is short": (_short_key, "ledger", Level.FAIL, "at least 16 bytes"),
    "empty store": (lambda f: ["--store", str(f / "store")], "policies", Level.FAIL, "elle policy activate"),
    "no policy": (lambda f: ["--policy", str(f / "none.yaml")], "policies", Level.FAIL, "does not exist"),
    "no canary": (lambda f: ["--canary", str(f / "canary.json")], "rollout", Level.WARN, "elle canary start"),
    "canary of others": (_canary_of_others, "rollout", Level.WARN, "does not serve 'nobody' and 'none'"),
    "too many threads": (lambda f: ["--workers", "64", "--threads", "64"], "cores", Level.WARN, "take turns"),
    "too many processes": (lambda f: ["--workers", "100000"], "memory", Level.WARN, "Raise the limit"),
    "no room for drift": (
        lambda f: ["--drift-state", str(f / "mine.yaml" / "a")],
        "rollout",
        Level.FAIL,
        "cannot be written",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_found_by_its_check(fault: str, policy: Path, tmp_path: Path) -> None:
    given, check, level, says = FAULTS[fault]
    options = given(tmp_path)
    serves = [] if {"--policy", "--store"} & set(options) else ["--policy", str(policy)]
    found = worst(verb.findings([*serves, "--port", "0", *options]), check)
    assert [one for one in found if one.level is level and says in f"{one.says} {one.do}"], found


def test_a_check_of_a_ledger_writes_nothing(policy: Path, tmp_path: Path) -> None:
    before = {path.name for path in tmp_path.iterdir()}
    found = list(verb.findings(["--policy", str(policy), "--port", "0", "--ledger", str(tmp_path / "new.db")]))
    assert not worst(iter(found), "ledger")
    assert {path.name for path in tmp_path.iterdir()} == before


def test_a_port_that_somebody_holds_is_named_and_two_options_cannot_share_one(policy: Path) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = str(held.getsockname()[1])
        serve = ["--policy", str(policy), "--port"]
        one = worst(verb.findings([*serve, "0", "--http", port]), "ports")
        assert [(one.level, port in one.says) for one in one] == [(Level.FAIL, True)]
        every = worst(verb.findings([*serve, port]), "ports")
        assert [(one.level, "while this service runs" in one.says) for one in every] == [(Level.WARN, True)]
    twice = worst(verb.findings([*serve, port, "--http", port]), "ports")
    assert [one.level for one in twice] == [Level.FAIL]


def test_a_variable_that_nothing_reads_is_noticed(policy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELLE_PROT", "1")
    found = worst(verb.findings(["--policy", str(policy), "--port", "0"]), "variables")
    assert [(one.level, one.do) for one in found] == [(Level.WARN, "Did you mean ELLE_PORT?")]


def test_every_documented_variable_is_known() -> None:
    assert ENVIRONMENT.keys() <= verb._variables()


def test_a_check_that_breaks_does_not_end_the_others() -> None:
    def broken(name: str, wanted: WantedService) -> Iterator[Finding]:
        raise ZeroDivisionError("of a secret")

    wanted = WantedService(ServerSettings(), 1)
    checks = [("broken", broken), ("python", installation.check_python)]
    first, second = run_checks(checks, wanted)
    assert (first.level, second.check) == (Level.FAIL, "python")
    assert "ZeroDivisionError" in first.says
    assert "secret" not in first.says


def test_a_password_of_a_database_is_not_shown(policy: Path) -> None:
    url = "postgresql://me:canary-password@127.0.0.1:1/ledger"
    found = CliRunner().invoke(cli, ["doctor", "--policy", str(policy), "--ledger", url, "--ledger-key", str(policy)])
    assert LedgerSettings(url).name in found.stdout
    assert "canary-password" not in found.output


@pytest.mark.parametrize(
    ("requirement", "fault"),
    [
        ("click>=8.1", ""),
        ("click<1", "click<1"),
        ("click>=8,!=999", ""),
        ("click >= 999", "click>= 999"),
        ("no-such-package", "no-such-package"),
        ('uvloop[x]>=0.1; extra == "serve"', ""),
    ],
)
def test_packages_are_compared_with_what_is_required(requirement: str, fault: str) -> None:
    assert installation._fault_of(requirement).partition(" (")[0] == fault


def test_the_limits_of_control_groups_are_read(tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/a/b\n")
    (tmp_path / "sys/fs/cgroup/a/b").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/a/memory.max").write_text("500000000\n")
    (tmp_path / "sys/fs/cgroup/a/b/memory.max").write_text("max\n")
    assert list(machine._memory_limits(tmp_path)) == [500.0]
