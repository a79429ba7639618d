"""What is judged, and what answering needs, for chat bodies of every shape."""

from __future__ import annotations

from typing import Any

import pytest

from router.ask import TOKENS_PER_IMAGE, Ask, extract
from router.config import Capability
from router.errors import InvalidRequestError
from router.types import RouteQuery


def ask_of(*messages: Any, **parameters: Any) -> Ask:
    return extract(RouteQuery(messages, parameters=parameters), max_bytes=1000)


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def test_a_lone_prompt_is_judged_as_it_stands() -> None:
    assert ask_of(user("  What is 2 + 2?\n")).text == "What is 2 + 2?"


def test_the_system_prompt_is_not_judged() -> None:
    assert ask_of({"role": "system", "content": "Be brief."}, user("Hello")).text == "Hello"


def test_a_later_turn_is_judged_with_the_opening_it_refers_to() -> None:
    ask = ask_of(user("Prove Fermat's little theorem."), {"role": "assistant", "content": "Sure?"}, user("go ahead"))
    assert ask.text == "Prove Fermat's little theorem.\n\ngo ahead"


def test_parts_are_flattened_and_images_need_a_candidate_that_sees() -> None:
    image = {"type": "image_url", "image_url": {"url": "https://example.org/x.png"}}
    ask = ask_of(user([{"type": "text", "text": "What is this?"}, image]))
    assert ask.text == "What is this?"
    assert ask.needs == {Capability.IMAGE}
    assert ask.input_tokens_estimate == 4 + TOKENS_PER_IMAGE


def test_tools_and_json_schema_are_needs() -> None:
    ask = ask_of(user("x"), tools=[{"type": "function"}], response_format={"type": "json_schema"})
    assert ask.needs == {Capability.TOOLS, Capability.JSON_SCHEMA}


def test_unknown_parts_are_named() -> None:
    assert ask_of(user([{"type": "hologram"}])).unknown_parts == ("hologram",)


def test_an_assistant_message_may_have_no_content() -> None:
    calls = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    ask = ask_of(
        user("x"), {"role": "assistant", "content": None, "tool_calls": calls}, {"role": "tool", "content": "1"}
    )
    assert ask.text == "x"


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ((), "at least one message"),
        ((user(""),), "some text"),
        ((user("  \n "),), "some text"),
        ((user(3),), r"messages\[0\].content must be text or a list"),
        ((user([{"text": "no type"}]),), r"content\[0\] must be an object with a `type`"),
        ((user([{"type": "text", "text": 5}]),), "must be text, got int"),
        (("hello",), r"messages\[0\] must be an object, got str"),
        (({"role": "robot", "content": "x"},), "role must be one of"),
        ((user("x" * 1001),), "at most 1,000 bytes of text, got 1,001"),
        ((user("bad \ud800"),), "valid Unicode"),
    ],
)
def test_what_cannot_be_judged_is_refused_with_the_reason(messages: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message) as caught:
        ask_of(*messages)
    assert caught.value.field is not None


@pytest.mark.parametrize("value", [0, -5, 1.5, "many", True])
def test_a_senseless_output_bound_is_refused(value: Any) -> None:
    with pytest.raises(InvalidRequestError, match="max_tokens must be a whole number"):
        ask_of(user("x"), max_tokens=value)
