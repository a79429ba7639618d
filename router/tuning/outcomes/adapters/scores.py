"""Map the scores of a source to quality from 0 (worst) to 1 (best). If their meaning is unknown, ask; never guess."""

from __future__ import annotations

import difflib
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from probes.errors import DataError
from router.tuning.outcomes.adapters.collection import Collection, ImportedAnswer, RawScore, printable
from router.tuning.outcomes.adapters.spelled_scores import grade_of, percentage_of, thumb_of
from router.tuning.outcomes.records import Place, number_of

#: The quality in `--score-map WORD=skip`, which leaves out the rows with this word.
SKIP = "skip"

#: Texts that mean "no value" in a column of numbers. In a column of words they may be words like the others.
_NO_VALUE = frozenset({"-", "na", "n/a", "nan", "nil", "none", "null", "undefined"})

#: Names of scores that sound as if a larger value were worse.
_MORE_IS_WORSE = re.compile(
    r"hallucinat|toxic|harm|error|fail|bias|risk|refus|violat|unsafe|bad|wrong|incorrect|negativ|penalt|loss|distance|"
    r"latency|duration|cost|perplex|unhelp|jailbreak|injection|profan|escalat|complain|insult|leak|"
    r"reject|mistake|invalid|irrelevan|inaccura|inconsisten|unfaithful|ungrounded|dissatisf|unsatisf|dislike|"
    r"downvote|thumbs.?down|spam|abus|mislead|misinform|fabricat|contradict|defect|flagged|sever|inappropriate|offens|"
    r"hate|retries|regenerat|off.?topic",
    re.IGNORECASE,
)
#: Among at least this many scores, a single word is a faulty row. Among fewer it may be half of the scale.
_MANY = 20

_SHOWN = 5
_EXAMPLES = 3


@dataclass(frozen=True)
class ScoreOptions:
    """Holds what the user says about the meaning of the scores.

    Attributes:
        words: quality 0 to 1 by word, in lower case; None leaves out the rows with this word. Without a span the map
            must have every value of the source, numbers too.
        span: the worst and the best number of the source; None if its numbers run from 0 to 1.
    """

    words: Mapping[str, float | None] = field(default_factory=dict)
    span: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.span is not None and not (all(map(math.isfinite, self.span)) and self.span[0] != self.span[1]):
            raise DataError(
                f"--score-range must be the worst and the best score, two different numbers; got "
                f"{self.span[0]:g} {self.span[1]:g}."
            )


def parse_score_map(given: Sequence[str]) -> dict[str, float | None]:
    """Return quality by word from texts such as `good=1,bad=0` or `unsure=skip`. Raises DataError for another text."""
    words: dict[str, float | None] = {}
    for part in (part for text in given for part in _parts(text)):
        word, equals, value = part.rpartition("=")
        quality = number_of(value)
        if not equals or not (value.strip().lower() == SKIP or (quality is not None and 0 <= quality <= 1)):
            raise DataError(
                f"--score-map must say WORD=QUALITY with a quality from 0 to 1, or WORD={SKIP}, as in good=1,bad=0; "
                f"got {part!r}."
            )
        if _key(word) in words:
            raise DataError(f"--score-map must name each word once; got {word.strip()!r} twice.")
        words[_key(word)] = quality
    return words


def _parts(text: str) -> list[str]:
    """Return the parts between commas; the whole text if a part has no equals sign, because words may hold commas."""
    parts = text.split(",")
    return parts if all("=" in part for part in parts) else [text]


@dataclass(frozen=True)
class ScoreExample:
    """Shows one score to the user: where it was read, how it was written, and the quality that it was read as."""

    where: str
    written: str
    read_as: float


@dataclass(frozen=True)
class ScoreSummary:
    """Summarises what an import read as score.

    Attributes:
        sources: number of scores by where they were read, in words.
        low, high, mean: of the qualities, 0 to 1.
        written_low, written_high: the range of the numbers as written; None if there were only words.
        examples: up to three: the lowest, the highest and one between; further answers if there are fewer values.
        mapped_by: the option that mapped them; None if none was needed.
    """

    sources: dict[str, int]
    low: float
    high: float
    mean: float
    written_low: float | None
    written_high: float | None
    examples: tuple[ScoreExample, ...]
    mapped_by: str | None


