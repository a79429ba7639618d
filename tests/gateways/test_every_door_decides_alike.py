"""The same 200 conversations through every door: the same candidate, for the same reason, at the same risk."""

from __future__ import annotations

import asyncio
import importlib.util
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import pytest

from router.client import RouterClient
from router.deciding import pipeline
from router.deciding.pipeline import Router
from router.decision import RoutingDecision
from router.gateways.ext_proc import ExternalProcessor
from router.gateways.http.http_gateway import HttpGateway
from router.gateways.litellm_plugin import METADATA_KEY, elle_plugin
from router.serving.server import serving
from router.serving.settings import ServerSettings
from router.values import Overrides, RouteQuery
from tests.fakes import KINDS, FakeEncoder, probe_with_kinds, write_policy
from tests.gateways.anthropic_door.anthropic_shape import as_anthropic
from tests.gateways.chat_upstream import running_chat_upstream
from tests.gateways.conversations import conversations
from tests.gateways.envoy import envoy_in_front
from tests.gateways.loopback import in_thread
from tests.gateways.responses_door.response_upstream import running_response_upstream
from tests.gateways.responses_door.responses_shape import as_responses

#: Those of the example's envoy.yaml.
NAMES = ("mixtral-8x7b", "gpt-4-turbo")
BODIES = conversations(200)
#: Names of the policy at every HTTP door: its own ones, and those by which an agent asks.
MODELS = ("elle-test", "auto", "claude-background-4", "elle/test")
HAS_ENVOYS_PROTOS = importlib.util.find_spec("envoy") is not None and importlib.util.find_spec("envoy.service")


@dataclass(frozen=True)
class Told:
    """What a door tells of a decision; gain and risk with six decimals, as headers have them, and the nearest kind."""

    chosen: str
    reason: str
    risk: str | None
    gain: str | None
    kind: str | None

    @classmethod
    def by_decision(cls, decision: RoutingDecision) -> Told:
        risk = next(row.risk for row in decision.candidates if row.candidate == decision.chosen)
        shown = (None if value is None else f"{value:.6f}" for value in (risk, decision.gain))
        kind = decision.kinds.nearest[0].name if decision.kinds and decision.kinds.known else None
        return cls(decision.chosen, decision.reason.value, *shown, kind)

    @classmethod
    def by_headers(cls, headers: Mapping[str, str]) -> Told:
        names = ("candidate", "reason", "risk", "gain")
        kind = headers.get("x-elle-kind")
        told: list[Any] = [headers.get(f"x-elle-{name}") for name in names]
        return cls(*told, None if kind is None else unquote(kind))


@dataclass(frozen=True)
class Stack:
    """One running service behind all doors but the first, and the answers' upstream."""

    folder: Path
    policies: tuple[Path, ...]
    address: str
    http_url: str
    upstream_url: str

    def engine(self) -> Router:
        encoder = FakeEncoder()
        return Router(pipeline.load_policies(self.policies), {encoder.spec.identity: encoder})


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("doors")
    with (
        pytest.MonkeyPatch.context() as patch,
        running_chat_upstream() as (_, upstream_url),
        running_response_upstream("a") as (_, prompts_url),
    ):
        patch.setattr(pipeline, "load_encoder", lambda *_: FakeEncoder())
        capabilities = dict(zip(NAMES, (["text"], ["text", "image", "tools", "json_schema"]), strict=True))
        candidates = [
            {"name": name, "model": f"openai/up-{name}", "api_base": upstream_url, "capabilities": capabilities[name]}
            | {"context_window_tokens": 1500 if name == NAMES[0] else 128_000}
            for name in NAMES
        ]
        rule = {"kind": "gain", "thresholds": [0.35]}
        aliases = {"claude-background-*": "test"}
        policy = write_policy(
            folder, probe_with_kinds(NAMES), names=NAMES, candidates=candidates, rule=rule, aliases=aliases
        )
        speaking = [one | {"api_base": prompts_url, "speaks": ["completions"]} for one in candidates]
        prompts = write_policy(folder, name="prompts", names=NAMES, candidates=speaking, rule=rule)
        doors = (ExternalProcessor(),) if HAS_ENVOYS_PROTOS else ()
        # No judgement is remembered: each door has its own encoded.
        settings = ServerSettings(
            policies=(policy, prompts), port=0, drain_s=1, doors=doors, http=HttpGateway(), cache_entries=0
        )
        with in_thread(serving(settings)) as running:
            yield Stack(folder, (policy, prompts), running.address, f"http://{running.http_address}", upstream_url)


