"""Tests of OpenAI's older paths, completions of a prompt and embeddings, and of Azure's paths of all of them."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest

from tests.gateways.responses_door.conftest import Stack

EASY, HARD = "Say hello", "Prove that there are infinitely many primes of the form four n plus three, in detail"


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("prompt", [EASY, [EASY], HARD, [[1, 2]], [1, 2]], ids=str)
def test_a_completion_is_decided_as_the_same_text_in_a_chat(
    stack: Stack, sdk: openai.OpenAI, prompt: Any, streamed: bool
) -> None:
    arguments: Any = {"model": "elle/prompts", "prompt": prompt, "max_tokens": 5}
    if streamed:
        chunks = list(sdk.completions.create(**arguments, stream=True))
        record: Any = chunks[0].elle  # type: ignore[attr-defined]
        text = "".join(chunk.choices[0].text for chunk in chunks)
        assert chunks[-1].elle["cost_usd"] > 0  # type: ignore[attr-defined]
    else:
        answer: Any = sdk.completions.create(**arguments)
        record, text = answer.elle, answer.choices[0].text
    assert text == f"up-{record['candidate']} goes on"
    sent = json.loads(stack.a.sent[-1])
    assert sent.pop("stream", False) is streamed
    assert sent == arguments | {"model": f"up-{record['candidate']}"}
    said = "".join(prompt) if isinstance(prompt, str) or isinstance(prompt[0], str) else ""
    if said:
        # This policy has the same probe and rule, and candidates that answer over this path.
        other = stack.post({"model": "elle/test", "input": said}, "/v1/responses")
        names = {"small": "old", "large": "new"}
        assert names[other.headers["x-elle-candidate"]] == record["candidate"]
        assert other.headers["x-elle-reason"] == record["reason"]
        assert other.headers["x-elle-risk"] == f"{record['risk']:.6f}"
    else:
        # Of tokens nobody here knows the text.
        assert (record["candidate"], record["reason"], record["risk"]) == ("new", "ABSTAINED", None)


def test_a_completion_goes_to_nobody_who_only_knows_chats(stack: Stack, sdk: openai.OpenAI) -> None:
    for model in ("small", "elle/test"):
        with pytest.raises(openai.BadRequestError) as caught:
            sdk.completions.create(model=model, prompt=EASY)
        assert "does not speak the completions API itself, which 'prompt' needs" in caught.value.message
    assert not stack.chats.sent
    assert not stack.a.sent


@pytest.mark.parametrize("prompt", [7, {"text": "x"}, True], ids=str)
def test_a_prompt_of_another_type_is_refused(stack: Stack, prompt: Any) -> None:
    reply = stack.post({"model": "elle/prompts", "prompt": prompt}, "/v1/completions")
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "prompt")


def test_embeddings_come_from_the_named_candidate_undecided(stack: Stack, sdk: openai.OpenAI) -> None:
    sent: list[bytes] = []
    sdk._client.event_hooks = {"request": [lambda request: sent.append(request.read())]}
    got = sdk.embeddings.create(model="old", input=["hello", "you"], encoding_format="float")
    assert got.data[0].embedding == [0.5, -0.25]
    assert stack.a.sent == [sent[0].replace(b'"model":"old"', b'"model":"up-old"')]
    reply = stack.post({"model": "old", "input": "hello"}, "/v1/embeddings")
    assert reply.headers["x-elle-answered-by"] == "old"
    assert "x-elle-decision-id" not in reply.headers


@pytest.mark.parametrize("model", ["elle/prompts", "small", "new"])
def test_who_serves_no_embeddings_is_not_asked(stack: Stack, sdk: openai.OpenAI, model: str) -> None:
    with pytest.raises(openai.BadRequestError, match="serves no embeddings"):
        sdk.embeddings.create(model=model, input="hello")
    assert not stack.a.sent
    assert not stack.chats.sent


def test_azures_sdk_reaches_every_api_and_its_deployment_is_the_model(stack: Stack) -> None:
    azure = openai.AzureOpenAI(api_key="k", azure_endpoint=stack.root, api_version="2026-01-01", max_retries=0)
    with azure:
        chat: Any = azure.chat.completions.create(model="small", messages=[{"role": "user", "content": EASY}])
        assert chat.elle["candidate"] == "small"
        response: Any = azure.responses.create(model="auto", input=EASY)
        assert response.elle["policy"] == "test"
        assert azure.embeddings.create(model="old", input=EASY).data[0].embedding
        completion: Any = azure.completions.create(model="elle-prompts", prompt=EASY)
        assert completion.elle["policy"] == "prompts"
        with azure.chat.completions.create(
            model="small", messages=[{"role": "user", "content": EASY}], stream=True
        ) as stream:
            assert [chunk.choices[0].finish_reason for chunk in stream if chunk.choices][-1] == "stop"
        with pytest.raises(openai.NotFoundError):
            azure.chat.completions.create(model="nobody", messages=[{"role": "user", "content": EASY}])


@pytest.mark.parametrize("body", [{"input": EASY}, {"model": "small", "input": EASY}, {"input": EASY, "model": None}])
def test_the_deployment_in_a_path_counts_and_the_rest_of_the_body_stays_as_it_was(stack: Stack, body: Any) -> None:
    reply = stack.post(body, "/openai/deployments/large/responses?api-version=1")
    assert reply.status_code == 200, reply.text
    assert json.loads(stack.a.sent[-1]) == body | {"model": "up-large"}


def test_an_empty_body_on_a_path_of_azure_is_refused(stack: Stack) -> None:
    reply = stack.post({}, "/openai/deployments/large/responses")
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "input")
