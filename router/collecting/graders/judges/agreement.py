"""Grade by whether the answer means the same as the strong model's answer (`Agreement`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from router.collecting.graders.base import GraderError, GradingContext, PlannedCall
from router.collecting.graders.judges.judge_grader import NONSENSE, JudgeGrader, same_text
from router.collecting.graders.judges.question import Question, prompt_text, transcript
from router.collecting.values import ModelAnswer, Sample, Verdict

_SCORES = {"same": 1.0, "different": 0.0}


@dataclass(frozen=True)
class Agreement(JudgeGrader):
    """Asks a judge whether the answer means the same as another model's answer: 1 if it does, and 0 otherwise.

    No reference answer is needed. Where two answers mean the same, nothing is lost by taking the cheaper one; where
    they differ, the cheaper one may still be as good. So the share of different answers is an upper bound of the
    quality that routing loses against the reference model. The reference model itself scores 1.

    Attributes:
        reference: the model to agree with, usually the strongest one.

    Raises GraderError without `reference`.
    """

    name: ClassVar[str] = "agreement"

    reference: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.reference:
            raise GraderError(
                "the grader agreement must be told whom to agree with: agreement:model=NAME,reference=NAME."
            )

    @property
    def answers_of(self) -> tuple[str, ...]:
        """Return the model to agree with."""
        return (self.reference,)

    @property
    def prompts(self) -> tuple[str, ...]:
        """Return the prompt for the judge."""
        return (prompt_text("agreement-1"),)

    def calls(self, sample: Sample, answer_tokens: int) -> tuple[PlannedCall, ...]:
        """Return the one question that the judge is asked."""
        return self.planned((*self.prompts, transcript(sample.messages)), answer_tokens, 2)

    async def grade(self, sample: Sample, answer: ModelAnswer, context: GradingContext) -> Verdict:
        """Return 1 or 0; see the class."""
        if answer.model == self.reference:
            return self.verdict(1.0, compared_with=self.reference)
        other = await context.answer_of(self.reference)
        if same_text(answer, other):
            return self.verdict(1.0, compared_with=self.reference, same_text=True)
        data = (("REQUEST", transcript(sample.messages)), ("ANSWER A", answer.text), ("ANSWER B", other.text))
        said = await self.ask(Question(self.prompts[0], data, tuple(_SCORES)), context)
        if said is None:
            return self.no_verdict(NONSENSE, compared_with=self.reference)
        return self.verdict(_SCORES[str(said)], compared_with=self.reference)
