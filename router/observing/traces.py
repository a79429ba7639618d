"""Send traces over OpenTelemetry's protocol: the decision of each request, its answer, and each attempt of it.

The spans follow the conventions of OpenTelemetry for generative AI. They hold ids, names and numbers. Messages are in
them only if the operator turned that on. Spans are made when a step has ended, out of what observers are told, so
that deciding and answering know nothing of traces.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from router.attempts import Attempt, AttemptOutcome
from router.decision import RoutingDecision
from router.errors import ConfigError
from router.observing.metrics import SHORT_DIGEST
from router.observing.observer import AnsweredEvent, AnswerOutcome, DecidedEvent, Observer, RefusedEvent
from router.observing.span_messages import as_parts
from router.observing.trace_context import current_trace
from router.values import ApiFormat

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer

log = logging.getLogger(__name__)

#: The decisions whose answers may still continue their traces.
_MOST_WAITING = 10_000

#: Seconds for which the end of the service waits for the last spans to be sent.
_FLUSH_S = 2.0

#: Most characters of messages in a span.
_MOST_CONTENT = 32_768

#: The names that the conventions give to providers, by LiteLLM's prefix of their models.
_PROVIDERS = {
    "azure": "azure.ai.openai",
    "azure_ai": "azure.ai.inference",
    "bedrock": "aws.bedrock",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "vertex_ai": "gcp.vertex_ai",
    "watsonx": "ibm.watsonx.ai",
    "xai": "x_ai",
}

_OPERATIONS = {ApiFormat.OPENAI_COMPLETIONS: "text_completion"}


@dataclass(frozen=True)
class TraceSettings:
    """Says where traces go.

    Attributes:
        endpoint: the address of a collector that speaks OTLP over gRPC, such as `http://localhost:4317`. `https` means
            TLS.
        content: True to put the messages of requests into the spans.

    Raises ConfigError for an address with a user or a password, because errors of the exporter quote it.
    """

    endpoint: str
    content: bool = False

    def __post_init__(self) -> None:
        if "@" in self.endpoint:
            raise ConfigError(
                "--otlp-endpoint must hold no user and no password, because it is written to the log; give a "
                "credential by the variable OTEL_EXPORTER_OTLP_HEADERS."
            )


@contextlib.contextmanager
def tracing(settings: TraceSettings) -> Iterator[TraceObserver]:
    """Yield an observer that makes traces, and send them to the collector while the context lasts.

    Raises ConfigError if OpenTelemetry is not installed.
    """
    provider = _provider(settings)
    try:
        yield TraceObserver(provider.get_tracer("router"), content=settings.content)
    finally:
        # OpenTelemetry sends what is left, and waits for a collector that is gone as long as for any other. That must
        # not hold up the end of the service.
        sending = threading.Thread(target=provider.shutdown, name="traces", daemon=True)
        sending.start()
        sending.join(_FLUSH_S)
        if sending.is_alive():
            log.warning("the last traces could not be sent to %s in time", settings.endpoint)


class TraceObserver(Observer):
    """Makes a span for each decision, and below it spans for its answer and for each attempt to get it.

    Args:
        tracer: OpenTelemetry's tracer, which samples and exports.
        content: True to put the messages of requests into the spans.
    """

    def __init__(self, tracer: Tracer, *, content: bool = False) -> None:
        self._tracer = tracer
        self._content = content
        self._waiting: OrderedDict[str, tuple[Context, str]] = OrderedDict()

    def decided(self, event: DecidedEvent) -> None:
        """Make the span of a decision, as a child of the caller's span if there is one."""
        decision, ends = event.decision, time.time_ns()
        started = ends - _ns(decision.timings.total_s)
        span = self._span(f"route {decision.policy.name}", _callers_context(), started, _of_decision(decision))
        if self._content and span.is_recording():
            span.set_attribute("gen_ai.input.messages", as_parts(event.query.messages, _MOST_CONTENT))
        span.end(ends)
        self._waiting[decision.decision_id] = _context_of(span), _OPERATIONS.get(event.query.api_format, "chat")
        if len(self._waiting) > _MOST_WAITING:
            self._waiting.popitem(last=False)

    def refused(self, event: RefusedEvent) -> None:
        """Make the span of a request that was refused. It has no length, because nobody measured it."""
        now, reason = time.time_ns(), event.error.reason.lower()
        name = f"route {event.policy}".rstrip()
        self._fail(self._span(name, _callers_context(), now, {"elle.policy.name": event.policy}), reason, now)

    def answered(self, event: AnsweredEvent) -> None:
        """Make the span of an answer, and of each attempt to get it."""
        decision, ends = event.decision, time.time_ns()
        parent, operation = self._waiting.pop(decision.decision_id, (_callers_context(), "chat"))
        started = ends - _ns(event.total_s)
        attributes = {"elle.decision.id": decision.decision_id, "elle.answer.outcome": event.outcome.value}
        span = self._span("answer", parent, started, attributes | {"elle.answered_by": event.answered_by})
        models = {one.candidate: one.model for one in decision.candidates}
        for attempt in event.attempts:
            self._attempt(attempt, event, models.get(attempt.candidate, ""), (_context_of(span), operation, started))
        if event.outcome is AnswerOutcome.ANSWERED:
            span.end(ends)
        else:
            reason = getattr(event.error, "reason", event.outcome.value)
            self._fail(span, reason.lower(), ends)

    def _attempt(self, attempt: Attempt, event: AnsweredEvent, model: str, place: tuple[Context, str, int]) -> None:
        """Make the span of one attempt. place: the context of the answer's span, the operation, and when it began."""
        parent, operation, began = place
        provider, slash, name = model.partition("/")
        if not slash:
            # A model without a prefix is one that LiteLLM knows by its name alone.
            provider, name = "", model
        has_answered = attempt.outcome is AttemptOutcome.ANSWERED
        attributes: dict[str, Any] = {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": _PROVIDERS.get(provider, provider),
            "gen_ai.request.model": name,
            "elle.candidate": attempt.candidate,
            "elle.attempt.outcome": attempt.outcome.value,
            "http.response.status_code": attempt.http_status,
        }
        if has_answered:
            attributes |= {
                "gen_ai.usage.input_tokens": event.input_tokens,
                "gen_ai.usage.output_tokens": event.output_tokens,
                "gen_ai.request.stream": attempt.streamed or None,
                "gen_ai.response.time_to_first_chunk": attempt.duration_s if attempt.streamed else None,
                "elle.cost_usd": event.cost_usd,
            }
        started = began + _ns(attempt.started_s)
        # The attempt that answers lasts to the end of the answer, and not only to its first content.
        ends = began + _ns(event.total_s) if has_answered else started + _ns(attempt.duration_s)
        span = self._span(f"{operation} {name}", parent, started, attributes, asks=True)
        if has_answered:
            span.end(ends)
        else:
            self._fail(span, attempt.outcome.value.lower(), ends)

    def _span(
        self, name: str, parent: Context, started: int, attributes: dict[str, Any], *, asks: bool = False
    ) -> Span:
        from opentelemetry.trace import SpanKind

        known = {key: value for key, value in attributes.items() if value not in (None, "")}
        kind = SpanKind.CLIENT if asks else SpanKind.INTERNAL
        return self._tracer.start_span(name, context=parent, kind=kind, attributes=known, start_time=started)

    @staticmethod
    def _fail(span: Span, reason: str, ends: int) -> None:
        from opentelemetry.trace import StatusCode

        span.set_attribute("error.type", reason)
        span.set_status(StatusCode.ERROR)
        span.end(ends)


