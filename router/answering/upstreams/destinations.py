"""Say to which URL and with which headers a candidate is asked that speaks the API format of a request."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote, urlsplit

from router.answering.upstreams.candidate_keys import (
    AZURE_BASES,
    AZURE_KEYS,
    AZURE_TOKENS,
    NO_KEY,
    forms_of_password,
    key_of,
    note_sent,
)
from router.errors import UpstreamNotFoundError
from router.policies.candidates.candidate import Candidate
from router.policies.rules import SECOND_PATHS
from router.values import ApiFormat, RouteQuery

#: The beginning of the name of a model at OpenAI that LiteLLM asks over the Responses API.
RESPONSES_PREFIX = "responses/"

_AZURE_PREFIX = "azure/"

#: Where each API of OpenAI is, behind the base URL.
_PATHS: Mapping[ApiFormat, str] = {
    ApiFormat.OPENAI_CHAT: "/chat/completions",
    ApiFormat.OPENAI_RESPONSES: "/responses",
    ApiFormat.OPENAI_COMPLETIONS: "/completions",
    ApiFormat.OPENAI_EMBEDDINGS: "/embeddings",
}

#: Variables that hold another URL of OpenAI's API, as LiteLLM reads them.
_OPENAI_BASES, _OPENAI_URL = ("OPENAI_BASE_URL", "OPENAI_API_BASE"), "https://api.openai.com/v1"

#: Variables that hold another URL of Anthropic's API, as LiteLLM and Anthropic's SDKs read them.
_ANTHROPIC_BASES = ("ANTHROPIC_API_BASE", "ANTHROPIC_BASE_URL")
_ANTHROPIC_URL, _ANTHROPIC_VERSION = "https://api.anthropic.com", "2023-06-01"

#: For providers with a second path: the variables that hold their URL, that URL, and the variables that hold their key.
_SECOND_HOMES: Mapping[str, tuple[tuple[str, ...], str, tuple[str, ...]]] = {
    "gemini": ((), "https://generativelanguage.googleapis.com/v1beta", ("GEMINI_API_KEY", "GOOGLE_API_KEY")),
    "ollama": (("OLLAMA_API_BASE",), "http://localhost:11434", ("OLLAMA_API_KEY",)),
}

#: The headers of Anthropic's API that a caller sets and an upstream gets.
ANTHROPIC_HEADERS = ("anthropic-version", "anthropic-beta")

_MESSAGES_PATH = "/v1/messages"

#: A request of the API whose responses are kept.
_ABOUT_RESPONSES = RouteQuery((), api_format=ApiFormat.OPENAI_RESPONSES)


@dataclass(frozen=True, slots=True)
class Destination:
    """Holds the URL and the headers with which a candidate is asked, and whether a key is among them."""

    url: str
    headers: Mapping[str, str]
    has_key: bool


@dataclass(frozen=True, slots=True)
class KeptCall:
    """Says what is asked about a response that its provider keeps.

    Attributes:
        method: the method of HTTP.
        response_id: the id of the response.
        rest: what follows the id in the URL, with the query, such as `/input_items?limit=2`.
    """

    method: str
    response_id: str
    rest: str


class Destinations:
    """Finds the destinations of candidates.

    sdk: a client of the OpenAI SDK, which says what headers it would send.
    """

    def __init__(self, sdk: Any) -> None:
        self._sdk = sdk
        self._openai: dict[tuple[str, str, str], Destination] = {}

    def of(self, candidate: Candidate, base: str | None, query: RouteQuery) -> Destination:
        """Return where to send a request. `base` is the candidate's URL. Raises UpstreamDeniedError without its key."""
        if query.api_format is ApiFormat.ANTHROPIC_MESSAGES:
            return _anthropic(candidate, base, query.api_headers)
        path = _PATHS[query.api_format]
        if candidate.model.startswith(_AZURE_PREFIX):
            return _azure(candidate, base, path)
        if (second := SECOND_PATHS.get(candidate.model.partition("/")[0])) is not None:
            return self._of_second(candidate, base, f"{second}{path}")
        return self._of_openai(candidate, base or _from_environment(_OPENAI_BASES) or _OPENAI_URL, path)

    def of_kept(self, candidate: Candidate, base: str | None, call: KeptCall) -> Destination:
        """Return where to ask about a response that a candidate keeps. Raises as `of` does."""
        found = self.of(candidate, base, _ABOUT_RESPONSES)
        return replace(found, url=_below(found.url, f"/{call.response_id}{call.rest}"))

    def _of_openai(self, candidate: Candidate, base: str, path: str) -> Destination:
        return self._at(base, key_of(candidate, base) or os.environ.get("OPENAI_API_KEY") or NO_KEY, path)

    def _of_second(self, candidate: Candidate, base: str | None, path: str) -> Destination:
        """Return where a provider with a format of its own answers chats in OpenAI's format."""
        provider = candidate.model.partition("/")[0].removesuffix("_chat")
        bases, url, keys = _SECOND_HOMES[provider]
        key = key_of(candidate, base) or _from_environment(keys) or NO_KEY
        return self._at((base or _from_environment(bases) or url).rstrip("/"), key, path)

    def _at(self, base: str, key: str, path: str) -> Destination:
        if (base, key, path) not in self._openai:
            sdk = self._sdk.copy(api_key=key, base_url=base)
            bare, credentials = _without_credentials(base)
            headers = _only_set({**sdk.default_headers, **sdk.auth_headers}) | credentials
            has_key = key != NO_KEY or bool(credentials)
            self._openai[base, key, path] = Destination(_below(bare, path), headers, has_key)
        return self._openai[base, key, path]


