"""Convert between protobuf messages and the router's own values, such as queries and decisions. Nothing is decided."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from router.asking.caller_scores import scores_of
from router.asking.session_ids import session_id_of
from router.asking.task_keys import task_of
from router.decision import ArtifactRef, CandidateRisk, NearKind, NearKinds, Reason, RoutingDecision, ScoreUsed, Timings
from router.errors import InvalidRequestError
from router.pb import router_service_pb2 as service_pb
from router.pb import routing_pb2 as pb
from router.quoting import kind_of
from router.values import NO_OVERRIDES, Message, Overrides, RouteQuery
from router.wire.structs import dict_from_request, struct_from_request

#: Largest message in either direction. It leaves room for batches and images, and it is above the router's bound on
#: prompts, so that a prompt that is too long gets the router's own error, which says what to do.
MAX_MESSAGE_BYTES = 64 * 1024 * 1024


def query_from_wire(request: service_pb.RouteRequest, headers: Mapping[str, str] | None = None) -> RouteQuery:
    """Return the query that a protobuf request holds.

    headers: of the call that brought this request alone; they may name its session, its task and its scores. None for a
        request of a batch, which says all of that itself.

    Raises InvalidRequestError if the message lacks a required field, or for a task or scores that nobody can have.
    """
    kind = request.WhichOneof("input")
    if kind is None:
        raise InvalidRequestError("one of `chat` and `prompt` must be set, got neither.", field="input")
    if kind == "prompt":
        messages: tuple[Message, ...] = ({"role": "user", "content": request.prompt},)
    else:
        messages = tuple([_message_from_wire(message, i) for i, message in enumerate(request.chat.messages)])
    parameters = dict_from_request(request.parameters, "parameters") if request.HasField("parameters") else {}
    session_id, task, scores = request.session_id, request.task, dict(request.scores)
    if headers is not None:
        session_id = session_id_of(session_id, headers, parameters)
        task = task_of(task, headers, parameters)
        scores = scores_of(scores, headers, parameters)
    return RouteQuery(
        messages=messages,
        overrides=_overrides_from_wire(request.overrides) if request.HasField("overrides") else NO_OVERRIDES,
        session_id=session_id,
        task=task,
        scores=scores,
        escalated_from=request.escalated_from,
        parameters=parameters,
    )


def query_to_wire(query: RouteQuery) -> service_pb.RouteRequest:
    """Return the protobuf request that carries a query; the client sends it.

    Raises InvalidRequestError if a message is not in the OpenAI shape, or if protobuf cannot hold a value.
    """
    o = query.overrides
    try:
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
        request = service_pb.RouteRequest(
            overrides=overrides,
            session_id=query.session_id,
            task=query.task,
            escalated_from=query.escalated_from,
        )
        request.scores.update(query.scores)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidRequestError(
            f"overrides, session_id, task and scores must hold text in valid Unicode and numbers: {error}.",
            field="overrides",
        ) from error
    request.chat.messages.extend(_message_to_wire(message, i) for i, message in enumerate(query.messages))
    request.parameters.CopyFrom(struct_from_request(query.parameters, "parameters"))
    return request


def decision_to_wire(decision: RoutingDecision) -> pb.Decision:
    """Return the protobuf message that carries a decision record."""
    message = pb.Decision(
        decision_id=decision.decision_id,
        requested=decision.requested,
        chosen=decision.chosen,
        chosen_model=decision.chosen_model,
        reason=_REASONS.get(decision.reason, pb.REASON_UNSPECIFIED),
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
        task=decision.task,
        task_known=decision.task_known,
        task_labels=decision.task_labels,
        would_choose=decision.would_choose,
        propensity=decision.propensity,
        escalated_from=decision.escalated_from,
    )
    # Candidates are filled in inside the message, because protobuf copies a message that is passed as an argument.
    for c in decision.candidates:
        message.candidates.add(
            candidate=c.candidate,
            model=c.model,
            raw=c.raw,
            risk=c.risk,
            expected_cost_usd=c.expected_cost_usd,
            eligible=c.eligible,
            ineligible_because=c.ineligible_because,
            dropped_parameters=c.dropped_parameters,
        )
    _fill_ref(message.policy, decision.policy)
    if decision.probe is not None:
        _fill_ref(message.probe, decision.probe)
    _fill_timings(message.timings, decision.timings)
    if decision.kinds is not None:
        message.kinds.known = decision.kinds.known
        for kind in decision.kinds.nearest:
            message.kinds.nearest.add(name=kind.name, share=kind.share, assumed=kind.assumed)
    if decision.score is not None:
        message.score.name, message.score.fault = decision.score.name, decision.score.fault
        if decision.score.value is not None:
            message.score.value = decision.score.value
    return message


def decision_from_wire(message: pb.Decision) -> RoutingDecision:
    """Return the decision record that a protobuf message carries; this is the inverse of `decision_to_wire`."""
    return RoutingDecision(
        decision_id=message.decision_id,
        requested=message.requested,
        chosen=message.chosen,
        chosen_model=message.chosen_model,
        reason=_REASONS_BY_NUMBER.get(message.reason, Reason.UNKNOWN),
        difficulty=_optional(message, "difficulty"),
        candidates=tuple(
            CandidateRisk(
                candidate=c.candidate,
                model=c.model,
                raw=_optional(c, "raw"),
                risk=_optional(c, "risk"),
                expected_cost_usd=_optional(c, "expected_cost_usd"),
                ineligible_because=tuple(c.ineligible_because),
                dropped_parameters=tuple(c.dropped_parameters),
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
        task=message.task,
        task_known=message.task_known,
        task_labels=message.task_labels,
        would_choose=message.would_choose,
        kinds=_kinds_from_wire(message.kinds) if message.HasField("kinds") else None,
        score=_score_from_wire(message.score) if message.HasField("score") else None,
        propensity=message.propensity if message.HasField("propensity") else 1.0,
        escalated_from=message.escalated_from,
    )


def ref_to_wire(ref: ArtifactRef) -> pb.ArtifactRef:
    """Return the protobuf message that carries an artifact's name, version and digest."""
    return pb.ArtifactRef(name=ref.name, version=ref.version, digest=ref.digest)


