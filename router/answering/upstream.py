"""Ask one candidate once, either in the API format of the request with the body as written or through LiteLLM."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
from collections.abc import AsyncGenerator, Collection, Mapping
from dataclasses import replace
from typing import Any

from router.answering.candidate_request import blaming_own_parameters, request_for
from router.answering.formats.answer_format import as_count
from router.answering.formats.chat_chunks import answer_to_translate, ready_to_translate
from router.answering.formats.lookup import format_of
from router.answering.formats.openai_chat import counts_of_chat
from router.answering.formats.openai_responses import ENDS_OF_KEPT
from router.answering.formats.reported_errors import error_in
from router.answering.formats.translating.translations import TRANSLATIONS, Translation
from router.answering.reading.answer_json import checked
from router.answering.reading.call_notes import CallNotes
from router.answering.reading.large_answers import apart, is_large
from router.answering.reading.sse import TAIL_S
from router.answering.upstreams import litellm_upstream
from router.answering.upstreams.destinations import RESPONSES_PREFIX, KeptCall
from router.answering.upstreams.direct_upstream import DirectUpstream
from router.answering.upstreams.litellm_upstream import LiteLLMUpstream
from router.asking.turns import has_unknown_parts
from router.errors import (
    DispatchError,
    DispatchNotInstalledError,
    UpstreamInterruptedError,
    UpstreamUnavailableError,
)
from router.policies.candidates.candidate import Candidate
from router.policies.credentials import CANNED_UPSTREAM
from router.policies.rules import (
    OPENAI_PREFIX,
    SECOND_PATHS,
    refused_parameters,
    speaks_anthropic,
    speaks_api,
    speaks_openai,
)
from router.values import ApiFormat, RouteQuery, SpokenApi

log = logging.getLogger(__name__)

#: For each API format that not every candidate of OpenAI's speaks, its name in a policy file.
_SPOKEN: Mapping[ApiFormat, SpokenApi] = {
    ApiFormat.OPENAI_RESPONSES: SpokenApi.RESPONSES,
    ApiFormat.OPENAI_COMPLETIONS: SpokenApi.COMPLETIONS,
    ApiFormat.OPENAI_EMBEDDINGS: SpokenApi.EMBEDDINGS,
}

_RESPONSES = format_of(ApiFormat.OPENAI_RESPONSES)

#: Parameters that translating Anthropic's API adds, and without which an answer is still one.
_ADDED_HINTS = frozenset({"parallel_tool_calls", "user"})


class Upstream:
    """Asks candidates directly in the API format of the request, or through LiteLLM, which translates between formats.

    It belongs to one event loop.

    Args:
        canned_url: base URL of the built-in upstream; None if no candidate uses it.
        translates: whether a candidate is asked through LiteLLM, whose first call imports for seconds.
        formats: the API formats, besides chat completions, in which requests come. What translates them is imported in
            `load`; for others that takes part of their first request.
    """

    def __init__(
        self,
        *,
        canned_url: str | None = None,
        translates: bool = True,
        formats: Collection[ApiFormat] = (),
    ) -> None:
        self._formats = formats
        self._translations: dict[ApiFormat, Translation] = {}
        self._translates = translates
        self._canned_url = canned_url
        self._direct: DirectUpstream | None = None
        self._litellm = LiteLLMUpstream()
        self._is_warm = False
        self._loading = asyncio.Lock()

    @property
    def is_loaded(self) -> bool:
        """Return whether `load` has done its work once."""
        return self._direct is not None

    def expect(self, *, canned_url: str | None, translates: bool) -> None:
        """Note that further candidates may be asked, which may need more than those before; see the class."""
        self._canned_url = self._canned_url or canned_url
        self._translates = self._translates or translates

    async def load(self) -> None:
        """Do outside the event loop what the first call would wait for, such as importing LiteLLM.

        Raises DispatchNotInstalledError.
        """
        if self._direct is None or self._must_warm_up:
            async with self._loading:
                await self._load_once()

    @property
    def _must_warm_up(self) -> bool:
        return self._translates and not self._is_warm

    async def _load_once(self) -> None:
        made = self._direct
        if made is None:
            await litellm_upstream.load()
            made = await DirectUpstream.create()
            for name in self._formats:
                await self._translation(name)
        if self._must_warm_up:
            await self._litellm.warm_up()
            self._is_warm = True
        self._direct = made

    async def _translation(self, name: ApiFormat) -> Translation | None:
        """Return the translation of an API format, imported, or None for a format that needs none or has none."""
        if name not in self._translations and (translation := TRANSLATIONS.get(name)) is not None:
            await asyncio.to_thread(translation.load)
            self._translations[name] = translation
        return self._translations.get(name)

    async def complete(self, candidate: Candidate, query: RouteQuery, notes: CallNotes | None = None) -> dict[str, Any]:
        """Return the answer in the API format of the request. Raises DispatchError; call `load` first.

        notes: what is learnt of the call; it counts the bytes of the answer for as long as the caller keeps it.
        """
        notes = notes or CallNotes()
        with blaming_own_parameters(candidate, query):
            answer = await self._answer(candidate, query, notes)
        if fault := format_of(query.api_format).fault_in(answer, streamed=False):
            raise UpstreamUnavailableError(f"{candidate.described} sent {fault}.")
        body: dict[str, Any] = answer
        return body

    async def _answer(self, candidate: Candidate, query: RouteQuery, notes: CallNotes) -> Any:
        base = self._base_url(candidate)
        if self._is_asked_directly(candidate, query):
            answer = await self._asked.complete(candidate, base, _request(candidate, query, notes), notes)
            if (report := error_in(answer)) is not None:
                raise await litellm_upstream.error_of_report(candidate, report, notes)
            return answer
        if (translation := await self._translation(query.api_format)) is not None:
            request = await _translated(translation, query, candidate, notes)
            chat = await self.complete(candidate, request.query, notes)
            notes.has_usage = counts_of_chat(chat) is not None
            return await apart(translation.answer_of, answer_to_translate(chat, request.model), request)
        asked = _request(candidate, query, notes)
        return await checked(await self._litellm.complete(candidate, base, asked, notes))

    async def stream(
        self, candidate: Candidate, query: RouteQuery, notes: CallNotes | None = None
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the chunks in the API format of the request. Closing it ends the call. See `complete`.

        Once the answer is whole, nothing that goes wrong behind it is an error: neither a connection that breaks, nor
        one that stays open, nor what cannot be read.
        """
        notes = notes or CallNotes()
        answers = format_of(query.api_format)
        watch, mend, has_content, is_whole = answers.watcher(), answers.mender(), False, False
        with blaming_own_parameters(candidate, query):
            async with contextlib.aclosing(self._chunks(candidate, query, notes)) as chunks:
                while True:
                    try:
                        async with asyncio.timeout(TAIL_S if is_whole else None):
                            chunk = await anext(chunks)
                        report, fault = error_in(chunk), answers.fault_in(chunk, streamed=True)
                        if fault and not report:
                            raise UpstreamUnavailableError(f"{candidate.described} sent {fault}.")
                    except StopAsyncIteration:
                        break
                    except (TimeoutError, DispatchError) as error:
                        if not is_whole:
                            raise
                        log.debug("candidate %s, behind its whole answer: %s", candidate.name, type(error).__name__)
                        break
                    if report:
                        raise await litellm_upstream.error_of_report(candidate, report, notes)
                    has_content, is_whole = has_content or answers.has_content(chunk), watch(chunk)
                    yield mend(chunk)
        if not is_whole and not (has_content and notes.is_done):
            raise UpstreamUnavailableError(
                f"{candidate.described} ended its stream in the middle of the answer, or sent none."
            )

    async def count_tokens(self, candidate: Candidate, query: RouteQuery) -> dict[str, Any]:
        """Return what a candidate counts that speaks Anthropic's API. Raises DispatchError; call `load` first."""
        counted = await self._asked.count_tokens(candidate, self._base_url(candidate), query)
        if not isinstance(counted, dict) or as_count(counted.get("input_tokens")) is None:
            raise UpstreamUnavailableError(f"{candidate.described} sent JSON that is no count of tokens.")
        return counted

    async def embed(self, candidate: Candidate, query: RouteQuery) -> dict[str, Any]:
        """Return the embeddings of a candidate that serves them. Raises DispatchError; call `load` first."""
        notes = CallNotes()
        answer = await self._asked.complete(candidate, self._base_url(candidate), query, notes)
        if (report := error_in(answer)) is not None:
            raise await litellm_upstream.error_of_report(candidate, report, notes)
        if not isinstance(answer, dict) or not isinstance(answer.get("data"), list):
            raise UpstreamUnavailableError(f"{candidate.described} sent JSON that holds no embeddings.")
        return answer

    async def ask_kept(self, candidate: Candidate, call: KeptCall, notes: CallNotes) -> dict[str, Any]:
        """Return what a candidate says about a response that it keeps. Raises DispatchError; call `load` first."""
        answer = await self._asked.ask_kept(candidate, self._base_url(candidate), call, notes)
        if not isinstance(answer, dict):
            raise UpstreamUnavailableError(f"{candidate.described} sent JSON that says nothing about a response.")
        return answer

    async def stream_kept(
        self, candidate: Candidate, call: KeptCall, notes: CallNotes
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the events of a response that a candidate keeps. Closing it ends the call. See `ask_kept`.

        Raises UpstreamInterruptedError if the events end before the response does.
        """
        is_whole = False
        events = self._asked.stream_kept(candidate, self._base_url(candidate), call, notes)
        async with contextlib.aclosing(events):
            async for event in events:
                if fault := _RESPONSES.fault_in(event, streamed=True):
                    raise UpstreamUnavailableError(f"{candidate.described} sent {fault}.")
                if event["type"] == "error" and (report := error_in(event)) is not None:
                    raise await litellm_upstream.error_of_report(candidate, report, notes)
                is_whole = is_whole or event["type"] in ENDS_OF_KEPT
                yield event
        if not is_whole and not notes.is_done:
            raise UpstreamInterruptedError(f"{candidate.described} ended its stream in the middle of the response.")

    async def _chunks(self, candidate: Candidate, query: RouteQuery, notes: CallNotes) -> AsyncGenerator[Any, None]:
        base = self._base_url(candidate)
        if self._is_asked_directly(candidate, query):
            chunks = self._asked.stream(candidate, base, _request(candidate, query, notes), notes)
        elif (translation := await self._translation(query.api_format)) is not None:
            request = await _translated(translation, query, candidate, notes)
            counted = _counted(self.stream(candidate, request.query, notes), notes)
            chunks = translation.events_of(ready_to_translate(counted, request.model), request)
        else:
            chunks = _checked(self._litellm.stream(candidate, base, _request(candidate, query, notes), notes))
        async with contextlib.aclosing(chunks):
            async for chunk in chunks:
                yield chunk

    async def aclose(self) -> None:
        """Close the connections to all upstreams."""
        if self._direct is not None:
            await self._direct.aclose()
        await self._litellm.aclose()

    @property
    def litellm(self) -> LiteLLMUpstream:
        """Return what asks candidates through LiteLLM."""
        return self._litellm

    @property
    def _asked(self) -> DirectUpstream:
        if self._direct is None:
            raise RuntimeError("load must be called first")
        return self._direct

    @staticmethod
    def _is_asked_directly(candidate: Candidate, query: RouteQuery) -> bool:
        if query.api_format is ApiFormat.ANTHROPIC_MESSAGES:
            return speaks_anthropic(candidate)
        if query.api_format is not ApiFormat.OPENAI_CHAT:
            return speaks_api(candidate, _SPOKEN[query.api_format])
        if not speaks_openai(candidate):
            # What LiteLLM cannot say in the provider's own format, some providers read in OpenAI's.
            is_second = candidate.model.partition("/")[0] in SECOND_PATHS
            return is_second and any(map(has_unknown_parts, query.messages))
        # A few models speak another API, to which LiteLLM then translates.
        name = candidate.model.removeprefix(OPENAI_PREFIX)
        return not name.startswith(RESPONSES_PREFIX) and not litellm_upstream.is_responses_model(name)

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


async def _checked(chunks: AsyncGenerator[Any, None]) -> AsyncGenerator[Any, None]:
    async with contextlib.aclosing(chunks):
        async for chunk in chunks:
            yield await checked(chunk)


async def _counted(chunks: AsyncGenerator[Any, None], notes: CallNotes) -> AsyncGenerator[Any, None]:
    """Yield the chunks of a chat, and note whether one of them says how many tokens there were."""
    notes.has_usage = False
    async with contextlib.aclosing(chunks):
        async for chunk in chunks:
            notes.has_usage = notes.has_usage or counts_of_chat(chunk) is not None
            yield chunk


async def _translated(translation: Translation, query: RouteQuery, candidate: Candidate, notes: CallNotes) -> Any:
    arguments = query, candidate.model
    if is_large((query.messages, query.parameters)):
        request = await apart(translation.to_chat, *arguments)
    else:
        request = translation.to_chat(*arguments)
    refused = _ADDED_HINTS & request.query.parameters.keys() & refused_parameters(candidate)
    notes.untranslated = (*request.lost, *sorted(refused))
    kept = {key: value for key, value in request.query.parameters.items() if key not in refused}
    return replace(request, query=replace(request.query, parameters=kept)) if refused else request


def _request(candidate: Candidate, query: RouteQuery, notes: CallNotes) -> RouteQuery:
    return request_for(candidate, query, notes.dropped)
