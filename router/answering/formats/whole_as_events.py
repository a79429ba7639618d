"""Write an answer that came in one piece as the events of the stream that was asked for (`events_of_whole`)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from router.answering.formats.chat_chunks import chunk_of
from router.answering.formats.readable_answers import are_objects
from router.answering.formats.reported_errors import error_in

#: The statuses of a response of the Responses API with which its answer ends.
_ENDED = frozenset({"completed", "incomplete"})


def events_of_whole(answer: Any) -> list[Any]:
    """Return the events that say what a whole answer says, in OpenAI's or Anthropic's format.

    An error, and anything that is no answer, is its only event.
    """
    if not isinstance(answer, dict) or error_in(answer) is not None:
        return [answer]
    if answer.get("type") == "message" and are_objects(answer.get("content")):
        return list(_of_message(answer))
    if answer.get("object") == "response" and answer.get("status") in _ENDED and are_objects(answer.get("output")):
        return [{**event, "sequence_number": number} for number, event in enumerate(_of_response(answer))]
    return [chunk_of(answer)]


def _of_message(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield {"type": "message_start", "message": {**message, "content": [], "stop_reason": None, "stop_sequence": None}}
    for index, block in enumerate(message["content"]):
        empty, deltas = _in_deltas(block)
        yield {"type": "content_block_start", "index": index, "content_block": {**block, **empty}}
        yield from ({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas)
        yield {"type": "content_block_stop", "index": index}
    ends = {name: message.get(name) for name in ("stop_reason", "stop_sequence")}
    usage = {"usage": message["usage"]} if isinstance(message.get("usage"), Mapping) else {}
    yield {"type": "message_delta", "delta": ends, **usage}
    yield {"type": "message_stop"}


def _in_deltas(block: Mapping[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return what of a block is empty at its start, and the deltas that bring it."""
    kind = block.get("type")
    if kind == "text":
        return {"text": ""}, [{"type": "text_delta", "text": block.get("text")}]
    if kind == "thinking":
        signed = {"type": "signature_delta", "signature": block.get("signature")}
        return {"thinking": "", "signature": ""}, [
            {"type": "thinking_delta", "thinking": block.get("thinking")},
            signed,
        ]
    if kind == "tool_use":
        return {"input": {}}, [{"type": "input_json_delta", "partial_json": json.dumps(block.get("input"))}]
    return {}, []


def _of_response(response: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield {"type": "response.created", "response": {**response, "status": "in_progress", "output": [], "usage": None}}
    for index, item in enumerate(response["output"]):
        where = {"item_id": item.get("id"), "output_index": index}
        if item.get("type") == "message" and are_objects(item.get("content")):
            yield {"type": "response.output_item.added", "output_index": index, "item": {**item, "content": []}}
            for number, part in enumerate(item["content"]):
                yield from _of_part(part, {**where, "content_index": number})
        elif item.get("type") == "function_call":
            yield {"type": "response.output_item.added", "output_index": index, "item": {**item, "arguments": ""}}
            said, kind = item.get("arguments"), "response.function_call_arguments"
            yield {"type": f"{kind}.delta", **where, "delta": said}
            yield {"type": f"{kind}.done", **where, "name": item.get("name"), "arguments": said}
        else:
            yield {"type": "response.output_item.added", "output_index": index, "item": item}
        yield {"type": "response.output_item.done", "output_index": index, "item": item}
    yield {"type": f"response.{response['status']}", "response": response}


def _of_part(part: dict[str, Any], where: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    if part.get("type") != "output_text":
        yield {"type": "response.content_part.added", **where, "part": part}
    else:
        yield {"type": "response.content_part.added", **where, "part": {**part, "text": ""}}
        yield {"type": "response.output_text.delta", **where, "delta": part.get("text"), "logprobs": []}
        yield {"type": "response.output_text.done", **where, "text": part.get("text"), "logprobs": []}
    yield {"type": "response.content_part.done", **where, "part": part}
