"""Take one HTTP request of an API from its body to its reply (`Endpoint`), whatever the reply is made of."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from router.answering.dispatch import Dispatcher
from router.deciding.pipeline import Router
from router.errors import InvalidRequestError, RequestTooLargeError
from router.feedback.desk import FeedbackDesk
from router.gateways.http.http_api import HttpApi
from router.gateways.http.http_reply import HttpReply, Send
from router.gateways.http.http_request import (
    ClientDisconnectedError,
    Receive,
    Scope,
    read_body,
    timeout_of,
    while_connected,
)
from router.gateways.http.request_body import ChatBody, query_from_body
from router.identity.principal import caller_key
from router.intake.bounds import SMALL_BYTES, forget_frames
from router.intake.in_flight import InFlight
from router.quoting import quoted
from router.values import RouteQuery
from router.wire.turns import Turns

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Engine:
    """The parts of the service that a request needs: the router decides it, the dispatcher gets the answer.

    `in_flight` tracks the request until it has been answered. After `comment_after_s` seconds of silence a client that
    waits for a stream gets a comment; 0 sends none. `desk` takes feedback; None if there is no ledger. By `turns`
    requests begin one in each pass of the event loop, and hosts take turns.
    """

    router: Router
    dispatcher: Dispatcher
    in_flight: InFlight
    comment_after_s: float = 0.0
    desk: FeedbackDesk | None = None
    turns: Turns = field(default_factory=Turns)


@dataclass(frozen=True, slots=True)
class Exchange:
    """Holds one HTTP request and the reply to it.

    Attributes:
        engine: what decides and answers.
        api: the API in whose format the request came.
        headers: the headers of the request, with names in lower case.
        whose: the arguments `caller` and `connection` of `Router.adecide`.
        deadline: the time by the monotonic clock; None if there is none.
        reply: sends the answer.
        model: the model that the path names; empty if the body does.
        method: the method of the request.
        path: its path.
        query_string: what follows the question mark of its URL.
    """

    engine: Engine
    api: HttpApi
    headers: Mapping[str, str]
    whose: Mapping[str, Any]
    deadline: float | None
    reply: HttpReply
    model: str = ""
    method: str = "POST"
    path: str = ""
    query_string: bytes = b""

    @property
    def remaining_s(self) -> float | None:
        """The seconds until the caller's deadline, or None if there is none."""
        return None if self.deadline is None else self.deadline - time.monotonic()

    async def read(self, chunks: Sequence[bytes]) -> tuple[RouteQuery, bool]:
        """Return the query of a chat body, and whether its answer is to be streamed. Raises InvalidRequestError."""
        return await self._apart_if_large(chunks, self._parse_chat)

    async def read_as(self, chunks: Sequence[bytes], read: Callable[[Mapping[str, Any]], T]) -> T:
        """Return what `read` makes of the fields of a body. Raises InvalidRequestError, and what `read` raises."""
        return await self._apart_if_large(chunks, lambda chunks: read(self._parse(chunks).fields))

    async def _apart_if_large(self, chunks: Sequence[bytes], job: Callable[[Sequence[bytes]], T]) -> T:
        if is_large_body(chunks):
            return await self.engine.router.intake.run_in_thread(job, chunks)
        return job(chunks)

    def _parse(self, chunks: Sequence[bytes]) -> ChatBody:
        body = ChatBody.parse(b"".join(chunks), max_text_bytes=self.engine.router.max_prompt_bytes)
        return body.named(self.model) if self.model else body

    def _parse_chat(self, chunks: Sequence[bytes]) -> tuple[RouteQuery, bool]:
        body = self._parse(chunks)
        is_streamed = body.fields.get("stream")
        if is_streamed is not None and not isinstance(is_streamed, bool):
            raise InvalidRequestError(f"stream must be true or false, got {quoted(is_streamed)}.", field="stream")
        query = query_from_body(body.fields, self.headers, self.engine.router.policies, self.api.api_format)
        passed = {name: self.headers[name] for name in self.api.passed_headers if name in self.headers}
        query = replace(query, body=body.written, api_headers=passed)
        return query, bool(is_streamed)


#: Answers a request, given its exchange and the chunks of its body.
Answer = Callable[[Exchange, Sequence[bytes]], Awaitable[None]]


class Endpoint:
    """Answers requests of one API over HTTP, as an ASGI endpoint.

    Args:
        engine: returns the engine, or raises NotReadyError while the service is still loading.
        api: the API, such as `OPENAI_FORMAT`.
        answer: what to do with a request whose body has arrived.
        max_body_bytes: longer bodies are refused; None reads no body.
        admit: is called with the headers of each request before anything else of it is read, and raises the error of a
            caller who may not use this endpoint.
        on_oversized: is called for each body that is too long.
    """

    def __init__(
        self,
        engine: Callable[[], Engine],
        api: HttpApi,
        answer: Answer,
        *,
        max_body_bytes: int | None,
        admit: Callable[[Mapping[str, str]], None],
        on_oversized: Callable[[], None],
    ) -> None:
        self._engine = engine
        self._admit, self._on_oversized = admit, on_oversized
        self._api = api
        self._answer = answer
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request. If its client disconnects, the call of the upstream is cancelled too."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        reply = HttpReply(send, self._api)
        with contextlib.suppress(ClientDisconnectedError):
            try:
                self._admit(headers)
                engine = self._engine()
                timeout_s = timeout_of(headers)
                deadline = None if timeout_s is None else time.monotonic() + timeout_s
                with engine.in_flight.track(), engine.router.intake.hold_bytes() as held:
                    chunks: list[bytes] = []
                    if self._max_body_bytes is not None:
                        chunks = await read_body(receive, headers, self._max_body_bytes, held)
                    # Over HTTP/1.1 each call that is open has a connection of its own, so only hosts are told apart.
                    host, _ = scope.get("client") or ("", 0)
                    whose = {"caller": caller_key(headers), "connection": f"{host}:"}
                    await engine.turns.wait(whose["connection"])
                    model = scope.get("path_params", {}).get("model", "")
                    url = scope["method"], scope["path"], scope["query_string"]
                    exchange = Exchange(engine, self._api, headers, whose, deadline, reply, model, *url)
                    await while_connected(receive, self._run(exchange, chunks))
            except ClientDisconnectedError:
                raise
            except Exception as error:
                if isinstance(error, RequestTooLargeError):
                    self._on_oversized()
                await reply.fail(error)
                forget_frames(error)

    async def _run(self, exchange: Exchange, chunks: Sequence[bytes]) -> None:
        await self._answer(exchange, chunks)


def is_large_body(chunks: Sequence[bytes]) -> bool:
    """Return whether a body is so large that it is decoded and judged apart from the event loop."""
    return sum(map(len, chunks)) > SMALL_BYTES
