"""Read outcomes in long form into one table of prompts by models, and check every row.

Columns: `prompt` or `messages` (an OpenAI chat, as a list or as JSON text), `model`, `score` (0 to 1); optional
`prompt_id`, `group`, `task`, `cost_usd`, `input_tokens`, `output_tokens`, and a time (`outcome_rows.TIME_COLUMNS`).
Graded data have `grader`, `compared_with`, `human_score`, `human_drawn` and `drawn` as well. The formats of the files
are those that `router.tuning.outcomes.records` reads.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from probes.errors import DataError
from probes.probe import DataSource
from router.asking.ask import Ask
from router.quoting import did_you_mean, quoted
from router.tuning.outcomes.outcome_rows import OutcomeRow, OutcomeTable

FloatArray = npt.NDArray[np.float64]

#: The key under which a model card lists the models that have scores other than 0 and 1.
GRADED = "graded_scores"


@dataclass(frozen=True)
class HumanGrades:
    """Holds what people say of the answers of m models to n prompts.

    scores: (n, m), 0 to 1, NaN where nobody graded. at_random: (n, m), whether chance chose the answer for a person.
    """

    scores: FloatArray
    at_random: npt.NDArray[np.bool_]

    def take(self, cells: tuple[npt.NDArray[np.intp], ...]) -> HumanGrades:
        """Return the grades of these cells, as `numpy.ix_` names them."""
        return HumanGrades(self.scores[cells], self.at_random[cells])


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
        judges: the names of the graders that made the scores, sorted; empty if the data name none.
        humans: what people say of the same answers; None if the data have no human grade.
        informative: (n,) whether a prompt was chosen only because its label teaches much; empty if none was.
        caller_scores: (n,) the score that another system made of each prompt, NaN without one; empty if none was read.
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
    judges: tuple[str, ...] = ()
    humans: HumanGrades | None = None
    informative: npt.NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, dtype=np.bool_))
    caller_scores: FloatArray = field(default_factory=lambda: np.empty(0))

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
                f"{did_you_mean(unknown[0], self.models)}"
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
        return replace(
            self,
            texts=tuple(self.texts[row] for row in rows),
            ids=tuple(self.ids[row] for row in rows),
            groups=tuple(self.groups[row] for row in rows),
            models=tuple(self.models[column] for column in columns),
            scores=self.scores[cells],
            cost_usd=self.cost_usd[cells],
            input_tokens=self.input_tokens[cells],
            output_tokens=self.output_tokens[cells],
            asks=tuple(self.asks[row] for row in rows) if self.asks else (),
            times=self.times[rows] if self.times.size else self.times,
            tasks=tuple(self.tasks[row] for row in rows) if self.tasks else (),
            humans=self.humans and self.humans.take(cells),
            informative=self.informative[rows] if self.informative.size else self.informative,
            caller_scores=self.caller_scores[rows] if self.caller_scores.size else self.caller_scores,
        )


def read_outcomes(*paths: Path, time_column: str | None = None, score_column: str | None = None) -> Outcomes:
    """Return the outcomes of several files in one table.

    Every prompt_id is one row; several labels of one model for it are averaged. Equal texts of different ids stay
    apart.

    time_column: the column of times. By default it is the first of TIME_COLUMNS that a file has. A time that cannot be
    read counts as missing.
    score_column: the column of a caller's score, one number for each prompt; None reads none.

    Raises DataError, which names the file, the lines, records or rows (from 1), and what to do.
    """
    tables = [OutcomeTable.read(path) for path in paths]
    prompts: dict[tuple[str, str], list[OutcomeRow]] = defaultdict(list)
    times: dict[tuple[str, str], float] = defaultdict(lambda: math.nan)
    for table in tables:
        for row, when in zip(table.checked(score_column), table.times(time_column), strict=True):
            key = (table.data_set, row.prompt_id)
            prompts[key].append(row)
            _refuse_two_prompts(prompts[key][0], row)
            times[key] = float(np.fmin(times[key], when))
    firsts = [rows[0] for rows in prompts.values()]
    every_row = [row for rows in prompts.values() for row in rows]
    models = tuple(sorted({row.model for row in every_row}))
    values, at_random = _cells(list(prompts.values()), models)
    # A prompt that a random draw chose too belongs to that draw; without it the draw would lack what teaches much.
    informative = np.array([all(row.informative for row in rows) for rows in prompts.values()], dtype=np.bool_)
    return Outcomes(
        texts=tuple(first.ask.text for first in firsts),
        ids=tuple(prompt_id for _, prompt_id in prompts),
        groups=tuple(first.group for first in firsts),
        models=models,
        scores=values[0],
        cost_usd=values[1],
        input_tokens=values[2],
        output_tokens=values[3],
        sources=tuple(DataSource(t.path.name, t.digest, len(t.rows)) for t in tables),
        asks=tuple(first.ask for first in firsts),
        times=np.array(list(times.values()), dtype=np.float64),
        tasks=tuple(first.task for first in firsts) if any(first.task for first in firsts) else (),
        n_averaged=len(every_row) - int(np.isfinite(values[0]).sum()),
        judges=tuple(sorted({row.grader for row in every_row if row.grader})),
        humans=HumanGrades(values[4], at_random) if np.isfinite(values[4]).any() else None,
        informative=informative if informative.any() else np.empty(0, dtype=np.bool_),
        caller_scores=_caller_scores(list(prompts.values())) if score_column else np.empty(0),
    )


def _caller_scores(prompts: Sequence[Sequence[OutcomeRow]]) -> FloatArray:
    """Return the score of each prompt, which its rows may repeat, (n,); NaN if no row has one."""
    scores = np.full(len(prompts), np.nan)
    for index, rows in enumerate(prompts):
        known = {row.caller_score for row in rows if math.isfinite(row.caller_score)}
        if len(known) > 1:
            raise DataError(
                f"{rows[0].place}: all rows of one prompt must have the same score, prompt_id "
                f"{quoted(rows[0].prompt_id)} has {min(known):g} and {max(known):g}; give each request its own id."
            )
        scores[index] = next(iter(known), math.nan)
    return scores


def _refuse_two_prompts(first: OutcomeRow, row: OutcomeRow) -> None:
    if (first.ask.text, first.task) != (row.ask.text, row.task):
        what = "prompts" if first.ask.text != row.ask.text else "tasks"
        raise DataError(
            f"{row.place}: prompt_id {quoted(row.prompt_id)} stands for two different {what}, this is the second; "
            "give each prompt its own id."
        )


def _cells(prompts: Sequence[Sequence[OutcomeRow]], models: Sequence[str]) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Return the numbers of every answer, (5, n, m), and where chance chose the answer for a person, (n, m)."""
    columns = {model: column for column, model in enumerate(models)}
    values = np.full((5, len(prompts), len(models)), np.nan)
    at_random = np.zeros((len(prompts), len(models)), dtype=np.bool_)
    for index, rows in enumerate(prompts):
        labels: dict[str, list[OutcomeRow]] = defaultdict(list)
        for row in rows:
            labels[row.model].append(row)
        for model, those in labels.items():
            numbers = [row.numbers for row in those]
            values[:, index, columns[model]] = numbers[0] if len(numbers) == 1 else _means(numbers)
            at_random[index, columns[model]] = any(row.for_people for row in those)
        compared = {columns[row.compared_with] for row in rows if row.compared_with in labels}
        if compared and np.isfinite(values[4, index]).any():
            _fill_compared(values[:, index], at_random[index], list(compared))
    return values, at_random


def _fill_compared(values: FloatArray, at_random: npt.NDArray[np.bool_], compared: list[int]) -> None:
    """Give the answer that others were compared with the grade that it has by definition, in place.

    values: (5, m) of one prompt. at_random: (m,). Nobody has to say how an answer compares with itself: the grade is
    the grader's score of it, such as one half.
    """
    known = np.isfinite(values[4])
    for column in compared:
        if not known[column]:
            values[4, column] = values[0, column]
            at_random[column] = at_random[known].all()


def _means(labels: Sequence[Sequence[float]]) -> list[float]:
    """Return the mean of each number over several labels; unknown numbers are skipped, and NaN means that all are."""
    known = [[value for value in column if math.isfinite(value)] for column in zip(*labels, strict=True)]
    return [math.fsum(column) / len(column) if column else math.nan for column in known]


def graded_models(outcomes: Outcomes) -> list[str]:
    """Return the models that have scores other than 0 and 1."""
    between = np.isfinite(outcomes.scores) & ~np.isin(outcomes.scores, (0.0, 1.0))
    return [outcomes.models[column] for column in np.flatnonzero(between.any(axis=0))]
