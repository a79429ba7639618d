"""Test the policies of a path for every target by fixed-sequence testing, and select a policy that keeps all targets.

This is Learn-then-Test (`probes.certificates.fixed_sequence`). The null hypothesis of a policy is that its mean loss
exceeds the limit. Targets on quality (`max_loss`, `min_quality`) are tested from the safest policy to the cheapest,
targets on spending (`max_strong_share`, `max_cost_usd_per_1k`) from the cheapest to the safest, each at an equal share
of delta. All policies before the first one whose null hypothesis is not rejected are certified together. So a policy
that every target's test certifies keeps all targets with confidence 1 - delta.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from probes.certificates.bounds import upper_bound
from probes.certificates.fixed_sequence import Certificate, NotCertified, certify_path
from probes.certificates.label_planning import labels_needed
from router.tuning.certifying.rule_paths import PathRule, PolicyPath
from router.tuning.certifying.targets import LossData, Losses, Target, losses_of


@dataclass(frozen=True)
class TargetTest:
    """Holds the result of testing the policies of a path for one target: those from `first` to `last` keep it.

    result: about the last policy that fixed-sequence testing certified; if it certified none, about the policy that it
    tested first.
    """

    target: Target
    losses: Losses
    result: Certificate | NotCertified

    @property
    def certified(self) -> bool:
        """True if some policy of the path is certified to keep the target."""
        return isinstance(self.result, Certificate)

    @property
    def first(self) -> int:
        """The number of the first policy that keeps the target, or the number of policies if no policy does."""
        if not isinstance(self.result, Certificate):
            return len(self.losses.matrix)
        # A target on spending was tested from the other end of the path, so its index counts from there.
        return len(self.losses.matrix) - 1 - self.result.index if self.target.on_spending else 0

    @property
    def last(self) -> int:
        """The number of the last policy that keeps the target, or -1 if no policy does."""
        if not isinstance(self.result, Certificate):
            return -1
        return len(self.losses.matrix) - 1 if self.target.on_spending else self.result.index

    def estimate(self, policy: int) -> float:
        """Return the mean calibration loss of one policy."""
        return self.losses.mean(policy)

    def bound(self, policy: int) -> float:
        """Return the upper confidence bound on the mean loss of one policy, as if it had been the only one tested."""
        x = self.losses
        return float(upper_bound(x.matrix[policy : policy + 1], self.result.delta, x.bound)[0])

    def labels_for(self, policy: int) -> int | None:
        """Return how many calibration prompts would probably certify this policy, or None if no number is known."""
        x = self.losses
        return labels_needed(x.matrix[policy : policy + 1], x.limit, self.result.delta, x.bound, max_labels=50_000)


@dataclass(frozen=True)
class PolicySelection:
    """Holds which policy of a path is selected for targets that must all hold.

    tests: one per target. policy: the number of the certified policy; None if no policy keeps all targets.
    """

    tests: tuple[TargetTest, ...]
    policy: int | None

    @property
    def only_on_spending(self) -> bool:
        """True if all targets limit spending; then the safest policy is selected, otherwise the cheapest."""
        return all(test.target.on_spending for test in self.tests)

    @property
    def policy_or_guess(self) -> int:
        """The number of the certified policy, or of the policy that looks best if no policy is certified."""
        return self._best_guess() if self.policy is None else self.policy

    def rule(self, path: PolicyPath) -> PathRule:
        """Return the rule of that policy: the safest one if only spending is limited, otherwise the cheapest."""
        return path.rule(self.policy_or_guess, safest=self.only_on_spending)

    @property
    def more_labels(self) -> int | None:
        """About how many labels to add so that the targets are certified, or None if no number is known."""
        failed = [test.result.more_labels for test in self.tests if isinstance(test.result, NotCertified)]
        if failed:
            return None if None in failed else max(number for number in failed if number is not None)
        # Each target is kept by some policy, but no policy keeps all. The policy closest to keeping all is the last one
        # that some target's test certified: ask how many labels it needs for the other targets.
        ends = {test.first if test.target.on_spending else test.last for test in self.tests}
        needs = [self._labels_at(end) for end in ends]
        known = [number for number in needs if number is not None]
        n = self.tests[0].result.n
        return max(min(known) - n, 1) if known else None

    def _labels_at(self, policy: int) -> int | None:
        needs = [test.labels_for(policy) for test in self.tests if not test.first <= policy <= test.last]
        return None if None in needs else max((number for number in needs if number is not None), default=None)

    def _best_guess(self) -> int:
        """Return the policy whose mean calibration losses keep all targets, without any proof; else the safest."""
        keeps = np.ones(len(self.tests[0].losses.matrix), dtype=bool)
        for test in self.tests:
            keeps &= test.losses.matrix.mean(axis=1) <= test.losses.limit
        found: npt.NDArray[np.intp] = np.flatnonzero(keeps)
        if not found.size:
            return 0
        return int(found[0] if self.only_on_spending else found[-1])


def select_policy(targets: Sequence[Target], path: PolicyPath, data: LossData, delta_each: float) -> PolicySelection:
    """Return the policy of a path that is certified to keep all targets, each tested at level `delta_each`.

    If several policies keep all targets, the cheapest one is selected; if all targets limit spending, the safest one.
    Raises DataError as `losses_of` does.
    """
    tests = tuple(_test_target(target, path, data, delta_each) for target in targets)
    # Each test certifies an unbroken run of policies from one end of the path. All targets hold where the runs overlap.
    first, last = max(test.first for test in tests), min(test.last for test in tests)
    if first > last:
        return PolicySelection(tests, None)
    return PolicySelection(tests, first if all(test.target.on_spending for test in tests) else last)


def _test_target(target: Target, path: PolicyPath, data: LossData, delta: float) -> TargetTest:
    losses = losses_of(target, path.chosen, data)
    # Fixed-sequence testing starts with the policy that is most likely to keep the target.
    sequence = losses.matrix[::-1] if target.on_spending else losses.matrix
    return TargetTest(target, losses, certify_path(sequence, losses.limit, delta, losses.bound))
