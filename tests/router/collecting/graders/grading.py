"""Grade single answers in tests: samples, answers, and a context for graders that ask nobody."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from router.collecting.graders.base import Grader
from router.collecting.graders.naming import grader_named
from router.collecting.values import ModelAnswer, Sample, Verdict

#: Answers that must neither hang nor break a grader.
ODD_ANSWERS = [
    "",
    " \n\t ",
    "\0\0",
    "\ud800 half \udfff",
    "a" * 1_000_000,
    "(" * 100_000,
    "1" * 100_000,
    "{" * 50_000,
    "9e999999999",
    "\u202e answer \u200b",
    "\\boxed{" * 20_000,
]


class NobodyToAsk:
    """A context of graders that ask no model."""

    async def ask(self, model: str, messages: Sequence[Mapping[str, Any]], parameters: Mapping[str, Any]) -> NoReturn:
        raise AssertionError(f"{model} was asked")

    async def answer_of(self, model: str) -> NoReturn:
        raise AssertionError(f"{model} was asked")


def sample(**fields: Any) -> Sample:
    return Sample("p1", ({"role": "user", "content": "What is 6 times 7?"},), **fields)


async def verdict(grader: Grader | str, text: str, **fields: Any) -> Verdict:
    grader = grader_named(grader) if isinstance(grader, str) else grader
    return await grader.grade(sample(**fields), ModelAnswer("cheap", text), NobodyToAsk())


async def score(grader: Grader | str, text: str, **fields: Any) -> float | None:
    return (await verdict(grader, text, **fields)).score
