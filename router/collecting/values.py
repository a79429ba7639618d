"""Define what collecting passes on: a sample of the log, an answer, a verdict, and the columns of graded outcomes.

`elle collect` writes, `elle label` completes, and `elle tune` reads these columns of an outcomes file, beside `prompt`
(or `messages`), `prompt_id`, `model`, `group`, `cost_usd`, `input_tokens` and `output_tokens`:

- `score`: 0 (worst) to 1 (best), what the grader says; missing if it could not grade.
- `grader` and `grader_version`: the grader's `name` and `version`.
- `human_score`: 0 to 1, what a person says; missing if nobody graded this row. It has the scale of `score`. After a
  pairwise comparison it is 1 if the candidate's answer is better, 0.5 for a tie, and 0 if it is worse.
- `human_drawn`: `random` in rows that a uniformly random draw chose for a person. Only those show how far the grader
  agrees with people: a person who looks at suspicious rows only sees the worst of it.
- `compared_with`: the model whose answer the candidate's was compared with; missing for grades of a single answer.
- `drawn`: how the prompt was chosen, `random` or `informative`.
- `answer`: the candidate's text, so that a person can read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from router.values import Message

#: How a prompt was chosen from the log: uniformly at random, or because its label teaches the fit much.
Drawn = Literal["random", "informative"]

#: Columns of graded outcomes; the docstring of this file says what they hold.
SCORE, HUMAN_SCORE, HUMAN_DRAWN = "score", "human_score", "human_drawn"
GRADER, GRADER_VERSION, COMPARED_WITH = "grader", "grader_version", "compared_with"
ANSWER, DRAWN = "answer", "drawn"


@dataclass(frozen=True, slots=True)
class Feedback:
    """What the people who got an answer did with it.

    Attributes:
        kind: `thumb` (value 0 or 1), `rating` (value 0 to 1), or `retries` (value: how often they asked again).
        value: a finite number of the range that `kind` says.
    """

    kind: Literal["thumb", "rating", "retries"]
    value: float


@dataclass(frozen=True, slots=True)
class Sample:
    """One prompt of the log, with all that is known about the right answer.

    Attributes:
        prompt_id: distinct within a run.
        messages: the chat in the OpenAI shape, oldest message first.
        reference: the right answer, or a regular expression or JSON schema for the graders that read one.
        choices: the texts of the options of a multiple-choice question, in the order A, B, C; `reference` is then a
            letter or one of these texts.
        tests: Python code that fails by an exception or a failed `assert` if the answer's code is wrong.
        group: the kind of the prompt; None if the data have no groups.
        weight: how many prompts of the traffic this one stands for, above 0.
        answers: answers that are already in the log, by model.
        drawn: how the prompt was chosen.
        feedback: what people did with the answers of the log, by model.
    """

    prompt_id: str
    messages: tuple[Message, ...]
    reference: str | None = None
    choices: tuple[str, ...] = ()
    tests: str | None = None
    group: str | None = None
    weight: float = 1.0
    answers: Mapping[str, str] = field(default_factory=dict)
    drawn: Drawn = "random"
    feedback: Mapping[str, Feedback] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModelAnswer:
    """One answer of a model, candidate or judge, with what it cost.

    Attributes:
        model: the name by which the policy knows the model.
        text: the text, any Unicode that the provider sent, of any length.
        finish_reason: such as `stop` or `length`; None if the provider did not say.
        input_tokens, output_tokens: 0 or more; None if unknown.
        cost_usd: 0 or more; None if unknown.
        mean_token_loss: mean of minus the natural logarithm of the probabilities that the model gave the tokens of this
            answer, 0 or more; None if the provider did not report them.
    """

    model: str
    text: str
    finish_reason: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None
    mean_token_loss: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a grader says about one answer.

    Attributes:
        score: 0 (worst) to 1 (best); None if the grader cannot grade this answer.
        grader: the grader's name.
        version: the grader's version, a digest of its code version, prompts and parameters.
        reason: why there is no score, one sentence; empty if there is a score.
        detail: a few short facts for the report, such as {"first": "A", "second": "tie"}; never a whole answer.
    """

    score: float | None
    grader: str
    version: str
    reason: str = ""
    detail: Mapping[str, str | float | bool] = field(default_factory=dict)
