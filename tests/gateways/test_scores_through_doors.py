"""A caller's score through every door: the same decision however it is sent, and in a batch as alone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
import httpx
import pytest

from router.client import RouterClient
from router.deciding.pipeline import Router
from router.decision import Reason
from router.errors import ServiceError
from router.gateways.http.http_gateway import HttpGateway
from router.gateways.litellm_plugin import METADATA_KEY, elle_plugin
from router.pb import router_service_pb2 as pb
from router.pb import router_service_pb2_grpc as pb_grpc
from router.serving.server import serving
from router.serving.settings import ServerSettings
from router.values import RouteQuery
from router.wire import conversion
from tests.gateways.chat_upstream import running_chat_upstream
from tests.gateways.loopback import in_thread
from tests.gateways.test_every_door_decides_alike import NAMES, litellm_models
from tests.router.policies.score_policy import write_score_policy

WEAK, STRONG = NAMES
#: What a request says, and who then answers.
CASES: tuple[tuple[Any, str], ...] = ((0.9, WEAK), (0.2, STRONG), ("0.8", WEAK), (7, STRONG), ("much", STRONG))


@dataclass(frozen=True)
class Stack:
    address: str
    http_url: str
    upstream_url: str
    engine: Router


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_chat_upstream() as (_, upstream_url):
        candidates = [{"name": name, "model": f"openai/up-{name}", "api_base": upstream_url} for name in NAMES]
        policy = write_score_policy(tmp_path_factory.mktemp("scores"), names=NAMES, candidates=candidates)
        settings = ServerSettings(policies=(policy,), port=0, drain_s=1, http=HttpGateway())
        with in_thread(serving(settings)) as running:
            url = f"http://{running.http_address}"
            yield Stack(running.address, url, upstream_url, Router.from_files(policy))


def rpc(stack: Stack, method: str, request: Any, metadata: Mapping[str, str] | None = None) -> Any:
    with grpc.insecure_channel(stack.address) as channel:
        return getattr(pb_grpc.RouterServiceStub(channel), method)(request, metadata=tuple((metadata or {}).items()))


def test_grpc_by_field_metadata_and_parameters(stack: Stack) -> None:
    for said, winner in CASES:
        ways: list[tuple[dict[str, Any], dict[str, str]]] = [
            ({}, {"x-elle-score-confidence": str(said)}),
            ({}, {"x-elle-scores": f'{{"Confidence": "{said}"}}'}),
            ({"parameters": {"metadata": {"elle_scores": {"confidence": said}}}}, {}),
        ]
        if not isinstance(said, str):
            ways.append(({"scores": {"Confidence": said}}, {"x-elle-score-confidence": "0.5"}))
        for given, metadata in ways:
            request = conversion.query_to_wire(RouteQuery.from_prompt("hello", **given))
            found = conversion.decision_from_wire(rpc(stack, "Route", request, metadata).decision)
            assert found.chosen == winner
            assert found.score is not None
            assert (found.score.fault == "") == (found.reason is not Reason.ABSTAINED)


def test_a_batch_decides_each_request_as_alone(stack: Stack) -> None:
    queries = [RouteQuery.from_prompt("hello", scores={"confidence": x}) for x in (0.1, 0.9, float("nan"), 0.5, 2.0)]
    queries.append(RouteQuery.from_prompt("hello"))
    with RouterClient(stack.address) as client:
        batch = client.route_batch(queries)
        alone = [client.route(query) for query in queries]
    for found, one, query in zip(batch, alone, queries, strict=True):
        assert not isinstance(found, ServiceError)
        here = stack.engine.decide(query)
        assert (found.chosen, found.candidates, found.score) == (one.chosen, one.candidates, one.score)
        assert (here.chosen, here.candidates, here.score) == (one.chosen, one.candidates, one.score)


def test_a_header_of_a_batch_says_nothing_about_its_requests(stack: Stack) -> None:
    request = conversion.query_to_wire(RouteQuery.from_prompt("hello"))
    batch = pb.BatchRouteRequest(requests=[request])
    found = rpc(stack, "BatchRoute", batch, {"x-elle-score-confidence": "0.9"}).results[0].decision
    assert (found.chosen, found.score.fault) == (STRONG, "missing")


def test_one_bad_name_does_not_spoil_a_batch(stack: Stack) -> None:
    queries = [RouteQuery.from_prompt("hello", scores=scores) for scores in ({"confidence": 0.9}, {"x" * 99: 0.1})]
    with RouterClient(stack.address) as client:
        first, second = client.route_batch(queries)
        assert isinstance(second, ServiceError)
        assert second.code == "INVALID_ARGUMENT"
        assert not isinstance(first, ServiceError)
        assert first.chosen == WEAK
        answer = client.complete("hello", scores={"confidence": 0.9})
        assert (answer.decision.chosen, answer.decision.score.value) == (WEAK, 0.9)  # type: ignore[union-attr]


def test_http_by_headers_and_metadata(stack: Stack) -> None:
    for said, winner in CASES:
        ways: list[tuple[dict[str, str], dict[str, Any]]] = [
            ({"X-Elle-Score-Confidence": str(said)}, {}),
            ({"x-elle-scores": f'{{"Confidence": "{said}"}}'}, {}),
            ({}, {"metadata": {"elle_scores": {"confidence": said}}}),
        ]
        for headers, more in ways:
            body = {"model": "elle/test", "messages": [{"role": "user", "content": "hello"}]} | more
            reply = httpx.post(f"{stack.http_url}/v1/chat/completions", json=body, headers=headers, timeout=60)
            assert reply.status_code == 200, reply.text
            assert reply.headers["x-elle-candidate"] == winner
            assert reply.json()["elle"]["score"]["name"] == "Confidence"
    body = {"model": "elle/test", "messages": [{"role": "user", "content": "hello"}]}
    reply = httpx.post(f"{stack.http_url}/v1/chat/completions", json=body, headers={"x-elle-scores": "{"}, timeout=60)
    assert reply.status_code == 400
    assert "x-elle-scores must be a JSON object of numbers" in reply.text


def test_litellm_plugin(stack: Stack) -> None:
    litellm = pytest.importorskip("litellm", reason="LiteLLM is not installed; `pip install 'elle-router[dispatch]'`")
    before = list(litellm.callbacks)

    async def ask_all() -> None:
        router = litellm.Router(
            model_list=litellm_models(stack.upstream_url), plugins=[elle_plugin(stack.engine)], num_retries=0
        )
        for said, winner in CASES:
            told: dict[str, Any] = {"elle_scores": {"confidence": said}}
            await router.acompletion("auto", messages=[{"role": "user", "content": "hello"}], metadata=told)
            assert told[METADATA_KEY]["x-elle-candidate"] == winner
        await litellm.close_litellm_async_clients()

    try:
        asyncio.run(ask_all())
    finally:
        litellm.callbacks[:] = before
