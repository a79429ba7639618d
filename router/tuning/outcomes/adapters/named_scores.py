"""Give answers the score that the user chose of several with different names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from probes.bounded.files import shown
from probes.errors import DataError
from router.quoting import did_you_mean
from router.tuning.outcomes.adapters.collection import Collection, ImportedAnswer, RawScore

#: Names that a message lists at most.
_MOST_SHOWN = 20


@dataclass(frozen=True)
class ScoredAnswer:
    """Holds an answer without scores, and beside it all scores that its source has, by name."""

    answer: ImportedAnswer
    scores: Mapping[str, Sequence[RawScore]] = field(default_factory=dict)


def add_answers(answers: Sequence[ScoredAnswer], collection: Collection, wanted: str | None, *, scored: bool) -> None:
    """Add answers to a collection, each with its scores of the name that the user wants, or of the only one there is.

    scored: False leaves the scores out. Raises DataError if there are several names and none is wanted, or if no
    answer has a score of the wanted name.
    """
    names = Counter(name for one in answers for name in one.scores)
    name = choose_name(names, wanted) if scored else None
    for one in answers:
        collection.answers.append(replace(one.answer, scores=tuple(one.scores.get(name, ())) if name else ()))


def choose_name(names: Counter[str], wanted: str | None) -> str | None:
    """Return the name of the score to read: the wanted one or else the only one; None if there is no score at all.

    names: how many answers have a score of each name. Raises DataError as `add_answers` does.
    """
    ordered = sorted(names.items(), key=lambda item: (-item[1], item[0]))
    listed = ", ".join(f"{shown(name)} ({count:,})" for name, count in ordered[:_MOST_SHOWN])
    if wanted is not None and wanted not in names:
        hint = did_you_mean(wanted, names, lambda near: repr(shown(near)))
        raise DataError(f"--score-name must be one of {listed or '(no scores found)'}; got {shown(wanted)!r}.{hint}")
    if wanted is None and len(names) > 1:
        raise DataError(f"the source holds several scores: {listed}. Choose one with --score-name.")
    return wanted or next(iter(names), None)
