"""The limits of a token at the doors: refused with 429, or answered by the cheapest candidate, and counted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from router.client import RouterClient
from router.decision import Reason, RoutingDecision
from router.errors import ServiceError
from router.identity.counts import DoorName, Refusal
from router.identity.principal import Scope
from router.values import Overrides, RouteQuery
from tests.router.identity.guarded import BODIES, EASY, HARD, NAMES, Guarded, add_token, guarded_service

WEAK, STRONG = NAMES


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    with guarded_service(tmp_path_factory.mktemp("limits")) as running:
        yield running


def token(service: Guarded, name: str, *scopes: Scope, **limits: Any) -> str:
    """Add a token, and let the service take the file over."""
    text, _ = add_token(service.tokens, name, *scopes, **limits)
    service.gate.refresh()
    return text


def counted(service: Guarded, door: DoorName, reason: Refusal) -> int:
    return service.gate.counts.snapshot()[door, reason]


def hard(overrides: Overrides | None = None) -> RouteQuery:
    return RouteQuery.from_prompt("hello", scores=HARD, overrides=overrides or Overrides())


def test_more_requests_than_the_rate_are_refused(service: Guarded) -> None:
    text = token(service, "slow", requests_per_minute=3)
    with RouterClient(service.address, api_key=text) as client:
        for _ in range(3):
            client.route("hello", scores=EASY)
        with pytest.raises(ServiceError, match="limit of this token on requests") as caught:
            client.route("hello", scores=EASY)
    assert (caught.value.code, caught.value.service_reason) == ("RESOURCE_EXHAUSTED", "LIMIT_EXCEEDED")
    assert 0 < (caught.value.retry_after_s or 0) <= 20
    assert counted(service, DoorName.GRPC, Refusal.OVER_RATE) == 1


def test_each_request_of_a_batch_counts(service: Guarded) -> None:
    text = token(service, "batch", requests_per_minute=3)
    queries = [RouteQuery.from_prompt("hello", scores=EASY) for _ in range(5)]
    with RouterClient(service.address, api_key=text) as client:
        results = client.route_batch(queries)
    assert sum(isinstance(one, RoutingDecision) for one in results) == 3
    assert {one.code for one in results if isinstance(one, ServiceError)} == {"RESOURCE_EXHAUSTED"}


def test_http_says_when_to_try_again(service: Guarded) -> None:
    text = token(service, "http", requests_per_minute=1)
    headers = {"authorization": f"Bearer {text}"}
    assert httpx.get(service.http_url + "/v1/models", headers=headers).status_code == 200
    refused = httpx.get(service.http_url + "/v1/models", headers=headers)
    assert (refused.status_code, refused.json()["error"]["type"]) == (429, "rate_limit_error")
    assert 0 < int(refused.headers["retry-after"]) <= 60
    assert counted(service, DoorName.HTTP, Refusal.OVER_RATE) == 1


def test_beyond_the_share_the_cheapest_candidate_answers_and_the_record_says_why(service: Guarded) -> None:
    text = token(service, "cheap", strong_share=0, beyond="cheap")
    with RouterClient(service.address, api_key=text) as client:
        decision = client.route(hard())
        assert (decision.chosen, decision.reason, decision.would_choose) == (WEAK, Reason.OVER_LIMIT, STRONG)
        answer = client.complete(hard())
        assert answer.delivery.answered_by == WEAK
        assert client.route("hello", scores=EASY).reason is Reason.GAIN_BELOW_THRESHOLD
    figures = service.gate.accounts.figures()["cheap"]
    assert (figures.decided, figures.strong) == (3, 0)


@pytest.mark.parametrize(
    "overrides", [Overrides(pin=STRONG), Overrides(denied_candidates=(WEAK,)), Overrides(allowed_candidates=(STRONG,))]
)
def test_nobody_buys_the_strong_candidate_by_ruling_out_the_cheap_one(service: Guarded, overrides: Overrides) -> None:
    name = f"cunning{len(service.tokens.read_bytes())}"
    text = token(service, name, strong_share=0, beyond="cheap")
    with (
        RouterClient(service.address, api_key=text) as client,
        pytest.raises(ServiceError, match="decisions for a strong candidate") as caught,
    ):
        client.route(hard(overrides))
    assert caught.value.code == "RESOURCE_EXHAUSTED"
    assert service.gate.accounts.figures()[name].decided == 0


#: The paths that decide nothing and ask no candidate for an answer.
UNBOUNDED = {"/v1/messages/count_tokens", "/v1/feedback"}
#: What the paths of decision models want besides.
QUESTIONS: dict[str, dict[str, Any]] = {
    "/v1/systemone": {"questions": {"tier": {"type": "choice", "criteria": {"small": "", "large": ""}}}},
    "/v1/decisions": {"questions": [{"type": "choice", "choices": [{"value": "small"}, {"value": "large"}]}]},
}
BOUNDED = [path for path, body in BODIES.items() if body is not None and path not in UNBOUNDED]


@pytest.mark.parametrize(
    ("path", "limits", "reason"),
    [
        *((path, {"usd_per_day": 0}, Refusal.OVER_BUDGET) for path in BOUNDED),
        # An embedding is not decided, so it is neither strong nor cheap.
        *((path, {"strong_share": 0}, Refusal.OVER_STRONG_SHARE) for path in BOUNDED if "embeddings" not in path),
    ],
)
def test_every_path_refuses_and_counts_what_is_beyond_the_share_and_the_budget(
    service: Guarded, path: str, limits: dict[str, Any], reason: Refusal
) -> None:
    text = token(service, f"t{len(service.tokens.read_bytes())}", *Scope, **limits)
    before = counted(service, DoorName.HTTP, reason)
    headers = {"x-api-key": text, "x-elle-scores": json.dumps(HARD)}
    body = {**BODIES[path], **QUESTIONS.get(path, {}), "model": "auto"}
    answer = httpx.post(service.http_url + path.replace("/test/", "/auto/"), json=body, headers=headers, timeout=60)
    assert answer.status_code == 429, answer.text
    assert answer.json()["error"]["type"] == "rate_limit_error"
    assert int(answer.headers["retry-after"]) > 0
    assert counted(service, DoorName.HTTP, reason) == before + 1


def test_a_share_lets_hard_requests_through_until_it_is_used_up(service: Guarded) -> None:
    text = token(service, "share", strong_share=0.5)
    with RouterClient(service.address, api_key=text) as client:
        results = [client.route_batch([hard()])[0] for _ in range(100)]
    # 20 at first, and then every second one.
    decided = [one for one in results if isinstance(one, RoutingDecision)]
    assert {one.chosen for one in decided} == {STRONG}
    assert len(decided) == pytest.approx(70, abs=1)
    assert {one.service_reason for one in results if isinstance(one, ServiceError)} == {"LIMIT_EXCEEDED"}
    assert counted(service, DoorName.GRPC, Refusal.OVER_STRONG_SHARE) >= 29


def test_answers_are_paid_for_and_decisions_are_not(service: Guarded) -> None:
    text = token(service, "paying", usd_per_day=0.00003)
    with RouterClient(service.address, api_key=text) as client:
        client.route(hard())
        assert service.gate.accounts.figures()["paying"].usd == 0
        # 10 tokens in and 2 out at 1 and 2 USD per million: 0.000014.
        assert client.complete(hard()).cost_usd == pytest.approx(0.000014)
        assert service.gate.accounts.figures()["paying"].usd == pytest.approx(0.000014)
        for _ in client.stream(hard()):
            pass
        client.complete(hard())
        with pytest.raises(ServiceError, match="US dollars a day") as caught:
            client.complete(hard())
    assert 0 < (caught.value.retry_after_s or 0) <= 86_400
    assert counted(service, DoorName.GRPC, Refusal.OVER_BUDGET) == 1


def test_embeddings_are_paid_for_and_refused_beyond_the_budget_whatever_the_token_says(service: Guarded) -> None:
    text = token(service, "embedding", usd_per_day=0.000015, beyond="cheap")
    before = counted(service, DoorName.HTTP, Refusal.OVER_BUDGET)

    def embed(model: str) -> httpx.Response:
        body = {"model": model, "input": "hello"}
        return httpx.post(f"{service.http_url}/v1/embeddings", json=body, headers={"x-api-key": text})

    # 10 tokens at 1 USD per million: 0.00001.
    assert embed(WEAK).status_code == 200
    assert service.gate.accounts.figures()["embedding"].usd == pytest.approx(0.00001)
    assert embed(STRONG).status_code == 200
    assert service.gate.accounts.figures()["embedding"].usd == pytest.approx(0.00002)
    refused = embed(WEAK)
    assert (refused.status_code, refused.json()["error"]["type"]) == (429, "rate_limit_error")
    assert counted(service, DoorName.HTTP, Refusal.OVER_BUDGET) == before + 1
