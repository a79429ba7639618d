"""`PromptScorer`: the C function computes what numpy computes, and finds what is not finite."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from probes.probe import DifficultyProbe
from probes.regression.linear import Leverage, LinearProbe
from probes.scoring.prompt_scorer import PromptScorer
from tests.probes.kinds.made_kinds import made_kinds, made_rows


def scorers(probe: DifficultyProbe) -> tuple[PromptScorer, PromptScorer]:
    """Return the scorer in C and the one in numpy; skip without a compiler."""
    both = [PromptScorer(probe.linear, probe.leverage, probe.kinds, compiled=compiled) for compiled in (True, False)]
    if not both[0].is_compiled:
        pytest.skip("the package was installed without a C compiler")
    return both[0], both[1]


def wide_probe(n_features: int, n_factors: int) -> tuple[LinearProbe, Leverage]:
    rng = np.random.default_rng(n_features)
    linear = LinearProbe(rng.normal(size=(3, n_features)), rng.normal(size=3), np.ones(3))
    factor = rng.normal(size=(n_factors, n_features)) / n_features
    return linear, Leverage(rng.normal(size=n_features), np.ones(n_features), factor, 0.02, 0.001, 0.0)


def test_the_compiled_scores_are_those_of_numpy(make_probe: Callable[..., DifficultyProbe]) -> None:
    compiled, plain = scorers(replace(make_probe(), kinds=made_kinds()))
    for x in made_rows(20, 8).features:
        found, expected = compiled.score(x), plain.score(x)
        assert found.loss == pytest.approx(expected.loss, rel=1e-5, abs=1e-6)
        assert found.leverage == pytest.approx(expected.leverage, rel=1e-4)
        assert found.kinds is not None
        assert expected.kinds is not None
        assert found.kinds.known == expected.kinds.known
        assert [one.name for one in found.kinds.nearest] == [one.name for one in expected.kinds.nearest]
        shares = [one.share for one in expected.kinds.nearest]
        assert [one.share for one in found.kinds.nearest] == pytest.approx(shares, rel=1e-3, abs=1e-9)
        alone = compiled.score(x, with_kinds=False)
        assert alone == found._replace(kinds=None)


@pytest.mark.parametrize("n_features", [1, 31, 32, 33, 100, 768, 8192])
def test_every_number_of_features_is_summed_whole(n_features: int) -> None:
    linear, leverage = wide_probe(n_features, n_factors=5)
    scorer = PromptScorer(linear, leverage, None)
    x = np.random.default_rng(1).normal(size=n_features).astype(np.float32)
    found = scorer.score(x)
    exact = linear.coef.astype(np.float64) @ x + linear.intercept
    assert found.loss == pytest.approx(exact.tolist(), rel=1e-4, abs=1e-3)
    assert found.leverage == pytest.approx(float(leverage.score(x)), rel=1e-3)
    assert found.kinds is None


def test_more_features_than_the_c_function_takes_are_scored_by_numpy() -> None:
    linear, leverage = wide_probe(8193, n_factors=2)
    scorer = PromptScorer(linear, leverage, None)
    assert not scorer.is_compiled
    assert len(scorer.score(np.zeros(8193, np.float32)).loss) == 3


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_features_that_are_not_finite_or_too_large_give_a_leverage_that_is_not_finite_and_no_kinds(
    value: float, make_probe: Callable[..., DifficultyProbe]
) -> None:
    for scorer in scorers(replace(make_probe(), kinds=made_kinds())):
        x = made_rows(1, 8).features[0].copy()
        x[3] = value
        found = scorer.score(x)
        assert not np.isfinite(found.leverage)
        assert found.kinds is None


def test_ties_are_in_the_order_of_the_kinds(make_probe: Callable[..., DifficultyProbe]) -> None:
    kinds = made_kinds()
    twins = replace(kinds, means=np.repeat(kinds.means[:1], len(kinds.names), axis=0))
    for scorer in scorers(replace(make_probe(), kinds=twins)):
        near = scorer.score(kinds.means[0]).kinds
        assert near is not None
        assert [one.name for one in near.nearest] == list(kinds.names[:3])


def test_a_probe_that_was_sent_to_another_process_predicts_the_same(make_probe: Callable[..., DifficultyProbe]) -> None:
    probe = replace(make_probe(), kinds=made_kinds())
    sent = pickle.loads(pickle.dumps(probe))  # noqa: S301  (as Ray and `multiprocessing` do)
    for x in made_rows(3, 8).features:
        assert sent.predict_one(x) == probe.predict_one(x)
