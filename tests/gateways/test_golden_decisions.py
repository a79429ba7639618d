"""500 decisions that commit d39f84e made with the example probe: gRPC and HTTP still make every one of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from probes.encoders.native_runtime import targets_here
from router.client import RouterClient
from router.decision import RoutingDecision
from router.gateways.http.http_gateway import HttpGateway
from router.serving.server import serving
from router.serving.settings import ServerSettings
from router.values import RouteQuery
from tests.conftest import ROOT
from tests.gateways.loopback import in_thread

GOLDEN = ROOT / "tests" / "golden"
CANDIDATES = ("mixtral-8x7b", "gpt-4-turbo")
#: The file holds risks to six digits. The C code that made it gives the same features on every machine, but NumPy's
#: products of them differ in their last bits, by processor and by number of threads. The features of ONNX Runtime,
#: which serves where the C code does not run, differ more.
TOLERANCE = 5e-6 if targets_here() else 2e-3
ROWS = [json.loads(line) for line in (GOLDEN / "decisions.jsonl").read_text("utf-8").split("\n") if line]


@pytest.fixture(scope="module")
def service() -> Iterator[Any]:
    policy = GOLDEN / "mixtral-gpt4.yaml"
    settings = ServerSettings(policies=(policy,), port=0, drain_s=1, http=HttpGateway(), cache_entries=0)
    with in_thread(serving(settings)) as running:
        yield running


def query_of(body: dict[str, Any]) -> RouteQuery:
    return RouteQuery(body["messages"], parameters={name: body[name] for name in body if name != "messages"})


def risks_of(decision: RoutingDecision) -> list[float | None]:
    return [candidate.risk for candidate in decision.candidates]


@pytest.mark.usefixtures("_real_encoder")
def test_grpc_decides_the_golden_conversations_as_before(service: Any) -> None:
    assert len(ROWS) == 500
    with RouterClient(service.address) as client:
        decisions = [client.route(query_of(row["body"])) for row in ROWS]
    for row, decision in zip(ROWS, decisions, strict=True):
        assert (decision.chosen, decision.reason.value) == (row["chosen"], row["reason"]), row["body"]
        assert risks_of(decision) == pytest.approx(row["risk"], abs=TOLERANCE), row["body"]


@pytest.mark.usefixtures("_real_encoder")
def test_http_decides_the_golden_conversations_as_before(service: Any) -> None:
    url = f"http://{service.http_address}/v1/chat/completions"
    with httpx.Client(timeout=60) as http:
        for row in ROWS:
            reply = http.post(url, json={"model": "elle/default", **row["body"]})
            assert reply.status_code == 200, reply.text
            told = reply.headers["x-elle-candidate"], reply.headers["x-elle-reason"]
            assert told == (row["chosen"], row["reason"]), row["body"]
            risk = row["risk"][CANDIDATES.index(row["chosen"])]
            assert reply.json()["elle"]["risk"] == pytest.approx(risk, abs=TOLERANCE), row["body"]
