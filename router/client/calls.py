"""Define the Python clients of the service, synchronous and asynchronous, and what they return."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Self, TypedDict, TypeVar, Unpack, cast
from urllib.parse import quote

import grpc
import grpc.aio

from router.attempts import Delivery
from router.client.channels import DEFAULT_ADDRESS, ClientChannel, ClientTlsFiles
from router.decision import RoutingDecision
from router.errors import InvalidRequestError, ServiceError
from router.feedback.pieces import FeedbackPiece, Receipt
from router.pb import router_service_pb2 as pb
from router.quoting import quoted
from router.values import Message, Overrides, RouteQuery
from router.wire import conversion, deliveries
from router.wire.feedback_messages import piece_to_wire, receipt_from_wire
from router.wire.service_errors import errors_of_service, service_error
from router.wire.structs import dict_from_struct

#: What to route: a prompt, OpenAI messages, or a full query.
Routable = str | Sequence[Message] | RouteQuery

#: The header by which balancers keep a session on one replica, and how many characters of an id they get.
_SESSION_HEADER, _MOST_SESSION = "x-elle-session-id", 256


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a request, with the decision that chose who answers.

    Attributes:
        decision: the decision record.
        text: text of the first choice.
        response: the provider's response in the OpenAI shape.
        input_tokens, output_tokens: tokens as the provider counted them; None if it did not.
        cost_usd: cost at the policy's prices, in US dollars; None if it is unknown.
        delivery: who answered, and after which attempts.
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
    """One step of a streamed answer. The first step holds the decision alone; later ones hold text and the chunk.

    The first step with text also says in `delivery` who answers, and after which attempts.
    """

    decision: RoutingDecision | None
    text: str
    chunk: Mapping[str, Any]
    delivery: Delivery | None


class Rest(TypedDict, total=False):
    """The optional keyword arguments that `route`, `complete` and `stream` accept.

    Attributes:
        session_id: id of the session that the request belongs to.
        task: key of the task that the request belongs to, at most 256 bytes.
        scores: numbers that other systems made of the request, by name, for a policy that decides by one.
        parameters: further fields of the OpenAI body, such as `tools`.
        escalated_from: id of a decision whose answer was not good enough; a stronger candidate answers.
        api_key: the caller's credential, if it is not that of the client.
    """

    session_id: str
    task: str
    scores: Mapping[str, float]
    parameters: Mapping[str, Any]
    escalated_from: str
    api_key: str | None


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Method(Generic[T]):
    """Describes one method of the service: its name on the wire, and the function that converts its answers."""

    name: str
    read: Callable[[Any], T]


class _Client:
    """The base of both clients, which opens the channel and prepares the deadline and the credential of a call."""

    #: gRPC's functions that open a channel without TLS and with it.
    _openers: ClassVar[tuple[Callable[..., Any], Callable[..., Any]]]

    def __init__(
        self,
        address: str | Sequence[str] = DEFAULT_ADDRESS,
        *,
        timeout_s: float | None = 30.0,
        credentials: grpc.ChannelCredentials | ClientTlsFiles | None = None,
        api_key: str | None = None,
    ) -> None:
        self._api_key = api_key
        self._timeout_s = timeout_s
        self._channel = ClientChannel(self._openers, address, credentials)

    def _options(self, api_key: str | None, request: Any) -> dict[str, Any]:
        key = self._api_key if api_key is None else api_key
        if key and not (key.isascii() and key.isprintable()):
            raise InvalidRequestError("api_key must hold printable ASCII characters only.", field="api_key")
        # The service goes by the id in the request itself; the header is for balancers.
        session = quote(getattr(getattr(request, "route", request), "session_id", ""))[:_MOST_SESSION]
        metadata = [*((("x-api-key", key),) if key else ()), *(((_SESSION_HEADER, session),) if session else ())]
        return {"timeout": self._timeout_s, "metadata": metadata or None}


class RouterClient(_Client):
    """Calls the service and waits for its answer; `AsyncRouterClient` does the same in an event loop.

    Thread-safe; use as a context manager or call `close`.

    Args:
        address: `host:port` of the service. Calls take turns among all replicas that a DNS name such as
            `dns:///elle:50051` resolves to, or whose IP addresses and ports are listed.
        timeout_s: seconds until the deadline of each call; None sets no deadline.
        credentials: credentials for TLS; None connects without encryption. New `ClientTlsFiles` are read.
        api_key: tells the service who calls, because sessions and cached judgements are kept for each caller. Each
            method takes one as well, for a client that asks on behalf of many callers.

    Every method raises ServiceError if the service answers with an error status, and InvalidRequestError if the request
    cannot be encoded. A call that fails with UNAVAILABLE is retried up to three times within the deadline, after the
    wait that the service asks for. Other errors say in `retry_after_s` how long to wait.
    """

    _openers = (grpc.insecure_channel, grpc.secure_channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection to the service."""
        for channel in self._channel.channels:
            channel.close()

    def route(self, what: Routable, overrides: Overrides | None = None, **rest: Unpack[Rest]) -> RoutingDecision:
        """Return the decision, without asking the chosen candidate."""
        return self._call(_ROUTE, _request(what, overrides, rest), rest.get("api_key"))

    def route_batch(
        self, queries: Sequence[Routable], *, api_key: str | None = None
    ) -> list[RoutingDecision | ServiceError]:
        """Return the decisions of many requests, in order. If one fails, its place holds the error."""
        return self._call(_BATCH, _batch_request(queries), api_key)

    def complete(self, what: Routable, overrides: Overrides | None = None, **rest: Unpack[Rest]) -> Answer:
        """Let the service decide a request, ask the chosen candidate, and return the answer.

        See `route` for the arguments.
        """
        request = pb.CompleteRequest(route=_request(what, overrides, rest))
        return self._call(_COMPLETE, request, rest.get("api_key"))

    def stream(self, what: Routable, overrides: Overrides | None = None, **rest: Unpack[Rest]) -> Iterator[Step]:
        """Let the service decide a request, ask the chosen candidate, and yield its answer step by step.

        Closing the iterator cancels the call, also at the upstream.
        """
        request = pb.StreamCompleteRequest(route=_request(what, overrides, rest))
        call = getattr(self._channel.stub, _STREAM.name)(request, **self._options(rest.get("api_key"), request))
        try:
            with errors_of_service(self._channel.target):
                for message in call:
                    yield _STREAM.read(message)
        finally:
            call.cancel()

    def get_policy(self, name: str = "", *, api_key: str | None = None) -> pb.GetPolicyResponse:
        """Return a policy as the service runs it. An empty name means the default policy."""
        return self._call(_POLICY, _policy_request(name), api_key)

    def feedback(self, piece: FeedbackPiece, *, api_key: str | None = None) -> Receipt:
        """Tell how good the answer of a decided request was. The feedback is on the disk when this returns."""
        return self._call(_FEEDBACK, piece_to_wire(piece), api_key)

    def _call(self, method: _Method[T], request: Any, api_key: str | None) -> T:
        with errors_of_service(self._channel.target):
            return method.read(getattr(self._channel.stub, method.name)(request, **self._options(api_key, request)))


