"""Tests of `/v1/responses/ID`: what a provider keeps is fetched and deleted only by whoever asked for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from tests.gateways.responses_door.conftest import Stack

MINE, ANOTHER = {"authorization": "Bearer sk-caller"}, {"authorization": "Bearer sk-another"}


def ask(stack: Stack, method: str, below: str, headers: dict[str, str] = MINE, **more: Any) -> httpx.Response:
    return httpx.request(method, f"{stack.root}/v1/responses/{below}", headers=headers, timeout=60, **more)


@pytest.mark.parametrize(("model", "path"), [("large", "/v1/responses"), ("second", "/openai/v1/responses")])
def test_a_background_response_is_created_fetched_cancelled_and_deleted(
    stack: Stack, sdk: openai.OpenAI, model: str, path: str
) -> None:
    keeper, other = (stack.a, stack.b) if model == "large" else (stack.b, stack.a)
    made: Any = sdk.responses.create(model=model, input="hello", background=True)
    assert (made.status, made.elle["candidate"]) == ("queued", model)
    assert sdk.responses.retrieve(made.id).status == "queued"
    assert sdk.responses.cancel(made.id).status == "cancelled"
    assert sdk.responses.retrieve(made.id, include=["reasoning.encrypted_content"]).status == "cancelled"
    items = sdk.responses.input_items.list(made.id, limit=2, order="asc")
    assert [item.id for item in items] == ["msg_in"]  # type: ignore[union-attr]
    sdk.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError) as caught:
        sdk.responses.retrieve(made.id)
    assert "does not keep it" in caught.value.message
    assert keeper.asked == [
        ("GET", f"{path}/{made.id}"),
        ("POST", f"{path}/{made.id}/cancel"),
        ("GET", f"{path}/{made.id}?include%5B%5D=reasoning.encrypted_content"),
        ("GET", f"{path}/{made.id}/input_items?limit=2&order=asc"),
        ("DELETE", f"{path}/{made.id}"),
        ("GET", f"{path}/{made.id}"),
    ]
    assert not other.asked
    # The caller's credential is not the provider's.
    assert all("sk-caller" not in str(headers) for headers in keeper.headers)


def test_a_fetched_response_is_what_the_provider_says_and_names_who_gave_it(stack: Stack, sdk: openai.OpenAI) -> None:
    made = sdk.responses.create(model="large", input="hello")
    reply = ask(stack, "GET", made.id)
    assert reply.json() == stack.a.kept[made.id]
    assert reply.headers["x-elle-answered-by"] == "large"
    assert ask(stack, "HEAD", made.id).status_code == 200


def test_a_response_is_streamed_from_where_its_reader_stopped(stack: Stack, sdk: openai.OpenAI) -> None:
    made = sdk.responses.create(model="large", input="hello")
    with sdk.responses.retrieve(made.id, stream=True, starting_after=3) as events:
        told = list(events)
    assert [told[0].type, told[-1].type] == ["response.created", "response.completed"]
    assert stack.a.asked == [("GET", f"/v1/responses/{made.id}?starting_after=3&stream=true")]
    with ask_stream(stack, f"{made.id}?stream=true") as raw:
        assert raw.headers["content-type"].startswith("text/event-stream")
        assert raw.read().startswith(b"event: response.created\ndata: {")


def ask_stream(stack: Stack, below: str) -> Any:
    return httpx.stream("GET", f"{stack.root}/v1/responses/{below}", headers=MINE, timeout=60)


@pytest.fixture
def made(stack: Stack, sdk: openai.OpenAI) -> Iterator[str]:
    yield sdk.responses.create(model="large", input="hello", background=True).id
    stack.a.kept.clear()


@pytest.mark.parametrize("ask_for", ["GET ", "DELETE ", "POST /cancel", "GET /input_items"])
def test_another_caller_does_not_learn_that_a_response_exists(stack: Stack, made: str, ask_for: str) -> None:
    method, below = ask_for.split(" ")
    theirs = ask(stack, method, made + below, ANOTHER)
    nobodys = ask(stack, method, made.replace("resp_", "resp_x") + below, ANOTHER)
    assert theirs.status_code == nobodys.status_code == 404
    assert theirs.text.replace(made, "ID") == nobodys.text.replace(made.replace("resp_", "resp_x"), "ID")
    assert theirs.json()["error"]["type"] == "invalid_request_error"
    assert theirs.json()["error"]["code"] == "unknown_response"
    assert not stack.a.asked
    assert made in stack.a.kept


def test_the_refusal_of_a_provider_reaches_the_caller(stack: Stack, sdk: openai.OpenAI) -> None:
    made = sdk.responses.create(model="large", input="hello").id
    with pytest.raises(openai.BadRequestError, match="Only background responses can be cancelled"):
        sdk.responses.cancel(made)


def test_a_translated_response_is_kept_by_nobody(stack: Stack, sdk: openai.OpenAI) -> None:
    made = sdk.responses.create(model="small", input="hello").id
    with pytest.raises(openai.NotFoundError, match="'small', which gave it, does not speak the Responses API"):
        sdk.responses.retrieve(made)
    assert not stack.a.asked


@pytest.mark.parametrize(
    ("below", "status"),
    [
        ("{id}?stream=perhaps", 400),
        ("{id}?x=" + "y" * 5000, 400),
        ("{id}?" + "x=1&" * 200, 400),
        ("{id}?x=%ff", 400),
        ("..%2f{id}", 404),
        ("%2e%2e/{id}", 404),
        ("{id}%2fcancel", 405),
        ("{id}%0d%0ax-evil:1", 404),
        ("{id}/cancel/more", 404),
        ("x" * 3000, 404),
    ],
)
def test_odd_paths_and_queries_are_refused_and_reach_nobody(stack: Stack, made: str, below: str, status: int) -> None:
    reply = ask(stack, "GET", below.replace("{id}", made))
    assert reply.status_code == status, reply.text
    assert reply.json()["error"]["type"] == "invalid_request_error"
    assert len(reply.text) < 2000
    assert not stack.a.asked


def test_methods_that_a_path_does_not_take_are_refused(stack: Stack, made: str) -> None:
    for method, below in (("POST", ""), ("PUT", ""), ("GET", "/cancel"), ("POST", "/input_items")):
        reply = ask(stack, method, made + below)
        assert (reply.status_code, reply.json()["error"]["code"]) == (405, "method_not_allowed")
    assert not stack.a.asked


def test_azures_paths_lead_to_the_same_response(stack: Stack, made: str) -> None:
    for path in ("/openai/responses", "/openai/v1/responses"):
        reply = httpx.get(f"{stack.root}{path}/{made}?api-version=2026-01-01", headers=MINE, timeout=60)
        assert reply.json()["id"] == made
    assert stack.a.asked == [("GET", f"/v1/responses/{made}")] * 2
