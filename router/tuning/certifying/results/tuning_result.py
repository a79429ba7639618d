"""Define the result of `elle tune` as data, which hold every figure but not how to print it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from probes.probe import DataSource
from router.policies.certificate_record import Covers, TargetKind
from router.tuning.certifying.results.label_plan import LabelPlan

#: How many ids of the prompts that the fit saw are listed; all of these prompts are counted.
SHOWN_IDS = 5


@dataclass(frozen=True)
class TargetResult:
    """Holds the result for one target: whether it is certified, and the figures of the policy that was selected.

    estimate, bound: in the unit of the target. delta: the level at which it was tested. more_labels: about how many to
    add; None if the target is certified, or if no number is known to be enough.
    """

    kind: TargetKind
    limit: float
    says: str
    certified: bool
    estimate: float
    bound: float
    method: str
    delta: float
    more_labels: int | None


@dataclass(frozen=True)
class TunedRule:
    """Holds a rule that was selected, and what it does on the calibration prompts.

    Attributes:
        thresholds: of a gain rule. quality_per_usd: of a cost rule.
        weak_share: the share of the prompts that the cheapest candidate answers. shares: the same for each candidate.
        quality, loss_estimate: mean score, and mean loss against the reference, 0 to 1.
        loss_upper_bound: at most the limit of a certified target on quality loss; without one it is a description only.
        expected_cost_saving, cost_usd_per_1k: None if a price is unknown.
        abstained_share: the share of the prompts on which the router abstains.
    """

    thresholds: tuple[float, ...] | None
    quality_per_usd: float | None
    weak_share: float
    shares: Mapping[str, float]
    quality: float
    loss_estimate: float
    loss_upper_bound: float
    expected_cost_saving: float | None
    cost_usd_per_1k: float | None
    abstained_share: float

    @property
    def threshold(self) -> float | None:
        """The threshold of a gain rule between two tiers, or None for a cost rule and for more tiers."""
        return self.thresholds[0] if self.thresholds is not None and len(self.thresholds) == 1 else None


@dataclass(frozen=True)
class RuleResult:
    """Holds the result for one rule and the targets that it must keep together.

    rule: None if the targets are not certified and an uncertified policy is not allowed.
    """

    certified: bool
    targets: tuple[TargetResult, ...]
    rule: TunedRule | None
    more_labels: int | None


@dataclass(frozen=True)
class GroupResult:
    """Holds the rule that is certified for one group of prompts; the confidence holds for each group alone."""

    n: int
    certified: bool
    thresholds: tuple[float, ...] | None
    quality_per_usd: float | None
    weak_share: float | None
    loss_estimate: float
    loss_upper_bound: float
    more_labels: int | None


@dataclass(frozen=True)
class TuningResult:
    """Holds what was tuned on which data, and what is certified.

    Attributes:
        main: the result for the policy's own rule. profiles: results for further rules, by profile name.
        groups: results by label of the data's group column; empty unless asked for.
        candidates: their names, cheapest tier first.
        reference: the candidate that losses are measured against, with its mean score and cost.
        rule: the kind of the rule, `gain` or `cost`.
        correction: a sentence that says how several targets share the level.
        about: whose opinion the quality in targets and figures is: `people`, `judge NAME`, or `scores` of the data.
        n_calibration: the number of draws that the certificate rests on.
        n_human: how many of them people graded, for all models and as chance chose them.
        n_seen_in_fit: the number of rows whose text the fit saw; `seen_in_fit_ids` holds the first SHOWN_IDS of them.
        n_incomplete: the number of rows without a score of every model.
        n_repeated: the number of draws whose text an earlier draw has; each counts as a draw of its own.
        n_seen_left_out, n_seen_kept, n_informative, n_unused, changed_share: see `CalibrationSet`.
        n_averaged: the number of labels that were averaged with another label of the same model and prompt_id.
        covers: the requests that the certificate is about.
        attempts: the number of tunings on these data in the probe's log; None if they are not counted.
        data_digest: of the data. probe: its identity.
        notes: what a reader must know.
        policy_file: where the policy was written; None if it was not.
    """

    main: RuleResult
    profiles: Mapping[str, RuleResult]
    groups: Mapping[str, GroupResult]
    plan: LabelPlan | None
    candidates: tuple[str, ...]
    reference: str
    reference_quality: float
    reference_cost_usd_per_1k: float | None
    rule: str
    confidence: float
    correction: str
    about: str
    n_calibration: int
    n_human: int
    n_seen_in_fit: int
    seen_in_fit_ids: tuple[str, ...]
    n_incomplete: int
    n_repeated: int
    n_seen_left_out: int
    n_seen_kept: int
    n_informative: int
    n_unused: int
    changed_share: float
    n_averaged: int
    covers: Covers
    attempts: int | None
    data: tuple[DataSource, ...]
    data_digest: str
    probe: str
    created: datetime
    expires: datetime
    notes: tuple[str, ...]
    policy_file: str | None = None

    @property
    def certified(self) -> bool:
        """True if the policy's own rule and all profiles are certified."""
        return self.main.certified and all(profile.certified for profile in self.profiles.values())
