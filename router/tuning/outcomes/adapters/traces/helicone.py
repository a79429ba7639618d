"""Read requests that Helicone exports, as its interface answers `POST /v1/request/query` or as its tables."""

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
    note_new,
    text_of,
    time_of,
)
from router.tuning.outcomes.adapters.named_scores import ScoredAnswer, add_answers
from router.tuning.outcomes.adapters.prompts import answer_in, chat_of, mapping
from router.tuning.outcomes.adapters.table import parameters_of
from router.tuning.outcomes.records import Row, number_of

#: The name of the user's thumb, beside the scores that have names of their own.
FEEDBACK = "feedback"

#: What Helicone adds to the name of a score that was true or false.
_OF_TRUTH = "-hcone-bool"


def read_helicone(
    paths: Sequence[Path], collection: Collection, score_name: str | None, *, scored: bool = True
) -> None:
    """Collect the requests of Helicone.

    The prompt is `request_body.messages`, `.input` or `.prompt`. The model is `request_model`, or else `model` or that
    of the body. Cost, tokens and time are `costUSD` or `cost`, `prompt_tokens`, `completion_tokens` and
    `request_created_at`; tokens that the cache gave or took count as input. The session is the property
    `Helicone-Session-Id`. Requests with another `response_status` than 200 are failed calls. The scores are those in
    `scores` by name, and the thumb of the user (`feedback_rating`) as `feedback`.

    Raises DataError if there are several scores and none was chosen.
    """
    found: list[ScoredAnswer] = []
    known: set[str] = set()
    for row in (row for path in paths for row in collection.rows(path)):
        with collection.row(row.place):
            key = text_of("request_id", row.values.get("request_id"))
            note_new(known, key)
            found.append(ScoredAnswer(_answer(row), _scores(row.values)))
    add_answers(found, collection, score_name, scored=scored)


def is_helicone(row: Mapping[str, Any]) -> bool:
    """Return whether a row is a request of Helicone."""
    return {"request_id", "request_body"} <= row.keys()


def _answer(row: Row) -> ImportedAnswer:
    values, body = row.values, mapping(row.values.get("request_body"))
    status = number_of(values.get("response_status"))
    if status is not None and status != 200:
        raise UnusableRowError(FAILED, f"status {status:g}")
    asked = first(body, "messages", "input", "prompt")
    chat = chat_of(asked)
    if chat is None and not isinstance(asked, str):
        raise UnusableRowError(NO_PROMPT, f"request_body with {', '.join(map(str, body)) or 'nothing'}")
    properties = {**mapping(values.get("request_properties")), **mapping(values.get("properties"))}
    tokens = [amount(name, values.get(name)) for name in _INPUT_TOKENS]
    return ImportedAnswer(
        place=row.place,
        model=text_of("model", first(values, "request_model", "model", "response_model") or body.get("model")),
        scores=(),
        prompt=None if chat else asked,
        messages=chat,
        group=str(first(properties, "Helicone-Session-Name") or ""),
        cost_usd=amount("costUSD", first(values, "costUSD", "cost", "cost_usd")),
        input_tokens=sum(one or 0.0 for one in tokens) or None,
        output_tokens=amount("completion_tokens", values.get("completion_tokens")) or None,
        asked_at=time_of(values, "request_created_at"),
        session_id=str(first(properties, "Helicone-Session-Id") or ""),
        parameters=parameters_of(body),
        answer=answer_in(values.get("response_body")),
    )


_INPUT_TOKENS = ("prompt_tokens", "prompt_cache_read_tokens", "prompt_cache_write_tokens")


def _scores(values: Mapping[str, Any]) -> dict[str, list[RawScore]]:
    found: dict[str, list[RawScore]] = {}
    for given, value in mapping(values.get("scores")).items():
        name = str(given).removesuffix(_OF_TRUTH)
        value = mapping(value).get("value", value)
        found[name] = [RawScore(value, f"score {name!r}", name)]
    rating = first(values, "feedback_rating")
    rating = mapping(values.get("feedback")).get("rating") if rating is None else rating
    if rating is not None:
        found[FEEDBACK] = [RawScore(rating, "the user's feedback_rating")]
    return found
