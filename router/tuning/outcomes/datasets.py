"""Read outcomes in long form into one table of prompts by models, and check every row.

Columns: `prompt` or `messages` (an OpenAI chat, as a list or as JSON text), `model`, `score` (0 to 1); optional
`prompt_id`, `group`, `task`, `cost_usd`, `input_tokens`, `output_tokens`, and a time (`TIME_COLUMNS`). The formats of
the files are those that `router.tuning.outcomes.records` reads.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from probes.bounded.files import shown
from probes.errors import DataError
from probes.probe import DataSource
from probes.tasks.keys import key_fault
from router.asking.ask import Ask, extract
from router.errors import InvalidRequestError
from router.quoting import kind_of, quoted
from router.tuning.outcomes.made_ids import make_ids
from router.tuning.outcomes.records import MAX_PROMPT_BYTES, Place, Row, number_of, parse_json, read_rows
from router.tuning.outcomes.times import seconds_of
from router.values import RouteQuery

FloatArray = npt.NDArray[np.float64]

#: Columns that say when a prompt was asked, in the order in which they are looked for.
TIME_COLUMNS = ("timestamp", "created_at", "start_time", "startTime", "time", "date")
#: The key under which a model card lists the models that have scores other than 0 and 1.
GRADED = "graded_scores"

_SHOWN_ROWS = 5
_SHOWN_LETTERS = 80
_SHOWN_COLUMNS = 400
#: The largest number of USD and of tokens: far beyond sense, and their sums stay within a double.
_MOST = 1e12
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Outcomes:
    """Holds the scores and costs of m models on n prompts.

    Attributes:
        texts: n texts that the probe judges, as `router.asking.ask` extracts them; a text may repeat under another id.
        asks: n asks, which add the length and the needs of the whole request; empty if only the texts are known.
        ids: n distinct ids.
        groups: n labels; an empty text if the data have none.
        models: m names, sorted.
        scores: (n, m), 0 to 1; NaN if the model was not asked.
        cost_usd, input_tokens, output_tokens: (n, m), 0 or more; NaN if unknown.
        sources: the files, with their SHA-256 and number of rows.
        times: (n,) when each prompt was first asked, in seconds since 1970; NaN if unknown; empty if no time was read.
        tasks: n keys of tasks, an empty text for a prompt without one; empty if the data name no task.
        n_averaged: labels that were averaged with another label of the same prompt_id and model.
    """

    texts: tuple[str, ...]
    ids: tuple[str, ...]
    groups: tuple[str, ...]
    models: tuple[str, ...]
    scores: FloatArray
    cost_usd: FloatArray
    input_tokens: FloatArray
    output_tokens: FloatArray
    sources: tuple[DataSource, ...]
    asks: tuple[Ask, ...] = ()
    times: FloatArray = field(default_factory=lambda: np.empty(0))
    tasks: tuple[str, ...] = ()
    n_averaged: int = 0

    def __len__(self) -> int:
        return len(self.texts)

    def select_models(self, names: Sequence[str]) -> Outcomes:
        """Return only these models, in this order, and the prompts that one of them answered.

        Raises DataError for a name the data does not have.
        """
        if repeated := [name for name, count in Counter(names).items() if count > 1]:
            raise DataError(f"models must be distinct, got {', '.join(repeated)} more than once.")
        if unknown := [name for name in names if name not in self.models]:
            raise DataError(
                f"models must be among those of the data ({', '.join(self.models)}), got {', '.join(unknown)}."
            )
        columns = [self.models.index(name) for name in names]
        kept = np.flatnonzero(np.isfinite(self.scores[:, columns]).any(axis=1))
        return self.take(kept, columns)

    def complete_rows(self) -> Outcomes:
        """Return only the prompts that every model answered."""
        kept = np.flatnonzero(np.isfinite(self.scores).all(axis=1))
        return self.take(kept)

    def take(self, rows: npt.NDArray[np.intp], columns: list[int] | None = None) -> Outcomes:
        """Return only these prompts, and only these models if `columns` is given, in this order."""
        columns = list(range(len(self.models))) if columns is None else columns
        cells = np.ix_(rows, np.array(columns, dtype=np.intp))
        return Outcomes(
            texts=tuple(self.texts[row] for row in rows),
            ids=tuple(self.ids[row] for row in rows),
            groups=tuple(self.groups[row] for row in rows),
            models=tuple(self.models[column] for column in columns),
            scores=self.scores[cells],
            cost_usd=self.cost_usd[cells],
            input_tokens=self.input_tokens[cells],
            output_tokens=self.output_tokens[cells],
            sources=self.sources,
            asks=tuple(self.asks[row] for row in rows) if self.asks else (),
            times=self.times[rows] if self.times.size else self.times,
            tasks=tuple(self.tasks[row] for row in rows) if self.tasks else (),
            n_averaged=self.n_averaged,
        )


def read_outcomes(*paths: Path, time_column: str | None = None) -> Outcomes:
    """Return the outcomes of several files in one table.

    Every prompt_id is one row; several labels of one model for it are averaged. Equal texts of different ids stay
    apart.

    time_column: the column of times. By default it is the first of TIME_COLUMNS that a file has. A time that cannot be
    read counts as missing.

    Raises DataError, which names the file, the lines, records or rows (from 1), and what to do.
    """
    tables = [_Table.read(path) for path in paths]
    prompts: dict[tuple[str, str], int] = {}
    texts: list[str] = []
    asks: list[Ask] = []
    groups: list[str] = []
    tasks: list[str] = []
    times: list[float] = []
    cells: dict[tuple[int, str], list[tuple[float, float, float, float]]] = defaultdict(list)
    for table in tables:
        for row, when in zip(table.checked(), table.times(time_column), strict=True):
            key = (table.data_set, row.prompt_id)
            index = prompts.setdefault(key, len(texts))
            if index == len(texts):
                texts.append(row.ask.text)
                asks.append(row.ask)
                groups.append(row.group)
                tasks.append(row.task)
                times.append(when)
            elif (texts[index], tasks[index]) != (row.ask.text, row.task):
                what = "prompts" if texts[index] != row.ask.text else "tasks"
                raise DataError(
                    f"{row.place}: prompt_id {quoted(row.prompt_id)} stands for two different {what}, this is the "
                    "second; give each prompt its own id."
                )
            cells[index, row.model].append(row.numbers)
            times[index] = float(np.fmin(times[index], when))
    models = tuple(sorted({model for _, model in cells}))
    columns = {model: column for column, model in enumerate(models)}
    values = np.full((4, len(texts), len(models)), np.nan)
    for (index, model), labels in cells.items():
        values[:, index, columns[model]] = labels[0] if len(labels) == 1 else _means(labels)
    return Outcomes(
        texts=tuple(texts),
        ids=tuple(prompt_id for _, prompt_id in prompts),
        groups=tuple(groups),
        models=models,
        scores=values[0],
        cost_usd=values[1],
        input_tokens=values[2],
        output_tokens=values[3],
        sources=tuple(DataSource(t.path.name, t.digest, len(t.rows)) for t in tables),
        asks=tuple(asks),
        times=np.array(times, dtype=np.float64),
        tasks=tuple(tasks) if any(tasks) else (),
        n_averaged=sum(map(len, cells.values())) - len(cells),
    )


def _means(labels: Sequence[Sequence[float]]) -> list[float]:
    """Return the mean of each number over several labels; unknown numbers are skipped, and NaN means that all are."""
    known = [[value for value in column if math.isfinite(value)] for column in zip(*labels, strict=True)]
    return [math.fsum(column) / len(column) if column else math.nan for column in known]


@dataclass(frozen=True, slots=True)
class _Row:
    place: Place
    prompt_id: str
    ask: Ask
    group: str
    task: str
    model: str
    numbers: tuple[float, float, float, float]


@dataclass(frozen=True)
class _Table:
    """Holds the rows of one file that has the required columns, before their values are checked."""

    path: Path
    digest: str
    rows: list[Row]
    columns: frozenset[str]

    @property
    def data_set(self) -> str:
        # Ids are distinct within a file only, so that each file is a data set of its own.
        return self.digest

    @classmethod
    def read(cls, path: Path) -> _Table:
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

    def checked(self) -> list[_Row]:
        """Check every value, and return the rows."""
        asks = self._asks()
        models = self._strings("model", required=True)
        groups, tasks = self._strings("group"), self._tasks()
        scores = self._numbers("score", high=1.0)
        others = [
            self._numbers(name, high=_MOST, optional=True) for name in ("cost_usd", "input_tokens", "output_tokens")
        ]
        texts = [ask.text for ask in asks]
        ids = (
            self._strings("prompt_id", required=True) if "prompt_id" in self.columns else make_ids(texts, models, tasks)
        )
        places = [row.place for row in self.rows]
        columns = zip(places, ids, asks, groups, tasks, models, zip(scores, *others, strict=True), strict=True)
        return [_Row(*values) for values in columns]

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
            first = repr(values[bad[0]])[:_SHOWN_LETTERS]
            missing = values[bad[0]] is None or values[bad[0]] != values[bad[0]]
            hint = " Leave out the rows of answers without one." if missing else ""
            raise DataError(
                f"{self.path}: {name} must be a number, 0 to {high:g}; {self._places(bad)}, the first is {first}.{hint}"
            )
        return [math.nan if number is None else number for number in numbers]

    def _places(self, rows: Sequence[int]) -> str:
        places = [self.rows[row].place for row in rows]
        shown = ", ".join(str(place.number) for place in places[:_SHOWN_ROWS])
        more = f" and {len(places) - _SHOWN_ROWS} more" if len(places) > _SHOWN_ROWS else ""
        return f"{places[0].unit}{'' if len(places) == 1 else 's'} {shown}{more}"


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
            chat = parse_json(value) if isinstance(value, str) else value
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


def graded_models(outcomes: Outcomes) -> list[str]:
    """Return the models that have scores other than 0 and 1."""
    between = np.isfinite(outcomes.scores) & ~np.isin(outcomes.scores, (0.0, 1.0))
    return [outcomes.models[column] for column in np.flatnonzero(between.any(axis=0))]
