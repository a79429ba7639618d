"""Turn graded outcomes into questions for a person: which pairs, in which order, on which side (`Questions`)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probes.errors import DataError
from router.collecting.graders.judges.question import transcript
from router.collecting.values import ANSWER, COMPARED_WITH, DRAWN, GRADER, HUMAN_DRAWN, HUMAN_SCORE, SCORE
from router.quoting import quoted
from router.tuning.outcomes.records import Row, number_of, read_rows

#: For each kind of question its verdicts: the key that a person presses, the word for it, and the score of answer A.
KEYS: Mapping[str, Mapping[str, tuple[str, float]]] = {
    "pair": {"a": ("A is better", 1.0), "b": ("B is better", 0.0), "t": ("tie", 0.5)},
    "meaning": {"y": ("yes, the same", 1.0), "n": ("no, different", 0.0)},
    "single": {"y": ("yes", 1.0), "n": ("no", 0.0), "h": ("half", 0.5)},
}
WORDS: Mapping[str, str] = {
    "pair": "Which answer does better what the request asks?",
    "meaning": "Do both answers mean the same?",
    "single": "Is the answer right, or good enough to be used?",
}


@dataclass(frozen=True, slots=True)
class HumanQuestion:
    """One question for a person about the answer of one row.

    Attributes:
        id: 16 hexadecimal digits of the row and its answers; other answers make another question.
        prompt_id, model: of the row.
        kind: a key of `KEYS`.
        request: the chat as a text.
        answers: the answer, or in a pair both, in the order in which they are shown.
        swapped: whether the second of them is that of the row.
    """

    id: str
    prompt_id: str
    model: str
    kind: str
    request: str
    answers: tuple[str, ...]
    swapped: bool

    def score_of(self, key: str) -> float:
        """Return the score of the row's answer, 0 to 1, after a person pressed a key of this kind of question."""
        score = KEYS[self.kind][key][1]
        return 1 - score if self.swapped and self.kind == "pair" else score


@dataclass(frozen=True)
class Questions:
    """Holds graded outcomes and the questions about them.

    Attributes:
        rows: all rows of the file.
        questions: those to ask, in the order in which they are asked: prompt by prompt, prompts in random order.
        by_row: for each row, by its index, the id of its question; rows that nobody is asked about are missing.
    """

    rows: tuple[Row, ...]
    questions: tuple[HumanQuestion, ...]
    by_row: Mapping[int, str]

    @classmethod
    def read(cls, path: Path, seed: str) -> Questions:
        """Return the questions about a file of outcomes, in an order that the seed alone decides.

        A prompt keeps its place relative to others if rows are added to the file. Only prompts of the random sample
        are asked about, and only if each of its rows can be: the certificate needs a grade for every model.

        Raises DataError, which names the column, if nothing can be asked about.
        """
        rows = tuple(read_rows(path))
        _require_columns(path, rows)
        prompts: dict[str, list[int]] = {}
        for index, row in enumerate(rows):
            prompts.setdefault(str(row.values.get("prompt_id")), []).append(index)
        questions: list[HumanQuestion] = []
        by_row: dict[int, str] = {}
        for prompt_id in sorted(prompts, key=lambda one: _chance(seed, one)):
            found = _questions_of([rows[index] for index in prompts[prompt_id]], seed)
            if found is not None:
                asked = dict(zip(prompts[prompt_id], found, strict=True))
                by_row |= {index: one.id for index, one in asked.items() if one is not None}
                new = [one for one in found if one is not None]
                questions += sorted(new, key=lambda one: _chance(seed, one.id))
        if not questions:
            raise DataError(
                f"{path} holds no prompt that a person could grade: each of its rows needs `{ANSWER}`, in pairs the "
                f"answer of the model in `{COMPARED_WITH}` must be a row too, and `{DRAWN}` must not be `informative`."
            )
        return cls(rows, tuple(questions), by_row)

    def of_prompts(self, most: int) -> tuple[HumanQuestion, ...]:
        """Return the questions about the first `most` prompts of the random order."""
        kept = set(list(dict.fromkeys(one.prompt_id for one in self.questions))[:most])
        return tuple(one for one in self.questions if one.prompt_id in kept)

    def progress(self, scores: Mapping[str, float]) -> tuple[int, int]:
        """Return how many prompts have all of their grades, and how many were passed over.

        Passed over are prompts without all grades in front of one that has them, in the random order.
        """
        whole: dict[str, bool] = {}
        for one in self.questions:
            whole[one.prompt_id] = whole.get(one.prompt_id, True) and one.id in scores
        graded = [index for index, is_whole in enumerate(whole.values()) if is_whole]
        return len(graded), (graded[-1] + 1 - len(graded) if graded else 0)

    def labelled(self, scores: Mapping[str, float]) -> list[dict[str, Any]]:
        """Return all rows, those with a human score beside the judge's.

        The model that others are compared with gets 0.5 (or 1 for its meaning) once the prompt's others have a grade.

        scores: human scores by the id of the question.
        """
        asked: dict[str, list[bool]] = {}
        for index, row in enumerate(self.rows):
            if index in self.by_row:
                asked.setdefault(str(row.values["prompt_id"]), []).append(self.by_row[index] in scores)
        written = []
        for index, row in enumerate(self.rows):
            values = dict(row.values)
            if index in self.by_row:
                score = scores.get(self.by_row[index])
            else:
                score = _score_of_itself(values) if all(asked.get(str(values["prompt_id"]), [False])) else None
            written.append(values if score is None else values | {HUMAN_SCORE: score, HUMAN_DRAWN: "random"})
        return written


