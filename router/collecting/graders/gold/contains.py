"""Grade by whether the answer contains the reference answer or a given text (`Contains`)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from router.collecting.graders.base import NO_NEEDS, Grader, GradingContext, Needs
from router.collecting.graders.gold.exact import normalised
from router.collecting.values import ModelAnswer, Sample, Verdict


@dataclass(frozen=True)
class Contains(Grader):
    """Looks for a text in the answer: 1 if it is there, and 0 otherwise. Both are normalised as by `exact`.

    The text must stand alone, not inside a longer word or number: "7" is not in "1,275".

    Attributes:
        text: what to look for; by default the reference answer.
        case: whether capital letters differ from small ones.
        absent: whether the text must be absent instead.
    """

    name: ClassVar[str] = "contains"
    column: ClassVar[str] = "reference"

    text: str = ""
    case: bool = False
    absent: bool = False

    @property
    def needs(self) -> Needs:
        """Return the column `reference`, unless the grader has a text of its own."""
        return NO_NEEDS if self.text else super().needs

    async def grade(self, sample: Sample, answer: ModelAnswer, context: GradingContext) -> Verdict:
        """Return 1 or 0; see the class."""
        wanted = normalised(self.text or sample.reference or "", case=self.case)
        if not wanted:
            return self.no_verdict("the sample has no reference, and the grader no text")
        found = alone(wanted).search(normalised(answer.text, case=self.case)) is not None
        return self.verdict(float(found != self.absent))


def alone(wanted: str) -> re.Pattern[str]:
    """Return a pattern that finds a text where it does not continue in a word or a number."""
    before, after = (_boundary(edge) for edge in (wanted[0], wanted[-1]))
    behind = {"word": r"(?<!\w)", "number": r"(?<!\w)(?<!\d[.,])"}.get(before, "")
    ahead = {"word": r"(?!\w)", "number": r"(?!\w)(?![.,]\d)"}.get(after, "")
    return re.compile(behind + re.escape(wanted) + ahead)


def _boundary(edge: str) -> str:
    # Scripts without capital letters, such as Chinese, may write words without blanks between them.
    return "number" if edge.isdigit() else "word" if edge.upper() != edge.lower() else ""
