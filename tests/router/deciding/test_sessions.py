"""A whole router holds the candidate of a session, in this process and over gRPC; a failed request changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from router.client import RouterClient
from router.deciding.pipeline import Router
from router.decision import Reason, RoutingDecision
from router.pb import router_service_pb2_grpc as pb_grpc
from router.policies.candidates.candidate import Prices
from router.policies.loading import load_policies
from router.serving.settings import ServerSettings
from router.values import Message, RouteQuery
from router.wire import conversion
from tests.fakes import FakeEncoder, write_policy
from tests.prompts import chat_text
from tests.service import running_service

WEAK = Prices(input_usd_per_million_tokens=5, output_usd_per_million_tokens=30)
STRONG = Prices(
    input_usd_per_million_tokens=10, output_usd_per_million_tokens=30, cached_input_usd_per_million_tokens=1
)

TOOL_LOOP: tuple[Message, ...] = (
    {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f"}}]},
    {"role": "tool", "tool_call_id": "1", "content": "42"},
)


def query(text: str, session_id: str = "", *more: Message, **rest: Any) -> RouteQuery:
    return RouteQuery(({"role": "user", "content": text}, *more), session_id=session_id, **rest)


class TestRouter:
    @pytest.fixture
    def encoder(self) -> FakeEncoder:
        return FakeEncoder()

    @pytest.fixture
    def router(self, tmp_path: Path, encoder: FakeEncoder) -> Router:
        capabilities = ["text", "tools"]
        candidates = [
            {"name": name, "model": f"openai/{name}", "prices": prices.model_dump(), "capabilities": capabilities}
            for name, prices in (("small", WEAK), ("large", STRONG))
        ]
        path = write_policy(tmp_path, candidates=candidates, abstain_above_leverage=None)
        return Router(load_policies([path]), {encoder.spec.identity: encoder})

    @pytest.fixture
    def easy(self, router: Router) -> str:
        return self.find(router, "small")

    @pytest.fixture
    def hard(self, router: Router) -> str:
        return self.find(router, "large")

    @staticmethod
    def find(router: Router, name: str) -> str:
        texts = (f"question number {i}" for i in range(100))
        return next(text for text in texts if router.decide(query(text)).chosen == name)

    def test_a_tool_loop_costs_no_forward_pass_and_keeps_its_candidate(
        self, router: Router, encoder: FakeEncoder, easy: str, hard: str
    ) -> None:
        assert router.decide(query(hard, "s")).chosen == "large"
        before = len(encoder.encoded)
        for decision in (
            router.decide(query(easy, "s", *TOOL_LOOP)),
            asyncio.run(router.adecide(query(easy, "s", *TOOL_LOOP))),
        ):
            assert (decision.chosen, decision.reason) == ("large", Reason.SESSION_HELD)
            assert (decision.session_id, decision.difficulty) == ("s", None)
        assert len(encoder.encoded) == before

    def test_without_a_session_nothing_is_remembered(self, router: Router, easy: str, hard: str) -> None:
        router.decide(query(hard))
        assert router.decide(query(easy, "", *TOOL_LOOP)).chosen == "small"

    def test_a_stronger_candidate_takes_over_freely_and_stays_while_its_cache_is_warm(
        self, router: Router, easy: str, hard: str
    ) -> None:
        chosen = [router.decide(query(text, "s")) for text in (easy, hard, easy)]
        assert [d.chosen for d in chosen] == ["small", "large", "large"]
        assert [d.reason for d in chosen][2] is Reason.SESSION_HELD

    def test_a_request_that_is_refused_leaves_the_session_as_it_was(self, router: Router, easy: str, hard: str) -> None:
        router.decide(query(hard, "s"))
        image = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}
        with pytest.raises(Exception, match="cannot handle image"):
            router.decide(query(easy, "s", image))
        assert router.decide(query(easy, "s", *TOOL_LOOP)).chosen == "large"

    def test_callers_do_not_share_sessions(self, router: Router, easy: str, hard: str) -> None:
        router.decide(query(hard, "s"), caller="me")
        assert router.decide(query(easy, "s", *TOOL_LOOP), caller="you").chosen == "small"
        assert router.decide(query(easy, "s", *TOOL_LOOP), caller="me").chosen == "large"

    def test_a_session_goes_on_with_the_candidate_that_answered_in_place_of_the_chosen_one(
        self, router: Router, easy: str, hard: str
    ) -> None:
        router.remember_answer(router.decide(query(easy, "s"), caller="me"), "large", caller="me")
        assert router.decide(query(easy, "s", *TOOL_LOOP), caller="me").chosen == "large"
        router.remember_answer(router.decide(query(hard)), "small")
        assert router.decide(query(hard, "", *TOOL_LOOP)).chosen == "large"

    def test_the_body_may_name_the_session(self, router: Router, easy: str, hard: str) -> None:
        parameters = {"metadata": {"user_id": "user_1_account_2_session_3"}}
        assert router.decide(query(hard, parameters=parameters)).session_id == "3"
        assert router.decide(query(easy, "3", *TOOL_LOOP)).chosen == "large"


@pytest.fixture(scope="module")
def held_address(_real_encoder: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run a service on the default probe with two candidates that use tools and cache prompts."""
    names = {"weak": "Mixtral-8x7B-Instruct-v0.1", "strong": "gpt-4-1106-preview"}
    path = tmp_path_factory.mktemp("sessions") / "policy.yaml"
    policy = {
        "schema": "elle.policy/1",
        "name": "held",
        "probe": "builtin:mixtral-gpt4",
        "candidates": [
            {
                "name": name,
                "model": f"openai/{name}",
                "probe_model": names[name],
                "api_base": "canned",
                "prices": prices.model_dump(),
                "capabilities": ["text", "tools"],
            }
            for name, prices in (("weak", WEAK), ("strong", STRONG))
        ],
        "rule": {"kind": "gain", "thresholds": [0.15]},
        "safe_default": "strong",
        "abstain_above_leverage": None,
    }
    path.write_text(yaml.safe_dump(policy), "utf-8")
    with running_service(ServerSettings(policies=(path,), port=0, drain_s=1)) as address:
        yield address


