"""`elle serve`: run the service with the options of the command line, of the environment and of a file."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import click

from router.cli.on_ray import ray_options
from router.cli.options import ENCODER_DIR, PATH, FiniteRange
from router.cli.running import drift_options, ledger_options, rollout_options, watch_options
from router.cli.running.config_file import ConfiguredCommand

if TYPE_CHECKING:
    from pathlib import Path

    from router.identity.gate import IdentitySettings
    from router.identity.server_tls import TlsFiles
    from router.ledger.settings import DatabaseSettings
    from router.serving.server import RunningService
    from router.serving.settings import ServerSettings

#: The options that only mean something with --http, by the names that `HttpGateway` has for them.
_HTTP_OPTIONS = ("max_body_bytes", "cors_origins", "comment_after_s")

_SERVE_GROUPS = {
    "What to serve": ("config", "policies", "store", "watch", "encoder_dir"),
    "Addresses": ("host", "port", "http_port", "ext_proc"),
    "Over HTTP": ("cors_origins", "comment_after_s"),
    "Who may call": ("tokens", "jwks", "jwt_issuer", "jwt_audience", "reflection"),
    "Encryption": ("tls_cert", "tls_key", "tls_client_ca", "insecure"),
    "The ledger": ledger_options.NAMES,
    "Watching": watch_options.NAMES,
    "Drift": drift_options.NAMES,
    "Trying a new policy": rollout_options.NAMES,
    "Processes and threads": ("workers", "worker_timeout_s", "threads"),
    "On Ray": ray_options.NAMES,
    "Limits": ("max_pending", "max_prompt_bytes", "max_body_bytes"),
    "Shared with other processes": ("state", "state_key"),
    "Memory of prompts and sessions": ("cache_entries", "max_sessions", "session_ttl_s"),
    "Shutting down": ("drain_s", "drain_delay_s"),
}


@click.command(
    "serve", cls=ConfiguredCommand, groups=_SERVE_GROUPS, short_help="Serve over gRPC, and over HTTP with --http."
)
@click.option(
    "--policy",
    "policies",
    type=PATH,
    multiple=True,
    help="A policy file; repeatable. The first one is the default. Without any, the embedded policy is served, whose "
    "answers are canned.",
)
@click.option(
    "--store",
    metavar="DIR|URL",
    help="Serve the active versions in this store of `elle policy` instead of files, and follow what is activated. "
    "It is a directory, or a PostgreSQL database `postgresql://...` that all replicas follow.",
)
@click.option(
    "--watch",
    is_flag=True,
    help="Take the policies again when their files change, as on SIGHUP. If they cannot be used, the old ones go on.",
)
@click.option(
    "--host",
    metavar="ADDRESS",
    default="127.0.0.1",
    show_default=True,
    help="The address to listen on. Without --tokens whoever reaches it may use the service.",
)
@click.option(
    "--port",
    default=50051,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="The port of gRPC; 0 takes any free one.",
)
@click.option(
    "--http",
    "http_port",
    type=click.IntRange(0, 65535),
    help="Also serve the API of OpenAI over HTTP on this port; 0 takes any free one.",
)
@click.option(
    "--max-body-bytes", type=click.IntRange(1), help="The largest body of a request over HTTP. Default: 32 MiB."
)
@click.option(
    "--cors-origin",
    "cors_origins",
    multiple=True,
    metavar="ORIGIN",
    help="Let web pages of this origin, such as https://app.example.com, call the service from a browser; repeatable. "
    "The origin * stands for every web page.",
)
@click.option(
    "--comment-after-s",
    type=FiniteRange(0),
    help="Seconds of silence after which a client that waits for a stream over HTTP gets a comment, so that no proxy "
    "gives up; 0 sends none. Default: 20.",
)
@click.option(
    "--tokens",
    type=PATH,
    help="A file of tokens, as `elle token create` writes it: only callers with one of them are served. The file is "
    "read again when it changes.",
)
@click.option(
    "--jwks",
    metavar="FILE|URL",
    help="The public keys of an identity provider (JWKS): callers with a JSON Web Token that it signed are served too.",
)
@click.option("--jwt-issuer", metavar="ISSUER", help="What the claim `iss` of such a token must say; needs --jwks.")
@click.option("--jwt-audience", metavar="AUDIENCE", help="What the claim `aud` of such a token must say; needs --jwks.")
@click.option(
    "--tls-cert", type=PATH, help="The certificate of the service, in PEM, for gRPC and HTTP; needs --tls-key."
)
@click.option(
    "--tls-key", type=PATH, help="The private key of --tls-cert, in PEM. Both are read again when they change."
)
@click.option(
    "--tls-client-ca",
    type=PATH,
    help="Certificates of those who vouch for clients, in PEM: only clients with a certificate of theirs can connect.",
)
@click.option(
    "--insecure",
    is_flag=True,
    help="Listen on an address that other machines can reach without TLS, because something else encrypts.",
)
@click.option(
    "--reflection/--no-reflection",
    default=True,
    show_default=True,
    help="Whether gRPC reflection tells the methods of the service. With --tokens it needs a token.",
)
@ENCODER_DIR
@click.option(
    "--workers",
    default=1,
    show_default=True,
    type=click.IntRange(1),
    help="The number of processes that share the port.",
)
@click.option(
    "--threads",
    type=click.IntRange(1),
    help="The number of threads in each worker that run the encoder. Default: usable cores / workers.",
)
@click.option(
    "--max-pending",
    type=click.IntRange(1),
    help="The number of prompts that may wait for the encoder; more are refused. Default: 16 for each thread.",
)
@click.option(
    "--cache-entries",
    default=10_000,
    show_default=True,
    type=click.IntRange(0),
    help="The number of prompts whose predicted risks are kept, in case the same credential sends them again.",
)
@click.option(
    "--max-prompt-bytes",
    default=512 * 1024,
    show_default=True,
    type=click.IntRange(1),
    help="The most bytes of text that a request may hold.",
)
@click.option(
    "--max-sessions",
    default=50_000,
    show_default=True,
    type=click.IntRange(0),
    help="The number of sessions that all workers together remember at most.",
)
@click.option(
    "--session-ttl-s",
    default=3600.0,
    show_default=True,
    type=FiniteRange(0),
    help="Seconds after which an idle session is forgotten.",
)
@click.option(
    "--state",
    metavar="PATH|URL",
    help="Share sessions and the limits of tokens through this database: a URL postgresql://USER@HOST/DATABASE for "
    "replicas, or the path of an SQLite file for restarts of one service. A URL with a password belongs into "
    "ELLE_STATE.",
)
@click.option(
    "--state-key",
    type=PATH,
    help="The file with the secret key of that database's digests, the same for all. Default: PATH.key, which is made.",
)
@watch_options.watching_options
@click.option(
    "--worker-timeout-s",
    default=10.0,
    show_default=True,
    type=FiniteRange(1),
    help="A worker that does not respond for this many seconds is killed and replaced.",
)
@click.option(
    "--drain-s",
    default=10.0,
    show_default=True,
    type=FiniteRange(0),
    help="The most seconds from SIGTERM to the end; answers that are not finished by then are cut short.",
)
@click.option(
    "--drain-delay-s",
    default=2.0,
    show_default=True,
    type=FiniteRange(0),
    help="The first seconds of --drain-s, in which health says NOT_SERVING but new connections are accepted.",
)
@click.option(
    "--ext-proc",
    type=click.Choice(["closed", "open"]),
    is_flag=False,
    flag_value="closed",
    help="Also serve the external processor of Envoy. A request that it cannot decide is refused (closed, the default) "
    "or passed on unchanged (open).",
)
@ray_options.ray_serving_options
@ledger_options.serving_options
@drift_options.drift_serving_options
@rollout_options.rollout_serving_options
def serve_verb(workers: int, worker_timeout_s: float, **options: Any) -> None:
    """Serve over gRPC until SIGTERM, and over HTTP with --http."""
    from router.observing.logs import configure_logging

    settings = server_settings(**options)
    configure_logging(settings.log)
    for database in (settings.ledger, settings.state):
        if database is not None:
            # It is made here if it does not exist, before several workers want it.
            database.key()
    if ray_options.is_wanted(options):
        ray_options.serve(settings, workers, options)
        return
    if workers == 1:
        from router.serving.event_loop import run_in_event_loop
        from router.serving.server import serve_forever

        run_in_event_loop(serve_forever(settings, functools.partial(_announce_server, settings)))
        return

    # The parent of several workers imports as little as it can, so that they start soon.
    from router.serving.workers import serve_workers

    def announce_workers(address: str, *others: str | None) -> None:
        _announce(settings, f"serving on {address} in {workers} processes", *others)

    serve_workers(settings, workers, announce_workers, worker_timeout_s=worker_timeout_s)


def server_settings(ext_proc: Any, http_port: int | None, **options: Any) -> ServerSettings:
    """Return the settings of the server, with the services that the options ask for beside gRPC.

    Nothing is written or opened by that. Raises click.UsageError for options that do not go together, and ConfigError.
    """
    from router.serving.settings import ServerSettings

    options = {name: value for name, value in options.items() if name not in ray_options.NAMES}
    if options["store"] is not None and options["policies"]:
        raise click.UsageError("--policy and --store exclude each other (ELLE_STORE and elle.yaml set --store too).")
    asked = {name: options.pop(name) for name in _HTTP_OPTIONS}
    asked = {name: value for name, value in asked.items() if value not in (None, ())}
    options |= {"identity": _identity(options), "tls": _tls_files(options)}
    options |= watch_options.watch_settings(options)
    options["ledger"] = ledger_options.ledger_settings(options)
    options["state"] = _state(options.pop("state"), options.pop("state_key"))
    blocks = drift_options.drift_settings(options)
    options["drift"] = blocks if options["drift"] else None

    if ext_proc is not None:
        from router.gateways.ext_proc import ExternalProcessor

        options["doors"] = (ExternalProcessor(ext_proc),)
    if http_port is not None:
        from router.gateways.http.http_gateway import HttpGateway

        options |= {"http": HttpGateway(**asked), "http_port": http_port}
    elif asked:
        raise click.UsageError("--max-body-bytes, --cors-origin and --comment-after-s need --http.")
    return ServerSettings(**options)


def _identity(options: dict[str, Any]) -> IdentitySettings:
    """Take out of the options how callers prove who they are."""
    from router.identity.gate import IdentitySettings
    from router.identity.json_web_tokens import JwtSettings

    tokens, keys, issuer, audience = (options.pop(name) for name in ("tokens", "jwks", "jwt_issuer", "jwt_audience"))
    given = [one for one in (keys, issuer, audience) if one]
    if given and len(given) < 3:
        raise click.UsageError("--jwks, --jwt-issuer and --jwt-audience belong together; give all three.")
    return IdentitySettings(tokens, JwtSettings(keys, issuer, audience) if given else None)


def _state(place: str | None, key_file: Path | None) -> DatabaseSettings | None:
    """Return where the service shares its state."""
    from router.ledger.opening import require_installed
    from router.ledger.settings import DatabaseSettings

    if place is None:
        if key_file is not None:
            raise click.UsageError("--state-key needs --state.")
        return None
    settings = DatabaseSettings(place, key_file, option="--state")
    if not settings.is_sqlite:
        settings.url  # noqa: B018  It raises the error about other kinds of databases.
        require_installed(settings)
    return settings


def _tls_files(options: dict[str, Any]) -> TlsFiles | None:
    """Take the files of TLS out of the options."""
    from router.identity.server_tls import TlsFiles

    cert, key, client_ca = (options.pop(name) for name in ("tls_cert", "tls_key", "tls_client_ca"))
    if cert is not None and key is not None:
        return TlsFiles(cert, key, client_ca)
    if cert is not None or key is not None or client_ca is not None:
        raise click.UsageError("--tls-cert and --tls-key must both be given, also for --tls-client-ca.")
    return None


def _announce_server(settings: ServerSettings, running: RunningService) -> None:
    served = f"serving {', '.join(running.router.policies)} on {running.address}"
    _announce(settings, served, running.http_address, running.admin_address)


def _announce(
    settings: ServerSettings, text: str, http_address: str | None = None, admin_address: str | None = None
) -> None:
    from router.observing.logs import line_of

    scheme = "https" if settings.tls is not None else "http"
    lines = [text]
    if http_address is not None:
        lines.append(f"OpenAI's API on {scheme}://{http_address}/v1")
    if admin_address is not None:
        lines.append(f"the operator's page on {scheme}://{admin_address}/")
    for line in lines:
        click.echo(line_of(settings.log, line), err=True)
