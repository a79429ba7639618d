"""Read a log as the requests that were sent, in the order of time, with their sessions and what they cost."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from probes.errors import DataError
from router.asking.ask import BYTES_PER_TOKEN, Ask, extract
from router.asking.harness_marks import MarkIndex
from router.asking.session_ids import session_id_of
from router.errors import InvalidRequestError
from router.tuning.outcomes.adapters.collection import Collection, ImportedAnswer, LeftOutRow, UnusableRowError
from router.tuning.outcomes.adapters.files import expand
from router.tuning.outcomes.adapters.formats import Reading, read_format, recognise_format
from router.tuning.outcomes.adapters.prompts import check_text
from router.tuning.outcomes.made_ids import make_ids
from router.tuning.outcomes.records import MAX_PROMPT_BYTES, Place
from router.values import RouteQuery


@dataclass(frozen=True)
class LoggedRequest:
    """Holds one request of a log, and what the log says about its answer.

    Attributes:
        place: where it was read.
        query: the request as the service would get it. ask: what is asked in it.
        session: the id of its session; empty if it has none.
        group: the label of the log, such as a name of a trace; empty if it has none.
        asked_at: in seconds since 1970, never less than that of the request before; 0 if the log has no times.
        model: the model that answered; empty if the log does not say.
        cost_usd, input_tokens, output_tokens: of that answer, 0 or more; None if the log does not say.
    """

    place: Place
    query: RouteQuery
    ask: Ask
    session: str
    group: str
    asked_at: float | None
    model: str
    cost_usd: float | None
    input_tokens: float | None
    output_tokens: float | None


@dataclass(frozen=True)
class RequestLog:
    """Holds the requests of a log in the order of time, and what was left out.

    Attributes:
        format: the format of its files, as `elle import` names it. n_files: files read.
        requests: in the order of time; requests without a time stay behind the one that stands before them.
        left_out: rows that cannot be replayed. notes: remarks for the user, each with a number of rows.
        n_without_time: requests whose time the log does not say.
    """

    format: str
    n_files: int
    requests: tuple[LoggedRequest, ...]
    left_out: tuple[LeftOutRow, ...]
    notes: Mapping[str, int]
    n_without_time: int

    @property
    def left_out_counts(self) -> dict[str, int]:
        """Return the number of rows left out by reason, the most frequent reason first."""
        return dict(Counter(one.why for one in self.left_out).most_common())


#: The largest number of answers in one chat of a log. Each of them is replayed with all that was said before it.
MOST_ANSWERS = 500

#: Notes for the user, each with a number of rows.
SPLIT = "whole chats, which were split into one request for each answer of the assistant"
MERGED = "prompts that several models answered; each counts as one request, and what was paid for it is not known"
NO_COST = "costs of 0, which logs write if they know no price; they count as unknown"


def read_log(
    paths: Sequence[Path],
    format_name: str | None = None,
    columns: Mapping[str, str] = MappingProxyType({}),
    marks: MarkIndex | None = None,
) -> RequestLog:
    """Return the requests in files or folders of any format that `elle import` knows; None recognises the format.

    columns: for plain tables the columns by what they are, as in {"prompt": "Frage"}.
    marks: the marks by which harnesses are known, those of the policy; None takes those that are shipped.

    Rows that cannot be replayed are left out and listed. Raises DataError if no request is left, or if the format
    cannot be recognised; the error says what the files hold.
    """
    files = expand(paths)
    collection = Collection()
    format_name = format_name or ("table" if columns else recognise_format(files, collection))
    if columns and format_name != "table":
        raise DataError(f"--column is for tables; the format of these files is {format_name}.")
    read_format(format_name, files, collection, Reading(needs_scores=False, columns=columns))
    requests: list[LoggedRequest] = []
    sessions = Counter(session_id_of(one.session_id, {}, one.parameters) for one in collection.answers)
    for answer in _once_each(collection):
        with collection.row(answer.place):
            requests += _requests(answer, sessions, collection, marks)
    if not requests:
        reasons = Counter(one.why for one in collection.left_out) + collection.skipped
        why = "; ".join(f"{count:,} {reason}" for reason, count in reasons.items()) or "they hold no rows"
        first = f", the first is {collection.left_out[0].place}" if collection.left_out else ""
        raise DataError(f"the log must hold at least one prompt, found none in {len(files)} files ({why}{first}).")
    ordered, untimed = _in_time_order(requests)
    return RequestLog(format_name, len(files), ordered, tuple(collection.left_out), +collection.notes, untimed)


def _once_each(collection: Collection) -> Iterator[ImportedAnswer]:
    """Yield each prompt once: the answers of several models to one prompt are one request."""
    ids = [one.prompt_id for one in collection.answers]
    if None in ids and any(one.scores for one in collection.answers):
        texts = [repr(one.prompt if one.messages is None else one.messages) for one in collection.answers]
        models = [one.model for one in collection.answers]
        made = make_ids(texts, models, [one.task for one in collection.answers])
        ids = [given or f"made {new}" for given, new in zip(ids, made, strict=True)]
    answers: dict[Any, list[ImportedAnswer]] = {}
    for number, (key, answer) in enumerate(zip(ids, collection.answers, strict=True)):
        whose = (answer.place.path, key, answer.session_id, answer.prompt) if key is not None else number
        answers.setdefault(whose, []).append(answer)
    for several in answers.values():
        if len({one.model for one in several}) == 1:
            yield from several
        else:
            collection.notes[MERGED] += 1
            yield replace(several[0], model="", cost_usd=None, input_tokens=None, output_tokens=None)


def _requests(
    answer: ImportedAnswer, sessions: Counter[str], collection: Collection, marks: MarkIndex | None
) -> list[LoggedRequest]:
    """Return the request of an answer; for a whole chat, the requests that led to the assistant's answers."""
    messages = answer.messages if answer.messages is not None else [{"role": "user", "content": answer.prompt}]
    answer = collection.without_zero_cost(answer, NO_COST)
    session = session_id_of(answer.session_id, {}, answer.parameters)
    ends = _ends(messages, whole=sessions[session] == 1 or not session)
    if len(ends) > MOST_ANSWERS:
        raise UnusableRowError(f"chat of more than {MOST_ANSWERS} answers", f"{len(ends):,} answers")
    if len(ends) == 1:
        said = answer.answer if ends[0] == len(messages) else _said(messages[ends[0]])
        return [_request(replace(answer, answer=said), messages[: ends[0]], session, marks)]
    collection.notes[SPLIT] += 1
    session = session or f"{answer.place.path.name}, {answer.place.unit} {answer.place.number}"
    share = None if answer.cost_usd is None else answer.cost_usd / len(ends)
    turn = replace(answer, cost_usd=share, input_tokens=None, output_tokens=None)
    return [_request(replace(turn, answer=_said(messages[end])), messages[:end], session, marks) for end in ends]


