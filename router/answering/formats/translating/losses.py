"""Name what of a request has no place in a chat completion, so that its caller is told (`lost_of`).

Names are those of the fields, such as `truncation`, `reasoning.summary`, `tools.defer_loading`, or
`content.server_tool_use` for a content part. Marks for prompt caches are not named where they stand at parts and tools:
they change what an answer costs, and some candidates get them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from router.values import ApiFormat, RouteQuery

#: Fields of Anthropic's API about its own service, which nobody else knows.
ANTHROPICS_OWN = frozenset(
    {
        *("betas", "billing_policy", "cache_control", "compaction", "container", "context_management", "diagnostics"),
        *("fallback_credit_token", "fallbacks", "inference_geo", "mcp_servers", "speed", "thread", "user_profile_id"),
        "workspace_id",
    }
)

#: Fields of the Responses API that a chat has, or that the router reads.
_RESPONSES_FIELDS = frozenset(
    {
        *("instructions", "max_output_tokens", "metadata", "parallel_tool_calls", "reasoning", "safety_identifier"),
        *("service_tier", "temperature", "text", "tool_choice", "tools", "top_p", "user"),
        *("session_id", "litellm_session_id", "conversation_id"),
        # It is about padding, which nothing here adds.
        "stream_options",
    }
)

#: Values of other fields that ask for nothing.
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {"truncation": ("disabled",), "inference_geo": ("global",)}

#: The keys of fields that are objects which a chat has too.
_INNER: Mapping[ApiFormat, Mapping[str, frozenset[str]]] = {
    ApiFormat.OPENAI_RESPONSES: {"reasoning": frozenset({"effort"}), "text": frozenset({"format", "verbosity"})},
    ApiFormat.ANTHROPIC_MESSAGES: {"output_config": frozenset({"effort", "format"})},
}

_MARK = frozenset({"cache_control"})

#: The keys of tools, by their type, that a chat has too; of tools of other types none are named.
_SEARCH_TOOL = "web_search"
_TOOL_KEYS: Mapping[str, frozenset[str]] = {
    "function": frozenset({"type", "name", "description", "parameters", "strict"}),
    "custom": frozenset({"type", "name", "description", "format", "input_schema", "strict"}) | _MARK,
    "namespace": frozenset({"type", "name", "description", "tools"}),
    _SEARCH_TOOL: frozenset({"type", "name", "search_context_size", "user_location"}) | _MARK,
}

#: For each API the types of content parts that a chat can say, with their keys that it can say too.
_NAMED = frozenset({"type", "id", "status"}) | _MARK
_PARTS: Mapping[ApiFormat, Mapping[str, frozenset[str]]] = {
    ApiFormat.ANTHROPIC_MESSAGES: {
        "text": _NAMED | {"text"},
        "image": _NAMED | {"source"},
        "document": _NAMED | {"source", "title", "context"},
        "search_result": _NAMED | {"source", "title", "content"},
        "tool_use": _NAMED | {"name", "input"},
        "tool_result": _NAMED | {"tool_use_id", "content"},
        "tool_reference": _NAMED | {"tool_name"},
        "thinking": _NAMED | {"thinking", "signature"},
        "redacted_thinking": _NAMED | {"data"},
    },
    ApiFormat.OPENAI_RESPONSES: {
        "text": _NAMED | {"text"},
        "input_text": _NAMED | {"text"},
        "output_text": _NAMED | {"text"},
        "reasoning_text": _NAMED | {"text"},
        "summary_text": _NAMED | {"text"},
        "refusal": _NAMED | {"refusal"},
        "input_image": _NAMED | {"image_url", "detail"},
        "input_file": _NAMED | {"file_id", "file_url", "file_data", "filename", "detail"},
        "input_audio": _NAMED | {"input_audio"},
    },
}

#: What is lost of the items of the Responses API, by their type.
_LOST_OF_ITEMS: Mapping[str, tuple[str, ...]] = {"reasoning": ("encrypted_content",)}


def lost_of(query: RouteQuery, chat: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of what a request asks for and its chat completion does not say, each once.

    chat: the parameters of that chat completion.
    """
    api, given = query.api_format, query.parameters
    told = [*_fields(api, given), *_inner(api, given), *_tools(given.get("tools"), chat)]
    parts = _PARTS[api]
    for message in query.messages:
        told += [
            f"{message['type']}.{key}" for key in _LOST_OF_ITEMS.get(str(message.get("type")), ()) if message.get(key)
        ]
        for content in (message.get("content"), message.get("output")):
            told += _parts(content, parts)
    return tuple(dict.fromkeys(told))


def _fields(api: ApiFormat, given: Mapping[str, Any]) -> Iterator[str]:
    for name, value in given.items():
        if not value or value in _NEUTRAL.get(name, ()):
            continue
        if name in ANTHROPICS_OWN if api is ApiFormat.ANTHROPIC_MESSAGES else name not in _RESPONSES_FIELDS:
            yield name


def _inner(api: ApiFormat, given: Mapping[str, Any]) -> Iterator[str]:
    for name, known in _INNER[api].items():
        inner = given.get(name)
        if isinstance(inner, Mapping):
            yield from (f"{name}.{key}" for key, value in inner.items() if value and key not in known)


def _tools(tools: Any, chat: Mapping[str, Any]) -> Iterator[str]:
    for tool in tools if isinstance(tools, list | tuple) else ():
        if not isinstance(tool, Mapping):
            continue
        kind = str(tool.get("type") or "custom")
        kind = _SEARCH_TOOL if kind.startswith(_SEARCH_TOOL) else kind
        if kind == _SEARCH_TOOL and "web_search_options" not in chat:
            yield f"tools.{_SEARCH_TOOL}"
        elif kind in _TOOL_KEYS:
            yield from (f"tools.{key}" for key, value in tool.items() if value and key not in _TOOL_KEYS[kind])


def _parts(content: Any, known: Mapping[str, frozenset[str]]) -> Iterator[str]:
    for part in content if isinstance(content, list | tuple) else ():
        kind = part.get("type") if isinstance(part, Mapping) else None
        if not isinstance(kind, str):
            continue
        if kind not in known:
            yield f"content.{kind}"
            continue
        yield from (f"content.{kind}.{key}" for key in _kept_from(part, known[kind]))
        yield from _parts(part.get("content"), known)


def _kept_from(part: Mapping[str, Any], known: Iterable[str]) -> Iterator[str]:
    """Yield the keys of a part that say something and are unknown."""
    for key, value in part.items():
        is_off = isinstance(value, Mapping) and not any(value.values())
        if value and key not in known and not is_off:
            yield key
