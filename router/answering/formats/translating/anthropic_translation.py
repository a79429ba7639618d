"""Translate requests of Anthropic's Messages API into chat completions, and the answers back, by LiteLLM's adapter.

LiteLLM must have been imported before (`router.answering.upstreams.litellm_import`).
"""

from __future__ import annotations

import contextlib
import copy
import functools
import importlib
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from router.answering.formats.translating.losses import ANTHROPICS_OWN, lost_of
from router.answering.formats.translating.misshapen import caller_at_fault, upstream_at_fault
from router.values import ApiFormat, RouteQuery

#: Where LiteLLM keeps its adapter, and where it kept it before 1.110.
_ADAPTERS = "litellm.llms.anthropic.messages.adapters"
_ADAPTERS_BEFORE_1_110 = "litellm.llms.anthropic.pass_through.adapters"

_ANSWER = "a message of Anthropic's API"

#: The keys of a tool of the caller. The adapter takes all others for a part of the tool's schema.
_TOOL_KEYS = frozenset({"type", "name", "description", "input_schema", "strict", "cache_control"})

#: The names of OpenAI's API for a tier that Anthropic calls otherwise.
_TIERS: Mapping[Any, str] = {"standard_only": "default"}

#: A request that every adapter can translate.
_PLAINEST: Mapping[str, Any] = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}


@dataclass(frozen=True, slots=True)
class TranslatedRequest:
    """Holds a request in OpenAI's shape, and what translating its answer back needs.

    Attributes:
        query: the request as a chat completion.
        model: the name that the answer calls its model.
        lost: the names of what the chat completion does not say.
        tool_names: for each tool whose name OpenAI's API would find too long, its shortened and its original name.
    """

    query: RouteQuery
    model: str
    lost: tuple[str, ...]
    tool_names: Mapping[str, str]


def load_adapter() -> None:
    """Import what translating needs, so that no request waits for it."""
    for name in ("transformation", "streaming_iterator"):
        _adapter(name)


def to_chat(query: RouteQuery, model: str) -> TranslatedRequest:
    """Return a request of Anthropic's API as a chat completion for a model, such as `openai/gpt-4o`.

    Raises InvalidRequestError if the request does not have the shape of Anthropic's API, and DispatchNotInstalledError
    if the adapter translates nothing.
    """
    known = {key: value for key, value in query.parameters.items() if key not in ANTHROPICS_OWN}
    body = copy.deepcopy({"messages": [_with_plain_parts(message) for message in query.messages], **known})
    if isinstance(body.get("tools"), list):
        body["tools"] = list(map(_plain_tool, body["tools"]))
    with caller_at_fault(
        "messages, system or tools do not have the shape of Anthropic's Messages API, so the request cannot be "
        "translated for a candidate of another provider.",
        field="messages",
        plainest=lambda: _chat_of(model, dict(_PLAINEST)),
    ):
        chat, names = _chat_of(model, body)
    parameters = {key: value for key, value in chat.items() if key not in {"model", "messages", "stream"}}
    _complete(parameters, query.parameters)
    translated = replace(
        query,
        messages=tuple(chat["messages"]),
        parameters=parameters,
        body=None,
        api_format=ApiFormat.OPENAI_CHAT,
        api_headers={},
    )
    return TranslatedRequest(translated, model.partition("/")[2] or model, lost_of(query, parameters), names)


def _complete(parameters: dict[str, Any], given: Mapping[str, Any]) -> None:
    """Write into the parameters of a chat what the adapter leaves out of a request of Anthropic's API, or miswrites."""
    effort = parameters.get("reasoning_effort")
    if isinstance(effort, Mapping):
        # Only OpenAI's Responses API takes an object here.
        parameters["reasoning_effort"] = effort.get("effort")
    asked = given.get("output_config")
    if isinstance(asked, Mapping) and asked.get("effort") and not {"reasoning_effort", "thinking"} & parameters.keys():
        # The adapter looks for the effort of adaptive thinking only.
        parameters["reasoning_effort"] = asked["effort"]
    choice = given.get("tool_choice")
    if isinstance(choice, Mapping) and choice.get("disable_parallel_tool_use") is True and parameters.get("tools"):
        parameters["parallel_tool_calls"] = False
    if isinstance(tier := parameters.get("service_tier"), str):
        parameters["service_tier"] = _TIERS.get(tier, tier)


