"""Name what in a request only a candidate understands that speaks the API of the request itself (`native_needs`)."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from typing import Any

from router.asking.response_items import TOOLS_ITEM
from router.values import ApiFormat, RouteQuery

#: Items that chat completions can say too, so that every candidate can have them.
_COMMON_ITEMS = frozenset(
    {"message", "reasoning", "web_search_call", "function_call", "function_call_output", "custom_tool_call"}
    | {"custom_tool_call_output", TOOLS_ITEM}
)

#: Tools that chat completions have too. All others are run by the provider, or have items of their own.
_COMMON_TOOLS = frozenset({"function", "custom", "namespace"})
_SEARCH_TOOL = "web_search"

#: The same of Anthropic's API: its own tools, run by it or by the caller, are known to its own models only.
_COMMON_ANTHROPIC_TOOLS = frozenset({"custom"})

#: Fields of Anthropic's API that add tools which only its own service can run, or say where it must answer.
_ANTHROPIC_FIELDS = ("mcp_servers", "container", "inference_geo")

#: Values of these that ask nothing of a candidate.
_ASKING_NOTHING: tuple[Any, ...] = (None, "", [], {}, "global")

#: Where the bytes of a part are that chat completions can say too.
_COMMON_SOURCES: Mapping[str, frozenset[str]] = {
    "document": frozenset({"base64", "text", "content"}),
    "image": frozenset({"base64", "url"}),
}

#: Fields by which a request goes on from what its provider keeps, or leaves it there to be fetched.
_KEPT_FIELDS = ("previous_response_id", "conversation", "prompt", "background")


def native_needs(query: RouteQuery) -> tuple[str, ...]:
    """Return what in a request only a candidate understands that speaks its API, such as `conversation`.

    Of the Responses API these are the names of fields and the types of items and tools, each once. Of Anthropic's API
    they are those of fields, tools and parts; of the old completions it is the prompt, which is no chat. Chats need
    nothing of the kind.
    """
    if query.api_format is ApiFormat.OPENAI_COMPLETIONS:
        return ("prompt",)
    if query.api_format is ApiFormat.ANTHROPIC_MESSAGES:
        return tuple(dict.fromkeys(_native_in_messages(query)))
    if query.api_format is not ApiFormat.OPENAI_RESPONSES:
        return ()
    fields = [name for name in _KEPT_FIELDS if query.parameters.get(name)]
    items = [kind for item in query.messages if (kind := _kind_of_item(item)) not in _COMMON_ITEMS]
    items += [part for item in query.messages for part in _uncommon_parts(item)]
    added = [item.get("tools") for item in query.messages if _kind_of_item(item) == TOOLS_ITEM]
    tools = [
        kind for offered in (query.parameters.get("tools"), *added) for kind in _uncommon_tools(offered, _COMMON_TOOLS)
    ]
    return tuple(dict.fromkeys([*fields, *items, *tools]))


def _kind_of_item(item: Any) -> str:
    kind = item.get("type") if isinstance(item, Mapping) else None
    if isinstance(kind, str):
        return kind
    return "message" if isinstance(item, Mapping) and item.get("role") else "item_reference"


def _uncommon_tools(tools: Any, common: Container[str]) -> Iterator[str]:
    """Yield the types of the tools that are none of the common ones. Every candidate can be asked to search."""
    for tool in tools if isinstance(tools, list | tuple) else ():
        kind = tool.get("type") if isinstance(tool, Mapping) else None
        if isinstance(kind, str) and kind not in common and not kind.startswith(_SEARCH_TOOL):
            yield kind


def _uncommon_parts(item: Any) -> Iterator[str]:
    """Yield what the parts of an item refer to that only its provider has. Chats have pictures by their URL alone."""
    content = item.get("content") if isinstance(item, Mapping) else None
    for part in content if isinstance(content, list | tuple) else ():
        if isinstance(part, Mapping) and part.get("type") == "input_image" and part.get("file_id"):
            yield "input_image of a file"


def _native_in_messages(query: RouteQuery) -> Iterator[str]:
    yield from (name for name in _ANTHROPIC_FIELDS if query.parameters.get(name) not in _ASKING_NOTHING)
    yield from _uncommon_tools(query.parameters.get("tools"), _COMMON_ANTHROPIC_TOOLS)
    for message in query.messages:
        yield from _native_in_parts(message.get("content"))


def _native_in_parts(content: Any) -> Iterator[str]:
    for part in content if isinstance(content, list | tuple) else ():
        kind = part.get("type") if isinstance(part, Mapping) else None
        if not isinstance(kind, str):
            continue
        if kind == "container_upload":
            yield kind
        elif kind == "tool_result":
            yield from _native_in_parts(part.get("content"))
        source = part.get("source") if kind in _COMMON_SOURCES else None
        if isinstance(source, Mapping) and source.get("type") not in _COMMON_SOURCES[kind]:
            yield f"{kind} of a {source.get('type')}"
