"""Grade by what people did with an answer of the log (`FeedbackGrader`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from router.collecting.graders.base import Grader, GraderError, GradingContext
from router.collecting.values import ModelAnswer, Sample, Verdict
from router.quoting import quoted

_KINDS = ("thumb", "rating", "retries")


@dataclass(frozen=True)
class FeedbackGrader(Grader):
    """Takes over what people did with an answer that is in the log; an answer that was asked for later has no score.

    A thumb scores 1 (up) or 0 (down), a rating its value, and an answer 1 if nobody asked again and 0 otherwise.
    People who are content rarely press a button, so kinds should not be mixed: the verdict says its kind.

    Attributes:
        kinds: which kinds count, separated by "+", as in `thumb+rating`.

    Raises GraderError for an unknown kind.
    """

    name: ClassVar[str] = "feedback"
    column: ClassVar[str] = "feedback"

    kinds: str = "thumb+rating+retries"

    def __post_init__(self) -> None:
        if unknown := [kind for kind in self.kinds.split("+") if kind not in _KINDS]:
            raise GraderError(
                f"kinds of the grader feedback must be among {', '.join(_KINDS)}, separated by +; got "
                f"{quoted(unknown[0])}."
            )

    async def grade(self, sample: Sample, answer: ModelAnswer, context: GradingContext) -> Verdict:
        """Return what the feedback says; see the class."""
        given = sample.feedback.get(answer.model)
        if given is None or given.kind not in self.kinds.split("+") or answer.text != sample.answers.get(answer.model):
            return self.no_verdict("nobody left feedback of these kinds on this answer")
        score = float(given.value == 0) if given.kind == "retries" else given.value
        if not 0 <= score <= 1:
            return self.no_verdict("the feedback is not between 0 and 1", kind=given.kind)
        return self.verdict(score, kind=given.kind)
