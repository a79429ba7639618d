"""The answer of `elle tune`: plain JSON values for scripts, words and a table for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from probes.probe import DataSource
from router.policies.certificate import COVERAGE
from router.policies.certificate_record import Covers, TargetKind
from router.tuning.certifying.label_plan import Plan

#: Ids of prompts set aside that are named; all are counted.
SHOWN_IDS = 5


@dataclass(frozen=True)
class TargetAnswer:
    """One target: whether it is certified, and the figures of the policy it was decided on.

    estimate, bound: in the unit of the target. n_labels: calibration prompts. more_labels: to add, about; None where
    it is certified, or where no number is known to be enough.
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
class RuleFigures:
    """A rule, and what it does on the calibration prompts.

    thresholds: of a gain rule. quality_per_usd: of a cost rule. shares: of the prompts, by candidate. loss_upper_bound:
    certified where a target on quality loss is, otherwise it describes. Costs are None where a price is unknown.
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
        """The one threshold of two tiers."""
        return self.thresholds[0] if self.thresholds is not None and len(self.thresholds) == 1 else None


@dataclass(frozen=True)
class RuleAnswer:
    """Targets asked of one rule together. figures: None where nothing could be certified and nothing was guessed."""

    certified: bool
    targets: tuple[TargetAnswer, ...]
    figures: RuleFigures | None
    more_labels: int | None


@dataclass(frozen=True)
class GroupAnswer:
    """The rule that a group of prompts could be certified for by itself; confidence holds group by group."""

    n: int
    certified: bool
    thresholds: tuple[float, ...] | None
    quality_per_usd: float | None
    weak_share: float | None
    loss_estimate: float
    loss_upper_bound: float
    more_labels: int | None


@dataclass(frozen=True)
class TuneReport:
    """What was tuned on what, and what is certified.

    Attributes:
        main: the policy's own rule. profiles: further rules by name. groups: by label of the data's group column.
        candidates: cheapest tier first. reference: the one losses are measured against, with its mean score and cost.
        n_calibration: draws the certificate rests on. n_seen_in_fit: rows whose text the fit saw, the first of them in
            `seen_in_fit_ids`. n_incomplete: without a score of every model. n_repeated: draws of a text that an earlier
            draw has; they count as often as they stand.
        n_seen_left_out, n_seen_kept, n_unused, changed_share: see `CalibrationSet`.
        n_averaged: labels averaged into another of the same model and prompt_id.
        covers: which requests the certificate is about. attempts: tunings on these data that the probe's log counts;
            None where they are not counted.
        data_digest: of the data. probe: identity.
        correction: how several targets share the level.
        notes: what the reader must know.
        policy_file: where the policy was written; None if it was not.
    """

    main: RuleAnswer
    profiles: Mapping[str, RuleAnswer]
    groups: Mapping[str, GroupAnswer]
    plan: Plan | None
    candidates: tuple[str, ...]
    reference: str
    reference_quality: float
    reference_cost_usd_per_1k: float | None
    rule: str
    confidence: float
    correction: str
    n_calibration: int
    n_seen_in_fit: int
    seen_in_fit_ids: tuple[str, ...]
    n_incomplete: int
    n_repeated: int
    n_seen_left_out: int
    n_seen_kept: int
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
        """Whether all that was asked is."""
        return self.main.certified and all(answer.certified for answer in self.profiles.values())

    def written_to(self, path: Path) -> TuneReport:
        """The same, with where the policy was written."""
        return replace(self, policy_file=str(path))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, the figures of the policy's own rule at the top level."""
        parts = ("main", "profiles", "groups", "created", "expires")
        rest = {key: value for key, value in asdict(self).items() if key not in parts}
        return {
            "certified": self.certified,
            **_answer_to_dict(self.main),
            "profiles": {name: _answer_to_dict(answer) for name, answer in self.profiles.items()},
            "groups": {name: asdict(answer) for name, answer in self.groups.items()},
            **rest,
            "created": self.created.isoformat(),
            "expires": self.expires.isoformat(),
        }

    def print(self, console: Console) -> None:
        """For people: the verdict first."""

        def say(text: str, style: str | None = None) -> None:
            console.print(text, highlight=False, markup=False, style=style)

        for name, answer in {"": self.main, **self.profiles}.items():
            self._print_rule(say, name, answer)
        say(
            f"On {self.n_calibration:,} prompts the probe was not fitted on ({self.n_seen_in_fit:,} set aside because "
            f"it was, {self.n_incomplete:,} without a score of every model); {self.n_repeated:,} of them repeat an "
            f"earlier text. {self.correction}"
        )
        for line in self._population():
            say(line)
        if self.groups:
            console.print(self._group_table())
        if self.plan:
            console.print(_curve_table(self.plan))
            console.print(_step_table(self.plan))
        for note in self.notes:
            say(f"Note: {note}", "dim")
        if self.policy_file:
            ending = (
                f", certificate good until {self.expires.date()}" if self.main.certified else ", WITHOUT certificate"
            )
            say(f"Wrote {self.policy_file}{ending}.")

    def _population(self) -> Iterator[str]:
        """Yield what the certificate is about, in words, and how often it was tried for."""
        if self.main.certified:
            yield (
                f"The certificate covers {COVERAGE[self.covers]}. It is about answers of the model that is chosen, not "
                "of a stand-in while that one is down."
            )
        if self.changed_share:
            yield (
                f"It says nothing of requests like {self.changed_share:.1%} of the rows, of which the fit saw the text."
            )
        if self.attempts is not None and self.attempts > 1:
            yield (
                f"This is attempt {self.attempts} with these data. The confidence is that of one attempt; of several, "
                "made until one succeeds, it is less."
            )

    def _print_rule(self, say: Any, name: str, answer: RuleAnswer) -> None:
        head = f"Profile {name}: " if name else ""
        for t in answer.targets:
            verdict = "certified" if t.certified else "NOT certified"
            say(
                f"{head}{t.says}: {verdict} ({t.estimate:.4g} here, bound {t.bound:.4g}, {t.method}, "
                f"delta {t.delta:.3g})"
            )
        if not answer.certified:
            say(head + not_possible(answer))
        if (f := answer.figures) is not None:
            what = f"thresholds {list(f.thresholds)}" if f.thresholds else f"quality per USD {f.quality_per_usd:g}"
            shares = ", ".join(f"{candidate} {share:.1%}" for candidate, share in f.shares.items() if share)
            saved = f", {f.expected_cost_saving:.1%} of its cost saved" if f.expected_cost_saving is not None else ""
            say(
                f"{head}{what}: {shares}. Quality {f.quality:.4f}, {self.reference} "
                f"{self.reference_quality:.4f}{saved}."
            )

    def _group_table(self) -> Table:
        table = Table(title="Each group by itself (confidence holds group by group)", box=None, title_justify="left")
        table.add_column("group")
        for header in ("prompts", "rule", "weak share", "loss", "bound", "more labels"):
            table.add_column(header, justify="right")
        for label, g in self.groups.items():
            rule = f"{g.thresholds}" if g.thresholds else "-" if g.quality_per_usd is None else f"{g.quality_per_usd:g}"
            share = "-" if g.weak_share is None else f"{g.weak_share:.1%}"
            more = "-" if g.certified else f"{g.more_labels:,}" if g.more_labels else "no number"
            cells = (f"{g.n:,}", rule, share, f"{g.loss_estimate:.4f}", f"{g.loss_upper_bound:.4f}", more)
            table.add_row(label or "(none)", *cells)
        return table


