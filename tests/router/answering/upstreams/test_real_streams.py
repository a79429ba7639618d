"""A stream that is whole is never called broken, and an error in an answer of status 200 is that error."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from router.answering import upstream as upstream_module
from router.answering.reading.call_notes import CallNotes
from router.answering.upstream import Upstream
from router.answering.upstreams import bounded_bodies
from router.errors import DispatchError, UpstreamUnavailableError
from router.policies.candidates.candidate import Candidate
from router.values import ApiFormat, RouteQuery
from tests.router import faults
from tests.router.answering.upstreams import real_streams as real
from tests.router.answering.upstreams.real_streams import PAUSE, Step, chunk, data

pytestmark = pytest.mark.asyncio(loop_scope="module")

#: Through our own connection, and through LiteLLM.
PROVIDERS = ["openai", "hosted_vllm"]

#: What the server sends next, with its head.
sent: list[Step] = []


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url() -> AsyncIterator[str]:
    async with real.sending(lambda _: sent) as url:
        yield url


def send(*steps: Step, kind: str = "text/event-stream", status: str = "200 OK") -> None:
    sent[:] = [real.HEAD.replace(b"text/event-stream", kind.encode()).replace(b"200 OK", status.encode()), *steps]


def asked(provider: str, url: str, **more: Any) -> Candidate:
    base = url if provider == "anthropic" else f"{url}/v1"
    return Candidate(name="c", model=f"{provider}/x", api_base=base, timeout_s=60, **more)


async def stream(upstream: Upstream, candidate: Candidate, api: ApiFormat = ApiFormat.OPENAI_CHAT) -> list[Any]:
    query = RouteQuery.from_prompt("hi") if api is ApiFormat.OPENAI_CHAT else query_of(api)
    return [one async for one in upstream.stream(candidate, query)]


def query_of(api: ApiFormat) -> RouteQuery:
    return RouteQuery(({"role": "user", "content": "hi"},), api_format=api, parameters={"max_tokens": 9})


def text_of(chunks: list[Any]) -> str:
    deltas = [choice.get("delta") or {} for one in chunks for choice in one["choices"]]
    return "".join(delta.get("content") or "" for delta in deltas)


#: LiteLLM reads lines of data whatever the content type says; there we only bound them.
WHOLE = [
    (name, who) for name in real.WHOLE_CHATS for who in PROVIDERS if (name, who) != (real.WRONG_TYPE, "hosted_vllm")
]


@pytest.mark.parametrize(("name", "provider"), WHOLE)
async def test_a_stream_that_is_whole_arrives(
    upstream: Upstream, url: str, name: str, provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if real.STAY in real.WHOLE_CHATS[name]:
        # Only here: on a busy machine another stream may bring its numbers of tokens later than that.
        for module in (upstream_module, bounded_bodies):
            monkeypatch.setattr(module, "TAIL_S", 0.2)
    send(*real.WHOLE_CHATS[name], kind="application/json" if name == real.WRONG_TYPE else "text/event-stream")
    chunks = await stream(upstream, asked(provider, url))
    assert text_of(chunks) == "forty-two"
    if "usage" in name:
        assert [one["usage"]["prompt_tokens"] for one in chunks if one.get("usage")] == [10]
    json.dumps(chunks, allow_nan=False)


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_half_of_a_surrogate_pair_arrives(upstream: Upstream, url: str, provider: str) -> None:
    send(real.SURROGATE)
    assert text_of(await stream(upstream, asked(provider, url))) == "\ud83dtwo"


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize(
    "steps",
    [
        [real.TEXT],
        [real.TEXT, real.PAUSE, real.RESET],
        [real.DONE],
        [b": hi\n\n" * 50],
        [data(chunk({"content": "a"})) + data(chunk({"content": "b"}, index=1)) + real.STOP],
    ],
    ids=["cut", "reset", "nothing", "comments", "one of two choices"],
)
async def test_a_stream_that_is_not_whole_is_an_error(
    upstream: Upstream, url: str, steps: list[Step], provider: str
) -> None:
    send(*steps)
    with pytest.raises(UpstreamUnavailableError):
        await stream(upstream, asked(provider, url))


async def test_nonsense_inside_a_stream_is_an_error(upstream: Upstream, url: str) -> None:
    send(real.TEXT + data(b"{nope") + real.STOP)
    with pytest.raises(UpstreamUnavailableError):
        await stream(upstream, asked("openai", url))


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("way", ["whole", "stream", "stream in one piece"])
@pytest.mark.parametrize("name", real.ERRORS)
async def test_an_error_in_an_answer_of_status_200_is_that_error(
    upstream: Upstream, url: str, name: str, way: str, provider: str
) -> None:
    error, reason, code, param, wait_s = real.ERRORS[name]
    if way == "stream":
        send(data(chunk({"role": "assistant"})) + data(error) + real.DONE)
    else:
        send(json.dumps(real.whole_of(error)).encode(), kind="application/json")
    candidate, query = asked(provider, url), RouteQuery.from_prompt("hi")
    with pytest.raises(DispatchError) as caught:
        await (upstream.complete(candidate, query) if way == "whole" else stream(upstream, candidate))
    found = caught.value
    assert (found.reason, found.provider_code, found.provider_param) == (reason, code, param)
    assert found.retry_after_s == wait_s
    has_words = reason != "UPSTREAM_DENIED" and name != "a choice that says no more"
    assert ("it failed" in str(found)) is has_words
    assert "abcdefghij" not in str(found)


@pytest.mark.parametrize("provider", [*PROVIDERS, "anthropic"])
@pytest.mark.parametrize("way", ["whole", "stream"])
async def test_code_and_param_of_an_error_status_are_the_providers_own(
    upstream: Upstream, url: str, provider: str, way: str
) -> None:
    error = real.reported(code="unsupported_value", param="temperature")
    send(json.dumps(error).encode(), kind="application/json", status="400 Bad Request")
    candidate, query = asked(provider, url), RouteQuery.from_prompt("hi")
    with pytest.raises(DispatchError, match="it failed") as caught:
        await (upstream.complete(candidate, query) if way == "whole" else stream(upstream, candidate))
    found = caught.value
    assert (found.reason, found.http_status) == ("UPSTREAM_REJECTED", 400)
    assert (found.provider_code, found.provider_param) == ("unsupported_value", "temperature")


async def test_the_errors_of_the_other_formats_are_found_too(upstream: Upstream, url: str) -> None:
    filtered = {"code": "content_filter", "message": "it failed", "param": "input"}
    failed = {"type": "response.failed", "response": {"status": "failed", "output": [], "error": filtered}}
    cases: list[tuple[str, ApiFormat, bytes, str, str | None]] = [
        (
            "anthropic",
            ApiFormat.ANTHROPIC_MESSAGES,
            data({"type": "error", "error": {"type": "overloaded_error", "message": "it failed"}}, "error"),
            *("UPSTREAM_UNAVAILABLE", None),
        ),
        ("openai", ApiFormat.OPENAI_RESPONSES, data(failed, "response.failed"), "UPSTREAM_REJECTED", "content_filter"),
        (
            "openai",
            ApiFormat.OPENAI_RESPONSES,
            data({"type": "error", **filtered}, "error"),
            *("UPSTREAM_REJECTED", "content_filter"),
        ),
        ("openai", ApiFormat.OPENAI_COMPLETIONS, data({"error": filtered}), "UPSTREAM_REJECTED", "content_filter"),
    ]
    for provider, api, raw, reason, code in cases:
        send(raw)
        speaks = {"speaks": ["responses", "completions"]} if provider == "openai" else {}
        with pytest.raises(DispatchError, match="It says: it failed") as caught:
            await stream(upstream, asked(provider, url, **speaks), api)
        assert (caught.value.reason, caught.value.provider_code) == (reason, code)


async def test_streams_of_the_other_formats_are_whole_with_anything_in_them(upstream: Upstream, url: str) -> None:
    message = [
        data({"type": "ping"}, "ping"),
        data({"type": "message_start", "message": {"id": "m", "role": "assistant", "content": []}}, "message_start"),
        b": hi\n\nid: 1\n\n" + data(b"null"),
        data({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "forty-two"}}),
    ]
    ends = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}}
    for end in (data(ends) + data(b"{nope"), data({"type": "message_stop"}, "message_stop")):
        send(*message, end)
        events = await stream(upstream, asked("anthropic", url), ApiFormat.ANTHROPIC_MESSAGES)
        assert "forty-two" in json.dumps(events)
    whole = {"id": "r", "object": "response", "output": [], "status": "completed"}
    send(
        data({"type": "response.created", "response": whole}) + b": hi\n\n",
        data({"type": "response.output_text.delta", "delta": "forty-two"}),
        data({"type": "response.completed", "response": whole}) + b"data: {nope",
    )
    speaks = asked("openai", url, speaks=["responses", "completions"])
    assert len(await stream(upstream, speaks, ApiFormat.OPENAI_RESPONSES)) == 3
    words = [{"choices": [{"index": 0, "text": text, "finish_reason": None}]} for text in ("forty-", "two")]
    send(*map(data, words), data({"choices": None, "usage": real.USAGE}), real.DONE)
    chunks = await stream(upstream, speaks, ApiFormat.OPENAI_COMPLETIONS)
    assert "".join(choice["text"] for one in chunks for choice in one["choices"]) == "forty-two"


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_the_rate_limits_that_an_answer_tells_are_noted(upstream: Upstream, url: str, provider: str) -> None:
    send(real.TEXT + real.STOP)
    notes = CallNotes()
    async for _ in upstream.stream(asked(provider, url), RouteQuery.from_prompt("hi"), notes):
        pass
    assert (notes.rate_limits, notes.waits) == ({"x-ratelimit-remaining-requests": "7"}, {"retry-after": "9"})
    head = [(b"Anthropic-RateLimit-Tokens-Limit", b"5"), (b"x-ratelimit-odd", b"\xff"), (b"x-request-id", b"1")]
    notes.note_head([*head, *((b"x-ratelimit-%d" % n, b"1") for n in range(100)), (b"x-ratelimit-long", b"1" * 300)])
    assert notes.rate_limits["anthropic-ratelimit-tokens-limit"] == "5"
    assert len(notes.rate_limits) == 40
    assert not {"x-ratelimit-odd", "x-request-id", "x-ratelimit-long"} & notes.rate_limits.keys()


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("kind", ["application/json", "text/event-stream", "text/plain; charset=utf-8"])
async def test_an_answer_in_one_piece_arrives_where_a_stream_was_asked_for(
    upstream: Upstream, url: str, provider: str, kind: str
) -> None:
    body = json.dumps(faults.answer()).encode()
    pretty = json.dumps(faults.answer(), indent=2).encode()
    # Networks cut anywhere, and some upstreams send white space while they work on the answer.
    cuts: list[list[Step]] = [[body[:cut], PAUSE, body[cut:]] for cut in (1, 3, len(body) // 2)]
    slow: list[Step] = [b"\xef\xbb", PAUSE, b"\xbf \r\n", PAUSE, b"\n", PAUSE, body]
    for steps in ([body], *cuts, slow, [pretty[:2], PAUSE, pretty[2:9], PAUSE, pretty[9:]]):
        send(*steps, kind=kind)
        chunks = await stream(upstream, asked(provider, url))
        assert text_of(chunks) == "forty-two"
        assert chunks[-1]["usage"]["completion_tokens"] > 0


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("kind", ["application/json", "text/event-stream"])
async def test_an_error_in_one_piece_is_told_wherever_it_is_cut(
    upstream: Upstream, url: str, provider: str, kind: str
) -> None:
    body = json.dumps({"error": {"message": "the card fell out", "code": "card"}}).encode()
    for cut in (1, 5, len(body) - 1):
        send(body[:cut], PAUSE, body[cut:], kind=kind)
        with pytest.raises(DispatchError, match="the card fell out"):
            await stream(upstream, asked(provider, url))


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("order", ["mixed", "one after the other"])
async def test_several_choices_arrive_and_each_says_why_it_ended(
    upstream: Upstream, url: str, provider: str, order: str
) -> None:
    first = [chunk({"role": "assistant", "content": "a"}), chunk({}, "stop")]
    second = [chunk({"content": "b"}, index=1), chunk({}, "length", index=1)]
    mixed = [first[0], second[0], first[1], second[1]]
    send(*map(data, mixed if order == "mixed" else [*first, *second]), data(b"[DONE]"))
    chunks = await stream(upstream, asked(provider, url))
    ended = [choice["index"] for one in chunks for choice in one["choices"] if choice.get("finish_reason")]
    assert sorted(ended) == [0, 1]
    assert text_of(chunks) == "ab"
    # Of two choices one ended.
    send(*map(data, mixed[:3]))
    with pytest.raises(UpstreamUnavailableError):
        await stream(upstream, asked(provider, url))


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_an_event_that_is_called_an_error_is_one(upstream: Upstream, url: str, provider: str) -> None:
    for said in ({"message": "the card fell out", "code": "card"}, {"error": {"message": "the card fell out"}}):
        send(data(chunk({"content": "a"})), data(said, "error"))
        with pytest.raises(DispatchError, match="the card fell out"):
            await stream(upstream, asked(provider, url))


async def test_an_answer_that_litellm_cannot_read_has_no_status(upstream: Upstream, url: str) -> None:
    send(json.dumps({"nonsense": 1}).encode(), kind="application/json")
    with pytest.raises(UpstreamUnavailableError) as caught:
        await upstream.complete(asked("anthropic", url), RouteQuery.from_prompt("hi"))
    assert caught.value.http_status is None
