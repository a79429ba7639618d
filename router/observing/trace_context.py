"""Keep the trace that the caller of a request sent with it, for those who continue the trace (`note_trace`)."""

from __future__ import annotations

import contextvars
from collections.abc import Mapping
from types import MappingProxyType

#: The headers by which W3C Trace Context names a trace.
_HEADERS = ("traceparent", "tracestate")

#: A `traceparent` has 55 characters, and `tracestate` should have 512 at most.
_MOST_CHARACTERS = 1024

_NO_TRACE: Mapping[str, str] = MappingProxyType({})

#: The trace headers of the request that the current task works on.
current_trace: contextvars.ContextVar[Mapping[str, str]] = contextvars.ContextVar("current_trace", default=_NO_TRACE)


def note_trace(headers: Mapping[str, str]) -> None:
    """Keep the trace headers of a request for the current task. Names of headers are in lower case."""
    found = {name: headers[name] for name in _HEADERS if name in headers and len(headers[name]) <= _MOST_CHARACTERS}
    current_trace.set(found)
