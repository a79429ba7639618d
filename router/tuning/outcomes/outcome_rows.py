"""Check the columns of one file of outcomes, and give its rows with every value in its type and range."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probes.bounded.files import shown
from probes.bounded.text import decode_json
from probes.errors import DataError
from probes.tasks.keys import key_fault
from router.asking.ask import Ask, extract
from router.errors import InvalidRequestError
from router.quoting import did_you_mean, kind_of, quoted
from router.tuning.outcomes.made_ids import make_ids
from router.tuning.outcomes.records import MAX_PROMPT_BYTES, Place, Row, number_of, read_rows
from router.tuning.outcomes.times import seconds_of
from router.values import RouteQuery

#: Columns that say when a prompt was asked, in the order in which they are looked for.
TIME_COLUMNS = ("timestamp", "created_at", "start_time", "startTime", "time", "date")

_SHOWN_ROWS = 5
_SHOWN_COLUMNS = 400
#: The largest number of USD and of tokens: far beyond sense, and their sums stay within a double.
_MOST = 1e12
_SURROGATE = re.compile("[\ud800-\udfff]")
_AMOUNTS = ("cost_usd", "input_tokens", "output_tokens")


@dataclass(frozen=True, slots=True)
class OutcomeRow:
    """Holds one row of a file of outcomes: what a model's answer to a prompt is worth, and what it cost.

    Attributes:
        place: where it was read.
        prompt_id, ask, group, task: of the prompt.
        model: who answered.
        numbers: score, cost in USD, input tokens, output tokens, and what a person says (`human_score`); all but the
            score may be NaN.
        grader: who made the score; an empty text if the data do not say.
        for_people: whether a random draw chose this row for a person (`human_drawn`).
        informative: whether the prompt was chosen because its label teaches much (`drawn`), and not at random.
        compared_with: the model whose answer this one was compared with; an empty text for a grade by itself.
        caller_score: the score that another system made of the request; NaN if there is none, or none was asked for.
    """

    place: Place
    prompt_id: str
    ask: Ask
    group: str
    task: str
    model: str
    numbers: tuple[float, float, float, float, float]
    grader: str
    for_people: bool
    informative: bool
    compared_with: str
    caller_score: float


@dataclass(frozen=True)
class OutcomeTable:
    """Holds the rows of one file that has the required columns, before their values are checked.

    path, digest: the file and its SHA-256. rows: as read. columns: every name that some row has.
    """

    path: Path
    digest: str
    rows: list[Row]
    columns: frozenset[str]

    @property
    def data_set(self) -> str:
        """Return the digest of the file, because ids are distinct within one file only."""
        return self.digest

    @classmethod
    def read(cls, path: Path) -> OutcomeTable:
        """Return the table of a file.

        Raises DataError if the file cannot be read, or lacks a column that every file of outcomes has.
        """
        rows = read_rows(path)
        columns = dict.fromkeys(name for row in rows for name in row.values)
        missing = {"model", "score"} - columns.keys()
        if "prompt" not in columns and "messages" not in columns:
            missing.add("prompt")
        if missing:
            raise DataError(
                f"{path} must have the columns prompt (or messages), model and score; {', '.join(sorted(missing))} "
                f"missing, found {shown(', '.join(columns), _SHOWN_COLUMNS) or 'no row'}."
            )
        return cls(path, hashlib.sha256(path.read_bytes()).hexdigest(), rows, frozenset(columns))

    def checked(self, score_column: str | None = None) -> list[OutcomeRow]:
        """Check every value, and return the rows.

        score_column: the column of a caller's score; None reads none. Raises DataError, which names the column and the
        rows at fault.
        """
        asks = self._asks()
        models = self._strings("model", required=True)
        groups, tasks = self._strings("group"), self._tasks()
        numbers = [self._numbers("score", high=1.0), *(self._numbers(n, high=_MOST, optional=True) for n in _AMOUNTS)]
        numbers.append(self._numbers("human_score", high=1.0, optional=True))
        texts = [ask.text for ask in asks]
        ids = (
            self._strings("prompt_id", required=True) if "prompt_id" in self.columns else make_ids(texts, models, tasks)
        )
        for_people = [drawn == "random" for drawn in self._strings("human_drawn")]
        informative = [drawn not in ("", "random") for drawn in self._strings("drawn")]
        further = (
            self._strings("grader"),
            for_people,
            informative,
            self._strings("compared_with"),
            self._scores(score_column),
        )
        places = [row.place for row in self.rows]
        columns = zip(places, ids, asks, groups, tasks, models, zip(*numbers, strict=True), *further, strict=True)
        return [OutcomeRow(*values) for values in columns]

    def _scores(self, column: str | None) -> list[float]:
        """Return the caller's score of each row, any finite number; NaN for a row without one."""
        if column is None:
            return [math.nan] * len(self.rows)
        if column not in self.columns:
            hint = did_you_mean(column, self.columns, quoted)
            found = shown(", ".join(sorted(self.columns)), _SHOWN_COLUMNS)
            raise DataError(f"{self.path} must have the column {quoted(column)} of scores, found {found}.{hint}")
        values = [row.values.get(column) for row in self.rows]
        numbers = [math.nan if value is None else number_of(value) for value in values]
        bad = [i for i, number in enumerate(numbers) if number is None or math.isinf(number)]
        if bad:
            first = quoted(values[bad[0]])
            raise DataError(f"{self.path}: {column} must be a number; {self._places(bad)}, the first is {first}.")
        return [math.nan if number is None else number for number in numbers]

    def _tasks(self) -> list[str]:
        tasks = self._strings("task")
        bad = [row for row, key in enumerate(tasks) if key and key_fault(key)]
        if bad:
            raise DataError(f"{self.path}: task must {key_fault(tasks[bad[0]])}; {self._places(bad)}.")
        return tasks

    def times(self, column: str | None) -> list[float]:
        """Return the time of each row in seconds since 1970, or NaN for a row without a readable time."""
        name = column or next((name for name in TIME_COLUMNS if name in self.columns), None)
        if name is not None and column is not None and name not in self.columns:
            found = shown(", ".join(sorted(self.columns)), _SHOWN_COLUMNS)
            raise DataError(f"{self.path} must have the column {quoted(name)}, found {found}.")
        return [math.nan if name is None else seconds_of(row.values.get(name)) for row in self.rows]

    def _asks(self) -> list[Ask]:
        cache: dict[str, Ask] = {}
        asks = []
        for row in self.rows:
            name = "messages" if row.values.get("prompt") is None and "messages" in row.values else "prompt"
            value = row.values.get(name)
            key = value if isinstance(value, str) else json.dumps(value, default=str)
            if (key := f"{name} {key}") not in cache:
                cache[key] = read_ask(row.place, name, value)
            asks.append(cache[key])
        return asks

    def _strings(self, name: str, *, required: bool = False) -> list[str]:
        values = [row.values.get(name) for row in self.rows]
        bad = [i for i, v in enumerate(values) if (v is None or v == "") and required]
        if bad:
            raise DataError(f"{self.path}: {name} must not be empty, {self._places(bad)}.")
        # A list would become the name "['gpt-4']", and half a surrogate pair cannot be written into a probe.
        bad = [i for i, v in enumerate(values) if isinstance(v, list | dict) or _SURROGATE.search(str(v))]
        if bad:
            raise DataError(
                f"{self.path}: {name} must be valid Unicode text or a number; {self._places(bad)}, the first is "
                f"{quoted(values[bad[0]])}."
            )
        return ["" if value is None else str(value) for value in values]

    def _numbers(self, name: str, *, high: float, optional: bool = False) -> list[float]:
        values = [row.values.get(name) for row in self.rows]
        numbers = [number_of(value) for value in values]
        if optional:
            # Programs that have no missing value write NaN in its place.
            numbers = [math.nan if v is None else n for v, n in zip(values, numbers, strict=True)]
        bad = [i for i, number in enumerate(numbers) if not _within(number, high, optional)]
        if bad:
            first = quoted(values[bad[0]])
            missing = values[bad[0]] is None or values[bad[0]] != values[bad[0]]
            hint = " Leave out the rows of answers without one." if missing else ""
            raise DataError(
                f"{self.path}: {name} must be a number, 0 to {high:g}; {self._places(bad)}, the first is {first}.{hint}"
            )
        return [math.nan if number is None else number for number in numbers]

    def _places(self, rows: Sequence[int]) -> str:
        places = [self.rows[row].place for row in rows]
        numbers = ", ".join(str(place.number) for place in places[:_SHOWN_ROWS])
        more = f" and {len(places) - _SHOWN_ROWS} more" if len(places) > _SHOWN_ROWS else ""
        return f"{places[0].unit}{'' if len(places) == 1 else 's'} {numbers}{more}"


def _within(number: float | None, high: float, optional: bool) -> bool:
    if number is None or math.isnan(number):
        return optional and number is not None
    return 0 <= number <= high


def read_ask(place: Place, name: str, value: Any) -> Ask:
    """Return the ask in a value of the column `prompt` or `messages`. Raises DataError, which names the place."""
    # The service extracts texts in the same way. Otherwise the probe would be fitted on other texts than it judges.
    try:
        if name == "prompt":
            if not isinstance(value, str):
                raise DataError(f"{place}: prompt must be text, got {kind_of(value)}.")
            query = RouteQuery.from_prompt(value)
        else:
            chat = decode_json(value) if isinstance(value, str) else value
            if not isinstance(chat, list):
                raise DataError(f"{place}: messages must be a list of messages, got {kind_of(chat)}.")
            query = RouteQuery(chat)
        ask = extract(query, max_bytes=MAX_PROMPT_BYTES)
    except (InvalidRequestError, ValueError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{place}: {error}") from error
    if not ask.text:
        raise DataError(f"{place}: {name} must hold text, got none.")
    return ask
