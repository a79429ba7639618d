"""Ask one candidate once through LiteLLM, which translates between providers. Only this serving file imports it.

LiteLLM lives in an event loop of its own (`LoopThread`). It imports modules during its first call, counts tokens, and
searches errors with regular expressions; each of these would hold up every other caller.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import functools
import gc
import importlib
import logging
import os
import sys
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from router.answering.formats.lookup import OPENAI_CHAT
from router.answering.upstreams.answer_budget import HeldAnswer
from router.answering.upstreams.candidate_keys import OTHER_CREDENTIALS, has_key, is_providers_own, key_of
from router.answering.upstreams.litellm_errors import Problem, translated
from router.answering.upstreams.loop_thread import LoopThread
from router.errors import (
    DispatchNotInstalledError,
    UpstreamDeniedError,
    UpstreamNotFoundError,
    UpstreamRejectedError,
)
from router.policies.policy_file import Candidate
from router.values import RouteQuery

if TYPE_CHECKING:
    from router.answering.upstreams.bounded_httpx import Call

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

#: LiteLLM's settings that would fetch tables from the network, at import or with the first call of a provider.
_LOCAL_TABLES = ("LITELLM_LOCAL_MODEL_COST_MAP", "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS", "LITELLM_LOCAL_BLOG_POSTS")

#: How much of an error LiteLLM is given to say what kind it is, from its beginning and from its end, in characters.
_HEAD, _TAIL = 3000, 1000

#: Providers that need no key in a variable.
_NO_USUAL_KEY = OTHER_CREDENTIALS | {"ollama", "ollama_chat"}

#: Variables that hold the URL, or a credential, of Azure. One of each is enough.
_AZURE_BASES = ("AZURE_API_BASE", "AZURE_OPENAI_ENDPOINT")
_AZURE_CREDENTIALS = (
    "AZURE_API_KEY", "AZURE_OPENAI_API_KEY", "AZURE_AD_TOKEN", "AZURE_OPENAI_AD_TOKEN", "AZURE_CLIENT_ID",
    "AZURE_USERNAME", "AZURE_CREDENTIAL", "AZURE_FEDERATED_TOKEN_FILE",
)  # fmt: skip


class LiteLLMUpstream:
    """Asks candidates through LiteLLM, in a thread of its own, which the first call starts."""

    def __init__(self) -> None:
        self._thread: LoopThread | None = None

    async def complete(
        self, candidate: Candidate, base: str | None, query: RouteQuery, held: HeldAnswer
    ) -> dict[str, Any]:
        """Return the answer in the OpenAI shape. `base` is the URL of the provider. Raises DispatchError."""

        async def work() -> dict[str, Any]:
            async with _calling(candidate, base, held, streamed=False) as call:
                response = await _litellm().acompletion(**_arguments(candidate, base, query))
                body: dict[str, Any] = response.model_dump(mode="json", exclude_none=True)
                call.aside.put_back(body)
                return body

        return await self._running().call(work)

    async def stream(
        self, candidate: Candidate, base: str | None, query: RouteQuery
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the chunks in the OpenAI shape. Closing it ends the call. Errors are those of `complete`."""

        async def work() -> AsyncGenerator[dict[str, Any], None]:
            async with _calling(candidate, base, HeldAnswer(), streamed=True):
                arguments = _arguments(candidate, base, query) | {"stream": True}
                if query.body is None:
                    arguments.setdefault("stream_options", {"include_usage": True})
                async with contextlib.aclosing(_chunks(await _litellm().acompletion(**arguments))) as chunks:
                    async for chunk in chunks:
                        yield chunk

        async with contextlib.aclosing(self._running().stream(work)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def warm_up(self) -> None:
        """Import now what LiteLLM would import in its first call, which takes about a second. No provider is asked."""

        async def work() -> None:
            tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
            hello = [{"role": "user", "content": "hello"}]
            mocked = {"model": "openai/warm-up", "messages": hello, "mock_response": "hello", "tools": [tool]}
            await _litellm().acompletion(**mocked)
            async for _ in await _litellm().acompletion(**mocked, stream=True):
                pass

        await self._running().call(work)

    async def aclose(self) -> None:
        """End the calls in flight, and close the connections."""
        if self._thread is not None:
            await self._thread.aclose(_litellm().close_litellm_async_clients)

    def _running(self) -> LoopThread:
        if self._thread is None:
            self._thread = LoopThread("litellm")
        return self._thread


async def _chunks(wrapper: Any) -> AsyncGenerator[dict[str, Any], None]:
    """Yield LiteLLM's chunks without the "stop" that it invents if the upstream sent none."""
    async with contextlib.aclosing(wrapper):
        async for chunk in wrapper:
            body = chunk.model_dump(mode="json", exclude_none=True)
            if wrapper.received_finish_reason is None and OPENAI_CHAT.is_finished(body):
                break
            yield body


async def load() -> None:
    """Import LiteLLM, which takes seconds, outside the event loop. Raises DispatchNotInstalledError."""
    if "litellm" not in sys.modules or not _import_litellm.cache_info().currsize:
        await asyncio.to_thread(_import_litellm)


def is_responses_model(name: str) -> bool:
    """Return whether LiteLLM's table says that OpenAI serves a model by another API than chat completions."""
    known = _litellm().model_cost.get(name) or {}
    return known.get("mode") == "responses"


async def kind_of_failure(model: str, provider: str, error: Any) -> Exception:
    """Return the exception as which LiteLLM classifies an error of the OpenAI SDK that a provider's answer became.

    LiteLLM knows in which words each provider says that a prompt is too long.
    """

    def classify() -> Exception:
        try:
            found: Exception = _litellm().exception_type(
                model=model, original_exception=error, custom_llm_provider=provider
            )
        except Exception as raised:
            return raised
        return found

    return await asyncio.to_thread(classify)


def excerpt(text: str) -> str:
    """Return the beginning and the end of an error's text, because LiteLLM takes a tenth of a second for 100 KB."""
    return text if len(text) <= _HEAD + _TAIL else f"{text[:_HEAD]} ... {text[-_TAIL:]}"


def problem_of(candidate: Candidate) -> Problem | None:
    """Return why LiteLLM cannot ask a candidate as it is configured, or None if no problem is known.

    Imports LiteLLM, which takes seconds. Raises DispatchNotInstalledError.
    """
    litellm = _import_litellm()
    try:
        _, provider, _, _ = litellm.get_llm_provider(model=candidate.model, api_base=candidate.api_base)
    except litellm.exceptions.BadRequestError:
        return Problem(
            UpstreamNotFoundError,
            f"candidate {candidate.name!r} names no provider that LiteLLM knows: its model is {candidate.model!r}, and "
            f"must begin with one, as in 'openai/gpt-4o'.",
        )
    if provider == "azure":
        return _problem_of_azure(candidate)
    if candidate.api_key_env is not None or provider in _NO_USUAL_KEY:
        return None
    missing = litellm.validate_environment(model=candidate.model)["missing_keys"]
    if not missing:
        return None
    return Problem(
        UpstreamDeniedError,
        f"candidate {candidate.name!r} has no key: the environment variable {' or '.join(missing)} is not set on the "
        f"service. Set it, or name another one in the candidate's `api_key_env`.",
    )


def _problem_of_azure(candidate: Candidate) -> Problem | None:
    missing = []
    if candidate.api_base is None and not any(map(os.environ.get, _AZURE_BASES)):
        missing.append("no URL (set the environment variable AZURE_API_BASE on the service, or write `api_base`)")
    if candidate.api_key_env is None:
        if not is_providers_own(candidate, candidate.api_base):
            missing.append("no key (name its variable in `api_key_env`: AZURE_API_KEY is only sent to hosts of Azure)")
        elif not any(map(os.environ.get, _AZURE_CREDENTIALS)):
            missing.append("no key (set AZURE_API_KEY on the service, or name another variable in `api_key_env`)")
    if not missing:
        return None
    return Problem(UpstreamDeniedError, f"candidate {candidate.name!r} has {' and '.join(missing)}.")


_known_problem = functools.lru_cache(maxsize=1024)(problem_of)


@contextlib.asynccontextmanager
async def _calling(candidate: Candidate, base: str | None, held: HeldAnswer, *, streamed: bool) -> AsyncIterator[Call]:
    """Bound the answers, and turn what LiteLLM raises into errors of ours. Yield the notes on the call.

    A request that LiteLLM cannot even build is its caller's fault, unless the candidate cannot be sent the plainest one
    either.
    """
    from router.answering.upstreams.bounded_httpx import Call, Phase, bounded

    call = Call(candidate.max_answer_bytes, streamed, has_key(candidate, base), held=held)
    problem = _known_problem(candidate.model_copy(update={"api_base": base}))
    # Without a key a call may still be worth trying: some servers want none.
    if problem is not None and problem.kind is UpstreamNotFoundError:
        raise problem.error()
    try:
        with translated(f"candidate {candidate.name!r} ({candidate.model})", call, problem), bounded(call):
            yield call
    except UpstreamRejectedError:
        if call.phase is Phase.BUILDING and (why := await _rehearse(candidate, base)) is not None:
            message = f"candidate {candidate.name!r} ({candidate.model}) cannot be asked as it is set up: {why}."
            raise Problem(UpstreamNotFoundError, message).error() from None
        raise
    finally:
        # LiteLLM's own tasks keep the context of a call, and with it the notes, for as long as they live.
        call.held = HeldAnswer()
        if streamed:
            held.release()


async def _rehearse(candidate: Candidate, base: str | None) -> str | None:
    """Return why LiteLLM cannot build the plainest request for a candidate; None if it can. Nothing is sent."""
    from router.answering.upstreams.bounded_httpx import Call, Phase, bounded

    call = Call(candidate.max_answer_bytes, streamed=False, is_rehearsal=True)
    try:
        with bounded(call):
            await _litellm().acompletion(**_arguments(candidate, base, RouteQuery.from_prompt("hello")))
    except Exception as error:
        # Of what LiteLLM says only its kind: the words may hold a key.
        return None if call.phase > Phase.BUILDING else f"LiteLLM builds no request for it ({type(error).__name__})"
    return None


def _arguments(candidate: Candidate, base: str | None, query: RouteQuery) -> dict[str, Any]:
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
    if query.headers:
        arguments["extra_headers"] = query.headers
    if base is not None:
        arguments["api_base"] = base
    if (key := key_of(candidate, base)) is not None:
        arguments["api_key"] = key
    return arguments


def _is_openai_shaped(model: str) -> bool:
    """Return whether LiteLLM spreads `extra_body` over the body that it sends."""
    litellm = _litellm()
    try:
        _, provider, _, _ = litellm.get_llm_provider(model)
    except litellm.BadRequestError:
        # LiteLLM's own word on a model that it does not know comes with the call.
        return False
    return provider in {"openai", "azure", "text-completion-openai", *litellm.openai_compatible_providers}


def _litellm() -> Any:
    return sys.modules["litellm"]


#: A request that gives up leaves its import running, and two at once see each other's modules half made.
_IMPORTING = threading.Lock()


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Switch the garbage collector off within this context, and then exempt the imported objects from it.

    The import makes half a million objects, which stay. The collector looks through all of them again and again, a
    tenth of a second at a time, during which no other thread runs.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


@functools.cache
def _import_litellm() -> Any:
    for name in _LOCAL_TABLES:
        os.environ.setdefault(name, "True")
    try:
        with _IMPORTING, _no_collection():
            litellm: Any = importlib.import_module("litellm")
            importlib.import_module("router.answering.upstreams.bounded_httpx")
    except ImportError as error:
        raise DispatchNotInstalledError("answering needs LiteLLM, which is not installed.") from error
    litellm.suppress_debug_info = True
    litellm.turn_off_message_logging = True
    # Streams whose provider counts no tokens are counted here; for some models LiteLLM asks a hub for a tokenizer.
    litellm.disable_hf_tokenizer_download = True
    # It logs every URL, and a password may stand in one.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    return litellm
