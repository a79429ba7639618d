"""Candidates that LiteLLM cannot ask are told with their settings before they are asked, and when they are."""

from __future__ import annotations

import os
import re
import socket

import pytest

from router.answering.candidate_check import problems_of
from router.answering.upstream import Upstream
from router.answering.upstreams import litellm_problems
from router.errors import DispatchError, UpstreamNotFoundError, UpstreamRejectedError
from router.policies.candidates.candidate import Candidate
from router.values import RouteQuery

#: For each model what its problem names.
PROBLEMS = {
    "triton/x": "`api_base`",
    "azure_ai/x": "`api_base`",
    "custom/x": "`api_base`",
    "hosted_vllm/x": "api.openai.com",
    "lm_studio/x": "api.openai.com",
    "watsonx/x": "WX_PROJECT_ID",
    "predibase/x": "PREDIBASE_TENANT_ID",
    "oci/x": "OCI_FINGERPRINT",
    "xinference/x": "XINFERENCE_API_KEY",
    "maritalk/x": "MARITALK_API_KEY",
    "bytez/x": "`api_key_env`",
    "vllm/x": "the package vllm is not installed",
    "topaz/x": "no chat API",
    "opneai/gpt-4o": "names no provider",
    "anthropic/x": "ANTHROPIC_API_KEY",
}

PYTHON_CLASS = re.compile(r"\b[A-Za-z]+(Error|Exception)\b")


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.endswith(("_API_KEY", "_API_BASE", "_TOKEN")):
            monkeypatch.delenv(name)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("model", PROBLEMS)
async def test_what_is_missing_is_named_before_and_when_it_is_asked(
    upstream: Upstream, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise AssertionError("nothing may be asked")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    candidate = Candidate(name="c", model=model)
    (before,) = await problems_of([candidate], upstream.litellm)
    with pytest.raises(DispatchError) as caught:
        await upstream.complete(candidate, RouteQuery.from_prompt("hello"))
    assert caught.value.message == before
    assert PROBLEMS[model] in before
    assert "'c'" in before
    assert not PYTHON_CLASS.search(before)
    assert not caught.value.retryable
    assert not caught.value.counts


@pytest.mark.asyncio(loop_scope="module")
async def test_a_candidate_that_can_be_asked_has_no_problem_and_is_not_asked(upstream: Upstream) -> None:
    for model, base in (("hosted_vllm/x", "http://127.0.0.1:1/v1"), ("triton/x", "http://127.0.0.1:1/generate")):
        assert await problems_of([Candidate(name="c", model=model, api_base=base)], upstream.litellm) == []


@pytest.mark.asyncio(loop_scope="module")
async def test_an_upstream_that_cannot_be_reached_has_no_http_status_and_no_class_of_python(upstream: Upstream) -> None:
    for model in ("openai/x", "hosted_vllm/x", "ollama/x"):
        with pytest.raises(DispatchError, match="could not be reached, or broke off the connection") as caught:
            await upstream.complete(
                Candidate(name="c", model=model, api_base="http://127.0.0.1:1"), RouteQuery.from_prompt("hello")
            )
        assert caught.value.http_status is None
        assert not PYTHON_CLASS.search(caught.value.message)


@pytest.mark.asyncio(loop_scope="module")
async def test_a_caller_is_told_which_parameters_a_provider_lacks_and_nothing_of_litellm(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "none")
    query = RouteQuery.from_prompt("hello", parameters={"n": 2, "seed": 3})
    with pytest.raises(UpstreamRejectedError) as caught:
        await upstream.complete(Candidate(name="c", model="anthropic/x", api_base="http://127.0.0.1:1"), query)
    message = caught.value.message
    assert "anthropic does not support parameters: ['n', 'seed']" in message
    assert not re.search("litellm|drop_params|dynamically", message, re.IGNORECASE)


def test_values_of_variables_are_never_taken_for_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "SECRET_WORDS_OF_A_KEY")
    assert litellm_problems._settings_in("SECRET_WORDS_OF_A_KEY is wrong, MY_KEY too; set OTHER_KEY") == ["OTHER_KEY"]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("api_base is required", "LiteLLM asks for `api_base`"),
        ("device-code login needs a human", "its provider wants a login by a person on this machine"),
        ("No credentials found", "LiteLLM finds no credentials of its provider on this machine"),
        ("set {LLM_PROVIDER}_API_BASE and X_ID", "LiteLLM asks for `api_base` or MY_API_BASE or X_ID"),
        ("sk-12345 is odd", "LiteLLM cannot build a request for it; compare the model's name and its settings with "
         "LiteLLM's page of the provider"),
    ],
    # The words themselves would stand in a variable of pytest.
    ids=["url", "login", "credentials", "provider", "other"],
)  # fmt: skip
def test_words_of_litellm_become_settings_and_nothing_else_of_them_is_repeated(words: str, why: str) -> None:
    found = litellm_problems.problem_in_rehearsal(Candidate(name="c", model="my/y"), ValueError(words))
    assert isinstance(found.error(), UpstreamNotFoundError)
    assert found.message == f"candidate 'c' (my/y) cannot be asked as it is set up: {why}."
