"""Protobuf <-> domain values. The only file that knows both; nothing is decided here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from google.protobuf import json_format, struct_pb2
from google.protobuf.duration_pb2 import Duration

from router.errors import InvalidRequestError
from router.pb import router_service_pb2 as service_pb
from router.pb import routing_pb2 as pb
from router.values import (
    NO_OVERRIDES,
    ArtifactRef,
    Attempt,
    AttemptOutcome,
    CandidateRisk,
    Delivery,
    Message,
    Overrides,
    Reason,
    RouteQuery,
    RoutingDecision,
    Timings,
)

#: Largest message either way. Above the router's bound on prompts, so that its own error speaks; room for batches and
#: images.
MAX_MESSAGE_BYTES = 64 * 1024 * 1024


def query_from_wire(request: service_pb.RouteRequest) -> RouteQuery:
    """Raises InvalidRequestError where the message leaves out what is required."""
    kind = request.WhichOneof("input")
    if kind is None:
        raise InvalidRequestError("one of `chat` and `prompt` must be set, got neither.", field="input")
    if kind == "prompt":
        messages: tuple[Message, ...] = ({"role": "user", "content": request.prompt},)
    else:
        messages = tuple(_message_from_wire(message) for message in request.chat.messages)
    return RouteQuery(
        messages=messages,
        overrides=_overrides_from_wire(request.overrides) if request.HasField("overrides") else NO_OVERRIDES,
        session_id=request.session_id,
        parameters=dict_from_struct(request.parameters) if request.HasField("parameters") else {},
    )


def query_to_wire(query: RouteQuery) -> service_pb.RouteRequest:
    """Raises InvalidRequestError for messages that are not in the OpenAI shape."""
    o = query.overrides
    overrides = pb.Overrides(
        policy=o.policy,
        max_risk=o.max_risk,
        allowed_candidates=o.allowed_candidates,
        denied_candidates=o.denied_candidates,
        pin=o.pin,
        max_cost_usd=o.max_cost_usd,
        require_region=o.require_region,
        min_gain=o.min_gain,
    )
    return service_pb.RouteRequest(
        chat=pb.Chat(messages=[_message_to_wire(message, i) for i, message in enumerate(query.messages)]),
        overrides=overrides,
        session_id=query.session_id,
        parameters=struct_from_dict(query.parameters, "parameters"),
    )


def decision_to_wire(decision: RoutingDecision) -> pb.Decision:
    """The decision record as it travels."""
    message = pb.Decision(
        decision_id=decision.decision_id,
        requested=decision.requested,
        chosen=decision.chosen,
        chosen_model=decision.chosen_model,
        reason=_REASONS[decision.reason],
        difficulty=decision.difficulty,
        threshold=decision.threshold,
        gain=decision.gain,
        abstained=decision.abstained,
        leverage=decision.leverage,
        session_id=decision.session_id,
        input_tokens_estimate=decision.input_tokens_estimate,
        language=decision.language,
        has_code=decision.has_code,
        needs=decision.needs,
    )
    # Filled in where they stand: a message handed over as an argument is copied.
    for c in decision.candidates:
        message.candidates.add(
            candidate=c.candidate,
            model=c.model,
            raw=c.raw,
            risk=c.risk,
            expected_cost_usd=c.expected_cost_usd,
            eligible=c.eligible,
            ineligible_because=c.ineligible_because,
        )
    _fill_ref(message.policy, decision.policy)
    if decision.probe is not None:
        _fill_ref(message.probe, decision.probe)
    _fill_timings(message.timings, decision.timings)
    return message


def decision_from_wire(message: pb.Decision) -> RoutingDecision:
    """The inverse of `decision_to_wire`."""
    return RoutingDecision(
        decision_id=message.decision_id,
        requested=message.requested,
        chosen=message.chosen,
        chosen_model=message.chosen_model,
        reason=Reason(pb.Reason.Name(message.reason).removeprefix("REASON_")),
        difficulty=_optional(message, "difficulty"),
        candidates=tuple(
            CandidateRisk(
                candidate=c.candidate,
                model=c.model,
                raw=_optional(c, "raw"),
                risk=_optional(c, "risk"),
                expected_cost_usd=_optional(c, "expected_cost_usd"),
                ineligible_because=tuple(c.ineligible_because),
            )
            for c in message.candidates
        ),
        threshold=_optional(message, "threshold"),
        gain=_optional(message, "gain"),
        policy=_ref_from_wire(message.policy),
        probe=_ref_from_wire(message.probe) if message.HasField("probe") else None,
        abstained=message.abstained,
        leverage=_optional(message, "leverage"),
        timings=_timings_from_wire(message.timings),
        session_id=message.session_id,
        input_tokens_estimate=message.input_tokens_estimate,
        language=message.language,
        has_code=message.has_code,
        needs=tuple(message.needs),
    )


def delivery_to_wire(delivery: Delivery) -> pb.Delivery:
    """Who answered, as it travels."""
    return pb.Delivery(
        answered_by=delivery.answered_by,
        answered_by_model=delivery.answered_by_model,
        fell_back=delivery.fell_back,
        attempts=[_attempt_to_wire(attempt) for attempt in delivery.attempts],
    )


def delivery_from_wire(message: pb.Delivery) -> Delivery:
    """The inverse of `delivery_to_wire`."""
    return Delivery(
        answered_by=message.answered_by,
        answered_by_model=message.answered_by_model,
        fell_back=message.fell_back,
        attempts=tuple(_attempt_from_wire(attempt) for attempt in message.attempts),
    )


def failed_delivery_to_wire(attempts: Sequence[Attempt]) -> pb.Delivery:
    """The detail of an error's status: what was tried, the last 40, because trailers are small."""
    return pb.Delivery(attempts=[_attempt_to_wire(attempt) for attempt in attempts[-40:]])


