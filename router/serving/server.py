"""The life of the gRPC service: listen, warm up, serve, drain."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import grpc.aio

from router.answering import upstream
from router.answering.dispatch import Dispatcher
from router.deciding.pipeline import Router
from router.deciding.settings import RouterSettings
from router.intake.bounds import Intake
from router.policies.credentials import CANNED_UPSTREAM
from router.policies.loading import ServedPolicy
from router.serving import loopback
from router.serving import prometheus as metrics
from router.serving.ending import Ending, ignore_hangup
from router.serving.entrance import Entrance
from router.wire.in_work import InWork

log = logging.getLogger(__name__)

#: Threads for what blocks outside the encoder: name look-ups, imports. Started when needed.
IO_THREADS = 64

#: Seconds for which a thread that imports, or works on a large request, may keep the loop that decides waiting.
SWITCH_S = 0.0005


class Door(Protocol):
    """A further gRPC service on the same server and the same router.

    Attributes:
        service_names: full names of its services, for reflection.
    """

    @property
    def service_names(self) -> tuple[str, ...]:
        """Full names of its services."""

    def register(self, server: grpc.aio.Server) -> None:
        """Add its services to a server that has not started."""

    def start(self, router: Router) -> None:
        """Begin to decide."""


class HttpDoor(Protocol):
    """What answers on the HTTP port, with the same router."""

    def app(self) -> Any:
        """The ASGI application; it must answer before `start`, if only that it is not ready."""

    def start(self, router: Router, dispatcher: Dispatcher, in_work: InWork) -> None:
        """Begin to decide and answer; requests are counted in `in_work`, and cut short by it."""


@dataclass(frozen=True)
class ServerSettings(RouterSettings):
    """How to serve. The fields of `RouterSettings` say how the served router decides.

    Attributes:
        policies: policy files, the first is the default; none means the embedded default.
        host: address to listen on; loopback unless told otherwise, because there is no authentication.
        port: 0 takes a free one.
        encoder_dir: where the encoder's files are; None looks in the usual places.
        drain_s: seconds from SIGTERM on by which the process is gone, at the latest; what is in work until then is cut
            short with ShuttingDownError.
        drain_delay_s: seconds of these in which new connections and requests are still taken, while health says
            NOT_SERVING already.
        metrics_port: where Prometheus finds `/metrics`, on the same host; None serves none, 0 takes a free one.
        share_port: whether other processes of ours listen on the same ports; see `router.serving.workers`.
        predecessors: how many workers in the place of this one ended before it, by how.
        doors: further services for the same server.
        http: what answers on a port of its own over HTTP; None for nothing.
        http_port: that port; 0 takes a free one.
    """

    policies: tuple[Path, ...] = ()
    host: str = "127.0.0.1"
    port: int = 50051
    encoder_dir: Path | None = None
    drain_s: float = 10.0
    drain_delay_s: float = 0.0
    metrics_port: int | None = None
    share_port: bool = False
    predecessors: Mapping[str, int] = field(default_factory=dict)
    doors: tuple[Door, ...] = ()
    http: HttpDoor | None = None
    http_port: int = 0


@dataclass(frozen=True)
class Serving:
    """A running service: where it listens, over HTTP where it does, and what it serves."""

    address: str
    http_address: str | None
    router: Router


@contextlib.asynccontextmanager
async def serving(settings: ServerSettings) -> AsyncIterator[Serving]:
    """Serve while the context lasts; drains on leaving.

    The port is open before the encoder is loaded: health says NOT_SERVING and methods answer UNAVAILABLE until warm.
    A port that is shared is opened when all is warm, because others answer on it until then.

    Raises ConfigError for an occupied port, a bad policy or probe; EncoderError if the encoder is not to be had;
    DispatchNotInstalledError if a policy is answered by canned text, or HTTP is served, and the extra `dispatch` is not
    installed.
    """
    async with _serving(settings, Entrance(settings)) as running:
        yield running


@contextlib.asynccontextmanager
async def _serving(settings: ServerSettings, entrance: Entrance) -> AsyncIterator[Serving]:
    # A thread that works on a large request lets the loop go on after so long; a decision needs the lock several times.
    sys.setswitchinterval(SWITCH_S)
    # Looking up a dead host's name blocks a thread for seconds; the few of the default pool would then stop everybody.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(IO_THREADS, thread_name_prefix="io"))
    if settings.http is not None:
        upstream.check_installed()
    async with contextlib.AsyncExitStack() as stack:
        try:
            if not settings.share_port:
                await entrance.open()
            router = await asyncio.to_thread(_load, settings, entrance.intake)
            stack.push_async_callback(router.close)
            if settings.metrics_port is not None:
                told = metrics.exposed(router, settings.host, settings.metrics_port, settings.predecessors)
                stack.enter_context(told)
            canned_url = None
            if any(_uses_canned(policy) for policy in router.policies.values()):
                canned_url = await stack.enter_async_context(loopback.running())
            dispatcher = Dispatcher(router.policies, canned_url=canned_url)
            stack.push_async_callback(dispatcher.aclose)
            entrance.start(router, dispatcher)
            if settings.share_port:
                await entrance.open()
            await entrance.say(serves=True)
            if settings.http is not None:
                await stack.enter_async_context(_loading_in_background(dispatcher))
            yield Serving(entrance.address, entrance.http_address, router)
        finally:
            # Before what the stack closes, so that no request in work loses its router or its upstream.
            await entrance.close()


async def serve_forever(settings: ServerSettings, on_ready: Callable[[Serving], None]) -> None:
    """Serve until SIGTERM or SIGINT, then end within `drain_s` seconds. Errors as `serving`.

    Until it is ready these signals end the process at once; nothing is in work then. From SIGTERM on health says
    NOT_SERVING, while connections and requests are still taken for `drain_delay_s`, so that balancers notice.
    """
    ignore_hangup()
    entrance = Entrance(settings)
    async with _serving(settings, entrance) as running:
        entrance.ending = ending = Ending(settings.drain_s)
        on_ready(running)
        hurried = await ending.asked()
        log.info("draining, at most %g s", settings.drain_s)
        await entrance.say(serves=False)
        await asyncio.sleep(0 if hurried else min(settings.drain_delay_s, ending.left_s))
    ending.done()


@contextlib.asynccontextmanager
async def _loading_in_background(dispatcher: Dispatcher) -> AsyncIterator[None]:
    """Import what answering needs, which takes seconds, while deciding works already; first answers wait for it."""
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


def _load(settings: ServerSettings, intake: Intake) -> Router:
    router = Router.from_files(
        *settings.policies,
        encoder_dir=settings.encoder_dir,
        settings=settings,
        intake=intake,
    )
    router.warm_up()
    # What is loaded now stays. Looking through it for garbage takes a quarter of a second, in which nothing runs.
    gc.collect()
    gc.freeze()
    return router


def _uses_canned(policy: ServedPolicy) -> bool:
    return any(candidate.api_base == CANNED_UPSTREAM for candidate in policy.rules.file.candidates)
