"""Fixtures of the tests of candidates with parameters: one service before one upstream, for the whole folder."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from router.client import RouterClient
from router.gateways.ext_proc import ExternalProcessor
from router.gateways.http.http_gateway import HttpGateway
from router.serving.server import serving
from router.serving.settings import ServerSettings
from tests.gateways.candidates_door.parameter_upstream import ParameterUpstream, running_parameter_upstream
from tests.gateways.loopback import in_thread

EFFORTS = ("low", "high")


@dataclass(frozen=True)
class Door:
    """The running service, a client of each door, and the upstream behind it."""

    http: httpx.Client
    grpc: RouterClient
    upstream: ParameterUpstream
    policies: dict[str, Path]
    address: str

    def post(self, path: str, model: str, **body: Any) -> httpx.Response:
        reply = self.http.post(path, json={"model": model, **body})
        assert reply.status_code == 200, reply.text
        return reply

    def chat(self, model: str, **body: Any) -> httpx.Response:
        return self.post("/v1/chat/completions", model, messages=[{"role": "user", "content": "hello"}], **body)


def write(folder: Path, name: str, candidates: list[dict[str, Any]], **keys: Any) -> Path:
    """Write a policy that always asks its last candidate."""
    strongest = candidates[-1]["name"]
    policy = {
        "schema": "elle.policy/1",
        "name": name,
        "candidates": candidates,
        "rule": {"kind": "fixed", "candidate": strongest},
        "safe_default": strongest,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(policy | keys), "utf-8")
    return path


def policies(folder: Path, url: str) -> Iterator[Path]:
    def at(name: str, model: str, **keys: Any) -> dict[str, Any]:
        return {"name": name, "model": model, "api_base": url, "capabilities": ["text", "image", "tools"]} | keys

    thinker: dict[str, Any] = {"speaks": ["responses", "completions"], "api_key_env": "TEST_UPSTREAM_KEY"}
    efforts = [
        at(one, "openai/thinker", **thinker, params={"reasoning_effort": one, "verbosity": one, "max_tokens": 500})
        for one in EFFORTS
    ]
    yield write(folder, "efforts", efforts)
    claude = {"reasoning_effort": "low", "stop": ["END"], "extra_body": {"top_k": 5}}
    anthropic = {"api_base": url.removesuffix("/v1"), "api_key_env": "TEST_UPSTREAM_KEY", "params": claude}
    yield write(folder, "claude", [at("claude", "anthropic/claude-opus-4-5", **anthropic)])
    vllm = {"reasoning_effort": "low", "extra_body": {"chat_template_kwargs": {"enable_thinking": False}}}
    yield write(folder, "vllm", [at("vllm", "hosted_vllm/m", params=vllm)])
    fussy = [at("plain", "openai/plain"), at("fussy", "openai/fussy", unsupported=["temperature", "n", "stop"])]
    for mode in ("drop", "drop_any", "ineligible", "refuse"):
        rule = {"rule": {"kind": "fixed", "candidate": "fussy"}, "on_unsupported": mode}
        yield write(folder, mode.replace("_", "-"), fussy, **rule)
    root = {"ollama-chat": {"api_base": url.removesuffix("/v1")}}
    yield write(folder, "providers", [at(name, model, **root.get(name, {})) for name, model in PROVIDERS.items()])


#: Candidates that LiteLLM asks, each at a provider whose format is OpenAI's or near to it.
PROVIDERS = {
    "openrouter": "openrouter/x/y",
    "mistral": "mistral/mistral-large-latest",
    "hosted-vllm": "hosted_vllm/m",
    "databricks": "databricks/m",
    "minimax": "minimax/MiniMax-M2",
    "deepinfra": "deepinfra/m",
    "deepseek": "deepseek/deepseek-chat",
    "azure-ai": "azure_ai/m",
    "sambanova": "sambanova/m",
    "gemini": "gemini/gemini-2.5-flash",
    "ollama-chat": "ollama_chat/m",
}


@pytest.fixture(scope="package")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    folder = tmp_path_factory.mktemp("candidates")
    keys = [f"{name.upper()}_API_KEY" for name in ("openrouter", "mistral", "databricks", "minimax", "deepinfra")]
    with pytest.MonkeyPatch.context() as patch, running_parameter_upstream() as (upstream, url):
        for key in (*keys, "TEST_UPSTREAM_KEY"):
            patch.setenv(key, "none-of-anybody")
        upstream.refuses = {"fussy": {"temperature", "n", "stop"}}
        files = list(policies(folder, url))
        doors = (ExternalProcessor(),) if importlib.util.find_spec("envoy") else ()
        settings = ServerSettings(policies=tuple(files), port=0, drain_s=1, doors=doors, http=HttpGateway())
        with (
            in_thread(serving(settings)) as running,
            httpx.Client(base_url=f"http://{running.http_address}", timeout=60) as http,
            RouterClient(running.address) as grpc,
        ):
            yield Door(http, grpc, upstream, {path.stem: path for path in files}, running.address)


def events(reply: httpx.Response) -> list[dict[str, Any]]:
    """Return the JSON bodies of server-sent events."""
    lines = [line.removeprefix("data: ") for line in reply.text.splitlines() if line.startswith("data: {")]
    return [json.loads(line) for line in lines]
