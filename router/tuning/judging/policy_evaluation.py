"""`elle evaluate --policy`: a policy on outcomes, in the sentence that a manager reads, with a row per profile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from probes.errors import DataError
from probes.measures.bootstrap import Interval
from probes.probe import DataSource, fingerprints
from router.policies.certificate import say_certificate
from router.policies.loading import ServedPolicy, load_policy
from router.policies.policy_file import Candidate
from router.tuning.judging.policy_figures import REFUSED, Facts, RuleFigures, decide_all, facts_of, measure_rules
from router.tuning.outcomes.datasets import Outcomes, read_outcomes
from router.tuning.outcomes.feature_cache import FeatureCache, Progress
from router.tuning.outcomes.latest import latest, parse_latest

#: From this share on, prompts that the probe was fitted on are warned of.
_SEEN_SHARE = 0.01


@dataclass(frozen=True)
class PolicyEvaluation:
    """A policy on outcomes.

    Attributes:
        policy: its name. rules: the policy, its profiles, then each candidate answering everything.
        weak, strong: the candidates it is compared with.
        n: prompts evaluated. n_refused: further ones that no candidate may answer.
        n_seen_in_fit: of the n, prompts whose text the probe was fitted on; figures on those flatter.
        unseen: the policy's figures on the others; None where all or none were seen.
        estimated_by: what stands in for a score that was not observed, in words.
        period: what was held out by time, in words; None if nothing was.
        notes: what the reader must know.
        data: the files, with their SHA-256 and number of rows.
    """

    policy: str
    rules: tuple[RuleFigures, ...]
    weak: str
    strong: str
    n: int
    n_refused: int
    n_seen_in_fit: int
    unseen: RuleFigures | None
    estimated_by: str
    period: str | None
    notes: tuple[str, ...]
    data: tuple[DataSource, ...]

    @property
    def own(self) -> RuleFigures:
        """The policy's own rule."""
        return self.rules[0]

    @property
    def always_strong(self) -> RuleFigures:
        """The strong candidate answering everything."""
        return next(one for one in self.rules if one.name == f"always {self.strong}")

    @property
    def sentence(self) -> str:
        """What goes where, at what quality, at what cost, against always strong."""
        own, strong = self.own, self.always_strong
        going = [f"{1000 * share:.0f} go to {name}" for name, share in own.shares.items()]
        said = [f"Of 1,000 requests {_listed(going)}."]
        said.append(
            f"Their mean quality is {_number(own.quality)}; always {self.strong} has {strong.quality.value:.3f}, so "
            f"{_difference(own.lost)}."
        )
        if own.cost_usd_per_1k is None:
            said.append("What they cost is not known: give the candidates prices.")
        else:
            said.append(f"1,000 requests cost {own.cost_usd_per_1k.value:.2f} USD{self._saving()}.")
        return " ".join(said)

    def _saving(self) -> str:
        saved, strong = self.own.saved, self.always_strong.cost_usd_per_1k
        if saved is None or strong is None:
            return ""
        word, low, high = "is saved", saved.low, saved.high
        if saved.value < 0:
            word, low, high = "more is spent", -saved.high, -saved.low
        share = f"{abs(saved.value):.0%} {word}" + (f" ({low:+.0%} to {high:+.0%})" if low != high else "")
        return f"; always {self.strong} costs {strong.value:.2f} USD, so {share}"

    @property
    def estimates(self) -> tuple[str, ...]:
        """What of the sentence is no observation but an estimate."""
        own, strong, said = self.own, self.always_strong, []
        for one, of in ((own, "the policy's choices"), (strong, f"always {self.strong}")):
            if one.observed_share < 1.0:
                low, high = one.quality_bounds
                said.append(
                    f"{1 - one.observed_share:.1%} of the scores of {of} were not observed and are estimated by "
                    f"{self.estimated_by}; whatever they are, the mean lies between {low:.3f} and {high:.3f}."
                )
        if own.observed_share < 1.0 or strong.observed_share < 1.0:
            low, high = own.lost_bounds
            said.append(
                f"The intervals do not cover errors of these estimates; whatever the scores are, the loss lies between "
                f"{low:+.3f} and {high:+.3f}."
            )
        if own.cost_estimated_share:
            said.append(
                f"{own.cost_estimated_share:.1%} of the costs are estimated: the data lack their token counts, so the "
                "prompt's length and the candidate's expected_output_tokens stand in."
            )
        return tuple(said)

    @property
    def warning(self) -> str | None:
        """What makes the figures flatter; None where nothing does."""
        if self.n_seen_in_fit < _SEEN_SHARE * self.n or not self.n_seen_in_fit:
            return None
        rest = ""
        if self.unseen is not None:
            rest = f" On the other {self.n - self.n_seen_in_fit:,}: quality {_number(self.unseen.quality)}, "
            rest += f"{_difference(self.unseen.lost)}."
        return (
            f"{self.n_seen_in_fit:,} of these {self.n:,} prompts have a text that the probe was fitted on, so the "
            f"figures may flatter it.{rest}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, the sentence first."""
        return {
            "sentence": self.sentence,
            "estimates": list(self.estimates),
            "warning": self.warning,
            "policy": self.policy,
            "weak": self.weak,
            "strong": self.strong,
            "n": self.n,
            "n_refused": self.n_refused,
            "n_seen_in_fit": self.n_seen_in_fit,
            "unseen": None if self.unseen is None else asdict(self.unseen),
            "period": self.period,
            "rules": [asdict(one) for one in self.rules],
            "notes": list(self.notes),
            "data": [asdict(source) for source in self.data],
        }

    def print(self, console: Console) -> None:
        """For people: the sentence, what is estimated, then a row per rule."""
        for text in (self.sentence, *self.estimates):
            console.print(text, highlight=False)
        table = Table(box=None, pad_edge=False)
        for place, header in enumerate(HEADERS):
            table.add_column(header, justify="left" if not place else "right")
        for one in self.rules:
            table.add_row(*cells_of(one))
        console.print(table)
        for note in self.notes:
            console.print(note, style="dim", highlight=False)


#: Columns of the table of rules.
HEADERS = ("rule", "answered by", "quality", "lost", "USD per 1,000", "saved", "observed", "abstained")


def cells_of(one: RuleFigures) -> tuple[str, ...]:
    """The row of a rule in the table."""
    cost, saved = one.cost_usd_per_1k, one.saved
    return (
        one.name,
        ", ".join(f"{name} {share:.1%}" for name, share in one.shares.items() if share),
        f"{one.quality.value:.3f} [{one.quality.low:.3f}, {one.quality.high:.3f}]",
        f"{one.lost.value:+.3f} [{one.lost.low:+.3f}, {one.lost.high:+.3f}]",
        "-" if cost is None else f"{cost.value:.2f} [{cost.low:.2f}, {cost.high:.2f}]",
        "-" if saved is None else f"{saved.value:.1%} [{saved.low:.1%}, {saved.high:.1%}]",
        f"{one.observed_share:.1%}",
        f"{one.abstained_share:.1%}",
    )


def evaluate_policy_command(
    policy_file: Path,
    data: Sequence[Path],
    *,
    weak: str | None,
    strong: str | None,
    holdout: str | None,
    time_column: str | None,
    encoder_dir: Path | None,
    resamples: int,
    seed: int,
    on_progress: Progress | None,
) -> PolicyEvaluation:
    """What `elle evaluate --policy` does. Raises ArtifactError, ConfigError, DataError or EncoderError."""
    share = None if holdout is None else parse_latest(holdout)
    served = load_policy(policy_file)
    outcomes = read_outcomes(*data, time_column=time_column)
    period = None
    if share is not None:
        held = latest(outcomes, share)
        outcomes = outcomes.take(np.flatnonzero(held.rows))
        period = (
            f"the latest {share:.0%} of the prompts, {held.since:%Y-%m-%d %H:%M} to {held.until:%Y-%m-%d %H:%M} UTC"
        )
        if held.n_without_time:
            period += f"; {held.n_without_time:,} prompts without a time are left out"
    outcomes = candidate_outcomes(outcomes, served.rules.file.candidates)
    features = None
    if served.encoder_spec is not None:
        features = FeatureCache().features(
            served.encoder_spec, outcomes.texts, encoder_dir=encoder_dir, on_progress=on_progress
        )
    found = evaluate_policy(served, outcomes, features, weak=weak, strong=strong, resamples=resamples, seed=seed)
    return replace(found, period=period)


def candidate_outcomes(outcomes: Outcomes, candidates: Sequence[Candidate]) -> Outcomes:
    """The outcomes with one column per candidate, in its order, all NaN for a candidate that the data do not have.

    A candidate is found by its name in the probe, its own name, or its model string. Prompts that none of them answered
    stay: whom the policy would choose for them counts. Raises DataError where the data have none of the candidates.
    """
    columns = []
    for candidate in candidates:
        known = [name for name in _names_of(candidate) if name in outcomes.models]
        columns.append(outcomes.models.index(known[0]) if known else None)
    if not any(column is not None for column in columns):
        raise DataError(
            f"the data must hold outcomes of the policy's candidates ({', '.join(c.name for c in candidates)}); they "
            f"hold {', '.join(outcomes.models)}."
        )

    def arranged(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        absent = np.full(len(values), np.nan)
        return np.stack([absent if column is None else values[:, column] for column in columns], axis=1)

    return replace(
        outcomes,
        models=tuple(candidate.name for candidate in candidates),
        scores=arranged(outcomes.scores),
        cost_usd=arranged(outcomes.cost_usd),
        input_tokens=arranged(outcomes.input_tokens),
        output_tokens=arranged(outcomes.output_tokens),
    )


def _names_of(candidate: Candidate) -> tuple[str, ...]:
    return candidate.name_in_probe, candidate.name, candidate.model


def evaluate_policy(
    served: ServedPolicy,
    outcomes: Outcomes,
    features: npt.NDArray[np.float32] | None,
    *,
    weak: str | None = None,
    strong: str | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> PolicyEvaluation:
    """Evaluate a policy and its profiles on outcomes as `candidate_outcomes` gives them.

    features: (n, d) of the prompts, None for a policy without a probe. weak, strong: candidates, by name or by what the
    data call them; the cheapest and the strongest tier unless given. Raises DataError as `measure_rules`.
    """
    file = served.rules.file
    first = 0 if weak is None else _candidate(file.candidates, weak, "--weak")
    last = len(file.names) - 1 if strong is None else _candidate(file.candidates, strong, "--strong")
    prediction = None if served.probe is None or features is None else served.probe.predict(features)
    policies = (served, *served.profiles())
    decided = {one.ref.name: decide_all(one, outcomes.asks, prediction) for one in policies}
    answered = np.all([one.chosen != REFUSED for one in decided.values()], axis=0)
    kept = {
        name: replace(one, chosen=one.chosen[answered], abstained=one.abstained[answered])
        for name, one in decided.items()
    }
    facts = facts_of(served, outcomes, prediction).take(answered)
    how: dict[str, Any] = {"weak": first, "strong": last, "resamples": resamples, "seed": seed}
    rules = measure_rules(kept, facts, file.names, **how)
    seen = _seen(served, outcomes)[answered]
    unseen = None
    if 0 < seen.sum() < len(seen):
        own = kept[served.ref.name]
        others = {served.ref.name: replace(own, chosen=own.chosen[~seen], abstained=own.abstained[~seen])}
        unseen = measure_rules(others, facts.take(~seen), file.names, **how)[0]
    return PolicyEvaluation(
        policy=served.ref.name,
        rules=rules,
        weak=file.names[first],
        strong=file.names[last],
        n=int(answered.sum()),
        n_refused=int((~answered).sum()),
        n_seen_in_fit=int(seen.sum()),
        unseen=unseen,
        estimated_by="the mean of the candidate's scores" if prediction is None else "the probe",
        period=None,
        notes=_notes(policies, facts, int((~answered).sum())),
        data=outcomes.sources,
    )


def _candidate(candidates: Sequence[Candidate], name: str, option: str) -> int:
    for number, candidate in enumerate(candidates):
        if name in _names_of(candidate):
            return number
    raise DataError(
        f"{option} must be a candidate of the policy ({', '.join(c.name for c in candidates)}), got {name!r}."
    )


def _seen(served: ServedPolicy, outcomes: Outcomes) -> npt.NDArray[np.bool_]:
    if served.probe is None:
        return np.zeros(len(outcomes), dtype=np.bool_)
    return np.isin(fingerprints(outcomes.texts), served.probe.fitted_on)


def _notes(policies: Sequence[ServedPolicy], facts: Facts, refused: int) -> tuple[str, ...]:
    notes = ["Every request is decided by itself, without session and overrides. Intervals are 95 %, over prompts."]
    if refused:
        notes.append(f"{refused:,} further prompts may be answered by no candidate and are left out.")
    names = policies[0].rules.file.names
    for number, name in enumerate(names):
        if not facts.observed[:, number].any():
            notes.append(f"The data hold no score of {name}: its quality is estimated throughout.")
        if not np.isfinite(facts.cost_usd[:, number]).all():
            notes.append(f"The price of {name} is not known; state it in the policy.")
    notes += [f"{policy.ref.name}: {say_certificate(policy.certificate)}." for policy in policies]
    return tuple(notes)


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + f" and {parts[-1]}"


def _number(interval: Interval) -> str:
    return f"{interval.value:.3f} (95 % interval {interval.low:.3f} to {interval.high:.3f})"


def _difference(lost: Interval) -> str:
    if lost.low == lost.high == 0.0:
        return "nothing is lost"
    word, low, high = ("lost", lost.low, lost.high) if lost.value >= 0 else ("gained", -lost.high, -lost.low)
    return f"{abs(lost.value):.3f} is {word} ({low:+.3f} to {high:+.3f})"
