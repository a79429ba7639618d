"""Dispatch through LiteLLM to a real loopback upstream: what arrives there, what comes back, what is counted."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import copy
import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai
import pytest
import pytest_asyncio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from router import errors
from router.answering.dispatch import Dispatcher
from router.attempts import AttemptOutcome
from router.deciding.pipeline import Router
from router.errors import DispatchError, InvalidRequestError
from router.gateways.openai_body import ChatBody
from router.policies.loading import load_policies
from router.serving.http_server import serve_on_loopback
from router.values import RouteQuery, RoutingDecision
from tests.fakes import FakeEncoder, write_policy
from tests.raw_server import raw_server
from tests.router.faults import USAGE, FaultyUpstream, answer

KEY = "TEST_UPSTREAM_KEY"
PRICES = {
    "input_usd_per_million_tokens": 1.0,
    "output_usd_per_million_tokens": 10.0,
    "cached_input_usd_per_million_tokens": 0.1,
}

# One loop for all tests, so that one server serves them all.
pytestmark = pytest.mark.asyncio(loop_scope="module")


class Upstream:
    """A real HTTP server that remembers the bytes it was sent and answers as told."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.keys: list[str | None] = []
        self.answer: Response | None = None
        self.url = ""

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(sent) for sent in self.sent]

    async def _complete(self, request: Request) -> Response:
        self.sent.append(await request.body())
        self.keys.append(request.headers.get("authorization"))
        return self.answer or JSONResponse(answer())

    async def _message(self, request: Request) -> Response:
        self.sent.append(await request.body())
        usage = {"input_tokens": 10, "output_tokens": 2}
        said = {"id": "m", "type": "message", "role": "assistant", "model": "claude", "stop_reason": "end_turn"}
        return JSONResponse(said | {"content": [{"type": "text", "text": "forty-two"}], "usage": usage})

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Upstream]:
        routes = [Route("/v1/chat/completions", self._complete, methods=["POST"])]
        app = Starlette(routes=[*routes, Route("/v1/messages", self._message, methods=["POST"])])
        async with serve_on_loopback(app) as self.url:
            yield self


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[Upstream]:
    async with Upstream().running() as upstream:
        yield upstream


@pytest.fixture
def upstream(server: Upstream, monkeypatch: pytest.MonkeyPatch) -> Upstream:
    """The server, with nothing remembered."""
    monkeypatch.setenv(KEY, "sk-test")
    server.sent, server.keys, server.answer = [], [], None
    return server


def candidate(name: str, url: str, **changes: Any) -> dict[str, Any]:
    common = {"name": name, "model": f"openai/real-{name}", "api_base": url, "api_key_env": KEY, "prices": PRICES}
    return common | {"capabilities": ["text", "image", "tools", "json_schema"], "timeout_s": 5} | changes


class World:
    """A router on a fake encoder, and its dispatcher."""

    def __init__(self, folder: Path, candidates: list[dict[str, Any]], **policy: Any) -> None:
        encoder = FakeEncoder()
        candidates = [one | {"probe_model": name} for one, name in zip(candidates, ("small", "large"), strict=True)]
        policy.setdefault("safe_default", candidates[-1]["name"])
        policies = load_policies([write_policy(folder, candidates=candidates, **policy)])
        self.router = Router(policies, {encoder.spec.identity: encoder})
        self.dispatcher = Dispatcher(self.router.policies)

    async def decide(self, query: RouteQuery) -> RoutingDecision:
        return await self.router.adecide(query)

    async def complete(self, query: RouteQuery, timeout_s: float | None = 20) -> Any:
        return await self.dispatcher.complete(query, await self.decide(query), timeout_s=timeout_s)

    async def stream(self, query: RouteQuery, timeout_s: float | None = 20) -> list[Any]:
        steps = self.dispatcher.stream(query, await self.decide(query), timeout_s=timeout_s)
        return [step async for step in steps]


