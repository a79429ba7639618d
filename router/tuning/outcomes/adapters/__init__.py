"""`elle import`: outcomes kept by other programs, brought into the long form that `elle fit` reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from probes.errors import DataError
from router.tuning.outcomes.adapters.benchmarks import read_mmlu_pro, read_routellm, read_routerbench
from router.tuning.outcomes.adapters.collection import (
    NO_PROMPT,
    REPEATED,
    Answer,
    Collection,
    OddRowError,
    text_of,
    valid,
)
from router.tuning.outcomes.adapters.files import check_out, expand, write_left_out, write_outcomes
from router.tuning.outcomes.adapters.langfuse import read_langfuse
from router.tuning.outcomes.adapters.logs import ScoreFile, read_litellm_spend_logs, read_openai_batch
from router.tuning.outcomes.adapters.prompts import check_prompt
from router.tuning.outcomes.adapters.scores import ScoreOptions, ScoreSummary, parse_score_map, read_scores

KINDS = ("routellm", "routerbench", "mmlu-pro", "openai-batch", "litellm-spend-logs", "langfuse")

#: Kinds whose records do not say how good an answer was.
_SCORES_FROM_FILE = {"openai-batch": read_openai_batch, "litellm-spend-logs": read_litellm_spend_logs}

_FREE = (
    "costs of 0, which logs write where they know no price, taken as unknown (--prices of evaluate and tune fills them "
    "in; price what is free at 0)"
)

#: A prompt that so many answers of one model share, of at least so many, is worth a word: it may be a mask.
_LARGE_SHARE, _LARGE_NUMBER = 0.2, 20


@dataclass(frozen=True)
class ImportSummary:
    """What came in, what was read as score, and what was left out.

    Attributes:
        kind, out: as asked for. n_files: read. n_answers, n_prompts: written. models: answers by model.
        score: what was read as score, with its range and examples.
        left_out: records left out, by reason. left_out_file: their list; None where nothing was left out.
        notes: what else to know, in words.
    """

    kind: str
    out: str
    n_files: int
    n_answers: int
    n_prompts: int
    models: dict[str, int]
    score: ScoreSummary
    left_out: dict[str, int]
    left_out_file: str | None
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    def print(self, console: Console) -> None:
        """For people."""

        def say(line: str) -> None:
            console.print(line, highlight=False, markup=False)

        say(f"Wrote {self.n_answers:,} answers to {self.n_prompts:,} prompts from {self.n_files} files to {self.out}.")
        for model, count in self.models.items():
            say(f"  {model}: {count:,}")
        for line in self._score_lines():
            say(line)
        for why, count in self.left_out.items():
            say(f"  left out, {why}: {count:,}")
        if self.left_out_file is not None:
            say(f"  listed in {self.left_out_file}")
        for note in self.notes:
            say(f"  note: {note}")

    def _score_lines(self) -> list[str]:
        score = self.score
        sources = "; ".join(f"{source} ({count:,})" for source, count in score.sources.items())
        mapped = f", through {score.mapped_by}" if score.mapped_by else ""
        written = "" if score.written_low is None else f", written {score.written_low:g} to {score.written_high:g}"
        first = (
            f"Read as score{mapped}: {sources}. From {score.low:g} to {score.high:g}, mean {score.mean:.3f}{written}."
        )
        return [first, *(f"  {one.where}: {one.written} is {one.read_as:g}" for one in score.examples)]


def import_command(
    kind: str,
    paths: Sequence[Path],
    out: Path,
    *,
    scores: Path | None = None,
    score_name: str | None = None,
    score_map: Sequence[str] = (),
    score_range: tuple[float, float] | None = None,
    force: bool = False,
) -> ImportSummary:
    """Do what `elle import` does; one of KINDS.

    scores: file with the scores of answers, for kinds that hold none. score_name: which of a Langfuse export's scores.
    score_map: what words are worth, as in `good=1,bad=0`. score_range: the worst and the best score of the source.
    force: replace `out`. Rows that cannot be used are left out, counted and listed beside `out`.

    Raises DataError, and writes nothing, where nothing can be used or where the meaning of the scores is not known.
    """
    if kind not in KINDS:
        raise DataError(f"kind must be one of {', '.join(KINDS)}; got {kind!r}.")
    options = ScoreOptions(parse_score_map(score_map), score_range)
    check_out(out, force=force)
    if scores is not None and kind not in _SCORES_FROM_FILE:
        raise DataError(f"--scores is for {', '.join(_SCORES_FROM_FILE)}; {kind} brings its own.")
    if score_name is not None and kind != "langfuse":
        raise DataError(f"--score-name is for langfuse; got {kind}.")
    files = expand(paths, out)
    collection = Collection()
    _collect(kind, files, collection, scores, score_name, options)
    _drop_empty(collection)
    scored, summary = read_scores(collection, options)
    usable, same = _usable(scored, collection)
    if not usable or summary is None:
        raise DataError(f"{kind}: no answer with a prompt and a score in {len(files)} files ({_reasons(collection)}).")
    outcomes = write_outcomes(usable, out)
    listed = write_left_out(collection.left_out, out)
    return ImportSummary(
        kind=kind,
        out=str(out),
        n_files=len(files),
        n_answers=len(usable),
        n_prompts=len(outcomes),
        models=dict(sorted(Counter(answer.model for answer, _ in usable).items())),
        score=summary,
        left_out=dict(Counter(one.why for one in collection.left_out) + collection.skipped),
        left_out_file=None if listed is None else str(listed),
        notes=(*_counted(collection), *_doubts(usable, same)),
    )


def _collect(
    kind: str,
    files: Sequence[Path],
    collection: Collection,
    scores: Path | None,
    score_name: str | None,
    options: ScoreOptions,
) -> None:
    if kind in _SCORES_FROM_FILE:
        given = ScoreFile() if scores is None else ScoreFile.read(scores, collection)
        _SCORES_FROM_FILE[kind](files, collection, given)
    elif kind == "langfuse":
        read_langfuse(files, collection, score_name)
    elif kind == "routellm":
        read_routellm(files, collection, options.words)
    elif kind == "routerbench":
        read_routerbench(files, collection)
    else:
        read_mmlu_pro(files, collection)


def _drop_empty(collection: Collection) -> None:
    for answer in collection.answers:
        if not answer.prompt and not answer.messages:
            collection.leave_out(answer.place, NO_PROMPT)
    collection.answers = [answer for answer in collection.answers if answer.prompt or answer.messages]


def _usable(
    scored: Sequence[tuple[Answer, float]], collection: Collection
) -> tuple[list[tuple[Answer, float]], Counter[tuple[str, str]]]:
    """Return the answers that `elle fit` will read, and how many are of each model and text; leave out the others."""
    same: Counter[tuple[str, str]] = Counter()
    kept: list[tuple[Answer, float]] = []
    texts: dict[str, str] = {}
    known: set[tuple[str, str]] = set()
    for answer, score in scored:
        with collection.row(answer.place):
            text_of("model", answer.model)
            valid("group", answer.group)
            text = check_prompt(answer).text
            if answer.prompt_id is not None:
                key = valid("id", answer.prompt_id)
                if texts.setdefault(key, text) != text:
                    raise OddRowError("id that stands for two prompts", key)
                if (key, answer.model) in known:
                    raise OddRowError(REPEATED, key)
                known.add((key, answer.model))
            if answer.cost_usd == 0:
                collection.notes[_FREE] += 1
                answer = replace(answer, cost_usd=None)
            same[answer.model, text] += 1
            kept.append((answer, score))
    return kept, same


def _reasons(collection: Collection) -> str:
    counts = Counter(one.why for one in collection.left_out) + collection.skipped
    first = {one.why: one for one in reversed(collection.left_out)}

    def example(why: str) -> str:
        if why not in first:
            return ""
        return f", first {first[why].place}{': ' if first[why].detail else ''}{first[why].detail}"

    return "; ".join(f"{count} {why}{example(why)}" for why, count in counts.items()) or "no records"


def _counted(collection: Collection) -> list[str]:
    return [f"{why}: {count:,}" for why, count in (+collection.notes).items()]


def _doubts(usable: Sequence[tuple[Answer, float]], same: Counter[tuple[str, str]]) -> list[str]:
    """Return what looks odd in the answers that were kept: it may be as it should, and only the user can know."""
    notes = []
    values = {score for _, score in usable}
    if len(values) == 1:
        notes.append(f"every score is {values.pop():g}; nothing can be learnt from equal scores")
    by_model = Counter(answer.model for answer, _ in usable)
    for (model, _), count in same.most_common(1):
        if count >= _LARGE_NUMBER and count >= _LARGE_SHARE * by_model[model]:
            share = f"{count:,} of the {by_model[model]:,} answers of {model}"
            notes.append(f"{share} are to one and the same prompt; make sure that it is no mask")
    return notes
