"""Watch, label by label, whether risks are still true and a certified loss still holds (`LabelWatch`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from probes.bounded.text import fields_fault
from probes.certificates.monitor import RiskMonitor
from probes.errors import DataError
from router.decision import RoutingDecision
from router.errors import ConfigError
from router.policies.certificate_record import CertificateRecord

#: A mean difference of risk and loss within this is no alarm, either way.
TOLERANCE = 0.05

#: The chance of a false alarm of each monitor of risks, over all time.
ALPHA = 0.01


class CandidateCalibration:
    """Compares the calibrated risk of one candidate with the losses that were measured, over all labels so far.

    Attributes:
        n: the number of labels.
        risk, loss: the sums of the risks and of the losses.
        squares: the sum of the squared differences; divided by n it is the Brier score.
        too_low, too_high: monitors of "the risk is at most TOLERANCE too low", and of the same for too high.
    """

    def __init__(self, min_inclusion: float = 1.0) -> None:
        self.n = 0
        self.risk = self.loss = self.squares = 0.0
        self.too_low = RiskMonitor(TOLERANCE, ALPHA, min_inclusion=min_inclusion)
        self.too_high = RiskMonitor(TOLERANCE, ALPHA, min_inclusion=min_inclusion)

    def add(self, risk: float, loss: float, inclusion: float) -> None:
        """Add one label: the risk that the decision named, 0 to 1, and the measured loss, 0 to 1."""
        self.n += 1
        self.risk += risk
        self.loss += loss
        self.squares += (risk - loss) ** 2
        self.too_low.update(loss - risk, inclusion)
        self.too_high.update(risk - loss, inclusion)

    @property
    def problem(self) -> str:
        """What is wrong in words; empty if the risks agree with the losses."""
        means = f"{self.loss / self.n:.2f} against {self.risk / self.n:.2f}" if self.n else ""
        if self.too_low.alarmed:
            return f"fails more often than its risk says: {means}"
        if self.too_high.alarmed:
            return f"fails less often than its risk says: {means}"
        return ""

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain JSON."""
        sums = {name: getattr(self, name) for name in ("n", "risk", "loss", "squares")}
        return sums | {"too_low": self.too_low.state(), "too_high": self.too_high.state()}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> CandidateCalibration:
        """Return what `to_json` wrote. Raises KeyError, TypeError, ValueError or DataError for anything else."""
        made = cls()
        made.n, made.risk, made.loss = int(plain["n"]), float(plain["risk"]), float(plain["loss"])
        made.squares = float(plain["squares"])
        made.too_low, made.too_high = (RiskMonitor.from_state(plain[side]) for side in ("too_low", "too_high"))
        return made


class LabelWatch:
    """Feeds labels of one policy to anytime-valid monitors: one of the certified loss, two of each candidate's risks.

    Only labels whose requests were chosen by a coin may be fed (a uniform audit, or one with a known chance), because
    who gives feedback unasked depends on how bad the answer was. See `probes.certificates.monitor`.

    Args:
        reference: the candidate that losses are measured against.
        max_loss: the certified limit of the mean loss against the reference; None if nothing is certified, so that only
            the risks are watched.
        min_inclusion: the smallest chance with which any label was drawn, in (0, 1].

    Attributes:
        n_incomplete: requests whose loss is unknown, because the chosen candidate or the reference was not graded. What
            is known of the certified loss is then too low, because requests that went to the reference lost nothing.
    """

    def __init__(self, reference: str, max_loss: float | None, *, min_inclusion: float = 1.0) -> None:
        self.reference = reference
        self.loss = None if max_loss is None else RiskMonitor(max_loss, 0.05, min_inclusion=min_inclusion)
        self.calibration: dict[str, CandidateCalibration] = {}
        self.n_incomplete = 0
        self._min_inclusion = min_inclusion

    @classmethod
    def of_certificate(cls, certificate: CertificateRecord, **rest: Any) -> LabelWatch:
        """Return the watch of what a certificate promises."""
        limits = [target.limit for target in certificate.targets if target.kind == "max_loss"]
        return cls(certificate.reference, min(limits, default=None), **rest)

    def add(self, decision: RoutingDecision, losses: Mapping[str, float], inclusion: float = 1.0) -> None:
        """Add the labels of one request.

        Args:
            decision: its decision record.
            losses: the measured loss, 0 to 1, of each candidate whose answer was graded.
            inclusion: the chance with which the request was drawn for grading.

        The certified loss takes a label if the chosen candidate is the reference, or if both were graded. Raises
        ConfigError for a loss outside [0, 1] and an inclusion outside [min_inclusion, 1]; nothing is taken then.
        """
        if not all(0 <= loss <= 1 for loss in losses.values()):
            raise ConfigError("losses must lie between 0 and 1; use 1 - score.")
        if not self._min_inclusion <= inclusion <= 1:
            raise ConfigError(f"inclusion must lie in [{self._min_inclusion:g}, 1], got {inclusion}.")
        drop = self._drop(decision.chosen, losses)
        if drop is None:
            self.n_incomplete += 1
        elif self.loss is not None:
            self.loss.update(drop, inclusion)
        for one in decision.candidates:
            if one.candidate in losses and one.risk is not None:
                known = self.calibration.setdefault(one.candidate, CandidateCalibration(self._min_inclusion))
                known.add(one.risk, losses[one.candidate], inclusion)

    def _drop(self, chosen: str, losses: Mapping[str, float]) -> float | None:
        if chosen == self.reference:
            return 0.0
        if chosen in losses and self.reference in losses:
            return losses[chosen] - losses[self.reference]
        return None

    @property
    def problems(self) -> list[str]:
        """Everything that is shown to be wrong, in words; empty if nothing is."""
        found = [f"candidate {name} {one.problem}" for name, one in self.calibration.items() if one.problem]
        if self.loss is not None and self.loss.alarmed:
            low, high = self.loss.interval()
            between = f"it lies between {low:.3f} and {high:.3f}"
            limit = f"the certified {self.loss.limit:g}"
            found.insert(0, f"the mean loss against {self.reference} exceeds {limit}: {between}")
        return found

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain JSON."""
        return {
            "reference": self.reference,
            "min_inclusion": self._min_inclusion,
            "loss": self.loss.state() if self.loss else None,
            "incomplete": self.n_incomplete,
            "calibration": {name: one.to_json() for name, one in self.calibration.items()},
        }

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> LabelWatch:
        """Return the watch that `to_json` wrote. Raises ConfigError for anything else."""
        try:
            watch = cls(str(plain["reference"]), None, min_inclusion=float(plain["min_inclusion"]))
            watch.loss = RiskMonitor.from_state(plain["loss"]) if plain["loss"] else None
            watch.n_incomplete = int(plain["incomplete"])
            read = CandidateCalibration.from_json
            watch.calibration = {str(name): read(one) for name, one in plain["calibration"].items()}
        except (AttributeError, DataError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise ConfigError(f"this is no state of a label watch: {fields_fault(error)}.") from error
        return watch