def not_possible(answer: RuleAnswer) -> str:
    """The plain words for targets that could not be certified."""
    if answer.more_labels is not None:
        return f"Not possible with these data; about {answer.more_labels:,} more labels would be needed."
    return (
        "Not possible with these data, and no number of labels is known to be enough: already the estimate breaks the "
        "target, or meets it too closely."
    )


def _answer_to_dict(answer: RuleAnswer) -> dict[str, Any]:
    figures = answer.figures
    flat = asdict(figures) if figures else dict.fromkeys(RuleFigures.__dataclass_fields__)
    if figures is None and len(answer.targets) == 1 and answer.targets[0].kind == "max_loss":
        # Of the safest policy of the path: what could be shown at best.
        flat |= {"loss_estimate": answer.targets[0].estimate, "loss_upper_bound": answer.targets[0].bound}
    return {
        "certified": answer.certified,
        "threshold": figures.threshold if figures else None,
        **flat,
        "targets": [asdict(target) for target in answer.targets],
        "more_labels": answer.more_labels,
    }


def _curve_table(plan: Plan) -> Table:
    title = f"Certified away from the reference at a loss of {plan.limit:g}, by calibration labels"
    table = Table(title=title, box=None, title_justify="left")
    for header in ("labels", "share", "95 % of the curve", ""):
        table.add_column(header, justify="right")
    for p in plan.curve:
        interval = "-" if p.low is None or p.high is None else f"{p.low:.1%} to {p.high:.1%}"
        table.add_row(f"{p.n:,}", f"{p.share:.1%}", interval, "projected" if p.projected else "measured")
    return table


def _step_table(plan: Plan) -> Table:
    table = Table(title="Labels that would certify", box=None, title_justify="left")
    for header in ("share away", "loss here", "labels in total"):
        table.add_column(header, justify="right")
    for step in plan.steps:
        labels = f"{step.labels:,}" if step.labels is not None else "no number"
        table.add_row(f"{step.share:.1%}", f"{step.loss_estimate:.4f}", labels)
    return table
