"""The service over a real gRPC connection: decisions, errors by status, health, reflection, streams."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import subprocess
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from router.cli.demo import PROMPTS
from router.cli.render import decision_to_dict
from router.client import AsyncRouterClient, RouterClient
from router.deciding.pipeline import Router
from router.decision import Reason, RoutingDecision, Timings
from router.errors import InvalidRequestError, ServiceError
from router.pb import router_service_pb2 as pb
from router.pb import routing_pb2
from router.values import Overrides, RouteQuery
from router.wire.servicer import SERVICE_NAME

#: From npm, by `make test`.
BUF = Path(__file__).parents[1] / "buf" / "node_modules" / ".bin" / "buf"

QUERIES = [RouteQuery(prompt.messages) for prompt in PROMPTS]


def essence(decision: RoutingDecision) -> RoutingDecision:
    """Return what must be equal for equal requests, which is everything but the id and the times."""
    return dataclasses.replace(decision, decision_id="", timings=Timings())


class TestDeciding:
    def test_one_prompt_decides_alike_through_every_method_alone_or_in_a_batch(
        self, client: RouterClient, router: Router
    ) -> None:
        here = [essence(router.decide(query)) for query in QUERIES]
        alone = [essence(client.route(query)) for query in QUERIES]
        batch = [essence(one) for one in client.route_batch(QUERIES) if isinstance(one, RoutingDecision)]
        backwards = [essence(one) for one in client.route_batch(QUERIES[::-1]) if isinstance(one, RoutingDecision)]
        completed = [essence(client.complete(query).decision) for query in QUERIES]
        assert here == alone == batch == backwards[::-1] == completed

    def test_the_demo_prompts_use_every_tier(self, router: Router) -> None:
        assert len({router.decide(query).chosen for query in QUERIES}) == 3

    def test_a_plain_prompt_is_a_chat_of_one_user_message(self, address: str, client: RouterClient) -> None:
        with grpc.insecure_channel(address) as channel:
            call = channel.unary_unary(
                f"/{SERVICE_NAME}/Route",
                request_serializer=pb.RouteRequest.SerializeToString,
                response_deserializer=pb.RouteResponse.FromString,
            )
            reply = call(pb.RouteRequest(prompt="What is 2 + 2?"))
        assert reply.decision.chosen == client.route("What is 2 + 2?").chosen
        assert reply.decision.candidates[0].risk == client.route("What is 2 + 2?").candidates[0].risk

    def test_the_record_says_everything_needed_to_say_why(self, client: RouterClient) -> None:
        decision = client.route("What is 2 + 2? Asked nowhere else.", session_id="s-1")
        assert decision.decision_id
        assert decision.session_id == "s-1"
        assert decision.requested == decision.policy.name
        assert decision.probe is not None
        assert len(decision.probe.digest) == len(decision.policy.digest) == 64
        assert all(c.raw is not None and c.risk is not None and 0 <= c.risk <= 1 for c in decision.candidates)
        assert decision.difficulty is not None
        assert decision.leverage is not None
        assert 0 < decision.timings.encode_s <= decision.timings.total_s

    def test_overrides_reach_the_policy(self, client: RouterClient) -> None:
        cheap, middle, strong = (c.candidate for c in client.route("x").candidates)
        assert client.route("x", Overrides(pin=strong)).reason is Reason.PINNED
        assert client.route("x", Overrides(allowed_candidates=(cheap,))).reason is Reason.ONLY_ELIGIBLE
        assert client.route("x", Overrides(denied_candidates=(cheap, middle))).chosen == strong
        assert client.route("x", Overrides(max_risk=1.0)).reason is Reason.WITHIN_RISK_BOUND
        familiar = "Which of the following is a prime number? A. 21 B. 33 C. 37 D. 51"
        assert client.route(familiar, Overrides(min_gain=-0.875, denied_candidates=(middle,))).threshold == -1.75
        assert client.route("x", Overrides(max_cost_usd=1.0)).chosen in {cheap, middle, strong}

    def test_a_region_that_no_candidate_names_leaves_nobody(self, client: RouterClient) -> None:
        with pytest.raises(ServiceError, match=r"economy: region 'eu' required.*frontier: region 'eu'") as caught:
            client.route("x", Overrides(require_region="eu"))
        assert (caught.value.code, caught.value.service_reason) == ("FAILED_PRECONDITION", "NO_ELIGIBLE_CANDIDATE")

    def test_a_settled_choice_has_the_same_record_through_every_method(
        self, client: RouterClient, router: Router
    ) -> None:
        queries = [
            RouteQuery.from_prompt("hello", overrides=Overrides(pin="economy")),
            RouteQuery.from_prompt(
                "hello",
                overrides=Overrides(denied_candidates=("economy", "standard")),
                parameters={"tools": [{"type": "function", "function": {"name": "f"}}]},
            ),
        ]
        here = [essence(router.decide(query)) for query in queries]
        assert here == [essence(client.route(query)) for query in queries]
        assert here == [essence(one) for one in client.route_batch(queries) if isinstance(one, RoutingDecision)]
        assert here == [essence(client.complete(query).decision) for query in queries]
        assert [one.reason for one in here] == [Reason.PINNED, Reason.ONLY_ELIGIBLE]
        assert here[1].needs == ("tools",)
        assert {c.risk for one in here for c in one.candidates} == {None}

    def test_the_record_says_what_was_read_in_the_ask(self, client: RouterClient) -> None:
        decision = client.route("Was ist das und warum?\n```\nint x;\n```")
        assert (decision.language, decision.has_code, decision.needs) == ("de", True, ())

    def test_a_batch_tells_the_bad_from_the_good(self, client: RouterClient) -> None:
        good, bad, also_good = client.route_batch(["hello", RouteQuery(()), "bye"])
        assert isinstance(good, RoutingDecision)
        assert isinstance(also_good, RoutingDecision)
        assert isinstance(bad, ServiceError)
        assert (bad.code, bad.service_reason) == ("INVALID_ARGUMENT", "INVALID_REQUEST")

    def test_the_policy_can_be_read(self, client: RouterClient) -> None:
        reply = client.get_policy()
        assert reply.policy.name == reply.policy_names[0]
        assert reply.probe.digest
        assert '"prices"' in reply.policy_json


class TestAnswering:
    def test_the_chosen_candidate_answers_through_litellm_and_says_it_is_canned(self, client: RouterClient) -> None:
        answer = client.complete("What is 2 + 2?", parameters={"temperature": 0, "made_up_field": {"a": [1, None]}})
        assert answer.text.startswith("[canned answer")
        assert answer.input_tokens
        assert answer.cost_usd is not None
        assert answer.cost_usd > 0

    def test_a_stream_starts_with_the_decision_and_ends_with_usage(self, client: RouterClient) -> None:
        first, *rest = client.stream("What is 2 + 2?")
        assert first.decision is not None
        assert first.text == ""
        assert all(step.decision is None for step in rest)
        assert "".join(step.text for step in rest).startswith("[canned answer")
        assert rest[-1].chunk["usage"]["completion_tokens"] > 0

    @pytest.mark.parametrize("field", ["model", "messages", "stream"])
    def test_what_the_router_sets_itself_is_not_the_callers(self, client: RouterClient, field: str) -> None:
        with pytest.raises(ServiceError, match=field) as caught:
            client.complete("x", parameters={field: "y"})
        assert caught.value.code == "INVALID_ARGUMENT"

    async def test_the_asynchronous_client_does_the_same(self, address: str, router: Router) -> None:
        async with AsyncRouterClient(address) as client:
            routed, batch, answer = await asyncio.gather(
                client.route("hello"), client.route_batch(["hello"]), client.complete("hello")
            )
            steps = [step async for step in client.stream("hello")]
            policy = await client.get_policy()
        here = essence(router.decide(RouteQuery.from_prompt("hello")))
        assert steps[0].decision is not None
        assert isinstance(batch[0], RoutingDecision)
        assert {essence(d) for d in (routed, batch[0], answer.decision, steps[0].decision)} == {here}
        assert policy.policy.digest == here.policy.digest


class TestRefusals:
    @pytest.mark.parametrize(
        ("what", "overrides", "code", "reason"),
        [
            ((), None, "INVALID_ARGUMENT", "INVALID_REQUEST"),
            ("", None, "INVALID_ARGUMENT", "INVALID_REQUEST"),
            ("x" * 1_000_000, None, "INVALID_ARGUMENT", "INVALID_REQUEST"),
            ("x", Overrides(policy="nobody"), "NOT_FOUND", "UNKNOWN_POLICY"),
            ("x", Overrides(pin="nobody"), "INVALID_ARGUMENT", "UNKNOWN_CANDIDATE"),
            ("x", Overrides(max_risk=2), "INVALID_ARGUMENT", "INVALID_REQUEST"),
            ("x", Overrides(max_cost_usd=0), "FAILED_PRECONDITION", "NO_ELIGIBLE_CANDIDATE"),
        ],
    )
    def test_each_error_has_its_status_and_reason(
        self, client: RouterClient, what: Any, overrides: Overrides | None, code: str, reason: str
    ) -> None:
        with pytest.raises(ServiceError) as caught:
            client.route(what, overrides)
        assert (caught.value.code, caught.value.service_reason) == (code, reason)
        assert "Traceback" not in str(caught.value)
        assert client.route("still up?").chosen

    def test_the_rich_status_names_the_field(self, address: str) -> None:
        with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(f"/{SERVICE_NAME}/Route")(pb.RouteRequest(chat=routing_pb2.Chat()).SerializeToString())
        details = {detail.TypeName(): detail for detail in rpc_status.from_call(caught.value).details}  # type: ignore[union-attr, arg-type]
        bad = error_details_pb2.BadRequest()
        details["google.rpc.BadRequest"].Unpack(bad)
        assert bad.field_violations[0].field == "messages"

    @pytest.mark.parametrize("data", [b"\x12\x02\xff\xfe", b"\x0a\xff\xff\xff"], ids=["invalid utf-8", "truncated"])
    def test_bytes_that_are_no_request_are_an_invalid_argument(self, address: str, data: bytes) -> None:
        with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(f"/{SERVICE_NAME}/Route")(data)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT  # type: ignore[attr-defined]
        assert "UTF-8" in caught.value.details()  # type: ignore[attr-defined]

    def test_a_lone_surrogate_does_not_leave_the_client(self, client: RouterClient) -> None:
        with pytest.raises(InvalidRequestError, match=r"messages\[0\]"):
            client.route("bad \ud800")

    def test_a_batch_that_is_too_large_is_refused_whole(self, client: RouterClient) -> None:
        with pytest.raises(ServiceError, match="at most 1,024"):
            client.route_batch(["x"] * 1025)


class TestStandardServices:
    def test_health_says_serving_for_the_server_and_the_service(self, address: str) -> None:
        with grpc.insecure_channel(address) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            for name in ("", SERVICE_NAME):
                reply = stub.Check(health_pb2.HealthCheckRequest(service=name))
                assert reply.status == health_pb2.HealthCheckResponse.SERVING

    def test_reflection_lists_the_service(self, address: str) -> None:
        with grpc.insecure_channel(address) as channel:
            stub = reflection_pb2_grpc.ServerReflectionStub(channel)
            request = reflection_pb2.ServerReflectionRequest(list_services="")
            (reply,) = stub.ServerReflectionInfo(iter([request]))
        assert SERVICE_NAME in {service.name for service in reply.list_services_response.service}

    def test_buf_curl_asks_with_nothing_but_reflection(self, address: str, client: RouterClient) -> None:
        if not BUF.exists():
            pytest.skip("buf is not installed; run `npm ci --ignore-scripts` in tests/router/buf")

        def curl(method: str, request: dict[str, Any]) -> subprocess.CompletedProcess[str]:
            url = f"http://{address}/{SERVICE_NAME}/{method}"
            options = ("--protocol", "grpc", "--http2-prior-knowledge", "-d", json.dumps(request))
            command = [str(BUF), "curl", *options, url]
            return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

        done = curl("Route", {"prompt": "What is 2 + 2?"})
        assert done.returncode == 0, done.stderr
        told, expected = json.loads(done.stdout)["decision"], client.route("What is 2 + 2?")
        assert (told["chosen"], told["reason"]) == (expected.chosen, f"REASON_{expected.reason.value}")
        refused = json.loads(curl("Route", {}).stderr)
        assert refused["code"] == "invalid_argument"
        assert {detail["type"] for detail in refused["details"]} == {"google.rpc.ErrorInfo", "google.rpc.BadRequest"}


def test_a_decision_as_json_holds_plain_values_only(router: Router) -> None:
    record = decision_to_dict(router.decide(QUERIES[0]))
    assert json.loads(json.dumps(record, allow_nan=False)) == json.loads(json.dumps(record))
    assert record["reason"] in Reason.__members__
    assert {"candidate", "risk", "raw", "eligible"} <= record["candidates"][0].keys()
