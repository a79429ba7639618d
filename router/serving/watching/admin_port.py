"""Serve the operator's page on the admin port, in a thread with an event loop of its own (`serving_admin`)."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from router.admin.site import Source, Trial, admin_app
from router.admin.trial import try_prompt
from router.errors import ConfigError
from router.identity.counts import DoorName, Refusal
from router.identity.gate import Gate
from router.identity.http_guard import requiring_scope
from router.identity.principal import Scope
from router.identity.server_tls import ServerCertificates, TlsFiles, is_loopback
from router.observing.catalogue import TURNED_AWAY
from router.observing.history import SAMPLE_S, History
from router.observing.prometheus import serve_metrics
from router.observing.tally import Snapshot, Tally
from router.observing.totals import Totals
from router.serving import http_server
from router.serving.backlog import authority
from router.serving.reloading.reloader import Reloader
from router.serving.settings import ServerSettings
from router.serving.watching.canary_state import canary_state
from router.watched_files import kept_fresh

log = logging.getLogger(__name__)

#: Seconds that the end of a service waits for requests to the page, and between two looks at whether it has come.
_GRACE_S, _POLL_S = 0.5, 0.1


@contextlib.contextmanager
def serving_admin(settings: ServerSettings, totals: Totals, trial: Trial) -> Iterator[str | None]:
    """Serve the page while the context lasts. Yield its address, or None if the settings ask for no page.

    It has a thread of its own, so that it neither holds up requests nor waits for them.

    Args:
        settings: name the port, who may see the page, and TLS.
        totals: what the service has counted.
        trial: tries a prompt; see `router.admin.trial.try_prompt`.

    Raises ConfigError if the port is occupied, if other machines could reach it without TLS, or if a package is not
    there.
    """
    if settings.admin_port is None:
        yield None
        return
    if settings.tls is None and not settings.insecure and not is_loopback(settings.admin_host):
        raise ConfigError(
            f"other machines can reach {settings.admin_host}, and without TLS anybody between could read the page and "
            "the token for it. Give --tls-cert and --tls-key, or leave --admin-host at 127.0.0.1."
        )
    listener = http_server.bind_socket(settings.admin_host, settings.admin_port, option="--admin-port")
    with listener:
        # Whoever asks before the thread serves waits, instead of being refused.
        listener.listen()
        gate = Gate(settings.identity, open_admin=is_loopback(settings.admin_host))
        history = History(totals.snapshot)
        on_oversized = functools.partial(gate.counts.add, DoorName.ADMIN, Refusal.OVERSIZED)
        source = Source(history, trial, on_oversized, functools.partial(canary_state, settings.canary))
        app = requiring_scope(admin_app(source, settings.admin_host), gate, Scope.ADMIN)
        certificates = ServerCertificates(settings.tls) if settings.tls is not None else None
        totals.follow("admin", lambda: _turned_away(gate))
        over = threading.Event()
        page = _serve_until(over, listener, app, _Around(history, gate, certificates))
        thread = threading.Thread(target=asyncio.run, args=(page,), name="admin", daemon=True)
        thread.start()
        try:
            yield authority(settings.admin_host, listener.getsockname()[1])
        finally:
            over.set()
            thread.join()
            totals.note_end("admin")


@contextlib.contextmanager
def showing(settings: ServerSettings, tally: Tally, trial: Trial) -> Iterator[str | None]:
    """Serve the metrics and the page of a single process while the context lasts. Yield the address of the page.

    Arguments and errors are those of `serving_admin`; `tally` counts what the process does.
    """
    totals = Totals()
    totals.follow("service", tally.snapshot)
    with showing_all(settings, totals, trial) as address:
        yield address


@contextlib.contextmanager
def showing_all(settings: ServerSettings, totals: Totals, trial: Trial) -> Iterator[str | None]:
    """Serve the metrics and the page of all processes of a service, as `showing` does for one."""
    with contextlib.ExitStack() as stack:
        if settings.metrics_port is not None:
            tls = _newest_context(settings.tls) if settings.tls is not None else None
            port = stack.enter_context(serve_metrics(totals.snapshot, settings.host, settings.metrics_port, tls=tls))
            if not settings.metrics_port:
                # Whoever let us choose the port has no other way to learn it.
                scheme = "http" if tls is None else "https"
                log.warning("metrics on %s://%s/metrics", scheme, authority(settings.host, port))
        yield stack.enter_context(serving_admin(settings, totals, trial))


def _newest_context(files: TlsFiles) -> Callable[[], ssl.SSLContext]:
    """Return what gives each new connection the newest certificates that two connections have seen.

    Each connection looks for newer ones. Prometheus connects again after seconds, so nobody else needs to look.
    """
    watched = ServerCertificates(files).watched

    def newest() -> ssl.SSLContext:
        watched.refresh()
        return watched.value.http_context

    return newest


def try_now(reloader: Reloader, request: bytes) -> bytes:
    """Try a prompt with the policies that decide now; see `router.admin.trial.try_prompt`."""
    return try_prompt(reloader.current.router, request)


@dataclass(frozen=True)
class _Around:
    """Holds what must be kept up to date while the page is served."""

    history: History
    gate: Gate
    certificates: ServerCertificates | None


async def _serve_until(over: threading.Event, listener: socket.socket, app: Any, around: _Around) -> None:
    """Serve the page and take a sample of the counts now and then, until `over` is set."""
    tls = around.certificates.http_context() if around.certificates else None
    serving = http_server.serve_app(listener, app, grace_s=lambda: _GRACE_S, tls=tls)
    async with kept_fresh(around.gate.watched_with(around.certificates)), serving:
        due = 0.0
        while not over.is_set():
            if time.monotonic() >= due:
                around.history.take()
                due = time.monotonic() + SAMPLE_S
            await asyncio.sleep(_POLL_S)


def _turned_away(gate: Gate) -> Snapshot:
    return Snapshot({TURNED_AWAY.name: {(*key,): float(n) for key, n in gate.counts.snapshot().items() if n}})
