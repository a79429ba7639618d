"""A choice of some allowed tools becomes these tools alone, in the shapes of both of OpenAI's APIs."""

from __future__ import annotations

from typing import Any

import pytest

from router.answering.formats.translating.allowed_tools import with_allowed_tools
from router.errors import InvalidRequestError

CHAT = [{"type": "function", "function": {"name": name}} for name in "abc"] + [
    {"type": "custom", "custom": {"name": "d"}}
]
RESPONSES = [{"type": "function", "name": name} for name in "abc"] + [{"type": "web_search"}]


def of_chat(mode: Any, tools: Any) -> dict[str, Any]:
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}


@pytest.mark.parametrize("choice", [None, "auto", {"type": "function", "function": {"name": "a"}}, 7])
def test_another_choice_stays(choice: Any) -> None:
    assert with_allowed_tools({"tools": CHAT, "tool_choice": choice}) == {}


@pytest.mark.parametrize("mode", ["auto", "required"])
def test_the_model_gets_the_allowed_tools_alone(mode: str) -> None:
    some = [CHAT[2], CHAT[3], {"type": "function", "function": {"name": "unknown"}}]
    found = with_allowed_tools({"tools": CHAT, "tool_choice": of_chat(mode, some)})
    assert found == {"tools": [CHAT[2], CHAT[3]], "tool_choice": mode}
    choice = {"type": "allowed_tools", "mode": mode, "tools": [RESPONSES[0], RESPONSES[3]]}
    found = with_allowed_tools({"tools": RESPONSES, "tool_choice": choice})
    assert found == {"tools": [RESPONSES[0], RESPONSES[3]], "tool_choice": mode}


@pytest.mark.parametrize(
    ("tools", "choice"),
    [
        (CHAT, of_chat("auto", [])),
        (CHAT, of_chat("auto", [{"type": "function", "function": {"name": "x"}}])),
        (CHAT, of_chat("auto", [7, None, {"type": "function", "function": [1]}])),
        (CHAT, of_chat("auto", "abc")),
        (CHAT, of_chat("never", CHAT)),
        (CHAT, {"type": "allowed_tools", "allowed_tools": 7}),
        (CHAT, {"type": "allowed_tools"}),
        (None, of_chat("auto", CHAT)),
        ([], of_chat("auto", CHAT)),
    ],
)
def test_a_choice_that_allows_nothing_is_refused(tools: Any, choice: Any) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        with_allowed_tools({"tools": tools, "tool_choice": choice})
    assert caught.value.field == "tool_choice"
