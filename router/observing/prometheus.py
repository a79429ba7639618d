"""Serve the metrics of a service to Prometheus (`serve_metrics`), for all of its processes on one port."""

from __future__ import annotations

import contextlib
import itertools
import logging
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from router.errors import ConfigError
from router.observing.catalogue import CATALOGUE, Metric, MetricKind
from router.observing.tally import Labels, Snapshot

if TYPE_CHECKING:
    import ssl

    from prometheus_client import CollectorRegistry
    from prometheus_client.core import HistogramMetricFamily
    from prometheus_client.core import Metric as Family

log = logging.getLogger(__name__)

#: Most connections to the metrics port. If there are more, the oldest is closed.
MOST_CONNECTIONS = 64

#: Seconds of silence after which a connection to the metrics port is closed.
_SILENCE_S = 10.0

_NOT_INSTALLED = (
    "metrics need prometheus-client, which is not installed; install it with `pip install 'elle-router[serve]'`."
)


@contextlib.contextmanager
def serve_metrics(
    read: Callable[[], Snapshot], host: str, port: int, *, tls: Callable[[], ssl.SSLContext] | None = None
) -> Iterator[int]:
    """Answer `GET /metrics` while the context lasts. Yield the port; `port` 0 takes a free one.

    Args:
        read: returns the values of all metrics now.
        host, port: where to listen.
        tls: returns what encrypts a new connection; None serves without encryption.

    Raises ConfigError if the port is occupied or prometheus-client is not installed.
    """
    registry = metrics_registry(read)
    from prometheus_client import make_wsgi_app

    try:
        server = _MetricsServer(host, port, tls)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}:{port} for metrics ({error.strerror}); choose another --metrics-port."
        ) from error
    server.set_app(make_wsgi_app(registry))
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _MetricsServer(socketserver.ThreadingMixIn, WSGIServer):
    """Answers each connection in a thread of its own. tls: as in `serve_metrics`."""

    daemon_threads = True
    request_queue_size = 2 * MOST_CONNECTIONS

    def __init__(self, host: str, port: int, tls: Callable[[], ssl.SSLContext] | None) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._tls = tls
        self._open: dict[int, socket.socket] = {}
        super().__init__((host, port), _Quiet)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection, encrypted if the settings ask for it."""
        connection, peer = super().get_request()
        connection.settimeout(_SILENCE_S)
        if self._tls is None:
            return connection, peer
        # The thread of the connection shakes hands, so that a client that does not keeps nobody else waiting.
        return self._tls().wrap_socket(connection, server_side=True, do_handshake_on_connect=False), peer

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer a connection in a thread, and close the oldest if there are too many."""
        self._open[id(request)] = request
        # A scrape takes milliseconds, so whoever came first of so many wants no answer.
        for oldest in [*self._open.values()][:-MOST_CONNECTIONS]:
            with contextlib.suppress(OSError):
                oldest.shutdown(socket.SHUT_RDWR)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection that was answered."""
        self._open.pop(id(request), None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say that a connection broke off only to whoever looks for a fault."""
        log.debug("a connection to the metrics port broke off")


class _Quiet(WSGIRequestHandler):
    """Answers without a line on stderr for each request."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (its name in the base class)
        """Write no line, because Prometheus asks several times a minute."""


def metrics_registry(read: Callable[[], Snapshot]) -> CollectorRegistry:
    """Return what prometheus-client writes out: our metrics, and the usual `process_*` of this process.

    Raises ConfigError if prometheus-client is not installed.
    """
    try:
        from prometheus_client import CollectorRegistry, ProcessCollector
    except ModuleNotFoundError as error:
        raise ConfigError(_NOT_INSTALLED) from error

    class SnapshotCollector:
        def collect(self) -> Iterator[Family]:
            return families(read())

    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(SnapshotCollector())
    return registry


def families(snapshot: Snapshot) -> Iterator[Family]:
    """Yield all metrics as prometheus-client knows them."""
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

    for metric in CATALOGUE.values():
        if metric.kind is MetricKind.HISTOGRAM:
            histogram = HistogramMetricFamily(metric.name, metric.text, labels=metric.labels)
            _add_rows(histogram, metric, snapshot.histograms.get(metric.name, {}))
            yield histogram
            continue
        family = CounterMetricFamily if metric.kind is MetricKind.COUNTER else GaugeMetricFamily
        found = family(metric.name, metric.text, labels=metric.labels)
        # A metric without labels is 0 before anything was counted, so that a rate over it has a beginning.
        series = snapshot.series(metric) or ({} if metric.labels else {(): 0.0})
        for labels, value in series.items():
            found.add_metric(labels, value)
        yield found


def _add_rows(histogram: HistogramMetricFamily, metric: Metric, rows: Mapping[Labels, list[float]]) -> None:
    bounds = [*map(str, metric.buckets), "+Inf"]
    for labels, row in rows.items():
        *counts, total = row
        buckets = list(zip(bounds, itertools.accumulate(counts), strict=True))
        histogram.add_metric(labels, buckets, total)
