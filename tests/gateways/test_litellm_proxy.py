"""LiteLLM's real Proxy, in an environment of its own, with the files of examples/litellm: it asks our service."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
import pytest
import yaml

from router.client import RouterClient
from router.deciding import pipeline
from router.decision import RoutingDecision
from router.serving.server import serving
from router.serving.settings import ServerSettings
from router.values import RouteQuery
from tests.conftest import ROOT
from tests.fakes import FakeEncoder, write_policy
from tests.gateways.chat_upstream import ChatUpstream, running_chat_upstream
from tests.gateways.conversations import conversations
from tests.gateways.litellm_proxy import KEY, NEEDS_PROXY, running_proxy
from tests.gateways.loopback import in_thread

EXAMPLE = ROOT / "examples" / "litellm"
#: Those of the example's config.yaml.
NAMES = ("mixtral-8x7b", "gpt-4-turbo")
BODIES = conversations(60, seed=1)

#: A logger in the Proxy: what our plugin left in the metadata of each call, a line each.
LOGGER = """
import json, os
from litellm.integrations.custom_logger import CustomLogger

class Logger(CustomLogger):
    async def async_log_success_event(self, kwargs, response_obj, start_time, end_time):
        told = kwargs["litellm_params"]["metadata"].get("elle")
        with open(os.environ["DECISIONS"], "a") as file:
            file.write(json.dumps(told) + chr(10))

logger = Logger()
"""

pytestmark = NEEDS_PROXY


@dataclass
class Stack:
    """The Proxy in front of an upstream, and the service it asks."""

    address: str
    proxy_url: str
    chat: ChatUpstream
    decisions: Path
    _read: int = field(default=0)

    def sdk(self) -> openai.OpenAI:
        return openai.OpenAI(api_key=KEY, base_url=f"{self.proxy_url}/v1", max_retries=0)

    def told(self) -> dict[str, str] | None:
        """Return what the Proxy's logger was told of the next call; it is told after the answer."""
        give_up = time.monotonic() + 20
        while time.monotonic() < give_up:
            # A line that is being written has no end yet.
            lines = self.decisions.read_text("utf-8").split("\n")[:-1]
            if len(lines) > self._read:
                self._read += 1
                found: dict[str, str] | None = json.loads(lines[self._read - 1])
                return found
            time.sleep(0.02)
        raise AssertionError("the Proxy's logger was told nothing")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("proxy")
    with pytest.MonkeyPatch.context() as patch, running_chat_upstream() as (chat, chat_url):
        patch.setattr(pipeline, "load_encoder", lambda *_: FakeEncoder())
        capabilities = (["text"], ["text", "image", "tools", "json_schema"])
        candidates = [
            {"name": name, "model": f"openai/{name}", "capabilities": able}
            for name, able in zip(NAMES, capabilities, strict=True)
        ]
        policy = write_policy(folder, names=NAMES, candidates=candidates, rule={"kind": "gain", "thresholds": [0.35]})
        with in_thread(serving(ServerSettings(policies=(policy,), port=0, drain_s=1))) as running:
            decisions = folder / "decisions.jsonl"
            decisions.touch()
            config = _write_config(folder, chat_url)
            with running_proxy(config, ELLE_ROUTER=running.address, DECISIONS=str(decisions)) as proxy_url:
                yield Stack(running.address, proxy_url, chat, decisions)


def _write_config(folder: Path, chat_url: str) -> Path:
    """Write the example's files, with our upstream for both models, a further group, and our logger."""
    config = yaml.safe_load((EXAMPLE / "config.yaml").read_text("utf-8"))
    for deployment in config["model_list"]:
        name = deployment["model_info"]["elle_candidate"]
        deployment["litellm_params"] = {"model": f"openai/up-{name}", "api_base": chat_url, "api_key": "none"}
    other = {"model": "openai/up-other", "api_base": chat_url, "api_key": "none"}
    config["model_list"].append({"model_name": "other", "litellm_params": other})
    settings = config["litellm_settings"]
    settings["callbacks"] = [settings["callbacks"], "logger_hook.logger"]
    (folder / "config.yaml").write_text(yaml.safe_dump(config), "utf-8")
    (folder / "logger_hook.py").write_text(LOGGER, "utf-8")
    shutil.copy(EXAMPLE / "elle_hook.py", folder)
    return folder / "config.yaml"


def routed(stack: Stack, body: dict[str, Any]) -> RoutingDecision:
    with RouterClient(stack.address) as client:
        parameters = {key: value for key, value in body.items() if key != "messages"}
        return client.route(RouteQuery(body["messages"], parameters=parameters))


def test_every_chat_goes_where_route_sends_it_for_the_same_reason_at_the_same_risk(stack: Stack) -> None:
    seen = set()
    with stack.sdk() as sdk:
        for number, body in enumerate(BODIES):
            decision = routed(stack, body)
            stack.chat.sent.clear()
            if number % 2:
                chunks = list(sdk.chat.completions.create(model="auto", **body, stream=True))
                assert any(chunk.choices and chunk.choices[0].finish_reason for chunk in chunks)
            else:
                assert sdk.chat.completions.create(model="auto", **body).choices
            (sent,) = stack.chat.sent
            assert json.loads(sent)["model"] == f"up-{decision.chosen}"
            told = stack.told()
            assert told is not None
            risk = next(row.risk for row in decision.candidates if row.candidate == decision.chosen)
            assert (told["x-elle-candidate"], told["x-elle-reason"]) == (decision.chosen, decision.reason.value)
            assert told.get("x-elle-risk") == (None if risk is None else f"{risk:.6f}")
            assert told.get("x-elle-gain") == (None if decision.gain is None else f"{decision.gain:.6f}")
            seen.add((decision.chosen, decision.reason.value))
    # Otherwise the sameness would say little.
    assert {name for name, _ in seen} == set(NAMES)
    assert {reason for _, reason in seen} >= {"GAIN_BELOW_THRESHOLD", "GAIN_ABOVE_THRESHOLD", "ONLY_ELIGIBLE"}


def test_other_model_groups_are_left_alone(stack: Stack) -> None:
    stack.chat.sent.clear()
    with stack.sdk() as sdk:
        sdk.chat.completions.create(model="other", messages=[{"role": "user", "content": "hello"}])
    (sent,) = stack.chat.sent
    assert json.loads(sent)["model"] == "up-other"
    assert stack.told() is None


def test_a_chat_that_nobody_may_answer_is_refused_and_nobody_is_asked(stack: Stack) -> None:
    stack.chat.sent.clear()
    part = {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}
    sound: Any = [{"role": "user", "content": [part]}]
    with stack.sdk() as sdk, pytest.raises(openai.BadRequestError, match="no candidate may answer"):
        sdk.chat.completions.create(model="auto", messages=sound)
    assert stack.chat.sent == []
