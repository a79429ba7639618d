"""`elle admin`: list, activate and take back the versions of a running service, from any machine that can reach it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from router.cli.changing.versions import EXPECT, REASON
from router.cli.options import JSON, PATH, with_options
from router.cli.output import print_json, stdout
from router.cli.running.top import TOKEN_VARIABLE
from router.errors import ConfigError, ServiceError
from router.identity.server_tls import is_loopback

if TYPE_CHECKING:
    from router.client.admin_calls import AdminClient

#: What to do, by the status with which a service answers.
_HINTS = {
    "UNAUTHENTICATED": f" Set {TOKEN_VARIABLE} to a token with the scope admin.",
    "PERMISSION_DENIED": f" Set {TOKEN_VARIABLE} to a token with the scope admin.",
    "UNIMPLEMENTED": " Start the service with --tokens: without them nobody can change it from elsewhere.",
    "UNAVAILABLE": " If it speaks TLS, give --tls or --tls-ca.",
}

_CONNECTING = (
    click.option(
        "--address", default="localhost:50051", show_default=True, metavar="HOST:PORT", help="The service's gRPC port."
    ),
    click.option("--tls", is_flag=True, help="Connect by TLS, and trust the usual authorities."),
    click.option("--tls-ca", type=PATH, help="Connect by TLS, and trust the authorities in this PEM file only."),
    click.option("--tls-cert", type=PATH, help="A certificate of your own, for mutual TLS; needs --tls-key."),
    click.option("--tls-key", type=PATH, help="The key of --tls-cert."),
    click.option("--insecure", is_flag=True, help="Send the token without TLS to another machine."),
)


@click.group("admin", short_help="Change what a running service decides by.")
def admin_verb() -> None:
    """Change what a running service decides by, over its gRPC port.

    The service needs --tokens or --jwks. ELLE_ADMIN_TOKEN holds a token of it with the scope admin.
    """


@admin_verb.command("list", short_help="List what a service decides by, and the versions in its store.")
@with_options(*_CONNECTING)
@JSON
def admin_list_verb(as_json: bool, **where: Any) -> None:
    """List what the service decides by, and the versions in its store."""
    from rich.table import Table

    from router.versions.version import SHOWN

    told = _asked(where, lambda service: service.versions())
    if as_json:
        print_json(told)
        return
    serving = Table("serves", "policy digest", "probe digest")
    for one in told["served"]:
        serving.add_row(one["policy"], one["policy_digest"][:SHOWN], one["probe_digest"][:SHOWN])
    versions = Table("policy", "version", "active", "policy digest")
    for one in told["versions"]:
        active = "yes" if one["active"] else ""
        versions.add_row(one["policy"], one["id"][:SHOWN], active, one["policy_digest"][:SHOWN])
    stdout().print(serving, *([versions] if told["versions"] else []))


@admin_verb.command("reload", short_help="Let a service load its policies again.")
@with_options(*_CONNECTING)
@JSON
def admin_reload_verb(as_json: bool, **where: Any) -> None:
    """Let all processes of a service load their policies again, as SIGHUP does."""

    told = _asked(where, lambda service: service.reload())
    if as_json:
        print_json(told)
    else:
        click.echo("other policies decide from now on." if told["replaced"] else "the policies are those of before.")


@admin_verb.command("activate", short_help="Make a version the active one of a service.")
@click.argument("version")
@REASON
@EXPECT
@with_options(*_CONNECTING)
@JSON
def admin_activate_verb(version: str, as_json: bool, reason: str, expect: str | None, **where: Any) -> None:
    """Make VERSION of the service's store the active one, and serve it. The service checks it first.

    VERSION is an id or its beginning, as `elle admin list` shows it. The name of the token is kept as the author.
    """

    _say(_asked(where, lambda service: service.activate(version, reason, _expected(expect))), as_json)


@admin_verb.command("rollback", short_help="Let a service go back to the version before.")
@click.argument("policy")
@REASON
@EXPECT
@with_options(*_CONNECTING)
@JSON
def admin_rollback_verb(policy: str, as_json: bool, reason: str, expect: str | None, **where: Any) -> None:
    """Make the version of POLICY active again, and serve it, that was active before the one that is now."""

    _say(_asked(where, lambda service: service.rollback(policy, reason, _expected(expect))), as_json)


def _expected(expect: str | None) -> str | None:
    return "" if expect == "none" else expect


def _say(change: dict[str, Any], as_json: bool) -> None:
    from router.versions.version import SHOWN

    if as_json:
        print_json(change)
    else:
        before = change["before"][:SHOWN] or "no version"
        click.echo(f"{change['policy']}: {change['after'][:SHOWN]} is active and served, {before} was")


def _asked(where: dict[str, Any], ask: Callable[[AdminClient], dict[str, Any]]) -> dict[str, Any]:
    """Return what a service answers. Raises ConfigError, which says what to do."""
    from router.client.admin_calls import AdminClient

    address, credentials = where["address"], _credentials(**where)
    token = os.environ.get(TOKEN_VARIABLE, "").strip()
    try:
        with AdminClient(address, credentials=credentials, api_key=token) as service:
            return ask(service)
    except ServiceError as error:
        said = str(error) if address in str(error) else f"{address}: {error}"
        raise ConfigError(f"{said.rstrip('.')}.{_HINTS.get(error.code, '')}") from error


def _credentials(
    address: str, *, tls: bool, tls_ca: Path | None, tls_cert: Path | None, tls_key: Path | None, insecure: bool
) -> Any:
    """Return the credentials for TLS, or None. Raises ConfigError if others could read the token on its way."""
    from router.client import ClientTlsFiles

    if tls or any(one is not None for one in (tls_ca, tls_cert, tls_key)):
        return ClientTlsFiles(tls_ca, tls_cert, tls_key).load()
    if not insecure and not is_loopback(address.rpartition(":")[0].strip("[]")):
        raise ConfigError(
            f"without TLS anybody between here and {address} could read the token; give --tls or --tls-ca, or "
            "--insecure if something else encrypts."
        )
    return None
