"""Define the frozen values that a request brings through the router: the query, the overrides, the API formats."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from router.errors import InvalidRequestError
from router.quoting import quoted
from router.written_body import WrittenBody

#: The largest number of candidates that `allowed_candidates` or `denied_candidates` may name.
MAX_NAMES = 1000

#: One message of a chat in the OpenAI shape. It is handed on untouched.
Message = Mapping[str, Any]


class Capability(enum.StrEnum):
    """The abilities that a request may need of a candidate, such as reading images or calling tools."""

    TEXT = "text"
    IMAGE = "image"
    AUDIO = "audio"
    FILE = "file"
    VIDEO = "video"
    TOOLS = "tools"
    JSON_SCHEMA = "json_schema"


class ApiFormat(enum.StrEnum):
    """The API formats in which requests come and answers go back, such as OpenAI's chat completions."""

    OPENAI_CHAT = "openai_chat"
    ANTHROPIC_MESSAGES = "anthropic_messages"
    OPENAI_RESPONSES = "openai_responses"
    OPENAI_COMPLETIONS = "openai_completions"
    OPENAI_EMBEDDINGS = "openai_embeddings"


class SpokenApi(enum.StrEnum):
    """The APIs of OpenAI, besides chat completions, that the URL of a candidate may serve."""

    RESPONSES = "responses"
    COMPLETIONS = "completions"
    EMBEDDINGS = "embeddings"


@dataclass(frozen=True, slots=True)
class Overrides:
    """Holds what a request asks for beyond its policy, such as a pinned candidate or a largest cost.

    A field that is None or empty leaves the policy as it is.

    Attributes:
        policy: the name of the policy that decides; None means the first policy of the router.
        max_risk: choose the cheapest eligible candidate that has a calibrated risk of at most this, 0 to 1.
        allowed_candidates: only these candidates may answer; empty allows all.
        denied_candidates: these candidates may not answer.
        pin: this candidate answers, whatever the rule says.
        max_cost_usd: upper bound on the expected cost of one answer, in USD.
        require_region: only candidates that list this region among their `regions` may answer. A region that the policy
            requires is required besides.
        min_gain: choose a stronger tier only if its expected gain is above this, -1 to 1. The policy's rule is replaced
            by the rule `gain` with this threshold for every step. It cannot be combined with `max_risk`.

    Raises InvalidRequestError for a value of the wrong type, and for a list of more than `MAX_NAMES` candidates.
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
                raise InvalidRequestError(f"{name} must be a number, got {quoted(value)}.", field=f"overrides.{name}")
        for name in ("policy", "pin", "require_region"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise InvalidRequestError(f"{name} must be text, got {quoted(value)}.", field=f"overrides.{name}")
        for name in ("allowed_candidates", "denied_candidates"):
            names = getattr(self, name)
            if not isinstance(names, list | tuple) or len(names) > MAX_NAMES:
                count = f"{len(names):,}" if isinstance(names, list | tuple) else quoted(names)
                raise InvalidRequestError(
                    f"{name} must be a list of at most {MAX_NAMES:,} names, got {count}.", field=f"overrides.{name}"
                )


#: The overrides of a caller who asks nothing beyond the policy.
NO_OVERRIDES = Overrides()


@dataclass(frozen=True, slots=True)
class RouteQuery:
    """Holds one request that is to be decided: the chat, its parameters, the overrides and the session.

    Attributes:
        messages: the chat in the shape of its API, oldest message first; of the Responses API its input items.
        overrides: what the caller asks beyond the policy.
        session_id: the id of the session that the request belongs to; empty for none.
        task: the key of the task that the request belongs to, text of at most 256 bytes; empty for none.
        scores: numbers that other systems made of the request, by name, for a policy that decides by one.
        parameters: the other fields of the body, such as `tools`, `response_format` and `max_tokens`.
        body: the body as it was written; None if the request did not come as such a body. An upstream that speaks the
            same API gets exactly these bytes with its own model's name in them, and with the candidate's parameters.
        api_format: the API whose shape messages, parameters and body have; the answer comes back in the same one.
        api_headers: headers of the request that belong to its API and are handed on to an upstream that speaks it,
            such as `anthropic-version`; names in lower case.
        escalated_from: the id of a decision above whose answerer this request must go (`router.feedback.escalation`).
        request_id: the caller's own id of the request, as the header `x-request-id` has it; empty for none.
        idempotency_key: the header `Idempotency-Key` of every attempt, by which an upstream that knows it answers a
            request that is sent again without doing the work again; empty sends none.
    """

    messages: Sequence[Message]
    overrides: Overrides = NO_OVERRIDES
    session_id: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    body: WrittenBody | None = None
    task: str = ""
    api_format: ApiFormat = ApiFormat.OPENAI_CHAT
    api_headers: Mapping[str, str] = field(default_factory=dict)
    idempotency_key: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)
    request_id: str = ""
    escalated_from: str = ""

    @property
    def headers(self) -> dict[str, str]:
        """Return the HTTP headers that the request adds to those with which its candidate is asked."""
        return {"Idempotency-Key": self.idempotency_key} if self.idempotency_key else {}

    @classmethod
    def from_prompt(cls, prompt: str, **rest: Any) -> RouteQuery:
        """Return the query for a plain prompt, which is a chat of one user message. `rest` sets further fields."""
        return cls(messages=({"role": "user", "content": prompt},), **rest)


@dataclass(frozen=True, slots=True)
class HeldCandidate:
    """Names the candidate that answered a session last, and what it has read of the session.

    Attributes:
        candidate: the name of the candidate in the policy.
        input_tokens: estimated input tokens of that request. The provider may still have them in its prompt cache.
        idle_s: seconds since that request.
    """

    candidate: str
    input_tokens: int
    idle_s: float
