"""A gRPC request on its way in: whole in time, within the budget, its fields counted before it is decoded."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, TypeAlias

import grpc.aio
from google.protobuf.message import DecodeError

from router.errors import DeadlineError, InvalidRequestError, OverloadedError
from router.intake.bounds import RETRY_S, SMALL_BYTES, Intake
from router.intake.protobuf_structure import check_fields, shape_of

#: Seconds until a request must have come whole, and where too many are on their way.
WHOLE_S, WHOLE_WHEN_BUSY_S = 30.0, 2.0

#: Requests that may be on their way in. Where there are more, the slowest is refused.
MAX_ARRIVING = 64

#: A request is not refused for being the slowest before it has taken so many seconds.
SLOW_S = 1.0

#: Bytes and fields of a request up to which it is decoded where it arrives.
_TINY_BYTES, _FEW_FIELDS = 4096, 2000

#: Whether the request that is answered here is large: what is done with it then belongs into the thread for such.
is_large: contextvars.ContextVar[bool] = contextvars.ContextVar("is_large", default=False)


Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class Decoder:
    """How the requests of one method are decoded.

    Args:
        parse: what generated code takes for that: `FromString` of the message's class.
    """

    def __init__(self, parse: Callable[[bytes], Any]) -> None:
        self._parse = parse
        message = getattr(parse, "__self__", None)
        self._shape = shape_of(message.DESCRIPTOR) if message is not None else {}

    def is_large(self, data: bytes) -> bool:
        """Whether the message belongs into the thread for large ones."""
        if not _TINY_BYTES < len(data) <= SMALL_BYTES:
            return len(data) > SMALL_BYTES
        try:
            check_fields(data, self._shape, max_fields=_FEW_FIELDS)
        except InvalidRequestError:
            return True
        return False

    def decode(self, data: bytes) -> Any:
        """The message. Raises InvalidRequestError for what is none, and for one of too many fields."""
        if len(data) > _TINY_BYTES:
            check_fields(data, self._shape)
        try:
            return self._parse(data)
        except (DecodeError, UnicodeDecodeError) as error:
            raise InvalidRequestError(
                "the request must be a valid protobuf message whose strings are valid UTF-8; it could not be parsed."
            ) from error


class Arrivals:
    """The requests that are on their way in. Used from one event loop."""

    def __init__(self, intake: Intake | None = None) -> None:
        self._intake = intake or Intake()
        #: When each began, in that order.
        self._began: dict[asyncio.Timeout, float] = {}

    @contextlib.asynccontextmanager
    async def one(self, requests: AsyncIterator[bytes], context: Context, decoder: Decoder) -> AsyncIterator[Any]:
        """The one message of a call, decoded; while the context lasts its bytes count.

        Raises InvalidRequestError, DeadlineError or OverloadedError.
        """
        # Not from the iterator, which would hold on to the message.
        data = await self._whole(context.read)
        with self._intake.hold_bytes() as held:
            held.add(len(data))
            large = decoder.is_large(data)
            is_large.set(large)
            request = await self._intake.run_in_thread(decoder.decode, data) if large else decoder.decode(data)
            # Nobody needs both.
            del data
            yield request

    @contextlib.asynccontextmanager
    async def many(
        self, requests: AsyncIterator[bytes], context: Context, decoder: Decoder
    ) -> AsyncIterator[AsyncIterator[Any]]:
        """The messages of a call that streams, each decoded when it is asked for."""

        async def decoded() -> AsyncGenerator[Any, None]:
            async for data in requests:
                with self._intake.hold_bytes() as held:
                    held.add(len(data))
                    yield (
                        await self._intake.run_in_thread(decoder.decode, data)
                        if decoder.is_large(data)
                        else decoder.decode(data)
                    )

        async with contextlib.aclosing(decoded()) as messages:
            yield messages

    async def _whole(self, read: Callable[[], Awaitable[Any]]) -> bytes:
        try:
            async with asyncio.timeout(None) as limit:
                with self._counted(limit):
                    data: Any = await read()
        except TimeoutError:
            if len(self._began) >= MAX_ARRIVING:
                raise OverloadedError(
                    f"{MAX_ARRIVING} requests and more are on their way in, and this one was among the slowest; try "
                    f"again later.",
                    retry_after_s=RETRY_S,
                ) from None
            raise DeadlineError(f"the request must have come whole within {WHOLE_S:.0f} s; it has not.") from None
        if data is grpc.aio.EOF:
            raise InvalidRequestError("the call must hold one message, got none.")
        whole: bytes = data
        return whole

    @contextlib.contextmanager
    def _counted(self, limit: asyncio.Timeout) -> Iterator[None]:
        now = asyncio.get_running_loop().time()
        is_busy = len(self._began) >= MAX_ARRIVING
        limit.reschedule(now + (WHOLE_WHEN_BUSY_S if is_busy else WHOLE_S))
        if is_busy:
            slowest, began = next(iter(self._began.items()))
            if now - began > SLOW_S:
                del self._began[slowest]
                slowest.reschedule(now)
        self._began[limit] = now
        try:
            yield
        finally:
            self._began.pop(limit, None)
