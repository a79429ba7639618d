"""One chat completion over HTTP: read the body, decide, and send the answer whole or as events."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from router.answering.completion import Completion
from router.answering.dispatch import Dispatcher
from router.asking.session_ids import caller_of
from router.attempts import Delivery
from router.deciding.pipeline import Router
from router.errors import InvalidRequestError
from router.gateways.http_request import (
    ClientDisconnectedError,
    Receive,
    Scope,
    read_body,
    timeout_of,
    while_connected,
)
from router.gateways.openai_body import ChatBody, query_from_body
from router.gateways.openai_format import RECORD_FIELD, decision_record
from router.gateways.openai_reply import JSON_HEADERS, HttpReply, Send
from router.intake.bounds import SMALL_BYTES, forget_frames
from router.intake.in_flight import InFlight
from router.quoting import quoted
from router.values import RouteQuery, RoutingDecision


@dataclass(frozen=True, slots=True)
class Engine:
    """The parts of the service that a chat needs: the router decides it, the dispatcher gets the answer.

    `in_flight` tracks the chat until it has been answered.
    """

    router: Router
    dispatcher: Dispatcher
    in_flight: InFlight


class ChatEndpoint:
    """Answers chat completions over HTTP, as an ASGI endpoint.

    Args:
        engine: returns the engine, or raises NotReadyError while the service is still loading.
        max_body_bytes: longer bodies are refused.
    """

    def __init__(self, engine: Callable[[], Engine], *, max_body_bytes: int) -> None:
        self._engine = engine
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request. If its client disconnects, the call of the upstream is cancelled too."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        reply = HttpReply(send)
        with contextlib.suppress(ClientDisconnectedError):
            try:
                engine = self._engine()
                timeout_s = timeout_of(headers)
                deadline = None if timeout_s is None else time.monotonic() + timeout_s
                with engine.in_flight.track(), engine.router.intake.hold_bytes() as held:
                    chunks = await read_body(receive, headers, self._max_body_bytes, held)
                    # Over HTTP/1.1 each call that is open has a connection of its own, so only hosts are told apart.
                    host, _ = scope.get("client") or ("", 0)
                    whose = {"caller": caller_of(headers), "connection": f"{host}:"}
                    chat = _Chat(engine, headers, whose, deadline, reply)
                    await while_connected(receive, chat.answer(chunks))
            except ClientDisconnectedError:
                raise
            except Exception as error:
                await reply.fail(error)
                forget_frames(error)


@dataclass(frozen=True, slots=True)
class _Chat:
    """Takes one chat from its body to its answer.

    Attributes:
        engine: what decides and answers.
        headers: the headers of the request.
        whose: the arguments `caller` and `connection` of `Router.adecide`.
        deadline: the time by the monotonic clock; None if there is none.
        reply: sends the answer.
    """

    engine: Engine
    headers: Mapping[str, str]
    whose: Mapping[str, str]
    deadline: float | None
    reply: HttpReply

    @property
    def remaining_s(self) -> float | None:
        return None if self.deadline is None else self.deadline - time.monotonic()

    async def answer(self, chunks: Sequence[bytes]) -> None:
        """Decide and answer the chat whose body these chunks are."""
        router, large = self.engine.router, sum(map(len, chunks)) > SMALL_BYTES
        query, is_streamed = await router.intake.run_in_thread(self._parse, chunks) if large else self._parse(chunks)
        decision = await router.adecide(query, **self.whose, timeout_s=self.remaining_s, large=large)
        self.reply.decision = decision
        await (self._stream if is_streamed else self._complete)(query, decision)

    def _parse(self, chunks: Sequence[bytes]) -> tuple[RouteQuery, bool]:
        """Return the query of a body, and whether its answer is to be streamed."""
        router = self.engine.router
        body = ChatBody.parse(b"".join(chunks), max_text_bytes=router.max_prompt_bytes)
        is_streamed = body.fields.get("stream")
        if is_streamed is not None and not isinstance(is_streamed, bool):
            raise InvalidRequestError(f"stream must be true or false, got {quoted(is_streamed)}.", field="stream")
        query = query_from_body(body.fields, self.headers, router.policies)
        return replace(query, body=body.around_model), bool(is_streamed)

    async def _complete(self, query: RouteQuery, decision: RoutingDecision) -> None:
        completion = await self.engine.dispatcher.complete(query, decision, timeout_s=self.remaining_s)
        record = self._record(decision, completion.delivery)
        await self.reply.whole(200, JSON_HEADERS, {**completion.body, RECORD_FIELD: record | _cost(completion)})

    async def _stream(self, query: RouteQuery, decision: RoutingDecision) -> None:
        record: dict[str, Any] = {}
        stream = self.engine.dispatcher.stream(query, decision, timeout_s=self.remaining_s)
        async with contextlib.aclosing(stream) as steps:
            async for step in steps:
                if step.delivery is not None:
                    record = self._record(decision, step.delivery)
                    await self.reply.begin_events()
                await self.reply.event({**step.body, RECORD_FIELD: record | _cost(step)})
                if step.delivery is not None:
                    # The list of attempts may be long, so only the first event carries it.
                    record = {key: value for key, value in record.items() if key != "attempts"}
        await self.reply.end_events()

    def _record(self, decision: RoutingDecision, delivery: Delivery | None) -> dict[str, Any]:
        """Return the decision record, and remember who answered for the headers and for the session."""
        self.reply.delivery = delivery
        if delivery is not None and delivery.fell_back:
            self.engine.router.remember_answer(decision, delivery.answered_by, caller=self.whose["caller"])
        return decision_record(decision, delivery)


def _cost(completion: Completion) -> dict[str, float]:
    usage = completion.usage
    return {} if usage is None or usage.cost_usd is None else {"cost_usd": usage.cost_usd}
