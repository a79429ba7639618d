"""Generated chats, seeded: languages, code, tools, pictures, schemas, system blocks. Our own text."""

from __future__ import annotations

import random
from typing import Any

WISHES = {
    "en": "Please explain how {what} works, and why it matters for {who}.",
    "de": "Bitte erkläre mir, wie {what} funktioniert und warum das für {who} wichtig ist.",
    "fr": "Explique-moi comment fonctionne {what} et pourquoi c'est important pour {who}.",
    "es": "Explícame cómo funciona {what} y por qué le importa a {who}.",
    "ru": "Объясни, пожалуйста, как работает {what} и почему это важно для {who}.",
    "zh": "请解释{what}是如何运作的，以及它对{who}为什么重要。",
    "ja": "{what}の仕組みと、{who}にとってなぜ大切なのかを説明してください。",
    "ar": "اشرح لي كيف يعمل {what} ولماذا يهم {who}.",
}
WHAT = ("a heat pump", "binary search", "inflation", "TCP slow start", "photosynthesis", "an escrow account", "e^{iπ}")
WHO = ("a farmer", "my grandmother", "a compiler writer", "two students", "the city council \U0001f600")
CODE = "```python\ndef f(n):\n    return n if n < 2 else f(n - 1) + f(n - 2)\n```\nWhy is this slow for n = {n}?"
PIXEL = "data:image/png;base64,iVBORw0KGgo="
TOOL = {
    "type": "function",
    "function": {"name": "look_up", "parameters": {"type": "object", "properties": {"key": {"type": "string"}}}},
}
SCHEMA = {"name": "reply", "schema": {"type": "object", "properties": {"answer": {"type": "string"}}}}


def conversations(n: int, seed: int = 0) -> list[dict[str, Any]]:
    """Return bodies in the OpenAI shape, without `model`, of which no two are alike."""
    rng = random.Random(seed)
    return [_conversation(rng, number) for number in range(n)]


def _conversation(rng: random.Random, number: int) -> dict[str, Any]:
    messages: list[dict[str, Any]] = _system(rng)
    for turn in range(rng.choice((1, 1, 1, 2, 3, 5))):
        if turn:
            messages.append({"role": "assistant", "content": f"Certainly, in {turn} steps: first this, then that."})
        messages.append({"role": "user", "content": _wish(rng, number)})
    body: dict[str, Any] = {"messages": messages}
    if rng.random() < 0.15:
        body |= {"tools": [TOOL], "tool_choice": "auto"}
        if rng.random() < 0.5:
            messages += _tool_loop(number)
    if rng.random() < 0.1:
        _last_human(messages)["content"] = _with_picture(_last_human(messages)["content"])
    if rng.random() < 0.1:
        body["response_format"] = {"type": "json_schema", "json_schema": SCHEMA}
    if rng.random() < 0.3:
        body["max_tokens"] = rng.choice((64, 500, 3000))
    if rng.random() < 0.2:
        body |= {"temperature": 0.5, "user": f"user-{number}"}
    return body


def _system(rng: random.Random) -> list[dict[str, Any]]:
    text = rng.choice(("Be brief.", "You are a patient teacher.", "Antworte auf Deutsch."))
    block = {"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}
    return rng.choice(([], [], [{"role": "system", "content": text}], [{"role": "system", "content": [block]}]))


def _wish(rng: random.Random, number: int) -> Any:
    if rng.random() < 0.15:
        text = CODE.format(n=number)
    else:
        text = f"{WISHES[rng.choice(list(WISHES))].format(what=rng.choice(WHAT), who=rng.choice(WHO))} ({number})"
    if rng.random() < 0.05:
        text = "go ahead"
    if rng.random() < 0.1:
        text = text + " " + "And consider what was said before. " * rng.randrange(1, 60)
    return [{"type": "text", "text": text}] if rng.random() < 0.2 else text


def _with_picture(content: Any) -> list[dict[str, Any]]:
    parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
    return [*parts, {"type": "image_url", "image_url": {"url": PIXEL}}]


def _tool_loop(number: int) -> list[dict[str, Any]]:
    call = {"id": f"call_{number}", "type": "function", "function": {"name": "look_up", "arguments": '{"key": "a"}'}}
    return [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": f"call_{number}", "content": "found: 42"},
    ]


def _last_human(messages: list[dict[str, Any]]) -> dict[str, Any]:
    return next(message for message in reversed(messages) if message["role"] == "user")
