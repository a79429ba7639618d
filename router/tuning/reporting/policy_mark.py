"""A policy on the chart of thresholds: where it stands, and which thresholds its certificate covers."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from probes.probe import DifficultyProbe
from router.errors import ConfigError
from router.policies.certificate import check_certificate, say_certificate
from router.policies.certificate_record import CertificateRecord, CertifiedTarget
from router.policies.loading import assemble
from router.policies.policy_file import GainRule, PolicyFile, read_policy_file

_ON_SPENDING = frozenset({"max_strong_share", "max_cost_usd_per_1k"})


@dataclass(frozen=True)
class PolicyMark:
    """The step from the weak to the strong model in a policy file.

    Attributes:
        name: of the policy. threshold: price of the step, in quality.
        certificate: valid for this policy and its probe; None where it has none.
        certified_region: lowest and highest threshold that it covers; None where no range of this step alone is.
    """

    name: str
    threshold: float
    certificate: CertificateRecord | None = None
    certified_region: tuple[float, float] | None = None

    @property
    def loss_target(self) -> CertifiedTarget | None:
        """The target on quality lost, where there is one."""
        targets = self.certificate.targets if self.certificate else ()
        return next((target for target in targets if target.kind == "max_loss"), None)

    def says(self) -> tuple[str, ...]:
        """Lines for people: what is certified, and each target with its bound."""
        lines = [f"Policy {self.name}, threshold {self.threshold:g}: {say_certificate(self.certificate)}."]
        if self.certificate is None:
            return tuple(lines)
        for target in self.certificate.targets:
            side = "lower" if target.kind == "min_quality" else "upper"
            lines.append(
                f"Target {target.kind} {target.limit:g}, confidence {self.certificate.confidence:g}: estimate "
                f"{target.estimate:.4g}, {side} bound {target.bound_on_estimate:.4g} ({target.method})."
            )
        if self.certified_region is None:
            lines.append("No range of thresholds of this step alone is certified, only the policy as it stands.")
        else:
            lines.append("Certified are all thresholds from {:g} to {:g}.".format(*self.certified_region))
        return tuple(lines)


def read_policy_mark(path: Path, probe: DifficultyProbe, weak: str, strong: str) -> PolicyMark:
    """The mark of a policy file, for the models `weak` and `strong` (names as in the probe).

    Raises ConfigError unless the policy has a gain rule with the two as neighbouring tiers, and its certificate, if it
    has one, is for this probe and for the rule as it stands.
    """
    policy = read_policy_file(path)
    threshold = step_threshold(policy, weak, strong)
    if threshold is None:
        raise ConfigError(
            f"policy {path} must have a gain rule with {weak} and {strong} as neighbouring tiers, cheapest first; got "
            f"{policy.rule.kind} over {', '.join(c.name_in_probe for c in policy.candidates)}."
        )
    if policy.certificate is not None:
        check_certificate(assemble(policy, probe).rules, probe.identity, f"policy {path}")
    return PolicyMark(policy.name, threshold, policy.certificate, _region(policy, threshold))


def _region(policy: PolicyFile, threshold: float) -> tuple[float, float] | None:
    """What `elle tune` passed on its walk: on quality from -1 up to the policy, on spending from 1 down to it."""
    certificate = policy.certificate
    # Several steps move together; and with another reference than the strong model the walk begins elsewhere.
    if certificate is None or len(policy.candidates) != 2 or certificate.reference != policy.candidates[-1].name:
        return None
    on_spending = {target.kind in _ON_SPENDING for target in certificate.targets}
    if len(on_spending) == 2:
        return None
    return (threshold, 1.0) if True in on_spending else (-1.0, threshold)


def step_threshold(policy: PolicyFile, weak: str, strong: str) -> float | None:
    """The price of the step from `weak` to `strong` (names as in the probe); None where the rule has no such step."""
    names = [candidate.name_in_probe for candidate in policy.candidates]
    if isinstance(policy.rule, GainRule):
        for price, pair in zip(policy.rule.thresholds, pairwise(names), strict=True):
            if pair == (weak, strong):
                return price
    return None
