"""Read the results that promptfoo writes as JSON (versions 2 to 4 of its format) or JSON Lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from router.tuning.outcomes.adapters.collection import (
    FAILED,
    NO_PROMPT,
    Collection,
    ImportedAnswer,
    RawScore,
    UnusableRowError,
    amount,
    text_of,
)
from router.tuning.outcomes.adapters.named_scores import ScoredAnswer, add_answers
from router.tuning.outcomes.adapters.prompts import answer_in, chat_of, mapping
from router.tuning.outcomes.records import Row

#: The name of the score of a whole test, beside those that its metrics have.
WHOLE_SCORE = "score"

#: The `failureReason` of a test whose provider or assertion broke down.
_BROKEN = 2

_NOT_ASSERTED = "tests without an assertion, which promptfoo counts as passed"


def read_promptfoo(
    paths: Sequence[Path], collection: Collection, score_name: str | None, *, scored: bool = True
) -> None:
    """Collect the results of promptfoo: `results.results` of a JSON file, or a result in each JSON line.

    The prompt is `prompt.raw`, which may be a chat as JSON text. The model is `provider.label`, or else `provider.id`.
    Cost and tokens are `cost` and `response.tokenUsage`, and the group is `testCase.description`. The score is
    `score`, which promptfoo keeps from 0 to 1; `--score-name` chooses one of `namedScores` in its place. Tests that
    broke down (`failureReason` 2, or an `error` without an answer) are failed calls. Tests without an assertion are
    left out, because promptfoo counts them as passed.
    """
    found = []
    for row in (row for path in paths for outer in collection.rows(path) for row in _results(outer)):
        with collection.row(row.place):
            found.append(_answer(row.place, row.values, scored=scored))
    add_answers(found, collection, score_name or (WHOLE_SCORE if found else None), scored=scored)


def is_promptfoo(row: Mapping[str, Any]) -> bool:
    """Return whether a row is a file of promptfoo's results, or one of them."""
    results = mapping(row.get("results"))
    whole = isinstance(results.get("results"), list) and ("version" in results or "stats" in results)
    return whole or {"provider", "prompt", "success", "score"} <= row.keys()


def _results(outer: Row) -> Iterator[Row]:
    results = mapping(outer.values.get("results")).get("results")
    if results is None:
        results = outer.values.get("results")
    if not isinstance(results, list):
        yield outer
        return
    for one in results:
        yield Row(outer.place, mapping(one))


def _answer(place: Any, values: Mapping[str, Any], *, scored: bool) -> ScoredAnswer:
    provider, response, grading = (mapping(values.get(name)) for name in ("provider", "response", "gradingResult"))
    named = values.get("provider") if isinstance(values.get("provider"), str) else None
    if values.get("failureReason") == _BROKEN or (values.get("error") and not response.get("output")):
        raise UnusableRowError(FAILED, "its provider or an assertion broke down")
    asked = mapping(values.get("prompt")).get("raw", values.get("prompt"))
    if not isinstance(asked, str):
        raise UnusableRowError(NO_PROMPT, f"prompt.raw missing; fields {', '.join(map(str, values))}")
    if scored and (not grading or grading.get("reason") == "No assertions"):
        raise UnusableRowError(_NOT_ASSERTED)
    usage, chat = mapping(response.get("tokenUsage")), chat_of(asked)
    answer = ImportedAnswer(
        place=place,
        model=text_of("model", provider.get("label") or provider.get("id") or named),
        scores=(),
        prompt=None if chat else asked,
        messages=chat,
        group=str(mapping(values.get("testCase")).get("description") or ""),
        cost_usd=amount("cost", values.get("cost")),
        input_tokens=amount("tokenUsage.prompt", usage.get("prompt")) or None,
        output_tokens=amount("tokenUsage.completion", usage.get("completion")) or None,
        answer=answer_in(response.get("output")),
    )
    scores = {WHOLE_SCORE: [RawScore(values.get("score"), "`score` of a test")]}
    for name, value in mapping(values.get("namedScores")).items():
        scores.setdefault(str(name), [RawScore(value, f"named score {str(name)!r}", str(name))])
    return ScoredAnswer(answer, scores)
