"""One candidate asked once, through LiteLLM. The only file that serves and imports LiteLLM, and only when first needed.

Candidates `openai/...` with an `api_base` speak the caller's own language: they get its body byte for byte but for
`model`, and what they answer is handed back as it came. `upstream_http` makes that call with the headers of the
OpenAI SDK, which reads streams, and LiteLLM says what kind of failure one is; none rewrites prompt or answer. All
others are LiteLLM's to call and translate.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import copy
import importlib
import importlib.util
import json
import os
import sys
import threading
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from router import errors, plain_json
from router.answering.litellm_errors import translated
from router.answering.upstream_http import UpstreamHttp
from router.errors import DispatchNotInstalledError, InvalidRequestError, UpstreamUnavailableError
from router.policies.policy_file import CANNED_UPSTREAM, Candidate
from router.values import RouteQuery

#: Bodies of so many bytes are put together outside the event loop.
_ELSEWHERE_BYTES = 1024 * 1024

#: Fields of the OpenAI body that LiteLLM translates between providers. Everything else a caller sends travels as
#: `extra_body`: LiteLLM's own keywords (`api_base`, `api_key`, `mock_response`, ...) must not be a caller's to set.
#: Providers whose API is not OpenAI's do not get it: LiteLLM would send them a field of that name, which they refuse.
TRANSLATED_FIELDS = frozenset(
    {
        *("audio", "frequency_penalty", "function_call", "functions", "logit_bias", "logprobs"),
        *("max_completion_tokens", "max_tokens", "modalities", "n", "parallel_tool_calls", "prediction"),
        *("presence_penalty", "reasoning_effort", "response_format", "seed", "service_tier", "stop"),
        *("stream_options", "temperature", "tool_choice", "tools", "top_logprobs", "top_p", "user", "verbosity"),
        "web_search_options",
    }
)

#: LiteLLM's prefix of providers that speak the OpenAI chat API.
OPENAI_PREFIX = "openai/"


@dataclass(frozen=True, slots=True)
class _Line:
    """Where a candidate is asked, with the headers of the OpenAI SDK, whose client reads streams and never connects."""

    url: str
    headers: Mapping[str, str]
    sdk: Any


class Upstream:
    """Asks candidates, over one pool of connections. Belongs to one event loop.

    Args:
        canned_url: base URL of the built-in upstream; None if no candidate uses it.
    """

    def __init__(self, *, canned_url: str | None = None) -> None:
        self._canned_url = canned_url
        self._http: UpstreamHttp | None = None
        self._sdk: Any = None
        self._lines: dict[tuple[str, str], _Line] = {}

    async def load(self) -> None:
        """Import LiteLLM, which takes seconds, outside the event loop. Raises DispatchNotInstalledError."""
        if self._http is None:
            await asyncio.to_thread(_import_litellm)
            if self._http is None:
                self._sdk = importlib.import_module("openai").AsyncOpenAI(api_key="none")
                self._http = UpstreamHttp()

    async def complete(self, candidate: Candidate, query: RouteQuery) -> dict[str, Any]:
        """The answer in the OpenAI shape. Raises DispatchError; call `load` first."""
        with translated(_say(candidate)):
            if not self._is_openai(candidate):
                response = await _litellm().acompletion(**self._arguments(candidate, query))
                translated_body: dict[str, Any] = response.model_dump(mode="json", exclude_none=True)
                _check_plain(translated_body, candidate)
                _check_completion(translated_body, candidate)
                return translated_body
            content = await self._post(candidate, await _body_of(candidate, query, stream=False), streamed=False)
            try:
                body: Any = plain_json.loads(content)
            except plain_json.NotPlainJsonError as error:
                raise _not_plain(candidate, error) from error
            _check_completion(body, candidate)
            answer: dict[str, Any] = body
            return answer

    async def stream(self, candidate: Candidate, query: RouteQuery) -> AsyncGenerator[dict[str, Any], None]:
        """The chunks of the answer in the OpenAI shape. Closing it ends the call. Errors as `complete`."""
        with translated(_say(candidate)):
            if not self._is_openai(candidate):
                arguments = self._arguments(candidate, query) | {"stream": True}
                if query.body is None:
                    arguments.setdefault("stream_options", {"include_usage": True})
                chunks = _litellm_chunks(await _litellm().acompletion(**arguments), candidate)
            else:
                body = await _body_of(candidate, query, stream=True)
                chunks = _sdk_chunks(await self._post(candidate, body, streamed=True), candidate)
            async with contextlib.aclosing(chunks):
                async for chunk in chunks:
                    yield chunk

    async def aclose(self) -> None:
        """Close the connections."""
        if self._http is not None:
            await self._http.aclose()
            await self._sdk.close()
            await _litellm().close_litellm_async_clients()

    async def _post(self, candidate: Candidate, body: bytes, *, streamed: bool) -> Any:
        """The body of the answer, or the SDK's stream of chunks over it."""
        openai, http = importlib.import_module("openai"), self._http
        if http is None:
            raise RuntimeError("load must be called first")
        line = self._line(candidate)
        answered = await http.post(line.url, body, line.headers, timeout_s=candidate.timeout_s)
        if not answered.is_success:
            response = await answered.whole()
            error = openai.APIStatusError(
                f"HTTP status {response.status_code}: {response.text}", response=response, body=None
            )
            raise _said_by_litellm(candidate, error) from error
        if not streamed:
            return await answered.read()
        chunk = importlib.import_module("openai.types.chat").ChatCompletionChunk
        return openai.AsyncStream(cast_to=chunk, response=answered.streamed(), client=line.sdk)

    def _line(self, candidate: Candidate) -> _Line:
        # Servers of one's own often want no key, but the SDK does.
        key = _secret(candidate) or os.environ.get("OPENAI_API_KEY") or "none"
        base = self._base_url(candidate)
        if (base, key) not in self._lines:
            sdk = self._sdk.copy(api_key=key, base_url=base)
            headers, parts = _only_set({**sdk.default_headers, **sdk.auth_headers}), urlsplit(base)
            if parts.username:
                pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
                headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
            bare = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
            self._lines[base, key] = _Line(f"{bare.rstrip('/')}/chat/completions", headers, sdk)
        return self._lines[base, key]

    def _is_openai(self, candidate: Candidate) -> bool:
        if not candidate.model.startswith(OPENAI_PREFIX) or candidate.api_base is None:
            return False
        # A few models speak another API, to which LiteLLM then translates.
        name = candidate.model.removeprefix(OPENAI_PREFIX)
        known = _litellm().model_cost.get(name) or {}
        return not name.startswith("responses/") and known.get("mode") != "responses"

    def _base_url(self, candidate: Candidate) -> str:
        if candidate.api_base != CANNED_UPSTREAM:
            return candidate.api_base or ""
        if self._canned_url is None:
            raise UpstreamUnavailableError("the built-in canned upstream is not running.")
        return self._canned_url

    def _arguments(self, candidate: Candidate, query: RouteQuery) -> dict[str, Any]:
        passed = {key: value for key, value in query.parameters.items() if key in TRANSLATED_FIELDS}
        extra = {key: value for key, value in query.parameters.items() if key not in TRANSLATED_FIELDS}
        arguments: dict[str, Any] = {
            # LiteLLM rewrites messages in place; the next candidate must get them as they were.
            **copy.deepcopy(passed),
            "messages": [copy.deepcopy(dict(message)) for message in query.messages],
            "model": candidate.model,
            # Always the same for a candidate: LiteLLM keeps a pool of connections for every timeout it sees.
            "timeout": candidate.timeout_s,
            "max_retries": 0,
        }
        if extra and _is_openai_shaped(candidate.model):
            arguments["extra_body"] = copy.deepcopy(extra)
        elif isinstance(metadata := extra.get("metadata"), Mapping) and isinstance(metadata.get("user_id"), str):
            # Anthropic's name for what OpenAI calls `user`, which LiteLLM translates.
            arguments.setdefault("user", metadata["user_id"])
        if candidate.api_base is not None:
            arguments["api_base"] = self._base_url(candidate)
        if (key := _secret(candidate)) is not None:
            arguments["api_key"] = key
        return arguments