def _provider(settings: TraceSettings) -> TracerProvider:
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as error:
        raise ConfigError(
            "traces need OpenTelemetry, which is not installed; install it with `pip install 'elle-router[otel]'`."
        ) from error
    except ImportError as error:
        # The package xds-protos, of the extra `envoy`, writes files of an older opentelemetry-proto over it.
        raise ConfigError(
            "traces cannot use OpenTelemetry, because another package has replaced some of its files; repair them with "
            "`pip install --force-reinstall --no-deps opentelemetry-proto`."
        ) from error
    # What is given to the SDK wins over OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES, which are to win over our name.
    resource = Resource.create({"service.name": "elle-router"}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(shutdown_on_exit=False, resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=settings.endpoint)))
    return provider


def _callers_context() -> Context:
    """Return the context of the caller's span; without a valid `traceparent` an empty one, which begins a trace."""
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract(current_trace.get(), Context())


def _context_of(span: Span) -> Context:
    from opentelemetry.context import Context
    from opentelemetry.trace import set_span_in_context

    return set_span_in_context(span, Context())


def _of_decision(decision: RoutingDecision) -> dict[str, Any]:
    risk = next((one.risk for one in decision.candidates if one.candidate == decision.chosen), None)
    return {
        "elle.decision.id": decision.decision_id,
        "elle.policy.name": decision.policy.name,
        "elle.policy.version": decision.policy.digest[:SHORT_DIGEST],
        "elle.chosen": decision.chosen,
        "elle.reason": decision.reason.value,
        "elle.abstained": decision.abstained,
        "elle.risk": risk,
        "elle.gain": decision.gain,
        "elle.threshold": decision.threshold,
        "elle.cached": decision.timings.cached,
        "elle.queue_s": decision.timings.queue_s,
        "elle.encode_s": decision.timings.encode_s,
        "elle.input_tokens_estimate": decision.input_tokens_estimate,
    }


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