# A value that only a newer server knows becomes UNKNOWN here; when it is sent on, it becomes UNSPECIFIED.
_REASONS: Mapping[Reason, pb.Reason.ValueType] = {
    reason: pb.Reason.Value(f"REASON_{reason.value}") for reason in Reason if reason is not Reason.UNKNOWN
}
_REASONS_BY_NUMBER = {number: reason for reason, number in _REASONS.items()}

#: Fields of a chat message that have a protobuf field of their own; all others travel in `extra`.
_TYPED = frozenset({"role", "content", "name", "tool_calls", "tool_call_id"})


def _message_from_wire(message: pb.ChatMessage, index: int) -> Message:
    where = f"messages[{index}]"
    plain: dict[str, Any] = {"role": message.role}
    kind = message.WhichOneof("content")
    if kind == "text":
        plain["content"] = message.text
    elif kind == "parts":
        plain["content"] = [
            _part_from_wire(part, f"{where}.content[{i}]") for i, part in enumerate(message.parts.parts)
        ]
    else:
        plain["content"] = None
    if message.HasField("name"):
        plain["name"] = message.name
    if message.tool_calls:
        plain["tool_calls"] = [dict_from_request(call, f"{where}.tool_calls") for call in message.tool_calls]
    if message.HasField("tool_call_id"):
        plain["tool_call_id"] = message.tool_call_id
    return dict_from_request(message.extra, where) | plain if message.HasField("extra") else plain


def _part_from_wire(part: pb.ContentPart, where: str) -> dict[str, Any]:
    kind = part.WhichOneof("part")
    if kind == "text":
        return {"type": "text", "text": part.text}
    if kind == "image_url":
        image = {"url": part.image_url.url}
        if part.image_url.HasField("detail"):
            image["detail"] = part.image_url.detail
        return {"type": "image_url", "image_url": image}
    if kind == "other":
        return dict_from_request(part.other, where)
    raise InvalidRequestError(f"{where} must set one of text, image_url and other, got none.", field=where)


def _message_to_wire(message: Message, index: int) -> pb.ChatMessage:
    where = f"messages[{index}]"
    if not isinstance(message, Mapping):
        raise InvalidRequestError(f"{where} must be an object, got {kind_of(message)}.", field=where)
    chat = pb.ChatMessage()
    try:
        chat.role = message.get("role", "")
        content = message.get("content")
        if isinstance(content, str):
            chat.text = content
        elif content is not None:
            chat.parts.CopyFrom(pb.ContentParts(parts=[_part_to_wire(part, where) for part in content]))
        for field in ("name", "tool_call_id"):
            if message.get(field) is not None:
                setattr(chat, field, message[field])
        calls = message.get("tool_calls") or ()
        chat.tool_calls.extend(struct_from_request(call, f"{where}.tool_calls") for call in calls)
    except (TypeError, UnicodeEncodeError) as error:
        raise InvalidRequestError(f"{where} must be an OpenAI chat message: {error}.", field=where) from error
    if extra := {key: value for key, value in message.items() if key not in _TYPED}:
        chat.extra.CopyFrom(struct_from_request(extra, where))
    return chat


def _part_to_wire(part: Mapping[str, Any], where: str) -> pb.ContentPart:
    if isinstance(part, Mapping) and part.get("type") == "text" and part.keys() == {"type", "text"}:
        return pb.ContentPart(text=part["text"])
    return pb.ContentPart(other=struct_from_request(part, f"{where}.content"))


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
        # Protobuf's own conversion takes twice as long.
        duration.seconds, duration.nanos = divmod(round(seconds * 1e9), 1_000_000_000)


def _kinds_from_wire(message: pb.NearKinds) -> NearKinds:
    return NearKinds(tuple(NearKind(kind.name, kind.share, kind.assumed) for kind in message.nearest), message.known)


def _score_from_wire(message: pb.CallerScore) -> ScoreUsed:
    return ScoreUsed(message.name, _optional(message, "value"), message.fault)


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
