"""Translate requests of OpenAI's Responses API into chat completions, and the answers back, by LiteLLM's adapter.

LiteLLM must have been imported before (`router.answering.upstreams.litellm_upstream.load`).
"""

from __future__ import annotations

import contextlib
import copy
import functools
import importlib
import uuid
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from router.answering.formats.chat_chunks import joined_texts
from router.answering.formats.translating.allowed_tools import with_allowed_tools
from router.answering.formats.translating.losses import lost_of
from router.answering.formats.translating.misshapen import caller_at_fault, upstream_at_fault
from router.errors import InvalidRequestError
from router.values import ApiFormat, RouteQuery

#: The input item that adds tools.
_TOOLS_ITEM = "additional_tools"

#: Stands in for the tokens of a stream that says nothing about them; the answer then says nothing either.
_NO_USAGE: Mapping[str, int] = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}

_ADAPTERS = "litellm.responses.litellm_completion_transformation"

#: Fields of a chat that the dispatcher sets itself, or that LiteLLM reads and no provider knows.
_UNSENT = frozenset(
    {"model", "messages", "stream", "stream_options", "custom_llm_provider", "reasoning_summary", "context_management"}
)


@dataclass(frozen=True, slots=True)
class TranslatedResponsesRequest:
    """Holds a request in the shape of a chat completion, and what translating its answer back needs.

    Attributes:
        query: the request as a chat completion.
        model: the name that the answer calls its model.
        lost: the names of what the chat completion does not say.
        items: the input items.
        fields: the other fields of the request, which the answer repeats.
        response_id: the id of the answer.
    """

    query: RouteQuery
    model: str
    lost: tuple[str, ...]
    items: list[Any]
    fields: Mapping[str, Any]
    response_id: str


def load_responses_adapter() -> None:
    """Import what translating needs, so that no request waits for it."""
    for name in ("transformation", "streaming_iterator"):
        importlib.import_module(f"{_ADAPTERS}.{name}")


def responses_to_chat(query: RouteQuery, model: str) -> TranslatedResponsesRequest:
    """Return a request of the Responses API as a chat completion for a model, such as `mistral/mistral-large`.

    Raises InvalidRequestError if the request does not have the shape of the Responses API, and
    DispatchNotInstalledError if the adapter translates nothing.
    """
    fields = copy.deepcopy(dict(query.parameters))
    items = copy.deepcopy([dict(item) for item in query.messages])
    name = model.partition("/")[2] or model
    with caller_at_fault(
        "input, instructions, text or tools do not have the shape of OpenAI's Responses API, so the request cannot be "
        "translated for a candidate that does not speak it.",
        field="input",
        plainest=lambda: _chat_of(model, [{"role": "user", "content": "hello"}], {}),
    ):
        # A chat has its tools in one place.
        added = [tool for item in items if item.get("type") == _TOOLS_ITEM for tool in item["tools"]]
        if added:
            fields["tools"] = [*(fields.get("tools") or ()), *added]
        items = [item for item in items if item.get("type") != _TOOLS_ITEM]
        chat = _chat_of(model, items, fields)
        messages = tuple(_plain(message) for message in chat["messages"])
    if not messages:
        raise InvalidRequestError("input holds nothing that can be translated into a chat.", field="input")
    parameters = {key: value for key, value in chat.items() if key not in _UNSENT}
    text = fields.get("text")
    if isinstance(text, Mapping) and text.get("verbosity"):
        parameters["verbosity"] = text["verbosity"]
    chat_query = replace(
        query, messages=messages, parameters=parameters, body=None, api_format=ApiFormat.OPENAI_CHAT, api_headers={}
    )
    lost = lost_of(query, parameters)
    return TranslatedResponsesRequest(chat_query, name, lost, items, fields, f"resp_{uuid.uuid4().hex}")


def _chat_of(model: str, items: list[Any], fields: Mapping[str, Any]) -> Any:
    """Return a request as LiteLLM's adapter translates it."""
    chat = _adapter().transform_responses_api_request_to_chat_completion_request(
        model=model,
        input=items,
        responses_api_request={**fields, **with_allowed_tools(fields)},
        metadata=fields.get("metadata"),
        service_tier=fields.get("service_tier"),
    )
    # The answer repeats most fields. Whatever is wrong with them must be found now, while the caller is at fault.
    _events(_TypedChunks(None), model, items, fields).create_response_created_event()
    return chat


def response_of(body: Mapping[str, Any], request: TranslatedResponsesRequest) -> dict[str, Any]:
    """Return a chat completion as a response of the Responses API.

    Raises UpstreamUnavailableError if the chat completion has no shape.
    """
    chat_type = importlib.import_module("litellm").ModelResponse
    with upstream_at_fault("a response of OpenAI's Responses API"):
        response = _adapter().transform_chat_completion_response_to_responses_api_response(
            request_input=request.items,
            responses_api_request=request.fields,
            chat_completion_response=chat_type(**{"usage": {}, "model": request.model, **body}),
        )
        whole = _finished(_plain(response), request)
        return whole if body.get("usage") else {**whole, "usage": None}


