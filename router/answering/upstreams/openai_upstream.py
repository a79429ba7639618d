"""Ask one candidate once over OpenAI's own API, with request and answer passed on as they were written.

Candidates `openai/...` with an `api_base` get the caller's body byte for byte but for `model`, with the headers of the
OpenAI SDK. LiteLLM is only asked what kind of failure one is.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import importlib
import json
import os
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from router.answering.upstreams import litellm_upstream
from router.answering.upstreams.answer_budget import HeldAnswer
from router.answering.upstreams.answer_json import decoded
from router.answering.upstreams.candidate_keys import NO_KEY, key_of
from router.answering.upstreams.large_answers import apart, is_large, json_in_pieces
from router.answering.upstreams.litellm_errors import translated, wants_a_key
from router.answering.upstreams.litellm_upstream import excerpt
from router.answering.upstreams.sse import data_of_events
from router.answering.upstreams.upstream_http import Answered, Body, UpstreamHttp, trusted_authorities
from router.errors import InvalidRequestError
from router.policies.policy_file import Candidate
from router.values import RouteQuery

if TYPE_CHECKING:
    import ssl

#: LiteLLM's prefix of providers that speak the OpenAI chat API.
OPENAI_PREFIX = "openai/"


@dataclass(frozen=True, slots=True)
class _Destination:
    """Holds the URL and the headers with which a candidate is asked; they are the same as the OpenAI SDK's."""

    url: str
    headers: Mapping[str, str]
    has_key: bool


class OpenAIUpstream:
    """Asks candidates over a pool of connections. It belongs to the event loop in which `create` made it."""

    def __init__(self, sdk: Any, http: UpstreamHttp) -> None:
        self._openai: Any = importlib.import_module("openai")
        self._sdk, self._http = sdk, http
        self._destinations: dict[tuple[str, str], _Destination] = {}

    @classmethod
    async def create(cls) -> OpenAIUpstream:
        """Return a new instance; everything that takes time is done in a thread. LiteLLM must be loaded."""

        def prepare() -> tuple[Any, ssl.SSLContext]:
            trusted = trusted_authorities()
            # It is asked for headers only; its own client would read the authorities once more.
            client = importlib.import_module("httpx").AsyncClient(verify=trusted)
            return importlib.import_module("openai").AsyncOpenAI(api_key=NO_KEY, http_client=client), trusted

        sdk, trusted = await asyncio.to_thread(prepare)
        return cls(sdk, UpstreamHttp(trusted))

    async def complete(self, candidate: Candidate, base: str, query: RouteQuery, held: HeldAnswer) -> Any:
        """Return the JSON value that the upstream answers with, before anything in it is checked.

        Raises DispatchError.
        """
        with translated(_say(candidate)):
            answered = await self._post(candidate, base, query, stream=False)
            return await decoded(await answered.read(candidate.max_answer_bytes, held))

    async def stream(self, candidate: Candidate, base: str, query: RouteQuery) -> AsyncGenerator[Any, None]:
        """Yield the JSON values of the stream. Closing it ends the call. Errors are those of `complete`."""
        with translated(_say(candidate)):
            answered = await self._post(candidate, base, query, stream=True)
            held = HeldAnswer()
            try:
                events = data_of_events(answered.parts(), max_bytes=candidate.max_answer_bytes, held=held)
                async with contextlib.aclosing(events):
                    async for data in events:
                        if data.startswith(b"[DONE]"):
                            break
                        yield await decoded(data)
            finally:
                held.release()
                answered.close()

    async def aclose(self) -> None:
        """Close the connections to the upstreams."""
        await self._http.aclose()
        await self._sdk.close()

    async def _post(self, candidate: Candidate, base: str, query: RouteQuery, *, stream: bool) -> Answered:
        body = await _body(candidate, query, stream=stream)
        destination = self._destination(candidate, base)
        headers = {**destination.headers, **query.headers}
        answered = await self._http.post(destination.url, body, headers, timeout_s=candidate.timeout_s)
        if not answered.is_success:
            raise await self._refusal(candidate, destination, answered)
        return answered

    async def _refusal(self, candidate: Candidate, destination: _Destination, answered: Answered) -> Exception:
        """Return the error that LiteLLM would raise for an unsuccessful answer."""
        body = await answered.error_body()
        if answered.status == 401 and not destination.has_key:
            return wants_a_key(_say(candidate))
        httpx = importlib.import_module("httpx")
        response = httpx.Response(
            answered.status, headers=answered.headers, content=body, request=httpx.Request("POST", destination.url)
        )
        message = f"HTTP status {answered.status}: {excerpt(body.decode(errors='replace'))}"
        error = self._openai.APIStatusError(message, response=response, body=None)
        found = await litellm_upstream.kind_of_failure(candidate.model, error)
        found.__cause__ = error
        return found

    def _destination(self, candidate: Candidate, base: str) -> _Destination:
        key = key_of(candidate, base) or os.environ.get("OPENAI_API_KEY") or NO_KEY
        if (base, key) not in self._destinations:
            sdk = self._sdk.copy(api_key=key, base_url=base)
            headers, parts = _only_set({**sdk.default_headers, **sdk.auth_headers}), urlsplit(base)
            if parts.username:
                pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
                headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
            bare = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
            has_key = key != NO_KEY or bool(parts.username)
            self._destinations[base, key] = _Destination(f"{bare.rstrip('/')}/chat/completions", headers, has_key)
        return self._destinations[base, key]


def speaks_openai(candidate: Candidate) -> bool:
    """Return whether a candidate is asked by our own client over OpenAI's protocol, without LiteLLM.

    A few models that OpenAI serves by another API are not.
    """
    return candidate.model.startswith(OPENAI_PREFIX) and candidate.api_base is not None


async def _body(candidate: Candidate, query: RouteQuery, *, stream: bool) -> Body:
    """Return the caller's body with the candidate's model, or else one that is serialised as the OpenAI SDK does."""
    model = candidate.model.removeprefix(OPENAI_PREFIX)
    if query.body is not None:
        before, behind = query.body
        return before, json.dumps(model).encode(), behind
    fields: dict[str, Any] = {
        "messages": query.messages,
        "model": model,
        **({"stream": True} if stream else {}),
        **query.parameters,
    }
    if stream:
        fields.setdefault("stream_options", {"include_usage": True})
    try:
        if is_large(fields):
            return (await apart(functools.partial(json_in_pieces, ascii_only=False), fields),)
        text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=dict)
        return (text.encode(),)
    except (TypeError, ValueError, RecursionError) as error:
        # The encoder's own words may quote the prompt.
        raise InvalidRequestError(
            "messages and parameters must be plain JSON values whose strings are valid Unicode."
        ) from error


def _say(candidate: Candidate) -> str:
    return f"candidate {candidate.name!r} ({candidate.model})"


def _only_set(headers: Mapping[str, Any]) -> dict[str, str]:
    """Return the headers without those that the SDK marks as left out."""
    return {name: value for name, value in headers.items() if isinstance(value, str)}