def read_scores(
    collection: Collection, options: ScoreOptions
) -> tuple[list[tuple[ImportedAnswer, float]], ScoreSummary | None]:
    """Return the answers with their quality and a summary of the scores, which is None if no answer has a score.

    Several scores of one answer are averaged. Answers without one are left out of the result and counted in
    `collection`. Raises DataError if scores are words, lie outside 0 to 1, or have a name that sounds as if less were
    better; the error names values, places and the option to give.
    """
    reader = _Reader(options)
    for answer in collection.answers:
        for raw in answer.scores:
            reader.look_at(answer.place, raw)
    reader.refuse_what_is_unknown()
    read: list[tuple[ImportedAnswer, float]] = []
    seen: list[tuple[ImportedAnswer, RawScore, float]] = []
    for answer in collection.answers:
        values, reasons = [], []
        for raw in answer.scores:
            value, why = reader.quality(raw)
            if value is not None:
                values.append(value)
                seen.append((answer, raw, value))
            elif why is not None:
                reasons.append((why, repr(raw.value) if _is_plain(raw.value) else "a list or an object"))
        if values:
            read.append((answer, sum(values) / len(values)))
        else:
            collection.leave_out(answer.place, *(reasons[0] if reasons else (answer.why_no_score,)))
    return read, _summary(read, seen, options) if read else None


class _Reader:
    """Maps scores to quality. It looks at all values of an import before it maps any."""

    def __init__(self, options: ScoreOptions) -> None:
        self._options = options
        self._words: Counter[str] = Counter()
        self._no_values: Counter[str] = Counter()
        self._outside: list[tuple[Place, float]] = []
        self._first: dict[str, str] = {}
        self._names: dict[str, Place] = {}
        self._numbers = 0
        self._indices: dict[float, Place] = {}
        self._has_fractions = False

    def look_at(self, place: Place, raw: RawScore) -> None:
        """Count this value as a word, a number, or a number outside 0 to 1."""
        if _is_blank(raw.value):
            return
        if raw.name and _MORE_IS_WORSE.search(raw.name):
            self._names.setdefault(raw.name, place)
        number = self._number(raw)
        is_known = thumb_of(raw.value) is not None or (_is_plain(raw.value) and _key(raw.value) in self._options.words)
        if not _is_plain(raw.value) or is_known:
            return
        if number is None or (self._options.words and self._options.span is None):
            self._note_word(place, raw)
        else:
            self._numbers += 1
            if raw.may_be_index and self._options.span is None:
                self._has_fractions = self._has_fractions or not number.is_integer()
                self._indices.setdefault(number, place)
            if self._options.span is None and math.isfinite(number) and not 0 <= number <= 1:
                self._outside.append((place, number))

    def _note_word(self, place: Place, raw: RawScore) -> None:
        word = str(raw.value)
        (self._no_values if self._is_no_value(raw) else self._words)[word] += 1
        self._first.setdefault(word, f"{place}, {raw.source}" if raw.source.startswith("column ") else str(place))

    def refuse_what_is_unknown(self) -> None:
        """Raise DataError if the values are ambiguous, so that the user has to say what they mean."""
        if self._words and not self._single_words():
            self._words += self._no_values
            shown = ", ".join(f"{word[:40]} ({count})" for word, count in self._words.most_common(_SHOWN))
            more = f" and {len(self._words) - _SHOWN} more" if len(self._words) > _SHOWN else ""
            place = self._first[self._words.most_common(1)[0][0]]
            if self._options.words:
                near = difflib.get_close_matches(_key(self._words.most_common(1)[0][0]), self._options.words, 1)
                hint = f" The map has {near[0]!r}, which is nearly the same." if near else ""
                raise DataError(
                    f"--score-map must have every score; missing: {shown}{more}, first in {place}.{hint} Numbers may "
                    "be left to --score-range WORST BEST, given beside it."
                )
            hint = ",".join(f"{word[:40]}=?" for word, _ in self._words.most_common(_SHOWN))
            raise DataError(
                f"scores must be numbers or true and false; got the words {shown}{more}, first in {place}. Say what "
                f"each is worth, from 0 (worst) to 1 (best): --score-map '{hint}'; WORD={SKIP} leaves its rows out."
            )
        if self._outside:
            low, high = (pick(self._outside, key=lambda one: one[1]) for pick in (min, max))
            raise DataError(
                f"scores must run from 0 (worst) to 1 (best), but {len(self._outside)} of {self._numbers} do not: "
                f"{low[1]:g} in {low[0]}, {high[1]:g} in {high[0]}. Say which score is worst and which is best, as in "
                "--score-range 1 5 or --score-range 0 100, or what each value is worth: "
                f"--score-map '{','.join(f'{number:g}=?' for number in sorted({low[1], high[1]}))}'."
            )
        if self._indices and not self._has_fractions:
            found = ", ".join(f"{number:g}" for number in sorted(self._indices)[:_SHOWN])
            raise DataError(
                f"the scores {found} (first in {next(iter(self._indices.values()))}) have no data type, so they may be "
                "qualities or indices of categories. If they are qualities, give --score-range WORST BEST, as in 0 1. "
                f"If not, say what each is worth: --score-map '{found.replace(', ', '=?,')}=?'."
            )
        if self._names and not self._options.words and self._options.span is None:
            name, where = next(iter(self._names.items()))
            raise DataError(
                f"the score {name!r} (first in {where}) sounds as if more of it were worse. Say which value is worst "
                "and which is best: --score-range 1 0 where 0 is best, --score-range 0 1 where 1 is."
            )

    def _single_words(self) -> bool:
        """Return whether the words are only faulty cells in a column of numbers: they are few, and each occurs once."""
        few = len(self._words) * 1000 <= max(1000, self._numbers)
        once = set(self._words.values()) == {1}
        return not self._options.words and self._numbers >= _MANY and few and once

    def quality(self, raw: RawScore) -> tuple[float | None, str | None]:
        """Return the quality of a value, or None and, unless it is missing, why it has none."""
        if _is_blank(raw.value):
            return None, None
        if _is_plain(raw.value) and _key(raw.value) in self._options.words:
            value = self._options.words[_key(raw.value)]
            return value, None if value is not None else "score that --score-map skips"
        if (thumb := thumb_of(raw.value)) is not None:
            return thumb, None
        if self._is_no_value(raw):
            return None, None
        number = self._number(raw)
        if number is None or not math.isfinite(number):
            return None, "score that is no number"
        low, high = self._options.span or (0.0, 1.0)
        value = (number - low) / (high - low)
        if not -1e-9 <= value <= 1 + 1e-9:
            return None, "score outside --score-range"
        # Nothing added turns -0.0, the worst of a scale that falls, into 0.0.
        return min(max(value, 0.0), 1.0) + 0.0, None

    def _number(self, raw: RawScore) -> float | None:
        if raw.is_label or not _is_plain(raw.value):
            return None
        value = raw.value
        if isinstance(value, bool) or (isinstance(value, str) and value.strip().lower() in {"true", "false"}):
            truth = value if isinstance(value, bool) else value.strip().lower() == "true"
            low, high = self._options.span or (0.0, 1.0)
            return float(truth) if {low, high} == {0.0, 1.0} else None
        percentage, span = percentage_of(value), self._options.span
        if percentage is not None:
            return percentage if span is not None else percentage / 100.0
        if (number := number_of(value)) is not None or span is None:
            return number
        return grade_of(value, span[1])

    def _is_no_value(self, raw: RawScore) -> bool:
        """Return whether a text means that there is no value. Names of categories and words of a map never do."""
        if raw.is_label or self._options.words:
            return False
        return isinstance(raw.value, str) and raw.value.strip().lower() in _NO_VALUE


