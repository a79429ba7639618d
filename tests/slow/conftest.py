"""Fixtures of the statistical tests: real routing outcomes, where the data and their features are at hand."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from routing_outcomes import OutcomesUnavailableError, load_mmlu, split_and_fit

POPULATIONS = 10
POPULATION_SIZE = 4200


@pytest.fixture(scope="session")
def routing_outcomes():
    """Ten splits of MMLU, each with the outcomes of 4,200 prompts that a probe fitted on the rest never saw.

    The features are read from the npz file that ELLE_MMLU_FEATURES names; see benchmarks/routing_outcomes.py.
    """
    try:
        features, drop = load_mmlu()
    except OutcomesUnavailableError as reason:
        pytest.skip(f"no real routing outcomes: {reason}")
    return [split_and_fit(features, drop, POPULATION_SIZE, seed) for seed in range(POPULATIONS)]
