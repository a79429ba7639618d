"""The simulation of a queue agrees with formulas where there are formulas."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.bench_queueing import simulated

N = 100_000


def arrivals(rate: float, n: int = N) -> np.ndarray:
    return np.cumsum(np.random.default_rng(0).exponential(1 / rate, n))


@pytest.mark.parametrize("load", [0.3, 0.7])
def test_one_core_with_constant_times_waits_as_pollaczek_and_khinchine_say(load: float) -> None:
    expected = 1 + load / (2 * (1 - load))
    assert np.mean(simulated(arrivals(load), np.ones(N), 1, 1.0)) == pytest.approx(expected, rel=0.03)


def test_two_cores_with_exponential_times_wait_as_erlang_says() -> None:
    times = np.random.default_rng(1).exponential(1.0, N)
    # M/M/2 at a load of one half: the mean time is 1 / (1 - load^2).
    assert np.mean(simulated(arrivals(1.0), times, 2, 1.0)) == pytest.approx(4 / 3, rel=0.05)


def test_a_slowdown_of_two_makes_two_cores_as_fast_as_one_shared_core() -> None:
    times = np.random.default_rng(1).exponential(1.0, N)
    # Two calls at half the speed each are M/M/1 in its number of calls: 1 / (1 - load).
    assert np.mean(simulated(arrivals(0.5), times, 2, 2.0)) == pytest.approx(2.0, rel=0.05)


def test_a_call_goes_slower_only_while_another_is_worked_on() -> None:
    # The second comes when half of the first is done: 1 + 1 * 3 for the first. Then the second has 1 left of its 2.
    assert simulated([0.0, 1.0], [2.0, 2.0], 2, 3.0).tolist() == [4.0, 4.0]
    assert simulated([0.0, 9.0], [2.0, 2.0], 2, 3.0).tolist() == [2.0, 2.0]


def test_a_third_call_waits_for_a_core() -> None:
    assert simulated([0.0, 0.0, 0.0], [1.0, 1.0, 1.0], 2, 1.0).tolist() == [1.0, 1.0, 2.0]