def ref_to_wire(ref: ArtifactRef) -> pb.ArtifactRef:
    """Name, version and digest as they travel."""
    return pb.ArtifactRef(name=ref.name, version=ref.version, digest=ref.digest)


def dict_from_struct(struct: struct_pb2.Struct) -> dict[str, Any]:
    """Plain values of a Struct. Its only number type is double: integral values come back as integers."""
    plain: dict[str, Any] = _integral(json_format.MessageToDict(struct))
    return plain


def struct_from_dict(values: Mapping[str, Any], field: str) -> struct_pb2.Struct:
    """A Struct of plain JSON values. Raises InvalidRequestError, naming `field`, for anything else."""
    struct = struct_pb2.Struct()
    try:
        json_format.ParseDict(_jsonable(values), struct)
    except (json_format.ParseError, TypeError, ValueError) as error:
        raise InvalidRequestError(f"{field} must hold plain JSON values: {error}.", field=field) from error
    return struct


_REASONS = {reason: pb.Reason.Value(f"REASON_{reason.value}") for reason in Reason}

_TYPED = frozenset({"role", "content", "name", "tool_calls", "tool_call_id"})


def _message_from_wire(message: pb.ChatMessage) -> Message:
    plain: dict[str, Any] = {"role": message.role}
    kind = message.WhichOneof("content")
    if kind == "text":
        plain["content"] = message.text
    elif kind == "parts":
        plain["content"] = [_part_from_wire(part, i) for i, part in enumerate(message.parts.parts)]
    else:
        plain["content"] = None
    if message.HasField("name"):
        plain["name"] = message.name
    if message.tool_calls:
        plain["tool_calls"] = [dict_from_struct(call) for call in message.tool_calls]
    if message.HasField("tool_call_id"):
        plain["tool_call_id"] = message.tool_call_id
    return dict_from_struct(message.extra) | plain


def _part_from_wire(part: pb.ContentPart, index: int) -> dict[str, Any]:
    kind = part.WhichOneof("part")
    if kind == "text":
        return {"type": "text", "text": part.text}
    if kind == "image_url":
        image = {"url": part.image_url.url}
        if part.image_url.HasField("detail"):
            image["detail"] = part.image_url.detail
        return {"type": "image_url", "image_url": image}
    if kind == "other":
        return dict_from_struct(part.other)
    raise InvalidRequestError(f"content part {index} must set one of text, image_url and other, got none.")


