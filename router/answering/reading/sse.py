"""Read server-sent events by the standard, in linear time and bounded memory. This is the one place that does.

https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation is the standard. We keep to
it but for the end of the stream: an event that the end cuts off counts, because some upstreams leave out the last empty
line. Well-kept parsers (httpx-sse, that of the OpenAI SDK) have no bound on a line, and cut lines more often.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from dataclasses import dataclass

from router.answering.reading.call_notes import CallNotes
from router.errors import UpstreamUnavailableError
from router.intake.loop_turns import Pace

#: Lines that may come before the data of the next event: comments that keep a connection open, names, empty ones.
MAX_LINES = 100_000

#: A stream may be this many times as long as an answer in one piece: it wraps every few letters in JSON of its own.
STREAM_FACTOR = 16

#: The data of the event with which OpenAI's streams end.
DONE = b"[DONE]"

#: How much longer reading a line takes than its bytes, and handing on an event, as `Pace` counts work.
LINE_WORK, EVENT_WORK = 256, 16 * 1024

#: Seconds that a stream may stay open after the answer in it is whole; its usage comes in this time.
TAIL_S = 10.0

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

#: What may come before a JSON text.
BLANK = b" \t\r\n" + _BYTE_ORDER_MARK

#: Bytes of white space that are read at most to find out how a body begins.
_MAX_BLANK_BYTES = 4096


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """Holds one event of a stream: its name, which is empty for most events, and its data. Both are usually UTF-8."""

    name: bytes
    data: bytes

    @property
    def is_empty(self) -> bool:
        """True for an event that brings nothing: it has no data, or `null`."""
        return self.data.strip() in {b"", b"null"}

    @property
    def is_ping(self) -> bool:
        """True for an event that only says that the upstream is alive."""
        return self.name == b"ping"

    @property
    def is_error(self) -> bool:
        """True for an event whose name says that it reports an error; its data may be the error object itself."""
        return self.name == b"error"

    @property
    def is_last(self) -> bool:
        """True for the event with which a stream of OpenAI's ends."""
        return self.data.startswith(DONE)

    @property
    def raw(self) -> bytes:
        """The event as a stream holds it, for readers that know one line of data only: in JSON line ends are space."""
        named = b"event: %b\n" % self.name if self.name else b""
        return named + b"data: %b\n\n" % self.data.replace(b"\n", b" ")


class _Lines:
    """Cuts a body into lines, which end with LF, CR or CRLF, wherever the body is cut into parts."""

    def __init__(self) -> None:
        self._begun = bytearray()
        self._is_after_cr = False
        self._is_first = True

    def feed(self, part: bytes) -> list[bytes]:
        """Take the next part of the body, and return the lines that end in it."""
        if self._is_after_cr and part:
            # The LF of a CRLF that was cut in two.
            part = part.removeprefix(b"\n")
            self._is_after_cr = False
        end = max(part.rfind(b"\n"), part.rfind(b"\r")) + 1
        self._is_after_cr = self._is_after_cr or (end > 0 and part.endswith(b"\r"))
        if not end:
            self._begun += part
            return []
        self._begun += part[:end]
        lines = bytes(self._begun).splitlines()
        self._begun = bytearray(part[end:])
        return self._without_mark(lines)

    def end(self) -> list[bytes]:
        """Return the line that the end of the body cuts off, if there is one."""
        return self._without_mark([bytes(self._begun)]) if self._begun else []

    @property
    def n_begun(self) -> int:
        """The number of bytes of the line that has not ended yet."""
        return len(self._begun)

    def _without_mark(self, lines: list[bytes]) -> list[bytes]:
        if self._is_first:
            self._is_first = False
            lines[0] = lines[0].removeprefix(_BYTE_ORDER_MARK)
        return lines


class _Event:
    """Collects the lines of one event until an empty line ends it."""

    def __init__(self) -> None:
        self._name, self._data, self._n_lines = b"", list[bytes](), 0

    def take(self, line: bytes) -> ServerSentEvent | None:
        """Add one line, and return the event if the line ends one that has data, else None."""
        self._n_lines += 1
        if self._n_lines > MAX_LINES:
            raise UpstreamUnavailableError(f"the upstream sent {MAX_LINES:,} lines without an event.")
        if not line:
            name, data, self._name, self._data = self._name, self._data, b"", []
            if not data:
                return None
            self._n_lines = 0
            return ServerSentEvent(name, b"\n".join(data))
        # A line that begins with a colon is a comment, whose field has no name. `id` and `retry` are for reconnecting.
        field, _, value = line.partition(b":")
        if field == b"data":
            self._data.append(value.removeprefix(b" "))
        elif field == b"event":
            self._name = value.removeprefix(b" ")
        return None


async def events_in(
    parts: AsyncIterable[bytes], *, max_bytes: int, notes: CallNotes
) -> AsyncGenerator[ServerSentEvent, None]:
    """Yield each server-sent event of a body that has data, also the one that the end of the body cuts off.

    Args:
        parts: the body, cut anywhere into small parts.
        max_bytes: longest event; the stream may have `STREAM_FACTOR` times as many.
        notes: where the bytes are counted, and every part is noted as a sign of life.

    Raises UpstreamUnavailableError for an event or a stream that is too long.
    """
    event, lines, since_event, total, pace = _Event(), _Lines(), 0, 0, Pace()
    async for part in parts:
        notes.note_life()
        total, since_event = total + len(part), since_event + len(part)
        notes.held.hold(since_event)
        if since_event > max_bytes or total > max_bytes * STREAM_FACTOR:
            raise too_long(max_bytes if since_event > max_bytes else max_bytes * STREAM_FACTOR)
        for line in lines.feed(part):
            if not line:
                since_event = lines.n_begun
            if (whole := event.take(line)) is not None:
                yield whole
            await pace.worked(LINE_WORK if whole is None else EVENT_WORK)
    for line in (*lines.end(), b""):
        if (whole := event.take(line)) is not None:
            yield whole


async def begin_of(parts: AsyncIterable[bytes], notes: CallNotes) -> tuple[bytes, AsyncGenerator[bytes, None]]:
    """Read a body until it says something, and return the first bytes that do, which may be few, and the whole body.

    A body that begins with `{` is an answer in one piece and no stream of events. A network may cut it anywhere, and
    some upstreams send white space for as long as they work on the answer.
    """
    rest, read, begin = aiter(parts), list[bytes](), b""
    n_blank = 0
    while not begin and n_blank <= _MAX_BLANK_BYTES:
        part = await anext(rest, None)
        if part is None:
            break
        notes.note_life()
        read.append(part)
        n_blank += len(part)
        begin = part.lstrip(BLANK)
    return begin, _joined(read, rest)


async def _joined(read: list[bytes], rest: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    yield b"".join(read)
    async for part in rest:
        yield part


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
