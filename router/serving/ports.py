"""Open the ports of a service, report its health, and close the ports without losing requests in flight."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from functools import partial

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from router.errors import ConfigError
from router.feedback.desk import FeedbackDesk
from router.identity.counts import DoorName, Refusal
from router.identity.gate import Gate
from router.identity.server_tls import ServerCertificates, is_loopback
from router.intake.bounds import Intake
from router.intake.in_flight import InFlight
from router.serving import backlog, http_server
from router.serving.backlog import authority
from router.serving.grpc_options import server_options
from router.serving.reloading.admin_service import ADMIN_SERVICE_NAME, AdminService
from router.serving.reloading.in_force import InForce
from router.serving.settings import ServerSettings
from router.serving.shutdown import Shutdown
from router.versions.opening import store_at
from router.watched_files import Refreshable
from router.wire.guarded_server import add_to_server, guarded
from router.wire.request_reader import RequestReader
from router.wire.servicer import SERVICE_NAME, RouterService

log = logging.getLogger(__name__)

#: Most seconds at the end of the drain that are kept for sending errors to the callers whose requests are ended.
ERROR_DELIVERY_S = 0.5

#: Most seconds at the end of the drain that are kept for the ledger.
LEDGER_CLOSE_S = 1.0


def require_encryption(settings: ServerSettings) -> None:
    """Raise ConfigError if other machines could reach the ports without TLS, unless the operator says so."""
    if settings.tls is None and not settings.insecure and not is_loopback(settings.host):
        raise ConfigError(
            f"other machines can reach {settings.host}, and without TLS anybody between could read prompts and "
            "tokens. Give --tls-cert and --tls-key, or --insecure if something else encrypts."
        )


class ServicePorts:
    """Owns the gRPC port and the HTTP port of a service, and counts the requests that arrive on them.

    Attributes:
        address: address of the gRPC port, empty until it is open.
        http_address: address of the HTTP port; None if there is none.
        intake: the bounds that all doors share.
        gate: checks who calls, at all doors.
        certificates: those of TLS; None if the ports have no TLS.

    Raises ConfigError if a file of tokens or certificates cannot be used, or if the ports could be reached from other
    machines without TLS.
        shutdown: how the process will end; None if no signals are handled.
        desk: takes feedback; None if there is no ledger.
    """

    def __init__(self, settings: ServerSettings) -> None:
        require_encryption(settings)
        self.address = ""
        self.http_address: str | None = None
        self.shutdown: Shutdown | None = None
        self.desk: FeedbackDesk | None = None
        self._settings = settings
        self._in_flight = InFlight()
        self.intake = Intake()
        self.gate = Gate(settings.identity, open_admin=is_loopback(settings.host))
        self.certificates = ServerCertificates(settings.tls) if settings.tls is not None else None
        self._service = RouterService()
        self.admin = AdminService(store_at(settings.store) if settings.store is not None else None)
        self._health = health.aio.HealthServicer()
        self._server: grpc.aio.Server | None = None
        self._http = contextlib.AsyncExitStack()
        self._is_started = False
        self._closes_at = 0.0

    async def open(self) -> None:
        """Open the ports, so that clients can connect. Raises ConfigError for an occupied port."""
        settings = self._settings
        self._server = self._create_server()
        self.address = authority(settings.host, _bind(self._server, settings, self.certificates))
        if not self._is_started:
            await self.report_health(serving=False)
        await self._server.start()
        if settings.http is not None:
            listener = http_server.bind_socket(settings.host, settings.http_port, share=settings.share_port)
            context = self.certificates.http_context() if self.certificates else None
            serving_http = http_server.serve_app(
                listener,
                settings.http.app(self.gate),
                grace_s=lambda: self._remaining_s,
                tls=context,
                refusal=settings.http.refusal,
            )
            port = await self._http.enter_async_context(serving_http)
            self.http_address = authority(settings.host, port)

    def start(self, in_force: InForce) -> None:
        """Decide and answer new requests with these parts. Before the first call every request is told to come later.

        All doors change in one step, in which no request begins.
        """
        router, dispatcher = in_force.router, in_force.dispatcher
        self._service.start(router, dispatcher, self.desk)
        for door in self._settings.doors:
            door.start(router)
        if self._settings.http is not None:
            self._settings.http.start(router, dispatcher, self._in_flight, self.desk)
        self._is_started = True

    async def report_health(self, *, serving: bool) -> None:
        """Tell gRPC health checks whether this process wants requests. Requests are answered either way."""
        self._in_flight.is_draining = not serving and self._is_started
        value = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", SERVICE_NAME):
            await self._health.set(name, value)

    async def close(self) -> None:
        """Accept nothing more, let requests in flight finish while there is time, and end the others with an error."""
        if self._server is None:
            return
        remaining_s = self.shutdown_remaining_s
        if self._settings.ledger is not None:
            # The last answers are recorded after the ports have closed.
            remaining_s -= min(LEDGER_CLOSE_S, remaining_s / 4)
        self._closes_at = asyncio.get_running_loop().time() + remaining_s
        await self.report_health(serving=False)
        addresses = [one for one in (self.address, self.http_address) if one is not None]
        if self._is_started and backlog.stop_accepting(int(one.rpartition(":")[2]) for one in addresses):
            await asyncio.sleep(min(backlog.SETTLE_S, self._remaining_s))
        error_delivery_s = min(ERROR_DELIVERY_S, self._remaining_s / 4)
        closing = [asyncio.create_task(self._server.stop(self._remaining_s))]
        closing.append(asyncio.create_task(self._http.aclose()))
        is_idle = await self._in_flight.wait_until_idle(self._remaining_s - error_delivery_s)
        if not is_idle and (n_ended := self._in_flight.cancel_all()):
            log.warning("%d requests were cut short, because they did not finish in time", n_ended)
        await self._in_flight.wait_until_idle(self._remaining_s)
        # Calls that are still open now are those that watch the health for ever, which nobody needs to wait for.
        await self._server.stop(min(ERROR_DELIVERY_S / 2, self._remaining_s))
        await asyncio.wait(closing, timeout=self._remaining_s)

    @property
    def watched(self) -> list[Refreshable]:
        """What is read again when it changes: tokens, keys and certificates."""
        return self.gate.watched_with(self.certificates)

    @property
    def shutdown_remaining_s(self) -> float:
        """The seconds until the process must have ended."""
        return self.shutdown.remaining_s if self.shutdown else self._settings.drain_s

    @property
    def _remaining_s(self) -> float:
        return max(0.0, self._closes_at - asyncio.get_running_loop().time())

    def _create_server(self) -> grpc.aio.Server:
        settings = self._settings
        server = grpc.aio.server(options=server_options(share_port=settings.share_port))
        reader = RequestReader(self.intake, partial(self.gate.counts.add, DoorName.GRPC, Refusal.OVERSIZED))
        add_to_server(self._service, server, self._in_flight, reader, self.gate)
        # Health watchers stay for ever, so they do not count as in flight.
        uncounted = guarded(server, None, reader, self.gate)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, uncounted)
        of_envoy = RequestReader(self.intake, partial(self.gate.counts.add, DoorName.EXT_PROC, Refusal.OVERSIZED))
        for door in settings.doors:
            door.register(guarded(server, self._in_flight, of_envoy, self.gate))
        # Whoever reaches the port may call what nobody is asked a token for, and a proxy may lead anybody here.
        if self.gate.is_on:
            self.admin.add_to(guarded(server, self._in_flight, reader, self.gate))
        if not settings.reflection:
            return server
        admin = (ADMIN_SERVICE_NAME,) if self.gate.is_on else ()
        own = (SERVICE_NAME, *admin, health.SERVICE_NAME, reflection.SERVICE_NAME)
        names = (*own, *(name for door in settings.doors for name in door.service_names))
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(reflection.aio.ReflectionServicer(names), uncounted)
        return server


def _bind(server: grpc.aio.Server, settings: ServerSettings, certificates: ServerCertificates | None) -> int:
    address = authority(settings.host, settings.port)
    try:
        if certificates is not None:
            return server.add_secure_port(address, certificates.grpc_credentials())
        return server.add_insecure_port(address)
    except RuntimeError as error:
        raise ConfigError(
            f"cannot listen on {authority(settings.host, settings.port)}. If another process holds the port, stop it "
            "or choose another port (--port; 0 takes a free one). If the host is no address of this machine, change it "
            "(--host)."
        ) from error
