"""Certify the targets of an old policy again on a recalibrated probe, and compare what both policies decide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from probes.atomic_write import write_file
from probes.errors import DataError
from probes.probe import DifficultyProbe
from router.errors import ConfigError
from router.policies.certificate_record import CertificateRecord
from router.policies.choice import choose
from router.policies.eligibility import check_eligibility
from router.policies.loading import ServedPolicy, assemble, load_policy
from router.policies.policy_file import read_policy_file
from router.tuning.certifying.results.tuning_result import RuleResult, TuningResult
from router.tuning.certifying.settings import TuneSettings
from router.tuning.certifying.targets import Target
from router.tuning.certifying.tuned_policy import policy_text
from router.tuning.outcomes.datasets import Outcomes
from router.values import Overrides

#: What a new policy file takes over from the old one: nothing of it decides.
_TAKEN_OVER = ("name", "version", "fallback", "aliases")


@dataclass(frozen=True)
class DecisionChange:
    """Says how the decisions on n prompts change.

    Attributes:
        changed: prompts with another candidate; `cheaper` of them go to a lower tier, and `stronger` to a higher one.
        shares_before, shares_after: the share of the prompts that each candidate answers.
        by_new_rule: whether the new decisions are those of the new policy; else the old rule weighs the new risks.
    """

    n: int
    changed: int
    cheaper: int
    stronger: int
    shares_before: dict[str, float]
    shares_after: dict[str, float]
    by_new_rule: bool


def load_certified(path: Path, probe: DifficultyProbe) -> ServedPolicy:
    """Return a certified policy on this probe. Raises ConfigError if it has no certificate, or another probe."""
    policy = load_policy(path)
    if policy.probe is None or policy.probe.identity != probe.identity:
        raise ConfigError(f"policy file {path} must be of PROBE, and it decides by something else; give its own probe.")
    if not all(_records(policy).values()):
        raise ConfigError(
            f"policy file {path} must have a certificate of each of its rules, whose targets are certified again. Tune "
            "one with `elle tune`, or leave out --policy."
        )
    return policy


def settings_of(path: Path, policy: ServedPolicy, **further: Any) -> TuneSettings:
    """Return the settings of `elle tune` that ask for the same as the certificates of a policy file.

    further: settings that no certificate records.
    """
    file, main = policy.rules.file, policy.certificate
    assert main is not None  # noqa: S101  (`load_certified` has looked)
    profiles = {}
    for name, record in _records(policy).items():
        if name and record is not None:
            (target,) = record.targets
            profiles[name] = Target(target.kind, target.limit)
    people = main.about == "people"
    return TuneSettings(
        targets=tuple(Target(target.kind, target.limit) for target in main.targets),
        profiles=profiles,
        candidates=path,
        reference=next(one.name_in_probe for one in file.candidates if one.name == main.reference),
        rule=file.rule.kind,
        confidence=main.confidence,
        about="people" if people else "judge",
        sessions=file.sessions,
        valid_days=max((main.expires - main.created).total_seconds() / 86_400, 1e-6),
        **further,
    )


def take_over(path: Path, old: ServedPolicy, result: TuningResult) -> None:
    """Give a policy file that was tuned the name, version, fallback and aliases of the old one, and check it."""
    file = read_policy_file(path).model_copy(update={key: getattr(old.rules.file, key) for key in _TAKEN_OVER})
    write_file(path, policy_text(file, result).encode())
    load_policy(path)


def same_rule(old: ServedPolicy, probe: DifficultyProbe) -> ServedPolicy:
    """Return the old policy on a new probe, without certificates, which do not hold for it."""
    return assemble(old.rules.file.model_copy(update={"certificate": None, "profiles": {}, "aliases": {}}), probe)


def compare_decisions(
    old: ServedPolicy, new: ServedPolicy, outcomes: Outcomes, features: npt.NDArray[np.float32], *, by_new_rule: bool
) -> DecisionChange:
    """Decide every prompt (n, d) by both policies, as the service would outside of sessions."""
    names = old.rules.file.names
    before, after = (_chosen(policy, outcomes, features) for policy in (old, new))
    return DecisionChange(
        n=len(outcomes),
        changed=int((before != after).sum()),
        cheaper=int((after < before).sum()),
        stronger=int((after > before).sum()),
        shares_before=_shares(before, names),
        shares_after=_shares(after, names),
        by_new_rule=by_new_rule,
    )


def certificates(old: ServedPolicy, result: TuningResult) -> list[dict[str, Any]]:
    """Return for every target of every rule what was certified before and what is now, as plain JSON values."""
    results = {"": result.main, **result.profiles}
    return [row for key, record in _records(old).items() for row in _targets(key, record, results[key], result)]


def _targets(
    key: str, record: CertificateRecord | None, found: RuleResult, result: TuningResult
) -> Sequence[dict[str, Any]]:
    assert record is not None  # noqa: S101  (`load_certified` has looked)
    return [
        {
            "profile": key,
            "kind": before.kind,
            "limit": before.limit,
            "before": {
                "estimate": before.estimate,
                "bound": before.bound_on_estimate,
                "n": record.n_calibration,
                "expires": record.expires.isoformat(),
            },
            "after": {
                "certified": after.certified,
                "estimate": after.estimate,
                "bound": after.bound,
                "n": result.n_calibration,
                "expires": result.expires.isoformat() if after.certified else None,
            },
        }
        for before, after in zip(record.targets, found.targets, strict=True)
    ]


def _records(policy: ServedPolicy) -> dict[str, CertificateRecord | None]:
    """Return the certificate of each rule by profile name, "" for the policy's own."""
    profiles = {name: one.certificate for name, one in policy.rules.file.profiles.items()}
    if any(record is not None and len(record.targets) != 1 for record in profiles.values()):
        raise DataError("a profile of the policy must have one target; its certificate has several.")
    return {"": policy.certificate, **profiles}


def _chosen(policy: ServedPolicy, outcomes: Outcomes, features: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    assert policy.probe is not None  # noqa: S101  (`load_certified` has looked)
    names = policy.rules.file.names
    judged = policy.judge_all(policy.probe.predict(features, outcomes.tasks or None))
    pairs = zip(outcomes.asks, judged, strict=True)
    chosen = [choose(check_eligibility(policy.rules, ask, Overrides()), one).chosen.name for ask, one in pairs]
    return np.array([names.index(name) for name in chosen], dtype=np.int64)


def _shares(chosen: npt.NDArray[np.int64], names: Sequence[str]) -> dict[str, float]:
    return {name: float((chosen == number).mean()) for number, name in enumerate(names)}


def moved_to(result: TuningResult, folder: Path) -> TuningResult:
    """Return the result with its policy file in another folder."""
    return result if result.policy_file is None else replace(result, policy_file=str(folder / "policy.yaml"))
