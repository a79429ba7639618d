"""Turn chats of OpenAI's chat completions into requests of the Responses API that say the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def as_responses(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a request body of the Responses API that asks the same as this body of a chat completion."""
    items = [item for message in body["messages"] for item in _items(message)]
    renamed = {"max_tokens": "max_output_tokens", "temperature": "temperature", "user": "user"}
    more: dict[str, Any] = {renamed[key]: body[key] for key in renamed if key in body}
    if items and items[0].get("role") == "system":
        said = items.pop(0)["content"]
        # Instructions are one text.
        more["instructions"] = said if isinstance(said, str) else "\n".join(part["text"] for part in said)
    if "tools" in body:
        more["tools"] = [{"type": "function", **tool["function"]} for tool in body["tools"]]
    if "response_format" in body:
        more["text"] = {"format": {"type": "json_schema", **body["response_format"]["json_schema"]}}
    return {"input": items, **more}


def _items(message: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    content = message.get("content")
    if message["role"] == "tool":
        yield {"type": "function_call_output", "call_id": message["tool_call_id"], "output": content}
        return
    calls = message.get("tool_calls") or []
    if content or not calls:
        parts = [_part(part) for part in content] if isinstance(content, list) else content
        yield {"role": message["role"], "content": parts}
    for call in calls:
        yield {"type": "function_call", "call_id": call["id"], **call["function"]}


def _part(part: Mapping[str, Any]) -> dict[str, Any]:
    if part["type"] == "image_url":
        return {"type": "input_image", "image_url": part["image_url"]["url"], "detail": "auto"}
    return {"type": "input_text", "text": part["text"]}
