"""Traces lead from the caller's span through the decision to each attempt, over the real protocol, without content."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
import httpx
import pytest

from router.attempts import Attempt, AttemptOutcome
from router.errors import ConfigError
from router.gateways.http.http_gateway import HttpGateway
from router.observing.observer import AnsweredEvent, AnswerOutcome, DecidedEvent
from router.observing.traces import TraceObserver, TraceSettings, tracing
from router.pb import router_service_pb2 as pb
from router.pb import router_service_pb2_grpc as pb_grpc
from router.serving.settings import ServerSettings
from router.values import ApiFormat, RouteQuery
from tests.conftest import ROOT
from tests.fakes import write_policy
from tests.router.observing.collector import Collector, attributes, running_collector
from tests.router.observing.events import decision_of
from tests.router.serving.processes import RULE
from tests.service import running

SECRET = "a prompt that nobody may see"
PARENT_SPAN = "00f067aa0ba902b7"


def header(trace_id: str) -> str:
    return f"00-{trace_id}-{PARENT_SPAN}-01"


class Traced:
    """A service that sends traces, and the collector that gets them."""

    def __init__(self, address: str, url: str, collector: Collector) -> None:
        self.address, self.url, self.collector = address, url, collector

    def grpc(self, method: str, trace_id: str, **asked: Any) -> Any:
        with grpc.insecure_channel(self.address) as channel:
            request = pb.RouteRequest(prompt=SECRET, **asked)
            request = request if method == "Route" else pb.CompleteRequest(route=request)
            call = getattr(pb_grpc.RouterServiceStub(channel), method)
            return call(request, timeout=60, metadata=[("traceparent", header(trace_id))])


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.grpc.trace_exporter")
    path = write_policy(tmp_path_factory.mktemp("traced"), probe=None, rule=RULE, safe_default="small")
    with running_collector() as collector, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        settings = {"traces": TraceSettings(collector.endpoint), "http": HttpGateway(), "http_port": 0}
        with running(ServerSettings(policies=(path,), port=0, drain_s=5, **settings)) as service:
            yield Traced(service.address, f"http://{service.http_address}", collector)


def test_a_decision_over_grpc_continues_the_callers_trace(traced: Traced) -> None:
    trace_id = "1" * 32
    decided = traced.grpc("Route", trace_id).decision
    (span,) = traced.collector.wait_for(1, trace_id)
    assert (span.name, span.parent_span_id.hex()) == ("route test", PARENT_SPAN)
    told = attributes(span)
    assert told["elle.decision.id"] == decided.decision_id
    assert (told["elle.chosen"], told["elle.reason"]) == ("small", "FIXED")
    assert span.end_time_unix_nano > span.start_time_unix_nano


def test_an_answer_has_a_span_for_each_attempt_with_the_attributes_of_the_conventions(traced: Traced) -> None:
    trace_id = "2" * 32
    traced.grpc("Complete", trace_id)
    decided, answer, attempt = traced.collector.wait_for(3, trace_id)
    assert [one.name for one in (decided, answer, attempt)] == ["route test", "answer", "chat small"]
    assert (answer.parent_span_id, attempt.parent_span_id) == (decided.span_id, answer.span_id)
    told = attributes(attempt)
    assert told["gen_ai.operation.name"] == "chat"
    assert told["gen_ai.provider.name"] == "openai"
    assert told["gen_ai.request.model"] == "small"
    assert told["gen_ai.usage.output_tokens"] > 0
    assert attempt.kind == attempt.SPAN_KIND_CLIENT
    assert attempt.end_time_unix_nano <= answer.end_time_unix_nano


def test_a_streamed_answer_over_http_continues_the_callers_trace(traced: Traced) -> None:
    trace_id = "3" * 32
    body = {"model": "auto", "stream": True, "messages": [{"role": "user", "content": SECRET}]}
    headers = {"traceparent": header(trace_id)}
    answered = httpx.post(f"{traced.url}/v1/chat/completions", json=body, headers=headers, timeout=60)
    assert answered.status_code == 200
    *_, attempt = traced.collector.wait_for(3, trace_id)
    told = attributes(attempt)
    assert told["gen_ai.request.stream"] is True
    assert told["gen_ai.response.time_to_first_chunk"] >= 0


def test_a_refusal_is_an_error_with_its_reason(traced: Traced) -> None:
    trace_id = "4" * 32
    with pytest.raises(grpc.RpcError):
        traced.grpc("Route", trace_id, overrides={"pin": "nobody"})
    (span,) = traced.collector.wait_for(1, trace_id)
    assert span.status.code == span.status.STATUS_CODE_ERROR
    assert attributes(span)["error.type"] == "unknown_candidate"


@pytest.mark.parametrize("sent", ["", "nonsense", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "x" * 5000])
def test_without_a_trace_of_the_caller_a_new_one_begins(traced: Traced, sent: str) -> None:
    before = len(traced.collector.spans)
    with grpc.insecure_channel(traced.address) as channel:
        metadata = [("traceparent", sent)] if sent else []
        pb_grpc.RouterServiceStub(channel).Route(pb.RouteRequest(prompt=SECRET), timeout=60, metadata=metadata)
    traced.collector.wait_for(before + 1)
    span = traced.collector.spans[-1]
    assert not span.parent_span_id
    assert int.from_bytes(span.trace_id)


def test_no_span_holds_a_prompt(traced: Traced) -> None:
    traced.grpc("Route", "5" * 32)
    traced.collector.wait_for(1, "5" * 32)
    assert SECRET.encode() not in traced.collector.raw


class Exported:
    """Keeps the spans of a tracer in this process."""

    def __init__(self, *, content: bool = False) -> None:
        pytest.importorskip("opentelemetry.sdk.trace")
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        self._exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.observer = TraceObserver(provider.get_tracer("test"), content=content)

    @property
    def spans(self) -> dict[str, Any]:
        return {span.name: span for span in self._exporter.get_finished_spans()}


def test_messages_are_in_the_span_only_if_that_is_turned_on() -> None:
    event = DecidedEvent(RouteQuery.from_prompt(SECRET), decision_of(), "", None)
    told = {}
    for content in (False, True):
        exported = Exported(content=content)
        exported.observer.decided(event)
        told[content] = exported.spans["route p"].attributes
    assert "gen_ai.input.messages" not in told[False]
    assert SECRET in told[True]["gen_ai.input.messages"]


def test_attempts_lie_where_they_were_and_those_that_failed_say_how() -> None:
    exported = Exported()
    decision = decision_of()
    exported.observer.decided(
        DecidedEvent(RouteQuery.from_prompt("x", api_format=ApiFormat.OPENAI_COMPLETIONS), decision, "", None)
    )
    attempts = (
        Attempt("small", AttemptOutcome.RATE_LIMITED, 429, duration_s=1.0),
        Attempt("large", AttemptOutcome.ANSWERED, duration_s=0.5, started_s=2.0),
    )
    exported.observer.answered(AnsweredEvent(decision, AnswerOutcome.ANSWERED, "large", attempts, total_s=3.0))
    answer, failed = exported.spans["answer"], exported.spans["text_completion small"]
    answered = exported.spans["text_completion large-1"]
    assert failed.attributes["error.type"] == "rate_limited"
    assert failed.attributes["http.response.status_code"] == 429
    assert failed.start_time == answer.start_time
    assert failed.end_time == answer.start_time + 1_000_000_000
    assert answered.start_time == answer.start_time + 2_000_000_000
    assert answered.end_time == answer.end_time
    assert answered.attributes["gen_ai.provider.name"] == "aws.bedrock"


def test_a_model_without_a_prefix_is_the_model_and_no_provider() -> None:
    exported = Exported()
    known = decision_of()
    decision = decision_of(candidates=(replace(known.candidates[0], model="gpt-4o"),))
    attempts = (Attempt("small", AttemptOutcome.ANSWERED, duration_s=0.5),)
    exported.observer.answered(AnsweredEvent(decision, AnswerOutcome.ANSWERED, "small", attempts, total_s=1.0))
    told = exported.spans["chat gpt-4o"].attributes
    assert told["gen_ai.request.model"] == "gpt-4o"
    assert "gen_ai.provider.name" not in told


@pytest.mark.parametrize(
    ("variables", "name"),
    [
        ({}, "elle-router"),
        ({"OTEL_SERVICE_NAME": "mine"}, "mine"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=mine,deployment.environment.name=prod"}, "mine"),
    ],
)
def test_operators_name_the_service_as_opentelemetry_lets_them(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], name: str
) -> None:
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    with running_collector() as collector:
        with tracing(TraceSettings(collector.endpoint)) as observer:
            observer.decided(DecidedEvent(RouteQuery.from_prompt("x"), decision_of(), "", None))
        collector.wait_for(1)
        told = {one.key: one.value.string_value for one in collector.resources[0].attributes}
    assert told["service.name"] == name
    assert told.get("deployment.environment.name", "") == ("prod" if "RESOURCE" in "".join(variables) else "")


def test_without_traces_nothing_of_opentelemetry_is_loaded_by_a_service(tmp_path: Path) -> None:
    path = write_policy(tmp_path, probe=None, rule=RULE, safe_default="small")
    code = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from router.serving.server import serving\n"
        "from router.serving.settings import ServerSettings\n"
        "async def main():\n"
        f"    async with serving(ServerSettings(policies=(Path({str(path)!r}),), port=0)) as running:\n"
        "        from router.values import RouteQuery\n"
        "        await running.router.adecide(RouteQuery.from_prompt('x'))\n"
        "asyncio.run(main())\n"
        "assert not [name for name in sys.modules if name.partition('.')[0] == 'opentelemetry']\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr


def test_files_that_another_package_has_replaced_are_told_with_the_repair(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "opentelemetry.exporter.otlp.proto.grpc.trace_exporter"
    monkeypatch.setitem(sys.modules, name, ModuleType(name))
    told = pytest.raises(ConfigError, match="force-reinstall --no-deps opentelemetry-proto")
    with told, tracing(TraceSettings("http://localhost:1")):
        pass


@pytest.mark.parametrize("endpoint", ["http://me:canary@localhost:4317", "https://canary@localhost:4317"])
def test_an_address_with_a_password_is_refused_and_not_shown(endpoint: str) -> None:
    with pytest.raises(ConfigError, match="OTEL_EXPORTER_OTLP_HEADERS") as caught:
        TraceSettings(endpoint)
    assert "canary" not in str(caught.value)
