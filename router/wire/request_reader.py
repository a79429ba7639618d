"""Read gRPC requests within bounds: on time, on bytes, and on the number of fields before a message is decoded."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any, TypeAlias

import grpc.aio
from google.protobuf.message import DecodeError

from router.errors import DeadlineError, InvalidRequestError, OverloadedError
from router.intake.bounds import RETRY_S, SMALL_BYTES, HeldBytes, Intake
from router.intake.protobuf_structure import check_fields, shape_of
from router.wire.turns import Turns

#: Seconds within which a whole request must arrive; the second limit holds while too many requests are arriving.
ARRIVAL_S, ARRIVAL_WHEN_BUSY_S = 30.0, 2.0

#: Number of requests that may be arriving at a time. If there are more, the slowest one is refused.
MAX_ARRIVING = 64

#: A request that has been arriving for fewer seconds than this is never refused as the slowest one.
SLOW_S = 1.0

#: A call that has at most this many seconds left is over: the caller ends it by its own clock.
_DEADLINE_SLACK_S = 0.05

#: A request of at most this many bytes, or of at most this many fields, is decoded in the event loop: that takes less
#: time than handing it to a thread.
TINY_BYTES, _FEW_FIELDS = 4096, 2000

#: Whether the current request is large. Work on a large request belongs into the thread for large requests.
is_large: contextvars.ContextVar[bool] = contextvars.ContextVar("is_large", default=False)


Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


def text_headers(context: Context) -> dict[str, str]:
    """Return the metadata of a call that is text, by name. gRPC has names in lower case."""
    return {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}


class RequestDecoder:
    """Decodes the requests of one gRPC method.

    Args:
        parse: the function that generated code uses to parse a request, `FromString` of the message's class.
    """

    def __init__(self, parse: Callable[[bytes], Any]) -> None:
        self._parse = parse
        message = getattr(parse, "__self__", None)
        self._shape = shape_of(message.DESCRIPTOR) if message is not None else {}

    def is_large(self, data: bytes) -> bool:
        """Return whether this message must be decoded in the thread for large requests."""
        if not TINY_BYTES < len(data) <= SMALL_BYTES:
            return len(data) > SMALL_BYTES
        # A small message of thousands of fields takes as long as a large one.
        try:
            check_fields(data, self._shape, max_fields=_FEW_FIELDS)
        except InvalidRequestError:
            return True
        return False

    def decode(self, data: bytes) -> Any:
        """Decode one protobuf message and return it.

        Raises InvalidRequestError if it is malformed or has too many fields.
        """
        if len(data) > TINY_BYTES:
            check_fields(data, self._shape)
        try:
            return self._parse(data)
        except (DecodeError, UnicodeDecodeError) as error:
            raise InvalidRequestError(
                "the request must be a valid protobuf message whose strings are valid UTF-8; it could not be parsed."
            ) from error


class RequestReader:
    """Reads and decodes the requests of all gRPC methods. It belongs to one event loop.

    Args:
        intake: the bounds that all doors of the process share; None for bounds of its own.
        on_oversized: is called for each message that grpc refuses because it is too long. grpc does not say
            so to us but ends the call. A caller who hangs up before the message is whole looks the same and counts too.
    """

    def __init__(self, intake: Intake | None = None, on_oversized: Callable[[], None] = lambda: None) -> None:
        self._intake = intake or Intake()
        self._on_oversized = on_oversized
        #: When each request that is arriving began, oldest first. A request is known by its time limit.
        self._started_at: dict[asyncio.Timeout, float] = {}
        self._turns = Turns()

    def read_one(self, requests: AsyncIterator[bytes], context: Context, decoder: RequestDecoder) -> OneRequest:
        """Return a context that reads and decodes the single message of a call."""
        # `requests` would keep a reference to the bytes for the whole call; the context of the call does not.
        return OneRequest(self, context, decoder)

    async def decoded(self, context: Context, decoder: RequestDecoder, held: HeldBytes) -> Any:
        """Read the single message of a call and return it decoded.

        held: counts its bytes.

        Raises InvalidRequestError, DeadlineError or OverloadedError.
        """
        self._intake.n_arriving += 1
        try:
            data = await self._read_in_time(context)
            held.add(len(data))
            await self._turns.wait(context.peer())
        finally:
            self._intake.n_arriving -= 1
        large = decoder.is_large(data)
        is_large.set(large)
        return await self._intake.run_in_thread(decoder.decode, data) if large else decoder.decode(data)

    def hold_bytes(self) -> HeldBytes:
        """Return an account of the bytes of one request."""
        return self._intake.hold_bytes()

    @contextlib.asynccontextmanager
    async def read_many(
        self, requests: AsyncIterator[bytes], context: Context, decoder: RequestDecoder
    ) -> AsyncIterator[AsyncIterator[Any]]:
        """Yield an iterator over the messages of a streaming call. Each message is decoded when it is asked for."""

        async def decoded() -> AsyncGenerator[Any, None]:
            data = await self._first(requests, context)
            # That a later message is too long cannot be told from the end of the call.
            while data is not None:
                with self._intake.hold_bytes() as held:
                    held.add(len(data))
                    yield (
                        await self._intake.run_in_thread(decoder.decode, data)
                        if decoder.is_large(data)
                        else decoder.decode(data)
                    )
                data = await anext(requests, None)

        async with contextlib.aclosing(decoded()) as messages:
            yield messages

    async def _first(self, requests: AsyncIterator[bytes], context: Context) -> bytes | None:
        """Return the first message of a streaming call, or None if the call ends without one."""
        try:
            data = await anext(requests, None)
        except asyncio.CancelledError:
            self._note_no_message(context)
            raise
        if data is None:
            self._note_no_message(context)
        return data

    def _note_no_message(self, context: Context) -> None:
        """Count a call without a message as oversized, unless the caller's own deadline ended it."""
        remaining_s = context.time_remaining()
        if remaining_s is None or remaining_s > _DEADLINE_SLACK_S:
            self._on_oversized()

    async def _read_in_time(self, context: Context) -> bytes:
        now = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout_at(now + self._make_room(now)) as limit:
                self._started_at[limit] = now
                try:
                    data: Any = await context.read()
                finally:
                    self._started_at.pop(limit, None)
        except asyncio.CancelledError:
            # grpc ends the call of a message that is too long, and this can reach us before the end of the messages.
            self._note_no_message(context)
            raise
        except TimeoutError:
            if len(self._started_at) >= MAX_ARRIVING:
                raise OverloadedError(
                    f"at least {MAX_ARRIVING} requests are arriving at the same time, and this one was among the "
                    f"slowest; try again later.",
                    retry_after_s=RETRY_S,
                ) from None
            raise DeadlineError(
                f"the request must arrive whole within {ARRIVAL_S:.0f} s, and it did not; send it faster."
            ) from None
        if data is grpc.aio.EOF:
            # This is also what we see of a message that is too long, whose sender grpc has answered already. Nobody
            # else sends nothing.
            self._note_no_message(context)
            raise InvalidRequestError("the call must hold one message, got none.")
        message: bytes = data
        return message

    def _make_room(self, now: float) -> float:
        """Return the seconds within which a request must arrive that begins to arrive now."""
        if len(self._started_at) < MAX_ARRIVING:
            return ARRIVAL_S
        # Callers who send a byte at a time must not keep others out: the slowest one makes room.
        slowest, started_at = next(iter(self._started_at.items()))
        if now - started_at > SLOW_S:
            del self._started_at[slowest]
            slowest.reschedule(now)
        return ARRIVAL_WHEN_BUSY_S


class OneRequest:
    """Reads and decodes the single message of a call. Its bytes count against the budget while the context lasts.

    `contextlib` would make the same of a generator, in several times the time.
    """

    def __init__(self, reader: RequestReader, context: Context, decoder: RequestDecoder) -> None:
        self._reader, self._context, self._decoder = reader, context, decoder
        self._held = reader.hold_bytes()

    async def __aenter__(self) -> Any:
        try:
            return await self._reader.decoded(self._context, self._decoder, self._held)
        except BaseException:
            self._held.give_back()
            raise

    async def __aexit__(self, *failure: object) -> None:
        self._held.give_back()
