"""Serve the metrics of a process to Prometheus: the cache of judgements, the encoder's queue, worker restarts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from router.deciding.pipeline import Router
from router.errors import ConfigError


@contextlib.contextmanager
def serve_metrics(router: Router, host: str, port: int, restarts: Mapping[str, int] | None = None) -> Iterator[int]:
    """Answer `GET /metrics` while the context lasts. Yield the port; `port` 0 takes a free one.

    The metrics are `elle_decision_cache_hits_total`, `elle_decision_cache_misses_total`, `elle_decision_cache_entries`,
    `elle_encoder_pending`, `elle_worker_restarts_total` and the usual `process_*`.

    restarts: how many earlier workers this one replaces, by how they ended (label `ended`).

    Raises ConfigError if the port is occupied or prometheus-client is not installed.
    """
    try:
        from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
    except ModuleNotFoundError as error:
        raise ConfigError(
            "--metrics-port needs prometheus-client, which is not installed; install it with "
            "`pip install 'elle-router[serve]'`."
        ) from error

    # A collector of its own, so that counts are read when Prometheus asks and deciding pays nothing for them.
    class RouterCollector:
        def collect(self) -> Iterator[Metric]:
            counts = router.cache_counts
            yield CounterMetricFamily("elle_decision_cache_hits", "Prompts judged before.", counts.hits)
            yield CounterMetricFamily("elle_decision_cache_misses", "Prompts judged anew.", counts.misses)
            yield GaugeMetricFamily("elle_decision_cache_entries", "Judgements kept.", counts.entries)
            restarted = CounterMetricFamily("elle_worker_restarts", "Workers that this one replaces.", labels=["ended"])
            for ended, count in (restarts or {}).items():
                restarted.add_metric([ended], count)
            yield restarted
            yield GaugeMetricFamily("elle_encoder_pending", "Prompts waiting for the encoder or in it.", router.pending)

    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(RouterCollector())
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
