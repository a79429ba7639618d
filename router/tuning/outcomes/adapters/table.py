"""Read plain tables and logs of requests: a prompt or a chat in each row, with or without a model and a score."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from probes.bounded.files import shown
from probes.errors import DataError
from router.tuning.outcomes.adapters.collection import (
    NO_PROMPT,
    Collection,
    ImportedAnswer,
    RawScore,
    UnusableRowError,
    amount,
    first,
    time_of,
)
from router.tuning.outcomes.adapters.named_scores import choose_name
from router.tuning.outcomes.adapters.prompts import answer_in, chat_of, decode_json_text, mapping, without_nulls
from router.tuning.outcomes.outcome_rows import TIME_COLUMNS
from router.tuning.outcomes.records import Row

#: Columns that hold what was asked, in the order in which they are looked for; a chat comes before a text.
CHAT_COLUMNS = ("messages", "conversation", "conversations", "chat")
TEXT_COLUMNS = ("prompt", "input", "question", "query", "instruction")

#: Columns that hold the answer, those that name the session of a request, and those that name the model that answered.
ANSWER_COLUMNS = ("answer", "response", "completion", "output")
SESSION_COLUMNS = ("session_id", "sessionId", "conversation_id", "conversationId", "thread_id", "chat_id")
MODEL_COLUMNS = ("model", "model_name", "model_id")

#: Columns that hold a score. `score` is taken if it is there, and of the others the only one.
SCORE_COLUMNS = ("score", "rating", "grade", "quality", "correct", "passed", "thumbs", "feedback")

#: What `--column` can name, with the columns that are looked for without it.
_NAMED_COLUMNS = {
    "prompt": TEXT_COLUMNS, "messages": CHAT_COLUMNS, "model": MODEL_COLUMNS, "answer": ANSWER_COLUMNS,
    "session_id": SESSION_COLUMNS, "timestamp": TIME_COLUMNS, "prompt_id": ("prompt_id",), "group": ("group",),
    "task": ("task",), "cost_usd": ("cost_usd",),
}  # fmt: skip

#: Fields of a request, besides the chat, that say what a candidate must be able to do, or that count as input.
_REQUEST_FIELDS = (
    *("tools", "functions", "response_format", "text", "output_config", "modalities", "metadata"),
    *("max_tokens", "max_completion_tokens", "max_output_tokens", "system", "instructions"),
)

#: The roles of ShareGPT's chats, whose messages are `{"from": ..., "value": ...}`.
_SHARED_ROLES = {
    "human": "user", "user": "user", "system": "system", "tool": "tool",
    "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant", "model": "assistant",
}  # fmt: skip


@dataclass(frozen=True)
class TableColumns:
    """Says what the columns of a table are called.

    Attributes:
        names: the column of the file by what it is, as in {"prompt": "Frage"}; what is not named has its usual name.
        score: the column of the score; None takes `score`, or else the only one of SCORE_COLUMNS.
        is_scored: False if only what was asked is wanted, so that neither models nor scores are required.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    score: str | None = None
    is_scored: bool = True

    def __post_init__(self) -> None:
        require_named(self.names, _NAMED_COLUMNS)


def parse_columns(given: Sequence[str]) -> dict[str, str]:
    """Return the column by what it is from texts such as `prompt=Frage`. Raises DataError for another text."""
    columns = {}
    for text in given:
        name, equals, column = text.partition("=")
        if not equals or not name.strip() or not column.strip():
            raise DataError(f"--column must say NAME=COLUMN, as in prompt=Frage; got {shown(text)!r}.")
        columns[name.strip()] = column.strip()
    return columns


def read_table(paths: Sequence[Path], collection: Collection, columns: TableColumns) -> None:
    """Collect the rows of tables and of logs of request bodies, of which only a prompt is required.

    A row holds a chat in one of CHAT_COLUMNS, or a text in one of TEXT_COLUMNS, or a whole request body in `body` or
    `request`. Chats may be JSON text, and may have ShareGPT's fields `from` and `value`. Further columns are read if
    they are there: one of MODEL_COLUMNS, one of ANSWER_COLUMNS, one of SCORE_COLUMNS, `prompt_id` or `custom_id`,
    `group`, `task`, one of SESSION_COLUMNS, a time (`timestamp` and the like), `cost_usd`, `input_tokens`,
    `output_tokens`, and the fields of a request body. Capital letters, blanks and hyphens in the names of columns do
    not count: `Model name` is `model_name`.

    Raises DataError, which names the nearest column, for a table without a column of models or without the columns
    that `columns` names, and if several columns may be the score.
    """
    for path in paths:
        rows = collection.rows(path)
        there = dict.fromkeys(str(name) for row in rows for name in row.values)
        score = _check_columns(path, there, columns) if rows else None
        for row in rows:
            with collection.row(row.place):
                named = {name: row.values.get(column) for name, column in columns.names.items()}
                collection.answers.append(_answer(Row(row.place, plain_names(row.values) | named), score))


def is_prompt_row(values: Mapping[str, Any]) -> bool:
    """Return whether a row has one of the columns from which `read_table` reads what was asked."""
    return not {*CHAT_COLUMNS, *TEXT_COLUMNS}.isdisjoint({*plain_names(values), *request_of(values)})


