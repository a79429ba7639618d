"""Selections as theorems: exact counts, invariances, the slow way gives the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.embeddings.selection import change, keep_between, next_to_label, stratified, suspicious
from probes.errors import DataError, DimensionError

losses_of = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60)
shares = st.sampled_from([0.0, 0.1, 0.25, 0.29, 0.4])


@given(losses_of, shares, shares)
def test_exactly_the_asked_shares_go_and_nothing_kept_lies_beyond_what_went(loss, easiest, hardest):
    loss = np.array(loss)
    keep = keep_between(loss, drop_easiest=easiest, drop_hardest=hardest)
    low, high = round(easiest * 100) * loss.size // 100, round(hardest * 100) * loss.size // 100
    assert keep.sum() == loss.size - low - high
    ranked = np.sort(loss)
    if keep.any():
        np.testing.assert_array_equal(np.sort(loss[keep]), ranked[low : loss.size - high])


@given(losses_of)
def test_dropping_nothing_keeps_everything(loss):
    assert keep_between(loss).all()


def test_ties_are_broken_by_order():
    assert keep_between([1.0, 1.0, 1.0, 1.0], drop_easiest=0.25, drop_hardest=0.25).tolist() == [0, 1, 1, 0]


@given(losses_of, st.data())
def test_a_stratified_sample_has_the_asked_size_and_no_sample_twice(loss, data):
    n_select = data.draw(st.integers(1, len(loss)))
    strata = data.draw(st.integers(1, len(loss)))
    chosen = stratified(loss, n_select, strata=strata)
    assert len(set(chosen.tolist())) == chosen.size == n_select
    assert set(chosen.tolist()) <= set(range(len(loss)))


def test_a_stratified_sample_takes_equally_many_from_every_tenth():
    loss = np.random.default_rng(0).permutation(1000).astype(float)
    chosen = stratified(loss, 200)
    assert np.bincount((loss[chosen] // 100).astype(int)).tolist() == [20] * 10
    assert (np.diff(loss[chosen] // 100) >= 0).all(), "easiest class first"
    np.testing.assert_array_equal(chosen, stratified(loss, 200))
    assert not np.array_equal(chosen, stratified(loss, 200, seed=1))


def test_a_class_that_runs_out_is_made_up_for():
    assert sorted(stratified(np.arange(7.0), 7, strata=3)) == list(range(7))


def test_the_planted_corruption_is_flagged_and_little_else():
    rng = np.random.default_rng(0)
    loss = rng.normal(size=10_000)
    loss[:50] += 8
    flagged = suspicious(loss, deviations=5)
    assert flagged[:50].mean() > 0.95
    assert flagged[50:].sum() <= 1
    np.testing.assert_array_equal(flagged, suspicious(3 * loss + 7, deviations=5))
    by_share = suspicious(loss, share=0.005)
    assert by_share.sum() == 50
    assert loss[by_share].min() >= loss[~by_share].max()


def test_without_any_spread_deviations_mean_nothing():
    with pytest.raises(DataError, match="no usual spread"):
        suspicious([1.0, 1.0, 1.0, 2.0], deviations=3)


def slow_next_to_label(X, n_select, gain, labelled, alpha):
    """Compute D-optimal design by its definition, with one fresh inverse per step."""
    mean, scale = X.mean(0), X.std(0)
    Z, known = (X - mean) / scale, (labelled - mean) / scale
    A = known.T @ known + alpha * np.eye(X.shape[1])
    chosen = []
    for _ in range(n_select):
        leverage = np.einsum("ij,jk,ik->i", Z, np.linalg.inv(A), Z)
        score = gain * np.log1p(leverage)
        score[chosen] = -np.inf
        chosen.append(int(np.argmax(score)))
        A += np.outer(Z[chosen[-1]], Z[chosen[-1]])
    return chosen


@pytest.mark.parametrize("alpha", [0.1, 10.0])
def test_the_fast_greedy_choice_is_the_slow_one(alpha):
    rng = np.random.default_rng(1)
    X, labelled, gain = rng.normal(size=(80, 5)) * [1, 2, 3, 4, 5], rng.normal(size=(6, 5)), rng.random(80)
    fast = next_to_label(X, 25, gain=gain, labelled=labelled, alpha=alpha)
    assert fast.tolist() == slow_next_to_label(X, 25, gain, labelled, alpha)


def test_duplicates_wait_until_something_new_has_been_seen():
    base = np.eye(4) * 3
    X = np.concatenate([base, base, base])
    first = next_to_label(X, 4, alpha=0.01)
    assert sorted(first % 4) == [0, 1, 2, 3], "one of each before any twin"


def test_samples_without_gain_come_last_and_known_ground_is_left_alone():
    rng = np.random.default_rng(2)
    X = rng.normal(size=(40, 3))
    gain = np.zeros(40)
    gain[[4, 17, 30]] = 1.0
    assert set(next_to_label(X, 3, gain=gain).tolist()) == {4, 17, 30}
    # One direction is known inside out: the other is asked about first.
    axis = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    assert next_to_label(axis, 1, labelled=np.tile([[1.0, 0.0], [-1.0, 0.0]], (50, 1))).item() in (1, 3)


def test_chosen_labels_teach_a_ridge_more_than_random_ones():
    rng = np.random.default_rng(3)
    scale = np.array([5.0, 5.0] + [0.2] * 8)
    # Most of the pool sits in two directions; a few samples show the other eight.
    pool = rng.normal(size=(600, 10)) * scale
    pool[:40] = rng.normal(size=(40, 10)) * 5
    truth = rng.normal(size=10)
    y = pool @ truth + rng.normal(size=600) * 0.1

    def error(chosen):
        X = pool[chosen]
        weights = np.linalg.solve(X.T @ X + 0.1 * np.eye(10), X.T @ y[chosen])
        return np.linalg.norm(weights - truth)

    active = error(next_to_label(pool, 20))
    by_chance = [error(rng.choice(600, 20, replace=False)) for _ in range(200)]
    assert active < np.quantile(by_chance, 0.05)


def test_a_common_shift_is_no_change_and_a_planted_one_is_found():
    rng = np.random.default_rng(4)
    before = rng.random(2000)
    after = before + 0.3 + rng.normal(size=2000) * 0.02
    after[:5] += 0.5
    after[5:8] -= 0.5
    found = change(before, after, deviations=6)
    assert np.flatnonzero(found.flagged).tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(found.delta, after - before)
    both = change(before, after, deviations=6, either_way=True)
    assert np.flatnonzero(both.flagged).tolist() == list(range(8))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: keep_between([]), DimensionError, r"loss must have shape \(n,\)"),
        (lambda: keep_between([1.0, np.nan]), DataError, "loss must be finite, sample 1"),
        (
            lambda: keep_between([1.0], drop_easiest=1.0),
            DataError,
            r"drop_easiest must be a share in \[0, 1\), got 1.0",
        ),
        (
            lambda: keep_between([1.0], drop_easiest=0.5, drop_hardest=0.5),
            DataError,
            "must leave something, got 0.5 and 0.5",
        ),
        (lambda: stratified([1.0, 2.0], 3), DataError, "between 1 and the 2 samples there are, got 3"),
        (lambda: stratified([1.0, 2.0], 1, strata=3), DataError, "strata must lie between 1 and the 2"),
        (lambda: suspicious([1.0, 2.0]), DataError, "either deviations or share"),
        (lambda: suspicious([1.0, 2.0], share=0.1, deviations=1), DataError, "either deviations or share"),
        (lambda: suspicious([1.0, 2.0], deviations=-1), DataError, "above 0, got -1"),
        (lambda: next_to_label([[1.0], [2.0]], 0), DataError, "got 0"),
        (lambda: next_to_label([[1.0], [np.inf]], 1), DataError, "features must be finite, sample 1"),
        (
            lambda: next_to_label([[1.0], [2.0]], 1, gain=[1.0]),
            DimensionError,
            "each of the 2 samples, got 1",
        ),
        (lambda: next_to_label([[1.0], [2.0]], 1, gain=[1.0, -2.0]), DataError, "got -2.0 for sample 1"),
        (lambda: next_to_label([[1.0], [2.0]], 1, labelled=[[1.0, 2.0]]), DimensionError, r"shape \(n, 1\)"),
        (lambda: next_to_label([[1.0], [2.0]], 1, alpha=0), DataError, "alpha must be above 0"),
        (lambda: change([1.0, 2.0], [1.0]), DimensionError, "after must have one value for each of the 2"),
        (lambda: change([1.0, 2.0], [1.0, 3.0], deviations=0), DataError, "deviations must be above 0"),
    ],
)
def test_what_cannot_be_selected_from_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
