"""Read Langfuse's exports of observations and scores, from blob storage, from a table of its interface or its API."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from router.tuning.outcomes.adapters.collection import (
    FAILED,
    Collection,
    ImportedAnswer,
    RawScore,
    UnusableRowError,
    amount,
    first,
    note_new,
    text_of,
    time_of,
)
from router.tuning.outcomes.adapters.named_scores import choose_name
from router.tuning.outcomes.adapters.prompts import answer_in, chat_of, decode_json_text, mapping
from router.tuning.outcomes.records import Row, number_of

_OF_SEVERAL = "scored only on a trace of several generations"


@dataclass
class _Export:
    """Holds the records of all files of an export by their kind, such as observations and scores."""

    observations: list[Row] = field(default_factory=list)
    scores: list[Row] = field(default_factory=list)
    trace_names: dict[str, str] = field(default_factory=dict)


def read_langfuse(
    paths: Sequence[Path], collection: Collection, score_name: str | None, *, scored: bool = True
) -> None:
    """Collect the generations of Langfuse exports with their scores.

    Generations are observations of `type` GENERATION. The names of fields may be in snake_case or camelCase. The fields
    that are read are `input` (a chat, an object with `messages`, or text), `provided_model_name` or `model`,
    `total_cost`, `usage_details.input` and `.output`, `start_time`, and as group `trace_name` or the name of the trace.
    Observations of `level` ERROR are failed calls.

    The scores are those called `score_name`; without it there may be only one name. A generation gets the mean of the
    scores on its observation. If it has none and is the only generation of its trace, it gets those on the trace. The
    `data_type` says what a score is: the `value` if it is NUMERIC, true or false if it is BOOLEAN. If it is CATEGORICAL
    or TEXT, it is the `string_value` and needs a score map, because the `value` is then the index of the category, or
    0. Tables of the interface have a column for each name of a score instead.

    With `scored` false, only what was asked is wanted, and no score is read.

    Raises DataError if there are several names and none was chosen, or if there is no score of the chosen name.
    """
    export = _sorted_out(paths, collection)
    by_name = _scores(export, collection) if scored else {}
    columns = {name for row in export.observations for name in row.values}
    name = score_name if score_name in columns else choose_name(_counts(by_name), score_name)
    scores = by_name.get(name or "", {})
    generations = [row for row in export.observations if _is_generation(row.values)]
    collection.skipped["not generations"] += len(export.observations) - len(generations)
    per_trace = Counter(_trace(row.values) for row in generations)
    known: set[str] = set()
    used: set[str] = set()
    for row in generations:
        with collection.row(row.place):
            answer = _answer(row, export.trace_names)
            key, trace = str(row.values.get("id") or ""), f"trace {_trace(row.values)}"
            if key:
                note_new(known, key)
            alone = per_trace[_trace(row.values)] == 1
            at = key if key in scores else trace
            found = scores.get(key) or (scores.get(trace, []) if alone else [])
            used.update({at} if found else set())
            found = found or _in_columns(row.values, name)
            why = _OF_SEVERAL if not found and trace in scores else answer.why_no_score
            collection.answers.append(replace(answer, scores=found, why_no_score=why))
            used.update({trace} if why == _OF_SEVERAL else set())
    collection.notes["scores that belong to no generation of these files"] += len(scores.keys() - used)


def _sorted_out(paths: Sequence[Path], collection: Collection) -> _Export:
    export = _Export()
    for row in (row for path in paths for row in collection.rows(path)):
        values = row.values
        inside = decode_json_text(values.get("observations"))
        name = str(first(values, "name") or "")
        if isinstance(inside, list) and all(isinstance(one, Mapping) for one in inside):
            trace = {"traceName": name, "traceId": values.get("id"), "sessionId": values.get("sessionId")}
            export.observations += [Row(row.place, {**trace, **one}) for one in inside]
            scores = decode_json_text(values.get("scores")) or []
            export.scores += [Row(row.place, {**trace, **one}) for one in scores if isinstance(one, Mapping)]
        elif not {"data_type", "dataType", "string_value", "stringValue", "value"}.isdisjoint(values):
            export.scores.append(row)
        elif first(values, "type", "trace_id", "traceId") is not None:
            export.observations.append(row)
        elif "input" in values and "timestamp" in values:
            # This is a trace of the legacy export. Its observations hold what was asked.
            export.trace_names[str(values.get("id"))] = name
        else:
            collection.leave_out(row.place, "neither observation nor score nor trace", f"fields {', '.join(values)}")
    return export


def _is_generation(values: Mapping[str, Any]) -> bool:
    return str(values.get("type") or "GENERATION").upper() == "GENERATION"


def _trace(values: Mapping[str, Any]) -> str:
    return str(first(values, "trace_id", "traceId") or "")


def _answer(row: Row, trace_names: Mapping[str, str]) -> ImportedAnswer:
    values = row.values
    if str(values.get("level") or "").upper() == "ERROR":
        raise UnusableRowError(FAILED, str(first(values, "status_message", "statusMessage") or ""))
    usage = mapping(first(values, "usage_details", "usageDetails", "usage"))
    asked = decode_json_text(values.get("input"))
    chat = chat_of(asked)
    if chat is None and isinstance(asked, Mapping):
        raise UnusableRowError("input of unknown shape", f"an object with {', '.join(map(str, asked))}")
    tokens = [amount(f"usage {name}", usage.get(name)) for name in ("input", "output")]
    cost = amount(
        "total_cost", first(values, "total_cost", "totalCost", "calculated_total_cost", "calculatedTotalCost")
    )
    return ImportedAnswer(
        place=row.place,
        model=text_of("model", first(values, "provided_model_name", "providedModelName", "model")),
        scores=(),
        prompt=None if chat else str(values.get("input") or ""),
        messages=chat,
        group=str(first(values, "trace_name", "traceName") or trace_names.get(_trace(values), "")),
        cost_usd=cost,
        input_tokens=tokens[0] or None,
        output_tokens=tokens[1] if tokens[0] else None,
        asked_at=time_of(values, "start_time", "startTime"),
        answer=answer_in(values.get("output")),
        session_id=str(first(values, "session_id", "sessionId") or ""),
    )


def _scores(export: _Export, collection: Collection) -> dict[str, dict[str, list[RawScore]]]:
    """Return scores by name, and then by observation id, or by `trace ID` if they are on a trace."""
    found: dict[str, dict[str, list[RawScore]]] = defaultdict(lambda: defaultdict(list))
    seen: set[tuple[str, ...]] = set()
    for row in export.scores:
        values = row.values
        observation, trace = first(values, "observation_id", "observationId"), _trace(values)
        name = str(values.get("name") or "")
        raw = raw_score(name, values)
        same = (str(values.get("id")), str(observation), trace, name, repr(raw.value))
        if not observation and not trace:
            collection.notes["scores of sessions or experiments, which belong to no single answer"] += 1
        elif same not in seen:
            found[name][str(observation) if observation else f"trace {trace}"].append(raw)
        if values.get("id"):
            seen.add(same)  # Windows of scheduled exports may overlap.
    if len(found) > 1 and (nameless := found.pop("", None)):
        collection.notes["scores without a name"] += sum(map(len, nameless.values()))
    return found


def _counts(by_name: Mapping[str, Mapping[str, list[RawScore]]]) -> Counter[str]:
    return Counter({name: sum(map(len, found.values())) for name, found in by_name.items()})


def raw_score(name: str, values: Mapping[str, Any]) -> RawScore:
    """Return what a score of Langfuse says, by its data type."""
    kind = str(first(values, "data_type", "dataType") or "").upper()
    value, text = values.get("value"), first(values, "string_value", "stringValue")
    source = f"scores {name!r} of data type {kind or 'unknown'}"
    if kind == "NUMERIC":
        return RawScore(value, source, name)
    is_truth = str(text).strip().lower() in {"true", "false"} if text else isinstance(value, bool)
    if kind == "BOOLEAN" or (not kind and is_truth):
        number = number_of(value)
        truth = (
            str(text).strip().lower() == "true" if is_truth and text else bool(number) if number in (0, 1) else value
        )
        return RawScore(truth, source, name)
    if not kind and not text:
        is_word = isinstance(value, str) and number_of(value) is None
        return RawScore(value, source, name, is_label=is_word, may_be_index=not is_word)
    # The number beside a category is its index, and beside a text it is 0. Neither is a quality.
    return RawScore(text, source, name, is_label=True)


def _in_columns(values: Mapping[str, Any], name: str | None) -> list[RawScore]:
    """Return the scores in a row of a table of the interface, which has a column for each name of a score."""
    given = decode_json_text(values.get(name)) if name else None
    if not isinstance(given, list):
        return [] if given is None else [RawScore(given, f"column {name!r}", name or "")]
    return [RawScore(one, f"column {name!r}", name or "", is_label=_is_word(one)) for one in given]


def _is_word(value: Any) -> bool:
    """Return whether a value in a list of scores is the name of a category.

    Numbers are numbers there, and truth values are texts.
    """
    return isinstance(value, str) and value.strip().lower() not in {"true", "false"}