def _message_to_wire(message: Message, index: int) -> pb.ChatMessage:
    where = f"messages[{index}]"
    if not isinstance(message, Mapping):
        raise InvalidRequestError(f"{where} must be an object, got {type(message).__name__}.", field=where)
    wire = pb.ChatMessage()
    try:
        wire.role = message.get("role", "")
        content = message.get("content")
        if isinstance(content, str):
            wire.text = content
        elif content is not None:
            wire.parts.CopyFrom(pb.ContentParts(parts=[_part_to_wire(part, where) for part in content]))
        for field in ("name", "tool_call_id"):
            if message.get(field) is not None:
                setattr(wire, field, message[field])
    except (TypeError, UnicodeEncodeError) as error:
        raise InvalidRequestError(f"{where} must be an OpenAI chat message: {error}.", field=where) from error
    wire.tool_calls.extend(struct_from_dict(call, f"{where}.tool_calls") for call in message.get("tool_calls") or ())
    if extra := {key: value for key, value in message.items() if key not in _TYPED}:
        wire.extra.CopyFrom(struct_from_dict(extra, where))
    return wire


def _part_to_wire(part: Mapping[str, Any], where: str) -> pb.ContentPart:
    if isinstance(part, Mapping) and part.get("type") == "text" and part.keys() == {"type", "text"}:
        return pb.ContentPart(text=part["text"])
    return pb.ContentPart(other=struct_from_dict(part, f"{where}.content"))


def _overrides_from_wire(message: pb.Overrides) -> Overrides:
    return Overrides(
        policy=_optional(message, "policy"),
        max_risk=_optional(message, "max_risk"),
        allowed_candidates=tuple(message.allowed_candidates),
        denied_candidates=tuple(message.denied_candidates),
        pin=_optional(message, "pin"),
        max_cost_usd=_optional(message, "max_cost_usd"),
        require_region=_optional(message, "require_region"),
        min_gain=_optional(message, "min_gain"),
    )


def _duration(seconds: float) -> Duration:
    whole, nanos = divmod(round(seconds * 1e9), 1_000_000_000)
    return Duration(seconds=whole, nanos=nanos)


def _fill_ref(message: pb.ArtifactRef, ref: ArtifactRef) -> None:
    message.name, message.version, message.digest = ref.name, ref.version, ref.digest


def _fill_timings(message: pb.Timings, timings: Timings) -> None:
    message.cached = timings.cached
    for duration, seconds in (
        (message.queue, timings.queue_s),
        (message.encode, timings.encode_s),
        (message.probe, timings.probe_s),
        (message.policy, timings.policy_s),
        (message.total, timings.total_s),
    ):
        duration.seconds, duration.nanos = divmod(round(seconds * 1e9), 1_000_000_000)


def _attempt_to_wire(attempt: Attempt) -> pb.Attempt:
    return pb.Attempt(
        candidate=attempt.candidate,
        outcome=pb.AttemptOutcome.Value(f"ATTEMPT_OUTCOME_{attempt.outcome.value}"),
        http_status=attempt.http_status,
        duration=_duration(attempt.duration_s),
        streamed=attempt.streamed,
    )


def _attempt_from_wire(message: pb.Attempt) -> Attempt:
    return Attempt(
        candidate=message.candidate,
        outcome=AttemptOutcome(pb.AttemptOutcome.Name(message.outcome).removeprefix("ATTEMPT_OUTCOME_")),
        http_status=_optional(message, "http_status"),
        duration_s=message.duration.ToNanoseconds() / 1e9,
        streamed=message.streamed,
    )


def _timings_from_wire(message: pb.Timings) -> Timings:
    return Timings(
        queue_s=message.queue.ToNanoseconds() / 1e9,
        encode_s=message.encode.ToNanoseconds() / 1e9,
        probe_s=message.probe.ToNanoseconds() / 1e9,
        policy_s=message.policy.ToNanoseconds() / 1e9,
        total_s=message.total.ToNanoseconds() / 1e9,
        cached=message.cached,
    )


def _ref_from_wire(message: pb.ArtifactRef) -> ArtifactRef:
    return ArtifactRef(message.name, message.version, message.digest)


def _optional(message: Any, field: str) -> Any:
    return getattr(message, field) if message.HasField(field) else None


def _integral(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _integral(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_integral(item) for item in value]
    # Beyond 2^53 a double no longer tells integers apart.
    if isinstance(value, float) and value.is_integer() and abs(value) <= 2**53:
        return int(value)
    return value


def _jsonable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _jsonable(item) for key, item in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return [_jsonable(item) for item in value]
    return value
