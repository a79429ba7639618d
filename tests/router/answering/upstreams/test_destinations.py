"""Tests of where candidates are asked that speak the API of a request, and with which headers."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from router.answering.upstreams.destinations import Destinations, KeptCall, count_tokens_url, upstream_name
from router.errors import UpstreamNotFoundError
from router.policies.candidates.candidate import Candidate
from router.policies.rules import speaks_api
from router.values import ApiFormat, RouteQuery, SpokenApi

FORMATS = {
    ApiFormat.OPENAI_CHAT: "/chat/completions",
    ApiFormat.OPENAI_RESPONSES: "/responses",
    ApiFormat.OPENAI_COMPLETIONS: "/completions",
    ApiFormat.OPENAI_EMBEDDINGS: "/embeddings",
}
VARIABLES = ("OPENAI_BASE_URL", "OPENAI_API_BASE", "OPENAI_API_KEY", "AZURE_API_BASE", "AZURE_OPENAI_ENDPOINT")
VARIABLES += ("AZURE_API_KEY", "AZURE_OPENAI_API_KEY", "AZURE_AD_TOKEN", "AZURE_OPENAI_AD_TOKEN", "ANTHROPIC_API_KEY")


@pytest.fixture
def destinations(monkeypatch: pytest.MonkeyPatch) -> Destinations:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return Destinations(openai.AsyncOpenAI(api_key="none"))


def asked(destinations: Destinations, api: ApiFormat = ApiFormat.OPENAI_RESPONSES, **fields: Any) -> Any:
    candidate = Candidate(name="it", **fields)
    return destinations.of(candidate, candidate.api_base, RouteQuery((), api_format=api))


@pytest.mark.parametrize("api", FORMATS)
def test_every_api_of_openai_has_its_path(destinations: Destinations, api: ApiFormat) -> None:
    found = asked(destinations, api, model="openai/x", api_base="http://localhost:1/v1/")
    assert found.url == f"http://localhost:1/v1{FORMATS[api]}"
    assert not found.has_key


def test_the_query_of_a_base_stays_at_the_end_of_every_url(destinations: Destinations) -> None:
    base = "http://localhost:1/v1/?key=1"
    openai_like = Candidate(name="it", model="openai/x", api_base=base)
    chat = RouteQuery((), api_format=ApiFormat.OPENAI_CHAT)
    assert destinations.of(openai_like, base, chat).url == "http://localhost:1/v1/chat/completions?key=1"
    kept = destinations.of_kept(openai_like, base, KeptCall("GET", "resp_1", "/input_items?limit=2"))
    assert kept.url == "http://localhost:1/v1/responses/resp_1/input_items?key=1&limit=2"
    for path in ("", "/v1", "/v1/messages"):
        url = f"http://localhost:1{path}?key=1"
        claude = Candidate(name="it", model="anthropic/x", api_base=url)
        found = destinations.of(claude, url, RouteQuery((), api_format=ApiFormat.ANTHROPIC_MESSAGES)).url
        assert found == "http://localhost:1/v1/messages?key=1"
        assert count_tokens_url(found) == "http://localhost:1/v1/messages/count_tokens?key=1"


def test_openai_itself_is_asked_with_its_key_where_the_environment_says(
    destinations: Destinations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-own")
    found = asked(destinations, model="openai/gpt-x")
    assert (found.url, found.has_key) == ("https://api.openai.com/v1/responses", True)
    assert found.headers["Authorization"] == "Bearer sk-own"
    monkeypatch.setenv("OPENAI_API_BASE", "http://localhost:2/v1")
    assert asked(destinations, model="openai/gpt-x").url == "http://localhost:2/v1/responses"
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:3/v1")
    assert asked(destinations, model="openai/gpt-x").url == "http://localhost:3/v1/responses"


@pytest.mark.parametrize("base", ["https://a.openai.azure.com", "https://a.openai.azure.com/openai/v1/"])
def test_azure_has_one_path_whatever_was_written(
    destinations: Destinations, monkeypatch: pytest.MonkeyPatch, base: str
) -> None:
    monkeypatch.setenv("AZURE_API_KEY", "azure-own")
    found = asked(destinations, model="azure/mine", api_base=base)
    assert found.url == "https://a.openai.azure.com/openai/v1/responses"
    assert found.headers["api-key"] == "azure-own"
    # The usual key is for hosts of Azure only.
    elsewhere = asked(destinations, model="azure/mine", api_base="http://localhost:1")
    assert (elsewhere.headers["api-key"], elsewhere.has_key) == ("none", False)


def test_azure_takes_url_and_token_from_the_environment(
    destinations: Destinations, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UpstreamNotFoundError, match="AZURE_API_BASE"):
        asked(destinations, model="azure/mine")
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://a.openai.azure.com/")
    monkeypatch.setenv("AZURE_AD_TOKEN", "token")
    found = asked(destinations, model="azure/mine")
    assert found.url == "https://a.openai.azure.com/openai/v1/responses"
    assert found.headers["authorization"] == "Bearer token"
    assert "api-key" not in found.headers


@pytest.mark.parametrize(
    ("fields", "spoken"),
    [
        ({"model": "openai/gpt-x"}, ["embeddings", "responses"]),
        ({"model": "openai/gpt-x", "api_base": "https://api.openai.com/v1"}, ["embeddings", "responses"]),
        ({"model": "openai/gpt-x", "api_base": "https://eu.api.openai.com/v1"}, ["embeddings", "responses"]),
        ({"model": "openai/gpt-x", "api_base": "https://api.openai.com.evil.example/v1"}, []),
        ({"model": "openai/gpt-x", "api_base": "canned"}, []),
        ({"model": "openai/responses/gpt-x", "api_base": "http://localhost:1/v1"}, ["responses"]),
        ({"model": "azure/mine", "api_base": "http://localhost:1"}, ["embeddings", "responses"]),
        ({"model": "azure/mine", "speaks": []}, []),
        ({"model": "openai/x", "api_base": "http://localhost:1", "speaks": ["completions"]}, ["completions"]),
        ({"model": "mistral/large"}, []),
    ],
    ids=str,
)
def test_who_speaks_what(fields: dict[str, Any], spoken: list[str]) -> None:
    candidate = Candidate(name="it", **fields)
    assert sorted(api.value for api in SpokenApi if speaks_api(candidate, api)) == spoken


def test_only_candidates_of_openai_and_azure_may_say_what_they_speak() -> None:
    with pytest.raises(ValueError, match="speaks is only for models openai"):
        Candidate(name="it", model="mistral/large", speaks=(SpokenApi.RESPONSES,))


def test_the_upstream_knows_a_model_without_litellms_prefixes() -> None:
    candidate = Candidate(name="it", model="openai/responses/gpt-x")
    assert upstream_name(candidate, ApiFormat.OPENAI_RESPONSES) == "gpt-x"
