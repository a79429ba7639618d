"""Outcome data in long form -> one table of prompts by models, with every row checked.

Columns: `prompt` or `messages` (an OpenAI chat, as a list or as JSON text), `model`, `score` (0 to 1); optional
`prompt_id`, `group`, `cost_usd`, `input_tokens`, `output_tokens`. Parquet, JSONL or CSV, by the file's suffix.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from probes.errors import DataError
from probes.probe import DataSource
from router.asking.ask import Ask, extract
from router.errors import InvalidRequestError
from router.values import RouteQuery

FloatArray = npt.NDArray[np.float64]

#: Offline there is no service to protect; this only catches a column that is not a prompt.
MAX_PROMPT_BYTES = 16 * 1024 * 1024

_SHOWN_ROWS = 5


@dataclass(frozen=True)
class Outcomes:
    """How each model did on each prompt.

    Attributes:
        texts: what is judged, n of them, as `router.asking.ask` extracts it; may repeat under different ids.
        asks: the same with length and needs of the whole request, n of them; empty where only the texts are known.
        ids: distinct, n.
        groups: n labels, empty text where the data has none.
        models: m names, sorted.
        scores: (n, m), 0 to 1, NaN where this model was not asked.
        cost_usd, input_tokens, output_tokens: (n, m), NaN where unknown.
        sources: the files, with their SHA-256 and number of rows.
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

    def __len__(self) -> int:
        return len(self.texts)

    def select_models(self, names: Sequence[str]) -> Outcomes:
        """Only these models, in this order; prompts that none of them answered are dropped.

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
        """Only prompts that every model answered."""
        kept = np.flatnonzero(np.isfinite(self.scores).all(axis=1))
        return self.take(kept)

    def take(self, rows: npt.NDArray[np.intp], columns: list[int] | None = None) -> Outcomes:
        """Only these prompts, and these models unless None, in this order."""
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
        )


def read_outcomes(*paths: Path) -> Outcomes:
    """The outcomes in these files together.

    Raises DataError naming the file, the rows (counted from 1, the header not counted) and what to do.
    """
    tables = [_Table.read(path) for path in paths]
    prompts: dict[tuple[str, str], int] = {}
    texts: list[str] = []
    asks: list[Ask] = []
    groups: list[str] = []
    cells: dict[tuple[int, str], tuple[float, float, float, float]] = {}
    for table in tables:
        for row in table.rows():
            key = (table.data_set, row.prompt_id)
            index = prompts.setdefault(key, len(texts))
            if index == len(texts):
                texts.append(row.ask.text)
                asks.append(row.ask)
                groups.append(row.group)
            elif texts[index] != row.ask.text:
                raise DataError(
                    f"{table.path}: prompt_id {row.prompt_id!r} stands for two different prompts, the second in row "
                    f"{row.number}; give each prompt its own id."
                )
            if (index, row.model) in cells:
                raise DataError(
                    f"{table.path}: row {row.number} repeats model {row.model!r} for prompt_id {row.prompt_id!r}; keep "
                    f"one row per prompt and model, or give repeated samples ids of their own."
                )
            cells[index, row.model] = row.numbers
    models = tuple(sorted({model for _, model in cells}))
    columns = {model: column for column, model in enumerate(models)}
    values = np.full((4, len(texts), len(models)), np.nan)
    for (index, model), numbers in cells.items():
        values[:, index, columns[model]] = numbers
    return Outcomes(
        texts=tuple(texts),
        ids=tuple(prompt_id for _, prompt_id in prompts),
        groups=tuple(groups),
        models=models,
        scores=values[0],
        cost_usd=values[1],
        input_tokens=values[2],
        output_tokens=values[3],
        sources=tuple(DataSource(t.path.name, t.digest, len(t.columns["model"])) for t in tables),
        asks=tuple(asks),
    )


@dataclass(frozen=True, slots=True)
class _Row:
    number: int
    prompt_id: str
    ask: Ask
    group: str
    model: str
    numbers: tuple[float, float, float, float]


@dataclass(frozen=True)
class _Table:
    """One file's columns, checked for presence and type but not yet put together."""

    path: Path
    digest: str
    columns: Mapping[str, list[Any]]

    @property
    def data_set(self) -> str:
        # Ids need to be distinct within a file only.
        return self.digest

    @classmethod
    def read(cls, path: Path) -> _Table:
        if not path.is_file():
            raise DataError(f"data file {path} does not exist.")
        columns = _read_columns(path)
        missing = {"model", "score"} - columns.keys()
        if "prompt" not in columns and "messages" not in columns:
            missing.add("prompt")
        if missing:
            raise DataError(
                f"{path} must have the columns prompt (or messages), model and score; {', '.join(sorted(missing))} "
                f"missing, found {', '.join(columns) or 'none'}."
            )
        if not columns["model"]:
            raise DataError(f"{path} must hold at least one row, got none.")
        return cls(path, hashlib.sha256(path.read_bytes()).hexdigest(), columns)

    def rows(self) -> list[_Row]:
        asks = self._asks()
        texts = [ask.text for ask in asks]
        models = self._strings("model", required=True)
        groups = self._strings("group") if "group" in self.columns else [""] * len(models)
        scores = self._numbers("score", high=1.0)
        others = [
            self._numbers(name, high=math.inf, optional=True) for name in ("cost_usd", "input_tokens", "output_tokens")
        ]
        ids = self._strings("prompt_id", required=True) if "prompt_id" in self.columns else _occurrences(texts, models)
        columns = zip(ids, asks, groups, models, zip(scores, *others, strict=True), strict=True)
        return [_Row(number, *values) for number, values in enumerate(columns, start=1)]

    def _asks(self) -> list[Ask]:
        cache: dict[str, Ask] = {}
        name = "prompt" if "prompt" in self.columns else "messages"
        asks = []
        for number, value in enumerate(self.columns[name], start=1):
            key = value if isinstance(value, str) else json.dumps(value)
            if key not in cache:
                cache[key] = self._ask(name, value, number)
            asks.append(cache[key])
        return asks

    def _ask(self, name: str, value: Any, number: int) -> Ask:
        # The same extraction as when serving, or the probe would be fitted on other texts than it judges.
        try:
            if name == "prompt":
                if not isinstance(value, str):
                    raise DataError(f"{self.path}: prompt must be text in row {number}, got {type(value).__name__}.")
                query = RouteQuery.from_prompt(value)
            else:
                query = RouteQuery(json.loads(value) if isinstance(value, str) else value)
            ask = extract(query, max_bytes=MAX_PROMPT_BYTES)
        except (InvalidRequestError, ValueError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{self.path}: row {number}: {error}") from error
        if not ask.text:
            raise DataError(f"{self.path}: {name} must hold text in row {number}, got none.")
        return ask

    def _strings(self, name: str, *, required: bool = False) -> list[str]:
        values = self.columns[name]
        bad = [i for i, v in enumerate(values, start=1) if (v is None or v == "") and required]
        if bad:
            raise DataError(f"{self.path}: {name} must not be empty, {_rows(bad)}.")
        return ["" if value is None else str(value) for value in values]

    def _numbers(self, name: str, *, high: float, optional: bool = False) -> list[float]:
        if name not in self.columns:
            return [math.nan] * len(self.columns["model"])
        numbers = [_number(value) for value in self.columns[name]]
        bad = [
            i
            for i, number in enumerate(numbers, start=1)
            if not (number is not None and 0 <= number <= high and math.isfinite(number))
            and not (optional and self.columns[name][i - 1] is None)
        ]
        if bad:
            bounds = f"0 to {high:g}" if math.isfinite(high) else "0 or more"
            first = self.columns[name][bad[0] - 1]
            raise DataError(f"{self.path}: {name} must be a number, {bounds}; {_rows(bad)}, the first is {first!r}.")
        return [math.nan if number is None else number for number in numbers]


def _read_columns(path: Path) -> dict[str, list[Any]]:
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    suffix = path.suffix.lower()
    try:
        if suffix == ".parquet":
            return dict(pyarrow.parquet.read_table(path).to_pydict())
        if suffix == ".csv":
            # Ids that look like numbers stay text, and an empty cell stays empty.
            texts = {name: pa.string() for name in ("prompt", "messages", "model", "prompt_id", "group")}
            parse = pyarrow.csv.ParseOptions(newlines_in_values=True)
            convert = pyarrow.csv.ConvertOptions(column_types=texts, strings_can_be_null=True, null_values=[""])
            return dict(pyarrow.csv.read_csv(path, parse_options=parse, convert_options=convert).to_pydict())
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as {suffix[1:]}: {error}") from error
    if suffix in {".jsonl", ".ndjson"}:
        return _read_jsonl(path)
    raise DataError(f"{path} must end in .parquet, .jsonl or .csv, got {suffix or 'no suffix'}.")


def _read_jsonl(path: Path) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = defaultdict(list)
    count = 0
    try:
        lines = path.read_text("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path} must be UTF-8: {error}.") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}: line {number} must be JSON: {error}.") from error
        if not isinstance(row, dict):
            raise DataError(f"{path}: line {number} must be a JSON object, got {type(row).__name__}.")
        for name in row.keys() - columns.keys():
            columns[name] = [None] * count
        count += 1
        for name, values in columns.items():
            values.append(row.get(name))
    return dict(columns)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _occurrences(texts: Sequence[str], models: Sequence[str]) -> list[str]:
    """Ids for data without any: the k-th time that a model meets a text is one prompt for all models."""
    seen: Counter[tuple[str, str]] = Counter()
    ids = []
    for text, model in zip(texts, models, strict=True):
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        ids.append(f"{digest}-{seen[text, model]}")
        seen[text, model] += 1
    return ids


def _rows(numbers: Sequence[int]) -> str:
    shown = ", ".join(str(number) for number in numbers[:_SHOWN_ROWS])
    more = f" and {len(numbers) - _SHOWN_ROWS} more" if len(numbers) > _SHOWN_ROWS else ""
    return f"{'row' if len(numbers) == 1 else 'rows'} {shown}{more}"
