"""Read votes between the answers of two models, such as those of Chatbot Arena: each vote scores both models."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from router.tuning.outcomes.adapters.collection import (
    NO_PROMPT,
    Collection,
    ImportedAnswer,
    RawScore,
    UnusableRowError,
    first,
    text_of,
    time_of,
)
from router.tuning.outcomes.adapters.prompts import chat_of, decode_json_text, mapping
from router.tuning.outcomes.adapters.table import (
    SESSION_COLUMNS,
    TEXT_COLUMNS,
    plain_names,
    require_named,
    require_there,
)
from router.tuning.outcomes.records import Row, number_of

#: What a column `winner` may say, besides the name of a model: the scores of the first and of the second answer.
_VERDICTS = {
    "model a": (1.0, 0.0), "model b": (0.0, 1.0), "a": (1.0, 0.0), "b": (0.0, 1.0),
    "left": (1.0, 0.0), "right": (0.0, 1.0), "first": (1.0, 0.0), "second": (0.0, 1.0),
    "tie": (0.5, 0.5), "draw": (0.5, 0.5), "tie (bothbad)": (0.5, 0.5), "both bad": (0.5, 0.5), "equal": (0.5, 0.5),
}  # fmt: skip

#: What `--column` can name in a file of votes.
VOTE_COLUMNS = ("winner", "model_a", "model_b", "prompt", "question_id", "group")

#: Columns of Kaggle's form of the votes, of which exactly one is 1.
_FLAGS = {"winner_model_a": (1.0, 0.0), "winner_model_b": (0.0, 1.0), "winner_tie": (0.5, 0.5)}

_BOTH_BAD = "votes that both answers are bad, read as a tie"
_TURNS = "votes on chats of several turns, of which the human turns are taken"


def read_votes(paths: Sequence[Path], collection: Collection, names: Mapping[str, str] | None = None) -> None:
    """Collect votes between `model_a` and `model_b`: the winner scores 1, the other one 0, and each 0.5 at a tie.

    Who won stands in `winner` (`model_a`, `model_b`, `tie`, `tie (bothbad)`, or the name of a model), or in
    `winner_model_a`, `winner_model_b` and `winner_tie`. What was asked stands in `conversation_a`, of which the human
    turns and the system prompt are taken, because the answers differ; or in `prompt`, which may be a list of turns as
    JSON text. Further columns: `question_id` or `id`, `language` as group, `tstamp`. names: the columns of VOTE_COLUMNS
    that are called otherwise, as in {"winner": "Preferred"}.

    Such a score says how a model did against the other one, and not how good it is: compare models only with those
    that they met. Raises DataError, which names the nearest column, if a file lacks a column of `names`.
    """
    names = names or {}
    require_named(names, VOTE_COLUMNS)
    for path in paths:
        rows = collection.rows(path)
        require_there(path, dict.fromkeys(str(name) for row in rows for name in row.values), names)
        for row in rows:
            with collection.row(row.place):
                named = {name: row.values.get(column) for name, column in names.items()}
                collection.answers.extend(_pair(Row(row.place, plain_names(row.values) | named), collection))


def is_vote(row: Mapping[str, Any]) -> bool:
    """Return whether a row is a vote between two models."""
    columns = plain_names(row).keys()
    return {"model_a", "model_b"} <= columns and ("winner" in columns or _FLAGS.keys() <= columns)


def _pair(row: Row, collection: Collection) -> list[ImportedAnswer]:
    values = row.values
    models = [text_of(name, values.get(name)) for name in ("model_a", "model_b")]
    if models[0] == models[1]:
        raise UnusableRowError("vote between a model and itself", models[0])
    qualities = _verdict(values, models)
    chat = _asked(values)
    said = str(values.get("winner") or "").strip().lower()
    collection.notes[_BOTH_BAD] += said in {"tie (bothbad)", "both_bad"}
    collection.notes[_TURNS] += sum(turn.get("role") == "user" for turn in chat) > 1
    key = first(values, "question_id", "id")
    return [
        ImportedAnswer(
            place=row.place,
            model=model,
            scores=(RawScore(quality, "votes between two models"),),
            messages=chat,
            prompt_id=None if key is None else str(key),
            group=str(first(values, "group", "language") or ""),
            asked_at=time_of(values, "tstamp", "timestamp"),
            session_id=str(first(values, *SESSION_COLUMNS) or ""),
        )
        for model, quality in zip(models, qualities, strict=True)
    ]


def _verdict(values: Mapping[str, Any], models: Sequence[str]) -> tuple[float, float]:
    if values.get("winner") is None:
        set_flags = [name for name in _FLAGS if number_of(values.get(name)) == 1]
        if len(set_flags) != 1:
            raise UnusableRowError("vote without one winner", f"{', '.join(set_flags) or 'no'} flag is 1")
        return _FLAGS[set_flags[0]]
    said = str(values["winner"]).strip()
    if said in models:
        return (1.0, 0.0) if said == models[0] else (0.0, 1.0)
    verdict = " ".join(said.lower().replace("_", " ").split())
    if verdict not in _VERDICTS:
        near = difflib.get_close_matches(said, [*models, *_VERDICTS], 1)
        hint = f", nearly {near[0]!r}" if near else ""
        raise UnusableRowError("winner that is no model of the vote", f"column winner: {said}{hint}")
    return _VERDICTS[verdict]


def _asked(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    spoken = chat_of(values.get("conversation_a"))
    if spoken is not None:
        chat = [turn for turn in spoken if str(turn.get("role")) in {"system", "user"}]
        other = chat_of(values.get("conversation_b"))
        if other is not None and _humans(other) != _humans(chat):
            raise UnusableRowError("vote on two different chats", "conversation_a and conversation_b ask other things")
        return [{"role": turn["role"], "content": turn.get("content")} for turn in chat]
    asked = decode_json_text(first(values, *TEXT_COLUMNS))
    turns = asked if isinstance(asked, list) else [asked]
    texts = [mapping(turn).get("content", turn) for turn in turns if turn is not None]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise UnusableRowError(NO_PROMPT, f"fields {', '.join(map(str, values))}")
    return [{"role": "user", "content": text} for text in texts]


def _humans(chat: Sequence[Mapping[str, Any]]) -> list[Any]:
    return [turn.get("content") for turn in chat if turn.get("role") == "user"]
