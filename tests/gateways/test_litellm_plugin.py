"""The plugin in a real LiteLLM Router, over gRPC and in process, with two deployments on loopback upstreams."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from router.asking.ask import extract
from router.deciding.pipeline import Router
from router.decision import ArtifactRef, CandidateRisk, Reason, RoutingDecision, Timings
from router.errors import GatewayNotInstalledError, InvalidRequestError
from router.gateways.litellm_plugin import _PARAMETERS, elle_plugin, filter_deployments
from router.policies.loading import load_policies
from router.values import Overrides, RouteQuery
from tests.fakes import FakeEncoder, write_policy
from tests.gateways.loopback import Upstream, running_upstream

litellm = pytest.importorskip("litellm", reason="LiteLLM is not installed; `pip install 'elle-router[dispatch]'`")

from litellm.types.router import RouterRateLimitError  # noqa: E402  (after the skip)

NAMES = ("small", "large")


@pytest.fixture(scope="module")
def upstreams() -> Iterator[dict[str, tuple[Upstream, str]]]:
    with running_upstream("small") as small, running_upstream("large") as large:
        yield {"small": small, "large": large}


@pytest.fixture(scope="module")
def policy_path(tmp_path_factory) -> Path:
    tools = {"large": {"capabilities": ["text", "tools", "json_schema"]}, "small": {"unsupported": ["seed"]}}
    candidates = [{"name": name, "model": f"openai/{name}", **tools.get(name, {})} for name in NAMES]
    rule = {"kind": "gain", "thresholds": [0.35]}
    return write_policy(tmp_path_factory.mktemp("policy"), candidates=candidates, rule=rule)


@pytest.fixture
def engine(policy_path) -> Router:
    encoder = FakeEncoder()
    return Router(load_policies([policy_path]), {encoder.spec.identity: encoder})


@pytest.fixture
async def _own_connections() -> AsyncIterator[None]:
    """LiteLLM keeps its connections beyond the event loop of a test, which would leave them open for good."""
    yield
    await litellm.close_litellm_async_clients()
    litellm.in_memory_llm_clients_cache.flush_cache()


@pytest.fixture
def make(upstreams, _own_connections) -> Iterator:
    """Return a LiteLLM Router with one group `auto` of two deployments, and the group `other`."""
    before = list(litellm.callbacks)
    for upstream, _ in upstreams.values():
        upstream.seen.clear()
        upstream.gate.set()

    def deployment(group: str, name: str, **info: object) -> dict:
        params = {"model": f"openai/{name}", "api_base": upstreams[name][1], "api_key": "none"}
        return {"model_name": group, "litellm_params": params, "model_info": info}

    def build(*plugins: object, model_list: list | None = None, **settings: object):
        listed = model_list or [*(deployment("auto", name) for name in NAMES), deployment("other", "small")]
        return litellm.Router(model_list=listed, plugins=list(plugins), num_retries=0, **settings)

    build.deployment = deployment  # type: ignore[attr-defined]
    yield build
    litellm.callbacks[:] = before


def chat(text: str) -> list[dict]:
    return [{"role": "user", "content": text}]


def who(response) -> str:
    return response.choices[0].message.content.removeprefix("I am ")


async def test_each_request_goes_to_the_deployment_of_the_decided_candidate(make, engine):
    router = make(elle_plugin(engine))
    answered = []
    for number in range(12):
        expected = engine.decide(RouteQuery.from_prompt(f"question {number}")).chosen
        metadata: dict = {}
        response = await router.acompletion("auto", chat(f"question {number}"), metadata=metadata)
        answered.append(who(response))
        assert answered[-1] == expected
        assert metadata["elle"]["x-elle-candidate"] == expected
    assert set(answered) == set(NAMES)


async def test_it_asks_the_service_over_grpc(make, address):
    client_side = {"economy": "small", "frontier": "large"}
    listed = [make.deployment("auto", name, elle_candidate=candidate) for candidate, name in client_side.items()]
    for pin, name in client_side.items():
        response = await make(elle_plugin(address, overrides=Overrides(pin=pin)), model_list=listed).acompletion(
            "auto", chat("hello")
        )
        assert who(response) == name


async def test_tools_and_schemas_are_seen_before_scores(make, engine):
    router = make(elle_plugin(engine, overrides=Overrides(min_gain=1.0)))
    assert who(await router.acompletion("auto", chat("hello"))) == "small"
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
    assert who(await router.acompletion("auto", chat("hello"), tools=[tool])) == "large"


async def test_a_parameter_that_a_candidate_refuses_is_seen_before_scores(make, engine):
    router = make(elle_plugin(engine, overrides=Overrides(min_gain=1.0)))
    assert who(await router.acompletion("auto", chat("hello"), seed=7)) == "large"


def test_all_that_a_decision_reads_of_a_request_is_handed_on():
    class Recorder(dict):
        def get(self, name, default=None):
            self[name] = None
            return default

    read = Recorder()
    extract(RouteQuery.from_prompt("hello", parameters=read), max_bytes=100)
    assert set(read) <= set(_PARAMETERS)


async def test_a_streamed_answer_is_routed_alike(make, engine):
    router = make(elle_plugin(engine, overrides=Overrides(pin="large")))
    chunks = await router.acompletion("auto", chat("hello"), stream=True)
    assert "".join([chunk.choices[0].delta.content or "" async for chunk in chunks]) == "I am large"


async def test_two_deployments_of_one_model_are_told_apart_by_name(make, engine, upstreams):
    def of(name: str) -> dict:
        made = make.deployment("auto", name, elle_candidate=name)
        made["litellm_params"]["model"] = "openai/same"
        return made

    for name in NAMES:
        router = make(elle_plugin(engine, overrides=Overrides(pin=name)), model_list=[of("small"), of("large")])
        assert who(await router.acompletion("auto", chat("hello"))) == name


async def test_other_routers_of_the_process_are_left_alone(make, engine):
    ours = make(elle_plugin(engine, overrides=Overrides(pin="large")))
    assert who(await ours.acompletion("auto", chat("hello"))) == "large"
    theirs = make()
    metadata: dict = {}
    await theirs.acompletion("other", chat("hello"), metadata=metadata)
    assert "elle" not in metadata


async def test_as_a_callback_it_decides_the_groups_it_was_given(make, engine):
    litellm.callbacks.append(elle_plugin(engine, groups=("auto",), overrides=Overrides(pin="large")))
    router = make()
    assert {who(await router.acompletion("auto", chat("hello"))) for _ in range(6)} == {"large"}
    assert who(await router.acompletion("other", chat("hello"))) == "small"


async def test_without_the_service_closed_raises_at_once_and_open_leaves_the_deployments(make, caplog):
    nobody = "127.0.0.1:1"
    with pytest.raises(litellm.ServiceUnavailableError, match="ELLE Router"):
        await make(elle_plugin(nobody, timeout_s=0.3)).acompletion("auto", chat("hello"))
    opened = make(elle_plugin(nobody, timeout_s=0.3, on_failure="open"))
    assert who(await opened.acompletion("auto", chat("do not log me"))) in NAMES
    assert "left undecided" in caplog.text
    assert "do not log me" not in caplog.text


async def test_a_request_nobody_may_answer_is_the_callers_error(make, engine):
    router = make(elle_plugin(engine, overrides=Overrides(max_cost_usd=0.0)))
    with pytest.raises(litellm.BadRequestError, match="no candidate may answer"):
        await router.acompletion("auto", chat("hello"))


async def test_a_group_of_strangers_is_named(make, engine):
    listed = [make.deployment("auto", "small") | {"model_info": {"elle_candidate": "stranger"}}]
    with pytest.raises(litellm.BadRequestError, match="elle_candidate"):
        await make(elle_plugin(engine), model_list=listed).acompletion("auto", chat("hello"))


async def test_a_chosen_deployment_that_is_gone_is_never_replaced_by_a_weaker_one(make, engine):
    def only(name: str, overrides: Overrides):
        return make(elle_plugin(engine, overrides=overrides), model_list=[make.deployment("auto", name)])

    cheap, dear = Overrides(min_gain=1.0), Overrides(min_gain=-1.0)
    assert who(await only("large", cheap).acompletion("auto", chat("hello"))) == "large"
    for lonely in (only("small", dear), only("large", Overrides(pin="small"))):
        with pytest.raises(RouterRateLimitError, match="No deployments available"):
            await lonely.acompletion("auto", chat("hello"))


def test_synchronous_calls_are_refused_by_litellm_instead_of_passing_undecided(make, engine):
    router = make(elle_plugin(engine))
    with pytest.raises(ValueError, match="synchronous"):
        router.completion("auto", chat("hello"))


def test_each_event_loop_may_ask(make, address):
    plugin = elle_plugin(address, overrides=Overrides(pin="frontier"))
    listed = [make.deployment("auto", "large", elle_candidate="frontier")]

    async def ask() -> str:
        answer = await make(plugin, model_list=listed).acompletion("auto", chat("hello"))
        await litellm.close_litellm_async_clients()
        litellm.in_memory_llm_clients_cache.flush_cache()
        return who(answer)

    assert [asyncio.run(ask()) for _ in range(2)] == ["large", "large"]


def decided(*rows: tuple[str, float | None, bool], chosen: str) -> RoutingDecision:
    ref = ArtifactRef("test", "1", "d")
    candidates = tuple(
        CandidateRisk(name, f"openai/{name}", risk, risk, None, () if may else ("denied",)) for name, risk, may in rows
    )
    place = (
        "id",
        "test",
        chosen,
        f"openai/{chosen}",
        Reason.GAIN_ABOVE_THRESHOLD,
        None,
        candidates,
        None,
        None,
        ref,
        None,
        False,
    )
    return RoutingDecision(*place, None, Timings(), "", 1)


@pytest.mark.parametrize(
    ("rows", "healthy", "left"),
    [
        ([("a", 0.5, True), ("b", 0.3, True), ("c", 0.1, True)], "abc", "b"),
        ([("a", 0.5, True), ("b", 0.3, True), ("c", 0.1, True)], "ac", "c"),
        ([("a", 0.2, True), ("b", 0.3, True), ("c", 0.4, True)], "ac", "a"),
        ([("a", 0.5, True), ("b", 0.3, True), ("c", 0.1, False)], "ac", ""),
        ([("a", 0.5, True), ("b", 0.3, True), ("c", 0.1, True)], "a", ""),
        ([("a", None, True), ("b", None, True), ("c", None, True)], "ac", "c"),
        ([("a", None, True), ("b", None, True), ("c", None, True)], "a", ""),
        ([("a", 0.5, True), ("b", 0.3, True), ("c", 0.1, True)], "", ""),
    ],
)
def test_who_stands_in_is_never_riskier(rows, healthy, left):
    deployments = [{"litellm_params": {"model": f"openai/{name}"}, "model_info": {"id": name}} for name in healthy]
    got = filter_deployments(decided(*rows, chosen="b"), deployments, group="auto")
    assert [one["model_info"]["id"] for one in got] == list(left)


def test_a_group_without_any_candidate_is_an_error():
    with pytest.raises(InvalidRequestError, match="group 'auto'"):
        filter_deployments(decided(("b", 0.3, True), chosen="b"), [{"litellm_params": {"model": "x"}}], group="auto")


def test_without_litellm_the_plugin_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "litellm", None)
    with pytest.raises(GatewayNotInstalledError, match=r"elle-router\[dispatch\]"):
        elle_plugin("localhost:50051")
