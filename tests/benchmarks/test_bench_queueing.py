"""The simulation of a queue agrees with formulas where there are formulas."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.bench_queueing import simulated


@pytest.mark.parametrize("load", [0.3, 0.7])
def test_one_core_with_constant_times_waits_as_pollaczek_and_khinchine_say(load: float) -> None:
    expected = 1 + load / (2 * (1 - load))
    assert np.mean(simulated(load, [1.0], [1.0], 1)) == pytest.approx(expected, rel=0.03)


def test_two_cores_with_exponential_times_wait_as_erlang_says() -> None:
    times = np.random.default_rng(1).exponential(1.0, 100_000)
    # M/M/2 at a load of one half: the mean time is 1 / (1 - load^2).
    assert np.mean(simulated(1.0, times, times, 2)) == pytest.approx(4 / 3, rel=0.05)


def test_a_call_that_nothing_runs_beside_takes_the_time_of_one_alone() -> None:
    took = simulated(0.001, [1.0], [5.0], 2)
    assert np.median(took) == 1.0
    assert took.max() >= 5.0
