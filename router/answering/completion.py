"""The answers of candidates, in the OpenAI shape, with their usage and cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from router.answering.upstreams.answer_budget import HeldAnswer
from router.attempts import Delivery
from router.policies.policy_file import Prices


@dataclass(frozen=True, slots=True)
class Usage:
    """The tokens of an answer as the provider counted them, and their cost in US dollars at the policy's prices.

    Input that came out of the provider's prompt cache costs what cached input costs, if the policy has that price. The
    cost is None if the policy has no prices.
    """

    input_tokens: int
    output_tokens: int
    cost_usd: float | None


@dataclass(frozen=True, slots=True)
class Completion:
    """Holds one whole answer of a candidate, or one step of a streamed answer.

    Attributes:
        text: text of the first choice; it may be empty.
        body: the provider's response or chunk in the OpenAI shape.
        usage: None if the provider did not report it, and in all steps of a stream but the last.
        delivery: who answered after which attempts; in a stream only the first step has it.
        held: the bytes of a whole answer in the budget of all answers, for as long as this object lives.
    """

    text: str
    body: Mapping[str, Any]
    usage: Usage | None
    delivery: Delivery | None = None
    held: HeldAnswer | None = field(default=None, repr=False, compare=False)


def completion_of(body: Mapping[str, Any], part: str, prices: Prices | None, delivery: Delivery | None) -> Completion:
    """Return the text, usage and cost of a provider's response, or of one chunk of a stream, as a `Completion`.

    part: the field of a choice that holds the text: `message` in a response, `delta` in a chunk.
    """
    first = next((choice for choice in _choices(body) if choice.get("index", 0) == 0), {})
    text = (first.get(part) or {}).get("content")
    return Completion(text if isinstance(text, str) else "", body, _usage(body, prices), delivery)


def has_content(chunk: Mapping[str, Any]) -> bool:
    """Return whether a streamed chunk brings text, a tool call or an end, and not only the role of the speaker."""
    return any(
        choice.get("finish_reason") or any(value for key, value in (choice.get("delta") or {}).items() if key != "role")
        for choice in _choices(chunk)
    )


def _choices(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return body.get("choices") or []


def _usage(body: Mapping[str, Any], prices: Prices | None) -> Usage | None:
    usage = body.get("usage")
    if not isinstance(usage, Mapping) or not usage:
        return None
    details = usage.get("prompt_tokens_details")
    counts = (
        usage.get("prompt_tokens"),
        usage.get("completion_tokens"),
        details.get("cached_tokens") if isinstance(details, Mapping) else 0,
    )
    n_input, n_output, n_cached = map(_count, counts)
    cost_usd = prices.cost_usd(n_input, n_output, cached_input_tokens=min(n_cached, n_input)) if prices else None
    return Usage(n_input, n_output, cost_usd)


def _count(value: Any) -> int:
    """Return a number of tokens, or 0 for anything but a number of at most 2^53, beyond which doubles skip integers."""
    is_count = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 2**53
    return int(value) if is_count else 0
