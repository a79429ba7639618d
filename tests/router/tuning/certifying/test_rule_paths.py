"""Paths of rules: they run from safest to cheapest, and what they are said to choose is what the router chooses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from probes.probe import ProbePrediction
from router.asking.ask import Ask
from router.decision import ArtifactRef
from router.errors import ConfigError
from router.policies.choice import choose
from router.policies.eligibility import check_eligibility
from router.policies.loading import ServedPolicy
from router.policies.policy_file import CostRule, GainRule, PolicyFile
from router.policies.rules import Rules
from router.tuning.certifying.rule_paths import (
    PolicyPath,
    RuleInputs,
    choose_by,
    cost_path,
    ends_of_equal_rows,
    gain_path,
    lay_path,
    rule_inputs,
)
from router.values import Capability, Overrides

PRICES = (1.0, 5.0, 2.0, 20.0)


def serve(m: int, rule: dict[str, object], *, windows: bool = True) -> ServedPolicy:
    """Return a policy of m candidates of different prices, the cheaper ones with a small context window."""
    candidates = [
        {
            "name": f"m{i}",
            "model": f"openai/m{i}",
            "prices": {"input_usd_per_million_tokens": PRICES[i], "output_usd_per_million_tokens": 2 * PRICES[i]},
            "context_window_tokens": 200 * (i + 1) if windows and i < m - 1 else None,
        }
        for i in range(m)
    ]
    file = PolicyFile.model_validate(
        {
            "schema": "elle.policy/1",
            "name": "test",
            "probe": "somewhere",
            "candidates": candidates,
            "rule": rule,
            "safe_default": f"m{m - 2}",
        }
    )
    prices = tuple(c.prices for c in file.candidates)
    rules = Rules(file, prices, max_leverage=0.8)  # type: ignore[arg-type]
    return ServedPolicy(rules, ArtifactRef("test", "1", "0"), columns=tuple(reversed(range(m))))


def make_prompts(n: int, m: int, seed: int) -> tuple[list[Ask], ProbePrediction]:
    """Prompts of many lengths with coarse risks, so that ties are common."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 1000, size=n)
    asks = [Ask("why?", frozenset(), (), int(length), None) for length in lengths]
    risk = rng.integers(0, 9, size=(n, m)) / 8
    leverage = rng.random(n).astype(np.float32)
    return asks, ProbePrediction(risk.astype(np.float32), risk, leverage, leverage > 0.8)


