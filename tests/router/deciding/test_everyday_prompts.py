"""The embedded default sends trivial prompts to the cheapest tier and hard ones to stronger tiers, in many languages.

The prompts are ours, written for this test, and none was fitted on. Single prompts may go wrong; shares may not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from benchmarks.default_probe.anchors import read_anchors
from benchmarks.default_probe.measure import everyday_figures, read_everyday
from benchmarks.default_probe.variants import KEPT_ASIDE
from router.deciding.pipeline import Router

pytestmark = pytest.mark.usefixtures("_real_encoder")


@pytest.fixture(scope="module")
def figures(router: Router) -> dict[str, dict[str, float]]:
    return everyday_figures(read_everyday(), router, {})


def test_the_prompts_are_many_and_were_not_fitted_on() -> None:
    prompts = read_everyday()
    assert len(prompts) >= 150
    assert len({one["language"] for one in prompts}) >= 10
    assert not {one["prompt"] for one in prompts} & set(read_anchors().texts)


def test_trivial_prompts_stay_cheap_and_hard_ones_do_not(figures: dict[str, dict[str, float]]) -> None:
    assert figures["trivial_to_cheapest"]["share"] >= 0.8
    assert figures["hard_to_stronger"]["share"] >= 0.8
    assert figures["abstained"]["share"] <= 0.15


def test_no_language_is_left_behind(figures: dict[str, dict[str, dict[str, dict[str, float]]]]) -> None:
    shares = [side["share"] for one in figures["by_language"].values() for side in one.values()]
    assert np.min(shares) >= 0.5


#: How many of 108 decisions each sort of sentence may flip.
MOST_FLIPS = {"thanks": 4, "neutral sentence": 8, "flattery": 12}


def _check_flips(prompts: Sequence[dict[str, str]], router: Router) -> None:
    flips = everyday_figures(prompts, router, {what: KEPT_ASIDE[what] for what in MOST_FLIPS})["flips"]
    for what, most in MOST_FLIPS.items():
        assert flips[what]["flips_of_108"] <= most, what


def test_what_is_appended_seldom_flips_a_decision(router: Router) -> None:
    _check_flips(read_everyday()[::5], router)


@pytest.mark.slow
def test_what_is_appended_to_any_prompt_seldom_flips_a_decision(router: Router) -> None:
    _check_flips(read_everyday(), router)
