"""From outcomes to the prompts a certificate may rest on: never fitted on, answered by every model, each text once."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from probes.errors import DataError
from probes.probe import DifficultyProbe, fingerprints
from router.asking.ask import Ask, extract
from router.tuning.outcomes.datasets import Outcomes
from router.tuning.outcomes.records import MAX_PROMPT_BYTES
from router.values import RouteQuery

#: Fewer prompts than this certify nothing that anybody asks for.
MIN_CALIBRATION = 50

_ADVICE = (
    "Fit on another split: `elle fit DATA --holdout 0.4` leaves prompts out for this, or give `elle tune` data of its "
    "own."
)


@dataclass(frozen=True)
class CalibrationSet:
    """n prompts to certify with, in an order that says nothing about their outcomes, and what was set aside.

    Attributes:
        outcomes: one row per text, no gaps in the scores.
        seen: prompts the probe was fitted on; good for defaults, never for a certificate.
        n_incomplete: prompts left out because some model has no score for them.
        n_repeated: rows merged into an earlier row of the same text, by their mean.
        graded: whether scores other than 0 and 1 occur.
    """

    outcomes: Outcomes
    seen: Outcomes
    n_incomplete: int
    n_repeated: int
    graded: bool

    @property
    def asks(self) -> tuple[Ask, ...]:
        """What is asked, n of them."""
        return self.outcomes.asks


def calibration_set(outcomes: Outcomes, probe: DifficultyProbe) -> CalibrationSet:
    """The calibration prompts among `outcomes` of exactly the models to route between.

    Raises DataError if a prompt cannot be told from those of the fit, if no prompt has a score of every model, or if
    fewer than MIN_CALIBRATION texts remain.
    """
    if not probe.fitted_on.size:
        raise DataError(
            "the probe must know which prompts it was fitted on, and this one does not; fit it again with `elle fit`."
        )
    complete = outcomes.complete_rows()
    if not len(complete):
        counts = np.isfinite(outcomes.scores).sum(axis=0)
        having = ", ".join(f"{model} {count:,}" for model, count in zip(outcomes.models, counts, strict=True))
        raise DataError(f"some prompts must have a score of every model, none has (prompts scored: {having}).")
    seen = np.isin(fingerprints(complete.texts), probe.fitted_on)
    unseen = complete.take(np.flatnonzero(~seen))
    merged = _merge(_with_asks(unseen))
    if len(merged) < MIN_CALIBRATION:
        raise DataError(
            f"at least {MIN_CALIBRATION} different prompts that the probe was not fitted on must remain, got "
            f"{len(merged)}: {int(seen.sum()):,} of {len(complete):,} were used in its fit. {_ADVICE}"
        )
    return CalibrationSet(
        outcomes=merged,
        seen=complete.take(np.flatnonzero(seen)),
        n_incomplete=len(outcomes) - len(complete),
        n_repeated=len(unseen) - len(merged),
        graded=not np.isin(complete.scores, (0.0, 1.0)).all(),
    )


def _with_asks(outcomes: Outcomes) -> Outcomes:
    if outcomes.asks or not len(outcomes):
        return outcomes
    queries = (RouteQuery.from_prompt(text) for text in outcomes.texts)
    return replace(outcomes, asks=tuple(extract(query, max_bytes=MAX_PROMPT_BYTES) for query in queries))


def _merge(outcomes: Outcomes) -> Outcomes:
    """One row per text, numbers averaged, ordered by a hash of the text.

    Bounds that bet need an order that was fixed without regard to the losses; files are often sorted by outcome.
    """
    first: dict[str, int] = {}
    rows: npt.NDArray[np.intp] = np.array([first.setdefault(t, i) for i, t in enumerate(outcomes.texts)], dtype=np.intp)
    kept = np.array(list(first.values()), dtype=np.intp)
    kept = kept[np.argsort(fingerprints([outcomes.texts[row] for row in kept]), kind="stable")]
    merged = outcomes.take(kept)
    if len(kept) == len(outcomes):
        return merged
    return replace(
        merged,
        scores=_means(outcomes.scores, rows)[kept],
        cost_usd=_means(outcomes.cost_usd, rows)[kept],
        input_tokens=_means(outcomes.input_tokens, rows)[kept],
        output_tokens=_means(outcomes.output_tokens, rows)[kept],
    )


def _means(values: npt.NDArray[np.float64], rows: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
    """Mean of the finite values (n, m) over rows of one number, at the row of that number; NaN where there is none."""
    known = np.isfinite(values)
    total, count = np.zeros(values.shape), np.zeros(values.shape)
    np.add.at(total, rows, np.where(known, values, 0.0))
    np.add.at(count, rows, known)
    return np.asarray(np.divide(total, count, out=np.full(values.shape, np.nan), where=count > 0))
