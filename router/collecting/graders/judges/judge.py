"""Grade by a judge that compares two answers in both orders, or grades one by a rubric (`Judge`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from probes.bounded.files import read_bounded
from probes.bounded.text import os_fault
from router.collecting.graders.base import GraderError, GradingContext, PlannedCall
from router.collecting.graders.judges.judge_grader import NONSENSE, JudgeGrader, same_text
from router.collecting.graders.judges.question import Question, prompt_text, transcript
from router.collecting.values import ModelAnswer, Sample, Verdict
from router.quoting import quoted

_PAIRWISE, _RUBRIC = "pairwise-1", "rubric-1"
_GRADES = (1, 2, 3, 4, 5)
_MAX_RUBRIC_BYTES = 20_000

#: The score of the candidate, if it is answer A.
_SCORES = {"A": 1.0, "tie": 0.5, "B": 0.0}
_SWAPPED = {"A": "B", "tie": "tie", "B": "A"}


@dataclass(frozen=True)
class Judge(JudgeGrader):
    """Asks a judge which of two answers is better, or how well one answer satisfies a rubric.

    With `reference` the candidate's answer is compared with that model's answer, once as answer A and once as answer B:
    1 if it is better, 0.5 for a tie, and 0 if it is worse. If the two verdicts differ, the judge follows the order and
    not the answers, and it is a tie. The reference model itself scores 0.5. With `rubric` the judge gives 1 to 5, which
    becomes 0 to 1.

    Attributes:
        reference: the model to compare with, usually the strongest one.
        rubric: the rubric, or `@FILE` with it.
        both_orders: whether both orders are asked. Without it the candidate is always answer A, which favours it with
            most judges; it is there to measure that.

    Raises GraderError unless one of `reference` and `rubric` is given.
    """

    name: ClassVar[str] = "judge"

    reference: str = ""
    rubric: str = ""
    both_orders: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if bool(self.reference) == bool(self.rubric):
            raise GraderError(
                "the grader judge must be told either whom to compare with, judge:model=NAME,reference=NAME, or by "
                "what to grade, judge:model=NAME,rubric=TEXT."
            )
        if self.rubric.startswith("@"):
            # The text itself belongs to the version, not the name of its file.
            object.__setattr__(self, "rubric", _rubric_file(Path(self.rubric[1:])))

    @property
    def answers_of(self) -> tuple[str, ...]:
        """Return the model to compare with, if there is one."""
        return (self.reference,) if self.reference else ()

    @property
    def prompts(self) -> tuple[str, ...]:
        """Return the prompt for the judge."""
        return (prompt_text(_PAIRWISE if self.reference else _RUBRIC),)

    def calls(self, sample: Sample, answer_tokens: int) -> tuple[PlannedCall, ...]:
        """Return one question for each order."""
        texts = (*self.prompts, self.rubric, transcript(sample.messages))
        if self.rubric:
            return self.planned(texts, answer_tokens, 1)
        return self.planned(texts, answer_tokens, 2) * (2 if self.both_orders else 1)

    async def grade(self, sample: Sample, answer: ModelAnswer, context: GradingContext) -> Verdict:
        """Return the verdict of the judge; see the class."""
        if self.rubric:
            return await self._by_rubric(sample, answer, context)
        if answer.model == self.reference:
            return self.verdict(0.5, compared_with=self.reference)
        other = await context.answer_of(self.reference)
        if same_text(answer, other):
            return self.verdict(0.5, compared_with=self.reference, same_text=True)
        return await self._by_comparison(sample, answer, other, context)

    async def _by_comparison(
        self, sample: Sample, answer: ModelAnswer, other: ModelAnswer, context: GradingContext
    ) -> Verdict:
        detail: dict[str, str | float | bool] = {
            "compared_with": self.reference,
            "longer": len(answer.text) > len(other.text),
        }
        for order in ("first", "second") if self.both_orders else ("first",):
            pair = (answer, other) if order == "first" else (other, answer)
            said = await self.ask(self._comparison(sample, *pair), context)
            if said is None:
                return self.no_verdict(NONSENSE, **detail)
            # Either verdict is written down as if the candidate had been answer A.
            detail[order] = str(said) if order == "first" else _SWAPPED[str(said)]
        said_of_it = {str(detail[order]) for order in ("first", "second") if order in detail}
        return self.verdict(_SCORES[said_of_it.pop()] if len(said_of_it) == 1 else 0.5, **detail)

    def _comparison(self, sample: Sample, first: ModelAnswer, second: ModelAnswer) -> Question:
        data = (("REQUEST", transcript(sample.messages)), ("ANSWER A", first.text), ("ANSWER B", second.text))
        return Question(self.prompts[0], data, tuple(_SCORES))

    async def _by_rubric(self, sample: Sample, answer: ModelAnswer, context: GradingContext) -> Verdict:
        data = (("RUBRIC", self.rubric), ("REQUEST", transcript(sample.messages)), ("ANSWER", answer.text))
        said = await self.ask(Question(self.prompts[0], data, _GRADES), context)
        return self.no_verdict(NONSENSE) if said is None else self.verdict((int(said) - 1) / 4, grade=int(said))


def _rubric_file(path: Path) -> str:
    try:
        return read_bounded(path, _MAX_RUBRIC_BYTES).decode("utf-8")
    except (OSError, ValueError) as error:
        raise GraderError(f"the rubric {quoted(str(path))} cannot be read: {os_fault(error)}.") from error
