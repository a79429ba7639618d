"""Note what is learnt of one call of an upstream while it runs (`CallNotes`): its bytes, its life, its rate limits."""

from __future__ import annotations

import time
from collections.abc import Iterable

from router.answering.reading.retry_after import WAIT_HEADERS, is_plain_header
from router.intake.answer_budget import HeldAnswer

#: How the names of the headers begin in which OpenAI, Anthropic and others say how much a key may still ask.
RATE_LIMIT_PREFIXES = ("x-ratelimit-", "anthropic-ratelimit-")

#: Most headers of rate limits that are passed on.
_MOST_HEADERS = 40


class CallNotes:
    """Notes what is learnt of one call of an upstream while it runs. Another thread may write it.

    Attributes:
        held: the bytes of the answer in the budget of all answers.
        alive_at: when the upstream last sent anything, by the monotonic clock, or when the call began.
        rate_limits: the headers of the answer that tell its rate limits, with names in lower case.
        waits: the headers of the answer that say when to come back.
        is_done: whether the upstream said that its stream is over.
        dropped: the parameters that are left out of the request, by their names in chat completions.
        left_out: the fields that nobody here knows and that the provider is not sent.
        untranslated: what of the request its translation into another API does not say.
        has_usage: whether the upstream says how many tokens its answer has. Libraries in between invent numbers.
    """

    def __init__(self, held: HeldAnswer | None = None) -> None:
        self.held = held or HeldAnswer()
        self.alive_at = time.monotonic()
        self.rate_limits: dict[str, str] = {}
        self.waits: dict[str, str] = {}
        self.is_done = False
        self.dropped: tuple[str, ...] = ()
        self.left_out: tuple[str, ...] = ()
        self.untranslated: tuple[str, ...] = ()
        self.has_usage = True

    def note_life(self) -> None:
        """Note that the upstream has just sent something, be it a comment."""
        self.alive_at = time.monotonic()

    def note_head(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Note what the headers of an answer say of rate limits; values that are no plain ASCII are left out."""
        self.note_life()
        for raw_name, raw_value in headers:
            name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1").strip()
            if not is_plain_header(value):
                continue
            if name.startswith(RATE_LIMIT_PREFIXES) and len(self.rate_limits) < _MOST_HEADERS:
                self.rate_limits[name] = value
            elif name in WAIT_HEADERS:
                self.waits[name] = value