def _ends(messages: Sequence[Any], *, whole: bool) -> list[int]:
    """Return at which message each request of a chat ends: where the assistant answers, if the log holds the answers.

    whole: whether this row alone is the session, so that the answers in the middle are requests of their own.
    """
    answers = [
        end
        for end in range(1, len(messages))
        if _role(messages[end]) == "assistant" and _role(messages[end - 1]) not in {"assistant", "system", "developer"}
    ]
    if not answers or _role(messages[-1]) != "assistant":
        return [len(messages)]
    return answers if whole else answers[-1:]


def _role(message: Any) -> str:
    return str(message.get("role", "")) if isinstance(message, Mapping) else ""


def _said(message: Any) -> str | None:
    content = message.get("content")
    return content if isinstance(content, str) and content else None


def _request(answer: ImportedAnswer, messages: Sequence[Any], session: str, marks: MarkIndex | None) -> LoggedRequest:
    query = RouteQuery(tuple(messages), session_id=session, task=answer.task, parameters=answer.parameters)
    try:
        ask = extract(query, max_bytes=MAX_PROMPT_BYTES, marks=marks)
    except (InvalidRequestError, RecursionError) as error:
        raise UnusableRowError("prompt that cannot be read", str(error)) from error
    check_text(ask, messages)
    said = answer.answer
    spoken = None if said is None else math.ceil(len(said.encode(errors="replace")) / BYTES_PER_TOKEN)
    return LoggedRequest(
        place=answer.place,
        query=query,
        ask=ask,
        session=session,
        group=answer.group,
        asked_at=answer.asked_at,
        model=answer.model,
        cost_usd=answer.cost_usd,
        input_tokens=answer.input_tokens,
        output_tokens=answer.output_tokens or spoken,
    )


def _in_time_order(requests: Sequence[LoggedRequest]) -> tuple[tuple[LoggedRequest, ...], int]:
    """Return the requests in the order of time with a time for each, and how many had no time of their own."""
    known = [one.asked_at for one in requests if one.asked_at is not None]
    if not known:
        return tuple(replace(one, asked_at=0.0) for one in requests), len(requests)
    # A request without a time is taken to follow at once on the one before it in the file.
    before = itertools.accumulate(
        (one.asked_at for one in requests), lambda last, own: last if own is None else own, initial=known[0]
    )
    timed = [replace(one, asked_at=when) for one, when in zip(requests, itertools.islice(before, 1, None), strict=True)]
    return tuple(sorted(timed, key=lambda one: one.asked_at or 0.0)), len(requests) - len(known)
