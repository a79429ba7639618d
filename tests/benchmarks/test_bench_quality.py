"""The benchmark's own parts: many models by price, transfer, and pages that follow from the JSON alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.bench_quality import updated
from benchmarks.quality import results_page
from benchmarks.quality.held_out import Decided, summary
from benchmarks.quality.many_models import (
    PRICES,
    Table,
    choose,
    compare,
    group_means,
    many_model_results,
    to_quality,
    tuned,
    undominated,
)
from benchmarks.quality.new_model import new_model_results
from benchmarks.quality.pairs import pair_results
from benchmarks.quality.tasks import task_results
from benchmarks.quality.transfer import SOURCES, domain_results, transfer_results
from router.tuning.outcomes.datasets import Outcomes
from tests.benchmarks.small_tasks import small_tasks
from tests.router.outcomes import make_outcomes


def table(n: int = 400, seed: int = 0) -> Table:
    """Three models; the dearest is right most often, the cheapest on a half that can be told."""
    rng = np.random.default_rng(seed)
    easy = np.arange(n) % 2 == 0
    scores = np.stack([easy, rng.random(n) < 0.6, rng.random(n) < 0.9], axis=1).astype(float)
    scores[easy, 2] = 1.0
    costs = np.tile([0.001, 0.01, 0.1], (n, 1))
    return Table(scores, costs, costs, np.arange(n) // 2 % 4, np.arange(n))


def test_no_price_buys_the_best_and_a_high_one_the_cheapest() -> None:
    one = table()
    assert (choose(one.scores, one.expected_costs, 0.0) == np.argmax(one.scores, axis=1)).mean() > 0.9
    assert (choose(one.scores, one.expected_costs, PRICES[-1]) == 0).all()


def test_a_model_that_a_cheaper_one_matches_is_no_candidate() -> None:
    quality, cost = np.array([0.5, 0.9, 0.9, 0.8]), np.array([1.0, 2.0, 3.0, 2.5])
    assert undominated(quality, cost).tolist() == [True, True, False, False]
    assert (choose(np.eye(4), np.ones((4, 4)), 0.0, np.array([True, False, False, False])) == 0).all()


def test_among_equals_the_cheaper_answers() -> None:
    one = table()
    assert (choose(np.ones((400, 3)), one.expected_costs, 0.0) == 0).all()


def test_who_knows_the_easy_half_gets_the_best_models_quality_for_less() -> None:
    one = table()
    known = np.stack([one.scores[:, 0], np.full(400, 0.6), np.full(400, 0.9)], axis=1)
    found = compare(tuned(known, one, {"x": to_quality(one, 2)})["x"], 2, one, resamples=100)
    assert found["quality_above"]["value"] == pytest.approx(0.0)
    assert found["cost_share"]["value"] == pytest.approx((0.001 + 0.1) / 2 / 0.1)
    assert found["cost_share"]["low"] < found["cost_share"]["value"] < found["cost_share"]["high"]


def test_the_outcomes_of_a_fold_have_no_say_in_its_choices() -> None:
    one = table()
    quality = np.random.default_rng(1).random((400, 3))
    inside = one.fold == 0
    other = replace(one, scores=np.where(inside[:, None], 1.0 - one.scores, one.scores))
    before, after = (tuned(quality, each, {"x": to_quality(each, 2)})["x"][inside] for each in (one, other))
    np.testing.assert_array_equal(before, after)


def test_group_means_come_from_other_folds() -> None:
    one = table()
    groups = np.where(np.arange(400) % 2 == 0, "even", "odd")
    found = group_means(one.scores, groups, one.fold)
    assert (found[groups == "even", 0] > found[groups == "odd", 0].max()).all()
    flipped = np.where((one.fold == 0)[:, None], 1.0 - one.scores, one.scores)
    np.testing.assert_array_equal(found[one.fold == 0], group_means(flipped, groups, one.fold)[one.fold == 0])


def held_out() -> dict[str, object]:
    rng = np.random.default_rng(3)
    groups = np.repeat(["a", "b"], 100)
    scores, chosen = rng.integers(0, 2, (200, 2)).astype(float), rng.integers(0, 2, 200)
    return summary(Decided(groups, scores, chosen, np.zeros(200, dtype=bool), 1, (True,)), draws=100)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """Return a whole result on small data, with the fast baselines."""
    from router.tuning.judging.baselines import quick_baselines

    outcomes, features = make_outcomes(300)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmarks.quality.pairs.all_baselines", quick_baselines)
        pair = pair_results(outcomes, features, resamples=20)
    new, new_features = make_outcomes(300, seed=1)
    transfer = transfer_results(outcomes, features, new, new_features, sizes=(100, 250), draws=3, resamples=20)
    domains = domain_results(*domain_outcomes(), n_labels=100, draws=2, resamples=20)
    tasks = small_tasks(tmp_path_factory.mktemp("tasks"))
    routers = {"probe": table().scores, "per_group_best": np.full((400, 3), 0.5)}
    many = many_model_results(table(), ("a", "b", "c"), routers, resamples=20)
    return {
        "created": "2026-01-02T03:04:05+00:00",
        "commits": {"mmlu": "0123456789abcdef", "tasks": "abcdef0123456789"},
        "uncommitted_changes": False,
        "hardware": {"processor": "a processor", "cores": 2},
        "seconds": {"mmlu": 1.0},
        "mmlu": pair,
        "gsm8k": pair,
        "mmlu_pro": pair,
        "transfer": transfer | {"domains": domains},
        "many_models": {"splits": {"random": many, "group": many}},
        "held_out_groups": {"mmlu": {"loss at most 0.1": held_out()}},
        "tasks": task_results(*tasks, labels=(3,), draws=2, resamples=20),
        "new_model": new_model_results(*tasks, sizes=(10,), splits=1, draws=2, resamples=20),
        "default": default_figures(),
    }


def default_figures() -> dict[str, object]:
    """Return figures as `benchmarks.default_probe.measure.measure` does, made up."""
    unit = {"n": 17, "spearman": 0.66, "low": 0.28, "high": 0.86}
    share = {"n": 250, "share": 0.87, "low": 0.82, "high": 0.9}
    return {
        "n_rows": 5000,
        "n_kinds": 80,
        "n_anchors": 793,
        **{key: {"sources": unit, "kinds": unit} for key in ("with_anchors", "without_anchors", "prompt_length")},
        "calibration": {
            "economy": {"by_source": {"math": 0.29, "bbh": 0.06}, "worst": "math"},
            "frontier": {"by_source": {"bbh": 0.04}, "worst": "bbh"},
        },
        "everyday": {
            "n": 497,
            **dict.fromkeys(("trivial_to_cheapest", "hard_to_stronger", "abstained"), share),
            "by_language": {"en": {}, "de": {}},
            "flips": {"thanks": {"flips_of_108": 2.6, "worst_of_108": 2.6}},
        },
    }


def domain_outcomes() -> tuple[Outcomes, np.ndarray]:
    """Half of it law, a little of it psychology."""
    outcomes, features = make_outcomes(400, seed=2)
    groups = ["jurisprudence"] * 200 + ["professional_psychology"] * 50 + ["astrology"] * 150
    return replace(outcomes, groups=tuple(groups)), features


def test_transfer_to_the_same_task_needs_no_labels_and_loses_nothing_with_some(found: dict[str, dict]) -> None:
    transfer = found["transfer"]
    assert transfer["no_new_labels"]["apgr"]["value"] > 0.7
    assert list(transfer["with_labels"]) == ["100"]  # 250 labels would leave too little to judge on
    one = transfer["with_labels"]["100"]
    assert len(one["weights"]) == 3
    for name in SOURCES:
        lead = one["ahead_of"][name]
        assert lead["value"] == pytest.approx(one["apgr"]["adapted"]["value"] - one["apgr"][name]["value"])
        assert lead["low"] <= lead["value"] <= lead["high"]
        assert lead["value"] > -0.02


def test_domains_with_too_few_prompts_are_left_out_and_the_old_task_is_the_rest(found: dict[str, dict]) -> None:
    assert list(found["transfer"]["domains"]) == ["law"]
    assert (found["transfer"]["domains"]["law"]["n_old"], found["transfer"]["domains"]["law"]["n_new"]) == (200, 200)


def test_the_pages_hold_what_the_json_says_and_the_rest_of_the_readme_stays(
    found: dict[str, dict], tmp_path: Path
) -> None:
    (tmp_path / "docs").mkdir()
    readme = tmp_path / "README.md"
    readme.write_text(f"above\n{results_page.BEGIN}\nyesterday\n{results_page.END}\nbelow\n", "utf-8")
    results_page.write_pages(found, tmp_path)
    once = readme.read_text("utf-8")
    assert once.startswith("above\n")
    assert once.endswith("below\n")
    assert "yesterday" not in once
    apgr = found["mmlu"]["splits"]["random"]["rankings"]["probe"]["apgr"]
    for page in (once, (tmp_path / "docs" / "results.md").read_text("utf-8")):
        assert f"{apgr['value']:.3f} [{apgr['low']:.3f}, {apgr['high']:.3f}]" in page
        assert "0123456789ab" in page
        assert f"{found['transfer']['with_labels']['100']['apgr']['adapted']['value']:.3f}" in page
    page = (tmp_path / "docs" / "results.md").read_text("utf-8")
    assert "| MMLU | loss at most 0.1 | 1 of 1 folds |" in page
    assert "Commit 0123456789ab and abcdef012345, 2026-01-02" in page
    assert "12 puzzle tasks" in page
    assert "| **added to the probe (`--add`)** |" in page
    assert "| math | **0.290** |  |" in page
    assert "| thanks | 2.6 | 2.6 |" in page
    results_page.write_pages(found, tmp_path)
    assert readme.read_text("utf-8") == once


@pytest.mark.parametrize("part", ["tasks", "new_model", "default"])
def test_no_part_of_the_page_can_be_left_out(found: dict[str, dict], part: str) -> None:
    with pytest.raises(KeyError, match=part):
        list(results_page.results_page({name: one for name, one in found.items() if name != part}))


def test_parts_that_are_measured_anew_replace_those_of_an_earlier_run_with_their_commits() -> None:
    old = {"mmlu": 1, "tasks": 2, "commits": {"mmlu": "a", "tasks": "a"}, "seconds": {"mmlu": 5.0, "tasks": 6.0}}
    new = {"tasks": 3, "commits": {"tasks": "b"}, "seconds": {"tasks": 7.0}}
    joined = updated({**old, "uncommitted_changes": True}, {**new, "uncommitted_changes": False})
    assert (joined["mmlu"], joined["tasks"]) == (1, 3)
    assert joined["commits"] == {"mmlu": "a", "tasks": "b"}
    assert joined["seconds"] == {"mmlu": 5.0, "tasks": 7.0}
    assert joined["uncommitted_changes"]
    assert updated(None, new) is new


def test_a_readme_without_markers_is_refused_and_nothing_is_written(found: dict[str, dict], tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text("nothing here", "utf-8")
    with pytest.raises(ValueError, match="must hold <!-- results -->"):
        results_page.write_pages(found, tmp_path)
    assert not (tmp_path / "docs" / "results.md").exists()