async def response_events_of(
    chunks: AsyncGenerator[dict[str, Any], None], request: TranslatedResponsesRequest
) -> AsyncGenerator[dict[str, Any], None]:
    """Yield the events of the Responses API for the chunks of a chat completion, numbered from 0.

    Raises what the chunks raise, and UpstreamUnavailableError for a chunk that has no shape.
    """
    typed, number = _TypedChunks(chunks), 0
    events = _events(typed, request.model, request.items, request.fields)
    async with contextlib.aclosing(chunks):
        while True:
            with upstream_at_fault("an event of OpenAI's Responses API"):
                try:
                    event = _plain(await anext(events))
                except StopAsyncIteration:
                    return
                if isinstance(event.get("response"), dict):
                    event["response"] = _finished(event["response"], request)
                    if not typed.has_usage:
                        event["response"]["usage"] = None
                if isinstance(event.get("item"), dict):
                    event["item"] = _with_summary(event["item"])
            yield {**event, "sequence_number": number}
            number += 1


class _TypedChunks:
    """Yields chunks as the objects that LiteLLM's adapter reads; it has the attributes that the adapter looks at.

    has_usage: whether a chunk said how many tokens there were.
    """

    logging_obj = None

    def __init__(self, chunks: AsyncGenerator[dict[str, Any], None] | None) -> None:
        self._chunks = chunks
        self.has_usage = False
        self._type = importlib.import_module("litellm.types.utils").ModelResponseStream

    async def __anext__(self) -> Any:
        if self._chunks is None:
            raise StopAsyncIteration
        chunk = await anext(self._chunks)
        self.has_usage = self.has_usage or bool(chunk.get("usage"))
        with upstream_at_fault("an event of OpenAI's Responses API"):
            return self._type(**chunk)


def _events(chunks: _TypedChunks, model: str, items: list[Any], fields: Mapping[str, Any]) -> Any:
    """Return LiteLLM's iterator over the events for these chunks."""
    return _iterator()(
        model=model, litellm_custom_stream_wrapper=chunks, request_input=items, responses_api_request=fields
    )


@functools.cache
def _iterator() -> Any:
    """Return the class of LiteLLM's iterator, which puts all chunks together at the end, made to do that quickly."""
    base = importlib.import_module(f"{_ADAPTERS}.streaming_iterator").LiteLLMCompletionStreamingIterator

    class Iterator(base):  # type: ignore[misc, valid-type]
        def create_litellm_model_response(self) -> Any:
            # LiteLLM would look at 5,000 chunks for 60 ms, and count tokens if there is no usage, in the event loop.
            chunks: list[dict[str, Any]] = joined_texts(self.__dict__["collected_chat_completion_chunks"])
            if not self.litellm_custom_stream_wrapper.has_usage:
                chunks.append({"choices": [], "usage": _NO_USAGE})
            self.__dict__["collected_chat_completion_chunks"] = chunks
            return super().create_litellm_model_response()

    return Iterator


def _adapter() -> Any:
    return importlib.import_module(f"{_ADAPTERS}.transformation").LiteLLMCompletionResponsesConfig


def _finished(response: dict[str, Any], request: TranslatedResponsesRequest) -> dict[str, Any]:
    """Return a response of the adapter with what it leaves out and strict clients look for, under an id of our own.

    `store` is false, whatever was asked, because nobody keeps the response.
    """
    usage = response.get("usage")
    if isinstance(usage, dict):
        usage["input_tokens_details"] = usage.get("input_tokens_details") or {"cached_tokens": 0}
        usage["output_tokens_details"] = usage.get("output_tokens_details") or {"reasoning_tokens": 0}
        usage.pop("cost", None)
    own = {"id": request.response_id, "model": response.get("model") or request.model, "store": False}
    return {**response, **own, "output": [_with_summary(item) for item in response.get("output") or []]}


def _with_summary(item: dict[str, Any]) -> dict[str, Any]:
    """Return an output item, which if it is reasoning has its text in `summary`, where OpenAI's API has it."""
    if item.get("type") != "reasoning" or item.get("summary"):
        return item
    texts = [part["text"] for part in item.get("content") or [] if part.get("text")]
    kept = {key: value for key, value in item.items() if key not in {"role", "content", "phase"}}
    return {**kept, "summary": [{"type": "summary_text", "text": text} for text in texts]}


def _plain(value: Any) -> dict[str, Any]:
    """Return a copy of an object of the adapter as plain JSON data."""
    if isinstance(value, Mapping):
        return copy.deepcopy(dict(value))
    plain: dict[str, Any] = value.model_dump(mode="json")
    return plain
