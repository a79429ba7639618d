"""Grade by equality with the reference answer, after both are normalised (`Exact`)."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import ClassVar

from router.collecting.graders.base import Grader, GradingContext, readable
from router.collecting.values import ModelAnswer, Sample, Verdict

_BLANKS = re.compile(r"\s+")
_CLOSING = ".,;:!?。！？、\"'`*"
_OPENING = "\"'`*"


def normalised(text: str, *, case: bool = False) -> str:
    """Return a text in Unicode form NFKC, with single blanks, without quotes around it or punctuation behind it.

    Letters become small unless `case` is set. For example "  The Answer. " becomes "the answer".
    """
    text = _BLANKS.sub(" ", unicodedata.normalize("NFKC", readable(text))).strip()
    # A sign alone, such as "!", stays: it is the whole answer.
    text = text.rstrip(_CLOSING).lstrip(_OPENING).strip() or text
    return text if case else text.casefold()


@dataclass(frozen=True)
class Exact(Grader):
    """Compares the answer with the reference answer: 1 if they are equal after `normalised`, and 0 otherwise.

    Attributes:
        case: whether capital letters differ from small ones.
    """

    name: ClassVar[str] = "exact"
    column: ClassVar[str] = "reference"

    case: bool = False

    async def grade(self, sample: Sample, answer: ModelAnswer, context: GradingContext) -> Verdict:
        """Return 1 or 0; see the class."""
        if not sample.reference:
            return self.no_verdict("the sample has no reference")
        right = normalised(sample.reference, case=self.case)
        return self.verdict(float(normalised(answer.text, case=self.case) == right))
