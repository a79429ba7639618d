"""Check what the ports of a service need: free addresses, TLS, tokens, keys of an identity provider, and traces."""

from __future__ import annotations

import contextlib
import datetime
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from router.cli.checking.finding import Finding, WantedService, fail, ok, warn
from router.errors import ConfigError
from router.identity.principal import Scope
from router.identity.server_tls import ServerCertificates, TlsFiles, is_loopback
from router.identity.token_book import Token, TokenBook, now_utc
from router.serving.http_server import bind_socket
from router.serving.ports import require_encryption

#: Days before its end at which a certificate or a token is worth a warning.
SOON_DAYS = 14


def check_ports(name: str, wanted: WantedService) -> Iterator[Finding]:
    """Try to take every port, and give it back."""
    settings, taken = wanted.settings, []
    ports: list[tuple[str, str, int]] = [("--port", settings.host, settings.port)]
    if settings.http is not None:
        ports.append(("--http", settings.host, settings.http_port))
    if settings.admin_port is not None:
        ports.append(("--admin-port", settings.admin_host, settings.admin_port))
    if settings.metrics_port is not None:
        ports.append(("--metrics-port", settings.host, settings.metrics_port))
    with contextlib.ExitStack() as held:
        for option, host, port in ports:
            try:
                # They listen together, so that two options with the same port are noticed.
                held.enter_context(bind_socket(host, port, option=option)).listen()
            except ConfigError as error:
                taken.append(str(error))
            except OSError:
                taken.append(f"{option} takes port {port}, which another option takes too; choose another one.")
    if not taken:
        yield ok(name, f"free: {', '.join(f'{host}:{port} ({option})' for option, host, port in ports)}.")
    elif len(taken) == len(ports):
        yield warn(
            name, "all ports are in use, as they are while this service runs.", f"If it does not run: {taken[0]}"
        )
    else:
        yield from (fail(name, message) for message in taken)


def check_exposure(name: str, wanted: WantedService) -> Iterator[Finding]:
    """Compare who can reach the service with what stops them."""
    settings = wanted.settings
    require_encryption(settings)
    if is_loopback(settings.host):
        yield ok(name, f"only this machine can reach {settings.host}.")
    elif settings.identity.is_on:
        yield ok(name, f"other machines can reach {settings.host}, and callers need a token.")
    else:
        yield warn(
            name,
            f"whoever reaches {settings.host} may use the candidates at your cost.",
            "Give --tokens; `elle token create NAME --tokens tokens.json` makes a token.",
        )
    if settings.metrics_port is not None and not is_loopback(settings.host):
        yield warn(
            name, "whoever reaches the metrics port may read the metrics.", "Let only Prometheus reach --metrics-port."
        )


def check_tls(name: str, wanted: WantedService) -> Iterator[Finding]:
    """Load certificate and key, and look at their expiry and at who may read the key."""
    files = wanted.settings.tls
    if files is None:
        yield ok(name, "there is no TLS (--tls-cert); connections are not encrypted.")
        return
    certificates = ServerCertificates(files)
    yield _of_expiry(name, files, certificates.expires_at)
    if files.key.stat().st_mode & stat.S_IRWXO:
        yield warn(name, f"everybody on this machine may read the key {files.key}.", f"Run `chmod 600 {files.key}`.")


def _of_expiry(name: str, files: TlsFiles, expires_at: datetime.datetime | None) -> Finding:
    if expires_at is None:
        return warn(
            name,
            f"{files.cert} and {files.key} belong together; when they expire is not known.",
            "Install cryptography to see it: `pip install 'elle-router[sign]'`.",
        )
    days = (expires_at - now_utc()).days
    says = f"{files.cert} and {files.key} belong together, and expire in {days} days."
    if days < SOON_DAYS:
        return warn(name, says, "Renew the certificate; the service takes new files over without a restart.")
    return ok(name, says)


def check_tokens(name: str, wanted: WantedService) -> Iterator[Finding]:
    """Read the file of tokens as the service does, and look at who could change it and which tokens are of use."""
    path = wanted.settings.identity.tokens
    if path is None:
        says = "callers need a JSON Web Token" if wanted.settings.identity.jwt else "nobody is asked for a token"
        yield ok(name, f"there is no file of tokens (--tokens); {says}.")
        return
    tokens, now = TokenBook.load(path).tokens, now_utc()
    yield from _of_place(name, path)
    valid = [one for one in tokens if one.state(now) == "valid"]
    if not valid and wanted.settings.identity.jwt is None:
        make = f"`elle token create NAME --tokens {path}`"
        yield warn(name, f"{path} holds no valid token, so every call is refused.", f"Make one: {make}.")
        return
    yield from _of_tokens(name, valid, now)
    if wanted.settings.admin_port is not None and not any(Scope.ADMIN in one.scopes for one in valid):
        make = f"`elle token create NAME --tokens {path} --scope admin`"
        yield warn(name, "no token opens the operator's page.", f"Make one: {make}.")


def _of_place(name: str, path: Path) -> Iterator[Finding]:
    folder = path.resolve().parent
    mode = folder.stat().st_mode
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        yield fail(name, f"everybody may replace files in {folder}, and so add tokens.", f"Run `chmod o-w {folder}`.")
    if path.stat().st_uid not in {0, os.geteuid()}:
        yield warn(name, f"another user owns {path}, and may add tokens.", f"Run `chown` on {path}.")
    if path.stat().st_mode & stat.S_IRWXO:
        yield warn(name, f"everybody on this machine may read {path}.", f"Run `chmod 600 {path}`.")


def _of_tokens(name: str, valid: Sequence[Token], now: datetime.datetime) -> Iterator[Finding]:
    soon = now + datetime.timedelta(days=SOON_DAYS)
    ending = [one.name for one in valid if one.expires_at is not None and one.expires_at < soon]
    if ending:
        yield warn(
            name,
            f"{len(valid)} tokens are valid; within {SOON_DAYS} days these expire: {', '.join(ending)}.",
            "Make new ones with `elle token create`, and give them to their callers.",
        )
    else:
        yield ok(name, f"{len(valid)} tokens are valid.")


def check_keys(name: str, wanted: WantedService) -> Iterator[Finding]:
    """Read the keys of an identity provider from a file. A URL is not fetched, because nothing leaves the machine."""
    settings = wanted.settings.identity.jwt
    if settings is None:
        yield ok(name, "no JSON Web Tokens are taken (--jwks).")
        return
    from router.identity.json_web_tokens import WebTokens

    keys = WebTokens(settings).keys
    fetched = f"the keys at {keys.place} are fetched when the service starts; this check fetches nothing."
    yield ok(name, f"{keys.place} holds {len(keys.value)} keys." if keys.value else fetched)


def check_traces(name: str, wanted: WantedService) -> Iterator[Finding]:
    """Look whether traces can be made. Nothing is sent."""
    settings = wanted.settings.traces
    if settings is None:
        yield ok(name, "no traces are sent (--otlp-endpoint).")
        return
    from router.observing.traces import tracing

    with tracing(settings):
        pass
    yield ok(name, "traces can be made; whether the collector answers is not tried.")