@pytest.fixture(scope="module")
def expected(stack: Stack) -> list[RoutingDecision]:
    engine = stack.engine()
    return [engine.decide(_query(body)) for body in BODIES]


def _query(body: Mapping[str, Any]) -> RouteQuery:
    return RouteQuery(body["messages"], parameters={key: body[key] for key in body if key != "messages"})


def _risks(decision: RoutingDecision) -> list[Any]:
    return [(row.candidate, row.raw, row.risk, row.ineligible_because) for row in decision.candidates]


def test_the_conversations_are_of_every_kind(expected: list[RoutingDecision]) -> None:
    reasons = Counter(decision.reason.value for decision in expected)
    assert min(reasons[reason] for reason in ("GAIN_BELOW_THRESHOLD", "GAIN_ABOVE_THRESHOLD", "ONLY_ELIGIBLE")) > 20
    assert {need for decision in expected for need in decision.needs} >= {"image", "tools", "json_schema"}
    assert len({decision.language for decision in expected}) >= 6
    assert sum(decision.has_code for decision in expected) > 10
    assert sum(len(body["messages"]) > 2 for body in BODIES) > 50
    told = Counter(Told.by_decision(decision).kind for decision in expected)
    assert min(told[kind] for kind in (*KINDS, None)) > 1
    assert {decision.kinds is None for decision in expected} == {True, False}


def test_route_and_batch_route_tell_the_whole_record_of_the_python_api(
    stack: Stack, expected: list[RoutingDecision]
) -> None:
    with RouterClient(stack.address) as client:
        routed: list[Any] = [client.route(_query(body)) for body in BODIES]
        batched: list[Any] = client.route_batch([_query(body) for body in BODIES])
    for got in (routed, batched):
        assert [decision.kinds for decision in got] == [decision.kinds for decision in expected]
        assert [_risks(decision) for decision in got] == [_risks(decision) for decision in expected]
        assert [Told.by_decision(decision) for decision in got] == [Told.by_decision(one) for one in expected]


def _replies(url: str, asked: Iterable[tuple[str, Mapping[str, Any]]]) -> list[httpx.Response]:
    """Return the replies to bodies, each of which goes to a path."""
    with httpx.Client(timeout=60) as http:
        replies = [http.post(f"{url}{path}", json=body) for path, body in asked]
    assert {reply.status_code for reply in replies} == {200}
    return replies


def _answers(url: str, asked: Iterable[tuple[str, Mapping[str, Any]]]) -> list[Told]:
    replies = _replies(url, asked)
    for reply in replies:
        # Who answered is who was chosen.
        assert reply.json()["model"] == f"up-{reply.headers['x-elle-candidate']}"
        assert reply.headers.get("x-elle-kind", "").isascii()
    return [Told.by_headers(reply.headers) for reply in replies]


def _posted(url: str, path: str = "/v1/chat/completions", bodies: Sequence[Mapping[str, Any]] = BODIES) -> list[Told]:
    named = zip(bodies, cycle(MODELS), strict=False)
    return _answers(url, [(path, {"model": model, **body}) for body, model in named])


def _through_openai(stack: Stack) -> list[Told]:
    return _posted(stack.http_url)


def _through_anthropic(stack: Stack) -> list[Told]:
    return _posted(stack.http_url, "/v1/messages", [as_anthropic(body) for body in BODIES])


def _through_responses(stack: Stack) -> list[Told]:
    return _posted(stack.http_url, "/v1/responses", [as_responses(body) for body in BODIES])


def _through_azures_paths(stack: Stack) -> list[Told]:
    kinds = cycle((("chat/completions", dict), ("responses", as_responses)))
    # A deployment cannot have a slash in its name.
    named = zip(BODIES, cycle(MODELS[:3]), kinds, strict=False)
    return _answers(
        stack.http_url,
        [(f"/openai/deployments/{model}/{path}?api-version=1", shape(body)) for body, model, (path, shape) in named],
    )


