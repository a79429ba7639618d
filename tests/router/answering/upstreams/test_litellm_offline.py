"""LiteLLM asks nobody but the candidate's own address, and a caller's mistakes rest no candidate."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from router.answering.upstream import Upstream
from router.answering.upstreams.candidate_keys import key_of
from router.errors import DispatchError, UpstreamDeniedError, UpstreamNotFoundError, UpstreamRejectedError
from router.gateways.http.openai_format import OPENAI_FORMAT
from router.policies.candidates.candidate import Candidate
from router.values import RouteQuery
from tests.raw_server import raw_server

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def failure(upstream: Upstream, parameters: dict[str, Any] | None = None, **candidate: Any) -> DispatchError:
    asked = Candidate(name="c", **{"timeout_s": 20, **candidate})
    with pytest.raises(DispatchError) as caught:
        await upstream.complete(asked, RouteQuery.from_prompt("hello", parameters=parameters or {}))
    return caught.value


MALFORMED: list[dict[str, Any]] = [
    {"tools": [{"type": "function"}]},
    {"tools": [{"type": "function", "function": "x"}]},
    {"response_format": "x"},
    {"tool_choice": {"type": "function"}, "tools": [3]},
]


@pytest.mark.parametrize("parameters", MALFORMED, ids=str)
async def test_what_litellm_cannot_translate_is_the_callers_fault_and_does_not_count(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch, parameters: dict[str, Any]
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-test")
    error = await failure(upstream, parameters, model="anthropic/claude-sonnet-4-5", api_base="http://127.0.0.1:1")
    assert isinstance(error, UpstreamRejectedError)
    assert not error.counts


async def test_a_port_that_nobody_listens_on_counts(upstream: Upstream) -> None:
    for model in ("openai/x", "hosted_vllm/x"):
        error = await failure(upstream, model=model, api_base="http://127.0.0.1:1/v1")
        assert error.retryable
        assert error.counts


async def test_a_missing_key_is_told_with_the_variables_name(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    azure = ("AZURE_API_KEY", "AZURE_OPENAI_API_KEY", "AZURE_AD_TOKEN", "AZURE_OPENAI_AD_TOKEN", "AZURE_CLIENT_ID")
    others = ("AZURE_API_BASE", "AZURE_OPENAI_ENDPOINT", "AZURE_USERNAME", "AZURE_CREDENTIAL")
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "NO_SUCH_KEY", *azure, *others):
        monkeypatch.delenv(name, raising=False)
    missing = {
        "OPENAI_API_KEY": {"model": "openai/gpt-4o"},
        "ANTHROPIC_API_KEY": {"model": "anthropic/claude-sonnet-4-5"},
        "AZURE_API_BASE": {"model": "azure/gpt-4o"},
        "AZURE_API_KEY": {"model": "azure/gpt-4o", "api_base": "https://mine.openai.azure.com"},
        "NO_SUCH_KEY": {"model": "openai/x", "api_base": "http://127.0.0.1:1/v1", "api_key_env": "NO_SUCH_KEY"},
    }
    for variable, candidate in missing.items():
        error = await failure(upstream, **candidate)
        assert isinstance(error, UpstreamDeniedError)
        assert variable in str(error)
        assert not error.retryable
        assert not error.counts


async def test_a_provider_that_nobody_knows_is_the_candidates_fault(upstream: Upstream) -> None:
    error = await failure(upstream, model="opnai/gpt-4o")
    assert isinstance(error, UpstreamNotFoundError)
    assert "names no provider" in str(error)
    assert not error.retryable


@pytest.mark.parametrize("model", ["vertex_ai/x", "sagemaker/x", "triton/x"])
async def test_a_candidate_for_which_nothing_can_be_built_is_not_the_callers_fault(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "GOOGLE_APPLICATION_CREDENTIALS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    error = await failure(upstream, model=model)
    assert isinstance(error, UpstreamNotFoundError)
    assert "cannot be asked as it is set up" in str(error)
    assert not error.counts
    status, _, body = OPENAI_FORMAT.error_reply(error)
    assert (status, body["error"]["type"]) == (502, "server_error")


KEYS = {
    "openai/x": "OPENAI_API_KEY",
    "anthropic/x": "ANTHROPIC_API_KEY",
    "mistral/x": "MISTRAL_API_KEY",
    "gemini/x": "GEMINI_API_KEY",
    "azure/x": "AZURE_API_KEY",
    "ollama/x": "OLLAMA_API_KEY",
    "hosted_vllm/x": "HOSTED_VLLM_API_KEY",
    "gigachat/x": "GIGACHAT_ACCESS_TOKEN",
}


@pytest.mark.parametrize("model", KEYS)
async def test_a_key_never_goes_to_a_host_that_it_is_not_meant_for(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    monkeypatch.setenv(KEYS[model], "sentinel-of-the-key")
    heard = b""

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal heard
        heard += await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    async with raw_server(listen) as port:
        base = f"http://127.0.0.1:{port}/v1"
        error = await failure(upstream, model=model, api_base=base)
        assert b"sentinel" not in heard
        if model != "ollama/x":  # It asks for the model's properties before the call.
            assert isinstance(error, UpstreamDeniedError)
            assert "api_key_env" in str(error)
        await failure(upstream, model=model, api_base=base, api_key_env=KEYS[model])
        if model not in {"gigachat/x", "ollama/x"}:  # The one exchanges its key at another host.
            assert b"sentinel" in heard


async def test_a_usual_key_is_for_the_providers_own_hosts_only() -> None:
    for base in (None, "https://api.openai.com/v1", "https://eu.api.openai.com/v1"):
        assert key_of(Candidate(name="c", model="openai/x", api_base=base), base) is None
    for base in ("http://api.openai.com/v1", "https://api.openai.com.evil.org/v1", "https://evilapi.openai.com.x"):
        assert key_of(Candidate(name="c", model="openai/x", api_base=base), base) == "none"
