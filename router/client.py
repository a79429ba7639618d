"""The Python client of the service, synchronous and asynchronous.

from router.client import RouterClient

with RouterClient("localhost:50051") as client:
    print(client.route("What is the capital of France?").chosen)
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Self, cast

import grpc
import grpc.aio
from google.rpc import error_details_pb2, status_pb2

from router.errors import ServiceError
from router.pb import router_service_pb2 as pb
from router.pb import router_service_pb2_grpc as pb_grpc
from router.pb import routing_pb2
from router.values import Delivery, Message, Overrides, RouteQuery, RoutingDecision
from router.wire import conversion as wire
from router.wire.statuses import DETAILS_KEY

DEFAULT_ADDRESS = "localhost:50051"

#: What to route: a prompt, OpenAI messages, or a full query.
Routable = str | Sequence[Message] | RouteQuery

# Retries by grpc itself: only UNAVAILABLE, where the request was not worked on. Overload is the caller's to handle.
_SERVICE_CONFIG = {
    "methodConfig": [
        {
            "name": [{"service": "elle.router.v1.RouterService"}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}
_OPTIONS = (
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    ("grpc.enable_retries", 1),
    ("grpc.max_receive_message_length", wire.MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", wire.MAX_MESSAGE_BYTES),
)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer with its decision.

    Attributes:
        decision: the decision record.
        text: of the first choice.
        response: the provider's response in the OpenAI shape.
        input_tokens, output_tokens: as the provider counted; None where it did not.
        cost_usd: at the policy's prices; None where unknown.
        delivery: who answered, after which attempts.
    """

    decision: RoutingDecision
    text: str
    response: Mapping[str, Any]
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None
    delivery: Delivery


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a streamed answer: first the decision alone, then pieces of text with the provider's chunk.

    The first piece says in `delivery` who answers, after which attempts.
    """

    decision: RoutingDecision | None
    text: str
    chunk: Mapping[str, Any]
    delivery: Delivery | None


class RouterClient:
    """Synchronous client. Thread-safe; use as a context manager or call `close`.

    Args:
        address: `host:port` of the service.
        timeout_s: deadline of each call; None for none.
        credentials: for TLS; None connects in the clear.

    Every method raises ServiceError where the service answers with a status, InvalidRequestError where the request
    cannot be put on the wire.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        timeout_s: float | None = 30.0,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        self._timeout_s = timeout_s
        self._channel = (
            grpc.insecure_channel(address, options=_OPTIONS)
            if credentials is None
            else grpc.secure_channel(address, credentials, options=_OPTIONS)
        )
        self._stub = pb_grpc.RouterServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def route(self, what: Routable, overrides: Overrides | None = None, **rest: Any) -> RoutingDecision:
        """Decide only. `rest` may hold `session_id` and `parameters` (further fields of the OpenAI body)."""
        with _errors():
            response = self._stub.Route(_request(what, overrides, rest), timeout=self._timeout_s)
        return wire.decision_from_wire(response.decision)

    def route_batch(self, queries: Sequence[Routable]) -> list[RoutingDecision | ServiceError]:
        """Decide many, in order; where one fails, its place holds the error instead."""
        request = pb.BatchRouteRequest(requests=[_request(query, None, {}) for query in queries])
        with _errors():
            response = self._stub.BatchRoute(request, timeout=self._timeout_s)
        return [_batch_item(result) for result in response.results]

    def complete(self, what: Routable, overrides: Overrides | None = None, **rest: Any) -> Answer:
        """Decide and answer. Arguments as `route`."""
        request = pb.CompleteRequest(route=_request(what, overrides, rest))
        with _errors():
            return _answer(self._stub.Complete(request, timeout=self._timeout_s))

    def stream(self, what: Routable, overrides: Overrides | None = None, **rest: Any) -> Iterator[Step]:
        """Decide and stream the answer. Closing the iterator cancels the call, upstream included."""
        call = self._stub.StreamComplete(
            pb.StreamCompleteRequest(route=_request(what, overrides, rest)), timeout=self._timeout_s
        )
        try:
            with _errors():
                for message in call:
                    yield _step(message)
        finally:
            call.cancel()

    def get_policy(self, name: str = "") -> pb.GetPolicyResponse:
        """A policy as the service runs it; empty for the default."""
        with _errors():
            return self._stub.GetPolicy(pb.GetPolicyRequest(name=name), timeout=self._timeout_s)


