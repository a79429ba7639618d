"""Chunks of chats are mended for clients, and completed for translations; an answer in one piece is a stream of one."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import pytest

from router.answering.formats.chat_chunks import answer_to_translate, chat_mender, chunk_of, ready_to_translate

HEAD = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}


def chunk(delta: dict[str, Any] | None, reason: str | None = None, index: int = 0, **more: Any) -> dict[str, Any]:
    return {**HEAD, "choices": [{"index": index, "delta": delta, "finish_reason": reason}], **more}


def call(arguments: str, **more: Any) -> dict[str, Any]:
    return {"function": {"arguments": arguments}, **more}


def indexes(*deltas: list[dict[str, Any]], choices: tuple[int, ...] = ()) -> list[list[int]]:
    mend = chat_mender()
    numbers = choices or (0,) * len(deltas)
    mended = [mend(chunk({"tool_calls": delta}, index=at)) for delta, at in zip(deltas, numbers, strict=True)]
    return [[one["index"] for one in body["choices"][0]["delta"]["tool_calls"]] for body in mended]


def test_every_part_of_a_call_has_the_index_of_its_call() -> None:
    assert indexes([call("{", id="a")], [call("}")], [call("{", id="b")], [call("}")]) == [[0], [0], [1], [1]]
    assert indexes([call("{}", id="a"), call("{}", id="b")], [call("", id="a")]) == [[0, 1], [0]]
    assert indexes([call("{", id="a", index=None)], [call("}", id="a")]) == [[0], [0]]
    assert indexes([call("{", id="a", index=0)], [call("}", index=0)], [call("{}", id="b", index=1)]) == [[0], [0], [1]]
    assert indexes([call("{}", id="a")], [call("{}", id="b")], choices=(0, 1)) == [[0], [0]]
    assert indexes([call("{}")]) == [[0]]


def test_a_chunk_that_lacks_nothing_is_the_same_object() -> None:
    mend = chat_mender()
    for whole in (chunk({"content": "a"}), chunk({}, "stop"), chunk(None), {**HEAD, "choices": []}):
        assert mend(whole) is whole
    assert mend(HEAD | {"usage": {}})["choices"] == []


async def _ready(*chunks: dict[str, Any]) -> list[dict[str, Any]]:
    async def stream() -> AsyncGenerator[dict[str, Any], None]:
        for one in chunks:
            yield one

    return [one async for one in ready_to_translate(stream(), "m")]


@pytest.mark.parametrize(
    ("chunks", "reasons"),
    [
        ([chunk({"content": "a"}), chunk({}, "stop")], [None, "stop"]),
        ([chunk({"content": "a"})], [None, "stop"]),
        ([chunk({"content": "a"}, ""), chunk({}, "null")], ["", "null", "stop"]),
        ([chunk({"tool_calls": [call("{}", id="a")]}), chunk({}, "stop")], [None, "tool_calls"]),
        ([chunk({"tool_calls": [call("{}", id="a")]})], [None, "tool_calls"]),
        ([chunk({"tool_calls": [call("{}", id="a")]}), chunk({}, "length")], [None, "length"]),
        ([chunk({}, "content_filter"), {**HEAD, "choices": None, "usage": {}}], ["content_filter"]),
    ],
)
async def test_a_stream_that_is_translated_says_why_it_ended(chunks: list[dict[str, Any]], reasons: list[Any]) -> None:
    ready = await _ready(*chunks)
    assert [choice["finish_reason"] for one in ready for choice in one["choices"]] == reasons


async def test_what_is_missing_is_filled_in_and_parts_become_text() -> None:
    parts = [{"type": "text", "text": "forty-"}, {"type": "thinking"}, {"type": "text", "text": "two"}]
    odd = chunk({"content": parts}, "stop") | {"id": None, "created": 1.5, "model": None}
    (ready,) = await _ready(odd)
    assert (ready["id"], ready["created"], ready["model"]) == ("chatcmpl", 1, "m")
    assert ready["choices"][0]["delta"]["content"] == "forty-two"
    whole = {"choices": [{"message": {"content": parts, "tool_calls": [call("{}")]}, "finish_reason": "stop"}]}
    answer = answer_to_translate(whole, "m")
    assert answer["choices"][0]["message"]["content"] == "forty-two"
    assert answer["choices"][0]["finish_reason"] == "tool_calls"


def test_an_answer_in_one_piece_is_a_chunk() -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
    answer = {"id": "c", "object": "chat.completion", "choices": [choice], "usage": {"prompt_tokens": 1}}
    assert chunk_of(answer) == {
        "id": "c",
        "object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": choice["message"], "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1},
    }
    for other in ({"error": {}}, None, [], {"choices": "x"}, {"choices": [3]}):
        assert chunk_of(other) == other
