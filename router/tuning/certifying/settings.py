"""Define what a user asks `elle tune` for: targets, models, confidence, and how the policy is to be certified."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from probes.errors import DataError
from router.policies.file_model import NAME_PATTERN
from router.tuning.certifying.targets import Target

#: The days after which a certificate expires, unless the user says otherwise.
VALID_DAYS = 90


@dataclass(frozen=True)
class TuneSettings:
    """Holds what to tune, apart from the files of the probe and of the outcomes.

    Attributes:
        targets: the targets of the policy's own rule; all of them must hold.
        profiles: targets on quality loss by profile name; each profile gets a rule of its own.
        models: names as in the data, cheapest first; if prices are known the order does not matter. The last one is the
            reference unless `reference` names another.
        reference: the model that losses are measured against, and that answers if the router abstains.
        rule: `gain` or `cost`; None takes cost for three models or more if all prices are known, else gain.
        prices: a file of prices, or `litellm`; None if the candidates or the data state all prices there are.
        candidates: a policy file to take the candidates from, instead of `models` and `prices`.
        confidence: the probability that all targets hold together, between 0 and 1.
        max_request_usd: the most that one request can cost, for targets on cost.
        valid_days: the days until the certificate expires.
        score: the column of a score that callers send, by which the policy decides; None decides by a probe.
        about: `people` certifies what people say, from the human grades in the data; `judge` what the scores say; None
            takes people if the data have human grades.
        bound: `ternary` for scores of 0 and 1, or `betting` for graded ones; None decides by the scores of the fit.
        calibration: files whose rows all certify; if empty, the rows certify that the fit left out of the data.
        sessions: written into the policy; `hold` narrows what the certificate covers.
        by: certify a threshold for each `group` or each `task` of the data by itself, too; None for neither.
        plan: whether to estimate what more labels would achieve.
        allow_uncertified: whether to give a policy without a certificate if the targets cannot be certified.
    """

    targets: tuple[Target, ...]
    profiles: Mapping[str, Target] = field(default_factory=dict)
    models: tuple[str, ...] = ()
    reference: str | None = None
    rule: str | None = None
    prices: str | None = None
    candidates: Path | None = None
    confidence: float = 0.95
    max_request_usd: float | None = None
    valid_days: float = VALID_DAYS
    score: str | None = None
    about: Literal["people", "judge"] | None = None
    bound: Literal["ternary", "betting"] | None = None
    calibration: tuple[Path, ...] = ()
    sessions: Literal["hold", "ignore"] = "ignore"
    by: Literal["group", "task"] | None = None
    plan: bool = False
    allow_uncertified: bool = False

    def __post_init__(self) -> None:
        if not self.targets:
            raise DataError(
                "a target must be given: --max-loss, --min-quality, --max-strong-share or --max-cost-usd-per-1k."
            )
        if not 0 < self.confidence < 1:
            raise DataError(f"confidence must lie strictly between 0 and 1, got {self.confidence}; 0.95 is usual.")
        if bad := [name for name in self.profiles if not re.fullmatch(NAME_PATTERN, name)]:
            raise DataError(
                f"names of profiles must consist of letters, digits, dots and dashes; got {', '.join(map(repr, bad))}."
            )
        if not 0 < self.valid_days < 36_500:
            raise DataError(
                f"a certificate must be valid for more than 0 days and less than 100 years; got {self.valid_days} days."
            )

    @property
    def delta(self) -> float:
        """The accepted probability that some certified target does not hold, for example 0.05."""
        return round(1.0 - self.confidence, 12)

    @property
    def delta_each(self) -> float:
        """The level at which each target is tested, which is `delta` divided by their number (Bonferroni)."""
        return self.delta / (len(self.targets) + len(self.profiles))