def _through_envoy(stack: Stack) -> list[Told]:
    if not HAS_ENVOYS_PROTOS:
        pytest.skip("Envoy's protos are not installed; `pip install xds-protos`")
    with envoy_in_front(stack.folder, stack.address, stack.upstream_url, NAMES) as url:
        return _posted(url)


def litellm_models(upstream_url: str) -> list[dict[str, Any]]:
    """One group of LiteLLM's with a deployment of each candidate."""
    return [
        {
            "model_name": "auto",
            "litellm_params": {"model": f"openai/up-{name}", "api_base": upstream_url, "api_key": "none"},
        }
        for name in NAMES
    ]


def _through_litellm(stack: Stack) -> list[Told]:
    litellm = pytest.importorskip("litellm", reason="LiteLLM is not installed; `pip install 'elle-router[dispatch]'`")
    before = list(litellm.callbacks)

    async def ask_all() -> list[Told]:
        models, plugin = litellm_models(stack.upstream_url), elle_plugin(stack.address)
        router = litellm.Router(model_list=models, plugins=[plugin], num_retries=0)
        told = []
        for body in BODIES:
            metadata: dict[str, Any] = {}
            answer = await router.acompletion("auto", **body, metadata=metadata)
            assert answer.model.endswith(f"up-{metadata[METADATA_KEY]['x-elle-candidate']}")
            told.append(Told.by_headers(metadata[METADATA_KEY]))
        await litellm.close_litellm_async_clients()
        return told

    try:
        return asyncio.run(ask_all())
    finally:
        litellm.callbacks[:] = before


DOORS: Mapping[str, Callable[[Stack], Sequence[Told]]] = {
    "OpenAI door": _through_openai,
    "Anthropic door": _through_anthropic,
    "Responses door": _through_responses,
    "Azure's paths": _through_azures_paths,
    "LiteLLM plugin": _through_litellm,
    "Envoy": _through_envoy,
}


@pytest.mark.parametrize("door", DOORS)
def test_every_door_decides_as_the_python_api_does(stack: Stack, expected: list[RoutingDecision], door: str) -> None:
    told = DOORS[door](stack)
    assert told == [Told.by_decision(decision) for decision in expected]


def test_decision_models_decide_a_chat_as_the_python_api_does(stack: Stack) -> None:
    """A state holds the chat and no tools or schemas, so the same is asked of the Python API."""
    engine = stack.engine()
    decisions = [engine.decide(RouteQuery(body["messages"])) for body in BODIES]
    criteria = dict.fromkeys(NAMES, "a tier")
    of_systemone = {"questions": {"tier": {"type": "choice", "criteria": criteria}}}
    of_decisions = {"questions": [{"type": "choice", "name": "tier", "choices": [{"value": name} for name in NAMES]}]}
    paths = cycle((("/v1/systemone", "state", of_systemone), ("/v1/decisions", "input", of_decisions)))
    named = zip(BODIES, cycle(MODELS), paths, strict=False)
    asked = [(path, {"model": model, field: body["messages"], **more}) for body, model, (path, field, more) in named]
    replies = _replies(stack.http_url, asked)
    assert [Told.by_headers(reply.headers) for reply in replies] == [Told.by_decision(one) for one in decisions]
    for reply, decision in zip(replies, decisions, strict=True):
        answers = reply.json()["answers"]
        assert (answers["tier"] if isinstance(answers, dict) else answers[0])["choice"] == decision.chosen


def test_completions_decide_a_prompt_as_the_python_api_does(stack: Stack) -> None:
    texts = [text for body in BODIES for message in body["messages"] if isinstance(text := message.get("content"), str)]
    prompts = list(dict.fromkeys(texts))[:200]
    engine = stack.engine()
    overrides = Overrides(policy="prompts")
    decisions = [engine.decide(RouteQuery.from_prompt(text, overrides=overrides)) for text in prompts]
    asked = [("/v1/completions", {"model": "elle-prompts", "prompt": text}) for text in prompts]
    assert _answers(stack.http_url, asked) == [Told.by_decision(one) for one in decisions]
    assert len({one.chosen for one in decisions}) == 2
