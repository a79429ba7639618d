"""Run a serving process: open the ports, load the router, serve until a signal comes, and drain."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import logging
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from router.answering import upstream
from router.deciding.pipeline import Router
from router.deciding.session_memory import AnswerMemory
from router.drift.watch import DriftWatch
from router.errors import ConfigError
from router.exploring.explorer import Explorer, start_of_day
from router.feedback.desk import FeedbackDesk
from router.identity.spending import Spending
from router.ledger.opening import open_ledger
from router.loop_thread import in_background
from router.observing.logs import DecisionLog
from router.observing.metrics import MetricsObserver
from router.observing.observer import DeferredObserver, Observer
from router.observing.tally import Tally
from router.observing.traces import tracing
from router.rollout.shadow import ShadowWatch
from router.serving.garbage import rare_full_passes
from router.serving.ports import ServicePorts
from router.serving.reloading.first_load import loaded
from router.serving.reloading.hangup import on_hangup
from router.serving.reloading.reloader import Reloader
from router.serving.reports import OptionalParts, process_state
from router.serving.settings import ServerSettings
from router.serving.shutdown import Shutdown
from router.serving.watching.admin_port import showing, try_now
from router.sharing.exchange import StateExchange, StateSettings, exchanging
from router.sharing.private_state import PrivateDatabase
from router.sharing.session_table import shared_block
from router.watched_files import kept_fresh

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
    """Describes a service that is ready.

    Attributes:
        address: address of the gRPC port.
        http_address: address of the HTTP port; None if there is none.
        tally: counts what the service does, if somebody wants to know (`ServerSettings.is_watched`).
        reloader: holds what decides, and replaces it.
        ledger: where decisions are recorded; None if they are not.
        admin_address: address of the operator's page; None if there is none.
    """

    address: str
    http_address: str | None
    tally: Tally
    reloader: Reloader
    ledger: Ledger | None = None
    admin_address: str | None = None

    def try_prompt(self, request: bytes) -> bytes:
        """Try a prompt for the operator; see `router.admin.trial.try_prompt`."""
        return try_now(self.reloader, request)

    @property
    def router(self) -> Router:
        """Return the router that decides now."""
        return self.reloader.current.router


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
            explorer = None if ledger is None else await asyncio.to_thread(_explorer, ledger, settings.workers)
            recording = [one for one in (ledger, explorer) if one is not None]
            settings = replace(settings, observers=settings.observers.plus(*recording))
            drift = stack.enter_context(_watching_drift(settings))
            shadow = await stack.enter_async_context(_shadowing(settings))
            if shadow is not None:
                settings = replace(settings, observers=settings.observers.plus(shadow))
            if not settings.share_port:
                await ports.open()
            tally = Tally(
                lambda: counting.read(
                    lambda: process_state(reloader, ports, OptionalParts(drift, shadow, ledger, exchange))
                )
            )
            counting = stack.enter_context(_counting(settings, tally, drift))
            observers = settings.observers.plus(counting, *_watchers(settings, stack))
            ports.gate.keeps_traces = settings.traces is not None
            if settings.state is not None and settings.shared_sessions is None:
                block = shared_block(settings.max_sessions, settings.state.key())
                settings = replace(settings, shared_sessions=block)
            reloader = await stack.enter_async_context(loaded(settings, ports.intake, ports.start, observers))
            exchange = await stack.enter_async_context(_sharing(settings, reloader.current.router.memory, ports))
            admin_address = None
            if not settings.share_port:
                admin_address = stack.enter_context(showing(settings, tally, functools.partial(try_now, reloader)))
            _check_exploring(reloader.current.router, ledger, explorer)
            if ledger is not None:
                ports.desk = FeedbackDesk(ledger)
                reloader.current.router.find_answerer = ports.desk.answerer_of
                reloader.current.router.explorer = explorer
            ports.start(reloader.current)
            ports.admin.start(reloader)
            if settings.share_port:
                await ports.open()
            await ports.report_health(serving=True)
            if settings.http is not None:
                await stack.enter_async_context(in_background(_load_answering(reloader)))
            if settings.watch or settings.store is not None:
                await stack.enter_async_context(in_background(reloader.reload_on_changes()))
            yield RunningService(ports.address, ports.http_address, tally, reloader, ledger, admin_address)
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
    # A signal that comes while the service loads is not lost: the service then loads once more.
    loop, hangup = asyncio.get_running_loop(), asyncio.Event()
    on_hangup(lambda: loop.call_soon_threadsafe(hangup.set))
    ports = ServicePorts(settings)
    async with (
        _serving(settings, ports) as running,
        in_background(running.reloader.reload_whenever(hangup, "SIGHUP")),
    ):
        ports.shutdown = shutdown = Shutdown(settings.drain_s)
        on_ready(running)
        in_haste = await shutdown.wait_for_signal()
        log.info("draining for at most %g s", settings.drain_s)
        await ports.report_health(serving=False)
        await asyncio.sleep(0 if in_haste else min(settings.drain_delay_s, shutdown.remaining_s))
    shutdown.complete()


@contextlib.contextmanager
def _watching_drift(settings: ServerSettings) -> Iterator[DriftWatch | None]:
    """Watch the traffic for drift while the context lasts, and then save the baseline."""
    if settings.drift is None:
        yield None
        return
    state = settings.drift_state
    if state is not None and settings.worker:
        state = state.with_name(f"{state.name}.{settings.worker}")
    watch = DriftWatch(settings.drift, state=state)
    try:
        yield watch
    finally:
        watch.save()


def _explorer(ledger: Ledger, n_workers: int) -> Explorer | None:
    """Return what explores for policies that say so, or None if nobody knows what exploring has cost today."""
    try:
        spent = ledger.reader.explored_usd(start_of_day(time.time()))
    except ConfigError:
        # The ledger itself has said that it cannot be used.
        return None
    return Explorer(spent, parts=n_workers)


def _check_exploring(router: Router, ledger: Ledger | None, explorer: Explorer | None) -> None:
    for name, policy in router.policies.items():
        if policy.rules.file.explore is None or explorer is not None or ":" in name:
            continue
        if ledger is None:
            raise ConfigError(
                f"policy {name!r} explores, which is of no use without a ledger; serve it with --ledger, or remove its "
                "key `explore`."
            )
        log.warning("policy %s explores only after the next start: nobody knows what that has cost today", name)


@contextlib.asynccontextmanager
async def _shadowing(settings: ServerSettings) -> AsyncIterator[ShadowWatch | None]:
    """Let the shadow policies decide along while the context lasts."""
    if not settings.shadows:
        yield None
        return
    watch = await asyncio.to_thread(ShadowWatch.from_files, settings.shadows, settings.encoder_dir)
    try:
        yield watch
    finally:
        await asyncio.to_thread(watch.close)


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
async def _sharing(
    settings: ServerSettings, memory: AnswerMemory, ports: ServicePorts
) -> AsyncIterator[StateExchange | None]:
    """Share sessions and what callers have used while the context lasts."""
    if settings.state is None:
        yield None
        return
    most = 0 if isinstance(settings.state, PrivateDatabase) else settings.max_sessions
    shared = StateSettings(settings.state, settings.session_ttl_s, most, reads=settings.worker == 0)
    # The router itself must be free to go once it is replaced, so only its memory is held here.
    memories = memory.sessions, memory.responses, memory.unsettled
    async with exchanging(shared, memories, ports.gate.accounts) as exchange:
        memory.settle_once = exchange.settle_once
        yield exchange


async def _load_answering(reloader: Reloader) -> None:
    """Import the libraries for answering, which takes seconds. Deciding works meanwhile."""
    try:
        await reloader.current.dispatcher.load()
    except Exception as error:
        log.error("answering will fail: %s", error)  # noqa: TRY400 - the message says what to do
    gc.freeze()


def _counting(settings: ServerSettings, tally: Tally, drift: DriftWatch | None) -> DeferredObserver:
    """Return what counts for the metrics, if the settings ask for them, and for drift."""
    metrics = MetricsObserver(tally) if settings.is_watched else None
    return DeferredObserver(*(one for one in (metrics, drift) if one is not None), name="metrics and drift")


def _watchers(settings: ServerSettings, stack: contextlib.AsyncExitStack) -> Iterator[Observer]:
    """Yield the further observers that the settings ask for. They are closed with the stack."""
    if settings.log.decisions:
        lines = DecisionLog(settings.log, sys.stderr)
        yield stack.enter_context(DeferredObserver(lines, name="lines about decisions", finish=lines.write))
    if settings.traces is not None:
        yield stack.enter_context(tracing(settings.traces))
