"""Read evaluations of OpenAI: output items of the Evals API, and the logs of its older program `oaieval`."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
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
    time_of,
)
from router.tuning.outcomes.adapters.named_scores import ScoredAnswer, add_answers
from router.tuning.outcomes.adapters.prompts import answer_in, chat_of, listed, mapping
from router.tuning.outcomes.records import Row

#: What the API adds to the name of a grader: `-` and an id.
_ID = re.compile(r"-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")

#: Types of events of `oaieval` that hold what was asked, and those that hold a verdict.
_ASKED = frozenset({"sampling", "raw_sample"})


def read_openai_evals(
    paths: Sequence[Path], collection: Collection, score_name: str | None, *, scored: bool = True
) -> None:
    """Collect the output items of runs (`eval.run.output_item`), and the event logs of `oaieval`.

    Of an output item `sample.input` is the chat, `sample.model` the model and `sample.usage` the tokens. The scores are
    those in `results` by the name of their grader without its id: `score`, or else `passed`. Items with an error are
    failed calls. In a log of `oaieval` the model is the completion function of the first line, the chat is the prompt
    of the event `sampling`, and the score is `correct` of the event `match`, or each number of an event `metrics`.

    Raises DataError if there are several graders and none was chosen.
    """
    found: list[ScoredAnswer] = []
    for path in paths:
        events: dict[str, list[Row]] = defaultdict(list)
        model = ""
        for row in collection.rows(path):
            values = row.values
            if "spec" in values:
                model = ", ".join(map(str, listed(mapping(values["spec"]).get("completion_fns"))))
            elif "final_report" in values:
                collection.skipped["final reports"] += 1
            elif "sample_id" in values:
                events[str(values["sample_id"])].append(row)
            else:
                with collection.row(row.place):
                    found.append(_item(row))
        for sample in events.values():
            with collection.row(sample[0].place):
                found.append(_logged(sample, model))
    add_answers(found, collection, score_name, scored=scored)


def is_openai_evals(row: Mapping[str, Any]) -> bool:
    """Return whether a row is an output item of the Evals API, or a line of a log of `oaieval`."""
    of_log = {"sample_id", "event_id", "type", "data"} <= row.keys() or "final_report" in row
    spec = mapping(row.get("spec"))
    return of_log or "completion_fns" in spec or row.get("object") == "eval.run.output_item"


def _item(row: Row) -> ScoredAnswer:
    values, sample = row.values, mapping(row.values.get("sample"))
    error = mapping(sample.get("error"))
    if error.get("code") or error.get("message"):
        raise UnusableRowError(FAILED, str(error.get("code") or ""))
    chat, usage = chat_of(sample.get("input")), mapping(sample.get("usage"))
    if chat is None:
        raise UnusableRowError(NO_PROMPT, f"sample.input is no chat; fields {', '.join(map(str, sample))}")
    said = listed(sample.get("output"))
    answer = ImportedAnswer(
        place=row.place,
        model=text_of("model", sample.get("model")),
        scores=(),
        messages=chat,
        input_tokens=amount("prompt_tokens", usage.get("prompt_tokens")) or None,
        output_tokens=amount("completion_tokens", usage.get("completion_tokens")) or None,
        asked_at=time_of(values, "created_at"),
        answer=answer_in(said[-1]) if said else None,
    )
    return ScoredAnswer(answer, _of_graders(listed(values.get("results"))))


def _of_graders(results: Iterable[Any]) -> dict[str, list[RawScore]]:
    scores: dict[str, list[RawScore]] = defaultdict(list)
    for result in map(mapping, results):
        name = _ID.sub("", str(result.get("name") or "grader"))
        field = "passed" if result.get("score") is None else "score"
        scores[name].append(RawScore(result.get(field), f"`{field}` of grader {name!r}", name))
    return scores


def _logged(events: Sequence[Row], model: str) -> ScoredAnswer:
    asked: Any = None
    scores: dict[str, list[RawScore]] = {}
    for row in events:
        kind, data = str(row.values.get("type")), mapping(row.values.get("data"))
        if kind in _ASKED and asked is None:
            asked = data.get("prompt")
        elif kind == "match" and "correct" in data:
            scores.setdefault("match", []).append(RawScore(data["correct"], "`correct` of the event match"))
        elif kind == "metrics":
            for name, value in data.items():
                scores.setdefault(name, []).append(RawScore(value, f"`{name}` of the event metrics", name))
    chat = chat_of(asked)
    if chat is None and not isinstance(asked, str):
        raise UnusableRowError(NO_PROMPT, "no event `sampling` with a prompt")
    prompt = None if chat else str(asked)
    return ScoredAnswer(ImportedAnswer(events[0].place, text_of("model", model), (), prompt, chat), scores)
