"""The OpenAI door: chat completions over HTTP, decided and answered by the engine that every other door asks.

`POST /v1/chat/completions`, `GET /v1/models` (policies, profiles, candidates), `GET /healthz`. docs/connect.md says
what the headers and the field `elle` hold. A client that goes away takes its call of the upstream with it.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from router.answering.dispatch import Completion, Dispatcher
from router.asking.session_ids import caller_of
from router.attempts import Delivery
from router.deciding.pipeline import Router
from router.errors import (
    DispatchError,
    GatewayNotInstalledError,
    InvalidRequestError,
    NotReadyError,
    RouterError,
    ShuttingDownError,
    UnknownModelError,
)
from router.gateways.http_request import (
    ClientGoneError,
    Receive,
    Scope,
    read_body,
    timeout_of,
    while_connected,
)
from router.gateways.openai_body import ChatBody, model_list, query_from_body
from router.gateways.openai_reply import (
    ERROR_HEADER,
    RECORD_FIELD,
    attempts_record,
    decision_headers,
    decision_record,
    delivery_headers,
    error_object,
    error_reply,
)
from router.intake.bounds import SMALL_BYTES, forget_frames
from router.quoting import quoted
from router.values import RouteQuery, RoutingDecision
from router.wire.in_work import InWork

log = logging.getLogger(__name__)

#: Longer bodies are refused: room for a few dozen pictures.
MAX_BODY_BYTES = 32 * 1024 * 1024

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_JSON = {"content-type": "application/json"}
_EVENTS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    # Proxies of nginx's kind would gather events otherwise.
    "x-accel-buffering": "no",
}


class OpenAIDoor:
    """What is served on `elle serve --http`; `ServerSettings.http` takes one.

    Args:
        max_body_bytes: longer bodies are refused.

    Raises GatewayNotInstalledError where Starlette or uvicorn are not installed.
    """

    def __init__(self, *, max_body_bytes: int = MAX_BODY_BYTES) -> None:
        for name in ("starlette.applications", "uvicorn", "httptools"):
            _import(name)
        self._max_body_bytes = max_body_bytes
        self._engine: tuple[Router, Dispatcher] | None = None
        self._in_work = InWork()

    def start(self, router: Router, dispatcher: Dispatcher, in_work: InWork | None = None) -> None:
        """Begin to answer, counting requests in `in_work`; until then everything is answered with 503."""
        self._engine = router, dispatcher
        self._in_work = in_work or self._in_work

    def app(self) -> Any:
        """The ASGI application."""
        from starlette.applications import Starlette
        from starlette.exceptions import HTTPException
        from starlette.routing import Route

        chat = _Chat(self)
        rest = Starlette(
            routes=[
                Route("/v1/chat/completions", chat, methods=["POST"]),
                Route("/v1/models", self._list_models, methods=["GET"]),
                Route("/v1/models/{name:path}", self._show_model, methods=["GET"]),
                Route("/healthz", self._say_health, methods=["GET"]),
            ],
            exception_handlers={HTTPException: _no_such_route, RouterError: _refused},
        )

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            # Past Starlette's layers, which a chat needs nothing of, and each of which wraps what is sent.
            direct = scope["type"] == "http" and (scope["method"], scope["path"]) == ("POST", "/v1/chat/completions")
            await (chat if direct else rest)(scope, receive, send)

        return app

    @property
    def engine(self) -> tuple[Router, Dispatcher]:
        """Who decides and who gets answers. Raises NotReadyError."""
        if self._engine is None:
            raise NotReadyError("the service is still loading its encoder; try again in a few seconds.")
        return self._engine

    @property
    def in_work(self) -> InWork:
        """What its requests are counted in."""
        return self._in_work

    @property
    def max_body_bytes(self) -> int:
        """Longest body."""
        return self._max_body_bytes

    async def _list_models(self, request: Any) -> Any:
        router, _ = self.engine
        return _json_response(200, {}, {"object": "list", "data": model_list(router.policies)})

    async def _show_model(self, request: Any) -> Any:
        router, _ = self.engine
        name, listed = request.path_params["name"], model_list(router.policies)
        for model in listed:
            if model["id"] == name:
                return _json_response(200, {}, model)
        raise UnknownModelError(
            f"model must be one of {', '.join(model['id'] for model in listed)}, got {quoted(name)}.", field="model"
        )

    async def _say_health(self, request: Any) -> Any:
        router, _ = self.engine
        if self._in_work.leaving:
            raise ShuttingDownError("the service is shutting down; send new requests elsewhere.")
        return _json_response(200, {}, {"status": "ok", "policies": list(router.policies)})


class _Chat:
    """The ASGI endpoint of chat completions."""

    def __init__(self, door: OpenAIDoor) -> None:
        self._door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        reply = _Reply(send)
        with contextlib.suppress(ClientGoneError):
            try:
                router, dispatcher = self._door.engine
                timeout_s = timeout_of(headers)
                deadline = None if timeout_s is None else time.monotonic() + timeout_s
                with self._door.in_work.request(), router.intake.hold_bytes() as held:
                    chunks = await read_body(receive, headers, self._door.max_body_bytes, held)
                    asked = _Asked(router, dispatcher, headers, caller_of(headers), deadline, reply)
                    await while_connected(receive, asked.answer(chunks))
            except ClientGoneError:
                raise
            except Exception as error:
                await reply.fail(error)
                forget_frames(error)


@dataclass(frozen=True, slots=True)
class _Asked:
    """One chat on its way to its answer; `deadline` by the monotonic clock."""

    router: Router
    dispatcher: Dispatcher
    headers: Mapping[str, str]
    caller: str
    deadline: float | None
    reply: _Reply

    @property
    def left_s(self) -> float | None:
        return None if self.deadline is None else self.deadline - time.monotonic()

    async def answer(self, chunks: Sequence[bytes]) -> None:
        large = sum(map(len, chunks)) > SMALL_BYTES
        query, streamed = await self.router.intake.run_in_thread(self._read, chunks) if large else self._read(chunks)
        decision = await self.router.adecide(query, caller=self.caller, timeout_s=self.left_s, large=large)
        self.reply.decision = decision
        await (self._stream if streamed else self._complete)(query, decision)

    def _read(self, chunks: Sequence[bytes]) -> tuple[RouteQuery, bool]:
        """The query of a body, and whether its answer is to be streamed."""
        body = ChatBody.parse(b"".join(chunks), max_text_bytes=self.router.max_prompt_bytes)
        streamed = body.fields.get("stream")
        if streamed is not None and not isinstance(streamed, bool):
            raise InvalidRequestError(f"stream must be true or false, got {quoted(streamed)}.", field="stream")
        query = query_from_body(body.fields, self.headers, self.router.policies)
        return replace(query, body=body.around_model), bool(streamed)

    async def _complete(self, query: RouteQuery, decision: RoutingDecision) -> None:
        completion = await self.dispatcher.complete(query, decision, timeout_s=self.left_s)
        record = self._noted(decision, completion.delivery)
        await self.reply.whole(200, _JSON, {**completion.body, RECORD_FIELD: record | _cost(completion)})

    async def _stream(self, query: RouteQuery, decision: RoutingDecision) -> None:
        record: dict[str, Any] = {}
        async with contextlib.aclosing(self.dispatcher.stream(query, decision, timeout_s=self.left_s)) as steps:
            async for step in steps:
                if step.delivery is not None:
                    record = self._noted(decision, step.delivery)
                    await self.reply.begin_events()
                await self.reply.event({**step.body, RECORD_FIELD: record | _cost(step)})
                if step.delivery is not None:
                    # Once is enough for a list that may be long.
                    record = {key: value for key, value in record.items() if key != "attempts"}
        await self.reply.end_events()

    def _noted(self, decision: RoutingDecision, delivery: Delivery | None) -> dict[str, Any]:
        """The record for the caller; where another one answered, the session goes on with that one."""
        self.reply.delivery = delivery
        if delivery is not None and delivery.fell_back:
            self.router.remember_answer(decision, delivery.answered_by, caller=self.caller)
        return decision_record(decision, delivery)


class _Reply:
    """What goes back to the client: one whole answer, or events.

    Attributes:
        decision: once there is one; told in the headers.
        delivery: who answered, likewise.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._streaming = False
        self.decision: RoutingDecision | None = None
        self.delivery: Delivery | None = None

    async def whole(self, status: int, headers: Mapping[str, str], body: Mapping[str, Any]) -> None:
        raw = _to_json(body)
        await self._begin(status, {**headers, "content-length": str(len(raw))})
        await self._send({"type": "http.response.body", "body": raw})

    async def begin_events(self) -> None:
        await self._begin(200, _EVENTS)
        self._streaming = True

    async def event(self, body: Mapping[str, Any]) -> None:
        raw = b"data: %b\n\n" % _to_json(body)
        await self._send({"type": "http.response.body", "body": raw, "more_body": True})

    async def end_events(self, last: bytes = b"data: [DONE]\n\n") -> None:
        await self._send({"type": "http.response.body", "body": last})

    async def fail(self, error: Exception) -> None:
        status, headers, body = _error_reply(error)
        if isinstance(error, DispatchError) and error.attempts:
            decided = decision_record(self.decision, None) if self.decision else {}
            body = {**body, RECORD_FIELD: decided | {"attempts": attempts_record(error.attempts)}}
        if self._streaming:
            # Too late for a status. Without `[DONE]`, so that nobody takes the part for the whole.
            await self.event(body)
            await self.end_events(b"")
        else:
            await self.whole(status, headers | _JSON, body)

    async def _begin(self, status: int, headers: Mapping[str, str]) -> None:
        told: dict[str, str] = {}
        if self.decision is not None:
            told = {**decision_headers(self.decision), "x-request-id": self.decision.decision_id}
        if self.delivery is not None:
            told |= delivery_headers(self.delivery)
        encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in {**told, **headers}.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": encoded})


