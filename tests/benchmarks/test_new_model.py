"""The benchmark of a model that joins a probe, on a small file: who is left out, what is judged, and the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.quality import new_model
from benchmarks.quality.new_model import COMPARED, NAMES, new_model_results, new_model_section, split_rows
from tests.benchmarks.small_tasks import small_tasks


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    data = small_tasks(tmp_path_factory.mktemp("tasks"), n_rows=30)
    return new_model_results(*data, sizes=(10, 50, 500), splits=2, draws=2, resamples=30)


def test_every_model_but_the_strongest_is_left_out(found: dict[str, Any]) -> None:
    assert found["strong"] == "large"
    assert found["models"] == ["middle", "small", "tiny"]
    assert list(found["by_labels"]) == ["10", "50"]  # a fifth of 360 prompts has no 500 labels
    assert set(found["by_model_at_50"]) == set(found["models"])
    assert found["draws"] == 4


def test_figures_are_means_with_intervals_and_leads_are_paired(found: dict[str, Any]) -> None:
    one = found["by_labels"]["50"]
    for name in COMPARED:
        lead = one["ahead_of"][name]
        assert lead["value"] == pytest.approx(one["apgr"]["added"]["value"] - one["apgr"][name]["value"])
        assert lead["low"] <= lead["value"] <= lead["high"]
    assert one["apgr"]["difficulty"] == found["by_labels"]["10"]["apgr"]["difficulty"]
    assert sum(one["ways"].values()) == pytest.approx(1.0)


def test_the_three_parts_share_no_text(tmp_path: Path) -> None:
    outcomes, _ = small_tasks(tmp_path)
    parts = split_rows(outcomes, 0)
    texts = [{outcomes.texts[row] for row in rows} for rows in (parts.fitted, parts.labelled, parts.judged)]
    assert sum(map(len, texts)) == len(set(outcomes.texts))
    assert [round(len(one) / len(outcomes), 1) for one in texts] == [0.5, 0.2, 0.3]


def test_an_interval_over_models_is_wider_than_one_over_draws_alone() -> None:
    apart = np.repeat([[0.3], [0.5], [0.7]], 20, axis=1)
    found = new_model._interval(apart, 500, 0)
    assert found["value"] == pytest.approx(0.5)
    assert found["high"] - found["low"] > 0.15
    alike = new_model._interval(np.tile(np.linspace(0.4, 0.6, 20), (3, 1)), 500, 0)
    assert alike["high"] - alike["low"] < 0.1


def test_the_section_has_a_row_for_every_way(found: dict[str, Any]) -> None:
    page = list(new_model_section(found))
    assert sum(any(line.startswith(f"| {label} |") for label in NAMES.values()) for line in page) == len(NAMES)
    value = found["by_labels"]["50"]["apgr"]["added"]
    assert f"{value['value']:.3f} [{value['low']:.3f}, {value['high']:.3f}]" in "\n".join(page)
