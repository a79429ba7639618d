"""Draw random chat bodies in the shapes of OpenAI and Anthropic, as Python values (see `values.Raw`)."""

from __future__ import annotations

from typing import Any

from tests.fuzz.values import CANDIDATES, ITEMS, POLICIES, ROLES, TYPES, Values


def body(v: Values) -> dict[str, Any]:
    """Return a chat body as the HTTP door and Envoy get it, which is mostly well-formed."""
    chat: dict[str, Any] = {}
    if v.chance(0.99):
        chat["model"] = v.usually(lambda: model(v))
    if v.chance(0.99):
        chat["messages"] = v.usually(lambda: messages(v))
    if v.chance(0.3):
        chat["input"] = v.usually(lambda: v.one_of(v.text(), items(v)))
    if v.chance(0.1):
        chat["prompt"] = v.usually(lambda: v.one_of(v.text(), [v.text()], [1, 2], [[1, 2]]))
    if v.chance(0.2):
        chat["stream"] = v.usually(lambda: v.one_of(True, False, None))
    return chat | parameters(v)


def model(v: Values) -> str:
    name = v.one_of(*(f"elle/{policy}" for policy in POLICIES), *CANDIDATES, "router-mf-0.5", "router-main-.1")
    return str(name) if v.chance(0.95) else str(name) + v.text()


def messages(v: Values) -> list[Any]:
    count = v.one_of(0, 1, 1, 1, 2, 3, 5, 40) if v.wild else v.one_of(1, 1, 2, 3)
    return [v.usually(lambda: message(v)) for _ in range(count)]


def message(v: Values) -> dict[str, Any]:
    said: dict[str, Any] = {
        "role": v.random.choice(ROLES if v.wild else ROLES[:8]),
        "content": v.usually(lambda: content(v)),
    }
    if v.chance(0.1):
        said["tool_calls"] = v.usually(lambda: [v.usually(lambda: tool_call(v)) for _ in range(v.random.randrange(3))])
    if v.chance(0.03):
        said = {
            "type": v.one_of("function_call", "function_call_output", "reasoning"),
            "output": v.value(),
            "id": v.text(),
        }
    return said | v.some(name=v.text, tool_call_id=v.text, function_call=lambda: tool_call(v), refusal=v.text)


def items(v: Values) -> list[Any]:
    """Return input items of the Responses API."""
    return [v.usually(lambda: message(v) if v.chance(0.7) else item(v)) for _ in range(v.random.randrange(4))]


def item(v: Values) -> dict[str, Any]:
    said = {"type": v.usually(lambda: v.random.choice(ITEMS))}
    return said | v.some(
        output=v.value,
        arguments=v.text,
        name=v.text,
        call_id=v.text,
        id=v.text,
        summary=v.value,
        content=v.value,
        tools=v.value,
        action=v.value,
        input=v.text,
        encrypted_content=v.text,
    )


def content(v: Values) -> Any:
    if v.chance(0.6):
        return v.text()
    if v.chance(0.1):
        return None
    return [v.usually(lambda: part(v)) for _ in range(v.random.randrange(4))]


def part(v: Values) -> dict[str, Any]:
    said = {"type": v.usually(lambda: v.random.choice(TYPES))}
    return said | v.some(
        text=v.text,
        image_url=lambda: {"url": v.text(), "detail": v.text()},
        content=lambda: v.usually(lambda: [part(v)]),
        source=lambda: {"type": "text", "data": v.value()},
        input=v.value,
        output=v.value,
    )


def tool_call(v: Values) -> dict[str, Any]:
    return {"id": v.text(), "type": "function", "function": {"name": v.text(), "arguments": v.usually(v.text)}}


def parameters(v: Values) -> dict[str, Any]:
    if v.chance(0.5):
        return {}
    return v.some(
        tools=lambda: [
            v.usually(lambda: {"type": "function", "function": {"name": v.text(), "parameters": v.value()}})
        ],
        functions=lambda: [{"name": v.text()}],
        response_format=lambda: {"type": v.one_of("json_schema", "text", v.text()), "json_schema": v.value()},
        modalities=lambda: v.one_of(["audio"], "audio", ["text"], [v.value()]),
        max_tokens=lambda: v.one_of(1, 100, 2**31, 2**70, 0.5, True),
        max_completion_tokens=lambda: v.random.randrange(10),
        max_output_tokens=v.scalar,
        temperature=v.scalar,
        logit_bias=lambda: {v.text(): v.scalar()},
        metadata=lambda: v.usually(lambda: {v.one_of("session_id", "user_id", "conversation_id"): v.text()}),
        session_id=v.text,
        conversation=lambda: v.one_of({"id": v.text()}, v.text()),
        stream_options=lambda: v.one_of({"include_usage": v.scalar()}, v.text()),
        system=v.value,
        instructions=v.text,
        text=lambda: {"format": {"type": "json_schema"}},
        output_config=lambda: {"format": v.value()},
        reasoning=lambda: {"effort": v.text(), "summary": v.scalar()},
        previous_response_id=v.scalar,
        store=v.scalar,
        tool_choice=v.value,
        user=v.text,
        stop=v.value,
        n=v.scalar,
    )
