"""Tests of the input items of the Responses API: every type in OpenAI's SDK, and types that nobody knows yet."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from typing import Any

import pydantic
import pytest
from openai.types import responses

from router.asking.ask import extract
from router.asking.native_needs import native_needs
from router.asking.turns import read_turns
from router.errors import InvalidRequestError
from router.values import ApiFormat, Capability, RouteQuery

#: For each type of item in the SDK its role, whether it calls tools, and whether only the Responses API has it.
TABLE: Mapping[str, tuple[str, bool, bool]] = {
    "message": ("user", False, False),
    "function_call": ("assistant", True, False),
    "function_call_output": ("tool", False, False),
    "custom_tool_call": ("assistant", True, False),
    "custom_tool_call_output": ("tool", False, False),
    "web_search_call": ("assistant", True, False),
    "reasoning": ("assistant", False, False),
    "additional_tools": ("developer", False, False),
    "file_search_call": ("assistant", True, True),
    "computer_call": ("assistant", True, True),
    "computer_call_output": ("tool", False, True),
    "tool_search_call": ("assistant", True, True),
    "tool_search_output": ("tool", False, True),
    "image_generation_call": ("assistant", True, True),
    "code_interpreter_call": ("assistant", True, True),
    "local_shell_call": ("assistant", True, True),
    "local_shell_call_output": ("tool", False, True),
    "shell_call": ("assistant", True, True),
    "shell_call_output": ("tool", False, True),
    "apply_patch_call": ("assistant", True, True),
    "apply_patch_call_output": ("tool", False, True),
    "mcp_list_tools": ("assistant", False, True),
    "mcp_approval_request": ("assistant", False, True),
    "mcp_approval_response": ("tool", False, True),
    "mcp_call": ("assistant", True, True),
    "compaction": ("assistant", False, True),
    "compaction_trigger": ("assistant", False, True),
    "item_reference": ("assistant", False, True),
    "program": ("assistant", False, True),
    "program_output": ("tool", False, True),
}


def example(annotation: Any) -> Any:
    """Return a value of a type of the SDK, with every field that it must have."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return example(inner[0])
    if origin is typing.Literal:
        return inner[0]
    if origin in (typing.Union, types.UnionType):
        return example(inner[0])
    if origin is list:
        return [example(inner[0])]
    if origin is dict:
        return {"key": "value"}
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        fields = annotation.model_fields
        return {name: example(field.annotation) for name, field in fields.items() if field.is_required()}
    return {str: "some text", int: 1, float: 1.0, bool: True}.get(annotation, {"any": "thing"})


def kinds_in_the_sdk() -> dict[str, Any]:
    union = typing.get_args(responses.ResponseInputItem)[0]
    found = {}
    for model in typing.get_args(union):
        item = example(model)
        kind = model.model_fields["type"].annotation
        literal = next(
            (arg for arg in (kind, *typing.get_args(kind)) if typing.get_origin(arg) is typing.Literal), None
        )
        name = typing.get_args(literal)[0] if literal is not None else "message"
        found[f"{name} of {model.__name__}"] = {**item, "type": name}
    return found


ITEMS = kinds_in_the_sdk()


def query(*items: Any, **parameters: Any) -> RouteQuery:
    return RouteQuery(items, parameters=parameters, api_format=ApiFormat.OPENAI_RESPONSES)


def test_the_table_has_every_type_of_item_of_the_sdk() -> None:
    assert {item["type"] for item in ITEMS.values()} == TABLE.keys()
    assert len(ITEMS) > len(TABLE)


@pytest.mark.parametrize("what", ITEMS)
def test_every_item_of_the_sdk_is_read(what: str) -> None:
    item = ITEMS[what]
    role, calls, is_native = TABLE[item["type"]]
    (turn,) = read_turns([item], field="input")
    if item["type"] != "message":
        assert turn.role == role
    assert turn.calls_tools is calls
    assert turn.answers_tools is (role == "tool")
    asked = extract(query({"role": "user", "content": "What now?"}, item), max_bytes=10_000)
    assert asked.native_needs == ((item["type"],) if is_native else ())
    if item["type"] != "message":
        # No item but a message is what the human asks.
        assert asked.text == "What now?"


@pytest.mark.parametrize("fields", [{}, {"output": None}, {"x": [1, {"y": None}]}, {"content": 7}, {"id": 3}], ids=str)
@pytest.mark.parametrize("kind", ["from_next_year", "next_call", "next_call_output", None, *TABLE])
def test_items_that_are_unknown_or_incomplete_are_read_or_refused_clearly(kind: str | None, fields: Any) -> None:
    item = {"type": kind, **fields} if kind else fields
    asked = query({"role": "user", "content": "What now?"}, item)
    if kind == "message":
        # A message must have a role; everything else is taken.
        with pytest.raises(InvalidRequestError, match=r"input\[1\].role must be one of"):
            extract(asked, max_bytes=10_000)
    else:
        assert extract(asked, max_bytes=10_000).text == "What now?"


def test_a_chat_has_no_items_of_unknown_types() -> None:
    for message in ({"type": "from_next_year"}, {"id": "msg_1"}):
        with pytest.raises(InvalidRequestError, match=r"messages\[0\].role must be one of"):
            read_turns([message])


def test_pictures_in_items_count_as_pictures_and_not_as_text() -> None:
    drawn = {"type": "image_generation_call", "id": "ig_1", "status": "completed", "result": "A" * 100_000}
    shot = {"type": "computer_call_output", "call_id": "c", "output": {"type": "computer_screenshot", "image_url": "x"}}
    asked = extract(query({"role": "user", "content": "go on"}, drawn, shot), max_bytes=10_000)
    assert (asked.n_images, Capability.IMAGE in asked.needs) == (1, True)


def test_a_request_that_goes_on_from_what_is_kept_needs_no_input() -> None:
    asked = extract(query(previous_response_id="resp_1"), max_bytes=100)
    assert (asked.text, asked.native_needs) == ("", ("previous_response_id",))
    with pytest.raises(InvalidRequestError, match="input must hold some text"):
        extract(query(), max_bytes=100)


def test_tools_that_a_provider_runs_need_a_candidate_that_speaks_the_api() -> None:
    mcp = {"type": "mcp", "server_label": "x", "server_url": "https://x"}
    common = [{"type": kind} for kind in ("function", "custom", "namespace", "web_search", "web_search_preview")]
    hello = {"role": "user", "content": "hello"}
    assert native_needs(query(hello, tools=common)) == ()
    assert native_needs(query(hello, tools=[*common, mcp, {"type": "shell"}])) == ("mcp", "shell")
    assert native_needs(query(hello, {"type": "additional_tools", "role": "developer", "tools": [mcp]})) == ("mcp",)
