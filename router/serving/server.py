"""Run a serving process: open the ports, load the router, serve until a signal comes, and drain."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import sys
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from router.answering import upstream
from router.answering.dispatch import Dispatcher
from router.deciding.pipeline import Router
from router.identity.spending import Spending
from router.identity.watched_file import kept_fresh
from router.intake.bounds import Intake
from router.ledger.opening import open_ledger
from router.observing.metrics import MetricsObserver
from router.observing.observer import Observers
from router.observing.prometheus import serve_metrics
from router.observing.tally import Tally
from router.policies.credentials import CANNED_UPSTREAM
from router.policies.loading import ServedPolicy
from router.serving import http_server
from router.serving.garbage import rare_full_passes
from router.serving.ports import ServicePorts
from router.serving.reports import process_state
from router.serving.settings import ServerSettings
from router.serving.shutdown import Shutdown, ignore_hangup

if TYPE_CHECKING:
    from router.ledger.recorder import Ledger

log = logging.getLogger(__name__)

#: Most threads for blocking work outside the encoder, such as name look-ups and imports. They start when needed.
IO_THREADS = 64

#: Seconds at least in which the ledger writes what waits when everything else has ended.
LEAST_LEDGER_S = 0.5

#: Seconds for which a thread that imports, or works on a large request, may make the event loop wait.
SWITCH_S = 0.0002


@dataclass(frozen=True)
class RunningService:
    """Describes a service that is ready: its addresses and its router.

    Attributes:
        address: address of the gRPC port.
        http_address: address of the HTTP port; None if there is none.
        router: the router that decides.
        tally: counts what the service does, if somebody wants to know (`ServerSettings.is_watched`).
        ledger: where decisions are recorded; None if they are not.
    """

    address: str
    http_address: str | None
    router: Router
    tally: Tally
    ledger: Ledger | None = None


@contextlib.asynccontextmanager
async def serving(settings: ServerSettings) -> AsyncIterator[RunningService]:
    """Serve while the context lasts; then finish the requests in flight and end.

    The port opens before the encoder is loaded; until it is, health checks say NOT_SERVING and methods answer
    UNAVAILABLE. A port that is shared with other processes opens only when everything is loaded, because the others
    can answer until then.

    Raises ConfigError for an occupied port, a bad policy or a bad probe; EncoderError if the encoder is not available;
    DispatchNotInstalledError if a policy is answered by canned text, or HTTP is served, and the extra `dispatch` is not
    installed.
    """
    async with _serving(settings, ServicePorts(settings)) as running:
        yield running


@contextlib.asynccontextmanager
async def _serving(settings: ServerSettings, ports: ServicePorts) -> AsyncIterator[RunningService]:
    # A decision takes Python's lock several times, and waits this long each time that another thread holds it.
    sys.setswitchinterval(SWITCH_S)
    # Looking up the name of a dead host blocks a thread for seconds. With the few threads of asyncio's own pool, a few
    # dead hosts would stop everybody.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(IO_THREADS, thread_name_prefix="io"))
    if settings.http is not None:
        upstream.check_installed()
    if settings.identity.is_on:
        settings = replace(settings, observers=settings.observers.plus(Spending()))
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(rare_full_passes())
        await stack.enter_async_context(kept_fresh(ports.watched))
        try:
            ledger = await stack.enter_async_context(_recording(settings, ports))
            if ledger is not None:
                settings = replace(settings, observers=settings.observers.plus(ledger))
            if not settings.share_port:
                await ports.open()
            tally = Tally(lambda: process_state(router, ports.gate))
            observers = settings.observers.plus(MetricsObserver(tally)) if settings.is_watched else settings.observers
            router = await asyncio.to_thread(_load, settings, ports.intake, observers)
            stack.push_async_callback(router.close)
            if settings.metrics_port is not None and not settings.share_port:
                stack.enter_context(serve_metrics(tally.snapshot, settings.host, settings.metrics_port))
            canned_url = None
            if any(_uses_canned(policy) for policy in router.policies.values()):
                canned_url = await stack.enter_async_context(http_server.serve_on_loopback())
            dispatcher = Dispatcher(router.policies, canned_url=canned_url, observers=observers)
            stack.push_async_callback(dispatcher.aclose)
            ports.start(router, dispatcher)
            if settings.share_port:
                await ports.open()
            await ports.report_health(serving=True)
            if settings.http is not None:
                await stack.enter_async_context(_loading_in_background(dispatcher))
            yield RunningService(ports.address, ports.http_address, router, tally, ledger)
        finally:
            # The ports close before the stack does, so that no request in flight loses its router or its upstream.
            await ports.close()


async def serve_forever(settings: ServerSettings, on_ready: Callable[[RunningService], None]) -> None:
    """Serve until SIGTERM or SIGINT, then end within `drain_s` seconds. Raises the same errors as `serving`.

    Before the service is ready these signals end the process at once, because no request is in flight. After SIGTERM
    health checks say NOT_SERVING, and connections and requests are still taken for `drain_delay_s` seconds, so that
    load balancers notice.

    on_ready: called once the service is ready.
    """
    ignore_hangup()
    ports = ServicePorts(settings)
    async with _serving(settings, ports) as running:
        ports.shutdown = shutdown = Shutdown(settings.drain_s)
        on_ready(running)
        is_interactive = await shutdown.wait_for_signal()
        log.info("draining for at most %g s", settings.drain_s)
        await ports.report_health(serving=False)
        await asyncio.sleep(0 if is_interactive else min(settings.drain_delay_s, shutdown.remaining_s))
    shutdown.complete()


@contextlib.asynccontextmanager
async def _recording(settings: ServerSettings, ports: ServicePorts) -> AsyncIterator[Ledger | None]:
    """Keep the ledger open while the context lasts, and then write what waits."""
    if settings.ledger is None:
        yield None
        return
    ledger = await asyncio.to_thread(open_ledger, settings.ledger)
    try:
        yield ledger
    finally:
        await asyncio.to_thread(ledger.close, max(LEAST_LEDGER_S, ports.shutdown_remaining_s))


@contextlib.asynccontextmanager
async def _loading_in_background(dispatcher: Dispatcher) -> AsyncIterator[None]:
    """Import the libraries for answering in the background, which takes seconds. Deciding works meanwhile."""
    loading = asyncio.create_task(dispatcher.load())

    def loaded(_: asyncio.Task[None]) -> None:
        if not loading.cancelled() and (error := loading.exception()) is not None:
            log.error("answering will fail: %s", error)
        gc.freeze()

    loading.add_done_callback(loaded)
    try:
        yield
    finally:
        loading.cancel()


def _load(settings: ServerSettings, intake: Intake, observers: Observers) -> Router:
    router = Router.from_files(
        *settings.policies,
        encoder_dir=settings.encoder_dir,
        settings=settings,
        intake=intake,
        observers=observers,
    )
    router.warm_up()
    # The objects that are loaded now stay for ever. Searching them for garbage would stop everything for 250 ms.
    gc.collect()
    gc.freeze()
    return router


def _uses_canned(policy: ServedPolicy) -> bool:
    return any(candidate.api_base == CANNED_UPSTREAM for candidate in policy.rules.file.candidates)
