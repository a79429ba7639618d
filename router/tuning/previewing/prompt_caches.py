"""Price a replay with the providers' prompt caches: what a model read of a session before is cheaper to read again.

A provider keeps the beginning of a chat that it has read for `prompt_cache_s` seconds after its last use. If the next
request of the session begins with the same messages and goes to the same model, these are billed at the price of cached
input. A model that did not answer the session before reads the whole chat at the full price. That is why a switch in
the middle of a long session can cost more than it saves, and why savings that are computed without caches are wrong.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from router.asking.ask import BYTES_PER_TOKEN, READ_FIELDS, TOKENS_PER_IMAGE
from router.asking.turns import NEEDS_OF_PARTS, json_bytes, read_turns
from router.policies.candidates.candidate import Candidate, Prices
from router.tuning.previewing.logged_requests import LoggedRequest
from router.tuning.previewing.replay import NOBODY
from router.values import Capability

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ReadParts:
    """Holds the parts of a request in the order in which a model reads them, to find what two requests share.

    Attributes:
        digests: a digest of each part.
        ends: the estimated tokens up to the end of each part, ascending.
    """

    digests: tuple[bytes, ...]
    ends: tuple[float, ...]

    def shared_share(self, before: ReadParts) -> float:
        """Return which share of this request's tokens, 0 to 1, is the beginning that an earlier request had too."""
        shared = 0.0
        for own, other, end in zip(self.digests, before.digests, self.ends, strict=False):
            if own != other:
                break
            shared = end
        return shared / self.ends[-1] if self.ends[-1] else 0.0


@dataclass(frozen=True)
class TokenCounts:
    """Holds the tokens of n requests, counted by the log or estimated.

    Attributes:
        input: (n,) tokens of the requests. output: (n, m) tokens of the answers of each of m candidates.
        parts: for each request of a session with several requests its parts; None for every other request.
        n_estimated_inputs, n_estimated_outputs: requests whose tokens the log does not say.
    """

    input: FloatArray
    output: FloatArray
    parts: tuple[ReadParts | None, ...]
    n_estimated_inputs: int
    n_estimated_outputs: int


@dataclass(frozen=True)
class Bill:
    """Holds what n requests cost if given candidates answer them.

    Attributes:
        cost_usd: (n,) cost of each request; NaN if the candidate has no prices or nobody answers.
        cached: (n,) input tokens of each request that are billed as cached.
        input: (n,) input tokens of each request; 0 if nobody answers.
        n_switches: requests that another candidate answered than the request of the session before.
    """

    cost_usd: FloatArray
    cached: FloatArray
    input: FloatArray
    n_switches: int


def count_tokens(requests: Sequence[LoggedRequest], candidates: Sequence[Candidate]) -> TokenCounts:
    """Return the tokens of requests and answers.

    What the log counts holds for every candidate. An answer that the log does not know has the candidate's
    `expected_output_tokens`, or the request's own bound if that is lower.
    """
    turns = Counter(one.session for one in requests if one.session)
    inputs = [float(one.input_tokens or one.ask.input_tokens_estimate) for one in requests]
    outputs = []
    for one in requests:
        most = one.ask.max_output_tokens
        expected = [min(c.expected_output_tokens, most or c.expected_output_tokens) for c in candidates]
        outputs.append(expected if one.output_tokens is None else [one.output_tokens] * len(candidates))
    return TokenCounts(
        input=np.array(inputs, dtype=np.float64),
        output=np.array(outputs, dtype=np.float64).reshape(len(requests), len(candidates)),
        parts=tuple(_read_parts(one) if turns[one.session] > 1 else None for one in requests),
        n_estimated_inputs=sum(not one.input_tokens for one in requests),
        n_estimated_outputs=sum(one.output_tokens is None for one in requests),
    )


def price_replay(
    requests: Sequence[LoggedRequest],
    chosen: npt.NDArray[np.int64],
    tokens: TokenCounts,
    candidates: Sequence[Candidate],
    prices: Sequence[Prices | None],
) -> Bill:
    """Return what the requests cost if `chosen` (n,) answer them, each candidate with a prompt cache of its own.

    The requests come in the order of time. NOBODY in `chosen` stands for a request that is not answered.
    """
    n = len(requests)
    cost, cached = np.full(n, np.nan), np.zeros(n)
    read: dict[tuple[str, int], tuple[float, ReadParts]] = {}
    last: dict[str, int] = {}
    n_switches = 0
    for row, (request, number) in enumerate(zip(requests, chosen.tolist(), strict=True)):
        if number == NOBODY:
            continue
        parts, now, key = tokens.parts[row], request.asked_at or 0.0, (request.session, number)
        if parts is not None:
            if key in read and now - read[key][0] <= candidates[number].prompt_cache_s:
                cached[row] = tokens.input[row] * parts.shared_share(read[key][1])
            read[key] = now, parts
            n_switches += last.get(request.session, number) != number
            last[request.session] = number
        if (price := prices[number]) is not None:
            if price.cached_input_usd_per_million_tokens is None:
                cached[row] = 0.0
            cost[row] = price.cost_usd(
                tokens.input[row], tokens.output[row, number], cached_input_tokens=float(cached[row])
            )
    return Bill(cost, cached, np.where(chosen == NOBODY, 0.0, tokens.input), n_switches)


def _read_parts(request: LoggedRequest) -> ReadParts:
    parameters, messages = request.query.parameters, request.query.messages
    first = {name: parameters[name] for name in READ_FIELDS if parameters.get(name)}
    digests, sizes = [_digest(first)], [sum(map(json_bytes, first.values())) / BYTES_PER_TOKEN]
    for message, turn in zip(messages, read_turns(messages), strict=True):
        images = sum(NEEDS_OF_PARTS.get(part) is Capability.IMAGE for part in turn.other_parts)
        digests.append(_digest(message))
        sizes.append(turn.size / BYTES_PER_TOKEN + images * TOKENS_PER_IMAGE)
    return ReadParts(tuple(digests), tuple(itertools.accumulate(sizes)))


def _digest(value: Any) -> bytes:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
