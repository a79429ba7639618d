"""Values that JSON, protobuf or headers cannot carry, of callers and of upstreams: who is at fault, what arrives."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf import struct_pb2
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from router.attempts import AttemptOutcome
from router.client import RouterClient
from router.deciding import pipeline
from router.decision import RoutingDecision
from router.errors import ServiceError
from router.gateways.http.http_gateway import HttpGateway
from router.pb import router_service_pb2 as pb
from router.pb import router_service_pb2_grpc as pb_grpc
from router.pb import routing_pb2
from router.serving.http_server import serve_on_loopback
from router.serving.server import serving
from router.serving.settings import ServerSettings
from router.values import Overrides
from tests.fakes import FakeEncoder, write_policy
from tests.gateways.loopback import in_thread

DEEP = "[" * 970 + "]" * 970

#: Fields of an answer, as JSON text, for which the upstream is at fault: no door could hand them on.
BAD = {
    "deep": f'"x": {DEEP}',
    "rather-deep": f'"x": {"[" * 40}{"]" * 40}',
    "deep-objects": '"x": ' + '{"a":' * 40 + "1" + "}" * 40,
}

#: Numbers that JSON does not have or no double holds, and what arrives in their place.
MENDED = {
    "nan": ('"x": NaN', None),
    "infinite": ('"x": 1e999', sys.float_info.max),
    "minus-infinite": ('"x": -Infinity', -sys.float_info.max),
    "beyond-a-double": (f'"x": -1{"0" * 400}', -sys.float_info.max),
    "long-digits": (f'"x": {"9" * 5000}', sys.float_info.max),
}

#: Those that are odd and arrive nonetheless.
ODD = {
    **{name: text for name, (text, _) in MENDED.items()},
    "half-a-surrogate": r'"x": "\ud83d"',
    "a-surrogate-as-key": r'"x": {"\ud800": 1}',
    "a-nul": r'"x": "\u0000"',
    "2-to-63": '"x": 9223372036854775808',
    "minus-zero": '"x": -0.0',
    "30-levels": f'"x": {"[" * 29}{"]" * 29}',
    "endless-usage": '"usage": {"prompt_tokens": 1e300, "completion_tokens": 9223372036854775808}',
    "wrong-usage": '"usage": {"prompt_tokens": true, "completion_tokens": "7", "prompt_tokens_details": [1]}',
    "float-usage": '"usage": {"prompt_tokens": 7.0, "completion_tokens": 0.5}',
    "strange-types": '"id": 5, "created": "never", "model": null, "object": []',
}
DOORS = ["grpc", "grpc-stream", "http", "http-stream"]
PRICES = {"input_usd_per_million_tokens": 1.0, "output_usd_per_million_tokens": 10.0}


async def _answer(request: Request) -> Response:
    body = await request.json()
    odd = {**BAD, **ODD}.get(body["model"])
    fields = f",{odd}" if odd else ""
    part = {"role": "assistant", "content": "forty-two"}
    if not body.get("stream"):
        whole = json.dumps({"choices": [{"index": 0, "message": part, "finish_reason": "stop"}]})
        return Response(f"{whole[:-1]}{fields}}}", media_type="application/json")
    first = json.dumps({"choices": [{"index": 0, "delta": part}]})
    last = json.dumps({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    return Response(f"data: {first[:-1]}{fields}}}\n\ndata: {last}\n\ndata: [DONE]\n\n", media_type="text/event-stream")


@dataclass
class Stack:
    """A running service; the policy of each odd answer asks for it first, and then one that answers well."""

    grpc: str
    http: str

    def ask(self, door: str, policy: str) -> tuple[str, str, Any]:
        """Return the text, who answered, and the answer or its first content chunk as the caller decodes it."""
        if door == "grpc":
            with RouterClient(self.grpc) as client:
                answer = client.complete("What is 2 + 2?", Overrides(policy=policy))
                return answer.text, answer.delivery.answered_by, answer.response
        if door == "grpc-stream":
            with RouterClient(self.grpc) as client:
                _, *steps = client.stream("What is 2 + 2?", Overrides(policy=policy))
            assert steps[0].delivery is not None
            return "".join(step.text for step in steps), steps[0].delivery.answered_by, steps[0].chunk
        streamed = door == "http-stream"
        body = {"model": f"elle/{policy}", "messages": [{"role": "user", "content": "x"}], "stream": streamed}
        reply = httpx.post(f"{self.http}/chat/completions", json=body, timeout=60)
        assert reply.status_code == 200, reply.text
        if not streamed:
            whole = json.loads(reply.text, parse_constant=_no_json)
            return whole["choices"][0]["message"]["content"], whole["elle"]["answered_by"], whole
        lines = [line.removeprefix("data: ") for line in reply.text.split("\n\n") if line[:1] not in ("", ":")]
        assert lines.pop() == "[DONE]"
        chunks = [json.loads(line, parse_constant=_no_json) for line in lines]
        text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks if chunk["choices"])
        return text, chunks[0]["elle"]["answered_by"], chunks[0]


def _no_json(name: str) -> Any:
    raise AssertionError(f"{name} is not JSON")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder, encoder = tmp_path_factory.mktemp("policies"), FakeEncoder()
    app = Starlette(routes=[Route("/v1/chat/completions", _answer, methods=["POST"])])
    with pytest.MonkeyPatch.context() as patch, in_thread(serve_on_loopback(app)) as url:
        patch.setattr(pipeline, "load_encoder", lambda *_: encoder)
        common = {"api_base": url, "retries": 0, "break_after": 1000, "prices": PRICES}
        last = {"name": "last", "model": "openai/ok", **common}
        paths = [write_policy(folder, candidates=[{**last, "name": name} for name in ("small", "large")])]
        cheap = {"rule": {"kind": "gain", "thresholds": [0.99]}, "safe_default": "first"}
        alone: dict[str, Any] = {
            "probe": None,
            "rule": {"kind": "fixed", "candidate": "first"},
            "safe_default": "first",
        }
        for name in (*BAD, *ODD):
            first = {"name": "first", "model": f"openai/{name}", **common}
            both = [first | {"probe_model": "small"}, last | {"probe_model": "large"}]
            paths.append(write_policy(folder, name=name, candidates=both, **cheap))
            if name in BAD:
                paths.append(write_policy(folder, name=f"only-{name}", candidates=[first], **alone))
        settings = ServerSettings(policies=tuple(paths), port=0, drain_s=1, http=HttpGateway())
        with in_thread(serving(settings)) as running:
            yield Stack(running.address, f"http://{running.http_address}/v1")


class TestAnswers:
    @pytest.mark.parametrize("door", DOORS)
    @pytest.mark.parametrize("bad", BAD)
    def test_what_no_door_could_hand_on_is_the_upstreams_fault_and_the_next_one_answers(
        self, stack: Stack, bad: str, door: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.INFO):
            text, answered_by, _ = stack.ask(door, bad)
        assert (text, answered_by) == ("forty-two", "last")
        assert not [record for record in caplog.records if record.exc_info]

    @pytest.mark.parametrize("bad", BAD)
    def test_where_nobody_else_may_answer_the_error_is_unavailable(self, stack: Stack, bad: str) -> None:
        with RouterClient(stack.grpc) as client:
            for ask in (client.complete, lambda *a: list(client.stream(*a))):
                with pytest.raises(ServiceError, match="no plain JSON") as caught:
                    ask("x", Overrides(policy=f"only-{bad}"))
                assert caught.value.code == "UNAVAILABLE"
                assert [one.outcome for one in caught.value.attempts] == [AttemptOutcome.UNAVAILABLE]
        body = {"model": f"elle/only-{bad}", "messages": [{"role": "user", "content": "x"}]}
        assert httpx.post(f"{stack.http}/chat/completions", json=body).status_code == 503

    @pytest.mark.parametrize("door", DOORS)
    @pytest.mark.parametrize("odd", ODD)
    def test_what_is_odd_but_can_be_handed_on_arrives(self, stack: Stack, odd: str, door: str) -> None:
        text, answered_by, _ = stack.ask(door, odd)
        assert (text, answered_by) == ("forty-two", "first")

    @pytest.mark.parametrize("door", DOORS)
    @pytest.mark.parametrize("odd", MENDED)
    def test_a_number_that_json_does_not_have_arrives_as_the_nearest_one(
        self, stack: Stack, odd: str, door: str
    ) -> None:
        assert stack.ask(door, odd)[2]["x"] == MENDED[odd][1]

    def test_half_a_surrogate_becomes_the_replacement_character_over_grpc_and_stays_over_http(
        self, stack: Stack
    ) -> None:
        assert stack.ask("grpc", "half-a-surrogate")[2]["x"] == "\ufffd"
        assert stack.ask("http", "half-a-surrogate")[2]["x"] == "\ud83d"

    def test_counts_that_are_none_are_unknown(self, stack: Stack) -> None:
        with RouterClient(stack.grpc) as client:
            counts = {
                odd: (answer.input_tokens, answer.output_tokens)
                for odd in ("endless-usage", "wrong-usage", "float-usage")
                for answer in [client.complete("x", Overrides(policy=odd))]
            }
        assert counts == {"endless-usage": (None, None), "wrong-usage": (None, None), "float-usage": (7, 0)}


def route(stack: Stack, request: pb.RouteRequest) -> pb.RouteResponse:
    with grpc.insecure_channel(stack.grpc) as channel:
        return pb_grpc.RouterServiceStub(channel).Route(request, timeout=60)


def refusal(stack: Stack, request: pb.RouteRequest) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        route(stack, request)
    return caught.value.code().name, caught.value.details()


def number(value: float) -> struct_pb2.Struct:
    return struct_pb2.Struct(fields={"x": struct_pb2.Value(number_value=value)})


LONG = {"ascii": "p" * 10_240, "chinese": "\u4f60" * 10_240, "control": "\x01" * 10_240, "lines": "a\r\nb: c\r\n" * 999}


class TestRequests:
    @pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
    @pytest.mark.parametrize("place", ["parameters", "extra", "tool_calls", "part"])
    def test_a_number_that_is_not_finite_is_the_callers_fault(self, stack: Stack, value: float, place: str) -> None:
        message = routing_pb2.ChatMessage(role="user", text="x")
        request = pb.RouteRequest(chat=routing_pb2.Chat(messages=[message]))
        if place == "parameters":
            request.parameters.CopyFrom(number(value))
        elif place == "extra":
            request.chat.messages[0].extra.CopyFrom(number(value))
        elif place == "tool_calls":
            request.chat.messages[0].tool_calls.append(number(value))
        else:
            request.chat.messages[0].parts.parts.add().other.CopyFrom(number(value))
        code, words = refusal(stack, request)
        assert (code, "not finite" in words) == ("INVALID_ARGUMENT", True)

    def test_one_bad_request_of_a_batch_leaves_the_others_decided(self, stack: Stack) -> None:
        good = pb.RouteRequest(prompt="x")
        bad = [pb.RouteRequest(), pb.RouteRequest(prompt="x", parameters=number(float("nan")))]
        with grpc.insecure_channel(stack.grpc) as channel:
            stub = pb_grpc.RouterServiceStub(channel)
            results = stub.BatchRoute(pb.BatchRouteRequest(requests=[good, *bad, good])).results
            assert not stub.BatchRoute(pb.BatchRouteRequest()).results
        assert [result.WhichOneof("result") for result in results] == ["decision", "error", "error", "decision"]
        assert {result.error.code for result in results[1:3]} == {grpc.StatusCode.INVALID_ARGUMENT.value[0]}

    @pytest.mark.parametrize("text", LONG.values(), ids=LONG)
    @pytest.mark.parametrize("field", ["pin", "policy", "require_region", "allowed_candidates", "denied_candidates"])
    def test_a_long_name_is_cut_in_the_error_with_its_length(self, stack: Stack, field: str, text: str) -> None:
        named: dict[str, Any] = {field: [text] if field.endswith("s") else text}
        code, words = refusal(stack, pb.RouteRequest(prompt="x", overrides=routing_pb2.Overrides(**named)))
        assert code in {"INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION"}
        assert f"({len(text):,} characters)" in words
        assert len(words) < 1000

    @pytest.mark.parametrize("text", LONG.values(), ids=LONG)
    def test_over_http_too(self, stack: Stack, text: str) -> None:
        user = {"role": "user", "content": "x"}
        for body in (
            {"model": text, "messages": [user]},
            {"model": f"router-mf-{text}", "messages": [user]},
            {"model": "small", "messages": [{**user, "role": text}]},
            {"model": "small", "messages": [user], "stream": text},
            {"model": "small", "messages": [user], "max_tokens": text},
            {"model": "elle/test", "messages": [{**user, "content": [{"type": text}]}]},
            {"model": "elle/test", "messages": [{**user, "content": [{"type": f"{n}{text}"} for n in range(50)]}]},
        ):
            reply = httpx.post(f"{stack.http}/chat/completions", json=body)
            assert 400 <= reply.status_code < 500
            # In ASCII a sign of Chinese takes six characters.
            assert len(reply.content) < 4000
            assert text[:200] not in reply.json()["error"]["message"]
            if body["model"] != "elle/test":
                assert " characters" in reply.text

    @pytest.mark.parametrize("number_text", ["1e999", "-1e999", "NaN", "Infinity", "9" * 5000, "1" + "0" * 400, DEEP])
    def test_what_is_no_plain_json_is_refused_in_few_words(self, stack: Stack, number_text: str) -> None:
        raw = f'{{"model":"small","messages":[{{"role":"user","content":"x"}}],"max_tokens":{number_text}}}'
        headers = {"content-type": "application/json"}
        reply = httpx.post(f"{stack.http}/chat/completions", content=raw, headers=headers)
        assert reply.status_code == 400
        assert len(reply.content) < 500
        assert "sys." not in reply.text

    def test_a_session_id_with_half_a_surrogate_is_a_session(self, stack: Stack) -> None:
        metadata = {"user_id": '{"session_id": "a\\ud800"}'}
        with RouterClient(stack.grpc) as client:
            assert client.route("x", parameters={"metadata": metadata}).session_id == "a\ufffd"

    def test_of_a_long_session_id_the_record_holds_the_digest(self, stack: Stack) -> None:
        with RouterClient(stack.grpc) as client:
            first, second, other = (
                client.route("x", session_id=text).session_id for text in ("s" * 9999,) * 2 + ("t" * 9999,)
            )
        assert first == second != other
        assert len(first) < 100

    @pytest.mark.parametrize("count", [1001, 10**6])
    def test_lists_without_end_are_refused(self, stack: Stack, count: int) -> None:
        names = routing_pb2.Overrides(allowed_candidates=["small"] * count)
        code, words = refusal(stack, pb.RouteRequest(prompt="x", overrides=names))
        assert code == "INVALID_ARGUMENT"
        # A million is stopped by the bounds on a message's structure.
        assert count > 1001 or "at most 1,000 names" in words

    @pytest.mark.parametrize(
        "method",
        [
            "/elle.router.v1.RouterService/Route",
            "/elle.router.v1.RouterService/StreamComplete",
            "/grpc.health.v1.Health/Check",
            "/grpc.health.v1.Health/Watch",
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        ],
    )
    def test_what_cannot_be_parsed_is_said_in_our_words_by_every_service(self, stack: Stack, method: str) -> None:
        for raw in (b"\x0a\x01\xff", b"\xff\xff\xff\xff"):
            with grpc.insecure_channel(stack.grpc) as channel:
                # On the wire a lone message is a stream of one.
                answers = channel.stream_stream(method)(iter([raw]))
                with pytest.raises(grpc.RpcError) as caught:
                    next(answers)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert "could not be parsed" in caught.value.details()
            assert "class" not in caught.value.details()


def test_a_decision_is_one_whatever_a_name_looks_like(stack: Stack) -> None:
    # Equal to the eye, not to the machine: no name is normalised, and none is taken for another.
    with RouterClient(stack.grpc) as client:
        results = client.route_batch([*(["x"] * 2)])
        assert all(isinstance(result, RoutingDecision) for result in results)
        for name in ("sma\u2060ll", "\uff53mall", "small\x00", "SMALL", " small"):
            with pytest.raises(ServiceError, match="pin must name candidates"):
                client.route("x", Overrides(pin=name))
        with pytest.raises(ServiceError, match=r"Did you mean small\?"):
            client.route("x", Overrides(pin="smal"))
