"""Whatever a request says reaches the chat completion that it is translated into, or is named as lost."""

from __future__ import annotations

import json
import typing
from collections.abc import Iterator
from typing import Any

import pytest
from anthropic.types.beta import message_create_params as of_anthropic
from openai.types.responses import response_create_params as of_responses

from router.answering.formats.translating import anthropic_translation, responses_translation
from router.asking.native_needs import native_needs
from router.values import ApiFormat, RouteQuery

ANTHROPIC, RESPONSES = ApiFormat.ANTHROPIC_MESSAGES, ApiFormat.OPENAI_RESPONSES
MARK = "MARK"
HI = {"role": "user", "content": "hi"}
CALL = {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "f", "input": {}}]}
SCHEMA = {"type": "object", "properties": {}}
TOOL = {"name": "f", "input_schema": SCHEMA}
FUNCTION = {"type": "function", "name": "f", "parameters": SCHEMA, "strict": False}

#: Values of fields that must have a certain shape. All others get the mark, or a list of it.
SHAPED: dict[str, Any] = {
    **{"max_tokens": 7, "max_output_tokens": 7, "temperature": 0.5, "top_p": 0.5, "service_tier": "flex"},
    **{"top_logprobs": 3, "max_tool_calls": 3, "parallel_tool_calls": False, "store": True, "truncation": "auto"},
    "metadata": {"user_id": MARK},
    "output_config": {"effort": "low"},
    "thinking": {"type": "enabled", "budget_tokens": 2000},
    "stop_sequences": [MARK],
    "tool_choice": "required",
    "reasoning": {"effort": "low"},
    "text": {"verbosity": "low"},
    "prompt_cache_retention": "24h",
    "context_management": [{"type": "compaction"}],
}


@pytest.fixture(scope="module", autouse=True)
def _loaded() -> None:
    anthropic_translation.load_adapter()
    responses_translation.load_responses_adapter()


def told(api: ApiFormat, messages: list[Any], **fields: Any) -> tuple[str, tuple[str, ...]]:
    """Return the chat completion as text, and what it does not say: lost, or only for candidates that speak the API."""
    query = RouteQuery(tuple(messages), parameters=fields, api_format=api)
    to_chat = anthropic_translation.to_chat if api is ANTHROPIC else responses_translation.responses_to_chat
    request: Any = to_chat(query, "openai/x")
    chat = json.dumps([request.query.messages, request.query.parameters], default=str, sort_keys=True)
    return chat, (*request.lost, *native_needs(query))


def fields_of_sdks() -> Iterator[tuple[ApiFormat, str]]:
    for api, hints in (
        (ANTHROPIC, of_anthropic.MessageCreateParamsBase),
        (RESPONSES, of_responses.ResponseCreateParamsBase),
    ):
        names = set(typing.get_type_hints(hints)) - {"model", "messages", "input", "stream_options"}
        yield from ((api, name) for name in sorted(names))
    yield from ((RESPONSES, "from_next_year"), (ANTHROPIC, "from_next_year"))


@pytest.mark.parametrize(("api", "name"), list(fields_of_sdks()), ids=str)
def test_each_field_of_the_sdks_changes_the_chat_or_is_told(api: ApiFormat, name: str) -> None:
    given: dict[str, Any] = {} if api is RESPONSES else {"max_tokens": 5}
    if name in {"tool_choice", "parallel_tool_calls"}:
        given["tools"] = [FUNCTION if api is RESPONSES else TOOL]
    value = SHAPED.get(name, MARK)
    if name == "tools":
        value = [FUNCTION if api is RESPONSES else TOOL]
    elif name == "tool_choice" and api is ANTHROPIC:
        value = {"type": "any"}
    without, _ = told(api, [HI], **given)
    chat, lost = told(api, [HI], **given | {name: value})
    assert (chat != without) != bool(lost), (chat, lost)
    assert lost in {(), (name,), (name, name)}


