"""Which prompts a threshold sends to the wrong model, by their ids."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from router.tuning.judging.evaluate import PROBE, Judged

#: Mistakes listed of each kind.
_SHOWN = 15


@dataclass(frozen=True)
class Mistake:
    """A prompt that went to the wrong model, by its id; its text is not in the report."""

    prompt_id: str
    group: str
    gain: float
    weak_score: float
    strong_score: float


@dataclass(frozen=True)
class Mistakes:
    """Prompts wrongly sent at a threshold, the surest of each kind first.

    Attributes:
        threshold: on the gain; above it the strong model answers.
        lost: sent to the weak model, where the strong one was better. n_lost: how many.
        wasted: sent to the strong model, which was no better. n_wasted: how many.
    """

    threshold: float
    lost: tuple[Mistake, ...]
    n_lost: int
    wasted: tuple[Mistake, ...]
    n_wasted: int


def find_mistakes(judged: Judged, threshold: float) -> Mistakes:
    """The mistakes of sending prompts with a gain above the threshold to the strong model."""
    gain = judged.judgements[PROBE].gain
    weak, strong = judged.outcomes.scores.T
    lost = np.flatnonzero((gain <= threshold) & (strong > weak))
    wasted = np.flatnonzero((gain > threshold) & (strong <= weak))

    def listed(rows: npt.NDArray[np.intp]) -> tuple[Mistake, ...]:
        o = judged.outcomes
        return tuple(
            Mistake(o.ids[i], o.groups[i], float(gain[i]), float(weak[i]), float(strong[i])) for i in rows[:_SHOWN]
        )

    return Mistakes(
        threshold,
        listed(lost[np.argsort(gain[lost], kind="stable")]),
        len(lost),
        listed(wasted[np.argsort(-gain[wasted], kind="stable")]),
        len(wasted),
    )
