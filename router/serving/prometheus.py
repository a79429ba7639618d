"""What a serving process tells Prometheus: the memory of judged prompts and the queue before the encoder."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from router.deciding.pipeline import Router
from router.errors import ConfigError


@contextlib.contextmanager
def exposed(router: Router, host: str, port: int, predecessors: Mapping[str, int] | None = None) -> Iterator[int]:
    """Answer `GET /metrics` while the context lasts; yields the port (0 takes a free one).

    `elle_decision_cache_hits_total`, `elle_decision_cache_misses_total`, `elle_decision_cache_entries`,
    `elle_encoder_pending`, `elle_worker_restarts_total` and the usual `process_*`.

    predecessors: how many workers in the place of this one ended before it, by how (label `ended`).

    Raises ConfigError for an occupied port or without prometheus-client.
    """
    try:
        from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
    except ModuleNotFoundError as error:
        raise ConfigError(
            "--metrics-port needs prometheus-client, which is not installed; install it with "
            "`pip install 'elle-router[serve]'`."
        ) from error

    class OfRouter:
        def collect(self) -> Iterator[Metric]:
            counts = router.cache_counts
            yield CounterMetricFamily("elle_decision_cache_hits", "Prompts judged before.", counts.hits)
            yield CounterMetricFamily("elle_decision_cache_misses", "Prompts judged anew.", counts.misses)
            yield GaugeMetricFamily("elle_decision_cache_entries", "Judgements kept.", counts.entries)
            restarts = CounterMetricFamily("elle_worker_restarts", "Workers that this one replaces.", labels=["ended"])
            for ended, count in (predecessors or {}).items():
                restarts.add_metric([ended], count)
            yield restarts
            yield GaugeMetricFamily("elle_encoder_pending", "Prompts waiting for the encoder or in it.", router.pending)

    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(OfRouter())
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
