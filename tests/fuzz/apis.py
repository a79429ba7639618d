"""Draw what Anthropic's door, its upstreams and the doors of decision models get, as Python values or answers."""

from __future__ import annotations

from typing import Any

from tests.fuzz import chats
from tests.fuzz.values import CANDIDATES, POLICIES, TYPES, Values, to_json

JSON, EVENTS = "application/json", "text/event-stream"

GOOD_MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [{"type": "text", "text": "forty-two"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 3, "output_tokens": 2},
}

_DELTAS = ("text_delta", "input_json_delta", "thinking_delta", "signature_delta", "citations_delta")
_LINES = (": comment", "event: ping", "event: error", "id: 5", "retry: x", "nonsense", "data", "event: a\rb")


def message_body(v: Values) -> dict[str, Any]:
    """Return a body of Anthropic's Messages API, which is mostly well-formed."""
    body = chats.body(v) | v.some(
        system=lambda: v.one_of(v.text(), [v.usually(lambda: {"type": "text", "text": v.text()})]),
        tools=lambda: [v.usually(lambda: {"name": v.text(), "input_schema": v.one_of({"type": "object"}, v.value())})],
        tool_choice=lambda: {"type": v.one_of("auto", "any", "tool", "none", v.text()), "name": v.text()},
        thinking=lambda: {"type": v.one_of("enabled", "adaptive", v.text()), "budget_tokens": v.scalar()},
        metadata=lambda: {"user_id": v.scalar()},
        output_config=lambda: {"format": v.value(), "effort": v.scalar()},
        mcp_servers=v.value,
        context_management=v.value,
        stop_sequences=v.value,
    )
    if isinstance(body.get("messages"), list):
        body["messages"] += [v.usually(lambda: _spoken(v)) for _ in range(v.one_of(0, 1, 2))]
    return {"max_tokens": v.usually(lambda: 10)} | body


def _spoken(v: Values) -> dict[str, Any]:
    return {"role": v.one_of("user", "assistant", "user", v.text()), "content": [v.usually(lambda: _block(v))]}


def _block(v: Values) -> dict[str, Any]:
    kind = v.usually(lambda: v.random.choice(TYPES))
    return {"type": kind} | v.some(
        id=v.text,
        name=v.text,
        text=v.text,
        input=v.value,
        tool_use_id=v.text,
        content=lambda: v.one_of(v.text(), [v.usually(lambda: chats.part(v))]),
        source=lambda: {"type": v.one_of("base64", "url", "text"), "media_type": v.text(), "data": v.scalar()},
        thinking=v.scalar,
        signature=v.scalar,
        cache_control=v.value,
    )


def question_body(v: Values, path: str) -> dict[str, Any]:
    """Return a body of a door of decision models, which is mostly well-formed."""
    models = (*(f"elle/{policy}" for policy in POLICIES), *CANDIDATES, "elle", "auto", v.text())
    body: dict[str, Any] = {"model": v.usually(lambda: v.one_of(*models))}
    state = v.usually(lambda: v.one_of(v.text(), chats.messages(v), {"messages": chats.messages(v)}, v.value()))
    labels = v.usually(lambda: v.one_of(["SIMPLE", "COMPLEX"], [v.text() for _ in range(v.one_of(0, 1, 3, 300))]))
    several = labels if isinstance(labels, list) else ["SIMPLE"]
    asked: dict[str, Any] = {"type": v.usually(lambda: "choice")}
    if path == "/v1/systemone":
        criteria = {str(label): v.value() for label in several}
        questions: Any = {v.text(): v.usually(lambda: asked | {"criteria": criteria})}
        body["state"] = state
    else:
        choices = [v.usually(lambda label=label: {"value": label, "description": v.text()}) for label in several]
        questions = [v.usually(lambda: asked | {"choices": choices} | v.some(name=v.scalar))]
        # Not many questions of many labels: while the fuzzer writes 150 MB, nobody takes its other answers.
        questions *= v.one_of(1, 1, 2, 130 if len(several) < 300 else 2)
        body["input"] = state
    return body | {"questions": v.usually(lambda: questions)} | v.some(metadata=v.value)