class AsyncRouterClient:
    """Asynchronous client: the methods of `RouterClient` as coroutines, `stream` as an asynchronous iterator."""

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        timeout_s: float | None = 30.0,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        self._timeout_s = timeout_s
        self._channel = (
            grpc.aio.insecure_channel(address, options=_OPTIONS)
            if credentials is None
            else grpc.aio.secure_channel(address, credentials, options=_OPTIONS)
        )
        # The generated stub serves both kinds of channel; only its type stub tells them apart.
        self._stub = cast("pb_grpc.RouterServiceAsyncStub", pb_grpc.RouterServiceStub(self._channel))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()

    async def route(
        self, what: Routable, overrides: Overrides | None = None, *, api_key: str | None = None, **rest: Any
    ) -> RoutingDecision:
        """Decide only. `rest` may hold `session_id` and `parameters` (further fields of the OpenAI body).

        api_key: tells whose session it is, where one client asks for many callers.
        """
        metadata = (("x-api-key", api_key),) if api_key else None
        with _errors():
            request = _request(what, overrides, rest)
            response = await self._stub.Route(request, timeout=self._timeout_s, metadata=metadata)
        return wire.decision_from_wire(response.decision)

    async def route_batch(self, queries: Sequence[Routable]) -> list[RoutingDecision | ServiceError]:
        """Decide many, in order; where one fails, its place holds the error instead."""
        request = pb.BatchRouteRequest(requests=[_request(query, None, {}) for query in queries])
        with _errors():
            response = await self._stub.BatchRoute(request, timeout=self._timeout_s)
        return [_batch_item(result) for result in response.results]

    async def complete(self, what: Routable, overrides: Overrides | None = None, **rest: Any) -> Answer:
        """Decide and answer. Arguments as `route`."""
        request = pb.CompleteRequest(route=_request(what, overrides, rest))
        with _errors():
            return _answer(await self._stub.Complete(request, timeout=self._timeout_s))

    async def stream(self, what: Routable, overrides: Overrides | None = None, **rest: Any) -> AsyncIterator[Step]:
        """Decide and stream the answer. Closing the iterator cancels the call, upstream included."""
        call = self._stub.StreamComplete(
            pb.StreamCompleteRequest(route=_request(what, overrides, rest)), timeout=self._timeout_s
        )
        try:
            with _errors():
                async for message in call:
                    yield _step(message)
        finally:
            call.cancel()

    async def get_policy(self, name: str = "") -> pb.GetPolicyResponse:
        """A policy as the service runs it; empty for the default."""
        with _errors():
            return await self._stub.GetPolicy(pb.GetPolicyRequest(name=name), timeout=self._timeout_s)


def _request(what: Routable, overrides: Overrides | None, rest: Mapping[str, Any]) -> pb.RouteRequest:
    if isinstance(what, RouteQuery):
        if overrides is not None or rest:
            raise TypeError("a RouteQuery carries its own overrides, session_id and parameters")
        return wire.query_to_wire(what)
    messages = ({"role": "user", "content": what},) if isinstance(what, str) else what
    return wire.query_to_wire(RouteQuery(messages, overrides or Overrides(), **rest))


def _batch_item(result: pb.BatchRouteResult) -> RoutingDecision | ServiceError:
    if result.WhichOneof("result") == "error":
        return _service_error(result.error, _CODES[result.error.code].name)
    return wire.decision_from_wire(result.decision)


def _answer(response: pb.CompleteResponse) -> Answer:
    usage = response.usage if response.HasField("usage") else None
    return Answer(
        decision=wire.decision_from_wire(response.decision),
        text=response.text,
        response=wire.dict_from_struct(response.response),
        input_tokens=usage.input_tokens if usage else None,
        output_tokens=usage.output_tokens if usage else None,
        cost_usd=usage.cost_usd if usage and usage.HasField("cost_usd") else None,
        delivery=wire.delivery_from_wire(response.delivery),
    )


def _step(message: pb.StreamCompleteResponse) -> Step:
    decision = wire.decision_from_wire(message.decision) if message.HasField("decision") else None
    delivery = wire.delivery_from_wire(message.delivery) if message.HasField("delivery") else None
    return Step(decision, message.text_delta, wire.dict_from_struct(message.chunk), delivery)


_CODES = {code.value[0]: code for code in grpc.StatusCode}


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    """grpc's errors -> ServiceError, with what the service's rich status says."""
    try:
        yield
    except grpc.RpcError as error:
        _raise(error)


def _raise(error: Any) -> NoReturn:
    status = status_pb2.Status(message=error.details() or "")
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY:
            status.ParseFromString(value)
    raise _service_error(status, error.code().name) from error


def _service_error(status: status_pb2.Status, code: str) -> ServiceError:
    info, delivery = error_details_pb2.ErrorInfo(), routing_pb2.Delivery()
    for detail in status.details:
        for wanted in (info, delivery):
            if detail.Is(wanted.DESCRIPTOR):
                detail.Unpack(wanted)
    return ServiceError(
        f"{code}: {status.message}",
        code=code,
        service_reason=info.reason,
        service_retryable=info.metadata.get("retryable") == "true",
        attempts=wire.delivery_from_wire(delivery).attempts,
    )
