"""Name the formats of files that an import reads, recognise the format of a file, and read it with its adapter."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Collection as Names
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from probes.bounded.files import shown
from probes.errors import DataError
from router.quoting import did_you_mean
from router.tuning.outcomes.adapters import table, votes
from router.tuning.outcomes.adapters.collection import Collection, first
from router.tuning.outcomes.adapters.evaluations import benchmarks, lm_eval, openai_evals, promptfoo
from router.tuning.outcomes.adapters.table import TableColumns
from router.tuning.outcomes.adapters.traces import braintrust, helicone, langfuse, langsmith, phoenix
from router.tuning.outcomes.adapters.traffic import batches, logs
from router.tuning.outcomes.adapters.traffic.logs import ScoreFile

Values = Mapping[str, Any]

#: The rows at the beginning of a file from which its format is recognised.
_LOOKED_AT = 20


@dataclass(frozen=True)
class Reading:
    """Says how an adapter reads the scores of a source.

    Attributes:
        scores: file with the scores of answers, for formats that hold none; None if there is no such file.
        score_name: the score to read of a source that has several; None if none was chosen.
        words: the words that a score map explains.
        needs_scores: False if only what was asked is wanted, so that nothing about scores is an error.
        columns: for plain tables and votes the columns by what they are, as in {"prompt": "Frage"}.
    """

    scores: Path | None = None
    score_name: str | None = None
    words: Names[str] = ()
    needs_scores: bool = True
    columns: Mapping[str, str] = field(default_factory=dict)

    @property
    def table(self) -> TableColumns:
        """What the columns of a plain table are called."""
        return TableColumns(self.columns, self.score_name, self.needs_scores)

    def score_file(self, collection: Collection) -> ScoreFile:
        """Return the scores of the file, or no scores if there is no such file."""
        return ScoreFile() if self.scores is None else ScoreFile.read(self.scores, collection)


@dataclass(frozen=True)
class FileFormat:
    """Describes the format of one program's files: how a row of it is recognised, and which adapter reads it.

    Attributes:
        is_row: whether a row, given by its values, is of this format.
        read: collects the answers of files of this format.
        scores: where its scores come from: `own` ones of one sort, a `file` of their own, or own ones with `names`, of
            which `--score-name` chooses one.
    """

    is_row: Callable[[Values], bool]
    read: Callable[[Sequence[Path], Collection, Reading], None]
    scores: str = "own"


def _is_langfuse(row: Values) -> bool:
    is_part = first(row, "trace_id", "traceId") is not None and not {
        "type", "data_type", "dataType", "string_value", "stringValue",
    }.isdisjoint(row)  # fmt: skip
    return is_part or "observations" in row


def _is_routerbench(row: Values) -> bool:
    return "sample_id" in row and any(str(name).endswith("|total_cost") for name in row)


def _is_routellm(row: Values) -> bool:
    return "prompt" in row and any(f"{name}_response" in row for name in row)


#: An adapter of a source with several named scores.
NamedReader = Callable[..., None]


def _named(is_row: Callable[[Values], bool], read: NamedReader) -> FileFormat:
    return FileFormat(
        is_row, lambda paths, into, how: read(paths, into, how.score_name, scored=how.needs_scores), scores="names"
    )


_FORMATS = {
    "routellm": FileFormat(_is_routellm, lambda paths, into, how: benchmarks.read_routellm(paths, into, how.words)),
    "routerbench": FileFormat(_is_routerbench, lambda paths, into, _: benchmarks.read_routerbench(paths, into)),
    "mmlu-pro": FileFormat(
        lambda row: {"question_id", "question", "options", "answer"} <= row.keys(),
        lambda paths, into, _: benchmarks.read_mmlu_pro(paths, into),
    ),
    "lm-eval": _named(lm_eval.is_lm_eval, lm_eval.read_lm_eval),
    "promptfoo": _named(promptfoo.is_promptfoo, promptfoo.read_promptfoo),
    "openai-evals": _named(openai_evals.is_openai_evals, openai_evals.read_openai_evals),
    "openai-batch": FileFormat(
        lambda row: "custom_id" in row and not {"body", "response"}.isdisjoint(row),
        lambda paths, into, how: logs.read_openai_batch(paths, into, how.score_file(into), scored=how.needs_scores),
        scores="file",
    ),
    "openai-stored": FileFormat(
        batches.is_stored_completion,
        lambda paths, into, how: batches.read_stored_completions(paths, into, how.score_file(into)),
        scores="file",
    ),
    "anthropic-batch": FileFormat(
        batches.is_anthropic_batch,
        lambda paths, into, how: batches.read_anthropic_batch(
            paths, into, how.score_file(into), scored=how.needs_scores
        ),
        scores="file",
    ),
    "litellm-spend-logs": FileFormat(
        lambda row: "request_id" in row and not {"spend", "call_type"}.isdisjoint(row),
        lambda paths, into, how: logs.read_litellm_spend_logs(paths, into, how.score_file(into)),
        scores="file",
    ),
    "langsmith": _named(langsmith.is_langsmith, langsmith.read_langsmith),
    "phoenix": _named(phoenix.is_phoenix, phoenix.read_phoenix),
    "helicone": _named(helicone.is_helicone, helicone.read_helicone),
    "braintrust": _named(braintrust.is_braintrust, braintrust.read_braintrust),
    "langfuse": _named(_is_langfuse, langfuse.read_langfuse),
    "votes": FileFormat(votes.is_vote, lambda paths, into, how: votes.read_votes(paths, into, how.columns)),
    "table": FileFormat(
        table.is_prompt_row, lambda paths, into, how: table.read_table(paths, into, how.table), scores="names"
    ),
}

#: The names of all formats, in the order in which they are tried.
FORMATS = tuple(_FORMATS)

#: Formats whose records do not say how good an answer was, and those that may have several scores with names.
WITHOUT_SCORES, WITH_NAMES = (
    tuple(name for name, one in _FORMATS.items() if one.scores == scores) for scores in ("file", "names")
)


def check_format(name: str) -> None:
    """Raise DataError, which names the nearest format, if there is no format of this name."""
    if name not in _FORMATS:
        raise DataError(
            f"the format must be one of {', '.join(FORMATS)}; got {shown(name)!r}.{did_you_mean(name, FORMATS)}"
        )


def format_of_columns(names: Names[str]) -> str:
    """Return the format of files whose columns are named: `votes` if two models or a winner are named, else `table`."""
    return "votes" if {"winner", "model_a", "model_b"} & set(names) else "table"


def read_format(name: str, paths: Sequence[Path], collection: Collection, how: Reading) -> None:
    """Collect the answers of files of this format. Raises DataError as its adapter does."""
    check_format(name)
    _FORMATS[name].read(paths, collection, how)


def recognise_format(paths: Sequence[Path], collection: Collection) -> str:
    """Return the format of files by the columns of their first rows. Raises DataError unless they have one."""
    found: Counter[str] = Counter()
    for path in paths:
        rows = [row.values for row in collection.rows(path)[:_LOOKED_AT]]
        # A file of another format beside the others, such as a summary, does not decide.
        fitting = [name for name, one in _FORMATS.items() if rows and 2 * sum(map(one.is_row, rows)) > len(rows)]
        found.update(fitting[:1])
    others = found.keys() - {"table"}
    if len(others) > 1:
        named = ", ".join(f"{name} ({found[name]} of {len(paths)} files)" for name in sorted(others))
        raise DataError(f"the files have several formats: {named}. Give the files of one format, or name the format.")
    if not found:
        raise DataError(_say_unknown(paths, collection))
    return next(iter(others), "table")


def _say_unknown(paths: Sequence[Path], collection: Collection) -> str:
    """Return the message for files that hold no row of a known format: what they hold, and the nearest column."""
    for path in paths:
        columns = dict.fromkeys(str(name) for row in collection.rows(path)[:_LOOKED_AT] for name in row.values)
        if not columns:
            continue
        wanted = (*table.CHAT_COLUMNS, *table.TEXT_COLUMNS)
        near = next(((c, m[0]) for c in columns if (m := difflib.get_close_matches(c.lower(), wanted, 1))), None)
        hint = (
            f" Column {shown(near[0])!r} is nearly {near[1]!r}: rename it."
            if near
            else " Name the column of a table with --column prompt=COLUMN."
        )
        return (
            f"{path} must hold prompts in one of the columns {', '.join(wanted)}, or be an export in a format that is "
            f"known ({', '.join(FORMATS)}); it holds {shown(', '.join(columns), 400)}.{hint}"
        )
    if not collection.left_out:
        return f"{paths[0]} must hold prompts; it holds no rows."
    one = collection.left_out[0]
    return (
        f"{paths[0]} must hold prompts; it holds no rows. {len(collection.left_out):,} rows cannot be read, the first "
        f"is {one.place}: {one.detail or one.why}."
    )
