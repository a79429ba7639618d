"""Send an HTTP reply in the format of an API: one JSON body, server-sent events, or an error."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from router.answering.reading.large_answers import apart, is_large, json_in_pieces
from router.attempts import Delivery
from router.decision import RoutingDecision
from router.errors import DispatchError, RouterError
from router.gateways.http.decision_format import (
    ERROR_HEADER,
    RECORD_FIELD,
    attempts_record,
    decision_headers,
    decision_record,
    delivery_headers,
)
from router.gateways.http.http_api import HttpApi
from router.wire.statuses import logged_defect

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

JSON_HEADERS = {"content-type": "application/json"}
_EVENT_HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    # Without this header nginx collects events before it passes them on.
    "x-accel-buffering": "no",
}

#: A comment in a stream of events, which every reader of such streams passes over.
_COMMENT = b": waiting\n\n"


class HttpReply:
    """Sends the reply to one request: one JSON body, events, or an error.

    Args:
        send: the channel of the ASGI server.
        api: the API whose format the reply has.

    Attributes:
        decision: the decision, once there is one; the headers describe it.
        delivery: who answered, once somebody has; the headers name them.
    """

    def __init__(self, send: Send, api: HttpApi) -> None:
        self._send = send
        self._api = api
        self._is_streaming = False
        self._sending = asyncio.Lock()
        self._n_events = 0
        self._sent_at = 0.0
        self.decision: RoutingDecision | None = None
        self.delivery: Delivery | None = None

    async def whole(self, status: int, headers: Mapping[str, str], body: Mapping[str, Any]) -> None:
        """Send a reply with one JSON body."""
        raw = await _answer_to_json(body)
        await self._send_head(status, {**headers, "content-length": str(len(raw))})
        await self._send({"type": "http.response.body", "body": raw})

    async def event(self, body: Mapping[str, Any]) -> None:
        """Send one server-sent event with this JSON body; before the first one the head of the reply is sent."""
        raw = self._api.event(body, await _answer_to_json(body))
        self._n_events += 1
        await self._send_part(raw)

    @contextlib.asynccontextmanager
    async def commented(self, after_s: float) -> AsyncIterator[None]:
        """Send a comment whenever nothing was sent for `after_s` seconds within this context; 0 sends none.

        The head of the reply is sent before the first comment. Then it is too late for another status.
        """
        if not after_s:
            yield
            return
        self._sent_at = time.monotonic()
        commenting = asyncio.create_task(self._comment(after_s))
        try:
            yield
        finally:
            # Nothing waits for its end: a task that is cancelled sends nothing more.
            commenting.cancel()

    async def _comment(self, after_s: float) -> None:
        while True:
            await asyncio.sleep(self._sent_at + after_s - time.monotonic())
            if self._sent_at + after_s <= time.monotonic():
                await self._send_part(_COMMENT)

    async def _send_part(self, raw: bytes) -> None:
        """Send a part of a reply that consists of events. A comment and an event never mix, because one waits."""
        async with self._sending:
            if not self._is_streaming:
                await self._send_head(200, _EVENT_HEADERS)
                self._is_streaming = True
            self._sent_at = time.monotonic()
            await self._send({"type": "http.response.body", "body": raw, "more_body": True})

    async def end_events(self, *, complete: bool = True) -> None:
        """End the reply; after a complete answer the API's last event is sent before."""
        await self._send({"type": "http.response.body", "body": self._api.last_event if complete else b""})

    async def fail(self, error: Exception) -> None:
        """Send an error: as an event of its own if the answer has begun, otherwise as the whole reply."""
        status, headers, body = self._describe(error)
        if isinstance(error, DispatchError) and error.attempts:
            decided = decision_record(self.decision, None) if self.decision else {}
            body = {**body, RECORD_FIELD: decided | {"attempts": attempts_record(error.attempts)}}
        if self._is_streaming:
            # The status was sent already. The last event is left out, so that no client takes the part for the whole.
            await self.event(self._api.error_event(body, self._n_events))
            await self.end_events(complete=False)
        else:
            await self.whole(status, headers | JSON_HEADERS, body)

    def _describe(self, error: Exception) -> tuple[int, dict[str, str], dict[str, Any]]:
        """Return the HTTP status, the headers and the body that report an error.

        An error that is not ours is logged, and not described.
        """
        if isinstance(error, RouterError):
            return self._api.error_reply(error)
        request_id, message = logged_defect(error)
        headers = {ERROR_HEADER: "INTERNAL", "x-request-id": request_id}
        return 500, headers, self._api.plain_error_body(message, 500, "internal")

    async def _send_head(self, status: int, headers: Mapping[str, str]) -> None:
        own: dict[str, str] = {}
        if self.decision is not None:
            own = {**decision_headers(self.decision), "x-request-id": self.decision.decision_id}
        if self.delivery is not None:
            own |= delivery_headers(self.delivery)
        encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in {**own, **headers}.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": encoded})


async def _answer_to_json(body: Mapping[str, Any]) -> bytes:
    return await apart(json_in_pieces, body) if is_large(body) else to_json(body)


def to_json(value: Any) -> bytes:
    """Return a JSON value as bytes without spaces."""
    # In ASCII, because an upstream's answer may hold half of a surrogate pair, which UTF-8 cannot encode.
    return json.dumps(value, separators=(",", ":")).encode()
