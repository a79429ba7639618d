"""Decide whose opinion a certificate is about: people, a judge, or the scores of the data as they are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from probes.errors import DataError
from router.quoting import quoted
from router.tuning.certifying.calibration_set import CalibrationSet
from router.tuning.outcomes.datasets import FloatArray

#: With fewer human grades no target that anybody asks for can be certified, and a rectifier says nothing.
MIN_HUMAN = 30

_LONGEST_NAMES = 120
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class About:
    """Says whose opinion a certificate is about, and holds the human grades that it rests on.

    Attributes:
        words: `people`, `judge NAME`, or `scores` if the data do not say who made them.
        n_human: the number of calibration prompts that people graded for every model.
        human: (n, m) their grades, NaN in the other rows; None if all rows have one, or if it is not about people.
        notes: what a reader of the result must know.
    """

    words: str
    n_human: int = 0
    human: FloatArray | None = None
    notes: tuple[str, ...] = ()


def decide_about(
    calibration: CalibrationSet, wanted: Literal["people", "judge"] | None
) -> tuple[About, CalibrationSet]:
    """Return whose opinion the certificate is about, and the calibration prompts with the scores of that opinion.

    If people graded every prompt, their grades take the place of the scores. If they graded a random part, the scores
    stay and the grades are beside them. wanted: None decides for people if the data have human grades.

    Raises DataError if people are wanted, or have graded some prompts, and the grades cannot carry a certificate.
    """
    outcomes = calibration.outcomes
    if wanted == "judge" or (wanted is None and outcomes.humans is None):
        return About(_judges(outcomes.judges)), calibration
    if outcomes.humans is None:
        raise DataError(
            "--about people needs human grades, the column `human_score`; the data have none. `elle label` asks a "
            "person for them."
        )
    known = np.isfinite(outcomes.humans.scores)
    whole = np.asarray(known.all(axis=1))
    if whole.all():
        humans = replace(calibration, outcomes=replace(outcomes, scores=outcomes.humans.scores))
        return About("people", len(outcomes)), humans
    chosen = whole & np.asarray(outcomes.humans.at_random.all(axis=1))
    _require_enough(calibration, int(whole.sum()), int(chosen.sum()))
    human = np.where(chosen[:, None], outcomes.humans.scores, np.nan)
    return About("people", int(chosen.sum()), human, tuple(_notes(known, whole, chosen))), calibration


def _judges(names: tuple[str, ...]) -> str:
    text = ", ".join(names)
    return f"judge {text if len(text) <= _LONGEST_NAMES else text[:_LONGEST_NAMES] + '…'}" if names else "scores"


def _require_enough(calibration: CalibrationSet, n_whole: int, n_chosen: int) -> None:
    """Raise DataError if too few of the human grades can carry a certificate; it says why they cannot."""
    if n_chosen >= MIN_HUMAN:
        return
    outcomes = calibration.outcomes
    assert outcomes.humans is not None  # noqa: S101  (the caller has looked)
    otherwise = "Grade more with `elle label`, or certify what the scores say with --about judge."
    need = f"a certificate about people needs {MIN_HUMAN} prompts or more that people graded for every model"
    if n_whole > n_chosen:
        raise DataError(
            f"{need} and that chance chose for them (`human_drawn` says `random`); got {n_chosen} of {n_whole:,} "
            f"graded prompts. Answers that somebody picked to look at are no random part. {otherwise}"
        )
    counts = np.isfinite(outcomes.humans.scores).sum(axis=0)
    if counts.max() > n_whole:
        having = ", ".join(f"{quoted(m)} {count:,}" for m, count in zip(outcomes.models, counts, strict=True))
        raise DataError(f"{need}; got {n_whole} (graded answers: {having}). {otherwise}")
    raise DataError(f"{need}; got {n_whole} among the calibration prompts. {otherwise}")


def _notes(known: BoolArray, whole: BoolArray, chosen: BoolArray) -> list[str]:
    notes = []
    if unused := int((whole & ~chosen).sum()):
        notes.append(
            f"{unused:,} prompts with human grades count as judged only, because chance did not choose them for a "
            "person (`human_drawn` does not say `random`)."
        )
    if partly := int((known.any(axis=1) & ~whole).sum()):
        notes.append(f"{partly:,} prompts have a human grade of some model only; they count as judged only.")
    return notes
