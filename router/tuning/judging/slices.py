"""Measure a ranking on parts of the data, which are formed by group, by length or by script."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from probes.measures.bootstrap import Interval
from router.tuning.judging.ranking import RouterScores, Truth, measure

#: Slices with fewer prompts than this are not measured: their bootstrap intervals would mean nothing.
MIN_SLICE = 30


@dataclass(frozen=True)
class Slice:
    """Holds the figures of a ranking on some prompts of the data, such as those of one group.

    Attributes:
        n: prompts. weak_score, strong_score: mean scores of the two models on them.
        lift: mean quality above random choice at equal strong share. Below 0 the router does harm on this slice.
        apgr: None if the strong model is not clearly the better one on this slice, so that there is no gap to recover.
    """

    n: int
    weak_score: float
    strong_score: float
    lift: Interval
    apgr: Interval | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def slice_labels(texts: Sequence[str], groups: Sequence[str]) -> dict[str, npt.NDArray[np.str_]]:
    """Return a label (n,) for each prompt by each way of slicing; `group` only if the data have two groups or more."""
    by = {"group": np.array(groups)} if len(set(groups)) > 1 else {}
    return by | {"length": length_quarters(texts), "script": np.array([script(text) for text in texts])}


def measure_slices(
    router: RouterScores, truth: Truth, labels: Mapping[str, npt.NDArray[np.str_]], *, resamples: int, seed: int
) -> dict[str, dict[str, Slice]]:
    """Return every slice of at least MIN_SLICE prompts, by the way of slicing and then by label, in order."""
    found: dict[str, dict[str, Slice]] = {}
    for by, values in labels.items():
        found[by] = {}
        for label in np.unique(values):
            rows = values == label
            if rows.sum() >= MIN_SLICE:
                found[by][str(label)] = _slice(router.take(rows), truth.take(rows), resamples, seed)
    return found


def _slice(router: RouterScores, truth: Truth, resamples: int, seed: int) -> Slice:
    # Only the ranking is measured: calibration error needs far more rows than a slice has.
    figures = measure({"": RouterScores(router.gain)}, truth, resamples=resamples, seed=seed)[""].figures
    weak, strong = truth.scores.mean(axis=0)
    return Slice(len(truth.scores), float(weak), float(strong), figures["lift"], figures.get("apgr"))


def length_quarters(texts: Sequence[str]) -> npt.NDArray[np.str_]:
    """Return the quarter that the length of each prompt is in, as in `1: up to 120 characters`."""
    lengths = np.array([len(text) for text in texts])
    edges = np.unique(np.quantile(lengths, [0.25, 0.5, 0.75, 1.0], method="lower"))
    names = np.array([f"{number}: up to {edge} characters" for number, edge in enumerate(edges, start=1)])
    return names[np.searchsorted(edges, lengths)]


def script(text: str) -> str:
    """Return the Unicode script of most letters of a text, such as `Latin` or `CJK`; `none` if it has no letters.

    A script is not a language: English, French and Vietnamese are all `Latin`. The script shows which prompts an
    encoder trained on another script has hardly seen, and nothing finer.
    """
    counts = Counter(filter(None, map(_script_of, text)))
    return max(counts, key=lambda name: (counts[name], name)) if counts else "none"


@lru_cache(maxsize=4096)
def _script_of(character: str) -> str:
    if not character.isalpha():
        return ""
    # The first word of a letter's Unicode name is its script.
    name = unicodedata.name(character, "").split(" ")[0].split("-")[0]
    return "CJK" if name in {"CJK", "HIRAGANA", "KATAKANA"} else name.capitalize()
