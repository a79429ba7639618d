"""Ask one candidate once, either over OpenAI's protocol with the body as written or through LiteLLM."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
from collections.abc import AsyncGenerator
from typing import Any

from router.answering.upstreams import litellm_upstream
from router.answering.upstreams.answer_budget import HeldAnswer
from router.answering.upstreams.answer_json import checked
from router.answering.upstreams.litellm_upstream import LiteLLMUpstream, is_finished
from router.answering.upstreams.openai_upstream import OPENAI_PREFIX, OpenAIUpstream, speaks_openai
from router.errors import DispatchNotInstalledError, UpstreamUnavailableError
from router.policies.credentials import CANNED_UPSTREAM
from router.policies.policy_file import Candidate
from router.values import RouteQuery


class Upstream:
    """Asks candidates over OpenAI's own protocol or through LiteLLM, whichever the candidate's model needs.

    It belongs to one event loop.

    Args:
        canned_url: base URL of the built-in upstream; None if no candidate uses it.
        translates: whether a candidate is asked through LiteLLM, whose first call imports for seconds.
    """

    def __init__(self, *, canned_url: str | None = None, translates: bool = True) -> None:
        self._translates = translates
        self._canned_url = canned_url
        self._openai: OpenAIUpstream | None = None
        self._litellm = LiteLLMUpstream()
        self._loading = asyncio.Lock()

    async def load(self) -> None:
        """Do outside the event loop what the first call would wait for, such as importing LiteLLM.

        Raises DispatchNotInstalledError.
        """
        if self._openai is None:
            async with self._loading:
                await self._load_once()

    async def _load_once(self) -> None:
        if self._openai is None:
            await litellm_upstream.load()
            made = await OpenAIUpstream.create()
            if self._translates:
                await self._litellm.warm_up()
            self._openai = made

    async def complete(self, candidate: Candidate, query: RouteQuery, held: HeldAnswer | None = None) -> dict[str, Any]:
        """Return the answer in the OpenAI shape. Raises DispatchError; call `load` first.

        held: counts the bytes of the answer for as long as the caller keeps it.
        """
        base, held = self._base_url(candidate), held or HeldAnswer()
        if self._is_openai(candidate):
            body = await self._asked.complete(candidate, base or "", query, held)
        else:
            body = await checked(await self._litellm.complete(candidate, base, query, held))
        _check_choices(body, candidate, "message")
        if not body["choices"]:
            raise UpstreamUnavailableError(f"{_say(candidate)} sent an answer without choices.")
        answer: dict[str, Any] = body
        return answer

    async def stream(self, candidate: Candidate, query: RouteQuery) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the chunks in the OpenAI shape. Closing it ends the call. Errors are those of `complete`."""
        base, finished = self._base_url(candidate), False
        if self._is_openai(candidate):
            chunks = self._asked.stream(candidate, base or "", query)
        else:
            chunks = self._litellm.stream(candidate, base, query)
        async with contextlib.aclosing(chunks):
            async for chunk in chunks:
                if isinstance(chunk, dict) and chunk.get("error"):
                    raise UpstreamUnavailableError(f"{_say(candidate)} sent an error in the middle of its stream.")
                _check_choices(await checked(chunk), candidate, "delta")
                finished = finished or is_finished(chunk)
                yield chunk
        if not finished:
            raise UpstreamUnavailableError(
                f"{_say(candidate)} ended its stream in the middle of the answer, or sent none."
            )

    async def aclose(self) -> None:
        """Close the connections to all upstreams."""
        if self._openai is not None:
            await self._openai.aclose()
        await self._litellm.aclose()

    @property
    def _asked(self) -> OpenAIUpstream:
        if self._openai is None:
            raise RuntimeError("load must be called first")
        return self._openai

    def _is_openai(self, candidate: Candidate) -> bool:
        if not speaks_openai(candidate):
            return False
        # A few models speak another API, to which LiteLLM then translates.
        name = candidate.model.removeprefix(OPENAI_PREFIX)
        return not name.startswith("responses/") and not litellm_upstream.is_responses_model(name)

    def _base_url(self, candidate: Candidate) -> str | None:
        if candidate.api_base != CANNED_UPSTREAM:
            return candidate.api_base
        if self._canned_url is None:
            raise UpstreamUnavailableError("the built-in canned upstream is not running.")
        return self._canned_url


def check_installed() -> None:
    """Raise DispatchNotInstalledError if LiteLLM cannot be found. Nothing is imported."""
    if importlib.util.find_spec("litellm") is None:
        raise DispatchNotInstalledError("answering needs LiteLLM, which is not installed.")


def _check_choices(body: Any, candidate: Candidate, part: str) -> None:
    choices = body.get("choices") if isinstance(body, dict) else None
    if not isinstance(choices, list) or not all(
        isinstance(choice, dict) and isinstance(choice.get(part), dict | None) for choice in choices
    ):
        raise UpstreamUnavailableError(f"{_say(candidate)} sent JSON that is no chat completion.")


def _say(candidate: Candidate) -> str:
    return f"candidate {candidate.name!r} ({candidate.model})"
