"""Read the public outcomes that the default probe is fitted on: one row for each prompt, with the loss of each tier.

The scales of the files differ, so models are never compared across files. In each file the models are put into tiers by
their mean score there, and the loss of a tier on a prompt is the mean loss of its models: that has less noise than the
loss of one model.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.default_probe.kind_names import kind_name
from probes.probe import DataSource
from router.tuning.outcomes.datasets import Outcomes, read_outcomes

FloatArray = npt.NDArray[np.float64]

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"

TIERS = ("economy", "standard", "frontier")

#: Few rows of many kinds teach more about kinds that are not known than many rows of few do.
MOST_ROWS_OF_A_KIND = 60

#: Files whose prompts are the same, or partly the same, as those of another file: they are left out together.
FAMILIES = (("mmlu", "mmlu_pro"), ("shaberi_gpt41", "shaberi_gpt4turbo"))

#: In these files a group is a single conversation or a handful of prompts, so the whole file counts as one kind.
_ONE_KIND = ("arena_hard", "h2o", "theoremqa", "shaberi_gpt41", "shaberi_gpt4turbo")


@dataclass(frozen=True, eq=False)
class TierRows:
    """Holds n prompts with the loss of each tier.

    Attributes:
        texts: n prompts.
        source: n names of files. kind: n names of kinds in words. group: n labels, unlike between files.
        losses: (n, 3) of economy, standard and frontier, 0 to 1; NaN if a file has no model of that tier.
        files: the files with their digests.
        models: for each file the names of the models of each tier.
    """

    texts: tuple[str, ...]
    source: npt.NDArray[np.str_]
    kind: npt.NDArray[np.str_]
    group: npt.NDArray[np.str_]
    losses: FloatArray
    files: tuple[DataSource, ...]
    models: dict[str, dict[str, list[str]]]

    def __len__(self) -> int:
        return len(self.texts)

    def family(self, source: str) -> npt.NDArray[np.bool_]:
        """Return which rows (n,) are of this file or of one that shares prompts with it."""
        names = next((names for names in FAMILIES if source in names), (source,))
        return np.isin(self.source, names)

    def weights(self) -> FloatArray:
        """Return the weight of each row (n,), which sum to 1: a file counts as the square root of its rows."""
        _, number, count = np.unique(self.source, return_inverse=True, return_counts=True)
        weight = 1.0 / np.sqrt(count[number])
        return np.asarray(weight / weight.sum())


def source_files() -> list[Path]:
    """Return the files of outcomes, the three older ones first. Raises FileNotFoundError without them."""
    found = [DATA / name for name in ("routellm_mmlu.parquet", "routellm_gsm8k.parquet", "mmlu_pro.parquet")]
    found += sorted((DATA / "pool").glob("*.parquet"))
    if not all(path.is_file() for path in found) or len(found) < 4:
        raise FileNotFoundError("the default probe needs ../shared/data with its folder pool/ beside this checkout.")
    return found


def tiers_of(scores: FloatArray) -> tuple[list[int], list[int], list[int]]:
    """Return the columns of scores (n, m) that make up economy, standard and frontier, by rank of mean score.

    Of many models the economy tier is the tenth to the fourth decile: the very worst ones are nobody's candidates. Two
    models are economy and frontier.
    """
    mean = np.nanmean(scores, axis=0)
    order, m = np.argsort(mean, kind="stable").tolist(), scores.shape[1]
    if m == 2:
        return [order[0]], [], [order[1]]
    if m <= 4:
        return [order[m // 2 - 1] if m == 4 else order[0]], [order[m - 2]], [order[m - 1]]
    rank = (np.arange(m) + 0.5) / m
    economy = [column for column, place in zip(order, rank, strict=True) if 0.1 <= place <= 0.4]
    standard = [column for column, place in zip(order, rank, strict=True) if 0.4 < place < 0.75]
    frontier = [column for column, place in zip(order, rank, strict=True) if place >= 0.9] or [order[-1]]
    return economy, standard, frontier


def read_rows(seed: int = 0) -> TierRows:
    """Return at most MOST_ROWS_OF_A_KIND prompts of each kind of each file, drawn at random."""
    rng = np.random.default_rng(seed)
    texts: list[str] = []
    labels: list[tuple[str, str, str]] = []
    losses: list[FloatArray] = []
    files: list[DataSource] = []
    models: dict[str, dict[str, list[str]]] = {}
    for path in source_files():
        outcomes, name = read_outcomes(path), path.stem.removeprefix("routellm_")
        columns = tiers_of(outcomes.scores)
        models[name] = {
            tier: [outcomes.models[column] for column in chosen] for tier, chosen in zip(TIERS, columns, strict=True)
        }
        files += outcomes.sources
        loss = 1.0 - np.stack([_mean(outcomes.scores[:, chosen]) for chosen in columns], axis=1)
        for row in _drawn(outcomes, loss, name, rng):
            group = name if name in _ONE_KIND else outcomes.groups[row]
            texts.append(outcomes.texts[row])
            labels.append((name, kind_name(name, group), f"{name}|{group}"))
            losses.append(loss[row])
    source, kind, group = (np.array(column) for column in zip(*labels, strict=True))
    return TierRows(tuple(texts), source, kind, group, np.stack(losses), tuple(files), models)


def _drawn(outcomes: Outcomes, loss: FloatArray, name: str, rng: np.random.Generator) -> list[int]:
    """Return the rows that are kept of one file."""
    groups: Sequence[str] = [name] * len(outcomes) if name in _ONE_KIND else outcomes.groups
    usable = np.isfinite(loss[:, 0]) & np.isfinite(loss[:, 2])
    kept: list[int] = []
    for group in dict.fromkeys(groups):
        rows = np.flatnonzero(usable & (np.array(groups) == group))
        kept += (
            rng.choice(rows, MOST_ROWS_OF_A_KIND, replace=False) if len(rows) > MOST_ROWS_OF_A_KIND else rows
        ).tolist()
    return kept


def _mean(scores: FloatArray) -> FloatArray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a prompt that no model of the tier answered: NaN is meant
        return np.nanmean(scores, axis=1) if scores.shape[1] else np.full(len(scores), np.nan)
