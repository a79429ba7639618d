"""What upstreams send is read in small parts, between which everybody else in the event loop has their turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from router import plain_json
from router.answering.reading import answer_json, sse
from router.answering.reading.call_notes import CallNotes
from router.answering.reading.large_answers import PIECES_AT_ONCE, Pieces
from router.answering.reading.small_parts import PART_BYTES, in_small_parts
from router.answering.reading.sse import EVENT_WORK, LINE_WORK, events_in
from router.answering.upstreams import litellm_upstream
from router.answering.upstreams.litellm_call import Call
from router.intake.loop_turns import TURN_WORK
from tests.router.intake.test_loop_turns import most_between_two_turns


async def brought(*parts: bytes) -> AsyncIterator[bytes]:
    """Bring the parts of a body without ever waiting, as a buffer that is full does."""
    for part in parts:
        yield part


async def test_a_body_is_handed_on_whole_and_in_small_parts() -> None:
    parts = [bytes([number]) * length for number, length in enumerate((0, 1, PART_BYTES, PART_BYTES + 1, 1_000_000))]
    small = [part async for part in in_small_parts(brought(*parts))]
    assert b"".join(small) == b"".join(parts)
    assert max(map(len, small)) == PART_BYTES
    # What comes in small parts stays as it is.
    assert small[:3] == parts[:3]


async def test_others_have_their_turn_while_a_body_is_read() -> None:
    read: list[int] = []

    async def work() -> None:
        async for _ in in_small_parts(brought(b"x" * (8 * TURN_WORK))):
            read.append(1)

    assert await most_between_two_turns(asyncio.ensure_future(work()), read) <= TURN_WORK // PART_BYTES
    assert len(read) == 8 * TURN_WORK // PART_BYTES


@pytest.mark.parametrize("line", [b"\n", b":\n", b"id: 1\n", b"data: a\n"])
async def test_others_have_their_turn_while_lines_are_read(line: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    take = sse._Event.take

    def watched(event: sse._Event, one: bytes) -> sse.ServerSentEvent | None:
        read.append(1)
        return take(event, one)

    monkeypatch.setattr(sse._Event, "take", watched)

    async def work() -> None:
        parts = in_small_parts(brought(line * 50_000))
        assert len([one async for one in events_in(parts, max_bytes=10**7, notes=CallNotes())]) <= 1

    assert await most_between_two_turns(asyncio.ensure_future(work()), read) <= TURN_WORK // LINE_WORK
    assert len(read) >= 50_000


async def test_others_have_their_turn_while_events_are_read_by_somebody_who_never_waits() -> None:
    read: list[int] = []

    async def work() -> None:
        parts = in_small_parts(brought(b"data: a\n\n" * 5000))
        async for _ in events_in(parts, max_bytes=10**7, notes=CallNotes()):
            read.append(1)

    assert await most_between_two_turns(asyncio.ensure_future(work()), read) <= TURN_WORK // EVENT_WORK
    assert len(read) == 5000


async def test_others_have_their_turn_while_chunks_of_litellm_are_read_by_somebody_who_never_waits() -> None:
    read: list[int] = []

    class Chunks:
        """Stands for LiteLLM's wrapper of a stream that comes faster than it is read."""

        received_finish_reason, intermittent_finish_reason = None, None

        async def __aiter__(self) -> AsyncIterator[Any]:
            for _ in range(500):
                yield SimpleNamespace(model_dump=lambda **_: {"choices": [{"index": 0, "delta": {"content": "a"}}]})

        async def aclose(self) -> None: ...

    async def work() -> None:
        async for _ in litellm_upstream._chunks(Chunks(), Call(10**7, streamed=True)):
            read.append(1)

    most = await most_between_two_turns(asyncio.ensure_future(work()), read)
    assert most <= TURN_WORK // litellm_upstream.CHUNK_WORK
    assert len(read) == 500


def test_the_signs_of_an_answer_are_counted_in_small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []
    signs_in = answer_json.signs_in

    def watched(content: bytes) -> int:
        counted.append(len(content))
        return signs_in(content)

    monkeypatch.setattr(answer_json, "signs_in", watched)
    text = b'["' + b"word  " * 500_000 + b'"]'
    assert answer_json.loads_in_pieces(text) == [text[2:-2].decode()]
    assert sum(counted) == len(text)
    # One count of 64 KB takes half a millisecond, and one of a megabyte 7 ms.
    assert max(counted) <= 64 * 1024


@pytest.mark.parametrize("backwards", [False, True])
def test_many_pieces_are_joined_some_at_a_time(backwards: bool) -> None:
    for number in (0, 1, PIECES_AT_ONCE - 1, PIECES_AT_ONCE, 3 * PIECES_AT_ONCE + 7):
        added, pieces = [b"%d," % one for one in range(number)], Pieces(backwards=backwards)
        for one in added:
            pieces.add(one)
        assert pieces.joined() == b"".join(added[::-1] if backwards else added)
        assert len(pieces._latest) < PIECES_AT_ONCE
        assert len(pieces._blocks) == number // PIECES_AT_ONCE


def test_the_values_of_a_level_are_checked_one_after_the_other() -> None:
    seen: list[int] = []

    class Watched(list[float]):
        def __iter__(self):  # type: ignore[no-untyped-def]
            for number in super().__iter__():
                seen.append(1)
                yield number

    with pytest.raises(plain_json.NotPlainJsonError):
        plain_json.check(Watched([float("inf"), *[0.0] * 1000]))
    assert len(seen) == 1
