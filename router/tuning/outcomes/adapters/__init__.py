"""Import outcomes that other programs keep, and write them in the long form that `elle fit` reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from probes.errors import DataError
from router.tuning.outcomes.adapters.collection import (
    NO_PROMPT,
    Collection,
    ImportedAnswer,
    UnusableRowError,
    note_new,
    text_of,
    valid,
)
from router.tuning.outcomes.adapters.files import check_out, expand, write_left_out, write_outcomes
from router.tuning.outcomes.adapters.formats import (
    WITH_NAMES,
    WITHOUT_SCORES,
    Reading,
    check_format,
    format_of_columns,
    read_format,
    recognise_format,
)
from router.tuning.outcomes.adapters.prompts import check_prompt
from router.tuning.outcomes.adapters.scores import ScoreOptions, parse_score_map, read_scores
from router.tuning.outcomes.adapters.summary import ImportSummary
from router.tuning.outcomes.adapters.table import parse_columns

_FREE = (
    "costs of 0, which logs write if they know no price, are taken as unknown (--prices of evaluate and tune fills "
    "them in; price what is free at 0)"
)

#: A note is given on a prompt that has at least this share and this number of the answers of one model, because it may
#: be a mask that the log wrote in place of the prompts.
_LARGE_SHARE, _LARGE_NUMBER = 0.2, 20


@dataclass(frozen=True)
class ImportOptions:
    """How an import reads the scores.

    Attributes:
        scores: file with the scores of answers, for formats that hold none.
        score_name: the score to read of a Langfuse export that has several.
        score_map: quality of words, as in `good=1,bad=0`.
        score_range: the worst and the best score of the source.
        columns: for plain tables and votes `NAME=COLUMN`, as in `prompt=Frage`.
        force: whether to replace the file that is written.
    """

    scores: Path | None = None
    score_name: str | None = None
    score_map: Sequence[str] = ()
    score_range: tuple[float, float] | None = None
    columns: Sequence[str] = ()
    force: bool = False


def import_outcomes(name: str | None, paths: Sequence[Path], out: Path, options: ImportOptions) -> ImportSummary:
    """Read files of one format, and write their answers to `out` in the long form that `elle fit` reads.

    name: of the format, one of FORMATS; None recognises it by the columns of the files.

    Rows that cannot be used are left out, counted and listed in a file beside `out`. Raises DataError, and writes
    nothing, if nothing can be used or if the meaning of the scores is not known.
    """
    if name is not None:
        check_format(name)
    score_options = ScoreOptions(parse_score_map(options.score_map), options.score_range)
    check_out(out, force=options.force)
    files = expand(paths, out)
    collection = Collection()
    columns = parse_columns(options.columns)
    name = name or (format_of_columns(columns) if columns else recognise_format(files, collection))
    if options.scores is not None and name not in WITHOUT_SCORES:
        raise DataError(f"--scores is for {', '.join(WITHOUT_SCORES)}; {name} brings its own.")
    if options.score_name is not None and name not in WITH_NAMES:
        raise DataError(f"--score-name is for {', '.join(WITH_NAMES)}; got {name}.")
    if columns and name not in {"table", "votes"}:
        raise DataError(f"--column is for tables and votes; the format of these files is {name}.")
    how = Reading(options.scores, options.score_name, score_options.words, columns=columns)
    read_format(name, files, collection, how)
    _drop_empty(collection)
    scored, summary = read_scores(collection, score_options)
    usable, same = _usable(scored, collection)
    if not usable or summary is None:
        read = "the file" if len(files) == 1 else f"the {len(files)} files"
        raise DataError(f"{name}: found no answer with a prompt and a score in {read} ({_reasons(collection)}).")
    outcomes = write_outcomes(usable, out)
    listed = write_left_out(collection.left_out, out)
    return ImportSummary(
        format=name,
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


def _drop_empty(collection: Collection) -> None:
    for answer in collection.answers:
        if not answer.prompt and not answer.messages:
            collection.leave_out(answer.place, NO_PROMPT)
    collection.answers = [answer for answer in collection.answers if answer.prompt or answer.messages]


def _usable(
    scored: Sequence[tuple[ImportedAnswer, float]], collection: Collection
) -> tuple[list[tuple[ImportedAnswer, float]], Counter[tuple[str, str]]]:
    """Return the answers that `elle fit` can read, and how many each model gave to each text; leave out the others."""
    same: Counter[tuple[str, str]] = Counter()
    kept: list[tuple[ImportedAnswer, float]] = []
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
                    raise UnusableRowError("id that stands for two prompts", key)
                note_new(known, (key, answer.model), key)
            answer = collection.without_zero_cost(answer, _FREE)
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


def _doubts(usable: Sequence[tuple[ImportedAnswer, float]], same: Counter[tuple[str, str]]) -> list[str]:
    """Return notes on what looks wrong in the answers that were kept. Only the user can know whether it is."""
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
