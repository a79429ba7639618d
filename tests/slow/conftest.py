"""Fixtures of the statistical tests: real routing outcomes, where the data and their features are at hand."""

from __future__ import annotations

import pytest

from benchmarks.routing_outcomes import OutcomesUnavailableError, load_mmlu, split_and_fit

POPULATIONS = 10
POPULATION_SIZE = 4200


@pytest.fixture(scope="session")
def routing_outcomes():
    """Ten splits of MMLU, each with the outcomes of 4,200 prompts that a probe fitted on the rest never saw."""
    try:
        features, losses = load_mmlu()
    except OutcomesUnavailableError as reason:
        pytest.skip(f"no real routing outcomes: {reason}")
    return [split_and_fit(features, losses, POPULATION_SIZE, seed) for seed in range(POPULATIONS)]
