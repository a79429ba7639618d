"""Collect the answers that an adapter reads, with scores as written, the rows left out, and notes."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from router.tuning.outcomes.records import Place, Row, number_of, read_rows, word_of_old_windows
from router.tuning.outcomes.times import seconds_of

NO_SCORE = "without a score"
NO_PROMPT = "without a prompt"
FAILED = "failed calls"
REPEATED = "repeated records"

_SHOWN_LETTERS = 200

#: A row's id, or its id with what makes it unique.
Key = TypeVar("Key", bound=Hashable)


class UnusableRowError(Exception):
    """A row has to be left out; `Collection.row` catches this error."""

    def __init__(self, why: str, detail: str = "") -> None:
        super().__init__(why)
        self.why, self.detail = why, detail


@dataclass(frozen=True, slots=True)
class RawScore:
    """Holds a score as the source wrote it, before it is mapped to quality.

    Attributes:
        value: number, truth value or text; None if there is none.
        source: where such scores were read, in words.
        name: what the source calls the score; empty if it has no name.
        is_label: whether the source says that the value is a name of a category, even if it looks like a number.
        may_be_index: whether the value may be the index of a category, because the source does not say what it is.
    """

    value: Any
    source: str
    name: str = ""
    is_label: bool = False
    may_be_index: bool = False


@dataclass(frozen=True)
class ImportedAnswer:
    """Holds one model's answer to a prompt; either `prompt` or `messages` is set.

    Attributes:
        place: where its record was read.
        scores: as the source wrote them; the quality is their mean. why_no_score: the reason if none has a value.
        asked_at: in seconds since 1970; None if unknown.
        session_id: the session that the source names; empty if it names none. task: the key of its task, or empty.
        parameters: the other fields of the request, such as `tools` and `max_tokens`, as far as the source has them.
        answer: the text of the answer; None if the source does not hold it.
    """

    place: Place
    model: str
    scores: Sequence[RawScore]
    prompt: str | None = None
    messages: Sequence[Any] | None = None
    prompt_id: str | None = None
    group: str = ""
    cost_usd: float | None = None
    input_tokens: float | None = None
    output_tokens: float | None = None
    asked_at: float | None = None
    why_no_score: str = NO_SCORE
    session_id: str = ""
    task: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    answer: str | None = None


@dataclass(frozen=True)
class LeftOutRow:
    """Describes a row that was left out: its place, the reason by which such rows are counted, and what it holds."""

    place: Place
    why: str
    detail: str = ""


@dataclass
class Collection:
    """Collects the answers, the rows left out and the notes of an import. An adapter fills it while it reads.

    Attributes:
        answers: found so far.
        left_out: rows that should have been answers. skipped: records of another kind, which are only counted.
        notes: further remarks for the user, each with a number of rows.
    """

    answers: list[ImportedAnswer] = field(default_factory=list)
    left_out: list[LeftOutRow] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    _read: dict[Path, list[Row]] = field(default_factory=dict)

    def rows(self, path: Path) -> list[Row]:
        """Return the rows of a file, which is read once; rows that cannot be read are left out."""
        if path not in self._read:
            word = word_of_old_windows(path)
            if word is not None:
                self.notes[
                    f"{path.name} is read as Windows-1252, because it is not UTF-8; if the word {word!r} looks wrong, "
                    "save the file as UTF-8"
                ] += 1

            def leave_out(place: Place, why: str) -> None:
                self.leave_out(place, "unreadable row", why)

            self._read[path] = read_rows(path, leave_out, old_windows=True)
        return self._read[path]

    def without_zero_cost(self, answer: ImportedAnswer, note: str) -> ImportedAnswer:
        """Return an answer without its cost if that is 0, which logs write if they know no price; then add the note."""
        if answer.cost_usd != 0:
            return answer
        self.notes[note] += 1
        return replace(answer, cost_usd=None)

    def leave_out(self, place: Place, why: str, detail: str = "") -> None:
        """Record that a row is left out, and why."""
        self.left_out.append(LeftOutRow(place, why, printable(detail)[:_SHOWN_LETTERS]))

    @contextlib.contextmanager
    def row(self, place: Place) -> Iterator[None]:
        """Leave out the row at this place if the block raises UnusableRowError or RecursionError."""
        try:
            yield
        except UnusableRowError as error:
            self.leave_out(place, error.why, error.detail)
        except RecursionError:
            self.leave_out(place, "unreadable row", "nested too deeply")


def note_new(known: set[Key], key: Key, shown: str | None = None) -> None:
    """Add a key to those that are known. Raises UnusableRowError, which shows it, if it is known already."""
    if key in known:
        raise UnusableRowError(REPEATED, str(key) if shown is None else shown)
    known.add(key)


def first(values: Mapping[str, Any], *names: str) -> Any:
    """Return the first of these fields that is neither null nor an empty text; None if there is none."""
    return next((values[name] for name in names if values.get(name) not in (None, "")), None)


def time_of(values: Mapping[str, Any], *names: str) -> float | None:
    """Return the time in the first of these fields that is set, in seconds since 1970; None if it cannot be read."""
    seconds = seconds_of(first(values, *names))
    return seconds if math.isfinite(seconds) else None


def amount(name: str, value: Any) -> float | None:
    """Return a cost or a number of tokens, 0 or more; None stays None. Raises UnusableRowError for anything else."""
    if value is None or value == "":
        return None
    number = number_of(value)
    if number is None or not math.isfinite(number) or number < 0:
        raise UnusableRowError(f"{name} that is no number of 0 or more", repr(value))
    return number


def text_of(name: str, value: Any) -> str:
    """Return a name as text. Raises UnusableRowError if it is empty or is not valid Unicode."""
    text = "" if value is None or isinstance(value, dict | list | bool) else str(value).strip()
    if not text:
        raise UnusableRowError(f"without {name}", "" if value is None else repr(value))
    return valid(name, text)


def printable(text: str) -> str:
    """Return the text with halves of surrogate pairs written out, so that it can be printed and stored."""
    return text.encode("utf-8", "backslashreplace").decode()


def valid(name: str, text: str) -> str:
    """Return the text if it is valid Unicode. Raises UnusableRowError if it holds half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UnusableRowError(
            f"{name} that is not valid Unicode", f"half of a surrogate pair at {error.start}"
        ) from error
    return text
