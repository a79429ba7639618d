"""Read spans that Arize Phoenix exports: as a table of `get_spans_dataframe`, or as its interface answers."""

from __future__ import annotations

import re
from collections import defaultdict
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
from router.tuning.outcomes.adapters.prompts import answer_in, chat_of, listed, mapping
from router.tuning.outcomes.adapters.traces.joining import TracedCall, TraceFeedback, join_feedback, label_or_score
from router.tuning.outcomes.records import Row

#: A column with the result of an evaluation: `eval.NAME.score` or `eval.NAME.label`.
_EVALUATION = re.compile(r"eval\.(?P<name>.+)\.(?P<part>score|label)")

#: A flat attribute of a message: `llm.input_messages.0.message.content`.
_FLAT_MESSAGE = re.compile(r"llm\.input_messages\.(?P<number>\d{1,6})\.message\.(?P<field>role|content)")


def read_phoenix(paths: Sequence[Path], collection: Collection, score_name: str | None, *, scored: bool = True) -> None:
    """Collect the spans of kind LLM, with annotations and evaluations on them or on their trace.

    Attributes may be columns (`attributes.llm.model_name`), an object with dotted keys, or nested objects. Those that
    are read are `llm.input_messages` or else `input.value`, `llm.model_name`, `llm.token_count.prompt` and
    `.completion`, `llm.cost.total`, and `session.id`. Spans of `status_code` ERROR are failed calls. The scores are
    `result.score`, or else `result.label`, of annotations (`span_id`, `name`), and columns `eval.NAME.score`.

    Raises DataError if there are scores of several names and none was chosen.
    """
    feedback, calls = TraceFeedback(), []
    for row in (row for path in paths for row in collection.rows(path)):
        values = row.values
        if _is_annotation(values):
            result = mapping(values.get("result")) or {
                part: values.get(f"result.{part}", values.get(part)) for part in ("score", "label")
            }
            name = str(first(values, "name", "annotation_name") or "annotation")
            score = label_or_score(result.get("score"), result.get("label"), f"annotation {name!r}", name)
            feedback.add(str(first(values, "span_id", "context.span_id", "trace_id")), score)
        elif not is_phoenix(values):
            collection.leave_out(row.place, "neither span nor annotation", f"fields {', '.join(map(str, values))}")
        elif _kind(values) != "LLM":
            collection.skipped["spans that call no model"] += 1
        else:
            with collection.row(row.place):
                calls.append(_call(row))
    add_answers(join_feedback(calls, feedback, collection), collection, score_name, scored=scored)


def is_phoenix(row: Mapping[str, Any]) -> bool:
    """Return whether a row is a span of Phoenix, or an annotation on one."""
    has_kind = "span_kind" in row or "attributes.openinference.span.kind" in row
    return has_kind or (_is_annotation(row) and "span_id" in row)


def _is_annotation(values: Mapping[str, Any]) -> bool:
    return "annotator_kind" in values or (
        "span_id" in values and {"result", "annotation_name"} & values.keys() != set()
    )


def _kind(values: Mapping[str, Any]) -> str:
    attributes = _attributes(values)
    return str(first(values, "span_kind") or _get(attributes, "openinference.span.kind") or "").upper()


def _attributes(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of a span by their dotted names, as far as the names are written out."""
    inside = mapping(values.get("attributes"))
    prefix = "attributes."
    columns = {str(name)[len(prefix) :]: one for name, one in values.items() if str(name).startswith(prefix)}
    return {**inside, **columns}


def _get(attributes: Mapping[str, Any], name: str) -> Any:
    """Return an attribute by its dotted name, which may be one key or lead through nested objects."""
    if attributes.get(name) is not None:
        return attributes[name]
    for cut in (index for index, letter in enumerate(name) if letter == "."):
        found = _get(mapping(attributes.get(name[:cut])), name[cut + 1 :])
        if found is not None:
            return found
    return None


def _call(row: Row) -> TracedCall:
    values = row.values
    attributes, context = _attributes(values), mapping(values.get("context"))
    if str(values.get("status_code") or "").upper() == "ERROR":
        raise UnusableRowError(FAILED, str(values.get("status_message") or ""))
    chat = _chat(attributes)
    text = None if chat else _get(attributes, "input.value")
    if chat is None and not isinstance(text, str):
        raise UnusableRowError(NO_PROMPT, "neither llm.input_messages nor input.value")
    answer = ImportedAnswer(
        place=row.place,
        model=text_of("model", _get(attributes, "llm.model_name")),
        scores=(),
        prompt=text if chat_of(text) is None else None,
        messages=chat or chat_of(text),
        group=str(values.get("name") or ""),
        cost_usd=amount("llm.cost.total", _get(attributes, "llm.cost.total")),
        input_tokens=amount("token_count.prompt", _get(attributes, "llm.token_count.prompt")) or None,
        output_tokens=amount("token_count.completion", _get(attributes, "llm.token_count.completion")) or None,
        asked_at=time_of(values, "start_time"),
        session_id=str(_get(attributes, "session.id") or ""),
        answer=answer_in(_get(attributes, "output.value")),
    )
    key = str(first(values, "context.span_id", "span_id") or context.get("span_id") or "")
    trace = str(first(values, "context.trace_id", "trace_id") or context.get("trace_id") or "")
    return TracedCall(answer, key, trace, _evaluations(values))


def _chat(attributes: Mapping[str, Any]) -> list[Any] | None:
    given = [mapping(one) for one in listed(_get(attributes, "llm.input_messages"))]
    if given:
        spoken = [mapping(one.get("message")) or one for one in given]
        names = ("role", "content")
        return chat_of([{name: one.get(name, one.get(f"message.{name}")) for name in names} for one in spoken])
    flat: dict[int, dict[str, Any]] = defaultdict(dict)
    for name, value in attributes.items():
        if (match := _FLAT_MESSAGE.fullmatch(str(name))) is not None:
            flat[int(match["number"])][match["field"]] = value
    return chat_of([message for _, message in sorted(flat.items())]) if flat else None


def _evaluations(values: Mapping[str, Any]) -> dict[str, list[RawScore]]:
    found: dict[str, dict[str, Any]] = defaultdict(dict)
    for column, value in values.items():
        if value is not None and (match := _EVALUATION.fullmatch(str(column))) is not None:
            found[match["name"]][match["part"]] = value
    return {
        name: [label_or_score(parts.get("score"), parts.get("label"), f"evaluation {name!r}", name)]
        for name, parts in found.items()
    }
