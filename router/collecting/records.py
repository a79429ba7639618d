"""Write what was collected as the outcomes that `elle fit`, `tune` and `label` read, the same bytes each time."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from probes.atomic_write import write_file
from router.collecting import values
from router.collecting.calls.store import CallStore
from router.collecting.graders.base import Grader
from router.collecting.values import ModelAnswer, Sample, Verdict
from router.collecting.work import Work
from router.plain_json import json_lines


@dataclass
class CollectedPrompt:
    """Holds the answers and verdicts on one prompt when the collection ends, and why some are missing.

    Attributes:
        sample: the prompt.
        answers: by model.
        failures: why a model has no answer, by model.
        verdicts: by name of the grader and of the model.
    """

    sample: Sample
    answers: dict[str, ModelAnswer] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    verdicts: dict[tuple[str, str], Verdict] = field(default_factory=dict)


@dataclass(frozen=True)
class WrittenOutcomes:
    """What a file of outcomes holds.

    Attributes:
        n_rows: its rows. n_complete: prompts with a score of every candidate.
        without_score: answers that are not in the file, by reason.
        mean_scores: mean score of each candidate, 0 to 1; None if it has no score.
    """

    n_rows: int
    n_complete: int
    without_score: Mapping[str, int]
    mean_scores: Mapping[str, float | None]


def write_records(work: Work, collected: Sequence[CollectedPrompt], out: Path) -> tuple[WrittenOutcomes, str]:
    """Write one row for each scored answer of a candidate, in the order of prompts and candidates, in one step.

    `score` is the score of the first grader; with several graders each has a column `score_NAME` besides. Return what
    the file holds, and its SHA-256. Raises ArtifactError if it cannot be written.
    """
    rows: list[dict[str, Any]] = []
    missing: Counter[str] = Counter()
    scores: dict[str, list[float]] = {model: [] for model in work.panel.models}
    n_complete = 0
    chats = any(not _is_plain(one.sample) for one in collected)
    for one in collected:
        found = list(_rows(work, one, missing, chats=chats))
        n_complete += len(found) == len(work.panel.models)
        for row in found:
            scores[row["model"]].append(row[values.SCORE])
        rows += found
    data = json_lines(rows).encode()
    write_file(out, data)
    means = {model: sum(known) / len(known) if known else None for model, known in scores.items()}
    return WrittenOutcomes(len(rows), n_complete, dict(missing), means), hashlib.sha256(data).hexdigest()


def _rows(work: Work, one: CollectedPrompt, missing: Counter[str], *, chats: bool) -> Iterator[dict[str, Any]]:
    first = work.graders[0]
    for model in work.panel.models:
        verdict = one.verdicts.get((first.name, model))
        if verdict is None or verdict.score is None:
            failed = one.failures.get(model) or ("not graded" if verdict is None else verdict.reason)
            missing[f"{model}: {failed}"] += 1
            continue
        answer = one.answers[model]
        yield {
            **_asked(one.sample, chats=chats),
            "model": model,
            values.SCORE: verdict.score,
            **_further(work.graders, one, model),
            values.GRADER: verdict.grader,
            values.GRADER_VERSION: verdict.version,
            **_compared(work, first),
            "cost_usd": answer.cost_usd,
            "input_tokens": answer.input_tokens,
            "output_tokens": answer.output_tokens,
            values.DRAWN: one.sample.drawn,
            values.ANSWER: answer.text,
        }


def _asked(sample: Sample, *, chats: bool) -> dict[str, Any]:
    asked = {"messages": list(sample.messages)} if chats else {"prompt": sample.messages[0]["content"]}
    return {**asked, "prompt_id": sample.prompt_id, "group": sample.group or ""}


def _is_plain(sample: Sample) -> bool:
    """Return whether a chat is one user message of text, which a column `prompt` holds."""
    only = sample.messages[0]
    return (
        len(sample.messages) == 1
        and set(only) == {"role", "content"}
        and only["role"] == "user"
        and isinstance(only["content"], str)
    )


def _further(graders: Sequence[Grader], one: CollectedPrompt, model: str) -> dict[str, Any]:
    if len(graders) == 1:
        return {}
    found = {grader.name: one.verdicts.get((grader.name, model)) for grader in graders}
    return {f"{values.SCORE}_{name}": None if verdict is None else verdict.score for name, verdict in found.items()}


def _compared(work: Work, grader: Grader) -> dict[str, Any]:
    return {values.COMPARED_WITH: work.name(grader.answers_of[0])} if grader.answers_of else {}


def may_replace(out: Path, store: CallStore) -> bool:
    """Return whether a file is the one that an earlier run wrote to this place, unchanged; then it may be replaced."""
    written = store.written(str(out.resolve()))
    return written is not None and hashlib.sha256(out.read_bytes()).hexdigest() == written