class TestService:
    easy, hard = chat_text("code"), chat_text("systems programming")

    def test_a_session_is_held_over_grpc_and_answered_by_the_held_candidate(self, held_address: str) -> None:
        with RouterClient(held_address) as client:
            assert client.route(self.easy).chosen == "weak"
            assert client.route(self.hard, session_id="one").chosen == "strong"
            looped = client.complete([{"role": "user", "content": self.easy}, *TOOL_LOOP], session_id="one")
            turned = client.route(self.easy, session_id="one")
            assert (looped.decision.chosen, looped.decision.reason) == ("strong", Reason.SESSION_HELD)
            assert (turned.chosen, turned.reason, turned.session_id) == ("strong", Reason.SESSION_HELD, "one")
            assert turned.candidates[0].risk is not None
            assert client.route(self.easy).chosen == "weak"

    def test_metadata_of_the_call_names_session_and_caller(self, held_address: str) -> None:
        with grpc.insecure_channel(held_address) as channel:
            stub = pb_grpc.RouterServiceStub(channel)

            def chosen(asked: RouteQuery, *metadata: tuple[str, str]) -> tuple[str, str]:
                reply = stub.Route(conversion.query_to_wire(asked), metadata=metadata).decision
                return reply.chosen, reply.session_id

            mine, yours = ("authorization", "Bearer mine"), ("authorization", "Bearer yours")
            session = ("x-session-id", "two")
            assert chosen(query(self.hard), session, mine) == ("strong", "two")
            assert chosen(query(self.easy, "", *TOOL_LOOP), session, yours) == ("weak", "two")
            assert chosen(query(self.easy, "", *TOOL_LOOP), session) == ("weak", "two")
            assert chosen(query(self.easy, "", *TOOL_LOOP), session, mine) == ("strong", "two")

    def test_a_batch_consults_the_sessions_in_its_order(self, held_address: str) -> None:
        texts = [self.easy, self.hard, self.easy, self.easy]
        batch = [query(text, f"batch-{number}") for text in texts for number in range(20)]
        with RouterClient(held_address) as client:
            decisions = client.route_batch(batch)
        assert all(isinstance(one, RoutingDecision) for one in decisions)
        chosen = [one.chosen for one in decisions if isinstance(one, RoutingDecision)]
        assert chosen == ["weak"] * 20 + ["strong"] * 60

    def test_a_bad_request_of_a_batch_spoils_neither_its_session_nor_the_others(self, held_address: str) -> None:
        batch = [query(self.hard, "bad"), RouteQuery((), session_id="bad"), query(self.easy, "bad", *TOOL_LOOP)]
        with RouterClient(held_address) as client:
            first, failed, last = client.route_batch(batch)
        assert isinstance(first, RoutingDecision)
        assert isinstance(last, RoutingDecision)
        assert not isinstance(failed, RoutingDecision)
        assert (first.chosen, last.chosen, last.reason) == ("strong", "strong", Reason.SESSION_HELD)
