"""Lead one canary from its first share of the traffic to its promotion, or to its end (`Canary`)."""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from probes.bounded.text import fields_fault
from router.errors import ConfigError
from router.rollout.assignment import LEAST_SHARE, is_in_canary
from router.rollout.evidence import CanaryEvidence


class CanaryStatus(enum.StrEnum):
    """The states of a canary."""

    #: It decides its share, and waits for nothing but more requests.
    RUNNING = "running"
    #: It decides its share, and is not widened, because labels are missing or the evidence is inconclusive.
    PAUSED = "paused"
    #: It decides everything: its policy may be activated for good.
    PROMOTED = "promoted"
    #: It decides nothing any more, because the evidence speaks against it.
    ROLLED_BACK = "rolled_back"
    #: It decides nothing any more, because somebody stopped it.
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class CanaryPlan:
    """Says which policy is tried, against which one, in which steps and within which limit.

    Attributes:
        canary_id: the id of the canary, which also draws its sessions.
        policy: the name of the policy that is tried.
        base: the name of the policy that serves, whose requests it takes.
        max_loss: the largest mean loss against the reference candidate that is acceptable.
        steps: the shares of the traffic, rising, 0 to 1; the last one is usually 1.
        labels_per_step: the number of labels that each step needs before the next one.
    """

    canary_id: str
    policy: str
    base: str
    max_loss: float
    steps: tuple[float, ...] = (0.05, 0.25, 0.5, 1.0)
    labels_per_step: int = 200

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in zip(self.steps, self.steps[1:], strict=False))
        if not self.steps or not rising or not self.steps[0] >= LEAST_SHARE or self.steps[-1] > 1:
            raise ConfigError(
                f"the steps of a canary must be shares that rise, from {LEAST_SHARE:g} up to 1; got "
                f"{', '.join(map(str, self.steps)) or 'none'}."
            )
        if not all(isinstance(name, str) and name for name in (self.policy, self.base)):
            raise ConfigError("a canary needs the names of two policies: the new one, and the one that serves.")
        if self.labels_per_step < 1:
            raise ConfigError(f"a canary needs at least 1 label for each step, got {self.labels_per_step}.")
        if self.policy == self.base:
            raise ConfigError(f"a canary must try another policy than the one that serves, {self.base!r}.")


@dataclass(frozen=True, slots=True)
class CanaryEvent:
    """Records one change of a canary for the audit trail.

    Attributes:
        at: the time in seconds since 1970.
        status: the state after the change.
        share: the share of the traffic after the change.
        why: the reason in words.
    """

    at: float
    status: CanaryStatus
    share: float
    why: str


