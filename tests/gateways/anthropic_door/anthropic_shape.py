"""Turn chats of OpenAI's API into requests of Anthropic's Messages API that say the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def as_anthropic(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a request body of Anthropic's API that asks the same as this body of a chat completion."""
    messages = [_message(message) for message in body["messages"] if message["role"] != "system"]
    system = [message["content"] for message in body["messages"] if message["role"] == "system"]
    kept = {key: body[key] for key in ("max_tokens", "temperature") if key in body}
    more: dict[str, Any] = {"system": system[0]} if system else {}
    if "tools" in body:
        functions = [tool["function"] for tool in body["tools"]]
        more["tools"] = [{"name": one["name"], "input_schema": one["parameters"]} for one in functions]
        more["tool_choice"] = {"type": "auto"}
    if "response_format" in body:
        schema = body["response_format"]["json_schema"]["schema"]
        more["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
    if "user" in body:
        more["metadata"] = {"user_id": body["user"]}
    return {"messages": messages, **kept, **more}


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    if message["role"] == "tool":
        result = {"type": "tool_result", "tool_use_id": message["tool_call_id"], "content": message["content"]}
        return {"role": "user", "content": [result]}
    if message.get("tool_calls"):
        functions = [(call["id"], call["function"]) for call in message["tool_calls"]]
        calls = [
            {"type": "tool_use", "id": name, "name": function["name"], "input": json.loads(function["arguments"])}
            for name, function in functions
        ]
        said = [{"type": "text", "text": message["content"]}] if message.get("content") else []
        return {"role": "assistant", "content": said + calls}
    content = message["content"]
    if isinstance(content, list):
        content = [_part(part) for part in content]
    return {"role": message["role"], "content": content}


def _part(part: Mapping[str, Any]) -> dict[str, Any]:
    if part["type"] != "image_url":
        return dict(part)
    head, _, data = part["image_url"]["url"].partition(";base64,")
    return {
        "type": "image",
        "source": {"type": "base64", "media_type": head.removeprefix("data:"), "data": data},
    }