def plain_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with each column under its own name, and under that in small letters with `_` between the words."""
    return {_SEPARATORS.sub("_", str(name).strip().lower()): value for name, value in values.items()} | dict(values)


_SEPARATORS = re.compile(r"[\s_-]+")


def _check_columns(path: Path, there: Mapping[str, None], columns: TableColumns) -> str | None:
    """Return the column of the score; raise DataError if the table lacks a column that it must have."""
    plain = plain_names(there)
    holds = f"it holds {shown(', '.join(there), 400)}"
    require_there(path, there, columns.names)
    if not columns.is_scored:
        return None
    is_body = {"body", "request"} & plain.keys()
    if "model" not in columns.names and not is_body and plain.keys().isdisjoint(MODEL_COLUMNS):
        if {"model_a", "model_b"} <= plain.keys():
            raise DataError(
                f"{path} names two models in each row; {holds}. If it says which one won, name that column with "
                "--column winner=COLUMN."
            )
        near = next(filter(None, (_nearly(one, plain) for one in MODEL_COLUMNS)), "")
        raise DataError(
            f"{path} must say in a column which model answered ({', '.join(MODEL_COLUMNS)}); {holds}.{near} Name the "
            "column with --column model=COLUMN. If each model has a column of its own, name the format routellm."
        )
    if columns.score is None and "score" in plain:
        return "score"
    # A column that is wanted by its name may be any column of the table.
    usual = [one for one in SCORE_COLUMNS if one in plain]
    found = Counter(usual if columns.score is None else [*there])
    chosen = choose_name(found, columns.score)
    if chosen is None:
        near = next(filter(None, (_nearly(one, plain) for one in SCORE_COLUMNS)), "")
        raise DataError(f"{path} must have a score in a column; {holds}.{near} Name it with --score-name COLUMN.")
    return chosen


def require_named(names: Iterable[str], known: Iterable[str]) -> None:
    """Raise DataError, which names the nearest one, if `--column` names something that a row cannot have."""
    for name in names:
        if name not in known:
            raise DataError(
                f"--column must name one of {', '.join(known)}, as in prompt=Frage; got {shown(name)!r}."
                f"{_nearly(name, known)}{' Name the column of the score with --score-name.' * (name == 'score')}"
            )


def require_there(path: Path, there: Iterable[str], names: Mapping[str, str]) -> None:
    """Raise DataError, which names the nearest column, if a file lacks a column that `--column` names."""
    for name in names.values():
        if name not in there:
            raise DataError(
                f"{path} must have the column {shown(name)!r}; it holds {shown(', '.join(there), 400)}."
                f"{_nearly(name, there)}"
            )


def _nearly(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), 1)
    return f" Column {shown(near[0])!r} is nearly {shown(name)!r}." if near else ""


def request_of(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the request body in a row: the object in its column `body` or `request`, or else the row itself."""
    body = mapping(first(values, "body", "request"))
    return body or values


def parameters_of(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a request body, besides the chat, that a decision depends on."""
    found = {name: decode_json_text(body[name]) for name in _REQUEST_FIELDS if body.get(name) not in (None, "")}
    # A table may have a column of such a name that holds something else, such as the text of a document.
    kinds = {"text": dict, "metadata": dict, "tools": list, "functions": list, "response_format": dict}
    return {name: value for name, value in found.items() if isinstance(value, kinds.get(name, object))}


def _answer(row: Row, score_column: str | None) -> ImportedAnswer:
    values, body = row.values, request_of(row.values)
    asked = first(body, *CHAT_COLUMNS, *TEXT_COLUMNS)
    chat = shared_chat(asked) or chat_of(asked)
    if chat is None and not isinstance(asked, str):
        raise UnusableRowError(NO_PROMPT if asked is None else "prompt that is neither text nor chat", _fields(values))
    key = first(values, "prompt_id", "custom_id")
    score = values.get(score_column or "score")
    return ImportedAnswer(
        place=row.place,
        model=str(first(values, *MODEL_COLUMNS) or first(body, *MODEL_COLUMNS) or ""),
        scores=() if score is None else (RawScore(score, f"column {score_column or 'score'!r}", score_column or ""),),
        prompt=asked if chat is None else None,
        messages=chat,
        prompt_id=None if key is None else str(key),
        group=str(first(values, "group", "category") or ""),
        cost_usd=amount("cost_usd", values.get("cost_usd")),
        input_tokens=amount("input_tokens", first(values, "input_tokens", "prompt_tokens")),
        output_tokens=amount("output_tokens", first(values, "output_tokens", "completion_tokens")),
        asked_at=time_of(values, *TIME_COLUMNS),
        answer=answer_in(first(values, *ANSWER_COLUMNS)),
        session_id=str(first(values, *SESSION_COLUMNS) or first(body, *SESSION_COLUMNS) or ""),
        task=str(first(values, "task") or ""),
        parameters=parameters_of(body),
    )


def shared_chat(value: Any) -> list[Any] | None:
    """Return a chat with ShareGPT's fields in the shape of OpenAI; None if it is no such chat."""
    value = decode_json_text(value)
    if not isinstance(value, list) or not value or not all(_is_shared(one) for one in value):
        return None
    return [without_nulls({"role": _SHARED_ROLES[str(one["from"]).lower()], "content": one["value"]}) for one in value]


def _is_shared(message: Any) -> bool:
    return isinstance(message, Mapping) and "value" in message and str(message.get("from")).lower() in _SHARED_ROLES


def _fields(values: Mapping[str, Any]) -> str:
    return f"fields {', '.join(map(str, values))}"
