"""Tests of what a response in the background costs: its real cost is charged once, when somebody fetches it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from router.observing.catalogue import ANSWER_COST, INPUT_TOKENS
from tests.gateways.responses_door.background import Background, background
from tests.gateways.responses_door.response_upstream import COST_USD


@pytest.fixture(scope="module")
def _world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Background]:
    with background(tmp_path_factory.mktemp("background")) as service:
        yield service


@pytest.fixture
def service(_world: Background) -> Background:
    _world.begin()
    return _world


def made(service: Background) -> tuple[str, float]:
    """Ask for a response in the background; return its id and what was charged for it."""
    with service.sdk() as sdk:
        response: Any = sdk.responses.create(model="large", input="hello", background=True)
    assert response.status == "queued"
    return response.id, service.replicas[0].usd


@pytest.mark.parametrize("query", ["", "?stream=true", "/cancel"])
def test_the_real_cost_is_charged_and_noted_once_when_the_response_is_fetched(service: Background, query: str) -> None:
    response_id, expected_usd = made(service)
    mine = service.replicas[0]
    assert expected_usd > 0
    assert service.get(response_id).json()["status"] == "queued"
    [before] = service.outcomes()
    assert (before["outcome"], before["input_tokens"], before["cost_usd"]) == ("answered", None, None)
    assert mine.usd == pytest.approx(expected_usd)
    assert mine.counted(ANSWER_COST) == 0
    service.upstream.end(response_id)
    if query == "/cancel":
        with service.sdk() as sdk:
            assert sdk.responses.cancel(response_id).status == "cancelled"
    for _ in range(3):
        assert service.get(response_id + query.replace("/cancel", "")).status_code == 200
    assert mine.usd == pytest.approx(COST_USD)
    assert mine.counted(ANSWER_COST) == pytest.approx(COST_USD)
    assert mine.counted(INPUT_TOKENS) == 110
    [after] = service.outcomes()
    assert (after["input_tokens"], after["output_tokens"], after["cost_usd"]) == (110, 2, pytest.approx(COST_USD))
    assert after["outcome"] == ("abandoned" if query == "/cancel" else "answered")
    assert after["at"] > before["at"]
    ended = ("at", "outcome", "input_tokens", "output_tokens", "cost_usd")
    assert {key: value for key, value in after.items() if key not in ended} == {
        key: value for key, value in before.items() if key not in ended
    }


@pytest.mark.parametrize(
    ("status", "usage", "charged_usd"),
    [
        ("failed", None, 0.0),
        ("failed", {"input_tokens": 110, "output_tokens": 0}, 110e-6),
        ("incomplete", {"input_tokens": 110, "output_tokens": 2}, 130e-6),
        # What nobody has counted is not known, and what was expected stays charged.
        ("cancelled", None, None),
        ("completed", {"input_tokens": -1, "output_tokens": 2}, None),
    ],
)
def test_a_response_costs_what_it_used_however_it_ended(
    service: Background, status: str, usage: Any, charged_usd: float | None
) -> None:
    response_id, expected_usd = made(service)
    service.upstream.end(response_id, status, usage=usage)
    for _ in range(2):
        assert service.get(response_id).json()["status"] == status
    assert service.replicas[0].usd == pytest.approx(expected_usd if charged_usd is None else charged_usd, abs=1e-6)
    outcome = {"failed": "failed", "cancelled": "abandoned"}.get(status, "answered")
    [row] = service.outcomes()
    assert (row["outcome"], row["cost_usd"]) == (
        outcome,
        charged_usd if charged_usd is None else pytest.approx(charged_usd),
    )


def test_a_stream_that_its_reader_left_is_charged_when_somebody_fetches_it(service: Background) -> None:
    body = {"model": "large", "input": "hello", "background": True, "stream": True}
    headers = {"authorization": f"Bearer {service.token}"}
    url = f"{service.replicas[0].root}/v1/responses"
    with httpx.stream("POST", url, json=body, headers=headers, timeout=60) as stream:
        first = next(stream.iter_lines())
        assert first == "event: response.created"
    [response_id] = service.upstream.kept
    service.upstream.end(response_id)
    while not (rows := service.outcomes()):
        pass
    assert rows[0]["outcome"] == "abandoned"
    service.get(response_id)
    assert service.replicas[0].usd == pytest.approx(COST_USD)
    assert service.outcomes()[0]["outcome"] == "answered"


@pytest.mark.parametrize("in_background", [True, False])
def test_what_was_charged_with_its_answer_is_not_charged_again(service: Background, in_background: bool) -> None:
    with service.sdk() as sdk, sdk.responses.stream(model="large", input="hello", background=in_background) as stream:
        for event in stream:
            if in_background and event.type == "response.in_progress":
                service.upstream.end(event.response.id)
    response_id = stream.get_final_response().id
    assert service.replicas[0].usd == pytest.approx(COST_USD)
    service.get(response_id)
    assert service.replicas[0].usd == pytest.approx(COST_USD)
    assert service.replicas[0].counted(ANSWER_COST) == pytest.approx(COST_USD)


def test_another_caller_is_charged_nothing(service: Background) -> None:
    response_id, _ = made(service)
    service.upstream.end(response_id)
    assert service.get(response_id, token=service.another).status_code == 404
    service.get(response_id)
    assert service.replicas[0].usd == pytest.approx(COST_USD)
    assert service.replicas[0].ports.gate.accounts.figures()["another"].usd == 0


@pytest.mark.parametrize("status", [["completed"], None, 7, {"a": 1}])
def test_a_status_that_cannot_be_settles_nothing(service: Background, status: Any) -> None:
    response_id, expected_usd = made(service)
    service.upstream.end(response_id, status)
    assert service.get(response_id).status_code == 200
    assert service.replicas[0].usd == pytest.approx(expected_usd)
