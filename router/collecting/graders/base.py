"""Define what a grader is (`Grader`), and what it may ask while it grades (`GradingContext`)."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from router.collecting.values import ModelAnswer, Sample, Verdict
from router.errors import RouterError
from router.plain_json import whole_text
from router.values import Message

#: Columns that a grader can need.
Needs = frozenset[str]
NO_NEEDS: Needs = frozenset()

#: Beyond this many characters an answer is cut before a judge or a regular expression reads it.
MAX_READ_CHARACTERS = 200_000


class GraderError(RouterError):
    """A grader cannot be used: an unknown name, a wrong parameter, or a column that the data lack."""

    status = "FAILED_PRECONDITION"


@dataclass(frozen=True, slots=True)
class PlannedCall:
    """An upper estimate of one call that a grader makes for one answer.

    Attributes:
        model: who is asked.
        input_tokens: at most about this many.
        output_tokens: at most this many; the call's `max_tokens`.
        is_repeat: True for a call that is made only if a judge's reply before made no sense.
    """

    model: str
    input_tokens: int
    output_tokens: int
    is_repeat: bool = False


class GradingContext(Protocol):
    """What a grader may ask about the sample that it grades.

    Exceptions of both methods (a budget that is spent, a judge that cannot be reached) are the caller's own: a grader
    lets them pass, so that the verdict stays open and is made later.
    """

    async def ask(self, model: str, messages: Sequence[Message], parameters: Mapping[str, Any]) -> ModelAnswer:
        """Return the answer of a judge, from the store if the same call was made before.

        parameters: further fields of the OpenAI body, such as `temperature`, `max_tokens` and `response_format`.
        """
        ...

    async def answer_of(self, model: str) -> ModelAnswer:
        """Return the answer of another model to this sample, which is asked for it if need be."""
        ...


class Grader(ABC):
    """The base of all graders. A subclass needs a `name` and the method `grade`; the rest has defaults.

    Parameters are the fields of the subclass if it is a dataclass: `grader_named("number:tolerance=0.01")` makes
    `Number(tolerance=0.01)`. A grader keeps no state between calls, and many calls run at the same time.

    Attributes:
        name: how the grader is called on the command line and in outcomes.
        column: the column of the data without which it can grade nothing, such as `reference`; empty if there is none.
        code_version: raised by hand when `grade` may return another score for the same input.
        needs_token_loss: True if it reads `ModelAnswer.mean_token_loss`, so that candidates must be asked for the
            log-probabilities of their tokens.
    """

    name: ClassVar[str]
    code_version: ClassVar[int] = 1
    column: ClassVar[str] = ""
    needs_token_loss: ClassVar[bool] = False

    @property
    def needs(self) -> Needs:
        """Return the columns without which it can grade nothing: `reference`, `choices`, `tests`, `feedback`.

        A single sample that lacks one gets a verdict without a score.
        """
        return frozenset({self.column}) if self.column else NO_NEEDS

    @property
    def models(self) -> tuple[str, ...]:
        """Return the judges that it asks by `GradingContext.ask`."""
        return ()

    @property
    def answers_of(self) -> tuple[str, ...]:
        """Return the models whose own answers to the sample it reads by `GradingContext.answer_of`."""
        return ()

    @property
    def prompts(self) -> tuple[str, ...]:
        """Return the texts that it puts to judges, which belong to its version."""
        return ()

    @property
    def version(self) -> str:
        """Return 16 hexadecimal digits that change with the code version, the prompts, or a parameter."""
        facts = [self.name, self.code_version, self.parameters(), list(self.prompts)]
        text = json.dumps(facts, sort_keys=True, ensure_ascii=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def parameters(self) -> dict[str, Any]:
        """Return the parameters by name."""
        fields = getattr(self, "__dataclass_fields__", None)
        return dict(vars(self)) if fields is None else {name: getattr(self, name) for name in fields}

    def calls(self, sample: Sample, answer_tokens: int) -> tuple[PlannedCall, ...]:
        """Return an upper estimate of the calls of judges for one answer.

        Calls of `answers_of` are not among them: they are answers to the sample itself, asked for once.

        answer_tokens: the most tokens that a candidate's answer may have.
        """
        return ()

    @abstractmethod
    async def grade(self, sample: Sample, answer: ModelAnswer, context: GradingContext) -> Verdict:
        """Return what this grader says about one answer. It raises no error for any answer, however odd."""

    def verdict(self, score: float, **detail: str | float | bool) -> Verdict:
        """Return a verdict of this grader with a score from 0 to 1."""
        return Verdict(score, self.name, self.version, detail=detail)

    def no_verdict(self, reason: str, **detail: str | float | bool) -> Verdict:
        """Return a verdict of this grader without a score, for one answer that it cannot grade."""
        return Verdict(None, self.name, self.version, reason=reason, detail=detail)


def readable(text: str) -> str:
    """Return a text that every grader can read.

    Half surrogate pairs become U+FFFD, and NUL characters are dropped. Of a text longer than `MAX_READ_CHARACTERS` the
    beginning and the end are left, a half each, because the result of an answer stands at its end.
    """
    if len(text) > MAX_READ_CHARACTERS:
        half = MAX_READ_CHARACTERS // 2
        text = f"{text[:half]}\n[...]\n{text[-half:]}"
    return whole_text(text).replace("\0", "")