def count_tokens_url(messages_url: str) -> str:
    """Return the URL that counts the tokens of a message, given the URL that answers it."""
    return _below(messages_url, "/count_tokens")


def upstream_name(candidate: Candidate, api_format: ApiFormat) -> str:
    """Return the name by which the upstream of a candidate knows its model in this API."""
    name = candidate.model.partition("/")[2]
    return name.removeprefix(RESPONSES_PREFIX) if api_format is ApiFormat.OPENAI_RESPONSES else name


def _azure(candidate: Candidate, base: str | None, path: str) -> Destination:
    """Return where Azure serves the APIs of OpenAI under names of models, without `api-version`."""
    base = base or _from_environment(AZURE_BASES)
    if base is None:
        raise UpstreamNotFoundError(
            f"candidate {candidate.name!r} has no URL: set the environment variable AZURE_API_BASE on the service, or "
            f"write `api_base`."
        )
    key = key_of(candidate, base) or _from_environment(AZURE_KEYS)
    token = None if key else _from_environment(AZURE_TOKENS)
    bare, credentials = _without_credentials(base)
    headers = {"content-type": "application/json", "accept": "application/json", **credentials}
    headers |= {"authorization": f"Bearer {token}"} if token else {"api-key": key or NO_KEY}
    bare = bare.partition("/openai")[0] if "/openai" in urlsplit(bare).path else bare
    return Destination(f"{bare}/openai/v1{path}", headers, bool(token) or (key or NO_KEY) != NO_KEY)


def _from_environment(names: tuple[str, ...]) -> str | None:
    """Return the value of the first of these environment variables that is set, or None."""
    return next((value for name in names if (value := os.environ.get(name, "").strip())), None)


def _anthropic(candidate: Candidate, base: str | None, given: Mapping[str, str]) -> Destination:
    if base is None:
        base = _from_environment(_ANTHROPIC_BASES) or _ANTHROPIC_URL
    key = key_of(candidate, base) or os.environ.get("ANTHROPIC_API_KEY") or NO_KEY
    bare, credentials = _without_credentials(base)
    headers = {
        "content-type": "application/json",
        "accept": "application/json",
        "x-api-key": key,
        "anthropic-version": _ANTHROPIC_VERSION,
        **{name: given[name] for name in ANTHROPIC_HEADERS if name in given},
        **credentials,
    }
    parts = urlsplit(bare)
    root = parts._replace(path=parts.path.rstrip("/").removesuffix(_MESSAGES_PATH).removesuffix("/v1")).geturl()
    return Destination(_below(root, _MESSAGES_PATH), headers, key != NO_KEY or bool(credentials))


def _below(url: str, path: str) -> str:
    """Return the URL of a path below another one, whose query stays at the end, before that of the path."""
    parts = urlsplit(url)
    more, _, query = path.partition("?")
    queries = "&".join(filter(None, (parts.query, query)))
    return parts._replace(path=parts.path.rstrip("/") + more, query=queries).geturl()


def _without_credentials(base: str) -> tuple[str, dict[str, str]]:
    """Return a URL without the name and password in it, and the header that carries these instead."""
    parts = urlsplit(base)
    headers = {}
    if parts.username:
        password = unquote(parts.password or "")
        pair = base64.b64encode(f"{unquote(parts.username)}:{password}".encode()).decode()
        headers["Authorization"] = f"Basic {pair}"
        note_sent(pair, *forms_of_password(base))
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl().rstrip("/"), headers


def _only_set(headers: Mapping[str, Any]) -> dict[str, str]:
    """Return the headers without those that the SDK marks as left out."""
    return {name: value for name, value in headers.items() if isinstance(value, str)}