def _plain_tool(tool: Any) -> Any:
    """Return a tool of the caller with the keys that every provider knows; any other tool as it is."""
    if not isinstance(tool, Mapping) or tool.get("type", "custom") != "custom":
        return tool
    return {key: value for key, value in tool.items() if key in _TOOL_KEYS}


def _with_plain_parts(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message whose documents and search results are text, which LiteLLM's adapter would leave out."""
    content = message.get("content")
    if not isinstance(content, list | tuple):
        return dict(message)
    return {**message, "content": [_plain_part(part) for part in content]}


def _plain_part(part: Any) -> Any:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind == "tool_result" and isinstance(part.get("content"), list | tuple):
        return {**part, "content": [_plain_part(inner) for inner in part["content"]]}
    texts: list[Any] = [part.get("title"), part.get("context")] if kind == "document" else []
    if kind == "search_result":
        texts = [part.get("title"), part.get("source"), *_texts_in(part.get("content"))]
    elif kind == "document":
        source = part.get("source")
        source = source if isinstance(source, Mapping) else {}
        if source.get("type") not in {"text", "content"}:
            return part
        texts += _texts_in(source.get("data") if source["type"] == "text" else source.get("content"))
    else:
        return part
    return {"type": "text", "text": "\n".join(text for text in texts if isinstance(text, str) and text)}


def _texts_in(content: Any) -> list[Any]:
    """Return the texts of a content, which is a text or a list of parts."""
    parts = content if isinstance(content, list | tuple) else [{"text": content}]
    return [part.get("text") for part in parts if isinstance(part, Mapping)]


def _chat_of(model: str, body: dict[str, Any]) -> tuple[Any, Mapping[str, str]]:
    """Return a body as LiteLLM's adapter translates it, with the tools whose names it has shortened."""
    adapter = _adapter("transformation").AnthropicAdapter()
    chat, names = adapter.translate_completion_input_params_with_tool_mapping({"model": model, **body})
    return chat, names


def message_of(body: Mapping[str, Any], request: TranslatedRequest) -> dict[str, Any]:
    """Return a chat completion as a message of Anthropic's API. Raises UpstreamUnavailableError if it has no shape."""
    response = importlib.import_module("litellm").ModelResponse
    adapter = _adapter("transformation").AnthropicAdapter()
    with upstream_at_fault(_ANSWER):
        answer = response(**{"usage": {}, "model": request.model, **body})
        message: dict[str, Any] = dict(
            adapter.translate_completion_output_params(answer, tool_name_mapping=dict(request.tool_names))
        )
    return message


async def events_of(
    chunks: AsyncGenerator[dict[str, Any], None], request: TranslatedRequest
) -> AsyncGenerator[dict[str, Any], None]:
    """Yield the events of Anthropic's API for the chunks of a chat completion, from `message_start` to `message_stop`.

    Raises what the chunks raise, and UpstreamUnavailableError for a chunk that has no shape.
    """
    chunk_type = importlib.import_module("litellm.types.utils").ModelResponseStream
    wrapper = _adapter("streaming_iterator").AnthropicStreamWrapper

    async def typed() -> AsyncGenerator[Any, None]:
        async for chunk in chunks:
            with upstream_at_fault(_ANSWER):
                typed_chunk = chunk_type(**chunk)
            yield typed_chunk

    events = wrapper(typed(), request.model, tool_name_mapping=dict(request.tool_names))
    async with contextlib.aclosing(chunks):
        while True:
            with upstream_at_fault(_ANSWER):
                try:
                    event = await anext(events)
                except StopAsyncIteration:
                    return
            yield copy.deepcopy(event)


@functools.cache
def _adapter(name: str) -> Any:
    """Return a module of LiteLLM's adapter. Raises ImportError if this version of LiteLLM has it nowhere."""
    try:
        return importlib.import_module(f"{_ADAPTERS}.{name}")
    except ModuleNotFoundError:
        return importlib.import_module(f"{_ADAPTERS_BEFORE_1_110}.{name}")
