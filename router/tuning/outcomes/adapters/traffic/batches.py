"""Read message batches of Anthropic, and chat completions that OpenAI stored. Scores come from a file of their own."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from router.tuning.outcomes.adapters.collection import (
    FAILED,
    NO_PROMPT,
    REPEATED,
    Collection,
    ImportedAnswer,
    UnusableRowError,
    amount,
    text_of,
    time_of,
)
from router.tuning.outcomes.adapters.prompts import answer_in, chat_of, listed, mapping, without_nulls
from router.tuning.outcomes.adapters.table import parameters_of
from router.tuning.outcomes.adapters.traffic.logs import UNUSED_SCORES, ScoreFile, score_in_metadata
from router.tuning.outcomes.records import Row

#: The id of a message of a stored completion: that of the completion, and the number of the message.
_MESSAGE_ID = re.compile(r"(?P<completion>chatcmpl-.+)-(?P<number>\d+)")


def read_anthropic_batch(
    paths: Sequence[Path], collection: Collection, scores: ScoreFile, *, scored: bool = True
) -> None:
    """Collect message batches of Anthropic: the requests (`custom_id`, `params`) and the results together.

    The chat is `params.messages`, and `params.system` counts as its system prompt. The model is the one that was
    requested. Input tokens are those of `usage`, with what was read from and written to the cache. Results of another
    type than `succeeded` are failed calls. Scores come from `--scores` by custom_id. With `scored` false, requests
    without a result are answers that have not come.
    """
    requests: dict[str, ImportedAnswer] = {}
    results: list[Row] = []
    for row in (row for path in paths for outer in collection.rows(path) for row in _inside(outer)):
        with collection.row(row.place):
            key = text_of("custom_id", row.values.get("custom_id"))
            if "result" in row.values:
                results.append(row)
            elif key in requests:
                raise UnusableRowError(REPEATED, key)
            else:
                requests[key] = _request(row, key)
    answered = set()
    for row in results:
        with collection.row(row.place):
            key = str(row.values["custom_id"])
            if key in answered:
                raise UnusableRowError(REPEATED, key)
            collection.answers.append(_result(row, key, requests, scores))
            answered.add(key)
    if not scored:
        collection.answers += [request for key, request in requests.items() if key not in answered]
    collection.notes[UNUSED_SCORES] += scores.n_unused


def is_anthropic_batch(row: Mapping[str, Any]) -> bool:
    """Return whether a row is a request or a result of a message batch, or the body that creates one."""
    requests = listed(row.get("requests"))
    whole = bool(requests) and "params" in mapping(requests[0])
    return whole or ("custom_id" in row and not {"params", "result"}.isdisjoint(row))


def _inside(outer: Row) -> Iterator[Row]:
    """Yield the requests in the body that creates a batch, or the row itself if it is no such body."""
    if "requests" not in outer.values:
        yield outer
    for one in listed(outer.values.get("requests")):
        yield Row(outer.place, mapping(one))


def _request(row: Row, key: str) -> ImportedAnswer:
    params = mapping(row.values.get("params"))
    chat = chat_of(params.get("messages"))
    if chat is None:
        raise UnusableRowError(NO_PROMPT, f"params.messages is no chat; fields {', '.join(map(str, params))}")
    model = text_of("model", params.get("model"))
    return ImportedAnswer(row.place, model, (), messages=chat, prompt_id=key, parameters=parameters_of(params))


def _result(row: Row, key: str, requests: Mapping[str, ImportedAnswer], scores: ScoreFile) -> ImportedAnswer:
    result = mapping(row.values.get("result"))
    if result.get("type") != "succeeded":
        raise UnusableRowError(FAILED, f"type {result.get('type')}")
    if key not in requests:
        raise UnusableRowError("result of no request", "name the file of the requests too")
    message, usage = mapping(result.get("message")), mapping(mapping(result.get("message")).get("usage"))
    read = [amount(name, usage.get(name)) for name in _INPUT_TOKENS]
    score = scores.get(f"{requests[key].model}/{key}", key)
    return replace(
        requests[key],
        place=row.place,
        scores=(score,) if score else (),
        input_tokens=None if read[0] is None else sum(one or 0.0 for one in read),
        output_tokens=amount("output_tokens", usage.get("output_tokens")),
        answer=answer_in(message),
    )


#: The tokens of a request: those that were read at the full price, and those that the cache took or gave.
_INPUT_TOKENS = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")


def read_stored_completions(paths: Sequence[Path], collection: Collection, scores: ScoreFile) -> None:
    """Collect the chat completions that OpenAI stored, from what its API lists.

    The files hold the replies to `GET /chat/completions`, and to `GET /chat/completions/ID/messages`.

    The messages of a completion have its id and a number. They may also stand in the completion itself, as `messages`
    or `input`. Tokens are read from `usage` and the time from `created`. The score comes from `--scores` by id, or else
    from `score` in `metadata`. The session is `session_id` or `conversation_id` in `metadata`.
    """
    messages: dict[str, dict[int, Mapping[str, Any]]] = defaultdict(dict)
    completions: dict[str, Row] = {}
    for row in (row for path in paths for row in collection.rows(path)):
        part = _MESSAGE_ID.fullmatch(str(row.values.get("id")))
        if "role" in row.values and part is not None:
            spoken = {name: row.values[name] for name in ("role", "content", "tool_calls") if name in row.values}
            messages[part["completion"]][int(part["number"])] = without_nulls(spoken)
        elif row.values.get("object") == "chat.completion" and str(row.values.get("id")) not in completions:
            completions[str(row.values.get("id"))] = row
        else:
            collection.leave_out(row.place, "neither completion nor message", f"fields {', '.join(row.values)}")
    for key, row in completions.items():
        with collection.row(row.place):
            chat = [message for _, message in sorted(messages.get(key, {}).items())]
            collection.answers.append(_completion(row, key, chat, scores))
    collection.notes[UNUSED_SCORES] += scores.n_unused


def is_stored_completion(row: Mapping[str, Any]) -> bool:
    """Return whether a row is a stored completion, or a message of one."""
    is_message = "role" in row and _MESSAGE_ID.fullmatch(str(row.get("id"))) is not None
    return is_message or row.get("object") == "chat.completion"


def _completion(row: Row, key: str, messages: Sequence[Any], scores: ScoreFile) -> ImportedAnswer:
    values = row.values
    chat = list(messages) or chat_of(values.get("messages")) or chat_of(values.get("input"))
    if not chat:
        raise UnusableRowError(NO_PROMPT, "name the answers of `.../messages` too")
    usage, metadata = mapping(values.get("usage")), mapping(values.get("metadata"))
    score = scores.get(key) or score_in_metadata(metadata)
    return ImportedAnswer(
        place=row.place,
        model=text_of("model", values.get("model")),
        scores=(score,) if score else (),
        messages=chat,
        input_tokens=amount("prompt_tokens", usage.get("prompt_tokens")),
        output_tokens=amount("completion_tokens", usage.get("completion_tokens")),
        asked_at=time_of(values, "created"),
        session_id=str(metadata.get("session_id") or metadata.get("conversation_id") or ""),
        parameters=parameters_of(values),
        answer=answer_in(values),
    )
