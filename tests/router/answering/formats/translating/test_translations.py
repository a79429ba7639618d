"""Translations are loaded when they are needed, and a LiteLLM that has changed them is not the caller's fault."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from typing import Any

import pytest

from router.answering import upstream as upstream_module
from router.answering.formats.translating import anthropic_translation, responses_translation
from router.answering.formats.translating.translations import TRANSLATIONS
from router.answering.upstream import Upstream
from router.answering.upstreams.litellm_import import import_litellm
from router.errors import DispatchNotInstalledError, InvalidRequestError, UpstreamUnavailableError
from router.values import ApiFormat, RouteQuery

MODEL = "mistral/x"

TO_CHAT: dict[ApiFormat, Callable[[RouteQuery, str], Any]] = {
    ApiFormat.ANTHROPIC_MESSAGES: anthropic_translation.to_chat,
    ApiFormat.OPENAI_RESPONSES: responses_translation.responses_to_chat,
}


def query(api: ApiFormat, **parameters: Any) -> RouteQuery:
    return RouteQuery(({"role": "user", "content": "hi"},), api_format=api, parameters={"max_tokens": 5} | parameters)


@pytest.mark.parametrize("api", TO_CHAT)
def test_a_request_without_a_shape_is_the_callers_fault_and_a_changed_adapter_is_not(
    api: ApiFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_litellm()
    assert TO_CHAT[api](query(api), MODEL).query.messages
    with pytest.raises(InvalidRequestError, match="do not have the shape"):
        TO_CHAT[api](query(api, tools=[7]), MODEL)

    if api is ApiFormat.OPENAI_RESPONSES:
        # LiteLLM says in an exception of its own that this is no picture.
        picture = {"role": "user", "content": [{"type": "image_url", "image_url": 7}]}
        with pytest.raises(InvalidRequestError, match="do not have the shape"):
            TO_CHAT[api](replace(query(api), messages=(picture,)), MODEL)

    class Changed:
        """An adapter of another LiteLLM, whose methods have other names."""

    for module, name in ((anthropic_translation, "_adapter"), (responses_translation, "_adapter")):
        monkeypatch.setattr(module, name, lambda *_: Changed())
    for parameters in ({}, {"tools": [7]}):
        with pytest.raises(DispatchNotInstalledError, match="adapters of the installed LiteLLM") as caught:
            TO_CHAT[api](query(api, **parameters), MODEL)
        assert not caught.value.counts


async def test_only_the_formats_in_which_requests_come_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[ApiFormat] = []
    noting = {api: replace(one, load=lambda api=api: loaded.append(api)) for api, one in TRANSLATIONS.items()}
    monkeypatch.setattr(upstream_module, "TRANSLATIONS", noting)
    for formats in ((), (ApiFormat.OPENAI_RESPONSES,), tuple(TRANSLATIONS)):
        upstream = Upstream(translates=False, formats=formats)
        await upstream.load()
        await upstream.aclose()
        assert tuple(loaded) == formats
        loaded.clear()


async def test_an_error_of_litellms_own_about_a_misshapen_chunk_is_the_upstreams_fault() -> None:
    import_litellm()
    request = responses_translation.responses_to_chat(query(ApiFormat.OPENAI_RESPONSES), MODEL)

    async def chunks() -> AsyncGenerator[dict[str, Any], None]:
        for delta, reason in (({"content": "a", "audio": [1]}, None), ({}, "stop")):
            yield {"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}

    with pytest.raises(UpstreamUnavailableError, match="cannot be translated"):
        assert [event async for event in responses_translation.response_events_of(chunks(), request)]


def test_documents_and_search_results_become_text_and_what_is_about_anthropics_service_is_left_out() -> None:
    import_litellm()
    anthropic_translation.load_adapter()
    document = {"type": "document", "title": "Rules", "source": {"type": "text", "data": "no running"}}
    parts = {"type": "content", "content": [{"type": "text", "text": "wet floor"}]}
    found = {"type": "search_result", "source": "s", "title": "t", "content": [{"type": "text", "text": "found"}]}
    result = {"type": "tool_result", "tool_use_id": "c", "content": [{"type": "text", "text": "42"}, found]}
    asked = RouteQuery(
        (
            {"role": "user", "content": [document, {"type": "document", "source": parts}, found]},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "c", "name": "f", "input": {}}]},
            {"role": "user", "content": [result]},
        ),
        api_format=ApiFormat.ANTHROPIC_MESSAGES,
        parameters={"max_tokens": 5, "top_k": 3, "context_management": {"edits": []}, "cache_control": {"type": "x"}},
    )
    chat = anthropic_translation.to_chat(asked, "openai/x").query
    texts = [[part["text"] for part in message["content"]] for message in (chat.messages[0], chat.messages[2])]
    assert texts == [["Rules\nno running", "wet floor", "t\ns\nfound"], ["42", "t\ns\nfound"]]
    assert chat.parameters == {"max_tokens": 5, "top_k": 3}
