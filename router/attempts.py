"""Record which candidates were asked for an answer, how each attempt ended, and who answered."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field


class AttemptOutcome(enum.Enum):
    """The ways in which one attempt to get an answer from a candidate can end.

    The values are the names on the wire without their prefix.
    """

    ANSWERED = "ANSWERED"
    REJECTED = "REJECTED"
    CONTEXT_WINDOW = "CONTEXT_WINDOW"
    DENIED = "DENIED"
    NOT_FOUND = "NOT_FOUND"
    RATE_LIMITED = "RATE_LIMITED"
    TIMED_OUT = "TIMED_OUT"
    UNAVAILABLE = "UNAVAILABLE"
    INTERRUPTED = "INTERRUPTED"
    COOLING_DOWN = "COOLING_DOWN"
    #: (client) A newer service sent an outcome that this version does not know, or the service sent none.
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True, slots=True)
class Attempt:
    """Describes one attempt to get an answer from a candidate: who was asked, how it ended, and how long it took.

    Attributes:
        candidate: the name of the candidate that was asked. A candidate that is cooling down has an attempt too,
            although nobody asked it.
        outcome: how the attempt ended.
        http_status: the status of the provider's error; None if there was no error or its status is not known.
        duration_s: seconds until the answer, until the first content of a stream, or until the failure.
        streamed: True if a part of the answer had reached the caller.
        started_s: seconds from the decision to the start of the attempt; 0 if it is not known, as in the client.
    """

    candidate: str
    outcome: AttemptOutcome
    http_status: int | None = None
    duration_s: float = 0.0
    streamed: bool = False
    started_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Delivery:
    """Says which candidate answered a request, and which attempts came before.

    Attributes:
        answered_by: the name of the candidate that answered.
        answered_by_model: the LiteLLM model string of that candidate.
        fell_back: True if another candidate answered than the decision chose.
        attempts: all attempts, oldest first; the last one brought the answer.
        rate_limits: the headers in which the provider of that answer told its rate limits, with names in lower case.
        dropped_parameters: the parameters of the request that the candidate was not sent, because it refuses them.
    """

    answered_by: str
    answered_by_model: str
    fell_back: bool
    attempts: tuple[Attempt, ...]
    rate_limits: Mapping[str, str] = field(default_factory=dict, compare=False)
    dropped_parameters: tuple[str, ...] = ()
