"""Write the notes that `elle tune` prints about the calibration prompts, the costs and the policy."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from router.money import usd_text
from router.tuning.certifying.calibration_set import CalibrationSet
from router.tuning.certifying.settings import TuneSettings
from router.tuning.certifying.targets import LossData

#: From this share of the draws on, a warning says that the calibration prompts are not like the data.
WARN_CHANGED = 0.01


def calibration_notes(calibration: CalibrationSet, data: LossData) -> Iterator[str]:
    """Yield what a reader must know about the calibration prompts."""
    n = len(calibration.outcomes)
    if calibration.changed_share >= WARN_CHANGED:
        yield (
            f"WARNING: for {calibration.changed_share:.1%} of the rows the calibration prompts are not like the data, "
            "because the fit saw their text; the certificate says nothing about such requests. Fit with --holdout and "
            "tune on the very same file, or give requests of their own with --calibration FILE."
        )
    if calibration.n_seen_kept:
        yield (
            f"{calibration.n_seen_kept:,} of {n:,} prompts have a text that the fit saw and are kept: the certificate "
            "holds if they are other requests than those of the fit."
        )
    if calibration.n_unused:
        yield (
            f"neither the fit nor the certificate uses {calibration.n_unused:,} of the rows: the certificate did not "
            "draw them, and the fit does not know their text."
        )
    if calibration.n_informative:
        yield (
            f"{calibration.n_informative:,} rows were chosen because their label teaches much (`drawn`), and not at "
            "random; the certificate does not rest on them."
        )
    if calibration.outcomes.n_averaged:
        yield (
            f"{calibration.outcomes.n_averaged:,} labels have the same model and prompt_id as another label and were "
            "averaged with it into one draw; if they are different requests, give each a prompt_id of its own."
        )
    between = int((~np.isin(data.scores, (0.0, 1.0))).any(axis=1).sum())
    if between and not data.graded and data.human is None:
        yield (
            f"{between:,} of {n:,} prompts have scores between 0 and 1, which the bound for scores of 0 and 1 rounds "
            "against the policy. --bound betting does not round, but is another attempt on the same data."
        )


def cost_notes(data: LossData, n_estimated: int, settings: TuneSettings) -> Iterator[str]:
    """Yield what a reader must know about the costs and the candidates. `n_estimated` counts estimated costs."""
    if not np.isfinite(data.paid_usd).all():
        yield "the prices of some candidates are not known, so no costs are given; see --prices."
    elif n_estimated:
        yield (
            f"{n_estimated:,} of {data.paid_usd.size:,} costs are estimates: they rest on list prices, on the length "
            "of the prompt for input tokens, and on the candidate's expected_output_tokens."
        )
    if any(target.kind == "max_cost_usd_per_1k" for target in settings.targets) and data.ceiling_usd is not None:
        yield f"the cost target assumes that no request costs more than {usd_text(data.ceiling_usd)}."
    if settings.candidates is None:
        yield "set each candidate's `model` to its LiteLLM model string before serving; the certificate stays valid."
