"""Learn the kinds of request of the default probe, and measure how well it recognises them.

Kinds of the public files and kinds of our anchors are learned together, because a greeting is of no public kind. No
figure counts an anchor.
"""

from __future__ import annotations

import timeit
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.default_probe.anchors import Anchors
from benchmarks.default_probe.fit import TrainingSet
from benchmarks.default_probe.intervals import mean_over, share_of
from benchmarks.default_probe.sources import TierRows
from probes.kinds.known_kinds import KnownKinds
from probes.kinds.learning import KindRows, LeftOutKinds, fit_kinds, leave_out

#: A kind of at least this many groups is judged on groups that were left out whole; others on texts that were left out.
_GROUPS_OF_A_KIND = 3

#: Parts into which the kinds are dealt; each part is left out whole in turn.
_PARTS = 12


def kind_rows(rows: TierRows, anchors: Anchors | None, data: TrainingSet) -> KindRows:
    """Return the rows that kinds are learned from.

    What is left out together is a whole group if the kind has several, such as a subject of an exam or a language of
    our anchors. Within one group the prompts of many files are alike, and figures on them would flatter.
    """
    kinds = np.concatenate([rows.kind, anchors.kind if anchors else np.array([], dtype=str)])
    texts = [*rows.texts, *(anchors.texts if anchors else ())]
    n_groups = {kind: len(set(data.group[kinds == kind])) for kind in set(kinds)}
    units = [
        f"group {group}" if n_groups[kind] >= _GROUPS_OF_A_KIND else f"text {text}"
        for kind, group, text in zip(kinds, data.group, texts, strict=True)
    ]
    return KindRows(data.features, kinds.tolist(), units)


def assumed_kinds(rows: TierRows, anchors: Anchors | None) -> dict[str, bool]:
    """Return which kinds have no public row, so that their losses are assumptions."""
    return {kind: kind not in set(rows.kind) for kind in (anchors.kind.tolist() if anchors else ())}


def default_kinds(rows: TierRows, anchors: Anchors | None, data: TrainingSet) -> KnownKinds:
    """Return the kinds of the default probe."""
    found = fit_kinds(kind_rows(rows, anchors, data), assumed_kinds(rows, anchors))
    assert found is not None  # noqa: S101  (the data have 100 kinds)
    return found


def kind_figures(rows: TierRows, anchors: Anchors | None, data: TrainingSet) -> dict[str, Any]:
    """Return how often the nearest kind is right, and what happens to prompts of a kind that was left out whole.

    The rows that are counted are public. Means are over kinds, each counted once, with a bootstrap over kinds.
    """
    all_rows = kind_rows(rows, anchors, data)
    known = default_kinds(rows, anchors, data)
    names, used, kind = all_rows.usable()
    found = leave_out(data.features[used], kind, tuple(names), [all_rows.units[row] for row in used])
    counted = found.judged & ~data.is_anchor[used]
    return {
        "n_kinds": len(names),
        "n_assumed": sum(known.assumed),
        "temperature": known.temperature,
        "limit": known.limit,
        "microseconds_of_one_prompt": _microseconds(known, data.features[0]),
        **_recognition(found, counted, known),
        "kinds_left_out_whole": _left_out_whole(data.features[used], kind, data.is_anchor[used], known),
    }


def _microseconds(known: KnownKinds, features: npt.NDArray[np.float32]) -> float:
    """Return how long it takes to find the nearest kinds of one prompt: the best of 15 rounds of 500."""
    return min(timeit.repeat(lambda: known.nearest(features), number=500, repeat=15)) / 500 * 1e6


def _recognition(found: LeftOutKinds, counted: npt.NDArray[np.bool_], known: KnownKinds) -> dict[str, Any]:
    order = np.argsort(found.distances, axis=1)
    first, three = order[:, 0] == found.kind, (order[:, :3] == found.kind[:, None]).any(axis=1)
    shares, puzzles = found.shares(known.temperature).max(axis=1), np.array(["puzzle" in one for one in found.names])
    figures: dict[str, Any] = {}
    for name, rows in (
        ("all", counted),
        ("puzzles", counted & puzzles[found.kind]),
        ("no_puzzles", counted & ~puzzles[found.kind]),
    ):
        kind = found.kind[rows]
        figures[name] = {
            "n": int(rows.sum()),
            "n_kinds": len(set(kind.tolist())),
            "top_1": mean_over(kind, first[rows]),
            "top_3": mean_over(kind, three[rows]),
            "mean_share_of_nearest": mean_over(kind, shares[rows]),
            "said_to_be_known": mean_over(kind, found.novelty[rows] <= known.limit),
        }
    return figures


def _left_out_whole(
    features: npt.NDArray[np.float32], kind: npt.NDArray[np.int64], is_anchor: npt.NDArray[np.bool_], known: KnownKinds
) -> dict[str, Any]:
    """Return how prompts of a kind are recognised if the whole kind was left out when kinds were learned.

    The entropy is in bits; with all shares equal it would be the logarithm of the number of kinds.
    """
    part_of = np.random.default_rng(0).permutation(len(known.names)) % _PARTS
    parts = [f"part {part_of[one]}" for one in kind]
    found = leave_out(features, kind, known.names, parts)
    shares = found.shares(known.temperature)
    entropy = -(shares * np.log2(np.maximum(shares, 1e-12))).sum(axis=1)
    rows = ~is_anchor
    return {
        "none_known": mean_over(kind[rows], found.novelty[rows] > known.limit),
        "entropy_bits": mean_over(kind[rows], entropy[rows]),
        "share_of_nearest": mean_over(kind[rows], shares.max(axis=1)[rows]),
        "none_known_over_rows": share_of(found.novelty[rows] > known.limit),
    }