def _cost(completion: Completion) -> dict[str, float]:
    usage = completion.usage
    return {} if usage is None or usage.cost_usd is None else {"cost_usd": usage.cost_usd}


def _error_reply(error: Exception) -> tuple[int, dict[str, str], dict[str, Any]]:
    if isinstance(error, RouterError):
        return error_reply(error)
    request_id = uuid.uuid4().hex
    log.error("request %s failed", request_id, exc_info=error)
    message = f"internal error; the service's log has it as request {request_id}."
    headers = {ERROR_HEADER: "INTERNAL", "x-request-id": request_id}
    return 500, headers, error_object(message, kind="server_error", code="internal")


async def _refused(request: Any, error: Any) -> Any:
    status, headers, body = error_reply(error)
    return _json_response(status, headers, body)


async def _no_such_route(request: Any, error: Any) -> Any:
    message = f"{request.method} {quoted(request.url.path)} is not served; see docs/connect.md for what is."
    code = "method_not_allowed" if error.status_code == 405 else "not_found"
    body = error_object(message, kind="invalid_request_error", code=code)
    return _json_response(error.status_code, dict(error.headers or {}), body)


def _json_response(status: int, headers: Mapping[str, str], body: Mapping[str, Any]) -> Any:
    from starlette.responses import Response

    return Response(_to_json(body), status, {**headers, **_JSON})


def _to_json(value: Any) -> bytes:
    # In ASCII, because what an upstream says may hold halves of surrogate pairs, which no UTF-8 can.
    return json.dumps(value, separators=(",", ":")).encode()


def _import(name: str) -> None:
    try:
        importlib.import_module(name)
    except ImportError as error:
        raise GatewayNotInstalledError(
            "--http needs Starlette, uvicorn and httptools, which are not installed; install them with "
            "`pip install 'elle-router[dispatch]'`."
        ) from error
