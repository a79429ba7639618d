"""Ask a judge, and ask again if its reply makes no sense (`JudgeGrader`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from router.collecting.graders.base import Grader, GraderError, GradingContext, PlannedCall, readable
from router.collecting.graders.judges.question import Question, cut, tokens_of
from router.collecting.graders.judges.reply import response_format, verdict_in
from router.collecting.values import ModelAnswer

#: How often a judge is asked the same before its verdict is given up.
ATTEMPTS = 3

#: The reason of a verdict without a score.
NONSENSE = f"the judge gave no verdict in the form that was asked for, {ATTEMPTS} times"

_AGAIN = (
    "This reply was not one JSON object of the form that the instructions ask for. Reply again, with that object and "
    "nothing else."
)
_SHOWN_CHARACTERS = 1000


@dataclass(frozen=True)
class JudgeGrader(Grader):
    """The base of graders that ask a judge.

    Attributes:
        model: the judge, by its name in the policy or in LiteLLM.
        structured: whether `response_format` holds the judge to the form of the verdict; turn it off for a provider
            that refuses that. The form is checked in either case.
        temperature: of the judge; `none` leaves it to the provider, which some models require.
        max_tokens: the most tokens of a verdict, reasoning included.

    Raises GraderError without a model.
    """

    model: str = ""
    structured: bool = True
    temperature: float | None = 0.0
    max_tokens: int = 1024

    def __post_init__(self) -> None:
        if not self.model:
            raise GraderError(f"the grader {self.name} must be told who judges: {self.name}:model=NAME.")
        if not 16 <= self.max_tokens <= 1_000_000:
            raise GraderError(f"max_tokens of the grader {self.name} must be 16 to 1,000,000, got {self.max_tokens:,}.")

    @property
    def models(self) -> tuple[str, ...]:
        """Return the name of the judge."""
        return (self.model,)

    async def ask(self, question: Question, context: GradingContext) -> str | int | None:
        """Return the judge's verdict, or None after `ATTEMPTS` replies that are none."""
        messages = question.messages()
        for _ in range(ATTEMPTS):
            reply = await context.ask(self.model, messages, self._parameters(question))
            verdict = verdict_in(reply.text, question.verdicts)
            if verdict is not None:
                return verdict
            # The store knows the first question and its reply, so that the next attempt must be another question.
            said = {"role": "assistant", "content": cut(readable(reply.text), _SHOWN_CHARACTERS) or "(nothing)"}
            messages = [*messages, said, {"role": "user", "content": _AGAIN}]
        return None

    def _parameters(self, question: Question) -> dict[str, Any]:
        parameters: dict[str, Any] = {"max_tokens": self.max_tokens}
        if self.temperature is not None:
            parameters["temperature"] = self.temperature
        if self.structured:
            parameters["response_format"] = response_format(question.verdicts)
        return parameters

    def planned(self, texts: Sequence[str], answer_tokens: int, n_answers: int) -> tuple[PlannedCall, ...]:
        """Return the calls of one question: the first one, and the repeats after replies that make no sense.

        texts: what is known already, the prompt among it.
        """
        n_input = tokens_of(texts, answer_tokens, n_answers)
        further = 2 * _SHOWN_CHARACTERS
        return tuple(
            PlannedCall(self.model, n_input + repeat * further, self.max_tokens, is_repeat=repeat > 0)
            for repeat in range(ATTEMPTS)
        )


def same_text(first: ModelAnswer, second: ModelAnswer) -> bool:
    """Return whether two answers have the same text, blanks around it aside; no judge needs to be asked then."""
    return first.text.strip() == second.text.strip()
