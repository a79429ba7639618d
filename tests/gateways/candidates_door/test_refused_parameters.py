"""A request succeeds whoever is chosen: what a candidate refuses is left out, or the candidate does not answer."""

from __future__ import annotations

from typing import Any

import pytest

from router.errors import ServiceError
from router.values import Overrides, RouteQuery
from tests.gateways.candidates_door.conftest import Door

NEUTRAL = {"temperature": 1, "n": 1.0, "stop": []}


def ask(door: Door, policy: str, **body: Any) -> Any:
    body |= {"messages": [{"role": "user", "content": "hello"}], "model": f"elle/{policy}"}
    return door.http.post("/v1/chat/completions", json=body)


def test_neutral_values_are_left_out_and_told(door: Door) -> None:
    reply = ask(door, "drop", **NEUTRAL, top_p=0.5)
    assert reply.status_code == 200, reply.text
    assert not door.upstream.last.keys() & NEUTRAL.keys()
    assert door.upstream.last["top_p"] == 0.5
    assert reply.headers["x-elle-dropped-parameters"] == "n,stop,temperature"
    assert reply.json()["elle"]["dropped_parameters"] == ["n", "stop", "temperature"]


def test_grpc_tells_it_in_the_delivery_and_in_the_decision(door: Door) -> None:
    query = RouteQuery.from_prompt("hello", overrides=Overrides(policy="drop"), parameters={"temperature": 1, "n": 1})
    answer = door.grpc.complete(query)
    assert answer.delivery is not None
    assert answer.delivery.dropped_parameters == ("n", "temperature")
    assert [row.dropped_parameters for row in answer.decision.candidates] == [(), ("n", "temperature")]
    assert door.upstream.last.keys() == {"messages", "model"}
    steps = list(door.grpc.stream(query))
    assert "".join(step.text for step in steps) == "forty-two"
    assert not door.upstream.last.keys() & {"temperature", "n"}


def test_nothing_is_told_of_a_request_that_is_handed_on_whole(door: Door) -> None:
    reply = ask(door, "drop", top_p=0.5)
    assert "x-elle-dropped-parameters" not in reply.headers
    assert "dropped_parameters" not in reply.json()["elle"]


@pytest.mark.parametrize(
    ("policy", "given", "status", "words"),
    [
        ("drop", {"temperature": 0.2}, 400, "fussy: refuses the parameter 'temperature'"),
        ("drop-any", {"temperature": 0.2, "stop": ["x"]}, 200, ""),
        ("ineligible", {"n": 1}, 400, "fussy: refuses the parameter 'n'"),
        ("refuse", {"temperature": 1}, 200, ""),
        ("refuse", {"temperature": 0.2}, 400, "temperature must be left out or be neutral"),
    ],
)
def test_other_values_do_what_the_policy_says(
    door: Door, policy: str, given: dict[str, Any], status: int, words: str
) -> None:
    reply = ask(door, policy, **given)
    assert (reply.status_code, words in reply.text) == (status, True), reply.text


def test_a_pinned_candidate_gets_what_is_not_neutral_and_says_no_itself(door: Door) -> None:
    reply = door.http.post(
        "/v1/chat/completions",
        json={"model": "fussy", "messages": [{"role": "user", "content": "x"}], "temperature": 0.2, "n": 1},
    )
    assert reply.status_code == 400
    assert door.upstream.last["temperature"] == 0.2
    assert "n" not in door.upstream.last


def test_the_refusal_of_a_request_names_the_parameter(door: Door) -> None:
    error = ask(door, "refuse", stop=["x"]).json()["error"]
    assert error["param"] == "stop"
    with pytest.raises(ServiceError) as caught:
        door.grpc.route(RouteQuery.from_prompt("x", overrides=Overrides(policy="refuse"), parameters={"stop": ["x"]}))
    assert caught.value.code == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    ("bound", "sent"), [(-1, None), (0, None), ("100", 100), ("-1", None), (100, 100), ("0", None), (None, None)]
)
def test_bounds_on_output_are_read_as_clients_mean_them(door: Door, bound: Any, sent: int | None) -> None:
    door.chat("plain", max_tokens=bound)
    assert door.upstream.last.get("max_tokens") == sent
    door.post("/v1/responses", "low", input="hello", max_output_tokens=bound)
    assert door.upstream.last["max_output_tokens"] == (500 if sent is None else sent)


def test_a_bound_that_means_something_in_its_api_stays(door: Door) -> None:
    door.post("/v1/completions", "low", prompt="hello", max_tokens=0)
    assert door.upstream.last["max_tokens"] == 0
    door.post("/v1/messages", "claude", messages=[{"role": "user", "content": "x"}], max_tokens=0)
    assert door.upstream.last["max_tokens"] == 0
