"""Read input items of OpenAI's Responses API: which turn each is, and which need a candidate that speaks that API."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from router.values import ApiFormat, Message, RouteQuery

#: Items that are neither messages nor calls nor their outputs. They count as input, and ask nothing.
_NOTES = frozenset(
    {"reasoning", "compaction", "compaction_trigger", "item_reference", "program", "mcp_list_tools"}
    | {"mcp_approval_request"}
)

#: The item that adds tools. It has a role, but no content.
_TOOLS_ITEM = "additional_tools"

#: Items with which a caller answers a model, besides those whose type ends in `_output`.
_ANSWERS = frozenset({"mcp_approval_response"})

#: Fields of items that hold pictures in base64, or what the model does not read.
_UNREAD_FIELDS: Mapping[str, frozenset[str]] = {"image_generation_call": frozenset({"result"})}

#: Items that chat completions can say too, so that every candidate can have them.
_COMMON_ITEMS = frozenset(
    {"message", "reasoning", "web_search_call", "function_call", "function_call_output", "custom_tool_call"}
    | {"custom_tool_call_output", _TOOLS_ITEM}
)

#: Tools that chat completions have too. All others are run by the provider, or have items of their own.
_COMMON_TOOLS = frozenset({"function", "custom", "namespace"})
_SEARCH_TOOL = "web_search"

#: Fields by which a request goes on from what its provider keeps, or leaves it there to be fetched.
_KEPT_FIELDS = ("previous_response_id", "conversation", "prompt", "background")


def turn_of_item(item: Message, *, only_known: bool) -> tuple[str, Any] | None:
    """Return the role and the content of an item that is no message, or None for what is no such item.

    The content has the shape of a message's content. For example: a `function_call_output` is a turn of the role `tool`
    with its output.

    only_known: True if an item of an unknown type counts as no item. Otherwise it is a note of the assistant, because
        the API gets new items every few weeks.
    """
    kind = item.get("type")
    if kind == _TOOLS_ITEM:
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


def native_needs(query: RouteQuery) -> tuple[str, ...]:
    """Return what in a request only a candidate understands that speaks its API, such as `conversation`.

    Of the Responses API these are the names of fields and the types of items and tools, each once; of the old
    completions it is the prompt, which is no chat. Chats need nothing of the kind.
    """
    if query.api_format is ApiFormat.OPENAI_COMPLETIONS:
        return ("prompt",)
    if query.api_format is not ApiFormat.OPENAI_RESPONSES:
        return ()
    fields = [name for name in _KEPT_FIELDS if query.parameters.get(name)]
    items = [kind for item in query.messages if (kind := _kind_of_item(item)) not in _COMMON_ITEMS]
    added = [item.get("tools") for item in query.messages if _kind_of_item(item) == _TOOLS_ITEM]
    tools = [kind for offered in (query.parameters.get("tools"), *added) for kind in _uncommon_tools(offered)]
    return tuple(dict.fromkeys([*fields, *items, *tools]))


def _kind_of_item(item: Any) -> str:
    kind = item.get("type") if isinstance(item, Mapping) else None
    if isinstance(kind, str):
        return kind
    return "message" if isinstance(item, Mapping) and item.get("role") else "item_reference"


def _uncommon_tools(tools: Any) -> Iterator[str]:
    for tool in tools if isinstance(tools, list | tuple) else ():
        kind = tool.get("type") if isinstance(tool, Mapping) else None
        if isinstance(kind, str) and kind not in _COMMON_TOOLS and not kind.startswith(_SEARCH_TOOL):
            yield kind


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
