"""Grade a number, with its unit and within a tolerance (`Number`)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from router.collecting.graders.base import Grader, GraderError, GradingContext, readable
from router.collecting.graders.gold.quantities import Quantity, final_quantity
from router.collecting.values import ModelAnswer, Sample, Verdict


@dataclass(frozen=True)
class Number(Grader):
    """Compares the number that the answer ends in with the reference: 1 if they agree, and 0 otherwise.

    The answer's number is the one in its last `\\boxed{}`, else the one behind the last "answer is", "Answer:" or
    "####", else the last number. It may be written with thousands separators, as a fraction, a percentage, or with an
    exponent. If the reference has a unit and the answer another one of the same dimension, it is converted: 1.5 km
    agrees with 1500 m. "50 %", "50" and "0.5" agree with "50 %".

    Attributes:
        tolerance: the largest difference, as a share of the reference, 0 or more.
        absolute: the largest difference in the unit of the reference, 0 or more. The larger of the two counts.
        unit: whether the answer must have the unit of the reference, or one that can be converted to it.

    Raises GraderError for a tolerance below 0.
    """

    name: ClassVar[str] = "number"
    column: ClassVar[str] = "reference"

    tolerance: float = 1e-6
    absolute: float = 0.0
    unit: bool = False

    def __post_init__(self) -> None:
        for key in ("tolerance", "absolute"):
            value = getattr(self, key)
            if not (math.isfinite(value) and value >= 0):
                raise GraderError(f"{key} of the grader number must be 0 or more, got {value:g}.")

    async def grade(self, sample: Sample, answer: ModelAnswer, context: GradingContext) -> Verdict:
        """Return 1 or 0; see the class."""
        right = final_quantity(readable(sample.reference or ""))
        if right is None:
            return self.no_verdict(
                "the reference holds no number" if sample.reference else "the sample has no reference"
            )
        found = final_quantity(readable(answer.text))
        if found is None:
            return self.verdict(0.0, found="no number")
        return self.verdict(float(self._agree(found, right)), found=f"{found.value:.12g} {found.unit}".strip())

    def _agree(self, found: Quantity, right: Quantity) -> bool:
        if self.unit and found.dimension != right.dimension:
            return False
        if found.dimension and right.dimension and found.dimension != right.dimension:
            return False
        return any(self._near(value, right.value) for value in found.values_for(right))

    def _near(self, value: float, right: float) -> bool:
        return abs(value - right) <= max(self.tolerance * abs(right), self.absolute)
