"""Thanks, neutral sentences and flattery of many languages behind a prompt seldom change who answers by default.

Prompts and asides are ours. The set "third" was tried only after the gate of asides was finished.
"""

from __future__ import annotations

import pytest

from benchmarks.default_probe.measure import ASIDES, appended_figures, read_appended
from probes.asides.gate import AsideGate
from probes.asides.reading import without_asides
from router.deciding.pipeline import Router

#: How many of 108 decisions each sort of aside may flip.
MOST_FLIPS = {"thanks": 4, "neutral": 8, "flattery": 12}


def test_the_prompts_are_many() -> None:
    third = read_appended()["third"]
    assert len(third) >= 100
    assert len({one["language"] for one in third}) >= 10


@pytest.mark.parametrize("name", ["first", "second", "third"])
def test_most_asides_are_left_out(name: str) -> None:
    gate, prompts = AsideGate.read(), read_appended()[name]
    found = [
        without_asides(f"{one['prompt']} {one[sort]}", gate) == without_asides(one["prompt"], gate)
        for one in prompts
        for sort in ASIDES
    ]
    assert sum(found) / len(found) >= 0.5


@pytest.mark.slow
@pytest.mark.usefixtures("_real_encoder")
@pytest.mark.parametrize("name", ["first", "second", "third"])
def test_asides_seldom_change_who_answers(router: Router, name: str) -> None:
    figures = appended_figures(read_appended()[name], router)
    assert figures["trivial_to_cheapest"]["share"] >= 0.8
    assert figures["hard_to_stronger"]["share"] >= 0.8
    for sort, most in MOST_FLIPS.items():
        assert figures["flips"][sort]["of_108"] <= most, sort
        assert figures["flips"][sort]["of_108_in_english"] <= most, sort