@pytest.mark.parametrize("m", [2, 3, 4])
@pytest.mark.parametrize("kind", ["gain", "equal", "cost"])
def test_the_choices_of_a_path_are_the_decisions_of_the_router(m: int, kind: str) -> None:
    steps = [1.0] * (m - 1) if kind == "equal" else [float(i + 1) for i in range(m - 1)]
    path = cost_path() if kind == "cost" else gain_path(steps)
    path = path[:: len(path) // 37]
    asks, prediction = make_prompts(150, m, seed=m)
    first = serve(m, path[0].model_dump())
    found = choose_by(path, rule_inputs(first, asks, prediction))
    judged = first.judge_all(prediction)
    for rule, row in zip(path, found, strict=True):
        rules = serve(m, rule.model_dump()).rules
        expected = [
            choose(check_eligibility(rules, ask, Overrides()), j).chosen.name
            for ask, j in zip(asks, judged, strict=True)
        ]
        assert [f"m{number}" for number in row] == expected
    assert len(np.unique(found, axis=0)) > 5


@pytest.mark.parametrize("m", [2, 4])
@pytest.mark.parametrize("kind", ["gain", "cost"])
def test_along_a_path_prompts_only_become_cheaper(m: int, kind: str) -> None:
    path = cost_path() if kind == "cost" else gain_path([1.0, 3.0, 9.0][: m - 1])
    served = serve(m, path[0].model_dump(), windows=False)
    asks, prediction = make_prompts(300, m, seed=7)
    inputs = rule_inputs(served, asks, prediction)
    found = choose_by(path, inputs)
    spent = inputs.cost_usd[np.arange(300), found] if kind == "cost" else found.astype(float)
    judged = inputs.fallback < 0
    assert (np.diff(spent, axis=0) <= 0).all()
    most_expensive = np.full(300, m - 1) if kind == "gain" else inputs.cost_usd.argmax(axis=1)
    cheapest = np.zeros(300) if kind == "gain" else inputs.cost_usd.argmin(axis=1)
    # A tie at the very first threshold may already be cheap.
    assert (found[0] == most_expensive)[judged].mean() > 0.95
    assert (found[-1] == cheapest)[judged].all()


def test_a_path_is_laid_without_data_and_its_numbers_are_round() -> None:
    rules = gain_path([4.0])
    assert [rule.thresholds for rule in rules[:2]] == [(-1.0,), (-0.999,)]
    assert rules[-1].thresholds == (1.0,)
    assert len(rules) == 2001
    steep = gain_path([1.0, 100.0])
    assert steep[-1].thresholds == (1.0, 1.0)
    ratios = {round(r.thresholds[1] / r.thresholds[0]) for r in steep if 1e-4 < r.thresholds[0] < 1 / 100}
    assert ratios == {100}
    with pytest.raises(ConfigError, match="must have a positive price"):
        gain_path([1.0, 0.0])


def test_prompts_that_nobody_may_answer_are_refused() -> None:
    served = serve(2, {"kind": "gain", "thresholds": [0.1]})
    _, prediction = make_prompts(1, 2, seed=0)
    video = Ask("why?", frozenset({Capability.VIDEO}), (), 10, None)
    with pytest.raises(ConfigError, match=r"some candidate must be able to answer every prompt.*video"):
        rule_inputs(served, [video], prediction)


def test_rows_that_are_equal_are_represented_by_the_last_of_them() -> None:
    rows = np.array([[0, 1], [0, 1], [0, 0], [0, 0], [0, 1]], dtype=np.int16)
    assert ends_of_equal_rows(rows).tolist() == [1, 3, 4]


def test_the_fallback_is_the_next_stronger_candidate_that_may_answer() -> None:
    served = serve(4, {"kind": "gain", "thresholds": [0.0] * 3})
    _, prediction = make_prompts(2, 4, seed=0)
    far = ProbePrediction(prediction.loss, prediction.risk, np.array([0.9, 0.1], np.float32), np.array([True, False]))
    asks = [Ask("why?", frozenset(), (), length, None) for length in (100, 100)]
    inputs = rule_inputs(served, asks, far)
    assert isinstance(inputs, RuleInputs)
    assert inputs.fallback.tolist() == [2, -1]
    long = [Ask("why?", frozenset(), (), length, None) for length in (900, 100)]
    assert rule_inputs(served, long, far).fallback.tolist() == [3, -1]


def laid(m: int, kind: str | None, *, reference: int | None = None, unpriced: int | None = None) -> PolicyPath:
    """Return the path for m candidates on 40 prompts; `unpriced` is the number of one without a price."""
    served = serve(m, {"kind": "gain", "thresholds": [0.0] * (m - 1)}, windows=False)
    prices = [None if number == unpriced else price for number, price in enumerate(served.rules.prices)]
    served = replace(served, rules=replace(served.rules, prices=tuple(prices)))
    rules = lay_path(served, m - 1 if reference is None else reference, kind)
    return PolicyPath.of(rules, rule_inputs(served, *make_prompts(40, m, seed=3)))


@pytest.mark.parametrize(
    ("m", "unpriced", "kind"), [(2, None, GainRule), (3, None, CostRule), (4, None, CostRule), (3, 1, GainRule)]
)
def test_three_candidates_of_known_prices_are_ruled_by_cost_and_others_by_gain(
    m: int, unpriced: int | None, kind: type
) -> None:
    assert {type(rule) for rule in laid(m, None, unpriced=unpriced).rules} == {kind}


def test_a_rule_that_is_asked_for_is_taken_or_refused_with_what_to_do() -> None:
    assert isinstance(laid(2, "cost").rules[0], CostRule)
    assert isinstance(laid(4, "gain").rules[0], GainRule)
    with pytest.raises(ConfigError, match="a price of every candidate; give --prices, or use --rule gain"):
        laid(3, "cost", unpriced=0)
    with pytest.raises(ConfigError, match="must be gain or cost, got 'margin'"):
        laid(2, "margin")


def test_a_path_starts_at_the_best_quality_where_the_reference_is_not_the_last_tier() -> None:
    below = laid(3, "gain", reference=1).rules
    assert below[0] == GainRule(kind="gain", thresholds=(0.0, 0.0))
    assert below == laid(3, "gain").rules[-len(below) :]
    # Of these three the second is the most expensive, so that only another reference cuts the cost path.
    assert laid(3, "cost", reference=1).rules == cost_path()
    numbers = [rule.quality_per_usd for rule in laid(3, "cost", reference=2).rules]  # type: ignore[union-attr]
    assert (numbers[0], len(numbers)) == (0.0, 542)


def test_steps_up_weigh_as_their_prices_and_alike_without_prices() -> None:
    assert all(low == high for low, high in (rule.thresholds for rule in laid(3, "gain", unpriced=2).rules))  # type: ignore[union-attr]
    # The third of these candidates is cheaper than the second: the step counts as a thousandth of the first.
    ratios = {round(low / high) for low, high in (r.thresholds for r in laid(3, "gain").rules) if 0 < low < 1}  # type: ignore[union-attr]
    assert ratios == {1000}


def test_the_cost_path_tells_apart_a_ten_millionth_of_a_usd_and_a_hundred() -> None:
    numbers = [rule.quality_per_usd for rule in cost_path()]
    assert (numbers[0], numbers[-1]) == (-1e7, 1e7)
    assert min(n for n in numbers if n > 0) == 0.01
    assert numbers == sorted(numbers)
    assert numbers == [-n for n in reversed(numbers)]
    steps = np.diff(np.log10([n for n in numbers if n > 0]))
    assert steps == pytest.approx(np.full(540, 1 / 60), abs=1e-5)


def test_a_policy_of_a_path_is_written_with_the_safest_or_the_cheapest_of_its_rules() -> None:
    path = laid(2, "gain")
    assert len(path.chosen) == len(path.starts) == len(path.ends) > 3
    assert (path.starts[0], path.ends[-1]) == (0, len(path.rules) - 1)
    served = serve(2, {"kind": "gain", "thresholds": [0.0]}, windows=False)
    inputs = rule_inputs(served, *make_prompts(40, 2, seed=3))
    assert path.abstains.tolist() == (inputs.fallback >= 0).tolist()
    assert 0 < path.abstains.sum() < 40
    for number, chosen in enumerate(path.chosen):
        safest, cheapest = path.rule(number, safest=True), path.rule(number)
        assert safest.thresholds <= cheapest.thresholds  # type: ignore[union-attr]
        assert (choose_by([safest, cheapest], inputs) == chosen).all()
        if number:
            before = path.rules[path.starts[number] - 1]
            assert before == path.rule(number - 1)
            assert (choose_by([before], inputs)[0] != chosen).any()
