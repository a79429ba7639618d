"""Define what a policy knows of a score that callers send: its name, its range, and the risks that it stands for.

Such a policy has no probe and encodes nothing. Each candidate has a monotone map from the score to its risk.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Self

from pydantic import Field, model_validator

from probes.digests import json_digest
from router.decision import ScoreUsed
from router.policies.file_model import Probability, StrictModel

_LARGEST = 1e12
_MAX_KNOTS = 64
Number = Annotated[float, Field(ge=-_LARGEST, le=_LARGEST)]


class ScoreMap(StrictModel):
    """Maps a score to the risk of one candidate: straight lines between knots, constant beyond the first and the last.

    Attributes:
        scores: the knots, ascending.
        risks: the risk at each knot, 0 to 1; nowhere falling, or nowhere rising.
    """

    scores: tuple[Number, ...] = Field(min_length=1, max_length=_MAX_KNOTS)
    risks: tuple[Probability, ...] = Field(min_length=1, max_length=_MAX_KNOTS)

    @model_validator(mode="after")
    def _is_monotone(self) -> Self:
        if len(self.scores) != len(self.risks):
            raise ValueError(
                f"scores and risks must have equally many numbers, got {len(self.scores)} and {len(self.risks)}"
            )
        if any(a >= b for a, b in pairwise(self.scores)):
            raise ValueError("scores of a map must ascend strictly")
        if self.risks not in (tuple(sorted(self.risks)), tuple(sorted(self.risks, reverse=True))):
            raise ValueError("risks of a map must nowhere fall, or nowhere rise")
        return self

    def risk(self, score: float) -> float:
        """Return the risk, 0 to 1, that a finite score stands for."""
        above = bisect_right(self.scores, score)
        if above == 0:
            return self.risks[0]
        if above == len(self.scores):
            return self.risks[-1]
        low, high = self.scores[above - 1], self.scores[above]
        share = (score - low) / (high - low)
        return self.risks[above - 1] + share * (self.risks[above] - self.risks[above - 1])


class CallerScore(StrictModel):
    """A score that requests carry, made by another system; the policy judges by it instead of a probe.

    Attributes:
        name: the name under which requests send it, without regard to case.
        low: the lowest value that was known when the maps were fitted.
        high: the highest such value. A request with a score beyond `low` or `high`, with none, or with one that is no
            number, goes to the safe default.
        risks: a map for each candidate, in the order of the candidates.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    low: Number
    high: Number
    risks: tuple[ScoreMap, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _has_a_range(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low must not be above high, got {self.low} and {self.high}")
        return self

    @property
    def digest(self) -> str:
        """The SHA-256 of all of this in hex: two policies with the same one judge alike."""
        return json_digest(self.model_dump(mode="json"))

    def read(self, scores: Mapping[str, float]) -> ScoreUsed:
        """Return what a request says of this score, and why it cannot be used, if it cannot.

        scores: those of the request, by name in small letters.
        """
        value = scores.get(self.name.lower())
        if value is None:
            return ScoreUsed(self.name, None, "missing")
        if not math.isfinite(value):
            return ScoreUsed(self.name, None, "no finite number")
        fault = "" if self.low <= value <= self.high else f"outside of {self.low:g} to {self.high:g}"
        return ScoreUsed(self.name, float(value), fault)
