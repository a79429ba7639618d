"""Read the events of experiments and logs that Braintrust exports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    first,
    text_of,
    time_of,
)
from router.tuning.outcomes.adapters.named_scores import add_answers
from router.tuning.outcomes.adapters.prompts import answer_in, chat_of, mapping
from router.tuning.outcomes.adapters.traces.joining import TracedCall, TraceFeedback, join_feedback
from router.tuning.outcomes.records import Row

#: Fields of an input that is an object, in which what was asked is looked for.
_ASKED = ("messages", "input", "prompt", "question", "query")


def read_braintrust(
    paths: Sequence[Path], collection: Collection, score_name: str | None, *, scored: bool = True
) -> None:
    """Collect the events of Braintrust that call a model, with the scores on them or on their trace.

    An event calls a model if its span is of type `llm`, or if it names a `model` in `metadata` and is the root of its
    trace. The prompt is `input`: a chat, a text, or an object with one of these. Tokens are read from `metrics`, the
    time from `created`, and the group is the first of `tags`. Events with an `error` are failed calls. The scores are
    those in `scores` by name. They stand on the root of a trace, and count for its call if it has only one.

    Raises DataError if there are several scores and none was chosen.
    """
    feedback, calls = TraceFeedback(), []
    for row in (row for path in paths for row in collection.rows(path)):
        values = row.values
        if not is_braintrust(values):
            collection.leave_out(row.place, "no event of a span", f"fields {', '.join(map(str, values))}")
            continue
        is_root = str(values.get("span_id")) == str(values.get("root_span_id"))
        kind = str(mapping(values.get("span_attributes")).get("type") or "")
        names_model = first(mapping(values.get("metadata")), "model") is not None
        scores = _scores(values)
        if kind != "llm" and is_root:
            for raw in (raw for several in scores.values() for raw in several):
                feedback.add(str(values.get("root_span_id")), raw)
        if kind == "llm" or (is_root and names_model):
            with collection.row(row.place):
                calls.append(_call(row, scores if kind == "llm" else {}))
        elif not is_root:
            collection.skipped["spans that call no model"] += 1
    add_answers(join_feedback(_without_wrappers(calls), feedback, collection), collection, score_name, scored=scored)


def is_braintrust(row: Mapping[str, Any]) -> bool:
    """Return whether a row is an event of Braintrust."""
    return {"span_id", "root_span_id"} <= row.keys()


def _without_wrappers(calls: Sequence[TracedCall]) -> list[TracedCall]:
    """Return the calls without the roots of traces that hold the call of a model themselves."""
    inner = {call.trace for call in calls if call.key != call.trace}
    return [call for call in calls if call.key != call.trace or call.trace not in inner]


def _call(row: Row, scores: Mapping[str, Sequence[RawScore]]) -> TracedCall:
    values = row.values
    if values.get("error"):
        raise UnusableRowError(FAILED)
    metadata, metrics = mapping(values.get("metadata")), mapping(values.get("metrics"))
    given = values.get("input")
    inside = first(mapping(given), *_ASKED) if chat_of(given) is None else None
    asked = given if inside is None else inside
    chat = chat_of(asked)
    if chat is None and not isinstance(asked, str):
        raise UnusableRowError(NO_PROMPT, f"input with {', '.join(map(str, mapping(given))) or 'nothing'}")
    tags = values.get("tags")
    answer = ImportedAnswer(
        place=row.place,
        model=text_of("model", metadata.get("model")),
        scores=(),
        prompt=None if chat else asked,
        messages=chat,
        group=str(tags[0]) if isinstance(tags, list) and tags else "",
        cost_usd=amount("estimated_cost", metrics.get("estimated_cost")),
        input_tokens=amount("prompt_tokens", metrics.get("prompt_tokens")) or None,
        output_tokens=amount("completion_tokens", metrics.get("completion_tokens")) or None,
        asked_at=time_of(values, "created"),
        session_id=str(first(metadata, "session_id", "thread_id", "conversation_id") or ""),
        answer=answer_in(values.get("output")),
    )
    return TracedCall(answer, str(values.get("span_id")), str(values.get("root_span_id")), scores)


def _scores(values: Mapping[str, Any]) -> dict[str, list[RawScore]]:
    return {
        str(name): [RawScore(value, f"score {str(name)!r}", str(name))]
        for name, value in mapping(values.get("scores")).items()
        if value is not None
    }