async def _body_of(candidate: Candidate, query: RouteQuery, *, stream: bool) -> bytes:
    if query.body is None or sum(map(len, query.body)) < _ELSEWHERE_BYTES:
        return _body(candidate, query, stream=stream)
    # Copying pictures takes its time, in which others may have their turn.
    return await asyncio.to_thread(_body, candidate, query, stream=stream)


def _body(candidate: Candidate, query: RouteQuery, *, stream: bool) -> bytes:
    """The caller's body with the candidate's model; where there is none, one serialised as the OpenAI SDK does."""
    model = candidate.model.removeprefix(OPENAI_PREFIX)
    if query.body is not None:
        before, behind = query.body
        return b"".join((before, json.dumps(model).encode(), behind))
    fields: dict[str, Any] = {
        "messages": query.messages,
        "model": model,
        **({"stream": True} if stream else {}),
        **query.parameters,
    }
    if stream:
        fields.setdefault("stream_options", {"include_usage": True})
    try:
        text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=dict)
        return text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        # The encoder's own words may quote the prompt.
        raise InvalidRequestError(
            "messages and parameters must be plain JSON values whose strings are valid Unicode."
        ) from error


async def _litellm_chunks(wrapper: Any, candidate: Candidate) -> AsyncGenerator[dict[str, Any], None]:
    """LiteLLM's chunks, but for the "stop" that it makes up where the upstream sent none."""
    async with contextlib.aclosing(wrapper):
        async for chunk in wrapper:
            body = chunk.model_dump(mode="json", exclude_none=True)
            _check_plain(body, candidate)
            if wrapper.received_finish_reason is None and _is_finished(body):
                break
            yield body
    if wrapper.received_finish_reason is None:
        raise _broken_off(candidate)


