"""Unknown fields and parts reach every provider that reads OpenAI's format, and never LiteLLM's own keywords."""

from __future__ import annotations

from typing import Any

import pytest

from tests.gateways.candidates_door.conftest import PROVIDERS, Door, events

PARTS: list[dict[str, Any]] = [{"type": "text", "text": "look"}, {"type": "hologram", "hologram": {"a": 1}}]

CHAT: list[dict[str, Any]] = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "hello"},
    {"role": "assistant", "content": "hello"},
    {"role": "user", "content": PARTS},
]

#: Names of LiteLLM's own keywords, each of which would send the request elsewhere, with another key, or nowhere.
KEYWORDS: dict[str, Any] = {
    "api_base": "http://127.0.0.1:9",
    "base_url": "http://127.0.0.1:9",
    "api_key": "stolen",
    "api_version": "stolen",
    "mock_response": "pwned",
    "custom_llm_provider": "openai",
    "headers": {"x-stolen": "1"},
    "extra_headers": {"x-stolen": "1"},
    "extra_query": {"stolen": 1},
    "extra_body": {"stolen": 1},
    "timeout": 0.000001,
    "fallbacks": ["openai/stolen"],
    "azure_ad_token": "stolen",
    "aws_region_name": "stolen",
    "vertex_project": "stolen",
    "organization": "stolen",
    "metadata": {"user_api_key": "stolen"},
    "litellm_metadata": {"stolen": 1},
    "contents": [{"role": "user", "parts": [{"text": "other words than were judged"}]}],
    "options": {"stolen": 1},
}


def ask(door: Door, name: str, **body: Any) -> Any:
    return door.http.post("/v1/chat/completions", json={"model": name} | body)


@pytest.mark.parametrize("name", PROVIDERS)
def test_unknown_fields_reach_providers_that_speak_openais_format(door: Door, name: str) -> None:
    reply = door.chat(name, brand_new={"a": [1, None]}, größe="é")
    assert door.upstream.last["brand_new"] == {"a": [1, None]}
    assert door.upstream.last["größe"] == "é"
    assert "dropped_parameters" not in reply.json()["elle"]


@pytest.mark.parametrize("name", [*PROVIDERS, "claude"])
def test_no_field_reaches_litellms_keywords(door: Door, name: str) -> None:
    door.chat(name)
    plain, plain_headers = door.upstream.last, door.upstream.headers
    reply = door.chat(name, **KEYWORDS)
    assert reply.json()["choices"][0]["message"]["content"] == "forty-two"
    sent = door.upstream.last
    assert "stolen" not in str(door.upstream.headers)
    assert door.upstream.headers.keys() == plain_headers.keys()
    # What LiteLLM writes itself stays as it is, and everything else is the caller's, word for word.
    assert {key: sent[key] for key in plain} == plain
    added = {key: sent[key] for key in sent.keys() - plain.keys()}
    assert added.items() <= KEYWORDS.items()


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("name", PROVIDERS)
def test_unknown_parts_reach_providers_that_speak_openais_format(door: Door, name: str, streamed: bool) -> None:
    reply = ask(door, name, messages=CHAT, stream=streamed, brand_new=1)
    assert reply.status_code == 200, reply.text
    assert [one["content"] for one in door.upstream.last["messages"]] == [one["content"] for one in CHAT]
    assert door.upstream.last["brand_new"] == 1
    texts = [chunk["choices"][0]["delta"].get("content") for chunk in events(reply)] if streamed else []
    assert not streamed or "forty-two" in texts


def test_a_part_of_which_litellm_knows_nothing_arrives(door: Door) -> None:
    assert ask(door, "mistral", messages=[{"role": "user", "content": PARTS[1:]}]).status_code == 200
    assert door.upstream.last["messages"][0]["content"] == PARTS[1:]


def test_unknown_parts_pass_to_who_is_decided_for(door: Door) -> None:
    body = {"model": "elle/drop", "messages": [{"role": "user", "content": PARTS}]}
    assert door.http.post("/v1/chat/completions", json=body).status_code == 200
    assert door.upstream.last["messages"][0]["content"] == PARTS


def test_a_candidate_of_another_format_is_not_chosen_for_them_and_says_itself_what_it_makes_of_them(door: Door) -> None:
    reply = ask(door, "elle/claude", messages=CHAT)
    assert reply.status_code == 400
    assert "content parts of unknown type 'hologram'" in reply.text
    assert ask(door, "claude", messages=CHAT[1:]).status_code == 200
    assert door.upstream.last["messages"][-1]["content"] == PARTS


def test_fields_that_a_provider_is_not_sent_are_told(door: Door) -> None:
    reply = ask(door, "elle/claude", messages=CHAT[:2], brand_new=1)
    assert "brand_new" not in door.upstream.last
    assert reply.json()["elle"]["dropped_parameters"] == ["brand_new"]
    assert reply.headers["x-elle-dropped-parameters"] == "brand_new"


#: A picture that is long enough for LiteLLM not to get to see it, with what JSON must escape in it.
LONG = "iVBORw0KGgo" + "A" * 100_000 + "=="


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("name", [*PROVIDERS, "claude"])
def test_a_long_picture_arrives_as_it_was_written(door: Door, name: str, streamed: bool) -> None:
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{LONG}"}}
    messages = [{"role": "user", "content": [PARTS[0], picture]}]
    is_last = name in {"gemini", "ollama-chat", "claude"}
    reply = ask(door, name, messages=messages, stream=streamed and not is_last, brand_new=1)
    assert reply.status_code == 200, reply.text
    assert "error" not in reply.text
    assert not reply.text.startswith("data") or reply.text.endswith("data: [DONE]\n\n")
    sent = door.upstream.sent[-1]
    assert sent.count(LONG.encode()) == 1
    assert b"elle" not in sent
    if not is_last:
        assert door.upstream.last["messages"] == messages
        assert door.upstream.last["brand_new"] == 1
    # Beside a part that nobody knows it arrives too.
    if name != "claude":
        messages = [{"role": "user", "content": [*PARTS, picture]}]
        assert ask(door, name, messages=messages).status_code == 200
        assert door.upstream.last["messages"] == messages


def test_a_long_url_cannot_write_into_the_body(door: Door) -> None:
    url = "data:image/png;base64," + "A" * 70_000 + '"}}]}],"model":"stolen","x":"\\ü\n'
    messages = [{"role": "user", "content": [PARTS[0], {"type": "image_url", "image_url": {"url": url}}]}]
    assert ask(door, "openrouter", messages=messages).status_code == 200
    assert door.upstream.last["messages"] == messages
    assert "x" not in door.upstream.last
