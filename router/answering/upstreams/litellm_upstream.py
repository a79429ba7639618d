"""Ask one candidate once through LiteLLM, which translates between providers. Only this serving file imports it.

LiteLLM lives in an event loop of its own (`LoopThread`). It imports modules during its first call, counts tokens, and
searches errors with regular expressions; each of these would hold up every other caller.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TYPE_CHECKING, Any

from router.answering.formats.chat_chunks import has_ended
from router.answering.formats.lookup import OPENAI_CHAT
from router.answering.formats.reported_errors import ReportedError
from router.answering.reading.call_notes import CallNotes
from router.answering.upstreams.candidate_keys import OTHER_CREDENTIALS, has_key
from router.answering.upstreams.litellm_errors import Problem, of_report, root_of, translated
from router.answering.upstreams.litellm_import import import_litellm
from router.answering.upstreams.litellm_problems import import_for, problem_in_rehearsal, problem_of, provider_of
from router.answering.upstreams.litellm_request import additions_of, arguments_of, without_long_texts
from router.errors import DispatchError, UpstreamNotFoundError
from router.intake.loop_turns import Pace
from router.loop_thread import LoopThread
from router.policies.candidates.candidate import Candidate
from router.values import RouteQuery

if TYPE_CHECKING:
    from router.answering.upstreams.litellm_call import Call

#: The providers whose requests may go to OpenAI's own host. LiteLLM sends those of others there if they have no URL.
_OPENAI = frozenset({"openai", "text-completion-openai"})

#: Seconds that LiteLLM may take to build a request that is not sent.
_REHEARSAL_S = 10.0

#: How much longer reading a chunk takes in LiteLLM than a byte, as `Pace` counts work: four chunks take a millisecond.
CHUNK_WORK = 64 * 1024

#: How much of an error LiteLLM is given to say what kind it is, from its beginning and from its end, in characters.
_HEAD, _TAIL = 3000, 1000


class LiteLLMUpstream:
    """Asks candidates through LiteLLM, in a thread of its own, which the first call starts."""

    def __init__(self) -> None:
        self._thread: LoopThread | None = None

    async def complete(
        self, candidate: Candidate, base: str | None, query: RouteQuery, notes: CallNotes
    ) -> dict[str, Any]:
        """Return the answer in the OpenAI shape. `base` is the URL of the provider. Raises DispatchError."""

        async def work() -> dict[str, Any]:
            async with _calling(candidate, base, query, notes, streamed=False) as (call, light):
                response = await import_litellm().acompletion(**arguments_of(candidate, base, light))
                body: dict[str, Any] = response.model_dump(mode="json", exclude_none=True)
                call.aside.put_back(body)
                return body if call.has_usage else _without_usage(body)

        return await self._running().call(work)

    async def stream(
        self, candidate: Candidate, base: str | None, query: RouteQuery, notes: CallNotes
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the chunks in the OpenAI shape. Closing it ends the call. Errors are those of `complete`."""

        async def work() -> AsyncGenerator[dict[str, Any], None]:
            async with _calling(candidate, base, query, notes, streamed=True) as (call, light):
                arguments = arguments_of(candidate, base, light) | {"stream": True}
                if query.body is None:
                    arguments.setdefault("stream_options", {"include_usage": True})
                async with contextlib.aclosing(
                    _chunks(await import_litellm().acompletion(**arguments), call)
                ) as chunks:
                    async for chunk in chunks:
                        yield chunk if call.has_usage else _without_usage(chunk)

        async with contextlib.aclosing(self._running().stream(work)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def warm_up(self) -> None:
        """Import now what LiteLLM would import in its first call, which takes about a second. No provider is asked."""

        async def work() -> None:
            tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
            hello = [{"role": "user", "content": "hello"}]
            mocked = {"model": "openai/warm-up", "messages": hello, "mock_response": "hello", "tools": [tool]}
            await import_litellm().acompletion(**mocked)
            async for _ in await import_litellm().acompletion(**mocked, stream=True):
                pass

        await self._running().call(work)

    async def problem_of(self, candidate: Candidate) -> Problem | None:
        """Return why LiteLLM cannot ask a candidate, or None if it can build a plain request. Nothing is sent.

        Call `load` first. Providers that look for credentials on their machine are not rehearsed: they would ask the
        network for them.
        """

        async def work() -> Problem | None:
            problem = problem_of(candidate)
            if provider_of(candidate.model, candidate.api_base) in OTHER_CREDENTIALS:
                import_for(candidate)
                return problem
            if problem is not None and candidate.api_base is None:
                return problem
            # Also a candidate that has only no key is rehearsed, for what LiteLLM imports then.
            rehearsed = await _rehearse(candidate, candidate.api_base)
            return problem or rehearsed

        return await self._running().call(work)

    async def aclose(self) -> None:
        """End the calls in flight, and close the connections."""
        if self._thread is not None:
            await self._thread.aclose(import_litellm().close_litellm_async_clients)

    def _running(self) -> LoopThread:
        if self._thread is None:
            self._thread = LoopThread("litellm")
        return self._thread


async def _chunks(wrapper: Any, call: Call) -> AsyncGenerator[dict[str, Any], None]:
    """Yield LiteLLM's chunks without the "stop" that it invents if the upstream sent none.

    LiteLLM hands on one reason of the end only. If every choice ended, the others get it too. Requests that are being
    decided have their turn between the chunks.
    """
    ended: dict[int, bool] = {}
    pace = Pace()
    async with contextlib.aclosing(wrapper):
        async for chunk in wrapper:
            body = chunk.model_dump(mode="json", exclude_none=True)
            if _reason_of_end(wrapper) is None and OPENAI_CHAT.is_finished(body):
                return
            for choice in body.get("choices") or ():
                ended[choice["index"]] = ended.get(choice["index"], False) or has_ended(choice)
            yield body
            await pace.worked(CHUNK_WORK)
    open_ones = [index for index, is_over in ended.items() if not is_over]
    if open_ones and len(open_ones) < len(ended) <= call.n_ended:
        end: dict[str, Any] = {"delta": {}, "finish_reason": _reason_of_end(wrapper)}
        yield {**_without_usage(body), "choices": [{"index": index, **end} for index in open_ones]}


def _reason_of_end(wrapper: Any) -> str | None:
    """Return why the upstream said that its stream ended, which LiteLLM keeps in another place for Gemini."""
    reason: str | None = wrapper.received_finish_reason or wrapper.intermittent_finish_reason
    return reason


def _without_usage(body: dict[str, Any]) -> dict[str, Any]:
    """Return an answer or a chunk without the numbers of tokens that LiteLLM invents if the upstream sent none."""
    return {key: value for key, value in body.items() if key != "usage"}


async def load() -> None:
    """Import LiteLLM, which takes seconds, outside the event loop. Raises DispatchNotInstalledError."""
    await asyncio.to_thread(import_litellm)


def is_responses_model(name: str) -> bool:
    """Return whether LiteLLM's table says that OpenAI serves a model by another API than chat completions."""
    known = import_litellm().model_cost.get(name) or {}
    return known.get("mode") == "responses"


async def kind_of_failure(model: str, provider: str, error: Any) -> Exception:
    """Return the exception as which LiteLLM classifies an error of the OpenAI SDK that a provider's answer became.

    LiteLLM knows in which words each provider says that a prompt is too long.
    """

    def classify() -> Exception:
        try:
            found: Exception = import_litellm().exception_type(
                model=model, original_exception=error, custom_llm_provider=provider
            )
        except Exception as raised:
            return raised
        return found

    return await asyncio.to_thread(classify)


async def error_of_status(candidate: Candidate, response: Any) -> Exception:
    """Return the exception of LiteLLM for an unsuccessful answer of a candidate, given as a response of httpx."""
    message = f"HTTP status {response.status_code}: {excerpt(response.text)}"
    error = importlib.import_module("openai").APIStatusError(message, response=response, body=None)
    found = await kind_of_failure(candidate.model, candidate.model.partition("/")[0], error)
    found.__cause__ = error
    return found


async def error_of_report(candidate: Candidate, report: ReportedError, notes: CallNotes) -> DispatchError:
    """Return our error for one that a candidate reported in an answer of status 200.

    It is the error that the candidate would have got for an answer with the status that belongs to such a report.
    """
    httpx = importlib.import_module("httpx")
    body = {"error": {"message": report.message, "code": report.code, "param": report.param}}
    request = httpx.Request("POST", "http://upstream.invalid")
    response = httpx.Response(report.status, headers={**notes.waits, **report.waits}, json=body, request=request)
    return of_report(candidate.described, report, await error_of_status(candidate, response))


def excerpt(text: str) -> str:
    """Return the beginning and the end of an error's text, because LiteLLM takes a tenth of a second for 100 KB."""
    return text if len(text) <= _HEAD + _TAIL else f"{text[:_HEAD]} ... {text[-_TAIL:]}"


@contextlib.asynccontextmanager
async def _calling(
    candidate: Candidate, base: str | None, query: RouteQuery, notes: CallNotes, *, streamed: bool
) -> AsyncIterator[tuple[Call, RouteQuery]]:
    """Bound the answers, and turn what LiteLLM raises into errors of ours.

    Yield the notes on the call, and the request as LiteLLM gets to see it.

    A request that LiteLLM cannot even build is its caller's fault, unless the candidate cannot be sent the plainest one
    either.
    """
    from router.answering.upstreams.bounded_httpx import bounded
    from router.answering.upstreams.litellm_call import Call, Phase

    who = candidate.described
    call = Call(candidate.max_answer_bytes, streamed, has_key(candidate, base), notes=notes, who=who)
    call.report = functools.partial(error_of_report, candidate)
    light, stand_ins = without_long_texts(candidate, query)
    call.is_openai, call.additions = _is_openai(candidate.model, base), additions_of(candidate, light, stand_ins)
    problem = _known_problem(candidate.model_copy(update={"api_base": base}))
    # Without a key a call may still be worth trying: some servers want none.
    if problem is not None and problem.kind is UpstreamNotFoundError:
        raise problem.error()
    try:
        with translated(who, call, problem), bounded(call):
            yield call, light
    except DispatchError as error:
        is_built = call.phase is not Phase.BUILDING or problem is not None or call.refusal is not None
        if not is_built and (found := await _rehearse(candidate, base)) is not None:
            raise found.error() from error
        raise
    finally:
        # LiteLLM's own tasks keep the context of a call, and with it the notes, for as long as they live.
        call.notes = CallNotes()
        if streamed:
            notes.held.release()


async def _rehearse(candidate: Candidate, base: str | None) -> Problem | None:
    """Return why LiteLLM cannot build the plainest request for a candidate; None if it can. Nothing is sent."""
    from router.answering.upstreams.bounded_httpx import NOTHING_SENT, bounded
    from router.answering.upstreams.litellm_call import Call, Phase

    call = Call(candidate.max_answer_bytes, streamed=False, is_rehearsal=True)
    call.who, call.is_openai = candidate.described, _is_openai(candidate.model, base)
    try:
        async with asyncio.timeout(_REHEARSAL_S):
            with bounded(call):
                await import_litellm().acompletion(**arguments_of(candidate, base, RouteQuery.from_prompt("hello")))
    except Exception as error:
        if call.refusal is not None:
            return Problem(UpstreamNotFoundError, call.refusal.message)
        is_built = call.phase > Phase.BUILDING or NOTHING_SENT in f"{error} {root_of(error)}"
        return None if is_built else problem_in_rehearsal(candidate, error)
    return None


@functools.lru_cache(maxsize=1024)
def _is_openai(model: str, base: str | None) -> bool:
    return provider_of(model, base) in _OPENAI


_known_problem = functools.lru_cache(maxsize=1024)(problem_of)