async def _sdk_chunks(stream: Any, candidate: Candidate) -> AsyncGenerator[dict[str, Any], None]:
    """The SDK's own chunks, as they came."""
    finished = False
    try:
        async for chunk in stream:
            if not hasattr(chunk, "to_dict"):
                raise UpstreamUnavailableError(f"{_say(candidate)} sent a chunk that is no JSON object.")
            # Not in mode "json", which makes null of NaN and fails at half surrogates.
            body = chunk.to_dict(mode="python", warnings=False)
            _check_plain(body, candidate)
            _check_choices(body, candidate, "delta")
            finished = finished or _is_finished(body)
            yield body
    except (ValueError, RecursionError) as error:
        # The SDK decodes events by itself.
        raise _not_plain(candidate, error) from error
    finally:
        await stream.close()
    if not finished:
        raise _broken_off(candidate)


def _is_finished(chunk: Mapping[str, Any]) -> bool:
    return any(choice.get("finish_reason") for choice in chunk.get("choices") or ())


def _broken_off(candidate: Candidate) -> UpstreamUnavailableError:
    return UpstreamUnavailableError(f"{_say(candidate)} ended its stream in the middle of the answer, or sent none.")


def _check_completion(body: Any, candidate: Candidate) -> None:
    _check_choices(body, candidate, "message")
    if not body["choices"]:
        raise UpstreamUnavailableError(f"{_say(candidate)} sent an answer without choices.")


def _check_choices(body: Any, candidate: Candidate, part: str) -> None:
    choices = body.get("choices") if isinstance(body, dict) else None
    if not isinstance(choices, list) or not all(
        isinstance(choice, dict) and isinstance(choice.get(part), dict | None) for choice in choices
    ):
        raise UpstreamUnavailableError(f"{_say(candidate)} sent JSON that is no chat completion.")


def _check_plain(body: Any, candidate: Candidate) -> None:
    try:
        plain_json.check(body)
    except plain_json.NotPlainJsonError as error:
        raise _not_plain(candidate, error) from error


def _not_plain(candidate: Candidate, error: Exception) -> UpstreamUnavailableError:
    # What another JSON reader says may quote the answer; what ours says does not.
    why = error if isinstance(error, plain_json.NotPlainJsonError) else "it is malformed"
    return UpstreamUnavailableError(f"{_say(candidate)} sent an answer that is no plain JSON: {why}.")


def _secret(candidate: Candidate) -> str | None:
    if candidate.api_key_env is None:
        return None
    # Mounted secrets end in a line feed often enough.
    value = os.environ.get(candidate.api_key_env, "").strip()
    if not value:
        raise errors.UpstreamDeniedError(
            f"candidate {candidate.name!r} takes its key from the environment variable {candidate.api_key_env}, which "
            f"is not set on the service."
        )
    return value


def _is_openai_shaped(model: str) -> bool:
    """Whether LiteLLM spreads `extra_body` over the body that it sends."""
    litellm = _litellm()
    try:
        _, provider, _, _ = litellm.get_llm_provider(model)
    except litellm.BadRequestError:
        # LiteLLM's own word on a model that it does not know comes with the call.
        return False
    return provider in {"openai", "azure", "text-completion-openai", *litellm.openai_compatible_providers}


def _say(candidate: Candidate) -> str:
    return f"candidate {candidate.name!r} ({candidate.model})"


def _only_set(headers: Mapping[str, Any]) -> dict[str, str]:
    """Without those that the SDK marks as left out."""
    return {name: value for name, value in headers.items() if isinstance(value, str)}


def _said_by_litellm(candidate: Candidate, error: Exception) -> Exception:
    """What LiteLLM makes of the SDK's error: it knows in which words providers say that a prompt is too long."""
    try:
        found: Exception = _litellm().exception_type(
            model=candidate.model, original_exception=error, custom_llm_provider="openai"
        )
    except Exception as raised:
        return raised
    return found


def _litellm() -> Any:
    return sys.modules["litellm"]


def check_installed() -> None:
    """Raise DispatchNotInstalledError where LiteLLM cannot be found. Imports nothing."""
    if importlib.util.find_spec("litellm") is None:
        raise DispatchNotInstalledError("answering needs LiteLLM, which is not installed.")


#: A request that gives up leaves its import running, and two at once see each other's modules half made.
_IMPORTING = threading.Lock()


def _import_litellm() -> None:
    # Without this the import itself fetches a price table from the network.
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    try:
        with _IMPORTING:
            litellm: Any = importlib.import_module("litellm")
            # The SDK imports it with the first call, a second in the event loop.
            importlib.import_module("openai.resources.chat")
    except ImportError as error:
        raise DispatchNotInstalledError("answering needs LiteLLM, which is not installed.") from error
    litellm.suppress_debug_info = True
    litellm.turn_off_message_logging = True
