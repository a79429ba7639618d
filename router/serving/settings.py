"""Define the settings of a serving process, and the interfaces of the gateways that it serves."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from router.deciding.settings import RouterSettings
from router.identity.gate import IdentitySettings
from router.observing.logs import LogSettings
from router.observing.observer import NO_OBSERVERS, Observers

if TYPE_CHECKING:
    # The parent of several workers needs no more than the settings, and is to start its workers soon.
    import grpc.aio

    from router.answering.dispatch import Dispatcher
    from router.deciding.pipeline import Router
    from router.drift.settings import DriftSettings
    from router.feedback.desk import FeedbackDesk
    from router.identity.gate import Gate
    from router.identity.server_tls import TlsFiles
    from router.intake.in_flight import InFlight
    from router.ledger.settings import DatabaseSettings, LedgerSettings
    from router.observing.traces import TraceSettings


class Door(Protocol):
    """A further gRPC service on the same server, which asks the same router.

    Attributes:
        service_names: full names of its services, for reflection.
    """

    @property
    def service_names(self) -> tuple[str, ...]:
        """The full names of the gRPC services of this gateway, which health checks report."""

    def register(self, server: grpc.aio.Server) -> None:
        """Add this gateway's services to a gRPC server that has not started."""

    def start(self, router: Router) -> None:
        """Begin to answer, with this router to decide."""


class HttpDoor(Protocol):
    """A gateway on the HTTP port, which asks the same router and the same dispatcher."""

    def app(self, gate: Gate) -> Any:
        """Return the ASGI application that the HTTP port serves. The gate checks who calls.

        Before `start` it must answer that the service is not ready.
        """

    def refusal(self, path: str, status: int, message: str) -> bytes:
        """Return the JSON that refuses what is no valid HTTP request. The path may be empty, if it is not known."""

    def start(
        self, router: Router, dispatcher: Dispatcher, in_flight: InFlight, desk: FeedbackDesk | None = None
    ) -> None:
        """Begin to answer, with this router to decide and this dispatcher to ask candidates.

        Every request must be tracked in `in_flight`, which can end it. `desk` takes feedback; it is None if there is no
        ledger.
        """


@dataclass(frozen=True)
class ServerSettings(RouterSettings):
    """Holds the settings of a serving process. The fields of `RouterSettings` say how the served router decides.

    Attributes:
        policies: policy files; the first one is the default. If there are none, the embedded default policy is served.
        host: address to listen on. The default is loopback, because there is no authentication.
        port: port of the gRPC service; 0 takes a free one.
        encoder_dir: directory of the encoder's files; None looks in the usual places.
        drain_s: seconds after SIGTERM within which the process ends; requests that are still in flight then are ended
            with ShuttingDownError.
        drain_delay_s: the first part of these seconds, in which new connections and requests are still taken while
            health checks say NOT_SERVING already.
        metrics_port: port of Prometheus's `/metrics` on the same host; None serves none, 0 takes a free one. Of several
            processes the parent serves it for all.
        admin_port: port of the operator's page; None serves none, 0 takes a free one.
        admin_host: address of that port.
        share_port: whether other processes of ours listen on the same ports; see `router.serving.workers`.
        doors: further gRPC services for the same server.
        http: the gateway of the HTTP port; None serves no HTTP.
        http_port: port of the HTTP gateway; 0 takes a free one.
        observers: are told of every decision and of how every answer ends.
        log: how the log is written.
        traces: where traces go; None makes none.
        identity: how callers prove who they are; by default nobody is asked.
        tls: the files of TLS, for gRPC and HTTP; None serves both without encryption.
        insecure: whether the ports may be reached from other machines without TLS.
        reflection: whether gRPC reflection is served.
        workers: how many processes serve together; they share what is bounded by the day.
        ledger: where the ledger of decisions, answers and feedback is kept; None keeps none.
        watch: whether policies are loaded again when their files change.
        store: the directory or URL of a store of versions, whose active ones are served and followed; None serves
            `policies`.
        drift: how the traffic is watched for drift; None does not watch it.
        drift_state: the file that keeps the baseline of drift over restarts; None keeps it in memory.
        canary: the file of the canary that is followed; None follows none.
        shadows: policy files that decide every request without acting on it.
        state: the database in which sessions, and what callers have used, are shared with other processes; None shares
            them with the workers of this service alone.
        worker: the number of this process among several, counted from 0.
    """

    policies: tuple[Path, ...] = ()
    host: str = "127.0.0.1"
    port: int = 50051
    encoder_dir: Path | None = None
    drain_s: float = 10.0
    drain_delay_s: float = 0.0
    metrics_port: int | None = None
    admin_port: int | None = None
    admin_host: str = "127.0.0.1"
    share_port: bool = False
    doors: tuple[Door, ...] = ()
    http: HttpDoor | None = None
    http_port: int = 0
    observers: Observers = NO_OBSERVERS
    log: LogSettings = field(default_factory=LogSettings)
    traces: TraceSettings | None = None
    identity: IdentitySettings = field(default_factory=IdentitySettings)
    tls: TlsFiles | None = None
    insecure: bool = False
    reflection: bool = True
    workers: int = 1
    ledger: LedgerSettings | None = None
    watch: bool = False
    store: Path | str | None = None
    drift: DriftSettings | None = None
    drift_state: Path | None = None
    canary: Path | None = None
    shadows: tuple[Path, ...] = ()
    state: DatabaseSettings | None = None
    worker: int = 0

    @property
    def is_watched(self) -> bool:
        """Return whether somebody wants to know what the service does, so that it counts that."""
        return self.metrics_port is not None or self.admin_port is not None
