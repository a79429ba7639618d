"""Find a policy's marker for the chart of thresholds: its threshold, and the range that its certificate covers."""

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
class ThresholdMarker:
    """Holds the step from the weak to the strong model in a policy file.

    Attributes:
        name: of the policy. threshold: the gain in quality from which the strong model answers.
        certificate: valid for this policy and its probe; None if the policy has none.
        certified_region: lowest and highest threshold that the certificate covers; None if it covers no range of
            thresholds of this step alone.
    """

    name: str
    threshold: float
    certificate: CertificateRecord | None = None
    certified_region: tuple[float, float] | None = None

    @property
    def loss_target(self) -> CertifiedTarget | None:
        """The certified target on quality lost, or None if the policy has no such target."""
        targets = self.certificate.targets if self.certificate else ()
        return next((target for target in targets if target.kind == "max_loss"), None)

    def describe(self) -> tuple[str, ...]:
        """Return lines that tell people what is certified, and each target with its bound."""
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
            lines.append("The certificate covers the policy as it is, and no range of thresholds of this step alone.")
        else:
            lines.append("All thresholds from {:g} to {:g} are certified.".format(*self.certified_region))
        return tuple(lines)


def read_threshold_marker(path: Path, probe: DifficultyProbe, weak: str, strong: str) -> ThresholdMarker:
    """Return the marker of a policy file, for the models `weak` and `strong` (names as in the probe).

    Raises ConfigError unless the policy has a gain rule in which the two are neighbouring tiers. Raises it also if the
    policy has a certificate that is for another probe or another rule.
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
    return ThresholdMarker(policy.name, threshold, policy.certificate, _region(policy, threshold))


def _region(policy: PolicyFile, threshold: float) -> tuple[float, float] | None:
    """Return the thresholds that `elle tune` certified on its way to the policy.

    For targets on quality they run from -1 up to the policy's threshold, for targets on spending from 1 down to it.
    """
    certificate = policy.certificate
    # With three candidates or more, several thresholds move together. With another reference than the strong model,
    # the path of `elle tune` begins elsewhere.
    if certificate is None or len(policy.candidates) != 2 or certificate.reference != policy.candidates[-1].name:
        return None
    on_spending = {target.kind in _ON_SPENDING for target in certificate.targets}
    if len(on_spending) == 2:
        return None
    return (threshold, 1.0) if True in on_spending else (-1.0, threshold)


def step_threshold(policy: PolicyFile, weak: str, strong: str) -> float | None:
    """Return the threshold between `weak` and `strong` (names as in the probe), or None if the rule has none."""
    names = [candidate.name_in_probe for candidate in policy.candidates]
    if isinstance(policy.rule, GainRule):
        for price, pair in zip(policy.rule.thresholds, pairwise(names), strict=True):
            if pair == (weak, strong):
                return price
    return None
