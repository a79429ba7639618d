"""Test whether served policies are worse than random choice at equal shares on groups they know nothing of.

Per fold of whole groups: fit on 55 % of the other prompts by text, tune on the rest to each target, and let the policy
that comes out, its abstention to the safe default included, decide every prompt of the fold.

The test in each group is by permutation: the policy's own choices dealt out at random over the group's prompts are
random choice at equal shares of every model, so the p-value is exact whatever the scores. Groups are many, so p-values
are also adjusted by Holm (1979); without that one group in forty falls below its 2.5 % by chance alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from probes.encoders.spec import MINILM_L6, EncoderSpec
from router.policies.loading import assemble
from router.policies.policy_file import PolicyFile
from router.tuning.certifying.calibration_set import calibration_set
from router.tuning.certifying.preparation import prepare_tuning
from router.tuning.certifying.rule_paths import USUAL_ASK, choose_by, rule_inputs
from router.tuning.certifying.settings import TuneSettings
from router.tuning.certifying.targets import Target
from router.tuning.certifying.tune import tune_policy
from router.tuning.fitting.fit import fit_probe
from router.tuning.judging.cross_validation import split_folds
from router.tuning.judging.slices import MIN_SLICE
from router.tuning.outcomes.candidates import PriceTable, by_cost, candidates_from_names, mean_lengths
from router.tuning.outcomes.datasets import Outcomes
from router.tuning.outcomes.holdout import left_out, rows_to_fit

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: Share of the prompts that are not fitted on, to tune with.
HOLDOUT = 0.45

#: Level of each group's one-sided test without correction, and of all groups of a policy together.
ALONE, TOGETHER = 0.025, 0.05


@dataclass(frozen=True)
class Decided:
    """Holds what policies tuned to one target decided on n prompts of groups that they know nothing of.

    Attributes:
        groups, texts: n of them, texts distinct within a fold. scores: (n, m). chosen: (n,) column of the model that
            answers. abstained: (n,) where that was the safe default for want of familiarity.
        reference: column of the reference. certified: for each fold whether its policy was certified.
    """

    groups: npt.NDArray[np.str_]
    scores: FloatArray
    chosen: IntArray
    abstained: npt.NDArray[np.bool_]
    reference: int
    certified: tuple[bool, ...]


def held_out_results(
    outcomes: Outcomes,
    features: npt.NDArray[np.float32],
    targets: Mapping[str, Target],
    *,
    folds: int,
    draws: int,
    prices: PriceTable | None = None,
    reference: str | None = None,
    spec: EncoderSpec = MINILM_L6,
    seed: int = 0,
) -> dict[str, Any]:
    """Return for each target what its served policies did over all held-out groups, and in each.

    outcomes: no gaps, cheapest model first, the last is the reference unless named. draws: permutations per group.
    prices: by model, for the cost rule; output lengths are means over the prompts fitted on.
    """
    settings = {
        name: TuneSettings((target,), models=outcomes.models, reference=reference, allow_uncertified=True)
        for name, target in targets.items()
    }
    parts: dict[str, list[Decided]] = {name: [] for name in targets}
    # The rows are split here, repeated texts included, so `calibration_set` must not take them for a file of the fit.
    outcomes = replace(outcomes, sources=())
    fold = split_folds(outcomes, folds, "group", seed)
    for number in np.unique(fold):
        test = fold == number
        # A text that also stands in a group left out is left out too.
        train = ~test & ~np.isin(outcomes.texts, [outcomes.texts[row] for row in np.flatnonzero(test)])
        for name, one in _decide(outcomes, features, train, test, settings, prices, spec, seed).items():
            parts[name].append(one)
    return {name: summary(_join(several), draws=draws, seed=seed) for name, several in parts.items()}


def _decide(
    outcomes: Outcomes,
    features: npt.NDArray[np.float32],
    train: npt.NDArray[np.bool_],
    test: npt.NDArray[np.bool_],
    settings: Mapping[str, TuneSettings],
    prices: PriceTable | None,
    spec: EncoderSpec,
    seed: int,
) -> dict[str, Decided]:
    """Fit and tune on rows of `train`, decide those of `test`, by the name of the setting."""
    row_of = {text: row for row, text in enumerate(outcomes.texts)}
    kept_back = train & left_out(outcomes, HOLDOUT, seed)
    fitted = np.flatnonzero(train & rows_to_fit(outcomes, kept_back))
    candidates = None
    if prices is not None:
        lengths = mean_lengths(outcomes.take(fitted))
        candidates = by_cost(candidates_from_names(outcomes.models, prices, litellm=False, lengths=lengths), USUAL_ASK)
    probe = fit_probe(outcomes.take(fitted), features[fitted], spec, title="held-out groups", seed=seed).probe
    unknown = calibration_set(outcomes.take(np.flatnonzero(test)), probe).outcomes
    prediction = probe.predict(features[[row_of[text] for text in unknown.texts]])
    found = {}
    for name, setting in settings.items():
        calibration = calibration_set(outcomes.take(np.flatnonzero(kept_back)), probe)
        inputs = prepare_tuning(probe, calibration, setting, candidates)
        known = features[[row_of[text] for text in inputs.calibration.outcomes.texts]]
        result, file = tune_policy(inputs, known, setting, name="tuned", probe_place="probe")
        assert isinstance(file, PolicyFile)  # noqa: S101  (the settings allow an uncertified policy)
        served = assemble(file, probe)
        seen_by_rules = rule_inputs(served, unknown.asks, prediction)
        columns = np.array([outcomes.models.index(one.name_in_probe) for one in file.candidates])
        found[name] = Decided(
            groups=np.array(unknown.groups),
            scores=unknown.scores,
            chosen=columns[choose_by((file.rule,), seen_by_rules)[0]],  # type: ignore[arg-type]
            abstained=seen_by_rules.fallback >= 0,
            reference=int(columns[inputs.data.reference]),
            certified=(result.certified,),
        )
    return found


def _join(parts: Sequence[Decided]) -> Decided:
    return Decided(
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("groups", "scores", "chosen", "abstained")
        ),
        parts[0].reference,
        tuple(one for part in parts for one in part.certified),
    )


def summary(decided: Decided, *, draws: int, seed: int = 0) -> dict[str, Any]:
    """Return figures over all prompts and per group of MIN_SLICE or more, and the groups below random."""
    groups = {}
    for number, group in enumerate(np.unique(decided.groups)):
        rows = decided.groups == group
        if rows.sum() >= MIN_SLICE:
            rng = np.random.default_rng([seed, number])
            groups[str(group)] = {
                **_figures(decided, rows),
                **against_random(decided.scores[rows], decided.chosen[rows], draws=draws, rng=rng),
            }
    adjusted = holm([one["p_below"] for one in groups.values()])
    for one, p in zip(groups.values(), adjusted, strict=True):
        one["p_below_holm"] = p
    n = [one["n"] for one in groups.values()]
    return {
        "folds": len(decided.certified),
        "certified_folds": sum(decided.certified),
        **_figures(decided, np.ones(len(decided.chosen), dtype=bool)),
        # Within groups: what is gained by sending one group more often to the strong model than another is not in it.
        "lift": float(np.average([one["lift"] for one in groups.values()], weights=n)) if groups else None,
        "groups": groups,
        "below_uncorrected": [name for name, one in groups.items() if one["p_below"] <= ALONE],
        "below_expected_by_chance": ALONE * len(groups),
        "below_after_holm": [name for name, one in groups.items() if one["p_below_holm"] <= TOGETHER],
        "above_uncorrected": [name for name, one in groups.items() if one["p_above"] <= ALONE],
    }


def _figures(decided: Decided, rows: npt.NDArray[np.bool_]) -> dict[str, float]:
    scores, chosen = decided.scores[rows], decided.chosen[rows]
    reached = scores[np.arange(len(chosen)), chosen]
    return {
        "n": len(chosen),
        "reference_share": float((chosen == decided.reference).mean()),
        "abstained_share": float(decided.abstained[rows].mean()),
        "loss": float((scores[:, decided.reference] - reached).mean()),
    }


def against_random(scores: FloatArray, chosen: IntArray, *, draws: int, rng: np.random.Generator) -> dict[str, float]:
    """Return the lift of choices (n,) over the same choices dealt at random, with one-sided permutation p-values.

    `p_below`: of being this far below or further; `p_above`: above. Where fewer than one deal in a hundred is as low,
    twenty times as many are dealt anew, so that a correction for many groups has digits to work on.
    """
    n = len(chosen)
    own = float(scores[np.arange(n), chosen].sum())
    # In expectation: every prompt gets each model as often as the choices hold it.
    expected = float((scores.mean(axis=0) * np.bincount(chosen, minlength=scores.shape[1])).sum())
    below, above = _as_extreme(scores, chosen, own, draws, rng)
    if below < 0.01:
        below, above = _as_extreme(scores, chosen, own, 20 * draws, rng)
    return {"lift": (own - expected) / n, "p_below": below, "p_above": above}


def _as_extreme(
    scores: FloatArray, chosen: IntArray, own: float, draws: int, rng: np.random.Generator
) -> tuple[float, float]:
    """Return the share of deals whose sum of scores is at most `own`, and at least `own`; the real one counts too."""
    rows = np.arange(len(chosen))
    below = above = 1
    for start in range(0, draws, 500):
        dealt = rng.permuted(np.tile(chosen, (min(500, draws - start), 1)), axis=1)
        sums = scores[rows, dealt].sum(axis=1)
        # Sums of the same numbers in another order may differ in the last bit.
        below += int((sums <= own + 1e-9).sum())
        above += int((sums >= own - 1e-9).sum())
    return below / (1 + draws), above / (1 + draws)


def holm(p: Sequence[float]) -> list[float]:
    """Return p-values adjusted so that the chance of any false one at or below a level is at most that level (Holm)."""
    order = np.argsort(p, kind="stable")
    steps = np.asarray(p)[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return [float(one) for one in adjusted]
