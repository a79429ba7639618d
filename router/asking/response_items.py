"""Read input items of OpenAI's Responses API: which turn each of them is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from router.values import Message

#: Items that are neither messages nor calls nor their outputs. They count as input, and ask nothing.
_NOTES = frozenset(
    {"reasoning", "compaction", "compaction_trigger", "item_reference", "program", "mcp_list_tools"}
    | {"mcp_approval_request"}
)

#: The item that adds tools. It has a role, but no content.
TOOLS_ITEM = "additional_tools"

#: Items with which a caller answers a model, besides those whose type ends in `_output`.
_ANSWERS = frozenset({"mcp_approval_response"})

#: Fields of items that hold pictures in base64, or what the model does not read.
_UNREAD_FIELDS: Mapping[str, frozenset[str]] = {"image_generation_call": frozenset({"result"})}


def turn_of_item(item: Message, *, only_known: bool) -> tuple[str, Any] | None:
    """Return the role and the content of an item that is no message, or None for what is no such item.

    The content has the shape of a message's content. For example: a `function_call_output` is a turn of the role `tool`
    with its output.

    only_known: True if an item of an unknown type counts as no item. Otherwise it is a note of the assistant, because
        the API gets new items every few weeks.
    """
    kind = item.get("type")
    if kind == TOOLS_ITEM:
        return "developer", [{**item, "type": "reasoning"}]
    if item.get("role") or kind == "message" or not (isinstance(kind, str) or (kind is None and not only_known)):
        return None
    # An item reference may come without its type.
    kind = kind or "item_reference"
    if kind.endswith("_output") or kind in _ANSWERS:
        return "tool", _output_of(item)
    unread = _UNREAD_FIELDS.get(kind, frozenset())
    read = {key: value for key, value in item.items() if key not in unread}
    if kind.endswith("_call"):
        return "assistant", [read]
    if kind in _NOTES or not only_known:
        # A note of the model is read in the same way, whatever it is.
        return "assistant", [{**read, "type": "reasoning"}]
    return None


def _output_of(item: Message) -> Any:
    """Return the output of an item as a message's content: a text, or a list of parts that have types."""
    output = item.get("output")
    if output is None:
        # Some outputs have other names, such as the `result` of a program.
        output = {key: value for key, value in item.items() if key not in {"type", "id", "call_id", "status"}}
    if isinstance(output, str):
        return output
    parts = output if isinstance(output, Sequence) else [output]
    return [part if _has_type(part) else {"type": "tool_result", "content": part} for part in parts]


def _has_type(part: Any) -> bool:
    return isinstance(part, Mapping) and isinstance(part.get("type"), str)
