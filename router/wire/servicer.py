"""The methods of `elle.router.v1.RouterService`: unpack the request, ask router and dispatcher, pack the answer."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

from router.answering.completion import Completion
from router.answering.dispatch import Dispatcher
from router.answering.reading.large_answers import apart
from router.answering.reading.large_answers import is_large as is_large_answer
from router.asking.request_origin import with_origin
from router.asking.session_ids import session_id_of
from router.asking.task_keys import task_of
from router.deciding.pipeline import Router
from router.decision import RoutingDecision
from router.errors import InvalidRequestError
from router.feedback.desk import FeedbackDesk
from router.feedback.service import take_feedback
from router.identity.admission import current_admission
from router.identity.principal import caller_key
from router.intake.loop_turns import TURNS
from router.pb import router_service_pb2 as pb
from router.pb import router_service_pb2_grpc as pb_grpc
from router.pb import routing_pb2 as routing_pb
from router.plain_json import TextPieces, whole_text
from router.values import RouteQuery
from router.wire import conversion, deliveries
from router.wire.feedback_messages import piece_from_wire, receipt_to_wire
from router.wire.large_structs import field_bytes, with_large_fields
from router.wire.request_reader import TINY_BYTES, Context, is_large, text_headers
from router.wire.statuses import status_of, still_loading
from router.wire.structs import struct_from_answer

#: Most requests in one batch. They keep the encoder busy for seconds; more belong into several calls.
MAX_BATCH = 1024

#: Requests of a batch that are read before others have their turn: half a millisecond's worth.
READ_AT_ONCE = 32

#: Seconds that a batch waits before its next request while a single request is being decided.
BATCH_PAUSE_S = 0.002

#: Seconds of the caller's deadline that are kept for the reply to travel back.
REPLY_S = 0.05

#: The full name of the service, as health checks and reflection know it.
SERVICE_NAME = pb.DESCRIPTOR.services_by_name["RouterService"].full_name

#: The names of the methods of the service, and whether each streams its answer.
METHODS = {one.name: bool(one.server_streaming) for one in pb.DESCRIPTOR.services_by_name["RouterService"].methods}


Answer = TypeVar("Answer", pb.CompleteResponse, pb.StreamCompleteResponse)


class RouterService(pb_grpc.RouterServiceServicer):
    """Implements the gRPC service `elle.router.v1.RouterService`.

    Until `start` is called every method answers UNAVAILABLE.
    """

    def __init__(self) -> None:
        self._router: Router | None = None
        self._dispatcher: Dispatcher | None = None
        self._desk: FeedbackDesk | None = None
        # Batches would else fill the queue before the encoder, so that single requests waited behind them.
        self._batch_slots = asyncio.Semaphore(1)

    def start(self, router: Router, dispatcher: Dispatcher, desk: FeedbackDesk | None = None) -> None:
        """Answer requests that come from now on with this router and this dispatcher, which know the same policies.

        desk: takes feedback; None if there is no ledger.
        """
        if self._router is None or self._router.batch_slots != router.batch_slots:
            self._batch_slots = asyncio.Semaphore(router.batch_slots)
        self._router, self._dispatcher, self._desk = router, dispatcher, desk

    @property
    def _ready(self) -> tuple[Router, Dispatcher]:
        if self._router is None or self._dispatcher is None:
            raise still_loading()
        return self._router, self._dispatcher

    async def Route(self, request: pb.RouteRequest, context: Context) -> pb.RouteResponse:  # noqa: N802
        """Decide which candidate should answer a request, without asking it."""
        router, _ = self._ready
        _, decision = await _decided(router, request, context)
        return pb.RouteResponse(decision=conversion.decision_to_wire(decision))

    async def BatchRoute(self, request: pb.BatchRouteRequest, context: Context) -> pb.BatchRouteResponse:  # noqa: N802
        """Decide many requests in one call. Each result carries a decision or the status of its own error."""
        router, _ = self._ready
        if len(request.requests) > MAX_BATCH:
            raise InvalidRequestError(
                f"requests must hold at most {MAX_BATCH:,} requests, got {len(request.requests):,}; send several.",
                field="requests",
            )
        headers = text_headers(context)
        whose = {"caller": caller_key(headers), "connection": context.peer()}
        ends = time.perf_counter() + left if (left := _time_left(context)) is not None else None
        groups: dict[str | int, list[_BatchItem]] = {}
        numbered = enumerate(request.requests)
        if is_large.get():
            await router.intake.run_in_thread(functools.partial(_by_session, numbered, groups, headers, sized=True))
        while some := list(itertools.islice(numbered, READ_AT_ONCE)):
            _by_session(some, groups, headers, sized=False)
            await self._pause()
        results, waiting, slots = [b""] * len(request.requests), iter(groups.values()), self._batch_slots

        async def decide_groups() -> None:
            for item in itertools.chain.from_iterable(waiting):
                async with slots:
                    result = await _batch_result(router, item, whose, ends)
                    results[item.index] = field_bytes(1, result.SerializeToString())
                    # Prompts that are decided without the encoder never wait, so other calls would get no turn. A
                    # single request takes several turns, between each of which one of a batch would go first.
                    await self._pause()

        # A task for each request would hold up all other calls while a thousand tasks start.
        await asyncio.gather(*(decide_groups() for _ in range(router.batch_slots)))
        # The guarded server sends bytes as they are. Field 1 holds the results.
        return cast(pb.BatchRouteResponse, b"".join(results))

    async def _pause(self) -> None:
        """Let others have their turn before a batch goes on, and for longer if single requests are being decided."""
        await asyncio.sleep(BATCH_PAUSE_S if TURNS.is_deciding else 0)

    async def Complete(self, request: pb.CompleteRequest, context: Context) -> pb.CompleteResponse:  # noqa: N802
        """Decide and return the answer of the chosen candidate, or of one that answers in its place."""
        router, dispatcher = self._ready
        query, decision = await _decided(router, request.route, context)
        completion = await dispatcher.complete(query, decision, timeout_s=_time_left(context))
        _remember_answerer(router, decision, completion, context)
        text, body = completion.text, completion.body
        large = is_large_answer(body)
        answer = pb.CompleteResponse(
            decision=conversion.decision_to_wire(decision),
            text="" if large else whole_text(text),
            response=None if large else struct_from_answer(body),
            usage=_usage(completion),
            delivery=_delivery(completion),
        )
        return await _serialized_with(answer, text, body) if large else answer

    async def StreamComplete(  # noqa: N802
        self, request: pb.StreamCompleteRequest, context: Context
    ) -> AsyncIterator[pb.StreamCompleteResponse]:
        """Decide and stream the answer. The first message holds the decision alone."""
        router, dispatcher = self._ready
        query, decision = await _decided(router, request.route, context)
        yield pb.StreamCompleteResponse(decision=conversion.decision_to_wire(decision))
        pieces = TextPieces()
        # If the caller hangs up, the stream must be closed at once, so that the upstream stops working too.
        async with contextlib.aclosing(dispatcher.stream(query, decision, timeout_s=_time_left(context))) as steps:
            async for step in steps:
                _remember_answerer(router, decision, step, context)
                text, large = pieces.next(step.text), is_large_answer(step.body)
                answer = pb.StreamCompleteResponse(
                    text_delta="" if large else text,
                    chunk=None if large else struct_from_answer(step.body),
                    usage=_usage(step),
                    delivery=_delivery(step),
                )
                yield await _serialized_with(answer, text, step.body) if large else answer

    async def Feedback(self, request: pb.FeedbackRequest, context: Context) -> pb.FeedbackResponse:  # noqa: N802
        """Keep feedback on the answer of a decided request, and return a receipt once it is on the disk."""
        _ = self._ready
        piece, caller = piece_from_wire(request), caller_key(text_headers(context))
        return receipt_to_wire(await take_feedback(self._desk, piece, caller))

    async def GetPolicy(self, request: pb.GetPolicyRequest, context: Context) -> pb.GetPolicyResponse:  # noqa: N802
        """Return a policy as the service runs it, with defaults and prices filled in."""
        router, _ = self._ready
        policy = router.policy(request.name or None)
        return pb.GetPolicyResponse(
            policy=conversion.ref_to_wire(policy.ref),
            probe=conversion.ref_to_wire(policy.probe_ref) if policy.probe_ref else None,
            encoder_identity=router.encoder_identities[policy.encoder_spec.identity] if policy.encoder_spec else "",
            policy_json=policy.to_json(),
            policy_names=list(router.policies),
        )


async def _decided(router: Router, request: pb.RouteRequest, context: Context) -> tuple[RouteQuery, RoutingDecision]:
    headers, large = text_headers(context), is_large.get()

    def read() -> RouteQuery:
        return with_origin(conversion.query_from_wire(request, headers), headers)

    query = await router.intake.run_in_thread(read) if large else read()
    decision = await router.adecide(
        query, caller=caller_key(headers), connection=context.peer(), timeout_s=_time_left(context), large=large
    )
    return query, decision


def _remember_answerer(router: Router, decision: RoutingDecision, step: Completion, context: Context) -> None:
    """Remember for the session which candidate answered, if it is not the chosen one."""
    if step.delivery is not None and step.delivery.fell_back:
        router.remember_answer(decision, step.delivery.answered_by, caller=caller_key(text_headers(context)))


@dataclass(frozen=True, slots=True)
class _BatchItem:
    """Holds one request of a batch.

    Attributes:
        index: its place in the batch.
        query: what it asks, or the error if it cannot be read.
        large: whether it must be decided in the thread for large requests.
    """

    index: int
    query: RouteQuery | Exception
    large: bool


def _by_session(
    requests: Iterable[tuple[int, pb.RouteRequest]],
    groups: dict[str | int, list[_BatchItem]],
    headers: Mapping[str, str],
    *,
    sized: bool,
) -> None:
    """Add requests of a batch to the groups by session, each in the order of the batch. Others form groups of one.

    A decision depends on the one before it in the same session, so the requests of a session are decided in order.

    requests: each with its place in the batch. headers: of the call, which may name the task of the requests that name
    none. sized: whether some of the requests may be large.
    """
    for index, request in requests:
        query: RouteQuery | Exception
        try:
            query = conversion.query_from_wire(request)
            query = with_origin(replace(query, task=task_of(query.task, headers, query.parameters)), {})
            session_id = session_id_of(query.session_id, {}, query.parameters)
        except Exception as error:
            query, session_id = error, ""
        large = sized and request.ByteSize() > TINY_BYTES
        groups.setdefault(session_id or index, []).append(_BatchItem(index, query, large))


async def _batch_result(
    router: Router, item: _BatchItem, whose: Mapping[str, str], ends: float | None
) -> pb.BatchRouteResult:
    if isinstance(item.query, Exception):
        return pb.BatchRouteResult(error=status_of(item.query))
    try:
        if item.index and (admission := current_admission.get()) is not None:
            # The guard of the server has counted the call as one request.
            admission.take_request()
        left = None if ends is None else ends - time.perf_counter()
        decision = await router.adecide(item.query, **whose, timeout_s=left, large=item.large, in_batch=True)
    except Exception as error:
        return pb.BatchRouteResult(error=status_of(error))
    return pb.BatchRouteResult(decision=conversion.decision_to_wire(decision))


async def _serialized_with(answer: Answer, text: str, body: Mapping[str, Any]) -> Answer:
    """Return the bytes of an answer message, to which its text and its large body are added.

    The guarded server sends bytes as they are.
    """
    return cast(
        Answer, await apart(functools.partial(with_large_fields, answer.SerializeToString(), text=text, body=body))
    )


def _usage(completion: Completion) -> pb.Usage | None:
    if completion.usage is None:
        return None
    usage = completion.usage
    return pb.Usage(input_tokens=usage.input_tokens, output_tokens=usage.output_tokens, cost_usd=usage.cost_usd)


def _delivery(completion: Completion) -> routing_pb.Delivery | None:
    return deliveries.delivery_to_wire(completion.delivery) if completion.delivery else None


def _time_left(context: Context) -> float | None:
    # grpc reports "no deadline" as None or as a time centuries away, depending on the transport.
    left = context.time_remaining()
    # Keep a little of it, so that our error, which says more, arrives before the caller's own deadline passes.
    return left - min(REPLY_S, left / 10) if left is not None and left < 1e8 else None
