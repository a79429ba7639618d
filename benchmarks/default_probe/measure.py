"""Measure the default probe: on files left out whole, and on everyday prompts of our own through the served policy."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr

from benchmarks.default_probe.anchors import read_anchors
from benchmarks.default_probe.fit import (
    PENALTIES,
    DefaultFit,
    Features,
    choose_penalty,
    fit_default,
    left_out_by_source,
    training_set,
)
from benchmarks.default_probe.intervals import share_of
from benchmarks.default_probe.kinds import kind_figures
from benchmarks.default_probe.sources import TIERS, TierRows, read_rows
from benchmarks.default_probe.variants import KEPT_ASIDE
from probes.asides.gate import AsideGate
from probes.asides.reading import without_asides
from probes.encoders.spec import MINILM_L6
from probes.measures.prediction import ece
from router.deciding.pipeline import Router
from router.tuning.outcomes.feature_cache import FeatureCache, Progress
from router.values import RouteQuery

FloatArray = npt.NDArray[np.float64]

_GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden"
EVERYDAY, APPENDED = _GOLDEN / "everyday.jsonl", _GOLDEN / "appended.jsonl"

#: What stands behind a prompt of `APPENDED`, in its own language.
ASIDES = ("thanks", "neutral", "flattery")

#: Kinds of fewer rows than this have no mean that could be compared.
_ROWS_OF_A_KIND = 10

_RESAMPLES = 2000


def thresholds(found: DefaultFit) -> list[float]:
    """Return the prices of the two steps between the tiers, in quality.

    The first lets as large a share of the trivial anchors stay with economy as of the hard ones leave it, on anchors
    whose language was left out: an assumption as they are. The second sends half of what leaves economy to frontier.
    """
    anchor = found.data.is_anchor
    risk = found.risk
    hard = anchor & (found.data.losses[:, 0] > 0.5)
    trivial = anchor & ~hard
    cuts = np.unique(risk[anchor, 0])
    balance = [min((risk[trivial, 0] <= cut).mean(), (risk[hard, 0] > cut).mean()) for cut in cuts]
    cut = float(cuts[int(np.argmax(balance))])
    at_cut = int(np.argmin(np.abs(risk[:, 0] - cut)))
    beyond = risk[(risk[:, 0] > cut) & ~anchor]
    return [float(risk[at_cut, 0] - risk[at_cut, 1]), float(np.median(beyond[:, 1] - beyond[:, 2]))]


def measure(on_progress: Progress | None = None) -> dict[str, Any]:
    """Return all figures of the default probe. No figure counts an anchor; `everyday` is about other prompts."""
    rows, anchors = read_rows(), read_anchors()
    data = training_set(rows, anchors, on_progress=on_progress)
    plain = training_set(rows, None, on_progress=on_progress)
    read = served_features(rows, on_progress)
    found: dict[str, Any] = {"n_rows": len(rows), "n_kinds": len(set(rows.kind)), "n_anchors": len(anchors)}
    for name, part in (("with_anchors", data), ("without_anchors", plain)):
        left_out = left_out_by_source(part, rows)
        penalty = choose_penalty(left_out, rows)
        served = left_out_by_source(part, rows, read)
        found[name] = {"penalty": penalty, **left_out_figures(served[PENALTIES.index(penalty)], rows)}
        if part is data:
            found["kinds"] = kind_figures(rows, anchors, part)
            found["calibration"] = calibration_figures(fit_default(rows, anchors, data, penalty), rows)
    length = np.log([len(text) for text in rows.texts])
    found["prompt_length"] = left_out_figures(length, rows)
    found["everyday"] = everyday_figures(read_everyday())
    found["appended"] = {name: appended_figures(prompts) for name, prompts in read_appended().items()}
    return found


def served_features(rows: TierRows, on_progress: Progress | None = None) -> Features:
    """Return the features (n, d) of the rows as the served probe reads them, without their asides."""
    gate = AsideGate.read()
    return FeatureCache().features(
        MINILM_L6, [without_asides(text, gate) for text in rows.texts], on_progress=on_progress
    )


def left_out_figures(predicted: FloatArray, rows: TierRows, seed: int = 0) -> dict[str, Any]:
    """Return how the judged difficulty (n,) of files left out whole follows what the economy tier lost there.

    The rank correlation (Spearman) is over means of whole files and of kinds, with a bootstrap over files or kinds.
    """
    found: dict[str, Any] = {}
    for name, labels, least in (("sources", rows.source, 1), ("kinds", rows.group, _ROWS_OF_A_KIND)):
        units = [unit for unit in np.unique(labels) if (labels == unit).sum() >= least]
        judged = np.array([predicted[labels == unit].mean() for unit in units])
        lost = np.array([rows.losses[labels == unit, 0].mean() for unit in units])
        found[name] = {"n": len(units), **_correlation(judged, lost, seed)}
    return found


def _correlation(a: FloatArray, b: FloatArray, seed: int) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(_RESAMPLES):
        picked = rng.integers(len(a), size=len(a))
        draws.append(spearmanr(a[picked], b[picked])[0])
    low, high = np.nanpercentile(draws, [2.5, 97.5])
    return {"spearman": float(spearmanr(a, b)[0]), "low": float(low), "high": float(high)}


def calibration_figures(fitted: DefaultFit, rows: TierRows) -> dict[str, Any]:
    """Return the expected calibration error of each tier in each file, of rows whose kind was left out."""
    found: dict[str, Any] = {}
    for column, tier in enumerate(TIERS):
        errors = {}
        for source in np.unique(rows.source):
            known = (rows.source == source) & np.isfinite(rows.losses[:, column])
            if known.any():
                picked = np.flatnonzero(known)
                errors[str(source)] = ece(fitted.risk[picked, column], rows.losses[picked, column])
        found[tier] = {"by_source": errors, "worst": max(errors, key=lambda name: errors[name])}
    return found


def read_everyday() -> list[dict[str, str]]:
    """Return the everyday prompts of the tests: language, kind, difficulty and prompt. None was fitted on."""
    return [json.loads(line) for line in EVERYDAY.read_text("utf-8").splitlines()]


def read_appended() -> dict[str, list[dict[str, str]]]:
    """Return the prompts with asides in their own languages, by their set. None was fitted on.

    The sets "first" and "second" were looked at while the gate of asides was made, "third" only after that.
    """
    rows = [json.loads(line) for line in APPENDED.read_text("utf-8").splitlines()]
    return {name: [one for one in rows if one["set"] == name] for name in ("first", "second", "third")}


def appended_figures(prompts: Sequence[dict[str, str]], router: Router | None = None) -> dict[str, Any]:
    """Return what the served default policy does with prompts that have asides, and how many of 108 these flip.

    An aside in the prompt's own language stands behind each prompt, and in "English" the one of the first prompt.
    """
    router = router or Router.from_files()
    cheapest = router.policy(None).rules.file.names[0]

    def cheap(texts: Iterable[str]) -> npt.NDArray[np.bool_]:
        return np.array([router.decide(RouteQuery.from_prompt(text)).chosen == cheapest for text in texts])

    is_cheap = cheap(one["prompt"] for one in prompts)
    hard = np.array([one["difficulty"] == "hard" for one in prompts])
    flips = {}
    for name in ASIDES:
        own = cheap(f"{one['prompt']} {one[name]}" for one in prompts)
        english = cheap(f"{one['prompt']} {prompts[0][name]}" for one in prompts)
        flips[name] = {
            "of_108": 108 * float(np.mean(own != is_cheap)),
            "of_108_in_english": 108 * float(np.mean(english != is_cheap)),
        }
    return {
        "n": len(prompts),
        "languages": len({one["language"] for one in prompts}),
        "trivial_to_cheapest": share_of(is_cheap[~hard]),
        "hard_to_stronger": share_of(~is_cheap[hard]),
        "flips": flips,
    }


def everyday_figures(
    prompts: Sequence[dict[str, str]],
    router: Router | None = None,
    appended: Mapping[str, Sequence[str]] = KEPT_ASIDE,
) -> dict[str, Any]:
    """Return what the served default policy does with everyday prompts, and how often something appended flips it."""
    router = router or Router.from_files()
    cheapest = router.policy(None).rules.file.names[0]
    decide: Callable[[str], Any] = lambda text: router.decide(  # noqa: E731
        RouteQuery(messages=({"role": "user", "content": text},))
    )
    decisions = [decide(one["prompt"]) for one in prompts]
    is_cheap = np.array([decision.chosen == cheapest for decision in decisions])
    hard = np.array([one["difficulty"] == "hard" for one in prompts])
    language = np.array([one["language"] for one in prompts])
    flips = {}
    for name, sentences in appended.items():
        changed = [
            np.mean([(decide(f"{one['prompt']} {text}").chosen == cheapest) for one in prompts] != is_cheap)
            for text in sentences
        ]
        flips[name] = {"flips_of_108": 108 * float(np.mean(changed)), "worst_of_108": 108 * float(np.max(changed))}
    return {
        "n": len(prompts),
        "trivial_to_cheapest": share_of(is_cheap[~hard]),
        "hard_to_stronger": share_of(~is_cheap[hard]),
        "abstained": share_of(np.array([decision.abstained for decision in decisions])),
        "of_no_known_kind": share_of(np.array([not (one.kinds and one.kinds.known) for one in decisions])),
        "by_language": {
            str(one): {
                "trivial_to_cheapest": share_of(is_cheap[~hard & (language == one)]),
                "hard_to_stronger": share_of(~is_cheap[hard & (language == one)]),
            }
            for one in np.unique(language)
        },
        "flips": flips,
    }
