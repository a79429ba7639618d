"""Grade by a regular expression, within a bounded time (`Regex`)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import ClassVar

from router.collecting.graders.base import NO_NEEDS, Grader, GradingContext, Needs, readable
from router.collecting.graders.gold.patterns import PatternFaultError, compiled, found
from router.collecting.values import ModelAnswer, Sample, Verdict


@dataclass(frozen=True)
class Regex(Grader):
    """Searches the answer for a regular expression: 1 if it matches, and 0 otherwise.

    A pattern that takes longer than a second on an answer gives no score.

    Attributes:
        pattern: the expression, in the syntax of the library `regex`, which reads all that Python's `re` reads; by
            default the sample's reference is the expression.
        ignore_case: whether capital letters equal small ones.
        whole: whether the whole answer must match, blanks around it aside.

    Raises PatternFaultError for a `pattern` that is no regular expression.
    """

    name: ClassVar[str] = "regex"
    column: ClassVar[str] = "reference"

    pattern: str = ""
    ignore_case: bool = False
    whole: bool = False

    def __post_init__(self) -> None:
        compiled(self.pattern)

    @property
    def needs(self) -> Needs:
        """Return the column `reference`, unless the grader has a pattern of its own."""
        return NO_NEEDS if self.pattern else super().needs

    async def grade(self, sample: Sample, answer: ModelAnswer, context: GradingContext) -> Verdict:
        """Return 1 or 0; see the class."""
        wanted = self.pattern or sample.reference
        if not wanted:
            return self.no_verdict("the sample has no reference, and the grader no pattern")
        text = readable(answer.text)
        try:
            pattern = compiled(wanted, ignore_case=self.ignore_case)
            matches = await asyncio.to_thread(found, pattern, text.strip() if self.whole else text, whole=self.whole)
        except PatternFaultError as error:
            return self.no_verdict(str(error))
        return self.verdict(float(matches))
