"""Convert between protobuf messages and the values of `router.attempts`: who answered, and after which attempts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from google.protobuf.duration_pb2 import Duration

from router.attempts import Attempt, AttemptOutcome, Delivery
from router.pb import routing_pb2 as pb

# A value that only a newer server knows becomes UNKNOWN here; when it is sent on, it becomes UNSPECIFIED.
_OUTCOMES: Mapping[AttemptOutcome, pb.AttemptOutcome.ValueType] = {
    outcome: pb.AttemptOutcome.Value(f"ATTEMPT_OUTCOME_{outcome.value}")
    for outcome in AttemptOutcome
    if outcome is not AttemptOutcome.UNKNOWN
}
_OUTCOMES_BY_NUMBER = {number: outcome for outcome, number in _OUTCOMES.items()}


def delivery_to_wire(delivery: Delivery) -> pb.Delivery:
    """Return the protobuf message that says who answered and what was tried."""
    return pb.Delivery(
        answered_by=delivery.answered_by,
        answered_by_model=delivery.answered_by_model,
        fell_back=delivery.fell_back,
        attempts=[_attempt_to_wire(attempt) for attempt in delivery.attempts],
        dropped_parameters=delivery.dropped_parameters,
    )


def delivery_from_wire(message: pb.Delivery) -> Delivery:
    """Return who answered and what was tried from a protobuf message; this is the inverse of `delivery_to_wire`."""
    return Delivery(
        answered_by=message.answered_by,
        answered_by_model=message.answered_by_model,
        fell_back=message.fell_back,
        attempts=tuple(_attempt_from_wire(attempt) for attempt in message.attempts),
        dropped_parameters=tuple(message.dropped_parameters),
    )


def failed_delivery_to_wire(attempts: Sequence[Attempt]) -> pb.Delivery:
    """Return the detail of a failed request's status: the last 40 attempts, because trailers are small."""
    return pb.Delivery(attempts=[_attempt_to_wire(attempt) for attempt in attempts[-40:]])


def _attempt_to_wire(attempt: Attempt) -> pb.Attempt:
    seconds, nanos = divmod(round(attempt.duration_s * 1e9), 1_000_000_000)
    return pb.Attempt(
        candidate=attempt.candidate,
        outcome=_OUTCOMES.get(attempt.outcome, pb.ATTEMPT_OUTCOME_UNSPECIFIED),
        http_status=attempt.http_status,
        duration=Duration(seconds=seconds, nanos=nanos),
        streamed=attempt.streamed,
    )


def _attempt_from_wire(message: pb.Attempt) -> Attempt:
    return Attempt(
        candidate=message.candidate,
        outcome=_OUTCOMES_BY_NUMBER.get(message.outcome, AttemptOutcome.UNKNOWN),
        http_status=message.http_status if message.HasField("http_status") else None,
        duration_s=message.duration.ToNanoseconds() / 1e9,
        streamed=message.streamed,
    )
