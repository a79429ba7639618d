"""Read the questions that routers ask decision models, in both protocols: `/v1/systemone` and OpenAI's `/v1/decisions`.

A question of the type `choice` names labels, cheapest tier first, such as SIMPLE, MEDIUM and COMPLEX.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from router.errors import InvalidRequestError
from router.quoting import kind_of, quoted

#: Most questions of a request, and most labels of a question, as the protocols have them.
MAX_QUESTIONS, MAX_LABELS = 128, 255

#: Most characters of a label or of the name of a question.
_MAX_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class TierQuestion:
    """Holds one question: its name, which is empty if it has none, and its labels, cheapest tier first."""

    name: str
    labels: tuple[str, ...]


def questions_of_systemone(body: Mapping[str, Any]) -> tuple[TierQuestion, ...]:
    """Return the questions of a body of `/v1/systemone`, where `questions` maps names to questions with `criteria`.

    Raises InvalidRequestError, which names the field, for anything but questions of the type `choice`.
    """
    questions: Any = body.get("questions")
    _check_number(questions, Mapping, "an object")
    found = []
    for name, question in questions.items():
        where = f"questions.{quoted(name)}"
        _check_type(question, where)
        criteria = question.get("criteria")
        if not isinstance(criteria, Mapping):
            raise InvalidRequestError(
                f"{where}.criteria must be an object whose keys are the labels, got {kind_of(criteria)}.",
                field="questions",
            )
        found.append(TierQuestion(_text(name, where), _labels(list(criteria), f"{where}.criteria")))
    return tuple(found)


def questions_of_decisions(body: Mapping[str, Any]) -> tuple[TierQuestion, ...]:
    """Return the questions of a body of OpenAI's `/v1/decisions`, where `questions` is a list with choices in each.

    Raises InvalidRequestError, which names the field, for anything but questions of the type `choice`.
    """
    questions: Any = body.get("questions")
    _check_number(questions, list, "a list")
    found = []
    for index, question in enumerate(questions):
        where = f"questions[{index}]"
        _check_type(question, where)
        choices = question.get("choices")
        if not isinstance(choices, list) or not all(isinstance(choice, Mapping) for choice in choices):
            raise InvalidRequestError(f"{where}.choices must be a list of objects with a `value`.", field="questions")
        values = [choice.get("value") for choice in choices]
        name = question.get("name")
        found.append(
            TierQuestion("" if name is None else _text(name, f"{where}.name"), _labels(values, f"{where}.choices"))
        )
    return tuple(found)


def _check_number(questions: Any, kind: type, called: str) -> None:
    is_of_kind = isinstance(questions, kind)
    if not is_of_kind or not 1 <= len(questions) <= MAX_QUESTIONS:
        got = f"{len(questions):,} in {called}" if is_of_kind else kind_of(questions)
        raise InvalidRequestError(
            f"questions must be {called} of 1 to {MAX_QUESTIONS} questions, got {got}.", field="questions"
        )


def _check_type(question: Any, where: str) -> None:
    kind = question.get("type") if isinstance(question, Mapping) else None
    if kind != "choice":
        raise InvalidRequestError(
            f"{where}.type must be 'choice', got {quoted(kind)}: the router says which tier a text needs, and answers "
            "no other questions.",
            field="questions",
        )


def _labels(values: Sequence[Any], where: str) -> tuple[str, ...]:
    labels = tuple(_text(value, where) for value in values)
    if not 1 <= len(labels) <= MAX_LABELS or len(set(labels)) < len(labels):
        raise InvalidRequestError(
            f"{where} must hold 1 to {MAX_LABELS} different labels, cheapest tier first.", field="questions"
        )
    return labels


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= _MAX_CHARACTERS:
        raise InvalidRequestError(
            f"{where} must be text of 1 to {_MAX_CHARACTERS} characters, got {quoted(value)}.", field="questions"
        )
    return value
