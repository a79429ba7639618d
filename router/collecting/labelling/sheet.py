"""Write the questions to a spreadsheet, and read a person's verdicts back (`write_sheet`, `read_sheet`)."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from probes.atomic_write import write_file
from probes.bounded.files import shown
from probes.errors import DataError
from router.collecting.graders.judges.question import cut
from router.collecting.labelling.asking_people import visible
from router.collecting.labelling.questions import KEYS, WORDS, HumanQuestion
from router.quoting import quoted
from router.tuning.outcomes.records import read_rows

_COLUMNS = ("question", "request", "answer_a", "answer_b", "ask", "verdict")
#: A cell of a spreadsheet holds 32,767 characters.
_MOST_CELL = 15_000
_MOST_FAULTS = 10


def write_sheet(path: Path, questions: Sequence[HumanQuestion]) -> None:
    """Write one line of CSV for each question, without names of models. The column `verdict` is empty.

    Raises ArtifactError if the file cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(_COLUMNS)
    for one in questions:
        answers = (*one.answers, "")[:2]
        keys = ", ".join(f"{key} = {word}" for key, (word, _) in KEYS[one.kind].items())
        cells = [one.id, *map(_cell, (one.request, *answers)), f"{WORDS[one.kind]} {keys}", ""]
        writer.writerow(cells)
    # The byte-order mark tells spreadsheets that the text is UTF-8.
    write_file(path, b"\xef\xbb\xbf" + text.getvalue().encode("utf-8"))


def _cell(text: str) -> str:
    text = visible(cut(text, _MOST_CELL)).replace("\t", " ")
    # A spreadsheet takes a cell that begins like this for a formula, and runs it.
    return f"'{text}" if text.lstrip()[:1] in {"=", "+", "-", "@"} else text


def read_sheet(path: Path, questions: Sequence[HumanQuestion]) -> dict[str, float | None]:
    """Return the scores of a filled-in sheet by question; None for `s`, a skip. Lines without a verdict are left out.

    Raises DataError, which lists the lines at fault, and then nothing of the sheet counts: a question that is not
    asked, one that has two verdicts, and a verdict that is no key of its question.
    """
    by_id = {one.id: one for one in questions}
    found: dict[str, float | None] = {}
    faults: list[str] = []
    rows = list(read_rows(path))
    if not rows or not {"question", "verdict"} <= set(rows[0].values):
        held = ", ".join(map(str, rows[0].values)) if rows else "no lines"
        raise DataError(
            f"{path} must have the columns question and verdict, as a sheet of `elle label --export` has; it holds "
            f"{shown(held, 400)}."
        )
    for row in rows:
        verdict = str(row.values.get("verdict") or "").strip().lower()
        identity = str(row.values.get("question") or "").strip()
        if not verdict:
            continue
        if (one := by_id.get(identity)) is None:
            faults.append(f"{row.place}: {quoted(identity)} is no question about these outcomes")
        elif (key := _key(one, verdict)) is None:
            keys = ", ".join([*KEYS[one.kind], "s"])
            faults.append(f"{row.place}: verdict must be one of {keys}, got {quoted(verdict)}")
        elif identity in found:
            faults.append(f"{row.place}: {quoted(identity)} has a verdict already")
        else:
            found[identity] = None if key == "s" else one.score_of(key)
    if faults:
        more = f"; and {len(faults) - _MOST_FAULTS:,} more" if len(faults) > _MOST_FAULTS else ""
        raise DataError(f"no verdict was taken over. {'; '.join(faults[:_MOST_FAULTS])}{more}.")
    return found


def _key(one: HumanQuestion, verdict: str) -> str | None:
    """Return the key of a verdict, which may be written as its word, such as `tie`."""
    words: Mapping[str, str] = {word: key for key, (word, _) in KEYS[one.kind].items()}
    key = words.get(verdict, {"skip": "s"}.get(verdict, verdict))
    return key if key in {*KEYS[one.kind], "s"} else None
