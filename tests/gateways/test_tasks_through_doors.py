"""A task through every door: the same offset however it is named, in a batch as alone, and none if it is unknown."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest

from probes.probe import DifficultyProbe
from probes.tasks.keys import system_prompt_key
from probes.tasks.offsets import TaskOffsets
from router.client import RouterClient
from router.deciding import pipeline
from router.errors import InvalidRequestError, ServiceError
from router.gateways.http.http_gateway import HttpGateway
from router.gateways.litellm_plugin import METADATA_KEY, elle_plugin
from router.pb import router_service_pb2 as pb
from router.pb import router_service_pb2_grpc as pb_grpc
from router.serving.server import serving
from router.serving.settings import ServerSettings
from router.values import Overrides, RouteQuery
from router.wire import conversion
from tests.fakes import FakeEncoder, fake_probe, write_policy
from tests.gateways.chat_upstream import running_chat_upstream
from tests.gateways.envoy import envoy_in_front
from tests.gateways.loopback import in_thread
from tests.gateways.test_every_door_decides_alike import HAS_ENVOYS_PROTOS, NAMES, litellm_models

WEAK, STRONG = NAMES
SYSTEM = "You sort mail."
PROMPTS = [f"request {i}" for i in range(6)]

#: Task -> how many labels, and who answers whatever the prompt is.
TASKS = {"easy things": (20, WEAK), "hard things": (40, STRONG), system_prompt_key(SYSTEM): (20, STRONG)}


def probe_with_tasks() -> DifficultyProbe:
    none = np.zeros((0, 2), np.int64)
    tasks = TaskOffsets((), 25 * np.eye(2), np.ones(2), none, none)
    for key, (n, winner) in TASKS.items():
        tasks = tasks.add(key, np.tile([-9.0, 0.0] if winner == WEAK else [9.0, -9.0], (n // 2, 1)))
    return replace(fake_probe(NAMES), tasks=tasks)


@dataclass(frozen=True)
class Stack:
    folder: Path
    address: str
    http_url: str
    upstream_url: str
    engine: pipeline.Router


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("tasks")
    with pytest.MonkeyPatch.context() as patch, running_chat_upstream() as (_, upstream_url):
        patch.setattr(pipeline, "load_encoder", lambda *_: FakeEncoder())
        candidates = [{"name": name, "model": f"openai/up-{name}", "api_base": upstream_url} for name in NAMES]
        common = {"names": NAMES, "candidates": candidates, "abstain_above_leverage": None}
        common["rule"] = {"kind": "gain", "thresholds": [0.35]}
        probe = probe_with_tasks()
        policies = (
            write_policy(folder, probe, **common),  # type: ignore[arg-type]
            write_policy(folder, probe, name="by-prompt", task="system_prompt", **common),  # type: ignore[arg-type]
        )
        doors = ()
        if HAS_ENVOYS_PROTOS:
            from router.gateways.ext_proc import ExternalProcessor

            doors = (ExternalProcessor(),)
        engine = pipeline.Router.from_files(*policies)
        settings = ServerSettings(policies=policies, port=0, drain_s=1, doors=doors, http=HttpGateway())
        with in_thread(serving(settings)) as running:
            yield Stack(folder, running.address, f"http://{running.http_address}", upstream_url, engine)


def chosen(stack: Stack, prompt: str, task: str = "") -> str:
    return stack.engine.decide(RouteQuery.from_prompt(prompt, task=task)).chosen


def test_python_records_the_task_and_an_unknown_one_changes_nothing(stack: Stack) -> None:
    assert {chosen(stack, prompt) for prompt in PROMPTS} == set(NAMES)
    for prompt in PROMPTS:
        plain = stack.engine.decide(RouteQuery.from_prompt(prompt))
        assert (plain.task, plain.task_known, plain.task_labels) == ("", False, 0)
        unknown = stack.engine.decide(RouteQuery.from_prompt(prompt, task="something new"))
        assert (unknown.task, unknown.task_known, unknown.task_labels) == ("something new", False, 0)
        assert (unknown.candidates, unknown.chosen) == (plain.candidates, plain.chosen)
        for task, (labels, winner) in TASKS.items():
            decision = stack.engine.decide(RouteQuery.from_prompt(prompt, task=task))
            assert (decision.task, decision.task_known, decision.task_labels) == (task, True, labels)
            assert decision.chosen == winner
            assert decision.leverage == plain.leverage


def rpc(stack: Stack, method: str, request: Any, metadata: Mapping[str, str]) -> Any:
    with grpc.insecure_channel(stack.address) as channel:
        return getattr(pb_grpc.RouterServiceStub(channel), method)(request, metadata=tuple(metadata.items()))


@pytest.mark.parametrize("caller", [{}, {"x-api-key": "A"}])
def test_route_and_batch_by_field_metadata_and_parameters(stack: Stack, caller: dict[str, str]) -> None:
    cases = [
        ({"task": task}, {}, task) for task in (*TASKS, "something new")
    ] + [
        ({}, {"x-elle-task": "easy things"}, "easy things"),
        ({"parameters": {"metadata": {"task": "hard things"}}}, {}, "hard things"),
        # The field counts before the header, and the header before the body.
        ({"task": "easy things"}, {"x-elle-task": "hard things"}, "easy things"),
        ({"parameters": {"metadata": {"task": "hard things"}}}, {"x-elle-task": "easy things"}, "easy things"),
        ({"parameters": {"metadata": {"task": 7}}}, {}, ""),
    ]  # fmt: skip
    for given, metadata, task in cases:
        requests = [conversion.query_to_wire(RouteQuery.from_prompt(prompt, **given)) for prompt in PROMPTS]
        alone = [rpc(stack, "Route", request, caller | metadata).decision for request in requests]
        batch = rpc(stack, "BatchRoute", pb.BatchRouteRequest(requests=requests), caller | metadata)
        expected = [stack.engine.decide(RouteQuery.from_prompt(prompt, task=task)) for prompt in PROMPTS]
        for got in (alone, [result.decision for result in batch.results]):
            for message, one in zip(got, expected, strict=True):
                found = conversion.decision_from_wire(message)
                assert (found.task, found.task_known, found.task_labels) == (task, one.task_known, one.task_labels)
                assert (found.candidates, found.chosen) == (one.candidates, one.chosen)


def test_a_batch_of_several_tasks_decides_each_as_alone(stack: Stack) -> None:
    queries = [
        RouteQuery.from_prompt(prompt, task=task) for prompt in PROMPTS for task in ("", *TASKS, "something new")
    ]
    with RouterClient(stack.address, api_key="A") as client:
        got = client.route_batch(queries * 2)
    for query, found in zip(queries * 2, got, strict=True):
        assert not isinstance(found, ServiceError)
        assert found.candidates == stack.engine.decide(query).candidates


def test_complete_and_stream(stack: Stack) -> None:
    with RouterClient(stack.address) as client:
        answer = client.complete(PROMPTS[0], task="hard things")
        assert (answer.decision.chosen, answer.decision.task_known) == (STRONG, True)
        first = next(iter(client.stream(PROMPTS[0], task="easy things"))).decision
        assert first is not None
        assert (first.chosen, first.task_labels) == (WEAK, 20)


#: Headers, metadata of the body, and the task that they mean.
HTTP_CASES = (
    ({"x-elle-task": "easy things"}, None, "easy things"),
    ({"X-Elle-Task": "hard things"}, None, "hard things"),
    ({}, {"task": "hard things"}, "hard things"),
    ({"x-elle-task": "easy things"}, {"task": "hard things"}, "easy things"),
    ({"x-elle-task": "something new"}, None, "something new"),
    ({}, {"task": ["hard things"]}, ""),
)


def check_http(stack: Stack, url: str) -> None:
    for headers, metadata, task in HTTP_CASES:
        for prompt in PROMPTS[:3]:
            body: dict[str, Any] = {"model": "elle/test", "messages": [{"role": "user", "content": prompt}]}
            body |= {} if metadata is None else {"metadata": metadata}
            reply = httpx.post(f"{url}/v1/chat/completions", json=body, headers=headers, timeout=60)
            assert reply.status_code == 200
            assert reply.headers["x-elle-candidate"] == chosen(stack, prompt, task)


def test_openai_door(stack: Stack) -> None:
    check_http(stack, stack.http_url)
    body = {"model": "elle/test", "messages": [{"role": "user", "content": PROMPTS[0]}]}
    record = httpx.post(
        f"{stack.http_url}/v1/chat/completions", json=body, headers={"x-elle-task": "easy things"}, timeout=60
    ).json()["elle"]
    assert (record["task"], record["task_known"], record["task_labels"]) == ("easy things", True, 20)


@pytest.mark.skipif(not HAS_ENVOYS_PROTOS, reason="Envoy's protos are not installed; `pip install xds-protos`")
def test_envoy(stack: Stack) -> None:
    with envoy_in_front(stack.folder, stack.address, stack.upstream_url, NAMES) as url:
        check_http(stack, url)


@pytest.mark.parametrize("engine", ["in process", "service"])
def test_litellm_plugin(stack: Stack, engine: str) -> None:
    litellm = pytest.importorskip("litellm", reason="LiteLLM is not installed; `pip install 'elle-router[dispatch]'`")
    before = list(litellm.callbacks)

    async def ask_all() -> None:
        plugin = elle_plugin(stack.engine if engine == "in process" else stack.address)
        router = litellm.Router(model_list=litellm_models(stack.upstream_url), plugins=[plugin], num_retries=0)
        cases: list[tuple[dict[str, Any], str]] = [
            ({"task": "hard things"}, STRONG),
            ({"task": "easy things"}, WEAK),
            ({"task": "hard things", "headers": {"x-elle-task": "easy things"}}, WEAK),
        ]
        for metadata, winner in cases:
            for prompt in PROMPTS[:3]:
                told: dict[str, Any] = dict(metadata)
                await router.acompletion("auto", messages=[{"role": "user", "content": prompt}], metadata=told)
                assert told[METADATA_KEY]["x-elle-candidate"] == winner
        await litellm.close_litellm_async_clients()

    try:
        asyncio.run(ask_all())
    finally:
        litellm.callbacks[:] = before


def test_the_system_prompt_is_the_task_only_where_the_policy_says_so(stack: Stack) -> None:
    chat = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": PROMPTS[0]}]
    by_prompt, plain = Overrides(policy="by-prompt"), Overrides()
    with RouterClient(stack.address) as client:
        found = client.route(chat, by_prompt)
        assert (found.task, found.task_known, found.chosen) == (system_prompt_key(SYSTEM), True, STRONG)
        assert SYSTEM not in repr(found)
        assert client.route(chat, plain).task == ""
        named = client.route(RouteQuery(chat, by_prompt, task="easy things"))
        assert (named.task, named.chosen) == ("easy things", WEAK)
        other = client.route([{"role": "system", "content": "You write code."}, chat[1]], by_prompt)
        assert (other.task.partition(":")[0], other.task_known) == ("system-prompt", False)
        assert client.route(PROMPTS[0], by_prompt).task == ""
    for model, winner in (("elle/by-prompt", STRONG), ("elle/test", chosen(stack, PROMPTS[0]))):
        body = {"model": model, "messages": chat}
        reply = httpx.post(f"{stack.http_url}/v1/chat/completions", json=body, timeout=60)
        assert reply.headers["x-elle-candidate"] == winner


def test_a_repeated_prompt_of_another_task_is_judged_anew_and_unknown_tasks_share(stack: Stack) -> None:
    with RouterClient(stack.address, api_key="one who repeats") as client:
        first = client.route("again and again", task="easy things")
        second = client.route("again and again", task="hard things")
        third = client.route("again and again", task="easy things")
        none, unknown = client.route("again and again"), client.route("again and again", task="something new")
    assert [one.timings.cached for one in (first, second, third, none, unknown)] == [False, False, True, False, True]
    assert (first.chosen, second.chosen, third.chosen) == (WEAK, STRONG, WEAK)
    assert first.candidates == third.candidates
    assert none.candidates == unknown.candidates


LONG = "x" * 10_000_000


def by_field(stack: Stack) -> None:
    with RouterClient(stack.address) as client:
        client.route(PROMPTS[0], task=LONG)


def by_parameters(stack: Stack) -> None:
    with RouterClient(stack.address) as client:
        client.complete(PROMPTS[0], parameters={"metadata": {"task": LONG}})


def in_python(stack: Stack) -> None:
    stack.engine.decide(RouteQuery.from_prompt(PROMPTS[0], task=LONG))


@pytest.mark.parametrize("ask", [by_field, by_parameters, in_python])
def test_a_key_of_ten_megabytes_is_the_callers_fault_and_is_not_repeated(
    stack: Stack, ask: Callable[[Stack], None]
) -> None:
    with pytest.raises((ServiceError, InvalidRequestError), match="must be at most 256 bytes long") as caught:
        ask(stack)
    assert len(str(caught.value)) < 300
    assert getattr(caught.value, "code", "INVALID_ARGUMENT") == "INVALID_ARGUMENT"


def test_a_long_key_is_refused_over_http_and_by_header(stack: Stack) -> None:
    url, messages = f"{stack.http_url}/v1/chat/completions", [{"role": "user", "content": PROMPTS[0]}]
    body = {"model": "elle/test", "messages": messages}
    for headers, more in (({"x-elle-task": "x" * 300}, {}), ({}, {"metadata": {"task": LONG}})):
        reply = httpx.post(url, json=body | more, headers=headers, timeout=60)
        assert reply.status_code == 400
        assert len(reply.text) < 600
    request = conversion.query_to_wire(RouteQuery.from_prompt(PROMPTS[0]))
    with pytest.raises(grpc.RpcError) as caught:
        rpc(stack, "Route", request, {"x-elle-task": "x" * 300})
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_one_long_key_does_not_spoil_the_batch(stack: Stack) -> None:
    queries = [RouteQuery.from_prompt(PROMPTS[0], task=task) for task in ("easy things", "x" * 300, "hard things")]
    with RouterClient(stack.address) as client:
        first, second, third = client.route_batch(queries)
    assert isinstance(second, ServiceError)
    assert second.code == "INVALID_ARGUMENT"
    assert (first.chosen, third.chosen) == (WEAK, STRONG)  # type: ignore[union-attr]
