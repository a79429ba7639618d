"""Tests of the Responses door: what a provider keeps stays with the candidate that answered, or is refused clearly."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest

from tests.gateways.responses_door.conftest import Stack

HARD = "prove that there are infinitely many primes of the form four n plus three, in detail"


def fields(reply: Any) -> dict[str, Any]:
    assert reply.status_code == 200, reply.text
    record: dict[str, Any] = reply.json()["elle"]
    return record


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("first", ["first", "second"])
def test_a_conversation_stays_with_the_candidate_that_keeps_its_responses(
    stack: Stack, sdk: openai.OpenAI, first: str, streamed: bool
) -> None:
    keeper, other = (stack.a, stack.b) if first == "first" else (stack.b, stack.a)
    if streamed:
        with sdk.responses.stream(model=first, input="hello") as stream:
            begun = stream.get_final_response()
    else:
        begun = sdk.responses.create(model=first, input="hello")
    previous = begun.id
    # Whatever the policy or a profile of it would choose, and whoever else is eligible.
    for asked in ("hi", HARD, [{"type": "function_call_output", "call_id": "call_1", "output": "x"}]):
        went_on: Any = sdk.responses.create(model="elle/two", input=asked, previous_response_id=previous)
        assert went_on.elle["candidate"] == first
        assert went_on.elle["reason"] == "SESSION_HELD"
        assert json.loads(keeper.sent[-1])["previous_response_id"] == previous
        previous = went_on.id
    assert not other.sent


def test_only_the_caller_of_a_response_is_held_to_its_candidate(stack: Stack, sdk: openai.OpenAI) -> None:
    kept = sdk.responses.create(model="second", input="hello").id
    body = {"model": "elle/two", "input": "hello", "previous_response_id": kept}
    mine = fields(stack.post(body, authorization="Bearer sk-caller"))
    assert (mine["candidate"], mine["reason"]) == ("second", "SESSION_HELD")
    reply = stack.post(body, authorization="Bearer another")
    assert reply.headers["x-elle-reason"] != "SESSION_HELD"


def test_an_unknown_response_goes_to_a_candidate_that_may_keep_it_and_its_refusal_comes_back(
    stack: Stack, sdk: openai.OpenAI
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.responses.create(model="elle/test", input="hello", previous_response_id="resp_never")
    assert "resp_never" in str(caught.value)
    assert [json.loads(raw)["previous_response_id"] for raw in stack.a.sent] == ["resp_never"]
    assert not stack.chats.sent


def test_a_response_that_nobody_keeps_cannot_be_gone_on_from(stack: Stack, sdk: openai.OpenAI) -> None:
    unkept = sdk.responses.create(model="small", input="hello", store=True)
    assert unkept.store is False
    for model in ("small", "elle/test"):
        with pytest.raises(openai.APIStatusError) as caught:
            sdk.responses.create(model=model, input="and now?", previous_response_id=unkept.id)
        assert caught.value.status_code == 400
        assert "does not speak the responses API itself, which 'previous_response_id' needs" in caught.value.message
    assert len(stack.chats.sent) == 1
    assert not stack.a.sent


def test_a_pinned_candidate_gets_the_response_of_another_because_both_may_share_what_is_kept(
    stack: Stack, sdk: openai.OpenAI
) -> None:
    kept = sdk.responses.create(model="first", input="hello").id
    went_on: Any = sdk.responses.create(model="large", input="hello", previous_response_id=kept)
    assert went_on.elle["reason"] == "PINNED"
    assert went_on.previous_response_id == kept


@pytest.mark.parametrize(
    "more",
    [
        {"conversation": "conv_1"},
        {"prompt": {"id": "pmpt_1"}},
        {"background": True},
        {"input": [{"type": "item_reference", "id": "msg_1"}, {"role": "user", "content": "hi"}]},
        {"input": [{"id": "msg_1"}, {"role": "user", "content": "hi"}]},
        {"input": [{"type": "compaction", "encrypted_content": "abc"}, {"role": "user", "content": "hi"}]},
        {"input": [{"type": "from_next_year", "x": [1]}, {"role": "user", "content": "hi"}]},
        {"tools": [{"type": "code_interpreter", "container": {"type": "auto"}}]},
    ],
    ids=str,
)
def test_what_chat_completions_cannot_say_goes_to_a_candidate_that_speaks_the_api(
    stack: Stack, more: dict[str, Any]
) -> None:
    assert fields(stack.post({"model": "elle/test", "input": "hi"} | more))["candidate"] == "large"
    reply = stack.post({"model": "small", "input": "hi"} | more)
    assert reply.status_code == 400
    assert "does not speak the responses API itself" in reply.json()["error"]["message"]
    assert not stack.chats.sent


def test_azure_is_asked_at_its_own_path_with_its_own_header(
    stack: Stack, sdk: openai.OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    response: Any = sdk.responses.create(model="second", input="hello")
    assert response.model == "up-azure"
    assert stack.b.headers[0]["api-key"] == "none"
    assert "authorization" not in stack.b.headers[0]
