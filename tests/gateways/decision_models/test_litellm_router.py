"""LiteLLM's real Router asks our service as its classifier, with the configuration of examples/litellm."""

from __future__ import annotations

import asyncio
import copy
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from router.client import RouterClient
from router.deciding import pipeline
from router.gateways.http.http_gateway import HttpGateway
from router.serving.server import serving
from router.serving.settings import ServerSettings
from router.values import RouteQuery
from tests.conftest import ROOT
from tests.fakes import FakeEncoder, write_policy
from tests.gateways.chat_upstream import running_chat_upstream
from tests.gateways.loopback import in_thread

EXAMPLE = ROOT / "examples" / "litellm" / "classifier.yaml"
NAMES = ("economy", "standard", "frontier")
#: LiteLLM's own tiers, as aliases of our candidates.
LABELS = {"SIMPLE": "economy", "MEDIUM": "standard", "COMPLEX": "frontier", "REASONING": "frontier"}

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("litellm") is None
    or importlib.util.find_spec("litellm.router_strategy.complexity_router.jev_classifier") is None,
    reason="this LiteLLM has no decision models as classifiers; 1.110 has",
)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, str]]:
    """Yield the address of the service, its URL, and that of the upstream."""
    folder = tmp_path_factory.mktemp("policies")
    rule = {"kind": "gain", "thresholds": [0.1, 0.1]}
    policies = (
        write_policy(folder, names=NAMES, rule=rule, name="default"),
        write_policy(folder, names=NAMES, rule=rule, name="wary", abstain_above_leverage=1e-9, aliases=LABELS),
        write_policy(folder, names=NAMES, rule=rule, name="labels", aliases=LABELS),
    )
    with pytest.MonkeyPatch.context() as patch, running_chat_upstream() as (_, upstream_url):
        patch.setattr(pipeline, "load_encoder", lambda *_: FakeEncoder())
        with in_thread(serving(ServerSettings(policies=policies, port=0, drain_s=1, http=HttpGateway()))) as running:
            yield running.address, f"http://{running.http_address}", upstream_url


def _models(url: str, upstream_url: str, model: str) -> list[dict[str, Any]]:
    """Return the example's models with our addresses in place of its own."""
    models: list[dict[str, Any]] = copy.deepcopy(yaml.safe_load(EXAMPLE.read_text("utf-8"))["model_list"])
    for one in models:
        params = one["litellm_params"]
        if "complexity_router_config" in params:
            params["complexity_router_config"]["opensource_classifier_config"] |= {"api_base": url, "model": model}
        else:
            params |= {"model": f"openai/up-{one['model_name']}", "api_base": upstream_url, "api_key": "none"}
    return models


def _answered_by(models: list[dict[str, Any]], chats: list[list[dict[str, str]]]) -> list[str]:
    litellm = pytest.importorskip("litellm")

    async def ask_all() -> list[str]:
        router = litellm.Router(model_list=models, num_retries=0)
        answers = [await router.acompletion("auto", messages=chat) for chat in chats]
        await litellm.close_litellm_async_clients()
        return [answer.choices[0].message.content.split()[0].removeprefix("up-") for answer in answers]

    return asyncio.run(ask_all())


def test_the_router_asks_the_models_that_we_would_choose(stack: tuple[str, str, str]) -> None:
    address, url, upstream_url = stack
    chats = [[{"role": "user", "content": f"please look into matter number {number}"}] for number in range(12)]
    chats += [[{"role": "system", "content": "Be brief."}, *chat] for chat in chats[:4]]
    with RouterClient(address) as client:
        expected = [client.route(RouteQuery(chat)).chosen for chat in chats]
    assert len(set(expected)) > 1
    assert _answered_by(_models(url, upstream_url, "elle"), chats) == expected


def test_an_abstention_goes_to_the_fallback_tier(stack: tuple[str, str, str]) -> None:
    _, url, upstream_url = stack
    chats = [[{"role": "user", "content": f"something else, {number}"}] for number in range(6)]
    assert _answered_by(_models(url, upstream_url, "elle-wary"), chats) == ["frontier"] * 6


def _with_own_tiers(models: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the models with LiteLLM's own tiers in place of tiers that the file defines."""
    config = models[-1]["litellm_params"]["complexity_router_config"]
    del config["tier_definitions"], config["fallback_tier"]
    config |= {"tiers": LABELS, "classifier_fallback": "default_model"}
    return models


def test_litellms_own_tiers_are_aliases_of_our_candidates(stack: tuple[str, str, str]) -> None:
    address, url, upstream_url = stack
    chats = [[{"role": "user", "content": f"please look into matter number {number}"}] for number in range(8)]
    with RouterClient(address) as client:
        expected = [client.route(RouteQuery(chat)).chosen for chat in chats]
    assert len(set(expected)) > 1
    assert _answered_by(_with_own_tiers(_models(url, upstream_url, "elle-labels")), chats) == expected
    assert _answered_by(_with_own_tiers(_models(url, upstream_url, "elle-wary")), chats[:3]) == ["frontier"] * 3


def test_litellm_reads_our_answer_in_openais_form(stack: tuple[str, str, str]) -> None:
    litellm = pytest.importorskip("litellm")
    address, url, _ = stack
    choices = [{"value": name, "description": name} for name in NAMES]
    question = {"type": "choice", "name": "tier", "instructions": "Which tier?", "choices": choices}
    said = "please look into matter number 1"

    async def ask() -> Any:
        found = await litellm.adecisions(
            model="openai/elle", input=said, questions=[question], api_base=f"{url}/v1", api_key="any"
        )
        await litellm.close_litellm_async_clients()
        return found

    (answer,) = asyncio.run(ask()).model_dump()["answers"]
    with RouterClient(address) as client:
        assert (answer["name"], answer["choice"]) == ("tier", client.route(RouteQuery.from_prompt(said)).chosen)
    assert [one["value"] for one in answer["probabilities"]] == list(NAMES)
    assert sum(one["probability"] for one in answer["probabilities"]) == pytest.approx(1)


def test_the_example_names_the_tiers_of_the_embedded_default() -> None:
    config = yaml.safe_load(EXAMPLE.read_text("utf-8"))
    default = yaml.safe_load(Path(ROOT / "router" / "defaults" / "policy.yaml").read_text("utf-8"))
    auto = config["model_list"][-1]["litellm_params"]["complexity_router_config"]
    names = [candidate["name"] for candidate in default["candidates"]]
    assert [tier["name"] for tier in auto["tier_definitions"]] == names
    assert auto["fallback_tier"] == default["safe_default"]
