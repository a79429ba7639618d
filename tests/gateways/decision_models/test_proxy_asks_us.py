"""LiteLLM's real Proxy asks our service as its classifier, by its YAML file alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest
import yaml

from router.client import RouterClient
from router.deciding import pipeline
from router.decision import Reason
from router.gateways.http.http_gateway import HttpGateway
from router.serving.server import serving
from router.serving.settings import ServerSettings
from router.values import RouteQuery
from tests.conftest import ROOT
from tests.fakes import FakeEncoder, write_policy
from tests.gateways.chat_upstream import ChatUpstream, running_chat_upstream
from tests.gateways.litellm_proxy import KEY, NEEDS_PROXY, running_proxy
from tests.gateways.loopback import in_thread

EXAMPLE = ROOT / "examples" / "litellm" / "classifier.yaml"
NAMES = ("economy", "standard", "frontier")
LEVERAGE = 0.024

pytestmark = NEEDS_PROXY


@dataclass
class Stack:
    """The Proxy, the service that it asks over HTTP, and the upstream of all models."""

    address: str
    proxy_url: str
    chat: ChatUpstream

    def answered_by(self, messages: list[Any], **more: Any) -> str:
        with openai.OpenAI(api_key=KEY, base_url=f"{self.proxy_url}/v1", max_retries=0) as sdk:
            answer = sdk.chat.completions.create(model="auto", messages=messages, **more)
            if more.get("stream"):
                said = "".join(chunk.choices[0].delta.content or "" for chunk in answer if chunk.choices)
            else:
                said = answer.choices[0].message.content
        return str(said).removeprefix("up-").partition("0")[0].strip()

    def routed(self, messages: list[Any]) -> tuple[str, Reason]:
        with RouterClient(self.address) as client:
            decision = client.route(RouteQuery(messages))
        return decision.chosen, decision.reason


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("classifier")
    rule = {"kind": "gain", "thresholds": [0.2, 0.2]}
    # A quarter of the prompts is beyond this limit.
    policy = write_policy(folder, names=NAMES, rule=rule, name="default", abstain_above_leverage=LEVERAGE)
    with pytest.MonkeyPatch.context() as patch, running_chat_upstream() as (chat, chat_url):
        patch.setattr(pipeline, "load_encoder", lambda *_: FakeEncoder())
        with in_thread(serving(ServerSettings(policies=(policy,), port=0, drain_s=1, http=HttpGateway()))) as running:
            config = _write_config(folder, f"http://{running.http_address}", chat_url)
            with running_proxy(config) as proxy_url:
                yield Stack(running.address, proxy_url, chat)


def _write_config(folder: Path, url: str, chat_url: str) -> Path:
    """Write the example's file with our addresses in place of its own."""
    config = yaml.safe_load(EXAMPLE.read_text("utf-8"))
    for one in config["model_list"]:
        params = one["litellm_params"]
        if "complexity_router_config" in params:
            params["complexity_router_config"]["opensource_classifier_config"]["api_base"] = url
        else:
            params |= {"model": f"openai/up-{one['model_name']}", "api_base": chat_url, "api_key": "none"}
    path = folder / "classifier.yaml"
    path.write_text(yaml.safe_dump(config), "utf-8")
    return path


def test_the_proxy_asks_the_models_that_we_would_choose_and_the_fallback_tier_where_we_abstain(stack: Stack) -> None:
    asked = [{"role": "user", "content": f"please look into matter number {number}"} for number in range(24)]
    brief = {"role": "system", "content": "Be brief."}
    chats = [[one] for one in asked] + [[brief, one] for one in asked[:4]] + [asked[:2], asked[1:4]]
    routed = [stack.routed(chat) for chat in chats]
    # Otherwise the sameness would say little.
    judged = {chosen for chosen, reason in routed if reason is not Reason.ABSTAINED}
    assert judged == set(NAMES)
    assert sum(reason is Reason.ABSTAINED for _, reason in routed) > 3
    answered = [stack.answered_by(chat, stream=number % 2 == 1) for number, chat in enumerate(chats)]
    assert answered == [chosen for chosen, _ in routed]
