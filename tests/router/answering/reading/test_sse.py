"""Server-sent events are read by the standard, with its own examples, wherever the stream is cut."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from router.answering.reading import sse
from router.answering.reading.call_notes import CallNotes
from router.answering.reading.sse import ServerSentEvent, events_in
from router.errors import UpstreamUnavailableError

MARK = b"\xef\xbb\xbf"


def read(*parts: bytes, max_bytes: int = 2**20) -> list[tuple[bytes, bytes]]:
    """Return name and data of each event."""

    async def body() -> AsyncIterator[bytes]:
        for part in parts:
            yield part

    async def main() -> list[tuple[bytes, bytes]]:
        found = events_in(body(), max_bytes=max_bytes, notes=CallNotes())
        return [(event.name, event.data) async for event in found]

    return asyncio.run(main())


#: The examples of the standard, https://html.spec.whatwg.org/multipage/server-sent-events.html, and what it says of
#: them. The fifth has no empty line at its end: there we return the event that the standard throws away.
STANDARD = {
    "messages": (
        b"data: This is the first message.\n\n"
        b"data: This is the second message, it\ndata: has two lines.\n\n"
        b"data: This is the third message.\n\n",
        [
            (b"", b"This is the first message."),
            (b"", b"This is the second message, it\nhas two lines."),
            (b"", b"This is the third message."),
        ],
    ),
    "names": (
        b"event: add\ndata: 73857293\n\nevent: remove\ndata: 2153\n\nevent: add\ndata: 113411\n\n",
        [(b"add", b"73857293"), (b"remove", b"2153"), (b"add", b"113411")],
    ),
    "stocks": (b"data: YHOO\ndata: +2\ndata: 10\n\n", [(b"", b"YHOO\n+2\n10")]),
    "comment, id, space": (
        b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
        [(b"", b"first event"), (b"", b"second event"), (b"", b" third event")],
    ),
    "fields without a colon": (b"data\n\ndata\ndata\n\ndata:", [(b"", b""), (b"", b"\n"), (b"", b"")]),
    "one space": (b"data:test\n\ndata: test\n\n", [(b"", b"test"), (b"", b"test")]),
}

MORE = {
    "a mark, at the beginning only": (MARK + b"data: 1\n\n" + MARK + b"data: 2\n\n", [(b"", b"1")]),
    "a mark before a comment": (MARK + b": hi\n\ndata: 1\n\n", [(b"", b"1")]),
    "mixed ends of lines": (
        b"data: 1\r\rdata: 2\r\n\r\ndata: 3\n\rdata: 4\r\n\n",
        [(b"", b"%d" % n) for n in (1, 2, 3, 4)],
    ),
    "CRLF between two lines of data": (b"data: 1\r\ndata: 2\r\n\r\n", [(b"", b"1\n2")]),
    "no empty line at the end": (b"data: 1\n\ndata: [DONE]", [(b"", b"1"), (b"", b"[DONE]")]),
    "no end of the last line": (b"event: a\r\ndata: 1\r\n", [(b"a", b"1")]),
    "a name without data names nothing": (b"event: ping\n\ndata: 1\n\n", [(b"", b"1")]),
    "the last name counts": (b"event: a\nevent: b\ndata: 1\n\n", [(b"b", b"1")]),
    "names of fields are exact": (b"Data: 1\n data: 2\ndata : 3\ndata: 4\n\n", [(b"", b"4")]),
    "colons in data": (b"data: a: b\ndata::c\n\n", [(b"", b"a: b\n:c")]),
    "other characters that end lines elsewhere": (
        "data: a\u2028b\u0085c\x0bd\x0ce\x00\n\n".encode(),
        [(b"", "a\u2028b\u0085c\x0bd\x0ce\x00".encode())],
    ),
    "retry and unknown fields": (b"retry: 5\n\nx: y\nretry: never\ndata: 1\n\n", [(b"", b"1")]),
    "nothing": (b"", []),
    "empty lines": (b"\n\r\n\r\r", []),
}


@pytest.mark.parametrize("name", [*STANDARD, *MORE])
def test_a_stream_is_read_by_the_standard_wherever_it_is_cut(name: str) -> None:
    raw, expected = (STANDARD | MORE)[name]
    assert read(raw) == expected
    assert read(*(raw[at : at + 1] for at in range(len(raw)))) == expected
    for at in range(len(raw)):
        assert read(raw[:at], b"", raw[at:]) == expected, at


def test_an_event_is_there_as_soon_as_its_line_has_ended_also_by_a_cr() -> None:
    async def main() -> None:
        waits = asyncio.Event()

        async def body() -> AsyncIterator[bytes]:
            yield b"data: 1\r\r"
            await waits.wait()
            yield b"\ndata: 2\n\n"

        events = events_in(body(), max_bytes=100, notes=CallNotes())
        assert (await anext(events)).data == b"1"
        waits.set()
        assert [event.data async for event in events] == [b"2"]

    asyncio.run(main())


def test_an_event_is_written_with_its_data_in_one_line() -> None:
    assert ServerSentEvent(b"", b"1").raw == b"data: 1\n\n"
    assert ServerSentEvent(b"a", b'{\n"b": 1}').raw == b'event: a\ndata: { "b": 1}\n\n'


@pytest.mark.parametrize(
    ("event", "is_empty"),
    [
        (ServerSentEvent(b"", b" "), True),
        (ServerSentEvent(b"message", b" null "), True),
        (ServerSentEvent(b"ping", b'{"type": "ping"}'), False),
        (ServerSentEvent(b"", b"{}"), False),
        (ServerSentEvent(b"", b"[DONE]"), False),
    ],
    ids=str,
)
def test_an_event_may_bring_nothing(event: ServerSentEvent, is_empty: bool) -> None:
    assert event.is_empty is is_empty


def test_lines_events_and_streams_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    for endless in ([b"x" * 10] * 20, [b"data: x\n"] * 20, [b":" + b"x" * 101]):
        with pytest.raises(UpstreamUnavailableError, match="more than 100 bytes"):
            read(*endless, max_bytes=100)
    with pytest.raises(UpstreamUnavailableError, match="more than 1,600 bytes"):
        read(*([b"data: x\n\n"] * 200), max_bytes=100)
    monkeypatch.setattr(sse, "MAX_LINES", 50)
    assert len(read(*([b": hi\n\ndata: x\n\n"] * 40))) == 40
    with pytest.raises(UpstreamUnavailableError, match="50 lines without an event"):
        read(*([b": hi\n\n"] * 26))


def test_every_part_is_a_sign_of_life() -> None:
    async def main() -> list[float]:
        notes, seen = CallNotes(), list[float]()

        async def body() -> AsyncIterator[bytes]:
            for part in (b": still here\n", b"id: 1\n", b"data: 1\n\n"):
                notes.alive_at = 0.0
                yield part
                seen.append(notes.alive_at)

        async for _ in events_in(body(), max_bytes=100, notes=notes):
            pass
        return seen

    assert all(at > 0 for at in asyncio.run(main()))
