"""The ports of a service: opened, told to health checks as ready or not, closed without losing what is in work."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from router.errors import ConfigError
from router.intake.bounds import Intake
from router.serving import backlog, http_server
from router.serving.grpc_options import server_options
from router.wire.arrival import Arrivals
from router.wire.in_work import InWork
from router.wire.servicer import SERVICE_NAME, RouterService
from router.wire.statuses import add_to_server, guarded

if TYPE_CHECKING:
    from router.answering.dispatch import Dispatcher
    from router.deciding.pipeline import Router
    from router.serving.ending import Ending
    from router.serving.server import ServerSettings

log = logging.getLogger(__name__)

#: Seconds at the end of the time to drain that are kept for telling those who are cut short, at most.
FAREWELL_S = 0.5


def authority(host: str, port: int) -> str:
    """Host and port as addresses write them."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Entrance:
    """The ports of a service, and what comes in by them.

    Attributes:
        address: of the gRPC port once it is open.
        http_address: of the HTTP port, if there is one.
        intake: the bounds that all doors share.
        ending: once the process has been told that it may be asked to end.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.address = ""
        self.http_address: str | None = None
        self.ending: Ending | None = None
        self._settings = settings
        self._in_work = InWork()
        self.intake = Intake()
        self._service = RouterService()
        self._status = health.aio.HealthServicer()
        self._server: grpc.aio.Server | None = None
        self._listening = contextlib.AsyncExitStack()
        self._started = False
        self._ends = 0.0

    async def open(self) -> None:
        """Listen. Raises ConfigError for an occupied port."""
        settings = self._settings
        self._server = _create_server(self._service, self._status, self._in_work, settings, self.intake)
        self.address = authority(settings.host, _bind(self._server, settings))
        if not self._started:
            await self.say(serves=False)
        await self._server.start()
        if settings.http is not None:
            listener = http_server.bound(settings.host, settings.http_port, share=settings.share_port)
            serving_http = http_server.serving_on(listener, settings.http.app(), grace_s=lambda: self._left_s)
            port = await self._listening.enter_async_context(serving_http)
            self.http_address = authority(settings.host, port)

    def start(self, router: Router, dispatcher: Dispatcher) -> None:
        """Begin to answer."""
        self._service.start(router, dispatcher)
        for door in self._settings.doors:
            door.start(router)
        if self._settings.http is not None:
            self._settings.http.start(router, dispatcher, self._in_work)
        self._started = True

    async def say(self, *, serves: bool) -> None:
        """Tell health checks whether to send requests here; what comes is answered either way."""
        self._in_work.leaving = not serves and self._started
        value = health_pb2.HealthCheckResponse.SERVING if serves else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", SERVICE_NAME):
            await self._status.set(name, value)

    async def close(self) -> None:
        """Take nothing more, let what is in work finish while there is time, and cut short what does not."""
        if self._server is None:
            return
        self._ends = asyncio.get_running_loop().time() + (self.ending.left_s if self.ending else self._settings.drain_s)
        await self.say(serves=False)
        addresses = [one for one in (self.address, self.http_address) if one is not None]
        if self._started and backlog.stop_taking(int(one.rpartition(":")[2]) for one in addresses):
            await asyncio.sleep(min(backlog.SETTLE_S, self._left_s))
        # To tell those who are cut takes its time too.
        farewell_s = min(FAREWELL_S, self._left_s / 4)
        closing = [asyncio.create_task(self._server.stop(self._left_s))]
        closing.append(asyncio.create_task(self._listening.aclose()))
        if not await self._in_work.finished(self._left_s - farewell_s) and (cut := self._in_work.cut()):
            log.warning("%d requests were cut short, because they did not finish in time", cut)
        # What is left in work is told its end; whoever only watches is not waited for.
        await self._in_work.finished(self._left_s)
        await self._server.stop(min(FAREWELL_S / 2, self._left_s))
        await asyncio.wait(closing, timeout=self._left_s)

    @property
    def _left_s(self) -> float:
        return max(0.0, self._ends - asyncio.get_running_loop().time())


def _create_server(
    service: RouterService, status: health.aio.HealthServicer, in_work: InWork, settings: ServerSettings, intake: Intake
) -> grpc.aio.Server:
    server = grpc.aio.server(options=server_options(share_port=settings.share_port))
    arrivals = Arrivals(intake)
    add_to_server(service, server, in_work, arrivals)
    # Watchers of the health service stay for ever, and nobody waits for them.
    watched = guarded(server, None, arrivals)
    health_pb2_grpc.add_HealthServicer_to_server(status, watched)
    for door in settings.doors:
        door.register(guarded(server, in_work, arrivals))
    own = (SERVICE_NAME, health.SERVICE_NAME, reflection.SERVICE_NAME)
    names = (*own, *(name for door in settings.doors for name in door.service_names))
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(reflection.aio.ReflectionServicer(names), watched)
    return server


def _bind(server: grpc.aio.Server, settings: ServerSettings) -> int:
    try:
        return server.add_insecure_port(authority(settings.host, settings.port))
    except RuntimeError as error:
        raise ConfigError(
            f"cannot listen on {authority(settings.host, settings.port)}; another process may hold the port. Stop it, "
            f"or choose another one with --port (0 takes a free one)."
        ) from error
