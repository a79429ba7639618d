"""Translate the choice of some allowed tools for providers that do not know it: they get only these tools."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from router.errors import InvalidRequestError
from router.quoting import quoted

_CHOICE, _MODES = "allowed_tools", ("auto", "required")


def with_allowed_tools(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return `tools` and `tool_choice` that say what a choice of allowed tools says; empty if there is no such choice.

    The model gets the allowed tools alone, and must or may call one. `fields` are those of a chat completion or of a
    request of the Responses API, which write the choice in different shapes.

    Raises InvalidRequestError if the choice has no shape, or allows none of the tools.
    """
    choice, tools = fields.get("tool_choice"), fields.get("tools")
    if not isinstance(choice, Mapping) or choice.get("type") != _CHOICE:
        return {}
    said = choice.get(_CHOICE, choice)
    mode, allowed = (said.get("mode"), said.get("tools")) if isinstance(said, Mapping) else (None, None)
    if mode not in _MODES or not isinstance(allowed, list | tuple) or not isinstance(tools, list | tuple):
        raise InvalidRequestError(
            f"a tool_choice of allowed_tools must have a mode ({' or '.join(_MODES)}) and a list of tools, and the "
            f"request must offer tools; got the mode {quoted(mode)}.",
            field="tool_choice",
        )
    names = set(_names_of(allowed))
    kept = [tool for tool in tools if not names.isdisjoint(_names_of([tool]))]
    if not kept:
        raise InvalidRequestError("tool_choice allows none of the tools of the request.", field="tool_choice")
    return {"tools": kept, "tool_choice": mode}


def _names_of(tools: Sequence[Any]) -> Iterator[tuple[str, str]]:
    """Yield the type and the name of each tool. One that its provider runs has no name."""
    for tool in tools:
        if isinstance(tool, Mapping):
            kind = str(tool.get("type"))
            inner = tool.get(kind)
            name = inner.get("name") if isinstance(inner, Mapping) else tool.get("name")
            yield kind, str(name)
