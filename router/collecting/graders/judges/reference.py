"""Grade by a judge that knows the reference answer (`ReferenceJudge`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from router.collecting.graders.base import GradingContext, PlannedCall
from router.collecting.graders.judges.judge_grader import NONSENSE, JudgeGrader
from router.collecting.graders.judges.question import Question, prompt_text, transcript
from router.collecting.values import ModelAnswer, Sample, Verdict

_SCORES = {"correct": 1.0, "incorrect": 0.0}


@dataclass(frozen=True)
class ReferenceJudge(JudgeGrader):
    """Asks a judge whether the answer agrees with the reference answer: 1 if it does, and 0 otherwise."""

    name: ClassVar[str] = "reference"
    column: ClassVar[str] = "reference"

    @property
    def prompts(self) -> tuple[str, ...]:
        """Return the prompt for the judge."""
        return (prompt_text("reference-1"),)

    def calls(self, sample: Sample, answer_tokens: int) -> tuple[PlannedCall, ...]:
        """Return the one question that the judge is asked."""
        texts = (*self.prompts, transcript(sample.messages), sample.reference or "")
        return self.planned(texts, answer_tokens, 1)

    async def grade(self, sample: Sample, answer: ModelAnswer, context: GradingContext) -> Verdict:
        """Return 1 or 0; see the class."""
        if not sample.reference:
            return self.no_verdict("the sample has no reference")
        data = (
            ("REQUEST", transcript(sample.messages)),
            ("REFERENCE ANSWER", sample.reference),
            ("ANSWER", answer.text),
        )
        said = await self.ask(Question(self.prompts[0], data, tuple(_SCORES)), context)
        return self.no_verdict(NONSENSE) if said is None else self.verdict(_SCORES[str(said)])
