"""An answer whose text is there arrives, whatever other fields its provider leaves out or writes as another type."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from router.answering.formats.lookup import format_of
from router.answering.formats.readable_answers import OpenChoices, readable_answer
from router.answering.reading.call_notes import CallNotes
from router.answering.upstream import Upstream
from router.errors import UpstreamUnavailableError
from router.policies.candidates.candidate import Candidate
from router.serving.http_server import serve_on_loopback
from router.values import ApiFormat, RouteQuery

pytestmark = pytest.mark.asyncio(loop_scope="module")

SAID = "forty-two"
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
HEAD = {"id": "c", "object": "chat.completion", "created": 1, "model": "m"}
CHAT = HEAD | {
    "choices": [{"index": 0, "message": {"role": "assistant", "content": SAID}, "finish_reason": "stop"}],
    "usage": USAGE,
}
CHUNKS = [
    HEAD | {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "forty-"}, "finish_reason": None}]},
    HEAD | {"choices": [{"index": 0, "delta": {"content": "two"}, "finish_reason": None}]},
    HEAD | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    HEAD | {"choices": [], "usage": USAGE},
]
TOKENS = {"input_tokens": 3, "output_tokens": 2}
MESSAGE = {
    **{"id": "m", "type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn"},
    **{"content": [{"type": "text", "text": SAID}], "stop_sequence": None, "usage": TOKENS},
}
EVENTS = [
    {"type": "message_start", "message": MESSAGE | {"content": [], "stop_reason": None}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": SAID}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}},
    {"type": "message_stop"},
]
GEMINI = {
    "candidates": [{"content": {"role": "model", "parts": [{"text": SAID}]}, "finishReason": "STOP", "index": 0}],
    "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 2, "totalTokenCount": 5},
    "modelVersion": "m",
    "responseId": "r",
}
FIELDS: dict[str, tuple[str, ...]] = {
    "chat": ("usage", "prompt_tokens", "id", "object", "created", "model", "index", "finish_reason", "role"),
    "anthropic": ("usage", "input_tokens", "output_tokens", "id", "model", "role", "stop_reason", "index"),
    "gemini": ("usageMetadata", "candidatesTokenCount", "totalTokenCount", "modelVersion", "index", "finishReason"),
}
#: Values of another type than the API says.
WRONG: dict[str, Any] = {"id": 7, "created": "x", "model": 7, "index": "0", "role": 7, "usage": [], "object": 7}
GONE = object()

#: What is changed in the next answers: the name of a field, and its new value.
change: list[Any] = ["", GONE]

#: After how many events the next streams end; None for all, and with 0 the answer comes in one piece.
STREAM: dict[str, int | None] = {"end": None}


def changed(value: Any) -> Any:
    """Return a copy in which the field has its new value wherever it stands, or is gone."""
    name, new = change
    if isinstance(value, list):
        return [changed(one) for one in value]
    if not isinstance(value, dict):
        return value
    kept = {key: changed(one) for key, one in value.items() if key != name or new is not GONE}
    return {key: new if key == name else one for key, one in kept.items()}


async def answer(request: Request) -> Response:
    asked = json.loads(await request.body())
    if "GenerateContent" in request.url.path or "generateContent" in request.url.path:
        whole, events, named = GEMINI, [GEMINI], False
    elif request.url.path.endswith("/messages"):
        whole, events, named = MESSAGE, EVENTS, True
    else:
        whole, events, named = CHAT, CHUNKS, False
    if STREAM["end"] == 0 or (not asked.get("stream") and "streamGenerate" not in request.url.path):
        return JSONResponse(changed(whole))
    heads = [f"event: {event['type']}\n" if named else "" for event in events]
    texts = [f"{head}data: {json.dumps(changed(event))}\n\n" for head, event in zip(heads, events, strict=True)]
    if events is CHUNKS:
        texts.append("data: [DONE]\n\n")
    return StreamingResponse(iter(texts[: STREAM["end"]]), media_type="text/event-stream")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url() -> AsyncIterator[str]:
    async with serve_on_loopback(Starlette(routes=[Route("/{path:path}", answer, methods=["POST"])])) as url:
        yield url


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def upstream() -> AsyncIterator[Upstream]:
    upstream = Upstream(formats=tuple(ApiFormat))
    await upstream.load()
    yield upstream
    await upstream.aclose()


async def answers_of(upstream: Upstream, candidate: Candidate, api: ApiFormat) -> AsyncIterator[tuple[str, bool]]:
    """Yield the text of the whole answer, and that of the stream, each with whether its tokens are known."""
    query = RouteQuery(({"role": "user", "content": "hi"},), api_format=api, parameters={"max_tokens": 9})
    answers, notes = format_of(api), CallNotes()
    body = await upstream.complete(candidate, query, notes)
    yield answers.text_of(body, streamed=False), notes.has_usage and answers.tally()(body) is not None
    notes = CallNotes()
    events = [event async for event in upstream.stream(candidate, query, notes)]
    counts = [answers.tally()(event) for event in events]
    is_counted = notes.has_usage and counts != [None] * len(events)
    yield "".join(answers.text_of(event, streamed=True) for event in events), is_counted


def changes(kind: str) -> Iterator[tuple[str, Any]]:
    for name in FIELDS[kind]:
        yield from ((name, GONE), (name, None))
        if kind == "chat" and name in WRONG and name != "object":
            yield name, WRONG[name]


@pytest.mark.parametrize(
    ("provider", "api"),
    [
        *((name, ApiFormat.OPENAI_CHAT) for name in ("openai", "groq", "databricks", "openrouter", "sambanova")),
        ("openai", ApiFormat.OPENAI_RESPONSES),
        ("openai", ApiFormat.ANTHROPIC_MESSAGES),
        ("anthropic", ApiFormat.OPENAI_CHAT),
        ("gemini", ApiFormat.OPENAI_CHAT),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
async def test_the_text_arrives_whatever_else_is_missing(
    upstream: Upstream, url: str, monkeypatch: pytest.MonkeyPatch, provider: str, api: ApiFormat
) -> None:
    monkeypatch.setenv("SOME_KEY", "key-of-the-loopback-upstream")
    kind = provider if provider in FIELDS else "chat"
    base = f"{url}/v1" if kind == "chat" else url
    candidate = Candidate(name="c", model=f"{provider}/m", api_base=base, api_key_env="SOME_KEY", timeout_s=20)
    for change[:] in changes(kind):
        async for said, is_counted in answers_of(upstream, candidate, api):
            assert said == SAID, change
            # Nobody counted the tokens, and none are made up.
            assert not (is_counted and change[0] in {"usage", "usageMetadata"}), change


@pytest.mark.parametrize("provider", ["sambanova", "databricks", "groq", "hosted_vllm"])
async def test_a_stream_that_is_cut_is_still_an_error(
    upstream: Upstream, url: str, monkeypatch: pytest.MonkeyPatch, provider: str
) -> None:
    monkeypatch.setenv("SOME_KEY", "key-of-the-loopback-upstream")
    monkeypatch.setitem(STREAM, "end", 2)
    change[:] = ["", GONE]
    candidate = Candidate(name="c", model=f"{provider}/m", api_base=f"{url}/v1", api_key_env="SOME_KEY", timeout_s=20)
    with pytest.raises(UpstreamUnavailableError):
        async for _ in upstream.stream(candidate, RouteQuery(({"role": "user", "content": "hi"},)), CallNotes()):
            pass


@pytest.mark.parametrize("api", [ApiFormat.OPENAI_CHAT, ApiFormat.ANTHROPIC_MESSAGES, ApiFormat.OPENAI_RESPONSES])
@pytest.mark.parametrize("provider", ["anthropic", "openai", "groq"])
async def test_an_answer_in_one_piece_arrives_where_a_stream_was_asked_for(
    upstream: Upstream, url: str, monkeypatch: pytest.MonkeyPatch, provider: str, api: ApiFormat
) -> None:
    monkeypatch.setenv("SOME_KEY", "key-of-the-loopback-upstream")
    monkeypatch.setitem(STREAM, "end", 0)
    change[:] = ["", GONE]
    base = url if provider == "anthropic" else f"{url}/v1"
    candidate = Candidate(name="c", model=f"{provider}/m", api_base=base, api_key_env="SOME_KEY", timeout_s=20)
    async for said, is_counted in answers_of(upstream, candidate, api):
        assert (said, is_counted) == (SAID, True)


async def test_an_answer_that_needs_nothing_is_the_very_same() -> None:
    whole = CHAT | {"service_tier": None}
    assert readable_answer(whole, streamed=False) is whole
    for value in (*CHUNKS, *EVENTS, GEMINI):
        assert readable_answer(value, streamed=True) is value
    for other in (None, 7, [], {}, {"choices": 7}, {"choices": [7]}, {"data": [1]}):
        assert readable_answer(other, streamed=False) is other


async def test_a_stream_is_ended_for_each_choice_that_has_begun() -> None:
    choices = OpenChoices()
    assert choices.end is None
    for index, delta in ((0, {"content": "a"}), (1, {"tool_calls": [{"index": 0}]}), (1, {"content": "b"})):
        choices.note({"choices": [{"index": index, "delta": delta}]})
    end = choices.end
    assert end is not None
    assert [(one["index"], one["finish_reason"]) for one in end["choices"]] == [(0, "stop"), (1, "tool_calls")]
