"""Ask the candidate that gave a response about it: fetch it, cancel or delete it, or list the items of its input."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import AsyncGenerator, Iterator
from typing import Any

from router.answering.dispatch import Dispatcher
from router.answering.reading.call_notes import CallNotes
from router.answering.time_limits import silence_limit, time_limit
from router.answering.upstreams.destinations import KeptCall
from router.errors import UnknownResponseError, UpstreamNotFoundError
from router.policies.candidates.candidate import Candidate
from router.policies.rules import speaks_api
from router.values import SpokenApi

#: The HTTP status of a provider that does not have what is asked for.
_NOT_FOUND = 404


async def ask_kept(
    dispatcher: Dispatcher, keeper: tuple[str, str], call: KeptCall, notes: CallNotes, timeout_s: float | None
) -> dict[str, Any]:
    """Return what a candidate says about a response that it gave, as it says it. Nothing is tried again.

    Args:
        dispatcher: knows the candidates.
        keeper: the names of the candidate's policy and of the candidate.
        call: what is asked.
        notes: what is learnt of the call.
        timeout_s: seconds until the caller's deadline; None if there is none.

    Raises UnknownResponseError if the candidate does not keep the response, and DispatchError if it fails.
    """
    candidate = await _keeper(dispatcher, keeper)
    limit_s = candidate.timeout_s if timeout_s is None else min(candidate.timeout_s, timeout_s)
    async with time_limit(candidate, limit_s):
        with _unknown_if_gone(candidate):
            return await dispatcher.upstream.ask_kept(candidate, call, notes)


async def stream_kept(
    dispatcher: Dispatcher, keeper: tuple[str, str], call: KeptCall, notes: CallNotes, timeout_s: float | None
) -> AsyncGenerator[dict[str, Any], None]:
    """Yield the events of a response that a candidate gave. See `ask_kept`; closing it ends the call."""
    candidate = await _keeper(dispatcher, keeper)
    ends_at = math.inf if timeout_s is None else time.monotonic() + timeout_s
    events = dispatcher.upstream.stream_kept(candidate, call, notes)
    async with contextlib.aclosing(events):
        while True:
            limit_s = candidate.first_token_timeout_s
            async with silence_limit(candidate, limit_s, notes, ends_at - time.monotonic()):
                with _unknown_if_gone(candidate):
                    event = await anext(events, None)
            if event is None:
                return
            yield event


async def _keeper(dispatcher: Dispatcher, keeper: tuple[str, str]) -> Candidate:
    candidate = dispatcher.candidate(*keeper)
    if not speaks_api(candidate, SpokenApi.RESPONSES):
        raise UnknownResponseError(
            f"nobody keeps this response: candidate {candidate.name!r}, which gave it, does not speak the Responses "
            "API, so its answer was translated and not stored. Name a candidate that speaks it as `model`.",
            field="response_id",
        )
    await dispatcher.upstream.load()
    return candidate


@contextlib.contextmanager
def _unknown_if_gone(candidate: Candidate) -> Iterator[None]:
    """Turn the 404 of a provider into an error about the response: the caller names it, and not the router."""
    try:
        yield
    except UpstreamNotFoundError as error:
        if error.http_status != _NOT_FOUND:
            raise
        raise UnknownResponseError(
            f"candidate {candidate.name!r} gave this response and does not keep it: it was deleted, its time is over, "
            "it was asked for with `store: false`, or this provider keeps none.",
            field="response_id",
        ) from error
