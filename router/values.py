"""The values that travel through the router: what is asked, and what was decided. Frozen, without behaviour."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from router.errors import InvalidRequestError, shown

#: Candidates that a list of overrides may name.
MAX_NAMES = 1000

#: One message of a chat, in the OpenAI shape, handed on untouched.
Message = Mapping[str, Any]


class Capability(enum.StrEnum):
    """What a request may need of a candidate."""

    TEXT = "text"
    IMAGE = "image"
    AUDIO = "audio"
    FILE = "file"
    VIDEO = "video"
    TOOLS = "tools"
    JSON_SCHEMA = "json_schema"


class Reason(enum.Enum):
    """Why the chosen candidate was chosen. Values are the wire's names without their prefix."""

    GAIN_BELOW_THRESHOLD = "GAIN_BELOW_THRESHOLD"
    GAIN_ABOVE_THRESHOLD = "GAIN_ABOVE_THRESHOLD"
    WITHIN_RISK_BOUND = "WITHIN_RISK_BOUND"
    NONE_WITHIN_RISK_BOUND = "NONE_WITHIN_RISK_BOUND"
    FIXED = "FIXED"
    PINNED = "PINNED"
    ONLY_ELIGIBLE = "ONLY_ELIGIBLE"
    ABSTAINED = "ABSTAINED"
    FAILED_OPEN = "FAILED_OPEN"
    SESSION_HELD = "SESSION_HELD"
    #: (client) A newer service gave a reason that this version does not know, or none.
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True, slots=True)
class Overrides:
    """What the caller asks beyond the policy. None and empty mean: as the policy says.

    Attributes:
        policy: name of the policy; None is the router's first.
        max_risk: take the cheapest eligible candidate whose calibrated risk is at most this, 0 to 1.
        allowed_candidates: only these may answer; empty allows all.
        denied_candidates: these may not answer.
        pin: this candidate answers, whatever the rule says.
        max_cost_usd: upper bound on the expected cost of one answer.
        require_region: only candidates with this among their `regions`; what the policy requires holds besides.
        min_gain: climb a tier only where the expected gain is above this, -1 to 1: the policy's rule is then `gain`
            with this threshold for every step. Not together with `max_risk`.

    Raises InvalidRequestError for a value of the wrong type, and for lists of more than `MAX_NAMES` candidates.
    """

    policy: str | None = None
    max_risk: float | None = None
    allowed_candidates: tuple[str, ...] = ()
    denied_candidates: tuple[str, ...] = ()
    pin: str | None = None
    max_cost_usd: float | None = None
    require_region: str | None = None
    min_gain: float | None = None

    def __post_init__(self) -> None:
        for name in ("max_risk", "max_cost_usd", "min_gain"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
                raise InvalidRequestError(f"{name} must be a number, got {shown(value)}.", field=f"overrides.{name}")
        for name in ("policy", "pin", "require_region"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise InvalidRequestError(f"{name} must be text, got {shown(value)}.", field=f"overrides.{name}")
        for name in ("allowed_candidates", "denied_candidates"):
            names = getattr(self, name)
            if not isinstance(names, list | tuple) or len(names) > MAX_NAMES:
                count = f"{len(names):,}" if isinstance(names, list | tuple) else shown(names)
                raise InvalidRequestError(
                    f"{name} must be a list of at most {MAX_NAMES:,} names, got {count}.", field=f"overrides.{name}"
                )


#: Nothing beyond the policy.
NO_OVERRIDES = Overrides()


@dataclass(frozen=True, slots=True)
class RouteQuery:
    """One request to decide.

    Attributes:
        messages: the chat, oldest first, in the OpenAI shape.
        overrides: what the caller asks beyond the policy.
        session_id: the session it belongs to; empty for none.
        parameters: the further fields of the OpenAI body (`tools`, `response_format`, `max_tokens`, ...).
        body: the OpenAI body as it came, cut out around the value of `model`: what stands before it, and behind. Where
            it is given, an OpenAI-compatible upstream gets these bytes and nothing else but its model's name between
            them; None where there was no such body.
    """

    messages: Sequence[Message]
    overrides: Overrides = NO_OVERRIDES
    session_id: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    body: tuple[bytes, bytes] | None = None

    @classmethod
    def from_prompt(cls, prompt: str, **rest: Any) -> RouteQuery:
        """A plain prompt: a chat of one user message."""
        return cls(messages=({"role": "user", "content": prompt},), **rest)


@dataclass(frozen=True, slots=True)
class HeldCandidate:
    """Who answered a session last.

    Attributes:
        candidate: its name in the policy.
        input_tokens: of that request, estimated: what the provider may still have in its prompt cache.
        idle_s: seconds since.
    """

    candidate: str
    input_tokens: int
    idle_s: float


@dataclass(frozen=True, slots=True)
class CandidateRisk:
    """What the probe says about one candidate, and whether it may answer.

    Attributes:
        candidate: its name in the policy.
        model: its LiteLLM model string.
        raw: expected loss before calibration; unbounded; None where not judged.
        risk: calibrated probability, 0 to 1, that its answer is not acceptable; None where not judged.
        expected_cost_usd: of one answer; None where no price is known.
        ineligible_because: the bounds it broke, in words; empty if it may answer.
    """

    candidate: str
    model: str
    raw: float | None
    risk: float | None
    expected_cost_usd: float | None
    ineligible_because: tuple[str, ...] = ()

    @property
    def eligible(self) -> bool:
        """Whether it may answer this request."""
        return not self.ineligible_because


@dataclass(frozen=True, slots=True)
class ArtifactRef:
    """Name, version and SHA-256 of a policy or probe; equal digests decide alike."""

    name: str
    version: str
    digest: str


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the time of one decision went, in seconds; `total_s` includes the others.

    `cached` says that the prompt was judged before, under the same policy and for the same credential, and not encoded
    again.
    """

    queue_s: float = 0.0
    encode_s: float = 0.0
    probe_s: float = 0.0
    policy_s: float = 0.0
    total_s: float = 0.0
    cached: bool = False


@dataclass(frozen=True, slots=True)
class RoutingDecision:
    """The decision record. Everything but `decision_id` and `timings` follows from the request, policy and probe.

    Attributes:
        decision_id: unique per decision.
        requested: the policy name, or the pinned candidate.
        chosen: name of the chosen candidate.
        chosen_model: its LiteLLM model string.
        reason: why.
        difficulty: expected loss averaged over all models the probe knows, before calibration; None if not judged.
        candidates: all candidates in the order of the policy.
        threshold: what the rule compared with: the price in quality of the candidate weighed, or the risk bound.
        gain: calibrated gain of the candidate weighed (the chosen one, or the best alternative to the cheapest) over
            the cheapest eligible one, -1 to 1; None where nothing was weighed.
        policy: the policy that decided.
        probe: the probe that judged; None where the policy has none.
        abstained: True if the router declined to judge and the safe default answers.
        leverage: how far the prompt lies from what the probe was fitted on, 0 upwards; None if not judged.
        timings: where the time went.
        session_id: as given or found in the request, of one beyond 256 characters the digest; empty for none.
        input_tokens_estimate: of the whole request.
        language: ISO 639-1 code of the newest human turn's language, `und` where unknown.
        has_code: whether the human's opening or newest turn holds code.
        needs: what answering needs of a candidate besides text, sorted.
    """

    decision_id: str
    requested: str
    chosen: str
    chosen_model: str
    reason: Reason
    difficulty: float | None
    candidates: tuple[CandidateRisk, ...]
    threshold: float | None
    gain: float | None
    policy: ArtifactRef
    probe: ArtifactRef | None
    abstained: bool
    leverage: float | None
    timings: Timings
    session_id: str
    input_tokens_estimate: int
    language: str = "und"
    has_code: bool = False
    needs: tuple[str, ...] = ()


class AttemptOutcome(enum.Enum):
    """How one attempt to get an answer ended. Values are the wire's names without their prefix."""

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
    #: (client) A newer service gave an outcome that this version does not know, or none.
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt to get an answer.

    Attributes:
        candidate: who was asked, or would have been: a candidate that is cooling down is passed over.
        outcome: how it ended.
        http_status: what the provider answered with, where it was an error and is known.
        duration_s: until the answer, of a stream until its first content, or until the failure.
        streamed: whether a part of its answer had reached the caller.
    """

    candidate: str
    outcome: AttemptOutcome
    http_status: int | None = None
    duration_s: float = 0.0
    streamed: bool = False


@dataclass(frozen=True, slots=True)
class Delivery:
    """Who answered, after what.

    Attributes:
        answered_by: name of the candidate that answered.
        answered_by_model: its LiteLLM model string.
        fell_back: whether that is another one than was chosen.
        attempts: everything that was tried, oldest first; the last one is the answer.
    """

    answered_by: str
    answered_by_model: str
    fell_back: bool
    attempts: tuple[Attempt, ...]