def _is_blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _is_plain(value: Any) -> bool:
    """Return whether this is a single value, and no list or object."""
    return not isinstance(value, list | dict | tuple)


def _key(value: Any) -> str:
    """Return the key of a value in a score map: a number in its shortest form, or a word in lower case."""
    if isinstance(value, bool):
        return str(value).lower()
    number = number_of(value)
    return f"{number:g}" if number is not None else str(value).strip().casefold()


def _summary(
    read: Sequence[tuple[ImportedAnswer, float]],
    seen: Sequence[tuple[ImportedAnswer, RawScore, float]],
    options: ScoreOptions,
) -> ScoreSummary:
    qualities = [quality for _, quality in read]
    numbers = [number for _, raw, _ in seen if not raw.is_label and (number := number_of(raw.value)) is not None]
    sources = Counter(raw.source for _, raw, _ in seen)
    by_value: dict[str, tuple[ImportedAnswer, RawScore, float]] = {}
    for one in seen:
        by_value.setdefault(_key(one[1].value), one)
    ordered = sorted(by_value.values(), key=lambda one: one[2])
    # If there are only one or two values, the first answers make up the three.
    chosen = [ordered[0], ordered[-1], ordered[len(ordered) // 2], *seen[: 2 * _EXAMPLES]]
    examples = dict.fromkeys(ScoreExample(str(a.place), printable(str(r.value))[:80], q) for a, r, q in chosen)
    used = {"--score-map": bool(options.words), "--score-range": options.span is not None}
    mapped_by = " and ".join(option for option, given in used.items() if given) or None
    return ScoreSummary(
        sources=dict(sources),
        low=min(qualities),
        high=max(qualities),
        mean=sum(qualities) / len(qualities),
        written_low=min(numbers, default=None),
        written_high=max(numbers, default=None),
        examples=tuple(examples)[:_EXAMPLES],
        mapped_by=mapped_by,
    )
