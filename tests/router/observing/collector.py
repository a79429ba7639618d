"""A collector of traces in this process: it speaks OTLP over gRPC and keeps the spans that it gets."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest

from tests.router.serving.processes import wait_until

trace_service = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc")
messages = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")


@dataclass
class Collector:
    """Holds the address of the collector and the spans that came."""

    endpoint: str = ""
    spans: list[Any] = field(default_factory=list)
    resources: list[Any] = field(default_factory=list)

    def wait_for(self, count: int, trace_id: str | None = None) -> list[Any]:
        """Wait until so many spans of a trace, or at all, have come. Return them, those that began first in front."""

        def found() -> list[Any]:
            return [one for one in list(self.spans) if trace_id is None or one.trace_id.hex() == trace_id]

        wait_until(lambda: len(found()) >= count)
        return sorted(found(), key=lambda one: (one.start_time_unix_nano, -one.end_time_unix_nano))

    @property
    def raw(self) -> bytes:
        """All bytes that came."""
        return b"".join(one.SerializeToString() for one in (*self.spans, *self.resources))


def attributes(span: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


@contextlib.contextmanager
def running_collector() -> Iterator[Collector]:
    found = Collector()

    class Servicer(trace_service.TraceServiceServicer):  # type: ignore[misc, name-defined]
        def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
            for resource in request.resource_spans:
                found.resources.append(resource.resource)
                for scope in resource.scope_spans:
                    found.spans.extend(scope.spans)
            return messages.ExportTraceServiceResponse()

    server = grpc.server(ThreadPoolExecutor(2))
    trace_service.add_TraceServiceServicer_to_server(Servicer(), server)
    found.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield found
    finally:
        server.stop(0)
