"""The estimators agree with a known library, hit the truth of a simulation, and say when they know nothing."""

from __future__ import annotations

import numpy as np
import pytest

from router.comparing.estimators import LoggedRewards, dr, estimate, estimated_difference, ips, overlap_of, snips


def simulated(n: int, seed: int, *, share: float = 0.2, model_error: float = 0.0) -> tuple[LoggedRewards, float]:
    """Return logged rewards of three actions for a policy, and the policy's true mean reward.

    The logging policy takes the action of the context with 1 - share, and each of the others with share / 2.
    """
    rng = np.random.default_rng(seed)
    context = rng.integers(0, 3, n)
    truth = np.array([[0.9, 0.5, 0.2], [0.4, 0.7, 0.6], [0.3, 0.8, 0.5]])
    wanted = np.array([1, 1, 2])[context]
    explores = rng.random(n) < share
    logged = np.where(explores, (context + rng.integers(1, 3, n)) % 3, context)
    propensity = np.where(logged == context, 1 - share, share / 2)
    rewards = (rng.random(n) < truth[context, logged]).astype(float)
    model = truth + model_error
    rows = LoggedRewards(
        weights=np.where(wanted == logged, 1 / propensity, 0.0),
        rewards=rewards,
        expected_of_logged=model[context, logged],
        expected_of_policy=model[context, wanted],
        supported=np.ones(n, dtype=bool),
    )
    return rows, float(truth[np.arange(3), [1, 1, 2]].mean())


def test_ips_and_snips_agree_with_vw_estimators() -> None:
    pytest.importorskip("estimators", reason="the package vw-estimators is not installed")
    from estimators.bandits import ips as vw_ips
    from estimators.bandits import snips as vw_snips

    rows, _ = simulated(500, seed=1)
    known = vw_ips.Estimator(), vw_snips.Estimator()
    for weight, reward in zip(rows.weights.tolist(), rows.rewards.tolist(), strict=True):
        for one in known:
            # They take the probabilities of the logged and of the new policy, whose ratio is the weight.
            one.add_example(1.0 / weight if weight else 0.5, reward, 1.0 if weight else 0.0)
    assert ips(*rows.columns) == pytest.approx(known[0].get(), abs=1e-12)
    assert snips(*rows.columns) == pytest.approx(known[1].get(), abs=1e-12)


@pytest.mark.parametrize("model_error", [0.0, 0.3])
def test_the_estimates_hit_the_truth_whether_or_not_the_model_is_right(model_error: float) -> None:
    errors = {"ips": [], "snips": [], "dr": []}  # type: dict[str, list[float]]
    for seed in range(200):
        rows, truth = simulated(1000, seed, model_error=model_error)
        for name, one in (("ips", ips), ("snips", snips), ("dr", dr)):
            errors[name].append(one(*rows.columns) - truth)
    for name, found in errors.items():
        # Three standard errors of the mean of 200 runs.
        assert abs(np.mean(found)) < 3 * np.std(found) / np.sqrt(200), name
    if not model_error:
        assert np.std(errors["dr"]) < np.std(errors["ips"])


@pytest.mark.slow
def test_the_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    covered = {"ips": 0, "snips": 0, "dr": 0}
    for seed in range(60):
        rows, truth = simulated(600, seed)
        for name, interval in estimate(rows, seed=seed).items():
            covered[name] += interval.low <= truth <= interval.high
    # Of 60 draws with 95 %, fewer than 51 happen in less than one of 1,000 runs.
    assert min(covered.values()) >= 51, covered


def test_a_difference_is_paired() -> None:
    rows, _ = simulated(500, seed=3)
    assert all((one.value, one.low, one.high) == (0, 0, 0) for one in estimated_difference(rows, rows).values())


def test_too_little_overlap_is_said_in_words() -> None:
    rows, _ = simulated(2000, seed=4)
    assert overlap_of(rows).why_not_enough == ""
    few, _ = simulated(100, seed=4)
    assert "worth" in overlap_of(few).why_not_enough
    unsupported = LoggedRewards(*rows.columns, supported=np.arange(2000) % 10 > 0)
    assert "10% of the requests" in overlap_of(unsupported).why_not_enough
    nothing = LoggedRewards(*(np.empty(0),) * 4, supported=np.empty(0, dtype=bool))
    assert "worth 0" in overlap_of(nothing).why_not_enough


def test_the_effective_sample_size_of_equal_weights_is_their_number() -> None:
    rows = LoggedRewards(np.array([2.0, 2.0, 0.0, 0.0]), *(np.zeros(4),) * 3, supported=np.ones(4, dtype=bool))
    overlap = overlap_of(rows)
    assert (overlap.n_rows, overlap.n_matched, overlap.effective, overlap.max_weight) == (4, 2, 2.0, 2.0)


def test_an_interval_is_unknown_if_some_resamples_match_no_row() -> None:
    zeros = np.zeros(4)
    few = LoggedRewards(np.array([2.0, 0, 0, 0]), np.ones(4), zeros, zeros, np.ones(4, dtype=bool))
    for found in (estimate(few)["snips"], estimated_difference(few, few)["snips"]):
        assert not found.is_known
        assert (found.low, found.high) == (found.value, found.value)
    assert estimate(few)["ips"].is_known