def _require_columns(path: Path, rows: Sequence[Row]) -> None:
    columns = {name for row in rows for name in row.values}
    missing = [name for name in ("prompt_id", "model", SCORE, ANSWER) if name not in columns]
    if not columns & {"prompt", "messages"}:
        missing.append("prompt")
    if missing:
        raise DataError(
            f"{path} must have the column{'s' * (len(missing) > 1)} {', '.join(missing)}; `elle collect` writes such "
            "a file."
        )
    for row in rows:
        for name in ("prompt_id", "model"):
            if row.values.get(name) in (None, ""):
                raise DataError(f"{row.place}: {name} must not be empty.")
        score = number_of(row.values.get(SCORE))
        if score is None or not 0 <= score <= 1:
            raise DataError(f"{row.place}: {SCORE} must be a number, 0 to 1, got {quoted(row.values.get(SCORE))}.")


def _chance(seed: str, name: str) -> str:
    return hashlib.sha256(f"{seed}\0{name}".encode("utf-8", "surrogatepass")).hexdigest()


def _questions_of(rows: Sequence[Row], seed: str) -> list[HumanQuestion | None] | None:
    """Return the question about each row of a prompt, None for the model that others are compared with.

    Return None for a prompt that cannot be asked about as a whole.
    """
    answers = {str(row.values.get("model")): row.values.get(ANSWER) for row in rows}
    if any(row.values.get(DRAWN) == "informative" for row in rows):
        return None
    found: list[HumanQuestion | None] = []
    for row in rows:
        other = row.values.get(COMPARED_WITH)
        texts = [row.values.get(ANSWER)] + ([answers.get(str(other))] if other else [])
        if not all(isinstance(text, str) for text in texts):
            return None
        found.append(None if other == row.values.get("model") else _question(row, [str(text) for text in texts], seed))
    return found if any(found) else None


def _question(row: Row, answers: list[str], seed: str) -> HumanQuestion:
    values = row.values
    kind = "single" if len(answers) == 1 else "meaning" if values.get(GRADER) == "agreement" else "pair"
    prompt_id, model = str(values["prompt_id"]), str(values["model"])
    facts = json.dumps([kind, prompt_id, model, *answers])
    identity = hashlib.sha256(facts.encode()).hexdigest()[:16]
    swapped = len(answers) == 2 and int(_chance(seed, f"side {identity}"), 16) % 2 == 1
    shown = tuple(reversed(answers)) if swapped else tuple(answers)
    return HumanQuestion(identity, prompt_id, model, kind, _request(values), shown, swapped)


def _request(values: Mapping[str, Any]) -> str:
    messages = values.get("messages") if values.get("prompt") is None else values["prompt"]
    if isinstance(messages, str) and values.get("prompt") is None:
        try:
            messages = json.loads(messages)
        except (ValueError, RecursionError):
            return messages
    if isinstance(messages, list):
        return transcript(messages)
    return str(messages)


def _score_of_itself(values: Mapping[str, Any]) -> float | None:
    if values.get(COMPARED_WITH) != values.get("model"):
        return None
    return 1.0 if values.get(GRADER) == "agreement" else 0.5
