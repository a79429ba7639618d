"""Find the prompts that a threshold sends to the wrong model, by their ids."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from router.tuning.judging.probe_evaluation import PROBE, ScoredRouters

#: How many mistakes of each kind are listed.
_SHOWN = 15


@dataclass(frozen=True)
class Mistake:
    """Names a prompt that a threshold sends to the wrong model, by its id. Its text is not in the report."""

    prompt_id: str
    group: str
    gain: float
    weak_score: float
    strong_score: float


@dataclass(frozen=True)
class Mistakes:
    """Lists the prompts that a threshold sends to the wrong model; of each kind, the most misleading gain is first.

    Attributes:
        threshold: on the gain; the strong model answers prompts of larger gain.
        lost: sent to the weak model although the strong one was better. n_lost: how many, also those not listed.
        wasted: sent to the strong model although it was no better. n_wasted: how many, also those not listed.
    """

    threshold: float
    lost: tuple[Mistake, ...]
    n_lost: int
    wasted: tuple[Mistake, ...]
    n_wasted: int


def find_mistakes(scored: ScoredRouters, threshold: float) -> Mistakes:
    """Return the mistakes that are made if prompts with a gain above the threshold go to the strong model."""
    gain = scored.routers[PROBE].gain
    weak, strong = scored.outcomes.scores.T
    lost = np.flatnonzero((gain <= threshold) & (strong > weak))
    wasted = np.flatnonzero((gain > threshold) & (strong <= weak))

    def listed(rows: npt.NDArray[np.intp]) -> tuple[Mistake, ...]:
        o = scored.outcomes
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