def source(kind: str) -> dict[str, Any]:
    data = {"url": {"url": f"http://x/{MARK}"}, "file": {"file_id": MARK}}
    return {"type": kind, **data.get(kind, {"media_type": "image/png", "data": MARK})}


ANTHROPIC_PARTS: list[Any] = [
    *({"type": "image", "source": source(kind)} for kind in ("url", "base64", "file")),
    *({"type": "document", "source": source(kind)} for kind in ("url", "base64", "file", "text")),
    {"type": "document", "source": {"type": "text", "data": "x"}, "citations": {MARK: True}},
    {"type": "text", "text": MARK, "cache_control": {"type": "ephemeral"}},
    {"type": "text", "text": "x", "citations": [{"title": MARK}]},
    {"type": "search_result", "title": MARK, "source": "s", "content": [{"type": "text", "text": "t"}]},
    {"type": "container_upload", "file_id": MARK},
    {"type": "from_next_year", "x": MARK},
    *(
        {"type": "tool_result", "tool_use_id": "a", "content": content}
        for content in (
            MARK,
            [{"type": "image", "source": source("base64")}],
            [{"type": "image", "source": source("file")}],
            [{"type": "document", "source": source("file")}],
            [{"type": "tool_reference", "tool_name": MARK}],
            [{"type": "from_next_year", "x": MARK}],
        )
    ),
    {"type": "tool_result", "tool_use_id": "a", "content": "x", "is_error": MARK},
]
ANSWER_PARTS: list[Any] = [
    {"type": "thinking", "thinking": MARK, "signature": "s"},
    {"type": "redacted_thinking", "data": MARK},
    {"type": "server_tool_use", "id": "b", "name": "web_search", "input": {"query": MARK}},
    {"type": "web_search_tool_result", "tool_use_id": "b", "content": [{"title": MARK}]},
    {"type": "mcp_tool_use", "id": "b", "name": MARK, "server_name": "s", "input": {}},
    {"type": "mcp_tool_result", "tool_use_id": "b", "content": [{"type": "text", "text": MARK}]},
    {"type": "code_execution_tool_result", "tool_use_id": "b", "content": {"stdout": MARK}},
    {"type": "compaction", "content": MARK},
    {"type": "tool_use", "id": "b", "name": "f", "input": {"x": MARK}},
]
ITEMS: list[Any] = [
    *(
        {"role": "user", "content": [part]}
        for part in (
            {"type": "input_text", "text": MARK},
            {"type": "input_image", "image_url": f"http://x/{MARK}"},
            {"type": "input_image", "file_id": MARK},
            {"type": "input_file", "file_id": MARK},
            {"type": "input_file", "file_url": f"http://x/{MARK}"},
            {"type": "input_file", "filename": "a", "file_data": MARK},
            {"type": "input_audio", "input_audio": {"data": MARK, "format": "wav"}},
            {"type": "from_next_year", "x": MARK},
        )
    ),
    {"role": "assistant", "content": [{"type": "output_text", "text": MARK, "annotations": []}]},
    {"role": "assistant", "content": [{"type": "output_text", "text": "x", "annotations": [{"url": MARK}]}]},
    {"role": "assistant", "content": [{"type": "refusal", "refusal": MARK}]},
    {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": MARK}]},
    {"type": "reasoning", "id": "r", "summary": [], "encrypted_content": MARK},
    {"type": "function_call", "call_id": "b", "name": MARK, "arguments": "{}"},
    {"type": "custom_tool_call", "call_id": "b", "name": "c", "input": MARK},
    {"type": "compaction", "encrypted_content": MARK},
]


@pytest.mark.parametrize("part", [*ANTHROPIC_PARTS, *ANSWER_PARTS, *ITEMS], ids=lambda part: json.dumps(part)[:60])
def test_each_content_part_is_in_the_chat_or_is_told(part: Any) -> None:
    if part in ITEMS:
        chat, lost = told(RESPONSES, [part, HI])
    elif part in ANSWER_PARTS:
        answer = {"role": "assistant", "content": [{"type": "text", "text": "ok"}, part]}
        chat, lost = told(ANTHROPIC, [HI, answer, HI], max_tokens=5)
    else:
        before = [CALL] if part["type"] == "tool_result" else []
        asked = {"role": "user", "content": [part, {"type": "text", "text": "hi"}]}
        chat, lost = told(ANTHROPIC, [HI, *before, asked], max_tokens=5)
    needs_its_provider = any(" of a " in name for name in lost)
    assert needs_its_provider or (MARK in chat) != bool(lost), (chat, lost)
    assert len(lost) <= 2


@pytest.mark.parametrize("key", ["strict", "defer_loading", "input_examples", "allowed_callers", "x_new"])
def test_what_anthropics_tools_say_beyond_their_schema_is_told_and_does_not_get_into_the_schema(key: str) -> None:
    chat, lost = told(ANTHROPIC, [HI], max_tokens=5, tools=[{**TOOL, key: True}])
    assert lost == (() if key == "strict" else (f"tools.{key}",))
    assert json.loads(chat)[1]["tools"][0]["function"]["parameters"] == SCHEMA


def test_what_is_nested_in_fields_and_tools_is_told() -> None:
    reasoning = {"effort": "low", "summary": "auto"}
    search = {"type": "web_search", "filters": {"allowed_domains": ["x"]}}
    late = {**FUNCTION, "defer_loading": True}
    _, lost = told(RESPONSES, [HI], reasoning=reasoning, tools=[search, late], text={"x_new": 1})
    assert lost == ("reasoning.summary", "text.x_new", "tools.filters", "tools.defer_loading")
    search = {"type": "web_search_20260209", "name": "web_search", "max_uses": 3}
    config = {"effort": "low", "task_budget": {"total": 5}}
    _, lost = told(ANTHROPIC, [HI], max_tokens=5, output_config=config, tools=[search])
    assert lost == ("output_config.task_budget", "tools.max_uses")


def test_what_asks_for_nothing_is_not_told() -> None:
    nothing = {"truncation": "disabled", "store": False, "include": [], "top_logprobs": 0, "context_management": None}
    assert told(RESPONSES, [HI], **nothing, background=False, session_id="s")[1] == ()
    nothing = {"inference_geo": "global", "mcp_servers": [], "container": None}
    assert told(ANTHROPIC, [HI], max_tokens=5, **nothing)[1] == ()
    cited = {"type": "text", "text": "x", "citations": None}
    document = {"type": "document", "source": {"type": "text", "data": "x"}, "citations": {"enabled": False}}
    assert told(ANTHROPIC, [{"role": "user", "content": [cited, document]}], max_tokens=5)[1] == ()


def test_what_a_chat_says_in_other_words_is_translated() -> None:
    def chat(api: ApiFormat, **fields: Any) -> dict[str, Any]:
        parameters: dict[str, Any] = json.loads(told(api, [HI], **fields)[0])[1]
        return parameters

    only_one = {"type": "any", "disable_parallel_tool_use": True}
    found = chat(ANTHROPIC, max_tokens=5, tools=[TOOL], tool_choice=only_one, service_tier="standard_only")
    assert (found["tool_choice"], found["parallel_tool_calls"], found["service_tier"]) == ("required", False, "default")
    assert chat(ANTHROPIC, max_tokens=5, output_config={"effort": "low"})["reasoning_effort"] == "low"
    assert chat(RESPONSES, text={"verbosity": "low"})["verbosity"] == "low"
    allowed = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]}
    found = chat(RESPONSES, tools=[FUNCTION, {**FUNCTION, "name": "g"}], tool_choice=allowed)
    assert [tool["function"]["name"] for tool in found["tools"]] == ["f"]
    assert found["tool_choice"] == "auto"
