"""Serve the metrics of a service to Prometheus (`serve_metrics`), for all of its processes on one port."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from router.errors import ConfigError
from router.observing.catalogue import CATALOGUE, Metric, MetricKind
from router.observing.tally import Labels, Snapshot

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import HistogramMetricFamily
    from prometheus_client.core import Metric as Family

_NOT_INSTALLED = (
    "metrics need prometheus-client, which is not installed; install it with `pip install 'elle-router[serve]'`."
)


@contextlib.contextmanager
def serve_metrics(read: Callable[[], Snapshot], host: str, port: int) -> Iterator[int]:
    """Answer `GET /metrics` while the context lasts. Yield the port; `port` 0 takes a free one.

    read: returns the values of all metrics now.

    Raises ConfigError if the port is occupied or prometheus-client is not installed.
    """
    registry = metrics_registry(read)
    from prometheus_client import start_http_server

    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}:{port} for metrics ({error.strerror}); choose another --metrics-port."
        ) from error
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


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
