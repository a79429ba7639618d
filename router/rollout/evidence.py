"""Weigh what is known of a canary: labels of its answers, its errors and its latency (`CanaryEvidence`)."""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping
from typing import Any

from probes.bounded.text import fields_fault
from probes.certificates.monitor import RiskMonitor
from probes.errors import DataError
from router.errors import ConfigError

#: The chance that a canary which keeps its target is ever rolled back is at most the sum of these three, 3 %.
LOSS_ALPHA, ERROR_ALPHA, LATENCY_ALPHA = 0.02, 0.005, 0.005

#: The chance that a canary is ever widened although its mean loss is beyond the limit and the slack.
WIDEN_ALPHA = 0.05

#: Latencies of the serving policy from which the bound on slow answers is learned before the canary is judged by it.
LATENCY_SAMPLE = 200

#: The share of answers that may be slower than nearly all (the 95th percentile) of the answers of the serving policy.
MOST_SLOW = 0.10


class CanaryEvidence:
    """Keeps anytime-valid evidence on one canary. It may be looked at after every request, for any length of time.

    Three monitors can speak against the canary: the mean loss exceeds `max_loss`, errors are more frequent than
    `max_errors`, slow answers are more frequent than `MOST_SLOW`. A fourth speaks for it: that the mean loss is at
    least `max_loss + slack` is refuted now. See `probes.certificates.monitor` for the method.

    Args:
        max_loss: the largest mean loss against the reference that is acceptable, -1 to 1.
        slack: how much more than `max_loss` is still good enough to widen the canary. Without it a policy right at its
            limit could never be widened.
        max_errors: the share of requests, 0 to 1, that may end without an answer.
    """

    def __init__(self, max_loss: float, *, slack: float = 0.02, max_errors: float = 0.02) -> None:
        if not -1 < max_loss < 1 or not 0 < slack < 1 - max_loss or not 0 < max_errors < 1:
            raise ConfigError(
                f"a canary needs -1 < max_loss < 1, a slack above 0 with max_loss + slack < 1, and 0 < max_errors < 1; "
                f"got {max_loss}, {slack} and {max_errors}."
            )
        self.max_loss, self.slack, self.max_errors = max_loss, slack, max_errors
        self._loss = RiskMonitor(max_loss, LOSS_ALPHA)
        # "The mean loss is at least max_loss + slack" is the same as "its negative is at most -(max_loss + slack)".
        self._good = RiskMonitor(-(max_loss + slack), WIDEN_ALPHA)
        self._errors = RiskMonitor(max_errors, ERROR_ALPHA, low=0.0)
        self._slow = RiskMonitor(MOST_SLOW, LATENCY_ALPHA, low=0.0)
        self._usual: list[float] = []

    @property
    def n_labels(self) -> int:
        """The number of labels so far."""
        return self._loss.n

    @property
    def n_requests(self) -> int:
        """The number of requests of the canary whose end is known."""
        return self._errors.n

    def label(self, loss: float) -> None:
        """Add the measured loss of one answer of the canary against the reference, -1 to 1.

        The requests that are labelled must be drawn by a coin. Raises ConfigError for a loss outside its range.
        """
        try:
            self._loss.update(loss)
        except DataError as error:
            raise ConfigError(f"the loss of a canary's answer must lie between -1 and 1, got {loss}.") from error
        self._good.update(-loss)

    def ended(self, *, failed: bool, latency_s: float | None) -> None:
        """Note how a request of the canary ended. `latency_s`: seconds to the whole answer; None if there is none."""
        self._errors.update(float(failed))
        if latency_s is not None and (usual_s := self.usual_latency_s) is not None:
            self._slow.update(float(latency_s > usual_s))

    def ended_elsewhere(self, latency_s: float) -> None:
        """Note the latency of an answer of the serving policy, from which is learned what is slow."""
        if len(self._usual) < LATENCY_SAMPLE:
            bisect.insort(self._usual, latency_s)

    @property
    def usual_latency_s(self) -> float | None:
        """The 95th percentile of the serving policy's latency in seconds; None before there are enough answers."""
        return self._usual[int(0.95 * LATENCY_SAMPLE)] if len(self._usual) >= LATENCY_SAMPLE else None

    @property
    def against(self) -> str:
        """Why the canary must be rolled back, in words; empty if nothing speaks against it."""
        if self._loss.alarmed:
            return (
                f"the mean loss exceeds {self.max_loss:g}: after {self.n_labels:,} labels, a canary within this limit "
                f"ever loses so much with a chance of at most {self._loss.p_value:.2g}"
            )
        if self._errors.alarmed:
            return f"more than {self.max_errors:.1%} of the requests ended without an answer"
        if self._slow.alarmed:
            return f"more than {MOST_SLOW:.0%} of the answers took longer than {self.usual_latency_s:.3g} s"
        return ""

    @property
    def is_good(self) -> bool:
        """Whether all labels so far show that the mean loss is below `max_loss + slack`.

        What earlier labels have shown does not count for ever: labels that lose take it back.
        """
        return self._good.log_wealth >= -math.log(self._good.alpha)

    def loss_interval(self) -> tuple[float, float]:
        """Return the interval, valid at all times, in which the mean loss lies."""
        return self._loss.interval()

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain JSON."""
        monitors = {name: getattr(self, f"_{name}").state() for name in _MONITORS}
        settings = {"max_loss": self.max_loss, "slack": self.slack, "max_errors": self.max_errors}
        return {**settings, **monitors, "usual": self._usual}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> CanaryEvidence:
        """Return the evidence that `to_json` wrote. Raises ConfigError for anything else."""
        try:
            made = cls(float(plain["max_loss"]), slack=float(plain["slack"]), max_errors=float(plain["max_errors"]))
            for name in _MONITORS:
                setattr(made, f"_{name}", RiskMonitor.from_state(plain[name]))
            made._usual = sorted(float(one) for one in plain["usual"])[:LATENCY_SAMPLE]
        except (AttributeError, DataError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise ConfigError(f"this is no evidence of a canary: {fields_fault(error)}.") from error
        return made


_MONITORS = ("loss", "good", "errors", "slow")
