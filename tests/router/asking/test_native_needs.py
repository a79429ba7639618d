"""What only a candidate of Anthropic's API understands is named, and what chat completions can say too is not."""

from __future__ import annotations

from typing import Any

import pytest

from router.asking.native_needs import native_needs
from router.values import ApiFormat, RouteQuery

TEXT = {"type": "text", "text": "hello"}


def asked(*parts: dict[str, Any], **parameters: Any) -> RouteQuery:
    messages = ({"role": "user", "content": [TEXT, *parts]}, {"role": "user", "content": "hello"})
    return RouteQuery(messages, api_format=ApiFormat.ANTHROPIC_MESSAGES, parameters=parameters)


def document(kind: str, **more: Any) -> dict[str, Any]:
    return {"type": "document", "source": {"type": kind, **more}}


@pytest.mark.parametrize(
    ("query", "needs"),
    [
        (asked(tools=[{"name": "f", "input_schema": {}}, {"type": "custom", "name": "g"}]), ()),
        (asked(tools=[{"type": "web_search_20250305", "name": "web_search"}]), ()),
        (asked(tools=[{"type": "bash_20250124"}, {"type": "mcp_toolset"}]), ("bash_20250124", "mcp_toolset")),
        (
            asked(tools=[{"type": "code_execution_20250825"}] * 2, container="c"),
            ("container", "code_execution_20250825"),
        ),
        (asked(mcp_servers=[{"type": "url"}]), ("mcp_servers",)),
        (asked(mcp_servers=[], container=None, tools=None, context_management={"edits": []}), ()),
        (asked(document("text", data="x"), document("base64", data="AA"), document("content", content=[])), ()),
        (asked(document("file", file_id="f")), ("document of a file",)),
        (asked(document("url", url="https://x")), ("document of a url",)),
        (asked({"type": "container_upload", "file_id": "f"}), ("container_upload",)),
        (asked({"type": "search_result", "content": [TEXT]}), ()),
    ],
)
def test_what_only_anthropics_models_understand_is_named(query: RouteQuery, needs: tuple[str, ...]) -> None:
    assert native_needs(query) == needs
