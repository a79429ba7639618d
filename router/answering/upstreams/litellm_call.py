"""Record how far one call of a provider through LiteLLM came, and what was learnt of it (`Call`)."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from router.answering.formats.reported_errors import ReportedError
from router.answering.reading.call_notes import CallNotes
from router.answering.reading.large_answers import SetAside
from router.answering.reading.sse import STREAM_FACTOR
from router.answering.upstreams.litellm_request import Additions
from router.errors import DispatchError


class Phase(enum.IntEnum):
    """The phases of a call to a provider, by which we tell who is at fault if it fails."""

    #: The request is being made of what the caller sent. What fails here is the caller's.
    BUILDING = 0
    #: It was made and given to the HTTP client. What fails here is a URL or header that cannot be sent.
    SENDING = 1
    #: The network was asked, in vain.
    REACHED = 2
    #: The provider answered with a status.
    ANSWERED = 3


@dataclass(slots=True)
class Call:
    """Records how far one call of a provider through LiteLLM came, and the bounds of its answer.

    Attributes:
        max_answer_bytes: as `Candidate` has it.
        streamed: whether the answer is a stream, which may be longer.
        has_key: whether it is made with a key.
        is_rehearsal: whether it is only built, and not sent.
        is_openai: whether it may go to OpenAI's own host.
        additions: what is written into the body that LiteLLM makes.
        has_additions: whether that was done.
        who: the candidate, as messages name it.
        phase: how far it came.
        status: the HTTP status of the last answer; None before there was one.
        refusal: our own error, of an answer beyond its bound or a key that must not be sent, because LiteLLM would make
            something else of it.
        notes: what is learnt of the call while it runs.
        report: makes our error of one that the provider reports in an answer of status 200.
        error_body: the beginning of the body of the last error.
        has_usage: whether the answer says how many tokens it has, in any provider's words.
        aside: the large parts of an answer that LiteLLM does not get to see.
    """

    max_answer_bytes: int
    streamed: bool
    has_key: bool = True
    is_rehearsal: bool = False
    is_openai: bool = True
    additions: Additions = field(default_factory=Additions)
    has_additions: bool = False
    who: str = "the candidate"
    phase: Phase = Phase.BUILDING
    status: int | None = None
    refusal: DispatchError | None = None
    notes: CallNotes = field(default_factory=CallNotes)
    report: Callable[[ReportedError, CallNotes], Awaitable[DispatchError]] | None = None
    error_body: bytearray = field(default_factory=bytearray)
    has_usage: bool = False
    aside: SetAside = field(default_factory=SetAside)

    @property
    def max_bytes(self) -> int:
        """The most bytes that are read of a successful answer; a stream may be longer than a whole answer."""
        return self.max_answer_bytes * (STREAM_FACTOR if self.streamed else 1)

    @property
    def left_out(self) -> tuple[str, ...]:
        """Return the names of the fields of the request that the provider is not sent."""
        lost = () if self.has_additions else self.additions.fields
        return tuple(sorted({*self.additions.left_out, *lost}))
