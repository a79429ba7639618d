"""Sessions: whose they are, what is remembered, and when their candidate is held or released."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from router.asking.session_ids import SESSION_HEADERS, caller_of, session_id_of
from router.cli.demo import PROMPTS
from router.client import RouterClient
from router.deciding.pipeline import Router
from router.deciding.sessions import Sessions
from router.pb import router_service_pb2_grpc as pb_grpc
from router.policies.choice import decide, needs_no_scores
from router.policies.loading import load_policies
from router.policies.policy_file import Prices
from router.policies.rules import Rules
from router.serving.server import ServerSettings
from router.values import Capability, HeldCandidate, Message, Overrides, Reason, RouteQuery, RoutingDecision
from router.wire import conversion as wire
from tests.fakes import FakeEncoder, write_policy
from tests.router.policies.test_choice import judged, make_ask, make_rules
from tests.service import running_service

WEAK = Prices(input_usd_per_million_tokens=5, output_usd_per_million_tokens=30)
STRONG = Prices(
    input_usd_per_million_tokens=10, output_usd_per_million_tokens=30, cached_input_usd_per_million_tokens=1
)
HELD = HeldCandidate("large", input_tokens=1000, idle_s=10)
EASY, HARD = (0.3, 0.29), (0.9, 0.1)


def rules_of(weak: Prices | None = WEAK, strong: Prices | None = STRONG, **keys: Any) -> Rules:
    return make_rules(prices=(weak, strong), **keys)


def who(rules: Rules, risk: tuple[float, float], held: HeldCandidate | None, **facts: Any) -> tuple[str, Reason]:
    choice = decide(rules, make_ask(input_tokens_estimate=1200, **facts), Overrides(), judged(*risk), held=held)
    return choice.chosen.name, choice.reason


class TestHolding:
    def test_at_a_human_turn_a_stronger_candidate_takes_over_freely(self) -> None:
        held = HeldCandidate("small", 1_000_000, 0)
        assert who(rules_of(), HARD, held) == ("large", Reason.GAIN_ABOVE_THRESHOLD)

    def test_a_weaker_one_must_beat_the_cost_of_its_cold_cache(self) -> None:
        # Staying: 1,000 tokens at 1 and 200 at 10 USD per million, 0.003; leaving: 1,200 at 5, 0.006. Output is equal.
        assert who(rules_of(), EASY, HELD) == ("large", Reason.SESSION_HELD)
        cheaper = Prices(input_usd_per_million_tokens=2, output_usd_per_million_tokens=30)
        assert who(rules_of(weak=cheaper), EASY, HELD) == ("small", Reason.GAIN_BELOW_THRESHOLD)

    def test_at_equal_cost_the_session_stays(self) -> None:
        equal = Prices(input_usd_per_million_tokens=2.5, output_usd_per_million_tokens=30)
        assert who(rules_of(weak=equal), EASY, HELD) == ("large", Reason.SESSION_HELD)

    def test_a_cache_that_has_expired_holds_nobody(self) -> None:
        assert who(rules_of(), EASY, HeldCandidate("large", 1000, 300)) == ("large", Reason.SESSION_HELD)
        assert who(rules_of(), EASY, HeldCandidate("large", 1000, 301))[0] == "small"
        patient = rules_of(changes={"large": {"prompt_cache_s": 3600}})
        assert who(patient, EASY, HeldCandidate("large", 1000, 301))[0] == "large"

    def test_no_more_is_cached_than_this_request_reads(self) -> None:
        choice = decide(rules_of(), make_ask(), Overrides(), judged(*EASY), held=HeldCandidate("large", 10**9, 0))
        # 100 tokens: all cached at 1, not a negative cost; the other takes 100 at 5.
        assert choice.chosen.name == "large"

    @pytest.mark.parametrize("strong", [None, STRONG.model_copy(update={"cached_input_usd_per_million_tokens": None})])
    def test_without_a_price_of_cached_input_there_is_nothing_to_beat(self, strong: Prices | None) -> None:
        assert who(rules_of(strong=strong), EASY, HELD)[0] == "small"

    def test_inside_a_tool_loop_the_candidate_stays_whatever_the_rule_says(self) -> None:
        for name, risk in (("small", HARD), ("large", EASY)):
            held = HeldCandidate(name, 0, 10**6)
            assert who(rules_of(), risk, held, in_tool_loop=True) == (name, Reason.SESSION_HELD)

    def test_the_session_stays_where_the_rule_agrees_and_the_reason_is_the_rules(self) -> None:
        assert who(rules_of(), HARD, HELD) == ("large", Reason.GAIN_ABOVE_THRESHOLD)

    def test_a_record_that_is_held_names_no_threshold(self) -> None:
        choice = decide(rules_of(), make_ask(), Overrides(), judged(*EASY), held=HELD)
        assert (choice.reason, choice.threshold, choice.gain) == (Reason.SESSION_HELD, None, None)
        assert [c.risk for c in choice.candidates] == list(EASY)


class TestReleasing:
    def test_a_candidate_that_may_not_answer_any_more_is_released(self) -> None:
        rules = make_rules(
            names=("a", "b", "c"),
            prices=(WEAK, WEAK, STRONG),
            changes={n: {"capabilities": ["text", "image"]} for n in "ab"},
        )
        held = HeldCandidate("c", 1000, 0)
        for loop in (False, True):
            ask = make_ask(needs=frozenset({Capability.IMAGE}), in_tool_loop=loop)
            choice = decide(rules, ask, Overrides(), judged(0.5, 0.45, 0.1), held=held)
            assert (choice.chosen.name, choice.reason) == ("a", Reason.GAIN_BELOW_THRESHOLD)
            assert not needs_no_scores(rules, ask, Overrides(), held)

    def test_a_candidate_that_the_policy_no_longer_has_is_released(self) -> None:
        assert who(rules_of(), EASY, HeldCandidate("gone", 1000, 0), in_tool_loop=True)[0] == "small"

    def test_a_pin_and_a_fixed_rule_go_before_the_session(self) -> None:
        ask = make_ask(in_tool_loop=True)
        assert decide(rules_of(), ask, Overrides(pin="small"), None, held=HELD).reason is Reason.PINNED
        fixed = make_rules({"kind": "fixed", "candidate": "small"})
        assert decide(fixed, ask, Overrides(), None, held=HELD).reason is Reason.FIXED
        # Also where the holder may not go on, and somebody above the fixed one could.
        three = make_rules({"kind": "fixed", "candidate": "a"}, names=("a", "b", "c"), prices=(WEAK, WEAK, STRONG))
        choice = decide(three, ask, Overrides(denied_candidates=("b",)), None, held=HeldCandidate("b", 1, 1))
        assert (choice.chosen.name, choice.reason) == ("a", Reason.FIXED)

    def test_a_policy_may_ignore_sessions(self) -> None:
        assert who(rules_of(sessions="ignore"), EASY, HELD, in_tool_loop=True)[0] == "small"

    def test_what_breaks_the_risk_bound_is_not_held(self) -> None:
        ask = make_ask(in_tool_loop=True)
        overrides = Overrides(max_risk=0.3)
        assert not needs_no_scores(rules_of(), ask, overrides, HELD)
        choice = decide(rules_of(), ask, overrides, judged(0.2, 0.5), held=HELD)
        assert (choice.chosen.name, choice.reason) == ("small", Reason.WITHIN_RISK_BOUND)
        choice = decide(rules_of(), ask, overrides, judged(0.2, 0.25), held=HELD)
        assert (choice.chosen.name, choice.reason) == ("large", Reason.SESSION_HELD)

    def test_inside_a_tool_loop_nothing_need_be_judged(self) -> None:
        assert needs_no_scores(rules_of(), make_ask(in_tool_loop=True), Overrides(), HELD)
        assert not needs_no_scores(rules_of(), make_ask(in_tool_loop=True), Overrides(), None)
        assert not needs_no_scores(rules_of(), make_ask(), Overrides(), HELD)


@given(
    risk=st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)),
    tokens=st.integers(0, 10**6),
    idle_s=st.floats(0, 1000),
    held=st.sampled_from("abc"),
    denied=st.sets(st.sampled_from("abc"), max_size=2),
    loop=st.booleans(),
)
def test_a_session_only_ever_keeps_its_own_candidate_or_follows_the_rule(
    risk: tuple[float, ...], tokens: int, idle_s: float, held: str, denied: set[str], loop: bool
) -> None:
    rules = make_rules(names=("a", "b", "c"), prices=(WEAK, WEAK, STRONG))
    ask, overrides = make_ask(in_tool_loop=loop), Overrides(denied_candidates=tuple(sorted(denied)))
    alone = decide(rules, ask, overrides, judged(*risk))
    choice = decide(rules, ask, overrides, judged(*risk), held=HeldCandidate(held, tokens, idle_s))
    assert choice.chosen.name not in denied
    if loop and any(name >= held for name in set("abc") - denied):
        assert choice.chosen.name >= held  # never down in the middle, not even where the holder may not go on
    else:
        assert choice.chosen == alone.chosen or choice.chosen.name == held
    if not loop:
        assert choice.chosen.name >= alone.chosen.name  # never below what the rule decides


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class TestMemory:
    def test_who_answered_last_is_remembered_with_what_it_read_and_when(self) -> None:
        clock = Clock()
        sessions = Sessions(clock=clock)
        assert sessions.held("me", "s", "p") is None
        sessions.remember("me", "s", "p", "small", 10)
        sessions.remember("me", "s", "p", "large", 20)
        clock.now = 7
        assert sessions.held("me", "s", "p") == HeldCandidate("large", 20, 7)

    def test_callers_sessions_and_policies_are_kept_apart(self) -> None:
        sessions = Sessions()
        sessions.remember("me", "s", "p", "small", 10)
        for other in (("you", "s", "p"), ("me", "t", "p"), ("me", "s", "q"), ("m", "es", "p"), ("", "s", "p")):
            assert sessions.held(*other) is None

    def test_the_least_recently_used_goes_first(self) -> None:
        sessions = Sessions(max_entries=2)
        for name in ("a", "b", "a", "c"):
            sessions.remember("", name, "p", "small", 1)
        assert [sessions.held("", name, "p") is not None for name in "abc"] == [True, False, True]
        assert len(sessions) == 2

    def test_the_idle_are_forgotten_and_their_room_is_freed(self) -> None:
        clock = Clock()
        sessions = Sessions(ttl_s=60, clock=clock)
        for number in range(100):
            sessions.remember("", str(number), "p", "small", 1)
        clock.now = 60
        assert sessions.held("", "99", "p") is not None
        clock.now = 60.5
        assert sessions.held("", "99", "p") is None
        assert len(sessions) == 0

    def test_no_room_remembers_nobody(self) -> None:
        sessions = Sessions(max_entries=0)
        sessions.remember("", "s", "p", "small", 1)
        assert sessions.held("", "s", "p") is None

    def test_many_threads_keep_within_the_bound(self) -> None:
        sessions = Sessions(max_entries=50)

        def work(me: str) -> None:
            for number in range(500):
                sessions.remember(me, str(number), "p", me, number)
                held = sessions.held(me, str(number), "p")
                assert held is None or (held.candidate, held.input_tokens) == (me, number)

        threads = [threading.Thread(target=work, args=(str(i),)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(sessions) == 50


class TestIds:
    @pytest.mark.parametrize("name", SESSION_HEADERS)
    def test_the_usual_headers_name_a_session_in_any_case(self, name: str) -> None:
        assert session_id_of("", {name.title(): "s-1"}, {}) == "s-1"

    @pytest.mark.parametrize(
        ("parameters", "expected"),
        [
            ({"session_id": "a"}, "a"),
            ({"litellm_session_id": "a"}, "a"),
            ({"conversation": "conv_1"}, "conv_1"),
            ({"conversation": {"id": "conv_1"}}, "conv_1"),
            ({"metadata": {"session_id": "m"}}, "m"),
            ({"metadata": {"conversation_id": "m"}}, "m"),
            ({"metadata": {"user_id": "user_0a_account_1b_session_2c-3d"}}, "2c-3d"),
            ({"metadata": {"user_id": json.dumps({"device_id": "x", "session_id": "2c"})}}, "2c"),
            ({"metadata": {"user_id": "user_0a"}}, ""),
            ({"metadata": {"user_id": "{not json"}}, ""),
            ({"metadata": {"user_id": "{}"}}, ""),
            ({"metadata": {"session_id": 7}, "session_id": ["x"]}, ""),
            ({"metadata": "session_id"}, ""),
            ({"prompt_cache_key": "shared", "user": "u"}, ""),
            ({"session_id": "body", "metadata": {"session_id": "meta"}}, "body"),
        ],
    )
    def test_bodies_name_a_session_in_the_usual_fields(self, parameters: dict[str, Any], expected: str) -> None:
        assert session_id_of("", {}, parameters) == expected

    def test_what_is_given_goes_before_headers_and_headers_before_the_body(self) -> None:
        body = {"session_id": "body"}
        assert session_id_of("given", {"x-session-id": "header"}, body) == "given"
        assert session_id_of("", {"x-session-id": "header"}, body) == "header"
        assert session_id_of("", {"x-request-id": "no", "x-session-id": ""}, body) == "body"

    def test_a_caller_is_told_by_its_credential_which_is_not_kept(self) -> None:
        one, two = caller_of({"Authorization": "Bearer secret-1"}), caller_of({"authorization": "Bearer secret-2"})
        assert one != two
        assert "secret" not in one
        assert one == caller_of({"authorization": "Bearer secret-1", "user-agent": "x"})
        assert caller_of({"x-api-key": "k"}) not in {"", one}
        assert caller_of({}) == ""


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
        return Router(load_policies([path]), {encoder.spec.identity: encoder}, sessions=Sessions())

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

    def test_a_session_goes_up_freely_and_stays_while_its_cache_is_warm(
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

    def test_a_session_goes_on_with_whoever_answered_in_place_of_the_chosen(
        self, router: Router, easy: str, hard: str
    ) -> None:
        router.answered_by(router.decide(query(easy, "s"), caller="me"), "large", caller="me")
        assert router.decide(query(easy, "s", *TOOL_LOOP), caller="me").chosen == "large"
        router.answered_by(router.decide(query(hard)), "small")
        assert router.decide(query(hard, "", *TOOL_LOOP)).chosen == "large"

    def test_the_body_may_name_the_session(self, router: Router, easy: str, hard: str) -> None:
        parameters = {"metadata": {"user_id": "user_1_account_2_session_3"}}
        assert router.decide(query(hard, parameters=parameters)).session_id == "3"
        assert router.decide(query(easy, "3", *TOOL_LOOP)).chosen == "large"


@pytest.fixture(scope="module")
def held_address(_real_encoder: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service on the default probe whose candidates both use tools and cache prompts."""
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


def demo_text(label: str) -> str:
    return next(str(p.messages[0]["content"]) for p in PROMPTS if p.label == label)


class TestService:
    easy, hard = demo_text("code"), demo_text("systems programming")

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
                reply = stub.Route(wire.query_to_wire(asked), metadata=metadata).decision
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
