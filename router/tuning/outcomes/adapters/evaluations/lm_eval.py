"""Read the samples that EleutherAI's lm-evaluation-harness logs with `--log_samples` (`samples_TASK_DATE.jsonl`)."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from router.tuning.outcomes.adapters.collection import (
    NO_PROMPT,
    Collection,
    ImportedAnswer,
    RawScore,
    UnusableRowError,
    text_of,
)
from router.tuning.outcomes.adapters.named_scores import ScoredAnswer, add_answers
from router.tuning.outcomes.adapters.prompts import chat_of, decode_json_text
from router.tuning.outcomes.records import Row, number_of

#: Fields of a sample that are no metrics. Every other field that holds a number is one.
_NO_METRICS = frozenset({"doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics"})
_HASH = re.compile(r".*_hash")

#: The parts of a file's name around the task: `samples_gsm8k_2025-01-31T12-00-00.123456.jsonl`.
_FILE_NAME = re.compile(r"samples_(?P<task>.+?)(_\d{4}-\d\d-\d\dT[\d.-]+)?")


def read_lm_eval(paths: Sequence[Path], collection: Collection, score_name: str | None, *, scored: bool = True) -> None:
    """Collect the samples of one or more runs of the harness.

    The model is the folder of the file, as the harness names it (`org__model` is read as `org/model`). The group is the
    task in the file's name. The prompt is the context of the first request in `arguments`, in the shape of version 0.4
    (`gen_args_0.arg_0`) or in the older one (a list). A chat that was sent as JSON text is read as a chat. The scores
    are the metrics of the sample; with several filters the name is `METRIC,FILTER`, as in the harness's own tables.
    Files of results (`results_*.json`) are skipped.

    Raises DataError if there are several metrics and none was chosen.
    """
    found: dict[tuple[Path, str], ScoredAnswer] = {}
    for path in paths:
        rows = collection.rows(path)
        if path.stem.startswith("results"):
            collection.skipped["files of results"] += 1
            continue
        several = len({str(row.values.get("filter")) for row in rows}) > 1
        for row in rows:
            with collection.row(row.place):
                _add(row, found, several=several)
    add_answers(list(found.values()), collection, score_name, scored=scored)


def is_lm_eval(row: Mapping[str, Any]) -> bool:
    """Return whether a row is a sample of the harness."""
    return {"doc_id", "arguments"} <= row.keys() and not {"resps", "filtered_resps"}.isdisjoint(row)


def _add(row: Row, found: dict[tuple[Path, str], ScoredAnswer], *, several: bool) -> None:
    values = row.values
    match = _FILE_NAME.fullmatch(row.place.path.stem)
    task = match["task"] if match else row.place.path.stem
    key = text_of("doc_id", values.get("doc_id"))
    asked = _context(decode_json_text(values.get("arguments")))
    if asked is None:
        raise UnusableRowError(NO_PROMPT, f"arguments without a text; fields {', '.join(map(str, values))}")
    chat = chat_of(asked)
    folder = row.place.path.parent.name
    if not folder:
        raise UnusableRowError(
            "sample without a folder named after the model", f"write MODEL/{row.place.path.name}, as the harness does"
        )
    answer = ImportedAnswer(
        place=row.place,
        model=folder.replace("__", "/"),
        scores=(),
        prompt=None if chat else asked,
        messages=chat,
        group=task,
    )
    scores = {
        _metric_name(name, values, several=several): [RawScore(value, f"metric {name!r}", name)]
        for name, value in values.items()
        if name not in _NO_METRICS and not _HASH.fullmatch(name) and _is_metric(value)
    }
    before = found.get((row.place.path, key))
    # The rows of several filters are about the same answer.
    merged = defaultdict(list, before.scores if before else {}) | scores
    found[row.place.path, key] = ScoredAnswer(replace(answer, scores=()), merged)


def _metric_name(name: str, values: Mapping[str, Any], *, several: bool) -> str:
    return f"{name},{values.get('filter')}" if several else name


def _is_metric(value: Any) -> bool:
    return isinstance(value, bool) or number_of(value) is not None


def _context(arguments: Any) -> str | None:
    """Return the context of the first request of a sample; None if there is none."""
    first = arguments.get("gen_args_0") if isinstance(arguments, Mapping) else arguments
    for _ in range(2):
        if isinstance(first, Mapping):
            first = first.get("arg_0")
        elif isinstance(first, list | tuple) and first:
            first = first[0]
    return first if isinstance(first, str) and first else None