@contextlib.asynccontextmanager
async def dispatching(folder: Path, *candidates: dict[str, Any], **policy: Any) -> AsyncIterator[World]:
    world = World(folder, list(candidates), **policy)
    try:
        yield world
    finally:
        await world.dispatcher.aclose()
        await world.router.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the policies lie; the probe beside them is fitted once."""
    return tmp_path_factory.mktemp("policies")


@pytest_asyncio.fixture(loop_scope="module")
async def world(folder: Path, upstream: Upstream) -> AsyncIterator[World]:
    """Two candidates at the same upstream."""
    async with dispatching(folder, candidate("small", upstream.url), candidate("large", upstream.url)) as world:
        yield world


def as_a_door_would(body: bytes) -> RouteQuery:
    """The query of an OpenAI body, and nothing of it lost."""
    parsed = ChatBody.parse(body)
    fields = dict(parsed.fields)
    messages = fields.pop("messages")
    for own in ("model", "stream"):
        fields.pop(own, None)
    return RouteQuery(messages, parameters=fields, body=parsed.around_model)


TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]
PIXEL = "data:image/png;base64,iVBORw0KGgo="
HELLO = [{"role": "user", "content": "Grüße, 你好 \u2028 ünïcode"}]
SCHEMA = {"name": "s", "strict": True, "schema": {"type": "object", "properties": {"a": {"type": "integer"}}}}
VISION = [
    {"role": "system", "content": [{"type": "text", "text": "look", "cache_control": {"type": "ephemeral"}}]},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "what?"},
            {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low", "format": "image/png"}},
        ],
    },
]
TOOL_LOOP = [
    {"role": "user", "content": "weather?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
    },
    {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
]
ASKED: dict[str, dict[str, Any]] = {
    "plain": {},
    "sampling": {"temperature": 0.5, "top_p": 1.0, "seed": 7, "stop": ["x"], "frequency_penalty": 1e-7},
    "n and logprobs": {"n": 2, "logprobs": True, "top_logprobs": 3},
    "limits": {"max_completion_tokens": 64, "metadata": {"team": "a"}, "store": False, "user": "u-1"},
    "old limit": {"max_tokens": 64, "service_tier": "flex", "reasoning_effort": "low"},
    "tools": {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "f"}}},
    "tool loop": {"messages": TOOL_LOOP, "tools": TOOLS, "parallel_tool_calls": False},
    "json schema": {"response_format": {"type": "json_schema", "json_schema": SCHEMA}},
    "vision": {"messages": VISION},
    "unknown": {"extra_body": {"z_new": {"a": [1, None]}, "b_new": "x", "api_base": "http://x", "mock_response": "y"}},
    "no stream": {"stream": False},
    "null": {"stop": None, "temperature": None},
}


class TestBodies:
    """The official SDK talks to the upstream directly, and to us: the upstream cannot tell the difference."""

    @pytest.mark.parametrize("streamed", [False, True], ids=["unary", "stream"])
    @pytest.mark.parametrize("what", ASKED)
    async def test_are_byte_equal_to_the_sdks_except_for_the_model(
        self, upstream: Upstream, world: World, what: str, streamed: bool
    ) -> None:
        fields = {"messages": HELLO} | ASKED[what]
        if streamed:
            fields |= {"stream": True, "stream_options": {"include_usage": True}}
            upstream.answer = StreamingResponse(iter(["data: [DONE]\n\n"]), media_type="text/event-stream")
        async with openai.AsyncOpenAI(api_key="k", base_url=upstream.url, max_retries=0) as sdk:
            await sdk.chat.completions.create(model="elle/test", **fields)
        (direct,) = upstream.sent
        upstream.answer = None
        query = as_a_door_would(direct)
        before = replace(query, messages=copy.deepcopy(query.messages), parameters=copy.deepcopy(query.parameters))
        if streamed:
            upstream.answer = StreamingResponse(iter([]), media_type="text/event-stream")
            with pytest.raises(errors.UpstreamUnavailableError):
                await world.stream(query)
        else:
            await world.complete(query)
        ours = upstream.sent[1]
        model = json.loads(ours)["model"]
        assert model.startswith("real-")
        assert ours == direct.replace(b'"model":"elle/test"', b'"model":"%s"' % model.encode())
        assert query == before

    async def test_of_a_query_of_our_own_ask_streams_for_usage_and_add_nothing_else(
        self, upstream: Upstream, world: World
    ) -> None:
        await world.complete(RouteQuery.from_prompt("hello"))
        with pytest.raises(errors.UpstreamUnavailableError):
            await world.stream(RouteQuery.from_prompt("hello"))
        plain, streamed = upstream.bodies[0], upstream.bodies[1]
        assert plain.keys() == {"messages", "model"}
        assert streamed.keys() == {"messages", "model", "stream", "stream_options"}

    async def test_cannot_reach_litellms_own_keywords(self, upstream: Upstream, world: World) -> None:
        stolen = {"api_base": "http://127.0.0.1:1/v1", "api_key": "x", "mock_response": "pwned", "base_url": "http://x"}
        completion = await world.complete(RouteQuery.from_prompt("hello", parameters=stolen))
        assert completion.text == "forty-two"
        assert stolen.items() <= upstream.bodies[0].items()
        assert upstream.keys == ["Bearer sk-test"]

    @pytest.mark.parametrize("value", [float("nan"), object(), "bad \ud800"])
    async def test_that_are_no_json_are_the_callers_fault(self, world: World, value: object) -> None:
        with pytest.raises(InvalidRequestError):
            await world.complete(RouteQuery.from_prompt("hello", parameters={"x": value}))

    async def test_of_other_providers_are_litellms_to_translate(self, folder: Path, upstream: Upstream) -> None:
        # LiteLLM without its `mcp` extra refuses every request that carries tools.
        other = candidate("small", upstream.url, model="hosted_vllm/real")
        schema = {"type": "json_schema", "json_schema": SCHEMA}
        asked = {"temperature": 0.5, "tools": TOOLS, "response_format": schema, "brand_new_field": {"a": 1}}
        async with dispatching(folder, other, candidate("large", upstream.url)) as world:
            query = RouteQuery.from_prompt("hello", parameters=asked)
            pinned = RouteQuery(query.messages, overrides=_pin("small"), parameters=asked)
            completion = await world.complete(pinned)
        assert completion.text == "forty-two"
        assert upstream.bodies[0] == {"model": "real", "messages": list(query.messages), **asked}

    async def test_of_providers_of_another_shape_are_what_these_know(self, folder: Path, upstream: Upstream) -> None:
        other = candidate("small", upstream.url.removesuffix("/v1"), model="anthropic/claude-sonnet-4-5")
        asked = {"temperature": 0.5, "brand_new_field": 1, "metadata": {"user_id": "u1", "session_id": "s"}}
        async with dispatching(folder, other, candidate("large", upstream.url)) as world:
            completion = await world.complete(
                RouteQuery.from_prompt("hello", overrides=_pin("small"), parameters=asked)
            )
            assert completion.text == "forty-two"
            (body,) = upstream.bodies
            assert body.keys() == {"model", "messages", "max_tokens", "temperature", "metadata"}
            assert body["metadata"] == {"user_id": "u1"}
            query = RouteQuery.from_prompt("hello", overrides=_pin("small"), parameters={"seed": 1})
            with pytest.raises(errors.UpstreamRejectedError, match="seed"):
                await world.complete(query)

    async def test_of_other_providers_stream_and_stop_when_the_caller_leaves(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(KEY, "sk-test")
        faulty = FaultyUpstream()
        async with (
            serve_on_loopback(faulty.app()) as url,
            dispatching(
                folder,
                candidate("small", url, model="hosted_vllm/ok"),
                candidate("large", url, model="hosted_vllm/endless"),
            ) as world,
        ):
            steps = await world.stream(RouteQuery.from_prompt("hello", overrides=_pin("small")))
            assert "".join(step.text for step in steps) == "forty-two"
            assert steps[-1].usage is not None
            query = RouteQuery.from_prompt("hello", overrides=_pin("large"))
            endless = world.dispatcher.stream(query, await world.decide(query))
            for _ in range(3):
                await anext(endless)
            left_at = time.monotonic()
            await endless.aclose()
            assert await faulty.left("endless") - left_at < 1

    async def test_of_other_providers_stop_unanswered_when_the_caller_leaves(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(KEY, "sk-test")
        faulty = FaultyUpstream()
        async with (
            serve_on_loopback(faulty.app()) as url,
            dispatching(
                folder, candidate("small", url, model="hosted_vllm/hang", timeout_s=30), candidate("large", url)
            ) as world,
        ):
            query = RouteQuery.from_prompt("hello", overrides=_pin("small"))
            asking = asyncio.create_task(world.complete(query))
            await faulty.asked("hang")
            left_at = time.monotonic()
            asking.cancel()
            await asyncio.wait([asking])
            assert await faulty.left("hang") - left_at < 1

    @pytest.mark.parametrize("streamed", [False, True], ids=["unary", "stream"])
    async def test_of_other_providers_do_not_hide_an_answer_that_is_none(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, streamed: bool
    ) -> None:
        monkeypatch.setenv(KEY, "sk-test")
        faulty = FaultyUpstream()
        async with (
            serve_on_loopback(faulty.app()) as url,
            dispatching(
                folder,
                candidate("small", url, model="hosted_vllm/html"),
                candidate("large", url, model="hosted_vllm/malformed"),
            ) as world,
        ):
            for name in ("small", "large"):
                query = RouteQuery.from_prompt("hello", overrides=_pin(name))
                with pytest.raises(errors.UpstreamUnavailableError):
                    await (world.stream(query) if streamed else world.complete(query))


def _pin(name: str) -> Any:
    from router.values import Overrides

    return Overrides(pin=name)


def sse(*chunks: dict[str, Any]) -> Response:
    events = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
    return StreamingResponse(iter([*events, "data: [DONE]\n\n"]), media_type="text/event-stream")


def chunk(index: int, finish_reason: str | None = None, **delta: Any) -> dict[str, Any]:
    head = {"id": "c", "object": "chat.completion.chunk", "created": 5, "model": "theirs", "x_vendor": {"a": 1}}
    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    return head | {"choices": [choice]}


class TestAnswers:
    async def test_come_back_as_they_were_sent(self, upstream: Upstream, world: World) -> None:
        sent = answer() | {"system_fingerprint": None, "x_vendor": [1.0, None]}
        upstream.answer = JSONResponse(sent)
        completion = await world.complete(RouteQuery.from_prompt("hello"))
        assert completion.body == sent
        assert completion.text == "forty-two"
        assert completion.usage is not None
        assert completion.usage.cost_usd == pytest.approx(10e-6 + 20e-6)

    async def test_cost_less_for_input_out_of_the_prompt_cache(self, upstream: Upstream, world: World) -> None:
        usage = USAGE | {"prompt_tokens_details": {"cached_tokens": 8}}
        upstream.answer = JSONResponse(answer() | {"usage": usage})
        completion = await world.complete(RouteQuery.from_prompt("hello"))
        assert completion.usage.cost_usd == pytest.approx(2e-6 + 8e-7 + 20e-6)

    async def test_in_chunks_come_back_as_they_were_sent_with_all_choices(
        self, upstream: Upstream, world: World
    ) -> None:
        sent = [
            *(chunk(index, role="assistant", content="") for index in (0, 1)),
            *(chunk(index, content=f"word {index}") for index in (0, 1)),
            chunk(0, tool_calls=[{"index": 0, "id": "t", "type": "function", "function": {"name": "f"}}]),
            *(chunk(index, "stop") for index in (0, 1)),
            {"id": "c", "object": "chat.completion.chunk", "created": 5, "choices": [], "usage": USAGE},
        ]
        upstream.answer = sse(*sent)
        steps = await world.stream(RouteQuery.from_prompt("hello"))
        assert [step.body for step in steps] == sent
        assert "".join(step.text for step in steps) == "word 0"
        assert [step.usage is None for step in steps] == [True] * 7 + [False]

    async def test_without_usage_say_so(self, upstream: Upstream, world: World) -> None:
        upstream.answer = JSONResponse({key: value for key, value in answer().items() if key != "usage"})
        assert (await world.complete(RouteQuery.from_prompt("hello"))).usage is None
        upstream.answer = sse(chunk(0, content="hi"), chunk(0, "stop"))
        assert all(step.usage is None for step in await world.stream(RouteQuery.from_prompt("hello")))

    async def test_that_only_call_a_tool_are_answers(self, upstream: Upstream, world: World) -> None:
        calls = [{"index": 0, "id": "t", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
        upstream.answer = sse(chunk(0, role="assistant", content=None, tool_calls=calls), chunk(0, "tool_calls"))
        first, last = await world.stream(RouteQuery.from_prompt("hello", parameters={"tools": TOOLS}))
        assert (first.text, last.text) == ("", "")
        assert first.body["choices"][0]["delta"]["tool_calls"] == calls

    async def test_of_openais_output_limit_are_not_made_up(self, upstream: Upstream, world: World) -> None:
        # LiteLLM turns this refusal into an empty answer with usage of its own counting.
        message = "Could not finish the message because max_tokens or model output limit was reached."
        upstream.answer = JSONResponse({"error": {"message": message}}, status_code=400)
        with pytest.raises(errors.UpstreamRejectedError):
            await world.complete(RouteQuery.from_prompt("hello"))
        with pytest.raises(errors.UpstreamRejectedError):
            await world.stream(RouteQuery.from_prompt("hello"))


class TestErrors:
    @pytest.mark.parametrize(
        ("status", "kind", "attempts"),
        [
            (400, errors.UpstreamRejectedError, 1),
            (401, errors.UpstreamDeniedError, 1),
            (402, errors.UpstreamDeniedError, 1),
            (403, errors.UpstreamDeniedError, 1),
            (404, errors.UpstreamNotFoundError, 1),
            (408, errors.UpstreamTimeoutError, 1),
            (409, errors.UpstreamUnavailableError, 2),
            (413, errors.UpstreamRejectedError, 1),
            (422, errors.UpstreamRejectedError, 1),
            (429, errors.UpstreamRateLimitedError, 2),
            (500, errors.UpstreamUnavailableError, 2),
            (503, errors.UpstreamUnavailableError, 2),
        ],
    )
    async def test_are_of_the_kind_of_the_status_and_quote_only_what_is_wrong_with_a_request(
        self, folder: Path, upstream: Upstream, status: int, kind: type[DispatchError], attempts: int
    ) -> None:
        upstream.answer = JSONResponse({"error": {"message": "the prompt was: hello"}}, status_code=status)
        async with dispatching(
            folder, candidate("small", upstream.url), candidate("large", upstream.url), fallback="none"
        ) as world:
            with pytest.raises(kind) as caught:
                await world.complete(RouteQuery.from_prompt("hello"))
        assert type(caught.value) is kind
        assert ("It says: the prompt was: hello" in str(caught.value)) is (kind is errors.UpstreamRejectedError)
        assert ("hello" in str(caught.value)) is (kind is errors.UpstreamRejectedError)
        assert str(caught.value).endswith(kind.hint)
        assert [attempt.http_status for attempt in caught.value.attempts] == [status] * attempts
        assert len(upstream.sent) == attempts

    async def test_name_the_variable_of_a_missing_key(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(KEY, "")
        with pytest.raises(errors.UpstreamDeniedError, match=KEY):
            await world.complete(RouteQuery.from_prompt("hello"))

    async def test_say_when_to_try_again(self, upstream: Upstream, world: World) -> None:
        upstream.answer = JSONResponse({"error": {}}, status_code=429, headers={"retry-after": "7"})
        with pytest.raises(errors.UpstreamRateLimitedError) as caught:
            await world.complete(RouteQuery.from_prompt("hello"))
        assert caught.value.retry_after_s == 7
        with pytest.raises(errors.UpstreamCoolingDownError) as cooling:
            await world.complete(RouteQuery.from_prompt("hello"))
        assert cooling.value.retry_after_s is not None
        assert 6 < cooling.value.retry_after_s <= 7

    async def test_of_a_deadline_that_has_passed_ask_nobody(self, upstream: Upstream, world: World) -> None:
        await world.complete(RouteQuery.from_prompt("hello"))
        with pytest.raises(errors.UpstreamTimeoutError):
            await world.complete(RouteQuery.from_prompt("hello"), timeout_s=0)
        assert len(upstream.sent) == 1

    async def test_come_of_the_whole_deadline_where_nobody_but_a_resting_one_could_stand_in(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(KEY, "sk-test")
        faulty = FaultyUpstream()
        async with (
            serve_on_loopback(faulty.app()) as url,
            dispatching(
                folder,
                candidate("small", url, model="openai/hang", timeout_s=30),
                candidate("large", url, model="openai/401"),
                rule={"kind": "gain", "thresholds": [1.0]},
            ) as world,
        ):
            with pytest.raises(errors.UpstreamDeniedError):
                await world.complete(RouteQuery.from_prompt("hello", overrides=_pin("large")))
            with pytest.raises(errors.UpstreamTimeoutError) as caught:
                await world.complete(RouteQuery.from_prompt("hello"), timeout_s=0.3)
        # With half of it kept for the one that rests, there would have been time to find that it does.
        assert [(one.candidate, one.outcome) for one in caught.value.attempts] == [("small", AttemptOutcome.TIMED_OUT)]

    async def test_of_our_own_are_not_relabelled(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        async def bug(*_: Any, **__: Any) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr("aiohttp.ClientSession._request", bug)
        with pytest.raises(ZeroDivisionError):
            await world.complete(RouteQuery.from_prompt("hello"))


class TestCredentials:
    async def test_a_line_feed_behind_a_key_is_not_part_of_it(
        self, world: World, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(KEY, "sk-mounted\n")
        await world.complete(RouteQuery.from_prompt("hello"))
        assert upstream.keys == ["Bearer sk-mounted"]

    async def test_a_user_in_the_address_is_authenticated_as_such(self, folder: Path, upstream: Upstream) -> None:
        url = upstream.url.replace("http://", "http://me:p%40ss@")
        async with dispatching(folder, candidate("small", url), candidate("large", url)) as world:
            await world.complete(RouteQuery.from_prompt("hello"))
        assert upstream.keys == [f"Basic {base64.b64encode(b'me:p@ss').decode()}"]


class TestConnections:
    async def test_are_kept_for_the_next_request(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(KEY, "sk-test")
        connections = 0

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal connections
            connections += 1
            text = json.dumps(answer()).encode()
            head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(text)
            with contextlib.suppress(asyncio.IncompleteReadError):
                while head_in := await reader.readuntil(b"\r\n\r\n"):
                    length = int(head_in.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                    await reader.readexactly(length)
                    writer.write(head + text)

        async with raw_server(serve) as port:
            url = f"http://127.0.0.1:{port}/v1"
            async with dispatching(folder, candidate("small", url), candidate("large", url)) as world:
                for deadline_s in range(10, 20):
                    await world.complete(RouteQuery.from_prompt("hello"), timeout_s=deadline_s)
        assert connections == 1

    async def test_of_many_who_wait_for_a_dead_candidate_do_not_hold_up_another(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(KEY, "sk-test")
        faulty = FaultyUpstream()
        async with (
            serve_on_loopback(faulty.app()) as url,
            dispatching(
                folder,
                candidate("dead", url, model="openai/hang", timeout_s=30),
                candidate("well", url, model="openai/ok"),
            ) as world,
        ):
            dead, well = (
                RouteQuery.from_prompt("hello", overrides=_pin("dead")),
                RouteQuery.from_prompt("hello", overrides=_pin("well")),
            )
            await world.complete(well)
            waiting = [asyncio.create_task(world.complete(dead)) for _ in range(150)]
            await faulty.asked("hang", times=150)
            await world.complete(well)
            assert not any(task.done() for task in waiting)
            for task in waiting:
                task.cancel()
            await asyncio.wait(waiting)


async def test_two_policies_on_one_upstream_know_of_each_others_failures(folder: Path, upstream: Upstream) -> None:
    upstream.answer = JSONResponse({"error": {}}, status_code=401)
    profiles = {"quick": {"rule": {"kind": "gain", "thresholds": [-1.0]}}}
    async with dispatching(
        folder, candidate("small", upstream.url), candidate("large", upstream.url), profiles=profiles
    ) as world:
        from router.values import Overrides

        with pytest.raises(errors.UpstreamDeniedError):
            await world.complete(RouteQuery.from_prompt("hello", overrides=Overrides(pin="large")))
        # A refused key is no more worth a retry while it rests than it was when it was refused.
        with pytest.raises(errors.UpstreamDeniedError) as caught:
            await world.complete(RouteQuery.from_prompt("hello", overrides=Overrides(policy="test:quick", pin="large")))
    assert [attempt.outcome for attempt in caught.value.attempts] == [AttemptOutcome.COOLING_DOWN]