def draw_message(v: Values, *, stream: bool) -> dict[str, Any]:
    """Return a random answer that is nearly one of Anthropic's API."""
    status = v.random.choice((200,) * 12 + (201, 204, 302, 400, 401, 404, 413, 422, 429, 500, 503, 529))
    kind = v.random.choice((EVENTS if stream else JSON,) * 9 + (JSON, EVENTS, "text/html", ""))
    if stream and v.chance(0.9):
        text = v.one_of("\n", "\n", "\n", "\r\n").join(_events(v))
    else:
        text = to_json(_error(v) if status >= 400 or v.chance(0.05) else _message(v))
    if v.chance(0.1):
        at = v.random.randrange(len(text) + 1)
        text = v.one_of(text[:at], text[:at] + v.one_of("\x00", "\xff", "\ud800", "\n\n", "}") + text[at:])
    return {"status": status, "type": kind, "body": text.encode(errors="surrogatepass").decode("latin-1")}


def good_message(*, stream: bool) -> dict[str, Any]:
    """Return the answer to every request of Anthropic's API that brings no answer of its own."""
    if not stream:
        return {"status": 200, "type": JSON, "body": to_json(GOOD_MESSAGE)}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": GOOD_MESSAGE | {"content": [], "stop_reason": None}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "forty-two"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}},
        {"type": "message_stop"},
    ]
    return {"status": 200, "type": EVENTS, "body": "".join(f"data: {to_json(event)}\n\n" for event in events)}


def _message(v: Values) -> Any:
    said = GOOD_MESSAGE | v.some(
        content=lambda: [v.usually(lambda: _block(v)) for _ in range(v.one_of(0, 1, 2))],
        usage=lambda: _usage(v),
        stop_reason=v.scalar,
        model=v.scalar,
        type=v.scalar,
        id=v.scalar,
    )
    if v.chance(0.05):
        said["content"] = v.value()
    return v.usually(lambda: said)


def _usage(v: Values) -> Any:
    names = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    return v.usually(lambda: {name: v.scalar() for name in names if v.chance(0.8)} | v.some(cache_creation=v.value))


def _error(v: Values) -> Any:
    return v.usually(lambda: {"type": "error", "error": v.usually(lambda: {"type": v.scalar(), "message": v.scalar()})})


def _events(v: Values) -> list[str]:
    lines = []
    for event in _event_values(v):
        if v.chance(0.1):
            lines.append(v.random.choice(_LINES))
        lines += ["data: " + to_json(v.usually(lambda event=event: event)), ""]
    return [*lines, ""]


def _event_values(v: Values) -> list[Any]:
    index = v.usually(lambda: v.one_of(0, 0, 0, 1, 10**9, -1))
    events: list[Any] = [{"type": "message_start", "message": _message(v)}] if v.chance(0.9) else []
    events.append({"type": v.one_of("ping", "content_block_start"), "index": index, "content_block": _block(v)})
    for _ in range(v.one_of(0, 1, 2, 5)):
        delta = {"type": v.usually(lambda: v.random.choice(_DELTAS))} | v.some(
            text=v.scalar, partial_json=v.scalar, thinking=v.scalar, signature=v.scalar, citation=v.value
        )
        events.append({"type": "content_block_delta", "index": index, "delta": v.usually(lambda delta=delta: delta)})
    if v.chance(0.1):
        events.append(v.one_of(_error(v), {}, {"type": v.value()}, {"type": "a\r\nevent: b"}, v.value()))
    if v.chance(0.9):
        delta = {"stop_reason": v.usually(lambda: "end_turn")}
        events.append({"type": "message_delta", "delta": v.usually(lambda: delta), "usage": _usage(v)})
    if v.chance(0.9):
        events.append({"type": "message_stop"})
    return events
