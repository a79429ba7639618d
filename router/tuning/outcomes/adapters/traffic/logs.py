"""Read records of real traffic: OpenAI batch files and LiteLLM spend logs. Answers without a score are left out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from probes.bounded.files import shown
from probes.errors import DataError
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
from router.tuning.outcomes.adapters.prompts import answer_in, chat_of, cut_elsewhere, decode_json_text, mapping
from router.tuning.outcomes.adapters.table import parameters_of
from router.tuning.outcomes.records import Row

#: Notes for the user, each with a number of answers.
CACHED = "answers from a cache: their cost of 0 is taken as unknown"
UNUSED_SCORES = "scores that belong to no answer of these files"
CUT_ELSEWHERE = "chats whose system prompt or tool result the log cut short: what is judged of them is whole"

#: Types of calls that have their text in `input` or `prompt`.
_TEXT_CALLS = frozenset({"responses", "aresponses", "text_completion", "atext_completion"})


@dataclass
class ScoreFile:
    """Holds scores by id, from a file of `id` (or `custom_id`, `request_id`) and `score`, if one was given."""

    by_id: dict[str, Any] = field(default_factory=dict)
    source: str = ""
    used: set[str] = field(default_factory=set)

    @classmethod
    def read(cls, path: Path, collection: Collection) -> ScoreFile:
        """Read a file of scores; rows without an id and ids with two different scores are left out.

        Raises DataError if no row has an id and a score.
        """
        found: dict[str, Any] = {}
        twice: dict[str, Row] = {}
        rows = collection.rows(path)
        for row in rows:
            key = first(row.values, "id", "custom_id", "request_id")
            if key is None or "score" not in row.values:
                collection.leave_out(row.place, "score without an id or a value", f"fields {', '.join(row.values)}")
            elif str(key) in found and found[str(key)] != row.values["score"]:
                twice[str(key)] = row
            else:
                found[str(key)] = row.values["score"]
        for key, row in twice.items():
            del found[key]
            collection.leave_out(row.place, "id with two different scores", repr(key))
        if not found:
            names = ", ".join(dict.fromkeys(name for row in rows for name in row.values)) or "nothing"
            raise DataError(f"{path} must hold id (or custom_id, request_id) and score; it holds {shown(names, 400)}.")
        return cls(found, f"`score` of {path.name}")

    def get(self, *keys: str) -> RawScore | None:
        """Return the score of the first of these ids that has one, or None if no id has."""
        for key in keys:
            if key in self.by_id:
                self.used.add(key)
                return RawScore(self.by_id[key], self.source)
        return None

    @property
    def n_unused(self) -> int:
        """The number of scores that belong to no answer."""
        return len(self.by_id.keys() - self.used)


def read_openai_batch(paths: Sequence[Path], collection: Collection, scores: ScoreFile, *, scored: bool = True) -> None:
    """Collect the answers of OpenAI batches: request files (`custom_id`, `body`) and output files together.

    The prompt is `body.messages`, or `body.input` of the Responses API. The model is the one that was requested. If one
    custom_id was requested of several models, it is the one with which `response.body.model` of the output begins.
    Tokens are read from `response.body.usage`, and the time from `response.body.created`. A batch holds no scores: they
    come from `--scores`, by custom_id, or by `MODEL/custom_id` if several models share a custom_id. Outputs with an
    `error`, or with a `status_code` other than 200, are failed calls. With `scored` false, only what was asked is
    wanted: requests without an output are then answers that have not come.
    """
    requests: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    outputs: list[Row] = []
    asked: list[tuple[Row, Mapping[str, Any]]] = []
    for row in (row for path in paths for row in collection.rows(path)):
        body = mapping(row.values.get("body"))
        if "response" in row.values or "error" in row.values:
            outputs.append(row)
        elif body and first(row.values, "custom_id") is not None:
            requests[str(row.values["custom_id"])].append(body)
            asked.append((row, body))
        else:
            collection.leave_out(row.place, "neither request nor output", f"fields {', '.join(row.values)}")
    known: set[tuple[str, str]] = set()
    for row in outputs:
        with collection.row(row.place):
            collection.answers.append(_batch_answer(row, requests, scores, known))
    for row, body in asked if not scored else ():
        with collection.row(row.place):
            key, model = str(row.values["custom_id"]), str(body.get("model") or "")
            if (key, model) not in known:
                collection.answers.append(_batch_request(row, key, body))
    collection.notes[UNUSED_SCORES] += scores.n_unused


def _batch_answer(
    row: Row, requests: Mapping[str, list[Mapping[str, Any]]], scores: ScoreFile, known: set[tuple[str, str]]
) -> ImportedAnswer:
    key, response = text_of("custom_id", row.values.get("custom_id")), mapping(row.values.get("response"))
    body = mapping(response.get("body"))
    if row.values.get("error") or str(response.get("status_code")) != "200":
        raise UnusableRowError(FAILED, f"status {response.get('status_code')}")
    request = _requested(requests.get(key, []), str(body.get("model", "")))
    model = text_of("model", request.get("model"))
    note_new(known, (key, model), key)
    usage = mapping(body.get("usage"))
    score = scores.get(f"{model}/{key}", key)
    return replace(
        _batch_request(row, key, request),
        model=model,
        scores=(score,) if score else (),
        input_tokens=amount("prompt_tokens", first(usage, "prompt_tokens", "input_tokens")),
        output_tokens=amount("completion_tokens", first(usage, "completion_tokens", "output_tokens")),
        asked_at=time_of(body, "created", "created_at"),
        answer=answer_in(body),
    )


def _batch_request(row: Row, key: str, request: Mapping[str, Any]) -> ImportedAnswer:
    """Return a request of a batch as an answer of which nothing is known yet."""
    asked = request.get("messages", request.get("input"))
    return ImportedAnswer(
        place=row.place,
        model=str(request.get("model") or ""),
        scores=(),
        prompt=asked if isinstance(asked, str) else None,
        messages=chat_of(asked),
        prompt_id=key,
        parameters=parameters_of(request),
    )


def _requested(candidates: Sequence[Mapping[str, Any]], answered_by: str) -> Mapping[str, Any]:
    if len(candidates) > 1:
        # `gpt-4o-mini-2024` answers for `gpt-4o-mini` and not for `gpt-4o`, so the longest name that fits is taken.
        candidates = [c for c in candidates if answered_by.startswith(str(c.get("model")))]
        candidates = sorted(candidates, key=lambda c: len(str(c.get("model"))))[-1:]
    if not candidates:
        raise UnusableRowError("output of no request", "name the request files of the batch too")
    return candidates[0]


def read_litellm_spend_logs(paths: Sequence[Path], collection: Collection, scores: ScoreFile) -> None:
    """Collect the answers in LiteLLM's spend logs (`LiteLLM_SpendLogs`, or the JSON of `/spend/logs`).

    The prompt is `messages`, or else the messages in `proxy_server_request`; both are empty unless the proxy stores
    prompts. The other fields that are read are `model_group` or else `model`, `spend` in USD, `prompt_tokens`,
    `completion_tokens`, `startTime`, and as group the first of `request_tags`. Rows of `status` failure are failed
    calls, and the cost of a `cache_hit` is unknown. The score comes from `--scores` by `request_id`, or else from
    `score` in `metadata`, in its `requester_metadata` or in its `spend_logs_metadata`.
    """
    known: set[str] = set()
    for row in (row for path in paths for row in collection.rows(path)):
        with collection.row(row.place):
            key = text_of("request_id", row.values.get("request_id"))
            note_new(known, key)
            answer = _logged_answer(row, key, scores)
            collection.answers.append(answer)
            collection.notes[CACHED] += int(_is_cached(row))
            collection.notes[CUT_ELSEWHERE] += int(cut_elsewhere(answer))
    collection.notes[UNUSED_SCORES] += scores.n_unused


def _logged_answer(row: Row, key: str, scores: ScoreFile) -> ImportedAnswer:
    values = row.values
    score = scores.get(key) or score_in_metadata(mapping(values.get("metadata")))
    if str(values.get("status") or "").lower() == "failure":
        raise UnusableRowError(FAILED)
    request = mapping(values.get("proxy_server_request"))
    # What an embedding or an image was made of is no prompt.
    asked = first(request, "input", "prompt") if str(values.get("call_type")) in _TEXT_CALLS else None
    messages = chat_of(values.get("messages")) or chat_of(request) or chat_of(asked)
    tokens = [amount(name, values.get(name)) for name in ("prompt_tokens", "completion_tokens")]
    cost = amount("spend", values.get("spend"))
    tags = decode_json_text(values.get("request_tags"))
    return ImportedAnswer(
        place=row.place,
        model=text_of("model", first(values, "model_group", "model")),
        scores=(score,) if score else (),
        prompt=asked if messages is None and isinstance(asked, str) else None,
        messages=messages,
        group=str(tags[0]) if isinstance(tags, list) and tags else "",
        cost_usd=None if _is_cached(row) else cost,
        input_tokens=tokens[0] or None,
        output_tokens=tokens[1] if tokens[0] else None,
        asked_at=time_of(values, "startTime"),
        answer=answer_in(values.get("response")),
        session_id=str(values.get("session_id") or ""),
        parameters=parameters_of(request),
    )


def _is_cached(row: Row) -> bool:
    return str(row.values.get("cache_hit") or "").lower() in {"true", "1"}


def score_in_metadata(metadata: Mapping[str, Any]) -> RawScore | None:
    """Return the `score` in the metadata of a request, or in what LiteLLM keeps in it; None without one."""
    for name in ("", "requester_metadata", "spend_logs_metadata"):
        inside = mapping(metadata.get(name)) if name else metadata
        if inside.get("score") is not None:
            return RawScore(inside["score"], f"`score` in metadata{'.' if name else ''}{name}")
    return None