class AsyncRouterClient(_Client):
    """Calls the service from an event loop: it has the methods of `RouterClient` as coroutines.

    `stream` is an asynchronous iterator.
    """

    _openers = (grpc.aio.insecure_channel, grpc.aio.secure_channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection to the service."""
        for channel in self._channel.channels:
            await channel.close()

    async def route(self, what: Routable, overrides: Overrides | None = None, **rest: Unpack[Rest]) -> RoutingDecision:
        """Return the decision, without asking the chosen candidate."""
        return await self._call(_ROUTE, _request(what, overrides, rest), rest.get("api_key"))

    async def route_batch(
        self, queries: Sequence[Routable], *, api_key: str | None = None
    ) -> list[RoutingDecision | ServiceError]:
        """Return the decisions of many requests, in order. If one fails, its place holds the error."""
        return await self._call(_BATCH, _batch_request(queries), api_key)

    async def complete(self, what: Routable, overrides: Overrides | None = None, **rest: Unpack[Rest]) -> Answer:
        """Let the service decide a request, ask the chosen candidate, and return the answer."""
        request = pb.CompleteRequest(route=_request(what, overrides, rest))
        return await self._call(_COMPLETE, request, rest.get("api_key"))

    async def stream(
        self, what: Routable, overrides: Overrides | None = None, **rest: Unpack[Rest]
    ) -> AsyncIterator[Step]:
        """Let the service decide, and yield the answer step by step. Closing the iterator cancels the call."""
        request = pb.StreamCompleteRequest(route=_request(what, overrides, rest))
        call = getattr(self._channel.stub, _STREAM.name)(request, **self._options(rest.get("api_key"), request))
        try:
            with errors_of_service(self._channel.target):
                async for message in call:
                    yield _STREAM.read(message)
        finally:
            call.cancel()

    async def get_policy(self, name: str = "", *, api_key: str | None = None) -> pb.GetPolicyResponse:
        """Return a policy as the service runs it. An empty name means the default policy."""
        return await self._call(_POLICY, _policy_request(name), api_key)

    async def feedback(self, piece: FeedbackPiece, *, api_key: str | None = None) -> Receipt:
        """Tell how good the answer of a decided request was. The feedback is on the disk when this returns."""
        return await self._call(_FEEDBACK, piece_to_wire(piece), api_key)

    async def _call(self, method: _Method[T], request: Any, api_key: str | None) -> T:
        with errors_of_service(self._channel.target):
            return method.read(
                await getattr(self._channel.stub, method.name)(request, **self._options(api_key, request))
            )


def _request(what: Routable, overrides: Overrides | None, rest: Rest) -> pb.RouteRequest:
    own = {name: value for name, value in rest.items() if name != "api_key"}
    if isinstance(what, RouteQuery):
        if overrides is not None or own:
            raise TypeError("a RouteQuery carries its own overrides, session_id, task, scores and parameters")
        return conversion.query_to_wire(what)
    if not isinstance(what, str | Sequence):
        raise InvalidRequestError(
            f"a request must be a prompt, a list of messages or a RouteQuery, got {quoted(what)}.", field="messages"
        )
    messages = ({"role": "user", "content": what},) if isinstance(what, str) else what
    return conversion.query_to_wire(RouteQuery(messages, overrides or Overrides(), **cast(dict[str, Any], own)))


def _batch_request(queries: Sequence[Routable]) -> pb.BatchRouteRequest:
    return pb.BatchRouteRequest(requests=[_request(query, None, {}) for query in queries])


def _policy_request(name: str) -> pb.GetPolicyRequest:
    try:
        return pb.GetPolicyRequest(name=name)
    except (TypeError, ValueError) as error:
        raise InvalidRequestError(f"name must be text in valid Unicode, got {quoted(name)}.", field="name") from error


def _batch_item(result: pb.BatchRouteResult) -> RoutingDecision | ServiceError:
    if result.WhichOneof("result") == "decision":
        return conversion.decision_from_wire(result.decision)
    return service_error(result.error)


def _answer(response: pb.CompleteResponse) -> Answer:
    usage = response.usage if response.HasField("usage") else None
    return Answer(
        decision=conversion.decision_from_wire(response.decision),
        text=response.text,
        response=dict_from_struct(response.response),
        input_tokens=usage.input_tokens if usage else None,
        output_tokens=usage.output_tokens if usage else None,
        cost_usd=usage.cost_usd if usage and usage.HasField("cost_usd") else None,
        delivery=deliveries.delivery_from_wire(response.delivery),
    )


def _step(message: pb.StreamCompleteResponse) -> Step:
    decision = conversion.decision_from_wire(message.decision) if message.HasField("decision") else None
    delivery = deliveries.delivery_from_wire(message.delivery) if message.HasField("delivery") else None
    return Step(decision, message.text_delta, dict_from_struct(message.chunk), delivery)


#: The methods of both clients.
_FEEDBACK = _Method("Feedback", receipt_from_wire)
_ROUTE = _Method("Route", lambda response: conversion.decision_from_wire(response.decision))
_BATCH = _Method("BatchRoute", lambda response: [_batch_item(result) for result in response.results])
_COMPLETE = _Method("Complete", _answer)
_STREAM = _Method("StreamComplete", _step)
_POLICY: _Method[pb.GetPolicyResponse] = _Method("GetPolicy", lambda response: response)
