"""The life of the gRPC service: listen, warm up, serve, drain."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from router.answering.dispatch import Dispatcher
from router.deciding.pipeline import CACHE_ENTRIES, MAX_PROMPT_BYTES, Router
from router.deciding.sessions import Sessions
from router.errors import ConfigError
from router.pb import router_service_pb2 as pb
from router.policies.loading import ServedPolicy
from router.policies.policy_file import CANNED_UPSTREAM
from router.serving import http_server, loopback
from router.serving import prometheus as metrics
from router.wire.conversion import MAX_MESSAGE_BYTES
from router.wire.servicer import RouterService
from router.wire.statuses import add_to_server, guarded

log = logging.getLogger(__name__)

#: Threads for what blocks outside the encoder: name look-ups, imports. Started when needed.
IO_THREADS = 64

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["RouterService"].full_name


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

    def start(self, router: Router, dispatcher: Dispatcher) -> None:
        """Begin to decide and answer."""


@dataclass(frozen=True)
class ServerSettings:
    """How to serve.

    Attributes:
        policies: policy files, the first is the default; none means the embedded default.
        host: address to listen on; loopback unless told otherwise, because there is no authentication.
        port: 0 takes a free one.
        encoder_dir: where the encoder's files are; None looks in the usual places.
        threads: encoder threads; None takes one per usable core.
        max_pending: prompts waiting for the encoder beyond which further ones are refused; None takes 16 per thread.
        cache_entries: judgements kept for prompts that the same credential sends again; 0 keeps none.
        max_prompt_bytes: longer requests are refused.
        max_sessions: sessions whose last candidate is remembered; 0 remembers none.
        session_ttl_s: a session that was idle for longer is forgotten.
        drain_s: how long requests in work may take after SIGTERM.
        metrics_port: where Prometheus finds `/metrics`, on the same host; None serves none, 0 takes a free one.
        share_port: whether other processes of ours listen on the same ports; see `router.serving.workers`.
        doors: further services for the same server.
        http: what answers on a port of its own over HTTP; None for nothing.
        http_port: that port; 0 takes a free one.
    """

    policies: tuple[Path, ...] = ()
    host: str = "127.0.0.1"
    port: int = 50051
    encoder_dir: Path | None = None
    threads: int | None = None
    max_pending: int | None = None
    cache_entries: int = CACHE_ENTRIES
    max_prompt_bytes: int = MAX_PROMPT_BYTES
    max_sessions: int = 50_000
    session_ttl_s: float = 3600.0
    drain_s: float = 10.0
    metrics_port: int | None = None
    share_port: bool = False
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

    Raises ConfigError for an occupied port, a bad policy or probe; EncoderError if the encoder is not to be had;
    DispatchNotInstalledError if a policy is answered by canned text, or HTTP is served, and the extra `dispatch` is not
    installed.
    """
    # Looking up a dead host's name blocks a thread for seconds; the few of the default pool would then stop everybody.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(IO_THREADS, thread_name_prefix="io"))
    service = RouterService()
    status = health.aio.HealthServicer()
    server = _create_server(service, status, settings)
    address = authority(settings.host, _bind(server, settings))
    await _set_health(status, health_pb2.HealthCheckResponse.NOT_SERVING)
    await server.start()
    async with contextlib.AsyncExitStack() as stack, contextlib.AsyncExitStack() as listening:
        try:
            http_address = await _listen(listening, settings)
            router = await asyncio.to_thread(_load, settings)
            stack.push_async_callback(router.close)
            if settings.metrics_port is not None:
                stack.enter_context(metrics.exposed(router, settings.host, settings.metrics_port))
            canned_url = None
            if any(_uses_canned(policy) for policy in router.policies.values()):
                canned_url = await stack.enter_async_context(loopback.running())
            dispatcher = Dispatcher(router.policies, canned_url=canned_url)
            stack.push_async_callback(dispatcher.aclose)
            service.start(router, dispatcher)
            for door in settings.doors:
                door.start(router)
            if settings.http is not None:
                await dispatcher.load()
                settings.http.start(router, dispatcher)
            await _set_health(status, health_pb2.HealthCheckResponse.SERVING)
            yield Serving(address, http_address, router)
        finally:
            # Before what the stack closes, so that no request in work loses its router or its upstream.
            await asyncio.gather(_drain(server, status, settings.drain_s), listening.aclose())


async def serve_forever(settings: ServerSettings, on_ready: Callable[[Serving], None]) -> None:
    """Serve until SIGTERM or SIGINT, then drain. Errors as `serving`."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with serving(settings) as running:
        on_ready(running)
        await stop.wait()
        log.info("draining, at most %.0f s", settings.drain_s)


def authority(host: str, port: int) -> str:
    """Host and port as addresses write them."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _create_server(
    service: RouterService, status: health.aio.HealthServicer, settings: ServerSettings
) -> grpc.aio.Server:
    server = grpc.aio.server(
        options=[
            # Probing for bandwidth sends a ping beside every message: a fifth of a millisecond here, for nothing on
            # messages of a few kilobytes.
            ("grpc.http2.bdp_probe", 0),
            # Two servers on one port share its traffic without a word: only workers of one parent may.
            ("grpc.so_reuseport", int(settings.share_port)),
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ],
    )
    add_to_server(service, server)
    doors = guarded(server)
    health_pb2_grpc.add_HealthServicer_to_server(status, doors)
    for door in settings.doors:
        door.register(doors)
    own = (SERVICE_NAME, health.SERVICE_NAME, reflection.SERVICE_NAME)
    names = (*own, *(name for door in settings.doors for name in door.service_names))
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(reflection.aio.ReflectionServicer(names), doors)
    return server


def _bind(server: grpc.aio.Server, settings: ServerSettings) -> int:
    try:
        return server.add_insecure_port(authority(settings.host, settings.port))
    except RuntimeError as error:
        raise ConfigError(
            f"cannot listen on {authority(settings.host, settings.port)}; another process may hold the port. Stop it, "
            f"or choose another one with --port (0 takes a free one)."
        ) from error


async def _listen(listening: contextlib.AsyncExitStack, settings: ServerSettings) -> str | None:
    """Open the HTTP port; leaving the context closes it and drains. Its address, if there is one."""
    if settings.http is None:
        return None
    listener = http_server.bound(settings.host, settings.http_port, share=settings.share_port)
    serving = http_server.serving_on(listener, settings.http.app(), drain_s=settings.drain_s)
    return authority(settings.host, await listening.enter_async_context(serving))


def _load(settings: ServerSettings) -> Router:
    router = Router.from_files(
        *settings.policies,
        encoder_dir=settings.encoder_dir,
        max_prompt_bytes=settings.max_prompt_bytes,
        threads=settings.threads,
        max_pending=settings.max_pending,
        cache_entries=settings.cache_entries,
        sessions=Sessions(max_entries=settings.max_sessions, ttl_s=settings.session_ttl_s),
    )
    router.warm_up()
    return router


def _uses_canned(policy: ServedPolicy) -> bool:
    return any(candidate.api_base == CANNED_UPSTREAM for candidate in policy.rules.file.candidates)


async def _set_health(status: health.aio.HealthServicer, value: int) -> None:
    for name in ("", SERVICE_NAME):
        await status.set(name, value)


async def _drain(server: grpc.aio.Server, status: health.aio.HealthServicer, grace_s: float) -> None:
    # Balancers see NOT_SERVING first; requests in work get their time; new ones are refused by grpc.
    await _set_health(status, health_pb2.HealthCheckResponse.NOT_SERVING)
    await server.stop(grace_s)