class Canary:
    """Decides which policy a request gets, takes evidence, and changes its share by it.

    It is not thread-safe: call it from one event loop.

    Args:
        plan: what is tried, in which steps.
        on_change: called with every change, for the audit trail.
        clock: returns the time in seconds since 1970.
    """

    def __init__(
        self,
        plan: CanaryPlan,
        *,
        on_change: Callable[[CanaryEvent], None] = lambda _: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.plan = plan
        self.evidence = CanaryEvidence(plan.max_loss)
        self.status = CanaryStatus.RUNNING
        self._on_change, self._clock = on_change, clock
        self._step = 0
        self._labels_before = 0

    @property
    def share(self) -> float:
        """The share of the traffic that the canary decides now."""
        if self.is_over and self.status is not CanaryStatus.PROMOTED:
            return 0.0
        return self.plan.steps[self._step]

    @property
    def is_over(self) -> bool:
        """Whether the canary has ended, one way or the other."""
        return self.status not in (CanaryStatus.RUNNING, CanaryStatus.PAUSED)

    def policy_for(self, key: str) -> str:
        """Return the name of the policy that decides the requests with this key, as `is_in_canary` takes it."""
        return self.plan.policy if is_in_canary(self.plan.canary_id, key, self.share) else self.plan.base

    def label(self, loss: float) -> None:
        """Add the measured loss of one answer of the canary against the reference, and change the share by it."""
        self.evidence.label(loss)
        self._weigh()

    def ended(self, policy: str, *, failed: bool, latency_s: float | None) -> None:
        """Note how the answer to a request that was decided by this policy ended, and change the share by it."""
        if policy == self.plan.policy:
            self.evidence.ended(failed=failed, latency_s=latency_s)
            self._weigh()
        elif policy == self.plan.base and latency_s is not None and not failed:
            self.evidence.ended_elsewhere(latency_s)

    def figures(self) -> dict[str, Any]:
        """Return what is tried, how far it is, and on how much evidence, as plain values for those who show it."""
        return {
            "policy": self.plan.policy,
            "base": self.plan.base,
            "status": self.status.value,
            "share": self.share,
            "max_loss": self.plan.max_loss,
            "labels": self.evidence.n_labels,
            "requests": self.evidence.n_requests,
        }

    def pause(self, why: str) -> None:
        """Keep the share as it is until the next label, for example because labels have stopped coming."""
        if self.status is CanaryStatus.RUNNING:
            self._become(CanaryStatus.PAUSED, why)

    def stop(self, why: str) -> None:
        """End the canary, also one that was promoted, so that the policy that serves decides everything again."""
        if self.share:
            self._become(CanaryStatus.STOPPED, why)

    def _weigh(self) -> None:
        if self.is_over:
            return
        if against := self.evidence.against:
            self._become(CanaryStatus.ROLLED_BACK, against)
            return
        missing = self.plan.labels_per_step - (self.evidence.n_labels - self._labels_before)
        if missing > 0:
            if self.status is CanaryStatus.PAUSED and self.evidence.n_labels == self._labels_before + 1:
                self._become(CanaryStatus.RUNNING, "labels come again")
            return
        if self.evidence.is_good:
            self._widen()
        elif self.status is CanaryStatus.RUNNING:
            low, high = self.evidence.loss_interval()
            self._become(
                CanaryStatus.PAUSED,
                f"the evidence is inconclusive after {self.evidence.n_labels:,} labels: the mean loss lies between "
                f"{low:.3f} and {high:.3f}",
            )

    def _widen(self) -> None:
        most = self.evidence.max_loss + self.evidence.slack
        why = f"{self.evidence.n_labels:,} labels show that the mean loss is less than {most:g}"
        if self._step == len(self.plan.steps) - 1:
            self._become(CanaryStatus.PROMOTED, why)
            return
        self._step += 1
        self._labels_before = self.evidence.n_labels
        self._become(CanaryStatus.RUNNING, why)

    def _become(self, status: CanaryStatus, why: str) -> None:
        self.status = status
        self._on_change(CanaryEvent(self._clock(), status, self.share, why))

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain JSON, so that a restart or another process can go on."""
        return {
            "plan": asdict(self.plan),
            "status": self.status.value,
            "step": self._step,
            "labels_before": self._labels_before,
            "evidence": self.evidence.to_json(),
        }

    @classmethod
    def from_json(cls, plain: Mapping[str, Any], **rest: Any) -> Canary:
        """Return the canary that `to_json` wrote; `rest` are further arguments.

        Raises ConfigError for anything else.
        """
        try:
            plan = dict(plain["plan"])
            made = cls(CanaryPlan(**{**plan, "steps": tuple(plan["steps"])}), **rest)
            made.evidence = CanaryEvidence.from_json(plain["evidence"])
            made.status = CanaryStatus(plain["status"])
            made._step, made._labels_before = int(plain["step"]), int(plain["labels_before"])
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise ConfigError(f"this is no state of a canary: {fields_fault(error)}.") from error
        if not 0 <= made._step < len(made.plan.steps):
            raise ConfigError(f"the state of a canary names step {made._step}, which its plan does not have.")
        return made
