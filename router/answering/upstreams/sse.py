"""Read the data of an upstream's server-sent events in linear time and bounded memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable

from router.errors import UpstreamUnavailableError
from router.intake.answer_budget import HeldAnswer

#: Lines that may come before the data of the next event: comments that keep a connection open, names, empty ones.
MAX_LINES = 10_000

#: A stream may be this many times as long as an answer in one piece: it wraps every few letters in JSON of its own.
STREAM_FACTOR = 16

#: After this many lines others have their turn in the event loop.
_LINES_AT_ONCE = 4096


class _Event:
    """Collects the lines of one server-sent event until the event ends."""

    def __init__(self) -> None:
        self._data: list[bytes] = []
        self._lines = 0

    def take(self, line: bytes) -> bytes | None:
        """Add one line, and return the event's data if the line ends an event that has any, else None."""
        self._lines += 1
        if self._lines > MAX_LINES:
            raise UpstreamUnavailableError(f"the upstream sent {MAX_LINES:,} lines without an event.")
        if not line and not self._data:
            return None
        if not line:
            data, self._data, self._lines = self._data, [], 0
            return b"\n".join(data)
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
        return None


async def data_of_events(
    parts: AsyncIterable[bytes], *, max_bytes: int, held: HeldAnswer
) -> AsyncGenerator[bytes, None]:
    """Yield the data of each server-sent event in a body.

    An event that the end of the stream cuts off is yielded too, as the SDK does.

    Args:
        parts: the body, cut anywhere.
        max_bytes: longest event; the stream may have `STREAM_FACTOR` times as many.

    Raises UpstreamUnavailableError for an event or a stream that is too long.
    """
    event, begun, since_event, total = _Event(), bytearray(), 0, 0
    async for part in parts:
        total, since_event = total + len(part), since_event + len(part)
        held.hold(since_event)
        if since_event > max_bytes or total > max_bytes * STREAM_FACTOR:
            raise too_long(max_bytes if since_event > max_bytes else max_bytes * STREAM_FACTOR)
        begun += part
        # Lines end with LF, CR or CRLF, of which a CR at the end may be half.
        last = max(part.rfind(b"\n"), part.rfind(b"\r", 0, len(part) - 1))
        if last < 0:
            continue
        at = len(begun) - len(part) + last + 1
        lines, begun = bytes(begun[:at]).splitlines(), begun[at:]
        for number, line in enumerate(lines):
            if not line:
                since_event = len(begun)
            if (data := event.take(line)) is not None:
                yield data
            if number % _LINES_AT_ONCE == _LINES_AT_ONCE - 1:
                await asyncio.sleep(0)
    for line in (*bytes(begun).splitlines(), b""):
        if (data := event.take(line)) is not None:
            yield data


def too_long(limit: int) -> UpstreamUnavailableError:
    """Return the error of an answer of more bytes than the limit.

    It does not count against the candidate: what a caller asks for decides how long an answer gets.
    """
    error = UpstreamUnavailableError(
        f"the upstream sent more than {limit:,} bytes, the most that is read of one answer; `max_answer_bytes` of the "
        f"candidate sets it."
    )
    error.counts = False
    return error
