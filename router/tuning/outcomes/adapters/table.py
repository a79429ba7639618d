"""Read plain tables and logs of requests: a prompt or a chat in each row, with or without a model and a score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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


def read_table(paths: Sequence[Path], collection: Collection) -> None:
    """Collect the rows of tables and of logs of request bodies, of which only a prompt is required.

    A row holds a chat in one of CHAT_COLUMNS, or a text in one of TEXT_COLUMNS, or a whole request body in `body` or
    `request`. Chats may be JSON text, and may have ShareGPT's fields `from` and `value`. Further columns are read if
    they are there: one of MODEL_COLUMNS, one of ANSWER_COLUMNS, `score`, `prompt_id` or `custom_id`, `group`, `task`,
    one of SESSION_COLUMNS, a time (`timestamp` and the like), `cost_usd`, `input_tokens`, `output_tokens`, and the
    fields of a request body.
    """
    for path in paths:
        for row in collection.rows(path):
            with collection.row(row.place):
                collection.answers.append(_answer(row))


def is_prompt_row(values: Mapping[str, Any]) -> bool:
    """Return whether a row has one of the columns from which `read_table` reads what was asked."""
    return not {*CHAT_COLUMNS, *TEXT_COLUMNS}.isdisjoint({*values, *request_of(values)})


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


def _answer(row: Row) -> ImportedAnswer:
    values, body = row.values, request_of(row.values)
    asked = first(body, *CHAT_COLUMNS, *TEXT_COLUMNS)
    chat = shared_chat(asked) or chat_of(asked)
    if chat is None and not isinstance(asked, str):
        raise UnusableRowError(NO_PROMPT if asked is None else "prompt that is neither text nor chat", _fields(values))
    key = first(values, "prompt_id", "custom_id")
    score = values.get("score")
    return ImportedAnswer(
        place=row.place,
        model=str(first(values, *MODEL_COLUMNS) or first(body, *MODEL_COLUMNS) or ""),
        scores=() if score is None else (RawScore(score, "column 'score'"),),
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
